//! Checksums, and where the object of a checksum is in a repository.

use alloc::format;
use alloc::string::String;
use core::fmt;

use sha2::{Digest, Sha256};

/// Bytes of a checksum.
pub const CHECKSUM_SIZE: usize = 32;
/// The largest commit, dirtree or dirmeta object that is read, in bytes. libostree's own limit is 128 MiB
/// (`OSTREE_MAX_METADATA_SIZE`), which an initramfs may not have; a directory of 100,000 files has about 10 MB.
pub const OBJECT_MAX: usize = 10 * 1024 * 1024;
/// The largest detached metadata that is read, in bytes.
pub const COMMITMETA_MAX: usize = 1024 * 1024;

/// The SHA-256 that names an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub [u8; CHECKSUM_SIZE]);

impl Checksum {
    /// Of these bytes.
    pub fn of(data: &[u8]) -> Self {
        Checksum(Sha256::digest(data).into())
    }

    /// Takes 64 lower-case hexadecimal digits, as libostree writes them, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; CHECKSUM_SIZE];
        if pairs.len() != CHECKSUM_SIZE || !rest.is_empty() {
            return None;
        }
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Checksum(bytes))
    }

    /// Takes the 32 bytes as they are in an object.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Checksum)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A commit.
    Commit,
    /// What was said of a commit after it was made, its signatures above all. Its name is not its checksum.
    CommitMeta,
    /// The names in a directory.
    DirTree,
    /// Owner, mode and extended attributes of a directory.
    DirMeta,
    /// A file or symbolic link as a repository of mode `bare` or `bare-user` has it. Its name is the checksum of its
    /// header and content ([`super::tree::Meta::file_header`]).
    File,
    /// The same, compressed, as one of mode `archive` has it.
    Archived,
}

impl Kind {
    /// The extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::CommitMeta => "commitmeta",
            Kind::DirTree => "dirtree",
            Kind::DirMeta => "dirmeta",
            Kind::File => "file",
            Kind::Archived => "filez",
        }
    }

    /// The kind with this extension.
    pub fn of_extension(extension: &str) -> Option<Self> {
        let kinds =
            [Kind::Commit, Kind::CommitMeta, Kind::DirTree, Kind::DirMeta, Kind::File, Kind::Archived];
        kinds.into_iter().find(|kind| kind.extension() == extension)
    }
}

/// The path of an object, relative to the sysroot.
pub fn path(checksum: &Checksum, kind: Kind) -> String {
    format!("ostree/repo/{}", place(checksum, kind))
}

/// The path of an object, relative to the repository.
pub fn place(checksum: &Checksum, kind: Kind) -> String {
    let name = format!("{checksum}");
    let (directory, file) = name.split_at_checked(2).unwrap_or_default();
    format!("objects/{directory}/{file}.{}", kind.extension())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_64_lower_case_digits() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Checksum::of(b""), Checksum::parse(empty).unwrap());
        assert_eq!(format!("{}", Checksum::of(b"")), empty);
        for bad in
            ["", "e3", &empty[1..], &format!("{empty}0"), &empty.to_uppercase(), &empty.replace('e', "g")]
        {
            assert_eq!(Checksum::parse(bad), None, "{bad}");
        }
        assert_eq!(Checksum::from_bytes(&[7; 31]), None);
        assert_eq!(Checksum::from_bytes(&[7; 32]), Some(Checksum([7; 32])));
    }

    #[test]
    fn an_object_has_a_place() {
        let place = path(&Checksum([0xab; 32]), Kind::DirTree);
        assert_eq!(place, format!("ostree/repo/objects/ab/{}.dirtree", "ab".repeat(31)));
    }
}
