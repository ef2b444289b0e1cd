//! What a node knows of time: what its clocks say, what may be stamped, and what is due when.
//!
//! What stays true: no part of a node reads a clock; `now` is what the last input brought.

use crate::log::lifetime::Lifetimes;
use crate::types::clock::{Clock, ClockFault};
use crate::types::rate::Random;
use crate::types::time::{Instant, Now};
use crate::types::timers::Timers;

/// Time as the last input told it, the hybrid logical clock, timers and randomness of a node.
#[derive(Debug)]
pub(super) struct Time {
    pub(super) now: Now,
    /// When the node started.
    pub(super) started: Instant,
    pub(super) clock: Clock,
    /// Why publishers are refused for the clock, as of the last look.
    pub(super) fault: Option<ClockFault>,
    /// By which time events end.
    pub(super) lifetimes: Lifetimes,
    pub(super) timers: Timers,
    pub(super) random: Random,
}

impl Time {
    /// Time at a start. `seed` is the source of all randomness of the node.
    pub(super) fn new(clock: Clock, seed: u64, now: Now) -> Self {
        Self {
            now,
            started: now.instant,
            clock,
            fault: None,
            lifetimes: Lifetimes::default(),
            timers: Timers::default(),
            random: Random::new(seed),
        }
    }

    /// Takes what the clocks say.
    pub(super) fn observe(&mut self, now: Now) {
        self.now = now;
        self.clock.observe(now);
    }
}
