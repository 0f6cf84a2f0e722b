//! What the running system knows of its Wi-Fi, so that recovery knows it too.
//!
//! ```text
//!   gather            the files of the programs that manage Wi-Fi, the radio's driver and its options
//!     network_manager   *.nmconnection
//!     iwd               NAME.psk, NAME.open
//!     connman           *.config, settings
//!     (file)            wpa_supplicant.conf, also where systemd-networkd has its own for an interface
//! ```
//!
//! Each program's file is read as it writes it; what recovery cannot join (an agent keeps the secret, a certificate is in a
//! file of the deployment) is told and left out. The parsers are alloc, `gather` is std.

pub mod connman;
pub mod ini;
pub mod iwd;
pub mod network_manager;

#[cfg(not(target_os = "none"))]
mod gather;

use alloc::string::String;

use super::Unfit;

#[cfg(not(target_os = "none"))]
pub use gather::{Gathered, gather};

/// Why a program's profile is left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Left {
    /// The person has switched it off.
    Off,
    /// It is for another interface.
    Elsewhere(String),
    /// Its secret is kept by an agent or asked for each time.
    NoSecret,
    /// A kind of network that is not joined.
    Kind(String),
    /// The file is not what its program writes.
    Form(&'static str),
    /// No access point could have this name or key.
    Unfit(Unfit),
}

impl core::fmt::Display for Left {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Left::Off => f.write_str("it is not connected automatically"),
            Left::Elsewhere(interface) => {
                write!(f, "it is for {}", super::profile::shown(interface.as_bytes()))
            }
            Left::NoSecret => f.write_str("its secret is not in the file"),
            Left::Kind(kind) => {
                let kind = super::profile::shown(kind.as_bytes());
                write!(f, "'{kind}' is not carried over; give it in a file of its own in the initramfs")
            }
            Left::Form(what) => write!(f, "{what}"),
            Left::Unfit(why) => why.fmt(f),
        }
    }
}

impl From<Unfit> for Left {
    fn from(why: Unfit) -> Self {
        Left::Unfit(why)
    }
}
