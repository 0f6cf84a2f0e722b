//! How long a server takes, against its limits. Pure: it is told how long was waited, and for what.

use core::time::Duration;

use super::super::{Error, Limits, Step};

/// The time that one connection has cost.
#[derive(Clone, Debug)]
pub struct Pace {
    limits: Limits,
    step: Step,
    /// Waited in this step, and the most that it may take.
    spent: Duration,
    allowed: Duration,
    /// Waited since the last byte.
    quiet: Duration,
    /// Waited since the rate was looked at, and what came meanwhile.
    since: Duration,
    came: u64,
}

impl Pace {
    /// The pace of a connection that begins with a handshake.
    pub fn new(limits: &Limits) -> Self {
        Pace {
            limits: *limits,
            step: Step::Handshake,
            spent: Duration::ZERO,
            allowed: limits.handshake,
            quiet: Duration::ZERO,
            since: Duration::ZERO,
            came: 0,
        }
    }

    /// Something new is waited for.
    pub fn begin(&mut self, step: Step, allowed: Duration) {
        (self.step, self.allowed) = (step, allowed);
        (self.spent, self.quiet) = (Duration::ZERO, Duration::ZERO);
    }

    /// What is waited for.
    pub fn step(&self) -> Step {
        self.step
    }

    /// An answer is complete.
    pub fn answered(&mut self) {
        self.came = self.came.saturating_add(self.limits.answer_worth);
    }

    /// So long was waited, and so many bytes came or went at its end.
    ///
    /// # Errors
    /// When that was too long.
    pub fn waited(&mut self, time: Duration, bytes: usize) -> Result<(), Error> {
        self.quiet = if bytes > 0 { Duration::ZERO } else { self.quiet.saturating_add(time) };
        self.spent = self.spent.saturating_add(time);
        self.since = self.since.saturating_add(time);
        self.came = self.came.saturating_add(bytes as u64);
        if self.spent > self.allowed {
            return Err(match self.step {
                Step::Body => Error::Overdue { allowed: self.allowed },
                step => Error::TimeOut(step),
            });
        }
        if self.quiet > self.limits.idle {
            return Err(Error::TimeOut(self.step));
        }
        if self.since >= self.limits.rate_over {
            let due = u128::from(self.limits.rate) * self.since.as_millis() / 1000;
            if u128::from(self.came) < due {
                return Err(Error::Slow { rate: self.limits.rate });
            }
            (self.since, self.came) = (Duration::ZERO, 0);
        }
        Ok(())
    }

    /// How long a single wait may be, so that no limit is missed by much.
    pub fn tick(limits: &Limits) -> Duration {
        let all = [limits.handshake, limits.head, limits.idle, limits.rate_over, limits.body];
        let shortest = all.into_iter().min().unwrap_or_default() / 4;
        shortest.clamp(Duration::from_millis(5), Duration::from_millis(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The error, and the second in which it comes, of a server that sends so many bytes each second.
    fn drip(bytes: usize, length: u64) -> (u64, Error) {
        let limits = Limits::default();
        let mut pace = Pace::new(&limits);
        pace.begin(Step::Body, limits.body_time(length));
        (1..100_000).find_map(|n| Some((n, pace.waited(SECOND, bytes).err()?))).expect("a limit")
    }

    #[test]
    fn a_dripping_server_is_left() {
        assert_eq!(drip(0, 1 << 20), (21, Error::TimeOut(Step::Body)));
        assert_eq!(drip(1, 1 << 20), (30, Error::Slow { rate: 1024 }));
        assert_eq!(drip(1023, 1 << 20), (30, Error::Slow { rate: 1024 }));
        // At the rate or above it, what a file of its size may take.
        let (second, error) = drip(1024, 1 << 20);
        assert_eq!((second, error), (377, Error::Overdue { allowed: SECOND * 376 }));
    }

    #[test]
    fn one_that_gets_slow_is_left_within_a_minute() {
        let limits = Limits::default();
        let mut pace = Pace::new(&limits);
        pace.begin(Step::Body, Duration::MAX);
        pace.waited(SECOND, 1 << 30).unwrap();
        let left = (1..).find(|_| pace.waited(SECOND, 100).is_err());
        assert_eq!(left, Some(59));
    }

    #[test]
    fn small_objects_over_a_long_line_pass() {
        let limits = Limits::default();
        let mut pace = Pace::new(&limits);
        for _ in 0..1000 {
            pace.begin(Step::Head, limits.head);
            pace.waited(2 * SECOND, 300).unwrap();
            pace.answered();
        }
    }

    #[test]
    fn what_it_is_told_last_counts() {
        let limits = Limits::default();
        let mut pace = Pace::new(&limits);
        assert_eq!(pace.waited(21 * SECOND, 5), Err(Error::TimeOut(Step::Handshake)));
        pace.begin(Step::Head, SECOND);
        assert_eq!(pace.waited(SECOND, 0), Ok(()));
        assert_eq!(pace.waited(SECOND, 1), Err(Error::TimeOut(Step::Head)));
    }
}
