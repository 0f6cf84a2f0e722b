//! Contents, owners and attributes of files on a disk: the other half of [`Disk`].
#![expect(unsafe_code, reason = "nix has no calls for extended attributes")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, mknodat, utimensat,
};
use nix::sys::statvfs::fstatvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, fchown, fchownat, linkat, symlinkat};

use crate::ostree::tree::Meta;
use crate::storage::{At, Look, Room, Sealed, Trees, Volume};

use super::beneath::kind;
use super::files::{Disk, FilesError, failed, node};
use super::verity::{self, VerityError};
use super::walk;

type Result<T> = std::result::Result<T, FilesError>;

/// What libostree sets as the time of change of whatever it makes of an object.
const NO_TIME: TimeSpec = TimeSpec::new(0, 0);
/// The time of the last access stays now: earlier than the change, it would be written anew at every read.
const ACCESS: TimeSpec = TimeSpec::UTIME_OMIT;
const PERMISSIONS: u32 = 0o7777;

impl Trees for Disk {
    type Draft = File;
    type Source = File;

    fn draft(&mut self, at: &At) -> Result<File> {
        self.new_file(at, 0o600).map_err(failed("create", at))
    }

    fn resume(&mut self, at: &At) -> Result<(File, u64)> {
        let opened = self.above(at).and_then(|(above, name)| {
            let flags =
                OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            regular(File::from(openat(&above, name, flags, Mode::empty())?))
        });
        opened.map_err(failed("open", at))
    }

    fn append(&mut self, draft: &mut File, data: &[u8]) -> Result<()> {
        draft.write_all(data).map_err(|e| plain("write a file", super::errno(&e)))
    }

    fn seal(&mut self, draft: File, meta: &Meta) -> Result<()> {
        // Owner first: a change of it takes set-id bits and capabilities away. So does a write.
        let sealed = fchown(&draft, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
            .and_then(|()| set_attributes(draft.as_raw_fd(), &meta.attributes))
            .and_then(|()| fchmod(&draft, permissions(meta)))
            .and_then(|()| futimens(&draft, &ACCESS, &NO_TIME));
        sealed.map_err(|errno| plain("set owner, mode and attributes of a file", errno))
    }

    fn symlink_with(&mut self, at: &At, text: &str, meta: &Meta) -> Result<()> {
        let made = self.above(at).and_then(|(above, name)| {
            symlinkat(text, &above, name)?;
            let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
            fchownat(&above, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            set_link_attributes(above.as_raw_fd(), name, &meta.attributes)?;
            utimensat(&above, name, &ACCESS, &NO_TIME, UtimensatFlags::NoFollowSymlink)
        });
        made.map_err(failed("make link", at))
    }

    fn dress(&mut self, at: &At, meta: &Meta) -> Result<()> {
        let done = self.directory(at.volume, &at.path).and_then(|directory| {
            fchown(&directory, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
            for (name, _) in walk::attributes(&directory)? {
                if !meta.attributes.iter().any(|(wanted, _)| *wanted == name) {
                    remove_attribute(directory.as_raw_fd(), &name)?;
                }
            }
            set_attributes(directory.as_raw_fd(), &meta.attributes)?;
            fchmodat(&directory, ".", permissions(meta), FchmodatFlags::FollowSymlink)?;
            futimens(&directory, &ACCESS, &NO_TIME)
        });
        done.map_err(failed("set owner, mode and attributes of", at))
    }

    fn meta(&mut self, at: &At) -> Result<Meta> {
        let read = self.above(at).and_then(|(above, name)| {
            let stat = fstatat(&above, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let attributes = match kind(&stat) {
                SFlag::S_IFREG | SFlag::S_IFDIR => {
                    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                    walk::attributes(&openat(&above, name, flags, Mode::empty())?)?
                }
                _ => walk::attributes_at(above.as_fd(), &super::c_string(name)?)?,
            };
            Ok(Meta { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode, attributes })
        });
        read.map_err(failed("look at", at))
    }

    fn hard_link(&mut self, from: &At, to: &At) -> Result<()> {
        let made = self.above(from).and_then(|(above, name)| {
            let (below, new) = self.above(to)?;
            linkat(&above, name, &below, new, LinkatFlags::empty())
        });
        made.map_err(failed("link to", to))
    }

    fn open(&mut self, at: &At) -> Result<(File, u64)> {
        let opened = self.above(at).and_then(|(above, name)| {
            let flags =
                OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            regular(File::from(openat(&above, name, flags, Mode::empty())?))
        });
        opened.map_err(failed("open", at))
    }

    fn read_at(&mut self, source: &mut File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match source.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(plain("read a file", super::errno(&e))),
            }
        }
        Ok(filled)
    }

    fn lock(&mut self, at: &At) -> Result<()> {
        let directory = self.directory(at.volume, &at.path).map_err(failed("open", at))?;
        super::flags::make_immutable(&directory).map_err(failed("make immutable", at))
    }

    fn owner(&self) -> (u32, u32) {
        (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    }

    fn look(&mut self, at: &At) -> Result<Option<Look>> {
        let stat =
            self.above(at).and_then(|(above, name)| fstatat(&above, name, AtFlags::AT_SYMLINK_NOFOLLOW));
        match stat {
            Ok(stat) => Ok(Some(Look {
                node: node(&stat),
                length: u64::try_from(stat.st_size).unwrap_or(0),
                changed: (stat.st_mtime, stat.st_mtime_nsec),
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(failed("look at", at)(errno)),
        }
    }

    fn stamp(&mut self, at: &At, (seconds, nanoseconds): (i64, i64)) -> Result<()> {
        let time = TimeSpec::new(seconds, nanoseconds);
        let done = self
            .above(at)
            .and_then(|(above, name)| utimensat(&above, name, &time, &time, UtimensatFlags::NoFollowSymlink));
        done.map_err(failed("set the time of", at))
    }

    fn whiteout(&mut self, at: &At, meta: &Meta) -> Result<()> {
        let made = self.above(at).and_then(|(above, name)| {
            mknodat(&above, name, SFlag::S_IFCHR, permissions(meta), 0)?;
            let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
            fchownat(&above, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            set_link_attributes(above.as_raw_fd(), name, &meta.attributes)?;
            fchmodat(&above, name, permissions(meta), FchmodatFlags::FollowSymlink)?;
            utimensat(&above, name, &NO_TIME, &NO_TIME, UtimensatFlags::NoFollowSymlink)
        });
        made.map_err(failed("make whiteout", at))
    }

    fn sealed(&mut self, at: &At) -> Result<Sealed> {
        let (file, _) = Trees::open(self, at)?;
        match verity::digest(&file) {
            Ok(digest) => Ok(Sealed::Digest(digest)),
            Err(VerityError::NotEnabled) => Ok(Sealed::Not),
            Err(VerityError::NotSupported) => Ok(Sealed::Never),
            Err(VerityError::Algorithm) => {
                Err(failed("ask for the fs-verity digest (SHA-256) of", at)(Errno::EINVAL))
            }
            Err(VerityError::Kernel(errno)) => Err(failed("ask for the fs-verity digest of", at)(errno)),
        }
    }

    fn seal_content(&mut self, at: &At) -> Result<bool> {
        let (file, _) = Trees::open(self, at)?;
        match verity::enable(&file) {
            Ok(()) => Ok(true),
            Err(VerityError::NotSupported) => Ok(false),
            Err(VerityError::Kernel(errno)) => Err(failed("switch fs-verity on for", at)(errno)),
            Err(_) => Err(failed("switch fs-verity on for", at)(Errno::EINVAL)),
        }
    }

    #[allow(clippy::unnecessary_cast, reason = "not everywhere has it 64 bits")]
    fn room(&mut self, volume: Volume) -> Result<Room> {
        let told = self.directory(volume, "").and_then(|fd| fstatvfs(&fd));
        let stat = told.map_err(|errno| FilesError { call: "measure", at: format!("{volume:?}"), errno })?;
        let files = (stat.files() != 0).then(|| stat.files_available());
        #[allow(clippy::unnecessary_cast, reason = "of 32 bits where the machine is")]
        let unit = stat.fragment_size() as u64;
        Ok(Room { bytes: stat.blocks_available().saturating_mul(unit), files })
    }
}

/// What failed on a file that is open: its name is not at hand.
fn plain(call: &'static str, errno: Errno) -> FilesError {
    FilesError { call, at: "of the sysroot".into(), errno }
}

fn regular(file: File) -> nix::Result<(File, u64)> {
    let stat = nix::sys::stat::fstat(&file)?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(Errno::EINVAL);
    }
    Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
}

fn permissions(meta: &Meta) -> Mode {
    Mode::from_bits_truncate(meta.mode & PERMISSIONS)
}

fn attribute_name(name: &[u8]) -> nix::Result<CString> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}

fn set_attributes(fd: RawFd, attributes: &[(Vec<u8>, Vec<u8>)]) -> nix::Result<()> {
    for (name, value) in attributes {
        let name = attribute_name(name)?;
        // SAFETY: the name ends with NUL, the value is readable for its length, and both outlive the call.
        let done = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        Errno::result(done)?;
    }
    Ok(())
}

fn remove_attribute(fd: RawFd, name: &[u8]) -> nix::Result<()> {
    let name = attribute_name(name)?;
    // SAFETY: the name ends with NUL and outlives the call.
    match Errno::result(unsafe { libc::fremovexattr(fd, name.as_ptr()) }) {
        // Labels that a security module insists on.
        Err(Errno::EACCES | Errno::EPERM | Errno::EOPNOTSUPP) => Ok(()),
        done => done.map(drop),
    }
}

fn set_link_attributes(directory: RawFd, name: &str, attributes: &[(Vec<u8>, Vec<u8>)]) -> nix::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    // There is no call that takes a directory and a name.
    let path = super::c_string(&format!("/proc/self/fd/{directory}/{name}"))?;
    for (name, value) in attributes {
        let name = attribute_name(name)?;
        set_link_attribute(&path, &name, value)?;
    }
    Ok(())
}

fn set_link_attribute(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: path and name end with NUL, the value is readable for its length, and all outlive the call.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::storage::{Files, Node};

    #[test]
    fn what_is_sealed_is_as_it_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(directory.path(), directory.path()).unwrap();
        let meta =
            |mode| Meta { uid: 3, gid: 4, mode, attributes: vec![(b"user.x".to_vec(), b"1".to_vec())] };
        let at = At::root("file");
        let mut draft = disk.draft(&at).unwrap();
        disk.append(&mut draft, b"one").unwrap();
        drop(draft);
        let (mut draft, length) = disk.resume(&at).unwrap();
        assert_eq!(length, 3);
        disk.append(&mut draft, b"two").unwrap();
        disk.seal(draft, &meta(0o104_755)).unwrap();
        assert_eq!(disk.meta(&at).unwrap(), meta(0o104_755));
        let (mut source, length) = Trees::open(&mut disk, &at).unwrap();
        let mut buffer = [0; 9];
        assert_eq!((length, disk.read_at(&mut source, 2, &mut buffer).unwrap()), (6, 4));
        assert_eq!(&buffer[..4], b"etwo");
        disk.make_directory(&At::root("d"), 0o700).unwrap();
        disk.dress(&At::root("d"), &meta(0o041_777)).unwrap();
        assert_eq!(disk.meta(&At::root("d")).unwrap(), meta(0o041_777));
        let bare = Meta { attributes: vec![], ..meta(0o040_755) };
        disk.dress(&At::root("d"), &bare).unwrap();
        assert_eq!(disk.meta(&At::root("d")).unwrap(), bare);
        let link = Meta { attributes: vec![(b"trusted.x".to_vec(), b"2".to_vec())], ..meta(0o120_777) };
        disk.symlink_with(&At::root("d/link"), "nowhere", &link).unwrap();
        assert_eq!(disk.meta(&At::root("d/link")).unwrap(), link);
        disk.hard_link(&At::root("d/link"), &At::root("second")).unwrap();
        assert_eq!(disk.node(&At::root("second")).unwrap(), Some(Node::Link));
        assert!(disk.room(Volume::Root).unwrap().bytes > 0);
        assert_eq!(disk.draft(&at).unwrap_err().errno, Errno::EEXIST);
    }
}
