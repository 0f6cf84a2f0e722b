//! Trusted and revoked keys from where libostree looks for them: a file, a directory of files, or its own layout,
//! `trusted.ed25519`, `trusted.ed25519.d/`, `revoked.ed25519` and `revoked.ed25519.d/` below `/etc/ostree` and
//! `/usr/share/ostree` (src/libostree/ostree-sign-ed25519.c). The roots are the caller's.
//!
//! libostree passes over a file that it cannot read or understand, a list of revoked keys included. Here that is an error:
//! a revoked key must not become trusted because the list of them is damaged.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::sys::beneath::Beneath;

use super::sign::{Gathering, KEYS_MAX, Keys, KeysError};

/// More files than this in one directory are not read.
pub const MAX_FILES: usize = 256;

/// Why there are no keys to go by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyringError {
    /// A file or a directory cannot be read.
    Unreadable(PathBuf, Errno),
    /// A file has something else than keys, or none.
    Content(PathBuf, KeysError),
    /// A directory has more than [`MAX_FILES`] files.
    TooMany(PathBuf),
    /// All of them together are of no use.
    Together(KeysError),
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, errno) => write!(f, "keys in {}: {}", path.display(), errno.desc()),
            Self::Content(path, error) => write!(f, "keys in {}: {error}", path.display()),
            Self::TooMany(path) => write!(f, "keys in {}: more than {MAX_FILES} files", path.display()),
            Self::Together(error) => write!(f, "trusted keys: {error}"),
        }
    }
}

/// A place of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file of trusted keys.
    File(PathBuf),
    /// A directory, each file of which has trusted keys.
    Directory(PathBuf),
    /// A directory laid out as libostree's: `/etc/ostree`, `/usr/share/ostree`. What is not there is passed over.
    Layout(PathBuf),
}

/// The keys of all these places together, of which a commit needs the signatures of `threshold`.
///
/// # Errors
/// When something that is there cannot be read or understood, or there are not enough keys.
pub fn keys(sources: &[Source], threshold: usize) -> Result<Keys, KeyringError> {
    let mut all = Gathering::default();
    for source in sources {
        match source {
            Source::File(path) => file(&mut all, path, Gathering::trust)?,
            Source::Directory(path) => directory(&mut all, path, Gathering::trust)?,
            Source::Layout(base) => {
                for (name, take) in [("trusted", Gathering::trust as Take), ("revoked", Gathering::revoke)] {
                    let path = base.join(format!("{name}.ed25519"));
                    passed_over(file(&mut all, &path, take))?;
                    let path = base.join(format!("{name}.ed25519.d"));
                    passed_over(directory(&mut all, &path, take))?;
                }
            }
        }
    }
    all.keys(threshold).map_err(KeyringError::Together)
}

type Take = fn(&mut Gathering, &[u8]) -> Result<(), KeysError>;

fn passed_over(done: Result<(), KeyringError>) -> Result<(), KeyringError> {
    match done {
        Err(KeyringError::Unreadable(_, Errno::ENOENT)) => Ok(()),
        done => done,
    }
}

fn file(all: &mut Gathering, path: &Path, take: Take) -> Result<(), KeyringError> {
    let failed = |errno| KeyringError::Unreadable(path.into(), errno);
    // A link may lead anywhere: /usr/share/ostree often has one to /etc.
    let path_in = path.canonicalize().map_err(|e| failed(crate::sys::errno(&e)))?;
    let (above, name) = path_in.parent().zip(path_in.file_name()).ok_or(failed(Errno::EISDIR))?;
    let name = name.to_str().ok_or(failed(Errno::EILSEQ))?;
    let text = Beneath::open(above).and_then(|tree| tree.read(name, KEYS_MAX)).map_err(failed)?;
    take(all, &text).map_err(|e| KeyringError::Content(path.into(), e))
}

fn directory(all: &mut Gathering, path: &Path, take: Take) -> Result<(), KeyringError> {
    let failed = |errno| KeyringError::Unreadable(path.into(), errno);
    let (entries, whole) = Beneath::open(path).and_then(|tree| tree.list("", MAX_FILES)).map_err(failed)?;
    if !whole {
        return Err(KeyringError::TooMany(path.into()));
    }
    entries.iter().try_for_each(|entry| match file(all, &path.join(&entry.name), take) {
        // A link that leads nowhere is a key that was meant.
        Err(KeyringError::Unreadable(path, Errno::ENOENT)) => {
            Err(KeyringError::Unreadable(path, Errno::ENOLINK))
        }
        done => done,
    })
}
