//! The steps from one list of deployments to another, as values: built, printed (`--dry-run`), tested, then carried out.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::storage::{At, Volume};

use super::layout::{Entry, Layout, Loader};
use super::text::{self, Place};

/// Where deployments go before they are taken apart: half a deployment must not be found among the others.
pub const TRASH: &str = "ostree/bootward/trash";
/// Where things on the physical root are made before they are renamed into place.
pub const NEW: &str = "ostree/bootward/new";
/// Where a deployment is made before it is renamed into its place.
pub const MAKING: &str = "ostree/bootward/deployment";
/// Where a stateroot's `/var` is made.
pub const MAKING_VAR: &str = "ostree/bootward/var";
/// What the bootloader's link is called before the swap.
const NEXT_LOADER: &str = "loader.tmp";
const REFS: &str = "ostree/repo/refs/heads";

/// One step. Each is a repetition when it was done before, so that a power cut costs no more than doing it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Removes a file, or a directory with all that is in it.
    Remove(At),
    /// Moves a deployment out of sight, then removes it.
    Discard(At),
    /// Makes a directory and those above it, with this mode.
    Directory(At, u32),
    /// Writes a file under another name and renames it into place.
    Write(At, String),
    /// Puts a kernel's file back.
    Restore {
        /// In the deployment.
        from: At,
        /// In the boot directory.
        to: At,
    },
    /// Writes a link under another name and renames it into place.
    Link(At, String),
    /// Reads a file back and compares.
    Check(At, String),
    /// Reads two files back and compares.
    CheckSame(At, At),
    /// Waits until a volume is durable.
    Sync(Volume),
    /// Waits until a volume is durable and in its final place.
    Freeze(Volume),
    /// The one rename after which the new configuration counts; the old link stays under the other name.
    Swap(At, At),
    /// Tells libostree's watchers that something changed.
    Touch(At),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Remove(at) => write!(f, "remove {at}"),
            Step::Discard(at) => write!(f, "discard {at}"),
            Step::Directory(at, mode) => write!(f, "make directory {at} ({mode:o})"),
            Step::Write(at, text) => write!(f, "write {at} ({} bytes)", text.len()),
            Step::Restore { from, to } => write!(f, "restore {to} from {from}"),
            Step::Link(at, text) => write!(f, "link {at} -> {text}"),
            Step::Check(at, _) => write!(f, "read back {at}"),
            Step::CheckSame(at, other) => write!(f, "read back {at} and compare with {other}"),
            Step::Sync(volume) => write!(f, "sync {volume:?}"),
            Step::Freeze(volume) => write!(f, "freeze and thaw {volume:?}"),
            Step::Swap(from, to) => write!(f, "swap: rename {from} to {to}"),
            Step::Touch(at) => write!(f, "touch {at}"),
        }
    }
}

/// A change of the list of deployments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Everything up to the swap; until then the old configuration counts.
    pub prepare: Vec<Step>,
    /// The swap, and what makes it durable for every reader.
    pub swap: Vec<Step>,
    /// What follows from it; the new configuration counts without it too.
    pub clear: Vec<Step>,
}

impl Plan {
    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.prepare.iter().chain(&self.swap).chain(&self.clear)
    }
}

/// Why there is no plan. Nothing was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `boot/loader` is a directory.
    LoaderDirectory,
    /// No deployment would be left.
    Empty,
    /// There is no deployment with this index.
    NoSuch(usize),
    /// The same deployment twice.
    Twice(usize),
    /// The running deployment would go.
    Booted(String),
    /// A pinned deployment would go.
    Pinned(String),
    /// Its entry has no kernel or no arguments, and none can be made up for it.
    NoEntry(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::LoaderDirectory => f.write_str(
                "boot/loader is a directory (systemd-boot's layout on VFAT), not a link; bootward leaves it alone, use 'ostree admin'",
            ),
            Refusal::Empty => f.write_str("no deployment would be left"),
            Refusal::NoSuch(index) => write!(f, "there is no deployment {index}; see 'bootward status'"),
            Refusal::Twice(index) => write!(f, "deployment {index} is named twice"),
            Refusal::Booted(name) => write!(f, "{name} is running and cannot be removed; boot another one first"),
            Refusal::Pinned(name) => {
                write!(f, "{name} is pinned; 'ostree admin pin --unpin' lets it be removed")
            }
            Refusal::NoEntry(name) => {
                write!(f, "{name} has no boot entry with a kernel and its arguments; deploy it again")
            }
        }
    }
}

/// Plans the list of deployments to become the ones with these indices, in this order.
///
/// # Errors
/// When that must not or cannot be; nothing was written then.
pub fn rearrange(layout: &Layout, order: &[usize]) -> Result<Plan, Refusal> {
    arrange(layout, None, order)
}

/// Plans a deployment that is on disk and has no entry yet to become the first one; of the others those with these indices
/// stay behind it, in this order.
///
/// # Errors
/// As [`rearrange`].
pub fn with_new(layout: &Layout, new: &Entry, order: &[usize]) -> Result<Plan, Refusal> {
    arrange(layout, Some(new), order)
}

fn arrange(layout: &Layout, first: Option<&Entry>, order: &[usize]) -> Result<Plan, Refusal> {
    if layout.loader == Loader::Directory {
        return Err(Refusal::LoaderDirectory);
    }
    if order.is_empty() && first.is_none() {
        return Err(Refusal::Empty);
    }
    let mut wanted: Vec<&Entry> = first.into_iter().collect();
    for (at, &index) in order.iter().enumerate() {
        let entry = layout.entries.get(index).ok_or(Refusal::NoSuch(index))?;
        if order.iter().take(at).any(|&other| other == index) {
            return Err(Refusal::Twice(index));
        }
        if entry.value("linux").is_none() || entry.value("options").is_none() {
            return Err(Refusal::NoEntry(entry.name()));
        }
        wanted.push(entry);
    }
    let gone: Vec<&Entry> = (0..layout.entries.len())
        .filter(|i| !order.contains(i))
        .filter_map(|i| layout.entries.get(i))
        .collect();
    if let Some(entry) = gone.iter().find(|e| e.booted) {
        return Err(Refusal::Booted(entry.name()));
    }
    if let Some(entry) = gone.iter().find(|e| e.pinned) {
        return Err(Refusal::Pinned(entry.name()));
    }
    let version = 1 - layout.loader.version().min(1);
    // As libostree counts: a version without a link has sub-version 0.
    let sub = u8::from(layout.sub.get(usize::from(version)).copied().flatten().unwrap_or(0) == 0);
    let new = New { layout, version, sub, wanted };
    Ok(Plan { prepare: new.prepare(), swap: new.swap(), clear: new.clear(&gone) })
}

/// The configuration that is to come.
struct New<'a> {
    layout: &'a Layout,
    version: u8,
    sub: u8,
    wanted: Vec<&'a Entry>,
}

impl New<'_> {
    fn loader(&self) -> String {
        format!("loader.{}", self.version)
    }

    fn links(&self) -> At {
        At::root(format!("ostree/boot.{}.{}", self.version, self.sub))
    }

    fn boot_serial(&self, index: usize) -> usize {
        let checksum = self.wanted.get(index).map(|e| &e.checksum);
        self.wanted.iter().take(index).filter(|e| Some(&e.checksum) == checksum).count()
    }

    fn place(&self, index: usize) -> Place {
        let first = self.wanted.first().map(|e| &e.stateroot);
        Place {
            index,
            count: self.wanted.len(),
            version: self.version,
            boot_serial: self.boot_serial(index),
            show_stateroot: self.wanted.iter().any(|e| Some(&e.stateroot) != first),
        }
    }

    fn prepare(&self) -> Vec<Step> {
        let loader = At::boot(self.loader());
        let entries = loader.join("entries");
        let mut steps = vec![Step::Remove(loader.clone()), Step::Directory(entries.clone(), 0o755)];
        let mut checks = Vec::new();
        let mut written = Vec::new();
        for (index, entry) in self.wanted.iter().enumerate() {
            self.kernel(entry, &mut steps, &mut checks);
            let place = self.place(index);
            let keys = text::keys(entry, &place);
            let at = entries.join(&text::entry_name(entry, &place, self.layout.named_by_stateroot));
            steps.push(Step::Write(at.clone(), text::entry(&keys)));
            checks.push(Step::Check(at, text::entry(&keys)));
            written.push(keys);
        }
        steps.extend(self.link_steps());
        if self.layout.uboot {
            let uenv = text::uenv(&written, self.wanted.first().and_then(|e| e.uenv.as_deref()));
            steps.push(Step::Write(loader.join("uEnv.txt"), uenv.clone()));
            checks.push(Step::Check(loader.join("uEnv.txt"), uenv));
        }
        if !self.layout.self_link {
            // What "boot" in a path with bootprefix resolves through.
            steps.push(Step::Link(At::boot("boot"), ".".into()));
        }
        steps.push(Step::Link(At::boot(NEXT_LOADER), self.loader()));
        steps.extend([Step::Sync(Volume::Root), Step::Freeze(Volume::Boot)]);
        steps.extend(checks);
        steps
    }

    /// What a kernel's directory lacks, put back.
    fn kernel(&self, entry: &Entry, steps: &mut Vec<Step>, checks: &mut Vec<Step>) {
        let directory = At::boot(entry.boot_directory());
        for file in entry.boot_files.iter().filter(|f| !f.good) {
            let (from, to) = (At::root(entry.path()).join(&file.source), directory.join(&file.name));
            let above =
                to.path.rsplit_once('/').map_or(entry.boot_directory(), |(above, _)| above.to_string());
            steps.push(Step::Directory(At::boot(above), 0o755));
            steps.push(Step::Restore { from: from.clone(), to: to.clone() });
            checks.push(Step::CheckSame(to, from));
        }
    }

    fn link_steps(&self) -> Vec<Step> {
        let links = self.links();
        let mut steps = vec![Step::Remove(links.clone()), Step::Directory(links.clone(), 0o755)];
        for (index, entry) in self.wanted.iter().enumerate() {
            let above = links.join(&format!("{}/{}", entry.stateroot, entry.checksum));
            steps.push(Step::Directory(above.clone(), 0o755));
            let target = format!("../../../deploy/{}/deploy/{}", entry.stateroot, entry.name());
            steps.push(Step::Link(above.join(&self.boot_serial(index).to_string()), target));
        }
        let name = format!("boot.{}", self.version);
        steps.push(Step::Link(At::root(format!("ostree/{name}")), format!("{name}.{}", self.sub)));
        steps
    }

    fn swap(&self) -> Vec<Step> {
        vec![Step::Swap(At::boot(NEXT_LOADER), At::boot("loader")), Step::Freeze(Volume::Boot)]
    }

    fn clear(&self, gone: &[&Entry]) -> Vec<Step> {
        let commits = self.wanted.iter().map(|e| e.commit.as_str());
        let mut steps = refs(self.layout, (self.version, self.sub), commits);
        steps.push(Step::Touch(At::root("ostree/deploy")));
        for entry in gone {
            discard(&entry.stateroot, &entry.name(), &mut steps);
        }
        steps
    }
}

/// The refs that keep deployments alive in the repository, as libostree sets them: the new ones before the old ones go.
fn refs<'a>(layout: &Layout, (version, sub): (u8, u8), commits: impl Iterator<Item = &'a str>) -> Vec<Step> {
    let above = format!("ostree/{version}/{sub}");
    let mut steps = vec![Step::Directory(At::root(format!("{REFS}/{above}")), 0o755)];
    let mut kept = Vec::new();
    for (index, commit) in commits.enumerate() {
        let name = format!("{above}/{index}");
        steps.push(Step::Write(At::root(format!("{REFS}/{name}")), format!("{commit}\n")));
        kept.push(name);
    }
    for name in layout.refs.iter().filter(|name| !kept.contains(name)) {
        steps.push(Step::Remove(At::root(format!("{REFS}/{name}"))));
    }
    steps
}

fn discard(stateroot: &str, name: &str, steps: &mut Vec<Step>) {
    steps.extend(discarded(stateroot, name));
}

/// The removal of a deployment that no entry names.
pub fn discarded(stateroot: &str, name: &str) -> [Step; 3] {
    let above = format!("ostree/deploy/{stateroot}");
    [
        Step::Remove(At::root(format!("{above}/backing/{name}"))),
        Step::Remove(At::root(format!("{above}/deploy/{name}.origin"))),
        Step::Discard(At::root(format!("{above}/deploy/{name}"))),
    ]
}

/// What follows from a swap that a cut may have kept from being done: the refs, and the removal of deployments that no
/// entry names, unless one is `staged`.
pub fn unfinished(layout: &Layout, staged: bool) -> Vec<Step> {
    let Loader::Link(version) = layout.loader else { return Vec::new() };
    let mut steps = Vec::new();
    if let Some(sub) = layout.sub.get(usize::from(version)).copied().flatten() {
        steps.extend(refs(layout, (version, sub), layout.entries.iter().map(|e| e.commit.as_str())));
    }
    if !staged {
        for (stateroot, name) in &layout.unnamed {
            discard(stateroot, name, &mut steps);
        }
    }
    steps
}

/// What earlier changes left behind, and what nobody names any more: to be removed once a boot of the present
/// configuration was confirmed. Deployments that no entry names stay when one is `staged`, which has no entry yet.
pub fn tidy(layout: &Layout, staged: bool) -> Vec<Step> {
    let Loader::Link(version) = layout.loader else { return Vec::new() };
    let (other, sub) = (1 - version.min(1), layout.sub.get(usize::from(version)).copied().flatten());
    let mut steps: Vec<Step> = vec![
        Step::Remove(At::boot(format!("loader.{other}"))),
        Step::Remove(At::root(format!("ostree/boot.{other}"))),
        Step::Remove(At::root(format!("ostree/boot.{other}.0"))),
        Step::Remove(At::root(format!("ostree/boot.{other}.1"))),
    ];
    if let Some(sub) = sub {
        steps.push(Step::Remove(At::root(format!("ostree/boot.{version}.{}", 1 - sub.min(1)))));
    }
    let used =
        |name: &&String| layout.entries.iter().any(|e| e.boot_directory().ends_with(&format!("/{name}")));
    for name in layout.boot_directories.iter().filter(|name| !used(name)) {
        steps.push(Step::Remove(At::boot(format!("ostree/{name}"))));
    }
    steps.extend(unfinished(layout, staged));
    steps.extend([TRASH, NEW, MAKING, MAKING_VAR].map(|path| Step::Remove(At::root(path))));
    steps.extend([NEXT_LOADER, "loader.tmp.new", "boot.new"].map(|name| Step::Remove(At::boot(name))));
    steps
}
