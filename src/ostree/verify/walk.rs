//! The tree of a deployment against the dirtree and dirmeta objects of its commit.

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::ostree::Commit;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::tree::{DirTree, Meta};
use crate::sys::beneath::kind;
use crate::sys::walk::Directory;

use super::content::{Hashing, Job};
use super::run::{Over, State};
use super::{EntryFault, Fault, Level};

/// Directories in each other.
const DEPTH_MAX: usize = 128;
/// Entries of one directory.
const NAMES_MAX: usize = 1_000_000;
/// Entries in all.
const ENTRIES_MAX: u64 = 10_000_000;

/// libostree quotes an overlayfs whiteout with this prefix; in a deployment it is the device itself, and the quoted
/// file where libostree was older than v2022.6.
const WHITEOUT: &str = ".ostree-wh.";
/// What libostree puts into a deployment's root besides its commit: the device's configuration, and the image that
/// composefs mounts, which is for the mount to check.
const OWN: [(&CStr, SFlag); 2] = [(c"etc", SFlag::S_IFDIR), (c".ostree.cfs", SFlag::S_IFREG)];

/// What is in a directory, and which of it the commit has.
struct Names(Vec<(CString, bool)>);

impl Names {
    /// Takes a name off the list. `None` when it is not there, or was taken before.
    fn take(&mut self, name: &str) -> Option<CString> {
        let place = self.0.binary_search_by(|(have, _)| have.to_bytes().cmp(name.as_bytes())).ok()?;
        let (name, taken) = self.0.get_mut(place)?;
        (!std::mem::replace(taken, true)).then(|| name.clone())
    }
}

/// Walks the whole of it.
pub(super) fn walk(state: &mut State<'_>, hashing: &Hashing, commit: &Commit) -> Result<(), Over> {
    let root = match Directory::open(state.check.sysroot, state.check.path) {
        Ok(root) => root,
        Err(errno) => return state.fault(Fault::Entry(String::new(), EntryFault::Unreadable(errno))),
    };
    Walk { state, hashing, etc: None }.directory(
        &root,
        &commit.root_tree(),
        &commit.root_meta(),
        &mut String::new(),
        0,
    )
}

struct Walk<'w, 'a> {
    state: &'w mut State<'a>,
    hashing: &'w Hashing,
    /// The commit's `/etc` where it has that instead of `/usr/etc`: libostree moves it there.
    etc: Option<(Checksum, Checksum)>,
}

impl Walk<'_, '_> {
    fn entry(&mut self, path: &str, fault: EntryFault) -> Result<(), Over> {
        self.state.fault(Fault::Entry(path.into(), fault))
    }

    fn directory(
        &mut self,
        here: &Directory,
        tree: &Checksum,
        meta: &Checksum,
        path: &mut String,
        depth: usize,
    ) -> Result<(), Over> {
        self.count(depth)?;
        self.metadata(here, meta, path)?;
        let Some(data) = self.state.object(tree, Kind::DirTree)? else { return Ok(()) };
        let tree = match DirTree::parse(&data) {
            Ok(parsed) => parsed,
            Err(error) => return self.state.fault(Fault::ObjectForm(*tree, Kind::DirTree, error)),
        };
        let mut names = match here.names(NAMES_MAX) {
            Ok(names) => Names(names.into_iter().map(|name| (name, false)).collect()),
            Err(errno) => return self.entry(path, EntryFault::Unreadable(errno)),
        };
        let length = path.len();
        for (name, checksum) in tree.files() {
            extend(path, name);
            self.file(here, &mut names, name, &checksum, path)?;
            path.truncate(length);
        }
        for (name, tree, meta) in tree.directories() {
            if depth == 0 && name == "etc" {
                // An empty one stays where it is, and is the device's own.
                self.etc = (tree != Checksum::of(&[0])).then_some((tree, meta));
                continue;
            }
            extend(path, name);
            self.subdirectory(here, &mut names, name, (tree, meta), path, depth)?;
            path.truncate(length);
        }
        if depth == 1
            && path == "usr"
            && let Some(etc) = self.etc.take()
            && !tree.directories().any(|(name, ..)| name == "etc")
        {
            extend(path, "etc");
            self.subdirectory(here, &mut names, "etc", etc, path, depth)?;
            path.truncate(length);
        }
        for (name, _) in names.0.iter().filter(|(_, taken)| !taken) {
            self.extra(here, name, path, depth)?;
        }
        Ok(())
    }

    fn count(&mut self, depth: usize) -> Result<(), Over> {
        self.state.entries += 1;
        if depth > DEPTH_MAX || self.state.entries > ENTRIES_MAX {
            self.state.fault(Fault::TooMuch)?;
            return Err(Over);
        }
        self.state.tick(self.hashing.bytes())
    }

    fn extra(&mut self, here: &Directory, name: &CStr, path: &str, depth: usize) -> Result<(), Over> {
        let own = |(have, kind_of): &(&CStr, SFlag)| {
            *have == name && here.stat(name).is_ok_and(|stat| kind(&stat) == *kind_of)
        };
        if depth == 0 && OWN.iter().any(own) {
            return Ok(());
        }
        let overlay = depth == 0 && name.to_bytes().starts_with(b".usr-ovl-");
        let mut path = path.to_string();
        extend(&mut path, &name.to_string_lossy());
        self.entry(&path, if overlay { EntryFault::Overlay } else { EntryFault::Extra })
    }

    fn metadata(&mut self, here: &Directory, name: &Checksum, path: &str) -> Result<(), Over> {
        let Some(data) = self.state.object(name, Kind::DirMeta)? else { return Ok(()) };
        let expected = match Meta::parse(&data) {
            Ok(expected) => expected,
            Err(error) => return self.state.fault(Fault::ObjectForm(*name, Kind::DirMeta, error)),
        };
        let found = here.own_stat().and_then(|stat| Ok((stat, here.own_attributes()?)));
        let (stat, attributes) = match found {
            Ok(found) => found,
            Err(errno) => return self.entry(path, EntryFault::Unreadable(errno)),
        };
        if (stat.st_uid, stat.st_gid) != (expected.uid, expected.gid) {
            self.entry(path, EntryFault::Owner)?;
        }
        if stat.st_mode != expected.mode {
            self.entry(path, EntryFault::Mode(stat.st_mode, expected.mode))?;
        }
        if attributes != expected.attributes {
            self.entry(path, EntryFault::Attributes)?;
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        here: &Directory,
        names: &mut Names,
        name: &str,
        (tree, meta): (Checksum, Checksum),
        path: &mut String,
        depth: usize,
    ) -> Result<(), Over> {
        let Some(name) = names.take(name) else { return self.entry(path, EntryFault::Missing) };
        match here.enter(&name) {
            Ok(inner) => self.directory(&inner, &tree, &meta, path, depth + 1),
            Err(Errno::ELOOP | Errno::ENOTDIR) => self.entry(path, EntryFault::Kind),
            Err(errno) => self.entry(path, EntryFault::Unreadable(errno)),
        }
    }

    fn file(
        &mut self,
        here: &Directory,
        names: &mut Names,
        name: &str,
        checksum: &Checksum,
        path: &str,
    ) -> Result<(), Over> {
        self.count(0)?;
        let quoted = names.take(name);
        let whiteout = if quoted.is_none() { name.strip_prefix(WHITEOUT) } else { None };
        let Some(name) = quoted.or_else(|| names.take(whiteout?)) else {
            return self.entry(path, EntryFault::Missing);
        };
        let stat = match here.stat(&name) {
            Ok(stat) => stat,
            Err(errno) => return self.entry(path, EntryFault::Unreadable(errno)),
        };
        let found = match (kind(&stat), whiteout) {
            (SFlag::S_IFLNK, None) => link(here, &name, &stat),
            (SFlag::S_IFCHR, Some(_)) if stat.st_rdev == 0 => device(here, &name, &stat),
            (SFlag::S_IFREG, None) if stat.st_size == 0 || self.state.check.level == Level::Full => {
                return match here.file(&name) {
                    Ok(file) => {
                        let job = Job { file, stat, path: path.into(), expected: *checksum };
                        self.hashing.give(self.state, job)
                    }
                    Err(errno) => self.entry(path, EntryFault::Unreadable(errno)),
                };
            }
            (SFlag::S_IFREG, None) => return Ok(()),
            _ => return self.entry(path, EntryFault::Kind),
        };
        match found {
            Ok(found) if found == *checksum => Ok(()),
            Ok(_) => self.entry(path, EntryFault::Changed),
            Err(errno) => self.entry(path, EntryFault::Unreadable(errno)),
        }
    }
}

fn extend(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(name);
}

fn link(here: &Directory, name: &CStr, stat: &FileStat) -> Result<Checksum, Errno> {
    let target = here.link(name)?;
    let meta = Meta {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
        attributes: here.attributes_of(name)?,
    };
    Ok(Checksum::of(&meta.file_header(&target)))
}

/// A whiteout: an empty file in the commit, a character device in the deployment.
fn device(here: &Directory, name: &CStr, stat: &FileStat) -> Result<Checksum, Errno> {
    let mode = stat.st_mode & !SFlag::S_IFMT.bits() | SFlag::S_IFREG.bits();
    let attributes = here.attributes_of(name)?;
    let meta = Meta { uid: stat.st_uid, gid: stat.st_gid, mode, attributes };
    Ok(Checksum::of(&meta.file_header(b"")))
}
