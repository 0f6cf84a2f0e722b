//! The laboratory's words for the person who runs it.

use std::fmt;

use super::campaign::{Counts, Judged, Verdict};
use super::chosen::Outcome;
use super::faults::{Fault, Swept};
use super::scenario::Scenario;
use super::states::Class;
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
pub fn print_counts(scenario: &Scenario, class: Class, judged: &[Judged]) {
    for system in [System::Bootward, System::PrepareRoot] {
        let counts = Counts::of(judged, system);
        if counts.total() == 0 {
            continue;
        }
        let versions = counts.whole.iter().map(|(version, n)| format!("v{version} {n}"));
        println!(
            "  {:<10} {:<20} {:>6} states: whole {} ({}), corrupt {}, dead {}; no kernel {}, no file system {}",
            class.to_string(),
            system.name(),
            counts.total(),
            counts.whole.values().sum::<usize>(),
            versions.collect::<Vec<_>>().join(", "),
            counts.corrupt,
            counts.dead,
            counts.no_kernel,
            counts.no_filesystem,
        );
        if let (System::PrepareRoot, Some((first, last))) = (system, window(judged)) {
            println!("  {:<10} its dead states are from {first} to {last} of {}", "", scenario.name);
        }
    }
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
    let failed =
        |j: &&Judged| j.system == system && matches!(j.verdict, Verdict::Dead(_) | Verdict::Corrupt(_));
    for j in judged.iter().filter(failed).take(TOLD) {
        println!("  FAILED: {}: {}", j.state, j.verdict);
        println!("    again: cargo test --test power -- {} --state {}", scenario.name, j.state);
    }
    let more = judged.iter().filter(failed).count().saturating_sub(TOLD);
    if more > 0 {
        println!("  FAILED: {more} more");
    }
}

/// A line for a sweep of faults, and its failures. Whether there were none.
pub fn swept(what: &str, fault: Fault, swept: &Swept) -> bool {
    let (points, through) = (swept.points, swept.came_through);
    println!(
        "  {what:<10} {:<8} at {points} calls: came through {through}, failures {}",
        fault.name(),
        swept.failures.len()
    );
    for failure in swept.failures.iter().take(TOLD) {
        println!("  FAILED: {failure}");
    }
    swept.failures.is_empty() && points > 0
}
