//! Everything broken, and nobody there: recovery brings a signed commit and the device boots it.

use std::path::PathBuf;

use super::fixture::{Disks, Env, LABEL, disks, small_sysroot, small_tree};
use super::guardian::{MODULES, initramfs_and, kernel};
use super::keys::Pair;
use super::nginx::{Nginx, certificates, free_port};
use super::scenes::{ANSWER, BOOT};
use super::tools::{as_root, empty_dir, prepared, run};
use super::vm::{Machine, Setup, Vm};
use super::web::Web;
use super::{Fault, Outcome};

/// Every deployment and every object is gone; `/var` is not.
pub const DESTROYED: &str = "rm -rf ostree/deploy/lab/deploy/* ostree/repo/objects/* ostree/repo/refs/heads/*
    echo precious >ostree/deploy/lab/var/precious";
/// How the bootloader would start it, whatever is on the disk.
const COMMAND_LINE: &str = "console=ttyAMA0 root=LABEL=otaroot rw panic=-1";
/// Recovery may take so many kB of memory: the rest of 64 MiB is the initramfs and its files.
const MEMORY_MAX: u64 = 24 << 10;
/// Recovery has so many seconds.
pub const RECOVERS: u64 = 90;

/// What a server, or a stick, has: version 3, signed.
pub struct Published {
    /// The archive repository.
    pub repo: PathBuf,
    /// The directory with the public key.
    pub keys: PathBuf,
    /// The commit.
    pub commit: String,
}

/// Publishes version 3, with the real `ostree`.
///
/// # Errors
/// When a tool fails.
pub fn published(name: &str) -> Outcome<Published> {
    published_with(name, "")
}

/// The same, with what a shell has done in its tree before.
///
/// # Errors
/// When a tool fails.
pub fn published_with(name: &str, script: &str) -> Outcome<Published> {
    let dir = empty_dir(name)?;
    let tree = small_tree(&format!("{name}-tree"), "3", &kernel(Machine::Arm64)?, Machine::Arm64)?;
    run(as_root("sh").args(["-ec", &format!("cd \"$1\"; {script}"), "sh"]).arg(&tree))?;
    let repo = dir.join("repo");
    let at = format!("--repo={}", repo.display());
    run(as_root("ostree").args([&at, "init", "--mode=archive"]))?;
    // What the device has already, too.
    run(as_root("ostree").args([&at, "pull-local"]).arg(small_sysroot()?.join("ostree/repo")).arg("lab"))?;
    let mut commit = as_root("ostree");
    commit.args([
        &at,
        "commit",
        "--branch=lab",
        "--no-xattrs",
        "--subject=3",
        "--add-metadata-string=version=3",
    ]);
    commit.args(["--owner-uid=0", "--owner-gid=0", "--timestamp=2026-01-03 00:00:00Z"]);
    let commit = run(commit.arg(format!("--tree=dir={}", tree.display())))?.trim().to_string();
    let pair = Pair::new(&dir.join("keys"), "lab")?;
    let object = repo.join("objects").join(super::keys::object(&commit)?);
    pair.sign(&object.with_extension("commit"), &object.with_extension("commitmeta"))?;
    Ok(Published { repo, keys: dir.join("keys"), commit })
}

/// One device to recover.
pub struct Device<'a> {
    /// Names of its files.
    pub name: &'a str,
    /// What it trusts.
    pub published: &'a Published,
    /// Shell in its sysroot.
    pub damage: &'a str,
    /// More modules.
    pub modules: &'a [&'a str],
    /// `bootward.toml` but for root and keys: lines of `[recovery]`, then other sections.
    pub config: String,
    /// More for QEMU.
    pub extra: Vec<String>,
}

impl Device<'_> {
    /// The machine, not started.
    ///
    /// # Errors
    /// When something does not build.
    pub fn setup(&self) -> Outcome<Setup> {
        self.setup_with(&[])
    }

    /// The same, with more files in the initramfs.
    ///
    /// # Errors
    /// When something does not build.
    pub fn setup_with(&self, files: &[String]) -> Outcome<Setup> {
        let options = files.iter().flat_map(|file| ["--add".to_string(), file.clone()]);
        self.setup_of(&options.collect::<Vec<_>>())
    }

    /// The same, with more options for the initramfs' builder.
    ///
    /// # Errors
    /// When something does not build.
    pub fn setup_of(&self, options: &[String]) -> Outcome<Setup> {
        let Disks { images, .. } = disks(
            self.name,
            &small_sysroot()?,
            self.damage,
            Env::Pair("bootcount=0 bootlimit=3 upgrade_available=0"),
            96,
        )?;
        let modules: Vec<&str> = MODULES.iter().chain(self.modules).copied().collect();
        let config = format!(
            "[root]\ntimeout = 20\n\n[recovery]\nref = \"lab\"\nkeys = \"/etc/bootward/keys/lab\"\nstateroot = \"lab\"
spread = 0\nwait_first = 2\narguments = [\"console=ttyAMA0\", \"root=LABEL={LABEL}\", \"rw\", \"panic=-1\"]\n{}",
            self.config
        );
        let busybox = format!("{}:/bin/busybox:755", prepared("busybox-arm64")?.display());
        let keys = self.published.keys.display().to_string();
        let mut more = vec!["--keys".to_string(), keys, "--add".into(), busybox];
        more.extend_from_slice(options);
        let initramfs =
            initramfs_and(Machine::Arm64, &format!("aarch64-{}", self.name), &modules, &config, &more)?;
        Ok(Setup {
            name: self.name.into(),
            machine: Machine::Arm64,
            memory: 256,
            firmware: None,
            kernel: kernel(Machine::Arm64)?.image,
            initramfs,
            command_line: COMMAND_LINE.into(),
            disks: images,
            extra: self.extra.clone(),
            live: false,
        })
    }
}

impl Device<'_> {
    /// Everything is destroyed but `/var`: it heals by itself, and the ledger says one of these.
    ///
    /// # Errors
    /// When anything else happens.
    pub fn heals(&self, told: &[&str]) -> Outcome<String> {
        self.heals_in(&self.setup()?, told)
    }

    fn heals_in(&self, setup: &Setup, told: &[&str]) -> Outcome<String> {
        let mut vm = setup.start()?;
        vm.expect("no deployment is bootable", BOOT)?;
        self.is_healed(&mut vm, setup, told)
    }

    /// It heals from here on.
    ///
    /// # Errors
    /// When anything else happens.
    pub fn is_healed(&self, vm: &mut Vm, setup: &Setup, told: &[&str]) -> Outcome<String> {
        vm.expect("[os] up: 3", RECOVERS)?;
        vm.expect("lab# ", ANSWER)?;
        vm.type_line("cat /var/precious; dmesg | grep 'of memory at most'")?;
        vm.expect("\nprecious", ANSWER)?;
        let memory = vm.expect_line("bootward: recovery: ", ANSWER)?;
        let kilobytes: u64 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
        if kilobytes > MEMORY_MAX {
            return Err(vm.failure(&format!("recovery took {memory}")));
        }
        looks_around(vm, told)?;
        is_clean(self.name, &setup.disks, &self.published.commit)?;
        Ok(format!("{} healed itself, {memory}", self.name))
    }
}

impl Published {
    /// What a server sends of it at least.
    ///
    /// # Errors
    /// When it cannot be looked through.
    pub fn bytes(&self) -> Outcome<u64> {
        let script = "find \"$1/objects\" -type f -printf '%s\\n' | awk '{ s += $1 } END { print s }'";
        let sum = run(as_root("sh").args(["-c", script, "sh"]).arg(&self.repo))?;
        sum.trim().parse().map_err(|e| Fault::new(format!("{sum}: {e}")))
    }
}

/// QEMU's own network, in which the host's loopback is 10.0.2.2.
pub fn ethernet() -> Vec<String> {
    ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"].map(String::from).into()
}

/// Version 3 is up: looks around in it, reads the ledger, and switches the machine off.
///
/// # Errors
/// When anything else happens.
pub fn looks_around(vm: &mut Vm, told: &[&str]) -> Outcome<()> {
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("bootward log; echo log-$((1+1))")?;
    let log = vm.expect("log-2", ANSWER)?;
    let any = |needed: &&str| log.contains(*needed);
    if !told.iter().any(any) || !log.contains(" booting ") || !log.contains("deployed ") {
        return Err(vm.failure(&format!("the ledger says nothing of '{}'", told.join("' or '"))));
    }
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("bootward verify; echo verify-$?-$((1+1))")?;
    if !vm.expect("-2", BOOT)?.ends_with("verify-0-2") {
        return Err(vm.failure("bootward verify does not find the recovered deployment whole"));
    }
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)
}

/// What the real `ostree` says of the disk afterwards.
///
/// # Errors
/// When it finds anything wrong, or the deployment is not there.
pub fn is_clean(name: &str, disks: &[PathBuf], commit: &str) -> Outcome<()> {
    let image = disks.first().ok_or_else(|| Fault::new("there is no disk"))?;
    let out = empty_dir(&format!("{name}-after"))?;
    run(as_root("e2fsck").args(["-p"]).arg(image))
        .or_else(|_| run(as_root("e2fsck").args(["-fn"]).arg(image)))?;
    let dump = format!("rdump / {}", out.display());
    run(as_root("debugfs").args(["-R", &dump]).arg(image))?;
    let repo = format!("--repo={}", out.join("ostree/repo").display());
    run(as_root("ostree").args(["fsck", &repo]))?;
    let status = run(as_root("ostree").args(["admin", "status", "--sysroot"]).arg(&out))?;
    if status.contains(commit) { Ok(()) } else { Err(Fault::new(format!("ostree admin status: {status}"))) }
}

/// Everything is destroyed: recovered over Ethernet.
///
/// # Errors
/// When anything else happens.
pub fn over_ethernet() -> Outcome<String> {
    let published = published("recovery-ethernet-published")?;
    let web = Web::start(&published.repo)?;
    let device = Device {
        name: "recovery-ethernet",
        published: &published,
        damage: DESTROYED,
        modules: &["virtio_net"],
        config: format!("urls = [\"{}\"]\n", web.url()),
        extra: ethernet(),
    };
    let healed = device.heals(&["eth0: fetched "])?;
    let asked = web.take();
    Ok(format!("{healed}, {} requests, {} kB", asked.paths.len(), asked.bytes / 1000))
}

/// A stick with FAT, as it comes from the shop, and the repository on it.
fn stick(published: &Published, name: &str) -> Outcome<PathBuf> {
    let image = empty_dir(name)?.join("stick.img");
    let script = "set -e; truncate -s 64M \"$1\"; mkfs.vfat -n STICK \"$1\" >/dev/null
        mmd -i \"$1\" ::bootward; mcopy -s -Q -i \"$1\" \"$2\" ::bootward/repo; chmod 666 \"$1\"";
    run(as_root("sh").args(["-c", script, "sh"]).arg(&image).arg(&published.repo))?;
    Ok(image)
}

/// Everything is destroyed, there is no network: recovered from a stick.
///
/// # Errors
/// When anything else happens.
pub fn from_usb() -> Outcome<String> {
    let published = published("recovery-usb-published")?;
    let drive =
        format!("if=none,id=stick,format=raw,file={}", stick(&published, "recovery-usb-stick")?.display());
    let device = Device {
        name: "recovery-usb",
        published: &published,
        damage: DESTROYED,
        modules: &["xhci_pci", "usb_storage", "sd_mod", "vfat", "nls_cp437", "nls_ascii"],
        config: String::new(),
        extra: ["-device", "qemu-xhci", "-drive", &drive, "-device", "usb-storage,drive=stick,removable=on"]
            .map(String::from)
            .into(),
    };
    device.heals(&["/dev/sda1: fetched ", "/dev/sda: fetched "])
}

/// The root's filesystem is gone, and a fresh one may be made.
///
/// # Errors
/// When anything else happens.
pub fn from_nothing() -> Outcome<String> {
    let published = published("recovery-nothing-published")?;
    let web = Web::start(&published.repo)?;
    let device = Device {
        name: "recovery-nothing",
        published: &published,
        damage: "",
        modules: &["virtio_net"],
        config: format!(
            "urls = [\"{}\"]\ndevice = \"/dev/vda\"\nformat = true\nmkfs = \"/bin/busybox mke2fs -L {LABEL}\"\n",
            web.url()
        ),
        extra: ethernet(),
    };
    let setup = device.setup()?;
    let disk = setup.disks.first().ok_or_else(|| Fault::new("there is no disk"))?;
    run(as_root("dd")
        .args(["if=/dev/urandom", "bs=1M", "count=32", "conv=notrunc"])
        .arg(format!("of={}", disk.display())))?;
    let mut vm = setup.start()?;
    vm.expect("[os] up: 3", RECOVERS)?;
    looks_around(&mut vm, &["a fresh filesystem was made on /dev/vda", "eth0: fetched "])?;
    is_clean(device.name, &setup.disks, &published.commit)?;
    Ok("the root was filled from nothing".into())
}

/// One bit of one object is wrong, which both deployments have: mended with a fetch of that object and nothing else.
///
/// # Errors
/// When anything else happens.
pub fn one_object() -> Outcome<String> {
    let published = published("recovery-object-published")?;
    let web = Web::start(&published.repo)?;
    let device = Device {
        name: "recovery-object",
        published: &published,
        damage: "f=$new/usr/bin/busybox; b=$(od -An -tu1 -j 500000 -N 1 $f)
            printf \"\\\\$(printf %o $((b ^ 16)))\" | dd of=$f bs=1 seek=500000 conv=notrunc status=none",
        modules: &["virtio_net"],
        config: format!("urls = [\"{}\"]\n\n[verify]\nlevel = \"full\"\n", web.url()),
        extra: ethernet(),
    };
    let setup = device.setup()?;
    let mut vm = setup.start()?;
    vm.expect("no deployment is bootable", BOOT)?;
    vm.expect("[os] up: 2", RECOVERS)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("bootward log; echo log-$((1+1))")?;
    if !vm.expect("log-2", ANSWER)?.contains("eth0: mended lab ") {
        return Err(vm.failure("the ledger does not say that it was mended"));
    }
    vm.type_line("bootward verify; echo verify-$?-$((1+1))")?;
    if !vm.expect("-2", BOOT)?.ends_with("verify-0-2") {
        return Err(vm.failure("bootward verify does not find the mended deployment whole"));
    }
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    is_clean(device.name, &setup.disks, "")?;
    let asked = web.take();
    let objects = asked.paths.iter().filter(|path| path.ends_with(".filez")).count();
    if objects != 1 || asked.paths.len() > 3 {
        return Err(Fault::new(format!("it asked for {:?}", asked.paths)));
    }
    Ok(format!(
        "mended with {} requests, {} kB of {}",
        asked.paths.len(),
        asked.bytes / 1000,
        published.bytes()? / 1000
    ))
}

/// Over HTTPS from nginx, which asks for the device's own certificate, with a private CA and a clock that begins in 1970.
///
/// # Errors
/// When anything else happens.
pub fn over_https() -> Outcome<String> {
    let published = published("recovery-https-published")?;
    let dir = empty_dir("recovery-https-server")?;
    certificates(&dir)?;
    let port = free_port()?;
    let _nginx = Nginx::start(&dir, &published.repo, port)?;
    let device = Device {
        name: "recovery-https",
        published: &published,
        damage: DESTROYED,
        modules: &["virtio_net"],
        config: format!(
            "urls = [\"https://10.0.2.2:{port}/\"]\nca = \"/etc/bootward/ca.pem\"\ncert = \"/etc/bootward/device.pem\"
cert_key = \"/etc/bootward/device.key\"\n"
        ),
        extra: ethernet().into_iter().chain(["-rtc", "base=1970-01-01T00:00:00"].map(String::from)).collect(),
    };
    let setup = device.setup_with(
        &["ca.pem", "device.pem", "device.key"]
            .map(|name| format!("{}:/etc/bootward/{name}:600", dir.join(name).display())),
    )?;
    let healed = device.heals_in(&setup, &["eth0: fetched "])?;
    let log = super::tools::read(&dir.join("access.log"))?;
    if !log.contains("CN=device") {
        return Err(Fault::new(format!("nginx was not shown the device's certificate: {log}")));
    }
    Ok(format!("{healed}, over HTTPS with its own certificate, from 1970 on"))
}
