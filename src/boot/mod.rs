//! PID 1: observe, decide, record, act.
//!
//! The stages stand below in their order. Every failure has a next step: the next deployment, then recovery,
//! then a timed restart. Nothing here returns.

mod act;
mod cause;
mod early;
mod kexec;
#[cfg(feature = "recovery")]
mod recover;
#[cfg(feature = "recovery")]
mod request;
mod root;
mod trust;
mod watchdog;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use log::{LevelFilter, error, info, warn};

use crate::cmdline::CommandLine;
use crate::config::Config;
use crate::ledger::diary::Diary;
use crate::ledger::{Kind, Limits};
use crate::observe::{Observation, Sources, observe};
#[cfg(feature = "recovery")]
use crate::policy::Request;
use crate::policy::{Action, Decision, Rule, Via, decide};
use crate::recovery::story::{Chapter, Story};
use crate::recovery::{self, Outcome};
use crate::sysroot::Machine;
use cause::Cause;
use watchdog::Watchdog;

/// Where the physical root is mounted.
const SYSROOT: &str = "/sysroot";
/// Where a boot partition of its own is mounted while the boot looks at it.
const BOOT: &str = "/boot";
/// Where the partition with the environment's files is mounted while the boot looks at it.
const FIRMWARE: &str = "/firmware";
/// The configuration in the initramfs.
const CONFIG: &str = "/etc/bootward/bootward.toml";
/// Longest time between two signs of life to the watchdog.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Everything that stays the same for the whole boot.
struct Boot {
    command_line: String,
    config: Config,
    watchdog: Option<Watchdog>,
    release: String,
    diary: Diary,
    /// Why the last boot ended.
    cause: Cause,
    /// Another kernel may be started from this one.
    kexec: bool,
    /// What recovery did in this boot.
    #[cfg(feature = "recovery")]
    recovered: recover::Done,
}

/// Boots the device. Never returns.
pub fn run() -> ExitCode {
    let unmounted = early::prepare();
    crate::logging::to_kernel(LevelFilter::Info);
    for (target, errno) in unmounted {
        error!("cannot mount {target}: {errno}");
    }
    std::panic::set_hook(Box::new(|info| {
        error!("a fault in bootward itself, restarting: {info}");
        std::thread::sleep(Duration::from_secs(5));
        act::restart();
    }));
    let mut boot = Boot::prepare();
    #[cfg(feature = "recovery")]
    recover::wait_for_key(&mut boot);
    loop {
        match boot.once() {
            Outcome::Reboot => act::restart(),
            Outcome::PowerOff => act::power_off(),
            _ => {}
        }
    }
}

impl Boot {
    /// Stage 1: what the rest of the boot is done with.
    fn prepare() -> Self {
        let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let config = read_config();
        crate::logging::set_level(level(&config));
        let mut boot = Boot {
            command_line,
            config,
            watchdog: None,
            release: crate::sys::kernel_release(),
            diary: Diary::new(),
            cause: Cause::Unknown,
            kexec: false,
            #[cfg(feature = "recovery")]
            recovered: recover::Done::default(),
        };
        info!("version {} for {}, kernel {}", env!("CARGO_PKG_VERSION"), Machine::native(), boot.release);
        boot.arm_watchdog(false);
        let modules = format!("/lib/modules/{}", boot.release);
        crate::modules::load_all(Path::new(&modules), boot.config.modules.iter().map(|m| m.as_str()));
        // Its driver may have been one of the modules.
        boot.arm_watchdog(true);
        boot.kexec = kexec::is_possible(&boot);
        boot.cause = Cause::of(&boot.command_line, boot.watchdog.as_ref());
        if let Some(sentence) = boot.cause.sentence() {
            warn!("{sentence}");
            boot.diary.note(Kind::Note, None, sentence);
        }
        boot
    }

    fn arm_watchdog(&mut self, complain: bool) {
        let device = self.config.watchdog_device.as_str();
        if device.is_empty() || self.watchdog.is_some() {
            return;
        }
        match Watchdog::arm(Path::new(device), self.config.watchdog_timeout) {
            Ok(watchdog) => self.watchdog = Some(watchdog),
            Err(e) if complain => warn!("watchdog {device} is not armed: {e}"),
            Err(_) => {}
        }
    }

    fn alive(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed();
        }
    }

    /// Stages 2 to 7, once over. Comes back only when recovery ended.
    fn once(&mut self) -> Outcome {
        if let Err(reason) = root::mount(self) {
            error!("{reason}");
            return self.recover(Story { reason, ..Story::default() }, None, &[]);
        }
        let mut failed: Vec<(usize, String)> = Vec::new();
        let mut wanted = None;
        loop {
            self.alive();
            let mut observation = self.observe();
            #[cfg(feature = "recovery")]
            self.recovered.content(&mut observation.facts);
            for (index, _) in &failed {
                if let Some(candidate) = observation.facts.candidates.get_mut(*index) {
                    candidate.bootable = false;
                }
            }
            let mut decision = decide(&observation.facts);
            if let Some(index) = wanted.take() {
                decision.action = Action::Boot { index, via: Via::Direct };
                decision.rule = Rule::Chosen;
            }
            self.tell(&observation, &decision);
            #[cfg(feature = "recovery")]
            if self.recovered.needs_loader(&decision) {
                return Outcome::Reboot;
            }
            if let Action::Boot { index, via } = decision.action {
                let why = self.boot(&observation, &decision, index, via);
                if via == Via::Kexec && !self.kexec {
                    // It may still boot by another way.
                    warn!("{why}; going on without kexec");
                    continue;
                }
                error!("deployment {index} does not boot: {why}");
                failed.push((index, why));
                continue;
            }
            let story = story(&observation, &decision, &failed);
            let recovery = match self.recover(story, Some(&observation), &failed) {
                Outcome::Boot(index) => {
                    failed.retain(|f| f.0 != index);
                    wanted = Some(index);
                    continue;
                }
                other => other,
            };
            root::unmount();
            return recovery;
        }
    }

    /// The boot directory, on the root or on its own partition.
    fn boot_directory(&self) -> &'static str {
        if self.config.boot_device.is_empty() { "/sysroot/boot" } else { BOOT }
    }

    /// Stage 3.
    fn observe(&self) -> Observation {
        observe(&Sources {
            sysroot: Path::new(SYSROOT),
            boot: Path::new(self.boot_directory()),
            env_config: Some(Path::new(self.config.env.as_str())),
            env_remount: !self.config.firmware_device.is_empty(),
            command_line: &self.command_line,
            init: self.init(),
            release: &self.release,
            machine: Machine::native(),
            limits: Limits {
                limit: self.config.ledger_limit,
                failures: self.config.ledger_failures,
                window: self.config.ledger_window,
            },
            kexec: self.kexec,
            power_lost: self.cause == Cause::Power,
        })
    }

    /// The init that was asked for: `init=` of the command line, else the configuration's.
    fn init(&self) -> Option<&str> {
        let asked = CommandLine::parse(&self.command_line).value("init");
        // libostree without an initramfs of its own puts its prepare-root there; that is not an init.
        let asked = asked.filter(|init| !init.ends_with("/ostree-prepare-root"));
        asked.or(Some(self.config.init.as_str())).filter(|init| !init.is_empty())
    }

    /// Says and notes down what was found and decided; written when the attempt is recorded.
    fn tell(&mut self, observation: &Observation, decision: &Decision) {
        if let Some(id) = observation.power_lost {
            info!("the last attempt ended with the power and does not count");
            self.diary.note(Kind::PowerLost, Some(id), "");
            self.cause = Cause::Unknown;
        }
        for note in &observation.notes {
            warn!("{note}");
            self.diary.note(Kind::Note, None, note);
        }
        for (index, deployment) in observation.sysroot.deployments.iter().enumerate() {
            match &deployment.verdict {
                Ok(()) => info!("deployment {index}: {}", deployment.name()),
                Err(fault) => {
                    warn!("deployment {index}: {} is broken: {fault}", deployment.name());
                    self.diary.note(Kind::Skipped, deployment.id(), &fault.to_string());
                }
            }
        }
        info!("{}", observation.environment);
        info!("decision: {decision}");
    }

    /// Stages 5 to 7 for one deployment. Comes back only when it failed, with the reason.
    fn boot(&mut self, observation: &Observation, decision: &Decision, index: usize, via: Via) -> String {
        let Some(deployment) = observation.sysroot.deployments.get(index) else {
            return "there is no such deployment".into();
        };
        if let Err(why) = trust::verify_deployment(self, deployment) {
            self.diary.note(Kind::Skipped, deployment.id(), &why);
            return why;
        }
        // Started by kexec, the attempt was recorded by the kernel before.
        let again = via == Via::Direct && CommandLine::parse(&self.command_line).has(kexec::ARGUMENT);
        let kind = match via {
            Via::Loader => Kind::LoaderAsked,
            Via::Direct if again && observation.facts.named == Some(index) => Kind::Note,
            _ => Kind::Attempt,
        };
        self.diary.note(kind, deployment.id(), &decision.to_string());
        self.diary.write(Path::new(SYSROOT));
        let why = match via {
            Via::Loader => act::ask_loader(self),
            Via::Kexec => {
                let why = kexec::start(self, observation, deployment);
                self.kexec = false;
                why
            }
            Via::Direct | Via::Mismatched => act::hand_over(self, deployment),
        };
        self.diary.note(Kind::Failed, deployment.id(), &why);
        why
    }

    fn recover(
        &mut self,
        story: Story,
        observation: Option<&Observation>,
        failed: &[(usize, String)],
    ) -> Outcome {
        let console = self.config.recovery_console.clone();
        let settings = recovery::Settings {
            console: Path::new(console.as_str()),
            reboot_after: self.config.recovery_reboot_after,
            heartbeat: HEARTBEAT,
        };
        #[cfg(feature = "recovery")]
        if let Some(observation) = observation.filter(|o| o.facts.request == Some(Request::Drill)) {
            return recover::drill(self, &story, observation, &settings);
        }
        self.diary.note(Kind::Recovery, None, &story.reason);
        if let Some(observation) = observation {
            self.diary.write(Path::new(SYSROOT));
            act::consume_request(self, observation);
        }
        let history = |line: &mut dyn FnMut(&str)| act::print_ledger(Path::new(SYSROOT), line);
        #[cfg(feature = "recovery")]
        {
            let task = recover::task(self, observation, failed);
            let outcome = recovery::run(&story, &settings, task, || self.alive(), history);
            self.recovered.note(outcome, observation.is_some());
            outcome
        }
        #[cfg(not(feature = "recovery"))]
        {
            let _ = failed;
            recovery::run(&story, &settings, || self.alive(), history)
        }
    }
}

fn story(observation: &Observation, decision: &Decision, failed: &[(usize, String)]) -> Story {
    let chapters = observation.sysroot.deployments.iter().enumerate().map(|(index, deployment)| Chapter {
        name: deployment.name(),
        why: match (failed.iter().find(|f| f.0 == index), &deployment.verdict) {
            (Some((_, why)), _) => why.clone(),
            (None, Err(fault)) => fault.to_string(),
            (None, Ok(())) => "not tried; nothing is known to be wrong with it".into(),
        },
    });
    Story {
        reason: decision.rule.to_string(),
        deployments: chapters.collect(),
        notes: observation.notes.clone(),
    }
}

fn read_config() -> Config {
    let (config, complaints) = match std::fs::read(CONFIG) {
        Ok(file) => Config::parse(&file),
        Err(e) => {
            if e.kind() != std::io::ErrorKind::NotFound {
                error!("{CONFIG} cannot be read, every setting has its default: {e}");
            }
            // What it says of verification is not known then.
            let verify_unclear = e.kind() != std::io::ErrorKind::NotFound;
            return Config { verify_unclear, ..Config::default() };
        }
    };
    for complaint in &complaints.first {
        error!("{CONFIG}: {complaint}");
    }
    if complaints.count as usize > complaints.first.len() {
        error!("{CONFIG}: {} lines in all were skipped", complaints.count);
    }
    config
}

fn level(config: &Config) -> LevelFilter {
    config.log_level.parse().unwrap_or(LevelFilter::Info)
}
