//! The switches of radios: `/sys/class/rfkill` (Documentation/ABI/stable/sysfs-class-rfkill). Ring: std.

use std::fs;
use std::path::Path;

/// Switches every Wi-Fi radio on that software has switched off.
///
/// # Errors
/// The name of one that a switch on the device keeps off, where no other is on.
pub(super) fn on(directory: &Path) -> Result<(), String> {
    let mut off = None;
    let mut usable = false;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let switch = entry.path();
        let value = |name: &str| fs::read_to_string(switch.join(name)).unwrap_or_default().trim().to_string();
        if value("type") != "wlan" {
            continue;
        }
        if value("hard") == "1" {
            off = Some(value("name"));
            continue;
        }
        if value("soft") == "1" {
            log::info!("the radio {} was switched off by software and is switched on", value("name"));
            if let Err(e) = fs::write(switch.join("soft"), "0") {
                log::warn!("the radio {} stays off: {e}", value("name"));
            }
        }
        usable = true;
    }
    match off {
        Some(name) if !usable => Err(super::profile::shown(name.as_bytes())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_off_is_switched_on_and_a_hard_switch_is_told() {
        let room = tempfile::tempdir().unwrap();
        let radio = |name: &str, kind: &str, soft: &str, hard: &str| {
            let at = room.path().join(name);
            fs::create_dir_all(&at).unwrap();
            for (file, text) in [("type", kind), ("name", name), ("soft", soft), ("hard", hard)] {
                fs::write(at.join(file), format!("{text}\n")).unwrap();
            }
        };
        assert_eq!(on(&room.path().join("none")), Ok(()));
        radio("phy0", "wlan", "1", "0");
        radio("hci0", "bluetooth", "1", "0");
        assert_eq!(on(room.path()), Ok(()));
        let soft = |name: &str| fs::read_to_string(room.path().join(name).join("soft")).unwrap();
        assert_eq!((soft("phy0").as_str(), soft("hci0").as_str()), ("0", "1\n"));
        radio("phy0", "wlan", "0", "1");
        assert_eq!(on(room.path()), Err("phy0".into()));
        radio("phy1", "wlan", "0", "0");
        assert_eq!(on(room.path()), Ok(()));
    }
}
