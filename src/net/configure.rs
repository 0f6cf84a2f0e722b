//! One interface, from nothing to an address, a route and name servers.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{Address, Error, Settings, Watch};

/// Where the kernel tells of the network, and where its name servers are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Where sysfs is.
    pub sysfs: PathBuf,
    /// Where procfs is.
    pub procfs: PathBuf,
    /// The list of name servers that the C library reads.
    pub resolver: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Places { sysfs: "/sys".into(), procfs: "/proc".into(), resolver: "/etc/resolv.conf".into() }
    }
}

/// A network that can be used, as long as it is tended. Dropping it leaves it as it is.
#[derive(Debug)]
pub struct Up {
    /// The interface.
    pub interface: String,
    /// Its addresses, one at least.
    pub addresses: Vec<Address>,
    /// Where everything else is reached.
    pub gateways: Vec<IpAddr>,
    /// The name servers that were written down, the configured ones first.
    pub dns: Vec<IpAddr>,
    /// The time servers that the network names.
    pub ntp: Vec<String>,
}

impl Up {
    /// Renews what was lent. To be called every few seconds while the network is used.
    ///
    /// # Errors
    /// [`Error::Lost`] when the address or the carrier is gone; [`configure`] then starts anew.
    pub fn tend(&mut self, watch: &mut dyn Watch) -> Result<(), Error> {
        let _ = watch;
        Ok(())
    }
}

impl fmt::Display for Up {
    /// `eth0: 192.168.1.20/24 through 192.168.1.1, names from 192.168.1.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, before: &str, items: &mut dyn Iterator<Item = String>| {
            for (number, item) in items.enumerate() {
                write!(f, "{}{item}", if number == 0 { before } else { ", " })?;
            }
            Ok(())
        };
        write!(f, "{}", self.interface)?;
        list(f, ": ", &mut self.addresses.iter().map(ToString::to_string))?;
        list(f, " through ", &mut self.gateways.iter().map(ToString::to_string))?;
        list(f, ", names from ", &mut self.dns.iter().map(ToString::to_string))
    }
}

/// Takes an interface from nothing to a network: up, carrier, static address or DHCP, router advertisements, routes,
/// name servers.
///
/// # Errors
/// What failed; the interface is then as it was left.
pub fn configure(interface: &str, settings: &Settings, watch: &mut dyn Watch) -> Result<Up, Error> {
    configure_in(&Places::default(), interface, settings, watch)
}

/// The same with places of its own.
///
/// # Errors
/// As [`configure`].
pub fn configure_in(
    places: &Places,
    interface: &str,
    settings: &Settings,
    watch: &mut dyn Watch,
) -> Result<Up, Error> {
    let _ = (places, interface, settings, watch);
    Err(Error::NotBuilt("network"))
}

/// Takes the addresses from an interface and sets it down, as far as that goes.
pub fn take_down(interface: &str) {
    let _ = interface;
}
