//! What the records of one deployment come to: how often it was tried, how often that went wrong, how often somebody
//! had merely pulled the plug.

use super::record::Kind;

/// So often in a row at most is an attempt forgiven because the power went: a device that blames the power for ever must
/// reach its limit all the same.
pub const FORGIVEN_MAX: u8 = 3;
/// Attempts that are looked back on at most.
pub const WINDOW_MAX: u32 = 32;

/// The history of a deployment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Attempts since the last confirmation, or since it appeared.
    pub unconfirmed: u32,
    /// It was confirmed at least once.
    pub confirmed: bool,
    /// The bootloader was asked for it and it was not attempted since.
    pub loader_asked: bool,
    /// The last attempts, the newest in the lowest bit: set where no confirmation followed.
    recent: u32,
    /// How many attempts `recent` holds.
    known: u32,
    /// Attempts in a row that were forgiven.
    forgiven: u8,
}

impl History {
    /// Goes on with the next record of this deployment.
    pub fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Attempt => {
                self.unconfirmed = self.unconfirmed.saturating_add(1);
                self.loader_asked = false;
                self.recent = self.recent << 1 | 1;
                self.known = WINDOW_MAX.min(self.known + 1);
            }
            Kind::Confirmed => {
                let recent = self.recent & !1;
                *self = History { confirmed: true, recent, known: self.known, ..History::default() };
            }
            Kind::PowerLost => self.forgive(),
            Kind::LoaderAsked => self.loader_asked = true,
            Kind::Failed | Kind::Skipped | Kind::Rejected | Kind::Recovery | Kind::Note | Kind::Changed => {}
            Kind::CheckPassed | Kind::CheckFailed | Kind::Unknown(_) => {}
            #[cfg(feature = "recovery")]
            Kind::DrillBegan | Kind::DrillPassed | Kind::DrillFailed => {}
        }
    }

    /// The last attempt does not count: it ended because the power went.
    fn forgive(&mut self) {
        if self.unconfirmed > 0 && self.forgiven < FORGIVEN_MAX {
            self.forgiven += 1;
            self.unconfirmed -= 1;
            self.recent >>= 1;
            self.known = self.known.saturating_sub(1);
        }
    }

    /// How many of the last `window` attempts were never confirmed.
    pub fn failures(&self, window: u32) -> u32 {
        let window = window.min(self.known);
        let mask = 1u32.checked_shl(window).map_or(u32::MAX, |bit| bit - 1);
        (self.recent & mask).count_ones()
    }
}

/// When a deployment is not tried any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Attempts in a row that may go unconfirmed; 0 for any number.
    pub limit: u32,
    /// Unconfirmed attempts among the last `window` that are too many; 0 for any number.
    pub failures: u32,
    /// See `failures`; at most [`WINDOW_MAX`].
    pub window: u32,
}

impl Limits {
    /// Whether a deployment with this history is worn out.
    pub fn exceeded(&self, history: &History) -> bool {
        let in_a_row = self.limit != 0 && history.unconfirmed > self.limit;
        // The attempt that is to come would be one more.
        let in_all = self.failures != 0 && history.failures(self.window.max(1)) >= self.failures;
        in_a_row || in_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` an attempt, `c` its confirmation, `p` the power went.
    fn history(story: &str) -> History {
        let mut history = History::default();
        for letter in story.chars() {
            history.add(match letter {
                'a' => Kind::Attempt,
                'c' => Kind::Confirmed,
                'p' => Kind::PowerLost,
                _ => Kind::Note,
            });
        }
        history
    }

    #[test]
    fn attempts_count_until_a_confirmation() {
        assert_eq!(history("aaa").unconfirmed, 3);
        let good = history("aaac");
        assert_eq!((good.unconfirmed, good.confirmed), (0, true));
        assert_eq!(history("aacaa").unconfirmed, 2);
    }

    #[test]
    fn pulled_power_is_forgiven_but_not_for_ever() {
        assert_eq!(history("apap").unconfirmed, 0);
        assert_eq!(history("apapap").unconfirmed, 0);
        assert_eq!(history("apapapapap").unconfirmed, 2);
        // A confirmation makes a new beginning; power that went with nothing on trial changes nothing.
        assert_eq!(history("apapapacap").unconfirmed, 0);
        assert_eq!(history("p"), History::default());
        assert_eq!(history("acp"), history("ac"));
    }

    #[test]
    fn failures_are_counted_in_a_window() {
        let flapping = history("acaacacaac");
        assert_eq!((flapping.failures(32), flapping.failures(3), flapping.failures(2)), (2, 1, 1));
        assert_eq!(history("aacp").failures(8), 1);
        let long: String = "a".repeat(50);
        assert_eq!(history(&long).failures(99), 32);
        assert_eq!(history("").failures(5), 0);
    }

    #[test]
    fn limits() {
        let rows = Limits { limit: 2, ..Limits::default() };
        assert!(!rows.exceeded(&history("aa")) && rows.exceeded(&history("aaa")));
        // Confirmed months ago, and every other boot of it fails since.
        let flaps = Limits { limit: 3, failures: 3, window: 8 };
        assert!(!flaps.exceeded(&history("acacaacaac")));
        assert!(flaps.exceeded(&history("acacaacaacaac")));
        assert!(!Limits::default().exceeded(&history("aaaaaaaaaa")));
    }
}
