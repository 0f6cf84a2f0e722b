//! What failed, what to do about it, and whether to try again.

use alloc::string::String;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use super::url::UrlError;

/// What was being waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The TCP connection.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Sending requests.
    Send,
    /// The head of an answer.
    Head,
    /// Its body.
    Body,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Connect => "connecting",
            Step::Handshake => "the TLS handshake",
            Step::Send => "sending a request",
            Step::Head => "the head of an answer",
            Step::Body => "the body of an answer",
        }
    }
}

/// Whether a certificate was refused by us, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CertificateError {
    /// No CA that we were given has signed it.
    Unbelieved,
    /// It is for another name.
    Name,
    /// It is valid only later than our clock says, both in seconds since 1970.
    NotYet {
        /// Our clock.
        now: u64,
        /// The start of its validity, where told.
        from: Option<u64>,
    },
    /// Its time is over by our clock, both in seconds since 1970.
    Expired {
        /// Our clock.
        now: u64,
        /// The end of its validity, where told.
        until: Option<u64>,
    },
    /// It is wrong in another way, in the TLS library's words.
    Other(String),
}

/// Why there is no answer, or no more of it. `server` is its host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The base URL is none.
    BadUrl(UrlError),
    /// A scheme that this build has no support for.
    NoSupport(&'static str),
    /// The directory cannot be opened.
    Directory {
        /// As in the URL.
        path: String,
        /// The kernel's reason.
        cause: &'static str,
    },
    /// A file cannot be opened or read, or is no file.
    File {
        /// Below the directory.
        path: String,
        /// The kernel's reason.
        cause: &'static str,
    },
    /// A path or validator that cannot be sent.
    BadRequest(UrlError),
    /// Nothing is under way.
    NothingSent,
    /// No server was named.
    Nowhere,
    /// Somebody said that it is to end.
    Stopped,
    /// Its connection ended, with others before it; it was not answered and not refused.
    NotAnswered,
    /// The name cannot be resolved, in the words of the system.
    Resolve {
        /// The name.
        host: String,
        /// The reason.
        cause: String,
    },
    /// No address of the server takes a connection.
    Connect {
        /// The server.
        server: String,
        /// The address tried last.
        address: SocketAddr,
        /// The kernel's reason for it.
        cause: String,
    },
    /// CA file, client certificate or key cannot be used.
    Credentials {
        /// Which one.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The server's certificate is refused.
    Certificate {
        /// The server.
        server: String,
        /// Why.
        why: CertificateError,
    },
    /// The TLS handshake, or a record after it, failed otherwise.
    Tls {
        /// The server.
        server: String,
        /// In the words of the TLS library.
        cause: String,
    },
    /// The server refuses us within TLS: most often our client certificate.
    TlsRefused {
        /// The server.
        server: String,
        /// The alert that it sent.
        alert: String,
    },
    /// The time for a step is over.
    TimeOut(Step),
    /// Less came than the minimum rate, in bytes a second.
    Slow {
        /// The limit that was missed.
        rate: u64,
    },
    /// The body takes longer than its size allows.
    Overdue {
        /// The time that it had.
        allowed: Duration,
    },
    /// The connection broke.
    Broken {
        /// During this step.
        step: Step,
        /// The kernel's reason.
        cause: String,
    },
    /// The server ended the connection too early.
    Closed(Step),
    /// The server speaks no HTTP/1.x.
    NotHttp,
    /// The head, a chunk's line or the trailer is too long or has too many fields.
    LongHead,
    /// Too many interim answers.
    Interim,
    /// A field that contradicts itself, another one or the request; its name.
    Field(&'static str),
    /// A chunked body is not formed as one.
    Chunk,
    /// The file is longer than what was asked for allows.
    TooLarge {
        /// As told by the server, where it told.
        length: Option<u64>,
        /// The request's limit.
        limit: u64,
    },
    /// The file has no byte where it was to be resumed (416).
    PastEnd {
        /// The file's length, where told.
        total: Option<u64>,
    },
    /// The server has trouble, or refuses: any status that is not expected.
    Status {
        /// The status.
        code: u16,
        /// Its Retry-After, capped.
        after: Option<Duration>,
    },
    /// The redirect leads where we do not go.
    Redirect {
        /// Its target, as sent, shortened.
        to: String,
        /// Why not.
        why: RedirectError,
    },
    /// What came is a web page: a captive portal, or the URL of a web site and not of a repository.
    WebPage,
}

/// Why a redirect is not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedirectError {
    /// Too many after each other.
    Many,
    /// No Location, or one that is no URL we take.
    Url(UrlError),
    /// From https to http.
    Downgrade,
    /// To something that is not http or https.
    Scheme,
    /// From a server elsewhere to this device itself or its own link.
    Local,
    /// To another server, which a build with minreq does not follow.
    #[cfg(feature = "minreq")]
    Elsewhere,
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedirectError::Many => f.write_str("too many redirects, perhaps in a circle"),
            RedirectError::Url(error) => write!(f, "not usable: {error}"),
            RedirectError::Downgrade => f.write_str("from https to http"),
            RedirectError::Scheme => f.write_str("to a scheme that is not http or https"),
            RedirectError::Local => f.write_str("to this device itself or an address of its own link"),
            #[cfg(feature = "minreq")]
            RedirectError::Elsewhere => f.write_str("to another server; use a full build, or its URL"),
        }
    }
}

/// Whether it makes sense to try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Not without a change on this side or the server's.
    Never,
    /// At once, and for ever: nothing failed that concerns this request.
    Now,
    /// After this time, or [`super::Backoff`]'s where that is longer; a limited number of times.
    After(Duration),
}

impl Error {
    /// Whether and when to try again.
    pub fn retry(&self) -> Retry {
        let soon = Retry::After(Duration::ZERO);
        match self {
            Error::NotAnswered => Retry::Now,
            Error::Resolve { .. }
            | Error::Connect { .. }
            | Error::TimeOut(_)
            | Error::Slow { .. }
            | Error::Overdue { .. }
            | Error::Broken { .. }
            | Error::Closed(_)
            | Error::Tls { .. } => soon,
            // A device in a hotel: somebody may be about to log in.
            Error::WebPage => Retry::After(Duration::from_secs(60)),
            Error::Status { code: 408 | 425 | 429 | 500..=510 | 512..=599, after } => {
                Retry::After(after.unwrap_or(Duration::ZERO))
            }
            Error::Status { code: 511, .. } => Retry::After(Duration::from_secs(60)),
            _ => Retry::Never,
        }
    }

    /// How often in a row this is worth another try where there is somebody else to ask: what took long already is not
    /// tried as often as what fails at once, the C library has asked for a name several times before it says so, and who is
    /// slow stays slow, whatever came meanwhile.
    pub fn tries(&self) -> u32 {
        match self {
            Error::Resolve { .. } | Error::Slow { .. } | Error::Overdue { .. } => 0,
            Error::TimeOut(_) => 1,
            _ => u32::MAX,
        }
    }

    /// Whether it says something of the server or the way to it, and not of the one request: the next source is worth
    /// a try then.
    pub fn of_server(&self) -> bool {
        !matches!(
            self,
            Error::BadRequest(_)
                | Error::File { .. }
                | Error::NothingSent
                | Error::Stopped
                | Error::NotAnswered
                | Error::TooLarge { .. }
                | Error::PastEnd { .. }
        )
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Unbelieved => f.write_str(
                "no CA that this device was given has signed it; check the CA file, or who answers there",
            ),
            CertificateError::Name => {
                f.write_str("it is for another name; check the URL, or the names in the server's certificate")
            }
            CertificateError::NotYet { now, from } => {
                f.write_str("it is not valid yet: it begins ")?;
                date(f, *from)?;
                f.write_str(", this device's clock says ")?;
                date(f, Some(*now))?;
                f.write_str("; set the clock")
            }
            CertificateError::Expired { now, until } => {
                f.write_str("it has expired: it ended ")?;
                date(f, *until)?;
                f.write_str(", this device's clock says ")?;
                date(f, Some(*now))?;
                f.write_str("; renew it on the server, or set the clock")
            }
            CertificateError::Other(cause) => write!(f, "{cause}; renew it on the server"),
        }
    }
}

/// A day, in the proleptic Gregorian calendar.
fn date(f: &mut fmt::Formatter<'_>, seconds: Option<u64>) -> fmt::Result {
    let Some(seconds) = seconds else { return f.write_str("at another time") };
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days, for days from 1970.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    write!(f, "{:04}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::BadUrl(error) => write!(f, "the URL is not usable: {error}"),
            Error::NoSupport(scheme) => write!(f, "this build has no support for {scheme}://; use a full build"),
            Error::Directory { path, cause } => write!(f, "{path}: {cause}; is the medium mounted?"),
            Error::File { path, cause } => write!(f, "{path}: {cause}"),
            Error::BadRequest(error) => write!(f, "such a file cannot be asked for: {error}"),
            Error::NothingSent => f.write_str("nothing was asked for"),
            Error::Nowhere => f.write_str("it is missing or damaged, and no server is named; give --url"),
            Error::Stopped => f.write_str("it was stopped; what came is kept"),
            Error::NotAnswered => f.write_str("not answered: the connection ended before its turn"),
            Error::Resolve { host, cause } => {
                write!(f, "cannot resolve '{host}': {cause}; check the name, the network and the DNS server")
            }
            Error::Connect { server, address, cause } => {
                write!(f, "cannot connect to {server} ({address}): {cause}; check the network, a firewall, the port")
            }
            Error::Credentials { file, cause } => write!(f, "{file}: {cause}"),
            Error::Certificate { server, why } => write!(f, "the certificate of {server} is refused: {why}"),
            Error::Tls { server, cause } => {
                write!(f, "TLS with {server} failed: {cause}; is it an https server?")
            }
            Error::TlsRefused { server, alert } => {
                write!(f, "{server} refused the TLS connection: {alert}; check this device's client certificate")
            }
            Error::TimeOut(step) => {
                write!(f, "the server does not respond: time is over for {}", step.name())
            }
            Error::Slow { rate } => write!(f, "the server or the line is too slow: less than {rate} bytes a second"),
            Error::Overdue { allowed } => {
                write!(f, "the file takes longer than its size allows, {} s; the line is too slow", allowed.as_secs())
            }
            Error::Broken { step, cause } => write!(f, "the connection broke at {}: {cause}", step.name()),
            Error::Closed(step) => write!(f, "the server ended the connection at {}", step.name()),
            Error::NotHttp => f.write_str("the server's answer is not HTTP; check the port and the scheme of the URL"),
            Error::LongHead => f.write_str("the server's answer has a head beyond all limits; check who answers there"),
            Error::Interim => f.write_str("the server sends interim answers without end"),
            Error::Field(name) => {
                write!(f, "the server's answer has a '{name}' that is wrong; check the server, or a proxy before it")
            }
            Error::Chunk => f.write_str("the server's answer has a chunked body that is wrongly formed"),
            Error::TooLarge { length: Some(length), limit } => {
                write!(f, "the file has {length} bytes, {limit} are allowed")
            }
            Error::TooLarge { length: None, limit } => write!(f, "the file has more than the {limit} bytes allowed"),
            Error::PastEnd { .. } => f.write_str("the file on the server is shorter than the part that is here already"),
            Error::Status { code: 401 | 407, .. } => {
                f.write_str("the server or a proxy asks for a login; passwords and proxies are not supported")
            }
            Error::Status { code: 511, .. } => f.write_str("this network asks for a login first (captive portal)"),
            Error::Status { code: 400, .. } => {
                f.write_str("the server refuses the request (status 400): perhaps it wants a client certificate")
            }
            Error::Status { code, .. } if *code >= 500 => {
                write!(f, "the server has trouble (status {code}); see its log")
            }
            Error::Status { code, .. } => write!(f, "the server answered with status {code}; check the URL"),
            Error::Redirect { to, why } => write!(f, "a redirect to '{to}' is not followed: {why}"),
            Error::WebPage => {
                f.write_str("a web page came instead of the file: the network may want a login (captive portal), or the URL is of a web site")
            }
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_is_tried_again() {
        let status = |code, after| Error::Status { code, after }.retry();
        let ten = Duration::from_secs(10);
        assert_eq!(status(503, Some(ten)), Retry::After(ten));
        assert_eq!(status(429, None), Retry::After(Duration::ZERO));
        assert_eq!(status(401, None), Retry::Never);
        assert_eq!(status(511, None), Retry::After(Duration::from_secs(60)));
        assert_eq!(Error::NotAnswered.retry(), Retry::Now);
        assert_eq!(Error::Closed(Step::Body).retry(), Retry::After(Duration::ZERO));
        assert_eq!(Error::TooLarge { length: None, limit: 1 }.retry(), Retry::Never);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
            (4_102_444_800, "2100-01-01"),
        ] {
            let text = CertificateError::NotYet { now: seconds, from: None }.to_string();
            assert!(text.contains(day), "{text}");
        }
    }
}
