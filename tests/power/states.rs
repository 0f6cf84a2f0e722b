//! What can be on the disk after the power went: which requests of a recording have reached it.
//!
//! Whatever was written before a flush that was answered is there. Of the writes after it any may be there or
//! not, and one of them may be there in part; a sector (512 bytes) is written or not written.

use std::fmt;
use std::str::FromStr;

use super::blocklog::{Request, SECTOR};

/// Epochs of at most this many writes are taken in all their subsets.
const ALL_SUBSETS: usize = 8;
/// Subsets drawn of a longer one.
const DRAWN: u64 = 64;
/// Tears of one write are at every sector up to this many, and as many spread over a longer one.
const TEARS: usize = 8;

/// One state of the disk. Its text is its id: `120+123+125.3` is the first 120 requests, all of request 123,
/// and the first 3 sectors of request 125.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// So many requests are there as a whole.
    pub first: usize,
    /// Later ones that are there too, in order.
    pub more: Vec<Part>,
}

/// A request, or its first sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// Its number.
    pub request: usize,
    /// So many sectors of it; none if all are there.
    pub sectors: Option<usize>,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        for part in &self.more {
            write!(f, "+{}", part.request)?;
            part.sectors.map_or(Ok(()), |n| write!(f, ".{n}"))?;
        }
        Ok(())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |t: &str| t.parse::<usize>().map_err(|_| format!("'{text}' is no state: 120+123+125.3"));
        let mut parts = text.split('+');
        let first = number(parts.next().unwrap_or_default())?;
        let part = |text: &str| -> Result<Part, String> {
            let (request, sectors) = text.split_once('.').map_or((text, None), |(r, n)| (r, Some(n)));
            Ok(Part { request: number(request)?, sectors: sectors.map(number).transpose()? })
        };
        Ok(State { first, more: parts.map(part).collect::<Result<_, _>>()? })
    }
}

/// A way in which the power can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Everything up to one request, nothing after it.
    Prefix,
    /// Between two flushes some writes were lost, and later ones were not.
    Reordered,
    /// The last write is there in part.
    Torn,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Prefix => "prefixes",
            Class::Reordered => "reordered",
            Class::Torn => "torn",
        })
    }
}

/// All states of one class.
pub fn states(requests: &[Request], class: Class) -> Vec<State> {
    match class {
        Class::Prefix => (0..=requests.len()).map(|first| State { first, more: Vec::new() }).collect(),
        Class::Reordered => reordered(requests),
        Class::Torn => torn(requests),
    }
}

fn reordered(requests: &[Request]) -> Vec<State> {
    let mut states = Vec::new();
    let mut start = 0;
    for epoch in requests.split_inclusive(|r| r.flush) {
        // A flush that carries data makes durable what was before it, not itself.
        let writes: Vec<usize> =
            (start..start + epoch.len()).filter(|&i| requests[i].writes() && !requests[i].durable).collect();
        for chosen in choices(writes.len(), start as u64) {
            let more: Vec<Part> = writes
                .iter()
                .zip(&chosen)
                .filter(|(_, kept)| **kept)
                .map(|(&request, _)| Part { request, sectors: None })
                .collect();
            // Those without a gap are prefixes.
            if chosen.windows(2).any(|pair| !pair[0] && pair[1]) {
                states.push(State { first: start, more });
            }
        }
        start += epoch.len();
    }
    states.sort();
    states.dedup();
    states
}

/// Which of `n` writes are kept: every choice of few; of many one left out, one kept, and some at random.
fn choices(n: usize, seed: u64) -> Vec<Vec<bool>> {
    if n <= ALL_SUBSETS {
        return (0..1u32 << n).map(|bits| (0..n).map(|i| bits >> i & 1 == 1).collect()).collect();
    }
    let mut all: Vec<Vec<bool>> = Vec::new();
    for i in 0..n {
        all.push((0..n).map(|j| j != i).collect());
        all.push((0..n).map(|j| j == i).collect());
    }
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    for _ in 0..DRAWN {
        all.push(
            (0..n)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state >> 32 & 1 == 1
                })
                .collect(),
        );
    }
    all
}

fn torn(requests: &[Request]) -> Vec<State> {
    let mut states = Vec::new();
    for (request, write) in requests.iter().enumerate() {
        let sectors = write.data.len() / SECTOR;
        let mut tears: Vec<usize> = if sectors <= TEARS {
            (1..sectors).collect()
        } else {
            (1..=TEARS).map(|i| i * sectors / (TEARS + 1)).collect()
        };
        tears.retain(|&n| n > 0);
        tears.dedup();
        let part = |n| Part { request, sectors: Some(n) };
        states.extend(tears.into_iter().map(|n| State { first: request, more: vec![part(n)] }));
    }
    states
}

/// What the enumeration promises, tried on a small log.
pub fn self_check() {
    let write = |flush| Request { range: 0..1024, data: vec![0; 1024], flush, durable: false };
    let flush = Request { range: 0..0, data: Vec::new(), flush: true, durable: false };
    let log = [write(false), write(false), write(false), flush.clone(), write(false), flush];
    assert_eq!(states(&log, Class::Prefix).len(), 7);
    let reordered: Vec<String> = states(&log, Class::Reordered).iter().map(State::to_string).collect();
    assert_eq!(reordered, ["0+0+2", "0+1", "0+1+2", "0+2"]);
    assert_eq!(states(&log, Class::Torn).len(), 4);
    assert_eq!("120+123+125.3".parse::<State>().map(|s| s.to_string()), Ok("120+123+125.3".into()));
    assert!("12x".parse::<State>().is_err());
    let many = vec![write(false); 20];
    assert!(states(&many, Class::Reordered).len() > 60);
}
