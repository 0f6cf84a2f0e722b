//! Name servers in router advertisements (RFC 8106), as the kernel passes them on.
//!
//! The kernel does IPv6's autoconfiguration itself and checks that an advertisement came from this link. The options that
//! it has no use for it hands to whoever listens on netlink (`RTM_NEWNDUSEROPT`, linux/rtnetlink.h):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | family, 10 |
//! | 2 | 2 | length of the options |
//! | 4 | 4 | index of the interface |
//! | 8 | 2 | ICMPv6 type, 134, and code, 0 |
//! | 16 | | options: type, length in units of eight bytes, value |
//!
//! Ring: core.

use core::net::Ipv6Addr;

use heapless::Vec;

use crate::block::field;

/// More name servers are not looked at.
pub const MAX_SERVERS: usize = 4;

const HEADER: usize = 16;
const ROUTER_ADVERTISEMENT: [u8; 2] = [134, 0];
const RDNSS: u8 = 25;

/// What routers said of name servers on one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Servers {
    /// The index of the interface.
    pub interface: u32,
    /// Servers that may be asked.
    pub servers: Vec<Ipv6Addr, MAX_SERVERS>,
    /// Servers that may be asked no longer.
    pub gone: Vec<Ipv6Addr, MAX_SERVERS>,
}

impl Servers {
    /// Reads the body of a message; none where it is no router advertisement's, or damaged.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let length = usize::from(u16::from_ne_bytes(field::bytes(body, 2)));
        let mut rest = body.get(HEADER..)?.get(..length)?;
        if body.first() != Some(&10) || field::bytes(body, 8) != ROUTER_ADVERTISEMENT {
            return None;
        }
        let mut found = Servers {
            interface: u32::from_ne_bytes(field::bytes(body, 4)),
            servers: Vec::new(),
            gone: Vec::new(),
        };
        while let [kind, eights, ..] = *rest {
            let (option, after) = rest.split_at_checked(usize::from(eights) * 8).filter(|_| eights > 0)?;
            rest = after;
            // Type, length, two bytes of nothing, four of lifetime, then whole addresses.
            if kind != RDNSS || eights < 3 || eights % 2 == 0 {
                continue;
            }
            let lifetime = u32::from_be_bytes(field::bytes(option, 4));
            let into = if lifetime == 0 { &mut found.gone } else { &mut found.servers };
            for at in (8..option.len()).step_by(16) {
                let server = Ipv6Addr::from(field::bytes::<16>(option, at));
                if !server.is_unspecified() && !server.is_multicast() && !server.is_loopback() {
                    let _ = into.push(server);
                }
            }
        }
        // A byte that is left is no option.
        rest.is_empty().then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(options: &[u8]) -> std::vec::Vec<u8> {
        let mut body = std::vec![10, 0];
        body.extend((options.len() as u16).to_ne_bytes());
        body.extend(7u32.to_ne_bytes());
        body.extend([134, 0, 0, 0, 0, 0, 0, 0]);
        body.extend(options);
        body
    }

    /// Two servers for 600 s, laid out after RFC 8106 section 5.1.
    fn rdnss(lifetime: u32) -> std::vec::Vec<u8> {
        let mut option = std::vec![25, 5, 0, 0];
        option.extend(lifetime.to_be_bytes());
        option.extend("2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
        option.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        option
    }

    #[test]
    fn servers_come_and_go() {
        let found = Servers::parse(&body(&rdnss(600))).unwrap();
        assert_eq!(found.interface, 7);
        let servers: std::vec::Vec<_> = found.servers.iter().map(ToString::to_string).collect();
        assert_eq!((servers, found.gone.len()), (std::vec!["2001:db8::53".into(), "fe80::1".to_string()], 0));
        let found = Servers::parse(&body(&rdnss(0))).unwrap();
        assert_eq!((found.servers.len(), found.gone.len()), (0, 2));
        // Behind an option of another kind (DNSSL), twice: as many as there is room for.
        let mixed = [&[31, 1, 0, 0, 0, 0, 0, 9][..], &rdnss(9), &rdnss(9), &rdnss(9)].concat();
        assert_eq!(Servers::parse(&body(&mixed)).unwrap().servers.len(), MAX_SERVERS);
    }

    #[test]
    fn what_is_damaged_says_nothing() {
        let good = body(&rdnss(600));
        for length in 0..good.len() {
            assert_eq!(Servers::parse(&good[..length]), None, "{length}");
        }
        for (at, value) in [(0, 2), (8, 135), (9, 1), (2, 0xff), (17, 0), (17, 4), (17, 6), (17, 255)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let found = Servers::parse(&bytes);
            assert!(found.is_none_or(|f| f.servers.is_empty()), "{at} {value}");
        }
        for hopeless in ["::", "::1", "ff02::1"] {
            let mut option = rdnss(600);
            option[8..24].copy_from_slice(&hopeless.parse::<Ipv6Addr>().unwrap().octets());
            assert_eq!(Servers::parse(&body(&option)).unwrap().servers.len(), 1);
        }
        assert_eq!(Servers::parse(&body(&[])).map(|f| f.servers.len()), Some(0));
    }
}
