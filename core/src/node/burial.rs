//! Messages become dead letters.
//!
//! What is refused, or has failed as often as it may, needs neither a link nor the rate of repeats:
//! the store is asked for it at once. What stays true: a flight that is to be a dead letter ends in
//! the batch that brings the letter.

use alloc::vec::Vec;

use crate::admin::event::Event;
use crate::io::Output;
use crate::log::dead_letter::{Leaving, Letter};
use crate::session::{Dirty, Flight, Settled, Word};
use crate::store::{DeadLetter, DeadReason, Query, StoredRow};
use crate::types::ids::{DeadLetterId, Position, SessionId};
use crate::wire::message::Message;

use super::handlers::{Burial, Fetches, Records, lend};
use super::queries::Purpose;

/// Messages that the store is asked for at once.
const BURIED_AT_ONCE: usize = 256;

impl Fetches<'_> {
    /// Asks the store for what is to be dead letters, as far as it may be asked.
    pub(super) fn ask_burials(&mut self) {
        while self.queries.may_ask_for_session()
            && let Some(id) = self.sessions.to_bury.pop_first()
        {
            let Some(session) = self.sessions.table.get_mut(&id) else { continue };
            if session.notes.is_burying {
                continue;
            }
            let positions = session.take_dying(BURIED_AT_ONCE);
            if positions.is_empty() {
                continue;
            }
            session.notes.is_burying = true;
            let tags = session.tags(&self.config.tags).cloned();
            let timely = self.time.clock.timely();
            let query = Query::RowsAt { positions: positions.clone(), tags, timely };
            self.queries.ask(self.out, Purpose::Bury(id, positions), query);
        }
    }
}

impl Burial<'_> {
    /// The store has found what is to be dead letters.
    pub(super) fn burial_fetched(
        &mut self,
        id: SessionId,
        asked: &[Position],
        rows: Vec<StoredRow>,
    ) {
        let durable = self.log.tail.durable();
        let Some(session) = self.sessions.table.get_mut(&id) else { return };
        session.notes.is_burying = false;
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
                self.out.metrics.superseded += 1;
                continue;
            }
            let Some(flight) = session.end_flight(*position) else { continue };
            match found {
                Some(StoredRow { row, .. }) if session.is_durable() => {
                    deaths.push(DeadLetterDraft {
                        position: *position,
                        message: row.message,
                        reason,
                        flight,
                    });
                }
                Some(_) if reason == DeadReason::Rejected => {
                    session.note_rejected(*position, flight.id);
                }
                Some(_) => {}
                None => self.out.metrics.superseded += 1,
            }
        }
        session.touch(Dirty::Now);
        if session.notes.has_dying {
            self.sessions.to_bury.insert(id);
        }
        self.sessions.ready.insert(id);
        lend!(self, Records).arrange_write(id);
        self.note_delivered(id);
        self.dead_letter(id, deaths);
    }

    /// An acknowledgement came late: its dead letters are none any more. Answers whether it has
    /// settled anything.
    pub(super) fn take_back(&mut self, owner: SessionId, heard: Settled) -> bool {
        for (_, letter) in heard.letters {
            self.told_taken_back(owner, letter.id);
            self.leave_for_good(owner, letter);
        }
        heard.settled
    }

    /// A dead letter leaves with the growing batch.
    pub(super) fn leave(&mut self, leaving: Leaving) {
        if let Some(dead) = self.dead_of(leaving.session) {
            let counts = dead.entry(leaving.reason).or_default();
            counts.0 = counts.0.saturating_sub(1);
            counts.1 = counts.1.saturating_sub(leaving.bytes);
            self.sessions.ready.insert(leaving.session);
        }
        self.leave_again(leaving);
        self.log.commit_wanted = true;
    }

    fn leave_for_good(&mut self, session: SessionId, letter: Letter) {
        let Letter { id, reason, bytes, .. } = letter;
        let (kept, replay) = (None, None);
        self.leave(Leaving { id, session, reason, bytes, kept, replay, stands: true });
    }

    fn leave_again(&mut self, leaving: Leaving) {
        let purged = leaving.kept.as_ref().filter(|_| leaving.replay.is_none());
        let purged = purged.map(|(position, _)| (leaving.session, *position));
        self.sessions.dead_letters_in_flight.insert(leaving.id, purged);
        self.log.tail.growing.dead_letters_gone.push(leaving.id);
        self.log.tail.marks.letters.push(leaving);
    }

    /// A batch was rolled back with which dead letters were to leave. What an operator has ordered
    /// is refused, what an application has acknowledged stands.
    pub(super) fn stay(&mut self, letters: Vec<Leaving>) {
        for letter in letters {
            if letter.stands || self.was_settled_meanwhile(&letter) {
                let (kept, replay) = (None, None);
                self.leave_again(Leaving { kept, replay, stands: true, ..letter });
                continue;
            }
            self.sessions.dead_letters_in_flight.remove(&letter.id);
            if let Some(dead) = self.dead_of(letter.session) {
                let counts = dead.entry(letter.reason).or_default();
                counts.0 += 1;
                counts.1 += letter.bytes;
            }
            let session = self.sessions.table.get_mut(&letter.session);
            if let (Some(session), Some((position, letter))) = (session, letter.kept) {
                session.dead.letters.add(position, letter);
            }
        }
    }

    /// Whether an application has acknowledged a letter while its replay or purge, which has failed
    /// now, was under way: then that takes it back. So does a later letter of the same delivery.
    fn was_settled_meanwhile(&mut self, leaving: &Leaving) -> bool {
        let Some(session) = self.sessions.table.get_mut(&leaving.session) else { return false };
        let Some((was, _)) = &leaving.kept else { return false };
        let settled = match leaving.replay {
            Some(replay) => {
                session.dead.letters.forget_replay(*was, replay);
                session.known.contains(&replay)
            }
            None => session.dead.letters.end_purge(*was),
        };
        if session.dead.letters.of(*was).is_some() {
            return true;
        }
        if settled {
            self.told_taken_back(leaving.session, leaving.id);
        }
        settled
    }

    fn told_taken_back(&mut self, owner: SessionId, letter: DeadLetterId) {
        let session = self.sessions.name_of(owner);
        self.out.metrics.taken_back(&session);
        self.out.event(Event::DeadLetterTakenBack { session, letter });
    }

    /// Writes down what will not be handed over again.
    pub(super) fn dead_letter(&mut self, owner: SessionId, deaths: Vec<DeadLetterDraft>) {
        if deaths.is_empty() {
            return;
        }
        for DeadLetterDraft { position, message, reason, flight } in deaths {
            // Where the session has begun again, the message may be a letter already. That one
            // tells more of an event whose time is over by now; else the new one takes its place.
            let former = self.former_letters(owner, position, reason == DeadReason::Expired);
            if reason == DeadReason::Expired && !former.is_empty() {
                continue;
            }
            former.into_iter().for_each(|letter| self.leave_for_good(owner, letter));
            let session = self.sessions.name_of(owner);
            let Some(dead) = self.dead_of(owner) else { return };
            let counts = dead.entry(reason).or_default();
            counts.0 += 1;
            counts.1 += (message.encoded().len() + 64) as u64;
            let named = message.id().into();
            let event = Event::DeadLetter { session, message: named, reason: reason.as_str() };
            self.out.push(Output::Event(event));
            let letter = self.letter_id(&flight);
            let known = flight.letter(letter, reason, &message);
            if let Some(session) = self.sessions.table.get_mut(&owner) {
                session.dead.letters.add(position, known);
            }
            let said = || reason.describe().into();
            let (first_error, last_error) = flight.errors.unwrap_or_else(|| (said(), said()));
            self.log.tail.growing.dead_letters.push(DeadLetter {
                id: letter,
                session: owner,
                reason,
                attempts: flight.handed,
                first_error,
                last_error,
                first_at: flight.first_at,
                died_at: self.time.now.wall,
                message,
            });
        }
        lend!(self, Records).touch(owner, Dirty::Now);
    }

    /// The letters that a message is already; they are taken unless they are `kept`.
    fn former_letters(&mut self, owner: SessionId, position: Position, kept: bool) -> Vec<Letter> {
        let Some(session) = self.sessions.table.get_mut(&owner) else { return Vec::new() };
        let all = session.dead.letters.kin(position).into_iter().chain([position]);
        let letter = |position| match kept {
            true => session.dead.letters.of(position).cloned(),
            false => session.dead.letters.take(position),
        };
        all.filter_map(letter).collect()
    }

    /// The number of a new dead letter: what was refused has got one already.
    fn letter_id(&mut self, flight: &Flight) -> DeadLetterId {
        match flight.word {
            Word::Reject(letter) => letter,
            Word::None | Word::Missed | Word::Retry | Word::Exhausted { .. } => {
                self.sessions.last_dead_letter = self.sessions.last_dead_letter.next();
                self.sessions.last_dead_letter
            }
        }
    }
}

/// A message that its session will not be handed again.
#[derive(Debug)]
pub(super) struct DeadLetterDraft {
    pub(super) position: Position,
    pub(super) message: Message,
    pub(super) reason: DeadReason,
    pub(super) flight: Flight,
}
