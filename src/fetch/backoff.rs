//! How long to wait before the next try: exponential, with full jitter.
//!
//! Full jitter (a uniform choice from nothing to the exponential step) empties a herd of devices fastest: Marc
//! Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use core::time::Duration;

/// The steps of the waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The longest wait before the first new try.
    pub first: Duration,
    /// The longest wait of all.
    pub longest: Duration,
}

impl Default for Backoff {
    /// Up to 1 s, 2 s, 4 s, ... 60 s.
    fn default() -> Self {
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 for the first), chosen by a uniformly random number.
    pub fn wait(&self, failures: u32, random: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let step = self.first.saturating_mul(doubled).min(self.longest);
        // In microseconds, so that the product fits whatever the step: 2^32 * 2^64.
        let micros = step.as_micros() * u128::from(random) / u128::from(u32::MAX);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_doubles_up_to_the_longest() {
        let backoff = Backoff::default();
        let steps: alloc::vec::Vec<u64> = (0..9).map(|n| backoff.wait(n, u32::MAX).as_secs()).collect();
        assert_eq!(steps, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.wait(u32::MAX, u32::MAX), backoff.longest);
        assert_eq!(
            Backoff { first: Duration::MAX, longest: Duration::MAX }.wait(40, u32::MAX).as_micros(),
            u64::MAX.into()
        );
    }

    #[test]
    fn the_jitter_is_full() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(5, 0), Duration::ZERO);
        assert_eq!(backoff.wait(5, 1 << 31).as_millis(), 8000);
    }
}
