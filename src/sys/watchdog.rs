//! The watchdog's ioctls.
#![expect(unsafe_code, reason = "ioctls of linux/watchdog.h that nix does not wrap")]

use std::fs::File;
use std::os::fd::AsRawFd;

nix::ioctl_readwrite!(
    /// `WDIOC_SETTIMEOUT`.
    wdioc_settimeout,
    b'W',
    6,
    nix::libc::c_int
);

nix::ioctl_read!(
    /// `WDIOC_GETBOOTSTATUS`.
    wdioc_getbootstatus,
    b'W',
    2,
    nix::libc::c_int
);

/// Why the last boot ended, as the driver kept it: flags of linux/watchdog.h, 0 where it keeps none.
///
/// # Errors
/// When the device is no watchdog.
pub fn boot_status_of(device: &File) -> nix::Result<i32> {
    let mut flags = 0;
    // SAFETY: the descriptor is open for the call and the kernel writes one int, which `flags` is.
    unsafe { wdioc_getbootstatus(device.as_raw_fd(), &mut flags) }?;
    Ok(flags)
}

/// Sets the timeout in seconds (`WDIOC_SETTIMEOUT`) and returns the one that the driver took.
///
/// # Errors
/// When the device is no watchdog or has a fixed timeout.
pub fn set_timeout_of(device: &File, seconds: u32) -> nix::Result<i32> {
    let mut value = i32::try_from(seconds).unwrap_or(i32::MAX);
    // SAFETY: the descriptor is open for the call and the kernel reads and writes one int, which `value` is.
    unsafe { wdioc_settimeout(device.as_raw_fd(), &mut value) }?;
    Ok(value)
}
