//! One run of one program: its time, its CPU, its memory.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// From its exec to its end.
    pub wall: Duration,
    /// User and system time of it and of what it started, by the kernel's account.
    pub cpu: Duration,
    /// The largest resident set, in KiB.
    pub peak: u64,
    /// Requests that the server answered.
    pub requests: u64,
    /// Bytes that the client's interface received and sent; those that the server sent where that is the loopback.
    pub wire: u64,
}

/// Runs a program to its end. It is stopped once, when it ends, to be asked for its memory; nothing else slows it.
///
/// # Errors
/// When it cannot be started, or does not succeed.
pub fn run(command: &mut Command) -> io::Result<Sample> {
    let shown = format!("{command:?}");
    let before = cpu()?;
    let began = Instant::now();
    let log = tempfile::tempfile()?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?).spawn();
    let child = child.map_err(|e| io::Error::other(format!("{shown}: {e}")));
    let mut child = child?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT)?;
    let mut peak = 0;
    let status = loop {
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, code) => break ExitStatus::from_raw(code << 8),
            WaitStatus::Signaled(_, signal, _) => break ExitStatus::from_raw(signal as i32),
            WaitStatus::PtraceEvent(..) => {
                peak = resident(pid)?;
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
            _ => {}
        }
    };
    let wall = began.elapsed();
    // It was waited for above.
    let _ = child.try_wait();
    if !status.success() {
        use std::io::{Read, Seek};
        let (mut said, mut log) = (String::new(), log);
        log.rewind()?;
        log.read_to_string(&mut said)?;
        return Err(io::Error::other(format!("{shown}: {status}\n{said}")));
    }
    Ok(Sample { wall, cpu: cpu()?.saturating_sub(before), peak, ..Sample::default() })
}

/// Time of all children that were waited for.
fn cpu() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |t: TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// `VmHWM`: since the exec, other than `ru_maxrss`, which remembers the image that called it.
fn resident(pid: Pid) -> io::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|e| io::Error::other(format!("{path}: {e}")))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).ok_or_else(|| io::Error::other("no VmHWM"))
}
