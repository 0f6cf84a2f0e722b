//! What a day has left, on a disk that loses power everywhere: the old count or the new one, never more to spend.

use bootward::arrange::carry;
use bootward::recovery::budget::{Budget, PATH, steps};

use crate::arrange::start;
use crate::fixture::PLAIN;
use crate::tree::{Model, State};

const NOW: u64 = 1_800_000_000;

fn read(disk: &State) -> Budget {
    let file = disk.get(PATH).and_then(|node| node.content()).unwrap_or_default();
    Budget::parse(file, NOW)
}

fn after(disk: &State, budget: &Budget) -> State {
    let mut model = Model::new(disk.clone(), false);
    carry::steps(&mut model, &steps(budget), false).unwrap();
    model.now
}

#[test]
fn a_cut_gives_nothing_away() {
    let none = start(&PLAIN);
    let old = Budget { since: NOW - 60, attempts: 3, bytes: 1 << 20, failures: 2 };
    let new = Budget { attempts: 4, bytes: 2 << 20, ..old };
    let (with_old, fresh) = (after(&none, &old), Budget { since: NOW, ..Budget::default() });
    assert_eq!((read(&none), read(&with_old)), (fresh, old));
    let mut states = 0;
    for (from, before) in [(&none, fresh), (&with_old, old)] {
        for separate in [false, true] {
            let mut model = Model::new(from.clone(), separate);
            carry::steps(&mut model, &steps(&new), false).unwrap();
            assert_eq!(read(&model.now), new);
            model.cuts(|cut| {
                let found = read(&cut.linux);
                assert!(found == before || found == new, "cut {}: {found:?}", cut.name);
                // Whatever is left, the next one is written over it.
                assert_eq!(read(&after(&cut.linux, &new)), new, "cut {}", cut.name);
                states += 1;
            });
        }
    }
    assert!(states > 20, "{states}");
    println!("budgets after a cut: {states} states");
}
