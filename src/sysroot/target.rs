//! What an `ostree=` means: a hint, resolved beneath the sysroot, matched against the deployments on disk.

use std::fmt;

use crate::sys::beneath::Beneath;

use super::entry::{BootLink, deployment_name, is_stateroot};

/// Longer ones are not looked at.
const TARGET_MAX: usize = 1024;

/// Every directory that boot links may be in: what the loader names, and what that points to.
pub(crate) const LINK_DIRECTORIES: [&str; 6] =
    ["boot.0", "boot.1", "boot.0.0", "boot.0.1", "boot.1.0", "boot.1.1"];

/// A deployment's directory as found on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Directory {
    pub stateroot: String,
    pub commit: String,
    pub serial: u32,
    /// Device and inode.
    pub identity: (u64, u64),
    /// Time of the last change, seconds since 1970.
    pub changed: i64,
}

/// Where a target leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Resolved {
    /// To the directory with this index.
    Directly(usize),
    /// Not by itself, but the same link elsewhere leads to the directory with this index.
    Elsewhere(usize),
    /// To a deployment whose directory is gone: stateroot, commit, serial.
    Gone(String, String, u32),
    /// Nowhere.
    Nowhere(Lost),
}

/// Why a target leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// It is not below `/ostree`, or too long.
    Illegal,
    /// It leads to something that is no deployment.
    NotDeployment,
    /// There is no such link, and none like it.
    NoLink,
    /// The deployment's directory is gone.
    Gone,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Illegal => "it is not a path below /ostree",
            Lost::NotDeployment => "it leads to something that is no deployment",
            Lost::NoLink => "there is no such link",
            Lost::Gone => "the deployment's directory is missing",
        })
    }
}

/// Which deployment an `ostree=` on the command line names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// The one with this index in boot order.
    Index(usize),
    /// It leads nowhere, but it was meant for the one with this index.
    Meant(usize),
    /// None, and why.
    Nothing(Lost),
}

/// Follows a target.
pub(crate) fn resolve(tree: &Beneath, directories: &[Directory], target: &str) -> Resolved {
    let climbs = target.split('/').any(|part| part == "..");
    if target.len() > TARGET_MAX || !target.trim_start_matches('/').starts_with("ostree/") || climbs {
        return Resolved::Nowhere(Lost::Illegal);
    }
    if let Some(index) = follow(tree, directories, target) {
        return Resolved::Directly(index);
    }
    let there = tree.exists(target);
    if let Some((stateroot, commit, serial)) = tree.link(target).ok().as_deref().and_then(pointed_at) {
        let same = |d: &Directory| d.stateroot == stateroot && d.commit == commit && d.serial == serial;
        return match directories.iter().position(same) {
            Some(index) => Resolved::Elsewhere(index),
            None => Resolved::Gone(stateroot.into(), commit.into(), serial),
        };
    }
    if there {
        return Resolved::Nowhere(Lost::NotDeployment);
    }
    elsewhere(tree, directories, target).map_or(Resolved::Nowhere(Lost::NoLink), Resolved::Elsewhere)
}

/// The directory that a path leads to, told by device and inode: no path that a disk makes up is believed.
fn follow(tree: &Beneath, directories: &[Directory], path: &str) -> Option<usize> {
    let stat = tree.stat(path).ok()?;
    directories.iter().position(|d| d.identity == (stat.st_dev, stat.st_ino))
}

/// The same stateroot, boot checksum and serial in another directory of boot links: after a power cut the
/// loader may still name the old one (ostree#2283).
fn elsewhere(tree: &Beneath, directories: &[Directory], target: &str) -> Option<usize> {
    let link = BootLink::parse(target)?;
    LINK_DIRECTORIES.iter().find_map(|version| {
        let path = format!("ostree/{version}/{}/{}/{}", link.stateroot, link.checksum, link.serial);
        follow(tree, directories, &path)
    })
}

/// What the text of a boot link (`../../../deploy/OS/deploy/COMMIT.SERIAL`) points at.
fn pointed_at(text: &str) -> Option<(&str, &str, u32)> {
    let mut parts = text.trim_end_matches('/').rsplit('/');
    let (commit, serial) = deployment_name(parts.next()?)?;
    let (deploy, stateroot) = (parts.next()?, parts.next()?);
    (deploy == "deploy" && is_stateroot(stateroot)).then_some((stateroot, commit, serial))
}
