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

/// The sections that there are.
const SECTIONS: [&str; 6] = ["root", "boot", "ledger", "watchdog", "recovery", "log"];

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
    /// `ledger.limit`: attempts that a deployment may take without a confirmation since; default 0, the bootloader
    /// counts. With a limit every good boot must be confirmed, or a healthy device ends in recovery.
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
            let (at, line) = (reader.at, reader.line);
            if let Err(problem) = reader.entry(&mut config, &mut section, &mut seen, &mut sections) {
                complaints.add(line, problem);
                // Only the line itself is given up: a list that is not closed has run into the next section.
                (reader.at, reader.line) = (at, line);
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
                self.end_of_line()?;
                if !SECTIONS.contains(&name.as_str()) {
                    return Err(Problem::UnknownSection);
                }
                if sections.contains(&name) || sections.push(name.clone()).is_err() {
                    return Err(Problem::Duplicate);
                }
                *section = name;
                Ok(())
            }
            Some(_) => self.assignment(config, section, seen),
        }
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
        self.end_of_line()?;
        store(config, section, &key, value, seen)
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

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../initramfs/bootward.toml");

    fn text(s: &str) -> Text {
        Text::try_from(s).unwrap()
    }

    /// The sample with its commented keys in force.
    fn sample_in_force() -> std::string::String {
        let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        });
        lines.collect::<std::vec::Vec<_>>().join("\n")
    }

    /// The same document, read by the `toml` crate.
    fn oracle(document: &str) -> Result<Config, toml::de::Error> {
        let table: toml::Table = toml::from_str(document)?;
        let mut config = Config::default();
        let mut used = 0;
        for (section, value) in &table {
            let alone: toml::Table = [(section.clone(), value.clone())].into_iter().collect();
            let (section, keys) = value.as_table().map_or(("", &alone), |keys| (section.as_str(), keys));
            for (key, value) in keys {
                used += 1;
                match config.slot(section, key).expect("a key that is not ours was accepted").2 {
                    Slot::Text(to) => *to = text(value.as_str().expect("not a string")),
                    Slot::Number(to) => *to = value.as_integer().unwrap().try_into().unwrap(),
                    Slot::List(to) => {
                        *to = value.as_array().unwrap().iter().map(|v| text(v.as_str().unwrap())).collect();
                    }
                }
            }
        }
        assert!(used <= 15);
        Ok(config)
    }

    /// Whether the document was taken without a complaint; then TOML must say the same.
    fn agrees(document: &[u8]) -> bool {
        let (config, complaints) = Config::parse(document);
        if complaints.count == 0 {
            let shown = std::string::String::from_utf8_lossy(document);
            let document = core::str::from_utf8(document).unwrap_or_else(|e| panic!("{e}: {shown}"));
            let expected = oracle(document).unwrap_or_else(|e| panic!("toml refuses: {e}\n{shown}"));
            assert_eq!(config, expected, "{shown}");
        }
        complaints.count == 0
    }

    #[test]
    fn the_sample_is_the_default_and_names_every_key() {
        assert!(agrees(SAMPLE.as_bytes()));
        assert_eq!(Config::parse(SAMPLE.as_bytes()).0, Config::default());
        let document = sample_in_force();
        assert!(agrees(document.as_bytes()));
        let table: toml::Table = toml::from_str(&document).unwrap();
        let keys: usize = table.values().map(|v| v.as_table().map_or(1, toml::Table::len)).sum();
        assert_eq!(keys, 15, "each key of Config once");
        let (config, _) = Config::parse(document.as_bytes());
        assert_eq!(config.modules.last().unwrap(), "i6300esb heartbeat=30");
        assert_eq!((config.root_timeout, config.root_device.as_str()), (90, "LABEL=otaroot"));
    }

    /// Documents of likely pieces in random order: what is taken without a complaint means the same in TOML.
    #[test]
    fn what_is_taken_is_toml_with_the_same_meaning() {
        const PIECES: &[&str] = &[
            "modules",
            "init",
            "env",
            "device",
            "timeout",
            "limit",
            "level",
            "nonsense",
            "init = ",
            "env=",
            "modules = [",
            "[root]",
            "[boot]",
            "[log]\n",
            "[ watchdog ]",
            "[recovery",
            "]",
            "[",
            "=",
            " = ",
            ",",
            "\n",
            "\n",
            "\r\n",
            "\r",
            " ",
            "\t",
            "# c\u{e9}\n",
            "#\u{7f}",
            "\"\"",
            "\"a\\tb\"",
            "'lit\\eral'",
            "\"\\u00e9\"",
            "\"\\ud800\"",
            "\"\\x41\"",
            "\"\"\"",
            "'''",
            "\"",
            "'",
            "\\",
            "0",
            "60",
            "1_000",
            "1__0",
            "_1",
            "01",
            "+5",
            "-5",
            "-0",
            "0x10",
            "1.5",
            "1e3",
            "4294967296",
            "99999999999999999999",
            "true",
            "false",
            "\u{feff}",
            "\0",
            "{}",
            "limit = 3\n",
            "timeout = 7\n",
            "device = \"x\" # y\n",
            "modules = [\n'a', # b\n\"c d\",\n]\n",
            "a.b = 1",
        ];
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below
        };
        let (mut taken, base) = (0, sample_in_force());
        for round in 0..30_000 {
            let mut document = std::vec::Vec::new();
            if round % 4 == 0 {
                // The sample with a few bytes exchanged, doubled or lost.
                document.extend_from_slice(base.as_bytes());
                for _ in 0..=random(3) {
                    let at = random(document.len() - 1);
                    match random(4) {
                        0 => drop(document.remove(at)),
                        1 => document.insert(at, document[at]),
                        2 => document[at] = b"\"'[]=,#\n\\ 0a\r\xff"[random(14)],
                        _ => document.swap(at, at + 1),
                    }
                }
            } else {
                for _ in 0..=random(9) {
                    document.extend_from_slice(PIECES[random(PIECES.len())].as_bytes());
                }
            }
            taken += usize::from(agrees(&document));
        }
        assert!(taken > 1_500, "only {taken} documents were taken: the corpus shows little");
    }

    #[test]
    fn a_wrong_line_is_reported_and_the_others_stand() {
        let document = "init = /bad\nenv = \"/e\"\nenv = \"/again\"\n[root]\ntimeout = -1\ndevice = 'LABEL=x'\n\
            [rot]\nflags = \"x\"\n[root]\nfstype = \"ext4\"\n[log]\nlevel = 3\n";
        let (config, complaints) = Config::parse(document.as_bytes());
        let problems: std::vec::Vec<_> = complaints.first.iter().map(|c| (c.line, c.problem)).collect();
        let expected = [
            (1, Problem::Value),
            (3, Problem::Duplicate),
            (5, Problem::WrongKind),
            (7, Problem::UnknownSection),
            (8, Problem::UnknownKey),
            (9, Problem::Duplicate),
            (10, Problem::UnknownKey),
            (12, Problem::WrongKind),
        ];
        assert_eq!(problems, expected);
        assert_eq!((config.env.as_str(), config.root_device.as_str()), ("/e", "LABEL=x"));
        assert_eq!((config.root_timeout, config.log_level.as_str()), (90, "info"));
    }

    /// A bracket that was forgotten must not take the section behind it away.
    #[test]
    fn an_open_list_costs_only_itself() {
        for list in ["modules = [\n", "modules = [\"a\",\n", "modules = [\"a\"\n", "modules = [ # x\n\n"] {
            let document = std::format!("{list}[root]\ndevice = \"LABEL=x\"\n");
            let (config, complaints) = Config::parse(document.as_bytes());
            assert_eq!(config.root_device, "LABEL=x", "{list:?}");
            assert_eq!(complaints.first.first().map(|c| (c.line, c.problem)), Some((1, Problem::Value)));
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let long = std::format!("init = \"{}\"\n", "x".repeat(129));
        let many = std::format!("modules = [{}]\n", "\"m\",".repeat(MAX_MODULES + 1));
        for (document, problem) in [(long, Problem::TooLong), (many, Problem::TooLong)] {
            assert_eq!(Config::parse(document.as_bytes()).1.first[0].problem, problem);
        }
        let huge = "#\n".repeat(MAX_SIZE);
        assert_eq!(Config::parse(huge.as_bytes()).1.first[0].problem, Problem::FileTooLong);
        assert_eq!(Config::parse("x\n".repeat(20).as_bytes()).1.count, 20);
    }
}
