//! Randomness: for keys, which waits for the kernel, and for anything else, which does not.
#![cfg_attr(feature = "publish", expect(unsafe_code, reason = "a raw system call"))]

#[cfg(feature = "publish")]
use nix::errno::Errno;
#[cfg(feature = "publish")]
use nix::libc;

/// A number that nobody can foretell once the kernel has randomness; early in a boot, one that is only another each time.
#[cfg(feature = "recovery")]
pub fn number() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Keys that std draws from the kernel.
    std::hash::RandomState::new().build_hasher().finish()
}

/// Bytes that nobody can foretell; waits until the kernel has them.
///
/// # Errors
/// When the kernel has no such call.
#[cfg(feature = "publish")]
pub fn bytes() -> nix::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    loop {
        // SAFETY: the buffer is writable for the length that is given.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match Errno::result(got) {
            // Up to 256 bytes come whole or not at all (getrandom(2)).
            Ok(got) if usize::try_from(got) == Ok(bytes.len()) => return Ok(bytes),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
