//! Deploys on a device, or into an image that is mounted somewhere.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use log::warn;
use nix::errno::Errno;

use crate::arrange::carry;
use crate::arrange::layout::{Entry, Layout};
use crate::arrange::plan::{self, Step};
use crate::arrange::survey;
use crate::ledger::Kind;
use crate::ledger::diary::Diary;
use crate::ostree::object::{self, Checksum};
use crate::ostree::verify::{BootFiles, Check, Faults, Level, verify};
use crate::ostree::{Commit, VerifiedCommit};
use crate::repo::{REPO, refs};
use crate::storage::At;
use crate::sys::beneath::Beneath;
use crate::sys::files::{Disk, FilesError};
use crate::sys::lock;
use crate::sys::mount::make_writable;
use crate::trial::act::{Site, save};
use crate::trial::facts::{Environment, Past, UNFROZEN, read, staged};
use crate::trial::rejected;
use crate::trial::settle::Variables;

use super::prepare::{Options, Prepared, prepare};
use super::{Fault, carry as order, collect, init};

/// So long is somebody else's lock waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest ref file, in bytes.
const REF_MAX: usize = 4096;

/// What failed.
#[derive(Debug)]
pub enum Error {
    /// A place that has to be written cannot be made writable.
    ReadOnly(PathBuf, Errno),
    /// Somebody else is changing the sysroot, or the lock cannot be taken.
    Lock(Errno),
    /// The sysroot or the boot directory cannot be read.
    Survey(survey::Error),
    /// The places cannot be opened.
    Open(FilesError),
    /// There is no such ref or commit.
    NoSuch(String),
    /// The commit failed on this device before.
    Rejected(String),
    /// A change of this boot has not reached the bootloader yet.
    Unsettled,
    /// There is no new deployment.
    Fault(Fault<FilesError>),
    /// A step of `init-fs` failed.
    Init(carry::Error<FilesError>),
    /// The bootloader's variables cannot be read or written.
    Environment(String),
    /// The new deployment is the first one, but what it no longer needs was not removed.
    NotPruned(Fault<FilesError>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ReadOnly(path, errno) => {
                write!(f, "{} cannot be made writable: {}", path.display(), errno.desc())
            }
            Error::Lock(Errno::EAGAIN) => {
                f.write_str("somebody else is changing the deployments; try again when they are done")
            }
            Error::Lock(errno) => write!(f, "the sysroot cannot be locked: {}", errno.desc()),
            Error::Survey(e) => e.fmt(f),
            Error::Open(e) => e.fmt(f),
            Error::NoSuch(name) => write!(f, "there is no ref or commit '{name}' in the repository"),
            Error::Rejected(why) => write!(
                f,
                "the commit failed on this device ({why}); --force deploys it in spite of that"
            ),
            Error::Unsettled => f.write_str(
                "the boot filesystem cannot be frozen, so the bootloader may not see the last change before a reboot; reboot first",
            ),
            Error::Fault(e) => e.fmt(f),
            Error::Init(e) => e.fmt(f),
            Error::Environment(e) => write!(f, "the bootloader's variables: {e}"),
            Error::NotPruned(e) => write!(f, "the new deployment is the first one to boot, but {e}"),
        }
    }
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Files, links and directories that were made.
    Made(u64),
    /// Files that were compared with their checksums, and bytes.
    Verified(u64, u64),
    /// Objects that are removed.
    Pruning(usize),
}

/// What was done, or would be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// `COMMIT.SERIAL` of the new deployment.
    pub name: String,
    /// What it comes to, a sentence each.
    pub said: Vec<String>,
    /// The steps on files that change the boot configuration.
    pub steps: Vec<String>,
    /// The bootloader's variables that change.
    pub variables: Vec<(String, String)>,
    /// Objects that were removed, and their bytes.
    pub pruned: (usize, u64),
}

/// Deploys a commit that a trusted key has signed and whose objects are in the repository.
///
/// # Errors
/// See [`Error`]. Up to the swap nothing has changed that counts.
pub fn deploy(
    site: &Site,
    commit: &VerifiedCommit,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    deploy_unsigned(site, commit.commit(), options, progress)
}

/// Deploys a commit of the device's own repository on an operator's word, where no keys are configured: as
/// `ostree admin deploy` does. Whatever comes from outside goes through [`deploy`].
///
/// # Errors
/// See [`Error`].
pub fn deploy_unsigned(
    site: &Site,
    commit: &Commit,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    make_writable(&[&site.sysroot, &site.boot])
        .map_err(|(path, errno)| Error::ReadOnly(path.into(), errno))?;
    let _lock = lock::sysroot(&site.sysroot, PATIENCE).map_err(Error::Lock)?;
    let mut disk = Disk::open(&site.sysroot, &site.boot).map_err(Error::Open)?;
    let (layout, prepared, mut report) = decide(site, &mut disk, commit, options)?;
    let progress = std::cell::RefCell::new(progress);
    let mut made = |count| (progress.borrow_mut())(Progress::Made(count));
    let before = Environment::read(site).map_err(Error::Environment)?;
    let variables = report.variables.clone();
    let mut check = |at: &At| {
        compare(site, &prepared, at, &mut |files, bytes| {
            (progress.borrow_mut())(Progress::Verified(files, bytes))
        })?;
        // Whatever boots from here on is counted. A cut before the swap has the old one counted until its next
        // confirmation; after the swap it would leave a new one whose boots nobody counts.
        save(site, &variables).map_err(Fault::Variables)
    };
    let carried = order::carry(&mut disk, &layout, &prepared, immutable(), &mut made, &mut check);
    let done = carried.map_err(|fault| {
        if !fault.swapped() && !variables.is_empty() {
            take_back(site, &before);
        }
        Error::Fault(fault)
    })?;
    if !done.frozen {
        warn!(
            "the boot filesystem cannot be frozen; a bootloader may see the old entries until the next boot"
        );
    }
    let [modified, removed, added] = done.laid.changes;
    report.said.push(format!("/etc: {modified} modified, {removed} removed, {added} added are kept"));
    report.said.extend(done.laid.passed_over.iter().map(|path| format!("not a file, left out: {path}")));
    let mut diary = Diary::new();
    let unfrozen = if done.frozen { "" } else { UNFROZEN };
    diary.note(Kind::Changed, None, &format!("{unfrozen}deployed {}", prepared.entry.name()));
    diary.write(&site.sysroot);
    if site.booted.is_some() && layout.entries.iter().any(|e| e.booted && e.stateroot == options.stateroot) {
        // systemd's ConditionNeedsUpdate=; a /var of its own hides the stateroot's.
        let _ = std::fs::remove_file("/var/.updated");
    }
    if !options.no_prune {
        let mut tell = |count| (progress.borrow_mut())(Progress::Pruning(count));
        report.pruned = prune(site, &mut disk, &mut tell)?;
    }
    Ok(report)
}

/// Whether directories of deployments are made immutable; libostree's tests, and ours, say no.
pub(crate) fn immutable() -> bool {
    std::env::var("OSTREE_SYSROOT_DEBUG").map_or(true, |v| !v.contains("mutable-deployments"))
}

/// Says what [`deploy`] would do.
///
/// # Errors
/// See [`Error`].
pub fn dry_run(site: &Site, commit: &Commit, options: &Options) -> Result<Report, Error> {
    let mut disk = Disk::open(&site.sysroot, &site.boot).map_err(Error::Open)?;
    decide(site, &mut disk, commit, options).map(|(_, _, report)| report)
}

fn decide(
    site: &Site,
    disk: &mut Disk,
    commit: &Commit,
    options: &Options,
) -> Result<(Layout, Prepared, Report), Error> {
    let mut layout = read(site, false).map_err(Error::Survey)?;
    if !layout.faults.is_empty() {
        // What is written anew has to be right.
        layout = read(site, true).map_err(Error::Survey)?;
    }
    let past = Past::read(&site.sysroot);
    if past.unfrozen {
        return Err(Error::Unsettled);
    }
    let confirmed = |entry: &Entry| {
        let history = past.history(&entry.commit, entry.serial);
        history.confirmed && history.unconfirmed == 0
    };
    let mut options = options.clone();
    let device = |path: &std::path::Path| std::fs::metadata(path).ok().map(|m| device_of(&m));
    options.one_filesystem |= device(&site.sysroot).is_some() && device(&site.sysroot) == device(&site.boot);
    options.staged |= staged(site);
    let prepared = prepare(disk, &layout, commit, &options, &confirmed).map_err(Error::Fault)?;
    let plan =
        plan::with_new(&layout, &prepared.entry, &prepared.kept).map_err(|e| Error::Fault(e.into()))?;
    let mut report = Report { name: prepared.entry.name(), ..Report::default() };
    report.steps = prepared.stale.iter().chain(plan.steps()).map(Step::to_string).collect();
    report.said.push(format!("new: {} {}", options.stateroot, report.name));
    if let Some(old) = prepared.merge.and_then(|index| layout.entries.get(index)) {
        report.said.push(format!("configuration of {}", old.name()));
    }
    if prepared.policy {
        report.said.push(
            "SELinux: the commit has a policy, by which nothing is labelled here: /etc has the labels of the commit and of the old one; 'restorecon -R /etc' after the boot labels it anew"
                .into(),
        );
    }
    for (index, entry) in layout.entries.iter().enumerate() {
        if !prepared.kept.contains(&index) {
            report.said.push(format!("removed: {} {}", entry.stateroot, entry.name()));
        }
    }
    // A device without U-Boot has the ledger only.
    if options.trial && site.env_config.as_deref().is_some_and(std::path::Path::exists) {
        let trial = [("upgrade_available", "1"), ("bootcount", "0"), ("rollback", "0")];
        report.variables = trial.map(|(name, value)| (name.to_string(), value.to_string())).into();
    }
    Ok((layout, prepared, report))
}

/// There is no new deployment, so that no trial begins: the variables become what they were.
fn take_back(site: &Site, before: &Environment) {
    let old = Variables {
        rollback: Some(before.state.rollback.value().unwrap_or_default()),
        upgrade_available: Some(before.state.upgrade_available.value().unwrap_or_default()),
        bootcount: Some(before.state.bootcount.value().unwrap_or_default()),
        recovery: false,
    };
    let changed = Environment::read(site).and_then(|now| save(site, &now.changes(&old)));
    if let Err(e) = changed {
        warn!("the bootloader's variables: {e}; the boots are counted until the next confirmation");
    }
}

/// Whether a commit is among the deployments of a stateroot. Where it is the first to boot and was never tried, its boots
/// are to be counted, which is seen to.
///
/// # Errors
/// When the sysroot or the variables cannot be read, or those not be written.
pub fn already(site: &Site, stateroot: &str, name: &Checksum) -> Result<bool, Error> {
    let layout = read(site, false).map_err(Error::Survey)?;
    let name = name.to_string();
    let same = |e: &Entry| e.stateroot == stateroot && e.commit == name;
    let Some((index, entry)) = layout.entries.iter().enumerate().find(|(_, e)| same(e)) else {
        return Ok(false);
    };
    let history = Past::read(&site.sysroot).history(&entry.commit, entry.serial);
    if index > 0 || entry.booted || history.confirmed || history.unconfirmed > 0 {
        return Ok(true);
    }
    let trial = Variables {
        rollback: Some(false),
        upgrade_available: Some(true),
        bootcount: Some(0),
        ..Variables::default()
    };
    let changes = Environment::read(site).map_err(Error::Environment)?.changes(&trial);
    if !changes.is_empty() {
        save(site, &changes).map_err(Error::Environment)?;
        warn!("nobody would have counted the boots of {name}: its trial begins now");
    }
    Ok(true)
}

fn device_of(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(metadata)
}

/// Holds what was made against the commit: every byte and attribute.
fn compare(
    site: &Site,
    prepared: &Prepared,
    at: &At,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Fault<FilesError>> {
    let tree = Beneath::open(&site.sysroot).map_err(|errno| {
        Fault::Files(FilesError { call: "open", at: site.sysroot.display().to_string(), errno })
    })?;
    let check = Check {
        sysroot: &tree,
        boot: None,
        path: &at.path,
        commit: &prepared.entry.commit,
        boot_files: &BootFiles::default(),
        level: Level::Full,
        keys: None,
        budget: None,
        faults: Faults::First,
    };
    let report = verify(&check, &mut |p| progress(p.entries, p.bytes));
    progress(report.progress.entries, report.progress.bytes);
    if report.is_good() {
        return Ok(());
    }
    Err(Fault::Differs(report.faults.iter().map(ToString::to_string).collect()))
}

/// Removes what nothing needs from the repository: how many objects, and their bytes.
///
/// # Errors
/// See [`Error::NotPruned`].
pub fn prune(site: &Site, disk: &mut Disk, progress: &mut dyn FnMut(usize)) -> Result<(usize, u64), Error> {
    let layout = read(site, false).map_err(Error::Survey)?;
    let _lock = lock::repository(&site.sysroot, PATIENCE).map_err(Error::Lock)?;
    let names = layout.unnamed.iter().filter_map(|(_, name)| name.split('.').next());
    let deployed = layout.entries.iter().map(|e| e.commit.as_str()).chain(names);
    let deployed: Vec<String> = deployed.map(String::from).collect();
    let garbage = collect::find(disk, &deployed).map_err(Error::NotPruned)?;
    progress(garbage.objects.len());
    collect::remove(disk, &garbage).map_err(Error::NotPruned)?;
    Ok((garbage.objects.len(), garbage.bytes))
}

/// Makes a sysroot of an empty filesystem, with a stateroot; what is there already stays.
///
/// # Errors
/// See [`Error`].
pub fn init_fs(site: &Site, stateroot: &str, uboot: bool) -> Result<Vec<String>, Error> {
    let legal = !matches!(stateroot, "" | "." | "..") && !stateroot.contains('/');
    if !legal || stateroot.chars().any(char::is_control) {
        return Err(Error::Fault(Fault::Text("stateroot", stateroot.into())));
    }
    if site.boot == site.sysroot.join("boot")
        && let Err(e) = std::fs::create_dir(&site.boot)
        && e.kind() != std::io::ErrorKind::AlreadyExists
    {
        let at = site.boot.display().to_string();
        return Err(Error::Open(FilesError { call: "make directory", at, errno: crate::sys::errno(&e) }));
    }
    let mut disk = Disk::open(&site.sysroot, &site.boot).map_err(Error::Open)?;
    let failed = |e| Error::Fault(Fault::Files(e));
    let steps = init::plan(&mut disk, stateroot, uboot).map_err(failed)?;
    carry::steps(&mut disk, &steps, false).map_err(Error::Init)?;
    Ok(steps.iter().map(Step::to_string).collect())
}

/// The stateroot of the running deployment.
pub fn booted_stateroot(site: &Site) -> Option<String> {
    read(site, false).ok()?.entries.into_iter().find(|e| e.booted).map(|e| e.stateroot)
}

/// The commit that a name means in the sysroot's repository: 64 hexadecimal digits, `REMOTE:REF` or `REF`.
///
/// # Errors
/// When there is none.
pub fn resolve(site: &Site, name: &str) -> Result<Checksum, Error> {
    let missing = || Error::NoSuch(name.into());
    if let Some(checksum) = Checksum::parse(name) {
        return Ok(checksum);
    }
    let legal = !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !legal {
        return Err(missing());
    }
    let path = match name.split_once(':') {
        Some((remote, name)) => refs::path(Some(remote), name),
        None => refs::path(None, name),
    };
    let path = format!("{REPO}/{path}");
    let text =
        Beneath::open(&site.sysroot).and_then(|tree| tree.read(&path, REF_MAX)).map_err(|_| missing())?;
    std::str::from_utf8(&text).ok().and_then(|text| Checksum::parse(text.trim_end())).ok_or_else(missing)
}

/// Reads a commit object and what is said of it besides.
///
/// # Errors
/// When it is missing or damaged.
pub fn commit(site: &Site, name: &Checksum) -> Result<(Vec<u8>, Option<Vec<u8>>), Error> {
    let kind = object::Kind::Commit;
    let tree = Beneath::open(&site.sysroot).map_err(|_| Error::NoSuch(name.to_string()))?;
    let data = crate::ostree::read::object(&tree, name, kind).map_err(|e| match e {
        crate::ostree::read::ObjectError::Changed => Error::Fault(Fault::Damaged(*name, kind)),
        crate::ostree::read::ObjectError::Unreadable(_) => Error::NoSuch(name.to_string()),
    })?;
    let metadata = crate::ostree::read::commitmeta(&tree, name);
    let metadata = metadata.map_err(|_| Error::Fault(Fault::Damaged(*name, object::Kind::CommitMeta)))?;
    Ok((data, metadata))
}

/// Whether the commit failed here before.
///
/// # Errors
/// [`Error::Rejected`] when it did.
pub fn not_rejected(sysroot: &std::path::Path, name: &Checksum) -> Result<(), Error> {
    let list = Beneath::open(sysroot).and_then(|tree| tree.read(rejected::PATH, rejected::SIZE_MAX));
    let name = name.to_string();
    match rejected::parse(&list.unwrap_or_default()).into_iter().find(|r| r.commit == name) {
        Some(found) => Err(Error::Rejected(found.reason)),
        None => Ok(()),
    }
}
