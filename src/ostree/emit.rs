//! Writes GVariant in normal form: the counterpart of [`super::variant`], from the inside out.
//!
//! A value is the bytes of its serialisation; what holds values takes those bytes and knows how they are aligned.
//! Numbers inside a variant are little-endian, as every publisher's machine writes them; those that OSTree itself keeps
//! big-endian are for the caller to turn round.

use alloc::vec::Vec;

use super::variant::{BYTES, Member, VARIANT, close};

/// An `s`.
pub fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// A `v`: a value, and its type after a NUL.
pub fn variant(kind: &str, value: &[u8]) -> Vec<u8> {
    [value, &[0], kind.as_bytes()].concat()
}

/// An array of elements that differ in length, aligned to `align`: 1 for `as` and `aay`, 8 for `a{sv}`.
pub fn array<T: AsRef<[u8]>>(align: usize, elements: impl IntoIterator<Item = T>) -> Vec<u8> {
    let (mut body, mut ends) = (Vec::new(), Vec::new());
    for element in elements {
        pad(&mut body, align);
        body.extend_from_slice(element.as_ref());
        ends.push(body.len());
    }
    close(&mut body, &ends);
    body
}

/// A tuple. Each value must have the length that its member says.
pub fn tuple(members: &[(Member, &[u8])]) -> Vec<u8> {
    let (mut body, mut ends) = (Vec::new(), Vec::new());
    for (index, (member, value)) in members.iter().enumerate() {
        pad(&mut body, member.align());
        body.extend_from_slice(value);
        // The last one ends where the offsets begin.
        if !member.is_fixed() && index + 1 < members.len() {
            ends.push(body.len());
        }
    }
    if members.iter().all(|(member, _)| member.is_fixed()) {
        // One of a fixed size is as long as its alignment wants it, so that an array of them needs no padding.
        let align = members.iter().map(|(member, _)| member.align()).max();
        pad(&mut body, align.unwrap_or(1));
    }
    ends.reverse();
    close(&mut body, &ends);
    body
}

/// An `a{sv}`: its keys, in this order, each with the bytes of its [`variant`].
pub fn dictionary<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let entry = |(key, value): (&str, &[u8])| tuple(&[(BYTES, &text(key)), (VARIANT, value)]);
    array(8, entries.into_iter().map(entry))
}

fn pad(body: &mut Vec<u8>, align: usize) {
    body.resize(body.len().next_multiple_of(align), 0);
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use gvariant::{Marker, SerializeTo, Variant, VariantWrap, gv};

    use super::super::variant::{self as read, U32, U64};
    use super::*;

    enum Value {
        Text(String),
        Lists(Vec<Vec<u8>>),
        Number(u64),
    }

    impl Value {
        fn ours(&self) -> Vec<u8> {
            match self {
                Value::Text(s) => variant("s", &text(s)),
                Value::Lists(all) => variant("aay", &array(1, all)),
                Value::Number(n) => variant("t", &n.to_le_bytes()),
            }
        }
    }

    impl SerializeTo<Variant> for &Value {
        fn serialize(self, f: &mut impl std::io::Write) -> std::io::Result<usize> {
            match self {
                Value::Text(s) => VariantWrap(gv!("s"), s.as_str()).serialize(f),
                Value::Lists(all) => {
                    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
                    VariantWrap(gv!("aay"), all.iter().copied()).serialize(f)
                }
                Value::Number(n) => VariantWrap(gv!("t"), *n).serialize(f),
            }
        }
    }

    #[test]
    fn dictionaries_of_every_offset_size_are_those_of_the_gvariant_crate() {
        for (count, size) in [(0, 0), (1, 0), (1, 300), (3, 70), (9, 64), (40, 8000), (3, 70_000)] {
            let values: Vec<(String, Value)> = (0..count)
                .map(|n| {
                    let value = match n % 3 {
                        0 => Value::Lists(alloc::vec![alloc::vec![n as u8; size]; n % 5]),
                        1 => Value::Text("x".repeat(size + n)),
                        _ => Value::Number(n as u64),
                    };
                    (format!("key.{}", "k".repeat(n)), value)
                })
                .collect();
            let entries: Vec<(&str, &Value)> = values.iter().map(|(k, v)| (k.as_str(), v)).collect();
            let theirs = gv!("a{sv}").serialize_to_vec(entries.iter());
            let parts: Vec<(&str, Vec<u8>)> = values.iter().map(|(k, v)| (k.as_str(), v.ours())).collect();
            let ours = dictionary(parts.iter().map(|(k, v)| (*k, v.as_slice())));
            assert_eq!(ours, theirs, "{count} of {size}");
            assert!(read::is_dictionary(&ours));
            let back = read::entries(&ours).unwrap();
            assert_eq!(dictionary(back), ours);
        }
    }

    #[test]
    fn tuples_are_those_of_the_gvariant_crate() {
        assert_eq!(
            tuple(&[(U64, &7u64.to_le_bytes()), (U32, &5u32.to_le_bytes())]),
            gv!("(tu)").serialize_to_vec(&(7u64, 5u32))
        );
        assert_eq!(
            tuple(&[(BYTES, b"hello\0"), (U32, &5u32.to_le_bytes()), (BYTES, &[1, 2]), (BYTES, &[3])]),
            gv!("(suayay)").serialize_to_vec(&("hello", 5u32, &[1u8, 2][..], &[3u8][..]))
        );
        let names = ["a", "", "long ".repeat(60).leak()];
        assert_eq!(array(1, names.map(text)), gv!("as").serialize_to_vec(names.iter()));
    }
}
