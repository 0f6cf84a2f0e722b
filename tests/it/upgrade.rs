//! From an empty filesystem to a device that follows a server, by the verbs alone; `ostree` judges.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::fixture::{PLAIN, make_tree, ostree};
use crate::pair::Pair;

struct Device {
    keep: tempfile::TempDir,
    pair: Pair,
}

impl Device {
    /// A server with nothing, and a device of which there is nothing but `/`.
    fn new() -> Self {
        let device = Device { keep: tempfile::tempdir().unwrap(), pair: Pair::new() };
        ostree(&["init", "--repo", device.path("server").to_str().unwrap(), "--mode=archive"]);
        fs::create_dir(device.path("sysroot")).unwrap();
        fs::write(device.path("keys"), &device.pair.public).unwrap();
        fs::write(device.path("secret"), device.pair.secret()).unwrap();
        device.ok(&["init-fs", "--stateroot", "os", "--bootloader", "uboot"]);
        device
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }

    /// Commits and signs a version.
    fn publish(&self, version: &str, extra: &[&str]) -> String {
        let tree = self.path(&format!("tree-{version}"));
        make_tree(&tree, &PLAIN, version);
        let server = self.path("server");
        let mut arguments = vec!["commit", "--repo", server.to_str().unwrap(), "-b", "os/main"];
        arguments.extend(extra);
        arguments.push(tree.to_str().unwrap());
        let commit = ostree(&arguments).trim().to_string();
        let secret = self.path("secret");
        let (server, secret) = (server.to_str().unwrap(), secret.to_str().unwrap());
        let out = bootward(&["sign", "--repo", server, "--key", secret, &commit]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        commit
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let sysroot = self.path("sysroot");
        let mut all = arguments.to_vec();
        all.extend(["--sysroot", sysroot.to_str().unwrap()]);
        bootward(&all)
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        assert_eq!(out.status.code(), Some(1), "{arguments:?}: {}", text(&out.stdout));
        text(&out.stderr)
    }

    /// The arguments that say from where and whom.
    fn from(&self, verb: &str, more: &[&str]) -> Vec<String> {
        let url = format!("file://{}", self.path("server").display());
        let keys = self.path("keys").display().to_string();
        let mut all: Vec<String> =
            [verb, "--url", &url, "--ref", "os/main", "--keys", &keys].map(String::from).into();
        all.extend(more.iter().map(ToString::to_string));
        all
    }

    fn upgrade(&self, more: &[&str]) -> Vec<String> {
        let mut all = self.from("upgrade", &["--stateroot", "os"]);
        all.extend(more.iter().map(ToString::to_string));
        all
    }

    fn healthy(&self) -> String {
        let sysroot = self.path("sysroot");
        let repo = sysroot.join("ostree/repo");
        ostree(&["fsck", "--repo", repo.to_str().unwrap()]);
        ostree(&["admin", "status", "--sysroot", sysroot.to_str().unwrap()])
    }
}

fn strs(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bootward(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bootward"))
        .env("OSTREE_SYSROOT_DEBUG", "mutable-deployments")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn an_empty_filesystem_becomes_a_device_that_follows_a_server() {
    let device = Device::new();
    let first = device.publish("1", &[]);
    let said = device.ok(&strs(&device.upgrade(&[])));
    assert!(said.contains(&first), "{said}");
    let status = device.healthy();
    assert!(status.contains(&first), "{status}");
    assert!(device.ok(&strs(&device.upgrade(&[]))).contains("deployed already"));

    let second = device.publish("2", &[]);
    let lines = device.ok(&strs(&device.from("pull", &["--json"])));
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((last["event"].as_str(), last["commit"].as_str()), (Some("result"), Some(second.as_str())));
    // Where these files are may be a filesystem that cannot be frozen: a second change waits for a reboot then, which
    // the ledger would know of.
    fs::remove_file(device.path("sysroot/ostree/bootward/ledger")).unwrap();
    device.ok(&strs(&device.upgrade(&[])));
    let status = device.healthy();
    let position = |commit: &str| status.find(commit).unwrap();
    assert!(position(&second) < position(&first), "{status}");
    // And libostree goes on from there.
    let third = device.publish("3", &[]);
    let (sysroot, server) = (device.path("sysroot"), device.path("server"));
    let [repo, sysroot, server] =
        [&sysroot.join("ostree/repo"), &sysroot, &server].map(|p: &PathBuf| text_of(p));
    ostree(&["pull-local", "--repo", &repo, &server, "os/main"]);
    ostree(&["admin", "deploy", "--sysroot", &sysroot, "--os=os", "os/main"]);
    assert!(device.healthy().contains(&third));
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().into()
}

#[test]
fn what_nobody_vouches_for_is_refused_and_changes_nothing() {
    let device = Device::new();
    device.publish("1", &[]);
    device.ok(&strs(&device.upgrade(&[])));
    let before = device.healthy();
    let server = device.path("server");
    let good = Pair::new();
    // Another key.
    fs::write(device.path("other"), &good.public).unwrap();
    let other = device.path("other").display().to_string();
    let refused = |more: &[&str], expected: &str| {
        let all = device.upgrade(more);
        let said = device.refused(&strs(&all));
        assert!(said.contains(expected), "{more:?}: {said}");
    };
    refused(&["--keys", &other], "signature");
    // No key at all.
    fs::write(device.path("none"), "# nothing\n").unwrap();
    let none = device.path("none").display().to_string();
    refused(&["--keys", &none], "key");
    refused(&["--keys", "/nonexistent/keys"], "/nonexistent/keys");
    // No signature.
    let tree = device.path("tree-x");
    make_tree(&tree, &PLAIN, "x");
    let server = server.to_str().unwrap();
    let unsigned = ostree(&["commit", "--repo", server, "-b", "os/main", tree.to_str().unwrap()]);
    refused(&[], "not signed");
    // Made for another ref.
    ostree(&["refs", "--repo", server, "--create", "os/other", unsigned.trim()]);
    let secret = device.path("secret").display().to_string();
    assert!(bootward(&["sign", "--repo", server, "--key", &secret, unsigned.trim()]).status.success());
    let mut elsewhere = device.upgrade(&[]);
    elsewhere.extend(["--ref".to_string(), "os/other".to_string()]);
    let said = device.refused(&strs(&elsewhere));
    assert!(said.contains("os/other"), "{said}");
    // Hardware.
    refused(&["--compatible", "board-b"], "board-b");
    // No such server, ref, scheme.
    refused(&["--ref", "os/nothing"], "os/nothing");
    for (url, expected) in [("file:///nonexistent", "/nonexistent"), ("ftp://x/", "ftp")] {
        let mut all = device.upgrade(&[]);
        all[2] = url.into();
        let said = device.refused(&strs(&all));
        assert!(said.contains(expected), "{url}: {said}");
    }
    assert_eq!(device.healthy(), before);
}

impl Device {
    /// A U-Boot environment of two copies, made by mkenvimage, and the arguments that name it.
    fn environment(&self, variables: &[(&str, &str)]) -> [String; 2] {
        let lines: String = variables.iter().map(|(n, v)| format!("{n}={v}\n")).collect();
        fs::write(self.path("env.txt"), lines).unwrap();
        let mut config = String::new();
        for copy in ["env.a", "env.b"].map(|name| self.path(name)) {
            let mut make = Command::new("mkenvimage");
            make.args(["-r", "-s", "4096", "-o"]).arg(&copy).arg(self.path("env.txt"));
            assert!(make.status().unwrap().success());
            config += &format!("{} 0 0x1000\n", copy.display());
        }
        fs::write(self.path("fw_env.config"), config).unwrap();
        ["--env-config".into(), text_of(&self.path("fw_env.config"))]
    }

    fn variable(&self, name: &str) -> String {
        let config = self.path("fw_env.config");
        let out = Command::new("fw_printenv").args(["-n", name, "-c"]).arg(config).output().unwrap();
        text(&out.stdout).trim().into()
    }

    fn on_trial(&self) -> [String; 3] {
        ["upgrade_available", "bootcount", "rollback"].map(|name| self.variable(name))
    }

    fn forget(&self) {
        let _ = fs::remove_file(self.path("sysroot/ostree/bootward/ledger"));
    }
}

#[test]
fn an_upgrade_that_was_cut_is_finished_by_the_next_one_on_trial() {
    let device = Device::new();
    device.publish("1", &[]);
    device.ok(&strs(&device.upgrade(&[])));
    let second = device.publish("2", &[]);
    let quiet = [("upgrade_available", "0"), ("bootcount", "4"), ("rollback", "0"), ("keep", "me")];
    let environment = device.environment(&quiet);
    let more: Vec<&str> = environment.iter().map(String::as_str).collect();
    device.forget();
    device.ok(&strs(&device.upgrade(&more)));
    assert_eq!(device.on_trial(), ["1", "0", "0"]);
    // Again: there is nothing to do, nor to write.
    let copies = ["env.a", "env.b"].map(|name| fs::read(device.path(name)).unwrap());
    assert!(device.ok(&strs(&device.upgrade(&more))).contains("deployed already"));
    assert_eq!(["env.a", "env.b"].map(|name| fs::read(device.path(name)).unwrap()), copies);
    // It is the first one, and nobody counts its boots: an environment that was lost and made anew.
    device.environment(&quiet);
    assert!(device.ok(&strs(&device.upgrade(&more))).contains("deployed already"));
    assert_eq!(
        (device.on_trial(), device.variable("keep")),
        (["1", "0", "0"].map(String::from), "me".into())
    );
    // In its place, and the power went before it got an entry.
    let sysroot = device.path("sysroot");
    ostree(&["admin", "undeploy", "--sysroot", sysroot.to_str().unwrap(), "0"]);
    device.forget();
    let half = sysroot.join(format!("ostree/deploy/os/deploy/{second}.0"));
    fs::create_dir_all(half.join("usr")).unwrap();
    device.ok(&strs(&device.upgrade(&more)));
    assert!(device.healthy().contains(&second) && half.join("etc").is_dir());
}

#[test]
fn an_upgrade_that_fails_takes_its_trial_back() {
    let device = Device::new();
    device.publish("1", &[]);
    device.ok(&strs(&device.upgrade(&[])));
    device.publish("2", &[]);
    let quiet = [("upgrade_available", "0"), ("bootcount", "4"), ("rollback", "0")];
    let environment = device.environment(&quiet);
    let more: Vec<&str> = environment.iter().map(String::as_str).collect();
    device.forget();
    // When all is ready for the swap, something is in the way of the new boot link.
    let loader = fs::read_link(device.path("sysroot/boot/loader")).unwrap();
    let other = if loader.ends_with("loader.0") { "boot.1" } else { "boot.0" };
    let link = device.path("sysroot/ostree").join(other);
    let _ = fs::remove_file(&link);
    fs::create_dir_all(link.join("in the way")).unwrap();
    let said = device.refused(&strs(&device.upgrade(&more)));
    assert!(said.contains("in the way"), "{said}");
    assert_eq!(device.on_trial(), ["0", "4", "0"]);
    assert_ne!(fs::read(device.path("env.a")).unwrap(), fs::read(device.path("env.b")).unwrap());
    fs::remove_dir_all(&link).unwrap();
    // Nobody can be told to count: then there is no update either.
    let before = device.healthy();
    for copy in ["env.a", "env.b"] {
        fs::write(device.path(copy), [0; 100]).unwrap();
    }
    device.refused(&strs(&device.upgrade(&more)));
    assert_eq!(device.healthy(), before);
    device.environment(&quiet);
    device.ok(&strs(&device.upgrade(&more)));
    assert_eq!(device.on_trial(), ["1", "0", "0"]);
}
