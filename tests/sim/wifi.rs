//! What the system hands over and what worked last: the power goes at every operation, and there is the old file or the new.

use std::collections::BTreeSet;

use bootward::net::wifi::file::{List, emit, parse};
use bootward::net::wifi::slot::{self, ESCROW};
use bootward::net::wifi::{Key, Origin, Profile, Secret};

use crate::tree::{Body, Dress, Model, Node, State};

fn list(ssid: &str) -> List {
    let key = Key::Passphrase(Secret::new("correct horse"));
    let profile = Profile::new(ssid, key, Origin::Escrow).unwrap();
    List { country: "DE".into(), profiles: vec![profile], ..List::default() }
}

fn start(directory: bool) -> State {
    let mut state = State::new();
    let mut folder = |path: &str| {
        state.insert(path.into(), Node { body: Body::Directory, dress: Dress::plain(0o755) });
    };
    folder("ostree");
    if directory {
        folder("ostree/bootward");
    }
    state
}

/// What is in the slot after a cut: whole, or not there.
fn slot_of(state: &State) -> Option<List> {
    let node = state.get(ESCROW)?;
    assert_eq!(node.dress.mode & 0o777, 0o600, "others may read it");
    let (list, complaints) =
        parse(node.content().expect("a file whose content came to the medium"), Origin::Escrow);
    assert_eq!(complaints, []);
    Some(list)
}

#[test]
fn a_cut_leaves_the_old_networks_or_the_new_ones() {
    let (old, new) = (list("Old"), list("New"));
    let mut cuts = 0;
    for directory in [false, true] {
        let mut before = Model::new(start(directory), false);
        if directory {
            assert!(slot::write(&mut before, ESCROW, &old).unwrap());
        }
        let was = directory.then_some(&old);
        let mut model = Model::new(before.now.clone(), false);
        assert!(slot::write(&mut model, ESCROW, &new).unwrap());
        let mut states = BTreeSet::new();
        model.cuts(|cut| {
            cuts += 1;
            let found = slot_of(&cut.linux);
            assert!(found.as_ref() == Some(&new) || found.as_ref() == was, "cut {}: {found:?}", cut.name);
            states.insert(cut.linux.clone());
        });
        // The same command again finishes, wherever it was cut; cut again, as well.
        for state in states {
            let mut again = Model::new(state, false);
            slot::write(&mut again, ESCROW, &new).unwrap();
            assert_eq!(slot_of(&again.now), Some(new.clone()));
            assert!(!again.now.contains_key("ostree/bootward/wifi.new"));
            again.cuts(|cut| {
                cuts += 1;
                let found = slot_of(&cut.linux);
                assert!(found.as_ref() == Some(&new) || found.as_ref() == was, "second cut {}", cut.name);
            });
        }
    }
    println!("cut points: {cuts}");
    assert!(cuts > 30, "only {cuts} cut points");
}

#[test]
fn forgetting_leaves_all_or_nothing_and_no_scrap() {
    let mut model = Model::new(start(true), false);
    slot::write(&mut model, ESCROW, &list("Old")).unwrap();
    let mut model = Model::new(model.now, false);
    assert!(slot::forget(&mut model, ESCROW).unwrap());
    assert!(!slot::forget(&mut model.clone(), ESCROW).unwrap());
    model.cuts(|cut| assert!(slot_of(&cut.linux).is_none_or(|found| found == list("Old"))));
    assert!(!model.now.keys().any(|path| path.contains("wifi")));
}

#[test]
fn a_failing_medium_leaves_what_was_there() {
    let mut failures = 0;
    for operation in 0..12 {
        let mut model = Model::new(start(true), false);
        slot::write(&mut model, ESCROW, &list("Old")).unwrap();
        let mut model = Model::new(model.now, false);
        model.fail_at = Some(operation);
        let written = slot::write(&mut model, ESCROW, &list("New"));
        let found = slot_of(&model.now);
        failures += u32::from(written.is_err());
        let old = written.is_err() && found == Some(list("Old"));
        assert!(old || found == Some(list("New")), "operation {operation}: {found:?}");
    }
    assert!(failures >= 4, "only {failures} operations could fail");
    let mut model = Model::new(start(true), false);
    model.damage = Some(0);
    assert!(slot::write(&mut model, ESCROW, &list("New")).is_err(), "a damaged write is not noticed");
    assert_eq!(slot_of(&model.now), None);
    assert!(emit(&list("New")).bytes().len() > 20);
}
