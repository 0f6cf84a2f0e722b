//! One suite for every transport: a directory, our HTTP in the clear and over TLS, and minreq where it is built in
//! (`--features minreq`). First what a good server has, then what a hostile one does.
//!
//! Where minreq cannot do what ours does, the exception stands beside the case.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bootward::fetch::error::RedirectError;
use bootward::fetch::tls::{Clock, Tls};
use bootward::fetch::{
    Answer, Channel, Error, Found, Limits, Request, Step, Stop, Transport, Url, file, http,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::nginx::{Nginx, certificates};
use crate::server::request;

/// A transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Directory,
    Http,
    Https,
    #[cfg(feature = "minreq")]
    Minreq,
}

impl Kind {
    /// Those that ask a server.
    const SERVERS: &[Kind] = &[
        Kind::Http,
        Kind::Https,
        #[cfg(feature = "minreq")]
        Kind::Minreq,
    ];

    fn is_minreq(self) -> bool {
        !matches!(self, Kind::Directory | Kind::Http | Kind::Https)
    }

    /// A channel to a server; `authority` is the CA of one with a certificate.
    fn open(self, url: &Url, limits: &Limits, authority: &Path) -> Box<dyn Channel> {
        let (url, stop) = (url.clone(), Stop::default());
        match self {
            Kind::Directory => Box::new(file::Directory::new(&url).unwrap().open().unwrap()),
            Kind::Http => Box::new(http::Http::plain(url, limits, stop).open().unwrap()),
            Kind::Https => {
                let tls = Tls::new(&[authority.into()], None, Clock::system(0)).unwrap();
                Box::new(http::Http::secure(url, limits, stop, tls).open().unwrap())
            }
            #[cfg(feature = "minreq")]
            Kind::Minreq => Box::new(http::Single::plain(url, limits, stop).open().unwrap()),
        }
    }
}

fn body(channel: &mut dyn Channel) -> Result<Vec<u8>, Error> {
    let (mut all, mut buffer) = (Vec::new(), [0; 1 << 15]);
    loop {
        match channel.read(&mut buffer)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

fn get(channel: &mut dyn Channel, request: Request) -> Result<(Answer, Vec<u8>), Error> {
    channel.send(request)?;
    let answer = channel.receive()?;
    Ok((answer, body(channel)?))
}

#[test]
fn every_transport_brings_files() {
    let nginx = Nginx::start();
    let directory = Url::parse(&format!("file://{}", nginx.path("www/repo").display())).unwrap();
    let mut all = vec![(Kind::Directory, directory)];
    all.extend(
        Kind::SERVERS.iter().map(|kind| (*kind, nginx.url(usize::from(*kind == Kind::Https), "repo"))),
    );
    for (kind, url) in all {
        let mut channel = kind.open(&url, &Limits::default(), &nginx.path("ca.pem"));
        let channel = channel.as_mut();
        let window = channel.window();
        assert_eq!(window, if matches!(kind, Kind::Http | Kind::Https) { 32 } else { 1 }, "{kind:?}");
        let (mut sent, mut received) = (0, 0);
        while received < 500 {
            while sent < 500 && sent - received < channel.window() {
                channel.send(Request::whole(sent.to_string(), 1 << 20)).unwrap();
                sent += 1;
            }
            let answer = channel.receive().unwrap();
            // Some are not read to their end.
            if received % 7 != 3 {
                let text = body(channel).unwrap();
                assert_eq!(text, format!("object {received}").repeat(received + 1).into_bytes());
                assert_eq!(answer.length, Some(text.len() as u64), "{kind:?}");
            }
            received += 1;
        }
        assert_eq!(channel.window(), window, "{kind:?}: an announced end breaks no pipeline");

        let (whole, text) = get(channel, Request::whole("7", 64)).unwrap();
        assert_eq!((whole.found, text.len()), (Found::Whole, 64), "{kind:?}");
        let part = Request { from: 60, validator: whole.validator, ..Request::whole("7", 4) };
        let (answer, text) = get(channel, part.clone()).unwrap();
        let found = Found::Part { from: 60, total: Some(64) };
        assert_eq!((answer.found, text), (found, b"ct 7".to_vec()), "{kind:?}");
        let other = Request { validator: Some("\"other\"".into()), ..part.clone() };
        assert_eq!(get(channel, other).unwrap().0.found, Found::Whole, "{kind:?}");
        let past = Request { from: 64, ..part.clone() };
        assert_eq!(get(channel, past), Err(Error::PastEnd { total: Some(64) }), "{kind:?}");
        let large = Err(Error::TooLarge { length: Some(64), limit: 63 });
        assert_eq!(get(channel, Request::whole("7", 63)), large, "{kind:?}");
        let large = Err(Error::TooLarge { length: Some(4), limit: 3 });
        assert_eq!(get(channel, Request { limit: 3, ..part }), large, "{kind:?}");
        let (missing, text) = get(channel, Request::whole("none", 9)).unwrap();
        assert_eq!((missing.found, text.len()), (Found::Missing, 0), "{kind:?}");
        for path in ["../x", "/x", "a b", "x?y#z", "x\r\ny", "%zz"] {
            assert!(
                matches!(channel.send(Request::whole(path, 9)), Err(Error::BadRequest(_))),
                "{kind:?} {path}"
            );
        }
        assert_eq!(channel.receive(), Err(Error::NothingSent), "{kind:?}");
        // And again, after all that.
        assert_eq!(get(channel, Request::whole("0", 99)).unwrap().1, b"object 0", "{kind:?}");
    }
}

/// A connection, with or without TLS around it.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// What the server does with one connection.
type Script = Arc<dyn Fn(&mut dyn Wire) + Send + Sync>;

/// Servers that follow scripts, and the certificate of those with TLS.
struct Stage {
    keep: tempfile::TempDir,
    tls: Arc<rustls::ServerConfig>,
}

impl Stage {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        certificates(keep.path(), &["ca"], &[("good", "ext", "20200101000000Z", "20490101000000Z")]);
        let certificate = CertificateDer::from_pem_file(keep.path().join("good.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(keep.path().join("good.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Stage { keep, tls: Arc::new(tls) }
    }

    /// A channel to a new server: each of its connections gets the next script, the last one stays.
    fn open(&self, kind: Kind, limits: &Limits, scripts: Vec<Script>) -> Box<dyn Channel> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = (kind == Kind::Https).then(|| self.tls.clone());
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let script = scripts[n.min(scripts.len() - 1)].clone();
                let tls = tls.clone();
                std::thread::spawn(move || match tls {
                    None => script(&mut stream),
                    Some(tls) => {
                        let connection = rustls::ServerConnection::new(tls).unwrap();
                        script(&mut rustls::StreamOwned::new(connection, stream));
                    }
                });
            }
        });
        let scheme = if kind == Kind::Https { "https" } else { "http" };
        let url = Url::parse(&format!("{scheme}://127.0.0.1:{port}/repo")).unwrap();
        kind.open(&url, limits, &self.keep.path().join("ca.pem"))
    }

    fn get(&self, kind: Kind, script: Script, limit: u64) -> Result<(Answer, Vec<u8>), Error> {
        get(self.open(kind, &limits(), vec![script]).as_mut(), Request::whole("x", limit))
    }
}

fn limits() -> Limits {
    let ms = Duration::from_millis;
    Limits {
        connect: ms(1000),
        handshake: ms(2000),
        head: ms(600),
        idle: ms(400),
        rate: 1000,
        rate_over: ms(800),
        answer_worth: 0,
        body: ms(1600),
        body_rate: 100_000,
        ..Limits::default()
    }
}

/// Reads a request and says this.
fn says(text: impl Into<Vec<u8>>) -> Script {
    let text = text.into();
    Arc::new(move |stream| {
        let _ = request(stream);
        let _ = stream.write_all(&text).and_then(|()| stream.flush());
    })
}

/// Reads a request, says this, and then more and more.
fn endless(head: &'static str, more: &'static [u8], pause: u64) -> Script {
    Arc::new(move |stream| {
        let _ = request(stream);
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(more).and_then(|()| stream.flush()).is_ok() {
            std::thread::sleep(Duration::from_millis(pause));
        }
    })
}

#[test]
fn every_hostile_answer_has_its_error() {
    let stage = Stage::new();
    let ok = "HTTP/1.1 200 OK\r\n";
    let field = Error::Field;
    let large = |length| Error::TooLarge { length, limit: 100 };
    let status = |code, seconds: Option<u64>| Error::Status { code, after: seconds.map(Duration::from_secs) };
    let redirect = |to: &str, why| Error::Redirect { to: to.into(), why };
    let chunked = format!("{ok}Transfer-Encoding: chunked\r\n\r\n");
    // minreq takes a head for whole at the end of the connection, and a chunked body too: only a length will do.
    let unchunked = Some(field("Transfer-Encoding"));
    let untold = Some(field("Content-Length"));
    let cases: Vec<(String, Error, Option<Error>)> = vec![
        // Told, and refused before any of it was read: none of it ever comes.
        (format!("{ok}Content-Length: 101\r\n\r\n"), large(Some(101)), None),
        (format!("{ok}\r\n{}", "x".repeat(101)), large(None), untold.clone()),
        (format!("{chunked}65\r\n{}", "x".repeat(101)), large(None), unchunked.clone()),
        (format!("{ok}Content-Length: 5\r\n\r\nabc"), Error::Closed(Step::Body), None),
        (format!("{chunked}3\r\nabc\r\n"), Error::Closed(Step::Body), unchunked.clone()),
        (format!("{chunked}-3\r\nabc\r\n"), Error::Chunk, unchunked),
        (format!("{ok}Content-Length: -5\r\n\r\nabcde"), field("Content-Length"), None),
        (format!("{ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"), field("Content-Length"), None),
        (
            format!("{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            field("Transfer-Encoding"),
            None,
        ),
        (format!("{ok}Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde"), field("Content-Encoding"), None),
        (format!("{ok}{}\r\n", "A: b\r\n".repeat(100_000)), Error::LongHead, None),
        (format!("{ok}A: {}\r\n\r\n", "b".repeat(100_000)), Error::LongHead, None),
        (format!("{ok}{}\r\n", "A: b\r\n".repeat(65)), Error::LongHead, None),
        (format!("{ok}Content-Le"), Error::Closed(Step::Head), untold.clone()),
        (String::new(), Error::Closed(Step::Head), Some(Error::NotHttp)),
        ("<html>hello".into(), Error::NotHttp, None),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(9), Error::Interim, None),
        ("HTTP/1.1 101 Switch\r\n\r\n".into(), status(101, None), None),
        (format!("{ok}Content-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin"), Error::WebPage, None),
        ("HTTP/1.1 511 X\r\nContent-Length: 0\r\n\r\n".into(), status(511, None), None),
        (
            "HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".into(),
            status(503, Some(7)),
            None,
        ),
        (
            "HTTP/1.1 429 X\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nRetry-After: Thu, 01 Jan 2026 00:01:30 GMT\r\nContent-Length: 0\r\n\r\n".into(),
            status(429, Some(90)),
            None,
        ),
        (
            "HTTP/1.1 503 X\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n\r\n".into(),
            status(503, Some(600)),
            None,
        ),
        (
            "HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nabcde".into(),
            field("Content-Range"),
            None,
        ),
        (
            "HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n".into(),
            redirect("file:///etc/passwd", RedirectError::Scheme),
            None,
        ),
        (
            "HTTP/1.1 302 F\r\nLocation: ftp://127.0.0.1/x\r\nContent-Length: 0\r\n\r\n".into(),
            redirect("ftp://127.0.0.1/x", RedirectError::Scheme),
            None,
        ),
        (
            "HTTP/1.1 302 F\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".into(),
            redirect("", RedirectError::Many),
            None,
        ),
        (
            "HTTP/1.1 301 F\r\nLocation: /repo/x\r\nContent-Length: 0\r\n\r\n".into(),
            redirect("", RedirectError::Many),
            None,
        ),
    ];
    for kind in Kind::SERVERS {
        for (text, error, otherwise) in &cases {
            let expected = otherwise.as_ref().filter(|_| kind.is_minreq()).unwrap_or(error);
            let found = stage.get(*kind, says(text.as_str()), 100);
            let mut found = found.expect_err(&format!("{kind:?}: {}", &text[..text.len().min(80)]));
            if let Error::Redirect { to, why: RedirectError::Many } = &mut found {
                // The port is in it.
                to.clear();
            }
            // A peer that closes with our bytes unread resets instead.
            if !matches!((expected, &found), (Error::Closed(_), Error::Broken { .. })) {
                assert_eq!(&found, expected, "{kind:?}: {}", &text[..text.len().min(80)]);
            }
        }
    }
}

#[test]
fn no_redirect_leads_from_https_to_http() {
    let stage = Stage::new();
    // Both are tried: for this request only, and for all that follow.
    for code in [301, 302, 303, 307, 308] {
        for to in ["http://127.0.0.1:1/repo/x", "HTTP://localhost/x"] {
            let text = format!("HTTP/1.1 {code} F\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            let refused = Err(Error::Redirect { to: to.into(), why: RedirectError::Downgrade });
            assert_eq!(stage.get(Kind::Https, says(text), 100), refused, "{code}");
        }
    }
}

#[test]
fn a_redirect_within_the_server_is_followed() {
    let stage = Stage::new();
    let script: Script = Arc::new(|stream| {
        while let Some(text) = request(stream) {
            let answer = match text.split(' ').nth(1).unwrap() {
                "/other/x" => "200 OK\r\nContent-Length: 2\r\n\r\nhi",
                _ => "302 F\r\nLocation: /other/x\r\nContent-Length: 0\r\n\r\n",
            };
            let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).and_then(|()| stream.flush());
        }
    });
    for kind in Kind::SERVERS {
        let (answer, text) = stage.get(*kind, script.clone(), 2).unwrap();
        assert_eq!((answer.found, text.as_slice()), (Found::Whole, &b"hi"[..]), "{kind:?}");
    }
}

#[test]
fn every_slow_server_is_left() {
    let stage = Stage::new();
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    // minreq has one limit, for all of a request.
    for (script, expected, otherwise) in [
        (endless("", b"", 50), Error::TimeOut(Step::Head), None),
        (endless("HTTP/1.1 200 OK\r\n", b"A", 20), Error::TimeOut(Step::Head), None),
        (
            endless(length, b"", 50),
            Error::TimeOut(Step::Body),
            Some(Error::Overdue { allowed: Duration::from_millis(2600) }),
        ),
        (endless(length, b"x", 50), Error::Slow { rate: 1000 }, None),
        (endless(length, &[b'x'; 20], 50), Error::Slow { rate: 1000 }, None),
        (endless(length, &[b'x'; 100], 50), Error::Overdue { allowed: Duration::from_millis(2600) }, None),
        (
            endless("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096], 0),
            Error::TooLarge { length: None, limit: 100_000 },
            Some(Error::Field("Content-Length")),
        ),
    ] {
        for kind in Kind::SERVERS {
            let expected = otherwise.as_ref().filter(|_| kind.is_minreq()).unwrap_or(&expected);
            let begun = Instant::now();
            let found =
                stage.get(*kind, script.clone(), 100_000).expect_err(&format!("{kind:?}: {expected:?}"));
            assert_eq!(&found, expected, "{kind:?}");
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{kind:?}: {expected:?} took {:?}",
                begun.elapsed()
            );
        }
    }
}

#[test]
fn every_channel_can_be_used_after_an_error() {
    let stage = Stage::new();
    let good = says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    for kind in Kind::SERVERS {
        for bad in
            ["junk\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 500 X\r\n\r\n"]
        {
            let mut channel = stage.open(*kind, &limits(), vec![says(bad), good.clone()]);
            assert!(get(channel.as_mut(), Request::whole("a", 9)).is_err(), "{kind:?}");
            assert_eq!(
                get(channel.as_mut(), Request::whole("b", 9)).unwrap().1,
                b"x",
                "{kind:?} after {bad:?}"
            );
        }
    }
}

/// When this fails, minreq has mended it: tell so in src/fetch/README.md.
#[cfg(feature = "minreq")]
#[test]
#[should_panic = "unreachable"]
fn minreq_lets_a_server_lift_its_cap_on_heads() {
    let field = "A".repeat(Limits::default().head_bytes - 1);
    let script = says(format!("HTTP/1.1 200 OK\n{field}\n\n"));
    let _ = Stage::new().get(Kind::Minreq, script, 100);
}
