//! The command line of the laboratory.

use std::path::PathBuf;

use super::faults::Fault;
use super::scenario::{SCENARIOS, Scenario};
use super::states::{Class, State};
use super::systems::System;

const HELP: &str = "\
The power-cut laboratory. Every write of an update is recorded; every state that a power cut can leave behind is
made again, looked at as a bootloader without journal replay does, and booted: by bootward as /init, and by
libostree's ostree-prepare-root. Needs root.

Usage: cargo test --test power                        what the CI runs
       cargo test --test power -- [OPTIONS] SCENARIO ...
       cargo test --test power -- SCENARIO --state ID  one state of the last recording, with all that was said

  all             instead of names: every scenario
  --class CLASS   prefixes, reordered, torn, or all; default: prefixes
  --every N       only every Nth state
  --system NAME   bootward, ostree-prepare-root, or both; default: both
  --kept          judge the last recording instead of making one
  --faults NAME   instead: SIGKILL, EIO, ENOSPC, EROFS, EINTR or all, at every system call of the update that
                  changes something, and at every one of a boot with bootward
  --again N       instead: boot each state with bootward, cut that boot too, and judge every Nth state of all classes
                  that this leaves; --every should leave few of the first ones. Their ids are FIRST/SECOND
  --disks DIR     instead: a state of each kind of outcome, as disk images in DIR
  --bootward FILE its device binary; default: it is built
  --workers N     how many at a time; default: four for each processor

Exit codes: 0 bootward came up with a whole deployment in every state with a kernel; 1 it did not; 2 usage.

Scenarios:
";

/// What was asked for.
pub enum Options {
    /// To say how it is used.
    Help(String),
    /// What the CI runs.
    Check,
    /// To judge scenarios.
    Judge(Judge),
    /// To inject faults.
    Faults(Judge, Vec<Fault>),
    /// To cut the boots of the states as well: every so manyth state of those.
    Again(Judge, usize),
    /// To write the disks of chosen states into this directory.
    Disks(Judge, PathBuf),
    /// To look at one state.
    Replay {
        /// Of this scenario.
        scenario: &'static Scenario,
        /// The state.
        state: State,
        /// A state of its boot.
        second: Option<State>,
    },
}

/// What is to be judged.
pub struct Judge {
    /// The scenarios.
    pub scenarios: Vec<&'static Scenario>,
    /// The kinds of states.
    pub classes: Vec<Class>,
    /// Every so manyth state.
    pub every: usize,
    /// The systems.
    pub systems: Vec<System>,
    /// The last recording, no new one.
    pub kept: bool,
    /// The device binary, if it is not to be built.
    pub bootward: Option<PathBuf>,
    /// How many at a time.
    pub workers: Option<usize>,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// What is wrong with them, for the person.
    pub fn read(arguments: &[String]) -> Result<Self, String> {
        if arguments.is_empty() {
            return Ok(Options::Check);
        }
        let mut judge = Judge {
            scenarios: Vec::new(),
            classes: vec![Class::Prefix],
            every: 1,
            systems: vec![System::Bootward, System::PrepareRoot],
            kept: false,
            bootward: None,
            workers: None,
        };
        let (mut state, mut faults, mut disks) = (None, Vec::new(), None);
        let mut again = None;
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or(format!("{argument} wants a value"));
            match argument {
                "--help" | "-h" => return Ok(Options::Help(help())),
                "--kept" => judge.kept = true,
                "--class" => judge.classes = classes(value()?)?,
                "--system" => judge.systems = systems(value()?)?,
                "--every" => judge.every = number(value()?)?,
                "--faults" => faults = chosen_faults(value()?)?,
                "--again" => again = Some(number(value()?)?),
                "--bootward" => judge.bootward = Some(PathBuf::from(value()?)),
                "--disks" => disks = Some(PathBuf::from(value()?)),
                "--workers" => judge.workers = Some(number(value()?)?),
                "--state" => state = Some(value()?),
                "all" => judge.scenarios = SCENARIOS.iter().collect(),
                name => {
                    let found = Scenario::named(name).ok_or(format!("there is no scenario '{name}'"))?;
                    judge.scenarios.push(found);
                }
            }
        }
        if let (Some(dir), [_]) = (&disks, judge.scenarios.as_slice()) {
            return Ok(Options::Disks(judge, dir.clone()));
        }
        match (state, judge.scenarios.as_slice()) {
            _ if disks.is_some() => Err("--disks takes one scenario".into()),
            (_, []) => Err("no scenario is named; --help lists them".into()),
            (Some(state), &[scenario]) => {
                let (first, second) = state.split_once('/').map_or((state, None), |(f, s)| (f, Some(s)));
                let second = second.map(str::parse).transpose()?;
                Ok(Options::Replay { scenario, state: first.parse()?, second })
            }
            (Some(_), _) => Err("--state takes one scenario".into()),
            (None, _) if !faults.is_empty() => Ok(Options::Faults(judge, faults)),
            (None, _) => Ok(match again {
                Some(every) => Options::Again(judge, every),
                None => Options::Judge(judge),
            }),
        }
    }
}

fn help() -> String {
    let lines = SCENARIOS.iter().map(|s| format!("  {:<26}{}\n", s.name, s.title));
    HELP.to_string() + &lines.collect::<String>()
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or(format!("'{text}' is no whole number above 0"))
}

fn classes(text: &str) -> Result<Vec<Class>, String> {
    let all = [Class::Prefix, Class::Reordered, Class::Torn];
    let chosen: Vec<Class> = all.into_iter().filter(|c| text == "all" || c.to_string() == text).collect();
    if chosen.is_empty() { Err(format!("there is no class '{text}'")) } else { Ok(chosen) }
}

fn chosen_faults(text: &str) -> Result<Vec<Fault>, String> {
    let chosen: Vec<Fault> = Fault::ALL.into_iter().filter(|f| text == "all" || f.name() == text).collect();
    if chosen.is_empty() { Err(format!("there is no fault '{text}'")) } else { Ok(chosen) }
}

fn systems(text: &str) -> Result<Vec<System>, String> {
    let all = [System::Bootward, System::PrepareRoot];
    let chosen: Vec<System> = all.into_iter().filter(|s| text == "both" || s.name() == text).collect();
    if chosen.is_empty() { Err(format!("there is no system '{text}'")) } else { Ok(chosen) }
}
