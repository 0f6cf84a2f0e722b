use super::super::profile::Origin;
use super::*;
use alloc::vec;

const OURS: Bssid = [2, 0, 0, 0, 1, 0];
const TWIN: Bssid = [2, 0, 0, 0, 2, 0];
const OTHER: Bssid = [2, 0, 0, 0, 3, 0];
const NOW: Duration = Duration::from_secs(100);
const LIMIT: Duration = Duration::from_secs(60);

fn profile(key: Key) -> Profile {
    Profile::new("Home", key, Origin::Config).unwrap()
}

fn passphrase() -> Profile {
    profile(Key::Passphrase(Secret::new("correct horse")))
}

fn seen(bssid: Bssid, psk: bool, sae: bool) -> Seen {
    let protection = Protection { psk, sae, ..Protection::default() };
    Seen { bssid, frequency: 2437, signal: -40, protection, ssid: b"Home".to_vec() }
}

fn begin(profile: &Profile, seen: &[Seen]) -> Joining {
    Joining::begin(profile, seen, NOW, LIMIT)
}

fn trying(bssid: Bssid) -> Event {
    Event::Trying { bssid: Some(bssid) }
}

const WRONG_KEY: Event = Event::Disabled { wrong_key: true };

fn confirm_refused(bssid: Bssid) -> Event {
    Event::AuthRejected { bssid: Some(bssid), kind: 3, transaction: 2, status: 1 }
}

fn rung(step: &Step) -> Rung {
    match step {
        Step::Try(attempt) => attempt.rung,
        other => panic!("{other:?}"),
    }
}

/// Plays events until one of them leads on.
fn play(joining: &mut Joining, events: &[Event]) -> Step {
    let mut last = Step::Wait;
    for event in events {
        assert_eq!(last, Step::Wait, "before {event:?}");
        last = joining.hear(event, NOW);
    }
    last
}

#[test]
fn the_first_block_suits_everything_and_scans_one_channel() {
    let mut joining = begin(&passphrase(), &[seen(OURS, true, true)]);
    let first = joining.attempt().clone();
    assert_eq!((first.rung, first.frequencies.as_slice(), first.hidden), (Rung::Any, &[2437][..], false));
    assert_eq!(play(&mut joining, &[trying(OURS), Event::Connected]), Step::Joined);
    let text: Vec<String> = fields(&passphrase(), &first)
        .iter()
        .map(|(name, value)| format!("{name} {}", value.text().unwrap()))
        .collect();
    assert_eq!(
        text,
        [
            "ssid 486f6d65",
            "scan_freq 2437",
            "key_mgmt WPA-PSK WPA-PSK-SHA256 SAE",
            "ieee80211w 1",
            "psk \"correct horse\""
        ]
    );
}

#[test]
fn a_wrong_passphrase_is_said_after_the_second_time() {
    let mut joining = begin(&passphrase(), &[seen(OURS, true, false)]);
    let lost = Event::Disconnected { bssid: Some(OURS), reason: 15, ours: false };
    let step = play(&mut joining, &[trying(OURS), lost.clone(), WRONG_KEY]);
    assert_eq!(rung(&step), Rung::Plain);
    let step = play(&mut joining, &[trying(OURS), lost, WRONG_KEY]);
    assert_eq!(step, Step::Failed(Failure::WrongKey));
}

#[test]
fn a_wrong_wpa3_password_is_said_after_the_second_refused_confirm() {
    let mut joining = begin(&passphrase(), &[seen(OURS, false, true)]);
    let events = [trying(OURS), confirm_refused(OURS), trying(OURS), confirm_refused(OURS)];
    assert_eq!(play(&mut joining, &events), Step::Failed(Failure::WrongKey));
}

#[test]
fn another_status_of_sae_is_no_wrong_password() {
    let mut joining = begin(&profile(Key::Wpa3(Secret::new("x"))), &[seen(OURS, false, true)]);
    let busy = Event::AuthRejected { bssid: Some(OURS), kind: 3, transaction: 1, status: 17 };
    let step = play(&mut joining, &[trying(OURS), busy.clone(), busy]);
    assert_eq!(step, Step::Failed(Failure::Refused(Refusal::Authentication(17))));
}

#[test]
fn a_stranger_of_the_same_name_does_not_keep_us_from_ours() {
    let mut joining = begin(&passphrase(), &[seen(TWIN, true, false), seen(OURS, true, false)]);
    let step = play(&mut joining, &[trying(TWIN), WRONG_KEY]);
    let Step::Try(attempt) = step else { panic!("{step:?}") };
    assert_eq!((attempt.bssid, attempt.rung), (Some(OURS), Rung::Any));
    assert_eq!(play(&mut joining, &[trying(OURS), Event::Connected]), Step::Joined);
}

#[test]
fn one_that_was_in_vain_comes_last() {
    let all = [seen(TWIN, true, false), seen(OTHER, true, false), seen(OURS, true, false)];
    let first = |vain: &[Bssid]| {
        let mut joining = begin(&passphrase(), &all);
        joining.avoid(vain);
        joining.attempt().bssid
    };
    // Whichever the daemon takes.
    assert_eq!(first(&[]), None);
    assert_eq!(first(&[[9; 6]]), None);
    assert_eq!(first(&[TWIN]), Some(OTHER));
    assert_eq!(first(&[TWIN, OTHER]), Some(OURS));
    assert_eq!(first(&[OURS, TWIN, OTHER, TWIN, OURS]), Some(OTHER));
    // And where the next one does not know the key, ours is tried before it.
    let mut joining = begin(&passphrase(), &all);
    joining.avoid(&[TWIN]);
    let step = play(&mut joining, &[trying(OTHER), WRONG_KEY]);
    assert!(matches!(step, Step::Try(Attempt { bssid: Some(OURS), .. })), "{step:?}");
    // Alone it is tried all the same.
    let mut joining = begin(&passphrase(), &[seen(TWIN, true, false)]);
    joining.avoid(&[TWIN]);
    assert_eq!(joining.attempt().bssid, Some(TWIN));
}

#[test]
fn where_all_of_them_say_so_the_key_is_wrong() {
    let mut joining = begin(&passphrase(), &[seen(TWIN, true, false), seen(OURS, true, false)]);
    let mut tried = vec![];
    let mut step = play(&mut joining, &[trying(TWIN), WRONG_KEY]);
    while let Step::Try(attempt) = step {
        tried.push((attempt.bssid, attempt.rung));
        step = play(&mut joining, &[trying(attempt.bssid.unwrap()), WRONG_KEY]);
    }
    assert_eq!(step, Step::Failed(Failure::WrongKey));
    assert_eq!(tried, [(Some(OURS), Rung::Any), (Some(TWIN), Rung::Plain), (Some(OURS), Rung::Plain)]);
}

#[test]
fn what_is_refused_is_tried_on_every_rung() {
    let mut joining = begin(&passphrase(), &[seen(OURS, true, true)]);
    let no = Event::AssocRejected { bssid: Some(OURS), status: 43 };
    assert_eq!(rung(&play(&mut joining, &[trying(OURS), no.clone(), no.clone()])), Rung::Plain);
    assert_eq!(rung(&play(&mut joining, &[Event::Disabled { wrong_key: false }])), Rung::Wpa3);
    let step = play(&mut joining, &[no.clone(), no]);
    assert_eq!(step, Step::Failed(Failure::Refused(Refusal::Association(43))));
}

#[test]
fn rungs_that_no_access_point_has_are_left_out() {
    let ladder = |psk, sae| begin(&passphrase(), &[seen(OURS, psk, sae)]).rungs;
    assert_eq!(ladder(true, false), [Rung::Any, Rung::Plain]);
    assert_eq!(ladder(false, true), [Rung::Any, Rung::Wpa3]);
    assert_eq!(begin(&passphrase(), &[]).rungs, [Rung::Any, Rung::Plain, Rung::Wpa3]);
}

#[test]
fn silence_leads_to_the_next_rung_and_in_the_end_to_an_end() {
    let mut joining = begin(&passphrase(), &[seen(OURS, true, true)]);
    assert_eq!(joining.hear(&trying(OURS), NOW), Step::Wait);
    assert_eq!(joining.wait(NOW + Duration::from_secs(19)), Step::Wait);
    assert_eq!(rung(&joining.wait(NOW + Duration::from_secs(20))), Rung::Plain);
    assert_eq!(joining.wait(NOW + Duration::from_secs(59)), Step::Wait);
    assert_eq!(joining.wait(NOW + LIMIT), Step::Failed(Failure::Refused(Refusal::NoEnd)));
    let mut nothing = begin(&passphrase(), &[]);
    assert_eq!(nothing.wait(NOW + LIMIT), Step::Failed(Failure::Late));
}

#[test]
fn a_network_that_moved_is_looked_for_on_all_channels() {
    let mut joining = begin(&passphrase(), &[seen(OURS, true, false)]);
    let step = play(&mut joining, &[Event::NotFound, Event::NotFound]);
    let Step::Try(attempt) = step else { panic!("{step:?}") };
    assert!(attempt.frequencies.is_empty() && attempt.hidden);
    let step = play(&mut joining, &[Event::NotFound, Event::NotFound]);
    assert_eq!(step, Step::Failed(Failure::Absent));
}

#[test]
fn an_open_stranger_is_not_joined_with_a_key() {
    let mut joining = begin(&passphrase(), &[seen(TWIN, false, false)]);
    assert!(joining.attempt().hidden && joining.attempt().frequencies.is_empty());
    let open = Protection::default();
    let step = play(&mut joining, &[Event::NotFound, Event::NotFound]);
    assert_eq!(step, Step::Failed(Failure::Unsuited(open)));
    // And an open profile joins nothing that asks for a key.
    let joining = begin(&profile(Key::Open), &[seen(OURS, true, false)]);
    assert_eq!(joining.unsuited, Some(Protection { psk: true, ..open }));
}

#[test]
fn a_wpa3_profile_is_never_tried_with_wpa2() {
    let profile = profile(Key::Wpa3(Secret::new("pass \"word\"")));
    let mut joining = begin(&profile, &[seen(TWIN, true, false), seen(OURS, false, true)]);
    assert_eq!(joining.candidates.len(), 1);
    let mut step = Step::Try(joining.attempt().clone());
    while let Step::Try(attempt) = step {
        assert_eq!(attempt.rung, Rung::Wpa3);
        let fields = fields(&profile, &attempt);
        let last = fields.last().unwrap();
        assert_eq!((last.0.as_str(), last.1.text()), ("sae_password", Some("\"pass \"word\"\"")));
        step = joining.hear(&Event::Disabled { wrong_key: false }, NOW);
    }
    assert_eq!(step, Step::Failed(Failure::Refused(Refusal::GaveUp)));
}

/// Whatever happens in whatever order, it ends: each attempt is used up by a bounded number of events.
#[test]
fn every_sequence_of_events_ends() {
    let events = [
        trying(OURS),
        trying(TWIN),
        WRONG_KEY,
        Event::Disabled { wrong_key: false },
        confirm_refused(OURS),
        confirm_refused([9; 6]),
        Event::AssocRejected { bssid: None, status: 1 },
        Event::Disconnected { bssid: None, reason: 2, ours: false },
        Event::NotFound,
        Event::EapFailed,
    ];
    let mut state = 1_u64;
    for round in 0..2000 {
        let of = [seen(TWIN, true, false), seen(OURS, true, true)];
        let mut joining = begin(&passphrase(), &of[..round % 3]);
        let mut attempts = 0;
        for n in 0.. {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let event = &events[(state >> 33) as usize % events.len()];
            match joining.hear(event, NOW + Duration::from_millis(n)) {
                Step::Failed(_) => break,
                Step::Try(_) => attempts += 1,
                Step::Wait => {}
                Step::Joined => panic!(),
            }
            assert!(attempts < 16 && n < 1000, "{joining:?}");
        }
    }
}
