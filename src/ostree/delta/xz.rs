//! The container that LZMA2 comes in: one stream, its blocks, the index of them.
//!
//! The format is that of "The .xz File Format", version 1.2.1. The check of the content (CRC64 in libostree's parts) is
//! skipped and not computed: a part is only looked into when it has the SHA-256 that the superblock names, and what
//! comes out of it when it has its own.

use alloc::vec::Vec;

use super::lzma::{self, LzmaError, Window};
use super::payload::{Bytes, Scratch, exact};

/// The most blocks of a stream; libostree's have one.
pub const BLOCKS_MAX: usize = 1024;

const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const FOOTER_MAGIC: [u8; 2] = *b"YZ";
/// The filter's number.
const LZMA2: u64 = 0x21;
/// The largest size of a dictionary, in the code of the format.
const DICTIONARY_MAX: u8 = 40;

/// Unpacks all of `bytes` to a scratch file that is empty, to `limit` bytes at most, and says how many came out.
///
/// # Errors
/// See [`LzmaError`].
pub fn unpack<E>(
    bytes: &mut dyn Bytes<Error = E>,
    scratch: &mut dyn Scratch<Error = E>,
    limit: u64,
) -> Result<u64, LzmaError<E>> {
    let mut head = [0; 12];
    exact(bytes, 0, &mut head)?;
    let [m0, m1, m2, m3, m4, m5, zero, check, sum @ ..] = head;
    let flags = [zero, check];
    if [m0, m1, m2, m3, m4, m5] != MAGIC || zero != 0 || check > 15 || crc(&flags) != sum {
        return Err(LzmaError::Damaged);
    }
    let check_size = if check == 0 { 0 } else { 4u64 << ((check - 1) / 3) };
    let mut window = Window::new(scratch, limit);
    let mut records = Vec::new();
    let mut at = 12;
    loop {
        let mut size = [0; 1];
        exact(bytes, at, &mut size)?;
        if size == [0] {
            break;
        }
        if records.len() == BLOCKS_MAX {
            return Err(LzmaError::Damaged);
        }
        let [size] = size;
        let start = (at, window.total());
        let sizes = block_header(bytes, at, size)?;
        at += (u64::from(size) + 1) * 4;
        let data = at;
        at = lzma::unpack(bytes, at, &mut window)?;
        let unpacked = window.total() - start.1;
        if sizes[0].is_some_and(|told| told != at - data) || sizes[1].is_some_and(|told| told != unpacked) {
            return Err(LzmaError::Damaged);
        }
        let end = at + check_size;
        at = zeros(bytes, at, start.0)?;
        records.push((end - start.0, unpacked));
        at += check_size;
    }
    let index = at;
    let mut reader = Reader { bytes, at: at + 1 };
    if reader.number()? != records.len() as u64 {
        return Err(LzmaError::Damaged);
    }
    for (size, unpacked) in records {
        if reader.number()? != size || reader.number()? != unpacked {
            return Err(LzmaError::Damaged);
        }
    }
    at = reader.at;
    at = zeros(bytes, at, index)?;
    let mut sum = crc32fast::Hasher::new();
    let mut place = index;
    while place < at {
        let mut piece = [0; 4];
        exact(bytes, place, &mut piece)?;
        sum.update(&piece);
        place += 4;
    }
    let mut tail = [0; 16];
    exact(bytes, at, &mut tail)?;
    let [i0, i1, i2, i3, f0, f1, f2, f3, b0, b1, b2, b3, t0, t1, magic @ ..] = tail;
    let told = (u64::from(u32::from_le_bytes([b0, b1, b2, b3])) + 1) * 4;
    let whole = [i0, i1, i2, i3] == sum.finalize().to_le_bytes()
        && [f0, f1, f2, f3] == crc(&[b0, b1, b2, b3, t0, t1])
        && told == at + 4 - index
        && [t0, t1] == flags
        && magic == FOOTER_MAGIC
        && at + 16 == bytes.size();
    if !whole {
        return Err(LzmaError::Damaged);
    }
    window.finish()
}

fn crc(data: &[u8]) -> [u8; 4] {
    crc32fast::hash(data).to_le_bytes()
}

/// Skips the zeros that fill up to a multiple of four bytes from `start`.
fn zeros<E>(bytes: &mut dyn Bytes<Error = E>, at: u64, start: u64) -> Result<u64, LzmaError<E>> {
    let mut fill = [0; 3];
    let count = (at - start).next_multiple_of(4) - (at - start);
    let fill = fill.get_mut(..count as usize).unwrap_or_default();
    exact(bytes, at, fill)?;
    if fill.iter().any(|byte| *byte != 0) { Err(LzmaError::Damaged) } else { Ok(at + count) }
}

/// Checks the header of a block, whose size byte this is, and returns the sizes that it tells, packed and unpacked.
fn block_header<E>(
    bytes: &mut dyn Bytes<Error = E>,
    at: u64,
    size: u8,
) -> Result<[Option<u64>; 2], LzmaError<E>> {
    let mut header = [0; 1024];
    let header = header.get_mut(..(usize::from(size) + 1) * 4).ok_or(LzmaError::Damaged)?;
    exact(bytes, at, header)?;
    let (header, sum) = header.split_last_chunk::<4>().ok_or(LzmaError::Damaged)?;
    let flags = header.get(1).copied().ok_or(LzmaError::Damaged)?;
    // One filter, and nothing that is reserved.
    if crc(header) != *sum || flags & 0x3f != 0 {
        return Err(LzmaError::Damaged);
    }
    let mut rest = super::payload::Memory::<E>::new(header);
    let mut reader = Reader { bytes: &mut rest, at: 2 };
    let mut read = || reader.number().map_err(|_| LzmaError::Damaged);
    let packed = if flags & 0x40 != 0 { Some(read()?) } else { None };
    let unpacked = if flags & 0x80 != 0 { Some(read()?) } else { None };
    if read()? != LZMA2 || read()? != 1 {
        return Err(LzmaError::Damaged);
    }
    let at = reader.at as usize;
    let (dictionary, padding) =
        header.get(at..).and_then(|rest| rest.split_first()).ok_or(LzmaError::Damaged)?;
    let legal = *dictionary <= DICTIONARY_MAX && padding.iter().all(|byte| *byte == 0);
    if legal { Ok([packed, unpacked]) } else { Err(LzmaError::Damaged) }
}

/// Reads the numbers of the format.
struct Reader<'a, E> {
    bytes: &'a mut dyn Bytes<Error = E>,
    at: u64,
}

impl<E> Reader<'_, E> {
    /// Up to nine bytes of seven bits, the lowest first, in the shortest form.
    fn number(&mut self) -> Result<u64, LzmaError<E>> {
        let mut value = 0;
        for place in 0..9 {
            let mut byte = [0; 1];
            exact(self.bytes, self.at, &mut byte)?;
            self.at += 1;
            let [byte] = byte;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return if byte == 0 && place > 0 { Err(LzmaError::Damaged) } else { Ok(value) };
            }
        }
        Err(LzmaError::Damaged)
    }
}
