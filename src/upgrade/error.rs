//! What can go wrong on the way from servers to a deployment.

use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::deploy::act;
use crate::fetch::{self, Url};
use crate::pull;
use crate::repo::config::ConfigError;
use crate::sys::files::FilesError;

/// Why there is no new deployment. Up to the last step of it nothing has changed that counts.
#[derive(Debug)]
pub enum Error {
    /// A file or directory of the sysroot cannot be read.
    Unreadable(PathBuf, Errno),
    /// The repository's configuration.
    Config(ConfigError),
    /// The sysroot cannot be made writable.
    ReadOnly(PathBuf, Errno),
    /// The sysroot cannot be opened.
    Open(FilesError),
    /// Somebody else pulls, or removes objects.
    Lock(Errno),
    /// No server was named.
    NoSource,
    /// A source, by its URL, or the repository while it was pulled from there.
    Pull(String, Box<pull::Error<FilesError>>),
    /// Every one of several sources failed.
    All(Vec<Error>),
    /// The deployment.
    Deploy(act::Error),
    /// A deployment that does not bear the name of a commit.
    Name(String),
    /// A deployment's own files cannot be put right.
    Mend(crate::deploy::Fault<FilesError>),
    /// What is in the boot directory cannot be put right.
    Boot(crate::trial::act::Error),
    /// What is still wrong after the repair.
    Unmended(Vec<String>),
    /// No thread can be started.
    Thread(String),
    /// Whoever watched it said that it is to end.
    Stopped,
}

impl Error {
    pub(super) fn pull(url: &Url, cause: pull::Error<FilesError>) -> Self {
        match cause {
            pull::Error::Fetch { cause: fetch::Error::Stopped, .. } => Error::Stopped,
            cause => Error::Pull(url.to_string(), Box::new(cause)),
        }
    }

    /// A source did not name its commit in time.
    pub(super) fn late(url: &Url) -> Self {
        let cause = fetch::Error::Overdue { allowed: super::HEAD };
        Error::pull(url, pull::Error::Fetch { path: String::new(), cause })
    }

    /// Where no source was asked.
    pub(super) fn here(cause: pull::Error<FilesError>, stop: &fetch::Stop) -> Self {
        match stop.is_set() {
            true => Error::Stopped,
            false => Error::Pull(String::from("here"), Box::new(cause)),
        }
    }

    /// Of all sources.
    pub(super) fn of(mut failed: Vec<Error>) -> Self {
        match (failed.pop(), failed.is_empty()) {
            (None, _) => Error::NoSource,
            (Some(only), true) => only,
            (Some(last), false) => {
                failed.push(last);
                Error::All(failed)
            }
        }
    }

    /// Whether it is the fault of one source, or of the way to it, so that another one is worth a try.
    pub fn of_source(&self) -> bool {
        match self {
            Error::Pull(_, cause) => matches!(
                **cause,
                pull::Error::Fetch { .. }
                    | pull::Error::Missing { .. }
                    | pull::Error::Object { .. }
                    | pull::Error::Checksum { .. }
                    | pull::Error::NoCommit { .. }
                    | pull::Error::Refused { .. }
            ),
            Error::All(all) => all.iter().all(Error::of_source),
            Error::NoSource => true,
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreadable(path, errno) => write!(f, "{}: {}", path.display(), errno.desc()),
            Error::Config(e) => e.fmt(f),
            Error::ReadOnly(path, errno) => {
                write!(f, "{} cannot be made writable: {}", path.display(), errno.desc())
            }
            Error::Open(e) => e.fmt(f),
            Error::Lock(Errno::EAGAIN) => f.write_str(
                "another pull is running, or the repository is being cleaned; try again when that is done",
            ),
            Error::Lock(errno) => write!(f, "the repository cannot be locked: {}", errno.desc()),
            Error::NoSource => f.write_str("no server is named: give --url, or a remote with a url"),
            Error::Pull(url, cause) => write!(f, "{url}: {cause}"),
            Error::All(all) => {
                f.write_str("no source has it:")?;
                all.iter().try_for_each(|e| write!(f, "\n  {e}"))
            }
            Error::Deploy(e) => e.fmt(f),
            Error::Name(name) => write!(f, "{name}: that is no commit"),
            Error::Mend(e) => write!(f, "the deployment cannot be put right: {e}"),
            Error::Boot(e) => write!(f, "the boot directory cannot be put right: {e}"),
            Error::Unmended(faults) => {
                f.write_str("it is still damaged; run it again, or deploy anew:")?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
            Error::Thread(e) => write!(f, "no thread can be started: {e}"),
            Error::Stopped => {
                f.write_str("it was stopped; what came is kept, the next one goes on from there")
            }
        }
    }
}
