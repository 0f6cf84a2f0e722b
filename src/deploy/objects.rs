//! Objects of the sysroot's repository, of the modes `bare` and `bare-user`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::keyfile::KeyFile;
use crate::ostree::Commit;
use crate::ostree::content::TARGET_MAX;
use crate::ostree::object::{self, Checksum, Kind, OBJECT_MAX};
use crate::ostree::tree::{DirTree, Meta};
use crate::repo::store::USER_META;
use crate::storage::{At, Look, Node, Trees};

use super::Fault;

/// So many dirmeta objects are remembered; trees have a handful.
const META_MAX: usize = 256;
/// Longer configuration files are not read, in bytes.
pub const TEXT_MAX: usize = 64 * 1024;
/// The repository's configuration.
pub const CONFIG: &str = "ostree/repo/config";

/// The repository, to be read.
#[derive(Debug)]
pub struct Objects {
    /// Files are kept without their owners and modes: mode `bare-user`.
    pub user: bool,
    metas: BTreeMap<Checksum, Meta>,
}

/// A file or link of a commit, as it is in the repository.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its place.
    pub at: At,
    /// It and its size there.
    pub look: Look,
}

impl Objects {
    /// Looks at the configuration.
    ///
    /// # Errors
    /// When the mode is another one.
    pub fn open<F: Trees>(files: &mut F) -> Result<Self, Fault<F::Error>> {
        let config = config(files)?;
        let user = match config.value("core", "mode") {
            Some("bare") => false,
            Some("bare-user") => true,
            other => return Err(Fault::RepositoryMode(other.unwrap_or("not said").into())),
        };
        Ok(Objects { user, metas: BTreeMap::new() })
    }

    /// A metadata object that hashes to its name.
    ///
    /// # Errors
    /// When it is missing, too long, or has another checksum.
    pub fn metadata<F: Trees>(
        &self,
        files: &mut F,
        name: &Checksum,
        kind: Kind,
    ) -> Result<Vec<u8>, Fault<F::Error>> {
        let at = At::root(object::path(name, kind));
        if files.look(&at).map_err(Fault::Files)?.is_none_or(|look| look.node != Node::File) {
            return Err(Fault::Missing(*name, kind));
        }
        let data = whole(files, &at, OBJECT_MAX)?.ok_or(Fault::Damaged(*name, kind))?;
        if Checksum::of(&data) == *name { Ok(data) } else { Err(Fault::Damaged(*name, kind)) }
    }

    /// A commit.
    ///
    /// # Errors
    /// As [`Objects::metadata`], and when it is none.
    pub fn commit<F: Trees>(&self, files: &mut F, name: &Checksum) -> Result<Commit, Fault<F::Error>> {
        let data = self.metadata(files, name, Kind::Commit)?;
        Commit::parse(data).map_err(|_| Fault::Damaged(*name, Kind::Commit))
    }

    /// A dirtree's bytes, checked: [`DirTree::parse`] takes them, and no name is a file and a directory.
    ///
    /// # Errors
    /// As [`Objects::metadata`], and when it is none.
    pub fn tree<F: Trees>(&self, files: &mut F, name: &Checksum) -> Result<Vec<u8>, Fault<F::Error>> {
        let data = self.metadata(files, name, Kind::DirTree)?;
        let tree = DirTree::parse(&data).map_err(|why| Fault::Form(*name, Kind::DirTree, why))?;
        match tree.clash().map(String::from) {
            Some(twice) => Err(Fault::TwoThings(*name, twice)),
            None => Ok(data),
        }
    }

    /// A directory's owner, mode and attributes.
    ///
    /// # Errors
    /// As [`Objects::metadata`], and when it is none.
    pub fn meta<F: Trees>(&mut self, files: &mut F, name: &Checksum) -> Result<Meta, Fault<F::Error>> {
        if let Some(meta) = self.metas.get(name) {
            return Ok(meta.clone());
        }
        let data = self.metadata(files, name, Kind::DirMeta)?;
        let meta = Meta::parse(&data).map_err(|why| Fault::Form(*name, Kind::DirMeta, why))?;
        if self.metas.len() < META_MAX {
            self.metas.insert(*name, meta.clone());
        }
        Ok(meta)
    }

    /// A file or a link.
    ///
    /// # Errors
    /// When it is missing.
    pub fn content<F: Trees>(&self, files: &mut F, name: &Checksum) -> Result<Content, Fault<F::Error>> {
        let at = At::root(object::path(name, Kind::File));
        match files.look(&at).map_err(Fault::Files)? {
            Some(look) if matches!(look.node, Node::File | Node::Link) => Ok(Content { at, look }),
            _ => Err(Fault::Missing(*name, Kind::File)),
        }
    }

    /// What a file or link of the commit is to have: in a repository of mode `bare` its object has it.
    ///
    /// # Errors
    /// When it cannot be read, or makes no sense.
    pub fn file_meta<F: Trees>(
        &self,
        files: &mut F,
        name: &Checksum,
        content: &Content,
    ) -> Result<Meta, Fault<F::Error>> {
        let meta = files.meta(&content.at).map_err(Fault::Files)?;
        if !self.user {
            return Ok(meta);
        }
        let kept = meta.attributes.iter().find(|(name, _)| name == USER_META).map(|(_, value)| value);
        let kept = kept.ok_or(Fault::Damaged(*name, Kind::File))?;
        Meta::parse_any(kept).map_err(|why| Fault::Form(*name, Kind::File, why))
    }

    /// The text of a link of the commit.
    ///
    /// # Errors
    /// When it cannot be read, or makes no sense.
    pub fn target<F: Trees>(
        &self,
        files: &mut F,
        name: &Checksum,
        content: &Content,
    ) -> Result<String, Fault<F::Error>> {
        if !self.user {
            return files.link_text(&content.at).map_err(Fault::Files);
        }
        // libostree puts a NUL behind it.
        let text = files.read(&content.at, TARGET_MAX + 1).map_err(Fault::Files)?;
        let text = text.strip_suffix(&[0]).and_then(|text| core::str::from_utf8(text).ok());
        text.map(String::from).ok_or(Fault::Damaged(*name, Kind::File))
    }

    /// What is at a path of the commit.
    ///
    /// # Errors
    /// When an object on the way is missing or damaged.
    pub fn find<F: Trees>(
        &self,
        files: &mut F,
        commit: &Commit,
        path: &str,
    ) -> Result<Option<Found>, Fault<F::Error>> {
        let mut here = (commit.root_tree(), commit.root_meta());
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let data = self.tree(files, &here.0)?;
            let tree = DirTree::parse(&data).map_err(|why| Fault::Form(here.0, Kind::DirTree, why))?;
            if let Some((_, next, meta)) = tree.directories().find(|(name, ..)| *name == part) {
                here = (next, meta);
                continue;
            }
            let file = tree.files().find(|(name, _)| *name == part).map(|(_, sum)| Found::File(sum));
            return Ok(file.filter(|_| parts.peek().is_none()));
        }
        Ok(Some(Found::Directory(here.0, here.1)))
    }

    /// The text of a regular file of the commit; `None` where there is none.
    ///
    /// # Errors
    /// When an object on the way is missing or damaged, or it is too long.
    pub fn text<F: Trees>(
        &self,
        files: &mut F,
        commit: &Commit,
        path: &str,
    ) -> Result<Option<String>, Fault<F::Error>> {
        let Some(Found::File(name)) = self.find(files, commit, path)? else { return Ok(None) };
        let content = self.content(files, &name)?;
        if content.look.node != Node::File {
            return Ok(None);
        }
        let data = whole(files, &content.at, TEXT_MAX)?.ok_or_else(|| Fault::NotAFile(path.into()))?;
        Ok(String::from_utf8(data).ok())
    }
}

/// What is at a path of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A directory: its dirtree and dirmeta.
    Directory(Checksum, Checksum),
    /// A file or link.
    File(Checksum),
}

/// The repository's configuration.
///
/// # Errors
/// When there is none, or it cannot be understood.
pub fn config<F: Trees>(files: &mut F) -> Result<KeyFile, Fault<F::Error>> {
    let data = files.read(&At::root(CONFIG), TEXT_MAX).map_err(Fault::Files)?;
    KeyFile::parse(&data).map_err(|why| Fault::Config(CONFIG, why))
}

/// A whole file; `None` when it is longer.
fn whole<F: Trees>(files: &mut F, at: &At, limit: usize) -> Result<Option<Vec<u8>>, Fault<F::Error>> {
    let (mut source, length) = files.open(at).map_err(Fault::Files)?;
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    if length > limit {
        return Ok(None);
    }
    let mut data = vec![0; length];
    let read = files.read_at(&mut source, 0, &mut data).map_err(Fault::Files)?;
    data.truncate(read);
    Ok(Some(data))
}
