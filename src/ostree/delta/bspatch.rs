//! One file made of another and their difference, as bsdiff writes it into a part: triples of numbers, each with the bytes
//! that are added to the old ones and those that are new. Not packed, since the part is.
//!
//! The numbers come from outside, and the original of this program wrote beyond its buffer for some of them
//! (CVE-2014-9862). Here nothing is held that could be left: what comes out is passed on as it is made, and must be as
//! long as was said.

/// Bytes that are handled at once.
const PIECE: usize = 32 * 1024;

/// Where the bytes come from and go to.
pub trait Patch {
    /// What can go wrong there.
    type Error;

    /// Fills the buffer with what comes next of the difference.
    ///
    /// # Errors
    /// When there is not that much.
    fn difference(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Reads old bytes from an offset: less than there is room for at the end only.
    ///
    /// # Errors
    /// As pread(2).
    fn old(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Self::Error>;

    /// Takes what comes out.
    ///
    /// # Errors
    /// As write(2).
    fn made(&mut self, data: &[u8]) -> Result<(), Self::Error>;
}

/// Why there is no new file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchError<E> {
    /// See [`Patch`].
    Other(E),
    /// A number is negative, or leads beyond the new file or out of all numbers.
    Control,
    /// Too many triples that make nothing.
    Idle,
}

/// Makes `size` bytes.
///
/// # Errors
/// See [`PatchError`].
pub fn apply<P: Patch>(patch: &mut P, size: u64) -> Result<(), PatchError<P::Error>> {
    let mut piece = alloc::vec![0; PIECE];
    let mut read = alloc::vec![0; PIECE];
    let (mut done, mut place) = (0u64, 0i64);
    // Each triple that bsdiff writes makes something, but for one here and there.
    let mut idle = 64 + size / 8;
    while done < size {
        let mut numbers = [[0; 8]; 3];
        patch.difference(numbers.as_flattened_mut()).map_err(PatchError::Other)?;
        let [add, extra, seek] = numbers.map(signed);
        let (add, extra) = (length(add)?, length(extra)?);
        done.checked_add(add)
            .and_then(|sum| sum.checked_add(extra))
            .filter(|sum| *sum <= size)
            .ok_or(PatchError::Control)?;
        if add + extra == 0 {
            idle = idle.checked_sub(1).ok_or(PatchError::Idle)?;
        }
        for (mut left, old) in [(add, true), (extra, false)] {
            while left > 0 {
                let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let bytes = piece.get_mut(..count).unwrap_or_default();
                patch.difference(bytes).map_err(PatchError::Other)?;
                if old {
                    let to = read.get_mut(..count).unwrap_or_default();
                    add_old(patch, place, bytes, to).map_err(PatchError::Other)?;
                    place = place.checked_add(count as i64).ok_or(PatchError::Control)?;
                }
                patch.made(bytes).map_err(PatchError::Other)?;
                left -= count as u64;
            }
        }
        done += add + extra;
        place = place.checked_add(seek).ok_or(PatchError::Control)?;
    }
    Ok(())
}

/// Adds what is at this place of the old file; before it and after it there is nothing.
fn add_old<P: Patch>(patch: &mut P, place: i64, bytes: &mut [u8], read: &mut [u8]) -> Result<(), P::Error> {
    let before = if place < 0 { place.unsigned_abs() } else { 0 };
    let skip = usize::try_from(before).unwrap_or(usize::MAX).min(bytes.len());
    let (Some(bytes), Some(read)) = (bytes.get_mut(skip..), read.get_mut(skip..)) else { return Ok(()) };
    let mut offset = u64::try_from(place).unwrap_or(0);
    let mut done = 0;
    while let Some(rest) = read.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match patch.old(offset, rest)? {
            0 => break,
            count => {
                done += count;
                offset = offset.saturating_add(count as u64);
            }
        }
    }
    for (byte, old) in bytes.iter_mut().zip(read.iter().take(done)) {
        *byte = byte.wrapping_add(*old);
    }
    Ok(())
}

/// Lowest byte first, and the highest bit the sign.
fn signed(bytes: [u8; 8]) -> i64 {
    let raw = u64::from_le_bytes(bytes);
    let value = (raw & !(1 << 63)).cast_signed();
    if raw >> 63 == 0 { value } else { -value }
}

fn length<E>(number: i64) -> Result<u64, PatchError<E>> {
    u64::try_from(number).ok().filter(|n| *n <= i32::MAX as u64).ok_or(PatchError::Control)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    struct Plain<'a> {
        difference: &'a [u8],
        old: &'a [u8],
        new: Vec<u8>,
    }

    impl Patch for Plain<'_> {
        type Error = ();

        fn difference(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
            let (first, rest) = self.difference.split_at_checked(buffer.len()).ok_or(())?;
            buffer.copy_from_slice(first);
            self.difference = rest;
            Ok(())
        }

        fn old(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, ()> {
            let rest = usize::try_from(offset).ok().and_then(|at| self.old.get(at..)).unwrap_or_default();
            Ok(buffer.iter_mut().zip(rest).map(|(to, from)| *to = *from).count())
        }

        fn made(&mut self, data: &[u8]) -> Result<(), ()> {
            self.new.extend_from_slice(data);
            Ok(())
        }
    }

    fn number(n: i64) -> [u8; 8] {
        (n.unsigned_abs() | if n < 0 { 1 << 63 } else { 0 }).to_le_bytes()
    }

    fn patched(
        triples: &[(i64, i64, i64)],
        bytes: &[u8],
        old: &[u8],
        size: u64,
    ) -> Result<Vec<u8>, PatchError<()>> {
        let mut difference = Vec::new();
        let mut bytes = bytes;
        for &(add, extra, seek) in triples {
            [add, extra, seek].iter().for_each(|n| difference.extend(number(*n)));
            let count = usize::try_from(add.saturating_add(extra)).unwrap_or(0).min(bytes.len());
            let (first, rest) = bytes.split_at(count);
            difference.extend(first);
            bytes = rest;
        }
        let mut plain = Plain { difference: &difference, old, new: Vec::new() };
        apply(&mut plain, size).map(|()| plain.new)
    }

    #[test]
    fn a_file_is_made() {
        let made = patched(&[(2, 1, 1), (2, 0, -9)], &[1, 0, b'x', 0, 1], b"abcdef", 5);
        assert_eq!(made.unwrap(), b"bbxdf");
        assert_eq!(patched(&[], b"", b"", 0), Ok(Vec::new()));
    }

    #[test]
    fn places_outside_of_the_old_file_add_nothing() {
        let made = patched(&[(0, 0, -2), (5, 0, 0)], b"\x01\x02\x03\x04\x05", b"ab", 5);
        assert_eq!(made.unwrap(), [1, 2, b'a' + 3, b'b' + 4, 5]);
        let far = patched(&[(0, 0, i64::MAX), (1, 0, 0)], b"z", b"ab", 1);
        assert_eq!(far, Err(PatchError::Control));
        assert_eq!(patched(&[(0, 0, -i64::MAX), (1, 0, 0)], b"z", b"ab", 1).unwrap(), b"z");
        let further = patched(&[(0, 0, -i64::MAX), (0, 0, -i64::MAX), (1, 0, 0)], b"z", b"ab", 1);
        assert_eq!(further, Err(PatchError::Control));
    }

    #[test]
    fn hostile_numbers_are_refused() {
        // The first two are those of CVE-2014-9862.
        let negative: [(i64, i64, i64); 7] = [
            (-1, 0, 0),
            (0, -1, 0),
            (i64::MIN + 1, 1, 0),
            (i64::MAX, 1, 0),
            (1 << 31, 0, 0),
            (2, 2, 0),
            (4, 0, 0),
        ];
        for triple in negative {
            assert_eq!(patched(&[triple], b"abcdefgh", b"ab", 3), Err(PatchError::Control), "{triple:?}");
        }
        assert_eq!(patched(&[(3, 0, 0)], b"ab", b"", 3), Err(PatchError::Other(())));
        assert_eq!(patched(&[(0, 0, 0); 1000], b"", b"", 3), Err(PatchError::Idle));
    }
}
