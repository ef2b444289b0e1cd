//! The lock behind which tasks share what they have in common.

use std::sync::{Arc, Mutex, PoisonError};

use slipstream_core::shared::{Lock, Shared, Wakes};

/// A lock of threads, held only for a moment and never while waiting.
struct Locked<T>(Mutex<T>);

impl<T: Send> Lock<T> for Locked<T> {
    fn with(&self, run: &mut dyn FnMut(&mut T)) {
        // Every change is made at one stroke, so a panic leaves nothing half done.
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Puts something behind a lock, for several tasks to hold on to.
pub fn share<T: Wakes + Send + 'static>(what: T) -> Shared<T> {
    Shared::new(Arc::new(Locked(Mutex::new(what))))
}
