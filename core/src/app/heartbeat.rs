//! Whether the node is still there: the client's half of the heartbeat (P2).

use core::time::Duration;

use crate::config::Heartbeat;
use crate::types::time::Instant;

/// Pings are at least this far apart.
const SHORTEST: Duration = Duration::from_millis(10);

/// What a silent connection calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Nothing before this time.
    Wait(Instant),
    /// A ping, now.
    Ping,
    /// Nothing came for the time-out: the connection is of no use any more.
    Dead(Duration),
}

/// When something came last, and when it was asked for.
#[derive(Debug)]
pub(super) struct AppHeartbeat {
    heartbeat: Heartbeat,
    heard: Instant,
    pinged: Option<Instant>,
}

impl AppHeartbeat {
    pub(super) fn new(heartbeat: Heartbeat, now: Instant) -> Self {
        Self { heartbeat, heard: now, pinged: None }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// Nothing is expected while the application has to settle before anything is read.
    pub(super) fn beat(&mut self, now: Instant, is_full: bool) -> Beat {
        let Heartbeat { interval, timeout } = self.heartbeat;
        let interval = interval.max(SHORTEST);
        if is_full {
            self.heard = self.heard.max(self.pinged.unwrap_or(self.heard));
        }
        let dead = self.heard + timeout;
        let ping = self.pinged.unwrap_or(self.heard) + interval;
        if now >= dead {
            Beat::Dead(timeout)
        } else if now >= ping {
            self.pinged = Some(now);
            Beat::Ping
        } else {
            Beat::Wait(ping.min(dead))
        }
    }
}
