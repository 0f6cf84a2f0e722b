//! The same initramfs under a real kernel in QEMU, whose clock counts instructions: `-icount shift=1`, 2 ns for each.
//!
//! The disk is a file in memory behind a loop device, made by a first stage that is the same for all. What is counted is
//! everything: the kernel's work and the time that it waits too, in which the clock goes on to the next timer. The waits
//! are what differs from one boot to the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::systems::{Place, System, output, program};

/// Nanoseconds of virtual time for an instruction: 2 to the power of the shift.
const NANOSECONDS: u64 = 2;
/// Longest run of the machine, in seconds.
const PATIENCE: &str = "400";

/// Runs before the system's own `/init`.
const STAGE: &str = "#!/bin/busybox sh
b=/bench/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b insmod /bench/loop.ko
$b losetup /dev/loop0 /bench/disk
exec /bench/stamp /init
";

/// Nanoseconds since the kernel's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// When `/init` is executed.
    pub begin: u64,
    /// When the deployment's init runs.
    pub end: u64,
}

impl Count {
    /// Millions of instructions of the initramfs.
    pub fn initramfs(self) -> f64 {
        (self.end - self.begin) as f64 / NANOSECONDS as f64 / 1e6
    }

    /// Millions of instructions of the whole boot.
    pub fn boot(self) -> f64 {
        self.end as f64 / NANOSECONDS as f64 / 1e6
    }
}

/// The program that says the time, for the virtual machine.
///
/// # Errors
/// When it does not build.
pub fn stamp() -> io::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/stamp.rs");
    let binary = super::lab().join("stamp");
    let mut rustc = Command::new("rustc");
    rustc.args([
        "--edition=2024",
        "--target=x86_64-unknown-linux-musl",
        "-Clinker=rust-lld",
        "-Cpanic=abort",
    ]);
    output(rustc.args(["-Copt-level=s", "-Cstrip=symbols", "-o"]).arg(&binary).arg(source))?;
    Ok(binary)
}

/// Boots `system` with the disk of `place`.
///
/// # Errors
/// When QEMU fails, or the deployment's init is not reached.
pub fn boot(place: &Place, system: &System, stamp: &Path) -> io::Result<Count> {
    let dir = place.dir().join("emulated");
    let stage = dir.join("stage");
    fs::create_dir_all(stage.join("bench"))?;
    let kernel = super::lab().join("kernel-amd64");
    let release = fs::read_to_string(kernel.join("release"))?;
    let release = release.trim();
    let module = kernel.join(format!("lib/modules/{release}/kernel/drivers/block/loop.ko.xz"));
    let unpacked = stage.join("bench/loop.ko");
    let shell = "xz -dc \"$1\" >\"$2\"";
    output(Command::new("sh").args(["-c", shell, "sh"]).arg(module).arg(&unpacked))?;
    fs::copy("/bin/busybox", stage.join("bench/busybox"))?;
    fs::copy(stamp, stage.join("bench/stamp"))?;
    fs::copy(place.image(), stage.join("bench/disk"))?;
    program(&stage.join("bench/init"), STAGE.replace("/bin/busybox", "/bench/busybox").as_bytes())?;
    let initramfs = dir.join("initramfs");
    let archive = "(cd \"$1\" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc) >\"$3\"
        (cd \"$2\" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc | gzip -9n) >>\"$3\"";
    let mut sh = Command::new("sh");
    output(sh.args(["-ec", archive, "sh"]).arg(&stage).arg(system.tree()).arg(&initramfs))?;
    let words = format!(
        "console=ttyS0 quiet panic=-1 nokaslr random.trust_cpu=off rdinit=/bench/init {} root=/dev/loop0 \
         ostree_root=/dev/loop0 rw",
        place.options()
    );
    let mut qemu = Command::new("timeout");
    qemu.args([PATIENCE, "qemu-system-x86_64", "-M", "q35", "-cpu", "qemu64", "-accel", "tcg", "-m", "512"]);
    qemu.args(["-icount", "shift=1,sleep=off", "-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
    qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel.join(format!("boot/vmlinuz-{release}")));
    qemu.arg("-initrd").arg(&initramfs).args(["-append", &words]);
    let console = output(&mut qemu)?;
    let mut stamps = console.lines().filter_map(nanoseconds);
    match (stamps.next(), stamps.next()) {
        (Some(begin), Some(end)) => Ok(Count { begin, end }),
        _ => Err(io::Error::other(format!("{} does not boot:\n{console}", system.name))),
    }
}

/// `[stamp] Instant { tv_sec: 1, tv_nsec: 616668640 }`
fn nanoseconds(line: &str) -> Option<u64> {
    let (_, stamp) = line.split_once("[stamp] ")?;
    let mut numbers = stamp.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
    Some(numbers.next()? * 1_000_000_000 + numbers.next()?)
}
