//! One connection: bytes in, heads and bodies out.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use super::super::{Error, Limits, Request, Scheme, Step, Url};
use super::body::{Body, Piece};
use super::head::{Framing, Head, find_end, parse};
use super::server::{Place, Shared};
use super::socket::{Socket, allowed, cause};

/// A rest of a body that is longer is not read to get at the next answer; a new connection is cheaper. In bytes.
const MAX_DRAINED: u64 = 64 << 10;

/// In the clear, or not.
#[derive(Debug)]
enum Stream {
    Plain(Box<Socket>),
    #[cfg(feature = "tls")]
    Tls(Box<crate::fetch::tls::TlsStream>),
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    pub place: Place,
    pub peer: SocketAddr,
    stream: Stream,
    limits: Limits,
    /// What came and was not used yet is `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Requests not written yet.
    out: Vec<u8>,
    body: Body,
    /// Body bytes that the answer may still have.
    room: u64,
    /// The request's limit, for the error.
    limit: u64,
    /// It ends after this answer.
    closes: bool,
    /// Heads that came.
    pub answers: u64,
}

impl Connection {
    /// Connects, with a handshake where the place has one.
    pub fn open(shared: &Shared, place: &Place) -> Result<Self, Error> {
        let limits = shared.limits;
        let mut last = None;
        for address in shared.addresses(place)? {
            if shared.stop.is_set() {
                return Err(Error::Stopped);
            }
            match Socket::connect(&address, &limits, &shared.stop) {
                Ok(socket) => {
                    shared.learned(place, address, true);
                    let stream = secure(shared, place, socket)?;
                    return Ok(Connection {
                        place: place.clone(),
                        peer: address,
                        stream,
                        limits,
                        buffer: vec![0; limits.head_bytes],
                        start: 0,
                        end: 0,
                        out: Vec::new(),
                        body: Body::End,
                        room: 0,
                        limit: 0,
                        closes: false,
                        answers: 0,
                    });
                }
                Err(error) => {
                    shared.learned(place, address, false);
                    last =
                        Some(Error::Connect { server: place.url.authority(), address, cause: cause(&error) });
                }
            }
        }
        Err(last.unwrap_or(Error::TimeOut(Step::Connect)))
    }

    /// Puts a request into the queue of what is to be written.
    pub fn ask(&mut self, request: &Request, url: &Url) {
        let agent = concat!("bootward/", env!("CARGO_PKG_VERSION"));
        let (path, host) = (&url.path, url.authority());
        self.out.extend_from_slice(b"GET ");
        self.out.extend_from_slice(path.as_bytes());
        let fixed =
            format!(" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept-Encoding: identity\r\n");
        self.out.extend_from_slice(fixed.as_bytes());
        if request.from > 0 {
            self.out.extend_from_slice(format!("Range: bytes={}-\r\n", request.from).as_bytes());
            if let Some(validator) = &request.validator {
                self.out.extend_from_slice(format!("If-Range: {validator}\r\n").as_bytes());
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Writes what was asked.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.out.is_empty() {
            return Ok(());
        }
        let step = self.socket().pace.step();
        if step != Step::Body {
            self.begin(Step::Send);
        }
        let out = std::mem::take(&mut self.out);
        let written = match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(&out),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.write_all(&out).and_then(|()| tls.flush()),
        };
        written.map_err(|error| self.meaning(&error))
    }

    /// Reads the head of the next answer, past interim ones.
    pub fn head(&mut self) -> Result<Head, Error> {
        self.begin(Step::Head);
        for _ in 0..=self.limits.interim {
            let mut seen = 0;
            let end = loop {
                let fresh = self.buffer.get(self.start..self.end).unwrap_or_default();
                if let Some(end) = find_end(fresh, seen)? {
                    break end;
                }
                seen = fresh.len();
                if seen >= self.buffer.len() {
                    return Err(Error::LongHead);
                }
                if self.fill()? == 0 {
                    return Err(Error::Closed(Step::Head));
                }
            };
            let bytes = self.buffer.get(self.start..self.start + end).unwrap_or_default();
            let head = parse(bytes, &self.limits)?;
            self.start += end;
            match head.status {
                // To another protocol, which nobody asked for.
                101 => return Err(Error::Status { code: 101, after: None }),
                100..200 => {}
                _ => {
                    self.answers += 1;
                    self.closes = head.closes;
                    self.body = Body::new(head.framing);
                    return Ok(head);
                }
            }
        }
        Err(Error::Interim)
    }

    /// Lets the body of the last head in: at most `limit` bytes.
    pub fn admit(&mut self, framing: Framing, limit: u64) {
        (self.room, self.limit) = (limit, limit);
        let length = match framing {
            Framing::Length(length) => length,
            Framing::Chunked | Framing::Close => limit,
        };
        let time = self.limits.body_time(length);
        self.socket().pace.begin(Step::Body, time);
    }

    /// Reads body; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let room = usize::try_from(self.room).unwrap_or(usize::MAX);
            let most = buffer.len().min(room.max(1));
            let fresh = self.buffer.get(self.start..self.end).unwrap_or_default();
            let count = match self.body.next(fresh, most, &self.limits)? {
                Piece::End => {
                    self.socket().pace.answered();
                    return Ok(0);
                }
                Piece::Skip(count) => {
                    self.start += count;
                    continue;
                }
                Piece::Data(count) => {
                    if let (Some(from), Some(to)) = (fresh.get(..count), buffer.get_mut(..count)) {
                        to.copy_from_slice(from);
                    }
                    self.start += count;
                    count
                }
                Piece::More => {
                    let straight = usize::try_from(self.body.straight()).unwrap_or(usize::MAX).min(most);
                    // Large pieces need not pass through our buffer, small ones bring the next answers along.
                    let came = match buffer.get_mut(..straight) {
                        Some(into) if straight >= self.buffer.len() => {
                            let came = self.receive_into(into)?;
                            self.body.passed(came);
                            came
                        }
                        _ if self.fill()? > 0 => continue,
                        _ => 0,
                    };
                    if came == 0 {
                        self.closes = true;
                        self.body.closed()?;
                        continue;
                    }
                    came
                }
            };
            if count as u64 > self.room {
                return Err(Error::TooLarge { length: None, limit: self.limit });
            }
            self.room -= count as u64;
            return Ok(count);
        }
    }

    /// Reads what is left of a body, if it is short. Whether the connection can be used for the next answer.
    pub fn drain(&mut self) -> bool {
        if self.body == Body::End {
            return !self.closes;
        }
        if self.closes || matches!(self.body, Body::Length(left) if left > MAX_DRAINED) {
            return false;
        }
        self.room = MAX_DRAINED;
        let time = self.limits.head;
        self.socket().pace.begin(Step::Body, time);
        let mut waste = [0; 4096];
        loop {
            match self.read(&mut waste) {
                Ok(0) => return !self.closes,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Whether nothing is to come any more, and something else may be asked.
    pub fn is_idle(&self) -> bool {
        self.answers > 0 && self.finished() && !self.closes && self.out.is_empty()
    }

    /// Whether the body of the last answer has come as a whole.
    pub fn finished(&self) -> bool {
        self.body == Body::End
    }

    fn begin(&mut self, step: Step) {
        let time = allowed(step, &self.limits);
        self.socket().pace.begin(step, time);
    }

    fn socket(&mut self) -> &mut Socket {
        match &mut self.stream {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => &mut tls.sock,
        }
    }

    /// Reads more into our buffer; 0 at the end of the connection.
    fn fill(&mut self) -> Result<usize, Error> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let into = self.buffer.get_mut(self.end..).unwrap_or_default();
        let came = match &mut self.stream {
            Stream::Plain(socket) => socket.read(into),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.read(into),
        };
        let came = came.map_err(|error| self.meaning(&error))?;
        self.end += came;
        Ok(came)
    }

    fn receive_into(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let came = match &mut self.stream {
            Stream::Plain(socket) => socket.read(into),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.read(into),
        };
        came.map_err(|error| self.meaning(&error))
    }

    fn meaning(&mut self, error: &io::Error) -> Error {
        match &mut self.stream {
            Stream::Plain(socket) => socket.meaning(error),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => crate::fetch::tls::meaning(&mut tls.sock, error, &self.place.url),
        }
    }
}

/// Puts TLS around a connection where the scheme says so.
fn secure(shared: &Shared, place: &Place, socket: Socket) -> Result<Stream, Error> {
    if place.url.scheme == Scheme::Http {
        return Ok(Stream::Plain(Box::new(socket)));
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &shared.tls {
        return Ok(Stream::Tls(Box::new(tls.handshake(socket, &place.url, place.own)?)));
    }
    let _ = (shared, socket);
    Err(Error::NoSupport("https"))
}
