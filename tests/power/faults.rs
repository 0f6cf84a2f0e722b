//! System calls that fail, or that the process does not survive, one after the other: strace injects them.
//!
//! An operation is cut at every call that changes something, and its disk booted; then it is run again and must
//! finish. The guardian itself is cut at every call of a boot, and the next boot must come up.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::campaign::{Place, Verdict, boot, in_parallel};
use super::disk::{Mounted, View, copy};
use super::loader::{Loaded, load};
use super::scenario::{Recorded, Scenario};
use super::systems::{Ended, Initramfs, System};
use super::tools::run;

/// The calls that change something that outlives the process.
const CHANGING: &str = "openat,creat,write,pwrite64,writev,pwritev,copy_file_range,sendfile,ftruncate,truncate,fallocate,\
    fsync,fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,\
    mkdir,mkdirat,rmdir,mknod,mknodat,chmod,fchmod,fchmodat,chown,fchown,fchownat,lchown,setxattr,lsetxattr,fsetxattr,\
    removexattr,lremovexattr,fremovexattr,utimensat,ioctl,mount,umount2,flock";

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is gone.
    Kill,
    /// The call fails with this error.
    Error(&'static str),
}

impl Fault {
    /// All that are tried.
    pub const ALL: [Fault; 5] = [
        Fault::Kill,
        Fault::Error("EIO"),
        Fault::Error("ENOSPC"),
        Fault::Error("EROFS"),
        Fault::Error("EINTR"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "SIGKILL",
            Fault::Error(name) => name,
        }
    }

    /// `strace` so that a process meets the fault at this call. strace counts each call's name for itself.
    fn strace(self, (call, n): &Call) -> Command {
        let action = match self {
            Fault::Kill => "signal=SIGKILL".into(),
            Fault::Error(name) => format!("error={name}"),
        };
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:{action}:when={n}")]);
        command
    }
}

/// What came of a fault at one point.
#[derive(Clone, Debug)]
pub struct Point {
    /// The operation itself, or the boot itself, came through.
    pub came_through: bool,
    /// What must not be.
    pub failures: Vec<String>,
}

/// What is swept, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Sweep<'a> {
    /// The operation.
    pub scenario: &'a Scenario,
    /// Its disk.
    pub recorded: &'a Recorded,
    /// The device binary of bootward.
    pub bootward: &'a Path,
    /// Every so manyth call.
    pub every: usize,
    /// How many at a time.
    pub workers: usize,
}

impl Sweep<'_> {
    /// Cuts the operation at its changing calls. Whenever it says that it has succeeded, the new version must boot;
    /// whenever it does not, some whole version; and running it again must finish it.
    ///
    /// # Errors
    /// When the laboratory itself fails.
    pub fn operation(&self, fault: Fault) -> io::Result<Vec<Point>> {
        let place = Place::new()?;
        let calls = calls(self.scenario, self.recorded, &place)?;
        let calls = calls.iter().enumerate().flat_map(|(n, calls)| calls.iter().map(move |call| (n, call)));
        let calls: Vec<(usize, &Call)> = calls.step_by(self.every.max(1)).collect();
        in_parallel(&calls, self.workers, |share| {
            let place = Place::new()?;
            let initramfs = Initramfs::new(&place.dir, self.bootward)?;
            share.iter().map(|&(number, call)| self.cut(fault, number, call, &initramfs, &place)).collect()
        })
    }

    fn cut(
        &self,
        fault: Fault,
        faulty: usize,
        call: &Call,
        initramfs: &Initramfs,
        place: &Place,
    ) -> io::Result<Point> {
        let layout = self.recorded.recording.layout;
        let image = place.dir.join("faults.img");
        let new = self.scenario.after;
        let mut point = Point { came_through: true, failures: Vec::new() };
        let mut failed = |what: String| {
            point.failures.push(format!(
                "{} at {} {} of command {}: {what}",
                fault.name(),
                call.0,
                call.1,
                faulty + 1
            ));
        };
        copy(&self.recorded.recording.base, &image)?;
        let mounted = Mounted::new(&image, layout, &place.mount, View::Linux)?;
        for (number, command) in (self.scenario.operation)(self.scenario, &mounted.at).into_iter().enumerate()
        {
            // A person would stop there, too.
            if !point.came_through {
                break;
            }
            let strace = (number == faulty).then(|| fault.strace(call));
            point.came_through = run(&mut around(strace, command)).is_ok();
        }
        if point.came_through
            && let Some(why) = self.scenario.unfinished(&mounted.at)
        {
            failed(format!("it said that it was done: {why}"));
        }
        mounted.close()?;
        let whole = match boot_once(&image, self.recorded, initramfs, place)? {
            Verdict::Whole(version) => Some(version),
            other => {
                failed(other.to_string());
                None
            }
        };
        if point.came_through && whole.is_some_and(|version| version != new) {
            failed("it said that it was done, and the old version boots".into());
        }
        let mounted = Mounted::new(&image, layout, &place.mount, View::Linux)?;
        for mut command in (self.scenario.operation)(self.scenario, &mounted.at) {
            if let Err(e) = run(&mut command) {
                failed(format!("it cannot be run again: {e}"));
            }
        }
        if let Some(why) = self.scenario.unfinished(&mounted.at) {
            failed(format!("run again: {why}"));
        }
        mounted.close()?;
        if boot_once(&image, self.recorded, initramfs, place)? != Verdict::Whole(new) {
            failed("run again, it does not boot the new version".into());
        }
        fs::remove_file(&image)?;
        Ok(point)
    }

    /// Has the guardian meet the fault at the calls of a boot; the boot after it must come up. The first calls are
    /// those of the laboratory, which makes the surroundings in the same process.
    ///
    /// # Errors
    /// When the laboratory itself fails.
    pub fn guardian(&self, fault: Fault) -> io::Result<Vec<Point>> {
        let place = Place::new()?;
        let initramfs = Initramfs::new(&place.dir, self.bootward)?;
        let (base, layout) = (&self.recorded.recording.base, self.recorded.recording.layout);
        let image = place.dir.join("faults.img");
        copy(base, &image)?;
        let Loaded::Kernel { command_line } = load(&image, layout, &place.mount, &self.recorded.trees) else {
            return Err(io::Error::other("the disk before the operation does not boot"));
        };
        let counted = place.dir.join("calls");
        let mut counting = Command::new("strace");
        counting.args(["-f", "-qq", "-o"]).arg(&counted);
        initramfs.boot_under(Some(counting), System::Bootward, &image, layout, &command_line)?;
        let calls: Vec<Call> = points(&counted)?.into_iter().step_by(self.every.max(1)).collect();
        in_parallel(&calls, self.workers, |share| {
            let place = Place::new()?;
            let initramfs = Initramfs::new(&place.dir, self.bootward)?;
            let image = place.dir.join("faults.img");
            let meet = |call: &Call| {
                copy(base, &image)?;
                let faulty = Some(fault.strace(call));
                let ended = initramfs.boot_under(faulty, System::Bootward, &image, layout, &command_line)?;
                let mut failures = Vec::new();
                match boot_once(&image, self.recorded, &initramfs, &place)? {
                    Verdict::Whole(_) => {}
                    other => {
                        failures.push(format!("{} at {} {}, then: {other}", fault.name(), call.0, call.1))
                    }
                }
                fs::remove_file(&image)?;
                Ok(Point { came_through: matches!(ended, Ended::Up { .. }), failures })
            };
            share.iter().map(meet).collect()
        })
    }
}

fn boot_once(image: &Path, recorded: &Recorded, initramfs: &Initramfs, place: &Place) -> io::Result<Verdict> {
    let layout = recorded.recording.layout;
    match load(image, layout, &place.mount, &recorded.trees) {
        Loaded::Nothing(why) => Ok(Verdict::NoKernel(why)),
        Loaded::Kernel { command_line } => {
            boot(image, layout, place, &recorded.trees, initramfs, System::Bootward, &command_line)
        }
    }
}

/// The changing calls of each command.
fn calls(scenario: &Scenario, recorded: &Recorded, place: &Place) -> io::Result<Vec<Vec<Call>>> {
    let (image, log) = (place.dir.join("count.img"), place.dir.join("calls"));
    copy(&recorded.recording.base, &image)?;
    let mounted = Mounted::new(&image, recorded.recording.layout, &place.mount, View::Linux)?;
    let mut counts = Vec::new();
    for command in (scenario.operation)(scenario, &mounted.at) {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", &format!("trace={CHANGING}"), "-o"]).arg(&log);
        run(&mut around(Some(strace), command))?;
        counts.push(points(&log)?);
    }
    mounted.close()?;
    fs::remove_file(image)?;
    Ok(counts)
}

/// A call by name, and by number among those of its name in one process.
type Call = (String, usize);

/// The calls in a log of strace's. Of each name there are as many as the process makes that makes most of them.
fn points(log: &Path) -> io::Result<Vec<Call>> {
    let mut counts = std::collections::BTreeMap::<(String, String), usize>::new();
    for line in String::from_utf8_lossy(&fs::read(log)?).lines() {
        // "PID name(arguments"; an interrupted call has a second line without a bracket after its name.
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            *counts.entry((name.into(), pid.into())).or_default() += 1;
        }
    }
    let mut most = std::collections::BTreeMap::<String, usize>::new();
    for ((name, _), count) in counts {
        let known = most.entry(name).or_default();
        *known = count.max(*known);
    }
    Ok(most.into_iter().flat_map(|(name, most)| (1..=most).map(move |n| (name.clone(), n))).collect())
}

/// The command, under strace where there is one.
fn around(strace: Option<Command>, command: Command) -> Command {
    let Some(mut strace) = strace else { return command };
    strace.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        strace.env(name, value.unwrap_or_default());
    }
    strace
}
