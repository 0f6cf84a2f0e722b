//! Updates on trial, through real U-Boot: each scene is a device whose power is switched on once or more.

use super::Outcome;
use super::board::{Board, Counting, Making};
use super::scenes::{ANSWER, BOOT};
use super::vm::Vm;

/// A device without troubles.
pub const NORMAL: Making = Making {
    name: "uboot-normal",
    counting: Counting::Script,
    state: Some("bootcount=0 bootlimit=2 rollback=0 upgrade_available=0"),
    damage: "",
    watchdog: false,
    rescue: false,
    live: false,
};

/// The newest deployment boots, and what it reads and writes is U-Boot's state.
///
/// # Errors
/// When anything else happens.
pub fn normal(making: &Making) -> Outcome<String> {
    let board = making.make()?;
    let mut vm = board.start()?;
    comes_up(&mut vm, "1", "2", "no trouble")?;
    end(&board, &mut vm, &[("rollback", "0"), ("upgrade_available", "0")])?;
    Ok("version 2 booted".to_string())
}

/// `entry` of uEnv.txt is booted, the guardian decides for `reason`, and this version comes up.
fn comes_up(vm: &mut Vm, entry: &str, version: &str, reason: &str) -> Outcome<()> {
    vm.expect(&format!("boot.scr: entry {entry}: /boot/ostree/"), BOOT)?;
    let decision = vm.expect_line("bootward: decision: ", BOOT)?;
    if !decision.contains(reason) {
        return Err(vm.failure(&format!("the guardian decided otherwise: {decision}")));
    }
    let up = vm.expect_line("[os] up: ", BOOT)?;
    if up != version {
        return Err(vm.failure(&format!("version {up} came up and not {version}")));
    }
    Ok(())
}

/// At the prompt: `bootward env` sees what is stored, and `fw_printenv` sees the same once the machine is off.
fn end(board: &Board, vm: &mut Vm, wanted: &[(&str, &str)]) -> Outcome<()> {
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("bootward env print; echo env-$((1+1))")?;
    let seen = vm.expect("env-2", ANSWER)?;
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    let stored = board.stored()?;
    for (name, value) in wanted {
        let line = format!("{name}={value}");
        if !seen.lines().any(|l| l.trim() == line) || !stored.lines().any(|l| l == line) {
            return Err(vm.failure(&format!("{line} is not what is stored: {stored}")));
        }
    }
    Ok(())
}
