//! What can be wrong with a deployment that is held against its commit.

use std::fmt;

use nix::errno::Errno;

use crate::ostree::commit::CommitError;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::read::KeyFileError;
use crate::ostree::sign::SignError;
use crate::ostree::tree::TreeError;

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The name of the deployment is not that of a commit.
    Name,
    /// The keys cannot be had: without them nothing is believed.
    Keys(String, KeysFault),
    /// An object cannot be read from the repository.
    Object(Checksum, Kind, Errno),
    /// An object is not the one that its name says.
    ObjectChanged(Checksum, Kind),
    /// A dirtree or dirmeta object is not as it must be, whoever made it.
    ObjectForm(Checksum, Kind, TreeError),
    /// The commit object is not as it must be.
    Commit(CommitError),
    /// The commit is not signed by a trusted key.
    Signature(SignError),
    /// Something about this path of the deployment.
    Entry(String, EntryFault),
    /// Something about this file in the boot directory.
    Boot(String, BootFault),
    /// There is more of it than is looked at: directories in each other, or entries.
    TooMuch,
    /// The time for it ran out.
    Timeout,
}

/// Why there are no keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeysFault {
    /// Their file is of no use.
    File(KeyFileError),
    /// The configuration does not say for certain which file it is.
    Unclear,
}

/// What is wrong with a path of the deployment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryFault {
    /// The commit has it, the deployment has not.
    Missing,
    /// The deployment has it, the commit has not.
    Extra,
    /// It is another kind of thing than in the commit.
    Kind,
    /// It cannot be read.
    Unreadable(Errno),
    /// A directory's owner or group differs.
    Owner,
    /// A directory's mode differs: found, expected.
    Mode(u32, u32),
    /// A directory's extended attributes differ.
    Attributes,
    /// A file's or link's content, owner, mode or attributes differ: one checksum covers them all.
    Changed,
    /// It would be laid over `/usr`: a hotfix, which no commit covers.
    Overlay,
}

/// What is wrong with a file in the boot directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootFault {
    /// It cannot be read.
    Unreadable(Errno),
    /// The commit has no such file to compare it with.
    Unknown,
    /// It is not byte for byte the deployment's.
    Differs,
}

impl Fault {
    /// The path that it is about: of the deployment, or of the boot directory with `boot` in front.
    pub fn path(&self) -> Option<String> {
        match self {
            Fault::Entry(path, _) => Some(format!("/{path}")),
            Fault::Boot(path, _) => Some(format!("boot/{}", path.trim_start_matches('/'))),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Name => f.write_str("its directory does not bear the name of a commit"),
            Fault::Keys(path, KeysFault::File(KeyFileError::Unreadable(errno))) => {
                write!(f, "the trusted keys {path} cannot be read: {}", errno.desc())
            }
            Fault::Keys(path, KeysFault::File(KeyFileError::Content(error))) => {
                write!(f, "the trusted keys {path} are of no use: {error}")
            }
            Fault::Keys(path, KeysFault::Unclear) => write!(f, "{path} does not say which keys are trusted"),
            Fault::Object(name, kind, errno) => {
                write!(f, "object {name}.{} cannot be read: {}", kind.extension(), errno.desc())
            }
            Fault::ObjectChanged(name, kind) => write!(f, "object {name}.{} is damaged", kind.extension()),
            Fault::ObjectForm(name, kind, error) => write!(f, "object {name}.{}: {error}", kind.extension()),
            Fault::Commit(error) => error.fmt(f),
            Fault::Signature(error) => error.fmt(f),
            Fault::Entry(path, fault) => write!(f, "/{}: {fault}", path.escape_debug()),
            Fault::Boot(path, fault) => write!(f, "boot{}: {fault}", path.escape_debug()),
            Fault::TooMuch => f.write_str("it has more or deeper directories than are looked at"),
            Fault::Timeout => f.write_str("the time to verify it ran out"),
        }
    }
}

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryFault::Missing => f.write_str("missing"),
            EntryFault::Extra => f.write_str("not in the commit"),
            EntryFault::Kind => f.write_str("not the kind of file that the commit has"),
            EntryFault::Unreadable(errno) => write!(f, "cannot be read: {}", errno.desc()),
            EntryFault::Owner => f.write_str("its owner was changed"),
            EntryFault::Mode(found, expected) => write!(f, "its mode is {found:o} instead of {expected:o}"),
            EntryFault::Attributes => f.write_str("its extended attributes were changed"),
            EntryFault::Changed => f.write_str("not as in the commit (content, owner, mode or attributes)"),
            EntryFault::Overlay => f.write_str("would be laid over /usr, and no commit covers it"),
        }
    }
}

impl fmt::Display for BootFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootFault::Unreadable(errno) => write!(f, "cannot be read: {}", errno.desc()),
            BootFault::Unknown => f.write_str("the deployment has no such file to compare it with"),
            BootFault::Differs => f.write_str("not the file of the deployment"),
        }
    }
}
