//! Looking at a tree from above: every path is resolved beneath its root, symbolic links included.
//!
//! A link to `/etc` means the tree's own `etc`, and `..` at the root stays there (`RESOLVE_IN_ROOT` of
//! openat2(2), Linux 5.6), so that nothing on a damaged or hostile disk leads out of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat};

/// So often at most is a path looked up again; each time takes microseconds, and a rename between two is rare.
const PATIENCE: u32 = 10_000;

/// An open directory that everything is resolved beneath.
#[derive(Debug)]
pub struct Beneath {
    root: OwnedFd,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name; entries whose names are not UTF-8 are not listed.
    pub name: String,
    /// It is a symbolic link.
    pub link: bool,
}

impl Beneath {
    /// Opens the root of a tree, by its path in the outer world.
    ///
    /// # Errors
    /// When it is no directory or cannot be opened.
    pub fn open(root: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(root, flags, nix::sys::stat::Mode::empty())?;
        Ok(Beneath { root })
    }

    /// A directory of this tree as the root of a tree of its own.
    ///
    /// # Errors
    /// When it is no directory of this tree.
    pub fn subtree(&self, path: &str) -> Result<Self, Errno> {
        let root = self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(Beneath { root })
    }

    pub(super) fn resolve(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // An empty path is the root itself.
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        persistently(|| openat2(self.root.as_fd(), path, how))
    }

    /// What is at a path, links followed.
    ///
    /// # Errors
    /// As open(2).
    pub fn stat(&self, path: &str) -> Result<FileStat, Errno> {
        fstat(self.resolve(path, OFlag::O_PATH)?)
    }

    /// Whether there is a directory, links followed.
    pub fn is_directory(&self, path: &str) -> bool {
        self.stat(path).is_ok_and(|s| kind(&s) == SFlag::S_IFDIR)
    }

    /// Whether there is anything, links followed.
    pub fn exists(&self, path: &str) -> bool {
        self.stat(path).is_ok()
    }

    /// The text of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` when it is no link, `EILSEQ` when its text is not UTF-8.
    pub fn link(&self, path: &str) -> Result<String, Errno> {
        let fd = self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        readlinkat(fd, "")?.into_string().map_err(|_| Errno::EILSEQ)
    }

    /// Opens a regular file for reading. Anything else, a FIFO or a device for example, is never opened.
    ///
    /// # Errors
    /// `EINVAL` when it is not a regular file.
    pub fn file(&self, path: &str) -> Result<File, Errno> {
        let file = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY);
        let file = File::from(file?);
        if kind(&fstat(&file)?) == SFlag::S_IFREG { Ok(file) } else { Err(Errno::EINVAL) }
    }

    /// Reads a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// `EFBIG` when it is longer.
    pub fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, Errno> {
        // Only a plain file is opened for reading; the check needs no open.
        if kind(&self.stat(path)?) != SFlag::S_IFREG {
            return Err(Errno::EINVAL);
        }
        let mut content = Vec::new();
        let mut file = self.file(path)?.take(limit as u64 + 1);
        file.read_to_end(&mut content).map_err(|e| super::errno(&e))?;
        if content.len() > limit { Err(Errno::EFBIG) } else { Ok(content) }
    }

    /// The names in a directory, sorted, at most `limit` of them; the flag tells whether that was all.
    ///
    /// # Errors
    /// When it is no directory or cannot be read.
    pub fn list(&self, path: &str, limit: usize) -> Result<(Vec<Entry>, bool), Errno> {
        let fd = self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::from_fd(fd)?.iter() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            if entries.len() == limit {
                entries.sort_by(|a: &Entry, b| a.name.cmp(&b.name));
                return Ok((entries, false));
            }
            let link = entry.file_type() == Some(nix::dir::Type::Symlink);
            entries.push(Entry { name: name.into(), link });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((entries, true))
    }
}

/// Asks again after `EAGAIN`: openat2 gives up on a `..` when anything anywhere was renamed or mounted meanwhile, which
/// says nothing of the path (openat2(2), `RESOLVE_IN_ROOT`).
pub(super) fn persistently<T>(mut open: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    for _ in 0..PATIENCE {
        match open() {
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            done => return done,
        }
    }
    open()
}

/// The type bits of a mode.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicBool, Ordering};

    /// Without a second try one lookup in some thousand failed here, and a boot link counted as missing.
    #[test]
    fn renames_elsewhere_do_not_disturb() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("../../file", directory.path().join("a/b/link")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("0"), "").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (one, other) = (elsewhere.path().join("0"), elsewhere.path().join("1"));
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(&one, &other).and_then(|()| std::fs::rename(&other, &one)).unwrap();
                }
            });
            let tree = Beneath::open(directory.path()).unwrap();
            let failed = (0..50_000).filter_map(|_| tree.stat("a/b/link").err()).next();
            done.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
    }
}
