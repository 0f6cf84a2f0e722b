//! A network that is up, and what keeps it so.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dhcp::Event;
use super::kernel::{Kernel, News};
use super::lease::Dhcp;
use super::link::Link;
use super::netlink::Question;
use super::ra::MAX_SERVERS;
use super::{Address, Error, Settings, Static, Watch, resolver};

/// Whoever waits is asked so often whether to go on.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// More kinds of wrong answers are not told of one interface.
const MOST_TOLD: u32 = 8;

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
    /// The name servers that were written down: the configured ones, or those that the network names.
    pub dns: Vec<IpAddr>,
    /// The time servers that the network names.
    pub ntp: Vec<String>,
    pub(super) link: Link,
    pub(super) kernel: Kernel,
    pub(super) news: News,
    pub(super) dhcp: Option<Dhcp>,
    pub(super) fixed: Vec<Static>,
    places: Places,
    /// What DHCP gave and the kernel has.
    lent: Option<Address>,
    announced: Vec<Ipv6Addr>,
    configured: Vec<IpAddr>,
    /// Whether the network's own name servers have their turn.
    others: bool,
    patience: Duration,
    gone: Option<Instant>,
    told: (u32, String),
}

impl Up {
    pub(super) fn new(places: &Places, link: Link, settings: &Settings, kernel: Kernel, news: News) -> Self {
        let ours = |fixed: &&Static| fixed.interface.is_empty() || fixed.interface == link.name;
        Up {
            interface: link.name.clone(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            fixed: settings.statics.iter().filter(ours).cloned().collect(),
            link,
            kernel,
            news,
            dhcp: None,
            places: places.clone(),
            lent: None,
            announced: Vec::new(),
            configured: settings.dns.clone(),
            others: false,
            patience: settings.carrier,
            gone: None,
            told: (0, String::new()),
        }
    }

    /// Renews what was lent and takes in what changed. To be called every few seconds while the network is used;
    /// it does not wait.
    ///
    /// # Errors
    /// [`Error::Lost`] when the address is gone, or the carrier for longer than [`Settings::carrier`];
    /// [`super::configure`] then starts anew.
    pub fn tend(&mut self, watch: &mut dyn Watch) -> Result<(), Error> {
        let lost = |what| Err(Error::Lost { interface: self.interface.clone(), what });
        if Link::named(&self.places.sysfs, &self.interface).is_none_or(|link| link.index != self.link.index) {
            return lost("its hardware");
        }
        if self.link.has_carrier() {
            self.gone = None;
        } else if self.gone.get_or_insert_with(Instant::now).elapsed() > self.patience {
            return lost("its carrier");
        }
        self.turn(Duration::ZERO, watch)?;
        if self.addresses.is_empty() {
            return Err(Error::Lost { interface: self.interface.clone(), what: "its address" });
        }
        Ok(())
    }

    /// Gives the other name servers their turn: the network's own ones instead of the configured ones, or back. To be
    /// called when a name was not found or led to a server that was not ours. `false`: there are no others.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn turn_names(&mut self) -> Result<bool, Error> {
        self.others = !self.others;
        let before = std::mem::take(&mut self.dns);
        self.name()?;
        Ok(self.dns != before)
    }

    /// Waits until something happens, but no longer than `limit`; takes it in.
    pub(super) fn turn(&mut self, limit: Duration, watch: &mut dyn Watch) -> Result<(), Error> {
        self.sleep(limit);
        for news in self.news.take().into_iter().filter(|news| news.interface == self.link.index) {
            self.announced.retain(|server| !news.gone.contains(server));
            for server in news.servers {
                if !self.announced.contains(&server) && self.announced.len() < MAX_SERVERS {
                    self.announced.push(server);
                }
            }
        }
        for event in self.dhcp.as_mut().map(Dhcp::turn).unwrap_or_default() {
            match event {
                Event::Offered(address) => watch.tell(&format!("{}: {address} is offered", self.interface)),
                Event::Bound => self.bind(watch),
                Event::Refused(server) => {
                    watch.tell(&format!("{}: {server} refuses the address", self.interface));
                    self.unbind();
                }
                Event::Expired => {
                    watch.tell(&format!("{}: the address was lent for a time that is over", self.interface));
                    self.unbind();
                }
            }
        }
        if let Some(dhcp) =
            self.dhcp.as_ref().filter(|dhcp| dhcp.seen != self.told.1 && self.told.0 < MOST_TOLD)
        {
            self.told = (self.told.0 + 1, dhcp.seen.clone());
            watch.tell(&format!("{}: {}", self.interface, dhcp.seen));
        }
        self.look()
    }

    fn sleep(&self, limit: Duration) {
        let mut limit = limit;
        let mut ready = vec![PollFd::new(self.news.as_fd(), PollFlags::POLLIN)];
        if let Some(dhcp) = &self.dhcp {
            limit = limit.min(dhcp.due());
            ready.push(PollFd::new(dhcp.as_fd(), PollFlags::POLLIN));
        }
        if !limit.is_zero() {
            let _ = poll(&mut ready, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        }
    }

    /// Gives the interface what was lent.
    fn bind(&mut self, watch: &mut dyn Watch) {
        let Some(lease) = self.dhcp.as_ref().and_then(Dhcp::lease).cloned() else { return };
        let address = Address { ip: lease.address.into(), prefix: lease.prefix };
        if self.lent != Some(address) {
            self.unbind();
        }
        let lasts = u32::try_from(lease.lasts.as_secs()).unwrap_or(u32::MAX);
        if let Err(errno) = self.kernel.ask(Question::add_address(self.link.index, address, Some(lasts))) {
            watch.tell(&format!("{}: the kernel does not take {address}: {}", self.interface, errno.desc()));
            self.dhcp.iter_mut().for_each(Dhcp::refuse);
            return;
        }
        self.lent = Some(address);
        for route in &lease.routes {
            let gateway = Some(IpAddr::from(route.gateway)).filter(|gateway| !gateway.is_unspecified());
            let question = Question::add_route(self.link.index, route.network.into(), route.prefix, gateway);
            if let Err(errno) = self.kernel.ask(question) {
                watch.tell(&format!(
                    "{}: no route to {}/{}: {}",
                    self.interface,
                    route.network,
                    route.prefix,
                    errno.desc()
                ));
            }
        }
    }

    fn unbind(&mut self) {
        if let Some(address) = self.lent.take() {
            // Its routes go with it. It may have gone by itself.
            let _ = self.kernel.ask(Question::delete_address(self.link.index, address));
        }
    }

    /// Looks at what the kernel has, and writes the name servers down where they changed.
    fn look(&mut self) -> Result<(), Error> {
        let held = self.kernel.addresses().map_err(|errno| self.refused("listing its addresses", errno))?;
        let usable = held.iter().filter(|h| h.interface == self.link.index && h.is_ready() && h.scope == 0);
        self.addresses = usable.map(|held| held.address).collect();
        let lease = self.dhcp.as_ref().and_then(Dhcp::lease);
        let routes = lease.map(|lease| &lease.routes[..]).unwrap_or_default();
        let lent = routes.iter().filter(|route| route.prefix == 0).map(|route| IpAddr::from(route.gateway));
        let fixed = self.fixed.iter().filter_map(|fixed| fixed.gateway);
        self.gateways = fixed.chain(lent).collect();
        self.gateways.extend(default_route(&self.places.procfs, &self.interface).map(IpAddr::from));
        self.ntp = lease.map(|l| l.ntp.iter().map(ToString::to_string).collect()).unwrap_or_default();
        self.name()
    }

    fn name(&mut self) -> Result<(), Error> {
        let lent = self.dhcp.as_ref().and_then(Dhcp::lease).map(|lease| &lease.dns[..]).unwrap_or_default();
        let lent = lent.iter().copied().map(IpAddr::from);
        let theirs: Vec<IpAddr> = lent.chain(self.announced.iter().copied().map(IpAddr::from)).collect();
        let [mut first, mut second] = [&self.configured, &theirs];
        if self.others {
            (first, second) = (second, first);
        }
        let mut names = if first.is_empty() { second.clone() } else { first.clone() };
        names.truncate(resolver::MAX_SERVERS);
        if names != self.dns {
            let path = &self.places.resolver;
            resolver::write(path, &names, &self.interface).map_err(|error| Error::Resolver {
                path: path.display().to_string(),
                cause: crate::sys::errno(&error).desc(),
            })?;
            self.dns = names;
        }
        Ok(())
    }

    /// Whether there is an address of IPv4.
    pub(super) fn has_four(&self) -> bool {
        self.addresses.iter().any(|address| address.ip.is_ipv4())
    }

    /// Whether there is an address of IPv6 and a way out.
    pub(super) fn has_six(&self) -> bool {
        let six = |ip: &IpAddr| ip.is_ipv6();
        self.addresses.iter().any(|a| six(&a.ip))
            && (self.gateways.iter().any(six) || self.fixed.iter().any(|fixed| six(&fixed.address.ip)))
    }

    pub(super) fn refused(&self, step: &'static str, errno: Errno) -> Error {
        Error::Kernel { interface: self.interface.clone(), step, cause: errno.desc() }
    }
}

/// The gateway of everything of IPv6, where a router has said that it is one. Of the kernel's list a line is: network,
/// prefix, source, prefix, gateway, metric and two counts, flags, interface; all but the last in hexadecimal digits.
fn default_route(procfs: &Path, interface: &str) -> Option<Ipv6Addr> {
    let list = fs::read_to_string(procfs.join("thread-self/net/ipv6_route")).ok()?;
    list.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [network, "00", _, "00", gateway, _, _, _, _, at] = fields[..] else { return None };
        let gateway = u128::from_str_radix(gateway, 16).ok().filter(|bits| *bits != 0)?;
        (at == interface && network.bytes().all(|b| b == b'0')).then(|| Ipv6Addr::from(gateway))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_found_in_the_kernels_list() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("thread-self/net");
        fs::create_dir_all(&at).unwrap();
        let zero = "0".repeat(32);
        let line = |network: &str, prefix: &str, gateway: &str, interface: &str| {
            format!(
                "{network} {prefix} {zero} 00 {gateway} 00000400 00000001 00000000 00450003 {interface:>8}\n"
            )
        };
        let router = "fe800000000000000000000000000001";
        let list = [
            line("fe800000000000000000000000000000", "40", &zero, "eth0"),
            line(&zero, "00", &zero, "lo"),
            line(&zero, "00", router, "eth1"),
            "broken\n".into(),
        ];
        fs::write(at.join("ipv6_route"), list.concat()).unwrap();
        assert_eq!(default_route(root.path(), "eth1"), "fe80::1".parse().ok());
        assert_eq!(default_route(root.path(), "eth0"), None);
        assert_eq!(default_route(root.path(), "lo"), None);
    }
}
