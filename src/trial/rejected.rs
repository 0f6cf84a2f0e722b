//! Commits that failed on this device: a line each, the newest last.
//!
//! `COMMIT SECONDS REASON`; whoever installs commits looks here first. The ledger tells the same story, but forgets.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::sysroot::entry::is_checksum;

/// The file, below the physical root.
pub const PATH: &str = "ostree/bootward/rejected";
/// More commits than this are forgotten, the oldest first.
pub const MAX: usize = 64;
/// The largest file that is read, in bytes.
pub const SIZE_MAX: usize = 64 * 1024;
/// The longest reason, in bytes.
const REASON_MAX: usize = 256;

/// A commit that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// The commit, 64 hexadecimal digits.
    pub commit: String,
    /// When, in seconds since 1970, as the device believed it.
    pub time: i64,
    /// Why, in a sentence.
    pub reason: String,
}

/// Reads the file; what is no line of ours is passed over.
pub fn parse(file: &[u8]) -> Vec<Rejected> {
    let lines = file.split(|&b| b == b'\n').filter_map(|line| core::str::from_utf8(line).ok());
    let read = lines.filter_map(|line| {
        let (commit, rest) = line.split_once(' ')?;
        let (time, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let rejected = Rejected { commit: commit.into(), time: time.parse().ok()?, reason: reason.into() };
        is_checksum(commit).then_some(rejected)
    });
    let all: Vec<Rejected> = read.collect();
    all.get(all.len().saturating_sub(MAX)..).unwrap_or_default().to_vec()
}

/// The file with one more; a commit that is in it already keeps its place and its first reason.
pub fn with(mut all: Vec<Rejected>, commit: &str, time: i64, reason: &str) -> String {
    if !all.iter().any(|r| r.commit == commit) {
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = reason
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end <= REASON_MAX)
            .last();
        let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default().into();
        all.push(Rejected { commit: commit.into(), time, reason });
    }
    emit(&all)
}

/// The file without a commit: it was confirmed after all, or somebody wants it again.
pub fn without(all: &[Rejected], commit: &str) -> String {
    let left: Vec<Rejected> = all.iter().filter(|r| r.commit != commit).cloned().collect();
    emit(&left)
}

fn emit(all: &[Rejected]) -> String {
    let all = all.get(all.len().saturating_sub(MAX)..).unwrap_or_default();
    all.iter().map(|r| format!("{} {} {}\n", r.commit, r.time, r.reason)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (one, other) = ("a".repeat(64), "b".repeat(64));
        let text = with(Vec::new(), &one, 5, "it\nhung");
        assert_eq!(text, format!("{one} 5 it hung\n"));
        let text = with(parse(text.as_bytes()), &other, 6, &"ä".repeat(200));
        let text = with(parse(text.as_bytes()), &one, 7, "again");
        let all = parse(text.as_bytes());
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].time, all[1].reason.len()), (5, 256));
        assert_eq!(parse(without(&all, &one).as_bytes()), all[1..]);
    }

    #[test]
    fn noise_is_passed_over_and_the_list_is_bounded() {
        assert_eq!(parse(b"\xff\n\nshort 5 x\n"), []);
        let mut text = String::new();
        for n in 0..MAX + 3 {
            text = with(parse(text.as_bytes()), &format!("{n:064x}"), 0, "");
        }
        let all = parse(text.as_bytes());
        assert_eq!((all.len(), all[0].commit.ends_with("03")), (MAX, true));
    }
}
