//! What an application says of deliveries.
//!
//! What stays true: each delivery is settled by its own word, or by a cumulative one where it had
//! none; what is final stays final, and a second, different word about it is answered (P12).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::application::AckMode;
use crate::ids::{DeadLetterId, Position};
use crate::json::Target;

use super::{Dirty, Flight, Session, Word};

/// Deliveries of each kind that a session remembers after their end.
const REMEMBERED: usize = 1024;

/// Why a word about a delivery has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// It was never handed out.
    #[error("no such delivery was handed to this session")]
    Never,
    /// It is settled otherwise.
    #[error("this delivery is settled: what was said first counts")]
    Settled,
    /// It was refused, and is a dead letter.
    #[error("this delivery is dead letter {0}: an operator may replay it")]
    Letter(DeadLetterId),
}

/// Deliveries that ended last, where that is not known from the log.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Ids of what was settled.
    ids: VecDeque<Box<str>>,
    /// What ended without a word, because something newer has taken its place.
    outdone: VecDeque<(Position, Option<Box<str>>)>,
}

impl Ended {
    fn settled(&mut self, id: Box<str>) {
        self.ids.push_back(id);
        if self.ids.len() > REMEMBERED {
            self.ids.pop_front();
        }
    }

    /// A flight ended for something newer.
    pub(super) fn outdone(&mut self, position: Position, id: Option<Box<str>>) {
        self.outdone.push_back((position, id));
        if self.outdone.len() > REMEMBERED {
            self.outdone.pop_front();
        }
    }

    fn is_settled(&self, id: &str) -> bool {
        self.ids.iter().any(|settled| **settled == *id)
    }

    fn is_outdone(&self, target: &Target<'_>) -> bool {
        self.outdone.iter().any(|(position, id)| match target {
            Target::Delivery(delivery) => position == delivery,
            Target::Id(named) => id.as_deref() == Some(named),
        })
    }
}

impl Session {
    /// Ends a delivery. Answers whether it was still open.
    pub fn acknowledge(&mut self, delivery: Position) -> Result<bool, Unheard> {
        match self.flights.get(&delivery) {
            Some(Flight { word: Word::Reject(letter), .. }) => Err(refused(*letter)),
            Some(_) => {
                self.end_acknowledged(delivery);
                Ok(true)
            }
            None if self.was_handed(delivery) => Ok(false),
            None => Err(Unheard::Never),
        }
    }

    /// Ends a delivery and those before it that had no word of their own. Answers whether any was
    /// still open.
    pub fn acknowledge_upto(&mut self, delivery: Position) -> Result<bool, Unheard> {
        if !self.was_handed(delivery) {
            return Err(Unheard::Never);
        }
        let carried = self.carried_before(delivery);
        for position in &carried {
            self.end_acknowledged(*position);
        }
        Ok(!carried.is_empty())
    }

    /// Ends the oldest open delivery of this `messageId`. Answers whether there was one.
    pub fn acknowledge_id(&mut self, id: &str) -> Result<bool, Unheard> {
        if let Some(position) = self.open_of(id) {
            return self.acknowledge(position);
        }
        let named = Target::Id(id.into());
        if self.is_automatic() || self.ended.is_settled(id) || self.ended.is_outdone(&named) {
            return Ok(false);
        }
        Err(Unheard::Never)
    }

    /// The flight that a refusal speaks of. `None`: it is refused already, or ended without a word.
    pub fn refusable(&self, target: &Target<'_>, retry: bool) -> Result<Option<Position>, Unheard> {
        let position = match target {
            Target::Delivery(delivery) => Some(*delivery),
            Target::Id(id) => self.open_of(id),
        };
        let flight = position.and_then(|position| self.flights.get(&position));
        match flight.map(|flight| flight.word) {
            Some(Word::Reject(letter)) if retry => Err(refused(letter)),
            Some(Word::Reject(_)) => Ok(None),
            Some(Word::Exhausted { .. }) => Ok(position.filter(|_| !retry)),
            Some(Word::None | Word::Missed | Word::Retry) => Ok(position),
            None if self.ended.is_outdone(target) => Ok(None),
            None => {
                let was_handed = match target {
                    Target::Delivery(delivery) => self.was_handed(*delivery),
                    Target::Id(id) => self.is_automatic() || self.ended.is_settled(id),
                };
                Err(if was_handed { Unheard::Settled } else { Unheard::Never })
            }
        }
    }

    /// What a cumulative acknowledgement of `delivery` speaks of: what this link had begun to carry
    /// before it and had no word of its own. A flight that was lost with an earlier link, or is on
    /// its way again, is none of it: the application may never have seen it (P2).
    pub(super) fn carried_before(&self, delivery: Position) -> Vec<Position> {
        let last = self.flights.get(&delivery).map(|flight| flight.carried);
        let before = |flight: &Flight| match last {
            Some(last) => flight.carried <= last,
            // It is settled already. First hand-overs go in the order of the log.
            None => flight.handed == 1,
        };
        let open = |flight: &Flight| flight.on_link && !flight.word.is_said();
        let flights = self.flights.range(..=delivery);
        let carried = flights.filter(|(_, flight)| open(flight) && before(flight));
        carried.map(|(position, _)| *position).collect()
    }

    /// Whether the delivery was ever handed out, as far as that is known.
    fn was_handed(&self, delivery: Position) -> bool {
        delivery > Position::default() && delivery <= self.handed_upto
    }

    fn is_automatic(&self) -> bool {
        self.application().is_some_and(|application| application.ack == AckMode::Auto)
    }

    /// The oldest flight of this `messageId`: one that is not refused goes before.
    fn open_of(&self, id: &str) -> Option<Position> {
        let of_it = || self.flights.iter().filter(|(_, flight)| flight.id.as_deref() == Some(id));
        let open = of_it().find(|(_, flight)| !matches!(flight.word, Word::Reject(_)));
        open.or_else(|| of_it().next()).map(|(position, _)| *position)
    }

    fn end_acknowledged(&mut self, position: Position) {
        if let Some(id) = self.end_flight(position).and_then(|flight| flight.id) {
            self.ended.settled(id);
        }
        self.touch(Dirty::Now);
    }
}

/// Where there is no letter, because the session has no name, the end is all.
fn refused(letter: DeadLetterId) -> Unheard {
    if letter == DeadLetterId::default() { Unheard::Settled } else { Unheard::Letter(letter) }
}
