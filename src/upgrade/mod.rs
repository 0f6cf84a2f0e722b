//! From one or several servers to a deployment on trial: what `bootward upgrade` and recovery do.
//!
//! ```text
//!   find     the head of each source: which commit, signed by whom, is it let in; the newest counts   (writes nothing)
//!   fetch    its objects or a static delta, from one source after the other, until all is here
//!   deploy   the deployment, on trial
//!   repair   a deployment that is damaged: what is missing or damaged of it is fetched, and no more
//! ```
//!
//! Several sources are mirrors of each other, and none is trusted more than the others. Each is asked for its head, so
//! that one which holds a new version back does not keep it from us, and the objects come from the first that has the
//! newest commit. A source that fails is left for the next one; in the first round also one that is slow
//! ([`HASTE`]). What came stays, and rounds go on as long as one brings an object.
//!
//! All of it is of the std ring. [`find`] and [`fetch()`] work in a thread of their own, so that whoever called is asked
//! about five times a second whether they are to go on, whatever a server does meanwhile.

mod error;
mod repair;
mod supply;
mod watched;

use std::path::Path;
use std::time::Duration;

use log::warn;

use crate::deploy::act;
use crate::deploy::prepare;
use crate::fetch::{self, AnyTransport, Stop, Url};
use crate::keyfile;
use crate::ostree::Checksum;
use crate::ostree::admit::{Age, Policy, Trust};
use crate::ostree::mark::Mark;
use crate::ostree::sign::VerifiedCommit;
use crate::pull::{self, Progress, Wanted};
use crate::repo::store::STAGING;
use crate::repo::{Config, Store};
use crate::sys::beneath::Beneath;
use crate::sys::files::Disk;
use crate::sys::{lock, mount, time};
use crate::trial::act::Site;
use crate::trial::floor;

pub use error::Error;
pub use repair::{Mending, Repaired, put_right, repair};

use supply::Supply;
use watched::{locked, watched};

/// With several sources the least rate is so many times as high in the first round: one that barely answers does not
/// keep the others from being asked.
pub const HASTE: u64 = 8;
/// So long one of several sources may take to name its commit, whatever it sends meanwhile.
pub const HEAD: Duration = Duration::from_secs(45);

/// What is wanted, from where, and on whose word.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The physical root.
    pub sysroot: &'a Path,
    /// Archive repositories, mirrors of each other.
    pub sources: Vec<Url>,
    /// How they are talked to.
    pub transport: fetch::Options,
    /// Which commit.
    pub wanted: Wanted,
    /// Who must have signed it.
    pub keys: Trust<'a>,
    /// The device's name for its hardware, where it has one.
    pub compatible: Option<&'a str>,
    /// Take a commit that does not say for which refs it was made.
    pub unbound: bool,
    /// An operator wants the commit in `wanted`, although it is older than what was confirmed here.
    pub downgrade: bool,
    /// An operator wants it although it failed here before.
    pub rejected_too: bool,
    /// How old it may be.
    pub age: Age,
    /// Whether a static delta may take the place of objects.
    pub delta: bool,
    /// How it is pulled.
    pub options: pull::Options,
    /// So long is somebody else's lock waited for.
    pub patience: Duration,
}

impl<'a> Request<'a> {
    /// The least that has to be said.
    pub fn new(sysroot: &'a Path, sources: Vec<Url>, wanted: Wanted, keys: impl Into<Trust<'a>>) -> Self {
        Request {
            sysroot,
            sources,
            transport: fetch::Options::default(),
            wanted,
            keys: keys.into(),
            compatible: None,
            unbound: false,
            downgrade: false,
            rejected_too: false,
            age: Age { now: u64::try_from(time::wall()).ok(), ..Age::default() },
            delta: true,
            options: pull::Options::default(),
            patience: Duration::from_secs(60),
        }
    }

    fn supply(&self) -> Supply<'_> {
        Supply { sources: &self.sources, transport: &self.transport, known: None }
    }
}

/// Told how far it is; `false` ends it, and what came stays.
pub type Watch<'w> = &'w mut dyn FnMut(&Progress) -> bool;

/// The newest commit that is let in.
#[derive(Clone, Debug)]
pub struct Found {
    /// The commit.
    pub commit: VerifiedCommit,
    metadata: Option<Vec<u8>>,
    mark: Mark,
    /// Who has it, by the place in [`Request::sources`].
    sources: Vec<usize>,
    /// The one that told it and what ends it: its connection is there still.
    server: (AnyTransport, Stop),
}

impl Found {
    /// Its name.
    pub fn name(&self) -> Checksum {
        self.commit.commit().checksum()
    }
}

/// The configuration of the sysroot's repository.
///
/// # Errors
/// When it cannot be read or understood.
pub fn config(sysroot: &Path) -> Result<Config, Error> {
    const PATH: &str = "ostree/repo/config";
    let tree = Beneath::open(sysroot).map_err(|errno| Error::Unreadable(sysroot.into(), errno))?;
    let data =
        tree.read(PATH, keyfile::MAX_SIZE).map_err(|errno| Error::Unreadable(sysroot.join(PATH), errno))?;
    Config::parse(&data).map_err(Error::Config)
}

/// Finds the commit. Nothing is written.
///
/// # Errors
/// When no source has one that is let in.
pub fn find(request: &Request<'_>, watch: Watch<'_>) -> Result<Found, Error> {
    let config = config(request.sysroot)?;
    let floor = floor::read(request.sysroot);
    floor.warnings.iter().for_each(|warning| warn!("{warning}"));
    let stop = Stop::default();
    watched(&stop, watch, |_| search(request, &config, &floor.mark, &stop))
}

fn search(request: &Request<'_>, config: &Config, floor: &Mark, stop: &Stop) -> Result<Found, Error> {
    let mut best: Option<Found> = None;
    let mut failed = Vec::new();
    for (index, url) in request.sources.iter().enumerate() {
        let own = if request.sources.len() > 1 { stop.within(HEAD) } else { stop.clone() };
        match head(request, config, floor, (url, 1), &options(request, &own)) {
            Ok(found) => {
                // The same commit everywhere: the first that has it will do.
                let any = request.wanted.commit.is_some();
                best = Some(better(best, Found { sources: vec![index], ..found }));
                if let Some(best) = best.as_mut().filter(|_| any) {
                    best.sources.extend((0..request.sources.len()).filter(|other| *other > index));
                    break;
                }
            }
            Err(Error::Stopped) if stop.is_set() => return Err(Error::Stopped),
            Err(Error::Stopped) => failed.push(Error::late(url)),
            Err(e) => failed.push(e),
        }
    }
    if let Some(best) = best {
        failed.iter().for_each(|e| warn!("{e}"));
        return Ok(best);
    }
    Err(Error::of(failed))
}

/// The newer one of two; the first where they are the same.
fn better(best: Option<Found>, found: Found) -> Found {
    match best {
        Some(mut best) if best.name() == found.name() => {
            best.sources.extend(found.sources);
            best
        }
        Some(best) if found.mark.follows(&best.mark).is_err() || best.mark.follows(&found.mark).is_ok() => {
            best
        }
        _ => found,
    }
}

fn head(
    request: &Request<'_>,
    config: &Config,
    floor: &Mark,
    source: (&Url, u64),
    options: &pull::Options,
) -> Result<Found, Error> {
    let server = request.supply().open(source, &options.stop)?;
    let mark = std::cell::RefCell::new(Mark::default());
    let judge = |commit: Vec<u8>, metadata: Option<&[u8]>| {
        let admitted = admit(request, config, floor, commit, metadata)?;
        *mark.borrow_mut() = admitted.mark;
        Ok(admitted.commit)
    };
    let found = pull::head(&server, &request.wanted, &judge, options);
    let (commit, metadata) = found.map_err(|cause| Error::pull(source.0, cause))?;
    let server = (server, options.stop.clone());
    Ok(Found { commit, metadata, mark: mark.into_inner(), sources: Vec::new(), server })
}

fn admit(
    request: &Request<'_>,
    config: &Config,
    floor: &Mark,
    commit: Vec<u8>,
    metadata: Option<&[u8]>,
) -> Result<crate::ostree::admit::Admitted, String> {
    let remote = request.wanted.remote.as_deref();
    let policy = Policy {
        reference: request.wanted.reference.as_deref(),
        unbound: request.unbound,
        collection: remote.and_then(|remote| config.remote(remote, "collection-id")),
        compatible: request.compatible,
        age: request.age,
        exception: request.wanted.commit.filter(|_| request.downgrade),
        ..Policy::new(request.keys, floor)
    };
    let name = Checksum::of(&commit);
    let admitted = policy.admit(&name, commit, metadata).map_err(|e| e.to_string())?;
    if !request.rejected_too {
        // Before anything of it is fetched: a device may ask every hour.
        act::not_rejected(request.sysroot, &name).map_err(|e| e.to_string())?;
    }
    admitted.warnings.iter().for_each(|warning| warn!("{name}: {warning}"));
    Ok(admitted)
}

/// Brings all of a commit into the sysroot's repository, and sets the ref.
///
/// # Errors
/// When no source brings all of it. What came stays for the next time.
pub fn fetch(request: &Request<'_>, found: &Found, watch: Watch<'_>) -> Result<Progress, Error> {
    let sysroot = request.sysroot;
    mount::make_writable(&[sysroot]).map_err(|(path, errno)| Error::ReadOnly(path.into(), errno))?;
    let config = config(sysroot)?;
    let (server, stop) = &found.server;
    let known = !stop.is_set() && request.sources.len() == 1;
    let (known, stop) = if known { (Some(server), stop.clone()) } else { (None, Stop::default()) };
    watched(&stop, watch, |tell| {
        let _shared = locked(&stop, request.patience, |patience| lock::repository_shared(sysroot, patience))?;
        let _own = locked(&stop, request.patience, |patience| lock::pull(sysroot, patience))?;
        let open = || Disk::open(sysroot, sysroot);
        let mut store = Store::new(open().map_err(Error::Open)?, config.mode, 0);
        let options = options(request, &stop);
        let commit = (&found.commit, found.metadata.as_deref());
        let supply = Supply { known, ..request.supply() };
        supply.rounds(&found.sources, &stop, tell, &mut |server, tell| {
            pull::pull(server, &mut store, &open, commit, &request.wanted, &options, tell)
        })
    })
}

fn options(request: &Request<'_>, stop: &Stop) -> pull::Options {
    request.supply().options(pull::Options {
        scratch: request.delta.then(|| request.sysroot.join(STAGING)),
        stop: stop.clone(),
        ..request.options.clone()
    })
}

/// Deploys what was fetched, on trial unless `options` say otherwise; `None` when it is deployed already.
///
/// # Errors
/// See [`act::Error`].
pub fn deploy(
    site: &Site,
    request: &Request<'_>,
    found: &Found,
    mut options: prepare::Options,
    progress: &mut dyn FnMut(act::Progress),
) -> Result<Option<act::Report>, Error> {
    if act::already(site, &options.stateroot, &found.name()).map_err(Error::Deploy)? {
        return Ok(None);
    }
    let reference = request.wanted.reference.as_deref().unwrap_or_default();
    options.refspec = match &request.wanted.remote {
        Some(remote) => format!("{remote}:{reference}"),
        None => reference.into(),
    };
    act::deploy(site, &found.commit, &options, progress).map(Some).map_err(Error::Deploy)
}
