//! The units of the health checks under a real systemd: the Debian root of the laboratory, started as PID 1 of its own
//! namespaces, without QEMU. It needs root and cgroup2, nothing of which it leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::lab::tools::{as_root, empty_dir, prepared, read, run, write};
use crate::lab::{Fault, Outcome};

/// Starts systemd in the root that `$1` holds the changes of, for at most `$2` seconds; its own restart ends it
/// earlier. `$3` is the Debian tree, `$4` the bootward of this build.
const START: &str = r#"
set -eu
work=$1 limit=$2 tree=$3 bootward=$4
for base in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ -f $base/cgroup.procs ] && break; done
group=$base/bootward-units-$$
mkdir "$group"
clean() {
    echo 1 >"$group/cgroup.kill"
    for try in 1 2 3 4 5 6 7 8 9 10; do
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
        [ -d "$group" ] || return 0
        sleep 0.3
    done
    echo "the cgroup $group is left over" >&2
}
trap clean EXIT
cat >"$work/inside" <<'X'
set -eu
work=$1 tree=$2 bootward=$3
root=$work/root
mount --make-rprivate /
mkdir -p "$root" "$work/upper" "$work/work"
mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" overlay "$root"
cp -a "$root/usr/etc" "$root/etc"
cp -a "$work/changes/." "$root/"
touch "$root/usr/bin/bootward-real"
mount --bind "$bootward" "$root/usr/bin/bootward-real"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
touch "$root/run/ostree-booted"
mount -t tmpfs tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
systemctl --root="$root" enable bootward-check.service bootward-confirm.service
for unit in "$work"/enable/*; do [ -e "$unit" ] && systemctl --root="$root" enable "${unit##*/}"; done
rm -f "$root"/etc/systemd/system/*/lab-report.*
exec chroot "$root" env -i container=lab PATH=/usr/sbin:/usr/bin \
    /usr/lib/systemd/systemd --log-target=console --unit=multi-user.target
X
code=0
sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group" \
    timeout -k 5 "$limit" unshare --kill-child --mount --pid --fork --uts --ipc --cgroup \
    sh "$work/inside" "$work" "$tree" "$bootward" >"$work/log" 2>&1 </dev/null || code=$?
echo $code >"$work/code"
"#;

/// Stands before the real program: writes down what is called, and takes the place of what needs an OSTree sysroot.
const BOOTWARD: &str = r#"#!/bin/sh
echo "$*" >>/calls
case $1 in
    check) exec bootward-real "$@" --sysroot /nowhere ;;
    confirm) systemctl is-active multi-user.target >>/calls ;;
esac
"#;

struct Device {
    work: PathBuf,
    name: &'static str,
}

struct Happened {
    /// What was called, in order.
    calls: Vec<String>,
    /// It restarted by itself, before its time was over.
    restarted: bool,
    /// How long it ran.
    ran: Duration,
    log: PathBuf,
}

impl Device {
    fn new(name: &'static str) -> Outcome<Self> {
        let work = empty_dir(&format!("units-{name}"))?;
        let device = Device { work, name };
        let files =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("yocto/meta-bootward/recipes-core/bootward/files");
        for unit in ["bootward-check.service", "bootward-confirm.service", "bootward-reject.service"] {
            device.file(&format!("usr/lib/systemd/system/{unit}"), &read(&files.join(unit))?)?;
        }
        device.script("usr/bin/bootward", BOOTWARD)?;
        device.script(
            "usr/lib/bootward/check/required.d/10-target.sh",
            "systemctl is-active multi-user.target\n",
        )?;
        device.script("usr/lib/bootward/green.d/green.sh", "echo green-script >>/calls\n")?;
        device.script("usr/lib/bootward/red.d/red.sh", "echo red-script >>/calls\n")?;
        fs::create_dir_all(device.work.join("enable")).map_err(|e| Fault::file("make", &device.work, &e))?;
        Ok(device)
    }

    fn file(&self, path: &str, content: &str) -> Outcome<&Self> {
        write(&self.work.join("changes").join(path), content)?;
        Ok(self)
    }

    fn script(&self, path: &str, content: &str) -> Outcome<&Self> {
        self.file(path, content)?;
        run(std::process::Command::new("chmod").arg("755").arg(self.work.join("changes").join(path)))?;
        Ok(self)
    }

    /// A unit of the device's own that is switched on.
    fn unit(&self, name: &str, content: &str) -> Outcome<&Self> {
        self.file(&format!("etc/systemd/system/{name}"), content)?;
        write(&self.work.join("enable").join(name), "")?;
        Ok(self)
    }

    fn boot(&self, seconds: u64) -> Outcome<Happened> {
        let begun = Instant::now();
        let mut start = as_root("sh");
        start.args(["-c", START, "sh"]).arg(&self.work).arg(seconds.to_string());
        start.arg(prepared("debian-root")?).arg(env!("CARGO_BIN_EXE_bootward"));
        run(&mut start)?;
        let calls = fs::read_to_string(self.work.join("upper/calls")).unwrap_or_default();
        let happened = Happened {
            calls: calls.lines().map(str::to_string).collect(),
            // A PID namespace whose init restarts "the machine" ends by SIGHUP (reboot(2)).
            restarted: read(&self.work.join("code"))?.trim() == "129",
            ran: begun.elapsed(),
            log: self.work.join("log"),
        };
        println!("units, {}: {:?}, restarted: {}", self.name, happened.calls, happened.restarted);
        Ok(happened)
    }
}

fn expect(happened: &Happened, calls: &[&str], restarted: bool) {
    let log = || fs::read_to_string(&happened.log).unwrap_or_default();
    assert_eq!(happened.calls, calls, "{}", log());
    assert_eq!(happened.restarted, restarted, "{}", log());
}

const BAD: [&str; 4] = ["check --only checks", "check --only red", "red-script", "reject"];

#[test]
fn a_good_boot_is_confirmed() {
    let happened = Device::new("good").and_then(|d| d.boot(25)).unwrap_or_else(|e| panic!("{e}"));
    let calls = ["check --only checks", "confirm", "active", "check --only green", "green-script"];
    expect(&happened, &calls, false);
}

#[test]
fn a_failed_check_rejects_and_restarts() {
    let device = Device::new("bad").unwrap_or_else(|e| panic!("{e}"));
    let bad = || -> Outcome<Happened> {
        device.script("etc/bootward/check/required.d/20-bad.sh", "exit 1\n")?;
        // The restart is an orderly one where nothing holds it up.
        let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n";
        let unit = format!("{unit}ExecStop=sh -c 'sleep 1; echo stopped >>/calls'\n");
        device.unit("orderly.service", &format!("{unit}[Install]\nWantedBy=multi-user.target\n"))?;
        device.boot(60)
    };
    let calls = [&BAD[..], &["stopped"]].concat();
    expect(&bad().unwrap_or_else(|e| panic!("{e}")), &calls, true);
}

/// A check that bootward itself ends, and a bootward that systemd has to end.
#[test]
fn what_hangs_rejects_and_restarts() {
    let device = Device::new("hang").unwrap_or_else(|e| panic!("{e}"));
    let hang = || -> Outcome<Happened> {
        device.script("etc/bootward/check/required.d/20-hang.sh", "exec sleep 1000\n")?;
        device.file("etc/bootward/bootward.toml", "[check]\ntimeout = 2\n")?;
        device.boot(60)
    };
    expect(&hang().unwrap_or_else(|e| panic!("{e}")), &BAD, true);

    let device = Device::new("hang-whole").unwrap_or_else(|e| panic!("{e}"));
    let hang = || -> Outcome<Happened> {
        device.script("etc/bootward/check/required.d/20-hang.sh", "exec sleep 1000\n")?;
        device
            .file("etc/systemd/system/bootward-check.service.d/t.conf", "[Service]\nTimeoutStartSec=3\n")?;
        device.boot(60)
    };
    expect(&hang().unwrap_or_else(|e| panic!("{e}")), &BAD, true);
}

/// A start that never ends: the checks do not get their turn, and that is noticed.
#[test]
fn a_boot_that_never_gets_there_rejects_and_restarts() {
    let device = Device::new("never").unwrap_or_else(|e| panic!("{e}"));
    let never = || -> Outcome<Happened> {
        let unit = "[Service]\nType=oneshot\nExecStart=sleep 1000\nTimeoutStartSec=infinity\n";
        device.unit("slow.service", &format!("{unit}[Install]\nWantedBy=multi-user.target\n"))?;
        device.file("etc/systemd/system/bootward-check.service.d/t.conf", "[Unit]\nJobTimeoutSec=5\n")?;
        device.boot(60)
    };
    expect(&never().unwrap_or_else(|e| panic!("{e}")), &BAD[1..], true);
}

/// A unit that will not stop holds the shutdown up; the restart is forced.
#[test]
fn a_shutdown_that_hangs_is_forced() {
    let device = Device::new("stuck").unwrap_or_else(|e| panic!("{e}"));
    let stuck = || -> Outcome<Happened> {
        device.script("etc/bootward/check/required.d/20-bad.sh", "exit 1\n")?;
        let unit =
            "[Service]\nExecStart=sh -c 'trap : TERM; while :; do sleep 1; done'\nTimeoutStopSec=infinity\n";
        device.unit("stuck.service", &format!("{unit}[Install]\nWantedBy=multi-user.target\n"))?;
        let reject = "usr/lib/systemd/system/bootward-reject.service";
        let text = read(&device.work.join("changes").join(reject))?;
        assert!(text.contains("\nExecStart=sleep 180\n"));
        device.file(reject, &text.replace("sleep 180", "sleep 4"))?;
        device.boot(60)
    };
    let happened = stuck().unwrap_or_else(|e| panic!("{e}"));
    expect(&happened, &BAD, true);
    assert!(happened.ran < Duration::from_secs(40), "{:?}", happened.ran);
}
