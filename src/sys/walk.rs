//! One directory of a tree, looked into without following anything: no link, no mount, nothing but names in it.
#![expect(unsafe_code, reason = "nix has no calls for extended attributes")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, fstat, fstatat};

use super::beneath::{Beneath, persistently};

/// Bytes of a list of attribute names, and of one value: the kernel allows no more (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const ATTRIBUTE_MAX: usize = 65536;

/// Names, without NUL, and values.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
}

impl Directory {
    /// Opens a directory of a tree; links on the way to it are followed within the tree.
    ///
    /// # Errors
    /// When it is no directory or cannot be opened.
    pub fn open(tree: &Beneath, path: &str) -> Result<Self, Errno> {
        let fd = tree.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        Ok(Directory { fd })
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// `ELOOP` when it is a link, `EXDEV` when something is mounted there.
    pub fn enter(&self, name: &CStr) -> Result<Self, Errno> {
        let fd = self.open_within(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        Ok(Directory { fd })
    }

    fn open_within(&self, name: &CStr, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        persistently(|| openat2(self.fd.as_fd(), name, how))
    }

    /// Opens a file in this directory for reading. It must be known to be a regular one.
    ///
    /// # Errors
    /// As open(2).
    pub fn file(&self, name: &CStr) -> Result<File, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        self.open_within(name, flags).map(File::from)
    }

    /// What it is itself.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn own_stat(&self) -> Result<FileStat, Errno> {
        fstat(&self.fd)
    }

    /// What a name in it is; a link is a link.
    ///
    /// # Errors
    /// As fstatat(2).
    pub fn stat(&self, name: &CStr) -> Result<FileStat, Errno> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Where a link in it points.
    ///
    /// # Errors
    /// As readlinkat(2).
    pub fn link(&self, name: &CStr) -> Result<Vec<u8>, Errno> {
        Ok(readlinkat(&self.fd, name)?.into_vec())
    }

    /// Every name in it but `.` and `..`, sorted by bytes; `EOVERFLOW` when there are more than `limit`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self, limit: usize) -> Result<Vec<CString>, Errno> {
        let fd = self.open_within(c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(fd)?.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if names.len() == limit {
                return Err(Errno::EOVERFLOW);
            }
            names.push(name.to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Its own extended attributes, sorted by name.
    ///
    /// # Errors
    /// As listxattr(2) and getxattr(2).
    pub fn own_attributes(&self) -> Result<Attributes, Errno> {
        attributes(&self.fd)
    }

    /// The extended attributes of a link or a device in it, sorted by name.
    ///
    /// # Errors
    /// As listxattr(2) and getxattr(2). `/proc` must be mounted: there is no call that takes a directory and a name.
    pub fn attributes_of(&self, name: &CStr) -> Result<Attributes, Errno> {
        attributes_at(self.fd.as_fd(), name)
    }
}

/// The extended attributes of a link or a device in a directory, sorted by name.
///
/// # Errors
/// As listxattr(2) and getxattr(2). `/proc` must be mounted: there is no call that takes a directory and a name.
pub fn attributes_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<Attributes, Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend(name.to_bytes());
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    read(
        // SAFETY: the path ends with NUL, and the buffer is writable for its length.
        &mut |buffer| unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) },
        // SAFETY: as above; so does the name.
        &mut |name, buffer| unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        },
    )
}

/// The extended attributes of an open file, sorted by name.
///
/// # Errors
/// As listxattr(2) and getxattr(2).
pub fn attributes(file: &impl AsRawFd) -> Result<Attributes, Errno> {
    let fd = file.as_raw_fd();
    read(
        // SAFETY: the buffer is writable for its length.
        &mut |buffer| unsafe { libc::flistxattr(fd, buffer.as_mut_ptr().cast(), buffer.len()) },
        // SAFETY: as above; the name ends with NUL.
        &mut |name, buffer| unsafe {
            libc::fgetxattr(fd, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        },
    )
}

fn read(
    list: &mut dyn FnMut(&mut [u8]) -> isize,
    value: &mut dyn FnMut(&CStr, &mut [u8]) -> isize,
) -> Result<Attributes, Errno> {
    // Most files have none: a short buffer first.
    let names = match filled(256, list) {
        Err(Errno::ERANGE) => filled(ATTRIBUTE_MAX, list),
        // The file system knows no attributes.
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        other => other,
    }?;
    let mut found = Attributes::new();
    for name in names.split_inclusive(|&b| b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EINVAL)?;
        let mut one = |buffer: &mut [u8]| value(name, buffer);
        let content = match filled(256, &mut one) {
            Err(Errno::ERANGE) => filled(ATTRIBUTE_MAX, &mut one),
            other => other,
        }?;
        found.push((name.to_bytes().into(), content));
    }
    found.sort_unstable();
    Ok(found)
}

fn filled(size: usize, call: &mut dyn FnMut(&mut [u8]) -> isize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; size];
    let length = Errno::result(call(&mut buffer))?;
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    Ok(buffer)
}
