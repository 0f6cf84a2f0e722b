//! Deployments of the real `ostree`, verified, then damaged in every way and at every byte.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootward::ostree::object::{self, Kind};
use bootward::ostree::verify::{Check, Fault, Faults, Level, Report, verify};
use bootward::ostree::{Checksum, Keys};
use bootward::sys::beneath::Beneath;
use bootward::sysroot::Deployment;

use crate::sign::{Pair, commit_of, detached};
use crate::sysroot::Fixture;

/// A sysroot whose newest deployment has some of everything, and shares no inode with anything that a test changes.
pub struct Lab {
    pub fixture: Fixture,
    pub deployment: Deployment,
}

pub fn run(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments").env("OSTREE_BOOTID", "test");
    let out = command.args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

impl Lab {
    pub fn new() -> Lab {
        let fixture = Fixture::new();
        let tree = fixture.root.with_file_name("rich");
        let at = |path: &str| tree.join(path);
        for directory in
            ["usr/etc", "usr/bin", "usr/lib/systemd", "usr/lib/modules/6.3.0/dtb/vendor", "var", "usr/empty"]
        {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("usr/lib/modules/6.3.0/vmlinuz"), "kernel 3").unwrap();
        fs::write(at("usr/lib/modules/6.3.0/initramfs.img"), "initramfs 3").unwrap();
        fs::write(at("usr/lib/modules/6.3.0/dtb/vendor/board.dtb"), "device tree").unwrap();
        fs::write(at("usr/etc/os-release"), "PRETTY_NAME=rich\n").unwrap();
        fs::write(at("usr/bin/tool"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(at("usr/bin/tool"), at("usr/bin/tool-by-another-name")).unwrap();
        fs::write(at("usr/bin/empty"), "").unwrap();
        fs::write(at("usr/bin/ünïcödé 名"), "x").unwrap();
        fs::write(at(&format!("usr/bin/{}", "l".repeat(255))), "y").unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        symlink("../bin/tool", at("usr/lib/link")).unwrap();
        symlink("/usr/lib/systemd/systemd", at("usr/bin/init")).unwrap();
        let set = |name: &str, value: &str, path: &str| {
            run("setfattr", &["-h", "-n", name, "-v", value, at(path).to_str().unwrap()]);
        };
        set("user.one", "1", "usr/bin/tool");
        set("user.long", &"v".repeat(300), "usr/bin/empty");
        set("user.dir", "d", "usr/empty");
        set("trusted.link", "t", "usr/lib/link");
        run("chown", &["-h", "3:4", at("usr/lib/link").to_str().unwrap()]);
        run("chown", &["5:6", at("usr/empty").to_str().unwrap()]);
        let root = fixture.root.to_str().unwrap().to_owned();
        let repo = format!("--repo={root}/ostree/repo");
        run("ostree", &["commit", &repo, "-b", "demo/rich", &format!("--tree=dir={}", tree.display())]);
        run("ostree", &["admin", "deploy", "--retain", "--sysroot", &root, "--os=demo", "demo/rich"]);
        let deployment = fixture.read().deployments.swap_remove(0);
        assert!(deployment.boot_link.is_some());
        Lab { fixture, deployment }
    }

    pub fn sysroot(&self) -> &Path {
        &self.fixture.root
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.sysroot().join(self.deployment.path()).join(path)
    }

    pub fn check(&self, level: Level, keys: Option<&Keys>, every_fault: bool) -> Report {
        let sysroot = Beneath::open(self.sysroot()).unwrap();
        let boot = Beneath::open(&self.sysroot().join("boot")).unwrap();
        let check = Check {
            sysroot: &sysroot,
            boot: Some(&boot),
            path: &self.deployment.path(),
            commit: &self.deployment.commit,
            boot_files: &self.deployment.boot_files,
            level,
            keys,
            budget: None,
            faults: if every_fault { Faults::Counted } else { Faults::First },
        };
        verify(&check, &mut |_| {})
    }

    pub fn good(&self, level: Level, keys: Option<&Keys>) {
        let report = self.check(level, keys, true);
        assert_eq!(report.faults, [], "{level}");
    }

    /// Every regular file of the deployment that a commit covers, relative to the sysroot.
    pub fn files(&self) -> Vec<PathBuf> {
        let listed = run(
            "find",
            &[self.at("").to_str().unwrap(), "-path", "*/etc", "-prune", "-o", "-type", "f", "-print"],
        );
        let own = self.at("etc");
        let mut files: Vec<PathBuf> =
            listed.lines().map(PathBuf::from).filter(|f| !f.starts_with(&own)).collect();
        files.extend(
            run("find", &[self.at("usr/etc").to_str().unwrap(), "-type", "f"]).lines().map(PathBuf::from),
        );
        files
    }

    pub fn boot_files(&self) -> Vec<PathBuf> {
        let linux = self.deployment.boot_files.linux.as_ref().unwrap();
        let directory = self.sysroot().join("boot").join(linux.trim_start_matches('/'));
        let listed = run("find", &[directory.parent().unwrap().to_str().unwrap(), "-type", "f"]);
        listed.lines().map(PathBuf::from).collect()
    }

    /// The objects that describe the deployment.
    fn objects(&self) -> Vec<PathBuf> {
        let repo = format!("--repo={}/ostree/repo", self.sysroot().display());
        let mut found = vec![];
        let mut left = vec![run("ostree", &["ls", &repo, "-C", "-R", "-d", &self.deployment.commit, "/"])];
        let listed = run("ostree", &["ls", &repo, "-C", "-R", &self.deployment.commit, "/"]);
        left.push(listed);
        for line in left.iter().flat_map(|l| l.lines()).filter(|l| l.starts_with('d')) {
            let sums: Vec<Checksum> = line.split_whitespace().filter_map(Checksum::parse).collect();
            assert_eq!(sums.len(), 2, "{line}");
            found.push(self.sysroot().join(object::path(&sums[0], Kind::DirTree)));
            found.push(self.sysroot().join(object::path(&sums[1], Kind::DirMeta)));
        }
        found.push(
            self.sysroot()
                .join(object::path(&Checksum::parse(&self.deployment.commit).unwrap(), Kind::Commit)),
        );
        found.sort();
        found.dedup();
        found
    }
}

/// Gives a file an inode of its own, its attributes and owner kept.
pub fn unshare(path: &Path) {
    if fs::symlink_metadata(path).unwrap().nlink() > 1 {
        let copy = path.with_file_name("copy");
        run("cp", &["-a", path.to_str().unwrap(), copy.to_str().unwrap()]);
        fs::rename(copy, path).unwrap();
    }
}

#[test]
fn agrees_with_libostree() {
    let lab = Lab::new();
    run("ostree", &["fsck", &format!("--repo={}/ostree/repo", lab.sysroot().display())]);
    assert!(lab.deployment.boot_files.linux.is_some());
    for deployment in lab.fixture.read().deployments {
        let lab = Lab { fixture: Fixture::at_path(lab.sysroot()), deployment };
        for level in [Level::Metadata, Level::Full] {
            let report = lab.check(level, None, true);
            assert_eq!(report.faults, [], "{level} of {}", lab.deployment.name());
            assert!(report.is_good() && report.progress.entries > 10);
        }
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let lab = Lab::new();
    let pair = Pair::new();
    let commit = commit_of(lab.sysroot(), &lab.deployment.commit);
    let keys = Keys::parse(pair.public.as_bytes()).unwrap();
    let name = Checksum::parse(&lab.deployment.commit).unwrap();
    let commitmeta = lab.sysroot().join(object::path(&name, Kind::CommitMeta));
    fs::write(&commitmeta, detached(&[pair.sign(&commit)])).unwrap();
    lab.good(Level::Full, Some(&keys));
    lab.good(Level::Metadata, Some(&keys));

    let files: Vec<PathBuf> = lab.files().into_iter().chain(lab.boot_files()).collect();
    files.iter().for_each(|file| unshare(file));
    lab.good(Level::Full, Some(&keys));
    let objects = lab.objects();
    println!("{} files, {} objects", files.len(), objects.len());
    let (mut bytes, mut cases) = (0, 0);
    let refused = |case: &dyn Fn() -> String, level| {
        let report = lab.check(level, Some(&keys), false);
        assert!(!report.is_good(), "{}", case());
        assert!(!report.ran_out_of_time());
    };
    for file in files.iter().chain(&objects).chain([&commitmeta]) {
        let metadata = fs::metadata(file).unwrap();
        let good = fs::read(file).unwrap();
        let level = if objects.contains(file) || *file == commitmeta { Level::Metadata } else { Level::Full };
        let put = |data: &[u8]| {
            // In place: owner, mode and attributes stay.
            let opened = fs::OpenOptions::new().write(true).truncate(true).open(file).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&opened, data, 0).unwrap();
        };
        // A setuid bit goes with a write, which is a change of its own.
        let again = || fs::set_permissions(file, metadata.permissions()).unwrap();
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x10;
            put(&changed);
            again();
            refused(&|| format!("{} at {at}", file.display()), level);
            bytes += 1;
        }
        let whole: [(&str, Vec<u8>); 5] = [
            ("empty", vec![]),
            ("cut", good[..good.len() / 2].to_vec()),
            ("longer", [&good[..], b"\0"].concat()),
            ("zeros", vec![0; good.len()]),
            ("ones", vec![0xff; good.len()]),
        ];
        for (case, data) in whole.into_iter().filter(|(_, data)| *data != good) {
            put(&data);
            again();
            refused(&|| format!("{} {case}", file.display()), level);
            cases += 1;
        }
        put(&good);
        again();
        let aside = file.with_file_name("aside");
        fs::rename(file, lab.sysroot().join("aside")).unwrap();
        refused(&|| format!("{} removed", file.display()), level);
        fs::create_dir(file).unwrap();
        refused(&|| format!("{} a directory", file.display()), level);
        fs::remove_dir(file).unwrap();
        if level == Level::Full {
            symlink(&aside, file).unwrap();
            refused(&|| format!("{} a link", file.display()), level);
            fs::remove_file(file).unwrap();
            cases += 1;
        }
        fs::rename(lab.sysroot().join("aside"), file).unwrap();
        cases += 2;
    }
    lab.good(Level::Full, Some(&keys));
    println!("verify: {bytes} flipped bytes and {cases} other changes of content refused");
}

/// Each change of shape: what is done, what undoes it, and whether `metadata` notices it too.
#[test]
fn every_change_of_shape_is_noticed() {
    let lab = Lab::new();
    type Step = (&'static str, &'static str, &'static str, bool);
    let steps: &[Step] = &[
        ("extra file", "touch usr/bin/new", "rm usr/bin/new", true),
        ("extra file at the top", "touch new", "rm new", true),
        ("extra hidden file", "touch .hidden", "rm .hidden", true),
        ("name that is no text", "touch usr/bin/$(printf 'a\\377')", "rm usr/bin/$(printf 'a\\377')", true),
        ("extra directory", "mkdir usr/empty/new", "rmdir usr/empty/new", true),
        ("extra link", "ln -s x usr/bin/new", "rm usr/bin/new", true),
        ("hotfix", "mkdir .usr-ovl-work .usr-ovl-upper", "rmdir .usr-ovl-work .usr-ovl-upper", true),
        ("image a directory", "mkdir .ostree.cfs", "rmdir .ostree.cfs", true),
        ("etc a link", "mv etc away; ln -s away etc", "rm etc; mv away etc", true),
        ("missing directory", "mv usr/empty ../../../..", "mv ../../../../empty usr/", true),
        (
            "directory a link",
            "mv usr/empty ../gone; ln -s ../../gone usr/empty",
            "rm usr/empty; mv ../gone usr/empty",
            true,
        ),
        (
            "directory a file",
            "mv usr/empty ../gone; touch usr/empty",
            "rm usr/empty; mv ../gone usr/empty",
            true,
        ),
        ("missing link", "mv usr/lib/link ../gone", "mv ../gone usr/lib/link", true),
        (
            "link changed",
            "cp -a usr/lib/link ../gone; rm usr/lib/link; ln -s ../bin/tooL usr/lib/link; chown -h 3:4 usr/lib/link; setfattr -h -n trusted.link -v t usr/lib/link",
            "mv ../gone usr/lib/link",
            true,
        ),
        ("link's owner", "chown -h 4:4 usr/lib/link", "chown -h 3:4 usr/lib/link", true),
        ("link's group", "chown -h 3:3 usr/lib/link", "chown -h 3:4 usr/lib/link", true),
        (
            "link's attribute",
            "setfattr -h -n trusted.link -v u usr/lib/link",
            "setfattr -h -n trusted.link -v t usr/lib/link",
            true,
        ),
        ("directory's mode", "chmod 711 usr/empty", "chmod 755 usr/empty", true),
        ("directory setgid", "chmod g+s usr/empty", "chmod g-s usr/empty", true),
        ("directory's owner", "chown 6:6 usr/empty", "chown 5:6 usr/empty", true),
        ("directory's group", "chown 5:5 usr/empty", "chown 5:6 usr/empty", true),
        (
            "directory's attribute",
            "setfattr -n user.dir -v e usr/empty",
            "setfattr -n user.dir -v d usr/empty",
            true,
        ),
        (
            "directory's attribute gone",
            "setfattr -x user.dir usr/empty",
            "setfattr -n user.dir -v d usr/empty",
            true,
        ),
        (
            "directory's attribute more",
            "setfattr -n user.e -v e usr/empty",
            "setfattr -x user.e usr/empty",
            true,
        ),
        ("root's mode", "chmod 700 .", "chmod 755 .", true),
        ("empty file's mode", "chmod 600 usr/bin/empty", "chmod 644 usr/bin/empty", true),
        (
            "empty file's attribute",
            "setfattr -n user.more usr/bin/empty",
            "setfattr -x user.more usr/bin/empty",
            true,
        ),
        (
            "empty file a fifo",
            "mv usr/bin/empty ../gone; mkfifo usr/bin/empty",
            "rm usr/bin/empty; mv ../gone usr/bin/empty",
            true,
        ),
        (
            "file a device",
            "mv usr/bin/tool ../gone; mknod usr/bin/tool c 1 3",
            "rm usr/bin/tool; mv ../gone usr/bin/tool",
            true,
        ),
        (
            "file emptied",
            "mv usr/bin/tool ../gone; touch usr/bin/tool",
            "rm usr/bin/tool; mv ../gone usr/bin/tool",
            true,
        ),
        (
            "file a link",
            "mv usr/bin/tool ../gone; ln -s empty usr/bin/tool",
            "rm usr/bin/tool; mv ../gone usr/bin/tool",
            true,
        ),
        (
            "two files changed places",
            "mv usr/bin/tool ../gone; ln usr/etc/os-release usr/bin/tool",
            "rm usr/bin/tool; mv ../gone usr/bin/tool",
            false,
        ),
        (
            "link a file",
            "mv usr/lib/link ../gone; echo x > usr/lib/link",
            "rm usr/lib/link; mv ../gone usr/lib/link",
            false,
        ),
        ("file's mode", "chmod 755 usr/bin/tool", "chmod 4755 usr/bin/tool", false),
        (
            "file's owner",
            "chown 1:0 usr/bin/tool; chmod 4755 usr/bin/tool",
            "chown 0:0 usr/bin/tool; chmod 4755 usr/bin/tool",
            false,
        ),
        (
            "file's group",
            "chown 0:1 usr/bin/tool; chmod 4755 usr/bin/tool",
            "chown 0:0 usr/bin/tool; chmod 4755 usr/bin/tool",
            false,
        ),
        (
            "file's attribute",
            "setfattr -n user.one -v 2 usr/bin/tool",
            "setfattr -n user.one -v 1 usr/bin/tool",
            false,
        ),
        (
            "file's attribute gone",
            "setfattr -x user.one usr/bin/tool",
            "setfattr -n user.one -v 1 usr/bin/tool",
            false,
        ),
    ];
    let shell = |script: &str| {
        let script = format!("cd {} && {{ {script}; }}", lab.at("").display());
        run("sh", &["-ec", &script]);
    };
    lab.good(Level::Full, None);
    for (case, change, undo, cheap) in steps {
        shell(change);
        let (full, metadata) = (lab.check(Level::Full, None, false), lab.check(Level::Metadata, None, false));
        assert!(!full.is_good(), "{case}");
        assert_eq!(!metadata.is_good(), *cheap, "{case}, metadata: {:?}", metadata.faults);
        shell(undo);
        let after = lab.check(Level::Full, None, true);
        assert_eq!(after.faults, [], "after {case}");
    }
    // What is the device's own is its own.
    shell("echo mine > etc/hostname; rm etc/os-release; touch .ostree.cfs");
    lab.good(Level::Full, None);
    println!("verify: {} changes of shape refused", steps.len());
}

#[test]
fn a_budget_ends_it() {
    let lab = Lab::new();
    let sysroot = Beneath::open(lab.sysroot()).unwrap();
    let check = Check {
        sysroot: &sysroot,
        boot: None,
        path: &lab.deployment.path(),
        commit: &lab.deployment.commit,
        boot_files: &lab.deployment.boot_files,
        level: Level::Full,
        keys: None,
        budget: Some(std::time::Duration::ZERO),
        faults: Faults::Counted,
    };
    let report = verify(&check, &mut |_| {});
    assert_eq!((report.faults.as_slice(), report.ran_out_of_time()), (&[Fault::Timeout][..], true));
}
