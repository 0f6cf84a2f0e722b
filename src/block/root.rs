//! Mounts a root or boot device.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::find::Device;

/// How to mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Types to try in order, separated by commas; empty to recognise it.
    pub fstype: &'a str,
    /// Options as in fstab.
    pub flags: &'a str,
    /// Read-only.
    pub read_only: bool,
}

/// Why a device could not be mounted.
#[derive(Debug)]
pub struct MountError {
    /// The device.
    pub node: PathBuf,
    /// The last type that was tried; empty where none was left to try.
    pub fstype: String,
    /// The kernel's answer.
    pub errno: Errno,
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.display();
        if self.fstype.is_empty() {
            return write!(
                f,
                "{node} has no file system that is known here; name it with rootfstype= and add its driver to the modules"
            );
        }
        write!(f, "cannot mount {node} as {}: {} ", self.fstype, self.errno.desc())?;
        f.write_str(match self.errno {
            Errno::ENODEV => "(the kernel has no driver for this type: add it to the modules)",
            Errno::EINVAL => "(another type, a damaged superblock, or a mount option that it does not know)",
            Errno::EUCLEAN => "(it is damaged: check it with fsck)",
            Errno::EROFS | Errno::EACCES => "(the device is read-only: use 'ro')",
            Errno::EIO => "(the medium does not read)",
            Errno::EBUSY => "(it is in use)",
            _ => "",
        })
    }
}

/// Mounts `device` at `target`.
///
/// # Errors
/// The kernel's answer to the last type that was tried.
pub fn mount_device(device: &Device, target: &Path, options: &Options<'_>) -> Result<(), MountError> {
    let (mut flags, data) = split_options(options.flags);
    if options.read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    let known = device.superblock.as_ref().map_or("", |s| s.kind);
    let filesystems;
    let types: Vec<&str> = if !options.fstype.is_empty() {
        options.fstype.split(',').collect()
    } else if !known.is_empty() {
        vec![known]
    } else {
        filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        filesystems.lines().filter_map(|line| line.strip_prefix('\t')).collect()
    };
    let mut failed = MountError { node: device.node.clone(), fstype: String::new(), errno: Errno::ENODEV };
    for fstype in types.into_iter().filter(|t| !t.is_empty()) {
        let data = (!data.is_empty()).then_some(data.as_str());
        match mount(Some(&device.node), target, Some(fstype), flags, data) {
            Ok(()) => return Ok(()),
            Err(errno) => failed = MountError { node: device.node.clone(), fstype: fstype.into(), errno },
        }
    }
    Err(failed)
}

/// The options of fstab that are flags of mount(2), and the rest for the file system itself.
pub fn split_options(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = String::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (flag, on) = match option {
            "ro" => (MsFlags::MS_RDONLY, true),
            "rw" => (MsFlags::MS_RDONLY, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "nodev" => (MsFlags::MS_NODEV, true),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "sync" => (MsFlags::MS_SYNCHRONOUS, true),
            "dirsync" => (MsFlags::MS_DIRSYNC, true),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "nodiratime" => (MsFlags::MS_NODIRATIME, true),
            "relatime" => (MsFlags::MS_RELATIME, true),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            "lazytime" => (MsFlags::MS_LAZYTIME, true),
            "defaults" | "auto" | "suid" | "dev" | "exec" | "async" | "atime" => (MsFlags::empty(), true),
            other => {
                if !data.is_empty() {
                    data.push(',');
                }
                data.push_str(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_as_mount_does() {
        let (flags, data) = split_options("noatime,data=journal,ro,nodev,commit=5,defaults");
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY | MsFlags::MS_NODEV);
        assert_eq!(data, "data=journal,commit=5");
        assert_eq!(split_options("ro,rw").0, MsFlags::empty());
    }
}
