//! A radio and the daemon that drives it.

use std::path::PathBuf;
use std::time::Duration;

use super::wire::Bssid;
use super::{Error, Profile, Seen};
use crate::net::Watch;

/// How the daemon is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The program; default `/usr/sbin/wpa_supplicant`.
    pub supplicant: PathBuf,
    /// Where its control socket and its configuration are; default `/run/wpa`.
    pub control: PathBuf,
    /// Where the device is, as ISO 3166 has it (`DE`); empty for the world's own few channels.
    pub country: String,
    /// Until a network is joined, at most; default 60 s.
    pub join: Duration,
    /// Until a scan has results, at most; default 30 s.
    pub scan: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            supplicant: "/usr/sbin/wpa_supplicant".into(),
            control: "/run/wpa".into(),
            country: String::new(),
            join: Duration::from_secs(60),
            scan: Duration::from_secs(30),
        }
    }
}

/// A network was joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Its name, as it may be shown.
    pub name: String,
    /// The access point.
    pub bssid: Bssid,
    /// Its channel, in MHz.
    pub frequency: u32,
    /// `WPA2-PSK`, `SAE`, ...
    pub key_mgmt: String,
}

/// A radio, driven by a daemon of its own, which ends with this value.
#[derive(Debug)]
pub struct Radio {}

impl Radio {
    /// Starts the daemon for an interface and waits until it answers.
    ///
    /// # Errors
    /// When it does not, or the radio is switched off.
    pub fn start(interface: &str, settings: &Settings, watch: &mut dyn Watch) -> Result<Self, Error> {
        let _ = (interface, settings, watch);
        Err(Error::Daemon("not there yet".into()))
    }

    /// The access points in reach, the strongest first.
    ///
    /// # Errors
    /// When the radio cannot scan.
    pub fn scan(&mut self, watch: &mut dyn Watch) -> Result<Vec<Seen>, Error> {
        let _ = watch;
        Err(Error::Scan)
    }

    /// Joins a network. The address is the caller's business.
    ///
    /// # Errors
    /// Why it was not joined.
    pub fn join(&mut self, profile: &Profile, watch: &mut dyn Watch) -> Result<Joined, Error> {
        let _ = (profile, watch);
        Err(Error::Scan)
    }

    /// Whether the network is still joined. The daemon tries to join it again by itself.
    pub fn is_joined(&mut self) -> bool {
        false
    }
}
