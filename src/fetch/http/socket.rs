//! A TCP connection that keeps to the limits.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use super::super::{Error, Limits, Step, Stop};
use super::pace::Pace;

/// The connection, with its pace.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    pub pace: Pace,
    stop: Stop,
    /// The limit that was missed: an `io::Error` cannot carry it through the TLS library.
    missed: Option<Error>,
}

impl Socket {
    /// Connects to one address.
    pub fn connect(address: &SocketAddr, limits: &Limits, stop: &Stop) -> io::Result<Self> {
        let tcp = TcpStream::connect_timeout(address, limits.connect)?;
        // Requests are written in one piece, none should wait for the acknowledgement of another.
        tcp.set_nodelay(true)?;
        let tick = Some(Pace::tick(limits));
        tcp.set_read_timeout(tick)?;
        tcp.set_write_timeout(tick)?;
        Ok(Socket { tcp, pace: Pace::new(limits), stop: stop.clone(), missed: None })
    }

    /// Does something until it is done or a limit is missed.
    fn paced(&mut self, mut act: impl FnMut(&mut TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            let begun = Instant::now();
            let done = act(&mut self.tcp);
            let bytes = *done.as_ref().unwrap_or(&0);
            let waited = self.pace.waited(begun.elapsed(), bytes);
            if let Err(missed) = if self.stop.is_set() { Err(Error::Stopped) } else { waited } {
                self.missed = Some(missed);
                return Err(io::ErrorKind::TimedOut.into());
            }
            match done {
                // The tick: what is missed would have been found above.
                Err(e) if again(e.kind()) => {}
                done => return done,
            }
        }
    }

    /// What an error of this socket means.
    pub fn meaning(&mut self, error: &io::Error) -> Error {
        let step = self.pace.step();
        match (self.missed.take(), error.kind()) {
            (Some(missed), _) => missed,
            (None, io::ErrorKind::UnexpectedEof) => Error::Closed(step),
            (None, _) => Error::Broken { step, cause: cause(error) },
        }
    }
}

fn again(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.paced(|tcp| tcp.read(buffer))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.paced(|tcp| tcp.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel's words for an error.
pub fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(raw) => nix::errno::Errno::from_raw(raw).desc().into(),
        None => error.to_string(),
    }
}

/// Whether an address is this device's own or of its link only: no redirect from elsewhere leads there.
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            four.is_loopback()
                || four.is_link_local()
                || four.octets().first() == Some(&0)
                || four.is_broadcast()
        }
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => is_local(IpAddr::V4(four)),
            None => six.is_loopback() || six.is_unspecified() || six.is_unicast_link_local(),
        },
    }
}

/// The time that a step has where its name is not followed by a length.
pub fn allowed(step: Step, limits: &Limits) -> std::time::Duration {
    match step {
        Step::Connect => limits.connect,
        Step::Handshake => limits.handshake,
        Step::Send | Step::Head => limits.head,
        Step::Body => limits.body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_device_and_its_link() {
        for local in [
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }
}
