//! A commit object, `(a{sv}aya(say)sstayay)`: metadata, parent, related objects, subject, body, time, and the
//! checksums of the root directory's dirtree and dirmeta.

use alloc::vec::Vec;
use core::fmt;

use super::object::{Checksum, OBJECT_MAX};
use super::variant::{self, BYTES, Member, U64, VARIANT};

/// The digest of the composefs image that the commit's tree makes, an `ay`.
pub const COMPOSEFS_DIGEST: &str = "ostree.composefs.digest.v0";
/// A commit that bootc made of a container image has this, an `s`; its parent may be the signed one.
pub const IMAGE_CONFIG: &str = "ostree.container.image-config";

const MEMBERS: [Member; 8] = [VARIANT, BYTES, BYTES, BYTES, BYTES, U64, BYTES, BYTES];

/// A commit in normal form. Who made it is another question: see [`super::VerifiedCommit`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    data: Vec<u8>,
    checksum: Checksum,
    parent: Option<Checksum>,
    time: u64,
    root_tree: Checksum,
    root_meta: Checksum,
}

/// Why bytes are no commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitError {
    /// They are more than [`OBJECT_MAX`].
    TooLong(usize),
    /// They are not a commit's GVariant in normal form.
    Form,
    /// The parent's checksum has this many bytes, neither 32 nor none.
    Parent(usize),
    /// The root dirtree's checksum has this many bytes.
    RootTree(usize),
    /// The root dirmeta's checksum has this many bytes.
    RootMeta(usize),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::TooLong(size) => {
                write!(f, "the commit object has {size} bytes, at most {OBJECT_MAX} are read")
            }
            CommitError::Form => f.write_str("the commit object is damaged: not a GVariant in normal form"),
            CommitError::Parent(size) => {
                write!(f, "the commit object names a parent of {size} bytes instead of 32")
            }
            CommitError::RootTree(size) => {
                write!(f, "the commit object names a root dirtree of {size} bytes instead of 32")
            }
            CommitError::RootMeta(size) => {
                write!(f, "the commit object names a root dirmeta of {size} bytes instead of 32")
            }
        }
    }
}

impl Commit {
    /// Reads the bytes of a commit object.
    ///
    /// # Errors
    /// When they are not one.
    pub fn parse(data: Vec<u8>) -> Result<Self, CommitError> {
        if data.len() > OBJECT_MAX {
            return Err(CommitError::TooLong(data.len()));
        }
        let [metadata, parent, related, subject, body, time, tree, meta] =
            variant::tuple(&data, &MEMBERS).ok_or(CommitError::Form)?;
        let whole = variant::text(subject).is_some()
            && variant::text(body).is_some()
            && variant::array(related, 1).is_some()
            && variant::is_dictionary(metadata);
        if !whole {
            return Err(CommitError::Form);
        }
        let parent = match parent {
            [] => None,
            bytes => Some(Checksum::from_bytes(bytes).ok_or(CommitError::Parent(bytes.len()))?),
        };
        let root_tree = Checksum::from_bytes(tree).ok_or(CommitError::RootTree(tree.len()))?;
        let root_meta = Checksum::from_bytes(meta).ok_or(CommitError::RootMeta(meta.len()))?;
        let time = variant::u64_be(time).ok_or(CommitError::Form)?;
        Ok(Commit { checksum: Checksum::of(&data), parent, time, root_tree, root_meta, data })
    }

    /// Its own checksum, which is its name.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// The commit before it.
    pub fn parent(&self) -> Option<Checksum> {
        self.parent
    }

    /// When it was made, in seconds since 1970. Builds that are reproducible say 0, or something else that stays.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The dirtree of its root directory.
    pub fn root_tree(&self) -> Checksum {
        self.root_tree
    }

    /// The dirmeta of its root directory.
    pub fn root_meta(&self) -> Checksum {
        self.root_meta
    }

    /// The bytes of the object: what a signature is over.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// A value of type `ay` in its metadata.
    pub fn metadata_bytes(&self, key: &str) -> Option<&[u8]> {
        variant::lookup(self.metadata(), key, "ay")
    }

    /// A value of type `s` in its metadata.
    pub fn metadata_text(&self, key: &str) -> Option<&str> {
        variant::text(variant::lookup(self.metadata(), key, "s")?)
    }

    /// What is in its metadata: an `a{sv}`, of which [`super::variant`] takes values.
    pub fn metadata(&self) -> &[u8] {
        variant::tuple(&self.data, &MEMBERS).map_or(&[], |[metadata, ..]| metadata)
    }
}
