//! Asking a server for files: a stick's directory, plain HTTP, HTTPS, behind one small trait.
//!
//! ```text
//!   Request ──send──> Channel ──receive──> Answer (head), then read, read, ... 0
//!                        │
//!     file (a directory)   http (ours: keep-alive, pipelining, TLS by tls)
//! ```
//!
//! A [`Transport`] is a server, shared by threads; each thread opens its own [`Channel`] and has up to
//! [`Channel::window`] requests under way in it. Every [`Channel::send`] that succeeded gets exactly one
//! outcome of [`Channel::receive`], in order, whatever happens to the connection.
//!
//! Nothing here trusts the server: [`Limits`] has a limit on everything that it can send and on every time
//! that it can take. Nothing here is a reason to trust what came either: that is for checksums and signatures.
//! Proxies are out of scope; a network that needs one is served by a redirect or a mirror inside it.
//!
//! Rings: [`url`], [`error`], [`limits`], [`backoff`], [`stop`] and the parsers below [`http`] are alloc, without time or
//! a kernel of their own; the rest is std.

pub mod backoff;
pub mod error;
pub mod http;
pub mod limits;
pub mod stop;
pub mod url;

#[cfg(not(target_os = "none"))]
pub mod any;
#[cfg(not(target_os = "none"))]
pub mod file;
#[cfg(not(target_os = "none"))]
pub mod resolve;
#[cfg(all(feature = "tls", not(target_os = "none")))]
pub mod tls;
#[cfg(not(target_os = "none"))]
pub mod turn;

use alloc::string::String;

#[cfg(not(target_os = "none"))]
pub use any::{AnyChannel, AnyTransport, Options, open};
pub use backoff::Backoff;
pub use error::{Error, Retry, Step};
pub use limits::Limits;
pub use stop::Stop;
pub use url::{Scheme, Url};

/// What to ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Below the base URL, without a `/` in front, percent-encoded where needed: `objects/ab/cd....filez`.
    pub path: String,
    /// The first byte that is wanted: a Range request when not 0.
    pub from: u64,
    /// More bytes of body than this are refused: before reading any where the length is told, else at the first
    /// byte too many. What counts are the bytes of this answer, without the `from` bytes before it.
    pub limit: u64,
    /// The validator of the answer that the first bytes came from (If-Range): when the file is another one now, the
    /// answer is [`Found::Whole`].
    pub validator: Option<String>,
}

impl Request {
    /// Asks for a whole file of at most `limit` bytes.
    pub fn whole(path: impl Into<String>, limit: u64) -> Self {
        Request { path: path.into(), from: 0, limit, validator: None }
    }
}

/// What the server has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The file from its first byte (200), also where a later part was asked for.
    Whole,
    /// The file from the byte asked for to its end (206).
    Part {
        /// The first byte, always the one asked for.
        from: u64,
        /// The length of the whole file, where told.
        total: Option<u64>,
    },
    /// No such file (404, 403, 410); the body that comes with it is not shown.
    Missing,
}

/// The head of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What the server has.
    pub found: Found,
    /// Bytes of body to come, where told; at most [`Request::limit`].
    pub length: Option<u64>,
    /// What names this version of the file, for [`Request::validator`] later on.
    pub validator: Option<String>,
}

/// A server: opens channels to it; shared by threads.
pub trait Transport: Sync {
    /// Its channels.
    type Channel: Channel;

    /// Opens a channel. The connection itself may come with the first request only.
    ///
    /// # Errors
    /// When it is clear already that no request can be answered.
    fn open(&self) -> Result<Self::Channel, Error>;
}

/// One connection's worth of requests, answered in order.
///
/// The connection is opened when needed and again when the server ended it; what was sent and not answered then
/// is sent again, as long as each connection answers something. When a connection fails, the oldest request gets
/// the reason, each other one under way [`Error::NotAnswered`], and the channel can be used again.
pub trait Channel {
    /// How many requests may be under way at once (pipelining): 1 for files, and for a server that turned
    /// out to break pipelines. More are accepted, but a server that reads nothing meanwhile may then stall.
    fn window(&self) -> usize;

    /// Connects, where that is not done yet, so that the first request need not wait for it. What goes wrong, that one
    /// will tell.
    fn warm(&mut self) {}

    /// Puts a request under way. It reaches the server at the next [`Channel::receive`] or [`Channel::read`] at the latest.
    ///
    /// # Errors
    /// [`Error::BadRequest`] only, when it cannot be put into words of the protocol; nothing is under way then.
    fn send(&mut self, request: Request) -> Result<(), Error>;

    /// The head of the answer to the oldest request under way. What is unread of the answer before it is passed over.
    ///
    /// # Errors
    /// When there is none; this request is then no longer under way. [`Error::NothingSent`] when none is.
    fn receive(&mut self) -> Result<Answer, Error>;

    /// Body of the answer last received; 0 at its end, which was then checked against the length told.
    ///
    /// # Errors
    /// When the rest cannot come. What was read until then is good as the start of a resumed request, no more.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error>;
}
