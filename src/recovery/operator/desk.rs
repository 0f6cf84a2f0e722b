//! The dialogue on the line: what [`Session`] wants done besides is done here, and nothing of it makes recovery wait.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;

use super::lock::HashError;
use super::screen::View;
use super::secret::Secret;
use super::session::{Access, Effect, Manner, Session};
use super::terminal::Terminal;
use crate::recovery::status::Wish;
use crate::sys::terminal::shell;

/// Lines of the kernel's log that are shown, the last ones.
const LOG_LINES: usize = 500;
/// Bytes of one record of the kernel's log at most (`PRINTKRB_RECORD_MAX` is less).
const RECORD_MAX: usize = 8192;
/// Lines of the ledger that are shown.
const LEDGER_LINES: usize = 500;

/// Gives the ledger, a line at a time.
pub type Ledger<'a> = dyn FnMut(&mut dyn FnMut(&str)) + 'a;

/// Where the console is and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The terminal.
    pub console: PathBuf,
    /// Who may use it.
    pub manner: Manner,
    /// The shell that may be asked for; looked at only where `manner` has one.
    pub shell: PathBuf,
    /// The kernel's log, `/dev/kmsg`.
    pub kernel_log: PathBuf,
}

/// The console while recovery runs.
#[derive(Debug)]
pub struct Desk {
    settings: Settings,
    /// `None` where the console is off.
    terminal: Option<Terminal>,
    session: Session,
    check: Option<JoinHandle<Result<bool, HashError>>>,
    shell: Option<Child>,
}

impl Desk {
    /// Opens the line and draws the screen.
    pub fn open(settings: Settings, view: &View<'_>) -> Self {
        let mut out = Vec::new();
        let session = Session::begin(settings.manner.clone(), view, &mut out);
        let terminal = (settings.manner.access != Access::Off).then(|| {
            let mut terminal = Terminal::open(&settings.console);
            terminal.put(&out);
            terminal
        });
        Desk { settings, terminal, session, check: None, shell: None }
    }

    /// Serves the line for at most `wait` and tells what was asked for. `ledger` gives the ledger line by line.
    pub fn serve(&mut self, view: &View<'_>, ledger: &mut Ledger<'_>, wait: Duration) -> Option<Wish> {
        if self.shell_runs() {
            std::thread::sleep(wait);
            return None;
        }
        let Some(terminal) = &mut self.terminal else {
            std::thread::sleep(wait);
            return None;
        };
        let mut heard = terminal.wait(wait);
        let mut out = Vec::new();
        let mut wished = None;
        if heard.redraw {
            self.session.redraw(view, &mut out);
        }
        for byte in &heard.bytes {
            let effect = self.session.byte(*byte, view, &mut out);
            // The last wish counts.
            wished = effect.and_then(|effect| self.effect(effect, view, ledger, &mut out)).or(wished);
        }
        heard.bytes.fill(0);
        self.finish_check(view, &mut out);
        self.session.tick(view, &mut out);
        if let Some(terminal) = &mut self.terminal
            && !out.is_empty()
        {
            terminal.put(&out);
        }
        wished
    }

    /// When something was typed last, in milliseconds since the kernel started; when the console was opened, where
    /// nothing was.
    pub fn heard(&self) -> u64 {
        self.session.heard()
    }

    /// A last word on a line of its own.
    pub fn say(&mut self, line: &str) {
        if let Some(terminal) = &mut self.terminal {
            terminal.put(format!("\r\n{line}\r\n").as_bytes());
        }
    }

    fn effect(
        &mut self,
        effect: Effect,
        view: &View<'_>,
        ledger: &mut Ledger<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Wish> {
        match effect {
            Effect::Wish(wish) => return Some(wish),
            Effect::Check(secret) => self.begin_check(secret, view, out),
            Effect::Ledger => {
                let mut lines = Vec::new();
                ledger(&mut |line| {
                    if lines.len() < LEDGER_LINES {
                        lines.push(line.into());
                    }
                });
                self.session.page(&lines, view, out);
            }
            Effect::KernelLog => self.session.page(&kernel_log(&self.settings.kernel_log), view, out),
            Effect::Shell => self.run_shell(view, out),
        }
        None
    }

    /// On a thread of its own: it takes a second or more on a small device.
    fn begin_check(&mut self, secret: Secret, view: &View<'_>, out: &mut Vec<u8>) {
        let Access::Locked(Some(hash)) = &self.settings.manner.access else {
            return self.session.checked(Ok(false), view, out);
        };
        let hash = hash.clone();
        let thread = std::thread::Builder::new().spawn(move || hash.fits(&secret));
        match thread {
            Ok(thread) => self.check = Some(thread),
            Err(_) => self.session.checked(Err(HashError::Memory), view, out),
        }
    }

    fn finish_check(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        if let Some(thread) = self.check.take_if(|thread| thread.is_finished()) {
            let fits = thread.join().unwrap_or(Err(HashError::Memory));
            self.session.checked(fits, view, out);
        }
    }

    /// Whether the line belongs to the shell; when it has ended, the line is taken back.
    fn shell_runs(&mut self) -> bool {
        let Some(child) = &mut self.shell else { return false };
        if matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        self.shell = None;
        if self.settings.manner.access != Access::Off {
            // Opened anew, it is drawn anew.
            self.terminal = Some(Terminal::open_to_redraw(&self.settings.console));
        }
        false
    }

    fn run_shell(&mut self, view: &View<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"the shell has the line; 'exit' ends it. Recovery goes on meanwhile.\r\n");
        if let Some(mut terminal) = self.terminal.take() {
            terminal.put(out);
        }
        out.clear();
        log::warn!("someone at the console runs {}", self.settings.shell.display());
        match shell(&self.settings.shell, &self.settings.console) {
            Ok(child) => self.shell = Some(child),
            Err(e) => {
                log::error!("{}: {e}", self.settings.shell.display());
                self.terminal = Some(Terminal::open(&self.settings.console));
                out.extend_from_slice(format!("the shell does not start: {e}\r\n").as_bytes());
                self.session.redraw(view, out);
            }
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(child) = &mut self.shell {
            // It leads a session of its own, which goes with it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The kernel's messages are kept off the line, and SysRq where not everybody may use it, for as long as this lives.
#[derive(Debug)]
pub struct Hush {
    before: Vec<(&'static str, String)>,
}

impl Hush {
    /// Begins it. The messages stay in the kernel's log.
    pub fn begin(access: &Access) -> Self {
        let mut changes = vec![("/proc/sys/kernel/printk", "1")];
        if *access != Access::Open {
            changes.push(("/proc/sys/kernel/sysrq", "0"));
        }
        let mut before = Vec::new();
        for (path, value) in changes {
            if let Ok(old) = std::fs::read_to_string(path)
                && std::fs::write(path, value).is_ok()
            {
                before.push((path, old));
            }
        }
        Hush { before }
    }
}

impl Drop for Hush {
    fn drop(&mut self) {
        for (path, old) in &self.before {
            let _ = std::fs::write(path, old);
        }
    }
}

/// The kernel's log in lines, as far as it goes back.
fn kernel_log(path: &Path) -> Vec<String> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut log: File = match opened {
        Ok(log) => log,
        Err(e) => return vec![format!("{}: {e}", path.display())],
    };
    let mut lines = std::collections::VecDeque::new();
    let mut buffer = vec![0; RECORD_MAX];
    // A read is one record. What is written while it is read could go on for ever.
    for _ in 0..100_000 {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if lines.len() >= LOG_LINES {
                    lines.pop_front();
                }
                lines.push_back(record(buffer.get(..count).unwrap_or(&[])));
            }
            // EPIPE: records were overwritten meanwhile; the next read goes on behind them.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPIPE | libc::EINTR)) => {}
            Err(_) => break,
        }
    }
    lines.into()
}

/// `prio,sequence,microseconds,flags;text` as `[seconds] text` (Documentation/ABI/testing/dev-kmsg).
fn record(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (head, text) = text.split_once(';').unwrap_or(("", &text));
    let micros: u64 = head.split(',').nth(2).and_then(|m| m.parse().ok()).unwrap_or(0);
    let text = text.lines().next().unwrap_or_default();
    format!("[{:5}.{:03}] {text}", micros / 1_000_000, micros / 1000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_kernel() {
        let text = record(b"6,339,5140900,-;NET: Registered PF_INET\n SUBSYSTEM=net\n");
        assert_eq!(text, "[    5.140] NET: Registered PF_INET");
        assert_eq!(record(b"no record"), "[    0.000] no record");
        assert_eq!(kernel_log(Path::new("/no/such")).len(), 1);
    }
}
