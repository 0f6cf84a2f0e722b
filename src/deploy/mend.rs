//! A deployment that is not what its commit says is put right, from objects that are whole: what is damaged or missing is
//! made anew, what does not belong there goes.
//!
//! A file of a deployment is a second name of its object. When a damaged object was fetched again the deployment still
//! has the old one, and is damaged until it gets the new one's. Everything is made aside, in
//! [`crate::arrange::plan::MAKING`], and is durable before it is renamed over what it replaces: a power cut leaves each
//! path as it was or right, and what is left aside the next run removes. `/etc`, `/var` and a hotfix are the device's
//! own and stay as they are.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::arrange::carry;
use crate::arrange::plan::{MAKING, Step};
use crate::ostree::Commit;
use crate::storage::{At, Node, Trees, Volume};

use super::Fault;
use super::checkout;
use super::image;
use super::objects::{Found, Objects};

/// So many things are made before they get their places.
const BATCH: usize = 512;

/// What is wrong with a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flaw {
    /// It does not belong there.
    Extra,
    /// It is not there, or not what it should be.
    Wrong,
    /// A directory's owner, mode or attributes.
    Dress,
}

/// Puts paths of a deployment right; how many there were. The objects of the commit are whole.
///
/// # Errors
/// When the medium refuses. What was put right stays so; the same again does the rest.
pub fn mend<F: Trees>(
    files: &mut F,
    commit: &Commit,
    deployment: &str,
    flaws: &BTreeSet<(Flaw, String)>,
    lock: bool,
) -> Result<u64, Fault<F::Error>> {
    let left = files.node(&At::root(MAKING)).map_err(Fault::Files)?.is_some();
    if flaws.is_empty() && !left {
        return Ok(0);
    }
    let mut objects = Objects::open(files)?;
    let root = At::root(deployment);
    // Its own directory cannot be changed otherwise. A cut here leaves it so until the next deployment is made.
    files.unlock(&root).map_err(Fault::Files)?;
    let of =
        |wanted: Flaw| flaws.iter().filter(move |(flaw, _)| *flaw == wanted).map(|(_, path)| path.as_str());
    for path in of(Flaw::Extra) {
        step(files, Step::Remove(below(&root, path)))?;
    }
    let wrong: Vec<&str> = of(Flaw::Wrong).collect();
    for batch in wrong.chunks(BATCH) {
        replace(files, &mut objects, commit, &root, batch)?;
    }
    // Last of all, as every change in a directory changes its time.
    for path in of(Flaw::Dress) {
        if let Some(Found::Directory(_, meta)) = find(files, &objects, commit, path)? {
            let meta = objects.meta(files, &meta)?;
            files.dress(&below(&root, path), &meta).map_err(Fault::Files)?;
        }
    }
    step(files, Step::Remove(At::root(MAKING)))?;
    if lock {
        files.lock(&root).map_err(Fault::Files)?;
    }
    files.sync(Volume::Root).map_err(Fault::Files)?;
    Ok(flaws.len() as u64)
}

/// Makes the composefs image of a deployment anew where one is asked for and it is not the commit's; how many that were.
/// The objects of the commit are whole.
///
/// # Errors
/// When the medium refuses, or the image is not the one that the commit names.
pub fn image<F: Trees>(
    files: &mut F,
    commit: &Commit,
    deployment: &str,
    lock: bool,
) -> Result<u64, Fault<F::Error>> {
    let mut objects = Objects::open(files)?;
    let Some(wanted) = image::wanted(files, &objects, commit)? else { return Ok(0) };
    let root = At::root(deployment);
    let at = root.join(image::NAME);
    if image::is_made(files, &mut objects, commit, wanted, &at)? {
        return Ok(0);
    }
    files.unlock(&root).map_err(Fault::Files)?;
    let aside = At::root(MAKING);
    step(files, Step::Remove(aside.clone()))?;
    step(files, Step::Directory(aside.clone(), 0o700))?;
    let made = aside.join(image::NAME);
    image::make(files, &mut objects, commit, wanted, &made)?;
    files.sync(Volume::Root).map_err(Fault::Files)?;
    if files.node(&at).map_err(Fault::Files)? == Some(Node::Directory) {
        step(files, Step::Remove(at.clone()))?;
    }
    files.rename(&made, &at).map_err(Fault::Files)?;
    step(files, Step::Remove(aside))?;
    if lock {
        files.lock(&root).map_err(Fault::Files)?;
    }
    files.sync(Volume::Root).map_err(Fault::Files)?;
    Ok(1)
}

/// Whether the repository or the commit asks for a composefs image.
///
/// # Errors
/// When one of the configurations cannot be read.
pub fn wants_image<F: Trees>(files: &mut F, commit: &Commit) -> Result<bool, Fault<F::Error>> {
    let objects = Objects::open(files)?;
    Ok(image::wanted(files, &objects, commit)?.is_some())
}

fn below(root: &At, path: &str) -> At {
    if path.is_empty() { root.clone() } else { root.join(path) }
}

fn step<F: Trees>(files: &mut F, step: Step) -> Result<(), Fault<F::Error>> {
    carry::steps(files, &[step], false)?;
    Ok(())
}

/// Makes what the commit has at these paths, and puts it in its places.
fn replace<F: Trees>(
    files: &mut F,
    objects: &mut Objects,
    commit: &Commit,
    root: &At,
    paths: &[&str],
) -> Result<(), Fault<F::Error>> {
    let aside = At::root(MAKING);
    step(files, Step::Remove(aside.clone()))?;
    step(files, Step::Directory(aside.clone(), 0o700))?;
    let mut made = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        // Each in a directory of its own, so that it can have its name.
        let own = aside.join(&alloc::format!("{number}"));
        files.make_directory(&own, 0o700).map_err(Fault::Files)?;
        let name = match find(files, objects, commit, path)? {
            Some(Found::File(checksum)) => {
                checkout::place(files, objects, &checksum, &own, name)?;
                checkout::placed(files, &own, name)?
            }
            Some(Found::Directory(tree, meta)) => {
                checkout::subtree(files, objects, (tree, meta), &own.join(name), &mut |_| {})?;
                name
            }
            None => continue,
        };
        made.push((own.join(name), below(root, above).join(name)));
    }
    files.sync(Volume::Root).map_err(Fault::Files)?;
    for (from, to) in made {
        let directory = |node| node == Some(Node::Directory);
        let (new, old) = (files.node(&from).map_err(Fault::Files)?, files.node(&to).map_err(Fault::Files)?);
        if directory(old) || (directory(new) && old.is_some()) {
            step(files, Step::Remove(to.clone()))?;
        }
        files.rename(&from, &to).map_err(Fault::Files)?;
    }
    files.sync(Volume::Root).map_err(Fault::Files)
}

/// What the commit has at a path of the deployment: its `/etc` is `/usr/etc` there.
fn find<F: Trees>(
    files: &mut F,
    objects: &Objects,
    commit: &Commit,
    path: &str,
) -> Result<Option<Found>, Fault<F::Error>> {
    if path.is_empty() {
        return Ok(Some(Found::Directory(commit.root_tree(), commit.root_meta())));
    }
    match objects.find(files, commit, path)? {
        None => match path.strip_prefix("usr/").filter(|etc| *etc == "etc" || etc.starts_with("etc/")) {
            Some(etc) => objects.find(files, commit, etc),
            None => Ok(None),
        },
        found => Ok(found),
    }
}
