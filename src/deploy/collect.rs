//! Removes objects that nothing reaches, as `ostree_sysroot_cleanup_prune_repo`: what a ref, a deployment or an unfinished
//! pull needs stays. Where an object on the way is missing or damaged, nobody knows what it needed, and nothing goes.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::ostree::object::{Checksum, Kind};
use crate::ostree::tree::DirTree;
use crate::repo::REPO;
use crate::storage::{At, Node, Trees, Volume};

use super::Fault;
use super::objects::Objects;

/// More objects than this are not kept in mind: then nothing is removed. Each takes about 50 bytes.
pub const OBJECTS_MAX: usize = 2_000_000;
/// Directories of refs in each other.
const DEPTH_MAX: usize = 32;

/// Every object that something needs.
type Needed = BTreeSet<(Kind, Checksum)>;

/// What is removed, in this order: commits, then trees, then the rest, so that a cut leaves nothing that looks whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Garbage {
    /// The objects.
    pub objects: Vec<(Kind, Checksum)>,
    /// Those that stay.
    pub kept: usize,
    /// Bytes that the objects take, links of deployments to them not counted.
    pub bytes: u64,
}

/// Finds what nothing reaches; nothing is written. `deployed` are the commits of the deployments.
///
/// # Errors
/// When it cannot be told what is needed.
pub fn find<F: Trees>(files: &mut F, deployed: &[String]) -> Result<Garbage, Fault<F::Error>> {
    let objects = Objects::open(files)?;
    let mut needed = Needed::new();
    let partial = partial(files)?;
    let mut roots: BTreeSet<Checksum> = refs(files)?;
    roots.extend(deployed.iter().filter_map(|commit| Checksum::parse(commit)));
    roots.extend(partial.iter().copied());
    // The unfinished ones last: what they lack must not pass for seen when a whole one asks for it.
    let (unfinished, whole): (Vec<Checksum>, Vec<Checksum>) =
        roots.into_iter().partition(|root| partial.contains(root));
    for root in whole {
        mark(files, &objects, root, false, &mut needed)?;
    }
    for root in unfinished {
        mark(files, &objects, root, true, &mut needed)?;
    }
    sweep(files, &needed)
}

fn unknown<E>(why: String) -> Fault<E> {
    Fault::Unknown(why)
}

/// The commits whose pull is not finished.
fn partial<F: Trees>(files: &mut F) -> Result<BTreeSet<Checksum>, Fault<F::Error>> {
    let at = At::root(format!("{REPO}/state"));
    if files.node(&at).map_err(Fault::Files)?.is_none() {
        return Ok(BTreeSet::new());
    }
    let names = files.names(&at).map_err(Fault::Files)?;
    Ok(names.iter().filter_map(|n| Checksum::parse(n.strip_suffix(".commitpartial")?)).collect())
}

fn refs<F: Trees>(files: &mut F) -> Result<BTreeSet<Checksum>, Fault<F::Error>> {
    let mut found = BTreeSet::new();
    let mut stack = vec![(At::root(format!("{REPO}/refs")), 0)];
    while let Some((at, depth)) = stack.pop() {
        match files.node(&at).map_err(Fault::Files)? {
            Some(Node::Directory) if depth > DEPTH_MAX => return Err(Fault::TooDeep(DEPTH_MAX)),
            Some(Node::Directory) => {
                let names = files.names(&at).map_err(Fault::Files)?;
                stack.extend(names.iter().map(|name| (at.join(name), depth + 1)));
            }
            // An alias names another ref, which is there as well.
            Some(Node::Link) => {}
            Some(Node::File) => {
                let text = files.read(&at, 4096).map_err(Fault::Files)?;
                let text = String::from_utf8(text).unwrap_or_default();
                let commit = Checksum::parse(text.trim_end());
                found.insert(commit.ok_or_else(|| unknown(format!("{at} names no commit")))?);
            }
            Some(Node::Other) | None => {}
        }
    }
    Ok(found)
}

/// Marks a commit and all that it needs. A commit that is not there needs nothing; one whose pull is not finished may
/// lack any object.
fn mark<F: Trees>(
    files: &mut F,
    objects: &Objects,
    commit: Checksum,
    partial: bool,
    needed: &mut Needed,
) -> Result<(), Fault<F::Error>> {
    let commit = match objects.commit(files, &commit) {
        Err(Fault::Missing(..)) => return Ok(()),
        Err(e @ (Fault::Damaged(..) | Fault::Form(..))) => return Err(damaged(e)),
        read => read?,
    };
    needed.insert((Kind::Commit, commit.checksum()));
    needed.insert((Kind::DirMeta, commit.root_meta()));
    let mut stack = vec![commit.root_tree()];
    while let Some(name) = stack.pop() {
        needed.insert((Kind::DirTree, name));
        let data = match objects.tree(files, &name) {
            Err(Fault::Missing(..)) if partial => continue,
            Err(e @ (Fault::Missing(..) | Fault::Damaged(..) | Fault::Form(..) | Fault::TwoThings(..))) => {
                return Err(damaged(e));
            }
            read => read?,
        };
        let tree = DirTree::parse(&data).map_err(|why| damaged(Fault::Form(name, Kind::DirTree, why)))?;
        for (_, file) in tree.files() {
            needed.insert((Kind::File, file));
        }
        for (_, tree, meta) in tree.directories() {
            needed.insert((Kind::DirMeta, meta));
            if !needed.contains(&(Kind::DirTree, tree)) {
                stack.push(tree);
            }
        }
        if needed.len() > OBJECTS_MAX {
            return Err(unknown(format!("more than {OBJECTS_MAX} objects")));
        }
    }
    Ok(())
}

fn damaged<E>(fault: Fault<E>) -> Fault<E> {
    let why = match fault {
        Fault::Missing(name, kind) => format!("object {name}.{} is missing", kind.extension()),
        Fault::Damaged(name, kind) => format!("object {name}.{} is damaged", kind.extension()),
        Fault::Form(name, kind, why) => format!("object {name}.{}: {why}", kind.extension()),
        other => return other,
    };
    unknown(why)
}

fn sweep<F: Trees>(files: &mut F, needed: &Needed) -> Result<Garbage, Fault<F::Error>> {
    let mut garbage = Garbage::default();
    let above = At::root(format!("{REPO}/objects"));
    for directory in files.names(&above).map_err(Fault::Files)? {
        if directory.len() != 2 {
            continue;
        }
        let at = above.join(&directory);
        for name in files.names(&at).map_err(Fault::Files)? {
            let Some((kind, checksum)) = object(&directory, &name) else { continue };
            if needed.contains(&(kind, checksum)) {
                garbage.kept += 1;
                continue;
            }
            garbage.bytes += files.look(&at.join(&name)).map_err(Fault::Files)?.map_or(0, |l| l.length);
            garbage.objects.push((kind, checksum));
            if garbage.objects.len() > OBJECTS_MAX {
                return Err(unknown(format!("more than {OBJECTS_MAX} objects")));
            }
        }
    }
    garbage.objects.sort_by_key(|(kind, checksum)| {
        let rank = [Kind::Commit, Kind::DirTree, Kind::DirMeta].iter().position(|k| k == kind);
        (rank.unwrap_or(usize::MAX), *checksum)
    });
    Ok(garbage)
}

/// The object that a file of the repository is; detached metadata goes with its commit.
fn object(directory: &str, name: &str) -> Option<(Kind, Checksum)> {
    let (rest, extension) = name.rsplit_once('.')?;
    let kinds = [Kind::Commit, Kind::DirTree, Kind::DirMeta, Kind::File];
    let kind = kinds.into_iter().find(|kind| kind.extension() == extension)?;
    Some((kind, Checksum::parse(&format!("{directory}{rest}"))?))
}

/// Removes it. A repetition is a repetition.
///
/// # Errors
/// When the medium refuses; what is left is found again.
pub fn remove<F: Trees>(files: &mut F, garbage: &Garbage) -> Result<(), Fault<F::Error>> {
    let mut last = None;
    for (kind, checksum) in &garbage.objects {
        // Whoever finds a commit relies on its trees, and so on down: the upper ones are gone before the lower ones go.
        if last.is_some_and(|last| last != *kind) {
            files.sync(Volume::Root).map_err(Fault::Files)?;
        }
        last = Some(*kind);
        let mut places = vec![crate::ostree::object::path(checksum, *kind)];
        if *kind == Kind::Commit {
            places.push(crate::ostree::object::path(checksum, Kind::CommitMeta));
            places.push(format!("{REPO}/state/{}.commitpartial", checksum));
        }
        for place in places.into_iter().rev() {
            let at = At::root(place);
            if files.node(&at).map_err(Fault::Files)?.is_some() {
                files.unlink(&at).map_err(Fault::Files)?;
            }
        }
    }
    if garbage.objects.is_empty() { Ok(()) } else { files.sync(Volume::Root).map_err(Fault::Files) }
}
