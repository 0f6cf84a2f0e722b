//! The objects of a tree: dirtree `(a(say)a(sayay))` and dirmeta `(uuua(ayay))`, and the header `(uuuusa(ayay))`
//! that the checksum of a file or symbolic link begins with.
//!
//! Formats: `OSTREE_TREE_GVARIANT_FORMAT`, `OSTREE_DIRMETA_GVARIANT_FORMAT` and `_ostree_file_header_new` of libostree.
//! Numbers are big-endian.

use alloc::vec::Vec;
use core::fmt;

use super::object::{Checksum, OBJECT_MAX};
use super::variant::{self, Array, BYTES, Member, U32};

/// The longest name in a directory, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// More extended attributes than this on one file or directory are not taken.
pub const ATTRIBUTES_MAX: usize = 64;
/// The bits of a mode that say what a file is.
pub const TYPE_BITS: u32 = 0o170_000;
/// A directory.
pub const DIRECTORY: u32 = 0o040_000;
/// A regular file.
pub const REGULAR: u32 = 0o100_000;
/// A symbolic link.
pub const SYMLINK: u32 = 0o120_000;
/// Everything that a mode may have besides.
pub const PERMISSION_BITS: u32 = 0o7777;

/// Why bytes are no object of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeError {
    /// They are more than [`OBJECT_MAX`].
    TooLong(usize),
    /// They are not its GVariant in normal form.
    Form,
    /// A name is empty, too long, `.`, `..`, or has a `/`.
    Name,
    /// The names are not in order, or one is there twice.
    Order,
    /// A checksum has not 32 bytes.
    Checksum,
    /// The mode is not that of a directory.
    Mode(u32),
    /// The name of an extended attribute is empty, not ended, or out of order, or there are more than
    /// [`ATTRIBUTES_MAX`].
    Attribute,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeError::TooLong(size) => write!(f, "it has {size} bytes, at most {OBJECT_MAX} are read"),
            TreeError::Form => f.write_str("it is not a GVariant in normal form"),
            TreeError::Name => f.write_str("it has a name that no file can have"),
            TreeError::Order => f.write_str("its names are out of order or not unique"),
            TreeError::Checksum => f.write_str("it has a checksum that is not 32 bytes"),
            TreeError::Mode(mode) => write!(f, "its mode {mode:o} is not that of a directory"),
            TreeError::Attribute => f.write_str("it has an extended attribute out of form"),
        }
    }
}

/// What a directory holds.
#[derive(Clone, Debug)]
pub struct DirTree<'a> {
    files: Array<'a>,
    directories: Array<'a>,
}

/// A file or symbolic link of a directory: its name and its checksum.
pub type FileEntry<'a> = (&'a str, Checksum);
/// A directory of a directory: its name, its dirtree and its dirmeta.
pub type DirectoryEntry<'a> = (&'a str, Checksum, Checksum);

const FILE: [Member; 2] = [BYTES, BYTES];
const SUBDIRECTORY: [Member; 3] = [BYTES, BYTES, BYTES];

impl<'a> DirTree<'a> {
    /// Reads and checks an object.
    ///
    /// # Errors
    /// When anything about it is not as it must be.
    pub fn parse(data: &'a [u8]) -> Result<Self, TreeError> {
        if data.len() > OBJECT_MAX {
            return Err(TreeError::TooLong(data.len()));
        }
        let [files, directories] = variant::tuple(data, &[BYTES, BYTES]).ok_or(TreeError::Form)?;
        let files = variant::array(files, 1).ok_or(TreeError::Form)?;
        let directories = variant::array(directories, 1).ok_or(TreeError::Form)?;
        let mut last = "";
        for entry in files.clone() {
            let (name, _) = file(entry.ok_or(TreeError::Form)?)?;
            last = next(last, name)?;
        }
        last = "";
        for entry in directories.clone() {
            let (name, ..) = directory(entry.ok_or(TreeError::Form)?)?;
            last = next(last, name)?;
        }
        Ok(DirTree { files, directories })
    }

    /// Its files and symbolic links, in order.
    pub fn files(&self) -> impl Iterator<Item = FileEntry<'a>> {
        self.files.clone().flatten().filter_map(|entry| file(entry).ok())
    }

    /// A name that is a file and a directory: such a tree cannot be checked out. Both lists are in order.
    pub fn clash(&self) -> Option<&'a str> {
        let mut directories = self.directories().map(|(name, ..)| name).peekable();
        self.files().map(|(file, _)| file).find(|file| {
            while directories.next_if(|directory| directory < file).is_some() {}
            directories.peek() == Some(file)
        })
    }

    /// Its directories, in order.
    pub fn directories(&self) -> impl Iterator<Item = DirectoryEntry<'a>> {
        self.directories.clone().flatten().filter_map(|entry| directory(entry).ok())
    }
}

fn file(entry: &[u8]) -> Result<FileEntry<'_>, TreeError> {
    let [name, checksum] = variant::tuple(entry, &FILE).ok_or(TreeError::Form)?;
    Ok((legal(name)?, Checksum::from_bytes(checksum).ok_or(TreeError::Checksum)?))
}

fn directory(entry: &[u8]) -> Result<DirectoryEntry<'_>, TreeError> {
    let [name, tree, meta] = variant::tuple(entry, &SUBDIRECTORY).ok_or(TreeError::Form)?;
    let checksum = |bytes| Checksum::from_bytes(bytes).ok_or(TreeError::Checksum);
    Ok((legal(name)?, checksum(tree)?, checksum(meta)?))
}

fn legal(name: &[u8]) -> Result<&str, TreeError> {
    let name = variant::text(name).ok_or(TreeError::Form)?;
    let legal = !matches!(name, "" | "." | "..") && name.len() <= NAME_MAX && !name.contains('/');
    legal.then_some(name).ok_or(TreeError::Name)
}

/// The names come in the order of their bytes, as libostree's strcmp has it, each once.
fn next<'a>(last: &str, name: &'a str) -> Result<&'a str, TreeError> {
    if last < name { Ok(name) } else { Err(TreeError::Order) }
}

/// Names without NUL, and values.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Owner, mode and extended attributes of a file or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// What it is, and its permissions.
    pub mode: u32,
    /// Its extended attributes: names without NUL, sorted, and values.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    /// Reads and checks a dirmeta object.
    ///
    /// # Errors
    /// When anything about it is not as it must be.
    pub fn parse(data: &[u8]) -> Result<Self, TreeError> {
        let meta = Meta::parse_any(data)?;
        if meta.mode & !PERMISSION_BITS != DIRECTORY {
            return Err(TreeError::Mode(meta.mode));
        }
        Ok(meta)
    }

    /// Reads and checks the `user.ostreemeta` of a file, which is a dirmeta object with another mode.
    pub fn parse_file(data: &[u8]) -> Option<Self> {
        let meta = Meta::parse_any(data).ok()?;
        matches!(meta.mode & !PERMISSION_BITS, REGULAR | SYMLINK).then_some(meta)
    }

    /// Reads what has a dirmeta's form and is of any type: `user.ostreemeta` of a file in a repository of mode `bare-user`.
    ///
    /// # Errors
    /// When it has not that form.
    pub fn parse_any(data: &[u8]) -> Result<Self, TreeError> {
        if data.len() > OBJECT_MAX {
            return Err(TreeError::TooLong(data.len()));
        }
        let [uid, gid, mode, list] = variant::tuple(data, &[U32, U32, U32, BYTES]).ok_or(TreeError::Form)?;
        let number = |bytes| variant::u32_be(bytes).ok_or(TreeError::Form);
        let (uid, gid, mode) = (number(uid)?, number(gid)?, number(mode)?);
        let attributes = attributes(list)?;
        Ok(Meta { uid, gid, mode, attributes })
    }

    /// The bytes of a dirmeta object, `(uuua(ayay))`; in a repository of mode `bare-user` those of a file's
    /// `user.ostreemeta` as well.
    pub fn serialize(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(64);
        for number in [self.uid, self.gid, self.mode] {
            data.extend(number.to_be_bytes());
        }
        data.extend(self.attribute_list());
        data
    }

    /// The bytes that a file's checksum begins with: the header with its length in front. `target` is that of a
    /// symbolic link, empty for a file.
    pub fn file_header(&self, target: &[u8]) -> Vec<u8> {
        let mut header = Vec::with_capacity(256);
        for number in [self.uid, self.gid, self.mode, 0] {
            header.extend(number.to_be_bytes());
        }
        header.extend(target);
        header.push(0);
        let text_end = header.len();
        header.extend(self.attribute_list());
        variant::close(&mut header, &[text_end]);
        // A length of four bytes, then as many for alignment.
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
        let mut whole = Vec::with_capacity(header.len() + 8);
        whole.extend(length.to_be_bytes());
        whole.extend([0; 4]);
        whole.extend(header);
        whole
    }

    fn attribute_list(&self) -> Vec<u8> {
        let (mut list, mut ends) = (Vec::new(), Vec::new());
        for (name, value) in &self.attributes {
            let mut pair = Vec::with_capacity(name.len() + value.len() + 5);
            pair.extend(name);
            pair.push(0);
            let name_end = pair.len();
            pair.extend(value);
            variant::close(&mut pair, &[name_end]);
            list.extend(pair);
            ends.push(list.len());
        }
        variant::close(&mut list, &ends);
        list
    }
}

/// Reads and checks an `a(ayay)` of extended attributes.
pub(super) fn attributes(list: &[u8]) -> Result<Attributes, TreeError> {
    let mut attributes: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for pair in variant::array(list, 1).ok_or(TreeError::Form)? {
        let pair = pair.ok_or(TreeError::Form)?;
        let [name, value] = variant::tuple(pair, &[BYTES, BYTES]).ok_or(TreeError::Form)?;
        let Some((0, name)) = name.split_last() else { return Err(TreeError::Attribute) };
        let after = attributes.last().is_none_or(|(last, _)| last.as_slice() < name);
        if name.is_empty() || name.contains(&0) || !after || attributes.len() == ATTRIBUTES_MAX {
            return Err(TreeError::Attribute);
        }
        attributes.push((name.into(), value.into()));
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use gvariant::{Marker, gv};

    use super::*;

    #[test]
    fn a_header_is_as_the_gvariant_crate_writes_it() {
        for (target, count) in [("", 0), ("../lib/x", 1), ("", 3), ("t", 40)] {
            let attributes: Vec<(Vec<u8>, Vec<u8>)> = (0..count)
                .map(|n| (alloc::format!("user.{n:02}").into_bytes(), alloc::vec![n; usize::from(n) * 17]))
                .collect();
            let meta = Meta { uid: 1, gid: 2, mode: 0o100_644, attributes };
            let named: Vec<(Vec<u8>, &[u8])> =
                meta.attributes.iter().map(|(n, v)| ([n, &[0][..]].concat(), v.as_slice())).collect();
            let list: Vec<(&[u8], &[u8])> = named.iter().map(|(n, v)| (n.as_slice(), *v)).collect();
            let expected = gv!("(uuuusa(ayay))").serialize_to_vec(&(
                1u32.to_be(),
                2u32.to_be(),
                0o100_644u32.to_be(),
                0u32,
                target,
                &list[..],
            ));
            let header = meta.file_header(target.as_bytes());
            assert_eq!(header[..4], (expected.len() as u32).to_be_bytes());
            assert_eq!(header[4..8], [0; 4]);
            assert_eq!(header[8..], expected);
        }
    }

    #[test]
    fn names_are_checked() {
        let sum = [7u8; 32];
        let tree = |names: &[&str]| {
            let files: Vec<(&str, &[u8])> = names.iter().map(|n| (*n, &sum[..])).collect();
            let none: [(&str, &[u8], &[u8]); 0] = [];
            gv!("(a(say)a(sayay))").serialize_to_vec(&(&files[..], &none[..]))
        };
        let checked = |names: &[&str]| DirTree::parse(&tree(names)).map(|t| t.files().count());
        assert_eq!(checked(&[]), Ok(0));
        assert_eq!(checked(&["a", "b", "ä"]), Ok(3));
        for bad in ["", ".", "..", "a/b", &"n".repeat(256)] {
            assert_eq!(checked(&[bad]), Err(TreeError::Name), "{bad}");
        }
        assert_eq!(checked(&["b", "a"]), Err(TreeError::Order));
        assert_eq!(checked(&["a", "a"]), Err(TreeError::Order));
        let short = gv!("(a(say)a(sayay))")
            .serialize_to_vec(&(&[("a", &sum[..31])][..], &[("", &sum[..], &sum[..]); 0][..]));
        assert_eq!(DirTree::parse(&short).unwrap_err(), TreeError::Checksum);
    }

    #[test]
    fn attributes_are_checked() {
        let meta = |mode: u32, list: &[(&[u8], &[u8])]| {
            Meta::parse(&gv!("(uuua(ayay))").serialize_to_vec(&(0u32, 5u32.to_be(), mode.to_be(), list)))
        };
        let read = meta(0o040_755, &[(b"user.a\0", b"1"), (b"user.b\0", b"")]).unwrap();
        assert_eq!((read.uid, read.gid, read.mode), (0, 5, 0o040_755));
        assert_eq!(read.attributes[1], (b"user.b".to_vec(), Vec::new()));
        assert_eq!(Meta::parse(&read.serialize()), Ok(read));
        for mode in [0o100_644, 0o755, 0o120_777, 0o1_040_755] {
            assert_eq!(meta(mode, &[]), Err(TreeError::Mode(mode)));
        }
        let bad: [&[(&[u8], &[u8])]; 5] = [
            &[(b"", b"")],
            &[(b"\0", b"")],
            &[(b"a", b"")],
            &[(b"b\0", b""), (b"a\0", b"")],
            &[(b"a\0", b""), (b"a\0", b"")],
        ];
        for list in bad {
            assert_eq!(meta(0o040_755, list), Err(TreeError::Attribute), "{list:?}");
        }
    }
}
