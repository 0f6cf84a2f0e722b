//! Reads what the running system has. Ring: std.

use std::path::Path;

use super::super::file::{self, FILE_MAX, List, options_line};
use super::super::profile::{Origin, Profile, Secret};
use super::{connman, iwd, network_manager};
use crate::sys::beneath::Beneath;

/// More files than this of one directory are not read.
const FILES_MAX: usize = 256;
/// The largest file of modprobe.d that is read, in bytes.
const OPTIONS_FILE_MAX: usize = 64 * 1024;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// For the slot.
    pub list: List,
    /// Which program each profile comes from, in the list's order.
    pub sources: Vec<&'static str>,
    /// What was left out, a sentence each, without secrets.
    pub left: Vec<String>,
}

/// Reads the profiles of every program that manages Wi-Fi below `root`, as far as they are for `interface`; what the radio's
/// driver needs; and the country.
///
/// # Errors
/// When the root cannot be opened.
pub fn gather(root: &Path, interface: &str) -> nix::Result<Gathered> {
    let mut search = Search { root: Beneath::open(root)?, found: Gathered::default(), profiles: Vec::new() };
    search.network_manager(interface);
    search.iwd();
    search.supplicant(interface);
    search.connman();
    search.driver(interface);
    // The higher ones first; of equals, those that their program would take first.
    search.profiles.sort_by_key(|(profile, _)| std::cmp::Reverse(profile.priority));
    for (profile, source) in search.profiles {
        let twin = |p: &Profile| p.ssid == profile.ssid && p.key == profile.key;
        if search.found.list.profiles.len() < file::NETWORKS_MAX
            && !search.found.list.profiles.iter().any(twin)
        {
            search.found.list.profiles.push(profile);
            search.found.sources.push(source);
        }
    }
    Ok(search.found)
}

struct Search {
    root: Beneath,
    found: Gathered,
    profiles: Vec<(Profile, &'static str)>,
}

impl Search {
    fn read(&self, path: &str) -> Option<Secret> {
        self.root.read(path, FILE_MAX).ok().map(Secret::new)
    }

    /// Names of files in a directory, with an ending.
    fn names(&mut self, directory: &str, ending: &str) -> Vec<String> {
        let Ok((entries, all)) = self.root.list(directory, FILES_MAX) else { return Vec::new() };
        if !all {
            self.found
                .left
                .push(format!("{directory}: more than {FILES_MAX} files, the others are not read"));
        }
        entries.into_iter().map(|e| e.name).filter(|n| n.ends_with(ending)).collect()
    }

    fn leave(&mut self, path: &str, why: impl std::fmt::Display) {
        let path = super::super::profile::shown(path.as_bytes());
        self.found.left.push(format!("{path}: {why}"));
    }

    fn network_manager(&mut self, interface: &str) {
        let stamps = self.read("var/lib/NetworkManager/timestamps").unwrap_or_default();
        let mut found = Vec::new();
        for directory in ["etc", "run", "usr/lib"].map(|d| format!("{d}/NetworkManager/system-connections")) {
            // In etc, files without an ending count as well.
            for name in self.names(&directory, "") {
                let path = format!("{directory}/{name}");
                let Some(file) = self.read(&path) else { continue };
                match network_manager::parse(file.bytes(), interface) {
                    Ok(Some(profile)) => {
                        found.push((network_manager::last_used(stamps.bytes(), file.bytes()), profile));
                    }
                    Ok(None) => {}
                    Err(why) => self.leave(&path, why),
                }
            }
        }
        found.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        self.profiles.extend(found.into_iter().map(|(_, profile)| (profile, "NetworkManager")));
    }

    fn iwd(&mut self) {
        for name in self.names("var/lib/iwd", "") {
            let path = format!("var/lib/iwd/{name}");
            let Some(file) = self.read(&path) else { continue };
            match iwd::parse(&name, file.bytes()) {
                Ok(Some(profile)) => self.profiles.push((profile, "iwd")),
                Ok(None) => {}
                Err(why) => self.leave(&path, why),
            }
        }
        if let Some(main) = self.read("etc/iwd/main.conf") {
            self.country(super::ini::word(main.bytes(), "General", "Country"));
        }
    }

    /// systemd-networkd has no networks of its own: beside it `wpa_supplicant@INTERFACE` runs with a file by its name.
    fn supplicant(&mut self, interface: &str) {
        for path in [
            format!("etc/wpa_supplicant/wpa_supplicant-nl80211-{interface}.conf"),
            format!("etc/wpa_supplicant/wpa_supplicant-{interface}.conf"),
            "etc/wpa_supplicant/wpa_supplicant.conf".into(),
            "etc/wpa_supplicant.conf".into(),
        ] {
            let Some(text) = self.read(&path) else { continue };
            let (list, complaints) = file::parse(text.bytes(), Origin::Escrow);
            self.country(&list.country);
            for complaint in complaints {
                self.leave(&path, complaint);
            }
            for profile in list.profiles {
                if let Some(file) = needed_file(&profile) {
                    self.leave(
                        &path,
                        format!(
                            "'{}' needs the file {file}, which recovery may not have: give it in a \
                        file of its own in the initramfs",
                            profile.name()
                        ),
                    );
                } else {
                    self.profiles.push((profile, "wpa_supplicant"));
                }
            }
        }
    }

    fn connman(&mut self) {
        let mut files: Vec<String> =
            self.names("var/lib/connman", ".config").iter().map(|n| format!("var/lib/connman/{n}")).collect();
        let stored = self.names("var/lib/connman", "");
        files.extend(
            stored.iter().filter(|n| n.starts_with("wifi_")).map(|n| format!("var/lib/connman/{n}/settings")),
        );
        for path in files {
            let Some(file) = self.read(&path) else { continue };
            for service in connman::parse(file.bytes()) {
                match service {
                    Ok(profile) => self.profiles.push((profile, "ConnMan")),
                    Err(why) => self.leave(&path, why),
                }
            }
        }
    }

    /// The module that drives the interface, and the options that modprobe gives it and the two below it.
    fn driver(&mut self, interface: &str) {
        let link = self.root.link(&format!("sys/class/net/{interface}/device/driver/module"));
        let module = link.ok().and_then(|l| l.rsplit('/').next().map(str::to_string));
        let Some(module) = module.filter(|m| file::is_module(m)) else { return };
        let own = [module.as_str(), "cfg80211", "mac80211"];
        let mut seen: Vec<String> = Vec::new();
        let mut options = Vec::new();
        // A file hides one of the same name in the directories after it (modprobe.d(5)).
        for directory in ["etc/modprobe.d", "run/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d"] {
            for name in self.names(directory, ".conf") {
                if seen.contains(&name) {
                    continue;
                }
                let text =
                    self.root.read(&format!("{directory}/{name}"), OPTIONS_FILE_MAX).unwrap_or_default();
                options.extend(options_of(&String::from_utf8_lossy(&text), &own));
                seen.push(name);
            }
        }
        options.dedup();
        options.truncate(file::DRIVER_LINES_MAX);
        let domain =
            options.iter().find_map(|o| o.split(' ').find_map(|w| w.strip_prefix("ieee80211_regdom=")));
        if let Some(domain) = domain.map(str::to_string) {
            self.country(&domain);
        }
        self.found.list.modules.push(module);
        self.found.list.options = options;
    }

    fn country(&mut self, code: &str) {
        let fits = code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
        if fits && self.found.list.country.is_empty() {
            self.found.list.country = code.to_ascii_uppercase();
        }
    }
}

/// The `options` lines of a file that are for one of the modules.
fn options_of(text: &str, modules: &[&str]) -> Vec<String> {
    // A line may go on after a backslash.
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter_map(|l| options_line(l.trim().strip_prefix("options ")?));
    let ours = |line: &String| {
        let name = line.split(' ').next().unwrap_or("");
        modules.iter().any(|m| crate::cmdline::same_name(m.as_bytes(), name.as_bytes()))
    };
    lines.filter(ours).collect()
}

/// A file of the system that an enterprise network names, a certificate for example.
fn needed_file(profile: &Profile) -> Option<String> {
    let super::super::profile::Key::Enterprise(fields) = &profile.key else { return None };
    let named = fields.iter().find(|(name, value)| {
        matches!(
            name.trim_end_matches('2'),
            "ca_cert" | "client_cert" | "private_key" | "pac_file" | "dh_file"
        ) && value.bytes().starts_with(b"\"/")
    });
    named.map(|(_, value)| super::super::profile::shown(value.bytes()))
}
