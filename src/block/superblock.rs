//! Which file system is on a device, with its UUID and label written as libblkid prints them.
//!
//! Offsets and magic numbers are those of the kernel's headers and of each file system's documentation:
//! ext2/3/4 (fs/ext4/ext4.h), xfs, btrfs, f2fs, FAT, erofs, squashfs.

use core::fmt::Write;

use heapless::String;

use super::ReadAt;
use super::field::{bytes, le16, le32};

/// A recognised file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Its type, as mount(8) wants it.
    pub kind: &'static str,
    /// Its UUID or serial number; empty where it has none.
    pub uuid: String<36>,
    /// Its label; empty where it has none. At most 64 bytes are kept of longer ones.
    pub label: String<64>,
}

/// Looks for a file system at the start of a device.
pub fn probe(device: &dyn ReadAt) -> Option<Superblock> {
    const PROBES: [fn(&dyn ReadAt) -> Option<Superblock>; 7] = [ext, xfs, btrfs, f2fs, erofs, squashfs, fat];
    PROBES.iter().find_map(|probe| probe(device))
}

fn read<const N: usize>(device: &dyn ReadAt, offset: u64) -> Option<[u8; N]> {
    let mut buffer = [0; N];
    device.read_at(offset, &mut buffer)?;
    Some(buffer)
}

fn ext(device: &dyn ReadAt) -> Option<Superblock> {
    let block: [u8; 1024] = read(device, 1024)?;
    if le16(&block, 56) != 0xEF53 {
        return None;
    }
    let (compatible, incompatible, read_only) = (le32(&block, 92), le32(&block, 96), le32(&block, 100));
    // An external journal is no file system.
    if incompatible & 0x8 != 0 {
        return None;
    }
    let has_journal = compatible & 0x4 != 0;
    // What ext3 knows: sparse super, large file, btree dir; filetype, recover, meta_bg.
    let beyond_ext3 = incompatible & !0x16 != 0 || read_only & !0x7 != 0;
    let kind = match (has_journal, beyond_ext3) {
        (_, true) => "ext4",
        (true, false) => "ext3",
        (false, false) => "ext2",
    };
    Some(found(kind, uuid(&bytes(&block, 104)), &bytes::<16>(&block, 120)))
}

fn xfs(device: &dyn ReadAt) -> Option<Superblock> {
    let block: [u8; 512] = read(device, 0)?;
    block.starts_with(b"XFSB").then(|| found("xfs", uuid(&bytes(&block, 32)), &bytes::<12>(&block, 108)))
}

fn btrfs(device: &dyn ReadAt) -> Option<Superblock> {
    let block: [u8; 1024] = read(device, 0x1_0000)?;
    (bytes(&block, 64) == *b"_BHRfS_M")
        .then(|| found("btrfs", uuid(&bytes(&block, 32)), &bytes::<256>(&block, 299)))
}

fn f2fs(device: &dyn ReadAt) -> Option<Superblock> {
    let block: [u8; 2048] = read(device, 1024)?;
    if le32(&block, 0) != 0xF2F5_2010 {
        return None;
    }
    let mut label = String::new();
    let units = block.get(124..).unwrap_or(&[]).chunks_exact(2).map(|c| le16(c, 0)).take_while(|&u| u != 0);
    for c in char::decode_utf16(units.take(512)) {
        if label.push(c.unwrap_or(char::REPLACEMENT_CHARACTER)).is_err() {
            break;
        }
    }
    Some(Superblock { kind: "f2fs", uuid: uuid(&bytes(&block, 108)), label })
}

fn erofs(device: &dyn ReadAt) -> Option<Superblock> {
    let block: [u8; 128] = read(device, 1024)?;
    (le32(&block, 0) == 0xE0F5_E1E2)
        .then(|| found("erofs", uuid(&bytes(&block, 48)), &bytes::<16>(&block, 64)))
}

fn squashfs(device: &dyn ReadAt) -> Option<Superblock> {
    let block: [u8; 96] = read(device, 0)?;
    (block.starts_with(b"hsqs") && le16(&block, 28) == 4).then(|| found("squashfs", String::new(), &[]))
}

/// FAT12, FAT16 and FAT32; a boot sector has no true magic number, so its geometry must make sense too.
fn fat(device: &dyn ReadAt) -> Option<Superblock> {
    let sector: [u8; 512] = read(device, 0)?;
    let sector_size = le16(&sector, 11);
    let cluster = bytes::<1>(&sector, 13)[0];
    let reserved = le16(&sector, 14);
    let copies = bytes::<1>(&sector, 16)[0];
    let sane = bytes(&sector, 510) == [0x55, 0xAA]
        && matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && reserved != 0
        && (1..=2).contains(&copies)
        && bytes::<1>(&sector, 21)[0] >= 0xF0;
    if !sane {
        return None;
    }
    let entries = u64::from(le16(&sector, 17));
    let is_32 = le16(&sector, 22) == 0;
    let extended = if is_32 { 64 } else { 36 };
    let signature = bytes::<1>(&sector, extended + 2)[0];
    if is_32 && &bytes::<8>(&sector, 82) != b"FAT32   " || !matches!(signature, 0x28 | 0x29) {
        return None;
    }
    let serial = le32(&sector, extended + 3);
    let mut id = String::new();
    // 9 characters fit in 36.
    let _ = write!(id, "{:04X}-{:04X}", serial >> 16, serial & 0xFFFF);
    let size = u64::from(sector_size);
    let table = u64::from(if is_32 { le32(&sector, 36) } else { u32::from(le16(&sector, 22)) });
    let root = (u64::from(reserved) + u64::from(copies) * table) * size;
    let (start, length) = if is_32 {
        let first = u64::from(le32(&sector, 44).saturating_sub(2)) * u64::from(cluster) * size;
        (root.saturating_add(first), u64::from(cluster) * size)
    } else {
        (root, entries * 32)
    };
    let label =
        fat_label(device, start, length.min(64 * 1024)).unwrap_or_else(|| bytes(&sector, extended + 7));
    let label = if &label == b"NO NAME    " { [b' '; 11] } else { label };
    Some(found("vfat", if serial == 0 { String::new() } else { id }, &label))
}

/// The volume label among the entries of the root directory, which counts more than the boot sector's.
fn fat_label(device: &dyn ReadAt, start: u64, length: u64) -> Option<[u8; 11]> {
    for index in 0..length / 32 {
        let entry: [u8; 32] = read(device, start.checked_add(index * 32)?)?;
        match (entry[0], entry[11]) {
            (0, _) => return None,
            (0xE5, _) | (_, 0x0F) => {}
            (_, attributes) if attributes & 0x18 == 0x08 => return Some(bytes(&entry, 0)),
            _ => {}
        }
    }
    None
}

fn found(kind: &'static str, uuid: String<36>, label: &[u8]) -> Superblock {
    let end = label.iter().position(|&b| b == 0).unwrap_or(label.len());
    let text = label.get(..end).unwrap_or(&[]);
    let mut out = String::new();
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if out.push(c).is_err() {
                break;
            }
        }
    }
    // FAT pads with spaces.
    while kind == "vfat" && out.ends_with(' ') {
        out.pop();
    }
    Superblock { kind, uuid, label: out }
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`; empty when it is all zero.
pub(super) fn uuid(id: &[u8; 16]) -> String<36> {
    let mut text = String::new();
    if *id == [0; 16] {
        return text;
    }
    for (index, byte) in id.iter().enumerate() {
        // 32 digits and 4 dashes fit.
        let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}
