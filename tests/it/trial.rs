//! `confirm`, `reject`, `rollback`, `undeploy` and `repair` as somebody types them, on sysroots of the real `ostree`, with
//! environments of the real `fw_setenv`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::arrange::{STYLES, copy, differences, layout, walk, written};
use crate::fixture::{Made, PLAIN, Style, make, make_tree, ostree};

struct Device {
    made: Made,
}

impl Device {
    fn new(style: &Style, variables: &[(&str, &str)]) -> Device {
        let device = Device { made: make(style) };
        let (a, b) = (device.made.beside("env.a"), device.made.beside("env.b"));
        let text = device.made.beside("env.txt");
        let lines: String = variables.iter().map(|(n, v)| format!("{n}={v}\n")).collect();
        fs::write(&text, format!("keep=me\n{lines}")).unwrap();
        for copy in [&a, &b] {
            let made =
                Command::new("mkenvimage").args(["-r", "-s", "4096", "-o"]).arg(copy).arg(&text).status();
            assert!(made.unwrap().success());
        }
        let config = format!("{} 0 0x1000\n{} 0 0x1000\n", a.display(), b.display());
        fs::write(device.config(), config).unwrap();
        device
    }

    fn root(&self) -> &Path {
        &self.made.root
    }

    fn config(&self) -> PathBuf {
        self.made.beside("fw_env.config")
    }

    fn run(&self, verb: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
        command.args(verb).arg("--sysroot").arg(self.root());
        command.output().unwrap()
    }

    /// With the environment; what it printed.
    fn ok(&self, verb: &[&str]) -> String {
        let mut all = verb.to_vec();
        let config = self.config();
        all.extend(["--env-config", config.to_str().unwrap()]);
        let out = self.run(&all);
        assert!(out.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn variable(&self, name: &str) -> String {
        let out = Command::new("fw_printenv").args(["-n", name, "-c"]).arg(self.config()).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().into()
    }

    /// The commits in boot order, as libostree tells them.
    fn order(&self) -> Vec<String> {
        let status = ostree(&["admin", "status", "--sysroot", self.root().to_str().unwrap()]);
        let names = status.lines().filter(|l| l.contains("demo "));
        names.map(|l| l.split("demo ").nth(1).unwrap().split(' ').next().unwrap().to_string()).collect()
    }

    /// libostree is happy with all of it, and goes on.
    fn healthy(&self) {
        let at = self.root().to_str().unwrap();
        assert_eq!(layout(self.root()).faults, [""; 0]);
        let repo = format!("--repo={at}/ostree/repo");
        ostree(&["fsck", &repo]);
        let tree = self.made.beside("later");
        make_tree(&tree, &PLAIN, "7");
        ostree(&["commit", &repo, "-b", "demo/stable", &format!("--tree=dir={}", tree.display())]);
        let before = self.order();
        ostree(&["admin", "upgrade", "--sysroot", at, "--os=demo"]);
        let after = self.order();
        assert_ne!(before.first(), after.first());
        ostree(&["admin", "undeploy", "--sysroot", at, "0"]);
        assert_eq!(layout(self.root()).faults, [""; 0]);
    }

    fn log(&self) -> String {
        String::from_utf8(self.run(&["log"]).stdout).unwrap()
    }
}

const TRIAL: [(&str, &str); 4] =
    [("rollback", "1"), ("upgrade_available", "0"), ("bootcount", "4"), ("bootlimit", "3")];

#[test]
fn confirm_after_a_rollback_removes_what_failed() {
    let device = Device::new(&PLAIN, &TRIAL);
    let before = device.order();
    let dry = device.ok(&["confirm", "--booted", "1", "--dry-run"]);
    assert!(dry.contains("would swap") && device.order() == before, "{dry}");
    let said = device.ok(&["confirm", "--booted", "1"]);
    assert!(said.contains("will not be installed again") && said.contains("rollback=0"), "{said}");
    assert_eq!(device.order(), before[1..]);
    for (name, value) in [("rollback", "0"), ("bootcount", "0"), ("bootlimit", "3"), ("keep", "me")] {
        assert_eq!(device.variable(name), value, "{name}");
    }
    let (commit, _) = before[0].split_once('.').unwrap();
    let rejected = fs::read_to_string(device.root().join("ostree/bootward/rejected")).unwrap();
    assert!(rejected.starts_with(commit), "{rejected}");
    let log = device.log();
    assert!(
        log.contains("confirmed") && log.contains("rejected") && log.contains("deployments changed"),
        "{log}"
    );
    // Again: nothing is left to do, and the ledger does not grow.
    device.ok(&["confirm", "--booted", "0"]);
    assert_eq!((device.order(), device.log()), (before[1..].to_vec(), log));
    device.healthy();
}

#[test]
fn confirm_of_an_update_ends_its_trial_and_leaves_one_that_waits() {
    let device = Device::new(&PLAIN, &[("upgrade_available", "1"), ("bootcount", "1"), ("bootlimit", "3")]);
    let before = device.order();
    device.ok(&["confirm", "--booted", "1"]);
    assert_eq!((device.variable("upgrade_available"), device.order()), ("1".into(), before.clone()));
    device.ok(&["confirm", "--booted", "0"]);
    assert_eq!(
        (device.variable("upgrade_available"), device.variable("bootcount")),
        ("0".into(), "0".into())
    );
    assert_eq!(device.order(), before);
    device.healthy();
}

#[test]
fn reject_tells_the_bootloader_or_puts_the_others_first() {
    let device = Device::new(&PLAIN, &[("upgrade_available", "1"), ("bootcount", "1")]);
    let before = device.order();
    device.ok(&["reject", "--booted", "0", "the", "pump", "does", "not", "answer"]);
    assert_eq!((device.variable("rollback"), device.variable("upgrade_available")), ("1".into(), "0".into()));
    assert_eq!(device.order(), before);
    assert!(device.log().contains("the pump does not answer"));
    // Without an environment there is nobody to tell.
    let other = Device::new(&PLAIN, &[]);
    let before = other.order();
    assert!(other.run(&["reject", "--booted", "0"]).status.success());
    assert_eq!(other.order(), [&before[1], &before[2], &before[0]].map(String::clone));
    other.healthy();
}

#[test]
fn rollback_and_undeploy() {
    let device = Device::new(&PLAIN, &[("upgrade_available", "1")]);
    let before = device.order();
    device.ok(&["rollback"]);
    assert_eq!(device.order(), [&before[1], &before[0], &before[2]].map(String::clone));
    assert_eq!(device.variable("upgrade_available"), "0");
    device.ok(&["rollback", "2"]);
    device.ok(&["undeploy", "1"]);
    assert_eq!(device.order(), [&before[2], &before[0]].map(String::clone));
    for (verb, said) in [
        (&["undeploy", "9"][..], "there is no deployment 9"),
        (&["undeploy", "0", "--booted", "0"], "running"),
        (&["rollback", "0"], "already"),
        (&["confirm"], "no deployment of this sysroot is running"),
    ] {
        let out = device.run(verb);
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && error.contains(said), "{verb:?}: {error}");
    }
    device.healthy();
}

fn bootward(verb: &[&str], sysroot: &str) {
    let out = Command::new(env!("CARGO_BIN_EXE_bootward")).args(verb).args(["--sysroot", sysroot]).output();
    let out = out.unwrap();
    assert!(out.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Byte for byte what `ostree admin undeploy` leaves, the repository's objects too.
#[test]
fn undeploy_leaves_what_ostree_leaves_and_no_object_more() {
    let (mut compared, mut pruned) = (0, 0);
    for (name, style) in STYLES {
        let made = make(&style);
        let all = |root: &Path| {
            let mut found = written(root);
            walk(root, Path::new("ostree/repo/objects"), &mut found);
            found
        };
        let before = all(&made.root).len();
        for refs in ["newest", "none", "all"] {
            for index in ["0", "1", "2"] {
                let roots = [copy(&made), copy(&made)];
                for (_, root) in &roots {
                    let repo = format!("--repo={}/ostree/repo", root.display());
                    match refs {
                        "none" => _ = ostree(&["refs", &repo, "--delete", "demo/stable"]),
                        "all" => {
                            for entry in layout(root).entries {
                                let name = format!("kept/{}", entry.serial.to_string() + &entry.commit[..8]);
                                ostree(&["refs", &repo, &format!("--create={name}"), &entry.commit]);
                            }
                        }
                        _ => {}
                    }
                }
                let [ours, theirs] = [0, 1].map(|n: usize| roots[n].1.to_str().unwrap());
                ostree(&["admin", "undeploy", "--sysroot", theirs, index]);
                bootward(&["undeploy", index], ours);
                let what = format!("{name}, refs {refs}, undeploy {index}");
                assert!(!Path::new(ours).join("ostree/bootward/intent").exists(), "{what}");
                let objects = |root: &str| {
                    let mut found = Default::default();
                    walk(Path::new(root), Path::new("ostree/repo/objects"), &mut found);
                    found
                };
                let found = differences(&objects(ours), &objects(theirs));
                assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
                ostree(&["fsck", &format!("--repo={ours}/ostree/repo")]);
                // The next boot, which is confirmed, removes the old links; libostree has removed them at once.
                fs::remove_file(Path::new(ours).join("ostree/bootward/ledger")).unwrap();
                bootward(&["confirm", "--booted", "0"], ours);
                let [ours, theirs] = [ours, theirs].map(|root| all(Path::new(root)));
                let found = differences(&ours, &theirs);
                assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
                compared += theirs.len();
                pruned += usize::from(theirs.len() + 20 < before);
            }
        }
    }
    println!("files and directories compared: {compared}");
    assert!(pruned > 10, "only {pruned} undeployments removed objects");
}

/// What a confirmed update needs no more goes with the deployment that failed; what others need stays.
#[test]
fn confirm_after_a_rollback_leaves_no_object_of_what_failed() {
    let device = Device::new(&PLAIN, &TRIAL);
    let at = device.root().to_str().unwrap();
    let repo = format!("--repo={at}/ostree/repo");
    ostree(&["refs", &repo, "--delete", "demo/stable"]);
    let failed = device.order()[0].split('.').next().unwrap().to_string();
    let commit = device.root().join(format!("ostree/repo/objects/{}/{}.commit", &failed[..2], &failed[2..]));
    assert!(commit.exists());
    let said = device.ok(&["confirm", "--booted", "1"]);
    assert!(said.contains("objects that nothing needs") && !commit.exists(), "{said}");
    let pruned = ostree(&["prune", &repo, "--refs-only", "--no-prune"]);
    assert!(
        pruned.contains("would be deleted") && pruned.contains(" 0 ") || pruned.contains("No unreachable"),
        "{pruned}"
    );
    device.healthy();
}

/// An object of another deployment is lost: nobody knows what the rest needs, so nothing is removed, and that is told.
#[test]
fn with_a_damaged_repository_no_object_is_removed_and_undeploy_says_so() {
    let device = Device::new(&PLAIN, &TRIAL);
    let root = layout(device.root()).entries[0].commit.clone();
    let at = device.root().to_str().unwrap();
    let listed = ostree(&["ls", "-d", "-C", &format!("--repo={at}/ostree/repo"), &root, "/usr"]);
    let name = listed.split_whitespace().find(|word| word.len() == 64).unwrap();
    let tree = device.root().join(format!("ostree/repo/objects/{}/{}.dirtree", &name[..2], &name[2..]));
    let content = fs::read(&tree).unwrap();
    fs::remove_file(&tree).unwrap();
    let out = device.run(&["undeploy", "2"]);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && error.contains("its objects are not"), "{error}");
    assert_eq!(device.order().len(), 2);
    // A confirmation is one all the same.
    device.ok(&["confirm", "--booted", "0"]);
    fs::write(&tree, content).unwrap();
    let out = device.run(&["undeploy", "2"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && said.contains("cut short") && said.contains("objects"), "{said}{out:?}");
    assert_eq!(device.order().len(), 2);
    device.healthy();
}

#[test]
fn a_pinned_deployment_is_never_removed() {
    let device = Device::new(&PLAIN, &TRIAL);
    let before = device.order();
    ostree(&["admin", "pin", "--sysroot", device.root().to_str().unwrap(), "0"]);
    let out = device.run(&["undeploy", "0"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("pinned"));
    device.ok(&["confirm", "--booted", "1"]);
    assert_eq!(device.order(), [&before[1], &before[2], &before[0]].map(String::clone));
}

type Spoil = fn(&Path);

/// Ways in which a power cut, or libostree's own order, leaves things out of step.
const BREAKS: [(&str, Spoil); 8] = [
    ("a boot link", |root| fs::remove_file(root.join("ostree/boot.1")).unwrap()),
    ("all boot links", |root| {
        fs::remove_file(root.join("ostree/boot.1")).unwrap();
        fs::remove_dir_all(root.join("ostree/boot.1.1")).unwrap();
    }),
    ("the loader", |root| fs::remove_file(root.join("boot/loader")).unwrap()),
    ("the loader leads nowhere", |root| {
        fs::remove_file(root.join("boot/loader")).unwrap();
        symlink("loader.0", root.join("boot/loader")).unwrap();
    }),
    ("uEnv.txt", |root| fs::write(root.join("boot/loader.1/uEnv.txt"), [0; 300]).unwrap()),
    ("a kernel", |root| kernel(root, |file| fs::remove_file(file).unwrap())),
    ("a kernel's bytes", |root| {
        kernel(root, |file| {
            let mut content = fs::read(file).unwrap();
            content[3] ^= 1;
            fs::remove_file(file).unwrap();
            fs::write(file, content).unwrap();
        });
    }),
    ("a kernel's directory", |root| kernel(root, |file| fs::remove_dir_all(file.parent().unwrap()).unwrap())),
];

fn kernel(root: &Path, spoil: Spoil) {
    let entry = layout(root).entries.remove(0);
    let directory = root.join("boot").join(entry.boot_directory());
    spoil(&directory.join(&entry.boot_files[0].name));
}

#[test]
fn repair_mends_what_is_out_of_step() {
    let style = Style { versions: &["1", "2", "3"], ..PLAIN };
    for (what, spoil) in BREAKS {
        let device = Device::new(&style, &[]);
        let before = device.order();
        assert!(device.ok(&["repair"]).contains("nothing is out of step"), "{what}");
        spoil(device.root());
        assert_ne!(layout(device.root()).faults, [""; 0], "{what}");
        device.ok(&["repair", "--dry-run"]);
        let said = device.ok(&["repair"]);
        assert!(said.contains("out of step, written anew"), "{what}: {said}");
        assert_eq!(device.order(), before, "{what}");
        assert!(device.log().contains("deployments changed"), "{what}");
        device.healthy();
    }
}

#[test]
fn entries_are_made_again_from_the_deployments() {
    for style in [PLAIN, Style { bootprefix: true, devicetree: true, ..PLAIN }] {
        let device = Device::new(&Style { versions: &["1", "2"], ..style }, &[]);
        let mut before = device.order();
        for version in ["0", "1"] {
            for entry in fs::read_dir(device.root().join(format!("boot/loader.{version}/entries")))
                .into_iter()
                .flatten()
            {
                fs::write(entry.unwrap().path(), [0; 40]).unwrap();
            }
        }
        // Nothing tells the arguments any more.
        let out = device.run(&["repair"]);
        assert!(
            String::from_utf8_lossy(&out.stderr).contains("no deployment can be given a boot entry"),
            "{out:?}"
        );
        let other = device.root().join("boot/loader.0/entries");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("ostree-1.conf"), "title x\noptions quiet ostree=/ostree/boot.0/x\n").unwrap();
        device.ok(&["repair"]);
        let mut after = device.order();
        before.sort();
        after.sort();
        assert_eq!(after, before);
        device.healthy();
    }
}

#[test]
fn a_loader_that_is_a_directory_is_left_alone() {
    let device = Device::new(&PLAIN, &TRIAL);
    let boot = device.root().join("boot");
    fs::remove_file(boot.join("loader")).unwrap();
    fs::rename(boot.join("loader.1"), boot.join("loader")).unwrap();
    let out = device.run(&["rollback", "1"]);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && error.contains("systemd-boot"), "{error}");
}

#[test]
fn libostree_and_we_keep_each_other_out() {
    let device = Device::new(&PLAIN, &[]);
    let path = ostree::gio::File::for_path(device.root());
    let theirs = ostree::Sysroot::new(Some(&path));
    theirs.load(ostree::gio::Cancellable::NONE).unwrap();
    let short = std::time::Duration::from_millis(1);
    {
        let _ours = bootward::sys::lock::sysroot(device.root(), short).unwrap();
        assert!(!theirs.try_lock().unwrap());
    }
    assert!(theirs.try_lock().unwrap());
    assert!(bootward::sys::lock::sysroot(device.root(), short).is_err());
    theirs.unlock();
    bootward::sys::lock::sysroot(device.root(), short).unwrap();
}
