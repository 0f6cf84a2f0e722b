//! The hardware watchdog: armed at the start, fed by progress, handed over armed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// An armed watchdog. Dropping it closes the device without the magic character, which leaves it armed.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
}

impl Watchdog {
    /// Opens (and so arms) the device and sets its timeout in seconds.
    ///
    /// # Errors
    /// When the device is not there or in use. A driver that cannot set a timeout keeps its own.
    pub fn arm(path: &Path, seconds: u32) -> std::io::Result<Self> {
        let device = OpenOptions::new().write(true).open(path)?;
        // It stays open, and armed, across the exec, for the real init to take over or to miss.
        if let Err(e) = fcntl(&device, FcntlArg::F_SETFD(FdFlag::empty())) {
            log::warn!(
                "watchdog {} will not be open in the init ({e}); it stays armed all the same",
                path.display()
            );
        }
        match crate::sys::watchdog::set_timeout_of(&device, seconds) {
            Ok(actual) => log::info!("watchdog {} armed, {actual} s", path.display()),
            Err(e) => log::warn!("watchdog {} armed, but keeps its own timeout: {e}", path.display()),
        }
        Ok(Watchdog { device })
    }

    /// Why the last boot ended, as the driver kept it.
    pub fn boot_status(&self) -> Option<u32> {
        crate::sys::watchdog::boot_status_of(&self.device).ok().map(i32::cast_unsigned)
    }

    /// Says that the boot has made progress. A watchdog that cannot be fed will reset the device, which is
    /// its purpose.
    pub fn feed(&mut self) {
        let _ = self.device.write(b"\0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The magic character 'V' before a close is how a watchdog is disarmed: it is never written, and the descriptor
    /// outlives an exec, so that the device stays armed whatever comes after us.
    #[test]
    fn nothing_disarms_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watchdog = Watchdog::arm(file.path(), 30).unwrap();
        let flags = fcntl(&watchdog.device, FcntlArg::F_GETFD).unwrap();
        assert!(!FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        watchdog.feed();
        watchdog.feed();
        drop(watchdog);
        assert_eq!(std::fs::read(file.path()).unwrap(), [0, 0]);
    }
}
