//! Device, bootloader and guardian together: from every start state, how many resets until something runs?
//!
//! Nobody acts: no confirm, no operator, no power cut; a system that crashes after the hand-over is reset (by
//! the watchdog or `panic=N`). Every device in a bounded space is run until a deployment works, recovery is
//! reached, or a state repeats, which is a loop without an end. Pessimistic where it is not known: a kernel
//! that is not a deployment's own and has no modules there crashes it. Assumed: what each kernel starts is this
//! guardian. The loader that counts and rolls back is `uboot/boot.cmd`, with its entry fallback and its lost state
//! ([`with_an_entry_that_does_not_load_or_a_lost_state`]).
//!
//! With the ledger's limit on, as `bootward::observe` applies it to every deployment, every device ends
//! ([`with_the_ledgers_limit`]). With the limit off only the bootloader counts, and devices may loop for ever:
//! [`without_the_ledgers_limit`] proves which loops there are, that there are no others, and the condition
//! under which there are none.

use bootward::policy::{
    Action, Attempts, BootState, Candidate, Decision, Facts, Kernel, Reading, Rule, Via, decide,
};

/// `bootlimit` and the ledger's limit, where they are on.
const LIMIT: u32 = 1;
/// Counters of the model stop here: over the limit is over the limit.
const OVER: u32 = LIMIT + 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    Works,
    /// Passes every check before the hand-over, then crashes.
    Crashes,
    /// Its verdict is broken.
    Broken,
}

/// A deployment; kernels are 0 (that of the bootloader's first entry) or 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Deployed {
    health: Health,
    kernel: u8,
    /// Has modules for the other kernel as well.
    modules_for_both: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loader {
    /// `uboot/boot.cmd`: counts while `upgrade_available=1` and not `rollback=1`; over the limit it sets `rollback=1`,
    /// `upgrade_available=0` and starts entry 2. Outside a trial the count is nothing; a state that is lost begins a
    /// trial; an entry that does not load gives way to the other one.
    CountsAndRollsBack,
    /// Counts while `upgrade_available=1` and always starts entry 1, but for `rollback=1`.
    CountsOnly,
    /// Honours `rollback=1` and counts nothing.
    NoCount,
    /// Has no environment: always entry 1.
    NoEnvironment,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kexec {
    Missing,
    Works,
    Crashes,
}

/// What does not change while nobody acts.
#[derive(Clone, Debug)]
struct Device {
    deployed: Vec<Deployed>,
    loader: Loader,
    bootlimit: u32,
    /// The loader knows a second entry.
    second_entry: bool,
    /// Whether the entries' kernels load.
    loads: [bool; 2],
    /// `ostree=` names the entry's deployment; else it names nothing that exists.
    in_step: bool,
    kexec: Kexec,
    ledger_limit: u32,
    ledger_writable: bool,
    confirmed: bool,
}

/// What lasts over a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Memory {
    /// No state is left: neither `rollback` nor `upgrade_available`.
    lost: bool,
    rollback: bool,
    upgrade_available: bool,
    bootcount: u32,
    asked: bool,
    /// Attempts of each deployment since it was last confirmed.
    failed: [u32; 3],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// A deployment works.
    Works,
    Recovery,
    /// A state came twice. What was booted in it, whether there was trouble, by which way.
    Loop {
        index: usize,
        trouble: bool,
        via: Via,
    },
}

/// What the ledger's limit applies to: the first deployment only, as the policy itself does, or each
/// deployment, as `bootward::observe` does.
#[derive(Clone, Copy, PartialEq)]
enum Rules {
    AsTheyStand,
    LedgerVerdict,
}

impl Device {
    /// The bootloader, from reset to the kernel: which entry it starts.
    fn load(&self, memory: &mut Memory) -> usize {
        let script = self.loader == Loader::CountsAndRollsBack;
        if script && memory.lost {
            (memory.rollback, memory.upgrade_available, memory.bootcount) = (false, true, 0);
        }
        memory.lost = false;
        let mut trial = memory.upgrade_available && !(script && memory.rollback);
        if trial && matches!(self.loader, Loader::CountsAndRollsBack | Loader::CountsOnly) {
            memory.bootcount = OVER.min(memory.bootcount + 1);
            let over = self.bootlimit != 0 && memory.bootcount > self.bootlimit;
            if over && script {
                memory.rollback = true;
                memory.upgrade_available = false;
                trial = false;
            }
        }
        if script && !trial {
            memory.bootcount = 0;
        }
        let two = self.second_entry && self.deployed.len() > 1;
        let rolled_back = memory.rollback && self.loader != Loader::NoEnvironment;
        let entry = usize::from(rolled_back && two);
        if script && two && !self.loads[entry] { 1 - entry } else { entry }
    }

    fn facts(&self, memory: &Memory, rules: Rules, running: u8, named: Option<usize>) -> Facts {
        let environment = self.loader != Loader::NoEnvironment;
        let mut facts = Facts { named, ..Facts::default() };
        if environment {
            facts.state = BootState {
                rollback: Reading::Value(memory.rollback),
                upgrade_available: Reading::Value(memory.upgrade_available),
                bootcount: Reading::Value(memory.bootcount),
                bootlimit: Reading::Value(self.bootlimit),
            };
        }
        facts.attempts =
            Attempts { failed: memory.failed[0], limit: self.ledger_limit, confirmed: self.confirmed };
        facts.kexec = self.kexec != Kexec::Missing;
        facts.loader = environment && self.second_entry && !memory.asked;
        for (index, deployed) in self.deployed.iter().enumerate() {
            let worn = rules == Rules::LedgerVerdict
                && self.ledger_limit != 0
                && memory.failed[index] > self.ledger_limit;
            let bootable = deployed.health != Health::Broken && !worn;
            let kernel = match (deployed.kernel == running, deployed.modules_for_both) {
                (true, _) => Kernel::Running,
                (false, true) => Kernel::OtherWithModules,
                (false, false) => Kernel::OtherWithoutModules,
            };
            facts.candidates.push(Candidate { bootable, kernel }).unwrap();
        }
        facts
    }

    /// From one reset to the next: the end, or what was tried.
    #[allow(clippy::result_large_err, reason = "a test's Decision, on the stack once")]
    fn boot(&self, memory: &mut Memory, rules: Rules) -> Result<End, Decision> {
        let entry = self.load(memory);
        let mut running = self.deployed.get(entry).map_or(0, |deployed| deployed.kernel);
        let mut named = Some(entry).filter(|_| self.in_step);
        for _guardian in 0..3 {
            let decision = decide(&self.facts(memory, rules, running, named));
            let Action::Boot { index, via } = decision.action else {
                return Ok(End::Recovery);
            };
            if self.ledger_writable {
                memory.failed[index] = OVER.min(memory.failed[index] + 1);
                memory.asked |= via == Via::Loader;
            }
            let chosen = self.deployed[index];
            match via {
                Via::Direct if chosen.health == Health::Works => return Ok(End::Works),
                Via::Direct | Via::Mismatched => return Err(decision),
                Via::Loader => {
                    memory.rollback = true;
                    return Err(decision);
                }
                Via::Kexec if self.kexec == Kexec::Crashes => return Err(decision),
                // The other kernel starts the guardian again, which finds itself named.
                Via::Kexec => (running, named) = (chosen.kernel, Some(index)),
            }
        }
        panic!("kexec does not lead to a boot: {self:?} {memory:?}");
    }

    /// Runs until the end; with it the number of resets.
    fn run(&self, mut memory: Memory, rules: Rules, seen: &mut Vec<Memory>) -> (End, usize) {
        seen.clear();
        loop {
            seen.push(memory);
            match self.boot(&mut memory, rules) {
                Ok(end) => return (end, seen.len() - 1),
                Err(decision) if seen.contains(&memory) => {
                    let Action::Boot { index, via } = decision.action else { unreachable!() };
                    let trouble = matches!(decision.rule, Rule::First { trouble: Some(_), .. });
                    return (End::Loop { index, trouble, via }, seen.len());
                }
                Err(_) => {}
            }
        }
    }

    /// Somebody counts the first deployment's crashes.
    fn first_is_counted(&self, start: &Memory) -> bool {
        let by_loader = matches!(self.loader, Loader::CountsAndRollsBack | Loader::CountsOnly)
            && start.upgrade_available
            && !(self.loader == Loader::CountsAndRollsBack && start.rollback)
            && self.bootlimit != 0;
        let by_ledger = self.ledger_limit != 0 && self.ledger_writable && !self.confirmed;
        by_loader || by_ledger
    }
}

/// Every set of nought to three deployments. The first one's kernel is kernel 0: the other is the same, renamed.
fn deployment_sets() -> Vec<Vec<Deployed>> {
    let mut one = vec![Deployed { health: Health::Broken, kernel: 0, modules_for_both: false }];
    for health in [Health::Works, Health::Crashes] {
        for kernel in [0, 1] {
            for modules_for_both in [false, true] {
                one.push(Deployed { health, kernel, modules_for_both });
            }
        }
    }
    let mut sets = vec![vec![]];
    let mut longest = vec![vec![]];
    for length in 1..=3 {
        // A third one is told from the second by nothing but its place: modules for both are left out.
        let one: Vec<_> = one.iter().copied().filter(|d| length < 3 || !d.modules_for_both).collect();
        let longer = |set: &Vec<Deployed>| {
            let set = set.clone();
            one.iter().map(move |&next| [set.as_slice(), &[next]].concat()).collect::<Vec<_>>()
        };
        longest = longest.iter().flat_map(longer).filter(|set: &Vec<Deployed>| set[0].kernel == 0).collect();
        sets.extend_from_slice(&longest);
    }
    sets
}

fn devices(mut visit: impl FnMut(&Device)) {
    use Loader::{CountsAndRollsBack, CountsOnly, NoCount, NoEnvironment};
    // Off; on; on and not writable.
    let ledgers = [(0, true), (LIMIT, true), (LIMIT, false)];
    for deployed in deployment_sets() {
        for bits in 0..16 {
            for kexec in [Kexec::Missing, Kexec::Works, Kexec::Crashes] {
                for loader in [CountsAndRollsBack, CountsOnly, NoCount, NoEnvironment] {
                    for (ledger_limit, ledger_writable) in ledgers {
                        let bootlimit = if bits & 1 == 0 { 0 } else { LIMIT };
                        let (second_entry, in_step) = (bits & 2 != 0, bits & 4 != 0);
                        let confirmed = bits & 8 != 0;
                        // What cannot matter is run once: entry 2 without a second deployment, the
                        // confirmation with no ledger, `bootlimit` where nobody counts (and a loader
                        // that counts only, up to no limit, is one that does not count).
                        let idle = second_entry && deployed.len() < 2
                            || confirmed && ledger_limit == 0
                            || bootlimit != 0 && matches!(loader, NoCount | NoEnvironment)
                            || bootlimit == 0 && loader == CountsOnly;
                        if !idle {
                            visit(&Device {
                                deployed: deployed.clone(),
                                loader,
                                bootlimit,
                                second_entry,
                                loads: [true, true],
                                in_step,
                                kexec,
                                ledger_limit,
                                ledger_writable,
                                confirmed,
                            });
                        }
                    }
                }
            }
        }
    }
}

/// Every memory that a device can start with. `worn` are the counts that the deployments may begin with.
fn starts(device: &Device, worn: &[[u32; 3]], mut visit: impl FnMut(Memory)) {
    let environments = if device.loader == Loader::NoEnvironment { 0..1 } else { 0..8 };
    let counts = if device.loader == Loader::NoEnvironment { 0..=0 } else { 0..=OVER };
    for bits in environments {
        // Without a second entry nothing is ever asked of the loader.
        if bits & 4 != 0 && !device.second_entry {
            continue;
        }
        for bootcount in counts.clone() {
            for &failed in worn {
                visit(Memory {
                    lost: false,
                    rollback: bits & 1 != 0,
                    upgrade_available: bits & 2 != 0,
                    asked: bits & 4 != 0,
                    bootcount,
                    failed,
                });
            }
        }
    }
}

/// What a loop boots, in words; the proof is that every loop is one of these.
fn loop_kind(device: &Device, start: &Memory, end: End) -> Option<&'static str> {
    let End::Loop { index, trouble, via } = end else {
        return None;
    };
    let bootable = |d: &&Deployed| d.health != Health::Broken;
    Some(match (index, trouble, via) {
        (_, _, Via::Loader) => panic!("the bootloader is asked for ever: {device:?} {start:?}"),
        (_, _, Via::Kexec) => {
            assert!(device.kexec == Kexec::Crashes);
            "kexec crashes and its target's attempts are not counted"
        }
        (_, _, Via::Mismatched) => "nothing but a mismatched kernel is left, and it crashes there",
        (0, true, _) => {
            assert_eq!(device.deployed.iter().filter(bootable).count(), 1);
            "the only bootable deployment crashes, in trouble or not"
        }
        (_, true, _) => "the fallback crashes as well",
        (0, false, _) => {
            assert!(!device.first_is_counted(start), "{device:?} {start:?}");
            "the first deployment crashes and nobody counts (no trial, or confirmed before)"
        }
        (_, false, _) => {
            assert_eq!(device.deployed[0].health, Health::Broken, "{device:?} {start:?}");
            "the first deployment is broken, the next one crashes: only the first is counted"
        }
    })
}

/// The condition under which every device ends without a verdict from the ledger.
fn promised(device: &Device, start: &Memory) -> bool {
    let kernels_fit = device.kexec != Kexec::Crashes
        && device.deployed.iter().all(|d| d.kernel == 0 || d.modules_for_both)
        && device.deployed.iter().all(|d| d.kernel == 1 || d.modules_for_both);
    let (Some(first), others) = (device.deployed.first(), device.deployed.get(1..).unwrap_or_default())
    else {
        return true;
    };
    let fallback_works = others.iter().all(|d| d.health != Health::Crashes);
    let some_work = others.iter().any(|d| d.health == Health::Works);
    let needed = first.health == Health::Crashes;
    kernels_fit && fallback_works && (!needed || some_work && device.first_is_counted(start))
}

#[test]
fn without_the_ledgers_limit() {
    let (mut states, mut ended, mut kept, mut bound) = (0u64, 0u64, 0u64, 0);
    let mut loops: Vec<(&str, u64, String)> = Vec::new();
    let mut seen = Vec::new();
    let worn: Vec<_> = (0..=OVER).map(|failed| [failed, 0, 0]).collect();
    devices(|device| {
        // Without a ledger its count is not looked at.
        let worn = if device.ledger_limit == 0 { &worn[..1] } else { &worn };
        starts(device, worn, |start| {
            states += 1;
            let (end, resets) = device.run(start, Rules::AsTheyStand, &mut seen);
            let promise = promised(device, &start);
            kept += u64::from(promise);
            let Some(kind) = loop_kind(device, &start, end) else {
                ended += 1;
                bound = bound.max(resets);
                return;
            };
            assert!(!promise, "{device:?} {start:?} ends in {end:?}");
            match loops.iter_mut().find(|known| known.0 == kind) {
                Some(known) => known.1 += 1,
                None => loops.push((kind, 1, format!("{device:?} from {start:?}: {end:?}"))),
            }
        });
    });
    println!("device: {states} start states; {ended} end, within {bound} resets; {kept} were promised to");
    for (kind, count, example) in &loops {
        println!("device: {count} loop: {kind}\n    first: {example}");
    }
    // Two counters in a row (the loader's, then the ledger's) and one request of the bootloader.
    assert!(bound <= 2 * OVER as usize + 1, "{bound} resets");
    assert!(ended > 0 && kept > 0 && !loops.is_empty());
}

/// With one more verdict, "attempted more often than the ledger's limit since it was last confirmed", for each
/// deployment, every device with a ledger that is on and can be written ends. Nothing in `decide` changes.
#[test]
fn with_the_ledgers_limit() {
    let (mut states, mut bound) = (0u64, 0);
    let mut seen = Vec::new();
    let worn: Vec<[u32; 3]> =
        (0..8).map(|bits: u32| [bits & 1, bits >> 1 & 1, bits >> 2].map(|b| b * OVER)).collect();
    devices(|device| {
        if device.ledger_limit == 0 || !device.ledger_writable {
            return;
        }
        starts(device, &worn[..1 << device.deployed.len()], |start| {
            states += 1;
            let (end, resets) = device.run(start, Rules::LedgerVerdict, &mut seen);
            assert!(!matches!(end, End::Loop { .. }), "{device:?} {start:?} ends in {end:?} after {resets}");
            bound = bound.max(resets);
        });
    });
    println!("device, with the ledger's verdict: {states} start states, all end, within {bound} resets");
    // Each of three deployments wears out once.
    assert!(bound <= 3 * OVER as usize, "{bound} resets");
}

/// An entry whose kernel does not load, and a state that was erased: with the ledger's limit every device ends, and the
/// erased state is a trial that ends with the bootloader's limit alone wherever a fallback works.
#[test]
fn with_an_entry_that_does_not_load_or_a_lost_state() {
    let (mut states, mut by_loader) = (0u64, 0u64);
    let mut seen = Vec::new();
    devices(|device| {
        let script = device.loader == Loader::CountsAndRollsBack;
        if !script || !device.second_entry || device.deployed.len() > 2 {
            return;
        }
        for loads in [[true, true], [false, true], [true, false]] {
            let device = Device { loads, ..device.clone() };
            starts(&device, &[[0; 3], [OVER, 0, 0]], |start| {
                for start in [start, Memory { lost: true, ..start }] {
                    states += 1;
                    if device.ledger_limit != 0 && device.ledger_writable {
                        let (end, resets) = device.run(start, Rules::LedgerVerdict, &mut seen);
                        let ends = !matches!(end, End::Loop { .. });
                        assert!(ends, "{device:?} {start:?} ends in {end:?} after {resets}");
                    }
                    // Both load, kernels and all, the second one works: nobody but the bootloader counts.
                    let fits = device.deployed.iter().all(|d| d.kernel == 0 || d.modules_for_both);
                    let works = device.deployed.get(1).is_some_and(|d| d.health == Health::Works);
                    let same = device.deployed.iter().all(|d| d.kernel == 0);
                    let counted = start.lost && device.bootlimit != 0 && device.ledger_limit == 0;
                    if counted && loads == [true, true] && fits && same && works && device.in_step {
                        by_loader += 1;
                        let (end, _) = device.run(start, Rules::AsTheyStand, &mut seen);
                        assert_eq!(end, End::Works, "{device:?} {start:?}");
                    }
                }
            });
        }
    });
    println!(
        "device, entries that do not load and lost states: {states} start states, {by_loader} by the bootloader"
    );
    assert!(states > 1000 && by_loader > 0);
}
