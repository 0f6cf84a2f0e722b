//! What the objects of a commit take, where its publisher said so (`ostree commit --generate-sizes`): `ostree.sizes` in its
//! metadata, an `aay` of checksum, size on an archive server, size here, both as varints, and the kind of object.
//!
//! It is signed with the commit, and still only a plan: what is written is bounded by what is free, whatever it says.
//!
//! Formats: `create_sizes_metadata`, `_ostree_unpack_size_cache_entry` of libostree's ostree-repo-commit.c, ostree-varint.c.

use super::commit::Commit;
use super::object::{Checksum, Kind};
use super::variant;

/// The key in a commit's metadata.
pub const SIZES: &str = "ostree.sizes";

/// What one object takes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// The object.
    pub name: Checksum,
    /// What it is; `None` where the publisher's libostree was older than 2020.8 and did not say.
    pub kind: Option<Kind>,
    /// On an archive server.
    pub packed: u64,
    /// Here.
    pub unpacked: u64,
}

/// The sizes of a commit's objects; `None` where it has none, or they make no sense.
pub fn of(commit: &Commit) -> Option<impl Iterator<Item = Size> + use<'_>> {
    let list = variant::array(variant::lookup(commit.metadata(), SIZES, "aay")?, 1)?;
    list.clone().all(|entry| entry.is_some_and(|entry| size(entry).is_some())).then_some(())?;
    Some(list.flatten().filter_map(size))
}

fn size(entry: &[u8]) -> Option<Size> {
    let (name, rest) = entry.split_at_checked(32)?;
    let (packed, rest) = varint(rest)?;
    let (unpacked, rest) = varint(rest)?;
    let kind = match rest {
        [] => None,
        [1] => Some(Kind::File),
        [2] => Some(Kind::DirTree),
        [3] => Some(Kind::DirMeta),
        _ => return None,
    };
    Some(Size { name: Checksum::from_bytes(name)?, kind, packed, unpacked })
}

/// Seven bits a byte, the lowest first; at most 64 of them.
fn varint(data: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (place, byte) in data.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        let shift = u32::try_from(place).ok()? * 7;
        value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some((value, data.get(place + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ostree::emit;
    use crate::ostree::variant::BYTES;
    use alloc::vec;
    use alloc::vec::Vec;

    fn commit(sizes: &[Vec<u8>]) -> Commit {
        let value = emit::variant("aay", &emit::array(1, sizes));
        let metadata = emit::dictionary([(SIZES, &value[..])]);
        let text = emit::text("");
        let members: [(variant::Member, &[u8]); 8] = [
            (variant::VARIANT, &metadata),
            (BYTES, &[]),
            (BYTES, &[]),
            (BYTES, &text),
            (BYTES, &text),
            (variant::U64, &[0; 8]),
            (BYTES, &[1; 32]),
            (BYTES, &[2; 32]),
        ];
        Commit::parse(emit::tuple(&members)).unwrap()
    }

    #[test]
    fn entries_old_and_new() {
        let entry = |rest: &[u8]| [&[7; 32], rest].concat();
        let read = |rest: &[u8]| of(&commit(&[entry(rest)])).map(|mut sizes| sizes.next().unwrap());
        let size = |packed, unpacked, kind| Some(Size { name: Checksum([7; 32]), kind, packed, unpacked });
        assert_eq!(read(&[5, 0x80, 1]), size(5, 128, None));
        assert_eq!(read(&[0, 0xff, 0x7f, 1]), size(0, 16383, Some(Kind::File)));
        assert_eq!(read(&[1, 1, 2]), size(1, 1, Some(Kind::DirTree)));
        let most = [&[0xff; 9][..], &[1]].concat();
        assert_eq!(read(&[&most[..], &[0, 3]].concat()), size(u64::MAX, 0, Some(Kind::DirMeta)));
        let more = [&[0xff; 9][..], &[2]].concat();
        for bad in [&[][..], &[1], &[0x80], &[1, 1, 4], &[1, 1, 1, 1], &more, &[0x80; 20]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert!(of(&commit(&[vec![1; 31]])).is_none());
    }
}
