//! May this commit be installed here? One answer, from everything that is known of it before any of its content is
//! fetched: who signed it, for which ref and which hardware it was made, and whether it is older than what was here.
//!
//! libostree asks less: it takes a commit without `ostree.ref-binding` for any ref unless the remote has a collection,
//! knows no hardware, and compares times on `ostree admin upgrade` alone, with what is deployed and not with what was
//! confirmed.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::commit::Commit;
use super::mark::{Disorder, Mark, Mistyped};
use super::object::Checksum;
use super::sign::{Keys, SignError, VerifiedCommit};
use super::variant;

/// The refs that a commit was made for, an `as`; `ostree commit` writes it.
pub const REF_BINDING: &str = "ostree.ref-binding";
/// The collection that it was made for, an `s`; `ostree commit` writes it in a repository that has one.
pub const COLLECTION_BINDING: &str = "ostree.collection-binding";
/// The hardware that it was made for, an `as`: one of them must be the device's own name for itself.
pub const COMPATIBLE: &str = "bootward.compatible";

/// Times before this, 2001-09-09, are no dates: builds that are reproducible stamp 1970 or the like.
const DATED: u64 = 1_000_000_000;

/// Who must have signed.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Ed25519 keys.
    Ed25519(&'a Keys),
    /// OpenPGP certificates.
    #[cfg(all(feature = "gpg", not(target_os = "none")))]
    Gpg(&'a super::sign::gpg::Ring),
}

impl<'a> From<&'a Keys> for Trust<'a> {
    fn from(keys: &'a Keys) -> Self {
        Trust::Ed25519(keys)
    }
}

impl Trust<'_> {
    /// Believes a commit that is signed as it must be; `now` is in seconds since 1970, where it is known.
    ///
    /// # Errors
    /// When it is not to be believed.
    pub fn verify(
        self,
        commit: Vec<u8>,
        metadata: Option<&[u8]>,
        now: Option<u64>,
    ) -> Result<VerifiedCommit, SignError> {
        // Ed25519 keys do not expire.
        let _ = now;
        match self {
            Trust::Ed25519(keys) => keys.verify(commit, metadata),
            #[cfg(all(feature = "gpg", not(target_os = "none")))]
            Trust::Gpg(ring) => ring.verify(commit, metadata, now),
        }
    }
}

/// What a commit must be.
#[derive(Clone, Debug)]
pub struct Policy<'a> {
    /// Who must have signed it.
    pub trust: Trust<'a>,
    /// The ref that was asked for, without a remote; `None` where a commit was asked for by its checksum.
    pub reference: Option<&'a str>,
    /// Take a commit that does not say for which refs it was made, as libostree does.
    pub unbound: bool,
    /// The collection of the remote, where it has one.
    pub collection: Option<&'a str>,
    /// The device's name for its hardware, where it has one.
    pub compatible: Option<&'a str>,
    /// The newest that was ever confirmed here.
    pub floor: &'a Mark,
    /// This commit may be older than the floor, or far above it: an operator said so, of this one and no other. Who
    /// signed it and what it was made for is asked all the same.
    pub exception: Option<Checksum>,
    /// How old it may be.
    pub age: Age,
}

/// How old a commit may be. That a server shows no newer one cannot be told without a clock that it has no hand in;
/// so it is a warning, but where a device is sure of its clock and would rather have nothing than something old.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Age {
    /// Seconds since 1970, where they are known.
    pub now: Option<u64>,
    /// Older than this, in seconds, is stale.
    pub limit: Option<u64>,
    /// What is stale is refused.
    pub strict: bool,
}

/// A commit that may be installed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// The commit; what installs it takes nothing else.
    pub commit: VerifiedCommit,
    /// Where it stands in the order of releases.
    pub mark: Mark,
    /// What somebody should hear of.
    pub warnings: Vec<Warning>,
}

/// It may be installed, but.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// It was made so many seconds ago, and a newer one should be there by now.
    Stale(u64),
    /// It was made for some hardware, and this device has no name for its own.
    Hardware(String),
    /// It is out of order, and an operator wants it.
    Exception(Disorder),
    /// It does not say for which refs it was made.
    Unbound,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Stale(seconds) => {
                write!(
                    f,
                    "the newest commit is {} days old; the server may be withholding newer ones",
                    seconds / 86_400
                )
            }
            Warning::Hardware(name) => {
                write!(f, "it is made for {name}, and this device is not told what it is")
            }
            Warning::Exception(disorder) => write!(f, "an operator wants it, although {disorder}"),
            Warning::Unbound => write!(f, "it does not say for which refs it was made ({REF_BINDING})"),
        }
    }
}

/// Why a commit is not installed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is another commit than the one that was asked for.
    Other {
        /// What was asked for.
        asked: Checksum,
        /// What it is.
        got: Checksum,
    },
    /// It is not signed as it must be.
    Signature(SignError),
    /// Its metadata cannot be understood.
    Mistyped(Mistyped),
    /// It does not say for which refs it was made, and this one was asked for.
    Unbound(String),
    /// It was made for other refs than this one.
    Ref(String),
    /// It was made for another collection, or says none.
    Collection {
        /// The remote's.
        wanted: String,
        /// The commit's.
        bound: Option<String>,
    },
    /// It was made for other hardware than this, or does not say for which.
    Hardware {
        /// The device's.
        device: String,
        /// The commit's first.
        made_for: Option<String>,
    },
    /// It is older than what was confirmed, or too far above.
    Disorder(Disorder),
    /// It was made so many seconds ago, and that is too old here.
    Stale(u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Other { asked, got } => write!(f, "commit {asked} was asked for, and {got} came"),
            Refusal::Signature(error) => error.fmt(f),
            Refusal::Mistyped(error) => error.fmt(f),
            Refusal::Unbound(asked) => {
                write!(
                    f,
                    "it does not say for which refs it was made ({REF_BINDING}), and {asked} was asked for"
                )
            }
            Refusal::Ref(asked) => write!(f, "it was made for other refs than {asked} ({REF_BINDING})"),
            Refusal::Collection { wanted, bound: Some(bound) } => {
                write!(f, "it was made for the collection {bound}, not for {wanted}")
            }
            Refusal::Collection { wanted, bound: None } => {
                write!(
                    f,
                    "it does not say that it was made for the collection {wanted} ({COLLECTION_BINDING})"
                )
            }
            Refusal::Hardware { device, made_for: Some(other) } => {
                write!(f, "it was made for {other}, this device is {device}")
            }
            Refusal::Hardware { device, made_for: None } => {
                write!(f, "it does not say that it was made for {device} ({COMPATIBLE})")
            }
            Refusal::Disorder(disorder) => disorder.fmt(f),
            Refusal::Stale(seconds) => {
                write!(f, "it is {} days old, and no newer one is there", seconds / 86_400)
            }
        }
    }
}

/// The value of a key that holds a list of texts; `None` where there is no such key.
fn texts<'a>(commit: &'a Commit, key: &'static str) -> Result<Option<Vec<&'a str>>, Refusal> {
    let mistyped = Refusal::Mistyped(Mistyped { key, wanted: "list of strings (type as)" });
    match variant::find(commit.metadata(), key) {
        None => Ok(None),
        Some((list, b"as")) => variant::array(list, 1)
            .and_then(|list| list.map(|text| variant::text(text?)).collect::<Option<Vec<_>>>())
            .map(Some)
            .ok_or(mistyped),
        Some(_) => Err(mistyped),
    }
}

impl<'a> Policy<'a> {
    /// The least that is asked of a commit: a signature, and that it is not older than the floor. The rest is for the
    /// caller to set.
    pub fn new(trust: Trust<'a>, floor: &'a Mark) -> Self {
        Policy {
            trust,
            reference: None,
            unbound: false,
            collection: None,
            compatible: None,
            floor,
            exception: None,
            age: Age::default(),
        }
    }

    /// Whether a commit may be installed. `name` is the checksum that it was asked for by, `commit` the bytes of its
    /// object, `metadata` those of its detached metadata, if it has any.
    ///
    /// # Errors
    /// At the first thing that it is not; its signature is the first that is looked at, so that whatever else is said of
    /// it is true.
    pub fn admit(
        &self,
        name: &Checksum,
        commit: Vec<u8>,
        metadata: Option<&[u8]>,
    ) -> Result<Admitted, Refusal> {
        let verified = self.trust.verify(commit, metadata, self.age.now);
        let verified = verified.map_err(Refusal::Signature)?;
        let commit = verified.commit();
        if commit.checksum() != *name {
            return Err(Refusal::Other { asked: *name, got: commit.checksum() });
        }
        let mut warnings = Vec::new();
        self.bound(commit, &mut warnings)?;
        self.fits(commit, &mut warnings)?;
        let mark = Mark::of(commit).map_err(Refusal::Mistyped)?;
        match mark.follows(self.floor) {
            Ok(()) => {}
            Err(disorder) if self.exception == Some(commit.checksum()) => {
                warnings.push(Warning::Exception(disorder));
            }
            Err(disorder) => return Err(Refusal::Disorder(disorder)),
        }
        let stale = self.age.now.zip(self.age.limit).and_then(|(now, limit)| {
            let age = now.saturating_sub(mark.time);
            (mark.time >= DATED && age > limit).then_some(age)
        });
        match stale {
            Some(age) if self.age.strict => return Err(Refusal::Stale(age)),
            Some(age) => warnings.push(Warning::Stale(age)),
            None => {}
        }
        Ok(Admitted { commit: verified, mark, warnings })
    }

    /// Whether it was made for the ref that was asked for, and for the remote's collection.
    fn bound(&self, commit: &Commit, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
        let refs = texts(commit, REF_BINDING)?;
        match (self.reference, refs) {
            (None, _) => {}
            (Some(asked), Some(refs)) if refs.contains(&asked) => {}
            (Some(asked), Some(_)) => return Err(Refusal::Ref(asked.into())),
            (Some(_), None) if self.unbound => warnings.push(Warning::Unbound),
            (Some(asked), None) => return Err(Refusal::Unbound(asked.into())),
        }
        let Some(wanted) = self.collection else { return Ok(()) };
        let bound = commit.metadata_text(COLLECTION_BINDING);
        if bound == Some(wanted) {
            return Ok(());
        }
        Err(Refusal::Collection { wanted: wanted.into(), bound: bound.map(String::from) })
    }

    /// Whether it was made for this hardware.
    fn fits(&self, commit: &Commit, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
        let made_for = texts(commit, COMPATIBLE)?;
        let first = made_for.as_ref().and_then(|all| all.first()).map(|name| String::from(*name));
        match self.compatible {
            Some(device) if made_for.is_some_and(|all| all.contains(&device)) => {}
            Some(device) => return Err(Refusal::Hardware { device: device.into(), made_for: first }),
            None => warnings.extend(first.map(Warning::Hardware)),
        }
        Ok(())
    }
}
