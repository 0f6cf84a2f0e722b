//! The power-cut laboratory: what is left on the disk when the power goes at any moment of an update, and what
//! boots from it. `cargo test --test power -- --help` says how to use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod again;
mod blocklog;
mod campaign;
mod chosen;
mod disk;
mod faults;
mod loader;
mod options;
mod record;
mod replay;
mod report;
mod scenario;
mod states;
mod stub;
mod systems;
mod tools;
mod tree;
mod variables;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

use campaign::{Campaign, Counts, Judged, Place};
use faults::{Fault, Sweep};
use options::Options;
use report::{print_counts, print_failures, print_failures_after, swept};
use scenario::{Recorded, Scenario};
use states::{Class, State};
use systems::System;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // This program again, in the places where the laboratory needs one of its own.
    match arguments.first().map(String::as_str) {
        Some("--inside") => return systems::inside(&arguments[1..]),
        Some("--without-syncs") => return stub::run(&arguments[1..]),
        _ => {}
    }
    let options = match Options::read(&arguments) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let done = occupy().and_then(|_laboratory| match options {
        Options::Help(text) => {
            println!("{text}");
            Ok(true)
        }
        Options::Check => check(),
        Options::Judge(options) => judge(&options),
        Options::Faults(options, faults) => inject(&options, &faults),
        Options::Disks(options, dir) => disks(&options, &dir),
        Options::Again(options, every) => boots(&options, every),
        Options::Replay { scenario, state, second } => replay(scenario, state, second),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("power: {e}");
            ExitCode::FAILURE
        }
    }
}

/// One run of the laboratory at a time: a scenario's recording has one place.
fn occupy() -> io::Result<Flock<File>> {
    fs::create_dir_all(tools::lab())?;
    let lock = File::create(tools::lab().join("lock"))?;
    Flock::lock(lock, FlockArg::LockExclusiveNonblock).or_else(|(lock, _)| {
        eprintln!("power: waiting for another run to end");
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
    })
}

/// What the CI runs: one whole scenario with both systems, part of its reorderings and tears, cuts of a boot after a
/// cut, some failing system calls, and proof that the laboratory notices missing syncs.
fn check() -> io::Result<bool> {
    states::self_check();
    campaign::own_namespace()?;
    let bootward = binary()?;
    let mut good = true;

    let scenario = Scenario::named("two-update").expect("is one");
    let recorded = record(scenario)?;
    let both = [System::Bootward, System::PrepareRoot];
    let campaign = recorded.campaign(&bootward, &both, workers());
    let prefixes = campaign.run(Class::Prefix, 1)?;
    good &= bootward_boots(scenario, Class::Prefix, &prefixes);
    if Counts::of(&prefixes, System::PrepareRoot).dead == 0 {
        println!("FAILED: ostree-prepare-root boots every state: the known bricks are not reproduced");
        good = false;
    }
    let first = chosen::stale(&chosen::outcomes(&prefixes)).map(|outcome| outcome.state.clone());
    let campaign = Campaign { systems: &both[..1], ..campaign };
    good &= boots_survive(scenario, &campaign, first.as_slice(), 5)?;
    for (class, share) in [(Class::Reordered, 150), (Class::Torn, 150)] {
        let all = states::states(&recorded.recording.requests, class).len();
        good &= bootward_boots(scenario, class, &campaign.run(class, all / share)?);
    }

    let scenario = Scenario::named("two-confirm").expect("is one");
    let own = record(scenario)?;
    let campaign = own.campaign(&bootward, &both[..1], workers());
    good &= bootward_boots(scenario, Class::Prefix, &campaign.run(Class::Prefix, 1)?);
    for class in [Class::Reordered, Class::Torn] {
        let all = states::states(&own.recording.requests, class).len();
        good &= bootward_boots(scenario, class, &campaign.run(class, all / 100)?);
    }

    let scenario = Scenario::named("two-upgrade").expect("is one");
    let upgrade = record(scenario)?;
    let campaign = upgrade.campaign(&bootward, &both[..1], workers());
    for (class, share) in [(Class::Prefix, 120), (Class::Reordered, 40), (Class::Torn, 40)] {
        let all = states::states(&upgrade.recording.requests, class).len();
        good &= bootward_boots(scenario, class, &campaign.run(class, all / share)?);
    }

    good &= own_operations_fail(&own, &upgrade, &bootward)?;

    let scenario = Scenario::named("two-update").expect("is one");
    for fault in [Fault::Kill, Fault::Error("EIO")] {
        let sweep =
            Sweep { scenario, recorded: &recorded, bootward: &bootward, every: 40, workers: workers() };
        good &= swept("guardian", fault, &sweep.guardian(fault)?);
        good &= swept("update", fault, &Sweep { every: 300, ..sweep }.operation(fault)?);
    }

    let scenario = Scenario::named("two-update-without-syncs").expect("is one");
    let recorded = record(scenario)?;
    let campaign = recorded.campaign(&bootward, &both, workers());
    let all = recorded.recording.requests.len();
    let judged = campaign.run(Class::Prefix, all / 60)?;
    print_counts(scenario, "prefixes", &judged);
    let counts = Counts::of(&judged, System::PrepareRoot);
    if counts.dead + counts.corrupt == 0 {
        println!("FAILED: the laboratory does not notice that every sync is missing");
        good = false;
    }
    println!("power: {}", if good { "all as it must be" } else { "FAILED" });
    Ok(good)
}

/// A few failing system calls of each of bootward's own operations.
fn own_operations_fail(confirm: &Recorded, upgrade: &Recorded, bootward: &Path) -> io::Result<bool> {
    let mut good = true;
    let mut sweep = |name: &str, recorded: &Recorded, every| -> io::Result<()> {
        let scenario = Scenario::named(name).expect("is one");
        let sweep = Sweep { scenario, recorded, bootward, every, workers: workers() };
        for fault in Fault::ALL {
            good &= swept("operation", fault, &sweep.operation(fault)?);
        }
        Ok(())
    };
    println!("two-confirm, failing calls");
    sweep("two-confirm", confirm, 110)?;
    println!("two-upgrade, failing calls");
    sweep("two-upgrade", upgrade, 200)?;
    for (name, every) in [("two-rollback", 20), ("one-undeploy", 90), ("two-repair-kernel", 25)] {
        let recorded = record(Scenario::named(name).expect("is one"))?;
        sweep(name, &recorded, every)?;
    }
    Ok(good)
}

/// Whether bootward came up with a whole deployment wherever there was a kernel; tells of the states if not.
fn bootward_boots(scenario: &Scenario, class: Class, judged: &[Judged]) -> bool {
    print_counts(scenario, &class.to_string(), judged);
    let counts = Counts::of(judged, System::Bootward);
    print_failures(scenario, judged, System::Bootward);
    !scenario.failed(class, &counts) && counts.total() > 0
}

/// Does `work` with every scenario's recording, made or kept, and with what is to judge it. Whether all was good.
fn each(
    options: &options::Judge,
    work: impl Fn(&Scenario, &Recorded, &Campaign) -> io::Result<bool>,
) -> io::Result<bool> {
    states::self_check();
    campaign::own_namespace()?;
    if let Some(given) = &options.bootward {
        BUILT.get_or_init(|| given.clone());
    }
    let bootward = binary()?;
    let workers = options.workers.unwrap_or_else(workers);
    let mut good = true;
    for scenario in &options.scenarios {
        let recorded = if options.kept { scenario.kept()? } else { record(scenario)? };
        good &= work(scenario, &recorded, &recorded.campaign(&bootward, &options.systems, workers))?;
    }
    Ok(good)
}

fn judge(options: &options::Judge) -> io::Result<bool> {
    each(options, |scenario, _, campaign| {
        let mut good = true;
        for &class in &options.classes {
            let judged = campaign.run(class, options.every)?;
            print_counts(scenario, &class.to_string(), &judged);
            print_failures(scenario, &judged, System::Bootward);
            let counts = Counts::of(&judged, System::Bootward);
            good &= !scenario.failed(class, &counts);
        }
        Ok(good)
    })
}

/// Boots of chosen states, cut as well.
fn boots(options: &options::Judge, every: usize) -> io::Result<bool> {
    each(options, |scenario, recorded, campaign| {
        let campaign = Campaign { systems: &[System::Bootward], ..*campaign };
        let mut good = true;
        for &class in &options.classes {
            let all = states::states(&recorded.recording.requests, class);
            let all: Vec<State> = all.into_iter().step_by(options.every).collect();
            good &= boots_survive(scenario, &campaign, &all, every)?;
        }
        Ok(good)
    })
}

/// Whether bootward comes up after any cut of its boots of these states.
fn boots_survive(
    scenario: &Scenario,
    campaign: &Campaign,
    firsts: &[State],
    every: usize,
) -> io::Result<bool> {
    let boots = again::record(campaign, firsts, &scenario.boots())?;
    let writes = boots.iter().map(|(_, r)| r.requests.iter().filter(|r| r.writes()).count()).sum::<usize>();
    println!("  {} boots of {} states, {writes} writes", boots.len(), firsts.len());
    let mut good = !boots.is_empty();
    for class in [Class::Prefix, Class::Reordered, Class::Torn] {
        let mut all = Vec::new();
        for (first, recording) in &boots {
            let judged = Campaign { recording, ..*campaign }.run(class, every)?;
            print_failures_after(&format!("{first}/"), scenario, &judged, System::Bootward);
            all.extend(judged);
        }
        print_counts(scenario, &format!("boots {class}"), &all);
        let counts = Counts::of(&all, System::Bootward);
        good &= counts.dead + counts.corrupt == 0 && counts.total() > 0;
    }
    Ok(good)
}

/// Faults in system calls.
fn inject(options: &options::Judge, faults: &[Fault]) -> io::Result<bool> {
    each(options, |scenario, recorded, &Campaign { bootward, workers, .. }| {
        let sweep = Sweep { scenario, recorded, bootward, every: options.every, workers };
        let mut good = true;
        for &fault in faults {
            // What the guardian does is the same after either.
            good &= scenario.ours || swept("guardian", fault, &sweep.guardian(fault)?);
            good &= swept("operation", fault, &sweep.operation(fault)?);
        }
        Ok(good)
    })
}

/// The disks of a state of each kind of outcome.
fn disks(options: &options::Judge, dir: &Path) -> io::Result<bool> {
    each(options, |scenario, _, campaign| {
        let campaign = Campaign { systems: &[System::Bootward, System::PrepareRoot], ..*campaign };
        let chosen = chosen::choose(&campaign, scenario.before)?;
        let place = Place::new()?;
        for (name, outcome) in chosen {
            chosen::write(&campaign, &place, &outcome, &dir.join(name))?;
            println!("  {name}: {outcome}");
        }
        Ok(true)
    })
}

/// One state of the recording that was made last, and everything that the systems said.
fn replay(scenario: &Scenario, state: State, second: Option<State>) -> io::Result<bool> {
    campaign::own_namespace()?;
    let bootward = binary()?;
    let recorded = scenario.kept()?;
    let systems = [System::Bootward, System::PrepareRoot];
    let campaign = recorded.campaign(&bootward, &systems, 1);
    let judged = match second {
        None => campaign.judge(&[state])?,
        Some(second) => {
            let recording = again::kept(&campaign, &state, &scenario.boots())?;
            Campaign { recording: &recording, ..campaign }.judge(&[second])?
        }
    };
    for j in &judged {
        println!("{} {}: {}", j.state, j.system.name(), j.verdict);
    }
    let counts = Counts::of(&judged, System::Bootward);
    Ok(counts.dead + counts.corrupt == 0)
}

fn record(scenario: &Scenario) -> io::Result<Recorded> {
    println!("{}: {}; libostree {}", scenario.name, scenario.title, scenario.version()?);
    let recorded = scenario.record()?;
    let requests = &recorded.recording.requests;
    let writes = requests.iter().filter(|r| r.writes()).count();
    let flushes = requests.iter().filter(|r| r.flush).count();
    println!("  recorded {writes} writes and {flushes} flushes");
    Ok(recorded)
}

/// The device binary, as it ships: built once a run, and a copy, so that a run is about one and the same.
fn binary() -> io::Result<PathBuf> {
    if let Some(built) = BUILT.get() {
        return Ok(built.clone());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/initramfs/binary");
    let built = tools::run(Command::new(script).arg("x86_64"))?;
    let copy = tools::lab().join("bootward");
    let _ = fs::remove_file(&copy);
    fs::copy(built.trim(), &copy)?;
    Ok(BUILT.get_or_init(|| copy).clone())
}

/// What [`binary`] returns from then on.
static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// Four for each processor: most of the time they wait for the kernel's mounts and loop devices.
fn workers() -> usize {
    4 * std::thread::available_parallelism().map_or(1, |n| n.get())
}
