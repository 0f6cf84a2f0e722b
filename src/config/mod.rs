//! `bootward.toml`, the configuration in the initramfs: a subset of TOML, read without a heap.
//!
//! What it takes: comments, `[section]`, bare keys, basic (`"…"`) and literal (`'…'`) strings on one line,
//! integers, booleans, and arrays of strings over one or several lines. Every document that it takes without
//! a complaint is TOML with the same meaning; the reverse does not hold. (The usual crate costs 155 KB of a
//! 450 KB budget.)
//!
//! A line that is not understood is skipped and reported, and the default stands: a typing error must not
//! keep a device from booting. The section `[verify]` is the exception: a line of it that is skipped would leave
//! unverified what was meant to be verified, so that it keeps every deployment from booting.
//!
//! What recovery alone needs (`[network]`, `[time]`, `[wifi]`, most of `[recovery]`) is read by
//! `recovery::settings`, with the same reader; here it is known and passed over.

pub(crate) mod reader;

use core::fmt;

use heapless::{String, Vec};

use crate::ostree::verify::Level;

use reader::{Take, read};

/// More modules than this are not taken.
pub const MAX_MODULES: usize = 64;
/// More complaints than this are counted only.
pub const MAX_COMPLAINTS: usize = 8;
/// A larger file is not read past this many bytes.
pub const MAX_SIZE: usize = 64 * 1024;

/// The sections that there are.
const SECTIONS: [&str; 12] = [
    "recovery", "network", "time", "wifi", "root", "boot", "firmware", "ledger", "watchdog", "log", "verify",
    "check",
];
/// So many of them, the first ones, have keys for recovery alone.
const OF_RECOVERY: usize = 4;

/// A string value: at most this many bytes.
pub type Text = String<128>;

/// The configuration, every key with its default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `modules`: kernel modules to load before the root is looked for, each with its parameters.
    pub modules: Vec<Text, MAX_MODULES>,
    /// `init`: path of the real init in the deployment; empty for the usual places.
    pub init: Text,
    /// `env`: path of `fw_env.config`; default `/etc/fw_env.config`.
    pub env: Text,
    /// `root.device`: the root where the command line names none, for example `LABEL=otaroot`.
    pub root_device: Text,
    /// `root.fstype`: its file system; empty to recognise it.
    pub root_fstype: Text,
    /// `root.flags`: mount options, as in fstab.
    pub root_flags: Text,
    /// `root.timeout`: seconds to wait for the root before recovery; default 90.
    pub root_timeout: u32,
    /// `boot.device`: a boot partition of its own; empty where `/boot` is on the root.
    pub boot_device: Text,
    /// `boot.fstype`: its file system; empty to recognise it.
    pub boot_fstype: Text,
    /// `firmware.device`: the partition with the files that `fw_env.config` names, mounted at `/firmware`; empty where the
    /// environment is on a device itself.
    pub firmware_device: Text,
    /// `firmware.fstype`: its file system; empty to recognise it.
    pub firmware_fstype: Text,
    /// `ledger.limit`: attempts that a deployment may take without a confirmation since; default 0, the bootloader
    /// counts. With a limit every good boot must be confirmed, or a healthy device ends in recovery.
    pub ledger_limit: u32,
    /// `ledger.failures`: so many unconfirmed attempts among the last `ledger.window` are too many; default 0, off.
    pub ledger_failures: u32,
    /// `ledger.window`: attempts that `ledger.failures` looks back on, at most 32; default 10.
    pub ledger_window: u32,
    /// `watchdog.device`: for example `/dev/watchdog0`; empty for none.
    pub watchdog_device: Text,
    /// `watchdog.timeout`: seconds; default 60.
    pub watchdog_timeout: u32,
    /// `recovery.console`: default `/dev/console`.
    pub recovery_console: Text,
    /// `recovery.reboot_after`: seconds without input until a restart; default 300, 0 for never.
    pub recovery_reboot_after: u32,
    /// `check.timeout`: seconds that one health check may take; default 60.
    pub check_timeout: u32,
    /// `check.total`: seconds that all health checks of a boot may take together; default 300.
    pub check_total: u32,
    /// `log.level`: `error`, `warn`, `info` or `debug`; default `info`.
    pub log_level: Text,
    /// `verify.level`: `none`, `metadata` or `full`; empty when not given. See [`Config::level`].
    pub verify_level: Text,
    /// `verify.timeout`: seconds that verifying a deployment may take; default 600, 0 for as long as it takes.
    pub verify_timeout: u32,
    /// `verify.keys`: the file of trusted ed25519 keys in the initramfs; empty when no signature is needed.
    pub verify_keys: Text,
    /// A line that may have been about verification could not be used: nothing boots, or a typing error would
    /// switch off what it was meant to switch on. Set by [`Config::parse`] and for a file that cannot be read.
    pub verify_unclear: bool,
}

impl Default for Config {
    fn default() -> Self {
        let text = |s: &str| Text::try_from(s).unwrap_or_default();
        Config {
            modules: Vec::new(),
            init: Text::new(),
            env: text("/etc/fw_env.config"),
            root_device: Text::new(),
            root_fstype: Text::new(),
            root_flags: Text::new(),
            root_timeout: 90,
            boot_device: Text::new(),
            boot_fstype: Text::new(),
            firmware_device: Text::new(),
            firmware_fstype: Text::new(),
            ledger_limit: 0,
            ledger_failures: 0,
            ledger_window: 10,
            watchdog_device: Text::new(),
            watchdog_timeout: 60,
            recovery_console: text("/dev/console"),
            recovery_reboot_after: 300,
            check_timeout: 60,
            check_total: 300,
            log_level: text("info"),
            verify_level: Text::new(),
            verify_timeout: 600,
            verify_keys: Text::new(),
            verify_unclear: false,
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// Not `key = value`, `[section]` or a comment.
    Syntax,
    /// The value is not closed, or not one of the kinds that are taken.
    Value,
    /// The string or list does not fit.
    TooLong,
    /// There is no such section.
    UnknownSection,
    /// There is no such key in this section.
    UnknownKey,
    /// The key wants a value of another kind.
    WrongKind,
    /// The key was given before.
    Duplicate,
    /// The file is longer than is read.
    FileTooLong,
}

/// A line that was skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Line number, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.problem {
            Problem::Syntax => "expected 'key = value', '[section]' or a comment",
            Problem::Value => {
                "the value is no string in quotes, whole number, true, false or list of strings"
            }
            Problem::TooLong => "the value is too long",
            Problem::UnknownSection => "there is no such section",
            Problem::UnknownKey => "there is no such key in this section",
            Problem::WrongKind => "this key takes a value of another kind",
            Problem::Duplicate => "this key or section was given before",
            Problem::FileTooLong => "the file is longer than 64 KiB, the rest was not read",
        };
        write!(f, "line {}: {what}; the line was skipped", self.line)
    }
}

/// What was wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Complaints {
    /// The first of them.
    pub first: Vec<Complaint, MAX_COMPLAINTS>,
    /// How many there were.
    pub count: u32,
}

/// One value.
#[expect(
    clippy::large_enum_variant,
    reason = "one of them lives at a time, on the stack, and there is no heap"
)]
pub(crate) enum Value {
    /// A string.
    Text(Text),
    /// A whole number.
    Number(i64),
    /// `true` or `false`.
    #[cfg_attr(not(feature = "recovery"), expect(dead_code, reason = "the guardian has no such key"))]
    Flag(bool),
    /// A list of strings.
    List(Vec<Text, MAX_MODULES>),
}

/// Where a value goes.
enum Slot<'a> {
    Text(&'a mut Text),
    Number(&'a mut u32),
    List(&'a mut Vec<Text, MAX_MODULES>),
}

impl Config {
    /// Reads a file. What cannot be used is in the complaints, and its default in the configuration.
    pub fn parse(file: &[u8]) -> (Config, Complaints) {
        let mut config = Config::default();
        let mut taking = Taking { config: &mut config, seen: Vec::new() };
        let complaints = read(file, &mut taking);
        (config, complaints)
    }

    /// How much of a deployment is verified before it boots: what `verify.level` says, and at least what
    /// `bootward.verify=` on the command line says, which can ask for more but never for less.
    ///
    /// A word that is none of the three asks for everything. So does a configuration that has keys and no level.
    pub fn level(&self, command_line: Option<&str>) -> Level {
        let word = |word| Level::parse(word).unwrap_or(Level::Full);
        let own = match (self.verify_unclear, self.verify_level.as_str()) {
            (true, _) => Level::Full,
            (false, "") if self.verify_keys.is_empty() => Level::None,
            (false, "") => Level::Full,
            (false, given) => word(given),
        };
        own.max(command_line.map_or(Level::None, word))
    }

    fn slot(&mut self, section: &str, key: &str) -> Option<(&'static str, &'static str, Slot<'_>)> {
        Some(match (section, key) {
            ("", "modules") => ("", "modules", Slot::List(&mut self.modules)),
            ("", "init") => ("", "init", Slot::Text(&mut self.init)),
            ("", "env") => ("", "env", Slot::Text(&mut self.env)),
            ("root", "device") => ("root", "device", Slot::Text(&mut self.root_device)),
            ("root", "fstype") => ("root", "fstype", Slot::Text(&mut self.root_fstype)),
            ("root", "flags") => ("root", "flags", Slot::Text(&mut self.root_flags)),
            ("root", "timeout") => ("root", "timeout", Slot::Number(&mut self.root_timeout)),
            ("boot", "device") => ("boot", "device", Slot::Text(&mut self.boot_device)),
            ("boot", "fstype") => ("boot", "fstype", Slot::Text(&mut self.boot_fstype)),
            ("firmware", "device") => ("firmware", "device", Slot::Text(&mut self.firmware_device)),
            ("firmware", "fstype") => ("firmware", "fstype", Slot::Text(&mut self.firmware_fstype)),
            ("ledger", "limit") => ("ledger", "limit", Slot::Number(&mut self.ledger_limit)),
            ("ledger", "failures") => ("ledger", "failures", Slot::Number(&mut self.ledger_failures)),
            ("ledger", "window") => ("ledger", "window", Slot::Number(&mut self.ledger_window)),
            ("watchdog", "device") => ("watchdog", "device", Slot::Text(&mut self.watchdog_device)),
            ("watchdog", "timeout") => ("watchdog", "timeout", Slot::Number(&mut self.watchdog_timeout)),
            ("recovery", "console") => ("recovery", "console", Slot::Text(&mut self.recovery_console)),
            ("recovery", "reboot_after") => {
                ("recovery", "reboot_after", Slot::Number(&mut self.recovery_reboot_after))
            }
            ("verify", "level") => ("verify", "level", Slot::Text(&mut self.verify_level)),
            ("verify", "timeout") => ("verify", "timeout", Slot::Number(&mut self.verify_timeout)),
            ("verify", "keys") => ("verify", "keys", Slot::Text(&mut self.verify_keys)),
            ("check", "timeout") => ("check", "timeout", Slot::Number(&mut self.check_timeout)),
            ("check", "total") => ("check", "total", Slot::Number(&mut self.check_total)),
            ("log", "level") => ("log", "level", Slot::Text(&mut self.log_level)),
            _ => return None,
        })
    }
}

/// The configuration while it is read.
struct Taking<'a> {
    config: &'a mut Config,
    seen: Vec<(&'static str, &'static str), 32>,
}

impl Take for Taking<'_> {
    fn take(&mut self, section: &str, key: &str, value: Value) -> Result<(), Problem> {
        let Some((section, key, slot)) = self.config.slot(section, key) else {
            let of_recovery = SECTIONS.iter().take(OF_RECOVERY).any(|s| *s == section);
            return if of_recovery { Ok(()) } else { Err(Problem::UnknownKey) };
        };
        if self.seen.contains(&(section, key)) {
            return Err(Problem::Duplicate);
        }
        match (slot, value) {
            (Slot::Text(to), Value::Text(text)) => *to = text,
            (Slot::List(to), Value::List(list)) => *to = list,
            (Slot::Number(to), Value::Number(n)) => *to = u32::try_from(n).map_err(|_| Problem::WrongKind)?,
            _ => return Err(Problem::WrongKind),
        }
        // There are fewer keys than places.
        let _ = self.seen.push((section, key));
        Ok(())
    }

    fn skipped(&mut self, section: &str) {
        self.config.verify_unclear |= section == "verify";
    }

    fn cut(&mut self) {
        self.config.verify_unclear = true;
    }
}

impl Complaints {
    fn add(&mut self, line: u32, problem: Problem) {
        self.count = self.count.saturating_add(1);
        // What no longer fits is in the count.
        let _ = self.first.push(Complaint { line, problem });
    }
}

#[cfg(test)]
mod tests;
