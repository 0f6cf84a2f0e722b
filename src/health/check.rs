//! Goes through the scripts: gathers what is there, plans, runs, judges, records. Ring: std.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ledger::{DeploymentId, Kind as RecordKind, Record, record::clip, running};
use crate::mounts::booted::Booted;
use crate::sys::medium::MediumError;
use crate::sys::time;
use crate::sysroot::{Look, Machine, Sysroot};

use super::plan::{Entry, Kind, Listing, MAX_ENTRIES, PLACES, Plan, Stage, disabled, plan};
use super::run::run;
use super::verdict::{Ending, Outcome, Verdict, judge};

/// Greenboot's configuration, below the root.
const GREENBOOT_CONF: &str = "etc/greenboot/greenboot.conf";
/// A larger configuration is not read.
const CONF_MAX: u64 = 64 * 1024;
/// Where bash may be.
const BASH: [&str; 2] = ["/usr/bin/bash", "/bin/bash"];

/// How long scripts may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One script.
    pub each: Duration,
    /// All required and wanted checks together; also all scripts of `green.d` or of `red.d`.
    pub total: Duration,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Report {
    /// Every script and how it ended, in order.
    pub outcomes: Vec<Outcome>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
    /// What kept a stage from being known.
    pub troubles: Vec<String>,
}

/// Runs the required checks, then the wanted ones, each shown to `seen` when it has ended. After a required one has
/// failed the rest is not run, as in greenboot.
pub fn checks(root: &Path, limits: Limits, report: &mut Report, seen: &mut dyn FnMut(&Outcome)) -> Verdict {
    let until = Instant::now() + limits.total;
    let required = gather(root, Stage::Required);
    let wanted = gather(root, Stage::Wanted);
    report.notes.extend(required.notes.iter().chain(&wanted.notes).chain(&wanted.troubles).cloned());
    report.troubles.extend(required.troubles.iter().cloned());
    let mut failed = !required.troubles.is_empty();
    for script in required.scripts.into_iter().chain(wanted.scripts) {
        let required = script.stage == Stage::Required;
        let left = until.saturating_duration_since(Instant::now()).min(limits.each);
        let outcome = match (failed, left.is_zero()) {
            (true, _) => Outcome::without_run(script, Ending::NotRun),
            (false, true) => Outcome::without_run(script, Ending::NoTimeLeft),
            (false, false) => run(script, left),
        };
        failed |= required && outcome.ending.is_failure();
        seen(&outcome);
        report.outcomes.push(outcome);
    }
    judge(&report.outcomes, &report.troubles)
}

/// Runs every script of `green.d` or `red.d`; one that fails stops none of the others.
pub fn follow(
    root: &Path,
    stage: Stage,
    limits: Limits,
    report: &mut Report,
    seen: &mut dyn FnMut(&Outcome),
) {
    let until = Instant::now() + limits.total;
    let Plan { scripts, notes, troubles } = gather(root, stage);
    report.notes.extend(notes.into_iter().chain(troubles));
    for script in scripts {
        let left = until.saturating_duration_since(Instant::now()).min(limits.each);
        let outcome = match left.is_zero() {
            true => Outcome::without_run(script, Ending::NoTimeLeft),
            false => run(script, left),
        };
        seen(&outcome);
        report.outcomes.push(outcome);
    }
}

/// What there is of a stage below `root`.
fn gather(root: &Path, stage: Stage) -> Plan {
    let listings: Vec<Listing> =
        PLACES.iter().enumerate().filter_map(|(place, at)| list(root, place, at, stage)).collect();
    let bash = BASH.iter().any(|path| Path::new(path).exists());
    plan(stage, &listings, &switched_off(root), bash)
}

fn switched_off(root: &Path) -> Vec<String> {
    let path = root.join(GREENBOOT_CONF);
    match fs::metadata(&path) {
        Ok(found) if found.is_file() && found.len() <= CONF_MAX => {
            disabled(&String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()))
        }
        _ => Vec::new(),
    }
}

fn list(root: &Path, place: usize, at: &str, stage: Stage) -> Option<Listing> {
    let path = root.join(at).join(stage.directory());
    let entries = match entries(&path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return None,
        other => other.map_err(|e| e.to_string()),
    };
    Some(Listing { place, path: path.to_string_lossy().into_owned(), entries })
}

fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if found.len() == MAX_ENTRIES {
            return Err(io::Error::other(format!("it has more than {MAX_ENTRIES} entries")));
        }
        // A name that is not UTF-8 is changed by this and will be told as a script that is not there.
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push(Entry { name, kind: kind(&entry.path()) });
    }
    Ok(found)
}

fn kind(path: &Path) -> Kind {
    match fs::metadata(path) {
        Ok(m) if m.is_file() => Kind::File { executable: m.mode() & 0o111 != 0 },
        Ok(m) if m.file_type().is_char_device() && m.rdev() == nix::sys::stat::makedev(1, 3) => Kind::Null,
        Ok(_) => Kind::Other,
        Err(_) => Kind::Nowhere,
    }
}

/// The booted deployment, by what the initramfs left in `run/ostree-booted`.
pub fn booted(root: &Path, sysroot: &Path) -> Option<DeploymentId> {
    let identity = Booted::read(root)?.device_inode?;
    let boot: PathBuf = sysroot.join("boot");
    let look = Look { sysroot, boot: &boot, release: "", machine: Machine::native(), init: None };
    let found = Sysroot::read(&look).ok()?;
    found.deployments.get(found.with_identity(identity)?)?.id()
}

/// Writes the verdict to the ledger of a sysroot.
///
/// # Errors
/// When the medium refuses.
pub fn record(
    sysroot: &Path,
    deployment: Option<DeploymentId>,
    verdict: &Verdict,
) -> Result<(), MediumError> {
    let kind = if verdict.passed { RecordKind::CheckPassed } else { RecordKind::CheckFailed };
    let record = Record {
        kind,
        sequence: 0,
        time: time::wall(),
        uptime: time::uptime(),
        deployment: deployment.unwrap_or_default(),
        boot: time::boot_id(),
        text: clip(&verdict.text),
    };
    running::append(sysroot, &mut [record])
}
