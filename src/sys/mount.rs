//! Mounts by file descriptor: `open_tree`, `move_mount`, `fsopen`, `fsconfig` and `fsmount` (Linux 5.2), which nix
//! does not have. Constants: linux/mount.h.
// Raw system calls: each block states why it is sound.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};

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

/// Remounts a whole filesystem with the options that the mount has, but for read-only, which `flags` says.
///
/// # Errors
/// As mount(2).
pub fn remount(path: &Path, flags: MsFlags) -> nix::Result<()> {
    let has = statvfs(path)?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_SYNCHRONOUS, MsFlags::MS_SYNCHRONOUS),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let kept = kept.iter().filter(|(st, _)| has.contains(*st)).fold(flags, |all, (_, ms)| all | *ms);
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_REMOUNT | kept, None::<&str>)
}

/// Gives the calling thread mounts of its own: what it changes from here on nobody else sees.
///
/// # Errors
/// As unshare(2) and mount(2).
pub fn own_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// Makes read-only places writable for this process alone, in a mount namespace of its own, as libostree does with
/// `/sysroot` (`_ostree_sysroot_ensure_writable`). What is writable already is left alone.
///
/// # Errors
/// The place, and the kernel's reason.
pub fn make_writable<'a>(places: &[&'a Path]) -> Result<(), (&'a Path, Errno)> {
    let mut own = false;
    for place in places {
        let flags = statvfs(*place).map_err(|e| (*place, e))?.flags();
        if !flags.contains(FsFlags::ST_RDONLY) {
            continue;
        }
        if !own {
            own_namespace().map_err(|e| (*place, e))?;
            own = true;
        }
        // A read-only bind mount of a writable filesystem, or the filesystem itself.
        let bind = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        let done = mount(None::<&str>, *place, None::<&str>, bind, None::<&str>);
        let still = statvfs(*place).is_ok_and(|s| s.flags().contains(FsFlags::ST_RDONLY));
        if done.is_err() || still {
            remount(place, MsFlags::empty()).map_err(|e| (*place, e))?;
        }
    }
    Ok(())
}
