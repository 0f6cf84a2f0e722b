//! Gathers everything the decision needs into plain data. Nothing is decided and nothing is written here.

use std::path::Path;

use crate::cmdline::CommandLine;
use crate::ledger::{DeploymentId, History, Kind, Limits, file};
use crate::policy::{Attempts, BootState, Candidate, Facts, Reading, Request};
#[cfg(feature = "recovery")]
use crate::recovery::request::Asked;
use crate::sysroot::{Deployment, Look, Machine, Named, Sysroot};
#[cfg(feature = "recovery")]
use crate::uboot::store::RECOVERY;
use crate::uboot::store::{Condition, Loaded, Store, boot_state, recovery_requested};

/// Where to look, and what is known before looking.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The physical root.
    pub sysroot: &'a Path,
    /// The boot directory: `SYSROOT/boot`, or a boot partition of its own.
    pub boot: &'a Path,
    /// `fw_env.config`; `None` where the device has no U-Boot.
    pub env_config: Option<&'a Path>,
    /// The environment is in files that are made writable for each write: what is read-only now will not be then.
    pub env_remount: bool,
    /// The kernel command line.
    pub command_line: &'a str,
    /// The init that is wanted; `None` for the usual places.
    pub init: Option<&'a str>,
    /// Release of the running kernel.
    pub release: &'a str,
    /// Machine of the running kernel.
    pub machine: Machine,
    /// When a deployment is not tried any more.
    pub limits: Limits,
    /// Another kernel can be started from here.
    pub kexec: bool,
    /// The platform says that the last boot ended because the power went.
    pub power_lost: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Observation {
    /// The deployments in boot order, and what is odd about the sysroot.
    pub sysroot: Sysroot,
    /// What the policy is given.
    pub facts: Facts,
    /// The state of the bootloader's environment in one sentence.
    pub environment: String,
    /// What is worth telling although it does not stop the boot.
    pub notes: Vec<String>,
    /// The deployment whose attempt ended because the power went; to be written to the ledger.
    pub power_lost: Option<DeploymentId>,
}

/// Looks at everything once.
pub fn observe(sources: &Sources<'_>) -> Observation {
    let mut notes = Vec::new();
    let look = Look {
        sysroot: sources.sysroot,
        boot: sources.boot,
        release: sources.release,
        machine: sources.machine,
        init: sources.init,
    };
    let sysroot = Sysroot::read(&look).unwrap_or_else(|e| {
        notes.push(e.to_string());
        Sysroot::default()
    });
    notes.extend(sysroot.notes.iter().map(ToString::to_string));
    for deployment in &sysroot.deployments {
        notes.extend(deployment.findings.iter().map(|f| format!("{}: {f}", deployment.name())));
    }
    let environment = Environment::read(sources.env_config, sources.env_remount);
    if environment.odd {
        notes.push(environment.sentence.clone());
    }
    let command_line = CommandLine::parse(sources.command_line);
    let named =
        command_line.value("ostree").and_then(|argument| match sysroot.named(sources.sysroot, argument) {
            Named::Index(index) => Some(index),
            Named::Meant(index) => {
                let name = sysroot.deployments.get(index).map(Deployment::name).unwrap_or_default();
                notes.push(format!("ostree={argument} leads nowhere; it was meant for {name}"));
                Some(index)
            }
            Named::Nothing(why) => {
                notes.push(format!("ostree={argument} is no guide: {why}"));
                None
            }
        });
    let ids: Vec<_> = sysroot.deployments.iter().map(Deployment::id).collect();
    let (histories, ended) = histories(sources, &ids, &mut notes);
    let [first, second] = [0, 1].map(|index| histories.get(index).copied().unwrap_or_default());
    // The ledger counts every deployment, confirmed before or not: one that crashes after its hand-over again
    // and again is as good as broken, and recovery comes in the end (tests/sim/policy_device.rs).
    let limits = sources.limits;
    let worn_out = |h: &History| limits.exceeded(h);
    for (deployment, h) in sysroot.deployments.iter().zip(&histories).filter(|(_, h)| worn_out(h)) {
        notes.push(format!(
            "{}: attempted {} times since its last confirmation, {} of the last {} attempts never confirmed; not tried again",
            deployment.name(),
            h.unconfirmed,
            h.failures(limits.window),
            limits.window
        ));
    }
    let request = if command_line.has("bootward.recovery") {
        Some(Request::CommandLine)
    } else {
        requested(environment.request, sources.sysroot)
    };
    let facts = Facts {
        request,
        state: environment.state,
        attempts: Attempts { failed: first.unconfirmed, limit: limits.limit, confirmed: first.confirmed },
        candidates: sysroot
            .deployments
            .iter()
            .zip(&histories)
            .map(|(d, h)| Candidate { bootable: d.verdict.is_ok() && !worn_out(h), kernel: d.kernel })
            .collect(),
        listed: sysroot.deployments.iter().filter(|d| d.entry.is_some()).count(),
        named,
        kexec: sources.kexec,
        loader: environment.writable && !second.loader_asked,
    };
    Observation { sysroot, facts, environment: environment.sentence, notes, power_lost: ended }
}

/// What the variable asks for.
fn of_variable(loaded: &Loaded) -> Option<Request> {
    #[cfg(feature = "recovery")]
    if loaded.get(RECOVERY).and_then(Asked::of_variable) == Some(Asked::Drill) {
        return Some(Request::Drill);
    }
    recovery_requested(loaded).then_some(Request::Environment)
}

/// Of the two places of a request the environment leads, and recovery comes before a drill.
#[cfg(feature = "recovery")]
fn requested(environment: Option<Request>, sysroot: &Path) -> Option<Request> {
    let root = crate::recovery::ask::on_root(sysroot).map(|asked| match asked {
        Asked::Recovery => Request::Root,
        Asked::Drill => Request::Drill,
    });
    [environment, root].into_iter().flatten().min_by_key(|request| *request == Request::Drill)
}

#[cfg(not(feature = "recovery"))]
fn requested(environment: Option<Request>, _: &Path) -> Option<Request> {
    environment
}

/// What the ledger knows of each deployment, nothing where there is no ledger yet; and the deployment whose attempt ended
/// with the power, where one did.
fn histories(
    sources: &Sources<'_>,
    ids: &[Option<DeploymentId>],
    notes: &mut Vec<String>,
) -> (Vec<History>, Option<DeploymentId>) {
    let mut all = vec![History::default(); ids.len()];
    let mut tried = None;
    let read = file::open(sources.sysroot).and_then(|mut ring| {
        // One pass for all of them: this is on the way of every boot.
        ring.each(|record| {
            match record.kind {
                Kind::Attempt => tried = Some(record.deployment),
                Kind::Confirmed | Kind::PowerLost | Kind::Failed | Kind::Recovery => tried = None,
                _ => {}
            }
            for (history, _) in all.iter_mut().zip(ids).filter(|(_, id)| **id == Some(record.deployment)) {
                history.add(record.kind);
            }
        })
    });
    if let Err(e) = read
        && e.error.kind() != std::io::ErrorKind::NotFound
    {
        notes.push(format!("the boot ledger cannot be read, attempts count as none: {e}"));
    }
    let ended = tried.filter(|_| sources.power_lost);
    for (history, _) in all.iter_mut().zip(ids).filter(|(_, id)| ended.is_some() && **id == ended) {
        history.add(Kind::PowerLost);
    }
    (all, ended)
}

/// The bootloader's environment, as far as the decision needs it.
#[derive(Debug, Default)]
struct Environment {
    state: BootState,
    request: Option<Request>,
    writable: bool,
    sentence: String,
    odd: bool,
}

impl Environment {
    fn read(config: Option<&Path>, remount: bool) -> Self {
        let Some(config) = config.filter(|c| c.exists()) else {
            return Environment { sentence: "there is no U-Boot environment".into(), ..Self::default() };
        };
        // Asking whether it can be written comes before reading it: the same store is not opened twice.
        let opened = Store::open(config)
            .map(|s| (s, true))
            .or_else(|_| Store::open_to_read(config).map(|s| (s, false)));
        let loaded = opened.and_then(|(mut store, writable)| {
            store.load().map(|l| (l, remount || writable && store.is_writable()))
        });
        match loaded {
            Ok((loaded, writable)) => {
                // Told before it is needed: a bootloader that cannot be told goes on counting, or never rolls back.
                let refused = if writable { "" } else { "; it cannot be written, unlock its device" };
                Environment {
                    state: boot_state(&loaded),
                    request: of_variable(&loaded),
                    writable: writable && loaded.image().is_some(),
                    sentence: format!("{}{refused}", loaded.condition),
                    odd: loaded.condition != Condition::Good || !writable,
                }
            }
            Err(e) => {
                let corrupt = Reading::Corrupt;
                Environment {
                    state: BootState {
                        rollback: corrupt,
                        upgrade_available: corrupt,
                        bootcount: Reading::Corrupt,
                        bootlimit: Reading::Corrupt,
                    },
                    sentence: format!("the U-Boot environment cannot be read, going on without: {e}"),
                    odd: true,
                    ..Self::default()
                }
            }
        }
    }
}
