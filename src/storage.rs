//! The seam between what we keep on disk and the disk: a medium of bytes that can be flushed.
//!
//! The U-Boot environment and the boot ledger are both a handful of fixed places on a medium. Their logic
//! is written against [`Medium`]; the device puts a file or a block device behind it, the tests a disk
//! that loses power at every byte.

/// A durable medium of a fixed length, addressed by byte.
pub trait Medium {
    /// What can go wrong; carries path, offset and errno on a real device.
    type Error: core::fmt::Debug;

    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When the range is not wholly inside the medium or the device refuses.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes `data` at `offset`. Until [`Medium::flush`] returns, a power cut may keep any part of it.
    ///
    /// # Errors
    /// When the range is not wholly inside the medium or the device refuses.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error>;

    /// Returns once everything written before is on the medium itself.
    ///
    /// # Errors
    /// When the device could not promise that; what was written must then be taken as lost.
    fn flush(&mut self) -> Result<(), Self::Error>;
}
