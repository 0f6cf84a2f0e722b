//! Makes a deployment aside, whole and durable, and puts it in its place by one rename.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::arrange::carry;
use crate::arrange::plan::{MAKING, MAKING_VAR, Step};
use crate::storage::{At, Node, Trees, Volume};

use super::Fault;
use super::copy::{self, Times};
use super::objects::Objects;
use super::prepare::Prepared;
use super::{checkout, image, merge};

/// What was made, for who asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Laid {
    /// Files, links and directories of the commit.
    pub entries: u64,
    /// What differed in the old `/etc`: modified, removed, added.
    pub changes: [usize; 3],
    /// What of it was left out: sockets, devices.
    pub passed_over: Vec<String>,
}

/// Where a deployment is made.
pub fn making() -> At {
    At::root(MAKING)
}

/// Makes it, aside, and waits until it is durable.
///
/// # Errors
/// When something is missing or damaged, or the medium refuses. Nothing that counts has changed then.
pub fn make<F: Trees>(
    files: &mut F,
    prepared: &Prepared,
    old: Option<&str>,
    progress: &mut dyn FnMut(u64),
) -> Result<Laid, Fault<F::Error>> {
    let at = making();
    let above = MAKING.rsplit_once('/').map_or("", |(above, _)| above);
    carry::steps(files, &prepared.stale, false)?;
    carry::steps(files, &[Step::Directory(At::root(above), 0o700)], false)?;
    let mut objects = Objects::open(files)?;
    let mut laid = Laid {
        entries: checkout::checkout(files, &mut objects, &prepared.commit, &at, progress)?,
        ..Laid::default()
    };
    if let Some(wanted) = prepared.image {
        let image = at.join(image::NAME);
        let _ = image::make(files, &mut objects, &prepared.commit, wanted, &image)?;
    }
    etc(files, &at)?;
    if let Some(old) = old.filter(|_| !prepared.pristine_etc) {
        let old = At::root(old);
        let defaults = old.join("usr/etc");
        if files.node(&defaults).map_err(Fault::Files)? == Some(Node::Directory) {
            let now = old.join("etc");
            let changes = merge::changes(files, &defaults, &now)?;
            laid.changes = [changes.modified.len(), changes.removed.len(), changes.added.len()];
            laid.passed_over = merge::apply(files, &changes, &now, &at.join("etc"))?;
        }
    }
    carry::steps(files, &[Step::Remove(at.join("etc/.updated"))], false)?;
    files.sync(Volume::Root).map_err(Fault::Files)?;
    Ok(laid)
}

/// The commit's `/usr/etc` as `/etc`; a commit that has `/etc` has it moved there first.
fn etc<F: Trees>(files: &mut F, at: &At) -> Result<(), Fault<F::Error>> {
    let (etc, defaults) = (at.join("etc"), at.join("usr/etc"));
    let there = files.node(&defaults).map_err(Fault::Files)? == Some(Node::Directory);
    if files.node(&etc).map_err(Fault::Files)?.is_some() {
        let empty = files.names(&etc).map_err(Fault::Files)?.is_empty();
        match (empty, there) {
            (true, true) => files.remove_directory(&etc).map_err(Fault::Files)?,
            (true, false) => return Ok(()),
            (false, true) => return Err(Fault::BothEtc),
            (false, false) => {
                files.rename(&etc, &defaults).map_err(Fault::Files)?;
                return copy::tree(files, &defaults, &etc, Times::Now).map(drop);
            }
        }
    }
    if there {
        copy::tree(files, &defaults, &etc, Times::Now)?;
    }
    Ok(())
}

/// Puts what was made in its place, with its origin, and fills a stateroot's empty `/var`. Durable when this returns.
///
/// # Errors
/// When the medium refuses. What is in place by then has no boot entry yet.
pub fn place<F: Trees>(files: &mut F, prepared: &Prepared, lock: bool) -> Result<(), Fault<F::Error>> {
    let at = At::root(prepared.entry.path());
    let stateroot = format!("ostree/deploy/{}", prepared.entry.stateroot);
    carry::steps(files, &[Step::Directory(At::root(format!("{stateroot}/deploy")), 0o755)], false)?;
    // The origin first: what has none is to nobody's liking.
    carry::steps(files, &[Step::Write(at.beside(".origin"), prepared.origin.clone())], false)?;
    let backing = At::root(format!("{stateroot}/backing"));
    let root_transient = backing.join(&format!("{}/root-transient", prepared.entry.name()));
    carry::steps(files, &[Step::Directory(root_transient.join("work"), 0o700)], false)?;
    let meta = files.meta(&making()).map_err(Fault::Files)?;
    files.make_directory(&root_transient.join("upper"), meta.mode & 0o7777).map_err(Fault::Files)?;
    var(files, &prepared.entry.stateroot)?;
    if files.node(&at).map_err(Fault::Files)?.is_some() {
        return Err(Fault::InTheWay(at.path));
    }
    files.rename(&making(), &at).map_err(Fault::Files)?;
    if lock {
        files.lock(&at).map_err(Fault::Files)?;
    }
    files.sync(Volume::Root).map_err(Fault::Files)
}

/// As `prepare_deployment_var`: an empty `/var` of a stateroot gets what the commit has, and without `tmpfiles.d` what
/// every system needs there. By one rename, so that a part of it never looks like all of it.
fn var<F: Trees>(files: &mut F, stateroot: &str) -> Result<(), Fault<F::Error>> {
    let var = At::root(format!("ostree/deploy/{stateroot}/var"));
    carry::steps(files, &[Step::Remove(var.join(".updated"))], false)?;
    let commits = making().join("var");
    let wanted = files.node(&commits).map_err(Fault::Files)? == Some(Node::Directory);
    let there = files.node(&var).map_err(Fault::Files)?;
    if !wanted || there != Some(Node::Directory) || !files.names(&var).map_err(Fault::Files)?.is_empty() {
        return Ok(());
    }
    let new = At::root(MAKING_VAR);
    carry::steps(files, &[Step::Remove(new.clone())], false)?;
    let meta = files.meta(&var).map_err(Fault::Files)?;
    copy::tree(files, &commits, &new, Times::Now)?;
    if files.node(&making().join("usr/lib/tmpfiles.d")).map_err(Fault::Files)?.is_none() {
        for (name, mode) in [("tmp", 0o1777), ("lib", 0o755), ("log", 0o755)] {
            files.make_directory(&new.join(name), mode).map_err(Fault::Files)?;
        }
        for (name, text) in [("run", "../run"), ("lock", "../run/lock")] {
            if files.node(&new.join(name)).map_err(Fault::Files)?.is_none() {
                files.symlink(&new.join(name), text).map_err(Fault::Files)?;
            }
        }
    }
    files.dress(&new, &meta).map_err(Fault::Files)?;
    files.touch(&new).map_err(Fault::Files)?;
    files.sync(Volume::Root).map_err(Fault::Files)?;
    files.rename(&new, &var).map_err(Fault::Files)
}
