//! The network against real servers and scripted ones, each test in network namespaces of its own.

mod dhcp;
mod lab;
mod names;
mod time;

use std::time::{Duration, Instant};

use bootward::net::{Address, Error, Settings, Static};
use lab::{Notes, addresses, alone, ip};

/// Settings with short waits, without IPv6.
fn short() -> Settings {
    let wait = Duration::from_secs(6);
    Settings { ipv6: false, carrier: wait, dhcp: wait, ..Settings::default() }
}

const RANGE: &str = "--dhcp-range=192.168.77.50,192.168.77.99,255.255.255.0,600";

#[test]
fn an_address_from_dnsmasq() {
    alone(|lab| {
        let _server = lab.dnsmasq(&[RANGE, "--dhcp-option=option:ntp-server,192.168.77.3"]);
        let mut notes = Notes::for_seconds(60);
        let mut up = lab.configure(&short(), &mut notes).unwrap_or_else(|e| panic!("{e}: {:?}", notes.lines));
        let [address] = &addresses(&up)[..] else { panic!("{up}") };
        assert!(address.starts_with("192.168.77.") && address.ends_with("/24"), "{up}");
        assert_eq!(up.gateways, ["192.168.77.1".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(up.ntp, ["192.168.77.3"]);
        assert!(
            lab.resolver().starts_with("nameserver 192.168.77.1\noptions timeout:"),
            "{}",
            lab.resolver()
        );
        assert!(ip("route show default").starts_with("default via 192.168.77.1 dev dev0"));
        assert!(notes.has("is offered"), "{:?}", notes.lines);
        // It is used: the other end answers.
        ip("-4 neigh flush all");
        assert!(
            std::net::TcpStream::connect_timeout(&"192.168.77.1:53".parse().unwrap(), Duration::from_secs(5))
                .is_ok()
        );
        up.tend(&mut notes).unwrap();
        bootward::net::take_down_in(&lab.places, "dev0");
        assert_eq!(
            (ip("addr show dev dev0 scope global").contains("inet"), ip("route show")),
            (false, String::new())
        );
        assert!(up.tend(&mut notes).is_err());
    });
}

#[test]
fn a_silent_network_is_left_in_time() {
    alone(|lab| {
        let began = Instant::now();
        let error = lab.configure(&short(), &mut Notes::for_seconds(60)).unwrap_err();
        assert!(matches!(error, Error::NoAddress { .. }), "{error}");
        assert!((6..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert!(error.to_string().contains("nothing answers"), "{error}");
    });
}

#[test]
fn a_static_address_asks_nobody() {
    alone(|lab| {
        lab.there("ip addr add 192.168.77.1/24 dev srv0");
        let fixed = Static {
            interface: "dev0".into(),
            address: Address::parse("192.168.77.20/24").unwrap(),
            gateway: "192.168.77.1".parse().ok(),
        };
        let other = Static {
            interface: "dev1".into(),
            address: Address::parse("10.0.0.1/8").unwrap(),
            gateway: None,
        };
        let dns = vec!["192.168.77.1".parse().unwrap()];
        let settings = Settings { statics: vec![fixed, other], dns, ..short() };
        let up = lab.configure(&settings, &mut Notes::for_seconds(60)).unwrap();
        assert_eq!(up.to_string(), "dev0: 192.168.77.20/24 through 192.168.77.1, names from 192.168.77.1");
    });
}

#[test]
fn a_network_of_ipv6_alone() {
    alone(|lab| {
        lab.there("ip addr add fd00:77::1/64 dev srv0 nodad");
        // DHCP is silent: dnsmasq has a range of IPv6 only.
        let options = ["--enable-ra", "--dhcp-range=fd00:77::,ra-only,600", "--ra-param=srv0,4,600"];
        let _server =
            lab.dnsmasq(&[&options[..], &["--dhcp-option=option6:dns-server,[fd00:77::1]"]].concat());
        let mut notes = Notes::for_seconds(60);
        let settings = Settings { ipv6: true, dhcp: Duration::from_secs(30), ..short() };
        let up = lab.configure(&settings, &mut notes).unwrap_or_else(|e| panic!("{e}: {:?}", notes.lines));
        assert!(addresses(&up).iter().any(|a| a.starts_with("fd00:77:") && a.ends_with("/64")), "{up}");
        assert!(up.gateways.iter().any(|gateway| gateway.to_string().starts_with("fe80::")), "{up}");
        assert_eq!(up.dns, ["fd00:77::1".parse::<std::net::IpAddr>().unwrap()], "{up}");
        assert!(lab.resolver().starts_with("nameserver fd00:77::1\n"), "{}", lab.resolver());
        let server = "[fd00:77::1]:53".parse().unwrap();
        assert!(std::net::TcpStream::connect_timeout(&server, Duration::from_secs(5)).is_ok());
        // Without it, the interface stays without an address of its own.
        bootward::net::take_down_in(&lab.places, "dev0");
        assert!(matches!(lab.configure(&short(), &mut notes), Err(Error::NoAddress { .. })));
        assert!(!ip("addr show dev dev0").contains("inet6"));
    });
}

#[test]
fn a_static_address_of_ipv6() {
    alone(|lab| {
        lab.there("ip addr add fd00:77::1/64 dev srv0 nodad");
        let fixed = Static {
            interface: String::new(),
            address: Address::parse("fd00:77::20/64").unwrap(),
            gateway: "fd00:77::1".parse().ok(),
        };
        let settings =
            Settings { statics: vec![fixed], ipv6: true, dhcp: Duration::from_secs(20), ..short() };
        let up = lab.configure(&settings, &mut Notes::for_seconds(60)).unwrap();
        assert_eq!(addresses(&up), ["fd00:77::20/64"]);
        assert!(ip("-6 route show default").contains("via fd00:77::1"));
    });
}

#[test]
fn the_second_interface_where_the_first_is_dead() {
    alone(|lab| {
        // Names in order: the dead one first.
        lab.wire("dev-", "srv-");
        lab.there("ip link set srv- down");
        let _server = lab.dnsmasq(&[RANGE]);
        let settings = Settings { carrier: Duration::from_secs(3), ..short() };
        let found = bootward::net::link::wired_in(&lab.places, &settings);
        assert_eq!(found, ["dev-", "dev0"]);
        let mut notes = Notes::for_seconds(60);
        let began = Instant::now();
        let error = bootward::net::configure_in(&lab.places, &found[0], &settings, &mut notes).unwrap_err();
        assert!(matches!(error, Error::NoCarrier { .. }), "{error}");
        assert!((3..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert!(notes.has("dev-: waiting for a carrier"), "{:?}", notes.lines);
        let up = bootward::net::configure_in(&lab.places, &found[1], &settings, &mut notes).unwrap();
        assert_eq!(up.interface, "dev0");
        let none = bootward::net::configure_in(&lab.places, "dev9", &settings, &mut notes).unwrap_err();
        assert_eq!(none, Error::NoInterface("dev9".into()));
    });
}

#[test]
fn a_carrier_that_goes_and_comes() {
    alone(|lab| {
        let _server = lab.dnsmasq(&[RANGE]);
        let settings = Settings { carrier: Duration::from_secs(2), ..short() };
        let mut notes = Notes::for_seconds(90);
        let mut up = lab.configure(&settings, &mut notes).unwrap();
        lab.there("ip link set srv0 down");
        let began = Instant::now();
        let lost = loop {
            match up.tend(&mut notes) {
                Ok(()) => std::thread::sleep(Duration::from_millis(100)),
                Err(error) => break error,
            }
            assert!(began.elapsed() < Duration::from_secs(20));
        };
        assert_eq!(lost, Error::Lost { interface: "dev0".into(), what: "its carrier" });
        assert!(began.elapsed() >= Duration::from_secs(2));
        // Back within the time, nothing is lost.
        lab.there("ip link set srv0 up");
        let mut up = lab.configure(&settings, &mut notes).unwrap();
        lab.there("ip link set srv0 down");
        up.tend(&mut notes).unwrap();
        lab.there("ip link set srv0 up");
        std::thread::sleep(Duration::from_millis(2500));
        up.tend(&mut notes).unwrap();
        // Its address is taken from it by somebody else.
        ip("addr flush dev dev0");
        let lost = up.tend(&mut notes).unwrap_err();
        assert_eq!(lost, Error::Lost { interface: "dev0".into(), what: "its address" });
        // The adapter is pulled.
        ip("link delete dev0");
        let lost = up.tend(&mut notes).unwrap_err();
        assert_eq!(lost, Error::Lost { interface: "dev0".into(), what: "its hardware" });
    });
}

#[test]
fn whoever_waits_can_end_it() {
    alone(|lab| {
        let began = Instant::now();
        let settings = Settings { dhcp: Duration::from_secs(60), ..short() };
        assert_eq!(lab.configure(&settings, &mut Notes::for_seconds(1)).unwrap_err(), Error::Stopped);
        lab.there("ip link set srv0 down");
        let settings = Settings { carrier: Duration::from_secs(60), ..settings };
        assert_eq!(lab.configure(&settings, &mut Notes::for_seconds(1)).unwrap_err(), Error::Stopped);
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn the_networks_name_servers_get_their_turn() {
    alone(|lab| {
        let _server = lab.dnsmasq(&[RANGE]);
        let dns = vec!["192.168.77.250".parse().unwrap()];
        let settings = Settings { dns, ..short() };
        let mut up = lab.configure(&settings, &mut Notes::for_seconds(60)).unwrap();
        assert!(lab.resolver().starts_with("nameserver 192.168.77.250\noptions"), "{}", lab.resolver());
        assert_eq!(up.turn_names(), Ok(true));
        assert!(lab.resolver().starts_with("nameserver 192.168.77.1\noptions"), "{}", lab.resolver());
        assert_eq!(up.turn_names(), Ok(true));
        assert!(lab.resolver().starts_with("nameserver 192.168.77.250\noptions"), "{}", lab.resolver());
    });
}
