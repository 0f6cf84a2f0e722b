//! The radio against a daemon that the test plays: its program is a script, its control socket a thread.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bootward::net::Watch;
use bootward::net::wifi::{Error, Key, Origin, Profile, Radio, Secret, Settings};

/// Waits for as long as a test may last.
struct Patient {
    told: Vec<String>,
    until: Instant,
}

impl Patient {
    fn new(seconds: u64) -> Self {
        Patient { told: Vec::new(), until: Instant::now() + Duration::from_secs(seconds) }
    }
}

impl Watch for Patient {
    fn tell(&mut self, line: &str) {
        self.told.push(line.to_string());
    }
    fn alive(&mut self) -> bool {
        Instant::now() < self.until
    }
}

/// What the played daemon does with a command: datagrams to send, the first one without `<` being the reply.
type Play = fn(&str, usize) -> Vec<&'static str>;

struct Stage {
    room: tempfile::TempDir,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    /// `script`: what the program does; from its word `RUNS` on there is a socket.
    fn new(script: &str, play: Play) -> Self {
        let room = tempfile::tempdir().unwrap();
        let program = room.path().join("wpa_supplicant");
        let (starts, runs) = (room.path().join("starts"), room.path().join("runs"));
        let script = script.replace("RUNS", &format!("echo >>{}", runs.display()));
        let text = format!("#!/bin/sh\necho >>{}\n{script}\n", starts.display());
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let commands = Arc::new(Mutex::new(Vec::new()));
        let (at, heard) = (room.path().to_path_buf(), commands.clone());
        std::thread::spawn(move || daemon(&at, play, &heard));
        Stage { room, commands }
    }

    fn settings(&self) -> Settings {
        Settings {
            supplicant: self.room.path().join("wpa_supplicant"),
            control: self.room.path().join("control"),
            switches: self.room.path().join("switches"),
            country: "DE".into(),
            scan: Duration::from_secs(5),
            ..Settings::default()
        }
    }

    fn commands(&self) -> Vec<String> {
        self.commands.lock().unwrap().clone()
    }

    fn starts(&self) -> usize {
        lines(&self.room.path().join("starts"))
    }
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

/// Serves the socket, anew for every run of the program that stays.
fn daemon(room: &Path, play: Play, heard: &Mutex<Vec<String>>) {
    let path: PathBuf = room.join("control/wlan9");
    let mut socket: Option<(usize, UnixDatagram)> = None;
    while room.exists() {
        let now = lines(&room.join("runs"));
        if socket.as_ref().is_none_or(|(run, _)| *run != now) && now > 0 {
            let _ = fs::remove_file(&path);
            socket = UnixDatagram::bind(&path).ok().map(|s| (now, s));
        }
        let Some((run, socket)) = &socket else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
        let mut buffer = [0; 4096];
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let command = String::from_utf8_lossy(&buffer[..length]).into_owned();
        heard.lock().unwrap().push(command.clone());
        let Some(back) = from.as_pathname() else { continue };
        for datagram in play(&command, *run) {
            let _ = socket.send_to(datagram.as_bytes(), back);
        }
    }
}

/// A daemon with one access point; what happens at SELECT_NETWORK differs.
fn common(command: &str) -> Vec<&'static str> {
    match command.split(' ').next().unwrap() {
        "PING" => vec!["PONG\n"],
        "SCAN" => vec!["<3>CTRL-EVENT-SCAN-STARTED ", "OK\n", "<3>CTRL-EVENT-SCAN-RESULTS "],
        "SCAN_RESULTS" => {
            vec![
                "bssid / frequency / signal level / flags / ssid\n02:00:00:00:01:00\t2437\t-40\t[WPA2-PSK-CCMP][ESS]\tHome\n",
            ]
        }
        "ADD_NETWORK" => vec!["<3>CTRL-EVENT-NETWORK-ADDED 7", "7\n"],
        "STATUS" => {
            vec!["bssid=02:00:00:00:01:00\nfreq=2437\nkey_mgmt=WPA2-PSK\nwpa_state=COMPLETED\n"]
        }
        _ => vec!["OK\n"],
    }
}

fn home() -> Profile {
    Profile::new("Home", Key::Passphrase(Secret::new("correct horse")), Origin::Config).unwrap()
}

const STAYS: &str = "RUNS\nexec sleep 60";

#[test]
fn a_network_is_joined_and_the_daemon_ends_with_the_radio() {
    let stage = Stage::new(STAYS, |command, _| {
        if command.starts_with("SELECT_NETWORK") {
            // The event overtakes the reply, as it may.
            return vec![
                "<3>CTRL-EVENT-CONNECTED - Connection to 02:00:00:00:01:00 completed [id=7 id_str=]",
                "OK\n",
            ];
        }
        common(command)
    });
    let mut watch = Patient::new(30);
    let mut radio = Radio::start("wlan9", &stage.settings(), &mut watch).unwrap();
    let config = fs::read_to_string(stage.room.path().join("control/bootward.conf")).unwrap();
    assert!(config.contains("country=DE\n") && config.contains("p2p_disabled=1\n"), "{config}");
    let joined = radio.join(&home(), &[], &mut watch).unwrap();
    assert_eq!(
        (joined.name.as_str(), joined.frequency, joined.key_mgmt.as_str()),
        ("Home", 2437, "WPA2-PSK")
    );
    assert!(radio.is_joined());
    let commands = stage.commands();
    let from = commands.iter().position(|c| c == "ADD_NETWORK").unwrap();
    assert_eq!(
        commands[from..from + 7],
        [
            "ADD_NETWORK",
            "SET_NETWORK 7 ssid 486f6d65",
            "SET_NETWORK 7 scan_freq 2437",
            "SET_NETWORK 7 key_mgmt WPA-PSK WPA-PSK-SHA256 SAE",
            "SET_NETWORK 7 ieee80211w 1",
            "SET_NETWORK 7 psk \"correct horse\"",
            "SELECT_NETWORK 7"
        ]
    );
    assert!(!config.contains("horse"), "the secret is in a file");
    drop(radio);
    let left = fs::read_dir(stage.room.path().join("control")).unwrap();
    let left: Vec<String> = left.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with(".bootward")), "{left:?}");
}

#[test]
fn a_wrong_passphrase_is_told_after_two_tries_and_nothing_goes_on_behind_us() {
    let stage = Stage::new(STAYS, |command, _| {
        if command.starts_with("SELECT_NETWORK") {
            return vec![
                "OK\n",
                "<3>Trying to associate with 02:00:00:00:01:00 (SSID='Home' freq=2437 MHz)",
                "<3>CTRL-EVENT-DISCONNECTED bssid=02:00:00:00:01:00 reason=15",
                "<3>CTRL-EVENT-SSID-TEMP-DISABLED id=7 ssid=\"Home\" auth_failures=1 duration=10 reason=WRONG_KEY",
            ];
        }
        common(command)
    });
    let mut watch = Patient::new(30);
    let mut radio = Radio::start("wlan9", &stage.settings(), &mut watch).unwrap();
    assert_eq!(radio.join(&home(), &[], &mut watch), Err(Error::WrongKey("Home".into())));
    let commands = stage.commands();
    assert_eq!(commands.iter().filter(|c| c.starts_with("SELECT_NETWORK")).count(), 2);
    assert_eq!(commands.last().map(String::as_str), Some("REMOVE_NETWORK all"));
}

#[test]
fn a_build_that_refuses_a_word_of_the_configuration_is_started_without_it() {
    let script = "grep -q p2p_disabled \"$6\" && { echo \"Line 3: unknown global field 'p2p_disabled'.\"; exit 255; }\n\
                  RUNS\nexec sleep 60";
    let stage = Stage::new(script, |command, _| common(command));
    let mut watch = Patient::new(30);
    let mut radio = Radio::start("wlan9", &stage.settings(), &mut watch).unwrap();
    assert_eq!(radio.scan(&mut watch).unwrap().len(), 1);
    assert_eq!(stage.starts(), 2);
}

#[test]
fn a_daemon_that_dies_is_started_again_and_what_it_said_is_told() {
    let stage = Stage::new(STAYS, |command, run| {
        if command.starts_with("SELECT_NETWORK") {
            let event = if run == 1 { "<3>CTRL-EVENT-TERMINATING " } else { "<3>CTRL-EVENT-CONNECTED - x" };
            return vec!["OK\n", event];
        }
        common(command)
    });
    let mut watch = Patient::new(30);
    let mut radio = Radio::start("wlan9", &stage.settings(), &mut watch).unwrap();
    assert!(matches!(radio.join(&home(), &[], &mut watch), Err(Error::Daemon(_))));
    assert!(!radio.is_joined());
    assert_eq!(radio.join(&home(), &[], &mut watch).unwrap().name, "Home");
    assert_eq!(stage.starts(), 2);
}

#[test]
fn a_daemon_that_cannot_run_is_given_up_with_its_words() {
    let stage = Stage::new("echo 'libssl.so.3: cannot open shared object file' >&2; exit 127", |_, _| vec![]);
    let mut watch = Patient::new(60);
    let error = Radio::start("wlan9", &stage.settings(), &mut watch).unwrap_err();
    let Error::Daemon(why) = error else { panic!("{error}") };
    assert!(why.contains("libssl.so.3: cannot open") && why.contains("127"), "{why}");
    assert!((2..=6).contains(&stage.starts()), "{} runs", stage.starts());
    let missing = Settings { supplicant: "/nowhere/wpa_supplicant".into(), ..stage.settings() };
    let error = Radio::start("wlan9", &missing, &mut watch).unwrap_err();
    assert!(error.to_string().contains("/nowhere/wpa_supplicant"), "{error}");
}

#[test]
fn whoever_waits_can_end_it() {
    let stage = Stage::new(STAYS, |command, _| match command {
        "SCAN TYPE=ONLY" => vec!["OK\n"],
        other => common(other),
    });
    let mut watch = Patient::new(30);
    let mut radio = Radio::start("wlan9", &stage.settings(), &mut watch).unwrap();
    let begun = Instant::now();
    assert_eq!(radio.scan(&mut Patient::new(1)), Err(Error::Stopped));
    assert!(begun.elapsed() < Duration::from_secs(4));
    // And without anybody to end it, the time does.
    assert_eq!(radio.scan(&mut watch), Err(Error::Scan));
}

#[test]
fn a_build_without_wpa3_joins_on_the_next_rung() {
    let stage = Stage::new(STAYS, |command, _| match command {
        c if c.starts_with("SET_NETWORK 7 key_mgmt") && c.contains("SAE") => vec!["FAIL\n"],
        "SELECT_NETWORK 7" => vec!["OK\n", "<3>CTRL-EVENT-CONNECTED - x"],
        other => common(other),
    });
    let mut watch = Patient::new(30);
    let mut radio = Radio::start("wlan9", &stage.settings(), &mut watch).unwrap();
    radio.join(&home(), &[], &mut watch).unwrap();
    assert!(stage.commands().contains(&"SET_NETWORK 7 key_mgmt WPA-PSK".to_string()));
}

fn put(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A system that has used every program there is.
fn system() -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    let at = room.path();
    let nm = |id: &str, more: &str| {
        format!(
            "[connection]\nid={id}\nuuid=u-{id}\ntype=wifi\n{more}\n[wifi]\nssid={id}\n\n[wifi-security]\nkey-mgmt=wpa-psk\npsk=nm-secret\n"
        )
    };
    let connections = "os/etc/NetworkManager/system-connections";
    put(at, &format!("{connections}/Older.nmconnection"), &nm("Older", ""));
    put(at, &format!("{connections}/Newer.nmconnection"), &nm("Newer", ""));
    put(at, &format!("{connections}/Other.nmconnection"), &nm("Other", "interface-name=wlan7\n"));
    put(at, "os/var/lib/NetworkManager/timestamps", "[timestamps]\nu-Older=1000\nu-Newer=2000\n");
    put(at, "os/var/lib/iwd/Iwd Net.psk", "[Security]\nPassphrase=iwd-secret\n");
    put(at, "os/etc/iwd/main.conf", "[General]\nCountry=at\n");
    let block =
        |ssid: &str, more: &str| format!("network={{\nssid=\"{ssid}\"\npsk=\"sup-secret\"\n{more}}}\n");
    put(
        at,
        "os/etc/wpa_supplicant/wpa_supplicant-wlan0.conf",
        &format!("country=DE\n{}", block("First", "priority=9\n")),
    );
    let work = "network={\nssid=\"Work\"\nkey_mgmt=WPA-EAP\nca_cert=\"/etc/ssl/work.pem\"\npassword=\"eap-secret\"\n}\n";
    put(at, "os/etc/wpa_supplicant/wpa_supplicant.conf", &(block("Newer", "") + work));
    put(at, "os/var/lib/connman/home.config", "[service_h]\nType=wifi\nName=Conn\nPassphrase=conn-secret\n");
    put(
        at,
        "os/etc/modprobe.d/brcm.conf",
        "# x\noptions brcmfmac \\\n feature_disable=0x82000\noptions snd x=1\n",
    );
    put(at, "os/usr/lib/modprobe.d/brcm.conf", "options brcmfmac hidden=1\n");
    put(at, "os/usr/lib/modprobe.d/reg.conf", "options cfg80211 ieee80211_regdom=US\n");
    put(at, "os/sys/class/net/eth0/address", "");
    put(at, "os/sys/class/net/wlan0/phy80211/name", "phy0\n");
    put(at, "os/sys/bus/sdio/drivers/brcmfmac/bind", "");
    fs::create_dir_all(at.join("os/sys/class/net/wlan0/device")).unwrap();
    let link = |text: &str, name: &str| std::os::unix::fs::symlink(text, at.join(name)).unwrap();
    link("../../../../bus/sdio/drivers/brcmfmac", "os/sys/class/net/wlan0/device/driver");
    link("../../../../module/brcmfmac", "os/sys/bus/sdio/drivers/brcmfmac/module");
    fs::create_dir_all(at.join("phys/ostree")).unwrap();
    room
}

fn wifi(room: &Path, arguments: &[&str]) -> (String, String, bool) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bootward"));
    command.arg("wifi").args(arguments).arg("--root").arg(room.join("os"));
    let output = command.arg("--sysroot").arg(room.join("phys")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

#[test]
fn what_every_program_knows_is_handed_over_and_no_secret_is_shown() {
    let room = system();
    let slot = room.path().join("phys/ostree/bootward/wifi");
    let (said, left, ok) = wifi(room.path(), &["escrow", "--dry-run"]);
    assert!(ok && !slot.exists(), "{left}");
    let (json, more, ok) = wifi(room.path(), &["escrow", "--json"]);
    assert!(ok, "{more}");
    for text in [&said, &left, &json, &more] {
        assert!(!text.contains("secret"), "{text}");
    }
    assert!(left.contains("Other.nmconnection: it is for wlan7"), "{left}");
    assert!(left.contains("'Work' needs the file"), "{left}");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> =
        value["networks"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["First", "Newer", "Older", "Iwd Net", "Newer", "Conn"]);
    assert_eq!((value["country"].as_str(), value["modules"][0].as_str()), (Some("AT"), Some("brcmfmac")));
    assert_eq!(
        value["options"],
        serde_json::json!(["brcmfmac feature_disable=0x82000", "cfg80211 ieee80211_regdom=US"])
    );
    assert_eq!(fs::metadata(&slot).unwrap().permissions().mode() & 0o777, 0o600);
    // As recovery reads it.
    let places = bootward::net::wifi::Places {
        directory: room.path().join("none"),
        root: Some(room.path().join("phys")),
        ..bootward::net::wifi::Places::default()
    };
    let known = bootward::net::wifi::known(&places);
    assert_eq!(known.profiles.len(), 6);
    assert_eq!(known.profiles[0].key, Key::Passphrase(Secret::new("sup-secret")));
    assert!(known.complaints.is_empty() && known.options.len() == 2);
    let (said, _, ok) = wifi(room.path(), &["show"]);
    assert!(ok && said.contains("Iwd Net (WPA2/WPA3") && !said.contains("secret"), "{said}");
    let (_, _, ok) = wifi(room.path(), &["forget"]);
    assert!(ok && !slot.exists());
    assert!(!wifi(room.path(), &["show"]).2);
}

#[test]
fn what_is_not_found_leaves_the_slot_as_it_is() {
    let room = system();
    assert!(wifi(room.path(), &["escrow"]).2);
    let slot = room.path().join("phys/ostree/bootward/wifi");
    let before = fs::read(&slot).unwrap();
    for name in ["os/etc", "os/var"] {
        fs::remove_dir_all(room.path().join(name)).unwrap();
    }
    let (_, why, ok) = wifi(room.path(), &["escrow"]);
    assert!(!ok && why.contains("no network for wlan0 was found"), "{why}");
    assert_eq!(fs::read(&slot).unwrap(), before);
}
