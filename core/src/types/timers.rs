//! Which part of the node wants to be woken when. One time per part; the earliest is at hand.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::types::ids::{LinkId, SessionId};
use crate::types::time::Instant;

/// A part of the node that waits for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Heartbeat or handshake of a link.
    Link(LinkId),
    /// Repetition within a session.
    Session(SessionId),
    /// The next dial of the configured peer with this number.
    Dial(usize),
    /// Writing cursors that moved.
    Cursors,
    /// Telling the mesh what has changed here.
    Topology,
    /// Making room, ending sessions, looking at the clock.
    Upkeep,
}

/// All timers.
#[derive(Debug, Default)]
pub struct Timers {
    by_time: BTreeSet<(Instant, Timer)>,
    by_timer: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets a timer, in place of what it was set to.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(before) = self.by_timer.insert(timer, at) {
            if before == at {
                return;
            }
            self.by_time.remove(&(before, timer));
        }
        self.by_time.insert((at, timer));
    }

    /// Sets a timer, unless it is set to an earlier time.
    pub fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.by_timer.get(&timer).is_none_or(|before| *before > at) {
            self.set(timer, at);
        }
    }

    /// Unsets a timer.
    pub fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.by_timer.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// The earliest time.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes a timer that is due.
    pub fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}
