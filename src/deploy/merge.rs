//! `/etc` of a new deployment: its own defaults, and on top of them whatever differs between the old deployment's `/etc`
//! and the defaults that it came with. What somebody changed, added or removed wins over a new default.
//!
//! The rules are those of `merge_configuration_from` and ostree-diff.c: a file differs by owner, mode, content, or a
//! link's text; attributes are not looked at (labels differ between `/usr/etc` and `/etc`), but come along with what is
//! copied; a directory's own owner and mode come along only with something below it; sockets and devices are left out.
//! Other than libostree, nothing is ever written through a symbolic link of the new defaults: that is refused.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::arrange::carry;
use crate::arrange::plan::Step;
use crate::storage::{At, Node, Trees};

use super::Fault;
use super::copy::{self, DEPTH_MAX, Times};

/// Entries of an `/etc`.
pub const ENTRIES_MAX: usize = 1_000_000;

/// What was changed since the defaults, as paths below `/etc`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Among the defaults, and there no more.
    pub removed: Vec<String>,
    /// There with another content, owner, mode or type.
    pub modified: Vec<String>,
    /// Not among the defaults; a directory comes before what is in it.
    pub added: Vec<String>,
}

/// How two versions of a directory differ.
///
/// # Errors
/// When one cannot be read, or there is too much of it.
pub fn changes<F: Trees>(files: &mut F, defaults: &At, now: &At) -> Result<Changes, Fault<F::Error>> {
    let mut changes = Changes::default();
    let mut stack = vec![(String::new(), 0)];
    let mut count = 0;
    while let Some((path, depth)) = stack.pop() {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        let (old, new) = (below(defaults, &path), below(now, &path));
        let names = files.names(&old).map_err(Fault::Files)?;
        for name in &names {
            counted(&mut count)?;
            let inner = inside(&path, name);
            let (old, new) = (old.join(name), new.join(name));
            let kind = files.node(&old).map_err(Fault::Files)?;
            match files.node(&new).map_err(Fault::Files)? {
                None => changes.removed.push(inner),
                node if node != kind => changes.modified.push(inner),
                node => {
                    if differ(files, &old, &new)? {
                        changes.modified.push(inner.clone());
                    }
                    if node == Some(Node::Directory) {
                        stack.push((inner, depth + 1));
                    }
                }
            }
        }
        for name in files.names(&new).map_err(Fault::Files)? {
            if files.node(&old.join(&name)).map_err(Fault::Files)?.is_none() {
                added(files, now, inside(&path, &name), depth, &mut count, &mut changes.added)?;
            }
        }
    }
    Ok(changes)
}

fn added<F: Trees>(
    files: &mut F,
    now: &At,
    path: String,
    depth: usize,
    count: &mut usize,
    found: &mut Vec<String>,
) -> Result<(), Fault<F::Error>> {
    let mut stack = vec![(path, depth)];
    while let Some((path, depth)) = stack.pop() {
        counted(count)?;
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        let at = below(now, &path);
        found.push(path.clone());
        if files.node(&at).map_err(Fault::Files)? == Some(Node::Directory) {
            let names = files.names(&at).map_err(Fault::Files)?;
            stack.extend(names.iter().map(|name| (inside(&path, name), depth + 1)));
        }
    }
    Ok(())
}

fn counted<E>(count: &mut usize) -> Result<(), Fault<E>> {
    *count += 1;
    if *count > ENTRIES_MAX { Err(Fault::TooMany(ENTRIES_MAX as u64)) } else { Ok(()) }
}

fn below(at: &At, path: &str) -> At {
    if path.is_empty() { at.clone() } else { at.join(path) }
}

fn inside(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") }
}

fn differ<F: Trees>(files: &mut F, one: &At, other: &At) -> Result<bool, Fault<F::Error>> {
    let (a, b) = (files.meta(one).map_err(Fault::Files)?, files.meta(other).map_err(Fault::Files)?);
    if (a.uid, a.gid, a.mode) != (b.uid, b.gid, b.mode) {
        return Ok(true);
    }
    match files.node(one).map_err(Fault::Files)? {
        Some(Node::File) => files.same(one, other).map(|same| !same).map_err(Fault::Files),
        Some(Node::Link) => {
            let texts = (files.link_text(one), files.link_text(other));
            Ok(texts.0.map_err(Fault::Files)? != texts.1.map_err(Fault::Files)?)
        }
        _ => Ok(false),
    }
}

/// Applies changes: what is in `from` goes over what is in `to`. The names of what cannot be copied come back.
///
/// # Errors
/// When a changed file is a directory or link among the new defaults, or the medium refuses.
pub fn apply<F: Trees>(
    files: &mut F,
    changes: &Changes,
    from: &At,
    to: &At,
) -> Result<Vec<String>, Fault<F::Error>> {
    let mut passed_over = Vec::new();
    for path in &changes.removed {
        if above(path).is_none_or(|above| is_directory(files, &to.join(above))) {
            carry::steps(files, &[Step::Remove(to.join(path))], false)?;
        }
    }
    for path in changes.modified.iter().chain(&changes.added) {
        copy_over(files, from, to, path, &mut passed_over)?;
    }
    Ok(passed_over)
}

fn above(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(above, _)| above)
}

/// Whether it is one, and every directory above it, and not a link to one.
fn is_directory<F: Trees>(files: &mut F, at: &At) -> bool {
    files.node(at).is_ok_and(|node| node == Some(Node::Directory))
}

fn copy_over<F: Trees>(
    files: &mut F,
    from: &At,
    to: &At,
    path: &str,
    passed_over: &mut Vec<String>,
) -> Result<(), Fault<F::Error>> {
    if let Some(above) = above(path) {
        directory(files, from, to, above)?;
    }
    let (source, target) = (from.join(path), to.join(path));
    let kind = files.node(&source).map_err(Fault::Files)?;
    match files.node(&target).map_err(Fault::Files)? {
        None => {}
        Some(Node::Directory) if kind == Some(Node::Directory) => return Ok(()),
        Some(Node::Directory) => return Err(Fault::Merge(path.into())),
        Some(_) => files.unlink(&target).map_err(Fault::Files)?,
    }
    match kind {
        Some(Node::Directory) => passed_over.extend(copy::tree(files, &source, &target, Times::Kept)?),
        Some(Node::File | Node::Link) => {
            let meta = files.meta(&source).map_err(Fault::Files)?;
            copy::file(files, &source, &target, &meta, Times::Kept)?;
        }
        Some(Node::Other) => passed_over.push(path.into()),
        None => {}
    }
    Ok(())
}

/// Sees to it that a directory is there, with what the changed one has. So does each one above it that was not there,
/// and the one that these are made in, as `ensure_directory_from_template` has it.
fn directory<F: Trees>(files: &mut F, from: &At, to: &At, path: &str) -> Result<(), Fault<F::Error>> {
    let mut there = 0;
    let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
    let parts: Vec<&str> = ends.iter().filter_map(|end| path.get(..*end)).collect();
    for part in &parts {
        match files.node(&to.join(part)).map_err(Fault::Files)? {
            Some(Node::Directory) => there += 1,
            Some(_) => return Err(Fault::Merge((*part).into())),
            None => break,
        }
    }
    let first = there.min(parts.len()).saturating_sub(1);
    for part in parts.iter().skip(first) {
        let (source, target) = (from.join(part), to.join(part));
        files.make_directory(&target, 0o700).map_err(Fault::Files)?;
        let mut meta = files.meta(&source).map_err(Fault::Files)?;
        for (name, value) in files.meta(&target).map_err(Fault::Files)?.attributes {
            if !meta.attributes.iter().any(|(have, _)| *have == name) {
                meta.attributes.push((name, value));
            }
        }
        files.dress(&target, &meta).map_err(Fault::Files)?;
        files.touch(&target).map_err(Fault::Files)?;
    }
    Ok(())
}
