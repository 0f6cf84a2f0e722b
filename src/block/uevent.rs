//! The kernel's news of devices, to sleep on until there is some.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// A socket on which the kernel tells of every device that comes or goes.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Opens it. Done before the first look at the devices, so that none can slip between look and sleep.
    ///
    /// # Errors
    /// When the kernel has no netlink.
    pub fn open() -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // Group 1: the kernel's own events.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Uevents { socket })
    }

    /// Sleeps until something happened to a device, but no longer than `limit`. What happened is not looked
    /// at: the caller looks at the devices themselves.
    pub fn wait(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut ready, timeout);
        self.drain();
    }

    /// Takes what has come so far; a lost event (ENOBUFS) is an event all the same.
    fn drain(&self) {
        let mut buffer = [0; 4096];
        while matches!(
            recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()),
            Ok(1..) | Err(Errno::ENOBUFS)
        ) {}
    }
}
