//! `bootward status` and `bootward decide`: what is there, and what would be booted next and why.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::ledger::Limits;
use crate::mounts::booted::Booted;
use crate::observe::{Observation, Sources, observe};
use crate::policy::{Action, BootState, Reading, decide};
use crate::sysroot::{Machine, Sysroot};

use super::options::{Known, Options};

const STATUS_HELP: &str = "\
Usage: bootward status [--json] [--sysroot DIR] [--boot DIR]
                       [--env-config FILE]

Shows the deployments in boot order, each with its verdict, the bootloader's
variables, and what would be booted next and why. Changes nothing.

  --json             one JSON object, for programs
  --sysroot DIR      the physical root (default /sysroot)
  --boot DIR         the boot directory (default DIR/boot of the sysroot)
  --env-config FILE  fw_env.config (default /etc/fw_env.config)

Exit codes: 0 shown, 1 the sysroot cannot be read, 2 wrong command line.
";

const DECIDE_HELP: &str = "\
Usage: bootward decide [--json] --sysroot DIR [--boot DIR] [--env-config FILE]
                       [--cmdline STRING] [--release REL] [--machine ARCH]
                       [--limit N]

Says what the guardian would do with a sysroot, an environment and a kernel
command line, and why: a dry run that works on any machine. Changes nothing.

  --json             one JSON object, for programs
  --sysroot DIR      the physical root, for example a mounted disk image
  --boot DIR         the boot directory (default DIR/boot of the sysroot)
  --env-config FILE  fw_env.config (default: no U-Boot environment)
  --cmdline STRING   the kernel command line (default: empty)
  --release REL      release of the running kernel (default: the first
                     deployment's own, as after a normal boot)
  --machine ARCH     machine of the device: x86_64, aarch64, arm or riscv64
                     (default: this machine's)
  --limit N          attempts that an unconfirmed first deployment may take
                     (default 0: the bootloader counts)

Exit codes: 0 a deployment would be booted, 1 the sysroot cannot be read,
2 wrong command line, 3 recovery.
";

/// `decide` found that recovery would follow.
const RECOVERY: u8 = 3;

pub(super) const JSON: Known = Known { name: "--json", value: false };
pub(super) const SYSROOT: Known = Known { name: "--sysroot", value: true };
pub(super) const BOOT: Known = Known { name: "--boot", value: true };
const ENV_CONFIG: Known = Known { name: "--env-config", value: true };
const CMDLINE: Known = Known { name: "--cmdline", value: true };
const RELEASE: Known = Known { name: "--release", value: true };
const MACHINE: Known = Known { name: "--machine", value: true };
const LIMIT: Known = Known { name: "--limit", value: true };

/// Runs `bootward status`.
pub fn status(arguments: &[String]) -> ExitCode {
    let options = match Options::read(arguments, &[JSON, SYSROOT, BOOT, ENV_CONFIG], STATUS_HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let place = match Place::of(&options, "/sysroot") {
        Ok(place) => place,
        Err(code) => return code,
    };
    let config = Path::new(options.value(ENV_CONFIG.name).unwrap_or("/etc/fw_env.config"));
    let mut observation = observe(&Sources {
        sysroot: &place.sysroot,
        boot: &place.boot,
        env_config: Some(config),
        env_remount: false,
        // This boot's command line says nothing of the next one's, and neither does its kernel: the bootloader
        // will start an entry's own.
        command_line: "",
        init: None,
        release: "",
        machine: Machine::native(),
        limits: Limits::default(),
        kexec: false,
        power_lost: false,
    });
    let second = observation.facts.state.rollback == Reading::Value(true);
    let entry = usize::from(second && observation.facts.candidates.len() > 1);
    observation.facts.named = (!observation.facts.candidates.is_empty()).then_some(entry);
    show(&observation, &place.sysroot, booted(&observation.sysroot), options.has(JSON.name));
    ExitCode::SUCCESS
}

/// Runs `bootward decide`.
pub fn dry_run(arguments: &[String]) -> ExitCode {
    let known = [JSON, SYSROOT, BOOT, ENV_CONFIG, CMDLINE, RELEASE, MACHINE, LIMIT];
    let options = match Options::read(arguments, &known, DECIDE_HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    if !options.has(SYSROOT.name) {
        return super::options::usage("decide needs --sysroot DIR");
    }
    let machine = match options.value(MACHINE.name).map(Machine::parse) {
        None => Machine::native(),
        Some(Some(machine)) => machine,
        Some(None) => return super::options::usage("--machine takes x86_64, aarch64, arm or riscv64"),
    };
    let limit = match options.value(LIMIT.name).map(str::parse) {
        None => 0,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return super::options::usage("--limit takes a number"),
    };
    let place = match Place::of(&options, "") {
        Ok(place) => place,
        Err(code) => return code,
    };
    let mut sources = Sources {
        sysroot: &place.sysroot,
        boot: &place.boot,
        env_config: options.value(ENV_CONFIG.name).map(Path::new),
        env_remount: false,
        command_line: options.value(CMDLINE.name).unwrap_or(""),
        init: None,
        release: options.value(RELEASE.name).unwrap_or(""),
        machine,
        limits: Limits { limit, ..Limits::default() },
        kexec: false,
        power_lost: false,
    };
    let mut observation = observe(&sources);
    let own = observation.sysroot.deployments.first().and_then(|d| d.releases.first().cloned());
    if let (None, Some(own)) = (options.value(RELEASE.name), own) {
        sources.release = &own;
        observation = observe(&sources);
    }
    show(&observation, &place.sysroot, None, options.has(JSON.name));
    match decide(&observation.facts).action {
        Action::Boot { .. } => ExitCode::SUCCESS,
        Action::Recovery => ExitCode::from(RECOVERY),
    }
}

/// Where the sysroot is that a verb was asked about.
pub(super) struct Place {
    pub(super) sysroot: PathBuf,
    pub(super) boot: PathBuf,
}

impl Place {
    /// By the options [`SYSROOT`] and [`BOOT`]. Where there is no sysroot, that was said.
    pub(super) fn of(options: &Options, default: &str) -> Result<Self, ExitCode> {
        let sysroot = PathBuf::from(options.value(SYSROOT.name).unwrap_or(default));
        if !sysroot.join("ostree").is_dir() {
            eprintln!("bootward: {} is no OSTree sysroot: it has no ostree directory", sysroot.display());
            return Err(ExitCode::from(super::FAILED));
        }
        let boot = options.value(BOOT.name).map_or_else(|| sysroot.join("boot"), PathBuf::from);
        Ok(Place { sysroot, boot })
    }
}

/// The deployment that is running, by what the initramfs left in `/run/ostree-booted`.
pub(super) fn booted(sysroot: &Sysroot) -> Option<usize> {
    sysroot.with_identity(Booted::read(Path::new("/"))?.device_inode?)
}

#[derive(Serialize)]
struct Report<'a> {
    deployments: Vec<DeploymentReport<'a>>,
    boot_state: StateReport,
    environment: &'a str,
    decision: DecisionReport,
    #[cfg(feature = "recovery")]
    drill: Option<super::recover::DrillReport>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct DeploymentReport<'a> {
    index: usize,
    stateroot: &'a str,
    commit: &'a str,
    deploy_serial: u32,
    booted: bool,
    title: Option<&'a str>,
    refspec: Option<&'a str>,
    bootable: bool,
    fault: Option<String>,
    kernel_releases: &'a [String],
}

/// A variable: `null` absent, a number, or the word `corrupt`.
#[derive(Serialize)]
#[serde(untagged)]
enum Variable {
    Number(u32),
    Word(&'static str),
}

#[derive(Serialize)]
struct StateReport {
    rollback: Option<Variable>,
    upgrade_available: Option<Variable>,
    bootcount: Option<Variable>,
    bootlimit: Option<Variable>,
}

#[derive(Serialize)]
struct DecisionReport {
    action: &'static str,
    index: Option<usize>,
    order: Vec<usize>,
    reason: String,
}

fn show(observation: &Observation, sysroot: &Path, booted: Option<usize>, json: bool) {
    if json {
        println!("{}", serde_json::to_string(&report(observation, sysroot, booted)).unwrap_or_default());
    } else {
        print!("{}", text(observation, booted));
        #[cfg(feature = "recovery")]
        if let Some(last) = crate::recovery::drill::last(sysroot) {
            println!("{last}");
        }
    }
}

#[cfg_attr(not(feature = "recovery"), expect(unused_variables, reason = "where the drills are told"))]
fn report<'a>(observation: &'a Observation, sysroot: &Path, booted: Option<usize>) -> Report<'a> {
    let decision = decide(&observation.facts);
    let (action, index) = match decision.action {
        Action::Boot { index, .. } => ("boot", Some(index)),
        Action::Recovery => ("recovery", None),
    };
    let deployments = observation.sysroot.deployments.iter().enumerate();
    Report {
        deployments: deployments
            .map(|(index, d)| DeploymentReport {
                index,
                stateroot: &d.stateroot,
                commit: &d.commit,
                deploy_serial: d.deploy_serial,
                booted: booted == Some(index),
                title: d.title.as_deref(),
                refspec: d.refspec.as_deref(),
                bootable: d.verdict.is_ok(),
                fault: d.verdict.as_ref().err().map(ToString::to_string),
                kernel_releases: &d.releases,
            })
            .collect(),
        boot_state: state_report(&observation.facts.state),
        environment: &observation.environment,
        decision: DecisionReport {
            action,
            index,
            order: decision.order.iter().copied().collect(),
            reason: decision.to_string(),
        },
        #[cfg(feature = "recovery")]
        drill: crate::recovery::drill::last(sysroot).map(Into::into),
        notes: &observation.notes,
    }
}

fn state_report(state: &BootState) -> StateReport {
    fn number(reading: Reading<u32>) -> Option<Variable> {
        match reading {
            Reading::Absent => None,
            Reading::Corrupt => Some(Variable::Word("corrupt")),
            Reading::Value(value) => Some(Variable::Number(value)),
        }
    }
    StateReport {
        rollback: number(state.rollback.map(u32::from)),
        upgrade_available: number(state.upgrade_available.map(u32::from)),
        bootcount: number(state.bootcount),
        bootlimit: number(state.bootlimit),
    }
}

fn text(observation: &Observation, booted: Option<usize>) -> String {
    let mut out = String::new();
    for (index, d) in observation.sysroot.deployments.iter().enumerate() {
        let mark = if booted == Some(index) { '*' } else { ' ' };
        out.push_str(&format!("{mark} {index}: {} {}.{}", d.stateroot, d.commit, d.deploy_serial));
        if let Some(title) = &d.title {
            out.push_str(&format!("\n     title: {title}"));
        }
        if let Some(refspec) = &d.refspec {
            out.push_str(&format!("\n     origin: {refspec}"));
        }
        match &d.verdict {
            Ok(()) => out.push_str("\n     bootable\n"),
            Err(fault) => out.push_str(&format!("\n     broken: {fault}\n")),
        }
    }
    if observation.sysroot.deployments.is_empty() {
        out.push_str("no deployment was found\n");
    }
    let state = &observation.facts.state;
    let one = |out: &mut String, name: &str, value: Option<String>| {
        out.push_str(&format!(" {name}={}", value.as_deref().unwrap_or("-")));
    };
    out.push_str(&format!("environment: {}\nboot state:", observation.environment));
    one(&mut out, "rollback", word(state.rollback.map(u32::from)));
    one(&mut out, "upgrade_available", word(state.upgrade_available.map(u32::from)));
    one(&mut out, "bootcount", word(state.bootcount));
    one(&mut out, "bootlimit", word(state.bootlimit));
    out.push_str(&format!("\nnext boot: {}\n", decide(&observation.facts)));
    for note in &observation.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}

fn word(reading: Reading<u32>) -> Option<String> {
    match reading {
        Reading::Absent => None,
        Reading::Corrupt => Some("corrupt".to_string()),
        Reading::Value(value) => Some(value.to_string()),
    }
}
