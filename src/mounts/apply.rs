//! Carries a mount plan out, and takes it back.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, mkdir, symlinkat, unlink};

use crate::mounts::composefs::{self, ComposefsError};
use crate::mounts::plan::{Plan, RUN_ROOT, Step};
use crate::sys::{c_string, errno, mount as tree, tree::clear};

const NOTHING: Option<&str> = None;

/// A plan that was carried out as a whole.
#[must_use = "keep it until the hand-over has worked, so that the plan can be undone"]
#[derive(Debug)]
pub struct Applied {
    done: Vec<Undo>,
}

/// What takes one step back.
#[derive(Debug)]
enum Undo {
    Leave,
    Unmount(String),
    Reattach(Option<OwnedFd>, String),
    Delete(String),
    RemoveDirectory(String),
    Directory(String),
    Move { from: String, to: String },
}

/// A step failed. What had been done was undone.
#[derive(Debug)]
pub struct ApplyError {
    /// The step, as the plan prints it.
    pub step: String,
    /// Why it failed.
    pub cause: Cause,
    /// What could not be undone, if anything.
    pub left: Option<UndoError>,
}

/// Why a step failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The kernel's reason.
    Kernel(Errno),
    /// A composefs root cannot be mounted.
    Composefs(ComposefsError),
}

/// A step that could not be undone; those before it were.
#[derive(Debug)]
pub struct UndoError {
    /// What was tried.
    pub action: &'static str,
    /// Where.
    pub path: String,
    /// The kernel's reason.
    pub errno: Errno,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Kernel(errno) => write!(f, "{}: {}", self.step, errno.desc())?,
            Cause::Composefs(error) => write!(f, "{}: {error}", self.step)?,
        }
        self.left.as_ref().map_or(Ok(()), |left| write!(f, "; and it could not be undone: {left}"))
    }
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Cause::Kernel(errno)
    }
}

impl fmt::Display for UndoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.action, self.path, self.errno.desc())
    }
}

/// Carries out `plan`.
///
/// # Errors
/// The first step that failed. Those before it are undone first: mounts, files and directories are as before,
/// save that mounts stay private and that the working directory is `/`.
pub fn apply(plan: &Plan) -> Result<Applied, ApplyError> {
    let mut applied = Applied { done: Vec::with_capacity(plan.steps.len()) };
    for step in &plan.steps {
        if let Err(cause) = carry_out(step, &mut applied.done) {
            let left = applied.undo().err();
            return Err(ApplyError { step: step.to_string(), cause, left });
        }
    }
    Ok(applied)
}

impl Applied {
    /// Takes the plan back, last step first.
    ///
    /// # Errors
    /// The first step that could not be undone; the others were tried all the same.
    pub fn undo(mut self) -> Result<(), UndoError> {
        let mut first = Ok(());
        while let Some(undo) = self.done.pop() {
            let (action, path, result) = take_back(undo);
            if let (Err(errno), Ok(())) = (result, &first) {
                first = Err(UndoError { action, path, errno });
            }
        }
        first
    }
}

fn carry_out(step: &Step, done: &mut Vec<Undo>) -> Result<(), Cause> {
    match step {
        Step::Directory { path, mode } => match mkdir(path.as_str(), Mode::S_IRWXU) {
            Err(Errno::EEXIST) if Path::new(path).is_dir() => return Ok(()),
            made => {
                made?;
                done.push(Undo::RemoveDirectory(path.clone()));
                fs::set_permissions(path, Permissions::from_mode(*mode)).map_err(|e| errno(&e))?;
            }
        },
        Step::Private => mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?,
        Step::Enter { path } => {
            chdir(path.as_str())?;
            done.push(Undo::Leave);
        }
        Step::Bind { from, to } => {
            mount(Some(from.as_str()), to.as_str(), NOTHING, MsFlags::MS_BIND, NOTHING)?;
            done.push(Undo::Unmount(to.clone()));
        }
        Step::Remount { path, readonly } => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | access(*readonly);
            mount(NOTHING, path.as_str(), NOTHING, flags, NOTHING)?;
        }
        Step::Overlay { to, options, readonly } => {
            let options = Some(options.as_str());
            mount(Some("overlay"), to.as_str(), Some("overlay"), access(*readonly), options)?;
            done.push(Undo::Unmount(to.clone()));
        }
        Step::Image { image, to, digest } => {
            composefs::mount_image(Path::new(image), to, digest.as_ref()).map_err(Cause::Composefs)?;
            done.push(Undo::Unmount(to.clone()));
        }
        Step::Composefs(overlay) => {
            composefs::mount_root(overlay).map_err(Cause::Composefs)?;
            done.push(Undo::Unmount(overlay.to.clone()));
        }
        Step::Link { path, target } => link(path, target, done),
        Step::Detach { path } => {
            // Kept to be put back; without it (before Linux 5.2) only the undoing is lost.
            let spare = c_string(path).and_then(|p| tree::clone_tree(&p)).ok();
            umount2(path.as_str(), MntFlags::MNT_DETACH)?;
            done.push(Undo::Reattach(spare, path.clone()));
        }
        Step::SlaveShared { path } => {
            mount(NOTHING, path.as_str(), NOTHING, MsFlags::MS_SLAVE, NOTHING)?;
            mount(NOTHING, path.as_str(), NOTHING, MsFlags::MS_SHARED, NOTHING)?;
        }
        Step::Write { path, data } => {
            replace(path, data).map_err(|e| errno(&e))?;
            done.push(Undo::Delete(path.clone()));
        }
        Step::Move { from, to } => {
            mount(Some(from.as_str()), to.as_str(), NOTHING, MsFlags::MS_MOVE, NOTHING)?;
            done.push(Undo::Move { from: to.clone(), to: from.clone() });
        }
        Step::RemoveDirectory { path } => {
            fs::remove_dir(path).map_err(|e| errno(&e))?;
            done.push(Undo::Directory(path.clone()));
        }
    }
    Ok(())
}

/// Without the link the system boots all the same.
fn link(path: &str, target: &str, done: &mut Vec<Undo>) {
    if let Some((above, _)) = path.rsplit_once('/')
        && mkdir(above, Mode::from_bits_truncate(0o755)).is_ok()
    {
        done.push(Undo::RemoveDirectory(above.into()));
    }
    match symlinkat(target, AT_FDCWD, path) {
        Ok(()) => done.push(Undo::Delete(path.into())),
        Err(Errno::EEXIST) => {}
        Err(errno) => log::warn!("link {path} to {target}: {}", errno.desc()),
    }
}

fn take_back(undo: Undo) -> (&'static str, String, nix::Result<()>) {
    match undo {
        Undo::Leave => ("chdir", "/".into(), chdir("/")),
        Undo::Unmount(path) => {
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            let result = umount2(path.as_str(), flags);
            ("unmount", path, result)
        }
        Undo::Reattach(spare, path) => {
            let result = c_string(&path).and_then(|p| {
                spare.as_ref().map_or(Err(Errno::ENOSYS), |spare| tree::attach_tree(spare, &p))
            });
            ("mount again", path, result)
        }
        Undo::Delete(path) => {
            let result = unlink(path.as_str());
            ("delete", path, result)
        }
        Undo::RemoveDirectory(path) => {
            // An overlay leaves things behind in its directories; every other one is empty again, or else
            // something is still mounted there and nothing must be deleted.
            if path.starts_with("/run/ostree/transient-etc.") || path.starts_with(RUN_ROOT) {
                let _ = fs::File::open(&path).map(clear);
            }
            let result = fs::remove_dir(&path).map_err(|e| errno(&e));
            ("rmdir", path, result)
        }
        Undo::Directory(path) => {
            let result = mkdir(path.as_str(), Mode::from_bits_truncate(0o755));
            ("mkdir", path, result)
        }
        Undo::Move { from, to } => {
            let result = mount(Some(from.as_str()), to.as_str(), NOTHING, MsFlags::MS_MOVE, NOTHING);
            ("move", from, result)
        }
    }
}

fn access(readonly: bool) -> MsFlags {
    if readonly { MsFlags::MS_RDONLY } else { MsFlags::empty() }
}

fn replace(path: &str, data: &[u8]) -> std::io::Result<()> {
    let scratch = format!("{path}.new");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&scratch)?;
        file.write_all(data)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&scratch, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&scratch);
    })
}
