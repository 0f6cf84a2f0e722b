//! `bootward verify`, against `ostree fsck`, `ostree checksum` and `ostree ls`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use bootward::ostree::Checksum;
use bootward::ostree::object::{self, Kind};
use serde_json::Value;

use crate::sign::{Pair, commit_of, detached};
use crate::verify::{Lab, run, unshare};

fn verify(lab: &Lab, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
    command.args(["verify", "--sysroot"]).arg(lab.sysroot()).args(more).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Exit code and the lines of `--json` but for progress.
fn json(lab: &Lab, more: &[&str]) -> (i32, Vec<Value>) {
    let output = verify(lab, &[&["--json"], more].concat());
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    (output.status.code().unwrap(), lines.filter(|line| line["event"] != "progress").collect())
}

fn flip(path: &Path) {
    let mut content = fs::read(path).unwrap();
    content[0] ^= 1;
    // In place, so that the repository's object and the other deployments change with it.
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&content, 0).unwrap();
}

/// What `ostree ls` says that a commit's files are: path and checksum.
fn files_of(lab: &Lab, commit: &str) -> Vec<(String, String)> {
    let repo = format!("--repo={}/ostree/repo", lab.sysroot().display());
    let listed = run("ostree", &["ls", &repo, "-C", "-R", "--nul-filenames-only", commit, "/"]);
    let names = listed.split('\0').filter(|name| !name.is_empty());
    let checksum = |name: &str| {
        let line = run("ostree", &["ls", &repo, "-C", commit, name]);
        line.split_whitespace().find(|word| Checksum::parse(word).is_some()).unwrap().to_string()
    };
    let directory = |name: &str| {
        fs::symlink_metadata(lab.at(name.trim_start_matches('/'))).is_ok_and(|m| m.file_type().is_dir())
    };
    names.filter(|name| !directory(name)).map(|name| (name.to_string(), checksum(name))).collect()
}

#[test]
fn the_whole_is_whole() {
    let lab = Lab::new();
    let (code, lines) = json(&lab, &["--all"]);
    assert_eq!((code, lines.len()), (0, 3), "{lines:?}");
    for (index, (line, deployment)) in lines.iter().zip(lab.fixture.read().deployments).enumerate() {
        assert_eq!((&line["event"], &line["result"]), (&"result".into(), &"whole".into()));
        assert_eq!((&line["index"], &line["level"]), (&index.into(), &"full".into()));
        assert_eq!((&line["commit"], &line["stateroot"]), (&deployment.commit.into(), &"demo".into()));
        assert_eq!((&line["faults"], &line["boot_files"]), (&0.into(), &true.into()));
        assert_eq!(line["signed_by"], Value::Null);
        assert!(line["entries"].as_u64().unwrap() > 10);
    }
    let (short, serial) = (&lab.deployment.commit[..8], format!("{}.0", lab.deployment.commit));
    for which in [&[][..], &["0"], &[short], &[&serial], &["--level", "metadata"], &["--timeout=0"]] {
        let output = verify(&lab, which);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(0), "{which:?}: {said}");
        assert!(said.starts_with("0: demo ") && said.contains(": whole\n"), "{said}");
    }
    let said = text(&verify(&lab, &["1", "2"]));
    assert!(said.starts_with("1: demo ") && said.contains("\n2: demo "), "{said}");
}

#[test]
fn what_is_damaged_is_what_libostree_says_is() {
    let lab = Lab::new();
    let repo = format!("--repo={}/ostree/repo", lab.sysroot().display());
    let victims = [
        "usr/bin/tool",
        "usr/etc/os-release",
        "usr/lib/modules/6.3.0/dtb/vendor/board.dtb",
        "usr/bin/ünïcödé 名",
    ];
    victims.iter().for_each(|victim| flip(&lab.at(victim)));
    // The system's shared file, damaged in the repository: two deployments have it.
    let shared = lab.fixture.read().deployments[2].path();
    flip(&lab.sysroot().join(shared).join("usr/lib/systemd/systemd"));

    let fsck = Command::new("ostree").args(["fsck", &repo]).output().unwrap();
    assert!(!fsck.status.success());
    let deployments = lab.fixture.read().deployments;
    let mut damaged = 0;
    for (index, deployment) in deployments.into_iter().enumerate() {
        let lab = Lab { fixture: crate::sysroot::Fixture::at_path(lab.sysroot()), deployment };
        let theirs: BTreeSet<String> = files_of(&lab, &lab.deployment.commit)
            .into_iter()
            .filter(|(name, checksum)| {
                let path = lab.at(name.trim_start_matches('/'));
                run("ostree", &["checksum", path.to_str().unwrap()]).trim() != checksum
            })
            .map(|(name, _)| name)
            .collect();
        let (code, lines) = json(&lab, &[&index.to_string()]);
        let faults = lines.iter().filter(|line| line["event"] == "fault");
        let paths: BTreeSet<String> = faults.map(|line| line["path"].as_str().unwrap().to_string()).collect();
        // The device tree in the boot directory is a copy, and no longer the same as what it was copied from.
        let (boot, ours): (BTreeSet<String>, BTreeSet<String>) =
            paths.into_iter().partition(|path| path.starts_with("boot/"));
        assert_eq!(boot.iter().filter(|path| path.ends_with("/dtb/vendor/board.dtb")).count(), boot.len());
        assert_eq!(ours, theirs, "deployment {index}");
        assert_eq!(code, i32::from(!theirs.is_empty()));
        let result = lines.last().unwrap();
        assert_eq!(result["faults"], theirs.len() + boot.len());
        assert_eq!(result["result"], if theirs.is_empty() { "whole" } else { "damaged" });
        damaged += theirs.len();
    }
    // A second name of usr/bin/tool, and systemd in two deployments.
    println!("verify: {damaged} damaged names, as ostree checksum finds them");
    assert!(damaged >= victims.len() + 3, "{damaged}");
    assert_eq!(verify(&lab, &["--all"]).status.code(), Some(1));
}

#[test]
fn many_faults_are_counted() {
    let lab = Lab::new();
    for number in 0..150 {
        fs::write(lab.at(&format!("usr/empty/{number}")), "").unwrap();
    }
    let linux = lab.deployment.boot_files.linux.clone().unwrap();
    let copy = lab.sysroot().join("boot").join(linux.trim_start_matches('/'));
    unshare(&copy);
    flip(&copy);
    let (code, lines) = json(&lab, &[]);
    assert_eq!((code, lines.len()), (1, 101));
    assert_eq!(lines[100]["faults"], 151);
    assert_eq!(lines[99]["text"], format!("{}: not in the commit", lines[99]["path"].as_str().unwrap()));
    let said = text(&verify(&lab, &[]));
    assert!(said.contains("     and 51 more\n"), "{said}");
    fs::remove_dir_all(lab.at("usr/empty")).unwrap();
    let said = text(&verify(&lab, &[]));
    assert!(said.contains("     /usr/empty: missing\n"), "{said}");
    assert!(said.contains(&format!("     boot{linux}: not the file of the deployment\n")), "{said}");
}

#[test]
fn only_trusted_keys_count() {
    let lab = Lab::new();
    let (ours, other) = (Pair::new(), Pair::new());
    let file = |name: &str, content: &str| {
        let path = lab.sysroot().with_file_name(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let both = file("both", &format!("{}\n{}\n", other.public, ours.public));
    let one = file("one", &other.public);
    let signed = |keys: &str| json(&lab, &["--keys", keys]);
    let (code, lines) = signed(&both);
    assert_eq!((code, lines.len()), (1, 2), "{lines:?}");
    assert!(lines[0]["text"].as_str().unwrap().contains("is not signed"), "{lines:?}");
    assert_eq!(lines[1]["boot_files"], false);
    let commit = commit_of(lab.sysroot(), &lab.deployment.commit);
    let name = Checksum::parse(&lab.deployment.commit).unwrap();
    let place = lab.sysroot().join(object::path(&name, Kind::CommitMeta));
    fs::write(place, detached(&[ours.sign(&commit)])).unwrap();
    let (code, lines) = signed(&both);
    assert_eq!((code, &lines[0]["signed_by"]), (0, &2.into()), "{lines:?}");
    assert_eq!(signed(&one).0, 1);
    for (keys, said) in [
        ("/no/such/file".to_string(), "cannot be read"),
        (file("empty", ""), "there is no key in it"),
        (file("bad", "none\n"), "line 1 is no ed25519 public key"),
    ] {
        let output = verify(&lab, &["--keys", &keys]);
        assert_eq!(output.status.code(), Some(3), "{keys}");
        assert!(text(&output).contains(said), "{}", text(&output));
    }
}

#[test]
fn what_cannot_be_told_is_not_called_whole() {
    let lab = Lab::new();
    let again = &lab.deployment;
    let at = format!("--sysroot={}", lab.sysroot().display());
    run("ostree", &["admin", "deploy", "--retain", &at, "--os=demo", &again.commit]);
    for (which, said) in [
        ("9", "there is no deployment '9'"),
        ("x", "there is no deployment 'x'"),
        ("0000000000", "there is no deployment '0000000000'"),
        (&again.commit[..12], "is more than one deployment"),
    ] {
        let output = verify(&lab, &[which]);
        assert_eq!(output.status.code(), Some(3), "{which}");
        assert!(text(&output).contains(said), "{which}: {}", text(&output));
    }
    for (serial, index) in [("1", "0: "), ("0", "1: ")] {
        let output = verify(&lab, &[&format!("{}.{serial}", &again.commit[..12])]);
        assert_eq!((output.status.code(), text(&output).starts_with(index)), (Some(0), true), "{serial}");
    }
    let wrong: [&[&str]; 5] =
        [&["--all", "0"], &["--level=none"], &["--level=everything"], &["--timeout=soon"], &["--keys="]];
    for arguments in wrong {
        let output = verify(&lab, arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    let output = verify(&lab, &["--sysroot", empty.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("no OSTree sysroot"));
}

/// A file that takes long to read: what a person sees meanwhile, and what is said when the time is up.
#[test]
fn a_long_one_is_told_of_and_given_up() {
    let lab = Lab::new();
    let tool = lab.at("usr/bin/tool");
    unshare(&tool);
    fs::OpenOptions::new().write(true).open(&tool).unwrap().set_len(64 << 30).unwrap();
    let (code, lines) = json(&lab, &["--timeout", "1"]);
    assert_eq!((code, &lines[1]["result"]), (3, &"unchecked".into()), "{lines:?}");
    assert_eq!(lines[0]["text"], "the time to verify it ran out");
    let command = format!(
        "{} verify --timeout 2 --sysroot {}",
        env!("CARGO_BIN_EXE_bootward"),
        lab.sysroot().display()
    );
    let seen = Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
    assert_eq!(seen.status.code(), Some(3));
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    let line = seen.split('\r').find(|line| line.contains(" s left"));
    assert!(
        line.is_some_and(|l| l.starts_with("0: ") && l.contains(" of 687") && l.contains(" MB/s")),
        "{seen}"
    );
    assert!(seen.contains("unchecked"), "{seen}");
    // What was found before the time was up counts.
    fs::write(lab.at("added"), "").unwrap();
    let (code, lines) = json(&lab, &["--timeout", "1"]);
    assert_eq!((code, &lines[2]["result"]), (1, &"damaged".into()), "{lines:?}");
}
