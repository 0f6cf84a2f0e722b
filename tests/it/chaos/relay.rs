//! A line between a device and a server that does everything wrong that a line can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bootward::recovery::budget::Jitter;
use nix::sys::socket::{setsockopt, sockopt};

/// Bytes that are passed on at once: about ten packets.
const PIECE: usize = 16 << 10;
/// The line itself takes so long for a piece: 110 kB/s for each connection.
const PACE: Duration = Duration::from_millis(150);
/// A connection is reset after so many bytes.
const RESET: u64 = 1 << 20;
/// A lost packet is sent again after up to so many milliseconds, and now and then it takes ten times as long.
const AGAIN: u32 = 200;
/// One piece in so many is never passed on: the connection is there, and silent.
const SILENT: u32 = 1500;

/// How bad the line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// It only has its pace.
    Calm,
    /// 30 % of the pieces are late, each connection is reset after 1 MiB, some get silent.
    Bad,
}

/// A line; it goes on until the tests end.
pub struct Relay {
    /// The device's end.
    pub url: String,
    /// Bytes that came to the device, heads of answers included.
    pub bytes: Arc<AtomicU64>,
    /// Connections that were reset, or got silent.
    pub broken: Arc<AtomicU64>,
}

impl Relay {
    pub fn start(server: &str, line: Line, seed: u64) -> Self {
        let server: SocketAddr =
            server.trim_start_matches("http://").trim_end_matches('/').parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let relay = Relay { url, bytes: Arc::default(), broken: Arc::default() };
        let (bytes, broken) = (relay.bytes.clone(), relay.broken.clone());
        std::thread::spawn(move || {
            for (number, device) in listener.incoming().flatten().enumerate() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (bytes, broken) = (bytes.clone(), broken.clone());
                let mut chance = Jitter::new(&seed.to_le_bytes(), &number.to_le_bytes());
                let (Ok(from), Ok(to)) = (device.try_clone(), server.try_clone()) else { continue };
                std::thread::spawn(move || questions(from, to));
                std::thread::spawn(move || {
                    let whole = pass(&server, &device, line, &mut chance, &bytes);
                    broken.fetch_add(u64::from(!whole), Ordering::Relaxed);
                    if !whole {
                        // What is in the socket is thrown away, and the device sees a reset.
                        let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                        let _ = setsockopt(&device, sockopt::Linger, &now);
                    }
                    let _ = server.shutdown(std::net::Shutdown::Both);
                    // The other thread has the socket too.
                    let _ = device.shutdown(std::net::Shutdown::Read);
                });
            }
        });
        relay
    }
}

fn questions(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Whether the connection was ended by one of its ends.
fn pass(
    mut server: &TcpStream,
    mut device: &TcpStream,
    line: Line,
    chance: &mut Jitter,
    bytes: &AtomicU64,
) -> bool {
    let (mut buffer, mut passed) = ([0; PIECE], 0);
    loop {
        let length = match server.read(&mut buffer) {
            Ok(length @ 1..) => length,
            _ => return true,
        };
        let mut one_in = |n: u32| chance.number().is_multiple_of(n);
        let mut late = Duration::ZERO;
        if line == Line::Bad {
            if one_in(SILENT) {
                std::thread::sleep(Duration::from_secs(40));
                return false;
            }
            let (lost, twice) = (one_in(10) || one_in(10) || one_in(10), one_in(20));
            let again = Duration::from_millis(u64::from(chance.number() % AGAIN));
            late = if lost { again * if twice { 10 } else { 1 } } else { Duration::ZERO };
        }
        std::thread::sleep(PACE.mul_f64(length as f64 / PIECE as f64) + late);
        if device.write_all(&buffer[..length]).is_err() {
            return true;
        }
        bytes.fetch_add(length as u64, Ordering::Relaxed);
        passed += length as u64;
        if line == Line::Bad && passed >= RESET {
            return false;
        }
    }
}
