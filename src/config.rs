//! `bootward.toml`, the configuration in the initramfs: a subset of TOML, read without a heap.
//!
//! What it takes: comments, `[section]`, bare keys, basic (`"…"`) and literal (`'…'`) strings on one line,
//! integers, booleans, and arrays of strings over one or several lines. Every document that it takes without
//! a complaint is TOML with the same meaning; the reverse does not hold. (The usual crate costs 155 KB of a
//! 450 KB budget.)
//!
//! A line that is not understood is skipped and reported, and the default stands: a typing error must not
//! keep a device from booting.

use core::fmt;

use heapless::{String, Vec};

/// More modules than this are not taken.
pub const MAX_MODULES: usize = 64;
/// More complaints than this are counted only.
pub const MAX_COMPLAINTS: usize = 8;
/// A larger file is not read past this many bytes.
pub const MAX_SIZE: usize = 64 * 1024;

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
    /// `ledger.limit`: attempts that an unconfirmed first deployment may take; default 0, the bootloader counts.
    pub ledger_limit: u32,
    /// `watchdog.device`: for example `/dev/watchdog0`; empty for none.
    pub watchdog_device: Text,
    /// `watchdog.timeout`: seconds; default 60.
    pub watchdog_timeout: u32,
    /// `recovery.console`: default `/dev/console`.
    pub recovery_console: Text,
    /// `recovery.reboot_after`: seconds without input until a restart; default 300, 0 for never.
    pub recovery_reboot_after: u32,
    /// `log.level`: `error`, `warn`, `info` or `debug`; default `info`.
    pub log_level: Text,
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
            ledger_limit: 0,
            watchdog_device: Text::new(),
            watchdog_timeout: 60,
            recovery_console: text("/dev/console"),
            recovery_reboot_after: 300,
            log_level: text("info"),
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
enum Value {
    Text(Text),
    Number(i64),
    Flag,
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
        let mut reader = Reader { bytes: file.get(..MAX_SIZE).unwrap_or(file), at: 0, line: 1 };
        let mut config = Config::default();
        let mut complaints = Complaints::default();
        let mut section: String<32> = String::new();
        let mut seen: Vec<(&'static str, &'static str), 20> = Vec::new();
        let mut sections: Vec<String<32>, 8> = Vec::new();
        while !reader.at_end() {
            let line = reader.line;
            if let Err(problem) = reader.entry(&mut config, &mut section, &mut seen, &mut sections) {
                complaints.add(line, problem);
                reader.skip_line();
            }
        }
        if file.len() > MAX_SIZE {
            complaints.add(reader.line, Problem::FileTooLong);
        }
        (config, complaints)
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
            ("ledger", "limit") => ("ledger", "limit", Slot::Number(&mut self.ledger_limit)),
            ("watchdog", "device") => ("watchdog", "device", Slot::Text(&mut self.watchdog_device)),
            ("watchdog", "timeout") => ("watchdog", "timeout", Slot::Number(&mut self.watchdog_timeout)),
            ("recovery", "console") => ("recovery", "console", Slot::Text(&mut self.recovery_console)),
            ("recovery", "reboot_after") => {
                ("recovery", "reboot_after", Slot::Number(&mut self.recovery_reboot_after))
            }
            ("log", "level") => ("log", "level", Slot::Text(&mut self.log_level)),
            _ => return None,
        })
    }
}

impl Complaints {
    fn add(&mut self, line: u32, problem: Problem) {
        self.count = self.count.saturating_add(1);
        // What no longer fits is in the count.
        let _ = self.first.push(Complaint { line, problem });
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        self.line += u32::from(byte == b'\n');
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some() && self.take() != Some(b'\n') {}
    }

    /// A comment or nothing, then the end of the line.
    fn end_of_line(&mut self) -> Result<(), Problem> {
        self.skip_blanks();
        if self.peek() == Some(b'#') {
            self.comment()?;
        }
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
            self.at += 1;
        }
        match self.peek() {
            None => Ok(()),
            Some(b'\n') => {
                self.take();
                Ok(())
            }
            Some(_) => Err(Problem::Syntax),
        }
    }

    fn comment(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while !matches!(self.peek(), None | Some(b'\n')) {
            self.at += 1;
        }
        let text = self.bytes.get(start..self.at).unwrap_or(&[]);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // TOML wants text here too.
        let clean =
            core::str::from_utf8(text).is_ok() && text.iter().all(|&b| b == b'\t' || b >= b' ' && b != 0x7F);
        if !clean {
            return Err(Problem::Syntax);
        }
        self.at = start + text.len();
        Ok(())
    }

    fn entry(
        &mut self,
        config: &mut Config,
        section: &mut String<32>,
        seen: &mut Vec<(&'static str, &'static str), 20>,
        sections: &mut Vec<String<32>, 8>,
    ) -> Result<(), Problem> {
        self.skip_blanks();
        match self.peek() {
            None | Some(b'#' | b'\n' | b'\r') => self.end_of_line(),
            Some(b'[') => {
                // Whatever follows does not belong to the section before, even where this line is wrong.
                *section = String::try_from("?").unwrap_or_default();
                self.at += 1;
                self.skip_blanks();
                let name: String<32> = self.bare_key()?;
                self.skip_blanks();
                if self.peek() != Some(b']') {
                    return Err(Problem::Syntax);
                }
                self.at += 1;
                let here = self.at;
                self.end_of_line()?;
                if sections.contains(&name) || sections.push(name.clone()).is_err() {
                    self.rewind(here);
                    return Err(Problem::Duplicate);
                }
                *section = name;
                Ok(())
            }
            Some(_) => self.assignment(config, section, seen),
        }
    }

    /// Goes back to a place on the line before the present one, so that skipping it skips that line.
    fn rewind(&mut self, to: usize) {
        let crossed = self.bytes.get(to..self.at).unwrap_or(&[]).iter().filter(|&&b| b == b'\n').count();
        self.line -= crossed as u32;
        self.at = to;
    }

    fn assignment(
        &mut self,
        config: &mut Config,
        section: &str,
        seen: &mut Vec<(&'static str, &'static str), 20>,
    ) -> Result<(), Problem> {
        let key: String<32> = self.bare_key()?;
        self.skip_blanks();
        if self.peek() != Some(b'=') {
            return Err(Problem::Syntax);
        }
        self.at += 1;
        self.skip_blanks();
        let value = self.value()?;
        let here = self.at;
        self.end_of_line()?;
        let outcome = store(config, section, &key, value, seen);
        if outcome.is_err() {
            self.rewind(here);
        }
        outcome
    }

    fn bare_key<const N: usize>(&mut self) -> Result<String<N>, Problem> {
        let mut key = String::new();
        while let Some(b) = self.peek().filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            key.push(char::from(b)).map_err(|_| Problem::UnknownKey)?;
            self.at += 1;
        }
        if key.is_empty() { Err(Problem::Syntax) } else { Ok(key) }
    }

    fn value(&mut self) -> Result<Value, Problem> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string().map(Value::Text),
            Some(b'[') => self.list().map(Value::List),
            Some(b't' | b'f') => {
                let rest = self.bytes.get(self.at..).unwrap_or(&[]);
                let word: &[u8] = if rest.starts_with(b"true") { b"true" } else { b"false" };
                if !rest.starts_with(word) {
                    return Err(Problem::Value);
                }
                self.at += word.len();
                Ok(Value::Flag)
            }
            Some(_) => self.number(),
            None => Err(Problem::Value),
        }
    }

    /// Decimal, `_` between digits, no leading zeros, as TOML has it.
    fn number(&mut self) -> Result<Value, Problem> {
        let sign = match self.peek() {
            Some(b'-') => -1,
            _ => 1,
        };
        if matches!(self.peek(), Some(b'+' | b'-')) {
            self.at += 1;
        }
        let start = self.at;
        let mut number: i64 = 0;
        let mut after_digit = false;
        while let Some(b) = self.peek().filter(|b| b.is_ascii_digit() || *b == b'_') {
            if b == b'_' {
                if !after_digit {
                    return Err(Problem::Value);
                }
                after_digit = false;
            } else {
                number = number
                    .checked_mul(10)
                    .and_then(|n| n.checked_add(i64::from(b - b'0')))
                    .ok_or(Problem::TooLong)?;
                after_digit = true;
            }
            self.at += 1;
        }
        let leading_zero = self.bytes.get(start) == Some(&b'0') && self.at - start > 1;
        if !after_digit || leading_zero { Err(Problem::Value) } else { Ok(Value::Number(sign * number)) }
    }

    fn list(&mut self) -> Result<Vec<Text, MAX_MODULES>, Problem> {
        let mut list = Vec::new();
        self.at += 1;
        loop {
            self.skip_lines()?;
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(list);
            }
            let text = match self.peek() {
                Some(b'"' | b'\'') => self.string()?,
                _ => return Err(Problem::Value),
            };
            list.push(text).map_err(|_| Problem::TooLong)?;
            self.skip_lines()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {}
                _ => return Err(Problem::Value),
            }
        }
    }

    /// White space, ends of lines and comments, as between the items of a list.
    fn skip_lines(&mut self) -> Result<(), Problem> {
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(b'#' | b'\n' | b'\r') => self.end_of_line()?,
                _ => return Ok(()),
            }
        }
    }

    fn string(&mut self) -> Result<Text, Problem> {
        let quote = self.peek();
        self.at += 1;
        // Three quotes begin a kind of string that is not taken.
        if self.bytes.get(self.at) == quote.as_ref() && self.bytes.get(self.at + 1) == quote.as_ref() {
            return Err(Problem::Value);
        }
        let mut text = Text::new();
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or(&[]);
            let c = first_char(rest).ok_or(Problem::Value)?;
            if c == '\n' || c == '\r' {
                return Err(Problem::Value);
            }
            self.at += c.len_utf8();
            let c = match c {
                _ if quote == Some(c as u8) && c.is_ascii() => return Ok(text),
                '\\' if quote == Some(b'"') => self.escape()?,
                '\t' => c,
                _ if (c as u32) < 0x20 || c == '\u{7F}' => return Err(Problem::Value),
                _ => c,
            };
            text.push(c).map_err(|_| Problem::TooLong)?;
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let kind = self.peek().ok_or(Problem::Value)?;
        if kind == b'\n' {
            return Err(Problem::Value);
        }
        self.at += 1;
        let digits = match kind {
            b'b' => return Ok('\u{8}'),
            b't' => return Ok('\t'),
            b'n' => return Ok('\n'),
            b'f' => return Ok('\u{c}'),
            b'r' => return Ok('\r'),
            b'"' => return Ok('"'),
            b'\\' => return Ok('\\'),
            b'u' => 4,
            b'U' => 8,
            _ => return Err(Problem::Value),
        };
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16)).ok_or(Problem::Value)?;
            code = code << 4 | digit;
            self.at += 1;
        }
        char::from_u32(code).ok_or(Problem::Value)
    }
}

fn store(
    config: &mut Config,
    section: &str,
    key: &str,
    value: Value,
    seen: &mut Vec<(&'static str, &'static str), 20>,
) -> Result<(), Problem> {
    let (section, key, slot) = config.slot(section, key).ok_or(Problem::UnknownKey)?;
    if seen.contains(&(section, key)) {
        return Err(Problem::Duplicate);
    }
    match (slot, value) {
        (Slot::Text(to), Value::Text(text)) => *to = text,
        (Slot::List(to), Value::List(list)) => *to = list,
        (Slot::Number(to), Value::Number(n)) => *to = u32::try_from(n).map_err(|_| Problem::WrongKind)?,
        _ => return Err(Problem::WrongKind),
    }
    // There are fewer keys than places.
    let _ = seen.push((section, key));
    Ok(())
}

fn first_char(bytes: &[u8]) -> Option<char> {
    let head = bytes.get(..bytes.len().min(4)).unwrap_or(&[]);
    match core::str::from_utf8(head) {
        Ok(text) => text.chars().next(),
        Err(e) => core::str::from_utf8(head.get(..e.valid_up_to())?).ok()?.chars().next(),
    }
}
