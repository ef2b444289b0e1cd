//! Dead letters of a session, by the delivery that each of them was: so an ACK that comes late
//! finds its letter, also when that was replayed meanwhile (P12).
//!
//! What stays true: the last [`MAX_LETTERS`] letters are known, with the record of the session; of
//! those before it is known that they are not. Nothing here is a letter that has been purged, taken
//! back or replayed.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::log::dead_letter::{Letter, Said, name};
use crate::store::DeadReason;
use crate::types::ids::{DeadLetterId, Position};

/// Letters that a session knows by their deliveries, about 12 bytes each in its record.
const MAX_LETTERS: usize = 1024;
/// Replays that it remembers.
const MAX_REPLAYS: usize = 256;

/// The letters of a session.
#[derive(Debug, Default)]
pub struct Letters {
    known: BTreeMap<Position, Letter>,
    /// Some of the deliveries up to here may be letters that are not known.
    forgotten: Position,
    /// Each leads to where its delivery lies now, however often it was replayed.
    replays: VecDeque<LetterReplay>,
    /// Letters whose purge is not durable yet, and whether they were acknowledged since: where it
    /// fails they are letters again, or not.
    purged: BTreeMap<Position, (Letter, bool)>,
}

/// A letter that was handed over again as another delivery.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct LetterReplay {
    was: Position,
    is: Position,
    name: u64,
}

/// As they are stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct LettersRecord {
    known: Vec<LetterRecord>,
    forgotten: Position,
    replays: Vec<LetterReplay>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LetterRecord {
    position: Position,
    id: DeadLetterId,
    reason: u8,
    bytes: u64,
    name: u64,
    /// As in [`Said`], by number. Builds that knew of no last word wrote a `bool`: the same
    /// byte.
    said: u8,
}

impl Letters {
    /// A delivery has become a letter.
    pub fn add(&mut self, position: Position, letter: Letter) {
        self.known.insert(position, letter);
        if self.known.len() > MAX_LETTERS
            && let Some((first, _)) = self.known.pop_first()
        {
            self.forgotten = self.forgotten.max(first);
        }
    }

    /// The replay of a delivery as `is` has failed.
    pub fn forget_replay(&mut self, was: Position, is: Position) {
        self.replays.retain(|replay| replay.was != was);
        self.lead(is, was);
    }

    /// What was to come again there comes again elsewhere.
    fn lead(&mut self, there: Position, elsewhere: Position) {
        let replays = self.replays.iter_mut().filter(|replay| replay.is == there);
        replays.for_each(|replay| replay.is = elsewhere);
    }

    /// The letter with this number leaves.
    pub fn remove(&mut self, id: DeadLetterId) -> Option<(Position, Letter)> {
        let position = self.known.iter().find(|(_, letter)| letter.id == id)?.0;
        self.known.remove_entry(&position.clone())
    }

    /// A letter leaves that is purged, once that is durable.
    pub fn purge(&mut self, position: Position, letter: Letter) {
        self.purged.insert(position, (letter, false));
    }

    /// A delivery is acknowledged that is about to be purged.
    pub fn settle_purged(&mut self, delivery: Position) {
        if let Some((letter, is_settled)) = self.purged.get_mut(&delivery) {
            *is_settled |= !letter.is_refused();
        }
    }

    /// The purge of a letter is durable, or has failed: answers whether it was acknowledged
    /// meanwhile.
    pub fn end_purge(&mut self, position: Position) -> bool {
        self.purged.remove(&position).is_some_and(|(_, is_settled)| is_settled)
    }

    /// A letter leaves, and is handed over again as the delivery `is`.
    pub fn replayed(&mut self, was: Position, letter: &Letter, is: Position) {
        let before = self.place(was);
        self.lead(was, is);
        self.lead(before, is);
        // Where the session has begun again, the replay before this one may be to come.
        self.replays.push_back(LetterReplay { was: before, is, name: letter.name });
        if self.replays.len() > MAX_REPLAYS {
            self.replays.pop_front();
        }
    }

    /// Where a delivery lies now: elsewhere, if it was replayed.
    pub fn place(&self, delivery: Position) -> Position {
        let replay = self.replays.iter().find(|replay| replay.was == delivery);
        replay.map_or(delivery, |replay| replay.is)
    }

    /// Other deliveries of the same message: what this one is a replay of, and was replayed as.
    /// Where the session has begun again, it is handed each of them.
    pub fn kin(&self, delivery: Position) -> Vec<Position> {
        let last = self.place(delivery);
        let of_it = self.replays.iter().filter(|replay| replay.is == last);
        let mut kin: Vec<Position> = of_it.map(|replay| replay.was).collect();
        kin.push(last);
        kin.retain(|other| *other != delivery);
        kin
    }

    /// The letter that a delivery has become.
    pub fn of(&self, delivery: Position) -> Option<&Letter> {
        self.known.get(&delivery)
    }

    /// The application speaks of a delivery that is a letter, and not to acknowledge it: no
    /// cumulative word speaks of it from now on, and no other one takes it back if it is rejected.
    /// Answers whether that is news.
    pub fn note_said(&mut self, delivery: Position, said: Said) -> bool {
        let purged = self.purged.get_mut(&delivery).map(|(letter, _)| letter);
        let letters = self.known.get_mut(&delivery).into_iter().chain(purged);
        letters.fold(false, |is_news, letter| {
            let before = letter.said;
            letter.said = before.max(said);
            is_news || before < said
        })
    }

    /// The letter that a delivery has become: it leaves.
    pub fn take(&mut self, delivery: Position) -> Option<Letter> {
        self.known.remove(&delivery)
    }

    /// The delivery of this `messageId` that is a letter, or was replayed: one that is not refused
    /// goes before.
    pub fn named(&self, id: &str) -> Option<Position> {
        let name = name(id);
        let of_it = || self.known.iter().filter(|(_, letter)| letter.name == name);
        let open = of_it().find(|(_, letter)| !letter.is_refused()).or_else(|| of_it().next());
        let replayed = || self.replays.iter().rev().find(|replay| replay.name == name);
        let purged = || self.purged.iter().find(|(_, (letter, _))| letter.name == name);
        let purged = || purged().map(|(position, _)| *position);
        let open = open.map(|(position, _)| *position);
        open.or_else(|| replayed().map(|replay| replay.was)).or_else(purged)
    }

    /// The letters up to a delivery that its link had begun to carry before `last`, and that of the
    /// delivery itself, where they had no word of their own; also what is about to be purged.
    pub fn carried_before(&self, delivery: Position, last: Option<u64>) -> Vec<Position> {
        let before = |letter: &Letter| letter.carried().is_some_and(|at| Some(at) <= last);
        let purged = self.purged.range(..=delivery).map(|(at, (letter, _))| (at, letter));
        let letters = self.known.range(..=delivery).chain(purged);
        let open = letters.filter(|(position, letter)| {
            letter.is_open() && (**position == delivery || before(letter))
        });
        open.map(|(position, _)| *position).collect()
    }

    /// How many are known.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Whether this delivery may be one that is not known.
    pub fn may_have_forgotten(&self, delivery: Position) -> bool {
        delivery <= self.forgotten
    }

    /// There are letters that nothing is known of.
    pub fn forget_upto(&mut self, head: Position) {
        if self.forgotten == Position::default() {
            self.forgotten = head;
        }
    }

    /// The link is gone.
    pub fn disconnected(&mut self) {
        let purged = self.purged.values_mut().map(|(letter, _)| letter);
        self.known.values_mut().chain(purged).for_each(|letter| letter.carried = 0);
    }

    /// For the store; `None`: there is nothing to say.
    pub(super) fn record(&self) -> Option<LettersRecord> {
        let known = self.known.iter().map(|(position, letter)| LetterRecord {
            position: *position,
            id: letter.id,
            reason: DeadReason::ALL.iter().position(|it| *it == letter.reason).unwrap_or(0) as u8,
            bytes: letter.bytes,
            name: letter.name,
            said: letter.said as u8,
        });
        let (known, replays): (Vec<_>, Vec<_>) =
            (known.collect(), self.replays.iter().copied().collect());
        let is_empty = known.is_empty() && replays.is_empty();
        let forgotten = self.forgotten;
        (!is_empty || forgotten > Position::default()).then_some(LettersRecord {
            known,
            forgotten,
            replays,
        })
    }

    /// What was stored.
    pub(super) fn recover(record: LettersRecord) -> Self {
        let letter = |record: LetterRecord| {
            let LetterRecord { position, id, reason, bytes, name, said } = record;
            let reason = *DeadReason::ALL.get(usize::from(reason))?;
            let said = [Said::Nothing, Said::Retry].get(usize::from(said)).copied();
            let said = said.unwrap_or(Said::Reject);
            Some((position, Letter { id, reason, bytes, name, said, carried: 0 }))
        };
        let known = record.known.into_iter().filter_map(letter).collect();
        let mut letters = Self { known, forgotten: record.forgotten, ..Self::default() };
        for replay in record.replays {
            letters.lead(replay.was, replay.is);
            letters.replays.push_back(replay);
        }
        letters
    }
}
