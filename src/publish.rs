//! What a publisher's verbs write, on any storage: after a power cut at any point each file is whole or not there, and the
//! same command finishes it.

use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::ostree::object::{self, Checksum, Kind};
use crate::ostree::sign::make::{MakeError, SECRET_MAX, Secret};
use crate::storage::{At, Files, Node, Volume};

/// What is being written has this at the end of its name.
const ASIDE: &str = ".new";

/// Why there is no new key.
#[derive(Debug)]
pub enum KeyError<E> {
    /// The medium or the filesystem refused.
    Files(E),
    /// Something has the name already.
    There(At),
    /// What has the name of the secret key is none, and nothing is written over it.
    NotASecret(At, MakeError),
    /// Somebody else wrote a key there at the same time.
    Changed(At),
}

impl<E: fmt::Display> fmt::Display for KeyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Files(e) => e.fmt(f),
            KeyError::There(at) => write!(f, "{at} is there already"),
            KeyError::NotASecret(at, why) => write!(f, "{at} is there already, and {why}"),
            KeyError::Changed(at) => write!(f, "{at} was written by somebody else meanwhile"),
        }
    }
}

/// Keeps a new key as two files, the public one beside the secret one; its public text comes back. Where a run was cut
/// between the two, the public one is written of the secret one that is there.
///
/// # Errors
/// When both are there, or what is there cannot be a run that was cut.
pub fn keep_key<F: Files>(files: &mut F, at: &At, secret: &Secret) -> Result<String, KeyError<F::Error>> {
    let public_at = at.beside(".pub");
    if files.node(&public_at).map_err(KeyError::Files)?.is_some() {
        return Err(KeyError::There(public_at));
    }
    let public = match files.node(at).map_err(KeyError::Files)? {
        None => {
            write(files, at, &secret.text(), 0o600)?;
            secret.public()
        }
        Some(Node::File) => {
            let text = files.read(at, SECRET_MAX).map_err(KeyError::Files)?;
            Secret::parse(&text).map_err(|why| KeyError::NotASecret(at.clone(), why))?.public()
        }
        Some(_) => return Err(KeyError::There(at.clone())),
    };
    write(files, &public_at, &public, 0o644)?;
    Ok(public)
}

/// Durable when this returns: the secret one before there is a public one.
fn write<F: Files>(files: &mut F, at: &At, text: &str, mode: u32) -> Result<(), KeyError<F::Error>> {
    let text = format!("{text}\n");
    put(files, &at.beside(ASIDE), at, text.as_bytes(), mode).map_err(KeyError::Files)?;
    let read = files.read(at, SECRET_MAX).map_err(KeyError::Files)?;
    if read == text.as_bytes() { Ok(()) } else { Err(KeyError::Changed(at.clone())) }
}

/// Puts detached metadata in place of a commit's old one; the storage's root is the repository. `aside` is where it is
/// made: in `tmp`, where libostree clears away what a cut left.
///
/// # Errors
/// When the medium refuses; the old one is there then, or the new one.
pub fn put_metadata<F: Files>(
    files: &mut F,
    aside: &At,
    commit: &Checksum,
    metadata: &[u8],
) -> Result<(), F::Error> {
    put(files, aside, &At::root(in_repo(commit, Kind::CommitMeta)), metadata, 0o644)
}

fn put<F: Files>(files: &mut F, aside: &At, at: &At, content: &[u8], mode: u32) -> Result<(), F::Error> {
    if files.node(aside)?.is_some() {
        files.unlink(aside)?;
    }
    files.create(aside, content, mode)?;
    files.rename(aside, at)?;
    files.sync(Volume::Root)
}

/// The place of an object, from the repository.
pub fn in_repo(commit: &Checksum, kind: Kind) -> String {
    let path = object::path(commit, kind);
    path.strip_prefix("ostree/repo/").unwrap_or(&path).into()
}
