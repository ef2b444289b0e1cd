//! What a shell's runtime supplies to the tasks that the core has for it: a lock, clocks, tasks,
//! connections, logs.

#[cfg(test)]
pub(crate) mod by_hand;

use alloc::string::String;
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;

use crate::admin::event::Event;
use crate::app::{ConnectError, DisconnectReason};
use crate::config::Limits;
use crate::host::shared::{OneShot, OneShotSender, Shared, StreamSource, Wakes};
use crate::host::socket::{Opened, Socket};
use crate::io::{Observation, Protocol};
use crate::store::StoreFailure;
use crate::types::time::{Instant, Now};

pub use self::yield_now as rest;

/// A runtime, with its sockets. Everything is said by its type, which is a part of those of clients
/// and handles: therefore it can be cloned and printed.
pub trait Runtime: fmt::Debug + Clone + Send + Sync + 'static {
    /// What comes one by one, as the users of this runtime know it.
    type Stream<S: StreamSource + Unpin>: From<S>;
    /// A connection whose handshake is done.
    type Socket: Socket;
    /// Ready at a time.
    type Timer: Future + Send + Unpin;
    /// Where operators look.
    type Log: LogSink;

    /// Something for several tasks to hold on to, behind a lock of this runtime's threads.
    fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T>;

    /// A number that nobody can guess.
    ///
    /// # Errors
    /// What the system said.
    fn random() -> Result<u64, String>;

    /// What the clocks say.
    fn now() -> Now;

    /// Ready at this time of [`Runtime::now`].
    fn timer(at: Instant) -> Self::Timer;

    /// Starts a task that nobody waits for.
    fn spawn(task: impl Future<Output = ()> + Send + 'static);

    /// Runs what takes its thread a while, beside the tasks.
    ///
    /// # Errors
    /// That it panicked.
    fn unblock<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, String>> + Send;

    /// Opens a connection to a node, however long it takes.
    fn dial(
        url: &str,
        protocol: Protocol,
        token: Option<&str>,
        limits: &Limits,
    ) -> impl Future<Output = Result<Opened<Self::Socket>, ConnectError>> + Send;
}

/// What operators look at: logs and histograms.
pub trait LogSink {
    /// Something happened at the node.
    fn report(event: &Event);

    /// Something was measured.
    fn observe(observation: &Observation);

    /// An application of this process has lost its connection.
    fn lost(why: &DisconnectReason);

    /// The store of a node that has ended could not be closed as it should.
    fn not_closed(failure: &StoreFailure);
}

/// A task that ends when this is dropped, if not before.
#[derive(Debug)]
pub struct Task {
    goes_on: Option<OneShotSender<()>>,
    ended: Shared<OneShot<()>>,
}

impl Task {
    /// Starts it.
    pub fn spawn<R: Runtime>(task: impl Future<Output = ()> + Send + 'static) -> Self {
        let (stopped, ended) = (R::share(OneShot::default()), R::share(OneShot::default()));
        let (goes_on, ending) =
            (OneShotSender::of(stopped.clone(), ()), OneShotSender::of(ended.clone(), ()));
        R::spawn(async move {
            first(stopped.wait(OneShot::poll), task).await;
            ending.keep(());
        });
        Self { goes_on: Some(goes_on), ended }
    }

    /// Gives it up.
    pub fn stop(&mut self) {
        self.goes_on = None;
    }

    /// Returns when it has ended, and let go of all it had.
    pub async fn ended(&self) {
        self.ended.wait(OneShot::poll).await;
    }
}

/// Wakes a task in time. It may do so early, and is then waited for again: to set a timer takes
/// longer than to look at the clock, and most are set to a later time.
#[derive(Debug)]
pub struct Alarm<R: Runtime>(Option<(Instant, R::Timer)>);

impl<R: Runtime> Default for Alarm<R> {
    fn default() -> Self {
        Self(None)
    }
}

impl<R: Runtime> Alarm<R> {
    /// What comes of this, if it comes before that time; without a time, whenever it comes. `None`
    /// may come early, too.
    pub async fn before<T>(
        &mut self,
        at: Option<Instant>,
        what: impl Future<Output = T>,
    ) -> Option<T> {
        first(async { Some(what.await) }, async {
            poll_fn(|cx| self.poll(at, cx)).await;
            None
        })
        .await
    }

    fn poll(&mut self, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(at) = at
            && self.0.as_ref().is_none_or(|(set, _)| at < *set)
        {
            self.0 = Some((at, R::timer(at)));
        }
        let Some((_, timer)) = &mut self.0 else { return Poll::Pending };
        if Pin::new(timer).poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.0 = None;
        Poll::Ready(())
    }
}

/// Returns after so long.
pub async fn sleep<R: Runtime>(time: Duration) {
    R::timer(R::now().instant + time).await;
}

/// Lets other tasks run.
pub async fn yield_now() {
    let mut rested = false;
    poll_fn(|cx| {
        if core::mem::replace(&mut rested, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What comes of this, if it comes within `limit`.
pub async fn within<R: Runtime, T>(limit: Duration, what: impl Future<Output = T>) -> Option<T> {
    let overdue = async {
        sleep::<R>(limit).await;
        None
    };
    // The time first: a runtime that gives each turn of a task so much to do has nothing left for
    // a timer behind work that takes it all.
    first(overdue, async { Some(what.await) }).await
}

/// What comes first; of two that are there, that of `one`. The other is given up.
pub async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Pending => other.as_mut().poll(cx),
        ready @ Poll::Ready(_) => ready,
    })
    .await
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use core::future::pending;
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::by_hand::{ByHand, pass, start, taken, tasks};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_alarm_is_never_later_than_it_was_set_last() {
        let now = ByHand::now().instant;
        let waiting = start(async move {
            let mut alarm = Alarm::<ByHand>::default();
            for set in [10, 5, 20].map(|seconds| now + SECOND * seconds) {
                let waited = async { alarm.before(Some(set), pending::<()>()).await.is_none() };
                assert!(!first(waited, async { false }).await, "it is not time");
            }
            let (at, mut woken) = (now + SECOND * 7, 0);
            while ByHand::now().instant < at {
                woken += 1;
                assert_eq!(alarm.before(Some(at), pending::<()>()).await, None);
            }
            woken
        });
        pass(SECOND * 5);
        assert_eq!(taken(&waiting), None, "it came early, and is waited for again");
        pass(SECOND * 2);
        assert_eq!(taken(&waiting), Some(2));
        let forever =
            start(async { Alarm::<ByHand>::default().before(None, pending::<()>()).await });
        pass(SECOND * 1_000);
        assert_eq!(taken(&forever), None);
    }

    #[test]
    fn what_is_there_comes_before_the_time_is_over() {
        let there = start(async { Alarm::<ByHand>::default().before(None, async { 1 }).await });
        assert_eq!(taken(&there), Some(Some(1)));
        assert_eq!(taken(&start(within::<ByHand, _>(SECOND, async { 2 }))), Some(Some(2)));
        let late = start(within::<ByHand, _>(SECOND, sleep::<ByHand>(SECOND * 2)));
        pass(SECOND);
        assert_eq!(taken(&late), Some(None));
    }

    // keeps: no-hold-up
    #[test]
    fn work_without_end_is_ended_by_its_time() {
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = polls.clone();
        let work = async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                sleep::<ByHand>(Duration::from_millis(1)).await;
                yield_now().await;
            }
        };
        let ended = start(within::<ByHand, ()>(SECOND, work));
        pass(SECOND);
        assert_eq!(taken(&ended), Some(None));
        assert_eq!(polls.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn a_task_that_ends_lets_go_of_all_it_had() {
        for stops in [true, false] {
            let held = Arc::new(());
            let had = held.clone();
            let mut task = Task::spawn::<ByHand>(async move {
                let _had = had;
                pending::<()>().await;
            });
            pass(SECOND);
            assert_eq!(Arc::strong_count(&held), 2);
            if stops {
                task.stop();
                let ended = start(async move { task.ended().await });
                assert_eq!(taken(&ended), Some(()));
            } else {
                drop(task);
                pass(Duration::ZERO);
            }
            assert_eq!(Arc::strong_count(&held), 1);
        }
        let task = Task::spawn::<ByHand>(async {});
        assert_eq!(taken(&start(async move { task.ended().await })), Some(()));
        assert_eq!(tasks(), 0);
    }
}
