//! The environment on a device: loaded with what was found, saved so that a power cut keeps the old or the
//! new one (with two copies; a single copy cannot promise that).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::policy::{BootState, Reading};
use crate::sys::medium::MediumError;

use super::config::{Config, ConfigError};
use super::device::{Device, Opened};
use super::env::{Edit, EditError, FLAG, Image, Kind, rewrite};
use super::flash::Unfit;
use super::pair::{Choice, Copy, OBSOLETE, Scheme, Slot, choose};
use super::seat::Seat;

/// libubootenv holds this while it works.
const LOCK: &str = "/var/lock/fw_printenv.lock";
/// Where `fw_printenv` looks, and we too.
pub const DEFAULT_CONFIG: &str = "/etc/fw_env.config";
/// A longer `fw_env.config` is refused, in bytes.
const MAX_CONFIG: u64 = 16 << 10;

/// What failed. `E` is the medium's own error.
#[derive(Debug)]
pub enum Error<E = MediumError> {
    /// `fw_env.config` cannot be read.
    ReadConfig(PathBuf, io::Error),
    /// `fw_env.config` is longer than 16 KiB.
    LongConfig(PathBuf),
    /// `fw_env.config` is wrong.
    Config(PathBuf, ConfigError),
    /// The device cannot be opened or measured.
    Device(PathBuf, io::Error),
    /// A character device that is neither flash nor a UBI volume.
    CharacterDevice(PathBuf),
    /// Flash of a kind that no environment is in, as mtd/mtd-abi.h numbers it.
    FlashKind(PathBuf, u8),
    /// The place does not fit the flash.
    Flash(PathBuf, Unfit<E>),
    /// The copies are in different kinds of places, in which their flags mean different things.
    Mixed,
    /// The place is not wholly inside the device.
    Outside {
        /// The device.
        path: PathBuf,
        /// As configured, in bytes.
        offset: i64,
        /// As configured, in bytes.
        size: usize,
        /// The device's length in bytes.
        length: u64,
    },
    /// The two copies share bytes.
    Overlap(PathBuf),
    /// The copies' media do not have one length that an environment can have, in bytes.
    Sizes(u64),
    /// No copy can be read; or, before a save, one of them cannot, so that nobody knows which one is newer.
    Read(E),
    /// The store was opened for reading, or the medium is read-only.
    ReadOnly,
    /// No copy is an environment, and nobody said to create one.
    NoEnvironment,
    /// The change makes no image.
    Edit(EditError),
    /// Writing failed; with two copies the old environment is still there.
    Write(E),
    /// The device did not promise that the write is durable.
    Flush(E),
    /// What was written cannot be read back.
    ReadBack(E),
    /// What was read back is not what was written.
    Differs(Slot),
    /// The new copy is whole, but this old one could not be marked obsolete.
    Retire(Slot, E),
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ReadConfig(path, e) => write!(f, "{}: {e}", path.display()),
            Error::LongConfig(path) => write!(f, "{}: longer than {MAX_CONFIG} bytes", path.display()),
            Error::Config(path, e) => write!(f, "{}: {e}", path.display()),
            Error::Device(path, e) => write!(f, "{}: {e}", path.display()),
            Error::CharacterDevice(path) => {
                write!(f, "{}: neither flash (/dev/mtdN) nor a UBI volume (/dev/ubiN_M)", path.display())
            }
            Error::FlashKind(path, kind) => {
                write!(f, "{}: MTD devices of type {kind} hold no environment; NOR and NAND do", path.display())
            }
            Error::Flash(path, e) => write!(f, "{}: {e}; check fw_env.config", path.display()),
            Error::Mixed => f.write_str("NOR flash and another device cannot hold the two copies of one environment"),
            Error::Outside { path, offset, size, length } => write!(
                f,
                "{}: {size:#x} bytes at offset {offset} are not inside its {length:#x} bytes; check fw_env.config",
                path.display()
            ),
            Error::Overlap(path) => write!(f, "{}: the two copies overlap; check fw_env.config", path.display()),
            Error::Sizes(size) => write!(f, "an environment of {size} bytes cannot be, or its copies differ in size"),
            Error::Read(e) => write!(f, "the environment cannot be read: {e}"),
            Error::ReadOnly => f.write_str("the environment is read-only; remount or unlock its device"),
            Error::NoEnvironment => f.write_str(
                "there is no valid environment to change; check offset and size in fw_env.config, or save it once from U-Boot",
            ),
            Error::Edit(e) => e.fmt(f),
            Error::Write(e) => write!(f, "the environment was not written: {e}"),
            Error::Flush(e) => write!(f, "the device does not promise that the environment is durable: {e}"),
            Error::ReadBack(e) => write!(f, "the written environment cannot be read back: {e}"),
            Error::Differs(slot) => {
                write!(f, "the {slot} copy is not what was written; the medium may be worn out")
            }
            Error::Retire(slot, e) => {
                write!(f, "the environment was written, but its {slot}, old copy is not marked obsolete: {e}")
            }
        }
    }
}

/// What was found when the environment was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// All copies are good.
    Good,
    /// This copy is not an environment; the other one is used.
    OneCopyCorrupt(Slot),
    /// This copy cannot be read; the other one is used.
    OneCopyUnreadable(Slot),
    /// The only copy is not an environment.
    Corrupt,
    /// Neither copy is an environment.
    BothCorrupt,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Good => f.write_str("the environment is good"),
            Condition::OneCopyCorrupt(slot) => {
                write!(f, "the {slot} copy of the environment is corrupt, the other one is used")
            }
            Condition::OneCopyUnreadable(slot) => {
                write!(f, "the {slot} copy of the environment cannot be read, the other one is used")
            }
            Condition::Corrupt => {
                f.write_str("the environment is corrupt (bad CRC, or wrong offset or size)")
            }
            Condition::BothCorrupt => {
                f.write_str("both copies of the environment are corrupt (bad CRC, or wrong offset or size)")
            }
        }
    }
}

/// The environment as it was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    bytes: Option<Vec<u8>>,
    kind: Kind,
    choice: Choice,
    /// The copy that does not count is whole, and not marked so.
    unmarked: bool,
    /// What was found.
    pub condition: Condition,
}

impl Loaded {
    /// The image that counts; `None` where no copy is an environment.
    pub fn image(&self) -> Option<Image<'_>> {
        self.bytes.as_deref().and_then(|b| Image::parse(b, self.kind).ok())
    }

    /// A variable's value.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.image().and_then(|i| i.get(name))
    }
}

/// An environment, with a place for each copy.
#[derive(Debug)]
pub struct Store<S = Device> {
    first: S,
    second: Option<S>,
    size: usize,
    writable: bool,
}

impl Store {
    /// Opens what a `fw_env.config` names, for writing too where that is possible; see
    /// [`Store::is_writable`].
    ///
    /// # Errors
    /// When the configuration is wrong or a device cannot be used.
    pub fn open(config_path: &Path) -> Result<Store, Error> {
        Store::open_as(config_path, true)
    }

    /// As [`Store::open`], but never for writing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_to_read(config_path: &Path) -> Result<Store, Error> {
        Store::open_as(config_path, false)
    }

    fn open_as(config_path: &Path, write: bool) -> Result<Store, Error> {
        let text = read_config(config_path)?;
        let config = Config::parse(&text).map_err(|e| Error::Config(config_path.into(), e))?;
        let first = Opened::open(&config.first, write)?;
        let second = config.second.map(|p| Opened::open(&p, write)).transpose()?;
        if second.as_ref().is_some_and(|s| s.overlaps(&first)) {
            return Err(Error::Overlap(config.first.device.into()));
        }
        let writable = first.writable && second.as_ref().is_none_or(|s| s.writable);
        Store::over(first.device, second.map(|s| s.device), writable)
    }
}

fn read_config(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |e| Error::ReadConfig(path.into(), e);
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_CONFIG + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_CONFIG { Err(Error::LongConfig(path.into())) } else { Ok(text) }
}

/// Keeps `fw_setenv` away while we work; where there is no such place, as in an initramfs, nobody is there
/// to keep away.
pub fn lock() -> Option<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(LOCK).ok()?;
    file.lock().ok()?;
    Some(file)
}

impl<S: Seat> Store<S> {
    /// A store over places that each hold exactly one copy.
    ///
    /// # Errors
    /// When they differ in size or kind, or have a size that no environment has.
    pub fn over(first: S, second: Option<S>, writable: bool) -> Result<Self, Error<S::Error>> {
        let length = first.size();
        if second.as_ref().is_some_and(|s| s.scheme() != first.scheme()) {
            return Err(Error::Mixed);
        }
        let size = usize::try_from(length).ok().filter(|s| (16..=super::env::MAX_SIZE).contains(s));
        match size {
            Some(size) if second.as_ref().is_none_or(|s| s.size() == length) => {
                Ok(Store { first, second, size, writable })
            }
            _ => Err(Error::Sizes(length)),
        }
    }

    /// Whether a write leaves the old or the new environment when the power is cut: there are two copies, or the only
    /// one is no larger than a sector, which media write whole or not at all (the state of `uboot/boot.cmd`), or in one
    /// block of a UBI volume.
    pub fn survives_cuts(&self) -> bool {
        self.second.is_some() || self.first.is_atomic()
    }

    /// Whether [`Store::save`] may be tried; asks nothing of the medium.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn kind(&self) -> Kind {
        if self.second.is_some() { Kind::Redundant } else { Kind::Single }
    }

    /// Reads all copies and chooses the one that counts.
    ///
    /// # Errors
    /// When no copy can be read. Copies that can be read but are not environments are no error but a
    /// [`Condition`].
    pub fn load(&mut self) -> Result<Loaded, Error<S::Error>> {
        self.load_copies(false)
    }

    fn load_copies(&mut self, all: bool) -> Result<Loaded, Error<S::Error>> {
        let kind = self.kind();
        let (first, a) = read(&mut self.first, self.size, kind);
        let Some(second) = &mut self.second else {
            let bytes = first.map_err(Error::Read)?;
            let good = matches!(a, Copy::Good { .. });
            let condition = if good { Condition::Good } else { Condition::Corrupt };
            // A single copy is always written in place.
            let choice = Choice {
                active: good.then_some(Slot::First),
                both_good: false,
                next: Slot::First,
                next_flag: 0,
            };
            return Ok(Loaded { bytes: good.then_some(bytes), kind, choice, unmarked: false, condition });
        };
        let (second, b) = read(second, self.size, kind);
        let scheme = self.first.scheme();
        let choice = choose(a, b, scheme);
        let idle = if choice.next == Slot::First { a } else { b };
        let unmarked =
            scheme == Scheme::Boolean && choice.both_good && !matches!(idle, Copy::Good { flag: OBSOLETE });
        let condition = match (a, b) {
            (Copy::Good { .. }, Copy::Good { .. }) => Condition::Good,
            (Copy::Good { .. }, Copy::BadCrc) => Condition::OneCopyCorrupt(Slot::Second),
            (Copy::BadCrc, Copy::Good { .. }) => Condition::OneCopyCorrupt(Slot::First),
            (Copy::Good { .. }, Copy::Unreadable) => Condition::OneCopyUnreadable(Slot::Second),
            (Copy::Unreadable, Copy::Good { .. }) => Condition::OneCopyUnreadable(Slot::First),
            _ => Condition::BothCorrupt,
        };
        let bytes = match (choice.active, first, second) {
            (None, Err(e), Err(_)) => return Err(Error::Read(e)),
            (_, Err(e), _) | (_, _, Err(e)) if all => return Err(Error::Read(e)),
            (Some(Slot::First), bytes, _) | (Some(Slot::Second), _, bytes) => bytes.ok(),
            (None, ..) => None,
        };
        Ok(Loaded { bytes, kind, choice, unmarked, condition })
    }

    /// Makes one logical change durable, in one image, and compares what the medium then holds.
    ///
    /// With two copies the new image goes into the inactive slot; the old one stays whole. A change that
    /// changes nothing of a good environment is not written.
    ///
    /// # Errors
    /// When there is no valid environment ([`Error::NoEnvironment`]), a copy cannot be read, the change does not fit, or the
    /// medium fails. After an error of the medium the old or the new environment is there (two copies).
    pub fn save(&mut self, edits: &[Edit<'_>]) -> Result<(), Error<S::Error>> {
        self.store(edits, false)
    }

    /// As [`Store::save`], but where no copy is an environment a new one is made that holds only `edits`.
    ///
    /// # Errors
    /// As [`Store::save`], without [`Error::NoEnvironment`].
    pub fn create(&mut self, edits: &[Edit<'_>]) -> Result<(), Error<S::Error>> {
        self.store(edits, true)
    }

    fn store(&mut self, edits: &[Edit<'_>], create: bool) -> Result<(), Error<S::Error>> {
        if !self.writable {
            return Err(Error::ReadOnly);
        }
        // A copy that cannot be read may be the newer one: a change of the other would silently undo it.
        let loaded = self.load_copies(true)?;
        let Choice { active, next, next_flag, .. } = loaded.choice;
        if active.is_none() && !create {
            return Err(Error::NoEnvironment);
        }
        let old = loaded.image().unwrap_or(Image::EMPTY);
        let mut new = vec![0; self.size];
        rewrite(&old, edits, loaded.kind, next_flag, &mut new).map_err(Error::Edit)?;
        let same =
            |i: Image<'_>| Image::parse(&new, loaded.kind).is_ok_and(|n| n.variables().eq(i.variables()));
        if loaded.condition == Condition::Good && loaded.image().is_some_and(same) {
            return if loaded.unmarked { self.retire(next) } else { Ok(()) };
        }
        let seat = self.seat(next);
        seat.write(&new).map_err(Error::Write)?;
        seat.flush().map_err(Error::Flush)?;
        if seat.read().map_err(Error::ReadBack)? != new {
            return Err(Error::Differs(next));
        }
        let marked = loaded.image().is_none_or(|old| old.flag == OBSOLETE);
        if self.scheme() == Some(Scheme::Boolean) && !marked { self.retire(next.other()) } else { Ok(()) }
    }

    /// How the copies are told apart; `None` where there is only one.
    fn scheme(&self) -> Option<Scheme> {
        self.second.as_ref().map(Seat::scheme)
    }

    fn seat(&mut self, slot: Slot) -> &mut S {
        match (slot, &mut self.second) {
            (Slot::Second, Some(second)) => second,
            _ => &mut self.first,
        }
    }

    /// Marks a copy as the one that does not count.
    fn retire(&mut self, slot: Slot) -> Result<(), Error<S::Error>> {
        let seat = self.seat(slot);
        seat.retire().map_err(|e| Error::Retire(slot, e))?;
        match seat.read().map_err(Error::ReadBack)?.get(FLAG) {
            Some(&OBSOLETE) => Ok(()),
            _ => Err(Error::Differs(slot)),
        }
    }
}

fn read<S: Seat>(seat: &mut S, size: usize, kind: Kind) -> (Result<Vec<u8>, S::Error>, Copy) {
    let bytes = match seat.read() {
        Ok(bytes) => bytes,
        Err(e) => return (Err(e), Copy::Unreadable),
    };
    let copy = match Image::parse(&bytes, kind) {
        Ok(image) if bytes.len() == size => Copy::Good { flag: image.flag },
        _ => Copy::BadCrc,
    };
    (Ok(bytes), copy)
}

/// What the policy wants to know. Without an environment everything is corrupt, not absent: somebody should
/// have been able to say something there.
pub fn boot_state(loaded: &Loaded) -> BootState {
    let Some(image) = loaded.image() else {
        return BootState {
            rollback: Reading::Corrupt,
            upgrade_available: Reading::Corrupt,
            bootcount: Reading::Corrupt,
            bootlimit: Reading::Corrupt,
        };
    };
    BootState {
        rollback: flag(image.get(b"rollback")),
        upgrade_available: flag(image.get(b"upgrade_available")),
        bootcount: number(image.get(b"bootcount")),
        bootlimit: number(image.get(b"bootlimit")),
    }
}

/// The one-shot variable with which an operator asks for recovery: any value but an empty one and `0`.
pub fn recovery_requested(loaded: &Loaded) -> bool {
    loaded.get(RECOVERY).is_some_and(|v| !matches!(v, b"" | b"0"))
}

/// The one-shot variable's name; whoever acts on it deletes it first.
pub const RECOVERY: &[u8] = b"bootward_recovery";

/// U-Boot scripts test for `1`, U-Boot's own counter for "not 0"; anything else is a guess.
fn flag(value: Option<&[u8]>) -> Reading<bool> {
    match value {
        None | Some(b"") => Reading::Absent,
        Some(b"1") => Reading::Value(true),
        Some(b"0") => Reading::Value(false),
        Some(_) => Reading::Corrupt,
    }
}

fn number(value: Option<&[u8]>) -> Reading<u32> {
    match value {
        None | Some(b"") => Reading::Absent,
        Some(v) if v.iter().all(u8::is_ascii_digit) => {
            core::str::from_utf8(v).ok().and_then(|t| t.parse().ok()).map_or(Reading::Corrupt, Reading::Value)
        }
        Some(_) => Reading::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_numbers_that_are_no_such_thing_are_corrupt() {
        assert_eq!(flag(Some(b"1")), Reading::Value(true));
        assert_eq!(flag(Some(b"0")), Reading::Value(false));
        assert_eq!(flag(Some(b"yes")), Reading::Corrupt);
        assert_eq!(flag(None), Reading::Absent);
        assert_eq!(number(Some(b"0012")), Reading::Value(12));
        for bad in [b"-1".as_slice(), b"+1", b"0x2", b"4294967296", b"1 ", b"\xFF"] {
            assert_eq!(number(Some(bad)), Reading::Corrupt);
        }
    }
}
