//! A file object on its way in: header, then the deflated content, in pieces of any size, into the repository.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use zlib_rs::{Inflate, InflateFlush, Status};

use crate::ostree::content::{Header, HeaderError, PREFIX_SIZE, header_length};
use crate::ostree::object::Checksum;
use crate::repo::store::{self, Draft, Store};
use crate::storage::Trees;

/// Bytes that are inflated at once.
const BUFFER: usize = 64 * 1024;
/// The window of a raw deflate stream, as a power of two.
const WINDOW_BITS: u8 = 15;

/// Why what comes is not the object.
#[derive(Debug)]
pub enum IncomingError<E> {
    /// Its header.
    Header(HeaderError),
    /// It would take so many bytes, and so many are free for it.
    Room {
        /// Bytes of the object.
        needed: u64,
        /// Bytes that may be written.
        free: u64,
    },
    /// The deflate stream is damaged.
    Deflate,
    /// More came after its end.
    Trailing,
    /// It ended before its time.
    Short,
    /// The repository refused it, or it has another checksum.
    Store(store::Error<E>),
}

impl<E: fmt::Display> fmt::Display for IncomingError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IncomingError::Header(e) => e.fmt(f),
            IncomingError::Room { needed, free } => {
                write!(f, "it takes {needed} bytes, {free} are free; free some space")
            }
            IncomingError::Deflate => f.write_str("its compressed content is damaged"),
            IncomingError::Trailing => f.write_str("more comes after its end"),
            IncomingError::Short => f.write_str("it ends too early"),
            IncomingError::Store(e) => e.fmt(f),
        }
    }
}

/// A file object of which a part is here.
pub struct Incoming<D> {
    name: Checksum,
    state: State<D>,
    /// Bytes of prefix and header.
    head: Vec<u8>,
    free: u64,
}

enum State<D> {
    Prefix,
    Header(usize),
    Content(Box<Content<D>>),
    /// A symbolic link that is written.
    Done,
    /// A step failed, and what was begun is gone.
    Failed,
}

struct Content<D> {
    draft: Draft<D>,
    inflate: Inflate,
    output: Vec<u8>,
    ended: bool,
}

impl<D> Incoming<D> {
    /// Waits for the first byte of an object; it may take `free` bytes.
    pub fn new(name: Checksum, free: u64) -> Self {
        Incoming { name, state: State::Prefix, head: Vec::new(), free }
    }

    /// Bytes of its content, once its header is here; 0 of a link.
    pub fn size(&self) -> u64 {
        match &self.state {
            State::Content(content) => content.draft.size(),
            _ => 0,
        }
    }

    /// Takes the bytes that came next.
    ///
    /// # Errors
    /// When they cannot belong to the object; nothing of it stays.
    pub fn feed<F: Trees<Draft = D>>(
        &mut self,
        store: &mut Store<F>,
        mut data: &[u8],
    ) -> Result<(), IncomingError<F::Error>> {
        while !data.is_empty() {
            let state = core::mem::replace(&mut self.state, State::Failed);
            self.state = match state {
                State::Prefix => match self.take(&mut data, PREFIX_SIZE) {
                    None => State::Prefix,
                    Some(prefix) => {
                        let prefix = prefix.try_into().map_err(|_| IncomingError::Short)?;
                        State::Header(header_length(prefix).map_err(IncomingError::Header)?)
                    }
                },
                State::Header(length) => match self.take(&mut data, PREFIX_SIZE + length) {
                    None => State::Header(length),
                    Some(whole) => {
                        let header = Header::parse(whole.get(PREFIX_SIZE..).unwrap_or_default());
                        self.begin(store, header.map_err(IncomingError::Header)?)?
                    }
                },
                State::Content(mut content) => {
                    if let Err(e) = content.inflate(store, data) {
                        store.discard(content.draft).map_err(IncomingError::Store)?;
                        return Err(e);
                    }
                    data = &[];
                    State::Content(content)
                }
                State::Done | State::Failed => return Err(IncomingError::Trailing),
            };
        }
        Ok(())
    }

    /// The first `length` bytes of prefix and header, once they are here.
    fn take(&mut self, data: &mut &[u8], length: usize) -> Option<&[u8]> {
        let missing = length.saturating_sub(self.head.len()).min(data.len());
        let (now, rest) = data.split_at_checked(missing)?;
        self.head.extend(now);
        *data = rest;
        (self.head.len() == length).then_some(&self.head)
    }

    fn begin<F: Trees<Draft = D>>(
        &mut self,
        store: &mut Store<F>,
        header: Header,
    ) -> Result<State<D>, IncomingError<F::Error>> {
        if let Some(target) = &header.target {
            store.symlink(&self.name, &header.meta, target).map_err(IncomingError::Store)?;
            return Ok(State::Done);
        }
        if header.size > self.free {
            return Err(IncomingError::Room { needed: header.size, free: self.free });
        }
        let draft = store.draft(&self.name, &header.meta, header.size).map_err(IncomingError::Store)?;
        let inflate = Inflate::new(false, WINDOW_BITS);
        let room = usize::try_from(header.size).unwrap_or(BUFFER).clamp(1, BUFFER);
        Ok(State::Content(Box::new(Content { draft, inflate, output: vec![0; room], ended: false })))
    }

    /// Ends the object.
    ///
    /// # Errors
    /// When it is not whole or not what its name says; nothing of it stays.
    pub fn finish<F: Trees<Draft = D>>(self, store: &mut Store<F>) -> Result<(), IncomingError<F::Error>> {
        match self.state {
            State::Done => Ok(()),
            State::Content(content) if content.ended => {
                store.seal(content.draft, &self.name).map_err(IncomingError::Store)
            }
            State::Content(content) => {
                store.discard(content.draft).map_err(IncomingError::Store)?;
                Err(IncomingError::Short)
            }
            _ => Err(IncomingError::Short),
        }
    }

    /// Throws away what is here of the object.
    ///
    /// # Errors
    /// When the medium refuses.
    pub fn abandon<F: Trees<Draft = D>>(self, store: &mut Store<F>) -> Result<(), store::Error<F::Error>> {
        match self.state {
            State::Content(content) => store.discard(content.draft),
            _ => Ok(()),
        }
    }
}

impl<D> Content<D> {
    fn inflate<F: Trees<Draft = D>>(
        &mut self,
        store: &mut Store<F>,
        mut data: &[u8],
    ) -> Result<(), IncomingError<F::Error>> {
        loop {
            if self.ended {
                return if data.is_empty() { Ok(()) } else { Err(IncomingError::Trailing) };
            }
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(data, &mut self.output, InflateFlush::NoFlush)
                .map_err(|_| IncomingError::Deflate)?;
            let moved = |now: u64, then: u64| usize::try_from(now - then).unwrap_or(usize::MAX);
            let (used, made) =
                (moved(self.inflate.total_in(), read), moved(self.inflate.total_out(), written));
            data = data.get(used..).unwrap_or_default();
            // One byte more than was told is too many: a bomb goes no further.
            if made as u64 > self.draft.missing() {
                let (told, found) = (written + self.draft.missing(), self.inflate.total_out());
                let error = store::Error::Size { name: self.draft.name(), told, found };
                return Err(IncomingError::Store(error));
            }
            store
                .append(&mut self.draft, self.output.get(..made).unwrap_or_default())
                .map_err(IncomingError::Store)?;
            self.ended = status == Status::StreamEnd;
            if !self.ended && data.is_empty() && made < self.output.len() {
                return Ok(());
            }
            if used == 0 && made == 0 && !self.ended {
                return if data.is_empty() { Ok(()) } else { Err(IncomingError::Deflate) };
            }
        }
    }
}
