//! A process as a descriptor, and the end of a process group.
#![expect(unsafe_code, reason = "pidfd_open, which nix does not wrap")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// A descriptor that is readable once the process has ended (`pidfd_open`, Linux 5.3).
///
/// # Errors
/// When there is no such process or the kernel has no such call.
pub fn descriptor(pid: u32) -> nix::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: pidfd_open takes two integers and no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, nobody else has it; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a shell on a terminal, as leader of a session to which the terminal belongs, so that Ctrl-C reaches what it runs.
///
/// # Errors
/// When the terminal cannot be opened or the shell does not start.
#[cfg(feature = "recovery")]
pub fn shell(program: &std::path::Path, terminal: &std::path::Path) -> std::io::Result<std::process::Child> {
    use std::os::unix::fs::OpenOptionsExt;
    use std::os::unix::process::CommandExt;

    // Without waiting for a carrier; reading from it is to wait.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let line = std::fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(terminal)?;
    nix::fcntl::fcntl(&line, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_RDWR))?;
    let mut command = std::process::Command::new(program);
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
