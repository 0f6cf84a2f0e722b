//! `bootward prepare-root` against the ostree-prepare-root of three Debian releases, and against failures.
//!
//! Each run has a mount namespace of its own, with the tree of `prepare-oracle.sh` as initramfs and a sysroot
//! that the `ostree` of the same release made. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use bootward::mounts::booted::Booted;
use procfs::process::{MountInfo, MountOptFields};

use crate::sign::{Pair, commit_of, detached};

mod cases;
use cases::{CASES, Case, Difference};

/// A release of Debian, whose ostree-prepare-root is an oracle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// Debian 12: 2022.7.
    Bookworm,
    /// Debian 13: 2025.2.
    Trixie,
    /// Debian 14: 2026.4 and later, with composefs.
    Forky,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
            Suite::Forky => "forky",
        }
    }

    /// Our options for the same result: `/boot` is bound until v2025.7.
    fn options(self) -> &'static [&'static str] {
        if self == Suite::Forky { &[] } else { &["--bind-boot"] }
    }
}

/// What a run left behind, made comparable.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    succeeded: bool,
    mounts: Vec<String>,
    run: String,
    slash: String,
}

struct Run {
    outcome: Outcome,
    before: Vec<String>,
    booted: Option<Vec<u8>>,
    booted_mode: Option<String>,
    device_inode: (u64, u64),
    stderr: String,
    _out: tempfile::TempDir,
}

fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab")
}

fn done(output: Output, what: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(name)
}

pub fn oracle(suite: Suite) -> PathBuf {
    static ONCE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = ONCE.lock();
    let mut command = Command::new(script("prepare-oracle.sh"));
    done(command.arg(suite.name()).arg(lab()).output().unwrap(), "prepare-oracle.sh");
    lab().join(format!("prepare-oracle-{}", suite.name()))
}

/// A sysroot that the release's `ostree` made.
struct Template {
    directory: tempfile::TempDir,
    /// The `ostree=` of its deployment.
    link: String,
}

fn template(suite: Suite) -> &'static Template {
    static TEMPLATES: [OnceLock<Template>; 3] = [const { OnceLock::new() }; 3];
    TEMPLATES[suite as usize].get_or_init(|| {
        let tree = oracle(suite);
        let directory = tempfile::tempdir_in(lab()).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private"]).arg(script("prepare-sysroot.sh"));
        done(command.arg(tree).arg(directory.path()).output().unwrap(), "prepare-sysroot.sh");
        let options = fs::read_to_string(directory.path().join("options")).unwrap();
        let link = options.split_whitespace().find(|o| o.starts_with("ostree=")).unwrap().to_string();
        Template { directory, link }
    })
}

/// The physical root: below an image the file system must be a real one.
fn physical(suite: Suite) -> &'static str {
    if suite == Suite::Forky { "ext4" } else { "sysroot" }
}

fn run(suite: Suite, physical: &str, setup: &str, cmdline: &str, tool: &[&str]) -> Run {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts: run it as root");
    let out = tempfile::tempdir_in(lab()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private"]).arg(script("prepare-run.sh")).arg(oracle(suite));
    let template = template(suite);
    command.arg(template.directory.path().join(physical)).arg(out.path()).arg(setup).args(tool);
    let cmdline = format!("quiet root=/dev/null {}{cmdline}", template.link);
    command.env("BOOTWARD", env!("CARGO_BIN_EXE_bootward")).env("CMDLINE", cmdline);
    done(command.output().unwrap(), "prepare-run.sh");
    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
    let booted = fs::read(out.path().join("booted")).ok();
    let booted_mode = booted.as_ref().map(|_| read("booted-mode").trim().to_string());
    let stat = read("stat");
    let (device, inode) = stat.trim().split_once(' ').unwrap();
    let root = fs::canonicalize(out.path()).unwrap().join("root");
    Run {
        outcome: Outcome {
            succeeded: read("status").trim() == "0",
            mounts: mounts(&read("mountinfo"), &root),
            run: unrandom(&read("run")),
            slash: read("slash"),
        },
        before: mounts(&read("before"), &root),
        booted,
        booted_mode,
        device_inode: (device.parse().unwrap(), inode.parse().unwrap()),
        stderr: read("stderr"),
        _out: out,
    }
}

/// The mounts below `root`, a line each, sorted; without what differs between any two runs.
fn mounts(mountinfo: &str, root: &Path) -> Vec<String> {
    let mut lines: Vec<String> = mountinfo
        .lines()
        .map(|line| MountInfo::from_line(line).unwrap())
        .filter_map(|m| {
            let place = m.mount_point.strip_prefix(root).ok().filter(|p| !p.starts_with("proc/cmdline"))?;
            let mut propagation: Vec<&str> = m.opt_fields.iter().map(propagation).collect();
            propagation.sort();
            let sorted = |options: std::collections::HashMap<String, Option<String>>| {
                let mut options: Vec<String> =
                    options.into_iter().map(|(k, v)| v.map_or(k.clone(), |v| format!("{k}={v}"))).collect();
                options.sort();
                options.join(",")
            };
            let (options, superblock) = (sorted(m.mount_options), sorted(m.super_options));
            let source = m.mount_source.unwrap_or_default();
            let line =
                format!("/{} {source} {} {options} {superblock} {propagation:?}", place.display(), m.root);
            Some(unrandom(&format!("{line} {}", m.fs_type)))
        })
        .collect();
    lines.sort();
    lines
}

fn propagation(field: &MountOptFields) -> &'static str {
    match field {
        MountOptFields::Shared(_) => "shared",
        MountOptFields::Master(_) => "master",
        MountOptFields::PropagateFrom(_) => "propagate_from",
        MountOptFields::Unbindable => "unbindable",
    }
}

/// The six random letters of the transient `/etc` taken out, and the numbers of loop devices.
fn unrandom(text: &str) -> String {
    let text = &unnumbered(&unnumbered(text, "/dev/loop"), "/dev/block/7:");
    let mut parts = text.split("transient-etc.");
    let mut result = parts.next().unwrap().to_string();
    for part in parts {
        result.push_str("transient-etc.XXXXXX");
        result.push_str(&part[6..]);
    }
    result
}

fn unnumbered(text: &str, prefix: &str) -> String {
    let mut parts = text.split(prefix);
    let mut result = parts.next().unwrap().to_string();
    for part in parts {
        result.push_str(prefix);
        result.push('N');
        result.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    result
}

fn theirs(suite: Suite, physical: &str, case: &Case) -> Run {
    let tool = "/usr/lib/ostree/ostree-prepare-root";
    run(suite, physical, case.setup, case.cmdline, &[tool, "/sysroot"])
}

fn ours(suite: Suite, physical: &str, case: &Case, options: &[&str]) -> Run {
    let mut tool = vec!["/bootward", "prepare-root"];
    tool.extend_from_slice(options);
    tool.push("/sysroot");
    run(suite, physical, case.setup, case.cmdline, &tool)
}

/// 2022.7: no `prepare-root.conf`, no `/run/ostree`, nothing in `/run/ostree-booted`.
#[test]
fn equals_debian_12() {
    equals(Suite::Bookworm);
}

/// 2025.2: still binds `/boot`; built without composefs.
#[test]
fn equals_debian_13() {
    equals(Suite::Trixie);
}

/// 2026.4, which is the version that ours follows, with composefs.
#[test]
fn equals_debian_14() {
    equals(Suite::Forky);
}

/// A btrfs has no block device in its files' numbers.
#[test]
fn equals_debian_14_on_btrfs() {
    let case = CASES.iter().find(|c| c.name == "composefs").unwrap();
    let run = compare(Suite::Forky, "btrfs", case);
    assert!(run.outcome.run.contains("systemd/volatile-root l"), "{}", run.outcome.run);
    let root = run.outcome.mounts.iter().find(|m| m.starts_with("/sysroot "));
    assert!(root.is_some_and(|m| m.starts_with("/sysroot composefs / ")), "{root:?}");
}

/// Every difference of the table is in the document, and so is the number of configurations.
#[test]
fn the_document_lists_every_difference() {
    let document =
        include_str!("../../initramfs/prepare-root.md").split_whitespace().collect::<Vec<_>>().join(" ");
    for (_, difference) in CASES.iter().flat_map(|case| case.differs) {
        let (Difference::OracleRefuses(why) | Difference::WeRefuse(why) | Difference::Text(_, _, why)) =
            difference;
        assert!(document.contains(why), "{why}");
    }
    let count = |suite| CASES.iter().filter(|case| case.suites.contains(&suite)).count();
    let counts = [Suite::Forky, Suite::Trixie, Suite::Bookworm].map(count);
    let said = format!("{} with 2026.4, {} with 2025.2, {} with 2022.7", counts[0], counts[1], counts[2]);
    assert!(document.contains(&said), "{said}");
}

fn equals(suite: Suite) {
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.suites.contains(&suite)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    // All of them, so that one run tells of every case that differs.
    let work = || {
        let mut differ = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            if std::panic::catch_unwind(|| compare(suite, physical(suite), case)).is_err() {
                differ.push(case.name);
            }
        }
        differ
    };
    let differ = std::thread::scope(|threads| {
        let workers = [threads.spawn(work), threads.spawn(work)];
        workers.map(|worker| worker.join().unwrap()).concat()
    });
    assert!(differ.is_empty(), "{} of {} differ: {differ:?}", differ.len(), cases.len());
}

fn compare(suite: Suite, physical: &str, case: &Case) -> Run {
    let (theirs, ours) = (theirs(suite, physical, case), ours(suite, physical, case, suite.options()));
    let why = format!("{suite:?} {}\ntheirs: {}\nours: {}", case.name, theirs.stderr, ours.stderr);
    let differs: Vec<Difference> =
        case.differs.iter().filter(|(s, _)| *s == suite).map(|(_, d)| *d).collect();
    match differs.as_slice() {
        [] | [Difference::Text(..), ..] if theirs.outcome.succeeded => {
            assert!(ours.outcome.succeeded, "{why}");
            let mut ours_outcome = translate(&ours.outcome, &differs);
            if suite == Suite::Bookworm {
                old_state(&mut ours_outcome, &ours, &theirs, &why);
            } else {
                compare_booted(&ours, &theirs, suite, &why);
            }
            assert_eq!(ours_outcome, theirs.outcome, "{why}");
            assert_eq!(theirs.before, ours.before, "{why}");
        }
        [] | [Difference::WeRefuse(_)] => {
            assert_eq!(theirs.outcome.succeeded, !differs.is_empty(), "{why}");
            assert!(!ours.outcome.succeeded, "{why}");
            assert_eq!(ours.outcome.mounts, ours.before, "a refusal changes nothing: {why}");
            assert_eq!((ours.outcome.run.as_str(), &ours.booted), ("", &None), "{why}");
            assert!(ours.stderr.starts_with("bootward: prepare-root: "), "{why}");
        }
        [Difference::OracleRefuses(_)] => {
            assert!(!theirs.outcome.succeeded && ours.outcome.succeeded, "{why}");
        }
        _ => panic!("{}: one difference a case", case.name),
    }
    ours
}

/// What 2022.7 leaves in `/run` in the place of ours: a stamp that says read-only, and an empty file.
fn old_state(translated: &mut Outcome, ours: &Run, theirs: &Run, why: &str) {
    let booted = Booted::from_bytes(ours.booted.as_ref().unwrap());
    let stamp = if booted.sysroot_readonly { "ostree-sysroot-ro.stamp f 644 0:0 \n" } else { "" };
    assert_eq!(translated.run, "ostree d 755 0:0 \nostree/.private d 0 0:0 \n", "{why}");
    assert_eq!(theirs.booted.as_deref(), Some(b"".as_slice()), "{why}");
    translated.run = stamp.into();
}

/// Our outcome as the oracle's version would have it. Each difference must show.
fn translate(ours: &Outcome, differs: &[Difference]) -> Outcome {
    let mut text = (ours.mounts.join("\n"), ours.run.clone());
    for difference in differs {
        let Difference::Text(from, to, _) = difference else { panic!("{difference:?} beside texts") };
        assert!(text.0.contains(from) || text.1.contains(from), "{difference:?} does not show");
        text = (text.0.replace(from, to), text.1.replace(from, to));
    }
    let mounts = text.0.lines().map(String::from).collect();
    Outcome { succeeded: ours.succeeded, mounts, run: text.1, slash: ours.slash.clone() }
}

/// The file must be the same: with 2026.4 to the byte, but for the numbers of the device and the random name; 2025.2
/// does not know `root.transient-ro` (since v2025.4) yet.
fn compare_booted(ours: &Run, theirs: &Run, suite: Suite, why: &str) {
    let (ours_booted, theirs_booted) = (ours.booted.as_ref().unwrap(), theirs.booted.as_ref().unwrap());
    assert_eq!((&ours.booted_mode, &theirs.booted_mode), (&Some("644".into()), &Some("644".into())), "{why}");
    let (a, mut b) = (Booted::from_bytes(ours_booted), Booted::from_bytes(theirs_booted));
    assert_eq!(a.device_inode, Some(ours.device_inode), "{why}");
    assert_eq!(b.device_inode, Some(theirs.device_inode), "{why}");
    b.device_inode = a.device_inode;
    assert_eq!(a.transient_etc.is_some(), b.transient_etc.is_some(), "{why}");
    b.transient_etc.clone_from(&a.transient_etc);
    assert_eq!(a, b, "{why}");
    if suite == Suite::Forky {
        let pair = |run: &Run| [run.device_inode.0.to_le_bytes(), run.device_inode.1.to_le_bytes()].concat();
        let (from, to) = (pair(theirs), pair(ours));
        let mut bytes = theirs_booted.clone();
        let at = bytes.windows(16).position(|w| w == from).unwrap();
        bytes[at..at + 16].copy_from_slice(&to);
        let prefix = b"/run/ostree/transient-etc.";
        if let (Some(at), Some(etc)) =
            (bytes.windows(prefix.len()).position(|w| w == prefix), a.transient_etc.as_ref())
        {
            bytes[at..at + etc.len()].copy_from_slice(etc.as_bytes());
        }
        assert_eq!(*ours_booted, bytes, "{why}");
    }
}

/// The file is byte for byte what GLib writes for the same entries in the same order.
#[test]
fn booted_is_what_glib_writes() {
    let python = "import sys
from gi.repository import GLib
V = GLib.Variant
device, inode, readonly, etc = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == 'true', sys.argv[4]
entries = [('backing-root-device-inode', V('(tt)', (device, inode))), ('root.transient', V('b', False)),
    ('root.transient-ro', V('b', False)), ('sysroot-ro', V('b', readonly))]
if etc: entries.append(('transient-etc', V('s', etc)))
array = GLib.VariantBuilder(GLib.VariantType('a{sv}'))
for key, value in entries:
    array.add_value(GLib.Variant.new_dict_entry(V('s', key), V('v', value)))
sys.stdout.buffer.write(array.end().get_data_as_bytes().get_data())";
    let numbers = [(0, 0), (2049, 1_234_567), (u64::MAX, 1 << 63)];
    let long = format!("/run/ostree/{}", "x".repeat(300));
    for etc in ["", "/run/ostree/transient-etc.A1b2C3", &long] {
        for (device, inode) in numbers {
            for sysroot_readonly in [false, true] {
                let booted = Booted {
                    device_inode: Some((device, inode)),
                    sysroot_readonly,
                    transient_etc: (!etc.is_empty()).then(|| etc.into()),
                    ..Booted::default()
                };
                let mut command = Command::new("/usr/bin/python3");
                command.args(["-c", python, &device.to_string(), &inode.to_string()]);
                let output = command.arg(sysroot_readonly.to_string()).arg(etc).output().unwrap();
                let glib = output.stdout.clone();
                done(output, "python3 with python3-gi (install it with apt)");
                assert_eq!(booted.to_bytes(), glib, "{booted:?}");
                assert_eq!(Booted::from_bytes(&glib), booted);
            }
        }
    }
}

/// Without the option, `/boot` is left to the OS, as since v2026.1; nothing else is missing.
#[test]
fn boot_is_bound_only_when_asked() {
    let case = &CASES[0];
    let with = ours(Suite::Trixie, "sysroot", case, &["--bind-boot"]).outcome;
    let mut without = ours(Suite::Trixie, "sysroot", case, &[]).outcome;
    let missing: Vec<&String> = with.mounts.iter().filter(|m| !without.mounts.contains(m)).collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[0].starts_with("/sysroot/boot physical /boot "), "{missing:?}");
    without.mounts.insert(with.mounts.iter().position(|m| m == missing[0]).unwrap(), missing[0].clone());
    assert_eq!(with, without);
}

/// A marker asks for `/var`; 2025.2 could not be asked, because it refuses a `/run/ostree` that exists.
#[test]
fn var_is_bound_with_slave_and_shared() {
    let case = Case {
        name: "var",
        setup: "mkdir -p run/ostree; touch run/ostree/initramfs-mount-var",
        cmdline: "",
        suites: &[],
        differs: &[],
    };
    let run = ours(Suite::Trixie, "sysroot", &case, &[]);
    let var: Vec<&String> = run.outcome.mounts.iter().filter(|m| m.starts_with("/sysroot/var ")).collect();
    assert_eq!(var.len(), 1, "{:?} {}", run.outcome, run.stderr);
    assert!(var[0].contains(" /ostree/deploy/os/var "), "{var:?}");
    assert!(var[0].contains("\"shared\""), "{var:?}");
}

/// Whatever step fails, the mounts, `/run` and `/` are as before, and the next attempt works. The steps are made
/// to fail by what is in their way, in the real tool.
#[test]
fn a_failure_is_undone() {
    let readonly =
        "printf '[etc]\ntransient=true\n[sysroot]\nreadonly=true\n' >usr/lib/ostree/prepare-root.conf;";
    let broken = [
        "mv $deployment/usr/etc $deployment/gone",
        "mv $deployment/usr $deployment/gone",
        "mv $deployment/sysroot $deployment/gone",
        "mv $deployment/../../var $deployment/../../gone",
        "mkdir -p run/ostree-booted/in-the-way",
        "touch run/ostree",
        "mkdir run/ostree; touch run/ostree/.private",
        "touch sysroot.tmp",
        "mkdir sysroot.tmp; mkdir sysroot.tmp/in-the-way",
    ];
    for obstacle in broken {
        let setup =
            format!("{readonly} {obstacle}; find run | sort >$out/run-before; ls -a >$out/slash-before");
        let run = run(Suite::Trixie, "sysroot", &setup, "", &["/bootward", "prepare-root", "/sysroot"]);
        assert!(!run.outcome.succeeded, "{obstacle}");
        assert!(!run.stderr.contains("could not be undone"), "{obstacle}: {}", run.stderr);
        assert_ne!(run.stderr, "", "{obstacle}");
        assert_eq!(run.outcome.mounts, run.before, "{obstacle}: {}", run.stderr);
        let before = |name: &str| fs::read_to_string(run._out.path().join(name)).unwrap();
        assert_eq!(run.outcome.slash, before("slash-before"), "{obstacle}");
        let count =
            before("run-before").lines().filter(|l| !l.ends_with("/ostree-booted") && *l != "run").count();
        assert_eq!(run.outcome.run.lines().count(), count, "{obstacle}: {}", run.outcome.run);
    }
}

/// What a root does that takes changes: directories of the image are renamed (`redirect_dir=on`), content that is among
/// the objects is changed and moved (`metacopy=on`), names are taken away. The same in ours and in libostree's, and
/// the rest is as in the image. Where changes are kept away, nothing of it works.
#[test]
fn a_transient_root_takes_changes() {
    let probe = "cd /sysroot && sum() { /busybox md5sum <$1; }
        try() { \"$@\" && echo $1 ok || echo $1 failed; }
        try sum usr/bin/large; try /busybox mv usr/lib/modules usr/lib/moved; try /busybox find usr/lib
        try /busybox mv usr/bin usr/tools; try sum usr/tools/large; try /busybox sh -c 'echo more >>usr/tools/large'
        try /busybox tail -n 2 usr/tools/large; try /busybox rm usr/etc/os-release; try /busybox ls -a usr/etc
        try /busybox mkdir usr/bin; try /busybox ls -a usr/bin; try /busybox chmod 700 usr/tools/large
        try /busybox stat -c '%a %s' usr/tools/large; cd /run/ostree/.private && /busybox find root ! -path '*/#*' | /busybox sort";
    let test = |name: &'static str, config: &str, changes: bool| {
        let setup = format!("cp /bin/busybox .; printf '{config}' >usr/lib/ostree/prepare-root.conf");
        let ran = |tool: &str| {
            let script = format!("{tool} /sysroot >/dev/null && {{ {probe}; }} 2>&1");
            let run = run(Suite::Forky, "ext4", &setup, "", &["/busybox", "sh", "-c", &script]);
            (fs::read_to_string(run._out.path().join("stdout")).unwrap(), run)
        };
        let (theirs, oracle) = ran("/usr/lib/ostree/ostree-prepare-root");
        let (ours, run) = ran("/bootward prepare-root");
        assert_eq!(ours, theirs, "{name}: {} {}", run.stderr, oracle.stderr);
        // The kernel numbers its own whiteouts.
        let state = |run: &str| run.lines().filter(|l| !l.contains("/#")).collect::<Vec<_>>().join("\n");
        assert_eq!(state(&run.outcome.run), state(&oracle.outcome.run), "{name}");
        assert_eq!(run.outcome.mounts, oracle.outcome.mounts, "{name}");
        println!("{name}:\n{ours}");
        for said in ["usr/lib/moved/6.1.0/vmlinuz\n", "100000\nmore\n", "\n700 588900\n"] {
            assert_eq!(ours.contains(said), changes, "{name}: {said} in {ours}");
        }
        assert_eq!(ours.contains("Read-only file system"), !changes, "{name}: {ours}");
        // `seq 100000 | md5sum`
        assert!(ours.starts_with("dea9193b768319cbb4ff1a137ac03113  -\nsum ok\n"), "{name}: {ours}");
    };
    test("transient", "[composefs]\\nenabled=yes\\n[root]\\ntransient=true\\n", true);
    test("transient-ro", "[composefs]\\nenabled=yes\\n[root]\\ntransient-ro=true\\n", false);
    test("neither", "[composefs]\\nenabled=yes\\n", false);
}

/// The image that the plan asks for is the one that the `fsverity` tool measures, if the commit is signed; signatures
/// are openssl's. This kernel has no fs-verity, so that the image is refused when the plan is carried out; with one
/// it is mounted in tests/vm. Debian's tool is built without ed25519 and is no oracle here.
#[test]
fn a_signed_image_is_the_one_that_the_commit_names() {
    let template = template(Suite::Forky);
    let sysroot = template.directory.path().join("sysroot");
    let deployment = fs::read_dir(sysroot.join("ostree/deploy/os/deploy")).unwrap();
    let names = deployment.map(|e| e.unwrap().file_name().into_string().unwrap());
    let name = names.into_iter().find(|n| n.ends_with(".0")).unwrap();
    let (checksum, image) =
        (&name[..64], sysroot.join(format!("ostree/deploy/os/deploy/{name}/.ostree.cfs")));
    let digest = {
        let place = oracle(Suite::Forky);
        let copy = tempfile::Builder::new().tempfile_in(&place).unwrap();
        fs::copy(&image, copy.path()).unwrap();
        let inside = Path::new("/").join(copy.path().file_name().unwrap());
        let mut command = Command::new("chroot");
        command.arg(&place).args(["/usr/bin/fsverity", "digest", "--compact"]).arg(inside);
        done(command.output().unwrap(), "fsverity").split_whitespace().next().unwrap().to_string()
    };
    let (pair, stranger) = (Pair::new(), Pair::new());
    let commit = commit_of(&sysroot, checksum);
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name).display().to_string();
    fs::write(at("key"), &pair.public).unwrap();
    fs::write(at("good"), detached(&[pair.sign(&commit)])).unwrap();
    fs::write(at("stranger"), detached(&[stranger.sign(&commit)])).unwrap();
    fs::write(at("none"), detached(&[])).unwrap();
    let object = format!("sysroot/ostree/repo/objects/{}/{}", &checksum[..2], &checksum[2..64]);
    let config = format!(
        "printf '[composefs]\\nenabled=signed\\nkeypath=/key\\n' >etc/ostree/prepare-root.conf; cp {} key;",
        at("key")
    );
    let prepare = |setup: &str, options: &[&str]| {
        let mut tool = vec!["/bootward", "prepare-root"];
        tool.extend_from_slice(options);
        tool.push("/sysroot");
        run(Suite::Forky, "ext4", &format!("{config} {setup}"), "", &tool)
    };
    let good = format!("cp {} {object}.commitmeta", at("good"));
    let dry = prepare(&good, &["--dry-run"]);
    let plan = fs::read_to_string(dry._out.path().join("stdout")).unwrap();
    assert!(plan.contains(&format!("if its fs-verity digest is {digest}\n")), "{plan} {}", dry.stderr);
    assert!(plan.contains(",verity=require on "), "{plan}");
    for (why, setup, said) in [
        ("no fs-verity", good.clone(), "fs-verity"),
        ("not signed", String::new(), "not signed"),
        ("nobody's signature", format!("cp {} {object}.commitmeta", at("none")), "empty list"),
        (
            "a stranger's signature",
            format!("cp {} {object}.commitmeta", at("stranger")),
            "none of 1 signatures",
        ),
        ("changed commit", format!("{good}; printf x >>{object}.commit"), "has another checksum"),
        ("commit gone", format!("{good}; rm {object}.commit"), "No such file"),
        (
            "hotfix does not help",
            format!("{good}; mkdir $deployment/.usr-ovl-upper $deployment/.usr-ovl-work"),
            "fs-verity",
        ),
        ("keys that are none", format!("{good}; echo key >key"), "line 1"),
        ("no image", format!("{good}; rm $deployment/.ostree.cfs"), "no composefs image"),
    ] {
        let run = prepare(&setup, &[]);
        assert!(!run.outcome.succeeded && run.stderr.contains(said), "{why}: {}", run.stderr);
        assert_eq!(run.outcome.mounts, run.before, "{why}: {}", run.stderr);
        assert_eq!((run.outcome.run.as_str(), run.booted), ("", None), "{why}");
    }
}

#[test]
fn scripts_are_executable() {
    for name in ["prepare-oracle.sh", "prepare-run.sh", "prepare-sysroot.sh"] {
        assert_ne!(fs::metadata(script(name)).unwrap().permissions().mode() & 0o111, 0, "{name}");
    }
}

/// A plan that fails after each of its steps is undone; then the whole plan is carried out and undone; then it
/// works again. Runs itself in a namespace, see [`undo_inside`].
#[test]
fn every_step_is_undone() {
    let copy = tempfile::NamedTempFile::new_in(lab()).unwrap();
    fs::copy(template(Suite::Forky).directory.path().join("ext4"), copy.path()).unwrap();
    inside("prepare::undo_inside", copy.path().to_str().unwrap(), &[]);
}

/// The real init runs as PID 1 of the new root, with the initramfs freed and foreign files still open.
#[test]
fn hand_over_runs_init() {
    let text = inside("prepare::hand_over_inside", "", &["-p", "-f"]);
    assert!(text.contains("INIT pid=1 args=one two env=yes"), "{text}");
    assert!(text.contains("INIT fd9=open"), "{text}");
    assert!(text.contains("INIT root=[bin dev etc proc run sbin sys sysroot]"), "{text}");
    // Another filesystem is mounted in the initramfs: it and the directories above it stay.
    assert!(text.contains("INIT old=[. ./old ./old/kept ./old/kept/file]"), "{text}");
    assert!(text.contains("INIT mounts=dev proc run sys"), "{text}");
}

/// Runs the ignored test `name` of this file in a mount namespace (and more, with `options`).
fn inside(name: &str, environment: &str, options: &[&str]) -> String {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts: run it as root");
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private"]).args(options);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--ignored", "--nocapture"]);
    command.env("BOOTWARD_INSIDE", "1").env("BOOTWARD_ARGUMENT", environment);
    done(command.output().unwrap(), name)
}

fn shell(text: &str) {
    done(Command::new("sh").args(["-euc", text]).output().unwrap(), text);
}

fn own_mounts() -> Vec<String> {
    mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap(), Path::new("/"))
}

#[test]
#[ignore = "run by every_step_is_undone in a namespace of its own"]
fn undo_inside() {
    use bootward::mounts::apply::{Cause, apply};
    use bootward::mounts::plan::{Facts, Plan, Step};
    use bootward::mounts::settings::{Composefs, RootTransient, Settings};

    assert!(std::env::var_os("BOOTWARD_INSIDE").is_some(), "only in a namespace");
    // An initramfs at /mnt would not do: plans name /run and /sysroot.tmp. So this namespace gets a new root.
    shell(
        "mount -t tmpfs root /mnt; cd /mnt; mkdir -p run proc dev sysroot usr bin lib lib64 etc tmp
        for d in usr bin lib lib64 etc dev; do mount --rbind /$d $d; done
        mount -t proc proc proc; mount -t tmpfs run run
        mount -o loop,nodev \"$BOOTWARD_ARGUMENT\" sysroot; mount -t tmpfs boot sysroot/boot",
    );
    nix::unistd::chroot("/mnt").unwrap();
    nix::unistd::chdir("/").unwrap();
    let name = fs::read_dir("/sysroot/ostree/deploy/os/deploy").unwrap().map(|e| e.unwrap().file_name());
    let name = name.map(|n| n.into_string().unwrap()).find(|n| n.ends_with(".0")).unwrap();
    // The root of a chroot is no mount root here unless /mnt is one, and it is.
    let facts = Facts {
        sysroot: "/sysroot".into(),
        deployment: format!("ostree/deploy/os/deploy/{name}"),
        bind_boot: true,
        bind_var: true,
        transient_etc: "/run/ostree/transient-etc.abcdef".into(),
        composefs_image: true,
        device: Some("/dev/block/8:1".into()),
        ..Facts::default()
    };
    let listing = || {
        let output = Command::new("find").args(["/run", "/sysroot", "-xdev"]).output().unwrap();
        let mut lines: Vec<String> = done(output, "find").lines().map(String::from).collect();
        lines.extend(fs::read_dir("/").unwrap().map(|e| e.unwrap().path().display().to_string()));
        lines.sort();
        lines
    };
    let classic = Settings { sysroot_readonly: true, ..Settings::default() };
    let composefs = Settings { composefs: Composefs::Yes, ..classic.clone() };
    for (case, settings) in [
        ("classic", classic.clone()),
        ("transient etc", Settings { etc_transient: true, ..classic }),
        ("composefs", composefs.clone()),
        ("transient root", Settings { root_transient: RootTransient::Writable, ..composefs.clone() }),
        ("both", Settings { root_transient: RootTransient::ReadOnly, etc_transient: true, ..composefs }),
    ] {
        println!("{case}");
        let plan = Plan::new(&settings, &facts).unwrap();
        let before = (own_mounts(), listing());
        for cut in 0..=plan.steps.len() {
            let mut steps = plan.steps[..cut].to_vec();
            steps.push(Step::Bind { from: "/nowhere".into(), to: "/sysroot".into() });
            let error = apply(&Plan { steps }).unwrap_err();
            assert!(error.left.is_none(), "step {cut}: {error}");
            assert_eq!(error.cause, Cause::Kernel(nix::errno::Errno::ENOENT), "step {cut}: {error}");
            assert_eq!((own_mounts(), listing()), before, "step {cut}");
        }
        let applied = apply(&plan).unwrap();
        assert_ne!(own_mounts(), before.0);
        applied.undo().unwrap();
        assert_eq!((own_mounts(), listing()), before);
    }
}

#[test]
#[ignore = "run by hand_over_runs_init in namespaces of its own"]
fn hand_over_inside() {
    use bootward::mounts::switch_root::{Error, HandOver};
    use bootward::sysroot::init::InitFault;
    use std::ffi::CString;
    use std::os::fd::AsRawFd;

    assert!(std::env::var_os("BOOTWARD_INSIDE").is_some(), "only in a namespace");
    assert_eq!(std::process::id(), 1);
    shell(
        "mount -t tmpfs root /mnt; cd /mnt; mkdir -p run proc dev sys old/deep sysroot
        echo x >old/deep/file; mount -t proc proc proc; mount -t tmpfs run run; mount -t tmpfs dev dev
        mount -t tmpfs sys sys; mount -t tmpfs new sysroot; mkdir old/kept; mount -t tmpfs kept old/kept
        echo kept >old/kept/file; cd sysroot; mkdir bin sbin dev proc sys run sysroot etc
        cp \"$(command -v busybox)\" bin/busybox; ln -s busybox bin/sh; ln -s /sbin/real sbin/init
        cp /etc/hostname etc/plain; chmod 644 etc/plain; printf '#!/bin/none\n' >sbin/lost
        head -c 64 bin/busybox >sbin/foreign; printf '\\025\\001' | dd of=sbin/foreign bs=1 seek=18 conv=notrunc 2>/dev/null
        cat >sbin/real <<'END'
#!/bin/sh
b=/bin/busybox
echo \"INIT pid=$$ args=$* env=$KEPT\"
if (: >&9) 2>/dev/null; then echo INIT fd9=open; fi
echo INIT root=[$($b ls /)]
echo INIT old=[$(cd /proc/self/fd/$OLD/ && $b find . | $b sort)]
echo INIT mounts=$($b awk '$2 ~ /^.(dev|proc|sys|run)$/ { print substr($2, 2) }' /proc/self/mounts | $b sort)
END
        chmod 755 sbin/real sbin/lost sbin/foreign",
    );
    let watchdog = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    nix::unistd::chroot("/mnt").unwrap();
    nix::unistd::chdir("/").unwrap();
    let file = nix::unistd::dup(&watchdog).unwrap();
    assert!(file.as_raw_fd() < 9, "file 9 is free");
    let nine = (0..9).map(|_| nix::unistd::dup(&watchdog).unwrap()).collect::<Vec<_>>();
    assert!(nine.iter().any(|f| f.as_raw_fd() == 9));

    // Without close-on-exec, so that init can look at what is left of the initramfs.
    let old = nix::unistd::dup(fs::File::open("/").unwrap()).unwrap();

    let root = Path::new("/sysroot");
    let refused = |init: &str| HandOver::check(root, init).unwrap_err();
    assert!(matches!(refused("sbin/init"), Error::NotAbsolute(_)));
    assert!(matches!(refused("/sbin/none"), Error::Init(InitFault::Missing(_))));
    assert!(matches!(refused("/etc/plain"), Error::Init(InitFault::NotExecutable(_))));
    assert!(matches!(refused("/sbin"), Error::Init(InitFault::NotFile(_))));
    assert!(matches!(refused("/sbin/lost"), Error::Init(InitFault::Interpreter(..))));
    assert!(matches!(refused("/sbin/foreign"), Error::Init(InitFault::ForeignMachine(..))));
    assert!(matches!(HandOver::check(Path::new("/old"), "/sbin/init"), Err(Error::NotAMount(_))));

    let hand_over = HandOver::check(root, "/sbin/init").unwrap();
    let arguments: Vec<CString> = ["init", "one", "two"].map(|a| CString::new(a).unwrap()).into();
    let environment = [CString::new("KEPT=yes"), CString::new(format!("OLD={}", old.as_raw_fd()))];
    let environment = environment.map(Result::unwrap);
    let error = hand_over.commit(&arguments, &environment);
    panic!("{error}");
}
