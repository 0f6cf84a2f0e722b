//! A repository in a directory, on a stick for example.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::turn::{Body, InTurn, Source};
use super::url::decode;
use super::{Answer, Error, Found, Request, Transport, Url};
use crate::sys::beneath::Beneath;
use crate::sys::errno;

/// A directory; nothing outside of it is ever opened, whatever symbolic links are in it.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Arc<Beneath>,
}

impl Directory {
    /// Opens it.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(url: &Url) -> Result<Self, Error> {
        let path = decode(&url.path).map_err(Error::BadUrl)?;
        let root = Beneath::open(Path::new(std::ffi::OsStr::from_bytes(&path)));
        let root = root.map_err(|e| Error::Directory { path: url.path.clone(), cause: e.desc() })?;
        Ok(Directory { root: Arc::new(root) })
    }
}

impl Transport for Directory {
    type Channel = FileChannel;

    fn open(&self) -> Result<FileChannel, Error> {
        Ok(InTurn::new(self.clone()))
    }
}

/// Files are opened in the order in which they were asked for.
pub type FileChannel = InTurn<Directory>;

/// An open file, and its name.
#[derive(Debug)]
pub struct Open(File, String);

impl Source for Directory {
    type Body = Open;

    fn answer(&self, request: &Request) -> Result<(Answer, Option<Open>), Error> {
        let fail = |e: Errno| Error::File { path: request.path.clone(), cause: e.desc() };
        let path = decode(&request.path).map_err(Error::BadRequest)?;
        let path = String::from_utf8(path).map_err(|_| fail(Errno::EILSEQ))?;
        let mut file = match self.root.file(&path) {
            Ok(file) => file,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                return Ok((Answer { found: Found::Missing, length: Some(0), validator: None }, None));
            }
            Err(e) => return Err(fail(e)),
        };
        let data = file.metadata().map_err(|e| fail(errno(&e)))?;
        let validator = format!("{}-{}.{}-{}", data.ino(), data.mtime(), data.mtime_nsec(), data.len());
        let same = request.validator.as_ref().is_none_or(|known| *known == validator);
        let total = data.len();
        let (found, limit) = if request.from > 0 && same {
            (Found::Part { from: request.from, total: Some(total) }, request.limit)
        } else {
            (Found::Whole, request.limit.saturating_add(request.from))
        };
        let mut length = total;
        if let Found::Part { from, .. } = found {
            if from >= total {
                return Err(Error::PastEnd { total: Some(total) });
            }
            file.seek(SeekFrom::Start(from)).map_err(|e| fail(errno(&e)))?;
            length -= from;
        }
        if length > limit {
            return Err(Error::TooLarge { length: Some(length), limit });
        }
        let answer = Answer { found, length: Some(length), validator: Some(validator) };
        Ok((answer, Some(Open(file, request.path.clone()))))
    }
}

impl Body for Open {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let Open(file, path) = self;
        loop {
            match file.read(into) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                result => {
                    return result.map_err(|e| Error::File { path: path.clone(), cause: errno(&e).desc() });
                }
            }
        }
    }
}
