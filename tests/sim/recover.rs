//! A request for recovery on the root: the power goes at every operation of asking and of taking back.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bootward::arrange::carry;
use bootward::recovery::ask::{on_root, take_back};
use bootward::recovery::request::{Asked, PATH, steps};
use bootward::sys::files::Disk;

use crate::arrange::{scratch, start};
use crate::fixture::PLAIN;
use crate::tree::{Model, State, store};

/// The disk as a directory, and what it asks for.
fn asks(disk: &State) -> Option<Asked> {
    let directory = scratch();
    store(disk, directory.path());
    on_root(directory.path())
}

/// Everything that is not the request's.
fn rest(disk: &State) -> State {
    let ours = |path: &str| path == "ostree/bootward" || path.starts_with("ostree/bootward/");
    disk.iter().filter(|(path, _)| !ours(path)).map(|(path, node)| (path.clone(), node.clone())).collect()
}

fn after(disk: &State, asked: Option<Asked>) -> State {
    let mut model = Model::new(disk.clone(), false);
    carry::steps(&mut model, &steps(asked), false).unwrap();
    model.now
}

#[test]
fn a_cut_leaves_the_request_made_or_not_made() {
    let none = start(&PLAIN);
    let (recovery, drill) = (after(&none, Some(Asked::Recovery)), after(&none, Some(Asked::Drill)));
    assert_eq!(
        (asks(&none), asks(&recovery), asks(&drill)),
        (None, Some(Asked::Recovery), Some(Asked::Drill))
    );
    let mut states = 0;
    for (name, from, before) in [
        ("none", &none, None),
        ("recovery", &recovery, Some(Asked::Recovery)),
        ("drill", &drill, Some(Asked::Drill)),
    ] {
        for to in [None, Some(Asked::Recovery), Some(Asked::Drill)] {
            for separate in [false, true] {
                let mut model = Model::new(from.clone(), separate);
                carry::steps(&mut model, &steps(to), false).unwrap();
                let mut seen = BTreeSet::new();
                model.cuts(|cut| {
                    if !seen.insert(cut.linux.clone()) {
                        return;
                    }
                    let name = format!("from {name} to {to:?}, cut {}", cut.name);
                    let found = asks(&cut.linux);
                    assert!(found == before || found == to, "{name}: {found:?}");
                    assert_eq!(rest(&cut.linux), rest(from), "{name}");
                    // The same again finishes, and so does a boot that takes it back.
                    assert_eq!(asks(&after(&cut.linux, to)), to, "{name}");
                    assert_eq!(asks(&after(&cut.linux, None)), None, "{name}");
                    states += 1;
                });
                // What was said to be done is done: no cut after it undoes it.
                assert_eq!(asks(&model.now), to);
                let last = |cut: &crate::tree::Cut| {
                    assert_eq!(asks(&cut.linux), to, "after the end, {}", cut.name);
                    true
                };
                model.cuts_from(model.ops.len(), &mut { last });
            }
        }
    }
    println!("requests after a cut: {states}");
    assert!(states > 50, "only {states}");
}

#[test]
fn an_operation_that_fails_leaves_the_request_made_or_not_made() {
    let none = start(&PLAIN);
    let recovery = after(&none, Some(Asked::Recovery));
    for (from, to) in [(&none, Some(Asked::Drill)), (&recovery, None), (&recovery, Some(Asked::Drill))] {
        let before = asks(from);
        for at in 0.. {
            let mut model = Model { fail_at: Some(at), ..Model::new(from.clone(), false) };
            if carry::steps(&mut model, &steps(to), false).is_ok() {
                assert!(at > 2, "nothing was cut");
                break;
            }
            let found = asks(&model.now);
            assert!(found == before || found == to, "operation {at}: {found:?}");
        }
    }
}

#[test]
fn what_is_damaged_asks_for_nothing_and_can_be_taken_back() {
    let device = scratch();
    fs::create_dir_all(device.path().join("ostree/bootward")).unwrap();
    let file = device.path().join(PATH);
    let good = {
        let mut disk = Disk::open(device.path(), device.path()).unwrap();
        carry::steps(&mut disk, &steps(Some(Asked::Drill)), false).unwrap();
        fs::read(&file).unwrap()
    };
    let damaged: [&[u8]; 4] = [b"", &good[..good.len() - 1], &[0; 26], &[b'x'; 100_000]];
    for content in damaged {
        fs::write(&file, content).unwrap();
        assert_eq!(on_root(device.path()), None);
        take_back(device.path()).unwrap();
        assert!(!file.exists());
    }
    // A link leads nowhere, and a directory is no request.
    let other = device.path().join("other");
    fs::write(&other, &good).unwrap();
    std::os::unix::fs::symlink(&other, &file).unwrap();
    assert_eq!(on_root(device.path()), None);
    take_back(device.path()).unwrap();
    assert!(other.exists() && !Path::new(&file).exists());
}
