//! A deployment is put right: its objects, its own files, its kernel in the boot directory.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::arrange::plan::MAKING;
use crate::deploy::mend::{self, Flaw, mend};
use crate::fetch::{self, AnyChannel, Stop, Transport, Url};
use crate::ostree::verify::{BootFault, Check, EntryFault, Fault, Faults, Level, Report, verify};
use crate::ostree::{Checksum, Commit, Keys, variant};
use crate::pull::{self, Broken, Progress};
use crate::repo::Store;
use crate::sys::beneath::Beneath;
use crate::sys::files::Disk;
use crate::sys::{lock, mount};
use crate::sysroot::Deployment;
use crate::trial::act::{self, Site, Verb};

use super::watched::{Tell, locked, watched};
use super::{Error, Supply, Watch, config};

/// What is put right, and from where.
#[derive(Clone, Debug)]
pub struct Mending<'a> {
    /// The device, or an image that is mounted somewhere.
    pub site: &'a Site,
    /// Archive repositories, mirrors of each other. Without one, only what needs no object can be mended.
    pub sources: Vec<Url>,
    /// How they are talked to.
    pub transport: fetch::Options,
    /// How objects are pulled.
    pub options: pull::Options,
    /// So long is somebody else's lock waited for.
    pub patience: Duration,
}

impl<'a> Mending<'a> {
    /// The least that has to be said.
    pub fn new(site: &'a Site, sources: Vec<Url>) -> Self {
        let (transport, options) = (fetch::Options::default(), pull::Options::default());
        Mending { site, sources, transport, options, patience: Duration::from_secs(60) }
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// Objects of the commit, each of which was held against its checksum.
    pub objects: u64,
    /// Objects that were missing or damaged, and came.
    pub fetched: u64,
    /// Bytes that came for them.
    pub bytes: u64,
    /// Paths of the deployment, and files in the boot directory, that were put right.
    pub mended: u64,
}

/// Puts a deployment right. What comes for it is what its name says, and that it may be here was decided when it was
/// deployed: no signature is needed for that. `watch` can end it while objects are looked at and fetched.
///
/// # Errors
/// When it is not whole afterwards. What was put right by then stays so, and the same again goes on from there.
pub fn repair(mending: &Mending<'_>, deployment: &Deployment, watch: Watch<'_>) -> Result<Repaired, Error> {
    let (repaired, report) = put_right(mending, deployment, None, watch)?;
    match report.is_good() {
        true => Ok(repaired),
        false => Err(Error::Unmended(report.faults.iter().map(ToString::to_string).collect())),
    }
}

/// As [`repair`], with what is wrong with it afterwards; one of the keys must have signed the commit, where there are any.
///
/// # Errors
/// When something failed on the way.
pub fn put_right(
    mending: &Mending<'_>,
    deployment: &Deployment,
    keys: Option<&Keys>,
    watch: Watch<'_>,
) -> Result<(Repaired, Report), Error> {
    let site = mending.site;
    let name = Checksum::parse(&deployment.commit).ok_or_else(|| Error::Name(deployment.commit.clone()))?;
    mount::make_writable(&[&site.sysroot, &site.boot])
        .map_err(|(path, errno)| Error::ReadOnly(path.into(), errno))?;
    let stop = Stop::default();
    watched(&stop, watch, |tell| {
        let Progress { objects, fetched, bytes, .. } = objects(mending, &name, keys, &stop, tell)?;
        let mut report = look(site, deployment, keys)?;
        let mut mended = files(mending, deployment, &name, &report, &stop)?;
        if mended > 0 {
            report = look(site, deployment, keys)?;
        }
        let differs =
            |fault: &&Fault| matches!(fault, Fault::Boot(_, BootFault::Differs | BootFault::Unreadable(_)));
        let kernels = report.faults.iter().filter(differs).count() as u64;
        if kernels > 0 {
            // From the deployment's own, which are whole now.
            mended += kernels;
            act::act(site, &Verb::Repair, false).map_err(Error::Boot)?;
            report = look(site, deployment, keys)?;
        }
        Ok((Repaired { objects, fetched, bytes, mended }, report))
    })
}

/// Holds the commit's objects against their checksums, and fetches what is missing or damaged.
fn objects(
    mending: &Mending<'_>,
    name: &Checksum,
    keys: Option<&Keys>,
    stop: &Stop,
    tell: Tell<'_>,
) -> Result<Progress, Error> {
    let signed = |commit: &[u8], metadata: &[u8]| match keys {
        Some(keys) => keys.verify(commit.to_vec(), Some(metadata)).map(drop).map_err(|e| e.to_string()),
        // What a power cut left of a file is empty, and that is a dictionary too.
        None if !metadata.is_empty() && variant::is_dictionary(metadata) => Ok(()),
        None => Err("its detached metadata is damaged".into()),
    };
    let wanted = Broken { name, needed: keys.is_some(), signed: &signed };
    let sysroot = &mending.site.sysroot;
    let config = config(sysroot)?;
    let _shared = locked(stop, mending.patience, |patience| lock::repository_shared(sysroot, patience))?;
    let _own = locked(stop, mending.patience, |patience| lock::pull(sysroot, patience))?;
    let open = || Disk::open(sysroot, sysroot);
    let mut store = Store::new(open().map_err(Error::Open)?, config.mode, 0);
    let options = pull::Options { stop: stop.clone(), ..mending.options.clone() };
    if mending.sources.is_empty() {
        let done = pull::repair(&Nowhere, &mut store, &open, &wanted, &options, tell);
        return done.map_err(|cause| Error::here(cause, stop));
    }
    let all: Vec<usize> = (0..mending.sources.len()).collect();
    let supply = Supply { sources: &mending.sources, transport: &mending.transport, known: None };
    let options = supply.options(options);
    supply.rounds(&all, stop, tell, &mut |server, tell| {
        pull::repair(server, &mut store, &open, &wanted, &options, tell)
    })
}

/// No server.
struct Nowhere;

impl Transport for Nowhere {
    type Channel = AnyChannel;

    fn open(&self) -> Result<AnyChannel, fetch::Error> {
        Err(fetch::Error::Nowhere)
    }
}

fn look(site: &Site, deployment: &Deployment, keys: Option<&Keys>) -> Result<Report, Error> {
    let tree = Beneath::open(&site.sysroot).map_err(|e| Error::Unreadable(site.sysroot.clone(), e))?;
    let boot = Beneath::open(&site.boot);
    let check = Check {
        sysroot: &tree,
        boot: boot.as_ref().ok(),
        path: &deployment.path(),
        commit: &deployment.commit,
        boot_files: &deployment.boot_files,
        level: Level::Full,
        keys,
        budget: None,
        faults: Faults::All,
    };
    Ok(verify(&check, &mut |_| {}))
}

/// Puts right what is in the deployment.
fn files(
    mending: &Mending<'_>,
    deployment: &Deployment,
    name: &Checksum,
    report: &Report,
    stop: &Stop,
) -> Result<u64, Error> {
    let flaws: BTreeSet<(Flaw, String)> = report.faults.iter().filter_map(flaw).collect();
    let site = mending.site;
    // What a power cut left of an earlier repair.
    let left = site.sysroot.join(MAKING).exists();
    let (data, _) = crate::deploy::act::commit(site, name).map_err(Error::Deploy)?;
    let commit = Commit::parse(data).map_err(|why| Error::Name(format!("{name}: {why}")))?;
    let mut disk = Disk::open(&site.sysroot, &site.boot).map_err(Error::Open)?;
    if flaws.is_empty() && !left && !mend::wants_image(&mut disk, &commit).map_err(Error::Mend)? {
        return Ok(0);
    }
    let _lock = locked(stop, mending.patience, |patience| lock::sysroot(&site.sysroot, patience))?;
    let immutable = crate::deploy::act::immutable();
    let mended = mend(&mut disk, &commit, &deployment.path(), &flaws, immutable).map_err(Error::Mend)?;
    let images = mend::image(&mut disk, &commit, &deployment.path(), immutable).map_err(Error::Mend)?;
    Ok(mended + images)
}

/// What can be put right in a deployment. A hotfix is somebody's own, and everything else is told only.
fn flaw(fault: &Fault) -> Option<(Flaw, String)> {
    let Fault::Entry(path, what) = fault else { return None };
    let flaw = match what {
        EntryFault::Overlay => return None,
        EntryFault::Extra => Flaw::Extra,
        EntryFault::Owner | EntryFault::Mode(..) | EntryFault::Attributes => Flaw::Dress,
        EntryFault::Missing | EntryFault::Kind | EntryFault::Unreadable(_) | EntryFault::Changed => {
            Flaw::Wrong
        }
    };
    // The root itself can be dressed and no more.
    (flaw == Flaw::Dress || !path.is_empty()).then(|| (flaw, path.clone()))
}
