//! What lies where in the initramfs.

use crate::args::Request;
use crate::cpio::{self, Archive, Entry, Kind};
use crate::resolve::Selection;
use crate::tree::{self, Tree};
use crate::{modinfo, pipe, wifi};
use bootward::config::{Complaint, Config};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// Why no image was made.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read.
    Read(PathBuf, io::Error),
    /// A file could not be written.
    Write(PathBuf, io::Error),
    /// The binary is not one that can be /init.
    Binary(PathBuf, modinfo::Error),
    /// The kernel tree or a module in it.
    Tree(tree::Error),
    /// Modules are wanted but no tree was given.
    NoTree(String),
    /// The archive.
    Archive(cpio::Error),
    /// Compression.
    Compress(pipe::Error),
    /// The device would complain of the configuration.
    Config(PathBuf, Complaint),
    /// SOURCE_DATE_EPOCH is not a number of seconds that the format can hold.
    Epoch(String),
    /// What Wi-Fi needs.
    Wifi(wifi::Error),
    /// A name on the build host that is not UTF-8.
    Name(PathBuf),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Read(path, e) => write!(f, "{}: cannot be read: {e}", path.display()),
            Error::Write(path, e) => write!(f, "{}: cannot be written: {e}", path.display()),
            Error::Binary(path, e) => write!(f, "{}: cannot be /init: {e}", path.display()),
            Error::Tree(e) => e.fmt(f),
            Error::NoTree(name) => write!(f, "module '{name}' is wanted: say where with --kernel-tree"),
            Error::Archive(e) => e.fmt(f),
            Error::Compress(e) => e.fmt(f),
            Error::Config(path, complaint) => write!(f, "{}: {complaint}", path.display()),
            Error::Epoch(text) => write!(f, "SOURCE_DATE_EPOCH '{text}' is not seconds from 0 to 4294967295"),
            Error::Wifi(e) => e.fmt(f),
            Error::Name(path) => write!(f, "{}: the name is not UTF-8", path.display()),
        }
    }
}

impl From<tree::Error> for Error {
    fn from(error: tree::Error) -> Error {
        Error::Tree(error)
    }
}

impl From<wifi::Error> for Error {
    fn from(error: wifi::Error) -> Error {
        Error::Wifi(error)
    }
}

impl From<cpio::Error> for Error {
    fn from(error: cpio::Error) -> Error {
        Error::Archive(error)
    }
}

/// Folders that PID 1 mounts on or writes in; /tmp as anyone expects it.
const EMPTY: [(&str, u32); 6] =
    [("dev", 0o755), ("proc", 0o755), ("sys", 0o755), ("run", 0o755), ("sysroot", 0o755), ("tmp", 0o1777)];

/// Gathers everything that the request asks for.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn gather(request: &Request) -> Result<(Archive, Selection), Error> {
    let mut archive = Archive::default();
    for (name, permissions) in EMPTY {
        archive.add(Entry { name: name.to_owned(), permissions, kind: Kind::Directory })?;
    }
    let binary = read(&request.binary)?;
    modinfo::check_static(&binary, request.arch).map_err(|e| Error::Binary(request.binary.clone(), e))?;
    archive.add(file("init", 0o755, binary))?;
    let link = Kind::Symlink("../init".to_owned());
    archive.add(Entry { name: "bin/bootward".to_owned(), permissions: 0o777, kind: link })?;
    for (name, permissions, minor) in [("dev/console", 0o600, (5, 1)), ("dev/null", 0o666, (1, 3))] {
        let kind = Kind::Character(minor.0, minor.1);
        archive.add(Entry { name: name.to_owned(), permissions, kind })?;
    }
    archive.add(file("etc/initrd-release", 0o644, initrd_release()))?;
    settings(request, &mut archive)?;
    let selection = modules(request, &mut archive)?;
    for (name, permissions, bytes) in wifi::gather(request)? {
        archive.add(file(&name, permissions, bytes))?;
    }
    for addition in &request.additions {
        archive.add(file(&addition.target, addition.permissions, read(&addition.source)?))?;
    }
    Ok((archive, selection))
}

/// The time of every entry, from SOURCE_DATE_EPOCH.
///
/// # Errors
/// Not a number, or one that the format cannot hold.
pub fn epoch() -> Result<u32, Error> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(0),
        Ok(text) if text.is_empty() => Ok(0),
        Ok(text) => text.parse().map_err(|_| Error::Epoch(text)),
    }
}

/// Writes beside the target and renames, so that nobody ever sees half an archive.
///
/// # Errors
/// Any of the steps.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    written.map_err(|e| {
        // The write's own error is the one to tell; a leftover does no harm.
        let _ = fs::remove_file(&beside);
        Error::Write(path.to_owned(), e)
    })
}

fn settings(request: &Request, archive: &mut Archive) -> Result<(), Error> {
    let singles = [
        ("etc/bootward/bootward.toml", &request.config),
        ("etc/fw_env.config", &request.fw_env_config),
        ("etc/ostree/prepare-root.conf", &request.prepare_root_conf),
    ];
    for (name, source) in singles {
        if let Some(source) = source {
            archive.add(file(name, 0o644, read(source)?))?;
        }
    }
    let Some(dir) = &request.keys else { return Ok(()) };
    archive.directory("etc/bootward/keys")?;
    for entry in fs::read_dir(dir).map_err(|e| Error::Read(dir.clone(), e))? {
        let path = entry.map_err(|e| Error::Read(dir.clone(), e))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| Error::Name(path.clone()))?;
        archive.add(file(&format!("etc/bootward/keys/{name}"), 0o644, read(&path)?))?;
    }
    Ok(())
}

fn modules(request: &Request, archive: &mut Archive) -> Result<Selection, Error> {
    let mut names = match &request.config {
        Some(config) if request.modules.is_empty() => configured_modules(config, &read(config)?)?,
        Some(config) => {
            configured_modules(config, &read(config)?)?;
            request.modules.clone()
        }
        None => request.modules.clone(),
    };
    names.extend(request.recovery_modules.iter().cloned());
    let Some(dir) = &request.kernel_tree else {
        return match names.first() {
            Some(name) => Err(Error::NoTree(name.clone())),
            None => Ok(Selection::default()),
        };
    };
    let tree = Tree::open(dir, request.release.as_deref(), request.arch)?;
    let selection = Selection::of(&names, &tree)?;
    let folder = format!("lib/modules/{}", tree.release);
    for module in &selection.modules {
        archive.add(file(&format!("{folder}/{}", module.file), 0o644, module.bytes.clone()))?;
    }
    archive.add(file(&format!("{folder}/modules.dep"), 0o644, selection.modules_dep().into_bytes()))?;
    archive.add(file(
        &format!("{folder}/modules.softdep"),
        0o644,
        selection.modules_softdep().into_bytes(),
    ))?;
    archive.add(file(&format!("{folder}/modules.builtin"), 0o644, tree.builtin_text()?))?;
    Ok(selection)
}

/// The modules that a configuration names, without their parameters. A configuration that the device would
/// complain of is refused here, where it can still be mended.
fn configured_modules(path: &Path, file: &[u8]) -> Result<Vec<String>, Error> {
    let (config, complaints) = Config::parse(file);
    if let Some(first) = complaints.first.first() {
        return Err(Error::Config(path.to_path_buf(), *first));
    }
    let name = |module: &str| module.split(' ').next().unwrap_or_default().to_string();
    Ok(config.modules.iter().map(|module| name(module)).collect())
}

/// systemd and libostree take a system with this file for an initramfs.
fn initrd_release() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "ID=bootward\nNAME=bootward\nPRETTY_NAME=\"bootward {version} (initramfs)\"\nVERSION_ID={version}\n"
    )
    .into_bytes()
}

fn file(name: &str, permissions: u32, bytes: Vec<u8>) -> Entry {
    Entry { name: name.to_owned(), permissions, kind: Kind::File(bytes) }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|e| Error::Read(path.to_owned(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_a_configuration() {
        let list = |text: &str| configured_modules(Path::new("x"), text.as_bytes()).map(|l| l.join(" "));
        let good = "modules = [\"ext4\", 'i6300esb heartbeat=30'] # x\n[root]\ntimeout = 3\n";
        assert_eq!(list(good).unwrap(), "ext4 i6300esb");
        assert_eq!(list("").unwrap(), "");
        for bad in ["modules = \"a\"", "modules = [1]", "modules = [\"a\"", "modules = [\"a]", "[rot]\n"] {
            assert!(list(bad).unwrap_err().to_string().starts_with("x: line 1: "), "{bad}");
        }
    }
}
