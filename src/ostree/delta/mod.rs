//! Static deltas: what leads from one commit, or from nothing, to another in few requests and few bytes.
//!
//! ```text
//!   names       where a repository keeps deltas and their indexes
//!   summary     what a repository says it has: refs, and deltas with the checksums of their superblocks
//!   choose      which way is the cheapest: a delta from what is here, one from nothing, or the objects one by one
//!   superblock  what a delta begins with: the commit, the parts, the objects that are fetched by themselves
//!   xz, lzma    unpacking a part, with the older half of the dictionary on disk
//!   payload     what is in a part: tables of modes and attributes, data, operations
//!   bspatch     one file made of another and their difference
//!   apply       runs the operations of a part; what comes out are objects
//!   scratch     the disk as the place to unpack to, of the std ring
//! ```
//!
//! The order of work: [`superblock::Superblock::parse`], verify its commit with its detached metadata, then
//! [`superblock::Superblock::verified`] opens the rest; for each part that makes an object we lack, have its file
//! or its inline bytes, and [`apply::apply_part`]; then fetch the fallbacks as objects.
//!
//! Nothing in a delta is believed. The commit counts when its signature does; a part is looked into when it has the
//! checksum that the superblock names; an object counts by its own checksum, and [`Objects`] refuses every other.
//! Whatever the superblock says about sizes bounds the work: a part that unpacks to more, or writes more, is refused.
//!
//! Memory does not grow with a part. A part is unpacked once, to a file, because the operations that say what its
//! data mean are at its end; then the operations are run with reads from that file. Parts of libostree's are packed
//! with a dictionary of 32 MiB, usually all of the part: the decoder keeps the last few and takes what is further
//! back from the same file.
//!
//! Formats: `ostree-repo-static-delta-private.h`, `-core.c`, `-processing.c` and `ostree-varint.c` of libostree v2026.4.

use super::object::{Checksum, Kind};
use super::tree::Meta;

pub mod apply;
pub mod bspatch;
pub mod choose;
pub mod lzma;
pub mod names;
pub mod payload;
#[cfg(not(target_os = "none"))]
pub mod scratch;
pub mod summary;
pub mod superblock;
pub mod xz;

pub use apply::{ApplyError, Report, apply_part};
pub use names::Name;
pub use superblock::{Delta, Part, Superblock};

/// The repository that objects are made in, and that the objects they are made of are in.
pub trait Objects {
    /// What can go wrong with it.
    type Error;
    /// A regular file object that is being written.
    type Draft;
    /// The open content of one that is there.
    type Source;

    /// Whether an object is there, whole.
    ///
    /// # Errors
    /// When that cannot be told.
    fn has(&mut self, name: &Checksum, kind: Kind) -> Result<bool, Self::Error>;

    /// Stores a commit, dirtree or dirmeta.
    ///
    /// # Errors
    /// When the bytes have another checksum, or the medium refuses.
    fn put(&mut self, name: &Checksum, kind: Kind, data: &[u8]) -> Result<(), Self::Error>;

    /// Stores a symbolic link.
    ///
    /// # Errors
    /// When it has another checksum, or the medium refuses.
    fn symlink(&mut self, name: &Checksum, meta: &Meta, target: &str) -> Result<(), Self::Error>;

    /// Starts a regular file of `size` bytes; the content follows.
    ///
    /// # Errors
    /// When the medium refuses.
    fn draft(&mut self, name: &Checksum, meta: &Meta, size: u64) -> Result<Self::Draft, Self::Error>;

    /// Writes at the end of a draft.
    ///
    /// # Errors
    /// When the medium refuses.
    fn append(&mut self, draft: &mut Self::Draft, data: &[u8]) -> Result<(), Self::Error>;

    /// Throws a draft away.
    ///
    /// # Errors
    /// When the medium refuses.
    fn discard(&mut self, draft: Self::Draft) -> Result<(), Self::Error>;

    /// Ends a draft: an object of this name, or nothing.
    ///
    /// # Errors
    /// When it has another size than was said or another checksum: the draft is removed then. When the medium refuses.
    fn seal(&mut self, draft: Self::Draft, name: &Checksum) -> Result<(), Self::Error>;

    /// Opens the content of a regular file object; the second value is its length.
    ///
    /// # Errors
    /// When there is none of this name.
    fn open(&mut self, name: &Checksum) -> Result<(Self::Source, u64), Self::Error>;

    /// Reads into the buffer from an offset, and says how much: less than there is room for at the end only.
    ///
    /// # Errors
    /// As pread(2).
    fn read_at(
        &mut self,
        source: &mut Self::Source,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Self::Error>;
}
