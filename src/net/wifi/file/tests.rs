use super::*;
use alloc::vec;

fn read(text: &str) -> (List, Vec<Complaint>) {
    parse(text.as_bytes(), Origin::Boot)
}

const FILE: &str = r#"
# as Raspberry Pi OS and others write it
ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev
update_config=1
country=de

network={
	ssid="Home"
	#psk="old one"
	psk="pass # \"word\" #1"   # and a comment
	priority=5
}
network={
    ssid=436166c3a9
    psk=0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF
    scan_ssid=1
}
network={
    ssid=P"tab\there\x00"
    key_mgmt=SAE
    sae_password="x"
    ieee80211w=2
}
network={
    ssid="Cafe"
    key_mgmt=NONE
}
network={
    ssid="off"
    psk="12345678"
    disabled=1
}
network={
    ssid="Work"
    key_mgmt=WPA-EAP
    eap=PEAP
    identity="me"
    password="secret#1"
    phase2="auth=MSCHAPV2"
    priority=9
}
blob-base64-x={
psk="not a network"
}
module brcmfmac
options brcmfmac  feature_disable=0x82000   roamoff=1
options ../x y=1
module /etc/x
"#;

#[test]
fn a_file_as_systems_have_it() {
    let (list, complaints) = read(FILE);
    assert_eq!(complaints, []);
    assert_eq!(list.country, "DE");
    assert_eq!(
        (list.modules, list.options),
        (vec!["brcmfmac".into()], vec!["brcmfmac feature_disable=0x82000 roamoff=1".into()])
    );
    let kinds: Vec<(String, &str)> = list.profiles.iter().map(|p| (p.name(), p.key.kind())).collect();
    let expected = [
        ("Home", "WPA2/WPA3"),
        ("Café", "WPA2"),
        ("tab?here?", "WPA3"),
        ("Cafe", "open"),
        ("Work", "enterprise"),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.into(), kind)));
    let Key::Passphrase(secret) = &list.profiles[0].key else { panic!() };
    // Quotes within need no escape there.
    assert_eq!(secret.text(), Some("pass # \\\"word\\\" #1"));
    assert_eq!((list.profiles[0].priority, list.profiles[1].hidden), (5, true));
    let Key::Enterprise(fields) = &list.profiles[4].key else { panic!() };
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.text().unwrap())).collect();
    assert_eq!(
        fields,
        [
            ("key_mgmt", "WPA-EAP"),
            ("eap", "PEAP"),
            ("identity", "\"me\""),
            ("password", "\"secret#1\""),
            ("phase2", "\"auth=MSCHAPV2\"")
        ]
    );
}

#[test]
fn what_is_written_is_read() {
    let (list, _) = read(FILE);
    let text = emit(&list);
    let (again, complaints) = parse(text.bytes(), Origin::Boot);
    assert_eq!(complaints, []);
    assert_eq!(again, list);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_the_rest_is_used() {
    let (list, complaints) = read(
        "network={\npsk=\"12345678\"\n}\nnetwork={\nssid=\"a\"\n}\nnetwork={\nssid=\"a\"\npsk=\"short\"\n}\n\
         network={\nssid=\"a\"\nkey_mgmt=NONE\nwep_key0=\"abcde\"\n}\nnetwork={\nssid=\"ok\"\npsk=\"12345678\"\n}\nnetwork={\nssid=\"x\"\n",
    );
    assert_eq!(list.profiles.len(), 1);
    assert_eq!(
        complaints,
        [
            Complaint::NoName(1),
            Complaint::NoKey(4),
            Complaint::Unfit(7, Unfit::Passphrase),
            Complaint::Kind(11),
            Complaint::Open(20)
        ]
    );
    for complaint in complaints {
        assert!(!complaint.to_string().contains("short"));
    }
}

#[test]
fn limits_hold() {
    let (list, complaints) = read(&"network={\nssid=\"n\"\nkey_mgmt=NONE\n}\n".repeat(NETWORKS_MAX + 2));
    assert_eq!((list.profiles.len(), complaints.len()), (NETWORKS_MAX, 2));
    assert_eq!(read(&"#".repeat(FILE_MAX + 1)).1, [Complaint::TooLong]);
    assert_eq!(read(&"module m\noptions m a=1\n".repeat(50)).0.options.len(), DRIVER_LINES_MAX);
    assert_eq!(options_line(&format!("m {}", "x".repeat(600))), None);
    assert_eq!(options_line("m"), None);
}

#[test]
fn every_prefix_is_survived() {
    for end in 0..FILE.len() {
        if FILE.is_char_boundary(end) {
            let (list, _) = read(&FILE[..end]);
            assert_eq!(parse(emit(&list).bytes(), Origin::Boot).0, list);
        }
    }
}

#[test]
fn a_network_on_one_line() {
    let of = |text: &str| line(text, Origin::Config);
    let profile = of(r#"ssid="My own"net" psk="correct horse" scan_ssid=1 priority=2"#).unwrap();
    assert_eq!((profile.name().as_str(), profile.hidden, profile.priority), ("My own\"net", true, 2));
    assert_eq!(profile.key, Key::Passphrase(Secret::new("correct horse")));
    assert_eq!(of("ssid=61 key_mgmt=NONE").unwrap().key, Key::Open);
    assert_eq!(of(""), Err(Complaint::NoName(1)));
    assert_eq!(of("ssid=\"a\""), Err(Complaint::NoKey(1)));
    assert_eq!(of("=\"= \""), Err(Complaint::NoName(1)));
}
