//! DHCPv4 (RFC 2131, 2132, 3442): a codec and a client, both without I/O.
//!
//! The client ([`Client`]) is told the time and what came, and returns what to send and when to be called again. It
//! asks by broadcast, with the broadcast flag set, until it has an address; nothing below it is needed but UDP.
//!
//! What a server says is used for an address, a prefix, routes, name servers and time servers, and nothing else: no
//! name or text of its is looked at, nothing is run, the MTU stays as it is. [`message`] has the limits.
//!
//! Ring: core.

pub mod client;
pub mod message;

pub use client::{Client, Event, Send};
pub use message::{Fault, Kind, Lease, Reply, Route};
