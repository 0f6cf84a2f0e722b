//! The transport that a URL asks for.

#[cfg(feature = "tls")]
use std::path::PathBuf;

use super::file::{Directory, FileChannel};
#[cfg(any(feature = "tls", not(feature = "minreq")))]
use super::http::{Http, HttpChannel};
#[cfg(all(feature = "minreq", not(feature = "tls")))]
use super::http::{Single as Http, SingleChannel as HttpChannel};
#[cfg(feature = "tls")]
use super::tls::{Clock, Identity, Tls};
use super::{Answer, Channel, Error, Limits, Request, Scheme, Stop, Transport, Url};

/// What a transport needs to know besides the URL.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limits on what the server may do.
    pub limits: Limits,
    /// Ends whatever waits for the server.
    pub stop: Stop,
    /// PEM files of the CAs that are believed; https needs one at least. Plain http uses them when it is redirected.
    #[cfg(feature = "tls")]
    pub authorities: Vec<PathBuf>,
    /// Who we are, for servers that want to know (mTLS).
    #[cfg(feature = "tls")]
    pub identity: Option<Identity>,
    /// What time it is.
    #[cfg(feature = "tls")]
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limits: Limits::default(),
            stop: Stop::default(),
            #[cfg(feature = "tls")]
            authorities: Vec::new(),
            #[cfg(feature = "tls")]
            identity: None,
            #[cfg(feature = "tls")]
            clock: Clock::system(0),
        }
    }
}

/// A server of any kind.
#[derive(Clone, Debug)]
pub enum AnyTransport {
    /// A directory.
    File(Directory),
    /// HTTP, plain or over TLS.
    Http(Http),
}

/// A channel to it.
#[derive(Debug)]
pub enum AnyChannel {
    /// To a directory.
    File(FileChannel),
    /// To an HTTP server.
    Http(Box<HttpChannel>),
}

/// The transport for a URL. Nothing is connected yet.
///
/// # Errors
/// When the directory, the CA or the client certificate cannot be used, or this build does not know the scheme.
pub fn open(url: &Url, options: &Options) -> Result<AnyTransport, Error> {
    match url.scheme {
        Scheme::File => Directory::new(url).map(AnyTransport::File),
        #[cfg(feature = "tls")]
        Scheme::Https => secure(url, options),
        #[cfg(feature = "tls")]
        Scheme::Http if !options.authorities.is_empty() => secure(url, options),
        #[cfg(not(feature = "tls"))]
        Scheme::Https => Err(Error::NoSupport("https")),
        Scheme::Http => {
            Ok(AnyTransport::Http(Http::plain(url.clone(), &options.limits, options.stop.clone())))
        }
    }
}

#[cfg(feature = "tls")]
fn secure(url: &Url, options: &Options) -> Result<AnyTransport, Error> {
    let tls = Tls::new(&options.authorities, options.identity.as_ref(), options.clock)?;
    Ok(AnyTransport::Http(Http::secure(url.clone(), &options.limits, options.stop.clone(), tls)))
}

impl Transport for AnyTransport {
    type Channel = AnyChannel;

    fn open(&self) -> Result<AnyChannel, Error> {
        match self {
            AnyTransport::File(directory) => directory.open().map(AnyChannel::File),
            AnyTransport::Http(http) => http.open().map(|channel| AnyChannel::Http(Box::new(channel))),
        }
    }
}

impl Channel for AnyChannel {
    fn window(&self) -> usize {
        match self {
            AnyChannel::File(channel) => channel.window(),
            AnyChannel::Http(channel) => channel.window(),
        }
    }

    fn warm(&mut self) {
        if let AnyChannel::Http(channel) = self {
            channel.warm();
        }
    }

    fn send(&mut self, request: Request) -> Result<(), Error> {
        match self {
            AnyChannel::File(channel) => channel.send(request),
            AnyChannel::Http(channel) => channel.send(request),
        }
    }

    fn receive(&mut self) -> Result<Answer, Error> {
        match self {
            AnyChannel::File(channel) => channel.receive(),
            AnyChannel::Http(channel) => channel.receive(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        match self {
            AnyChannel::File(channel) => channel.read(buffer),
            AnyChannel::Http(channel) => channel.read(buffer),
        }
    }
}
