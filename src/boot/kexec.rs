//! A deployment's own kernel, started from the one that runs: what the bootloader would have started for it.

use std::path::Path;

use log::info;
use nix::sys::reboot::{RebootMode, reboot};

use crate::cmdline::CommandLine;
use crate::observe::Observation;
use crate::sys::beneath::Beneath;
use crate::sysroot::Deployment;

use super::{Boot, root};

/// What the second kernel's command line has and the first one's has not: once is enough.
pub const ARGUMENT: &str = "bootward.kexec";

/// Whether another kernel may be started from here.
pub fn is_possible(boot: &Boot) -> bool {
    !CommandLine::parse(&boot.command_line).has(ARGUMENT) && crate::sys::kexec::works()
}

/// Starts the deployment's own kernel. Comes back only on failure, with everything as it was before, and says why.
pub fn start(boot: &mut Boot, observation: &Observation, deployment: &Deployment) -> String {
    // The entry that the bootloader started, as far as its ostree= tells.
    let started = observation.facts.named.and_then(|i| observation.sysroot.deployments.get(i));
    match load(boot, started.and_then(|d| d.options.as_deref()), deployment) {
        Ok(()) => {
            info!("starting the kernel of {}", deployment.name());
            root::unmount();
            nix::unistd::sync();
            boot.alive();
            let Err(e) = reboot(RebootMode::RB_KEXEC);
            // The root is gone by now.
            log::error!("the loaded kernel was not started: {e}; restarting");
            super::act::restart()
        }
        Err(why) => why,
    }
}

fn load(boot: &Boot, started: Option<&str>, deployment: &Deployment) -> Result<(), String> {
    let files = &deployment.boot_files;
    let tree = Beneath::open(Path::new(boot.boot_directory())).map_err(|e| e.desc().to_string())?;
    let open = |path: &str| {
        // With bootprefix the entry says /boot/ostree/…, which a link makes the same.
        let file = tree.file(path).or_else(|_| tree.file(path.strip_prefix("/boot").unwrap_or(path)));
        file.map_err(|e| format!("{path}: {}", e.desc()))
    };
    let kernel = open(files.linux.as_deref().ok_or("its boot entry names no kernel")?)?;
    let initramfs = match files.initrds.as_slice() {
        [] => None,
        [one] => Some(open(one)?),
        [..] => return Err("its boot entry names several initramfs images".into()),
    };
    let options = deployment.options.as_deref().ok_or("its boot entry has no arguments")?;
    let line = command_line(&boot.command_line, started, options);
    crate::sys::kexec::load(&kernel, initramfs.as_ref(), &line)
        .map_err(|e| format!("the running kernel does not take its kernel: {}", e.desc()))
}

/// The arguments of the entry, and what the bootloader itself added to those of the entry that it started.
fn command_line(running: &str, started: Option<&str>, wanted: &str) -> String {
    let of_entry: Vec<&str> = started.unwrap_or_default().split_ascii_whitespace().collect();
    let dropped = |argument: &str| {
        let name = argument.split('=').next().unwrap_or_default();
        of_entry.contains(&argument)
            || matches!(name, "ostree" | "BOOT_IMAGE" | "initrd" | "bootward.recovery")
    };
    let added = running.split_ascii_whitespace().take_while(|a| *a != "--").filter(|a| !dropped(a));
    let mut line = String::from(wanted);
    for argument in added.filter(|a| !wanted.split_ascii_whitespace().any(|w| w == *a)) {
        line.push(' ');
        line.push_str(argument);
    }
    line.push(' ');
    line.push_str(ARGUMENT);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bootloader_added_is_carried_over() {
        let running = "quiet root=LABEL=otaroot ostree=/ostree/boot.1/os/a/0 console=ttyS0 ostree_root=/dev/mmcblk0p2 -- x";
        let started = "quiet root=LABEL=otaroot ostree=/ostree/boot.1/os/a/0";
        let wanted = "debug root=LABEL=otaroot ostree=/ostree/boot.1/os/b/0";
        assert_eq!(
            command_line(running, Some(started), wanted),
            format!("{wanted} console=ttyS0 ostree_root=/dev/mmcblk0p2 bootward.kexec")
        );
        assert_eq!(
            command_line("ostree=/ostree/boot.0/os/gone/0 quiet", None, "ostree=/ostree/boot.1/os/b/0"),
            "ostree=/ostree/boot.1/os/b/0 quiet bootward.kexec"
        );
    }
}
