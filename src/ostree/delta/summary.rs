//! What a repository says it has: `summary`, `(a(s(taya{sv}))a{sv})`, and the index of the deltas that lead to one commit,
//! `a{sv}`.
//!
//! Neither is believed. What they say saves requests; who made a commit only its signature says, and what a superblock is
//! worth, its commit.
//!
//! Formats: `OSTREE_SUMMARY_GVARIANT_FORMAT` of libostree, `ostree_repo_static_delta_reindex`.

use core::fmt;

use super::super::object::Checksum;
use super::super::variant::{self, Array, BYTES, U64, VARIANT};
use super::Name;

/// The largest of either that is read, in bytes.
pub const SUMMARY_MAX: usize = 8 * 1024 * 1024;

/// Under this name both have their deltas.
const DELTAS: &str = "ostree.static-deltas";

/// Why bytes are neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SummaryError {
    /// They are more than [`SUMMARY_MAX`].
    TooLong(usize),
    /// They are not its GVariant in normal form.
    Form,
    /// A checksum has not 32 bytes.
    Checksum,
    /// The name of a delta is none.
    Delta,
}

impl fmt::Display for SummaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SummaryError::TooLong(size) => write!(f, "it has {size} bytes, at most {SUMMARY_MAX} are read"),
            SummaryError::Form => f.write_str("it is not a GVariant in normal form"),
            SummaryError::Checksum => f.write_str("it has a checksum that is not 32 bytes"),
            SummaryError::Delta => f.write_str("it has a delta of no possible name"),
        }
    }
}

/// A ref, the commit it stands for, and the size of the commit object.
pub type Ref<'a> = (&'a str, Checksum, u64);

/// What a summary says.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    refs: Array<'a>,
    metadata: &'a [u8],
    deltas: Option<Deltas<'a>>,
}

impl<'a> Summary<'a> {
    /// Reads and checks one.
    ///
    /// # Errors
    /// See [`SummaryError`].
    pub fn parse(data: &'a [u8]) -> Result<Self, SummaryError> {
        if data.len() > SUMMARY_MAX {
            return Err(SummaryError::TooLong(data.len()));
        }
        let [refs, metadata] = variant::tuple(data, &[VARIANT, VARIANT]).ok_or(SummaryError::Form)?;
        if !variant::is_dictionary(metadata) {
            return Err(SummaryError::Form);
        }
        let refs = checked_refs(refs)?;
        let collections = variant::lookup(metadata, "ostree.summary.collection-map", "a{sa(s(taya{sv}))}");
        for entry in collections.into_iter().flat_map(|map| variant::array(map, 8)).flatten() {
            let [name, refs] =
                entry.and_then(|entry| variant::tuple(entry, &[BYTES, VARIANT])).ok_or(SummaryError::Form)?;
            variant::text(name).ok_or(SummaryError::Form)?;
            checked_refs(refs)?;
        }
        let deltas = variant::lookup(metadata, DELTAS, "a{sv}").map(Deltas::parse).transpose()?;
        Ok(Summary { refs, metadata, deltas })
    }

    /// Its refs; those of the repository's own collection, where it has one.
    pub fn refs(&self) -> impl Iterator<Item = Ref<'a>> {
        listed(self.refs.clone())
    }

    /// The commit of a ref; of the repository's own collection, or of the one that is named.
    pub fn resolve(&self, collection: Option<&str>, name: &str) -> Option<Checksum> {
        let found = |refs| listed(refs).find(|(other, ..)| *other == name).map(|(_, commit, _)| commit);
        match collection {
            Some(wanted) if self.collection() != Some(wanted) => {
                let map =
                    variant::lookup(self.metadata, "ostree.summary.collection-map", "a{sa(s(taya{sv}))}")?;
                for entry in variant::array(map, 8)? {
                    let [name, refs] = variant::tuple(entry?, &[BYTES, VARIANT])?;
                    if variant::text(name)? == wanted {
                        return found(variant::array(refs, 8)?);
                    }
                }
                None
            }
            _ => found(self.refs.clone()),
        }
    }

    /// The collection that the repository belongs to.
    pub fn collection(&self) -> Option<&'a str> {
        variant::lookup(self.metadata, "ostree.summary.collection-id", "s").and_then(variant::text)
    }

    /// Its deltas; `None` where it does not say.
    pub fn deltas(&self) -> Option<&Deltas<'a>> {
        self.deltas.as_ref()
    }

    /// Whether each commit has an index of the deltas that lead to it, and no list here tells of them.
    pub fn has_indexes(&self) -> bool {
        variant::lookup(self.metadata, "ostree.summary.indexed-deltas", "b") == Some(&[1])
    }

    /// When it was made, in seconds since 1970.
    pub fn last_modified(&self) -> Option<u64> {
        self.number("ostree.summary.last-modified")
    }

    /// When it should no longer be taken, in seconds since 1970.
    pub fn expires(&self) -> Option<u64> {
        self.number("ostree.summary.expires")
    }

    fn number(&self, key: &str) -> Option<u64> {
        let bytes = variant::lookup(self.metadata, key, "t")?;
        bytes.try_into().ok().map(u64::from_be_bytes)
    }
}

fn checked_refs(refs: &[u8]) -> Result<Array<'_>, SummaryError> {
    let refs = variant::array(refs, 8).ok_or(SummaryError::Form)?;
    for entry in refs.clone() {
        one(entry.ok_or(SummaryError::Form)?)?;
    }
    Ok(refs)
}

fn listed(refs: Array<'_>) -> impl Iterator<Item = Ref<'_>> {
    refs.flatten().filter_map(|entry| one(entry).ok())
}

fn one(entry: &[u8]) -> Result<Ref<'_>, SummaryError> {
    let read = || {
        let [name, rest] = variant::tuple(entry, &[BYTES, VARIANT])?;
        let [size, checksum, metadata] = variant::tuple(rest, &[U64, BYTES, VARIANT])?;
        let size = u64::from_be_bytes(size.try_into().ok()?);
        variant::is_dictionary(metadata).then_some((variant::text(name)?, checksum, size))
    };
    let (name, checksum, size) = read().ok_or(SummaryError::Form)?;
    Ok((name, Checksum::from_bytes(checksum).ok_or(SummaryError::Checksum)?, size))
}

/// Names of deltas and the checksums of their superblocks.
#[derive(Clone, Debug)]
pub struct Deltas<'a>(Array<'a>);

impl<'a> Deltas<'a> {
    fn parse(dictionary: &'a [u8]) -> Result<Self, SummaryError> {
        let entries = variant::array(dictionary, 8).ok_or(SummaryError::Form)?;
        for entry in entries.clone() {
            delta(entry.ok_or(SummaryError::Form)?)?;
        }
        Ok(Deltas(entries))
    }

    /// Reads and checks the index of the deltas to one commit.
    ///
    /// # Errors
    /// See [`SummaryError`].
    pub fn index(data: &'a [u8]) -> Result<Self, SummaryError> {
        if data.len() > SUMMARY_MAX {
            return Err(SummaryError::TooLong(data.len()));
        }
        if !variant::is_dictionary(data) {
            return Err(SummaryError::Form);
        }
        Deltas::parse(variant::lookup(data, DELTAS, "a{sv}").unwrap_or_default())
    }

    /// All of them, and what their superblocks should have as checksum.
    pub fn iter(&self) -> impl Iterator<Item = (Name, Checksum)> + use<'a> {
        self.0.clone().flatten().filter_map(|entry| delta(entry).ok())
    }
}

fn delta(entry: &[u8]) -> Result<(Name, Checksum), SummaryError> {
    let read = || {
        let [name, value] = variant::tuple(entry, &[BYTES, VARIANT])?;
        Some((variant::text(name)?, value.strip_suffix(b"\0ay")?))
    };
    let (name, checksum) = read().ok_or(SummaryError::Form)?;
    let name = Name::parse(name).ok_or(SummaryError::Delta)?;
    Ok((name, Checksum::from_bytes(checksum).ok_or(SummaryError::Checksum)?))
}
