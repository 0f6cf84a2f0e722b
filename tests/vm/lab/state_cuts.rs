//! Power cuts in the writes of a state: those of U-Boot, and of `bootward env` in the system that it booted.
//!
//! QEMU logs every write that reaches the disk. Each is then replayed up to each point, torn at each sector from both
//! ends, and left out while later ones of the same flush arrived; `fw_printenv` must find a state that somebody wrote.

#[path = "../../power/blocklog.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the laboratory of power cuts needs, in its way"
)]
mod blocklog;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use blocklog::{Request, SECTOR};

use super::board::{FIRMWARE, Making, Uboot};
use super::tools::run;
use super::trials::{Played, Step, WORKS};
use super::{Fault, Outcome};

/// The variables of the state, as they follow each other: before the boot, counted, and confirmed.
const STATES: [&str; 3] = [
    "bootcount=0 bootlimit=2 rollback=0 upgrade_available=1",
    "bootcount=1 bootlimit=2 rollback=0 upgrade_available=1",
    "bootcount=0 bootlimit=2 rollback=0 upgrade_available=0",
];

/// Boots an update once, confirms it, and cuts the power everywhere.
///
/// # Errors
/// When a state is neither of those that were written.
pub fn cuts(uboot: Uboot) -> Outcome<String> {
    let name = Box::leak(format!("uboot-cuts{}", uboot.suffix()).into_boxed_str());
    let making = Making { name, uboot, log: true, ..WORKS.making };
    let board = making.make()?;
    let before = board.disk.with_file_name("before.img");
    copy(&board.disk, &before)?;
    let mut played = Played::new(&board, uboot);
    for step in [Step::Counted(1, 2), Step::Confirms, Step::Off] {
        played.step(&step)?;
    }
    drop(played);
    let log = board.disk.with_file_name("writes.log");
    let requests = blocklog::read(&log).map_err(|e| Fault::file("read", &log, &e))?;
    // Only the partition of the state is looked at.
    let requests: Vec<Request> = requests
        .into_iter()
        .filter(|r| r.flush || FIRMWARE.contains(&r.range.start) && FIRMWARE.contains(&(r.range.end - 1)))
        .collect();
    let after = board.disk.with_file_name("after.img");
    std::fs::rename(&board.disk, &after).map_err(|e| Fault::file("rename", &board.disk, &e))?;
    let scratch = Scratch { board: &board, before: &before };
    let mut seen = [0; STATES.len()];
    let mut points = 0;
    let mut judge = |writes: &mut dyn Iterator<Item = Write<'_>>, what: &dyn Fn() -> String| {
        points += 1;
        let state = scratch.state(writes).map_err(|fault| Fault::new(format!("{}: {fault}", what())))?;
        let found = STATES.iter().position(|wanted| *wanted == state);
        let Some(found) = found else { return Err(Fault::new(format!("{}: '{state}'", what()))) };
        if let Some(count) = seen.get_mut(found) {
            *count += 1;
        }
        Ok(())
    };
    let mut epoch = 0;
    for (index, request) in requests.iter().enumerate() {
        let done = || requests.get(..index).unwrap_or_default().iter().filter(|r| r.writes()).map(whole);
        judge(&mut done(), &|| format!("cut before write {index}"))?;
        if request.flush {
            epoch = index;
        }
        let sectors = request.data.len() / SECTOR;
        for cut in 1..sectors {
            let (head, tail) = torn(request, cut * SECTOR);
            judge(&mut done().chain([head]), &|| {
                format!("write {index}: its first {cut} of {sectors} sectors")
            })?;
            judge(&mut done().chain([tail]), &|| {
                format!("write {index}: all but its first {cut} of {sectors} sectors")
            })?;
        }
        // One that the medium still holds back while this one has arrived.
        for lost in epoch..index {
            let kept = requests.iter().enumerate().take(index + 1);
            let kept = kept.filter(|(at, r)| *at != lost && r.writes()).map(|(_, r)| whole(r));
            judge(&mut { kept }, &|| format!("write {lost} lost, {index} arrived"))?;
        }
    }
    judge(&mut requests.iter().filter(|r| r.writes()).map(whole), &|| "no cut".into())?;
    let writes = requests.iter().filter(|r| r.writes()).count();
    if seen.contains(&0) {
        return Err(Fault::new(format!("not every state was seen, which the cuts should find: {seen:?}")));
    }
    Ok(format!("{points} cuts in {writes} writes: {seen:?} of the states {STATES:?}, and no other"))
}

/// Bytes and where they go.
type Write<'a> = (u64, &'a [u8]);

fn whole(request: &Request) -> Write<'_> {
    (request.range.start, &request.data)
}

fn torn(request: &Request, at: usize) -> (Write<'_>, Write<'_>) {
    let (head, tail) = request.data.split_at_checked(at).unwrap_or_default();
    ((request.range.start, head), (request.range.start + at as u64, tail))
}

struct Scratch<'a> {
    board: &'a super::board::Board,
    before: &'a Path,
}

impl Scratch<'_> {
    /// What `fw_printenv` finds when these writes, and no others, have reached the disk.
    fn state(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> Outcome<String> {
        let disk = &self.board.disk;
        copy(self.before, disk)?;
        let file = OpenOptions::new().write(true).open(disk).map_err(|e| Fault::file("write", disk, &e))?;
        for (at, bytes) in writes {
            file.write_all_at(bytes, at).map_err(|e| Fault::file("write", disk, &e))?;
        }
        let stored = self.board.stored()?;
        let mut lines: Vec<&str> =
            stored.lines().filter(|l| STATES[0].split(' ').any(|s| same_name(s, l))).collect();
        lines.sort_unstable();
        Ok(lines.join(" "))
    }
}

fn same_name(one: &str, other: &str) -> bool {
    one.split('=').next() == other.split('=').next()
}

/// Only the partition of the state, and what is before it, is copied: the rest is not read.
fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let megabytes = (FIRMWARE.end >> 20).to_string();
    let script = "rm -f \"$2\"; head -c \"$3M\" \"$1\" | cp --sparse=always /dev/stdin \"$2\"";
    run(Command::new("sh").args(["-e", "-c", script, "sh"]).args([from, to]).arg(megabytes))?;
    File::open(to).map(drop).map_err(|e| Fault::file("read", to, &e))
}
