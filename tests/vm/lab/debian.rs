//! A full Debian root with systemd, on a partitioned disk of an x86 machine.

use std::path::Path;
use std::process::Command;

use super::fixture::{Env, deploy, disks, init_sysroot};
use super::guardian::{initramfs, kernel};
use super::tools::{prepared, run, write};
use super::vm::{Machine, Setup, Vm};
use super::{Fault, Outcome};

/// Size of the root, in megabytes.
const SIZE: u32 = 900;
/// Where the root's partition begins, in megabytes.
const START: u32 = 1;
/// Name of the root's partition.
const PARTITION: &str = "system";
/// Seconds until systemd has reached its target under emulation.
const TARGET: u64 = 300;

/// What the system said of itself.
#[derive(Debug)]
pub struct Report {
    /// The guardian's decision.
    pub decision: String,
    /// The deployment that it handed over to.
    pub path: String,
    /// Every line of the report, as `topic: text`.
    pub lines: Vec<String>,
}

impl Report {
    /// The lines on one topic.
    pub fn on<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |line| line.strip_prefix(topic)?.strip_prefix(": "))
    }
}

/// Boots it, and collects what the unit in `tests/vm/debian-tree` reports once the target is reached.
///
/// # Errors
/// When it does not get there.
pub fn boot() -> Outcome<Report> {
    let mut vm = setup()?.start()?;
    let decision = vm.expect_line("bootward: decision: ", TARGET)?;
    vm.expect("bootward: handing over to ", TARGET)?;
    let path = vm.expect_line(" in ", TARGET)?;
    vm.expect("[report] ", TARGET)?;
    vm.expect("[report] end", TARGET)?;
    let lines = report(&vm);
    log_in(&mut vm)?;
    Ok(Report { decision, path, lines })
}

fn report(vm: &Vm) -> Vec<String> {
    let own = |line: &str| {
        line.find("[report] ").map(|at| line.split_at(at + "[report] ".len()).1.trim_end().to_string())
    };
    vm.transcript().lines().filter_map(own).collect()
}

/// Logs in on the serial console and switches the machine off.
fn log_in(vm: &mut Vm) -> Outcome<()> {
    vm.type_line("")?;
    vm.expect("login: ", TARGET)?;
    vm.type_line("root")?;
    vm.expect("# ", TARGET)?;
    vm.type_line("echo logged-$((1+1)); systemctl poweroff --force")?;
    vm.expect("logged-2", TARGET)?;
    vm.expect_end(TARGET)
}

fn setup() -> Outcome<Setup> {
    let kernel = kernel(Machine::Amd64)?;
    let initramfs = initramfs(Machine::Amd64)?;
    let tree = prepared("debian-root")?;
    prepared("debian-root.stamp")?;
    let image = tree.join("usr/lib/modules").join(&kernel.release).join("initramfs.img");
    // The tree carries what a device would: the initramfs that boots it.
    run(super::tools::as_root("cp").arg(&initramfs).arg(&image))?;
    let sysroot = init_sysroot("debian")?;
    let root = format!("root=PARTLABEL={PARTITION}");
    deploy(&sysroot, &tree, "1", &["console=ttyS0", &root, "rw", "panic=-1", "systemd.show_status=1"])?;
    let mut made = disks("debian", &sysroot, "", Env::None, SIZE)?;
    let plain = made.images.remove(0);
    let disk = plain.with_file_name("disk.img");
    partition(&plain, &disk)?;
    Ok(Setup {
        name: "debian".to_string(),
        machine: Machine::Amd64,
        memory: 1024,
        firmware: None,
        kernel: kernel.image,
        initramfs,
        command_line: made.options,
        disks: vec![disk],
        extra: Vec::new(),
        live: false,
    })
}

/// Puts a file system into the only partition of a GPT disk.
fn partition(filesystem: &Path, disk: &Path) -> Outcome<()> {
    let file = std::fs::File::create(disk).map_err(|e| Fault::file("write", disk, &e))?;
    // One more megabyte for the second table at the end.
    let size = u64::from(START + SIZE + 1) << 20;
    file.set_len(size).map_err(|e| Fault::file("grow", disk, &e))?;
    let table = disk.with_file_name("table");
    write(&table, format!("label: gpt\nstart={START}MiB, size={SIZE}MiB, name={PARTITION}\n"))?;
    let script = "sfdisk -q \"$1\" <\"$2\" && dd if=\"$3\" of=\"$1\" bs=1M seek=\"$4\" conv=notrunc,sparse status=none";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).args([disk, &table, filesystem]).arg(START.to_string());
    shell.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    run(&mut shell)?;
    std::fs::remove_file(filesystem).map_err(|e| Fault::file("remove", filesystem, &e))
}
