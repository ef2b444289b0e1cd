//! A value that its holders change, and wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

/// Clones are for the same value. Who waits may miss what is changed again at once.
#[derive(Debug)]
pub(crate) struct Watch<T>(Arc<(Mutex<T>, Event)>);

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Watch<T> {
    /// With this value to begin with.
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new((Mutex::new(value), Event::new())))
    }

    /// The value. Held only for a moment, and never while waiting.
    pub(crate) fn borrow(&self) -> MutexGuard<'_, T> {
        // Every change is made at one stroke, so a panic leaves nothing half done.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the value.
    pub(crate) fn send_replace(&self, value: T) {
        *self.borrow() = value;
        self.0.1.notify(usize::MAX);
    }

    /// Changes the value, and tells those who wait if `change` says that it did.
    pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        let changed = change(&mut self.borrow());
        if changed {
            self.0.1.notify(usize::MAX);
        }
    }

    /// Returns when the value is as `wanted`. Can be given up without loss.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&T) -> bool) {
        loop {
            // Listens before it looks: what changes in between is heard of.
            let changed = self.0.1.listen();
            if wanted(&self.borrow()) {
                return;
            }
            changed.await;
        }
    }
}
