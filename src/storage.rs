//! The seams between what we keep on disk and the disk.
//!
//! The U-Boot environment and the boot ledger are both a handful of fixed places on a medium of bytes: [`Medium`]. The
//! environment may also be in raw flash, which must be erased before it is written: [`Flash`].
//! A change of the deployments is a sequence of operations on files: [`Files`]; one that brings objects or a new
//! deployment needs their owners, attributes and contents besides: [`Trees`]. The logic is written against these;
//! the device puts a disk behind them, the tests one that loses power at every byte and after every operation.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::ostree::tree::Meta;

/// A durable medium of a fixed length, addressed by byte.
pub trait Medium {
    /// What can go wrong; carries path, offset and errno on a real device.
    type Error: core::fmt::Debug;

    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When the range is not wholly inside the medium or the device refuses.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes `data` at `offset`. Until [`Medium::flush`] returns, a power cut may keep any part of it.
    ///
    /// # Errors
    /// When the range is not wholly inside the medium or the device refuses.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error>;

    /// Returns once everything written before is on the medium itself.
    ///
    /// # Errors
    /// When the device could not promise that; what was written must then be taken as lost.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

/// Raw flash: programming clears bits, and only erasing a whole sector sets them again.
///
/// What was programmed or erased is durable when the call returns. A power cut in between leaves part of the programmed
/// bytes, and anything at all in a sector that was being erased.
pub trait Flash {
    /// What can go wrong; carries path, offset and errno on a real device.
    type Error: core::fmt::Debug;

    /// Fills `buffer` from `offset`. Damage that the flash itself has found may come as data.
    ///
    /// # Errors
    /// When the range is not wholly inside the flash or the device refuses.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Whether the sector at `offset` is marked bad; never so where flash has no such marks.
    ///
    /// # Errors
    /// When that cannot be told.
    fn is_bad(&mut self, offset: u64) -> Result<bool, Self::Error>;

    /// Sets all bits of a sector.
    ///
    /// # Errors
    /// When it is no sector, is locked, or wears out.
    fn erase(&mut self, offset: u64, length: u64) -> Result<(), Self::Error>;

    /// Clears the bits that are clear in `data`.
    ///
    /// # Errors
    /// When the range is locked, or not made of whole pages where the flash wants that.
    fn program(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error>;

    /// Takes the write protection off a sector where it has one. Returns whether it is to be put back.
    fn unlock(&mut self, offset: u64, length: u64) -> bool;

    /// Puts the write protection back.
    fn lock(&mut self, offset: u64, length: u64);

    /// The error for a range that does not hold what was programmed.
    fn damaged(&self, offset: u64) -> Self::Error;
}

/// The two directories that a change of the deployments writes to. They may be on one filesystem or on two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Volume {
    /// The physical root, the directory with `ostree` in it.
    Root,
    /// The boot directory, which the bootloader reads.
    Boot,
}

/// A place below one of the two: a relative path without `.` and `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct At {
    /// Below which one.
    pub volume: Volume,
    /// The path from there.
    pub path: String,
}

impl At {
    /// A place below the physical root.
    pub fn root(path: impl Into<String>) -> Self {
        At { volume: Volume::Root, path: path.into() }
    }

    /// A place below the boot directory.
    pub fn boot(path: impl Into<String>) -> Self {
        At { volume: Volume::Boot, path: path.into() }
    }

    /// What is called `name` in this directory.
    pub fn join(&self, name: &str) -> Self {
        At { volume: self.volume, path: format!("{}/{name}", self.path) }
    }

    /// The same name with an ending: where something is made before it is renamed into place.
    pub fn beside(&self, ending: &str) -> Self {
        At { volume: self.volume, path: format!("{}{ending}", self.path) }
    }
}

impl core::fmt::Display for At {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.volume {
            Volume::Root => "",
            Volume::Boot => "boot/",
        })?;
        f.write_str(&self.path)
    }
}

/// What a name in a directory stands for; links are not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A device, a socket, a pipe.
    Other,
}

/// The file operations that a change of the deployments is made of: each one is a point where the power may go.
///
/// On the device a filesystem is behind it, in the tests a model of one that forgets what was not synced.
pub trait Files {
    /// What can go wrong; carries path and errno on a real device.
    type Error: core::fmt::Debug + core::fmt::Display;

    /// What is there; `None` where nothing is.
    ///
    /// # Errors
    /// When that cannot be told.
    fn node(&mut self, at: &At) -> Result<Option<Node>, Self::Error>;

    /// The names in a directory.
    ///
    /// # Errors
    /// When it is no directory or cannot be read.
    fn names(&mut self, at: &At) -> Result<Vec<String>, Self::Error>;

    /// The content of a regular file as the medium holds it: what the page cache has is not asked where that can
    /// be avoided.
    ///
    /// # Errors
    /// When it is none, or longer than `limit` bytes.
    fn read(&mut self, at: &At, limit: usize) -> Result<Vec<u8>, Self::Error>;

    /// The text of a symbolic link.
    ///
    /// # Errors
    /// When it is none.
    fn link_text(&mut self, at: &At) -> Result<String, Self::Error>;

    /// Whether two regular files have the same content, read as [`Files::read`] does.
    ///
    /// # Errors
    /// When one cannot be read.
    fn same(&mut self, one: &At, other: &At) -> Result<bool, Self::Error>;

    /// Makes a directory; one that is there already is success.
    ///
    /// # Errors
    /// As mkdir(2).
    fn make_directory(&mut self, at: &At, mode: u32) -> Result<(), Self::Error>;

    /// Makes a new file; its content is durable when this returns, its name is not.
    ///
    /// # Errors
    /// When something is there already, or the medium refuses.
    fn create(&mut self, at: &At, content: &[u8], mode: u32) -> Result<(), Self::Error>;

    /// Makes a second name for a file or, where that cannot be, a copy with its mode and owner, durable as
    /// [`Files::create`] has it.
    ///
    /// # Errors
    /// As [`Files::create`].
    fn copy(&mut self, from: &At, to: &At) -> Result<(), Self::Error>;

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// When something is there already, or the medium refuses.
    fn symlink(&mut self, at: &At, text: &str) -> Result<(), Self::Error>;

    /// Renames within a filesystem, over what is there: the one step that happens wholly or not at all.
    ///
    /// # Errors
    /// As rename(2).
    fn rename(&mut self, from: &At, to: &At) -> Result<(), Self::Error>;

    /// Exchanges two names of one directory in one step, so that neither's file is let go of: a reader that replays no
    /// journal may see the old directory beside a new table of inodes, and must find in it what it names. A plain rename
    /// where the filesystem cannot exchange.
    ///
    /// # Errors
    /// As renameat2(2).
    fn exchange(&mut self, from: &At, to: &At) -> Result<(), Self::Error>;

    /// Removes what is no directory.
    ///
    /// # Errors
    /// As unlink(2).
    fn unlink(&mut self, at: &At) -> Result<(), Self::Error>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As rmdir(2).
    fn remove_directory(&mut self, at: &At) -> Result<(), Self::Error>;

    /// Takes the immutable flag off a directory, where it has one.
    ///
    /// # Errors
    /// When the filesystem has such flags and does not let go of this one.
    fn unlock(&mut self, at: &At) -> Result<(), Self::Error>;

    /// Sets a directory's time of change to now: libostree watches `ostree/deploy`.
    ///
    /// # Errors
    /// As utimensat(2).
    fn touch(&mut self, at: &At) -> Result<(), Self::Error>;

    /// Returns once everything written to the volume is durable: whoever replays its journal finds it.
    ///
    /// # Errors
    /// When the medium did not promise that.
    fn sync(&mut self, volume: Volume) -> Result<(), Self::Error>;

    /// As [`Files::sync`], and in its final place, so that a reader that replays no journal finds it too (FIFREEZE and
    /// FITHAW). `false` where the filesystem cannot do that; it is synced then.
    ///
    /// # Errors
    /// When the medium did not promise that.
    fn freeze(&mut self, volume: Volume) -> Result<bool, Self::Error>;
}

/// Free room on a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes that may be written.
    pub bytes: u64,
    /// Files that may be made; `None` where the filesystem has no such limit.
    pub files: Option<u64>,
}

/// What is at a place, links not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// What it is.
    pub node: Node,
    /// Bytes of its content, or of a link's text.
    pub length: u64,
    /// When its content changed last: seconds since 1970, and nanoseconds.
    pub changed: (i64, i64),
}

/// What fs-verity says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sealed {
    /// It has this digest, and the kernel checks what is read against it.
    Digest([u8; 32]),
    /// It is not switched on for this file.
    Not,
    /// The filesystem has none.
    Never,
}

/// What objects and deployments need besides: contents of any length, owners, modes, extended attributes, second names.
///
/// What these make is durable after the next [`Files::sync`] and not before.
pub trait Trees: Files {
    /// A new file that is being written.
    type Draft;
    /// An open file that is being read.
    type Source;

    /// Starts a file; until it is sealed it belongs to us and nobody else may read it.
    ///
    /// # Errors
    /// When something is there already, or the medium refuses.
    fn draft(&mut self, at: &At) -> Result<Self::Draft, Self::Error>;

    /// Opens a file that an earlier draft left, to go on at its end; the second value is its length.
    ///
    /// # Errors
    /// When there is none.
    fn resume(&mut self, at: &At) -> Result<(Self::Draft, u64), Self::Error>;

    /// Writes at the end of a draft.
    ///
    /// # Errors
    /// As write(2).
    fn append(&mut self, draft: &mut Self::Draft, data: &[u8]) -> Result<(), Self::Error>;

    /// Ends a draft: owner, extended attributes, permissions, and a time of change of 0, which libostree gives all objects
    /// (`OSTREE_TIMESTAMP`). The type in the mode is not looked at.
    ///
    /// # Errors
    /// When the filesystem refuses one of them.
    fn seal(&mut self, draft: Self::Draft, meta: &Meta) -> Result<(), Self::Error>;

    /// Makes a symbolic link with an owner and extended attributes.
    ///
    /// # Errors
    /// As [`Files::symlink`].
    fn symlink_with(&mut self, at: &At, text: &str, meta: &Meta) -> Result<(), Self::Error>;

    /// Gives a directory its owner, extended attributes, permissions, and a time of change of 0: after all that is in it was
    /// made. Attributes that it has and `meta` has not are removed where the filesystem lets go of them.
    ///
    /// # Errors
    /// When the filesystem refuses one of them.
    fn dress(&mut self, at: &At, meta: &Meta) -> Result<(), Self::Error>;

    /// Owner, type, permissions and extended attributes of what is there, links not followed; attributes sorted by name.
    ///
    /// # Errors
    /// When nothing is there.
    fn meta(&mut self, at: &At) -> Result<Meta, Self::Error>;

    /// Makes a second name for a file or a symbolic link, and never a copy.
    ///
    /// # Errors
    /// As link(2).
    fn hard_link(&mut self, from: &At, to: &At) -> Result<(), Self::Error>;

    /// Opens a regular file; the second value is its length.
    ///
    /// # Errors
    /// When it is none.
    fn open(&mut self, at: &At) -> Result<(Self::Source, u64), Self::Error>;

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

    /// Sets the immutable flag of a directory, where the filesystem has one.
    ///
    /// # Errors
    /// When it has and refuses.
    fn lock(&mut self, at: &At) -> Result<(), Self::Error>;

    /// The owner and group that new files get.
    fn owner(&self) -> (u32, u32);

    /// What is there, and its size; `None` where nothing is.
    ///
    /// # Errors
    /// When that cannot be told.
    fn look(&mut self, at: &At) -> Result<Option<Look>, Self::Error>;

    /// Sets a time of change, a link's own too.
    ///
    /// # Errors
    /// As utimensat(2).
    fn stamp(&mut self, at: &At, changed: (i64, i64)) -> Result<(), Self::Error>;

    /// Makes an overlayfs whiteout: a character device with the numbers 0 and 0.
    ///
    /// # Errors
    /// As mknod(2).
    fn whiteout(&mut self, at: &At, meta: &Meta) -> Result<(), Self::Error>;

    /// The fs-verity digest of a regular file.
    ///
    /// # Errors
    /// When it cannot be told, or is not of SHA-256.
    fn sealed(&mut self, at: &At) -> Result<Sealed, Self::Error>;

    /// Switches fs-verity on for a regular file, whose content can then not be changed any more; one that has it is success.
    /// `false` where the filesystem has none.
    ///
    /// # Errors
    /// When it has and refuses.
    fn seal_content(&mut self, at: &At) -> Result<bool, Self::Error>;

    /// The room that is left for us.
    ///
    /// # Errors
    /// As statvfs(3).
    fn room(&mut self, volume: Volume) -> Result<Room, Self::Error>;
}
