//! Mounts by file descriptor: `open_tree`, `move_mount`, `fsopen`, `fsconfig` and `fsmount` (Linux 5.2), which nix
//! does not have. Constants: linux/mount.h.
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

/// Mounts a detached copy, or a new file system, at `path`.
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

/// A file system that is being put together.
#[derive(Debug)]
pub struct NewFs {
    context: OwnedFd,
}

impl NewFs {
    /// Begins one of this type.
    ///
    /// # Errors
    /// The kernel's: `ENODEV` if it does not know the type, `ENOSYS` before Linux 5.2.
    pub fn open(kind: &CStr) -> nix::Result<Self> {
        const FSOPEN_CLOEXEC: libc::c_uint = 1;
        // SAFETY: the name is a string that ends in NUL and outlives the call; the kernel writes nothing.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
        let fd = Errno::result(fd)? as RawFd;
        // SAFETY: the kernel has just made this descriptor and nobody else knows it.
        Ok(NewFs { context: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sets `key`, to `value` or as a flag.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, key: &CStr, value: Option<&CStr>) -> nix::Result<()> {
        const SET_FLAG: libc::c_uint = 0;
        const SET_STRING: libc::c_uint = 1;
        let command = if value.is_some() { SET_STRING } else { SET_FLAG };
        self.configure(command, Some(key), value)
    }

    /// Makes the file system and mounts it at `path`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mount(&self, path: &CStr, readonly: bool) -> nix::Result<()> {
        const CREATE: libc::c_uint = 6;
        const FSMOUNT_CLOEXEC: libc::c_uint = 1;
        const MOUNT_ATTR_RDONLY: libc::c_uint = 1;
        self.configure(CREATE, None, None)?;
        let attributes = if readonly { MOUNT_ATTR_RDONLY } else { 0 };
        // SAFETY: numbers only.
        let fd = unsafe {
            libc::syscall(libc::SYS_fsmount, self.context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes)
        };
        let fd = Errno::result(fd)? as RawFd;
        // SAFETY: the kernel has just made this descriptor and nobody else knows it.
        attach_tree(&unsafe { OwnedFd::from_raw_fd(fd) }, path)
    }

    /// What the kernel says of the last failure, in its own words; empty if it says nothing.
    pub fn words(&self) -> String {
        let mut buffer = [0; 256];
        let read = nix::unistd::read(&self.context, &mut buffer).unwrap_or(0);
        let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
        // Each message begins with its level and a blank.
        text.get(2..).unwrap_or_default().trim_end().into()
    }

    fn configure(&self, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> nix::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        let (context, key, value) = (self.context.as_raw_fd(), pointer(key), pointer(value));
        // SAFETY: both are null or strings that end in NUL and outlive the call; the kernel writes nothing.
        let done = unsafe { libc::syscall(libc::SYS_fsconfig, context, command, key, value, 0) };
        Errno::result(done).map(drop)
    }
}
