//! The dialogue: bytes and time in, what the terminal is sent and what is wanted out. Nothing here waits.
//!
//! ```text
//!   Closed ──password──> Menu ──number──> Question ──answer──> Menu    one wish on the way
//!      ^                  │ ^                 │ no answer for a minute, Ctrl-C
//!      └── nobody types ──┘ └─────────────────┘
//! ```
//!
//! The last line of the screen is the prompt, and its first half is alive: with nothing typed it is written over, after a
//! carriage return, with what is going on.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::menu::{Command, HELP};
use super::super::status::Wish;
use super::editor::{Editor, Event};
use super::lock::{HashError, Lock, PasswordHash};
use super::menu::{self, Action, Choice};
use super::screen::{self, ROWS, View, span, wrapped};
use super::secret::Secret;
use crate::ostree::Checksum;

/// Milliseconds after which a question that nobody answers is taken back.
pub const QUESTION: u64 = 60_000;
/// Milliseconds between two refreshes of the prompt while somebody is there, and while nobody is.
const REFRESH: [u64; 2] = [1000, 10_000];
/// Somebody who typed something is taken to be there for so many milliseconds.
const PRESENCE: u64 = 60_000;
/// Lines of news that are shown at once.
const NEWS: usize = 8;
/// The longest name of a Wi-Fi network, in bytes.
const SSID_MAX: usize = 32;
/// The shortest passphrase of a network.
const PASSPHRASE_MIN: usize = 8;

/// Who may use the console.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Whoever is at the line.
    #[default]
    Open,
    /// Who knows the password; nobody where there is no hash that can be used.
    Locked(Option<PasswordHash>),
    /// Nobody: the line is neither read nor written.
    Off,
}

/// How the console behaves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    /// Who may use it.
    pub access: Access,
    /// Whether there is a shell to be had.
    pub shell: bool,
    /// Milliseconds without input after which an opened console locks itself again.
    pub idle: u64,
}

/// What the surroundings have to do. Besides these there is nothing that typing can cause.
#[derive(PartialEq, Eq, Debug)]
pub enum Effect {
    /// For recovery.
    Wish(Wish),
    /// Hold this against the password's hash and call [`Session::checked`].
    Check(Secret),
    /// Call [`Session::page`] with the ledger.
    Ledger,
    /// Call [`Session::page`] with the kernel's log.
    KernelLog,
    /// Run the configured shell and call [`Session::redraw`].
    Shell,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Closed,
    /// A password is being checked.
    Checking,
    Menu,
    Asking(Question),
    Reading {
        lines: Vec<String>,
        at: usize,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Question {
    Deployment,
    Network,
    Passphrase { ssid: Vec<u8> },
    Commit,
    Older(Checksum),
    Sure(Action),
}

/// The state of the dialogue.
#[derive(Debug)]
pub struct Session {
    manner: Manner,
    lock: Lock,
    place: Place,
    editor: Editor,
    /// When something was typed last.
    heard: u64,
    /// Until when somebody is taken to be there.
    present: u64,
    /// When the prompt was written last, and what it was.
    written: u64,
    prompt: String,
    /// How much of the news was shown.
    told: u64,
}

impl Session {
    /// Begins: draws the screen.
    pub fn begin(manner: Manner, view: &View<'_>, out: &mut Vec<u8>) -> Self {
        let place = if manner.access == Access::Open { Place::Menu } else { Place::Closed };
        let mut session = Session {
            manner,
            lock: Lock::default(),
            place,
            editor: Editor::default(),
            heard: view.now,
            // Nobody has typed anything yet: a log that is kept of the line stays short.
            present: 0,
            written: view.now,
            prompt: String::new(),
            told: view.status.told,
        };
        session.settle();
        session.redraw(view, out);
        session
    }

    /// When something was typed last that counted.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Takes a byte that was typed.
    pub fn byte(&mut self, byte: u8, view: &View<'_>, out: &mut Vec<u8>) -> Option<Effect> {
        if !self.listens(view.now) {
            return None;
        }
        self.heard = view.now;
        self.present = view.now.saturating_add(PRESENCE);
        match self.editor.byte(byte, out) {
            Event::Typing => None,
            Event::Line(line) => self.line(&line, view, out),
            Event::Secret(secret) => self.secret(secret, view, out),
            Event::Cancelled => {
                self.back(view, out);
                None
            }
            Event::TooLong => self.again("that is too long", view, out),
            Event::NotText => self.again("that is no UTF-8 text", view, out),
        }
    }

    /// Lets time pass: news, a refreshed prompt, the end of patience. To be called about four times a second.
    pub fn tick(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        if self.manner.access == Access::Off {
            return;
        }
        let silent = view.now.saturating_sub(self.heard);
        let asked = matches!(self.place, Place::Asking(_) | Place::Reading { .. });
        if (asked || !self.editor.is_empty()) && silent >= QUESTION {
            out.extend_from_slice(b"\r\nno answer for a minute: back to the menu\r\n");
            self.back(view, out);
        } else if matches!(self.manner.access, Access::Locked(_))
            && self.place == Place::Menu
            && silent >= self.manner.idle
        {
            self.place = Place::Closed;
            self.settle();
            out.extend_from_slice(b"\r\nnobody types: locked again\r\n");
            self.redraw(view, out);
        }
        if self.editor.is_empty() && matches!(self.place, Place::Closed | Place::Menu) {
            self.news(view, out);
            self.refresh(view, out);
        }
    }

    /// A password was checked.
    pub fn checked(&mut self, fits: Result<bool, HashError>, view: &View<'_>, out: &mut Vec<u8>) {
        if self.place != Place::Checking {
            return;
        }
        if fits == Ok(true) {
            self.lock.opened();
            self.place = Place::Menu;
            self.heard = view.now;
            self.settle();
            return self.redraw(view, out);
        }
        self.lock.failed(view.now);
        self.place = Place::Closed;
        self.settle();
        match fits {
            Err(e) => say(&format!("the password was not checked: {e}"), out),
            _ => say("wrong password", out),
        }
        self.ask(view, out);
    }

    /// Shows something that is longer than the screen, a screen at a time.
    pub fn page(&mut self, text: &[String], view: &View<'_>, out: &mut Vec<u8>) {
        let mut lines = Vec::new();
        for line in text {
            wrapped(&mut lines, "", line, ROWS);
        }
        self.place = Place::Reading { lines, at: 0 };
        self.settle();
        self.turn(view, out);
    }

    /// Draws everything again: the screen, the question, what is typed so far.
    pub fn redraw(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        if self.manner.access == Access::Off {
            return;
        }
        out.extend_from_slice(b"\r\n");
        let mut lines = screen::status(view);
        if !matches!(self.place, Place::Closed | Place::Checking) {
            lines.extend(menu::lines(self.manner.shell));
        }
        for line in lines {
            say(&line, out);
        }
        self.told = view.status.told;
        self.ask(view, out);
        out.extend_from_slice(self.editor.shown());
    }

    /// Whether what is typed now counts. A locked console that waits drops it, so that nothing piles up.
    fn listens(&self, now: u64) -> bool {
        match (&self.manner.access, &self.place) {
            (Access::Off, _) | (_, Place::Checking) | (Access::Locked(None), Place::Closed) => false,
            (_, Place::Closed) => self.lock.wait(now) == 0,
            _ => true,
        }
    }

    fn line(&mut self, line: &str, view: &View<'_>, out: &mut Vec<u8>) -> Option<Effect> {
        match self.place.clone() {
            Place::Closed | Place::Checking => None,
            Place::Menu => self.chosen(line, view, out),
            Place::Asking(question) => self.answered(question, line.trim(), view, out),
            Place::Reading { .. } if line.trim().is_empty() => {
                self.turn(view, out);
                None
            }
            Place::Reading { .. } => {
                self.back(view, out);
                None
            }
        }
    }

    fn chosen(&mut self, line: &str, view: &View<'_>, out: &mut Vec<u8>) -> Option<Effect> {
        match menu::choose(line, view.story.deployments.len(), self.manner.shell) {
            Choice::Numbered(action) => self.act(action, view, out),
            Choice::Words(Command::Boot(index)) => self.wish(Wish::Boot(index), view, out),
            Choice::Words(Command::Retry) => self.wish(Wish::Retry, view, out),
            Choice::Words(Command::Reboot) => self.wish(Wish::Reboot, view, out),
            Choice::Words(Command::PowerOff) => self.wish(Wish::PowerOff, view, out),
            Choice::Words(Command::Log) => Some(Effect::Ledger),
            Choice::Words(Command::Nothing) => {
                self.redraw(view, out);
                None
            }
            Choice::Words(Command::Status) => {
                screen::whole(view).iter().for_each(|line| say(line, out));
                self.ask(view, out);
                None
            }
            Choice::Words(Command::Help) => {
                say("A number of the menu, or one of these words:", out);
                HELP.iter().for_each(|line| say(line, out));
                self.again("Enter alone shows everything again", view, out)
            }
            Choice::Unknown(mistake) => self.again(&format!("{mistake}"), view, out),
        }
    }

    fn act(&mut self, action: Action, view: &View<'_>, out: &mut Vec<u8>) -> Option<Effect> {
        let question = match action {
            Action::Recover => return self.wish(Wish::RecoverNow, view, out),
            Action::Medium => return self.wish(Wish::FromUsb, view, out),
            Action::Repair => return self.wish(Wish::Repair, view, out),
            Action::Ledger => return Some(Effect::Ledger),
            Action::KernelLog => return Some(Effect::KernelLog),
            Action::Shell => return Some(Effect::Shell),
            Action::Boot if view.story.deployments.is_empty() => {
                return self.again("there is no deployment to boot", view, out);
            }
            Action::Boot => Question::Deployment,
            Action::Network => Question::Network,
            Action::Commit => Question::Commit,
            Action::Reboot | Action::PowerOff => Question::Sure(action),
        };
        self.enter(question, view, out);
        None
    }

    /// Asks a question, with what can be answered above it.
    fn enter(&mut self, question: Question, view: &View<'_>, out: &mut Vec<u8>) {
        match &question {
            Question::Deployment => {
                for (index, chapter) in view.story.deployments.iter().enumerate() {
                    say(&format!("  {index:2} {}: {}", chapter.name, chapter.why), out);
                }
            }
            Question::Network => {
                if view.status.seen.is_empty() {
                    say("  no network was seen so far; a hidden one can be named all the same", out);
                }
                for (index, name) in view.status.seen.iter().enumerate() {
                    say(&format!("  {:2} {name}", index + 1), out);
                }
            }
            Question::Older(_) => {
                say("An older commit than the newest that was ever confirmed here is refused: it may", out);
                say("have holes that were closed since. Type 'older' to have it all the same.", out);
            }
            _ => {}
        }
        self.place = Place::Asking(question);
        self.settle();
        self.ask(view, out);
    }

    fn answered(
        &mut self,
        question: Question,
        line: &str,
        view: &View<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Effect> {
        match question {
            // Asked hidden: not a line.
            Question::Passphrase { .. } => None,
            Question::Older(commit) => {
                self.wish(Wish::Commit { commit, older: line.eq_ignore_ascii_case("older") }, view, out)
            }
            _ if line.is_empty() => {
                self.back(view, out);
                None
            }
            Question::Deployment => {
                let index = line.parse().ok().filter(|index| *index < view.story.deployments.len());
                match index {
                    Some(index) => self.wish(Wish::Boot(index), view, out),
                    None => self.again("there is no such deployment", view, out),
                }
            }
            Question::Network => {
                let ssid = network(line, &view.status.seen);
                if !(1..=SSID_MAX).contains(&ssid.len()) {
                    return self.again("a network's name has 1 to 32 bytes", view, out);
                }
                self.enter(Question::Passphrase { ssid: ssid.into() }, view, out);
                None
            }
            Question::Commit => match Checksum::parse(line) {
                Some(commit) => {
                    self.enter(Question::Older(commit), view, out);
                    None
                }
                None => self.again("a commit is 64 digits of 0-9 and a-f", view, out),
            },
            Question::Sure(action) if line.eq_ignore_ascii_case("yes") => {
                let wish = if action == Action::PowerOff { Wish::PowerOff } else { Wish::Reboot };
                self.wish(wish, view, out)
            }
            Question::Sure(_) => {
                self.back(view, out);
                None
            }
        }
    }

    fn secret(&mut self, secret: Secret, view: &View<'_>, out: &mut Vec<u8>) -> Option<Effect> {
        match self.place.clone() {
            Place::Closed => {
                self.place = Place::Checking;
                Some(Effect::Check(secret))
            }
            Place::Asking(Question::Passphrase { ssid }) => {
                let Ok(text) = core::str::from_utf8(secret.bytes()) else {
                    return self.again("that is no UTF-8 text", view, out);
                };
                if (1..PASSPHRASE_MIN).contains(&text.len()) {
                    return self.again("a passphrase has at least 8 characters", view, out);
                }
                self.wish(Wish::Network { ssid, secret: text.into() }, view, out)
            }
            _ => None,
        }
    }

    fn wish(&mut self, wish: Wish, view: &View<'_>, out: &mut Vec<u8>) -> Option<Effect> {
        say("asked for; what comes of it is told here", out);
        self.place = Place::Menu;
        self.settle();
        self.ask(view, out);
        Some(Effect::Wish(wish))
    }

    /// Says what is wrong and asks once more.
    fn again(&mut self, why: &str, view: &View<'_>, out: &mut Vec<u8>) -> Option<Effect> {
        say(why, out);
        self.settle();
        self.ask(view, out);
        None
    }

    /// Leaves whatever is going on.
    fn back(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        if self.place != Place::Closed {
            self.place = Place::Menu;
        }
        self.settle();
        self.ask(view, out);
    }

    /// Shows the next page, or leaves after the last one.
    fn turn(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        let Place::Reading { lines, at } = &mut self.place else { return };
        for line in lines.iter().skip(*at).take(ROWS) {
            say(line, out);
        }
        *at += ROWS;
        if *at >= lines.len() {
            return self.back(view, out);
        }
        self.ask(view, out);
    }

    /// A new line begins, hidden where a secret is asked for.
    fn settle(&mut self) {
        let hidden = matches!(self.place, Place::Closed | Place::Asking(Question::Passphrase { .. }));
        self.editor.begin(hidden);
    }

    /// Writes the prompt at the beginning of a line.
    fn ask(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        self.prompt = self.question(view);
        self.written = view.now;
        out.extend_from_slice(self.prompt.as_bytes());
    }

    fn question(&self, view: &View<'_>) -> String {
        let live = screen::live(view);
        let asked = match &self.place {
            Place::Menu => "bootward> ".into(),
            Place::Checking => "checking the password ".into(),
            Place::Closed if self.manner.access == Access::Locked(None) => "locked for good ".into(),
            Place::Closed => match self.lock.wait(view.now).div_ceil(1000) {
                0 => "locked, password: ".into(),
                wait => format!("locked for {} ", span(wait)),
            },
            Place::Asking(question) => return asked(question, view),
            Place::Reading { .. } => return "-- Enter for more, q to stop -- ".into(),
        };
        format!("{live}  {asked}")
    }

    /// Writes the prompt over the old one when it has become another.
    fn refresh(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        let [soon, late] = REFRESH;
        let pause = if view.now < self.present { soon } else { late };
        let due = view.now.saturating_sub(self.written) >= pause;
        if due && self.question(view) != self.prompt {
            self.clear(out);
            self.ask(view, out);
        }
    }

    fn news(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        if view.status.told <= self.told {
            return;
        }
        let news: Vec<&str> = view.status.lines_after(self.told).collect();
        self.told = view.status.told;
        self.clear(out);
        for line in news.iter().skip(news.len().saturating_sub(NEWS)) {
            say(line, out);
        }
        self.ask(view, out);
    }

    /// Takes the prompt off the screen: blanks, since not every terminal can do more.
    fn clear(&self, out: &mut Vec<u8>) {
        out.push(b'\r');
        out.extend(core::iter::repeat_n(b' ', self.prompt.len()));
        out.push(b'\r');
    }
}

/// A line, over several rows where it is long: what to do about a failure stands at its end.
fn say(line: &str, out: &mut Vec<u8>) {
    let mut rows = Vec::new();
    wrapped(&mut rows, "", line, screen::LONGEST);
    for row in rows {
        out.extend_from_slice(row.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn asked(question: &Question, view: &View<'_>) -> String {
    match question {
        Question::Deployment => {
            format!("boot which one, 0 to {}: ", view.story.deployments.len().saturating_sub(1))
        }
        Question::Network => "number, or name of the network (=NAME where it is a number): ".into(),
        Question::Passphrase { .. } => "passphrase, not shown, empty for none: ".into(),
        Question::Commit => "commit: ".into(),
        Question::Older(_) => "older, or Enter for newer ones only: ".into(),
        Question::Sure(Action::PowerOff) => "type yes to switch the device off: ".into(),
        Question::Sure(_) => "type yes to restart the device: ".into(),
    }
}

/// The network that is meant: one of those seen by its number, else the name itself.
fn network<'a>(line: &'a str, seen: &'a [String]) -> &'a str {
    let place = line.parse().ok().and_then(|number: usize| number.checked_sub(1));
    match place.and_then(|place| seen.get(place)) {
        Some(name) => name,
        None => line.strip_prefix('=').unwrap_or(line),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
