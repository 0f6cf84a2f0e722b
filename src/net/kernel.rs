//! Questions to the kernel's rtnetlink, and its news.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::netlink::{Held, Message, ND_OPTIONS, Question, messages};
use super::ra::Servers;

/// The kernel answers at once; longer than this, in seconds, is a fault.
const PATIENCE: i64 = 5;
/// The longest datagram of the kernel's, in bytes: it makes none longer for a buffer like this.
const DATAGRAM: usize = 32 << 10;
/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`.
const CHANGES: [u32; 4] = [1, 5, 9, 12];

fn open(groups: u32) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
    Ok(socket)
}

/// Where questions are asked.
#[derive(Debug)]
pub struct Kernel {
    socket: OwnedFd,
    sequence: u32,
}

impl Kernel {
    /// Opens it.
    ///
    /// # Errors
    /// When the kernel has no network.
    pub fn open() -> nix::Result<Self> {
        Ok(Kernel { socket: open(0)?, sequence: 0 })
    }

    /// Has something done.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn ask(&mut self, question: Question) -> nix::Result<()> {
        self.answers(question, &mut |_| {})
    }

    /// All addresses of all interfaces.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn addresses(&mut self) -> nix::Result<Vec<Held>> {
        let mut held = Vec::new();
        self.answers(Question::addresses(), &mut |address| held.push(address))?;
        Ok(held)
    }

    fn answers(&mut self, question: Question, each: &mut dyn FnMut(Held)) -> nix::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question.numbered(self.sequence);
        send(self.socket.as_raw_fd(), &question, MsgFlags::empty())?;
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                length => length?,
            };
            for (sequence, message) in messages(buffer.get(..length).unwrap_or_default()) {
                match message {
                    // Of a question that was given up.
                    _ if sequence != self.sequence => {}
                    Message::Done(0) | Message::End => return Ok(()),
                    Message::Done(errno) => return Err(Errno::from_raw(errno)),
                    Message::Held(held) => each(held),
                    Message::NdOption(_) | Message::Other => {}
                }
            }
        }
    }
}

/// Where the kernel tells that a link, an address or a route changed, and what routers say of name servers.
#[derive(Debug)]
pub struct News {
    socket: OwnedFd,
}

impl News {
    /// Opens it; what happens from then on is told.
    ///
    /// # Errors
    /// When the kernel has no network.
    pub fn open() -> nix::Result<Self> {
        let bit = |group: &u32| 1u32 << (group - 1);
        Ok(News { socket: open(CHANGES.iter().map(bit).sum::<u32>() | bit(&ND_OPTIONS))? })
    }

    /// What came of name servers until now, oldest first. Everything else is only a reason to look again.
    pub fn take(&self) -> Vec<Servers> {
        let mut buffer = vec![0; DATAGRAM];
        let mut found = Vec::new();
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length @ 1..) => {
                    for (_, message) in messages(buffer.get(..length).unwrap_or_default()) {
                        if let Message::NdOption(body) = message {
                            found.extend(Servers::parse(body));
                        }
                    }
                }
                // Some news was lost: routers say it again.
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                _ => return found,
            }
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
