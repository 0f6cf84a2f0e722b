//! Joins a wireless network: the one that someone typed, then every one that is known.

use std::path::PathBuf;
use std::time::Duration;

use super::worker::{Watching, Worker};
use crate::net::Watch;
use crate::net::wifi::{Bssid, Known, Origin, Places, Profile, Radio, Settings, drivers, file, known, slot};
use crate::sys::files::Disk;

/// So many times that nothing came through an access point are remembered.
const VAIN_MAX: usize = 64;

/// Access points through which nothing came in this boot. One that has our network's name and key and is nearer than ours
/// must not keep us from ours, nor a network with a portal from the next one that is known.
#[derive(Debug, Default)]
pub(super) struct Points {
    /// The one that is joined: its network's name, and its address.
    joined: Option<(Vec<u8>, Bssid)>,
    /// Each as often as nothing came.
    vain: Vec<(Vec<u8>, Bssid)>,
}

impl Points {
    /// It was left, for no fault of its own.
    pub(super) fn leave(&mut self) {
        self.joined = None;
    }

    /// Nothing came through the one that is joined.
    pub(super) fn blame(&mut self) {
        if self.vain.len() >= VAIN_MAX {
            self.vain.remove(0);
        }
        self.vain.extend(self.joined.clone());
    }

    /// Those of a network.
    fn of(&self, ssid: &[u8]) -> Vec<Bssid> {
        self.vain.iter().filter(|(name, _)| name == ssid).map(|(_, bssid)| *bssid).collect()
    }
}

/// Starts the radio and joins the first network that lets us in.
///
/// # Errors
/// Why none did.
pub(super) fn join(worker: &mut Worker, interface: &str) -> Result<(), String> {
    let found = places_known(worker);
    let wifi = &worker.task.settings.wifi;
    let country = if wifi.country.is_empty() { &found.country } else { &wifi.country };
    let settings = Settings {
        supplicant: PathBuf::from(&wifi.supplicant),
        country: country.clone(),
        join: Duration::from_secs(u64::from(wifi.join)),
        ..Settings::default()
    };
    let mut known: Vec<Profile> = worker.typed.iter().cloned().collect();
    known.extend(found.profiles);
    // What someone typed stays first.
    known.sort_by_key(|p| if p.origin == Origin::Operator { 0 } else { worker.points.of(&p.ssid).len() + 1 });
    let shared = worker.shared.clone();
    let mut watching = Watching::new(&shared);
    let mut radio = Radio::start(interface, &settings, &mut watching).map_err(|e| e.to_string())?;
    if let Ok(seen) = radio.scan(&mut watching) {
        shared.change(|status| status.seen = seen.iter().map(|s| s.name()).collect());
    }
    if known.is_empty() {
        return Err(
            "no network is known: type one, or put a profile into the initramfs or the boot partition".into(),
        );
    }
    let mut last = String::new();
    for profile in &known {
        match radio.join(profile, &worker.points.of(&profile.ssid), &mut watching) {
            Ok(joined) => {
                let point = joined.bssid.map(|byte| format!("{byte:02x}")).join(":");
                shared
                    .tell(&format!("{interface} joined '{}' ({}) at {point}", joined.name, joined.key_mgmt));
                worker.points.joined = Some((profile.ssid.clone(), joined.bssid));
                worker.radio = Some(radio);
                remember(worker, profile);
                return Ok(());
            }
            Err(e) => {
                if shared.is_wished() {
                    return Err(e.to_string());
                }
                // What was typed is told at once; of the others the last reason is told by the caller.
                if profile.origin == Origin::Operator || !last.is_empty() {
                    shared.tell(&e.to_string());
                }
                last = e.to_string();
            }
        }
    }
    Err(last)
}

/// Loads the radio's driver where no radio is there, from the initramfs. Deployments are not asked: what is in them was not
/// verified by now, and a module would run in the kernel.
pub(super) fn load_drivers(worker: &Worker, watch: &mut dyn Watch) {
    let found = places_known(worker);
    for complaint in &found.complaints {
        watch.tell(complaint);
    }
    drivers::load(&[PathBuf::from("/")], &found.modules, &found.options, watch);
}

fn places_known(worker: &Worker) -> Known {
    let (wifi, site) = (&worker.task.settings.wifi, &worker.task.site);
    let (mut config, mut complaints) = (Vec::new(), Vec::new());
    for text in &wifi.networks {
        match file::line(text, Origin::Config) {
            Ok(profile) => config.push(profile),
            Err(why) => complaints.push(format!("[wifi] networks: {why}")),
        }
    }
    let boot = (!wifi.boot.is_empty()).then(|| site.boot.join(&wifi.boot));
    let mut found = known(&Places {
        config,
        directory: PathBuf::from(&wifi.profiles),
        boot,
        root: Some(site.sysroot.clone()),
    });
    found.complaints.extend(complaints);
    found
}

/// What let us in is tried first the next time. Where the root cannot be written, or is gone, that is no loss now.
fn remember(worker: &Worker, profile: &Profile) {
    if profile.origin == Origin::LastGood {
        return;
    }
    let site = &worker.task.site;
    let Ok(mut disk) = Disk::open(&site.sysroot, &site.boot) else { return };
    if let Err(e) = slot::remember(&mut disk, profile) {
        log::info!("the network is not remembered: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_vain_is_remembered_of_each_network_and_only_so_much_of_it() {
        let mut points = Points::default();
        // Nothing is joined: nobody is to blame.
        points.blame();
        points.joined = Some((b"Home".to_vec(), [1; 6]));
        points.blame();
        points.blame();
        assert_eq!((points.of(b"Home").len(), points.of(b"Work").len()), (2, 0));
        points.leave();
        points.blame();
        assert_eq!(points.of(b"Home"), [[1; 6]; 2]);
        points.joined = Some((b"Work".to_vec(), [2; 6]));
        (0..1000).for_each(|_| points.blame());
        assert_eq!((points.of(b"Home").len(), points.of(b"Work").len()), (0, VAIN_MAX));
    }
}
