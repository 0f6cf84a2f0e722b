//! Networks in a file: the form of `wpa_supplicant.conf`, the part of it that says what to join. Ring: alloc.
//!
//! Everybody who has set up Wi-Fi on a device knows this form, and a system's own file can be copied as it is. Source of the
//! format: wpa_supplicant 2.10, `wpa_supplicant/config_file.c` and `config.c`. What counts:
//!
//! ```text
//! country=DE
//! network={
//!     ssid="Home"                  or hexadecimal digits, or P"escapes"
//!     psk="passphrase"             or 64 hexadecimal digits; sae_password="..." for WPA3 alone
//!     key_mgmt=WPA-PSK SAE         NONE for an open network; WPA-EAP: the whole block is passed on
//!     scan_ssid=1                  hidden
//!     priority=5
//!     disabled=1                   passed over
//! }
//! module brcmfmac                  two kinds of lines of ours: the radio's driver, and an
//! options brcmfmac feature_disable=0x82000    options line of modprobe.d for it
//! ```
//!
//! What is not understood is passed over and told; a secret never is in what is told.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::join::hex;
use super::profile::{Key, Origin, Profile, Secret, Unfit};
use super::wire::decode;

/// The largest file that is read, in bytes.
pub const FILE_MAX: usize = 64 * 1024;
/// More networks than this are not taken from one file.
pub const NETWORKS_MAX: usize = 64;
/// More driver lines than this are not taken from one file.
pub const DRIVER_LINES_MAX: usize = 32;
/// The longest `options` line, in bytes.
const OPTIONS_MAX: usize = 512;

/// What a file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List {
    /// Where the device is, as ISO 3166 has it; empty where it does not say.
    pub country: String,
    /// The networks, in the order of the file.
    pub profiles: Vec<Profile>,
    /// The radio's drivers.
    pub modules: Vec<String>,
    /// Their options: a module's name, a blank, its parameters.
    pub options: Vec<String>,
}

/// Why a line or a network is passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Complaint {
    /// More than [`FILE_MAX`] bytes: nothing of it is taken.
    TooLong,
    /// More than [`NETWORKS_MAX`] networks; from this line on they are not taken.
    TooMany(u32),
    /// A block that is never closed.
    Open(u32),
    /// The network that begins at this line has no name, or one that is none.
    NoName(u32),
    /// The network that begins at this line says no key, and not `key_mgmt=NONE` either.
    NoKey(u32),
    /// The key of the network that begins at this line.
    Unfit(u32, Unfit),
    /// The network that begins at this line is of a kind that is not joined: WEP, an access point of our own.
    Kind(u32),
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Complaint::TooLong => write!(f, "more than {FILE_MAX} bytes: nothing of it is used"),
            Complaint::TooMany(line) => write!(f, "line {line}: more than {NETWORKS_MAX} networks"),
            Complaint::Open(line) => write!(f, "line {line}: a block without its closing brace"),
            Complaint::NoName(line) => write!(f, "line {line}: a network without a name (ssid)"),
            Complaint::NoKey(line) => {
                write!(f, "line {line}: a network without a key; an open one needs key_mgmt=NONE")
            }
            Complaint::Unfit(line, why) => write!(f, "line {line}: {why}"),
            Complaint::Kind(line) => write!(f, "line {line}: a kind of network that is not joined"),
        }
    }
}

/// Reads a file.
pub fn parse(file: &[u8], origin: Origin) -> (List, Vec<Complaint>) {
    let (mut list, mut complaints) = (List::default(), Vec::new());
    if file.len() > FILE_MAX {
        complaints.push(Complaint::TooLong);
        return (list, complaints);
    }
    let mut lines = (1u32..).zip(file.split(|&b| b == b'\n'));
    while let Some((number, line)) = lines.next() {
        let line = trimmed(line);
        if line == b"network={" {
            let mut fields = Vec::new();
            let closed = lines.by_ref().map(|(_, line)| trimmed(line)).any(|line| {
                fields.extend(field(line).filter(|_| fields.len() < MAX_FIELDS));
                line == b"}"
            });
            match network(number, fields, origin) {
                _ if !closed => complaints.push(Complaint::Open(number)),
                _ if list.profiles.len() >= NETWORKS_MAX => complaints.push(Complaint::TooMany(number)),
                Ok(Some(profile)) => list.profiles.push(profile),
                Ok(None) => {}
                Err(complaint) => complaints.push(complaint),
            }
        } else if line.ends_with(b"={") {
            // Blobs and credentials of other kinds: no network that could be joined.
            lines.by_ref().any(|(_, line)| trimmed(line) == b"}");
        } else {
            top_line(line, &mut list);
        }
    }
    complaints.truncate(NETWORKS_MAX);
    (list, complaints)
}

/// Reads one network on one line, as a list in the configuration has it: `ssid="Home" psk="passphrase" scan_ssid=1`, fields
/// as in a file's block. A quote that a blank or the end follows ends a value.
///
/// # Errors
/// As for a block in a file, with line 1.
pub fn line(text: &str, origin: Origin) -> Result<Profile, Complaint> {
    let mut fields: Vec<(String, Secret)> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && fields.len() < MAX_FIELDS {
        let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
        let from = value.strip_prefix('P').unwrap_or(value);
        let end = match from.strip_prefix('"') {
            Some(inner) => inner.find("\" ").map_or(value.len(), |at| value.len() - inner.len() + at + 1),
            None => value.find(' ').unwrap_or(value.len()),
        };
        let (value, after) = value.split_at_checked(end).unwrap_or((value, ""));
        fields.push((name.trim().into(), Secret::new(value.trim())));
        rest = after.trim_start();
    }
    network(1, fields, origin).and_then(|profile| profile.ok_or(Complaint::Kind(1)))
}

/// Blocks have few fields; more are not looked at.
const MAX_FIELDS: usize = super::profile::FIELDS_MAX + 16;

fn top_line(line: &[u8], list: &mut List) {
    let Ok(line) = core::str::from_utf8(line) else { return };
    if let Some(code) = line.strip_prefix("country=") {
        let code = code.trim().trim_matches('"');
        if code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphanumeric()) {
            list.country = code.to_ascii_uppercase();
        }
    } else if let Some(module) = line.strip_prefix("module ") {
        if is_module(module.trim()) && list.modules.len() < DRIVER_LINES_MAX {
            list.modules.push(module.trim().into());
        }
    } else if let Some(options) = line.strip_prefix("options ") {
        list.options.extend(options_line(options).filter(|_| list.options.len() < DRIVER_LINES_MAX));
    }
}

/// What follows `options` in a file of modprobe.d: a module and its parameters.
pub fn options_line(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let module = words.next().filter(|name| is_module(name))?;
    let parameters: Vec<&str> = words.collect();
    let line = format!("{module} {}", parameters.join(" "));
    let plain = line.len() <= OPTIONS_MAX && !line.chars().any(char::is_control);
    (plain && !parameters.is_empty()).then_some(line)
}

/// A module's name and nothing that leads anywhere.
pub fn is_module(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    !name.is_empty() && name.len() <= 64 && name.bytes().all(letter)
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    if line.first() == Some(&b'#') { &[] } else { line }
}

fn field(line: &[u8]) -> Option<(String, Secret)> {
    let at = line.iter().position(|&b| b == b'=')?;
    let name = core::str::from_utf8(line.get(..at)?).ok()?.trim();
    let value = without_comment(line.get(at + 1..)?.trim_ascii());
    Some((name.into(), Secret::new(value)))
}

/// A `#` outside of quotes begins a comment, as `wpa_config_get_line` has it.
fn without_comment(value: &[u8]) -> &[u8] {
    let from = value.iter().rposition(|&b| b == b'"').map_or(0, |at| at + 1);
    let at = value.iter().skip(from).position(|&b| b == b'#').map(|at| from + at);
    value.get(..at.unwrap_or(value.len())).unwrap_or(value).trim_ascii()
}

fn network(line: u32, fields: Vec<(String, Secret)>, origin: Origin) -> Result<Option<Profile>, Complaint> {
    let value = |name: &str| fields.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v);
    let text = |name: &str| value(name).and_then(Secret::text).unwrap_or("");
    if matches!(text("disabled"), "1" | "2") {
        return Ok(None);
    }
    let ssid = value("ssid").and_then(string).ok_or(Complaint::NoName(line))?;
    let keys: Vec<&str> = text("key_mgmt").split_ascii_whitespace().collect();
    let has = |name: &str| keys.contains(&name);
    let key = if !matches!(text("mode"), "" | "0") || value("wep_key0").is_some() {
        return Err(Complaint::Kind(line));
    } else if keys.iter().any(|k| k.starts_with("WPA-EAP")) {
        Key::Enterprise(enterprise(&fields))
    } else if let Some(password) = value("sae_password").and_then(string) {
        Key::Wpa3(password)
    } else if let Some(psk) = value("psk") {
        let psk64 = psk.bytes().first() != Some(&b'"');
        match (psk64, has("SAE"), keys.iter().any(|k| k.contains("PSK"))) {
            (true, ..) => Key::Psk(psk.clone()),
            (false, true, false) => Key::Wpa3(string(psk).ok_or(Complaint::NoKey(line))?),
            // Nothing said, or both: whatever the access point has.
            (false, ..) => Key::Passphrase(string(psk).ok_or(Complaint::NoKey(line))?),
        }
    } else if keys == ["NONE"] {
        Key::Open
    } else {
        return Err(Complaint::NoKey(line));
    };
    let mut profile = Profile::new(ssid.bytes(), key, origin).map_err(|why| Complaint::Unfit(line, why))?;
    profile.hidden = text("scan_ssid") == "1";
    profile.priority = text("priority").parse().unwrap_or(0);
    Ok(Some(profile))
}

/// The fields of an enterprise network that are its own business.
fn enterprise(fields: &[(String, Secret)]) -> Vec<(String, Secret)> {
    const OURS: [&str; 8] =
        ["ssid", "scan_ssid", "scan_freq", "bssid", "priority", "disabled", "id_str", "mode"];
    let plain = |name: &str| name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    fields.iter().filter(|(name, _)| !OURS.contains(&name.as_str()) && plain(name)).cloned().collect()
}

/// A string as `wpa_config_parse_string` takes it: in quotes, in quotes with escapes, or as hexadecimal digits.
pub fn string(value: &Secret) -> Option<Secret> {
    let bytes = value.bytes();
    let quoted = |bytes: &[u8]| Some(bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?.to_vec());
    if bytes.first() == Some(&b'"') {
        return quoted(bytes).map(Secret::new);
    }
    if let Some(rest) = bytes.strip_prefix(b"P") {
        return quoted(rest).and_then(|inner| decode(&inner)).map(Secret::new);
    }
    let digit = |b: u8| char::from(b).to_digit(16);
    let pairs = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>().filter(|b| !b.is_empty()).map(Secret::new)
}

/// Writes a file that [`parse`] reads as the same list.
pub fn emit(list: &List) -> Secret {
    let mut text = Secret::with_capacity(1024 + 512 * list.profiles.len());
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| text.push(part));
    if !list.country.is_empty() {
        line(&[b"country=", list.country.as_bytes(), b"\n"]);
    }
    list.modules.iter().for_each(|module| line(&[b"module ", module.as_bytes(), b"\n"]));
    list.options.iter().for_each(|options| line(&[b"options ", options.as_bytes(), b"\n"]));
    for profile in &list.profiles {
        // Digits: any name, and nothing to escape.
        line(&[b"network={\n\tssid=", hex(&profile.ssid).as_bytes(), b"\n"]);
        if profile.hidden {
            line(&[b"\tscan_ssid=1\n"]);
        }
        if profile.priority != 0 {
            line(&[b"\tpriority=", profile.priority.to_string().as_bytes(), b"\n"]);
        }
        match &profile.key {
            Key::Passphrase(secret) => line(&[b"\tpsk=\"", secret.bytes(), b"\"\n"]),
            Key::Wpa2(secret) => line(&[b"\tkey_mgmt=WPA-PSK\n\tpsk=\"", secret.bytes(), b"\"\n"]),
            Key::Psk(digits) => line(&[b"\tpsk=", digits.bytes(), b"\n"]),
            Key::Wpa3(secret) => line(&[b"\tkey_mgmt=SAE\n\tsae_password=\"", secret.bytes(), b"\"\n"]),
            Key::Open => line(&[b"\tkey_mgmt=NONE\n"]),
            Key::Enterprise(fields) => fields
                .iter()
                .for_each(|(name, value)| line(&[b"\t", name.as_bytes(), b"=", value.bytes(), b"\n"])),
        }
        line(&[b"}\n"]);
    }
    text
}

#[cfg(test)]
mod tests;
