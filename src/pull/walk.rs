//! Which objects a commit needs, found out while they come: a directory names what is in it.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use crate::ostree::Commit;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::tree::{DirTree, Meta, TreeError};

/// Directories in each other: more than this are not taken.
pub const DEPTH_MAX: u16 = 128;
/// Objects of one commit: more than this are not taken; each costs some 50 bytes of memory.
pub const OBJECTS_MAX: usize = 500_000;

/// An object that is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// Its checksum.
    pub name: Checksum,
    /// What it is.
    pub kind: Kind,
    /// Of a directory: how deep it was first found.
    depth: u16,
}

/// Why a commit's tree is not followed any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    /// A dirtree or dirmeta object makes no sense, although its checksum is right: it was made so.
    Tree(Checksum, TreeError),
    /// A dirtree has a file and a directory of the same name.
    Twice(Checksum),
    /// More than [`DEPTH_MAX`] directories in each other.
    Depth,
    /// More than [`OBJECTS_MAX`] objects.
    Objects,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalkError::Tree(name, e) => {
                write!(f, "object {name} is wrongly made: {e}; the commit cannot be used")
            }
            WalkError::Twice(name) => {
                write!(f, "object {name} has one name for a file and a directory; the commit cannot be used")
            }
            WalkError::Depth => write!(f, "the commit has more than {DEPTH_MAX} directories in each other"),
            WalkError::Objects => write!(f, "the commit has more than {OBJECTS_MAX} objects"),
        }
    }
}

/// What is known of a commit's tree so far.
#[derive(Debug, Default)]
pub struct Walk {
    /// Directories first, the last found first: they tell what else there is.
    metadata: Vec<Want>,
    content: VecDeque<Want>,
    seen: BTreeSet<(Kind, Checksum)>,
    under_way: usize,
    /// Directories that were named and have not come: each may name more.
    closed: usize,
}

impl Walk {
    /// From the root of a commit.
    pub fn new(commit: &Commit) -> Self {
        let mut walk = Walk::default();
        // Two objects are never too many.
        let _ = walk.need(commit.root_tree(), Kind::DirTree, 0);
        let _ = walk.need(commit.root_meta(), Kind::DirMeta, 0);
        walk
    }

    /// Takes the next object that is needed; it is under way until [`Walk::arrived`] or [`Walk::give_back`].
    pub fn next_want(&mut self) -> Option<Want> {
        let want = self.metadata.pop().or_else(|| self.content.pop_front())?;
        self.under_way += 1;
        Some(want)
    }

    /// An object that was under way and did not come.
    pub fn give_back(&mut self, want: Want) {
        self.under_way = self.under_way.saturating_sub(1);
        match want.kind {
            Kind::DirTree | Kind::DirMeta => self.metadata.push(want),
            _ => self.content.push_front(want),
        }
    }

    /// A file object that was under way will not come this time.
    pub fn pass_over(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// An object is here. Of a metadata object its bytes, whose checksum is right.
    ///
    /// # Errors
    /// When it was made wrongly.
    pub fn arrived(&mut self, want: &Want, data: &[u8]) -> Result<(), WalkError> {
        self.under_way = self.under_way.saturating_sub(1);
        let made = |e| WalkError::Tree(want.name, e);
        match want.kind {
            Kind::DirMeta => Meta::parse(data).map(drop).map_err(made),
            Kind::DirTree => {
                self.closed = self.closed.saturating_sub(1);
                self.directory(want, &DirTree::parse(data).map_err(made)?)
            }
            _ => Ok(()),
        }
    }

    fn directory(&mut self, want: &Want, tree: &DirTree<'_>) -> Result<(), WalkError> {
        if tree.clash().is_some() {
            return Err(WalkError::Twice(want.name));
        }
        for (_, file) in tree.files() {
            self.need(file, Kind::File, 0)?;
        }
        for (_, tree, meta) in tree.directories() {
            self.need(tree, Kind::DirTree, want.depth + 1)?;
            self.need(meta, Kind::DirMeta, 0)?;
        }
        Ok(())
    }

    fn need(&mut self, name: Checksum, kind: Kind, depth: u16) -> Result<(), WalkError> {
        if depth > DEPTH_MAX {
            return Err(WalkError::Depth);
        }
        if !self.seen.insert((kind, name)) {
            return Ok(());
        }
        if self.seen.len() > OBJECTS_MAX {
            return Err(WalkError::Objects);
        }
        let want = Want { name, kind, depth };
        match kind {
            Kind::File => self.content.push_back(want),
            Kind::DirTree => {
                self.closed += 1;
                self.metadata.push(want);
            }
            _ => self.metadata.push(want),
        }
        Ok(())
    }

    /// Whether nothing is needed and nothing under way.
    pub fn is_done(&self) -> bool {
        self.metadata.is_empty() && self.content.is_empty() && self.under_way == 0
    }

    /// Objects that are needed or under way.
    pub fn left(&self) -> usize {
        self.metadata.len() + self.content.len() + self.under_way
    }

    /// Objects known of so far, those that are here included.
    pub fn known(&self) -> usize {
        self.seen.len()
    }

    /// Whether there may be objects that no directory has named yet.
    pub fn is_open(&self) -> bool {
        self.closed > 0
    }
}

#[cfg(test)]
mod tests {
    use gvariant::{Marker, gv};

    use super::*;

    fn tree(files: &[(&str, u8)], directories: &[(&str, u8)]) -> Vec<u8> {
        let sums: Vec<[u8; 32]> = (0..=255).map(|n| [n; 32]).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(n, s)| (*n, &sums[usize::from(*s)][..])).collect();
        let directories: Vec<(&str, &[u8], &[u8])> =
            directories.iter().map(|(n, s)| (*n, &sums[usize::from(*s)][..], &sums[0][..])).collect();
        gv!("(a(say)a(sayay))").serialize_to_vec(&(&files[..], &directories[..]))
    }

    fn walk() -> (Walk, Want) {
        let mut walk = Walk::default();
        walk.need(Checksum([1; 32]), Kind::DirTree, 0).unwrap();
        let want = walk.next_want().unwrap();
        (walk, want)
    }

    #[test]
    fn a_tree_is_followed_to_its_end() {
        let (mut walk, root) = walk();
        // Nothing is to be asked for, and what the root names is not known.
        assert!(!walk.is_done() && walk.is_open() && walk.next_want().is_none());
        walk.arrived(&root, &tree(&[("a", 10), ("b", 10), ("c", 11)], &[("d", 2), ("e", 2)])).unwrap();
        let mut kinds = Vec::new();
        while let Some(want) = walk.next_want() {
            kinds.push((want.kind, want.name.0[0]));
            let meta = Meta { uid: 0, gid: 0, mode: 0o040_755, attributes: Vec::new() }.serialize();
            let data = if want.kind == Kind::DirTree { tree(&[("x", 12)], &[]) } else { meta };
            if kinds.len() == 1 {
                // It did not come, and comes later.
                walk.give_back(want);
            } else {
                walk.arrived(&want, &data).unwrap();
            }
        }
        assert!(walk.is_done() && !walk.is_open());
        assert_eq!(walk.known(), 6);
        kinds.sort();
        kinds.dedup();
        let expected =
            [(Kind::DirTree, 2), (Kind::DirMeta, 0), (Kind::File, 10), (Kind::File, 11), (Kind::File, 12)];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_tree_that_is_made_wrongly_is_refused() {
        let (mut one, root) = walk();
        let error = one.arrived(&root, &tree(&[("a", 10), ("c", 10)], &[("b", 3), ("c", 2)]));
        assert_eq!(error, Err(WalkError::Twice(root.name)));
        let (mut deep, mut want) = walk();
        let mut depth = 0u8;
        let error = loop {
            depth += 1;
            if let Err(e) = deep.arrived(&want, &tree(&[], &[("d", depth + 1)])) {
                break e;
            }
            want = deep.next_want().filter(|w| w.kind == Kind::DirTree).or_else(|| deep.next_want()).unwrap();
        };
        assert_eq!((error, u16::from(depth)), (WalkError::Depth, DEPTH_MAX + 1));
        assert_eq!(walk().0.arrived(&root, b"x"), Err(WalkError::Tree(root.name, TreeError::Form)));
    }
}
