//! `bootward check`: runs the health checks and concludes.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::health::check::{Limits, Report, booted, checks, follow, record};
use crate::health::conclude::{Conclusion, conclude};
use crate::health::{Ending, Outcome, Stage};

use super::options::{Known, Options, usage};

const HELP: &str = "\
Usage: bootward check [--confirm] [--reject] [--only PART] [--json]
                      [--timeout SECONDS] [--total SECONDS] [--config FILE]
                      [--sysroot DIR] [--root DIR]

Runs the health checks: every script of check/required.d must end with exit
code 0 or the boot is bad, those of check/wanted.d may fail. Then runs the
scripts of green.d after a good boot, of red.d after a bad one. The result goes
to the boot ledger.

  --confirm          after the checks have passed, confirm this boot
  --reject           after one has failed, reject this boot (after red.d)
  --only PART        checks: no green.d and no red.d; green, red: only those
  --json             one JSON object at the end, for programs
  --timeout SECONDS  what one script may take (default: check.timeout of the
                     configuration, else 60); then its process group is ended
  --total SECONDS    what all checks together may take (default: check.total of
                     the configuration, else 300); so may green.d or red.d
  --config FILE      default /etc/bootward/bootward.toml
  --sysroot DIR      the physical root, where the ledger is (default /sysroot)
  --root DIR         look for scripts and /run below DIR (default /)

Scripts are looked for in /usr/lib/bootward, /etc/bootward, /usr/lib/greenboot
and /etc/greenboot, in this order, and by name within each: files that are
executable or end with .sh (run by bash where there is one). After a required
check has failed the other checks are not run. A link to /dev/null in /etc
switches the check of that name in /usr/lib off, and so does
DISABLED_HEALTHCHECKS in /etc/greenboot/greenboot.conf.

Exit codes: 0 every required check passed (green, red: they ran), 1 a required
one failed, 2 wrong command line, 3 all passed but the boot could not be
confirmed.
";

/// All passed, but confirming failed.
const UNCONFIRMED: u8 = 3;
/// The configuration in the OS; the same file as in the initramfs.
const CONFIG: &str = "/etc/bootward/bootward.toml";

/// Which part is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Checks,
    Follow(Stage),
}

#[derive(Serialize)]
struct Json<'a> {
    passed: Option<bool>,
    summary: Option<&'a str>,
    deployment: Option<String>,
    recorded: bool,
    concluded: Option<&'a str>,
    scripts: Vec<JsonScript<'a>>,
    notes: Vec<&'a str>,
}

#[derive(Serialize)]
struct JsonScript<'a> {
    stage: &'a str,
    name: &'a str,
    path: &'a str,
    ending: &'a str,
    exit_code: Option<i32>,
    signal: Option<i32>,
    duration_ms: u64,
    printed_bytes: u64,
    output: &'a str,
}

/// Runs the verb.
pub fn run(arguments: &[String]) -> ExitCode {
    let flag = |name| Known { name, value: false };
    let with = |name| Known { name, value: true };
    let known = [
        flag("--confirm"),
        flag("--reject"),
        flag("--json"),
        with("--only"),
        with("--timeout"),
        with("--total"),
        with("--config"),
        with("--sysroot"),
        with("--root"),
    ];
    let options = match Options::read(arguments, &known, HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    if !options.rest.is_empty() {
        return usage("check takes options only");
    }
    let part = match options.value("--only") {
        None => Part::All,
        Some("checks") => Part::Checks,
        Some("green") => Part::Follow(Stage::Green),
        Some("red") => Part::Follow(Stage::Red),
        Some(_) => return usage("--only takes checks, green or red"),
    };
    if matches!(part, Part::Follow(_)) && (options.has("--confirm") || options.has("--reject")) {
        return usage("--only green and --only red conclude nothing");
    }
    match limits(&options) {
        Ok(limits) => perform(&options, part, limits),
        Err(code) => code,
    }
}

fn limits(options: &Options) -> Result<Limits, ExitCode> {
    let path = options.value("--config").unwrap_or(CONFIG);
    let config = match std::fs::read(path) {
        Ok(file) => {
            let (config, complaints) = Config::parse(&file);
            complaints.first.iter().for_each(|c| log::warn!("{path}: {c}"));
            config
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !options.has("--config") => Config::default(),
        Err(e) => {
            log::warn!("{path}: {e}; the defaults stand");
            Config::default()
        }
    };
    let seconds = |name: &str, default: u32| match options.value(name).map(str::parse::<u32>) {
        None => Ok(Duration::from_secs(default.max(1).into())),
        Some(Ok(seconds)) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        Some(_) => Err(usage(&format!("{name} takes a number of seconds, at least 1"))),
    };
    Ok(Limits {
        each: seconds("--timeout", config.check_timeout)?,
        total: seconds("--total", config.check_total)?,
    })
}

fn perform(options: &Options, part: Part, limits: Limits) -> ExitCode {
    let root = Path::new(options.value("--root").unwrap_or("/"));
    let sysroot = Path::new(options.value("--sysroot").unwrap_or("/sysroot"));
    let json = options.has("--json");
    let mut report = Report::default();
    let mut seen = |outcome: &Outcome| {
        if !json {
            show(outcome);
        }
    };
    let deployment = booted(root, sysroot);
    let (mut verdict, mut recorded, mut concluded) = (None, false, None);
    let mut code = ExitCode::SUCCESS;
    if let Part::Follow(stage) = part {
        follow(root, stage, limits, &mut report, &mut seen);
    } else {
        let found = checks(root, limits, &mut report, &mut seen);
        if !json {
            println!("{}: {}", if found.passed { "passed" } else { "FAILED" }, found.text);
        }
        // Before anything else is started: a red script may reboot.
        match record(sysroot, deployment, &found) {
            Ok(()) => recorded = true,
            Err(e) => log::warn!("the boot ledger was not written: {e}"),
        }
        if !found.passed {
            code = ExitCode::from(super::FAILED);
            if part == Part::All {
                follow(root, Stage::Red, limits, &mut report, &mut seen);
            }
        }
        let wished = match found.passed {
            true => Some(Conclusion::Confirm).filter(|_| options.has("--confirm")),
            false => Some(Conclusion::Reject).filter(|_| options.has("--reject")),
        };
        if let Some(conclusion) = wished {
            match conclude(conclusion, options.value("--sysroot").map(Path::new), &found.text) {
                Ok(()) => concluded = Some(conclusion.word()),
                Err(reason) => {
                    log::error!("cannot {} this boot: {reason}", conclusion.word());
                    if found.passed {
                        code = ExitCode::from(UNCONFIRMED);
                    }
                }
            }
        }
        if found.passed && part == Part::All {
            follow(root, Stage::Green, limits, &mut report, &mut seen);
        }
        verdict = Some(found);
    }
    let deployment = deployment.map(|id| id.to_string());
    let notes: Vec<&str> = report.notes.iter().chain(&report.troubles).map(String::as_str).collect();
    if json {
        let whole = Json {
            passed: verdict.as_ref().map(|v| v.passed),
            summary: verdict.as_ref().map(|v| v.text.as_str()),
            deployment,
            recorded,
            concluded,
            scripts: report.outcomes.iter().map(as_json).collect(),
            notes,
        };
        println!("{}", serde_json::to_string(&whole).unwrap_or_default());
    } else {
        notes.iter().for_each(|note| println!("note: {note}"));
    }
    code
}

/// One script as the journal shows it: how it ended, then the end of what it printed.
fn show(outcome: &Outcome) {
    println!(
        "{} {}: {} ({} ms)",
        outcome.script.stage.word(),
        outcome.script.path,
        outcome.ending,
        outcome.milliseconds
    );
    let shown = outcome.output.len() as u64;
    if outcome.printed > shown {
        println!("    ... the last {shown} of {} bytes:", outcome.printed);
    }
    outcome.output.lines().for_each(|line| println!("    {line}"));
}

fn as_json(outcome: &Outcome) -> JsonScript<'_> {
    let (exit_code, signal) = match outcome.ending {
        Ending::Passed => (Some(0), None),
        Ending::Exit(code) => (Some(code), None),
        Ending::Signal(signal) => (None, Some(signal)),
        _ => (None, None),
    };
    JsonScript {
        stage: outcome.script.stage.word(),
        name: &outcome.script.name,
        path: &outcome.script.path,
        ending: outcome.ending.word(),
        exit_code,
        signal,
        duration_ms: outcome.milliseconds,
        printed_bytes: outcome.printed,
        output: &outcome.output,
    }
}
