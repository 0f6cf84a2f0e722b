//! `bootward recover` and `hash-password`, judged by `fw_printenv` and by the reference program of Argon2.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use bootward::ledger::Kind;
use bootward::ledger::diary::Diary;
use bootward::recovery::operator::lock::PasswordHash;

/// A sysroot with nothing in it, and a redundant environment where one is wanted.
struct Device {
    keep: tempfile::TempDir,
}

impl Device {
    fn new(variables: Option<&str>) -> Device {
        let device = Device { keep: tempfile::tempdir().unwrap() };
        fs::create_dir_all(device.root().join("ostree/repo")).unwrap();
        fs::create_dir_all(device.root().join("boot")).unwrap();
        if let Some(variables) = variables {
            let path = |name: &str| device.keep.path().join(name).display().to_string();
            fs::write(path("text"), variables).unwrap();
            for copy in ["a", "b"] {
                let made = Command::new("mkenvimage")
                    .args(["-r", "-s", "0x1000", "-o", &path(copy), &path("text")])
                    .status()
                    .unwrap();
                assert!(made.success());
            }
            fs::write(device.config(), format!("{} 0 0x1000\n{} 0 0x1000\n", path("a"), path("b"))).unwrap();
        }
        device
    }

    fn root(&self) -> PathBuf {
        self.keep.path().join("root")
    }

    fn config(&self) -> PathBuf {
        self.keep.path().join("config")
    }

    fn recover(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
        command.arg("recover").args(arguments).arg("--sysroot").arg(self.root());
        if self.config().exists() {
            command.arg("--env-config").arg(self.config());
        }
        command.output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.recover(arguments);
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What the real tool finds the variable to be.
    fn variable(&self) -> Option<String> {
        let out = Command::new("fw_printenv")
            .arg("-c")
            .arg(self.config())
            .args(["-n", "bootward_recovery"])
            .output()
            .unwrap();
        // Some versions say that there is none by an empty value.
        let value = String::from_utf8(out.stdout).unwrap().trim_end().to_string();
        Some(value).filter(|value| out.status.success() && !value.is_empty())
    }

    fn file(&self) -> Option<String> {
        fs::read_to_string(self.root().join("ostree/bootward/request")).ok()
    }

    fn drilled(&self, kind: Kind, text: &str) {
        let mut diary = Diary::new();
        diary.note(kind, None, text);
        diary.write(&self.root());
    }
}

#[test]
fn with_an_environment_the_variable_asks() {
    let device = Device::new(Some("bootcount=0\nupgrade_available=0\n"));
    assert_eq!(device.variable(), None);
    assert!(device.ok(&[]).contains("in the bootloader's environment"));
    assert_eq!((device.variable().as_deref(), device.file()), (Some("1"), None));
    device.ok(&["--drill"]);
    assert_eq!(device.variable().as_deref(), Some("drill"));
    assert!(device.ok(&["--cancel"]).contains("a fire drill is not asked for any more"));
    assert_eq!(device.variable(), None);
    assert!(device.ok(&["--cancel"]).contains("nothing was asked for"));
}

#[test]
fn without_one_a_file_on_the_root_asks() {
    let device = Device::new(None);
    assert!(device.ok(&["--drill"]).contains("on the root filesystem"));
    assert_eq!(device.file().as_deref(), Some("bootward request 1\ndrill\n"));
    device.ok(&[]);
    assert_eq!(device.file().as_deref(), Some("bootward request 1\n1\n"));
    let decide = Command::new(env!("CARGO_BIN_EXE_bootward"))
        .args(["decide", "--sysroot"])
        .arg(device.root())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&decide.stdout).contains("'bootward recover' asked for recovery"));
    device.ok(&["--cancel"]);
    assert_eq!(device.file(), None);
    // An environment that is broken cannot be asked through.
    let broken = Device::new(Some("x=y\n"));
    for copy in ["a", "b"] {
        fs::write(broken.keep.path().join(copy), [0xA5; 0x1000]).unwrap();
    }
    assert!(broken.ok(&[]).contains("on the root filesystem"));
}

#[test]
fn a_request_is_in_one_place_only() {
    let device = Device::new(None);
    device.ok(&["--drill"]);
    let with = Device::new(Some("upgrade_available=0\n"));
    fs::create_dir_all(with.root().join("ostree/bootward")).unwrap();
    fs::copy(device.root().join("ostree/bootward/request"), with.root().join("ostree/bootward/request"))
        .unwrap();
    with.ok(&[]);
    assert_eq!((with.variable().as_deref(), with.file()), (Some("1"), None));
}

#[test]
fn no_drill_while_the_bootloader_counts() {
    let device = Device::new(Some("upgrade_available=1\nbootcount=1\nbootlimit=3\n"));
    let out = device.recover(&["--drill"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("on trial"));
    assert_eq!(device.variable(), None);
    // Recovery itself may be asked for: then it is wanted.
    device.ok(&[]);
}

#[test]
fn a_fleet_sees_how_the_last_drill_went() {
    let device = Device::new(None);
    let status = |code: i32, result: &str| {
        let out = device.recover(&["--status", "--json"]);
        assert_eq!(out.status.code(), Some(code));
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(json["drill"]["result"].as_str().unwrap_or("none"), result);
        json
    };
    assert!(status(4, "none")["asked"].is_null());
    device.ok(&["--drill"]);
    device.drilled(Kind::DrillBegan, "");
    assert_eq!(status(3, "unfinished")["asked"], "drill");
    device.drilled(Kind::DrillFailed, "eth0: no answer");
    assert_eq!(status(3, "failed")["drill"]["text"], "eth0: no answer");
    device.drilled(Kind::DrillBegan, "");
    device.drilled(Kind::DrillPassed, "eth0: a commit");
    status(0, "passed");
    let bootward = |verb: &str, json: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
        let out = command.arg(verb).args(json).arg("--sysroot").arg(device.root()).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(bootward("status", &[]).contains(", passed: eth0: a commit"));
    let json: serde_json::Value = serde_json::from_str(&bootward("status", &["--json"])).unwrap();
    assert_eq!(json["drill"]["result"], "passed");
    assert!(bootward("log", &[]).contains("fire drill failed: eth0: no answer"));
    assert!(bootward("log", &["--json"]).contains("\"kind\":\"drill-passed\""));
}

#[test]
fn wrong_command_lines() {
    let device = Device::new(None);
    for wrong in [
        &["--cancel", "--drill"][..],
        &["--status", "--reboot"],
        &["now"],
        &["--drill", "--cancel", "--status"],
    ] {
        assert_eq!(device.recover(wrong).status.code(), Some(2), "{wrong:?}");
        assert_eq!(device.file(), None);
    }
}

fn hash_password(input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_hash_is_the_one_of_the_reference_program() {
    let out = hash_password("päss wörd 1\nmore".as_bytes());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let hash = String::from_utf8(out.stdout).unwrap();
    let hash = hash.trim_end();
    assert!(PasswordHash::parse(hash).is_ok() && !hash.contains("wörd"));
    // With the salt that was drawn, the reference program comes to the same.
    let digits = hash.split('$').nth(4).unwrap();
    let mut base64 =
        Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    base64.stdin.take().unwrap().write_all(format!("{digits}==").as_bytes()).unwrap();
    let salt = base64.wait_with_output().unwrap().stdout;
    assert_eq!(salt.len(), 16);
    // Its command line cannot take every byte for a salt, so the salts are compared through ours.
    let plain = "0123456789abcdef";
    let mut argon2 = Command::new("argon2")
        .args([plain, "-id", "-k", "8192", "-t", "4", "-p", "1", "-e"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    argon2.stdin.take().unwrap().write_all("päss wörd 1".as_bytes()).unwrap();
    let reference = String::from_utf8(argon2.wait_with_output().unwrap().stdout).unwrap();
    let mut secret = bootward::recovery::operator::secret::Secret::with_room(64);
    "päss wörd 1".bytes().for_each(|byte| assert!(secret.push(byte)));
    let ours = PasswordHash::of(&secret, plain.as_bytes().try_into().unwrap()).unwrap();
    assert_eq!(ours.text(), reference.trim_end());
    assert!(PasswordHash::parse(hash).unwrap().fits(&secret).unwrap());
    assert_ne!(hash, ours.text());
}

#[test]
fn passwords_that_cannot_be_typed_or_guessed_at_once_are_refused() {
    let long = [b'x'; 257];
    for wrong in [
        &b""[..],
        b"\n",
        b"short\n",
        b"with\x07bell and more\n",
        b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe\n",
        &long,
    ] {
        let out = hash_password(wrong);
        assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(1), &b""[..]), "{wrong:?}");
    }
    assert_eq!(hash_password(b"longer\rthan\r\n").status.code(), Some(0));
}
