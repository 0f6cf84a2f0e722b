//! One deployment, and what can be wrong with it or with what leads to it.

use std::fmt;

use nix::errno::Errno;

use crate::ledger::DeploymentId;
use crate::ostree::verify::BootFiles;
use crate::policy::Kernel;

use super::init::InitFault;

/// A deployment as it was found.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its stateroot.
    pub stateroot: String,
    /// Its commit, 64 hexadecimal digits.
    pub commit: String,
    /// Its deploy serial.
    pub deploy_serial: u32,
    /// The title of its boot entry.
    pub title: Option<String>,
    /// The file name of its boot entry; `None` where no entry names it.
    pub entry: Option<String>,
    /// What the entry's `ostree=` says.
    pub boot_link: Option<String>,
    /// Kernel, initramfs and device trees that its entry names.
    pub boot_files: BootFiles,
    /// The kernel arguments of its entry.
    pub options: Option<String>,
    /// The refspec of its origin.
    pub refspec: Option<String>,
    /// The releases of the kernels in its `usr/lib/modules`.
    pub releases: Vec<String>,
    /// Its kernel against the running one.
    pub kernel: Kernel,
    /// Whole enough to be booted, or broken with a reason.
    pub verdict: Result<(), Fault>,
    /// What is odd about it without keeping it from booting.
    pub findings: Vec<Finding>,
}

impl Deployment {
    /// Its directory, relative to the sysroot.
    pub fn path(&self) -> String {
        format!("ostree/deploy/{}/deploy/{}.{}", self.stateroot, self.commit, self.deploy_serial)
    }

    /// Its identity in the ledger.
    pub fn id(&self) -> Option<DeploymentId> {
        DeploymentId::parse(&self.commit, self.deploy_serial)
    }

    /// Short enough for a serial line: stateroot, the first ten digits, serial, title.
    pub fn name(&self) -> String {
        let short = self.commit.get(..10).unwrap_or(&self.commit);
        let mut name = format!("{} {short}.{}", self.stateroot, self.deploy_serial);
        if let Some(title) = &self.title {
            name.push_str(" \"");
            name.push_str(title);
            name.push('"');
        }
        name
    }
}

/// Why a deployment is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Its directory is not there.
    DirectoryMissing,
    /// Its directory cannot be opened.
    Unreadable(Errno),
    /// It has no `usr`.
    NoUsr,
    /// It has neither `etc` nor `usr/etc`.
    NoEtc,
    /// Its commit is marked as not wholly fetched.
    PartialCommit,
    /// Its init cannot be run.
    Init(InitFault),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::DirectoryMissing => f.write_str("its directory is missing"),
            Fault::Unreadable(errno) => write!(f, "its directory cannot be read: {}", errno.desc()),
            Fault::NoUsr => f.write_str("it has no usr directory"),
            Fault::NoEtc => f.write_str("it has neither etc nor usr/etc"),
            Fault::PartialCommit => f.write_str("its commit was not wholly fetched (commitpartial)"),
            Fault::Init(fault) => fault.fmt(f),
        }
    }
}

/// What is odd about a deployment that may still boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// No boot entry names it.
    NoEntry,
    /// The link that its entry names leads nowhere; it was found by another way.
    LinkGone(String),
    /// Its commit object is not in the repository.
    CommitMissing,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::NoEntry => f.write_str("no boot entry names it"),
            Finding::LinkGone(link) => write!(f, "its boot link {link} leads nowhere"),
            Finding::CommitMissing => f.write_str("its commit object is missing from the repository"),
        }
    }
}

/// What is odd about the sysroot as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// `boot/loader` is missing or leads nowhere; the entries of this directory were taken, or none.
    Loader(Option<&'static str>),
    /// `boot/loader` is a directory, as systemd-boot layouts have it.
    LoaderDirectory,
    /// An entry cannot be used, and why.
    Entry(String, EntryFault),
    /// A boot link directory is missing or leads nowhere.
    BootLinks(String),
    /// There is more of something than is looked at.
    TooMany(&'static str),
}

/// Why an entry is of no use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryFault {
    /// It cannot be read.
    Unreadable(Errno),
    /// It has no `ostree=`.
    NoTarget,
    /// Its `ostree=` leads nowhere and no deployment can be told from it.
    LeadsNowhere(String),
    /// It names a deployment that an earlier entry names.
    Again,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Loader(Some(taken)) => {
                write!(f, "boot/loader leads nowhere, boot/{taken} was read instead")
            }
            Note::Loader(None) => f.write_str("there are no boot entries: boot/loader leads nowhere"),
            Note::LoaderDirectory => f.write_str("boot/loader is a directory, not a link"),
            Note::Entry(name, fault) => {
                write!(f, "boot entry {name} ")?;
                match fault {
                    EntryFault::Unreadable(errno) => write!(f, "cannot be read: {}", errno.desc()),
                    EntryFault::NoTarget => f.write_str("has no ostree= among its options"),
                    EntryFault::LeadsNowhere(target) => write!(f, "leads nowhere: {target}"),
                    EntryFault::Again => f.write_str("names a deployment that another entry names"),
                }
            }
            Note::BootLinks(name) => write!(f, "the boot links ostree/{name} are missing or lead nowhere"),
            Note::TooMany(what) => write!(f, "there are too many {what}; the rest was not looked at"),
        }
    }
}
