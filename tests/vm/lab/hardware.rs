//! Scenes that need more than a damaged root: a watchdog, a root that never comes or is read-only, a boot
//! partition.

use super::Outcome;
use super::fixture::{Disks, Env, disks, small_sysroot};
use super::guardian::{MODULES, initramfs_with};
use super::scenes::{ANSWER, BOOT, named};
use super::tools::{as_root, run};
use super::vm::{Machine, Setup};

/// Seconds until the watchdog ends the machine.
const WATCHDOG: u64 = 10;

/// A watchdog is armed before the root is looked for, and is still armed, and open, in the system that runs
/// then: left alone, it ends the machine.
///
/// # Errors
/// When anything else happens.
pub fn watchdog() -> Outcome<String> {
    let mut modules = MODULES.to_vec();
    modules.insert(0, "i6300esb");
    let config = format!("[watchdog]\ndevice = \"/dev/watchdog0\"\ntimeout = {WATCHDOG}\n");
    let initramfs = initramfs_with(Machine::Arm64, "aarch64-watchdog", &modules, &config)?;
    let extra = ["-device", "i6300esb", "-action", "watchdog=poweroff"].map(String::from).to_vec();
    let normal = named("normal")?.prepare_as("watchdog", false)?;
    let mut vm = Setup { initramfs, extra, ..normal }.start()?;
    let armed = vm.expect_line("bootward: watchdog ", BOOT)?;
    vm.expect("[os] up: 2", BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("ls -l /proc/1/fd; echo open-$((1+1))")?;
    let open = vm.expect("open-2", ANSWER)?;
    if !open.contains("/dev/watchdog0") {
        return Err(vm.failure("the init does not have the watchdog open"));
    }
    // Nobody feeds it from here on.
    vm.expect_end(4 * WATCHDOG)?;
    Ok(format!("watchdog {armed}; it was handed over open and armed, and ended the machine that nobody fed"))
}

/// A root that never appears: recovery says what is there instead, and restarts when nobody types.
///
/// # Errors
/// When anything else happens.
pub fn missing_root() -> Outcome<String> {
    let config = "[root]\ntimeout = 5\n\n[recovery]\nreboot_after = 5\n";
    let initramfs = initramfs_with(Machine::Arm64, "aarch64-hasty", &MODULES, config)?;
    let normal = named("normal")?.prepare_as("missing-root", false)?;
    let command_line = "console=ttyAMA0 root=LABEL=nowhere rootwait panic=-1".to_string();
    let mut vm = Setup { initramfs, command_line, ..normal }.start()?;
    let why = vm.expect_line("bootward: recovery: ", BOOT)?;
    if !why.contains("LABEL=nowhere did not appear within 5 s") {
        return Err(vm.failure("recovery does not say what it waited for"));
    }
    // And what there is, on a line of its own.
    vm.expect("/dev/vda(ext4 LABEL=otaroot", ANSWER)?;
    vm.expect("bootward> ", ANSWER)?;
    vm.expect("nobody typed anything: restarting now", ANSWER)?;
    vm.expect_end(ANSWER)?;
    Ok(format!("recovery: {why}; it restarted when nobody typed"))
}

/// With `ro` the root stays read-only, and the attempt is in the ledger all the same.
///
/// # Errors
/// When anything else happens.
pub fn read_only_root() -> Outcome<String> {
    let normal = named("normal")?.prepare_as("read-only-root", false)?;
    let command_line = normal.command_line.replace(" rw ", " ro ");
    let mut vm = Setup { command_line, ..normal }.start()?;
    vm.expect("[os] up: 2", BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("bootward log; touch /var/x; echo log-$((1+1))")?;
    let log = vm.expect("log-2", ANSWER)?;
    if !log.contains(" booting ") || !log.contains("Read-only file system") {
        return Err(vm.failure("the attempt is not in the ledger, or the root became writable"));
    }
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    Ok("the root stayed read-only and the ledger has the attempt".to_string())
}

/// The boot entries on a partition of their own are read, and the partition is let go before the hand-over.
///
/// # Errors
/// When anything else happens.
pub fn boot_partition() -> Outcome<String> {
    let config = "[boot]\ndevice = \"LABEL=bootfs\"\n";
    let initramfs = initramfs_with(Machine::Arm64, "aarch64-boot", &MODULES, config)?;
    let normal = named("normal")?.prepare_as("boot-partition", false)?;
    let moved = "mv boot ../bootfs; mkdir boot";
    let Disks { mut images, options } =
        disks("boot-partition", &small_sysroot()?, moved, Env::Pair("rollback=0"), 96)?;
    let image = super::tools::lab().join("boot-partition.img");
    let from = super::tools::lab().join("run/boot-partition/bootfs");
    let mut mke2fs = as_root("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "bootfs", "-d"]);
    run(mke2fs.arg(from).arg(&image).arg("16M"))?;
    images.push(image);
    let mut vm = Setup { initramfs, command_line: options, disks: images, ..normal }.start()?;
    vm.expect("bootward: LABEL=bootfs is /dev/vdc, mounted at /boot", BOOT)?;
    // Only an entry has a title.
    vm.expect("\"Lab 2 (ostree:0)\"", BOOT)?;
    vm.expect("[os] up: 2", BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("grep -c vdc /proc/mounts; echo mounts-$((1+1))")?;
    if !vm.expect("mounts-2", ANSWER)?.contains("\n0") {
        return Err(vm.failure("the boot partition is still mounted after the hand-over"));
    }
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    Ok("the entries were read from the boot partition, which was let go".to_string())
}

/// Recovery is asked for on the command line; at its prompt the ledger is read and a deployment chosen.
///
/// # Errors
/// When anything else happens.
pub fn console() -> Outcome<String> {
    let normal = named("normal")?.prepare_as("console", false)?;
    let command_line = format!("{} bootward.recovery", normal.command_line);
    let mut vm = Setup { command_line, ..normal }.start()?;
    vm.expect("bootward: recovery: the kernel command line asks for recovery", BOOT)?;
    vm.expect("bootward> ", ANSWER)?;
    for (typed, answer) in [
        ("sh", "not a command"),
        ("boot 7", "'boot N' with N from 0 to 1"),
        ("log", "recovery: the kernel command line asks for recovery"),
        ("status", "not tried; nothing is known to be wrong with it"),
    ] {
        vm.type_line(typed)?;
        // The console breaks a long sentence at a space, wherever the line ends.
        for word in answer.split(' ') {
            vm.expect(word, ANSWER)?;
        }
        vm.expect("bootward> ", ANSWER)?;
    }
    vm.type_line("boot 1")?;
    vm.expect("[os] up: 1", BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("bootward log; echo log-$((1+1))")?;
    if !vm.expect("log-2", ANSWER)?.contains("someone at the console chose it") {
        return Err(vm.failure("the ledger does not say who chose the deployment"));
    }
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    Ok("recovery on request; the ledger was read and deployment 1 booted from the prompt".to_string())
}
