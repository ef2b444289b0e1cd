//! What a node knows of time: what its clocks say, what may be stamped, and what is due when.
//!
//! What stays true: no part of a node reads a clock; `now` is what the last input brought.

use crate::admin::event::Event;
use crate::config::Config;
use crate::log::lifetime::{Lifetimes, Moment};
use crate::types::clock::{Clock, ClockFault};
use crate::types::rate::Random;
use crate::types::time::{Instant, Now, WallMs};
use crate::types::timers::Timers;

use super::outbox::Outbox;

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

    /// What events live by now.
    pub(super) fn moment(&self) -> Moment {
        self.lifetimes.at(self.now, self.clock.fault().is_none())
    }

    /// Events that ended by this time of the node are handed to nobody any more. While the clock is
    /// in doubt they may be.
    pub(super) fn over_upto(&self) -> WallMs {
        self.moment().trusted().unwrap_or_default()
    }

    /// Takes what the clocks say.
    pub(super) fn observe(&mut self, now: Now) {
        self.now = now;
        self.clock.observe(now);
    }

    /// Says once when the clock becomes doubtful, and once when it is sound again.
    pub(super) fn notice_clock(&mut self, out: &mut Outbox) {
        let fault = self.clock.fault();
        if fault.is_some() != self.fault.is_some() {
            out.event(fault.map_or(Event::ClockSound, Event::ClockFault));
        }
        self.fault = fault;
    }

    /// Until then whatever is there now may be wanted by a peer that was never reached, and what is
    /// known to live longer for as long as that.
    pub(super) fn kept_until(&self, config: &Config) -> WallMs {
        self.lifetimes.time(self.now).plus(config.store.event_ttl)
    }
}
