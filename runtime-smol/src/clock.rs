//! Reads the machine's clocks for the core, which has none.
//!
//! The monotonic clock counts from the start of the node. Nothing else in this crate reads a
//! clock for the core, so all that a node sees of time passes through here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slipstream_core::time::{Instant, Now, WallMs};

/// The clocks of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A monotonic clock that begins now.
    pub(crate) fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// What both clocks say. A wall clock before 1970 reads as 1970.
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: Instant::from_micros(micros(self.start.elapsed())),
            wall: WallMs(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The point `at` of the core's clock on the system's.
    pub(crate) fn deadline(&self, at: Instant) -> std::time::Instant {
        self.start + Duration::from_micros(at.as_micros())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
