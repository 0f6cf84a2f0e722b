use super::super::message::tests::{SERVER, reply};
use super::*;

const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ID: u32 = 0x1234_5678;
const OURS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 50);
const THEIRS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000 + seconds)
}

/// An answer to what the client asked last, whatever its number.
fn answer(client: &Client, kind: u8, options: &[u8]) -> std::vec::Vec<u8> {
    let mut bytes = reply(kind, options);
    bytes[4..8].copy_from_slice(&client.transaction.to_be_bytes());
    bytes
}

/// A lease of 600 s: renewed at 300, rebound at 525.
const LEASE: [u8; 6] = [51, 4, 0, 0, 2, 88];

fn yes() -> std::vec::Vec<u8> {
    [SERVER, LEASE].concat()
}

fn kind(send: &Send) -> u8 {
    send.bytes[242]
}

/// A client that got its address at second 0.
fn bound() -> Client {
    let mut client = Client::new(HARDWARE, at(0), ID);
    assert_eq!(client.poll(at(0), 0).0.map(|s| (kind(&s), s.to)), Some((1, None)));
    assert_eq!(client.receive(&answer(&client, 2, &yes()), at(0), 0), Ok(Event::Offered(OURS)));
    assert_eq!(client.due(), at(0));
    assert_eq!(client.poll(at(0), 0).0.map(|s| (kind(&s), s.to)), Some((3, None)));
    let event = client.receive(&answer(&client, 5, &yes()), at(0), 0);
    assert_eq!(event, Ok(Event::Bound));
    client
}

#[test]
fn silence_is_asked_into_again_with_growing_pauses() {
    let mut client = Client::new(HARDWARE, at(0), ID);
    let mut now = at(0);
    let mut pauses = std::vec::Vec::new();
    for _ in 0..6 {
        let (send, event) = client.poll(now, 500);
        let send = send.unwrap();
        assert_eq!((&send.bytes[4..8], event), (&ID.to_be_bytes()[..], None));
        // Early is too early.
        assert_eq!(client.poll(client.due() - Duration::from_millis(1), 500), (None, None));
        pauses.push((client.due() - now).as_secs());
        now = client.due();
    }
    assert_eq!(pauses, [2, 4, 8, 8, 8, 8]);
    assert_eq!(
        (patience(0, 0), patience(99, 1000)),
        (Duration::from_millis(1500), Duration::from_millis(8500))
    );
    assert!((0..=u32::MAX).step_by(65_521).all(|r| (1500..=2500).contains(&patience(0, r).as_millis())));
}

#[test]
fn an_address_is_got_kept_and_lost() {
    let mut client = bound();
    assert_eq!(client.due(), at(300));
    assert_eq!(client.poll(at(299), 7), (None, None));
    // Its server is asked alone first, with the address in the header.
    let (send, _) = client.poll(at(300), 7);
    let send = send.unwrap();
    assert_eq!((kind(&send), send.to, &send.bytes[12..16]), (3, Some(THEIRS), &OURS.octets()[..]));
    assert_eq!(client.due(), at(300) + Duration::from_millis(112_500));
    // It goes on.
    let mut renewed = client.clone();
    let event = renewed.receive(&answer(&client, 5, &yes()), at(301), 7);
    assert_eq!(event, Ok(Event::Bound));
    assert_eq!(renewed.due(), at(600));
    // It does not: then everybody is asked, until the end.
    let (mut now, mut broadcasts) = (client.due(), 0);
    let end = loop {
        let (send, event) = client.poll(now, 9);
        if event.is_some() {
            break (event, send);
        }
        broadcasts += usize::from(send.is_some_and(|s| s.to.is_none()));
        now = client.due();
        assert!(now <= at(600));
    };
    assert_eq!((end.0, now), (Some(Event::Expired), at(600)));
    assert_eq!(end.1.map(|s| kind(&s)), Some(1));
    assert!((2..=8).contains(&broadcasts), "{broadcasts}");
    assert_eq!(client.lease(), None);
}

#[test]
fn answers_to_others_do_not_count() {
    let mut client = Client::new(HARDWARE, at(0), ID);
    // Before anything was asked.
    assert_eq!(client.receive(&reply(2, &SERVER), at(0), 0), Err(Fault::Unexpected));
    client.poll(at(0), 0);
    for (offset, fault) in
        [(4, Fault::NotOurs), (7, Fault::NotOurs), (28, Fault::NotOurs), (33, Fault::NotOurs)]
    {
        let mut bytes = reply(2, &SERVER);
        bytes[offset] ^= 1;
        assert_eq!(client.receive(&bytes, at(0), 0), Err(fault));
    }
    for unasked in [5, 6] {
        assert_eq!(client.receive(&reply(unasked, &SERVER), at(0), 0), Err(Fault::Unexpected));
    }
    assert_eq!(client.receive(&reply(2, &[]), at(0), 0), Err(Fault::NoServer));
    assert!(client.receive(&reply(2, &SERVER), at(0), 0).is_ok());
    client.poll(at(0), 0);
    // Another server's yes, another address, another server's no.
    let other = [54, 4, 192, 168, 7, 2];
    assert_eq!(client.receive(&reply(5, &other), at(0), 0), Err(Fault::Unexpected));
    assert_eq!(client.receive(&reply(6, &other), at(0), 0), Err(Fault::Unexpected));
    let mut moved = reply(5, &SERVER);
    moved[19] = 51;
    assert_eq!(client.receive(&moved, at(0), 0), Err(Fault::Unexpected));
    assert!(client.receive(&reply(5, &SERVER), at(0), 0).is_ok());
    // Once bound, nothing is waited for.
    for kind in [2, 5, 6] {
        assert_eq!(client.receive(&reply(kind, &SERVER), at(1), 0), Err(Fault::Unexpected));
    }
}

#[test]
fn who_says_no_is_asked_later_and_after_others() {
    let mut client = Client::new(HARDWARE, at(0), ID);
    client.poll(at(0), 0);
    client.receive(&reply(2, &SERVER), at(0), 0).unwrap();
    client.poll(at(0), 0);
    assert_eq!(client.receive(&reply(6, &SERVER), at(0), 500), Ok(Event::Refused(THEIRS)));
    assert_eq!(client.due(), at(2));
    assert_ne!(client.transaction, ID);
    client.poll(at(2), 0).0.unwrap();
    assert_eq!(client.receive(&answer(&client, 2, &SERVER), at(2), 0), Err(Fault::Unexpected));
    let mut other = client.clone();
    let offer = answer(&client, 2, &[54, 4, 192, 168, 7, 2]);
    assert_eq!(other.receive(&offer, at(2), 0), Ok(Event::Offered(OURS)));
    // Nobody else offers: the second question takes it.
    let due = client.due();
    client.poll(due, 0).0.unwrap();
    assert!(client.receive(&answer(&client, 2, &SERVER), due, 0).is_ok());
}

#[test]
fn who_offers_and_then_says_nothing_is_left() {
    let mut client = Client::new(HARDWARE, at(0), ID);
    client.poll(at(0), 0);
    client.receive(&reply(2, &SERVER), at(0), 0).unwrap();
    let mut kinds = std::vec::Vec::new();
    for _ in 0..6 {
        let due = client.due();
        kinds.push(kind(&client.poll(due, 500).0.unwrap()));
    }
    assert_eq!(kinds, [3, 3, 3, 3, 1, 1]);
    assert_eq!(client.shunned, Some(THEIRS));
}

#[test]
fn a_no_takes_the_address_away() {
    let mut client = bound();
    client.poll(at(300), 0);
    assert_eq!(client.receive(&answer(&client, 6, &SERVER), at(300), 500), Ok(Event::Refused(THEIRS)));
    assert_eq!((client.lease(), client.due()), (None, at(302)));
    // While every server is asked, each may say it.
    let mut client = bound();
    client.poll(at(530), 0);
    client.poll(at(530), 0);
    assert!(matches!(client.state, State::Rebinding(_)), "{client:?}");
    let other = answer(&client, 6, &[54, 4, 192, 168, 7, 2]);
    assert_eq!(client.receive(&other, at(531), 0), Ok(Event::Refused(Ipv4Addr::new(192, 168, 7, 2))));
    assert_eq!(client.lease(), None);
}
