//! The U-Boot environment against libubootenv's `fw_printenv` and `fw_setenv` and U-Boot's `mkenvimage`.
//!
//! One difference is known: behind the last variable libubootenv writes what its memory happened to hold;
//! we write zeros. Everything up to the terminator, and the flag, must be the same.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use bootward::uboot::env::{Edit, Image, Kind};
use bootward::uboot::store::{Condition, Error, Store};

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program} must be there: {e}"))
}

fn ok(program: &str, arguments: &[&str]) -> Vec<u8> {
    let out = run(program, arguments);
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn bootward(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_bootward"), arguments)
}

/// A file with one or two copies as mkenvimage makes them, and its configuration.
struct Board {
    directory: tempfile::TempDir,
    size: usize,
    redundant: bool,
}

impl Board {
    fn new(size: usize, redundant: bool, variables: &str) -> Board {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("text"), variables).unwrap();
        let bytes = format!("{size:#x}");
        let mut arguments = vec!["-s", &bytes];
        if redundant {
            arguments.push("-r");
        }
        let (one, text) = (path("one"), path("text"));
        arguments.extend(["-o", &one, &text]);
        ok("mkenvimage", &arguments);
        let image = fs::read(&one).unwrap();
        assert_eq!(image.len(), size);
        let mut file = vec![0x5A; 512];
        file.extend(&image);
        let mut config = format!("# test\n{} 0x200 {size:#x}\n", path("env"));
        if redundant {
            file.extend(&image);
            // libubootenv takes negative offsets of block devices only.
            config += &format!("{} {:#x} {size:#x}\n", path("env"), 512 + size);
        }
        fs::write(path("env"), file).unwrap();
        fs::write(path("config"), config).unwrap();
        Board { directory, size, redundant }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> String {
        self.path("config").display().to_string()
    }

    fn fw_printenv(&self) -> Vec<u8> {
        ok("fw_printenv", &["-c", &self.config()])
    }

    /// Each copy: the flag, and the variables up to their terminator.
    fn copies(&self) -> Vec<(u8, Vec<u8>)> {
        let kind = if self.redundant { Kind::Redundant } else { Kind::Single };
        let file = fs::read(self.path("env")).unwrap();
        let copies = file[512..].chunks(self.size).map(|c| {
            let flag = Image::parse(c, kind).unwrap().flag;
            let data = &c[kind.header()..];
            let end = data.windows(2).position(|w| w == [0, 0]).unwrap();
            (flag, data[..end].to_vec())
        });
        copies.collect()
    }
}

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

const START: &str = "altbootcmd=run boot_2; echo a=b\nbootcmd=run boot_1\nbootcount=0\nzed=\u{e9}\n";

#[test]
fn the_same_edits_give_the_bytes_that_fw_setenv_gives() {
    let mut random = Xorshift(0x2545_F491_4F6C_DD1D);
    for (size, redundant) in [(0x400, false), (0x400, true), (0x2000, true), (0x4000, false)] {
        let (ours, theirs) = (Board::new(size, redundant, START), Board::new(size, redundant, START));
        for round in 0..60 {
            let name = ["bootcount", "rollback", "a", "zz", "m.x", "bootcmd"][random.below(6) as usize];
            let value = format!("v{round} {}", random.below(1000));
            let mut arguments = vec![name];
            // A deletion of what is not there is no write for us, but one for fw_setenv.
            let there = String::from_utf8_lossy(&ours.fw_printenv())
                .lines()
                .any(|l| l.starts_with(&format!("{name}=")));
            if !(there && random.below(3) == 0) {
                arguments.push(&value);
            }
            let config = ours.config();
            let set = [&["env", "set", "-c", &config], arguments.as_slice()].concat();
            assert!(bootward(&set).status.success());
            ok("fw_setenv", &[&["-c", &theirs.config()], arguments.as_slice()].concat());
            assert_eq!(ours.copies(), theirs.copies(), "{size:#x} {redundant} round {round}: {arguments:?}");
            let text = ours.fw_printenv();
            assert_eq!(text, theirs.fw_printenv());
            // And the reverse: what fw_setenv wrote is read by us.
            let print = bootward(&["env", "print", "-c", &theirs.config()]);
            assert_eq!(print.stdout, text);
        }
        // Writers alternate on one file.
        for round in 0..300 {
            let value = round.to_string();
            if round % 2 == 0 {
                ok("fw_setenv", &["-c", &ours.config(), "bootcount", &value]);
            } else {
                assert!(
                    bootward(&["env", "set", "-c", &ours.config(), "bootcount", &value]).status.success()
                );
            }
            let read = ok("fw_printenv", &["-n", "-c", &ours.config(), "bootcount"]);
            assert_eq!(read, format!("{value}\n").into_bytes());
        }
    }
}

#[test]
fn nothing_outside_the_image_changes_and_the_tail_is_zeros() {
    let board = Board::new(0x400, false, START);
    assert!(bootward(&["env", "set", "-c", &board.config(), "rollback", "1"]).status.success());
    let file = fs::read(board.path("env")).unwrap();
    assert_eq!(file.len(), 512 + 0x400);
    assert!(file[..512].iter().all(|&b| b == 0x5A));
    let end = 512 + 4 + board.copies()[0].1.len();
    assert!(file[end..].iter().all(|&b| b == 0));
}

#[test]
fn a_script_is_one_write() {
    let board = Board::new(0x1000, true, START);
    let before = board.copies();
    let script = "# comment\nrollback=1\nupgrade_available=0\r\nbootcount=\naltbootcmd run x\n\nnew=a=b\n";
    let mut child = Command::new(env!("CARGO_BIN_EXE_bootward"))
        .args(["env", "set", "-c", &board.config(), "-s", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let text = String::from_utf8_lossy(&board.fw_printenv()).into_owned();
    let wanted =
        "altbootcmd=run x\nbootcmd=run boot_1\nnew=a=b\nrollback=1\nupgrade_available=0\nzed=\u{e9}\n";
    assert_eq!(text, wanted);
    assert_eq!(board.copies()[0], before[0], "the active copy is not touched");
}

#[test]
fn corrupt_copies_are_said_and_never_overwritten() {
    let board = Board::new(0x400, true, START);
    let damage = |offset: usize| {
        let mut file = fs::read(board.path("env")).unwrap();
        file[offset] ^= 1;
        fs::write(board.path("env"), file).unwrap();
    };
    damage(512 + 20);
    let config = board.path("config");
    let loaded = Store::open(&config).unwrap().load().unwrap();
    assert!(matches!(loaded.condition, Condition::OneCopyCorrupt(_)), "{:?}", loaded.condition);
    assert_eq!(loaded.get(b"bootcount"), Some(b"0".as_slice()));
    damage(512 + 0x400 + 20);
    let before = fs::read(board.path("env")).unwrap();
    let print = bootward(&["env", "print", "-c", &board.config()]);
    assert_eq!(print.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&print.stderr).contains("both copies"));
    assert_eq!(bootward(&["env", "set", "-c", &board.config(), "rollback", "1"]).status.code(), Some(1));
    assert_eq!(fs::read(board.path("env")).unwrap(), before);
    // Only who says so makes a new one.
    let mut store = Store::open(&config).unwrap();
    let edit = [Edit { name: b"rollback", value: Some(b"1") }];
    assert!(matches!(store.save(&edit), Err(Error::NoEnvironment)));
    store.create(&edit).unwrap();
    assert_eq!(board.fw_printenv(), b"rollback=1\n");
}

#[test]
fn wrong_places_are_typed_errors() {
    let directory = tempfile::tempdir().unwrap();
    let (config, file) = (directory.path().join("config"), directory.path().join("env"));
    fs::write(&file, [0u8; 2048]).unwrap();
    let open = |text: &str| {
        fs::write(&config, text.replace("F", file.to_str().unwrap())).unwrap();
        Store::open(&config).map(drop)
    };
    assert!(matches!(open("F 0x400 0x401"), Err(Error::Outside { .. })));
    assert!(matches!(open("F -0x900 0x400"), Err(Error::Outside { .. })));
    assert!(matches!(open("F 0 0x400\nF 0x3ff 0x400"), Err(Error::Overlap(_))));
    assert!(matches!(open("/dev/null 0 0x400"), Err(Error::CharacterDevice(_))));
    assert!(matches!(open("/nowhere 0 0x400"), Err(Error::Device(..))));
    assert!(matches!(open("uboot:\n"), Err(Error::Config(..))));
    assert!(open("F 0 0x400\nF -0x400 0x400").is_ok());
}

/// A loop device stands for the block device of a board. Without one this fails, unless BOOTWARD_WITHOUT_LOOP is set.
#[test]
fn a_block_device_works_as_a_file_does() {
    let board = Board::new(0x400, true, START);
    let file = fs::read(board.path("env")).unwrap();
    // Loop devices have whole sectors only, and so has this file.
    assert_eq!(file.len() % 512, 0);
    let out = run("losetup", &["-f", "--show", board.path("env").to_str().unwrap()]);
    if !out.status.success() {
        // Never silently: who has no loop devices says so.
        let allowed = std::env::var_os("BOOTWARD_WITHOUT_LOOP").is_some();
        assert!(allowed, "no loop device: {}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let device = String::from_utf8(out.stdout).unwrap().trim().to_string();
    let config = board.path("loop-config");
    fs::write(&config, format!("{device} 0x200 0x400\n{device} -0x400 0x400\n")).unwrap();
    let config = config.to_str().unwrap();
    let set = bootward(&["env", "set", "-c", config, "rollback", "1"]);
    let read = run("fw_printenv", &["-n", "-c", config, "rollback"]);
    ok("losetup", &["-d", &device]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert_eq!(read.stdout, b"1\n", "{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn print_has_names_values_json_and_exit_codes() {
    let board = Board::new(0x400, false, START);
    let print = |more: &[&str]| bootward(&[&["env", "print", "-c", &board.config()], more].concat());
    assert_eq!(print(&["bootcount"]).stdout, b"bootcount=0\n");
    assert_eq!(print(&["-n", "bootcount"]).stdout, b"0\n");
    let json: serde_json::Value = serde_json::from_slice(&print(&["--json"]).stdout).unwrap();
    assert_eq!(json["altbootcmd"], "run boot_2; echo a=b");
    assert_eq!(print(&["nope"]).status.code(), Some(1));
    assert_eq!(bootward(&["env"]).status.code(), Some(2));
    assert_eq!(bootward(&["env", "set", "-c", &board.config(), "a=b", "c"]).status.code(), Some(1));
    let big = "x".repeat(2000);
    assert_eq!(bootward(&["env", "set", "-c", &board.config(), "big", &big]).status.code(), Some(1));
    assert!(bootward(&["env", "--help"]).status.success());
}

#[test]
fn only_a_copy_that_may_be_torn_is_warned_about() {
    for (size, redundant, warned) in [(0x200, false, false), (0x400, false, true), (0x400, true, false)] {
        let board = Board::new(size, redundant, START);
        let set = bootward(&["env", "set", "-c", &board.config(), "rollback", "1"]);
        let said = String::from_utf8_lossy(&set.stderr);
        assert!(
            set.status.success() && said.contains("single copy") == warned,
            "{size:#x} {redundant}: {said}"
        );
    }
}
