//! Updates on trial, through real U-Boot: a device, and what happens on its console and in its state, step by step, over
//! as many boots as it takes. Nobody types but where a step says so.

use super::board::{Board, Making, Uboot};
use super::scenes::{ANSWER, BOOT};
use super::vm::Vm;
use super::{Fault, Outcome};

/// Seconds until a device that hangs was reset and is up again.
const RESET: u64 = 90;

/// One step. Those that look at the console switch the device on where it is off.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A boot of a trial is counted, by whoever counts on this board: this one of so many.
    Counted(u32, u32),
    /// The trial is over: U-Boot takes `altbootcmd` where it counts, and the script rolls back.
    GivesUp,
    /// This is said on the console.
    Says(&'static str),
    /// The script boots this entry of `uEnv.txt`.
    Entry(u32),
    /// The guardian decides for this reason, and this version comes up.
    Up(&'static str, u32),
    /// The init of the system that came up ends, and the kernel with it; the device restarts.
    Panics,
    /// Recovery, at its prompt, because of this.
    Recovers(&'static str),
    /// At whatever prompt there is: this.
    Types(&'static str),
    /// At the system's prompt: this command answers with this.
    Answers(&'static str, &'static str),
    /// At the system's prompt: the running system is confirmed.
    Confirms,
    /// At the system's prompt: `bootward env` has these variables.
    Sees(&'static [&'static str]),
    /// The device restarts because its system wants to.
    Restarts,
    /// The device is switched off by its system.
    Off,
    /// On the device that is off: `fw_printenv` has these variables.
    Stored(&'static [&'static str]),
    /// On the device that is off: the state is overwritten with nonsense.
    Erased,
    /// On the device that is off: this is run in its sysroot, by a shell of this machine.
    OnDisk(&'static str),
}

use Step::{
    Answers, Confirms, Counted, Entry, Erased, GivesUp, Off, OnDisk, Panics, Recovers, Restarts, Says, Sees,
    Stored, Types, Up,
};

/// A device and what must happen to it.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What it shows, in one line.
    pub title: &'static str,
    /// The device; its name is the trial's.
    pub making: Making,
    /// What happens, in order.
    pub steps: &'static [Step],
}

/// A device without troubles.
const DEVICE: Making = Making {
    name: "uboot-normal",
    uboot: Uboot::Stock,
    state: Some("bootcount=0 bootlimit=2 rollback=0 upgrade_available=0"),
    damage: "",
    watchdog: false,
    rescue: false,
    settings: &[],
    log: false,
    live: false,
};

/// The newest deployment is on trial and may take two boots.
const ON_TRIAL: Making =
    Making { state: Some("bootcount=0 bootlimit=2 rollback=0 upgrade_available=1"), ..DEVICE };

const NO_TROUBLE: &str = "no trouble, and ostree= on the command line names it";
/// The ref still names the commit that failed.
const INSTALLS_IT_AGAIN: &str = "bootward deploy --stateroot lab lab";
const REFUSED: &str = "the commit failed on this device (";
const ROLLED_BACK: &str = "rollback=1: the bootloader gave up on the first deployment";

/// What a trial that fails has in common, whoever counts.
const PANICS: Trial = Trial {
    title: "an update whose init crashes is counted, given up and rolled back by U-Boot and boot.scr, then removed",
    making: Making { name: "update-fails", damage: "echo panic >$new/usr/lib/lab-action", ..ON_TRIAL },
    steps: &[
        Counted(1, 2),
        Entry(1),
        Up(NO_TROUBLE, 2),
        Panics,
        Counted(2, 2),
        Entry(1),
        Up(NO_TROUBLE, 2),
        Panics,
        GivesUp,
        Entry(2),
        Up(ROLLED_BACK, 1),
        Sees(&["rollback=1", "upgrade_available=0"]),
        Restarts,
        Says("rollback=1, the second entry comes first"),
        Entry(2),
        Up(ROLLED_BACK, 1),
        Answers("bootward confirm", "removed: lab "),
        Answers("cat /sysroot/ostree/bootward/rejected | grep -c .", "\n1"),
        Answers(INSTALLS_IT_AGAIN, REFUSED),
        Restarts,
        // What was the second entry is the only one.
        Entry(1),
        Up(NO_TROUBLE, 1),
        Answers("ls -d /ostree/deploy/lab/deploy/*.0 | grep -c .", "\n1"),
        Off,
        Stored(&["bootcount=0", "rollback=0", "upgrade_available=0"]),
    ],
};

/// The health checks that a product brings, one of which fails in version 2.
const REJECTED: Trial = Trial {
    title: "an update that fails its health check is rejected, rolled back and removed",
    making: Making {
        name: "uboot-rejected",
        damage: "d=$new/usr/lib/bootward/check/required.d; mkdir -p $d; printf '#!/bin/sh\nexit 1\n' >$d/fails; chmod 755 $d/fails",
        ..ON_TRIAL
    },
    steps: &[
        Counted(1, 2),
        Entry(1),
        Up(NO_TROUBLE, 2),
        Answers("bootward check --confirm --reject; echo checked-$?", "checked-1"),
        Sees(&["rollback=1"]),
        Restarts,
        Says("rollback=1, the second entry comes first"),
        Entry(2),
        Up(ROLLED_BACK, 1),
        Answers("bootward check --confirm --reject; echo checked-$?", "checked-0"),
        Answers(INSTALLS_IT_AGAIN, REFUSED),
        Restarts,
        Entry(1),
        Up(NO_TROUBLE, 1),
        Answers("ls -d /ostree/deploy/lab/deploy/*.0 | grep -c .", "\n1"),
        Off,
        Stored(&["bootcount=0", "rollback=0", "upgrade_available=0"]),
    ],
};

const HANGS: Trial = Trial {
    title: "an update that hangs is reset by the watchdog, rolled back and removed",
    making: Making {
        name: "hang",
        state: Some("bootcount=0 bootlimit=1 rollback=0 upgrade_available=1"),
        damage: "echo hang >$new/usr/lib/lab-action",
        watchdog: true,
        ..DEVICE
    },
    steps: &[
        Counted(1, 1),
        Entry(1),
        Says("bootward: watchdog /dev/watchdog0 armed"),
        Up(NO_TROUBLE, 2),
        Says("[os] hangs"),
        GivesUp,
        Entry(2),
        Up(ROLLED_BACK, 1),
        // Longer than the watchdog waits: this one feeds it.
        Answers("sleep 20; echo alive-$((1+1))", "alive-2"),
        Answers("bootward confirm", "removed: lab "),
        Answers(INSTALLS_IT_AGAIN, REFUSED),
        Off,
        Stored(&["bootcount=0", "rollback=0", "upgrade_available=0"]),
    ],
};

/// What `make demo` shows of U-Boot.
pub const TOUR: [Trial; 2] = [PANICS, HANGS];

/// What an update is meant to be.
pub const WORKS: Trial = Trial {
    title: "an update that works is confirmed and counted no more",
    making: Making { name: "uboot-confirmed", ..ON_TRIAL },
    steps: &[
        Counted(1, 2),
        Entry(1),
        Up(NO_TROUBLE, 2),
        Sees(&["bootcount=1", "bootlimit=2", "rollback=0", "upgrade_available=1"]),
        Confirms,
        Restarts,
        Entry(1),
        Up(NO_TROUBLE, 2),
        Restarts,
        Entry(1),
        Up(NO_TROUBLE, 2),
        Sees(&["bootcount=0", "upgrade_available=0"]),
        Off,
        Stored(&["bootcount=0", "rollback=0", "upgrade_available=0"]),
    ],
};

const TARGET_BROKEN: Trial = Trial {
    title: "an update that crashes, and nothing to roll back to: recovery",
    making: Making {
        name: "uboot-target-broken",
        state: Some("bootcount=0 bootlimit=1 rollback=0 upgrade_available=1"),
        damage: "echo panic >$new/usr/lib/lab-action; rm -rf $old/usr",
        ..DEVICE
    },
    steps: &[
        Counted(1, 1),
        Entry(1),
        Up(NO_TROUBLE, 2),
        Panics,
        GivesUp,
        Entry(2),
        Up(ROLLED_BACK, 2),
        Panics,
        Entry(2),
        Up(ROLLED_BACK, 2),
        Panics,
        Entry(2),
        Up(ROLLED_BACK, 2),
        Panics,
        Entry(2),
        Recovers("no deployment is bootable"),
    ],
};

const ERASED: Trial = Trial {
    title: "the state is overwritten between two boots: it is made anew, and the update must prove itself again",
    making: Making { name: "uboot-erased", ..DEVICE },
    steps: &[
        Entry(1),
        Up(NO_TROUBLE, 2),
        Off,
        Erased,
        Says("boot.scr: there is no state, a new one is made (trial)"),
        Counted(1, 3),
        Entry(1),
        Up(NO_TROUBLE, 2),
        Sees(&["bootcount=1", "bootlimit=3", "rollback=0", "upgrade_available=1"]),
        Confirms,
        Off,
        Stored(&["bootcount=0", "bootlimit=3", "rollback=0", "upgrade_available=0"]),
    ],
};

const ERASED_AND_BAD: Trial = Trial {
    title: "without any state an update that crashes is rolled back all the same",
    making: Making {
        name: "uboot-erased-and-bad",
        state: None,
        damage: "echo panic >$new/usr/lib/lab-action",
        ..DEVICE
    },
    steps: &[
        Counted(1, 3),
        Up(NO_TROUBLE, 2),
        Panics,
        Counted(2, 3),
        Up(NO_TROUBLE, 2),
        Panics,
        Counted(3, 3),
        Up(NO_TROUBLE, 2),
        Panics,
        GivesUp,
        Entry(2),
        Up(ROLLED_BACK, 1),
        Off,
        Stored(&["bootlimit=3", "rollback=1", "upgrade_available=0"]),
    ],
};

const BOTH_BROKEN: Trial = Trial {
    title: "both deployments are broken: recovery",
    making: Making { name: "uboot-both-broken", damage: "rm -rf $new/usr; rm $old/usr/sbin/init", ..DEVICE },
    steps: &[Entry(1), Recovers("no deployment is bootable")],
};

/// The trials that every U-Boot must pass.
const SHARED: [Trial; 8] =
    [PANICS, HANGS, WORKS, REJECTED, TARGET_BROKEN, ERASED, ERASED_AND_BAD, BOTH_BROKEN];

/// Removes the kernel that this variable of `uEnv.txt` names.
macro_rules! without {
    ($variable:literal) => {
        concat!("rm .$(sed -n 's/^", $variable, "=//p' boot/loader/uEnv.txt); ")
    };
}

/// Makes a device tree of this machine's, with another model, beside the kernels.
macro_rules! device_tree {
    () => {
        concat!(
            "qemu-system-aarch64 -M virt,dumpdtb=boot/ostree/lab.dtb -cpu cortex-a53 -m 512 -nodefaults -display none ",
            // With a firmware the machine has less.
            "-bios /usr/lib/u-boot/qemu_arm64/u-boot.bin; ",
            "LC_ALL=C sed -i 's/linux,dummy-virt/bootward,in-test/g' boot/ostree/lab.dtb; "
        )
    };
}

/// This machine's U-Boot has no place for device trees that are loaded.
const FDT_MEMORY: (&str, &str) = ("bootward_fdt_memory=${fdt_addr_r}", "bootward_fdt_memory=0x43c00000");

/// What libostree itself does after us, and what boots then.
pub const GOES_ON: Trial = Trial {
    title: "after our clean-up 'ostree admin upgrade' and 'undeploy' go on, and what they make boots",
    making: Making {
        name: "uboot-goes-on",
        state: Some("bootcount=0 bootlimit=2 rollback=1 upgrade_available=0"),
        damage: "echo panic >$new/usr/lib/lab-action",
        ..DEVICE
    },
    steps: &[
        Entry(2),
        Up(ROLLED_BACK, 1),
        Answers("bootward confirm", "removed: lab "),
        Off,
        Stored(&["rollback=0", "upgrade_available=0"]),
        // Version 3 is version 1 with other numbers in it: the kernel is there already.
        OnDisk(
            "sum=$(ls ostree/deploy/lab/deploy | sed -n 's/\\.0$//p'); over=$(mktemp -d); mkdir -p $over/usr/lib $over/usr/etc
             sed s/1/3/ ostree/deploy/lab/deploy/$sum.0/usr/lib/os-release >$over/usr/lib/os-release
             echo 3 >$over/usr/etc/version
             ostree --repo=ostree/repo commit --branch=lab --no-xattrs --timestamp='2026-01-05 00:00:00Z' \\
                 --tree=ref=$sum --tree=dir=$over; rm -r $over
             ostree admin upgrade --sysroot=$PWD --os=lab
             ostree fsck --repo=ostree/repo; ostree admin status --sysroot=$PWD",
        ),
        Entry(1),
        Up(NO_TROUBLE, 3),
        Confirms,
        Off,
        OnDisk(
            "test $(ls -d ostree/deploy/lab/deploy/*.0 | wc -l) = 2; ostree admin undeploy --sysroot=$PWD 1
             test $(ls -d ostree/deploy/lab/deploy/*.0 | wc -l) = 1
             ostree fsck --repo=ostree/repo; ostree admin status --sysroot=$PWD",
        ),
        Entry(1),
        Up(NO_TROUBLE, 3),
        Answers("bootward status", "Lab 3"),
        Off,
        Stored(&["bootcount=0", "rollback=0", "upgrade_available=0"]),
    ],
};

/// A version as version 2 with another number, and this file in it; committed to the ref, and no more.
macro_rules! commits {
    ($version:literal, $file:literal) => {
        concat!(
            "sum=$(ostree --repo=ostree/repo rev-parse lab); over=$(mktemp -d); mkdir -p $over/usr/lib $over/usr/etc
             ostree --repo=ostree/repo cat $sum /usr/lib/os-release | sed s/2/",
            $version,
            "/ >$over/usr/lib/os-release; echo ",
            $version,
            " >$over/usr/etc/version; ",
            $file,
            "
             ostree --repo=ostree/repo commit --branch=lab --no-xattrs --timestamp='2026-01-05 00:00:00Z' \\
                 --tree=ref=$sum --tree=dir=$over; rm -r $over"
        )
    };
}

/// What bootward itself deploys, on the device: nobody has prepared its entries or its variables.
pub const DEPLOYS: [Trial; 2] = [
    Trial {
        title: "bootward deploys an update that crashes: U-Boot counts it, it is rolled back, removed and refused",
        making: Making { name: "uboot-deploys-bad", ..DEVICE },
        steps: &[
            Entry(1),
            Up(NO_TROUBLE, 2),
            Confirms,
            Off,
            OnDisk(commits!("3", "echo panic >$over/usr/lib/lab-action")),
            Entry(1),
            Up(NO_TROUBLE, 2),
            Answers("bootward deploy --trial --stateroot lab lab", "environment: upgrade_available=1"),
            Restarts,
            Counted(1, 2),
            Entry(1),
            Up(NO_TROUBLE, 3),
            Panics,
            Counted(2, 2),
            Entry(1),
            Up(NO_TROUBLE, 3),
            Panics,
            GivesUp,
            Entry(2),
            Up(ROLLED_BACK, 2),
            Answers("bootward confirm", "removed: lab "),
            Answers(INSTALLS_IT_AGAIN, REFUSED),
            Restarts,
            Entry(1),
            Up(NO_TROUBLE, 2),
            Off,
            Stored(&["bootcount=0", "rollback=0", "upgrade_available=0"]),
            OnDisk("ostree fsck --repo=ostree/repo; ostree admin status --sysroot=$PWD"),
        ],
    },
    Trial {
        title: "bootward deploys an update that works: U-Boot counts it until it is confirmed",
        making: Making { name: "uboot-deploys", uboot: Uboot::Counting, ..DEVICE },
        steps: &[
            Entry(1),
            Up(NO_TROUBLE, 2),
            Confirms,
            Off,
            OnDisk(commits!("3", "true")),
            Entry(1),
            Up(NO_TROUBLE, 2),
            Answers("bootward deploy --trial --stateroot lab lab", "environment: upgrade_available=1"),
            Restarts,
            Counted(1, 2),
            Entry(1),
            Up(NO_TROUBLE, 3),
            Confirms,
            Restarts,
            Entry(1),
            Up(NO_TROUBLE, 3),
            Off,
            Stored(&["bootcount=0", "rollback=0", "upgrade_available=0"]),
            OnDisk("ostree fsck --repo=ostree/repo; ostree admin status --sysroot=$PWD"),
        ],
    },
];

/// What the script does when something is not there, and with what it must not believe.
pub const ENTRIES: [Trial; 11] = [
    Trial {
        title: "the first entry has no kernel: the second one boots, and nothing is rolled back",
        making: Making { name: "uboot-first-unloadable", damage: without!("kernel_image"), ..ON_TRIAL },
        steps: &[
            Counted(1, 2),
            Says("boot.scr: entry 1 does not boot"),
            Entry(2),
            Up(NO_TROUBLE, 1),
            Off,
            Stored(&["bootcount=1", "rollback=0", "upgrade_available=1"]),
        ],
    },
    Trial {
        title: "rolled back to an entry that has no kernel: the first one boots",
        making: Making {
            name: "uboot-second-unloadable",
            state: Some("bootcount=0 bootlimit=2 rollback=1 upgrade_available=0"),
            damage: without!("kernel_image2"),
            ..DEVICE
        },
        // It brings the kernel; the guardian takes the deployment that was asked for.
        steps: &[Says("boot.scr: entry 2 does not boot"), Entry(1), Up(ROLLED_BACK, 1), Off],
    },
    Trial {
        title: "rolled back, and there is one entry only: it boots",
        making: Making {
            name: "uboot-one-entry",
            state: Some("bootcount=0 bootlimit=2 rollback=1 upgrade_available=0"),
            damage: "sed -i '/2=/d' boot/loader/uEnv.txt",
            ..DEVICE
        },
        steps: &[Says("boot.scr: entry 2 does not boot"), Entry(1), Up(ROLLED_BACK, 1), Off],
    },
    Trial {
        title: "no entry has a kernel: the recovery's own kernel starts the guardian, which boots a deployment",
        making: Making {
            name: "uboot-rescue",
            damage: concat!(without!("kernel_image"), without!("kernel_image2")),
            rescue: true,
            ..DEVICE
        },
        steps: &[
            Says("boot.scr: entry 1 does not boot"),
            Says("boot.scr: entry 2 does not boot"),
            Says("boot.scr: no entry boots, starting the recovery"),
            Up("no trouble, and it is the first bootable one in boot order", 2),
            Off,
        ],
    },
    Trial {
        title: "the link to the folder of uEnv.txt is gone: the folder is there, and its first entry boots",
        making: Making { name: "uboot-loader-gone", damage: "rm boot/loader", ..DEVICE },
        steps: &[Entry(1), Up(NO_TROUBLE, 2), Off],
    },
    Trial {
        title: "uEnv.txt sets variables that are none of its business: they are not taken",
        making: Making {
            name: "uboot-injection",
            damage: "printf 'kernel_addr_r=0\\nramdisk_addr_r=0\\nbootward_start=true\\n' >>boot/loader/uEnv.txt",
            ..DEVICE
        },
        steps: &[Entry(1), Up(NO_TROUBLE, 2), Off],
    },
    Trial {
        title: "recovery is asked for in the environment: it comes once, and the guardian takes the request away",
        making: Making { name: "uboot-recovery-asked", ..ON_TRIAL },
        steps: &[
            Counted(1, 2),
            Up(NO_TROUBLE, 2),
            Answers("bootward env set bootward_recovery 1; echo set-$((1+1))", "set-2"),
            Restarts,
            // The script writes its count beside the request, which must survive that.
            Counted(2, 2),
            Recovers("bootward_recovery is set in the bootloader's environment"),
            Types("reboot"),
            GivesUp,
            Entry(2),
            Up(ROLLED_BACK, 1),
            Off,
            Stored(&["bootcount=0", "rollback=1"]),
        ],
    },
    Trial {
        title: "the entry has a device tree of its own: the kernel gets it",
        making: Making {
            name: "uboot-device-tree",
            damage: concat!(device_tree!(), "echo fdt_file=/boot/ostree/lab.dtb >>boot/loader/uEnv.txt"),
            settings: &[FDT_MEMORY],
            ..DEVICE
        },
        steps: &[Entry(1), Says("Machine model: bootward,in-test"), Up(NO_TROUBLE, 2), Off],
    },
    Trial {
        title: "the second entry has a folder of device trees: the kernel gets the board's",
        making: Making {
            name: "uboot-device-trees",
            state: Some("bootcount=0 bootlimit=2 rollback=1 upgrade_available=0"),
            damage: concat!(device_tree!(), "echo fdtdir2=/boot/ostree >>boot/loader/uEnv.txt"),
            settings: &[FDT_MEMORY, ("bootward_start=booti", "bootward_start=booti; setenv fdtfile lab.dtb")],
            ..DEVICE
        },
        steps: &[Entry(2), Says("Machine model: bootward,in-test"), Up(ROLLED_BACK, 1), Off],
    },
    Trial {
        title: "the second entry's arguments are long and odd: they reach the kernel as they are",
        making: Making {
            name: "uboot-arguments",
            state: Some("bootcount=0 bootlimit=2 rollback=1 upgrade_available=0"),
            damage: concat!(
                "long=$(printf '%1200s' | tr ' ' p); ",
                r#"sed -i "/^bootargs2=/s/\$/ lab.long=$long lab.a=\"x  y\" lab.b=\$foo;z lab.end=1/" boot/loader/uEnv.txt"#
            ),
            ..DEVICE
        },
        steps: &[
            Entry(2),
            Up(ROLLED_BACK, 1),
            Answers("grep -c 'p lab.a=\"x  y\" lab.b=.foo;z lab.end=1' /proc/cmdline", "\n1"),
            Off,
        ],
    },
    Trial {
        title: "counts are decimal, also past nine, and what is no number counts as none",
        making: Making {
            name: "uboot-decimal",
            state: Some("bootcount=9 bootlimit=10 rollback=0 upgrade_available=1"),
            ..DEVICE
        },
        steps: &[
            Counted(10, 10),
            Entry(1),
            Up(NO_TROUBLE, 2),
            Answers(
                "bootward env set bootcount 19; bootward env set bootlimit lots; echo set-$((1+1))",
                "set-2",
            ),
            Off,
            Counted(20, 3),
            GivesUp,
            Entry(2),
            Up(ROLLED_BACK, 1),
            Off,
            Stored(&["bootcount=0", "bootlimit=3", "rollback=1"]),
        ],
    },
];

/// The trials that every U-Boot must pass, with this one.
pub fn shared(uboot: Uboot) -> Vec<Trial> {
    let of = |trial: &Trial| {
        // Disks and transcripts of their own. There are a few dozen names in all.
        let name = Box::leak(format!("{}{}", trial.making.name, uboot.suffix()).into_boxed_str());
        Trial { making: Making { uboot, name, ..trial.making }, ..*trial }
    };
    SHARED.iter().map(of).collect()
}

/// The same for a U-Boot of which only little is different: what fails, what works, and what is lost.
pub fn some(uboot: Uboot) -> Vec<Trial> {
    let few = [PANICS, WORKS, ERASED_AND_BAD].map(|trial| trial.making.name);
    let mut all = shared(uboot);
    all.retain(|trial| few.iter().any(|name| trial.making.name.starts_with(name)));
    all
}

/// Every trial there is.
pub fn all() -> Vec<Trial> {
    let mut all: Vec<Trial> =
        [Uboot::Stock, Uboot::Newer, Uboot::Saving, Uboot::Counting].into_iter().flat_map(shared).collect();
    all.extend(some(Uboot::Flash));
    all.extend(ENTRIES);
    all.push(GOES_ON);
    all.extend(DEPLOYS);
    all
}

impl Trial {
    /// Plays it to its end and says what happened.
    ///
    /// # Errors
    /// When anything else than the expected happens.
    pub fn play(&self, live: bool) -> Outcome<String> {
        let board = Making { live, ..self.making }.make()?;
        let mut played = Played::new(&board, self.making.uboot);
        for step in self.steps {
            played.step(step).map_err(|fault| Fault::new(format!("at {step:?}: {fault}")))?;
        }
        Ok(self.title.to_string())
    }
}

/// A device while its steps are played.
pub struct Played<'a> {
    board: &'a Board,
    uboot: Uboot,
    vm: Option<Vm>,
}

impl<'a> Played<'a> {
    /// One that is off.
    pub fn new(board: &'a Board, uboot: Uboot) -> Self {
        Played { board, uboot, vm: None }
    }

    /// Plays a step.
    ///
    /// # Errors
    /// When anything else happens.
    pub fn step(&mut self, step: &Step) -> Outcome<()> {
        match step {
            Off => self.switch_off(),
            Stored(wanted) => has(&self.board.stored()?, wanted),
            Erased => self.board.erase(),
            OnDisk(script) => self.board.change(script),
            _ => self.console(step),
        }
    }

    fn console(&mut self, step: &Step) -> Outcome<()> {
        let vm = match &mut self.vm {
            Some(vm) => vm,
            none => none.insert(self.board.start()?),
        };
        match step {
            Counted(boot, limit) => {
                let by = self.uboot.counter();
                vm.expect(&format!("boot.scr: trial, boot {boot} of {limit}, counted by {by}"), RESET)?;
            }
            GivesUp => {
                if self.uboot.counts() {
                    vm.expect(" exceeded. Using altbootcmd.", RESET)?;
                }
                vm.expect("boot.scr: the trial has failed, rolling back", RESET)?;
            }
            Says(what) => drop(vm.expect(what, BOOT)?),
            Entry(entry) => drop(vm.expect(&format!("boot.scr: entry {entry}: /boot/ostree/"), BOOT)?),
            Up(reason, version) => return comes_up(vm, reason, *version),
            Panics => drop(vm.expect("Kernel panic - not syncing: Attempted to kill init", BOOT)?),
            Recovers(reason) => {
                vm.expect(&format!("bootward: recovery: {reason}"), BOOT)?;
                vm.expect("bootward> ", ANSWER)?;
            }
            Types(line) => vm.type_line(line)?,
            Answers(command, answer) => drop(answers(vm, command, answer)?),
            Confirms => drop(answers(vm, "bootward confirm && echo confirmed-$((1+1))", "confirmed-2")?),
            Sees(wanted) => {
                return has(&answers(vm, "bootward env print; echo env-$((1+1))", "env-2")?, wanted);
            }
            Restarts => {
                vm.expect("lab# ", ANSWER)?;
                vm.type_line("reboot -f")?;
            }
            Off | Stored(_) | Erased | OnDisk(_) => {}
        }
        Ok(())
    }

    fn switch_off(&mut self) -> Outcome<()> {
        let Some(mut vm) = self.vm.take() else { return Err(Fault::new("the device is off already")) };
        vm.expect("lab# ", ANSWER)?;
        vm.type_line("poweroff -f")?;
        vm.expect_end(ANSWER)
    }
}

fn comes_up(vm: &mut Vm, reason: &str, version: u32) -> Outcome<()> {
    let decision = vm.expect_line("bootward: decision: ", BOOT)?;
    if !decision.contains(reason) {
        return Err(vm.failure(&format!("the guardian decided otherwise: {decision}")));
    }
    let up = vm.expect_line("[os] up: ", BOOT)?;
    if up != version.to_string() {
        return Err(vm.failure(&format!("version {up} came up and not {version}")));
    }
    Ok(())
}

fn answers(vm: &mut Vm, command: &str, answer: &str) -> Outcome<String> {
    vm.expect("lab# ", ANSWER)?;
    vm.type_line(command)?;
    vm.expect(answer, BOOT)
}

/// Every wanted `NAME=VALUE` is a line of `text`.
fn has(text: &str, wanted: &[&str]) -> Outcome<()> {
    match wanted.iter().find(|wanted| !text.lines().any(|line| line.trim() == **wanted)) {
        None => Ok(()),
        Some(missing) => Err(Fault::new(format!("{missing} is not there:\n{text}"))),
    }
}
