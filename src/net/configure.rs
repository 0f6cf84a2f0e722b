//! One interface, from nothing to an address, a route and name servers.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::kernel::{Kernel, News};
use super::lease::Dhcp;
use super::link::Link;
use super::netlink::Question;
use super::up::TICK;
use super::{Error, Places, Settings, Up, Watch};

/// With IPv6 alone, IPv4 gets so much longer.
const GRACE: Duration = Duration::from_secs(5);
/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Takes an interface from nothing to a network: up, carrier, static address or DHCP, router advertisements, routes,
/// name servers. It takes [`Settings::carrier`] and [`Settings::dhcp`] at the longest.
///
/// # Errors
/// What failed. The interface is left up and without an address of IPv4.
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
    let link =
        Link::named(&places.sysfs, interface).ok_or_else(|| Error::NoInterface(interface.to_string()))?;
    let failed =
        |step, errno: Errno| Error::Kernel { interface: interface.into(), step, cause: errno.desc() };
    let mut kernel = Kernel::open().map_err(|e| failed("asking the kernel", e))?;
    // Before the link is up, so that no router's word is missed.
    let news = News::open().map_err(|e| failed("listening to the kernel", e))?;
    flush(&mut kernel, link.index, false).map_err(|e| failed("taking its old addresses", e))?;
    prepare_ipv6(&places.procfs, interface, settings.ipv6);
    let _ = kernel.ask(Question::set_link(LOOPBACK, true));
    kernel.ask(Question::set_link(link.index, true)).map_err(|e| failed("setting it up", e))?;
    let mut up = Up::new(places, link, settings, kernel, news);
    wait_for_carrier(&mut up, settings, watch)?;
    give_fixed(&mut up)?;
    if !up.fixed.iter().any(|fixed| fixed.address.ip.is_ipv4()) {
        up.dhcp = Some(Dhcp::open(&up.link).map_err(|e| up.refused("opening a socket for DHCP", e))?);
        watch.tell(&format!("{interface}: asking for an address"));
    }
    let settled = wait_for_address(&mut up, settings, watch);
    if settled.is_err() {
        let _ = flush(&mut up.kernel, up.link.index, false);
    }
    settled.map(|()| up)
}

/// Sets what the kernel does with IPv6 by itself; without IPv6 in it there is nothing to set.
fn prepare_ipv6(procfs: &Path, interface: &str, wanted: bool) {
    let at = procfs.join("sys/net/ipv6/conf").join(interface);
    // 2: also where this device forwards.
    for (name, value) in
        [("accept_ra", "2"), ("autoconf", "1"), ("disable_ipv6", if wanted { "0" } else { "1" })]
    {
        let _ = fs::write(at.join(name), value);
    }
}

fn wait_for_carrier(up: &mut Up, settings: &Settings, watch: &mut dyn Watch) -> Result<(), Error> {
    let began = Instant::now();
    let mut told = false;
    while !up.link.has_carrier() {
        if began.elapsed() >= settings.carrier {
            return Err(Error::NoCarrier { interface: up.interface.clone(), waited: settings.carrier });
        }
        if !std::mem::replace(&mut told, true) {
            watch.tell(&format!("{}: waiting for a carrier", up.interface));
        }
        if !watch.alive() {
            return Err(Error::Stopped);
        }
        up.turn(TICK.min(settings.carrier), watch)?;
    }
    Ok(())
}

/// The addresses of the configuration, with their routes.
fn give_fixed(up: &mut Up) -> Result<(), Error> {
    for fixed in up.fixed.clone() {
        let index = up.link.index;
        let address = Question::add_address(index, fixed.address, None);
        up.kernel.ask(address).map_err(|e| up.refused("giving it its static address", e))?;
        if let Some(gateway) = fixed.gateway {
            let everything: IpAddr = if gateway.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let route = Question::add_route(index, everything, 0, Some(gateway));
            up.kernel.ask(route).map_err(|e| up.refused("setting its static gateway", e))?;
        }
    }
    Ok(())
}

fn wait_for_address(up: &mut Up, settings: &Settings, watch: &mut dyn Watch) -> Result<(), Error> {
    let began = Instant::now();
    let mut six_since = None;
    up.turn(Duration::ZERO, watch)?;
    loop {
        let waited = began.elapsed();
        let (four, six) = (up.has_four(), up.has_six());
        if six {
            six_since.get_or_insert(waited);
        }
        let alone = six_since.is_some_and(|since| waited >= since + GRACE);
        let fixed = up.fixed.iter().all(|fixed| up.addresses.contains(&fixed.address));
        if (four && fixed) || (six && alone) {
            return Ok(());
        }
        if waited >= settings.dhcp {
            if six || four {
                return Ok(());
            }
            let seen = up.dhcp.as_mut().map(|dhcp| std::mem::take(&mut dhcp.seen)).unwrap_or_default();
            return Err(Error::NoAddress { interface: up.interface.clone(), waited, seen });
        }
        if !watch.alive() {
            return Err(Error::Stopped);
        }
        up.turn(TICK.min(settings.dhcp - waited), watch)?;
    }
}

/// Takes the addresses from an interface, of IPv4 or all.
fn flush(kernel: &mut Kernel, index: u32, all: bool) -> nix::Result<()> {
    for held in kernel.addresses()? {
        if held.interface == index && (all || held.address.ip.is_ipv4()) {
            match kernel.ask(Question::delete_address(index, held.address)) {
                // It went by itself, or with the first one of its network.
                Err(Errno::EADDRNOTAVAIL) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Takes the addresses from an interface and sets it down, as far as that goes. What boots next should find it as if it
/// had never been used.
pub fn take_down(interface: &str) {
    take_down_in(&Places::default(), interface);
}

/// The same with places of its own.
pub fn take_down_in(places: &Places, interface: &str) {
    if let Some(link) = Link::named(&places.sysfs, interface)
        && let Ok(mut kernel) = Kernel::open()
    {
        let _ = flush(&mut kernel, link.index, true);
        let _ = kernel.ask(Question::set_link(link.index, false));
    }
}
