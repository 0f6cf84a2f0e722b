//! GLib key files: `prepare-root.conf`, the repository's `config`, origins.
//!
//! Format: the desktop entry syntax as GLib's `GKeyFile` reads it (glib/gkeyfile.c): `[group]` lines,
//! `key=value` lines, comments from `#` at the start of a line, blank lines. What GLib refuses is refused;
//! groups of the same name are merged and the last value of a key wins, as there.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The largest file that is read, in bytes.
pub const MAX_SIZE: usize = 64 * 1024;
/// The most `key=value` lines in one file.
pub const MAX_ENTRIES: usize = 1024;

/// The entries of a key file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFile {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    group: String,
    key: String,
    value: String,
}

/// Why a key file cannot be used. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFileError {
    /// More than [`MAX_SIZE`] bytes.
    TooLarge {
        /// Size in bytes.
        size: usize,
    },
    /// More than [`MAX_ENTRIES`] entries.
    TooManyEntries {
        /// The line of the first one too many.
        line: usize,
    },
    /// The line is not UTF-8.
    NotUtf8 {
        /// Where.
        line: usize,
    },
    /// `[...]` that does not name a group: empty, unclosed, or with brackets or control characters within.
    Group {
        /// Where.
        line: usize,
    },
    /// A `key=value` line before the first `[group]`.
    NoGroup {
        /// Where.
        line: usize,
    },
    /// Neither a group, a comment nor `key=value`.
    Line {
        /// Where.
        line: usize,
    },
    /// The value of the key is not of the type that was asked for.
    Value {
        /// The group.
        group: &'static str,
        /// The key.
        key: &'static str,
        /// What was expected instead.
        expected: &'static str,
    },
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size } => write!(f, "{size} bytes, the limit is {MAX_SIZE}"),
            Self::TooManyEntries { line } => write!(f, "line {line}: more than {MAX_ENTRIES} entries"),
            Self::NotUtf8 { line } => write!(f, "line {line}: not UTF-8"),
            Self::Group { line } => write!(f, "line {line}: not a [group]"),
            Self::NoGroup { line } => write!(f, "line {line}: key before the first [group]"),
            Self::Line { line } => write!(f, "line {line}: neither [group], # comment nor key=value"),
            Self::Value { group, key, expected } => write!(f, "[{group}] {key}: must be {expected}"),
        }
    }
}

impl KeyFile {
    /// Reads a whole file.
    ///
    /// # Errors
    /// The first line that GLib would refuse, or a limit exceeded.
    pub fn parse(data: &[u8]) -> Result<Self, KeyFileError> {
        if data.len() > MAX_SIZE {
            return Err(KeyFileError::TooLarge { size: data.len() });
        }
        let mut file = KeyFile::default();
        let mut group: Option<&str> = None;
        for (index, raw) in data.split(|&b| b == b'\n').enumerate() {
            let line = index + 1;
            let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
            let text = core::str::from_utf8(raw).map_err(|_| KeyFileError::NotUtf8 { line })?;
            let text = text.trim_start_matches(is_space);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if let Some(rest) = text.strip_prefix('[') {
                group = Some(group_name(rest).ok_or(KeyFileError::Group { line })?);
                continue;
            }
            let (key, value) = text.split_once('=').ok_or(KeyFileError::Line { line })?;
            let key = key.trim_end_matches(is_space);
            if !is_key(key) {
                return Err(KeyFileError::Line { line });
            }
            let group = group.ok_or(KeyFileError::NoGroup { line })?;
            if key.contains('[') {
                continue; // a translation: nothing here is shown in the user's language
            }
            if file.entries.len() >= MAX_ENTRIES {
                return Err(KeyFileError::TooManyEntries { line });
            }
            let value = value.trim_start_matches(is_space);
            file.entries.push(Entry { group: group.into(), key: key.into(), value: value.into() });
        }
        Ok(file)
    }

    /// The raw value (escapes not resolved, as `g_key_file_get_value`), if the key is there.
    pub fn value(&self, group: &str, key: &str) -> Option<&str> {
        let found = self.entries.iter().rev().find(|e| e.group == group && e.key == key);
        found.map(|e| e.value.as_str())
    }

    /// A boolean, if the key is there: `true`, `false`, `1` or `0`, as `g_key_file_get_boolean`.
    ///
    /// # Errors
    /// When the value is none of these.
    pub fn boolean(&self, group: &'static str, key: &'static str) -> Result<Option<bool>, KeyFileError> {
        match self.value(group, key).map(|v| v.trim_end_matches(is_space)) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(KeyFileError::Value { group, key, expected: "true or false" }),
        }
    }
}

/// `g_ascii_isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}' | '\u{b}')
}

/// The name in what follows the opening bracket, if it is one: only blanks may follow the closing bracket.
fn group_name(rest: &str) -> Option<&str> {
    let (name, after) = rest.split_once(']')?;
    let sound = !name.is_empty() && !name.contains('[') && !name.chars().any(char::is_control);
    (sound && after.chars().all(is_space)).then_some(name)
}

/// `name` or `name[locale]`, the name without brackets and without blanks at its ends.
fn is_key(key: &str) -> bool {
    let (name, locale) = match key.split_once('[') {
        None => (key, None),
        Some((name, locale)) => (name, Some(locale)),
    };
    let sound = !name.is_empty() && !name.contains(']') && !name.ends_with(' ');
    let letters = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    sound && locale.is_none_or(|l| l.strip_suffix(']').is_some_and(|l| l.chars().all(letters)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KeyFile, KeyFileError> {
        KeyFile::parse(text.as_bytes())
    }

    #[test]
    fn reads_what_ostree_writes() {
        let file = parse("[core]\nrepo_version=1\nmode=bare\n\n[sysroot]\nreadonly=true\n").unwrap();
        assert_eq!(file.value("core", "mode"), Some("bare"));
        assert_eq!(file.boolean("sysroot", "readonly"), Ok(Some(true)));
        assert_eq!(file.boolean("sysroot", "writable"), Ok(None));
        assert_eq!(file.boolean("nowhere", "readonly"), Ok(None));
    }

    #[test]
    fn last_value_wins_and_groups_merge() {
        let file = parse("[a]\nk=1\n[b]\nk=x\n[a]\n k = 0 \nk[de]=true\n").unwrap();
        assert_eq!(file.value("a", "k"), Some("0 "));
        assert_eq!(file.boolean("a", "k"), Ok(Some(false)));
    }

    #[test]
    fn only_four_words_are_booleans() {
        for (text, expected) in [("true", true), ("1", true), ("false", false), ("0 \t", false)] {
            let file = parse(&alloc::format!("[g]\nk={text}")).unwrap();
            assert_eq!(file.boolean("g", "k"), Ok(Some(expected)), "{text}");
        }
        for text in ["yes", "no", "TRUE", "", "on", "2"] {
            let file = parse(&alloc::format!("[g]\nk={text}")).unwrap();
            assert!(file.boolean("g", "k").is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_what_glib_refuses_with_the_line() {
        assert_eq!(parse("k=v"), Err(KeyFileError::NoGroup { line: 1 }));
        assert_eq!(parse("# c\n\n[g\nk=v"), Err(KeyFileError::Group { line: 3 }));
        assert_eq!(parse("[]\n"), Err(KeyFileError::Group { line: 1 }));
        assert_eq!(parse("[a[b]\n"), Err(KeyFileError::Group { line: 1 }));
        assert_eq!(parse("[a] x\n"), Err(KeyFileError::Group { line: 1 }));
        assert_eq!(parse("[a]\nword\n"), Err(KeyFileError::Line { line: 2 }));
        assert_eq!(parse("[a]\n=v\n"), Err(KeyFileError::Line { line: 2 }));
        assert_eq!(KeyFile::parse(b"[a]\nk=\xff\n"), Err(KeyFileError::NotUtf8 { line: 2 }));
    }

    #[test]
    fn limits_hold() {
        let large = alloc::vec![b'#'; MAX_SIZE + 1];
        assert_eq!(KeyFile::parse(&large), Err(KeyFileError::TooLarge { size: MAX_SIZE + 1 }));
        let many = alloc::format!("[g]\n{}", "k=v\n".repeat(MAX_ENTRIES + 1));
        assert_eq!(parse(&many), Err(KeyFileError::TooManyEntries { line: MAX_ENTRIES + 2 }));
    }
}
