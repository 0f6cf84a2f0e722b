//! The new root becomes `/` and its init runs.
//!
//! Order: checks; then what can be taken back (moving `/dev`, `/proc`, `/sys`, `/run`); then the switch; at the
//! very end the initramfs is emptied and init executed. Open files of the caller, such as an armed watchdog,
//! stay as they are.

use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use nix::unistd::{chdir, chroot, execve, fchdir};

use crate::sys::beneath::Beneath;
use crate::sys::rehearse;
use crate::sys::tree::clear;
use crate::sysroot::Machine;
use crate::sysroot::init::{self, InitFault};

/// The mounts that move into the new root, if they are mounts.
const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];
/// linux/magic.h; nix has only the other one.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
const NOTHING: Option<&str> = None;

/// Everything that the hand-over needs was found to be there.
#[derive(Debug)]
pub struct HandOver {
    new_root: PathBuf,
    init: CString,
    old_root: OwnedFd,
    directory: OwnedFd,
    moved: Vec<&'static str>,
    emptied: bool,
}

/// Why the hand-over cannot be made.
#[derive(Debug)]
pub enum Error {
    /// A step failed.
    Step {
        /// Which.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The new root is not a mount point.
    NotAMount(PathBuf),
    /// Init is not an absolute path.
    NotAbsolute(String),
    /// Init cannot be run.
    Init(InitFault),
    /// The kernel does not execute init, although nothing is wrong with it that can be seen.
    Refused(String, Errno),
}

impl Error {
    /// Whether it came after the point of no return: the initramfs is empty, and a restart is all that is left.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Step { step: "exec", .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step, path, errno } => write!(f, "{step} {}: {}", path.display(), errno.desc()),
            Self::NotAMount(path) => write!(f, "{}: the new root is not a mount point", path.display()),
            Self::NotAbsolute(init) => write!(f, "init '{init}' is not an absolute path"),
            Self::Init(fault) => fault.fmt(f),
            Self::Refused(init, errno) => {
                write!(f, "the kernel refuses to execute init {init}: {}", errno.desc())
            }
        }
    }
}

impl HandOver {
    /// Checks all that [`commit`](Self::commit) relies on, to the point of having the kernel load the init in a
    /// child that never runs it. Changes nothing. Needs Linux 5.6 (`openat2`).
    ///
    /// # Errors
    /// What is missing.
    pub fn check(new_root: &Path, init: &str) -> Result<Self, Error> {
        let at = |step, path: &Path| {
            let path = path.to_path_buf();
            move |errno| Error::Step { step, path, errno }
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let slash = Path::new("/");
        let old_root = open(slash, flags, Mode::empty()).map_err(at("open", slash))?;
        let directory = open(new_root, flags, Mode::empty()).map_err(at("open", new_root))?;
        let old = fstat(&old_root).map_err(at("stat", slash))?;
        let new = fstat(&directory).map_err(at("stat", new_root))?;
        if new.st_dev == old.st_dev {
            return Err(Error::NotAMount(new_root.into()));
        }
        if !init.starts_with('/') {
            return Err(Error::NotAbsolute(init.into()));
        }
        let tree = Beneath::open(new_root).map_err(at("open", new_root))?;
        init::check(&tree, init, Machine::native()).map_err(Error::Init)?;
        let program = CString::new(init).map_err(|_| Error::Init(InitFault::Missing(init.into())))?;
        rehearse::exec(new_root, &program).map_err(|errno| Error::Refused(init.into(), errno))?;
        let mut moved = Vec::with_capacity(MOVED.len());
        for name in MOVED {
            let from = slash.join(name);
            if stat(&from).is_ok_and(|s| s.st_dev != old.st_dev) {
                let to = new_root.join(name);
                let kind = stat(&to).map_err(at("stat", &to))?.st_mode;
                if kind & SFlag::S_IFMT.bits() != SFlag::S_IFDIR.bits() {
                    return Err(at("move onto", &to)(Errno::ENOTDIR));
                }
                moved.push(name);
            }
        }
        let kind = fstatfs(&old_root).map_err(at("statfs", slash))?.filesystem_type();
        let emptied = kind == RAMFS_MAGIC || kind == TMPFS_MAGIC;
        Ok(HandOver { new_root: new_root.into(), init: program, old_root, directory, moved, emptied })
    }

    /// Hands over: the new root becomes `/`, the initramfs is emptied, init runs. `arguments` starts with the
    /// name that init sees itself under.
    ///
    /// Returns only if it failed. Unless the step is `exec` ([`Error::is_final`]), nothing was deleted and the
    /// mounts are where they were.
    pub fn commit(self, arguments: &[CString], environment: &[CString]) -> Error {
        match self.switch() {
            Err(error) => error,
            Ok(()) => {
                // The point of no return.
                if self.emptied {
                    let _ = clear(&self.old_root);
                }
                let path = PathBuf::from(self.init.to_string_lossy().into_owned());
                let errno = execve(&self.init, arguments, environment).err().unwrap_or(Errno::ENOEXEC);
                Error::Step { step: "exec", path, errno }
            }
        }
    }

    fn switch(&self) -> Result<(), Error> {
        for (count, name) in self.moved.iter().enumerate() {
            let (from, to) = (Path::new("/").join(name), self.new_root.join(name));
            if let Err(errno) = mount(Some(&from), &to, NOTHING, MsFlags::MS_MOVE, NOTHING) {
                self.move_back(count);
                return Err(Error::Step { step: "move", path: from, errno });
            }
        }
        let moved = fchdir(&self.directory)
            .and_then(|()| mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING))
            .and_then(|()| {
                // Still in the new root's directory, from which it can be moved back.
                chroot(".").inspect_err(|_| {
                    let _ = mount(Some("."), &self.new_root, NOTHING, MsFlags::MS_MOVE, NOTHING);
                })
            });
        if let Err(errno) = moved {
            let _ = chdir("/");
            self.move_back(self.moved.len());
            return Err(Error::Step { step: "move to /", path: self.new_root.clone(), errno });
        }
        let _ = chdir("/");
        Ok(())
    }

    fn move_back(&self, count: usize) {
        for name in self.moved.iter().take(count).rev() {
            let (to, from) = (Path::new("/").join(name), self.new_root.join(name));
            if let Err(errno) = mount(Some(&from), &to, NOTHING, MsFlags::MS_MOVE, NOTHING) {
                log::error!("{} could not be moved back: {}", to.display(), errno.desc());
            }
        }
    }
}
