//! The ledger loses power at every byte of every write.

use bootward::ledger::record::clip;
use bootward::ledger::{DeploymentId, Kind, RECORD_SIZE, Record, Ring};

use crate::disk::Disk;

const SLOTS: usize = 6;

fn record(kind: Kind, n: u8) -> Record {
    Record {
        kind,
        sequence: 0,
        time: 1_700_000_000,
        uptime: 1234,
        deployment: id(n),
        boot: [n; 16],
        text: clip(&format!("record {n}: why it happened")),
    }
}

fn id(n: u8) -> DeploymentId {
    DeploymentId { commit: [n; 32], serial: u32::from(n) }
}

/// Sequence numbers and deployments, oldest first.
fn story(image: &[u8]) -> Vec<(u64, u8)> {
    let mut ring = Ring::open(Disk::new(image.to_vec())).unwrap();
    let mut seen = Vec::new();
    ring.each(|r| seen.push((r.sequence, r.deployment.commit[0]))).unwrap();
    seen
}

fn ring_with(count: u8) -> Disk {
    let mut ring = Ring::open(Disk::new(vec![0; SLOTS * RECORD_SIZE])).unwrap();
    for n in 1..=count {
        ring.append(&mut [record(Kind::Attempt, n)]).unwrap();
    }
    let mut disk = ring.into_medium();
    disk.settle();
    disk
}

/// What a cut may leave: all records before but those being overwritten, and any of the new ones.
fn check(image: &[u8], before: u8, batch: u8, name: &str) {
    let seen = story(image);
    let first_new = u64::from(before) + 1;
    let last_new = first_new + u64::from(batch) - 1;
    let overwritten = last_new.saturating_sub(SLOTS as u64);
    for old in (u64::from(before) + 1).saturating_sub(SLOTS as u64).max(1)..first_new {
        let there = seen.contains(&(old, old as u8));
        assert!(there || old <= overwritten, "{name}: record {old} was lost: {seen:?}");
    }
    for (sequence, n) in &seen {
        assert_eq!(*sequence, u64::from(*n), "{name}: a record was mixed up: {seen:?}");
    }
    assert!(seen.windows(2).all(|w| w[0].0 < w[1].0), "{name}: not in order: {seen:?}");
    // Life goes on: the next record is readable and the newest.
    let mut ring = Ring::open(Disk::new(image.to_vec())).unwrap();
    ring.append(&mut [record(Kind::Note, 99)]).unwrap();
    let after = story(ring.into_medium().content());
    assert_eq!(after.last().map(|r| r.1), Some(99), "{name}: the next record is not the newest: {after:?}");
}

#[test]
fn a_cut_costs_at_most_what_was_being_written() {
    let mut states = 0;
    for before in 0..=14 {
        for batch in 1..=3 {
            let mut ring = Ring::open(ring_with(before)).unwrap();
            let mut records: Vec<Record> = (1..=batch).map(|b| record(Kind::Attempt, before + b)).collect();
            ring.append(&mut records).unwrap();
            let disk = ring.into_medium();
            states +=
                disk.cuts(|name, image| check(image, before, batch, &format!("{before}+{batch} {name}")));
            let newest = story(disk.content()).last().copied();
            assert_eq!(newest, Some((u64::from(before + batch), before + batch)));
        }
    }
    println!("ledger: {states} cut points");
    assert!(states > 40_000);
}

#[test]
fn a_record_is_durable_once_append_returned() {
    let mut ring = Ring::open(ring_with(3)).unwrap();
    ring.append(&mut [record(Kind::Attempt, 4)]).unwrap();
    let mut last = Vec::new();
    ring.into_medium().cuts(|name, image| {
        if name.starts_with("after-flush") {
            last = story(image);
        }
    });
    // Without the flush no such state exists and `last` stays empty.
    assert_eq!(last.last(), Some(&(4, 4)));
}

#[test]
fn every_failing_operation_is_reported() {
    let operations = {
        let mut ring = Ring::open(ring_with(2)).unwrap();
        ring.append(&mut [record(Kind::Attempt, 3)]).unwrap();
        ring.into_medium().operations()
    };
    let done_before = ring_with(2).operations();
    for fail in done_before..operations {
        let mut disk = ring_with(2);
        disk.fail_at = Some(fail);
        let failed = match Ring::open(disk) {
            Err(_) => true,
            Ok(mut ring) => ring.append(&mut [record(Kind::Attempt, 3)]).is_err(),
        };
        assert!(failed, "operation {fail} failed and nobody said so");
    }
}

#[test]
fn history_counts_attempts_until_a_confirmation() {
    let mut ring = Ring::open(Disk::new(vec![0; 20 * RECORD_SIZE])).unwrap();
    let add = |ring: &mut Ring<Disk>, kind, n| ring.append(&mut [record(kind, n)]).unwrap();
    add(&mut ring, Kind::Attempt, 1);
    add(&mut ring, Kind::Attempt, 1);
    add(&mut ring, Kind::Attempt, 2);
    let history = ring.history(&id(1)).unwrap();
    assert_eq!((history.unconfirmed, history.confirmed), (2, false));
    add(&mut ring, Kind::Confirmed, 1);
    add(&mut ring, Kind::LoaderAsked, 1);
    let history = ring.history(&id(1)).unwrap();
    assert_eq!((history.unconfirmed, history.confirmed, history.loader_asked), (0, true, true));
    add(&mut ring, Kind::Attempt, 1);
    assert!(!ring.history(&id(1)).unwrap().loader_asked);
    assert_eq!(ring.history(&id(2)).unwrap().unconfirmed, 1);
}

#[test]
fn garbage_and_odd_sizes_are_an_empty_ledger() {
    for (fill, length) in [(0u8, 0usize), (0xFF, 100), (0xFF, 512), (0x5A, 5000), (0, 2 << 20)] {
        let mut ring = Ring::open(Disk::new(vec![fill; length])).unwrap();
        let mut seen = 0;
        ring.each(|_| seen += 1).unwrap();
        assert_eq!(seen, 0);
        ring.append(&mut [record(Kind::Note, 1)]).unwrap();
    }
}
