//! The transports: against a scripted hostile server on loopback, and against nginx.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bootward::fetch::error::{CertificateError, RedirectError};
use bootward::fetch::tls::{Clock, Identity};
use bootward::fetch::{Answer, Channel, Error, Found, Limits, Options, Request, Step, Transport, Url, open};

use crate::server::request;

fn limits() -> Limits {
    let ms = Duration::from_millis;
    Limits {
        handshake: ms(1000),
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

/// What the server does with one connection.
type Script = Box<dyn Fn(&mut TcpStream) + Send>;

/// Each connection gets the next script; the last one stays.
fn server(scripts: Vec<Script>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            scripts[n.min(scripts.len() - 1)](&mut stream);
        }
    });
    Url::parse(&format!("http://127.0.0.1:{port}/repo")).unwrap()
}

fn says(text: &str) -> Box<dyn Fn(&mut TcpStream) + Send> {
    let text = text.to_owned();
    Box::new(move |stream| {
        let _ = request(stream);
        let _ = stream.write_all(text.as_bytes());
    })
}

fn endless(head: &'static str, more: &'static [u8], pause: u64) -> Box<dyn Fn(&mut TcpStream) + Send> {
    Box::new(move |stream| {
        let _ = request(stream);
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(more).is_ok() {
            std::thread::sleep(Duration::from_millis(pause));
        }
    })
}

fn body(channel: &mut impl Channel) -> Result<Vec<u8>, Error> {
    let (mut all, mut buffer) = (Vec::new(), [0; 1 << 15]);
    loop {
        match channel.read(&mut buffer)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

fn get(url: &Url, options: &Options, request: Request) -> Result<(Answer, Vec<u8>), Error> {
    let mut channel = open(url, options)?.open()?;
    channel.send(request)?;
    let answer = channel.receive()?;
    Ok((answer, body(&mut channel)?))
}

fn small() -> Options {
    Options { limits: limits(), ..Options::default() }
}

#[test]
fn hostile_answers_have_each_its_error() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let many = format!("{ok}{}\r\n", "A: b\r\n".repeat(100_000));
    let field = Error::Field;
    for (text, error) in [
        (format!("{ok}Content-Length: 101\r\n\r\n"), Error::TooLarge { length: Some(101), limit: 100 }),
        (format!("{ok}\r\n{}", "x".repeat(101)), Error::TooLarge { length: None, limit: 100 }),
        (
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n65\r\n{}", "x".repeat(101)),
            Error::TooLarge { length: None, limit: 100 },
        ),
        (format!("{ok}Content-Length: 5\r\n\r\nabc"), Error::Closed(Step::Body)),
        (format!("{ok}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), Error::Closed(Step::Body)),
        (format!("{ok}Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n"), Error::Chunk),
        (format!("{ok}Content-Length: -5\r\n\r\nabcde"), field("Content-Length")),
        (format!("{ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"), field("Content-Length")),
        (format!("{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), field("Transfer-Encoding")),
        (many, Error::LongHead),
        (format!("{ok}Content-Le"), Error::Closed(Step::Head)),
        (String::new(), Error::Closed(Step::Head)),
        ("<html>hello".into(), Error::NotHttp),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(9), Error::Interim),
        ("HTTP/1.1 101 Switch\r\n\r\n".into(), Error::Status { code: 101, after: None }),
        (format!("{ok}Content-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin"), Error::WebPage),
        ("HTTP/1.1 511 X\r\nContent-Length: 0\r\n\r\n".into(), Error::Status { code: 511, after: None }),
        (
            "HTTP/1.1 503 X\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n\r\n".into(),
            Error::Status { code: 503, after: Some(Duration::from_secs(600)) },
        ),
        (
            "HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nabcde".into(),
            field("Content-Range"),
        ),
        (
            "HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n".into(),
            Error::Redirect { to: "file:///etc/passwd".into(), why: RedirectError::Scheme },
        ),
        (
            "HTTP/1.1 302 F\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".into(),
            Error::Redirect { to: String::new(), why: RedirectError::Many },
        ),
        (
            "HTTP/1.1 301 F\r\nLocation: /repo/x\r\nContent-Length: 0\r\n\r\n".into(),
            Error::Redirect { to: "/repo/x".into(), why: RedirectError::Many },
        ),
    ] {
        let url = server(vec![says(&text)]);
        let mut found = get(&url, &small(), Request::whole("x", 100)).unwrap_err();
        // The port is in it.
        if let (Error::Redirect { to, .. }, Error::Redirect { to: shown, .. }) = (&error, &mut found)
            && to.is_empty()
        {
            shown.clear();
        }
        // A peer that closes with our bytes unread resets instead.
        if !matches!((&error, &found), (Error::Closed(_), Error::Broken { .. })) {
            assert_eq!(found, error, "{}", &text[..text.len().min(80)]);
        }
    }
}

#[test]
fn servers_that_take_their_time_are_left() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    for (script, expected) in [
        (endless("", b"", 50), Error::TimeOut(Step::Head)),
        (endless("HTTP/1.1 200 OK\r\n", b"A", 20), Error::TimeOut(Step::Head)),
        (endless(length, b"", 50), Error::TimeOut(Step::Body)),
        (endless(length, b"x", 50), Error::Slow { rate: 1000 }),
        (endless(length, &[b'x'; 45], 50), Error::Slow { rate: 1000 }),
        (endless(length, &[b'x'; 100], 50), Error::Overdue { allowed: Duration::from_millis(2600) }),
        (
            endless("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096], 0),
            Error::TooLarge { length: None, limit: 100_000 },
        ),
    ] {
        let begun = Instant::now();
        let mut options = small();
        options.limits.body_rate = 100_000;
        let found = get(&server(vec![script]), &options, Request::whole("x", 100_000)).unwrap_err();
        assert_eq!(found, expected);
        assert!(begun.elapsed() < Duration::from_secs(5), "{expected:?} took {:?}", begun.elapsed());
    }
}

/// A server that answers three and ends without a word; what it did not answer is asked of the next connection.
#[test]
fn pipelined_requests_outlive_their_connections() {
    let script = || -> Box<dyn Fn(&mut TcpStream) + Send> {
        Box::new(|stream| {
            for _ in 0..3 {
                let Some(text) = request(stream) else { return };
                let name = text.split(' ').nth(1).unwrap().to_owned();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                let _ = stream.write_all(answer.as_bytes());
            }
        })
    };
    let mut channel = open(&server(vec![script()]), &small()).unwrap().open().unwrap();
    let window = channel.window();
    for n in 0..10 {
        channel.send(Request::whole(format!("{n}"), 100)).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        match channel.receive() {
            Ok(_) => seen.push(String::from_utf8(body(&mut channel).unwrap()).unwrap()),
            Err(error) => panic!("{error:?} after {seen:?}"),
        }
    }
    assert_eq!(seen, (0..10).map(|n| format!("/repo/{n}")).collect::<Vec<_>>());
    assert_eq!((window, channel.window()), (32, 1), "it breaks pipelines");
}

#[test]
fn a_failed_connection_gives_back_what_it_did_not_answer() {
    let url = server(vec![says("junk\r\n\r\n"), says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")]);
    let mut channel = open(&url, &small()).unwrap().open().unwrap();
    for name in ["a", "b", "c"] {
        channel.send(Request::whole(name, 9)).unwrap();
    }
    assert_eq!(channel.receive(), Err(Error::NotHttp));
    assert_eq!(channel.receive(), Err(Error::NotAnswered));
    channel.send(Request::whole("d", 9)).unwrap();
    assert_eq!(channel.receive(), Err(Error::NotAnswered));
    assert_eq!(channel.receive().map(|answer| answer.found), Ok(Found::Whole));
    assert_eq!(body(&mut channel), Ok(b"x".to_vec()));
    assert_eq!(channel.receive(), Err(Error::NothingSent));
    assert_eq!(
        channel.send(Request::whole("../x", 9)),
        Err(Error::BadRequest(bootward::fetch::url::UrlError::Dots))
    );
}

#[test]
fn a_directory_is_not_left() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::write(outer.path().join("secret"), "s").unwrap();
    let root = outer.path().join("repo");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("file"), "0123456789").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
    let url = Url::parse(&format!("file://{}", root.display())).unwrap();
    let (answer, text) = get(&url, &small(), Request::whole("file", 10)).unwrap();
    assert_eq!((answer.found, text.as_slice()), (Found::Whole, b"0123456789".as_slice()));
    let part = Request { from: 4, limit: 6, validator: answer.validator, ..Request::whole("file", 0) };
    let (found, text) = get(&url, &small(), part.clone()).unwrap();
    assert_eq!(
        (found.found, text.as_slice()),
        (Found::Part { from: 4, total: Some(10) }, b"456789".as_slice())
    );
    let (found, text) =
        get(&url, &small(), Request { validator: Some("other".into()), ..part.clone() }).unwrap();
    assert_eq!((found.found, text.len()), (Found::Whole, 10));
    assert_eq!(get(&url, &small(), Request { from: 10, ..part }), Err(Error::PastEnd { total: Some(10) }));
    assert_eq!(get(&url, &small(), Request::whole("out", 10)).unwrap().0.found, Found::Missing);
    let large = Error::TooLarge { length: Some(10), limit: 9 };
    assert_eq!(get(&url, &small(), Request::whole("file", 9)), Err(large));
}

/// nginx in a directory of its own, ended when dropped.
struct Nginx {
    child: Child,
    directory: tempfile::TempDir,
    ports: [u16; 5],
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn openssl(directory: &std::path::Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let done = done.expect("openssl");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Nginx {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        std::fs::create_dir_all(at.join("www/repo")).unwrap();
        for n in 0..500 {
            std::fs::write(at.join(format!("www/repo/{n}")), format!("object {n}").repeat(n + 1)).unwrap();
        }
        for ca in ["ca", "evil"] {
            openssl(
                at,
                &format!(
                    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9999 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem -addext basicConstraints=critical,CA:TRUE"
                ),
            );
        }
        std::fs::write(at.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        std::fs::write(at.join("name"), "subjectAltName=DNS:other.example\n").unwrap();
        std::fs::write(at.join("index"), "").unwrap();
        std::fs::write(at.join("ca.cnf"), "[ca]\ndefault_ca=d\n[d]\ndir=.\ndatabase=index\nrand_serial=yes\ndefault_md=sha256\nnew_certs_dir=.\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n").unwrap();
        for (name, ext, from, to) in [
            ("good", "ext", "20200101000000Z", "20490101000000Z"),
            ("old", "ext", "20200101000000Z", "20210101000000Z"),
            ("early", "ext", "20480101000000Z", "20490101000000Z"),
            ("wrong", "name", "20200101000000Z", "20490101000000Z"),
            ("device", "ext", "20200101000000Z", "20490101000000Z"),
        ] {
            openssl(
                at,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
                ),
            );
            openssl(
                at,
                &format!(
                    "ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem -startdate {from} -enddate {to} -extfile {ext} -notext"
                ),
            );
        }
        let ports = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let mut servers = format!("server {{ listen 127.0.0.1:{}; }}\n", ports[0]);
        for (port, name) in ports[1..].iter().zip(["good", "old", "early", "wrong"]) {
            let client = if name == "wrong" {
                ""
            } else {
                "ssl_client_certificate ca.pem; ssl_verify_client optional;"
            };
            servers += &format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {name}.pem; ssl_certificate_key {name}.key; {client} location /mtls/ {{ if ($ssl_client_verify != SUCCESS) {{ return 403; }} alias www/repo/; }} }}\n"
            );
        }
        let config = format!("daemon off; master_process off; pid {0}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5; root {0}/www; keepalive_requests 100; {servers} }}\n", at.display()).replace("alias www", &format!("alias {}/www", at.display()));
        std::fs::write(at.join("nginx.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .arg("-p")
            .arg(at)
            .arg("-c")
            .arg(at.join("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx (apt install nginx-light)");
        let nginx = Nginx { child, directory, ports };
        let up = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            TcpStream::connect(("127.0.0.1", ports[4])).is_ok()
        });
        assert!(up, "nginx does not start");
        nginx
    }

    fn url(&self, n: usize, path: &str) -> Url {
        let scheme = if n == 0 { "http" } else { "https" };
        Url::parse(&format!("{scheme}://localhost:{}/{path}", self.ports[n])).unwrap()
    }

    fn options(&self, ca: &str, clock: Clock) -> Options {
        Options { authorities: vec![self.directory.path().join(ca)], clock, ..Options::default() }
    }
}

#[test]
fn nginx_in_the_clear_and_over_tls() {
    let nginx = Nginx::start();
    let now = Clock::system(0);
    for n in [0, 1] {
        let transport = open(&nginx.url(n, "repo"), &nginx.options("ca.pem", now)).unwrap();
        let mut channel = transport.open().unwrap();
        let (mut sent, mut received) = (0, 0);
        while received < 500 {
            while sent < 500 && sent - received < channel.window() {
                channel.send(Request::whole(sent.to_string(), 1 << 20)).unwrap();
                sent += 1;
            }
            let answer = channel.receive().unwrap();
            let text = body(&mut channel).unwrap();
            assert_eq!(text, format!("object {received}").repeat(received + 1).into_bytes());
            assert_eq!(answer.length, Some(text.len() as u64));
            received += 1;
        }
        assert_eq!(channel.window(), 32, "an announced end breaks no pipeline");
        let url = nginx.url(n, "repo");
        let options = nginx.options("ca.pem", now);
        let (whole, _) = get(&url, &options, Request::whole("7", 100)).unwrap();
        let part = Request { from: 60, validator: whole.validator, ..Request::whole("7", 4) };
        let (answer, text) = get(&url, &options, part.clone()).unwrap();
        assert_eq!((answer.found, text), (Found::Part { from: 60, total: Some(64) }, b"ct 7".to_vec()));
        let other = Request { validator: Some("\"other\"".into()), ..part.clone() };
        assert_eq!(get(&url, &options, other).unwrap().0.found, Found::Whole);
        assert_eq!(
            get(&url, &options, Request { from: 64, ..part }),
            Err(Error::PastEnd { total: Some(64) })
        );
        assert_eq!(get(&url, &options, Request::whole("none", 9)).unwrap().0.found, Found::Missing);
    }
}

#[test]
fn nginx_whose_certificate_is_not_believed() {
    let nginx = Nginx::start();
    let why = |n, ca, clock| match get(
        &nginx.url(n, "repo"),
        &nginx.options(ca, clock),
        Request::whole("1", 100),
    ) {
        Err(Error::Certificate { why, .. }) => Some(why),
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    };
    let now = Clock::system(0);
    assert_eq!(why(1, "ca.pem", now), None);
    assert_eq!(why(1, "evil.pem", now), Some(CertificateError::Unbelieved));
    assert!(matches!(why(2, "ca.pem", now), Some(CertificateError::Expired { .. })));
    assert!(matches!(why(3, "ca.pem", now), Some(CertificateError::NotYet { .. })));
    assert_eq!(why(4, "ca.pem", now), Some(CertificateError::Name));
    // A device without a clock: in 1970 it knows that it does not know; what has expired by then has.
    assert!(matches!(why(1, "ca.pem", Clock::at(0)), Some(CertificateError::NotYet { .. })));
    assert_eq!(why(1, "ca.pem", Clock::at_least(0)), None);
    assert_eq!(why(1, "evil.pem", Clock::at_least(0)), Some(CertificateError::Unbelieved));
    assert_eq!(why(2, "ca.pem", Clock::at(1_590_000_000)), None);
    assert!(matches!(
        why(2, "ca.pem", Clock::at_least(1_700_000_000)),
        Some(CertificateError::Expired { .. })
    ));

    let mut options = nginx.options("ca.pem", now);
    let mtls =
        |options: &Options| get(&nginx.url(1, "mtls"), options, Request::whole("1", 100)).unwrap().0.found;
    assert_eq!(mtls(&options), Found::Missing);
    let path = |name| nginx.directory.path().join(name);
    options.identity = Some(Identity { certificate: path("device.pem"), key: path("device.key") });
    assert_eq!(mtls(&options), Found::Whole);
    let url = nginx.url(1, "repo");
    assert!(matches!(open(&url, &Options::default()), Err(Error::Credentials { .. })));
    let plain = Url::parse(&format!("https://localhost:{}/", nginx.ports[0])).unwrap();
    assert!(matches!(get(&plain, &options, Request::whole("1", 9)), Err(Error::Tls { .. })));
}
