//! Directories on a disk as [`Files`].

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, PosixFadviseAdvice, openat, posix_fadvise, renameat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, linkat, symlinkat, syncfs, unlinkat};

use crate::storage::{At, Files, Node, Volume};

use super::beneath::{Beneath, kind};
use super::walk;

/// More names in one directory than this are not taken.
const NAMES_MAX: usize = 1 << 20;

/// The physical root and the boot directory of a device.
#[derive(Debug)]
pub struct Disk {
    root: Beneath,
    boot: Beneath,
}

/// What failed, where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilesError {
    /// The operation.
    pub call: &'static str,
    /// On what.
    pub at: String,
    /// The kernel's reason.
    pub errno: Errno,
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.call, self.at, self.errno.desc())?;
        f.write_str(match self.errno {
            Errno::ENOSPC => "; free some space there",
            Errno::EROFS => "; make it writable first",
            _ => "",
        })
    }
}

type Result<T> = std::result::Result<T, FilesError>;

impl Disk {
    /// Opens both.
    ///
    /// # Errors
    /// When one of them is no directory.
    pub fn open(root: &Path, boot: &Path) -> Result<Self> {
        let open = |path: &Path| {
            let failed = |errno| FilesError { call: "open", at: path.display().to_string(), errno };
            Beneath::open(path).map_err(failed)
        };
        Ok(Disk { root: open(root)?, boot: open(boot)? })
    }

    fn volume(&self, volume: Volume) -> &Beneath {
        match volume {
            Volume::Root => &self.root,
            Volume::Boot => &self.boot,
        }
    }

    /// The directory that something is in, and its name there.
    pub(super) fn above<'a>(&self, at: &'a At) -> nix::Result<(OwnedFd, &'a str)> {
        let (above, name) = at.path.rsplit_once('/').unwrap_or(("", &at.path));
        Ok((self.volume(at.volume).resolve(above, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name))
    }

    fn file(&self, at: &At) -> nix::Result<File> {
        let (above, name) = self.above(at)?;
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = File::from(openat(&above, name, flags, Mode::empty())?);
        if kind(&nix::sys::stat::fstat(&file)?) != SFlag::S_IFREG {
            return Err(Errno::EINVAL);
        }
        // What was just written is to come from the medium, not from memory.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(file)
    }

    pub(super) fn new_file(&self, at: &At, mode: u32) -> nix::Result<File> {
        let (above, name) = self.above(at)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&above, name, flags, Mode::from_bits_truncate(mode))?;
        // Whatever the umask is.
        fchmodat(&above, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)?;
        Ok(File::from(fd))
    }

    pub(super) fn directory(&self, volume: Volume, path: &str) -> nix::Result<OwnedFd> {
        self.volume(volume).resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    fn duplicate(&self, from: &At, to: &At) -> nix::Result<()> {
        let ((above, name), (below, new)) = (self.above(from)?, self.above(to)?);
        if linkat(&above, name, &below, new, LinkatFlags::empty()).is_ok() {
            return Ok(());
        }
        let mut source = self.file(from)?;
        let stat = nix::sys::stat::fstat(&source)?;
        let mut copy = self.new_file(to, stat.st_mode & 0o7777)?;
        let io = |e: std::io::Error| super::errno(&e);
        std::io::copy(&mut source, &mut copy).map_err(io)?;
        // A boot filesystem such as FAT has no owners.
        let _ = fchown(&copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        copy.sync_all().map_err(io)
    }
}

pub(super) fn failed(call: &'static str, at: &At) -> impl FnOnce(Errno) -> FilesError {
    move |errno| FilesError { call, at: at.to_string(), errno }
}

pub(super) fn node(stat: &FileStat) -> Node {
    match kind(stat) {
        SFlag::S_IFDIR => Node::Directory,
        SFlag::S_IFREG => Node::File,
        SFlag::S_IFLNK => Node::Link,
        _ => Node::Other,
    }
}

impl Files for Disk {
    type Error = FilesError;

    fn node(&mut self, at: &At) -> Result<Option<Node>> {
        let stat =
            self.above(at).and_then(|(above, name)| fstatat(&above, name, AtFlags::AT_SYMLINK_NOFOLLOW));
        match stat {
            Ok(stat) => Ok(Some(node(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(failed("look at", at)(errno)),
        }
    }

    fn names(&mut self, at: &At) -> Result<Vec<String>> {
        let failed = |errno| failed("read directory", at)(errno);
        let names = walk::Directory::open(self.volume(at.volume), &at.path).and_then(|d| d.names(NAMES_MAX));
        // A name that is not UTF-8 must not be passed over: who copies or removes all of it would not.
        let text = |name: CString| name.into_string().map_err(|_| failed(Errno::EILSEQ));
        names.map_err(failed)?.into_iter().map(text).collect()
    }

    fn read(&mut self, at: &At, limit: usize) -> Result<Vec<u8>> {
        let file = self.file(at).map_err(failed("read", at))?;
        let mut content = Vec::new();
        file.take(limit as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|e| failed("read", at)(super::errno(&e)))?;
        if content.len() > limit { Err(failed("read", at)(Errno::EFBIG)) } else { Ok(content) }
    }

    fn link_text(&mut self, at: &At) -> Result<String> {
        self.volume(at.volume).link(&at.path).map_err(failed("read link", at))
    }

    fn same(&mut self, one: &At, other: &At) -> Result<bool> {
        let (mut a, mut b) =
            (self.file(one).map_err(failed("read", one))?, self.file(other).map_err(failed("read", other))?);
        let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        loop {
            let n = fill(&mut a, &mut left).map_err(failed("read", one))?;
            let m = fill(&mut b, &mut right).map_err(failed("read", other))?;
            if left.get(..n) != right.get(..m) {
                return Ok(false);
            }
            if n == 0 {
                return Ok(true);
            }
        }
    }

    fn make_directory(&mut self, at: &At, mode: u32) -> Result<()> {
        let made = self.above(at).and_then(|(above, name)| {
            mkdirat(&above, name, Mode::from_bits_truncate(mode))?;
            fchmodat(&above, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
        });
        match made {
            Err(Errno::EEXIST) => Ok(()),
            made => made.map_err(failed("make directory", at)),
        }
    }

    fn create(&mut self, at: &At, content: &[u8], mode: u32) -> Result<()> {
        let mut file = self.new_file(at, mode).map_err(failed("create", at))?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(|e| failed("write", at)(super::errno(&e)))
    }

    fn copy(&mut self, from: &At, to: &At) -> Result<()> {
        self.duplicate(from, to).map_err(failed("copy to", to))
    }

    fn symlink(&mut self, at: &At, text: &str) -> Result<()> {
        let made = self.above(at).and_then(|(above, name)| symlinkat(text, &above, name));
        made.map_err(failed("make link", at))
    }

    fn rename(&mut self, from: &At, to: &At) -> Result<()> {
        let done = self.above(from).and_then(|(above, name)| {
            let (below, new) = self.above(to)?;
            renameat(&above, name, &below, new)
        });
        done.map_err(failed("rename to", to))
    }

    fn exchange(&mut self, from: &At, to: &At) -> Result<()> {
        let done = self.above(from).and_then(|(above, name)| {
            let (below, new) = self.above(to)?;
            match super::flags::exchange(&above, name, &below, new) {
                // Nothing is there yet, or the filesystem or the kernel has no such thing.
                Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                    renameat(&above, name, &below, new)
                }
                done => done,
            }
        });
        done.map_err(failed("rename to", to))
    }

    fn unlink(&mut self, at: &At) -> Result<()> {
        let done =
            self.above(at).and_then(|(above, name)| unlinkat(&above, name, UnlinkatFlags::NoRemoveDir));
        done.map_err(failed("remove", at))
    }

    fn remove_directory(&mut self, at: &At) -> Result<()> {
        let done = self.above(at).and_then(|(above, name)| unlinkat(&above, name, UnlinkatFlags::RemoveDir));
        done.map_err(failed("remove directory", at))
    }

    fn unlock(&mut self, at: &At) -> Result<()> {
        let directory = self.directory(at.volume, &at.path).map_err(failed("open", at))?;
        super::flags::make_mutable(&directory).map_err(failed("make mutable", at))
    }

    fn touch(&mut self, at: &At) -> Result<()> {
        let done = self.above(at).and_then(|(above, name)| {
            utimensat(
                &above,
                name,
                &TimeSpec::UTIME_NOW,
                &TimeSpec::UTIME_NOW,
                UtimensatFlags::NoFollowSymlink,
            )
        });
        done.map_err(failed("touch", at))
    }

    fn sync(&mut self, volume: Volume) -> Result<()> {
        let done = self.directory(volume, "").and_then(syncfs);
        done.map_err(|errno| FilesError { call: "sync", at: format!("{volume:?}"), errno })
    }

    fn freeze(&mut self, volume: Volume) -> Result<bool> {
        let done = self.directory(volume, "").and_then(|fd| super::freeze::cycle(fd.as_fd()));
        done.map_err(|errno| FilesError { call: "freeze", at: format!("{volume:?}"), errno })
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> nix::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|r| !r.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(super::errno(&e)),
        }
    }
    Ok(length)
}
