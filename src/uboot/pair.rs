//! The choice between two copies, as U-Boot's `env/common.c` makes it.

use core::fmt;

/// What was found in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copy {
    /// The CRC is good.
    Good {
        /// Its flag byte.
        flag: u8,
    },
    /// It can be read, but is not an environment.
    BadCrc,
    /// The device refuses to read it.
    Unreadable,
}

impl Copy {
    fn flag(self) -> Option<u8> {
        match self {
            Copy::Good { flag } => Some(flag),
            Copy::BadCrc | Copy::Unreadable => None,
        }
    }
}

/// The flag of the copy in use, in the Boolean scheme.
pub const ACTIVE: u8 = 1;
/// The flag of the other one.
pub const OBSOLETE: u8 = 0;

/// How flags order two good copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// A counter that wraps: files, block devices, NAND, UBI.
    Incremental,
    /// 1 is active, 0 is obsolete: NOR flash.
    Boolean,
}

/// One of the two places, in the order of `fw_env.config`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The first line.
    First,
    /// The second line.
    Second,
}

impl Slot {
    /// The other place.
    pub fn other(self) -> Slot {
        match self {
            Slot::First => Slot::Second,
            Slot::Second => Slot::First,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Slot::First => "first",
            Slot::Second => "second",
        })
    }
}

/// Which copy counts, and where the next one goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The copy that counts; `None` where neither is good.
    pub active: Option<Slot>,
    /// Both were good.
    pub both_good: bool,
    /// Where the next image is written: never the active slot.
    pub next: Slot,
    /// The flag that the next image carries.
    pub next_flag: u8,
}

/// Chooses. Total: every combination of copies has one answer.
pub fn choose(first: Copy, second: Copy, scheme: Scheme) -> Choice {
    let active = match (first.flag(), second.flag()) {
        (None, None) => None,
        (Some(_), None) => Some(Slot::First),
        (None, Some(_)) => Some(Slot::Second),
        (Some(a), Some(b)) => Some(newer(a, b, scheme)),
    };
    let flag = match active {
        Some(Slot::First) => first.flag(),
        Some(Slot::Second) => second.flag(),
        None => None,
    };
    // With nothing to lose the first slot is written, unless it is known to be dead.
    let fresh = if first == Copy::Unreadable { Slot::Second } else { Slot::First };
    Choice {
        active,
        both_good: first.flag().is_some() && second.flag().is_some(),
        next: active.map_or(fresh, Slot::other),
        // Only a step of exactly one is safe: the rule knows no other wrap than 255 to 0.
        next_flag: match scheme {
            Scheme::Incremental => flag.unwrap_or(0).wrapping_add(1),
            Scheme::Boolean => ACTIVE,
        },
    }
}

fn newer(a: u8, b: u8, scheme: Scheme) -> Slot {
    let second = match scheme {
        Scheme::Incremental => match (a, b) {
            (255, 0) => true,
            (0, 255) => false,
            _ => b > a,
        },
        Scheme::Boolean => (a == OBSOLETE && b == ACTIVE) || (b == 255 && a != 255),
    };
    if second { Slot::Second } else { Slot::First }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boolean_scheme_follows_fw_env() {
        let good = |flag| Copy::Good { flag };
        for (a, b, wanted) in [
            (1, 0, Slot::First),
            (0, 1, Slot::Second),
            (1, 1, Slot::First),
            (255, 1, Slot::First),
            (1, 255, Slot::Second),
            (255, 255, Slot::First),
        ] {
            let choice = choose(good(a), good(b), Scheme::Boolean);
            assert_eq!((choice.active, choice.next_flag), (Some(wanted), 1), "{a} {b}");
        }
    }

    #[test]
    fn a_dead_first_slot_is_not_where_a_new_environment_goes() {
        assert_eq!(choose(Copy::Unreadable, Copy::BadCrc, Scheme::Incremental).next, Slot::Second);
        assert_eq!(choose(Copy::BadCrc, Copy::BadCrc, Scheme::Incremental).next, Slot::First);
    }
}
