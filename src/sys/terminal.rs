//! A terminal: what it has not sent yet, and a shell on it.
#![expect(
    unsafe_code,
    reason = "ioctls and what a child does before it runs its program, which nix does not wrap"
)]

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// Bytes that were written to the terminal and not sent so far; 0 where it does not tell.
pub fn unsent(terminal: &impl AsFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, to the one that is given.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if done == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Runs a shell on a terminal, as leader of a session to which the terminal belongs, so that Ctrl-C reaches what it runs.
///
/// # Errors
/// When the terminal cannot be opened or the shell does not start.
pub fn shell(program: &Path, terminal: &Path) -> std::io::Result<Child> {
    // Without waiting for a carrier; reading from it is to wait.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let line = OpenOptions::new().read(true).write(true).custom_flags(flags).open(terminal)?;
    fcntl(&line, FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("TERM", "vt100").current_dir("/");
    command.stdin(line.try_clone()?).stdout(line.try_clone()?).stderr(line);
    let lead = || {
        // SAFETY: both take integers only and may be called between fork and exec. Without a controlling terminal
        // (EPERM where another session has it) the shell works too, only without Ctrl-C.
        unsafe {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
        }
        Ok(())
    };
    // SAFETY: the closure calls nothing but async-signal-safe functions.
    unsafe { command.pre_exec(lead) };
    command.spawn()
}
