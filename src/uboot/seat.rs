//! Where one copy of the environment is kept, as the store sees it: bytes on a [`Medium`], sectors of flash
//! ([`super::flash`]), or a UBI volume.

use alloc::vec;
use alloc::vec::Vec;

use crate::storage::Medium;

use super::env::MAX_SIZE;
use super::pair::Scheme;

/// What every medium of bytes writes whole or not at all, in bytes.
const SECTOR: u64 = 512;

/// The place of one copy.
pub trait Seat {
    /// What can go wrong.
    type Error: core::fmt::Debug;

    /// Of the image, in bytes.
    fn size(&self) -> u64;

    /// How the flags of two copies in such places are ordered.
    fn scheme(&self) -> Scheme {
        Scheme::Incremental
    }

    /// Whether [`Seat::write`] leaves the old or the new image when the power is cut.
    fn is_atomic(&self) -> bool;

    /// The whole image. Fewer bytes than its size: the place itself knows that it was not written to the end.
    ///
    /// # Errors
    /// When the device refuses.
    fn read(&mut self) -> Result<Vec<u8>, Self::Error>;

    /// Puts a whole image there.
    ///
    /// # Errors
    /// When the device refuses.
    fn write(&mut self, image: &[u8]) -> Result<(), Self::Error>;

    /// Returns once the image is on the device itself.
    ///
    /// # Errors
    /// When the device could not promise that.
    fn flush(&mut self) -> Result<(), Self::Error>;

    /// Clears the flag of the image and touches nothing else; only where [`Scheme::Boolean`] rules.
    ///
    /// # Errors
    /// When the device refuses.
    fn retire(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl<M: Medium> Seat for M {
    type Error = M::Error;

    fn size(&self) -> u64 {
        self.len()
    }

    fn is_atomic(&self) -> bool {
        self.len() <= SECTOR
    }

    fn read(&mut self) -> Result<Vec<u8>, M::Error> {
        let mut image = vec![0; usize::try_from(self.len()).unwrap_or(MAX_SIZE).min(MAX_SIZE)];
        self.read_at(0, &mut image)?;
        Ok(image)
    }

    fn write(&mut self, image: &[u8]) -> Result<(), M::Error> {
        self.write_at(0, image)
    }

    fn flush(&mut self) -> Result<(), M::Error> {
        Medium::flush(self)
    }
}
