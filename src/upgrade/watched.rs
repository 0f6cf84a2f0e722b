//! Work in a thread of its own, so that whoever waits for it can end it.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::fetch::Stop;
use crate::pull::Progress;
use crate::sys::lock::Lock;

use super::{Error, Watch};

/// How often whoever waits is asked.
const TICK: Duration = Duration::from_millis(200);
/// So long a lock is waited for at a time.
const LOCK_TICK: Duration = Duration::from_millis(500);

/// Takes how far it is.
pub(super) type Tell<'t> = &'t mut dyn FnMut(&Progress);

/// Does the work; `watch` is called from this thread until it is done, the last time with all of its progress.
pub(super) fn watched<R: Send>(
    stop: &Stop,
    watch: Watch<'_>,
    work: impl FnOnce(Tell<'_>) -> Result<R, Error> + Send,
) -> Result<R, Error> {
    let progress = Mutex::new(Progress::default());
    // A panic ends the process, so that nothing is ever left half done.
    let now = || *progress.lock().unwrap_or_else(PoisonError::into_inner);
    let (done, wait) = channel();
    let tell = &mut |now: &Progress| *progress.lock().unwrap_or_else(PoisonError::into_inner) = *now;
    std::thread::scope(|scope| {
        let worker = move || drop(done.send(work(tell)));
        std::thread::Builder::new().spawn_scoped(scope, worker).map_err(|e| Error::Thread(e.to_string()))?;
        loop {
            match wait.recv_timeout(TICK) {
                Ok(result) => {
                    watch(&now());
                    return result;
                }
                Err(RecvTimeoutError::Timeout) if watch(&now()) => {}
                Err(RecvTimeoutError::Timeout) => stop.set(),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Stopped),
            }
        }
    })
}

/// Takes a lock, unless it is stopped meanwhile.
pub(super) fn locked(
    stop: &Stop,
    patience: Duration,
    take: impl Fn(Duration) -> nix::Result<Lock>,
) -> Result<Lock, Error> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match take(left.min(LOCK_TICK)) {
            Err(Errno::EAGAIN) if stop.is_set() => return Err(Error::Stopped),
            Err(Errno::EAGAIN) if left > LOCK_TICK => {}
            taken => return taken.map_err(Error::Lock),
        }
    }
}
