//! `bootward log`: the boot ledger in sentences.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::ledger::{Kind, Record, file};
use crate::sys::time::civil;

use super::options::{Known, Options};

const HELP: &str = "\
Usage: bootward log [--json] [--sysroot DIR]

Tells what the boot ledger remembers, oldest first: every attempt to boot a
deployment, why it was chosen, what was passed over or failed, and why.

  --json         one JSON object a line, for programs
  --sysroot DIR  the physical root (default /sysroot)

Exit codes: 0 told (an absent ledger is told too), 1 it cannot be read, 2 wrong command line.
";

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    time: i64,
    uptime_ms: u32,
    kind: &'a str,
    commit: Option<String>,
    deploy_serial: Option<u32>,
    boot_id: String,
    text: &'a str,
}

/// Runs the verb.
pub fn run(arguments: &[String]) -> ExitCode {
    let known = [Known { name: "--json", value: false }, Known { name: "--sysroot", value: true }];
    let options = match Options::read(arguments, &known, HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let json = options.has("--json");
    let sysroot = Path::new(options.value("--sysroot").unwrap_or("/sysroot"));
    let mut count = 0;
    let told = file::open(sysroot).and_then(|mut ring| {
        ring.each(|record| {
            count += 1;
            println!("{}", if json { as_json(record) } else { sentence(record) });
        })
    });
    match told {
        Err(e) if e.error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("bootward: the ledger cannot be read: {e}");
            ExitCode::from(super::FAILED)
        }
        _ => {
            if count == 0 && !json {
                println!("the ledger of {} is empty: no boot was recorded", sysroot.display());
            }
            ExitCode::SUCCESS
        }
    }
}

/// A record as a person reads it.
pub fn sentence(record: &Record) -> String {
    let what = match record.kind {
        Kind::Attempt => "booting",
        Kind::Failed => "could not boot",
        Kind::Skipped => "passed over",
        Kind::Confirmed => "confirmed",
        Kind::Rejected => "rejected",
        Kind::LoaderAsked => "asked the bootloader for",
        Kind::Recovery => "recovery",
        Kind::Note => "note",
        Kind::Changed => "deployments changed",
        Kind::PowerLost => "the power went",
        Kind::CheckPassed => "health checks passed",
        Kind::CheckFailed => "health checks failed",
        #[cfg(feature = "recovery")]
        Kind::DrillBegan => "fire drill began",
        #[cfg(feature = "recovery")]
        Kind::DrillPassed => "fire drill passed",
        #[cfg(feature = "recovery")]
        Kind::DrillFailed => "fire drill failed",
        Kind::Unknown(_) => "something that a newer bootward wrote",
    };
    let mut line = format!("#{} {} {what}", record.sequence, civil(record.time));
    if !record.deployment.is_none() {
        line.push_str(&format!(" {}", record.deployment));
    }
    if !record.text.is_empty() {
        line.push_str(": ");
        line.push_str(&record.text);
    }
    line
}

fn as_json(record: &Record) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let named = !record.deployment.is_none();
    let line = Line {
        sequence: record.sequence,
        time: record.time,
        uptime_ms: record.uptime,
        kind: record.kind.word(),
        commit: named.then(|| hex(&record.deployment.commit)),
        deploy_serial: named.then_some(record.deployment.serial),
        boot_id: hex(&record.boot),
        text: &record.text,
    };
    serde_json::to_string(&line).unwrap_or_default()
}
