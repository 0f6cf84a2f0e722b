//! One run of one program in namespaces of its own, measured from its exec to its end.
//!
//! ```text
//!   bench ──fork──> runner: new mount (and process) namespace, waits
//!                     └──fork──> program: mounts, chroot, takes the time, exec
//! ```
//!
//! What the namespaces and the surroundings cost lies before the clock is read, what taking them down costs after the
//! runner has read it again.
#![allow(unsafe_code, reason = "fork")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid, execve, fork, pipe};

use super::systems::System;

/// What one run took.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From its exec to its end, with those that it started.
    pub wall: Duration,
    /// Page faults of the same span, the exec's own among them.
    pub faults: u64,
    /// System calls after the exec; 0 where they were not counted.
    pub calls: u64,
    /// Programs and processes that took part; 0 as above.
    pub processes: u64,
    /// The largest resident set that any one of them had, in KiB; 0 as above.
    pub peak: u64,
    /// The mounts that it left below its `/sysroot`, each with `ro` or `rw`.
    pub mounts: Vec<String>,
}

/// How a run is looked at. Tracing makes it slow, so time and faults are of runs without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The clock and the page faults.
    Time,
    /// System calls and memory, by ptrace.
    Trace,
}

/// Runs `system` once.
///
/// # Errors
/// When the laboratory fails, or the program does not succeed.
pub fn run(system: &System, look: Look) -> io::Result<Sample> {
    let (from, to) = pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(from);
            let text = match inside(system, look) {
                Ok(s) => {
                    let numbers = [s.wall.as_nanos() as u64, s.faults, s.calls, s.processes, s.peak];
                    format!("{}\n{}", numbers.map(|n| n.to_string()).join(" "), s.mounts.join("\n"))
                }
                Err(error) => format!("failed: {error}"),
            };
            let _ = File::from(to).write_all(text.as_bytes());
            // Nothing of the parent's is to be run at the end.
            // SAFETY: _exit takes a number.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(to);
            let mut text = String::new();
            File::from(from).read_to_string(&mut text)?;
            waitpid(child, None)?;
            let (first, rest) = text.split_once('\n').unwrap_or_default();
            let numbers: Vec<u64> = first.split(' ').filter_map(|n| n.parse().ok()).collect();
            let [wall, faults, calls, processes, peak] = numbers[..] else {
                return Err(io::Error::other(format!("{}: {text}", system.name)));
            };
            let mounts = rest.lines().map(String::from).collect();
            Ok(Sample { wall: Duration::from_nanos(wall), faults, calls, processes, peak, mounts })
        }
    }
}

fn inside(system: &System, look: Look) -> io::Result<Sample> {
    let processes = if system.first { CloneFlags::CLONE_NEWPID } else { CloneFlags::empty() };
    unshare(CloneFlags::CLONE_NEWNS | processes)?;
    let (from, to) = pipe()?;
    // SAFETY: this process is a fork of one with one thread.
    let program = match unsafe { fork() }? {
        ForkResult::Child => {
            let Err(error) = become_program(system, look, &to);
            eprintln!("{}: {error}", system.name);
            // SAFETY: _exit takes a number.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => child,
    };
    let outcome = match look {
        Look::Time => match waitpid(program, None)? {
            WaitStatus::Exited(_, 0) => Ok(Sample::default()),
            status => Err(io::Error::other(format!("{status:?}"))),
        },
        Look::Trace => trace(program),
    };
    let after = now()?;
    let mut sample = outcome.map_err(|e| io::Error::other(format!("{e}\n{}", system.said())))?;
    let faults = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    drop(to);
    let mut written = String::new();
    File::from(from).read_to_string(&mut written)?;
    // The last line is the one that counts: the first was written to touch everything that is needed for it.
    let start: Vec<u64> =
        written.lines().last().unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
    let [time, before] = start[..] else { return Err(io::Error::other(written)) };
    sample.wall = after.saturating_sub(Duration::from_nanos(time));
    sample.faults = faults_of(&faults).saturating_sub(before);
    sample.mounts = system.mounts()?;
    Ok(sample)
}

fn become_program(system: &System, look: Look, to: &OwnedFd) -> io::Result<std::convert::Infallible> {
    system.enter()?;
    let program = CString::new(system.command[0])?;
    let words: Result<Vec<CString>, _> = system.command.iter().map(|word| CString::new(*word)).collect();
    let words = words?;
    let environment = [c"PATH=/bin:/sbin:/usr/bin:/usr/sbin:/usr/lib/ostree".to_owned()];
    if look == Look::Trace {
        ptrace::traceme()?;
    }
    let mut line = String::with_capacity(64);
    for _ in 0..2 {
        use std::fmt::Write as _;
        line.clear();
        // What made the surroundings is among the children.
        let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let faults = faults_of(&children) + faults_of(&getrusage(UsageWho::RUSAGE_SELF)?);
        let _ = writeln!(line, "{} {faults}", now()?.as_nanos());
        nix::unistd::write(to, line.as_bytes())?;
    }
    Ok(execve(&program, &words, &environment)?)
}

fn now() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from)
}

fn faults_of(usage: &nix::sys::resource::Usage) -> u64 {
    (usage.minor_page_faults() + usage.major_page_faults()) as u64
}

/// Follows a program that asked for it, and all that it starts, to the end.
fn trace(program: Pid) -> io::Result<Sample> {
    use ptrace::{Event, Options};
    // It stops by itself once its exec is done.
    match waitpid(program, None)? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
        status => return Err(io::Error::other(format!("{status:?} in place of the exec"))),
    }
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(program, options)?;
    let mut sample = Sample { processes: 1, ..Sample::default() };
    // Whether each is inside a system call.
    let mut all = BTreeMap::from([(program, false)]);
    ptrace::syscall(program, None)?;
    loop {
        let status = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL))?;
        let Some(pid) = status.pid() else { continue };
        let mut signal = None;
        match status {
            WaitStatus::Exited(_, code) => {
                all.remove(&pid);
                if pid == program {
                    return if code == 0 {
                        Ok(sample)
                    } else {
                        Err(io::Error::other(format!("status {code}")))
                    };
                }
                continue;
            }
            WaitStatus::Signaled(_, signal, _) => {
                all.remove(&pid);
                if pid == program {
                    return Err(io::Error::other(format!("{signal}")));
                }
                continue;
            }
            WaitStatus::PtraceSyscall(_) => {
                let inside = all.entry(pid).or_default();
                *inside = !*inside;
                sample.calls += u64::from(*inside);
            }
            WaitStatus::PtraceEvent(_, _, event) => {
                if event == Event::PTRACE_EVENT_EXIT as i32 {
                    sample.peak = sample.peak.max(resident(pid)?);
                }
            }
            // A new process stops before it begins.
            WaitStatus::Stopped(..) if !all.contains_key(&pid) => {
                all.insert(pid, false);
                sample.processes += 1;
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            _ => continue,
        }
        // It may have been killed since.
        let _ = ptrace::syscall(pid, signal);
    }
}

/// `VmHWM`: since the exec, other than `ru_maxrss`, which remembers the image that called it.
fn resident(pid: Pid) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).ok_or_else(|| io::Error::other("no VmHWM"))
}
