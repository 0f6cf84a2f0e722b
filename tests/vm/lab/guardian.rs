//! Our binary, and the initramfs that it is PID 1 of, built as a product would build them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::tools::{lab, prepared, read, run, write};
use super::vm::Machine;
use super::{Fault, Outcome};

/// What is loaded before the root is looked for. What ext4 needs by a soft dependency only is not named: that it
/// comes along is part of what the scenes prove.
pub const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// Both copies of the environment, on the second disk.
const FW_ENV_CONFIG: &str = "/dev/vdb 0x0000 0x4000\n/dev/vdb 0x4000 0x4000\n";

/// The kernel of a machine, as `tests/vm/setup` unpacked it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The unpacked package.
    pub tree: PathBuf,
    /// Its release.
    pub release: String,
    /// The image to start.
    pub image: PathBuf,
}

/// The kernel for `machine`.
///
/// # Errors
/// When `tests/vm/setup` has not run.
pub fn kernel(machine: Machine) -> Outcome<Kernel> {
    unpacked(match machine {
        Machine::Arm64 => "kernel-arm64",
        Machine::Amd64 => "kernel-amd64",
    })
}

/// Another kernel for `Machine::Amd64`, an older one.
///
/// # Errors
/// When `tests/vm/setup` has not run.
pub fn older_kernel() -> Outcome<Kernel> {
    unpacked("kernel-amd64-older")
}

fn unpacked(name: &str) -> Outcome<Kernel> {
    let tree = prepared(name)?;
    let release = read(&tree.join("release"))?.trim().to_string();
    let image = tree.join("boot").join(format!("vmlinuz-{release}"));
    Ok(Kernel { tree, release, image })
}

/// The static binary for `machine`, built once a run.
///
/// # Errors
/// When it does not build.
pub fn binary(machine: Machine) -> Outcome<PathBuf> {
    static ARM64: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    static AMD64: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let (cell, arch) = match machine {
        Machine::Arm64 => (&ARM64, "aarch64"),
        Machine::Amd64 => (&AMD64, "x86_64"),
    };
    let built = cell.get_or_init(|| {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("initramfs/binary");
        let printed = run(Command::new(script).arg(arch)).map_err(|fault| fault.to_string())?;
        Ok(PathBuf::from(printed.trim()))
    });
    built.clone().map_err(Fault::new)
}

/// The initramfs for `machine`, built once a run.
///
/// # Errors
/// When it does not build.
pub fn initramfs(machine: Machine) -> Outcome<PathBuf> {
    static ARM64: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    static AMD64: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let (cell, arch) = match machine {
        Machine::Arm64 => (&ARM64, "aarch64"),
        Machine::Amd64 => (&AMD64, "x86_64"),
    };
    let config = "[root]\ntimeout = 20\n";
    cell.get_or_init(|| initramfs_with(machine, arch, &MODULES, config).map_err(|fault| fault.to_string()))
        .clone()
        .map_err(Fault::new)
}

/// An initramfs of its own for `machine`: these modules, and this after them in `bootward.toml`.
///
/// # Errors
/// When it does not build.
pub fn initramfs_with(machine: Machine, name: &str, modules: &[&str], config: &str) -> Outcome<PathBuf> {
    initramfs_and(machine, name, modules, config, &[])
}

/// The same, with more options for the builder.
///
/// # Errors
/// When it does not build.
pub fn initramfs_and(
    machine: Machine,
    name: &str,
    modules: &[&str],
    config: &str,
    more: &[String],
) -> Outcome<PathBuf> {
    initramfs_for(machine, name, modules, config, FW_ENV_CONFIG, more)
}

/// The same, with the environment where `fw_env_config` says.
///
/// # Errors
/// When it does not build.
pub fn initramfs_for(
    machine: Machine,
    name: &str,
    modules: &[&str],
    config: &str,
    fw_env_config: &str,
    more: &[String],
) -> Outcome<PathBuf> {
    initramfs_of(&kernel(machine)?, machine, name, modules, config, fw_env_config, more)
}

/// The same, for another kernel of the machine.
///
/// # Errors
/// When it does not build.
pub fn initramfs_of(
    kernel: &Kernel,
    machine: Machine,
    name: &str,
    modules: &[&str],
    config: &str,
    fw_env_config: &str,
    more: &[String],
) -> Outcome<PathBuf> {
    let arch = match machine {
        Machine::Arm64 => "aarch64",
        Machine::Amd64 => "x86_64",
    };
    let binary = binary(machine)?;
    let dir = lab().join("initramfs");
    let (file, env) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.fw_env.config")));
    let modules: Vec<String> = modules.iter().map(|name| format!("\"{name}\"")).collect();
    write(&file, format!("modules = [{}]\n\n{config}", modules.join(", ")))?;
    write(&env, fw_env_config)?;
    let output = dir.join(format!("{name}.img"));
    let mut builder = cargo();
    builder.args(["run", "--quiet", "--features", "builder", "--bin", "bootward-initramfs", "--"]);
    builder.args(["--arch", arch, "--release", &kernel.release, "--compress", "gzip"]);
    builder.arg("--binary").arg(binary).arg("--kernel-tree").arg(&kernel.tree);
    builder.arg("--config").arg(file).arg("--fw-env-config").arg(env).arg("--output").arg(&output).args(more);
    run(&mut builder)?;
    Ok(output)
}

/// Cargo, in the project's directory.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}
