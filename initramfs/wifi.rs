//! What Wi-Fi needs besides modules: the supplicant with its libraries, firmware, the regulatory database.
//!
//! Libraries are found as the loader of the target would find them, in the tree that the supplicant was built for: every
//! symbolic link is resolved within that tree, and the loader itself never runs. What a program opens by name at run time
//! (plug-ins of a TLS library) is not found this way; wpa_supplicant needs none of it.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use bootward::sys::beneath::Beneath;

use crate::args::Request;
use crate::modinfo::{self, Arch};

/// Where the program is in the initramfs.
pub const SUPPLICANT: &str = "usr/sbin/wpa_supplicant";
/// The kernel reads both, and refuses the first without the second.
const REGULATORY: [&str; 2] = ["regulatory.db", "regulatory.db.p7s"];
/// The largest file that goes in, in bytes.
const FILE_MAX: usize = 64 << 20;
/// More libraries than this are not followed.
const LIBRARIES_MAX: usize = 128;
/// More firmware files than this do not go in.
const FIRMWARE_MAX: usize = 256;

/// A file for the archive: its name there, its permissions, its bytes.
pub type Piece = (String, u32, Vec<u8>);

/// Why something cannot go in.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read: where, and why.
    Read(PathBuf, String),
    /// Not a program or library for the architecture.
    Elf(PathBuf, modinfo::Error),
    /// No directory has the library: its name, who needs it, where it was looked for.
    Library(String, String, PathBuf),
    /// No such firmware: its name, and where it was looked for.
    Firmware(String, Vec<PathBuf>),
    /// More than a limit.
    TooMany(&'static str, usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Read(path, why) => write!(f, "{}: cannot be read: {why}", path.display()),
            Error::Elf(path, e) => write!(f, "{}: {e}", path.display()),
            Error::Library(name, by, root) => write!(
                f,
                "{name}, which {by} needs, is in none of the library directories of {}: say with --wifi-root which \
                 tree it was built for",
                root.display()
            ),
            Error::Firmware(name, places) => {
                let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
                write!(f, "firmware '{name}' is in none of: {}", places.join(", "))?;
                if REGULATORY.contains(&name.as_str()) {
                    f.write_str("; it comes with the package wireless-regdb")?;
                }
                Ok(())
            }
            Error::TooMany(what, limit) => write!(f, "more than {limit} {what}"),
        }
    }
}

/// Everything that the request asks for, in the order of the archive.
///
/// # Errors
/// What is missing or does not fit.
pub fn gather(request: &Request) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let root = request.wifi_root.clone().unwrap_or_else(|| "/".into());
    if let Some(program) = &request.wifi {
        let bytes = limited(program)?;
        let names = modinfo::needed(&bytes, request.arch).map_err(|e| Error::Elf(program.clone(), e))?;
        pieces.push((SUPPLICANT.to_owned(), 0o755, bytes));
        libraries(&root, &program.display().to_string(), names, request.arch, &mut pieces)?;
    }
    let mut wanted: Vec<&str> = request.firmware.iter().map(String::as_str).collect();
    if request.wifi.is_some() {
        wanted.extend(REGULATORY);
    }
    let mut places: Vec<PathBuf> = request.firmware_dir.iter().cloned().collect();
    places.extend(
        request
            .kernel_tree
            .iter()
            .chain([&root])
            .flat_map(|tree| ["lib/firmware", "usr/lib/firmware"].map(|folder| tree.join(folder))),
    );
    for name in wanted {
        for (name, bytes) in firmware(&places, name)? {
            let target = format!("lib/firmware/{name}");
            if !pieces.iter().any(|(there, ..)| *there == target) {
                pieces.push((target, 0o644, bytes));
            }
            if pieces.len() > FIRMWARE_MAX + LIBRARIES_MAX {
                return Err(Error::TooMany("firmware files", FIRMWARE_MAX));
            }
        }
    }
    Ok(pieces)
}

fn limited(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::Read(path.to_owned(), why);
    let size = fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > FILE_MAX as u64 {
        return Err(failed(format!("{size} bytes, the limit is {FILE_MAX}")));
    }
    fs::read(path).map_err(|e| failed(e.to_string()))
}

/// Adds the loader and all libraries that are needed, directly or not, where the tree has them.
fn libraries(
    root: &Path,
    by: &str,
    names: modinfo::Needed,
    arch: Arch,
    pieces: &mut Vec<Piece>,
) -> Result<(), Error> {
    if names.loader.is_none() && names.libraries.is_empty() {
        return Ok(());
    }
    let tree = Beneath::open(root).map_err(|e| Error::Read(root.to_owned(), e.desc().to_owned()))?;
    let read =
        |path: &str| tree.read(path, FILE_MAX).map_err(|e| Error::Read(root.join(path), e.desc().to_owned()));
    if let Some(loader) = names.loader {
        let loader = loader.trim_start_matches('/').to_owned();
        let bytes = read(&loader)?;
        pieces.push((loader, 0o755, bytes));
    }
    let mut open: Vec<(String, String)> = names.libraries.into_iter().map(|n| (n, by.to_owned())).collect();
    while let Some((name, by)) = open.pop() {
        // The loader is a library of its own to some; it is there under its own name.
        let there = |piece: &Piece| piece.0.rsplit('/').next() == Some(name.as_str());
        if pieces.iter().any(there) {
            continue;
        }
        if pieces.len() > LIBRARIES_MAX {
            return Err(Error::TooMany("libraries", LIBRARIES_MAX));
        }
        let directories = library_directories(arch);
        let found = directories.iter().map(|d| format!("{d}/{name}")).find(|path| tree.exists(path));
        let Some(path) = found.filter(|_| !name.contains('/')) else {
            return Err(Error::Library(name, by, root.to_owned()));
        };
        let bytes = read(&path)?;
        let more = modinfo::needed(&bytes, arch).map_err(|e| Error::Elf(root.join(&path), e))?;
        open.extend(more.libraries.into_iter().map(|n| (n, name.clone())));
        pieces.push((path, 0o755, bytes));
    }
    Ok(())
}

/// Where loaders look without a configuration: Debian's directories of an architecture, then everybody's.
fn library_directories(arch: Arch) -> [String; 6] {
    let triplet = format!("{}-linux-gnu", arch.name());
    [
        format!("lib/{triplet}"),
        format!("usr/lib/{triplet}"),
        "lib".to_owned(),
        "usr/lib".to_owned(),
        "lib64".to_owned(),
        "usr/lib64".to_owned(),
    ]
}

/// A firmware file, or all whose names begin with what is before a `*` at the end; as it is or compressed, since the
/// kernel looks for it in both ways.
fn firmware(places: &[PathBuf], name: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let absent = || Error::Firmware(name.to_owned(), places.to_vec());
    if name.split('/').any(|part| part == "..") {
        return Err(absent());
    }
    for place in places.iter().filter(|p| p.is_dir()) {
        let names = match name.strip_suffix('*') {
            Some(start) => starting_with(place, start),
            None => ["", ".xz", ".zst"].iter().map(|end| format!("{name}{end}")).collect(),
        };
        let files: Vec<String> = names.into_iter().filter(|n| place.join(n).is_file()).collect();
        let read = |name: String| Ok((name.clone(), limited(&place.join(&name))?));
        match (files.is_empty(), name.ends_with('*')) {
            (true, _) => {}
            (false, true) => return files.into_iter().map(read).collect(),
            (false, false) => return files.into_iter().take(1).map(read).collect(),
        }
    }
    Err(absent())
}

fn starting_with(place: &Path, start: &str) -> Vec<String> {
    let (folder, begin) = start.rsplit_once('/').map_or(("", start), |(f, b)| (f, b));
    let entries = fs::read_dir(place.join(folder)).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(begin));
    let mut names: Vec<String> =
        names.map(|n| if folder.is_empty() { n } else { format!("{folder}/{n}") }).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_by_name_and_by_its_beginning() {
        let room = tempfile::tempdir().unwrap();
        let place = room.path().join("fw");
        fs::create_dir_all(place.join("brcm")).unwrap();
        for name in ["brcm/b43455.bin", "brcm/b43455.txt", "brcm/other.bin", "x.bin.xz"] {
            fs::write(place.join(name), name).unwrap();
        }
        let places = [room.path().join("none"), place];
        let names = |name| {
            firmware(&places, name).map(|all| all.into_iter().map(|(n, _)| n).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names("brcm/b43455*").unwrap(), "brcm/b43455.bin brcm/b43455.txt");
        assert_eq!(names("brcm/other.bin").unwrap(), "brcm/other.bin");
        assert_eq!(names("x.bin").unwrap(), "x.bin.xz");
        for bad in ["nothing", "nothing*", "../fw/x.bin.xz"] {
            assert!(names(bad).unwrap_err().to_string().starts_with("firmware '"), "{bad}");
        }
    }
}
