//! Objects in and out.
//!
//! A new object is made in [`STAGING`], under a name that says what it should be, and after a sync of the whole filesystem
//! gets its place in `objects/` by a rename. libostree does the same with a directory of its own for each boot; ours
//! stays, so that what was fetched before a power cut is there after it: each object in it is believed only after its
//! checksum was computed again ([`Store::adopt`]).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::ostree::content::{self, Header};
use crate::ostree::object::{self, COMMITMETA_MAX, Checksum, Kind, OBJECT_MAX};
use crate::ostree::tree::{Meta, REGULAR};
use crate::storage::{At, Node, Trees, Volume};

use super::{Mode, REPO};

/// Where objects are made. libostree takes it for somebody's temporary directory and leaves it alone for a day.
pub const STAGING: &str = "ostree/repo/tmp/bootward";
/// Where a repository of mode `bare-user` keeps owner, mode and attributes of a file.
pub const USER_META: &[u8] = b"user.ostreemeta";
/// Bytes that are read at once.
const BUFFER: usize = 64 * 1024;
/// The mode of objects that are metadata, and of what stands for a link in `bare-user`.
const PLAIN: u32 = REGULAR | 0o644;

/// What went wrong with an object.
#[derive(Debug)]
pub enum Error<E> {
    /// The medium or the filesystem refused.
    Files(E),
    /// The object in the repository is not what its name says.
    Changed(Checksum, Kind),
    /// What was to be written has another checksum than it should have.
    Checksum {
        /// What was asked for.
        wanted: Checksum,
        /// What it is.
        found: Checksum,
    },
    /// What was to be written has another size than its header says.
    Size {
        /// The object.
        name: Checksum,
        /// What its header says, in bytes.
        told: u64,
        /// What came, at least.
        found: u64,
    },
    /// A file object whose header makes no sense.
    Header(Checksum, content::HeaderError),
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Files(e) => e.fmt(f),
            Error::Changed(name, kind) => {
                write!(f, "object {name}.{} in the repository is damaged", kind.extension())
            }
            Error::Checksum { wanted, found } => {
                write!(f, "object {wanted}: what came has the checksum {found}")
            }
            Error::Size { name, told, found } => {
                write!(f, "object {name}: its header says {told} bytes, {found} or more came")
            }
            Error::Header(name, e) => write!(f, "object {name}: {e}"),
        }
    }
}

/// A file object of the repository.
#[derive(Debug)]
pub enum File<S> {
    /// A symbolic link.
    Link(Meta, String),
    /// A regular file and its content, and how long that is.
    Regular(Meta, S, u64),
}

/// A file object that is being written.
#[derive(Debug)]
pub struct Draft<D> {
    inner: D,
    name: Checksum,
    at: At,
    meta: Meta,
    size: u64,
    written: u64,
    hash: Sha256,
}

impl<D> Draft<D> {
    /// What it is to be.
    pub fn name(&self) -> Checksum {
        self.name
    }

    /// Bytes that it is to have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are still to come.
    pub fn missing(&self) -> u64 {
        self.size.saturating_sub(self.written)
    }
}

/// The repository. Several may work on one directory at a time, each with a number of its own.
#[derive(Debug)]
pub struct Store<F> {
    files: F,
    mode: Mode,
    number: usize,
    drafts: u64,
}

impl<F: Trees> Store<F> {
    /// The repository of a sysroot; `number` tells those apart that write to it at the same time.
    pub fn new(files: F, mode: Mode, number: usize) -> Self {
        Store { files, mode, number, drafts: 0 }
    }

    /// What is below it.
    pub fn files(&mut self) -> &mut F {
        &mut self.files
    }

    /// How it keeps objects.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What is below it, to keep.
    pub fn into_files(self) -> F {
        self.files
    }

    /// Whether an object is in its place. What it is, its readers find out.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn has(&mut self, name: &Checksum, kind: Kind) -> Result<bool, Error<F::Error>> {
        self.files.node(&place(name, kind)).map(|node| node.is_some()).map_err(Error::Files)
    }

    /// A metadata object, its checksum checked; the detached metadata of a commit has none.
    ///
    /// # Errors
    /// When it is not there, too long, or damaged.
    pub fn metadata(&mut self, name: &Checksum, kind: Kind) -> Result<Vec<u8>, Error<F::Error>> {
        let limit = if kind == Kind::CommitMeta { COMMITMETA_MAX } else { OBJECT_MAX };
        let data = self.files.read(&place(name, kind), limit).map_err(Error::Files)?;
        if kind != Kind::CommitMeta && Checksum::of(&data) != *name {
            return Err(Error::Changed(*name, kind));
        }
        Ok(data)
    }

    /// A file object. Its checksum is not checked: that takes reading all of it.
    ///
    /// # Errors
    /// When it is not there or cannot be a file object.
    pub fn file(&mut self, name: &Checksum) -> Result<File<F::Source>, Error<F::Error>> {
        self.file_at(&place(name, Kind::File), name)
    }

    fn file_at(&mut self, at: &At, name: &Checksum) -> Result<File<F::Source>, Error<F::Error>> {
        let mut meta = self.files.meta(at).map_err(Error::Files)?;
        if self.mode == Mode::BareUser {
            let kept = meta.attributes.iter().find(|(name, _)| name == USER_META);
            meta =
                kept.and_then(|(_, data)| Meta::parse_file(data)).ok_or(Error::Changed(*name, Kind::File))?;
            if content::is_link(meta.mode) {
                let data = self.files.read(at, content::TARGET_MAX + 1).map_err(Error::Files)?;
                let target = core::str::from_utf8(&data).ok().and_then(|text| text.strip_suffix('\0'));
                let target = target.ok_or(Error::Changed(*name, Kind::File))?;
                return Ok(File::Link(meta, target.into()));
            }
        } else if content::is_link(meta.mode) {
            let target = self.files.link_text(at).map_err(Error::Files)?;
            return Ok(File::Link(meta, target));
        }
        let (source, size) = self.files.open(at).map_err(Error::Files)?;
        Ok(File::Regular(meta, source, size))
    }

    /// The commits that are in their places, at most so many of them. What they are, their readers find out.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn commits(&mut self, most: usize) -> Result<Vec<Checksum>, Error<F::Error>> {
        let mut commits = Vec::new();
        let objects = At::root(format!("{REPO}/objects"));
        for fan in self.files.names(&objects).map_err(Error::Files)?.into_iter().filter(|fan| fan.len() == 2)
        {
            for name in self.files.names(&objects.join(&fan)).map_err(Error::Files)? {
                let rest = name.strip_suffix(".commit");
                commits.extend(rest.and_then(|rest| Checksum::parse(&format!("{fan}{rest}"))));
            }
            if commits.len() >= most {
                break;
            }
        }
        Ok(commits)
    }

    /// Writes a metadata object aside.
    ///
    /// # Errors
    /// When it has another checksum than its name, or the medium refuses.
    pub fn put(&mut self, name: &Checksum, kind: Kind, data: &[u8]) -> Result<(), Error<F::Error>> {
        let found = Checksum::of(data);
        if kind != Kind::CommitMeta && found != *name {
            return Err(Error::Checksum { wanted: *name, found });
        }
        let at = self.draft_place();
        let mut draft = self.files.draft(&at).map_err(Error::Files)?;
        let plain = self.plain();
        let written = self.files.append(&mut draft, data).and_then(|()| self.files.seal(draft, &plain));
        self.keep(written, &at, name, kind)
    }

    /// Writes a symbolic link aside.
    ///
    /// # Errors
    /// When it has another checksum than its name, or the medium refuses.
    pub fn symlink(&mut self, name: &Checksum, meta: &Meta, target: &str) -> Result<(), Error<F::Error>> {
        Header::new(meta.clone(), target, 0).map_err(|e| Error::Header(*name, e))?;
        let found = Checksum::of(&meta.file_header(target.as_bytes()));
        if found != *name {
            return Err(Error::Checksum { wanted: *name, found });
        }
        let at = self.draft_place();
        let written = if self.mode == Mode::BareUser {
            // With its NUL, as libostree has it.
            let dressed = Meta { attributes: vec![(USER_META.into(), meta.serialize())], ..self.plain() };
            self.files.draft(&at).and_then(|mut draft| {
                self.files.append(&mut draft, target.as_bytes())?;
                self.files.append(&mut draft, &[0])?;
                self.files.seal(draft, &dressed)
            })
        } else {
            self.files.symlink_with(&at, target, meta)
        };
        self.keep(written, &at, name, Kind::File)
    }

    /// Begins a regular file aside; `size` bytes follow.
    ///
    /// # Errors
    /// When the header makes no sense, or the medium refuses.
    pub fn draft(
        &mut self,
        name: &Checksum,
        meta: &Meta,
        size: u64,
    ) -> Result<Draft<F::Draft>, Error<F::Error>> {
        Header::new(meta.clone(), "", size).map_err(|e| Error::Header(*name, e))?;
        let at = self.draft_place();
        let inner = self.files.draft(&at).map_err(Error::Files)?;
        let hash = Sha256::new_with_prefix(meta.file_header(b""));
        Ok(Draft { inner, name: *name, at, meta: meta.clone(), size, written: 0, hash })
    }

    /// Goes on with a regular file.
    ///
    /// # Errors
    /// When the medium refuses. What is beyond the size is not written; [`Store::seal`] refuses it.
    pub fn append(&mut self, draft: &mut Draft<F::Draft>, data: &[u8]) -> Result<(), Error<F::Error>> {
        draft.written = draft.written.saturating_add(data.len() as u64);
        if draft.written > draft.size {
            return Ok(());
        }
        draft.hash.update(data);
        self.files.append(&mut draft.inner, data).map_err(Error::Files)
    }

    /// Ends a regular file.
    ///
    /// # Errors
    /// When it has another size than it said or another checksum than its name; it is removed then.
    pub fn seal(&mut self, draft: Draft<F::Draft>, name: &Checksum) -> Result<(), Error<F::Error>> {
        let Draft { inner, at, meta, size, written, hash, .. } = draft;
        let found = Checksum(hash.finalize().into());
        if written != size || found != *name {
            drop(inner);
            self.files.unlink(&at).map_err(Error::Files)?;
            return Err(match written == size {
                true => Error::Checksum { wanted: *name, found },
                false => Error::Size { name: *name, told: size, found: written },
            });
        }
        let dressed = match self.mode {
            // Read for us, and no set-id bits: those count where it is checked out.
            Mode::BareUser => Meta {
                mode: (meta.mode & 0o775) | 0o400,
                attributes: vec![(USER_META.into(), meta.serialize())],
                ..self.plain()
            },
            _ => meta,
        };
        let sealed = self.files.seal(inner, &dressed);
        self.keep(sealed, &at, name, Kind::File)
    }

    /// Throws a draft away.
    ///
    /// # Errors
    /// When the medium refuses.
    pub fn discard(&mut self, draft: Draft<F::Draft>) -> Result<(), Error<F::Error>> {
        let Draft { inner, at, .. } = draft;
        drop(inner);
        self.files.unlink(&at).map_err(Error::Files)
    }

    fn plain(&self) -> Meta {
        let (uid, gid) = self.files.owner();
        Meta { uid, gid, mode: PLAIN, attributes: Vec::new() }
    }

    fn draft_place(&mut self) -> At {
        self.drafts += 1;
        At::root(format!("{STAGING}/{}-{}.new", self.number, self.drafts))
    }

    fn keep(
        &mut self,
        written: Result<(), F::Error>,
        at: &At,
        name: &Checksum,
        kind: Kind,
    ) -> Result<(), Error<F::Error>> {
        written.and_then(|()| self.files.rename(at, &staged(name, kind))).map_err(Error::Files)
    }

    /// Makes the place for new objects.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn prepare(&mut self) -> Result<(), Error<F::Error>> {
        for path in [format!("{REPO}/tmp"), STAGING.into(), format!("{REPO}/state")] {
            self.directory(&At::root(path), 0o755)?;
        }
        Ok(())
    }

    fn directory(&mut self, at: &At, mode: u32) -> Result<(), Error<F::Error>> {
        match self.files.node(at).map_err(Error::Files)? {
            Some(Node::Directory) => Ok(()),
            _ => self.files.make_directory(at, mode).map_err(Error::Files),
        }
    }

    /// Removes the part of a large object, where there is one.
    ///
    /// # Errors
    /// When the medium refuses.
    pub fn forget_part(&mut self, name: &Checksum) -> Result<(), Error<F::Error>> {
        let at = part(name);
        match self.files.node(&at).map_err(Error::Files)? {
            Some(_) => self.files.unlink(&at).map_err(Error::Files),
            None => Ok(()),
        }
    }

    /// Gives objects that were written aside their places, all of them durable by then.
    ///
    /// # Errors
    /// When the medium refuses. What has its place keeps it; the rest is still aside.
    pub fn publish(&mut self, objects: &[(Checksum, Kind)]) -> Result<(), Error<F::Error>> {
        if objects.is_empty() {
            return Ok(());
        }
        self.files.sync(Volume::Root).map_err(Error::Files)?;
        let mut made = BTreeSet::new();
        for (name, kind) in objects {
            let [first, ..] = name.0;
            if made.insert(first) {
                self.directory(&At::root(format!("{REPO}/objects/{first:02x}")), 0o755)?;
            }
            self.files.rename(&staged(name, *kind), &place(name, *kind)).map_err(Error::Files)?;
        }
        Ok(())
    }

    /// Takes what an earlier run left aside: whole objects get their places, parts of large ones stay and are told with
    /// their lengths, everything else is removed.
    ///
    /// # Errors
    /// When the medium refuses.
    pub fn adopt(&mut self) -> Result<Adopted, Error<F::Error>> {
        let mut adopted = Adopted::default();
        for name in self.files.names(&At::root(STAGING)).map_err(Error::Files)? {
            let at = At::root(format!("{STAGING}/{name}"));
            let object = name.rsplit_once('.').and_then(|(sum, kind)| Some((Checksum::parse(sum)?, kind)));
            let whole = match object {
                Some((sum, PART)) => {
                    adopted.parts.push((sum, self.files.resume(&at).map_err(Error::Files)?.1));
                    continue;
                }
                Some((sum, extension)) => match Kind::of_extension(extension) {
                    Some(kind) if self.is_whole(&at, &sum, kind)? => Some((sum, kind)),
                    _ => None,
                },
                None => None,
            };
            match whole {
                Some(object) => adopted.objects.push(object),
                None => self.files.unlink(&at).map_err(Error::Files)?,
            }
        }
        self.publish(&adopted.objects)?;
        Ok(adopted)
    }

    /// Whether what was written aside is what its name says. Detached metadata is fetched again each time.
    fn is_whole(&mut self, at: &At, name: &Checksum, kind: Kind) -> Result<bool, Error<F::Error>> {
        match kind {
            Kind::CommitMeta | Kind::Archived => Ok(false),
            Kind::File => Ok(self.checksum_at(at, name)? == Some(*name)),
            _ => Ok(self.files.read(at, OBJECT_MAX).is_ok_and(|data| Checksum::of(&data) == *name)),
        }
    }

    /// Whether a file object is what its name says, by reading all of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn check(&mut self, name: &Checksum) -> Result<bool, Error<F::Error>> {
        Ok(self.checksum_at(&place(name, Kind::File), name)? == Some(*name))
    }

    fn checksum_at(&mut self, at: &At, name: &Checksum) -> Result<Option<Checksum>, Error<F::Error>> {
        let (meta, mut source, size) = match self.file_at(at, name) {
            Ok(File::Regular(meta, source, size)) => (meta, source, size),
            Ok(File::Link(meta, target)) => {
                return Ok(Some(Checksum::of(&meta.file_header(target.as_bytes()))));
            }
            Err(Error::Changed(..)) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut hash = Sha256::new_with_prefix(meta.file_header(b""));
        let (mut buffer, mut at) = (vec![0; BUFFER], 0u64);
        loop {
            let length = self.files.read_at(&mut source, at, &mut buffer).map_err(Error::Files)?;
            if length == 0 {
                break;
            }
            hash.update(buffer.get(..length).unwrap_or_default());
            at = at.saturating_add(length as u64);
        }
        Ok((at == size).then(|| Checksum(hash.finalize().into())))
    }
}

/// What an earlier run left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Adopted {
    /// Objects that were whole and have their places now.
    pub objects: Vec<(Checksum, Kind)>,
    /// Parts of large objects as they come from a server, and how many bytes of each there are.
    pub parts: Vec<(Checksum, u64)>,
}

/// What the part of a large object is called, after its checksum.
pub const PART: &str = "part";

/// Where the part of a large object is kept.
pub fn part(name: &Checksum) -> At {
    At::root(format!("{STAGING}/{name}.{PART}"))
}

/// Where an object is.
pub fn place(name: &Checksum, kind: Kind) -> At {
    At::root(object::path(name, kind))
}

/// Where an object is before it has its place.
pub fn staged(name: &Checksum, kind: Kind) -> At {
    At::root(format!("{STAGING}/{name}.{}", kind.extension()))
}
