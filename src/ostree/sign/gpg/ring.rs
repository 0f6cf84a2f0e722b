//! Trusted certificates, and which of their keys have signed something.

use alloc::vec::Vec;
use core::fmt;

use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Packet, PacketParser, PacketTrait, Signature, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};

use super::Fault;

/// The largest keyring that is read, in bytes.
pub const RING_MAX: usize = 1024 * 1024;
/// More certificates than this are not taken.
pub const MAX_CERTIFICATES: usize = 64;
/// More packets than this in one keyring are not taken.
const MAX_PACKETS: usize = 4096;
/// Shorter moduli of RSA count for nothing, in bits.
const RSA_MIN: u16 = 2048;

/// The certificates that are trusted, at least one, and how many of them have to sign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    certificates: Vec<SignedPublicKey>,
    threshold: usize,
}

/// Why there is no keyring to go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingError {
    /// It is longer than [`RING_MAX`].
    TooLong,
    /// There is no certificate in it.
    Empty,
    /// It is a keybox of GnuPG, and not a list of certificates.
    Keybox,
    /// It has something else than certificates: a secret key, a message, damage.
    Form,
    /// There are more than [`MAX_CERTIFICATES`].
    TooMany,
    /// So many have to sign, and there are not as many.
    Threshold {
        /// How many have to sign.
        wanted: usize,
        /// How many there are.
        keys: usize,
    },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::TooLong => write!(f, "it has more than {RING_MAX} bytes"),
            RingError::Empty => f.write_str("there is no OpenPGP certificate in it"),
            RingError::Keybox => {
                f.write_str("it is a keybox of GnuPG; 'gpg --export' writes what is needed here")
            }
            RingError::Form => {
                f.write_str("it has something else than OpenPGP certificates; 'gpg --export' writes them")
            }
            RingError::TooMany => write!(f, "it has more than {MAX_CERTIFICATES} OpenPGP certificates"),
            RingError::Threshold { wanted, keys } => {
                write!(f, "{wanted} OpenPGP certificates have to sign, and {keys} are trusted")
            }
        }
    }
}

/// Whether a file of keys is of OpenPGP, and not lines of base64: armor, or a byte that begins a packet or a keybox.
pub fn is_ring(data: &[u8]) -> bool {
    let start = data.trim_ascii_start();
    start.starts_with(b"-----BEGIN PGP")
        || data.first().is_some_and(|byte| byte & 0x80 != 0)
        || data.get(8..12) == Some(b"KBXf")
}

impl Ring {
    /// Takes the certificates of several files together; each has at least one, in binary form or in armor, and nothing
    /// else. One that is there twice is one.
    ///
    /// # Errors
    /// When a file is no keyring, or there are not enough certificates.
    pub fn read(files: &[&[u8]], threshold: usize) -> Result<Self, RingError> {
        let mut certificates: Vec<SignedPublicKey> = Vec::new();
        for data in files {
            for certificate in file(data)? {
                let fingerprint = certificate.primary_key.fingerprint();
                match certificates.iter().position(|c| c.primary_key.fingerprint() == fingerprint) {
                    // The other copy may have the revocation.
                    Some(at) => certificates.get_mut(at).into_iter().for_each(|c| add(c, &certificate)),
                    None => certificates.push(certificate),
                }
            }
        }
        let keys = certificates.len();
        match keys {
            0 => Err(RingError::Empty),
            _ if keys > MAX_CERTIFICATES => Err(RingError::TooMany),
            _ if threshold == 0 || threshold > keys => Err(RingError::Threshold { wanted: threshold, keys }),
            _ => Ok(Ring { certificates, threshold }),
        }
    }

    /// How many different ones have to sign.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// How many certificates there are.
    pub fn count(&self) -> usize {
        self.certificates.len()
    }

    pub(super) fn certificates(&self) -> &[SignedPublicKey] {
        &self.certificates
    }
}

fn add(to: &mut SignedPublicKey, from: &SignedPublicKey) {
    to.details.revocation_signatures.extend(from.details.revocation_signatures.iter().cloned());
    to.details.direct_signatures.extend(from.details.direct_signatures.iter().cloned());
    to.details.users.extend(from.details.users.iter().cloned());
    to.public_subkeys.extend(from.public_subkeys.iter().cloned());
}

fn file(data: &[u8]) -> Result<Vec<SignedPublicKey>, RingError> {
    if data.len() > RING_MAX {
        return Err(RingError::TooLong);
    }
    if data.get(8..12) == Some(b"KBXf") {
        return Err(RingError::Keybox);
    }
    if data.trim_ascii().is_empty() {
        return Err(RingError::Empty);
    }
    let mut binary = Vec::new();
    if data.trim_ascii_start().starts_with(b"-----BEGIN PGP") {
        let mut armor = pgp::armor::Dearmor::new(data.trim_ascii_start());
        std::io::Read::read_to_end(&mut armor, &mut binary).map_err(|_| RingError::Form)?;
        if armor.typ != Some(pgp::armor::BlockType::PublicKey) {
            return Err(RingError::Form);
        }
    }
    let binary = if binary.is_empty() { data } else { &binary };
    let mut packets: Vec<pgp::errors::Result<Packet>> = Vec::new();
    for packet in PacketParser::new(binary) {
        let packet = packet.map_err(|_| RingError::Form)?;
        match packet.tag() {
            // What gpg notes for itself between them.
            Tag::Trust | Tag::Marker | Tag::Padding => continue,
            Tag::PublicKey | Tag::PublicSubkey | Tag::Signature | Tag::UserId | Tag::UserAttribute => {}
            _ => return Err(RingError::Form),
        }
        if packets.len() == MAX_PACKETS {
            return Err(RingError::TooLong);
        }
        packets.push(Ok(packet));
    }
    if packets.first().is_some_and(|first| first.as_ref().is_ok_and(|p| p.tag() != Tag::PublicKey)) {
        return Err(RingError::Form);
    }
    let certificates: Result<Vec<_>, _> =
        SignedPublicKey::from_packets(packets.into_iter().peekable()).collect();
    let certificates = certificates.map_err(|_| RingError::Form)?;
    if certificates.is_empty() { Err(RingError::Empty) } else { Ok(certificates) }
}

/// Whether a signature is of a kind that counts, whoever made it and whatever of.
pub(super) fn acceptable(signature: &Signature) -> Result<(), Fault> {
    let config = signature.config().ok_or(Fault::Malformed)?;
    let known = |data: &SubpacketData| {
        !matches!(
            data,
            SubpacketData::Notation(_) | SubpacketData::Experimental(..) | SubpacketData::Other(..)
        )
    };
    if config.hashed_subpackets().any(|part| part.is_critical && !known(&part.data)) {
        return Err(Fault::Critical);
    }
    match config.hash_alg {
        HashAlgorithm::Sha256
        | HashAlgorithm::Sha384
        | HashAlgorithm::Sha512
        | HashAlgorithm::Sha3_256
        | HashAlgorithm::Sha3_512 => Ok(()),
        _ => Err(Fault::Weak),
    }
}

fn strong(key: &PublicParams) -> bool {
    match key {
        // It is written as the number of bits of the modulus, two bytes, the modulus, and the exponent.
        PublicParams::RSA(_) => {
            let mut written = Vec::new();
            let done = key.to_writer(&mut written);
            let bits = written.first_chunk().copied().map_or(0, u16::from_be_bytes);
            done.is_ok() && bits >= RSA_MIN
        }
        PublicParams::ECDSA(_)
        | PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_) => true,
        _ => false,
    }
}

/// Whether a key of a certificate made a signature of `data`, and could at the time.
pub(super) fn signed(
    certificate: &SignedPublicKey,
    signature: &Signature,
    data: &[u8],
    now: u64,
) -> Result<(), Fault> {
    let primary = &certificate.primary_key;
    let made = u64::from(signature.created().ok_or(Fault::Malformed)?.as_secs());
    let by = |key: &dyn Fn() -> bool, params: &PublicParams, begun: u64| {
        if !key() {
            return Err(Fault::Stranger);
        }
        match strong(params) {
            false => Err(Fault::Weak),
            _ if made < begun => Err(Fault::KeyExpired),
            _ if over(made, signature.signature_expiration_time(), now) => Err(Fault::SignatureExpired),
            true => Ok(()),
        }
    };
    let own = || signature.verify(primary, data).is_ok();
    match by(&own, primary.public_params(), began(primary)) {
        Err(Fault::Stranger) => {}
        found => {
            let binding = standing(certificate, now)?;
            return found.and(if signs(binding).unwrap_or(true) { Ok(()) } else { Err(Fault::Purpose) });
        }
    }
    let mut fault = Fault::Stranger;
    for subkey in &certificate.public_subkeys {
        let own = || signature.verify(&subkey.key, data).is_ok();
        match by(&own, subkey.key.public_params(), began(&subkey.key)) {
            Err(Fault::Stranger) => {}
            found => match found.and(standing(certificate, now)).and(bound(primary, subkey, now)) {
                Ok(()) => return Ok(()),
                // Another copy of the same key may be bound.
                Err(why) => fault = fault.max(why),
            },
        }
    }
    Err(fault)
}

fn began(key: &impl KeyDetails) -> u64 {
    u64::from(key.created_at().as_secs())
}

/// Whether a time that is counted from another one is over; none, or 0, is never.
fn over(from: u64, span: Option<pgp::types::Duration>, now: u64) -> bool {
    let span = span.map_or(0, |span| u64::from(span.as_secs()));
    span != 0 && from.saturating_add(span) <= now
}

/// Whether a binding says that the key is for signing; `None` where it says nothing.
fn signs(binding: &Signature) -> Option<bool> {
    binding.config()?.hashed_subpackets().find_map(|part| match &part.data {
        SubpacketData::KeyFlags(flags) => Some(flags.sign()),
        _ => None,
    })
}

/// The signatures by which a certificate says what it is, the last one that holds; not where it is revoked or expired.
fn standing(certificate: &SignedPublicKey, now: u64) -> Result<&Signature, Fault> {
    let primary = &certificate.primary_key;
    let details = &certificate.details;
    if !strong(primary.public_params()) {
        return Err(Fault::Weak);
    }
    // A revocation counts whatever its hash: who can forge one can only take trust away.
    if details.revocation_signatures.iter().any(|s| s.verify_key(primary).is_ok()) {
        return Err(Fault::Revoked);
    }
    let own = details.users.iter().flat_map(|user| {
        let good = |s: &&Signature| s.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        let ours = user.signatures.iter().filter(good);
        // A name that was taken back says nothing more about the key.
        let revoked = ours.clone().any(|s| !s.is_certification() || is_revocation(s));
        ours.filter(move |_| !revoked)
    });
    let direct = details.direct_signatures.iter().filter(|s| s.verify_key(primary).is_ok());
    let all = own.chain(direct).filter(|s| acceptable(s).is_ok() && holds(s, now));
    let last = all.max_by_key(|s| s.created().map(|t| t.as_secs())).ok_or(Fault::Purpose)?;
    if over(began(primary), last.key_expiration_time(), now) || began(primary) > now {
        return Err(Fault::KeyExpired);
    }
    Ok(last)
}

fn is_revocation(signature: &Signature) -> bool {
    signature.typ() == Some(pgp::packet::SignatureType::CertRevocation)
}

/// Whether a signature is made by now, and has not expired.
fn holds(signature: &Signature, now: u64) -> bool {
    let made = signature.created().map_or(u64::MAX, |time| u64::from(time.as_secs()));
    made <= now && !over(made, signature.signature_expiration_time(), now)
}

/// Whether a subkey belongs to its certificate and is for signing; not where it is revoked or expired.
fn bound(
    primary: &(impl VerifyingKey + Serialize),
    subkey: &SignedPublicSubKey,
    now: u64,
) -> Result<(), Fault> {
    let own = |s: &&Signature| s.verify_subkey_binding(primary, &subkey.key).is_ok();
    let (revocations, bindings): (Vec<_>, Vec<_>) = subkey
        .signatures
        .iter()
        .filter(own)
        .partition(|s| s.typ() == Some(pgp::packet::SignatureType::SubkeyRevocation));
    if !revocations.is_empty() {
        return Err(Fault::Revoked);
    }
    let last = bindings
        .into_iter()
        .filter(|s| acceptable(s).is_ok() && holds(s, now))
        .max_by_key(|s| s.created().map(|t| t.as_secs()))
        .ok_or(Fault::Purpose)?;
    if over(began(&subkey.key), last.key_expiration_time(), now) {
        return Err(Fault::KeyExpired);
    }
    // The subkey says in turn that it belongs to the certificate, so that nobody takes another one's for his own.
    let back = last.embedded_signature().filter(|back| acceptable(back).is_ok());
    let back = back.is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if signs(last) == Some(true) && back { Ok(()) } else { Err(Fault::Purpose) }
}
