//! What recovery is given, and what it changes for the rest of the boot.

use std::path::Path;
use std::time::{Duration, Instant};

use log::{error, info, warn};

use crate::ledger::Kind;
use crate::observe::Observation;
use crate::policy::{Action, Decision, Facts, Request, Via};
use crate::recovery::mend::Root;
use crate::recovery::operator::session::Access;
use crate::recovery::operator::terminal::Terminal;
use crate::recovery::settings::Settings;
use crate::recovery::story::Story;
use crate::recovery::{self, Outcome, Task};
use crate::sysroot::Deployment;
use crate::trial::act::Site;

use super::{Boot, CONFIG, FIRMWARE, SYSROOT, act, request, root};

/// The key is waited for so many milliseconds at most.
const KEY_WAIT_MAX: u32 = 10_000;

/// What recovery did in this boot.
#[derive(Debug, Default)]
pub struct Done {
    /// So often a deployment was brought or mended.
    recovered: u32,
    /// The root's filesystem was checked or made anew.
    mended: bool,
    /// There was a fire drill: whatever became of its request, there is no second one.
    drilled: bool,
    /// Somebody pressed the key in time, and recovery has not been there since.
    key: bool,
}

impl Done {
    /// Notes how recovery ended.
    pub fn note(&mut self, outcome: Outcome, mounted: bool) {
        self.recovered += u32::from(outcome == Outcome::Recovered && mounted);
        self.mended |= outcome == Outcome::Recovered && !mounted;
        self.key = false;
    }

    /// Whatever asked for recovery has had it, and what the bootloader named was chosen before it.
    pub fn content(&self, facts: &mut Facts) {
        if self.key {
            facts.request.get_or_insert(Request::Console);
        }
        if self.recovered > 0 {
            facts.request = None;
            facts.named = None;
        }
        if self.drilled && facts.request == Some(Request::Drill) {
            facts.request = None;
        }
    }

    /// Whether the bootloader starts what recovery brought better than this kernel does: it knows the new entry. Only
    /// recovery's own boot asks for that, so that it happens once.
    pub fn needs_loader(&self, decision: &Decision) -> bool {
        let wrong = matches!(decision.action, Action::Boot { via: Via::Mismatched, .. });
        let needed = self.recovered > 0 && wrong;
        if needed {
            info!("what recovery brought has another kernel: restarting, for the bootloader to start it");
        }
        needed
    }
}

/// Waits for the key that asks for recovery, for as long as is configured: by default not at all.
pub fn wait_for_key(boot: &mut Boot) {
    let settings = settings();
    let wait = settings.recovery.console.key_wait.min(KEY_WAIT_MAX);
    if wait == 0 || settings.access() == Access::Off {
        return;
    }
    let mut terminal = Terminal::open(Path::new(boot.config.recovery_console.as_str()));
    terminal.put(b"\r\nbootward: press r for recovery\r\n");
    let end = Instant::now() + Duration::from_millis(u64::from(wait));
    while !boot.recovered.key && Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        let heard = terminal.wait(left);
        boot.recovered.key = heard.bytes.iter().any(|byte| matches!(byte, b'r' | b'R'));
    }
    if boot.recovered.key {
        info!("the key for recovery was pressed");
    }
}

/// All that the worker needs to know.
pub fn task(boot: &Boot, observation: Option<&Observation>, failed: &[(usize, String)]) -> Task {
    let deployments = observation.map_or(&[][..], |o| o.sysroot.deployments.as_slice());
    let why = |(index, d): (usize, &Deployment)| {
        let failed = failed.iter().find(|f| f.0 == index).map(|f| f.1.clone());
        failed.or(d.verdict.as_ref().err().map(ToString::to_string)).map(|why| (index, why))
    };
    let env_config = Path::new(boot.config.env.as_str());
    Task {
        settings: settings(),
        command_line: boot.command_line.clone(),
        site: Site {
            sysroot: SYSROOT.into(),
            boot: boot.boot_directory().into(),
            env_config: env_config.exists().then(|| env_config.into()),
            booted: None,
            booted_index: None,
            options: None,
        },
        firmware: (!boot.config.firmware_device.is_empty()).then(|| FIRMWARE.into()),
        root: if observation.is_some() { Root::Mounted } else { Root::Absent(root::named(boot)) },
        stateroot: deployments.first().map(|d| d.stateroot.clone()),
        deployments: deployments.to_vec(),
        broken: deployments.iter().enumerate().filter_map(why).collect(),
        again: boot.recovered.recovered,
        formatted: boot.recovered.mended,
        drill: observation.is_some_and(|o| o.facts.request == Some(Request::Drill)),
    }
}

/// A fire drill, after which the boot goes on as if it had not been: its request is gone before it begins, and the ledger
/// has its result and no attempt.
pub fn drill(
    boot: &mut Boot,
    story: &Story,
    observation: &Observation,
    settings: &recovery::Settings<'_>,
) -> Outcome {
    let root = Path::new(SYSROOT);
    boot.recovered.drilled = true;
    boot.diary.note(Kind::DrillBegan, None, "");
    boot.diary.write(root);
    let (outcome, passed, text) = match request::consume(boot) {
        Err(why) => (Outcome::Retry, false, why),
        Ok(()) => {
            let task = task(boot, Some(observation), &[]);
            let history = |line: &mut dyn FnMut(&str)| act::print_ledger(root, line);
            recovery::run_drill(story, settings, task, || boot.alive(), history)
        }
    };
    info!("the fire drill {}: {text}", if passed { "passed" } else { "failed" });
    boot.diary.note(if passed { Kind::DrillPassed } else { Kind::DrillFailed }, None, &text);
    boot.diary.write(root);
    // Whatever somebody at the console wanted besides, the next boot is an ordinary one.
    if matches!(outcome, Outcome::Recovered) { Outcome::Retry } else { outcome }
}

fn settings() -> Settings {
    let file = match std::fs::read(CONFIG) {
        Ok(file) => file,
        Err(e) => {
            warn!("{CONFIG}: {e}; recovery does nothing by itself");
            return Settings::default();
        }
    };
    let (settings, complaints) = Settings::parse(&file);
    for complaint in &complaints.first {
        error!("{CONFIG}: {complaint}");
    }
    if settings.unclear {
        error!("{CONFIG}: with a wrong line in [recovery] nothing is fetched");
    }
    settings
}
