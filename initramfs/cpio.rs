//! A cpio archive in the "newc" form that the kernel unpacks, with nothing in it that varies.
//!
//! Format: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. Owner and group are 0,
//! inode numbers count up from 1, times are one given value, entries are sorted by name.

use std::fmt;

/// Longest name, in bytes: the kernel's PATH_MAX with its terminating zero.
pub const NAME_LIMIT: usize = 4095;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device, by major and minor number.
    Character(u32, u32),
}

/// One entry; the name is relative to the root of the archive, without a leading slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lands.
    pub name: String,
    /// Permission bits only.
    pub permissions: u32,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// The whole mode, with the bits that tell the kind.
    pub fn mode(&self) -> u32 {
        let kind = match self.kind {
            Kind::Directory => 0o040_000,
            Kind::File(_) => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Character(..) => 0o020_000,
        };
        kind | (self.permissions & 0o7777)
    }

    /// The bytes that follow the header: a file's content, a link's target.
    pub fn body(&self) -> &[u8] {
        match &self.kind {
            Kind::File(bytes) => bytes,
            Kind::Symlink(target) => target.as_bytes(),
            Kind::Directory | Kind::Character(..) => &[],
        }
    }
}

/// Why an entry cannot be archived.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// A name that is empty, too long, absolute, or leaves the archive.
    Name(String),
    /// Two things want the same name.
    Twice(String),
    /// Something would lie beneath an entry that is not a directory.
    NotDirectory(String),
    /// A file of 4 GiB or more does not fit the format.
    TooLarge(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Name(name) => write!(
                f,
                "'{name}' cannot be a name in the archive: give a path below / without '.', '..' or empty parts, at most {NAME_LIMIT} bytes"
            ),
            Error::Twice(name) => write!(f, "/{name} would be in the archive twice: drop one of its sources"),
            Error::NotDirectory(name) => {
                write!(f, "/{name} has something beneath it but is not a directory: move one of the two")
            }
            Error::TooLarge(name) => {
                write!(f, "/{name} is 4 GiB or larger, which the cpio format cannot hold")
            }
        }
    }
}

/// The content of an archive, kept sorted.
#[derive(Debug, Default)]
pub struct Archive {
    entries: Vec<Entry>,
}

impl Archive {
    /// Adds an entry and every directory above it that is not there yet.
    ///
    /// # Errors
    /// A bad or taken name, a parent that is no directory, a file beyond the format's 4 GiB.
    pub fn add(&mut self, entry: Entry) -> Result<(), Error> {
        let name = entry.name.as_str();
        let bad_part = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
        if name.len() > NAME_LIMIT || name.split('/').any(bad_part) {
            return Err(Error::Name(entry.name));
        }
        if u32::try_from(entry.body().len()).is_err() {
            return Err(Error::TooLarge(entry.name));
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        match self.position(name) {
            Ok(_) => Err(Error::Twice(entry.name)),
            Err(at) => {
                self.entries.insert(at, entry);
                Ok(())
            }
        }
    }

    /// Makes a directory (0755) and those above it, where they are not there yet.
    ///
    /// # Errors
    /// See [`Archive::add`]; a directory that exists is no error.
    pub fn directory(&mut self, name: &str) -> Result<(), Error> {
        match self.position(name).ok().and_then(|at| self.entries.get(at)) {
            Some(Entry { kind: Kind::Directory, .. }) => Ok(()),
            Some(_) => Err(Error::NotDirectory(name.to_owned())),
            None => self.add(Entry { name: name.to_owned(), permissions: 0o755, kind: Kind::Directory }),
        }
    }

    /// Everything, sorted by the bytes of the name, so that a directory precedes what is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The archive's bytes. `mtime` is seconds since 1970, the same for every entry.
    pub fn bytes(&self, mtime: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let mut inode = 0u32;
        for entry in &self.entries {
            inode = inode.saturating_add(1);
            let device = if let Kind::Character(major, minor) = entry.kind { (major, minor) } else { (0, 0) };
            header(
                &mut out,
                [inode, entry.mode(), self.links(entry), mtime],
                device,
                &entry.name,
                entry.body(),
            );
        }
        header(&mut out, [0, 0, 1, 0], (0, 0), "TRAILER!!!", &[]);
        // cpio and initramfs tools end an archive on a 512-byte block; what follows the trailer is zeros.
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|e| e.name.as_bytes().cmp(name.as_bytes()))
    }

    /// A directory has two links and one for each directory in it; anything else has one.
    fn links(&self, entry: &Entry) -> u32 {
        if entry.kind != Kind::Directory {
            return 1;
        }
        let children = self.entries.iter().filter(|e| {
            e.kind == Kind::Directory
                && e.name.rsplit_once('/').is_some_and(|(parent, _)| parent == entry.name)
        });
        2u32.saturating_add(u32::try_from(children.count()).unwrap_or(u32::MAX))
    }
}

/// `first` is inode, mode, links, mtime. Thirteen fields of eight hexadecimal digits after the magic.
fn header(out: &mut Vec<u8>, first: [u32; 4], device: (u32, u32), name: &str, body: &[u8]) {
    let [inode, mode, links, mtime] = first;
    // `Archive::add` has refused what does not fit, so these conversions cannot lose anything.
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let name_size = u32::try_from(name.len()).unwrap_or(u32::MAX).saturating_add(1);
    out.extend_from_slice(b"070701");
    for field in [inode, mode, 0, 0, links, mtime, size, 0, 0, device.0, device.1, name_size, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> Entry {
        Entry { name: name.into(), permissions: 0o644, kind: Kind::File(content.to_vec()) }
    }

    #[test]
    fn order_of_adding_does_not_show() {
        let (mut one, mut two) = (Archive::default(), Archive::default());
        one.add(file("etc/a", b"1")).unwrap();
        one.add(file("bin/b", b"2")).unwrap();
        two.add(file("bin/b", b"2")).unwrap();
        two.add(file("etc/a", b"1")).unwrap();
        assert_eq!(one.bytes(0), two.bytes(0));
        let names: Vec<_> = one.entries().iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["bin", "bin/b", "etc", "etc/a"]);
    }

    #[test]
    fn one_entry_to_the_byte() {
        let mut archive = Archive::default();
        archive.add(file("a", b"hello")).unwrap();
        let bytes = archive.bytes(7);
        let expected = concat!(
            "070701",
            "00000001",
            "000081a4",
            "00000000",
            "00000000",
            "00000001",
            "00000007",
            "00000005",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000002",
            "00000000",
            "a\0",
            "hello\0\0\0"
        );
        assert_eq!(&bytes[..expected.len()], expected.as_bytes());
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn names_that_leave_or_collide_are_refused() {
        let mut archive = Archive::default();
        for bad in ["", "/etc", "a//b", "../x", "a/../b", "a/", "./a"] {
            assert_eq!(archive.add(file(bad, b"")), Err(Error::Name(bad.into())));
        }
        archive.add(file("init", b"")).unwrap();
        assert_eq!(archive.add(file("init", b"")), Err(Error::Twice("init".into())));
        assert_eq!(archive.add(file("init/x", b"")), Err(Error::NotDirectory("init".into())));
    }
}
