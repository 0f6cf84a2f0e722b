//! Kernel, initramfs and device trees in the boot directory, byte for byte against those of the verified deployment.
//!
//! libostree copies them from `usr/lib/modules/KVER` as `vmlinuz-KVER`, `initramfs-KVER.img`, `devicetree-KVER` and
//! the directory `dtb` (`get_kernel_from_tree_usr_lib_modules`). Initramfs overlays (`…/initramfs-overlays/SHA256.img`)
//! are in no commit and are held against their own name only.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use sha2::{Digest, Sha256};

use crate::ostree::object::Checksum;
use crate::sys::beneath::Beneath;

use super::content::{Hashing, read};
use super::run::{Over, State};
use super::{BootFault, Fault, Level};

/// Files of a directory of device trees, and directories in each other.
const TREES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 8;
const BUFFER: usize = 128 * 1024;

/// What a boot entry names, each relative to the boot directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BootFiles {
    /// `linux`.
    pub linux: Option<String>,
    /// Every `initrd`.
    pub initrds: Vec<String>,
    /// `devicetree`.
    pub devicetree: Option<String>,
    /// `fdtdir`.
    pub fdtdir: Option<String>,
}

pub(super) fn compare(state: &mut State<'_>, hashing: &Hashing) -> Result<(), Over> {
    let (Some(boot), Level::Full, files) = (state.check.boot, state.check.level, state.check.boot_files)
    else {
        return Ok(());
    };
    let Some(linux) = &files.linux else { return Ok(()) };
    let tree = match state.check.sysroot.subtree(state.check.path) {
        Ok(tree) => tree,
        Err(errno) => return state.fault(Fault::Boot(linux.clone(), BootFault::Unreadable(errno))),
    };
    let release = linux.rsplit('/').next().and_then(|name| name.strip_prefix("vmlinuz-")).unwrap_or("");
    let modules = format!("usr/lib/modules/{release}");
    let mut both = Both { state, hashing, boot, tree };
    both.file(linux, &format!("{modules}/vmlinuz"))?;
    for initrd in &files.initrds {
        if let Some(name) = overlay(initrd) {
            both.overlay(initrd, name)?;
            continue;
        }
        let first = format!("{modules}/initramfs.img");
        let other = format!("{modules}/initramfs");
        both.file(initrd, if both.tree.exists(&first) { &first } else { &other })?;
    }
    if let Some(devicetree) = &files.devicetree {
        both.file(devicetree, &format!("{modules}/devicetree"))?;
    }
    if let Some(fdtdir) = &files.fdtdir {
        // It names the directory that has `dtb` in it, or that itself.
        let inner = format!("{}/dtb", fdtdir.trim_end_matches('/'));
        let at = if both.boot.is_directory(&inner) { inner } else { fdtdir.clone() };
        if both.tree.is_directory(&format!("{modules}/dtb")) {
            both.directory(&at, &format!("{modules}/dtb"), DEPTH_MAX)?;
        }
    }
    Ok(())
}

/// The checksum in the name of an overlay.
fn overlay(path: &str) -> Option<Checksum> {
    let (directory, file) = path.rsplit_once('/')?;
    let name = file.strip_suffix(".img").filter(|_| directory.ends_with("/initramfs-overlays"))?;
    Checksum::parse(name)
}

struct Both<'b, 'a> {
    state: &'b mut State<'a>,
    hashing: &'b Hashing,
    boot: &'b Beneath,
    tree: Beneath,
}

impl Both<'_, '_> {
    fn fault(&mut self, path: &str, fault: BootFault) -> Result<(), Over> {
        self.state.fault(Fault::Boot(format!("/{}", path.trim_start_matches('/')), fault))
    }

    fn file(&mut self, copy: &str, original: &str) -> Result<(), Over> {
        self.state.entries += 1;
        let Ok(original) = self.tree.file(original) else { return self.fault(copy, BootFault::Unknown) };
        match self.boot.file(copy).and_then(|file| self.same(file, original)) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => self.fault(copy, BootFault::Differs),
            Ok(None) => Err(Over),
            Err(errno) => self.fault(copy, BootFault::Unreadable(errno)),
        }
    }

    /// `None` when the time is up.
    fn same(&mut self, mut one: File, mut other: File) -> Result<Option<bool>, Errno> {
        let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
        // libostree makes hard links where it can.
        if let (Ok(a), Ok(b)) = (identity(&one), identity(&other))
            && a == b
        {
            return Ok(Some(true));
        }
        let (mut a, mut b) = (vec![0; BUFFER], vec![0; BUFFER]);
        loop {
            let (m, n) = (fill(&mut one, &mut a)?, fill(&mut other, &mut b)?);
            if a.get(..m) != b.get(..n) {
                return Ok(Some(false));
            }
            if m == 0 {
                return Ok(Some(true));
            }
            self.hashing.add_bytes(m);
            if self.state.tick(self.hashing.bytes()).is_err() {
                return Ok(None);
            }
        }
    }

    fn overlay(&mut self, path: &str, name: Checksum) -> Result<(), Over> {
        let mut file = match self.boot.file(path) {
            Ok(file) => file,
            Err(errno) => return self.fault(path, BootFault::Unreadable(errno)),
        };
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
        loop {
            match fill(&mut file, &mut buffer) {
                Err(errno) => return self.fault(path, BootFault::Unreadable(errno)),
                Ok(0) => break,
                Ok(length) => hash.update(buffer.get(..length).unwrap_or_default()),
            }
            self.state.tick(self.hashing.bytes())?;
        }
        if Checksum(hash.finalize().into()) == name { Ok(()) } else { self.fault(path, BootFault::Differs) }
    }

    /// The same names in both, and the same files.
    fn directory(&mut self, copy: &str, original: &str, depth: usize) -> Result<(), Over> {
        let names = |tree: &Beneath, path: &str| match tree.list(path, TREES_MAX) {
            Ok((names, true)) => Ok(names),
            Ok((_, false)) => Err(Errno::EOVERFLOW),
            Err(errno) => Err(errno),
        };
        let found = names(self.boot, copy).and_then(|here| Ok((here, names(&self.tree, original)?)));
        let (here, there) = match found {
            Ok(found) if depth > 0 => found,
            Ok(_) => return self.fault(copy, BootFault::Unreadable(Errno::ELOOP)),
            Err(errno) => return self.fault(copy, BootFault::Unreadable(errno)),
        };
        if here != there {
            return self.fault(copy, BootFault::Differs);
        }
        for entry in here {
            let (copy, original) = (format!("{copy}/{}", entry.name), format!("{original}/{}", entry.name));
            if self.tree.is_directory(&original) && !entry.link {
                self.directory(&copy, &original, depth - 1)?;
            } else {
                self.file(&copy, &original)?;
            }
        }
        Ok(())
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(file, rest)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
