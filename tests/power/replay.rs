//! Makes the disk of a state, from the disk of the state before.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::blocklog::{Request, SECTOR};
use super::disk::copy;
use super::record::Recording;
use super::states::State;

/// Replays a recording, forwards.
#[derive(Debug)]
pub struct Replay<'a> {
    requests: &'a [Request],
    dir: PathBuf,
    current: File,
    applied: usize,
    made: u64,
}

impl<'a> Replay<'a> {
    /// Begins with the disk before the operation; images are made in `dir`, best a tmpfs.
    ///
    /// # Errors
    /// When there is no room.
    pub fn new(recording: &'a Recording, dir: &Path) -> io::Result<Self> {
        let current = dir.join("current.img");
        copy(&recording.base, &current)?;
        let current = OpenOptions::new().write(true).open(current)?;
        Ok(Replay { requests: &recording.requests, dir: dir.into(), current, applied: 0, made: 0 })
    }

    /// The disk of `state`, in a file of its own name: the kernel may still hold pages of another one. States
    /// come in the order of their [`State::first`].
    ///
    /// # Errors
    /// When there is no room, the state does not exist, or comes too late.
    pub fn make(&mut self, state: &State) -> io::Result<PathBuf> {
        let missing = || io::Error::other(format!("there is no state {state}"));
        if state.first < self.applied {
            return Err(io::Error::other("the states are not in order"));
        }
        for request in self.requests.get(self.applied..state.first).ok_or_else(missing)? {
            self.current.write_all_at(&request.data, request.range.start)?;
        }
        self.applied = state.first;
        let path = self.dir.join(format!("state-{}.img", self.made));
        self.made += 1;
        copy(&self.dir.join("current.img"), &path)?;
        let image = OpenOptions::new().write(true).open(&path)?;
        for part in &state.more {
            let request = self.requests.get(part.request).ok_or_else(missing)?;
            let length = part.sectors.map_or(request.data.len(), |n| (n * SECTOR).min(request.data.len()));
            image.write_all_at(&request.data[..length], request.range.start)?;
        }
        Ok(path)
    }
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.dir.join("current.img"));
    }
}
