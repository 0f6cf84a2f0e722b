//! What is asked of the kernel's rtnetlink, as bytes, and what it answers (rtnetlink(7), linux/rtnetlink.h). All numbers
//! are in the machine's own order, lengths are in bytes, and everything stands at multiples of four.
//!
//! Ring: alloc.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::Address;
use crate::block::field;

/// `nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `IFF_UP`.
const UP: u32 = 1;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
/// `RTNH_F_ONLINK`: the gateway is on this link, whatever the addresses say.
const ONLINK: u32 = 4;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const NEW_ND_OPTION: u16 = 68;

/// The multicast group of what routers say that the kernel has no use for: `RTNLGRP_ND_USEROPT`.
pub const ND_OPTIONS: u32 = 20;

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

/// A question, being written. The sequence number is put in when it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    bytes: Vec<u8>,
}

impl Question {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::from([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        Question { bytes }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn ip(&mut self, kind: u16, ip: IpAddr) {
        match ip {
            IpAddr::V4(four) => self.attribute(kind, &four.octets()),
            IpAddr::V6(six) => self.attribute(kind, &six.octets()),
        }
    }

    /// Sets an interface up or down.
    pub fn set_link(index: u32, up: bool) -> Self {
        let mut body = Vec::from([0; 4]);
        body.extend(index.to_ne_bytes());
        body.extend((if up { UP } else { 0 }).to_ne_bytes());
        body.extend(UP.to_ne_bytes());
        Question::new(NEW_LINK, ACK, &body)
    }

    /// Gives an interface an address, or gives the one that it has another end, so many seconds from now.
    pub fn add_address(index: u32, address: Address, lasts: Option<u32>) -> Self {
        let mut question = Question::address(NEW_ADDRESS, ACK | CREATE | REPLACE, index, address);
        if let (IpAddr::V4(four), 1..=30) = (address.ip, address.prefix) {
            let host = u32::MAX >> address.prefix;
            question.attribute(4, &(u32::from(four) | host).to_be_bytes());
        }
        if let Some(seconds) = lasts {
            // IFA_CACHEINFO: preferred, valid, and two times that are the kernel's to tell.
            let mut times = Vec::new();
            [seconds, seconds, 0, 0].iter().for_each(|time| times.extend(time.to_ne_bytes()));
            question.attribute(6, &times);
        }
        question
    }

    /// Takes an address from an interface.
    pub fn delete_address(index: u32, address: Address) -> Self {
        Question::address(DELETE_ADDRESS, ACK, index, address)
    }

    fn address(kind: u16, flags: u16, index: u32, address: Address) -> Self {
        let mut body = Vec::from([family(address.ip), address.prefix, 0, 0]);
        body.extend(index.to_ne_bytes());
        let mut question = Question::new(kind, flags, &body);
        question.ip(2, address.ip);
        question.ip(1, address.ip);
        question
    }

    /// Makes a network (everything, where its prefix is 0) be reached over an interface, through a gateway that is on
    /// its link, or directly.
    pub fn add_route(index: u32, network: IpAddr, prefix: u8, gateway: Option<IpAddr>) -> Self {
        // The main table (254), from a DHCP client or an administrator alike (boot, 3), to hosts anywhere or on the
        // link, of the usual kind.
        let scope = if gateway.is_some() || network.is_ipv6() { 0 } else { 253 };
        let mut body = Vec::from([family(network), prefix, 0, 0, 254, 3, scope, 1]);
        body.extend((if gateway.is_some() { ONLINK } else { 0 }).to_ne_bytes());
        let mut question = Question::new(NEW_ROUTE, ACK | CREATE | REPLACE, &body);
        if prefix > 0 {
            question.ip(1, network);
        }
        if let Some(gateway) = gateway {
            question.ip(5, gateway);
        }
        question.attribute(4, &index.to_ne_bytes());
        question
    }

    /// Asks for all addresses of all interfaces.
    pub fn addresses() -> Self {
        Question::new(GET_ADDRESS, DUMP, &[0; 8])
    }

    /// The bytes, under a number.
    pub fn numbered(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        for (at, number) in [(0, length), (8, sequence)] {
            if let Some(place) = self.bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
        }
        self.bytes
    }
}

/// An address that an interface has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The index of the interface.
    pub interface: u32,
    /// The address.
    pub address: Address,
    /// `IFA_F_*`, the first eight.
    pub flags: u8,
    /// 0: good everywhere; 253: on the link only.
    pub scope: u8,
}

impl Held {
    /// Whether packets can be sent from it: it is not being tried out, and nobody else has it.
    pub fn is_ready(&self) -> bool {
        const TENTATIVE: u8 = 0x40;
        const DAD_FAILED: u8 = 0x08;
        self.flags & (TENTATIVE | DAD_FAILED) == 0
    }
}

/// One message of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Done (0), or the reason why not, an errno.
    Done(i32),
    /// The end of a list.
    End,
    /// One address of a list.
    Held(Held),
    /// See [`super::ra`].
    NdOption(&'a [u8]),
    /// Anything else.
    Other,
}

/// The messages of a datagram, with their sequence numbers; ends at the first damaged one.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u32, Message<'_>)> {
    core::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(field::bytes(datagram, 0))).ok()?;
        let (head, body) = datagram.get(..length)?.split_at_checked(HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        let message = match u16::from_ne_bytes(field::bytes(head, 4)) {
            2 => Message::Done(i32::from_ne_bytes(field::bytes(body, 0)).saturating_neg()),
            3 => Message::End,
            NEW_ADDRESS => held(body).map_or(Message::Other, Message::Held),
            NEW_ND_OPTION => Message::NdOption(body),
            _ => Message::Other,
        };
        Some((u32::from_ne_bytes(field::bytes(head, 8)), message))
    })
}

/// An `ifaddrmsg` and its attributes. Where both ends of a line have an address (attribute 2), that is ours, else 1.
fn held(body: &[u8]) -> Option<Held> {
    let [family, prefix, flags, scope, ..] = *body else { return None };
    let mut rest = body.get(8..)?;
    let mut found = None;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(field::bytes(rest, 0)));
        let kind = u16::from_ne_bytes(field::bytes(rest, 2));
        let value = rest.get(..length)?.get(4..)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let ip = match (family, value.len()) {
            (2, 4) => IpAddr::from(field::bytes::<4>(value, 0)),
            (10, 16) => IpAddr::from(field::bytes::<16>(value, 0)),
            _ => continue,
        };
        match kind {
            1 if found.is_none() => found = Some(ip),
            2 => found = Some(ip),
            _ => {}
        }
    }
    let interface = u32::from_ne_bytes(field::bytes(body, 4));
    Some(Held { interface, address: Address { ip: found?, prefix }, flags, scope })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a message of this kind with this body.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut question = Question::new(kind, 0, body).numbered(7);
        question.resize(question.len().next_multiple_of(4), 0);
        question
    }

    #[test]
    fn a_default_route_in_bytes() {
        let route = Question::add_route(3, [0; 4].into(), 0, Some([10, 0, 2, 2].into()));
        let mut wanted = Vec::new();
        wanted.extend(44u32.to_ne_bytes());
        wanted.extend(24u16.to_ne_bytes());
        wanted.extend(0x505u16.to_ne_bytes());
        wanted.extend(9u32.to_ne_bytes());
        wanted.extend([0, 0, 0, 0, 2, 0, 0, 0, 254, 3, 0, 1]);
        wanted.extend(4u32.to_ne_bytes());
        for (kind, value) in [(5u16, [10, 0, 2, 2]), (4, 3u32.to_ne_bytes())] {
            wanted.extend(8u16.to_ne_bytes());
            wanted.extend(kind.to_ne_bytes());
            wanted.extend(value);
        }
        assert_eq!(route.numbered(9), wanted);
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["192.168.7.50/24", "10.1.2.3/32", "2001:db8::7/64"] {
            let address = Address::parse(text).unwrap();
            let bytes = Question::add_address(5, address, Some(60)).numbered(1);
            let found: Vec<_> = messages(&bytes).collect();
            assert_eq!(found, [(1, Message::Held(Held { interface: 5, address, flags: 0, scope: 0 }))]);
        }
    }

    #[test]
    fn answers_are_told_apart_and_damage_ends_them() {
        let mut datagram = message(2, &(-17i32).to_ne_bytes());
        datagram.extend(message(2, &[0; 4]));
        datagram.extend(message(99, &[1]));
        datagram.extend(message(68, &[1, 2]));
        datagram.extend(message(3, &[]));
        let found: Vec<_> = messages(&datagram).collect();
        let kinds =
            [Message::Done(17), Message::Done(0), Message::Other, Message::NdOption(&[1, 2]), Message::End];
        assert_eq!(found, kinds.map(|kind| (7, kind)));
        for length in 0..datagram.len() {
            assert!(messages(&datagram[..length]).count() < 5);
        }
        for length in [0u32, 1, 15, u32::MAX] {
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&datagram).count(), 0);
        }
        assert_eq!(messages(&message(2, &i32::MIN.to_ne_bytes())).next(), Some((7, Message::Done(i32::MAX))));
        // An attribute that goes past the end, one that ends before it begins.
        for attribute in [[200, 0, 1, 0], [3, 0, 1, 0]] {
            let body = [&[2, 24, 0, 0, 1, 0, 0, 0][..], &attribute].concat();
            assert_eq!(messages(&message(20, &body)).next(), Some((7, Message::Other)));
        }
    }
}
