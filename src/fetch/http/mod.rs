//! HTTP/1.1: the head, the body and the pace of answers (pure, alloc), and the client (std).

pub mod body;
pub mod head;
pub mod pace;

#[cfg(not(target_os = "none"))]
mod channel;
#[cfg(not(target_os = "none"))]
mod connection;
#[cfg(not(target_os = "none"))]
mod server;
#[cfg(all(feature = "minreq", not(target_os = "none")))]
mod single;
#[cfg(not(target_os = "none"))]
pub(crate) mod socket;

#[cfg(not(target_os = "none"))]
pub use channel::HttpChannel;
#[cfg(not(target_os = "none"))]
pub(super) use channel::check;
#[cfg(not(target_os = "none"))]
pub use server::Http;
#[cfg(all(feature = "minreq", not(target_os = "none")))]
pub use single::{Single, SingleChannel};
