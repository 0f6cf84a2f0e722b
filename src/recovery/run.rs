//! Recovery as the boot sees it: a worker that brings a deployment, and a console that someone may use meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::operator::desk::{self, Desk, Hush};
use super::operator::screen::View;
use super::operator::session::{Access, Manner};
use super::prompt::Outcome;
use super::shared::Shared;
use super::status::{Phase, Status, Wish};
use super::story::Story;
use super::worker::{self, Task};
use super::{Settings, mend};
use crate::sys::time;

/// The console looks for news this often.
const TICK: Duration = Duration::from_millis(250);
/// So long is the worker waited for after someone wants something that ends recovery.
const FAREWELL: Duration = Duration::from_secs(15);
/// The worker's stack, in bytes.
const STACK: usize = 512 * 1024;

/// Recovers. Where there is nothing that recovery could do by itself, someone at the console must, within the time that
/// is configured.
///
/// `alive` is called as long as the worker makes progress, to feed the watchdog; `history` prints the ledger.
pub fn run(
    story: &Story,
    settings: &Settings<'_>,
    task: Task,
    mut alive: impl FnMut(),
    mut history: impl FnMut(&mut dyn FnMut(&str)),
) -> Outcome {
    let useful = task.is_of_use();
    let mut room = Room::open(story, settings, &task);
    if useful && room.start(task) {
        room.recover(&mut alive, &mut history)
    } else {
        room.attend(settings.reboot_after, &mut alive, &mut history)
    }
}

/// A fire drill: how it ended for the boot, whether it passed, and what was found.
pub fn drill(
    story: &Story,
    settings: &Settings<'_>,
    task: Task,
    mut alive: impl FnMut(),
    mut history: impl FnMut(&mut dyn FnMut(&str)),
) -> (Outcome, bool, String) {
    let time = Duration::from_secs(u64::from(task.settings.recovery.console.drill));
    let mut room = Room::open(story, settings, &task);
    if !room.start(task) {
        return (Outcome::Retry, false, "no thread can be started".into());
    }
    room.until = Some(Instant::now() + time);
    let outcome = room.recover(&mut alive, &mut history);
    match room.shared.status().drilled {
        Some((passed, text)) => (outcome, passed, text),
        None => (outcome, false, "it was ended before it came to a result".into()),
    }
}

/// Everything that is there while recovery runs.
struct Room<'a> {
    story: &'a Story,
    shared: Arc<Shared>,
    desk: Desk,
    _hush: Hush,
    /// Access to the console is off: nobody can be waited for.
    off: bool,
    /// The root is mounted.
    mounted: bool,
    /// When a drill has to be over.
    until: Option<Instant>,
}

impl<'a> Room<'a> {
    fn open(story: &'a Story, settings: &Settings<'_>, task: &Task) -> Self {
        let shared = Arc::new(Shared::new());
        shared.alive(TICK * 40);
        let desk = desk_settings(settings, task);
        let (off, hush) = (desk.manner.access == Access::Off, Hush::begin(&desk.manner.access));
        if !task.is_of_use() && !task.drill {
            shared.phase(Phase::Idle);
        }
        let desk = Desk::open(desk, &View { story, status: &shared.status(), now: now() });
        let mounted = task.root == mend::Root::Mounted;
        Room { story, shared, desk, _hush: hush, off, mounted, until: None }
    }

    /// Starts the worker.
    fn start(&self, task: Task) -> bool {
        let shared = self.shared.clone();
        let work = move || worker::work(task, shared);
        let started = std::thread::Builder::new().stack_size(STACK).spawn(work);
        if let Err(e) = &started {
            log::error!("no thread can be started: {e}; recovery is left to the console");
        }
        started.is_ok()
    }

    fn serve(&mut self, status: &Status, history: &mut desk::Ledger<'_>) -> Option<Wish> {
        self.desk.serve(&View { story: self.story, status, now: now() }, history, TICK)
    }

    /// Until the worker has ended, or somebody has had enough.
    fn recover(&mut self, alive: &mut dyn FnMut(), history: &mut desk::Ledger<'_>) -> Outcome {
        let mut leave: Option<(Instant, Outcome)> = None;
        loop {
            if let Some(outcome) = self.shared.outcome() {
                return outcome;
            }
            // A worker that hangs does not keep anybody from restarting the device.
            if let Some((_, outcome)) = leave.filter(|(until, _)| Instant::now() >= *until) {
                return outcome;
            }
            if self.shared.is_alive() {
                alive();
            }
            if self.until.take_if(|until| Instant::now() >= *until).is_some() {
                let text = "it took longer than recovery.drill allows";
                self.shared.change(|status| status.drilled = Some((false, text.into())));
                // It ends at once, and if it does not, the device is not left with what hangs.
                self.shared.wish(Wish::Retry);
                leave = leave.or(Some((Instant::now() + FAREWELL, Outcome::Reboot)));
            }
            let status = self.shared.status();
            if let Some(wish) = self.serve(&status, history) {
                leave = leave.or(match wish {
                    Wish::Reboot => Some((Instant::now() + FAREWELL, Outcome::Reboot)),
                    Wish::PowerOff => Some((Instant::now() + FAREWELL, Outcome::PowerOff)),
                    _ => None,
                });
                self.shared.wish(wish);
            }
        }
    }

    /// Nothing goes on by itself: somebody at the console, or a restart after so many seconds without input.
    fn attend(
        &mut self,
        reboot_after: u32,
        alive: &mut dyn FnMut(),
        history: &mut desk::Ledger<'_>,
    ) -> Outcome {
        let patience = u64::from(reboot_after) * 1000;
        if reboot_after > 0 {
            self.shared.tell(&format!("restarting in {reboot_after} s unless something is typed"));
        }
        let began = now();
        loop {
            alive();
            let status = self.shared.status();
            let Some(wish) = self.serve(&status, history) else {
                let heard = if self.off { began } else { self.desk.heard().max(began) };
                if patience > 0 && now().saturating_sub(heard) >= patience {
                    self.desk.say("nobody typed anything: restarting now");
                    return Outcome::Reboot;
                }
                continue;
            };
            match wish {
                Wish::Boot(index) => return Outcome::Boot(index),
                Wish::Retry | Wish::RecoverNow => return Outcome::Retry,
                Wish::Reboot => return Outcome::Reboot,
                Wish::PowerOff => return Outcome::PowerOff,
                Wish::Repair if !self.mounted => {
                    self.shared.tell("the root is not there; nothing can be mended")
                }
                Wish::Network { .. } | Wish::Commit { .. } | Wish::FromUsb | Wish::Repair => {
                    self.shared
                        .tell("recovery has no keys in its configuration: it takes nothing from anywhere");
                }
            }
        }
    }
}

fn now() -> u64 {
    u64::from(time::uptime())
}

fn desk_settings(settings: &Settings<'_>, task: &Task) -> desk::Settings {
    let console = &task.settings.recovery.console;
    desk::Settings {
        console: settings.console.into(),
        manner: Manner {
            access: task.settings.access(),
            shell: !console.shell.is_empty(),
            idle: u64::from(console.idle) * 1000,
        },
        shell: PathBuf::from(&console.shell),
        kernel_log: "/dev/kmsg".into(),
    }
}
