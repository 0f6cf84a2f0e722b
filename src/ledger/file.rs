//! The ledger's file on the physical root.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys::medium::{FileMedium, MediumError};

use super::{RECORD_SIZE, Ring};

/// Where the ledger is, below the physical root.
pub const PATH: &str = "ostree/bootward/ledger";
/// Slots of a new ledger: 64 KiB, about sixty boots and what happened in them.
pub const SLOTS: usize = 128;

/// Opens the ledger of a sysroot for reading.
///
/// # Errors
/// When there is none (`NotFound` inside) or it cannot be read.
pub fn open(sysroot: &Path) -> Result<Ring<FileMedium>, MediumError> {
    let path = sysroot.join(PATH);
    let length = std::fs::metadata(&path).map_err(|e| failed(&path, "open", e))?.len();
    Ring::open(FileMedium::open(&path, 0, length, false)?)
}

/// Opens the ledger of a sysroot for appending, and makes it first where there is none.
///
/// The file is written out in full when it is made, so that a full disk cannot keep a later record away.
/// A cut while it is made leaves a shorter file, which the next call completes.
///
/// # Errors
/// When the medium is read-only, full or damaged.
pub fn open_or_create(sysroot: &Path) -> Result<Ring<FileMedium>, MediumError> {
    let path = sysroot.join(PATH);
    let length = (SLOTS * RECORD_SIZE) as u64;
    let present =
        std::fs::symlink_metadata(&path).map(|m| if m.is_file() { m.len() } else { 0 }).unwrap_or(0);
    if present < length {
        create(&path, present, length)?;
    }
    Ring::open(FileMedium::open(&path, 0, present.max(length), true)?)
}

fn create(path: &Path, present: u64, length: u64) -> Result<(), MediumError> {
    let directory = path.parent().unwrap_or(path);
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(directory, "create", e)),
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|e| failed(path, "create", e))?;
    let start = present - present % RECORD_SIZE as u64;
    let zeros = [0; 4096];
    let mut at = start;
    while at < length {
        let part = zeros.get(..(length - at).min(4096) as usize).unwrap_or(&zeros);
        file.write_all_at(part, at).map_err(|e| failed(path, "write", e))?;
        at += part.len() as u64;
    }
    file.sync_all().map_err(|e| failed(path, "sync", e))?;
    for dir in [Some(directory), directory.parent()].into_iter().flatten() {
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| failed(dir, "sync", e))?;
    }
    Ok(())
}

fn failed(path: &Path, step: &'static str, error: io::Error) -> MediumError {
    MediumError { path: PathBuf::from(path), step, offset: 0, error }
}
