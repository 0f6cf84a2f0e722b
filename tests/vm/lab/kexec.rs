//! A deployment whose kernel is not the one that runs, and that has no modules for it: bootward starts its own kernel.

use std::fs;

use super::fixture::{Env, LABEL, deploy, disks, init_sysroot, small_tree};
use super::guardian::{MODULES, initramfs, initramfs_of, kernel, older_kernel};
use super::scenes::{ANSWER, BOOT};
use super::vm::{Machine, Setup};
use super::{Fault, Outcome};

const CONFIG: &str = "[root]\ntimeout = 20\n";
/// What a bootloader adds to the arguments of an entry.
const ADDED: &str = " lab.added=1";

/// The newest deployment is broken; the one before it has an older kernel.
///
/// # Errors
/// Everything that is not as it must be.
pub fn play() -> Outcome<String> {
    let (new, old) = (kernel(Machine::Amd64)?, older_kernel()?);
    let sysroot = init_sysroot("kexec")?;
    for (version, kernel) in [("1", &old), ("2", &new)] {
        let tree = small_tree(&format!("kexec-{version}"), version, kernel, Machine::Amd64)?;
        let name = format!("x86_64-kexec-{version}");
        let image =
            initramfs_of(kernel, Machine::Amd64, &name, &MODULES, CONFIG, "/dev/null 0 0x1000\n", &[])?;
        let modules = tree.join("usr/lib/modules").join(&kernel.release);
        for (from, to) in [(&kernel.image, "vmlinuz"), (&image, "initramfs.img")] {
            fs::copy(from, modules.join(to)).map_err(|e| Fault::file("copy", from, &e))?;
        }
        let root = format!("root=LABEL={LABEL}");
        deploy(&sysroot, &tree, version, &["console=ttyS0", &root, "rw", "panic=-1"])?;
    }
    let made = disks("kexec", &sysroot, "rm -rf $new/usr", Env::None, 256)?;
    let setup = Setup {
        name: "kexec".into(),
        firmware: None,
        machine: Machine::Amd64,
        memory: 512,
        kernel: new.image,
        initramfs: initramfs(Machine::Amd64)?,
        command_line: made.options + ADDED,
        disks: made.images,
        extra: Vec::new(),
        live: false,
    };
    let mut vm = setup.start()?;
    vm.expect("by kexec into its own kernel", BOOT)?;
    vm.expect("bootward: starting the kernel of lab", ANSWER)?;
    vm.expect("[os] up: 1", 2 * BOOT)?;
    vm.expect("lab# ", ANSWER)?;
    vm.type_line("uname -r; cat /proc/cmdline; bootward log; echo done-$((1+1))")?;
    let said = vm.expect("done-2", ANSWER)?;
    for wanted in [old.release.as_str(), "lab.added=1", "bootward.kexec", "booting"] {
        if !said.contains(wanted) {
            return Err(vm.failure(&format!("the system says nothing of '{wanted}'")));
        }
    }
    let attempts = said.lines().filter(|line| line.contains(" booting ")).count();
    if attempts != 1 {
        return Err(vm.failure(&format!("one boot counts as {attempts} attempts")));
    }
    vm.type_line("poweroff -f")?;
    vm.expect_end(ANSWER)?;
    Ok(format!("Linux {} started Linux {}", new.release, old.release))
}
