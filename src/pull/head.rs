//! Which commit a ref names on the server, and the commit itself, let in or refused.

use crate::fetch::{self, Channel, Found, Request, Retry, Transport};
use crate::ostree::object::{COMMITMETA_MAX, Checksum, Kind, OBJECT_MAX};
use crate::ostree::sign::VerifiedCommit;
use crate::repo::refs;

use super::error::path;
use super::{Error, Options};

/// What is wanted of a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The name of the server in the repository; the ref is local without one.
    pub remote: Option<String>,
    /// The ref that is followed, and set when the commit is here.
    pub reference: Option<String>,
    /// This commit and no other.
    pub commit: Option<Checksum>,
}

/// Says whether a commit, with its detached metadata, is let in, or why not.
pub type Judge<'a> = &'a dyn Fn(Vec<u8>, Option<&[u8]>) -> Result<VerifiedCommit, String>;

/// The commit that is wanted, after it was let in, and its detached metadata. Nothing is written.
///
/// # Errors
/// See [`Error`].
pub fn head<T: Transport, E>(
    transport: &T,
    wanted: &Wanted,
    judge: Judge<'_>,
    options: &Options,
) -> Result<(VerifiedCommit, Option<Vec<u8>>), Error<E>> {
    let mut asking = Asking { transport, channel: None, options };
    let name = match (&wanted.commit, &wanted.reference) {
        (Some(commit), _) => *commit,
        (None, Some(reference)) if refs::is_valid(reference) => {
            let path = refs::path(None, reference);
            let data = asking.needed(&path, refs::REF_FILE_MAX)?;
            refs::parse(&data).ok_or(Error::NoCommit { path })?
        }
        (None, reference) => {
            return Err(Error::NoCommit { path: refs::path(None, reference.as_deref().unwrap_or_default()) });
        }
    };
    let place = path(&name, Kind::Commit);
    let commit = asking.needed(&place, OBJECT_MAX)?;
    let found = Checksum::of(&commit);
    if found != name {
        return Err(Error::Checksum { path: place, found });
    }
    let metadata = asking.get(&path(&name, Kind::CommitMeta), COMMITMETA_MAX)?;
    let verified = judge(commit, metadata.as_deref()).map_err(|why| Error::Refused { commit: name, why })?;
    Ok((verified, metadata))
}

/// One small file after the other.
struct Asking<'a, T: Transport> {
    transport: &'a T,
    channel: Option<T::Channel>,
    options: &'a Options,
}

impl<T: Transport> Asking<'_, T> {
    fn needed<E>(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, Error<E>> {
        self.get(path, limit)?.ok_or_else(|| Error::Missing { path: path.into() })
    }

    /// A file, tried as often as [`Options`] say; `None` when the server has none.
    fn get<E>(&mut self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Error<E>> {
        let mut failures = 0;
        loop {
            let cause = match self.once(path, limit) {
                Ok(data) => return Ok(data),
                Err(cause) => cause,
            };
            failures += 1;
            let least = match cause.retry() {
                Retry::After(least) => least,
                Retry::Now => std::time::Duration::ZERO,
                Retry::Never => return Err(Error::Fetch { path: path.into(), cause }),
            };
            if failures > self.options.tries {
                return Err(Error::Fetch { path: path.into(), cause });
            }
            std::thread::sleep(least.max(self.options.backoff.wait(failures, (self.options.random)())));
        }
    }

    fn once(&mut self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, fetch::Error> {
        let channel = match &mut self.channel {
            Some(channel) => channel,
            none => none.insert(self.transport.open()?),
        };
        channel.send(Request::whole(path, limit as u64))?;
        if channel.receive()?.found == Found::Missing {
            return Ok(None);
        }
        let (mut data, mut buffer) = (Vec::new(), [0; 8192]);
        loop {
            match channel.read(&mut buffer)? {
                0 => return Ok(Some(data)),
                length => data.extend(buffer.get(..length).unwrap_or_default()),
            }
        }
    }
}
