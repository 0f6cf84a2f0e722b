//! What is still to come of a commit, whether there is room for it, and which way is the cheapest: object by object, a
//! static delta from some commit that is here, or one from nothing.
//!
//! What deltas a server has is found out with few requests. With nothing here there is one that could help, and it is
//! asked for. Else the one from the commit that is followed is tried first, as publishers make that one; then the index
//! of the commit's deltas is asked for, then the summary, which older servers have instead, and without either a few
//! guesses are made. None of it is believed: an odd list costs the delta, and nothing else.

use log::warn;

use crate::fetch::Transport;
use crate::ostree::Commit;
use crate::ostree::delta::choose::{Cost, GUESSES_MAX, Link, Way, candidates, choose, cost};
use crate::ostree::delta::summary::{Deltas, Summary};
use crate::ostree::delta::{Name, Superblock, names};
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::sign::VerifiedCommit;
use crate::ostree::sizes;
use crate::repo::store::{self, Store};
use crate::repo::{REPO, refs};
use crate::storage::{At, Room, Trees};

use super::head::Asking;
use super::session::{RESERVE, RESERVE_FILES};
use super::{Error, Options, Progress, Wanted};

/// The largest superblock that is read, in bytes: it is in memory as a whole.
const SUPERBLOCK_MAX: usize = 8 << 20;
/// The largest summary or index that is read, in bytes.
const LIST_MAX: usize = 4 << 20;
/// Commits of the repository that are looked at.
const COMMITS_MAX: usize = 64;
/// So few objects are not worth a look for a delta.
const FEW: u64 = 8;
/// Of most filesystems, in bytes.
const BLOCK: u64 = 4096;
/// What is taken for the link: nothing was measured yet.
const LINK: Link = Link { rate: 1 << 20, round_trip: 50, width: 64 };

/// What is not here yet, as the commit's own sizes have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lacking {
    pub(super) cost: Cost,
    /// Bytes here, in whole blocks, with the largest object on its way.
    bytes: u64,
    files: u64,
}

/// What a commit lacks; `None` where it does not say what its objects take.
pub(super) fn lacking<F: Trees>(
    store: &mut Store<F>,
    commit: &Commit,
) -> Result<Option<Lacking>, Error<F::Error>> {
    let Some(sizes) = sizes::of(commit) else { return Ok(None) };
    let (mut lacking, mut largest) = (Lacking::default(), 0);
    for size in sizes {
        let kinds = [Kind::File, Kind::DirTree, Kind::DirMeta];
        let mut kinds = kinds.iter().filter(|kind| size.kind.is_none_or(|told| told == **kind));
        let here = kinds.try_fold(false, |here, kind| Ok(here || store.has(&size.name, *kind)?));
        if here.map_err(Error::Store)? {
            continue;
        }
        let add = |sum: u64, one: u64| sum.saturating_add(one);
        lacking.cost.bytes = add(lacking.cost.bytes, size.packed);
        lacking.cost.requests += 1;
        lacking.bytes = add(lacking.bytes, size.unpacked.div_ceil(BLOCK).saturating_mul(BLOCK));
        lacking.files += 1;
        largest = largest.max(size.packed);
    }
    lacking.bytes = lacking.bytes.saturating_add(largest);
    Ok(Some(lacking))
}

impl Lacking {
    /// Whether there is room for it.
    pub(super) fn fits<E>(&self, room: Room) -> Result<(), Error<E>> {
        let free = room.bytes.saturating_sub(RESERVE);
        if self.bytes > free {
            return Err(Error::Room { needed: self.bytes, free });
        }
        match room.files {
            // With the directories that they are in.
            Some(files) if self.files.saturating_add(self.files.min(256) + RESERVE_FILES) > files => {
                Err(Error::NoFiles)
            }
            _ => Ok(()),
        }
    }
}

/// A delta and its superblock.
pub(super) type Chosen = (Name, Vec<u8>);

/// The delta that is the cheapest way, and its superblock; `None` for object by object.
pub(super) fn delta<T: Transport, F: Trees>(
    asking: &mut Asking<'_, T>,
    store: &mut Store<F>,
    commit: &VerifiedCommit,
    wanted: &Wanted,
    objects: Option<Cost>,
    progress: &mut Progress,
) -> Result<Option<Chosen>, Error<F::Error>> {
    if objects.is_some_and(|cost| cost.requests <= FEW) {
        return Ok(None);
    }
    let to = commit.commit().checksum();
    let local = whole(store, wanted, &to)?;
    let mut ways = Ways { asking, commit, found: None, progress };
    let first = Name { from: local.first().copied(), to };
    if !ways.ask::<F::Error>(first) && first.from.is_some() {
        let listed = ways.listed::<F::Error>(&to);
        let all = match &listed {
            Some(known) => candidates(to, &local, Some(&mut known.iter().copied())),
            None => candidates(to, &local, None),
        };
        // One from nothing is worth it only where it is known what the objects take.
        let worth = |name: &&Name| **name != first && (name.from.is_some() || objects.is_some());
        all.iter().filter(worth).take(GUESSES_MAX).any(|name| ways.ask::<F::Error>(*name));
    }
    let Some((name, data)) = ways.found.take() else { return Ok(None) };
    let Ok(superblock) = Superblock::parse(&data, name) else { return Ok(None) };
    let Some(delta) = superblock.verified(commit) else { return Ok(None) };
    let takes = cost(&delta, |kind, name| store.has(name, kind).unwrap_or(false));
    match choose(&LINK, objects, local.is_empty(), &[(name, takes)]) {
        Way::Delta(_) => Ok(Some((name, data))),
        Way::Objects => Ok(None),
    }
}

/// What is found out of a server's deltas.
struct Ways<'w, 'a, T: Transport> {
    asking: &'w mut Asking<'a, T>,
    commit: &'w VerifiedCommit,
    found: Option<Chosen>,
    progress: &'w mut Progress,
}

impl<T: Transport> Ways<'_, '_, T> {
    fn get<E>(&mut self, what: &str, path: &str, limit: usize) -> Option<Vec<u8>> {
        match self.asking.get::<E>(path, limit) {
            Ok(data) => {
                self.progress.bytes += data.as_ref().map_or(0, |data| data.len() as u64);
                data
            }
            Err(e) => {
                warn!("{what}: {}; it is done without", e.cause());
                None
            }
        }
    }

    /// Asks for a superblock; true when there is one that is of use.
    fn ask<E>(&mut self, name: Name) -> bool {
        let what = format!("static delta {name}");
        let Some(data) = self.get::<E>(&what, &name.superblock(), SUPERBLOCK_MAX) else { return false };
        match Superblock::parse(&data, name) {
            Ok(superblock) if superblock.clone().verified(self.commit).is_some() => {
                self.found = Some((name, data));
                true
            }
            Ok(_) => false,
            Err(e) => {
                warn!("{what}: {e}; it is done without");
                false
            }
        }
    }

    /// The deltas to a commit that the server lists; `None` where it does not say.
    fn listed<E>(&mut self, to: &Checksum) -> Option<Vec<Name>> {
        let names = |deltas: &Deltas<'_>| {
            deltas.iter().map(|(name, _)| name).filter(|name| name.to == *to).take(COMMITS_MAX * 4).collect()
        };
        if let Some(data) = self.get::<E>("the index of deltas", &names::index(to), LIST_MAX) {
            match Deltas::index(&data) {
                Ok(deltas) => return Some(names(&deltas)),
                Err(e) => warn!("the index of deltas: {e}"),
            }
        }
        let data = self.get::<E>("summary", "summary", LIST_MAX)?;
        match Summary::parse(&data) {
            // Where it lists none and says that there are indexes, there is no delta to this commit.
            Ok(summary) => summary.deltas().map(names).or_else(|| summary.has_indexes().then(Vec::new)),
            Err(e) => {
                warn!("summary: {e}");
                None
            }
        }
    }
}

/// The commits that are here with all of their objects: the one that is followed first, then the newest.
fn whole<F: Trees>(
    store: &mut Store<F>,
    wanted: &Wanted,
    new: &Checksum,
) -> Result<Vec<Checksum>, Error<F::Error>> {
    let files = |e| Error::Store(store::Error::Files(e));
    let mut followed = None;
    if let Some(reference) = &wanted.reference {
        let at = At::root(format!("{REPO}/{}", refs::path(wanted.remote.as_deref(), reference)));
        if store.files().node(&at).map_err(files)?.is_some() {
            followed = refs::parse(&store.files().read(&at, refs::REF_FILE_MAX).map_err(files)?);
        }
    }
    let mut found = Vec::new();
    for name in store.commits(COMMITS_MAX).map_err(Error::Store)? {
        let partial = At::root(format!("{REPO}/state/{name}.commitpartial"));
        if name == *new || store.files().node(&partial).map_err(files)?.is_some() {
            continue;
        }
        // One that is damaged is of no use, and no reason to fail.
        let Ok(data) = store.metadata(&name, Kind::Commit) else { continue };
        let Ok(commit) = Commit::parse(data) else { continue };
        found.push((Some(name) == followed, commit.time(), name));
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    Ok(found.into_iter().map(|(.., name)| name).collect())
}

impl Options {
    /// Where deltas may be unpacked, for a commit that is not here yet.
    pub(super) fn deltas(&self, complete: bool) -> Option<&std::path::Path> {
        self.scratch.as_deref().filter(|_| !complete)
    }
}
