//! A file or block device as a [`Medium`].

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::storage::Medium;

/// A window of `length` bytes at `offset` of an open file or block device.
#[derive(Debug)]
pub struct FileMedium {
    file: File,
    path: PathBuf,
    offset: u64,
    length: u64,
}

/// What failed, where.
#[derive(Debug)]
pub struct MediumError {
    /// The file or device.
    pub path: PathBuf,
    /// The step that failed: `open`, `read`, `write`, `sync`; of flash and UBI a few more.
    pub step: &'static str,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The system's reason.
    pub error: io::Error,
}

impl fmt::Display for MediumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at offset {}: {}", self.step, self.path.display(), self.offset, self.error)
    }
}

impl FileMedium {
    /// Opens `length` bytes at `offset` of `path`, for writing too if `writable`.
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn open(path: &Path, offset: u64, length: u64, writable: bool) -> Result<Self, MediumError> {
        let file = OpenOptions::new().read(true).write(writable).open(path);
        let file = file.map_err(|error| MediumError { path: path.into(), step: "open", offset, error })?;
        Ok(FileMedium::over(file, path, offset, length))
    }

    /// `length` bytes at `offset` of a file that is open already and is called `path`.
    pub fn over(file: File, path: &Path, offset: u64, length: u64) -> Self {
        FileMedium { file, path: path.into(), offset, length }
    }

    fn place(&self, step: &'static str, offset: u64, length: usize) -> Result<u64, MediumError> {
        let end = offset.checked_add(length as u64).filter(|&end| end <= self.length);
        match end.and_then(|_| self.offset.checked_add(offset)) {
            Some(place) => Ok(place),
            None => Err(self.failed(step, offset, io::ErrorKind::InvalidInput.into())),
        }
    }

    fn failed(&self, step: &'static str, offset: u64, error: io::Error) -> MediumError {
        MediumError { path: self.path.clone(), step, offset: self.offset.saturating_add(offset), error }
    }
}

impl Medium for FileMedium {
    type Error = MediumError;

    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), MediumError> {
        let place = self.place("read", offset, buffer.len())?;
        self.file.read_exact_at(buffer, place).map_err(|e| self.failed("read", offset, e))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError> {
        let place = self.place("write", offset, data.len())?;
        self.file.write_all_at(data, place).map_err(|e| self.failed("write", offset, e))
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.file.sync_data().map_err(|e| self.failed("sync", 0, e))
    }
}
