//! LZMA2, as the parts of deltas are packed: unpacked to a file that is also its dictionary.
//!
//! A decoder looks back as far as the dictionary goes, 32 MiB in libostree's parts, and so holds all of a part in
//! memory. This one keeps [`WINDOW`] bytes and reads what is further back from where it has written it. That is why
//! it is our own and none of the crates for it, which all hold the dictionary; it makes no difference to it how large
//! the dictionary is.
//!
//! Sources: the LZMA specification of the LZMA SDK (lzma-specification.txt), the description of LZMA2's chunks in
//! the documentation of XZ for Java and of xz-embedded.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::payload::{Bytes, PayloadError, Scratch, exact};

/// Bytes of what was unpacked that are kept in memory; a power of two, and a multiple of what is written at once.
pub const WINDOW: usize = 4 * 1024 * 1024;
/// Bytes that are written to the scratch file at once.
const FLUSH: usize = 128 * 1024;
/// Bytes that are read back at once, and how many such pieces are kept.
const BLOCK: usize = 4096;
const BLOCKS: usize = 64;
/// The longest match.
const MATCH_MAX: usize = 273;

/// Why packed data cannot be unpacked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LzmaError<E> {
    /// It cannot be read, or what is unpacked cannot be written or read back.
    Unreadable(E),
    /// It is damaged, or packed in a way that there is not.
    Damaged,
    /// It unpacks to more than it may.
    TooLarge,
}

impl<E> From<PayloadError<E>> for LzmaError<E> {
    fn from(error: PayloadError<E>) -> Self {
        match error {
            PayloadError::Unreadable(error) => LzmaError::Unreadable(error),
            _ => LzmaError::Damaged,
        }
    }
}

/// What was unpacked: the end of it in memory, all but that on the scratch file.
pub struct Window<'a, E> {
    scratch: &'a mut dyn Scratch<Error = E>,
    ring: Box<[u8; WINDOW]>,
    total: u64,
    written: u64,
    /// Since when the dictionary counts.
    base: u64,
    limit: u64,
    cache: Vec<u8>,
    cached: [u64; BLOCKS],
}

impl<'a, E> Window<'a, E> {
    /// Begins to write to an empty scratch file; `limit` bytes at most.
    pub fn new(scratch: &'a mut dyn Scratch<Error = E>, limit: u64) -> Self {
        let ring = vec![0; WINDOW].into_boxed_slice();
        // It has this length.
        let ring = ring.try_into().unwrap_or_else(|_| Box::new([0; WINDOW]));
        let cache = vec![0; BLOCK * BLOCKS];
        Window { scratch, ring, total: 0, written: 0, base: 0, limit, cache, cached: [u64::MAX; BLOCKS] }
    }

    /// Bytes unpacked so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn slot(at: u64) -> usize {
        at as usize & (WINDOW - 1)
    }

    /// Whether a match may begin this far back; the last byte is at 0.
    fn reaches(&self, distance: u64) -> bool {
        distance < self.total - self.base
    }

    fn put(&mut self, byte: u8) {
        if let Some(place) = self.ring.get_mut(Self::slot(self.total)) {
            *place = byte;
        }
        self.total += 1;
    }

    /// The last byte, 0 before the first.
    fn last(&self) -> u8 {
        if self.total == self.base {
            return 0;
        }
        self.ring.get(Self::slot(self.total - 1)).copied().unwrap_or(0)
    }

    /// The byte this far back, which must be reached.
    fn back(&mut self, distance: u64) -> Result<u8, LzmaError<E>> {
        let at = self.total - 1 - distance;
        if distance < WINDOW as u64 {
            return Ok(self.ring.get(Self::slot(at)).copied().unwrap_or(0));
        }
        self.old(at)
    }

    /// A byte that is no longer in memory.
    fn old(&mut self, at: u64) -> Result<u8, LzmaError<E>> {
        let block = at / BLOCK as u64;
        let index = block as usize % BLOCKS;
        let place = self.cache.get_mut(index * BLOCK..(index + 1) * BLOCK).ok_or(LzmaError::Damaged)?;
        let cached = self.cached.get_mut(index).ok_or(LzmaError::Damaged)?;
        if *cached != block {
            *cached = u64::MAX;
            exact_scratch(self.scratch, block * BLOCK as u64, place)?;
            *cached = block;
        }
        Ok(place.get(at as usize % BLOCK).copied().unwrap_or(0))
    }

    /// Repeats `length` bytes from this far back, which must be reached.
    fn repeat(&mut self, distance: u64, length: usize) -> Result<(), LzmaError<E>> {
        let (from, to) = (Self::slot(self.total - 1 - distance), Self::slot(self.total));
        let far = distance >= WINDOW as u64;
        let apart = distance >= length as u64;
        if !far && apart && from + length <= WINDOW && to + length <= WINDOW {
            self.ring.copy_within(from..from + length, to);
            self.total += length as u64;
            return Ok(());
        }
        for _ in 0..length {
            let byte = self.back(distance)?;
            self.put(byte);
        }
        Ok(())
    }

    /// Writes what there is to write, in pieces of one size that begin where a piece may.
    fn flush(&mut self) -> Result<(), LzmaError<E>> {
        while self.total - self.written >= FLUSH as u64 {
            self.write(FLUSH)?;
        }
        Ok(())
    }

    fn write(&mut self, size: usize) -> Result<(), LzmaError<E>> {
        let from = Self::slot(self.written);
        let piece = self.ring.get(from..from + size).ok_or(LzmaError::Damaged)?;
        self.scratch.append(piece).map_err(LzmaError::Unreadable)?;
        self.written += size as u64;
        Ok(())
    }

    /// Writes the rest, once nothing more comes.
    ///
    /// # Errors
    /// When the scratch file refuses it.
    pub fn finish(mut self) -> Result<u64, LzmaError<E>> {
        self.flush()?;
        self.write((self.total - self.written) as usize)?;
        Ok(self.total)
    }
}

/// As [`exact`], from the scratch file.
fn exact_scratch<E>(
    scratch: &mut dyn Scratch<Error = E>,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), LzmaError<E>> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match scratch.read_at(offset + done as u64, rest).map_err(LzmaError::Unreadable)? {
            0 => return Err(LzmaError::Damaged),
            count => done += count,
        }
    }
    Ok(())
}

/// Where the probabilities of each kind of symbol are.
mod place {
    pub const IS_MATCH: usize = 0;
    pub const IS_REP: usize = IS_MATCH + 12 * 16;
    pub const IS_REP_0: usize = IS_REP + 12;
    pub const IS_REP_1: usize = IS_REP_0 + 12;
    pub const IS_REP_2: usize = IS_REP_1 + 12;
    pub const IS_REP_0_LONG: usize = IS_REP_2 + 12;
    pub const SLOT: usize = IS_REP_0_LONG + 12 * 16;
    pub const SPECIAL: usize = SLOT + 4 * 64;
    pub const ALIGN: usize = SPECIAL + 128;
    pub const LENGTH: usize = ALIGN + 16;
    pub const LENGTH_SIZE: usize = 2 + 2 * 16 * 8 + 256;
    pub const REP_LENGTH: usize = LENGTH + LENGTH_SIZE;
    pub const LITERAL: usize = REP_LENGTH + LENGTH_SIZE;
    /// lc + lp is 4 at most.
    pub const ALL: usize = LITERAL + (0x300 << 4);
}

/// The range decoder over the bytes of one chunk.
struct Range<'a> {
    data: core::slice::Iter<'a, u8>,
    range: u32,
    code: u32,
    probabilities: &'a mut [u16; place::ALL],
    /// It needed more bytes than there are, or a probability that there is not.
    broken: bool,
}

impl<'a> Range<'a> {
    fn new(data: &'a [u8], probabilities: &'a mut [u16; place::ALL]) -> Option<Self> {
        let (first, rest) = data.split_at_checked(5)?;
        let (zero, code) = first.split_first()?;
        let code = u32::from_be_bytes(code.try_into().ok()?);
        (*zero == 0).then(|| Range { data: rest.iter(), range: u32::MAX, code, probabilities, broken: false })
    }

    #[inline(always)]
    fn normalize(&mut self) {
        if self.range < 1 << 24 {
            let byte = match self.data.next() {
                Some(byte) => *byte,
                None => {
                    self.broken = true;
                    0
                }
            };
            self.range <<= 8;
            self.code = self.code << 8 | u32::from(byte);
        }
    }

    #[inline(always)]
    fn bit(&mut self, index: usize) -> usize {
        self.normalize();
        let Some(probability) = self.probabilities.get_mut(index) else {
            self.broken = true;
            return 0;
        };
        let bound = (self.range >> 11) * u32::from(*probability);
        if self.code < bound {
            self.range = bound;
            *probability += (2048 - *probability) >> 5;
            0
        } else {
            self.range -= bound;
            self.code -= bound;
            *probability -= *probability >> 5;
            1
        }
    }

    /// Bits that all have the same probability.
    fn direct(&mut self, count: u32) -> u32 {
        (0..count).fold(0, |value, _| {
            self.normalize();
            self.range >>= 1;
            let bit = u32::from(self.code >= self.range);
            self.code -= self.range * bit;
            value << 1 | bit
        })
    }

    #[inline(always)]
    fn tree(&mut self, base: usize, bits: u32) -> usize {
        (0..bits).fold(1, |symbol, _| symbol << 1 | self.bit(base + symbol)) - (1 << bits)
    }

    /// The lowest bit first.
    fn reverse_tree(&mut self, base: usize, bits: u32) -> u32 {
        let (mut symbol, mut value) = (1, 0);
        for place in 0..bits {
            let bit = self.bit(base + symbol);
            symbol = symbol << 1 | bit;
            value |= (bit as u32) << place;
        }
        value
    }

    fn length(&mut self, base: usize, pos_state: usize) -> usize {
        if self.bit(base) == 0 {
            2 + self.tree(base + 2 + pos_state * 8, 3)
        } else if self.bit(base + 1) == 0 {
            10 + self.tree(base + 2 + 128 + pos_state * 8, 3)
        } else {
            18 + self.tree(base + 2 + 256, 8)
        }
    }

    fn distance(&mut self, length: usize) -> u32 {
        let slot = self.tree(place::SLOT + (length - 2).min(3) * 64, 6) as u32;
        if slot < 4 {
            return slot;
        }
        let bits = (slot >> 1) - 1;
        let high = (2 | (slot & 1)) << bits;
        if slot < 14 {
            return high + self.reverse_tree(place::SPECIAL + high as usize - slot as usize, bits);
        }
        let middle = self.direct(bits - 4) << 4;
        high.wrapping_add(middle).wrapping_add(self.reverse_tree(place::ALIGN, 4))
    }

    /// Whether it ended where the chunk does.
    fn ends(mut self) -> bool {
        self.normalize();
        !self.broken && self.code == 0 && self.data.as_slice().is_empty()
    }
}

/// How literals are told apart, `lc`, `lp`, `pb`.
#[derive(Clone, Copy)]
struct Properties {
    literal_context: u32,
    literal_position: u64,
    position: u64,
}

impl Properties {
    fn parse(byte: u8) -> Option<Self> {
        let (lc, lp, pb) = (byte % 9, byte / 9 % 5, byte / 45);
        let legal = lc + lp <= 4 && pb <= 4;
        legal.then(|| Properties {
            literal_context: u32::from(lc),
            literal_position: (1 << lp) - 1,
            position: (1 << pb) - 1,
        })
    }
}

/// The decoder of a stream of LZMA2 chunks.
struct Decoder {
    probabilities: Box<[u16; place::ALL]>,
    properties: Option<Properties>,
    state: usize,
    distances: [u32; 4],
    /// Whether the state was set since the last dictionary.
    ready: bool,
}

impl Decoder {
    fn new() -> Self {
        let probabilities = Box::new([0; place::ALL]);
        Decoder { probabilities, properties: None, state: 0, distances: [0; 4], ready: false }
    }

    fn reset(&mut self) {
        self.probabilities.fill(1024);
        (self.state, self.distances, self.ready) = (0, [0; 4], true);
    }

    /// Unpacks one chunk to `size` bytes.
    fn chunk<E>(&mut self, window: &mut Window<'_, E>, data: &[u8], size: usize) -> Result<(), LzmaError<E>> {
        let properties = self.properties.filter(|_| self.ready).ok_or(LzmaError::Damaged)?;
        let mut range = Range::new(data, &mut self.probabilities).ok_or(LzmaError::Damaged)?;
        let end = window.total + size as u64;
        let mut state = self.state;
        let [mut d0, mut d1, mut d2, mut d3] = self.distances;
        while window.total < end {
            let position = window.total - window.base;
            let pos_state = (position & properties.position) as usize;
            if range.bit(place::IS_MATCH + state * 16 + pos_state) == 0 {
                let context = window.last() >> (8 - properties.literal_context).min(8).min(7);
                let context = if properties.literal_context == 0 { 0 } else { usize::from(context) };
                let high = ((position & properties.literal_position) << properties.literal_context) as usize;
                let base = place::LITERAL + (high + context) * 0x300;
                let mut symbol = 1;
                if state >= 7 {
                    if !window.reaches(u64::from(d0)) {
                        return Err(LzmaError::Damaged);
                    }
                    let mut guess = usize::from(window.back(u64::from(d0))?);
                    while symbol < 0x100 {
                        let expected = (guess >> 7) & 1;
                        guess <<= 1;
                        let bit = range.bit(base + ((1 + expected) << 8) + symbol);
                        symbol = symbol << 1 | bit;
                        if bit != expected {
                            break;
                        }
                    }
                }
                while symbol < 0x100 {
                    symbol = symbol << 1 | range.bit(base + symbol);
                }
                window.put(symbol as u8);
                state = match state {
                    0..=3 => 0,
                    4..=9 => state - 3,
                    _ => state - 6,
                };
            } else {
                let mut length = 1;
                if range.bit(place::IS_REP + state) == 0 {
                    (d3, d2, d1) = (d2, d1, d0);
                    length = range.length(place::LENGTH, pos_state);
                    d0 = range.distance(length);
                    state = if state < 7 { 7 } else { 10 };
                } else if range.bit(place::IS_REP_0 + state) == 0 {
                    if range.bit(place::IS_REP_0_LONG + state * 16 + pos_state) == 0 {
                        state = if state < 7 { 9 } else { 11 };
                    } else {
                        length = range.length(place::REP_LENGTH, pos_state);
                        state = if state < 7 { 8 } else { 11 };
                    }
                } else {
                    if range.bit(place::IS_REP_1 + state) == 0 {
                        (d0, d1) = (d1, d0);
                    } else if range.bit(place::IS_REP_2 + state) == 0 {
                        (d0, d1, d2) = (d2, d0, d1);
                    } else {
                        (d0, d1, d2, d3) = (d3, d0, d1, d2);
                    }
                    length = range.length(place::REP_LENGTH, pos_state);
                    state = if state < 7 { 8 } else { 11 };
                }
                // No match goes on in the next chunk, and there is no mark for the end.
                let fits = length as u64 <= end - window.total && length <= MATCH_MAX;
                if !fits || !window.reaches(u64::from(d0)) {
                    return Err(LzmaError::Damaged);
                }
                window.repeat(u64::from(d0), length)?;
            }
            if window.total - window.written >= FLUSH as u64 {
                window.flush()?;
            }
            if range.broken {
                return Err(LzmaError::Damaged);
            }
        }
        (self.state, self.distances) = (state, [d0, d1, d2, d3]);
        if range.ends() { Ok(()) } else { Err(LzmaError::Damaged) }
    }
}

/// Unpacks a stream of LZMA2 that begins at `at`, to its end, and returns where that is.
///
/// # Errors
/// See [`LzmaError`].
pub fn unpack<E>(
    bytes: &mut dyn Bytes<Error = E>,
    mut at: u64,
    window: &mut Window<'_, E>,
) -> Result<u64, LzmaError<E>> {
    let mut decoder = Decoder::new();
    let mut chunk = vec![0; 1 << 16];
    let mut dictionary = false;
    loop {
        let mut control = [0; 1];
        exact(bytes, at, &mut control)?;
        at += 1;
        let [control] = control;
        if control == 0 {
            return Ok(at);
        }
        // 1: a new dictionary; from 0xe0: that too.
        if control == 1 || control >= 0xe0 {
            window.base = window.total;
            (dictionary, decoder.ready, decoder.properties) = (true, false, None);
        }
        if !dictionary || (3..0x80).contains(&control) {
            return Err(LzmaError::Damaged);
        }
        let mut size = [0; 2];
        exact(bytes, at, &mut size)?;
        at += 2;
        let low = usize::from(u16::from_be_bytes(size));
        let size = if control < 0x80 { low + 1 } else { (usize::from(control & 0x1f) << 16) + low + 1 };
        let total = window.total.checked_add(size as u64).filter(|total| *total <= window.limit);
        total.ok_or(LzmaError::TooLarge)?;
        let mut packed = size;
        if control >= 0x80 {
            let mut head = [0; 3];
            let length = if control >= 0xc0 { 3 } else { 2 };
            exact(bytes, at, head.get_mut(..length).ok_or(LzmaError::Damaged)?)?;
            at += length as u64;
            let [high, low, properties] = head;
            packed = usize::from(u16::from_be_bytes([high, low])) + 1;
            if control >= 0xc0 {
                decoder.properties = Some(Properties::parse(properties).ok_or(LzmaError::Damaged)?);
            }
            if control >= 0xa0 {
                decoder.reset();
            }
        }
        let data = chunk.get_mut(..packed).ok_or(LzmaError::Damaged)?;
        exact(bytes, at, data)?;
        at += packed as u64;
        if control >= 0x80 {
            decoder.chunk(window, data, size)?;
        } else {
            data.iter().for_each(|byte| window.put(*byte));
            window.flush()?;
        }
    }
}
