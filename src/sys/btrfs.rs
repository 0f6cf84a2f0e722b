//! Which block device a btrfs is on: its files do not tell, their device number is one of its own.
#![expect(unsafe_code, reason = "ioctl; the kernel writes what the arguments have room for")]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// Device ids that are tried at most: a device that was replaced often has a high one.
const IDS_MAX: u64 = 1024;

/// `struct btrfs_ioctl_fs_info_args` of linux/btrfs.h, as far as it is needed.
#[repr(C)]
struct FsInfo {
    max_id: u64,
    devices: u64,
    rest: [u64; 126],
}

/// `struct btrfs_ioctl_dev_info_args` of linux/btrfs.h, as far as it is needed.
#[repr(C)]
struct DeviceInfo {
    id: u64,
    rest: [u64; 383],
    path: [u8; 1024],
}

nix::ioctl_read!(
    /// `BTRFS_IOC_FS_INFO`.
    fs_info,
    0x94,
    31,
    FsInfo
);
nix::ioctl_readwrite!(
    /// `BTRFS_IOC_DEV_INFO`.
    device_info,
    0x94,
    30,
    DeviceInfo
);

/// The one device of the btrfs that is mounted at `path`; none where it is another file system, or has several.
pub fn device(path: &Path) -> Option<PathBuf> {
    let root = File::open(path).ok()?;
    let mut info = FsInfo { max_id: 0, devices: 0, rest: [0; 126] };
    // SAFETY: the argument has the size that the request's number carries, and outlives the call.
    unsafe { fs_info(root.as_raw_fd(), &mut info) }.ok()?;
    if info.devices != 1 {
        return None;
    }
    for id in 1..=info.max_id.min(IDS_MAX) {
        let mut device = DeviceInfo { id, rest: [0; 383], path: [0; 1024] };
        // SAFETY: the argument has the size that the request's number carries, and outlives the call.
        match unsafe { device_info(root.as_raw_fd(), &mut device) } {
            Err(Errno::ENODEV) => {}
            Err(_) => return None,
            Ok(_) => {
                let name = CStr::from_bytes_until_nul(&device.path).ok()?;
                return Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    None
}
