//! What failed on the way to a network, and what to do about it.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

/// Why there is no network, or no time. Durations are what was waited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// This part is not built yet.
    NotBuilt(&'static str),
    /// Whoever waited wants to wait no longer.
    Stopped,
    /// There is no such interface.
    NoInterface(String),
    /// The kernel refuses a step.
    Kernel {
        /// The interface.
        interface: String,
        /// What was asked of it: `setting it up`.
        step: &'static str,
        /// Its reason.
        cause: &'static str,
    },
    /// Nothing is at the other end of the line.
    NoCarrier {
        /// The interface.
        interface: String,
        /// So long.
        waited: Duration,
    },
    /// Nobody gives an address.
    NoAddress {
        /// The interface.
        interface: String,
        /// So long.
        waited: Duration,
        /// What came meanwhile, and why it would not do.
        seen: String,
    },
    /// What was there is gone.
    Lost {
        /// The interface.
        interface: String,
        /// `its carrier`, `its address`.
        what: &'static str,
    },
    /// The list of name servers cannot be written.
    Resolver {
        /// The file.
        path: String,
        /// The kernel's reason.
        cause: &'static str,
    },
    /// No time server is known.
    NoTimeServer,
    /// No time server gave an answer that would do.
    NoTime {
        /// What each of them did.
        seen: String,
    },
    /// The clock cannot be set.
    Clock(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotBuilt(what) => write!(f, "this build has no {what} yet"),
            Error::Stopped => f.write_str("stopped"),
            Error::NoInterface(name) => {
                write!(
                    f,
                    "there is no interface {name}: is its driver in the initramfs, its cable adapter plugged in?"
                )
            }
            Error::Kernel { interface, step, cause } => write!(f, "{interface}: {step}: {cause}"),
            Error::NoCarrier { interface, waited } => {
                write!(
                    f,
                    "{interface}: no carrier in {} s: check the cable and the switch's port",
                    waited.as_secs()
                )
            }
            Error::NoAddress { interface, waited, seen } if seen.is_empty() => write!(
                f,
                "{interface}: no address in {} s, nothing answers: check the DHCP server, or give a static address",
                waited.as_secs()
            ),
            Error::NoAddress { interface, waited, seen } => {
                write!(f, "{interface}: no address in {} s: {seen}", waited.as_secs())
            }
            Error::Lost { interface, what } => write!(f, "{interface} lost {what}"),
            Error::Resolver { path, cause } => write!(f, "{path}: {cause}"),
            Error::NoTimeServer => {
                f.write_str("no time server is known: set one in [time], or let DHCP name one")
            }
            Error::NoTime { seen } => write!(f, "no time server gave the time: {seen}"),
            Error::Clock(cause) => write!(f, "the clock cannot be set: {cause}"),
        }
    }
}
