//! Between the decision and the attempt: is the deployment what its commit says, and is its commit to be trusted?

use std::path::Path;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::cmdline::CommandLine;
use crate::mounts::plan::Plan;
use crate::ostree::verify::{Check, Fault, Faults, KeysFault, Level, keys, verify};
use crate::sys::beneath::Beneath;
use crate::sysroot::Deployment;

use super::{Boot, CONFIG, HEARTBEAT, SYSROOT};

/// What helps where every deployment is refused for the same reason, which nothing at the console changes.
const NEEDED: &str = "nothing boots until the initramfs is built again";

/// How much is to be verified, and the word of the command line for it, where there is one.
fn level(boot: &Boot) -> (Level, Option<String>) {
    let command_line = CommandLine::parse(&boot.command_line);
    // A value that is no text is a wrong word too.
    let word =
        command_line.has("bootward.verify").then(|| command_line.value("bootward.verify").unwrap_or("?"));
    (boot.config.level(word), word.map(String::from))
}

/// Whether this plan shows what was verified: a composefs image stands for the whole root, and no commit's tree
/// covers the image. Only the digest in a signed commit does.
///
/// # Errors
/// When it does not, with what to do.
pub fn allows(boot: &Boot, plan: &Plan) -> Result<(), String> {
    if level(boot).0 == Level::None || !plan.mounts_unsigned_image() {
        return Ok(());
    }
    Err("its root is a composefs image that the verification does not cover: set [composefs] enabled=signed"
        .into())
}

/// Verifies as much as is wanted.
///
/// # Errors
/// When the deployment must not boot, with the reason.
pub fn verify_deployment(boot: &mut Boot, deployment: &Deployment) -> Result<(), String> {
    let (level, word) = level(boot);
    let word = word.as_deref();
    for given in [Some(boot.config.verify_level.as_str()), word].into_iter().flatten() {
        if !given.is_empty() && Level::parse(given).is_none() {
            warn!("'{given}' is no level of verification, so that everything is verified");
        }
    }
    if level == Level::None {
        return Ok(());
    }
    // A constant: without the feature, what follows is not in the binary at all. Never less than was asked for.
    if !cfg!(feature = "verify") {
        return Err(
            "it cannot be verified: this build has no verification; use one with the feature 'verify'".into(),
        );
    }
    if boot.config.verify_unclear {
        let fault = Fault::Keys(CONFIG.into(), KeysFault::Unclear);
        return Err(format!("{fault}; {NEEDED} with its [verify] put right"));
    }
    let keys = keys(boot.config.verify_keys.as_str())
        .map_err(|fault| format!("{fault}; {NEEDED} with the keys (bootward-initramfs --keys)"))?;
    let opened = |path: &str| Beneath::open(Path::new(path)).map_err(|e| format!("{path}: {}", e.desc()));
    let sysroot = opened(SYSROOT)?;
    let boot_directory = opened(boot.boot_directory()).ok();
    let seconds = boot.config.verify_timeout;
    info!("verifying {} ({level})", deployment.name());
    let path = deployment.path();
    let check = Check {
        sysroot: &sysroot,
        boot: boot_directory.as_ref(),
        path: &path,
        commit: &deployment.commit,
        boot_files: &deployment.boot_files,
        level,
        keys: keys.as_ref(),
        budget: (seconds > 0).then(|| Duration::from_secs(u64::from(seconds))),
        faults: Faults::First,
    };
    let mut told = Instant::now();
    let report = verify(&check, &mut |progress| {
        boot.alive();
        if told.elapsed() >= HEARTBEAT {
            told = Instant::now();
            let megabytes = progress.bytes / 1_000_000;
            info!("verifying: {} files, {megabytes} MB, {} MB/s", progress.entries, progress.rate());
        }
    });
    boot.alive();
    let took = report.progress;
    let (entries, bytes, seconds) = (took.entries, took.bytes / 1_000_000, took.time.as_secs_f32());
    if report.ran_out_of_time() && keys.is_none() {
        warn!("not verified to its end within {seconds:.0} s, and no keys are configured: going on");
        return Ok(());
    }
    match report.faults.first() {
        Some(fault) => Err(format!("it is not verified: {fault}")),
        None => {
            let signed = report.signed_by.map_or(String::new(), |key| format!(", signed by key {}", key + 1));
            info!("verified{signed}: {entries} files, {bytes} MB in {seconds:.1} s");
            Ok(())
        }
    }
}
