//! The clock of a device that has none: never before what is known to be past, then what a time server says.
//!
//! What time is known to be past is of two kinds. The build and signed commits are *sure*: no time server may say less.
//! The ledger is a *note*: its records carry what the device believed, which may have been a time server's lie. A note
//! moves a clock that is behind it, but does not stand against a time server, so no lie outlives its boot.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use std::{fmt, io};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use super::sntp::{self, MAX_AHEAD};
use super::{Error, Watch};
use crate::fetch::resolve::resolve;
use crate::sys::time::{civil, wall};

/// What the clock's time rests on. Certificates are checked against it in any case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// It was later than all that is known to be past.
    Kept,
    /// It was behind, or absurdly ahead; it was set to the latest time known to be past and is behind still.
    Floor,
    /// A time server said it.
    Server {
        /// Its name, as configured.
        name: String,
        /// So many seconds were added.
        moved: i64,
    },
}

/// What time it is, why, and what is sure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Why it is that.
    pub source: Source,
    /// The latest time that is surely past, in seconds since 1970.
    pub sure: u64,
}

impl Clock {
    /// The same for the certificates of servers: what is not valid yet passes where the clock is only a floor.
    #[cfg(feature = "tls")]
    pub fn certificates(&self) -> crate::fetch::tls::Clock {
        self.certificates_at(wall())
    }

    /// The same where the system's clock says this.
    #[cfg(feature = "tls")]
    pub fn certificates_at(&self, now: i64) -> crate::fetch::tls::Clock {
        let now = u64::try_from(now).unwrap_or(0).max(self.sure);
        match self.source {
            Source::Floor => crate::fetch::tls::Clock::at_least(now),
            Source::Kept | Source::Server { .. } => crate::fetch::tls::Clock::at(now),
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = civil(wall());
        match &self.source {
            Source::Kept => write!(f, "{now}, as the clock had it"),
            Source::Floor => write!(f, "{now} or later: the clock was not set"),
            Source::Server { name, moved } => {
                write!(f, "{now} from {name}, which moved the clock by {moved} s")
            }
        }
    }
}

/// A time that is past whenever this runs, in seconds since 1970: that of the build where `SOURCE_DATE_EPOCH` names it,
/// 2026-11-28 at least.
pub const BUILT: u64 = {
    let told = match option_env!("SOURCE_DATE_EPOCH") {
        Some(text) => seconds(text.as_bytes()),
        None => 0,
    };
    if told > WRITTEN { told } else { WRITTEN }
};
const WRITTEN: u64 = 1_795_824_000;

/// The number that digits stand for; 0 for anything else, and for what is absurd.
const fn seconds(mut digits: &[u8]) -> u64 {
    let mut number = 0;
    while let [digit @ b'0'..=b'9', rest @ ..] = digits {
        number = number * 10 + (*digit - b'0') as u64;
        digits = rest;
        if number > u32::MAX as u64 * 2 {
            return 0;
        }
    }
    if digits.is_empty() { number } else { 0 }
}

/// What the clock should say, of what it says and of what is known to be past; none where it may stay.
pub fn raised(now: i64, sure: u64, noted: u64) -> Option<u64> {
    // A note from decades ahead is no better than such a clock.
    let past = if noted > sure + MAX_AHEAD { sure } else { sure.max(noted) };
    let now = u64::try_from(now).unwrap_or(0);
    (now < past || now > past + MAX_AHEAD).then_some(past)
}

/// Sets the clock to the latest time that is known to be past, if it is behind that or decades ahead.
///
/// `sure`: times of signed commits that are here; the time of this build is one already. `noted`: times that the device
/// wrote down itself, as in its ledger. All in seconds since 1970.
pub fn floor(sure: impl Iterator<Item = u64>, noted: impl Iterator<Item = u64>) -> Clock {
    let sure = sure.chain([BUILT]).max().unwrap_or(BUILT);
    let source = match raised(wall(), sure, noted.max().unwrap_or(0)) {
        None => Source::Kept,
        Some(past) => {
            if let Err(error) = set(Duration::from_secs(past)) {
                log::warn!("{error}");
            }
            Source::Floor
        }
    };
    Clock { source, sure }
}

/// Asks time servers, names or addresses, one after the other, and sets the clock by the first answer that will do. It
/// takes [`PATIENCE`] at the longest.
///
/// # Errors
/// When none gives one; the clock is then as it was.
pub fn ask(servers: &[String], clock: &Clock, watch: &mut dyn Watch) -> Result<Clock, Error> {
    let told = time_from(servers, clock.sure, watch)?;
    let at = told.at + told.since.elapsed();
    let moved = i64::try_from(at.as_secs()).unwrap_or(i64::MAX).saturating_sub(wall());
    set(at)?;
    Ok(Clock { source: Source::Server { name: told.server, moved }, sure: clock.sure })
}

fn set(at: Duration) -> Result<(), Error> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(at))
        .map_err(|errno| Error::Clock(errno.desc()))
}

/// The longest time for all servers together.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// For the name of one.
const NAME: Duration = Duration::from_secs(8);
/// For one answer; each address is asked twice.
const ANSWER: Duration = Duration::from_millis(1500);
/// More addresses of one server are not asked.
const MAX_ADDRESSES: usize = 4;
const PORT: u16 = 123;

/// What a server told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The time since 1970, when the answer came.
    pub at: Duration,
    /// When that was.
    pub since: Instant,
    /// Which one.
    pub server: String,
}

/// Asks time servers, and leaves the clock as it is. A server may be `NAME`, `ADDRESS`, or either with `:PORT`.
///
/// # Errors
/// As [`ask`].
pub fn time_from(servers: &[String], sure: u64, watch: &mut dyn Watch) -> Result<Told, Error> {
    if servers.is_empty() {
        return Err(Error::NoTimeServer);
    }
    let until = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    for server in servers {
        let (host, port) = match server.rsplit_once(':') {
            // More than one colon is an address of IPv6.
            Some((host, port)) if !host.contains(':') => (host, port.parse().unwrap_or(PORT)),
            _ => (server.as_str(), PORT),
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        watch.tell(&format!("asking {server} for the time"));
        let why = match resolve(host, port, NAME.min(left), &mut || watch.alive()) {
            Err(cause) => cause,
            Ok(addresses) => {
                let mut last = String::new();
                let twice = addresses.iter().take(MAX_ADDRESSES).flat_map(|address| [address; 2]);
                for address in twice.take_while(|_| Instant::now() < until) {
                    if !watch.alive() {
                        return Err(Error::Stopped);
                    }
                    match one(*address, sure) {
                        Ok((at, since)) => return Ok(Told { at, since, server: server.clone() }),
                        Err(why) => last = why,
                    }
                }
                last
            }
        };
        if !watch.alive() {
            return Err(Error::Stopped);
        }
        seen.push(format!("{server}: {why}"));
    }
    Err(Error::NoTime { seen: seen.join("; ") })
}

/// One question to one address, and what came of it until its time was over.
fn one(address: SocketAddr, sure: u64) -> Result<(Duration, Instant), String> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let failed = |error: io::Error| crate::fetch::http::socket::cause(&error);
    let socket = UdpSocket::bind(any).map_err(failed)?;
    // From then on, only what that server sends is read.
    socket.connect(address).map_err(failed)?;
    let cookie = crate::sys::random::number();
    let sent = Instant::now();
    socket.send(&sntp::question(cookie)).map_err(failed)?;
    let mut why = format!("no answer in {} s", ANSWER.as_secs_f32());
    loop {
        let left = ANSWER.saturating_sub(sent.elapsed());
        if left.is_zero() {
            return Err(why);
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        let mut buffer = [0; 512];
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let came = Instant::now();
                let bytes = buffer.get(..length).unwrap_or_default();
                match sntp::answer(bytes, cookie, came - sent, sure) {
                    Ok(at) => return Ok((at, came)),
                    // Not the answer, which may come yet.
                    Err(fault @ (sntp::Fault::Foreign | sntp::Fault::NotOurs)) => why = fault.to_string(),
                    Err(fault) => return Err(fault.to_string()),
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builds_time_is_a_number_or_nothing() {
        assert_eq!(seconds(b"1795824001"), 1_795_824_001);
        for other in [&b""[..], b"-1", b"12x", b" 1", b"99999999999", b"99999999999999999999999999"] {
            assert_eq!(seconds(other), 0);
        }
    }

    #[test]
    fn a_clock_is_raised_where_it_is_behind_or_absurd() {
        let year = 365 * 86_400;
        for (now, noted, wanted) in [
            (0, 0, Some(BUILT)),
            (-5, 0, Some(BUILT)),
            (i64::MIN, BUILT + year, Some(BUILT + year)),
            (BUILT as i64, 0, None),
            (BUILT as i64, BUILT + 1, Some(BUILT + 1)),
            (BUILT as i64, BUILT - year, None),
            // 2106 and 9999, as a dead battery has them, and the same in the ledger.
            (4_294_967_295, 0, Some(BUILT)),
            (253_402_300_799, BUILT + 5, Some(BUILT + 5)),
            (BUILT as i64 + 9, 253_402_300_799, None),
            (0, 253_402_300_799, Some(BUILT)),
            (i64::MAX, u64::MAX, Some(BUILT)),
        ] {
            assert_eq!(raised(now, BUILT, noted), wanted, "{now} {noted}");
        }
    }
}
