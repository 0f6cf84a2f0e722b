//! Does the steps of [`super::flow`], in a thread of its own, and tells what happens to console, log and ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::warn;

use super::budget::{Budget, Caps, Jitter};
use super::flow::{Came, Flow, Link, Plan, Step, Want};
use super::identity;
use super::settings::Settings;
use super::shared::Shared;
use super::status::{Phase, Tried, Wish};
use super::{Outcome, budget, fetch, medium, mend};
use crate::fetch::Backoff;
use crate::ledger::Kind;
use crate::ledger::diary::{Diary, while_writable};
use crate::net::{self, Watch};
use crate::ostree::Checksum;
use crate::sys::time;
use crate::sysroot::Deployment;
use crate::trial::act::Site;

/// Without a sign of life for so long the worker counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that the worker needs to know; it shares nothing else with the boot.
#[derive(Clone, Debug)]
pub struct Task {
    /// What is configured.
    pub settings: Settings,
    /// The kernel command line.
    pub command_line: String,
    /// Where the root is mounted, the boot directory, and the environment.
    pub site: Site,
    /// The partition with the environment's files, which is mounted read-only.
    pub firmware: Option<PathBuf>,
    /// The root, and what is wrong with it.
    pub root: mend::Root,
    /// The stateroot of the first deployment.
    pub stateroot: Option<String>,
    /// The deployments, in boot order.
    pub deployments: Vec<Deployment>,
    /// Those that are broken, by their index, and why.
    pub broken: Vec<(usize, String)>,
    /// So often recovery brought something in this boot that did not boot.
    pub again: u32,
    /// A fresh filesystem was made in this boot already.
    pub formatted: bool,
    /// A fire drill: nothing is recovered, and nothing but its result written.
    pub drill: bool,
}

impl Task {
    /// Whether there is anything to do by itself.
    pub fn is_of_use(&self) -> bool {
        let Settings { recovery, .. } = &self.settings;
        let mends = self.root != mend::Root::Mounted && !recovery.fsck.is_empty();
        self.settings.may_fetch() && (!recovery.urls.is_empty() || recovery.medium) || mends
    }

    fn plan(&self) -> Plan {
        let Settings { recovery, .. } = &self.settings;
        let fetches = self.settings.may_fetch();
        let seconds = |s: u32| Duration::from_secs(u64::from(s));
        Plan {
            mounted: self.root == mend::Root::Mounted,
            check: !recovery.fsck.is_empty(),
            format: recovery.format && !recovery.mkfs.is_empty() && !self.formatted,
            medium: fetches && recovery.medium,
            network: fetches && !recovery.urls.is_empty(),
            backoff: Backoff { first: seconds(recovery.wait.0), longest: seconds(recovery.wait.1) },
            spread: seconds(recovery.spread),
            again: self.again,
            caps: Caps { attempts: recovery.attempts, bytes: u64::from(recovery.megabytes) * 1_000_000 },
        }
    }
}

/// The worker at work.
pub(super) struct Worker {
    pub(super) task: Task,
    pub(super) shared: Arc<Shared>,
    pub(super) flow: Flow,
    jitter: Jitter,
    /// The network that is up.
    pub(super) up: Option<net::Up>,
    pub(super) radio: Option<net::wifi::Radio>,
    pub(super) points: super::wireless::Points,
    /// The budget as it stands on the root.
    written: Budget,
    /// What was told of each source in the ledger: the same is not told again.
    told: BTreeMap<String, String>,
    /// The commit that someone at the console chose, and whether it may be an older one.
    pub(super) chosen: Option<(Checksum, bool)>,
    /// The network that someone at the console typed.
    pub(super) typed: Option<net::wifi::Profile>,
}

/// Works until a deployment is there to boot, or someone at the console wants something else.
pub fn work(task: Task, shared: Arc<Shared>) {
    shared.alive(PATIENCE);
    let mounted = task.root == mend::Root::Mounted;
    let file = std::fs::read(task.site.sysroot.join(budget::PATH)).unwrap_or_default();
    let written = Budget::parse(if mounted { &file } else { &[] }, now());
    let flow = Flow::new(task.plan(), written);
    let jitter = Jitter::new(&identity::device(Path::new("/")), &time::boot_id());
    let mut worker = Worker {
        task,
        shared,
        flow,
        jitter,
        up: None,
        radio: None,
        points: super::wireless::Points::default(),
        written,
        told: BTreeMap::new(),
        chosen: None,
        typed: None,
    };
    let outcome = if worker.task.drill { super::drill::work(&mut worker) } else { worker.run() };
    worker.disconnect();
    log::info!("recovery: {} kB of memory at most", peak());
    worker.shared.end(outcome);
}

/// The most memory that this process ever had, in kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_ascii_whitespace().next()).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

/// Seconds since 1970, as the device believes it.
pub(super) fn now() -> u64 {
    u64::try_from(time::wall()).unwrap_or(0)
}

impl Worker {
    fn run(&mut self) -> Outcome {
        loop {
            if let Some(wish) = self.shared.take_wish()
                && let Some(outcome) = self.obey(wish)
            {
                return outcome;
            }
            let step = self.flow.next(now(), self.jitter.number());
            self.keep_budget();
            if step == Step::Done {
                return Outcome::Recovered;
            }
            let came = self.step(&step);
            self.flow.came(came);
            self.keep_budget();
        }
    }

    /// What ends recovery is returned, everything else is done next.
    fn obey(&mut self, wish: Wish) -> Option<Outcome> {
        match wish {
            Wish::Boot(index) => return Some(Outcome::Boot(index)),
            Wish::Retry => return Some(Outcome::Retry),
            Wish::Reboot => return Some(Outcome::Reboot),
            Wish::PowerOff => return Some(Outcome::PowerOff),
            Wish::RecoverNow => self.flow.want(Want::Round),
            Wish::FromUsb => self.flow.want(Want::Medium),
            Wish::Repair => self.flow.want(Want::Local),
            Wish::Commit { commit, older } => {
                self.chosen = Some((commit, older));
                self.flow.want(Want::Round);
            }
            Wish::Network { ssid, secret } => {
                let secret = net::wifi::Secret::new(secret.into_bytes());
                match net::wifi::Profile::typed(ssid, secret, net::wifi::Origin::Operator) {
                    Ok(profile) => {
                        self.typed = Some(profile);
                        self.flow.want(Want::Round);
                    }
                    Err(e) => self.shared.tell(&e.to_string()),
                }
            }
        }
        None
    }

    fn step(&mut self, step: &Step) -> Came {
        self.shared.alive(PATIENCE);
        match step {
            Step::Mount | Step::Check | Step::Format => {
                self.shared.phase(Phase::Root);
                mend::step(self, step)
            }
            Step::Local => {
                self.shared.phase(Phase::Resuming);
                fetch::local(self)
            }
            Step::Medium => {
                self.shared.phase(Phase::Medium);
                medium::step(self)
            }
            Step::Links => Came::Links(self.links()),
            Step::Connect(link) => self.connect(link),
            Step::Fetch(link) => {
                let came = fetch::from_network(self, link);
                // A server that asks for patience is the right one.
                if matches!(came, Came::Failed | Came::Cut { asked: None, .. }) && !self.shared.is_wished() {
                    self.points.blame();
                }
                came
            }
            Step::Wait(time) => {
                self.disconnect();
                self.wait(*time);
                Came::Done
            }
            Step::Done => Came::Done,
        }
    }

    fn wait(&self, time: Duration) {
        let (budget, caps) = (self.flow.budget(), self.flow.caps());
        let until =
            u64::from(time::uptime()).saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.shared.change(|status| {
            status.phase = Phase::Waiting;
            status.progress = None;
            status.next = Some(until);
            status.attempts = (budget.attempts, caps.attempts);
            status.bytes = (budget.bytes, caps.bytes);
        });
        self.shared.tell(&format!("the next round begins in {} s", time.as_secs().max(1)));
        self.shared.wait(time);
    }

    /// The wired ones first.
    pub(super) fn links(&self) -> Vec<Link> {
        let wired = net::wired(&self.task.settings.network).into_iter().map(Link::Wired);
        if net::wireless().is_empty() {
            super::wireless::load_drivers(self, &mut Watching::new(&self.shared));
        }
        let wireless = net::wireless().into_iter().map(Link::Wireless);
        let links: Vec<Link> = wired.chain(wireless).collect();
        if links.is_empty() {
            self.shared.tell("no network interface is there: are the drivers in the initramfs?");
        }
        links
    }

    pub(super) fn connect(&mut self, link: &Link) -> Came {
        self.disconnect();
        let interface = link.interface().to_string();
        let joined = match link {
            Link::Wired(_) => {
                self.shared.phase(Phase::Wired);
                Ok(())
            }
            Link::Wireless(_) => {
                self.shared.phase(Phase::Wireless);
                super::wireless::join(self, &interface)
            }
        };
        let mut watching = Watching::new(&self.shared);
        let up = joined.and_then(|()| {
            net::configure(&interface, &self.task.settings.network, &mut watching).map_err(|e| {
                let why = e.to_string();
                // It is said which interface already.
                why.strip_prefix(&format!("{interface}: ")).map(String::from).unwrap_or(why)
            })
        });
        match up {
            Ok(up) => {
                let sentence = up.to_string();
                self.shared.tell(&sentence);
                self.shared.change(|status| status.network = Some(sentence));
                self.up = Some(up);
                Came::Done
            }
            Err(why) => {
                // It let us in, and gave no address.
                if !self.shared.is_wished() {
                    self.points.blame();
                }
                self.failed(&interface, &why);
                self.disconnect();
                Came::Failed
            }
        }
    }

    /// Takes the network down, if one is up.
    pub(super) fn disconnect(&mut self) {
        if let Some(up) = self.up.take() {
            net::take_down(&up.interface);
        }
        self.radio = None;
        self.points.leave();
        self.shared.change(|status| status.network = None);
    }

    /// Connections at once.
    pub(super) fn channels(&self) -> usize {
        self.task.settings.recovery.channels.clamp(1, 32) as usize
    }

    /// Tells that a source failed: the console each time, the ledger when it is news.
    pub(super) fn failed(&mut self, source: &str, why: &str) {
        if self.shared.is_wished() {
            return;
        }
        self.shared.tell(&format!("{source}: {why}"));
        let tried = Tried { at: u64::from(time::uptime()), source: source.into(), why: why.into() };
        self.shared.change(|status| status.failed(tried));
        if self.told.get(source).is_none_or(|before| before != why) {
            self.told.insert(source.into(), why.into());
            self.record(&format!("{source}: {why}"));
        }
    }

    /// Writes to the ledger, where there is a root for it.
    pub(super) fn record(&self, text: &str) {
        // What a drill found is one record, with its result.
        if self.task.root == mend::Root::Mounted && !self.task.drill {
            let mut diary = Diary::new();
            diary.note(Kind::Recovery, None, text);
            diary.write(&self.task.site.sysroot);
        }
    }

    /// Writes down what was used of the day, if it is news.
    pub(super) fn keep_budget(&mut self) {
        let budget = *self.flow.budget();
        if budget == self.written || self.task.root != mend::Root::Mounted {
            return;
        }
        self.written = budget;
        let sysroot = &self.task.site.sysroot;
        let mut kept = budget::keep(sysroot, &budget);
        if kept.is_err() {
            // A root that is mounted read-only.
            kept = while_writable(sysroot, || budget::keep(sysroot, &budget));
        }
        if let Err(e) = kept {
            warn!("{e}; the tries of this day are not remembered");
        }
    }
}

/// Shows the console what is waited for, and ends the wait when someone wants something.
pub(super) struct Watching<'a> {
    shared: &'a Shared,
}

impl<'a> Watching<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Watching { shared }
    }
}

impl Watch for Watching<'_> {
    fn tell(&mut self, line: &str) {
        self.shared.tell(line);
    }

    fn alive(&mut self) -> bool {
        self.shared.alive(PATIENCE);
        !self.shared.is_wished()
    }
}

/// The path as a string, for messages.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
