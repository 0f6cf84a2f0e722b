//! A device that rolled back and confirms: the power goes at every operation, and it boots on until nothing changes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bootward::arrange::carry;
use bootward::arrange::survey::{Places, survey};
use bootward::ledger::diary::Diary;
use bootward::ledger::{DeploymentId, Kind, Limits};
use bootward::observe::{Sources, observe};
use bootward::ostree::mark::Mark;
use bootward::ostree::object::Checksum;
use bootward::policy::{Action, decide};
use bootward::sys::beneath::Beneath;
use bootward::sys::files::Disk;
use bootward::sysroot::Machine;
use bootward::trial::act::{Site, Verb, act, prepare, record_change, record_verdicts, save};
use bootward::trial::{floor, rejected};
use bootward::uboot::env::Edit;
use bootward::uboot::store::Store;

use crate::arrange::{scratch, start};
use crate::fixture::{PLAIN, Style};
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

    /// The deployments in boot order, by path.
    fn order(&self) -> Vec<String> {
        let (sysroot, boot) = (self.root(), self.root().join("boot"));
        let places = Places { sysroot: &sysroot, boot: &boot, booted: None, options: None, deep: true };
        survey(&places).unwrap().entries.iter().map(|e| e.path()).collect()
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
