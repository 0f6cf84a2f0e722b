//! The laboratory's words for the person who runs it.

use std::collections::BTreeMap;
use std::fmt;

use super::campaign::{Counts, Judged, Verdict};
use super::chosen::Outcome;
use super::faults::{Fault, Point};
use super::scenario::Scenario;
use super::systems::System;

/// So many failures are told one by one.
const TOLD: usize = 10;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Whole(version) => write!(f, "boots version {version}, whole"),
            Verdict::Corrupt(what) => write!(f, "boots what was never committed: {what}"),
            Verdict::Dead(why) => write!(f, "does not boot: {why}"),
            Verdict::NoFilesystem(why) => write!(f, "Linux cannot mount the root: {why}"),
            Verdict::NoKernel(why) => write!(f, "the bootloader finds no kernel: {why}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bootward, peer) = (System::Bootward.name(), System::PrepareRoot.name());
        write!(f, "{}: {bootward} {}; {peer} {}", self.state, self.bootward, self.peer)
    }
}

/// A line for each system.
pub fn print_counts(scenario: &Scenario, class: &str, judged: &[Judged]) {
    for system in [System::Bootward, System::PrepareRoot] {
        let counts = Counts::of(judged, system);
        if counts.total() == 0 {
            continue;
        }
        let versions = counts.whole.iter().map(|(version, n)| format!("v{version} {n}"));
        println!(
            "  {:<15} {:<20} {:>6} states: whole {} ({}), corrupt {}, dead {}; no kernel {}, no file system {}",
            class,
            system.name(),
            counts.total(),
            counts.whole.values().sum::<usize>(),
            versions.collect::<Vec<_>>().join(", "),
            counts.corrupt,
            counts.dead,
            counts.no_kernel,
            counts.no_filesystem,
        );
        // Of these no system has a say: they are the same for both.
        for (why, n) in
            unreachable(judged, system).into_iter().take(TOLD).filter(|_| system == judged[0].system)
        {
            println!("  {:<15} {n} times {why}", "");
        }
        if let (System::PrepareRoot, Some((first, last))) = (system, window(judged)) {
            println!("  {:<15} its dead states are from {first} to {last} of {}", "", scenario.name);
        }
    }
}

/// Why no kernel was found or no root could be mounted, and how often.
fn unreachable(judged: &[Judged], system: System) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for j in judged.iter().filter(|j| j.system == system) {
        if let Verdict::NoKernel(why) | Verdict::NoFilesystem(why) = &j.verdict {
            *reasons.entry(why.as_str()).or_default() += 1;
        }
    }
    reasons
}

/// The first and the last state that ostree-prepare-root does not boot.
fn window(judged: &[Judged]) -> Option<(String, String)> {
    let mut dead = judged
        .iter()
        .filter(|j| j.system == System::PrepareRoot && matches!(j.verdict, Verdict::Dead(_)))
        .map(|j| j.state.to_string());
    let first = dead.next()?;
    Some((first.clone(), dead.next_back().unwrap_or(first)))
}

/// The states that `system` failed in, with the command that shows one alone.
pub fn print_failures(scenario: &Scenario, judged: &[Judged], system: System) {
    print_failures_after("", scenario, judged, system);
}

/// As [`print_failures`], of states of the boot of another state.
pub fn print_failures_after(first: &str, scenario: &Scenario, judged: &[Judged], system: System) {
    let failed =
        |j: &&Judged| j.system == system && matches!(j.verdict, Verdict::Dead(_) | Verdict::Corrupt(_));
    for j in judged.iter().filter(failed).take(TOLD) {
        println!("  FAILED: {first}{}: {}", j.state, j.verdict);
        println!("    again: cargo test --test power -- {} --state {first}{}", scenario.name, j.state);
    }
    let more = judged.iter().filter(failed).count().saturating_sub(TOLD);
    if more > 0 {
        println!("  FAILED: {more} more");
    }
}

/// A line for a sweep of faults, and its failures. Whether there were none.
pub fn swept(what: &str, fault: Fault, points: &[Point]) -> bool {
    let through = points.iter().filter(|p| p.came_through).count();
    let failures: Vec<&String> = points.iter().flat_map(|p| &p.failures).collect();
    let (name, points) = (fault.name(), points.len());
    println!("  {what:<10} {name:<8} at {points} calls: came through {through}, failures {}", failures.len());
    for failure in failures.iter().take(TOLD) {
        println!("  FAILED: {failure}");
    }
    // Nothing survives being killed: else the faults do not arrive where they should.
    let arrived = fault != Fault::Kill || through < points;
    if !arrived {
        println!("  FAILED: every one of {points} killed processes came through");
    }
    failures.is_empty() && points > 0 && arrived
}
