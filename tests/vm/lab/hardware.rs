//! Scenes that need more than disks: a watchdog, and a root that never comes.

use super::Outcome;
use super::guardian::{MODULES, initramfs_with};
use super::scenes::{ANSWER, BOOT, named};
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
    vm.type_line("readlink /proc/1/fd/*; echo open-$((1+1))")?;
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
    for needed in ["LABEL=nowhere did not appear within 5 s", "/dev/vda(ext4 LABEL=otaroot"] {
        if !why.contains(needed) {
            return Err(vm.failure(&format!("recovery does not say '{needed}'")));
        }
    }
    vm.expect("bootward> ", ANSWER)?;
    vm.expect("nobody typed anything: restarting now", ANSWER)?;
    vm.expect_end(ANSWER)?;
    Ok(format!("recovery: {why}; it restarted when nobody typed"))
}
