//! One state of each kind of outcome, with its disks: for machines that are no model.

use std::fs;
use std::io;
use std::path::Path;

use super::campaign::{Campaign, Judged, Place, Verdict};
use super::disk::extract;
use super::loader::{Loaded, load};
use super::replay::Replay;
use super::states::{Class, State, states};
use super::systems::System;

/// So many prefixes are judged at first, and so many states of another class at most.
const TRIED: usize = 60;

/// What became of one state with bootward and with ostree-prepare-root.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The state.
    pub state: State,
    /// With bootward.
    pub bootward: Verdict,
    /// With ostree-prepare-root.
    pub peer: Verdict,
}

impl Outcome {
    /// The link that the bootloader passed on is gone: only bootward boots.
    fn is_stale(&self) -> bool {
        matches!((&self.bootward, &self.peer), (Verdict::Whole(_), Verdict::Dead(_)))
    }

    /// Both boot this version.
    fn boots(&self, version: u32) -> bool {
        self.bootward == Verdict::Whole(version) && self.peer == self.bootward
    }
}

/// The outcomes of what was judged with both systems.
pub fn outcomes(judged: &[Judged]) -> Vec<Outcome> {
    let both = |pair: &[Judged]| match pair {
        [one, two] if one.state == two.state && one.system == System::Bootward => {
            let (bootward, peer) = (one.verdict.clone(), two.verdict.clone());
            Some(Outcome { state: one.state.clone(), bootward, peer })
        }
        _ => None,
    };
    judged.chunks(2).filter_map(both).collect()
}

/// The middle one of the states that ostree-prepare-root does not boot and bootward does.
pub fn stale(outcomes: &[Outcome]) -> Option<&Outcome> {
    let stale: Vec<&Outcome> = outcomes.iter().filter(|o| o.is_stale()).collect();
    stale.get(stale.len() / 2).copied()
}

/// Looks for a state of each kind: before the loader's switch and after it, between both with the link gone, and the
/// like of it with lost writes and with a torn one. The version before the operation is `old`.
///
/// # Errors
/// When the laboratory itself fails, or there is no state of a kind.
pub fn choose(campaign: &Campaign, old: u32) -> io::Result<Vec<(&'static str, Outcome)>> {
    let missing = |what: &str| io::Error::other(format!("no state is {what}"));
    let count = campaign.recording.requests.len();
    let mut prefixes = outcomes(&campaign.run(Class::Prefix, count / TRIED)?);
    if stale(&prefixes).is_none() {
        prefixes = outcomes(&campaign.run(Class::Prefix, 1)?);
    }
    let first = prefixes.iter().position(Outcome::is_stale).ok_or_else(|| missing("stale"))?;
    let last = prefixes.iter().rposition(Outcome::is_stale).unwrap_or(first);
    let before = prefixes[..first].iter().rev().find(|o| o.boots(old)).ok_or_else(|| missing("before"))?;
    let after = prefixes[last..].iter().find(|o| o.boots(old + 1)).ok_or_else(|| missing("after"))?;
    let middle = stale(&prefixes).ok_or_else(|| missing("stale"))?;
    let mut chosen = vec![("before", before.clone()), ("stale", middle.clone()), ("after", after.clone())];
    let window = prefixes[first].state.first..=prefixes[last].state.first;
    for (name, class) in [("reordered", Class::Reordered), ("torn", Class::Torn)] {
        let mut near = states(&campaign.recording.requests, class);
        near.retain(|state| window.contains(&state.first));
        let near: Vec<State> = near.iter().step_by((near.len() / TRIED).max(1)).cloned().collect();
        let near = outcomes(&campaign.judge(&near)?);
        let like = stale(&near).or_else(|| near.iter().find(|o| o.boots(old) || o.boots(old + 1)));
        chosen.push((name, like.ok_or_else(|| missing(name))?.clone()));
    }
    Ok(chosen)
}

/// Writes the disks of `outcome` to `dir`, an image for each file system, and beside them the file `state`: its id, the
/// command line that the bootloader passes, and what became of it here, the version or `dead`.
///
/// # Errors
/// When there is no room.
pub fn write(campaign: &Campaign, place: &Place, outcome: &Outcome, dir: &Path) -> io::Result<()> {
    let image = Replay::new(campaign.recording, &place.dir)?.make(&outcome.state)?;
    let layout = campaign.recording.layout;
    let Loaded::Kernel { command_line } = load(&image, layout, &place.mount, campaign.trees) else {
        return Err(io::Error::other(format!("the bootloader finds no kernel in {}", outcome.state)));
    };
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir)?;
    for partition in layout {
        extract(&image, partition, &dir.join(partition.label).with_extension("img"))?;
    }
    fs::remove_file(image)?;
    let became = |verdict: &Verdict| match verdict {
        Verdict::Whole(version) => version.to_string(),
        _ => "dead".into(),
    };
    let (bootward, peer) = (became(&outcome.bootward), became(&outcome.peer));
    let told = format!("id={}\ncommand_line={command_line}\n", outcome.state)
        + &format!("bootward={bootward}\nostree-prepare-root={peer}\n");
    fs::write(dir.join("state"), told)
}
