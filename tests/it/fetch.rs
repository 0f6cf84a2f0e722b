//! What is of one transport only: pipelines and connections of our HTTP, certificates, the directory that is not left.
//! What is of all of them is in `transports`.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use bootward::fetch::error::CertificateError;
use bootward::fetch::tls::{Clock, Identity};
use bootward::fetch::{Answer, Channel, Error, Found, Limits, Options, Request, Transport, Url, open};

use crate::nginx::Nginx;
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
    // Connecting ahead asks for nothing, here too.
    drop(channel);
    let url = server(vec![script()]);
    let mut options = small();
    options.limits.window = 1;
    let mut channel = open(&url, &options).unwrap().open().unwrap();
    channel.warm();
    channel.send(Request::whole("x", 100)).unwrap();
    assert_eq!(channel.receive().map(|answer| answer.found), Ok(Found::Whole));
    assert_eq!(body(&mut channel), Ok(b"/repo/x".to_vec()));
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
    let path = |name| nginx.path(name);
    options.identity = Some(Identity { certificate: path("device.pem"), key: path("device.key") });
    assert_eq!(mtls(&options), Found::Whole);
    let url = nginx.url(1, "repo");
    assert!(matches!(open(&url, &Options::default()), Err(Error::Credentials { .. })));
    let plain = Url::parse(&format!("https://localhost:{}/", nginx.ports[0])).unwrap();
    assert!(matches!(get(&plain, &options, Request::whole("1", 9)), Err(Error::Tls { .. })));
}
