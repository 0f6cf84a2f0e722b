//! Sysroots made by the real `ostree`, and the disks that hold them: no mounts, no loop devices.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

use super::guardian::{Kernel, binary, kernel};
use super::tools::{as_root, empty_dir, lab, prepared, read, run, write};
use super::vm::Machine;
use super::{Fault, Outcome};

/// The stateroot of every fixture.
pub const STATEROOT: &str = "lab";
/// The label of the physical root.
pub const LABEL: &str = "otaroot";
/// Size of one copy of the environment.
const ENV_SIZE: usize = 0x4000;

/// What busybox is called in the small system.
const APPLETS: &str = "sh cat cp dd df echo env false grep head hexdump id kill ln ls mkdir mount mv ps pwd readlink reboot \
    rm sed sleep stat sync tail touch true tty umount uname poweroff";

/// The small system's init: says what it is and leaves the console to whoever types.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/bin:/usr/sbin HOME=/var PS1='lab# '
. /usr/lib/os-release
[ -e /proc/self ] || mount -t proc proc /proc
echo "[os] up: $VERSION"
echo "[os] cmdline: $(cat /proc/cmdline)"
exec sh -i
"#;

/// The U-Boot environment on the second disk.
#[derive(Clone, Copy, Debug)]
pub enum Env {
    /// There is no second disk.
    None,
    /// A redundant pair with these variables.
    Pair(&'static str),
    /// The same, with a byte of the first copy's data flipped.
    FirstCorrupt(&'static str),
    /// Both copies have a flipped byte.
    BothCorrupt(&'static str),
    /// The disk ends within the first copy.
    Short,
    /// Neither copy was ever an environment.
    Garbage,
}

/// A sysroot on disk images, ready to be started.
#[derive(Clone, Debug)]
pub struct Disks {
    /// vda, and vdb where there is an environment.
    pub images: Vec<PathBuf>,
    /// What the bootloader would pass: the options of the first boot entry.
    pub options: String,
}

/// One user of the laboratory at a time: the images have fixed names.
///
/// # Errors
/// When there is another.
pub fn occupy() -> Outcome<()> {
    static LOCK: OnceLock<Result<Flock<File>, String>> = OnceLock::new();
    let held = LOCK.get_or_init(|| {
        let path = lab().join("run.lock");
        let file = File::create(&path).map_err(|e| Fault::file("write", &path, &e).to_string())?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| format!("another run uses the laboratory ({}: {e})", path.display()))
    });
    held.as_ref().map(|_| ()).map_err(Fault::new)
}

/// The small system, deployed twice: version 1, and version 2 on top of it. Built once a run.
///
/// # Errors
/// When a tool is missing or fails.
pub fn small_sysroot() -> Outcome<PathBuf> {
    static BASE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BASE.get_or_init(|| build_small().map_err(|fault| fault.to_string())).clone().map_err(Fault::new)
}

fn build_small() -> Outcome<PathBuf> {
    let kernel = kernel(Machine::Arm64)?;
    let sysroot = init_sysroot("small")?;
    for version in ["1", "2"] {
        let tree = small_tree(&format!("tree-{version}"), version, &kernel, Machine::Arm64)?;
        let root = format!("root=LABEL={LABEL}");
        deploy(&sysroot, &tree, version, &["console=ttyAMA0", &root, "rw", "panic=-1"])?;
    }
    Ok(sysroot)
}

/// The small system's tree of this version for `machine`, in a directory of this name.
///
/// # Errors
/// When a tool is missing or fails.
pub fn small_tree(name: &str, version: &str, kernel: &Kernel, machine: Machine) -> Outcome<PathBuf> {
    let tree = empty_dir(name)?;
    let modules = format!("usr/lib/modules/{}", kernel.release);
    let dirs = "usr/bin usr/sbin usr/etc sysroot var proc sys dev run boot tmp";
    let links = "usr/bin:bin usr/sbin:sbin usr/lib:lib sysroot/ostree:ostree";
    let script = format!(
        "set -e; cd \"$1\"; mkdir -p {modules} {dirs}; cp \"$2\" usr/bin/busybox; cp \"$3\" usr/bin/bootward
         for applet in {APPLETS}; do ln -s busybox usr/bin/$applet; done
         for link in {links}; do ln -s ${{link%:*}} ${{link#*:}}; done
         chmod 755 usr/bin/busybox usr/bin/bootward"
    );
    let busybox = match machine {
        Machine::Arm64 => prepared("busybox-arm64")?,
        // The laboratory's own machine is one, and has it from busybox-static.
        Machine::Amd64 => PathBuf::from("/bin/busybox"),
    };
    run(Command::new("sh").args(["-c", &script, "sh"]).args([&tree, &busybox, &binary(machine)?]))?;
    write(&tree.join("usr/sbin/init"), INIT)?;
    run(Command::new("chmod").arg("755").arg(tree.join("usr/sbin/init")))?;
    let release = format!("ID=lab\nNAME=Lab\nVERSION={version}\nPRETTY_NAME=\"Lab {version}\"\n");
    write(&tree.join("usr/lib/os-release"), release)?;
    write(&tree.join("usr/etc/version"), format!("{version}\n"))?;
    // QEMU loads the kernel itself. These only have to make the two boot checksums differ.
    write(&tree.join(&modules).join("vmlinuz"), "stand-in kernel\n")?;
    write(&tree.join(&modules).join("initramfs.img"), format!("stand-in initramfs {version}\n"))?;
    Ok(tree)
}

/// A new sysroot with a stateroot and a `bare` repository.
///
/// # Errors
/// When `ostree` fails.
pub fn init_sysroot(name: &str) -> Outcome<PathBuf> {
    occupy()?;
    let sysroot = empty_dir(&format!("sysroot-{name}"))?;
    let repo = format!("--repo={}", sysroot.join("ostree/repo").display());
    run(as_root("ostree").args(["admin", "init-fs"]).arg(&sysroot))?;
    run(as_root("ostree").args(["admin", "os-init", STATEROOT, "--sysroot"]).arg(&sysroot))?;
    run(as_root("ostree").args([&repo, "config", "set", "sysroot.bootloader", "none"]))?;
    run(as_root("ostree").args([&repo, "config", "set", "sysroot.readonly", "true"]))?;
    Ok(sysroot)
}

/// Commits `tree` and deploys it on top of what is there.
///
/// # Errors
/// When `ostree` fails.
pub fn deploy(sysroot: &Path, tree: &Path, version: &str, kargs: &[&str]) -> Outcome<()> {
    let repo = format!("--repo={}", sysroot.join("ostree/repo").display());
    let mut commit = as_root("ostree");
    commit.args([&repo, "commit", "--branch=lab", "--no-xattrs", "--subject", version]);
    commit.arg(format!("--add-metadata-string=version={version}"));
    commit.arg(format!("--timestamp=2026-01-0{version} 00:00:00Z"));
    run(commit.arg(format!("--tree=dir={}", tree.display())))?;
    let mut deploy = as_root("ostree");
    // Without this the deployment is immutable and could be neither broken nor removed.
    deploy.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments");
    deploy.args(["admin", "deploy", "--os", STATEROOT, "--sysroot"]).arg(sysroot);
    deploy.args(kargs.iter().map(|karg| format!("--karg={karg}"))).arg("lab");
    run(&mut deploy).map(|_| ())
}

/// A copy of `sysroot`, with `damage` done to it, as disk images named after `name`.
///
/// `damage` is shell, run in the sysroot; `$new` and `$old` are the deployments of versions 2 and 1.
///
/// # Errors
/// When a tool fails.
pub fn disks(name: &str, sysroot: &Path, damage: &str, env: Env, megabytes: u32) -> Outcome<Disks> {
    let dir = empty_dir(name)?;
    // Before the damage: the bootloader may have read what is gone now.
    let options = boot_options(sysroot)?;
    let copy = if damage.is_empty() {
        sysroot.to_path_buf()
    } else {
        let copy = dir.join("sysroot");
        run(as_root("cp").arg("-a").arg(sysroot).arg(&copy))?;
        let script = format!(
            "set -e; cd \"$1\"
             of() {{ file=$(grep -lx \"$1\" ostree/deploy/lab/deploy/*.?/usr/etc/version); echo \"${{file%/usr/etc/version}}\"; }}
             new=$(of 2); old=$(of 1)
             {damage}"
        );
        run(as_root("sh").args(["-c", &script, "sh"]).arg(&copy))?;
        copy
    };
    let root = dir.join("root.img");
    filesystem(&copy, &root, megabytes)?;
    run(as_root("rm").arg("-rf").arg(dir.join("sysroot")))?;
    let mut images = vec![root];
    if let Some(image) = env_image(&dir, env)? {
        images.push(image);
    }
    Ok(Disks { images, options })
}

/// An ext4 image with everything that is in `from`.
///
/// # Errors
/// When `mke2fs` fails.
pub fn filesystem(from: &Path, image: &Path, megabytes: u32) -> Outcome<()> {
    let mut mke2fs = as_root("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-b", "4096", "-L", LABEL, "-E", "lazy_itable_init=0"]);
    run(mke2fs.arg("-d").arg(from).arg(image).arg(format!("{megabytes}M")))?;
    run(as_root("chmod").arg("666").arg(image)).map(|_| ())
}

/// The kernel command line of the first boot entry: what a bootloader without troubles would pass.
///
/// # Errors
/// When there is none.
pub fn boot_options(sysroot: &Path) -> Outcome<String> {
    let dir = sysroot.join("boot/loader/entries");
    let mut best: Option<(u32, String)> = None;
    let listed = std::fs::read_dir(&dir).map_err(|e| Fault::file("read", &dir, &e))?;
    for entry in listed.flatten() {
        let text = read(&entry.path())?;
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let version = field("version ").and_then(|v| v.parse().ok()).unwrap_or(0);
        if best.as_ref().is_none_or(|(highest, _)| version > *highest) {
            best = Some((version, field("options ").unwrap_or_default().to_string()));
        }
    }
    best.map(|(_, options)| options).ok_or_else(|| Fault::new(format!("{}: no boot entry", dir.display())))
}

fn env_image(dir: &Path, env: Env) -> Outcome<Option<PathBuf>> {
    let image = dir.join("env.img");
    let bytes = match env {
        Env::None => return Ok(None),
        Env::Pair(variables) => env_pair(dir, variables)?,
        Env::FirstCorrupt(variables) => flip(env_pair(dir, variables)?, &[64]),
        Env::BothCorrupt(variables) => flip(env_pair(dir, variables)?, &[64, ENV_SIZE + 64]),
        Env::Short => vec![0xff; 1024],
        Env::Garbage => (0..2 * ENV_SIZE).map(|i| (i * 31 % 251) as u8).collect(),
    };
    write(&image, bytes)?;
    Ok(Some(image))
}

fn env_pair(dir: &Path, variables: &str) -> Outcome<Vec<u8>> {
    let (text, copy) = (dir.join("env.txt"), dir.join("env.copy"));
    write(&text, format!("{}\n", variables.replace(' ', "\n")))?;
    run(Command::new("mkenvimage").args(["-r", "-s", &ENV_SIZE.to_string(), "-o"]).arg(&copy).arg(&text))?;
    let one = std::fs::read(&copy).map_err(|e| Fault::file("read", &copy, &e))?;
    Ok(one.repeat(2))
}

fn flip(mut bytes: Vec<u8>, offsets: &[usize]) -> Vec<u8> {
    for offset in offsets {
        if let Some(byte) = bytes.get_mut(*offset) {
            *byte ^= 0x55;
        }
    }
    bytes
}
