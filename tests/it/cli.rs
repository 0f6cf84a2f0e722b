//! The command as a person or a program calls it: help, exit codes, text and JSON, on a sysroot that the real
//! `ostree` made.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::sysroot::Fixture;

const PAIR: &str = "rollback=0\nupgrade_available=0\nbootcount=0\nbootlimit=3\n";

fn bootward(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bootward")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn decide(fixture: &Fixture, more: &[&str]) -> (i32, Value) {
    let sysroot = fixture.root.to_str().unwrap();
    let common = ["decide", "--json", "--machine", "x86_64", "--sysroot", sysroot];
    let output = bootward(&[&common, more].concat());
    let code = output.status.code().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (code, serde_json::from_str(&text(&output)).unwrap_or_else(|e| panic!("{e}: {errors}")))
}

/// A redundant environment made by mkenvimage, and the fw_env.config that names it.
fn environment(at: &Path, variables: &str) -> String {
    std::fs::write(at.join("variables"), variables).unwrap();
    let (image, config) = (at.join("env"), at.join("fw_env.config"));
    let mut mkenvimage = Command::new("mkenvimage");
    mkenvimage.args(["-r", "-s", "0x1000", "-o"]).arg(&image).arg(at.join("variables"));
    assert!(mkenvimage.status().unwrap().success());
    let one = std::fs::read(&image).unwrap();
    std::fs::write(&image, one.repeat(2)).unwrap();
    let path = image.display();
    std::fs::write(&config, format!("{path} 0x0 0x1000\n{path} 0x1000 0x1000\n")).unwrap();
    config.to_str().unwrap().to_string()
}

#[test]
fn every_verb_explains_itself() {
    let help = bootward(&["--help"]);
    assert!(help.status.success());
    let verbs =
        ["status", "decide", "confirm", "reject", "rollback", "undeploy", "repair", "verify", "check", "env"];
    for verb in verbs.into_iter().chain(["log", "prepare-root"]) {
        assert!(text(&help).contains(&format!("  {verb}")), "{verb} is not in --help");
        let own = bootward(&[verb, "--help"]);
        assert!(own.status.success(), "{verb} --help");
        let own = text(&own);
        assert!(own.contains(&format!("bootward {verb}")), "{verb}: {own}");
        let lower = own.to_lowercase();
        assert!(lower.contains("exit code") || lower.contains("exit status"), "{verb}: no exit codes");
    }
}

#[test]
fn a_wrong_command_line_is_told_and_ends_with_2() {
    let wrong: [&[&str]; 7] = [
        &[],
        &["no-such-verb"],
        &["status", "--no-such-option"],
        &["decide"],
        &["decide", "--sysroot"],
        &["decide", "--sysroot", "/", "--limit", "many"],
        &["log", "--json=yes"],
    ];
    for arguments in wrong {
        let output = bootward(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_is_no_sysroot_is_told_and_ends_with_1() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    for verb in ["status", "decide"] {
        let output = bootward(&[verb, "--sysroot", path]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no OSTree sysroot"));
    }
}

#[test]
fn decide_follows_the_boot_state() {
    let fixture = Fixture::new();
    let scratch = tempfile::tempdir().unwrap();
    let index = |variables: &str| {
        let config = environment(scratch.path(), variables);
        let (code, report) = decide(&fixture, &["--env-config", &config]);
        assert_eq!(code, 0);
        (report["decision"]["index"].as_u64().unwrap(), report)
    };
    assert_eq!(index(PAIR).0, 0);
    assert_eq!(index("rollback=1\n").0, 1);
    assert_eq!(index("upgrade_available=1\nbootcount=3\nbootlimit=3\n").0, 0);
    let (over, report) = index("upgrade_available=1\nbootcount=4\nbootlimit=3\n");
    assert_eq!(over, 1);
    let reason = report["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("bootcount 4 is over bootlimit 3"), "{reason}");
    assert_eq!(report["boot_state"]["bootcount"], 4);
    assert_eq!(report["boot_state"]["rollback"], Value::Null);
    let commits: Vec<&Value> =
        report["deployments"].as_array().unwrap().iter().map(|d| &d["commit"]).collect();
    assert_eq!(commits.len(), 2);
    // The second entry's kernel is another one, without modules for the running one: the bootloader is asked.
    let (_, report) = index(PAIR);
    let release = ["--release", "6.1.0"];
    assert_eq!(report["decision"]["order"], serde_json::json!([0, 1]));
    let (_, foreign) = decide(&fixture, &release);
    assert!(foreign["decision"]["reason"].as_str().unwrap().contains("not its own"), "{foreign}");
}

#[test]
fn decide_takes_ostree_as_a_hint() {
    let fixture = Fixture::new();
    let link = fixture.read().deployments[1].boot_link.clone().unwrap();
    let (code, report) = decide(&fixture, &["--cmdline", &format!("quiet ostree={link}")]);
    assert_eq!((code, &report["decision"]["index"]), (0, &Value::from(1)));
    let (code, report) = decide(&fixture, &["--cmdline", "ostree=/ostree/../../etc"]);
    assert_eq!((code, &report["decision"]["index"]), (0, &Value::from(0)));
    let notes = report["notes"].to_string();
    assert!(notes.contains("is no guide"), "{notes}");
}

#[test]
fn decide_ends_with_3_for_recovery() {
    let fixture = Fixture::new();
    let (code, report) = decide(&fixture, &["--cmdline", "bootward.recovery"]);
    assert_eq!((code, &report["decision"]["action"]), (3, &Value::from("recovery")));
    for deployment in fixture.read().deployments {
        std::fs::remove_dir_all(fixture.root.join(deployment.path()).join("usr")).unwrap();
    }
    let (code, report) = decide(&fixture, &[]);
    assert_eq!(code, 3);
    assert_eq!(report["deployments"][0]["fault"], "it has no usr directory");
    assert_eq!(report["deployments"][1]["bootable"], false);
}

#[test]
fn status_lists_as_ostree_admin_status_does() {
    let fixture = Fixture::new();
    let sysroot = fixture.root.to_str().unwrap();
    let ours = text(&bootward(&["status", "--sysroot", sysroot]));
    let theirs = Command::new("ostree").args(["admin", "status", "--sysroot", sysroot]).output().unwrap();
    let listed = |text: &str| -> Vec<String> {
        let words = text.split_whitespace().filter(|w| w.len() >= 66 && w.as_bytes()[64] == b'.');
        words.map(str::to_string).collect()
    };
    assert_eq!(listed(&ours), listed(&text(&theirs)));
    assert_eq!(listed(&ours).len(), 2, "{ours}");
    for needed in ["next boot: ", "boot state:", "origin: demo/stable"] {
        assert!(ours.contains(needed), "{ours}");
    }
}

/// What boots next is what the bootloader will start, not what is running now.
#[test]
fn status_foretells_the_next_boot() {
    let fixture = Fixture::new();
    let scratch = tempfile::tempdir().unwrap();
    let sysroot = fixture.root.to_str().unwrap();
    for (variables, index) in [("rollback=0\n", 0), ("rollback=1\n", 1)] {
        let config = environment(scratch.path(), variables);
        let json = bootward(&["status", "--json", "--sysroot", sysroot, "--env-config", &config]);
        let report: Value = serde_json::from_str(&text(&json)).unwrap();
        assert_eq!(report["decision"]["index"], index, "{variables}: {report}");
    }
}

#[test]
fn an_absent_ledger_is_told_and_is_no_failure() {
    let fixture = Fixture::new();
    let sysroot = fixture.root.to_str().unwrap();
    let output = bootward(&["log", "--sysroot", sysroot]);
    assert!(output.status.success());
    assert!(text(&output).contains("no boot was recorded"));
}

#[test]
fn a_worn_out_deployment_is_passed_over() {
    use bootward::ledger::{Kind, Record, file, record::clip};
    let fixture = Fixture::new();
    let first = fixture.read().deployments[0].id().unwrap();
    let mut ring = file::open_or_create(&fixture.root).unwrap();
    let attempt = Record {
        kind: Kind::Attempt,
        sequence: 0,
        time: 0,
        uptime: 0,
        deployment: first,
        boot: [0; 16],
        text: clip("a test"),
    };
    for failures in 1..=3u64 {
        ring.append(&mut [attempt.clone()]).unwrap();
        let (_, report) = decide(&fixture, &["--limit", "2"]);
        let expected = if failures > 2 { 1 } else { 0 };
        assert_eq!(report["decision"]["index"], expected, "after {failures} attempts: {report}");
    }
    let sysroot = fixture.root.to_str().unwrap();
    let told = text(&bootward(&["log", "--sysroot", sysroot]));
    assert_eq!(told.lines().count(), 3);
    assert!(told.starts_with("#1 1970-01-01 00:00:00 UTC booting "), "{told}");
    let line = text(&bootward(&["log", "--json", "--sysroot", sysroot]));
    let record: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!((&record["kind"], &record["sequence"]), (&Value::from("attempt"), &Value::from(3)));
}

/// A cut while the ledger is made, or made longer, leaves a shorter file: the next boot completes it, and every
/// record that is wholly there stays.
#[test]
fn a_ledger_cut_short_is_completed() {
    use bootward::ledger::{Kind, RECORD_SIZE, Record, file, record::clip};
    let note = |n: usize| Record {
        kind: Kind::Note,
        sequence: 0,
        time: 0,
        uptime: 0,
        deployment: Default::default(),
        boot: [0; 16],
        text: clip(&n.to_string()),
    };
    let whole = file::SLOTS * RECORD_SIZE;
    for length in [0, 1, 511, 512, 513, 4 * 512 + 100, 4095, 4096, 5 * 4096 + 7, whole - 1, whole] {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("ostree")).unwrap();
        let mut ring = file::open_or_create(root.path()).unwrap();
        (1..=6).for_each(|n| ring.append(&mut [note(n)]).unwrap());
        let path = root.path().join(file::PATH);
        let cut = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        cut.set_len(length as u64).unwrap();
        file::open_or_create(root.path()).unwrap().append(&mut [note(7)]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole as u64, "cut at {length}");
        let mut seen = Vec::new();
        file::open(root.path()).unwrap().each(|r| seen.push(r.text.to_string())).unwrap();
        // Record n stands in slot n.
        let kept = (1..=6).filter(|n| (n + 1) * RECORD_SIZE <= length).map(|n| n.to_string());
        assert_eq!(seen, kept.chain(["7".to_string()]).collect::<Vec<_>>(), "cut at {length}");
    }
}

/// A read-only loop device stands for a locked eMMC boot partition.
#[test]
fn an_environment_that_cannot_be_written_is_told() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let config = environment(directory.path(), PAIR);
    let (_, report) = decide(&fixture, &["--env-config", &config]);
    assert!(!report["notes"].to_string().contains("cannot be written"), "{report}");
    let image = directory.path().join("env");
    let out = Command::new("losetup").args(["-r", "-f", "--show"]).arg(&image).output().unwrap();
    if !out.status.success() {
        let allowed = std::env::var_os("BOOTWARD_WITHOUT_LOOP").is_some();
        assert!(allowed, "no loop device: {}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let device = text(&out).trim().to_string();
    std::fs::write(&config, format!("{device} 0x0 0x1000\n{device} 0x1000 0x1000\n")).unwrap();
    let (code, report) = decide(&fixture, &["--env-config", &config]);
    assert!(Command::new("losetup").args(["-d", &device]).status().unwrap().success());
    assert!(code == 0 && report["notes"].to_string().contains("cannot be written"), "{report}");
}
