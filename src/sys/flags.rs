//! What nix does not have of linux/fs.h: the immutable flag of a directory, which libostree sets on every deployment, the
//! exchange of two names, and whether a block device is set read-only.
#![expect(unsafe_code, reason = "ioctls, and a system call that nix has for glibc only")]

use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_long};

/// `FS_IMMUTABLE_FL`.
const IMMUTABLE: c_long = 0x10;

nix::ioctl_read!(
    /// `FS_IOC_GETFLAGS`. Its number says long, the kernel reads and writes an int.
    getflags,
    b'f',
    1,
    c_long
);
nix::ioctl_write_ptr!(
    /// `FS_IOC_SETFLAGS`.
    setflags,
    b'f',
    2,
    c_long
);

nix::ioctl_read_bad!(
    /// `BLKROGET`.
    blkroget,
    nix::request_code_none!(0x12, 94),
    libc::c_int
);

/// Whether a block device is set read-only (`force_ro` of an eMMC's boot partition): it opens for writing all the same.
/// What is no block device is not.
pub fn is_read_only(device: impl AsFd) -> bool {
    let mut set = 0;
    // SAFETY: the kernel writes one int, which is there; the descriptor is open for the call.
    unsafe { blkroget(device.as_fd().as_raw_fd(), &mut set) }.is_ok() && set != 0
}

/// Takes the immutable flag off, where the filesystem knows of it.
///
/// # Errors
/// When it stays.
pub fn make_mutable(directory: impl AsFd) -> nix::Result<()> {
    set_immutable(directory.as_fd().as_raw_fd(), false)
}

/// Sets the immutable flag, where the filesystem knows of it.
///
/// # Errors
/// When it cannot be set.
pub fn make_immutable(directory: impl AsFd) -> nix::Result<()> {
    set_immutable(directory.as_fd().as_raw_fd(), true)
}

fn set_immutable(fd: RawFd, set: bool) -> nix::Result<()> {
    let mut flags: c_long = 0;
    // SAFETY: the kernel writes an int into the long that is there; the descriptor is open for the call.
    match unsafe { getflags(fd, &mut flags) } {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => return Ok(()),
        Err(errno) => return Err(errno),
        Ok(_) => {}
    }
    let wanted = if set { flags | IMMUTABLE } else { flags & !IMMUTABLE };
    if flags == wanted {
        return Ok(());
    }
    // SAFETY: as above; the kernel reads an int of it.
    match unsafe { setflags(fd, &wanted) } {
        // Flags that can be read and not set.
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) if set => Ok(()),
        done => done.map(drop),
    }
}

/// Exchanges two names (`RENAME_EXCHANGE` of renameat2(2)).
///
/// # Errors
/// As renameat2(2); `EINVAL` where the filesystem cannot.
pub fn exchange(above: impl AsFd, name: &str, below: impl AsFd, other: &str) -> nix::Result<()> {
    const RENAME_EXCHANGE: libc::c_uint = 2;
    let (name, other) = (super::c_string(name)?, super::c_string(other)?);
    let (from, to) = (above.as_fd().as_raw_fd(), below.as_fd().as_raw_fd());
    // SAFETY: both names end in NUL and outlive the call; the kernel writes nothing.
    let done = unsafe {
        libc::syscall(libc::SYS_renameat2, from, name.as_ptr(), to, other.as_ptr(), RENAME_EXCHANGE)
    };
    Errno::result(done).map(drop)
}
