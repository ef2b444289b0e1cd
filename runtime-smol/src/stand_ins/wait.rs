//! Waiting: within a limit, until a time, only if it is wanted; and not at all, for a task that
//! nobody waits for.

use std::future::{Future, pending};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use smol::Timer;
use smol::future::or;

/// Returns after so long.
pub(crate) async fn sleep(time: Duration) {
    Timer::after(time).await;
}

/// What comes of `what`, if it comes within `limit`.
pub(crate) async fn timeout<T>(limit: Duration, what: impl Future<Output = T>) -> Option<T> {
    or(what.map(Some), sleep(limit).map(|()| None)).await
}

/// What comes, if it is wanted.
pub(crate) async fn when<T>(wanted: bool, what: impl Future<Output = T>) -> T {
    if wanted { what.await } else { pending().await }
}

/// Runs a task that nobody waits for.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    smol::spawn(task).detach();
}

/// Wakes a task in time. It may do so early, and is then waited for again: a timer that is moved
/// wakes the thread that polls the sockets, and most are moved to a later time.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Timer,
    set: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self { timer: Timer::never(), set: None }
    }

    /// Returns at this time or before, if there is one. Can be given up and called again.
    pub(crate) async fn until(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.set.is_none_or(|set| at < set)
        {
            self.timer.set_at(at);
            self.set = Some(at);
        }
        (&mut self.timer).await;
        self.set = None;
    }
}
