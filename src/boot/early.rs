//! Stage 1: the file systems and descriptors that everything else needs.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

/// What is mounted first: type, where, flags, data. As systemd and dracut mount them.
const MOUNTS: [(&str, &str, MsFlags, Option<&str>); 4] = [
    ("proc", "/proc", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC), None),
    ("sysfs", "/sys", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC), None),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, Some("mode=0755")),
    ("tmpfs", "/run", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), Some("mode=0755")),
];

/// Mounts them, and opens the console where the kernel could not. Returns what failed, to be logged once
/// there is a log.
pub fn prepare() -> Vec<(&'static str, Errno)> {
    let mut failed = Vec::new();
    for (kind, target, flags, data) in MOUNTS {
        let _ = std::fs::create_dir(target);
        // Whoever ran before us may have mounted it, and put things into it.
        if is_mount_point(target) {
            continue;
        }
        if let Err(e) = mount(Some(kind), target, Some(kind), flags, data) {
            failed.push((target, e));
        }
    }
    open_standard_descriptors();
    failed
}

/// Something other than the initramfs itself is there.
fn is_mount_point(target: &str) -> bool {
    let device = |path: &str| std::fs::symlink_metadata(path).map(|m| m.dev()).ok();
    device(target).is_some_and(|there| Some(there) != device("/"))
}

/// Without a console in the initramfs the kernel starts us with none of 0, 1 and 2 open.
fn open_standard_descriptors() {
    for path in ["/dev/console", "/dev/null"] {
        while let Ok(fd) = open(Path::new(path), OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty()) {
            if fd.as_raw_fd() > 2 {
                break;
            }
            // 0 to 2 stay open for good.
            std::mem::forget(fd);
        }
    }
}
