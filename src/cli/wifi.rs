//! `bootward wifi escrow`, `show` and `forget`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::net::wifi::escrow::{Gathered, gather};
use crate::net::wifi::file::{self, List};
use crate::net::wifi::{Origin, slot};
use crate::sys::files::Disk;

use super::options::{Known, Options, usage};

const HELP: &str = "\
Usage: bootward wifi escrow|show|forget [OPTION ...]

escrow  Hands the running system's Wi-Fi over to recovery: reads the networks of
        NetworkManager, iwd, wpa_supplicant (also beside systemd-networkd) and
        ConnMan, the radio's driver and its options of modprobe.d, and writes
        them to ostree/bootward/wifi on the physical root, for root alone.
show    What recovery knows from there, without secrets.
forget  Removes it, and what recovery remembers of its last network.

  --interface NAME   the radio (default: the first interface that is one)
  --dry-run          say what would be written, write nothing
  --json             one JSON object, for programs; secrets are in neither
  --sysroot DIR      the physical root (default /sysroot)
  --root DIR         the running system (default /)

Where nothing is found the slot stays as it is, and that is a failure.

Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
";

#[derive(Serialize)]
struct Json<'a> {
    written: bool,
    country: &'a str,
    modules: &'a [String],
    options: &'a [String],
    networks: Vec<Network>,
    left: &'a [String],
}

#[derive(Serialize)]
struct Network {
    name: String,
    kind: &'static str,
    hidden: bool,
    priority: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'static str,
}

/// Runs `bootward wifi`.
pub fn run(arguments: &[String]) -> ExitCode {
    let known = [
        Known { name: "--interface", value: true },
        Known { name: "--dry-run", value: false },
        Known { name: "--json", value: false },
        Known { name: "--sysroot", value: true },
        Known { name: "--root", value: true },
    ];
    let options = match Options::read(arguments, &known, HELP) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let done = match options.rest.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["escrow"] => escrow(&options),
        ["show"] => show(&options),
        ["forget"] => forget(&options),
        _ => return usage("wifi takes escrow, show or forget"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bootward: {why}");
            ExitCode::from(super::FAILED)
        }
    }
}

fn sysroot(options: &Options) -> PathBuf {
    options.value("--sysroot").unwrap_or("/sysroot").into()
}

fn disk(options: &Options) -> Result<Disk, String> {
    let root = sysroot(options);
    let writable = crate::sys::mount::make_writable(&[root.as_path()]);
    writable.map_err(|(path, e)| format!("{}: {}", path.display(), e.desc()))?;
    open(&root)
}

fn open(root: &Path) -> Result<Disk, String> {
    Disk::open(root, root).map_err(|e| e.to_string())
}

fn escrow(options: &Options) -> Result<(), String> {
    let root = Path::new(options.value("--root").unwrap_or("/"));
    let interface = match options.value("--interface") {
        Some(name) => name.to_string(),
        None => radio(root).ok_or("no interface is a radio: say which one with --interface")?,
    };
    let found = gather(root, &interface).map_err(|e| format!("{}: {}", root.display(), e.desc()))?;
    if found.list.profiles.is_empty() {
        found.left.iter().for_each(|left| eprintln!("bootward: {left}"));
        return Err(format!("no network for {interface} was found that could be handed over"));
    }
    let written = if options.has("--dry-run") {
        false
    } else {
        slot::write(&mut disk(options)?, slot::ESCROW, &found.list)
            .map_err(|e| format!("{}: {e}", slot::ESCROW))?
    };
    tell(&found, written, options);
    Ok(())
}

/// The first interface with a radio.
fn radio(root: &Path) -> Option<String> {
    let directory = root.join("sys/class/net");
    let entries = std::fs::read_dir(&directory).ok()?.flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
        .into_iter()
        .find(|name| ["phy80211", "wireless"].iter().any(|f| directory.join(name).join(f).exists()))
}

fn show(options: &Options) -> Result<(), String> {
    let text = slot::read(&mut open(&sysroot(options))?, slot::ESCROW).map_err(|e| e.to_string())?;
    let Some(text) = text else { return Err("nothing was handed over: see 'bootward wifi escrow'".into()) };
    let (list, complaints) = file::parse(text.bytes(), Origin::Escrow);
    let left = complaints.iter().map(|c| format!("{}: {c}", slot::ESCROW)).collect();
    tell(&Gathered { list, sources: Vec::new(), left }, false, options);
    Ok(())
}

fn forget(options: &Options) -> Result<(), String> {
    if options.has("--dry-run") {
        println!("would remove {} and {}", slot::ESCROW, slot::LAST);
        return Ok(());
    }
    let mut disk = disk(options)?;
    for place in [slot::ESCROW, slot::LAST] {
        let was = slot::forget(&mut disk, place).map_err(|e| e.to_string())?;
        println!("{place}: {}", if was { "removed" } else { "was not there" });
    }
    Ok(())
}

fn tell(found: &Gathered, written: bool, options: &Options) {
    let List { country, modules, options: driver, profiles } = &found.list;
    let sources = found.sources.iter().copied().chain(std::iter::repeat(""));
    let networks = profiles.iter().zip(sources).map(|(profile, source)| Network {
        name: profile.name(),
        kind: profile.key.kind(),
        hidden: profile.hidden,
        priority: profile.priority,
        source,
    });
    let networks: Vec<Network> = networks.collect();
    if options.has("--json") {
        let json = Json { written, country, modules, options: driver, networks, left: &found.left };
        println!("{}", serde_json::to_string(&json).unwrap_or_default());
        return;
    }
    for network in &networks {
        let hidden = if network.hidden { ", hidden" } else { "" };
        let from =
            if network.source.is_empty() { String::new() } else { format!(", from {}", network.source) };
        println!("{} ({}{hidden}, priority {}{from})", network.name, network.kind, network.priority);
    }
    if !country.is_empty() {
        println!("country {country}");
    }
    modules.iter().for_each(|module| println!("driver {module}"));
    driver.iter().for_each(|options| println!("options {options}"));
    found.left.iter().for_each(|left| eprintln!("bootward: not handed over: {left}"));
    if written {
        println!("written to {}", slot::ESCROW);
    }
}
