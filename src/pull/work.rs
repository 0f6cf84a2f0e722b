//! A worker: asks for objects over one channel, and writes them aside.

use std::collections::VecDeque;
use std::time::Duration;

use crate::fetch::{self, Answer, Channel, Found, Request, Retry, Transport};
use crate::ostree::content::FILE_MAX;
use crate::ostree::object::{Checksum, Kind, OBJECT_MAX};
use crate::repo::store::{self, Store};
use crate::storage::{Trees, Volume};

use super::Error;
use super::error::path;
use super::incoming::{Incoming, IncomingError};
use super::session::{Next, Session};
use super::walk::Want;

/// Bytes that are read at once.
const BUFFER: usize = 32 * 1024;
/// Of a small object so many bytes are kept as they came, in case that the connection breaks.
const HELD: usize = 128 * 1024;
pub(super) struct Worker<'s, 'a, T: Transport, F: Trees> {
    session: &'s Session<'a, F::Error>,
    transport: &'s T,
    store: &'s mut Store<F>,
    channel: Option<T::Channel>,
    under_way: VecDeque<Want>,
    buffer: Vec<u8>,
    /// What came of the small object that is coming.
    held: Vec<u8>,
}

/// Why an object did not come this time.
enum Trouble<E> {
    /// The server, or the way to it.
    Fetch(fetch::Error),
    /// It came damaged.
    Damaged(Damage<E>),
    /// No use in trying again.
    Fatal(Error<E>),
}

enum Damage<E> {
    Incoming(IncomingError<E>),
    Checksum(Checksum),
}

impl<E> From<fetch::Error> for Trouble<E> {
    fn from(error: fetch::Error) -> Self {
        Trouble::Fetch(error)
    }
}

impl<'s, 'a, T: Transport, F: Trees> Worker<'s, 'a, T, F> {
    pub(super) fn new(session: &'s Session<'a, F::Error>, transport: &'s T, store: &'s mut Store<F>) -> Self {
        Worker {
            session,
            transport,
            store,
            channel: None,
            under_way: VecDeque::new(),
            buffer: vec![0; BUFFER],
            held: Vec::new(),
        }
    }

    /// Works until nothing is needed any more, here or by another worker's error.
    pub(super) fn run(&mut self) {
        loop {
            match self.round() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.session.stop(error),
            }
        }
    }

    fn round(&mut self) -> Result<bool, Error<F::Error>> {
        let done = self.fill()?;
        let Some(want) = self.under_way.pop_front() else {
            if !done {
                self.warm();
                self.session.wait();
            }
            return Ok(!done);
        };
        match self.one(&want) {
            Ok(()) => {}
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Fetch(cause)) => self.again(want, cause)?,
            Err(Trouble::Damaged(damage)) => {
                if !self.session.first_damage(&want.name) {
                    return Err(damage.told(&want));
                }
                self.session.give_back(want);
            }
        }
        Ok(true)
    }

    /// Puts as many requests under way as fit; true when there is nothing more to ask for.
    fn fill(&mut self) -> Result<bool, Error<F::Error>> {
        while self.under_way.len() < self.channel.as_ref().map_or(1, Channel::window).max(1) {
            let want = match self.session.next(self.under_way.len()) {
                Next::Want(want) => want,
                Next::Later => return Ok(false),
                Next::Done => return Ok(true),
            };
            if self.is_here(&want)? {
                continue;
            }
            if let Err(cause) = self.ask(&want) {
                self.again(want, cause)?;
                return Ok(false);
            }
            self.under_way.push_back(want);
        }
        Ok(false)
    }

    /// Connects while others wait for the first directories: those will name something for this one too.
    fn warm(&mut self) {
        if self.channel.is_none()
            && self.session.has_asked()
            && let Ok(channel) = self.transport.open()
        {
            self.channel.insert(channel).warm();
        }
    }

    /// Whether the repository has it; a metadata object that is damaged there is fetched again.
    fn is_here(&mut self, want: &Want) -> Result<bool, Error<F::Error>> {
        if !self.store.has(&want.name, want.kind).map_err(Error::Store)? {
            return Ok(false);
        }
        let data = match want.kind {
            Kind::File
                if self.session.options.check && !self.store.check(&want.name).map_err(Error::Store)? =>
            {
                return Ok(false);
            }
            Kind::File => Vec::new(),
            kind => match self.store.metadata(&want.name, kind) {
                Ok(data) => data,
                Err(store::Error::Changed(..)) => return Ok(false),
                Err(e) => return Err(Error::Store(e)),
            },
        };
        self.session.arrived(want, &data)?;
        Ok(true)
    }

    fn ask(&mut self, want: &Want) -> Result<(), fetch::Error> {
        let from = if want.kind == Kind::File { self.session.part(&want.name).unwrap_or(0) } else { 0 };
        let limit = match want.kind {
            Kind::File => self.session.free().min(FILE_MAX),
            _ => OBJECT_MAX as u64,
        };
        let request = Request { path: path(&want.name, want.kind), from, limit, validator: None };
        let channel = match &mut self.channel {
            Some(channel) => channel,
            none => none.insert(self.transport.open()?),
        };
        channel.send(request)?;
        self.session.asked();
        Ok(())
    }

    /// The object was not answered: later, or never.
    fn again(&mut self, want: Want, cause: fetch::Error) -> Result<(), Error<F::Error>> {
        let path = path(&want.name, want.kind);
        if let (fetch::Error::TooLarge { length, .. }, Kind::File) = (&cause, want.kind) {
            let free = self.session.free();
            return Err(Error::Room { needed: length.unwrap_or(free.saturating_add(1)), free });
        }
        let wait = match cause.retry() {
            // It was not its turn.
            Retry::Now => Duration::ZERO,
            _ => match self.session.options.pause(self.session.failed(), &cause) {
                Some(wait) => wait,
                None => return Err(Error::Fetch { path, cause }),
            },
        };
        if let Retry::After(least) = cause.retry()
            && !least.is_zero()
        {
            self.session.hold(least);
        }
        self.session.give_back(want);
        self.session.pause(wait);
        Ok(())
    }

    fn one(&mut self, want: &Want) -> Result<(), Trouble<F::Error>> {
        let Some(channel) = &mut self.channel else { return Err(fetch::Error::NotAnswered.into()) };
        let answer = match channel.receive() {
            Err(fetch::Error::PastEnd { .. }) if self.session.part(&want.name).is_some() => {
                return self.is_kept(want);
            }
            answer => answer?,
        };
        if answer.found == Found::Missing {
            let missing = Error::Missing { path: path(&want.name, want.kind) };
            return match want.kind {
                Kind::File if self.session.options.mirrored => {
                    self.session.lacks(missing);
                    Ok(())
                }
                _ => Err(Trouble::Fatal(missing)),
            };
        }
        let bytes = match want.kind {
            Kind::File => self.file(want, &answer)?,
            kind => {
                let data = self.whole(&answer)?;
                match self.store.put(&want.name, kind, &data) {
                    Ok(()) => {}
                    Err(store::Error::Checksum { found, .. }) => {
                        return Err(Trouble::Damaged(Damage::Checksum(found)));
                    }
                    Err(e) => return Err(Trouble::Fatal(Error::Store(e))),
                }
                self.session.arrived(want, &data).map_err(Trouble::Fatal)?;
                data.len() as u64
            }
        };
        self.came(want, bytes)
    }

    /// The server has no more than what is here of it: that is all, or of something else.
    fn is_kept(&mut self, want: &Want) -> Result<(), Trouble<F::Error>> {
        match self.take_large(want) {
            Ok(bytes) => self.came(want, bytes),
            Err(Trouble::Damaged(_)) => {
                self.forget_part(&want.name).map_err(Trouble::Fatal)?;
                self.session.give_back(*want);
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// An object is aside.
    fn came(&mut self, want: &Want, bytes: u64) -> Result<(), Trouble<F::Error>> {
        let due = self.session.aside(want, bytes);
        if want.kind == Kind::File {
            self.session.arrived(want, &[]).map_err(Trouble::Fatal)?;
        }
        if let Some(objects) = due {
            self.publish(&objects).map_err(Trouble::Fatal)?;
            let room = self.store.files().room(Volume::Root);
            let room = room.map_err(|e| Trouble::Fatal(Error::Store(store::Error::Files(e))))?;
            self.session.measured(room).map_err(Trouble::Fatal)?;
        }
        Ok(())
    }

    /// Only what has its place is durable, and the part that it was made of not needed any more: without the one and the other
    /// all of it would have to come again.
    fn publish(&mut self, objects: &[(Checksum, Kind)]) -> Result<(), Error<F::Error>> {
        self.store.publish(objects).map_err(Error::Store)?;
        for (name, _) in objects.iter().filter(|(name, _)| self.session.part(name).is_some()) {
            self.forget_part(name)?;
        }
        Ok(())
    }

    /// The body of a metadata object.
    fn whole(&mut self, answer: &Answer) -> Result<Vec<u8>, fetch::Error> {
        let told = answer.length.and_then(|length| usize::try_from(length).ok());
        let mut data = Vec::with_capacity(told.unwrap_or(0).min(OBJECT_MAX));
        while let Some(length) = self.read()? {
            data.extend(self.buffer.get(..length).unwrap_or_default());
        }
        Ok(data)
    }

    /// More of the body, into the buffer.
    fn read(&mut self) -> Result<Option<usize>, fetch::Error> {
        let Some(channel) = &mut self.channel else { return Err(fetch::Error::NotAnswered) };
        let length = channel.read(&mut self.buffer)?;
        self.session.received(length);
        Ok((length > 0).then_some(length))
    }

    fn file(&mut self, want: &Want, answer: &Answer) -> Result<u64, Trouble<F::Error>> {
        let resumed = matches!(answer.found, Found::Part { .. });
        if resumed || answer.length.is_some_and(|length| length >= self.session.options.part) {
            return self.large(want, resumed);
        }
        if self.session.part(&want.name).is_some() {
            self.forget_part(&want.name).map_err(Trouble::Fatal)?;
        }
        let mut incoming = Incoming::new(want.name, self.session.free());
        self.held.clear();
        let mut held = true;
        loop {
            let length = match self.read() {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(e) => {
                    incoming.abandon(self.store).map_err(|e| Trouble::Fatal(Error::Store(e)))?;
                    if held {
                        self.hold(&want.name).map_err(Trouble::Fatal)?;
                    }
                    return Err(e.into());
                }
            };
            let data = self.buffer.get(..length).unwrap_or_default();
            held &= self.held.len() + length <= HELD;
            if held {
                self.held.extend_from_slice(data);
            }
            incoming.feed(self.store, data).map_err(trouble)?;
        }
        let size = incoming.size();
        incoming.finish(self.store).map_err(trouble)?;
        Ok(size)
    }

    /// What came of a small object becomes its part: the next time only the rest is asked for.
    fn hold(&mut self, name: &Checksum) -> Result<(), Error<F::Error>> {
        let failed = |e| Error::Store(store::Error::Files(e));
        if !self.held.is_empty() {
            self.forget_part(name)?;
            let mut draft = self.store.files().draft(&store::part(name)).map_err(failed)?;
            self.store.files().append(&mut draft, &self.held).map_err(failed)?;
            self.session.set_part(name, Some(self.held.len() as u64));
        }
        Ok(())
    }

    /// A large object is kept as it comes, so that an interruption costs nothing of it, and read from there once it is whole.
    fn large(&mut self, want: &Want, resumed: bool) -> Result<u64, Trouble<F::Error>> {
        let at = store::part(&want.name);
        let fatal = |e| Trouble::Fatal(Error::Store(store::Error::Files(e)));
        let (mut draft, mut length) = if resumed {
            self.store.files().resume(&at).map_err(fatal)?
        } else {
            self.forget_part(&want.name).map_err(Trouble::Fatal)?;
            (self.store.files().draft(&at).map_err(fatal)?, 0)
        };
        let ended = loop {
            match self.read() {
                Ok(Some(count)) => {
                    let data = self.buffer.get(..count).unwrap_or_default();
                    self.store.files().append(&mut draft, data).map_err(fatal)?;
                    length += count as u64;
                    if self.session.is_due() {
                        self.store.files().sync(Volume::Root).map_err(fatal)?;
                    }
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        drop(draft);
        self.session.set_part(&want.name, Some(length));
        ended?;
        let taken = self.take_large(want);
        if let Err(Trouble::Damaged(_)) = &taken {
            self.forget_part(&want.name).map_err(Trouble::Fatal)?;
        }
        taken
    }

    fn take_large(&mut self, want: &Want) -> Result<u64, Trouble<F::Error>> {
        let fatal = |e| Trouble::Fatal(Error::Store(store::Error::Files(e)));
        let (mut source, _) = self.store.files().open(&store::part(&want.name)).map_err(fatal)?;
        let mut incoming = Incoming::new(want.name, self.session.free());
        let mut at = 0;
        loop {
            let length = self.store.files().read_at(&mut source, at, &mut self.buffer).map_err(fatal)?;
            if length == 0 {
                break;
            }
            at += length as u64;
            incoming.feed(self.store, self.buffer.get(..length).unwrap_or_default()).map_err(trouble)?;
        }
        let size = incoming.size();
        incoming.finish(self.store).map_err(trouble)?;
        Ok(size)
    }

    fn forget_part(&mut self, name: &Checksum) -> Result<(), Error<F::Error>> {
        self.session.set_part(name, None);
        self.store.forget_part(name).map_err(Error::Store)
    }
}

impl<E> Damage<E> {
    fn told(self, want: &Want) -> Error<E> {
        let path = path(&want.name, want.kind);
        match self {
            Damage::Incoming(cause) => Error::Object { path, cause },
            Damage::Checksum(found) => Error::Checksum { path, found },
        }
    }
}

/// What the medium refuses is no damage of the object.
fn trouble<E>(error: IncomingError<E>) -> Trouble<E> {
    match error {
        IncomingError::Store(e @ store::Error::Files(_)) => Trouble::Fatal(Error::Store(e)),
        IncomingError::Room { needed, free } => Trouble::Fatal(Error::Room { needed, free }),
        other => Trouble::Damaged(Damage::Incoming(other)),
    }
}
