//! wpa_supplicant as a child process. Ring: std.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// From SIGTERM to SIGKILL, and from there until it is given up.
const GRACE: Duration = Duration::from_secs(2);
/// How much of what it says is kept, in bytes.
const KEPT: usize = 2048;

/// The child; it ends with this value.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    output: PipeReader,
    said: Vec<u8>,
}

impl Daemon {
    /// Starts the program in the foreground.
    pub(super) fn start(program: &Path, interface: &str, config: &Path) -> io::Result<Self> {
        let (output, writer) = io::pipe()?;
        // Nobody reads while a download runs: what does not fit is dropped, instead of stopping the daemon.
        for end in [output.as_fd(), writer.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let mut command = Command::new(program);
        command.arg("-q").arg("-Dnl80211").arg("-i").arg(interface).arg("-c").arg(config);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).current_dir("/");
        // Whatever this process ignores, the daemon is to end when it is told to.
        let child = command.spawn()?;
        Ok(Daemon { child, output, said: Vec::new() })
    }

    /// How it ended, with the last that it said; `None` while it runs.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.listen();
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(e) => e.to_string(),
        };
        self.listen();
        let said = super::profile::shown(&self.said);
        Some(if said.is_empty() { status } else { format!("{status}: {said}") })
    }

    /// Keeps the end of what it printed.
    fn listen(&mut self) {
        let mut buffer = [0; 1024];
        // Whoever prints without an end must not keep us here.
        for _ in 0..64 {
            match self.output.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => self.said.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
            let over = self.said.len().saturating_sub(KEPT);
            self.said.drain(..over);
        }
    }

    fn wait(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // It leaves its network in order and takes its socket away.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        if !self.wait(GRACE) {
            let _ = self.child.kill();
            if !self.wait(GRACE) {
                log::warn!("wpa_supplicant ({}) hangs in the kernel and is left behind", self.child.id());
            }
        }
    }
}
