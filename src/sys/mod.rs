//! The few raw system calls; the only folder with `unsafe`.

pub mod beneath;
pub mod btrfs;
pub mod files;
pub mod flags;
pub mod flash;
pub mod freeze;
pub mod kexec;
pub mod lock;
pub mod loop_device;
pub mod medium;
pub mod mount;
pub mod process;
#[cfg(any(feature = "publish", feature = "recovery"))]
pub mod random;
pub mod rehearse;
#[cfg(feature = "recovery")]
pub mod terminal;
pub mod time;
pub mod tree;
pub mod trees;
#[cfg(bootward_own_std)]
mod unwind;
pub mod verity;
pub mod walk;
pub mod watchdog;

use std::ffi::CString;

use nix::errno::Errno;

/// The kernel's reason in an error of std's; `EIO` where it has none.
pub fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

/// A text for the kernel.
///
/// # Errors
/// `EINVAL` when there is a NUL in it.
pub fn c_string(text: &str) -> nix::Result<CString> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

/// The release of the running kernel, as `uname -r` prints it; empty where the kernel does not tell.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|n| n.release().to_string_lossy().into_owned()).unwrap_or_default()
}
