//! Ed25519 signatures of commits, as libostree's sign-ed25519 makes them: over the bytes of the commit object, kept
//! in its detached metadata as `ostree.sign.ed25519` of type `aay` (src/libostree/ostree-sign-ed25519.c).

use alloc::vec::Vec;
use core::fmt;

use ed25519_compact::{PublicKey, Signature};

use super::commit::{Commit, CommitError};
use super::object::COMMITMETA_MAX;
use super::variant;

/// More keys than this are not taken.
pub const MAX_KEYS: usize = 32;
/// More signatures than this on one commit are not looked at.
pub const MAX_SIGNATURES: usize = 32;
/// The largest file of keys that is read, in bytes.
pub const KEYS_MAX: usize = 64 * 1024;

/// Where the signatures are in the detached metadata.
const SIGNATURES: &str = "ostree.sign.ed25519";
/// Bytes of a public key.
const KEY_SIZE: usize = 32;

/// The public keys that are trusted: at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys(Vec<[u8; KEY_SIZE]>);

/// Why a text is no list of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysError {
    /// It is longer than [`KEYS_MAX`].
    TooLong,
    /// There is no key in it.
    Empty,
    /// This line, counted from 1, is not the base64 of 32 bytes.
    Line(usize),
    /// There are more than [`MAX_KEYS`].
    TooMany,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeysError::TooLong => write!(f, "it has more than {KEYS_MAX} bytes"),
            KeysError::Empty => f.write_str("there is no key in it"),
            KeysError::Line(line) => {
                write!(f, "line {line} is no ed25519 public key (base64 of {KEY_SIZE} bytes)")
            }
            KeysError::TooMany => write!(f, "it has more than {MAX_KEYS} keys"),
        }
    }
}

/// A commit that a trusted key has signed. Only [`Keys::verify`] makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedCommit {
    commit: Commit,
    key: usize,
}

impl VerifiedCommit {
    /// The commit.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The commit, for keeping.
    pub fn into_commit(self) -> Commit {
        self.commit
    }

    /// Which of the keys signed it, counted from 0 in the order of their file.
    pub fn key(&self) -> usize {
        self.key
    }
}

/// Why a commit is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignError {
    /// What is signed would be no commit.
    Commit(CommitError),
    /// It has no detached metadata.
    NoMetadata,
    /// The detached metadata is more than [`COMMITMETA_MAX`].
    MetadataTooLong(usize),
    /// The detached metadata is not an `a{sv}` in normal form.
    MetadataForm,
    /// The detached metadata has no ed25519 signatures.
    NoSignatures,
    /// Its list of ed25519 signatures is empty.
    Empty,
    /// It has more than [`MAX_SIGNATURES`].
    TooMany(usize),
    /// No trusted key has made any of them. `malformed` of the `signatures` are not signatures at all.
    NoneValid {
        /// How many there are.
        signatures: usize,
        /// How many of them do not have the 64 bytes of a signature.
        malformed: usize,
        /// How many keys were tried.
        keys: usize,
    },
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::Commit(error) => error.fmt(f),
            SignError::NoMetadata => f.write_str("its commit is not signed: it has no detached metadata"),
            SignError::MetadataTooLong(size) => {
                write!(f, "its detached metadata has {size} bytes, at most {COMMITMETA_MAX} are read")
            }
            SignError::MetadataForm => {
                f.write_str("its detached metadata is damaged: not a GVariant in normal form")
            }
            SignError::NoSignatures => f.write_str("its commit has no ed25519 signature"),
            SignError::Empty => f.write_str("its commit has an empty list of ed25519 signatures"),
            SignError::TooMany(count) => {
                write!(f, "its commit has {count} signatures, at most {MAX_SIGNATURES} are looked at")
            }
            SignError::NoneValid { signatures, malformed, keys } => {
                write!(f, "none of {signatures} signatures ({malformed} malformed) is of {keys} trusted keys")
            }
        }
    }
}

impl Keys {
    /// Reads keys, one a line in base64. Blank lines are skipped, and so is white space around a key; anything else
    /// that is not a key is an error, because a key that was meant and is not used is a lock-out to come.
    ///
    /// # Errors
    /// When a line is no key, or there is none, or there are too many.
    pub fn parse(text: &[u8]) -> Result<Self, KeysError> {
        if text.len() > KEYS_MAX {
            return Err(KeysError::TooLong);
        }
        let mut keys = Vec::new();
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if keys.len() == MAX_KEYS {
                return Err(KeysError::TooMany);
            }
            keys.push(decode(line).ok_or(KeysError::Line(index + 1))?);
        }
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Keys(keys)) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Believes a commit if any of its signatures is of any of these keys.
    ///
    /// `commit` are the bytes of the commit object, `metadata` those of its detached metadata, if it has any. Whether
    /// it is the commit that was asked for, its checksum tells.
    ///
    /// # Errors
    /// When it is not to be believed.
    pub fn verify(&self, commit: Vec<u8>, metadata: Option<&[u8]>) -> Result<VerifiedCommit, SignError> {
        let commit = Commit::parse(commit).map_err(SignError::Commit)?;
        let metadata = metadata.ok_or(SignError::NoMetadata)?;
        if metadata.len() > COMMITMETA_MAX {
            return Err(SignError::MetadataTooLong(metadata.len()));
        }
        if !variant::is_dictionary(metadata) {
            return Err(SignError::MetadataForm);
        }
        let list = variant::lookup(metadata, SIGNATURES, "aay").ok_or(SignError::NoSignatures)?;
        let list = variant::array(list, 1).ok_or(SignError::MetadataForm)?;
        let signatures = list.remaining();
        if signatures == 0 {
            return Err(SignError::Empty);
        }
        if signatures > MAX_SIGNATURES {
            return Err(SignError::TooMany(signatures));
        }
        let mut malformed = 0;
        for signature in list {
            let signature = signature.ok_or(SignError::MetadataForm)?;
            let Ok(signature) = Signature::from_slice(signature) else {
                malformed += 1;
                continue;
            };
            let signed =
                |key: &[u8; KEY_SIZE]| PublicKey::new(*key).verify(commit.bytes(), &signature).is_ok();
            if let Some(key) = self.0.iter().position(signed) {
                return Ok(VerifiedCommit { commit, key });
            }
        }
        Err(SignError::NoneValid { signatures, malformed, keys: self.count() })
    }
}

/// The base64 (RFC 4648, padded) of exactly a key: 43 digits, of which the last holds four bits, and `=`.
fn decode(text: &[u8]) -> Option<[u8; KEY_SIZE]> {
    let digits = text.strip_suffix(b"=").filter(|digits| digits.len() == 43)?;
    let mut key = [0; KEY_SIZE];
    let mut bytes = key.iter_mut();
    let (mut bits, mut held) = (0u32, 0);
    for &digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 & 0xffff | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            *bytes.next()? = u8::try_from(bits >> held & 0xff).ok()?;
        }
    }
    // What is left over belongs to no byte and must be zero, or one key would have several spellings.
    (bits & ((1 << held) - 1) == 0).then_some(key)
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
        assert_eq!(key.0[0][..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(key.0[0][28..], [0xf7, 0x07, 0x51, 0x1a]);
        assert_eq!(Keys::parse(format!("\n  {KEY} \r\n\n{KEY}\n").as_bytes()).unwrap().count(), 2);
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
}
