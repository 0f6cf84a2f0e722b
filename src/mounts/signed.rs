//! Which composefs image a deployment must have: the one that a signed commit names.
//!
//! As in libostree (src/libotcore/otcore-prepare-root.c), the deployment's commit is the one to be signed; where bootc
//! made that one on the device, of a container image and without detached metadata, the commit that it is based on.
//! Other than there, each commit object must have the checksum by which it was asked for.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::ostree::commit::{COMPOSEFS_DIGEST, CommitError, IMAGE_CONFIG};
use crate::ostree::object::{self, Kind};
use crate::ostree::read::{self, KeyFileError, ObjectError};
use crate::ostree::sign::SignError;
use crate::ostree::{Checksum, Commit};
use crate::sys::beneath::Beneath;

/// Why no image is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignedError {
    /// This build has no verification.
    Unable,
    /// The file with the keys is of no use.
    Keys(PathBuf, KeyFileError),
    /// The deployment's directory is not named after a commit.
    Name(String),
    /// An object cannot be read.
    Object(String, Errno),
    /// The deployment's commit is none.
    Commit(Checksum, CommitError),
    /// An object is another commit than its name says.
    Other(Checksum),
    /// The commit has no good signature.
    Signature(Checksum, SignError),
    /// The signed commit names no image.
    NoDigest(Checksum),
}

impl fmt::Display for SignedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unable => f.write_str(
                "signed composefs: this build has no verification; use one with the feature 'verify'",
            ),
            Self::Keys(path, KeyFileError::Unreadable(errno)) => {
                write!(f, "keys in {}: {}", path.display(), errno.desc())
            }
            Self::Keys(path, KeyFileError::Content(error)) => {
                write!(f, "keys in {}: {error}", path.display())
            }
            Self::Name(name) => {
                write!(f, "'{name}' is not named after a commit, so that nothing can be verified")
            }
            Self::Object(path, errno) => write!(f, "{path}: {}", errno.desc()),
            Self::Commit(commit, error) => write!(f, "commit {commit}: {error}"),
            Self::Other(commit) => write!(f, "commit {commit}: the object has another checksum"),
            Self::Signature(commit, error) => write!(f, "commit {commit}: {error}"),
            Self::NoDigest(commit) => {
                write!(f, "commit {commit}: it is signed, and names no composefs image")
            }
        }
    }
}

/// The fs-verity digest of the image that `deployment` of the sysroot must have, as one of the keys in the file
/// `keypath` of the initramfs vouches for.
///
/// # Errors
/// See [`SignedError`].
pub fn digest(
    initramfs: &Path,
    sysroot: &Path,
    deployment: &str,
    keypath: &str,
) -> Result<[u8; 32], SignedError> {
    // A constant: without the feature, what follows is not in the binary at all.
    if !cfg!(feature = "verify") {
        return Err(SignedError::Unable);
    }
    let path = initramfs.join(keypath.trim_start_matches('/'));
    let keys = read::keys(&path).map_err(|error| SignedError::Keys(path, error))?;
    let name = deployment.rsplit('/').next().unwrap_or_default();
    let checksum = name.split('.').next().and_then(Checksum::parse);
    let checksum = checksum.ok_or_else(|| SignedError::Name(name.into()))?;
    let tree = Beneath::open(sysroot).map_err(|e| SignedError::Object(sysroot.display().to_string(), e))?;
    let data = commit(&tree, checksum)?;
    let (checksum, data, metadata) = match metadata(&tree, checksum)? {
        Some(metadata) => (checksum, data, Some(metadata)),
        None => based_on(&tree, checksum, &data)?.unwrap_or((checksum, data, None)),
    };
    let failed = |error| SignedError::Signature(checksum, error);
    let verified = keys.verify(data, metadata.as_deref()).map_err(failed)?;
    log::info!("commit {checksum} is signed by key {} of {keypath}", verified.key() + 1);
    let digest = verified.commit().metadata_bytes(COMPOSEFS_DIGEST).and_then(|digest| digest.try_into().ok());
    digest.ok_or(SignedError::NoDigest(checksum))
}

type Based = (Checksum, Vec<u8>, Option<Vec<u8>>);

/// The commit below one of bootc's, if it is here and has detached metadata.
fn based_on(tree: &Beneath, checksum: Checksum, data: &[u8]) -> Result<Option<Based>, SignedError> {
    let upper = Commit::parse(data.to_vec()).map_err(|error| SignedError::Commit(checksum, error))?;
    let base = upper.metadata_text(IMAGE_CONFIG).and(upper.parent());
    let Some(base) = base else { return Ok(None) };
    let data = match commit(tree, base) {
        Err(SignedError::Object(_, Errno::ENOENT)) => return Ok(None),
        data => data?,
    };
    let metadata = metadata(tree, base)?;
    if metadata.is_some() {
        log::info!("commit {checksum} is bootc's own; the one that it is based on is verified");
    }
    Ok(metadata.map(|metadata| (base, data, Some(metadata))))
}

fn commit(tree: &Beneath, checksum: Checksum) -> Result<Vec<u8>, SignedError> {
    read::object(tree, &checksum, Kind::Commit).map_err(|error| match error {
        ObjectError::Unreadable(errno) => SignedError::Object(object::path(&checksum, Kind::Commit), errno),
        ObjectError::Changed => SignedError::Other(checksum),
    })
}

fn metadata(tree: &Beneath, checksum: Checksum) -> Result<Option<Vec<u8>>, SignedError> {
    let failed = |errno| SignedError::Object(object::path(&checksum, Kind::CommitMeta), errno);
    read::commitmeta(tree, &checksum).map_err(failed)
}
