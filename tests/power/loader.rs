//! What a bootloader finds on the disk: one that reads ext4 without replaying its journal, as U-Boot does.
//!
//! It loads `/boot/loader/uEnv.txt`, then the kernel and the initramfs that this names, from its file system
//! for `/boot`, and passes `bootargs` on. Whether the bytes are those of a commit is what we look at; U-Boot
//! would start whatever it finds.

use std::fs;
use std::path::Path;

use super::disk::{Layout, Mounted, View};
use super::tree::Tree;
use super::variables;

/// What the bootloader does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It starts the kernel with these arguments.
    Kernel {
        /// `bootargs`.
        command_line: String,
    },
    /// It finds no whole kernel.
    Nothing(String),
}

/// Looks at the disk as the bootloader does. The first entry that loads counts, as with an `altbootcmd`.
pub fn load(image: &Path, layout: Layout, at: &Path, trees: &[Tree]) -> Loaded {
    // Its own file system only; there its paths begin. A link boot -> . makes /boot/ostree the same everywhere.
    let own = &layout[layout.len() - 1..];
    let mounted = match Mounted::new(image, own, at, View::Bootloader) {
        Ok(mounted) => mounted,
        Err(e) => return Loaded::Nothing(e.to_string()),
    };
    let top = at.join(own[0].at);
    // Its own variables it reads in the same way, where they are on this file system.
    if let Some(why) = variables::fault(&top) {
        return mounted.close().map_or_else(|e| Loaded::Nothing(e.to_string()), |()| Loaded::Nothing(why));
    }
    let result = match fs::read_to_string(top.join("boot/loader/uEnv.txt")) {
        Err(e) => Loaded::Nothing(format!("uEnv.txt: {e}")),
        Ok(text) => match (entry(&top, &text, "", trees), entry(&top, &text, "2", trees)) {
            (Ok(kernel), _) | (Err(_), Ok(kernel)) => kernel,
            (Err(first), Err(_)) => Loaded::Nothing(first),
        },
    };
    // A failure to unmount would show in the next state; there is none with a mount that nobody else uses.
    mounted.close().map_or_else(|e| Loaded::Nothing(e.to_string()), |()| result)
}

fn entry(top: &Path, text: &str, suffix: &str, trees: &[Tree]) -> Result<Loaded, String> {
    let value = |name: &str| {
        let key = format!("{name}{suffix}=");
        let found = text.lines().find_map(|line| line.strip_prefix(&key));
        found.ok_or_else(|| format!("uEnv.txt has no {name}{suffix}"))
    };
    for (name, file) in [("kernel_image", "vmlinuz"), ("ramdisk_image", "initramfs.img")] {
        let path = value(name)?;
        let content = fs::read(top.join(path.trim_start_matches('/'))).map_err(|e| format!("{path}: {e}"))?;
        if !trees.iter().any(|t| t.has_boot_file(file, &content)) {
            return Err(format!("{path} is not what was committed"));
        }
    }
    Ok(Loaded::Kernel { command_line: value("bootargs")?.into() })
}
