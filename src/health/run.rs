//! Runs one script and sees to it that it ends. Ring: std.
//!
//! The script leads a process group of its own. At the limit the group is asked to end (SIGTERM), [`GRACE`] later
//! it is killed, and [`LAST`] later it is given up: what hangs in the kernel must not hang us too. What the script
//! leaves behind in its group when it ends is killed then; a service that is meant to stay is started with
//! `setsid` or by the init system. The end of the script counts, not the end of its output: a grandchild that
//! keeps the pipe open holds nobody up.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sys::process::descriptor;

use super::plan::{Runner, Script};
use super::tail::Tail;
use super::verdict::{Ending, Outcome};

/// From SIGTERM to SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);
/// From SIGKILL until the script is given up.
pub const LAST: Duration = Duration::from_secs(5);
/// How much of the output is kept, in bytes.
pub const KEPT: usize = 4096;
/// After its end, at most this much is read of what a script printed, in bytes: somebody may still be printing.
const REST_MAX: usize = 1 << 20;

/// Runs a script for at most `limit`, and up to [`GRACE`] and [`LAST`] longer where it does not end.
pub fn run(script: Script, limit: Duration) -> Outcome {
    let begun = Instant::now();
    let mut tail = Tail::new(KEPT);
    let ending = attempt(&script, limit, &mut tail).unwrap_or_else(Ending::NotStarted);
    Outcome {
        script,
        ending,
        milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        output: tail.text(),
        printed: tail.total(),
    }
}

fn attempt(script: &Script, limit: Duration, tail: &mut Tail) -> Result<Ending, String> {
    let (mut output, mut child) = match start(script, script.runner) {
        // Executable, but without "#!": shells run such a file themselves.
        Err(e) if e.raw_os_error() == Some(Errno::ENOEXEC as i32) => start(script, Runner::Sh),
        other => other,
    }
    .map_err(|e| e.to_string())?;
    let group = Pid::from_raw(child.id().cast_signed());
    let watched = fcntl(output.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .and_then(|_| descriptor(child.id()))
        .and_then(|process| watch(&process, &mut output, group, limit, tail));
    // Its leader is still there, if only as a zombie: the group's number is its own until it is reaped below.
    let _ = killpg(group, Signal::SIGKILL);
    match watched {
        Ok(Watched::Ended) => {
            drain(&mut output, tail, REST_MAX);
            child.wait().map(ending).map_err(|e| e.to_string())
        }
        Ok(Watched::Late) => {
            drain(&mut output, tail, REST_MAX);
            // Ended by us: whatever it says of itself by now is too late.
            let _ = child.wait();
            Ok(Ending::TimedOut(limit.as_secs()))
        }
        Ok(Watched::Stuck) => Ok(Ending::Stuck(limit.as_secs())),
        Err(errno) => {
            let _ = child.wait();
            Err(format!("it cannot be watched: {}", errno.desc()))
        }
    }
}

fn start(script: &Script, runner: Runner) -> io::Result<(PipeReader, Child)> {
    let (reader, writer) = io::pipe()?;
    let mut command = match runner {
        Runner::Itself => Command::new(&script.path),
        Runner::Bash => Command::new("bash"),
        Runner::Sh => Command::new("/bin/sh"),
    };
    if runner != Runner::Itself {
        command.arg(&script.path);
    }
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    command.current_dir("/").process_group(0);
    // Our copies of the writing end go with the command.
    Ok((reader, command.spawn()?))
}

enum Watched {
    /// It ended by itself.
    Ended,
    /// It ended after it was told to.
    Late,
    /// It is still there.
    Stuck,
}

/// Reads its output until it has ended, and ends it when its time is over.
fn watch(
    process: &impl AsFd,
    output: &mut PipeReader,
    group: Pid,
    limit: Duration,
    tail: &mut Tail,
) -> nix::Result<Watched> {
    let mut steps = [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, LAST)].into_iter();
    let mut late = false;
    let mut until = Instant::now() + limit;
    let mut open = true;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let Some((signal, more)) = steps.next() else { return Ok(Watched::Stuck) };
            // It may end at this very moment.
            let _ = killpg(group, signal);
            until = Instant::now() + more;
            late = true;
            continue;
        }
        // Rounded up, so that the last millisecond is not spent asking again and again.
        let wait = left.as_millis().saturating_add(1).min(60_000) as u16;
        let ended = {
            let mut fds = [
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
                PollFd::new(output.as_fd(), PollFlags::POLLIN),
            ];
            // A pipe that all have closed is always ready.
            let asked = if open { &mut fds[..] } else { fds.split_at_mut(1).0 };
            match poll(asked, PollTimeout::from(wait)) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e),
            }
            let [process, _] = &fds;
            process.any().unwrap_or(false)
        };
        if ended {
            return Ok(if late { Watched::Late } else { Watched::Ended });
        }
        open &= drain(output, tail, KEPT * 16);
    }
}

/// Takes what is there, at most about `most` bytes; whether there may be more later.
fn drain(output: &mut PipeReader, tail: &mut Tail, most: usize) -> bool {
    let mut buffer = [0; 4096];
    let mut taken = 0;
    while taken < most {
        match output.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                tail.add(buffer.get(..count).unwrap_or(&buffer));
                taken += count;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ending::Passed,
        (Some(code), _) => Ending::Exit(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Exit(-1),
    }
}
