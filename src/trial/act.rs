//! Gathers the facts, settles, and carries it out: verdicts, then deployments, then the bootloader's variables.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use nix::errno::Errno;

use crate::arrange::layout::Entry;
use crate::arrange::plan::{self, Plan, Step};
use crate::arrange::survey::{self, Places, survey};
use crate::arrange::{Layout, carry};
use crate::ledger::diary::Diary;
use crate::ledger::{DeploymentId, History, Kind, file};
use crate::mounts::booted::Booted;
use crate::policy::Reading;
use crate::storage::{At, Volume};
use crate::sys::files::{Disk, FilesError};
use crate::sys::mount::make_writable;
use crate::sys::{lock, time};
use crate::sysroot::{Look, Machine, Sysroot};
use crate::uboot::env::Edit;
use crate::uboot::store::{DEFAULT_CONFIG, Store, boot_state};

use super::rejected;
use super::settle::{self, Known, Refusal, Settlement, Standing, Variables};

/// So long is somebody else's lock waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the ledger says of a change that the bootloader may not see before the next boot.
const UNFROZEN: &str = "not frozen: ";

/// Where all of it is.
#[derive(Clone, Debug)]
pub struct Site {
    /// The physical root.
    pub sysroot: PathBuf,
    /// The boot directory.
    pub boot: PathBuf,
    /// `fw_env.config`, where the device has a U-Boot environment.
    pub env_config: Option<PathBuf>,
    /// Device and inode of the running deployment.
    pub booted: Option<(u64, u64)>,
    /// The running one by its index, for an image of which none is running.
    pub booted_index: Option<usize>,
    /// Kernel arguments for a deployment that has no boot entry.
    pub options: Option<String>,
}

impl Site {
    /// The running system, or an image that is mounted somewhere: of that one no deployment is running, and it has no
    /// environment unless one is named.
    pub fn of(image: Option<&Path>) -> Self {
        let sysroot = image.unwrap_or(Path::new("/sysroot"));
        // A system that does not mount its boot directory has it on the physical root.
        let own = image.is_none() && Path::new("/boot/loader").exists();
        let booted = std::fs::read("/run/ostree-booted").ok().filter(|_| image.is_none());
        let options = std::fs::read_to_string("/proc/cmdline").ok().filter(|_| image.is_none());
        Site {
            sysroot: sysroot.into(),
            boot: if own { "/boot".into() } else { sysroot.join("boot") },
            env_config: image.is_none().then(|| DEFAULT_CONFIG.into()),
            booted: booted.and_then(|file| Booted::from_bytes(&file).device_inode),
            booted_index: None,
            options: options.map(|o| o.trim().into()),
        }
    }
}

/// A verb.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verb {
    /// The running deployment is healthy.
    Confirm,
    /// It is not, for this reason.
    Reject(String),
    /// Another one becomes the first.
    Rollback(Option<usize>),
    /// A deployment goes.
    Undeploy(usize),
    /// What is out of step is written anew.
    Repair,
}

impl Verb {
    /// Why a commit is remembered as bad.
    fn reason(&self) -> &str {
        match self {
            Verb::Reject(reason) => reason,
            _ => "it was rolled back",
        }
    }
}

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
            Error::Hopeless(faults) => write!(f, "no deployment can be given a boot entry: {}", faults.join("; ")),
        }
    }
}

/// What was done, or would be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What it comes to, a sentence each.
    pub said: Vec<String>,
    /// The steps on files; nothing where the deployments stay as they are.
    pub steps: Vec<String>,
    /// The bootloader's variables that change.
    pub variables: Vec<(String, String)>,
}

/// Everything that a verb is going to do; nothing of it is done yet.
#[derive(Debug)]
pub struct Prepared {
    /// What it comes to.
    pub report: Report,
    /// The steps before the deployments change: what is to be remembered whatever follows.
    pub marks: Vec<Step>,
    /// The change of the deployments.
    pub plan: Option<Plan>,
    verdicts: Vec<(Kind, Option<DeploymentId>, String)>,
    changed: String,
    tidy: bool,
}

/// Gathers the facts and settles; nothing is written.
///
/// # Errors
/// See [`Error`].
pub fn prepare(site: &Site, verb: &Verb) -> Result<Prepared, Error> {
    let past = Past::read(&site.sysroot);
    let mut layout = read(site, *verb == Verb::Repair).map_err(Error::Survey)?;
    let relied_on = |e: &Entry| e.booted && past.history(&e.commit, e.serial).confirmed;
    if *verb == Verb::Confirm && !layout.entries.iter().any(relied_on) {
        // Its first confirmation: from now on its kernel in the boot directory is relied on.
        layout = read(site, true).map_err(Error::Survey)?;
    }
    let environment = Environment::read(site).map_err(Error::Environment)?;
    let standing = standing(site, &layout, &past, &environment);
    let settlement = settled(verb, &standing, &layout)?;
    let mut report = Report::default();
    let plan = plan(verb, &layout, &settlement, &past, &mut report)?;
    let marks = marks(site, verb, &layout, &standing, &settlement);
    report.steps = marks.iter().map(ToString::to_string).collect();
    report.steps.extend(plan.iter().flat_map(Plan::steps).map(ToString::to_string));
    report.variables = environment.changes(&settlement.variables);
    tell(verb, &layout, &standing, &settlement, &mut report);
    let verdicts = verdicts(verb, &layout, &standing, &settlement, &past);
    let changed = match verb {
        Verb::Confirm | Verb::Repair if settlement.order.len() == layout.entries.len() => {
            layout.faults.join("; ")
        }
        _ => format!("{} of {} stay", settlement.order.len(), layout.entries.len()),
    };
    let tidy = *verb == Verb::Confirm && plan.is_none() && !past.changed;
    Ok(Prepared { report, marks, plan, verdicts, changed, tidy })
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
    let prepared = prepare(site, verb)?;
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
    let _lock = crate::uboot::store::lock();
    let mut store = Store::open(config).map_err(|e| e.to_string())?;
    if !store.survives_cuts() {
        warn!("the environment has a single copy: a power cut during this write loses it");
    }
    let edit = |(name, value): &'_ (String, String)| (name.clone().into_bytes(), value.clone().into_bytes());
    let changes: Vec<_> = changes.iter().map(edit).collect();
    let edits: Vec<Edit<'_>> =
        changes.iter().map(|(name, value)| Edit { name, value: Some(value) }).collect();
    store.save(&edits).map_err(|e| e.to_string())
}

fn read(site: &Site, deep: bool) -> Result<Layout, survey::Error> {
    survey(&Places {
        sysroot: &site.sysroot,
        boot: &site.boot,
        booted: site.booted,
        options: site.options.as_deref(),
        deep,
    })
}

/// What the ledger knows.
struct Past {
    histories: Vec<(DeploymentId, History)>,
    /// The deployments were changed in this boot.
    changed: bool,
    /// And the bootloader may not know.
    unfrozen: bool,
    /// What was confirmed in this boot.
    confirmed: Vec<DeploymentId>,
}

impl Past {
    fn read(sysroot: &Path) -> Self {
        let boot = time::boot_id();
        let mut past = Past { histories: Vec::new(), changed: false, unfrozen: false, confirmed: Vec::new() };
        let read = file::open(sysroot).and_then(|mut ring| {
            ring.each(|record| {
                if record.kind == Kind::Changed && record.boot == boot {
                    past.changed = true;
                    past.unfrozen = record.text.starts_with(UNFROZEN);
                }
                if record.kind == Kind::Confirmed && record.boot == boot {
                    past.confirmed.push(record.deployment);
                }
                match past.histories.iter_mut().find(|(id, _)| *id == record.deployment) {
                    Some((_, history)) => history.add(record.kind),
                    None => {
                        let mut history = History::default();
                        history.add(record.kind);
                        past.histories.push((record.deployment, history));
                    }
                }
            })
        });
        if let Err(e) = read
            && e.error.kind() != std::io::ErrorKind::NotFound
        {
            warn!("the boot ledger cannot be read, no attempt is known: {e}");
        }
        past
    }

    fn history(&self, commit: &str, serial: u32) -> History {
        let id = DeploymentId::parse(commit, serial);
        self.histories.iter().find(|(other, _)| Some(*other) == id).map(|(_, h)| *h).unwrap_or_default()
    }
}

/// The bootloader's variables, where there are any.
struct Environment {
    state: crate::policy::BootState,
    present: bool,
}

impl Environment {
    fn read(site: &Site) -> Result<Self, String> {
        let Some(config) = site.env_config.as_deref().filter(|c| c.exists()) else {
            return Ok(Environment { state: crate::policy::BootState::default(), present: false });
        };
        let loaded = Store::open_to_read(config).and_then(|mut s| s.load()).map_err(|e| e.to_string())?;
        Ok(Environment { state: boot_state(&loaded), present: loaded.image().is_some() })
    }

    /// What differs from what is there. A variable that is absent counts as 0 and is not made.
    fn changes(&self, wanted: &Variables) -> Vec<(String, String)> {
        if !self.present {
            return Vec::new();
        }
        let flag = |reading: Reading<bool>| reading.map(u32::from);
        let numbers = [
            ("rollback", flag(self.state.rollback), wanted.rollback.map(u32::from)),
            (
                "upgrade_available",
                flag(self.state.upgrade_available),
                wanted.upgrade_available.map(u32::from),
            ),
            ("bootcount", self.state.bootcount, wanted.bootcount),
        ];
        let differs = |reading: Reading<u32>, value: u32| match reading {
            Reading::Absent => value != 0,
            Reading::Corrupt => true,
            Reading::Value(now) => now != value,
        };
        let mut changes = Vec::new();
        for (name, now, wanted) in numbers {
            if let Some(value) = wanted.filter(|value| differs(now, *value)) {
                changes.push((name.to_string(), value.to_string()));
            }
        }
        if wanted.recovery {
            changes.push(("bootward_recovery".to_string(), "1".to_string()));
        }
        changes
    }
}

fn standing(site: &Site, layout: &Layout, past: &Past, environment: &Environment) -> Standing {
    let look = Look {
        sysroot: &site.sysroot,
        boot: &site.boot,
        release: "",
        machine: Machine::native(),
        init: None,
    };
    let found = Sysroot::read(&look).unwrap_or_default();
    let booted = site.booted_index.or_else(|| layout.entries.iter().position(|e| e.booted));
    let ours = booted.and_then(|b| layout.entries.get(b)).map(|e| e.stateroot.as_str());
    let known = layout.entries.iter().map(|entry| {
        let same = |d: &&crate::sysroot::Deployment| {
            d.stateroot == entry.stateroot && d.commit == entry.commit && d.deploy_serial == entry.serial
        };
        let history = past.history(&entry.commit, entry.serial);
        Known {
            bootable: found.deployments.iter().find(same).is_some_and(|d| d.verdict.is_ok()),
            tried: history.unconfirmed > 0,
            confirmed: history.confirmed && history.unconfirmed == 0,
            pinned: entry.pinned,
            ours: ours.is_none_or(|ours| ours == entry.stateroot),
        }
    });
    Standing {
        deployments: known.collect(),
        booted,
        state: environment.state,
        environment: environment.present,
    }
}

fn settled(verb: &Verb, standing: &Standing, layout: &Layout) -> Result<Settlement, Error> {
    match verb {
        Verb::Confirm => settle::confirm(standing),
        Verb::Reject(_) => settle::reject(standing),
        Verb::Rollback(to) => settle::rollback(standing, *to),
        Verb::Undeploy(index) => settle::undeploy(standing, *index),
        Verb::Repair if layout.entries.is_empty() => return Err(Error::Hopeless(layout.faults.clone())),
        Verb::Repair => Ok(Settlement {
            order: (0..layout.entries.len()).collect(),
            bad: Vec::new(),
            variables: Variables::default(),
        }),
    }
    .map_err(Error::Refused)
}

/// The plan, where the deployments or what says so on disk has to change.
fn plan(
    verb: &Verb,
    layout: &Layout,
    settlement: &Settlement,
    past: &Past,
    report: &mut Report,
) -> Result<Option<Plan>, Error> {
    let same = settlement.order.iter().copied().eq(0..layout.entries.len());
    let mends = matches!(verb, Verb::Confirm | Verb::Repair) && !layout.faults.is_empty();
    if same && !mends {
        return Ok(None);
    }
    if past.unfrozen {
        return Err(Error::Unsettled);
    }
    if mends {
        report.said.extend(layout.faults.iter().map(|fault| format!("out of step, written anew: {fault}")));
    }
    match plan::rearrange(layout, &settlement.order) {
        Ok(plan) => Ok(Some(plan)),
        // Mending is no reason for a healthy deployment not to be confirmed.
        Err(e) if same && *verb == Verb::Confirm => {
            warn!("what is out of step stays so: {e}");
            Ok(None)
        }
        Err(e) => Err(Error::Plan(e)),
    }
}

/// The list of bad commits, where it changes; durable before anything else is done.
fn marks(
    site: &Site,
    verb: &Verb,
    layout: &Layout,
    standing: &Standing,
    settlement: &Settlement,
) -> Vec<Step> {
    let old = std::fs::read(site.sysroot.join(rejected::PATH)).unwrap_or_default();
    let mut text = String::from_utf8_lossy(&old).into_owned();
    for entry in settlement.bad.iter().filter_map(|i| layout.entries.get(*i)) {
        text = rejected::with(rejected::parse(text.as_bytes()), &entry.commit, time::wall(), verb.reason());
    }
    if let (Verb::Confirm, Some(entry)) = (verb, standing.booted.and_then(|b| layout.entries.get(b)))
        && rejected::parse(text.as_bytes()).iter().any(|r| r.commit == entry.commit)
    {
        text = rejected::without(&rejected::parse(text.as_bytes()), &entry.commit);
    }
    if text.as_bytes() == old {
        return Vec::new();
    }
    vec![
        Step::Directory(At::root("ostree/bootward"), 0o700),
        Step::Write(At::root(rejected::PATH), text),
        Step::Sync(Volume::Root),
    ]
}

fn tell(verb: &Verb, layout: &Layout, standing: &Standing, settlement: &Settlement, report: &mut Report) {
    let name = |index: usize| layout.entries.get(index).map(|e| format!("{} {}", e.stateroot, e.name()));
    if let (Verb::Confirm, Some(name)) = (verb, standing.booted.and_then(name)) {
        report.said.push(format!("confirmed: {name}"));
    }
    for name in settlement.bad.iter().filter_map(|i| name(*i)) {
        report.said.push(format!("rejected, its commit will not be installed again: {name}"));
    }
    for index in 0..layout.entries.len() {
        if let Some(name) = name(index).filter(|_| !settlement.order.contains(&index)) {
            report.said.push(format!("removed: {name}"));
        }
    }
    if let Some(name) = settlement.order.first().filter(|i| **i != 0).and_then(|i| name(*i)) {
        report.said.push(format!("first to boot from now on: {name}"));
    }
    for (name, value) in &report.variables {
        report.said.push(format!("environment: {name}={value}"));
    }
    if report.said.is_empty() {
        report.said.push("nothing is out of step".into());
    }
}

fn verdicts(
    verb: &Verb,
    layout: &Layout,
    standing: &Standing,
    settlement: &Settlement,
    past: &Past,
) -> Vec<(Kind, Option<DeploymentId>, String)> {
    let id = |index: usize| layout.entries.get(index).and_then(|e| DeploymentId::parse(&e.commit, e.serial));
    let mut verdicts = Vec::new();
    let running = standing.booted.and_then(id);
    let known = standing.booted.and_then(|b| standing.deployments.get(b)).is_some_and(|k| k.confirmed);
    if *verb == Verb::Confirm && !(known && past.confirmed.iter().any(|c| Some(*c) == running)) {
        verdicts.push((Kind::Confirmed, running, String::new()));
    }
    for index in &settlement.bad {
        verdicts.push((Kind::Rejected, id(*index), verb.reason().into()));
    }
    verdicts
}

/// What earlier boots left behind goes now that this one is known to be good.
fn tidy(site: &Site, disk: &mut Disk) -> Result<(), Error> {
    let layout = read(site, false).map_err(Error::Survey)?;
    if !layout.faults.is_empty() {
        return Ok(());
    }
    let staged = Path::new("/run/ostree/staged-deployment").exists();
    carry::steps(disk, &plan::tidy(&layout, staged), true).map(|_| ()).map_err(Error::Carry)
}
