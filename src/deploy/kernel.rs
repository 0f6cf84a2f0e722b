//! Which files of a commit go to the boot directory, and the checksum that their directory is named after.
//!
//! As `get_kernel_from_tree` of ostree-sysroot-deploy.c: `usr/lib/modules/RELEASE` with a `vmlinuz`, then the older places
//! `usr/lib/ostree-boot` and `boot`, whose files have the checksum in their names. An older place that has an initramfs
//! wins over modules without one. Of several releases libostree takes the one that the filesystem lists first; the first
//! by name is taken here.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::ostree::Commit;
use crate::ostree::object::{Checksum, Kind};
use crate::ostree::tree::DirTree;
use crate::storage::{Node, Trees};
use crate::sysroot::entry::is_checksum;

use super::Fault;
use super::objects::{Found, Objects};

/// Device trees of one kernel, and directories in each other.
const TREES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 8;
const BUFFER: usize = 64 * 1024;

/// A file that goes to the boot directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelFile {
    /// Its path in the deployment.
    pub source: String,
    /// Its name in the kernel's directory.
    pub name: String,
    /// Its object.
    pub object: Checksum,
    /// Its size in bytes.
    pub length: u64,
}

/// A kernel and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kernel {
    /// What its directory is named after.
    pub checksum: String,
    /// All its files.
    pub files: Vec<KernelFile>,
    /// `linux`, `initrd`, `devicetree` and `fdtdir` of its boot entry, as names in its directory.
    pub keys: Vec<(&'static str, String)>,
}

impl Kernel {
    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|(k, _)| *k == key)
    }
}

/// Finds the kernel of a commit.
///
/// # Errors
/// When there is none, or an object of it is missing.
pub fn find<F: Trees>(files: &mut F, objects: &Objects, commit: &Commit) -> Result<Kernel, Fault<F::Error>> {
    let modules = modules(files, objects, commit)?;
    let legacy = legacy(files, objects, commit)?;
    match (modules, legacy) {
        (Some(modules), Some(legacy)) if !modules.has("initrd") && legacy.has("initrd") => Ok(legacy),
        (Some(kernel), _) | (None, Some(kernel)) => Ok(kernel),
        (None, None) => Err(Fault::NoKernel),
    }
}

/// Names and checksums of the files of a directory of the commit.
type Names = Vec<(String, Checksum)>;

fn listed<F: Trees>(
    files: &mut F,
    objects: &Objects,
    tree: &Checksum,
) -> Result<(Names, Names), Fault<F::Error>> {
    let data = objects.tree(files, tree)?;
    let parsed = DirTree::parse(&data).map_err(|why| Fault::Form(*tree, Kind::DirTree, why))?;
    let named = |(name, sum): (&str, Checksum)| (name.to_string(), sum);
    let directories = parsed.directories().map(|(name, tree, _)| named((name, tree)));
    Ok((parsed.files().map(named).collect(), directories.collect()))
}

struct Reading<'a, F: Trees> {
    files: &'a mut F,
    objects: &'a Objects,
    sum: Sha256,
    kernel: Kernel,
}

impl<F: Trees> Reading<'_, F> {
    /// Takes a file, when it is one; its content goes into the checksum when asked for.
    fn take(
        &mut self,
        source: String,
        name: String,
        object: Checksum,
        counts: bool,
    ) -> Result<bool, Fault<F::Error>> {
        let content = self.objects.content(self.files, &object)?;
        if content.look.node != Node::File {
            return Ok(false);
        }
        if counts {
            let (mut file, _) = self.files.open(&content.at).map_err(Fault::Files)?;
            let (mut buffer, mut offset) = (vec![0; BUFFER], 0);
            loop {
                let length = self.files.read_at(&mut file, offset, &mut buffer).map_err(Fault::Files)?;
                let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { break };
                self.sum.update(part);
                offset += length as u64;
            }
        }
        self.kernel.files.push(KernelFile { source, name, object, length: content.look.length });
        Ok(true)
    }

    /// A directory of device trees, its names in the order of their bytes.
    fn trees(
        &mut self,
        source: &str,
        name: &str,
        tree: &Checksum,
        depth: usize,
    ) -> Result<(), Fault<F::Error>> {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep(DEPTH_MAX));
        }
        let (there, directories) = listed(self.files, self.objects, tree)?;
        let mut all: Vec<(String, Checksum, bool)> =
            there.into_iter().map(|(name, sum)| (name, sum, false)).collect();
        all.extend(directories.into_iter().map(|(name, sum)| (name, sum, true)));
        all.sort();
        for (inner, sum, directory) in all {
            let (source, name) = (format!("{source}/{inner}"), format!("{name}/{inner}"));
            if directory {
                self.trees(&source, &name, &sum, depth + 1)?;
            } else if !self.take(source.clone(), name, sum, true)? {
                return Err(Fault::NotAFile(source));
            }
            if self.kernel.files.len() > TREES_MAX {
                return Err(Fault::TooMany(TREES_MAX as u64));
            }
        }
        Ok(())
    }
}

fn modules<F: Trees>(
    files: &mut F,
    objects: &Objects,
    commit: &Commit,
) -> Result<Option<Kernel>, Fault<F::Error>> {
    let Some(Found::Directory(tree, _)) = objects.find(files, commit, "usr/lib/modules")? else {
        return Ok(None);
    };
    for (release, tree) in listed(files, objects, &tree)?.1 {
        let (there, directories) = listed(files, objects, &tree)?;
        let above = format!("usr/lib/modules/{release}");
        let file = |name: &str| there.iter().find(|(have, _)| have == name).map(|(_, sum)| *sum);
        let Some(vmlinuz) = file("vmlinuz") else { continue };
        let mut reading = Reading { files, objects, sum: Sha256::new(), kernel: Kernel::default() };
        let name = format!("vmlinuz-{release}");
        if !reading.take(format!("{above}/vmlinuz"), name.clone(), vmlinuz, true)? {
            continue;
        }
        reading.kernel.keys.push(("linux", name.clone()));
        let initramfs = ["initramfs.img", "initramfs"].into_iter().find_map(|n| Some((n, file(n)?)));
        if let Some((source, object)) = initramfs {
            let initrd = format!("initramfs-{release}.img");
            let source = format!("{above}/{source}");
            if !reading.take(source.clone(), initrd.clone(), object, true)? {
                return Err(Fault::NotAFile(source));
            }
            reading.kernel.keys.push(("initrd", initrd));
        }
        if let Some(object) = file("devicetree") {
            let (source, name) = (format!("{above}/devicetree"), format!("devicetree-{release}"));
            if !reading.take(source.clone(), name.clone(), object, true)? {
                return Err(Fault::NotAFile(source));
            }
            reading.kernel.keys.push(("devicetree", name));
        } else if let Some((_, dtb)) = directories.iter().find(|(name, _)| name == "dtb") {
            reading.trees(&format!("{above}/dtb"), "dtb", dtb, 0)?;
            reading.kernel.keys.push(("fdtdir", "dtb".into()));
        }
        if let Some(object) = file(".vmlinuz.hmac") {
            reading.take(format!("{above}/.vmlinuz.hmac"), format!(".{name}.hmac"), object, false)?;
        }
        let Reading { sum, mut kernel, .. } = reading;
        kernel.checksum = Checksum(sum.finalize().into()).to_string();
        return Ok(Some(kernel));
    }
    Ok(None)
}

fn legacy<F: Trees>(
    files: &mut F,
    objects: &Objects,
    commit: &Commit,
) -> Result<Option<Kernel>, Fault<F::Error>> {
    for above in ["usr/lib/ostree-boot", "boot"] {
        let Some(Found::Directory(tree, _)) = objects.find(files, commit, above)? else { continue };
        let there = listed(files, objects, &tree)?.0;
        let mut reading = Reading { files, objects, sum: Sha256::new(), kernel: Kernel::default() };
        for (prefix, key) in [("vmlinuz-", "linux"), ("initramfs-", "initrd"), ("devicetree-", "devicetree")]
        {
            let named = there.iter().filter(|(name, _)| name.starts_with(prefix));
            let split = |(name, sum): &(String, Checksum)| {
                let (start, checksum) = name.rsplit_once('-')?;
                is_checksum(checksum).then(|| (name.clone(), start.to_string(), checksum.to_string(), *sum))
            };
            let Some((name, start, checksum, object)) = named.filter_map(split).next() else { continue };
            if key == "linux" {
                reading.kernel.checksum = checksum.clone();
            } else if reading.kernel.checksum.is_empty() {
                break;
            }
            if reading.kernel.checksum != checksum {
                return Err(Fault::KernelMismatch(name));
            }
            let source = format!("{above}/{name}");
            if !reading.take(source.clone(), start.clone(), object, false)? {
                return Err(Fault::NotAFile(source));
            }
            reading.kernel.keys.push((key, start));
        }
        // Only the first of the two that is there is looked at.
        let kernel = reading.kernel;
        return Ok((!kernel.checksum.is_empty()).then_some(kernel));
    }
    Ok(None)
}
