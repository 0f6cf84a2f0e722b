//! Which commit a ref names on the server, and the commit itself, let in or refused.

use std::time::{Duration, Instant};

use crate::fetch::{self, Channel, Found, Request, Transport};
use crate::ostree::object::{COMMITMETA_MAX, Checksum, Kind, OBJECT_MAX};
use crate::ostree::sign::VerifiedCommit;
use crate::repo::refs;
use crate::repo::store::{self, Store};
use crate::storage::{Trees, Volume};

use super::error::path;
use super::{Error, Options};

/// How often whoever waits looks whether it is to stop.
const TICK: Duration = Duration::from_millis(200);

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
    let mut asking = Asking::new(transport, options);
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
    let metadata = path(&name, Kind::CommitMeta);
    asking.next = Some(Request::whole(metadata.as_str(), COMMITMETA_MAX as u64));
    let commit = commit(&mut asking, &name)?;
    let metadata = asking.get(&metadata, COMMITMETA_MAX)?;
    let verified = judge(commit, metadata.as_deref()).map_err(|why| Error::Refused { commit: name, why })?;
    Ok((verified, metadata))
}

/// A commit object by its name.
pub(super) fn commit<T: Transport, E>(
    asking: &mut Asking<'_, T>,
    name: &Checksum,
) -> Result<Vec<u8>, Error<E>> {
    let path = path(name, Kind::Commit);
    let commit = asking.needed(&path, OBJECT_MAX)?;
    match Checksum::of(&commit) {
        found if found == *name => Ok(commit),
        found => Err(Error::Checksum { path, found }),
    }
}

/// One file after the other.
pub(super) struct Asking<'a, T: Transport> {
    transport: &'a T,
    channel: Option<T::Channel>,
    options: &'a Options,
    /// What will be asked for next: it is sent behind the request before it, and is under way from then on.
    next: Option<Request>,
    under_way: Option<Request>,
}

impl<'a, T: Transport> Asking<'a, T> {
    pub(super) fn new(transport: &'a T, options: &'a Options) -> Self {
        Asking { transport, channel: None, options, next: None, under_way: None }
    }

    /// What another one is made of, with a connection of its own.
    pub(super) fn source(&self) -> (&'a T, &'a Options) {
        (self.transport, self.options)
    }

    /// Brings a file of a known length to the place of a part; what is there of it already is not fetched again.
    pub(super) fn keep<F: Trees>(
        &mut self,
        store: &mut Store<F>,
        path: &str,
        name: &Checksum,
        size: u64,
        bytes: &mut u64,
    ) -> Result<(), Error<F::Error>> {
        let files = |e| Error::Store(store::Error::Files(e));
        let at = store::part(name);
        let (mut failures, mut synced, durable) = (0, Instant::now(), self.options.durable);
        loop {
            let there = store.files().node(&at).map_err(files)?.is_some();
            let (mut draft, length) =
                if there { store.files().resume(&at) } else { store.files().draft(&at).map(|d| (d, 0)) }
                    .map_err(files)?;
            if length == size {
                return Ok(());
            }
            if length > size {
                drop(draft);
                store.forget_part(name).map_err(Error::Store)?;
                continue;
            }
            let request = Request { path: path.into(), from: length, limit: size - length, validator: None };
            let before = *bytes;
            let mut put = |data: &[u8]| {
                *bytes += data.len() as u64;
                store.files().append(&mut draft, data)?;
                if synced.elapsed() >= durable {
                    synced = Instant::now();
                    store.files().sync(Volume::Root)?;
                }
                Ok(())
            };
            let cause = match self.stream(request, &mut put) {
                Ok(Some(Ok(()))) => continue,
                Ok(Some(Err(e))) => return Err(files(e)),
                Ok(None) => return Err(Error::Missing { path: path.into() }),
                Err(cause) => cause,
            };
            if *bytes > before {
                failures = 0;
            }
            self.wait(&mut failures, path, cause)?;
        }
    }

    /// Waits before the next try, or gives up.
    fn wait<E>(&self, failures: &mut u32, path: &str, cause: fetch::Error) -> Result<(), Error<E>> {
        *failures += 1;
        let Some(wait) = self.options.pause(*failures, &cause) else {
            return Err(Error::Fetch { path: path.into(), cause });
        };
        let until = Instant::now() + wait;
        while !self.options.stop.is_set() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
        Err(Error::Fetch { path: path.into(), cause: fetch::Error::Stopped })
    }

    /// Hands a body on as it comes; `None` when the server has no such file, the inner error is the receiver's.
    fn stream<E>(
        &mut self,
        request: Request,
        put: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Option<Result<(), E>>, fetch::Error> {
        let resumed = request.from;
        let sent = self.under_way.take();
        if sent.as_ref().is_some_and(|sent| *sent != request) {
            // Its answer would come first.
            self.channel = None;
        }
        let channel = match &mut self.channel {
            Some(channel) => channel,
            none => none.insert(self.transport.open()?),
        };
        if sent.is_none_or(|sent| sent != request) {
            channel.send(request)?;
        }
        if channel.window() > 1
            && let Some(next) = self.next.take()
        {
            channel.send(next.clone())?;
            self.under_way = Some(next);
        }
        match channel.receive()?.found {
            Found::Missing => return Ok(None),
            // The server sends no parts of files.
            Found::Whole if resumed > 0 => return Err(fetch::Error::PastEnd { total: None }),
            _ => {}
        }
        let mut buffer = [0; 8192];
        loop {
            match channel.read(&mut buffer)? {
                0 => return Ok(Some(Ok(()))),
                length => {
                    if let Err(e) = put(buffer.get(..length).unwrap_or_default()) {
                        return Ok(Some(Err(e)));
                    }
                }
            }
        }
    }

    fn needed<E>(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, Error<E>> {
        self.get(path, limit)?.ok_or_else(|| Error::Missing { path: path.into() })
    }

    /// A file, tried as often as [`Options`] say; `None` when the server has none.
    pub(super) fn get<E>(&mut self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Error<E>> {
        let mut failures = 0;
        loop {
            match self.once(path, limit) {
                Ok(data) => return Ok(data),
                Err(cause) => self.wait(&mut failures, path, cause)?,
            }
        }
    }

    /// As [`Asking::get`], tried once.
    pub(super) fn once(&mut self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, fetch::Error> {
        let mut data = Vec::new();
        let mut put = |more: &[u8]| {
            data.extend(more);
            Ok::<(), std::convert::Infallible>(())
        };
        let found = self.stream(Request::whole(path, limit as u64), &mut put)?;
        Ok(found.map(|_| data))
    }
}
