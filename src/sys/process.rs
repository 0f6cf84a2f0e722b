//! A process as a descriptor, and the end of a process group.
#![expect(unsafe_code, reason = "pidfd_open, which nix does not wrap")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// A descriptor that is readable once the process has ended (`pidfd_open`, Linux 5.3).
///
/// # Errors
/// When there is no such process or the kernel has no such call.
pub fn descriptor(pid: u32) -> nix::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: pidfd_open takes two integers and no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, nobody else has it; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
