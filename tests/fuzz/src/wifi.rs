//! What comes from the air through wpa_supplicant, and files of networks that anybody may have written.

use std::time::Duration;

use bootward::net::wifi::escrow::{connman, iwd, network_manager};
use bootward::net::wifi::file::{self, NETWORKS_MAX};
use bootward::net::wifi::join::{Joining, Step, fields};
use bootward::net::wifi::profile::SSID_MAX;
use bootward::net::wifi::{Key, Origin, Profile, Secret, wire};

/// Datagrams of the control socket, one a line: a scan's results first, then events that a way into a network hears. It ends
/// after a bounded number of tries, and no command for the daemon is more than a line.
pub fn wpa(data: &[u8]) {
    let (scan, events) = match data.iter().position(|&b| b == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[..0]),
    };
    let seen = wire::scan_results(scan);
    assert!(seen.len() <= wire::SEEN_MAX && seen.iter().all(|s| s.ssid.len() <= SSID_MAX));
    assert!(seen.iter().all(|s| !s.name().chars().any(char::is_control)));
    let status = wire::status(scan);
    assert!(!status.state.contains('\n') && status.state.len() <= 256);
    let ssid = seen.first().map_or(b"Home".to_vec(), |s| s.ssid.clone());
    let key = Key::Passphrase(Secret::new("correct horse"));
    let Ok(profile) = Profile::new(ssid, key, Origin::Operator) else { return };
    let mut joining = Joining::begin(&profile, &seen, Duration::ZERO, Duration::from_secs(60));
    let mut attempts = 1;
    for (at, line) in events.split(|&b| b == b'\n').enumerate() {
        let now = Duration::from_millis(at as u64);
        let step = match wire::event(line) {
            Some(event) => joining.hear(&event, now),
            None => joining.wait(now),
        };
        match step {
            Step::Wait => {}
            Step::Try(attempt) => {
                attempts += 1;
                for (name, value) in fields(&profile, &attempt) {
                    let line = |bytes: &[u8]| !bytes.iter().any(|b| matches!(b, b'\n' | b'\r' | 0));
                    assert!(line(name.as_bytes()) && line(value.bytes()));
                }
            }
            Step::Joined | Step::Failed(_) => break,
        }
        assert!(attempts <= 16);
    }
}

/// What is taken from a file can be written, and is then read as the same; the other programs' files are survived.
pub fn networks(data: &[u8]) {
    let (list, complaints) = file::parse(data, Origin::Boot);
    assert!(list.profiles.len() <= NETWORKS_MAX && complaints.len() <= NETWORKS_MAX);
    for complaint in complaints {
        assert!(!complaint.to_string().contains('\n'));
    }
    let (again, complaints) = file::parse(file::emit(&list).bytes(), Origin::Boot);
    assert_eq!((again, complaints), (list, Vec::new()));
    let text = String::from_utf8_lossy(data);
    let _ = file::line(&text, Origin::Config);
    let (name, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let all = [
        network_manager::parse(data, "wlan0").ok().flatten(),
        iwd::parse(name, rest.as_bytes()).ok().flatten(),
    ];
    let connman = connman::parse(data).into_iter().filter_map(Result::ok);
    for profile in all.into_iter().flatten().chain(connman) {
        assert!((1..=SSID_MAX).contains(&profile.ssid.len()));
        let list = file::List { profiles: vec![profile], ..file::List::default() };
        let (again, complaints) = file::parse(file::emit(&list).bytes(), Origin::Escrow);
        assert_eq!((again, complaints), (list, Vec::new()));
    }
}
