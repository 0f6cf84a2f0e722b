//! Wi-Fi with real programs: radios that the kernel simulates, `hostapd` as the house, `wpa_supplicant` as the device.

use std::path::{Path, PathBuf};

use super::Outcome;
use super::guardian;
use super::scenes::{ANSWER, BOOT};
use super::tools::{lab, prepared, run, write};
use super::vm::{Machine, Setup, Vm};

/// What every access point here has: a channel, and the room for several networks.
const COMMON: &str =
    "interface=wlan1\ndriver=nl80211\ncountry_code=US\nhw_mode=g\nchannel=6\nieee80211n=1\nwmm_enabled=1\n";
/// A network of WPA2; its passphrase comes after it.
pub const WPA2: &str = "wpa=2\nrsn_pairwise=CCMP\nwpa_key_mgmt=WPA-PSK\n";
/// A network of WPA3; its password comes after it.
pub const WPA3: &str = "wpa=2\nrsn_pairwise=CCMP\nwpa_key_mgmt=SAE\nieee80211w=2\n";
const MIXED: &str =
    "wpa=2\nrsn_pairwise=CCMP\nwpa_key_mgmt=WPA-PSK SAE\nieee80211w=1\nsae_require_mfp=1\nsae_pwe=2\n";
/// Of all networks of the house.
pub const SECRET: &str = "correct horse";
const PASSPHRASE: &str = "wpa_passphrase=correct horse\n";

/// One network of an access point; the first one of a configuration belongs to the interface itself.
pub fn network(interface: &str, number: usize, ssid: &str, keys: &str) -> String {
    let head = if number == 0 { String::new() } else { format!("bss={interface}_{number}\n") };
    format!("{head}ssid={ssid}\n{keys}")
}

/// The house: one radio, all its networks.
fn house() -> String {
    let secret = format!("sae_password={SECRET}\n");
    let networks = [
        ("lab wpa2", format!("{WPA2}{PASSPHRASE}")),
        ("lab wpa3", format!("{WPA3}{secret}")),
        ("lab h2e", format!("{WPA3}sae_pwe=1\n{secret}")),
        ("lab mixed", format!("{MIXED}{PASSPHRASE}")),
        ("lab hidden", format!("{WPA2}{PASSPHRASE}ignore_broadcast_ssid=1\n")),
        ("lab open", String::new()),
    ];
    let numbered = networks.iter().enumerate().map(|(n, (ssid, keys))| network("wlan1", n, ssid, keys));
    COMMON.to_string() + &numbered.collect::<String>()
}

/// A house with one network.
pub fn house_with(ssid: &str, keys: &str) -> String {
    COMMON.to_string() + &network("wlan1", 0, ssid, keys)
}

/// A stranger with these networks.
pub fn stranger_with(networks: &str) -> String {
    COMMON.replace("wlan1", "wlan2") + networks
}

/// The program of the guest that drives `net::wifi`, and the device's.
fn guest() -> Outcome<PathBuf> {
    let mut cargo = guardian::cargo();
    let target = lab().join("guest");
    cargo.args(["build", "--quiet", "--bin", "wifi-guest", "--no-default-features", "--features", "lab"]);
    cargo.args(["--target", "aarch64-unknown-linux-musl", "--target-dir"]).arg(&target);
    run(&mut cargo)?;
    Ok(target.join("aarch64-unknown-linux-musl/debug/wifi-guest"))
}

/// What the air of the guest is made of, as options of the builder.
pub fn air(house: &str, stranger: &str, name: &str) -> Outcome<Vec<String>> {
    let root = prepared("wifi")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/guest/wifi-air");
    let dir = lab().join("initramfs");
    let (house_conf, stranger_conf) =
        (dir.join(format!("{name}.house.conf")), dir.join(format!("{name}.stranger.conf")));
    write(&house_conf, house)?;
    write(&stranger_conf, stranger)?;
    let busybox = &prepared("busybox-arm64")?;
    let add = |from: &Path, to: &str, mode: &str| format!("{}:{to}:{mode}", from.display());
    let added = [
        add(busybox, "/lab/busybox", "755"),
        add(&source, "/lab/air", "755"),
        add(&house_conf, "/lab/house.conf", "644"),
        add(&stranger_conf, "/lab/stranger.conf", "644"),
        // Their libraries are among those of wpa_supplicant.
        add(&root.join("usr/sbin/hostapd"), "/usr/sbin/hostapd", "755"),
        add(&root.join("sbin/iw"), "/usr/sbin/iw", "755"),
    ];
    let mut options: Vec<String> = added.into_iter().flat_map(|file| ["--add".to_string(), file]).collect();
    for module in ["virtio_net", "bridge", "mac80211_hwsim"] {
        options.extend(["--recovery-module", module].map(String::from));
    }
    let supplicant = root.join("sbin/wpa_supplicant");
    options.extend(["--wifi".into(), supplicant.display().to_string()]);
    options.extend(["--wifi-root".into(), root.display().to_string()]);
    Ok(options)
}

fn machine() -> Outcome<Setup> {
    // With one of the house's names, nearer than it.
    let twin = network("wlan2", 0, "lab wpa2", &format!("{WPA2}wpa_passphrase=not the same\n"));
    let mut options = air(&house(), &stranger_with(&twin), "aarch64-wifi")?;
    let guest = guest()?;
    options.extend(["--add".to_string(), format!("{}:/lab/guest:755", guest.display())]);
    let kernel = guardian::kernel(Machine::Arm64)?;
    let initramfs = lab().join("initramfs/aarch64-wifi.img");
    let mut builder = guardian::cargo();
    builder.args(["run", "--quiet", "--features", "builder", "--bin", "bootward-initramfs", "--"]);
    builder.args(["--arch", "aarch64", "--kernel-tree"]).arg(&kernel.tree).args(&options);
    // Nothing here gets as far as an init of ours.
    builder.arg("--binary").arg(&guest).arg("--output").arg(&initramfs);
    run(&mut builder)?;
    Ok(Setup {
        name: "wifi".into(),
        machine: Machine::Arm64,
        memory: 256,
        firmware: None,
        kernel: kernel.image,
        initramfs,
        command_line:
            "console=ttyAMA0 quiet loglevel=3 panic=-1 random.trust_cpu=on rdinit=/lab/air lab.shell".into(),
        disks: Vec::new(),
        extra: Vec::new(),
        live: false,
    })
}

/// Types a line to the guest's program and takes its answer.
fn ask(vm: &mut Vm, line: &str, answer: &str) -> Outcome<String> {
    vm.type_line(line)?;
    let said = vm.expect_line("radio: ", 4 * ANSWER)?;
    if said.starts_with(answer) {
        return Ok(said);
    }
    Err(vm.failure(&format!("'{line}' ends with '{said}' instead of '{answer}'")))
}

/// Asks again until the answer comes, at most so often, with a second in between.
fn until(vm: &mut Vm, line: &str, answer: &str, times: u32) -> Outcome<()> {
    for _ in 1..times {
        vm.type_line(line)?;
        if vm.expect_line("radio: ", 4 * ANSWER)?.starts_with(answer) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    ask(vm, line, answer).map(drop)
}

/// Every kind of network, and every way in which one is not joined.
///
/// # Errors
/// When one of them ends in another way.
pub fn every_network() -> Outcome<Vec<String>> {
    let mut vm = machine()?.start()?;
    vm.expect("air: ready", 2 * BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("/lab/guest wlan0")?;
    vm.expect("radio: ready", 2 * ANSWER)?;
    let mut happened = Vec::new();
    let mut wanted = vec!["lab wpa2 (WPA2,", "lab wpa3 (WPA3,", "lab mixed (WPA2/WPA3,", "lab open (open,"];
    // One scan may miss a beacon, on a busy machine more than one.
    for _ in 0..5 {
        let seen = ask(&mut vm, "scan", "seen ")?;
        wanted.retain(|network| !seen.contains(network));
        if wanted.is_empty() {
            break;
        }
    }
    if let Some(network) = wanted.first() {
        return Err(vm.failure(&format!("five scans do not see '{network}'")));
    }
    for (line, answer) in [
        (r"join lab\x20wpa2 any correct\x20horse", "joined lab wpa2 by WPA2-PSK at 00"),
        (r"join lab\x20wpa3 any correct\x20horse", "joined lab wpa3 by SAE at 01"),
        (r"join lab\x20h2e wpa3 correct\x20horse", "joined lab h2e by SAE at 02"),
        (r"join lab\x20mixed any correct\x20horse", "joined lab mixed by SAE at 03"),
        (r"join lab\x20mixed wpa2 correct\x20horse", "joined lab mixed by WPA2-PSK"),
        (r"join lab\x20hidden hidden correct\x20horse", "joined lab hidden by WPA2-PSK at 04"),
        (r"join lab\x20open open", "joined lab open by NONE at 05"),
        (r"join lab\x20wpa2 any wrong\x20horse", "failed 'lab wpa2': wrong passphrase"),
        (r"join lab\x20wpa3 any wrong\x20horse", "failed 'lab wpa3': wrong passphrase"),
        (r"join lab\x20wpa2 open", "failed 'lab wpa2' in reach is another one: its protection is WPA2"),
        (r"join lab\x20nowhere any correct\x20horse", "failed 'lab nowhere' is not in reach"),
        // A stranger with our network's name, nearer than ours.
        ("sh air stranger up", "done"),
        ("scan", "seen lab wpa2 (WPA2, 2437 MHz"),
        (r"join lab\x20wpa2 any correct\x20horse", "joined lab wpa2 by WPA2-PSK at 00"),
    ] {
        happened.push(format!("{line}: {}", ask(&mut vm, line, answer)?));
    }
    // The access point is out of range for a while: nobody but the daemon does anything about it.
    ask(&mut vm, "sh air stranger down; air house away", "done")?;
    until(&mut vm, "joined", "is joined: false", 6)?;
    ask(&mut vm, "sh air house near", "done")?;
    until(&mut vm, "joined", "is joined: true", 60)?;
    happened.push("the access point was lost and found again".into());
    vm.type_line("quit")?;
    vm.expect("radio: ended", ANSWER)?;
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    Ok(happened)
}
