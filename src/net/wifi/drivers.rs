//! The radio's driver, from the initramfs or from a deployment. Ring: std.
//!
//! A deployment has modules and firmware for its own kernel, which the running one may be. Whoever calls says which
//! deployments are to be trusted with that: a module is a part of the kernel from the moment it is loaded. Here files are only
//! read.
//!
//! Where no module is named, those are taken that say they drive a device that is there (`modules.alias`), if they need
//! `cfg80211`: so a radio is found, and nothing else is touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::modules;
use crate::net::Watch;

/// Where the kernel looks for firmware besides its own places.
const FIRMWARE: &str = "/sys/module/firmware_class/parameters/path";
/// A radio appears so long after its driver at most: its firmware is loaded meanwhile.
const APPEARS: Duration = Duration::from_secs(10);
/// Most devices that are asked for what drives them.
const DEVICES_MAX: usize = 512;
/// The largest list of aliases that is read, in bytes: Debian's has 1.2 MB.
const ALIASES_MAX: u64 = 16 << 20;
/// What mac80211 asks the kernel's modprobe for without saying so; an initramfs of our builder knows it besides.
const UNSAID: [&str; 3] = ["ccm", "ctr", "cmac"];

/// Loads the radio's driver: `named` ones, or those of the devices that are there, with `options` (`MODULE PARAMETERS`).
/// `places` are roots to look in, the initramfs first. Returns once a radio is there, or none appears in time; whether one
/// is there.
pub fn load(places: &[PathBuf], named: &[String], options: &[String], watch: &mut dyn Watch) -> bool {
    if !crate::net::wireless().is_empty() {
        return true;
    }
    let release = crate::sys::kernel_release();
    for place in places {
        let Some(directory) = directory(place, &release) else { continue };
        let wanted = wanted(&directory, named, &device_aliases(Path::new("/sys/bus")));
        if wanted.is_empty() {
            continue;
        }
        watch.tell(&format!("loading {} from {}", wanted.join(", "), directory.display()));
        firmware(place);
        let dep = fs::read_to_string(directory.join("modules.dep")).unwrap_or_default();
        let mut requests: Vec<String> = unsaid(&dep).map(str::to_string).collect();
        requests.extend(wanted.iter().map(|name| request(name, options)));
        modules::load_all(&directory, requests.iter().map(String::as_str));
        if appears(watch) {
            return true;
        }
    }
    false
}

/// Of what is not said, the modules that there are.
fn unsaid(dep: &str) -> impl Iterator<Item = &'static str> {
    let paths = dep.lines().filter_map(|line| line.split(':').next());
    UNSAID.into_iter().filter(move |name| paths.clone().any(|path| modules::is_module(path, name)))
}

/// A module with its parameters, as the module loader takes it.
fn request(name: &str, options: &[String]) -> String {
    let of = |line: &&String| {
        line.split(' ').next().is_some_and(|m| crate::cmdline::same_name(m.as_bytes(), name.as_bytes()))
    };
    // Options of one module in several lines add up, as modprobe has it.
    let parameters: Vec<&str> =
        options.iter().filter(of).filter_map(|l| l.split_once(' ')).map(|(_, p)| p).collect();
    format!("{name} {}", parameters.join(" "))
}

fn directory(place: &Path, release: &str) -> Option<PathBuf> {
    let below = ["lib/modules", "usr/lib/modules"].map(|folder| place.join(folder).join(release));
    below.into_iter().find(|directory| directory.join("modules.dep").is_file())
}

/// The kernel is told where the deployment's firmware is; the initramfs is where it looks anyway.
fn firmware(place: &Path) {
    if place == Path::new("/") {
        return;
    }
    let found = ["usr/lib/firmware", "lib/firmware"].map(|f| place.join(f)).into_iter().find(|f| f.is_dir());
    let Some(found) = found else { return };
    // Without a line end: the kernel would look for a directory with one.
    if let Err(e) = fs::write(FIRMWARE, found.as_os_str().as_encoded_bytes()) {
        log::warn!("{FIRMWARE}: {e}; firmware is looked for in the initramfs alone");
    }
}

fn wanted(directory: &Path, named: &[String], devices: &BTreeSet<String>) -> Vec<String> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let dep = fs::read_to_string(directory.join("modules.dep")).unwrap_or_default();
    let aliases = directory.join("modules.alias");
    if fs::metadata(&aliases).map_or(0, |m| m.len()) > ALIASES_MAX {
        return Vec::new();
    }
    drivers(&dep, &fs::read_to_string(aliases).unwrap_or_default(), devices)
}

/// The modules that drive one of the devices and depend on cfg80211, directly or not.
fn drivers(dep: &str, aliases: &str, devices: &BTreeSet<String>) -> Vec<String> {
    let radio = |module: &str| {
        dep.lines().filter_map(|line| line.split_once(':')).any(|(path, needs)| {
            modules::is_module(path, module)
                && needs.split_ascii_whitespace().any(|need| modules::is_module(need, "cfg80211"))
        })
    };
    let mut found: Vec<String> = Vec::new();
    for line in aliases.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let fits = !found.iter().any(|m| m == module)
            && devices.iter().any(|device| matches(pattern.as_bytes(), device.as_bytes()));
        if fits && radio(module) {
            found.push(module.into());
        }
    }
    found
}

/// `*` for any bytes, `?` for one, `[abc]` for one of them: what depmod writes.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how much it has taken.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(b'?') => 1,
            Some(b'[') => class(pattern.get(p..).unwrap_or_default(), byte),
            Some(&same) if same == byte => 1,
            _ => 0,
        };
        if step > 0 {
            (p, t) = (p + step, t + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&b| b == b'*')
}

/// The length of a `[...]` that has the byte; 0 where it has not.
fn class(pattern: &[u8], byte: u8) -> usize {
    let Some(end) = pattern.iter().position(|&b| b == b']') else { return 0 };
    let inside = pattern.get(1..end).unwrap_or_default();
    let mut left = inside;
    let mut has = false;
    while let Some((&first, rest)) = left.split_first() {
        (has, left) = match rest {
            [b'-', last, rest @ ..] => (has || (first..=*last).contains(&byte), rest),
            _ => (has || first == byte, rest),
        };
    }
    if has { end + 1 } else { 0 }
}

/// What the devices that are there are called, for their drivers.
fn device_aliases(buses: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for bus in ["pci", "usb", "sdio", "platform", "virtio"] {
        let devices = fs::read_dir(buses.join(bus).join("devices")).into_iter().flatten().flatten();
        for device in devices.take(DEVICES_MAX) {
            if let Ok(alias) = fs::read_to_string(device.path().join("modalias")) {
                found.insert(alias.trim().to_string());
            }
        }
    }
    found
}

fn appears(watch: &mut dyn Watch) -> bool {
    let end = Instant::now() + APPEARS;
    while Instant::now() < end && watch.alive() {
        if !crate::net::wireless().is_empty() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    !crate::net::wireless().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radio_of_a_device_that_is_there_and_nothing_else() {
        let dep = "kernel/drivers/net/wireless/brcmfmac.ko.xz: kernel/brcmutil.ko.xz kernel/net/wireless/cfg80211.ko.xz\n\
            kernel/drivers/gpu/amdgpu.ko: kernel/drm.ko\nkernel/drivers/net/iwlwifi.ko: kernel/net/wireless/cfg80211.ko\n";
        let aliases = "# Aliases\nalias sdio:c*v02D0dA9A6* brcmfmac\nalias sdio:c*v02D0d4345* brcmfmac\n\
            alias pci:v00001002d*sv*sd*bc03sc00i00* amdgpu\nalias pci:v00008086d000024F[3-5]sv*sd*bc*sc*i* iwlwifi\n";
        let of = |devices: &[&str]| drivers(dep, aliases, &devices.iter().map(|d| d.to_string()).collect());
        assert_eq!(of(&["sdio:c00v02D0dA9A6", "pci:v00001002d00001234sv0sd0bc03sc00i00"]), ["brcmfmac"]);
        assert_eq!(of(&["pci:v00008086d000024F4sv00008086sd00000010bc02sc80i00"]), ["iwlwifi"]);
        assert_eq!(of(&["pci:v00008086d000024F6sv00008086sd00000010bc02sc80i00"]), Vec::<String>::new());
        assert_eq!(of(&[]), Vec::<String>::new());
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[a", "a", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn options_go_with_their_module() {
        let options =
            ["brcmfmac feature_disable=0x82000", "other x=1", "brcmfmac roamoff=1"].map(String::from);
        assert_eq!(request("brcmfmac", &options), "brcmfmac feature_disable=0x82000 roamoff=1");
        assert_eq!(request("cfg80211", &options), "cfg80211 ");
    }
}
