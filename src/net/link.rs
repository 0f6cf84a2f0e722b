//! The interfaces that there are, as sysfs shows them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Places, Settings};

/// The longest name of an interface, in bytes: `IFNAMSIZ` without its NUL.
const MAX_NAME: usize = 15;
/// `ARPHRD_ETHER`: what Ethernet and Wi-Fi have.
const ETHERNET: &str = "1";

/// The interfaces to try for a wire, in order: those of the settings, else every Ethernet interface that stands for
/// hardware, by name, those with a carrier first.
pub fn wired(settings: &Settings) -> Vec<String> {
    wired_in(&Places::default(), settings)
}

/// The same with places of its own.
pub fn wired_in(places: &Places, settings: &Settings) -> Vec<String> {
    if !settings.interfaces.is_empty() {
        return settings.interfaces.clone();
    }
    let links = Link::all(&places.sysfs);
    let mut wired: Vec<&Link> = links.iter().filter(|l| l.is_ethernet() && !l.is_wireless()).collect();
    // Bridges, tunnels and the like lead nowhere in an initramfs that nobody set them up in; without any hardware (a
    // container, a veth) they are what there is.
    if wired.iter().any(|link| link.is_hardware()) {
        wired.retain(|link| link.is_hardware());
    }
    // By name within each half. One that is down has no carrier that could be seen.
    wired.sort_by_key(|link| !link.has_carrier());
    wired.iter().map(|link| link.name.clone()).collect()
}

/// The interfaces with a radio, by name.
pub fn wireless() -> Vec<String> {
    let links = Link::all(&Places::default().sysfs);
    links.into_iter().filter(Link::is_wireless).map(|link| link.name).collect()
}

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The kernel's number of it.
    pub index: u32,
    /// Its directory.
    at: PathBuf,
}

impl Link {
    /// The interface of a name, where there is one.
    pub fn named(sysfs: &Path, name: &str) -> Option<Self> {
        // It becomes part of a path.
        let plain = |b: u8| b.is_ascii_graphic() && b != b'/';
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.bytes().all(plain) {
            return None;
        }
        let mut link = Link { name: name.into(), index: 0, at: sysfs.join("class/net").join(name) };
        link.index = link.read("ifindex")?.parse().ok()?;
        Some(link)
    }

    /// All of them, by name.
    pub fn all(sysfs: &Path) -> Vec<Self> {
        let entries = fs::read_dir(sysfs.join("class/net")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut links: Vec<Link> = names.filter_map(|name| Link::named(sysfs, &name)).collect();
        links.sort_by(|a, b| a.name.cmp(&b.name));
        links
    }

    /// One attribute; none where it cannot be read, as the carrier of an interface that is down.
    fn read(&self, attribute: &str) -> Option<String> {
        fs::read_to_string(self.at.join(attribute)).ok().map(|text| text.trim().to_string())
    }

    /// Whether it speaks Ethernet, over a wire or not.
    pub fn is_ethernet(&self) -> bool {
        self.read("type").is_some_and(|kind| kind == ETHERNET)
    }

    /// Whether a radio is behind it.
    pub fn is_wireless(&self) -> bool {
        self.at.join("wireless").exists() || self.at.join("phy80211").exists()
    }

    /// Whether a device is behind it.
    pub fn is_hardware(&self) -> bool {
        self.at.join("device").exists()
    }

    /// Whether something is at the other end.
    pub fn has_carrier(&self) -> bool {
        self.read("carrier").is_some_and(|carrier| carrier == "1")
    }

    /// Its hardware address, where it has one of Ethernet's.
    pub fn hardware(&self) -> Option<[u8; 6]> {
        let text = self.read("address")?;
        let mut address = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut address {
            *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        (parts.next().is_none() && address != [0; 6]).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs with these interfaces: name, type, carrier, other entries.
    fn sysfs(links: &[(&str, &str, &str, &[&str])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (number, (name, kind, carrier, others)) in links.iter().enumerate() {
            let at = root.path().join("class/net").join(name);
            fs::create_dir_all(&at).unwrap();
            let index = (number + 1).to_string();
            for (attribute, value) in [
                ("ifindex", index.as_str()),
                ("type", kind),
                ("carrier", carrier),
                ("address", "02:00:00:00:00:0a"),
            ] {
                fs::write(at.join(attribute), format!("{value}\n")).unwrap();
            }
            others.iter().for_each(|other| fs::create_dir(at.join(other)).unwrap());
        }
        root
    }

    #[test]
    fn wires_are_found_and_put_in_order() {
        let root = sysfs(&[
            ("lo", "772", "1", &[]),
            ("eth1", "1", "1", &["device"]),
            ("eth0", "1", "0", &["device"]),
            ("wlan0", "1", "1", &["device", "wireless"]),
            ("br0", "1", "1", &[]),
            ("sit0", "776", "1", &[]),
        ]);
        let places = Places { sysfs: root.path().into(), ..Places::default() };
        assert_eq!(wired_in(&places, &Settings::default()), ["eth1", "eth0"]);
        let named = Settings { interfaces: vec!["usb0".into(), "eth0".into()], ..Settings::default() };
        assert_eq!(wired_in(&places, &named), ["usb0", "eth0"]);
        let link = Link::named(root.path(), "wlan0").unwrap();
        assert!(link.is_wireless() && link.has_carrier());
        assert_eq!(link.hardware(), Some([2, 0, 0, 0, 0, 10]));
        let root = sysfs(&[("lo", "772", "1", &[]), ("veth0", "1", "1", &[])]);
        let places = Places { sysfs: root.path().into(), ..Places::default() };
        assert_eq!(wired_in(&places, &Settings::default()), ["veth0"]);
    }

    #[test]
    fn names_are_no_paths() {
        let root = sysfs(&[("eth0", "1", "1", &[])]);
        assert!(Link::named(root.path(), "eth0").is_some());
        for name in ["", ".", "..", "../net/eth0", "eth0/", "eth1", "a23456789012345b", "eth 0", "eth0\0"] {
            assert_eq!(Link::named(root.path(), name), None, "{name:?}");
        }
    }
}
