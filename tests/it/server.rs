//! A small HTTP server over a directory, of which the tests know what it was asked and which they make behave badly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What it does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// It serves the file.
    Good,
    /// It serves heads and commits, and everything else with its last byte changed.
    Corrupt,
    /// It serves heads and commits, and sends so many bytes a second of everything else.
    Drip(u64),
    /// It serves heads and commits, and then says nothing.
    Silent,
    /// A web page for everything.
    Page,
    /// It serves heads and commits; everything else is not there.
    Empty,
    /// The first file of each kind is to be asked for again after so many seconds.
    Busy(u64),
    /// It takes every request and says nothing.
    Mute,
    /// It sends so many bytes a second of everything, heads and commits too.
    DripAll(u64),
    /// Everything is to be asked for again after so many seconds.
    BusyAll(u64),
}

/// What was asked for, and when.
type Log = Mutex<Vec<(String, Instant)>>;

/// The server; it goes on until the tests end.
pub struct Server {
    pub url: String,
    log: Arc<Log>,
}

impl Server {
    pub fn start(directory: PathBuf, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let shared = log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (directory, shared) = (directory.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, &directory, manner, &shared));
            }
        });
        Server { url, log }
    }

    /// What it was asked for since the last time.
    pub fn asked(&self) -> Vec<String> {
        self.asked_when().into_iter().map(|(path, _)| path).collect()
    }

    /// The same, with the time of each request.
    pub fn asked_when(&self) -> Vec<(String, Instant)> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, directory: &std::path::Path, manner: Manner, log: &Log) {
    let _ = stream.set_nodelay(true);
    while let Some(request) = request(&mut stream) {
        let path = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_string();
        let kind = |path: &str| path.rsplit_once('.').map(|(_, kind)| kind.to_string());
        let first = {
            let mut log = log.lock().unwrap();
            let first = log.iter().all(|(known, _)| kind(known) != kind(&path));
            log.push((path.clone(), Instant::now()));
            first
        };
        let from = request.lines().find_map(|line| line.strip_prefix("Range: bytes="));
        let from: usize = from.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
        let head = path.starts_with("refs/") || path.contains(".commit");
        let said = match (manner, std::fs::read(directory.join(&path))) {
            (Manner::Page, _) => {
                says(&mut stream, "200 OK\r\nContent-Type: text/html", b"<html>log in</html>")
            }
            (Manner::Mute, _) => {
                std::thread::sleep(Duration::from_secs(3600));
                return;
            }
            (Manner::BusyAll(seconds), _) => {
                says(&mut stream, &format!("503 Service Unavailable\r\nRetry-After: {seconds}"), b"")
            }
            (Manner::Busy(seconds), _) if first => {
                says(&mut stream, &format!("503 Service Unavailable\r\nRetry-After: {seconds}"), b"")
            }
            (_, Err(_)) => says(&mut stream, "404 Not Found", b""),
            (Manner::Empty, _) if !head => says(&mut stream, "404 Not Found", b""),
            (Manner::Silent, _) if !head => {
                std::thread::sleep(Duration::from_secs(3600));
                return;
            }
            (Manner::Drip(rate), Ok(data)) if !head => drip(&mut stream, &data, rate),
            (Manner::DripAll(rate), Ok(data)) => drip(&mut stream, &data, rate),
            (manner, Ok(mut data)) => {
                if let Some(last) = data.last_mut().filter(|_| manner == Manner::Corrupt && !head) {
                    *last ^= 1;
                }
                match data.get(from..).filter(|_| from > 0) {
                    None => says(&mut stream, "200 OK", &data),
                    Some(rest) => {
                        let range = format!("bytes {from}-{}/{}", data.len() - 1, data.len());
                        says(&mut stream, &format!("206 Partial Content\r\nContent-Range: {range}"), rest)
                    }
                }
            }
        };
        if said.is_err() {
            return;
        }
    }
}

fn says(stream: &mut TcpStream, head: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())
}

fn drip(stream: &mut TcpStream, data: &[u8], rate: u64) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", data.len()).as_bytes())?;
    for piece in data.chunks((rate / 10).max(1) as usize) {
        stream.write_all(piece)?;
        std::thread::sleep(Duration::from_millis(if rate < 10 { 1000 / rate } else { 100 }));
    }
    Ok(())
}

/// Reads one request, byte by byte, so that nothing of the next one is lost.
pub fn request(stream: &mut (impl Read + ?Sized)) -> Option<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    Some(String::from_utf8(text).unwrap())
}
