//! A kernel's module tree as its package unpacks it: which modules there are, and what is built in.
//!
//! No depmod is needed: files are found by walking the tree, and everything else is read from the modules.

use crate::{modinfo, pipe};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// Deepest folder below the tree that is searched.
const DEPTH_LIMIT: usize = 16;

/// Why a tree or a module in it cannot be used.
#[derive(Debug)]
pub enum Error {
    /// Neither lib/modules nor usr/lib/modules is there.
    NoModules(PathBuf),
    /// No release, or not the one asked for: the folder, what was asked for, what is there.
    NoRelease(PathBuf, Option<String>, Vec<String>),
    /// Several releases and none chosen.
    Releases(Vec<String>),
    /// Something could not be read.
    Read(PathBuf, io::Error),
    /// A folder nested deeper than [`DEPTH_LIMIT`].
    Depth(PathBuf),
    /// A module could not be decompressed.
    Decompress(PathBuf, pipe::Error),
    /// A file is not a module for this architecture.
    Module(PathBuf, modinfo::Error),
    /// A module for another kernel: its file, its vermagic, the release of the tree.
    Vermagic(PathBuf, String, String),
    /// No such module: its name, which module needs it, names that are near.
    Unknown(String, Option<String>, Vec<String>),
    /// Modules that depend on each other.
    Cycle(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoModules(dir) => write!(
                f,
                "{}: neither lib/modules nor usr/lib/modules is in it: --kernel-tree is what a kernel package unpacks to",
                dir.display()
            ),
            Error::NoRelease(dir, None, _) => write!(f, "{}: no kernel release in it", dir.display()),
            Error::NoRelease(dir, Some(asked), there) => {
                write!(f, "{}: no release '{asked}' in it; there is: {}", dir.display(), there.join(", "))
            }
            Error::Releases(all) => {
                write!(
                    f,
                    "the kernel tree has several releases, choose one with --release: {}",
                    all.join(", ")
                )
            }
            Error::Read(path, error) => write!(f, "{}: {error}", path.display()),
            Error::Depth(path) => {
                write!(f, "{}: nested more than {DEPTH_LIMIT} folders deep", path.display())
            }
            Error::Decompress(path, error) => write!(f, "{}: {error}", path.display()),
            Error::Module(path, error) => write!(f, "{}: {error}", path.display()),
            Error::Vermagic(path, magic, release) => write!(
                f,
                "{}: built for kernel '{magic}', but the tree is of {release}: the kernel would refuse it",
                path.display()
            ),
            Error::Unknown(name, needed_by, near) => {
                write!(f, "there is no kernel module '{name}'")?;
                if let Some(module) = needed_by {
                    write!(f, ", which '{module}' depends on")?;
                }
                if near.is_empty() { Ok(()) } else { write!(f, "; near it: {}", near.join(", ")) }
            }
            Error::Cycle(name) => write!(f, "module '{name}' depends on itself through others"),
        }
    }
}

/// A module's name as the kernel compares it: `-` and `_` are equal.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// A module's name from its file name, where that is a module's.
pub fn name_of(file: &str) -> Option<String> {
    let base = file.rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|end| base.strip_suffix(end))?;
    Some(normal(stem))
}

/// One release's modules.
#[derive(Debug)]
pub struct Tree {
    /// The kernel release.
    pub release: String,
    folder: PathBuf,
    arch: modinfo::Arch,
    /// Module files relative to the folder, in the order of modules.order, then by name.
    files: Vec<(String, String)>,
    builtin: Vec<String>,
    builtin_aliases: Vec<String>,
    /// Aliases by module name: filled from the crypto and library folders first, the rest when need be.
    aliases: RefCell<Aliases>,
}

#[derive(Debug, Default)]
struct Aliases {
    scanned: Vec<bool>,
    pairs: Vec<(String, String)>,
}

impl Tree {
    /// Finds the release's folder below `dir` and lists its modules.
    ///
    /// # Errors
    /// No release, an ambiguous one, an unreadable tree.
    pub fn open(dir: &Path, release: Option<&str>, arch: modinfo::Arch) -> Result<Tree, Error> {
        let places = [dir.join("lib/modules"), dir.join("usr/lib/modules")];
        let Some(place) = places.iter().find(|p| p.is_dir()) else {
            return Err(Error::NoModules(dir.to_owned()));
        };
        let release = chosen_release(place, release)?;
        let folder = place.join(&release);
        let mut files = Vec::new();
        walk(&folder, "", 0, &mut files)?;
        let order: Vec<String> =
            lines(&folder.join("modules.order"))?.iter().filter_map(|l| plain_name(l)).collect();
        let rank = |file: &str| plain_name(file).and_then(|p| order.iter().position(|o| *o == p));
        let mut ranked: Vec<(usize, String)> =
            files.into_iter().map(|f| (rank(&f).unwrap_or(usize::MAX), f)).collect();
        ranked.sort();
        let files: Vec<_> = ranked.into_iter().filter_map(|(_, f)| Some((name_of(&f)?, f))).collect();
        let builtin = lines(&folder.join("modules.builtin"))?.iter().filter_map(|l| name_of(l)).collect();
        let builtin_aliases = builtin_aliases(&folder.join("modules.builtin.modinfo"))?;
        let aliases = RefCell::new(Aliases { scanned: vec![false; files.len()], pairs: Vec::new() });
        Ok(Tree { release, folder, arch, files, builtin, builtin_aliases, aliases })
    }

    /// The file of a module, relative to the release's folder.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|(n, _)| n == name).map(|(_, f)| f.as_str())
    }

    /// Where the module comes in modules.order.
    pub fn rank(&self, name: &str) -> usize {
        self.files.iter().position(|(n, _)| n == name).unwrap_or(usize::MAX)
    }

    /// Whether a module of this name is part of the kernel.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normal(name))
    }

    /// Whether something that is part of the kernel provides an alias.
    pub fn is_builtin_alias(&self, alias: &str) -> bool {
        spellings(alias).iter().any(|wanted| self.builtin_aliases.contains(wanted))
    }

    /// The text of modules.builtin, which goes into the initramfs as it is.
    ///
    /// # Errors
    /// Unreadable; absence is an empty text.
    pub fn builtin_text(&self) -> Result<Vec<u8>, Error> {
        let path = self.folder.join("modules.builtin");
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|e| Error::Read(path, e)),
        }
    }

    /// A module's bytes, decompressed, and what it says of itself; checked against architecture and release.
    ///
    /// # Errors
    /// Unreadable, not a module, or one for another machine or kernel.
    pub fn load(&self, file: &str) -> Result<(Vec<u8>, modinfo::Modinfo), Error> {
        let (bytes, info) = self.read(file)?;
        let path = self.folder.join(file);
        if let Some(magic) = info.values("vermagic").next()
            && magic.split(' ').next() != Some(self.release.as_str())
        {
            return Err(Error::Vermagic(path, magic.to_owned(), self.release.clone()));
        }
        Ok((bytes, info))
    }

    /// The modules that provide an alias, in the tree's order: `crc32c` is found as `crypto-crc32c` too.
    /// The crypto and library folders are searched first, the rest only where that found nothing and
    /// `everywhere` is asked for: a whole compressed tree takes a minute to read.
    ///
    /// # Errors
    /// A module that had to be looked into could not be read.
    pub fn providers(&self, alias: &str, everywhere: bool) -> Result<Vec<String>, Error> {
        let wanted = spellings(alias);
        let passes: &[bool] = if everywhere { &[false, true] } else { &[false] };
        for whole in passes {
            self.scan_aliases(*whole)?;
            let aliases = self.aliases.borrow();
            let mut found: Vec<String> =
                aliases.pairs.iter().filter(|(a, _)| wanted.contains(a)).map(|(_, m)| m.clone()).collect();
            found.sort_by_key(|m| self.rank(m));
            found.dedup();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Names of modules that someone may have meant.
    pub fn near(&self, name: &str) -> Vec<String> {
        let wanted = normal(name);
        let mut all: Vec<(usize, &str)> = self
            .files
            .iter()
            .map(|(n, _)| (distance(&wanted, n), n.as_str()))
            .filter(|(d, n)| *d <= 2 || (wanted.len() > 3 && (n.contains(&wanted) || wanted.contains(*n))))
            .collect();
        all.sort();
        all.into_iter().take(5).map(|(_, n)| n.to_owned()).collect()
    }

    fn read(&self, file: &str) -> Result<(Vec<u8>, modinfo::Modinfo), Error> {
        let path = self.folder.join(file);
        let raw = fs::read(&path).map_err(|e| Error::Read(path.clone(), e))?;
        let bytes = pipe::decompressed(file, raw).map_err(|e| Error::Decompress(path.clone(), e))?;
        let info = modinfo::module(&bytes, self.arch).map_err(|e| Error::Module(path, e))?;
        Ok((bytes, info))
    }

    fn scan_aliases(&self, everywhere: bool) -> Result<(), Error> {
        let mut aliases = self.aliases.borrow_mut();
        for (index, (name, file)) in self.files.iter().enumerate() {
            // Nearly all soft dependencies are algorithms.
            let likely = file.contains("/crypto/") || file.starts_with("kernel/lib/");
            let done = aliases.scanned.get(index).copied().unwrap_or(true);
            if done || !(everywhere || likely) {
                continue;
            }
            let (_, info) = self.read(file)?;
            aliases.pairs.extend(info.values("alias").map(|a| (normal(a), name.clone())));
            if let Some(mark) = aliases.scanned.get_mut(index) {
                *mark = true;
            }
        }
        Ok(())
    }
}

/// An alias as written, and as the kernel's crypto code asks for it.
fn spellings(alias: &str) -> [String; 2] {
    [normal(alias), format!("crypto_{}", normal(alias))]
}

fn chosen_release(place: &Path, asked: Option<&str>) -> Result<String, Error> {
    let mut there: Vec<String> = entries(place)?
        .into_iter()
        .filter(|name| {
            place.join(name).join("kernel").is_dir() || place.join(name).join("modules.builtin").is_file()
        })
        .collect();
    there.sort();
    match (asked, there.as_slice()) {
        (Some(release), _) if there.iter().any(|r| r == release) => Ok(release.to_owned()),
        (None, [only]) => Ok(only.clone()),
        (None, [_, _, ..]) => Err(Error::Releases(there)),
        (asked, _) => Err(Error::NoRelease(place.to_owned(), asked.map(str::to_owned), there)),
    }
}

/// Module files below `folder`. Symbolic links (`build`, `source`) are not followed.
fn walk(folder: &Path, below: &str, depth: usize, found: &mut Vec<String>) -> Result<(), Error> {
    let here = folder.join(below);
    if depth > DEPTH_LIMIT {
        return Err(Error::Depth(here));
    }
    for name in entries(&here)? {
        let relative = if below.is_empty() { name } else { format!("{below}/{name}") };
        let path = folder.join(&relative);
        let kind = fs::symlink_metadata(&path).map_err(|e| Error::Read(path.clone(), e))?.file_type();
        if kind.is_dir() {
            walk(folder, &relative, depth + 1, found)?;
        } else if kind.is_file() && name_of(&relative).is_some() {
            found.push(relative);
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |e| Error::Read(dir.to_owned(), e);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The lines of a file that need not be there.
fn lines(path: &Path) -> Result<Vec<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::Read(path.to_owned(), e)),
    }
}

/// `kernel/fs/fat/vfat.ko.xz` and `kernel/fs/fat/vfat.ko` as the latter, `vfat.o` of old trees too.
fn plain_name(file: &str) -> Option<String> {
    let stem = file.split(".ko").next().filter(|s| s.len() < file.len())?;
    Some(format!("{stem}.ko"))
}

/// `name.alias=value` items of modules.builtin.modinfo.
fn builtin_aliases(path: &Path) -> Result<Vec<String>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::Read(path.to_owned(), e)),
    };
    let items = bytes.split(|b| *b == 0).filter_map(|item| {
        let text = String::from_utf8_lossy(item);
        text.split_once(".alias=").map(|(_, alias)| normal(alias))
    });
    Ok(items.collect())
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut next = vec![i + 1];
        for ((y, pair), left) in b.bytes().zip(row.windows(2)).zip(0..) {
            let (diagonal, above) = (pair.first().copied().unwrap_or(0), pair.last().copied().unwrap_or(0));
            let before: usize = next.get::<usize>(left).copied().unwrap_or(0);
            next.push((diagonal + usize::from(x != y)).min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(name_of("kernel/fs/fat/vfat.ko.xz").as_deref(), Some("vfat"));
        assert_eq!(name_of("kernel/arch/x86/crypto/crc32c-intel.ko").as_deref(), Some("crc32c_intel"));
        assert_eq!(name_of("modules.order"), None);
        assert_eq!(plain_name("kernel/a.ko.zst").as_deref(), Some("kernel/a.ko"));
    }

    #[test]
    fn distances() {
        for (a, b, d) in [("vfat", "vfat", 0), ("vfatt", "vfat", 1), ("", "abc", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }
}
