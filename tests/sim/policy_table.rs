//! The decision over its whole input space, against the rules stated a second time.
//!
//! `policy::decide` builds an order and walks it. The statement here does neither: it gives every deployment
//! a rank, and the one to boot is the minimum. Both were written from the design's page.
//!
//! The whole product has some 8,200 million points. The boot state (the bootloader's variables and the
//! ledger) and the deployments (verdicts, kernels, `ostree=`, request, kexec, loader) meet in one place
//! only: whether there is trouble, and which. [`every_boot_state`] therefore runs every boot state on
//! deployments that show the trouble in the result, and [`every_set_of_deployments`] runs every set of
//! deployments on each kind of trouble; [`the_whole_product`] (with a boot entry for each deployment) is run by hand,
//! optimised (16 minutes on a busy core): `cargo test --release --test sim -- --ignored the_whole_product`.

use bootward::policy::{
    Action, Attempts, BootState, Candidate, Decision, Facts, Kernel, Reading, Request, Rule, Trouble, Via,
    decide,
};

const FLAGS: [Reading<bool>; 4] =
    [Reading::Absent, Reading::Corrupt, Reading::Value(false), Reading::Value(true)];
const REQUESTS: [Option<Request>; 6] = [
    None,
    Some(Request::CommandLine),
    Some(Request::Environment),
    Some(Request::Console),
    Some(Request::Root),
    Some(Request::Drill),
];
const KERNELS: [Kernel; 3] = [Kernel::Running, Kernel::OtherWithModules, Kernel::OtherWithoutModules];
/// A limit of none, the smallest, an ordinary one, the largest.
const LIMITS: [u32; 4] = [0, 1, 3, u32::MAX];
/// One below, at and one above each limit.
const COUNTS: [u32; 7] = [0, 1, 2, 3, 4, u32::MAX - 1, u32::MAX];

/// What the rules say, without the order: the trouble, the deployment to boot and the way to its kernel.
fn stated(facts: &Facts) -> (Option<Trouble>, Option<(usize, Via)>) {
    let trouble = stated_trouble(facts);
    if facts.request.is_some() {
        return (trouble, None);
    }
    let best = (0..facts.candidates.len())
        .filter(|&index| facts.candidates[index].bootable)
        .min_by_key(|&index| rank(facts, trouble.is_some(), index));
    let way = best.map(|index| {
        // With `rollback=1` the bootloader was asked already: asking again changes nothing.
        let askable = facts.loader && facts.state.rollback != Reading::Value(true);
        let via = match (facts.candidates[index].kernel, facts.kexec, askable, index) {
            (Kernel::Running | Kernel::OtherWithModules, _, _, _) => Via::Direct,
            (Kernel::OtherWithoutModules, true, _, _) => Via::Kexec,
            (Kernel::OtherWithoutModules, false, true, 1) => Via::Loader,
            (Kernel::OtherWithoutModules, false, _, _) => Via::Mismatched,
        };
        (index, via)
    });
    (trouble, way)
}

/// Lower is preferred. The place in boot order breaks ties and makes it an order.
fn rank(facts: &Facts, trouble: bool, index: usize) -> usize {
    let distrusted = trouble && index == 0;
    let named = facts.named == Some(index) && !distrusted;
    let unlisted = facts.listed > 0 && index >= facts.listed;
    match (named, unlisted, distrusted) {
        (true, _, _) => 0,
        (false, false, false) => 100 + index,
        (false, false, true) => 200,
        (false, true, _) => 300 + index,
    }
}

/// Rule 3's condition. Absent and corrupt values accuse nobody.
fn stated_trouble(facts: &Facts) -> Option<Trouble> {
    let BootState { rollback, upgrade_available, bootcount, bootlimit } = facts.state;
    if let Reading::Value(true) = rollback {
        return Some(Trouble::Rollback);
    }
    if let (Reading::Value(true), Reading::Value(count), Reading::Value(limit @ 1..)) =
        (upgrade_available, bootcount, bootlimit)
        && count > limit
    {
        return Some(Trouble::Bootcount { count, limit });
    }
    match facts.attempts {
        Attempts { confirmed: true, .. } | Attempts { limit: 0, .. } => None,
        Attempts { failed, limit, .. } if failed > limit => Some(Trouble::Ledger { failed, limit }),
        Attempts { .. } => None,
    }
}

/// Compares one decision with the statement, and checks what must hold of every decision.
fn check(facts: &Facts) -> Decision {
    let decision = decide(facts);
    let (trouble, way) = stated(facts);

    let (action, rule) = match (facts.request, way) {
        (Some(request), _) => (Action::Recovery, Rule::Requested(request)),
        (None, None) => (Action::Recovery, Rule::NothingBootable),
        (None, Some((index, via))) => {
            (Action::Boot { index, via }, Rule::First { trouble, named: facts.named == Some(index) })
        }
    };
    assert!(decision.action == action, "{facts:?}: {decision:?}, expected {action:?}");
    assert!(decision.rule == rule, "{facts:?}: {decision:?}, expected {rule:?}");

    // The order is a permutation, ranked upwards.
    let order = decision.order.as_slice();
    let seen = order.iter().fold(0u32, |seen, index| seen | 1 << index);
    let all = (1u32 << facts.candidates.len()) - 1;
    assert!(order.len() == facts.candidates.len() && seen == all, "{facts:?}: {order:?}");
    let ranked = order
        .windows(2)
        .all(|pair| rank(facts, trouble.is_some(), pair[0]) < rank(facts, trouble.is_some(), pair[1]));
    assert!(ranked, "{facts:?}: {order:?}");

    if let Action::Boot { index, via } = decision.action {
        let candidate = facts.candidates[index];
        assert!(candidate.bootable, "{facts:?}: a broken deployment was chosen: {decision:?}");
        // No way is taken that is not there, and none but the direct one where that will do.
        let foreign = candidate.kernel == Kernel::OtherWithoutModules;
        assert_eq!(via != Via::Direct, foreign, "{facts:?}: {decision:?}");
        assert!(via != Via::Kexec || facts.kexec, "{facts:?}: {decision:?}");
        assert!(via != Via::Loader || facts.loader && index == 1, "{facts:?}: {decision:?}");
    } else {
        let bootable = facts.candidates.iter().any(|candidate| candidate.bootable);
        assert!(facts.request.is_some() || !bootable, "{facts:?}: recovery without need");
    }
    decision
}

/// Every combination of the bootloader's variables and the ledger's counters.
fn boot_states(mut visit: impl FnMut(BootState, Attempts)) {
    let readings = |values: &[u32]| {
        let mut readings = vec![Reading::Absent, Reading::Corrupt];
        readings.extend(values.iter().map(|&value| Reading::Value(value)));
        readings
    };
    for rollback in FLAGS {
        for upgrade_available in FLAGS {
            for &bootcount in &readings(&COUNTS) {
                for &bootlimit in &readings(&LIMITS) {
                    let state = BootState { rollback, upgrade_available, bootcount, bootlimit };
                    for failed in COUNTS {
                        for limit in LIMITS {
                            visit(state, Attempts { failed, limit, confirmed: false });
                            visit(state, Attempts { failed, limit, confirmed: true });
                        }
                    }
                }
            }
        }
    }
}

/// Every set of nought to `most` deployments, named or not, with every request and every way out.
/// `facts` keeps its boot state. With `unlisted`, also with every number of them that no boot entry names.
fn deployment_sets(facts: &mut Facts, most: u32, unlisted: bool, visit: &mut impl FnMut(&Facts)) {
    for count in 0..=most {
        for code in 0..6usize.pow(count) {
            facts.candidates.clear();
            let mut rest = code;
            for _ in 0..count {
                let candidate = Candidate { bootable: rest % 2 == 1, kernel: KERNELS[rest / 2 % 3] };
                facts.candidates.push(candidate).unwrap();
                rest /= 6;
            }
            let count = count as usize;
            let named = (0..=count).map(Some).chain([None, Some(usize::MAX)]);
            // With all of them listed, and with none, it is the same: the full house covers that.
            let all = count.max(1);
            let listed = if unlisted { 1 } else { all }..=all;
            for (name, listed) in named.flat_map(|name| listed.clone().map(move |l| (name, l))) {
                facts.named = name;
                facts.listed = listed;
                for request in REQUESTS {
                    for ways in 0..4 {
                        facts.request = request;
                        facts.kexec = ways & 1 != 0;
                        facts.loader = ways & 2 != 0;
                        visit(facts);
                    }
                }
            }
        }
    }
}

#[test]
fn every_boot_state() {
    let whole = Candidate { bootable: true, kernel: Kernel::Running };
    let mut facts = Facts::default();
    let mut combinations = 0u64;
    boot_states(|state, attempts| {
        (facts.state, facts.attempts) = (state, attempts);
        facts.candidates.clear();
        for count in 0..=3usize {
            if count > 0 {
                facts.candidates.push(whole).unwrap();
            }
            // What U-Boot could have named: nothing, either entry, something gone.
            for named in [None, Some(0), Some(1), Some(count)] {
                facts.named = named;
                check(&facts);
                combinations += 1;
            }
        }
    });
    println!("decision, boot states: {combinations} combinations");
    assert_eq!(combinations, 4 * 4 * 9 * 6 * 7 * 4 * 2 * 16);
}

#[test]
fn every_set_of_deployments() {
    let mut facts = Facts::default();
    let mut combinations = 0u64;
    let on = Reading::Value(true);
    let over = BootState {
        rollback: Reading::Absent,
        upgrade_available: on,
        bootcount: Reading::Value(4),
        bootlimit: Reading::Value(3),
    };
    let quiet = Attempts::default();
    let worn = Attempts { failed: 4, limit: 3, confirmed: false };
    let kinds = [
        (BootState::default(), quiet),
        (BootState { rollback: on, ..BootState::default() }, quiet),
        (over, quiet),
        (BootState::default(), worn),
        (BootState { rollback: on, ..over }, worn),
    ];
    for (state, attempts) in kinds {
        (facts.state, facts.attempts) = (state, attempts);
        deployment_sets(&mut facts, 4, true, &mut |facts| {
            let first = check(facts);
            assert!(first == decide(facts), "{facts:?}: two decisions from the same facts");
            combinations += 1;
        });
    }
    println!("decision, deployments: {combinations} combinations");
    assert!(combinations > 700_000);
}

/// Nothing factored. Minutes, optimised; run by hand.
#[test]
#[ignore = "some 8,200 million combinations: minutes when optimised, hours when not"]
fn the_whole_product() {
    let mut facts = Facts::default();
    let mut combinations = 0u64;
    boot_states(|state, attempts| {
        (facts.state, facts.attempts) = (state, attempts);
        deployment_sets(&mut facts, 4, false, &mut |facts| {
            check(facts);
            combinations += 1;
        });
    });
    println!("decision, the whole product: {combinations} combinations");
}

/// As many deployments as are ever looked at, each in turn the only whole one, each in turn named.
#[test]
fn a_full_house() {
    let broken = Candidate { bootable: false, kernel: Kernel::Running };
    for whole in 0..bootward::policy::MAX_DEPLOYMENTS {
        for named in 0..=bootward::policy::MAX_DEPLOYMENTS {
            for rollback in FLAGS {
                let mut facts = Facts { named: Some(named), listed: named, ..Facts::default() };
                facts.state.rollback = rollback;
                facts.candidates.extend(core::iter::repeat_n(broken, bootward::policy::MAX_DEPLOYMENTS));
                facts.candidates[whole].bootable = true;
                let decision = check(&facts);
                assert_eq!(decision.action, Action::Boot { index: whole, via: Via::Direct });
            }
        }
    }
}
