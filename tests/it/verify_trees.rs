//! Deployments of unusual trees, made by the oldest and by the newest `ostree` at hand: where libostree puts something
//! else on the disk than the commit says, that is verified too.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bootward::ostree::verify::{Check, Faults, Level, verify};
use bootward::sys::beneath::Beneath;
use bootward::sysroot::Deployment;

use crate::prepare::{Suite, oracle};
use crate::sysroot::Fixture;

const TOOLS: [Suite; 2] = [Suite::Bookworm, Suite::Forky];

/// The `ostree` of a release of Debian, with its own libraries.
pub fn ostree(suite: Suite, arguments: &[&str]) -> Output {
    let place = oracle(suite);
    let mut command = Command::new(place.join("usr/lib64/ld-linux-x86-64.so.2"));
    if !place.join("usr/lib64").exists() {
        command = Command::new(place.join("lib64/ld-linux-x86-64.so.2"));
    }
    let libraries =
        ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|l| place.join(l).display().to_string());
    command.arg("--library-path").arg(libraries.join(":")).arg(place.join("usr/bin/ostree"));
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments").env("OSTREE_BOOTID", "test");
    command.args(arguments).output().unwrap()
}

/// A sysroot with a commit of one tree.
struct Made {
    keep: tempfile::TempDir,
    root: PathBuf,
    suite: Suite,
    commit: String,
}

impl Made {
    fn new(suite: Suite, fill: &dyn Fn(&Path)) -> Made {
        let keep = tempfile::tempdir().unwrap();
        let (root, tree) = (keep.path().join("sysroot"), keep.path().join("tree"));
        let modules = tree.join("usr/lib/modules/6.1.0");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("vmlinuz"), "kernel").unwrap();
        fs::write(modules.join("initramfs.img"), "initramfs").unwrap();
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::write(tree.join("usr/bin/tool"), "tool").unwrap();
        fs::write(tree.join("usr/lib/os-release"), "PRETTY_NAME=demo\n").unwrap();
        fill(&tree);
        fs::create_dir(&root).unwrap();
        let at = root.to_str().unwrap();
        let must = |arguments: &[&str]| {
            let output = ostree(suite, arguments);
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_string()
        };
        must(&["admin", "init-fs", at]);
        must(&["admin", "os-init", &format!("--sysroot={at}"), "demo"]);
        let repo = format!("--repo={at}/ostree/repo");
        let commit = must(&[&repo, "commit", "-b", "demo", &format!("--tree=dir={}", tree.display())]);
        Made { keep, root, suite, commit }
    }

    /// Whether libostree deploys it.
    fn deploy(&self, options: &[&str]) -> bool {
        let sysroot = format!("--sysroot={}", self.root.display());
        let deployed =
            ostree(self.suite, &[&["admin", "deploy", &sysroot, "--os=demo"], options, &["demo"]].concat());
        println!("{:?}: {}", self.suite, String::from_utf8_lossy(&deployed.stderr));
        deployed.status.success()
    }

    /// A checkout in a deployment's place, and what is done in it.
    fn by_hand(self, script: &str) -> Sysroot {
        let place = self.root.join(format!("ostree/deploy/demo/deploy/{}.0", self.commit));
        let _ = fs::remove_dir_all(&place);
        let repo = format!("--repo={}/ostree/repo", self.root.display());
        assert!(ostree(self.suite, &[&repo, "checkout", "demo", place.to_str().unwrap()]).status.success());
        let script = format!("cd {} && {script}", place.display());
        assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success());
        self.deployed()
    }

    fn deployed(self) -> Sysroot {
        let deployment = Fixture::at_path(&self.root).read().deployments.swap_remove(0);
        Sysroot { _keep: self.keep, root: self.root, deployment }
    }
}

/// A sysroot with a deployment of one tree.
struct Sysroot {
    _keep: tempfile::TempDir,
    root: PathBuf,
    deployment: Deployment,
}

impl Sysroot {
    fn with(suite: Suite, fill: &dyn Fn(&Path), options: &[&str]) -> Sysroot {
        let made = Made::new(suite, fill);
        assert!(made.deploy(options), "{suite:?} does not deploy it");
        made.deployed()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(self.deployment.path()).join(path)
    }

    fn faults(&self) -> Vec<String> {
        let (sysroot, boot) =
            (Beneath::open(&self.root).unwrap(), Beneath::open(&self.root.join("boot")).unwrap());
        let levels = [Level::Metadata, Level::Full].map(|level| {
            let check = Check {
                sysroot: &sysroot,
                boot: Some(&boot),
                path: &self.deployment.path(),
                commit: &self.deployment.commit,
                boot_files: &self.deployment.boot_files,
                level,
                keys: None,
                budget: None,
                faults: Faults::Counted,
            };
            verify(&check, &mut |_| {}).faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        });
        let [metadata, full] = levels;
        assert!(metadata.iter().all(|fault| full.contains(fault)), "{metadata:?} {full:?}");
        full
    }
}

/// Old libostree moved a commit's `/etc` to `/usr/etc` and made a new `/etc` of it. The present one moves it too, and
/// then fails: its deployments are finished by hand here.
#[test]
fn a_commit_with_etc() {
    for suite in TOOLS {
        let old = |tree: &Path| {
            fs::create_dir(tree.join("etc")).unwrap();
            fs::write(tree.join("etc/hostname"), "demo").unwrap();
        };
        let made = Made::new(suite, &old);
        assert!(!made.deploy(&[]), "{suite:?} has learnt it: let it make the deployment");
        let sysroot = made.by_hand("mv etc usr/etc; cp -a usr/etc etc");
        assert_eq!(sysroot.faults(), [""; 0], "{suite:?}");
        fs::write(sysroot.at("etc/hostname"), "mine").unwrap();
        assert_eq!(sysroot.faults(), [""; 0], "{suite:?}");
        fs::write(sysroot.at("usr/etc/added"), "").unwrap();
        assert_eq!(sysroot.faults(), ["/usr/etc/added: not in the commit"], "{suite:?}");
        fs::remove_file(sysroot.at("usr/etc/added")).unwrap();
        fs::remove_file(sysroot.at("usr/etc/hostname")).unwrap();
        assert_eq!(sysroot.faults(), ["/usr/etc/hostname: missing"], "{suite:?}");
        fs::remove_dir(sysroot.at("usr/etc")).unwrap();
        assert_eq!(sysroot.faults(), ["/usr/etc: missing"], "{suite:?}");
    }
}

/// Without `/usr/etc` the deployment has no configuration, or an empty one; an empty `/etc` beside it is taken away.
#[test]
fn a_commit_without_etc_or_with_an_empty_one() {
    for suite in TOOLS {
        let none = Sysroot::with(suite, &|_| {}, &[]);
        assert_eq!(none.faults(), [""; 0], "{suite:?}");
        fs::create_dir(none.at("usr/etc")).unwrap();
        assert_eq!(none.faults(), ["/usr/etc: not in the commit"], "{suite:?}");

        let empty = |tree: &Path| fs::create_dir(tree.join("etc")).unwrap();
        if suite == Suite::Bookworm {
            assert!(!Made::new(suite, &empty).deploy(&[]), "2022.7 does not want it");
            continue;
        }
        let alone = Sysroot::with(suite, &empty, &[]);
        assert!(alone.at("etc").exists() && !alone.at("usr/etc").exists());
        assert_eq!(alone.faults(), [""; 0], "{suite:?}");
        let usr_etc = |tree: &Path| {
            fs::create_dir(tree.join("usr/etc")).unwrap();
            fs::write(tree.join("usr/etc/hostname"), "demo").unwrap();
        };
        let beside = |tree: &Path| {
            empty(tree);
            usr_etc(tree);
        };
        let beside = Sysroot::with(suite, &beside, &[]);
        assert_eq!(beside.faults(), [""; 0], "{suite:?}");
        let both = |tree: &Path| {
            usr_etc(tree);
            fs::create_dir(tree.join("etc")).unwrap();
            fs::write(tree.join("etc/hostname"), "demo").unwrap();
        };
        assert!(!Made::new(suite, &both).deploy(&[]), "{suite:?} has always refused this");
    }
}

/// A whiteout of overlayfs, quoted in the commit, is a device in the deployment; one of a container image is a file
/// as any other.
#[test]
fn whiteouts() {
    for suite in TOOLS {
        let fill = |tree: &Path| {
            fs::create_dir_all(tree.join("usr/share/layer")).unwrap();
            let quoted = tree.join("usr/share/layer/.ostree-wh.gone");
            fs::write(&quoted, "").unwrap();
            nix::unistd::chown(&quoted, Some(5.into()), Some(6.into())).unwrap();
            fs::write(tree.join("usr/share/layer/.ostree-wh.also"), "").unwrap();
            fs::write(tree.join("usr/share/layer/.wh.image"), "").unwrap();
            fs::write(tree.join("usr/share/layer/.wh..wh..opq"), "").unwrap();
        };
        let sysroot = Sysroot::with(suite, &fill, &[]);
        let gone = sysroot.at("usr/share/layer/gone");
        let stat = fs::symlink_metadata(&gone).unwrap();
        assert!(stat.file_type().is_char_device() && stat.rdev() == 0 && stat.uid() == 5, "{suite:?}");
        assert!(sysroot.at("usr/share/layer/.wh.image").exists());
        assert_eq!(sysroot.faults(), [""; 0], "{suite:?}");

        let again = |fault: &str| {
            let place = "/usr/share/layer/.ostree-wh.gone";
            assert_eq!(sysroot.faults(), [format!("{place}: {fault}")], "{suite:?}");
            let _ = fs::remove_file(&gone);
        };
        let device = |major, minor| {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            mknod(&gone, SFlag::S_IFCHR, Mode::from_bits_truncate(0o644), makedev(major, minor)).unwrap();
        };
        fs::remove_file(&gone).unwrap();
        again("missing");
        device(1, 3);
        again("not the kind of file that the commit has");
        // Root's, where it was another's.
        device(0, 0);
        again("not as in the commit (content, owner, mode or attributes)");
        fs::write(&gone, "").unwrap();
        again("not the kind of file that the commit has");
        symlink("x", &gone).unwrap();
        again("not the kind of file that the commit has");
        // As libostree left it before v2022.6.
        let quoted = sysroot.at("usr/share/layer/.ostree-wh.gone");
        fs::write(&quoted, "").unwrap();
        nix::unistd::chown(&quoted, Some(5.into()), Some(6.into())).unwrap();
        assert_eq!(sysroot.faults(), [""; 0], "{suite:?}");
        device(0, 0);
        assert_eq!(sysroot.faults(), ["/usr/share/layer/gone: not in the commit"], "{suite:?}");
    }
}

/// An initramfs that was laid over the deployment's own is held against its name.
#[test]
fn initramfs_overlays() {
    for suite in TOOLS {
        let files = tempfile::tempdir().unwrap();
        let overlay = files.path().join("overlay.img");
        fs::write(&overlay, "an archive of the device's own").unwrap();
        let option = format!("--overlay-initrd={}", overlay.display());
        let sysroot = Sysroot::with(suite, &|_| {}, &[&option]);
        let initrds = &sysroot.deployment.boot_files.initrds;
        assert_eq!(initrds.len(), 2, "{initrds:?}");
        assert_eq!(sysroot.faults(), [""; 0], "{suite:?}");
        let named = initrds.iter().find(|path| path.contains("initramfs-overlays")).unwrap();
        let place = sysroot.root.join("boot").join(named.trim_start_matches('/'));
        for content in ["an archive of the device's owm", "", "an archive of the device's own, and more"] {
            fs::write(&place, content).unwrap();
            assert_eq!(
                sysroot.faults(),
                [format!("boot{named}: not the file of the deployment")],
                "{suite:?}"
            );
        }
        fs::remove_file(&place).unwrap();
        assert_eq!(sysroot.faults(), [format!("boot{named}: cannot be read: No such file or directory")]);
    }
}
