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
use alloc::vec::Vec;
use core::fmt;
use core::task::Waker;

/// A lock, as a shell has it.
pub trait Lock<T>: Send + Sync {
    /// Runs this once, while nobody else can.
    fn with(&self, run: &mut dyn FnMut(&mut T));
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
