//! Starting another kernel from this one.
//!
//! Source: kexec_file_load(2). The kernel itself reads the image, so that a lockdown or a required signature holds here
//! too; on arm64 it hands its own device tree on.
#![expect(unsafe_code, reason = "a system call that nix does not have")]

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// Its number, which libc does not have for every target.
const KEXEC_FILE_LOAD: libc::c_long = if cfg!(target_arch = "x86_64") {
    320
} else if cfg!(target_arch = "arm") {
    401
} else {
    294
};
/// `KEXEC_FILE_UNLOAD`.
const UNLOAD: libc::c_ulong = 1;
/// `KEXEC_FILE_NO_INITRAMFS`.
const NO_INITRAMFS: libc::c_ulong = 4;

fn file_load(kernel: RawFd, initramfs: RawFd, line: &[u8], flags: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: the line is as long as it is said to be and outlives the call; the kernel writes nothing.
    let done = unsafe { libc::syscall(KEXEC_FILE_LOAD, kernel, initramfs, line.len(), line.as_ptr(), flags) };
    Errno::result(done).map(drop)
}

/// Whether the running kernel would take another one.
pub fn works() -> bool {
    // Asks it to forget what is not loaded: only a kernel that cannot do it, or must not, refuses.
    file_load(-1, -1, &[], UNLOAD).is_ok()
}

/// Loads a kernel; [`nix::sys::reboot::RebootMode::RB_KEXEC`] starts it.
///
/// # Errors
/// `ENOEXEC` when it is no image that this kernel understands, `EPERM` or `EKEYREJECTED` when it must not be started,
/// `EINVAL` when the line holds a NUL or is too long for it.
pub fn load(kernel: &File, initramfs: Option<&File>, line: &str) -> nix::Result<()> {
    let line = super::c_string(line)?;
    let (fd, flags) = initramfs.map_or((-1, NO_INITRAMFS), |file| (file.as_raw_fd(), 0));
    file_load(kernel.as_raw_fd(), fd, line.as_bytes_with_nul(), flags)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_is_libcs() {
        assert_eq!(super::KEXEC_FILE_LOAD, nix::libc::SYS_kexec_file_load);
    }
}
