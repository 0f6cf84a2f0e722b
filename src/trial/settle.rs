//! What confirm, reject, rollback and undeploy come to. Facts in, settlement out; nothing is read or written here.

use alloc::vec::Vec;
use core::fmt;

use crate::policy::{BootState, Reading};

/// A deployment as these verbs see it, in boot order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Whole enough to be booted.
    pub bootable: bool,
    /// It was tried since it was last confirmed, or since it appeared, and never confirmed.
    pub tried: bool,
    /// It was confirmed and not tried since: the last boot of it was a good one.
    pub confirmed: bool,
    /// `ostree admin pin`.
    pub pinned: bool,
    /// It is of the running one's stateroot.
    pub ours: bool,
}

/// How things stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The deployments in boot order.
    pub deployments: Vec<Known>,
    /// The running one.
    pub booted: Option<usize>,
    /// The bootloader's variables.
    pub state: BootState,
    /// There is an environment that can be written.
    pub environment: bool,
}

/// The bootloader's variables after it; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Variables {
    /// `rollback`.
    pub rollback: Option<bool>,
    /// `upgrade_available`.
    pub upgrade_available: Option<bool>,
    /// `bootcount`.
    pub bootcount: Option<u32>,
    /// `bootward_recovery`, the one-shot request.
    pub recovery: bool,
}

impl Variables {
    /// A trial that is over.
    const OVER: Variables = Variables {
        rollback: Some(false),
        upgrade_available: Some(false),
        bootcount: Some(0),
        recovery: false,
    };
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// The deployments that stay, in their new order.
    pub order: Vec<usize>,
    /// Those whose commits are remembered as bad; not all of them go.
    pub bad: Vec<usize>,
    /// The bootloader's variables.
    pub variables: Variables,
}

/// Why a verb does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nobody knows which deployment is running.
    NotBooted,
    /// There is no other deployment that could be booted.
    NoOther,
    /// There is no deployment with this index.
    NoSuch(usize),
    /// The deployment with this index is the first one already, and the bootloader is told of no rollback.
    AlreadyFirst(usize),
    /// The deployment with this index is broken.
    Broken(usize),
    /// The deployment with this index is running.
    Running(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotBooted => f.write_str(
                "no deployment of this sysroot is running (/run/ostree-booted names none); name them with --booted INDEX for an image",
            ),
            Refusal::NoOther => {
                f.write_str("there is no other deployment that could be booted; deploy a good one first")
            }
            Refusal::NoSuch(index) => write!(f, "there is no deployment {index}; see 'bootward status'"),
            Refusal::AlreadyFirst(index) => write!(f, "deployment {index} is the first one already"),
            Refusal::Broken(index) => write!(f, "deployment {index} is broken; see 'bootward status'"),
            Refusal::Running(index) => write!(f, "deployment {index} is running; boot another one first"),
        }
    }
}

impl Standing {
    fn all(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.deployments.len()
    }

    fn known(&self, index: usize) -> Result<Known, Refusal> {
        self.deployments.get(index).copied().ok_or(Refusal::NoSuch(index))
    }

    fn unchanged(&self) -> Settlement {
        Settlement { order: self.all().collect(), bad: Vec::new(), variables: Variables::default() }
    }
}

/// The running deployment is healthy.
///
/// Whatever was to boot before it and did not has failed: it goes (a pinned one goes behind), and is remembered. One
/// that was never tried is an update that waits for its reboot: then the bootloader's variables are its, and stay.
/// One that was confirmed has not failed, whatever `rollback` says: the power went between the removal of the one that
/// did and the change of the variable.
///
/// # Errors
/// When nobody knows which one is running.
pub fn confirm(standing: &Standing) -> Result<Settlement, Refusal> {
    let booted = standing.booted.ok_or(Refusal::NotBooted)?;
    let rolled_back = standing.state.rollback == Reading::Value(true);
    let before = |index: &usize| *index < booted;
    let failed = |index: &usize| {
        let known = standing.known(*index).unwrap_or_default();
        let blamed = rolled_back && !known.confirmed;
        before(index) && known.ours && (blamed || known.tried || !known.bootable)
    };
    let pinned = |index: &usize| standing.known(*index).is_ok_and(|k| k.pinned);
    let bad: Vec<usize> = standing.all().filter(failed).collect();
    let behind = bad.iter().copied().filter(pinned);
    let order: Vec<usize> = standing.all().filter(|i| !failed(i)).chain(behind).collect();
    let settled = |i: &usize| failed(i) || standing.known(*i).is_ok_and(|k| k.confirmed);
    let waiting = standing.all().any(|i| before(&i) && !settled(&i));
    let variables = if waiting { Variables::default() } else { Variables::OVER };
    Ok(Settlement { order, bad, variables })
}

/// The running deployment is not healthy: the next boot is another one's.
///
/// The bootloader is told (`rollback=1`); without one the others are put first. When it is not the first one that
/// fails, or there is no other, recovery is next.
///
/// # Errors
/// When nobody knows which one is running, or there is neither another one nor a bootloader to ask for recovery.
pub fn reject(standing: &Standing) -> Result<Settlement, Refusal> {
    let booted = standing.booted.ok_or(Refusal::NotBooted)?;
    let other = |i: &usize| *i != booted && standing.known(*i).is_ok_and(|k| k.bootable);
    let untried = |i: &usize| standing.known(*i).is_ok_and(|k| !k.tried);
    let mut settlement = Settlement { bad: [booted].into(), ..standing.unchanged() };
    let next = standing.all().filter(other).find(|i| booted == 0 || untried(i));
    match (next, standing.environment) {
        (Some(1), true) if booted == 0 => {
            settlement.variables =
                Variables { rollback: Some(true), upgrade_available: Some(false), ..Variables::default() };
        }
        // No bootloader to tell, or one that knows no entry but its first two.
        (Some(next), _) => {
            let rest = standing.all().filter(|i| *i != next && *i != booted);
            settlement.order = [next].into_iter().chain(rest).chain([booted]).collect();
            settlement.variables = Variables::OVER;
        }
        (None, true) => settlement.variables = Variables { recovery: true, ..Variables::default() },
        (None, false) => return Err(Refusal::NoOther),
    }
    Ok(settlement)
}

/// Another deployment becomes the first one, because somebody wants it; nothing is remembered as bad.
///
/// One that is the first already, by a rollback that was cut before the bootloader's variables, gets those.
///
/// # Errors
/// When there is none, or it is broken.
pub fn rollback(standing: &Standing, to: Option<usize>) -> Result<Settlement, Refusal> {
    let second = || {
        let other = |i: &usize| standing.known(*i).is_ok_and(|k| k.bootable);
        standing.all().skip(1).find(other).ok_or(Refusal::NoOther)
    };
    let to = to.map_or_else(second, Ok)?;
    match standing.known(to)? {
        _ if to == 0 && standing.state.rollback != Reading::Value(true) => {
            return Err(Refusal::AlreadyFirst(to));
        }
        Known { bootable: false, .. } => return Err(Refusal::Broken(to)),
        Known { .. } => {}
    }
    let order = [to].into_iter().chain(standing.all().filter(|i| *i != to)).collect();
    Ok(Settlement { order, variables: Variables::OVER, ..standing.unchanged() })
}

/// A rollback or undeployment whose swap happened in an earlier run: the order is as it was wanted, and a rollback's
/// variables may be missing yet.
pub fn again(standing: &Standing, rollback: bool) -> Settlement {
    let variables = if rollback { Variables::OVER } else { Variables::default() };
    Settlement { variables, ..standing.unchanged() }
}

/// A deployment goes, as `ostree admin undeploy` has it.
///
/// # Errors
/// When there is no such deployment, or it is the running one.
pub fn undeploy(standing: &Standing, index: usize) -> Result<Settlement, Refusal> {
    standing.known(index)?;
    if standing.booted == Some(index) {
        return Err(Refusal::Running(index));
    }
    Ok(Settlement { order: standing.all().filter(|i| *i != index).collect(), ..standing.unchanged() })
}

#[cfg(test)]
mod tests {
    use super::*;

    use alloc::vec;

    const GOOD: Known = Known { bootable: true, tried: false, confirmed: false, pinned: false, ours: true };
    const CONFIRMED: Known = Known { confirmed: true, ..GOOD };
    const TRIED: Known = Known { tried: true, ..GOOD };
    const BROKEN: Known = Known { bootable: false, ..GOOD };

    fn standing(deployments: &[Known], booted: usize, rollback: bool) -> Standing {
        Standing {
            deployments: deployments.into(),
            booted: Some(booted),
            state: BootState { rollback: Reading::Value(rollback), ..BootState::default() },
            environment: true,
        }
    }

    #[test]
    fn confirm_of_a_good_update() {
        let done = confirm(&standing(&[TRIED, GOOD], 0, false)).unwrap();
        assert_eq!(done, Settlement { order: vec![0, 1], bad: vec![], variables: Variables::OVER });
    }

    #[test]
    fn confirm_after_a_rollback_puts_the_failed_one_away() {
        for failed in [GOOD, TRIED, BROKEN] {
            let done = confirm(&standing(&[failed, GOOD], 1, true)).unwrap();
            assert_eq!(done, Settlement { order: vec![1], bad: vec![0], variables: Variables::OVER });
        }
        // Without a bootloader's word the ledger and the verdict tell.
        for failed in [TRIED, BROKEN] {
            assert_eq!(confirm(&standing(&[failed, GOOD], 1, false)).unwrap().order, [1]);
        }
    }

    #[test]
    fn confirm_leaves_an_update_that_waits_for_its_reboot() {
        let done = confirm(&standing(&[GOOD, GOOD], 1, false)).unwrap();
        assert_eq!(done, Settlement { order: vec![0, 1], bad: vec![], variables: Variables::default() });
        let other = Known { ours: false, ..TRIED };
        assert_eq!(confirm(&standing(&[other, GOOD], 1, true)).unwrap().order, [0, 1]);
    }

    #[test]
    fn a_cut_before_the_variables_blames_nobody() {
        // The failed one is gone, rollback is still 1, and the bootloader took the one behind the good one.
        let done = confirm(&standing(&[CONFIRMED, CONFIRMED], 1, true)).unwrap();
        assert_eq!(done, Settlement { order: vec![0, 1], bad: vec![], variables: Variables::OVER });
    }

    #[test]
    fn a_pinned_one_goes_behind() {
        let pinned = Known { pinned: true, ..TRIED };
        let done = confirm(&standing(&[pinned, GOOD, GOOD], 1, true)).unwrap();
        assert_eq!((done.order, done.bad), (vec![1, 2, 0], vec![0]));
    }

    #[test]
    fn reject_asks_the_bootloader_then_reorders_then_recovers() {
        let done = reject(&standing(&[TRIED, GOOD], 0, false)).unwrap();
        assert_eq!(done.variables.rollback, Some(true));
        assert_eq!((done.order, done.bad), (vec![0, 1], vec![0]));
        // The second entry is broken: a bootloader would boot it all the same.
        let done = reject(&standing(&[TRIED, BROKEN, GOOD], 0, false)).unwrap();
        assert_eq!((done.order, done.variables), (vec![2, 1, 0], Variables::OVER));
        // The previous one fails too.
        let done = reject(&standing(&[TRIED, TRIED], 1, true)).unwrap();
        assert!(done.variables.recovery && done.order == [0, 1]);
        let alone = Standing { environment: false, ..standing(&[TRIED], 0, false) };
        assert_eq!(reject(&alone), Err(Refusal::NoOther));
        let no_loader = Standing { environment: false, ..standing(&[TRIED, GOOD], 0, false) };
        assert_eq!(reject(&no_loader).unwrap().order, [1, 0]);
    }

    #[test]
    fn rollback_and_undeploy() {
        let here = standing(&[GOOD, BROKEN, GOOD], 0, false);
        assert_eq!(rollback(&here, None).unwrap().order, [2, 0, 1]);
        assert_eq!(rollback(&here, Some(1)), Err(Refusal::Broken(1)));
        assert_eq!(rollback(&here, Some(0)), Err(Refusal::AlreadyFirst(0)));
        assert_eq!(rollback(&here, Some(7)), Err(Refusal::NoSuch(7)));
        // The power went between the swap and the variables: with them, the bootloader would take the second one.
        let cut = rollback(&standing(&[GOOD, GOOD], 0, true), Some(0)).unwrap();
        assert_eq!(cut, Settlement { order: vec![0, 1], bad: vec![], variables: Variables::OVER });
        assert_eq!(rollback(&standing(&[GOOD], 0, false), None), Err(Refusal::NoOther));
        assert_eq!(undeploy(&here, 1).unwrap().order, [0, 2]);
        assert_eq!(undeploy(&here, 0), Err(Refusal::Running(0)));
        assert_eq!(undeploy(&here, 3), Err(Refusal::NoSuch(3)));
    }
}
