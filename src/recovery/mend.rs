//! A root that cannot be mounted: waited for, checked, or made anew where that is allowed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::flow::{Came, Step};
use super::worker::Worker;
use crate::block::find::{Device, Places, find};
use crate::block::root::{Options, mount_device};
use crate::block::spec::RootSpec;
use crate::deploy::act;

/// What is known of the root when recovery begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// It is mounted.
    Mounted,
    /// It is not, and this is how it is named and would be mounted.
    Absent(Named),
}

/// How the root is named and mounted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Named {
    /// As in `root=`.
    pub device: String,
    /// Types to try, separated by commas; empty to recognise it.
    pub fstype: String,
    /// Options as in fstab.
    pub flags: String,
}

/// Where the root is mounted for a moment, to see whether it can be.
const TRIAL: &str = "/run/bootward-root";
/// So long is the root's device looked for in each round.
const LOOK: Duration = Duration::from_secs(5);
/// A program that mends or makes a filesystem may take so long.
const PROGRAM_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// As long as it runs, the worker shows life.
const TICK: Duration = Duration::from_millis(200);
/// The last so many bytes of what a program said are told.
const SAID_MAX: usize = 400;

/// Does one of [`Step::Mount`], [`Step::Check`] and [`Step::Format`].
pub(super) fn step(worker: &mut Worker, step: &Step) -> Came {
    let Root::Absent(named) = worker.task.root.clone() else { return Came::Done };
    let (device, by_name) = match device(worker, &named) {
        Ok(found) => found,
        Err(why) => {
            worker.failed("root", &why);
            return Came::Failed;
        }
    };
    let recovery = worker.task.settings.recovery.clone();
    match step {
        Step::Check => {
            if let Err(why) = program(worker, &recovery.fsck, &device.node, 3) {
                worker.failed("root", &why);
            }
        }
        Step::Format => return format(worker, &recovery.mkfs, &device, &named),
        _ => {}
    }
    // What the program changed is on the device, not in what was read of it before.
    let found = self::device(worker, &named).map_or((device, by_name), |found| found);
    look(worker, &found.0, found.1, &named)
}

/// The root's device, and whether it was found by the root's own name.
fn device(worker: &mut Worker, named: &Named) -> Result<(Device, bool), String> {
    let shared = worker.shared.clone();
    let search = |name: &str, patience: Duration| {
        let spec = RootSpec::parse(name).map_err(|e| e.to_string())?;
        let heartbeat = Duration::from_secs(1);
        find(&spec, &Places::default(), patience, heartbeat, || shared.alive(LOOK * 2))
            .map_err(|e| e.to_string())
    };
    let first = search(&named.device, LOOK);
    match (first, worker.task.settings.recovery.device.as_str()) {
        (Ok(device), _) => Ok((device, true)),
        (Err(why), "") => Err(why),
        (Err(_), other) => search(other, Duration::ZERO).map(|device| (device, false)),
    }
}

/// Whether it can be mounted. What is no fault of the filesystem is no damage: nothing is made anew for a missing driver.
fn look(worker: &mut Worker, device: &Device, by_name: bool, named: &Named) -> Came {
    let _ = std::fs::create_dir_all(TRIAL);
    let options = Options { fstype: &named.fstype, flags: &named.flags, read_only: false };
    let mounted = mount_device(device, Path::new(TRIAL), &options);
    if mounted.is_ok() {
        let _ = umount2(TRIAL, MntFlags::empty());
        if by_name {
            worker.shared.tell(&format!("{} can be mounted", device.node.display()));
            return Came::Done;
        }
        let what = device.superblock.as_ref().map_or("?", |s| s.label.as_str());
        let why = format!(
            "{} has a good filesystem with the label '{what}', and is not {}: see root= and recovery.device",
            device.node.display(),
            named.device
        );
        worker.failed("root", &why);
        return Came::Failed;
    }
    let Err(e) = mounted else { return Came::Done };
    worker.failed("root", &e.to_string());
    // No filesystem at all, one that the kernel finds wrong, or a medium that does not read.
    let damaged = device.superblock.is_none()
        || matches!(e.errno, Errno::EINVAL | Errno::EUCLEAN | Errno::EIO | Errno::EBADMSG | Errno::EFBIG);
    if damaged { Came::Damaged } else { Came::Failed }
}

/// Makes a fresh filesystem and a sysroot on it.
fn format(worker: &mut Worker, mkfs: &str, device: &Device, named: &Named) -> Came {
    let node = device.node.display().to_string();
    worker.shared.tell(&format!("making a fresh filesystem on {node}: everything that was on it is lost"));
    let made = program(worker, mkfs, &device.node, 0).and_then(|()| {
        let (device, _) = self::device(worker, named)?;
        let sysroot = worker.task.site.sysroot.clone();
        let options = Options { fstype: &named.fstype, flags: &named.flags, read_only: false };
        mount_device(&device, &sysroot, &options).map_err(|e| e.to_string())?;
        let made = sysroot_of(worker);
        worker.task.root = Root::Mounted;
        worker.record(&format!("the root could not be mended; a fresh filesystem was made on {node}"));
        let _ = umount2(&sysroot, MntFlags::empty());
        made
    });
    match made {
        Ok(()) => Came::Done,
        Err(why) => {
            worker.failed("root", &why);
            Came::Failed
        }
    }
}

/// Makes a sysroot of an empty filesystem, where it is none yet: also after a power cut in the middle of that.
///
/// # Errors
/// Why it cannot be made.
pub(super) fn sysroot_of(worker: &Worker) -> Result<(), String> {
    let stateroot = stateroot(worker)?;
    let sysroot = &worker.task.site.sysroot;
    let there = |path: &str| sysroot.join(path).exists();
    if there("ostree/repo/config") && there(&format!("ostree/deploy/{stateroot}/var")) {
        return Ok(());
    }
    // A boot partition of its own keeps what it has.
    let site = crate::trial::act::Site { boot: sysroot.join("boot"), ..worker.task.site.clone() };
    let uboot = worker.task.settings.recovery.bootloader == "uboot";
    act::init_fs(&site, &stateroot, uboot).map(drop).map_err(|e| e.to_string())
}

/// Where the commit is deployed.
///
/// # Errors
/// When nothing says so.
pub(super) fn stateroot(worker: &Worker) -> Result<String, String> {
    let configured = &worker.task.settings.recovery.stateroot;
    let known = Some(configured).filter(|s| !s.is_empty()).or(worker.task.stateroot.as_ref());
    known.cloned().ok_or_else(|| "recovery.stateroot must say where the commit is deployed".into())
}

/// Runs a program of the initramfs on a device, supervised.
fn program(worker: &mut Worker, words: &str, device: &Path, good: i32) -> Result<(), String> {
    let mut words_of = words.split_ascii_whitespace();
    let Some(name) = words_of.next() else { return Err("no program is configured for it".into()) };
    worker.shared.tell(&format!("running {words} {}", device.display()));
    let output = PathBuf::from("/run/bootward-program");
    let file = std::fs::File::create(&output).map_err(|e| format!("{}: {e}", output.display()))?;
    let second = file.try_clone().map_err(|e| format!("{}: {e}", output.display()))?;
    let mut child = Command::new(name)
        .args(words_of)
        .arg(device)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(second)
        .spawn()
        .map_err(|e| format!("{name} does not start: {e}; is it in the initramfs?"))?;
    let began = Instant::now();
    let ended = loop {
        worker.shared.alive(Duration::from_secs(30));
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < PROGRAM_MAX => std::thread::sleep(TICK),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} did not end within {} s", PROGRAM_MAX.as_secs()));
            }
            Err(e) => return Err(format!("{name}: {e}")),
        }
    };
    let said = last_words(&output);
    if ended.code().is_some_and(|code| code <= good) {
        worker.shared.tell(&format!("{name} is done, in {} s", began.elapsed().as_secs()));
        Ok(())
    } else {
        Err(format!("{name}: {ended}: {said}"))
    }
}

fn last_words(path: &Path) -> String {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut text));
    let tail = text.get(text.len().saturating_sub(SAID_MAX)..).unwrap_or_default();
    let said = String::from_utf8_lossy(tail).split_whitespace().collect::<Vec<_>>().join(" ");
    if read.is_ok() { said } else { String::new() }
}
