//! The U-Boot environment on a disk that loses power, fails and lies.

use std::cell::RefCell;
use std::rc::Rc;

use bootward::storage::Medium;
use bootward::uboot::env::{Edit, Image, Kind, rewrite};
use bootward::uboot::pair::{Copy, Scheme, Slot, choose};
use bootward::uboot::store::{Condition, Error, Store};

use crate::disk::{Disk, Fault, Step};

const SIZE: usize = 2048;

/// One copy's part of a shared disk; can drop or damage a write, as a broken device would.
#[derive(Clone)]
struct Window {
    disk: Rc<RefCell<Disk>>,
    offset: u64,
    damage: bool,
}

impl Medium for Window {
    type Error = Fault;
    fn len(&self) -> u64 {
        SIZE as u64
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.disk.borrow_mut().read_at(self.offset + offset, buffer)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        let mut data = data.to_vec();
        if self.damage {
            data[SIZE / 2] ^= 1;
        }
        self.disk.borrow_mut().write_at(self.offset + offset, &data)
    }
    fn flush(&mut self) -> Result<(), Fault> {
        self.disk.borrow_mut().flush()
    }
}

fn store(disk: &Rc<RefCell<Disk>>, redundant: bool, damage: bool) -> Store<Window> {
    let window = |offset| Window { disk: disk.clone(), offset, damage };
    Store::over(window(0), redundant.then(|| window(SIZE as u64)), true).unwrap()
}

fn shared(content: Vec<u8>) -> Rc<RefCell<Disk>> {
    Rc::new(RefCell::new(Disk::new(content)))
}

fn image(kind: Kind, flag: u8, variables: &[(&str, &str)]) -> Vec<u8> {
    let edits: Vec<Edit> =
        variables.iter().map(|(n, v)| Edit { name: n.as_bytes(), value: Some(v.as_bytes()) }).collect();
    let mut bytes = vec![0; SIZE];
    rewrite(&Image::EMPTY, &edits, kind, flag, &mut bytes).unwrap();
    bytes
}

/// A value that reaches into every sector, so that a torn write is never a whole one by chance.
fn wide(c: &str) -> String {
    c.repeat(1700)
}

type Variables = Vec<(Vec<u8>, Vec<u8>)>;

fn variables(content: &[u8], redundant: bool) -> Option<Variables> {
    let loaded = store(&shared(content.to_vec()), redundant, false).load().unwrap();
    loaded.image().map(|i| i.variables().map(|(n, v)| (n.to_vec(), v.to_vec())).collect())
}

const OLD: [(&str, &str); 3] = [("bootcount", "3"), ("rollback", "0"), ("upgrade_available", "1")];

fn pair(first: u8, second: u8) -> Vec<u8> {
    let mut old = OLD.to_vec();
    let (a, b) = (wide("a"), wide("b"));
    old.push(("wide", &a));
    let mut content = image(Kind::Redundant, first, &old);
    old.last_mut().unwrap().1 = &b;
    content.extend(image(Kind::Redundant, second, &old));
    content
}

const NEW: &str = "n";

/// Several variables at once: set, delete, replace.
fn edits(wide: &str) -> [Edit<'_>; 3] {
    [
        Edit { name: b"bootcount", value: Some(b"0") },
        Edit { name: b"upgrade_available", value: None },
        Edit { name: b"wide", value: Some(wide.as_bytes()) },
    ]
}

/// Cuts a save everywhere and calls `neither` for states that are neither old nor new; gives their number.
fn cut(start: &[u8], redundant: bool, mut neither: impl FnMut(&str)) -> usize {
    let wide = wide(NEW);
    let disk = shared(start.to_vec());
    let old = variables(start, redundant);
    store(&disk, redundant, false).save(&edits(&wide)).unwrap();
    let new = variables(disk.borrow().content(), redundant);
    assert!(old.is_some() && new.is_some() && old != new);
    let disk = disk.borrow();
    disk.cuts(|name, state| {
        let seen = variables(state, redundant);
        if seen != old && seen != new {
            return neither(name);
        }
        // A re-run finishes the change from wherever the cut left it.
        let again = shared(state.to_vec());
        store(&again, redundant, false).save(&edits(&wide)).unwrap();
        assert_eq!(variables(again.borrow().content(), redundant), new, "re-run after {name}");
    })
}

#[test]
fn a_cut_anywhere_leaves_the_old_or_the_new_environment() {
    // Either slot active, and both sides of the wrap.
    for (first, second) in [(1, 0), (0, 1), (255, 254), (254, 255), (0, 255), (255, 0), (7, 7)] {
        let states = cut(&pair(first, second), true, |name| panic!("{first},{second}: neither after {name}"));
        assert!(states > SIZE, "only {states} states");
    }
}

#[test]
fn a_cut_with_one_copy_corrupt_still_leaves_the_old_or_the_new() {
    for slot in [0, SIZE] {
        let mut start = pair(4, 5);
        start[slot + 100] ^= 0xFF;
        cut(&start, true, |name| panic!("slot at {slot}: neither after {name}"));
    }
}

/// What a single copy cannot promise: a torn write is a corrupt environment. It is never a wrong one.
#[test]
fn a_cut_of_a_single_copy_is_old_new_or_said_to_be_corrupt() {
    let a = wide("a");
    let mut old = OLD.to_vec();
    old.push(("wide", &a));
    let start = image(Kind::Single, 0, &old);
    let disk = shared(start.clone());
    let (wide, mut lost) = (wide(NEW), 0);
    store(&disk, false, false).save(&edits(&wide)).unwrap();
    let new = variables(disk.borrow().content(), false);
    disk.borrow().cuts(|name, state| {
        let mut store = store(&shared(state.to_vec()), false, false);
        let loaded = store.load().unwrap();
        if loaded.image().is_none() {
            lost += 1;
            assert_eq!(loaded.condition, Condition::Corrupt);
            assert!(matches!(store.save(&edits(&wide)), Err(Error::NoEnvironment)), "{name}");
        } else {
            let seen = variables(state, false);
            assert!(seen == new || seen == variables(&start, false), "a wrong one after {name}");
        }
    });
    assert!(lost > 1000, "only {lost} states lost: the cuts do not reach the image");
}

#[test]
fn a_failing_operation_is_never_a_success_and_keeps_an_environment() {
    let start = pair(9, 8);
    let old = variables(&start, true);
    let wide = wide(NEW);
    let disk = shared(start.clone());
    store(&disk, true, false).save(&edits(&wide)).unwrap();
    let (new, operations) = (variables(disk.borrow().content(), true), disk.borrow().operations());
    assert_eq!(operations, 5, "two reads, write, flush, read back");
    for index in 0..operations {
        let disk = shared(start.clone());
        disk.borrow_mut().fail_at = Some(index);
        let result = store(&disk, true, false).save(&edits(&wide));
        assert!(result.is_err(), "operation {index} failed and the save succeeded");
        let seen = variables(disk.borrow().content(), true);
        // Before the write has reached the disk it is the old one, after it the new one is there already.
        assert!(if index < 3 { seen == old } else { seen == new }, "operation {index}");
    }
}

#[test]
fn a_damaged_write_is_found_by_reading_back() {
    let disk = shared(pair(9, 8));
    let old = variables(disk.borrow().content(), true);
    let result = store(&disk, true, true).save(&edits(&wide(NEW)));
    assert!(matches!(result, Err(Error::Differs(Slot::Second))), "{result:?}");
    assert_eq!(variables(disk.borrow().content(), true), old);
}

/// Two saves behind flushes that lie are both still in flight, and a cut may tear both copies.
#[test]
fn the_harness_finds_a_lying_flush() {
    let lost = |lying: bool| {
        let start = pair(1, 0);
        let disk = shared(start.clone());
        disk.borrow_mut().lying_flush = lying;
        for value in ["x", "y"] {
            store(&disk, true, false).save(&edits(&wide(value))).unwrap();
        }
        let disk = disk.borrow();
        torn_together(&start, &disk.steps).iter().filter(|s| variables(s, true).is_none()).count()
    };
    assert_eq!(lost(false), 0);
    assert!(lost(true) > 0);
}

/// For each moment, all writes in flight torn at once: of each only the first sector arrived.
fn torn_together(start: &[u8], steps: &[Step]) -> Vec<Vec<u8>> {
    let (mut durable, mut pending, mut states) = (start.to_vec(), Vec::new(), Vec::new());
    let put = |to: &mut Vec<u8>, at: u64, data: &[u8]| to[at as usize..][..data.len()].copy_from_slice(data);
    for step in steps {
        match step {
            Step::Write(at, data) => pending.push((*at, data)),
            Step::Flush => pending.drain(..).for_each(|(at, data)| put(&mut durable, at, data)),
        }
        let mut torn = durable.clone();
        pending.iter().for_each(|(at, data)| put(&mut torn, *at, &data[..crate::disk::SECTOR]));
        states.push(torn);
    }
    states
}

/// Goal G7: every pair of flags, every combination of good and bad CRCs.
#[test]
fn all_pairs_of_copies_follow_the_rule_of_u_boot() {
    let mut states = 0;
    for (a, b) in (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| (a, b))) {
        for (good_a, good_b) in [(true, true), (true, false), (false, true), (false, false)] {
            let copy = |good, flag| if good { Copy::Good { flag } } else { Copy::BadCrc };
            let choice = choose(copy(good_a, a), copy(good_b, b), Scheme::Incremental);
            assert_eq!(choice.active, u_boot(good_a, good_b, a, b), "{good_a} {good_b} {a} {b}");
            assert_ne!(Some(choice.next), choice.active);
            assert_eq!(choice.both_good, good_a && good_b);
            // Once written, the new copy counts, whatever the slot held; while it is torn, the old one does.
            let (flags, torn) = match choice.next {
                Slot::First => ((choice.next_flag, b), (false, good_b)),
                Slot::Second => ((a, choice.next_flag), (good_a, false)),
            };
            let whole = match choice.next {
                Slot::First => (true, good_b),
                Slot::Second => (good_a, true),
            };
            assert_eq!(u_boot(whole.0, whole.1, flags.0, flags.1), Some(choice.next), "{a} {b}");
            assert_eq!(u_boot(torn.0, torn.1, flags.0, flags.1), choice.active, "{a} {b}");
            states += 1;
        }
    }
    assert_eq!(states, 4 * 65536);
}

/// U-Boot's rule, written as the serial number that it means.
fn u_boot(good_a: bool, good_b: bool, a: u8, b: u8) -> Option<Slot> {
    if !(good_a && good_b) {
        return if good_a { Some(Slot::First) } else { good_b.then_some(Slot::Second) };
    }
    let wrapped = |flag: u8, other: u8| i32::from(flag) + if (flag, other) == (0, 255) { 256 } else { 0 };
    Some(if wrapped(b, a) > wrapped(a, b) { Slot::Second } else { Slot::First })
}

/// The first environment of a device: where there was none, where there was noise, and where there was one.
#[test]
fn a_cut_while_an_environment_is_created_leaves_the_old_state_or_the_new_one() {
    let good = pair(4, 5);
    let half = [good[..SIZE].to_vec(), vec![0xFF; SIZE]].concat();
    for start in
        [vec![0; 2 * SIZE], vec![0xFF; 2 * SIZE], b"noise".repeat(SIZE)[..2 * SIZE].to_vec(), half, good]
    {
        let wide = wide(NEW);
        let old = variables(&start, true);
        let disk = shared(start);
        store(&disk, true, false).create(&edits(&wide)).unwrap();
        let new = variables(disk.borrow().content(), true);
        assert!(new.is_some());
        let states = disk.borrow().cuts(|name, state| {
            let seen = variables(state, true);
            assert!(seen == old || seen == new, "neither after {name}");
            let again = shared(state.to_vec());
            store(&again, true, false).create(&edits(&wide)).unwrap();
            assert_eq!(variables(again.borrow().content(), true), new, "re-run after {name}");
        });
        assert!(states > SIZE, "only {states} states");
    }
}
