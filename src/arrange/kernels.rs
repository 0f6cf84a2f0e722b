//! The kernels of a survey: those in the boot directory, and those that deployments bring.

use std::io::Read;

use nix::sys::stat::SFlag;
use sha2::{Digest, Sha256};

use crate::ostree::object::Checksum;
use crate::sys::beneath::kind;
use crate::sysroot::entry::BootLink;
use crate::sysroot::target::Directory;

use super::layout::{BootFile, Entry};
use super::survey::{Here, LIST_MAX};
use super::text;

/// Device trees of one kernel, and directories in each other.
const TREES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 8;

impl Here<'_> {
    /// One key of an entry: the file it names, and where the deployment has it.
    pub fn boot_file(
        &self,
        entry: &mut Entry,
        key: &str,
        path: &str,
        release: &str,
        faults: &mut Vec<String>,
    ) {
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
    pub fn with_kernel(&self, link: &BootLink<'_>) -> Option<usize> {
        let same = |(_, d): &(usize, &Directory)| {
            let path = format!("ostree/deploy/{}/deploy/{}.{}", d.stateroot, d.commit, d.serial);
            d.stateroot == link.stateroot && self.kernel(&path).is_ok_and(|k| k.checksum == link.checksum)
        };
        let mut all = self.directories.iter().enumerate().filter(same);
        let (index, _) = all.next()?;
        all.next().is_none().then_some(index)
    }

    /// A deployment without an entry: what libostree would write for it.
    pub fn unlisted(&self, index: usize, bootprefix: bool, faults: &mut Vec<String>) -> Option<Entry> {
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
