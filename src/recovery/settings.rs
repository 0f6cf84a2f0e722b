//! What `bootward.toml` says of recovery alone: `[recovery]`, `[network]`, `[time]` and `[wifi]`.
//!
//! The guardian passes these sections over (`crate::config`); here they are read from the same file with the same
//! reader. A line that is not understood is skipped and reported, and the default stands. What decides whom to believe
//! is the exception: without keys, or with a line about them that cannot be used, nothing is fetched at all
//! ([`Settings::may_fetch`]).

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::operator::lock::PasswordHash;
use super::operator::session::Access;
use crate::config::reader::{Take, read};
use crate::config::{Complaints, Problem, Value};
use crate::net;
use crate::net::settings::{Address, Static};

/// The settings, every key with its default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `[recovery]`
    pub recovery: Recovery,
    /// `[network]`: `interfaces`, `static` (`INTERFACE ADDRESS/PREFIX [GATEWAY]`), `dns`, `ipv6`, `carrier` and `dhcp`
    /// in seconds; and `[time]`: `servers`.
    pub network: net::Settings,
    /// `[wifi]`
    pub wifi: Wifi,
    /// A line that may have been about whom to believe could not be used.
    pub unclear: bool,
}

/// What is fetched, from where, how often, and what may be done to the root for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// `recovery.urls`: archive repositories, tried in this order. None: nothing is fetched over a network.
    pub urls: Vec<String>,
    /// `recovery.ref`: the ref that is followed.
    pub reference: String,
    /// `recovery.hardware`: `NAME=REF` for revisions of the hardware that follow a ref of their own; NAME as in
    /// `bootward.hardware=`, [`Recovery::revision`], or the device tree's `compatible`.
    pub hardware: Vec<String>,
    /// `recovery.revision`: this hardware, where nothing else says so.
    pub revision: String,
    /// `recovery.commit`: this commit and no other.
    pub commit: String,
    /// `recovery.remote`: the refs become `REMOTE:REF`; empty for local refs.
    pub remote: String,
    /// `recovery.stateroot`: where the commit is deployed; empty for that of the first deployment.
    pub stateroot: String,
    /// `recovery.keys`: trusted ed25519 keys in the initramfs, a file or a directory of files.
    pub keys: String,
    /// `recovery.threshold`: so many of the keys must have signed; default 1.
    pub threshold: u32,
    /// `recovery.compatible`: the hardware that a commit must be made for; empty for any.
    pub compatible: String,
    /// `recovery.unbound`: take commits that do not say for which refs they were made.
    pub unbound: bool,
    /// `recovery.ca`: CA certificates in PEM, needed for https.
    pub ca: String,
    /// `recovery.cert`: certificate of this device, for servers that ask for one.
    pub certificate: String,
    /// `recovery.cert_key`: its key.
    pub certificate_key: String,
    /// `recovery.medium`: look for a repository or a delta on USB sticks and SD cards; default true.
    pub medium: bool,
    /// `recovery.channels`: connections at once; default 2.
    pub channels: u32,
    /// `recovery.arguments`: kernel arguments of a deployment that has none to take over from.
    pub arguments: Vec<String>,
    /// `recovery.bootloader`: `uboot` where a fresh filesystem needs uEnv.txt; empty for none.
    pub bootloader: String,
    /// `recovery.device`: the partition of the root, for when it is so damaged that its label cannot be read; named as
    /// in `root.device`, but by something that is not on the filesystem.
    pub device: String,
    /// `recovery.fsck`: program and arguments that mend the root; the device is added. Empty for none.
    pub fsck: String,
    /// `recovery.format`: whether a fresh filesystem may be made where the root cannot be mended; default false.
    pub format: bool,
    /// `recovery.mkfs`: program and arguments for that; the device is added.
    pub mkfs: String,
    /// `recovery.spread`: the first try comes after up to so many seconds; default 5.
    pub spread: u32,
    /// `recovery.wait_first`, `recovery.wait_longest`: seconds between two rounds at most, at first and in the end;
    /// default 10 and 900.
    pub wait: (u32, u32),
    /// `recovery.attempts`: tries of a server that a day has; default 96, 0 for no limit.
    pub attempts: u32,
    /// `recovery.megabytes`: what a day may fetch; default 8192, 0 for no limit.
    pub megabytes: u32,
    /// `recovery.access`, `recovery.password` and the like: who may use the console.
    pub console: Console,
}

/// Who may use the console, and how long it waits for them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Console {
    /// `recovery.access`: `open`, `locked` or `off`; empty: locked where there is a password, else open.
    pub access: String,
    /// `recovery.password`: its hash, from `bootward hash-password`.
    pub password: String,
    /// `recovery.idle`: seconds without input after which an opened console locks itself again; default 300.
    pub idle: u32,
    /// `recovery.shell`: a program that the console offers as shell; empty for none.
    pub shell: String,
    /// `recovery.key_wait`: milliseconds in which a key at the console asks for recovery before each boot; default 0,
    /// none.
    pub key_wait: u32,
    /// `recovery.drill`: seconds that a fire drill may take; default 180.
    pub drill: u32,
}

/// How the device gets into a wireless network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wifi {
    /// `wifi.country`: two letters; empty for the world's rules.
    pub country: String,
    /// `wifi.supplicant`: default `/usr/sbin/wpa_supplicant`.
    pub supplicant: String,
    /// `wifi.networks`: one network a string, as `net::wifi` reads them.
    pub networks: Vec<String>,
    /// `wifi.profiles`: a directory of profiles in the initramfs; default `/etc/bootward/wifi`.
    pub profiles: String,
    /// `wifi.boot`: a file of profiles on the boot partition; default `bootward-wifi.conf`, empty for none.
    pub boot: String,
    /// `wifi.join`: seconds that joining one network may take; default 30.
    pub join: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            recovery: Recovery {
                urls: Vec::new(),
                reference: String::new(),
                hardware: Vec::new(),
                revision: String::new(),
                commit: String::new(),
                remote: String::new(),
                stateroot: String::new(),
                keys: String::new(),
                threshold: 1,
                compatible: String::new(),
                unbound: false,
                ca: String::new(),
                certificate: String::new(),
                certificate_key: String::new(),
                medium: true,
                channels: 2,
                arguments: Vec::new(),
                bootloader: String::new(),
                device: String::new(),
                fsck: String::new(),
                format: false,
                mkfs: String::new(),
                spread: 5,
                wait: (10, 900),
                attempts: 96,
                megabytes: 8192,
                console: Console {
                    access: String::new(),
                    password: String::new(),
                    idle: 300,
                    shell: String::new(),
                    key_wait: 0,
                    drill: 180,
                },
            },
            network: net::Settings::default(),
            wifi: Wifi {
                country: String::new(),
                supplicant: "/usr/sbin/wpa_supplicant".into(),
                networks: Vec::new(),
                profiles: "/etc/bootward/wifi".into(),
                boot: "bootward-wifi.conf".into(),
                join: 30,
            },
            unclear: false,
        }
    }
}

/// Where a value goes.
enum Slot<'a> {
    Text(&'a mut String),
    Number(&'a mut u32),
    Flag(&'a mut bool),
    List(&'a mut Vec<String>),
    Seconds(&'a mut Duration),
    Addresses(&'a mut Vec<IpAddr>),
    Statics(&'a mut Vec<Static>),
}

impl Settings {
    /// Reads a file. What cannot be used is in the complaints, and its default in the settings.
    pub fn parse(file: &[u8]) -> (Settings, Complaints) {
        let mut settings = Settings::default();
        let complaints = read(file, &mut Taking { settings: &mut settings, seen: Vec::new() });
        (settings, complaints)
    }

    /// Whether a commit may be fetched at all, from wherever: keys are named, and what is said of them is clear.
    pub fn may_fetch(&self) -> bool {
        !self.unclear && !self.recovery.keys.is_empty() && self.recovery.threshold > 0
    }

    /// Who may use the console. What is not clear leaves it locked: a typing error must not open what was meant to be
    /// locked.
    pub fn access(&self) -> Access {
        let console = &self.recovery.console;
        let locked = || Access::Locked(PasswordHash::parse(&console.password).ok());
        match console.access.as_str() {
            "off" => Access::Off,
            _ if self.unclear => locked(),
            "open" => Access::Open,
            "" if console.password.is_empty() => Access::Open,
            _ => locked(),
        }
    }

    /// The ref for this hardware: the first of `names` that `recovery.hardware` knows, else `recovery.ref`.
    pub fn reference<'a>(&'a self, names: &[String]) -> &'a str {
        let known = |name: &String| {
            let mut lines = self.recovery.hardware.iter().filter_map(|line| line.split_once('='));
            lines.find(|(hardware, _)| hardware == name).map(|(_, reference)| reference)
        };
        names.iter().find_map(known).unwrap_or(&self.recovery.reference)
    }

    fn slot(&mut self, section: &str, key: &str) -> Option<Slot<'_>> {
        let Settings { recovery, network, wifi, .. } = self;
        Some(match (section, key) {
            ("recovery", "urls") => Slot::List(&mut recovery.urls),
            ("recovery", "ref") => Slot::Text(&mut recovery.reference),
            ("recovery", "hardware") => Slot::List(&mut recovery.hardware),
            ("recovery", "revision") => Slot::Text(&mut recovery.revision),
            ("recovery", "commit") => Slot::Text(&mut recovery.commit),
            ("recovery", "remote") => Slot::Text(&mut recovery.remote),
            ("recovery", "stateroot") => Slot::Text(&mut recovery.stateroot),
            ("recovery", "keys") => Slot::Text(&mut recovery.keys),
            ("recovery", "threshold") => Slot::Number(&mut recovery.threshold),
            ("recovery", "compatible") => Slot::Text(&mut recovery.compatible),
            ("recovery", "unbound") => Slot::Flag(&mut recovery.unbound),
            ("recovery", "ca") => Slot::Text(&mut recovery.ca),
            ("recovery", "cert") => Slot::Text(&mut recovery.certificate),
            ("recovery", "cert_key") => Slot::Text(&mut recovery.certificate_key),
            ("recovery", "medium") => Slot::Flag(&mut recovery.medium),
            ("recovery", "channels") => Slot::Number(&mut recovery.channels),
            ("recovery", "arguments") => Slot::List(&mut recovery.arguments),
            ("recovery", "bootloader") => Slot::Text(&mut recovery.bootloader),
            ("recovery", "device") => Slot::Text(&mut recovery.device),
            ("recovery", "fsck") => Slot::Text(&mut recovery.fsck),
            ("recovery", "format") => Slot::Flag(&mut recovery.format),
            ("recovery", "mkfs") => Slot::Text(&mut recovery.mkfs),
            ("recovery", "spread") => Slot::Number(&mut recovery.spread),
            ("recovery", "wait_first") => Slot::Number(&mut recovery.wait.0),
            ("recovery", "wait_longest") => Slot::Number(&mut recovery.wait.1),
            ("recovery", "attempts") => Slot::Number(&mut recovery.attempts),
            ("recovery", "megabytes") => Slot::Number(&mut recovery.megabytes),
            ("recovery", "access") => Slot::Text(&mut recovery.console.access),
            ("recovery", "password") => Slot::Text(&mut recovery.console.password),
            ("recovery", "idle") => Slot::Number(&mut recovery.console.idle),
            ("recovery", "shell") => Slot::Text(&mut recovery.console.shell),
            ("recovery", "key_wait") => Slot::Number(&mut recovery.console.key_wait),
            ("recovery", "drill") => Slot::Number(&mut recovery.console.drill),
            ("network", "interfaces") => Slot::List(&mut network.interfaces),
            ("network", "static") => Slot::Statics(&mut network.statics),
            ("network", "dns") => Slot::Addresses(&mut network.dns),
            ("network", "ipv6") => Slot::Flag(&mut network.ipv6),
            ("network", "carrier") => Slot::Seconds(&mut network.carrier),
            ("network", "dhcp") => Slot::Seconds(&mut network.dhcp),
            ("time", "servers") => Slot::List(&mut network.ntp),
            ("wifi", "country") => Slot::Text(&mut wifi.country),
            ("wifi", "supplicant") => Slot::Text(&mut wifi.supplicant),
            ("wifi", "networks") => Slot::List(&mut wifi.networks),
            ("wifi", "profiles") => Slot::Text(&mut wifi.profiles),
            ("wifi", "boot") => Slot::Text(&mut wifi.boot),
            ("wifi", "join") => Slot::Number(&mut wifi.join),
            _ => return None,
        })
    }
}

/// The sections that are read here.
const SECTIONS: [&str; 4] = ["recovery", "network", "time", "wifi"];
/// Keys of `[recovery]` that `crate::config` reads.
const ELSEWHERE: [&str; 2] = ["console", "reboot_after"];

/// The settings while they are read.
struct Taking<'a> {
    settings: &'a mut Settings,
    seen: Vec<(String, String)>,
}

impl Take for Taking<'_> {
    fn take(&mut self, section: &str, key: &str, value: Value) -> Result<(), Problem> {
        if !SECTIONS.contains(&section) || section == "recovery" && ELSEWHERE.contains(&key) {
            return Ok(());
        }
        let slot = self.settings.slot(section, key).ok_or(Problem::UnknownKey)?;
        let name = (String::from(section), String::from(key));
        if self.seen.contains(&name) {
            return Err(Problem::Duplicate);
        }
        put(slot, value)?;
        self.seen.push(name);
        Ok(())
    }

    fn skipped(&mut self, section: &str) {
        // Whatever stands below a wrong header may have belonged to it.
        self.settings.unclear |= matches!(section, "recovery" | "?");
    }

    fn cut(&mut self) {
        self.settings.unclear = true;
    }
}

fn put(slot: Slot<'_>, value: Value) -> Result<(), Problem> {
    match (slot, value) {
        (Slot::Text(to), Value::Text(text)) => *to = text.as_str().into(),
        (Slot::Number(to), Value::Number(n)) => *to = u32::try_from(n).map_err(|_| Problem::WrongKind)?,
        (Slot::Seconds(to), Value::Number(n)) => {
            let seconds = u32::try_from(n).map_err(|_| Problem::WrongKind)?;
            *to = Duration::from_secs(u64::from(seconds));
        }
        (Slot::Flag(to), Value::Flag(flag)) => *to = flag,
        (Slot::List(to), Value::List(list)) => *to = list.iter().map(|t| t.as_str().into()).collect(),
        (Slot::Addresses(to), Value::List(list)) => {
            let all: Option<Vec<IpAddr>> = list.iter().map(|text| text.parse().ok()).collect();
            *to = all.ok_or(Problem::WrongKind)?;
        }
        (Slot::Statics(to), Value::List(list)) => {
            let all: Option<Vec<Static>> = list.iter().map(|text| fixed(text)).collect();
            *to = all.ok_or(Problem::WrongKind)?;
        }
        _ => return Err(Problem::WrongKind),
    }
    Ok(())
}

/// Reads `INTERFACE ADDRESS/PREFIX [GATEWAY]`.
fn fixed(text: &str) -> Option<Static> {
    let mut words = text.split_ascii_whitespace();
    let interface = words.next()?;
    let address = Address::parse(words.next()?)?;
    let gateway: Option<IpAddr> = words.next().map(str::parse).transpose().ok()?;
    let same = gateway.is_none_or(|g| g.is_ipv4() == address.ip.is_ipv4());
    let whole = words.next().is_none() && same;
    whole.then(|| Static { interface: interface.into(), address, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    const SAMPLE: &str = include_str!("../../initramfs/bootward.toml");

    fn read(text: &str) -> (Settings, u32) {
        let (settings, complaints) = Settings::parse(text.as_bytes());
        (settings, complaints.count)
    }

    #[test]
    fn the_sample_is_the_default() {
        assert_eq!(read(SAMPLE), (Settings::default(), 0));
    }

    #[test]
    fn the_sample_in_force_names_every_key_once() {
        let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let (mut settings, complaints) = read(&text);
        assert_eq!(complaints, 0);
        let table: toml::Table = toml::from_str(&text).unwrap();
        let mut keys = 0;
        for section in SECTIONS {
            for key in table[section].as_table().unwrap().keys().filter(|k| !ELSEWHERE.contains(&k.as_str()))
            {
                assert!(settings.slot(section, key).is_some(), "{section}.{key}");
                keys += 1;
            }
        }
        assert_eq!(keys, 46, "a key that the sample does not name");
        assert_eq!(settings.network.statics[0].gateway, Some("192.168.1.1".parse().unwrap()));
    }

    #[test]
    fn nothing_is_fetched_unless_it_is_clear_whom_to_believe() {
        let good = "[recovery]\nurls = [\"http://a\"]\nkeys = \"/etc/k\"\n";
        assert!(read(good).0.may_fetch());
        assert!(!read("[recovery]\nurls = [\"http://a\"]\n").0.may_fetch());
        for bad in ["treshold = 2\n", "threshold = \"2\"\n", "threshold = 0\n", "keys = \"/etc/l\"\n"] {
            assert!(!read(&alloc::format!("{good}{bad}")).0.may_fetch(), "{bad}");
        }
        assert!(read(&alloc::format!("{good}[wifi]\ncounty = \"DE\"\n")).0.may_fetch());
    }

    #[test]
    fn the_console_is_never_open_by_mistake() {
        const HASH: &str = "$argon2id$v=19$m=8192,t=4,p=1$MDEyMzQ1Njc4OWFiY2RlZg$/BVsPHHvD7yAR0jxm3AyVX4MyfdtoxtOhblBghSDOK4";
        let of = |lines: &str| read(&alloc::format!("[recovery]\n{lines}")).0.access();
        let hash = PasswordHash::parse(HASH).unwrap();
        let password = alloc::format!("password = \"{HASH}\"\n");
        assert_eq!(of(""), Access::Open);
        assert_eq!(of("access = \"open\"\n"), Access::Open);
        assert_eq!(of("access = \"off\"\n"), Access::Off);
        assert_eq!(of(&password), Access::Locked(Some(hash.clone())));
        assert_eq!(
            of(&alloc::format!("access = \"locked\"\n{password}")),
            Access::Locked(Some(hash.clone()))
        );
        // Open in spite of a password: said in so many words.
        assert_eq!(of(&alloc::format!("access = \"open\"\n{password}")), Access::Open);
        for wrong in [
            "access = \"locked\"\n",
            "access = \"Open\"\n",
            "acess = \"locked\"\n",
            "password = \"x\"\n",
            "access = 1\n",
        ] {
            assert_eq!(of(wrong), Access::Locked(None), "{wrong}");
        }
        assert_eq!(of(&alloc::format!("acess = \"locked\"\n{password}")), Access::Locked(Some(hash)));
    }

    #[test]
    fn the_hardware_chooses_its_ref() {
        let (settings, _) =
            read("[recovery]\nref = \"os/all\"\nhardware = [\"acme,a1=os/a1\", \"acme,a2=os/a2\"]\n");
        let of = |names: &[&str]| {
            settings.reference(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).to_string()
        };
        assert_eq!(of(&["acme,a2", "acme,a1"]), "os/a2");
        assert_eq!(of(&["acme,a3", "acme,a1"]), "os/a1");
        assert_eq!(of(&["acme,a3"]), "os/all");
    }

    #[test]
    fn addresses() {
        let one = |text: &str| fixed(text);
        let eth0 = one("eth0 10.0.2.15/24 10.0.2.2").unwrap();
        assert_eq!((eth0.address.prefix, eth0.gateway), (24, Some("10.0.2.2".parse().unwrap())));
        assert_eq!(one("eth0 fd00::2/64").unwrap().gateway, None);
        for bad in [
            "",
            "eth0",
            "eth0 10.0.0.1",
            "eth0 10.0.0.1/33",
            "eth0 10.0.0.1/8 fd00::1",
            "eth0 10.0.0.1/8 10.0.0.2 x",
        ] {
            assert_eq!(one(bad), None, "{bad}");
        }
        assert_eq!(read("[network]\ndns = [\"1.1.1.1\", \"x\"]\n").1, 1);
        assert_eq!(
            read("[network]\ndns = [\"1.1.1.1\"]\n").0.network.dns,
            vec!["1.1.1.1".parse::<IpAddr>().unwrap()]
        );
    }
}
