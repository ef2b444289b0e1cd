//! What an application says of deliveries.
//!
//! What stays true: each delivery is settled by its own word, or by a cumulative one where it had
//! none; what is final stays final, and a second, different word about it is answered (P12).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::types::ids::{DeadLetterId, Position};
use crate::wire::application::AckMode;
use crate::wire::json::SettleTarget;

use crate::log::dead_letter::{Letter, Said};

use super::{Dirty, Flight, Session, Word};

/// Deliveries of each kind that a session remembers after their end.
const REMEMBERED: usize = 1024;

/// Why a word about a delivery has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// It was never handed out.
    #[error("no such delivery was handed to this session")]
    Never,
    /// Nothing is known of a delivery of this `messageId`.
    #[error("no delivery of this messageId is open, and none of the last {REMEMBERED} was")]
    Unknown,
    /// It is settled otherwise.
    #[error("this delivery is settled: what was said first counts")]
    Settled,
    /// It is a dead letter.
    #[error("this delivery is dead letter {0}: an operator may replay it")]
    Letter(DeadLetterId),
    /// It is one of the older dead letters, or settled.
    #[error("this delivery is settled, or an older dead letter: see slipstream dead-letters list")]
    Forgotten,
}

/// What a word has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Whether it has settled anything.
    pub settled: bool,
    /// Dead letters that it takes back.
    pub letters: Vec<(Position, Letter)>,
}

/// Deliveries that ended last, where that is not known from the log.
#[derive(Debug, Default)]
pub(super) struct EndedDeliveries {
    /// Ids of what was settled.
    ids: VecDeque<Box<str>>,
    /// What ended without a word, because something newer has taken its place.
    outdone: VecDeque<(Position, Option<Box<str>>)>,
    /// What was rejected and is no dead letter, because the session has no name.
    rejected: VecDeque<(Position, Option<Box<str>>)>,
}

impl EndedDeliveries {
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

    fn is_outdone(&self, target: &SettleTarget<'_>) -> bool {
        is_among(&self.outdone, target)
    }

    fn is_rejected(&self, target: &SettleTarget<'_>) -> bool {
        is_among(&self.rejected, target)
    }
}

fn is_among(ended: &VecDeque<(Position, Option<Box<str>>)>, target: &SettleTarget<'_>) -> bool {
    ended.iter().any(|(position, id)| match target {
        SettleTarget::Delivery(delivery) => position == delivery,
        SettleTarget::Id(named) => id.as_deref() == Some(named),
    })
}

impl Session {
    /// Ends a delivery, or what it was replayed as. Takes it back, if it is a dead letter that was
    /// not refused.
    pub fn acknowledge(&mut self, delivery: Position) -> Result<Settled, Unheard> {
        let place = self.place_of(delivery);
        let is_here = self.flights.contains_key(&place) || self.dead.letters.of(place).is_some();
        self.dead.letters.settle_purged(place);
        if !is_here && place == delivery && self.dead.letters.kin(place).is_empty() {
            return self.was_settled(place).map(|()| Settled::default());
        }
        // Elsewhere it may have been refused only where it is nowhere else any more.
        let kin = if is_here { Vec::new() } else { self.dead.letters.kin(place) };
        if let Some(letter) = [place].iter().chain(&kin).find_map(|it| self.refused_at(*it)) {
            return Err(refused(letter));
        }
        if is_here || place >= self.next || kin.iter().any(|it| self.dead.letters.of(*it).is_some())
        {
            return Ok(self.end_acknowledged(&[place], Dirty::Now));
        }
        self.was_settled(place).map(|()| Settled::default())
    }

    /// The dead letter that a refusal has made, or will make, of a delivery.
    fn refused_at(&self, delivery: Position) -> Option<DeadLetterId> {
        match (
            self.flights.get(&delivery).map(|flight| flight.word),
            self.dead.letters.of(delivery),
        ) {
            (Some(Word::Reject(letter)), _) => Some(letter),
            (None, Some(letter)) if letter.is_refused() => Some(letter.id),
            (Some(_), _) | (None, _) => None,
        }
    }

    /// Where a delivery lies: in flight, a dead letter, or where that was replayed to. It may be
    /// more than one of these where the session has begun again since.
    fn place_of(&self, delivery: Position) -> Position {
        let is_here =
            self.flights.contains_key(&delivery) || self.dead.letters.of(delivery).is_some();
        if is_here { delivery } else { self.dead.letters.place(delivery) }
    }

    /// Ends a delivery and those before it that had no word of their own.
    pub fn acknowledge_upto(&mut self, delivery: Position) -> Result<Settled, Unheard> {
        if !self.was_handed(delivery) {
            return Err(Unheard::Never);
        }
        let place = self.place_of(delivery);
        let is_replayed =
            place != delivery && !self.flights.get(&place).is_some_and(|it| it.word.is_said());
        let named = if is_replayed { self.acknowledge(delivery)? } else { Settled::default() };
        let flight = self.flights.get(&delivery).map(|flight| flight.carried);
        let last = flight.or_else(|| self.dead.letters.of(delivery)?.carried());
        let carried = self.carried_before(delivery, last);
        let letters = self.dead.letters.carried_before(delivery, last);
        let carried = [carried, letters].concat();
        let mut heard = self.end_acknowledged(&carried, Dirty::Now);
        heard.settled |= named.settled;
        heard.letters.extend(named.letters);
        Ok(heard)
    }

    /// Ends the oldest open delivery of this `messageId`; else takes its dead letter back.
    pub fn acknowledge_id(&mut self, id: &str) -> Result<Settled, Unheard> {
        if let Some(position) = self.open_of(id).or_else(|| self.dead.letters.named(id)) {
            let heard = self.acknowledge(position)?;
            if !heard.letters.is_empty() {
                self.notes.ended.settled(id.into());
            }
            return Ok(heard);
        }
        if self.may_come_again() {
            return Ok(Settled::default());
        }
        self.was_settled_by(&SettleTarget::Id(id.into())).map(|()| Settled::default())
    }

    /// Whether deliveries whose ids are not known may come again: after a restart, or since the
    /// session has begun again.
    fn may_come_again(&self) -> bool {
        let unknown =
            |flight: &Flight| flight.id.is_none() && flight.handed > 0 && flight.copy_of.is_none();
        self.next <= self.walk.redelivery_upto || self.flights.values().any(unknown)
    }

    /// The flight that a refusal speaks of. `None`: it is refused already, or ended without a word.
    /// A dead letter that it speaks of instead has had its own word from now on.
    pub fn refusable(
        &mut self,
        target: &SettleTarget<'_>,
        retry: bool,
    ) -> Result<Option<Position>, Unheard> {
        let position = match target {
            SettleTarget::Delivery(delivery) => Some(self.place_of(*delivery)),
            SettleTarget::Id(id) => {
                let letter = || self.dead.letters.named(id).map(|was| self.place_of(was));
                self.open_of(id).or_else(letter)
            }
        };
        let flight = position.and_then(|position| self.flights.get(&position));
        match flight.map(|flight| flight.word) {
            Some(Word::Reject(letter)) if retry => return Err(refused(letter)),
            Some(Word::Reject(_)) => return Ok(None),
            Some(Word::None | Word::Missed | Word::Retry | Word::Exhausted { .. }) => {
                return Ok(position);
            }
            None => {}
        }
        if let Some(position) = position {
            let said = if retry { Said::Retry } else { Said::Reject };
            if self.dead.letters.note_said(position, said) {
                self.touch(if retry { Dirty::Soon } else { Dirty::Now });
            }
        }
        if let Some(letter) = position.and_then(|position| self.dead.letters.of(position)) {
            return if retry { Err(Unheard::Letter(letter.id)) } else { Ok(None) };
        }
        let comes = |position| position >= self.next && !self.known.contains(&position);
        let is_ahead = position.is_some_and(comes);
        if (is_ahead && self.was_settled_by(target).is_ok()) || self.notes.ended.is_outdone(target)
        {
            // It was replayed, and comes anyway; or something newer has come.
            return Ok(None);
        }
        if position.is_none() && self.may_come_again() {
            return Ok(None);
        }
        if self.notes.ended.is_rejected(target) && !retry {
            return Ok(None);
        }
        self.was_settled_by(target).and(Err(Unheard::Settled))
    }

    /// Remembers that a delivery was rejected: without a name there is no dead letter to tell.
    pub fn note_rejected(&mut self, delivery: Position, id: Option<Box<str>>) {
        self.notes.ended.rejected.push_back((delivery, id));
        if self.notes.ended.rejected.len() > REMEMBERED {
            self.notes.ended.rejected.pop_front();
        }
    }

    /// Whether this delivery, which is not open, is settled.
    fn was_settled(&self, delivery: Position) -> Result<(), Unheard> {
        if !self.was_handed(delivery) {
            Err(Unheard::Never)
        } else if self.notes.ended.is_rejected(&SettleTarget::Delivery(delivery)) {
            Err(Unheard::Settled)
        } else if self.has_forgotten_letters() && self.dead.letters.may_have_forgotten(delivery) {
            Err(Unheard::Forgotten)
        } else {
            Ok(())
        }
    }

    fn was_settled_by(&self, target: &SettleTarget<'_>) -> Result<(), Unheard> {
        match target {
            SettleTarget::Delivery(delivery) => self.was_settled(*delivery),
            SettleTarget::Id(id) => {
                let is_known =
                    self.notes.ended.is_settled(id) || self.notes.ended.is_outdone(target);
                if is_known || self.is_automatic() || self.dead.letters.named(id).is_some() {
                    Ok(())
                } else if self.notes.ended.is_rejected(target) {
                    Err(Unheard::Settled)
                } else if self.has_forgotten_letters() {
                    Err(Unheard::Forgotten)
                } else {
                    Err(Unheard::Unknown)
                }
            }
        }
    }

    fn has_forgotten_letters(&self) -> bool {
        self.dead_count() > self.dead.letters.count() as u64
    }

    /// What a cumulative acknowledgement of `delivery` speaks of: what this link had begun to carry
    /// before it (`last`, if that is known) and had no word of its own. A flight that was lost with
    /// an earlier link, or is on its way again, is none of it: the application may never have seen
    /// it (P2).
    pub(super) fn carried_before(&self, delivery: Position, last: Option<u64>) -> Vec<Position> {
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
        delivery > Position::default() && delivery <= self.walk.handed_upto
    }

    pub(super) fn is_automatic(&self) -> bool {
        self.application().is_some_and(|application| application.ack == AckMode::Auto)
    }

    /// The oldest flight of this `messageId`: one that is not refused goes before.
    fn open_of(&self, id: &str) -> Option<Position> {
        let of_it = || self.flights.iter().filter(|(_, flight)| flight.id.as_deref() == Some(id));
        let open = of_it().find(|(_, flight)| !matches!(flight.word, Word::Reject(_)));
        open.or_else(|| of_it().next()).map(|(position, _)| *position)
    }

    /// Ends deliveries that are done with, and what else there is of the same messages: what they
    /// were replayed as, and the dead letters that they are, or had become before the session
    /// began again.
    pub fn end_acknowledged(&mut self, deliveries: &[Position], dirty: Dirty) -> Settled {
        let mut heard = Settled { settled: !deliveries.is_empty(), letters: Vec::new() };
        for delivery in deliveries {
            let kin = self.end_kin(*delivery);
            if let Some(id) = self.end_flight(*delivery).and_then(|flight| flight.id) {
                self.notes.ended.settled(id);
            } else if *delivery >= self.next {
                self.known.insert(*delivery);
            }
            for position in kin.into_iter().chain([*delivery]) {
                self.dead.letters.settle_purged(position);
                heard
                    .letters
                    .extend(self.dead.letters.take(position).map(|letter| (position, letter)));
            }
        }
        if heard.settled {
            self.touch(dirty);
        }
        heard
    }

    /// Ends the other deliveries of the same message, which has come to its end. Answers where they
    /// lie.
    pub fn end_kin(&mut self, delivery: Position) -> Vec<Position> {
        let kin = self.dead.letters.kin(delivery);
        for position in &kin {
            if *position >= self.next {
                self.known.insert(*position);
            }
            self.end_flight(*position);
        }
        kin
    }
}

/// Where there is no letter, because the session has no name, the end is all.
fn refused(letter: DeadLetterId) -> Unheard {
    if letter == DeadLetterId::default() { Unheard::Settled } else { Unheard::Letter(letter) }
}
