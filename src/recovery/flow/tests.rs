//! Every combination of outcomes, round after round.

use super::*;
use crate::recovery::budget::LEAST;
use alloc::format;
use alloc::vec;

const NOW: u64 = 1_800_000_000;
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(900) };

fn plan(bits: u32) -> Plan {
    Plan {
        mounted: bits & 1 != 0,
        check: bits & 2 != 0,
        format: bits & 4 != 0,
        medium: bits & 8 != 0,
        network: bits & 16 != 0,
        backoff: BACKOFF,
        spread: Duration::from_secs(5),
        again: 0,
        caps: Caps::default(),
    }
}

fn links() -> Vec<Link> {
    vec![Link::Wired("eth0".into()), Link::Wireless("wlan0".into())]
}

/// Everything that may come of a step.
fn outcomes(step: &Step) -> Vec<Came> {
    let cut = |bytes, asked| Came::Cut { bytes, asked };
    match step {
        Step::Done => vec![],
        Step::Wait(_) => vec![Came::Done],
        Step::Mount => vec![Came::Done, Came::Failed, Came::Damaged],
        Step::Check => vec![Came::Done, Came::Failed, Came::Damaged],
        Step::Format | Step::Connect(_) => vec![Came::Done, Came::Failed],
        Step::Local | Step::Medium => vec![Came::Done, Came::Failed],
        Step::Links => vec![Came::Links(vec![]), Came::Links(links())],
        Step::Fetch(_) => vec![Came::Done, Came::Failed, cut(0, None), cut(9, None), cut(0, Some(300))],
    }
}

/// What was done up to now, with the time that it took at least.
#[derive(Clone, Default)]
struct Past {
    steps: Vec<(u64, Step, Option<Came>)>,
    clock: u64,
    waits: u32,
}

fn explore(plan: Plan, flow: &Flow, past: &Past, seen: &mut u32) {
    let mut flow = flow.clone();
    let step = flow.next(NOW + past.clock, 0);
    check(plan, past, &step);
    *seen += 1;
    assert!(past.steps.len() < 40, "{:?}", past.steps);
    let mut past = past.clone();
    if let Step::Wait(wait) = step {
        assert!(wait >= LEAST || past.steps.iter().all(|s| !matches!(s.1, Step::Wait(_))));
        past.waits += 1;
        past.clock += wait.as_secs();
        if past.waits > 2 {
            return;
        }
    }
    for came in outcomes(&step) {
        let (mut flow, mut past) = (flow.clone(), past.clone());
        past.steps.push((past.clock, step.clone(), Some(came.clone())));
        flow.came(came);
        explore(plan, &flow, &past, seen);
    }
}

/// The rules, whatever happened before.
fn check(plan: Plan, past: &Past, step: &Step) {
    let told = || format!("{plan:?}\n{:#?}\n{step:?}", past.steps);
    let last = past.steps.last();
    let damaged = last.is_some_and(|s| matches!(s, (_, Step::Mount | Step::Check, Some(Came::Damaged))));
    match step {
        Step::Format => {
            assert!(plan.format && damaged, "formatted without leave: {}", told());
            let checked = past.steps.iter().rev().take(1).any(|s| s.1 == Step::Check);
            assert!(!plan.check || checked, "formatted before it was checked: {}", told());
        }
        Step::Check => assert!(plan.check && damaged, "{}", told()),
        Step::Links | Step::Connect(_) => assert!(plan.network, "{}", told()),
        Step::Fetch(link) => {
            let connected = (Step::Connect(link.clone()), Some(Came::Done));
            assert_eq!(last.map(|s| (s.1.clone(), s.2.clone())), Some(connected), "{}", told());
            let before = past.steps.iter().rev().find(|s| s.1 == *step);
            let waited = |since: u64| past.clock.saturating_sub(since);
            assert!(before.is_none_or(|s| waited(s.0) >= LEAST.as_secs()), "too soon: {}", told());
            let asked =
                past.steps.iter().rev().find(|s| matches!(s.2, Some(Came::Cut { asked: Some(_), .. })));
            assert!(asked.is_none_or(|s| waited(s.0) >= 300), "the server asked for patience: {}", told());
        }
        Step::Local => {
            let looked = past.steps.iter().filter(|s| s.1 == Step::Local).count();
            assert!(plan.mounted && looked == 0, "{}", told());
        }
        Step::Wait(_) => all_were_tried(plan, past),
        Step::Done => {
            let good = last.is_some_and(|s| s.2 == Some(Came::Done));
            assert!(good, "there is nothing to boot: {}", told());
        }
        _ => {}
    }
    // Each thing that ends it ends it at once.
    let ends = |s: &Step| {
        matches!(s, Step::Local | Step::Medium | Step::Fetch(_) | Step::Mount | Step::Check | Step::Format)
    };
    if last.is_some_and(|s| s.2 == Some(Came::Done) && ends(&s.1)) {
        assert_eq!(*step, Step::Done, "{}", told());
    }
}

/// Nothing is waited for while a source of the round is left.
fn all_were_tried(plan: Plan, past: &Past) {
    let begin = past.steps.iter().rposition(|s| matches!(s.1, Step::Wait(_))).map_or(0, |at| at + 1);
    let round = &past.steps[begin..];
    let did = |step: &Step| round.iter().any(|s| s.1 == *step);
    let told = || format!("{plan:?}\n{round:#?}");
    if !plan.mounted {
        return assert!(did(&Step::Mount), "{}", told());
    }
    // The spread of the first round stands before its links.
    if past.waits == 0 {
        return;
    }
    let spread = past.waits == 1;
    assert!(!plan.medium || spread || did(&Step::Medium), "{}", told());
    assert!(!plan.network || did(&Step::Links), "{}", told());
    let asked = round.iter().any(|s| matches!(s.2, Some(Came::Cut { asked: Some(_), .. })));
    let listed =
        round.iter().find_map(|s| if let Some(Came::Links(links)) = &s.2 { Some(links) } else { None });
    for link in listed.into_iter().flatten() {
        assert!(asked || did(&Step::Connect(link.clone())), "{}", told());
    }
}

#[test]
fn every_combination_of_outcomes_reaches_a_boot_or_the_next_source_or_a_wait() {
    let mut seen = 0;
    for bits in 0..32 {
        let plan = plan(bits);
        explore(
            plan,
            &Flow::new(plan, Budget { since: NOW, ..Budget::default() }),
            &Past::default(),
            &mut seen,
        );
    }
    assert!(seen > 10_000, "{seen}");
}

/// Fails at everything, and tells the waits.
fn hopeless(flow: &mut Flow, rounds: usize, random: u32) -> Vec<Duration> {
    let (mut waits, mut now) = (Vec::new(), NOW);
    while waits.len() < rounds {
        let came = match flow.next(now, random) {
            Step::Wait(wait) => {
                waits.push(wait);
                now += wait.as_secs();
                Came::Done
            }
            Step::Links => Came::Links(links()),
            Step::Connect(_) => Came::Done,
            Step::Done => panic!("ended"),
            _ => Came::Cut { bytes: 0, asked: None },
        };
        flow.came(came);
    }
    waits
}

#[test]
fn the_waits_grow_and_never_end() {
    let mut flow = Flow::new(plan(1 + 8 + 16), Budget { since: NOW, ..Budget::default() });
    let waits: Vec<u64> = hopeless(&mut flow, 12, u32::MAX).iter().map(Duration::as_secs).collect();
    assert_eq!(waits[..8], [5, 10, 20, 40, 80, 160, 320, 640]);
    assert_eq!(waits[9..], [900; 3]);
    assert_eq!(flow.budget().attempts, 22, "two links in each of eleven rounds");
}

#[test]
fn a_spent_day_leaves_the_servers_alone_and_not_the_sticks() {
    let caps = Caps { attempts: 3, bytes: 0 };
    let mut flow = Flow::new(Plan { caps, ..plan(1 + 8 + 16) }, Budget { since: NOW, ..Budget::default() });
    hopeless(&mut flow, 30, u32::MAX);
    assert!((3..=6).contains(&flow.budget().attempts), "{:?}", flow.budget());
    let mut flow = Flow::new(Plan { caps, ..plan(1 + 16) }, Budget { since: NOW, ..Budget::default() });
    let waits = hopeless(&mut flow, 4, 0);
    assert!(waits.iter().any(|w| w.as_secs() > 80_000), "{waits:?}");
}

#[test]
fn what_was_brought_and_did_not_boot_is_not_brought_again_at_once() {
    let mut flow =
        Flow::new(Plan { again: 3, ..plan(1 + 8 + 16) }, Budget { since: NOW, ..Budget::default() });
    assert_eq!(flow.next(NOW, u32::MAX), Step::Wait(Duration::from_secs(40)));
    flow.came(Came::Done);
    assert_eq!(flow.next(NOW, u32::MAX), Step::Local);
}

#[test]
fn what_brought_something_is_gone_on_with_soon() {
    let mut flow = Flow::new(plan(1 + 16), Budget { since: NOW, failures: 7, ..Budget::default() });
    flow.first = false;
    flow.begin(None);
    for came in
        [Came::Failed, Came::Links(links()), Came::Done, Came::Cut { bytes: 1, asked: None }, Came::Failed]
    {
        flow.next(NOW, 0);
        flow.came(came);
    }
    assert_eq!(flow.next(NOW, u32::MAX), Step::Wait(Duration::from_secs(10)));
}

#[test]
fn who_stands_at_the_console_does_not_wait() {
    let mut flow = Flow::new(plan(1 + 8 + 16), Budget { since: NOW, ..Budget::default() });
    hopeless(&mut flow, 9, u32::MAX);
    for (want, first) in
        [(Want::Round, Step::Medium), (Want::Medium, Step::Medium), (Want::Local, Step::Local)]
    {
        flow.want(want);
        assert_eq!(flow.next(NOW, u32::MAX), first, "{want:?}");
    }
    // A stick that is asked for is looked for where none is configured.
    let mut flow = Flow::new(plan(1), Budget::default());
    flow.want(Want::Medium);
    assert_eq!(flow.next(NOW, 0), Step::Medium);
}
