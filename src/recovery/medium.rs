//! A USB stick, a USB disk or an SD card with a repository: `bootward/repo` or `ostree/repo` on one of its partitions.
//!
//! What is on it is believed as little as what comes over a network: the same keys, the same floor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use super::fetch;
use super::flow::Came;
use super::worker::{Worker, shown};
use crate::block::find::{Device, Places, scan};
use crate::block::root::{Options, mount_device};
use crate::fetch::Url;

/// Where it is mounted.
const MEDIUM: &str = "/run/bootward-medium";
/// Where a repository is looked for.
const REPOSITORIES: [&str; 2] = ["bootward/repo", "ostree/repo"];
/// A stick takes its time after power on: the kernel waits a second before it asks it anything.
const PATIENCE: Duration = Duration::from_secs(6);

/// Looks for media, and takes the commit from the first one that has it.
pub(super) fn step(worker: &mut Worker) -> Came {
    let devices = wait(worker);
    for device in devices {
        if worker.shared.is_wished() {
            return Came::Failed;
        }
        let name = shown(&device.node);
        match repository(&device) {
            Ok(Some(path)) => {
                worker.shared.tell(&format!("{name} has a repository"));
                let came = match Url::parse(&format!("file://{}", path.display())) {
                    Ok(url) => fetch::install(worker, &name, vec![url], None),
                    Err(e) => {
                        worker.failed(&name, &e.to_string());
                        Came::Failed
                    }
                };
                let _ = umount2(MEDIUM, MntFlags::MNT_DETACH);
                if came == Came::Done {
                    return came;
                }
            }
            Ok(None) => {
                let _ = umount2(MEDIUM, MntFlags::MNT_DETACH);
                worker.shared.tell(&format!("{name} has neither bootward/repo nor ostree/repo"));
            }
            Err(why) => worker.failed(&name, &why),
        }
    }
    Came::Failed
}

/// Waits a little for what is plugged in.
fn wait(worker: &Worker) -> Vec<Device> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found: Vec<Device> = scan(&Places::default())
            .into_iter()
            .filter(|d| d.superblock.is_some() && is_external(d))
            .collect();
        if !found.is_empty() || Instant::now() >= until || worker.shared.is_wished() {
            return found;
        }
        worker.shared.alive(PATIENCE);
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Mounts it, and tells where its repository is.
fn repository(device: &Device) -> Result<Option<PathBuf>, String> {
    let _ = std::fs::create_dir_all(MEDIUM);
    let options = Options { fstype: "", flags: "nosuid,nodev,noexec", read_only: true };
    mount_device(device, Path::new(MEDIUM), &options).map_err(|e| e.to_string())?;
    let mut places = REPOSITORIES.iter().map(|place| Path::new(MEDIUM).join(place));
    Ok(places.find(|place| place.join("config").is_file()))
}

/// Whether the device is on USB, is an SD card, or says that it can be taken out.
fn is_external(device: &Device) -> bool {
    let Some(name) = device.node.file_name() else { return false };
    let Ok(place) = std::fs::canonicalize(Path::new("/sys/class/block").join(name)) else { return false };
    is_external_at(&place)
}

fn is_external_at(place: &Path) -> bool {
    // A partition is a directory inside its disk's.
    let disks = [Some(place), place.parent()];
    let says = |file: &str, word: &str| {
        let read = |disk: &Path| std::fs::read_to_string(disk.join(file)).unwrap_or_default();
        disks.iter().flatten().any(|disk| read(disk).trim() == word)
    };
    let usb = place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    usb || says("removable", "1") || says("device/type", "SD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_taken_out() {
        let root = tempfile::tempdir().unwrap();
        let disk = |path: &str, file: &str, content: &str| {
            let disk = root.path().join(path);
            std::fs::create_dir_all(disk.join(disk.file_name().unwrap()).with_extension("1")).unwrap();
            let file = disk.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
            disk
        };
        let usb = disk("pci/usb1/1-1/host0/block/sda", "removable", "0\n");
        let stick = disk("pci/host1/block/sdb", "removable", "1\n");
        let card = disk("soc/mmc0/block/mmcblk0", "device/type", "SD\n");
        let soldered = disk("soc/mmc1/block/mmcblk1", "device/type", "MMC\n");
        let inside = disk("pci/virtio0/block/vda", "removable", "0\n");
        for (disk, external) in
            [(&usb, true), (&stick, true), (&card, true), (&soldered, false), (&inside, false)]
        {
            assert_eq!(is_external_at(disk), external, "{disk:?}");
            assert_eq!(is_external_at(&disk.join("part")), external, "{disk:?}");
        }
    }
}
