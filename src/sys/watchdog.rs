//! The watchdog's ioctl.
#![expect(unsafe_code, reason = "an ioctl of linux/watchdog.h that nix does not wrap")]

use std::fs::File;
use std::os::fd::AsRawFd;

nix::ioctl_readwrite!(
    /// `WDIOC_SETTIMEOUT`.
    wdioc_settimeout,
    b'W',
    6,
    nix::libc::c_int
);

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
