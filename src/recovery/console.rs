//! The serial terminal: lines out, lines in, never blocking longer than asked.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longer lines are cut; nothing that can be typed is nearly as long.
const LINE_MAX: usize = 256;

/// A terminal, or nothing where it cannot be opened.
#[derive(Debug)]
pub struct Console {
    terminal: Option<File>,
    typed: Vec<u8>,
}

/// What came of waiting for a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A line without its end.
    Line(String),
    /// The deadline passed without input.
    TimeUp,
}

impl Console {
    /// Opens the terminal. Where that fails, nothing is printed and only time passes.
    pub fn open(path: &Path) -> Self {
        let terminal = OpenOptions::new().read(true).write(true).open(path);
        let terminal = terminal.map_err(|e| log::error!("console {}: {e}", path.display())).ok();
        Console { terminal, typed: Vec::new() }
    }

    /// Keeps the kernel's own messages off the screen from now on; they stay in its log.
    pub fn quiet_kernel(&self) {
        let _ = std::fs::write("/proc/sys/kernel/printk", "1");
    }

    /// Prints one line.
    pub fn line(&mut self, text: &str) {
        self.put(text);
        self.put("\r\n");
    }

    /// Prints the prompt.
    pub fn prompt(&mut self) {
        self.put("bootward> ");
    }

    fn put(&mut self, text: &str) {
        if let Some(terminal) = &mut self.terminal {
            // A terminal that went away must not end recovery.
            let _ = terminal.write_all(text.as_bytes());
        }
    }

    /// Waits for a line until `deadline`, calling `alive` at least once every `heartbeat`.
    pub fn read_line(
        &mut self,
        deadline: Option<Instant>,
        heartbeat: Duration,
        alive: &mut dyn FnMut(),
    ) -> Input {
        loop {
            if let Some(line) = self.take_line() {
                return Input::Line(line);
            }
            alive();
            let now = Instant::now();
            let left = deadline.map(|d| d.saturating_duration_since(now));
            if left.is_some_and(|l| l.is_zero()) {
                return Input::TimeUp;
            }
            let wait = left.map_or(heartbeat, |l| l.min(heartbeat));
            if !self.receive(wait) {
                self.typed.clear();
            }
        }
    }

    /// Takes what was typed within `wait`. `false` when the terminal hung up or is not there.
    fn receive(&mut self, wait: Duration) -> bool {
        // Rounded up, so that the last millisecond before a deadline is slept and not spun.
        let timeout = PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let Some(terminal) = &mut self.terminal else {
            std::thread::sleep(wait);
            return false;
        };
        let mut poll_fd = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut poll_fd, timeout).is_ok_and(|ready| ready > 0) {
            return true;
        }
        let mut buffer = [0; 64];
        match terminal.read(&mut buffer) {
            Ok(count @ 1..) => {
                let room = LINE_MAX.saturating_sub(self.typed.len());
                let end = buffer.get(..count).unwrap_or(&[]).iter().any(|b| matches!(b, b'\n' | b'\r'));
                self.typed.extend(buffer.iter().take(count.min(room)));
                // A line that does not fit still ends.
                if end && room < count {
                    self.typed.push(b'\n');
                }
                true
            }
            Ok(0) | Err(_) => {
                // Hung up: poll would return at once, so the time is slept away instead.
                std::thread::sleep(wait.min(Duration::from_secs(1)));
                false
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.typed.iter().position(|b| matches!(b, b'\n' | b'\r'))?;
        let rest = self.typed.split_off(end);
        let line = std::mem::replace(&mut self.typed, rest.into_iter().skip(1).collect());
        Some(line.iter().map(|&b| if b.is_ascii_graphic() { char::from(b) } else { ' ' }).collect())
    }
}
