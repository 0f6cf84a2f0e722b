//! What pulling and deploying costs, against `ostree pull` and `ostree admin deploy`:
//! `cargo bench --bench pull [-- [quick] [alone | grid] [ROUNDS] [CASE|loopback|link ...] [/BINARY ...]]`. Each BINARY is a
//! build of ours in place of the one that ships, with options of `pull` after it ("/tmp/one --channels 8"); `alone` leaves the
//! peers out; `grid` takes ours with more and fewer connections and requests under way. README.md beside tests/bench has
//! the results.
//!
//! All tools in turn, round after round, so that what else the machine does meets all of them alike. Needs root.

#![allow(clippy::indexing_slicing, reason = "a bench that panics has failed")]

mod cases;
mod grid;
mod measure;
mod place;
mod relay;

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use cases::{CASES, Case, Payload, Tool, Work};
use measure::Sample;
use place::{Place, RATE, Server, Way, output};

/// Runs of each, by loopback and over the link, unless asked for others.
const ROUNDS: [usize; 2] = [9, 3];
/// As above, where it is to be quick.
const QUICK: [usize; 2] = [3, 1];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = if words.first().is_some_and(|word| word == "pull") {
        grid::pull(&words)
    } else {
        // cargo adds options of its own.
        bench(&words.into_iter().filter(|word| !word.starts_with("--")).collect::<Vec<_>>())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Our binaries: those that were named, else the one that ships, built for it.
fn ours(words: &[String]) -> io::Result<Vec<String>> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("this mounts: run it as root"));
    }
    if words.iter().any(|word| word == "grid") {
        return grid::lines();
    }
    let named: Vec<String> = words.iter().filter(|w| w.starts_with('/')).cloned().collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("initramfs/binary");
    Ok(vec![output(Command::new(script).arg(std::env::consts::ARCH))?.trim().into()])
}

fn bench(words: &[String]) -> io::Result<()> {
    let has = |name: &str| words.iter().any(|word| word == name);
    let rounds = words.iter().find_map(|word| word.parse().ok());
    let rounds = rounds.map_or(if has("quick") { QUICK } else { ROUNDS }, |n| [n, n]);
    let grid = has("grid");
    let cases: Vec<Case> =
        CASES.into_iter().filter(|c| has(c.name) || !CASES.iter().any(|c| has(c.name))).collect();

    let binaries = ours(words)?;
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab");
    let first = if grid { "bootward" } else { binaries[0].split(' ').next().unwrap_or_default() };
    let payload = Payload::new(&lab, Path::new(first))?;
    let mut tools = Tool::ours(&binaries);
    if !has("alone") && !grid {
        tools.extend(Tool::peers(&lab)?);
    }
    let place = Place::new(&lab.join("bench-room"))?;
    payload.templates(&place)?;
    println!(
        "Linux {}, {} CPUs",
        std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        std::thread::available_parallelism()?
    );
    let mut failed = false;
    for (way, rounds) in [Way::Loopback, Way::Link].into_iter().zip(rounds) {
        if (has("loopback") || has("link")) && !has(&format!("{way:?}").to_lowercase()) {
            continue;
        }
        let mut server = Server::start(&place, way, payload.dir())?;
        for case in cases.iter().filter(|case| cases::ways(case).contains(&way)) {
            let bytes = payload.bytes(case)?;
            let mut cells: Vec<Cell> = vec![Ok(Vec::new()); tools.len()];
            for round in 0..rounds {
                for turn in 0..tools.len() {
                    let number = (turn + round) % tools.len();
                    // One that failed is not tried again, and the others are measured all the same.
                    let Ok(samples) = &mut cells[number] else { continue };
                    match once(&payload, &place, case, &tools[number], &mut server, round == 0) {
                        Ok(sample) => samples.push(sample),
                        Err(why) => cells[number] = Err(why.to_string()),
                    }
                }
            }
            failed |= cells.iter().any(Cell::is_err);
            table(case, way, bytes, rounds, &tools, &cells);
        }
    }
    if failed { Err(io::Error::other("not all could be measured")) } else { Ok(()) }
}

/// The runs of one tool, or why one of them failed.
type Cell = Result<Vec<Sample>, String>;

fn once(
    payload: &Payload,
    place: &Place,
    case: &Case,
    tool: &Tool,
    server: &mut Server,
    first: bool,
) -> io::Result<Sample> {
    let disk = place.disk(case.template)?;
    let mut command = payload.command(case, tool, disk.path(), server)?;
    // Deployments are immutable else, and the filesystem could not be told from ours.
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments");
    server.begin()?;
    let sample = measure::run(&mut command)?;
    let (requests, wire) = match case.work {
        Work::Pull { .. } => server.counted()?,
        Work::Deploy => (0, 0),
    };
    payload.judge(case, disk.path(), first).map_err(|e| io::Error::other(format!("{}: {e}", tool.name)))?;
    Ok(Sample { requests, wire, ..sample })
}

fn table(case: &Case, way: Way, bytes: u64, rounds: usize, tools: &[Tool], cells: &[Cell]) {
    let line = bytes as f64 * 8.0 / RATE;
    let over = match (case.work, way) {
        (Work::Deploy, _) => String::new(),
        (_, Way::Loopback) => format!(", loopback; {:.1} MB", bytes as f64 / 1e6),
        (_, Way::Link) => {
            format!(", 50 ms and 20 Mbit/s; {:.1} MB, {line:.2} s of the line", bytes as f64 / 1e6)
        }
    };
    println!("\n{}{over}; {rounds} rounds\n", case.title);
    println!("| tool | wall | of ours | spread | of the line | CPU | peak | requests | on the wire |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut ours = None;
    for (tool, cell) in tools.iter().zip(cells) {
        let samples = match cell {
            Ok(samples) => samples,
            Err(why) => {
                let why = why.trim().replace('\n', "; ").replace('|', "/");
                println!("| {} | failed: {why} | | | | | | | |", tool.name);
                continue;
            }
        };
        let sorted = |of: &dyn Fn(&Sample) -> f64| {
            let mut all: Vec<f64> = samples.iter().map(of).collect();
            all.sort_unstable_by(f64::total_cmp);
            all
        };
        let median = |of: &dyn Fn(&Sample) -> f64| sorted(of)[samples.len() / 2];
        let walls = sorted(&|s| s.wall.as_secs_f64());
        let wall = walls[walls.len() / 2];
        let times = wall / *ours.get_or_insert(wall);
        let of_line = match (case.work, way) {
            (Work::Pull { .. }, Way::Link) => format!("{:.2}", wall / line),
            _ => "–".into(),
        };
        println!(
            "| {} | {wall:.2} s | {times:.2} | {:.2}–{:.2} | {of_line} | {:.2} s | {:.1} MB | {:.0} | {:.1} MB |",
            tool.name,
            walls[0],
            walls[walls.len() - 1],
            median(&|s| s.cpu.as_secs_f64()),
            median(&|s| s.peak as f64) * 1024.0 / 1e6,
            median(&|s| s.requests as f64),
            median(&|s| s.wire as f64) / 1e6,
        );
    }
}
