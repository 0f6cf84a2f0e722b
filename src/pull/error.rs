//! What can go wrong with a pull.

use core::fmt;

use crate::fetch;
use crate::ostree::object::{Checksum, Kind};
use crate::repo::store;

use super::incoming::IncomingError;
use super::walk::WalkError;

/// Why a commit did not come. What came until then stays, and is not fetched again.
#[derive(Debug)]
pub enum Error<E> {
    /// The server, or the way to it.
    Fetch {
        /// What was asked for.
        path: String,
        /// Why it did not come.
        cause: fetch::Error,
    },
    /// The server does not have it.
    Missing {
        /// What was asked for.
        path: String,
    },
    /// What the server has for an object is not that object, twice.
    Object {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        cause: IncomingError<E>,
    },
    /// A metadata object has another checksum than its name, twice.
    Checksum {
        /// What was asked for.
        path: String,
        /// What it is.
        found: Checksum,
    },
    /// The commit's tree is wrongly made.
    Walk(WalkError),
    /// The ref names no commit: a web page, most often.
    NoCommit {
        /// The file on the server.
        path: String,
    },
    /// The commit is not to be trusted.
    Refused {
        /// Which one.
        commit: Checksum,
        /// Why.
        why: String,
    },
    /// The device is full.
    Room {
        /// Bytes that are needed, at least.
        needed: u64,
        /// Bytes that may be used.
        free: u64,
    },
    /// No file can be made any more.
    NoFiles,
    /// The device's repository.
    Store(store::Error<E>),
    /// A ref or a mark in the repository was not written.
    Step(String),
    /// No thread can be started, or nothing opened in it.
    Thread(String),
}

impl<E> Error<E> {
    /// What a server did, without what was asked for.
    pub(super) fn cause(&self) -> &dyn fmt::Display {
        match self {
            Error::Fetch { cause, .. } => cause,
            _ => &"it is not there",
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Fetch { cause: fetch::Error::Stopped, .. } => fetch::Error::Stopped.fmt(f),
            Error::Fetch { path, cause } if path.is_empty() => cause.fmt(f),
            Error::Fetch { path, cause } => write!(f, "{path}: {cause}"),
            Error::Missing { path } => {
                write!(
                    f,
                    "{path}: the server does not have it; check URL and ref, or whether the upload is complete"
                )
            }
            Error::Object { path, cause } => {
                write!(f, "{path}: what the server has is not this object: {cause}")
            }
            Error::Checksum { path, found } => {
                write!(f, "{path}: what the server has is not this object, its checksum is {found}")
            }
            Error::Walk(e) => e.fmt(f),
            Error::NoCommit { path } => {
                write!(
                    f,
                    "{path}: what came is no checksum of a commit; is there an OSTree repository at this URL?"
                )
            }
            Error::Refused { commit, why } => write!(f, "commit {commit} is refused: {why}"),
            Error::Room { needed, free } => {
                write!(
                    f,
                    "{needed} bytes are needed and {free} are free: {} more must be; remove something, for example with 'bootward undeploy'",
                    needed.saturating_sub(*free)
                )
            }
            Error::NoFiles => f.write_str("the filesystem has no room for another file; remove something"),
            Error::Store(e) => e.fmt(f),
            Error::Step(e) | Error::Thread(e) => f.write_str(e),
        }
    }
}

/// The path of an object on a server: file objects are compressed there.
pub fn path(name: &Checksum, kind: Kind) -> String {
    let kind = if kind == Kind::File { Kind::Archived } else { kind };
    crate::ostree::object::place(name, kind)
}
