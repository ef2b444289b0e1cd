//! Where the log ended at each start of this node.
//!
//! While a store is what it was its log only grows. So a start that found less than an earlier one
//! had told a peer of found an older copy (P2), however much was written since; and a start that a
//! peer was told by, and this store knows nothing of, was one of another copy. What stays true: the
//! last [`MAX_STARTS`] are known, and none tells anybody anything before it is durable here.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::types::ids::{Incarnation, Position};
use crate::types::time::WallMs;
use crate::wire::Ack;
use crate::wire::message::Message;

/// Starts that are remembered.
const MAX_STARTS: usize = 64;

/// What a life of the store that was lost may have handed over.
#[derive(Debug, Clone, Copy)]
pub struct LostLife<'a> {
    /// What was made until then; 0: no life was lost.
    upto: WallMs,
    /// The starts since then: what those published themselves is new.
    since: &'a [(Incarnation, Position)],
}

impl LostLife<'_> {
    /// Whether it may have handed over this message (P3).
    pub fn may_have_handed(&self, message: &Message) -> bool {
        let is_by = |(start, _): &(Incarnation, Position)| *start == message.incarnation();
        message.version().wall() <= self.upto && !self.since.iter().any(is_by)
    }
}

/// That a life of the store was lost, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Loss {
    /// What was made up to this time may have been handed over.
    upto: WallMs,
    /// The first start after it.
    since: Incarnation,
}

/// The starts of this node, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochHistory {
    known: Vec<(Incarnation, Position)>,
    /// From this one on all are known.
    since: Option<Incarnation>,
    /// The last life of the store that was lost.
    loss: Option<Loss>,
}

/// What is to be thought of what a peer says that it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochVerdict {
    /// This store has all that it speaks of.
    Known,
    /// A later start found less: the least that any found, and the first that did.
    More(Position, Incarnation),
    /// It was told by a start of another copy of this store.
    ByAnother,
}

impl EpochVerdict {
    /// Where the log that is durable up to `durable` is said to end.
    pub fn said(self, durable: Position) -> Position {
        match self {
            Self::Known => durable,
            Self::More(holds, _) => holds,
            Self::ByAnother => Ack::OF_ANOTHER_COPY,
        }
    }
}

impl EpochHistory {
    /// What was stored, and what follows in the record.
    pub fn recover(record: &[u8]) -> (Self, &[u8]) {
        let Ok((known, rest)) = postcard::take_from_bytes(record) else {
            return (Self::default(), &[]);
        };
        match postcard::take_from_bytes(rest) {
            Ok((since, rest)) => (Self { known, since: Some(since), ..Self::default() }, rest),
            Err(_) => (Self { known, ..Self::default() }, &[]),
        }
    }

    /// Adds what is stored of them to `record`.
    pub fn append_to(&self, record: Vec<u8>) -> Vec<u8> {
        let encoded = "a record can be encoded";
        let record = postcard::to_extend(&self.known, record).expect(encoded);
        match self.since {
            Some(since) => postcard::to_extend(&since, record).expect(encoded),
            None => record,
        }
    }

    /// Adds to `record` that a life of the store was lost, or, where more follows, that none was.
    pub fn append_loss_to(&self, record: Vec<u8>, more_follows: bool) -> Vec<u8> {
        let none = Loss { upto: WallMs(0), since: Incarnation::default() };
        match self.loss.or(more_follows.then_some(none)) {
            Some(loss) => postcard::to_extend(&loss, record).expect("a record can be encoded"),
            None => record,
        }
    }

    /// Takes in what was stored of that; an older record says nothing. Answers what follows.
    pub fn recover_loss<'a>(&mut self, record: &'a [u8]) -> &'a [u8] {
        let (loss, rest): (Option<Loss>, _) = match postcard::take_from_bytes(record) {
            Ok((loss, rest)) => (Some(loss), rest),
            Err(_) => (None, &[][..]),
        };
        self.loss = loss.filter(|loss| loss.upto > WallMs(0));
        rest
    }

    /// This store turned out to be an older copy, or another one, that the start `since` was the
    /// first to find: what was made up to this time may have been handed over before. Answers
    /// whether that was not known.
    pub fn note_loss(&mut self, since: Incarnation, upto: WallMs) -> bool {
        let is_known = self.loss.is_some_and(|loss| since <= loss.since);
        if !is_known {
            self.loss = Some(Loss { upto, since });
        }
        !is_known
    }

    /// Forgets a loss before this time: who had been handed anything by then has come back, or its
    /// session would have ended.
    pub fn forget_loss(&mut self, before: WallMs) {
        self.loss = self.loss.filter(|loss| loss.upto > before);
    }

    /// What a lost life of this store may have handed over.
    pub fn lost_life(&self) -> LostLife<'_> {
        let Some(Loss { upto, since }) = self.loss else {
            return LostLife { upto: WallMs(0), since: &[] };
        };
        let first = self.known.partition_point(|(start, _)| *start < since);
        LostLife { upto, since: &self.known[first..] }
    }

    /// The node starts, on a log that ends at `head`.
    pub fn begin(&mut self, incarnation: Incarnation, head: Position) {
        self.known.push((incarnation, head));
        let since = self.since.get_or_insert(incarnation);
        if self.known.len() > MAX_STARTS {
            self.known.remove(0);
            *since = self.known.first().map_or(incarnation, |(first, _)| *first).max(*since);
        }
    }

    /// Whether a start was one of this store, as far as is known: what lies too far back counts.
    pub fn knows(&self, start: Incarnation) -> bool {
        self.since.is_none_or(|since| start < since)
            || self.known.iter().any(|(known, _)| *known == start)
    }

    /// Somebody was told by the start `by` of a log up to `told`.
    pub fn judge(&self, told: Position, by: Incarnation) -> EpochVerdict {
        let is_known = told == Position::default() || self.knows(by);
        let less = self.known.iter().filter(|(start, head)| *start > by && *head < told);
        let least = less.clone().map(|(_, head)| *head).min();
        match least.zip(less.map(|(start, _)| *start).min()) {
            Some((head, first)) => EpochVerdict::More(head, first),
            None if is_known => EpochVerdict::Known,
            None => EpochVerdict::ByAnother,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(known: &[(u64, u64)]) -> EpochHistory {
        let mut starts = EpochHistory::default();
        for (incarnation, head) in known {
            starts.begin(Incarnation::new(*incarnation), Position::new(*head));
        }
        starts
    }

    fn judge(starts: &EpochHistory, told: u64, by: u64) -> EpochVerdict {
        starts.judge(Position::new(told), Incarnation::new(by))
    }

    fn more(position: u64, first: u64) -> EpochVerdict {
        EpochVerdict::More(Position::new(position), Incarnation::new(first))
    }

    // keeps: rollback-noticed
    #[test]
    fn a_start_that_finds_less_than_was_told_has_an_older_copy() {
        let sound = history(&[(1, 0), (2, 100), (3, 500)]);
        assert_eq!(judge(&sound, 100, 1), EpochVerdict::Known);
        assert_eq!(judge(&sound, 500, 2), EpochVerdict::Known);
        assert_eq!(judge(&sound, 900, 3), EpochVerdict::Known, "by this start itself");
        // The copy was made when the log ended at 150, and grew to 900 before the start 5.
        let copy = history(&[(1, 0), (2, 100), (4, 150), (5, 900)]);
        assert_eq!(judge(&copy, 500, 2), more(150, 4));
        assert_eq!(judge(&copy, 500, 3), more(150, 4), "also by a start that it knows nothing of");
        assert_eq!(judge(&copy, 150, 2), EpochVerdict::Known);
        assert_eq!(judge(&copy, 800, 4), EpochVerdict::Known);
    }

    // keeps: twins
    #[test]
    fn who_was_told_by_an_unknown_start_was_told_by_another_copy() {
        let twin = history(&[(1, 0), (2, 100), (4, 100)]);
        assert_eq!(judge(&twin, 100, 3), EpochVerdict::ByAnother, "whatever its length");
        assert_eq!(judge(&twin, 1, 5), EpochVerdict::ByAnother);
        assert_eq!(judge(&twin, 0, 5), EpochVerdict::Known, "nothing was told");
        assert!(!twin.knows(Incarnation::new(3)) && twin.knows(Incarnation::new(2)));
    }

    #[test]
    fn starts_are_bounded_and_older_ones_judged_by_length() {
        let all: Vec<_> = (1..1000).map(|start| (start * 2, start)).collect();
        let known = history(&all);
        assert_eq!(known.known.len(), MAX_STARTS);
        assert_eq!(EpochHistory::recover(&known.append_to(Vec::new())).0, known);
        assert_eq!(EpochHistory::recover(&[]).0, EpochHistory::default());
        assert!(!known.knows(Incarnation::new(1999)) && known.knows(Incarnation::new(7)));
        let first = 1000 - MAX_STARTS as u64;
        assert_eq!(judge(&known, 2000, 7), more(first, 2 * first));
        assert_eq!(judge(&known, 1, 7), EpochVerdict::Known);
    }

    // keeps: false-twins
    #[test]
    fn a_copy_that_another_spoke_for_is_told_from_an_older_one() {
        let heard = |told: EpochVerdict| {
            let position = told.said(Position::new(70));
            Ack { upto: 0, position, wall: WallMs(0) }.log_end()
        };
        assert_eq!(heard(EpochVerdict::Known), (Position::new(70), false));
        for holds in [0, 1, 40] {
            assert_eq!(heard(more(holds, 3)), (Position::new(holds), false));
        }
        assert_eq!(heard(EpochVerdict::ByAnother), (Position::default(), true));
    }

    // keeps: lost-life
    #[test]
    fn a_loss_is_known_until_those_who_had_it_have_come_back() {
        let mut known = history(&[(1, 0), (2, 100), (5, 40)]);
        assert!(known.note_loss(Incarnation::new(5), WallMs(7000)));
        known.begin(Incarnation::new(9), Position::new(60));
        assert!(!known.note_loss(Incarnation::new(5), WallMs(9000)), "of another peer");
        let mut recovered = history(&[(1, 0), (2, 100), (5, 40), (9, 60)]);
        recovered.recover_loss(&known.append_loss_to(Vec::new(), false));
        assert_eq!(recovered, known);
        let lost = recovered.lost_life();
        assert_eq!((lost.upto, lost.since.len()), (WallMs(7000), 2));
        let record = recovered.append_loss_to(Vec::new(), false);
        assert_eq!(recovered.append_loss_to(Vec::new(), true), record, "it is there anyway");
        recovered.recover_loss(&[]);
        assert_eq!(recovered.lost_life().upto, WallMs(0), "an older record");
        assert!(recovered.append_loss_to(Vec::new(), false).is_empty());
        let mut followed = recovered.append_loss_to(Vec::new(), true);
        followed.push(7);
        assert_eq!(recovered.recover_loss(&followed), [7]);
        assert_eq!(recovered.lost_life().upto, WallMs(0), "none was lost");
        known.forget_loss(WallMs(6999));
        assert!(known.note_loss(Incarnation::new(9), WallMs(9000)), "a later one");
        assert_eq!(known.lost_life().since.len(), 1);
        known.forget_loss(WallMs(9000));
        assert_eq!(known.lost_life().upto, WallMs(0));
    }

    // keeps: old-stores-open, twins
    #[test]
    fn a_record_that_left_starts_out_says_nothing_of_those() {
        let before =
            [(Incarnation::new(1), Position::new(0)), (Incarnation::new(4), Position::new(9))];
        let record = postcard::to_allocvec(&before.to_vec()).expect("a record");
        let (mut known, _) = EpochHistory::recover(&record);
        known.begin(Incarnation::new(6), Position::new(9));
        assert_eq!(judge(&known, 9, 3), EpochVerdict::Known);
        assert_eq!(judge(&known, 9, 7), EpochVerdict::ByAnother);
    }
}
