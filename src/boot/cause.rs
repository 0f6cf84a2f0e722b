//! Why the device was reset, where the platform tells: a good update is not blamed for a pulled plug.
//!
//! A watchdog driver keeps what it was asked for (`WDIOC_GETBOOTSTATUS`), pstore keeps the last words of a kernel that
//! crashed, and a bootloader that reads the reset register passes `bootward.reset=` on. Evidence of a crash counts more
//! than the bootloader's word, and where nobody says anything an attempt counts: a loop must have an end.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::cmdline::CommandLine;

use super::watchdog::Watchdog;

/// Where the kernel keeps what it said before it crashed.
const PSTORE: &str = "/sys/fs/pstore";
/// More records than this are not looked at.
const RECORDS_MAX: usize = 64;

/// Why the last boot ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Nobody says.
    Unknown,
    /// The power went.
    Power,
    /// The watchdog was not fed.
    Watchdog,
    /// The kernel crashed.
    Crash,
}

impl Cause {
    /// Asks everybody who may know.
    pub fn of(command_line: &str, watchdog: Option<&Watchdog>) -> Self {
        let asked = CommandLine::parse(command_line).value("bootward.reset").map(Cause::parse);
        let status = watchdog.and_then(Watchdog::boot_status).unwrap_or_default();
        Cause::weigh(asked.unwrap_or(Cause::Unknown), status, crashed(Path::new(PSTORE)))
    }

    fn parse(word: &str) -> Self {
        match word {
            "power" | "por" | "brownout" => Cause::Power,
            "watchdog" | "wdog" => Cause::Watchdog,
            "crash" | "panic" => Cause::Crash,
            _ => Cause::Unknown,
        }
    }

    fn weigh(asked: Cause, status: u32, crashed: bool) -> Self {
        const CARD_RESET: u32 = 0x20;
        const POWER: u32 = 0x10 | 0x40;
        match asked {
            _ if crashed => Cause::Crash,
            _ if status & CARD_RESET != 0 => Cause::Watchdog,
            Cause::Unknown if status & POWER != 0 => Cause::Power,
            asked => asked,
        }
    }

    /// For the ledger; nothing where nobody says.
    pub fn sentence(self) -> Option<&'static str> {
        match self {
            Cause::Unknown | Cause::Power => None,
            Cause::Watchdog => Some("the boot before this one was ended by the watchdog"),
            Cause::Crash => Some("the kernel before this one crashed; its last words are in /sys/fs/pstore"),
        }
    }
}

/// Whether a kernel's last words are kept. They stay there: whoever collects them removes them.
fn crashed(pstore: &Path) -> bool {
    if pstore.is_dir() && std::fs::read_dir(pstore).is_ok_and(|mut d| d.next().is_none()) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let _ = mount(Some("pstore"), pstore, Some("pstore"), flags, None::<&str>);
    }
    let names = std::fs::read_dir(pstore).into_iter().flatten().take(RECORDS_MAX);
    names.flatten().any(|n| n.file_name().to_string_lossy().starts_with("dmesg-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_counts_more_than_a_word() {
        assert_eq!(Cause::weigh(Cause::Power, 0, false), Cause::Power);
        assert_eq!(Cause::weigh(Cause::Power, 0x20, false), Cause::Watchdog);
        assert_eq!(Cause::weigh(Cause::Power, 0x20, true), Cause::Crash);
        assert_eq!(Cause::weigh(Cause::Unknown, 0x10, false), Cause::Power);
        assert_eq!(Cause::weigh(Cause::Watchdog, 0x10, false), Cause::Watchdog);
        assert_eq!(Cause::weigh(Cause::Unknown, 0, false), Cause::Unknown);
        assert_eq!(Cause::parse("POR?"), Cause::Unknown);
    }

    #[test]
    fn last_words_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("console-ramoops-0"), "").unwrap();
        assert!(!crashed(directory.path()));
        std::fs::write(directory.path().join("dmesg-ramoops-0"), "").unwrap();
        assert!(crashed(directory.path()));
        assert!(!crashed(Path::new("/no/such")));
    }
}
