//! `bootward confirm`, `reject`, `rollback`, `undeploy` and `repair`.

use std::process::ExitCode;

use serde::Serialize;

use crate::trial::act::{Report, Site, Verb, act};

use super::options::{Known, Options, usage};

const CONFIRM: &str = "\
Usage: bootward confirm [OPTION ...]

The running deployment is healthy: ends its trial (upgrade_available=0,
bootcount=0). After a rollback it also removes the deployment that failed,
remembers its commit as bad, and clears rollback. An update that waits for its
reboot stays. Objects that only a removed deployment needed go with it. What
is out of step (boot links, loader, entries, uEnv.txt, kernels in /boot) is
written anew; what earlier changes left is removed.
";

const REJECT: &str = "\
Usage: bootward reject [OPTION ...] [REASON ...]

The running deployment is not healthy: the next boot is the previous one's
(rollback=1; without a U-Boot environment it becomes the first one), and its
commit is remembered as bad. Where there is no other, or the previous one is
what fails, recovery is asked for. Does not reboot.
";

const ROLLBACK: &str = "\
Usage: bootward rollback [OPTION ...] [INDEX]

Makes another deployment (default: the first bootable one after the first) the
first one to boot. Nothing is removed or remembered as bad. Does not reboot.
A run that was cut short is finished by the next one of the same command; one
that was not is taken back by it.
";

const UNDEPLOY: &str = "\
Usage: bootward undeploy [OPTION ...] INDEX

Removes a deployment, as 'ostree admin undeploy' does. INDEX is the place in
the boot order, as 'bootward status' shows it. Objects that nothing else needs
go with it. A run that was cut short is finished by the same command, although
INDEX is another one's by then.
";

const REPAIR: &str = "\
Usage: bootward repair [OPTION ...]

Writes boot links, loader, boot entries and uEnv.txt anew from the deployments
on disk, and puts kernels back into /boot that are missing or damaged there.
Does nothing where nothing is out of step.
";

const COMMON: &str = "
  --dry-run          say what would be done, do nothing
  --json             one JSON object, for programs
  --sysroot DIR      the physical root (default /sysroot)
  --boot DIR         the boot directory (default /boot, with --sysroot DIR/boot)
  --env-config FILE  fw_env.config (default /etc/fw_env.config, with --sysroot
                     none: the bootloader's variables are left alone)
  --booted INDEX     take this deployment for the running one

A power cut at any point leaves a system that boots; the same command, run
again, finishes.

Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
";

#[derive(Serialize)]
struct Json<'a> {
    dry_run: bool,
    said: &'a [String],
    steps: &'a [String],
    variables: Vec<(&'a str, &'a str)>,
}

/// Runs `bootward confirm`.
pub fn confirm(arguments: &[String]) -> ExitCode {
    run(arguments, CONFIRM, |rest| rest.is_empty().then_some(Verb::Confirm))
}

/// Runs `bootward reject`.
pub fn reject(arguments: &[String]) -> ExitCode {
    run(arguments, REJECT, |rest| {
        let reason = rest.join(" ");
        Some(Verb::Reject(if reason.is_empty() { "its health checks failed".into() } else { reason }))
    })
}

/// Runs `bootward rollback`.
pub fn rollback(arguments: &[String]) -> ExitCode {
    run(arguments, ROLLBACK, |rest| match rest {
        [] => Some(Verb::Rollback(None)),
        [index] => Some(Verb::Rollback(Some(index.parse().ok()?))),
        _ => None,
    })
}

/// Runs `bootward undeploy`.
pub fn undeploy(arguments: &[String]) -> ExitCode {
    run(arguments, UNDEPLOY, |rest| match rest {
        [index] => Some(Verb::Undeploy(index.parse().ok()?)),
        _ => None,
    })
}

/// Runs `bootward repair`.
pub fn repair(arguments: &[String]) -> ExitCode {
    run(arguments, REPAIR, |rest| rest.is_empty().then_some(Verb::Repair))
}

fn run(arguments: &[String], help: &str, verb: impl FnOnce(&[String]) -> Option<Verb>) -> ExitCode {
    let known = [
        Known { name: "--dry-run", value: false },
        Known { name: "--json", value: false },
        Known { name: "--sysroot", value: true },
        Known { name: "--boot", value: true },
        Known { name: "--env-config", value: true },
        Known { name: "--booted", value: true },
    ];
    let options = match Options::read(arguments, &known, &format!("{help}{COMMON}")) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let Some(verb) = verb(&options.rest) else { return usage("that is not what this verb takes") };
    let booted = match options.value("--booted").map(str::parse) {
        None => None,
        Some(Ok(index)) => Some(index),
        Some(Err(_)) => return usage("--booted takes an index"),
    };
    let site = Site { booted_index: booted, ..super::site(&options) };
    let dry_run = options.has("--dry-run");
    match act(&site, &verb, dry_run) {
        Ok(report) => {
            show(&report, dry_run, options.has("--json"));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("bootward: {e}");
            ExitCode::from(super::FAILED)
        }
    }
}

fn show(report: &Report, dry_run: bool, json: bool) {
    if json {
        let variables = report.variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let json = Json { dry_run, said: &report.said, steps: &report.steps, variables };
        println!("{}", serde_json::to_string(&json).unwrap_or_default());
        return;
    }
    for said in &report.said {
        println!("{said}");
    }
    if dry_run {
        for step in &report.steps {
            println!("  would {step}");
        }
    }
}
