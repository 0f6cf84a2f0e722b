//! Asks for recovery from the running OS, and takes that back.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use nix::errno::Errno;

use super::request::{Asked, PATH, SIZE_MAX, steps};
use crate::arrange::carry;
use crate::policy::Reading;
use crate::sys::beneath::Beneath;
use crate::sys::files::{Disk, FilesError};
use crate::sys::lock;
use crate::sys::mount::make_writable;
use crate::trial::act::{Site, change};
use crate::uboot::env::Edit;
use crate::uboot::store::{RECOVERY, Store, boot_state};

/// So long is somebody else's lock waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What failed.
#[derive(Debug)]
pub enum Error {
    /// The root cannot be made writable.
    ReadOnly(PathBuf, Errno),
    /// Somebody else is changing the sysroot, or the lock cannot be taken.
    Lock(Errno),
    /// The root cannot be opened.
    Open(FilesError),
    /// The file was not written.
    File(carry::Error<FilesError>),
    /// The bootloader's variable was not written.
    Environment(String),
    /// The bootloader counts the boots of a trial, and a drill is one more.
    Trial,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ReadOnly(path, errno) => {
                write!(f, "{} cannot be made writable: {}", path.display(), errno.desc())
            }
            Error::Lock(errno) => {
                write!(f, "the sysroot cannot be locked, try again later: {}", errno.desc())
            }
            Error::Open(e) => e.fmt(f),
            Error::File(e) => e.fmt(f),
            Error::Environment(e) => write!(f, "the bootloader's variables: {e}"),
            Error::Trial => f.write_str(
                "a deployment is on trial, and a drill is a boot that would count: confirm it first",
            ),
        }
    }
}

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the bootloader's environment.
    Environment,
    /// On the physical root.
    Root,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Environment => "in the bootloader's environment",
            Place::Root => "on the root filesystem",
        })
    }
}

/// What the file on the root asks for. What is there and is no request is told in the log.
pub fn on_root(sysroot: &Path) -> Option<Asked> {
    let read = Beneath::open(sysroot).and_then(|root| root.read(PATH, SIZE_MAX));
    match read {
        Ok(content) => {
            let asked = Asked::of_file(&content);
            if asked.is_none() {
                warn!("{PATH} is damaged and asks for nothing");
            }
            asked
        }
        Err(Errno::ENOENT | Errno::ENOTDIR) => None,
        Err(errno) => {
            warn!("{PATH} cannot be read and asks for nothing: {}", errno.desc());
            None
        }
    }
}

/// What is asked for at present, and where.
pub fn asked(site: &Site) -> Option<(Asked, Place)> {
    let environment = variable(site).and_then(|(asked, _)| asked);
    let environment = environment.map(|asked| (asked, Place::Environment));
    environment.or_else(|| on_root(&site.sysroot).map(|asked| (asked, Place::Root)))
}

/// What the variable asks for, and whether a deployment is on trial; `None` where there is no environment to be used.
fn variable(site: &Site) -> Option<(Option<Asked>, bool)> {
    let config = site.env_config.as_deref().filter(|config| config.exists())?;
    let loaded = Store::open_to_read(config).and_then(|mut store| store.load());
    let loaded = loaded.map_err(|e| warn!("the bootloader's environment: {e}")).ok()?;
    loaded.image()?;
    let trial = boot_state(&loaded).upgrade_available == Reading::Value(true);
    Some((loaded.get(RECOVERY).and_then(Asked::of_variable), trial))
}

/// Asks for it, durably, and says where that was written. The other place asks for nothing afterwards.
///
/// # Errors
/// See [`Error`]. Whatever was asked for before still is, or nothing is; the same command again finishes.
pub fn ask(site: &Site, asked: Asked) -> Result<Place, Error> {
    let environment = variable(site);
    if asked == Asked::Drill && environment.is_some_and(|(_, trial)| trial) {
        return Err(Error::Trial);
    }
    if let (Some(_), Some(config)) = (environment, &site.env_config) {
        let edit = Edit { name: RECOVERY, value: Some(asked.variable().as_bytes()) };
        change(config, &[edit]).map_err(Error::Environment)?;
        if on_root(&site.sysroot).is_some() {
            write(site, None)?;
        }
        return Ok(Place::Environment);
    }
    write(site, Some(asked))?;
    Ok(Place::Root)
}

/// Asks for nothing any more, and says what was asked for before.
///
/// # Errors
/// See [`Error`].
pub fn cancel(site: &Site) -> Result<Option<Asked>, Error> {
    let before = asked(site).map(|(asked, _)| asked);
    if let (Some((Some(_), _)), Some(config)) = (variable(site), &site.env_config) {
        change(config, &[Edit { name: RECOVERY, value: None }]).map_err(Error::Environment)?;
    }
    // A damaged one goes too.
    if site.sysroot.join(PATH).symlink_metadata().is_ok() {
        write(site, None)?;
    }
    Ok(before)
}

fn write(site: &Site, asked: Option<Asked>) -> Result<(), Error> {
    make_writable(&[&site.sysroot]).map_err(|(path, errno)| Error::ReadOnly(path.into(), errno))?;
    let _lock = lock::sysroot(&site.sysroot, PATIENCE).map_err(Error::Lock)?;
    let mut disk = Disk::open(&site.sysroot, &site.sysroot).map_err(Error::Open)?;
    carry::steps(&mut disk, &steps(asked), false).map_err(Error::File)?;
    Ok(())
}

/// Takes the file away, in the initramfs, where nobody else is.
///
/// # Errors
/// When the root refuses.
pub fn take_back(sysroot: &Path) -> Result<(), String> {
    let mut disk = Disk::open(sysroot, sysroot).map_err(|e| e.to_string())?;
    carry::steps(&mut disk, &steps(None), false).map(|_| ()).map_err(|e| e.to_string())
}
