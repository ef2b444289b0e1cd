//! Copies of what a session has been handed: of a message that came through several nodes of a
//! cluster group an application is handed one (P10).
//!
//! A copy that comes while the one before it is in flight waits with it. What stays true: whoever
//! acknowledges one has acknowledged all, and a flight that is given up because its copy replaced
//! it leaves the copy to be handed over. Of an event that had been forgotten when the session
//! began, or was over before it could be handed to it, it is handed the copy that comes later.
//!
//! Events that are not over are forgotten in the order of the log, so the first one that a session
//! comes to tells which those are. Events that are over go before that. So the session knows when
//! it began, and the node when events ended ([`GroupCopies`]); of an event that was gone when the
//! node started that is not known, and it counts as over: that costs a second hand-over, which is
//! marked.

use crate::log::group_copies::GroupCopies;
use crate::store::Row;
use crate::types::ids::Position;
use crate::types::time::WallMs;

use super::{Flight, Session};

/// What the session has had of a message of which a row is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Nothing that it has acknowledged, or still may: it was handed one so often before.
    Nothing(u32),
    /// This flight is not acknowledged yet.
    Flight(Position),
    /// It is settled.
    All,
}

/// What an application came too late for: events that were forgotten or over when its session
/// began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beginning {
    /// The first event that it came to: those before it had been forgotten. [`Self::NO_EVENT`]: it
    /// has come to none; zero: not known.
    pub first_event: Position,
    /// Where the log ended then: events up to here ...
    pub head: Position,
    /// ... were over by this time of the node.
    pub time: WallMs,
}

impl Beginning {
    /// The session has not come to an event yet.
    pub const NO_EVENT: Position = Position::new(u64::MAX);

    /// It begins now, on a log that ends at `head`.
    pub fn at(head: Position, time: WallMs) -> Self {
        Self { first_event: Self::NO_EVENT, head, time }
    }

    /// Whether the event in this row was over when the session began.
    fn is_too_late_for(&self, event: Position, copies: &GroupCopies) -> bool {
        event <= self.head && copies.had_ended(event, self.time)
    }
}

impl Session {
    /// The session walks past an event. Events that are not over are forgotten in the order of the
    /// log, and none that lies ahead of a session: behind the first one it has come to all of them
    /// but those that were over by then.
    pub fn came_to_event(&mut self, position: Position) {
        self.walk.beginning.first_event = self.walk.beginning.first_event.min(position);
    }

    /// What the session, an application's, has had of the message.
    pub fn had(&self, row: &Row, copies: &GroupCopies) -> Delivered {
        let Some(first) = row.copy.and_then(|copy| copy.of) else { return Delivered::Nothing(0) };
        let Some(application) = self.application() else { return Delivered::Nothing(0) };
        if self.flights.contains_key(&first) {
            return Delivered::Flight(first);
        }
        if first < application.from {
            return Delivered::Nothing(0);
        }
        if row.message.kind().is_state() {
            let left_out = self.walk.checked.left_out(first, row.position);
            return left_out.map_or(Delivered::All, Delivered::Nothing);
        }
        let is_forgotten = first < self.walk.beginning.first_event;
        let is_missed = is_forgotten || self.walk.beginning.is_too_late_for(first, copies);
        if is_missed || self.walk.checked.missed(first) {
            Delivered::Nothing(0)
        } else {
            Delivered::All
        }
    }

    /// An event was over before it could be handed over: a copy of it may live.
    pub fn missed(&mut self, row: &Row) {
        if row.copy.is_some() && self.application().is_some() {
            self.walk.checked.note_row(row.position, None, 0);
        }
    }

    /// The row waits for the flight of which it is a copy.
    pub fn wait_for(&mut self, first: Position, position: Position, flight: Flight) {
        // If it is handed over after all, then not as something new.
        let handed = self.flights.get(&first).map_or(1, |first| first.handed.max(1));
        self.flights.insert(position, Flight { handed, copy_of: Some(first), ..flight });
        self.notes.copies += 1;
    }

    /// Ends a flight, and those that are copies of it: what was handed over is acknowledged, or a
    /// dead letter.
    pub fn end_flight(&mut self, position: Position) -> Option<Flight> {
        let flight = self.flights.remove(&position)?;
        if flight.is_event && flight.handed > 0 {
            self.notes.answered.push(position);
        }
        self.notes.copies -= usize::from(flight.copy_of.is_some());
        while self.notes.copies > 0
            && let Some(copy) = self.copy_of(position)
        {
            self.end_flight(copy);
        }
        Some(flight)
    }

    /// Ends a flight because something newer replaced it: a copy of it is handed over instead.
    pub fn give_up(&mut self, position: Position) -> Option<Flight> {
        let flight = self.flights.remove(&position)?;
        if flight.handed > 0 {
            self.notes.ended.outdone(position, flight.id.clone());
        }
        self.notes.copies -= usize::from(flight.copy_of.is_some());
        if self.notes.copies > 0
            && let Some(copy) = self.copy_of(position)
        {
            // What was said of the message stays true.
            let (due, on_link, copy_of) = (None, false, None);
            self.flights.insert(copy, Flight { due, on_link, copy_of, ..flight.clone() });
            self.notes.copies -= 1;
            self.notes.has_unsent = true;
        }
        Some(flight)
    }

    /// Ends a flight because something newer has replaced it, of which nothing but this `row` is
    /// known. What replaced it may lie ahead; what is gone has been replaced by now.
    pub fn outdo(
        &mut self,
        position: Position,
        row: Option<&Row>,
        durable: Position,
    ) -> Option<Flight> {
        let flight = self.give_up(position);
        let is_copy = row.is_none_or(|row| row.copy.is_some());
        if is_copy && self.application().is_some() {
            let handed = flight.as_ref().map_or(0, |flight| flight.handed);
            self.walk.checked.note_row(position, row.is_none().then_some(durable), handed);
        }
        flight
    }

    fn copy_of(&self, position: Position) -> Option<Position> {
        let mut later = self.flights.range(position.next()..);
        later.find(|(_, flight)| flight.copy_of == Some(position)).map(|(copy, _)| *copy)
    }
}
