//! The composefs image of a deployment: libostree's own (2026.4, of Debian's testing) is the oracle, byte for byte.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::composefs::verity::Measure;
use bootward::deploy::image as deployed;
use bootward::deploy::objects::Objects;
use bootward::ostree::{Checksum, Commit};
use bootward::storage::At;
use bootward::sys::files::Disk;

use crate::deploy::Random;
use crate::fixture::{PLAIN, make_tree};
use crate::prepare::Suite;
use crate::verify_trees::ostree;

fn must(arguments: &[&str]) -> String {
    let out = ostree(Suite::Forky, arguments);
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_string()
}

fn shell(script: &str, at: &Path) {
    assert!(Command::new("sh").args(["-ec", script]).current_dir(at).status().unwrap().success(), "{script}");
}

struct Lab {
    keep: tempfile::TempDir,
}

impl Lab {
    fn new(mode: &str) -> Lab {
        let keep = tempfile::tempdir().unwrap();
        fs::create_dir_all(keep.path().join("ostree")).unwrap();
        fs::create_dir(keep.path().join("tree")).unwrap();
        let lab = Lab { keep };
        must(&["init", &lab.repo(), &format!("--mode={mode}")]);
        lab
    }

    fn repo(&self) -> String {
        format!("--repo={}", self.keep.path().join("ostree/repo").display())
    }

    fn tree(&self) -> PathBuf {
        self.keep.path().join("tree")
    }

    /// Commits the tree, and compares both images, with and without the digests of files.
    fn compare(&self, options: &[&str], name: &str) -> usize {
        let tree = format!("--tree=dir={}", self.tree().display());
        let repo = self.repo();
        let commit = must(&[&["commit", &repo, "-b", "os", &tree], options].concat());
        let checksum = Checksum::parse(&commit).unwrap();
        let object =
            self.keep.path().join(format!("ostree/repo/objects/{}/{}.commit", &commit[..2], &commit[2..]));
        let object = Commit::parse(fs::read(object).unwrap()).unwrap();
        assert_eq!(object.checksum(), checksum);
        let mut length = 0;
        for digests in [true, false] {
            let theirs = self.keep.path().join("theirs");
            let option = if digests { "--composefs" } else { "--composefs-noverity" };
            must(&["checkout", &repo, option, &commit, theirs.to_str().unwrap()]);
            let theirs = fs::read(theirs).unwrap();
            let (ours, digest) = self.ours(&object, digests);
            let first = ours.iter().zip(&theirs).position(|(one, other)| one != other);
            assert_eq!((first, ours.len()), (None, theirs.len()), "{name}, digests {digests}");
            assert_eq!(digest, measured(&theirs), "{name}");
            length = ours.len();
            let _ = fs::remove_file(self.keep.path().join("theirs"));
        }
        length
    }

    fn ours(&self, commit: &Commit, digests: bool) -> (Vec<u8>, [u8; 32]) {
        let mut disk = Disk::open(self.keep.path(), self.keep.path()).unwrap();
        let mut objects = Objects::open(&mut disk).unwrap();
        let wanted = deployed::Wanted { seal: deployed::Want::No, digests };
        let at = At::root("ours");
        let digest = deployed::make(&mut disk, &mut objects, commit, wanted, &at).unwrap();
        let file = self.keep.path().join("ours");
        let mode = fs::metadata(&file).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o644);
        let image = fs::read(&file).unwrap();
        fs::remove_file(file).unwrap();
        (image, digest)
    }
}

fn measured(data: &[u8]) -> [u8; 32] {
    let mut measure = Measure::default();
    data.chunks(1000).for_each(|part| measure.update(part));
    measure.digest()
}

/// Names that sort before, between and behind `.` and `..`, and are short, long and not ASCII.
fn name(random: &mut Random) -> String {
    let first = ["a", "!", "-x", ".h", "..h", "...", "ä", "~", "Z", "00", "fe", "+"];
    let first = first[random.below(first.len())];
    let length = match random.below(8) {
        0 => 250 - first.len(),
        1 => random.below(120),
        _ => random.below(12),
    };
    let rest: String = (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    format!("{first}{rest}")
}

/// Fills a directory with at most as many entries as are left.
fn grow(random: &mut Random, at: &Path, left: &mut usize) {
    let count = if random.below(6) == 0 { 300 } else { random.below(14) };
    for _ in 0..count {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = at.join(name(random));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(5) {
            0 if path.as_os_str().len() < 3000 => {
                fs::create_dir(&path).unwrap();
                grow(random, &path, left);
            }
            1 => {
                let length = if random.below(4) == 0 { random.below(3900) } else { random.below(60) };
                symlink("t/".repeat(2050).get(..length + 1).unwrap(), &path).unwrap();
                continue;
            }
            2 => fs::write(&path, "").unwrap(),
            _ => {
                let length = if random.below(5) == 0 { random.below(700_000) } else { random.below(9_000) };
                fs::write(&path, vec![random.below(256) as u8; length]).unwrap();
            }
        }
        dress(random, &path);
    }
}

fn dress(random: &mut Random, path: &Path) {
    let owners = [0, 1, 1000, 65_535, 65_536, 4_000_000_000];
    if random.below(3) == 0 {
        let mut pick = || Some(owners[random.below(6)]);
        let (uid, gid) = (pick(), pick());
        std::os::unix::fs::chown(path, uid, gid).unwrap();
    }
    if random.below(3) == 0 {
        let modes = [0o4755, 0o2750, 0o1777, 0o600, 0o000];
        let mode = modes[random.below(5)];
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let names =
        ["user.a", "user.bb", "trusted.overlay.opaque", "trusted.overlay.x", "trusted.t", "security.selinux"];
    for name in names {
        if random.below(6) == 0 {
            let value = ["1", "22", "22222", "", "s0:label\0"][random.below(5)];
            let long = "v".repeat(random.below(900));
            let value = if random.below(10) == 0 { &long[..] } else { value };
            let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
            let out = Command::new("setfattr")
                .args(["-h", "-n", name, "-v", &format!("0x{hex}")])
                .arg(path)
                .output();
            assert!(out.unwrap().status.success(), "{name} on {path:?}");
        }
    }
}

#[test]
fn images_of_random_trees_are_libostrees_byte_for_byte() {
    let mut bytes = 0;
    for seed in 0..8 {
        let lab = Lab::new(if seed % 4 == 3 { "bare-user" } else { "bare" });
        let mut random = Random::new(seed);
        grow(&mut random, &lab.tree(), &mut 400);
        if seed % 2 == 1 {
            dress(&mut random, &lab.tree());
        }
        bytes += lab.compare(&[], &format!("seed {seed}"));
    }
    println!("images: 16, the last of each tree together {bytes} bytes");
}

#[test]
fn images_of_degenerate_trees_are_libostrees_byte_for_byte() {
    let table: [(&str, &str); 10] = [
        ("nothing", ""),
        ("own mount points", "mkdir -m 700 usr etc boot var sysroot"),
        ("names of object directories", "mkdir 00 0a ff fff; : >7f; ln -s x 80"),
        ("one label", "mkdir a; echo 1 >a/b; setfattr -h -n security.selinux -v l . a a/b"),
        ("label of the root alone", "setfattr -n security.selinux -v system_u:object_r:root_t:s0 ."),
        (
            "lists",
            "echo 1 >f; mkdir d; a=0x0200000001000600ffffffff020004000500000004000400ffffffff10000400ffffffff20000400ffffffff; setfattr -n system.posix_acl_access -v $a f; setfattr -n system.posix_acl_default -v $a d",
        ),
        (
            "block of names",
            "mkdir d; for n in $(seq 1 170); do : >d/name-$n; done; mkdir e; for n in $(seq 1 171); do : >e/name-$n; done",
        ),
        ("many names", "mkdir d; for n in $(seq 1 3000); do : >d/$n; done"),
        ("long links", "for n in $(seq 3980 4063); do ln -s $(head -c $n /dev/zero | tr '\\0' x) l$n; done"),
        (
            "sizes",
            "for n in 1 2 4095 4096 4097 8192 524288 524289 67108864 67108865; do truncate -s $n f$n; done",
        ),
    ];
    for (name, script) in table {
        let lab = Lab::new("bare");
        shell(script, &lab.tree());
        lab.compare(&[], name);
    }
}

/// Where inode and text do not fit in one block libcomposefs 1.0.8 gives up, as libostree uses it: fsck.erofs judges.
#[test]
fn longer_links_are_in_blocks_of_their_own() {
    let lab = Lab::new("bare");
    shell("for n in $(seq 4030 4095); do ln -s $(head -c $n /dev/zero | tr '\\0' x) l$n; done", &lab.tree());
    let commit = must(&["commit", &lab.repo(), "-b", "os", &format!("--tree=dir={}", lab.tree().display())]);
    let object =
        lab.keep.path().join(format!("ostree/repo/objects/{}/{}.commit", &commit[..2], &commit[2..]));
    let (data, _) = lab.ours(&Commit::parse(fs::read(object).unwrap()).unwrap(), false);
    let (file, out) = (lab.keep.path().join("image"), lab.keep.path().join("out"));
    fs::write(&file, data).unwrap();
    let extract = format!("--extract={}", out.display());
    let fsck = Command::new("fsck.erofs").args([&extract, file.to_str().unwrap()]).output().unwrap();
    assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stderr));
    for length in 4030..=4095 {
        let text = fs::read_link(out.join(format!("l{length}"))).unwrap();
        assert_eq!(text.as_os_str().len(), length);
    }
}

#[test]
fn many_attributes_are_libostrees_byte_for_byte() {
    for (count, size) in [(1, 0), (1, 3000), (60, 40), (16, 190), (8, 440)] {
        let lab = Lab::new("bare");
        let script = format!(
            "mkdir d; for f in one two d; do [ $f = d ] || echo $f >$f; for n in $(seq 1 {count}); do \
             v=$(head -c {size} /dev/zero | tr '\\0' v); setfattr -n user.n$n -v \"$v\" $f; done; done"
        );
        shell(&script, &lab.tree());
        lab.compare(&[], &format!("{count} of {size} bytes"));
    }
}

/// A sysroot with a stateroot, and a commit of a bootable tree.
struct Sysroot {
    keep: tempfile::TempDir,
}

impl Sysroot {
    fn new() -> Sysroot {
        let sysroot = Sysroot { keep: tempfile::tempdir().unwrap() };
        fs::create_dir(sysroot.path("sysroot")).unwrap();
        must(&["admin", "init-fs", &sysroot.at()]);
        must(&["admin", "os-init", &format!("--sysroot={}", sysroot.at()), "demo"]);
        make_tree(&sysroot.path("tree"), &PLAIN, "1");
        fs::create_dir_all(sysroot.path("tree/usr/lib/ostree")).unwrap();
        sysroot
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }

    fn at(&self) -> String {
        self.path("sysroot").display().to_string()
    }

    fn repo(&self) -> String {
        format!("--repo={}/ostree/repo", self.at())
    }

    fn commit(&self, configuration: &str, options: &[&str]) -> String {
        fs::write(self.path("tree/usr/lib/ostree/prepare-root.conf"), configuration).unwrap();
        let tree = format!("--tree=dir={}", self.path("tree").display());
        must(&[&["commit", &self.repo(), "-b", "demo", &tree], options].concat())
    }

    fn set(&self, key: &str, value: &str) {
        must(&["config", &self.repo(), "set", key, value]);
    }

    fn deploy(&self) -> Result<String, String> {
        let mut bootward = Command::new(env!("CARGO_BIN_EXE_bootward"));
        bootward.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments");
        let out = bootward
            .args(["deploy", "--sysroot", &self.at(), "--stateroot", "demo", "demo"])
            .output()
            .unwrap();
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    fn image(&self, commit: &str, serial: usize) -> PathBuf {
        self.path(&format!("sysroot/ostree/deploy/demo/deploy/{commit}.{serial}/.ostree.cfs"))
    }
}

#[test]
fn a_deployment_gets_the_image_that_libostrees_own_gets() {
    let sysroot = Sysroot::new();
    let none = sysroot.commit("", &[]);
    sysroot.deploy().unwrap();
    assert!(!sysroot.image(&none, 0).exists(), "nobody asked for an image");
    let asked = sysroot.commit("[composefs]\nenabled=yes\n", &[]);
    sysroot.deploy().unwrap();
    must(&["admin", "deploy", &format!("--sysroot={}", sysroot.at()), "--os=demo", "demo"]);
    let ours = fs::read(sysroot.image(&asked, 0)).unwrap();
    assert_eq!(ours, fs::read(sysroot.image(&asked, 1)).unwrap());
    let stat = fs::metadata(sysroot.image(&asked, 0)).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.nlink()), (0, 0, 0o644, 1));
    // What asks may be the repository too.
    let by_repo = sysroot.commit("# nothing\n", &[]);
    sysroot.set("ex-integrity.composefs", "true");
    let said = sysroot.deploy().unwrap();
    let theirs = sysroot.path("theirs");
    must(&["checkout", &sysroot.repo(), "--composefs-noverity", &by_repo, theirs.to_str().unwrap()]);
    assert_eq!(fs::read(sysroot.image(&by_repo, 0)).unwrap(), fs::read(theirs).unwrap());
    assert!(!said.contains("SELinux"), "{said}");
    // With a policy, labels come along, and it is said that no more is done.
    let etc = sysroot.path("tree/usr/etc");
    fs::create_dir_all(etc.join("selinux")).unwrap();
    fs::write(etc.join("selinux/config"), "# policy\nSELINUX=enforcing\nSELINUXTYPE=targeted\n").unwrap();
    shell("setfattr -n security.selinux -v system_u:object_r:etc_t:s0 selinux/config", &etc);
    let labelled = sysroot.commit("", &[]);
    let said = sysroot.deploy().unwrap();
    assert!(said.contains("SELinux: the commit has a policy"), "{said}");
    let copy = sysroot.image(&labelled, 0).with_file_name("etc/selinux/config");
    shell(&format!("getfattr --only-values -n security.selinux {} | grep -q etc_t", copy.display()), &etc);
    fs::write(etc.join("selinux/config"), "SELINUX=disabled\nSELINUXTYPE=targeted\n").unwrap();
    sysroot.commit("", &[]);
    assert!(!sysroot.deploy().unwrap().contains("SELinux"));
    must(&["fsck", &sysroot.repo()]);
    let status = must(&["admin", "status", &format!("--sysroot={}", sysroot.at())]);
    assert!(status.contains("demo "), "{status}");
}

#[test]
fn the_image_is_the_one_that_the_commit_names() {
    let sysroot = Sysroot::new();
    let verity = "[composefs]\nenabled=verity\n";
    let named = sysroot.commit(verity, &["--generate-composefs-metadata"]);
    sysroot.deploy().unwrap();
    let image = fs::read(sysroot.image(&named, 0)).unwrap();
    let object = sysroot.path(&format!("sysroot/ostree/repo/objects/{}/{}.commit", &named[..2], &named[2..]));
    let commit = Commit::parse(fs::read(object).unwrap()).unwrap();
    assert_eq!(commit.metadata_bytes("ostree.composefs.digest.v0"), Some(&measured(&image)[..]));
    // What a publisher names and is not it.
    let other = format!("--add-metadata=ostree.composefs.digest.v0=[{}]", ["byte 0x07"; 32].join(", "));
    let wrong = sysroot.commit(verity, &[&other]);
    let refused = sysroot.deploy().unwrap_err();
    assert!(refused.contains("names another one"), "{refused}");
    assert!(!sysroot.image(&wrong, 0).parent().unwrap().exists());
    // libostree refuses the same.
    let theirs = ostree(
        Suite::Forky,
        &["admin", "deploy", &format!("--sysroot={}", sysroot.at()), "--os=demo", "demo"],
    );
    assert!(String::from_utf8_lossy(&theirs.stderr).contains("doesn't match expected digest"));
    // A file that has to be sealed, where nothing can be.
    sysroot.commit("[composefs]\nenabled=yes\n", &[]);
    sysroot.set("ex-integrity.fsverity", "yes");
    match sysroot.deploy() {
        Err(refused) => assert!(refused.contains("the filesystem has none"), "{refused}"),
        Ok(_) => println!("this filesystem has fs-verity"),
    }
    let config = sysroot.path("sysroot/ostree/repo/config");
    let text = fs::read_to_string(&config).unwrap().replace("fsverity=yes", "fsverity=sometimes");
    fs::write(config, text).unwrap();
    assert!(sysroot.deploy().unwrap_err().contains("[ex-integrity]"));
}
