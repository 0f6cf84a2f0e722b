//! Kernel modules: dependency order and loading.
//!
//! `modules.dep`, `modules.softdep` and `modules.builtin` are read in the format of depmod, below
//! `/lib/modules/RELEASE`. The kernel would ask modprobe for what a module wants softly, and an initramfs has
//! none: ext4, for one, needs a crc32c that is loaded before it is mounted.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// A chain of dependencies deeper than this is taken for a cycle.
const DEPTH_MAX: usize = 32;

/// One module to load, after everything before it in the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// Path below the module directory.
    pub path: String,
    /// Its parameters; empty for modules that were not asked for by name.
    pub parameters: String,
}

/// A module that was asked for and cannot be loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Neither in `modules.dep` nor built in.
    Unknown(String),
    /// Its dependencies never end.
    Cycle(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Unknown(name) => write!(
                f,
                "module {name} is not in this initramfs and not built in: build it in with the initramfs builder"
            ),
            Missing::Cycle(name) => write!(f, "module {name}: its dependencies in modules.dep never end"),
        }
    }
}

/// Puts the wanted modules (`NAME` or `NAME parameters`) and all that they depend on in order. A module that
/// is built into the kernel needs nothing.
pub fn resolve<'a>(
    modules_dep: &str,
    modules_softdep: &str,
    modules_builtin: &str,
    wanted: impl IntoIterator<Item = &'a str>,
) -> (Vec<Load>, Vec<Missing>) {
    let mut order: Vec<Load> = Vec::new();
    let mut missing = Vec::new();
    let index = Index { dep: modules_dep, softdep: modules_softdep };
    for request in wanted {
        let (name, parameters) = request.trim().split_once(' ').unwrap_or((request.trim(), ""));
        match index.path(name) {
            Some(path) => {
                if !index.add(path, &mut order, &mut Vec::new()) {
                    missing.push(Missing::Cycle(name.to_string()));
                } else if let Some(load) = order.iter_mut().find(|l| l.path == path) {
                    load.parameters = parameters.trim().to_string();
                }
            }
            None if modules_builtin.lines().any(|path| is_module(path, name)) => {}
            None => missing.push(Missing::Unknown(name.to_string())),
        }
    }
    (order, missing)
}

/// What depmod wrote.
struct Index<'a> {
    dep: &'a str,
    softdep: &'a str,
}

impl<'a> Index<'a> {
    /// The path of a module, by its name.
    fn path(&self, name: &str) -> Option<&'a str> {
        self.dep.lines().filter_map(|l| l.split(':').next()).find(|p| is_module(p, name))
    }

    /// What a module wants softly before it (`pre:`) or after it (`post:`).
    fn soft(&self, path: &str, when: &str) -> Vec<&'a str> {
        let mut wanted = Vec::new();
        for line in self.softdep.lines() {
            let mut words = line.split_ascii_whitespace();
            if words.next() != Some("softdep") || !words.next().is_some_and(|name| is_module(path, name)) {
                continue;
            }
            let mut section = "";
            for word in words {
                if word.ends_with(':') {
                    section = word;
                } else if section == when {
                    wanted.push(word);
                }
            }
        }
        wanted
    }

    /// Adds a module after its dependencies; `trail` leads from the wish to here. `false` where they never end.
    fn add(&self, path: &'a str, order: &mut Vec<Load>, trail: &mut Vec<&'a str>) -> bool {
        if order.iter().any(|l| l.path == path) {
            return true;
        }
        if trail.len() > DEPTH_MAX || trail.contains(&path) {
            return false;
        }
        trail.push(path);
        self.add_soft(path, "pre:", order, trail);
        let line = self.dep.lines().find_map(|l| l.strip_prefix(path)?.strip_prefix(':'));
        // depmod lists the nearest first; the farthest must be loaded first.
        let mut needed = line.unwrap_or("").split_ascii_whitespace().rev();
        let whole = needed.all(|needed| self.add(needed, order, trail));
        if whole {
            order.push(Load { path: path.to_string(), parameters: String::new() });
            self.add_soft(path, "post:", order, trail);
        }
        trail.pop();
        whole
    }

    /// A soft wish that is absent, or that leads back here, is no reason to fail.
    fn add_soft(&self, path: &str, when: &str, order: &mut Vec<Load>, trail: &mut Vec<&'a str>) {
        for name in self.soft(path, when) {
            if let Some(wish) = self.path(name) {
                self.add(wish, order, trail);
            }
        }
    }
}

/// Whether a path such as `kernel/fs/ext4/ext4.ko.xz` is the module `name`; `-` and `_` are the same.
pub(crate) fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    crate::cmdline::same_name(stem.as_bytes(), name.as_bytes())
}

/// Loads the wanted modules. Failures are logged, and the boot goes on: the root may be there without them.
#[cfg(not(target_os = "none"))]
pub fn load_all<'a>(directory: &std::path::Path, wanted: impl IntoIterator<Item = &'a str>) {
    let read = |name| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    let (order, missing) =
        resolve(&read("modules.dep"), &read("modules.softdep"), &read("modules.builtin"), wanted);
    for module in missing {
        log::warn!("{module}");
    }
    for load in &order {
        match load_one(&directory.join(&load.path), &load.parameters) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => log::debug!("module {} loaded", load.path),
            Err(e) => log::warn!("module {} was not loaded: {}", load.path, e.desc()),
        }
    }
}

#[cfg(not(target_os = "none"))]
fn load_one(path: &std::path::Path, parameters: &str) -> nix::Result<()> {
    use nix::errno::Errno;
    use nix::kmod::{ModuleInitFlags, finit_module};
    let file = std::fs::File::open(path).map_err(|e| crate::sys::errno(&e))?;
    let parameters = std::ffi::CString::new(parameters).map_err(|_| Errno::EINVAL)?;
    let compressed = path.extension().is_some_and(|e| e != "ko");
    // MODULE_INIT_COMPRESSED_FILE of linux/module.h (5.17), which nix does not name.
    let flags = ModuleInitFlags::from_bits_retain(if compressed { 4 } else { 0 });
    finit_module(file, &parameters, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/lib/crc16.ko:\n\
        kernel/drivers/virtio_blk.ko.xz: kernel/drivers/virtio_ring.ko.xz kernel/drivers/virtio.ko.xz\n\
        kernel/drivers/virtio_ring.ko.xz: kernel/drivers/virtio.ko.xz\nkernel/drivers/virtio.ko.xz:\n\
        kernel/crypto/crc32c-intel.ko:\nkernel/fs/btrfs.ko:\n\
        a.ko: b.ko\nb.ko: a.ko\n";

    const SOFTDEP: &str =
        "# made by depmod\nsoftdep btrfs pre: crc32c_intel absent\nsoftdep crc32c_intel pre: btrfs\n";

    fn paths(wanted: &[&str]) -> (Vec<String>, usize) {
        let (order, missing) =
            resolve(DEP, SOFTDEP, "kernel/crypto/crc32c_generic.ko\n", wanted.iter().copied());
        (order.into_iter().map(|l| l.path).collect(), missing.len())
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let (order, missing) = paths(&["virtio-blk", "ext4", "ext4", "crc32c-generic"]);
        assert_eq!(missing, 0);
        assert_eq!(
            order,
            [
                "kernel/drivers/virtio.ko.xz",
                "kernel/drivers/virtio_ring.ko.xz",
                "kernel/drivers/virtio_blk.ko.xz",
                "kernel/lib/crc16.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/fs/ext4/ext4.ko"
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_told_and_cycles_end() {
        assert_eq!(paths(&["nothing", "ext4"]).1, 1);
        assert_eq!(paths(&["a"]).1, 1);
    }

    #[test]
    fn soft_wishes_come_first_where_they_are_there() {
        let (order, missing) = paths(&["btrfs"]);
        assert_eq!(missing, 0);
        assert_eq!(order, ["kernel/crypto/crc32c-intel.ko", "kernel/fs/btrfs.ko"]);
    }

    #[test]
    fn parameters_go_to_the_module_that_was_named() {
        let (order, _) = resolve(DEP, "", "", ["ext4 debug=1 x=2"]);
        assert_eq!(order.last().unwrap().parameters, "debug=1 x=2");
        assert!(order[0].parameters.is_empty());
    }
}
