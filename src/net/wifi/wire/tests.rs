use super::*;
use alloc::vec;

const AP: Bssid = [2, 0, 0, 0, 1, 0];

#[test]
fn events_as_the_daemon_writes_them() {
    let of = |text: &str| event(text.as_bytes());
    assert_eq!(
        of("<3>CTRL-EVENT-CONNECTED - Connection to 02:00:00:00:01:00 completed [id=0 id_str=]"),
        Some(Event::Connected)
    );
    assert_eq!(
        of("<3>CTRL-EVENT-DISCONNECTED bssid=02:00:00:00:01:00 reason=4 locally_generated=1"),
        Some(Event::Disconnected { bssid: Some(AP), reason: 4, ours: true })
    );
    assert_eq!(of("<3>CTRL-EVENT-SCAN-RESULTS "), Some(Event::Scanned));
    assert_eq!(of("<3>CTRL-EVENT-SCAN-FAILED ret=-16 retry=1"), Some(Event::ScanFailed));
    assert_eq!(of("<3>CTRL-EVENT-NETWORK-NOT-FOUND "), Some(Event::NotFound));
    assert_eq!(
        of("<3>CTRL-EVENT-AUTH-REJECT 02:00:00:00:01:00 auth_type=3 auth_transaction=2 status_code=1"),
        Some(Event::AuthRejected { bssid: Some(AP), kind: 3, transaction: 2, status: 1 })
    );
    assert_eq!(
        of("<3>CTRL-EVENT-ASSOC-REJECT bssid=02:00:00:00:01:00 status_code=17"),
        Some(Event::AssocRejected { bssid: Some(AP), status: 17 })
    );
    assert_eq!(
        of("<3>SME: Trying to authenticate with 02:00:00:00:01:00 (SSID='Spike Net' freq=2437 MHz)"),
        Some(Event::Trying { bssid: Some(AP) })
    );
    assert_eq!(
        of("<3>Trying to associate with 02:00:00:00:01:00 (SSID='x' freq=2437 MHz)"),
        Some(Event::Trying { bssid: Some(AP) })
    );
    assert_eq!(of("IFNAME=wlan0 <3>CTRL-EVENT-SCAN-RESULTS "), Some(Event::Scanned));
    assert_eq!(of("<3>CTRL-EVENT-TERMINATING "), Some(Event::Terminating));
    assert_eq!(of("<3>CTRL-EVENT-REGDOM-CHANGE init=CORE type=WORLD"), None);
    assert_eq!(of("OK\n"), None);
}

#[test]
fn a_networks_name_cannot_say_that_its_key_is_wrong() {
    let of = |text: &str| event(text.as_bytes());
    let event = |ssid: &str, reason: &str| {
        of(&alloc::format!(
            "<3>CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"{ssid}\" auth_failures=1 duration=10 reason={reason}"
        ))
    };
    assert_eq!(event("Home", "WRONG_KEY"), Some(Event::Disabled { wrong_key: true }));
    assert_eq!(event("Home", "CONN_FAILED"), Some(Event::Disabled { wrong_key: false }));
    assert_eq!(event("x reason=WRONG_KEY y", "CONN_FAILED"), Some(Event::Disabled { wrong_key: false }));
}

#[test]
fn scan_results_as_the_daemon_writes_them() {
    let reply = b"bssid / frequency / signal level / flags / ssid\n\
        02:00:00:00:01:00\t2437\t-60\t[WPA2-PSK-CCMP][ESS]\tSpike Net\n\
        02:00:00:00:02:00\t5180\t-30\t[WPA2-PSK+SAE-CCMP][SAE-H2E][ESS]\tcaf\\xc3\\xa9 \\\"x\\\"\\\\\\t\n\
        02:00:00:00:03:00\t2412\t-70\t[ESS]\t\\x00\\x00\n\
        02:00:00:00:04:00\t2412\t-71\t[WPA2-EAP-CCMP][ESS]\t\n\
        02:00:00:00:05:00\t2412\t-72\t[WPA2-SAE-CCMP][ESS]\t \n\
        02:00:00:00:06:00\t2412\t-73\t[WEP][ESS]\told\n\
        nonsense\n02:00:00:00:07:00\t24";
    let seen = scan_results(reply);
    let names: Vec<&[u8]> = seen.iter().map(|s| s.ssid.as_slice()).collect();
    assert_eq!(names, ["café \"x\"\\\t".as_bytes(), b"Spike Net", b"", b"", b" ", b"old"]);
    let kinds: Vec<String> = seen.iter().map(|s| alloc::format!("{}", s.protection)).collect();
    assert_eq!(kinds, ["WPA2/WPA3", "WPA2", "open", "enterprise", "WPA3", "other"]);
    assert_eq!((seen[1].bssid, seen[1].frequency, seen[1].signal), (AP, 2437, -60));
}

#[test]
fn the_list_is_bounded_and_names_are_too() {
    let line = b"02:00:00:00:01:00\t2437\t-60\t[ESS]\tn\n";
    assert_eq!(scan_results(&line.repeat(SEEN_MAX + 10)).len(), SEEN_MAX);
    assert_eq!(decode(&[b'a'; 33]), None);
    assert_eq!(decode(b"\\q"), None);
    assert_eq!(decode(b"\\x4"), None);
    assert_eq!(decode(&b"\\xff".repeat(32)), Some(vec![0xff; 32]));
}

#[test]
fn status_as_the_daemon_writes_it() {
    let reply =
        b"bssid=02:00:00:00:01:00\nfreq=2437\nssid=Spike Net\nid=0\nmode=station\nkey_mgmt=SAE\npmf=2\n\
        wpa_state=COMPLETED\nssid=x\nwpa_state=SCANNING\n";
    let status = status(reply);
    assert_eq!((status.state.as_str(), status.key_mgmt.as_str()), ("COMPLETED", "SAE"));
    assert_eq!((status.bssid, status.frequency, status.protected), (Some(AP), 2437, true));
    assert_eq!(super::status(b"\xff\n=").state, "");
}

#[test]
fn every_prefix_of_everything_is_survived() {
    let event_text =
        b"<3>CTRL-EVENT-AUTH-REJECT 02:00:00:00:01:00 auth_type=3 auth_transaction=2 status_code=1";
    for end in 0..event_text.len() {
        let _ = event(&event_text[..end]);
    }
    assert_eq!(event(b"<3>CTRL-EVENT-SCAN-RESULTS \xff"), Some(Event::Scanned));
    assert_eq!(event(b""), None);
}
