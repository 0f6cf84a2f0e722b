//! The rules, first match wins, in the order of [`TABLE`].

use core::fmt;

use heapless::Vec;

use super::facts::{Candidate, Facts, Kernel, MAX_DEPLOYMENTS, Reading, Request};

/// The decision table as people read it; the README shows the same rows and a test keeps them equal.
pub const TABLE: [(&str, &str); 8] = [
    (
        "recovery was asked for: operator, `bootward.recovery`, or `bootward_recovery` in the environment",
        "recovery",
    ),
    ("no deployment is bootable", "recovery"),
    (
        "trouble: `rollback=1`, or `upgrade_available=1` and `bootcount > bootlimit`, or the ledger's limit for an unconfirmed first deployment is exceeded",
        "order: the others (the one that `ostree=` names leads), the first deployment, then those that no boot entry names",
    ),
    ("no trouble", "order: the one that `ostree=` names, then boot order"),
    ("the first bootable one in that order runs the present kernel, or has modules for it", "boot it"),
    ("it does not, and another kernel can be started from here", "kexec into its own kernel"),
    (
        "it does not, it is the bootloader's second entry, and neither `rollback=1` nor the ledger says that it was asked for already",
        "set `rollback=1`, reboot",
    ),
    ("it does not, and nothing else is left", "boot it, with a warning"),
];

/// What bootward will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Boot the deployment with this index in boot order.
    Boot {
        /// Index in boot order.
        index: usize,
        /// By which way.
        via: Via,
    },
    /// Stay in the initramfs and recover.
    Recovery,
}

/// The way to a deployment's own kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// The running kernel will do.
    Direct,
    /// Start the deployment's own kernel.
    Kexec,
    /// Ask the bootloader for it and reboot.
    Loader,
    /// The running kernel is not its own and has no modules there; nothing better is left.
    Mismatched,
}

/// Why the first deployment is not trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// `rollback=1`.
    Rollback,
    /// The trial took more boots than `bootlimit`.
    Bootcount {
        /// Boots counted.
        count: u32,
        /// Boots allowed.
        limit: u32,
    },
    /// The ledger counted more failures than its limit, and no confirmation.
    Ledger {
        /// Failures counted.
        failed: u32,
        /// Failures allowed.
        limit: u32,
    },
}

/// Which row of [`TABLE`] fixed the action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Row 1.
    Requested(Request),
    /// Row 2.
    NothingBootable,
    /// Rows 3 to 8: the first bootable one in the order that trouble, or its absence, gives.
    First {
        /// Row 3 where there is trouble, row 4 where there is none.
        trouble: Option<Trouble>,
        /// It is the one that `ostree=` names.
        named: bool,
    },
    /// No row: a person at the recovery console chose it.
    Chosen,
}

/// What will be done and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What.
    pub action: Action,
    /// Why.
    pub rule: Rule,
    /// All deployments in the order of preference, broken ones included.
    pub order: Vec<usize, MAX_DEPLOYMENTS>,
}

/// Decides. Total and deterministic: every combination of facts has exactly one decision.
pub fn decide(facts: &Facts) -> Decision {
    let trouble = trouble(facts);
    let order = order(facts, trouble.is_some());
    let bootable = |index: &&usize| facts.candidates.get(**index).is_some_and(|c| c.bootable);
    let (action, rule) = if let Some(request) = facts.request {
        (Action::Recovery, Rule::Requested(request))
    } else if let Some(&index) = order.iter().find(bootable) {
        let named = facts.named == Some(index);
        (Action::Boot { index, via: via(facts, index) }, Rule::First { trouble, named })
    } else {
        (Action::Recovery, Rule::NothingBootable)
    };
    Decision { action, rule, order }
}

fn trouble(facts: &Facts) -> Option<Trouble> {
    let state = &facts.state;
    if state.rollback == Reading::Value(true) {
        return Some(Trouble::Rollback);
    }
    if state.upgrade_available == Reading::Value(true)
        && let (Some(count), Some(limit)) = (state.bootcount.value(), state.bootlimit.value())
        && limit != 0
        && count > limit
    {
        return Some(Trouble::Bootcount { count, limit });
    }
    let ledger = &facts.attempts;
    if ledger.limit != 0 && ledger.failed > ledger.limit && !ledger.confirmed {
        return Some(Trouble::Ledger { failed: ledger.failed, limit: ledger.limit });
    }
    None
}

/// All indices, the most wanted first.
fn order(facts: &Facts, trouble: bool) -> Vec<usize, MAX_DEPLOYMENTS> {
    let count = facts.candidates.len();
    // In trouble the first deployment goes last of those that an entry names, and being named does not save it.
    let last = (trouble && count > 0).then_some(0);
    let leader = facts.named.filter(|&n| n < count && last != Some(n));
    let listed = if facts.listed == 0 { count } else { facts.listed.min(count) };
    let rest = |i: &usize| Some(*i) != leader && Some(*i) != last;
    leader
        .into_iter()
        .chain((0..listed).filter(rest))
        .chain(last)
        .chain((listed..count).filter(rest))
        .collect()
}

fn via(facts: &Facts, index: usize) -> Via {
    match facts.candidates.get(index).map(|c: &Candidate| c.kernel) {
        Some(Kernel::OtherWithoutModules) if facts.kexec => Via::Kexec,
        // The bootloader knows two entries; with rollback=1 already set it has just chosen its second.
        Some(Kernel::OtherWithoutModules)
            if facts.loader && index == 1 && facts.state.rollback != Reading::Value(true) =>
        {
            Via::Loader
        }
        Some(Kernel::OtherWithoutModules) => Via::Mismatched,
        Some(Kernel::Running | Kernel::OtherWithModules) | None => Via::Direct,
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::CommandLine => "the kernel command line asks for recovery",
            Request::Environment => "bootward_recovery is set in the bootloader's environment",
            Request::Console => "someone at the console asked for recovery",
            #[cfg(feature = "recovery")]
            Request::Root => "'bootward recover' asked for recovery",
            #[cfg(feature = "recovery")]
            Request::Drill => "a fire drill of recovery was asked for",
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Rollback => f.write_str("rollback=1: the bootloader gave up on the first deployment"),
            Trouble::Bootcount { count, limit } => {
                write!(f, "bootcount {count} is over bootlimit {limit} while upgrade_available=1")
            }
            Trouble::Ledger { failed, limit } => {
                write!(f, "the first deployment failed {failed} times unconfirmed, over the limit of {limit}")
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Requested(request) => request.fmt(f),
            Rule::NothingBootable => f.write_str("no deployment is bootable"),
            Rule::Chosen => f.write_str("someone at the console chose it"),
            Rule::First { trouble: Some(trouble), .. } => trouble.fmt(f),
            Rule::First { trouble: None, named: true } => {
                f.write_str("no trouble, and ostree= on the command line names it")
            }
            Rule::First { trouble: None, named: false } => {
                f.write_str("no trouble, and it is the first bootable one in boot order")
            }
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Recovery => write!(f, "recovery: {}", self.rule),
            Action::Boot { index, via } => {
                write!(f, "boot deployment {index}")?;
                f.write_str(match via {
                    Via::Direct => "",
                    Via::Kexec => " by kexec into its own kernel",
                    Via::Loader => " by asking the bootloader for it (rollback=1, reboot)",
                    Via::Mismatched => " with a kernel that is not its own and for which it has no modules",
                })?;
                write!(f, ": {}", self.rule)
            }
        }
    }
}
