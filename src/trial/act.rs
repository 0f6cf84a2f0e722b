//! Carries a verb out: verdicts, then deployments, then the bootloader's variables.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use nix::errno::Errno;

use crate::arrange::plan::{self, Step};
use crate::arrange::{carry, survey};
use crate::ledger::Kind;
use crate::ledger::diary::Diary;
use crate::storage::{At, Files};
use crate::sys::files::{Disk, FilesError};
use crate::sys::lock;
use crate::sys::mount::make_writable;
use crate::uboot::env::Edit;
use crate::uboot::store::Store;

use super::facts::{UNFROZEN, read, staged};
use super::settle::Refusal;

pub use super::facts::Site;
pub use super::prepare::{Prepared, Report, Verb, prepare};

/// So long is somebody else's lock waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What failed.
#[derive(Debug)]
pub enum Error {
    /// A place that has to be written cannot be made writable.
    ReadOnly(PathBuf, Errno),
    /// Somebody else is changing the sysroot, or the lock cannot be taken.
    Lock(Errno),
    /// The sysroot or the boot directory cannot be read.
    Survey(survey::Error),
    /// The verb makes no sense here.
    Refused(Refusal),
    /// There is no plan to it.
    Plan(plan::Refusal),
    /// A change of this boot has not reached the bootloader yet.
    Unsettled,
    /// The places cannot be opened for writing.
    Open(FilesError),
    /// A step failed.
    Carry(carry::Error<FilesError>),
    /// The bootloader's variables cannot be read.
    Environment(String),
    /// The bootloader's variables were not written.
    NotSaved(String),
    /// The deployment is gone, what only it needed is not.
    NotPruned(String),
    /// Nothing can be made up for these deployments.
    Hopeless(Vec<String>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ReadOnly(path, errno) => {
                write!(f, "{} cannot be made writable: {}", path.display(), errno.desc())
            }
            Error::Lock(Errno::EAGAIN) => f.write_str("somebody else is changing the deployments; try again when they are done"),
            Error::Lock(errno) => write!(f, "the sysroot cannot be locked: {}", errno.desc()),
            Error::Survey(e) => e.fmt(f),
            Error::Refused(e) => e.fmt(f),
            Error::Plan(e) => e.fmt(f),
            Error::Unsettled => f.write_str(
                "the boot filesystem cannot be frozen, so the bootloader may not see the last change before a reboot; reboot first",
            ),
            Error::Open(e) => e.fmt(f),
            Error::Carry(e) => e.fmt(f),
            Error::Environment(e) => write!(f, "the bootloader's variables: {e}"),
            Error::NotSaved(e) => write!(
                f,
                "the bootloader's variables: {e}; everything else was done, run the command again to finish"
            ),
            Error::NotPruned(e) => write!(
                f,
                "the deployment is removed, its objects are not: {e}; 'ostree fsck' finds damage, then run the command again"
            ),
            Error::Hopeless(faults) => write!(f, "no deployment can be given a boot entry: {}", faults.join("; ")),
        }
    }
}

/// Does a verb, or says what it would do.
///
/// # Errors
/// See [`Error`]. Up to the swap nothing has changed; after it, the same verb run again finishes.
pub fn act(site: &Site, verb: &Verb, dry_run: bool) -> Result<Report, Error> {
    if dry_run {
        return Ok(prepare(site, verb)?.report);
    }
    make_writable(&[&site.sysroot, &site.boot])
        .map_err(|(path, errno)| Error::ReadOnly(path.into(), errno))?;
    let _lock = lock::sysroot(&site.sysroot, PATIENCE).map_err(Error::Lock)?;
    let mut prepared = prepare(site, verb)?;
    let mut disk = Disk::open(&site.sysroot, &site.boot).map_err(Error::Open)?;
    carry::steps(&mut disk, &prepared.marks, false).map_err(Error::Carry)?;
    record_verdicts(site, &prepared);
    if let Some(plan) = &prepared.plan {
        let frozen = carry::carry_out(&mut disk, plan).map_err(Error::Carry)?.frozen;
        if !frozen {
            warn!(
                "the boot filesystem cannot be frozen; a bootloader may see the old entries until the next boot"
            );
        }
        record_change(site, &prepared, frozen);
    }
    save(site, &prepared.report.variables).map_err(Error::NotSaved)?;
    if prepared.tidy {
        tidy(site, &mut disk)?;
    }
    carry::steps(&mut disk, &prepared.rest, true).map_err(Error::Carry)?;
    if verb.removes() {
        match prune(site, &mut disk) {
            Ok(said) => prepared.report.said.extend(said),
            // A healthy deployment is confirmed all the same; the next confirmation tries again.
            Err(e) if *verb == Verb::Confirm => warn!("{e}"),
            Err(e) => return Err(e),
        }
    }
    carry::steps(&mut disk, &prepared.done, true).map_err(Error::Carry)?;
    Ok(prepared.report)
}

/// Writes to the ledger which deployments are good and bad, before anything follows from it: after a cut, the one that
/// was confirmed must not look like one that was tried and never confirmed. A ledger that cannot be written is a warning.
pub fn record_verdicts(site: &Site, prepared: &Prepared) {
    let mut diary = Diary::new();
    for (kind, id, text) in &prepared.verdicts {
        diary.note(*kind, *id, text);
    }
    diary.write(&site.sysroot);
}

/// Writes to the ledger that the deployments were changed.
pub fn record_change(site: &Site, prepared: &Prepared, frozen: bool) {
    let mut diary = Diary::new();
    let prefix = if frozen { "" } else { UNFROZEN };
    diary.note(Kind::Changed, None, &format!("{prefix}{}", prepared.changed));
    diary.write(&site.sysroot);
}

/// Sets the bootloader's variables, all of them in one write.
///
/// # Errors
/// When the environment cannot be opened or written.
pub fn save(site: &Site, changes: &[(String, String)]) -> Result<(), String> {
    let Some(config) = site.env_config.as_deref().filter(|_| !changes.is_empty()) else { return Ok(()) };
    let edit = |(name, value): &'_ (String, String)| (name.clone().into_bytes(), value.clone().into_bytes());
    let changes: Vec<_> = changes.iter().map(edit).collect();
    let edits: Vec<Edit<'_>> =
        changes.iter().map(|(name, value)| Edit { name, value: Some(value) }).collect();
    change(config, &edits)
}

/// Changes the bootloader's variables, all of them in one write.
///
/// # Errors
/// When the environment cannot be opened or written.
pub fn change(config: &Path, edits: &[Edit<'_>]) -> Result<(), String> {
    let _lock = crate::uboot::store::lock();
    let mut store = Store::open(config).map_err(|e| e.to_string())?;
    if !store.survives_cuts() {
        warn!("the environment has a single copy: a power cut during this write loses it");
    }
    store.save(edits).map_err(|e| e.to_string())
}

/// What earlier boots left behind goes now that this one is known to be good.
fn tidy(site: &Site, disk: &mut Disk) -> Result<(), Error> {
    let layout = read(site, false).map_err(Error::Survey)?;
    if !layout.faults.is_empty() {
        return Ok(());
    }
    let mut steps = plan::tidy(&layout, staged(site));
    steps.retain(|step| *step != discarded());
    carry::steps(disk, &steps, true).map(|_| ()).map_err(Error::Carry)
}

/// The directory that deployments are discarded to is what tells that their objects are still to go.
fn discarded() -> Step {
    Step::Remove(At::root(plan::TRASH))
}

/// Removes the objects that only discarded deployments needed, where any were discarded since the last time; what it
/// came to.
fn prune(site: &Site, disk: &mut Disk) -> Result<Option<String>, Error> {
    let trash = disk.node(&At::root(plan::TRASH));
    if trash.map_err(|e| Error::NotPruned(e.to_string()))?.is_none() {
        return Ok(None);
    }
    let said = objects(site, disk)?;
    carry::steps(disk, &[discarded()], true).map_err(Error::Carry)?;
    Ok(said)
}

#[cfg(feature = "recovery")]
fn objects(site: &Site, disk: &mut Disk) -> Result<Option<String>, Error> {
    let (count, bytes) = crate::deploy::act::prune(site, disk, &mut |_| {}).map_err(|e| match e {
        crate::deploy::act::Error::NotPruned(fault) => Error::NotPruned(fault.to_string()),
        other => Error::NotPruned(other.to_string()),
    })?;
    Ok((count > 0).then(|| format!("removed: {count} objects that nothing needs, {} kB", bytes / 1000)))
}

/// Which objects are needed is known to the feature `recovery` only.
#[cfg(not(feature = "recovery"))]
fn objects(_: &Site, _: &mut Disk) -> Result<Option<String>, Error> {
    Ok(None)
}
