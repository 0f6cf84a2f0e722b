//! Finding and mounting the root, against blkid, the mkfs programs, sfdisk and real loop devices.
//!
//! Most tests put image files into a tree that looks like /sys/class/block and /dev. Those with loop devices
//! need root; they mount in a mount namespace of their own.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bootward::block::find::{Device, Disk, Places, find, scan};
use bootward::block::partition::partition;
use bootward::block::root::{Options, mount_device};
use bootward::block::spec::RootSpec;
use bootward::block::superblock::probe;
use nix::errno::Errno;

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let out = Command::new(program).args(arguments).env("LC_ALL", "C.UTF-8").output();
    let out = out.unwrap_or_else(|e| panic!("{program} must be there: {e}"));
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

fn ok(program: &str, arguments: &[&str]) -> String {
    let (success, text) = run(program, arguments);
    assert!(success, "{program} {arguments:?}: {text}");
    text
}

fn image(directory: &Path, name: &str, mebibytes: u64) -> String {
    let path = directory.join(name);
    fs::File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
    path.to_str().unwrap().to_string()
}

/// `blkid -p`'s value of a tag; empty where it has none.
fn blkid(path: &str, tag: &str) -> String {
    let (_, text) = run("blkid", &["-p", "-o", "value", "-s", tag, path]);
    text.trim_end_matches('\n').to_string()
}

fn our_view(path: &str) -> [String; 3] {
    match probe(&Disk(fs::File::open(path).unwrap())) {
        Some(s) => [s.kind.to_string(), s.uuid.to_string(), s.label.to_string()],
        None => Default::default(),
    }
}

fn blkid_view(path: &str) -> [String; 3] {
    ["TYPE", "UUID", "LABEL"].map(|tag| blkid(path, tag))
}

/// Every file system as its own mkfs makes it: type, UUID and label are what blkid prints.
#[test]
fn file_systems_are_recognised_as_blkid_does() {
    let scratch = tempfile::tempdir().unwrap();
    let uuid = "3e6be9de-8139-4aa1-9106-a43f08d823a6";
    fs::create_dir(scratch.path().join("tree")).unwrap();
    let tree = scratch.path().join("tree").display().to_string();
    let table: &[(&str, u64, &[&str])] = &[
        ("ext2", 8, &["mkfs.ext2", "-q", "-L", "otaroot", "IMAGE"]),
        ("ext3", 8, &["mkfs.ext3", "-q", "-U", uuid, "IMAGE"]),
        ("ext4", 8, &["mkfs.ext4", "-q", "-L", "sixteen letters!", "-U", uuid, "IMAGE"]),
        ("ext4", 8, &["mkfs.ext4", "-q", "-O", "^has_journal", "-L", "gr\u{fc}n", "IMAGE"]),
        ("ext4", 8, &["mkfs.ext4", "-q", "-b", "4096", "-O", "64bit,metadata_csum,casefold", "IMAGE"]),
        ("ext3", 8, &["mkfs.ext4", "-q", "-O", "none,has_journal,filetype,sparse_super", "IMAGE"]),
        ("xfs", 320, &["mkfs.xfs", "-q", "-L", "twelveletter", "IMAGE"]),
        ("btrfs", 128, &["mkfs.btrfs", "-q", "-L", "a label of some length", "IMAGE"]),
        ("f2fs", 64, &["mkfs.f2fs", "-q", "-l", "flash \u{e9}", "IMAGE"]),
        ("f2fs", 64, &["mkfs.f2fs", "-q", "IMAGE"]),
        ("erofs", 1, &["mkfs.erofs", "-U", uuid, "IMAGE", &tree]),
        ("squashfs", 1, &["mksquashfs", &tree, "IMAGE", "-noappend", "-quiet", "-no-progress"]),
        ("vfat", 2, &["mkfs.vfat", "-F", "12", "-n", "BOOT", "-i", "0a1b2c3d", "IMAGE"]),
        ("vfat", 16, &["mkfs.vfat", "-F", "16", "-n", "TWO WORDS", "IMAGE"]),
        ("vfat", 64, &["mkfs.vfat", "-F", "32", "-n", "EFI", "IMAGE"]),
        ("vfat", 64, &["mkfs.vfat", "-F", "32", "IMAGE"]),
        ("vfat", 64, &["mkfs.vfat", "-F", "32", "-S", "4096", "-n", "BIG", "IMAGE"]),
        ("", 1, &["true"]),
        ("", 8, &["mkswap", "-q", "IMAGE"]),
    ];
    for (n, (kind, size, command)) in table.iter().enumerate() {
        let path = image(scratch.path(), &format!("image{n}"), *size);
        let arguments: Vec<&str> =
            command[1..].iter().map(|&a| if a == "IMAGE" { path.as_str() } else { a }).collect();
        ok(command[0], &arguments);
        assert_eq!(our_view(&path)[0], *kind, "{command:?}");
        if !kind.is_empty() {
            assert_eq!(our_view(&path), blkid_view(&path), "{command:?}");
        }
        fs::remove_file(path).unwrap();
    }
}

/// A disk image as sfdisk makes it, and what `blkid -p` says of each of its partitions on a loop device.
struct Loop(String);

impl Loop {
    fn attach(path: &str, more: &[&str]) -> Loop {
        let arguments = [&["--find", "--show"], more, &[path]].concat();
        Loop(ok("losetup", &arguments).trim().to_string())
    }

    fn name(&self) -> &str {
        self.0.strip_prefix("/dev/").unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Partitions that were added by hand outlive the file behind the device.
        let _ = Command::new("partx").args(["-d", &self.0]).output();
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

fn sfdisk(path: &str, script: &str) {
    let script_path = format!("{path}.sfdisk");
    fs::write(&script_path, script).unwrap();
    ok("sh", &["-c", "sfdisk -q --no-reread --no-tell-kernel \"$1\" < \"$2\"", "-", path, &script_path]);
}

/// sfdisk and blkid print what is not plain ASCII as \xNN.
fn unescape(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or("").as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Number, PARTUUID and PARTLABEL of every partition as sfdisk dumps them.
fn sfdisk_view(path: &str) -> Vec<(u32, String, String)> {
    let dump = ok("sfdisk", &["-d", path]);
    let id = dump.lines().find_map(|l| l.strip_prefix("label-id: 0x")).unwrap_or("");
    let lines = dump.lines().filter_map(|l| l.strip_prefix(path));
    let field = |line: &str, key: &str| {
        line.split(", ").find_map(|f| f.trim().strip_prefix(key).map(|v| unescape(v.trim_matches('"'))))
    };
    lines
        .map(|line| {
            let (number, rest) = line.split_once(" : ").unwrap();
            let number = number.trim().parse().unwrap();
            let uuid = field(rest, "uuid=").map_or(format!("{id}-{number:02x}"), |u| u.to_lowercase());
            (number, uuid, field(rest, "name=").unwrap_or_default())
        })
        .collect()
}

fn our_partitions(path: &str, sector: u32) -> Vec<(u32, String, String)> {
    let file = fs::File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let disk = Disk(file);
    (0..=130)
        .filter_map(|n| {
            partition(&disk, sector, size, n).map(|p| (n, p.uuid.to_string(), p.label.to_string()))
        })
        .collect()
}

const GPT: &str = "label: gpt\n1: size=2MiB, name=\"boot\"\n2: size=2MiB, name=\"r\u{e9}serve no 2\"\n\
    5: size=1MiB, name=\"thirty-six letters in a partition na\"\n128: size=1MiB\n";
const MBR: &str = "label: dos\nlabel-id: 0x0a1b2c3d\n1: size=2MiB, type=c\n2: size=2MiB, type=83\n\
    4: type=5\n5: size=1MiB, type=83\n6: size=1MiB, type=83\n7: size=1MiB, type=83\n";

#[test]
fn partitions_are_named_as_sfdisk_dumps_them() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, script, count) in [("gpt", GPT, 4), ("mbr", MBR, 6)] {
        let path = image(scratch.path(), name, 16);
        sfdisk(&path, script);
        let expected = sfdisk_view(&path);
        assert_eq!(expected.len(), count, "{expected:?}");
        assert_eq!(our_partitions(&path, 512), expected);
    }
}

/// The backup table counts where the first is damaged, in its header or in its entries.
#[test]
fn a_damaged_gpt_is_read_from_its_backup() {
    let scratch = tempfile::tempdir().unwrap();
    let path = image(scratch.path(), "gpt", 16);
    sfdisk(&path, GPT);
    let expected = sfdisk_view(&path);
    let whole = fs::read(&path).unwrap();
    for place in [512, 512 + 24, 512 + 72, 1024 + 16, 1024 + 128 * 4 + 60] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(our_partitions(&path, 512), expected, "byte {place}");
        let last = damaged.len() - 512;
        damaged[last] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(our_partitions(&path, 512).iter().filter(|p| !p.2.is_empty()).count(), 0, "byte {place}");
    }
}

/// A disk that once had a GPT and was given an MBR since: the kernel and blkid go by the MBR.
#[test]
fn a_left_over_gpt_without_its_protective_mbr_is_not_believed() {
    let scratch = tempfile::tempdir().unwrap();
    let (gpt, mbr) = (image(scratch.path(), "gpt", 16), image(scratch.path(), "mbr", 16));
    sfdisk(&gpt, GPT);
    sfdisk(&mbr, "label: dos\nlabel-id: 0x0a1b2c3d\n1: size=2MiB, type=c\n2: size=2MiB, type=83\n");
    let first = fs::read(&mbr).unwrap()[..512].to_vec();
    fs::OpenOptions::new().write(true).open(&gpt).unwrap().write_all_at(&first, 0).unwrap();
    assert_eq!(blkid(&gpt, "PTTYPE"), "dos");
    let expected = [(1, "0a1b2c3d-01".into(), String::new()), (2, "0a1b2c3d-02".into(), String::new())];
    assert_eq!(our_partitions(&gpt, 512), expected);
}

/// Images with bytes exchanged, and images cut short: any answer will do, but there is one.
#[test]
fn damaged_disks_are_no_reason_to_panic() {
    let scratch = tempfile::tempdir().unwrap();
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) as usize % below
    };
    let makers: [&dyn Fn(&str); 5] = [
        &|p| sfdisk(p, GPT),
        &|p| sfdisk(p, MBR),
        &|p| drop(ok("mkfs.ext4", &["-q", p])),
        &|p| drop(ok("mkfs.vfat", &["-F", "16", "-n", "BOOT", p])),
        &|p| drop(ok("mkfs.vfat", &["-F", "32", "-s", "1", "-f", "1", "-a", "-n", "BOOT", p])),
    ];
    for (n, make) in makers.iter().enumerate() {
        let path = image(scratch.path(), &n.to_string(), 40);
        make(&path);
        let mut whole = fs::read(&path).unwrap();
        whole.truncate(4 << 20);
        for _ in 0..400 {
            let mut bytes = whole[..if random(3) == 0 { random(whole.len()) } else { whole.len() }].to_vec();
            for _ in 0..=random(8) {
                let range = [512, 2048, 70_000][random(3)].min(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(random(range)) {
                    *byte = [0, 0xff, random(256) as u8][random(3)];
                }
            }
            let disk = &bytes[..];
            let _ = probe(&disk);
            for number in [1, 2, 5, 6, 7, 128, u32::MAX] {
                let _ = partition(&disk, [512, 4096][random(2)], bytes.len() as u64, number);
            }
        }
    }
}

/// A tree that looks like /sys and /dev, with image files for devices.
struct Machine {
    scratch: tempfile::TempDir,
    places: Places,
    minors: Cell<u32>,
}

impl Machine {
    fn new() -> Machine {
        let scratch = tempfile::tempdir().unwrap();
        let places = Places { sys: scratch.path().join("sys/class/block"), dev: scratch.path().join("dev") };
        fs::create_dir_all(&places.sys).unwrap();
        fs::create_dir_all(&places.dev).unwrap();
        Machine { scratch, places, minors: Cell::new(0) }
    }

    fn image(&self, name: &str, mebibytes: u64) -> String {
        image(&self.places.dev, name, mebibytes)
    }

    /// Registers `dev/NAME`, or a partition of a disk.
    fn appears(&self, name: &str, partition_of: Option<(&str, u32)>) {
        let devices = self.scratch.path().join("sys/devices");
        let sys = devices.join(partition_of.map_or("", |(disk, _)| disk)).join(name);
        fs::create_dir_all(&sys).unwrap();
        self.minors.set(self.minors.get() + 1);
        fs::write(sys.join("dev"), format!("254:{}\n", self.minors.get())).unwrap();
        let size = fs::metadata(self.places.dev.join(name)).map_or(0, |m| m.len() / 512);
        fs::write(sys.join("size"), format!("{size}\n")).unwrap();
        match partition_of {
            Some((_, number)) => fs::write(sys.join("partition"), format!("{number}\n")).unwrap(),
            None => {
                fs::create_dir(sys.join("queue")).unwrap();
                fs::write(sys.join("queue/logical_block_size"), "512\n").unwrap();
            }
        }
        symlink(&sys, self.places.sys.join(name)).unwrap();
    }

    fn look_for(&self, spec: &str) -> Result<PathBuf, String> {
        let spec = RootSpec::parse(spec).map_err(|e| e.to_string())?;
        let found = find(&spec, &self.places, Duration::ZERO, Duration::ZERO, || ());
        found.map(|d: Device| d.node).map_err(|e| e.to_string())
    }
}

#[test]
fn a_root_is_found_by_every_name() {
    let machine = Machine::new();
    let (disk, root) = (machine.image("vda", 16), machine.image("vda2", 8));
    sfdisk(&disk, GPT);
    let uuid = "3e6be9de-8139-4aa1-9106-a43f08d823a6";
    ok("mkfs.ext4", &["-q", "-L", "my root", "-U", uuid, &root]);
    machine.appears("vda", None);
    machine.appears("vda2", Some(("vda", 2)));
    let boot = machine.image("vdb", 16);
    ok("mkfs.vfat", &["-F", "16", "-n", "BOOT", "-i", "0a1b2c3d", &boot]);
    machine.appears("vdb", None);
    let part = sfdisk_view(&disk)[1].clone();
    let root = Ok(PathBuf::from(root));
    for spec in [
        &format!("UUID={uuid}"),
        &format!("UUID=\"{}\"", uuid.to_uppercase()),
        &format!("/dev/disk/by-uuid/{uuid}"),
        "LABEL=my root",
        "/dev/disk/by-label/my\\x20root",
        &format!("PARTUUID={}", part.1.to_uppercase()),
        &format!("/dev/disk/by-partuuid/{}", part.1),
        &format!("PARTLABEL={}", part.2),
        "/dev/vda2",
        "254:2",
        "fe02",
    ] {
        assert_eq!(machine.look_for(spec), root, "{spec}");
    }
    assert_eq!(machine.look_for("UUID=0A1B-2C3D"), Ok(PathBuf::from(boot)));
    // Labels are as they are written; a prefix is no match; the disk is not its partition.
    for spec in ["LABEL=My Root", "LABEL=my", "PARTLABEL=root", "/dev/vda3", "254:9"] {
        let told = machine.look_for(spec).unwrap_err();
        assert!(told.contains("LABEL=my root") && told.contains("0A1B-2C3D"), "{told}");
    }
}

#[test]
fn no_device_at_all_is_told_as_that() {
    let machine = Machine::new();
    let told = machine.look_for("LABEL=x").unwrap_err();
    assert!(told.contains("no block device"), "{told}");
    // Without a medium a drive is there but holds nothing.
    machine.image("sr0", 0);
    machine.appears("sr0", None);
    assert!(scan(&machine.places).is_empty());
}

/// The wait ends at its deadline, and tells that it waits.
#[test]
fn a_root_that_never_appears_ends_the_wait_in_time() {
    let machine = Machine::new();
    let (start, waits) = (Instant::now(), Cell::new(0));
    let spec = RootSpec::parse("LABEL=never").unwrap();
    let patience = Duration::from_millis(700);
    let told = || waits.set(waits.get() + 1);
    let outcome = find(&spec, &machine.places, patience, Duration::from_millis(200), told);
    assert!(outcome.is_err());
    let took = start.elapsed();
    assert!(took >= patience && took < patience + Duration::from_secs(2), "{took:?}");
    assert!(waits.get() >= 2, "{}", waits.get());
}

/// A loop device that comes while we sleep: the kernel's event wakes us, long before the heartbeat would.
#[test]
fn a_root_that_appears_late_ends_the_wait_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let path = image(scratch.path(), "late", 8);
    ok("mkfs.ext4", &["-q", "-L", "bootward-late", &path]);
    let dev = scratch.path().join("dev");
    let places = Places { sys: "/sys/class/block".into(), dev: dev.clone() };
    let attached = Cell::new(None);
    let spec = RootSpec::parse("LABEL=bootward-late").unwrap();
    let (patience, start) = (Duration::from_secs(30), Instant::now());
    let device = find(&spec, &places, patience, patience, || {
        // The first look is over; what comes now must be heard.
        let now = attached.take().unwrap_or_else(|| Loop::attach(&path, &[]));
        attached.set(Some(now));
    });
    let device = device.unwrap_or_else(|e| panic!("{e}"));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let attached = attached.take().unwrap();
    assert_eq!(device.node, dev.join(attached.name()));
    // There was no node below this /dev: it was made.
    assert!(fs::metadata(&device.node).unwrap().file_type().is_block_device());
    let number = fs::read_to_string(format!("/sys/class/block/{}/dev", attached.name())).unwrap();
    assert_eq!(number.trim(), format!("{}:{}", device.number.0, device.number.1));
}

/// Partitions of real disks, with sectors of 512 and of 4096 bytes, are named as blkid names them.
#[test]
fn partitions_of_real_disks_are_named_as_blkid_does() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, script, sector) in [("gpt", GPT, "512"), ("gpt4k", GPT, "4096"), ("mbr", MBR, "512")] {
        let path = image(scratch.path(), name, 32);
        let disk = Loop::attach(&path, &["--sector-size", sector]);
        sfdisk(&disk.0, script);
        ok("partx", &["--add", &disk.0]);
        let places = Places { sys: "/sys/class/block".into(), dev: scratch.path().join("dev") };
        let devices = scan(&places);
        let ours: Vec<_> = devices
            .iter()
            .filter(|d| {
                d.node.file_name().unwrap().to_str().unwrap().starts_with(&format!("{}p", disk.name()))
            })
            .collect();
        assert!(ours.len() >= 4, "{name}: {ours:?}");
        for device in ours {
            let node = format!("/dev/{}", device.node.file_name().unwrap().to_str().unwrap());
            let partition = device.partition.as_ref().unwrap_or_else(|| panic!("{name}: {device:?}"));
            assert_eq!(partition.uuid.as_str(), blkid(&node, "PART_ENTRY_UUID"), "{name} {node}");
            assert_eq!(partition.label.as_str(), unescape(&blkid(&node, "PART_ENTRY_NAME")), "{name} {node}");
        }
    }
}

/// Runs one of the ignored tests below in a mount namespace of its own.
fn in_own_namespace(test: &str) {
    let this = std::env::current_exe().unwrap();
    let (success, text) = run(
        "unshare",
        &[
            "--mount",
            this.to_str().unwrap(),
            "--ignored",
            "--exact",
            &format!("block::{test}"),
            "--nocapture",
        ],
    );
    assert!(success && text.contains("1 passed"), "{text}");
}

#[test]
fn a_root_is_mounted_with_its_options() {
    in_own_namespace("inner_mount");
}

#[test]
#[ignore = "mounts: run by a_root_is_mounted_with_its_options"]
fn inner_mount() {
    let scratch = tempfile::tempdir().unwrap();
    let path = image(scratch.path(), "root", 8);
    ok("mkfs.ext4", &["-q", &path]);
    let disk = Loop::attach(&path, &[]);
    let target = scratch.path().join("root-mount");
    fs::create_dir(&target).unwrap();
    let places = Places::default();
    let device = || scan(&places).into_iter().find(|d| d.node == Path::new(&disk.0)).unwrap();
    let mount = |fstype, flags, read_only| {
        let options = Options { fstype, flags, read_only };
        let outcome = mount_device(&device(), &target, &options);
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = table.lines().find(|l| l.contains("root-mount")).unwrap_or("").to_string();
        if outcome.is_ok() {
            nix::mount::umount(&target).unwrap();
        }
        outcome.map(|()| line).map_err(|e| (e.errno, e.to_string()))
    };

    let line = mount("", "", false).unwrap();
    assert!(line.contains(" ext4 rw,"), "{line}");
    let line = mount("", "noatime,nodev,data=journal", true).unwrap();
    for wanted in [" ext4 ro,", "noatime", "nodev", "data=journal"] {
        assert!(line.contains(wanted), "{line}");
    }
    // A list is tried in order.
    assert!(mount("xfs,ext4", "", true).unwrap().contains(" ext4 "));

    let (errno, told) = mount("nosuchfs", "", true).unwrap_err();
    assert!(errno == Errno::ENODEV && told.contains("nosuchfs") && told.contains("modules"), "{told}");
    let (errno, told) = mount("", "nosuchoption", true).unwrap_err();
    assert!(errno == Errno::EINVAL && told.contains("option") && told.contains(&disk.0), "{told}");

    // Recognised, but damaged behind the magic number.
    let file = fs::OpenOptions::new().write(true).open(&disk.0).unwrap();
    file.write_all_at(&[0xff; 64], 1024 + 8).unwrap();
    file.sync_all().unwrap();
    let (errno, told) = mount("ext4", "", true).unwrap_err();
    assert!(matches!(errno, Errno::EINVAL | Errno::EUCLEAN | Errno::EBADMSG), "{errno} {told}");
    assert!(told.contains("damaged"), "{told}");

    // Nothing on it that anyone knows.
    file.write_all_at(&[0; 8192], 0).unwrap();
    file.sync_all().unwrap();
    assert!(mount("", "", true).is_err());
    assert!(fs::read_to_string("/proc/self/mounts").unwrap().lines().all(|l| !l.contains("root-mount")));
}
