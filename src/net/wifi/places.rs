//! Where networks, and what their radio needs, are written down. Ring: std.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::file::{self, FILE_MAX};
use super::profile::{Origin, Profile, Secret};
use super::slot;
use crate::sys::beneath::Beneath;

/// More files than this of one directory are not read.
const FILES_MAX: usize = 32;
/// The factory's own networks, in the directory of the initramfs: tried after all others.
const FACTORY: &str = "factory.conf";

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// What the `[wifi]` section of the configuration names.
    pub config: Vec<Profile>,
    /// The directory of the initramfs with files of networks, `*.conf`; default `/etc/bootward/wifi`.
    pub directory: PathBuf,
    /// The file on the boot partition, where that is mounted.
    pub boot: Option<PathBuf>,
    /// The physical root, where it is mounted: what worked last, and what the system handed over.
    pub root: Option<PathBuf>,
}

impl Default for Places {
    fn default() -> Self {
        Places { config: Vec::new(), directory: "/etc/bootward/wifi".into(), boot: None, root: None }
    }
}

/// Everything that is known of the air around.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The networks, in the order in which they are tried.
    pub profiles: Vec<Profile>,
    /// Where the device is, from the first place that says so; empty where none does.
    pub country: String,
    /// The radio's drivers, by name.
    pub modules: Vec<String>,
    /// Their options: a module's name, a blank, its parameters.
    pub options: Vec<String>,
    /// What could not be used, a sentence each, without secrets.
    pub complaints: Vec<String>,
}

/// Every profile, in the order in which they are tried: what worked last, the configuration's, the boot partition's, what
/// the system handed over, the factory's. A network that is named twice with the same key is there once.
pub fn profiles(places: &Places) -> Vec<Profile> {
    known(places).profiles
}

/// The same, with what else is written beside them.
pub fn known(places: &Places) -> Known {
    let mut known = Known::default();
    let root = places.root.as_deref().and_then(|root| Beneath::open(root).ok());
    let slot = |place: &str| root.as_ref()?.read(place, FILE_MAX).ok().map(Secret::new);
    known.add(slot(slot::LAST), Origin::LastGood, slot::LAST);
    known.profiles.extend(places.config.iter().cloned());
    let files = conf_files(&places.directory);
    for file in files.iter().filter(|f| !f.ends_with(FACTORY)) {
        known.add(read(file), Origin::Config, &file.display().to_string());
    }
    if let Some(file) = &places.boot {
        known.add(read(file), Origin::Boot, &file.display().to_string());
    }
    known.add(slot(slot::ESCROW), Origin::Escrow, slot::ESCROW);
    for file in files.iter().filter(|f| f.ends_with(FACTORY)) {
        known.add(read(file), Origin::Factory, &file.display().to_string());
    }
    known.arrange();
    known
}

impl Known {
    fn add(&mut self, file: Option<Secret>, origin: Origin, place: &str) {
        let Some(file) = file else { return };
        let (list, complaints) = file::parse(file.bytes(), origin);
        self.complaints.extend(complaints.iter().map(|c| format!("{place}: {c}")));
        self.profiles.extend(list.profiles);
        if self.country.is_empty() {
            self.country = list.country;
        }
        self.modules.extend(list.modules);
        self.options.extend(list.options);
    }

    /// By origin, within one by priority, each once; the first file that has options for a driver has the word.
    fn arrange(&mut self) {
        self.profiles.sort_by_key(|p| (p.origin, std::cmp::Reverse(p.priority)));
        let mut once: Vec<Profile> = Vec::with_capacity(self.profiles.len());
        for profile in std::mem::take(&mut self.profiles) {
            if !once.iter().any(|p| p.ssid == profile.ssid && p.key == profile.key) {
                once.push(profile);
            }
        }
        self.profiles = once;
        let mut modules: Vec<String> = Vec::new();
        self.modules.retain(|m| {
            let fresh = !modules.contains(m);
            modules.push(m.clone());
            fresh
        });
    }
}

fn conf_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "conf")).collect();
    files.sort();
    files.truncate(FILES_MAX);
    files
}

/// A regular file; what is longer than is read is refused by the parser.
fn read(path: &Path) -> Option<Secret> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::with_capacity(FILE_MAX + 1);
    fs::File::open(path).ok()?.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ssid: &str, more: &str) -> String {
        format!("network={{\nssid=\"{ssid}\"\npsk=\"12345678\"\n{more}}}\n")
    }

    #[test]
    fn what_worked_last_then_the_lists_then_the_factory() {
        let room = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = room.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "etc/wifi/a.conf",
            &format!("country=DE\n{}{}", network("low", ""), network("high", "priority=3\n")),
        );
        put("etc/wifi/factory.conf", &format!("options m a=1\n{}", network("factory", "priority=99\n")));
        put("etc/wifi/note.txt", &network("no", ""));
        put("boot.conf", &network("boot", ""));
        put(
            "root/ostree/bootward/wifi",
            &format!("country=FR\nmodule m\n{}{}", network("escrow", ""), network("last", "")),
        );
        put("root/ostree/bootward/wifi-last", &network("last", ""));
        let mut places = Places {
            config: vec![Profile::typed("typed", Secret::new("12345678"), Origin::Config).unwrap()],
            directory: room.path().join("etc/wifi"),
            boot: Some(room.path().join("boot.conf")),
            root: Some(room.path().join("root")),
        };
        let found = known(&places);
        let names: Vec<String> = found.profiles.iter().map(Profile::name).collect();
        assert_eq!(names, ["last", "high", "typed", "low", "boot", "escrow", "factory"]);
        assert_eq!(
            (found.country.as_str(), found.modules, found.options),
            ("DE", vec!["m".to_string()], vec!["m a=1".to_string()])
        );
        put("boot.conf", "network={\nssid=\"x\"\npsk=\"geheim\"\n}\n");
        places.root = Some("/nowhere".into());
        let found = known(&places);
        assert_eq!(found.profiles.len(), 4);
        assert!(
            found.complaints[0]
                .ends_with("boot.conf: line 1: a passphrase has 8 to 63 characters from space to ~")
        );
    }
}
