//! Which deployments stay beside a new one. Facts in, indices out.

use alloc::vec::Vec;

/// A deployment, in boot order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// It is of the new one's stateroot.
    pub ours: bool,
    /// It is running.
    pub booted: bool,
    /// The new one has its configuration.
    pub merge: bool,
    /// `ostree admin pin`.
    pub pinned: bool,
    /// The last boot of it was a good one.
    pub confirmed: bool,
}

/// The indices of those that stay, in their order.
///
/// As `ostree_sysroot_simple_write_deployment`: the running one, the one that the configuration is taken from, the
/// pinned ones, other stateroots. Besides: the first confirmed one where neither of the first two is, so that there is
/// always something good to go back to, and everything with `retain`.
pub fn kept(deployments: &[Known], retain: bool) -> Vec<usize> {
    let stays = |d: &Known| retain || !d.ours || d.booted || d.merge || d.pinned;
    let good = deployments.iter().any(|d| d.ours && d.confirmed && stays(d));
    let last = if good { None } else { deployments.iter().position(|d| d.ours && d.confirmed) };
    let all = deployments.iter().enumerate();
    all.filter(|(index, d)| stays(d) || last == Some(*index)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_the_merged_the_pinned_and_one_good_one_stay() {
        let ours = Known { ours: true, ..Known::default() };
        let (booted, merge) = (Known { booted: true, ..ours }, Known { merge: true, ..ours });
        let (pinned, good) = (Known { pinned: true, ..ours }, Known { confirmed: true, ..ours });
        assert_eq!(kept(&[ours, booted, ours], false), [1]);
        assert_eq!(kept(&[merge, ours, pinned, Known::default()], false), [0, 2, 3]);
        assert_eq!(kept(&[merge, good, good], false), [0, 1]);
        assert_eq!(kept(&[Known { confirmed: true, ..merge }, good, good], false), [0]);
        assert_eq!(kept(&[ours, ours], true), [0, 1]);
        assert_eq!(kept(&[], false), [0usize; 0]);
    }
}
