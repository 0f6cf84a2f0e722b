//! A device that rolled back and confirms: the power goes at every operation, and it boots on until nothing changes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bootward::arrange::plan::{Step, TRASH};
use bootward::arrange::survey::{Places, survey};
use bootward::arrange::{Layout, carry};
use bootward::deploy::collect;
use bootward::ledger::diary::Diary;
use bootward::ledger::{DeploymentId, Kind, Limits};
use bootward::observe::{Sources, observe};
use bootward::ostree::mark::Mark;
use bootward::ostree::object::Checksum;
use bootward::policy::{Action, decide};
use bootward::storage::At;
use bootward::sys::beneath::Beneath;
use bootward::sys::files::Disk;
use bootward::sysroot::Machine;
use bootward::trial::act::{Site, Verb, act, prepare, record_change, record_verdicts, save};
use bootward::trial::{floor, intent, rejected};
use bootward::uboot::env::Edit;
use bootward::uboot::store::Store;

use crate::arrange::{scratch, start};
use crate::fixture::{PLAIN, Style, make};
use crate::tree::{Model, State, load, store};

/// A device's disk, its environment beside it.
struct Device {
    keep: tempfile::TempDir,
}

impl Device {
    fn new(disk: &State) -> Device {
        let device = Device { keep: scratch() };
        fs::create_dir(device.root()).unwrap();
        store(disk, &device.root());
        for copy in ["a", "b"] {
            fs::write(device.keep.path().join(copy), [0; 1024]).unwrap();
        }
        let copy = |name: &str| format!("{} 0 0x400\n", device.keep.path().join(name).display());
        fs::write(device.config(), copy("a") + &copy("b")).unwrap();
        device
    }

    fn root(&self) -> PathBuf {
        self.keep.path().join("root")
    }

    fn config(&self) -> PathBuf {
        self.keep.path().join("config")
    }

    fn set(&self, variables: &[(&str, &str)]) {
        let edits: Vec<Edit<'_>> =
            variables.iter().map(|(n, v)| Edit { name: n.as_bytes(), value: Some(v.as_bytes()) }).collect();
        Store::open(&self.config()).unwrap().create(&edits).unwrap();
    }

    fn variable(&self, name: &str) -> String {
        let loaded = Store::open_to_read(&self.config()).unwrap().load().unwrap();
        String::from_utf8(loaded.get(name.as_bytes()).unwrap_or_default().to_vec()).unwrap()
    }

    fn layout(&self) -> Layout {
        let (sysroot, boot) = (self.root(), self.root().join("boot"));
        survey(&Places { sysroot: &sysroot, boot: &boot, booted: None, options: None, deep: true }).unwrap()
    }

    /// The deployments in boot order, by path.
    fn order(&self) -> Vec<String> {
        self.layout().entries.iter().map(|e| e.path()).collect()
    }

    fn site(&self, running: &str) -> Site {
        let stat = fs::metadata(self.root().join(running)).unwrap();
        Site {
            sysroot: self.root(),
            boot: self.root().join("boot"),
            env_config: Some(self.config()),
            booted: Some((stat.dev(), stat.ino())),
            booted_index: None,
            options: None,
        }
    }

    /// U-Boot with our script, then the guardian: which deployment runs.
    fn boot(&self) -> String {
        let root = self.root();
        let uenv = fs::read_to_string(root.join("boot/loader/uEnv.txt")).unwrap();
        let arguments = |suffix: &str| {
            uenv.lines().find_map(|l| l.strip_prefix(&format!("bootargs{suffix}="))).map(String::from)
        };
        let second = (self.variable("rollback") == "1").then(|| arguments("2")).flatten();
        let line = second.or_else(|| arguments("")).unwrap();
        let boot = root.join("boot");
        let config = self.config();
        let found = observe(&Sources {
            sysroot: &root,
            boot: &boot,
            env_config: Some(&config),
            env_remount: false,
            command_line: &line,
            init: None,
            release: "",
            machine: Machine::X86_64,
            limits: Limits::default(),
            kexec: false,
            power_lost: false,
        });
        let Action::Boot { index, .. } = decide(&found.facts).action else { panic!("recovery with {line}") };
        let deployment = &found.sysroot.deployments[index];
        let mut diary = Diary::new();
        diary.note(Kind::Attempt, deployment.id(), "");
        diary.write(&root);
        deployment.path()
    }
}

fn tried(root: &Path, path: &str, confirmed: bool) {
    let name = path.rsplit('/').next().unwrap();
    let (commit, serial) = name.split_once('.').unwrap();
    let id = DeploymentId::parse(commit, serial.parse().unwrap());
    let mut diary = Diary::new();
    diary.note(if confirmed { Kind::Confirmed } else { Kind::Attempt }, id, "");
    diary.write(root);
}

/// A disk on which the first deployment failed and the second one runs.
fn rolled_back(versions: &'static [&'static str]) -> (State, String, String) {
    let device = Device::new(&start(&Style { slots: true, versions, ..PLAIN }));
    let order = device.order();
    for older in &order[1..] {
        tried(&device.root(), older, true);
    }
    tried(&device.root(), &order[0], false);
    tried(&device.root(), &order[1], false);
    (load(&device.root(), &|_| false), order[0].clone(), order[1].clone())
}

const ROLLED_BACK: [(&str, &str); 4] =
    [("rollback", "1"), ("upgrade_available", "0"), ("bootcount", "4"), ("bootlimit", "3")];

/// Boots and confirms until nothing changes; the failed one must never run, and the good one must in the end.
fn settles(device: &Device, failed: &str, good: &str, name: &str) {
    for _ in 0..4 {
        let running = device.boot();
        assert_ne!(running, failed, "{name}");
        act(&device.site(&running), &Verb::Confirm, false).unwrap_or_else(|e| panic!("{name}: {e}"));
        if running == good && device.variable("rollback") == "0" && device.order().first() == Some(&running) {
            assert!(!device.order().contains(&failed.to_string()), "{name}");
            // Whatever was cut, nobody installs it again.
            let list = fs::read(device.root().join(rejected::PATH)).unwrap_or_default();
            let all: Vec<String> = rejected::parse(&list).into_iter().map(|r| r.commit).collect();
            assert!(all.iter().any(|commit| failed.contains(commit)), "{name}: {all:?}");
            return;
        }
    }
    panic!("{name}: not settled: {:?}, rollback={}", device.order(), device.variable("rollback"));
}

#[test]
fn a_confirmation_after_a_rollback_may_be_cut_anywhere() {
    let mut cuts = 0;
    for versions in [&["1", "2"][..], &["1", "2", "3"]] {
        let (disk, failed, good) = rolled_back(versions);
        for separate in [false, true] {
            let name = format!("{} deployments, separate {separate}", versions.len());
            let device = Device::new(&disk);
            device.set(&ROLLED_BACK);
            let prepared = prepare(&device.site(&good), &Verb::Confirm).unwrap();
            let mut try_on = |disk: &State, after: &dyn Fn(&Device), name: &str| {
                cuts += 1;
                let device = Device::new(disk);
                device.set(&ROLLED_BACK);
                after(&device);
                settles(&device, &failed, &good, name);
            };
            // What is to be remembered comes first, then the ledger, which is synced by itself.
            let mut model = Model::new(disk.clone(), separate);
            carry::steps(&mut model, &prepared.marks, false).unwrap();
            let mut seen = BTreeSet::new();
            model.cuts(|cut| {
                if seen.insert(cut.linux.clone()) {
                    try_on(&cut.linux, &|_| {}, &format!("{name}, marks, cut {}", cut.name));
                }
            });
            let marked = Device::new(&model.now);
            marked.set(&ROLLED_BACK);
            record_verdicts(&marked.site(&good), &prepared);
            let mut model = Model::new(load(&marked.root(), &|_| false), separate);
            carry::carry_out(&mut model, prepared.plan.as_ref().unwrap()).unwrap();
            model.cuts(|cut| {
                if seen.insert(cut.linux.clone()) {
                    try_on(&cut.linux, &|_| {}, &format!("{name}, cut {}", cut.name));
                }
            });
            // The rest follows when all of that is done.
            try_on(
                &model.now,
                &|device| record_change(&device.site(&good), &prepared, true),
                &format!("{name}, after the ledger"),
            );
            try_on(
                &model.now,
                &|device| save(&device.site(&good), &prepared.report.variables).unwrap(),
                &format!("{name}, after the variables"),
            );
        }
    }
    println!("cut points of confirm: {cuts}");
    assert!(cuts > 200, "only {cuts}");
}

#[test]
fn a_pulled_plug_is_not_blamed() {
    let device = Device::new(&start(&PLAIN));
    let order = device.order();
    for _ in 0..3 {
        tried(&device.root(), &order[0], false);
    }
    let root = device.root();
    let boot = root.join("boot");
    let bootable = |power_lost, limits| {
        let found = observe(&Sources {
            sysroot: &root,
            boot: &boot,
            env_config: None,
            env_remount: false,
            command_line: "",
            init: None,
            release: "",
            machine: Machine::X86_64,
            limits,
            kexec: false,
            power_lost,
        });
        assert_eq!(found.power_lost.is_some(), power_lost);
        found.facts.candidates[0].bootable
    };
    for limits in [Limits { limit: 2, ..Limits::default() }, Limits { limit: 0, failures: 3, window: 5 }] {
        assert!(!bootable(false, limits), "{limits:?}");
        assert!(bootable(true, limits), "{limits:?}");
    }
}

/// G32: whatever is cut and whichever copy is lost, nothing older than what was confirmed before is taken, and once the
/// confirmation is done nothing older than what it confirmed.
#[test]
fn the_floor_never_falls() {
    let base = start(&Style { slots: true, ..PLAIN });
    let device = Device::new(&base);
    let order = device.order();
    let tree = Beneath::open(&device.root()).unwrap();
    let mark = |path: &String| {
        let commit = path.rsplit('/').next().unwrap().split('.').next().unwrap();
        floor::mark(&tree, &Checksum::parse(commit).unwrap()).unwrap()
    };
    let marks: Vec<Mark> = order.iter().map(mark).collect();
    let [newest, confirmed, older] = &marks[..] else { panic!("{marks:?}") };
    assert!(confirmed.follows(newest).is_err() && older.follows(confirmed).is_err());
    let mut states = 0;
    // The ledger is a third witness, which must not hide what the other two lack.
    for (witness, copies) in [(false, 2), (true, 2), (true, 0)] {
        let device = Device::new(&base);
        let prefix = &floor::PATHS[..copies];
        fs::create_dir_all(device.root().join("ostree/bootward")).unwrap();
        prefix.iter().for_each(|path| fs::write(device.root().join(path), confirmed.text()).unwrap());
        if witness {
            tried(&device.root(), &order[1], true);
        }
        let disk = load(&device.root(), &|_| false);
        let prepared = prepare(&device.site(&order[0]), &Verb::Confirm).unwrap();
        for separate in [false, true] {
            let mut model = Model::new(disk.clone(), separate);
            carry::steps(&mut model, &prepared.marks, false).unwrap();
            let mut seen = BTreeSet::new();
            let mut check = |disk: &State, least: &Mark, name: &str| {
                for lost in [None, Some(0), Some(1)] {
                    // With one copy lost and the ledger gone nothing may be missing either.
                    let device = Device::new(disk);
                    let files = floor::PATHS.map(|path| device.root().join(path));
                    if let Some(file) = lost.and_then(|lost: usize| files.get(lost)).filter(|f| f.exists()) {
                        fs::write(file, &fs::read(file).unwrap()[1..]).unwrap();
                    }
                    let name = format!("{name}, witness {witness}, {copies} copies, lost {lost:?}");
                    let found = floor::read(&device.root());
                    assert_eq!(least.follows(&found.mark).is_ok(), found.mark == *least, "{name}");
                    assert!(older.follows(&found.mark).is_err(), "{name}");
                    states += 1;
                    // And what is lost is mended by the next one.
                    let marks = prepare(&device.site(&order[0]), &Verb::Confirm).unwrap().marks;
                    carry::steps(&mut Disk::open(&device.root(), &device.root()).unwrap(), &marks, false)
                        .unwrap();
                    let mended = floor::read(&device.root());
                    assert_eq!((&mended.mark, mended.warnings.len()), (newest, 0), "{name}");
                    assert!(files.iter().all(|f| fs::read_to_string(f).unwrap() == newest.text()), "{name}");
                }
            };
            model.cuts(|cut| {
                if seen.insert(cut.linux.clone()) {
                    check(&cut.linux, confirmed, &format!("cut {}", cut.name));
                }
            });
            check(&model.now, newest, "done");
        }
    }
    println!("floors after a cut, a copy lost: {states}");
    assert!(states > 60, "only {states}");
}

/// A command that names deployments by their place, on a device of three, all confirmed, its first one running.
struct ByPlace {
    name: &'static str,
    verb: Verb,
    before: &'static [(&'static str, &'static str)],
    /// What the first run leaves, by the places before it.
    end: &'static [usize],
}

const QUIET: &[(&str, &str)] = &[("rollback", "0"), ("upgrade_available", "0"), ("bootcount", "0")];
const ON_TRIAL: &[(&str, &str)] = &[("rollback", "0"), ("upgrade_available", "1"), ("bootcount", "1")];

fn by_place() -> [ByPlace; 3] {
    [
        ByPlace {
            name: "rollback of a trial",
            verb: Verb::Rollback(None),
            before: ON_TRIAL,
            end: &[1, 0, 2],
        },
        ByPlace { name: "rollback 2", verb: Verb::Rollback(Some(2)), before: QUIET, end: &[2, 0, 1] },
        ByPlace { name: "undeploy 1", verb: Verb::Undeploy(1), before: QUIET, end: &[0, 2] },
    ]
}

/// With its objects, so that those can be removed.
fn three_good_ones() -> State {
    let made = make(&Style { slots: true, ..PLAIN });
    let device = Device::new(&load(&made.root, &|path| path.starts_with("ostree/repo/tmp/")));
    for path in device.order() {
        tried(&device.root(), &path, true);
    }
    load(&device.root(), &|_| false)
}

/// A run on the model: what is on the disk after each operation that no other medium is waited for in between.
struct Run {
    /// Up to the swap and what follows from it; the variables are the old ones.
    change: Model,
    /// The removal of objects, and the end; the variables are the new ones.
    rest: Model,
}

fn run(device: &Device, wanted: &ByPlace, separate: bool, without: &dyn Fn(&Step) -> bool) -> Run {
    let prepared = prepare(&device.site(&device.boot()), &wanted.verb).unwrap();
    let mut change = Model::new(load(&device.root(), &|_| false), separate);
    let marks: Vec<Step> = prepared.marks.iter().filter(|step| !without(step)).cloned().collect();
    carry::steps(&mut change, &marks, false).unwrap();
    if let Some(plan) = &prepared.plan {
        carry::carry_out(&mut change, plan).unwrap();
    }
    carry::steps(&mut change, &prepared.rest, true).unwrap();
    let mut rest = Model::new(change.now.clone(), separate);
    if matches!(wanted.verb, Verb::Undeploy(_)) {
        let deployed: Vec<String> =
            crate::arrange::layout(&rest.now).entries.iter().map(|e| e.commit.clone()).collect();
        let garbage = collect::find(&mut rest, &deployed).unwrap();
        assert!(!garbage.objects.is_empty() || prepared.plan.is_none(), "{}", wanted.name);
        collect::remove(&mut rest, &garbage).unwrap();
        carry::steps(&mut rest, &[Step::Remove(At::root(TRASH))], true).unwrap();
    }
    carry::steps(&mut rest, &prepared.done, true).unwrap();
    Run { change, rest }
}

/// Boots, types the same command again, and says what it left.
fn again(disk: &State, variables: &[(&str, &str)], wanted: &ByPlace, name: &str) -> (Vec<String>, Device) {
    let device = Device::new(disk);
    device.set(variables);
    let running = device.boot();
    act(&device.site(&running), &wanted.verb, false).unwrap_or_else(|e| panic!("{name}: {e}"));
    (device.order(), device)
}

fn objects(state: &State) -> Vec<&String> {
    state.keys().filter(|k| k.starts_with("ostree/repo/objects/")).collect()
}

#[test]
fn a_rollback_or_undeployment_that_was_cut_is_finished_by_the_same_command() {
    let start = three_good_ones();
    let (mut cuts, mut second) = (0, 0);
    for wanted in by_place() {
        for separate in [false, true] {
            let device = Device::new(&start);
            device.set(wanted.before);
            let before = device.order();
            let end: Vec<String> = wanted.end.iter().map(|i| before[*i].clone()).collect();
            let first = run(&device, &wanted, separate, &|_| false);
            let whole = first.rest.now.clone();
            let mut check = |disk: &State, variables: &[(&str, &str)], name: &str| {
                cuts += 1;
                let (order, device) = again(disk, variables, &wanted, name);
                assert_eq!(order, end, "{name}");
                for variable in ["rollback", "upgrade_available", "bootcount"] {
                    assert_eq!(device.variable(variable), "0", "{name}, {variable}");
                }
                let now = load(&device.root(), &|_| false);
                assert_eq!(device.layout().unnamed, [], "{name}");
                assert_eq!(objects(&now), objects(&whole), "{name}");
                let left = |k: &&String| k.as_str() == intent::PATH || k.starts_with(TRASH);
                assert_eq!(now.keys().find(left), None, "{name}");
            };
            let mut seen = BTreeSet::new();
            let mut states = Vec::new();
            first.change.cuts(|cut| {
                if seen.insert(cut.linux.clone()) {
                    let name = format!("{}, separate {separate}, cut {}", wanted.name, cut.name);
                    check(&cut.linux, wanted.before, &name);
                    states.push((cut.linux.clone(), name));
                }
            });
            first.rest.cuts(|cut| {
                // The last ones are done: whoever types it once more wants another one.
                if cut.linux.contains_key(intent::PATH) && seen.insert(cut.linux.clone()) {
                    check(
                        &cut.linux,
                        QUIET,
                        &format!("{}, separate {separate}, end {}", wanted.name, cut.name),
                    );
                }
            });
            // The run that finishes is cut as well.
            for (state, name) in states.iter().step_by(19) {
                let device = Device::new(state);
                device.set(wanted.before);
                let model = run(&device, &wanted, separate, &|_| false).change;
                let mut number = 0;
                model.cuts(|cut| {
                    number += 1;
                    if number % 31 == 0 {
                        second += 1;
                        let name = format!("{name}, then {}", cut.name);
                        assert_eq!(again(&cut.linux, wanted.before, &wanted, &name).0, end, "{name}");
                    }
                });
            }
        }
    }
    println!("commands by place, cut and run again: {cuts}, cut twice: {second}");
    assert!(cuts > 700 && second > 200, "only {cuts} and {second}");
}

#[test]
fn without_a_durable_intent_the_same_command_swaps_back() {
    let start = three_good_ones();
    let ends = |without: &dyn Fn(&Step) -> bool| {
        let device = Device::new(&start);
        device.set(QUIET);
        let before = device.order();
        let [wanted, ..] = by_place();
        let mut orders = BTreeSet::new();
        run(&device, &wanted, true, without).change.cuts(|cut| {
            orders.insert(again(&cut.linux, QUIET, &wanted, &cut.name).0);
        });
        (orders, before)
    };
    let (good, before) = ends(&|_| false);
    assert_eq!(good.len(), 1);
    let (orders, _) = ends(&|step| matches!(step, Step::Write(at, _) if at.path == intent::PATH));
    assert!(orders.contains(&before), "nobody missed it: {orders:?}");
}

#[test]
fn a_command_that_came_to_its_end_is_a_new_one_the_next_time() {
    let device = Device::new(&three_good_ones());
    device.set(QUIET);
    let before = device.order();
    let now = |verb: &Verb| {
        act(&device.site(&device.boot()), verb, false).unwrap();
        // Memory cannot be frozen: a second change waits for a reboot, which the ledger would know of.
        fs::remove_file(device.root().join("ostree/bootward/ledger")).unwrap();
        device.order()
    };
    let rolled = now(&Verb::Rollback(None));
    assert_eq!(rolled, [1, 0, 2].map(|i: usize| before[i].clone()));
    assert_eq!(now(&Verb::Rollback(None)), before);
    // An intent of another order means nothing.
    let stale = intent::text("rollback", rolled.into_iter());
    fs::write(device.root().join(intent::PATH), stale).unwrap();
    let last = now(&Verb::Rollback(Some(2)));
    assert_eq!(last, [2, 0, 1].map(|i: usize| before[i].clone()));
    assert!(!device.root().join(intent::PATH).exists());
    // One that another command finishes is done as well.
    fs::write(device.root().join(intent::PATH), intent::text("rollback 2", last.iter().cloned())).unwrap();
    device.set(&[("rollback", "1"), ("upgrade_available", "0"), ("bootcount", "0")]);
    act(&device.site(&last[0]), &Verb::Rollback(Some(0)), false).unwrap();
    assert_eq!((device.order(), device.variable("rollback")), (last, "0".into()));
    assert!(!device.root().join(intent::PATH).exists());
}
