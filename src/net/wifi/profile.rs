//! A network that may be joined, and its secret. Ring: alloc.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The longest name of a network, in bytes (IEEE 802.11, 9.4.2.2).
pub const SSID_MAX: usize = 32;
/// A WPA2 passphrase is this long, in bytes (IEEE 802.11, J.4.1).
pub const PASSPHRASE: core::ops::RangeInclusive<usize> = 8..=63;
/// The longest password of a WPA3 network, in bytes; wpa_supplicant takes more, its control socket does not.
pub const PASSWORD_MAX: usize = 128;
/// More fields than this are not taken from the block of an enterprise network.
pub const FIELDS_MAX: usize = 48;

/// Bytes that nobody may see: overwritten when they are let go of, and not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes bytes; a `Vec` with room to spare would leave copies behind where it was.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Secret(bytes.into())
    }

    /// An empty one with room, so that what is added never moves.
    pub fn with_capacity(bytes: usize) -> Self {
        Secret(Vec::with_capacity(bytes))
    }

    /// What it is.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, where it is.
    pub fn text(&self) -> Option<&str> {
        core::str::from_utf8(&self.0).ok()
    }

    /// Adds bytes, in a place large enough before the first of them is there.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity((self.0.len() + bytes.len()) * 2);
            larger.extend_from_slice(&self.0);
            wipe(core::mem::replace(&mut self.0, larger));
        }
        self.0.extend_from_slice(bytes);
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(core::mem::take(&mut self.0));
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Overwrites what a buffer holds before it goes back to the allocator.
pub fn wipe(mut bytes: Vec<u8>) {
    bytes.fill(0);
    // The compiler must take the zeros for used.
    core::hint::black_box(&bytes);
}

/// How a network knows us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// A passphrase, for WPA2, WPA3 or both: whatever the access point has.
    Passphrase(Secret),
    /// A passphrase, for WPA2 alone.
    Wpa2(Secret),
    /// A password, for WPA3 (SAE) alone: an access point that has only WPA2 is not the one that is meant.
    Wpa3(Secret),
    /// What a WPA2 passphrase and the network's name make together: 64 hexadecimal digits.
    Psk(Secret),
    /// No key at all. Only where the configuration says so.
    Open,
    /// A whole block of wpa_supplicant's own, passed on as it is: fields and their values.
    Enterprise(Vec<(String, Secret)>),
}

/// Where a profile comes from, in the order in which they are tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// Typed at the console just now.
    Operator,
    /// It worked in an earlier recovery.
    LastGood,
    /// The configuration in the initramfs.
    Config,
    /// The boot partition.
    Boot,
    /// Handed over by the running system.
    Escrow,
    /// The factory's own, for when nothing else is in reach.
    Factory,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Operator => "typed at the console",
            Origin::LastGood => "worked last",
            Origin::Config => "configuration",
            Origin::Boot => "boot partition",
            Origin::Escrow => "handed over by the system",
            Origin::Factory => "factory",
        })
    }
}

/// A network that may be joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name on the air, 1 to [`SSID_MAX`] bytes of any kind.
    pub ssid: Vec<u8>,
    /// How it knows us.
    pub key: Key,
    /// It does not tell its name by itself.
    pub hidden: bool,
    /// Of one origin, the higher ones are tried first.
    pub priority: i32,
    /// Where it comes from.
    pub origin: Origin,
}

/// Why there is no such profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// The name is empty or longer than [`SSID_MAX`] bytes.
    Ssid,
    /// Not 8 to 63 characters, or one that cannot be typed.
    Passphrase,
    /// Empty, longer than [`PASSWORD_MAX`] bytes, or with a control character.
    Password,
    /// Not 64 hexadecimal digits.
    Psk,
    /// More than [`FIELDS_MAX`] fields.
    Fields,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Ssid => "the network's name must have 1 to 32 bytes",
            Unfit::Passphrase => "a passphrase has 8 to 63 characters from space to ~",
            Unfit::Password => "a WPA3 password has 1 to 128 bytes without control characters",
            Unfit::Psk => "a PSK has 64 hexadecimal digits",
            Unfit::Fields => "more than 48 fields in one network block",
        })
    }
}

impl Profile {
    /// A network and its key.
    ///
    /// # Errors
    /// When no access point could have such a name or key.
    pub fn new(ssid: impl Into<Vec<u8>>, key: Key, origin: Origin) -> Result<Self, Unfit> {
        let ssid = ssid.into();
        if ssid.is_empty() || ssid.len() > SSID_MAX {
            return Err(Unfit::Ssid);
        }
        key.check()?;
        Ok(Profile { ssid, key, hidden: false, priority: 0, origin })
    }

    /// What a person typed or configured: a secret of 64 hexadecimal digits is a PSK, none is an open network, and a
    /// passphrase that is none for WPA2 is a password for WPA3.
    ///
    /// # Errors
    /// As [`Profile::new`].
    pub fn typed(ssid: impl Into<Vec<u8>>, secret: Secret, origin: Origin) -> Result<Self, Unfit> {
        let key = match secret.bytes() {
            [] => Key::Open,
            digits if is_psk(digits) => Key::Psk(secret),
            text if is_passphrase(text) => Key::Passphrase(secret),
            _ => Key::Wpa3(secret),
        };
        Profile::new(ssid, key, origin)
    }

    /// Its name, as it may be shown on any terminal.
    pub fn name(&self) -> String {
        shown(&self.ssid)
    }
}

impl Key {
    fn check(&self) -> Result<(), Unfit> {
        let sound = match self {
            Key::Passphrase(secret) | Key::Wpa2(secret) => is_passphrase(secret.bytes()),
            Key::Psk(secret) => is_psk(secret.bytes()),
            Key::Wpa3(secret) => is_password(secret.bytes()),
            Key::Enterprise(fields) => fields.len() <= FIELDS_MAX,
            Key::Open => true,
        };
        match self {
            _ if sound => Ok(()),
            Key::Passphrase(_) | Key::Wpa2(_) => Err(Unfit::Passphrase),
            Key::Psk(_) => Err(Unfit::Psk),
            Key::Wpa3(_) | Key::Open => Err(Unfit::Password),
            Key::Enterprise(_) => Err(Unfit::Fields),
        }
    }

    /// What kind it is, in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Key::Passphrase(_) => "WPA2/WPA3",
            Key::Wpa2(_) | Key::Psk(_) => "WPA2",
            Key::Wpa3(_) => "WPA3",
            Key::Open => "open",
            Key::Enterprise(_) => "enterprise",
        }
    }
}

fn is_passphrase(bytes: &[u8]) -> bool {
    PASSPHRASE.contains(&bytes.len()) && bytes.iter().all(|b| (b' '..=b'~').contains(b))
}

fn is_password(bytes: &[u8]) -> bool {
    (1..=PASSWORD_MAX).contains(&bytes.len()) && !bytes.iter().any(u8::is_ascii_control)
}

fn is_psk(bytes: &[u8]) -> bool {
    bytes.len() == 64 && bytes.iter().all(u8::is_ascii_hexdigit)
}

/// A network's name without anything that drives a terminal: what is not text, or no printable character, becomes `?`.
pub fn shown(ssid: &[u8]) -> String {
    let text = String::from_utf8_lossy(ssid);
    text.chars().map(|c| if c.is_control() || c == '\u{fffd}' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn a_secret_is_never_shown() {
        let profile = Profile::typed("Home", Secret::new("correct horse"), Origin::Operator).unwrap();
        let shown = format!("{profile:?}");
        assert!(!shown.contains("correct") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn what_was_typed_is_the_key_it_looks_like() {
        let typed =
            |secret: &str| Profile::typed("n", Secret::new(secret), Origin::Operator).map(|p| p.key.kind());
        assert_eq!(typed(""), Ok("open"));
        assert_eq!(typed("12345678"), Ok("WPA2/WPA3"));
        assert_eq!(typed("short"), Ok("WPA3"));
        assert_eq!(typed("ein langes Wort mit ä"), Ok("WPA3"));
        assert_eq!(typed(&"0aF9".repeat(16)), Ok("WPA2"));
        assert_eq!(typed(&"x".repeat(129)), Err(Unfit::Password));
        assert_eq!(typed("with\nline"), Err(Unfit::Password));
    }

    #[test]
    fn limits_hold() {
        let of = |ssid: &[u8], key| Profile::new(ssid, key, Origin::Config).map(|_| ());
        assert_eq!(of(b"", Key::Open), Err(Unfit::Ssid));
        assert_eq!(of(&[0; 33], Key::Open), Err(Unfit::Ssid));
        assert_eq!(of(&[0xff; 32], Key::Open), Ok(()));
        assert_eq!(of(b"n", Key::Wpa2(Secret::new("1234567"))), Err(Unfit::Passphrase));
        assert_eq!(of(b"n", Key::Psk(Secret::new("g".repeat(64)))), Err(Unfit::Psk));
        let fields = (0..49).map(|n| (n.to_string(), Secret::default())).collect();
        assert_eq!(of(b"n", Key::Enterprise(fields)), Err(Unfit::Fields));
    }

    #[test]
    fn names_cannot_drive_a_terminal() {
        assert_eq!(shown(b"caf\xc3\xa9 \x1b[2J\xff"), "café ?[2J?");
    }

    #[test]
    fn a_secret_grows_without_leaving_its_bytes() {
        let mut secret = Secret::with_capacity(2);
        secret.push(b"ab");
        secret.push(b"cdefgh");
        assert_eq!(secret.text(), Some("abcdefgh"));
    }
}
