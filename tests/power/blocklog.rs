//! The log that QEMU's `blklogwrites` filter writes, in the format of the kernel's dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock sector, then for each request a
//! header sector and its data.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a sector, in the log and on the disk.
pub const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One request that reached the disk.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it writes, in bytes; empty for a mere flush.
    pub range: Range<u64>,
    /// What it writes; empty for a flush or a discard.
    pub data: Vec<u8>,
    /// Everything written before it is durable once it is done.
    pub flush: bool,
    /// It is durable itself once it is done.
    pub durable: bool,
}

impl Request {
    /// Whether it changes the disk.
    pub fn writes(&self) -> bool {
        !self.data.is_empty()
    }
}

/// Reads a whole log.
///
/// # Errors
/// When the file is no such log or ends early.
pub fn read(path: &Path) -> io::Result<Vec<Request>> {
    let file = File::open(path)?;
    let mut sector = [0; SECTOR];
    file.read_exact_at(&mut sector, 0)?;
    let bad = |what: &str| io::Error::other(format!("{}: {what}", path.display()));
    if word(&sector, 0) != MAGIC || word(&sector, 1) != 1 {
        return Err(bad("no log of block writes, version 1"));
    }
    let count = word(&sector, 2);
    if u32::from_le_bytes(sector[24..28].try_into().unwrap()) as usize != SECTOR {
        return Err(bad("its sectors are not 512 bytes"));
    }
    let mut requests = Vec::new();
    let mut at = SECTOR as u64;
    for _ in 0..count {
        file.read_exact_at(&mut sector, at)?;
        at += SECTOR as u64;
        let (start, length) = (word(&sector, 0) * SECTOR as u64, word(&sector, 1) * SECTOR as u64);
        let flags = word(&sector, 2);
        if flags & MARK != 0 {
            at += word(&sector, 3);
            continue;
        }
        if flags & DISCARD != 0 {
            return Err(bad("a discard, which the replay does not know"));
        }
        let mut data = vec![0; length as usize];
        file.read_exact_at(&mut data, at)?;
        at += length;
        let (flush, durable) = (flags & FLUSH != 0, flags & FUA != 0);
        requests.push(Request { range: start..start + length, data, flush, durable });
    }
    Ok(requests)
}

/// The `n`th little-endian word of a sector.
fn word(sector: &[u8; SECTOR], n: usize) -> u64 {
    u64::from_le_bytes(sector[8 * n..8 * n + 8].try_into().unwrap())
}
