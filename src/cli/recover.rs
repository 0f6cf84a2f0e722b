//! `bootward recover`: recovery at the next boot, or a drill of it.

use std::path::Path;
use std::process::{Command, ExitCode};

use serde::Serialize;

use crate::recovery::ask::{Place, ask, asked, cancel};
use crate::recovery::drill::{End, Last, last};
use crate::recovery::request::Asked;

use super::finish;
use super::options::{Known, Options, usage};
use super::status::{BOOT, JSON, SYSROOT};

const HELP: &str = "\
Usage: bootward recover [--drill] [--reboot] [OPTION ...]
       bootward recover --cancel [OPTION ...]
       bootward recover --status [--json] [OPTION ...]

Asks for recovery at the next boot, once: the console of recovery, and whatever
recovery does by itself. With --drill nothing is recovered: the device gets an
address, asks for the time, fetches and verifies the signed commit object, and
boots on as usual. The result is in the ledger.

  --drill            a fire drill
  --reboot           and restart now
  --cancel           take the request back
  --status           what is asked for, and how the last drill went
  --json             one JSON object, for programs
  --sysroot DIR      the physical root (default /sysroot)
  --env-config FILE  fw_env.config (default /etc/fw_env.config, with --sysroot
                     none)

The request is the variable bootward_recovery where there is a U-Boot
environment, else a file on the root. A power cut leaves it made or not made.

Exit codes: 0 done; 1 failed (reason on standard error); 2 wrong command line;
with --status 0 the last drill passed, 3 it failed or did not end, 4 there was
none.
";

/// The last drill failed, or did not end.
const DRILL_FAILED: u8 = 3;
/// There was no drill.
const NO_DRILL: u8 = 4;

const DRILL: Known = Known { name: "--drill", value: false };
const REBOOT: Known = Known { name: "--reboot", value: false };
const CANCEL: Known = Known { name: "--cancel", value: false };
const STATUS: Known = Known { name: "--status", value: false };
const ENV_CONFIG: Known = Known { name: "--env-config", value: true };

/// The last drill, for programs.
#[derive(Serialize)]
pub struct DrillReport {
    time: i64,
    result: &'static str,
    text: String,
}

impl From<Last> for DrillReport {
    fn from(last: Last) -> Self {
        DrillReport { time: last.time, result: last.end.word(), text: last.text }
    }
}

#[derive(Serialize)]
struct Report {
    asked: Option<&'static str>,
    drill: Option<DrillReport>,
}

/// Runs the verb.
pub fn run(arguments: &[String]) -> ExitCode {
    let known = [DRILL, REBOOT, CANCEL, STATUS, JSON, SYSROOT, BOOT, ENV_CONFIG];
    let options = match Options::read(arguments, &known, HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let site = super::site(&options);
    let has = |known: Known| options.has(known.name);
    if !options.rest.is_empty() {
        return usage("recover takes no more than options");
    }
    match (has(STATUS), has(CANCEL), has(DRILL), has(REBOOT)) {
        (true, false, false, false) => {
            let asked = asked(&site).map(|(asked, _)| asked);
            status(asked, last(&site.sysroot), has(JSON))
        }
        (false, true, false, false) => finish(cancel(&site).map_err(|e| e.to_string()).map(|before| {
            let was = |asked: Asked| format!("{asked} is not asked for any more");
            before.map_or_else(|| "nothing was asked for".into(), was)
        })),
        (false, false, drill, reboot) => {
            let what = if drill { Asked::Drill } else { Asked::Recovery };
            let done = ask(&site, what).map(|place| said(what, place)).map_err(|e| e.to_string());
            let good = done.is_ok();
            let code = finish(done);
            if good && reboot { restart() } else { code }
        }
        _ => usage("--status and --cancel go with neither each other nor --drill or --reboot"),
    }
}

fn said(asked: Asked, place: Place) -> String {
    format!("the next boot begins with {asked}: noted {place}")
}

fn status(asked: Option<Asked>, last: Option<Last>, json: bool) -> ExitCode {
    let code = match &last {
        None => ExitCode::from(NO_DRILL),
        Some(Last { end: End::Passed, .. }) => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(DRILL_FAILED),
    };
    if json {
        let asked = asked.map(|asked| if asked == Asked::Drill { "drill" } else { "recovery" });
        let report = Report { asked, drill: last.map(Into::into) };
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
        return code;
    }
    match asked {
        Some(asked) => println!("the next boot begins with {asked}"),
        None => println!("nothing is asked for"),
    }
    match last {
        Some(last) => println!("{last}"),
        None => println!("last drill: none is known of"),
    }
    code
}

/// As the OS restarts, with everything that has to stop before.
fn restart() -> ExitCode {
    let programs = ["/usr/sbin/reboot", "/sbin/reboot"];
    let Some(program) = programs.into_iter().find(|program| Path::new(program).exists()) else {
        eprintln!("bootward: there is no reboot program; restart the device");
        return ExitCode::from(super::FAILED);
    };
    match Command::new(program).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("bootward: {program}: {status}; restart the device");
            ExitCode::from(super::FAILED)
        }
        Err(e) => {
            eprintln!("bootward: {program}: {e}; restart the device");
            ExitCode::from(super::FAILED)
        }
    }
}
