//! What recovery is doing, as the console shows it, and what someone at the console wants of it.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::ostree::Checksum;

/// So many failures are remembered.
pub const TRIED_MAX: usize = 16;
/// So many lines of what happened are remembered.
pub const LINES_MAX: usize = 32;

/// What is being done. Times are milliseconds since the kernel started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// What the worker does now.
    pub phase: Phase,
    /// What was tried and failed, the oldest first.
    pub tried: VecDeque<Tried>,
    /// How the device is connected, in one sentence.
    pub network: Option<String>,
    /// Networks that a radio saw in the last scan, the strongest first.
    pub seen: Vec<String>,
    /// How far a download or another long step is.
    pub progress: Option<Progress>,
    /// When the next round begins, while waiting.
    pub next: Option<u64>,
    /// Tries of a server today, and how many the day has; 0 for no limit.
    pub attempts: (u32, u32),
    /// Bytes that came today, and how many the day has; 0 for no limit.
    pub bytes: (u64, u64),
    /// What a fire drill found, once it has ended: whether recovery would work, and what was found.
    pub drilled: Option<(bool, String)>,
    /// What happened last, a sentence each, the oldest first.
    pub lines: VecDeque<String>,
    /// Lines that were told since recovery began: [`Status::lines`] ends with this one.
    pub told: u64,
}

/// One step of recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// It has just begun.
    #[default]
    Beginning,
    /// The root is checked, mended, or made anew.
    Root,
    /// What is on the device is looked through: what was begun, and what can be mended.
    Resuming,
    /// A stick or card is looked for and read.
    Medium,
    /// An Ethernet interface is brought up.
    Wired,
    /// A radio joins a network.
    Wireless,
    /// The time is asked for.
    Clock,
    /// A commit is fetched.
    Fetching,
    /// What came is deployed.
    Deploying,
    /// The next round is awaited.
    Waiting,
    /// Nothing can be fetched: no source is configured, or no keys.
    Idle,
    /// A deployment is there to boot.
    Done,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Beginning => "beginning",
            Phase::Root => "looking after the root filesystem",
            Phase::Resuming => "looking at what is on the device",
            Phase::Medium => "looking for a USB stick or SD card",
            Phase::Wired => "connecting by cable",
            Phase::Wireless => "connecting by Wi-Fi",
            Phase::Clock => "asking for the time",
            Phase::Fetching => "downloading",
            Phase::Deploying => "installing",
            Phase::Waiting => "waiting for the next round",
            Phase::Idle => "nothing can be fetched: no URL or no keys are configured",
            Phase::Done => "done",
        })
    }
}

/// A source that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// When.
    pub at: u64,
    /// Which one: `eth0 http://…`, `USB stick`.
    pub source: String,
    /// Why, with what helps.
    pub why: String,
}

/// How far a long step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Objects or files that are done, and how many there are as far as known.
    pub done: u64,
    /// See `done`.
    pub total: u64,
    /// Whether `total` is all of them.
    pub whole: bool,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes a second, over the whole step.
    pub rate: u64,
    /// Seconds that are left, where that can be guessed.
    pub left: Option<u64>,
}

/// What someone at the console wants.
#[derive(Clone, PartialEq, Eq)]
pub enum Wish {
    /// Boot this deployment.
    Boot(usize),
    /// Begin a round now.
    RecoverNow,
    /// Join this network before all others.
    Network {
        /// Its name.
        ssid: Vec<u8>,
        /// Its passphrase; empty for an open one.
        secret: String,
    },
    /// Fetch this commit and no other.
    Commit {
        /// Which one.
        commit: Checksum,
        /// Someone at the console confirmed that it may be older than the newest one that was ever confirmed here.
        older: bool,
    },
    /// Look for a stick or card now.
    FromUsb,
    /// Verify what is on the device, and mend it.
    Repair,
    /// Look at everything again.
    Retry,
    /// Restart the device.
    Reboot,
    /// Switch it off.
    PowerOff,
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Boot(index) => write!(f, "Boot({index})"),
            Wish::RecoverNow => f.write_str("RecoverNow"),
            // Not its passphrase.
            Wish::Network { ssid, .. } => write!(f, "Network({})", ssid.escape_ascii()),
            Wish::Commit { commit, older } => write!(f, "Commit({commit}, older: {older})"),
            Wish::FromUsb => f.write_str("FromUsb"),
            Wish::Repair => f.write_str("Repair"),
            Wish::Retry => f.write_str("Retry"),
            Wish::Reboot => f.write_str("Reboot"),
            Wish::PowerOff => f.write_str("PowerOff"),
        }
    }
}

impl Status {
    /// Remembers a failure; the oldest is forgotten when there are too many.
    pub fn failed(&mut self, tried: Tried) {
        if self.tried.len() >= TRIED_MAX {
            self.tried.pop_front();
        }
        self.tried.push_back(tried);
    }

    /// Remembers what happened.
    pub fn tell(&mut self, line: &str) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
        self.told += 1;
    }

    /// The lines that were told after the first `told` ones, as far as they are remembered.
    pub fn lines_after(&self, told: u64) -> impl Iterator<Item = &str> {
        let fresh = usize::try_from(self.told.saturating_sub(told)).unwrap_or(usize::MAX);
        self.lines.iter().skip(self.lines.len().saturating_sub(fresh)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn only_the_last_ones_are_remembered() {
        let mut status = Status::default();
        for number in 0..100 {
            status.tell(&format!("{number}"));
            status.failed(Tried { at: number, source: "eth0".into(), why: "no carrier".into() });
        }
        assert_eq!((status.lines.len(), status.tried.len(), status.told), (LINES_MAX, TRIED_MAX, 100));
        assert_eq!(status.lines_after(98).collect::<Vec<_>>(), ["98", "99"]);
        assert_eq!(status.lines_after(0).count(), LINES_MAX);
        assert_eq!(status.lines_after(1000).count(), 0);
    }

    #[test]
    fn a_passphrase_is_not_shown() {
        let wish = Wish::Network { ssid: b"home".into(), secret: "hunter2!".into() };
        assert_eq!(format!("{wish:?}"), "Network(home)");
    }
}
