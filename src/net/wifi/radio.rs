//! A radio and the daemon that drives it. Ring: std.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::control::{Command, Control, Fault};
use super::daemon::Daemon;
use super::join::{Attempt, Failure, Joining, Step, fields};
use super::wire::{self, Bssid, Event};
use super::{Error, Profile, Seen, switch};
use crate::net::Watch;

/// A reply comes within this; a passphrase is hashed 8192 times for it.
const REPLY: Duration = Duration::from_secs(15);
/// The daemon answers within this after its start.
const START: Duration = Duration::from_secs(20);
/// So old may a scan be to be of use for joining.
const FRESH: Duration = Duration::from_secs(30);
/// The pauses before the daemon is started again: 1, 2, 4, ... and at most this.
const PAUSE_MAX: Duration = Duration::from_secs(32);
/// It is started so often for one wish.
const STARTS: u32 = 3;

/// How the daemon is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The program; default `/usr/sbin/wpa_supplicant`.
    pub supplicant: PathBuf,
    /// Where its control socket and its configuration are; default `/run/wpa`.
    pub control: PathBuf,
    /// Where the switches of radios are; default `/sys/class/rfkill`.
    pub switches: PathBuf,
    /// Where the device is, as ISO 3166 has it (`DE`); empty for the world's own few channels.
    pub country: String,
    /// Until a network is joined, at most; default 90 s.
    pub join: Duration,
    /// Until a scan has results, at most; default 30 s.
    pub scan: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            supplicant: "/usr/sbin/wpa_supplicant".into(),
            control: "/run/wpa".into(),
            switches: "/sys/class/rfkill".into(),
            country: String::new(),
            join: Duration::from_secs(90),
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
pub struct Radio {
    interface: String,
    settings: Settings,
    running: Option<Running>,
    seen: Option<(Instant, Vec<Seen>)>,
    /// How often the daemon was started in a row without doing anything of use.
    starts: u32,
    begun: Instant,
}

#[derive(Debug)]
struct Running {
    // Closed before the daemon ends.
    control: Control,
    daemon: Daemon,
}

impl Radio {
    /// Starts the daemon for an interface and waits until it answers.
    ///
    /// # Errors
    /// When it does not, or the radio is switched off.
    pub fn start(interface: &str, settings: &Settings, watch: &mut dyn Watch) -> Result<Self, Error> {
        let mut radio = Radio {
            interface: interface.into(),
            settings: settings.clone(),
            running: None,
            seen: None,
            starts: 0,
            begun: Instant::now(),
        };
        radio.up(watch)?;
        Ok(radio)
    }

    /// The access points in reach, the strongest first.
    ///
    /// # Errors
    /// When the radio cannot scan.
    pub fn scan(&mut self, watch: &mut dyn Watch) -> Result<Vec<Seen>, Error> {
        self.up(watch)?;
        self.control()?.forget();
        let end = Instant::now() + self.settings.scan;
        let mut asked = false;
        while Instant::now() < end {
            if !asked {
                // Busy with one of its own, whose results will do.
                asked = matches!(
                    self.ask("SCAN TYPE=ONLY", b"SCAN TYPE=ONLY", watch)?.as_str(),
                    "OK" | "FAIL-BUSY"
                );
            }
            match self.event(watch)? {
                Some(Event::Scanned) => {
                    let reply = self.reply("SCAN_RESULTS", b"SCAN_RESULTS", watch)?;
                    let seen = wire::scan_results(&reply);
                    self.starts = 0;
                    self.seen = Some((Instant::now(), seen.clone()));
                    return Ok(seen);
                }
                Some(Event::ScanFailed) => asked = false,
                _ => {}
            }
        }
        Err(Error::Scan)
    }

    /// Joins a network, by an access point that was in `vain` only where there is no other. The address is the caller's
    /// business.
    ///
    /// # Errors
    /// Why it was not joined.
    pub fn join(
        &mut self,
        profile: &Profile,
        vain: &[Bssid],
        watch: &mut dyn Watch,
    ) -> Result<Joined, Error> {
        self.up(watch)?;
        let named = |seen: &[Seen]| seen.iter().any(|s| s.ssid == profile.ssid);
        let seen = match &self.seen {
            Some((when, seen)) if when.elapsed() < FRESH && named(seen) => seen.clone(),
            // Joining asks for it by its name, which a scan does not.
            _ if profile.hidden => Vec::new(),
            _ => self.scan(watch)?,
        };
        let mut joining = Joining::begin(profile, &seen, Duration::ZERO, self.settings.join);
        joining.avoid(vain);
        let tried = self.attempts(profile, joining, watch);
        if tried.is_err() {
            // Or it would go on trying by itself. Where the daemon is gone there is nothing to remove.
            let _ = self.ask("REMOVE_NETWORK all", b"REMOVE_NETWORK all", watch);
        }
        tried
    }

    fn attempts(
        &mut self,
        profile: &Profile,
        mut joining: Joining,
        watch: &mut dyn Watch,
    ) -> Result<Joined, Error> {
        let begun = Instant::now();
        let mut step = Step::Try(joining.attempt().clone());
        loop {
            step = match step {
                Step::Wait => match self.event(watch)? {
                    Some(event) => joining.hear(&event, begun.elapsed()),
                    None => joining.wait(begun.elapsed()),
                },
                Step::Try(attempt) => match self.attempt(profile, &attempt, watch)? {
                    true => Step::Wait,
                    false => joining.unsupported(),
                },
                Step::Joined => return self.joined(profile, watch),
                Step::Failed(failure) => return Err(self.failed(profile, failure)),
            };
        }
    }

    /// Sets the network's block up; `false` where the daemon does not take it.
    fn attempt(
        &mut self,
        profile: &Profile,
        attempt: &Attempt,
        watch: &mut dyn Watch,
    ) -> Result<bool, Error> {
        self.ask("REMOVE_NETWORK all", b"REMOVE_NETWORK all", watch)?;
        let id = self.ask("ADD_NETWORK", b"ADD_NETWORK", watch)?;
        let id: u32 = id.parse().map_err(|_| Error::Control("ADD_NETWORK", id))?;
        for (name, value) in fields(profile, attempt) {
            let command = Command::set_network(id, &name, value.bytes());
            if self.ask("SET_NETWORK", command.bytes(), watch)? != "OK" {
                log::warn!(
                    "wpa_supplicant does not take the field {}",
                    super::profile::shown(name.as_bytes())
                );
                return Ok(false);
            }
        }
        // What is still to be heard belongs to the attempt before.
        self.control()?.forget();
        let command = format!("SELECT_NETWORK {id}");
        Ok(self.ask("SELECT_NETWORK", command.as_bytes(), watch)? == "OK")
    }

    fn joined(&mut self, profile: &Profile, watch: &mut dyn Watch) -> Result<Joined, Error> {
        let status = wire::status(&self.reply("STATUS", b"STATUS", watch)?);
        self.starts = 0;
        Ok(Joined {
            name: profile.name(),
            bssid: status.bssid.unwrap_or_default(),
            frequency: status.frequency,
            key_mgmt: status.key_mgmt,
        })
    }

    fn failed(&mut self, profile: &Profile, failure: Failure) -> Error {
        self.starts = 0;
        let name = profile.name();
        match failure {
            Failure::Absent => Error::Absent(name),
            Failure::Unsuited(protection) => Error::Unsuited(name, protection),
            Failure::WrongKey => Error::WrongKey(name),
            Failure::Refused(refusal) => Error::Refused(name, refusal),
            Failure::Late => Error::Late(name, self.settings.join.as_secs()),
        }
    }

    /// Whether the network is still joined. The daemon tries to join it again by itself.
    pub fn is_joined(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        // Nobody else takes events while a network is used.
        while let Ok(Some(_)) = running.control.event(Duration::ZERO) {}
        let reply = running.control.ask(b"STATUS", Duration::from_secs(2), &mut || true);
        match reply {
            Ok(reply) => wire::status(&reply).state == "COMPLETED",
            Err(_) => {
                self.running = None;
                false
            }
        }
    }

    /// Sees to it that the daemon runs and the radio is on.
    fn up(&mut self, watch: &mut dyn Watch) -> Result<(), Error> {
        let program = &self.settings.supplicant;
        if !program.is_file() {
            let missing = "is not in this initramfs: build it in with --wifi of the initramfs builder";
            return Err(Error::Daemon(format!("{} {missing}", program.display())));
        }
        switch::on(&self.settings.switches).map_err(Error::SwitchedOff)?;
        let mut why = String::new();
        for _ in 0..STARTS {
            if let Some(running) = &mut self.running {
                match running.daemon.ended() {
                    None => return Ok(()),
                    Some(how) => {
                        watch.tell(&format!("wpa_supplicant ended ({how}) and is started again"));
                        self.running = None;
                    }
                }
            }
            self.pause(watch)?;
            self.starts = self.starts.saturating_add(1);
            self.begun = Instant::now();
            match self.launch(watch) {
                Ok(running) => self.running = Some(running),
                Err(Error::Daemon(reason)) => {
                    log::warn!("wpa_supplicant: {reason}");
                    why = reason;
                }
                Err(other) => return Err(other),
            }
        }
        match self.running {
            Some(_) => Ok(()),
            None => Err(Error::Daemon(why)),
        }
    }

    /// Waits before another start: what fails at once must not keep the device busy.
    fn pause(&self, watch: &mut dyn Watch) -> Result<(), Error> {
        if self.starts == 0 {
            return Ok(());
        }
        let doubled = 1u32.checked_shl(self.starts - 1).unwrap_or(u32::MAX);
        let pause = Duration::from_secs(1).saturating_mul(doubled).min(PAUSE_MAX);
        while self.begun.elapsed() < pause {
            if !watch.alive() {
                return Err(Error::Stopped);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Starts it and waits until it answers. A build that knows Wi-Fi Direct is told to leave it alone; one that does not
    /// ends at that word, and is started without.
    fn launch(&mut self, watch: &mut dyn Watch) -> Result<Running, Error> {
        match self.launch_with("p2p_disabled=1\n", watch) {
            Err(Error::Daemon(_)) => self.launch_with("", watch),
            launched => launched,
        }
    }

    fn launch_with(&mut self, more: &str, watch: &mut dyn Watch) -> Result<Running, Error> {
        let failed = |what: &Path, e: std::io::Error| Error::Daemon(format!("{}: {e}", what.display()));
        let directory = self.settings.control.clone();
        fs::create_dir_all(&directory).map_err(|e| failed(&directory, e))?;
        let (socket, config) = (directory.join(&self.interface), directory.join("bootward.conf"));
        // A socket that a killed daemon left would be taken for the new one's.
        let _ = fs::remove_file(&socket);
        let mut text = format!("ctrl_interface={}\nupdate_config=0\n{more}", directory.display());
        if is_country(&self.settings.country) {
            text.push_str(&format!("country={}\n", self.settings.country));
        }
        fs::write(&config, text).map_err(|e| failed(&config, e))?;
        let program = &self.settings.supplicant;
        let mut daemon = Daemon::start(program, &self.interface, &config).map_err(|e| failed(program, e))?;
        let end = Instant::now() + START;
        let own = directory.join(format!(".bootward-{}", self.interface));
        loop {
            if let Some(how) = daemon.ended() {
                return Err(Error::Daemon(how));
            }
            if !watch.alive() {
                return Err(Error::Stopped);
            }
            if socket.exists()
                && let Ok(mut control) = Control::open(&socket, &own)
                && attach(&mut control, watch)
            {
                return Ok(Running { control, daemon });
            }
            if Instant::now() >= end {
                return Err(Error::Daemon(format!(
                    "no answer at {} in {} s",
                    socket.display(),
                    START.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn control(&mut self) -> Result<&mut Control, Error> {
        let running = self.running.as_mut();
        running.map(|r| &mut r.control).ok_or_else(|| Error::Daemon("it ended".into()))
    }

    fn event(&mut self, watch: &mut dyn Watch) -> Result<Option<Event>, Error> {
        if !watch.alive() {
            return Err(Error::Stopped);
        }
        match self.control()?.event(Duration::from_millis(500)) {
            Ok(Some(Event::Terminating)) => Err(self.gone()),
            Ok(event @ Some(_)) => Ok(event),
            Ok(None) => {
                let ended = self.running.as_mut().and_then(|r| r.daemon.ended()).is_some();
                if ended { Err(self.gone()) } else { Ok(None) }
            }
            Err(_) => Err(self.gone()),
        }
    }

    fn reply(&mut self, name: &'static str, command: &[u8], watch: &mut dyn Watch) -> Result<Vec<u8>, Error> {
        match self.control()?.ask(command, REPLY, &mut || watch.alive()) {
            Ok(reply) => Ok(reply),
            Err(Fault::Stopped) => {
                // Its reply is still to come and would be taken for the next one's.
                self.running = None;
                Err(Error::Stopped)
            }
            Err(Fault::Io(_)) => Err(self.gone()),
            Err(Fault::Silent) => {
                self.running = None;
                Err(Error::Control(name, Fault::Silent.to_string()))
            }
        }
    }

    /// A reply of one word.
    fn ask(&mut self, name: &'static str, command: &[u8], watch: &mut dyn Watch) -> Result<String, Error> {
        let reply = self.reply(name, command, watch)?;
        Ok(super::profile::shown(reply.trim_ascii()))
    }

    /// The daemon went away; the next wish starts it again.
    fn gone(&mut self) -> Error {
        let how = self.running.as_mut().and_then(|r| r.daemon.ended());
        self.running = None;
        Error::Daemon(how.unwrap_or_else(|| "it ended".into()))
    }
}

/// Attaches to its events; `false` where it does not answer yet.
fn attach(control: &mut Control, watch: &mut dyn Watch) -> bool {
    let mut is = |command: &[u8], expected: &[u8]| {
        let reply = control.ask(command, Duration::from_secs(2), &mut || watch.alive());
        reply.is_ok_and(|r| r.trim_ascii() == expected)
    };
    if !is(b"PING", b"PONG") || !is(b"ATTACH", b"OK") {
        return false;
    }
    // Both ways of WPA3 (hash-to-element and the older one); a build without WPA3 refuses, and is as good for the rest.
    is(b"SET sae_pwe 2", b"OK");
    true
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}
