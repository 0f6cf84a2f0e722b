//! Disk images with one or two file systems, their loop devices and mounts.
#![allow(unsafe_code, reason = "the ioctls of loop devices")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A kind of file system, by its name in `mount -t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The journal is a file; metadata goes to its place within seconds.
    Ext4,
    /// As images for older bootloaders have it: no checksums, neither of metadata nor in the journal, no 64-bit block
    /// numbers, and blocks of 1 KiB, so that one write carries less.
    Ext4Plain,
    /// The log is read by nobody but the kernel; metadata goes to its place when it must.
    Xfs,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Ext4Plain => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// What its mount options must say here: several copies of a disk are mounted at a time.
    pub fn options(self) -> Option<&'static str> {
        match self {
            Kind::Ext4 | Kind::Ext4Plain => None,
            Kind::Xfs => Some("nouuid"),
        }
    }

    /// The mount options of a reader without a journal.
    fn unreplayed(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Ext4Plain => "noload",
            Kind::Xfs => "nouuid,norecovery",
        }
    }

    /// The program that makes one, and its arguments. All of it is there from the start, so that no kernel thread writes
    /// on its own during a recording.
    fn maker(self) -> Vec<&'static str> {
        let ext4 =
            ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"];
        let kind: &[_] = match self {
            Kind::Ext4 => &["-b", "4096"],
            Kind::Ext4Plain => &["-b", "1024", "-O", "^metadata_csum,^64bit"],
            // It makes none as small as ours without being told.
            Kind::Xfs => return vec!["mkfs.xfs", "-q", "-f", "-K", "--unsupported"],
        };
        [&ext4, kind].concat()
    }
}

/// A file system on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is.
    pub kind: Kind,
    /// Its label.
    pub label: &'static str,
    /// Where it is mounted in the sysroot.
    pub at: &'static str,
    /// Its first byte on the disk.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

const MIB: u64 = 1 << 20;

/// Which file systems there are, the root first. All on one disk, so that there is one order of writes.
pub type Layout = &'static [Partition];

/// `/boot` is a directory of the root.
pub const ONE: Layout = &[ROOT];
/// The same on xfs.
pub const ONE_XFS: Layout = &[Partition { kind: Kind::Xfs, ..ROOT }];
/// `/boot` is a file system of its own.
pub const TWO: Layout = &[ROOT, BOOT];
/// [`ONE`] and [`TWO`], for older bootloaders.
pub const ONE_PLAIN: Layout = &[Partition { kind: Kind::Ext4Plain, ..ROOT }];
/// See [`ONE_PLAIN`].
pub const TWO_PLAIN: Layout =
    &[Partition { kind: Kind::Ext4Plain, ..ROOT }, Partition { kind: Kind::Ext4Plain, ..BOOT }];
const BOOT: Partition =
    Partition { kind: Kind::Ext4, label: "otaboot", at: "boot", start: 64 * MIB, size: 48 * MIB };
const ROOT: Partition = Partition { kind: Kind::Ext4, label: "otaroot", at: "", start: 0, size: 64 * MIB };

/// Bytes of the whole disk.
pub fn size(layout: Layout) -> u64 {
    layout.iter().map(|p| p.start + p.size).max().unwrap_or(0)
}

/// A loop device of one partition. Goes with its value.
#[derive(Debug)]
pub struct Loop {
    device: File,
    /// Its node.
    pub node: PathBuf,
}

const LOOP_CTL_GET_FREE: libc::c_int = 0x4c82;
const LOOP_CLR_FD: libc::c_int = 0x4c01;
const LOOP_CONFIGURE: libc::c_int = 0x4c0a;
/// `struct loop_config` of linux/loop.h: the file, the block size, `struct loop_info64`, and room.
const CONFIG: usize = 304;

impl Loop {
    /// Makes a loop device of `partition` of `image`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(image: &Path, partition: &Partition) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(image)?;
        let control = File::open("/dev/loop-control")?;
        let mut config = [0u8; CONFIG];
        config[0..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
        // In loop_info64: lo_offset and lo_sizelimit.
        config[8 + 24..8 + 32].copy_from_slice(&partition.start.to_ne_bytes());
        config[8 + 32..8 + 40].copy_from_slice(&partition.size.to_ne_bytes());
        for _ in 0..1000 {
            // SAFETY: this request takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
            let number = Errno::result(number)?;
            let node = PathBuf::from(format!("/dev/loop{number}"));
            if !node.exists() {
                let device = nix::sys::stat::makedev(7, number as u64);
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o660);
                match nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFBLK, mode, device) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            let device =
                OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&node)?;
            // SAFETY: the kernel reads a loop_config, and the array is one.
            let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, config.as_ptr()) };
            match Errno::result(done) {
                Ok(_) => return Ok(Loop { device, node }),
                // Somebody else was faster.
                Err(Errno::EBUSY) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(io::Error::other("no loop device is free"))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // SAFETY: this request takes no argument.
        unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD as _) };
    }
}

/// A disk whose file systems are mounted below one directory.
#[derive(Debug)]
pub struct Mounted {
    /// The directory.
    pub at: PathBuf,
    mounts: Vec<PathBuf>,
    loops: Vec<Loop>,
}

/// How to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As Linux does: the journal is replayed, and writing is possible.
    Linux,
    /// As a bootloader that knows nothing of the journal.
    Bootloader,
}

impl Mounted {
    /// Mounts all of the disk in `image` at `at`.
    ///
    /// # Errors
    /// The kernel's, of the first file system that cannot be mounted.
    pub fn new(image: &Path, layout: Layout, at: &Path, view: View) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let mut disk = Mounted { at: at.into(), mounts: Vec::new(), loops: Vec::new() };
        for partition in layout {
            let device = Loop::new(image, partition)?;
            let target = at.join(partition.at);
            let (flags, data) = match view {
                View::Linux => (MsFlags::empty(), partition.kind.options()),
                View::Bootloader => (MsFlags::MS_RDONLY, Some(partition.kind.unreplayed())),
            };
            mount(Some(&device.node), &target, Some(partition.kind.name()), flags, data)
                .map_err(|e| io::Error::other(format!("mount {}: {}", partition.label, e.desc())))?;
            disk.mounts.push(target);
            disk.loops.push(device);
        }
        Ok(disk)
    }

    /// Unmounts it, everything written.
    ///
    /// # Errors
    /// The kernel's.
    pub fn close(mut self) -> io::Result<()> {
        while let Some(target) = self.mounts.pop() {
            unmount(&target)?;
        }
        Ok(())
    }
}

/// Another worker may be between fork and exec, where its child has a copy of every open file of ours.
fn unmount(target: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match umount2(target, MntFlags::empty()) {
            Err(Errno::EBUSY) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
            done => {
                return done
                    .map_err(|e| io::Error::other(format!("umount {}: {}", target.display(), e.desc())));
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        while let Some(target) = self.mounts.pop() {
            let _ = umount2(&target, MntFlags::MNT_DETACH);
        }
    }
}

/// A copy of a sparse file, holes kept.
///
/// # Errors
/// The kernel's.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while let Some(start) = seek(&from, at, libc::SEEK_DATA)? {
        let end = seek(&from, start, libc::SEEK_HOLE)?.unwrap_or(size);
        at = start;
        while at < end {
            let part = buffer.len().min((end - at) as usize);
            from.read_exact_at(&mut buffer[..part], at)?;
            to.write_all_at(&buffer[..part], at)?;
            at += part as u64;
        }
    }
    Ok(())
}

fn seek(file: &File, at: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    // SAFETY: no memory is involved.
    match Errno::result(unsafe { libc::lseek(file.as_raw_fd(), at as libc::off_t, whence) }) {
        Ok(at) => Ok(Some(at as u64)),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A partition of the disk in a file of its own, its zeros as holes.
///
/// # Errors
/// The kernel's.
pub fn extract(image: &Path, partition: &Partition, to: &Path) -> io::Result<()> {
    let (from, to) = (File::open(image)?, File::create(to)?);
    to.set_len(partition.size)?;
    let mut buffer = vec![0; 64 << 10];
    for at in (0..partition.size).step_by(buffer.len()) {
        from.read_exact_at(&mut buffer, partition.start + at)?;
        if buffer.iter().any(|&byte| byte != 0) {
            to.write_all_at(&buffer, at)?;
        }
    }
    Ok(())
}

/// Makes the file systems of `layout` on a new image.
///
/// # Errors
/// When the tool for it fails.
pub fn format(image: &Path, layout: Layout) -> io::Result<()> {
    File::create(image)?.set_len(size(layout))?;
    for partition in layout {
        let device = Loop::new(image, partition)?;
        let maker = partition.kind.maker();
        let mut make = std::process::Command::new(maker[0]);
        super::tools::run(make.args(&maker[1..]).args(["-L", partition.label]).arg(&device.node))?;
    }
    // The mount points of the others are directories of the root.
    let scratch = image.with_extension("mount");
    let root = Mounted::new(image, &layout[..1], &scratch, View::Linux)?;
    for partition in &layout[1..] {
        fs::create_dir(root.at.join(partition.at))?;
    }
    root.close()?;
    fs::remove_dir(scratch)
}
