//! Looking a value up in `[group]` and `key=value` lines, without a copy of what else is in the file: most of it is secret.
//!
//! The form is that of GLib's key files and of ell's settings (iwd), as far as the programs here write it: comments from `#`,
//! escapes `\s \t \n \r \\` in values (glib/gkeyfile.c, ell/settings.c).

use alloc::vec::Vec;

use super::super::profile::Secret;

/// The value of a key, as it is in the file; of several the last.
pub fn raw<'a>(file: &'a [u8], group: &str, key: &str) -> Option<&'a [u8]> {
    let mut here = false;
    let mut found = None;
    for line in file.split(|&b| b == b'\n').map(<[u8]>::trim_ascii) {
        if let Some(name) = line.strip_prefix(b"[") {
            here = name.strip_suffix(b"]") == Some(group.as_bytes());
        } else if here
            && let Some(rest) = line.strip_prefix(key.as_bytes())
            && let Some(value) = rest.trim_ascii_start().strip_prefix(b"=")
        {
            found = Some(value.trim_ascii_start());
        }
    }
    found
}

/// The value with its escapes resolved.
pub fn value(file: &[u8], group: &str, key: &str) -> Option<Secret> {
    let raw = raw(file, group, key)?;
    let mut text = Secret::with_capacity(raw.len());
    let mut left = raw.iter().copied();
    while let Some(byte) = left.next() {
        let byte = match byte {
            b'\\' => match left.next()? {
                b's' => b' ',
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                other => other,
            },
            plain => plain,
        };
        text.push(&[byte]);
    }
    Some(text)
}

/// A value that is short and no secret.
pub fn word<'a>(file: &'a [u8], group: &str, key: &str) -> &'a str {
    raw(file, group, key).and_then(|v| core::str::from_utf8(v).ok()).unwrap_or("").trim()
}

/// Whether a value says yes.
pub fn yes(file: &[u8], group: &str, key: &str) -> bool {
    matches!(word(file, group, key), "true" | "1" | "yes" | "True")
}

/// The names of the groups, at most so many.
pub fn groups(file: &[u8], limit: usize) -> Vec<&str> {
    let lines = file.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    let names = lines.filter_map(|l| core::str::from_utf8(l.strip_prefix(b"[")?.strip_suffix(b"]")?).ok());
    names.take(limit).collect()
}

/// Bytes from hexadecimal digits.
pub fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}
