//! What is said and done about the room in the store.

use crate::admin::event::Event;
use crate::log::capacity::{CALM, REST_AFTER_FULL};
use crate::types::timers::Timer;

use super::handlers::Room;

impl Room<'_> {
    /// Says once that publishers are refused, and once that they are not any more.
    pub(super) fn notice_room(&mut self) {
        let now = self.time.now.instant;
        let full = self.log.capacity.full_reason(self.log.load(now));
        let none_at = &mut self.log.capacity.none_at;
        if let Some(reason) = full {
            if none_at.replace(now).is_none() {
                self.out.event(Event::StoreFull { reason });
            }
            // What is in the way may go without a commit of anybody.
            self.time.timers.set_earlier(Timer::Upkeep, now + REST_AFTER_FULL);
        } else if none_at.is_some_and(|at| at + CALM <= now) {
            *none_at = None;
            self.out.event(Event::StoreHasRoom);
        }
    }

    /// Ends the rest after a failure in time. While there is no room it is looked for it each
    /// second, with a commit.
    pub(super) fn look_for_room(&mut self) {
        let now = self.time.now.instant;
        match self.log.capacity.rest_until {
            // Upkeep came for another reason; the end of the rest is not to wait for the next.
            Some(until) if until > now => self.time.timers.set_earlier(Timer::Upkeep, until),
            Some(_) => {
                self.log.capacity.rest_until = None;
                self.log.commit_wanted = true;
            }
            None => {
                let is_full = self.log.capacity.is_disk_full(self.log.load(now));
                self.log.commit_wanted |= is_full;
            }
        }
        self.notice_room();
    }
}
