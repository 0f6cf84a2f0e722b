//! Extended attributes as erofs keeps them: the beginning of a name is a number, what several files have alike is there
//! once, and a filter of 32 bits tells of most names that a file has not got them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ostree::tree::Attributes;

/// `EROFS_XATTR_FILTER_SEED`.
const SEED: u32 = 0x25BB_E08F;
/// A header stands before the attributes of an inode, in bytes.
pub const HEADER: usize = 12;
/// An inode has at most this many that are shared.
const SHARED_MAX: usize = 0x80;
/// Beginnings of names, and the numbers for them.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// A name and a value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// The number for the beginning of a name, and the rest.
fn split(name: &[u8]) -> (u8, &[u8]) {
    let known = |(prefix, index): &(&[u8], u8)| name.strip_prefix(*prefix).map(|rest| (*index, rest));
    PREFIXES.iter().find_map(known).unwrap_or((0, name))
}

/// How long an entry is, in bytes.
fn size((name, value): &Attribute) -> usize {
    (4 + split(name).1.len() + value.len()).next_multiple_of(4)
}

fn write(attribute: &Attribute, to: &mut Vec<u8>) {
    let (name, value) = attribute;
    let (index, rest) = split(name);
    let end = to.len() + size(attribute);
    to.push(u8::try_from(rest.len()).unwrap_or(u8::MAX));
    to.push(index);
    to.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    to.extend(rest);
    to.extend(value);
    to.resize(end, 0);
}

/// The attributes that more than one inode has.
#[derive(Clone, Debug, Default)]
pub struct Shared<'a> {
    order: Vec<&'a Attribute>,
    offsets: BTreeMap<&'a Attribute, usize>,
    /// Bytes of all of them.
    pub size: usize,
}

impl<'a> Shared<'a> {
    /// Of all inodes: each one counts once.
    pub fn of(all: impl Iterator<Item = &'a Attributes>) -> Self {
        let mut uses: BTreeMap<&Attribute, usize> = BTreeMap::new();
        for attribute in all.flatten() {
            *uses.entry(attribute).or_default() += 1;
        }
        let mut order: Vec<&Attribute> =
            uses.into_iter().filter(|(_, count)| *count > 1).map(|(one, _)| one).collect();
        // Names from the last to the first; of one name the longer values first, and of one length the greater.
        order.sort_by(|(name, value), (other, its)| {
            other.cmp(name).then(its.len().cmp(&value.len())).then(its.cmp(value))
        });
        let mut shared = Shared::default();
        for attribute in order {
            shared.offsets.insert(attribute, shared.size);
            shared.size += size(attribute);
            shared.order.push(attribute);
        }
        shared
    }

    /// Their bytes.
    pub fn write(&self, to: &mut Vec<u8>) {
        self.order.iter().for_each(|attribute| write(attribute, to));
    }

    /// Those of an inode that are shared, by their offset, and those that are not.
    fn divide<'b>(&self, own: &'b Attributes) -> (Vec<usize>, Vec<&'b Attribute>) {
        let (mut shared, mut rest) = (Vec::new(), Vec::new());
        for attribute in own {
            match self.offsets.get(attribute) {
                Some(offset) if shared.len() < SHARED_MAX => shared.push(*offset),
                _ => rest.push(attribute),
            }
        }
        (shared, rest)
    }

    /// How many bytes an inode has of them.
    pub fn size_of(&self, own: &Attributes) -> usize {
        if own.is_empty() {
            return 0;
        }
        let (shared, rest) = self.divide(own);
        HEADER + shared.len() * 4 + rest.into_iter().map(size).sum::<usize>()
    }

    /// The bytes of an inode's attributes. `start` is where those that are shared begin, from the start of their block.
    pub fn write_of(&self, own: &Attributes, start: usize, to: &mut Vec<u8>) {
        if own.is_empty() {
            return;
        }
        let (shared, rest) = self.divide(own);
        to.extend(filter(own).to_le_bytes());
        to.push(u8::try_from(shared.len()).unwrap_or(u8::MAX));
        to.extend([0; 7]);
        for offset in shared {
            let words = u32::try_from((start + offset) / 4).unwrap_or(u32::MAX);
            to.extend(words.to_le_bytes());
        }
        rest.into_iter().for_each(|attribute| write(attribute, to));
    }
}

/// A bit for each name is clear.
fn filter(own: &Attributes) -> u32 {
    own.iter().fold(u32::MAX, |filter, (name, _)| {
        let (index, rest) = split(name);
        filter & !(1 << (xxh32(rest, SEED.wrapping_add(u32::from(index))) % 32))
    })
}

/// The hash XXH32 (doc/xxhash_spec.md of xxHash).
fn xxh32(data: &[u8], seed: u32) -> u32 {
    const P: [u32; 5] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D, 0x27D4_EB2F, 0x1656_67B1];
    let [p1, p2, p3, p4, p5] = P;
    let (stripes, rest) = data.as_chunks::<16>();
    let mut hash = seed.wrapping_add(p5);
    if !stripes.is_empty() {
        let mut lanes =
            [seed.wrapping_add(p1).wrapping_add(p2), seed.wrapping_add(p2), seed, seed.wrapping_sub(p1)];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<4>().0) {
                let word = u32::from_le_bytes(*word).wrapping_mul(p2);
                *lane = lane.wrapping_add(word).rotate_left(13).wrapping_mul(p1);
            }
        }
        hash = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0, |sum: u32, (lane, by)| sum.wrapping_add(lane.rotate_left(by)));
    }
    hash = hash.wrapping_add(data.len() as u32);
    let (words, bytes) = rest.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(p3)).rotate_left(17).wrapping_mul(p4);
    }
    for byte in bytes {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(p5)).rotate_left(11).wrapping_mul(p1);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(p2);
    hash = (hash ^ hash >> 13).wrapping_mul(p3);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh32_is_that_of_its_authors() {
        // From `xxhsum -H32`, whose seed is 0.
        assert_eq!(xxh32(b"", 0), 0x02CC_5D05);
        assert_eq!(xxh32(b"a", 0), 0x550D_7456);
        assert_eq!(xxh32(b"abc", 0), 0x32D1_53FF);
        assert_eq!(xxh32(b"Nobody inspects the spammish repetition", 0), 0xE229_3B2F);
    }
}
