//! The places that `fw_env.config` names: files, block devices, flash, UBI volumes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::sys::flags::is_read_only;
use crate::sys::flash::{MLC_NAND, Mtd, NAND, NOR, Volume, attach};
use crate::sys::medium::{FileMedium, MediumError};

use super::config::Place;
use super::flash::{FlashSeat, Geometry, Unfit};
use super::pair::Scheme;
use super::seat::Seat;
use super::store::Error;

/// UBI has no more devices.
const MAX_UBI: i32 = 32;
/// A UBI device has no more volumes.
const MAX_VOLUMES: i32 = 128;

/// A place, whatever kind it is.
pub struct Device(Box<dyn Seat<Error = MediumError>>);

/// A UBI volume as the place of one copy.
struct VolumeSeat {
    volume: Volume,
    size: usize,
    /// The image fits into one block, which UBI can change in one step.
    one_block: bool,
}

/// A place that is open.
pub struct Opened {
    /// The place.
    pub device: Device,
    /// It can be written.
    pub writable: bool,
    /// The real path of its device.
    path: PathBuf,
    /// Where in the device it begins and ends, in bytes.
    range: (u64, u64),
}

impl Opened {
    /// Opens a place, for writing too where that is wanted and possible.
    ///
    /// # Errors
    /// When its device cannot be used, or has no such place.
    pub fn open(place: &Place<'_>, write: bool) -> Result<Opened, Error> {
        let failed = |e| Error::Device(place.device.into(), e);
        // The real path, so that two names of one device are known as one.
        let path = match place.device.split_once(':') {
            Some((device, volume)) if !Path::new(place.device).exists() => named_volume(device, volume),
            _ => fs::canonicalize(place.device),
        };
        let path = path.map_err(failed)?;
        let kind = fs::metadata(&path).map_err(failed)?.file_type();
        let is_called =
            |prefix| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix));
        if kind.is_file() || kind.is_block_device() {
            Opened::bytes(place, path, write)
        } else if kind.is_char_device() && is_called(b"mtd") {
            Opened::flash(place, path, write)
        } else if kind.is_char_device() && is_called(b"ubi") {
            Opened::volume(place, path, write)
        } else if kind.is_char_device() {
            Err(Error::CharacterDevice(path))
        } else {
            Err(failed(ErrorKind::InvalidInput.into()))
        }
    }

    /// Whether two places share bytes.
    pub fn overlaps(&self, other: &Opened) -> bool {
        self.path == other.path && self.range.0 < other.range.1 && other.range.0 < self.range.1
    }

    fn bytes(place: &Place<'_>, path: PathBuf, write: bool) -> Result<Opened, Error> {
        let failed = |e| Error::Device(place.device.into(), e);
        let both = write.then(|| OpenOptions::new().read(true).write(true).open(&path).ok()).flatten();
        let both = both.filter(|file| !is_read_only(file));
        let writable = both.is_some();
        let mut file = match both {
            Some(file) => file,
            None => File::open(&path).map_err(failed)?,
        };
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let size = place.size as u64;
        let offset = start(place, &path, length)?;
        let device = Device::over(FileMedium::over(file, &path, offset, size));
        Ok(Opened { device, writable, path, range: (offset, offset + size) })
    }

    fn flash(place: &Place<'_>, path: PathBuf, write: bool) -> Result<Opened, Error> {
        let (mut mtd, writable) =
            opened(write, |w| Mtd::open(&path, w)).map_err(|e| Error::Device(path.clone(), e))?;
        let kind = mtd.kind();
        if ![NOR, NAND, MLC_NAND].contains(&kind) {
            return Err(Error::FlashKind(path, kind));
        }
        mtd.locking = !place.disable_lock;
        let geometry = Geometry {
            offset: start(place, &path, mtd.length)?,
            size: place.size,
            sector: if place.sector == 0 { mtd.sector() } else { place.sector },
            sectors: place.sectors,
            page: mtd.page(),
            boolean: kind == NOR,
            rewritable: mtd.is_rewritable(),
            length: mtd.length,
        };
        let unfit = |e: Unfit<MediumError>| Error::Flash(path.clone(), e);
        let range = geometry.range().map_err(unfit)?;
        let device = Device::over(FlashSeat::over(mtd, geometry).map_err(unfit)?);
        Ok(Opened { device, writable, path, range })
    }

    fn volume(place: &Place<'_>, path: PathBuf, write: bool) -> Result<Opened, Error> {
        let (volume, writable) =
            opened(write, |w| Volume::open(&path, w)).map_err(|e| Error::Device(path.clone(), e))?;
        let about = |what: &str| {
            let name = path.file_name().unwrap_or_default();
            fs::read_to_string(Path::new("/sys/class/ubi").join(name).join(what)).unwrap_or_default()
        };
        let number = |what| about(what).trim().parse::<u64>().unwrap_or(0);
        let (size, block) = (place.size as u64, number("usable_eb_size"));
        let length = block.saturating_mul(number("reserved_ebs"));
        // Without a sysfs nobody knows, and UBI refuses by itself.
        if length != 0 && size > length {
            return Err(Error::Outside { path, offset: 0, size: place.size, length });
        }
        let one_block = size <= block && about("type").trim() == "dynamic";
        let device = Device::over(VolumeSeat { volume, size: place.size, one_block });
        Ok(Opened { device, writable, path, range: (0, u64::MAX) })
    }
}

/// Opens for writing, or for reading only where that is not wanted or refused. Tells whether it can be written.
fn opened<T>(write: bool, open: impl Fn(bool) -> io::Result<T>) -> io::Result<(T, bool)> {
    match open(write) {
        Ok(opened) => Ok((opened, write)),
        Err(_) if write => open(false).map(|opened| (opened, false)),
        Err(e) => Err(e),
    }
}

/// The configured offset, from the device's beginning.
fn start(place: &Place<'_>, path: &Path, length: u64) -> Result<u64, Error> {
    let offset = if place.offset < 0 {
        length.checked_sub(place.offset.unsigned_abs())
    } else {
        Some(place.offset.unsigned_abs())
    };
    let inside = |o: &u64| o.checked_add(place.size as u64).is_some_and(|end| end <= length);
    let (path, offset_given) = (path.into(), place.offset);
    offset.filter(inside).ok_or(Error::Outside { path, offset: offset_given, size: place.size, length })
}

/// The device of the UBI volume called `volume` on `device`, which is a UBI device, or an MTD device that is attached to
/// UBI if it is not yet.
fn named_volume(device: &str, volume: &str) -> io::Result<PathBuf> {
    let path = fs::canonicalize(device)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = |prefix| name.strip_prefix(prefix).and_then(|number| number.parse::<i32>().ok());
    let says = |of: String, wanted: &str| {
        fs::read_to_string(format!("/sys/class/ubi/{of}")).is_ok_and(|text| text.trim() == wanted)
    };
    let ubi = match (number("ubi"), number("mtd")) {
        (Some(ubi), _) => ubi,
        (None, Some(mtd)) => {
            let of = |ubi: &i32| says(format!("ubi{ubi}/mtd_num"), &mtd.to_string());
            (0..MAX_UBI).find(of).map_or_else(|| attach(mtd), Ok)?
        }
        (None, None) => return Err(ErrorKind::InvalidInput.into()),
    };
    let of = |number: &i32| says(format!("ubi{ubi}_{number}/name"), volume);
    let found = (0..MAX_VOLUMES).find(of).ok_or(ErrorKind::NotFound)?;
    Ok(path.with_file_name(format!("ubi{ubi}_{found}")))
}

impl Seat for VolumeSeat {
    type Error = MediumError;

    fn size(&self) -> u64 {
        self.size as u64
    }

    fn is_atomic(&self) -> bool {
        self.one_block
    }

    fn read(&mut self) -> Result<Vec<u8>, MediumError> {
        self.volume.read(self.size)
    }

    fn write(&mut self, image: &[u8]) -> Result<(), MediumError> {
        // An update that was cut ends with another one only.
        if self.one_block && !self.volume.is_torn() {
            self.volume.change_block(image)
        } else {
            self.volume.update(image)
        }
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.volume.sync()
    }
}

impl Device {
    fn over(seat: impl Seat<Error = MediumError> + 'static) -> Self {
        Device(Box::new(seat))
    }
}

impl Seat for Device {
    type Error = MediumError;

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn scheme(&self) -> Scheme {
        self.0.scheme()
    }

    fn is_atomic(&self) -> bool {
        self.0.is_atomic()
    }

    fn read(&mut self) -> Result<Vec<u8>, MediumError> {
        self.0.read()
    }

    fn write(&mut self, image: &[u8]) -> Result<(), MediumError> {
        self.0.write(image)
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        self.0.flush()
    }

    fn retire(&mut self) -> Result<(), MediumError> {
        self.0.retire()
    }
}
