//! The check from its beginning to its report.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::ostree::object::{Checksum, Kind};
use crate::ostree::read::{self, ObjectError};
use crate::ostree::sign::Keys;
use crate::ostree::{Commit, VerifiedCommit};
use crate::sys::beneath::Beneath;

use super::content::Hashing;
use super::{BootFiles, Fault, KeysFault, Level, boot, walk};

/// More faults than this are counted only.
pub const MAX_FAULTS: usize = 100;
/// Where all are wanted, more than this are counted only: some 100 bytes each.
pub const MAX_ALL: usize = 200_000;

/// Which faults are of interest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faults {
    /// One is enough: the check ends there.
    First,
    /// All are counted, the first [`MAX_FAULTS`] told.
    Counted,
    /// All are told, up to `MAX_ALL`.
    All,
}

/// What is checked, and how.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The physical root.
    pub sysroot: &'a Beneath,
    /// The boot directory, where there is one.
    pub boot: Option<&'a Beneath>,
    /// The deployment's directory, relative to the physical root.
    pub path: &'a str,
    /// Its commit, from its directory's name.
    pub commit: &'a str,
    /// What its boot entry names.
    pub boot_files: &'a BootFiles,
    /// How much is checked.
    pub level: Level,
    /// The keys, one of which must have signed the commit; `None` when no signature is needed.
    pub keys: Option<&'a Keys>,
    /// The time that it may take; `None` for as long as it takes.
    pub budget: Option<Duration>,
    /// Which faults are of interest.
    pub faults: Faults,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Files, links and directories that were looked at.
    pub entries: u64,
    /// Bytes that were read from files.
    pub bytes: u64,
    /// Time that it has taken.
    pub time: Duration,
}

impl Progress {
    /// Millions of bytes a second.
    pub fn rate(&self) -> u64 {
        let milliseconds = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX).max(1);
        self.bytes / milliseconds / 1000
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The first faults, as many as [`Faults`] says; none when the deployment is what its commit says.
    pub faults: Vec<Fault>,
    /// How many faults there are.
    pub count: u64,
    /// What it took.
    pub progress: Progress,
    /// Which of the keys signed the commit, counted from 0.
    pub signed_by: Option<usize>,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.count == 0
    }

    /// Nothing is known to be wrong, but the time ran out before all was seen.
    pub fn ran_out_of_time(&self) -> bool {
        self.faults.iter().all(|fault| *fault == Fault::Timeout) && self.count > 0
    }
}

/// Everything that one check carries along.
pub(super) struct State<'a> {
    pub(super) check: &'a Check<'a>,
    pub(super) faults: Vec<Fault>,
    pub(super) count: u64,
    pub(super) entries: u64,
    start: Instant,
    last_sign: Instant,
    alive: &'a mut dyn FnMut(&Progress),
}

/// The check is over before its end: a fault, where the first one ends it, or the time is up.
pub(super) struct Over;

impl State<'_> {
    /// Notes a fault.
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), Over> {
        let last = fault == Fault::Timeout;
        self.count += 1;
        let most = if self.check.faults == Faults::All { MAX_ALL } else { MAX_FAULTS };
        if self.faults.len() < most {
            self.faults.push(fault);
        }
        if last || self.check.faults == Faults::First { Err(Over) } else { Ok(()) }
    }

    /// Says that it goes on, once in a while, and looks at the clock.
    pub(super) fn tick(&mut self, bytes: u64) -> Result<(), Over> {
        let now = Instant::now();
        let time = now - self.start;
        if self.check.budget.is_some_and(|budget| time >= budget) {
            return self.fault(Fault::Timeout);
        }
        if now - self.last_sign >= Duration::from_millis(500) {
            self.last_sign = now;
            (self.alive)(&Progress { entries: self.entries, bytes, time });
        }
        Ok(())
    }

    /// Reads an object that must hash to its name.
    pub(super) fn object(&mut self, name: &Checksum, kind: Kind) -> Result<Option<Vec<u8>>, Over> {
        match read::object(self.check.sysroot, name, kind) {
            Err(ObjectError::Unreadable(errno)) => self.fault(Fault::Object(*name, kind, errno))?,
            Err(ObjectError::Changed) => self.fault(Fault::ObjectChanged(*name, kind))?,
            Ok(data) => return Ok(Some(data)),
        }
        Ok(None)
    }
}

/// Checks a deployment. `alive` is called about twice a second while it goes on, from this thread; all other threads
/// have ended when this returns. A disk that no longer answers keeps it from returning, and from calling `alive`
/// once the budget is spent.
pub fn verify(check: &Check<'_>, alive: &mut dyn FnMut(&Progress)) -> Report {
    let start = Instant::now();
    let mut state = State { check, faults: Vec::new(), count: 0, entries: 0, start, last_sign: start, alive };
    let mut signed_by = None;
    let mut bytes = 0;
    if check.level != Level::None
        && let Ok(Some(commit)) = trusted(&mut state, &mut signed_by)
    {
        let hashing = Hashing::new();
        let over = std::thread::scope(|scope| {
            hashing.start(scope);
            let over = walk::walk(&mut state, &hashing, &commit)
                .and_then(|()| hashing.finish(&mut state))
                // Only what was found good is worth comparing with.
                .and_then(|()| boot::compare(&mut state, &hashing));
            hashing.stop();
            over
        });
        drop(over);
        bytes = hashing.bytes();
    }
    let progress = Progress { entries: state.entries, bytes, time: start.elapsed() };
    Report { faults: state.faults, count: state.count, progress, signed_by }
}

/// The commit that the deployment's name says, signed where it has to be.
fn trusted(state: &mut State<'_>, signed_by: &mut Option<usize>) -> Result<Option<Commit>, Over> {
    let Some(name) = Checksum::parse(state.check.commit) else {
        state.fault(Fault::Name)?;
        return Ok(None);
    };
    let Some(data) = state.object(&name, Kind::Commit)? else { return Ok(None) };
    let Some(keys) = state.check.keys else {
        return match Commit::parse(data) {
            Ok(commit) => Ok(Some(commit)),
            Err(error) => state.fault(Fault::Commit(error)).map(|()| None),
        };
    };
    let metadata = match read::commitmeta(state.check.sysroot, &name) {
        Ok(metadata) => metadata,
        Err(errno) => return state.fault(Fault::Object(name, Kind::CommitMeta, errno)).map(|()| None),
    };
    match keys.verify(data, metadata.as_deref()) {
        Ok(verified) => {
            *signed_by = Some(VerifiedCommit::key(&verified));
            Ok(Some(verified.into_commit()))
        }
        Err(error) => state.fault(Fault::Signature(error)).map(|()| None),
    }
}

/// Reads a file of trusted keys. An empty path means that no signature is needed.
///
/// # Errors
/// When there is a path but no use in what it leads to.
pub fn keys(path: &str) -> Result<Option<Keys>, Fault> {
    if path.is_empty() {
        return Ok(None);
    }
    let failed = |error| Fault::Keys(path.into(), KeysFault::File(error));
    read::keys(Path::new(path)).map(Some).map_err(failed)
}
