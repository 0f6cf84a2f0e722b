//! `PARTUUID` and `PARTLABEL` of a partition, from the disk's GPT or MBR, written as libblkid prints them.
//!
//! Sources: the UEFI specification, chapter "GUID Partition Table", and the customary MBR layout with its
//! chain of extended boot records.

use core::fmt::Write;

use heapless::String;

use super::ReadAt;
use super::field::{bytes, le16, le32, le64};
use super::superblock::uuid;

/// More entries of a GPT than this are not looked at; tables have 128.
const ENTRIES_MAX: u32 = 1024;
/// More logical partitions than this are not followed.
const LOGICAL_MAX: u32 = 64;

/// What a partition table says of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Partition {
    /// `PARTUUID`.
    pub uuid: String<36>,
    /// `PARTLABEL`; GPT only.
    pub label: String<128>,
}

/// Finds partition `number` (from 1, as the kernel counts) of a disk with sectors of `sector` bytes and
/// `size` bytes in all.
pub fn partition(disk: &dyn ReadAt, sector: u32, size: u64, number: u32) -> Option<Partition> {
    if !(512..=4096).contains(&sector) || number == 0 {
        return None;
    }
    let sector = u64::from(sector);
    let last = (size / sector).saturating_sub(1);
    // The first header, else the backup at the end of the disk.
    let header = is_protective(disk)
        .then(|| gpt_header(disk, sector, 1).or_else(|| gpt_header(disk, sector, last)))
        .flatten();
    match header {
        Some(header) => gpt_entry(disk, sector, &header, number),
        None => mbr_entry(disk, sector, number),
    }
}

/// Whether sector 0 says that there is a GPT. One without it is left over from before the disk was given an
/// MBR, and the kernel numbers the partitions by that.
fn is_protective(disk: &dyn ReadAt) -> bool {
    let mut block = [0; 512];
    disk.read_at(0, &mut block).is_some()
        && bytes(&block, 510) == [0x55, 0xAA]
        && (0..4).any(|index| entry(&block, index).0 == 0xEE)
}

struct Header {
    entries: u64,
    count: u32,
    size: u32,
}

fn gpt_header(disk: &dyn ReadAt, sector: u64, lba: u64) -> Option<Header> {
    let mut block = [0; 512];
    disk.read_at(lba.checked_mul(sector)?, &mut block)?;
    let length = le32(&block, 12) as usize;
    if !block.starts_with(b"EFI PART") || !(92..=512).contains(&length) || le64(&block, 24) != lba {
        return None;
    }
    let stored = le32(&block, 16);
    block.get_mut(16..20)?.fill(0);
    if crc32fast::hash(block.get(..length)?) != stored {
        return None;
    }
    let header = Header { entries: le64(&block, 72), count: le32(&block, 80), size: le32(&block, 84) };
    let sane = header.size >= 128 && header.size <= 4096 && header.count <= ENTRIES_MAX;
    (sane && entries_crc(disk, sector, &header)? == le32(&block, 88)).then_some(header)
}

fn entries_crc(disk: &dyn ReadAt, sector: u64, header: &Header) -> Option<u32> {
    let start = header.entries.checked_mul(sector)?;
    let mut left = u64::from(header.count) * u64::from(header.size);
    let mut at = start;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = [0; 512];
    while left > 0 {
        let part = buffer.get_mut(..left.min(512) as usize)?;
        disk.read_at(at, part)?;
        hasher.update(part);
        at = at.checked_add(part.len() as u64)?;
        left -= part.len() as u64;
    }
    Some(hasher.finalize())
}

fn gpt_entry(disk: &dyn ReadAt, sector: u64, header: &Header, number: u32) -> Option<Partition> {
    if number > header.count {
        return None;
    }
    let place =
        header.entries.checked_mul(sector)?.checked_add(u64::from(number - 1) * u64::from(header.size))?;
    let mut entry = [0; 128];
    disk.read_at(place, &mut entry)?;
    if bytes::<16>(&entry, 0) == [0; 16] {
        return None;
    }
    // The first three fields of a GUID are little-endian.
    let mut id = bytes::<16>(&entry, 16);
    for range in [0..4, 4..6, 6..8] {
        id.get_mut(range)?.reverse();
    }
    let mut label = String::new();
    let units = entry.get(56..)?.chunks_exact(2).map(|c| le16(c, 0)).take_while(|&u| u != 0);
    for c in char::decode_utf16(units) {
        // 36 UTF-16 units are at most 108 bytes of UTF-8.
        let _ = label.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Some(Partition { uuid: uuid(&id), label })
}

fn mbr_entry(disk: &dyn ReadAt, sector: u64, number: u32) -> Option<Partition> {
    let mut block = [0; 512];
    disk.read_at(0, &mut block)?;
    if bytes(&block, 510) != [0x55, 0xAA] {
        return None;
    }
    let id = le32(&block, 440);
    let exists = if number <= 4 {
        entry(&block, number - 1).0 != 0
    } else {
        let extended = (0..4).map(|i| entry(&block, i)).find(|(kind, _)| is_extended(*kind))?;
        logical(disk, sector, u64::from(extended.1), number - 5)?
    };
    if !exists {
        return None;
    }
    let mut uuid = String::new();
    // 8 digits, a dash and two to ten digits fit in 36.
    let _ = write!(uuid, "{id:08x}-{number:02x}");
    Some(Partition { uuid, label: String::new() })
}

/// Type and start of a primary entry.
fn entry(block: &[u8; 512], index: u32) -> (u8, u32) {
    let at = 446 + index as usize * 16;
    (bytes::<1>(block, at + 4)[0], le32(block, at + 8))
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0F | 0x85)
}

/// Whether the chain of extended boot records has a logical partition with this index.
fn logical(disk: &dyn ReadAt, sector: u64, base: u64, wanted: u32) -> Option<bool> {
    let mut record = base;
    let mut index = 0;
    for _ in 0..LOGICAL_MAX {
        let mut block = [0; 512];
        disk.read_at(record.checked_mul(sector)?, &mut block)?;
        if bytes(&block, 510) != [0x55, 0xAA] {
            return None;
        }
        let (kind, _) = entry(&block, 0);
        if kind != 0 && !is_extended(kind) {
            if index == wanted {
                return Some(true);
            }
            index += 1;
        }
        let (kind, next) = entry(&block, 1);
        if !is_extended(kind) || next == 0 {
            return None;
        }
        record = base.checked_add(u64::from(next))?;
    }
    None
}
