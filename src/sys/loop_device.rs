//! A file as a block device.
//!
//! Source: linux/loop.h; `LOOP_CONFIGURE` is there since Linux 5.8.
#![expect(unsafe_code, reason = "ioctl; the kernel reads a structure of the size that it expects")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc::c_int;

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
/// Others may take the free one that was told, between the question and the use.
const TRIES: u32 = 16;

/// `struct loop_config` of linux/loop.h with its `struct loop_info64`, what is not needed left unnamed.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    unnamed: [u64; 5],
    numbers: [u32; 3],
    flags: u32,
    name: [u8; 64],
    rest: [u8; 176],
}

nix::ioctl_none_bad!(
    /// `LOOP_CTL_GET_FREE`.
    free,
    0x4C82
);
nix::ioctl_write_ptr_bad!(
    /// `LOOP_CONFIGURE`.
    configure,
    0x4C0A,
    Config
);

/// A loop device over `file`: read-only, of 4096-byte blocks, gone when nobody uses it any more. Returns its path,
/// and the device, to be kept open until it is in use.
///
/// # Errors
/// `ENOENT`: the kernel has no loop devices, or its module is not loaded; else the kernel's reason.
pub fn attach(file: &impl AsFd) -> nix::Result<(PathBuf, File)> {
    let open = |path: &str| {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        opened.map_err(|e| super::errno(&e))
    };
    let control = open("/dev/loop-control")?;
    let mut last = Errno::EBUSY;
    for _ in 0..TRIES {
        // SAFETY: the request takes no argument.
        let number: c_int = unsafe { free(control.as_raw_fd()) }?;
        let path = format!("/dev/loop{number}");
        let device = open(&path)?;
        let config = Config {
            file: u32::try_from(file.as_fd().as_raw_fd()).map_err(|_| Errno::EBADF)?,
            block_size: 4096,
            unnamed: [0; 5],
            numbers: [0; 3],
            flags: READ_ONLY | AUTOCLEAR | DIRECT_IO,
            name: [0; 64],
            rest: [0; 176],
        };
        // SAFETY: the structure is the kernel's, and outlives the call.
        match unsafe { configure(device.as_raw_fd(), &config) } {
            Ok(_) => return Ok((path.into(), device)),
            Err(errno @ Errno::EBUSY) => last = errno,
            Err(errno) => return Err(errno),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_has_the_kernels_size() {
        assert_eq!(size_of::<Config>(), 304);
    }
}
