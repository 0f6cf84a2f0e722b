//! The control socket of wpa_supplicant. Ring: std.
//!
//! A datagram a command, a datagram a reply; events come on the same socket once it is attached. The daemon answers to the
//! name that we are bound to (wpa_supplicant 2.10, `wpa_supplicant/ctrl_iface_unix.c`).

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::profile::wipe;
use super::wire::{self, DATAGRAM_MAX, Event};

/// More events than this do not wait; the oldest are let go of, which is told.
const EVENTS_MAX: usize = 256;
/// The longest that one wait lasts before the caller is asked.
const SLICE: Duration = Duration::from_millis(500);

/// An open control socket.
#[derive(Debug)]
pub(super) struct Control {
    socket: UnixDatagram,
    own: PathBuf,
    events: VecDeque<Event>,
}

/// Why a command has no reply.
#[derive(Debug)]
pub(super) enum Fault {
    /// The kernel's reason: mostly that the daemon is gone.
    Io(io::Error),
    /// No reply in time. What comes later would be taken for another command's: the socket is not used any more.
    Silent,
    /// The caller waits no longer.
    Stopped,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Io(e) => e.fmt(f),
            Fault::Silent => f.write_str("no answer"),
            Fault::Stopped => f.write_str("stopped"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

impl Control {
    /// Connects to the daemon's socket; `own` is the name that it answers to.
    pub(super) fn open(daemon: &Path, own: &Path) -> io::Result<Self> {
        // Left by an earlier connection of ours: nobody else writes here.
        let _ = std::fs::remove_file(own);
        let socket = UnixDatagram::bind(own)?;
        let control = Control { socket, own: own.into(), events: VecDeque::new() };
        control.socket.connect(daemon)?;
        control.socket.set_write_timeout(Some(SLICE))?;
        Ok(control)
    }

    /// Sends a command and waits for its reply; events meanwhile are kept. A command may hold a secret: nothing of it
    /// is kept here.
    pub(super) fn ask(
        &mut self,
        command: &[u8],
        limit: Duration,
        alive: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<u8>, Fault> {
        let end = Instant::now() + limit;
        while let Err(e) = self.socket.send(command) {
            let full =
                matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted);
            if !full {
                return Err(e.into());
            }
            check(end, alive)?;
        }
        loop {
            match self.receive(SLICE)? {
                Some(reply) if !wire::is_event(&reply) => return Ok(reply),
                Some(event) => self.keep(&event),
                None => {}
            }
            check(end, alive)?;
        }
    }

    /// The next event that decides anything; `None` where none comes within `limit` (at most half a second).
    pub(super) fn event(&mut self, limit: Duration) -> io::Result<Option<Event>> {
        if self.events.is_empty()
            && let Some(datagram) = self.receive(limit.min(SLICE))?
        {
            self.keep(&datagram);
        }
        Ok(self.events.pop_front())
    }

    /// Forgets events that an earlier attempt left.
    pub(super) fn forget(&mut self) {
        self.events.clear();
    }

    fn keep(&mut self, datagram: &[u8]) {
        let Some(event) = wire::event(datagram) else { return };
        if self.events.len() >= EVENTS_MAX {
            log::warn!("wpa_supplicant: more than {EVENTS_MAX} events at once, the oldest is let go of");
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut buffer = vec![0; DATAGRAM_MAX];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

fn check(end: Instant, alive: &mut dyn FnMut() -> bool) -> Result<(), Fault> {
    if !alive() {
        return Err(Fault::Stopped);
    }
    if Instant::now() >= end { Err(Fault::Silent) } else { Ok(()) }
}

impl Drop for Control {
    fn drop(&mut self) {
        // In memory, and taken over by the next one where it stays.
        let _ = std::fs::remove_file(&self.own);
    }
}

/// `SET_NETWORK 0 NAME VALUE`, in a buffer that is overwritten after use.
pub(super) struct Command(Vec<u8>);

impl Command {
    pub(super) fn set_network(id: u32, name: &str, value: &[u8]) -> Self {
        let head = format!("SET_NETWORK {id} {name} ");
        let mut bytes = Vec::with_capacity(head.len() + value.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(value);
        Command(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        wipe(std::mem::take(&mut self.0));
    }
}
