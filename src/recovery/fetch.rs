//! Brings a deployment: from what is here, from a stick, or from servers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::flow::{Came, Link};
use super::identity;
use super::settings::Settings;
use super::status::{Phase, Progress};
use super::worker::{Task, Watching, Worker};
use super::{mend, repair};
use crate::deploy::Fault;
use crate::deploy::act;
use crate::deploy::kargs::Edits;
use crate::deploy::prepare::Options as Deploy;
use crate::fetch::{self, Url};
use crate::ledger::diary::while_writable;
use crate::net::{self, clock};
use crate::ostree::Checksum;
use crate::ostree::admit::{Policy, Trust};
use crate::ostree::keyring::{self, Source};
use crate::ostree::sign::{Keys, VerifiedCommit};
use crate::pull::{self, Wanted};
use crate::trial::act::Site;
use crate::upgrade::{self, Found, Request};

/// A source that brings nothing for so long is left for the next one.
const STALL: Duration = Duration::from_secs(60);
/// What came is written down in steps of so many bytes.
const STEP: u64 = 16 << 20;
/// Objects from this length on, in bytes, are gone on with after a power cut.
const PART: u64 = 128 << 10;
/// The network is tended this often.
const TEND: Duration = Duration::from_secs(3);
/// What came is durable after this at the latest: a device that loses its power every half minute fetches 5 % twice.
const DURABLE: Duration = Duration::from_secs(1);
/// Where things are made durable, so long may nothing be heard of it.
const WRITING: Duration = Duration::from_secs(180);

/// Finishes what was begun: a commit that is here whole and was never deployed, or whose deployment is broken.
pub(super) fn local(worker: &mut Worker) -> Came {
    match resume(worker) {
        Ok(true) => return Came::Done,
        Ok(false) => {}
        Err(why) => worker.failed("device", &why),
    }
    if repair::step(worker, "device", &[], None, &mut 0) { Came::Done } else { Came::Failed }
}

/// A pull sets the ref as its last step: what it names is here whole.
fn resume(worker: &mut Worker) -> Result<bool, String> {
    let wanted = wanted(worker)?;
    let site = worker.task.site.clone();
    let named = wanted.commit.or_else(|| act::resolve(&site, &refspec(&wanted)).ok());
    let Some(name) = named else { return Ok(false) };
    let partial = site.sysroot.join(format!("ostree/repo/state/{name}.commitpartial"));
    let (Ok((data, metadata)), false) = (act::commit(&site, &name), partial.exists()) else {
        return Ok(false);
    };
    if is_whole(worker, &name) || act::not_rejected(&site.sysroot, &name).is_err() {
        return Ok(false);
    }
    let recovery = worker.task.settings.recovery.clone();
    let (keys, floor) = (keys(&recovery)?, crate::trial::floor::read(&site.sysroot));
    let policy = Policy {
        reference: wanted.reference.as_deref(),
        unbound: recovery.unbound,
        compatible: Some(recovery.compatible.as_str()).filter(|c| !c.is_empty()),
        ..Policy::new(Trust::Ed25519(&keys), &floor.mark)
    };
    let admitted = policy.admit(&name, data, metadata.as_deref()).map_err(|e| e.to_string())?;
    worker.shared.tell(&format!("commit {name} is here whole and was not deployed"));
    deploy(worker, &wanted, &admitted.commit).map_err(|failure| failure.why)?;
    Ok(true)
}

/// Whether a deployment of the commit is there and nothing is known to be wrong with it.
fn is_whole(worker: &Worker, name: &Checksum) -> bool {
    let name = name.to_string();
    let Task { deployments, broken, .. } = &worker.task;
    let good = |index: usize| broken.iter().all(|b| b.0 != index);
    deployments.iter().enumerate().any(|(index, d)| d.commit == name && good(index))
}

fn refspec(wanted: &Wanted) -> String {
    let reference = wanted.reference.as_deref().unwrap_or_default();
    match (&wanted.remote, &wanted.commit) {
        (Some(remote), _) if !reference.is_empty() => format!("{remote}:{reference}"),
        (_, Some(commit)) if reference.is_empty() => commit.to_string(),
        _ => reference.into(),
    }
}

/// Asks the time, then the servers, over the link that is up.
pub(super) fn from_network(worker: &mut Worker, link: &Link) -> Came {
    worker.keep_budget();
    let clock = set_clock(worker);
    let mut urls = Vec::new();
    for text in &worker.task.settings.recovery.urls.clone() {
        match Url::parse(text) {
            Ok(url) => urls.push(url),
            Err(e) => worker.failed(text, &e.to_string()),
        }
    }
    if urls.is_empty() {
        return Came::Failed;
    }
    let came = install(worker, link.interface(), urls.clone(), Some(clock.clone()));
    // Nothing came at all: the configured name servers may be the ones that are wrong.
    let turned = matches!(came, Came::Cut { bytes: 0, asked: None })
        && worker.up.as_mut().is_some_and(|up| up.turn_names() == Ok(true));
    if !turned || worker.shared.is_wished() {
        return came;
    }
    worker.shared.tell("asking the network's own name servers instead of the configured ones");
    install(worker, link.interface(), urls, Some(clock))
}

/// Asks the time, then finds the commit and verifies it; what comes of it in one sentence.
pub(super) fn head(worker: &mut Worker) -> Result<String, String> {
    let clock = set_clock(worker);
    let settings = worker.task.settings.clone();
    let urls: Result<Vec<Url>, String> = settings
        .recovery
        .urls
        .iter()
        .map(|text| Url::parse(text).map_err(|e| format!("{text}: {e}")))
        .collect();
    let keys = keys(&settings.recovery)?;
    let sysroot = worker.task.site.sysroot.clone();
    let request = request(worker, &settings, (&sysroot, &keys), urls?, Some(&clock))?;
    let sources = request.sources.len();
    worker.shared.phase(Phase::Fetching);
    let found = upgrade::find(&request, &mut Meter::new(worker, true, &mut 0).of(sources).watch())
        .map_err(|e| e.to_string())?;
    Ok(format!("commit {}{} is there and signed; the time: {clock}", found.name(), version(&found)))
}

/// The clock is set to the latest time that is known to be past, then by a time server, where there is one.
fn set_clock(worker: &mut Worker) -> clock::Clock {
    worker.shared.phase(Phase::Clock);
    let (sure, noted) = past(&worker.task.site.sysroot);
    let floor = clock::floor(sure.into_iter(), noted.into_iter());
    let mut servers = worker.task.settings.network.ntp.clone();
    servers.extend(worker.up.iter().flat_map(|up| up.ntp.clone()));
    let asked = clock::ask(&servers, &floor, &mut Watching::new(&worker.shared));
    let clock = match asked {
        Ok(clock) => clock,
        Err(e) => {
            worker.shared.tell(&e.to_string());
            floor
        }
    };
    worker.shared.tell(&format!("the time: {clock}"));
    clock
}

/// Times that are surely past, of commits that were confirmed here, and times that the ledger noted down.
fn past(sysroot: &Path) -> (Vec<u64>, Vec<u64>) {
    let mark = crate::trial::floor::read(sysroot).mark;
    let mut noted = Vec::new();
    let _ = crate::ledger::file::open(sysroot)
        .and_then(|mut ring| ring.each(|record| noted.extend(u64::try_from(record.time).ok())));
    (vec![mark.time], noted)
}

/// Finds the commit, brings it, and deploys it on trial.
pub(super) fn install(
    worker: &mut Worker,
    name: &str,
    sources: Vec<Url>,
    clock: Option<clock::Clock>,
) -> Came {
    let mut came = 0;
    if worker.chosen.is_none() && repair::step(worker, name, &sources, clock.as_ref(), &mut came) {
        return Came::Done;
    }
    match try_install(worker, name, sources, clock, &mut came) {
        Ok(()) => Came::Done,
        Err(failure) => {
            worker.failed(name, &failure.why);
            Came::Cut { bytes: came, asked: failure.asked }
        }
    }
}

/// Why a source brought no deployment.
struct Failure {
    why: String,
    /// `Retry-After`, in seconds.
    asked: Option<u64>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure { why, asked: None }
    }
}

impl From<upgrade::Error> for Failure {
    fn from(e: upgrade::Error) -> Self {
        Failure { asked: asked(&e), why: e.to_string() }
    }
}

/// The longest patience that any of the servers asked for.
fn asked(e: &upgrade::Error) -> Option<u64> {
    match e {
        upgrade::Error::All(all) => all.iter().filter_map(asked).max(),
        upgrade::Error::Pull(_, cause) => match &**cause {
            // Not `Error::retry`: a captive portal's minute is for who has nothing else to try, and nobody asked for it.
            pull::Error::Fetch { cause: fetch::Error::Status { after: Some(after), .. }, .. } => {
                Some(after.as_secs()).filter(|seconds| *seconds > 0)
            }
            _ => None,
        },
        _ => None,
    }
}

fn try_install(
    worker: &mut Worker,
    name: &str,
    sources: Vec<Url>,
    clock: Option<clock::Clock>,
    came: &mut u64,
) -> Result<(), Failure> {
    let settings = worker.task.settings.clone();
    let metered = clock.is_some();
    let keys = keys(&settings.recovery)?;
    mend::sysroot_of(worker)?;
    let sysroot = worker.task.site.sysroot.clone();
    let request = request(worker, &settings, (&sysroot, &keys), sources, clock.as_ref())?;
    worker.shared.phase(Phase::Fetching);
    let sources = request.sources.len();
    let found = upgrade::find(&request, &mut Meter::new(worker, metered, came).of(sources).watch())?;
    let commit = found.name();
    worker.shared.tell(&format!("{name} has commit {commit}{}", version(&found)));
    let fetched =
        upgrade::fetch(&request, &found, &mut Meter::new(worker, metered, came).of(sources).watch());
    worker.keep_budget();
    let fetched = fetched?;
    let sentence =
        format!("{name}: fetched {commit}: {} objects, {} kB", fetched.fetched, fetched.bytes / 1000);
    worker.shared.tell(&sentence);
    worker.record(&sentence);
    if is_whole(worker, &commit) {
        worker.shared.tell(&format!("{commit} is deployed already, and whole"));
        return Ok(());
    }
    let wanted = request.wanted.clone();
    deploy(worker, &wanted, &found.commit)
}

/// What is asked of the servers.
fn request<'a>(
    worker: &Worker,
    settings: &'a Settings,
    (sysroot, keys): (&'a Path, &'a Keys),
    sources: Vec<Url>,
    clock: Option<&clock::Clock>,
) -> Result<Request<'a>, String> {
    let mut request = Request::new(sysroot, sources, wanted(worker)?, keys);
    request.transport = transport(&settings.recovery, clock);
    request.compatible = Some(settings.recovery.compatible.as_str()).filter(|c| !c.is_empty());
    request.unbound = settings.recovery.unbound;
    request.downgrade = worker.chosen.is_some_and(|(_, older)| older);
    request.rejected_too = worker.chosen.is_some();
    request.options = pull_options(worker);
    Ok(request)
}

/// How anything is pulled here.
pub(super) fn pull_options(worker: &Worker) -> pull::Options {
    pull::Options {
        channels: worker.channels(),
        part: PART,
        durable: DURABLE,
        // There is a next round, and what is wrong should be told before the stall ends this one.
        mirrored: true,
        ..pull::Options::default()
    }
}

fn version(found: &Found) -> String {
    found.commit.commit().metadata_text("version").map_or(String::new(), |v| format!(", version {v}"))
}

/// Whom to believe: only who is named in the initramfs.
fn keys(recovery: &super::settings::Recovery) -> Result<Keys, String> {
    let path = Path::new(&recovery.keys);
    let place = if path.is_dir() { Source::Directory(path.into()) } else { Source::File(path.into()) };
    keyring::keys(&[place], recovery.threshold as usize).map_err(|e| e.to_string())
}

/// The commit for this hardware.
fn wanted(worker: &Worker) -> Result<Wanted, String> {
    let settings = &worker.task.settings;
    let names = identity::hardware(Path::new("/"), &worker.task.command_line, &settings.recovery.revision);
    let reference = settings.reference(&names);
    let commit = match (worker.chosen, settings.recovery.commit.as_str()) {
        (Some((chosen, _)), _) => Some(chosen),
        (None, "") => None,
        (None, digits) => {
            Some(Checksum::parse(digits).ok_or("recovery.commit is no commit: 64 hexadecimal digits")?)
        }
    };
    if reference.is_empty() && commit.is_none() {
        return Err(format!("no ref is configured for this hardware ({})", names.join(", ")));
    }
    Ok(Wanted {
        remote: Some(settings.recovery.remote.clone()).filter(|r| !r.is_empty()),
        reference: Some(reference.to_string()).filter(|r| !r.is_empty()),
        commit,
    })
}

pub(super) fn transport(
    recovery: &super::settings::Recovery,
    clock: Option<&clock::Clock>,
) -> fetch::Options {
    #[cfg(feature = "tls")]
    {
        let path = |text: &str| Some(PathBuf::from(text)).filter(|p| !p.as_os_str().is_empty());
        let identity = path(&recovery.certificate)
            .zip(path(&recovery.certificate_key))
            .map(|(certificate, key)| fetch::tls::Identity { certificate, key });
        let mut options = fetch::Options { identity, ..fetch::Options::default() };
        options.authorities = path(&recovery.ca).into_iter().collect();
        if let Some(clock) = clock {
            options.clock = clock.certificates();
        }
        options
    }
    #[cfg(not(feature = "tls"))]
    {
        let _ = (recovery, clock);
        fetch::Options::default()
    }
}

/// Deploys it. What of the old configuration cannot be taken over is left behind rather than the device.
fn deploy(worker: &mut Worker, wanted: &Wanted, commit: &VerifiedCommit) -> Result<(), Failure> {
    worker.shared.phase(Phase::Deploying);
    let base = Deploy {
        stateroot: mend::stateroot(worker)?,
        refspec: refspec(wanted),
        trial: true,
        ..Deploy::default()
    };
    let fresh = Edits { append: worker.task.settings.recovery.arguments.clone(), ..Edits::default() };
    let first = if worker.task.deployments.is_empty() { fresh.clone() } else { Edits::default() };
    let ladder = [
        (Deploy { arguments: first, ..base.clone() }, ""),
        (Deploy { pristine_etc: true, ..base.clone() }, "the old configuration cannot be taken over"),
        (
            Deploy { no_merge: true, arguments: fresh, ..base },
            "the old deployment's kernel arguments cannot be taken over either",
        ),
    ];
    let mut last = Failure::from(String::new());
    for (options, left_behind) in ladder {
        if !left_behind.is_empty() {
            worker.shared.tell(&format!("{}; {left_behind}", last.why));
        }
        match deploy_with(worker, commit, &options) {
            Ok(()) => {
                if !left_behind.is_empty() {
                    worker.record(&format!("{left_behind}: {}", last.why));
                }
                return Ok(());
            }
            Err(failure) => last = failure,
        }
        if worker.shared.is_wished() {
            break;
        }
    }
    Err(last)
}

fn deploy_with(worker: &mut Worker, commit: &VerifiedCommit, options: &Deploy) -> Result<(), Failure> {
    let site = worker.task.site.clone();
    let mut done = deploy_at(worker, &site, commit, options);
    if let Err(e @ (act::Error::Environment(_) | act::Error::Fault(Fault::Variables(_)))) = &done {
        // Better a deployment whose boots the bootloader does not count than none.
        let why = format!("{e}; the new deployment is not on trial");
        worker.failed("environment", &why);
        done = deploy_at(worker, &Site { env_config: None, ..site }, commit, options);
    }
    let sentence = match done {
        Ok(report) => format!("deployed {}", report.name),
        // It is the first one to boot all the same.
        Err(e @ act::Error::NotPruned(_)) => e.to_string(),
        Err(e) => return Err(e.to_string().into()),
    };
    worker.shared.tell(&sentence);
    Ok(())
}

fn deploy_at(
    worker: &Worker,
    site: &Site,
    commit: &VerifiedCommit,
    options: &Deploy,
) -> Result<act::Report, act::Error> {
    let shared = &worker.shared;
    let mut told = Instant::now();
    let mut progress = |progress: act::Progress| {
        shared.alive(WRITING);
        if told.elapsed() >= Duration::from_millis(500) {
            told = Instant::now();
            let (done, bytes) = match progress {
                act::Progress::Made(done) => (done, 0),
                act::Progress::Verified(done, bytes) => (done, bytes),
                act::Progress::Pruning(done) => (done as u64, 0),
            };
            shared.change(|status| status.progress = Some(Progress { done, bytes, ..Progress::default() }));
        }
    };
    let mut act = || act::deploy(site, commit, options, &mut progress);
    match &worker.task.firmware {
        Some(firmware) if site.env_config.is_some() => while_writable(firmware, act),
        _ => act(),
    }
}

/// Watches a transfer: shows how far it is, counts what comes, and ends it when it stalls or someone wants something.
pub(super) struct Meter<'a> {
    worker: &'a mut Worker,
    /// Whether it counts against the day.
    metered: bool,
    came: &'a mut u64,
    /// Bytes of this transfer up to now, and at most.
    bytes: u64,
    limit: u64,
    /// So long nothing may come.
    stall: Duration,
    /// Objects that were seen to.
    objects: u64,
    /// Bytes that were written down.
    kept: u64,
    began: Instant,
    moved: Instant,
    tended: Instant,
}

impl<'a> Meter<'a> {
    pub(super) fn new(worker: &'a mut Worker, metered: bool, came: &'a mut u64) -> Self {
        let now = Instant::now();
        Meter {
            worker,
            metered,
            came,
            bytes: 0,
            limit: u64::MAX,
            objects: 0,
            kept: 0,
            began: now,
            moved: now,
            tended: now,
            stall: STALL,
        }
    }

    fn watch(mut self) -> impl FnMut(&pull::Progress) -> bool + 'a {
        move |progress| self.goes_on(progress)
    }

    /// Ends the transfer after so many bytes.
    pub(super) fn limited(self, limit: u64) -> Self {
        Meter { limit, ..self }
    }

    /// Each of several sources has its time.
    pub(super) fn of(self, sources: usize) -> Self {
        Meter { stall: STALL * u32::try_from(sources).unwrap_or(u32::MAX).max(1), ..self }
    }

    /// Whether the transfer goes on; called with how far it is.
    pub(super) fn goes_on(&mut self, progress: &pull::Progress) -> bool {
        let fresh = progress.bytes.saturating_sub(self.bytes);
        if fresh > 0 {
            self.moved = Instant::now();
            *self.came += fresh;
            if self.metered {
                self.worker.flow.received(fresh);
            }
        }
        self.bytes = self.bytes.max(progress.bytes);
        self.worker.shared.alive(WRITING);
        self.show(progress);
        if self.bytes - self.kept >= STEP {
            self.kept = self.bytes;
            self.worker.keep_budget();
        }
        if self.metered && self.worker.flow.budget().left(self.worker.flow.caps()) == 0 {
            self.worker.shared.tell("the day's megabytes are used up");
            return false;
        }
        if progress.objects != self.objects {
            self.objects = progress.objects;
            self.moved = Instant::now();
        }
        if self.metered && self.moved.elapsed() >= self.stall {
            self.worker.shared.tell(&format!("nothing came for {} s", self.stall.as_secs()));
            return false;
        }
        self.bytes <= self.limit && !self.worker.shared.is_wished() && self.tend()
    }

    fn show(&mut self, progress: &pull::Progress) {
        let seconds = self.began.elapsed().as_secs_f64().max(0.1);
        let rate = (self.bytes as f64 / seconds) as u64;
        let missing = progress.known.saturating_sub(progress.objects);
        let left = (progress.whole && progress.fetched > 0)
            .then(|| (seconds * missing as f64 / progress.fetched as f64) as u64);
        let shown = Progress {
            done: progress.objects,
            total: progress.known,
            whole: progress.whole,
            bytes: self.bytes,
            rate,
            left,
        };
        self.worker.shared.change(|status| status.progress = Some(shown));
    }

    fn tend(&mut self) -> bool {
        if self.tended.elapsed() < TEND {
            return true;
        }
        self.tended = Instant::now();
        let shared = self.worker.shared.clone();
        let Some(up) = self.worker.up.as_mut() else { return true };
        match up.tend(&mut Watching::new(&shared)) {
            Ok(()) => true,
            Err(net::Error::Stopped) => false,
            Err(e) => {
                shared.tell(&e.to_string());
                false
            }
        }
    }
}
