//! Wi-Fi for recovery: `wpa_supplicant` as a child, driven through its control socket.
//!
//! ```text
//!   places ──> profile   which networks, in which order: what worked last, the lists, the factory's
//!   escrow ──> slot     what the running system hands over
//!   drivers              the radio's driver and firmware, from the initramfs or a deployment
//!   radio  ──> daemon    the supervised child and its control socket
//!          ──> join      what to try next and what a failure means (pure)
//!          ──> wire      events, scan results, status (pure)
//! ```
//!
//! One network block for every access point is enough in a simulation and not on real chips: [`join`] climbs a ladder.
//! Rings: `profile`, `file`, `slot`, `wire` and `join` are alloc; the
//! rest is std.

pub mod escrow;
pub mod file;
pub mod join;
pub mod profile;
pub mod slot;
pub mod wire;

#[cfg(not(target_os = "none"))]
mod control;
#[cfg(not(target_os = "none"))]
mod daemon;
#[cfg(not(target_os = "none"))]
pub mod drivers;
#[cfg(not(target_os = "none"))]
mod places;
#[cfg(not(target_os = "none"))]
mod radio;
#[cfg(not(target_os = "none"))]
mod switch;

use alloc::string::String;
use core::fmt;

pub use profile::{Key, Origin, Profile, Secret, Unfit};
pub use wire::{Bssid, Protection, Seen};

#[cfg(not(target_os = "none"))]
pub use places::{Known, Places, known, profiles};
#[cfg(not(target_os = "none"))]
pub use radio::{Joined, Radio, Settings};

/// What went wrong, and what a technician does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Whoever waited does not wait any longer.
    Stopped,
    /// The radio is switched off by a switch of its own.
    SwitchedOff(String),
    /// wpa_supplicant does not run: what it said, or the kernel did.
    Daemon(String),
    /// wpa_supplicant did not answer, or refused a command, which is named.
    Control(&'static str, String),
    /// No scan could be made.
    Scan,
    /// The network is not in reach.
    Absent(String),
    /// The access point does not know this passphrase.
    WrongKey(String),
    /// A network of this name is in reach, protected in a way that our key is not for.
    Unsuited(String, Protection),
    /// The access point refused us: how.
    Refused(String, join::Refusal),
    /// It took too long, in seconds.
    Late(String, u64),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Stopped => f.write_str("stopped"),
            Error::SwitchedOff(radio) => {
                write!(f, "the radio {radio} is switched off by a switch on the device")
            }
            Error::Daemon(why) => write!(f, "wpa_supplicant does not run: {why}"),
            Error::Control(command, why) => write!(f, "wpa_supplicant, {command}: {why}"),
            Error::Scan => {
                f.write_str("the radio could not scan; see the kernel log for its driver and firmware")
            }
            Error::Absent(name) => write!(f, "'{name}' is not in reach"),
            Error::WrongKey(name) => write!(f, "'{name}': wrong passphrase"),
            Error::Unsuited(name, protection) => write!(
                f,
                "'{name}' in reach is another one: its protection is {protection}, which our key is not for"
            ),
            Error::Refused(name, why) => write!(f, "'{name}' refused us: {why}"),
            Error::Late(name, seconds) => write!(f, "'{name}' was not joined within {seconds} s"),
        }
    }
}
