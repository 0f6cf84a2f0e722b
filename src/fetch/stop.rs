//! A way to end what waits for a server.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// Shared by whoever waits and whoever ends that; once set it stays set.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Everything that waits ends within half a second, a connection being made within [`super::Limits::connect`].
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
