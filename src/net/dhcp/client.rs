//! The client: RFC 2131 section 4.4, without the states that need a memory of earlier boots.
//!
//! ```text
//!   Asking ──an offer──> Wanting ──yes──> Bound ──renew──> Renewing ──rebind──> Rebinding
//!     ^                     │ no, or nothing               │ no              │ no, or the end
//!     └─────────────────────┴───────────────────────────────┴─────────────────┘
//! ```
//!
//! It waits 2, 4, then 8 s for an answer, each half a second more or less by chance, so that devices that were switched
//! on together do not ask together. A server that offered and then said no, or nothing, is passed over in the next
//! round's first question, so that one bad server does not keep a good one out.

use core::net::Ipv4Addr;
use core::time::Duration;

use heapless::Vec;

use super::message::{Ask, Fault, Kind, Lease, Reply, SENT};

/// An offer is asked for so many times before the next round.
const REQUESTS: u32 = 4;
/// The longest wait for an answer while there is no address, in seconds.
const LONGEST: u64 = 8;
/// While there is one: half of the time that is left, at least so long.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(10);

/// A message to be sent, from port 68 to port 67.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Send {
    /// Its bytes.
    pub bytes: Vec<u8, SENT>,
    /// To whom; none: to everybody on the link.
    pub to: Option<Ipv4Addr>,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An address can be had; it is asked for.
    Offered(Ipv4Addr),
    /// It is ours, from now on or further on: [`Client::lease`].
    Bound,
    /// A server said no; what was there is gone.
    Refused(Ipv4Addr),
    /// The lease is over; what was there is gone.
    Expired,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Asking,
    Wanting(Lease),
    Bound(Lease),
    Renewing(Lease),
    Rebinding(Lease),
}

/// See the module. All times are of one clock that only goes forward, from any moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    hardware: [u8; 6],
    transaction: u32,
    state: State,
    /// The first question of this round, for the seconds field.
    began: Duration,
    /// Messages of this state so far.
    tries: u32,
    /// When to act next.
    due: Duration,
    /// When the first question of this state was sent.
    first: Duration,
    /// The same of the state that ended with the lease: its times count from there, which is never too late.
    asked: Duration,
    /// Who offered and then did not give.
    shunned: Option<Ipv4Addr>,
}

impl Client {
    /// A client that asks at once.
    pub fn new(hardware: [u8; 6], now: Duration, random: u32) -> Self {
        Client {
            hardware,
            transaction: random,
            state: State::Asking,
            began: now,
            tries: 0,
            due: now,
            first: now,
            asked: now,
            shunned: None,
        }
    }

    /// When to call [`Client::poll`] next.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// What it holds.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease) => Some(lease),
            State::Asking | State::Wanting(_) => None,
        }
    }

    /// What is to be sent now, and what the time brought about. `random` is a new uniformly random number each time.
    pub fn poll(&mut self, now: Duration, random: u32) -> (Option<Send>, Option<Event>) {
        if now < self.due {
            return (None, None);
        }
        let mut event = None;
        match &self.state {
            State::Wanting(lease) if self.tries >= REQUESTS => {
                self.shunned = Some(lease.server);
                self.restart(now, random);
            }
            State::Bound(lease) if now >= self.asked + lease.renew => {
                self.enter(State::Renewing(lease.clone()), now, random);
            }
            State::Renewing(lease) if now >= self.asked + lease.rebind => {
                self.enter(State::Rebinding(lease.clone()), now, random);
            }
            State::Rebinding(lease) if now >= self.asked + lease.lasts => {
                event = Some(Event::Expired);
                self.restart(now, random);
            }
            _ => {}
        }
        (self.question(now, random), event)
    }

    /// The question of this state, and when to ask again.
    fn question(&mut self, now: Duration, random: u32) -> Option<Send> {
        let mut ask = Ask {
            kind: Kind::Request,
            transaction: self.transaction,
            seconds: u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX),
            hardware: self.hardware,
            own: None,
            wanted: None,
            server: None,
        };
        let half =
            |end: Duration| (end.saturating_sub(now) / 2).max(SHORTEST_RENEWAL).min(end.saturating_sub(now));
        let (to, wait) = match &self.state {
            State::Asking => {
                ask.kind = Kind::Discover;
                (None, patience(self.tries, random))
            }
            State::Wanting(lease) => {
                (ask.wanted, ask.server) = (Some(lease.address), Some(lease.server));
                (None, patience(self.tries, random))
            }
            // Woken early.
            State::Bound(lease) => {
                self.due = self.asked + lease.renew;
                return None;
            }
            State::Renewing(lease) => {
                ask.own = Some(lease.address);
                (Some(lease.server), half(self.asked + lease.rebind))
            }
            State::Rebinding(lease) => {
                ask.own = Some(lease.address);
                (None, half(self.asked + lease.lasts))
            }
        };
        if self.tries == 0 {
            self.first = now;
        }
        self.tries = self.tries.saturating_add(1);
        self.due = now + wait;
        Some(Send { bytes: ask.emit(), to })
    }

    /// Takes in a message that came from port 67.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn receive(&mut self, bytes: &[u8], now: Duration, random: u32) -> Result<Event, Fault> {
        let reply = Reply::parse(bytes)?;
        if reply.transaction != self.transaction || reply.hardware != self.hardware {
            return Err(Fault::NotOurs);
        }
        match (&self.state, reply.kind) {
            (State::Asking, Kind::Offer) if self.tries > 0 => {
                let lease = reply.lease()?;
                if self.shunned == Some(lease.server) && self.tries < 2 {
                    return Err(Fault::Unexpected);
                }
                let address = lease.address;
                (self.state, self.tries, self.due) = (State::Wanting(lease), 0, now);
                Ok(Event::Offered(address))
            }
            (State::Wanting(offer), Kind::Ack) if self.tries > 0 => {
                let lease = reply.lease()?;
                if (lease.server, lease.address) != (offer.server, offer.address) {
                    return Err(Fault::Unexpected);
                }
                Ok(self.bind(lease))
            }
            (State::Renewing(held) | State::Rebinding(held), Kind::Ack) => {
                let lease = reply.lease()?;
                if lease.address != held.address {
                    return Err(Fault::Unexpected);
                }
                Ok(self.bind(lease))
            }
            (State::Wanting(from) | State::Renewing(from), Kind::Nak) => {
                let server = from.server;
                // RFC 2131 wants the server's name in it; who says no without it is believed.
                if reply.server.is_some_and(|said| said != server) {
                    return Err(Fault::Unexpected);
                }
                self.shunned = Some(server);
                Ok(self.refused(server, now, random))
            }
            (State::Rebinding(held), Kind::Nak) => {
                let server = reply.server.unwrap_or(held.server);
                Ok(self.refused(server, now, random))
            }
            _ => Err(Fault::Unexpected),
        }
    }

    /// The address that is held turned out to be in use: asks anew, its server last.
    pub fn taken(&mut self, now: Duration, random: u32) {
        self.shunned = self.lease().map(|lease| lease.server);
        self.restart(now, random);
        self.due = now + patience(1, random);
    }

    /// A yes.
    fn bind(&mut self, lease: Lease) -> Event {
        self.asked = self.first;
        self.due = self.asked + lease.renew;
        (self.state, self.tries, self.shunned) = (State::Bound(lease), 0, None);
        Event::Bound
    }

    /// A no. The next round waits, so that a server that always says no is not asked without a pause.
    fn refused(&mut self, server: Ipv4Addr, now: Duration, random: u32) -> Event {
        self.restart(now, random);
        self.due = now + patience(0, random);
        Event::Refused(server)
    }

    fn restart(&mut self, now: Duration, random: u32) {
        self.began = now;
        self.enter(State::Asking, now, random);
    }

    fn enter(&mut self, state: State, now: Duration, random: u32) {
        if state != State::Asking {
            self.began = now;
        }
        // Another number than the wait's, from the same one.
        self.transaction = random.rotate_left(16) ^ 0x5bd1_e995;
        (self.state, self.tries) = (state, 0);
    }
}

/// How long to wait for the answer to the question after `tries` others: 2, 4, 8, 8 s, half a second more or less.
fn patience(tries: u32, random: u32) -> Duration {
    let seconds = 2u64.checked_shl(tries).unwrap_or(LONGEST).min(LONGEST);
    Duration::from_millis(seconds * 1000 - 500 + u64::from(random % 1001))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
