//! GVariant in normal form: the few shapes that OSTree's objects are made of.
//!
//! The serialisation is that of the GVariant specification 1.0 (<https://docs.gtk.org/glib/gvariant-specification-1.0.html>).
//! A reader that is lenient replaces what it does not understand by defaults; this one refuses it, padding that is
//! not zero included, so that bytes have one meaning or none.

use alloc::vec::Vec;

/// A kind of value inside a tuple: what its place needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// 1, 4 or 8.
    align: usize,
    /// The size of a number; everything else is as long as its framing offset says.
    fixed: Option<usize>,
}

impl Member {
    pub(super) fn align(self) -> usize {
        self.align
    }

    pub(super) fn is_fixed(self) -> bool {
        self.fixed.is_some()
    }
}

/// `s`, `ay`, and arrays of those: at any byte.
pub const BYTES: Member = Member { align: 1, fixed: None };
/// `y`.
pub const BYTE: Member = Member { align: 1, fixed: Some(1) };
/// `u`.
pub const U32: Member = Member { align: 4, fixed: Some(4) };
/// `t`.
pub const U64: Member = Member { align: 8, fixed: Some(8) };
/// `v`, `a{sv}`: what holds a value of any type.
pub const VARIANT: Member = Member { align: 8, fixed: None };

/// Bytes of one framing offset in a container of this length.
fn offset_size(length: usize) -> usize {
    match length {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn offset(bytes: &[u8]) -> Option<usize> {
    let number = bytes.iter().rev().try_fold(0u64, |n, &b| Some(n.checked_mul(256)? | u64::from(b)))?;
    usize::try_from(number).ok()
}

/// The value that begins at the next place of this alignment and ends at `end`; what is between must be zero.
fn piece(body: &[u8], from: usize, align: usize, end: Option<usize>) -> Option<(&[u8], usize)> {
    let start = from.checked_next_multiple_of(align)?;
    let end = end.unwrap_or(body.len());
    if body.get(from..start)?.iter().any(|&b| b != 0) {
        return None;
    }
    Some((body.get(start..end)?, end))
}

/// Takes a tuple apart. `None` when its bytes are not in normal form.
pub fn tuple<'a, const N: usize>(data: &'a [u8], members: &[Member; N]) -> Option<[&'a [u8]; N]> {
    let size = offset_size(data.len());
    // The last member needs none: it ends where the offsets begin. They stand in reverse order.
    let framed = members.iter().rev().skip(1).filter(|m| m.fixed.is_none()).count();
    let (body, offsets) = data.split_at_checked(data.len().checked_sub(framed * size)?)?;
    let mut offsets = offsets.rchunks_exact(size);
    let mut values = [&[][..]; N];
    let mut at: usize = 0;
    for (index, (value, member)) in values.iter_mut().zip(members).enumerate() {
        let end = match member.fixed {
            Some(length) => Some(at.checked_next_multiple_of(member.align)?.checked_add(length)?),
            None if index + 1 == N => None,
            None => Some(offset(offsets.next()?)?),
        };
        (*value, at) = piece(body, at, member.align, end)?;
    }
    (at == body.len()).then_some(values)
}

/// The elements of an array whose elements differ in length.
#[derive(Clone, Debug)]
pub struct Array<'a> {
    body: &'a [u8],
    offsets: &'a [u8],
    size: usize,
    align: usize,
    at: usize,
    broken: bool,
}

/// Begins to take an array apart. `None` when there is no telling how many elements it has.
///
/// `align` is that of its elements: 1 for `a(say)` and the like, 8 for `a{sv}`.
pub fn array(data: &[u8], align: usize) -> Option<Array<'_>> {
    let size = offset_size(data.len());
    if data.is_empty() {
        return Some(Array { body: data, offsets: data, size, align, at: 0, broken: false });
    }
    let last = offset(data.get(data.len().checked_sub(size)?..)?)?;
    let (body, offsets) = data.split_at_checked(last)?;
    let whole = !offsets.is_empty() && offsets.len().is_multiple_of(size);
    whole.then_some(Array { body, offsets, size, align, at: 0, broken: false })
}

impl Array<'_> {
    /// How many elements are still to come.
    pub fn remaining(&self) -> usize {
        self.offsets.len() / self.size
    }
}

impl<'a> Iterator for Array<'a> {
    /// An element, or `None` where the bytes are not in normal form; nothing comes after that.
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let (first, rest) = self.offsets.split_at_checked(self.size)?;
        self.offsets = rest;
        let element = offset(first).and_then(|end| piece(self.body, self.at, self.align, Some(end)));
        self.broken = element.is_none();
        Some(element.map(|(value, end)| {
            self.at = end;
            value
        }))
    }
}

/// Ends a container whose body is written: appends its framing offsets, in this order. (A tuple wants them reversed.)
pub fn close(body: &mut Vec<u8>, offsets: &[usize]) {
    let fits = |size: &usize| offset_size(body.len() + offsets.len() * size) <= *size;
    let size = [1, 2, 4].into_iter().find(fits).unwrap_or(8);
    for offset in offsets {
        body.extend(offset.to_le_bytes().iter().take(size));
    }
}

/// `s`: UTF-8, ended by its only NUL.
pub fn text(data: &[u8]) -> Option<&str> {
    let (last, text) = data.split_last()?;
    if *last != 0 || text.contains(&0) { None } else { core::str::from_utf8(text).ok() }
}

/// `u`, big-endian as OSTree keeps its numbers.
pub fn u32_be(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_be_bytes)
}

/// `t`, big-endian as OSTree keeps its numbers.
pub fn u64_be(data: &[u8]) -> Option<u64> {
    data.try_into().ok().map(u64::from_be_bytes)
}

/// `t`, as it is inside of a variant.
pub fn u64_le(data: &[u8]) -> Option<u64> {
    data.try_into().ok().map(u64::from_le_bytes)
}

/// Whether this is an `a{sv}` as far down as the names of its keys.
pub fn is_dictionary(data: &[u8]) -> bool {
    let named = |entry| tuple(entry, &[BYTES, VARIANT]).and_then(|[name, _]| text(name)).is_some();
    array(data, 8).is_some_and(|mut entries| entries.all(|entry| entry.is_some_and(named)))
}

/// The keys of an `a{sv}` in their order, each with the bytes of its variant.
pub fn entries(dictionary: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let entry = |entry| {
        let [name, value] = tuple(entry, &[BYTES, VARIANT])?;
        Some((text(name)?, value))
    };
    array(dictionary, 8)?.map(|element| element.and_then(entry)).collect()
}

/// The value of a key in an `a{sv}`, and its type. The first one counts where a key is there twice.
pub fn find<'a>(dictionary: &'a [u8], key: &str) -> Option<(&'a [u8], &'a [u8])> {
    for entry in array(dictionary, 8)? {
        let [name, value] = tuple(entry?, &[BYTES, VARIANT])?;
        if text(name)? == key {
            // The type is what follows the last NUL.
            let nul = value.iter().rposition(|&b| b == 0)?;
            let (value, kind) = value.split_at_checked(nul)?;
            return Some((value, kind.get(1..)?));
        }
    }
    None
}

/// The value of a key in an `a{sv}`, when it has this type. The first one counts where a key is there twice.
pub fn lookup<'a>(dictionary: &'a [u8], key: &str, kind: &str) -> Option<&'a [u8]> {
    let (value, found) = find(dictionary, key)?;
    (!kind.is_empty() && found == kind.as_bytes()).then_some(value)
}

#[cfg(test)]
mod tests {
    use gvariant::{Marker, SerializeTo, Variant, VariantWrap, gv};

    use super::*;

    struct Text(&'static str);

    impl SerializeTo<Variant> for &Text {
        fn serialize(self, f: &mut impl std::io::Write) -> std::io::Result<usize> {
            VariantWrap(gv!("s"), self.0).serialize(f)
        }
    }

    #[test]
    fn tuples_are_taken_apart() {
        let data = gv!("(sutay)").serialize_to_vec(&("hello", 5u32.to_be(), 7u64, &[1u8, 2, 3][..]));
        let parts = tuple(&data, &[BYTES, U32, U64, BYTES]).unwrap();
        assert_eq!(text(parts[0]), Some("hello"));
        assert_eq!(u32_be(parts[1]), Some(5));
        assert_eq!(parts[2], 7u64.to_le_bytes());
        assert_eq!(parts[3], [1, 2, 3]);
        // Padding, offsets and length are part of the form.
        for at in 0..data.len() {
            assert!(tuple(&data[..at], &[BYTES, U32, U64, BYTES]) != Some(parts), "{at}");
        }
        let mut padded = data.clone();
        padded[7] = 1;
        assert_eq!(tuple(&padded, &[BYTES, U32, U64, BYTES]), None);
    }

    #[test]
    fn arrays_of_every_offset_size() {
        for count in [0usize, 1, 3, 60, 4000, 30_000] {
            let names: Vec<_> = (0..count).map(|n| alloc::format!("name-{n}")).collect();
            let data = gv!("as").serialize_to_vec(names.iter());
            let elements = array(&data, 1).unwrap();
            assert_eq!(elements.remaining(), count);
            let read: Vec<_> = elements.map(|e| text(e.unwrap()).unwrap()).collect();
            assert_eq!(read, names);
        }
    }

    #[test]
    fn a_dictionary_is_searched_by_key_and_type() {
        let entries = [("first", &Text("one")), ("second", &Text("two")), ("second", &Text("three"))];
        let data =
            gv!("a{sv}").serialize_to_vec(entries.iter().map(|&(k, v)| (k, v)).collect::<Vec<_>>().iter());
        assert_eq!(lookup(&data, "first", "s").and_then(text), Some("one"));
        assert_eq!(lookup(&data, "second", "s").and_then(text), Some("two"));
        assert_eq!(lookup(&data, "second", "ay"), None);
        assert_eq!(lookup(&data, "third", "s"), None);
        assert_eq!(lookup(&data, "first", ""), None);
        assert_eq!(lookup(b"", "first", "s"), None);
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let data = gv!("a{sv}").serialize_to_vec(
            [("key", &Text("value")); 3].iter().map(|&(k, v)| (k, v)).collect::<Vec<_>>().iter(),
        );
        for at in 0..data.len() {
            for value in 0..=255 {
                let mut changed = data.clone();
                changed[at] = value;
                let _ = lookup(&changed, "other", "s");
                let _ = lookup(&changed[..at], "other", "s");
            }
        }
    }
}
