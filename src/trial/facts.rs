//! Gathers what the verbs go by: the deployments, the ledger, the bootloader's variables.

use std::path::{Path, PathBuf};

use log::warn;

use crate::arrange::Layout;
use crate::arrange::survey::{self, Places, survey};
use crate::ledger::{DeploymentId, History, Kind, file};
use crate::mounts::booted::Booted;
use crate::policy::{BootState, Reading};
use crate::sys::time;
use crate::sysroot::{Deployment, Look, Machine, Sysroot};
use crate::uboot::store::{DEFAULT_CONFIG, Store, boot_state};

use super::settle::{Known, Standing, Variables};

/// What the ledger says of a change that the bootloader may not see before the next boot.
pub(crate) const UNFROZEN: &str = "not frozen: ";

/// Where all of it is.
#[derive(Clone, Debug)]
pub struct Site {
    /// The physical root.
    pub sysroot: PathBuf,
    /// The boot directory.
    pub boot: PathBuf,
    /// `fw_env.config`, where the device has a U-Boot environment.
    pub env_config: Option<PathBuf>,
    /// Device and inode of the running deployment.
    pub booted: Option<(u64, u64)>,
    /// The running one by its index, for an image of which none is running.
    pub booted_index: Option<usize>,
    /// Kernel arguments for a deployment that has no boot entry.
    pub options: Option<String>,
}

impl Site {
    /// The running system, or an image that is mounted somewhere: of that one no deployment is running, and it has no
    /// environment unless one is named.
    pub fn of(image: Option<&Path>) -> Self {
        let sysroot = image.unwrap_or(Path::new("/sysroot"));
        // A system that does not mount its boot directory has it on the physical root.
        let own = image.is_none() && Path::new("/boot/loader").exists();
        let booted = Booted::read(Path::new("/")).filter(|_| image.is_none());
        let options = std::fs::read_to_string("/proc/cmdline").ok().filter(|_| image.is_none());
        Site {
            sysroot: sysroot.into(),
            boot: if own { "/boot".into() } else { sysroot.join("boot") },
            env_config: image.is_none().then(|| DEFAULT_CONFIG.into()),
            booted: booted.and_then(|b| b.device_inode),
            booted_index: None,
            options: options.map(|o| o.trim().into()),
        }
    }
}

/// The deployments as they are written down; `deep` compares the kernels in the boot directory byte for byte.
pub(crate) fn read(site: &Site, deep: bool) -> Result<Layout, survey::Error> {
    survey(&Places {
        sysroot: &site.sysroot,
        boot: &site.boot,
        booted: site.booted,
        options: site.options.as_deref(),
        deep,
    })
}

/// Whether libostree has a deployment ready that gets its entry at the next shutdown.
pub(crate) fn staged(site: &Site) -> bool {
    site.booted.is_some() && Path::new("/run/ostree/staged-deployment").exists()
}

/// What the ledger knows.
pub(crate) struct Past {
    pub histories: Vec<(DeploymentId, History)>,
    /// The deployments were changed in this boot.
    pub changed: bool,
    /// And the bootloader may not know.
    pub unfrozen: bool,
    /// What was confirmed in this boot.
    pub confirmed: Vec<DeploymentId>,
}

impl Past {
    pub fn read(sysroot: &Path) -> Self {
        let boot = time::boot_id();
        let mut past = Past { histories: Vec::new(), changed: false, unfrozen: false, confirmed: Vec::new() };
        let read = file::open(sysroot).and_then(|mut ring| {
            ring.each(|record| {
                if record.kind == Kind::Changed && record.boot == boot {
                    past.changed = true;
                    past.unfrozen = record.text.starts_with(UNFROZEN);
                }
                if record.kind == Kind::Confirmed && record.boot == boot {
                    past.confirmed.push(record.deployment);
                }
                match past.histories.iter_mut().find(|(id, _)| *id == record.deployment) {
                    Some((_, history)) => history.add(record.kind),
                    None => {
                        let mut history = History::default();
                        history.add(record.kind);
                        past.histories.push((record.deployment, history));
                    }
                }
            })
        });
        if let Err(e) = read
            && e.error.kind() != std::io::ErrorKind::NotFound
        {
            warn!("the boot ledger cannot be read, no attempt is known: {e}");
        }
        past
    }

    pub fn history(&self, commit: &str, serial: u32) -> History {
        let id = DeploymentId::parse(commit, serial);
        self.histories.iter().find(|(other, _)| Some(*other) == id).map(|(_, h)| *h).unwrap_or_default()
    }
}

/// The bootloader's variables, where there are any.
pub(crate) struct Environment {
    pub state: BootState,
    pub present: bool,
}

impl Environment {
    pub fn read(site: &Site) -> Result<Self, String> {
        let Some(config) = site.env_config.as_deref().filter(|c| c.exists()) else {
            return Ok(Environment { state: BootState::default(), present: false });
        };
        let loaded = Store::open_to_read(config).and_then(|mut s| s.load()).map_err(|e| e.to_string())?;
        Ok(Environment { state: boot_state(&loaded), present: loaded.image().is_some() })
    }

    /// What differs from what is there. A variable that is absent counts as 0 and is not made.
    pub fn changes(&self, wanted: &Variables) -> Vec<(String, String)> {
        if !self.present {
            return Vec::new();
        }
        let flag = |reading: Reading<bool>| reading.map(u32::from);
        let numbers = [
            ("rollback", flag(self.state.rollback), wanted.rollback.map(u32::from)),
            (
                "upgrade_available",
                flag(self.state.upgrade_available),
                wanted.upgrade_available.map(u32::from),
            ),
            ("bootcount", self.state.bootcount, wanted.bootcount),
        ];
        let differs = |reading: Reading<u32>, value: u32| match reading {
            Reading::Absent => value != 0,
            Reading::Corrupt => true,
            Reading::Value(now) => now != value,
        };
        let mut changes = Vec::new();
        for (name, now, wanted) in numbers {
            if let Some(value) = wanted.filter(|value| differs(now, *value)) {
                changes.push((name.to_string(), value.to_string()));
            }
        }
        if wanted.recovery {
            changes.push(("bootward_recovery".to_string(), "1".to_string()));
        }
        changes
    }
}

pub(crate) fn standing(site: &Site, layout: &Layout, past: &Past, environment: &Environment) -> Standing {
    let look = Look {
        sysroot: &site.sysroot,
        boot: &site.boot,
        release: "",
        machine: Machine::native(),
        init: None,
    };
    let found = Sysroot::read(&look).unwrap_or_default();
    let named = site.booted_index.map(|index| (index < layout.entries.len()).then_some(index));
    let booted = named.unwrap_or_else(|| layout.entries.iter().position(|e| e.booted));
    let ours = booted.and_then(|b| layout.entries.get(b)).map(|e| e.stateroot.as_str());
    let known = layout.entries.iter().map(|entry| {
        let same = |d: &&Deployment| {
            d.stateroot == entry.stateroot && d.commit == entry.commit && d.deploy_serial == entry.serial
        };
        let history = past.history(&entry.commit, entry.serial);
        Known {
            bootable: found.deployments.iter().find(same).is_some_and(|d| d.verdict.is_ok()),
            tried: history.unconfirmed > 0,
            confirmed: history.confirmed && history.unconfirmed == 0,
            pinned: entry.pinned,
            ours: ours.is_none_or(|ours| ours == entry.stateroot),
        }
    });
    Standing {
        deployments: known.collect(),
        booted,
        state: environment.state,
        environment: environment.present,
    }
}
