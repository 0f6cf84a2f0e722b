//! `bootward env print|set`: what `fw_printenv` and `fw_setenv` do.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::uboot::env::Edit;
use crate::uboot::store::{DEFAULT_CONFIG, Store, lock};

use super::options::{Known, Options, usage};

const HELP: &str = "\
Usage: bootward env print [-n] [--json] [-c CONFIG] [NAME ...]
       bootward env set [-c CONFIG] NAME [VALUE ...]
       bootward env set [-c CONFIG] -s FILE

Reads and changes the U-Boot environment, as fw_printenv and fw_setenv do.

  -n         print values only, without 'NAME='
  --json     print one JSON object; bytes that are not UTF-8 become U+FFFD
  -c CONFIG  where the environment is (default /etc/fw_env.config)
  -s FILE    make all changes of FILE ('-': standard input) in one write; a line
             is NAME=VALUE or NAME VALUE, without a value NAME is deleted;
             empty lines and lines that begin with '#' are passed over

set joins its values with blanks; without a value NAME is deleted. Put '--'
before a value that begins with '-'. An environment that is not valid is never
overwritten.

Exit codes: 0 done, 1 failed (reason on standard error; print: also when a NAME
is not there), 2 wrong command line.
";

/// A script larger than this is refused, in bytes.
const MAX_SCRIPT: u64 = 1 << 20;

/// Runs the verb.
pub fn run(arguments: &[String]) -> ExitCode {
    let known = [
        Known { name: "-n", value: false },
        Known { name: "--json", value: false },
        Known { name: "-c", value: true },
        Known { name: "-s", value: true },
    ];
    let options = match Options::read(arguments, &known, HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let config = Path::new(options.value("-c").unwrap_or(DEFAULT_CONFIG));
    let done = match options.rest.split_first() {
        Some((verb, _)) if verb == "print" && options.has("-s") => return usage("print takes no -s"),
        Some((verb, names)) if verb == "print" => {
            print(config, names, options.has("-n"), options.has("--json"))
        }
        Some((verb, _)) if verb == "set" && (options.has("-n") || options.has("--json")) => {
            return usage("set takes neither -n nor --json");
        }
        Some((verb, rest)) if verb == "set" => match (options.value("-s"), rest.split_first()) {
            (Some(script), None) => set_script(config, script),
            (None, Some((name, values))) => set_one(config, name, values),
            (Some(_), Some(_)) => return usage("-s takes no further names"),
            (None, None) => return usage("set needs a name"),
        },
        _ => return usage("env needs 'print' or 'set'"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bootward: {reason}");
            ExitCode::from(super::FAILED)
        }
    }
}

fn print(config: &Path, names: &[String], bare: bool, json: bool) -> Result<(), String> {
    let _lock = lock();
    let loaded = Store::open_to_read(config).and_then(|mut s| s.load()).map_err(|e| e.to_string())?;
    let image = loaded.image().ok_or_else(|| loaded.condition.to_string())?;
    if loaded.condition != crate::uboot::store::Condition::Good {
        eprintln!("bootward: warning: {}", loaded.condition);
    }
    let mut wanted = Vec::new();
    let mut missing = None;
    if names.is_empty() {
        wanted.extend(image.variables());
    }
    for name in names {
        match image.get(name.as_bytes()) {
            Some(value) => wanted.push((name.as_bytes(), value)),
            None => missing = missing.or(Some(name)),
        }
    }
    let text = if json { as_json(&wanted) } else { as_text(&wanted, bare) };
    io::stdout().write_all(&text).map_err(|e| e.to_string())?;
    missing.map_or(Ok(()), |name| Err(format!("there is no variable '{name}'")))
}

fn as_text(variables: &[(&[u8], &[u8])], bare: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in variables {
        if !bare {
            text.extend_from_slice(name);
            text.push(b'=');
        }
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}

fn as_json(variables: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    for (name, value) in variables {
        let value = String::from_utf8_lossy(value).into_owned();
        object.insert(String::from_utf8_lossy(name).into_owned(), serde_json::Value::String(value));
    }
    format!("{}\n", serde_json::Value::Object(object)).into_bytes()
}

fn set_one(config: &Path, name: &str, values: &[String]) -> Result<(), String> {
    let value = values.join(" ");
    let value = Some(value.as_bytes()).filter(|v| !v.is_empty());
    save(config, &[Edit { name: name.as_bytes(), value }])
}

fn set_script(config: &Path, script: &str) -> Result<(), String> {
    let mut text = Vec::new();
    let file: Box<dyn Read> = match script {
        "-" => Box::new(io::stdin()),
        path => Box::new(File::open(path).map_err(|e| format!("{path}: {e}"))?),
    };
    file.take(MAX_SCRIPT + 1).read_to_end(&mut text).map_err(|e| format!("{script}: {e}"))?;
    if text.len() as u64 > MAX_SCRIPT {
        return Err(format!("{script}: longer than {MAX_SCRIPT} bytes"));
    }
    let edits: Vec<Edit<'_>> = text.split(|&b| b == b'\n').filter_map(script_line).collect();
    if edits.is_empty() { Ok(()) } else { save(config, &edits) }
}

/// `NAME=VALUE` as libubootenv writes it, or `NAME VALUE` as U-Boot's own tool has it: what comes first
/// decides.
fn script_line(line: &[u8]) -> Option<Edit<'_>> {
    let end = line.iter().rposition(|&b| b != b'\r')? + 1;
    let line = line.get(..end)?;
    if line.first() == Some(&b'#') || line.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let at = line.iter().position(|b| matches!(b, b'=' | b' ' | b'\t')).unwrap_or(line.len());
    let name = line.get(..at)?;
    let value = match line.get(at) {
        Some(b'=') => line.get(at + 1..),
        _ => line.get(at..).map(|v| v.trim_ascii_start()),
    };
    Some(Edit { name, value: value.filter(|v| !v.is_empty()) })
}

fn save(config: &Path, edits: &[Edit<'_>]) -> Result<(), String> {
    let _lock = lock();
    let mut store = Store::open(config).map_err(|e| e.to_string())?;
    store.save(edits).map_err(|e| e.to_string())?;
    if !store.survives_cuts() {
        log::warn!("the environment has a single copy: a power cut during such a write loses it");
    }
    Ok(())
}
