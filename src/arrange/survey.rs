//! Reads the layout from a disk: what is there, and what is out of step.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use sha2::{Digest, Sha256};

use crate::keyfile::KeyFile;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::{Commit, read};
use crate::sys::beneath::{Beneath, kind};
use crate::sysroot::entry::{self, BootLink};
use crate::sysroot::read::directories;
use crate::sysroot::target::{Directory, Resolved, resolve};

use super::layout::{BootFile, Entry, Layout, Loader};
use super::text;

/// More names in a directory than this are not looked at.
const LIST_MAX: usize = 1024;
/// Longer configuration, origin, os-release and uEnv.txt files are not read, in bytes.
const TEXT_MAX: usize = 64 * 1024;
/// Device trees of one kernel, and directories in each other.
const TREES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 8;

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

struct Here<'a> {
    tree: &'a Beneath,
    boot: &'a Beneath,
    places: &'a Places<'a>,
    directories: &'a [Directory],
}

impl Here<'_> {
    /// The entries of a loader directory in boot order.
    fn entries(&self, loader: &str) -> Vec<(String, Keys)> {
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
    fn entry(&self, index: usize, file: String, keys: Keys, faults: &mut Vec<String>) -> Option<Entry> {
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

    fn blank(&self, index: usize) -> Option<Entry> {
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

    /// One key of an entry: the file it names, and where the deployment has it.
    fn boot_file(&self, entry: &mut Entry, key: &str, path: &str, release: &str, faults: &mut Vec<String>) {
        let modules = format!("usr/lib/modules/{release}");
        let root = self.tree.subtree(&entry.path());
        let has = |source: &str| root.as_ref().is_ok_and(|r| r.exists(source));
        let source = match key {
            "linux" => format!("{modules}/vmlinuz"),
            "devicetree" => format!("{modules}/devicetree"),
            "fdtdir" => format!("{modules}/dtb"),
            // Overlays come after the first initrd and are of no deployment.
            _ if has(&format!("{modules}/initramfs.img")) => format!("{modules}/initramfs.img"),
            _ => format!("{modules}/initramfs"),
        };
        let named = path.trim_start_matches('/');
        let named =
            if self.boot.exists(named) { named } else { named.strip_prefix("boot/").unwrap_or(named) };
        let there = self.boot.exists(named);
        if !has(&source) {
            if !there {
                faults
                    .push(format!("{path} is missing in /boot, and the deployment does not have it either"));
            }
            return;
        }
        let mut pairs = vec![(source.clone(), named.rsplit('/').next().unwrap_or_default().to_string())];
        if key == "fdtdir" {
            pairs.clear();
            self.trees(&entry.path(), &source, "dtb", 0, &mut pairs);
        }
        for (source, name) in pairs {
            let ours = format!("{}/{name}", entry.boot_directory());
            let good = self.same(&ours, &format!("{}/{source}", entry.path()));
            if !good {
                faults.push(format!("{ours} is missing in /boot, or not what the deployment has"));
            }
            entry.boot_files.push(BootFile { source, name, good });
        }
    }

    fn trees(
        &self,
        deployment: &str,
        source: &str,
        name: &str,
        depth: usize,
        pairs: &mut Vec<(String, String)>,
    ) {
        let Ok((names, _)) = self.tree.list(&format!("{deployment}/{source}"), LIST_MAX) else { return };
        for file in names.into_iter().filter(|n| !n.link) {
            let (source, name) = (format!("{source}/{}", file.name), format!("{name}/{}", file.name));
            if self.tree.is_directory(&format!("{deployment}/{source}")) {
                if depth < DEPTH_MAX {
                    self.trees(deployment, &source, &name, depth + 1, pairs);
                }
            } else if pairs.len() < TREES_MAX {
                pairs.push((source, name));
            }
        }
    }

    /// Whether a file of the boot directory is what the deployment has.
    fn same(&self, boot: &str, deployment: &str) -> bool {
        let (Ok(mut one), Ok(mut other)) = (self.boot.file(boot), self.tree.file(deployment)) else {
            return false;
        };
        let size = |f: &std::fs::File| f.metadata().map(|m| m.len()).ok();
        if size(&one) != size(&other) {
            return false;
        }
        !self.places.deep || digest(&mut one).is_some_and(|d| Some(d) == digest(&mut other))
    }

    /// The kernel that a deployment brings, and the checksum that libostree names its directory after.
    fn kernel(&self, path: &str) -> Result<Kernel, &'static str> {
        let modules = format!("{path}/usr/lib/modules");
        let names = self.tree.list(&modules, LIST_MAX).map(|l| l.0).unwrap_or_default();
        let has = |file: String| self.tree.stat(&file).is_ok_and(|s| kind(&s) == SFlag::S_IFREG);
        let release = names.into_iter().find(|n| has(format!("{modules}/{}/vmlinuz", n.name)));
        let release = release.ok_or("it has no usr/lib/modules/*/vmlinuz")?.name;
        let modules = format!("{modules}/{release}");
        let mut sum = Sha256::new();
        let mut add = |name: &str| {
            let mut file = self.tree.file(&format!("{modules}/{name}")).ok()?;
            copy(&mut file, &mut |part| sum.update(part))
        };
        add("vmlinuz").ok_or("its kernel cannot be read")?;
        let initramfs = add("initramfs.img").or_else(|| add("initramfs")).is_some();
        let devicetree = add("devicetree").is_some();
        if self.tree.is_directory(&format!("{modules}/dtb")) && !devicetree {
            return Err("it has a directory of device trees");
        }
        let checksum = Checksum(sum.finalize().into()).to_string();
        Ok(Kernel { release, initramfs, devicetree, checksum })
    }

    /// The one deployment with this kernel: what a boot link that is lost must have led to.
    fn with_kernel(&self, link: &BootLink<'_>) -> Option<usize> {
        let same = |(_, d): &(usize, &Directory)| {
            let path = format!("ostree/deploy/{}/deploy/{}.{}", d.stateroot, d.commit, d.serial);
            d.stateroot == link.stateroot && self.kernel(&path).is_ok_and(|k| k.checksum == link.checksum)
        };
        let mut all = self.directories.iter().enumerate().filter(same);
        let (index, _) = all.next()?;
        all.next().is_none().then_some(index)
    }

    /// A deployment without an entry: what libostree would write for it.
    fn unlisted(&self, index: usize, bootprefix: bool, faults: &mut Vec<String>) -> Option<Entry> {
        let entry = self.blank(index)?;
        let path = entry.path();
        let Kernel { release, initramfs, devicetree, checksum } = match self.kernel(&path) {
            Ok(kernel) => kernel,
            Err(why) => {
                faults.push(format!("{}: its boot entry cannot be made again: {why}", entry.name()));
                return None;
            }
        };
        let other = self
            .entries("loader.0")
            .into_iter()
            .chain(self.entries("loader.1"))
            .find_map(|(_, keys)| keys.into_iter().find(|(k, _)| k == "options").map(|(_, v)| v));
        let options = other.or_else(|| self.places.options.map(String::from))?;
        let prefix = if bootprefix { "/boot" } else { "" };
        let above = format!("{prefix}/ostree/{}-{checksum}", entry.stateroot);
        let mut keys =
            vec![("options".into(), options), ("linux".into(), format!("{above}/vmlinuz-{release}"))];
        if initramfs {
            keys.push(("initrd".into(), format!("{above}/initramfs-{release}.img")));
        }
        if devicetree {
            keys.push(("devicetree".into(), format!("{above}/devicetree-{release}")));
        }
        let link = format!("/ostree/boot.0/{}/{checksum}/0", entry.stateroot);
        if let Some((_, options)) = keys.first_mut() {
            *options = text::replace_argument(options, "ostree", &link);
        }
        self.entry(index, String::new(), keys, faults)
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

/// What a deployment has in its `usr/lib/modules`.
struct Kernel {
    release: String,
    initramfs: bool,
    devicetree: bool,
    checksum: String,
}

fn digest(file: &mut std::fs::File) -> Option<[u8; 32]> {
    let mut sum = Sha256::new();
    copy(file, &mut |part| sum.update(part))?;
    Some(sum.finalize().into())
}

fn copy(file: &mut std::fs::File, to: &mut dyn FnMut(&[u8])) -> Option<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(()),
            length => to(buffer.get(..length)?),
        }
    }
}
