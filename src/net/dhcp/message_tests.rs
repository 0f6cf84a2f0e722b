use super::*;

/// What dnsmasq 2.90 sends for an offer, laid out by hand after RFC 2131: the header, then `options`.
pub fn reply(kind: u8, options: &[u8]) -> std::vec::Vec<u8> {
    let mut bytes = std::vec![2, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x80, 0];
    bytes.extend([0, 0, 0, 0]);
    bytes.extend([192, 168, 7, 50]);
    bytes.extend([192, 168, 7, 1]);
    bytes.extend([0, 0, 0, 0]);
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    bytes.extend(options);
    bytes.push(255);
    bytes
}

pub const SERVER: [u8; 6] = [54, 4, 192, 168, 7, 1];

fn lease(options: &[u8]) -> Result<Lease, Fault> {
    Reply::parse(&reply(2, &[&SERVER, options].concat())).and_then(|r| r.lease())
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn a_question_is_laid_out_as_the_rfc_has_it() {
    let mut ask = Ask {
        kind: Kind::Request,
        transaction: 0x0102_0304,
        seconds: 5,
        hardware: [2, 0, 0, 0, 0, 1],
        own: None,
        wanted: Some(v4("192.168.7.50")),
        server: Some(v4("192.168.7.1")),
    };
    let bytes = ask.emit();
    assert_eq!(bytes.len(), 300);
    assert_eq!(bytes[..16], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0x80, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[28..34], [2, 0, 0, 0, 0, 1]);
    assert_eq!(bytes[34..236], [0; 202]);
    let options = [
        99, 130, 83, 99, 53, 1, 3, 50, 4, 192, 168, 7, 50, 54, 4, 192, 168, 7, 1, 57, 2, 5, 192, 55, 8, 121,
        1, 3, 6, 42, 51, 58, 59, 255,
    ];
    assert_eq!(bytes[236..236 + options.len()], options);
    assert_eq!(bytes[236 + options.len()..].iter().max(), Some(&0));
    // Renewing: the address in the header, and no answer by broadcast.
    (ask.own, ask.wanted, ask.server) = (ask.wanted, None, None);
    let bytes = ask.emit();
    assert_eq!(bytes[8..16], [0, 5, 0, 0, 192, 168, 7, 50]);
    assert_eq!(bytes[240..247], [53, 1, 3, 57, 2, 5, 192]);
}

#[test]
fn an_offer_is_read() {
    let options = [
        &[0, 1, 4, 255, 255, 255, 0, 3, 8, 192, 168, 7, 1, 192, 168, 7, 2, 0, 6, 4, 192, 168, 7, 1][..],
        &[42, 4, 192, 168, 7, 3, 51, 4, 0, 0, 0x0e, 0x10, 58, 4, 0, 0, 7, 8, 59, 4, 0, 0, 0x0c, 0x4e],
        // Names, an MTU, a boot file: not looked at.
        &[12, 3, b'$', b'(', b')', 15, 1, b';', 26, 2, 0, 68, 67, 2, b'/', b'x', 52, 1, 3],
    ];
    let lease = lease(&options.concat()).unwrap();
    assert_eq!((lease.address, lease.prefix, lease.server), (v4("192.168.7.50"), 24, v4("192.168.7.1")));
    let default = Route { network: v4("0.0.0.0"), prefix: 0, gateway: v4("192.168.7.1") };
    assert_eq!(lease.routes[..], [default]);
    assert_eq!((&lease.dns[..], &lease.ntp[..]), (&[v4("192.168.7.1")][..], &[v4("192.168.7.3")][..]));
    let seconds = [lease.renew, lease.rebind, lease.lasts].map(|d| d.as_secs());
    assert_eq!(seconds, [1800, 3150, 3600]);
}

#[test]
fn an_offer_with_nothing_but_a_server_gets_what_is_usual() {
    let lease = lease(&[]).unwrap();
    assert_eq!((lease.prefix, lease.routes.len(), lease.dns.len()), (24, 0, 0));
    assert_eq!([lease.renew, lease.rebind, lease.lasts].map(|d| d.as_secs()), [43_200, 75_600, 86_400]);
}

#[test]
fn times_are_bounded_and_in_order() {
    let times = |lease_: u32, renew: u32, rebind: u32| {
        let mut options = std::vec::Vec::new();
        for (code, time) in [(51u8, lease_), (58, renew), (59, rebind)] {
            options.extend([code, 4]);
            options.extend(time.to_be_bytes());
        }
        let lease = lease(&options).unwrap();
        [lease.renew, lease.rebind, lease.lasts].map(|d| d.as_secs())
    };
    assert_eq!(times(0, 0, 0), [30, 49, 60]);
    assert_eq!(times(1, u32::MAX, u32::MAX), [30, 49, 60]);
    assert_eq!(times(u32::MAX, u32::MAX / 2, u32::MAX / 8 * 7), [43_200, 75_600, 86_400]);
    assert_eq!(times(600, 525, 300), [300, 525, 600]);
    assert_eq!(times(600, 0, 525), [300, 525, 600]);
    assert_eq!(times(600, 100, 600), [300, 525, 600]);
    assert_eq!(times(600, 100, 599), [100, 599, 600]);
}

#[test]
fn classless_routes_take_the_routers_place() {
    // RFC 3442: 0.0.0.0/0 through 10.0.0.1; 10.229.0.128/25 through 10.229.0.1; 10.17/16 on this link.
    let value = [0, 10, 0, 0, 1, 25, 10, 229, 0, 128, 10, 229, 0, 1, 16, 10, 17, 0, 0, 0, 0];
    let option = [&[3, 4, 192, 168, 7, 1, 121, value.len() as u8], &value[..]].concat();
    let route = |network, prefix, gateway| Route { network: v4(network), prefix, gateway: v4(gateway) };
    assert_eq!(
        lease(&option).unwrap().routes[..],
        [
            route("0.0.0.0", 0, "10.0.0.1"),
            route("10.229.0.128", 25, "10.229.0.1"),
            route("10.17.0.0", 16, "0.0.0.0"),
        ]
    );
    // Through ourselves, through everybody: left out. Bits behind the prefix: cut.
    let value = [0, 192, 168, 7, 50, 0, 255, 255, 255, 255, 9, 10, 255, 1, 2, 3, 4];
    let option = [&[121, value.len() as u8], &value[..]].concat();
    assert_eq!(lease(&option).unwrap().routes[..], [route("10.128.0.0", 9, "1.2.3.4")]);
    for broken in
        [&[33, 1, 2, 3, 4, 5, 6, 7, 8, 9][..], &[24, 10, 0][..], &[0, 1, 2, 3][..], &[32, 1, 2, 3, 4]]
    {
        let option = [&[121, broken.len() as u8], broken].concat();
        assert_eq!(lease(&option), Err(Fault::Length(121)), "{broken:?}");
    }
}

#[test]
fn addresses_that_no_host_can_have() {
    let mut bytes = reply(2, &[&SERVER[..], &[1, 4, 255, 255, 255, 0]].concat());
    for bad in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "10.0.0.0",
        "10.0.0.255",
    ] {
        bytes[16..20].copy_from_slice(&v4(bad).octets());
        assert_eq!(Reply::parse(&bytes).unwrap().lease(), Err(Fault::Address(v4(bad))), "{bad}");
    }
    // The smallest networks have no address to lose.
    for (mask, prefix) in [("255.255.255.254", 31), ("255.255.255.255", 32)] {
        let mut option = std::vec![1, 4];
        option.extend(v4(mask).octets());
        assert_eq!(lease(&option).unwrap().prefix, prefix);
    }
    for mask in ["0.0.0.0", "255.0.255.0", "0.0.0.255", "255.255.255.253"] {
        let mut option = std::vec![1, 4];
        option.extend(v4(mask).octets());
        assert_eq!(lease(&option), Err(Fault::Mask(v4(mask))));
    }
    // Of its servers, those that can be none are left out.
    let servers =
        lease(&[6, 12, 0, 0, 0, 0, 255, 255, 255, 255, 9, 9, 9, 9, 3, 8, 192, 168, 7, 50, 192, 168, 7, 9]);
    let servers = servers.unwrap();
    assert_eq!((&servers.dns[..], servers.routes[0].gateway), (&[v4("9.9.9.9")][..], v4("192.168.7.9")));
}

#[test]
fn what_is_no_message_of_a_server() {
    let good = reply(2, &SERVER);
    assert!(Reply::parse(&good).is_ok());
    // Cut anywhere, it is refused or says less, and nothing breaks.
    for length in 0..good.len() {
        let cut = Reply::parse(&good[..length]);
        assert_eq!(
            cut.is_ok(),
            length >= 243 && ![244, 245, 246, 247, 248].contains(&length),
            "{length}: {cut:?}"
        );
    }
    for (at, value) in [(0, 1), (1, 6), (2, 16), (2, 0), (236, 0), (239, 100)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(Reply::parse(&bytes), Err(Fault::Foreign), "{at}");
    }
    let mut long = good.clone();
    long.resize(MAX_MESSAGE + 1, 0);
    assert_eq!(Reply::parse(&long), Err(Fault::Foreign));
    for kind in [0, 1, 3, 4, 7, 8, 255] {
        assert_eq!(Reply::parse(&reply(kind, &SERVER)), Err(Fault::Kind), "{kind}");
    }
    for (options, fault) in [
        (&[1, 5, 255, 255, 255, 0, 0][..], Fault::Length(1)),
        (&[54, 0], Fault::Length(54)),
        (&[3, 0], Fault::Length(3)),
        (&[6, 5, 1, 2, 3, 4, 5], Fault::Length(6)),
        (&[51, 2, 1, 2], Fault::Length(51)),
        (&[12, 200, 1], Fault::Cut),
        (&[12], Fault::Cut),
    ] {
        // The 255 at the end is taken for a length where that is what is missing.
        let result = Reply::parse(&reply(2, options));
        assert_eq!(result, Err(fault), "{options:?}");
    }
    let silent = Reply::parse(&reply(2, &[])).unwrap();
    assert_eq!(silent.lease(), Err(Fault::NoServer));
}

#[test]
fn three_hundred_options_are_only_long() {
    let mut options = SERVER.to_vec();
    for code in 0..300u32 {
        options.extend([128 + (code % 100) as u8, 1, 7]);
    }
    options.extend([6, 4, 9, 9, 9, 9].repeat(8));
    let reply = Reply::parse(&reply(5, &options)).unwrap();
    assert_eq!(reply.dns.len(), MAX_ADDRESSES);
}
