//! Emptying a directory through its descriptor.

use std::os::fd::AsFd;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The deepest directory that is entered; below it, files stay.
pub const MAX_DEPTH: usize = 64;

/// Deletes all that is in `directory`, which stays. Never follows a link nor enters another filesystem: what is
/// mounted within stays, with the directories above it. Best effort; returns how many entries stayed.
pub fn clear(directory: impl AsFd) -> usize {
    match fstat(&directory) {
        Ok(stat) => clear_below(&directory, stat.st_dev, MAX_DEPTH),
        Err(_) => 1,
    }
}

fn clear_below(directory: &impl AsFd, device: nix::libc::dev_t, depth: usize) -> usize {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let Ok(mut entries) = Dir::openat(directory, ".", flags, Mode::empty()) else { return 1 };
    let mut stayed = 0;
    for entry in entries.iter() {
        let Ok(entry) = entry else { return stayed + 1 };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let mut kind = UnlinkatFlags::NoRemoveDir;
        let is_directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) == Err(Errno::EISDIR),
        };
        if is_directory {
            kind = UnlinkatFlags::RemoveDir;
            let same =
                fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| s.st_dev == device);
            let inner = Dir::openat(directory, name, flags, Mode::empty());
            match inner {
                Ok(inner) if same && depth > 0 && fstat(&inner).is_ok_and(|s| s.st_dev == device) => {
                    stayed += clear_below(&inner, device, depth - 1);
                }
                _ => {
                    stayed += 1;
                    continue;
                }
            }
        }
        match unlinkat(directory, name, kind) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) => stayed += 1,
        }
    }
    stayed
}
