//! `fw_env.config`: one line, or two for a redundant pair.
//!
//! `DEVICE OFFSET SIZE [SECTOR-SIZE [SECTORS [DISABLE-LOCK]]]`; the offset is read as C's `%lli` (decimal,
//! `0x`, octal; negative counts from the device's end), the sizes as `%zx` (hexadecimal, `0x` or not).
//! libubootenv passes over lines that it cannot read; here they are errors, with their number. What is behind the size
//! counts for raw flash only: the size of an erase sector, how many of them the copy may use (both hexadecimal, 0 stands for
//! not given), and whether its write protection is left alone.
//!
//! `DEVICE` may be `/dev/ubiN:NAME` or `/dev/mtdN:NAME`, a UBI volume by its name.

use core::fmt;

use super::env::MAX_SIZE;

/// One copy's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// Path of the file or device.
    pub device: &'a str,
    /// In bytes; negative counts from the end.
    pub offset: i64,
    /// Of the whole image, in bytes.
    pub size: usize,
    /// Of an erase sector, in bytes; 0: as the device says.
    pub sector: u64,
    /// Sectors that the copy may use; 0: as many as it needs.
    pub sectors: u64,
    /// The flash is not unlocked and locked.
    pub disable_lock: bool,
}

/// The places of a whole environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config<'a> {
    /// The first copy.
    pub first: Place<'a>,
    /// The second copy, where there is one.
    pub second: Option<Place<'a>>,
}

/// What is wrong, in which line (counted from 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// No line names a device.
    Empty,
    /// Not UTF-8.
    Encoding(usize),
    /// libubootenv's YAML form.
    Yaml(usize),
    /// Fewer than three fields, or more than six.
    Fields(usize),
    /// The offset is not a number.
    Offset(usize),
    /// The size is not a number, zero, or over the limit of [`MAX_SIZE`].
    Size(usize),
    /// A later field is not a number.
    Sector(usize),
    /// The second line has another size than the first.
    UnequalSizes(usize),
    /// A third place.
    TooMany(usize),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, what) = match self {
            ConfigError::Empty => return f.write_str("no line says where the environment is"),
            ConfigError::Encoding(line) => (line, "is not UTF-8 text"),
            ConfigError::Yaml(line) => {
                (line, "is YAML, which is not supported; write 'DEVICE OFFSET SIZE', a line for each copy")
            }
            ConfigError::Fields(line) => {
                (line, "must be 'DEVICE OFFSET SIZE [SECTOR-SIZE [SECTORS [DISABLE-LOCK]]]'")
            }
            ConfigError::Offset(line) => (line, "has an offset that is not a number"),
            ConfigError::Size(line) => (line, "has a size that is not a number from 0x10 to 0x100000"),
            ConfigError::Sector(line) => (line, "has a sector size or count that is not a number"),
            ConfigError::UnequalSizes(line) => (line, "has another size than the first copy"),
            ConfigError::TooMany(line) => (line, "is a third copy; there can be two"),
        };
        write!(f, "line {line} {what}")
    }
}

impl<'a> Config<'a> {
    /// Parses a whole file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &'a [u8]) -> Result<Self, ConfigError> {
        let (mut first, mut second) = (None, None);
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let number = index + 1;
            let line = core::str::from_utf8(line).map_err(|_| ConfigError::Encoding(number))?;
            let Some(place) = place(line, number)? else { continue };
            match (first, second) {
                (None, _) => first = Some(place),
                (Some(Place { size, .. }), None) if size != place.size => {
                    return Err(ConfigError::UnequalSizes(number));
                }
                (Some(_), None) => second = Some(place),
                (Some(_), Some(_)) => return Err(ConfigError::TooMany(number)),
            }
        }
        Ok(Config { first: first.ok_or(ConfigError::Empty)?, second })
    }
}

fn place(line: &str, number: usize) -> Result<Option<Place<'_>>, ConfigError> {
    let mut fields = line.split_ascii_whitespace().take_while(|f| !f.starts_with('#'));
    let Some(device) = fields.next() else { return Ok(None) };
    if device.ends_with(':') || device == "---" || device == "-" {
        return Err(ConfigError::Yaml(number));
    }
    let (Some(offset), Some(size)) = (fields.next(), fields.next()) else {
        return Err(ConfigError::Fields(number));
    };
    let offset = signed(offset).ok_or(ConfigError::Offset(number))?;
    let size = hex(size)
        .and_then(|s| usize::try_from(s).ok())
        .filter(|s| (16..=MAX_SIZE).contains(s))
        .ok_or(ConfigError::Size(number))?;
    let mut numbers = [0; 3];
    for (index, field) in fields.enumerate() {
        let value = if index < 2 { hex(field) } else { signed(field).map(i64::unsigned_abs) };
        *numbers.get_mut(index).ok_or(ConfigError::Fields(number))? =
            value.ok_or(ConfigError::Sector(number))?;
    }
    let [sector, sectors, lock] = numbers;
    Ok(Some(Place { device, offset, size, sector, sectors, disable_lock: lock != 0 }))
}

/// Digits only: Rust's own parser would take a second sign.
fn digits(text: &str, radix: u32) -> Option<u64> {
    if text.starts_with('+') { None } else { u64::from_str_radix(text, radix).ok() }
}

fn without_0x(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// As C's `%zx`.
fn hex(text: &str) -> Option<u64> {
    digits(without_0x(text).unwrap_or(text), 16)
}

/// As C's `%lli`.
fn signed(text: &str) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match without_0x(text) {
        Some(rest) => digits(rest, 16),
        None if text.len() > 1 && text.starts_with('0') => digits(text, 8),
        None => digits(text, 10),
    };
    let value = i64::try_from(value?).ok()?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_libubootenv_reads_them() {
        let text = b"# c\n\n/dev/a -0x4000 4000 0x200 1 # x\r\n\t/dev/b 010 0x4000 200 2 1\n";
        let config = Config::parse(text).unwrap();
        let place = |device, offset, sector, sectors, disable_lock| Place {
            device,
            offset,
            size: 0x4000,
            sector,
            sectors,
            disable_lock,
        };
        assert_eq!(config.first, place("/dev/a", -0x4000, 0x200, 1, false));
        assert_eq!(config.second, Some(place("/dev/b", 8, 0x200, 2, true)));
        let config = Config::parse(b"/dev/ubi0:env 0 4000 1F000").unwrap();
        assert_eq!((config.first, config.second), (place("/dev/ubi0:env", 0, 0x1F000, 0, false), None));
    }

    #[test]
    fn each_mistake_has_its_line() {
        for (text, wanted) in [
            (b"# only\n".as_slice(), ConfigError::Empty),
            (b"\n/dev/a 0\n", ConfigError::Fields(2)),
            (b"/d 0 400 1 1 1 1", ConfigError::Fields(1)),
            (b"/d x 400", ConfigError::Offset(1)),
            (b"/d +-1 400", ConfigError::Offset(1)),
            (b"/d 09 400", ConfigError::Offset(1)),
            (b"/d 99999999999999999999 400", ConfigError::Offset(1)),
            (b"/d 0 0", ConfigError::Size(1)),
            (b"/d 0 100001", ConfigError::Size(1)),
            (b"/d 0 400 z", ConfigError::Sector(1)),
            (b"/d 0 400\n/d 400 800", ConfigError::UnequalSizes(2)),
            (b"/d 0 400\n/d 400 400\n/d 800 400", ConfigError::TooMany(3)),
            (b"#\nuboot:\n  size: 1", ConfigError::Yaml(2)),
            (b"\xFF", ConfigError::Encoding(1)),
        ] {
            assert_eq!(Config::parse(text), Err(wanted), "{}", String::from_utf8_lossy(text));
        }
    }
}
