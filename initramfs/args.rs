//! The builder's command line: what was typed, checked for form only.

use crate::{modinfo::Arch, pipe::Compression};
use std::fmt;
use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
bootward-initramfs: builds a reproducible initramfs around bootward

Usage: bootward-initramfs --arch ARCH --binary FILE --output FILE [OPTION ...]

  --arch ARCH                x86_64 or aarch64
  --binary FILE              the bootward for the device: a static executable; becomes /init
  --output FILE              the archive to write
  --kernel-tree DIR          what a kernel package unpacks to; needed for modules
  --release REL              the kernel release, where the tree has several
  --module NAME              a module or alias, with all that it needs; repeatable; default: those that
                             'modules = [...]' in the configuration names
  --config FILE              becomes /etc/bootward/bootward.toml
  --fw-env-config FILE       becomes /etc/fw_env.config
  --prepare-root-conf FILE   becomes /etc/ostree/prepare-root.conf
  --keys DIR                 its files become /etc/bootward/keys/*
  --recovery-module NAME     a module for recovery, which loads it when needed; beside all others; repeatable
  --wifi FILE                wpa_supplicant, static or with its libraries; the regulatory database comes along
  --wifi-root DIR            the tree that its libraries are in (default /)
  --firmware NAME            a firmware file, as the driver asks for it (brcm/x.bin), or a beginning and '*';
                             repeatable
  --firmware-dir DIR         where firmware is; then lib/firmware of the kernel tree and of --wifi-root
  --add SRC:DST[:MODE]       one more file, with an octal mode (default 0644); repeatable
  --compress HOW             none, gzip (default), xz or zstd
  --manifest FILE            also write a list: mode, size, name of each entry
  --list                     print that list too

SOURCE_DATE_EPOCH is the time of every entry (default 0).
Exit codes: 0 done, 1 failed, 2 wrong command line.
";

/// One `--add`.
#[derive(Debug, PartialEq, Eq)]
pub struct Addition {
    /// The file on the build host.
    pub source: PathBuf,
    /// Its name in the archive, without the leading slash.
    pub target: String,
    /// Permission bits.
    pub permissions: u32,
}

/// What is to be built.
#[derive(Debug)]
pub struct Request {
    /// `--arch`
    pub arch: Arch,
    /// `--binary`
    pub binary: PathBuf,
    /// `--output`
    pub output: PathBuf,
    /// `--kernel-tree`
    pub kernel_tree: Option<PathBuf>,
    /// `--release`
    pub release: Option<String>,
    /// `--module`
    pub modules: Vec<String>,
    /// `--recovery-module`
    pub recovery_modules: Vec<String>,
    /// `--wifi`
    pub wifi: Option<PathBuf>,
    /// `--wifi-root`
    pub wifi_root: Option<PathBuf>,
    /// `--firmware`
    pub firmware: Vec<String>,
    /// `--firmware-dir`
    pub firmware_dir: Option<PathBuf>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--fw-env-config`
    pub fw_env_config: Option<PathBuf>,
    /// `--prepare-root-conf`
    pub prepare_root_conf: Option<PathBuf>,
    /// `--keys`
    pub keys: Option<PathBuf>,
    /// `--add`
    pub additions: Vec<Addition>,
    /// `--compress`
    pub compression: Compression,
    /// `--list`
    pub list: bool,
    /// `--manifest`
    pub manifest: Option<PathBuf>,
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// `--help` was asked for.
    Help,
    /// An option that does not exist.
    Unknown(String),
    /// An option without its value.
    NoValue(String),
    /// An option that must be there.
    Missing(&'static str),
    /// A value that is not one of those possible.
    Value(&'static str, String, &'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Help => f.write_str(HELP),
            Error::Unknown(word) => write!(f, "there is no option '{word}'; see --help"),
            Error::NoValue(option) => write!(f, "{option} needs a value; see --help"),
            Error::Missing(option) => write!(f, "{option} is needed; see --help"),
            Error::Value(option, value, possible) => write!(f, "{option} '{value}': must be {possible}"),
        }
    }
}

/// Reads the arguments (without the program's name).
///
/// # Errors
/// What is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Request, Error> {
    let mut words = arguments.into_iter();
    let (mut arch, mut binary, mut output) = (None, None, None);
    let (mut kernel_tree, mut release, mut config) = (None, None, None);
    let (mut fw_env_config, mut prepare_root_conf, mut keys) = (None, None, None);
    let (mut wifi, mut wifi_root, mut firmware_dir) = (None, None, None);
    let (mut modules, mut additions) = (Vec::new(), Vec::new());
    let (mut recovery_modules, mut firmware) = (Vec::new(), Vec::new());
    let (mut compression, mut list, mut manifest) = (Compression::Gzip, false, None);
    while let Some(option) = words.next() {
        match option.as_str() {
            "--help" | "-h" => return Err(Error::Help),
            "--list" => {
                list = true;
                continue;
            }
            o if !KNOWN.contains(&o) => return Err(Error::Unknown(option)),
            _ => {}
        }
        let Some(value) = words.next() else {
            return Err(Error::NoValue(option));
        };
        let path = || Some(PathBuf::from(&value));
        match option.as_str() {
            "--arch" => {
                let named = Arch::named(&value);
                arch = Some(named.ok_or(Error::Value("--arch", value, "x86_64 or aarch64"))?);
            }
            "--binary" => binary = path(),
            "--output" => output = path(),
            "--kernel-tree" => kernel_tree = path(),
            "--release" => release = Some(value),
            "--module" => modules.push(value),
            "--recovery-module" => recovery_modules.push(value),
            "--wifi" => wifi = path(),
            "--wifi-root" => wifi_root = path(),
            "--firmware" => firmware.push(value),
            "--firmware-dir" => firmware_dir = path(),
            "--config" => config = path(),
            "--fw-env-config" => fw_env_config = path(),
            "--prepare-root-conf" => prepare_root_conf = path(),
            "--keys" => keys = path(),
            "--add" => additions.push(addition(value)?),
            "--manifest" => manifest = path(),
            _ => {
                let named = Compression::named(&value);
                compression = named.ok_or(Error::Value("--compress", value, "none, gzip, xz or zstd"))?;
            }
        }
    }
    Ok(Request {
        arch: arch.ok_or(Error::Missing("--arch"))?,
        binary: binary.ok_or(Error::Missing("--binary"))?,
        output: output.ok_or(Error::Missing("--output"))?,
        kernel_tree,
        release,
        modules,
        recovery_modules,
        wifi,
        wifi_root,
        firmware,
        firmware_dir,
        config,
        fw_env_config,
        prepare_root_conf,
        keys,
        additions,
        compression,
        list,
        manifest,
    })
}

/// Options that take a value.
const KNOWN: [&str; 18] = [
    "--arch",
    "--binary",
    "--output",
    "--kernel-tree",
    "--release",
    "--module",
    "--recovery-module",
    "--wifi",
    "--wifi-root",
    "--firmware",
    "--firmware-dir",
    "--config",
    "--fw-env-config",
    "--prepare-root-conf",
    "--keys",
    "--add",
    "--compress",
    "--manifest",
];

fn addition(text: String) -> Result<Addition, Error> {
    const FORM: &str = "SRC:DST or SRC:DST:MODE, with DST an absolute path and MODE octal";
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [source, target] => (source, target, "0644"),
        [source, target, mode] => (source, target, *mode),
        _ => return Err(Error::Value("--add", text, FORM)),
    };
    let permissions = u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o7777);
    match (source.is_empty(), target.strip_prefix('/'), permissions) {
        (false, Some(target), Some(permissions)) => {
            Ok(Addition { source: PathBuf::from(source), target: target.to_owned(), permissions })
        }
        _ => Err(Error::Value("--add", text, FORM)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, Error> {
        parse(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn additions_and_mistakes() {
        let request = read("--arch x86_64 --binary b --output o --add a:/b/c --add d:/e:755").unwrap();
        let targets: Vec<_> = request.additions.iter().map(|a| (a.target.as_str(), a.permissions)).collect();
        assert_eq!(targets, [("b/c", 0o644), ("e", 0o755)]);
        assert_eq!(read("--arch x86_64 --output o").unwrap_err(), Error::Missing("--binary"));
        assert_eq!(read("--arch").unwrap_err(), Error::NoValue("--arch".into()));
        assert_eq!(read("--nonsense").unwrap_err(), Error::Unknown("--nonsense".into()));
        for bad in ["a", "a:b", "a:/b:9", "a:/b:1:2", ":/b", "a:/b:17777"] {
            assert!(matches!(read(&format!("--add {bad}")), Err(Error::Value("--add", ..))), "{bad}");
        }
    }
}
