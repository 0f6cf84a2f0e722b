//! The serial line: bytes out, bytes in, and nothing that the other end does may stop us.
//!
//! The line is opened without blocking, in raw mode and without XON/XOFF. What cannot be sent (the other end holds the line
//! with RTS/CTS, a USB port is unplugged) waits in a queue of [`QUEUE_MAX`] bytes; what does not fit there is dropped,
//! and the caller is told when the line is clear again, to draw what is true by then.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    ControlFlags, FlushArg, LocalFlags, SetArg, Termios, cfmakeraw, tcflush, tcgetattr, tcsetattr,
};

use crate::sys::terminal::unsent;

/// Bytes that wait for a line that does not move: two screens.
pub const QUEUE_MAX: usize = 4096;
/// Bytes that are read at a time.
const READ_MAX: usize = 256;
/// Time between two tries to open a terminal that is not there.
const REOPEN: Duration = Duration::from_secs(2);
/// Time in which the last words are sent.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A terminal, or nothing while it cannot be opened.
#[derive(Debug)]
pub struct Terminal {
    path: PathBuf,
    line: Option<Line>,
    queue: Vec<u8>,
    /// Something was dropped since the line was clear.
    dropped: bool,
    try_again: Instant,
}

#[derive(Debug)]
struct Line {
    file: File,
    /// What the line was set to; `None` where it is no terminal.
    before: Option<Termios>,
}

/// What came of waiting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard {
    /// Bytes that were typed, at most a few hundred.
    pub bytes: Vec<u8>,
    /// What was sent before did not all arrive, and the line is clear now: time to draw it again.
    pub redraw: bool,
}

impl Terminal {
    /// Opens it. Where that fails, it is tried again every other second for as long as it is used.
    pub fn open(path: &Path) -> Self {
        let line = Line::open(path).map_err(|e| log::error!("console {}: {e}", path.display())).ok();
        let (queue, try_again) = (Vec::new(), Instant::now() + REOPEN);
        Terminal { path: path.to_path_buf(), line, queue, dropped: false, try_again }
    }

    /// Opens it after somebody else had it: whoever waits for it is told to draw it anew.
    pub fn open_to_redraw(path: &Path) -> Self {
        let mut terminal = Terminal::open(path);
        terminal.dropped = true;
        terminal
    }

    /// Sends bytes, as far as there is room for them. Never waits.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.line.is_none() {
            self.dropped = true;
            return;
        }
        // All of it or nothing: half a line on the screen is worse than none.
        if self.dropped || self.queue.len() + bytes.len() > QUEUE_MAX {
            self.dropped = true;
        } else {
            self.queue.extend_from_slice(bytes);
        }
        self.send();
    }

    /// Waits for at most `wait` until something is typed.
    pub fn wait(&mut self, wait: Duration) -> Heard {
        self.reopen();
        let Some(line) = &self.line else {
            std::thread::sleep(wait.min(REOPEN));
            return Heard::default();
        };
        let mut events = PollFlags::POLLIN;
        if !self.queue.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        // Rounded up, so that the last millisecond is slept and not spun.
        let timeout = PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(line.file.as_fd(), events)];
        let ready = poll(&mut descriptors, timeout).unwrap_or(0) > 0;
        let happened = descriptors.iter().find_map(PollFd::revents).unwrap_or(PollFlags::empty());
        let mut heard = Heard::default();
        if ready && happened.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            heard.bytes = self.receive();
        }
        self.send();
        heard.redraw = self.dropped && self.line.is_some() && self.queue.is_empty();
        if heard.redraw {
            self.dropped = false;
        }
        heard
    }

    fn receive(&mut self) -> Vec<u8> {
        let Some(line) = &mut self.line else { return Vec::new() };
        let mut buffer = [0; READ_MAX];
        match line.file.read(&mut buffer) {
            Ok(count @ 1..) => {
                let bytes = buffer.get(..count).unwrap_or(&[]).to_vec();
                // A secret may be among them.
                buffer.fill(0);
                std::hint::black_box(&mut buffer);
                bytes
            }
            Err(e) if is_for_later(&e) => Vec::new(),
            // Hung up, or gone: poll would return at once for ever.
            Ok(0) | Err(_) => {
                self.lose();
                Vec::new()
            }
        }
    }

    fn send(&mut self) {
        while let (Some(line), false) = (&mut self.line, self.queue.is_empty()) {
            match line.file.write(&self.queue) {
                Ok(0) => return,
                Ok(count) => {
                    self.queue.drain(..count.min(self.queue.len()));
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if is_for_later(&e) => return,
                Err(_) => return self.lose(),
            }
        }
    }

    fn lose(&mut self) {
        self.line = None;
        self.queue.clear();
        self.dropped = true;
        self.try_again = Instant::now() + REOPEN;
    }

    fn reopen(&mut self) {
        if self.line.is_none() && Instant::now() >= self.try_again {
            self.try_again = Instant::now() + REOPEN;
            self.line = Line::open(&self.path).ok();
            self.dropped = true;
        }
    }
}

impl Drop for Terminal {
    /// Gives the last words a moment, and never more than that.
    fn drop(&mut self) {
        let end = Instant::now() + LAST_WORDS;
        while !self.queue.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            self.send();
        }
    }
}

impl Line {
    fn open(path: &Path) -> std::io::Result<Self> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        let before = tcgetattr(&file).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            // Nobody's modem: a line without carrier is used all the same.
            raw.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
            raw.local_flags.remove(LocalFlags::TOSTOP);
            // At once: waiting until the output is gone could be for ever.
            tcsetattr(&file, SetArg::TCSANOW, &raw)?;
        }
        Ok(Line { file, before })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let end = Instant::now() + LAST_WORDS;
            while unsent(&self.file) > 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            // The last one to close a line waits half a minute for what was not sent.
            if unsent(&self.file) > 0 {
                let _ = tcflush(&self.file, FlushArg::TCOFLUSH);
            }
            let _ = tcsetattr(&self.file, SetArg::TCSANOW, before);
        }
    }
}

fn is_for_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}
