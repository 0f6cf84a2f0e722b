//! The scenes: a state of the device, and what must come of it on the serial console.

use std::path::PathBuf;

use super::breakages::{DEPLOYMENTS, ENVIRONMENTS};
use super::cuts;
use super::fixture::{Disks, Env, disks, small_sysroot};
use super::guardian::{MODULES, initramfs, initramfs_with, kernel};
use super::vm::{Machine, Setup, Vm};
use super::{Fault, Outcome};

/// Seconds until the guardian must have decided, and the system must be up.
pub const BOOT: u64 = 60;
/// Seconds for an answer at a prompt.
pub const ANSWER: u64 = 20;
/// Size of the small root, in megabytes.
const SMALL: u32 = 96;

/// What must happen.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// This version boots (0: any of them), and this was said on the console before.
    Boots(u32, &'static [&'static str]),
    /// Recovery, with these reasons on the console.
    Recovery(&'static [&'static str]),
    /// Disks of the power-cut laboratory: dead with libostree's initramfs, and a whole deployment boots with ours.
    Rescue,
}

/// One scene.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows, in one line.
    pub title: &'static str,
    /// The U-Boot environment.
    pub env: Env,
    /// Shell, run in the sysroot; `$new` and `$old` are the deployments.
    pub damage: &'static str,
    /// Sections for `bootward.toml`; empty: the configuration of the other scenes.
    pub config: &'static str,
    /// What must happen.
    pub expected: Expected,
}

/// An environment without troubles.
pub const GOOD: Env = Env::Pair("bootcount=0 bootlimit=3 upgrade_available=0 rollback=0");

/// Every byte is verified before a deployment boots.
pub const FULL: &str = "[verify]\nlevel = \"full\"\n";

/// One bit of the newest deployment's shell, in a copy: the file itself is one with the repository's object and with
/// the other deployment's.
const FLIPPED: &str = "f=$new/usr/bin/busybox; cp -a $f copy; mv copy $f; b=$(od -An -tu1 -j 500000 -N 1 $f)
    printf \"\\\\$(printf %o $((b ^ 16)))\" | dd of=$f bs=1 seek=500000 conv=notrunc status=none";

/// The tour of `make demo`.
pub const TOUR: [Scene; 7] = [
    Scene {
        name: "normal",
        title: "nothing is wrong: the newest deployment boots",
        env: GOOD,
        damage: "",
        config: "",
        expected: Expected::Boots(2, &[]),
    },
    Scene {
        name: "rollback",
        title: "the bootloader set rollback=1: the deployment before boots",
        env: Env::Pair("bootcount=0 bootlimit=3 upgrade_available=0 rollback=1"),
        damage: "",
        config: "",
        expected: Expected::Boots(1, &["rollback"]),
    },
    Scene {
        name: "bootcount",
        title: "a trial took more boots than bootlimit: the deployment before boots",
        env: Env::Pair("bootcount=4 bootlimit=3 upgrade_available=1 rollback=0"),
        damage: "",
        config: "",
        expected: Expected::Boots(1, &["bootcount"]),
    },
    Scene {
        name: "broken-first",
        title: "the newest deployment lost its usr: the one before boots",
        env: GOOD,
        damage: "rm -rf $new/usr",
        config: "",
        expected: Expected::Boots(1, &["usr"]),
    },
    Scene {
        name: "damaged",
        title: "one bit of a program flipped, and verification is on: the deployment before boots",
        env: GOOD,
        damage: FLIPPED,
        config: FULL,
        expected: Expected::Boots(1, &["it is not verified: /usr/bin/busybox: not as in the commit"]),
    },
    Scene {
        name: "broken-all",
        title: "no deployment is whole: recovery says why, and stays in control",
        env: GOOD,
        damage: "rm -rf $new/usr; rm $old/usr/sbin/init",
        config: "",
        expected: Expected::Recovery(&["usr", "init"]),
    },
    Scene {
        name: "power-cut",
        title: "libostree's own update, cut: its initramfs finds no root, bootward boots",
        env: Env::None,
        damage: "",
        config: "",
        expected: Expected::Rescue,
    },
];

/// The scene with this name.
///
/// # Errors
/// When there is none.
pub fn named(name: &str) -> Outcome<&'static Scene> {
    let all = TOUR.iter().chain(&DEPLOYMENTS).chain(&ENVIRONMENTS);
    let found = all.into_iter().find(|scene| scene.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = TOUR.iter().map(|scene| scene.name).collect();
        Fault::new(format!("there is no scene '{name}'; there are: {}", names.join(", ")))
    })
}

impl Scene {
    /// Builds the scene's disks and the machine for them.
    ///
    /// # Errors
    /// When something is missing or does not build.
    pub fn prepare(&self, live: bool) -> Outcome<Setup> {
        self.prepare_as(self.name, live)
    }

    /// As [`Scene::prepare`], with disks and a transcript of another name.
    ///
    /// # Errors
    /// When something is missing or does not build.
    pub fn prepare_as(&self, name: &str, live: bool) -> Outcome<Setup> {
        if let Expected::Rescue = self.expected {
            return cuts::machine(live);
        }
        let Disks { images, options } = disks(name, &small_sysroot()?, self.damage, self.env, SMALL)?;
        Ok(Setup {
            name: name.to_string(),
            machine: Machine::Arm64,
            memory: 384,
            firmware: None,
            kernel: kernel(Machine::Arm64)?.image,
            initramfs: self.initramfs()?,
            command_line: options,
            disks: images,
            extra: Vec::new(),
            live,
        })
    }

    fn initramfs(&self) -> Outcome<PathBuf> {
        if self.config.is_empty() {
            return initramfs(Machine::Arm64);
        }
        let config = format!("[root]\ntimeout = 20\n\n{}", self.config);
        initramfs_with(Machine::Arm64, &format!("aarch64-{}", self.name), &MODULES, &config)
    }

    /// Plays the scene to its end and says what happened.
    ///
    /// # Errors
    /// When anything else than the expected happens.
    pub fn play(&self, live: bool) -> Outcome<String> {
        match self.expected {
            Expected::Rescue => cuts::rescue(live),
            expected => expected.of(&self.prepare(live)?),
        }
    }
}

impl Expected {
    /// Starts the machine and sees that this comes of it; says what happened.
    ///
    /// # Errors
    /// When anything else happens.
    pub fn of(&self, setup: &Setup) -> Outcome<String> {
        let start = || setup.start();
        match *self {
            Expected::Boots(version, reasons) => boots(&mut start()?, version, reasons),
            Expected::Recovery(reasons) => recovers(&mut start()?, reasons),
            Expected::Rescue => cuts::rescue(setup.live),
        }
    }
}

fn boots(vm: &mut Vm, version: u32, reasons: &[&str]) -> Outcome<String> {
    vm.expect("bootward: handing over to ", BOOT)?;
    let decided = vm.transcript().lines().rev().find_map(|line| line.split_once("bootward: decision: "));
    let decision = decided.map(|(_, decision)| decision.trim().to_string()).unwrap_or_default();
    let path = vm.expect_line(" in ", ANSWER)?;
    let up = vm.expect_line("[os] up: ", BOOT)?;
    if version != 0 && up != version.to_string() {
        return Err(vm.failure(&format!("version {up} came up and not {version} ({decision})")));
    }
    let before = vm.transcript().to_string();
    for reason in reasons {
        let said = before.lines().any(|line| line.contains("bootward: ") && line.contains(reason));
        if !said {
            return Err(vm.failure(&format!("version {version} came up, but nothing was said of '{reason}'")));
        }
    }
    look_around(vm, &path)?;
    remembers(vm, &path, reasons)?;
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    Ok(format!("version {up} booted: {decision}"))
}

/// Looks at the root from inside: it must be the deployment, read-only where OSTree wants it so.
fn look_around(vm: &mut Vm, path: &str) -> Outcome<()> {
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("cat /proc/self/mountinfo; echo mounts-$((1+1))")?;
    let mounts = vm.expect("mounts-2", ANSWER)?;
    let of = |place: &str| mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
    let root = of("/").unwrap_or_default();
    let deployment = path.trim_start_matches("/sysroot").trim_start_matches('/');
    if deployment.is_empty() || !root.contains(deployment) {
        return Err(vm.failure(&format!("the root is not '{deployment}': {root}")));
    }
    for (place, mode) in [("/usr", "ro"), ("/var", "rw"), ("/sysroot", "ro"), ("/etc", "rw")] {
        let mount = of(place).unwrap_or_default();
        if mount.split(' ').nth(5).and_then(|options| options.split(',').next()) != Some(mode) {
            return Err(vm.failure(&format!("{place} is not mounted {mode}: '{mount}'")));
        }
    }
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("touch /var/lab && touch /usr/lab; echo writes-$((1+1)); ls /run; cat /etc/version")?;
    let writes = vm.expect("writes-2", ANSWER)?;
    if !writes.contains("Read-only file system") {
        return Err(vm.failure("/usr can be written, or /var cannot"));
    }
    vm.expect("ostree-booted", ANSWER)?;
    vm.expect("lab# ", ANSWER).map(|_| ())
}

/// The ledger tells the same afterwards, from inside the system.
fn remembers(vm: &mut Vm, path: &str, reasons: &[&str]) -> Outcome<()> {
    vm.type_line("bootward log; echo log-$((1+1))")?;
    let log = vm.expect("log-2", ANSWER)?;
    for reason in reasons.iter().chain(&[" booting "]) {
        if !log.contains(reason) {
            return Err(vm.failure(&format!("bootward log says nothing of '{reason}'")));
        }
    }
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("bootward status | grep '^[*] '; echo status-$((1+1))")?;
    let status = vm.expect("status-2", ANSWER)?;
    let commit =
        path.trim_end().rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
    if commit.is_empty() || !status.lines().any(|line| line.starts_with("* ") && line.contains(commit)) {
        return Err(vm.failure("bootward status does not mark the booted deployment"));
    }
    vm.expect("lab# ", ANSWER)?;
    // Whatever was broken, what boots is whole.
    vm.type_line("bootward verify; echo verify-$?-$((1+1))")?;
    let verified = vm.expect("-2", BOOT)?;
    let of = |line: &str| line.contains(": whole") && line.contains(commit.get(..10).unwrap_or("?"));
    if !verified.ends_with("verify-0-2") || !verified.lines().any(of) {
        return Err(vm.failure("bootward verify does not find the booted deployment whole"));
    }
    vm.expect("lab# ", ANSWER).map(|_| ())
}

fn recovers(vm: &mut Vm, reasons: &[&str]) -> Outcome<String> {
    let why = vm.expect_line("bootward: recovery: ", BOOT)?;
    vm.expect("bootward> ", ANSWER)?;
    let said = vm.transcript().to_string();
    for reason in reasons {
        if !said.lines().any(|line| line.contains("bootward: ") && line.contains(reason)) {
            return Err(vm.failure(&format!("recovery came, but it did not say '{reason}'")));
        }
    }
    vm.type_line("help")?;
    vm.expect("poweroff", ANSWER)?;
    vm.expect("bootward> ", ANSWER)?;
    vm.type_line("status")?;
    vm.expect("bootward> ", ANSWER)?;
    vm.type_line("reboot")?;
    vm.expect_end(ANSWER)?;
    Ok(format!("recovery: {why}; it answered help and status, and restarted when asked"))
}
