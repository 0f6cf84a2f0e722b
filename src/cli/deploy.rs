//! `bootward deploy` and `bootward init-fs`.

use std::io::IsTerminal;
use std::process::ExitCode;

use serde::Serialize;

use crate::deploy::act::{self, Error, Progress, Report};
use crate::deploy::kargs::Edits;
use crate::deploy::prepare::Options as Asked;
use crate::ostree::Commit;
use crate::ostree::keyring::{self, Source};
use crate::sys::time;

use super::options::{Known, Options, usage};

const DEPLOY: &str = "\
Usage: bootward deploy [OPTION ...] --stateroot OS REF|COMMIT

Makes a commit of the sysroot's repository the first deployment to boot, as
'ostree admin deploy' does: hard links to its objects, /etc merged from the
running deployment (else the first one), kernel in /boot, boot entries and
uEnv.txt. What was made is held against the commit's checksums before it can
boot. The running, the merged, the pinned and one confirmed deployment stay.

  --stateroot OS       the stateroot (default: the running one's)
  --karg NAME=VALUE    set a kernel argument in place of all of its name
  --karg-append ARG    add a kernel argument
  --karg-delete ARG    remove one that is there just so
  --karg-none          begin without the old deployment's arguments
  --no-merge           take neither /etc nor arguments over
  --pristine-etc       take the arguments over, and nothing of /etc
  --origin REFSPEC     what the deployment follows (default: REF)
  --retain             remove no deployment
  --no-prune           leave objects that nothing needs
  --trial              count its boots: upgrade_available=1, bootcount=0,
                       rollback=0 in the U-Boot environment
  --keys FILE          trusted ed25519 keys: one must have signed the commit; in a
                       build with the feature 'gpg' also OpenPGP certificates
  --force              deploy a commit that failed on this device
";

const INIT: &str = "\
Usage: bootward init-fs --sysroot DIR --stateroot OS [--bootloader uboot]

Makes a sysroot of an empty filesystem, as 'ostree admin init-fs --modern' and
'ostree admin os-init' do. With --bootloader uboot also boot/loader with an
empty uEnv.txt, by which libostree and bootward know that one is to be written.
What is there already stays.
";

const COMMON: &str = "
  --dry-run            say what would be done, do nothing
  --json               one JSON object, for programs
  --sysroot DIR        the physical root (default /sysroot)
  --boot DIR           the boot directory (default /boot, with --sysroot DIR/boot)
  --env-config FILE    fw_env.config (default /etc/fw_env.config, with --sysroot
                       none: the bootloader's variables are left alone)

A power cut at any point leaves a system that boots; the same command, run
again, finishes.

Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
";

#[derive(Serialize)]
struct Json<'a> {
    dry_run: bool,
    deployment: &'a str,
    said: &'a [String],
    steps: &'a [String],
    variables: Vec<(&'a str, &'a str)>,
    pruned_objects: usize,
    pruned_bytes: u64,
}

const COMMON_OPTIONS: [Known; 6] = [
    Known { name: "--dry-run", value: false },
    Known { name: "--json", value: false },
    Known { name: "--sysroot", value: true },
    Known { name: "--boot", value: true },
    Known { name: "--env-config", value: true },
    Known { name: "--stateroot", value: true },
];

fn failed(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("bootward: {why}");
    ExitCode::from(super::FAILED)
}

/// Runs `bootward deploy`.
pub fn deploy(arguments: &[String]) -> ExitCode {
    let mut known = COMMON_OPTIONS.to_vec();
    known.extend(
        ["--karg", "--karg-append", "--karg-delete", "--origin", "--keys"]
            .map(|name| Known { name, value: true }),
    );
    known.extend(
        ["--karg-none", "--no-merge", "--pristine-etc", "--retain", "--no-prune", "--trial", "--force"]
            .map(|name| Known { name, value: false }),
    );
    let options = match Options::read(arguments, &known, &format!("{DEPLOY}{COMMON}")) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let [name] = options.rest.as_slice() else { return usage("deploy takes one ref or commit") };
    if options.has("--karg-none") && options.has("--karg-delete") {
        return usage("--karg-none leaves nothing for --karg-delete");
    }
    let site = super::site(&options);
    let stateroot = options.value("--stateroot").map(String::from).or_else(|| act::booted_stateroot(&site));
    let Some(stateroot) = stateroot else { return usage("--stateroot says into which one") };
    let all = |name: &str| options.values(name).map(String::from).collect();
    let asked = Asked {
        stateroot,
        refspec: options.value("--origin").unwrap_or(name).into(),
        arguments: Edits {
            none: options.has("--karg-none"),
            set: all("--karg"),
            append: all("--karg-append"),
            delete: all("--karg-delete"),
        },
        no_merge: options.has("--no-merge"),
        pristine_etc: options.has("--pristine-etc"),
        retain: options.has("--retain"),
        no_prune: options.has("--no-prune"),
        trial: options.has("--trial"),
        ..Asked::default()
    };
    let trusted = match options.value("--keys") {
        Some("") => return usage("--keys takes a file"),
        None => None,
        Some(path) => match keyring::trusted(&[Source::File(path.into())], 1) {
            Ok(trusted) => Some(trusted),
            Err(fault) => return failed(&fault),
        },
    };
    let found = act::resolve(&site, name).and_then(|checksum| {
        if !options.has("--force") {
            act::not_rejected(&site.sysroot, &checksum)?;
        }
        Ok((checksum, act::commit(&site, &checksum)?))
    });
    let (checksum, (data, metadata)) = match found {
        Ok(found) => found,
        Err(e) => return failed(&e),
    };
    let dry_run = options.has("--dry-run");
    let json = options.has("--json");
    let mut progress = shown(json);
    let done = match trusted {
        Some(trusted) => match trusted.verify(data, metadata.as_deref(), u64::try_from(time::wall()).ok()) {
            Ok(verified) if dry_run => act::dry_run(&site, verified.commit(), &asked),
            Ok(verified) => act::deploy(&site, &verified, &asked, &mut progress),
            Err(why) => return failed(&format!("commit {checksum}: {why}")),
        },
        None => match Commit::parse(data) {
            Ok(commit) if dry_run => act::dry_run(&site, &commit, &asked),
            Ok(commit) => act::deploy_unsigned(&site, &commit, &asked, &mut progress),
            Err(why) => return failed(&why),
        },
    };
    match done {
        Ok(report) => {
            show(&report, dry_run, json);
            ExitCode::SUCCESS
        }
        Err(e @ Error::NotPruned(_)) => {
            eprintln!("bootward: {e}");
            ExitCode::SUCCESS
        }
        Err(e) => failed(&e),
    }
}

/// On a terminal, one line that is written over.
pub(super) fn shown(json: bool) -> impl FnMut(Progress) {
    let terminal = !json && std::io::stderr().is_terminal();
    move |progress| {
        if terminal {
            match progress {
                Progress::Made(count) => eprint!("\rmade {count} files\x1b[K\r"),
                Progress::Verified(files, bytes) => {
                    eprint!("\rverified {files} files, {} MB\x1b[K\r", bytes / 1_000_000)
                }
                Progress::Pruning(count) => eprint!("\rremoving {count} objects\x1b[K\r"),
            }
        }
    }
}

pub(super) fn show(report: &Report, dry_run: bool, json: bool) {
    if json {
        let json = Json {
            dry_run,
            deployment: &report.name,
            said: &report.said,
            steps: &report.steps,
            variables: report.variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
            pruned_objects: report.pruned.0,
            pruned_bytes: report.pruned.1,
        };
        println!("{}", serde_json::to_string(&json).unwrap_or_default());
        return;
    }
    for said in &report.said {
        println!("{said}");
    }
    for (name, value) in &report.variables {
        println!("environment: {name}={value}");
    }
    if dry_run {
        for step in &report.steps {
            println!("  would {step}");
        }
    } else if report.pruned.0 > 0 {
        println!("removed {} objects that nothing needs, {} kB", report.pruned.0, report.pruned.1 / 1000);
    }
}

/// Runs `bootward init-fs`.
pub fn init_fs(arguments: &[String]) -> ExitCode {
    let mut known = COMMON_OPTIONS.to_vec();
    known.retain(|k| !matches!(k.name, "--dry-run" | "--json" | "--env-config"));
    known.push(Known { name: "--bootloader", value: true });
    let options = match Options::read(arguments, &known, INIT) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let uboot = match options.value("--bootloader") {
        None | Some("none") => false,
        Some("uboot") => true,
        Some(_) => return usage("--bootloader takes uboot or none"),
    };
    let (Some(stateroot), true) = (options.value("--stateroot"), options.rest.is_empty()) else {
        return usage("init-fs takes --sysroot DIR --stateroot OS");
    };
    if !options.has("--sysroot") {
        return usage("init-fs takes --sysroot DIR --stateroot OS");
    }
    match act::init_fs(&super::site(&options), stateroot, uboot) {
        Ok(_) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}
