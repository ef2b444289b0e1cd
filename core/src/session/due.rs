//! What a session hands over again, and when (P13).
//!
//! What stays true: the rate limit is for repeats on a link that stayed up. What has never been on
//! the link does not count, nor does what ends instead of being handed over again.

use alloc::vec::Vec;

use crate::types::ids::Position;
use crate::types::time::Instant;

use super::{Flight, Session, Word};

impl Session {
    /// Whether there may be flights to hand over again now.
    pub fn has_due(&self, now: Instant) -> bool {
        self.notes.has_unsent || self.notes.wake.is_some_and(|wake| wake <= now)
    }

    /// The flights to hand over again now, in log order, at most `most`: those that the link has
    /// not carried, and those whose time has come, under the rate limit. Sets when to ask again.
    /// What an application has left unacknowledged until now has failed once more, and is to be a
    /// dead letter after `max_attempts`.
    pub fn take_due(&mut self, now: Instant, most: usize, max_attempts: u32) -> Vec<Position> {
        let is_application = self.application().is_some();
        let mut due = Vec::new();
        let mut wake: Option<Instant> = None;
        let mut limited = false;
        for (position, flight) in &mut self.flights {
            let fresh = flight.is_fresh();
            let is_due = fresh || flight.due.is_some_and(|at| at <= now);
            if is_due && !fresh && is_application && flight.on_link {
                flight.fail("no ACK in time", false, max_attempts);
            }
            if flight.word.is_final() {
                self.notes.has_dying = true;
            } else if is_due && due.len() < most && !limited {
                if !fresh && let Err(wait) = self.notes.repeats.take(now) {
                    limited = true;
                    wake = Some(now + wait);
                } else {
                    due.push(*position);
                }
            } else if let Some(at) = flight.due.filter(|at| *at > now) {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        }
        self.notes.has_unsent = self.flights.values().any(Flight::is_fresh);
        self.notes.wake = if due.is_empty() { wake } else { Some(now) };
        due
    }

    /// How often this row was handed over, if the socket has it and nothing was said of it.
    pub fn awaits_word(&self, position: Position) -> Option<u32> {
        let flight = self.flights.get(&position)?;
        let awaits = flight.on_link && flight.due.is_none() && flight.word == Word::None;
        awaits.then_some(flight.handed)
    }

    /// The connection was lost before the application had settled anything on it, when the socket
    /// had taken so many frames: the oldest delivery in them has failed once more, and no other.
    /// So a message that kills its consumer comes to an end.
    pub fn lost_unsettled(&mut self, frames_taken: u64, max_attempts: u32) {
        if self.is_automatic() {
            // What its socket had taken is settled.
            return;
        }
        let taken = |flight: &&mut Flight| {
            flight.on_link && flight.frame <= frames_taken && !flight.word.is_said()
        };
        if let Some(flight) = self.flights.values_mut().find(taken) {
            flight.fail("its connection was lost before anything was settled", false, max_attempts);
            self.notes.has_dying |= flight.word.is_final();
        }
    }

    /// Flights that are to become dead letters, at most `most`.
    pub fn take_dying(&mut self, most: usize) -> Vec<Position> {
        if !core::mem::take(&mut self.notes.has_dying) {
            return Vec::new();
        }
        let dying = self.flights.iter().filter(|(_, flight)| flight.word.is_final());
        let dying: Vec<Position> = dying.map(|(position, _)| *position).take(most).collect();
        self.notes.has_dying = dying.len() == most;
        dying
    }

    /// After a restart: what had failed as often as it may, or was refused, ends. Refusals get
    /// numbers of dead letters behind `last`.
    pub fn recover_dying(&mut self, max_attempts: u32, last: &mut crate::types::ids::DeadLetterId) {
        let is_application = self.application().is_some();
        for flight in self.flights.values_mut().filter(|_| is_application) {
            if let Word::Reject(letter) = &mut flight.word {
                *last = last.next();
                *letter = *last;
            } else if flight.failed >= max_attempts {
                flight.word = Word::Exhausted { said: false };
            }
            self.notes.has_dying |= flight.word.is_final();
        }
        self.notes.has_unsent = self.flights.values().any(Flight::is_fresh);
    }
}
