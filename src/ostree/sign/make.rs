//! The publisher's side: a secret key, and a signature put into a commit's detached metadata.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ed25519_compact::{KeyPair, PublicKey, SecretKey, Seed, Signature};

use super::super::commit::{Commit, CommitError};
use super::super::object::COMMITMETA_MAX;
use super::super::{emit, variant};
use super::{KEY_SIZE, MAX_SIGNATURES, SIGNATURES, base64};

/// Bytes of a secret key: its seed, and the public key once more.
const SECRET_SIZE: usize = 64;
/// The largest file of a secret key that is read, in bytes.
pub const SECRET_MAX: usize = 4096;

/// A secret key; its bytes are wiped when it goes.
pub struct Secret(SecretKey);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret key of {}", self.public())
    }
}

/// Why nothing was signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MakeError {
    /// The key is not the base64 of 64 bytes, on one line.
    Secret,
    /// The two halves of the key do not belong together: it is damaged, and would give itself away.
    Halves,
    /// What is to be signed is no commit.
    Commit(CommitError),
    /// The detached metadata is not an `a{sv}` in normal form.
    Metadata,
    /// The signatures in the detached metadata are no `aay` in normal form.
    Signatures,
    /// It has [`MAX_SIGNATURES`] already; a device looks at no more.
    TooMany,
    /// The detached metadata would have this many bytes; a device reads no more than [`COMMITMETA_MAX`].
    TooLong(usize),
    /// The signature that was made does not verify; the machine is not to be relied on.
    SelfCheck,
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MakeError::Secret => f.write_str("it is no ed25519 secret key (one line, base64 of 64 bytes)"),
            MakeError::Halves => f.write_str("it is damaged: its two halves do not belong together"),
            MakeError::Commit(error) => error.fmt(f),
            MakeError::Metadata => f.write_str("its detached metadata is no GVariant in normal form"),
            MakeError::Signatures => {
                write!(f, "{SIGNATURES} in its detached metadata is no list of signatures")
            }
            MakeError::TooMany => {
                write!(f, "it has {MAX_SIGNATURES} signatures already, devices look at no more")
            }
            MakeError::TooLong(size) => {
                write!(
                    f,
                    "its detached metadata would have {size} bytes, devices read at most {COMMITMETA_MAX}"
                )
            }
            MakeError::SelfCheck => {
                f.write_str("the signature that was made does not verify; this machine cannot be relied on")
            }
        }
    }
}

impl Secret {
    /// Makes one of 32 random bytes. `None` for bytes that are all zero, which no source of randomness gives.
    pub fn new(random: [u8; 32]) -> Option<Self> {
        KeyPair::try_from_seed(Seed::new(random)).ok().map(|pair| Secret(pair.sk))
    }

    /// Reads one as `ostree sign` takes it: the base64 of the seed and the public key. White space around it is skipped.
    ///
    /// # Errors
    /// When it is none, or damaged.
    pub fn parse(text: &[u8]) -> Result<Self, MakeError> {
        let bytes = base64::decode::<SECRET_SIZE>(text.trim_ascii()).ok_or(MakeError::Secret)?;
        let secret = SecretKey::new(bytes);
        // A wrong public half makes signatures from which the secret can be computed.
        secret.validate_public_key(&secret.public_key()).map_err(|_| MakeError::Halves)?;
        Ok(Secret(secret))
    }

    /// As [`Secret::parse`] reads it.
    pub fn text(&self) -> String {
        base64::encode(&*self.0)
    }

    /// The public key, in base64 as devices have it.
    pub fn public(&self) -> String {
        base64::encode(&self.key())
    }

    fn key(&self) -> [u8; KEY_SIZE] {
        *self.0.public_key()
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// The detached metadata with the signature; `None` where the key has signed the commit before.
    pub metadata: Option<Vec<u8>>,
    /// How many signatures there are now.
    pub signatures: usize,
}

/// Puts a signature of a commit into its detached metadata, behind those that are there; everything else in there stays
/// byte for byte, in its order.
///
/// # Errors
/// See [`MakeError`].
pub fn sign(secret: &Secret, commit: &[u8], metadata: Option<&[u8]>) -> Result<Signed, MakeError> {
    let commit = Commit::parse(commit.to_vec()).map_err(MakeError::Commit)?;
    let entries = variant::entries(metadata.unwrap_or_default()).ok_or(MakeError::Metadata)?;
    let mut signatures: Vec<&[u8]> = match variant::find(metadata.unwrap_or_default(), SIGNATURES) {
        None => Vec::new(),
        Some((list, b"aay")) => variant::array(list, 1)
            .and_then(|list| list.collect::<Option<Vec<_>>>())
            .ok_or(MakeError::Signatures)?,
        Some(_) => return Err(MakeError::Signatures),
    };
    let public = PublicKey::new(secret.key());
    let ours = |bytes: &&[u8]| {
        Signature::from_slice(bytes).is_ok_and(|signature| public.verify(commit.bytes(), &signature).is_ok())
    };
    if signatures.iter().any(ours) {
        return Ok(Signed { metadata: None, signatures: signatures.len() });
    }
    if signatures.len() >= MAX_SIGNATURES {
        return Err(MakeError::TooMany);
    }
    let signature = secret.0.sign(commit.bytes(), None);
    if !ours(&&signature[..]) {
        return Err(MakeError::SelfCheck);
    }
    signatures.push(&signature[..]);
    let list = emit::variant("aay", &emit::array(1, &signatures));
    let is_there = entries.iter().position(|(key, _)| *key == SIGNATURES);
    let mut all = entries;
    match is_there.and_then(|at| all.get_mut(at)) {
        Some(entry) => entry.1 = &list,
        None => all.push((SIGNATURES, &list)),
    }
    let metadata = emit::dictionary(all);
    if metadata.len() > COMMITMETA_MAX {
        return Err(MakeError::TooLong(metadata.len()));
    }
    Ok(Signed { metadata: Some(metadata), signatures: signatures.len() })
}
