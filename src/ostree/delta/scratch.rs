//! The disk as the place to unpack a part to: a file without a name, which is gone when it is closed or the power is.

use std::fs::File;
use std::io::{Error, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::payload::{Bytes, Scratch};

/// A file on disk, with a size that does not change but by what is appended.
#[derive(Debug)]
pub struct Disk {
    file: File,
    size: u64,
}

impl Disk {
    /// An empty one without a name, in a directory whose filesystem has room for it.
    ///
    /// # Errors
    /// When the filesystem has no such files or no room.
    pub fn scratch(directory: &Path) -> Result<Self, Error> {
        let flags = nix::libc::O_TMPFILE;
        let file = File::options().read(true).write(true).custom_flags(flags).mode(0o600).open(directory)?;
        Ok(Disk { file, size: 0 })
    }

    /// The file of a part.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Disk { file, size })
    }
}

impl Bytes for Disk {
    type Error = Error;

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.file.read_at(buffer, offset)
    }
}

impl Scratch for Disk {
    fn append(&mut self, data: &[u8]) -> Result<(), Error> {
        self.file.write_all(data)?;
        self.size += data.len() as u64;
        Ok(())
    }
}
