//! The root-only files outside of the deployments: what the system handed over, and what worked last. Ring: alloc.
//!
//! Each is written beside its place, read back, and renamed: after a power cut at any point there is the old file or the new
//! one, whole.

use crate::storage::{At, Files, Volume};

use super::file::{FILE_MAX, List, emit};
use super::profile::{Profile, Secret, wipe};

/// What the running system handed over.
pub const ESCROW: &str = "ostree/bootward/wifi";
/// What recovery joined last.
pub const LAST: &str = "ostree/bootward/wifi-last";
const DIRECTORY: &str = "ostree/bootward";

/// Why a file was not written.
#[derive(Debug)]
pub enum Fault<E> {
    /// The medium or the filesystem refused.
    Files(E),
    /// What was read back is not what was written.
    Differs,
    /// It would be longer than what is read.
    TooLong,
}

impl<E: core::fmt::Display> core::fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Fault::Files(e) => e.fmt(f),
            Fault::Differs => {
                f.write_str("what was read back is not what was written; the medium may be worn out")
            }
            Fault::TooLong => write!(f, "more than {FILE_MAX} bytes"),
        }
    }
}

impl<E> From<E> for Fault<E> {
    fn from(error: E) -> Self {
        Fault::Files(error)
    }
}

/// What is in a file; `None` where there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read<F: Files>(files: &mut F, place: &str) -> Result<Option<Secret>, F::Error> {
    let at = At::root(place);
    match files.node(&at)? {
        None => Ok(None),
        Some(_) => files.read(&at, FILE_MAX).map(|bytes| Some(Secret::new(bytes))),
    }
}

/// Writes a list in place of what is there; `false` where that was the same already.
///
/// # Errors
/// When it was not written; what was there is there still.
pub fn write<F: Files>(files: &mut F, place: &str, list: &List) -> Result<bool, Fault<F::Error>> {
    let text = emit(list);
    if text.bytes().len() > FILE_MAX {
        return Err(Fault::TooLong);
    }
    let (at, fresh) = (At::root(place), At::root(place).beside(".new"));
    // One that cannot be read, or is too long, is replaced.
    if read(files, place).ok().flatten().is_some_and(|old| old == text) {
        // It may have been renamed just before the power went.
        files.sync(Volume::Root)?;
        return Ok(false);
    }
    files.make_directory(&At::root(DIRECTORY), 0o755)?;
    if files.node(&fresh)?.is_some() {
        files.unlink(&fresh)?;
    }
    files.create(&fresh, text.bytes(), 0o600)?;
    let back = files.read(&fresh, FILE_MAX)?;
    let same = back == text.bytes();
    wipe(back);
    if !same {
        return Err(Fault::Differs);
    }
    files.rename(&fresh, &at)?;
    files.sync(Volume::Root)?;
    Ok(true)
}

/// Removes a file and what a cut write left of it; `false` where there was none.
///
/// # Errors
/// When one is there still.
pub fn forget<F: Files>(files: &mut F, place: &str) -> Result<bool, F::Error> {
    let at = At::root(place);
    let mut was = false;
    for at in [at.beside(".new"), at] {
        if files.node(&at)?.is_some() {
            files.unlink(&at)?;
            was = true;
        }
    }
    files.sync(Volume::Root)?;
    Ok(was)
}

/// Remembers the network that recovery came through, so that it is tried first the next time.
///
/// # Errors
/// As [`write()`].
pub fn remember<F: Files>(files: &mut F, profile: &Profile) -> Result<bool, Fault<F::Error>> {
    write(files, LAST, &List { profiles: [profile.clone()].into(), ..List::default() })
}
