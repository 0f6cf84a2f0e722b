//! What is run, and in which order. Ring: alloc.
//!
//! A script is a regular file (links are followed) whose name ends with `.sh` or that is executable for anybody, as
//! in greenboot-rs. A `.sh` is given to bash whether it is executable or not, which both greenboots do; where there
//! is no bash it runs by itself if it is executable, else with `sh`. Names that begin with a dot are not scripts.
//! Places come one after the other, names within a place in the order of their bytes, as `LC_ALL=C sort` has them.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Where checks are looked for, in this order: bootward's own, then greenboot's; what comes with the system before
/// what the device adds.
pub const PLACES: [&str; 4] = ["usr/lib/bootward", "etc/bootward", "usr/lib/greenboot", "etc/greenboot"];
/// More entries than this in one directory, or scripts in one stage, are refused.
pub const MAX_ENTRIES: usize = 256;
/// More names than this are not taken from `DISABLED_HEALTHCHECKS`.
pub const MAX_DISABLED: usize = 256;

/// Which of the four directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Must pass.
    Required,
    /// May fail.
    Wanted,
    /// Runs after the checks have passed.
    Green,
    /// Runs after one has failed.
    Red,
}

impl Stage {
    /// The directory below each of [`PLACES`].
    pub fn directory(self) -> &'static str {
        match self {
            Stage::Required => "check/required.d",
            Stage::Wanted => "check/wanted.d",
            Stage::Green => "green.d",
            Stage::Red => "red.d",
        }
    }

    /// One word for people and for `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Required => "required",
            Stage::Wanted => "wanted",
            Stage::Green => "green",
            Stage::Red => "red",
        }
    }
}

/// What an entry of a directory is, links followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file, and whether anybody may execute it.
    File {
        /// One of the three execute bits is set.
        executable: bool,
    },
    /// A link to `/dev/null`.
    Null,
    /// A link that leads nowhere, or gone since the directory was read.
    Nowhere,
    /// A directory, a device and the like.
    Other,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// One directory as it was found; a directory that is not there has no listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Which of [`PLACES`] it is in.
    pub place: usize,
    /// Its path.
    pub path: String,
    /// Its entries in any order, or why it cannot be read.
    pub entries: Result<Vec<Entry>, String>,
}

/// What runs a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runner {
    /// The kernel: it is executable.
    Itself,
    /// bash.
    Bash,
    /// The system's shell.
    Sh,
}

/// One script to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// Its stage.
    pub stage: Stage,
    /// Its file name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// What runs it.
    pub runner: Runner,
}

/// What a stage consists of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The scripts, in order.
    pub scripts: Vec<Script>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
    /// What keeps the stage from being known: a required stage with one of these has failed.
    pub troubles: Vec<String>,
}

/// Makes the plan of a stage. `disabled` are the names that greenboot's configuration switches off; an entry
/// of `etc` that is a link to `/dev/null` switches off the one of the same name in its `usr/lib`, as systemd has
/// it. `bash` says whether there is one.
pub fn plan(stage: Stage, listings: &[Listing], disabled: &[String], bash: bool) -> Plan {
    let mut plan = Plan::default();
    let masks = masks(listings);
    for listing in listings {
        let entries = match &listing.entries {
            Ok(entries) => entries,
            Err(reason) => {
                plan.troubles.push(format!("{}: {reason}", listing.path));
                continue;
            }
        };
        let mut entries: Vec<&Entry> = entries.iter().filter(|e| !e.name.starts_with('.')).collect();
        entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        for entry in entries {
            let path = format!("{}/{}", listing.path, entry.name);
            let masked = masks.contains(&(listing.place, entry.name.as_str()));
            match runner(entry, bash) {
                Err("") => {}
                Err(reason) => plan.notes.push(format!("{path} is no check: {reason}")),
                Ok(_) if masked => plan.notes.push(format!("{path} is switched off by a link to /dev/null")),
                Ok(_) if disabled.contains(&entry.name) => {
                    plan.notes.push(format!("{path} is switched off by DISABLED_HEALTHCHECKS"));
                }
                Ok(_) if plan.scripts.len() == MAX_ENTRIES => {
                    plan.troubles.push(format!("{path}: there are more than {MAX_ENTRIES} scripts"));
                    return plan;
                }
                Ok(runner) => plan.scripts.push(Script { stage, name: entry.name.clone(), path, runner }),
            }
        }
    }
    plan
}

/// Which names are switched off in which place: an entry of `etc/X` covers `usr/lib/X`, which [`PLACES`] has just
/// before it.
fn masks(listings: &[Listing]) -> BTreeSet<(usize, &str)> {
    let mut masks = BTreeSet::new();
    for listing in listings.iter().filter(|l| l.place % 2 == 1) {
        let null = listing.entries.iter().flatten().filter(|e| e.kind == Kind::Null);
        masks.extend(null.map(|e| (listing.place - 1, e.name.as_str())));
    }
    masks
}

/// What runs an entry, or why it is no check; an empty reason where there is nothing to tell.
fn runner(entry: &Entry, bash: bool) -> Result<Runner, &'static str> {
    let shell = entry.name.ends_with(".sh");
    match entry.kind {
        Kind::File { .. } if shell && bash => Ok(Runner::Bash),
        Kind::File { executable: true } => Ok(Runner::Itself),
        Kind::File { executable: false } if shell => Ok(Runner::Sh),
        Kind::File { executable: false } => Err("it is not executable"),
        Kind::Null => Err(""),
        Kind::Nowhere => Err("it leads nowhere"),
        Kind::Other => Err("it is no file"),
    }
}

/// The names in `DISABLED_HEALTHCHECKS` of a `greenboot.conf`: `NAME=( "a.sh" 'b.sh' c.sh )` over one or more lines,
/// also without the brackets and with commas, as greenboot-rs takes it. The last assignment counts, as in a shell.
pub fn disabled(config: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = false;
    for line in config.lines() {
        let line = line.trim();
        let rest = if open {
            line
        } else {
            let Some(value) = line.strip_prefix("DISABLED_HEALTHCHECKS").map(str::trim_start) else {
                continue;
            };
            let Some(value) = value.strip_prefix('=') else { continue };
            names.clear();
            let value = value.trim_start();
            open = value.starts_with('(');
            value.strip_prefix('(').unwrap_or(value)
        };
        let rest = comment_off(rest);
        let (inside, closed) = match rest.split_once(')') {
            Some((inside, _)) => (inside, true),
            None => (rest, false),
        };
        let quote = |c| matches!(c, '"' | '\'' | '[' | ']');
        let words = inside.split(|c: char| c.is_whitespace() || c == ',');
        names.extend(words.map(|w| w.trim_matches(quote)).filter(|w| !w.is_empty()).map(ToString::to_string));
        names.truncate(MAX_DISABLED);
        open &= !closed;
    }
    names
}

/// Without a comment, which begins with a `#` at the start of a word.
fn comment_off(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return line.get(..at).unwrap_or(line);
        }
        before = c;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(place: usize, entries: &[(&str, Kind)]) -> Listing {
        let entries = entries.iter().map(|(name, kind)| Entry { name: (*name).into(), kind: *kind });
        let path = format!("/{}/check/required.d", PLACES[place]);
        Listing { place, path, entries: Ok(entries.collect()) }
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.scripts.iter().map(|s| s.name.as_str()).collect()
    }

    const FILE: Kind = Kind::File { executable: false };
    const PROGRAM: Kind = Kind::File { executable: true };

    #[test]
    fn what_counts_and_what_runs_it() {
        let entries = [
            ("z", PROGRAM),
            ("a.sh", FILE),
            ("b.sh", PROGRAM),
            ("README", FILE),
            ("old", Kind::Other),
            ("gone.sh", Kind::Nowhere),
            (".hidden.sh", PROGRAM),
        ];
        let made = plan(Stage::Required, &[listing(0, &entries)], &[], false);
        let runners: Vec<_> = made.scripts.iter().map(|s| (s.name.as_str(), s.runner)).collect();
        assert_eq!(runners, [("a.sh", Runner::Sh), ("b.sh", Runner::Itself), ("z", Runner::Itself)]);
        assert_eq!(made.notes.len(), 3, "{:?}", made.notes);
        assert!(made.notes.iter().any(|n| n.ends_with("README is no check: it is not executable")));
        let made = plan(Stage::Required, &[listing(0, &entries)], &[], true);
        let runners: Vec<_> = made.scripts.iter().map(|s| s.runner).collect();
        assert_eq!(runners, [Runner::Bash, Runner::Bash, Runner::Itself]);
    }

    #[test]
    fn places_in_order_then_names_by_their_bytes() {
        let first = listing(0, &[("b", PROGRAM), ("B", PROGRAM), ("10", PROGRAM), ("9", PROGRAM)]);
        let second = listing(1, &[("a", PROGRAM)]);
        let made = plan(Stage::Wanted, &[first, second], &[], false);
        assert_eq!(names(&made), ["10", "9", "B", "b", "a"]);
        assert_eq!(made.scripts[4].path, "/etc/bootward/check/required.d/a");
    }

    #[test]
    fn switched_off_by_name_and_by_a_link() {
        let shipped = listing(2, &[("a.sh", PROGRAM), ("b.sh", PROGRAM), ("c.sh", PROGRAM)]);
        let local = listing(3, &[("b.sh", Kind::Null), ("d.sh", PROGRAM)]);
        let own = listing(0, &[("b.sh", PROGRAM)]);
        let made = plan(Stage::Required, &[own, shipped, local], &["c.sh".into()], false);
        assert_eq!(names(&made), ["b.sh", "a.sh", "d.sh"], "{:?}", made.notes);
        assert_eq!(made.notes.len(), 2);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_no_empty_directory() {
        let bad = Listing { place: 0, path: "/x".into(), entries: Err("Input/output error".into()) };
        assert_eq!(plan(Stage::Required, &[bad], &[], false).troubles, ["/x: Input/output error"]);
        let many: Vec<_> = (0..=MAX_ENTRIES).map(|n| format!("{n:04}")).collect();
        let many: Vec<_> = many.iter().map(|n| (n.as_str(), PROGRAM)).collect();
        let made = plan(Stage::Required, &[listing(0, &many)], &[], false);
        assert_eq!((made.scripts.len(), made.troubles.len()), (MAX_ENTRIES, 1));
    }

    #[test]
    fn greenboots_list_of_disabled_checks() {
        assert_eq!(disabled("DISABLED_HEALTHCHECKS=()\n"), Vec::<String>::new());
        assert_eq!(disabled("### DISABLED_HEALTHCHECKS=(\n### \"01.sh\"\n### )\n"), Vec::<String>::new());
        assert_eq!(
            disabled("A=1\nDISABLED_HEALTHCHECKS=(\"a.sh\" 'b.sh' c.sh)\nB=(d.sh)\n"),
            ["a.sh", "b.sh", "c.sh"]
        );
        let over = "DISABLED_HEALTHCHECKS=(\n  \"a.sh\" # why\n#b.sh\n\n c.sh\n)\nX=\"d.sh\"\n";
        assert_eq!(disabled(over), ["a.sh", "c.sh"]);
        assert_eq!(disabled("DISABLED_HEALTHCHECKS=[\"a.sh\", \"b.sh\"]\n"), ["a.sh", "b.sh"]);
        assert_eq!(disabled("DISABLED_HEALTHCHECKS=(a)\nDISABLED_HEALTHCHECKS=(b)\n"), ["b"]);
        assert_eq!(disabled("DISABLED_HEALTHCHECKSX=(a)\n"), Vec::<String>::new());
    }
}
