//! Copies of what a session has been handed: of a message that came through several nodes of a
//! cluster group an application is handed one (P10).
//!
//! A copy that comes while the one before it is in flight waits with it. What stays true: whoever
//! acknowledges one has acknowledged all, and a flight that is given up because its copy replaced
//! it leaves the copy to be handed over. Of an event that had been forgotten when the session
//! began, it is handed the copy that comes later.

use crate::ids::Position;
use crate::store::Row;

use super::{Flight, Session};

/// What the session has had of a message of which a row is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Had {
    /// Nothing that it has acknowledged, or still may: it was handed one so often before.
    Nothing(u32),
    /// This flight is not acknowledged yet.
    Flight(Position),
    /// It is settled.
    All,
}

/// The session has not come to an event yet.
pub const NO_EVENT: Position = Position::new(u64::MAX);

impl Session {
    /// The session walks past an event. Events are forgotten in the order of the log, and none that
    /// lies ahead of a session: behind the first one it has come to all of them.
    pub fn came_to_event(&mut self, position: Position) {
        self.first_event = self.first_event.min(position);
    }

    /// What the session, an application's, has had of the message.
    pub fn had(&self, row: &Row) -> Had {
        let first = row.copy.and_then(|copy| copy.of);
        let is_state = row.message.kind().is_state();
        let forgotten = if is_state { Position::default() } else { self.first_event };
        let began = self.application().map(|application| application.from.max(forgotten));
        match (first, began) {
            (Some(first), Some(began)) if first >= began => {
                if self.flights.contains_key(&first) {
                    Had::Flight(first)
                } else {
                    let left_out = self.checked.left_out(first, row.position);
                    left_out.filter(|_| is_state).map_or(Had::All, Had::Nothing)
                }
            }
            _ => Had::Nothing(0),
        }
    }

    /// The row waits for the flight of which it is a copy.
    pub fn wait_for(&mut self, first: Position, position: Position, flight: Flight) {
        // If it is handed over after all, then not as something new.
        let handed = self.flights.get(&first).map_or(1, |first| first.handed.max(1));
        self.flights.insert(position, Flight { handed, copy_of: Some(first), ..flight });
        self.copies += 1;
    }

    /// Ends a flight, and those that are copies of it: what was handed over is acknowledged, or a
    /// dead letter.
    pub fn end_flight(&mut self, position: Position) -> Option<Flight> {
        let flight = self.flights.remove(&position)?;
        if flight.is_event && flight.handed > 0 {
            self.answered.push(position);
        }
        self.copies -= usize::from(flight.copy_of.is_some());
        while self.copies > 0
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
            self.ended.outdone(position, flight.id.clone());
        }
        self.copies -= usize::from(flight.copy_of.is_some());
        if self.copies > 0
            && let Some(copy) = self.copy_of(position)
        {
            // What was said of the message stays true.
            let (due, on_link, copy_of) = (None, false, None);
            self.flights.insert(copy, Flight { due, on_link, copy_of, ..flight.clone() });
            self.copies -= 1;
            self.fresh = true;
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
            self.checked.note_row(position, row.is_none().then_some(durable), handed);
        }
        flight
    }

    fn copy_of(&self, position: Position) -> Option<Position> {
        let mut later = self.flights.range(position.next()..);
        later.find(|(_, flight)| flight.copy_of == Some(position)).map(|(copy, _)| *copy)
    }
}
