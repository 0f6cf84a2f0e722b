//! Objects and keys as files: everything bounded, and no object believed that is not what its name says.

use std::io::Read;
use std::path::Path;

use nix::errno::Errno;

use crate::sys::beneath::Beneath;
use crate::sys::errno;

use super::object::{self, COMMITMETA_MAX, Checksum, Kind, OBJECT_MAX};
use super::sign::{KEYS_MAX, Keys, KeysError};

/// Why there is no object to go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectError {
    /// It cannot be read, or is larger than [`OBJECT_MAX`].
    Unreadable(Errno),
    /// It has another checksum than its name says.
    Changed,
}

/// The bytes of an object of the sysroot `tree`, of a kind that is named after its checksum.
///
/// # Errors
/// See [`ObjectError`].
pub fn object(tree: &Beneath, name: &Checksum, kind: Kind) -> Result<Vec<u8>, ObjectError> {
    let data = tree.read(&object::path(name, kind), OBJECT_MAX).map_err(ObjectError::Unreadable)?;
    if Checksum::of(&data) == *name { Ok(data) } else { Err(ObjectError::Changed) }
}

/// The detached metadata of a commit, which many have none of.
///
/// # Errors
/// When it is there and cannot be read, or is larger than [`COMMITMETA_MAX`].
pub fn commitmeta(tree: &Beneath, commit: &Checksum) -> Result<Option<Vec<u8>>, Errno> {
    match tree.read(&object::path(commit, Kind::CommitMeta), COMMITMETA_MAX) {
        Err(Errno::ENOENT) => Ok(None),
        read => read.map(Some),
    }
}

/// Why a file of keys is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyFileError {
    /// It cannot be read.
    Unreadable(Errno),
    /// It has no keys, or something else.
    Content(KeysError),
}

/// The trusted keys in a file of the initramfs.
///
/// # Errors
/// See [`KeyFileError`].
pub fn keys(path: &Path) -> Result<Keys, KeyFileError> {
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(KEYS_MAX as u64 + 1).read_to_end(&mut text))
        .map_err(|e| KeyFileError::Unreadable(errno(&e)))?;
    Keys::parse(&text).map_err(KeyFileError::Content)
}
