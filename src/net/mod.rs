//! The network of a device that has no OS to bring it up: links, addresses, names, the time.
//!
//! ```text
//!   configure ──> link (up, carrier) ──> static address, or dhcp, and ra ──> routes, resolv.conf ──> Up, tended
//!   clock     ──> floor ──> sntp
//! ```
//!
//! [`configure`] takes one interface from nothing to an address, a route and name servers, or says within a bounded
//! time why not; the caller then tries its next one. [`Up::tend`] keeps what was got. Every wait asks a [`Watch`], so
//! that whoever waits sees what is waited for and can end it.
//!
//! Whatever comes from a network is hostile until shown otherwise: each parser has limits, no answer runs anything, and
//! no name that a server gives is looked at. What is fetched later is believed for its signature, not for its server.
//!
//! Rings: [`dhcp`], [`sntp`] and [`ra`], the codecs and the client, are core: they take the time and randomness, and
//! return what to send. [`settings`], [`error`] and [`netlink`] are alloc; the rest is std.

pub mod dhcp;
pub mod error;
pub mod netlink;
pub mod ra;
pub mod settings;
pub mod sntp;
pub mod wifi;

#[cfg(not(target_os = "none"))]
pub mod clock;
#[cfg(not(target_os = "none"))]
mod configure;
#[cfg(not(target_os = "none"))]
mod kernel;
#[cfg(not(target_os = "none"))]
mod lease;
#[cfg(not(target_os = "none"))]
pub mod link;
#[cfg(not(target_os = "none"))]
mod resolver;
#[cfg(not(target_os = "none"))]
mod up;

#[cfg(not(target_os = "none"))]
pub use configure::{configure, configure_in, take_down, take_down_in};
pub use error::Error;
#[cfg(not(target_os = "none"))]
pub use link::{wired, wireless};
pub use settings::{Address, Settings, Static};
#[cfg(not(target_os = "none"))]
pub use up::{Places, Up};

/// Whoever waits for something: is told what happens, and may end the wait.
pub trait Watch {
    /// One sentence for the console and the log.
    fn tell(&mut self, line: &str);

    /// Called at least once a second while something is waited for; `false` ends the wait with [`Error::Stopped`].
    fn alive(&mut self) -> bool;
}
