//! The small system that is deployed, and the comparison of a deployment with it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Small files beside the kernel, the initramfs and busybox.
const FILES: u32 = 330;
/// What the init says first; after it the version, or 0 where none is to be read, and the inode of its root.
pub const UP: &str = "[os] up:";

/// Every file of the system with its SHA-256, but itself.
const MANIFEST: &str = "usr/lib/manifest";

/// The init of the small system. On a machine of its own, which `lab.machine` tells, it compares its files itself;
/// with `lab.shell` it leaves the console to whoever types, and with `lab.settle` it stays up for a while.
const INIT: &str = r#"#!/usr/bin/busybox sh
b=/usr/bin/busybox
. /usr/lib/os-release
echo "[os] up: ${VERSION:-0} $($b stat -c %i /)"
[ -e /proc/self ] || $b mount -t proc proc /proc
case " $($b cat /proc/cmdline) " in
*" lab.settle "*) exec $b sleep 7 ;;
*" lab.shell "*) exec $b sh -i ;;
*" lab.machine "*)
    cd /
    if $b sha256sum -cs usr/lib/manifest; then
        echo "[os] every file of version $VERSION is as it was committed"
    else
        echo "[os] it is not what was committed"
    fi
    $b poweroff -f
esac
"#;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File { mode: u32, content: Vec<u8> },
    Link(PathBuf),
}

/// When a version was committed, in seconds since 1970: a day after the one before.
pub fn committed(version: u32) -> u64 {
    // 2026-01-01.
    1_767_225_600 + u64::from(version - 1) * 86_400
}

/// One version of the system.
#[derive(Debug)]
pub struct Tree {
    /// Its version.
    pub version: u32,
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// Writes version `version` below `at`, with a stand-in for the kernel of this release, and a place for the
    /// modules of `others`. The same version is the same to the byte.
    ///
    /// # Errors
    /// When busybox is missing, or the disk is full.
    pub fn make(version: u32, release: &str, others: &[String], at: &Path) -> io::Result<Self> {
        let modules = at.join("usr/lib/modules").join(release);
        for other in others {
            fs::create_dir_all(at.join("usr/lib/modules").join(other))?;
        }
        for dir in ["usr/bin", "usr/sbin", "usr/etc", "usr/lib/data"].map(|d| at.join(d)) {
            fs::create_dir_all(dir)?;
        }
        fs::create_dir_all(&modules)?;
        for dir in ["boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var"] {
            fs::create_dir_all(at.join(dir))?;
        }
        symlink("usr/bin", at.join("bin"))?;
        symlink("usr/sbin", at.join("sbin"))?;
        fs::copy("/bin/busybox", at.join("usr/bin/busybox"))?;
        program(&at.join("usr/sbin/init"), INIT)?;
        fs::write(at.join("usr/lib/os-release"), format!("ID=lab\nVERSION={version}\n"))?;
        fs::write(at.join("usr/etc/version"), format!("{version}\n"))?;
        fs::write(modules.join("vmlinuz"), noise(version, 1, 3 << 20))?;
        fs::write(modules.join("initramfs.img"), noise(version, 2, 2 << 20))?;
        for n in 0..FILES {
            // A third of them changes from version to version.
            let age = if n % 3 == 0 { version } else { 0 };
            let content = noise(age, 10 + n, 64 + (n * 977 % 20_000) as usize);
            fs::write(at.join(format!("usr/lib/data/{n:03}")), content)?;
        }
        let mut entries = read(at)?;
        let manifest = manifest(&entries);
        fs::write(at.join(MANIFEST), &manifest)?;
        let mode = fs::metadata(at.join(MANIFEST))?.mode();
        entries.insert(MANIFEST.into(), Entry::File { mode, content: manifest.into() });
        Ok(Tree { version, entries })
    }

    /// What is wrong with a deployment of this version; nothing if every file is as it was committed. Its
    /// `/etc` must be there and be filled.
    ///
    /// # Errors
    /// The first difference, or what cannot be read.
    pub fn compare(&self, deployment: &Path) -> Result<(), String> {
        let mut found = read(deployment).map_err(|e| e.to_string())?;
        let etc = found.get(Path::new("etc/version"));
        if etc != self.entries.get(Path::new("usr/etc/version")) {
            return Err("etc/version differs".into());
        }
        found.retain(|path, _| !path.starts_with("etc"));
        for (path, entry) in &self.entries {
            match found.remove(path) {
                None => return Err(format!("{} is missing", path.display())),
                Some(other) if other != *entry => return Err(format!("{} differs", path.display())),
                Some(_) => {}
            }
        }
        found.into_keys().next().map_or(Ok(()), |path| Err(format!("{} does not belong", path.display())))
    }

    /// Whether this is this version's kernel, by its name, and whole; or its initramfs.
    pub fn has_boot_file(&self, name: &str, content: &[u8]) -> bool {
        self.entries.iter().any(|(path, entry)| {
            path.file_name().is_some_and(|n| n == name)
                && matches!(entry, Entry::File { content: whole, .. } if whole == content)
        })
    }
}

fn read(root: &Path) -> io::Result<BTreeMap<PathBuf, Entry>> {
    fn walk(root: &Path, dir: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let found = if meta.is_dir() {
                walk(root, &path, entries)?;
                Entry::Directory
            } else if meta.is_symlink() {
                Entry::Link(fs::read_link(&path)?)
            } else {
                Entry::File { mode: meta.mode(), content: fs::read(&path)? }
            };
            let inside = path.strip_prefix(root).map_err(io::Error::other)?;
            entries.insert(inside.into(), found);
        }
        Ok(())
    }
    let mut entries = BTreeMap::new();
    walk(root, root, &mut entries)?;
    Ok(entries)
}

/// As `sha256sum` prints it.
fn manifest(entries: &BTreeMap<PathBuf, Entry>) -> String {
    let line = |(path, entry): (&PathBuf, &Entry)| match entry {
        Entry::File { content, .. } => {
            let digest: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
            Some(format!("{digest}  {}\n", path.display()))
        }
        _ => None,
    };
    entries.iter().filter_map(line).collect()
}

fn program(path: &Path, content: &str) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Bytes that do not compress and are the same every time (xorshift64*).
fn noise(version: u32, file: u32, length: usize) -> Vec<u8> {
    let mut state = (u64::from(version) << 32 | u64::from(file)) ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
