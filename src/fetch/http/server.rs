//! What all channels to one server share: where it is now, and what was learned of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::error::RedirectError;
use super::super::{Error, Limits, Scheme, Stop, Transport, Url};
use super::HttpChannel;
use super::connection::Connection;
use super::head::shown;
use super::socket::is_local;
use crate::fetch::resolve::resolve;
#[cfg(feature = "tls")]
use crate::fetch::tls::Tls;

/// A connection that was left for longer is not gone on with: somebody on the way may have forgotten it, and that shows by
/// a time out only.
const IDLE: Duration = Duration::from_secs(5);

/// A place that requests go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// What everything is asked below.
    pub url: Url,
    /// Whether addresses of this device and its link will do: only where the user said so, or a place there did.
    pub local: bool,
    /// The server that was configured: the only one that is shown our client certificate.
    pub own: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Shared {
    pub limits: Limits,
    pub stop: Stop,
    configured: Url,
    place: Mutex<Place>,
    window: AtomicUsize,
    /// The address that answered last, for a host and port.
    good: Mutex<Option<(String, u16, SocketAddr)>>,
    /// A connection that a channel has left, and when.
    idle: Mutex<Option<(Connection, Instant)>>,
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
}

/// A server that is asked by HTTP, plain or over TLS.
#[derive(Clone, Debug)]
pub struct Http {
    shared: Arc<Shared>,
}

impl Http {
    /// A server that is asked in the clear. A redirect to https is then an error, as nothing is there to trust its
    /// certificate by.
    pub fn plain(base: Url, limits: &Limits, stop: Stop) -> Self {
        Http { shared: Arc::new(Shared { stop, ..Shared::new(base, limits) }) }
    }

    /// A server that is asked over TLS, or redirects there.
    #[cfg(feature = "tls")]
    pub fn secure(base: Url, limits: &Limits, stop: Stop, tls: Tls) -> Self {
        Http { shared: Arc::new(Shared { stop, tls: Some(tls), ..Shared::new(base, limits) }) }
    }
}

impl Transport for Http {
    type Channel = HttpChannel;

    fn open(&self) -> Result<HttpChannel, Error> {
        Ok(HttpChannel::new(self.shared.clone()))
    }
}

/// Nothing under these locks can panic half-way; what is there is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A server, where it was configured to be.
    pub fn new(base: Url, limits: &Limits) -> Self {
        Shared {
            limits: *limits,
            stop: Stop::default(),
            place: Mutex::new(Place { url: base.clone(), local: true, own: true }),
            configured: base,
            window: AtomicUsize::new(limits.window.max(1)),
            good: Mutex::new(None),
            idle: Mutex::new(None),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Where the next connection goes.
    pub fn place(&self) -> Place {
        lock(&self.place).clone()
    }

    /// Everything is elsewhere now. Only the first of several channels that learn it has anything to say.
    pub fn moved(&self, from: &Place, to: Place) {
        let mut place = lock(&self.place);
        if *place == *from {
            log::info!("{} has moved to {}", from.url, to.url);
            *place = to;
        }
    }

    /// Keeps a connection on which nothing is under way, for the next channel.
    pub fn leave(&self, connection: Connection) {
        *lock(&self.idle) = Some((connection, Instant::now()));
    }

    /// The connection to a place that was left, where it was just now.
    pub fn left(&self, place: &Place) -> Option<Connection> {
        let (connection, since) = lock(&self.idle).take()?;
        (connection.place == *place && since.elapsed() < IDLE).then_some(connection)
    }

    /// Requests that may be under way in one connection.
    pub fn window(&self) -> usize {
        self.window.load(Ordering::Relaxed)
    }

    /// The server breaks pipelines: one request at a time from now on.
    pub fn one_by_one(&self) {
        if self.window.swap(1, Ordering::Relaxed) > 1 {
            log::info!(
                "{} does not take several requests at once; asking one by one",
                self.configured.authority()
            );
        }
    }

    /// Where a redirect from a place leads; `from` is the URL that was asked for, `peer` who answered.
    ///
    /// # Errors
    /// When we do not go there.
    pub fn redirect(&self, from: &Url, peer: SocketAddr, to: &str) -> Result<Place, Error> {
        let refuse = |why| Error::Redirect { to: shown(to), why };
        let url = from.target(to).map_err(|error| match error {
            super::super::url::UrlError::Scheme => refuse(RedirectError::Scheme),
            error => refuse(RedirectError::Url(error)),
        })?;
        match (from.scheme, url.scheme) {
            (_, Scheme::File) => return Err(refuse(RedirectError::Scheme)),
            (Scheme::Https, Scheme::Http) => return Err(refuse(RedirectError::Downgrade)),
            _ => {}
        }
        let own = url.same_server(&self.configured);
        Ok(Place { local: own || is_local(peer.ip()), own, url })
    }

    /// The addresses of a place, the one that was good before first.
    pub fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>, Error> {
        let (host, port) = (place.url.host.as_str(), place.url.port);
        if let Some((known, at, address)) = lock(&self.good).as_ref()
            && known == host
            && *at == port
        {
            return Ok(vec![*address]);
        }
        let mut addresses = resolve(host, port, self.limits.resolve, &mut || true)
            .map_err(|cause| Error::Resolve { host: host.into(), cause })?;
        addresses.retain(|address| place.local || !is_local(address.ip()));
        if addresses.is_empty() {
            return Err(Error::Redirect { to: shown(&place.url.to_string()), why: RedirectError::Local });
        }
        Ok(addresses)
    }

    /// An address answered, or did not any more.
    pub fn learned(&self, place: &Place, address: SocketAddr, good: bool) {
        let mut known = lock(&self.good);
        if good {
            *known = Some((place.url.host.clone(), place.url.port, address));
        } else if known.as_ref().is_some_and(|(_, _, old)| *old == address) {
            *known = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_from_elsewhere_does_not_lead_to_this_device() {
        let shared = Shared::new(Url::parse("http://updates.example/r").unwrap(), &Limits::default());
        let from = shared.place().url;
        let peer = "203.0.113.7:80".parse().unwrap();
        for to in
            ["http://127.0.0.1/x", "http://169.254.169.254/latest", "http://[::1]:8080/", "http://0.0.0.0/"]
        {
            let place = shared.redirect(&from, peer, to).unwrap();
            let refused = shared.addresses(&place);
            assert!(
                matches!(refused, Err(Error::Redirect { why: RedirectError::Local, .. })),
                "{to}: {refused:?}"
            );
        }
        let place = shared.redirect(&from, peer, "http://10.0.0.1/x").unwrap();
        assert_eq!(shared.addresses(&place).unwrap().len(), 1);
        // From a server on this device, another one on it will do.
        let place = shared.redirect(&from, "127.0.0.1:80".parse().unwrap(), "http://127.0.0.1:81/").unwrap();
        assert!(place.local && !place.own && shared.addresses(&place).is_ok());
    }

    #[test]
    fn redirects_that_are_refused() {
        let shared = Shared::new(Url::parse("https://updates.example/r").unwrap(), &Limits::default());
        let from = shared.place().url;
        let peer = "203.0.113.7:443".parse().unwrap();
        let why = |to| match shared.redirect(&from, peer, to) {
            Err(Error::Redirect { why, .. }) => Some(why),
            _ => None,
        };
        assert_eq!(why("http://updates.example/r/x"), Some(RedirectError::Downgrade));
        assert_eq!(why("file:///etc/passwd"), Some(RedirectError::Scheme));
        assert_eq!(why("ftp://h/x"), Some(RedirectError::Scheme));
        assert!(matches!(why("nowhere"), Some(RedirectError::Url(_))));
        assert_eq!(why("https://updates.example/s/x"), None);
        assert!(shared.redirect(&from, peer, "/s/x").unwrap().own);
        assert!(!shared.redirect(&from, peer, "https://updates.example:444/s/x").unwrap().own);
    }
}
