//! What recovery is given, and what it changes for the rest of the boot.

use std::path::Path;

use log::{error, info, warn};

use crate::observe::Observation;
use crate::policy::{Action, Decision, Facts, Via};
use crate::recovery::mend::Root;
use crate::recovery::settings::Settings;
use crate::recovery::{Outcome, Task};
use crate::sysroot::Deployment;
use crate::trial::act::Site;

use super::{Boot, CONFIG, FIRMWARE, SYSROOT, root};

/// What recovery did in this boot.
#[derive(Debug, Default)]
pub struct Done {
    /// So often a deployment was brought or mended.
    recovered: u32,
    /// The root's filesystem was checked or made anew.
    mended: bool,
}

impl Done {
    /// Notes how recovery ended.
    pub fn note(&mut self, outcome: Outcome, mounted: bool) {
        self.recovered += u32::from(outcome == Outcome::Recovered && mounted);
        self.mended |= outcome == Outcome::Recovered && !mounted;
    }

    /// Whatever asked for recovery has had it, and what the bootloader named was chosen before it.
    pub fn content(&self, facts: &mut Facts) {
        if self.recovered > 0 {
            facts.request = None;
            facts.named = None;
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
        deployed: deployments.iter().map(|d| d.commit.clone()).collect(),
        broken: deployments.iter().enumerate().filter_map(why).collect(),
        again: boot.recovered.recovered,
        formatted: boot.recovered.mended,
    }
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
