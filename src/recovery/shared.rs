//! What the worker of recovery and the console share. Neither ever waits for the other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Outcome;
use super::status::{Phase, Status, Wish};
use crate::sys::time;

/// The state that both see.
#[derive(Debug, Default)]
pub struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Milliseconds since the kernel started until which the worker counts as alive.
    alive_until: AtomicU32,
}

#[derive(Debug, Default)]
struct Inner {
    status: Status,
    wish: Option<Wish>,
    outcome: Option<Outcome>,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Shared::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic restarts the device, so that nothing is ever left half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being done, for the console.
    pub fn status(&self) -> Status {
        self.inner().status.clone()
    }

    /// Changes what the console shows.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.inner().status);
        self.changed.notify_all();
    }

    /// Tells what happened: to the console, and to the kernel's log.
    pub fn tell(&self, line: &str) {
        log::info!("recovery: {line}");
        self.change(|status| status.tell(line));
    }

    /// The worker begins something.
    pub fn phase(&self, phase: Phase) {
        self.change(|status| {
            status.phase = phase;
            status.progress = None;
            status.next = None;
        });
    }

    /// What someone at the console wants; the last wish counts.
    pub fn wish(&self, wish: Wish) {
        self.inner().wish = Some(wish);
        self.changed.notify_all();
    }

    /// Takes the wish.
    pub fn take_wish(&self) -> Option<Wish> {
        self.inner().wish.take()
    }

    /// Whether someone wants something: long steps end early then.
    pub fn is_wished(&self) -> bool {
        self.inner().wish.is_some()
    }

    /// Waits until someone wants something, at most for `time`, showing life meanwhile.
    pub fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut inner = self.inner();
        while inner.wish.is_none() && inner.outcome.is_none() {
            self.alive(Duration::from_secs(10));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let step = left.min(Duration::from_secs(1));
            inner = self.changed.wait_timeout(inner, step).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Recovery has ended, and so.
    pub fn end(&self, outcome: Outcome) {
        let mut inner = self.inner();
        inner.outcome.get_or_insert(outcome);
        inner.status.phase = Phase::Done;
        drop(inner);
        self.changed.notify_all();
    }

    /// How recovery ended, once it has: whoever serves the console returns this.
    pub fn outcome(&self) -> Option<Outcome> {
        self.inner().outcome
    }

    /// The worker shows life, and says how long until it shows it again at the latest.
    pub fn alive(&self, patience: Duration) {
        let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        self.alive_until.store(time::uptime().saturating_add(patience), Ordering::Relaxed);
    }

    /// Whether the worker shows life: the watchdog is fed only then.
    pub fn is_alive(&self) -> bool {
        time::uptime() <= self.alive_until.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_ends_the_wait_and_is_taken_once() {
        let shared = Shared::new();
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| shared.wish(Wish::RecoverNow));
            shared.wait(Duration::from_secs(600));
        });
        assert!(began.elapsed() < Duration::from_secs(300));
        assert_eq!(shared.take_wish(), Some(Wish::RecoverNow));
        assert_eq!(shared.take_wish(), None);
    }

    #[test]
    fn a_worker_that_shows_no_life_is_not_alive() {
        let shared = Shared::new();
        shared.alive(Duration::from_secs(1000));
        assert!(shared.is_alive());
        shared.alive_until.store(time::uptime().saturating_sub(1), Ordering::Relaxed);
        assert!(!shared.is_alive());
    }

    #[test]
    fn the_first_end_counts() {
        let shared = Shared::new();
        assert_eq!(shared.outcome(), None);
        shared.end(Outcome::Retry);
        shared.end(Outcome::Reboot);
        assert_eq!(shared.outcome(), Some(Outcome::Retry));
    }
}
