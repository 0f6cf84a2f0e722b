//! `bootward prepare-root`: a drop-in for ostree-prepare-root.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use super::FAILED;
use super::options::{self, Known, Options};
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
    let known = [Known { name: "--dry-run", value: false }, Known { name: "--bind-boot", value: false }];
    let options = match Options::read(arguments, &known, HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let (sysroot, cmdline) = match options.rest.as_slice() {
        [sysroot] => (sysroot, None),
        [sysroot, cmdline] => (sysroot, Some(cmdline.as_str())),
        _ => return options::usage("prepare-root takes SYSROOT and perhaps CMDLINE"),
    };
    let caller = Caller::DropIn { bind_boot: options.has("--bind-boot") };
    match prepare(Path::new(sysroot), cmdline, caller, options.has("--dry-run")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bootward: prepare-root: {reason}");
            ExitCode::from(FAILED)
        }
    }
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
    // Nobody is left who could want to undo it; and the kernel takes all memory back faster than it could be freed.
    let _applied = apply(&plan).map_err(|e| e.to_string())?;
    std::process::exit(0)
}
