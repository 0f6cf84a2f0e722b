//! Ed25519 signatures of commits, as libostree's sign-ed25519 makes them: over the bytes of the commit object, kept
//! in its detached metadata as `ostree.sign.ed25519` of type `aay` (src/libostree/ostree-sign-ed25519.c). Those of OpenPGP
//! are in `gpg`, where they are built in.
//!
//! What is checked is strict: a key that is no canonical point, or one of small order, is no key; a signature has 64
//! bytes, a canonical scalar and a canonical `R` that is not of small order (RFC 8032, 5.1.7). The equation is the one
//! with the cofactor: whoever holds the secret key can make signatures that satisfy it and not the other one, nobody
//! else can.

pub mod base64;
#[cfg(all(feature = "gpg", not(target_os = "none")))]
pub mod gpg;
mod keys;
#[cfg(feature = "publish")]
pub mod make;

use alloc::vec::Vec;
use core::fmt;

use ed25519_compact::{PublicKey, Signature};

use super::commit::{Commit, CommitError};
use super::object::COMMITMETA_MAX;
use super::variant;

pub use keys::{Gathering, KEY_SIZE, KEYS_MAX, Key, Keys, KeysError, MAX_KEYS, MAX_REVOKED};

/// More signatures than this on one commit are not looked at.
pub const MAX_SIGNATURES: usize = 32;

/// Where the signatures are in the detached metadata.
pub const SIGNATURES: &str = "ostree.sign.ed25519";

/// A commit that as many trusted keys have signed as have to. Only verification makes one:
/// [`Keys::verify`], and where it is built in that of OpenPGP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedCommit {
    commit: Commit,
    signers: Vec<usize>,
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

    /// The first of the keys that signed it, counted from 0 in the order in which they were read.
    pub fn key(&self) -> usize {
        self.signers.first().copied().unwrap_or_default()
    }

    /// The keys that signed it, as many as had to.
    pub fn signers(&self) -> &[usize] {
        &self.signers
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
    /// Nobody but a revoked key has signed it; it is this one of the trusted ones, counted from 0.
    Revoked(usize),
    /// Its OpenPGP signatures do not make it one to be believed.
    #[cfg(all(feature = "gpg", not(target_os = "none")))]
    Gpg(gpg::GpgError),
    /// Fewer different keys have signed it than have to.
    Threshold {
        /// How many did.
        valid: usize,
        /// How many have to.
        wanted: usize,
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
            SignError::Revoked(key) => write!(f, "its commit is signed by key {}, which is revoked", key + 1),
            #[cfg(all(feature = "gpg", not(target_os = "none")))]
            SignError::Gpg(error) => error.fmt(f),
            SignError::Threshold { valid, wanted } => {
                write!(f, "its commit is signed by {valid} of the {wanted} trusted keys that have to sign it")
            }
        }
    }
}

impl Keys {
    /// Believes a commit if as many of these keys as have to have signed it. A key counts once, however often it is
    /// among the trusted ones and however often it signed; one that is revoked does not count.
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
        let list = list.collect::<Option<Vec<_>>>().ok_or(SignError::MetadataForm)?;
        let whole: Vec<Signature> =
            list.iter().filter_map(|bytes| Signature::from_slice(bytes).ok()).collect();
        let signed = |(_, key): &(usize, &Key)| {
            let key = PublicKey::new(**key);
            whole.iter().any(|signature| key.verify(commit.bytes(), signature).is_ok())
        };
        let wanted = self.threshold();
        let signers: Vec<usize> = self.usable().filter(signed).map(|(index, _)| index).take(wanted).collect();
        let valid = signers.len();
        if valid == wanted {
            return Ok(VerifiedCommit { commit, signers });
        }
        if valid > 0 {
            return Err(SignError::Threshold { valid, wanted });
        }
        if let Some((key, _)) = self.unusable().find(signed) {
            return Err(SignError::Revoked(key));
        }
        let malformed = signatures - whole.len();
        Err(SignError::NoneValid { signatures, malformed, keys: self.count() })
    }
}
