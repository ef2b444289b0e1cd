//! What several tasks hold on to, and how they hear of each other.
//!
//! Handles of applications are futures and streams, and a core without `std` has no lock for what
//! they share. A shell supplies it, as it supplies clocks and sockets. Everything else is plain
//! data: a method takes the task's [`Waker`] when it has nothing to say yet, and whoever changes
//! that later leaves the waker among those to be woken.
//!
//! What stays true: wakers are woken, and dropped, while nothing is locked. Either may run the code
//! of whoever waits, and that may take the same lock.

use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

pub use self::{OneShot as Once, OneShotSender as Promise};

/// A lock, as a shell has it.
pub trait Lock<T>: Send + Sync {
    /// Runs this once, while nobody else can.
    fn with(&self, run: &mut dyn FnMut(&mut T));
}

/// Behind a lock for the tests, each of which is one thread: what holds two of them would wait for
/// ever, and is found.
#[cfg(test)]
pub(crate) fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
    struct Free<T>(std::sync::Mutex<T>);

    impl<T: Send> Lock<T> for Free<T> {
        fn with(&self, run: &mut dyn FnMut(&mut T)) {
            let mut free =
                self.0.try_lock().expect("it was locked by whom it has woken, or dropped");
            run(&mut free);
        }
    }

    Shared::new(Arc::new(Free(std::sync::Mutex::new(what))))
}

/// What leaves wakers behind.
pub trait Wakes {
    /// The wakers of those who are to look again.
    fn woken(&mut self) -> &mut Vec<Waker>;
}

/// Something that several tasks hold on to. Clones are the same thing.
pub struct Shared<T>(Arc<dyn Lock<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl<T: Wakes> Shared<T> {
    /// Behind this lock.
    pub fn new(lock: Arc<dyn Lock<T>>) -> Self {
        Self(lock)
    }

    /// Looks at it, or changes it, and wakes those who are to look again.
    pub fn with<R>(&self, run: impl FnOnce(&mut T) -> R) -> R {
        let (mut run, mut done) = (Some(run), None);
        self.0.with(&mut |shared| {
            if let Some(run) = run.take() {
                let result = run(shared);
                done = Some((result, core::mem::take(shared.woken())));
            }
        });
        let (result, woken) = done.expect("a lock runs what it is given");
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

impl<T: Wakes> Shared<T> {
    /// Waits until this is ready. Can be given up if `poll` can be given up.
    pub async fn wait<R>(&self, mut poll: impl FnMut(&mut T, &mut Context<'_>) -> Poll<R>) -> R {
        poll_fn(|cx| self.with(|shared| poll(shared, cx))).await
    }
}

/// What comes one by one, for a stream.
pub trait StreamSource {
    /// What comes.
    type Item;

    /// The next one; `None` after the end. Can be given up without loss.
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;
}

/// Keeps the waker of a task in place of the one that was there before.
pub(crate) fn keep(place: &mut Option<Waker>, waker: &Waker, woken: &mut Vec<Waker>) {
    if place.as_ref().is_none_or(|known| !known.will_wake(waker)) {
        woken.extend(place.replace(waker.clone()).map(unwoken));
    }
}

/// To be dropped where nothing is locked, and not woken. Wakers of one task do not always know each
/// other, and a task that is woken by what it asks itself asks without end.
pub(crate) fn unwoken(waker: Waker) -> Waker {
    struct Unwoken(#[expect(dead_code, reason = "it is dropped in time")] Waker);

    impl Wake for Unwoken {
        fn wake(self: Arc<Self>) {}
    }

    Waker::from(Arc::new(Unwoken(waker)))
}

/// Sender of a [`OneShot`]; sends a fallback when it is dropped.
#[derive(Debug)]
pub struct OneShotSender<T: Clone> {
    once: Shared<OneShot<T>>,
    otherwise: Option<T>,
}

impl<T: Clone> OneShotSender<T> {
    /// Tells those who wait for `once`; `otherwise` if it is dropped.
    pub fn of(once: Shared<OneShot<T>>, otherwise: T) -> Self {
        Self { once, otherwise: Some(otherwise) }
    }

    /// Here it is.
    pub fn keep(mut self, value: T) {
        self.otherwise = Some(value);
    }
}

impl<T: Clone> Drop for OneShotSender<T> {
    fn drop(&mut self) {
        if let Some(value) = self.otherwise.take() {
            self.once.with(|once| once.set(value));
        }
    }
}

/// One-shot value: comes once, and stays for everyone who waits.
#[derive(Debug)]
pub struct OneShot<T> {
    value: Option<T>,
    waiting: Vec<Waker>,
    woken: Vec<Waker>,
}

impl<T> Default for OneShot<T> {
    fn default() -> Self {
        Self { value: None, waiting: Vec::new(), woken: Vec::new() }
    }
}

impl<T> Wakes for OneShot<T> {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

impl<T: Clone> OneShot<T> {
    /// Here it is; what comes later is not heard of.
    pub fn set(&mut self, value: T) {
        self.value.get_or_insert(value);
        self.woken.append(&mut self.waiting);
    }

    /// Ready when it is there.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        match &self.value {
            Some(value) => Poll::Ready(value.clone()),
            None => {
                if !self.waiting.iter().any(|known| known.will_wake(cx.waker())) {
                    self.waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}
