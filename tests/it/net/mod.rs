//! The network against real servers and scripted ones, each test in network namespaces of its own.

mod lab;

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
