//! The fire drill: whether recovery would work, found out while it is not needed.

use std::fmt;
use std::path::Path;

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
