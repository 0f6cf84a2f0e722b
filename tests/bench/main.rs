//! What preparing a root costs: `cargo bench --bench prepare [-- [ROUNDS] [NAME] [/GUARDIAN ...]]`; with NAME only the
//! systems that have it in theirs; each GUARDIAN is another build, measured along. README.md beside it has the results.
//!
//! All systems in turn, round after round, so that what else the machine does meets all of them alike. Needs root.

#![allow(clippy::indexing_slicing, reason = "a bench that panics has failed")]

mod emulated;
mod nothing;
mod once;
mod systems;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use once::{Look, Sample, run};
use systems::{Place, System, output};

/// Runs of each system unless asked for others.
const ROUNDS: usize = 300;
/// Traced runs of each; they hardly differ.
const TRACED: usize = 5;

fn main() -> ExitCode {
    // cargo adds options of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let rounds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(ROUNDS);
    let (others, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.starts_with('/'));
    let name = words.iter().find(|word| word.parse::<usize>().is_err());
    let name = name.map_or("", |name| name);
    let result = if name == "icount" { count() } else { bench(rounds, name, &others) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab")
}

fn guardian() -> io::Result<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("this mounts: run it as root"));
    }
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("initramfs/binary");
    let path = output(Command::new(binary).args([std::env::consts::ARCH, "--no-default-features"]))?;
    Ok(path.trim().into())
}

/// Instructions until the real init, twice each.
fn count() -> io::Result<()> {
    let guardian = guardian()?;
    let stamp = emulated::stamp()?;
    let place = Place::new(&std::fs::read(&stamp)?)?;
    println!("| initramfs | millions of instructions | again | times ours | of the whole boot |");
    println!("|---|---|---|---|---|");
    let mut ours = None;
    for system in place.systems(&guardian, &[])?.iter().filter(|system| system.first) {
        let first = emulated::boot(&place, system, &stamp)?;
        let again = emulated::boot(&place, system, &stamp)?;
        let (own, whole) = (first.initramfs(), first.boot());
        let times = own / *ours.get_or_insert(own);
        println!("| {} | {own:.1} | {:.1} | {times:.1} | {whole:.0} |", system.name, again.initramfs());
    }
    Ok(())
}

fn bench(rounds: usize, name: &str, others: &[String]) -> io::Result<()> {
    let guardian = guardian()?;
    let place = Place::new(nothing::PROGRAM)?;
    let mut systems = place.systems(&guardian, others)?;
    systems.retain(|system| system.name.contains(name));
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); systems.len()];
    for round in 0..rounds {
        // Each begins as often as any other, and follows each of the others.
        for turn in 0..systems.len() {
            let number = (turn * (1 + round % 2 * systems.len().saturating_sub(2)) + round) % systems.len();
            samples[number].push(run(&systems[number], Look::Time)?);
        }
    }
    let mut traces = Vec::new();
    for system in &systems {
        let runs: io::Result<Vec<Sample>> = (0..TRACED).map(|_| run(system, Look::Trace)).collect();
        traces.push(runs?);
    }
    same(&systems, &traces)?;
    println!("{rounds} rounds, Linux {}", bootward::sys::kernel_release());
    for (title, first) in [("Preparing a root", false), ("The whole initramfs, to the real init", true)] {
        println!("\n{title}\n");
        println!(
            "| system | median | times ours | fastest tenth | times ours | page faults | calls | processes | peak |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        let mut ours = None;
        for ((system, samples), traces) in systems.iter().zip(&samples).zip(&traces) {
            if system.first == first {
                ours = Some(row(system, samples, traces, ours));
            }
        }
    }
    Ok(())
}

/// Fails unless every tool leaves the mounts that ours leaves: else they did not do the same work.
fn same(systems: &[System], traces: &[Vec<Sample>]) -> io::Result<()> {
    let mounts = |n: usize| {
        let mut all = traces[n][0].mounts.clone();
        all.sort_unstable();
        all
    };
    for (number, system) in systems.iter().enumerate() {
        if let Some(like) = system.like.and_then(|like| systems.iter().position(|s| s.name == like))
            && mounts(number) != mounts(like)
        {
            let (theirs, ours) = (mounts(number), mounts(like));
            return Err(io::Error::other(format!("{}: {theirs:?}, not {ours:?}", system.name)));
        }
    }
    Ok(())
}

/// Prints a line, and returns the times that the others are compared with. The fastest tenth is what a run takes that
/// nothing else on the machine got in the way of.
fn row(system: &System, samples: &[Sample], traces: &[Sample], ours: Option<[Duration; 2]>) -> [Duration; 2] {
    let mut all: Vec<Duration> = samples.iter().map(|s| s.wall).collect();
    all.sort_unstable();
    let walls = [all[(all.len() - 1) / 2], all[(all.len() - 1) / 10]];
    let median = |of: fn(&Sample) -> u64, samples: &[Sample]| {
        let mut all: Vec<u64> = samples.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    let ours = ours.unwrap_or(walls);
    let [usual, fast] = [0, 1].map(|n| {
        let (wall, ours) = (walls[n].as_secs_f64(), ours[n].as_secs_f64());
        format!("{:.3} ms | {:.1}", wall * 1e3, wall / ours)
    });
    println!(
        "| {} | {usual} | {fast} | {} | {} | {} | {} KiB |",
        system.name,
        median(|s| s.faults, samples),
        median(|s| s.calls, traces),
        median(|s| s.processes, traces),
        median(|s| s.peak, traces),
    );
    ours
}
