//! Composefs images on a file system with fs-verity. With `enabled=signed` the image that was signed boots, and no
//! other; with `enabled=verity` any image, but what it shows is what it was made of.
//!
//! The sysroot is made by Debian 14's ostree with images that have the objects' digests, and the commits are signed
//! by openssl. fs-verity cannot be enabled on this machine: the system itself does it, in a first boot without
//! composefs. After that each scene changes a copy of the disk with debugfs, as nobody could from within.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::fixture::{LABEL, STATEROOT, boot_options, filesystem, small_tree};
use super::guardian::{MODULES, initramfs, initramfs_and, kernel};
use super::keys::{Pair, deployments, object};
use super::scenes::{ANSWER, BOOT};
use super::tools::{as_root, empty_dir, lab, run, write};
use super::vm::{Machine, Setup, Vm};
use super::{Fault, Outcome};

/// Seconds until every object has its digest.
const SEAL: u64 = 120;
/// Where each scene looks for `large`, a file that is not within the image.
const LARGE: &str = "usr/lib/large";

struct Scene {
    name: &'static str,
    /// Commands for debugfs; `{image}`, `{meta}` and `{old}` are the newest deployment's image, the detached metadata
    /// of its commit and the other deployment's image.
    damage: &'static str,
    /// Flip a byte of the newest deployment's `large`.
    flip: bool,
    /// Added to the command line.
    argument: &'static str,
    /// The initramfs asks for `enabled=verity`, else for `signed`.
    unsigned: bool,
    /// The version that boots; 0: recovery.
    boots: u32,
    /// What must be said.
    said: &'static str,
}

const fn scene(name: &'static str, damage: &'static str, boots: u32, said: &'static str) -> Scene {
    Scene { name, damage, flip: false, argument: "", unsigned: false, boots, said }
}

const SCENES: [Scene; 12] = [
    scene("verity-good", "", 2, "handing over"),
    scene(
        "verity-image-unsealed",
        "dump {image} {copy}\nrm {image}\nwrite {copy} {image}",
        1,
        "fs-verity is not enabled",
    ),
    scene("verity-another-image", "rm {image}\nln {old} {image}", 1, "not the one that was signed"),
    scene("verity-image-gone", "rm {image}", 1, "no composefs image"),
    scene("verity-unsigned", "rm {meta}", 1, "its commit is not signed"),
    Scene { flip: true, ..scene("verity-flipped-byte", "", 2, "handing over") },
    Scene {
        argument: " ostree.prepare-root.composefs=no",
        ..scene("verity-weakened", "", 0, "would switch off the verification")
    },
    Scene { unsigned: true, ..scene("verity-only-good", "", 2, "handing over") },
    Scene { unsigned: true, flip: true, ..scene("verity-only-flipped-byte", "", 2, "handing over") },
    // Nobody vouches for the image itself: one without a digest boots, and so does the other deployment's.
    Scene {
        unsigned: true,
        ..scene(
            "verity-only-image-unsealed",
            "dump {image} {copy}\nrm {image}\nwrite {copy} {image}",
            2,
            "handing over",
        )
    },
    Scene {
        unsigned: true,
        ..scene("verity-only-another-image", "rm {image}\nln {old} {image}", 1, "handing over")
    },
    Scene {
        unsigned: true,
        argument: " ostree.prepare-root.composefs=no",
        ..scene("verity-only-weakened", "", 0, "would switch off the verification")
    },
];

/// A sealed disk.
struct Sealed {
    disk: PathBuf,
    options: String,
    /// That takes a signed image only.
    signed: PathBuf,
    /// That takes any image on verified objects.
    unsigned: PathBuf,
    /// The deployments, version 2 first.
    deployments: [String; 2],
}

/// Plays all of it.
///
/// # Errors
/// Everything that is not as it must be.
pub fn play() -> Outcome<Vec<String>> {
    let sealed = seal()?;
    let (mut happened, mut faults) = (Vec::new(), Vec::new());
    for scene in &SCENES {
        match scene.play(&sealed) {
            Ok(line) => happened.push(line),
            Err(fault) => faults.push(format!("{}: {fault}", scene.name)),
        }
    }
    if faults.is_empty() { Ok(happened) } else { Err(Fault::new(faults.join("\n\n"))) }
}

/// Linux 6.1 mounts no image without a loop device and knows no data-only layers: composefs without verification works
/// there all the same.
///
/// # Errors
/// When it does not boot.
pub fn old_kernel() -> Outcome<String> {
    let dir = empty_dir("composefs-old")?;
    let sysroot = sysroot(&dir, &oracle()?, Machine::Arm64)?;
    let config = dir.join("prepare-root.conf");
    write(&config, "[composefs]\nenabled=yes\n")?;
    let more = ["--prepare-root-conf".into(), config.display().to_string()];
    let initramfs =
        initramfs_and(Machine::Arm64, "aarch64-composefs", &modules(), "[root]\ntimeout = 20\n", &more)?;
    let disk = dir.join("root.img");
    filesystem(&sysroot, &disk, 160)?;
    let setup = machine("composefs-old", &initramfs, boot_options(&sysroot)?, disk)?;
    let kernel = kernel(Machine::Arm64)?;
    let mut vm = Setup { machine: Machine::Arm64, kernel: kernel.image, ..setup }.start()?;
    vm.expect("[os] up: 2", BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line(&format!("cat /{LARGE} >/run/read && mount && echo whole-$((1+1))"))?;
    let mounts = vm.expect("whole-2", ANSWER)?;
    let root = mounts.lines().rfind(|line| line.starts_with("composefs on / ")).unwrap_or_default();
    let layers = "lowerdir=/run/ostree/.private/cfsroot-lower:/sysroot/ostree/repo/objects";
    if !root.contains(layers) {
        return Err(vm.failure(&format!("the root is no composefs: '{root}'")));
    }
    end(&mut vm)?;
    Ok(format!("Linux {} has a composefs root", kernel.release))
}

fn modules() -> Vec<&'static str> {
    MODULES.iter().chain(&["erofs", "overlay", "loop"]).copied().collect()
}

fn machine(name: &str, initramfs: &Path, options: String, disk: PathBuf) -> Outcome<Setup> {
    Ok(Setup {
        name: name.into(),
        machine: Machine::Amd64,
        memory: 512,
        firmware: None,
        kernel: kernel(Machine::Amd64)?.image,
        initramfs: initramfs.into(),
        command_line: options,
        disks: vec![disk],
        extra: Vec::new(),
        live: false,
    })
}

fn seal() -> Outcome<Sealed> {
    let dir = empty_dir("verity")?;
    let oracle = oracle()?;
    let sysroot = sysroot(&dir, &oracle, Machine::Amd64)?;
    let options = boot_options(&sysroot)?;
    let deployments = deployments(&sysroot)?;
    let signed = protected(&dir, &sysroot, &deployments)?;
    let config = dir.join("verity.conf");
    write(&config, "[composefs]\nenabled=verity\n")?;
    let more = ["--prepare-root-conf".into(), config.display().to_string()];
    let unsigned =
        initramfs_and(Machine::Amd64, "x86_64-verity", &modules(), "[root]\ntimeout = 20\n", &more)?;
    let disk = dir.join("root.img");
    let mut mke2fs = as_root("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-b", "4096", "-O", "verity", "-L", LABEL, "-E", "lazy_itable_init=0"]);
    run(mke2fs.arg("-d").arg(&sysroot).arg(&disk).arg("160M"))?;
    run(as_root("chmod").arg("666").arg(&disk))?;
    let mut vm =
        machine("verity-seal", &initramfs(Machine::Amd64)?, options.clone(), disk.clone())?.start()?;
    vm.expect("[os] up: 2", BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("mount -o remount,rw /sysroot; cd /sysroot/ostree; busybox find repo/objects -type f -name '*.file' >/run/l")?;
    vm.type_line("ls -d deploy/*/deploy/*.?/.ostree.cfs >>/run/l; while read f; do fsverity enable $f || echo bad-$f; done </run/l")?;
    vm.type_line("sync; echo sealed-$((1+1)) $(cat /run/l | busybox wc -l)")?;
    let enabled = vm.expect("sealed-2", SEAL)?;
    if enabled.lines().any(|line| line.starts_with("bad-")) {
        return Err(vm.failure("fs-verity cannot be enabled"));
    }
    end(&mut vm)?;
    // It ended without unmounting: the journal is replayed before debugfs looks at the blocks.
    let checked =
        as_root("sh").args(["-c", "e2fsck -fy \"$1\" >&2 || [ $? -le 1 ]", "sh"]).arg(&disk).status();
    if !checked.is_ok_and(|status| status.success()) {
        return Err(Fault::new("e2fsck cannot make the sealed disk whole"));
    }
    Ok(Sealed { disk, options, signed, unsigned, deployments })
}

fn end(vm: &mut Vm) -> Outcome<()> {
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)
}

/// Debian 14's tools, unpacked as for the tests of `prepare-root`.
fn oracle() -> Outcome<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/prepare-oracle.sh");
    run(as_root(script).arg("forky").arg(lab()))?;
    Ok(lab().join("prepare-oracle-forky"))
}

/// Its `ostree`, with its own libraries.
fn ostree(oracle: &Path) -> Command {
    let mut command = as_root(oracle.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments");
    command
        .arg("--library-path")
        .arg(oracle.join("usr/lib/x86_64-linux-gnu"))
        .arg(oracle.join("usr/bin/ostree"));
    command
}

fn sysroot(dir: &Path, oracle: &Path, machine: Machine) -> Outcome<PathBuf> {
    let sysroot = dir.join("sysroot");
    let repo = format!("--repo={}", sysroot.join("ostree/repo").display());
    let at = format!("--sysroot={}", sysroot.display());
    run(Command::new("mkdir").arg(&sysroot))?;
    run(ostree(oracle).args(["admin", "init-fs"]).arg(&sysroot))?;
    run(ostree(oracle).args(["admin", "os-init", STATEROOT, &at]))?;
    for (key, value) in
        [("sysroot.bootloader", "none"), ("sysroot.readonly", "true"), ("ex-integrity.composefs", "yes")]
    {
        run(ostree(oracle).args([&repo, "config", "set", key, value]))?;
    }
    let kernel = kernel(machine)?;
    let console = if machine == Machine::Amd64 { "ttyS0" } else { "ttyAMA0" };
    for version in ["1", "2"] {
        let tree = small_tree(&format!("verity-tree-{console}-{version}"), version, &kernel, machine)?;
        // By the configuration in the tree the image has the objects' digests, as the signed one must.
        write(&tree.join("usr/lib/ostree/prepare-root.conf"), "[composefs]\nenabled=signed\n")?;
        write(&tree.join(LARGE), format!("version {version}\n").repeat(10_000))?;
        let script = "set -e; cd \"$1\"; ln -s usr/lib64 lib64; mkdir -p usr/lib64 usr/lib/x86_64-linux-gnu
            cp \"$2\"/usr/bin/fsverity usr/bin; cp \"$2\"/usr/lib64/ld-linux-x86-64.so.2 usr/lib64
            for l in fsverity crypto z zstd c; do cp \"$2\"/usr/lib/x86_64-linux-gnu/lib$l.so.* usr/lib/x86_64-linux-gnu; done";
        run(Command::new("sh").args(["-c", script, "sh"]).args([&tree, oracle]))?;
        let mut commit = ostree(oracle);
        commit.args([&repo, "commit", "--branch=lab", "--no-xattrs", "--generate-composefs-metadata"]);
        commit.args(["--subject", version, &format!("--timestamp=2026-01-0{version} 00:00:00Z")]);
        run(commit.arg(format!("--tree=dir={}", tree.display())))?;
        let root = format!("--karg=root=LABEL={LABEL}");
        let mut deploy = ostree(oracle);
        deploy.args(["admin", "deploy", "--os", STATEROOT, &at, &format!("--karg=console={console}"), &root]);
        run(deploy.args(["--karg=rw", "--karg=panic=-1", "lab"]))?;
    }
    Ok(sysroot)
}

/// Signs both commits, and makes an initramfs that takes nothing else.
fn protected(dir: &Path, sysroot: &Path, deployments: &[String; 2]) -> Outcome<PathBuf> {
    let pair = Pair::new(&dir.join("keys"), "lab")?;
    for name in deployments {
        let commit = sysroot.join("ostree/repo/objects").join(object(name)?).with_extension("commit");
        pair.sign(&commit, &commit.with_extension("commitmeta"))?;
    }
    let config = dir.join("prepare-root.conf");
    write(&config, "[composefs]\nenabled=signed\nkeypath=/etc/lab.key\n")?;
    let more = [
        "--prepare-root-conf".into(),
        config.display().to_string(),
        "--add".into(),
        format!("{}:/etc/lab.key", pair.public.display()),
    ];
    initramfs_and(Machine::Amd64, "x86_64-signed", &modules(), "[root]\ntimeout = 20\n", &more)
}

impl Scene {
    fn play(&self, sealed: &Sealed) -> Outcome<String> {
        let disk = empty_dir(self.name)?.join("root.img");
        run(Command::new("cp").arg("--sparse=always").arg(&sealed.disk).arg(&disk))?;
        self.harm(sealed, &disk)?;
        let options = format!("{}{}", sealed.options, self.argument);
        let initramfs = if self.unsigned { &sealed.unsigned } else { &sealed.signed };
        let mut vm = machine(self.name, initramfs, options, disk)?.start()?;
        if self.boots == 0 {
            vm.expect("bootward: recovery: ", BOOT)?;
            vm.expect("bootward> ", ANSWER)?;
        } else {
            let up = vm.expect_line("[os] up: ", BOOT)?;
            if up != self.boots.to_string() {
                return Err(
                    vm.failure(&format!("{}: version {up} came up and not {}", self.name, self.boots))
                );
            }
            vm.expect("lab# ", ANSWER)?;
        }
        let said = vm.transcript().to_string();
        if !said.lines().any(|line| line.contains("bootward: ") && line.contains(self.said)) {
            return Err(vm.failure(&format!("{}: nothing was said of '{}'", self.name, self.said)));
        }
        if self.boots > 0 {
            self.look_around(&mut vm)?;
        }
        let read = if self.flip { ", and reading the changed object fails" } else { "" };
        Ok(format!("{}: {}{read}", self.name, self.said))
    }

    fn look_around(&self, vm: &mut Vm) -> Outcome<()> {
        vm.type_line("cat /proc/self/mountinfo; echo mounts-$((1+1))")?;
        let mounts = vm.expect("mounts-2", ANSWER)?;
        let root =
            mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default().to_string();
        if !root.contains(" - overlay composefs ")
            || !root.contains("verity=require")
            || !root.contains(" / / ro")
        {
            return Err(vm.failure(&format!("{}: this is no verified root: {root}", self.name)));
        }
        vm.type_line(&format!("cat /{LARGE} >/run/read && echo whole-$((1+1)) || echo damaged-$((1+1))"))?;
        vm.expect(if self.flip { "damaged-2" } else { "whole-2" }, ANSWER)?;
        vm.type_line("cat /run/ostree-booted | busybox strings; readlink /run/systemd/volatile-root; echo booted-$((1+1))")?;
        let booted = vm.expect("booted-2", ANSWER)?;
        for (key, said) in [
            ("composefs.signed", !self.unsigned),
            ("/etc/lab.key", !self.unsigned),
            ("composefs.verity", true),
            ("/dev/block/", true),
        ] {
            if booted.contains(key) != said {
                return Err(vm.failure(&format!("{}: {key} in /run: {}, not {said}", self.name, !said)));
            }
        }
        vm.type_line("bootward status | grep '^[*] '; echo status-$((1+1))")?;
        let status = vm.expect("status-2", ANSWER)?;
        if !status.lines().any(|line| line.starts_with("* ")) {
            return Err(vm.failure("bootward status does not mark the booted deployment"));
        }
        end(vm)
    }

    fn harm(&self, sealed: &Sealed, disk: &Path) -> Outcome<()> {
        let [new, old] = &sealed.deployments;
        let place = |name: &str| format!("/ostree/deploy/{STATEROOT}/deploy/{name}");
        let debugfs = |write: bool, command: &str| {
            let mut debugfs = as_root("debugfs");
            debugfs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(if write { &["-w"][..] } else { &[] });
            run(debugfs.arg("-R").arg(command).arg(disk))
        };
        for command in self.damage.lines() {
            let command = command
                .replace("{image}", &format!("{}/.ostree.cfs", place(new)))
                .replace("{old}", &format!("{}/.ostree.cfs", place(old)))
                .replace("{copy}", &disk.with_file_name("copy").display().to_string())
                .replace("{meta}", &format!("/ostree/repo/objects/{}.commitmeta", object(new)?.display()));
            debugfs(true, &command)?;
        }
        if !self.flip {
            return Ok(());
        }
        let blocks = debugfs(false, &format!("blocks {}/{LARGE}", place(new)))?;
        let first: Option<u64> = blocks.split_whitespace().next().and_then(|block| block.parse().ok());
        let first = first.ok_or_else(|| Fault::new(format!("{LARGE} has no blocks: {blocks}")))?;
        let script = "printf X | dd of=\"$1\" bs=1 seek=\"$2\" conv=notrunc status=none";
        run(Command::new("sh").args(["-c", script, "sh"]).arg(disk).arg((first * 4096 + 100).to_string()))
            .map(|_| ())
    }
}
