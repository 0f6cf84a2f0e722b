//! URLs of servers, strictly: what is not plainly a scheme, a host, a port and a path is refused.
//!
//! RFC 3986 without user information, query of the base, fragment and relative references beyond what a redirect
//! needs. Names must be in ASCII already (punycode).

use alloc::string::{String, ToString};
use core::fmt;

/// A longer URL is refused, in bytes.
pub const MAX_URL: usize = 2048;

/// How a server is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// A directory.
    File,
    /// HTTP over TCP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// Its name, as in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::File => "file",
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port where a URL names none; 0 for a directory.
    pub fn port(self) -> u16 {
        match self {
            Scheme::File => 0,
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Where a server is, and the path that everything is asked below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// How it is reached.
    pub scheme: Scheme,
    /// A name or an address, in lower case, IPv6 without its brackets; empty for a directory.
    pub host: String,
    /// 0 for a directory.
    pub port: u16,
    /// Begins with `/`; still percent-encoded. A redirect's target may have a query in it.
    pub path: String,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UrlError {
    /// Longer than [`MAX_URL`].
    Long,
    /// No `scheme://`.
    NoScheme,
    /// A scheme other than http, https and file.
    Scheme,
    /// A user name or password: they would be sent in the clear and end up in logs.
    User,
    /// No host, or one with characters that no host has.
    Host,
    /// No number from 1 to 65535.
    Port,
    /// A host in a `file://` URL.
    FileHost,
    /// A query or fragment, where a base URL has none.
    Query,
    /// A character that must be percent-encoded, a `%` without two digits after it, or `%00`.
    Character,
    /// A `.` or `..` as part of the path.
    Dots,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::Long => "longer than 2048 bytes",
            UrlError::NoScheme => "it does not begin with http://, https:// or file://",
            UrlError::Scheme => "a scheme other than http, https and file",
            UrlError::User => "a user name in it; use a client certificate instead",
            UrlError::Host => {
                "no host, or one with a character that no host name has (names must be in ASCII)"
            }
            UrlError::Port => "the port is no number from 1 to 65535",
            UrlError::FileHost => "file:// takes no host: write file:///path",
            UrlError::Query => "a ? or # in it; files are asked for below a path",
            UrlError::Character => "a character in the path that must be percent-encoded, or a wrong % code",
            UrlError::Dots => "'.' or '..' in the path",
        })
    }
}

impl Url {
    /// Reads a base URL: no query. A `/` at the end makes no difference.
    ///
    /// # Errors
    /// When it is not one, see [`UrlError`].
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let url = Url::absolute(text)?;
        if url.path.contains('?') { Err(UrlError::Query) } else { Ok(url) }
    }

    /// Reads an absolute URL, with or without a query.
    fn absolute(text: &str) -> Result<Url, UrlError> {
        if text.len() > MAX_URL {
            return Err(UrlError::Long);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
        let scheme = [Scheme::File, Scheme::Http, Scheme::Https]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known.name()))
            .ok_or(UrlError::Scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        check_path(path)?;
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let (host, port) = match scheme {
            Scheme::File if authority.is_empty() => (String::new(), 0),
            Scheme::File => return Err(UrlError::FileHost),
            _ => host_and_port(authority, scheme)?,
        };
        let path = if path.starts_with('/') { path.to_string() } else { alloc::format!("/{path}") };
        Ok(Url { scheme, host, port, path })
    }

    /// The URL of a file below this one.
    pub fn below(&self, path: &str) -> Url {
        Url { path: alloc::format!("{}/{path}", self.path.trim_end_matches('/')), ..self.clone() }
    }

    /// Where a redirect leads: an absolute URL, one without a scheme (`//host/path`) or an absolute path. Fragments
    /// are dropped, as RFC 9110 10.2.2 has it; a relative path is refused, no server of files sends one.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn target(&self, location: &str) -> Result<Url, UrlError> {
        let location = location.split('#').next().unwrap_or_default();
        if location.starts_with("//") {
            Url::absolute(&alloc::format!("{}:{location}", self.scheme.name()))
        } else if location.starts_with('/') {
            if location.len() > MAX_URL {
                return Err(UrlError::Long);
            }
            check_path(location)?;
            Ok(Url { path: location.to_string(), ..self.clone() })
        } else {
            Url::absolute(location)
        }
    }

    /// Whether both are the same server.
    pub fn same_server(&self, other: &Url) -> bool {
        self.scheme == other.scheme && self.host == other.host && self.port == other.port
    }

    /// Host and port as a `Host` field has them: no port where it is the scheme's.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        if self.port == self.scheme.port() {
            alloc::format!("{open}{}{close}", self.host)
        } else {
            alloc::format!("{open}{}{close}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority(), self.path)
    }
}

/// Host and port of a network server.
fn host_and_port(authority: &str, scheme: Scheme) -> Result<(String, u16), UrlError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
        host.parse::<core::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
        match port.strip_prefix(':') {
            None if !port.is_empty() => return Err(UrlError::Host),
            port => (host, port),
        }
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        // RFC 1123; `_` is in names that people use.
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(fits) {
            return Err(UrlError::Host);
        }
        (host, port)
    };
    let port = match port {
        None => scheme.port(),
        Some(text) if text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?
        }
        Some(_) => return Err(UrlError::Port),
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// Whether a path, with its query if it has one, can stand in a request line as it is.
///
/// # Errors
/// When it cannot, or when it could lead out of the directory that it is asked below.
pub fn check_path(path: &str) -> Result<(), UrlError> {
    if path.contains('#') {
        return Err(UrlError::Query);
    }
    let (plain, query) = path.split_once('?').unwrap_or((path, ""));
    for text in [plain, query] {
        // RFC 3986 3.3 and 3.4.
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&b);
        if !text.bytes().all(fits) {
            return Err(UrlError::Character);
        }
        decode(text)?;
    }
    let decoded = decode(plain)?;
    if decoded.split(|b| *b == b'/').any(|part| part == b"." || part == b"..") {
        return Err(UrlError::Dots);
    }
    Ok(())
}

/// Takes the percent codes away.
///
/// # Errors
/// A `%` without two hexadecimal digits after it, and `%00`, which no file name has.
pub fn decode(text: &str) -> Result<alloc::vec::Vec<u8>, UrlError> {
    let mut bytes = text.bytes();
    let mut decoded = alloc::vec::Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(UrlError::Character);
        match u8::try_from(digit()? * 16 + digit()?) {
            Ok(0) | Err(_) => return Err(UrlError::Character),
            Ok(byte) => decoded.push(byte),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn plain_urls() {
        let one = url("HTTP://Updates.Example:8080/repo/");
        assert_eq!((one.scheme, one.host.as_str(), one.port), (Scheme::Http, "updates.example", 8080));
        assert_eq!(one.below("config").to_string(), "http://updates.example:8080/repo/config");
        assert_eq!(url("https://h").below("config").to_string(), "https://h/config");
        let six = url("https://[fd00::1]:8443/r");
        assert_eq!((six.host.as_str(), six.authority().as_str()), ("fd00::1", "[fd00::1]:8443"));
        assert_eq!(url("http://[::1]").port, 80);
        assert_eq!(url("file:///media/stick").path, "/media/stick");
        assert_eq!(url("http://h:80/a%20b").authority(), "h");
    }

    #[test]
    fn what_is_refused() {
        for (text, error) in [
            ("updates.example/repo", UrlError::NoScheme),
            ("ftp://h/", UrlError::Scheme),
            ("http://user:secret@h/", UrlError::User),
            ("http:///repo", UrlError::Host),
            ("http://h h/", UrlError::Host),
            ("http://h\r\nX: y/", UrlError::Host),
            ("http://bücher.example/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://[::1]x/", UrlError::Host),
            ("http://[fe80::1%25eth0]/", UrlError::Host),
            ("http://h:/", UrlError::Port),
            ("http://h:0/", UrlError::Port),
            ("http://h:+80/", UrlError::Port),
            ("http://h:65536/", UrlError::Port),
            ("http://h:80:80/", UrlError::Port),
            ("file://host/path", UrlError::FileHost),
            ("http://h/?q", UrlError::Query),
            ("http://h/#f", UrlError::Query),
            ("http://h/a b", UrlError::Character),
            ("http://h/%zz", UrlError::Character),
            ("http://h/%2", UrlError::Character),
            ("http://h/%00", UrlError::Character),
            ("http://h/a/../b", UrlError::Dots),
            ("http://h/a/%2e%2E/b", UrlError::Dots),
            ("http://h/..%2f..", UrlError::Dots),
        ] {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
        assert_eq!(Url::parse(&alloc::format!("http://h/{}", "a".repeat(2048))), Err(UrlError::Long));
    }

    #[test]
    fn redirects_lead_where_they_say() {
        let base = url("https://h:8443/repo");
        let to = |location| base.target(location).map(|u| u.to_string());
        assert_eq!(to("/other?sig=%20a"), Ok("https://h:8443/other?sig=%20a".into()));
        assert_eq!(to("//cdn/x"), Ok("https://cdn/x".into()));
        assert_eq!(to("http://cdn:81/x#part"), Ok("http://cdn:81/x".into()));
        assert_eq!(to("other"), Err(UrlError::NoScheme));
        assert_eq!(to("/a\nb"), Err(UrlError::Character));
        assert_eq!(to("javascript://x"), Err(UrlError::Scheme));
        assert_eq!(to("/../x"), Err(UrlError::Dots));
    }
}
