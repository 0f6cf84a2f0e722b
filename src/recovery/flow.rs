//! What recovery does next: a state machine that is told what came of each step. No I/O, no clock, no end.
//!
//! ```text
//!   without a root:  Mount ─> Check ─> Format ─> Wait ─> next round
//!                      └────────┴────────┴──> Done: observe and decide again
//!   with a root:     Local ─> Medium ─> Links ─> Connect, Fetch of each link ─> Wait ─> next round
//!                      └────────┴─────────────────────────┴──> Done
//! ```
//!
//! A source that fails is left for the next one at once; between two rounds there is a wait that grows. What is on the
//! device comes before what is near it, and that before a network: least harm and least load first. A root that is
//! not there is waited for; one that is damaged is checked, and made anew only where that was allowed.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::budget::{Budget, Caps, wait};
use crate::fetch::Backoff;

/// A way to a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// An Ethernet interface.
    Wired(String),
    /// An interface with a radio.
    Wireless(String),
}

impl Link {
    /// The interface's name.
    pub fn interface(&self) -> &str {
        match self {
            Link::Wired(name) | Link::Wireless(name) => name,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.interface())
    }
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Look for the root and mount it.
    Mount,
    /// Check and mend its filesystem, then mount it.
    Check,
    /// Make a fresh filesystem, and a sysroot of it.
    Format,
    /// Finish what was begun, and mend what is there with what is there.
    Local,
    /// Look for a stick or card with a commit.
    Medium,
    /// List the links.
    Links,
    /// Bring a link up.
    Connect(Link),
    /// Mend what is there with few fetched objects, or fetch a commit; deploy it.
    Fetch(Link),
    /// Wait, or until someone wants something.
    Wait(Duration),
    /// A deployment may be there to boot: look at everything again.
    Done,
}

/// What came of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// It did what it is for. [`Step::Local`], [`Step::Medium`], [`Step::Fetch`]: a deployment is there to boot;
    /// [`Step::Mount`], [`Step::Check`], [`Step::Format`]: the root can be mounted.
    Done,
    /// It did not; the reason was told already.
    Failed,
    /// [`Step::Mount`]: the device is there, and what is on it cannot be mounted for damage.
    Damaged,
    /// [`Step::Fetch`]: it did not, but so many bytes came, and the server may have asked for patience, in seconds.
    Cut {
        /// Bytes that came and are kept.
        bytes: u64,
        /// `Retry-After`.
        asked: Option<u64>,
    },
    /// [`Step::Links`]: these.
    Links(Vec<Link>),
}

/// What someone at the console wants of the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// A new round, now.
    Round,
    /// [`Step::Medium`] now, then a new round.
    Medium,
    /// [`Step::Local`] now, then a new round.
    Local,
}

/// What may be done at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The root is mounted.
    pub mounted: bool,
    /// There is a program that checks it.
    pub check: bool,
    /// A fresh filesystem may be made.
    pub format: bool,
    /// Sticks and cards are looked at.
    pub medium: bool,
    /// There are servers, and keys: networks are tried.
    pub network: bool,
    /// The steps of the waits between rounds.
    pub backoff: Backoff,
    /// The servers are first asked after up to this.
    pub spread: Duration,
    /// So often something was brought in this boot that did not boot: then there is a wait before the first round too.
    pub again: u32,
    /// What a day has.
    pub caps: Caps,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Flow {
    plan: Plan,
    budget: Budget,
    todo: VecDeque<Step>,
    current: Option<Step>,
    /// The longest that a server of this round asked for, in seconds.
    asked: Option<u64>,
    /// What is on the device was looked through in this boot: once is enough unless someone wants it again.
    looked: bool,
    /// Something came in this round.
    came: bool,
    /// Someone wants this first.
    wanted: Option<Want>,
    /// The first round is still to come.
    first: bool,
    ended: bool,
}

impl Flow {
    /// Begins, with what was used of the day before.
    pub fn new(plan: Plan, budget: Budget) -> Self {
        Flow {
            plan,
            budget,
            todo: VecDeque::new(),
            current: None,
            asked: None,
            looked: false,
            came: false,
            wanted: None,
            first: true,
            ended: false,
        }
    }

    /// What was used of the day.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What a day has.
    pub fn caps(&self) -> Caps {
        self.plan.caps
    }

    /// Bytes came over a network, and are kept.
    pub fn received(&mut self, bytes: u64) {
        self.budget.bytes = self.budget.bytes.saturating_add(bytes);
    }

    /// Someone wants something: it comes before everything else.
    pub fn want(&mut self, want: Want) {
        self.wanted = Some(want);
        self.current = None;
        self.todo.clear();
    }

    /// What to do next. `now` is the time in seconds since 1970, `random` any number.
    pub fn next(&mut self, now: u64, random: u32) -> Step {
        let step = self.choose(now, random);
        self.current = Some(step.clone());
        step
    }

    fn choose(&mut self, now: u64, random: u32) -> Step {
        if self.ended {
            return Step::Done;
        }
        if let Some(want) = self.wanted.take() {
            self.begin(Some(want));
        } else if self.first {
            self.begin(None);
            if self.plan.again > 0 {
                return Step::Wait(wait(self.plan.backoff, self.plan.again, None, random));
            }
            // What is on the device harms no server: only what comes after it is spread.
            let spread = Backoff { first: self.plan.spread, longest: self.plan.spread };
            let wait = spread.wait(1, random);
            if self.plan.mounted && self.plan.network && !wait.is_zero() {
                let at = self.todo.iter().position(|s| *s == Step::Links).unwrap_or(self.todo.len());
                self.todo.insert(at, Step::Wait(wait));
            }
        }
        while let Some(step) = self.todo.pop_front() {
            match step {
                Step::Links if self.budget.allows(self.plan.caps, now).is_err() => {}
                // A server that asked for patience is not asked again by another way.
                Step::Connect(_)
                    if self.asked.is_some() || self.budget.allows(self.plan.caps, now).is_err() => {}
                // Each try counts before it is made: a power cut must not make it free.
                Step::Fetch(_) => {
                    self.budget.attempts = self.budget.attempts.saturating_add(1);
                    return step;
                }
                step => return step,
            }
        }
        let wait = self.pause(now, random);
        self.begin(None);
        Step::Wait(wait)
    }

    /// The wait after a round, and its failure counted.
    fn pause(&mut self, now: u64, random: u32) -> Duration {
        self.budget.failures = if self.came { 1 } else { self.budget.failures.saturating_add(1) };
        let drawn = wait(self.plan.backoff, self.budget.failures, self.asked, random);
        let spent = self.budget.allows(self.plan.caps, now).err();
        // Sticks and the root are looked for all the same: no server is asked for them.
        match spent {
            Some(left) if !self.plan.medium && self.plan.mounted => drawn.max(Duration::from_secs(left)),
            _ => drawn,
        }
    }

    fn begin(&mut self, want: Option<Want>) {
        self.first = false;
        self.came = false;
        self.asked = None;
        self.todo.clear();
        let Plan { mounted, medium, network, .. } = self.plan;
        if !mounted {
            // Without a root nothing can be put anywhere.
            self.todo.push_back(Step::Mount);
            return;
        }
        if !self.looked || want == Some(Want::Local) {
            self.looked = true;
            self.todo.push_back(Step::Local);
        }
        if medium || want == Some(Want::Medium) {
            self.todo.push_back(Step::Medium);
        }
        if network {
            self.todo.push_back(Step::Links);
        }
        if want == Some(Want::Medium) {
            self.todo.retain(|s| *s != Step::Local);
        }
    }

    /// What came of the last step.
    pub fn came(&mut self, came: Came) {
        let Some(step) = self.current.take() else { return };
        match (step, came) {
            (Step::Done, _) => {}
            (
                Step::Local | Step::Medium | Step::Fetch(_) | Step::Mount | Step::Check | Step::Format,
                Came::Done,
            ) => self.ended = true,
            (Step::Mount, Came::Damaged) if self.plan.check => self.todo.push_front(Step::Check),
            (Step::Mount | Step::Check, Came::Damaged) if self.plan.format => {
                self.todo.push_front(Step::Format)
            }
            (Step::Links, Came::Links(links)) => self.todo.extend(links.into_iter().map(Step::Connect)),
            (Step::Connect(link), Came::Done) => self.todo.push_front(Step::Fetch(link)),
            (Step::Fetch(_) | Step::Medium | Step::Local, Came::Cut { bytes, asked }) => {
                self.came |= bytes > 0;
                self.asked = self.asked.max(asked);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
