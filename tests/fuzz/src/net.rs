//! What comes from a network before there is a server: DHCP, time servers, routers through the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bootward::net::dhcp::message::{MAX_LEASE, MAX_MESSAGE, MIN_LEASE, is_host};
use bootward::net::dhcp::{Client, Event, Fault, Kind, Lease, Reply};
use bootward::net::netlink::{Message, messages};
use bootward::net::ra::Servers;
use bootward::net::sntp::{self, MAX_AHEAD};
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};

/// A lease can be lived with, whoever gave it.
fn check(lease: &Lease) {
    assert!(is_host(lease.address) && (1..=32).contains(&lease.prefix));
    let bounds = Duration::from_secs(MIN_LEASE.into())..=Duration::from_secs(MAX_LEASE.into());
    assert!(bounds.contains(&lease.lasts), "{lease:?}");
    assert!(
        lease.renew > Duration::from_secs(10) && lease.renew < lease.rebind && lease.rebind < lease.lasts
    );
    for route in &lease.routes {
        assert!(route.prefix <= 32 && route.gateway != lease.address);
        assert!(route.gateway.is_unspecified() || is_host(route.gateway));
    }
    assert!(lease.dns.iter().chain(&lease.ntp).all(|server| is_host(*server)));
}

/// The first byte chooses: a message as it is, one that another library writes, or a client that is told the rest.
pub fn dhcp(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => match Reply::parse(rest) {
            Ok(reply) => {
                assert!(
                    rest.len() <= MAX_MESSAGE && matches!(reply.kind, Kind::Offer | Kind::Ack | Kind::Nak)
                );
                match reply.lease() {
                    Ok(lease) => check(&lease),
                    Err(fault) => drop(fault.to_string()),
                }
            }
            Err(fault) => drop(fault.to_string()),
        },
        Some((1, rest)) => theirs(rest),
        Some((_, rest)) => client(rest),
        None => {}
    }
}

/// What smoltcp writes for a server is read as it was meant.
fn theirs(data: &[u8]) {
    let [kind, numbers @ ..] = data else { return };
    let four = |at: usize| <[u8; 4]>::try_from(numbers.get(at..at + 4).unwrap_or(&[9; 4])).unwrap_or([9; 4]);
    let address = |at: usize| Ipv4Addr::from(four(at));
    let (message_type, ours) = match kind % 3 {
        0 => (DhcpMessageType::Offer, Kind::Offer),
        1 => (DhcpMessageType::Ack, Kind::Ack),
        _ => (DhcpMessageType::Nak, Kind::Nak),
    };
    let seconds = |at: usize| Some(u32::from_be_bytes(four(at))).filter(|_| kind & 4 != 0);
    // It writes no times but the lease's by itself.
    let times = [four(36), four(40)];
    let options = [58, 59].into_iter().zip(&times).map(|(kind, data)| DhcpOption { kind, data });
    let options: Vec<DhcpOption> = options.filter(|_| kind & 4 != 0).collect();
    let repr = DhcpRepr {
        message_type,
        transaction_id: u32::from_be_bytes(four(0)),
        secs: 0,
        client_hardware_address: EthernetAddress([2, 0, kind.wrapping_mul(3), 0, 0, 1]),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: address(4),
        server_ip: address(8),
        router: (kind & 8 != 0).then(|| address(12)),
        subnet_mask: (kind & 16 != 0).then(|| address(16)),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: (kind & 32 != 0).then(|| address(20)),
        parameter_request_list: None,
        dns_servers: (kind & 64 != 0).then(|| [address(24), address(28)].into_iter().collect()),
        max_size: None,
        lease_duration: seconds(32),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &options,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).unwrap();
    let read = Reply::parse(&bytes).unwrap();
    assert_eq!((read.kind, read.transaction, read.yours), (ours, repr.transaction_id, repr.your_ip));
    assert_eq!(read.hardware, repr.client_hardware_address.0);
    assert_eq!((read.mask, read.server), (repr.subnet_mask, repr.server_identifier));
    assert_eq!(read.routers.first().copied(), repr.router);
    assert_eq!(&read.dns[..], repr.dns_servers.as_deref().unwrap_or_default());
    assert_eq!(read.times, [repr.lease_duration, seconds(36), seconds(40)]);
}

/// Steps of a client: time goes by, or something comes, with the right numbers put in or without.
fn client(data: &[u8]) {
    let hardware = [2, 0, 0, 0, 0, 1];
    let mut now = Duration::from_secs(5);
    let mut client = Client::new(hardware, now, 7);
    let (mut rest, mut last) = (data, Vec::new());
    for turn in 0..64u32 {
        let random = turn.wrapping_mul(2_654_435_761);
        let had = client.lease().cloned();
        let (send, event) = client.poll(now, random);
        if let Some(send) = send {
            // What is sent is a question that the other library understands.
            let packet = DhcpPacket::new_checked(&send.bytes[..]).unwrap();
            let repr = DhcpRepr::parse(&packet).unwrap();
            assert!(matches!(repr.message_type, DhcpMessageType::Discover | DhcpMessageType::Request));
            assert_eq!(repr.client_hardware_address.0, hardware);
            assert_eq!(send.to, had.filter(|_| send.to.is_some()).map(|lease| lease.server));
            last = send.bytes.to_vec();
        }
        assert!(event.is_none() || (event == Some(Event::Expired) && client.lease().is_none()));
        assert!(client.due() > now || client.lease().is_some_and(|lease| now + lease.lasts > client.due()));
        let [step, length, after @ ..] = rest else { return };
        let (bytes, after) = after.split_at_checked((*length).into()).unwrap_or((after, &[]));
        rest = after;
        if step & 1 == 0 {
            now += Duration::from_millis(u64::from(*length) * u64::from(*step) * 10);
            continue;
        }
        // The head of an honest answer, then the options that came.
        let mut message = vec![2, 1, 6, 0];
        message.extend(last.get(4..8).unwrap_or(&[0; 4]));
        message.extend([0; 8]);
        message.extend([10, 0, 0, 9]);
        message.extend([0; 8]);
        message.extend(hardware);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99]);
        if step & 2 == 0 {
            message.extend([54, 4, 10, 0, 0, 1]);
        }
        message.extend(bytes);
        if step & 4 != 0 {
            message[5] ^= 1;
        }
        match client.receive(&message, now, random) {
            Ok(Event::Bound) => check(client.lease().unwrap()),
            Ok(Event::Refused(_) | Event::Expired) => assert!(client.lease().is_none()),
            Ok(Event::Offered(address)) => assert!(is_host(address)),
            Err(fault) => assert!(step & 4 == 0 || !last.is_empty() || fault != Fault::Kind),
        }
    }
}

/// What is taken for the time is after what is sure, and not absurd. The first byte may put the cookie in.
pub fn sntp(data: &[u8]) {
    let Some((numbers, rest)) = data.split_first_chunk::<13>() else { return };
    let [flags, numbers @ ..] = numbers;
    let sure = u64::from_be_bytes(numbers[..8].try_into().unwrap()) >> (flags >> 2);
    let trip = Duration::from_millis(u32::from_be_bytes(numbers[8..].try_into().unwrap()).into());
    let mut message = rest.to_vec();
    let cookie = 0x0123_4567_89ab_cdef;
    if flags & 1 != 0 && message.len() >= 32 {
        message[24..32].copy_from_slice(&u64::to_be_bytes(cookie));
    }
    match sntp::answer(&message, cookie, trip, sure) {
        Ok(at) => {
            let at = (at - trip / 2).as_secs();
            assert!(message.len() >= 48 && at >= sure && at - sure <= MAX_AHEAD);
        }
        Err(fault) => assert!(!fault.to_string().contains(char::is_control)),
    }
}

/// Datagrams of the kernel, and what routers said in them.
pub fn ra(data: &[u8]) {
    let mut count = 0;
    for (_, message) in messages(data) {
        count += 1;
        match message {
            Message::NdOption(body) => servers(body),
            Message::Held(held) => {
                assert!(matches!(held.address.ip, IpAddr::V4(_) | IpAddr::V6(_)));
                let _ = (held.is_ready(), held.address.to_string());
            }
            Message::Done(errno) => assert!(errno != i32::MIN),
            Message::End | Message::Other => {}
        }
    }
    assert!(count <= data.len() / 16);
    servers(data);
}

fn servers(body: &[u8]) {
    if let Some(found) = Servers::parse(body) {
        let mut all = found.servers.iter().chain(&found.gone);
        assert!(all.all(|s| !s.is_unspecified() && !s.is_multicast() && !s.is_loopback()));
    }
}
