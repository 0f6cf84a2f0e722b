//! Which way to a commit is the cheapest, in time on the link at hand.

use alloc::vec::Vec;

use super::super::object::{Checksum, Kind};
use super::{Delta, Name};

/// The most deltas that are asked for where nothing says which there are.
pub const GUESSES_MAX: usize = 3;

/// What a way takes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cost {
    /// Bytes that are fetched.
    pub bytes: u64,
    /// Requests that are made.
    pub requests: u64,
}

/// A link, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Bytes in a second.
    pub rate: u64,
    /// Milliseconds from a request to its answer.
    pub round_trip: u64,
    /// Requests that are under way at the same time.
    pub width: u64,
}

impl Cost {
    /// How long it takes, in milliseconds: whichever is longer, the line or the round trips.
    pub fn time(&self, link: &Link) -> u64 {
        let line = self.bytes.saturating_mul(1000) / link.rate.max(1);
        let trips = self.requests.div_ceil(link.width.max(1)).saturating_mul(link.round_trip);
        line.max(trips).saturating_add(link.round_trip)
    }
}

/// How a commit is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Object by object.
    Objects,
    /// With this delta.
    Delta(Name),
}

/// The deltas to ask for, best first: from what is here, newest first as `local` has it, then from nothing. With `known`,
/// what a summary or an index lists; without, guesses, few of them.
pub fn candidates(
    to: Checksum,
    local: &[Checksum],
    known: Option<&mut dyn Iterator<Item = Name>>,
) -> Vec<Name> {
    let scratch = Name { from: None, to };
    let from = |from: &Checksum| Name { from: Some(*from), to };
    match known {
        None => local
            .iter()
            .filter(|commit| **commit != to)
            .map(from)
            .take(GUESSES_MAX)
            .chain([scratch])
            .collect(),
        Some(known) => {
            let known: Vec<Name> = known.filter(|name| name.to == to).collect();
            local.iter().map(from).chain([scratch]).filter(|name| known.contains(name)).collect()
        }
    }
}

/// What is still to be fetched of a delta, when its superblock is here and some of its objects are.
pub fn cost(delta: &Delta<'_>, mut has: impl FnMut(Kind, &Checksum) -> bool) -> Cost {
    let mut cost = Cost::default();
    let mut add = |bytes: u64| {
        cost.bytes = cost.bytes.saturating_add(bytes);
        cost.requests += 1;
    };
    for part in delta.parts() {
        if part.inline.is_none() && part.objects().any(|(kind, name)| !has(kind, &name)) {
            add(part.size);
        }
    }
    for fallback in delta.fallbacks() {
        if !has(fallback.kind, &fallback.checksum) {
            add(fallback.size);
        }
    }
    cost
}

/// The cheapest way. What the objects take is told by a commit that has `ostree.sizes`; where it is not known, a delta
/// from what is here is taken before them, and one from nothing only when nothing is here, as libostree does.
pub fn choose(link: &Link, objects: Option<Cost>, empty: bool, deltas: &[(Name, Cost)]) -> Way {
    let fits = |name: &Name| objects.is_some() || empty || name.from.is_some();
    let best = deltas.iter().filter(|(name, _)| fits(name)).min_by_key(|(_, cost)| cost.time(link));
    match (best, objects) {
        (None, _) => Way::Objects,
        (Some((_, delta)), Some(objects)) if objects.time(link) < delta.time(link) => Way::Objects,
        (Some((name, _)), _) => Way::Delta(*name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { rate: 2_500_000, round_trip: 50, width: 8 };

    fn name(from: Option<u8>) -> Name {
        Name { from: from.map(|n| Checksum([n; 32])), to: Checksum([9; 32]) }
    }

    #[test]
    fn the_cheapest_way_is_taken() {
        let delta = (name(Some(1)), Cost { bytes: 1_000_000, requests: 2 });
        let scratch = (name(None), Cost { bytes: 30_000_000, requests: 3 });
        let objects = |bytes, requests| Some(Cost { bytes, requests });
        let way = |objects, empty| choose(&LINK, objects, empty, &[scratch, delta]);
        assert_eq!(way(objects(40_000_000, 7000), false), Way::Delta(delta.0));
        // Few objects changed: they are cheaper than the delta.
        assert_eq!(way(objects(50_000, 4), false), Way::Objects);
        // Not many bytes, but many requests.
        assert_eq!(way(objects(500_000, 500), false), Way::Delta(delta.0));
        assert_eq!(way(None, false), Way::Delta(delta.0));
        assert_eq!(choose(&LINK, None, false, &[scratch]), Way::Objects);
        assert_eq!(choose(&LINK, None, true, &[scratch]), Way::Delta(scratch.0));
        assert_eq!(choose(&LINK, None, true, &[]), Way::Objects);
    }

    #[test]
    fn candidates_are_what_is_known_or_few_guesses() {
        let to = Checksum([9; 32]);
        let local: Vec<Checksum> = [3, 1, 9, 2, 4].map(|n| Checksum([n; 32])).to_vec();
        let known = [name(Some(1)), name(Some(7)), name(None), Name { from: None, to: Checksum([8; 32]) }];
        assert_eq!(candidates(to, &local, Some(&mut known.iter().copied())), [name(Some(1)), name(None)]);
        assert_eq!(candidates(to, &local, Some(&mut [].into_iter())), []);
        let guessed = [name(Some(3)), name(Some(1)), name(Some(2)), name(None)];
        assert_eq!(candidates(to, &local, None), guessed);
    }
}
