//! Checksums of files, on threads of their own; the walk gives them the files.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use sha2::{Digest, Sha256};

use crate::ostree::object::Checksum;
use crate::ostree::tree::Meta;
use crate::sys::errno;
use crate::sys::walk::attributes;

use super::run::{Over, State};
use super::{EntryFault, Fault, Faults};

/// More threads than this read no faster from one disk.
const THREADS_MAX: usize = 8;
/// Files that are open and wait for a thread.
const QUEUE_MAX: usize = 32;
/// Bytes that are read at once.
const BUFFER: usize = 128 * 1024;
/// Files with more than one name that are remembered; past that, some are read once more.
const REMEMBERED_MAX: usize = 200_000;

/// A file to be hashed.
pub(super) struct Job {
    pub(super) file: File,
    pub(super) stat: FileStat,
    pub(super) path: String,
    pub(super) expected: Checksum,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Jobs that a thread has taken and not finished.
    busy: usize,
    found: Vec<Bad>,
    threads: usize,
}

/// A file that is not what it should be.
struct Bad {
    inode: u64,
    path: String,
    fault: EntryFault,
}

/// Inodes with more than one name, the repository's among them; their content is hashed once.
#[derive(Default)]
struct Seen {
    /// What an inode's checksum must be.
    expected: BTreeMap<u64, Checksum>,
    /// Further names, where every fault is to be told.
    again: Vec<(u64, String)>,
    /// What was found wrong with an inode.
    bad: BTreeMap<u64, EntryFault>,
}

/// The threads and what they share.
pub(super) struct Hashing {
    queue: Mutex<Queue>,
    changed: Condvar,
    bytes: AtomicU64,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

impl Hashing {
    pub(super) fn new() -> Self {
        Hashing {
            queue: Mutex::default(),
            changed: Condvar::new(),
            bytes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// Starts the threads; where there can be none, the files are hashed as they come.
    pub(super) fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let wanted = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for _ in 0..wanted {
            if Builder::new().spawn_scoped(scope, || self.work()).is_ok() {
                self.queue().threads += 1;
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic ends the process, so that nothing is ever left half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_bytes(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Ends the threads as soon as they can.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Gives a file to the threads, and waits while they have enough.
    pub(super) fn give(&self, state: &mut State<'_>, job: Job) -> Result<(), Over> {
        if job.stat.st_nlink > 1 {
            let mut seen = self.seen();
            match seen.expected.get(&job.stat.st_ino) {
                Some(expected) if *expected == job.expected => {
                    if state.check.faults != Faults::First && seen.again.len() < REMEMBERED_MAX {
                        seen.again.push((job.stat.st_ino, job.path));
                    }
                    return Ok(());
                }
                // One file cannot be two.
                Some(_) => {
                    drop(seen);
                    return state.fault(Fault::Entry(job.path, EntryFault::Changed));
                }
                None if seen.expected.len() < REMEMBERED_MAX => {
                    seen.expected.insert(job.stat.st_ino, job.expected);
                }
                None => {}
            }
        }
        let mut queue = self.queue();
        if queue.threads == 0 {
            drop(queue);
            let bad = self.hash(job, &mut vec![0; BUFFER]);
            self.tell(state, bad)?;
            return state.tick(self.bytes());
        }
        while queue.jobs.len() >= QUEUE_MAX {
            queue = self.wait(queue);
            let found = std::mem::take(&mut queue.found);
            drop(queue);
            self.tell(state, found)?;
            state.tick(self.bytes())?;
            queue = self.queue();
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.changed.notify_all();
        Ok(())
    }

    fn tell(&self, state: &mut State<'_>, found: impl IntoIterator<Item = Bad>) -> Result<(), Over> {
        for Bad { inode, path, fault } in found {
            self.seen().bad.insert(inode, fault);
            state.fault(Fault::Entry(path, fault))?;
        }
        Ok(())
    }

    /// The other names of what was found wrong.
    fn tell_again(&self, state: &mut State<'_>) -> Result<(), Over> {
        let Seen { again, bad, .. } = std::mem::take(&mut *self.seen());
        for (inode, path) in again {
            if let Some(fault) = bad.get(&inode) {
                state.fault(Fault::Entry(path, *fault))?;
            }
        }
        Ok(())
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let waited = self.changed.wait_timeout(queue, Duration::from_millis(250));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until every file that was given is hashed.
    pub(super) fn finish(&self, state: &mut State<'_>) -> Result<(), Over> {
        loop {
            let mut queue = self.queue();
            let mut done = queue.jobs.is_empty() && queue.busy == 0;
            if !done && queue.found.is_empty() {
                queue = self.wait(queue);
                done = queue.jobs.is_empty() && queue.busy == 0;
            }
            let found = std::mem::take(&mut queue.found);
            drop(queue);
            self.tell(state, found)?;
            if done {
                return self.tell_again(state);
            }
            state.tick(self.bytes())?;
        }
    }

    fn work(&self) {
        let mut buffer = vec![0; BUFFER];
        let mut queue = self.queue();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(job) = queue.jobs.pop_front() else {
                queue = self.wait(queue);
                continue;
            };
            queue.busy += 1;
            drop(queue);
            let bad = self.hash(job, &mut buffer);
            queue = self.queue();
            queue.busy -= 1;
            queue.found.extend(bad);
            self.changed.notify_all();
        }
    }

    fn hash(&self, mut job: Job, buffer: &mut [u8]) -> Option<Bad> {
        let fault = match self.checksum(&mut job.file, &job.stat, buffer) {
            Ok(Some(found)) if found == job.expected => return None,
            Ok(Some(_)) => EntryFault::Changed,
            // It was told to stop, for a reason that is known already.
            Ok(None) => return None,
            Err(errno) => EntryFault::Unreadable(errno),
        };
        Some(Bad { inode: job.stat.st_ino, path: job.path, fault })
    }

    fn checksum(
        &self,
        file: &mut File,
        stat: &FileStat,
        buffer: &mut [u8],
    ) -> Result<Option<Checksum>, Errno> {
        let meta =
            Meta { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode, attributes: attributes(file)? };
        let mut hash = Sha256::new();
        hash.update(meta.file_header(b""));
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let length = read(file, buffer)?;
            if length == 0 {
                return Ok(Some(Checksum(hash.finalize().into())));
            }
            hash.update(buffer.get(..length).unwrap_or_default());
            self.add_bytes(length);
        }
    }
}

/// Reads once, whatever interrupts.
pub(super) fn read(file: &mut File, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match file.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.map_err(|e| errno(&e)),
        }
    }
}
