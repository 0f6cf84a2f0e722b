//! Joins a wireless network: the one that someone typed, then every one that is known.

use std::path::PathBuf;
use std::time::Duration;

use super::worker::{Watching, Worker};
use crate::net::wifi::{Origin, Places, Profile, Radio, Settings, profiles};

/// Starts the radio and joins the first network that lets us in.
///
/// # Errors
/// Why none did.
pub(super) fn join(worker: &mut Worker, interface: &str) -> Result<(), String> {
    let wifi = &worker.task.settings.wifi;
    let settings = Settings {
        supplicant: PathBuf::from(&wifi.supplicant),
        country: wifi.country.clone(),
        join: Duration::from_secs(u64::from(wifi.join)),
        ..Settings::default()
    };
    let places = Places {
        boot: Some(worker.task.site.boot.clone()),
        root: Some(worker.task.site.sysroot.clone()),
        ..Places::default()
    };
    let mut known: Vec<Profile> = worker.typed.iter().cloned().collect();
    known.extend(profiles(&places));
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
        match radio.join(profile, &mut watching) {
            Ok(joined) => {
                shared.tell(&format!("{interface} joined '{}' ({})", joined.name, joined.key_mgmt));
                worker.radio = Some(radio);
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
