//! Reads a sysroot.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use crate::ostree::verify::BootFiles;
use crate::policy::{Kernel, MAX_DEPLOYMENTS};
use crate::sys::beneath::{Beneath, kind};

use super::deployment::{Deployment, EntryFault, Fault, Finding, Note};
use super::entry::{self, Entry};
use super::init;
use super::machine::Machine;
use super::target::{Directory, LINK_DIRECTORIES, Lost, Named, Resolved, resolve};

/// More entries, stateroots or deployments in a directory than this are not looked at.
const LIST_MAX: usize = 64;
/// More boot entries than this are not looked at.
const ENTRIES_MAX: usize = 1024;
/// An origin is a few lines.
const ORIGIN_MAX: usize = 64 * 1024;

/// Where to look, and for what machine.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The physical root.
    pub sysroot: &'a Path,
    /// The boot directory.
    pub boot: &'a Path,
    /// Release of the running kernel.
    pub release: &'a str,
    /// Its machine.
    pub machine: Machine,
    /// The init that the command line names.
    pub init: Option<&'a str>,
}

/// The sysroot cannot be looked at at all.
#[derive(Debug)]
pub struct Error {
    /// What cannot be opened.
    pub path: PathBuf,
    /// Why.
    pub errno: Errno,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no OSTree sysroot: {}", self.path.display(), self.errno.desc())
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Sysroot {
    /// The deployments in boot order; those that no entry names come last, newest first.
    pub deployments: Vec<Deployment>,
    /// What is odd about the whole.
    pub notes: Vec<Note>,
    directories: Vec<Directory>,
}

/// An entry in use: its file name and what it says.
struct Wanted {
    file: String,
    title: Option<String>,
    target: String,
    options: String,
    files: BootFiles,
}

impl Sysroot {
    /// Reads everything once. Whatever is wrong with one deployment leaves the others as they are.
    ///
    /// # Errors
    /// When the sysroot or its `ostree` directory cannot be opened.
    pub fn read(look: &Look<'_>) -> Result<Self, Error> {
        let failed = |errno| Error { path: look.sysroot.into(), errno };
        let tree = Beneath::open(look.sysroot).map_err(failed)?;
        tree.subtree("ostree").map_err(failed)?;
        let mut sysroot = Sysroot::default();
        sysroot.directories = directories(&tree, &mut sysroot.notes);
        let wanted = match Beneath::open(look.boot) {
            Ok(boot) => entries(&boot, &mut sysroot.notes),
            Err(_) => {
                sysroot.notes.push(Note::Loader(None));
                Vec::new()
            }
        };
        for version in ["boot.0", "boot.1"] {
            let named = wanted
                .iter()
                .any(|w| entry::BootLink::parse(&w.target).is_some_and(|l| l.version == version));
            if named && !tree.is_directory(&format!("ostree/{version}")) {
                sysroot.notes.push(Note::BootLinks(version.into()));
            }
        }
        for wanted in wanted {
            sysroot.add_entry(&tree, wanted);
        }
        sysroot.add_the_rest(&tree);
        if sysroot.deployments.len() > MAX_DEPLOYMENTS {
            sysroot.deployments.truncate(MAX_DEPLOYMENTS);
            sysroot.notes.push(Note::TooMany("deployments"));
        }
        for deployment in &mut sysroot.deployments {
            judge(&tree, look, deployment);
        }
        Ok(sysroot)
    }

    /// Which deployment the `ostree=` of a command line names.
    pub fn named(&self, sysroot: &Path, argument: &str) -> Named {
        let Ok(tree) = Beneath::open(sysroot) else { return Named::Nothing(Lost::NoLink) };
        let of = |directory: usize| {
            self.directories.get(directory).and_then(|d| self.place(&d.stateroot, &d.commit, d.serial))
        };
        let unknown = Named::Nothing(Lost::NotDeployment);
        match resolve(&tree, &self.directories, argument) {
            Resolved::Directly(directory) => of(directory).map_or(unknown, Named::Index),
            Resolved::Elsewhere(directory) => of(directory).map_or(unknown, Named::Meant),
            Resolved::Gone(stateroot, commit, serial) => {
                self.place(&stateroot, &commit, serial).map_or(Named::Nothing(Lost::Gone), Named::Meant)
            }
            Resolved::Nowhere(why) => Named::Nothing(why),
        }
    }

    /// The deployment with this device and inode: the one that is booted, by `/run/ostree-booted`.
    pub fn with_identity(&self, identity: (u64, u64)) -> Option<usize> {
        let directory = self.directories.iter().find(|d| d.identity == identity)?;
        self.place(&directory.stateroot, &directory.commit, directory.serial)
    }

    fn place(&self, stateroot: &str, commit: &str, serial: u32) -> Option<usize> {
        self.deployments
            .iter()
            .position(|d| d.stateroot == stateroot && d.commit == commit && d.deploy_serial == serial)
    }

    fn add_entry(&mut self, tree: &Beneath, wanted: Wanted) {
        let mut findings = Vec::new();
        let (stateroot, commit, serial) = match resolve(tree, &self.directories, &wanted.target) {
            Resolved::Gone(stateroot, commit, serial) => (stateroot, commit, serial),
            Resolved::Nowhere(_) => {
                let fault = EntryFault::LeadsNowhere(wanted.target);
                return self.notes.push(Note::Entry(wanted.file, fault));
            }
            Resolved::Directly(index) | Resolved::Elsewhere(index) => {
                let Some(d) = self.directories.get(index) else { return };
                (d.stateroot.clone(), d.commit.clone(), d.serial)
            }
        };
        if !tree.exists(&wanted.target) {
            findings.push(Finding::LinkGone(wanted.target.clone()));
        }
        if self.place(&stateroot, &commit, serial).is_some() {
            return self.notes.push(Note::Entry(wanted.file, EntryFault::Again));
        }
        self.deployments.push(Deployment {
            title: wanted.title,
            entry: Some(wanted.file),
            boot_link: Some(wanted.target),
            boot_files: wanted.files,
            options: Some(wanted.options),
            findings,
            ..blank(stateroot, commit, serial)
        });
    }

    /// The directories that no entry names: first those that a boot link names, then by age.
    fn add_the_rest(&mut self, tree: &Beneath) {
        let linked = linked(tree);
        let mut rest: Vec<&Directory> = self
            .directories
            .iter()
            .filter(|d| self.place(&d.stateroot, &d.commit, d.serial).is_none())
            .collect();
        rest.sort_by_key(|d| (!linked.contains(&d.identity), std::cmp::Reverse(d.changed)));
        let rest: Vec<Deployment> = rest
            .into_iter()
            .map(|d| Deployment {
                findings: vec![Finding::NoEntry],
                ..blank(d.stateroot.clone(), d.commit.clone(), d.serial)
            })
            .collect();
        self.deployments.extend(rest);
    }
}

fn blank(stateroot: String, commit: String, deploy_serial: u32) -> Deployment {
    Deployment {
        stateroot,
        commit,
        deploy_serial,
        title: None,
        entry: None,
        boot_link: None,
        boot_files: BootFiles::default(),
        options: None,
        refspec: None,
        releases: Vec::new(),
        kernel: Kernel::Running,
        verdict: Ok(()),
        findings: Vec::new(),
    }
}

/// Every `ostree/deploy/OS/deploy/COMMIT.SERIAL` that is a directory.
pub(crate) fn directories(tree: &Beneath, notes: &mut Vec<Note>) -> Vec<Directory> {
    let mut found = Vec::new();
    let (stateroots, all) = tree.list("ostree/deploy", LIST_MAX).unwrap_or_default();
    if !all && !stateroots.is_empty() {
        notes.push(Note::TooMany("stateroots"));
    }
    for stateroot in stateroots.iter().filter(|s| !s.link && entry::is_stateroot(&s.name)) {
        let above = format!("ostree/deploy/{}/deploy", stateroot.name);
        // Each deployment has an origin beside it.
        let Ok((names, all)) = tree.list(&above, 2 * LIST_MAX) else { continue };
        if !all {
            notes.push(Note::TooMany("deployments"));
        }
        for name in names.iter().filter(|n| !n.link) {
            let Some((commit, serial)) = entry::deployment_name(&name.name) else { continue };
            let Ok(stat) = tree.stat(&format!("{above}/{}", name.name)) else { continue };
            if kind(&stat) == SFlag::S_IFDIR {
                found.push(Directory {
                    stateroot: stateroot.name.clone(),
                    commit: commit.into(),
                    serial,
                    identity: (stat.st_dev, stat.st_ino),
                    changed: stat.st_ctime,
                });
            }
        }
    }
    found
}

/// The entries in boot order, those that are of no use noted.
fn entries(boot: &Beneath, notes: &mut Vec<Note>) -> Vec<Wanted> {
    let Some((directory, names, all)) = loader(boot, notes) else { return Vec::new() };
    if !all {
        notes.push(Note::TooMany("boot entries"));
    }
    let mut files = Vec::new();
    for name in names {
        match boot.read(&format!("{directory}/entries/{name}"), entry::SIZE_MAX) {
            Ok(content) => files.push((name, content)),
            Err(errno) => notes.push(Note::Entry(name, EntryFault::Unreadable(errno))),
        }
    }
    let mut parsed: Vec<(&String, &Vec<u8>, Entry<'_>)> =
        files.iter().map(|(n, c)| (n, c, Entry::parse(c))).collect();
    parsed.sort_by(|a, b| a.2.boot_order(&b.2).then_with(|| b.0.cmp(a.0)));
    let mut wanted = Vec::new();
    for (name, content, entry) in parsed {
        match entry.target() {
            Some(target) => wanted.push(Wanted {
                file: name.clone(),
                title: entry.title.map(str::to_string),
                target: target.into(),
                options: entry.options.unwrap_or_default().into(),
                files: BootFiles {
                    linux: entry.linux.map(str::to_string),
                    initrds: entry::initrds(content).map(str::to_string).collect(),
                    devicetree: entry.devicetree.map(str::to_string),
                    fdtdir: entry.fdtdir.map(str::to_string),
                },
            }),
            None => notes.push(Note::Entry(name.clone(), EntryFault::NoTarget)),
        }
    }
    wanted
}

/// The loader directory in use and the names of its entries. Where the link leads nowhere, the one of its
/// two possible ends that has entries; the newer one where both have.
fn loader(boot: &Beneath, notes: &mut Vec<Note>) -> Option<(&'static str, Vec<String>, bool)> {
    let entries = |directory: &'static str| {
        let (names, all) = boot.list(&format!("{directory}/entries"), ENTRIES_MAX).ok()?;
        let names: Vec<String> =
            names.into_iter().map(|e| e.name).filter(|n| entry::is_entry_name(n)).collect();
        (!names.is_empty() || !all).then_some((directory, names, all))
    };
    if boot.link("loader").is_err() && boot.is_directory("loader") {
        notes.push(Note::LoaderDirectory);
    }
    if let Some(found) = entries("loader") {
        return Some(found);
    }
    let changed = |directory: &str| boot.stat(&format!("{directory}/entries")).map_or(0, |s| s.st_mtime);
    let mut ends = ["loader.0", "loader.1"];
    ends.sort_by_key(|end| std::cmp::Reverse(changed(end)));
    let found = ends.into_iter().find_map(entries);
    notes.push(Note::Loader(found.as_ref().map(|f| f.0)));
    found
}

/// Device and inode of every directory that some boot link leads to.
fn linked(tree: &Beneath) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for version in LINK_DIRECTORIES {
        walk(tree, &format!("ostree/{version}"), 3, &mut found);
    }
    found
}

fn walk(tree: &Beneath, path: &str, depth: u32, found: &mut Vec<(u64, u64)>) {
    if depth == 0 {
        if let Ok(stat) = tree.stat(path) {
            found.push((stat.st_dev, stat.st_ino));
        }
        return;
    }
    for name in tree.list(path, LIST_MAX).map(|l| l.0).unwrap_or_default() {
        walk(tree, &format!("{path}/{}", name.name), depth - 1, found);
    }
}

/// Fills in what the deployment's own files say, and the verdict.
fn judge(tree: &Beneath, look: &Look<'_>, deployment: &mut Deployment) {
    let path = deployment.path();
    if let Ok(origin) = tree.read(&format!("{path}.origin"), ORIGIN_MAX) {
        let text = String::from_utf8_lossy(&origin);
        let refspec = text.lines().find_map(|line| line.trim().strip_prefix("refspec"));
        let value = refspec.and_then(|rest| rest.trim_start().strip_prefix('='));
        deployment.refspec = value.map(|v| v.trim().to_string());
    }
    let (directory, file) = deployment.commit.split_at_checked(2).unwrap_or_default();
    if !tree.exists(&format!("ostree/repo/objects/{directory}/{file}.commit")) {
        deployment.findings.push(Finding::CommitMissing);
    }
    deployment.verdict = verdict(tree, look, &path, &deployment.commit);
    if let Ok(root) = tree.subtree(&path) {
        deployment.releases = releases(&root);
        deployment.kernel = kernel(&root, &deployment.releases, look.release);
    }
}

fn verdict(tree: &Beneath, look: &Look<'_>, path: &str, commit: &str) -> Result<(), Fault> {
    let root = tree.subtree(path).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => Fault::DirectoryMissing,
        other => Fault::Unreadable(other),
    })?;
    if !root.is_directory("usr") {
        return Err(Fault::NoUsr);
    }
    if !root.is_directory("etc") && !root.is_directory("usr/etc") {
        return Err(Fault::NoEtc);
    }
    if tree.exists(&format!("ostree/repo/state/{commit}.commitpartial")) {
        return Err(Fault::PartialCommit);
    }
    init::find(&root, look.init, look.machine).map(|_| ()).map_err(Fault::Init)
}

/// The kernels that a deployment brings: directories of `usr/lib/modules` with a `vmlinuz`.
fn releases(root: &Beneath) -> Vec<String> {
    let names = root.list("usr/lib/modules", LIST_MAX).map(|l| l.0).unwrap_or_default();
    let has_kernel = |name: &String| root.exists(&format!("usr/lib/modules/{name}/vmlinuz"));
    names.into_iter().map(|e| e.name).filter(has_kernel).collect()
}

fn kernel(root: &Beneath, releases: &[String], running: &str) -> Kernel {
    // Without a kernel of its own, or with nothing to compare, there is nothing to object to.
    if releases.is_empty() || running.is_empty() || releases.iter().any(|r| r == running) {
        Kernel::Running
    } else if !running.contains('/') && root.is_directory(&format!("usr/lib/modules/{running}")) {
        Kernel::OtherWithModules
    } else {
        Kernel::OtherWithoutModules
    }
}
