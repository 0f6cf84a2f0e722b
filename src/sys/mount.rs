//! Mounts by file descriptor: `open_tree` and `move_mount` (Linux 5.2), which nix does not have.
// Raw system calls: each block states why it is sound.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// A detached copy of the mount at `path` and of those on it. It goes away when it is closed, and across exec.
///
/// # Errors
/// The kernel's; `ENOSYS` before Linux 5.2.
pub fn clone_tree(path: &CStr) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is a string that ends in NUL and outlives the call; the kernel writes nothing.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = Errno::result(fd)? as RawFd;
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts a detached copy at `path`.
///
/// # Errors
/// The kernel's.
pub fn attach_tree(tree: &OwnedFd, path: &CStr) -> nix::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    let (from, empty, here) = (tree.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD);
    // SAFETY: both paths are strings that end in NUL and outlive the call; the kernel writes nothing.
    let done = unsafe {
        libc::syscall(libc::SYS_move_mount, from, empty, here, path.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
    };
    Errno::result(done).map(drop)
}
