//! How much there is to read, for whoever waits for it.

use std::collections::BTreeSet;

use nix::sys::stat::SFlag;

use crate::sys::beneath::{Beneath, kind};
use crate::sys::walk::Directory;

/// Directories in each other, names in one of them, and files in all: what is beyond is not counted.
const DEPTH_MAX: usize = 128;
const NAMES_MAX: usize = 1_000_000;
const FILES_MAX: u64 = 1_000_000;

/// An estimate of the bytes that [`super::verify`] reads of a deployment at [`super::Level::Full`]. What cannot be
/// read is not counted: the verification will tell.
pub fn measure(sysroot: &Beneath, path: &str) -> u64 {
    let mut count = Count { seen: BTreeSet::new(), files: 0, bytes: 0 };
    if let Ok(root) = Directory::open(sysroot, path) {
        count.directory(&root, 0);
    }
    count.bytes
}

struct Count {
    /// Inodes with more than one name: they are read once.
    seen: BTreeSet<u64>,
    files: u64,
    bytes: u64,
}

impl Count {
    fn directory(&mut self, here: &Directory, depth: usize) {
        for name in here.names(NAMES_MAX).unwrap_or_default() {
            let Ok(stat) = here.stat(&name) else { continue };
            match kind(&stat) {
                SFlag::S_IFREG if self.files < FILES_MAX => {
                    self.files += 1;
                    if stat.st_nlink == 1 || self.seen.insert(stat.st_ino) {
                        self.bytes = self.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
                    }
                }
                // The device's own /etc is not verified.
                SFlag::S_IFDIR if depth < DEPTH_MAX && !(depth == 0 && name.as_c_str() == c"etc") => {
                    if let Ok(inner) = here.enter(&name) {
                        self.directory(&inner, depth + 1);
                    }
                }
                _ => {}
            }
        }
    }
}
