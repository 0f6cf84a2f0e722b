//! A static delta in place of thousands of objects, where the server has one from what is here, or from nothing.
//!
//! It is a shortcut and no more: whatever is wrong with it is told, and the objects are fetched one by one. A part that
//! was interrupted is gone on with. While a part is unpacked the next one is on its way: else the line would wait for the
//! CPU and the CPU for the line.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

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
use super::{Error, Opener, Progress};

/// Applies a delta to a commit. `Ok` says nothing of whether any object came. With `ahead` parts are fetched in a thread
/// of their own.
pub(super) fn take<T: Transport, F: Trees>(
    asking: &mut Asking<'_, T>,
    (store, ahead): (&mut Store<F>, Option<Opener<'_, F>>),
    commit: &VerifiedCommit,
    (name, data): &Chosen,
    scratch: &Path,
    (progress, tell): (&mut Progress, &mut dyn FnMut(&Progress)),
) -> Result<(), Error<F::Error>>
where
    F::Error: Send,
{
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
    let mut missing = Vec::new();
    for part in delta.parts() {
        if is_here(store, &part).map_err(Error::Store)? {
            progress.objects += part.count() as u64;
        } else {
            missing.push(part);
        }
    }
    let apart = missing.iter().filter(|part| part.inline.is_none()).count();
    let Some(open) = ahead.filter(|_| apart > 1) else {
        return parts(&mut Way::Here(asking), store, &delta, &missing, scratch, (progress, tell));
    };
    let (mode, (transport, options)) = (store.mode(), asking.source());
    std::thread::scope(|scope| {
        // One is unpacked, one waits or is under way.
        let (sender, receiver) = sync_channel(0);
        let (list, delta) = (&missing, &delta);
        let fetch = move || {
            let mut store = match open() {
                Ok(files) => Store::new(files, mode, 1),
                Err(e) => return drop(sender.send((Err(Error::Store(store::Error::Files(e))), 0))),
            };
            let mut own = Asking::new(transport, options);
            for part in list.iter().filter(|part| part.inline.is_none()) {
                let mut bytes = 0;
                let kept = own.keep(
                    &mut store,
                    &delta.name().part(part.number),
                    &part.checksum,
                    part.size,
                    &mut bytes,
                );
                let failed = kept.is_err();
                // Whoever applied them wants no more.
                if sender.send((kept, bytes)).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().stack_size(super::STACK).spawn_scoped(scope, fetch);
        let mut way = if thread.is_ok() { Way::Ahead(receiver) } else { Way::Here(asking) };
        parts(&mut way, store, delta, list, scratch, (progress, tell))
    })
}

/// How the file of a part comes here.
enum Way<'w, 'a, T: Transport, E> {
    /// It is asked for when it is its turn.
    Here(&'w mut Asking<'a, T>),
    /// A thread brings one after the other, and says how that went and how many bytes came.
    Ahead(Receiver<(Result<(), Error<E>>, u64)>),
}

fn parts<T: Transport, F: Trees>(
    way: &mut Way<'_, '_, T, F::Error>,
    store: &mut Store<F>,
    delta: &Delta<'_>,
    missing: &[Part<'_>],
    scratch: &Path,
    (progress, tell): (&mut Progress, &mut dyn FnMut(&Progress)),
) -> Result<(), Error<F::Error>> {
    for part in missing {
        if !one(way, store, delta, part, scratch, progress)? {
            break;
        }
        tell(progress);
    }
    Ok(())
}

/// Whether there is room for what its missing parts make, and for the largest of them, packed and unpacked, and another
/// one, packed, besides. What it makes is bounded by what it says here.
fn fits<F: Trees>(store: &mut Store<F>, delta: &Delta<'_>) -> Result<bool, Error<F::Error>> {
    let (mut made, mut largest) = (0u64, 0u64);
    for part in delta.parts() {
        if !is_here(store, &part).map_err(Error::Store)? {
            made = made.saturating_add(part.usize);
            largest = largest.max(part.size.saturating_mul(2).saturating_add(part.usize));
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
    way: &mut Way<'_, '_, T, F::Error>,
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
        let kept = match way {
            Way::Here(asking) => asking.keep(store, &path, &part.checksum, part.size, &mut progress.bytes),
            // It ends before its time only when it could not tell why.
            Way::Ahead(receiver) => receiver.recv().map_or(Err(Error::Missing { path }), |(kept, bytes)| {
                progress.bytes += bytes;
                kept
            }),
        };
        if let Err(e) = kept {
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
