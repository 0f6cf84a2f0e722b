//! What a verb is going to do, as a value: it can be printed, tested, cut, and then be done.

use log::warn;

use crate::arrange::Layout;
use crate::arrange::layout::Entry;
use crate::arrange::plan::{self, Plan, Step};
use crate::ledger::{DeploymentId, Kind};
use crate::ostree::Checksum;
use crate::storage::{At, Volume};
use crate::sys::beneath::Beneath;
use crate::sys::time;

use super::act::Error;
use super::facts::{Environment, Past, Site, read, staged, standing};
use super::settle::{self, Settlement, Standing, Variables};
use super::{floor, intent, rejected};

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

    /// What a verb is called that names deployments by their place.
    fn by_place(&self) -> Option<String> {
        match self {
            Verb::Rollback(None) => Some("rollback".into()),
            Verb::Rollback(Some(index)) => Some(format!("rollback {index}")),
            Verb::Undeploy(index) => Some(format!("undeploy {index}")),
            _ => None,
        }
    }

    /// Whether deployments may go with it, and with them the objects that only they needed.
    pub(super) fn removes(&self) -> bool {
        matches!(self, Verb::Confirm | Verb::Undeploy(_))
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
    /// What an earlier run of the same command has left to do, after the bootloader's variables.
    pub rest: Vec<Step>,
    /// The very last steps: nothing is left to be done again.
    pub done: Vec<Step>,
    pub(super) verdicts: Vec<(Kind, Option<DeploymentId>, String)>,
    pub(super) changed: String,
    pub(super) tidy: bool,
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
    let again = verb.by_place().is_some_and(|command| begun(site, &command, &layout));
    let settlement = match verb {
        Verb::Rollback(_) | Verb::Undeploy(_) if again => {
            settle::again(&standing, matches!(verb, Verb::Rollback(_)))
        }
        _ => settled(verb, &standing, &layout)?,
    };
    let mut report = Report::default();
    let plan = plan(verb, &layout, &settlement, &past, &mut report)?;
    let mut marks = marks(site, verb, &layout, &standing, &settlement);
    let running = standing.booted.and_then(|b| layout.entries.get(b));
    if let (Verb::Confirm, Some(running)) = (verb, running) {
        marks.extend(raise(site, &running.commit));
    }
    let mut done = Vec::new();
    if let Some(command) = verb.by_place() {
        let changes = plan.is_some();
        marks.extend(intend(&command, &layout, &settlement.order).into_iter().filter(|_| changes));
        // Also one that another command has finished.
        done.push(Step::Remove(At::root(intent::PATH)));
    }
    let rest = if again { plan::unfinished(&layout, staged(site)) } else { Vec::new() };
    let steps = marks.iter().chain(plan.iter().flat_map(Plan::steps)).chain(&rest).chain(&done);
    report.steps = steps.map(ToString::to_string).collect();
    if cfg!(feature = "recovery") && settlement.order.len() < layout.entries.len() {
        report.steps.push("remove objects that nothing needs any more".into());
    }
    report.variables = environment.changes(&settlement.variables);
    if again {
        report.said.push("an earlier run of this command was cut short; this one finishes it".into());
    }
    tell(verb, &layout, &standing, &settlement, &mut report);
    let verdicts = verdicts(verb, &layout, &standing, &settlement, &past);
    let changed = match verb {
        Verb::Confirm | Verb::Repair if settlement.order.len() == layout.entries.len() => {
            layout.faults.join("; ")
        }
        _ => format!("{} of {} stay", settlement.order.len(), layout.entries.len()),
    };
    let tidy = *verb == Verb::Confirm && plan.is_none() && !past.changed;
    Ok(Prepared { report, marks, plan, rest, done, verdicts, changed, tidy })
}

/// Whether an earlier run of the same command made this order, and did not come to its end.
fn begun(site: &Site, command: &str, layout: &Layout) -> bool {
    let file = Beneath::open(&site.sysroot).and_then(|tree| tree.read(intent::PATH, intent::SIZE_MAX));
    file.is_ok_and(|file| file == intent::text(command, layout.entries.iter().map(Entry::path)).as_bytes())
}

/// Makes it known what order is to be; the plan waits for it, with the rest of the physical root, before its swap.
fn intend(command: &str, layout: &Layout, order: &[usize]) -> [Step; 2] {
    let order = order.iter().filter_map(|index| layout.entries.get(*index)).map(Entry::path);
    [
        Step::Directory(At::root("ostree/bootward"), 0o700),
        Step::Write(At::root(intent::PATH), intent::text(command, order)),
    ]
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
    let old = Beneath::open(&site.sysroot).and_then(|tree| tree.read(rejected::PATH, rejected::SIZE_MAX));
    let old = old.unwrap_or_default();
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

/// The floor, where a confirmation of this commit raises it or one of its copies has to be mended.
fn raise(site: &Site, commit: &str) -> Vec<Step> {
    let known = floor::read(&site.sysroot);
    known.warnings.iter().for_each(|warning| warn!("{warning}"));
    let tree = Beneath::open(&site.sysroot).map_err(|e| e.desc().to_string());
    let mark = tree.and_then(|tree| {
        let checksum = Checksum::parse(commit).ok_or("its name is no checksum")?;
        floor::mark(&tree, &checksum)
    });
    match mark {
        Ok(mark) => known.steps(&known.mark.raised(&mark)),
        Err(e) => {
            warn!("older commits than this one will not be refused: {e}");
            Vec::new()
        }
    }
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
