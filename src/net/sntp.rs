//! Asking for the time: the client's part of NTP (RFC 5905 section 14, RFC 4330), 48 bytes each way.
//!
//! | offset | bytes | field of an answer |
//! |---|---|---|
//! | 0 | 1 | leap indicator (3: not synchronised), version, mode (4: a server) |
//! | 1 | 1 | stratum: 1 to 15; 0 or 16: not synchronised, or with 0 an order instead of the time (kiss of death) |
//! | 12 | 4 | reference; of a kiss of death four letters, why |
//! | 24 | 8 | originate: what our question had as its transmit time, word for word |
//! | 32 | 8 | receive: when the question came |
//! | 40 | 8 | transmit: when the answer went out; seconds since 1900, and a fraction of 2^32 |
//!
//! Our transmit time is a random number, as RFC 9109 and the drafts on data minimisation want it: it says nothing of our
//! clock, and who does not see it cannot answer.
//!
//! Ring: core.

use core::fmt;
use core::time::Duration;

use crate::block::field;

/// The length of a question, and what is read of an answer, in bytes.
pub const MESSAGE: usize = 48;
/// An answer that is so far after what is surely past is absurd, in seconds: 40 years, which a device's build may be old.
pub const MAX_AHEAD: u64 = 40 * 365 * 86_400;

/// From 1900 to 1970, in seconds.
const EPOCH: u64 = 2_208_988_800;
const ERA: u64 = 1 << 32;

/// Why an answer is not the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Too short, of another version, or not of a server.
    Foreign,
    /// It answers another question than ours.
    NotOurs,
    /// The server does not know the time itself.
    Unsynchronised,
    /// The server wants us to go away, for a reason in four letters: `RATE`, `DENY`.
    Kiss([u8; 4]),
    /// Its time is before what is surely past, in seconds since 1970.
    Before(u64),
    /// Its time is decades after it.
    After(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Foreign => f.write_str("it is no answer of a time server"),
            Fault::NotOurs => f.write_str("it answers somebody else"),
            Fault::Unsynchronised => f.write_str("the server has no time itself"),
            Fault::Kiss(why) => {
                write!(f, "the server refuses us: {}", core::str::from_utf8(why).unwrap_or_default())
            }
            Fault::Before(at) => write!(f, "its time, {at}, is before what is surely past"),
            Fault::After(at) => write!(f, "its time, {at}, is absurd"),
        }
    }
}

/// The question; `cookie` is a random number of its own for each.
pub fn question(cookie: u64) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    // Version 4, from a client.
    let [first, .., c0, c1, c2, c3, c4, c5, c6, c7] = &mut bytes;
    *first = 0x23;
    [*c0, *c1, *c2, *c3, *c4, *c5, *c6, *c7] = cookie.to_be_bytes();
    bytes
}

/// The time that an answer tells, since 1970, at the moment when it came. `trip` is the time from question to answer,
/// of which half is taken to be the way back; `sure` a time that is surely past, in seconds since 1970.
///
/// # Errors
/// Why it is not believed.
pub fn answer(bytes: &[u8], cookie: u64, trip: Duration, sure: u64) -> Result<Duration, Fault> {
    let [head, stratum, ..] = *bytes else { return Err(Fault::Foreign) };
    let (leap, version, mode) = (head >> 6, head >> 3 & 7, head & 7);
    if bytes.len() < MESSAGE || !(3..=4).contains(&version) || mode != 4 {
        return Err(Fault::Foreign);
    }
    if field::bytes(bytes, 24) != cookie.to_be_bytes() {
        return Err(Fault::NotOurs);
    }
    let reference: [u8; 4] = field::bytes(bytes, 12);
    if stratum == 0 && reference.iter().all(u8::is_ascii_uppercase) {
        return Err(Fault::Kiss(reference));
    }
    let received = u64::from_be_bytes(field::bytes(bytes, 32));
    let sent = u64::from_be_bytes(field::bytes(bytes, 40));
    if leap == 3 || !(1..=15).contains(&stratum) || received == 0 || sent == 0 {
        return Err(Fault::Unsynchronised);
    }
    // Seconds since 1900 have begun anew every 136 years: of the moments meant, the one next to what is past.
    let seconds = (sent >> 32).wrapping_sub(EPOCH) % ERA;
    let era = (sure / ERA * ERA).wrapping_add(seconds);
    let candidates = [era.wrapping_sub(ERA), era, era.wrapping_add(ERA)];
    let at = candidates.into_iter().min_by_key(|at| at.abs_diff(sure)).unwrap_or(seconds);
    if at < sure {
        return Err(Fault::Before(at));
    }
    // The very last second of an era is what a server says that has no idea.
    if at - sure > MAX_AHEAD || sent >> 32 == u64::from(u32::MAX) {
        return Err(Fault::After(at));
    }
    let nanos = ((sent & 0xffff_ffff) * 1_000_000_000) >> 32;
    Ok(Duration::new(at, u32::try_from(nanos).unwrap_or(0)) + trip / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: u64 = 0x0123_4567_89ab_cdef;
    /// 2026-11-24 15:06:12 UTC.
    const NOW: u64 = 1_795_532_772;

    /// An answer after RFC 5905's layout; `at` in seconds since 1970.
    fn packet(at: u64) -> [u8; MESSAGE] {
        let mut bytes = [0; MESSAGE];
        bytes[..4].copy_from_slice(&[0x24, 2, 6, 0xe9]);
        bytes[12..16].copy_from_slice(&[192, 168, 7, 1]);
        bytes[24..32].copy_from_slice(&COOKIE.to_be_bytes());
        let seconds = (at + EPOCH) as u32;
        bytes[32..36].copy_from_slice(&seconds.to_be_bytes());
        bytes[36..40].copy_from_slice(&[0x40, 0, 0, 0]);
        bytes[40..44].copy_from_slice(&seconds.to_be_bytes());
        bytes[44..48].copy_from_slice(&[0x80, 0, 0, 0]);
        bytes
    }

    fn read(bytes: &[u8], sure: u64) -> Result<Duration, Fault> {
        answer(bytes, COOKIE, Duration::from_millis(200), sure)
    }

    #[test]
    fn a_question_tells_nothing() {
        let bytes = question(COOKIE);
        assert_eq!(bytes[0], 0x23);
        assert_eq!(bytes[1..40], [0; 39]);
        assert_eq!(bytes[40..], COOKIE.to_be_bytes());
    }

    #[test]
    fn an_answer_is_the_time_when_it_came() {
        let mut bytes = packet(NOW);
        assert_eq!(read(&bytes, NOW - 1), Ok(Duration::from_millis(NOW * 1000 + 600)));
        // Version 3, any stratum that a server can have, a leap second ahead, an extension behind.
        for (head, stratum) in [(0x1c, 1), (0x24, 15), (0x64, 2), (0xa4, 2)] {
            (bytes[0], bytes[1]) = (head, stratum);
            let long = [&bytes[..], &[0; 20]].concat();
            assert!(read(&long, NOW).is_ok(), "{head:x} {stratum}");
        }
    }

    #[test]
    fn the_seconds_begin_anew_in_2036() {
        // 2036-02-07 06:28:16 UTC is second 0 of the next era, a time whose fraction only is not 0.
        for at in [2_085_978_494, 2_085_978_496, 2_085_978_497, 4_102_444_800] {
            let sure = at - MAX_AHEAD / 2;
            assert_eq!(read(&packet(at), sure).map(|d| d.as_secs()), Ok(at));
        }
    }

    #[test]
    fn times_that_cannot_be() {
        assert_eq!(read(&packet(NOW - 1), NOW), Err(Fault::Before(NOW - 1)));
        assert_eq!(read(&packet(0), NOW), Err(Fault::Before(0)));
        assert_eq!(read(&packet(NOW + MAX_AHEAD + 1), NOW), Err(Fault::After(NOW + MAX_AHEAD + 1)));
        assert!(read(&packet(NOW + MAX_AHEAD), NOW).is_ok());
        let mut most = packet(NOW);
        most[32..].fill(0xff);
        assert_eq!(read(&most, NOW).map(|d| d.as_secs()), Err(Fault::After(2_085_978_495)));
        assert!(read(&most, 2_085_978_496).is_err());
        for sure in [0, 1, u64::MAX - 1, u64::MAX] {
            let _ = read(&most, sure);
        }
    }

    #[test]
    fn answers_that_do_not_count() {
        let good = packet(NOW);
        let with = |edit: &dyn Fn(&mut [u8; MESSAGE])| {
            let mut bytes = good;
            edit(&mut bytes);
            read(&bytes, NOW)
        };
        for length in 0..MESSAGE {
            assert_eq!(read(&good[..length], NOW), Err(Fault::Foreign));
        }
        for head in [0x04, 0x0c, 0x14, 0x2c, 0x3c, 0x23, 0x25, 0x26, 0x27, 0x20] {
            assert_eq!(with(&|b| b[0] = head), Err(Fault::Foreign), "{head:x}");
        }
        for at in 24..32 {
            assert_eq!(with(&|b| b[at] ^= 1), Err(Fault::NotOurs));
        }
        assert_eq!(with(&|b| b[0] = 0xe4), Err(Fault::Unsynchronised));
        for stratum in [0, 16, 17, 255] {
            assert_eq!(with(&|b| b[1] = stratum), Err(Fault::Unsynchronised));
        }
        assert_eq!(with(&|b| b[32..40].fill(0)), Err(Fault::Unsynchronised));
        assert_eq!(with(&|b| b[40..48].fill(0)), Err(Fault::Unsynchronised));
        let kiss = with(&|b| {
            b[1] = 0;
            b[12..16].copy_from_slice(b"RATE");
        });
        assert_eq!(kiss, Err(Fault::Kiss(*b"RATE")));
        let terminal = with(&|b| {
            b[1] = 0;
            b[12..16].copy_from_slice(b"\x1b[2J");
        });
        assert_eq!(terminal, Err(Fault::Unsynchronised));
    }
}
