//! The service files of the health checks: systemd's own checker, shellcheck, and the sysvinit script with stubs for
//! everything that it calls.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("yocto/meta-bootward/recipes-core/bootward/files")
}

fn program(path: &Path, body: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A root with systemd's own units, ours switched on, and stubs for what they start.
fn root_with_units(change: impl Fn(&str, String) -> String) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    symlink("usr/lib", root.path().join("lib")).unwrap();
    for unit in fs::read_dir("/usr/lib/systemd/system").unwrap().flatten() {
        if unit.file_type().unwrap().is_file() && unit.path().extension().is_some_and(|e| e == "target") {
            fs::copy(unit.path(), units.join(unit.file_name())).unwrap();
        }
    }
    for name in ["bootward-check.service", "bootward-confirm.service", "bootward-reject.service"] {
        let text = fs::read_to_string(files().join(name)).unwrap();
        fs::write(units.join(name), change(name, text)).unwrap();
    }
    for name in ["bootward", "systemctl", "sleep"] {
        program(&root.path().join("usr/bin").join(name), "");
    }
    let mut enable = Command::new("systemctl");
    enable.arg(format!("--root={}", root.path().display()));
    let done =
        enable.args(["enable", "bootward-check.service", "bootward-confirm.service"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    root
}

/// What `systemd-analyze verify` has to say; nothing when all is well.
fn verified(root: &Path) -> String {
    let mut verify = Command::new("systemd-analyze");
    verify.arg(format!("--root={}", root.display())).args(["--man=no", "verify"]);
    verify.args(["multi-user.target", "boot-complete.target"]);
    verify.args(["bootward-check.service", "bootward-confirm.service", "bootward-reject.service"]);
    let output = verify.output().expect("systemd-analyze is needed for this test");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || !told.is_empty());
    told
}

#[test]
fn systemd_accepts_the_units() {
    assert_eq!(verified(root_with_units(|_, text| text).path()), "");
}

/// The checker sees what it is there for: a loop in the order, a word that is no key.
#[test]
fn systemds_checker_sees_mistakes() {
    let root = root_with_units(|_, text| {
        text.replace("boot-complete.target multi-user.target", "boot-complete.target")
    });
    assert!(verified(root.path()).contains("ordering cycle"));
    let root = root_with_units(|_, text| text.replace("JobTimeoutSec", "JobTimeOut"));
    assert!(verified(root.path()).contains("JobTimeOut"));
}

/// A chain, each link of which a device depends on.
#[test]
fn the_units_say_what_they_must() {
    let has = |name: &str, lines: &[&str]| {
        let text = fs::read_to_string(files().join(name)).unwrap();
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{name}: {line}");
        }
    };
    let booted = "ConditionPathExists=/run/ostree-booted";
    let check = ["Type=oneshot", "Before=boot-complete.target", "RequiredBy=boot-complete.target", booted];
    has("bootward-check.service", &check);
    has("bootward-check.service", &["OnFailure=bootward-reject.service"]);
    has("bootward-confirm.service", &["Requires=boot-complete.target", "WantedBy=multi-user.target", booted]);
    has("bootward-reject.service", &["FailureAction=reboot-immediate", "DefaultDependencies=no", booted]);
}

#[test]
fn scripts_are_clean() {
    let script = files().join("bootward.init");
    assert!(Command::new("sh").arg("-n").arg(&script).status().unwrap().success());
    let shellcheck = Command::new("shellcheck").args(["-s", "sh"]).arg(&script).output();
    let output = shellcheck.expect("shellcheck is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The sysvinit script among stubs that write down how they were called.
struct SysV {
    dir: tempfile::TempDir,
}

impl SysV {
    /// `check` is what `bootward check` does, `confirm` what `bootward confirm` does.
    fn new(check: &str, confirm: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let tell = format!("echo \"${{0##*/}} $*\" >>{}/calls", at.display());
        program(
            &at.join("bootward"),
            &format!("{tell}\ncase $1 in check) {check};; confirm) {confirm};; esac"),
        );
        for name in ["shutdown", "reboot", "logger"] {
            program(&at.join("bin").join(name), &tell);
        }
        fs::write(at.join("booted"), "").unwrap();
        SysV { dir }
    }

    fn call(&self, action: &str) -> Output {
        let at = self.dir.path();
        let mut script = Command::new("sh");
        script.arg(files().join("bootward.init")).arg(action);
        script.env("PATH", format!("{}:/usr/bin:/bin", at.join("bin").display()));
        for (name, file) in [("BOOTWARD", "bootward"), ("BOOTED", "booted"), ("STATE", "state")] {
            script.env(name, at.join(file));
        }
        script.env("FORCE_AFTER", "1").env("RETRY_AFTER", "0").output().unwrap()
    }

    /// Starts it and waits until `last` was called.
    fn start(&self, last: &str) -> String {
        let begun = Instant::now();
        assert_eq!(self.call("start").status.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(1), "it does not hold the start of others up");
        loop {
            let calls = self.calls();
            if calls.lines().any(|l| l == last) {
                return calls;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "no '{last}' in:\n{calls}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
    }

    /// The exit code that it wrote down, once it is there.
    fn result(&self) -> String {
        let begun = Instant::now();
        loop {
            let found = fs::read_to_string(self.dir.path().join("state/result")).unwrap_or_default();
            if !found.is_empty() {
                return found.trim().to_string();
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn sysvinit_a_good_boot() {
    let device = SysV::new("sleep 2; echo all well", "exit 0");
    assert_eq!(device.call("status").status.code(), Some(3));
    let calls = device.start("logger -t bootward -- all well");
    assert!(calls.contains("bootward check --confirm --reject\n"), "{calls}");
    assert_eq!(device.result(), "0");
    assert_eq!(device.call("status").status.code(), Some(0));
    // Once a boot.
    assert_eq!(device.call("start").status.code(), Some(0));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(device.calls().matches("bootward check").count(), 1);
    assert!(!device.calls().contains("reboot"));
}

#[test]
fn sysvinit_a_bad_boot_restarts_in_bounded_time() {
    let device = SysV::new("echo no PLC; exit 1", "exit 0");
    let calls = device.start("reboot -f");
    let order: Vec<_> = calls.lines().collect();
    let wanted = [
        "bootward check --confirm --reject",
        "logger -t bootward -- no PLC",
        "logger -t bootward -- this boot is bad, restarting",
        "shutdown -r now",
        "reboot -f",
    ];
    assert_eq!(order, wanted);
    assert_ne!(device.call("status").status.code(), Some(0));
}

#[test]
fn sysvinit_confirming_is_tried_again() {
    let device = SysV::new("exit 3", "[ $(grep -c confirm$ \"${0%/*}/calls\") -ge 3 ] && exit 0; exit 1");
    device.start("bootward confirm");
    assert_eq!(device.result(), "0");
    assert_eq!(device.calls().matches("bootward confirm").count(), 3);
    let device = SysV::new("exit 3", "exit 1");
    device.start("bootward confirm");
    assert_eq!(device.result(), "3");
    assert_eq!(device.calls().matches("bootward confirm").count(), 5);
    assert!(!device.calls().contains("reboot"), "the checks passed: there is no reason to restart");
}

#[test]
fn sysvinit_leaves_other_systems_alone() {
    let device = SysV::new("exit 1", "exit 0");
    fs::remove_file(device.dir.path().join("booted")).unwrap();
    assert_eq!(device.call("start").status.code(), Some(0));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(device.calls(), "");
    assert_eq!(device.call("stop").status.code(), Some(0));
    assert_eq!(device.call("nonsense").status.code(), Some(2));
}
