//! The environment in flash: Debian's `fw_setenv` and `fw_printenv` and our own command in turn, on real drivers.
//!
//! NOR is the flash of QEMU's machine, NAND is Linux' simulator of it, with a bad block; UBI is on the NAND.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::guardian::{self, Kernel, binary};
use super::tools::{empty_dir, lab, prepared, run, write};
use super::vm::{Machine, Setup};
use super::{Fault, Outcome};

/// Modules that Debian has.
const DEBIANS: [&str; 6] = [
    "lib/bch",
    "drivers/mtd/mtd",
    "drivers/mtd/chips/chipreg",
    "drivers/mtd/parsers/ofpart",
    "drivers/mtd/nand/nandcore",
    "drivers/mtd/ubi/ubi",
];
/// Every part of it that the guest says to have done.
const DONE: [&str; 11] = [
    "nor-kept",
    "nor-single",
    "nor-pair",
    "nor-long",
    "nand-pair",
    "nand-no-room",
    "ubi-single",
    "ubi-pair",
    "ubi-named",
    "ubi-cut",
    "refused",
];
/// Size of an environment in NOR, in bytes.
const SIZE: usize = 0x10000;
/// Of a sector there, in bytes.
const SECTOR: usize = 0x40000;
/// Of one bank of the machine's flash, in bytes. The first one is the firmware's, the second one ours.
pub const BANK: u64 = 64 << 20;
/// The sector that only bootward writes: fw_setenv of libubootenv erases what is behind its image.
const KEPT: usize = 8;
/// What is in the sectors besides the environment.
const OTHERS: u8 = 0x5A;

/// The drivers of NOR flash, in the order in which they are loaded: none of them asks for the next one.
pub const MODULES: [&str; 4] = ["cfi_cmdset_0001", "cfi_probe", "ofpart", "physmap"];

/// The kernel of the machine with the drivers of its flash, which Debian leaves out, in a directory of this name.
///
/// # Errors
/// When `tests/vm/setup` has not run.
pub fn kernel(name: &str) -> Outcome<Kernel> {
    prepared("flash.stamp")?;
    let kernel = guardian::kernel(Machine::Arm64)?;
    let tree = empty_dir(name)?;
    let script = "cp -al \"$1/lib\" \"$2/\" && mkdir \"$2/lib/modules/$3/extra\" && cp \"$4\"/*.ko \"$2/lib/modules/$3/extra/\"";
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", script, "sh"]).args([&kernel.tree, &tree]).arg(&kernel.release);
    run(shell.arg(lab().join("flash")))?;
    Ok(Kernel { tree, ..kernel })
}

/// The lines of `fw_env.config` for a pair that begins at this offset of the device, as `uboot/env-flash.config` has it.
pub fn fw_env_config(device: &Path, at: u64, size: usize) -> String {
    let line = |at: u64| format!("{} {at:#x} {size:#x} {SECTOR:#x}\n", device.display());
    line(at) + &line(at + SECTOR as u64)
}

/// The second bank with this in both of its first sectors; without it, and elsewhere, it is erased.
///
/// # Errors
/// When it cannot be written.
pub fn fill(flash: &Path, both: Option<&Path>) -> Outcome<()> {
    let file = erased(flash)?;
    let Some(image) = both else { return Ok(()) };
    let bytes = std::fs::read(image).map_err(|e| Fault::file("read", image, &e))?;
    for at in [0, SECTOR as u64] {
        file.write_all_at(&bytes, at).map_err(|e| Fault::file("write", flash, &e))?;
    }
    Ok(())
}

fn erased(flash: &Path) -> Outcome<File> {
    let failed = |e: std::io::Error| Fault::file("write", flash, &e);
    let file = File::create(flash).map_err(failed)?;
    let erased = vec![0xFF; 1 << 20];
    for at in (0..BANK).step_by(erased.len()) {
        file.write_all_at(&erased, at).map_err(failed)?;
    }
    Ok(file)
}

/// Plays it.
///
/// # Errors
/// Everything that is not as it must be.
pub fn play() -> Outcome<String> {
    prepared("flash.stamp")?;
    let kernel = guardian::kernel(Machine::Arm64)?;
    let directory = empty_dir("flash")?;
    let root = directory.join("root");
    run(Command::new("cp").arg("-a").arg(lab().join("flash")).arg(&root))?;
    for name in ["modules", "bin"] {
        std::fs::create_dir_all(root.join(name)).map_err(|e| Fault::file("make", &root.join(name), &e))?;
    }
    let script = "cd \"$1\" && mv *.ko modules/ && cp \"$2\" bin/busybox && cp \"$3\" bin/bootward && cp \"$4\" init && \
        chmod 755 init bin/* && rm -rf usr/share";
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/flash-guest");
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(&root).arg(prepared("busybox-arm64")?);
    run(shell.arg(binary(Machine::Arm64)?).arg(guest))?;
    let modules = kernel.tree.join("lib/modules").join(&kernel.release).join("kernel");
    for module in DEBIANS {
        run(Command::new("cp").arg(modules.join(format!("{module}.ko"))).arg(root.join("modules")))?;
    }
    let initramfs = directory.join("initramfs.img");
    let pack = "cd \"$1\" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >\"$2\"";
    run(Command::new("sh").args(["-c", pack, "sh"]).arg(&root).arg(&initramfs))?;
    let flash = directory.join("flash.img");
    fill_all(&directory, &flash)?;
    let setup = Setup {
        name: "flash".into(),
        machine: Machine::Arm64,
        memory: 768,
        firmware: None,
        kernel: kernel.image,
        initramfs,
        command_line: "console=ttyAMA0 quiet panic=-1".into(),
        disks: Vec::new(),
        extra: vec!["-drive".into(), format!("if=pflash,unit=1,format=raw,file={}", flash.display())],
        live: false,
    };
    let mut vm = setup.start()?;
    vm.expect("flash: end", 300)?;
    vm.expect_end(60)?;
    let said: Vec<&str> =
        vm.transcript().lines().filter_map(|line| line.trim().strip_prefix("flash: ")).collect();
    let wrong: Vec<&&str> = said.iter().filter(|line| line.starts_with("FAIL")).collect();
    if !wrong.is_empty() {
        return Err(vm.failure(&format!("{wrong:#?}")));
    }
    // A single copy in raw flash is warned about; one block of UBI is written whole or not at all.
    let warned: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix("warned ")).collect();
    if let Some(missing) = DONE.iter().find(|name| !said.contains(&format!("done {name}").as_str())) {
        return Err(vm.failure(&format!("'{missing}' was not done")));
    }
    if warned != ["nor-single"] {
        return Err(vm.failure(&format!("a single copy is warned about in {warned:?}")));
    }
    if !said.contains(&"flags 10") && !said.contains(&"flags 01") {
        return Err(vm.failure("the pair in NOR is not one active and one obsolete copy"));
    }
    compare(&directory, &flash)?;
    Ok(format!("{} kinds of flash, written by fw_setenv and bootward in turn", DONE.len()))
}

/// An image as mkenvimage makes it, with zeros behind the variables.
fn mkenvimage(directory: &Path, redundant: bool, variables: &str) -> Outcome<Vec<u8>> {
    let (text, image) = (directory.join("text"), directory.join("image"));
    write(&text, variables)?;
    let mut command = Command::new("mkenvimage");
    command.args(redundant.then_some("-r")).args(["-p", "0x00", "-s", &format!("{SIZE:#x}")]);
    run(command.arg("-o").arg(&image).arg(&text))?;
    std::fs::read(&image).map_err(|e| Fault::file("read", &image, &e))
}

/// The flash before: the single copy and the pair, each at the beginning of a sector that is not theirs alone. The rest
/// is erased.
fn fill_all(directory: &Path, flash: &Path) -> Outcome<()> {
    let failed = |e: std::io::Error| Fault::file("write", flash, &e);
    let file = erased(flash)?;
    let variables = "bootcount=0\nrollback=0\nupgrade_available=1\n";
    for (number, redundant) in [(0, false), (1, true), (2, true), (KEPT, false)] {
        let mut sector = mkenvimage(directory, redundant, variables)?;
        sector.resize(SECTOR, OTHERS);
        file.write_all_at(&sector, (number * SECTOR) as u64).map_err(failed)?;
    }
    Ok(())
}

/// What bootward wrote last is to the byte what mkenvimage makes; what is beside the images is as it was.
fn compare(directory: &Path, flash: &Path) -> Outcome<()> {
    let bytes = std::fs::read(flash).map_err(|e| Fault::file("read", flash, &e))?;
    let sector = |number: usize| bytes.get(number * SECTOR..(number + 1) * SECTOR).unwrap_or_default();
    let variables = "bootcount=0\nby_bootward=3\nby_fw=3\nrollback=0\ntwice=3\nupgrade_available=1\n";
    let single = mkenvimage(directory, false, variables)?;
    if !sector(0).starts_with(&single) {
        return Err(Fault::new("the single copy in NOR is not what mkenvimage makes of the same variables"));
    }
    let pair = mkenvimage(directory, true, variables)?;
    if !(1..3).any(|number| sector(number).starts_with(&pair)) {
        return Err(Fault::new("no copy of the pair in NOR is what mkenvimage makes of the same variables"));
    }
    let mut kept = mkenvimage(directory, false, "bootcount=1\nrollback=0\nupgrade_available=1\n")?;
    kept.resize(SECTOR, OTHERS);
    if sector(KEPT) != kept {
        return Err(Fault::new("what is behind the image in its sector is not as it was"));
    }
    Ok(())
}
