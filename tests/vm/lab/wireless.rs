//! Everything broken and no cable: recovery joins a network of the air around and heals the device through it.
//!
//! The access points are in the same guest, out of the device's sight (`guest/wifi-air` starts them before bootward, and
//! takes the cable away); the server is on the host, behind the house's bridge. What the device reaches it reaches through
//! the air, by the kernel's own Wi-Fi stack, hostapd at one end and wpa_supplicant at the other.

use super::recovery::{DESTROYED, Device, Published, ethernet, published};
use super::tools::{lab, read, write};
use super::vm::Setup;
use super::web::{Manner, Web};
use super::wifi::{SECRET, WPA2, WPA3, air, house_with};
use super::{Fault, Outcome};

/// The network of the house.
const HOME: &str = "lab home";
/// Names of the scene's files.
const DEMO: &str = "demo-wifi";
const DEMO_SERVER: &str = "demo-wifi-published";
/// So slow that somebody who watches sees the bar move.
const LEISURELY: Manner = Manner::Slow(80_000);
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
}

impl Wireless<'_> {
    fn setup(&self) -> Outcome<Setup> {
        let mut options = air(&self.house, &self.stranger, self.device.name)?;
        if !self.networks.is_empty() {
            let file = lab().join("initramfs").join(format!("{}.home.conf", self.device.name));
            write(&file, self.networks)?;
            let file = format!("{}:/etc/bootward/wifi/home.conf:600", file.display());
            options.extend(["--add".to_string(), file]);
        }
        let mut setup = self.device.setup_of(&options)?;
        setup.command_line.push_str(" rdinit=/lab/air");
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
        let name = self.device.name;
        let healed = self.device.heals_in(setup, &["wlan0: fetched "])?;
        let transcript = read(&lab().join("logs").join(format!("{name}.log")))?;
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

/// Everything is destroyed, and there is no cable: recovered over Wi-Fi with WPA2, by a network in the initramfs.
///
/// # Errors
/// When anything else happens.
pub fn over_wpa2() -> Outcome<String> {
    let published = published("wireless-wpa2-published")?;
    let web = Web::start(&published.repo)?;
    let wireless = Wireless {
        device: device("wireless-wpa2", &published, DESTROYED, &web),
        house: house_with(HOME, &format!("{WPA2}wpa_passphrase={SECRET}\n")),
        stranger: String::new(),
        networks: &format!("network={{\n    ssid=\"{HOME}\"\n    psk=\"{SECRET}\"\n}}\n"),
    };
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
    let published = published(DEMO_SERVER)?;
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
    let published = published(DEMO_SERVER)?;
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
    Wireless {
        device: device(name, published, damage, web),
        house: house_with(HOME, &format!("{WPA3}sae_password={SECRET}\n")),
        stranger: String::new(),
        networks: "",
    }
}
