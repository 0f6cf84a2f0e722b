//! The operations under test: a disk as it is before, and the commands that change it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;

use bootward::arrange::survey::{Places, survey};

use super::campaign::{Campaign, Counts};
use super::disk::{self, Layout, Mounted, ONE, ONE_PLAIN, ONE_XFS, TWO, TWO_PLAIN, View};
use super::record::{Recording, SETTLE};
use super::states::Class;
use super::systems::System;
use super::tools::{lab, run};
use super::tree::{Tree, committed};
use super::variables::{self, CLEARED, Change, GOOD, TRIAL};

/// The stateroot.
const STATEROOT: &str = "lab";

/// Whose `ostree` carries the operation out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libostree {
    /// The machine's own: Debian 12's 2022.7.
    Bookworm,
    /// Debian 13's 2025.2, from the laboratory's Debian root.
    Trixie,
}

/// One recording.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens, in one line.
    pub title: &'static str,
    /// The file systems.
    pub layout: Layout,
    /// The commands on the sysroot that make up the operation.
    pub operation: fn(&Scenario, &Path) -> Vec<Command>,
    /// Whose `ostree` prepares the disk, and is the operation where that is libostree's.
    pub libostree: Libostree,
    /// So many versions are deployed before, the operation is about the next one.
    pub before: u32,
    /// The operation's syncs and freezes do nothing.
    pub without_syncs: bool,
    /// It is bootward's own operation: the bootloader must find a kernel at every moment, too.
    pub ours: bool,
    /// The version that boots when it is done.
    pub after: u32,
    /// Where the bootloader's variables are, below the sysroot, in two files.
    pub environment: &'static str,
    /// What is to become of them.
    pub change: Change,
    /// It changes them; else it leaves them alone.
    pub clears: bool,
}

const fn update(name: &'static str, title: &'static str, layout: Layout, before: u32) -> Scenario {
    let operation = Scenario::update;
    let libostree = Libostree::Bookworm;
    let after = before + 1;
    Scenario {
        name,
        title,
        layout,
        operation,
        libostree,
        before,
        without_syncs: false,
        ours: false,
        after,
        environment: "",
        change: CLEARED,
        clears: false,
    }
}

const fn own(
    name: &'static str,
    title: &'static str,
    layout: Layout,
    operation: fn(&Scenario, &Path) -> Vec<Command>,
    after: u32,
) -> Scenario {
    Scenario { operation, ours: true, after, clears: true, ..update(name, title, layout, 2) }
}

const fn no_variables(scenario: Scenario) -> Scenario {
    Scenario { clears: false, ..scenario }
}

const fn in_boot(scenario: Scenario) -> Scenario {
    Scenario { environment: "boot", ..scenario }
}

/// It takes a new version from a server.
const fn fetches(scenario: Scenario, before: u32) -> Scenario {
    Scenario { before, change: TRIAL, ..scenario }
}

const TRIXIE_ONE: &str = "as one-update, by libostree 2025.2";
const TRIXIE_TWO: &str = "as two-update, by libostree 2025.2";
const WITHOUT_SYNCS: &str = "as two-update, with every sync and freeze stubbed out";

const CONFIRM: &str = "bootward confirm after a rollback";
const ROLLBACK: &str = "bootward rollback";
const UNDEPLOY: &str = "bootward undeploy of the first one";
const CHANGES: &str = "bootward rollback, then undeploy, in one boot";
const REPAIR_KERNEL: &str = "bootward repair, the second kernel and the boot links being gone";
const ENV: &str = "bootward env set, the variables in two files on /boot";
const DEPLOY: &str = "bootward pull, then deploy --trial: version 3 replaces version 1, whose objects go";
const UPGRADE: &str = "bootward upgrade: version 2 joins version 1";
const FLOOR: &str = "bootward confirm of version 2, which raises the floor and tidies up";
const REPAIR: &str = "bootward repair, without any boot link";

/// All of them.
pub const SCENARIOS: [Scenario; 40] = [
    update("one-first", "/boot on the root: version 2 joins version 1", ONE, 1),
    update("two-first", "/boot of its own: version 2 joins version 1", TWO, 1),
    update("one-update", "/boot on the root: version 3 replaces version 1", ONE, 2),
    update("two-update", "/boot of its own: version 3 replaces version 1", TWO, 2),
    update("one-update-xfs", "as one-update, on xfs", ONE_XFS, 2),
    Scenario { libostree: Libostree::Trixie, ..update("one-update-trixie", TRIXIE_ONE, ONE, 2) },
    Scenario { libostree: Libostree::Trixie, ..update("two-update-trixie", TRIXIE_TWO, TWO, 2) },
    Scenario { without_syncs: true, ..update("two-update-without-syncs", WITHOUT_SYNCS, TWO, 2) },
    own("one-confirm", CONFIRM, ONE, Scenario::confirm, 1),
    own("two-confirm", CONFIRM, TWO, Scenario::confirm, 1),
    own("one-rollback", ROLLBACK, ONE, Scenario::rollback, 1),
    in_boot(own("two-rollback", ROLLBACK, TWO, Scenario::rollback, 1)),
    no_variables(own("one-undeploy", UNDEPLOY, ONE, Scenario::undeploy, 1)),
    no_variables(own("two-undeploy", UNDEPLOY, TWO, Scenario::undeploy, 1)),
    own("one-changes", CHANGES, ONE, Scenario::changes, 1),
    own("two-changes", CHANGES, TWO, Scenario::changes, 1),
    no_variables(own("one-repair", REPAIR, ONE, Scenario::repair, 2)),
    no_variables(own("two-repair", REPAIR, TWO, Scenario::repair, 2)),
    no_variables(own("one-repair-kernel", REPAIR_KERNEL, ONE, Scenario::repair, 2)),
    no_variables(own("two-repair-kernel", REPAIR_KERNEL, TWO, Scenario::repair, 2)),
    in_boot(own("one-env", ENV, ONE, Scenario::env, 2)),
    in_boot(own("two-env", ENV, TWO, Scenario::env, 2)),
    fetches(own("one-deploy", DEPLOY, ONE, Scenario::deploy, 3), 2),
    in_boot(fetches(own("two-deploy", DEPLOY, TWO, Scenario::deploy, 3), 2)),
    fetches(own("one-upgrade", UPGRADE, ONE, Scenario::upgrade, 2), 1),
    in_boot(fetches(own("two-upgrade", UPGRADE, TWO, Scenario::upgrade, 2), 1)),
    Scenario { change: GOOD, ..own("one-floor", FLOOR, ONE, Scenario::floor, 2) },
    in_boot(Scenario { change: GOOD, ..own("two-floor", FLOOR, TWO, Scenario::floor, 2) }),
    own("one-confirm-plain", CONFIRM, ONE_PLAIN, Scenario::confirm, 1),
    own("two-confirm-plain", CONFIRM, TWO_PLAIN, Scenario::confirm, 1),
    own("one-rollback-plain", ROLLBACK, ONE_PLAIN, Scenario::rollback, 1),
    in_boot(own("two-rollback-plain", ROLLBACK, TWO_PLAIN, Scenario::rollback, 1)),
    no_variables(own("one-repair-kernel-plain", REPAIR_KERNEL, ONE_PLAIN, Scenario::repair, 2)),
    no_variables(own("two-repair-kernel-plain", REPAIR_KERNEL, TWO_PLAIN, Scenario::repair, 2)),
    fetches(own("one-deploy-plain", DEPLOY, ONE_PLAIN, Scenario::deploy, 3), 2),
    in_boot(fetches(own("two-deploy-plain", DEPLOY, TWO_PLAIN, Scenario::deploy, 3), 2)),
    fetches(own("one-upgrade-plain", UPGRADE, ONE_PLAIN, Scenario::upgrade, 2), 1),
    in_boot(fetches(own("two-upgrade-plain", UPGRADE, TWO_PLAIN, Scenario::upgrade, 2), 1)),
    Scenario { change: GOOD, ..own("one-floor-plain", FLOOR, ONE_PLAIN, Scenario::floor, 2) },
    in_boot(Scenario { change: GOOD, ..own("two-floor-plain", FLOOR, TWO_PLAIN, Scenario::floor, 2) }),
];

/// A recording with the trees that its deployments are made of.
#[derive(Debug)]
pub struct Recorded {
    /// The disk and the log.
    pub recording: Recording,
    /// Every version that was committed.
    pub trees: Vec<Tree>,
}

impl Recorded {
    /// To judge it.
    pub fn campaign<'a>(&'a self, bootward: &'a Path, systems: &'a [System], workers: usize) -> Campaign<'a> {
        Campaign { recording: &self.recording, trees: &self.trees, bootward, systems, workers }
    }
}

impl Scenario {
    /// The scenario of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|s| s.name == name)
    }

    /// Whether these are the counts of a scenario that went wrong. When the device itself reorders or tears the writes
    /// that put the journal's content in place, a reader without journal replay may find none of it, whoever wrote:
    /// that is counted, and no fault of the operation.
    pub fn failed(&self, class: Class, counts: &Counts) -> bool {
        let bad = counts.dead + counts.corrupt;
        let stuck = counts.no_kernel + counts.no_filesystem;
        !self.without_syncs && (bad > 0 || self.ours && class == Class::Prefix && stuck > 0)
    }

    /// Where the boots of its states are recorded.
    pub fn boots(&self) -> PathBuf {
        self.dir().join("boots")
    }

    fn dir(&self) -> PathBuf {
        lab().join(self.name)
    }

    /// Makes the disk and records the operation, in a mount namespace of the caller's own. The recording is kept
    /// until the next one of this scenario.
    ///
    /// # Errors
    /// When a tool is missing or fails.
    pub fn record(&self) -> io::Result<Recorded> {
        let dir = self.dir();
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let trees = self.trees()?;
        let base = dir.join("base.img");
        disk::format(&base, self.layout)?;
        let mounted = Mounted::new(&base, self.layout, &dir.join("sysroot"), View::Linux)?;
        self.prepare(&mounted.at)?;
        if self.ours {
            self.prepare_own(&mounted.at)?;
        }
        mounted.close()?;
        let operate = |disk: &Path| {
            let mounted = Mounted::new(disk, self.layout, &dir.join("sysroot"), View::Linux)?;
            for command in (self.operation)(self, &mounted.at) {
                run(&mut self.stubbed(command)?)?;
            }
            sleep(SETTLE);
            mounted.close()
        };
        let recording = Recording::make(&base, self.layout, &dir, operate)?;
        Ok(Recorded { recording, trees })
    }

    /// The recording that was made last.
    ///
    /// # Errors
    /// When there is none.
    pub fn kept(&self) -> io::Result<Recorded> {
        let recording = Recording::kept(&self.dir().join("base.img"), self.layout, &self.dir())
            .map_err(|e| io::Error::other(format!("{} was not recorded yet: {e}", self.name)))?;
        Ok(Recorded { recording, trees: self.trees()? })
    }

    /// Writes the trees of all versions, anew.
    fn trees(&self) -> io::Result<Vec<Tree>> {
        let release = run(Command::new("uname").arg("-r"))?;
        // The kernel that chosen states are booted with for real, where tests/vm/setup has brought it.
        let guest = fs::read_to_string(lab().with_file_name("kernel-amd64").join("release"));
        let others: Vec<String> = guest.iter().map(|guest| guest.trim().to_string()).collect();
        let tree = |version| {
            let at = self.tree(version);
            let _ = fs::remove_dir_all(&at);
            Tree::make(version, release.trim(), &others, &at)
        };
        (1..=self.before + 1).map(tree).collect()
    }

    fn tree(&self, version: u32) -> PathBuf {
        self.dir().join(format!("tree-{version}"))
    }

    /// A sysroot with the versions before, and a repository beside it that has the next one too.
    fn prepare(&self, sysroot: &Path) -> io::Result<()> {
        let repo = self.dir().join("repo");
        run(self.ostree().arg(format!("--repo={}", repo.display())).args(["init", "--mode=bare"]))?;
        run(self.ostree().args(["admin", "init-fs"]).arg(sysroot))?;
        run(self.ostree().args(["admin", "os-init", STATEROOT, "--sysroot"]).arg(sysroot))?;
        // With this file libostree writes what U-Boot reads.
        fs::create_dir(sysroot.join("boot/loader.0"))?;
        std::os::unix::fs::symlink("loader.0", sysroot.join("boot/loader"))?;
        fs::write(sysroot.join("boot/loader/uEnv.txt"), "")?;
        for version in 1..=self.before + 1 {
            let mut commit = self.ostree();
            commit.arg(format!("--repo={}", repo.display())).args(["commit", "--branch=lab", "--no-xattrs"]);
            commit.arg(format!("--timestamp=@{}", committed(version)));
            run(commit.arg(format!("--tree=dir={}", self.tree(version).display())))?;
            if version <= self.before {
                self.update(sysroot).iter_mut().try_for_each(|command| run(command).map(drop))?;
            }
        }
        Ok(())
    }

    /// libostree's own update: the newest commit is pulled, and deployed.
    fn update(&self, sysroot: &Path) -> Vec<Command> {
        let mut pull = self.ostree();
        pull.arg(format!("--repo={}", sysroot.join("ostree/repo").display())).arg("pull-local");
        pull.arg(self.dir().join("repo")).arg("lab");
        let mut deploy = self.ostree();
        deploy.args(["admin", "deploy", "--os", STATEROOT, "--sysroot"]).arg(sysroot);
        deploy.args(["--karg=console=ttyS0", "--karg=panic=1", "lab"]);
        vec![pull, deploy]
    }

    /// What bootward's own operations begin with: an environment in two files, and what is out of step.
    fn prepare_own(&self, sysroot: &Path) -> io::Result<()> {
        fs::write(self.dir().join("env.txt"), self.change.text(self.before + 1))?;
        for copy in ["env.a", "env.b"] {
            let mut make = Command::new("mkenvimage");
            make.args(["-r", "-s", "4096", "-o"]).arg(sysroot.join(self.environment).join(copy));
            make.arg(self.dir().join("env.txt"));
            run(&mut make)?;
        }
        if self.name.contains("repair") {
            for version in ["boot.0", "boot.1"] {
                let _ = fs::remove_file(sysroot.join("ostree").join(version));
            }
        }
        if self.name.contains("kernel") {
            let boot = sysroot.join("boot");
            let places = Places { sysroot, boot: &boot, booted: None, options: None, deep: false };
            let layout = survey(&places).map_err(|e| io::Error::other(e.to_string()))?;
            let second = layout.entries.get(1).expect("there are two deployments");
            fs::remove_dir_all(boot.join(second.boot_directory()))?;
        }
        if self.change == TRIAL {
            self.serve()?;
        }
        if self.change == GOOD {
            // Version 1 was confirmed while version 2 waited for its reboot.
            run(&mut self.bootward(sysroot, &["confirm", "--booted", "1"]))?;
        }
        Ok(())
    }

    /// An archive of the versions, signed, as a web server has it.
    fn serve(&self) -> io::Result<()> {
        let dir = |name: &str| self.dir().join(name);
        let server = format!("--repo={}", dir("server").display());
        run(self.ostree().arg(&server).args(["init", "--mode=archive"]))?;
        run(self.ostree().arg(&server).arg("pull-local").arg(dir("repo")).arg("lab"))?;
        let program = super::binary()?;
        run(Command::new(&program).args(["keygen", "--output"]).arg(dir("secret")))?;
        run(Command::new(&program)
            .args(["sign", "--repo"])
            .arg(dir("server"))
            .arg("--key")
            .arg(dir("secret"))
            .arg("lab"))?;
        Ok(())
    }

    /// A verb that fetches.
    fn fetch(&self, verb: &str) -> Command {
        let mut command = Command::new(super::binary().expect("the device binary builds"));
        command.args([verb, "--url"]).arg(format!("file://{}", self.dir().join("server").display()));
        command.args(["--ref", "lab", "--keys"]).arg(self.dir().join("secret.pub"));
        command
    }

    fn bootward(&self, sysroot: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(super::binary().expect("the device binary builds"));
        command.args(arguments);
        self.on(command, sysroot, arguments.first() == Some(&"env"))
    }

    /// The command on this sysroot and its variables.
    fn on(&self, mut command: Command, sysroot: &Path, variables_only: bool) -> Command {
        // Else deployments are immutable, as libostree's are.
        command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments");
        // Beside the mount point: the disk is mounted elsewhere each time.
        let config = variables::config(sysroot, &sysroot.join(self.environment));
        if variables_only {
            command.arg("-c").arg(config);
        } else {
            command.arg("--sysroot").arg(sysroot).arg("--env-config").arg(config);
        }
        command
    }

    /// What of it is not done, on a disk on which it said that it is.
    pub fn unfinished(&self, sysroot: &Path) -> Option<String> {
        if !self.ours {
            return None;
        }
        let boot = sysroot.join("boot");
        let layout =
            survey(&Places { sysroot, boot: &boot, booted: None, options: None, deep: true }).ok()?;
        if !layout.faults.is_empty() {
            return Some(format!("left out of step: {}", layout.faults.join("; ")));
        }
        let repo = format!("--repo={}", sysroot.join("ostree/repo").display());
        if let Err(e) = run(self.ostree().arg("fsck").arg(&repo)) {
            return Some(e.to_string());
        }
        if let Some(why) = variables::unraised(sysroot, &sysroot.join(self.environment)) {
            return Some(why);
        }
        match self.changed(sysroot) {
            Ok(changed) if changed == self.clears => None,
            Ok(_) => Some("the variables are not what they are to be in the end".into()),
            Err(why) => Some(why),
        }
    }

    fn changed(&self, sysroot: &Path) -> Result<bool, String> {
        variables::changed(sysroot, &sysroot.join(self.environment))
    }

    /// The versions in boot order.
    fn order(&self, sysroot: &Path) -> Vec<u32> {
        let boot = sysroot.join("boot");
        let places = Places { sysroot, boot: &boot, booted: None, options: None, deep: false };
        let layout = survey(&places).expect("there is a sysroot");
        let version = |path: String| {
            let text = fs::read_to_string(sysroot.join(path).join("usr/etc/version")).ok()?;
            text.trim().parse().ok()
        };
        layout.entries.iter().map(|e| version(e.path()).expect("a deployment has its version")).collect()
    }

    /// The newest version failed, the one before it runs.
    fn confirm(&self, sysroot: &Path) -> Vec<Command> {
        // The last one in boot order, whether the failed one is still there or not.
        let entries = fs::read_dir(sysroot.join("boot/loader/entries")).map_or(0, Iterator::count);
        vec![self.bootward(sysroot, &["confirm", "--booted", &entries.saturating_sub(1).to_string()])]
    }

    /// Version 1 becomes the first; where it is that already, what is left to do.
    fn rollback(&self, sysroot: &Path) -> Vec<Command> {
        let order = self.order(sysroot);
        let first = order.iter().position(|v| *v == 1).expect("version 1 stays");
        let done = first == 0 && self.changed(sysroot) == Ok(true);
        if done { Vec::new() } else { vec![self.bootward(sysroot, &["rollback", &first.to_string()])] }
    }

    /// Version 2 goes; nothing where it is gone already.
    fn undeploy(&self, sysroot: &Path) -> Vec<Command> {
        let newer = self.order(sysroot).iter().position(|v| *v == 2);
        newer.map(|n| self.bootward(sysroot, &["undeploy", &n.to_string()])).into_iter().collect()
    }

    fn changes(&self, sysroot: &Path) -> Vec<Command> {
        let mut commands = self.rollback(sysroot);
        if self.order(sysroot).contains(&2) {
            commands.push(self.bootward(sysroot, &["undeploy", "1"]));
        }
        commands
    }

    /// The newest version is fetched, then deployed; nothing where it is the first one and counted.
    fn deploy(&self, sysroot: &Path) -> Vec<Command> {
        if self.order(sysroot).first() == Some(&self.after) && self.changed(sysroot) == Ok(true) {
            return Vec::new();
        }
        let mut pull = self.fetch("pull");
        pull.arg("--sysroot").arg(sysroot);
        vec![pull, self.bootward(sysroot, &["deploy", "--trial", "--stateroot", STATEROOT, "lab"])]
    }

    fn upgrade(&self, sysroot: &Path) -> Vec<Command> {
        let mut upgrade = self.fetch("upgrade");
        upgrade.args(["--stateroot", STATEROOT]);
        vec![self.on(upgrade, sysroot, false)]
    }

    fn floor(&self, sysroot: &Path) -> Vec<Command> {
        vec![self.bootward(sysroot, &["confirm", "--booted", "0"])]
    }

    fn repair(&self, sysroot: &Path) -> Vec<Command> {
        vec![self.bootward(sysroot, &["repair"])]
    }

    fn env(&self, sysroot: &Path) -> Vec<Command> {
        let script = sysroot.with_extension("variables");
        fs::write(&script, "rollback=0\nbootcount=0\n").expect("there is room beside the disk");
        let script = script.to_str().expect("its own name");
        vec![self.bootward(sysroot, &["env", "set", "-s", script])]
    }

    fn ostree(&self) -> Command {
        let mut command = match self.libostree {
            Libostree::Bookworm => Command::new("ostree"),
            Libostree::Trixie => {
                let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab/debian-root");
                let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
                command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
                command.arg(root.join("usr/bin/ostree"));
                command
            }
        };
        // Else deployments are immutable, and what clean-up does depends on whether that can be undone.
        command.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments");
        command
    }

    /// The same command, its syncs doing nothing where the scenario says so.
    fn stubbed(&self, command: Command) -> io::Result<Command> {
        if !self.without_syncs {
            return Ok(command);
        }
        let mut stubbed = Command::new(std::env::current_exe()?);
        stubbed.arg("--without-syncs").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            stubbed.env(name, value.unwrap_or_default());
        }
        Ok(stubbed)
    }

    /// The version of the `ostree` that carries it out.
    ///
    /// # Errors
    /// When there is none.
    pub fn version(&self) -> io::Result<String> {
        let printed = run(self.ostree().arg("--version"))?;
        let version = printed.lines().find_map(|l| l.trim().strip_prefix("Version: "));
        Ok(version.unwrap_or("of no known version").trim_matches('\'').into())
    }
}
