//! Randomness for keys, getrandom(2).
#![expect(unsafe_code, reason = "a raw system call")]

use nix::errno::Errno;
use nix::libc;

/// Bytes that nobody can foretell; waits until the kernel has them.
///
/// # Errors
/// When the kernel has no such call.
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
