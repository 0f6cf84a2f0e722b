//! The messages: RFC 2131 section 2 (layout), RFC 2132 (options), RFC 3442 (classless routes).
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | 1 from a client, 2 from a server |
//! | 1 | 3 | kind of hardware (1, Ethernet), length of its addresses (6), hops |
//! | 4 | 4 | transaction id |
//! | 8 | 4 | seconds since the client began, flags (0x8000: answer by broadcast) |
//! | 12 | 16 | the client's address, the one that is offered, the next server's, the relay's |
//! | 28 | 16 | the client's hardware address |
//! | 44 | 192 | names of a server and of a file, which are not read, whatever an option 52 (overload) says |
//! | 236 | 4 | 99 130 83 99 |
//! | 240 | | options: code, length, value; 0 is padding, 255 the end |

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use heapless::Vec;

use crate::block::field;

/// The length of what we send, in bytes: what BOOTP relays expect at least (RFC 1542 section 2.1).
pub const SENT: usize = 300;
/// Longer messages are not read, in bytes: one Ethernet frame.
pub const MAX_MESSAGE: usize = 1500;
/// More addresses of one kind (routers, name servers, time servers) are not looked at.
pub const MAX_ADDRESSES: usize = 4;
/// More classless routes are not looked at.
pub const MAX_ROUTES: usize = 16;
/// The shortest lease that is taken at its word, in seconds; shorter ones count as this one.
pub const MIN_LEASE: u32 = 60;
/// The longest, in seconds: a day, after which it is renewed; also where the lease never ends or is not told.
pub const MAX_LEASE: u32 = 86_400;

const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Classless routes first: RFC 3442 wants them before the router.
const WANTED: [u8; 8] = [121, 1, 3, 6, 42, 51, 58, 59];

/// What a message is: option 53.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Who gives an address?
    Discover = 1,
    /// This one can be had.
    Offer = 2,
    /// That one, please; or: still that one, please.
    Request = 3,
    /// It is yours.
    Ack = 5,
    /// It is not.
    Nak = 6,
}

/// What a message of ours says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// [`Kind::Discover`] or [`Kind::Request`].
    pub kind: Kind,
    /// Ties the answers to it.
    pub transaction: u32,
    /// Seconds since we began.
    pub seconds: u16,
    /// Our hardware address.
    pub hardware: [u8; 6],
    /// The address that we have and want to keep.
    pub own: Option<Ipv4Addr>,
    /// The address that was offered.
    pub wanted: Option<Ipv4Addr>,
    /// Who offered it.
    pub server: Option<Ipv4Addr>,
}

impl Ask {
    /// The message in bytes.
    pub fn emit(&self) -> Vec<u8, SENT> {
        let mut out = Vec::new();
        // Everything fits: 240 bytes and up to 37 of options.
        let mut put = |bytes: &[u8]| drop(out.extend_from_slice(bytes));
        put(&[1, 1, 6, 0]);
        put(&self.transaction.to_be_bytes());
        put(&self.seconds.to_be_bytes());
        // Who has an address can be answered there.
        put(if self.own.is_some() { &[0, 0] } else { &[0x80, 0] });
        put(&self.own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        put(&[0; 12]);
        put(&self.hardware);
        put(&[0; 10 + 192]);
        put(&COOKIE);
        put(&[53, 1, self.kind as u8]);
        for (code, address) in [(50, self.wanted), (54, self.server)] {
            if let Some(address) = address {
                put(&[code, 4]);
                put(&address.octets());
            }
        }
        put(&[57, 2]);
        put(&(MAX_MESSAGE as u16 - 28).to_be_bytes());
        put(&[55, WANTED.len() as u8]);
        put(&WANTED);
        put(&[255]);
        let _ = out.resize(SENT, 0);
        out
    }
}

/// Why a message is not looked at any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Too short, or no DHCP message of a server to Ethernet hardware.
    Foreign,
    /// An option goes past the end.
    Cut,
    /// An option has a length that its kind cannot have.
    Length(u8),
    /// It does not say what it is, or is what no server sends.
    Kind,
    /// The answer to another, or to somebody else.
    NotOurs,
    /// Not what was waited for.
    Unexpected,
    /// No host can have the address that it offers.
    Address(Ipv4Addr),
    /// The mask is none.
    Mask(Ipv4Addr),
    /// It does not say who offers.
    NoServer,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Foreign => f.write_str("it is no answer of a DHCP server"),
            Fault::Cut => f.write_str("an option goes past its end"),
            Fault::Length(code) => write!(f, "option {code} has a wrong length"),
            Fault::Kind => f.write_str("it is neither an offer nor a yes or no"),
            Fault::NotOurs => f.write_str("it is for somebody else"),
            Fault::Unexpected => f.write_str("it does not answer what was asked"),
            Fault::Address(address) => write!(f, "it offers {address}, which no host can have"),
            Fault::Mask(mask) => write!(f, "its mask is {mask}"),
            Fault::NoServer => f.write_str("it does not say which server offers"),
        }
    }
}

/// A way to a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The network.
    pub network: Ipv4Addr,
    /// Bits of its prefix; 0 is everything.
    pub prefix: u8,
    /// Through here; unspecified: it is on this link.
    pub gateway: Ipv4Addr,
}

/// A message of a server, as it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// [`Kind::Offer`], [`Kind::Ack`] or [`Kind::Nak`].
    pub kind: Kind,
    /// As in what it answers.
    pub transaction: u32,
    /// Whom it is for.
    pub hardware: [u8; 6],
    /// The address that we may have.
    pub yours: Ipv4Addr,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 1.
    pub mask: Option<Ipv4Addr>,
    /// Option 3.
    pub routers: Vec<Ipv4Addr, MAX_ADDRESSES>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr, MAX_ADDRESSES>,
    /// Option 42.
    pub ntp: Vec<Ipv4Addr, MAX_ADDRESSES>,
    /// Option 121; where it is there, the routers do not count.
    pub routes: Option<Vec<Route, MAX_ROUTES>>,
    /// Options 51, 58 and 59, in seconds.
    pub times: [Option<u32>; 3],
}

impl Reply {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is none of a server, or damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let options = bytes.get(HEADER..).filter(|_| bytes.len() <= MAX_MESSAGE).ok_or(Fault::Foreign)?;
        if field::bytes(bytes, 0) != [2, 1, 6] || field::bytes(bytes, 236) != COOKIE {
            return Err(Fault::Foreign);
        }
        let mut reply = Reply {
            kind: Kind::Discover,
            transaction: u32::from_be_bytes(field::bytes(bytes, 4)),
            hardware: field::bytes(bytes, 28),
            yours: address(bytes, 16),
            server: None,
            mask: None,
            routers: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            routes: None,
            times: [None; 3],
        };
        let mut rest = options;
        // A message that ends without a 255 ends all the same.
        while let Some((&code, after)) = rest.split_first() {
            rest = match code {
                0 => after,
                255 => break,
                _ => {
                    let (&length, after) = after.split_first().ok_or(Fault::Cut)?;
                    let (value, after) = after.split_at_checked(length.into()).ok_or(Fault::Cut)?;
                    reply.option(code, value)?;
                    after
                }
            };
        }
        match reply.kind {
            Kind::Offer | Kind::Ack | Kind::Nak => Ok(reply),
            Kind::Discover | Kind::Request => Err(Fault::Kind),
        }
    }

    /// Takes in one option. Of what can be there once, the first one counts.
    fn option(&mut self, code: u8, value: &[u8]) -> Result<(), Fault> {
        let single = |seen: &mut Option<Ipv4Addr>| match value {
            [_, _, _, _] => {
                seen.get_or_insert(address(value, 0));
                Ok(())
            }
            _ => Err(Fault::Length(code)),
        };
        match code {
            1 => single(&mut self.mask)?,
            54 => single(&mut self.server)?,
            3 => addresses(code, value, &mut self.routers)?,
            6 => addresses(code, value, &mut self.dns)?,
            42 => addresses(code, value, &mut self.ntp)?,
            51 | 58 | 59 => {
                let seconds = <[u8; 4]>::try_from(value).map_err(|_| Fault::Length(code))?;
                let [lease, renew, rebind] = &mut self.times;
                let time = match code {
                    51 => lease,
                    58 => renew,
                    _ => rebind,
                };
                time.get_or_insert(u32::from_be_bytes(seconds));
            }
            53 if self.kind == Kind::Discover => {
                self.kind = match value {
                    [2] => Kind::Offer,
                    [5] => Kind::Ack,
                    [6] => Kind::Nak,
                    [_] => return Err(Fault::Kind),
                    _ => return Err(Fault::Length(code)),
                }
            }
            // A long list may come in several parts (RFC 3396); ours is short enough for one.
            121 if self.routes.is_none() => self.routes = Some(routes(value)?),
            _ => {}
        }
        Ok(())
    }

    /// What an offer or a yes lends, made usable.
    ///
    /// # Errors
    /// When no host could live with it.
    pub fn lease(&self) -> Result<Lease, Fault> {
        let server = self.server.ok_or(Fault::NoServer)?;
        if !is_host(self.yours) {
            return Err(Fault::Address(self.yours));
        }
        let prefix = match self.mask {
            Some(mask) => prefix_of(mask).ok_or(Fault::Mask(mask))?,
            // What the address had before there were masks.
            None => match self.yours.octets() {
                [..128, ..] => 8,
                [128..192, ..] => 16,
                _ => 24,
            },
        };
        // The first and the last address of a network are no host's, except in the smallest ones.
        let host = u32::from(self.yours) & !mask_of(prefix);
        if prefix < 31 && (host == 0 || host == !mask_of(prefix)) {
            return Err(Fault::Address(self.yours));
        }
        let mut routes = Vec::new();
        let ours = |gateway: Ipv4Addr| gateway != self.yours && is_host(gateway);
        match &self.routes {
            Some(given) => {
                let usable = |r: &&Route| r.gateway.is_unspecified() || ours(r.gateway);
                routes.extend(given.iter().filter(usable).copied());
            }
            None => routes.extend(
                self.routers.iter().copied().find(|router| ours(*router)).map(|gateway| Route {
                    network: Ipv4Addr::UNSPECIFIED,
                    prefix: 0,
                    gateway,
                }),
            ),
        }
        let servers = |given: &Vec<Ipv4Addr, MAX_ADDRESSES>| {
            given.iter().copied().filter(|server| is_host(*server)).collect()
        };
        let [lease, renew, rebind] = self.times;
        let lasts = lease.unwrap_or(MAX_LEASE).clamp(MIN_LEASE, MAX_LEASE);
        // As told where they are in order, else as RFC 2131 section 4.4.5 has them.
        let (renew, rebind) = match (renew, rebind) {
            (Some(renew), Some(rebind)) if MIN_LEASE / 4 < renew && renew < rebind && rebind < lasts => {
                (renew, rebind)
            }
            _ => (lasts / 2, lasts / 8 * 7),
        };
        let seconds = |n: u32| Duration::from_secs(n.into());
        Ok(Lease {
            address: self.yours,
            prefix,
            server,
            routes,
            dns: servers(&self.dns),
            ntp: servers(&self.ntp),
            renew: seconds(renew),
            rebind: seconds(rebind),
            lasts: seconds(lasts),
        })
    }
}

/// What a server lends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Bits of its network's prefix, 1 to 32.
    pub prefix: u8,
    /// Who lends it.
    pub server: Ipv4Addr,
    /// The ways out.
    pub routes: Vec<Route, MAX_ROUTES>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr, MAX_ADDRESSES>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr, MAX_ADDRESSES>,
    /// From when on to ask its server to go on, counted from the request that it answers.
    pub renew: Duration,
    /// From when on to ask every server.
    pub rebind: Duration,
    /// Its end, [`MIN_LEASE`] to [`MAX_LEASE`] seconds.
    pub lasts: Duration,
}

/// Whether one host can have the address: of the classes A to C, not of this host, not of this link only by chance.
pub fn is_host(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [1..=126 | 128..=223, ..])
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(field::bytes::<4>(bytes, at))
}

fn addresses(code: u8, value: &[u8], into: &mut Vec<Ipv4Addr, MAX_ADDRESSES>) -> Result<(), Fault> {
    if value.is_empty() || !value.len().is_multiple_of(4) {
        return Err(Fault::Length(code));
    }
    for at in (0..value.len()).step_by(4) {
        if into.push(address(value, at)).is_err() {
            break;
        }
    }
    Ok(())
}

/// RFC 3442: the prefix's length, as many of its bytes as that needs, the gateway; again and again.
fn routes(mut value: &[u8]) -> Result<Vec<Route, MAX_ROUTES>, Fault> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = value.split_first() {
        let wrong = Fault::Length(121);
        if prefix > 32 {
            return Err(wrong);
        }
        let (network, rest) = rest.split_at_checked(usize::from(prefix.div_ceil(8))).ok_or(wrong)?;
        let (gateway, rest) = rest.split_at_checked(4).ok_or(wrong)?;
        let mut bytes = [0; 4];
        bytes.iter_mut().zip(network).for_each(|(to, from)| *to = *from);
        let network = Ipv4Addr::from(u32::from_be_bytes(bytes) & mask_of(prefix));
        let _ = routes.push(Route { network, prefix, gateway: address(gateway, 0) });
        value = rest;
    }
    Ok(routes)
}

fn mask_of(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0)
}

/// The length of the prefix that a mask stands for: ones, then zeros, one of them at least a one.
fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let prefix = bits.leading_ones() as u8;
    (bits != 0 && mask_of(prefix) == bits).then_some(prefix)
}

#[cfg(test)]
#[path = "message_tests.rs"]
pub(super) mod tests;
