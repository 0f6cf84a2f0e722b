//! `bootward check` with real scripts.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bootward::health::plan::{Runner, Script, Stage};
use bootward::health::verdict::Ending;
use bootward::ledger::{Kind, Record, file};
use bootward::mounts::booted::Booted;
use serde_json::Value;

use crate::sysroot::Fixture;

/// A root with scripts below it, and a sysroot with nothing but room for a ledger.
struct Device {
    dir: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sysroot/ostree")).unwrap();
        Device { dir }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a script at `etc/bootward/PATH`, or elsewhere where the path says so.
    fn script(&self, path: &str, body: &str) -> &Self {
        self.put(path, &format!("#!/bin/sh\n{body}\n"), 0o755)
    }

    fn put(&self, path: &str, content: &str, mode: u32) -> &Self {
        let base = if path.starts_with("usr/") || path.starts_with("etc/") { "" } else { "etc/bootward" };
        let path = self.root().join(base).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn check(&self, more: &[&str]) -> Output {
        let root = self.root().to_str().unwrap();
        let sysroot = self.root().join("sysroot");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
        command.args(["check", "--root", root, "--sysroot", sysroot.to_str().unwrap()]).args(more);
        command.env("AT", root).output().unwrap()
    }

    fn json(&self, more: &[&str]) -> (i32, Value) {
        let output = self.check(&[&["--json"], more].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
        (output.status.code().unwrap(), value)
    }

    fn ledger(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let ring = file::open(&self.root().join("sysroot"));
        ring.unwrap().each(|r| records.push(r.clone())).unwrap();
        records
    }

    /// What the scripts wrote down, in the order in which they ran.
    fn ran(&self) -> String {
        fs::read_to_string(self.root().join("ran")).unwrap_or_default().replace('\n', " ").trim().to_string()
    }
}

/// A line for a script that writes its name down.
const TELL: &str = r#"echo "${0##*/}" >>"$AT/ran""#;

fn endings(report: &Value) -> Vec<(String, String)> {
    let scripts = report["scripts"].as_array().unwrap();
    let word = |s: &Value, key: &str| s[key].as_str().unwrap().to_string();
    scripts.iter().map(|s| (word(s, "name"), word(s, "ending"))).collect()
}

#[test]
fn all_pass() {
    let device = Device::new();
    device.script("check/required.d/10_a.sh", TELL).script("check/wanted.d/b", TELL);
    device.script("green.d/c.sh", TELL).script("red.d/d.sh", TELL);
    let (code, report) = device.json(&[]);
    assert_eq!((code, &report["passed"]), (0, &Value::from(true)), "{report}");
    assert_eq!(device.ran(), "10_a.sh b c.sh");
    assert_eq!(report["scripts"][0]["exit_code"], 0);
    let told = device.ledger();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].kind, told[0].text.as_str()), (Kind::CheckPassed, "1 required and 1 wanted passed"));
}

#[test]
fn a_required_one_fails() {
    let device = Device::new();
    device.script("check/required.d/10_a.sh", &format!("{TELL}; echo starting; echo no PLC >&2; exit 7"));
    device.script("check/required.d/20_b.sh", TELL).script("check/wanted.d/w.sh", TELL);
    device.script("green.d/c.sh", TELL).script("red.d/d.sh", TELL).script("red.d/e.sh", "exit 1");
    let (code, report) = device.json(&[]);
    assert_eq!((code, &report["passed"]), (1, &Value::from(false)), "{report}");
    assert_eq!(device.ran(), "10_a.sh d.sh");
    assert_eq!(report["scripts"][0]["exit_code"], 7);
    assert_eq!(report["scripts"][0]["output"], "starting\nno PLC\n");
    let named: Vec<_> = endings(&report).into_iter().map(|e| e.1).collect();
    assert_eq!(named, ["exit", "not-run", "not-run", "passed", "exit"]);
    let told = device.ledger();
    assert_eq!(told[0].kind, Kind::CheckFailed);
    assert_eq!(
        told[0].text.as_str(),
        "required 10_a.sh failed: exit code 7: no PLC; 0 required passed; 2 not run"
    );
}

#[test]
fn a_wanted_one_may_fail() {
    let device = Device::new();
    device.script("check/required.d/a.sh", "exit 0").script("check/wanted.d/b.sh", "kill -SEGV $$");
    device.script("check/wanted.d/c.sh", TELL).script("green.d/g.sh", TELL);
    let (code, report) = device.json(&[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["scripts"][1]["signal"], 11);
    assert_eq!(device.ran(), "c.sh g.sh");
    assert_eq!(
        device.ledger()[0].text.as_str(),
        "1 required and 1 wanted passed; wanted b.sh failed: ended by signal 11"
    );
}

#[test]
fn no_check_at_all_passes_and_says_so() {
    let (code, report) = Device::new().json(&[]);
    assert_eq!((code, &report["summary"]), (0, &Value::from("no required check is installed")));
}

/// Places in their order, names by their bytes; required before wanted.
#[test]
fn ordering() {
    let device = Device::new();
    for name in ["b", "B", "9", "10", "a.b", "a-b", "a"] {
        device.script(&format!("check/required.d/{name}"), TELL);
    }
    device.script("usr/lib/bootward/check/required.d/zz", TELL);
    device.script("usr/lib/greenboot/check/required.d/00_gb.sh", TELL);
    device.script("etc/greenboot/check/required.d/00_local.sh", TELL);
    device.script("usr/lib/bootward/check/wanted.d/00", TELL);
    let (code, _) = device.json(&[]);
    assert_eq!(code, 0);
    let own = ["B", "a", "a-b", "a.b", "b", "9", "10"];
    let sorted = {
        let mut sort = Command::new("sort");
        fs::write(device.root().join("names"), own.join("\n")).unwrap();
        let output = sort.arg(device.root().join("names")).env("LC_ALL", "C").output().unwrap();
        String::from_utf8(output.stdout).unwrap().replace('\n', " ")
    };
    assert_eq!(device.ran(), format!("zz {sorted}00_gb.sh 00_local.sh 00"));
}

#[test]
fn what_is_not_executable() {
    let device = Device::new();
    device.put("check/required.d/README", "exit 1\n", 0o644);
    device.put("check/required.d/.hidden.sh", "exit 1\n", 0o755);
    // As in greenboot: a .sh needs no execute bit.
    device.put("check/required.d/a.sh", &format!("{TELL}\n"), 0o644);
    // Executable without "#!": the shell's business.
    device.put("check/required.d/b", &format!("{TELL}\n"), 0o755);
    fs::create_dir_all(device.root().join("etc/bootward/check/required.d/c.sh")).unwrap();
    symlink("nowhere", device.root().join("etc/bootward/check/required.d/d.sh")).unwrap();
    let (code, report) = device.json(&[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(device.ran(), "a.sh b");
    let notes = report["notes"].to_string();
    for note in
        ["README is no check: it is not executable", "c.sh is no check", "d.sh is no check: it leads nowhere"]
    {
        assert!(notes.contains(note), "{notes}");
    }
    assert!(!notes.contains("hidden"));
    let device = Device::new();
    device.put("check/required.d/a", "#!/no/such/interpreter\n", 0o755);
    let (code, report) = device.json(&[]);
    assert_eq!((code, &report["scripts"][0]["ending"]), (1, &Value::from("not-started")), "{report}");
}

#[test]
fn switched_off() {
    let device = Device::new();
    for name in ["a.sh", "b.sh", "c.sh"] {
        device.script(&format!("usr/lib/greenboot/check/required.d/{name}"), &format!("{TELL}; exit 1"));
    }
    device.script("etc/greenboot/check/required.d/z.sh", TELL);
    symlink("/dev/null", device.root().join("etc/greenboot/check/required.d/a.sh")).unwrap();
    device.put("etc/greenboot/greenboot.conf", "DISABLED_HEALTHCHECKS=(\n\t\"b.sh\"\n  'c.sh' )\n", 0o644);
    let (code, report) = device.json(&[]);
    assert_eq!((code, device.ran().as_str()), (0, "z.sh"), "{report}");
    assert_eq!(report["notes"].as_array().unwrap().len(), 3, "{report}");
}

/// At the limit it gets SIGTERM, which is enough for most.
#[test]
fn one_that_hangs_is_ended() {
    let device = Device::new();
    device.script(
        "check/required.d/a.sh",
        &format!(
            "(trap 'echo child >>\"$AT/ran\"; exit' TERM; sleep 60 & wait) & child=$!
             trap 'wait $child; {TELL}; exit 0' TERM; echo waiting; wait"
        ),
    );
    let begun = Instant::now();
    let (code, report) = device.json(&["--timeout", "1"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // That it says 0 now does not count.
    assert_eq!((code, &report["scripts"][0]["ending"]), (1, &Value::from("timed-out")), "{report}");
    // The whole group was asked, not only its leader.
    assert_eq!(device.ran(), "child a.sh");
    let text = device.ledger()[0].text.to_string();
    assert!(
        text.starts_with("required a.sh failed: it took more than 1 s and was killed: waiting;"),
        "{text}"
    );
}

/// Neither the script nor its children take any notice of SIGTERM: SIGKILL ends the whole group.
#[test]
fn one_that_will_not_end_is_killed_with_all_its_children() {
    let device = Device::new();
    let body = r#"trap '' TERM; (trap '' TERM; echo $$ >"$AT/pid"; sh -c 'echo $$ >"$AT/child"; sleep 301') & sleep 302"#;
    device.script("check/required.d/a.sh", body);
    let begun = Instant::now();
    let (code, report) = device.json(&["--timeout", "1"]);
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!((code, &report["scripts"][0]["ending"]), (1, &Value::from("timed-out")), "{report}");
    assert_gone(&fs::read_to_string(device.root().join("child")).unwrap());
}

/// It ends well, but a grandchild lives on and keeps the pipe open.
#[test]
fn one_that_forks_and_leaves_a_child_hanging_holds_nobody_up() {
    let device = Device::new();
    device
        .script("check/required.d/a.sh", r#"sh -c 'echo $$ >"$AT/child"; sleep 303' & sleep 0.3; echo done"#);
    let begun = Instant::now();
    let (code, report) = device.json(&["--timeout", "30"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((code, &report["scripts"][0]["output"]), (0, &Value::from("done\n")), "{report}");
    assert_gone(&fs::read_to_string(device.root().join("child")).unwrap());
    // In a session of its own it is nobody's business; it still holds nobody up.
    let device = Device::new();
    device.script(
        "check/required.d/a.sh",
        r#"setsid sh -c 'echo $$ >"$AT/child"; exec sleep 304' & sleep 0.3"#,
    );
    let begun = Instant::now();
    assert_eq!(device.json(&["--timeout", "30"]).0, 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let child = fs::read_to_string(device.root().join("child")).unwrap();
    assert!(Path::new("/proc").join(child.trim()).exists());
    assert!(Command::new("kill").arg(child.trim()).status().unwrap().success());
}

fn assert_gone(pid: &str) {
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let state = fs::read_to_string(&stat).unwrap_or_default();
        // Whoever is to reap it may take a moment.
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        assert!(Instant::now() < deadline, "{state}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn huge_output_is_read_and_only_its_end_is_kept() {
    let device = Device::new();
    device.script("check/required.d/a.sh", "head -c 50000000 /dev/zero | tr '\\0' x; echo; echo the end");
    let (code, report) = device.json(&["--timeout", "50"]);
    assert_eq!(code, 0, "{report}");
    let script = &report["scripts"][0];
    assert_eq!(script["printed_bytes"], 50_000_009);
    assert_eq!(script["output"], "the end\n");
    // One that never stops printing is ended like one that never prints.
    let device = Device::new();
    device.script("check/required.d/a.sh", "exec yes 'and on'");
    let (code, report) = device.json(&["--timeout", "1"]);
    assert_eq!((code, &report["scripts"][0]["ending"]), (1, &Value::from("timed-out")));
    assert!(report["scripts"][0]["output"].as_str().unwrap().len() <= 4096);
}

/// Gone between the plan and its turn: it cannot be said to have passed.
#[test]
fn one_that_vanishes_has_not_passed() {
    let device = Device::new();
    device.script("check/required.d/10.sh", r#"rm "$AT/etc/bootward/check/required.d/20""#);
    device.script("check/required.d/20", "exit 0");
    let (code, report) = device.json(&[]);
    assert_eq!(code, 1, "{report}");
    assert_eq!(endings(&report)[1].1, "not-started");
    assert!(device.ledger()[0].text.contains("No such file"), "{}", device.ledger()[0].text);
    let gone =
        Script { stage: Stage::Required, name: "x".into(), path: "/no/such".into(), runner: Runner::Itself };
    let outcome = bootward::health::run::run(gone, Duration::from_secs(1));
    assert!(matches!(outcome.ending, Ending::NotStarted(_)), "{outcome:?}");
}

#[test]
fn all_checks_together_have_a_limit_too() {
    let device = Device::new();
    device.script("check/required.d/a.sh", "exit 0").script("check/required.d/b.sh", "sleep 60");
    device.script("check/required.d/c.sh", "exit 0");
    let (code, report) = device.json(&["--total", "5"]);
    assert_eq!(code, 1);
    let named: Vec<_> = endings(&report).into_iter().map(|e| e.1).collect();
    assert_eq!(named, ["passed", "timed-out", "not-run"], "{report}");
    let device = Device::new();
    device.script("check/required.d/a.sh", "exit 0").script("check/wanted.d/b.sh", "sleep 5");
    device.script("check/wanted.d/c.sh", "exit 0");
    let (code, report) = device.json(&["--total", "1"]);
    assert_eq!((code, endings(&report)[2].1.as_str()), (0, "no-time-left"), "{report}");
}

#[test]
fn the_configuration_sets_the_limits() {
    let device = Device::new();
    device.script("check/required.d/a.sh", "sleep 30");
    device.put("check.toml", "[check]\ntimeout = 1\ntotal = 20\n", 0o644);
    let config = device.root().join("etc/bootward/check.toml");
    let begun = Instant::now();
    let (code, _) = device.json(&["--config", config.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_part_only() {
    let device = Device::new();
    device.script("check/required.d/a.sh", TELL).script("green.d/g.sh", TELL).script("red.d/r.sh", TELL);
    assert_eq!(device.json(&["--only", "checks"]).0, 0);
    assert_eq!(device.ran(), "a.sh");
    let (code, report) = device.json(&["--only", "green"]);
    assert_eq!((code, device.ran().as_str(), &report["passed"]), (0, "a.sh g.sh", &Value::Null));
    assert_eq!(device.json(&["--only", "red"]).0, 0);
    assert_eq!(device.ran(), "a.sh g.sh r.sh");
    assert_eq!(device.ledger().len(), 1, "following up is not recorded");
    for wrong in [
        &["--only", "blue"][..],
        &["--only", "red", "--reject"],
        &["--timeout", "0"],
        &["--total", "x"],
        &["more"],
    ] {
        assert_eq!(device.check(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// Nothing that a script prints can drive the terminal of whoever reads the log.
#[test]
fn the_text_for_people() {
    let device = Device::new();
    device.script("check/required.d/a.sh", r"printf 'one\033[2J\ntwo\n'; exit 2");
    let output = device.check(&["--reject"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("a.sh: failed: exit code 2 ("), "{text}");
    assert!(text.contains("\n    one[2J\n    two\n"), "{text}");
    assert!(text.contains("FAILED: required a.sh failed: exit code 2: two"), "{text}");
}

#[test]
fn the_ledger_names_the_booted_deployment() {
    let fixture = Fixture::new();
    let device = Device::new();
    let deployment = fixture.read().deployments[1].clone();
    let found = fs::metadata(fixture.root.join(deployment.path())).unwrap();
    let booted = Booted { device_inode: Some((found.dev(), found.ino())), ..Booted::default() };
    fs::create_dir(device.root().join("run")).unwrap();
    fs::write(device.root().join("run/ostree-booted"), booted.to_bytes()).unwrap();
    let sysroot = fixture.root.to_str().unwrap();
    let (code, report) = device.json(&["--sysroot", sysroot]);
    assert_eq!((code, &report["recorded"]), (0, &Value::from(true)));
    let mut records = Vec::new();
    file::open(&fixture.root).unwrap().each(|r| records.push(r.clone())).unwrap();
    assert_eq!(records.last().unwrap().deployment, deployment.id().unwrap());
    let mut log = Command::new(env!("CARGO_BIN_EXE_bootward"));
    let told = log.args(["log", "--sysroot", sysroot]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("health checks passed ") && told.contains("no required check"), "{told}");
}

/// libostree mounts `/sysroot` read-only in the OS. The ledger is written all the same and nobody else ever sees it
/// writable.
#[test]
fn a_sysroot_that_is_mounted_read_only() {
    let device = Device::new();
    let sysroot = device.root().join("sysroot");
    let script = r#"mount --bind "$S" "$S" && mount -o remount,bind,ro "$S" || exit 90
        "$B" check --root "$AT" --sysroot "$S" --json || exit 91
        touch "$S/probe" 2>/dev/null && exit 92
        exit 0"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    command.env("S", &sysroot).env("AT", device.root()).env("B", env!("CARGO_BIN_EXE_bootward"));
    let output = command.output().unwrap();
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(device.ledger().len(), 1, "{told}");
}

/// After a rollback an older version reads what a newer one wrote: it goes on behind it.
#[test]
fn a_ledger_with_records_from_the_future() {
    let device = Device::new();
    assert_eq!(device.json(&[]).0, 0);
    let mut ring = file::open_or_create(&device.root().join("sysroot")).unwrap();
    let mut future = device.ledger()[0].clone();
    future.kind = Kind::Unknown(200);
    ring.append(&mut [future]).unwrap();
    assert_eq!(device.json(&[]).0, 0);
    let told: Vec<_> = device.ledger().iter().map(|r| (r.sequence, r.kind)).collect();
    assert_eq!(told, [(1, Kind::CheckPassed), (2, Kind::Unknown(200)), (3, Kind::CheckPassed)]);
}
