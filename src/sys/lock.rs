//! The lock that libostree takes before it writes to a sysroot, so that the two never write at once.
//!
//! Source: libglnx, glnx-lockfile.c: an open file description lock over the whole of `ostree/lock`; the file may be
//! removed by its last owner, so a lock on a file without a name is none.
#![expect(unsafe_code, reason = "a flock structure begins as zeros")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const PAUSE: Duration = Duration::from_millis(50);

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a sysroot, waiting for at most `patience`.
///
/// # Errors
/// `EAGAIN` when somebody else has it all that time; the kernel's reason where it cannot be taken at all.
pub fn sysroot(sysroot: &Path, patience: Duration) -> nix::Result<Lock> {
    exclusive(&sysroot.join("ostree/lock"), patience)
}

/// Takes the lock of a sysroot's repository for whoever removes objects from it (ostree-repo.c, `do_repo_lock`).
///
/// # Errors
/// As [`sysroot`].
pub fn repository(sysroot: &Path, patience: Duration) -> nix::Result<Lock> {
    exclusive(&sysroot.join("ostree/repo/.lock"), patience)
}

/// Takes the lock of a sysroot's repository for whoever adds objects to it: others may add meanwhile, and nobody remove.
///
/// # Errors
/// As [`sysroot`].
pub fn repository_shared(sysroot: &Path, patience: Duration) -> nix::Result<Lock> {
    take(&sysroot.join("ostree/repo/.lock"), libc::F_RDLCK, patience)
}

/// Takes the lock of what a pull of ours has fetched and not put in place yet: one pull at a time.
///
/// # Errors
/// As [`sysroot`].
pub fn pull(sysroot: &Path, patience: Duration) -> nix::Result<Lock> {
    exclusive(&sysroot.join("ostree/repo/tmp/bootward.lock"), patience)
}

fn exclusive(path: &Path, patience: Duration) -> nix::Result<Lock> {
    take(path, libc::F_WRLCK, patience)
}

fn take(path: &Path, kind: libc::c_int, patience: Duration) -> nix::Result<Lock> {
    let until = Instant::now() + patience;
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|e| super::errno(&e))?;
        // SAFETY: all bytes zero is a valid flock: the whole file, from its start.
        let mut whole: libc::flock = unsafe { std::mem::zeroed() };
        whole.l_type = kind as libc::c_short;
        whole.l_whence = libc::SEEK_SET as libc::c_short;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
            Ok(_) if file.metadata().is_ok_and(|m| m.nlink() > 0) => return Ok(Lock { _file: file }),
            Ok(_) | Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < until => std::thread::sleep(PAUSE),
            Ok(_) => return Err(Errno::EAGAIN),
            Err(errno) => return Err(errno),
        }
    }
}
