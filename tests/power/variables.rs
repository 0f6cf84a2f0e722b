//! The bootloader's variables on the disk: two copies, of which one counts. One of them, `case`, which no operation touches,
//! tells what is to become of the others, and with them of the floor.

use std::fs;
use std::path::{Path, PathBuf};

use bootward::trial::floor;
use bootward::uboot::store::{Loaded, Store};

use super::tree::committed;

/// The two copies.
pub const COPIES: [&str; 2] = ["env.a", "env.b"];

/// What an operation makes of the variables: all of it or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The value of `case`.
    name: &'static str,
    before: [(&'static str, &'static str); 3],
    after: [(&'static str, &'static str); 3],
    /// Whoever boots the version that `new` names must find them changed: its boots are counted.
    trial: bool,
    /// The floor is the first of these versions, then the second one.
    floor: Option<[u32; 2]>,
}

/// What is over is cleared.
pub const CLEARED: Change = Change {
    name: "cleared",
    before: [("rollback", "1"), ("bootcount", "4"), ("upgrade_available", "0")],
    after: [("rollback", "0"), ("bootcount", "0"), ("upgrade_available", "0")],
    trial: false,
    floor: None,
};
/// A trial begins.
pub const TRIAL: Change = Change {
    name: "trial",
    before: [("rollback", "0"), ("bootcount", "4"), ("upgrade_available", "0")],
    after: [("rollback", "0"), ("bootcount", "0"), ("upgrade_available", "1")],
    trial: true,
    floor: None,
};
/// A trial ends well.
pub const GOOD: Change = Change {
    name: "good",
    before: [("rollback", "0"), ("bootcount", "1"), ("upgrade_available", "1")],
    after: [("rollback", "0"), ("bootcount", "0"), ("upgrade_available", "0")],
    trial: false,
    floor: Some([1, 2]),
};

impl Change {
    /// The text that `mkenvimage` makes the copies of, before an operation that is about version `new`.
    pub fn text(&self, new: u32) -> String {
        let lines: String = self.before.iter().map(|(n, v)| format!("{n}={v}\n")).collect();
        format!("{lines}bootlimit=3\ncase={}\nnew={new}\n", self.name)
    }
}

/// Writes the `fw_env.config` of the copies in `directory`, beside the mount point `at`, and returns its path.
pub fn config(at: &Path, directory: &Path) -> PathBuf {
    let config = at.with_extension("fw_env.config");
    let copy = |name: &str| format!("{} 0 0x1000\n", directory.join(name).display());
    fs::write(&config, COPIES.map(copy).concat()).expect("there is room beside the disk");
    config
}

/// The variables, what is to become of them, and whether it has.
fn read(at: &Path, directory: &Path) -> Result<(Loaded, Change, bool), String> {
    let loaded = Store::open_to_read(&config(at, directory)).and_then(|mut s| s.load());
    let loaded = loaded.map_err(|e| format!("the variables: {e}"))?;
    let is = |name: &str, value: &str| loaded.get(name.as_bytes()) == Some(value.as_bytes());
    let change = [CLEARED, TRIAL, GOOD].into_iter().find(|change| is("case", change.name));
    let change = change.ok_or_else(|| format!("the variables are lost: {}", loaded.condition))?;
    let are = |all: [(&str, &str); 3]| all.iter().all(|(n, v)| is(n, v));
    match (are(change.before), are(change.after)) {
        (true, false) => Ok((loaded, change, false)),
        (false, true) => Ok((loaded, change, true)),
        _ => Err(format!("the variables are neither the old nor the new ones: {}", loaded.condition)),
    }
}

/// Whether the variables are the new ones and not the old ones.
///
/// # Errors
/// When they are neither, or cannot be read.
pub fn changed(at: &Path, directory: &Path) -> Result<bool, String> {
    read(at, directory).map(|(_, _, changed)| changed)
}

fn directory(at: &Path) -> Option<PathBuf> {
    [at.into(), at.join("boot")].into_iter().find(|d: &PathBuf| d.join(COPIES[0]).exists())
}

/// What is wrong with the variables on a mounted disk, if there are any.
pub fn fault(at: &Path) -> Option<String> {
    changed(at, &directory(at)?).err()
}

/// What is wrong with a disk from which this version runs: the variables, that nobody counts a new one's boots, or that
/// something older than what was confirmed would be let in.
pub fn wrong(at: &Path, version: u32) -> Option<String> {
    let (loaded, change, changed) = match read(at, &directory(at)?) {
        Ok(found) => found,
        Err(why) => return Some(why),
    };
    let new = loaded.get(b"new") == Some(version.to_string().as_bytes());
    if change.trial && new && !changed {
        return Some(format!("nobody counts the boots of version {version}"));
    }
    let floor = floor::read(at).mark.time;
    let versions = change.floor.into_iter().flatten().map(committed);
    let good = change.floor.is_none() || versions.into_iter().any(|time| time == floor);
    (!good).then(|| format!("the floor is at {floor}"))
}

/// What of the floor is not done.
pub fn unraised(at: &Path, directory: &Path) -> Option<String> {
    let (_, change, _) = read(at, directory).ok()?;
    let [_, to] = change.floor?;
    let copies = floor::PATHS.map(|path| fs::read(at.join(path)).ok());
    let marks = copies.map(|copy| floor::Floor::of([copy, None]).mark.time);
    (marks != [committed(to); 2]).then(|| format!("the floor's copies are at {marks:?}"))
}
