//! A commit's tree as a directory: hard links to its objects, and directories of its own.
//!
//! As `ostree_repo_checkout_at` with the options of `checkout_deployment_tree`: links to files and symbolic links; a copy
//! of each empty file, which would run out of links first, and where no link can be made; whiteouts of overlayfs, which
//! a commit has as empty files named `.ostree-wh.NAME`.

use alloc::vec;

use crate::ostree::Commit;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::tree::{DirTree, Meta};
use crate::storage::{At, Node, Trees};

use super::Fault;
use super::copy::{self, DEPTH_MAX, ENTRIES_MAX};
use super::objects::Objects;

const WHITEOUT: &str = ".ostree-wh.";
/// Who is told is told every so many files.
const PACE: u64 = 500;

enum Work {
    Enter { at: At, tree: Checksum, meta: Checksum, depth: usize },
    Leave(At, Meta),
}

/// Checks a commit out to a place where nothing is. `progress` is told how many entries there are so far.
///
/// # Errors
/// When an object is missing or damaged, or the medium refuses. What was made by then is no deployment.
pub fn checkout<F: Trees>(
    files: &mut F,
    objects: &mut Objects,
    commit: &Commit,
    to: &At,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, Fault<F::Error>> {
    subtree(files, objects, (commit.root_tree(), commit.root_meta()), to, progress)
}

/// Checks a directory of a commit out, by its dirtree and dirmeta.
///
/// # Errors
/// As [`checkout`].
pub fn subtree<F: Trees>(
    files: &mut F,
    objects: &mut Objects,
    (tree, meta): (Checksum, Checksum),
    to: &At,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, Fault<F::Error>> {
    let mut stack = vec![Work::Enter { at: to.clone(), tree, meta, depth: 0 }];
    let mut count = 0;
    while let Some(work) = stack.pop() {
        let (at, tree, meta, depth) = match work {
            Work::Enter { at, tree, meta, depth } => (at, tree, meta, depth),
            Work::Leave(at, meta) => {
                files.dress(&at, &meta).map_err(Fault::Files)?;
                continue;
            }
        };
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        let meta = objects.meta(files, &meta)?;
        files.make_directory(&at, 0o700).map_err(Fault::Files)?;
        stack.push(Work::Leave(at.clone(), meta));
        let data = objects.tree(files, &tree)?;
        let tree = DirTree::parse(&data).map_err(|why| Fault::Form(tree, Kind::DirTree, why))?;
        for (name, checksum) in tree.files() {
            place(files, objects, &checksum, &at, name)?;
            count += 1;
            if count % PACE == 0 {
                progress(count);
            }
        }
        for (name, tree, meta) in tree.directories() {
            stack.push(Work::Enter { at: at.join(name), tree, meta, depth: depth + 1 });
            count += 1;
        }
        if count > ENTRIES_MAX {
            return Err(Fault::TooMany(ENTRIES_MAX));
        }
    }
    progress(count);
    Ok(count)
}

/// The name that [`place`] gave what it made.
///
/// # Errors
/// When that cannot be told.
pub fn placed<'n, F: Trees>(files: &mut F, above: &At, name: &'n str) -> Result<&'n str, Fault<F::Error>> {
    let there = files.node(&above.join(name)).map_err(Fault::Files)?.is_some();
    Ok(if there { name } else { name.strip_prefix(WHITEOUT).unwrap_or(name) })
}

/// Makes a file or link of a commit in a directory.
///
/// # Errors
/// When its object is missing, or the medium refuses.
pub fn place<F: Trees>(
    files: &mut F,
    objects: &Objects,
    checksum: &Checksum,
    above: &At,
    name: &str,
) -> Result<(), Fault<F::Error>> {
    let content = objects.content(files, checksum)?;
    let to = above.join(name);
    let file = content.look.node == Node::File;
    if file && let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|hidden| !hidden.is_empty()) {
        let meta = objects.file_meta(files, checksum, &content)?;
        return files.whiteout(&above.join(hidden), &meta).map_err(Fault::Files);
    }
    let empty = file && content.look.length == 0;
    // A filesystem allows only so many links to a file; where the copy fails too, that says why.
    if !objects.user && !empty && files.hard_link(&content.at, &to).is_ok() {
        return Ok(());
    }
    let meta = objects.file_meta(files, checksum, &content)?;
    if objects.user && meta.mode & crate::ostree::tree::TYPE_BITS == 0o120_000 {
        let text = objects.target(files, checksum, &content)?;
        return files.symlink_with(&to, &text, &meta).map_err(Fault::Files);
    }
    copy::file(files, &content.at, &to, &meta, copy::Times::Zero)?;
    Ok(())
}
