//! `bootward prepare-root`: a drop-in for ostree-prepare-root.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use super::{FAILED, USAGE};
use crate::mounts::apply::apply;
use crate::mounts::survey::{Caller, resolve, survey};

const HELP: &str = "\
Makes the deployment that ostree= names the root, as ostree-prepare-root does.

Usage: bootward prepare-root [--dry-run] [--bind-boot] SYSROOT [CMDLINE]

  SYSROOT       the mount point of the physical root
  CMDLINE       instead of /proc/cmdline
  --dry-run     print the mount plan and change nothing
  --bind-boot   bind /boot too, as ostree-prepare-root did until v2025.7

Exit codes: 0 done; 1 failed, nothing was changed; 2 wrong command line.
";

/// Runs the verb.
pub fn run(arguments: &[String]) -> ExitCode {
    let (mut dry_run, mut bind_boot) = (false, false);
    let mut places: Vec<&str> = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            "--dry-run" => dry_run = true,
            "--bind-boot" => bind_boot = true,
            option if option.starts_with("--") => return usage(),
            place => places.push(place),
        }
    }
    let (sysroot, cmdline) = match places.as_slice() {
        [sysroot] => (*sysroot, None),
        [sysroot, cmdline] => (*sysroot, Some(*cmdline)),
        _ => return usage(),
    };
    match prepare(Path::new(sysroot), cmdline, Caller::DropIn { bind_boot }, dry_run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bootward: prepare-root: {reason}");
            ExitCode::from(FAILED)
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{HELP}");
    ExitCode::from(USAGE)
}

fn prepare(sysroot: &Path, cmdline: Option<&str>, caller: Caller, dry_run: bool) -> Result<(), String> {
    let cmdline = match cmdline {
        Some(cmdline) => cmdline.into(),
        None => fs::read_to_string("/proc/cmdline").map_err(|e| format!("/proc/cmdline: {e}"))?,
    };
    let deployment = resolve(sysroot, &cmdline).map_err(|e| e.to_string())?;
    let plan = survey(Path::new("/"), sysroot, &deployment, &cmdline, caller).map_err(|e| e.to_string())?;
    if dry_run {
        print!("{plan}");
        return Ok(());
    }
    // The process ends here: nobody is left who could want to undo it.
    apply(&plan).map(drop).map_err(|e| e.to_string())
}
