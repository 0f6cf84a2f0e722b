//! What an ELF file says of itself: machine, interpreter, and a kernel module's `.modinfo`.
//!
//! Format: the System V ABI's ELF chapter; `.modinfo` is a run of `key=value` strings, each ended by a zero
//! byte (the kernel's `include/linux/moduleinfo.h` and `moduleparam.h`). Every offset in the file is doubted.

use std::fmt;

/// Most sections or program headers that are looked at.
const HEADERS_LIMIT: usize = 65_535;
const SECTION_NOBITS: u32 = 8;
/// The longest name of a library or loader, in bytes.
const NAME_LIMIT: usize = 256;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_DYNAMIC: u32 = 2;
const SEGMENT_INTERPRETER: u32 = 3;
const TAG_NEEDED: u64 = 1;
const TAG_STRINGS: u64 = 5;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;

/// An architecture that bootward runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit PC.
    X86_64,
    /// 64-bit ARM, little endian.
    Aarch64,
}

impl Arch {
    /// The architecture that `name` means, as `uname -m` and rustc spell it.
    pub fn named(name: &str) -> Option<Arch> {
        match name {
            "x86_64" => Some(Arch::X86_64),
            "aarch64" => Some(Arch::Aarch64),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// ELF's e_machine.
    fn machine(self) -> u16 {
        match self {
            Arch::X86_64 => 62,
            Arch::Aarch64 => 183,
        }
    }
}

/// Why a file is not what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No ELF magic.
    NotElf,
    /// 32-bit or big endian.
    NotElf64,
    /// A header points outside the file, or a table is cut short.
    Truncated,
    /// For another processor: ELF's e_machine, and what was asked for.
    Machine(u16, Arch),
    /// Not an executable.
    NotExecutable(u16),
    /// Needs a dynamic loader, which is named.
    Dynamic(String),
    /// A library's name that is none.
    LibraryName,
    /// A module without `.modinfo`.
    NoModinfo,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotElf => write!(f, "not an ELF file"),
            Error::NotElf64 => write!(f, "an ELF file, but not 64-bit little endian"),
            Error::Truncated => write!(f, "a damaged ELF file: a header points outside it"),
            Error::Machine(found, wanted) => {
                let found = match found {
                    62 => "x86_64".to_owned(),
                    183 => "aarch64".to_owned(),
                    other => format!("ELF machine {other}"),
                };
                write!(f, "built for {found}, but --arch is {}", wanted.name())
            }
            Error::NotExecutable(kind) => write!(f, "ELF type {kind}, not an executable"),
            Error::Dynamic(loader) => write!(
                f,
                "dynamically linked (needs {loader}, which the initramfs does not have): build it for a -linux-musl target"
            ),
            Error::LibraryName => write!(f, "a damaged ELF file: it needs a library without a name"),
            Error::NoModinfo => write!(f, "no .modinfo section, so not a kernel module"),
        }
    }
}

/// The values of a module's `.modinfo`, in their order in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modinfo {
    pairs: Vec<(String, String)>,
}

impl Modinfo {
    /// Splits the section's bytes.
    pub fn parse(section: &[u8]) -> Modinfo {
        let pairs = section.split(|b| *b == 0).filter_map(|item| {
            let text = String::from_utf8_lossy(item);
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        Modinfo { pairs: pairs.collect() }
    }

    /// Every value of a key.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// A kernel module's `.modinfo`.
///
/// # Errors
/// Not an ELF file for `arch`, damaged, or no such section.
pub fn module(file: &[u8], arch: Arch) -> Result<Modinfo, Error> {
    check_header(file, arch)?;
    let table = usize::try_from(u64_at(file, 40)?).map_err(|_| Error::Truncated)?;
    let (size, count) = (usize::from(u16_at(file, 58)?), usize::from(u16_at(file, 60)?));
    let section = |index: usize| slice(file, offset(table, size, index)?, 64);
    let names = section(usize::from(u16_at(file, 62)?))?;
    let names = content(file, names)?;
    for index in 0..count.min(HEADERS_LIMIT) {
        let header = section(index)?;
        let name = usize::try_from(u32_at(header, 0)?).map_err(|_| Error::Truncated)?;
        let name = names.get(name..).unwrap_or(&[]).split(|b| *b == 0).next();
        if name == Some(b".modinfo") && u32_at(header, 4)? != SECTION_NOBITS {
            return Ok(Modinfo::parse(content(file, header)?));
        }
    }
    Err(Error::NoModinfo)
}

/// What a program or a library needs to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// The dynamic loader of a program.
    pub loader: Option<String>,
    /// Names of shared libraries.
    pub libraries: Vec<String>,
}

/// What an executable or a shared library for `arch` needs.
///
/// # Errors
/// Neither of the two, or damaged.
pub fn needed(file: &[u8], arch: Arch) -> Result<Needed, Error> {
    check_header(file, arch)?;
    let kind = u16_at(file, 16)?;
    if kind != TYPE_EXECUTABLE && kind != TYPE_SHARED {
        return Err(Error::NotExecutable(kind));
    }
    let table = usize::try_from(u64_at(file, 32)?).map_err(|_| Error::Truncated)?;
    let (size, count) = (usize::from(u16_at(file, 54)?), usize::from(u16_at(file, 56)?));
    let mut needed = Needed::default();
    let (mut dynamic, mut loaded): (&[u8], Vec<&[u8]>) = (&[], Vec::new());
    for index in 0..count.min(HEADERS_LIMIT) {
        let header = slice(file, offset(table, size, index)?, 56)?;
        let bytes = || range(file, u64_at(header, 8)?, u64_at(header, 32)?);
        match u32_at(header, 0)? {
            SEGMENT_INTERPRETER => needed.loader = Some(string(bytes()?, 0)?),
            SEGMENT_DYNAMIC => dynamic = bytes()?,
            SEGMENT_LOAD => loaded.push(header),
            _ => {}
        }
    }
    let entries = dynamic.chunks_exact(16).map_while(|d| Some((u64_at(d, 0).ok()?, u64_at(d, 8).ok()?)));
    let entries: Vec<(u64, u64)> = entries.take_while(|(tag, _)| *tag != 0).collect();
    let names = entries.iter().filter(|(tag, _)| *tag == TAG_NEEDED).map(|(_, at)| *at);
    let strings = entries.iter().find(|(tag, _)| *tag == TAG_STRINGS).map(|(_, at)| *at);
    for name in names {
        let strings = in_file(&loaded, strings.ok_or(Error::Truncated)?)?;
        let at = strings.checked_add(name).and_then(|at| usize::try_from(at).ok()).ok_or(Error::Truncated)?;
        needed.libraries.push(string(file, at)?);
    }
    Ok(needed)
}

/// Where in the file an address is.
fn in_file(loaded: &[&[u8]], address: u64) -> Result<u64, Error> {
    for header in loaded {
        let (offset, start, size) = (u64_at(header, 8)?, u64_at(header, 16)?, u64_at(header, 32)?);
        if let Some(into) = address.checked_sub(start).filter(|into| *into < size) {
            return offset.checked_add(into).ok_or(Error::Truncated);
        }
    }
    Err(Error::Truncated)
}

fn string(bytes: &[u8], at: usize) -> Result<String, Error> {
    let bytes = bytes.get(at..).ok_or(Error::Truncated)?;
    let name = bytes.get(..NAME_LIMIT).unwrap_or(bytes).split(|b| *b == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| Error::LibraryName)?;
    if name.is_empty() { Err(Error::LibraryName) } else { Ok(name.to_owned()) }
}

/// Checks that a file is a static executable for `arch` (static-pie included).
///
/// # Errors
/// What it is instead.
pub fn check_static(file: &[u8], arch: Arch) -> Result<(), Error> {
    let needed = needed(file, arch)?;
    match needed.loader {
        Some(loader) => Err(Error::Dynamic(loader)),
        // A shared library has no loader either.
        None if needed.libraries.is_empty() => Ok(()),
        None => Err(Error::Dynamic("shared libraries".to_owned())),
    }
}

fn check_header(file: &[u8], arch: Arch) -> Result<(), Error> {
    if file.get(..4) != Some(b"\x7fELF") {
        return Err(Error::NotElf);
    }
    if file.get(4..6) != Some(&[2, 1]) {
        return Err(Error::NotElf64);
    }
    let machine = u16_at(file, 18)?;
    if machine == arch.machine() { Ok(()) } else { Err(Error::Machine(machine, arch)) }
}

fn content<'a>(file: &'a [u8], section: &[u8]) -> Result<&'a [u8], Error> {
    range(file, u64_at(section, 24)?, u64_at(section, 32)?)
}

fn range(file: &[u8], at: u64, size: u64) -> Result<&[u8], Error> {
    let at = usize::try_from(at).map_err(|_| Error::Truncated)?;
    slice(file, at, usize::try_from(size).map_err(|_| Error::Truncated)?)
}

fn offset(table: usize, size: usize, index: usize) -> Result<usize, Error> {
    size.checked_mul(index).and_then(|o| o.checked_add(table)).ok_or(Error::Truncated)
}

fn slice(file: &[u8], at: usize, size: usize) -> Result<&[u8], Error> {
    at.checked_add(size).and_then(|end| file.get(at..end)).ok_or(Error::Truncated)
}

fn array<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N], Error> {
    slice(file, at, N)?.try_into().map_err(|_| Error::Truncated)
}

fn u16_at(file: &[u8], at: usize) -> Result<u16, Error> {
    Ok(u16::from_le_bytes(array(file, at)?))
}

fn u32_at(file: &[u8], at: usize) -> Result<u32, Error> {
    Ok(u32::from_le_bytes(array(file, at)?))
}

fn u64_at(file: &[u8], at: usize) -> Result<u64, Error> {
    Ok(u64::from_le_bytes(array(file, at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_splits() {
        let info = Modinfo::parse(b"depends=a,b\0\0alias=x\0alias=y=z\0junk\0");
        assert_eq!(info.values("depends").collect::<Vec<_>>(), ["a,b"]);
        assert_eq!(info.values("alias").collect::<Vec<_>>(), ["x", "y=z"]);
        assert_eq!(info.values("junk").count(), 0);
    }

    #[test]
    fn every_prefix_and_every_byte_of_an_elf_file_is_survived() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };
        assert!(matches!(check_static(&whole, arch), Err(Error::Dynamic(_)) | Ok(())));
        assert_eq!(module(&whole, arch), Err(Error::NoModinfo));
        for length in (0..1200).chain((0..whole.len()).step_by(65_537)) {
            let _ = (needed(&whole[..length], arch), module(&whole[..length], arch));
        }
        let mut head = whole.clone();
        for at in 0..1024 {
            for value in [0, 0x7f, 0xff] {
                let kept = std::mem::replace(&mut head[at], value);
                let _ = (needed(&head, arch), module(&head, arch));
                head[at] = kept;
            }
        }
    }
}
