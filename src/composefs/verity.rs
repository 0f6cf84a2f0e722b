//! The fs-verity digest of a file: SHA-256, blocks of 4,096 bytes, no salt, as libostree and libcomposefs enable it.
//!
//! Format: Documentation/filesystems/fsverity.rst of Linux, "fs-verity descriptor" and "Merkle tree".

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

/// Bytes of a block, of data and of hashes.
const BLOCK: usize = 4096;

/// A digest.
pub type Verity = [u8; 32];

/// Takes a file's content in order.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    /// The data that does not fill a block yet, then hashes of blocks, of hashes of blocks, and so on: each at most a block.
    levels: Vec<Vec<u8>>,
    length: u64,
}

impl Measure {
    /// Takes more of it.
    pub fn update(&mut self, data: &[u8]) {
        self.length += data.len() as u64;
        let mut rest = data;
        while !rest.is_empty() {
            let room = BLOCK - self.levels.first().map_or(0, Vec::len);
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.push(0, now);
            rest = later;
        }
    }

    /// Adds to a level, which has the room; a level that is full goes up.
    fn push(&mut self, level: usize, data: &[u8]) {
        if self.levels.len() == level {
            self.levels.push(Vec::with_capacity(BLOCK));
        }
        let Some(block) = self.levels.get_mut(level) else { return };
        block.extend(data);
        if block.len() == BLOCK {
            self.up(level);
        }
    }

    fn up(&mut self, level: usize) {
        let Some(block) = self.levels.get_mut(level) else { return };
        block.resize(BLOCK, 0);
        let hash = Sha256::digest(&block);
        block.clear();
        self.push(level + 1, &hash);
    }

    /// The digest of what came.
    pub fn digest(mut self) -> Verity {
        let mut root = [0; 32];
        if self.length > 0 {
            let mut level = 0;
            loop {
                // A single hash that has nothing above it is the root.
                let (here, above) = (self.levels.get(level), self.levels.len() - level);
                match here.map(Vec::as_slice) {
                    Some(hash) if level > 0 && above == 1 && hash.len() == root.len() => {
                        root.copy_from_slice(hash);
                        break;
                    }
                    Some([]) => {}
                    Some(_) => self.up(level),
                    None => break,
                }
                level += 1;
            }
        }
        // `struct fsverity_descriptor`: version 1, SHA-256, blocks of 2^12 bytes, no salt.
        let mut descriptor = [0; 256];
        let fields = [1, 1, 12, 0].into_iter().chain([0; 4]).chain(self.length.to_le_bytes()).chain(root);
        descriptor.iter_mut().zip(fields).for_each(|(byte, value)| *byte = value);
        Sha256::digest(descriptor).into()
    }
}
