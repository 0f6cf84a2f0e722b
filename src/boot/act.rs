//! Stages 6 and 7, and the other things that the boot does once it is decided.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use log::{error, info, warn};
use nix::sys::reboot::{RebootMode, reboot};

use crate::ledger::{Kind, file};
use crate::mounts::apply::apply;
use crate::mounts::survey::{Caller, survey};
use crate::mounts::switch_root::HandOver;
use crate::observe::Observation;
use crate::policy::Request;
use crate::sys::beneath::Beneath;
use crate::sysroot::{Deployment, Machine, init};
use crate::uboot::env::Edit;
#[cfg(not(feature = "recovery"))]
use crate::uboot::store::RECOVERY;
use crate::uboot::store::Store;

use super::{Boot, FIRMWARE, SYSROOT, root};

/// Prepares the deployment's root and runs its init. Comes back only on failure, with everything as it was
/// before, and says why.
pub fn hand_over(boot: &mut Boot, deployment: &Deployment) -> String {
    let sysroot = Path::new(SYSROOT);
    let path = deployment.path();
    let plan = match survey(Path::new("/"), sysroot, &path, &boot.command_line, Caller::Init) {
        Ok(plan) => plan,
        Err(e) => return format!("its root cannot be planned: {e}"),
    };
    if let Err(why) = super::trust::allows(boot, &plan) {
        return why;
    }
    let applied = match apply(&plan) {
        Ok(applied) => applied,
        Err(e) => return format!("its root cannot be prepared: {e}"),
    };
    let failed = match checked(boot) {
        Ok((hand_over, init)) => {
            info!("handing over to {init} in {path}");
            root::unmount_beside();
            boot.alive();
            let error = hand_over.commit(&arguments(&init), &environment());
            if error.is_final() {
                // The rehearsal makes this all but impossible. The root is the deployment by now, and its
                // /sysroot the physical root.
                boot.diary.note(Kind::Failed, deployment.id(), &error.to_string());
                boot.diary.write(sysroot);
                error!("{error}; restarting");
                std::thread::sleep(super::HEARTBEAT);
                restart();
            }
            error.to_string()
        }
        Err(why) => why,
    };
    if let Err(e) = applied.undo() {
        error!("the prepared root could not be taken back: {e}");
    }
    failed
}

/// Everything is checked here, in the root as it was prepared, before anything is given up.
fn checked(boot: &Boot) -> Result<(HandOver, String), String> {
    let sysroot = Path::new(SYSROOT);
    let tree =
        Beneath::open(sysroot).map_err(|e| format!("the prepared root cannot be opened: {}", e.desc()))?;
    let init = init::find(&tree, boot.init(), Machine::native()).map_err(|e| e.to_string())?;
    let hand_over = HandOver::check(sysroot, &init).map_err(|e| e.to_string())?;
    Ok((hand_over, init))
}

/// The init under its own name, with the arguments that the kernel gave us for it.
fn arguments(init: &str) -> Vec<CString> {
    let given = std::env::args_os().skip(1).filter_map(|a| CString::new(a.into_vec()).ok());
    CString::new(init).into_iter().chain(given).collect()
}

fn environment() -> Vec<CString> {
    let pairs = std::env::vars_os().map(|(name, value)| {
        let mut pair = name.into_vec();
        pair.push(b'=');
        pair.extend(value.into_vec());
        pair
    });
    pairs.filter_map(|pair| CString::new(pair).ok()).collect()
}

/// Asks the bootloader for its second entry and restarts. Comes back only on failure, and says why.
pub fn ask_loader(boot: &Boot) -> String {
    let edit = Edit { name: b"rollback", value: Some(b"1") };
    match change_environment(boot, &edit) {
        Ok(()) => {
            info!("the bootloader is asked for its second entry, restarting");
            restart();
        }
        Err(e) => format!("the bootloader cannot be asked for it: {e}"),
    }
}

/// An operator's request in the environment or on the root holds once: it is taken away before recovery begins.
#[cfg(feature = "recovery")]
pub fn consume_request(boot: &Boot, observation: &Observation) {
    let lasting = [None, Some(Request::CommandLine), Some(Request::Console)];
    if !lasting.contains(&observation.facts.request)
        && let Err(why) = super::request::consume(boot)
    {
        warn!("{why}");
    }
}

/// An operator's request in the environment holds once: it is taken away before recovery begins.
#[cfg(not(feature = "recovery"))]
pub fn consume_request(boot: &Boot, observation: &Observation) {
    if observation.facts.request == Some(Request::Environment) {
        let edit = Edit { name: RECOVERY, value: None };
        if let Err(e) = change_environment(boot, &edit) {
            warn!("bootward_recovery stays set in the environment: {e}");
        }
    }
}

/// Changes one variable of the bootloader's environment.
pub fn change_environment(boot: &Boot, edit: &Edit<'_>) -> Result<(), String> {
    let config = Path::new(boot.config.env.as_str());
    let change = || {
        Store::open(config)
            .and_then(|mut store| store.save(std::slice::from_ref(edit)))
            .map_err(|e| e.to_string())
    };
    if boot.config.firmware_device.is_empty() {
        return change();
    }
    crate::ledger::diary::while_writable(Path::new(FIRMWARE), change)
}

/// The ledger in sentences, for the recovery console.
pub fn print_ledger(sysroot: &Path, line: &mut dyn FnMut(&str)) {
    let told = file::open(sysroot).and_then(|mut ring| ring.each(|r| line(&crate::cli::log::sentence(r))));
    if let Err(e) = told {
        line(&format!("there is no ledger to read: {e}"));
    }
}

/// Restarts the device, by every way there is.
pub fn restart() -> ! {
    end(RebootMode::RB_AUTOBOOT, "b")
}

/// Switches the device off.
pub fn power_off() -> ! {
    end(RebootMode::RB_POWER_OFF, "o")
}

fn end(mode: RebootMode, sysrq: &str) -> ! {
    nix::unistd::sync();
    loop {
        let Err(e) = reboot(mode);
        error!("reboot: {e}");
        let _ = std::fs::write("/proc/sysrq-trigger", sysrq);
        std::thread::sleep(super::HEARTBEAT);
    }
}
