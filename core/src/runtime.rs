//! What a shell's runtime supplies to the tasks that the core has for it: a lock, clocks, tasks,
//! connections.

#[cfg(test)]
pub(crate) mod by_hand;

use alloc::string::String;
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;

use crate::client::{ConnectError, Ended};
use crate::config::Limits;
use crate::io::Protocol;
use crate::shared::{Once, Promise, Shared, Source, Wakes};
use crate::socket::{Opened, Socket};
use crate::time::{Instant, Now};

/// A runtime, with its sockets. It has no value of interest: everything is said by its type.
pub trait Runtime: fmt::Debug + Clone + Send + Sync + 'static {
    /// What comes one by one, as the users of this runtime know it.
    type Stream<S: Source + Unpin>: From<S>;
    /// A connection whose handshake is done.
    type Socket: Socket;
    /// Ready at a time.
    type Timer: Future + Send + Unpin;

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

    /// Opens a connection to a node, however long it takes.
    fn dial(
        url: &str,
        protocol: Protocol,
        token: Option<&str>,
        limits: &Limits,
    ) -> impl Future<Output = Result<Opened<Self::Socket>, ConnectError>> + Send;

    /// For the log: an application of this process has lost its connection.
    fn lost(why: &Ended);
}

/// A task that ends when this is dropped, if not before.
#[derive(Debug)]
pub struct Task {
    goes_on: Option<Promise<()>>,
    ended: Shared<Once<()>>,
}

impl Task {
    /// Starts it.
    pub fn spawn<R: Runtime>(task: impl Future<Output = ()> + Send + 'static) -> Self {
        let (stopped, ended) = (R::share(Once::default()), R::share(Once::default()));
        let (goes_on, ending) = (Promise::of(stopped.clone(), ()), Promise::of(ended.clone(), ()));
        R::spawn(async move {
            first(stopped.wait(Once::poll), task).await;
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
        self.ended.wait(Once::poll).await;
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

/// What comes of this, if it comes within `limit`.
pub async fn within<R: Runtime, T>(limit: Duration, what: impl Future<Output = T>) -> Option<T> {
    first(async { Some(what.await) }, async {
        sleep::<R>(limit).await;
        None
    })
    .await
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
