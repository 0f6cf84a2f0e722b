//! The floor: the mark of the newest commit that was ever confirmed here. Nothing older is installed.
//!
//! It is kept twice, in files of the same content, and only a confirmation raises it, one copy after the other, each
//! durable before the next: what a cut leaves is the old floor or the new one. The higher copy counts. A third witness is
//! the ledger, which knows what was confirmed, with the commits that are still in the repository; so a device that was
//! updated from a version without floor has one at once, and losing both files loses little.

#[cfg(not(target_os = "none"))]
use std::path::Path;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::arrange::plan::Step;
use crate::ostree::mark::Mark;
use crate::storage::{At, Volume};

/// The two copies, below the physical root.
pub const PATHS: [&str; 2] = ["ostree/bootward/floor", "ostree/bootward/floor.copy"];

/// What is known of the floor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    /// The floor; [`Mark::default`] where nothing was ever confirmed.
    pub mark: Mark,
    /// What is wrong with its copies, a sentence each. The next confirmation mends it.
    pub warnings: Vec<String>,
    copies: [Option<Vec<u8>>; 2],
}

impl Floor {
    /// From the copies as they are on disk, `None` for one that is not there.
    pub fn of(copies: [Option<Vec<u8>>; 2]) -> Self {
        let mut floor = Floor { copies, ..Floor::default() };
        let one_only = floor.copies.iter().flatten().count() == 1;
        for (copy, path) in floor.copies.iter().zip(PATHS) {
            match copy.as_deref().map(Mark::parse) {
                Some(Some(mark)) => floor.mark = floor.mark.highest(&mark),
                Some(None) => floor.warnings.push(format!("{path} is damaged, the other copy counts")),
                None if one_only => floor.warnings.push(format!("{path} is missing, the other copy counts")),
                None => {}
            }
        }
        floor
    }

    /// The steps after which both copies say `mark`; none where they do.
    pub fn steps(&self, mark: &Mark) -> Vec<Step> {
        let text = mark.text();
        let mut steps = Vec::new();
        for (copy, path) in self.copies.iter().zip(PATHS) {
            if copy.as_deref() != Some(text.as_bytes()) {
                steps.push(Step::Directory(At::root("ostree/bootward"), 0o700));
                steps.push(Step::Write(At::root(path), text.clone()));
                // The other copy is not touched before this one is durable.
                steps.push(Step::Sync(Volume::Root));
            }
        }
        steps
    }
}

/// The mark of a commit of the sysroot.
#[cfg(not(target_os = "none"))]
pub fn mark(tree: &crate::sys::beneath::Beneath, commit: &crate::ostree::Checksum) -> Result<Mark, String> {
    use crate::ostree::object::Kind;
    use crate::ostree::{Commit, read};
    let data = read::object(tree, commit, Kind::Commit)
        .map_err(|e| format!("the object of commit {commit} cannot be read: {e:?}"))?;
    let commit = Commit::parse(data).map_err(|e| format!("{commit}: {e}"))?;
    Mark::of(&commit).map_err(|e| format!("{}: {e}", commit.checksum()))
}

/// The floor of a sysroot: its copies, and what the ledger knows to have been confirmed.
#[cfg(not(target_os = "none"))]
pub fn read(sysroot: &Path) -> Floor {
    use crate::ostree::Checksum;
    use crate::ostree::mark::SIZE_MAX;
    use crate::sys::beneath::Beneath;
    use nix::errno::Errno;
    let Ok(tree) = Beneath::open(sysroot) else { return Floor::default() };
    let mut floor = Floor::of(PATHS.map(|path| match tree.read(path, SIZE_MAX) {
        Ok(content) => Some(content),
        Err(Errno::ENOENT) => None,
        // What is there and cannot be read is damaged.
        Err(_) => Some(Vec::new()),
    }));
    for (id, history) in super::facts::Past::read(sysroot).histories {
        if history.confirmed
            && let Ok(mark) = mark(&tree, &Checksum(id.commit))
        {
            floor.mark = floor.mark.raised(&mark);
        }
    }
    floor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_copy_counts_and_damage_is_told() {
        let old = Mark { serial: Some(4), time: 9, version: None };
        let new = Mark { serial: Some(5), time: 8, version: None };
        let (one, other) = (Some(old.text().into_bytes()), Some(new.text().into_bytes()));
        let floor = Floor::of([one.clone(), other.clone()]);
        assert_eq!((floor.mark.serial, floor.mark.time, floor.warnings.len()), (Some(5), 9, 0));
        assert_eq!(floor.steps(&new).len(), 3);
        for damaged in [None, Some(Vec::new()), Some(b"bootward floor 1\n".to_vec())] {
            for copies in [[damaged.clone(), other.clone()], [other.clone(), damaged.clone()]] {
                let floor = Floor::of(copies);
                assert_eq!((&floor.mark, floor.warnings.len()), (&new, 1));
                assert_eq!(floor.steps(&new).len(), 3);
            }
        }
        assert_eq!(Floor::of([None, None]), Floor::default());
        assert_eq!(Floor::default().steps(&new).len(), 6);
    }
}
