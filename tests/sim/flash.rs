//! The U-Boot environment in flash that loses power in the middle of an erasure or of a byte, and in UBI volumes.

use std::cell::RefCell;
use std::rc::Rc;

use bootward::storage::Flash;
use bootward::uboot::env::{Edit, Image, Kind, rewrite};
use bootward::uboot::flash::{FlashSeat, Geometry, Unfit};
use bootward::uboot::pair::{Copy, Scheme, Slot, choose};
use bootward::uboot::seat::Seat;
use bootward::uboot::store::{Condition, Error, Store};

/// The image does not fill its last sector: what is behind it belongs to somebody else.
const SIZE: usize = 600;
const SECTOR: usize = 256;
/// For each copy; the image needs three.
const SECTORS: usize = 5;
const COPY: usize = SECTOR * SECTORS;

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Injected,
    Range,
    Locked,
    Page,
    Damaged,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A whole chip. Programming only clears bits, erasing sets those of a sector.
#[derive(Clone)]
struct Chip {
    bytes: Vec<u8>,
    locked: Vec<bool>,
    bad: Vec<usize>,
    page: usize,
    /// The state before each erasure and programming, and what was then done.
    steps: Vec<(Vec<u8>, Step)>,
    fail_at: Option<usize>,
    operations: usize,
    /// Programming leaves a bit that it should clear.
    worn: bool,
}

#[derive(Clone)]
enum Step {
    Erase(usize),
    Program(usize, Vec<u8>),
}

impl Chip {
    fn new(bytes: Vec<u8>) -> Self {
        let locked = vec![false; bytes.len() / SECTOR];
        Chip { bytes, locked, bad: vec![], page: 1, steps: vec![], fail_at: None, operations: 0, worn: false }
    }

    fn operation(&mut self) -> Result<(), Fault> {
        self.operations += 1;
        if self.fail_at == Some(self.operations - 1) { Err(Fault::Injected) } else { Ok(()) }
    }

    /// Every state that a cut could leave: at each byte of what is programmed, and there in the middle of the byte; in an
    /// erasure from either end at each byte, with some bits gone and others not, with garbage, and with only one byte,
    /// or one bit, of the whole sector gone already.
    fn cuts(&self, mut visit: impl FnMut(&str, &[u8])) -> usize {
        let mut states = 0;
        let mut show = |name: String, state: &[u8]| {
            states += 1;
            visit(&name, state);
        };
        for (index, (before, step)) in self.steps.iter().enumerate() {
            show(format!("step-{index}"), before);
            match step {
                Step::Program(at, data) => {
                    let mut state = before.clone();
                    for (n, byte) in data.iter().enumerate() {
                        let old = state[at + n];
                        let clears = old & !byte;
                        for bit in (0..8).filter(|bit| clears >> bit & 1 == 1) {
                            for left in [old & !(1 << bit), old & !clears | (1 << bit)] {
                                state[at + n] = left;
                                show(format!("program-{index}-byte-{n}-bit-{bit}-{left:02x}"), &state);
                            }
                        }
                        state[at + n] = old & byte;
                        show(format!("program-{index}-byte-{}", n + 1), &state);
                    }
                }
                Step::Erase(at) => {
                    let part = *at..at + SECTOR;
                    let mut with = |name: &str, change: &mut dyn FnMut(&mut [u8])| {
                        let mut state = before.clone();
                        change(&mut state[part.clone()]);
                        show(format!("erase-{index}-{name}"), &state);
                    };
                    for n in 0..=SECTOR {
                        with(&format!("first-{n}"), &mut |s| s[..n].fill(0xFF));
                        with(&format!("last-{n}"), &mut |s| s[SECTOR - n..].fill(0xFF));
                        with(&format!("cleared-{n}"), &mut |s| s[..n].fill(0));
                    }
                    for n in 0..SECTOR {
                        with(&format!("only-{n}"), &mut |s| s[n] = 0xFF);
                        for bit in 0..8 {
                            with(&format!("only-{n}-bit-{bit}"), &mut |s| s[n] |= 1 << bit);
                        }
                    }
                    for seed in 1..60u64 {
                        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
                        let mut byte = || {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            random as u8
                        };
                        with(&format!("garbage-{seed}"), &mut |s| s.iter_mut().for_each(|b| *b = byte()));
                        with(&format!("bits-{seed}"), &mut |s| s.iter_mut().for_each(|b| *b |= byte()));
                    }
                }
            }
        }
        show("end".into(), &self.bytes);
        states
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Chip>>);

impl Flash for Shared {
    type Error = Fault;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        let mut chip = self.0.borrow_mut();
        chip.operation()?;
        let end = offset as usize + buffer.len();
        buffer.copy_from_slice(chip.bytes.get(offset as usize..end).ok_or(Fault::Range)?);
        Ok(())
    }
    fn is_bad(&mut self, offset: u64) -> Result<bool, Fault> {
        Ok(self.0.borrow().bad.contains(&(offset as usize / SECTOR)))
    }
    fn erase(&mut self, offset: u64, length: u64) -> Result<(), Fault> {
        let mut chip = self.0.borrow_mut();
        let at = offset as usize;
        assert!(at.is_multiple_of(SECTOR) && length as usize == SECTOR && !chip.bad.contains(&(at / SECTOR)));
        chip.operation()?;
        if chip.locked[at / SECTOR] {
            return Err(Fault::Locked);
        }
        let before = chip.bytes.clone();
        chip.steps.push((before, Step::Erase(at)));
        chip.bytes[at..at + SECTOR].fill(0xFF);
        Ok(())
    }
    fn program(&mut self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        let mut chip = self.0.borrow_mut();
        let at = offset as usize;
        chip.operation()?;
        if !at.is_multiple_of(chip.page) || !data.len().is_multiple_of(chip.page) {
            return Err(Fault::Page);
        }
        if chip.locked[at / SECTOR] {
            return Err(Fault::Locked);
        }
        let before = chip.bytes.clone();
        chip.steps.push((before, Step::Program(at, data.to_vec())));
        for (n, byte) in data.iter().enumerate() {
            chip.bytes[at + n] &= byte;
        }
        if chip.worn && data.len() > 100 {
            chip.bytes[at + 100] |= 0x80;
        }
        Ok(())
    }
    fn unlock(&mut self, offset: u64, _: u64) -> bool {
        std::mem::take(&mut self.0.borrow_mut().locked[offset as usize / SECTOR])
    }
    fn lock(&mut self, offset: u64, _: u64) {
        self.0.borrow_mut().locked[offset as usize / SECTOR] = true;
    }
    fn damaged(&self, _: u64) -> Fault {
        Fault::Damaged
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Nor,
    Nand,
}

fn geometry(kind: Type, slot: usize, page: usize) -> Geometry {
    Geometry {
        offset: (slot * COPY) as u64,
        size: SIZE,
        sector: SECTOR as u64,
        sectors: SECTORS as u64,
        page,
        boolean: kind == Type::Nor,
        rewritable: kind == Type::Nor,
        length: 2 * COPY as u64,
    }
}

fn store(chip: &Rc<RefCell<Chip>>, kind: Type, redundant: bool) -> Store<FlashSeat<Shared>> {
    let page = chip.borrow().page;
    let seat = |slot| FlashSeat::over(Shared(chip.clone()), geometry(kind, slot, page)).unwrap();
    Store::over(seat(0), redundant.then(|| seat(1)), true).unwrap()
}

fn image(kind: Kind, flag: u8, wide: &str) -> Vec<u8> {
    let wide = wide.repeat(500);
    let edits = [("bootcount", "3"), ("rollback", "0"), ("wide", &wide)];
    let edits = edits.map(|(n, v)| Edit { name: n.as_bytes(), value: Some(v.as_bytes()) });
    let mut bytes = vec![0; SIZE];
    rewrite(&Image::EMPTY, &edits, kind, flag, &mut bytes).unwrap();
    bytes
}

/// A chip with the images in the sectors that are not bad, and something of somebody else's in every other byte.
fn chip(bad: &[usize], page: usize, images: &[Vec<u8>]) -> Rc<RefCell<Chip>> {
    let mut bytes = vec![0x5A; 2 * COPY];
    for (slot, image) in images.iter().enumerate() {
        let good = (0..SECTORS).map(|s| slot * SECTORS + s).filter(|s| !bad.contains(s));
        for (sector, part) in good.zip(image.chunks(SECTOR)) {
            bytes[sector * SECTOR..][..part.len()].copy_from_slice(part);
        }
    }
    let mut chip = Chip::new(bytes);
    chip.bad = bad.to_vec();
    chip.page = page;
    Rc::new(RefCell::new(chip))
}

fn at(chip: &Rc<RefCell<Chip>>, state: &[u8]) -> Rc<RefCell<Chip>> {
    let of = chip.borrow();
    let mut chip = Chip::new(state.to_vec());
    chip.bad.clone_from(&of.bad);
    chip.page = of.page;
    Rc::new(RefCell::new(chip))
}

type Variables = Vec<(Vec<u8>, Vec<u8>)>;

fn variables(chip: &Rc<RefCell<Chip>>, kind: Type, redundant: bool) -> Option<Variables> {
    let loaded = store(chip, kind, redundant).load().unwrap();
    loaded.image().map(|i| i.variables().map(|(n, v)| (n.to_vec(), v.to_vec())).collect())
}

fn edits(wide: &str) -> [Edit<'_>; 3] {
    [
        Edit { name: b"bootcount", value: None },
        Edit { name: b"rollback", value: Some(b"1") },
        Edit { name: b"wide", value: Some(wide.as_bytes()) },
    ]
}

/// Everything outside the images stays as it is.
fn others(chip: &Rc<RefCell<Chip>>) -> Vec<u8> {
    let chip = chip.borrow();
    let mut bytes = chip.bytes.clone();
    for slot in 0..2 {
        let good = (0..SECTORS).map(|s| slot * SECTORS + s).filter(|s| !chip.bad.contains(s));
        for (n, sector) in good.take(SIZE.div_ceil(SECTOR)).enumerate() {
            let used = SECTOR.min(SIZE - n * SECTOR);
            bytes[sector * SECTOR..][..used].fill(0);
        }
    }
    bytes
}

fn cut(start: &Rc<RefCell<Chip>>, kind: Type) -> usize {
    let wide = "n".repeat(480);
    let old = variables(start, kind, true);
    let kept = others(start);
    let chip = at(start, &start.borrow().bytes);
    store(&chip, kind, true).save(&edits(&wide)).unwrap();
    let new = variables(&chip, kind, true);
    assert!(old.is_some() && new.is_some() && old != new);
    assert_eq!(others(&chip), kept);
    let done = chip.borrow().clone();
    done.cuts(|name, state| {
        let again = at(start, state);
        let seen = variables(&again, kind, true);
        assert!(seen == old || seen == new, "neither after {name}");
        store(&again, kind, true).save(&edits(&wide)).unwrap();
        assert_eq!(variables(&again, kind, true), new, "re-run after {name}");
        if kind == Type::Nor {
            let flags: Vec<u8> = (0..2).map(|slot| again.borrow().bytes[slot * COPY + 4]).collect();
            assert!(flags == [0, 1] || flags == [1, 0], "flags {flags:?} after {name} and a re-run");
        }
    })
}

fn pair(first: u8, second: u8) -> [Vec<u8>; 2] {
    [image(Kind::Redundant, first, "a"), image(Kind::Redundant, second, "b")]
}

#[test]
fn a_cut_of_a_pair_in_nor_leaves_the_old_or_the_new_environment() {
    let mut states = 0;
    // Either one active, a cut between its two steps before, and what mkenvimage and old U-Boots leave.
    for (first, second) in
        [(1, 0), (0, 1), (1, 1), (0, 0), (255, 1), (1, 255), (255, 255), (255, 0), (0, 255)]
    {
        states += cut(&chip(&[], 1, &pair(first, second)), Type::Nor);
    }
    for slot in 0..2 {
        let images = pair(1, 0);
        let start = chip(&[], 1, &images);
        start.borrow_mut().bytes[slot * COPY + 100] ^= 0xFF;
        states += cut(&start, Type::Nor);
    }
    println!("{states} cuts");
    assert!(states > 100_000, "only {states} states");
}

#[test]
fn a_cut_of_a_pair_in_nand_with_bad_blocks_leaves_the_old_or_the_new_environment() {
    let mut states = 0;
    for bad in [vec![], vec![0], vec![0, 2, 6, 9]] {
        for (first, second) in [(2, 1), (255, 0), (0, 255)] {
            // The flash itself finds a wrong flag there (its ECC), so that it is not the flag that a cut leaves wrong.
            let start = chip(&bad, 64, &pair(first, second));
            let wide = "n".repeat(480);
            let (old, kept) = (variables(&start, Type::Nand, true), others(&start));
            let whole = at(&start, &start.borrow().bytes);
            store(&whole, Type::Nand, true).save(&edits(&wide)).unwrap();
            let new = variables(&whole, Type::Nand, true);
            assert_eq!(others(&whole), kept, "{bad:?}");
            let done = whole.borrow().clone();
            states += done.cuts(|name, state| {
                if name.contains("only-4-") || name.ends_with("only-4") {
                    return;
                }
                let again = at(&start, state);
                let seen = variables(&again, Type::Nand, true);
                assert!(seen == old || seen == new, "{bad:?}: neither after {name}");
                store(&again, Type::Nand, true).save(&edits(&wide)).unwrap();
                assert_eq!(variables(&again, Type::Nand, true), new, "{bad:?}: re-run after {name}");
            });
        }
    }
    println!("{states} cuts");
    assert!(states > 50_000, "only {states} states");
}

#[test]
fn a_cut_of_a_single_copy_is_old_new_or_said_to_be_corrupt() {
    let start = chip(&[], 1, &[image(Kind::Single, 0, "a")]);
    let wide = "n".repeat(480);
    let (old, kept) = (variables(&start, Type::Nor, false), others(&start));
    let whole = at(&start, &start.borrow().bytes);
    let mut single = store(&whole, Type::Nor, false);
    assert!(!single.survives_cuts());
    single.save(&edits(&wide)).unwrap();
    let new = variables(&whole, Type::Nor, false);
    assert_eq!(others(&whole)[..COPY], kept[..COPY]);
    let mut lost = 0;
    let done = whole.borrow().clone();
    done.cuts(|name, state| {
        let chip = at(&start, state);
        let mut store = store(&chip, Type::Nor, false);
        let loaded = store.load().unwrap();
        if loaded.image().is_none() {
            lost += 1;
            assert_eq!(loaded.condition, Condition::Corrupt);
            assert!(matches!(store.save(&edits(&wide)), Err(Error::NoEnvironment)), "{name}");
        } else {
            let seen = variables(&chip, Type::Nor, false);
            assert!(seen == old || seen == new, "a wrong one after {name}");
        }
    });
    assert!(lost > 1000, "only {lost} states lost: the cuts do not reach the image");
}

#[test]
fn a_failing_operation_is_never_a_success_and_keeps_an_environment() {
    for kind in [Type::Nor, Type::Nand] {
        let start = chip(&[], 1, &pair(1, 0));
        let wide = "n".repeat(480);
        let old = variables(&start, kind, true);
        let whole = at(&start, &start.borrow().bytes);
        store(&whole, kind, true).save(&edits(&wide)).unwrap();
        let operations = whole.borrow().operations;
        let new = variables(&whole, kind, true);
        for index in 0..operations {
            let chip = at(&start, &start.borrow().bytes);
            chip.borrow_mut().fail_at = Some(index);
            let result = store(&chip, kind, true).save(&edits(&wide));
            assert!(result.is_err(), "{kind:?}: operation {index} failed and the save succeeded");
            chip.borrow_mut().fail_at = None;
            let seen = variables(&chip, kind, true);
            assert!(seen == old || seen == new, "{kind:?}: operation {index}");
        }
    }
}

#[test]
fn locked_sectors_are_unlocked_and_locked_again_whatever_happens() {
    let start = chip(&[], 1, &pair(1, 0));
    let wide = "n".repeat(480);
    let locked: Vec<bool> = (0..2 * SECTORS).map(|s| s % 2 == 0 || s == 5).collect();
    for fail in (0..40).map(Some).chain([None]) {
        let chip = at(&start, &start.borrow().bytes);
        chip.borrow_mut().locked.clone_from(&locked);
        chip.borrow_mut().fail_at = fail;
        let result = store(&chip, Type::Nor, true).save(&edits(&wide));
        assert_eq!(chip.borrow().locked, locked, "{fail:?}");
        assert!(fail.is_some() || result.is_ok(), "{result:?}");
    }
}

#[test]
fn worn_flash_is_found_by_reading_back_and_the_old_environment_stays() {
    let start = chip(&[], 1, &pair(1, 0));
    let old = variables(&start, Type::Nor, true);
    start.borrow_mut().worn = true;
    let result = store(&start, Type::Nor, true).save(&edits(&"n".repeat(480)));
    assert!(matches!(result, Err(Error::Differs(Slot::Second) | Error::Write(Fault::Damaged))), "{result:?}");
    assert_eq!(variables(&start, Type::Nor, true), old);
}

#[test]
fn places_that_do_not_fit_are_refused() {
    let flash = || Shared(chip(&[0, 1, 2], 1, &[]));
    let with = |change: &dyn Fn(&mut Geometry)| {
        let mut geometry = geometry(Type::Nand, 0, 1);
        change(&mut geometry);
        FlashSeat::over(flash(), geometry).err()
    };
    assert_eq!(with(&|_| ()), Some(Unfit::Bad { needed: 3, good: 2 }));
    assert_eq!(with(&|g| g.offset = 10), Some(Unfit::Misaligned { offset: 10, sector: 256 }));
    assert_eq!(with(&|g| g.sectors = 2), Some(Unfit::Sectors { needed: 3, sectors: 2 }));
    assert_eq!(with(&|g| g.sectors = 12), Some(Unfit::Outside { end: 3072, length: 2560 }));
    assert_eq!(with(&|g| g.sector = 0), Some(Unfit::Sector(0)));
    assert_eq!(with(&|g| g.page = 100), Some(Unfit::Sector(256)));
    assert_eq!(with(&|g| g.sectors = 1 << 40), Some(Unfit::Sector(256)));
    assert_eq!(with(&|g| (g.offset, g.sectors) = (768, 0)), None);
    let seat = |kind, slot| FlashSeat::over(Shared(chip(&[], 1, &[])), geometry(kind, slot, 1)).unwrap();
    let mixed = Store::over(seat(Type::Nor, 0), Some(seat(Type::Nand, 1)), true);
    assert!(matches!(mixed.map(drop), Err(Error::Mixed)));
}

/// The Boolean scheme, all of it: every pair of flags, every combination of CRCs. After the first step of a write the old
/// or the new copy counts, after the second the new one for everybody who reads it.
#[test]
fn all_pairs_of_copies_follow_the_boolean_rule() {
    for (a, b) in (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| (a, b))) {
        for (good_a, good_b) in [(true, true), (true, false), (false, true), (false, false)] {
            let copy = |good, flag| if good { Copy::Good { flag } } else { Copy::BadCrc };
            let (first, second) = (copy(good_a, a), copy(good_b, b));
            let choice = choose(first, second, Scheme::Boolean);
            assert_ne!(Some(choice.next), choice.active);
            assert_eq!(choice.next_flag, 1);
            let with = |new: Slot, old: Copy| match new {
                Slot::First => (Copy::Good { flag: 1 }, old),
                Slot::Second => (old, Copy::Good { flag: 1 }),
            };
            let old = if choice.next == Slot::First { second } else { first };
            let written = with(choice.next, old);
            let active = choose(written.0, written.1, Scheme::Boolean).active;
            assert!(active == choice.active || active == Some(choice.next), "{a} {b}");
            let Copy::Good { .. } = old else {
                assert_eq!(active, Some(choice.next));
                continue;
            };
            let retired = with(choice.next, Copy::Good { flag: 0 });
            assert_eq!(choose(retired.0, retired.1, Scheme::Boolean).active, Some(choice.next), "{a} {b}");
            // U-Boot's drivers for SPI flash use the incremental rule on these flags.
            assert_eq!(choose(retired.0, retired.1, Scheme::Incremental).active, Some(choice.next));
        }
    }
}

/// A UBI volume as UBI updates it: what was there is gone first, and until the end it is marked as torn.
#[derive(Clone, Default)]
struct Volume {
    content: Vec<u8>,
    torn: bool,
    /// How many bytes arrive of the next update; all where it is `None`.
    cut: Option<usize>,
}

#[derive(Clone)]
struct Volumes(Rc<RefCell<[Volume; 2]>>, usize);

impl Seat for Volumes {
    type Error = Fault;
    fn size(&self) -> u64 {
        SIZE as u64
    }
    fn is_atomic(&self) -> bool {
        false
    }
    fn read(&mut self) -> Result<Vec<u8>, Fault> {
        let volume = &self.0.borrow()[self.1];
        Ok(if volume.torn { Vec::new() } else { volume.content.clone() })
    }
    fn write(&mut self, image: &[u8]) -> Result<(), Fault> {
        let volume = &mut self.0.borrow_mut()[self.1];
        volume.torn = volume.cut.is_some();
        volume.content = image[..volume.cut.unwrap_or(SIZE)].to_vec();
        if volume.torn { Err(Fault::Injected) } else { Ok(()) }
    }
    fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn a_cut_update_of_a_volume_leaves_the_other_volume() {
    let wide = "n".repeat(480);
    for (cut, torn) in (0..SIZE).flat_map(|cut| [(cut, true), (cut, false)]) {
        for (flags, idle) in [((1, 2), 0), ((2, 1), 1), ((255, 0), 0), ((0, 255), 1)] {
            let (a, b) = (image(Kind::Redundant, flags.0, "a"), image(Kind::Redundant, flags.1, "b"));
            let volumes = [a, b].map(|content| Volume { content, ..Volume::default() });
            let volumes = Rc::new(RefCell::new(volumes));
            let store =
                || Store::over(Volumes(volumes.clone(), 0), Some(Volumes(volumes.clone(), 1)), true).unwrap();
            let old = store().load().unwrap().get(b"wide").unwrap().to_vec();
            volumes.borrow_mut()[idle].cut = Some(cut);
            assert!(matches!(store().save(&edits(&wide)), Err(Error::Write(_))));
            // Where nobody marks it, it is short.
            volumes.borrow_mut()[idle].torn = torn;
            volumes.borrow_mut()[idle].cut = None;
            let loaded = store().load().unwrap();
            let slot = if idle == 0 { Slot::First } else { Slot::Second };
            assert_eq!(loaded.condition, Condition::OneCopyCorrupt(slot), "{cut}");
            assert_eq!(loaded.get(b"wide"), Some(old.as_slice()));
            store().save(&edits(&wide)).unwrap();
            assert_eq!(store().load().unwrap().get(b"wide"), Some(wide.as_bytes()));
        }
    }
}
