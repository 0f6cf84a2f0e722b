//! Recovery as the boot sees it: a worker that brings a deployment, and a console that someone may use meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Settings;
use super::operator::desk::{self, Desk};
use super::operator::screen::View;
use super::operator::session::Manner;
use super::prompt::{self, Outcome};
use super::shared::Shared;
use super::status::Wish;
use super::story::Story;
use super::worker::{self, Task};
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
    if !task.is_of_use() {
        return prompt::run(story, settings, alive, history);
    }
    let shared = Arc::new(Shared::new());
    let desk = desk_settings(settings, &task);
    shared.alive(TICK * 40);
    let worker = {
        let shared = shared.clone();
        move || worker::work(task, shared)
    };
    if let Err(e) = std::thread::Builder::new().stack_size(STACK).spawn(worker) {
        log::error!("no thread can be started: {e}; recovery is left to the console");
        return prompt::run(story, settings, alive, history);
    }
    let _ = std::fs::write("/proc/sys/kernel/printk", "1");
    let mut status = shared.status();
    let mut desk = Desk::open(desk, &View { story, status: &status, now: u64::from(time::uptime()) });
    let mut leave: Option<(Instant, Outcome)> = None;
    loop {
        if let Some(outcome) = shared.outcome() {
            return outcome;
        }
        // A worker that hangs does not keep anybody from restarting the device.
        if let Some((_, outcome)) = leave.filter(|(until, _)| Instant::now() >= *until) {
            return outcome;
        }
        if shared.is_alive() {
            alive();
        }
        status = shared.status();
        let view = View { story, status: &status, now: u64::from(time::uptime()) };
        if let Some(wish) = desk.serve(&view, &mut history, TICK) {
            leave = leave.or(match wish {
                Wish::Reboot => Some((Instant::now() + FAREWELL, Outcome::Reboot)),
                Wish::PowerOff => Some((Instant::now() + FAREWELL, Outcome::PowerOff)),
                _ => None,
            });
            shared.wish(wish);
        }
    }
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
