//! How often and how much a device may ask, so that a fleet is no attack on its own server.
//!
//! The waits between rounds grow exponentially and have full jitter, drawn from numbers that begin with the device's own
//! id, so that no two devices keep step. What a day has in tries and bytes is kept in a small file on the root, and so
//! outlives power cuts; a device without a clock counts its powered hours, which is fewer tries and never more.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::arrange::plan::Step;
use crate::fetch::Backoff;
use crate::storage::{At, Volume};

/// Where it is kept, on the physical root.
pub const PATH: &str = "ostree/bootward/recovery";
/// The file is no longer than this, in bytes.
pub const SIZE_MAX: usize = 128;
/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;
/// A server may ask for so much patience at most, in seconds.
pub const RETRY_AFTER_MAX: u64 = DAY;

/// What a day has; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    /// Tries of a source over a network.
    pub attempts: u32,
    /// Bytes that come over a network.
    pub bytes: u64,
}

/// What was used of a day, and how many rounds in a row brought nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// When the day began, in seconds since 1970.
    pub since: u64,
    /// Tries since then.
    pub attempts: u32,
    /// Bytes since then.
    pub bytes: u64,
    /// Rounds without a byte, up to now.
    pub failures: u32,
}

impl Budget {
    /// Reads the file; whatever is not wholly one is a day that begins now.
    pub fn parse(file: &[u8], now: u64) -> Self {
        let fresh = Budget { since: now, ..Budget::default() };
        let read = || {
            let text = core::str::from_utf8(file.get(..SIZE_MAX).unwrap_or(file)).ok()?;
            let (line, sum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
            if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(line.as_bytes()) {
                return None;
            }
            let mut words = line.split(' ');
            if words.next() != Some("BWR1") {
                return None;
            }
            let mut number = || words.next()?.parse::<u64>().ok();
            let (since, attempts, bytes, failures) = (number()?, number()?, number()?, number()?);
            let (attempts, failures) = (u32::try_from(attempts).ok()?, u32::try_from(failures).ok()?);
            Some(Budget { since, attempts, bytes, failures })
        };
        let mut budget = read().unwrap_or(fresh);
        budget.turn(now);
        budget
    }

    /// The file's content.
    pub fn emit(&self) -> String {
        let line = format!("BWR1 {} {} {} {}", self.since, self.attempts, self.bytes, self.failures);
        format!("{line} {:08x}\n", crc32fast::hash(line.as_bytes()))
    }

    /// Begins a new day where the last one is over. A clock that went back, as one without a battery does, makes the day
    /// longer and not the budget larger.
    pub fn turn(&mut self, now: u64) {
        if now < self.since {
            self.since = now;
        } else if now - self.since >= DAY {
            *self = Budget { since: now, failures: self.failures, ..Budget::default() };
        }
    }

    /// Whether a source may be tried now; else after how many seconds.
    pub fn allows(&mut self, caps: Caps, now: u64) -> Result<(), u64> {
        self.turn(now);
        let spent = caps.attempts != 0 && self.attempts >= caps.attempts
            || caps.bytes != 0 && self.bytes >= caps.bytes;
        if spent { Err((self.since + DAY).saturating_sub(now).max(1)) } else { Ok(()) }
    }

    /// Bytes that may still come today.
    pub fn left(&self, caps: Caps) -> u64 {
        if caps.bytes == 0 { u64::MAX } else { caps.bytes.saturating_sub(self.bytes) }
    }
}

/// Random numbers of a device: begun with its id and the boot's, so that two devices differ, and two boots of one.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Begins. `device` is what sets this one apart, `boot` what sets this boot apart.
    pub fn new(device: &[u8], boot: &[u8]) -> Self {
        // FNV-1a, which is enough to spread; nothing here is a secret.
        let spread = |seed: u64, bytes: &[u8]| {
            bytes.iter().fold(seed, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
        };
        Jitter(spread(spread(0xcbf2_9ce4_8422_2325, device), boot))
    }

    /// The next number: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    pub fn number(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }
}

/// The wait before the next round: full jitter over the exponential step, at least `least`, and after what the server
/// asked for, so that what it sends away does not come back all at once.
pub fn wait(backoff: Backoff, failures: u32, asked: Option<u64>, random: u32) -> Duration {
    let drawn = backoff.wait(failures, random);
    let asked = Duration::from_secs(asked.unwrap_or(0).min(RETRY_AFTER_MAX));
    asked + drawn.max(LEAST)
}

/// Between two rounds there is always this.
pub const LEAST: Duration = Duration::from_secs(1);

/// Writes it down on the root, durably: a power cut leaves the old one or the new one.
///
/// # Errors
/// When the root cannot be written.
#[cfg(not(target_os = "none"))]
pub fn keep(sysroot: &std::path::Path, budget: &Budget) -> Result<(), String> {
    use crate::sys::files::Disk;
    let mut disk = Disk::open(sysroot, sysroot).map_err(|e| e.to_string())?;
    crate::arrange::carry::steps(&mut disk, &steps(budget), false).map(drop).map_err(|e| e.to_string())
}

/// The steps of that.
pub fn steps(budget: &Budget) -> [Step; 3] {
    [
        Step::Directory(At::root("ostree/bootward"), 0o700),
        Step::Write(At::root(PATH), budget.emit()),
        Step::Sync(Volume::Root),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let budget = Budget { since: NOW - 5, attempts: 7, bytes: 1 << 40, failures: 3 };
        let text = budget.emit();
        assert!(text.len() <= SIZE_MAX);
        assert_eq!(Budget::parse(text.as_bytes(), NOW), budget);
        let fresh = Budget { since: NOW, ..Budget::default() };
        for cut in 0..text.len() {
            assert_eq!(Budget::parse(&text.as_bytes()[..cut], NOW), fresh, "{cut}");
        }
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            assert_eq!(Budget::parse(&bad, NOW), fresh, "byte {at}");
        }
        assert_eq!(Budget::parse(&[b'9'; 4096], NOW), fresh);
        let largest = Budget { since: u64::MAX, attempts: u32::MAX, bytes: u64::MAX, failures: u32::MAX };
        assert!(largest.emit().len() <= SIZE_MAX);
    }

    #[test]
    fn a_day_ends_and_a_clock_that_goes_back_gives_nothing_away() {
        let caps = Caps { attempts: 2, bytes: 100 };
        let mut budget = Budget { since: NOW, attempts: 2, bytes: 0, failures: 9 };
        assert_eq!(budget.allows(caps, NOW + 10), Err(DAY - 10));
        assert_eq!(budget.allows(caps, 0), Err(DAY), "1970 again");
        assert_eq!(budget.allows(caps, DAY - 1), Err(1));
        assert_eq!(budget.allows(caps, DAY), Ok(()));
        assert_eq!((budget.attempts, budget.failures), (0, 9));
        let mut full = Budget { since: NOW, attempts: 0, bytes: 100, failures: 0 };
        assert!(full.allows(caps, NOW).is_err());
        assert_eq!(full.left(caps), 0);
        assert_eq!(full.allows(Caps::default(), NOW), Ok(()), "no limit");
    }

    /// A thousand devices that fail together come back spread over the whole of the step.
    #[test]
    fn a_fleet_does_not_keep_step() {
        let backoff = Backoff { first: Duration::from_secs(64), longest: Duration::from_secs(900) };
        let firsts = (0u32..1000).map(|n| {
            let mut jitter = Jitter::new(&n.to_le_bytes(), b"boot");
            wait(backoff, 1, None, jitter.number())
        });
        let mut buckets = [0; 64];
        for first in firsts {
            assert!((LEAST..=Duration::from_secs(64)).contains(&first));
            buckets[(first.as_secs() as usize).min(63)] += 1;
        }
        assert!(buckets.iter().all(|n| *n < 50), "{buckets:?}");
        let of = |boot: &[u8]| {
            let mut jitter = Jitter::new(b"device", boot);
            (0..8).map(|_| jitter.number()).collect::<Vec<_>>()
        };
        assert_eq!(of(b"1"), of(b"1"));
        assert_eq!(of(b"1").iter().chain(&of(b"2")).collect::<BTreeSet<_>>().len(), 16);
    }

    #[test]
    fn what_a_server_asks_for_is_waited_out_and_spread() {
        let backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(900) };
        assert_eq!(wait(backoff, 1, Some(600), 0), Duration::from_secs(601));
        assert_eq!(wait(backoff, 1, Some(600), u32::MAX), Duration::from_secs(610));
        assert_eq!(wait(backoff, 50, Some(u64::MAX), u32::MAX), Duration::from_secs(RETRY_AFTER_MAX + 900));
    }
}
