//! What the workers of a pull share: what is needed, what is aside, how far it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ostree::object::{Checksum, Kind};
use crate::storage::Room;

use super::walk::{Walk, Want};
use super::{Error, Options, Progress};

/// So many objects aside, or bytes, or as long as [`Options::durable`]: then they get their places, and a power cut costs
/// none of them.
const ASIDE_OBJECTS: usize = 512;
const ASIDE_BYTES: u64 = 16 << 20;
/// Bytes that stay free on the device.
pub(super) const RESERVE: u64 = 8 << 20;
/// Files that can still be made on the device, at least.
pub(super) const RESERVE_FILES: u64 = 64;
/// How often whoever waits looks whether it is to stop.
const TICK: Duration = Duration::from_millis(200);

pub(super) struct Session<'a, E> {
    pub(super) options: &'a Options,
    shared: Mutex<Shared<E>>,
    changed: Condvar,
}

struct Shared<E> {
    walk: Walk,
    aside: Vec<(Checksum, Kind)>,
    aside_bytes: u64,
    /// When what came was made durable last.
    synced: Instant,
    parts: BTreeMap<Checksum, u64>,
    /// Objects that came damaged once.
    damaged: BTreeSet<Checksum>,
    free: u64,
    /// The first object that the server does not have, where others may have it.
    lacks: Option<Error<E>>,
    failures: u32,
    /// Whether anything had to be asked for.
    asked: bool,
    /// The server wants to be left alone until then.
    until: Option<Instant>,
    progress: Progress,
    error: Option<Error<E>>,
}

/// What there is to do for a worker.
pub(super) enum Next {
    /// This object.
    Want(Want),
    /// Nothing yet: a directory that is under way may name something.
    Later,
    /// Nothing any more.
    Done,
}

impl<'a, E> Session<'a, E> {
    pub(super) fn new(options: &'a Options, walk: Walk, parts: Vec<(Checksum, u64)>, room: Room) -> Self {
        let shared = Shared {
            walk,
            aside: Vec::new(),
            aside_bytes: 0,
            synced: Instant::now(),
            parts: parts.into_iter().collect(),
            damaged: BTreeSet::new(),
            free: room.bytes.saturating_sub(RESERVE),
            lacks: None,
            failures: 0,
            asked: false,
            until: None,
            progress: Progress::default(),
            error: None,
        };
        Session { options, shared: Mutex::new(shared), changed: Condvar::new() }
    }

    fn shared(&self) -> MutexGuard<'_, Shared<E>> {
        // A panic ends the process, so that nothing is ever left half done.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is next for a worker that has so many under way already: no more than its share, so that none waits in one
    /// connection while another one has nothing to do.
    pub(super) fn next(&self, held: usize) -> Next {
        let mut shared = self.shared();
        if self.options.stop.is_set() {
            shared.error.get_or_insert(stopped());
        }
        if shared.error.is_some() {
            return Next::Done;
        }
        if shared.walk.is_done() {
            return Next::Done;
        }
        if shared.until.is_some_and(|until| Instant::now() < until) {
            return Next::Later;
        }
        if held > 0 && held >= shared.walk.left().div_ceil(self.options.channels.max(1)) {
            return Next::Later;
        }
        shared.walk.next_want().map_or(Next::Later, Next::Want)
    }

    /// The server said for how long it wants to be left alone: nobody asks it for anything before that.
    pub(super) fn hold(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut shared = self.shared();
        shared.until = Some(shared.until.map_or(until, |old| old.max(until)));
    }

    /// Something is asked for.
    pub(super) fn asked(&self) {
        if !std::mem::replace(&mut self.shared().asked, true) {
            self.changed.notify_all();
        }
    }

    /// Whether anything had to be asked for so far.
    pub(super) fn has_asked(&self) -> bool {
        self.shared().asked
    }

    /// Waits until something changed, or for a short while.
    pub(super) fn wait(&self) {
        let shared = self.shared();
        if shared.error.is_none() && !shared.walk.is_done() {
            let _ = self.changed.wait_timeout(shared, TICK);
        }
    }

    /// Waits for a time, or until the pull has ended.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut shared = self.shared();
        while shared.error.is_none() && !shared.walk.is_done() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.options.stop.is_set() {
                return;
            }
            let left = left.min(TICK);
            shared = self.changed.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The server does not have an object that was under way; the others are asked for all the same.
    pub(super) fn lacks(&self, missing: Error<E>) {
        let mut shared = self.shared();
        shared.walk.pass_over();
        shared.lacks.get_or_insert(missing);
        drop(shared);
        self.changed.notify_all();
    }

    pub(super) fn give_back(&self, want: Want) {
        self.shared().walk.give_back(want);
        self.changed.notify_one();
    }

    /// An object is in the repository, or aside; of metadata the bytes.
    pub(super) fn arrived(&self, want: &Want, data: &[u8]) -> Result<(), Error<E>> {
        let mut shared = self.shared();
        shared.failures = 0;
        shared.progress.objects += 1;
        shared.walk.arrived(want, data).map_err(Error::Walk)?;
        shared.progress.known = shared.walk.known() as u64;
        shared.progress.whole = !shared.walk.is_open();
        drop(shared);
        self.changed.notify_all();
        Ok(())
    }

    /// An object was written aside; what is to get its place now, if it is time.
    pub(super) fn aside(&self, want: &Want, bytes: u64) -> Option<Vec<(Checksum, Kind)>> {
        let mut shared = self.shared();
        shared.aside.push((want.name, want.kind));
        shared.aside_bytes += bytes;
        shared.free = shared.free.saturating_sub(bytes);
        shared.progress.fetched += 1;
        let due = shared.aside.len() >= self.options.aside.min(ASIDE_OBJECTS)
            || shared.aside_bytes >= ASIDE_BYTES
            || shared.synced.elapsed() >= self.options.durable;
        due.then(|| shared.take())
    }

    /// Everything that is aside.
    pub(super) fn rest(&self) -> Vec<(Checksum, Kind)> {
        self.shared().take()
    }

    /// What is free on the device, measured anew.
    pub(super) fn measured(&self, room: Room) -> Result<(), Error<E>> {
        self.shared().free = room.bytes.saturating_sub(RESERVE);
        if room.files.is_some_and(|files| files < RESERVE_FILES) { Err(Error::NoFiles) } else { Ok(()) }
    }

    pub(super) fn free(&self) -> u64 {
        self.shared().free
    }

    pub(super) fn received(&self, bytes: usize) {
        self.shared().progress.bytes += bytes as u64;
    }

    /// A piece of a large object was written; whether it is time to make that durable.
    pub(super) fn is_due(&self) -> bool {
        let mut shared = self.shared();
        let due = shared.synced.elapsed() >= self.options.durable;
        if due {
            shared.synced = Instant::now();
        }
        due
    }

    /// Bytes of an object that are here from an earlier try.
    pub(super) fn part(&self, name: &Checksum) -> Option<u64> {
        self.shared().parts.get(name).copied().filter(|length| *length > 0)
    }

    /// Parts of objects that are left.
    pub(super) fn parts(&self) -> Vec<(Checksum, u64)> {
        self.shared().parts.iter().map(|(name, length)| (*name, *length)).collect()
    }

    pub(super) fn set_part(&self, name: &Checksum, length: Option<u64>) {
        let mut shared = self.shared();
        match length {
            Some(length) => shared.parts.insert(*name, length),
            None => shared.parts.remove(name),
        };
    }

    /// Whether this object came damaged for the first time.
    pub(super) fn first_damage(&self, name: &Checksum) -> bool {
        self.shared().damaged.insert(*name)
    }

    /// How often in a row nothing came, this time included.
    pub(super) fn failed(&self) -> u32 {
        let mut shared = self.shared();
        shared.failures = shared.failures.saturating_add(1);
        shared.failures
    }

    /// Ends the pull; the first error counts.
    pub(super) fn stop(&self, error: Error<E>) {
        self.shared().error.get_or_insert(error);
        self.changed.notify_all();
    }

    pub(super) fn error(&self) -> Option<Error<E>> {
        let mut shared = self.shared();
        shared.error.take().or_else(|| shared.lacks.take())
    }

    pub(super) fn progress(&self) -> Progress {
        self.shared().progress
    }

    /// Waits until the pull has ended or for a while; true when it has.
    pub(super) fn watch(&self, time: Duration) -> bool {
        let shared = self.shared();
        let ended = |shared: &Shared<E>| shared.error.is_some() || shared.walk.is_done();
        if ended(&shared) {
            return true;
        }
        let shared = self.changed.wait_timeout(shared, time).unwrap_or_else(PoisonError::into_inner).0;
        ended(&shared)
    }
}

fn stopped<E>() -> Error<E> {
    Error::Fetch { path: String::new(), cause: crate::fetch::Error::Stopped }
}

impl<E> Shared<E> {
    fn take(&mut self) -> Vec<(Checksum, Kind)> {
        self.aside_bytes = 0;
        self.synced = Instant::now();
        std::mem::take(&mut self.aside)
    }
}
