//! Tells the story and serves the prompt.

use std::path::Path;
use std::time::Duration;
#[cfg(not(feature = "recovery"))]
use std::time::Instant;

#[cfg(not(feature = "recovery"))]
use super::{
    console::{Console, Input},
    menu::{self, Command},
    story::Story,
};

/// How recovery ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Try the deployment with this index.
    Boot(usize),
    /// Look at everything again, from the root device on.
    Retry,
    /// A fresh or mended deployment is there: the same, and whatever asked for recovery is content.
    #[cfg(feature = "recovery")]
    Recovered,
    /// Restart the device.
    Reboot,
    /// Switch it off.
    PowerOff,
}

/// How recovery behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The terminal.
    pub console: &'a Path,
    /// Seconds without input until the device restarts by itself; 0 for never.
    pub reboot_after: u32,
    /// Longest time between two calls of `alive`.
    pub heartbeat: Duration,
}

/// Tells the story and serves the prompt until someone decides or the time is up.
///
/// `alive` is called at least once every `heartbeat`, to feed the watchdog; `history` prints the ledger.
#[cfg(not(feature = "recovery"))]
pub fn run(
    story: &Story,
    settings: &Settings<'_>,
    mut alive: impl FnMut(),
    mut history: impl FnMut(&mut dyn FnMut(&str)),
) -> Outcome {
    let mut console = Console::open(settings.console);
    console.quiet_kernel();
    story.tell(&mut |line| console.line(line));
    console.line(&story.closing(settings.reboot_after));
    let patience = Duration::from_secs(u64::from(settings.reboot_after));
    loop {
        console.prompt();
        let deadline = (settings.reboot_after != 0).then(|| Instant::now() + patience);
        match console.read_line(deadline, settings.heartbeat, &mut alive) {
            Input::TimeUp => {
                console.line("nobody typed anything: restarting now");
                return Outcome::Reboot;
            }
            Input::Line(line) => match menu::parse(&line, story.deployments.len()) {
                Ok(Command::Nothing) => {}
                Ok(Command::Help) => menu::HELP.iter().for_each(|l| console.line(l)),
                Ok(Command::Status) => story.tell(&mut |line| console.line(line)),
                Ok(Command::Log) => history(&mut |line| console.line(line)),
                Ok(Command::Boot(index)) => return Outcome::Boot(index),
                Ok(Command::Retry) => return Outcome::Retry,
                Ok(Command::Reboot) => return Outcome::Reboot,
                Ok(Command::PowerOff) => return Outcome::PowerOff,
                Err(mistake) => console.line(&mistake.to_string()),
            },
        }
    }
}
