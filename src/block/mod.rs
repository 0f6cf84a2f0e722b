//! Block devices: naming a root, recognising file systems and partitions, waiting for a device.
//!
//! [`spec`], [`superblock`] and [`partition`] are pure; [`find`] asks the kernel, [`uevent`] sleeps until it
//! has news, [`root`] mounts.

pub mod partition;
pub mod spec;
pub mod superblock;

#[cfg(not(target_os = "none"))]
pub mod find;
#[cfg(not(target_os = "none"))]
pub mod root;
#[cfg(not(target_os = "none"))]
pub mod uevent;

/// Reads bytes of a device at an offset; `None` past the end or on an error. Probing treats both alike.
pub trait ReadAt {
    /// Fills the buffer from the offset.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Option<()>;
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        let start = usize::try_from(offset).ok()?;
        buffer.copy_from_slice(self.get(start..start.checked_add(buffer.len())?)?);
        Some(())
    }
}

/// Little-endian and big-endian fields of an on-disk structure; 0 where it is too short.
pub(crate) mod field {
    pub fn bytes<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
        data.get(at..).and_then(|d| d.first_chunk()).copied().unwrap_or([0; N])
    }
    pub fn le16(data: &[u8], at: usize) -> u16 {
        u16::from_le_bytes(bytes(data, at))
    }
    pub fn le32(data: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes(data, at))
    }
    pub fn le64(data: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes(data, at))
    }
}
