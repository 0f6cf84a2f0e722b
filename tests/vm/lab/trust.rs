//! Verification before the boot, on a device that trusts one key: what is damaged, unsigned or signed by somebody
//! else is passed over, and says why on the console and in the ledger.

use std::path::{Path, PathBuf};

use super::fixture::{Env, disks, small_sysroot};
use super::guardian::{MODULES, initramfs_and, kernel};
use super::keys::{Pair, deployments, object};
use super::scenes::{Expected, FULL};
use super::tools::{as_root, empty_dir, lab, read, run};
use super::vm::{Machine, Setup};
use super::{Fault, Outcome};

/// Where the key is in the initramfs.
const KEYS: &str = "/etc/bootward/keys/lab";

struct Scene {
    name: &'static str,
    /// As in the other scenes; `$meta` is the detached metadata of the newest deployment's commit, `$other` the same
    /// with a signature that is good but of another key.
    damage: &'static str,
    /// Added to the command line.
    argument: &'static str,
    /// Which initramfs boots it.
    guard: Guard,
    expected: Expected,
    /// What the console must say besides.
    said: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// With the key.
    Keys,
    /// The configuration names a key that is not there.
    KeysMissing,
    /// Every byte, and no signature.
    Full,
}

const fn scene(name: &'static str, damage: &'static str, expected: Expected) -> Scene {
    Scene { name, damage, argument: "", guard: Guard::Keys, expected, said: "bootward: verifying lab " }
}

const SCENES: [Scene; 9] = [
    Scene {
        said: "bootward: verified, signed by key 1: ",
        ..scene("trust-good", "", Expected::Boots(2, &[]))
    },
    scene(
        "trust-unsigned",
        "rm $meta",
        Expected::Boots(1, &["its commit is not signed: it has no detached metadata"]),
    ),
    scene(
        "trust-another-key",
        "cp $other $meta",
        Expected::Boots(1, &["none of 1 signatures (0 malformed) is of 1 trusted keys"]),
    ),
    scene(
        "trust-signed-elsewhere",
        "cp ostree/repo/objects/*/*.commitmeta .; old=$(ls *.commitmeta | grep -v ${meta##*/}); mv $old $meta; rm -f *.commitmeta",
        Expected::Boots(1, &["none of 1 signatures (0 malformed) is of 1 trusted keys"]),
    ),
    scene(
        "trust-all-unsigned",
        "rm ostree/repo/objects/*/*.commitmeta",
        Expected::Recovery(&["its commit is not signed: it has no detached metadata"]),
    ),
    Scene {
        guard: Guard::KeysMissing,
        said: "",
        ..scene(
            "trust-keys-missing",
            "",
            Expected::Recovery(&[
                "the trusted keys /etc/bootward/keys/lab cannot be read: No such file or directory",
                "nothing boots until the initramfs is built again",
            ]),
        )
    },
    Scene {
        guard: Guard::Full,
        ..scene(
            "verify-kernel-changed",
            "k=$(echo boot/ostree/lab-*/vmlinuz-*); for f in $k; do cp $f copy; echo x >>copy; mv copy $f; done",
            Expected::Recovery(&["not the file of the deployment"]),
        )
    },
    // A hint from the bootloader's side switches nothing off.
    Scene {
        guard: Guard::Full,
        argument: " bootward.verify=none",
        ..scene(
            "verify-not-weakened",
            "touch $new/usr/added",
            Expected::Boots(1, &["/usr/added: not in the commit"]),
        )
    },
    Scene {
        guard: Guard::Full,
        ..scene(
            "verify-commit-damaged",
            "c=${meta%meta}; cp $c copy; printf x | dd of=copy bs=1 seek=20 conv=notrunc status=none; mv copy $c",
            Expected::Boots(1, &[".commit is damaged"]),
        )
    },
];

/// Plays all of it.
///
/// # Errors
/// Everything that is not as it must be.
pub fn play() -> Outcome<Vec<String>> {
    let dir = empty_dir("trust")?;
    let sysroot = signed(&dir)?;
    let (mut happened, mut faults) = (Vec::new(), Vec::new());
    for scene in &SCENES {
        match scene.play(&dir, &sysroot) {
            Ok(line) => happened.push(line),
            Err(fault) => faults.push(format!("{}: {fault}", scene.name)),
        }
    }
    if faults.is_empty() { Ok(happened) } else { Err(Fault::new(faults.join("\n\n"))) }
}

/// The small system with both commits signed, and a signature of somebody else's over the newest one.
fn signed(dir: &Path) -> Outcome<PathBuf> {
    let sysroot = dir.join("sysroot");
    run(as_root("cp").arg("-a").arg(small_sysroot()?).arg(&sysroot))?;
    let (ours, other) = (Pair::new(&dir.join("keys"), "lab")?, Pair::new(&dir.join("other"), "key")?);
    let [new, old] = deployments(&sysroot)?;
    let objects = sysroot.join("ostree/repo/objects");
    for name in [&new, &old] {
        let commit = objects.join(object(name)?).with_extension("commit");
        ours.sign(&commit, &commit.with_extension("commitmeta"))?;
    }
    let commit = objects.join(object(&new)?).with_extension("commit");
    other.sign(&commit, &sysroot.join("ostree/other"))?;
    Ok(sysroot)
}

impl Scene {
    fn play(&self, dir: &Path, sysroot: &Path) -> Outcome<String> {
        let script = format!(
            "c=${{new##*/}}; c=${{c%.*}}; rest=${{c#??}}; other=ostree/other
             meta=ostree/repo/objects/${{c%$rest}}/$rest.commitmeta\n{}",
            self.damage
        );
        let made = disks(self.name, sysroot, &script, Env::Pair("rollback=0"), 96)?;
        let setup = Setup {
            name: self.name.into(),
            firmware: None,
            machine: Machine::Arm64,
            memory: 384,
            kernel: kernel(Machine::Arm64)?.image,
            initramfs: self.guard.initramfs(dir)?,
            command_line: made.options + self.argument,
            disks: made.images,
            extra: Vec::new(),
            live: false,
        };
        let happened = self.expected.of(&setup)?;
        let console = read(&lab().join("logs").join(format!("{}.log", self.name)))?;
        if !console.contains(self.said) {
            return Err(Fault::new(format!("{}: nothing was said of '{}'", self.name, self.said)));
        }
        Ok(format!("{}: {happened}", self.name))
    }
}

impl Guard {
    fn initramfs(self, dir: &Path) -> Outcome<PathBuf> {
        let keys = format!("[root]\ntimeout = 20\n\n[verify]\nkeys = \"{KEYS}\"\n");
        let (name, config, more) = match self {
            Guard::Keys => {
                let keys_dir = dir.join("keys").display().to_string();
                ("aarch64-keys", keys, vec!["--keys".into(), keys_dir])
            }
            Guard::KeysMissing => ("aarch64-keys-missing", keys, Vec::new()),
            Guard::Full => ("aarch64-full", format!("[root]\ntimeout = 20\n\n{FULL}"), Vec::new()),
        };
        initramfs_and(Machine::Arm64, name, &MODULES, &config, &more)
    }
}
