//! The fire drill: whether recovery would work, found out while it is not needed.
//!
//! It goes as far as recovery goes before it changes anything: into a network, to the time, to a commit that is signed by
//! whom the device trusts. One link that leads there is enough.

use std::fmt;
use std::path::Path;

use super::Outcome;
use super::fetch;
use super::flow::Came;
use super::worker::Worker;

use crate::ledger::{Kind, file};
use crate::sys::time::civil;

/// How a drill ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Everything worked.
    Passed,
    /// Something did not.
    Failed,
    /// It began, and nothing was heard of it since: the power went, or the device hung.
    Unfinished,
}

impl End {
    /// One word, as `--json` prints it.
    pub fn word(self) -> &'static str {
        match self {
            End::Passed => "passed",
            End::Failed => "failed",
            End::Unfinished => "unfinished",
        }
    }
}

/// The last drill that the ledger knows of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Last {
    /// When, in seconds since 1970.
    pub time: i64,
    /// How it ended.
    pub end: End,
    /// What was found.
    pub text: String,
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "last drill: {}, {}", civil(self.time), self.end.word())?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// What the worker does in a drill. The result is in the status.
pub(super) fn work(worker: &mut Worker) -> Outcome {
    let found = find(worker);
    let (passed, text) = match found {
        Ok(text) => (true, text),
        Err(text) => (false, text),
    };
    worker.shared.tell(&format!("the drill {}: {text}", if passed { "passed" } else { "failed" }));
    worker.shared.change(|status| {
        status.drilled.get_or_insert((passed, text));
    });
    Outcome::Retry
}

/// The first link that leads to a commit, or why none does.
fn find(worker: &mut Worker) -> Result<String, String> {
    let settings = &worker.task.settings;
    if !settings.may_fetch() || settings.recovery.urls.is_empty() {
        return Err("no urls or no keys are configured, or a line of [recovery] is wrong".into());
    }
    let mut faults = Vec::new();
    for link in worker.links() {
        if worker.shared.is_wished() {
            break;
        }
        if worker.connect(&link) != Came::Done {
            let why = worker.shared.status().tried.back().map(|tried| tried.why.clone());
            faults.push(format!("{link}: {}", why.unwrap_or_default()));
            continue;
        }
        let up = worker.up.as_ref().map(ToString::to_string).unwrap_or_default();
        match fetch::head(worker) {
            Ok(found) => return Ok(format!("{up}; {found}")),
            Err(why) => faults.push(format!("{link}: {why}")),
        }
    }
    if faults.is_empty() {
        faults.push("no network interface is there".into());
    }
    Err(faults.join("; "))
}

/// The last drill, where the ledger knows of one.
pub fn last(sysroot: &Path) -> Option<Last> {
    let mut last = None;
    let read = file::open(sysroot).and_then(|mut ring| {
        ring.each(|record| {
            let end = match record.kind {
                Kind::DrillBegan => End::Unfinished,
                Kind::DrillPassed => End::Passed,
                Kind::DrillFailed => End::Failed,
                _ => return,
            };
            last = Some(Last { time: record.time, end, text: record.text.as_str().into() });
        })
    });
    // What cannot be read was told where the ledger was read before.
    read.ok().and(last)
}
