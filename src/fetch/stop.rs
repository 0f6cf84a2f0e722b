//! A way to end what waits for a server.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(target_os = "none"))]
use std::time::{Duration, Instant};

/// Shared by whoever waits and whoever ends that; once set it stays set.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    set: Arc<AtomicBool>,
    /// It ends by itself then.
    #[cfg(not(target_os = "none"))]
    until: Option<Instant>,
}

impl Stop {
    /// Everything that waits ends within half a second, a connection being made within [`super::Limits::connect`].
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// The same, which ends by itself after a time too.
    #[cfg(not(target_os = "none"))]
    pub fn within(&self, time: Duration) -> Self {
        Stop { set: self.set.clone(), until: Instant::now().checked_add(time) }
    }

    /// Whether it is to end.
    pub fn is_set(&self) -> bool {
        #[cfg(not(target_os = "none"))]
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return true;
        }
        self.set.load(Ordering::Relaxed)
    }
}
