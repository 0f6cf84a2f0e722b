//! Everything broken and no cable: recovery joins a network of the air around and heals the device through it.
//!
//! The access points are in the same guest, out of the device's sight (`guest/wifi-air` starts them before bootward, and
//! takes the cable away); the server is on the host, behind the house's bridge. What the device reaches it reaches through
//! the air, by the kernel's own Wi-Fi stack, hostapd at one end and wpa_supplicant at the other.

use super::keys::{Pair, object};
use super::recovery::{DESTROYED, Device, Published, RECOVERS, ethernet, published, published_with};
use super::scenes::BOOT;
use super::tools::{as_root, empty_dir, lab, read, run, write};
use super::vm::{Setup, Vm};
use super::web::{Manner, Web};
use super::wifi::{SECRET, WPA2, WPA3, air, house_with, network, stranger_with};
use super::{Fault, Outcome};

/// The network of the house.
const HOME: &str = "lab home";
/// The house's access point, and the stranger's, by their addresses.
const OURS: &str = "02:00:00:00:01:00";
const TWIN: &str = "02:00:00:00:02:00";
/// Files for the scene: the bar counts them.
const MANY: &str = "mkdir usr/share usr/share/lab
    for i in $(seq 120); do dd if=usr/bin/busybox of=usr/share/lab/$i bs=12000 skip=$i count=1 status=none; done";
/// Names of the scene's files.
const DEMO: &str = "demo-wifi";
const DEMO_SERVER: &str = "demo-wifi-published";
/// So slow that somebody who watches sees the bar move.
const LEISURELY: Manner = Manner::Slow(120_000);
/// What recovery wrote down of the network that it came through.
const LAST: &str = "ostree/bootward/wifi-last";

/// A device, and the air around it.
struct Wireless<'a> {
    device: Device<'a>,
    /// The house's access point.
    house: String,
    /// The stranger's, which is up only when it is asked for.
    stranger: String,
    /// A file of networks in the initramfs, where there is one.
    networks: &'a str,
    /// Words for `guest/wifi-air`.
    air: String,
    /// More options for the initramfs' builder.
    more: Vec<String>,
}

impl<'a> Wireless<'a> {
    /// With nobody else there.
    fn new(device: Device<'a>, house: String, networks: &'a str) -> Self {
        Wireless { device, house, stranger: String::new(), networks, air: String::new(), more: Vec::new() }
    }

    fn setup(&self) -> Outcome<Setup> {
        let mut options = air(&self.house, &self.stranger, self.device.name)?;
        if !self.networks.is_empty() {
            let file = lab().join("initramfs").join(format!("{}.home.conf", self.device.name));
            write(&file, self.networks)?;
            let file = format!("{}:/etc/bootward/wifi/home.conf:600", file.display());
            options.extend(["--add".to_string(), file]);
        }
        options.extend_from_slice(&self.more);
        let mut setup = self.device.setup_of(&options)?;
        setup.command_line.push_str(&format!(" rdinit=/lab/air {}", self.air));
        Ok(setup)
    }
}

/// A device without a whole deployment, with a cable that only the house has.
fn device<'a>(name: &'a str, published: &'a Published, damage: &'a str, web: &Web) -> Device<'a> {
    Device {
        name,
        published,
        damage,
        modules: &[],
        config: format!("urls = [\"{}\"]\n\n[wifi]\ncountry = \"US\"\n", web.url()),
        extra: ethernet(),
    }
}

impl Wireless<'_> {
    /// It heals, by this kind of key, and remembers the network.
    fn heals(&self, setup: &Setup, key: &str) -> Outcome<String> {
        let mut vm = setup.start()?;
        vm.expect("no deployment is bootable", BOOT)?;
        if setup.live {
            // Somebody looks on, and sees the bar move.
            vm.expect("wlan0 has commit ", RECOVERS)?;
            vm.type_line("")?;
        }
        self.is_healed(&mut vm, setup, key)
    }

    /// It heals from here on.
    fn is_healed(&self, vm: &mut Vm, setup: &Setup, key: &str) -> Outcome<String> {
        let name = self.device.name;
        // A scan may miss a beacon on a busy machine, or DHCP its answer: there is a next round.
        vm.expect("wlan0: fetched ", 3 * RECOVERS)?;
        let healed = self.device.is_healed(vm, setup, &["wlan0: fetched "])?;
        let transcript = vm.transcript();
        if !transcript.contains(&format!("wlan0 joined '{HOME}' ({key})")) {
            return Err(Fault::new(format!("{name} healed, but not by {key}")));
        }
        if transcript.contains(SECRET) {
            return Err(Fault::new(format!("the passphrase is on the console of {name}")));
        }
        // As `is_clean` brought it from the disk.
        let last = read(&lab().join("run").join(format!("{name}-after")).join(LAST))?;
        let digits: String = HOME.bytes().map(|byte| format!("{byte:02x}")).collect();
        if !last.contains(&format!("ssid={digits}\n")) {
            return Err(Fault::new(format!("{LAST} does not name the network of {name}")));
        }
        Ok(format!("{healed}, through '{HOME}' by {key}"))
    }
}

/// The house's network in a file of the initramfs.
fn in_a_file() -> String {
    format!("network={{\n    ssid=\"{HOME}\"\n    psk=\"{SECRET}\"\n}}\n")
}

/// A house with WPA2.
fn wpa2() -> String {
    house_with(HOME, &format!("{WPA2}wpa_passphrase={SECRET}\n"))
}

/// Everything is destroyed, and there is no cable: recovered over Wi-Fi with WPA2, by a network in the initramfs.
///
/// # Errors
/// When anything else happens.
pub fn over_wpa2() -> Outcome<String> {
    let published = published("wireless-wpa2-published")?;
    let (web, networks) = (Web::start(&published.repo)?, in_a_file());
    let device = device("wireless-wpa2", &published, DESTROYED, &web);
    let wireless = Wireless::new(device, wpa2(), &networks);
    wireless.heals(&wireless.setup()?, "WPA2-PSK")
}

/// The same with WPA3, by what the system handed over before it broke.
///
/// # Errors
/// When anything else happens.
pub fn over_wpa3() -> Outcome<String> {
    let published = published("wireless-wpa3-published")?;
    let (web, damage) = (Web::start(&published.repo)?, handed_over());
    let wireless = by_wpa3("wireless-wpa3", &published, &damage, &web);
    wireless.heals(&wireless.setup()?, "SAE")
}

/// The scene `wifi`: the same for people who watch, from a server that takes its time.
///
/// # Errors
/// When anything else happens.
pub fn demo() -> Outcome<String> {
    let published = published_with(DEMO_SERVER, MANY)?;
    let (web, damage) = (Web::start(&published.repo)?, handed_over());
    web.set(LEISURELY);
    let wireless = by_wpa3(DEMO, &published, &damage, &web);
    wireless.heals(&Setup { live: true, ..wireless.setup()? }, "SAE")
}

/// Its machine, for somebody at the keyboard. The server goes on until the demo ends.
///
/// # Errors
/// When something does not build.
pub fn demo_setup() -> Outcome<Setup> {
    let published = published_with(DEMO_SERVER, MANY)?;
    let (web, damage) = (Web::start(&published.repo)?, handed_over());
    web.set(LEISURELY);
    by_wpa3(DEMO, &published, &damage, &web).setup()
}

/// Everything is destroyed, but for the network that the system handed over while it was whole.
fn handed_over() -> String {
    format!(
        "{DESTROYED}
         mkdir -p ostree/bootward
         printf 'network={{\\n\\tssid=\"{HOME}\"\\n\\tpsk=\"{SECRET}\"\\n}}\\n' >ostree/bootward/wifi
         chmod 600 ostree/bootward/wifi"
    )
}

/// A device in the air of a house with WPA3.
fn by_wpa3<'a>(name: &'a str, published: &'a Published, damage: &'a str, web: &Web) -> Wireless<'a> {
    let house = house_with(HOME, &format!("{WPA3}sae_password={SECRET}\n"));
    Wireless::new(device(name, published, damage, web), house, "")
}

/// Tells the air of the guest what to do, by a file that the server has for it; see `guest/wifi-air`.
fn order(published: &Published, number: u32, what: &str) -> Outcome<()> {
    write(&published.repo.join("air"), format!("{number} {what}\n"))
}

/// What the stranger serves: a newer commit, signed by a key of its own; options of the initramfs' builder.
fn lure() -> Outcome<Vec<String>> {
    let dir = empty_dir("wireless-lure")?;
    let (repo, tree) = (dir.join("repo"), dir.join("tree"));
    write(&tree.join("usr/bin/spy"), "I was never here\n")?;
    let at = format!("--repo={}", repo.display());
    run(as_root("ostree").args([&at, "init", "--mode=archive"]))?;
    let mut commit = as_root("ostree");
    commit.args([&at, "commit", "--branch=lab", "--no-xattrs", "--timestamp=2026-02-01 00:00:00Z"]);
    commit.args(["--add-metadata-string=version=9", "--owner-uid=0", "--owner-gid=0"]);
    let commit = run(commit.arg(format!("--tree=dir={}", tree.display())))?;
    let object = repo.join("objects").join(object(commit.trim())?);
    let stranger = Pair::new(&dir.join("keys"), "stranger")?;
    stranger.sign(&object.with_extension("commit"), &object.with_extension("commitmeta"))?;
    let listed = run(as_root("find").arg(&repo).args(["-type", "f", "-printf", "%P\\n"]))?;
    let add = |file: &str| ["--add".into(), format!("{}:/lab/www/{file}:644", repo.join(file).display())];
    Ok(listed.lines().flat_map(add).collect())
}

/// A stranger's access points have the house's name, nearer than it: one with its passphrase and a server of its own, one
/// with another passphrase, one with none. What was signed by somebody else is not taken, and no access point is held to.
///
/// # Errors
/// When anything of the stranger's is believed, or the house's is not found.
pub fn evil_twins() -> Outcome<String> {
    let published = published("wireless-twins-published")?;
    let (web, networks) = (Web::start(&published.repo)?, in_a_file());
    let mut device = device("wireless-twins", &published, DESTROYED, &web);
    device.config.push_str("join = 60\n");
    let twins = [("wpa_passphrase=correct horse", WPA2), ("wpa_passphrase=another horse", WPA2), ("", "")];
    let twins = (0..)
        .zip(twins)
        .map(|(number, (key, kind))| network("wlan2", number, HOME, &format!("{kind}{key}\n")));
    let wireless = Wireless {
        stranger: stranger_with(&twins.collect::<String>()),
        air: format!("lab.away lab.weak lab.stranger lab.port={}", web.port),
        more: lure()?,
        ..Wireless::new(device, wpa2(), &networks)
    };
    let setup = wireless.setup()?;
    let mut vm = setup.start()?;
    vm.expect("no deployment is bootable", BOOT)?;
    vm.expect(&format!("wlan0 joined '{HOME}' (WPA2-PSK) at {TWIN}"), RECOVERS)?;
    // One word of the sentence: it takes more than one row.
    vm.expect("malformed", RECOVERS)?;
    order(&published, 1, "air house near")?;
    vm.expect(&format!("wlan0 joined '{HOME}' (WPA2-PSK) at {OURS}"), 3 * RECOVERS)?;
    let healed = wireless.is_healed(&mut vm, &setup, "WPA2-PSK")?;
    let transcript = vm.transcript();
    if transcript.contains("(NONE)") || transcript.contains("version 9") {
        return Err(vm.failure("a stranger was believed"));
    }
    Ok(format!("three strangers of its name were nearer; {healed}"))
}
