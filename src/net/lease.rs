//! DHCP over the wire: UDP from port 68 to port 67, bound to the interface, so that it works before there is an address
//! or a route.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::{BindToDevice, Broadcast, ReuseAddr};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket};

use super::dhcp::message::MAX_MESSAGE;
use super::dhcp::{Client, Event, Lease, Send};
use super::link::Link;

const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// So many datagrams are read in one go; a flood does not keep us from what is due.
const MOST: usize = 32;

/// A client with its socket.
#[derive(Debug)]
pub struct Dhcp {
    client: Client,
    socket: UdpSocket,
    began: Instant,
    /// What came last and would not do, and from whom.
    pub seen: String,
}

fn random() -> u32 {
    crate::sys::random::number() as u32
}

impl Dhcp {
    /// A client that asks at its first [`Dhcp::turn`].
    ///
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn open(link: &Link) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        // Another interface's client may have the port as well.
        setsockopt(&socket, ReuseAddr, &true)?;
        setsockopt(&socket, Broadcast, &true)?;
        setsockopt(&socket, BindToDevice, &link.name.as_str().into())?;
        bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, CLIENT))?;
        Ok(Dhcp {
            client: Client::new(link.hardware().unwrap_or_default(), Duration::ZERO, random()),
            socket: socket.into(),
            began: Instant::now(),
            seen: String::new(),
        })
    }

    /// When to take the next [`Dhcp::turn`] at the latest, from now.
    pub fn due(&self) -> Duration {
        self.client.due().saturating_sub(self.began.elapsed())
    }

    /// What it holds.
    pub fn lease(&self) -> Option<&Lease> {
        self.client.lease()
    }

    /// The kernel does not take the address that was given: asks anew.
    pub fn refuse(&mut self) {
        self.client.taken(self.began.elapsed(), random());
    }

    /// Reads what came and sends what is due; what happened, in order.
    pub fn turn(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut buffer = [0; MAX_MESSAGE + 1];
        for _ in 0..MOST {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { break };
            if from.port() != SERVER {
                continue;
            }
            let message = buffer.get(..length).unwrap_or_default();
            match self.client.receive(message, self.began.elapsed(), random()) {
                Ok(event) => events.push(event),
                Err(super::dhcp::Fault::NotOurs) => {}
                Err(fault) => self.seen = format!("{} answers, but {fault}", from.ip()),
            }
        }
        for _ in 0..2 {
            let (send, event) = self.client.poll(self.began.elapsed(), random());
            events.extend(event);
            let Some(Send { bytes, to }) = send else { break };
            let to = SocketAddr::from((to.unwrap_or(Ipv4Addr::BROADCAST), SERVER));
            if let Err(error) = self.socket.send_to(&bytes, to) {
                self.seen = format!("asking fails: {}", crate::sys::errno(&error).desc());
            }
        }
        for event in &events {
            if let Event::Refused(server) = event {
                self.seen = format!("{server} refuses to give an address");
            }
        }
        events
    }
}

impl AsFd for Dhcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
