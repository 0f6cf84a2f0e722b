//! Deployments against `ostree admin deploy`: random trees and random histories of `/etc`, the same on two copies of a
//! sysroot, and every attribute of what comes of it compared.
//!
//! What may differ: the old loader directory and boot links, which stay with us until a boot was confirmed; our own files
//! (`ostree/bootward`, the lock); `backing`, which libostree has since 2024; the time of change of empty files, 0 with us
//! as of all others; times of what was made just now.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bootward::storage::{At, Trees};
use bootward::sys::files::Disk;

use crate::fixture::{PLAIN, Style, make_tree, ostree};

/// A small generator: the same seed makes the same trees.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const NAMES: [&str; 12] =
    ["a", "b", "c.conf", "d", "e", "größe", "a b", "x=1", "-f", "f.d", "long", "\u{65e5}\u{672c}"];

fn name(random: &mut Random) -> String {
    let name = NAMES[random.below(NAMES.len())];
    if name == "long" { "n".repeat(255) } else { name.into() }
}

/// A thing of a random kind where nothing is.
fn thing(random: &mut Random, at: &Path, depth: usize) {
    match random.below(8) {
        0 | 1 if depth < 4 => {
            fs::create_dir(at).unwrap();
            fill(random, at, depth + 1);
        }
        2 => return symlink(["a", "../b", "/etc/c", "nowhere"][random.below(4)], at).unwrap(),
        3 => fs::write(at, "").unwrap(),
        _ => fs::write(at, format!("content {}\n", random.below(20)).repeat(1 + random.below(40))).unwrap(),
    }
    dress(random, at);
}

fn dress(random: &mut Random, at: &Path) {
    if random.one_in(4) {
        chown(at, Some(random.below(3) as u32), Some(random.below(3) as u32)).unwrap();
    }
    let modes = if at.is_dir() { [0o755, 0o700, 0o1777, 0o2775] } else { [0o644, 0o600, 0o4755, 0o755] };
    fs::set_permissions(at, fs::Permissions::from_mode(modes[random.below(4)])).unwrap();
    if random.one_in(6) {
        let value = format!("v{}", random.below(3));
        let done = Command::new("setfattr").args(["-n", "user.test", "-v", &value]).arg(at).status();
        assert!(done.unwrap().success());
    }
    let file = fs::File::open(at).unwrap();
    let old =
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000 + random.below(1000) as u64);
    file.set_modified(old).unwrap();
}

fn fill(random: &mut Random, above: &Path, depth: usize) {
    for _ in 0..1 + random.below(6) {
        let at = above.join(name(random));
        if at.symlink_metadata().is_err() {
            thing(random, &at, depth);
        }
    }
}

fn remove(at: &Path) {
    if at.symlink_metadata().unwrap().is_dir() { fs::remove_dir_all(at) } else { fs::remove_file(at) }
        .unwrap();
}

fn names(above: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(above).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// Changes some of what is in a directory: contents, types, modes, removals, additions.
fn change(random: &mut Random, above: &Path, depth: usize) {
    for at in names(above) {
        match random.below(9) {
            0 => remove(&at),
            1 => {
                remove(&at);
                thing(random, &at, depth);
            }
            2 if !at.is_symlink() => dress(random, &at),
            3 if at.is_file() && !at.is_symlink() => {
                fs::write(&at, "changed").unwrap();
                dress(random, &at);
            }
            4..7 if at.is_dir() && !at.is_symlink() => change(random, &at, depth + 1),
            _ => {}
        }
    }
    if random.one_in(3) {
        fill(random, above, depth);
    }
}

fn bootward(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bootward"));
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments").args(arguments).output().unwrap()
}

fn try_ostree(arguments: &[&str]) -> Output {
    let mut command = Command::new("ostree");
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments").env("OSTREE_BOOTID", "test");
    command.args(arguments).output().unwrap()
}

/// Everything of a sysroot that counts, a line each.
fn all(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut disk = Disk::open(root, &root.join("boot")).unwrap();
    walk(root, "", &mut disk, &mut found);
    found
}

fn walk(root: &Path, path: &str, disk: &mut Disk, found: &mut BTreeMap<String, String>) {
    for at in names(&root.join(path)) {
        let name = at.file_name().unwrap().to_str().unwrap();
        let path = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
        let ours = ["ostree/bootward", "ostree/lock", "ostree/repo/tmp", "ostree/repo/.lock"];
        if ours.contains(&path.as_str()) || name == "backing" {
            continue;
        }
        let stat = at.symlink_metadata().unwrap();
        let meta = disk.meta(&At::root(path.clone())).unwrap();
        let mut line = format!("{:o} {}:{} {:?}", meta.mode, meta.uid, meta.gid, meta.attributes);
        if stat.is_symlink() {
            line += &format!(" -> {}", fs::read_link(&at).unwrap().display());
        } else if stat.is_file() {
            line += &format!(" {:?}", String::from_utf8_lossy(&fs::read(&at).unwrap()));
            if stat.mtime() < 1_500_000_000 && stat.len() > 0 {
                line += &format!(" of {}", stat.mtime());
            }
        }
        // Links of objects: that the deployment shares them. Empty files are copies, and libostree copies directories of
        // device trees to /boot, where we make links as for all else.
        // A kernel that went stays in /boot with us as long as a bootloader may see the old entries.
        let boots = ["\"a board", "\"another board", "\"kernel ", "\"initramfs ", "\"a device tree"];
        let tree = boots.iter().any(|content| line.contains(content));
        if !stat.is_dir() && stat.len() > 0 && !tree {
            line += &format!(" links {}", stat.nlink());
        }
        // The first entry of all is named as libostree names it since 2024.5; later ones follow what is there.
        found.insert(path.replace("-demo.conf", ".conf"), line);
        if stat.is_dir() {
            walk(root, &path, disk, found);
        }
    }
}

/// What counts of a sysroot: the active boot version and its active half, under a name without its number.
fn active(root: &Path) -> BTreeMap<String, String> {
    let found = all(root);
    let link = |path: &str| fs::read_link(root.join(path)).unwrap().to_str().unwrap().to_string();
    let version = link("boot/loader").strip_prefix("loader.").unwrap().to_string();
    let half = link(&format!("ostree/boot.{version}"));
    let refs = half.replace("boot.", "ostree/repo/refs/heads/ostree/").replace('.', "/");
    let uenv = fs::read_to_string(root.join("boot/loader/uEnv.txt")).unwrap();
    let mut counts = BTreeMap::new();
    for (path, line) in found {
        let links = path.strip_prefix("ostree/boot.");
        let old = links.is_some_and(|l| {
            !l.starts_with(&version) || l.len() > 1 && !path.starts_with(&format!("ostree/{half}"))
        }) || path.starts_with("boot/loader.")
            && !path.starts_with(&format!("boot/loader.{version}"))
            || path.starts_with("ostree/repo/refs/heads/ostree/") && !path.starts_with(&refs);
        let kernel = path.strip_prefix("boot/ostree/").and_then(|rest| rest.split('/').next());
        if !old && kernel.is_none_or(|kernel| uenv.contains(kernel)) {
            let path = path.replace(&format!("ostree/{half}"), "ostree/boot.V.S").replace(&refs, "refs/V/S");
            counts.insert(path, line.replace(&half, "boot.V.S"));
        }
    }
    counts
}

/// What differs, but for what may.
pub fn differences(ours: &Path, theirs: &Path) -> Vec<String> {
    let (ours, theirs) = (active(ours), active(theirs));
    let mut all: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    all.sort();
    all.dedup();
    let differ = all.into_iter().filter(|path| ours.get(*path) != theirs.get(*path));
    differ
        .map(|path| format!("{path}\n  ours   {:?}\n  theirs {:?}", ours.get(path), theirs.get(path)))
        .collect()
}

/// Two sysroots that `ostree` made, the same to the byte.
pub struct Pair {
    pub keep: tempfile::TempDir,
}

impl Pair {
    pub fn ours(&self) -> PathBuf {
        self.keep.path().join("ours")
    }

    pub fn theirs(&self) -> PathBuf {
        self.keep.path().join("theirs")
    }

    pub fn both(&self) -> [PathBuf; 2] {
        [self.ours(), self.theirs()]
    }

    pub fn make() -> Self {
        let pair = Pair { keep: tempfile::tempdir().unwrap() };
        let at = pair.ours();
        fs::create_dir(&at).unwrap();
        let text = at.to_str().unwrap();
        ostree(&["admin", "init-fs", "--modern", text]);
        ostree(&["admin", "os-init", "--sysroot", text, "demo"]);
        fs::create_dir(at.join("boot/loader.0")).unwrap();
        symlink("loader.0", at.join("boot/loader")).unwrap();
        fs::write(at.join("boot/loader/uEnv.txt"), "").unwrap();
        // What SELinux's libostree leaves in any case.
        fs::write(at.join("ostree/deploy/demo/var/.ostree-selabeled"), "").unwrap();
        let copied = Command::new("cp").arg("-a").arg(&at).arg(pair.theirs()).status().unwrap();
        assert!(copied.success());
        pair
    }

    /// Commits a tree to both, and says under which name.
    pub fn commit(&self, tree: &Path, version: usize) -> String {
        let mut names = Vec::new();
        for root in self.both() {
            let repo = format!("--repo={}/ostree/repo", root.display());
            let tree = format!("--tree=dir={}", tree.display());
            let version = format!("--add-metadata-string=version=v{version}");
            let time = "--timestamp=2020-01-01T00:00:00Z";
            names.push(ostree(&["commit", &repo, "-b", "demo/stable", "-s", "x", time, &version, &tree]));
        }
        assert_eq!(names[0], names[1]);
        names[0].trim().into()
    }
}

/// A tree with a kernel, and random things in `/usr` and `/etc`.
pub fn tree(random: &mut Random, at: &Path, version: usize) {
    if at.exists() {
        // The next version of it.
        fs::remove_dir_all(at.join("usr/lib/modules")).unwrap();
        for part in ["usr/share", "usr/etc"] {
            change(random, &at.join(part), 1);
        }
    } else {
        fs::create_dir_all(at.join("usr/share")).unwrap();
    }
    let same_kernel = random.one_in(2);
    let style = Style { same_kernel, devicetree: random.one_in(2), ..PLAIN };
    for fixed in ["sbin", "usr/etc/config"].map(|path| at.join(path)) {
        if fixed.symlink_metadata().is_ok() {
            remove(&fixed);
        }
    }
    make_tree(at, &style, &version.to_string());
    if random.one_in(2) {
        let release = names(&at.join("usr/lib/modules"))[0].clone();
        if !style.devicetree {
            fs::create_dir_all(release.join("dtb/vendor")).unwrap();
            fs::write(release.join("dtb/vendor/board.dtb"), format!("a board {version}")).unwrap();
            fs::write(release.join("dtb/other.dtb"), "another board").unwrap();
        }
    }
    for part in ["usr/share", "usr/etc"] {
        fill(random, &at.join(part), 0);
    }
}

fn history(seed: u64) -> (usize, usize) {
    let mut random = Random::new(seed);
    let pair = Pair::make();
    let [ours, theirs] = pair.both();
    let (at, other) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    let made = pair.keep.path().join("tree");
    let (mut deployed, mut refused) = (0, 0);
    for step in 0..5 {
        tree(&mut random, &made, step);
        pair.commit(&made, step);
        let mut arguments = vec!["--karg-append=quiet"];
        if step > 0 {
            arguments = [
                vec![],
                vec!["--karg=quiet=1"],
                vec!["--karg-delete=quiet"],
                vec!["--no-merge", "--karg=a=b"],
            ][random.below(4)]
            .clone();
            let uenv = fs::read_to_string(theirs.join("boot/loader/uEnv.txt")).unwrap();
            let line = uenv.lines().find(|l| l.starts_with("bootargs=")).unwrap();
            // Deleting what is not there is an error of libostree's before 2023.
            if !line["bootargs=".len()..].split(' ').any(|a| a == "quiet") {
                arguments.retain(|a| !a.starts_with("--karg-delete"));
            }
            let seed = random.below(1 << 30) as u64;
            for root in pair.both() {
                let mut random = Random::new(seed);
                let status = ostree(&["admin", "status", "--sysroot", root.to_str().unwrap()]);
                let name = status.split_whitespace().nth(1).unwrap();
                change(&mut random, &root.join("ostree/deploy/demo/deploy").join(name).join("etc"), 1);
            }
        }
        if random.one_in(3) {
            arguments.push("--retain");
        }
        let mut call = vec!["admin", "deploy", "--sysroot", other, "--os=demo"];
        call.extend(&arguments);
        call.push("demo/stable");
        let they = try_ostree(&call);
        let mut call = vec!["deploy", "--sysroot", at, "--stateroot", "demo"];
        call.extend(&arguments);
        call.push("demo/stable");
        let we = bootward(&call);
        let said = String::from_utf8_lossy(&we.stderr);
        if !they.status.success() {
            // What they cannot merge, we cannot either, or what they stumble over is gone already.
            let why = String::from_utf8_lossy(&they.stderr);
            println!("seed {seed}, step {step}: {} | {}", why.trim(), said.trim());
            assert!(why.contains("/etc merge"), "seed {seed}, step {step}: {why}");
            refused += 1;
            return (deployed, refused);
        }
        assert!(we.status.success(), "seed {seed}, step {step}: {said}");
        deployed += 1;
        let differ = differences(&ours, &theirs);
        assert!(differ.is_empty(), "seed {seed}, step {step} {arguments:?}:\n{}", differ.join("\n"));
        assert_eq!(
            ostree(&["admin", "status", "--sysroot", at]),
            ostree(&["admin", "status", "--sysroot", other]),
            "seed {seed}, step {step}"
        );
        ostree(&["fsck", &format!("--repo={at}/ostree/repo")]);
        let two = ostree(&["admin", "status", "--sysroot", other]).matches("refspec").count() > 1;
        if two && random.one_in(3) {
            for root in [at, other] {
                ostree(&["admin", "undeploy", "--sysroot", root, "1"]);
            }
        }
    }
    fs::write(made.join("usr/lib/last"), "the last one").unwrap();
    pair.commit(&made, 9);
    for root in [at, other] {
        ostree(&["admin", "upgrade", "--sysroot", root, "--os=demo"]);
        ostree(&["admin", "undeploy", "--sysroot", root, "0"]);
        ostree(&["admin", "cleanup", "--sysroot", root]);
    }
    let differ = differences(&ours, &theirs);
    assert!(differ.is_empty(), "seed {seed}, in the end:\n{}", differ.join("\n"));
    (deployed, refused)
}

#[test]
fn deploying_makes_what_ostree_makes() {
    let first: u64 = std::env::var("BOOTWARD_SEED").map_or(1, |seed| seed.parse().unwrap());
    let count: u64 = std::env::var("BOOTWARD_SEEDS").map_or(4, |count| count.parse().unwrap());
    let (mut deployed, mut refused) = (0, 0);
    for seed in first..first + count {
        let (more, no) = history(seed);
        deployed += more;
        refused += no;
    }
    println!("seeds {first} to {}: {deployed} deployments, {refused} refused by both", first + count - 1);
    assert!(deployed as u64 >= 2 * count);
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn init_fs_makes_what_ostree_makes() {
    let keep = tempfile::tempdir().unwrap();
    let (ours, theirs) = (keep.path().join("ours"), keep.path().join("theirs"));
    for root in [&ours, &theirs] {
        fs::create_dir(root).unwrap();
    }
    let (at, other) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    for _ in 0..2 {
        let made = bootward(&["init-fs", "--sysroot", at, "--stateroot", "demo", "--bootloader", "uboot"]);
        assert!(made.status.success(), "{}", said(&made));
    }
    ostree(&["admin", "init-fs", "--modern", other]);
    ostree(&["admin", "os-init", "--sysroot", other, "demo"]);
    fs::create_dir(theirs.join("boot/loader.0")).unwrap();
    symlink("loader.0", theirs.join("boot/loader")).unwrap();
    fs::write(theirs.join("boot/loader/uEnv.txt"), "").unwrap();
    let (mut we, mut they) = (all(&ours), all(&theirs));
    // What libostree before 2023 puts into /var at once and later versions with the first deployment.
    they.retain(|path, _| !path.starts_with("ostree/deploy/demo/var/"));
    for found in [&mut we, &mut they] {
        for line in found.values_mut() {
            *line = line.split(" of ").next().unwrap().to_string();
        }
    }
    assert_eq!(we, they);
    // From there to a system: by us, and then by ostree.
    let made = keep.path().join("tree");
    make_tree(&made, &PLAIN, "1");
    fs::create_dir_all(made.join("var/lib/app")).unwrap();
    let repo = format!("--repo={at}/ostree/repo");
    ostree(&["commit", &repo, "-b", "main", "-s", "x", &format!("--tree=dir={}", made.display())]);
    let done = bootward(&["deploy", "--sysroot", at, "--stateroot", "demo", "--karg=rw", "main"]);
    assert!(done.status.success(), "{}", said(&done));
    for (name, mode) in [("lib/app", 0o755), ("tmp", 0o1777), ("log", 0o755)] {
        let stat = fs::metadata(ours.join("ostree/deploy/demo/var").join(name)).unwrap();
        assert_eq!(stat.mode() & 0o7777, mode, "{name}");
    }
    ostree(&["fsck", &repo]);
    ostree(&["admin", "deploy", "--sysroot", at, "--os=demo", "main"]);
    assert_eq!(ostree(&["admin", "status", "--sysroot", at]).matches("refspec: main").count(), 2);
}

#[test]
fn what_must_not_be_deployed_is_refused() {
    let pair = Pair::make();
    let root = pair.ours();
    let at = root.to_str().unwrap();
    let made = pair.keep.path().join("tree");
    tree(&mut Random::new(7), &made, 1);
    let commit = pair.commit(&made, 1);
    let call =
        |more: &[&str]| bootward(&[&["deploy", "--sysroot", at, "--stateroot", "demo"], more].concat());
    let before = all(&root);
    let refused = |more: &[&str], why: &str| {
        let done = call(more);
        assert!(!done.status.success() && said(&done).contains(why), "{more:?}: {}", said(&done));
    };
    refused(&["nothing"], "no ref or commit");
    refused(&["../heads/demo/stable"], "no ref or commit");
    refused(&["--stateroot", "other", "demo/stable"], "no stateroot");
    let keys = pair.keep.path().join("keys");
    fs::write(&keys, "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n").unwrap();
    refused(&["--keys", keys.to_str().unwrap(), "demo/stable"], "sign");
    let dry = call(&["--dry-run", "demo/stable"]);
    assert!(dry.status.success() && said(&dry).contains("would swap"), "{}", said(&dry));
    fs::create_dir_all(root.join("ostree/bootward")).unwrap();
    fs::write(root.join("ostree/bootward/rejected"), format!("{commit} 5 it hung\n")).unwrap();
    refused(&["demo/stable"], "it hung");
    assert_eq!(all(&root), before);
    // An object that is damaged where no directory is looked at: found when the new deployment is compared.
    let file =
        walk_objects(&root).into_iter().find(|p| fs::read(p).is_ok_and(|c| c.starts_with(b"NAME=demo")));
    let content = fs::read(file.as_ref().unwrap()).unwrap();
    fs::write(file.as_ref().unwrap(), b"x".repeat(content.len())).unwrap();
    refused(&["--force", "demo/stable"], "not what the commit says");
    assert!(!ostree(&["admin", "status", "--sysroot", at]).contains("demo "));
    fs::write(file.as_ref().unwrap(), content).unwrap();
    let done = call(&["--force", "--json", "demo/stable"]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(ostree(&["admin", "status", "--sysroot", at]).contains(&commit));
}

fn walk_objects(root: &Path) -> Vec<PathBuf> {
    names(&root.join("ostree/repo/objects")).iter().flat_map(|above| names(above)).collect()
}

/// A filesystem of its own, in a file, for as long as it lives.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", said(&done));
}

/// Fills a filesystem but for so many blocks of 4 kB.
fn fill_up(root: &Path, left: u64) {
    let stat = nix::sys::statvfs::statvfs(root).unwrap();
    let free = stat.blocks_available() * stat.fragment_size() / 4096;
    let at = root.join("filler");
    let size = free.saturating_sub(left) * 4096;
    run("fallocate", &["-l", &size.max(4096).to_string(), at.to_str().unwrap()]);
}

#[test]
fn a_full_disk_at_every_level_loses_nothing() {
    let pair = Pair::make();
    let made = pair.keep.path().join("tree");
    let mut random = Random::new(3);
    tree(&mut random, &made, 1);
    pair.commit(&made, 1);
    let root = pair.ours();
    ostree(&["admin", "deploy", "--sysroot", root.to_str().unwrap(), "--os=demo", "demo/stable"]);
    fs::write(made.join("usr/etc/new"), "new".repeat(5000)).unwrap();
    pair.commit(&made, 2);
    let (mut room, mut full, mut done) = (0, 0, 0);
    for left in [0, 20, 60, 150, 155, 160, 165, 170, 175, 180, 200, 2000] {
        let image = pair.keep.path().join("image");
        let at = pair.keep.path().join("mounted");
        fs::create_dir_all(&at).unwrap();
        let (image, text) = (image.to_str().unwrap().to_string(), at.to_str().unwrap().to_string());
        let _ = fs::remove_file(&image);
        run("truncate", &["-s", "32M", &image]);
        run("mkfs.ext4", &["-q", "-m", "0", "-d", root.to_str().unwrap(), &image]);
        run("mount", &["-o", "loop", &image, &text]);
        let mounted = Mounted(at.clone());
        fill_up(&at, left);
        let before = ostree(&["admin", "status", "--sysroot", &text]);
        let call = ["deploy", "--sysroot", &text, "--stateroot", "demo", "demo/stable"];
        let output = bootward(&call);
        let said = said(&output);
        let now = ostree(&["admin", "status", "--sysroot", &text]);
        match output.status.success() {
            true => {
                done += 1;
                assert_ne!(before, now, "{left} blocks: {said}");
            }
            false => {
                assert_eq!(before, now, "{left} blocks: {said}");
                room += usize::from(said.contains("not enough room"));
                full += usize::from(said.contains("No space"));
                assert!(
                    said.contains("not enough room") || said.contains("No space"),
                    "{left} blocks: {said}"
                );
                fs::remove_file(at.join("filler")).unwrap();
                let again = bootward(&call);
                assert!(again.status.success(), "{left} blocks, again: {:?}", again);
            }
        }
        ostree(&["fsck", &format!("--repo={text}/ostree/repo")]);
        drop(mounted);
    }
    println!("{done} deployed, {room} refused before anything was written, {full} ran full");
    assert!(done > 0 && room > 0);
}
