//! Bytes that were typed and must not be left in memory or in a log.

use alloc::vec::Vec;
use core::fmt;

/// A secret with room for a fixed number of bytes, so that it never moves and leaves a copy behind; wiped when it goes.
#[derive(PartialEq, Eq)]
pub struct Secret {
    bytes: Vec<u8>,
    room: usize,
}

impl Secret {
    /// An empty one with room for so many bytes.
    pub fn with_room(room: usize) -> Self {
        Secret { bytes: Vec::with_capacity(room), room }
    }

    /// What it is. Whoever copies it has to wipe the copy.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a byte. `false` when there is no room.
    pub fn push(&mut self, byte: u8) -> bool {
        let fits = self.bytes.len() < self.room;
        if fits {
            self.bytes.push(byte);
        }
        fits
    }

    /// Takes the last byte away.
    pub fn pop(&mut self) -> Option<u8> {
        let byte = *self.bytes.last()?;
        if let Some(last) = self.bytes.last_mut() {
            *last = 0;
        }
        self.bytes.pop();
        Some(byte)
    }

    /// Overwrites and empties it.
    pub fn wipe(&mut self) {
        self.bytes.fill(0);
        // The zeros are looked at, so that writing them is not left out.
        core::hint::black_box(self.bytes.as_mut_slice());
        self.bytes.clear();
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl fmt::Debug for Secret {
    /// Not even its length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
