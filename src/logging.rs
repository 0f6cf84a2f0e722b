//! Log lines to the kernel log, so that they are on the console, in `dmesg` and in pstore after a crash.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The longest line that the kernel takes in one write, less its own prefix.
const LINE_MAX: usize = 900;

enum Sink {
    Kernel(File),
    Stderr,
}

static SINK: OnceLock<Sink> = OnceLock::new();

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let Some(sink) = SINK.get() else { return };
        // One line a record: a newline from outside must not forge another one.
        let mut line = record.args().to_string().replace(['\n', '\r'], " ");
        let mut end = line.len().min(LINE_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        match sink {
            Sink::Kernel(kmsg) => {
                let priority = match record.level() {
                    Level::Error => 3,
                    Level::Warn => 4,
                    Level::Info => 6,
                    Level::Debug | Level::Trace => 7,
                };
                // Nowhere is left to report that the log cannot be written.
                let _ = (&*kmsg).write_all(format!("<{priority}>bootward: {line}\n").as_bytes());
            }
            Sink::Stderr => {
                let _ = writeln!(std::io::stderr(), "bootward: {line}");
            }
        }
    }

    fn flush(&self) {}
}

/// Logs to the kernel log; to standard error where that cannot be opened.
///
/// The kernel drops lines of a program that writes many of them in a short time; in the initramfs there is
/// nobody else, so that limit is lifted for this boot stage.
pub fn to_kernel(level: LevelFilter) {
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let kmsg = OpenOptions::new().write(true).custom_flags(nix::libc::O_NOCTTY).open("/dev/kmsg");
    install(kmsg.map_or(Sink::Stderr, Sink::Kernel), level);
}

/// Logs to standard error, for the commands in the OS.
pub fn to_stderr(level: LevelFilter) {
    install(Sink::Stderr, level);
}

fn install(sink: Sink, level: LevelFilter) {
    if SINK.set(sink).is_ok() && log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}

/// Changes how much is logged.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}
