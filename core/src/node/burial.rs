//! Messages become dead letters.
//!
//! What is refused, or has failed as often as it may, needs neither a link nor the rate of repeats:
//! the store is asked for it at once. What stays true: a flight that is to be a dead letter ends in
//! the batch that brings the letter.

use alloc::vec::Vec;

use crate::event::Event;
use crate::ids::{Position, SessionId};
use crate::io::Output;
use crate::session::{Dirty, Word};
use crate::store::{DeadLetter, DeadReason, Query, StoredRow};

use super::fetched::MAX_FETCHES;
use super::handover::Death;
use super::{Node, Purpose};

/// Messages that the store is asked for at once.
const BURIED_AT_ONCE: usize = 256;

impl Node {
    /// Asks the store for what is to be dead letters, as far as it may be asked.
    pub(super) fn ask_burials(&mut self) {
        while self.session_fetches() < MAX_FETCHES
            && let Some(id) = self.burials.pop_first()
        {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.is_burying {
                continue;
            }
            let positions = session.take_dying(BURIED_AT_ONCE);
            if positions.is_empty() {
                continue;
            }
            session.is_burying = true;
            let tags = session.tags(&self.config.tags).cloned();
            let query = Query::RowsAt { positions: positions.clone(), tags };
            self.fetch(Purpose::Bury(id, positions), query);
        }
    }

    /// The store has found what is to be dead letters.
    pub(super) fn burial_fetched(
        &mut self,
        id: SessionId,
        asked: &[Position],
        rows: Vec<StoredRow>,
    ) {
        let durable = self.log.durable();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.is_burying = false;
        let mut rows = rows.into_iter().peekable();
        let mut deaths = Vec::new();
        for position in asked {
            let found = rows.next_if(|stored| stored.row.position == *position);
            let reason = match session.flights.get(position).map(|flight| flight.word) {
                Some(Word::Reject(_)) => DeadReason::Rejected,
                Some(Word::Exhausted { .. }) => DeadReason::Unacknowledged,
                Some(Word::None | Word::Missed | Word::Retry) | None => continue,
            };
            let row = found.as_ref().map(|stored| &stored.row);
            // What is not the newest any more has nothing left to be handed over for.
            let is_outdone = found.as_ref().is_none_or(|stored| stored.superseded);
            if is_outdone && reason != DeadReason::Rejected {
                session.outdo(*position, row, durable);
                self.tally.superseded += 1;
                continue;
            }
            let Some(flight) = session.end_flight(*position) else { continue };
            match found {
                Some(StoredRow { row, .. }) if session.is_durable() => {
                    deaths.push(Death { message: row.message, reason, flight });
                }
                Some(_) => {}
                None => self.tally.superseded += 1,
            }
        }
        session.touch(Dirty::Now);
        if session.has_dying {
            self.burials.insert(id);
        }
        self.ready.insert(id);
        self.arrange_write(id);
        self.note_delivered(id);
        self.bury(id, deaths);
    }

    /// Writes down what will not be handed over again.
    pub(super) fn bury(&mut self, owner: SessionId, deaths: Vec<Death>) {
        if deaths.is_empty() {
            return;
        }
        for Death { message, reason, flight } in deaths {
            let session = self.name_of(owner);
            let Some(dead) = self.dead_of(owner) else { return };
            let counts = dead.entry(reason).or_default();
            counts.0 += 1;
            counts.1 += (message.encoded().len() + 64) as u64;
            let named = message.id().into();
            let event = Event::DeadLetter { session, message: named, reason: reason.as_str() };
            self.out.push_back(Output::Event(event));
            let said = || reason.describe().into();
            let (first_error, last_error) = flight.errors.unwrap_or_else(|| (said(), said()));
            let id = match flight.word {
                Word::Reject(letter) => letter,
                Word::None | Word::Missed | Word::Retry | Word::Exhausted { .. } => {
                    self.last_dead_letter = self.last_dead_letter.next();
                    self.last_dead_letter
                }
            };
            self.log.growing.dead_letters.push(DeadLetter {
                id,
                session: owner,
                reason,
                attempts: flight.handed,
                first_error,
                last_error,
                first_at: flight.first_at,
                died_at: self.now.wall,
                message,
            });
        }
        self.touch(owner, Dirty::Now);
    }
}
