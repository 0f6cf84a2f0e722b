//! HTTP by minreq: a connection for each request, in the clear, nothing under way beside it (feature `minreq`).
//!
//! The head is judged by the same code as everywhere, the limits are the same as far as minreq lets them be kept;
//! README.md above has what that leaves out.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::super::error::RedirectError;
use super::super::turn::{Body, InTurn, Source};
use super::super::url::UrlError;
use super::super::{Answer, Error, Found, Limits, Request, Step, Stop, Transport, Url};
use super::head::{Framing, Head, Verdict, interpret, shown};
use super::pace::Pace;
use super::server::Shared;
use super::socket::cause;

/// What minreq says when there was no status line, as the reason of a status of its own.
const NO_STATUS: &str = "Server did not provide a status line";

/// A server that is asked by minreq.
#[derive(Clone, Debug)]
pub struct Single {
    base: Url,
    shared: Arc<Shared>,
}

impl Single {
    /// A server that is asked in the clear.
    pub fn plain(base: Url, limits: &Limits, stop: Stop) -> Self {
        let mut shared = Shared::new(base.clone(), limits);
        shared.stop = stop;
        Single { base, shared: Arc::new(shared) }
    }
}

impl Transport for Single {
    type Channel = SingleChannel;

    fn open(&self) -> Result<SingleChannel, Error> {
        Ok(InTurn::new(self.clone()))
    }
}

/// A connection for each request.
pub type SingleChannel = InTurn<Single>;

/// The body of an answer.
pub struct Answered {
    response: minreq::ResponseLazy,
    pace: Pace,
    stop: Stop,
}

impl core::fmt::Debug for Answered {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Answered").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Source for Single {
    type Body = Answered;

    fn answer(&self, request: &Request) -> Result<(Answer, Option<Answered>), Error> {
        let mut url = self.base.below(&request.path);
        for _ in 0..=self.shared.limits.redirects {
            let (head, response, pace) = self.ask(&url, request)?;
            match head.answers(request)? {
                Verdict::Answer(answer) => {
                    let body = self.body(&answer, &head, response, pace)?;
                    return Ok((answer, body));
                }
                Verdict::Redirect { to, .. } => url = self.target(&url, &to)?,
            }
        }
        Err(Error::Redirect { to: shown(&url.to_string()), why: RedirectError::Many })
    }
}

impl Single {
    /// One question, one answer, and the time that it took.
    fn ask(&self, url: &Url, request: &Request) -> Result<(Head, minreq::ResponseLazy, Pace), Error> {
        if self.shared.stop.is_set() {
            return Err(Error::Stopped);
        }
        // It takes the colons of an address for that of the port.
        if url.host.contains(':') {
            return Err(Error::BadUrl(UrlError::Host));
        }
        let limits = &self.shared.limits;
        // Its one limit is for all of a request, in seconds.
        let time = limits.connect + limits.head + limits.body;
        let mut asked = minreq::get(url.to_string())
            .with_header("User-Agent", concat!("bootward/", env!("CARGO_PKG_VERSION")))
            .with_header("Accept-Encoding", "identity")
            .with_header("Connection", "close")
            .with_max_headers_size(limits.head_bytes)
            .with_max_status_line_length(limits.head_bytes)
            .with_follow_redirects(false)
            .with_timeout(time.as_secs() + u64::from(time.subsec_nanos() > 0));
        if request.from > 0 {
            asked = asked.with_header("Range", format!("bytes={}-", request.from));
            if let Some(validator) = &request.validator {
                asked = asked.with_header("If-Range", validator);
            }
        }
        let mut pace = Pace::new(limits);
        pace.begin(Step::Head, limits.connect + limits.head);
        let began = Instant::now();
        let response = asked.send_lazy();
        let time = began.elapsed();
        let response = response.map_err(meaning)?;
        let bytes = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        pace.waited(time, bytes)?;
        if response.headers.len() > limits.fields {
            return Err(Error::LongHead);
        }
        let head = match (response.status_code, response.reason_phrase.as_str()) {
            (503, NO_STATUS) => return Err(Error::NotHttp),
            (100 | 102..=199, _) => return Err(Error::Interim),
            (status, _) => {
                let fields = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                interpret(1, status, fields, limits)?
            }
        };
        Ok((head, response, pace))
    }

    /// Where a redirect leads: never to another server, whose address could not be looked at.
    fn target(&self, from: &Url, to: &str) -> Result<Url, Error> {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let place = self.shared.redirect(from, nobody, to)?;
        match place.own {
            true => Ok(place.url),
            false => Err(Error::Redirect { to: shown(to), why: RedirectError::Elsewhere }),
        }
    }

    /// The body of an answer that has one. Its length must be told: at the end of the connection minreq takes a head for
    /// whole, and a chunked body too.
    ///
    /// # Errors
    /// When it is not told.
    fn body(
        &self,
        answer: &Answer,
        head: &Head,
        response: minreq::ResponseLazy,
        mut pace: Pace,
    ) -> Result<Option<Answered>, Error> {
        let length = match head.framing {
            _ if answer.found == Found::Missing => return Ok(None),
            Framing::Length(length) => length,
            Framing::Close => return Err(Error::Field("Content-Length")),
            Framing::Chunked => return Err(Error::Field("Transfer-Encoding")),
        };
        pace.begin(Step::Body, self.shared.limits.body_time(length));
        Ok(Some(Answered { response, pace, stop: self.shared.stop.clone() }))
    }
}

impl Body for Answered {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        if self.stop.is_set() {
            return Err(Error::Stopped);
        }
        let began = Instant::now();
        let came = self.response.read(into);
        self.pace.waited(began.elapsed(), *came.as_ref().unwrap_or(&0))?;
        came.map_err(|error| broken(Step::Body, &error))
    }
}

fn broken(step: Step, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::TimeOut(step),
        io::ErrorKind::UnexpectedEof => Error::Closed(step),
        _ => Error::Broken { step, cause: cause(error) },
    }
}

/// What an error before the body means.
fn meaning(error: minreq::Error) -> Error {
    match error {
        minreq::Error::IoError(error) => broken(Step::Head, &error),
        minreq::Error::HeadersOverflow | minreq::Error::StatusLineOverflow => Error::LongHead,
        minreq::Error::MalformedContentLength => Error::Field("Content-Length"),
        _ => Error::NotHttp,
    }
}
