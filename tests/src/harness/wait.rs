//! Waiting for a condition, never for a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that should take a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long anything may take that moves tens of thousands of messages.
pub const LONG: Duration = Duration::from_secs(180);

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `patience`; the message names `what`.
pub fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "waited {patience:?} for {what}, in vain");
        sleep(Duration::from_millis(20));
    }
}
