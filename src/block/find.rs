//! Finds the block device that a [`RootSpec`] means, without udev.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};

use super::ReadAt;
use super::partition::{Partition, partition};
use super::spec::RootSpec;
use super::superblock::{Superblock, probe};
use super::uevent::Uevents;

/// More devices than this are not looked at.
const DEVICES_MAX: usize = 256;

/// Where the kernel tells of devices; tests put their own trees here.
#[derive(Clone, Debug)]
pub struct Places {
    /// `/sys/class/block`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Places { sys: "/sys/class/block".into(), dev: "/dev".into() }
    }
}

/// A block device and what is on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its node.
    pub node: PathBuf,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Its file system, where one was recognised.
    pub superblock: Option<Superblock>,
    /// Its entry in the partition table, where it is a partition.
    pub partition: Option<Partition>,
}

/// The device did not appear in time.
#[derive(Debug)]
pub struct NotFound {
    /// What was looked for.
    pub spec: RootSpec,
    /// Seconds waited.
    pub waited: u64,
    /// What was there instead.
    pub seen: Vec<Device>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the root {} did not appear within {} s; ", self.spec, self.waited)?;
        if self.seen.is_empty() {
            return f.write_str("no block device is there at all: is its driver among the modules?");
        }
        f.write_str("present:")?;
        for device in &self.seen {
            write!(f, " {}", device.node.display())?;
            if let Some(s) = &device.superblock {
                write!(f, "({} LABEL={} UUID={})", s.kind, s.label, s.uuid)?;
            }
        }
        Ok(())
    }
}

/// Waits for the device until the deadline, asleep until the kernel has news. `waiting` is called before
/// each sleep, and at least every `heartbeat`.
///
/// # Errors
/// When it did not appear; with the list of what did.
pub fn find(
    spec: &RootSpec,
    places: &Places,
    patience: Duration,
    heartbeat: Duration,
    mut waiting: impl FnMut(),
) -> Result<Device, Box<NotFound>> {
    let start = Instant::now();
    let news = Uevents::open().map_err(|e| log::warn!("no news of devices from the kernel: {e}")).ok();
    loop {
        // No device after the one that is meant is read: one that hangs must not hold the boot up.
        let mut devices = Vec::new();
        for device in examined(places) {
            if is_meant(spec, &device, places) {
                return Ok(device);
            }
            devices.push(device);
        }
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Box::new(NotFound { spec: spec.clone(), waited: patience.as_secs(), seen: devices }));
        }
        waiting();
        match &news {
            Some(news) => news.wait(left.min(heartbeat)),
            None => std::thread::sleep(left.min(Duration::from_secs(1))),
        }
    }
}

/// Every block device that can hold a file system, with what is on it.
pub fn scan(places: &Places) -> Vec<Device> {
    examined(places).collect()
}

fn examined(places: &Places) -> impl Iterator<Item = Device> {
    let mut names: Vec<_> = std::fs::read_dir(&places.sys)
        .map(|dir| dir.flatten().take(DEVICES_MAX).map(|e| e.file_name()).collect())
        .unwrap_or_default();
    names.sort_unstable();
    names.into_iter().filter_map(|name| examine(places, Path::new(&name)))
}

fn examine(places: &Places, name: &Path) -> Option<Device> {
    let sys = places.sys.join(name);
    let number = numbers(&sys)?;
    // A disk without a medium, an unused loop device.
    if attribute(&sys, "size").is_none_or(|size| size == "0") {
        return None;
    }
    // The kernel writes a slash in a device's name as an exclamation mark.
    let node = places.dev.join(name.to_string_lossy().replace('!', "/"));
    ensure_node(&node, number);
    let superblock = File::open(&node).ok().and_then(|f| probe(&Disk(f)));
    Some(Device { partition: partition_of(places, &sys), node, number, superblock })
}

fn partition_of(places: &Places, sys: &Path) -> Option<Partition> {
    let number = attribute(sys, "partition")?.parse().ok()?;
    // /sys/class/block/vda2 is a link to …/vda/vda2.
    let parent = std::fs::canonicalize(sys).ok()?.parent()?.to_path_buf();
    let disk_number = numbers(&parent)?;
    let node = places.dev.join(parent.file_name()?.to_string_lossy().replace('!', "/"));
    ensure_node(&node, disk_number);
    let sector = attribute(&parent, "queue/logical_block_size").and_then(|s| s.parse().ok()).unwrap_or(512);
    // `size` is in units of 512 bytes whatever the sector.
    let size = attribute(&parent, "size").and_then(|s| s.parse::<u64>().ok()).unwrap_or(0) * 512;
    partition(&Disk(File::open(node).ok()?), sector, size, number)
}

fn is_meant(spec: &RootSpec, device: &Device, places: &Places) -> bool {
    let on_disk = |field: fn(&Superblock) -> &str, wanted: &str, fold: bool| {
        device.superblock.as_ref().is_some_and(|s| same(field(s), wanted, fold))
    };
    match spec {
        RootSpec::Uuid(uuid) => on_disk(|s| &s.uuid, uuid, true),
        RootSpec::Label(label) => on_disk(|s| &s.label, label, false),
        RootSpec::PartUuid(uuid) => device.partition.as_ref().is_some_and(|p| same(&p.uuid, uuid, true)),
        RootSpec::PartLabel(label) => device.partition.as_ref().is_some_and(|p| same(&p.label, label, false)),
        RootSpec::Node(name) => {
            device.node == places.dev.join(name.as_str()) || {
                // A name of its own, for example below /dev/mapper.
                std::fs::metadata(places.dev.join(name.as_str())).is_ok_and(|m| {
                    m.file_type().is_block_device()
                        && (major(m.rdev()) as u32, minor(m.rdev()) as u32) == device.number
                })
            }
        }
        RootSpec::Number(major, minor) => device.number == (*major, *minor),
    }
}

fn same(has: &str, wanted: &str, fold: bool) -> bool {
    !has.is_empty() && (has == wanted || fold && has.eq_ignore_ascii_case(wanted))
}

fn attribute(sys: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(sys.join(name)).ok().map(|text| text.trim().to_string())
}

fn numbers(sys: &Path) -> Option<(u32, u32)> {
    let text = attribute(sys, "dev")?;
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// devtmpfs makes the nodes; without it they are made here.
fn ensure_node(node: &Path, (major, minor): (u32, u32)) {
    if node.symlink_metadata().is_err() {
        if let Some(directory) = node.parent() {
            let _ = std::fs::create_dir_all(directory);
        }
        let device = makedev(u64::from(major), u64::from(minor));
        if let Err(e) = mknod(node, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, device) {
            log::debug!("cannot make {}: {e}", node.display());
        }
    }
}

/// An open device.
#[derive(Debug)]
pub struct Disk(pub File);

impl ReadAt for Disk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        self.0.read_exact_at(buffer, offset).ok()
    }
}
