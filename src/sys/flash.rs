//! Raw flash as the kernel's MTD layer has it, and UBI volumes on it.
//!
//! Sources: mtd/mtd-abi.h, mtd/ubi-user.h and Documentation/ABI/stable/sysfs-class-ubi of Linux.
#![expect(unsafe_code, reason = "ioctls of mtd/mtd-abi.h and mtd/ubi-user.h that nix does not wrap")]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::storage::Flash;

use super::medium::MediumError;

/// `MTD_NORFLASH`.
pub const NOR: u8 = 3;
/// `MTD_NANDFLASH`.
pub const NAND: u8 = 4;
/// `MTD_MLCNANDFLASH`.
pub const MLC_NAND: u8 = 8;
/// `MTD_WRITEABLE`.
const WRITEABLE: u32 = 0x400;
/// `MTD_BIT_WRITEABLE`.
const BIT_WRITEABLE: u32 = 0x800;
/// `UBI_DEV_NUM_AUTO`.
const NUMBER_AUTO: i32 = -1;

/// `struct mtd_info_user`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Info {
    kind: u8,
    flags: u32,
    size: u32,
    erase_size: u32,
    write_size: u32,
    oob_size: u32,
    unused: u64,
}

/// `struct erase_info_user`.
#[repr(C)]
struct Range32 {
    start: u32,
    length: u32,
}

/// `struct erase_info_user64`.
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
}

/// `struct ubi_leb_change_req`.
#[repr(C)]
struct BlockChange {
    block: i32,
    bytes: i32,
    kind: i8,
    unused: [i8; 7],
}

/// `struct ubi_attach_req`.
#[repr(C)]
struct Attach {
    number: i32,
    mtd: i32,
    header_offset: i32,
    unused: [i8; 12],
}

nix::ioctl_read!(
    /// `MEMGETINFO`.
    memgetinfo,
    b'M',
    1,
    Info
);
nix::ioctl_write_ptr!(
    /// `MEMLOCK`.
    memlock,
    b'M',
    5,
    Range32
);
nix::ioctl_write_ptr!(
    /// `MEMUNLOCK`.
    memunlock,
    b'M',
    6,
    Range32
);
nix::ioctl_write_ptr!(
    /// `MEMGETBADBLOCK`.
    memgetbadblock,
    b'M',
    11,
    i64
);
nix::ioctl_write_ptr!(
    /// `MEMERASE64`.
    memerase64,
    b'M',
    20,
    Range
);
nix::ioctl_write_ptr_bad!(
    /// `MEMISLOCKED`. Its number says that the kernel writes the range, but it reads it.
    memislocked,
    nix::request_code_read!(b'M', 23, size_of::<Range32>()),
    Range32
);
nix::ioctl_write_ptr!(
    /// `UBI_IOCVOLUP`.
    ubi_iocvolup,
    b'O',
    0,
    i64
);
nix::ioctl_write_ptr_bad!(
    /// `UBI_IOCEBCH`.
    ubi_iocebch,
    nix::request_code_write!(b'O', 2, size_of::<i32>()),
    BlockChange
);
nix::ioctl_readwrite_bad!(
    /// `UBI_IOCATT`. Its number does not say that the kernel writes, but it writes the number that it chose.
    ubi_iocatt,
    nix::request_code_write!(b'o', 64, size_of::<Attach>()),
    Attach
);

/// An MTD character device.
#[derive(Debug)]
pub struct Mtd {
    file: File,
    path: PathBuf,
    info: Info,
    /// In bytes.
    pub length: u64,
    /// Whether the write protection of its sectors is taken off and put back.
    pub locking: bool,
}

impl Mtd {
    /// Opens it, for writing too if `writable`.
    ///
    /// # Errors
    /// When it cannot be opened or is no MTD device.
    pub fn open(path: &Path, writable: bool) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(writable).open(path)?;
        let mut info = Info::default();
        // SAFETY: the descriptor is open for the call, and the kernel writes one structure, which `info` is.
        unsafe { memgetinfo(file.as_raw_fd(), &mut info) }?;
        if writable && info.flags & WRITEABLE == 0 {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        // The size in `info` ends at 4 GiB.
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Mtd { file, path: path.into(), info, length, locking: true })
    }

    /// The kind of flash, as mtd/mtd-abi.h numbers it.
    pub fn kind(&self) -> u8 {
        self.info.kind
    }

    /// Of a sector, in bytes; of the largest one where there are several sizes.
    pub fn sector(&self) -> u64 {
        self.info.erase_size.into()
    }

    /// What is programmed at once, in bytes.
    pub fn page(&self) -> usize {
        usize::try_from(self.info.write_size).unwrap_or(0).max(1)
    }

    /// Whether a bit may be cleared in what is programmed already.
    pub fn is_rewritable(&self) -> bool {
        self.info.flags & BIT_WRITEABLE != 0
    }

    fn failed(&self, step: &'static str, offset: u64, error: impl Into<io::Error>) -> MediumError {
        MediumError { path: self.path.clone(), step, offset, error: error.into() }
    }

    /// The kernel takes no larger places for these.
    fn narrow(&self, offset: u64, length: u64) -> Option<Range32> {
        Some(Range32 { start: offset.try_into().ok()?, length: length.try_into().ok()? })
    }
}

impl Flash for Mtd {
    type Error = MediumError;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), MediumError> {
        self.file.read_exact_at(buffer, offset).map_err(|e| self.failed("read", offset, e))
    }

    fn is_bad(&mut self, offset: u64) -> Result<bool, MediumError> {
        if self.info.kind == NOR {
            return Ok(false);
        }
        let place = i64::try_from(offset).unwrap_or(i64::MAX);
        // SAFETY: the descriptor is open for the call, and the kernel reads one 64-bit number, which `place` is.
        let bad = unsafe { memgetbadblock(self.file.as_raw_fd(), &place) };
        bad.map(|bad| bad != 0).map_err(|e| self.failed("ask about a bad block of", offset, e))
    }

    fn erase(&mut self, offset: u64, length: u64) -> Result<(), MediumError> {
        let range = Range { start: offset, length };
        // SAFETY: the descriptor is open for the call, and the kernel reads one structure, which `range` is.
        let erased = unsafe { memerase64(self.file.as_raw_fd(), &range) };
        erased.map(drop).map_err(|e| self.failed("erase", offset, e))
    }

    fn program(&mut self, offset: u64, data: &[u8]) -> Result<(), MediumError> {
        self.file.write_all_at(data, offset).map_err(|e| self.failed("write", offset, e))
    }

    fn unlock(&mut self, offset: u64, length: u64) -> bool {
        let Some(range) = self.narrow(offset, length).filter(|_| self.locking) else { return false };
        let device = self.file.as_raw_fd();
        // SAFETY: the descriptor is open for the calls, and the kernel reads one structure, which `range` is.
        unsafe {
            // Where nobody knows whether it is locked, what can be unlocked is taken to have been.
            memislocked(device, &range) != Ok(0) && memunlock(device, &range).is_ok()
        }
    }

    fn lock(&mut self, offset: u64, length: u64) {
        let Some(range) = self.narrow(offset, length) else { return };
        // SAFETY: the descriptor is open for the call, and the kernel reads one structure, which `range` is.
        if let Err(e) = unsafe { memlock(self.file.as_raw_fd(), &range) } {
            log::warn!("{}", self.failed("lock", offset, e));
        }
    }

    fn damaged(&self, offset: u64) -> MediumError {
        self.failed("compare", offset, ErrorKind::InvalidData)
    }
}

/// A UBI volume.
#[derive(Debug)]
pub struct Volume {
    file: File,
    path: PathBuf,
    /// It said that its last update was cut.
    torn: bool,
}

impl Volume {
    /// Opens it, for writing too if `writable`.
    ///
    /// # Errors
    /// When it cannot be opened; only one may write to it at a time.
    pub fn open(path: &Path, writable: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(writable).open(path)?;
        Ok(Volume { file, path: path.into(), torn: false })
    }

    fn failed(&self, step: &'static str, error: impl Into<io::Error>) -> MediumError {
        MediumError { path: self.path.clone(), step, offset: 0, error: error.into() }
    }

    /// The first `size` bytes, or fewer: none where the last update was cut.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn read(&mut self, size: usize) -> Result<Vec<u8>, MediumError> {
        let mut content = Vec::new();
        let read = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| (&self.file).take(size as u64).read_to_end(&mut content));
        self.torn = read.as_ref().is_err_and(|e| e.raw_os_error() == Some(Errno::EBADF as i32));
        match read {
            Ok(_) => Ok(content),
            Err(_) if self.torn => Ok(Vec::new()),
            Err(e) => Err(self.failed("read", e)),
        }
    }

    /// Whether [`Volume::read`] found that the last update was cut.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Puts `content` in the place of everything in the volume. A cut leaves a volume that says that it is torn.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn update(&mut self, content: &[u8]) -> Result<(), MediumError> {
        let bytes = i64::try_from(content.len()).unwrap_or(i64::MAX);
        // SAFETY: the descriptor is open for the call, and the kernel reads one 64-bit number, which `bytes` is.
        unsafe { ubi_iocvolup(self.file.as_raw_fd(), &bytes) }.map_err(|e| self.failed("update", e))?;
        self.file.write_all(content).map_err(|e| self.failed("write", e))
    }

    /// Puts `content` in the place of the volume's first block. A cut leaves the old block or the new one.
    ///
    /// # Errors
    /// When it does not fit into a block, the volume is static, or the device refuses.
    pub fn change_block(&mut self, content: &[u8]) -> Result<(), MediumError> {
        let bytes = i32::try_from(content.len()).unwrap_or(i32::MAX);
        let change = BlockChange { block: 0, bytes, kind: 0, unused: [0; 7] };
        // SAFETY: the descriptor is open for the call, and the kernel reads one structure, which `change` is.
        unsafe { ubi_iocebch(self.file.as_raw_fd(), &change) }.map_err(|e| self.failed("change", e))?;
        self.file.write_all(content).map_err(|e| self.failed("write", e))
    }

    /// Returns once everything written before is on the flash itself.
    ///
    /// # Errors
    /// When the device could not promise that.
    pub fn sync(&mut self) -> Result<(), MediumError> {
        self.file.sync_data().map_err(|e| self.failed("sync", e))
    }
}

/// Attaches an MTD device to UBI and returns the number of the UBI device.
///
/// # Errors
/// `ENOENT` where the kernel has no UBI; else the kernel's reason.
pub fn attach(mtd: i32) -> io::Result<i32> {
    let control = File::open("/dev/ubi_ctrl")?;
    let mut request = Attach { number: NUMBER_AUTO, mtd, header_offset: 0, unused: [0; 12] };
    // SAFETY: the descriptor is open for the call, and the kernel reads and writes one structure, which `request` is.
    unsafe { ubi_iocatt(control.as_raw_fd(), &mut request) }?;
    Ok(request.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Info>(), size_of::<BlockChange>(), size_of::<Attach>()), (32, 16, 24));
    }
}
