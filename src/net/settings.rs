//! What a configuration says of the network.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the prefix: up to 32, or 128.
    pub prefix: u8,
}

impl Address {
    /// From `192.168.1.20/24` or `fd00::20/64`. What stands for no single host is none: unspecified, multicast, loopback.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, prefix) = text.split_once('/')?;
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| (1..=most).contains(prefix))?;
        let host = !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
        (host && ip != IpAddr::from([255; 4])).then_some(Address { ip, prefix })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// An address that the configuration gives, and no server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Static {
    /// The interface that it is for; empty: for any.
    pub interface: String,
    /// The address.
    pub address: Address,
    /// Where everything else is reached, of the address's family.
    pub gateway: Option<IpAddr>,
}

/// See the module. The default is DHCP and router advertisements on every Ethernet interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The interfaces to try, in order; empty: every Ethernet interface, by its name.
    pub interfaces: Vec<String>,
    /// An interface that has one of IPv4 here asks no DHCP server, one that has one of IPv6 waits for no router.
    pub statics: Vec<Static>,
    /// Name servers, asked before those that the network names.
    pub dns: Vec<IpAddr>,
    /// Time servers, names or addresses, asked before those that the network names.
    pub ntp: Vec<String>,
    /// Whether IPv6 is used at all.
    pub ipv6: bool,
    /// The longest wait for a carrier. 10 s; some switches take longer with spanning trees.
    pub carrier: Duration,
    /// The longest wait for an address. 30 s, in which DHCP asks five times.
    pub dhcp: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            interfaces: Vec::new(),
            statics: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            ipv6: true,
            carrier: Duration::from_secs(10),
            dhcp: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_hosts_and_others() {
        for text in ["192.168.1.20/24", "10.0.0.1/8", "169.254.1.1/16", "fd00::20/64", "2001:db8::1/128"] {
            assert_eq!(Address::parse(text).map(|a| alloc::format!("{a}")).as_deref(), Some(text));
        }
        for text in [
            "",
            "/",
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "10.0.0/8",
            "0.0.0.0/8",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "255.255.255.255/32",
            "::/64",
            "::1/128",
            "ff02::1/16",
            "fd00::1/129",
            "10.0.0.1/256",
            " 10.0.0.1/8",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
