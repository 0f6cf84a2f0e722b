//! What a power cut left of libostree's own update, booted for real: with libostree's initramfs and with ours.
//!
//! The power-cut laboratory (`tests/power`) records the update, looks for a state of each kind of outcome, and writes
//! its disks. Here a machine boots them, with the command line that the bootloader read from the same state.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::fixture::{LABEL, occupy};
use super::guardian::{MODULES, binary, initramfs_with, kernel};
use super::scenes::{ANSWER, BOOT};
use super::tools::{as_root, empty_dir, lab, read, run, write};
use super::vm::{Machine, Setup, Vm};
use super::{Fault, Outcome};

/// The update: `/boot` is a file system of its own, version 3 replaces version 1.
const UPDATE: &str = "two-update";
/// The scene's disks and transcripts.
const SCENE: &str = "power-cut";
/// The link is gone that the bootloader passes on.
const STALE: &str = "stale";
/// Every kind of state that the laboratory looks for.
const KINDS: [&str; 5] = ["before", STALE, "after", "reordered", "torn"];
/// What the bootloader's own script adds to the command line, and the sign that the system is to judge itself.
const ADDED: &str = "rw lab.machine";

/// What the small system says of itself.
const UP: &str = "[os] up: ";
const WHOLE: &str = "[os] every file of version ";
/// The end of a device whose initramfs gives up.
const PANIC: &str = "Kernel panic - not syncing: Attempted to kill init!";
/// libostree's own word for a stale link.
const LOST: &str = "ostree-prepare-root: Couldn't find specified OSTree root";

/// What is around `ostree-prepare-root` on a device, as small as it can be.
const PEER: &str = r#"#!/bin/busybox sh
b=/bin/busybox
for kind in proc sysfs devtmpfs; do $b mount -t $kind $kind /$kind; done
$b mount --move /devtmpfs /dev
$b insmod /virtio_blk.ko
until [ -b /dev/vda ]; do $b sleep 0.1; done
$b mount -t ext4 -o rw /dev/vda /sysroot
echo "[initramfs] ostree-prepare-root /sysroot"
/usr/lib/ostree/ostree-prepare-root /sysroot || exit 1
exec $b switch_root /sysroot /sbin/init
"#;

/// Whose initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Bootward,
    PrepareRoot,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            System::Bootward => "bootward",
            System::PrepareRoot => "ostree-prepare-root",
        }
    }
}

/// A state, as the laboratory found it.
struct State {
    dir: PathBuf,
    id: String,
    command_line: String,
    /// What became of it in the laboratory, by system: a version, or `dead`.
    bootward: String,
    peer: String,
}

impl State {
    /// The laboratory's state of this kind.
    fn of(kind: &str) -> Outcome<State> {
        let dir = found()?.join(kind);
        let text = read(&dir.join("state"))?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(str::to_string).ok_or_else(|| Fault::new(format!("{}: no {key}", dir.display())))
        };
        let (id, command_line) = (value("id")?, value("command_line")?);
        let (bootward, peer) = (value(System::Bootward.name())?, value(System::PrepareRoot.name())?);
        Ok(State { id, command_line, bootward, peer, dir })
    }

    fn expected(&self, system: System) -> &str {
        match system {
            System::Bootward => &self.bootward,
            System::PrepareRoot => &self.peer,
        }
    }

    /// A machine with a copy of its disks.
    fn machine(&self, name: &str, system: System, live: bool) -> Outcome<Setup> {
        let name = format!("{name}-{}", system.name());
        let dir = empty_dir(&name)?;
        let mut disks = Vec::new();
        for disk in ["otaroot.img", "otaboot.img"] {
            let own = dir.join(disk);
            run(Command::new("cp").arg("--sparse=always").arg(self.dir.join(disk)).arg(&own))?;
            disks.push(own);
        }
        Ok(Setup {
            name,
            firmware: None,
            machine: Machine::Amd64,
            memory: 512,
            kernel: kernel(Machine::Amd64)?.image,
            initramfs: match system {
                System::Bootward => ours()?,
                System::PrepareRoot => theirs()?,
            },
            command_line: format!("{} root=LABEL={LABEL} {ADDED}", self.command_line),
            disks,
            extra: Vec::new(),
            live,
        })
    }
}

/// The laboratory's states, found once a run.
fn found() -> Outcome<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| find().map_err(|fault| fault.to_string())).clone().map_err(Fault::new)
}

fn find() -> Outcome<PathBuf> {
    occupy()?;
    let dir = empty_dir("cuts")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !nix::unistd::geteuid().is_root() {
        // Loop devices and mounts.
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -n");
    }
    cargo.args(["test", "--quiet", "--test", "power", "--", "--bootward"]).arg(binary(Machine::Amd64)?);
    run(cargo.arg("--disks").arg(&dir).arg(UPDATE))?;
    Ok(dir)
}

fn ours() -> Outcome<PathBuf> {
    static OURS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    // The second disk is the boot partition here and no U-Boot environment.
    let config = r#"env = "/none"
[root]
timeout = 20
[boot]
device = "LABEL=otaboot"
[recovery]
reboot_after = 1
"#;
    let made = OURS.get_or_init(|| {
        initramfs_with(Machine::Amd64, "x86_64-cuts", &MODULES, config).map_err(|fault| fault.to_string())
    });
    made.clone().map_err(Fault::new)
}

/// Debian 12's `ostree-prepare-root`, 2022.7, with its libraries and busybox.
fn theirs() -> Outcome<PathBuf> {
    static THEIRS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    THEIRS.get_or_init(|| build_theirs().map_err(|fault| fault.to_string())).clone().map_err(Fault::new)
}

fn build_theirs() -> Outcome<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/prepare-oracle.sh");
    run(as_root(script).arg("bookworm").arg(lab()))?;
    let (tree, kernel) = (empty_dir("cuts-peer")?, kernel(Machine::Amd64)?);
    let module = kernel.tree.join("lib/modules").join(&kernel.release);
    let module = module.join("kernel/drivers/block/virtio_blk.ko.xz");
    let output = lab().join("initramfs/x86_64-prepare-root.img");
    write(&tree.join("init"), PEER)?;
    let script = "set -e; cd \"$1\"; mkdir -p bin proc sysfs devtmpfs dev sysroot run; ln -s sysfs sys
         cp -a \"$2\"/usr \"$2\"/lib \"$2\"/lib64 .; cp /bin/busybox bin; xz -dc \"$3\" >virtio_blk.ko; chmod 755 init
         find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >\"$4\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).args([&tree, &lab().join("prepare-oracle-bookworm"), &module, &output]);
    run(&mut shell)?;
    Ok(output)
}

/// The scene: the same disk with libostree's initramfs, which finds no root, and with ours.
///
/// # Errors
/// When either does anything else.
pub fn rescue(live: bool) -> Outcome<String> {
    if live {
        println!("The power-cut laboratory records an update and looks for the state: about a minute.\n");
    }
    let state = State::of(STALE)?;
    if live {
        println!("State {} of {UPDATE}. First libostree's own initramfs:\n", state.id);
    }
    dies(&mut state.machine(SCENE, System::PrepareRoot, live)?.start()?)?;
    if live {
        println!("\nThe same disk with bootward:\n");
    }
    let mut vm = state.machine(SCENE, System::Bootward, live)?.start()?;
    let version = comes_up(&mut vm, System::Bootward)?;
    let mut said =
        vm.transcript().lines().filter_map(|line| Some(line.split_once("bootward: ")?.1.to_string()));
    let Some(note) = said.find(|said| said.contains("leads nowhere; it was meant for")) else {
        return Err(vm.failure("bootward does not say that ostree= leads nowhere"));
    };
    vm.expect_end(ANSWER)?;
    Ok(format!("ostree-prepare-root: dead, no root; bootward: version {version}, whole: {}", note.trim()))
}

/// The disk of the scene with bootward's initramfs, and the console left to whoever types.
///
/// # Errors
/// When it cannot be made.
pub fn machine(live: bool) -> Outcome<Setup> {
    let setup = State::of(STALE)?.machine(SCENE, System::Bootward, live)?;
    Ok(Setup { command_line: setup.command_line.replace("lab.machine", "lab.shell"), ..setup })
}

/// A state of each kind with each initramfs, in a machine: it must be as in the laboratory.
///
/// # Errors
/// When an outcome differs, with all that differ.
pub fn agree() -> Outcome<Vec<String>> {
    let mut lines = Vec::new();
    let mut faults = Vec::new();
    for kind in KINDS {
        let state = &State::of(kind)?;
        // Two machines at a time.
        let outcomes = std::thread::scope(|scope| {
            let boots = [System::Bootward, System::PrepareRoot];
            let boots = boots.map(|system| (system, scope.spawn(move || agrees(state, kind, system))));
            boots.map(|(system, boot)| (system, boot.join()))
        });
        for (system, outcome) in outcomes {
            let what = format!("{kind} ({}), {}", state.id, system.name());
            match outcome {
                Ok(Ok(said)) => lines.push(format!("{what}: {said}")),
                Ok(Err(fault)) => faults.push(format!("{what}: {fault}")),
                Err(_) => faults.push(format!("{what}: the laboratory itself failed")),
            }
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(Fault::new(faults.join("\n\n"))) }
}

fn agrees(state: &State, kind: &str, system: System) -> Outcome<String> {
    let mut vm = state.machine(&format!("cut-{kind}"), system, false)?.start()?;
    let expected = state.expected(system);
    if expected == "dead" {
        dies(&mut vm)?;
        return Ok("dead".into());
    }
    let version = comes_up(&mut vm, system)?;
    if version != expected {
        return Err(vm.failure(&format!("version {version} came up; {expected} in the power-cut laboratory")));
    }
    vm.expect_end(ANSWER)?;
    Ok(format!("version {version}, whole"))
}

/// libostree's initramfs finds no root and gives up, and the kernel with it.
fn dies(vm: &mut Vm) -> Outcome<()> {
    vm.expect(LOST, BOOT)?;
    vm.expect(PANIC, ANSWER)?;
    vm.expect_end(ANSWER)
}

/// A deployment comes up, by bootward's decision where it is there, and finds its files whole. Its version.
fn comes_up(vm: &mut Vm, system: System) -> Outcome<String> {
    if system == System::Bootward {
        vm.expect("bootward: decision: ", BOOT)?;
    }
    let up = vm.expect_line(UP, BOOT)?;
    let version = up.split(' ').next().unwrap_or_default().to_string();
    vm.expect(&format!("{WHOLE}{version} is as it was committed"), BOOT)?;
    Ok(version)
}
