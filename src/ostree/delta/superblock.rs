//! What a delta begins with, `(a{sv}tayay(a{sv}aya(say)sstayay)aya(uayttay)a(yaytt))`: metadata, time, from, to, the commit,
//! deltas that must go first, parts, and the objects that are fetched by themselves; and the signed form of it,
//! `(taya{sv})`, whose own signature is not what we go by: the commit's is.
//!
//! The numbers of parts and fallbacks are in the byte order of the machine that made the delta. Newer ones say which
//! that was (`ostree.endianness`); for the rest, libostree guesses, and so do we, as it does
//! (`_ostree_delta_get_endianness`).

use core::fmt;

use super::super::object::{Checksum, Kind};
use super::super::sign::VerifiedCommit;
use super::super::variant::{self, Array, BYTE, BYTES, Member, U32, U64, VARIANT};
use super::Name;

/// The largest superblock that is read, in bytes. One object takes 33; parts that are inside it are the rest.
pub const SUPERBLOCK_MAX: usize = 64 * 1024 * 1024;
/// The most parts of a delta. libostree's have 32 MB each.
pub const PARTS_MAX: usize = 1024;
/// The most objects of a delta.
pub const OBJECTS_MAX: usize = 1 << 20;
/// The most objects that are fetched by themselves.
pub const FALLBACKS_MAX: usize = 1 << 16;
/// The most bytes that a delta may have, or make, by its own account.
pub const TOTAL_MAX: u64 = 1 << 40;

/// A type and a checksum.
const OBJECT_SIZE: usize = 33;
/// `OSTREE_STATIC_DELTA_SIGNED_MAGIC`.
const SIGNED: &[u8] = b"OSTSGNDT";
/// `OSTREE_DELTAPART_VERSION`.
const VERSION: u32 = 0;

const MEMBERS: [Member; 8] = [VARIANT, U64, BYTES, BYTES, VARIANT, BYTES, VARIANT, VARIANT];
const PART: [Member; 5] = [U32, BYTES, U64, U64, BYTES];
const FALLBACK: [Member; 4] = [BYTE, BYTES, U64, U64];

/// Why bytes are no superblock of the delta that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperblockError {
    /// They are more than [`SUPERBLOCK_MAX`].
    TooLong(usize),
    /// They are not its GVariant in normal form.
    Form,
    /// It is of another delta.
    Other,
    /// Its commit is not the one that it leads to.
    Commit,
    /// Its byte order is neither of the two.
    ByteOrder(u8),
    /// Other deltas must go before it.
    Prerequisites,
    /// A part has a version that we do not know.
    Version(u32),
    /// It has too many parts, objects or fallbacks.
    TooMany(usize),
    /// It has, or makes, more than [`TOTAL_MAX`] bytes.
    TooLarge,
    /// An object is of a kind that no delta has, or has no checksum.
    Object,
}

impl fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SuperblockError::TooLong(size) => {
                write!(f, "the superblock has {size} bytes, at most {SUPERBLOCK_MAX} are read")
            }
            SuperblockError::Form => f.write_str("the superblock is damaged: not a GVariant in normal form"),
            SuperblockError::Other => f.write_str("the superblock is that of another delta"),
            SuperblockError::Commit => f.write_str("the superblock has another commit than it leads to"),
            SuperblockError::ByteOrder(byte) => {
                write!(f, "the superblock names a byte order {byte:#04x} that there is not")
            }
            SuperblockError::Prerequisites => f.write_str("the delta needs other deltas before it"),
            SuperblockError::Version(version) => {
                write!(f, "a part has version {version}, which is not known")
            }
            SuperblockError::TooMany(count) => write!(f, "the superblock lists {count} things, too many"),
            SuperblockError::TooLarge => f.write_str("the superblock tells of impossible sizes"),
            SuperblockError::Object => f.write_str("the superblock lists an object of no known kind"),
        }
    }
}

/// How the machine that made the delta wrote its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteOrder {
    /// The lowest first.
    Little,
    /// The highest first.
    Big,
}

impl ByteOrder {
    fn u32(self, data: &[u8]) -> Option<u32> {
        let bytes = data.try_into().ok()?;
        Some(if self == ByteOrder::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn u64(self, data: &[u8]) -> Option<u64> {
        let bytes = data.try_into().ok()?;
        Some(if self == ByteOrder::Little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }
}

/// The superblock of a delta whose commit nobody vouches for yet: only what is needed to verify that can be had of it.
#[derive(Clone, Debug)]
pub struct Superblock<'a> {
    delta: Delta<'a>,
    commit: &'a [u8],
}

/// What a delta is made of.
#[derive(Clone, Debug)]
pub struct Delta<'a> {
    name: Name,
    order: ByteOrder,
    metadata: &'a [u8],
    parts: Array<'a>,
    fallbacks: Array<'a>,
    size: u64,
    usize: u64,
}

/// One part of a delta.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'a> {
    /// Its place among them, which is the name of its file.
    pub number: u32,
    /// The checksum of its bytes.
    pub checksum: Checksum,
    /// How many those are.
    pub size: u64,
    /// The size of the objects that it makes.
    pub usize: u64,
    /// 33 bytes for each: see [`Part::objects`].
    pub list: &'a [u8],
    /// Its bytes, where they are inside the superblock.
    pub inline: Option<&'a [u8]>,
}

impl<'a> Part<'a> {
    /// What it makes, in this order.
    pub fn objects(&self) -> impl Iterator<Item = (Kind, Checksum)> + use<'a> {
        self.list.chunks(OBJECT_SIZE).filter_map(listed)
    }

    /// How many that are.
    pub fn count(&self) -> usize {
        self.list.len() / OBJECT_SIZE
    }
}

/// An object that is not in the delta.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fallback {
    /// Its kind, as a `bare` repository has it.
    pub kind: Kind,
    /// Its name.
    pub checksum: Checksum,
    /// What is fetched, in bytes.
    pub size: u64,
    /// Its content.
    pub usize: u64,
}

impl<'a> Superblock<'a> {
    /// Reads and checks all of it, for the delta that was asked for.
    ///
    /// # Errors
    /// See [`SuperblockError`].
    pub fn parse(data: &'a [u8], name: Name) -> Result<Self, SuperblockError> {
        if data.len() > SUPERBLOCK_MAX {
            return Err(SuperblockError::TooLong(data.len()));
        }
        let data = if data.starts_with(SIGNED) {
            let [_, inside, signatures] =
                variant::tuple(data, &[U64, BYTES, VARIANT]).ok_or(SuperblockError::Form)?;
            variant::is_dictionary(signatures).then_some(inside).ok_or(SuperblockError::Form)?
        } else {
            data
        };
        let [metadata, _time, from, to, commit, before, parts, fallbacks] =
            variant::tuple(data, &MEMBERS).ok_or(SuperblockError::Form)?;
        if !variant::is_dictionary(metadata) {
            return Err(SuperblockError::Form);
        }
        let to = Checksum::from_bytes(to).ok_or(SuperblockError::Form)?;
        let from = match from {
            [] => None,
            from => Some(Checksum::from_bytes(from).ok_or(SuperblockError::Form)?),
        };
        if (Name { from, to }) != name {
            return Err(SuperblockError::Other);
        }
        if Checksum::of(commit) != to {
            return Err(SuperblockError::Commit);
        }
        if !before.is_empty() {
            return Err(SuperblockError::Prerequisites);
        }
        let parts = variant::array(parts, 8).ok_or(SuperblockError::Form)?;
        let fallbacks = variant::array(fallbacks, 8).ok_or(SuperblockError::Form)?;
        for (count, limit) in [(parts.remaining(), PARTS_MAX), (fallbacks.remaining(), FALLBACKS_MAX)] {
            if count > limit {
                return Err(SuperblockError::TooMany(count));
            }
        }
        let order = byte_order(metadata, &parts)?;
        let mut delta = Delta { name, order, metadata, parts, fallbacks, size: 0, usize: 0 };
        delta.check()?;
        Ok(Superblock { delta, commit })
    }

    /// The commit object. Its checksum is that of the delta's name, which says nothing about who made it.
    pub fn commit(&self) -> &'a [u8] {
        self.commit
    }

    /// The commit's detached metadata, where the delta brings it: an `a{sv}`.
    pub fn commitmeta(&self) -> Option<&'a [u8]> {
        variant::lookup(self.delta.metadata, &self.delta.name.commitmeta(), "a{sv}")
    }

    /// What the delta would take: for choosing among several.
    pub fn size(&self) -> u64 {
        self.delta.size
    }

    /// Opens the rest for whoever verified the commit. `None` for another commit.
    pub fn verified(self, commit: &VerifiedCommit) -> Option<Delta<'a>> {
        (commit.commit().checksum() == self.delta.name.to).then_some(self.delta)
    }

    /// Opens the rest for somebody who has decided in another way to take the commit: a person's explicit act.
    pub fn unverified(self) -> Delta<'a> {
        self.delta
    }
}

impl<'a> Delta<'a> {
    /// Reads everything once, so that nothing is left to be wrong later, and adds up.
    fn check(&mut self) -> Result<(), SuperblockError> {
        let (mut size, mut usize) = (0u64, 0u64);
        let mut add = |one: u64, other: u64| {
            size = size.checked_add(one).filter(|n| *n <= TOTAL_MAX).ok_or(SuperblockError::TooLarge)?;
            usize = usize.checked_add(other).filter(|n| *n <= TOTAL_MAX).ok_or(SuperblockError::TooLarge)?;
            Ok(())
        };
        let mut objects = 0;
        for entry in self.parts.clone() {
            let (version, part) = part(entry.ok_or(SuperblockError::Form)?, self.order)?;
            if version > VERSION {
                return Err(SuperblockError::Version(version));
            }
            if !part.list.chunks(OBJECT_SIZE).all(|object| listed(object).is_some()) {
                return Err(SuperblockError::Object);
            }
            objects += part.count();
            if objects > OBJECTS_MAX {
                return Err(SuperblockError::TooMany(objects));
            }
            add(part.size, part.usize)?;
        }
        for entry in self.fallbacks.clone() {
            let fallback = fallback(entry.ok_or(SuperblockError::Form)?, self.order)?;
            add(fallback.size, fallback.usize)?;
        }
        (self.size, self.usize) = (size, usize);
        Ok(())
    }

    /// What it leads from and to.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What is fetched of it in all, parts and fallbacks, in bytes. What it says of itself.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The size of all the objects that it makes, fallbacks included. What it says of itself: nothing larger is made.
    pub fn usize(&self) -> u64 {
        self.usize
    }

    /// Its byte order.
    pub fn byte_order(&self) -> ByteOrder {
        self.order
    }

    /// Its parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'a>> {
        (0..).zip(self.parts.clone().flatten()).filter_map(|(number, entry)| {
            let (_, mut part) = part(entry, self.order).ok()?;
            part.number = number;
            part.inline = variant::lookup(self.metadata, &self.name.part(number), "(yay)");
            Some(part)
        })
    }

    /// The objects that must be fetched by themselves.
    pub fn fallbacks(&self) -> impl Iterator<Item = Fallback> {
        self.fallbacks.clone().flatten().filter_map(|entry| fallback(entry, self.order).ok())
    }
}

/// A type of object that a delta may make. Commits are not among them: the only one comes in the superblock.
fn kind(number: u8) -> Option<Kind> {
    match number {
        1 => Some(Kind::File),
        2 => Some(Kind::DirTree),
        3 => Some(Kind::DirMeta),
        _ => None,
    }
}

fn listed(object: &[u8]) -> Option<(Kind, Checksum)> {
    let (number, checksum) = object.split_first()?;
    Some((kind(*number)?, Checksum::from_bytes(checksum)?))
}

fn part(entry: &[u8], order: ByteOrder) -> Result<(u32, Part<'_>), SuperblockError> {
    let read = || {
        let [version, checksum, size, usize, list] = variant::tuple(entry, &PART)?;
        let (size, usize) = (order.u64(size)?, order.u64(usize)?);
        let checksum = Checksum::from_bytes(checksum)?;
        Some((order.u32(version)?, Part { number: 0, checksum, size, usize, list, inline: None }))
    };
    read().ok_or(SuperblockError::Form)
}

fn fallback(entry: &[u8], order: ByteOrder) -> Result<Fallback, SuperblockError> {
    let read = || {
        let [number, checksum, size, usize] = variant::tuple(entry, &FALLBACK)?;
        Some((number, Checksum::from_bytes(checksum)?, order.u64(size)?, order.u64(usize)?))
    };
    let (number, checksum, size, usize) = read().ok_or(SuperblockError::Form)?;
    let kind = number.first().and_then(|n| kind(*n)).ok_or(SuperblockError::Object)?;
    Ok(Fallback { kind, checksum, size, usize })
}

fn byte_order(metadata: &[u8], parts: &Array<'_>) -> Result<ByteOrder, SuperblockError> {
    match variant::lookup(metadata, "ostree.endianness", "y") {
        Some([b'l']) => return Ok(ByteOrder::Little),
        Some([b'B']) => return Ok(ByteOrder::Big),
        Some(other) => return Err(SuperblockError::ByteOrder(other.first().copied().unwrap_or(0))),
        None => {}
    }
    let (mut size, mut objects) = (0u64, 0u64);
    for entry in parts.clone() {
        let (_, part) = part(entry.ok_or(SuperblockError::Form)?, ByteOrder::Little)?;
        // No part is larger packed than what it makes, not by this much.
        if u128::from(part.size) * 10 > u128::from(part.usize) * 12 && part.size > part.usize {
            return Ok(ByteOrder::Big);
        }
        size = size.saturating_add(part.size);
        objects += part.count() as u64;
    }
    // Nor is the average object larger than 4 GiB.
    let swapped = size.checked_div(objects).is_some_and(|average| average > u64::from(u32::MAX));
    Ok(if swapped { ByteOrder::Big } else { ByteOrder::Little })
}

/// A superblock for tests: what [`Superblock::parse`] reads.
#[cfg(test)]
pub(crate) mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::ostree::variant::close;

    /// `(a{sv}...)`, with these parts `(size, usize, objects)`, in little-endian.
    pub(crate) fn written(
        name: Name,
        metadata: &[(&str, &[u8], &str)],
        commit: &[u8],
        parts: &[(Checksum, u64, u64, Vec<u8>)],
    ) -> Vec<u8> {
        let mut data = Vec::new();
        let mut offsets = Vec::new();
        let mut dictionary = (Vec::new(), Vec::new());
        for (key, value, signature) in metadata {
            dictionary.0.resize(dictionary.0.len().next_multiple_of(8), 0);
            let mut entry = [key.as_bytes(), &[0]].concat();
            let end = entry.len();
            entry.resize(end.next_multiple_of(8), 0);
            entry.extend_from_slice(value);
            entry.push(0);
            entry.extend_from_slice(signature.as_bytes());
            close(&mut entry, &[end]);
            dictionary.0.extend(entry);
            dictionary.1.push(dictionary.0.len());
        }
        close(&mut dictionary.0, &dictionary.1);
        data.extend(dictionary.0);
        offsets.push(data.len());
        data.resize(data.len().next_multiple_of(8), 0);
        data.extend([0; 8]);
        data.extend(name.from.iter().flat_map(|from| from.0));
        offsets.push(data.len());
        data.extend(name.to.0);
        offsets.push(data.len());
        data.resize(data.len().next_multiple_of(8), 0);
        data.extend_from_slice(commit);
        offsets.push(data.len());
        offsets.push(data.len());
        data.resize(data.len().next_multiple_of(8), 0);
        let mut list = (Vec::new(), Vec::new());
        for (checksum, size, usize, objects) in parts {
            list.0.resize(list.0.len().next_multiple_of(8), 0);
            let mut entry = [&[0; 4], &checksum.0[..]].concat();
            let end = entry.len();
            entry.resize(end.next_multiple_of(8), 0);
            entry.extend(size.to_le_bytes());
            entry.extend(usize.to_le_bytes());
            entry.extend_from_slice(objects);
            close(&mut entry, &[end]);
            list.0.extend(entry);
            list.1.push(list.0.len());
        }
        close(&mut list.0, &list.1);
        data.extend(list.0);
        offsets.push(data.len());
        data.resize(data.len().next_multiple_of(8), 0);
        offsets.reverse();
        close(&mut data, &offsets);
        data
    }

    const COMMIT: &[u8] = b"not looked into here";

    fn name() -> Name {
        Name { from: None, to: Checksum::of(COMMIT) }
    }

    #[test]
    fn a_superblock_is_read() {
        let key = name().part(0);
        let object = [&[2][..], &[9; 32]].concat();
        let parts = [(Checksum([1; 32]), 100, 200, object.clone()), (Checksum([2; 32]), 7, 9, Vec::new())];
        let data =
            written(name(), &[("ostree.endianness", b"l", "y"), (&key, b"\0abc", "(yay)")], COMMIT, &parts);
        let superblock = Superblock::parse(&data, name()).unwrap();
        assert_eq!((superblock.commit(), superblock.commitmeta(), superblock.size()), (COMMIT, None, 107));
        let delta = superblock.unverified();
        assert_eq!((delta.size(), delta.usize(), delta.fallbacks().count()), (107, 209, 0));
        let read: Vec<Part<'_>> = delta.parts().collect();
        assert_eq!(read[0].inline, Some(&b"\0abc"[..]));
        assert_eq!(read[0].objects().collect::<Vec<_>>(), [(Kind::DirTree, Checksum([9; 32]))]);
        assert_eq!((read[1].number, read[1].inline, read[1].count()), (1, None, 0));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let parse = |metadata: &[(&str, &[u8], &str)], parts: &[(Checksum, u64, u64, Vec<u8>)]| {
            Superblock::parse(&written(name(), metadata, COMMIT, parts), name()).map(|s| s.delta.order)
        };
        let part = |size, usize, list: &[u8]| (Checksum([1; 32]), size, usize, list.to_vec());
        let object = |number: u8| [&[number][..], &[9; 32]].concat();
        assert_eq!(parse(&[], &[part(1, 2, &object(1))]), Ok(ByteOrder::Little));
        assert_eq!(parse(&[("ostree.endianness", b"x", "y")], &[]), Err(SuperblockError::ByteOrder(b'x')));
        for bad in [0, 4, 5, 6, 7, 255] {
            assert_eq!(parse(&[], &[part(1, 2, &object(bad))]), Err(SuperblockError::Object), "{bad}");
        }
        assert_eq!(parse(&[], &[part(1, 2, &object(1)[1..])]), Err(SuperblockError::Object));
        let huge = [part(TOTAL_MAX, TOTAL_MAX, &[]), part(1, 1, &[])];
        assert_eq!(parse(&[], &huge), Err(SuperblockError::TooLarge));
        let most = u64::MAX;
        let order: (&str, &[u8], &str) = ("ostree.endianness", b"l", "y");
        assert_eq!(
            parse(&[order], &[part(most, most, &[]), part(most, 1, &[])]),
            Err(SuperblockError::TooLarge)
        );
        let many = alloc::vec![part(1, 1, &[]); PARTS_MAX + 1];
        assert_eq!(parse(&[], &many), Err(SuperblockError::TooMany(PARTS_MAX + 1)));
        let data = written(name(), &[], COMMIT, &[]);
        let other = Name { from: Some(Checksum([0; 32])), ..name() };
        assert_eq!(Superblock::parse(&data, other).map(|_| ()), Err(SuperblockError::Other));
        let data = written(name(), &[], b"another", &[]);
        assert_eq!(Superblock::parse(&data, name()).map(|_| ()), Err(SuperblockError::Commit));
    }

    #[test]
    fn a_missing_byte_order_is_guessed_as_libostree_does() {
        let order = |parts: &[(u64, u64, usize)]| {
            let parts: Vec<_> = parts
                .iter()
                .map(|&(size, usize, count)| {
                    (Checksum([1; 32]), size, usize, [&[1][..], &[9; 32]].concat().repeat(count))
                })
                .collect();
            Superblock::parse(&written(name(), &[], COMMIT, &parts), name()).map(|s| s.delta.order)
        };
        assert_eq!(order(&[(120, 100, 1)]), Ok(ByteOrder::Little));
        let swapped = |n: u64| n.swap_bytes();
        assert_eq!(order(&[(swapped(260), swapped(300), 1)]), Ok(ByteOrder::Big));
        assert_eq!(order(&[(swapped(300), swapped(300), 1)]), Ok(ByteOrder::Big));
        assert_eq!(order(&[]), Ok(ByteOrder::Little));
    }
}
