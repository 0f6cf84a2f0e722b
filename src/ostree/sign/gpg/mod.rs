//! OpenPGP signatures of commits, as `ostree commit --gpg-sign` makes them: detached ones over the bytes of the commit
//! object, in its detached metadata as `ostree.gpgsigs` of type `aay` (src/libostree/ostree-repo.c, ostree-gpg-verifier.c).
//!
//! The packets are read, and the mathematics done, by rpgp. What it leaves to its user is here and in `ring`: which keys
//! of a certificate may sign, whether they are bound to it, revoked, expired or too weak (RFC 9580, 5.2 and 10.1).
//!
//! Other than gpg, which libostree asks: SHA-1, DSA and RSA below 2048 bits count for nothing, nor does a signature that is
//! not one over binary data. A device without a clock takes the time of the signature for now: it is not before that.

mod ring;

use alloc::vec::Vec;
use core::fmt;

use pgp::composed::{Deserializable, DetachedSignature};
use pgp::packet::{Signature, SignatureType};

use super::super::commit::Commit;
use super::super::object::COMMITMETA_MAX;
use super::super::variant;
use super::{MAX_SIGNATURES, SignError, VerifiedCommit};

pub use ring::{MAX_CERTIFICATES, RING_MAX, Ring, RingError, is_ring};

/// Where the signatures are in the detached metadata.
pub const SIGNATURES: &str = "ostree.gpgsigs";
/// The longest entry of the list that is looked at, in bytes.
const ENTRY_MAX: usize = 16 * 1024;

/// Why a signature counts for nothing; the later ones tell more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// It is no signature over binary data.
    Malformed,
    /// It has something that it says must be understood, and is not.
    Critical,
    /// None of the trusted keys made it.
    Stranger,
    /// The key, or the hash of the signature, is too weak.
    Weak,
    /// The key is not meant for signing, or not bound to its certificate.
    Purpose,
    /// The signature has expired.
    SignatureExpired,
    /// The key has expired, or had not begun.
    KeyExpired,
    /// The key, or its certificate, is revoked.
    Revoked,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Malformed => "it is no OpenPGP signature of a file",
            Fault::Critical => "it has a critical part that is not understood",
            Fault::Stranger => "it is not of a trusted key",
            Fault::Weak => "its key or hash is too weak (SHA-1, DSA, RSA below 2048 bits)",
            Fault::Purpose => "its key is not one for signing",
            Fault::SignatureExpired => "it has expired",
            Fault::KeyExpired => "its key has expired",
            Fault::Revoked => "its key is revoked",
        })
    }
}

/// Why a commit is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GpgError {
    /// The detached metadata has no OpenPGP signatures.
    NoSignatures,
    /// Its list of OpenPGP signatures is empty.
    Empty,
    /// No trusted key has made a signature that counts.
    NoneValid {
        /// How many there are.
        signatures: usize,
        /// What ails the one that came nearest.
        fault: Fault,
    },
}

impl fmt::Display for GpgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpgError::NoSignatures => f.write_str("its commit has no OpenPGP signature"),
            GpgError::Empty => f.write_str("its commit has an empty list of OpenPGP signatures"),
            GpgError::NoneValid { signatures: 1, fault } => {
                write!(f, "its commit has an OpenPGP signature that does not count: {fault}")
            }
            GpgError::NoneValid { signatures, fault } => {
                write!(f, "none of its commit's {signatures} OpenPGP signatures counts; of one: {fault}")
            }
        }
    }
}

impl Ring {
    /// Believes a commit if as many of the certificates as have to have signed it: each counts once. `now` is the time
    /// in seconds since 1970 where it is known. The rest is as [`Keys::verify`](super::Keys::verify) has it.
    ///
    /// # Errors
    /// When it is not to be believed.
    pub fn verify(
        &self,
        commit: Vec<u8>,
        metadata: Option<&[u8]>,
        now: Option<u64>,
    ) -> Result<VerifiedCommit, SignError> {
        let commit = Commit::parse(commit).map_err(SignError::Commit)?;
        let metadata = metadata.ok_or(SignError::NoMetadata)?;
        if metadata.len() > COMMITMETA_MAX {
            return Err(SignError::MetadataTooLong(metadata.len()));
        }
        if !variant::is_dictionary(metadata) {
            return Err(SignError::MetadataForm);
        }
        let list = variant::lookup(metadata, SIGNATURES, "aay");
        let list = list.ok_or(SignError::Gpg(GpgError::NoSignatures))?;
        let list = variant::array(list, 1).ok_or(SignError::MetadataForm)?;
        if list.remaining() == 0 {
            return Err(SignError::Gpg(GpgError::Empty));
        }
        if list.remaining() > MAX_SIGNATURES {
            return Err(SignError::TooMany(list.remaining()));
        }
        let mut signatures = 0;
        let mut fault = Fault::Malformed;
        let mut signers = Vec::new();
        for entry in list {
            let entry = entry.ok_or(SignError::MetadataForm)?;
            // One entry has as many signatures as there were keys to sign with.
            for signature in read(entry) {
                signatures += 1;
                if signatures > MAX_SIGNATURES {
                    return Err(SignError::TooMany(signatures));
                }
                match signature.and_then(|signature| self.signer(&signature, commit.bytes(), now)) {
                    Ok(signer) if !signers.contains(&signer) => signers.push(signer),
                    Ok(_) => {}
                    Err(why) => fault = fault.max(why),
                }
            }
        }
        let (valid, wanted) = (signers.len(), self.threshold());
        if valid >= wanted {
            signers.truncate(wanted);
            return Ok(VerifiedCommit { commit, signers });
        }
        Err(match valid {
            0 => SignError::Gpg(GpgError::NoneValid { signatures, fault }),
            _ => SignError::Threshold { valid, wanted },
        })
    }

    /// The certificate that made a signature, by its place in the ring.
    fn signer(&self, signature: &Signature, data: &[u8], now: Option<u64>) -> Result<usize, Fault> {
        ring::acceptable(signature)?;
        if signature.typ() != Some(SignatureType::Binary) {
            return Err(Fault::Malformed);
        }
        let made = signature.created().ok_or(Fault::Malformed)?.as_secs();
        let now = now.unwrap_or_default().max(u64::from(made));
        let mut fault = Fault::Stranger;
        for (index, certificate) in self.certificates().iter().enumerate() {
            match ring::signed(certificate, signature, data, now) {
                Ok(()) => return Ok(index),
                Err(why) => fault = fault.max(why),
            }
        }
        Err(fault)
    }
}

/// The signatures of one entry; something else in it is an error, once.
fn read(entry: &[u8]) -> Vec<Result<Signature, Fault>> {
    if entry.is_empty() || entry.len() > ENTRY_MAX {
        return alloc::vec![Err(Fault::Malformed)];
    }
    let Ok(found) = DetachedSignature::from_bytes_many(entry) else {
        return alloc::vec![Err(Fault::Malformed)];
    };
    let mut all = Vec::new();
    for one in found.take(MAX_SIGNATURES + 1) {
        let good = one.is_ok();
        all.push(one.map(|one| one.signature).map_err(|_| Fault::Malformed));
        if !good {
            break;
        }
    }
    if all.is_empty() {
        all.push(Err(Fault::Malformed));
    }
    all
}
