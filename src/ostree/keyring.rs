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

use super::admit::Trust;
#[cfg(feature = "gpg")]
use super::sign::gpg::{RING_MAX, Ring, RingError, is_ring};
use super::sign::{Gathering, KEYS_MAX, Keys, KeysError, SignError, VerifiedCommit};

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
    /// A file of OpenPGP certificates has something else, or none.
    #[cfg(feature = "gpg")]
    Ring(PathBuf, RingError),
    /// The OpenPGP certificates together are of no use.
    #[cfg(feature = "gpg")]
    Rings(RingError),
    /// There are ed25519 keys and OpenPGP certificates.
    #[cfg(feature = "gpg")]
    Mixed,
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, errno) => write!(f, "keys in {}: {}", path.display(), errno.desc()),
            Self::Content(path, error) => write!(f, "keys in {}: {error}", path.display()),
            Self::TooMany(path) => write!(f, "keys in {}: more than {MAX_FILES} files", path.display()),
            Self::Together(error) => write!(f, "trusted keys: {error}"),
            #[cfg(feature = "gpg")]
            Self::Ring(path, error) => write!(f, "keys in {}: {error}", path.display()),
            #[cfg(feature = "gpg")]
            Self::Rings(error) => write!(f, "trusted keys: {error}"),
            #[cfg(feature = "gpg")]
            Self::Mixed => f.write_str("trusted keys: ed25519 keys and OpenPGP certificates, give one kind"),
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

/// Trusted keys of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trusted {
    /// Ed25519 keys.
    Ed25519(Keys),
    /// OpenPGP certificates.
    #[cfg(feature = "gpg")]
    Gpg(Ring),
}

impl Trusted {
    /// As a policy takes them.
    pub fn trust(&self) -> Trust<'_> {
        match self {
            Trusted::Ed25519(keys) => Trust::Ed25519(keys),
            #[cfg(feature = "gpg")]
            Trusted::Gpg(ring) => Trust::Gpg(ring),
        }
    }

    /// Believes a commit if enough of the keys have signed it; `now` is in seconds since 1970, where it is known.
    ///
    /// # Errors
    /// When it is not to be believed.
    pub fn verify(
        &self,
        commit: Vec<u8>,
        metadata: Option<&[u8]>,
        now: Option<u64>,
    ) -> Result<VerifiedCommit, SignError> {
        self.trust().verify(commit, metadata, now)
    }
}

/// As [`keys`], of either kind: what is in a file tells. Both at once is an error.
///
/// # Errors
/// As [`keys`].
#[cfg(not(feature = "gpg"))]
pub fn trusted(sources: &[Source], threshold: usize) -> Result<Trusted, KeyringError> {
    keys(sources, threshold).map(Trusted::Ed25519)
}

/// As [`keys`], of either kind: what is in a file tells. Both at once is an error. A layout has ed25519 keys only.
///
/// # Errors
/// As [`keys`].
#[cfg(feature = "gpg")]
pub fn trusted(sources: &[Source], threshold: usize) -> Result<Trusted, KeyringError> {
    let mut paths = Vec::new();
    for source in sources {
        match source {
            Source::File(path) => paths.push(path.clone()),
            Source::Directory(path) => paths.extend(files(path)?),
            Source::Layout(_) => {}
        }
    }
    let mut rings = Vec::new();
    for path in &paths {
        let data = read(path, RING_MAX)?;
        if is_ring(&data) {
            Ring::read(&[&data], 1).map_err(|e| KeyringError::Ring(path.clone(), e))?;
            rings.push(data);
        }
    }
    match rings.len() {
        0 => keys(sources, threshold).map(Trusted::Ed25519),
        found if found == paths.len() && paths.len() >= sources.len() => {
            let rings: Vec<&[u8]> = rings.iter().map(Vec::as_slice).collect();
            Ring::read(&rings, threshold).map(Trusted::Gpg).map_err(KeyringError::Rings)
        }
        _ => Err(KeyringError::Mixed),
    }
}

/// Where libostree looks for OpenPGP certificates: those of the remote, in the repository; without them, those of
/// `/usr/share/ostree/trusted.gpg.d`, of which it takes the files that end in `.gpg`.
///
/// # Errors
/// When a directory cannot be read.
#[cfg(feature = "gpg")]
pub fn gpg_places(
    repository: &Path,
    remote: Option<&str>,
    global: &Path,
) -> Result<Vec<Source>, KeyringError> {
    let own = remote.map(|name| repository.join(format!("{name}.trustedkeys.gpg")));
    if let Some(own) = own.filter(|path| path.symlink_metadata().is_ok()) {
        return Ok(vec![Source::File(own)]);
    }
    let all = match files(global) {
        Err(KeyringError::Unreadable(_, Errno::ENOENT)) => Vec::new(),
        all => all?,
    };
    Ok(all.into_iter().filter(|p| p.extension().is_some_and(|e| e == "gpg")).map(Source::File).collect())
}

type Take = fn(&mut Gathering, &[u8]) -> Result<(), KeysError>;

fn passed_over(done: Result<(), KeyringError>) -> Result<(), KeyringError> {
    match done {
        Err(KeyringError::Unreadable(_, Errno::ENOENT)) => Ok(()),
        done => done,
    }
}

fn file(all: &mut Gathering, path: &Path, take: Take) -> Result<(), KeyringError> {
    take(all, &read(path, KEYS_MAX)?).map_err(|e| KeyringError::Content(path.into(), e))
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, KeyringError> {
    let failed = |errno| KeyringError::Unreadable(path.into(), errno);
    // A link may lead anywhere: /usr/share/ostree often has one to /etc.
    let path_in = path.canonicalize().map_err(|e| failed(crate::sys::errno(&e)))?;
    let (above, name) = path_in.parent().zip(path_in.file_name()).ok_or(failed(Errno::EISDIR))?;
    let name = name.to_str().ok_or(failed(Errno::EILSEQ))?;
    Beneath::open(above).and_then(|tree| tree.read(name, limit)).map_err(failed)
}

/// The files of a directory.
fn files(path: &Path) -> Result<Vec<PathBuf>, KeyringError> {
    let failed = |errno| KeyringError::Unreadable(path.into(), errno);
    let (entries, whole) = Beneath::open(path).and_then(|tree| tree.list("", MAX_FILES)).map_err(failed)?;
    if !whole {
        return Err(KeyringError::TooMany(path.into()));
    }
    Ok(entries.iter().map(|entry| path.join(&entry.name)).collect())
}

fn directory(all: &mut Gathering, path: &Path, take: Take) -> Result<(), KeyringError> {
    files(path)?.iter().try_for_each(|path| match file(all, path, take) {
        // A link that leads nowhere is a key that was meant.
        Err(KeyringError::Unreadable(path, Errno::ENOENT)) => {
            Err(KeyringError::Unreadable(path, Errno::ENOLINK))
        }
        done => done,
    })
}
