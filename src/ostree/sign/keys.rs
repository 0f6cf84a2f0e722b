//! Which keys are trusted, which are revoked, and how many of them have to sign.

use alloc::vec::Vec;
use core::fmt;

use ed25519_compact::PublicKey;

use super::base64;

/// More keys than this are not taken.
pub const MAX_KEYS: usize = 32;
/// More revoked keys than this are not taken.
pub const MAX_REVOKED: usize = 1024;
/// The largest file of keys that is read, in bytes.
pub const KEYS_MAX: usize = 64 * 1024;
/// Bytes of a public key.
pub const KEY_SIZE: usize = 32;

/// A public key.
pub type Key = [u8; KEY_SIZE];

/// The public keys that are trusted, at least one of them not revoked, and how many of them a commit needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    trusted: Vec<Key>,
    revoked: Vec<Key>,
    threshold: usize,
}

/// Why a text is no list of keys, or lists are of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysError {
    /// It is longer than [`KEYS_MAX`].
    TooLong,
    /// There is no key in it.
    Empty,
    /// This line, counted from 1, is not the base64 of 32 bytes.
    Line(usize),
    /// The key in this line, counted from 1, is one that anybody can sign for, or no key at all (RFC 8032, 5.1.3).
    Weak(usize),
    /// There are more than [`MAX_KEYS`], or more than [`MAX_REVOKED`] that are revoked.
    TooMany,
    /// Each of the trusted keys is revoked.
    Revoked,
    /// So many different keys have to sign, and there are not as many that are trusted and not revoked.
    Threshold {
        /// How many have to sign.
        wanted: usize,
        /// How many there are.
        keys: usize,
    },
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeysError::TooLong => write!(f, "it has more than {KEYS_MAX} bytes"),
            KeysError::Empty => f.write_str("there is no key in it"),
            KeysError::Line(line) => {
                write!(f, "line {line} is no ed25519 public key (base64 of {KEY_SIZE} bytes)")
            }
            KeysError::Weak(line) => {
                write!(
                    f,
                    "line {line} is an ed25519 public key that anybody can sign for, or no point at all"
                )
            }
            KeysError::TooMany => {
                write!(f, "it has more than {MAX_KEYS} keys, or {MAX_REVOKED} revoked ones")
            }
            KeysError::Revoked => f.write_str("every trusted key is revoked"),
            KeysError::Threshold { wanted, keys } => {
                write!(f, "{wanted} keys have to sign, and {keys} are trusted and not revoked")
            }
        }
    }
}

/// Keys that come from several files, before they are taken together.
#[derive(Clone, Debug, Default)]
pub struct Gathering {
    trusted: Vec<Key>,
    revoked: Vec<Key>,
}

impl Gathering {
    /// Takes the keys of a text for trusted: one a line in base64. Blank lines are skipped, and so is white space
    /// around a key; anything else that is not a key is an error, because a key that was meant and is not used is a
    /// lock-out to come.
    ///
    /// # Errors
    /// When a line is no key or a weak one, or there is none, or there are too many.
    pub fn trust(&mut self, text: &[u8]) -> Result<(), KeysError> {
        lines(text, &mut self.trusted, MAX_KEYS, true)
    }

    /// Takes the keys of a text for revoked. An empty text is an error here too: it may be what a power cut left.
    ///
    /// # Errors
    /// When a line is no key, or there is none, or there are too many.
    pub fn revoke(&mut self, text: &[u8]) -> Result<(), KeysError> {
        lines(text, &mut self.revoked, MAX_REVOKED, false)
    }

    /// All of them together, of which a commit needs the signatures of `threshold` different ones.
    ///
    /// # Errors
    /// When there is no key that could sign, or not as many as have to.
    pub fn keys(self, threshold: usize) -> Result<Keys, KeysError> {
        let keys = Keys { trusted: self.trusted, revoked: self.revoked, threshold };
        match keys.usable().count() {
            _ if keys.trusted.is_empty() => Err(KeysError::Empty),
            0 => Err(KeysError::Revoked),
            count if threshold == 0 || count < threshold => {
                Err(KeysError::Threshold { wanted: threshold, keys: count })
            }
            _ => Ok(keys),
        }
    }
}

fn lines(text: &[u8], to: &mut Vec<Key>, max: usize, strong: bool) -> Result<(), KeysError> {
    if text.len() > KEYS_MAX {
        return Err(KeysError::TooLong);
    }
    let before = to.len();
    for (index, line) in text.split(|&b| b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if to.len() == max {
            return Err(KeysError::TooMany);
        }
        let key = base64::decode(line).ok_or(KeysError::Line(index + 1))?;
        if strong && PublicKey::new(key).validate().is_err() {
            return Err(KeysError::Weak(index + 1));
        }
        to.push(key);
    }
    if to.len() == before { Err(KeysError::Empty) } else { Ok(()) }
}

impl Keys {
    /// Reads trusted keys, of which one has to sign, as [`Gathering::trust`] does.
    ///
    /// # Errors
    /// As there.
    pub fn parse(text: &[u8]) -> Result<Self, KeysError> {
        let mut gathering = Gathering::default();
        gathering.trust(text)?;
        gathering.keys(1)
    }

    /// How many are trusted, those that are revoked or there twice included.
    pub fn count(&self) -> usize {
        self.trusted.len()
    }

    /// How many different ones have to sign.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The keys that count, each once, with their place among the trusted ones.
    pub(super) fn usable(&self) -> impl Iterator<Item = (usize, &Key)> {
        let first =
            |(index, key): &(usize, &Key)| self.trusted.iter().position(|k| k == *key) == Some(*index);
        self.trusted.iter().enumerate().filter(first).filter(|(_, key)| !self.revoked.contains(key))
    }

    /// The keys that are trusted and revoked at once, with their place among the trusted ones.
    pub(super) fn unusable(&self) -> impl Iterator<Item = (usize, &Key)> {
        self.trusted.iter().enumerate().filter(|(_, key)| self.revoked.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    /// The public key of RFC 8032, section 7.1, TEST 1, and the base64 that openssl makes of it.
    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn keys_are_one_a_line() {
        let key = Keys::parse(KEY.as_bytes()).unwrap();
        assert_eq!(key.trusted[0][..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(key.trusted[0][28..], [0xf7, 0x07, 0x51, 0x1a]);
        assert_eq!(base64::encode(&key.trusted[0]), KEY);
        assert_eq!(Keys::parse(format!("\n  {KEY} \r\n\n{KEY}\n").as_bytes()).unwrap().count(), 2);
        for n in 0..=64u8 {
            let bytes = [n.wrapping_mul(37); 64];
            let text = base64::encode(&bytes[..usize::from(n)]);
            assert_eq!(text.len(), usize::from(n).div_ceil(3) * 4);
        }
        assert_eq!(base64::decode(base64::encode(&[0xa5; 64]).as_bytes()), Some([0xa5; 64]));
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        let last = |c: char| KEY.replace("Ro=", &format!("R{c}="));
        let bad: [String; 10] = [
            KEY[1..].into(),
            KEY[..43].into(),
            format!("{KEY}="),
            format!("A{KEY}"),
            KEY.replace('/', "_"),
            KEY.replace('/', " "),
            format!("# {KEY}"),
            format!("{KEY} {KEY}"),
            // Two bits more than a key has.
            last('p'),
            last('r'),
        ];
        for text in &bad {
            assert_eq!(Keys::parse(format!("{KEY}\n\n{text}").as_bytes()), Err(KeysError::Line(3)), "{text}");
        }
        for text in ["", "\n\n", " \t\r\n"] {
            assert_eq!(Keys::parse(text.as_bytes()), Err(KeysError::Empty));
        }
        assert_eq!(Keys::parse(&[b'\n'; KEYS_MAX + 1]), Err(KeysError::TooLong));
        let many = format!("{KEY}\n").repeat(MAX_KEYS);
        assert_eq!(Keys::parse(many.as_bytes()).unwrap().count(), MAX_KEYS);
        assert_eq!(Keys::parse(format!("{many}{KEY}").as_bytes()), Err(KeysError::TooMany));
    }

    #[test]
    fn revoked_keys_and_thresholds() {
        let other = base64::encode(&generator());
        let gather = |trusted: &str, revoked: &str, threshold| {
            let mut all = Gathering::default();
            all.trust(trusted.as_bytes())?;
            if !revoked.is_empty() {
                all.revoke(revoked.as_bytes())?;
            }
            all.keys(threshold).map(|keys| keys.usable().map(|(index, _)| index).collect::<Vec<_>>())
        };
        let both = format!("{KEY}\n{KEY}\n{other}");
        assert_eq!(gather(&both, "", 2), Ok(alloc::vec![0, 2]));
        assert_eq!(gather(&both, KEY, 1), Ok(alloc::vec![2]));
        assert_eq!(gather(&both, KEY, 2), Err(KeysError::Threshold { wanted: 2, keys: 1 }));
        assert_eq!(gather(&both, "", 3), Err(KeysError::Threshold { wanted: 3, keys: 2 }));
        assert_eq!(gather(&both, "", 0), Err(KeysError::Threshold { wanted: 0, keys: 2 }));
        assert_eq!(gather(KEY, KEY, 1), Err(KeysError::Revoked));
        assert_eq!(gather(KEY, "\n", 1), Err(KeysError::Empty));
        assert_eq!(Gathering::default().keys(1), Err(KeysError::Empty));
        let many = format!("{KEY}\n").repeat(MAX_REVOKED + 1);
        assert_eq!(gather(KEY, &many, 1), Err(KeysError::TooMany));
    }

    /// A point that is not weak: the base point of the curve.
    fn generator() -> Key {
        let mut key = [0x66; KEY_SIZE];
        key[0] = 0x58;
        key
    }
}
