//! A device that boots as products do: U-Boot is the firmware, `boot.scr` is on a FAT partition, and `uEnv.txt`, kernels
//! and initramfs are where the real `ostree` has put them in the sysroot.
//!
//! The script is `uboot/boot.cmd` itself, through `mkimage`. Nothing is passed to QEMU but the firmware and the disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::fixture::{Env, LABEL, deploy, disks, init_sysroot, small_tree};
use super::flash;
use super::guardian::{initramfs_for, initramfs_of, kernel};
use super::tools::{as_root, prepared, read, run, write};
use super::vm::{Machine, Setup, Vm};
use super::{Fault, Outcome};

/// Size of the FAT partition, in megabytes: room for a kernel of its own.
const FAT: u64 = 64;
/// Where it is on the disk, in bytes.
pub const FIRMWARE: std::ops::Range<u64> = 1 << 20..(1 + FAT) << 20;
/// The machine's flash, beside its disk.
const FLASH: &str = "flash.img";
/// Size of the sysroot, in megabytes.
const ROOT: u32 = 128;
/// Seconds until the watchdog resets a device that hangs.
pub const WATCHDOG: u32 = 15;
/// What is loaded before the root is looked for, for both kinds of disk.
const MODULES: [&str; 9] =
    ["i6300esb", "virtio_pci", "virtio_blk", "ahci", "sd_mod", "ext4", "vfat", "nls_cp437", "nls_ascii"];

/// The init of this small system. What it does after that it is up is in `usr/lib/lab-action`.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/bin:/usr/sbin HOME=/var PS1='lab# '
. /usr/lib/os-release
[ -e /proc/self ] || mount -t proc proc /proc
echo "[os] up: $VERSION"
action=$(cat /usr/lib/lab-action 2>/dev/null)
case $action in
    panic) echo "[os] the init ends"; exit 1 ;;
    hang) echo "[os] hangs"; while :; do sleep 1000; done ;;
esac
for disk in /dev/vda1 /dev/sda1; do
    if [ -b $disk ]; then mount -t vfat -o sync $disk /boot/firmware; fi
done
# The guardian hands an armed watchdog over: a system that works feeds it.
for fd in 3 4 5 6 7 8 9; do
    case $(readlink /proc/$$/fd/$fd) in
        /dev/watchdog*) (while sleep 2; do echo . >&$fd; done) & ;;
    esac
done
exec sh -i
"#;

/// The U-Boot of a device, and with it who counts and where the state is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uboot {
    /// Debian's own. `boot.scr` counts, and its state is a file on FAT.
    Stock,
    /// The same of the Debian after that.
    Newer,
    /// Debian's source with `uboot/env-redundant.config`. `boot.scr` counts, and saves the environment.
    Saving,
    /// The same with `uboot/bootward.config`: U-Boot counts.
    Counting,
    /// As [`Uboot::Counting`], with `uboot/env-flash.config`: its environment is in the machine's NOR flash.
    Flash,
}

impl Uboot {
    /// Goes behind the names of what is made for it.
    pub fn suffix(self) -> &'static str {
        match self {
            Uboot::Stock => "",
            Uboot::Newer => "-newer",
            Uboot::Saving => "-saving",
            Uboot::Counting => "-counting",
            Uboot::Flash => "-flash",
        }
    }

    /// U-Boot itself counts, and not the script.
    pub fn counts(self) -> bool {
        matches!(self, Uboot::Counting | Uboot::Flash)
    }

    /// As the script calls the party that counts.
    pub fn counter(self) -> &'static str {
        if self.counts() { "uboot" } else { "script" }
    }

    /// The state is U-Boot's environment itself.
    fn is_environment(self) -> bool {
        self == Uboot::Saving || self.counts()
    }

    fn firmware(self) -> Outcome<PathBuf> {
        match self {
            Uboot::Stock => {
                let path = PathBuf::from("/usr/lib/u-boot/qemu_arm64/u-boot.bin");
                if path.exists() {
                    return Ok(path);
                }
                Err(Fault::new(format!("{} is not there: run tests/vm/setup first", path.display())))
            }
            other => prepared(&format!("uboot{}/u-boot.bin", other.suffix())),
        }
    }

    /// The files of the state on the FAT partition.
    fn files(self) -> &'static [&'static str] {
        match self {
            Uboot::Flash => &[],
            Uboot::Saving | Uboot::Counting => &["uboot.env", "uboot-redund.env"],
            Uboot::Stock | Uboot::Newer => &["bootward.env"],
        }
    }

    /// Size of one copy of the state, in bytes.
    fn size(self) -> usize {
        if self.is_environment() { 0x4000 } else { 0x200 }
    }

    /// What names the state to Linux, where the FAT partition is mounted at `directory`.
    fn fw_env_config(self, directory: &Path) -> String {
        // Linux joins both banks of the machine's flash.
        if self == Uboot::Flash {
            return flash::fw_env_config(Path::new("/dev/mtd0"), flash::BANK, self.size());
        }
        let size = self.size();
        let line = |file: &&str| format!("{} 0x0 {size:#x}\n", directory.join(file).display());
        self.files().iter().map(line).collect()
    }
}

/// What a device is made of.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    /// Names the directory of its disk and its transcript.
    pub name: &'static str,
    /// Its U-Boot.
    pub uboot: Uboot,
    /// The stored variables, separated by blanks; `None` where nothing was ever stored.
    pub state: Option<&'static str>,
    /// Shell, run in the sysroot; `$new` and `$old` are the deployments of versions 2 and 1.
    pub damage: &'static str,
    /// A watchdog that resets the machine.
    pub watchdog: bool,
    /// A kernel of its own with bootward as its initramfs is on the FAT partition.
    pub rescue: bool,
    /// Lines of `uboot/boot.cmd`, and what this board has in their places.
    pub settings: &'static [(&'static str, &'static str)],
    /// QEMU logs every write that reaches the disk, in `writes.log` beside it.
    pub log: bool,
    /// Print the console while it runs.
    pub live: bool,
}

/// A device, ready to be switched on.
#[derive(Clone, Debug)]
pub struct Board {
    /// The machine.
    pub setup: Setup,
    /// Its disk.
    pub disk: PathBuf,
    uboot: Uboot,
}

/// Two deployments with the real kernel and our initramfs in `/boot`, made once a run for each place of the state.
fn sysroot(uboot: Uboot) -> Outcome<PathBuf> {
    static FILE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    static ENVIRONMENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    static FLASH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let (cell, name) = match uboot {
        Uboot::Flash => (&FLASH, "uboot-flash"),
        Uboot::Saving | Uboot::Counting => (&ENVIRONMENT, "uboot-environment"),
        Uboot::Stock | Uboot::Newer => (&FILE, "uboot-file"),
    };
    cell.get_or_init(|| build(name, uboot).map_err(|fault| fault.to_string())).clone().map_err(Fault::new)
}

fn build(name: &str, uboot: Uboot) -> Outcome<PathBuf> {
    let kernel = kernel(Machine::Arm64)?;
    let initramfs = initramfs(name, uboot)?;
    let sysroot = init_sysroot(name)?;
    // libostree takes the U-Boot way where there is a uEnv.txt already, as an image builder leaves it.
    let seed = "set -e; cd \"$1\"; ostree --repo=ostree/repo config set sysroot.bootloader uboot
         mkdir -p boot/loader.0 boot/firmware; ln -s loader.0 boot/loader; touch boot/loader/uEnv.txt; ln -s loader/uEnv.txt boot/uEnv.txt";
    run(as_root("sh").args(["-c", seed, "sh"]).arg(&sysroot))?;
    for version in ["1", "2"] {
        let tree = small_tree(&format!("{name}-tree-{version}"), version, &kernel, Machine::Arm64)?;
        write(&tree.join("usr/sbin/init"), INIT)?;
        write(&tree.join("usr/etc/fw_env.config"), uboot.fw_env_config(Path::new("/boot/firmware")))?;
        // Behind the initramfs a small archive with the version: each version has a boot checksum of its own.
        let dress = "set -e; cd \"$1\"; cp \"$2\" usr/lib/modules/*/vmlinuz
             cp \"$3\" usr/lib/modules/*/initramfs.img; scratch=$(mktemp -d); cd \"$scratch\"; echo \"$4\" >version
             echo version | cpio -o -H newc --quiet | gzip -n >>\"$1\"/usr/lib/modules/*/initramfs.img; rm -r \"$scratch\"";
        // One shell word for the redirection: there is one release only.
        let dress = dress.replace("usr/lib/modules/*/", &format!("usr/lib/modules/{}/", kernel.release));
        run(Command::new("sh")
            .args(["-c", &dress, "sh"])
            .args([&tree, &kernel.image, &initramfs])
            .arg(version))?;
        let root = format!("root=LABEL={LABEL}");
        deploy(&sysroot, &tree, version, &["console=ttyAMA0", &root, "rw", "panic=-1"])?;
    }
    Ok(sysroot)
}

fn initramfs(name: &str, uboot: Uboot) -> Outcome<PathBuf> {
    let config = format!(
        "[root]\ntimeout = 20\n\n[firmware]\ndevice = \"LABEL=FIRMWARE\"\n\n\
         [ledger]\nlimit = 3\n\n[watchdog]\ndevice = \"/dev/watchdog0\"\ntimeout = {WATCHDOG}\n"
    );
    let fw_env_config = uboot.fw_env_config(Path::new("/firmware"));
    if uboot == Uboot::Flash {
        let modules = [flash::MODULES.as_slice(), MODULES.as_slice()].concat();
        let kernel = flash::kernel("uboot-flash-kernel")?;
        return initramfs_of(&kernel, Machine::Arm64, name, &modules, &config, &fw_env_config, &[]);
    }
    initramfs_for(Machine::Arm64, name, &MODULES, &config, &fw_env_config, &[])
}

impl Making {
    /// Makes the disk, and the machine around it.
    ///
    /// # Errors
    /// When something is missing or a tool fails.
    pub fn make(&self) -> Outcome<Board> {
        let firmware = self.uboot.firmware()?;
        let made = disks(self.name, &sysroot(self.uboot)?, self.damage, Env::None, ROOT)?;
        let [root] = made.images.as_slice() else { return Err(Fault::new("one image was expected")) };
        let disk = root.with_file_name("disk.img");
        partition(&self.fat(root)?, root, &disk)?;
        let mut extra = self.drive(&disk)?;
        if self.uboot == Uboot::Flash {
            let flash = disk.with_file_name(FLASH);
            let stored = self.state.map(|state| self.stored(state, &disk)).transpose()?;
            flash::fill(&flash, stored.as_deref())?;
            extra.extend(["-drive".into(), format!("if=pflash,unit=1,format=raw,file={}", flash.display())]);
        }
        if self.watchdog {
            extra.extend(["-device", "i6300esb", "-action", "watchdog=reset"].map(String::from));
        }
        let setup = Setup {
            name: self.name.to_string(),
            machine: Machine::Arm64,
            memory: 512,
            firmware: Some(firmware),
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            command_line: String::new(),
            disks: Vec::new(),
            extra,
            live: self.live,
        };
        Ok(Board { setup, disk, uboot: self.uboot })
    }

    fn drive(&self, disk: &Path) -> Outcome<Vec<String>> {
        let mut options: Vec<String> = Vec::new();
        if self.log {
            let log = disk.with_file_name("writes.log");
            sized(&log, 0)?;
            for node in [
                format!("driver=file,node-name=file0,filename={}", disk.display()),
                format!("driver=file,node-name=log0,filename={}", log.display()),
                "driver=blklogwrites,node-name=disk0,file=file0,log=log0".into(),
            ] {
                options.extend(["-blockdev".into(), node]);
            }
        } else {
            options.extend(["-drive".into(), format!("if=none,id=disk0,format=raw,file={}", disk.display())]);
        }
        let devices: &[&str] = if matches!(self.uboot, Uboot::Saving | Uboot::Counting) {
            // U-Boot reads its environment before virtio is there.
            &["-device", "ahci,id=ahci", "-device", "ide-hd,drive=disk0,bus=ahci.0"]
        } else {
            &["-device", "virtio-blk-pci,drive=disk0"]
        };
        options.extend(devices.iter().map(ToString::to_string));
        Ok(options)
    }

    /// The FAT partition: the script, the state, and the recovery where there is one.
    fn fat(&self, beside: &Path) -> Outcome<PathBuf> {
        let script = beside.with_file_name("boot.cmd");
        let image = beside.with_file_name("boot.scr");
        write(&script, self.script()?)?;
        let mut mkimage = Command::new("mkimage");
        mkimage.args(["-A", "arm64", "-O", "linux", "-T", "script", "-C", "none", "-n", "bootward", "-d"]);
        run(mkimage.arg(&script).arg(&image))?;
        let fat = beside.with_file_name("fat.img");
        sized(&fat, FAT << 20)?;
        run(sbin("mkfs.vfat").args(["-n", "FIRMWARE"]).arg(&fat))?;
        let mut files = vec![(image, "boot.scr")];
        if let Some(state) = self.state {
            let stored = self.stored(state, beside)?;
            files.extend(self.uboot.files().iter().map(|name| (stored.clone(), *name)));
        }
        if self.rescue {
            files.push((kernel(Machine::Arm64)?.image, "Image"));
            files.push((initramfs(&format!("rescue{}", self.uboot.suffix()), self.uboot)?, "rescue.img"));
        }
        for (from, to) in &files {
            run(Command::new("mcopy").arg("-i").arg(&fat).arg(from).arg(format!("::/{to}")))?;
        }
        Ok(fat)
    }

    /// `uboot/boot.cmd`, with the settings that this board needs.
    fn script(&self) -> Outcome<String> {
        let mut script = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("uboot/boot.cmd"))?;
        let rescue = format!("bootward_args=\"console=ttyAMA0 root=LABEL={LABEL} rw panic=-1\"");
        let mut settings = self.settings.to_vec();
        if !self.uboot.is_environment() {
            settings.push(("bootward_store=env", "bootward_store=file"));
        }
        if self.rescue {
            settings.push(("bootward_kernel=", "bootward_kernel=Image"));
            settings.push(("bootward_initrd=", "bootward_initrd=rescue.img"));
            settings.push(("bootward_args=", &rescue));
        }
        for (line, with) in settings {
            let (line, with) = (format!("\n{line}\n"), format!("\n{with}\n"));
            if script.matches(&line).count() != 1 {
                return Err(Fault::new(format!("uboot/boot.cmd has no line {line:?}")));
            }
            script = script.replace(&line, &with);
        }
        Ok(script)
    }

    /// A copy of the state as `mkenvimage` makes it.
    fn stored(&self, state: &str, beside: &Path) -> Outcome<PathBuf> {
        let (text, image) = (beside.with_file_name("state.txt"), beside.with_file_name("state.env"));
        let mut variables = format!("{}\n", state.replace(' ', "\n"));
        let mut mkenvimage = Command::new("mkenvimage");
        if self.uboot.is_environment() {
            // A stored environment replaces the built-in one, so it must have all of it.
            variables =
                read(&prepared(&format!("uboot{}/u-boot-initial-env", self.uboot.suffix()))?)? + &variables;
            mkenvimage.arg("-r");
        }
        write(&text, variables)?;
        run(mkenvimage.args(["-s", &self.uboot.size().to_string(), "-o"]).arg(&image).arg(&text))?;
        Ok(image)
    }
}

impl Board {
    /// Switches it on.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(&self) -> Outcome<Vm> {
        self.setup.start()
    }

    /// The stored variables as `fw_printenv` has them, on the machine that is switched off.
    ///
    /// # Errors
    /// When there is no valid state.
    pub fn stored(&self) -> Outcome<String> {
        let directory = self.disk.with_file_name("stored");
        std::fs::create_dir_all(&directory).map_err(|e| Fault::file("make", &directory, &e))?;
        for file in self.uboot.files() {
            let image = format!("{}@@1M", self.disk.display());
            let mut mcopy = Command::new("mcopy");
            run(mcopy.args(["-n", "-o", "-i", &image]).arg(format!("::/{file}")).arg(directory.join(file)))?;
        }
        let config = directory.join("fw_env.config");
        let named = match self.uboot {
            Uboot::Flash => flash::fw_env_config(&self.disk.with_file_name(FLASH), 0, self.uboot.size()),
            other => other.fw_env_config(&directory),
        };
        write(&config, named)?;
        run(Command::new("fw_printenv").arg("-c").arg(&config))
    }

    /// Runs a script in the sysroot of the machine that is switched off, mounted in a namespace of its own.
    ///
    /// # Errors
    /// When it fails, or nothing can be mounted.
    pub fn change(&self, script: &str) -> Outcome<()> {
        let mounted = self.disk.with_file_name("mounted");
        std::fs::create_dir_all(&mounted).map_err(|e| Fault::file("make", &mounted, &e))?;
        let all = format!(
            "set -e; mount -o loop,offset={} \"$1\" \"$2\"; cd \"$2\"\n{script}\ncd /; umount \"$2\"",
            FIRMWARE.end
        );
        let mut shell = as_root("unshare");
        shell.env("OSTREE_SYSROOT_DEBUG", "mutable-deployments");
        shell.args(["--mount", "sh", "-c", &all, "sh"]).arg(&self.disk).arg(&mounted);
        run(&mut shell).map(drop)
    }

    /// Overwrites the stored state with bytes that are none.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn erase(&self) -> Outcome<()> {
        if self.uboot == Uboot::Flash {
            return flash::fill(&self.disk.with_file_name(FLASH), None);
        }
        let blank = self.disk.with_file_name("blank");
        write(&blank, vec![0xff; self.uboot.size()])?;
        for file in self.uboot.files() {
            let image = format!("{}@@1M", self.disk.display());
            run(Command::new("mcopy").args(["-o", "-i", &image]).arg(&blank).arg(format!("::/{file}")))?;
        }
        Ok(())
    }
}

/// Puts both file systems on a disk. They are taken away.
fn partition(fat: &Path, root: &Path, disk: &Path) -> Outcome<()> {
    sized(disk, ((1 + FAT + u64::from(ROOT)) << 20) + (1 << 20))?;
    let table = disk.with_file_name("table");
    let start = 1 + FAT;
    write(
        &table,
        format!(
            "label: dos\nstart=1MiB, size={FAT}MiB, type=c, bootable\nstart={start}MiB, size={ROOT}MiB, type=83\n"
        ),
    )?;
    let script =
        "sfdisk -q \"$1\" <\"$2\"; dd if=\"$3\" of=\"$1\" bs=1M seek=1 conv=notrunc,sparse status=none
         dd if=\"$4\" of=\"$1\" bs=1M seek=\"$5\" conv=notrunc,sparse status=none";
    run(sbin("sh").args(["-e", "-c", script, "sh"]).args([disk, &table, fat, root]).arg(start.to_string()))?;
    for image in [fat, root] {
        std::fs::remove_file(image).map_err(|e| Fault::file("remove", image, &e))?;
    }
    Ok(())
}

fn sized(path: &Path, bytes: u64) -> Outcome<()> {
    let file = File::create(path).map_err(|e| Fault::file("write", path, &e))?;
    file.set_len(bytes).map_err(|e| Fault::file("grow", path, &e))
}

fn sbin(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command
}
