//! A static delta in place of thousands of objects, where the server has one from what is here, or from nothing.
//!
//! It is a shortcut and no more: whatever is wrong with it is told, and the objects are fetched one by one. A part that
//! was interrupted is gone on with; what a part made has its place before the next one is asked for.

use std::collections::BTreeSet;
use std::path::Path;

use log::warn;

use crate::fetch::Transport;
use crate::ostree::delta::payload::Memory;
use crate::ostree::delta::scratch::Disk;
use crate::ostree::delta::{ApplyError, Delta, Name, Objects, Part, Superblock, apply_part};
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::sign::VerifiedCommit;
use crate::ostree::tree::Meta;
use crate::repo::store::{self, Draft, File, Store};
use crate::storage::{Trees, Volume};

use super::head::Asking;
use super::session::RESERVE;
use super::way::Chosen;
use super::{Error, Progress};

/// Applies a delta to a commit. `Ok` says nothing of whether any object came.
pub(super) fn take<T: Transport, F: Trees>(
    asking: &mut Asking<'_, T>,
    store: &mut Store<F>,
    commit: &VerifiedCommit,
    (name, data): &Chosen,
    scratch: &Path,
    (progress, tell): (&mut Progress, &mut dyn FnMut(&Progress)),
) -> Result<(), Error<F::Error>> {
    let superblock = match Superblock::parse(data, *name) {
        Ok(superblock) => superblock,
        Err(e) => return passed(name, &e),
    };
    let Some(delta) = superblock.verified(commit) else { return Ok(()) };
    if !fits(store, &delta)? {
        return passed(name, &"there is no room to unpack it");
    }
    progress.known = delta.parts().map(|part| part.count() as u64).sum();
    progress.whole = false;
    for part in delta.parts() {
        if is_here(store, &part).map_err(Error::Store)? {
            progress.objects += part.count() as u64;
            continue;
        }
        if !one(asking, store, &delta, &part, scratch, progress)? {
            return Ok(());
        }
        tell(progress);
    }
    Ok(())
}

/// Whether there is room for what its missing parts make, and for the largest of them, packed and unpacked, besides. What
/// it makes is bounded by what it says here.
fn fits<F: Trees>(store: &mut Store<F>, delta: &Delta<'_>) -> Result<bool, Error<F::Error>> {
    let (mut made, mut largest) = (0u64, 0u64);
    for part in delta.parts() {
        if !is_here(store, &part).map_err(Error::Store)? {
            made = made.saturating_add(part.usize);
            largest = largest.max(part.size.saturating_add(part.usize));
        }
    }
    let room = store.files().room(Volume::Root).map_err(|e| Error::Store(store::Error::Files(e)))?;
    Ok(made.saturating_add(largest) <= room.bytes.saturating_sub(RESERVE))
}

/// The objects are fetched by themselves then.
fn passed<E>(name: &Name, why: &dyn std::fmt::Display) -> Result<(), Error<E>> {
    warn!("static delta {name}: {why}; its objects are fetched one by one");
    Ok(())
}

fn is_here<F: Trees>(store: &mut Store<F>, part: &Part<'_>) -> Result<bool, store::Error<F::Error>> {
    for (kind, name) in part.objects() {
        if !store.has(&name, kind)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fetches and applies a part; false when it is of no use.
fn one<T: Transport, F: Trees>(
    asking: &mut Asking<'_, T>,
    store: &mut Store<F>,
    delta: &Delta<'_>,
    part: &Part<'_>,
    scratch: &Path,
    progress: &mut Progress,
) -> Result<bool, Error<F::Error>> {
    let unusable = |why: &dyn std::fmt::Display| {
        passed::<F::Error>(delta.name(), &format!("part {}: {why}", part.number)).map(|()| false)
    };
    if part.inline.is_none() {
        let path = delta.name().part(part.number);
        if let Err(e) = asking.keep(store, &path, &part.checksum, part.size, &mut progress.bytes) {
            return match e {
                Error::Store(_) => Err(e),
                e => unusable(&e),
            };
        }
    }
    let mut making = Making { store, made: BTreeSet::new() };
    let applied =
        Disk::scratch(scratch).map_err(ApplyError::Unreadable).and_then(|mut room| match part.inline {
            Some(inline) => apply_part(&mut making, part, &mut Memory::new(inline), &mut room),
            None => {
                let file = scratch.join(format!("{}.{}", part.checksum, store::PART));
                let mut file = Disk::open(&file).map_err(ApplyError::Unreadable)?;
                apply_part(&mut making, part, &mut file, &mut room)
            }
        });
    let made: Vec<(Checksum, Kind)> = making.made.into_iter().collect();
    // What it made is whole, also when the rest of it is damaged.
    store.publish(&made).map_err(Error::Store)?;
    store.forget_part(&part.checksum).map_err(Error::Store)?;
    progress.fetched += made.len() as u64;
    progress.objects += part.count() as u64;
    match applied {
        Ok(_) => Ok(true),
        Err(ApplyError::Objects(e @ store::Error::Files(_))) => Err(Error::Store(e)),
        Err(ApplyError::Objects(e)) => unusable(&e),
        Err(e) => unusable(&Told(e)),
    }
}

/// An error of a part, in words.
struct Told<E>(ApplyError<store::Error<E>, std::io::Error>);

impl<E: std::fmt::Display> std::fmt::Display for Told<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The repository, and what was made in it and has no place yet.
struct Making<'s, F: Trees> {
    store: &'s mut Store<F>,
    made: BTreeSet<(Checksum, Kind)>,
}

impl<F: Trees> Making<'_, F> {
    fn kept(&mut self, done: Result<(), store::Error<F::Error>>, name: &Checksum, kind: Kind) -> Stored<F> {
        done?;
        self.made.insert((*name, kind));
        Ok(())
    }
}

type Stored<F> = Result<(), store::Error<<F as crate::storage::Files>::Error>>;

impl<F: Trees> Objects for Making<'_, F> {
    type Error = store::Error<F::Error>;
    type Draft = Draft<F::Draft>;
    type Source = F::Source;

    fn has(&mut self, name: &Checksum, kind: Kind) -> Result<bool, Self::Error> {
        Ok(self.made.contains(&(*name, kind)) || self.store.has(name, kind)?)
    }

    fn put(&mut self, name: &Checksum, kind: Kind, data: &[u8]) -> Result<(), Self::Error> {
        let done = self.store.put(name, kind, data);
        self.kept(done, name, kind)
    }

    fn symlink(&mut self, name: &Checksum, meta: &Meta, target: &str) -> Result<(), Self::Error> {
        let done = self.store.symlink(name, meta, target);
        self.kept(done, name, Kind::File)
    }

    fn draft(&mut self, name: &Checksum, meta: &Meta, size: u64) -> Result<Self::Draft, Self::Error> {
        self.store.draft(name, meta, size)
    }

    fn append(&mut self, draft: &mut Self::Draft, data: &[u8]) -> Result<(), Self::Error> {
        self.store.append(draft, data)
    }

    fn discard(&mut self, draft: Self::Draft) -> Result<(), Self::Error> {
        self.store.discard(draft)
    }

    fn seal(&mut self, draft: Self::Draft, name: &Checksum) -> Result<(), Self::Error> {
        let done = self.store.seal(draft, name);
        self.kept(done, name, Kind::File)
    }

    fn open(&mut self, name: &Checksum) -> Result<(Self::Source, u64), Self::Error> {
        match self.store.file(name)? {
            File::Regular(_, source, size) => Ok((source, size)),
            File::Link(..) => Err(store::Error::Changed(*name, Kind::File)),
        }
    }

    fn read_at(
        &mut self,
        source: &mut Self::Source,
        at: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Self::Error> {
        self.store.files().read_at(source, at, buffer).map_err(store::Error::Files)
    }
}
