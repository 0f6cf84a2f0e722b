//! A commit from a server, or from a stick, into the device's repository.
//!
//! ```text
//!   head      which commit a ref names; the commit itself, its signatures, and whether it is let in
//!   way       what is still to come, whether there is room, and the cheapest way: objects or which static delta
//!   delta     a static delta in place of objects
//!   walk      which objects it needs (pure)
//!   work      a worker asks for them over one channel, many at a time ──> incoming ──> repo::store
//!   session   what the workers share: what is needed, what is aside, how far it is
//! ```
//!
//! Nothing is believed: a commit by its signature, every other object by its checksum. Objects that the repository has are
//! not fetched again; whatever ended a pull, the next one goes on with every object that was whole, and in the middle of a
//! large one. The commit has a mark in `state/` until all of its objects have their places; only then the ref is set.
//!
//! `walk` and `incoming` are of the alloc ring by nature, the rest needs threads and a clock.

mod delta;
mod error;
mod head;
pub mod incoming;
mod session;
pub mod walk;
mod way;
mod work;

use std::time::Duration;

use crate::arrange::{Step, carry};
use crate::fetch::{self, Backoff, Retry, Stop, Transport};
use crate::ostree::Commit;
use crate::ostree::object::{COMMITMETA_MAX, Checksum, Kind};
use crate::ostree::sign::VerifiedCommit;
use crate::repo::store::{self, Store};
use crate::repo::{REPO, refs};
use crate::storage::{At, Trees, Volume};

pub use error::Error;
pub use head::{Judge, Wanted, head};

use session::Session;
use walk::Walk;
use work::Worker;

/// The stack of a worker, in bytes.
const STACK: usize = 256 * 1024;
/// How often whoever waits is told.
const TELL: Duration = Duration::from_millis(200);

/// With mirrors, a longer wait than this is not worth it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to pull.
#[derive(Clone, Debug)]
pub struct Options {
    /// Channels to the server, each with a thread of its own; 0 works in the caller's thread.
    pub channels: usize,
    /// After so many objects aside, they get their places; 512 at most.
    pub aside: usize,
    /// Objects from this length on, in bytes as they come, are kept while they come, and gone on with after an
    /// interruption: 1 MiB.
    pub part: u64,
    /// Failures in a row, of all workers together, after which the pull gives up.
    pub tries: u32,
    /// How long to wait after a failure.
    pub backoff: Backoff,
    /// Random numbers for that.
    pub random: fn() -> u32,
    /// What came is durable after this at the latest, also in the middle of a large object: a power cut costs no more than
    /// what comes in this time, what is on its way, and the small objects that were not whole yet, one a channel.
    pub durable: Duration,
    /// Objects that are here are read and checked, and fetched again when damaged.
    pub check: bool,
    /// The directory [`store::STAGING`] of the sysroot, by its path: static deltas are unpacked there. Without one none
    /// is used.
    pub scratch: Option<std::path::PathBuf>,
    /// Somebody else may have it too, or there is another round: a server that wants us to wait long is given up, one that
    /// let us wait long after that was not better, and one that lacks a file object is asked for the others first.
    pub mirrored: bool,
    /// Ends it; what came stays. The transport is to have the same.
    pub stop: Stop,
}

impl Options {
    /// How long to wait before the next try after so many failures in a row; `None` when it is not worth it.
    fn pause(&self, failures: u32, cause: &fetch::Error) -> Option<Duration> {
        let least = match cause.retry() {
            Retry::Never => return None,
            Retry::Now => Duration::ZERO,
            Retry::After(least) => least,
        };
        let long = self.mirrored && least > PATIENCE;
        let tries = if self.mirrored { self.tries.min(cause.tries()) } else { self.tries };
        let enough = failures > tries || long;
        (!enough).then(|| least.max(self.backoff.wait(failures, (self.random)())))
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            channels: 4,
            aside: usize::MAX,
            part: 1 << 20,
            tries: 20,
            backoff: Backoff::default(),
            random: || crate::sys::random::number() as u32,
            durable: Duration::from_secs(5),
            check: false,
            scratch: None,
            mirrored: false,
            stop: Stop::default(),
        }
    }
}

/// How far a pull is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Objects that are here, those that were before included.
    pub objects: u64,
    /// Objects that the commit has, as far as known.
    pub known: u64,
    /// Whether `known` is all of them.
    pub whole: bool,
    /// Objects that came.
    pub fetched: u64,
    /// Bytes of bodies that came.
    pub bytes: u64,
}

impl Progress {
    /// With what came in an earlier try.
    pub fn and(&self, now: &Progress) -> Progress {
        Progress { fetched: self.fetched + now.fetched, bytes: self.bytes + now.bytes, ..*now }
    }
}

/// Opens the device's files; each worker has its own.
pub type Opener<'a, F> = &'a (dyn Fn() -> Result<F, <F as crate::storage::Files>::Error> + Sync);

/// Brings the objects of a commit that was let in, and then sets the ref.
///
/// # Errors
/// See [`Error`]. What came stays for the next time.
pub fn pull<T: Transport, F: Trees>(
    transport: &T,
    store: &mut Store<F>,
    open: Opener<'_, F>,
    (commit, metadata): (&VerifiedCommit, Option<&[u8]>),
    wanted: &Wanted,
    options: &Options,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Progress, Error<F::Error>>
where
    F::Error: Send,
{
    let progress =
        bring(transport, store, open, (commit.commit(), metadata, Some(commit)), options, wanted, tell)?;
    if let Some(reference) = &wanted.reference {
        let name = commit.commit().checksum();
        steps(store, &refs::set(wanted.remote.as_deref(), reference, &name))?;
    }
    tell(&progress);
    Ok(progress)
}

/// A commit that may be damaged here.
#[derive(Clone, Copy)]
pub struct Broken<'a> {
    /// Its name.
    pub name: &'a Checksum,
    /// Whether it has to have detached metadata.
    pub needed: bool,
    /// Says whether detached metadata is that of these bytes of a commit, or why not.
    #[allow(clippy::type_complexity, reason = "named once")]
    pub signed: &'a dyn Fn(&[u8], &[u8]) -> Result<(), String>,
}

/// Brings every object of a commit that is missing or damaged, and of no commit but this one: what is deployed already
/// has its name, and each object is believed by its checksum. Its detached metadata, which has none, is asked for where it is
/// missing or not the commit's. The server is asked for nothing else, and for nothing at all where all is whole.
///
/// # Errors
/// See [`Error`]. What came stays for the next time.
pub fn repair<T: Transport, F: Trees>(
    transport: &T,
    store: &mut Store<F>,
    open: Opener<'_, F>,
    broken: &Broken<'_>,
    options: &Options,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Progress, Error<F::Error>>
where
    F::Error: Send,
{
    store.prepare().map_err(Error::Store)?;
    let (name, mut asking) = (broken.name, head::Asking::new(transport, options));
    let here = match store.has(name, Kind::Commit).map_err(Error::Store)? {
        true => store.metadata(name, Kind::Commit).ok(),
        false => None,
    };
    let (fetched, bytes, data) = match here {
        Some(data) => (0, 0, data),
        None => {
            let data = head::commit(&mut asking, name)?;
            (1, data.len() as u64, data)
        }
    };
    let detached = detached(&mut asking, store, broken, &data);
    drop(asking);
    // Where it cannot be had, the rest is put right all the same.
    let metadata = detached.as_ref().ok().and_then(Option::as_deref);
    let (fetched, bytes) = match metadata {
        Some(metadata) => (fetched + 1, bytes + metadata.len() as u64),
        None => (fetched, bytes),
    };
    let commit = Commit::parse(data).map_err(|why| Error::Refused { commit: *name, why: why.to_string() })?;
    let options = Options { check: true, ..options.clone() };
    let before = Progress { fetched, bytes, ..Progress::default() };
    let mut tell = |now: &Progress| tell(&before.and(now));
    let given = (&commit, metadata, None);
    let progress = bring(transport, store, open, given, &options, &Wanted::default(), &mut tell)?;
    detached.map(|_| before.and(&progress))
}

/// The detached metadata of a commit where that here is missing or not the commit's. Where there need not be any, a server
/// that has none, or nothing that is of use, is no reason to fail.
fn detached<T: Transport, F: Trees>(
    asking: &mut head::Asking<'_, T>,
    store: &mut Store<F>,
    broken: &Broken<'_>,
    commit: &[u8],
) -> Result<Option<Vec<u8>>, Error<F::Error>> {
    let name = broken.name;
    let here = match store.has(name, Kind::CommitMeta).map_err(Error::Store)? {
        true => Some(store.metadata(name, Kind::CommitMeta).unwrap_or_default()),
        false => None,
    };
    if here.as_deref().is_some_and(|metadata| (broken.signed)(commit, metadata).is_ok()) {
        return Ok(None);
    }
    let path = error::path(name, Kind::CommitMeta);
    if here.is_none() && !broken.needed {
        // Most likely nobody has any: not worth more than one try.
        let came = asking.once(&path, COMMITMETA_MAX).ok().flatten();
        return Ok(came.filter(|metadata| (broken.signed)(commit, metadata).is_ok()));
    }
    match asking.get(&path, COMMITMETA_MAX)? {
        None => Err(Error::Missing { path }),
        came if came == here => Ok(None),
        Some(metadata) => match (broken.signed)(commit, &metadata) {
            Ok(()) => Ok(Some(metadata)),
            Err(why) => Err(Error::Refused { commit: *name, why }),
        },
    }
}

/// A commit, what is said of it besides, and itself again where it was let in.
type Given<'c> = (&'c Commit, Option<&'c [u8]>, Option<&'c VerifiedCommit>);

fn bring<T: Transport, F: Trees>(
    transport: &T,
    store: &mut Store<F>,
    open: Opener<'_, F>,
    (commit, metadata, verified): Given<'_>,
    options: &Options,
    wanted: &Wanted,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Progress, Error<F::Error>>
where
    F::Error: Send,
{
    let files = |e| Error::Store(store::Error::Files(e));
    store.prepare().map_err(Error::Store)?;
    let name = commit.checksum();
    let adopted = store.adopt().map_err(Error::Store)?;
    let partial = At::root(format!("{REPO}/state/{name}.commitpartial"));
    let complete = store.has(&name, Kind::Commit).map_err(Error::Store)?
        && store.files().node(&partial).map_err(files)?.is_none();
    // Nothing is begun that cannot be ended.
    let lacking = if complete { None } else { way::lacking(store, commit)? };
    if let Some(lacking) = &lacking {
        lacking.fits(store.files().room(Volume::Root).map_err(files)?)?;
    }
    // Before the commit has its name, whoever looks must know that it is not whole.
    if !complete {
        steps(store, &[Step::Write(partial.clone(), String::new()), Step::Sync(Volume::Root)])?;
    }
    let mut first = Vec::new();
    // What is there already is not written again: a device may ask every hour.
    let known = |store: &mut Store<F>, kind, data: &[u8]| {
        complete && store.metadata(&name, kind).is_ok_and(|d| d == data)
    };
    if let Some(metadata) = metadata.filter(|data| !known(store, Kind::CommitMeta, data)) {
        store.put(&name, Kind::CommitMeta, metadata).map_err(Error::Store)?;
        first.push((name, Kind::CommitMeta));
    }
    if !known(store, Kind::Commit, commit.bytes()) {
        store.put(&name, Kind::Commit, commit.bytes()).map_err(Error::Store)?;
        first.push((name, Kind::Commit));
    }
    store.publish(&first).map_err(Error::Store)?;
    let mut progress = Progress { whole: true, ..Progress::default() };
    let mut stale = adopted.parts.clone();
    if !complete || options.check {
        if let (Some(scratch), Some(commit)) = (options.deltas(complete), verified) {
            let mut asking = head::Asking::new(transport, options);
            let objects = lacking.map(|lacking| lacking.cost);
            if let Some(found) = way::delta(&mut asking, store, commit, wanted, objects, &mut progress)? {
                let ahead = (options.channels > 0).then_some(open);
                delta::take(&mut asking, (store, ahead), commit, &found, scratch, (&mut progress, tell))?;
            }
        }
        let came = progress;
        let room = store.files().room(Volume::Root).map_err(files)?;
        let session = Session::new(options, Walk::new(commit), adopted.parts, room);
        session.measured(room)?;
        objects(&session, transport, open, store, tell)?;
        progress = session.progress();
        progress.fetched += came.fetched;
        progress.bytes += came.bytes;
        store.publish(&session.rest()).map_err(Error::Store)?;
        store.files().sync(Volume::Root).map_err(files)?;
        stale.extend(session.parts());
        steps(store, &[Step::Remove(partial)])?;
    }
    // Parts of objects that are whole meanwhile, or that nobody wants any more.
    let stale: Vec<Step> = stale.iter().map(|(name, _)| Step::Remove(store::part(name))).collect();
    steps(store, &stale)?;
    Ok(progress)
}

fn steps<F: Trees>(store: &mut Store<F>, steps: &[Step]) -> Result<(), Error<F::Error>> {
    carry::steps(store.files(), steps, false).map(drop).map_err(|e| Error::Step(e.to_string()))
}

fn objects<T: Transport, F: Trees>(
    session: &Session<'_, F::Error>,
    transport: &T,
    open: Opener<'_, F>,
    store: &mut Store<F>,
    tell: &mut dyn FnMut(&Progress),
) -> Result<(), Error<F::Error>>
where
    F::Error: Send,
{
    let mode = store.mode();
    if session.options.channels == 0 {
        Worker::new(session, transport, store).run();
    } else {
        std::thread::scope(|scope| {
            for number in 1..=session.options.channels {
                let work = move || match open() {
                    Ok(files) => Worker::new(session, transport, &mut Store::new(files, mode, number)).run(),
                    Err(e) => session.stop(Error::Store(store::Error::Files(e))),
                };
                let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
                if let Err(e) = thread
                    && number == 1
                {
                    session.stop(Error::Thread(format!("no thread can be started: {e}")));
                }
            }
            while !session.watch(TELL) {
                tell(&session.progress());
            }
        });
    }
    tell(&session.progress());
    session.error().map_or(Ok(()), Err)
}
