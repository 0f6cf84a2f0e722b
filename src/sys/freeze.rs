//! Freezing a filesystem for a moment, which puts everything into its final place: what the journal holds too.
//!
//! Source: linux/fs.h (FIFREEZE, FITHAW). A filesystem that stays frozen hangs whoever writes to it, so a child
//! process thaws it when its parent dies in between or takes too long; libostree does the same
//! (`fsfreeze_thaw_cycle`, ostreedev/ostree#1049).
#![expect(unsafe_code, reason = "ioctls, and a fork whose child makes system calls only")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, fork, pipe, setsid, syncfs};

/// After this time the child thaws, whatever its parent does.
const PATIENCE_MS: u16 = 30_000;
/// Somebody else's moment of it is waited for so often, and so long each time.
const TRIES: u32 = 300;
const BETWEEN: Duration = Duration::from_millis(10);

nix::ioctl_readwrite!(
    /// `FIFREEZE`.
    fifreeze,
    b'X',
    119,
    libc::c_int
);
nix::ioctl_readwrite!(
    /// `FITHAW`.
    fithaw,
    b'X',
    120,
    libc::c_int
);

fn freeze(fd: BorrowedFd<'_>) -> nix::Result<libc::c_int> {
    let mut unused = 0;
    for _ in 1..TRIES {
        // SAFETY: the kernel ignores the argument; the descriptor is open for the call.
        match unsafe { fifreeze(fd.as_raw_fd(), &mut unused) } {
            Err(Errno::EBUSY) => sleep(BETWEEN),
            done => return done,
        }
    }
    // SAFETY: as above.
    unsafe { fifreeze(fd.as_raw_fd(), &mut unused) }
}

fn thaw(fd: BorrowedFd<'_>) -> nix::Result<libc::c_int> {
    let mut unused = 0;
    // SAFETY: as in `freeze`.
    unsafe { fithaw(fd.as_raw_fd(), &mut unused) }
}

/// Freezes and thaws the filesystem of an open directory. Where it has no freezing, or somebody else holds it frozen
/// for seconds,
/// it is synced instead and the answer is `false`.
///
/// # Errors
/// When the filesystem could neither be frozen nor synced, or did not thaw.
pub fn cycle(directory: impl AsFd) -> nix::Result<bool> {
    let fd = directory.as_fd();
    let (theirs, ours) = pipe()?;
    // SAFETY: the child makes system calls only and ends in _exit.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            guard(fd, theirs.as_fd())
        }
        ForkResult::Parent { child } => child,
    };
    drop(theirs);
    let done = match freeze(fd) {
        Ok(_) => match thaw(fd) {
            // The guard was faster.
            Ok(_) | Err(Errno::EINVAL) => Ok(true),
            Err(errno) => Err(errno),
        },
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS | Errno::EPERM | Errno::EBUSY) => {
            syncfs(fd).map(|()| false)
        }
        Err(errno) => Err(errno),
    };
    if done.is_ok() {
        let _ = nix::unistd::write(&ours, b"!");
    }
    drop(ours);
    while nix::sys::wait::waitpid(child, None) == Err(Errno::EINTR) {}
    done
}

/// Waits for the parent's word. Its silence, or its end, is a reason to thaw.
fn guard(fd: BorrowedFd<'_>, word: BorrowedFd<'_>) -> ! {
    let _ = setsid();
    let mut fds = [PollFd::new(word, PollFlags::POLLIN)];
    let spoken = loop {
        match poll(&mut fds, PollTimeout::from(PATIENCE_MS)) {
            Err(Errno::EINTR) => {}
            Ok(1..) => break nix::unistd::read(word, &mut [0]) == Ok(1),
            _ => break false,
        }
    };
    if !spoken {
        let _ = thaw(fd);
    }
    // SAFETY: _exit runs no handlers of the parent's.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_without_freezing_is_synced() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert_eq!(cycle(&proc), Ok(false));
    }
}
