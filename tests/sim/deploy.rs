//! Deployments, the removal of objects and `init-fs` on filesystems that lose power, and whose operations fail.

use std::collections::BTreeSet;
use std::fs;

use bootward::arrange::{carry, plan};
use bootward::deploy::kargs::Edits;
use bootward::deploy::prepare::{Options, Prepared, prepare};
use bootward::deploy::{Fault, carry as whole, collect, init};
use bootward::ostree::Commit;
use bootward::storage::Room;

use crate::arrange::{Judge, below, boot_only, layout, order};
use crate::fixture::{PLAIN, Style, make, make_tree, ostree};
use crate::tree::{self, Model, Op, State, load};

/// Two deployments of the versions 2 and 1, a changed `/etc`, and a commit of version 3 that is not deployed. Where the
/// kernel is another one, the new deployment gets a composefs image.
struct Start {
    state: State,
    commit: Commit,
}

fn start(same_kernel: bool) -> Start {
    let style = Style { slots: true, same_kernel, versions: &["1", "2"], ..PLAIN };
    let made = make(&style);
    let at = made.root.to_str().unwrap();
    let tree = made.beside("3");
    make_tree(&tree, &style, "3");
    fs::create_dir(tree.join("usr/etc/d")).unwrap();
    fs::write(tree.join("usr/etc/d/new"), "a new default").unwrap();
    fs::write(tree.join("usr/empty"), "").unwrap();
    let repo = format!("--repo={at}/ostree/repo");
    let dir = format!("--tree=dir={}", tree.display());
    let name = ostree(&["commit", &repo, "-b", "demo/stable", "-s", "3", &dir]);
    let name = name.trim().to_string();
    let object = made.root.join(format!("ostree/repo/objects/{}/{}.commit", &name[..2], &name[2..]));
    let commit = Commit::parse(fs::read(object).unwrap()).unwrap();
    if !same_kernel {
        let config = made.root.join("ostree/repo/config");
        let text = fs::read_to_string(&config).unwrap() + "\n[ex-integrity]\ncomposefs=true\n";
        fs::write(config, text).unwrap();
    }
    let mut state = load(&made.root, &|path| path.starts_with("ostree/repo/tmp/"));
    let first = layout(&state).entries[0].path();
    fs::write(made.root.join(&first).join("etc/local"), "changed here").unwrap();
    fs::remove_dir_all(made.root.join("ostree/deploy/demo/var")).unwrap();
    fs::create_dir(made.root.join("ostree/deploy/demo/var")).unwrap();
    state = load(&made.root, &|path| path.starts_with("ostree/repo/tmp/"));
    Start { state, commit }
}

fn asked() -> Options {
    Options {
        stateroot: "demo".into(),
        refspec: "demo/stable".into(),
        arguments: Edits { set: vec!["slot=3".into()], ..Edits::default() },
        ..Options::default()
    }
}

type Failed = Fault<tree::Fault>;

fn deploy(model: &mut Model, commit: &Commit) -> Result<Prepared, Failed> {
    let layout = layout(&model.now);
    let prepared = prepare(model, &layout, commit, &asked(), &|_| false)?;
    whole::carry(model, &layout, &prepared, true, &mut |_| {}, &mut |_| Ok(()))?;
    Ok(prepared)
}

fn prune(model: &mut Model) -> Result<(), Failed> {
    let layout = layout(&model.now);
    let deployed: Vec<String> = layout.entries.iter().map(|e| e.commit.clone()).collect();
    let garbage = collect::find(model, &deployed)?;
    collect::remove(model, &garbage)
}

/// What the next boot and its confirmation do.
fn settle(model: &mut Model) {
    for fs in 0..=usize::from(model.separate) {
        model.ops.push((fs, Op::Freeze));
    }
    let steps = plan::tidy(&layout(&model.now), false);
    carry::steps(model, &steps, true).unwrap();
}

/// The same command again; where the new one is first already, nobody gives it.
fn again(state: &State, separate: bool, start: &Start, name: &str) -> Model {
    let mut model = Model::new(state.clone(), separate);
    let new = start.commit.checksum().to_string();
    let first = layout(state).entries.first().map(|e| e.commit.clone());
    if first.as_ref() != Some(&new) {
        deploy(&mut model, &start.commit).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    settle(&mut model);
    model
}

struct Expected {
    order: Vec<String>,
    judge: Judge,
}

/// What a run that nothing disturbs comes to.
fn expected(start: &Start) -> Expected {
    let asks = |node: &tree::Node| node.content().is_some_and(|c| c.windows(9).any(|w| w == b"composefs"));
    let image = start.state.get("ostree/repo/config").is_some_and(asks);
    let mut model = Model::new(start.state.clone(), false);
    let prepared = deploy(&mut model, &start.commit).unwrap();
    let path = prepared.entry.path();
    assert_eq!(order(&model.now)[0], path);
    let etc = |name: &str| model.now.get(&format!("{path}/etc/{name}")).and_then(|n| n.content()).is_some();
    assert!(etc("local") && etc("d/new") && etc("config"));
    assert!(
        model.now.contains_key("ostree/deploy/demo/var") && model.now.contains_key(&format!("{path}.origin"))
    );
    assert_eq!(model.now.contains_key(&format!("{path}/.ostree.cfs")), image);
    let mut judge = Judge::of(&start.state);
    judge.whole.push((path.clone(), below(&model.now, &path)));
    Expected { order: order(&model.now), judge }
}

fn finished(model: &Model, expected: &Expected, name: &str) {
    let done = layout(&model.now);
    assert_eq!(order(&model.now), expected.order, "{name}");
    assert_eq!(done.faults, [""; 0], "{name}");
    assert_eq!(done.unnamed, [], "{name}");
    for path in &expected.order {
        let (_, files) = expected.judge.whole.iter().find(|(whole, _)| whole == path).unwrap();
        assert!(below(&model.now, path) == *files, "{name}: {path} is not whole");
        assert!(model.now.contains_key(&format!("{path}.origin")), "{name}: {path} has no origin");
    }
    let left = |k: &&String| {
        k.contains(".new")
            || k.contains("loader.tmp")
            || k.starts_with(plan::MAKING)
            || k.starts_with(plan::TRASH)
    };
    assert_eq!(model.now.keys().find(left), None, "{name}");
}

fn cut_everywhere(step: usize) -> (usize, usize) {
    let (mut cuts, mut states) = (0, 0);
    for same_kernel in [false, true] {
        let start = start(same_kernel);
        let expected = expected(&start);
        for separate in [false, true] {
            let mut model = Model::new(start.state.clone(), separate);
            deploy(&mut model, &start.commit).unwrap();
            let mut seen = BTreeSet::new();
            let mut number = 0;
            model.cuts(|cut| {
                number += 1;
                if number % step != 0 {
                    return;
                }
                cuts += 1;
                let name = format!("same kernel {same_kernel}, separate {separate}, cut {}", cut.name);
                let faults = expected.judge.faults(&cut.linux, &cut.loader);
                assert!(faults.is_empty(), "{name}: {}", faults.join("; "));
                // Whoever looks for deployments without their entries finds no half of one.
                let (new, files) = expected.judge.whole.last().unwrap();
                let found = below(&cut.linux, new);
                assert!(found.is_empty() || found == *files, "{name}: half of {new}");
                if seen.insert(cut.linux.clone()) {
                    states += 1;
                    finished(&again(&cut.linux, separate, &start, &name), &expected, &name);
                }
            });
        }
    }
    (cuts, states)
}

#[test]
fn every_cut_of_a_deployment_boots_and_a_second_run_finishes() {
    let (cuts, states) = cut_everywhere(1);
    println!("cut points: {cuts}, states that a second run finished: {states}");
    assert!(cuts > 500, "only {cuts} cut points");
}

#[test]
fn a_cut_of_the_second_deployment_boots_too() {
    let start = start(false);
    let expected = expected(&start);
    let mut model = Model::new(start.state.clone(), false);
    deploy(&mut model, &start.commit).unwrap();
    let mut states = BTreeSet::new();
    model.cuts(|cut| _ = states.insert(cut.linux.clone()));
    let mut cuts = 0;
    for (first, state) in states.iter().enumerate().step_by(37) {
        let name = format!("first cut {first}");
        let mut number = 0;
        again(state, false, &start, &name).cuts(|cut| {
            number += 1;
            if number % 5 == 0 {
                cuts += 1;
                let faults = expected.judge.faults(&cut.linux, &cut.loader);
                assert!(faults.is_empty(), "{name}, second cut {}: {}", cut.name, faults.join("; "));
            }
        });
    }
    println!("second cuts: {cuts}");
    assert!(cuts > 100, "only {cuts}");
}

#[test]
fn every_failing_operation_of_a_deployment_loses_nothing() {
    let start = start(false);
    let expected = expected(&start);
    let mut failures = 0;
    for operation in 0.. {
        let mut model = Model { fail_at: Some(operation), ..Model::new(start.state.clone(), false) };
        let done = deploy(&mut model, &start.commit);
        if model.operations <= operation {
            break;
        }
        failures += 1;
        let name = format!("operation {operation} ({:?})", done.as_ref().err().map(ToString::to_string));
        let swapped = order(&model.now) == expected.order;
        assert_eq!(done.as_ref().map_or_else(Fault::swapped, |_| true), swapped, "{name}");
        let faults = expected.judge.faults(&model.now, &[boot_only(&model.now)]);
        assert_eq!(faults, [""; 0], "{name}");
        finished(&again(&model.now, false, &start, &name), &expected, &name);
    }
    println!("failing operations: {failures}");
    assert!(failures > 300, "only {failures}");
}

#[test]
fn without_the_syncs_a_cut_is_found_that_does_not_boot() {
    let start = start(false);
    let expected = expected(&start);
    let mut model = Model::new(start.state.clone(), true);
    deploy(&mut model, &start.commit).unwrap();
    // The model is told that the physical root was never waited for.
    model.ops.retain(|(fs, op)| *fs != 0 || !matches!(op, Op::Sync | Op::Freeze));
    let mut found = None;
    let mut number = 0;
    model.cuts(|cut| {
        number += 1;
        // The last ones: the swap happened, the root lags behind.
        if found.is_none() && number % 3 == 0 {
            let faults = expected.judge.faults(&cut.linux, &cut.loader);
            found = faults.first().cloned();
        }
    });
    assert!(found.is_some(), "nobody missed the syncs");
}

#[test]
fn every_cut_of_the_removal_of_objects_keeps_what_is_needed() {
    let start = start(false);
    let expected = expected(&start);
    let mut model = Model::new(start.state.clone(), false);
    deploy(&mut model, &start.commit).unwrap();
    settle(&mut model);
    let before = model.now.clone();
    let mut model = Model::new(before.clone(), false);
    prune(&mut model).unwrap();
    let end = model.now.clone();
    let objects = |state: &State| state.keys().filter(|k| k.starts_with("ostree/repo/objects/")).count();
    assert!(objects(&end) < objects(&before) && objects(&end) > 10);
    let mut cuts = 0;
    model.cuts(|cut| {
        cuts += 1;
        let faults = expected.judge.faults(&cut.linux, &cut.loader);
        assert!(faults.is_empty(), "cut {}: {}", cut.name, faults.join("; "));
        for (path, node) in &end {
            assert_eq!(cut.linux.get(path), Some(node), "cut {}: {path}", cut.name);
        }
        let mut model = Model::new(cut.linux.clone(), false);
        prune(&mut model).unwrap();
        assert!(model.now == end, "cut {}", cut.name);
    });
    println!("cuts of the removal: {cuts}");
    for operation in 0.. {
        let mut model = Model { fail_at: Some(operation), ..Model::new(before.clone(), false) };
        let done = prune(&mut model);
        if model.operations <= operation {
            break;
        }
        assert!(done.is_err() && end.iter().all(|(path, node)| model.now.get(path) == Some(node)));
    }
}

#[test]
fn where_a_needed_object_is_missing_none_is_removed() {
    let start = start(false);
    let trees: Vec<&String> = start.state.keys().filter(|k| k.ends_with(".dirtree")).collect();
    let mut refused = 0;
    for tree in trees {
        let mut state = start.state.clone();
        state.remove(tree);
        let mut model = Model::new(state.clone(), false);
        if let Err(e) = prune(&mut model) {
            assert!(matches!(e, Fault::Unknown(_)), "{tree}: {e}");
            assert!(model.now == state, "{tree}");
            refused += 1;
        }
    }
    assert!(refused > 3, "{refused}");
}

#[test]
fn a_deployment_that_does_not_fit_is_refused_before_anything_is_written() {
    let start = start(false);
    for room in [Room { bytes: 100_000, files: None }, Room { bytes: 1 << 40, files: Some(20) }] {
        let mut model = Model { room, ..Model::new(start.state.clone(), true) };
        let fault = deploy(&mut model, &start.commit).unwrap_err();
        assert!(matches!(fault, Fault::Room(..)), "{fault}");
        assert!(model.now == start.state && model.ops.is_empty());
    }
}

#[test]
fn every_cut_of_init_fs_is_finished_by_the_same_command() {
    let empty: State = [("boot".to_string(), directory())].into();
    let run = |model: &mut Model| {
        let steps = init::plan(model, "demo", true).unwrap();
        carry::steps(model, &steps, false).unwrap();
    };
    for separate in [false, true] {
        let mut model = Model::new(empty.clone(), separate);
        run(&mut model);
        let end = model.now.clone();
        let mut cuts = 0;
        model.cuts(|cut| {
            cuts += 1;
            let mut model = Model::new(cut.linux.clone(), separate);
            run(&mut model);
            let left = |state: &State| -> State {
                state
                    .iter()
                    .filter(|(k, _)| !k.ends_with(".new"))
                    .map(|(k, n)| (k.clone(), n.clone()))
                    .collect()
            };
            assert_eq!(left(&model.now), left(&end), "cut {}", cut.name);
        });
        println!("cuts of init-fs: {cuts}");
    }
}

fn directory() -> tree::Node {
    tree::Node { body: tree::Body::Directory, dress: tree::Dress::plain(0o755) }
}
