//! Joining a network: what to try next, and what a failure means. Pure: time comes in, attempts come out. Ring: alloc.
//!
//! One network block that suits every access point is enough for one radio in the laboratory and not for the chips in the
//! field: with brcmfmac some firmware fails as soon as WPA3 is among the choices or protected management frames are
//! asked for, although it joins the same network without (raspberrypi/linux#7634, #3619). So there is a ladder, and what is
//! refused on one rung is tried on the next: everything that the key allows, plain WPA2, plain WPA3.
//!
//! | what happens | what it means |
//! |---|---|
//! | `reason=WRONG_KEY` twice at one access point | wrong passphrase (WPA2); once may be a weak signal, or the chip on this rung |
//! | SAE confirm refused twice at one access point | wrong password (WPA3); the daemon has no other word for it |
//! | refused otherwise, or no end to it | the next rung; after the last one it is refused |
//! | not found twice, once more on all channels | not in reach |
//!
//! Where several access points have the network's name, each is tried before the key is called wrong: a stranger's that is
//! nearer must not keep us from ours.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::profile::{Key, Profile, Secret};
use super::wire::{Bssid, Event, Protection, Seen};

/// So many access points of one name are told apart.
pub const CANDIDATES_MAX: usize = 8;
/// So often must an access point say that the key is wrong.
const WRONG: u8 = 2;
/// So often does an access point refuse us before the next rung is tried.
const REFUSALS: u8 = 2;
/// So often is the network not found before it is not there.
const MISSES: u8 = 2;
/// So many tries at most, whatever the air is full of.
const ATTEMPTS_MAX: u8 = 16;
/// From the first sign of an access point until the next rung is tried.
const RUNG: Duration = Duration::from_secs(20);

/// What is asked of the access point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// WPA2 or WPA3, as it likes.
    Any,
    /// WPA2, protected management frames where it has them.
    Wpa2,
    /// WPA2 as it was first made: what the oldest firmware understands.
    Plain,
    /// WPA3.
    Wpa3,
    /// Nothing.
    Open,
    /// What the network's own block says.
    Enterprise,
}

/// One try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// What is asked.
    pub rung: Rung,
    /// At this access point alone.
    pub bssid: Option<Bssid>,
    /// On these channels, in MHz; all of them where empty.
    pub frequencies: Vec<u32>,
    /// It must be asked for by its name.
    pub hidden: bool,
}

/// Why it was not joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It is not in reach.
    Absent,
    /// One of its name is in reach, and protected in a way that our key is not for.
    Unsuited(Protection),
    /// The key is wrong.
    WrongKey,
    /// We were refused: how.
    Refused(Refusal),
    /// The time is over.
    Late,
}

/// How an access point, or the daemon, said no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// In the first step, with this IEEE 802.11 status.
    Authentication(u16),
    /// In the second step, with this IEEE 802.11 status.
    Association(u16),
    /// It ended the connection, for this IEEE 802.11 reason.
    Ended(u16),
    /// The daemon gave up.
    GaveUp,
    /// It never came to an end.
    NoEnd,
    /// The server of an enterprise network does not know us.
    Credentials,
    /// We do not trust the server of an enterprise network.
    Certificate,
    /// The daemon was built without what this needs.
    Unsupported,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            // The two that a technician meets.
            Refusal::Authentication(17) | Refusal::Association(17) => {
                f.write_str("the access point has too many clients (status 17)")
            }
            Refusal::Association(43) => f.write_str("it wants another kind of key (status 43)"),
            Refusal::Authentication(status) => write!(f, "authentication status {status}"),
            Refusal::Association(status) => write!(f, "association status {status}"),
            Refusal::Ended(reason) => write!(f, "it ended the connection, reason {reason}"),
            Refusal::GaveUp => f.write_str("several tries failed; the signal may be weak"),
            Refusal::NoEnd => f.write_str("it answered and then fell silent; the signal may be weak"),
            Refusal::Credentials => f.write_str("its server does not accept our credentials"),
            Refusal::Certificate => f.write_str(
                "its server's certificate is not accepted; is the clock right, the CA the right one?",
            ),
            Refusal::Unsupported => f.write_str("this wpa_supplicant was built without what it needs"),
        }
    }
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Wait for the next event, or for a second.
    Wait,
    /// Begin another try in place of this one.
    Try(Attempt),
    /// It is joined.
    Joined,
    /// It is not, and no more is to be tried.
    Failed(Failure),
}

/// An access point that may be ours.
#[derive(Clone, Debug)]
struct Candidate {
    bssid: Bssid,
    wrong: u8,
}

/// The way to a network.
#[derive(Clone, Debug)]
pub struct Joining {
    rungs: Vec<Rung>,
    /// Which of them is tried.
    at: usize,
    candidates: Vec<Candidate>,
    attempt: Attempt,
    /// The access point that is being tried.
    current: Option<Bssid>,
    /// When it was first seen to be tried.
    since: Option<Duration>,
    refusals: u8,
    misses: u8,
    attempts: u8,
    refusal: Option<Refusal>,
    unsuited: Option<Protection>,
    end: Duration,
}

impl Joining {
    /// Begins, with what a scan saw; after `limit` it ends.
    pub fn begin(profile: &Profile, seen: &[Seen], now: Duration, limit: Duration) -> Self {
        let named: Vec<&Seen> = seen.iter().filter(|s| s.ssid == profile.ssid).collect();
        let suited: Vec<&Seen> =
            named.iter().copied().filter(|s| suits(&profile.key, s.protection)).collect();
        let has =
            |what: fn(&Protection) -> bool| suited.is_empty() || suited.iter().any(|s| what(&s.protection));
        let mut rungs = ladder(&profile.key);
        rungs.retain(|rung| match rung {
            Rung::Plain | Rung::Wpa2 => has(|p| p.psk),
            Rung::Wpa3 => has(|p| p.sae),
            _ => true,
        });
        let mut frequencies: Vec<u32> = suited.iter().map(|s| s.frequency).collect();
        frequencies.sort_unstable();
        frequencies.dedup();
        let rung = rungs.first().copied().unwrap_or(Rung::Open);
        let attempt = Attempt { rung, bssid: None, frequencies, hidden: profile.hidden || suited.is_empty() };
        let candidates = suited.iter().take(CANDIDATES_MAX);
        Joining {
            rungs,
            at: 0,
            candidates: candidates.map(|s| Candidate { bssid: s.bssid, wrong: 0 }).collect(),
            attempt,
            current: None,
            since: None,
            refusals: 0,
            misses: 0,
            attempts: 1,
            refusal: None,
            unsuited: named.first().filter(|_| suited.is_empty()).map(|s| s.protection),
            end: now.saturating_add(limit),
        }
    }

    /// Of several access points, those that were in vain the least often come first, the strongest of them before the
    /// others: `vain` names one as often as it was. The daemon by itself takes the strongest, each time.
    pub fn avoid(&mut self, vain: &[Bssid]) {
        let times = |candidate: &Candidate| vain.iter().filter(|bssid| **bssid == candidate.bssid).count();
        if self.candidates.iter().any(|candidate| times(candidate) > 0) {
            self.candidates.sort_by_key(times);
            self.attempt.bssid = self.candidates.first().map(|candidate| candidate.bssid);
        }
    }

    /// What is being tried.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Goes on when something happened.
    pub fn hear(&mut self, event: &Event, now: Duration) -> Step {
        match event {
            Event::Connected => return Step::Joined,
            Event::Trying { bssid } => {
                self.current = bssid.or(self.current);
                self.since.get_or_insert(now);
            }
            Event::Disabled { wrong_key: true } => return self.wrong(self.current, true),
            // A SAE confirm that does not verify; the daemon tries again by itself.
            Event::AuthRejected { bssid, kind: 3, transaction: 2, status: 1 } => {
                return self.wrong(bssid.or(self.current), false);
            }
            Event::AuthRejected { status, .. } => return self.refused(Refusal::Authentication(*status), 1),
            Event::AssocRejected { status, .. } => return self.refused(Refusal::Association(*status), 1),
            // 4-way handshake timeout: the daemon says in a moment that the key is wrong.
            Event::Disconnected { bssid, reason: 15, .. } => self.current = bssid.or(self.current),
            Event::Disconnected { bssid, reason, ours: false } => {
                self.current = bssid.or(self.current);
                return self.refused(Refusal::Ended(*reason), 1);
            }
            Event::Disabled { wrong_key: false } => return self.refused(Refusal::GaveUp, REFUSALS),
            Event::EapFailed => return self.refused(Refusal::Credentials, 1),
            Event::EapCertificate => return self.refused(Refusal::Certificate, REFUSALS),
            Event::NotFound => return self.missed(),
            Event::Disconnected { .. } | Event::Scanned | Event::ScanFailed | Event::Terminating => {}
        }
        self.wait(now)
    }

    /// Goes on when nothing happened for a while.
    pub fn wait(&mut self, now: Duration) -> Step {
        if now >= self.end {
            return Step::Failed(self.verdict().unwrap_or(Failure::Late));
        }
        if self.since.is_some_and(|since| now >= since.saturating_add(RUNG)) {
            return self.refused(Refusal::NoEnd, REFUSALS);
        }
        Step::Wait
    }

    /// The daemon does not take what the attempt asks for.
    pub fn unsupported(&mut self) -> Step {
        self.refused(Refusal::Unsupported, REFUSALS)
    }

    /// An access point says that the key is wrong. With `stopped` the daemon leaves the network alone for now.
    fn wrong(&mut self, bssid: Option<Bssid>, stopped: bool) -> Step {
        // One that no scan saw, or whose address was not told, counts as well.
        let bssid = bssid.unwrap_or_default();
        let known = self.candidates.iter_mut().find(|c| c.bssid == bssid);
        let wrong = match known {
            Some(candidate) => {
                candidate.wrong = candidate.wrong.saturating_add(1);
                candidate.wrong
            }
            None => {
                self.candidates.truncate(CANDIDATES_MAX);
                self.candidates.push(Candidate { bssid, wrong: 1 });
                1
            }
        };
        if !stopped && wrong < WRONG {
            return Step::Wait;
        }
        let several = self.candidates.len() > 1;
        // The first of those that said so least: they are sorted by strength.
        let Some(next) = self.candidates.iter().filter(|c| c.wrong < WRONG).min_by_key(|c| c.wrong) else {
            return Step::Failed(Failure::WrongKey);
        };
        // Once more where it was said already: as plainly as can be, in case it was the chip.
        let plain = self.rungs.iter().position(|r| *r == Rung::Plain).filter(|_| next.wrong > 0);
        let pinned = (several && next.bssid != Bssid::default()).then_some(next.bssid);
        self.at = plain.unwrap_or(self.at);
        self.again(pinned)
    }

    fn refused(&mut self, refusal: Refusal, weight: u8) -> Step {
        self.refusal = Some(refusal);
        self.refusals = self.refusals.saturating_add(weight);
        if self.refusals < REFUSALS {
            return Step::Wait;
        }
        self.climb()
    }

    fn missed(&mut self) -> Step {
        self.misses = self.misses.saturating_add(1);
        if self.misses < MISSES {
            return Step::Wait;
        }
        if !self.attempt.frequencies.is_empty() || self.attempt.bssid.is_some() {
            // It may have moved to another channel, or be another one.
            self.attempt.frequencies.clear();
            self.attempt.hidden = true;
            return self.again(None);
        }
        if self.at > 0 {
            return self.climb();
        }
        Step::Failed(self.verdict().unwrap_or(Failure::Absent))
    }

    fn climb(&mut self) -> Step {
        self.at = self.at.saturating_add(1);
        if self.at < self.rungs.len() {
            return self.again(None);
        }
        Step::Failed(self.verdict().unwrap_or(Failure::Absent))
    }

    fn again(&mut self, bssid: Option<Bssid>) -> Step {
        if self.attempts >= ATTEMPTS_MAX {
            return Step::Failed(self.verdict().unwrap_or(Failure::Late));
        }
        self.attempts += 1;
        (self.refusals, self.misses, self.since, self.current) = (0, 0, None, None);
        self.attempt.bssid = bssid;
        self.attempt.rung = self.rungs.get(self.at).copied().unwrap_or(self.attempt.rung);
        Step::Try(self.attempt.clone())
    }

    /// What all that happened means; `None` where nothing did.
    fn verdict(&self) -> Option<Failure> {
        if self.candidates.iter().any(|c| c.wrong > 0) {
            return Some(Failure::WrongKey);
        }
        self.refusal.map(Failure::Refused).or(self.unsuited.map(Failure::Unsuited))
    }
}

fn suits(key: &Key, protection: Protection) -> bool {
    match key {
        Key::Passphrase(_) => protection.psk || protection.sae,
        Key::Wpa2(_) | Key::Psk(_) => protection.psk,
        Key::Wpa3(_) => protection.sae,
        Key::Open => protection.is_open(),
        Key::Enterprise(_) => protection.enterprise,
    }
}

fn ladder(key: &Key) -> Vec<Rung> {
    match key {
        Key::Passphrase(_) => [Rung::Any, Rung::Plain, Rung::Wpa3].into(),
        Key::Wpa2(_) | Key::Psk(_) => [Rung::Wpa2, Rung::Plain].into(),
        Key::Wpa3(_) => [Rung::Wpa3].into(),
        Key::Open => [Rung::Open].into(),
        Key::Enterprise(_) => [Rung::Enterprise].into(),
    }
}

/// The fields of the network's block for an attempt, in the order in which they are set.
pub fn fields(profile: &Profile, attempt: &Attempt) -> Vec<(String, Secret)> {
    let mut fields: Vec<(String, Secret)> = Vec::new();
    let mut set = |name: &str, value: Secret| fields.push((name.into(), value));
    // As digits: no question of quotes, whatever bytes it has.
    set("ssid", Secret::new(hex(&profile.ssid)));
    if attempt.hidden {
        set("scan_ssid", Secret::new("1"));
    }
    if !attempt.frequencies.is_empty() {
        let list: Vec<String> = attempt.frequencies.iter().map(|f| format!("{f}")).collect();
        set("scan_freq", Secret::new(list.join(" ")));
    }
    if let Some([a, b, c, d, e, f]) = attempt.bssid {
        set("bssid", Secret::new(format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")));
    }
    let (keys, protect) = match attempt.rung {
        Rung::Any => ("WPA-PSK WPA-PSK-SHA256 SAE", "1"),
        Rung::Wpa2 => ("WPA-PSK WPA-PSK-SHA256", "1"),
        Rung::Plain => ("WPA-PSK", "0"),
        Rung::Wpa3 => ("SAE", "2"),
        Rung::Open => ("NONE", "0"),
        Rung::Enterprise => ("", ""),
    };
    if !keys.is_empty() {
        set("key_mgmt", Secret::new(keys));
        set("ieee80211w", Secret::new(protect));
    }
    match &profile.key {
        Key::Passphrase(secret) | Key::Wpa2(secret) => set("psk", quoted(secret)),
        Key::Psk(digits) => set("psk", digits.clone()),
        Key::Wpa3(secret) => set("sae_password", quoted(secret)),
        Key::Open => {}
        Key::Enterprise(own) => own.iter().for_each(|(name, value)| set(name, value.clone())),
    }
    fields
}

/// The daemon looks for the last quote, so that those within need nothing.
fn quoted(secret: &Secret) -> Secret {
    let mut text = Secret::with_capacity(secret.bytes().len() + 2);
    text.push(b"\"");
    text.push(secret.bytes());
    text.push(b"\"");
    text
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
