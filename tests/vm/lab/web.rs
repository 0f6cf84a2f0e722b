//! A small HTTP server over a directory, on the loopback: it counts what it was asked for, and can be slow or say no.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Fault, Outcome};

/// A longer head of a request is none.
const HEAD_MAX: usize = 8192;

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Manner {
    /// It serves the files.
    #[default]
    Good,
    /// Bytes a second, for each connection.
    Slow(u64),
    /// `503` with `Retry-After`, in seconds.
    Busy(u64),
    /// A web page for everything.
    Portal,
}

/// What it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The paths, in order.
    pub paths: Vec<String>,
    /// Bytes of bodies that were sent.
    pub bytes: u64,
}

/// The server; it goes on until the tests end.
pub struct Web {
    /// Its port on the loopback.
    pub port: u16,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<Mutex<Asked>>,
}

impl Web {
    /// Serves a directory.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn start(directory: &Path) -> Outcome<Self> {
        Web::start_at(directory, "127.0.0.1:0")
    }

    /// The same at an address.
    ///
    /// # Errors
    /// As [`Web::start`].
    pub fn start_at(directory: &Path, address: &str) -> Outcome<Self> {
        let failed = |e: std::io::Error| Fault::new(format!("the test's own server: {e}"));
        let listener = TcpListener::bind(address).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let web = Web { port, manner: Arc::default(), asked: Arc::default() };
        let (manner, asked, directory) = (web.manner.clone(), web.asked.clone(), PathBuf::from(directory));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, asked, directory) = (manner.clone(), asked.clone(), directory.clone());
                std::thread::spawn(move || serve(stream, &directory, &manner, &asked));
            }
        });
        Ok(web)
    }

    /// As the machine in QEMU's own network sees it.
    pub fn url(&self) -> String {
        format!("http://10.0.2.2:{}/", self.port)
    }

    /// From now on.
    pub fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// Bytes of bodies that it has sent since [`Web::take`].
    pub fn bytes(&self) -> u64 {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// What it was asked for since the last time.
    pub fn take(&self) -> Asked {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(mut stream: TcpStream, directory: &Path, manner: &Mutex<Manner>, asked: &Mutex<Asked>) {
    let _ = stream.set_nodelay(true);
    let mut rest = Vec::new();
    while let Some(head) = head(&mut stream, &mut rest) {
        let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_string();
        let manner = *manner.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, body) = answer(directory, &path, &head, manner);
        let length = body.len();
        {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.paths.push(path);
        }
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
        if stream.write_all(head.as_bytes()).and_then(|()| send(&mut stream, &body, manner, asked)).is_err() {
            return;
        }
    }
}

fn answer(directory: &Path, path: &str, head: &str, manner: Manner) -> (String, Vec<u8>) {
    match manner {
        Manner::Busy(seconds) => {
            return (format!("503 Service Unavailable\r\nRetry-After: {seconds}"), Vec::new());
        }
        Manner::Portal => {
            return (
                "200 OK\r\nContent-Type: text/html".into(),
                b"<html>Welcome! Please log in.</html>".into(),
            );
        }
        Manner::Good | Manner::Slow(_) => {}
    }
    let from = head.lines().find_map(|line| line.strip_prefix("Range: bytes="));
    let from: usize = from.and_then(|range| range.trim_end().trim_end_matches('-').parse().ok()).unwrap_or(0);
    match std::fs::read(directory.join(path)) {
        Ok(body) if from > 0 && from < body.len() => {
            let total = body.len();
            let rest = body.get(from..).unwrap_or_default().to_vec();
            (format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}", total - 1), rest)
        }
        Ok(body) => ("200 OK".into(), body),
        Err(_) => ("404 Not Found".into(), Vec::new()),
    }
}

fn send(stream: &mut TcpStream, body: &[u8], manner: Manner, asked: &Mutex<Asked>) -> std::io::Result<()> {
    let part = if let Manner::Slow(rate) = manner { (rate / 20).max(1) as usize } else { 64 << 10 };
    for part in body.chunks(part) {
        stream.write_all(part)?;
        asked.lock().unwrap_or_else(PoisonError::into_inner).bytes += part.len() as u64;
        if let Manner::Slow(_) = manner {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// The next request's head; what came after it stays in `rest`: requests are pipelined.
fn head(stream: &mut TcpStream, rest: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = rest.windows(4).position(|w| w == b"\r\n\r\n") {
            let after = rest.split_off(end + 4);
            return String::from_utf8(std::mem::replace(rest, after)).ok();
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(count @ 1..) if rest.len() < HEAD_MAX => rest.extend(buffer.get(..count).unwrap_or_default()),
            _ => return None,
        }
    }
}
