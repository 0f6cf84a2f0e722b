//! The immutable flag of a directory: libostree sets it on every deployment.
#![expect(unsafe_code, reason = "ioctls of linux/fs.h that nix does not wrap")]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::c_long;

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

/// Takes the immutable flag off, where the filesystem knows of it.
///
/// # Errors
/// When it stays.
pub fn make_mutable(directory: impl AsFd) -> nix::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    let mut flags: c_long = 0;
    // SAFETY: the kernel writes an int into the long that is there; the descriptor is open for the call.
    match unsafe { getflags(fd, &mut flags) } {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => return Ok(()),
        Err(errno) => return Err(errno),
        Ok(_) => {}
    }
    if flags & IMMUTABLE == 0 {
        return Ok(());
    }
    flags &= !IMMUTABLE;
    // SAFETY: as above; the kernel reads an int of it.
    unsafe { setflags(fd, &flags) }.map(|_| ())
}
