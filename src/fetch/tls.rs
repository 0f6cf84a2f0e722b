//! TLS: whom we believe, who we are, and what time it is.
//!
//! Nothing rests on it but privacy: what came is believed for its signatures. There are no built-in CAs: a fleet has
//! its own, a public one is believed by giving the system's bundle, and 150 built-in ones would be out of date before
//! the device is.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};

use super::error::CertificateError;
use super::http::socket::{Socket, cause};
use super::{Error, Url};

/// A longer PEM file is refused, in bytes; the system's bundle has 220 KB.
const MAX_PEM: u64 = 1 << 20;
/// With a clock that is not trusted, so many certificates of a chain may begin later than it says.
const MAX_CHAIN: usize = 4;

/// A connection inside TLS.
pub type TlsStream = StreamOwned<ClientConnection, Socket>;

/// What time it is, as far as a device knows.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    at: Duration,
    since: Instant,
    trusted: bool,
}

impl Clock {
    /// The system's clock, where it was set: later than `floor`, the latest time known to be past, in seconds since 1970.
    /// Otherwise it is that time and more: what is not valid yet by it passes then, what has expired does not.
    pub fn system(floor: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { trusted: now.as_secs() >= floor, ..Clock::at(now.as_secs().max(floor)) }
    }

    /// A clock that says this now, in seconds since 1970, and is right.
    pub fn at(seconds: u64) -> Self {
        Clock { at: Duration::from_secs(seconds), since: Instant::now(), trusted: true }
    }

    /// A clock that says this now, and is behind by nobody knows how much.
    pub fn at_least(seconds: u64) -> Self {
        Clock { trusted: false, ..Clock::at(seconds) }
    }

    fn now(&self) -> Duration {
        self.at.saturating_add(self.since.elapsed())
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.now()))
    }
}

/// A client certificate and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// PEM, with the chain up to what the server knows.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, SEC 1 or PKCS#1, not encrypted.
    pub key: PathBuf,
}

/// Everything that a handshake needs, read once.
#[derive(Clone)]
pub struct Tls {
    /// For the server that was configured, with our certificate.
    own: Arc<ClientConfig>,
    /// For those that it redirects to.
    other: Arc<ClientConfig>,
    clock: Clock,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be used, or no CA is given.
    pub fn new(authorities: &[PathBuf], identity: Option<&Identity>, clock: Clock) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for path in authorities {
            let pem = pem(path)?;
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|e| credentials(path, format!("no PEM: {e}")))?;
                // A bundle may have one that we cannot read; of one's own CA that would be all.
                let _ = roots.add(certificate);
            }
            if roots.len() == before {
                return Err(credentials(path, "no CA certificate in it that can be used".into()));
            }
        }
        if roots.is_empty() {
            return Err(credentials(
                Path::new("https"),
                "no CA file is given: give that of the server's CA, or the system's bundle".into(),
            ));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let broken = |e: &dyn fmt::Display| credentials(Path::new("TLS"), e.to_string());
        let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|e| broken(&e))?;
        let verifier = Arc::new(Verifier { strict, trusted: clock.trusted });
        let build = || {
            let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock));
            let builder = builder.with_safe_default_protocol_versions().map_err(|e| broken(&e))?;
            Ok(builder.dangerous().with_custom_certificate_verifier(verifier.clone()))
        };
        let other = Arc::new(build()?.with_no_client_auth());
        let own = match identity {
            None => other.clone(),
            Some(Identity { certificate, key }) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem(certificate)?).collect();
                let chain = chain.map_err(|e| credentials(certificate, format!("no PEM: {e}")))?;
                if chain.is_empty() {
                    return Err(credentials(certificate, "no certificate in it".into()));
                }
                let secret = PrivateKeyDer::from_pem_slice(&pem(key)?)
                    .map_err(|_| credentials(key, "no private key in PEM, or an encrypted one".into()))?;
                let config = build()?.with_client_auth_cert(chain, secret);
                Arc::new(
                    config
                        .map_err(|e| credentials(key, format!("it does not go with the certificate: {e}")))?,
                )
            }
        };
        Ok(Tls { own, other, clock })
    }

    /// Makes a connection a TLS connection.
    ///
    /// # Errors
    /// When the server is not who it should be, or no TLS server.
    pub fn handshake(&self, socket: Socket, url: &Url, own: bool) -> Result<TlsStream, Error> {
        let config = if own { &self.own } else { &self.other };
        let failed = |e: &dyn fmt::Display| Error::Tls { server: url.authority(), cause: e.to_string() };
        let name = ServerName::try_from(url.host.clone()).map_err(|e| failed(&e))?;
        let session = ClientConnection::new(config.clone(), name).map_err(|e| failed(&e))?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
                let meaning = meaning(&mut stream.sock, &error, url);
                return Err(match meaning {
                    Error::Certificate { server, why } => {
                        Error::Certificate { server, why: why.at(self.clock.now().as_secs()) }
                    }
                    other => other,
                });
            }
        }
        Ok(stream)
    }
}

impl CertificateError {
    /// Puts our clock in where the library did not tell it.
    fn at(self, clock: u64) -> Self {
        match self {
            CertificateError::NotYet { from, .. } => CertificateError::NotYet { now: clock, from },
            CertificateError::Expired { until, .. } => CertificateError::Expired { now: clock, until },
            other => other,
        }
    }
}

fn credentials(file: &Path, cause: String) -> Error {
    Error::Credentials { file: file.display().to_string(), cause }
}

fn pem(path: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|e| credentials(path, cause(&e)))?;
    file.take(MAX_PEM + 1).read_to_end(&mut text).map_err(|e| credentials(path, cause(&e)))?;
    if text.len() as u64 > MAX_PEM {
        return Err(credentials(path, format!("longer than {MAX_PEM} bytes")));
    }
    Ok(text)
}

/// What an error of a connection inside TLS means.
pub fn meaning(socket: &mut Socket, error: &io::Error, url: &Url) -> Error {
    use rustls::CertificateError as Theirs;
    let Some(theirs) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return socket.meaning(error);
    };
    let server = url.authority();
    let why = match theirs {
        rustls::Error::InvalidCertificate(why) => why,
        rustls::Error::AlertReceived(alert) => {
            return Error::TlsRefused { server, alert: alert_name(*alert) };
        }
        other => return Error::Tls { server, cause: other.to_string() },
    };
    let why = match why {
        Theirs::UnknownIssuer | Theirs::BadSignature => CertificateError::Unbelieved,
        Theirs::NotValidForName | Theirs::NotValidForNameContext { .. } => CertificateError::Name,
        Theirs::NotValidYet => CertificateError::NotYet { now: 0, from: None },
        Theirs::NotValidYetContext { time, not_before } => {
            CertificateError::NotYet { now: time.as_secs(), from: Some(not_before.as_secs()) }
        }
        Theirs::Expired => CertificateError::Expired { now: 0, until: None },
        Theirs::ExpiredContext { time, not_after } => {
            CertificateError::Expired { now: time.as_secs(), until: Some(not_after.as_secs()) }
        }
        other => CertificateError::Other(other.to_string()),
    };
    Error::Certificate { server, why }
}

/// The device is built without the names that Debug prints; the number and what it is most often.
fn alert_name(alert: rustls::AlertDescription) -> String {
    let number: u8 = alert.into();
    let name = match number {
        40 => "no common parameters",
        42 | 43 | 46 => "it does not accept our certificate",
        44 => "our certificate is revoked",
        45 => "our certificate has expired",
        48 => "it does not know the CA of our certificate",
        70 => "no common TLS version",
        112 => "it does not know the name",
        116 => "it wants a client certificate",
        _ => "",
    };
    format!("alert {number} {name}").trim_end().into()
}

/// The library's verifier; with a clock that is not trusted, a certificate that begins in its future is held against
/// the time at which it begins.
#[derive(Debug)]
struct Verifier {
    strict: Arc<WebPkiServerVerifier>,
    trusted: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        mut now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        for _ in 0..MAX_CHAIN {
            match self.strict.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                Err(rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) if !self.trusted && not_before.as_secs() > now.as_secs() => now = not_before,
                verdict => return verdict,
            }
        }
        self.strict.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
