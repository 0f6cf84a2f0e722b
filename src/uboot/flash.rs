//! One copy of the environment in sectors of raw flash.
//!
//! As U-Boot's `fw_env.c` has it: the copy begins with a sector, bad sectors are passed over as long as the configured ones
//! last, and what is behind the image in its last sector is put back. A power cut loses that, and the image.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::storage::Flash;

use super::env::FLAG;
use super::pair::{OBSOLETE, Scheme};
use super::seat::Seat;

/// A larger sector is refused, in bytes.
pub const MAX_SECTOR: u64 = 16 << 20;
/// More sectors for one copy are refused.
pub const MAX_SECTORS: u64 = 4096;
/// A CRC that no image has but by a chance of one in 2³².
const SPOILT: [u8; 4] = [0; 4];

/// What the flash is like, and which part of it the copy has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Of the first sector, in bytes.
    pub offset: u64,
    /// Of the image, in bytes.
    pub size: usize,
    /// Of a sector, in bytes.
    pub sector: u64,
    /// Sectors that the copy may use, bad ones counted; 0: as many as it needs.
    pub sectors: u64,
    /// What is programmed at once, in bytes.
    pub page: usize,
    /// Two copies are told apart by the Boolean scheme: NOR flash.
    pub boolean: bool,
    /// A bit may be cleared in what is programmed already.
    pub rewritable: bool,
    /// Of the whole flash, in bytes.
    pub length: u64,
}

/// Why a copy cannot be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit<E> {
    /// The sector has no size that there is, or the copy too many of them.
    Sector(u64),
    /// It does not begin with a sector.
    Misaligned {
        /// As configured, in bytes.
        offset: u64,
        /// Of a sector, in bytes.
        sector: u64,
    },
    /// It needs more sectors than are configured.
    Sectors {
        /// That the image needs.
        needed: u64,
        /// That it may use.
        sectors: u64,
    },
    /// The sectors are not all inside the flash.
    Outside {
        /// Behind the last sector, in bytes.
        end: u64,
        /// Of the flash, in bytes.
        length: u64,
    },
    /// Too many of its sectors are marked bad.
    Bad {
        /// That the image needs.
        needed: u64,
        /// That are good.
        good: u64,
    },
    /// The device does not say which sectors are bad.
    Device(E),
}

impl<E: fmt::Display> fmt::Display for Unfit<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Sector(sector) => {
                write!(f, "sectors of {sector:#x} bytes, or that many of them, cannot be")
            }
            Unfit::Misaligned { offset, sector } => {
                write!(f, "offset {offset:#x} is not the beginning of a sector of {sector:#x} bytes")
            }
            Unfit::Sectors { needed, sectors } => {
                write!(f, "the environment needs {needed} sectors and has {sectors}")
            }
            Unfit::Outside { end, length } => {
                write!(f, "its sectors end at {end:#x}, the flash at {length:#x}")
            }
            Unfit::Bad { needed, good } => {
                write!(f, "the environment needs {needed} sectors and only {good} of its own are not bad")
            }
            Unfit::Device(e) => e.fmt(f),
        }
    }
}

impl Geometry {
    /// The sectors that the image needs.
    fn needed(&self) -> u64 {
        (self.size as u64).div_ceil(self.sector)
    }

    /// Where the sectors that the copy may use begin and end, in bytes.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn range<E>(&self) -> Result<(u64, u64), Unfit<E>> {
        let Geometry { offset, sector, sectors, length, .. } = *self;
        let page = self.page as u64;
        if sector == 0 || sector > MAX_SECTOR || sectors > MAX_SECTORS || page == 0 || sector % page != 0 {
            return Err(Unfit::Sector(sector));
        }
        if offset % sector != 0 {
            return Err(Unfit::Misaligned { offset, sector });
        }
        let needed = self.needed();
        let sectors = if sectors == 0 { needed } else { sectors };
        if needed > sectors {
            return Err(Unfit::Sectors { needed, sectors });
        }
        let end = offset.saturating_add(sectors.saturating_mul(sector));
        if end > length { Err(Unfit::Outside { end, length }) } else { Ok((offset, end)) }
    }
}

/// A copy in flash.
#[derive(Debug)]
pub struct FlashSeat<F> {
    flash: F,
    geometry: Geometry,
    /// Where the sectors begin that hold the image.
    sectors: Vec<u64>,
}

impl<F: Flash> FlashSeat<F> {
    /// Finds the sectors that the copy is in.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn over(mut flash: F, geometry: Geometry) -> Result<Self, Unfit<F::Error>> {
        let (start, end) = geometry.range()?;
        let needed = geometry.needed();
        let (mut at, mut sectors) = (start, Vec::new());
        while at < end && (sectors.len() as u64) < needed {
            if !flash.is_bad(at).map_err(Unfit::Device)? {
                sectors.push(at);
            }
            at += geometry.sector;
        }
        let good = sectors.len() as u64;
        if good < needed {
            Err(Unfit::Bad { needed, good })
        } else {
            Ok(FlashSeat { flash, geometry, sectors })
        }
    }

    /// What is behind the image in its last sector, without the erased end.
    fn behind(&mut self) -> Result<Vec<u8>, F::Error> {
        let sector = self.geometry.sector;
        let Some((last, before)) = self.sectors.split_last() else { return Ok(Vec::new()) };
        let used = (self.geometry.size as u64).saturating_sub(before.len() as u64 * sector);
        let mut rest = vec![0; usize::try_from(sector - used).unwrap_or(0)];
        self.flash.read_at(last + used, &mut rest)?;
        rest.truncate(rest.iter().rposition(|&b| b != 0xFF).map_or(0, |last| last + 1));
        Ok(rest)
    }

    fn replace(&mut self, image: &[u8]) -> Result<(), F::Error> {
        let behind = self.behind()?;
        let mut content = image.to_vec();
        content.extend(&behind);
        content.resize(content.len().next_multiple_of(self.geometry.page), 0xFF);
        let sector = self.geometry.sector;
        if let Some(first) =
            self.sectors.first().filter(|_| self.geometry.boolean && self.geometry.rewritable)
        {
            // A cut in an erasure may leave all of the image but a flag that was 0 and is 1 by then, and an old
            // environment would count again. Linux' UBI has the same remedy for NOR (nor_erase_prepare).
            self.flash.program(*first, &SPOILT)?;
        }
        for at in &self.sectors {
            self.flash.erase(*at, sector)?;
        }
        for (at, part) in
            self.sectors.iter().zip(content.chunks(usize::try_from(sector).unwrap_or(usize::MAX)))
        {
            self.flash.program(*at, part)?;
        }
        // The image itself is compared by the store.
        if self.behind()? == behind { Ok(()) } else { Err(self.flash.damaged(self.geometry.offset)) }
    }

    /// Does it with the write protection off, and puts that back whatever came of it.
    fn unlocked<T>(&mut self, mut act: impl FnMut(&mut Self) -> T) -> T {
        let sector = self.geometry.sector;
        let locked: Vec<u64> =
            self.sectors.iter().copied().filter(|at| self.flash.unlock(*at, sector)).collect();
        let done = act(self);
        for at in locked {
            self.flash.lock(at, sector);
        }
        done
    }
}

impl<F: Flash> Seat for FlashSeat<F> {
    type Error = F::Error;

    fn size(&self) -> u64 {
        self.geometry.size as u64
    }

    fn scheme(&self) -> Scheme {
        if self.geometry.boolean { Scheme::Boolean } else { Scheme::Incremental }
    }

    fn is_atomic(&self) -> bool {
        false
    }

    fn read(&mut self) -> Result<Vec<u8>, F::Error> {
        let mut image = vec![0; self.geometry.size];
        let sector = usize::try_from(self.geometry.sector).unwrap_or(usize::MAX);
        for (at, part) in self.sectors.iter().zip(image.chunks_mut(sector)) {
            self.flash.read_at(*at, part)?;
        }
        Ok(image)
    }

    fn write(&mut self, image: &[u8]) -> Result<(), F::Error> {
        self.unlocked(|seat| seat.replace(image))
    }

    fn flush(&mut self) -> Result<(), F::Error> {
        Ok(())
    }

    fn retire(&mut self) -> Result<(), F::Error> {
        let Some(first) = self.sectors.first().copied() else { return Ok(()) };
        self.unlocked(|seat| seat.flash.program(first + FLAG as u64, &[OBSOLETE]))
    }
}
