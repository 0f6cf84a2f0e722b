//! fs-verity: the digest of a file that the kernel checks on every read.
//!
//! Source: linux/fsverity.h and Documentation/filesystems/fsverity.rst of Linux.
#![expect(unsafe_code, reason = "ioctl; the kernel writes at most what the argument says that it holds")]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u16 = 1;

/// `struct fsverity_digest`, with room for any digest that there is.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

// The request's number carries the size of the part before the digest.
nix::ioctl_readwrite_bad!(
    /// `FS_IOC_MEASURE_VERITY`.
    measure,
    nix::request_code_readwrite!(b'f', 134, 4),
    Measured
);

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct Enable {
    version: u32,
    algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    more: [u64; 11],
}

nix::ioctl_write_ptr!(
    /// `FS_IOC_ENABLE_VERITY`.
    enable_verity,
    b'f',
    133,
    Enable
);

/// Why a file has no digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerityError {
    /// fs-verity is not enabled for the file.
    NotEnabled,
    /// The file system, or the kernel, has no fs-verity.
    NotSupported,
    /// The digest is not one of SHA-256.
    Algorithm,
    /// The kernel's reason.
    Kernel(Errno),
}

/// The fs-verity digest of an open file.
///
/// # Errors
/// See [`VerityError`].
pub fn digest(file: impl AsFd) -> Result<[u8; 32], VerityError> {
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: `size` is the room for the digest, which the kernel does not exceed; the argument outlives the call.
    match unsafe { measure(file.as_fd().as_raw_fd(), &mut measured) } {
        Err(Errno::ENODATA) => Err(VerityError::NotEnabled),
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => Err(VerityError::NotSupported),
        Err(errno) => Err(VerityError::Kernel(errno)),
        Ok(_) => match measured.digest.first_chunk() {
            Some(digest) if (measured.algorithm, measured.size) == (SHA256, 32) => Ok(*digest),
            _ => Err(VerityError::Algorithm),
        },
    }
}

/// Switches fs-verity on for a file that is open for reading and by nobody for writing: SHA-256, blocks of 4,096 bytes, no
/// salt. One that has it already is success.
///
/// # Errors
/// [`VerityError::NotSupported`] where there is none, else the kernel's reason.
pub fn enable(file: impl AsFd) -> Result<(), VerityError> {
    let order = Enable {
        version: 1,
        algorithm: SHA256.into(),
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved: 0,
        signature: 0,
        more: [0; 11],
    };
    // SAFETY: the kernel reads the argument, which outlives the call; it has neither salt nor signature to point to.
    match unsafe { enable_verity(file.as_fd().as_raw_fd(), &order) } {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => Err(VerityError::NotSupported),
        Err(errno) => Err(VerityError::Kernel(errno)),
    }
}
