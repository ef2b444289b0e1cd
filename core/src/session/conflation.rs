//! Conflation: of a stretch of the log a session is handed only the newest of each key and tag
//! set, and every event (P8).
//!
//! It is one more reason in [`Session::check_upto`]. What stays true: the stretch lies ahead of
//! what the session was handed when it began to lag, it ends where the log ended when it was last
//! found to lag, and each row of it that is passed over is counted once.

use crate::types::ids::Position;

use super::{Role, Session};

/// The stretch, and what was left out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conflation {
    /// It begins behind this row.
    pub(super) from: Position,
    /// It ends with this row; there is none while that lies behind the session's next row.
    pub(super) upto: Position,
    /// Values left out that no delivery has told of.
    pub untold: u64,
    /// Values left out since the start.
    pub total: u64,
}

impl Session {
    /// The session lags: what waits up to `durable`, the end of the log, is conflated. Answers
    /// whether this begins now.
    pub fn conflate(&mut self, durable: Position) -> bool {
        let checked = self.check_upto();
        if checked >= durable || self.next > durable {
            return false;
        }
        let begins = !self.is_conflating();
        if begins {
            self.walk.conflation.from = checked.max(self.next.before());
        }
        self.walk.conflation.upto = durable;
        begins
    }

    /// Whether it has not come to the end of a conflated stretch.
    pub fn is_conflating(&self) -> bool {
        self.walk.conflation.upto >= self.next
    }

    /// Whether it is an application that asked for it.
    pub fn wants_conflation(&self) -> bool {
        self.application().is_some_and(|application| application.conflate)
    }

    /// The conflated rows among those from the next one up to `upto`: the first and the last.
    pub fn conflated_upto(&self, upto: Position) -> Option<(Position, Position)> {
        let first = self.next.max(self.walk.conflation.from.next());
        let last = upto.min(self.walk.conflation.upto);
        (first <= last).then_some((first, last))
    }

    /// Of the rows up to `upto`, which are not counted again, so many values were left out.
    pub fn leave_out(&mut self, upto: Position, values: u64) {
        self.walk.conflation.from = self.walk.conflation.from.max(upto);
        self.walk.conflation.untold += values;
        self.walk.conflation.total += values;
    }

    /// Superseded state at or below this is nothing that it will be handed. What an application
    /// has in flight is handed over again only while it is the newest; a peer whose link is lost
    /// begins again behind its cursor.
    pub fn state_settled(&self) -> Position {
        let walked = match &self.role {
            Role::Peer(_) => self.cursor(),
            Role::Application(_) => self.next.before(),
        };
        walked.max(self.check_upto())
    }
}
