//! Appending to the ledger from the running OS, where libostree has `/sysroot` mounted read-only.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::sys::medium::MediumError;
use crate::sys::mount::own_namespace;

use super::{Record, file};

/// Appends records and returns once they are durable. Where the mount is read-only, it is made writable in a mount
/// namespace of a thread's own, as libostree does it: nobody else sees it writable, and nothing is left to be
/// undone.
///
/// # Errors
/// When the medium refuses, or when the mount is read-only and this process may not change that.
pub fn append(sysroot: &Path, records: &mut [Record]) -> Result<(), MediumError> {
    match once(sysroot, records) {
        Err(e) if e.error.raw_os_error() == Some(Errno::EROFS as i32) => {
            let again = std::thread::scope(|scope| {
                let thread = scope.spawn(|| writable_here(sysroot).ok().map(|()| once(sysroot, records)));
                thread.join().ok().flatten()
            });
            again.unwrap_or(Err(e))
        }
        done => done,
    }
}

fn once(sysroot: &Path, records: &mut [Record]) -> Result<(), MediumError> {
    file::open_or_create(sysroot)?.append(records)
}

/// Leaves the mount namespace that the process has, for this thread only, and makes the mount writable in its own.
fn writable_here(sysroot: &Path) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    own_namespace()?;
    // Of the mount only, not of the file system below it, which others use.
    mount(NONE, sysroot, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, NONE)
}
