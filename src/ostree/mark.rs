//! Which of two commits is the older one, and the floor below which a device does not go.
//!
//! A commit is marked by its publisher, and the mark is signed with it: a number that only grows (`bootward.serial` in
//! its metadata, a `t`), its time, and a version (`version`, an `s`). The floor is the mark of the newest commit that was
//! ever confirmed on the device.
//!
//! 1. Where the floor has a number, the number decides, and a commit without one is refused.
//! 2. Else the time decides, as with libostree.
//! 3. Where the times are the same, as they are for builds that are reproducible, the version decides.
//!
//! The same mark is not older. Nothing jumps: a commit whose number or time is too far above the floor is refused, and
//! never moves the floor, so that no single commit, whoever signed it, uses up the numbers that are left.

use alloc::format;
use alloc::string::String;
use core::cmp::Ordering;
use core::fmt;

use super::commit::Commit;
use super::variant;
use super::version::{self, compare};

/// A number that grows with each release, a `t` in a commit's metadata.
pub const SERIAL: &str = "bootward.serial";
/// The version that people read, an `s` in a commit's metadata.
pub const VERSION: &str = "version";
/// So far above the floor a number may be: a device that was never confirmed takes 20261231235959, and 65,536 jumps use
/// up the numbers.
pub const SERIAL_STEP: u64 = 1 << 48;
/// A time before this, 2026-01-01, says nothing of how far above the floor another one is.
const TIME_BASE: u64 = 1_767_225_600;
/// So far above the floor a time may be, in seconds: fifty years.
pub const TIME_STEP: u64 = 50 * 365 * 86_400;
/// The largest file that is read, in bytes.
pub const SIZE_MAX: usize = 4096;

const HEAD: &str = "bootward floor 1\n";

/// Where a commit stands in the order of releases. The default is that of a device on which nothing was confirmed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Its number.
    pub serial: Option<u64>,
    /// Its time, in seconds since 1970.
    pub time: u64,
    /// Its version, where it is one that [`version::counts`].
    pub version: Option<String>,
}

/// A key of a commit's metadata has another type than it must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mistyped {
    /// The key.
    pub key: &'static str,
    /// What it must be.
    pub wanted: &'static str,
}

impl fmt::Display for Mistyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its commit has a {} that is no {}", self.key, self.wanted)
    }
}

/// Why a commit may not follow what the device has had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disorder {
    /// Its number is smaller.
    Serial(u64, u64),
    /// It has none, and the floor has.
    NoSerial(u64),
    /// It was made earlier.
    Time(u64, u64),
    /// It was made at the same time, and its version is older.
    Version(String, String),
    /// It was made at the same time and has no version, and the floor has.
    NoVersion(String),
    /// Its number is more than [`SERIAL_STEP`] above the floor.
    SerialAhead(u64, u64),
    /// Its time is more than [`TIME_STEP`] above the floor.
    TimeAhead(u64, u64),
}

impl fmt::Display for Disorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(this, floor) => {
                write!(f, "it is older than what was confirmed here: {SERIAL} {this}, confirmed {floor}")
            }
            Self::NoSerial(floor) => {
                write!(f, "it has no {SERIAL}, and what was confirmed here has {floor}")
            }
            Self::Time(this, floor) => {
                write!(f, "it is older than what was confirmed here: made at {this} s, confirmed {floor} s")
            }
            Self::Version(this, floor) => {
                write!(f, "it is older than what was confirmed here: version {this}, confirmed {floor}")
            }
            Self::NoVersion(floor) => write!(
                f,
                "it cannot be told from an older one: it has the same time as what was confirmed here, and no version ({floor})"
            ),
            Self::SerialAhead(this, floor) => {
                write!(f, "its {SERIAL} {this} is too far above {floor}: the next numbers would be used up")
            }
            Self::TimeAhead(this, floor) => {
                write!(f, "its time {this} s is too far above {floor} s: later ones would be refused")
            }
        }
    }
}

impl Mark {
    /// Of a commit.
    ///
    /// # Errors
    /// When it has a number or a version of the wrong type.
    pub fn of(commit: &Commit) -> Result<Self, Mistyped> {
        let metadata = commit.metadata();
        let serial = match variant::find(metadata, SERIAL) {
            None => None,
            Some((value, b"t")) => variant::u64_le(value),
            Some(_) => return Err(Mistyped { key: SERIAL, wanted: "uint64 (type t)" }),
        };
        let version = match variant::find(metadata, VERSION) {
            None => None,
            Some((value, b"s")) => variant::text(value).filter(|v| version::counts(v)).map(String::from),
            Some(_) => return Err(Mistyped { key: VERSION, wanted: "string (type s)" }),
        };
        Ok(Mark { serial, time: commit.time(), version })
    }

    /// Whether a commit with this mark may follow the floor.
    ///
    /// # Errors
    /// When it is older, or too far above.
    pub fn follows(&self, floor: &Mark) -> Result<(), Disorder> {
        let above = floor.serial.unwrap_or(0);
        if let Some(serial) = self.serial.filter(|serial| serial.saturating_sub(above) > SERIAL_STEP) {
            return Err(Disorder::SerialAhead(serial, above));
        }
        if floor.time_ahead(self.time) {
            return Err(Disorder::TimeAhead(self.time, floor.time));
        }
        match (self.serial, floor.serial) {
            (Some(serial), Some(floor)) if serial < floor => return Err(Disorder::Serial(serial, floor)),
            (Some(_), Some(_)) => return Ok(()),
            (None, Some(floor)) => return Err(Disorder::NoSerial(floor)),
            (_, None) => {}
        }
        match (self.time.cmp(&floor.time), &self.version, &floor.version) {
            (Ordering::Less, ..) => Err(Disorder::Time(self.time, floor.time)),
            (Ordering::Equal, None, Some(floor)) => Err(Disorder::NoVersion(floor.clone())),
            (Ordering::Equal, Some(version), Some(floor)) if compare(version, floor).is_lt() => {
                Err(Disorder::Version(version.clone(), floor.clone()))
            }
            _ => Ok(()),
        }
    }

    /// This floor after a commit with that mark was confirmed: nothing of it falls, and nothing follows what is too far
    /// above.
    pub fn raised(&self, by: &Mark) -> Mark {
        let mut floor = self.clone();
        let above = self.serial.unwrap_or(0);
        if let Some(serial) = by.serial.filter(|serial| serial.saturating_sub(above) <= SERIAL_STEP) {
            floor.serial = Some(serial.max(above));
        }
        if self.time_ahead(by.time) {
            return floor;
        }
        let newer = by.time.cmp(&self.time).then_with(|| order(&by.version, &self.version));
        if newer.is_gt() {
            floor.time = by.time;
            floor.version.clone_from(&by.version);
        }
        floor
    }

    /// The higher one of two floors, part by part: neither is too far above, both were floors of this device.
    pub fn highest(&self, other: &Mark) -> Mark {
        let newer = other.time.cmp(&self.time).then_with(|| order(&other.version, &self.version));
        let dated = if newer.is_gt() { other } else { self };
        Mark { serial: self.serial.max(other.serial), time: dated.time, version: dated.version.clone() }
    }

    fn time_ahead(&self, time: u64) -> bool {
        time > self.time.max(TIME_BASE).saturating_add(TIME_STEP)
    }

    /// As it is kept on disk: lines of text, the last one the CRC32 of those before it.
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        if let Some(serial) = self.serial {
            text.push_str(&format!("serial {serial}\n"));
        }
        text.push_str(&format!("time {}\n", self.time));
        if let Some(version) = &self.version {
            text.push_str(&format!("version {version}\n"));
        }
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("crc {crc:08x}\n"));
        text
    }

    /// Reads what [`Mark::text`] wrote, and whatever lines a newer version of it adds. `None` for what is damaged.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(text).ok().filter(|text| text.len() <= SIZE_MAX)?;
        let (body, crc) = text.strip_suffix('\n')?.rsplit_once("\ncrc ")?;
        let body = text.get(..body.len() + 1)?;
        if crc.len() != 8 || u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(body.as_bytes()) {
            return None;
        }
        let mut mark = Mark::default();
        let mut dated = false;
        for line in body.strip_prefix(HEAD)?.lines() {
            match line.split_once(' ')? {
                ("serial", serial) => mark.serial = Some(serial.parse().ok()?),
                ("time", time) => (mark.time, dated) = (time.parse().ok()?, true),
                ("version", version) => {
                    mark.version = Some(version.into()).filter(|v: &String| version::counts(v))
                }
                _ => {}
            }
        }
        dated.then_some(mark)
    }
}

fn order(one: &Option<String>, other: &Option<String>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => compare(one, other),
        (one, other) => one.is_some().cmp(&other.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn mark(serial: impl Into<Option<u64>>, time: u64, version: &str) -> Mark {
        let version = (!version.is_empty()).then(|| version.into());
        Mark { serial: serial.into(), time, version }
    }

    #[test]
    fn the_number_decides_then_the_time_then_the_version() {
        let floor = mark(7, 1000, "2");
        assert_eq!(mark(7, 0, "").follows(&floor), Ok(()));
        assert_eq!(mark(8, 5, "1").follows(&floor), Ok(()));
        assert_eq!(mark(6, 2000, "3").follows(&floor), Err(Disorder::Serial(6, 7)));
        assert_eq!(mark(None, 2000, "3").follows(&floor), Err(Disorder::NoSerial(7)));
        let floor = mark(None, 1000, "2");
        assert_eq!(mark(1, 999, "3").follows(&floor), Err(Disorder::Time(999, 1000)));
        assert_eq!(mark(None, 1001, "1").follows(&floor), Ok(()));
        assert_eq!(mark(None, 1000, "2").follows(&floor), Ok(()));
        assert_eq!(mark(None, 1000, "10").follows(&floor), Ok(()));
        assert_eq!(mark(None, 1000, "").follows(&floor), Err(Disorder::NoVersion("2".into())));
        assert_eq!(
            mark(None, 1000, "2~rc1").follows(&floor),
            Err(Disorder::Version("2~rc1".into(), "2".into()))
        );
        for any in [mark(None, 0, ""), mark(0, 0, ""), mark(20_261_231_235_959, 1_800_000_000, "1")] {
            assert_eq!(any.follows(&Mark::default()), Ok(()), "{any:?}");
        }
    }

    #[test]
    fn nothing_jumps() {
        let floor = mark(5, TIME_BASE, "");
        let far = mark(u64::MAX, TIME_BASE, "");
        assert_eq!(far.follows(&floor), Err(Disorder::SerialAhead(u64::MAX, 5)));
        assert_eq!(floor.raised(&far), floor);
        assert_eq!(mark(5 + SERIAL_STEP, 0, "").follows(&floor), Ok(()));
        assert_eq!(
            mark(6 + SERIAL_STEP, 0, "").follows(&floor),
            Err(Disorder::SerialAhead(6 + SERIAL_STEP, 5))
        );
        let late = mark(6, u64::MAX, "9");
        assert_eq!(late.follows(&floor), Err(Disorder::TimeAhead(u64::MAX, TIME_BASE)));
        assert_eq!(floor.raised(&late), mark(6, TIME_BASE, ""));
        let most = mark(None, TIME_BASE + TIME_STEP, "");
        assert_eq!(most.follows(&Mark::default()), Ok(()));
        assert!(mark(None, TIME_BASE + TIME_STEP + 1, "").follows(&Mark::default()).is_err());
        // There is always a way on.
        let top = mark(u64::MAX - 1, u64::MAX - 1, "");
        assert_eq!(mark(u64::MAX, u64::MAX, "").follows(&top), Ok(()));
    }

    #[test]
    fn the_floor_never_falls_and_what_raised_it_follows_it() {
        let all: Vec<Mark> = [None, Some(0), Some(3), Some(9), Some(u64::MAX)]
            .into_iter()
            .flat_map(|s| [0, 5, TIME_BASE, u64::MAX].map(|t| (s, t)))
            .flat_map(|(s, t)| ["", "1", "1.10"].map(|v| mark(s, t, v)))
            .collect();
        for floor in &all {
            for by in &all {
                let raised = floor.raised(by);
                // Whatever was refused before is refused after, but for what is no longer too far above; the first
                // number begins an order of its own.
                for other in all.iter().filter(|_| floor.serial.is_some() == raised.serial.is_some()) {
                    use Disorder::{SerialAhead, TimeAhead};
                    match other.follows(floor) {
                        Ok(()) | Err(SerialAhead(..) | TimeAhead(..)) => {}
                        Err(_) => assert!(other.follows(&raised).is_err(), "{floor:?} {by:?} {other:?}"),
                    }
                }
                if by.follows(floor).is_ok() {
                    assert_eq!(by.follows(&raised), Ok(()), "{floor:?} {by:?}");
                }
                assert_eq!(raised.raised(by).serial, raised.serial);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for mark in [mark(None, 0, ""), mark(u64::MAX, u64::MAX, "v 1 ä"), mark(0, 7, "crc 1")] {
            let text = mark.text();
            assert_eq!(Mark::parse(text.as_bytes()), Some(mark));
            for at in 0..text.len() {
                assert_eq!(Mark::parse(&text.as_bytes()[..at]), None, "{at}");
                for bit in 0..8 {
                    let mut changed = text.clone().into_bytes();
                    changed[at] ^= 1 << bit;
                    let read = Mark::parse(&changed);
                    // Upper case digits of the checksum are the same checksum.
                    assert!(read.is_none() || read == Mark::parse(text.as_bytes()), "{at} {bit}");
                }
            }
        }
        let newer = "bootward floor 1\nhue 7 8\ntime 5\n";
        let newer = format!("{newer}crc {:08x}\n", crc32fast::hash(newer.as_bytes()));
        assert_eq!(Mark::parse(newer.as_bytes()), Some(mark(None, 5, "")));
    }
}
