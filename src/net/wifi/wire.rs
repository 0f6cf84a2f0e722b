//! What wpa_supplicant says on its control socket. Ring: alloc.
//!
//! Source of the formats: wpa_supplicant 2.10, `wpa_supplicant/ctrl_iface.c` (replies), `src/common/wpa_ctrl.h` (names of
//! events), `src/utils/common.c` (`printf_encode`, the escapes in names). Names on the air are anybody's bytes: nothing
//! here believes them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::profile::{SSID_MAX, shown};

/// The largest datagram that is read, in bytes: the daemon's own limit for a reply is 4096, for an event less.
pub const DATAGRAM_MAX: usize = 8192;
/// More networks than this are not taken from one scan.
pub const SEEN_MAX: usize = 256;

/// An access point's address.
pub type Bssid = [u8; 6];

/// What happened, of all that the daemon tells what decides anything here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The network is joined, keys and all.
    Connected,
    /// The connection ended, or an attempt at one.
    Disconnected {
        /// Whose.
        bssid: Option<Bssid>,
        /// IEEE 802.11, 9.4.1.7.
        reason: u16,
        /// The daemon ended it, not the access point.
        ours: bool,
    },
    /// A scan has results.
    Scanned,
    /// A scan could not be made.
    ScanFailed,
    /// The networks that are enabled were not among the results.
    NotFound,
    /// The network is left alone for a while.
    Disabled {
        /// The daemon believes that the key is wrong.
        wrong_key: bool,
    },
    /// The access point refused the first step. A SAE confirm that does not verify is `transaction` 2, `status` 1: the
    /// passwords differ, and no other event says so.
    AuthRejected {
        /// By whom.
        bssid: Option<Bssid>,
        /// IEEE 802.11, 9.4.1.1: 0 is open, 3 is SAE.
        kind: u16,
        /// Which step.
        transaction: u16,
        /// IEEE 802.11, 9.4.1.9.
        status: u16,
    },
    /// The access point refused the second step.
    AssocRejected {
        /// By whom.
        bssid: Option<Bssid>,
        /// IEEE 802.11, 9.4.1.9.
        status: u16,
    },
    /// It is being tried.
    Trying {
        /// The access point.
        bssid: Option<Bssid>,
    },
    /// An enterprise network refused the credentials.
    EapFailed,
    /// The server of an enterprise network showed a certificate that was not accepted.
    EapCertificate,
    /// The daemon ends.
    Terminating,
}

/// Whether a datagram is an event and no reply.
pub fn is_event(datagram: &[u8]) -> bool {
    datagram.first() == Some(&b'<') || datagram.starts_with(b"IFNAME=")
}

/// Reads an event; `None` for the many that decide nothing.
pub fn event(datagram: &[u8]) -> Option<Event> {
    let text = core::str::from_utf8(datagram.get(..datagram.len().min(DATAGRAM_MAX))?).ok();
    // A name in it may be no text; the words that matter come before it.
    let text = text.unwrap_or_else(|| valid_part(datagram));
    let text = match text.strip_prefix("IFNAME=") {
        Some(rest) => rest.split_once(' ')?.1,
        None => text,
    };
    let text = text.strip_prefix('<')?.split_once('>')?.1;
    let (name, rest) = text.split_once(' ').unwrap_or((text.trim_end(), ""));
    // A network's name in quotes may spell any field: what is behind it counts from its end.
    let field = |key| field(rest, key);
    let number = |key| field(key).and_then(|v| v.parse().ok()).unwrap_or(0);
    let bssid = || field("bssid").or_else(|| rest.split(' ').next()).and_then(address);
    Some(match name {
        "CTRL-EVENT-CONNECTED" => Event::Connected,
        "CTRL-EVENT-DISCONNECTED" => Event::Disconnected {
            bssid: bssid(),
            reason: number("reason"),
            ours: field("locally_generated") == Some("1"),
        },
        "CTRL-EVENT-SCAN-RESULTS" => Event::Scanned,
        "CTRL-EVENT-SCAN-FAILED" => Event::ScanFailed,
        "CTRL-EVENT-NETWORK-NOT-FOUND" => Event::NotFound,
        "CTRL-EVENT-SSID-TEMP-DISABLED" => {
            let behind = rest.rsplit_once('"').map_or(rest, |(_, behind)| behind);
            Event::Disabled { wrong_key: self::field(behind, "reason") == Some("WRONG_KEY") }
        }
        "CTRL-EVENT-AUTH-REJECT" => Event::AuthRejected {
            bssid: bssid(),
            kind: number("auth_type"),
            transaction: number("auth_transaction"),
            status: number("status_code"),
        },
        "CTRL-EVENT-ASSOC-REJECT" => Event::AssocRejected { bssid: bssid(), status: number("status_code") },
        // "Trying to associate with 02:00:00:00:01:00 (SSID='..."
        "Trying" => Event::Trying { bssid: tried(rest) },
        "SME:" => Event::Trying { bssid: rest.strip_prefix("Trying ").and_then(tried) },
        "CTRL-EVENT-EAP-FAILURE" => Event::EapFailed,
        "CTRL-EVENT-EAP-TLS-CERT-ERROR" => Event::EapCertificate,
        "CTRL-EVENT-TERMINATING" => Event::Terminating,
        _ => return None,
    })
}

fn valid_part(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => bytes.get(..e.valid_up_to()).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or(""),
    }
}

/// The value of `key=` among words.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn tried(text: &str) -> Option<Bssid> {
    address(text.split_once(" with ")?.1.split(' ').next()?)
}

/// An address as `02:00:00:00:01:00`.
pub fn address(text: &str) -> Option<Bssid> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// What protects a network, as its flags tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protection {
    /// WPA or WPA2 with a passphrase.
    pub psk: bool,
    /// WPA3 with a password.
    pub sae: bool,
    /// 802.1X.
    pub enterprise: bool,
    /// Encrypted in another way: WEP, OWE.
    pub other: bool,
}

impl Protection {
    /// Nothing at all.
    pub fn is_open(self) -> bool {
        self == Protection::default()
    }

    fn of(flags: &str) -> Self {
        let mut found = Protection::default();
        for flag in flags.split(['[', ']']).filter(|f| !f.is_empty()) {
            let keys = flag.starts_with("WPA") || flag.starts_with("RSN");
            for word in flag.split(['-', '+', '/']).filter(|_| keys) {
                match word {
                    "PSK" => found.psk = true,
                    "SAE" => found.sae = true,
                    "EAP" => found.enterprise = true,
                    "OWE" => found.other = true,
                    _ => {}
                }
            }
            found.other |= flag == "WEP";
        }
        found
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.psk, self.sae, self.enterprise, self.other) {
            (true, true, ..) => "WPA2/WPA3",
            (true, false, ..) => "WPA2",
            (false, true, ..) => "WPA3",
            (false, false, true, _) => "enterprise",
            (false, false, false, true) => "other",
            (false, false, false, false) => "open",
        })
    }
}

/// An access point that a scan saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its address.
    pub bssid: Bssid,
    /// Its channel, in MHz.
    pub frequency: u32,
    /// Its strength, in dBm.
    pub signal: i32,
    /// What protects it.
    pub protection: Protection,
    /// Its network's name; empty where it does not tell.
    pub ssid: Vec<u8>,
}

impl Seen {
    /// The network's name, as it may be shown on any terminal.
    pub fn name(&self) -> String {
        shown(&self.ssid)
    }
}

/// Reads the reply to `SCAN_RESULTS`, the strongest first. Lines that are none are passed over, and so is the last one
/// where the daemon's reply was cut short at its limit.
pub fn scan_results(reply: &[u8]) -> Vec<Seen> {
    let mut seen: Vec<Seen> = reply.split(|&b| b == b'\n').filter_map(seen_line).take(SEEN_MAX).collect();
    seen.sort_by_key(|s| core::cmp::Reverse(s.signal));
    seen
}

fn seen_line(line: &[u8]) -> Option<Seen> {
    let mut parts = line.splitn(5, |&b| b == b'\t');
    let mut text = || core::str::from_utf8(parts.next()?).ok();
    let (bssid, frequency, signal, flags) = (text()?, text()?, text()?, text()?);
    let mut ssid = decode(parts.next()?)?;
    // A hidden network's name is nothing, or as many zeros as it has letters.
    if ssid.iter().all(|&b| b == 0) {
        ssid.clear();
    }
    Some(Seen {
        bssid: address(bssid)?,
        frequency: frequency.parse().ok()?,
        signal: signal.parse().ok()?,
        protection: Protection::of(flags),
        ssid,
    })
}

/// Resolves the escapes of `printf_encode`; `None` for what that never writes, or a name too long.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(SSID_MAX);
    let mut left = text.iter().copied();
    while let Some(byte) = left.next() {
        let byte = match byte {
            b'\\' => match left.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'e' => 0x1b,
                same @ (b'\\' | b'"') => same,
                b'x' => hex_digit(left.next()?)? << 4 | hex_digit(left.next()?)?,
                _ => return None,
            },
            plain => plain,
        };
        if bytes.len() == SSID_MAX {
            return None;
        }
        bytes.push(byte);
    }
    Some(bytes)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// The reply to `STATUS`, what of it is used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// `COMPLETED`, `SCANNING`, `INTERFACE_DISABLED` and more.
    pub state: String,
    /// The access point.
    pub bssid: Option<Bssid>,
    /// Its channel, in MHz.
    pub frequency: u32,
    /// How it knows us: `WPA2-PSK`, `SAE`, `NONE`, ...
    pub key_mgmt: String,
    /// Management frames are protected.
    pub protected: bool,
}

/// Reads the reply to `STATUS`: `key=value` lines. The first of a key counts: the network's name is escaped, but what
/// comes first cannot have been put there by it either.
pub fn status(reply: &[u8]) -> Status {
    let value = |key: &str| {
        let lines = reply.split(|&b| b == b'\n').filter_map(|l| core::str::from_utf8(l).ok());
        let mut found = lines.filter_map(|l| l.split_once('=')).filter(|(k, _)| *k == key).map(|(_, v)| v);
        found.next().unwrap_or("").chars().filter(|c| !c.is_control()).take(64).collect::<String>()
    };
    Status {
        state: value("wpa_state"),
        bssid: address(&value("bssid")),
        frequency: value("freq").parse().unwrap_or(0),
        key_mgmt: value("key_mgmt"),
        protected: matches!(value("pmf").as_str(), "1" | "2"),
    }
}

#[cfg(test)]
mod tests;
