//! Stage 2: the physical root, and the partitions of `/boot` and of the environment where they have their own.

use std::path::Path;
use std::time::Duration;

use log::{info, warn};
use nix::mount::{MntFlags, umount2};

use crate::block::find::{Places, find};
use crate::block::root::{Options, mount_device};
use crate::block::spec::{RootSpec, SpecError};
use crate::cmdline::CommandLine;

use super::{BOOT, Boot, FIRMWARE, HEARTBEAT, SYSROOT};

/// Seconds that `rootdelay=` may ask for at most.
const DELAY_MAX: u64 = 600;

/// Finds and mounts the root.
pub fn mount(boot: &mut Boot) -> Result<(), String> {
    let command_line = boot.command_line.clone();
    let command_line = CommandLine::parse(&command_line);
    let spec = spec(&command_line, boot.config.root_device.as_str()).map_err(|e| e.to_string())?;
    let delay = command_line.value("rootdelay").and_then(|d| d.parse().ok()).unwrap_or(0);
    if delay > 0 {
        std::thread::sleep(Duration::from_secs(delay.min(DELAY_MAX)));
    }
    let fstype = boot.config.root_fstype.clone();
    let flags = boot.config.root_flags.clone();
    // The kernel's own rule: of `ro` and `rw` the last one counts. Without either it is mounted writable.
    let last = command_line.arguments().filter(|a| a.value.is_none() && (a.is("ro") || a.is("rw"))).last();
    let options = Options {
        fstype: command_line.value("rootfstype").unwrap_or(&fstype),
        flags: command_line.value("rootflags").unwrap_or(&flags),
        read_only: last.is_some_and(|a| a.is("ro")),
    };
    mount_one(boot, &spec, Path::new(SYSROOT), &options)?;
    // Without them the deployments on the root still boot, in an order of their own.
    let (device, fstype) = (boot.config.boot_device.clone(), boot.config.boot_fstype.clone());
    mount_beside(boot, "boot", &device, &fstype, BOOT);
    let (device, fstype) = (boot.config.firmware_device.clone(), boot.config.firmware_fstype.clone());
    mount_beside(boot, "firmware", &device, &fstype, FIRMWARE);
    Ok(())
}

/// How the root is named and mounted, for recovery.
#[cfg(feature = "recovery")]
pub fn named(boot: &Boot) -> crate::recovery::mend::Named {
    let command_line = CommandLine::parse(&boot.command_line);
    let or = |name: &str, own: &str| command_line.value(name).unwrap_or(own).to_string();
    crate::recovery::mend::Named {
        device: text(&command_line, boot.config.root_device.as_str()).into(),
        fstype: or("rootfstype", &boot.config.root_fstype),
        flags: or("rootflags", &boot.config.root_flags),
    }
}

/// Mounts a partition that the configuration names beside the root, read-only.
fn mount_beside(boot: &mut Boot, name: &str, device: &str, fstype: &str, target: &str) {
    if device.is_empty() {
        return;
    }
    let options = Options { fstype, flags: "nosuid,nodev,noexec", read_only: true };
    let mounted = RootSpec::parse(device)
        .map_err(|e| e.to_string())
        .and_then(|spec| mount_one(boot, &spec, Path::new(target), &options));
    if let Err(e) = mounted {
        warn!("the {name} partition is not there, going on without: {e}");
    }
}

/// Takes both away again, for the next try or before the hand-over.
pub fn unmount() {
    unmount_beside();
    if let Err(e) = umount2(SYSROOT, MntFlags::MNT_DETACH) {
        warn!("{SYSROOT} stays mounted: {e}");
    }
}

/// Takes the partitions beside the root away; the OS mounts its own.
pub fn unmount_beside() {
    for target in [BOOT, FIRMWARE] {
        // EINVAL: none is mounted.
        let _ = umount2(target, MntFlags::MNT_DETACH);
    }
}

/// `ostree_root=`, else `root=`, else the configuration's; a ram disk is no root.
fn spec(command_line: &CommandLine<'_>, default: &str) -> Result<RootSpec, SpecError> {
    RootSpec::parse(text(command_line, default))
}

fn text<'a>(command_line: &CommandLine<'a>, default: &'a str) -> &'a str {
    let given = [command_line.value("ostree_root"), command_line.value("root"), Some(default)];
    given.into_iter().flatten().find(|t| !t.is_empty() && !t.starts_with("/dev/ram")).unwrap_or("")
}

fn mount_one(boot: &mut Boot, spec: &RootSpec, target: &Path, options: &Options<'_>) -> Result<(), String> {
    let patience = Duration::from_secs(u64::from(boot.config.root_timeout));
    let mut waiting = false;
    let device = find(spec, &Places::default(), patience, HEARTBEAT, || {
        if !waiting {
            info!("waiting for {spec}");
            waiting = true;
        }
        boot.alive();
    })
    .map_err(|e| e.to_string())?;
    let _ = std::fs::create_dir_all(target);
    mount_device(&device, target, options).map_err(|e| e.to_string())?;
    info!("{spec} is {}, mounted at {}", device.node.display(), target.display());
    Ok(())
}
