//! Changes of the list of deployments on filesystems that lose power.

use std::collections::BTreeSet;
use std::path::Path;

use bootward::arrange::plan::{self, Plan, Step};
use bootward::arrange::survey::{Places, survey};
use bootward::arrange::{Layout, carry};
use bootward::ledger::Limits;
use bootward::observe::{Sources, observe};
use bootward::policy::{Action, decide};
use bootward::sysroot::Machine;

use crate::fixture::{PLAIN, Style, make};
use crate::tree::{Cut, Model, Node, State, load, store};

/// The sysroot without what no change of the deployments touches.
pub fn start(style: &Style) -> State {
    let made = make(style);
    load(&made.root, &|path| {
        let object = path.starts_with("ostree/repo/objects/") && path.matches('/').count() == 4;
        object && !path.ends_with(".commit") || path.starts_with("ostree/repo/tmp/")
    })
}

pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub fn layout(state: &State) -> Layout {
    let directory = scratch();
    store(state, directory.path());
    read(directory.path())
}

fn read(root: &Path) -> Layout {
    let boot = root.join("boot");
    survey(&Places { sysroot: root, boot: &boot, booted: None, options: None, deep: true }).unwrap()
}

/// What a bootloader without journal replay does: an entry whose kernel it can load, the first one if it can.
pub fn loader(view: &State) -> Result<String, String> {
    let follow = |path: &str| match view.get(path).and_then(Node::link) {
        Some(text) => format!("boot/{text}"),
        None => path.to_string(),
    };
    let directory = follow("boot/loader");
    let Some(uenv) = view.get(&format!("{directory}/uEnv.txt")).and_then(Node::content) else {
        return Err(format!("no uEnv.txt in {directory}"));
    };
    let uenv = String::from_utf8(uenv.to_vec()).map_err(|e| e.to_string())?;
    let value = |key: &str| uenv.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
    for suffix in ["", "2"] {
        let files = [value(&format!("kernel_image{suffix}")), value(&format!("ramdisk_image{suffix}"))];
        let loads = |path: &str| {
            let content = view.get(path.trim_start_matches('/')).and_then(Node::content);
            content.is_some_and(|c| c.starts_with(b"kernel ") || c.starts_with(b"initramfs "))
        };
        if files.iter().all(|f| f.is_some_and(loads))
            && let Some(arguments) = value(&format!("bootargs{suffix}"))
        {
            return Ok(arguments.into());
        }
    }
    Err(format!("no entry of {directory} has a kernel"))
}

/// What is wrong with a state; nothing, when every loader's view boots a whole deployment, the one that was meant.
pub struct Judge {
    /// The deployments that are whole, by path, with all their files.
    pub whole: Vec<(String, State)>,
}

impl Judge {
    pub fn of(start: &State) -> Self {
        let whole = layout(start).entries.iter().map(|e| (e.path(), below(start, &e.path()))).collect();
        Judge { whole }
    }

    pub fn faults(&self, linux: &State, views: &[State]) -> Vec<String> {
        let directory = scratch();
        store(linux, directory.path());
        let mut faults = Vec::new();
        // libostree refuses the whole sysroot when one link is missing.
        faults.extend(read(directory.path()).faults.iter().map(|f| format!("for libostree: {f}")));
        let mut lines = BTreeSet::new();
        for view in views {
            match loader(view) {
                Err(why) => faults.push(format!("the bootloader is stuck: {why}")),
                Ok(line) => _ = lines.insert(line),
            }
        }
        for line in lines {
            faults.extend(self.boots(directory.path(), linux, &line).err());
        }
        faults
    }

    fn boots(&self, root: &Path, linux: &State, line: &str) -> Result<(), String> {
        let boot = root.join("boot");
        let found = observe(&Sources {
            sysroot: root,
            boot: &boot,
            env_config: None,
            env_remount: false,
            command_line: line,
            init: None,
            release: "",
            machine: Machine::X86_64,
            limits: Limits::default(),
            kexec: false,
            power_lost: false,
        });
        let Action::Boot { index, .. } = decide(&found.facts).action else {
            return Err(format!("recovery with {line}"));
        };
        let path = found.sysroot.deployments[index].path();
        let Some((_, files)) = self.whole.iter().find(|(whole, _)| *whole == path) else {
            return Err(format!("boots {path}, which was no deployment"));
        };
        if below(linux, &path) != *files {
            return Err(format!("boots {path}, which is not whole"));
        }
        match self.meant(line) {
            Some(meant) if meant != path && linux.contains_key(meant) => {
                Err(format!("boots {path}, where {meant} was meant"))
            }
            _ => Ok(()),
        }
    }

    /// The deployment that an entry was written for: its argument `slot` says so.
    pub fn meant(&self, line: &str) -> Option<&str> {
        let slot = line.split(' ').find_map(|a| a.strip_prefix("slot="))?;
        let is = |(path, files): &&(String, State)| {
            files.get(&format!("{path}/usr/etc/config")).and_then(Node::content) == Some(slot.as_bytes())
        };
        self.whole.iter().find(is).map(|(path, _)| path.as_str())
    }
}

pub fn below(state: &State, path: &str) -> State {
    let above = format!("{path}/");
    state
        .range(above.clone()..)
        .take_while(|(p, _)| p.starts_with(&above))
        .map(|(p, n)| (p.clone(), n.clone()))
        .collect()
}

/// A change: what is asked of a sysroot, and in what order its deployments are to be in the end.
struct Change {
    name: &'static str,
    order: &'static [usize],
    /// What was left by earlier changes goes as well.
    tidy: bool,
}

const CHANGES: [Change; 4] = [
    Change { name: "undeploy 0", order: &[1, 2], tidy: false },
    Change { name: "undeploy 1", order: &[0, 2], tidy: false },
    Change { name: "rollback", order: &[1, 0, 2], tidy: false },
    Change { name: "undeploy 0 and tidy", order: &[1, 2], tidy: true },
];

/// Carries a change out on a model and gives the plan back.
fn change(model: &mut Model, change: &Change) -> Plan {
    let plan = plan::rearrange(&layout(&model.now), change.order).unwrap();
    carry::carry_out(model, &plan).unwrap();
    if change.tidy {
        tidy(model);
    }
    plan
}

/// A reboot, after which every journal is replayed, and the removal of what is left over.
fn tidy(model: &mut Model) {
    for fs in 0..=usize::from(model.separate) {
        model.ops.push((fs, crate::tree::Op::Freeze));
    }
    let steps = plan::tidy(&layout(&model.now), false);
    carry::steps(model, &steps, true).unwrap();
}

fn styles() -> [(&'static str, State); 2] {
    let slots = Style { slots: true, ..PLAIN };
    [("different kernels", start(&slots)), ("one kernel", start(&Style { same_kernel: true, ..slots }))]
}

/// The deployments in boot order, by path.
pub fn order(state: &State) -> Vec<String> {
    layout(state).entries.iter().map(|e| e.path()).collect()
}

#[test]
fn every_cut_of_a_change_boots_and_a_second_run_finishes() {
    let (mut cuts, mut views) = (0, 0);
    for (style, start) in styles() {
        let judge = Judge::of(&start);
        for separate in [false, true] {
            for wanted in CHANGES {
                let mut model = Model::new(start.clone(), separate);
                change(&mut model, &wanted);
                let end = order(&model.now);
                let mut seen = BTreeSet::new();
                model.cuts(|cut: &Cut| {
                    cuts += 1;
                    views += cut.loader.len();
                    let name = format!("{style}, separate {separate}, {}, cut {}", wanted.name, cut.name);
                    let faults = judge.faults(&cut.linux, &cut.loader);
                    assert!(faults.is_empty(), "{name}: {}", faults.join("; "));
                    if seen.insert(cut.linux.clone()) {
                        let model = finish(&cut.linux, separate, &end, &name);
                        finished(&model, &end, &name);
                    }
                });
            }
        }
    }
    println!("cut points: {cuts}, views of the bootloader: {views}");
    assert!(cuts > 2000, "only {cuts} cut points");
}

/// The same command again: what it asks for is told by the deployments, not by their numbers.
fn finish(state: &State, separate: bool, end: &[String], name: &str) -> Model {
    let mut model = Model::new(state.clone(), separate);
    let now = layout(state);
    let indices: Vec<usize> =
        end.iter().map(|path| now.entries.iter().position(|e| e.path() == *path).unwrap()).collect();
    if indices.len() != now.entries.len() || !indices.is_sorted() || !now.faults.is_empty() {
        let plan = plan::rearrange(&now, &indices).unwrap();
        carry::carry_out(&mut model, &plan).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    tidy(&mut model);
    model
}

fn finished(model: &Model, end: &[String], name: &str) {
    let done = layout(&model.now);
    assert_eq!(order(&model.now), end, "{name}");
    assert_eq!(done.faults, [""; 0], "{name}");
    assert_eq!(done.unnamed, [], "{name}");
    let temporary =
        |k: &&String| k.contains(".new") || k.contains("loader.tmp") || k.starts_with(plan::TRASH);
    assert_eq!(model.now.keys().find(temporary), None, "{name}");
}

/// Cuts a change, cuts what the next boot does about it, and looks at every state that is left; `step` of the first
/// cuts are passed over.
fn cut_twice(step: usize) -> usize {
    let mut cuts = 0;
    let (style, start) = styles().into_iter().next().unwrap();
    let judge = Judge::of(&start);
    for separate in [false, true] {
        for wanted in &CHANGES[..3] {
            let mut model = Model::new(start.clone(), separate);
            change(&mut model, wanted);
            let end = order(&model.now);
            let mut states = BTreeSet::new();
            model.cuts(|cut| _ = states.insert(cut.linux.clone()));
            for (first, state) in states.iter().enumerate().step_by(step) {
                let name = format!("{style}, separate {separate}, {}, first cut {first}", wanted.name);
                finish(state, separate, &end, &name).cuts(|cut| {
                    cuts += 1;
                    let faults = judge.faults(&cut.linux, &cut.loader);
                    assert!(faults.is_empty(), "{name}, second cut {}: {}", cut.name, faults.join("; "));
                });
            }
        }
    }
    cuts
}

#[test]
fn a_cut_of_the_second_run_boots_too() {
    let cuts = cut_twice(31);
    println!("second cuts: {cuts}");
    assert!(cuts > 1000, "only {cuts} second cuts");
}

#[test]
#[ignore = "a quarter of an hour; the bounded part runs always"]
fn a_cut_of_the_second_run_boots_too_everywhere() {
    println!("second cuts: {}", cut_twice(1));
}

/// Two changes in one boot, with some steps left out; the first thing that is wrong in any state of a cut.
fn first_fault(start: &State, separate: bool, without: &dyn Fn(usize, &Step) -> bool) -> Option<String> {
    let judge = Judge::of(start);
    let mut model = Model::new(start.clone(), separate);
    let mut number = 0;
    for order in [&[1, 2][..], &[1, 0]] {
        let mut plan = plan::rearrange(&layout(&model.now), order).unwrap();
        for part in [&mut plan.prepare, &mut plan.swap, &mut plan.clear] {
            part.retain(|step| {
                number += 1;
                !without(number - 1, step)
            });
        }
        carry::carry_out(&mut model, &plan).unwrap();
    }
    let mut first = None;
    model.cuts(|cut| {
        if first.is_none() {
            let faults = judge.faults(&cut.linux, &cut.loader);
            first = (!faults.is_empty()).then(|| format!("cut {}: {}", cut.name, faults.join("; ")));
        }
    });
    first
}

#[test]
fn without_any_one_barrier_a_cut_is_found_that_does_not_boot() {
    let [_, (_, start)] = styles();
    assert_eq!(first_fault(&start, true, &|_, _| false), None);
    let mut barriers = Vec::new();
    first_fault_steps(&start, |number, step| {
        if matches!(step, Step::Sync(_) | Step::Freeze(_)) {
            barriers.push((number, step.to_string()));
        }
    });
    // The last change's freeze after the swap has nothing behind it that could spoil what the loader sees.
    assert_eq!(barriers.len(), 6, "{barriers:?}");
    let last = barriers.pop().unwrap();
    assert!(last.1.contains("Boot"), "{last:?}");
    for (number, step) in barriers {
        let fault = first_fault(&start, true, &|n, _| n == number);
        println!("without '{step}': {fault:?}");
        assert!(fault.is_some(), "nobody missed '{step}' (step {number})");
    }
}

/// Shows the steps that [`first_fault`] numbers.
fn first_fault_steps(start: &State, mut show: impl FnMut(usize, &Step)) {
    let mut model = Model::new(start.clone(), true);
    let mut number = 0;
    for order in [&[1, 2][..], &[1, 0]] {
        let plan = plan::rearrange(&layout(&model.now), order).unwrap();
        for step in plan.steps() {
            show(number, step);
            number += 1;
        }
        carry::carry_out(&mut model, &plan).unwrap();
    }
}

#[test]
fn what_the_medium_spoils_is_found_before_the_swap() {
    let (_, start) = styles().into_iter().next().unwrap();
    let plan = plan::rearrange(&layout(&start), &[1, 2]).unwrap();
    let mut damaged = 0;
    for file in 0.. {
        let mut model = Model { damage: Some(file), ..Model::new(start.clone(), false) };
        let Err(e) = carry::carry_out(&mut model, &plan) else { break };
        assert!(matches!(e.cause, carry::Cause::Differs) && !e.swapped, "file {file}: {e}");
        damaged += 1;
        // Two entries and uEnv.txt; what comes after are refs, which the repository's own check covers.
        if damaged == 3 {
            break;
        }
    }
    assert_eq!(damaged, 3);
    let unchecked = Plan {
        prepare: plan.prepare.iter().filter(|s| !matches!(s, Step::Check(..))).cloned().collect(),
        ..plan.clone()
    };
    let mut model = Model { damage: Some(2), ..Model::new(start.clone(), false) };
    carry::carry_out(&mut model, &unchecked).unwrap();
    assert!(!Judge::of(&start).faults(&model.now, &[]).is_empty());
}

#[test]
fn every_failing_operation_leaves_a_system_that_boots() {
    let mut failures = 0;
    for (style, start) in styles() {
        let judge = Judge::of(&start);
        for wanted in &CHANGES[..3] {
            let end = {
                let mut model = Model::new(start.clone(), false);
                change(&mut model, wanted);
                order(&model.now)
            };
            for operation in 0.. {
                let mut model = Model { fail_at: Some(operation), ..Model::new(start.clone(), false) };
                let plan = plan::rearrange(&layout(&start), wanted.order).unwrap();
                let Err(e) = carry::carry_out(&mut model, &plan) else { break };
                failures += 1;
                let name = format!("{style}, {}, operation {operation} ({e})", wanted.name);
                let swapped = order(&model.now) == end;
                assert_eq!(e.swapped, swapped, "{name}");
                let views: Vec<State> = [boot_only(&model.now)].into();
                assert_eq!(judge.faults(&model.now, &views), [""; 0], "{name}");
                finished(&finish(&model.now, false, &end, &name), &end, &name);
            }
        }
    }
    println!("failing operations: {failures}");
    assert!(failures > 500, "only {failures}");
}

pub fn boot_only(state: &State) -> State {
    state.iter().filter(|(p, _)| p.starts_with("boot")).map(|(p, n)| (p.clone(), n.clone())).collect()
}
