//! Reads the layout from a disk: what is there, and what is out of step.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::keyfile::KeyFile;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::{Commit, read};
use crate::sys::beneath::Beneath;
use crate::sysroot::entry::{self, BootLink};
use crate::sysroot::read::directories;
use crate::sysroot::target::{Directory, Resolved, resolve};

use super::layout::{Entry, Layout, Loader};
use super::text;

/// More names in a directory than this are not looked at.
pub(super) const LIST_MAX: usize = 1024;
/// Longer configuration, origin, os-release and uEnv.txt files are not read, in bytes.
const TEXT_MAX: usize = 64 * 1024;

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The physical root.
    pub sysroot: &'a Path,
    /// The boot directory.
    pub boot: &'a Path,
    /// Device and inode of the running deployment.
    pub booted: Option<(u64, u64)>,
    /// Kernel arguments for a deployment of which no entry tells them.
    pub options: Option<&'a str>,
    /// Compare the kernels in the boot directory byte for byte; else by their size.
    pub deep: bool,
}

/// There is nothing to read a layout from.
#[derive(Debug)]
pub struct Error {
    /// What cannot be opened.
    pub path: PathBuf,
    /// Why.
    pub errno: Errno,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.errno.desc())
    }
}

/// Reads everything once; nothing is written.
///
/// # Errors
/// When the sysroot or the boot directory cannot be opened.
pub fn survey(places: &Places<'_>) -> Result<Layout, Error> {
    let open = |path: &Path| Beneath::open(path).map_err(|errno| Error { path: path.into(), errno });
    let (tree, boot) = (open(places.sysroot)?, open(places.boot)?);
    let mut notes = Vec::new();
    let directories = directories(&tree, &mut notes);
    let mut faults: Vec<String> = notes.iter().map(ToString::to_string).collect();
    let loader = loader(&boot, &mut faults);
    let config = config(&tree);
    let sub = [0, 1].map(|version| sub(&tree, version));
    let here = Here { tree: &tree, boot: &boot, places, directories: &directories };
    let mut files = match loader {
        Loader::Directory => here.entries("loader"),
        Loader::Link(version) | Loader::Lost(version) => here.entries(&format!("loader.{version}")),
    };
    let named_by_stateroot = files.iter().any(|(name, _)| {
        let name = name.strip_prefix("ostree-").and_then(|n| n.strip_suffix(".conf")).unwrap_or_default();
        name.contains('-') && !name.contains('+')
    });
    let mut entries = Vec::new();
    let mut used = Vec::new();
    for (file, keys) in files.drain(..) {
        match here.deployment(&file, &keys, &mut faults) {
            Some(index) if used.contains(&index) => {
                faults.push(format!("{file} names a deployment a second time"))
            }
            Some(index) => {
                used.push(index);
                entries.extend(here.entry(index, file, keys, &mut faults));
            }
            None => {}
        }
    }
    if entries.is_empty() && loader != Loader::Directory {
        faults.push("no boot entry names a deployment".into());
        for index in here.by_age() {
            used.push(index);
            entries.extend(here.unlisted(index, config.bootprefix, &mut faults));
        }
    }
    // The guardian may have booted one that no entry names; it is to have one.
    let running = directories.iter().position(|d| places.booted == Some(d.identity));
    if let Some(index) = running.filter(|i| !used.contains(i) && loader != Loader::Directory) {
        faults.push("the running deployment has no boot entry".into());
        used.push(index);
        entries.extend(here.unlisted(index, config.bootprefix, &mut faults));
    }
    let unnamed = directories.iter().enumerate().filter(|(index, _)| !used.contains(index));
    let mut layout = Layout {
        loader,
        sub,
        uboot: ["loader", "loader.0", "loader.1"].iter().any(|d| boot.exists(&format!("{d}/uEnv.txt"))),
        self_link: boot.link("boot").is_ok() || boot.exists("boot"),
        bootprefix: config.bootprefix,
        named_by_stateroot,
        unnamed: unnamed.map(|(_, d)| (d.stateroot.clone(), format!("{}.{}", d.commit, d.serial))).collect(),
        boot_directories: boot_directories(&boot),
        refs: refs(&tree),
        entries,
        faults,
    };
    here.check_uenv(&mut layout);
    Ok(layout)
}

/// What of the repository's configuration matters here.
struct Config {
    bootprefix: bool,
}

fn config(tree: &Beneath) -> Config {
    let file = tree.read("ostree/repo/config", TEXT_MAX).ok().and_then(|data| KeyFile::parse(&data).ok());
    let bootprefix = file.and_then(|f| f.boolean("sysroot", "bootprefix").ok().flatten()).unwrap_or(false);
    Config { bootprefix }
}

fn loader(boot: &Beneath, faults: &mut Vec<String>) -> Loader {
    let link = boot.link("loader");
    for version in [0, 1] {
        let name = format!("loader.{version}");
        if link.as_deref().is_ok_and(|l| l.trim_end_matches('/') == name) && boot.is_directory(&name) {
            return Loader::Link(version);
        }
    }
    if link.is_err() && boot.is_directory("loader") {
        return Loader::Directory;
    }
    faults.push("boot/loader leads nowhere".into());
    let has = |version: u8| boot.list(&format!("loader.{version}/entries"), 1).is_ok_and(|l| !l.0.is_empty());
    let changed = |version: u8| boot.stat(&format!("loader.{version}/entries")).map_or(0, |s| s.st_mtime);
    let (zero, one) = (has(0), has(1));
    Loader::Lost(u8::from(one && (!zero || changed(1) > changed(0))))
}

fn sub(tree: &Beneath, version: u8) -> Option<u8> {
    let text = tree.link(&format!("ostree/boot.{version}")).ok()?;
    [0, 1].into_iter().find(|sub| text.trim_end_matches('/') == format!("boot.{version}.{sub}"))
}

fn boot_directories(boot: &Beneath) -> Vec<String> {
    let names = boot.list("ostree", LIST_MAX).map(|l| l.0).unwrap_or_default();
    let ours = |name: &str| name.rsplit_once('-').is_some_and(|(_, sum)| entry::is_checksum(sum));
    names.into_iter().filter(|n| !n.link && ours(&n.name)).map(|n| n.name).collect()
}

/// The refs that libostree keeps deployments alive with.
fn refs(tree: &Beneath) -> Vec<String> {
    let mut found = Vec::new();
    for (version, sub) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let above = format!("ostree/{version}/{sub}");
        let names = tree.list(&format!("ostree/repo/refs/heads/{above}"), LIST_MAX).map(|l| l.0);
        found.extend(names.unwrap_or_default().into_iter().map(|n| format!("{above}/{}", n.name)));
    }
    found
}

type Keys = Vec<(String, String)>;

/// What a survey looks at.
pub(super) struct Here<'a> {
    pub tree: &'a Beneath,
    pub boot: &'a Beneath,
    pub places: &'a Places<'a>,
    pub directories: &'a [Directory],
}

impl Here<'_> {
    /// The entries of a loader directory in boot order.
    pub fn entries(&self, loader: &str) -> Vec<(String, Keys)> {
        let above = format!("{loader}/entries");
        let names = self.boot.list(&above, LIST_MAX).map(|l| l.0).unwrap_or_default();
        let mut files = Vec::new();
        for name in names.into_iter().filter(|n| entry::is_entry_name(&n.name)) {
            if let Ok(content) = self.boot.read(&format!("{above}/{}", name.name), entry::SIZE_MAX) {
                files.push((name.name, content));
            }
        }
        files.sort_by(|a, b| {
            entry::Entry::parse(&a.1).boot_order(&entry::Entry::parse(&b.1)).then_with(|| b.0.cmp(&a.0))
        });
        let owned = |(key, value): (&str, &str)| (key.to_string(), value.to_string());
        files.into_iter().map(|(name, content)| (name, entry::pairs(&content).map(owned).collect())).collect()
    }

    /// The deployment that an entry means.
    fn deployment(&self, file: &str, keys: &Keys, faults: &mut Vec<String>) -> Option<usize> {
        let options = keys.iter().rev().find(|(k, _)| k == "options").map_or("", |(_, v)| v.as_str());
        let Some(target) = text::target(options) else {
            faults.push(format!("{file} names no deployment"));
            return None;
        };
        match resolve(self.tree, self.directories, target) {
            Resolved::Directly(index) => Some(index),
            Resolved::Elsewhere(index) => {
                faults.push(format!("{target}, which {file} names, is missing"));
                Some(index)
            }
            Resolved::Gone(..) => {
                faults.push(format!("the deployment that {file} names is missing"));
                None
            }
            Resolved::Nowhere(why) => {
                faults.push(format!("{target}, which {file} names: {why}"));
                self.with_kernel(&BootLink::parse(target)?)
            }
        }
    }

    /// Deployments that no entry names, the newest first.
    fn by_age(&self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.directories.len()).collect();
        all.sort_by_key(|&i| std::cmp::Reverse(self.directories.get(i).map_or(0, |d| d.changed)));
        all
    }

    /// A deployment and its entry.
    pub fn entry(&self, index: usize, file: String, keys: Keys, faults: &mut Vec<String>) -> Option<Entry> {
        let mut entry = self.blank(index)?;
        let value = |key: &str| keys.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let linux = value("linux").unwrap_or_default();
        let link =
            value("options").and_then(|o| Some(BootLink::parse(text::target(&o)?)?.checksum.to_string()));
        // The directory of the kernel is named STATEROOT-CHECKSUM.
        let directory = linux.rsplit('/').nth(1).and_then(|d| d.rsplit_once('-')).map(|d| d.1.to_string());
        entry.checksum = link.or(directory).filter(|c| entry::is_checksum(c)).unwrap_or_default();
        if entry.checksum.is_empty() {
            faults.push(format!("{file} names neither a boot link nor a kernel of libostree's"));
        }
        entry.file = file;
        let wanted = ["linux", "initrd", "devicetree", "fdtdir"].map(|key| (key, value(key)));
        let release = linux.rsplit('/').next().and_then(|name| name.strip_prefix("vmlinuz-")).unwrap_or("");
        for (key, path) in wanted.into_iter().filter_map(|(key, path)| Some((key, path?))) {
            self.boot_file(&mut entry, key, &path, release, faults);
        }
        entry.keys = keys;
        Some(entry)
    }

    pub fn blank(&self, index: usize) -> Option<Entry> {
        let directory = self.directories.get(index)?;
        let mut entry = Entry {
            stateroot: directory.stateroot.clone(),
            commit: directory.commit.clone(),
            serial: directory.serial,
            booted: self.places.booted == Some(directory.identity),
            ..Entry::default()
        };
        let path = entry.path();
        let origin = self.tree.read(&format!("{path}.origin"), TEXT_MAX).ok();
        let origin = origin.and_then(|data| KeyFile::parse(&data).ok());
        entry.pinned = origin.is_some_and(|o| o.boolean("libostree-transient", "pinned") == Ok(Some(true)));
        let text = |file: &str| {
            let data = self.tree.subtree(&path).and_then(|root| root.read(file, TEXT_MAX)).ok()?;
            String::from_utf8(data).ok()
        };
        let release = text("usr/lib/os-release").or_else(|| text("etc/os-release"));
        entry.os = release.and_then(|t| text::os_name(&t)).unwrap_or_else(|| "Linux".into());
        entry.uenv = text("usr/lib/ostree-boot/uEnv.txt");
        let commit =
            Checksum::parse(&entry.commit).and_then(|c| read::object(self.tree, &c, Kind::Commit).ok());
        let commit = commit.and_then(|data| Commit::parse(data).ok());
        entry.version = commit.and_then(|c| c.metadata_text("version").map(String::from));
        Some(entry)
    }

    /// Whether the bootloader's file says what the entries say.
    fn check_uenv(&self, layout: &mut Layout) {
        let Loader::Link(version) = layout.loader else { return };
        if !layout.uboot {
            return;
        }
        let keys: Vec<Keys> = layout.entries.iter().map(|e| e.keys.clone()).collect();
        let expected = text::uenv(&keys, layout.entries.first().and_then(|e| e.uenv.as_deref()));
        let found = self.boot.read(&format!("loader.{version}/uEnv.txt"), TEXT_MAX);
        if found.is_ok_and(|f| f == expected.as_bytes()) {
            return;
        }
        layout.faults.push(format!("loader.{version}/uEnv.txt does not say what the boot entries say"));
    }
}
