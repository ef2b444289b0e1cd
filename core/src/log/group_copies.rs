//! Copies: one message that an application published through several nodes of a cluster group, so
//! that either may fail (P10).
//!
//! Every node carries all copies; what an application has been handed it is not handed again.
//! Here is remembered where the last copy of each message lies in the log, or lay, and when events
//! end: an event is remembered when its row is gone, across a restart too. What stays true: at most
//! [`MAX_COPIES`] messages are remembered, the ones that came first are forgotten first; of those
//! without a row the store keeps as many as [`kept`] says; and forgetting costs a second hand-over
//! and no more.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

pub use crate::store::GroupCopy;
use crate::types::ids::{Hash128, Position};
use crate::types::time::WallMs;
use crate::wire::message::Message;

/// Messages of cluster groups that are remembered: about 10 MiB.
pub const MAX_COPIES: usize = 131_072;

/// Stands for the row of a copy that was a dead letter of the node.
const HANDED_TO_NOBODY: Position = Position::new(0);

/// Copies without a row that a store keeps at least.
const MIN_KEPT: usize = 1024;

/// How many events of cluster groups a store remembers when their rows are gone, for a history of
/// so many bytes: they take about 64 bytes each, and a quarter of what the history may.
pub fn kept(history_max_bytes: u64) -> usize {
    let kept = usize::try_from(history_max_bytes / 256).unwrap_or(MAX_COPIES);
    kept.clamp(MIN_KEPT, MAX_COPIES)
}

/// Hash of all that two copies have in common; `None` for a message of no group.
pub fn content(message: &Message) -> Option<Hash128> {
    let group = message.group()?;
    let kind = [message.kind().number()];
    let texts = [group, message.id(), message.key(), message.tags(), message.body()];
    let [group, id, key, tags, body] = texts.map(str::as_bytes);
    Some(Hash128::of(&[&kind, group, id, key, tags, body]))
}

/// Where the last copy of each message lies.
#[derive(Debug, Default)]
pub struct GroupCopies {
    places: HashMap<Hash128, Position>,
    order: VecDeque<Hash128>,
    /// When the last [`MAX_COPIES`] events end by the time of this node, along the log.
    ends: VecDeque<(Position, WallMs)>,
}

impl GroupCopies {
    /// What the store knows, the oldest first.
    pub fn recover(stored: &[(Hash128, Position, WallMs)]) -> Self {
        let mut copies = Self::default();
        for (content, position, ends) in stored {
            copies.put(*content, *position, *ends);
        }
        copies
    }

    /// Whether the event in this row had ended by `time`; so has one of which that is not known.
    pub fn had_ended(&self, position: Position, time: WallMs) -> bool {
        let found = self.ends.binary_search_by_key(&position, |(at, _)| *at).ok();
        found.and_then(|at| self.ends.get(at)).is_none_or(|(_, ends)| *ends <= time)
    }

    /// Where the last copy lies.
    pub fn find(&self, content: &Hash128) -> Option<Position> {
        self.places.get(content).copied().filter(|last| *last != HANDED_TO_NOBODY)
    }

    /// Takes note of a copy, which ends then if it is an event; answers where the one before it
    /// lies.
    pub fn put(&mut self, content: Hash128, position: Position, ends: WallMs) -> Option<Position> {
        if ends > WallMs(0) {
            // What failed to become durable has its place taken by others.
            while self.ends.back().is_some_and(|(last, _)| *last >= position) {
                self.ends.pop_back();
            }
            self.ends.push_back((position, ends));
            if self.ends.len() > MAX_COPIES {
                self.ends.pop_front();
            }
        }
        let before = self.places.insert(content, position);
        if before.is_none() {
            self.order.push_back(content);
            if self.order.len() > MAX_COPIES
                && let Some(first) = self.order.pop_front()
            {
                self.places.remove(&first);
            }
        }
        before.filter(|before| *before != HANDED_TO_NOBODY)
    }

    /// The copy in this row was handed on to nobody: if no other one came since, the next one is a
    /// copy of the one before it, or news.
    pub fn end(&mut self, copy: &GroupCopy, position: Position) {
        if let Some(last) = self.places.get_mut(&copy.content)
            && *last == position
        {
            *last = copy.of.unwrap_or(HANDED_TO_NOBODY);
        }
    }

    /// Takes a [`Self::put`] back, the last one first.
    pub fn undo(&mut self, content: Hash128, before: Option<Position>) {
        if let Some(before) = before {
            self.places.insert(content, before);
            return;
        }
        self.places.remove(&content);
        if self.order.back() == Some(&content) {
            self.order.pop_back();
        }
    }
}

/// Stretches of the log of which a session was handed, by the store's word, only what was the
/// newest of its key then. What stays true: a stretch is known while a row that may have replaced
/// one of it lies ahead.
#[derive(Debug, Default)]
pub struct CompactedRanges(VecDeque<CopyRange>);

/// Stretches that a session remembers, ...
const MAX_STRETCHES: usize = 1024;

/// ... and across a restart.
const RECORDED_STRETCHES: usize = 32;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRange {
    from: Position,
    upto: Position,
    /// The end of the log when the store was asked.
    head: Position,
    /// How often what was left out had been handed over before.
    handed: u32,
}

impl CompactedRanges {
    /// The rows behind `after`, up to and with `upto`, were asked for when the log ended at `head`.
    pub fn note(&mut self, after: Position, upto: Position, head: Position) {
        self.0.retain(|stretch| stretch.head > after);
        if after < upto {
            self.push(CopyRange { from: after.next(), upto, head, handed: 0 });
        }
    }

    /// One row was left out, after it had been handed over so often, because its key had a newer
    /// value: what replaces it is news, up to this row; `None`: whenever it comes, because that
    /// value was of another tag set.
    pub fn note_row(&mut self, position: Position, by: Option<Position>, handed: u32) {
        let head = by.unwrap_or(Position::new(u64::MAX));
        self.push(CopyRange { from: position, upto: position, head, handed });
    }

    /// What replaced the row has been handed over.
    pub fn forget_row(&mut self, position: Position) {
        self.0.retain(|stretch| (stretch.from, stretch.upto) != (position, position));
    }

    /// Goes on with what [`Self::record`] said in an earlier life.
    pub fn recover(&mut self, record: Vec<CopyRange>) {
        record.into_iter().for_each(|stretch| self.push(stretch));
    }

    fn push(&mut self, stretch: CopyRange) {
        self.0.push_back(stretch);
        if self.0.len() > MAX_STRETCHES
            && let Some(first) = self.0.pop_front()
            && let Some(second) = self.0.front_mut()
        {
            *second = first.joined(second);
        }
    }

    /// What is to be remembered across a restart: the last stretches, and those before as one.
    pub fn record(&self) -> Vec<CopyRange> {
        let surplus = self.0.len().saturating_sub(RECORDED_STRETCHES);
        let first = self.0.range(..surplus).copied().reduce(|a, b| a.joined(&b));
        first.into_iter().chain(self.0.range(surplus..).copied()).collect()
    }

    /// Whether the row at `replaced` was left out because the row `by` was there already; and how
    /// often it had been handed over before.
    pub fn left_out(&self, replaced: Position, by: Position) -> Option<u32> {
        let within = |stretch: &&CopyRange| stretch.from <= replaced && replaced <= stretch.upto;
        let known = self.0.iter().filter(within).filter(|stretch| by <= stretch.head);
        known.map(|stretch| stretch.handed).max()
    }

    /// Whether the row was left out whatever replaces it, and whenever that comes.
    pub fn missed(&self, row: Position) -> bool {
        self.left_out(row, Position::new(u64::MAX)).is_some()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl CopyRange {
    /// Both, and what lies between: that was handed over, and may be once more.
    fn joined(&self, other: &Self) -> Self {
        Self {
            from: self.from.min(other.from),
            upto: self.upto.max(other.upto),
            head: self.head.max(other.head),
            handed: self.handed.max(other.handed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    fn hash(number: usize) -> Hash128 {
        Hash128::of(&[&number.to_le_bytes()])
    }

    #[test]
    fn the_last_copy_is_found_and_taken_back() {
        let mut copies = GroupCopies::default();
        assert_eq!(copies.put(hash(1), at(3), WallMs(0)), None);
        assert_eq!(copies.put(hash(1), at(9), WallMs(0)), Some(at(3)));
        assert_eq!(copies.put(hash(2), at(10), WallMs(0)), None);
        copies.undo(hash(2), None);
        copies.undo(hash(1), Some(at(3)));
        assert_eq!((copies.find(&hash(1)), copies.find(&hash(2))), (Some(at(3)), None));
        assert_eq!(copies.order.len(), 1);
    }

    // keeps: group-once
    #[test]
    fn what_nobody_was_handed_leaves_the_copy_before_it() {
        let mut copies = GroupCopies::default();
        copies.put(hash(1), at(3), WallMs(50));
        let of = copies.put(hash(1), at(9), WallMs(60));
        copies.end(&GroupCopy { content: hash(1), of }, at(9));
        assert_eq!(copies.find(&hash(1)), Some(at(3)), "somebody may have been handed that one");
        copies.end(&GroupCopy { content: hash(1), of: None }, at(3));
        assert_eq!(copies.find(&hash(1)), None);
    }

    #[test]
    fn an_event_of_which_nothing_is_known_has_ended() {
        let mut copies = GroupCopies::recover(&[
            (hash(1), at(3), WallMs(0)),
            (hash(2), at(4), WallMs(50)),
            (hash(3), at(7), WallMs(40)),
        ]);
        assert!(copies.had_ended(at(3), WallMs(1)) && copies.had_ended(at(9), WallMs(1)));
        assert!(copies.had_ended(at(7), WallMs(40)) && !copies.had_ended(at(4), WallMs(49)));
        // The batch of one fails, and another one takes its place.
        copies.put(hash(4), at(8), WallMs(60));
        copies.undo(hash(4), None);
        copies.put(hash(5), at(8), WallMs(90));
        assert!(!copies.had_ended(at(8), WallMs(89)));
        for number in 0..MAX_COPIES {
            copies.put(hash(number), at(number as u64 + 9), WallMs(90));
        }
        assert_eq!(copies.ends.len(), MAX_COPIES);
    }

    #[test]
    fn the_first_is_forgotten_at_the_bound() {
        let mut copies = GroupCopies::default();
        for number in 0..=MAX_COPIES {
            copies.put(hash(number), at(number as u64 + 1), WallMs(0));
        }
        assert_eq!((copies.places.len(), copies.order.len()), (MAX_COPIES, MAX_COPIES));
        assert_eq!((copies.find(&hash(0)), copies.find(&hash(1))), (None, Some(at(2))));
    }

    #[test]
    fn what_was_replaced_before_the_store_was_asked_was_left_out() {
        let mut checked = CompactedRanges::default();
        checked.note(at(0), at(10), at(25));
        checked.note(at(20), at(30), at(31));
        assert_eq!(checked.left_out(at(10), at(25)), Some(0));
        assert_eq!(checked.left_out(at(10), at(26)), None, "it came later");
        assert_eq!(checked.left_out(at(15), at(25)), None, "not by the store's word");
        checked.note(at(25), at(25), at(25));
        assert_eq!(checked.left_out(at(10), at(25)), None, "nothing that replaced it lies ahead");
        assert_eq!(checked.left_out(at(21), at(31)), Some(0));
        checked.note_row(at(12), None, 3);
        checked.note_row(at(13), Some(at(40)), 1);
        assert_eq!(checked.left_out(at(13), at(40)), Some(1));
        assert_eq!(checked.left_out(at(13), at(41)), None);
        checked.note(at(50), at(60), at(60));
        assert_eq!(checked.left_out(at(12), at(100)), Some(3), "whenever it comes");
        checked.forget_row(at(12));
        assert_eq!(checked.left_out(at(12), at(100)), None);
    }

    #[test]
    fn stretches_are_bounded_and_none_is_forgotten() {
        let mut checked = CompactedRanges::default();
        let head = at(1 << 20);
        for number in 0..2 * MAX_STRETCHES as u64 {
            checked.note(at(10 * number), at(10 * number + 5), head);
        }
        assert_eq!(checked.0.len(), MAX_STRETCHES);
        assert!([1, 5001].iter().all(|row| checked.left_out(at(*row), head).is_some()));
        let mut again = CompactedRanges::default();
        again.recover(checked.record());
        assert_eq!(again.0.len(), RECORDED_STRETCHES + 1);
        assert!([1, 5001].iter().all(|row| again.left_out(at(*row), head).is_some()));
    }
}
