//! The environment image: CRC32 (little endian), a flag byte where there are two copies, and
//! `name=value\0 ... \0\0`. The CRC covers the variables and everything after them, but not the flag.
//!
//! Format: U-Boot `include/env_internal.h`; order of new variables: libubootenv, which keeps them sorted.

use core::fmt;

/// Larger images are refused, in bytes. Real ones have 4 KiB to 256 KiB.
pub const MAX_SIZE: usize = 1 << 20;
/// Where the flag byte is, in an image that has one.
pub const FLAG: usize = 4;
/// More edits than this are not one logical change.
pub const MAX_EDITS: usize = 256;

/// Whether a flag byte follows the CRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One copy: CRC, variables.
    Single,
    /// One of two copies: CRC, flag, variables.
    Redundant,
}

impl Kind {
    /// Bytes before the variables.
    pub const fn header(self) -> usize {
        match self {
            Kind::Single => 4,
            Kind::Redundant => 5,
        }
    }
}

/// Why bytes are not an environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// Too few bytes for a header and a terminator, or more than [`MAX_SIZE`].
    Size(usize),
    /// The CRC does not fit the content.
    Crc {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Size(size) => {
                write!(f, "an environment of {size} bytes cannot be; check the size in fw_env.config")
            }
            ImageError::Crc { stored, computed } => {
                write!(f, "CRC {stored:08x} is stored but the content has {computed:08x}")
            }
        }
    }
}

/// A view of an image whose CRC is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image<'a> {
    data: &'a [u8],
    /// The flag byte; 0 where there is none.
    pub flag: u8,
}

impl<'a> Image<'a> {
    /// An environment without variables, from which a new one is created.
    pub const EMPTY: Image<'static> = Image { data: &[], flag: 0 };

    /// Checks size and CRC of a whole image.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn parse(bytes: &'a [u8], kind: Kind) -> Result<Self, ImageError> {
        let refused = ImageError::Size(bytes.len());
        if bytes.len() > MAX_SIZE || bytes.len() < kind.header() + 2 {
            return Err(refused);
        }
        let (crc, rest) = bytes.split_first_chunk::<4>().ok_or(refused)?;
        let (flag, data) = match kind {
            Kind::Single => (0, rest),
            Kind::Redundant => rest.split_first().map(|(f, d)| (*f, d)).ok_or(refused)?,
        };
        let (stored, computed) = (u32::from_le_bytes(*crc), crc32fast::hash(data));
        if stored != computed {
            return Err(ImageError::Crc { stored, computed });
        }
        Ok(Image { data, flag })
    }

    /// The value of a variable; the last one where a name is there twice, as U-Boot's import has it.
    pub fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.variables().filter(|v| v.0 == name).last().map(|v| v.1)
    }

    /// All variables in the order of the image; entries without `=` or without a name are passed over.
    pub fn variables(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.entries().filter_map(split).filter(|v| !v.0.is_empty())
    }

    /// Whether the image ends inside an entry: it can be read, but not safely rewritten.
    pub fn is_truncated(&self) -> bool {
        let mut entries = self.entries();
        entries.by_ref().for_each(drop);
        !entries.left.is_empty() && entries.left.first() != Some(&0)
    }

    fn entries(&self) -> Entries<'a> {
        Entries { left: self.data }
    }
}

/// Entries up to the empty one that ends the list.
struct Entries<'a> {
    left: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.left.iter().position(|&b| b == 0).filter(|&end| end > 0)?;
        let (entry, left) = self.left.split_at_checked(end)?;
        self.left = left.get(1..)?;
        Some(entry)
    }
}

fn split(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = entry.iter().position(|&b| b == b'=')?;
    Some((entry.get(..at)?, entry.get(at + 1..)?))
}

/// One variable to set, or to delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edit<'a> {
    /// The variable.
    pub name: &'a [u8],
    /// Its new value; `None` deletes it.
    pub value: Option<&'a [u8]>,
}

/// Why an edit makes no image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EditError {
    /// A name is empty, or has `=` or NUL in it; the index of the edit.
    Name(usize),
    /// A value has NUL in it; the index of the edit.
    Value(usize),
    /// More than [`MAX_EDITS`].
    TooMany(usize),
    /// The old image ends inside an entry, which a rewrite would lose.
    Truncated,
    /// It does not fit.
    Overflow {
        /// Bytes that the whole image would need.
        needed: usize,
        /// Bytes that there are.
        size: usize,
    },
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditError::Name(index) => {
                write!(f, "edit {index}: a variable's name must not be empty or contain '=' or NUL")
            }
            EditError::Value(index) => write!(f, "edit {index}: a value must not contain NUL"),
            EditError::TooMany(count) => write!(f, "{count} edits at once, at most {MAX_EDITS} are taken"),
            EditError::Truncated => {
                f.write_str("the old environment ends inside a variable, which a rewrite would lose")
            }
            EditError::Overflow { needed, size } => {
                write!(f, "the environment would need {needed} bytes and has {size}; delete some variables")
            }
        }
    }
}

/// Writes the image that `edits` make of `old` over the whole of `into`: one logical change, one image.
///
/// Entries that no edit names keep their bytes and their order. A variable that is there is replaced in
/// place; a new one goes before the first entry with a greater name, as libubootenv does. Of two edits of
/// one name the last counts. The tail is zeros.
///
/// # Errors
/// See [`EditError`]; what `into` then holds means nothing.
pub fn rewrite(
    old: &Image<'_>,
    edits: &[Edit<'_>],
    kind: Kind,
    flag: u8,
    into: &mut [u8],
) -> Result<(), EditError> {
    check(edits)?;
    if old.is_truncated() {
        return Err(EditError::Truncated);
    }
    let size = into.len();
    let Some((header, data)) = into.split_at_mut_checked(kind.header()) else {
        return Err(EditError::Overflow { needed: kind.header() + 2, size });
    };
    data.fill(0);
    let mut out = Out { data, at: 0 };
    let mut last = None;
    for (index, entry) in old.entries().enumerate() {
        let name = split(entry).map(|v| v.0).filter(|n| !n.is_empty());
        let edit = name.and_then(|n| effective(edits, n));
        if let Some(Edit { value: None, .. }) = edit {
            continue;
        }
        while let Some(new) = next_new(old, edits, last, name) {
            out.variable(new);
            last = Some(new.name);
        }
        match edit {
            Some(edit) if !old.entries().take(index).any(|e| split(e).map(|v| v.0) == name) => {
                out.variable(edit);
            }
            Some(_) => {}
            None => out.entry(&[entry]),
        }
    }
    while let Some(new) = next_new(old, edits, last, None) {
        out.variable(new);
        last = Some(new.name);
    }
    // The list ends with an empty entry; an empty list is two NULs.
    let needed = kind.header() + (out.at + 1).max(2);
    if needed > size || size > MAX_SIZE {
        return Err(EditError::Overflow { needed, size: size.min(MAX_SIZE) });
    }
    let crc = crc32fast::hash(data).to_le_bytes();
    for (to, from) in header.iter_mut().zip(crc.iter().chain(core::iter::once(&flag))) {
        *to = *from;
    }
    Ok(())
}

fn check(edits: &[Edit<'_>]) -> Result<(), EditError> {
    if edits.len() > MAX_EDITS {
        return Err(EditError::TooMany(edits.len()));
    }
    for (index, edit) in edits.iter().enumerate() {
        if edit.name.is_empty() || edit.name.iter().any(|b| matches!(b, b'=' | 0)) {
            return Err(EditError::Name(index));
        }
        if edit.value.is_some_and(|v| v.contains(&0)) {
            return Err(EditError::Value(index));
        }
    }
    Ok(())
}

/// The edit that counts for a name.
fn effective<'e, 'a>(edits: &'e [Edit<'a>], name: &[u8]) -> Option<&'e Edit<'a>> {
    edits.iter().rev().find(|e| e.name == name)
}

/// The smallest name above `last` and, where given, below `bound`, that is set and not yet in the image.
fn next_new<'e, 'a>(
    old: &Image<'_>,
    edits: &'e [Edit<'a>],
    last: Option<&[u8]>,
    bound: Option<&[u8]>,
) -> Option<&'e Edit<'a>> {
    let mut best: Option<&Edit<'a>> = None;
    for edit in edits.iter().rev() {
        let above = last.is_none_or(|l| edit.name > l);
        let below = bound.is_none_or(|b| edit.name < b) && best.is_none_or(|b| edit.name < b.name);
        let counts = || effective(edits, edit.name).is_some_and(|e| core::ptr::eq(e, edit));
        if above && below && edit.value.is_some() && counts() && old.get(edit.name).is_none() {
            best = Some(edit);
        }
    }
    best
}

/// Fills the data area and goes on counting where it is full.
struct Out<'a> {
    data: &'a mut [u8],
    at: usize,
}

impl Out<'_> {
    fn variable(&mut self, edit: &Edit<'_>) {
        self.entry(&[edit.name, b"=", edit.value.unwrap_or_default()]);
    }

    fn entry(&mut self, parts: &[&[u8]]) {
        for part in parts {
            let end = self.at.saturating_add(part.len());
            if let Some(room) = self.data.get_mut(self.at..end) {
                room.copy_from_slice(part);
            }
            self.at = end;
        }
        self.at = self.at.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with a good CRC over any data.
    fn seal(kind: Kind, flag: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = crc32fast::hash(data).to_le_bytes().to_vec();
        bytes.extend((kind == Kind::Redundant).then_some(flag));
        bytes.extend(data);
        bytes
    }

    fn set<'a>(name: &'a str, value: &'a str) -> Edit<'a> {
        Edit { name: name.as_bytes(), value: Some(value.as_bytes()) }
    }

    #[test]
    fn entries_that_nobody_names_keep_their_bytes_and_order() {
        let old = seal(Kind::Single, 0, b"z=1\0broken\0=x\0a=2\0d=3\0d=4\0\0rest");
        let old = Image::parse(&old, Kind::Single).unwrap();
        let mut new = [0xEE; 64];
        let edits = [set("m", "5"), set("a", "6"), set("c", "7"), set("d", "8"), set("m", "9")];
        rewrite(&old, &edits, Kind::Redundant, 3, &mut new).unwrap();
        let image = Image::parse(&new, Kind::Redundant).unwrap();
        assert_eq!(image.flag, 3);
        let wanted: &[u8] = b"c=7\0m=9\0z=1\0broken\0=x\0a=6\0d=8\0\0";
        assert_eq!(&image.data[..wanted.len()], wanted);
        assert!(image.data[wanted.len()..].iter().all(|&b| b == 0));
        assert_eq!((old.get(b"d"), old.get(b"broken"), old.get(b"")), (Some(b"4".as_slice()), None, None));
    }

    #[test]
    fn it_fits_to_the_last_byte_and_says_how_much_is_missing() {
        let mut room = [0; 4 + 5];
        rewrite(&Image::EMPTY, &[set("a", "x")], Kind::Single, 0, &mut room).unwrap();
        assert_eq!(&room[4..], b"a=x\0\0");
        let result = rewrite(&Image::EMPTY, &[set("a", "xy")], Kind::Single, 0, &mut room);
        assert_eq!(result, Err(EditError::Overflow { needed: 10, size: 9 }));
    }

    #[test]
    fn names_and_values_that_break_the_format_are_refused() {
        let mut room = [0; 32];
        let mut with = |name, value| rewrite(&Image::EMPTY, &[set(name, value)], Kind::Single, 0, &mut room);
        assert_eq!(with("", "x"), Err(EditError::Name(0)));
        assert_eq!(with("a=b", "x"), Err(EditError::Name(0)));
        assert_eq!(with("a\0", "x"), Err(EditError::Name(0)));
        assert_eq!(with("a", "x\0y=z"), Err(EditError::Value(0)));
    }

    #[test]
    fn an_image_that_ends_inside_an_entry_is_read_but_not_rewritten() {
        let old = seal(Kind::Single, 0, b"a=1\0b=2");
        let old = Image::parse(&old, Kind::Single).unwrap();
        assert_eq!(old.get(b"a"), Some(b"1".as_slice()));
        assert_eq!(rewrite(&old, &[], Kind::Single, 0, &mut [0; 64]), Err(EditError::Truncated));
        let whole = seal(Kind::Single, 0, b"a=1\0b=2\0");
        assert!(!Image::parse(&whole, Kind::Single).unwrap().is_truncated());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        for round in 0..20_000 {
            let mut byte = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            };
            let length = usize::from(byte()) % 40;
            let data: Vec<u8> = (0..length).map(|_| b"\0\0=ab\xFF"[usize::from(byte()) % 6]).collect();
            let kind = if round % 2 == 0 { Kind::Single } else { Kind::Redundant };
            let _ = Image::parse(&data, kind);
            let bytes = seal(kind, 1, &data);
            let Ok(image) = Image::parse(&bytes, kind) else { continue };
            let mut new = [0; 64];
            if rewrite(&image, &[set("a", "q"), Edit { name: b"b", value: None }], kind, 0, &mut new).is_ok()
            {
                let new = Image::parse(&new, kind).unwrap();
                assert_eq!((new.get(b"a"), new.get(b"b")), (Some(b"q".as_slice()), None), "{data:?}");
                let keep = |i: &Image| {
                    i.entries().filter(|e| !e.starts_with(b"a=") && !e.starts_with(b"b=")).count()
                };
                assert_eq!(keep(&new), keep(&image), "{data:?}");
            } else {
                assert!(image.is_truncated(), "{data:?}");
            }
        }
    }
}
