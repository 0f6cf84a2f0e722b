//! What the decision is made from: plain data, gathered elsewhere in any order.

use heapless::Vec;

/// More deployments than this are not looked at; a sysroot rarely has more than three.
pub const MAX_DEPLOYMENTS: usize = 16;

/// A value as it was read: missing and unreadable are facts of their own, never "fine".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reading<T> {
    /// Nobody wrote it.
    #[default]
    Absent,
    /// Something is there, but it is not a value of this kind.
    Corrupt,
    /// Read well.
    Value(T),
}

impl<T: Copy> Reading<T> {
    /// The value, where there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Reading::Value(v) => Some(v),
            Reading::Absent | Reading::Corrupt => None,
        }
    }

    /// The same reading with its value turned into another.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Reading::Absent => Reading::Absent,
            Reading::Corrupt => Reading::Corrupt,
            Reading::Value(value) => Reading::Value(into(value)),
        }
    }
}

/// The bootloader's variables, as U-Boot counts: `bootcount > bootlimit` means that the trial is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootState {
    /// The bootloader (or its script) gave up on the first deployment.
    pub rollback: Reading<bool>,
    /// The first deployment is on trial.
    pub upgrade_available: Reading<bool>,
    /// Boots since the trial began.
    pub bootcount: Reading<u32>,
    /// Boots that a trial may take; 0 means no limit.
    pub bootlimit: Reading<u32>,
}

/// What the ledger knows of the first deployment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attempts {
    /// Attempts since it appeared that never reached a confirmation.
    pub failed: u32,
    /// Attempts that it may take unconfirmed; 0 means that the bootloader counts, not the ledger.
    pub limit: u32,
    /// It was confirmed at least once.
    pub confirmed: bool,
}

/// How a deployment's kernel relates to the one that is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kernel {
    /// Its own kernel is running, or it does not say which one is its own.
    #[default]
    Running,
    /// Another kernel is running, for which it has modules.
    OtherWithModules,
    /// Another kernel is running, for which it has no modules.
    OtherWithoutModules,
}

/// One deployment as the policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its verdict: whole enough to be booted.
    pub bootable: bool,
    /// Its kernel against the running one.
    pub kernel: Kernel,
}

/// Who asked for recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// `bootward.recovery` on the kernel command line.
    CommandLine,
    /// The one-shot variable `bootward_recovery` in the bootloader's environment.
    Environment,
    /// Someone at the console.
    Console,
    /// `bootward recover`, where there is no environment: a file on the root.
    #[cfg(feature = "recovery")]
    Root,
    /// A fire drill, by either way.
    #[cfg(feature = "recovery")]
    Drill,
}

/// Everything that the decision looks at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Recovery was asked for.
    pub request: Option<Request>,
    /// The bootloader's variables.
    pub state: BootState,
    /// The ledger's view of the first deployment.
    pub attempts: Attempts,
    /// The deployments in boot order; the first one is the newest.
    pub candidates: Vec<Candidate, MAX_DEPLOYMENTS>,
    /// How many of them a boot entry names: they come first. What no entry names is left from a change that was cut, and
    /// comes last whatever happened; where there is no entry at all, this is 0 and nothing sets them apart.
    pub listed: usize,
    /// The index of the deployment that the command line's `ostree=` names, where it names one.
    pub named: Option<usize>,
    /// Another kernel can be started from here.
    pub kexec: bool,
    /// The bootloader can still be asked for its second entry: its environment can be written, and the
    /// ledger does not say that it was already asked for this.
    pub loader: bool,
}
