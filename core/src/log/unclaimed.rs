//! Events that this node has handed on to nobody yet: when their time is over, they are dead
//! letters of the node itself (P2).
//!
//! It knows where they lie in the log, and when to look there; the rows themselves stay in the
//! store. What stays true: an event that was noted and not delivered is known until it was looked
//! at after its end, across restarts too. Positions are kept one by one for the newest
//! [`MAX_SINGLES`], before that as stretches of events without a delivered one between them. Above
//! [`MAX_STRETCHES`] the two nearest become one: what was delivered between them counts as not
//! delivered then, and is a dead letter too many, never one too few.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::{DeadReason, SessionRecord};
use crate::types::ids::{BatchId, Position, SessionId};
use crate::types::time::{Instant, WallMs};

/// The owner of the node's own dead letters: no session has this number.
pub const NODE: SessionId = SessionId::new(0);
/// Its name, where sessions are named.
pub const NODE_NAME: &str = "node";

/// Events that are known one by one.
const MAX_SINGLES: usize = 4096;
/// Stretches of older ones.
const MAX_STRETCHES: usize = 4096;
/// Times at which to look.
const MAX_PARTS: usize = 256;
/// An event is looked at later than its end by less than twice this part of what it had left, ...
const LATE_PART: u64 = 64;
/// ... or by less than this.
const LEAST_STEP_MS: u64 = 256;
/// When an event is looked at again that a peer was sent, and has not acknowledged.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// Rows between two single events that are read for being asked of the store together.
const NEAR_ROWS: u64 = 64;
/// Events and stretches of which the record goes with every batch that they have changed since.
const SMALL: usize = 256;
/// How long a larger one waits after it was written: after a crash meanwhile, what was handed on
/// since then may be a dead letter too many.
const RECORD_INTERVAL: Duration = Duration::from_millis(250);
/// Rows without events after which the record is written all the same.
const RECORD_ROWS: u64 = 4096;

/// Where events lie that were handed on to nobody.
#[derive(Debug, Default)]
pub struct Unclaimed {
    /// The newest ones, each with the event before it, delivered or not.
    singles: BTreeMap<Position, Position>,
    /// The first and the last row of each stretch of older ones.
    stretches: BTreeMap<Position, Position>,
    /// When to look at which part of the log.
    parts: BTreeMap<WallMs, Part>,
    /// The last event that was noted.
    last: Position,
    /// Everything up to here was noted.
    upto: Position,
    /// As the record says it.
    recorded: Position,
    /// When it was written.
    recorded_at: Instant,
    is_dirty: bool,
    /// Whether it must not wait, however large it is.
    is_urgent: bool,
    /// Number and bytes of the node's dead letters.
    pub dead: BTreeMap<DeadReason, (u64, u64)>,
    /// Whether the store was asked for a part.
    pub is_looking: bool,
    /// The batch with which events went last that history has no room for: until it is durable,
    /// the store still counts their bytes.
    pub forgotten_with: BatchId,
}

/// A part of the log in which events end at about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// None of them ends before this.
    earliest: WallMs,
    first: Position,
    last: Position,
}

#[derive(Serialize, Deserialize)]
struct OwnRecord {
    upto: Position,
    stretches: Vec<(Position, Position)>,
    parts: Vec<(WallMs, Part)>,
}

impl Unclaimed {
    /// What the store knows of them, for a log that ends at `head`. What was added behind the
    /// record is looked at at once: an event among it may have been handed on to nobody.
    pub fn recover(record: Option<&SessionRecord>, head: Position) -> Self {
        let mut found = Self { last: head, upto: head, ..Self::default() };
        // With it goes where the log ended at this start: it must not wait.
        found.touch();
        let record =
            record.and_then(|record| postcard::from_bytes::<OwnRecord>(&record.state).ok());
        // Without a record none of it is known: nothing of it is said to be unclaimed.
        let Some(OwnRecord { upto, stretches, parts }) = record else { return found };
        found.stretches = stretches.into_iter().filter(|(_, last)| *last <= head).collect();
        found.parts = parts.into_iter().collect();
        found.bound_stretches();
        if upto < head {
            found.stretches.insert(upto.next(), head);
            found.look_at(WallMs(0), Part { earliest: WallMs(0), first: upto.next(), last: head });
        }
        found
    }

    /// What is said to end behind this time is looked at at once: a clock that was ahead may have
    /// said so.
    pub fn look_beyond(&mut self, time: WallMs) {
        let beyond = self.parts.split_off(&time);
        for (_, part) in beyond {
            self.look_at(WallMs(0), Part { earliest: WallMs(0), ..part });
        }
    }

    /// Up to here the events were noted when the record was written.
    pub fn noted_upto(record: Option<&SessionRecord>) -> Position {
        let read = record.and_then(|it| postcard::take_from_bytes::<OwnRecord>(&it.state).ok());
        read.map_or(Position::default(), |(record, _)| record.upto)
    }

    /// What follows in the record.
    pub fn rest_of(record: &SessionRecord) -> &[u8] {
        let read = postcard::take_from_bytes::<OwnRecord>(&record.state);
        read.map_or(&[], |(_, rest)| rest)
    }

    /// The record for the store, if it must be written.
    pub fn take_record(&mut self, now: Instant) -> Option<SessionRecord> {
        let is_small = self.singles.len() + self.stretches.len() <= SMALL;
        let may_wait = !is_small && !self.is_urgent && now < self.recorded_at + RECORD_INTERVAL;
        if !self.is_dirty || may_wait {
            return None;
        }
        (self.is_dirty, self.is_urgent) = (false, false);
        (self.recorded, self.recorded_at) = (self.upto, now);
        let mut stretches: Vec<_> =
            self.stretches.iter().map(|(first, last)| (*first, *last)).collect();
        for (single, before) in &self.singles {
            match stretches.last_mut() {
                Some((_, last)) if last == before => *last = *single,
                Some(_) | None => stretches.push((*single, *single)),
            }
        }
        let cursor = stretches.first().map_or(self.upto, |(first, _)| first.before());
        let parts = self.parts.iter().map(|(ends, part)| (*ends, *part)).collect();
        let record = OwnRecord { upto: self.upto, stretches, parts };
        let state = postcard::to_allocvec(&record).expect("a record can be encoded").into();
        Some(SessionRecord { id: NODE, name: NODE_NAME.into(), cursor, state })
    }

    /// Whether the record must be written before long.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// The record must be written again: its batch was rolled back, or dead letters go with it.
    pub fn touch(&mut self) {
        (self.is_dirty, self.is_urgent) = (true, true);
    }

    /// The log has an event more, which ends then.
    pub fn note(&mut self, position: Position, ends: WallMs, now: WallMs) {
        self.singles.insert(position, self.last);
        self.last = position;
        if self.singles.len() > MAX_SINGLES
            && let Some((oldest, before)) = self.singles.pop_first()
        {
            match self.stretches.last_entry() {
                Some(mut stretch) if *stretch.get() == before => drop(stretch.insert(oldest)),
                Some(_) | None => drop(self.stretches.insert(oldest, oldest)),
            }
            self.bound_stretches();
        }
        self.expect(position, ends, now);
    }

    /// The log ends here, and all events up to here were noted.
    pub fn noted(&mut self, upto: Position) {
        self.upto = upto;
        self.is_dirty |= upto.get() - self.recorded.get() > RECORD_ROWS;
    }

    /// An event that is known ends then.
    fn expect(&mut self, position: Position, ends: WallMs, now: WallMs) {
        self.expect_at(position, ends, ends, now);
    }

    /// An event that is known is looked at behind `again`, and may be over from `earliest` on.
    fn expect_at(&mut self, position: Position, earliest: WallMs, again: WallMs, now: WallMs) {
        let left = again.0.saturating_sub(now.0);
        // Steps are powers of two, so that many events have the same one.
        let step = (left / LATE_PART).max(LEAST_STEP_MS).next_power_of_two();
        let at = WallMs(again.0.saturating_add(step - 1) / step * step);
        self.look_at(at, Part { earliest, first: position, last: position });
    }

    fn look_at(&mut self, at: WallMs, part: Part) {
        self.is_dirty = true;
        let is_full = self.parts.len() >= MAX_PARTS && !self.parts.contains_key(&at);
        let later = self.parts.range(at..).next().map(|(at, _)| *at);
        let at = match later.filter(|_| is_full) {
            Some(later) => later,
            None if is_full => {
                // It is the last one now.
                if let Some((_, part)) = self.parts.pop_last() {
                    self.parts.insert(at, part);
                }
                at
            }
            None => at,
        };
        let known = self.parts.entry(at).or_insert(part);
        known.earliest = known.earliest.min(part.earliest);
        known.first = known.first.min(part.first);
        known.last = known.last.max(part.last);
    }

    /// Somebody has been handed the event in this row, or it is somebody's dead letter.
    pub fn delivered(&mut self, position: Position) {
        if self.singles.remove(&position).is_some() {
            self.is_dirty = true;
            return;
        }
        let Some((first, last)) = self.stretch_of(position) else { return };
        self.is_dirty = true;
        self.stretches.remove(&first);
        if first < position {
            self.stretches.insert(first, position.before());
        }
        if position < last {
            self.stretches.insert(position.next(), last);
        }
        self.bound_stretches();
    }

    /// Whether an event in this row was handed on to nobody, as far as is known.
    pub fn contains(&self, position: Position) -> bool {
        self.singles.contains_key(&position) || self.stretch_of(position).is_some()
    }

    fn stretch_of(&self, position: Position) -> Option<(Position, Position)> {
        let (first, last) = self.stretches.range(..=position).next_back()?;
        (position <= *last).then_some((*first, *last))
    }

    fn bound_stretches(&mut self) {
        while self.stretches.len() > MAX_STRETCHES {
            let pairs = self.stretches.iter().zip(self.stretches.iter().skip(1));
            let gap =
                |((_, last), (next, _)): &((_, &Position), (&Position, _))| next.get() - last.get();
            let Some(((first, _), (second, last))) = pairs.min_by_key(gap) else { return };
            let (first, second, last) = (*first, *second, *last);
            self.stretches.remove(&second);
            self.stretches.insert(first, last);
        }
    }

    /// The first row that may hold one.
    pub fn first(&self) -> Option<Position> {
        let singles = self.singles.first_key_value();
        singles.into_iter().chain(self.stretches.first_key_value()).map(|(first, _)| *first).min()
    }

    /// All of them up to and with `upto` were looked at, or are gone.
    pub fn settle_upto(&mut self, upto: Position) {
        self.is_dirty = true;
        self.singles = self.singles.split_off(&upto.next());
        while let Some(stretch) = self.stretches.first_entry()
            && *stretch.key() <= upto
        {
            let last = stretch.remove();
            if last > upto {
                self.stretches.insert(upto.next(), last);
            }
        }
    }

    /// The first rows that may hold events whose time is over, and under which time they are known.
    pub fn due(&mut self, now: WallMs) -> Option<(WallMs, Position, Position)> {
        loop {
            let (at, part) = self.parts.first_key_value().map(|(at, part)| (*at, *part))?;
            if at > now {
                return None;
            }
            if let Some((first, last)) = self.within(&part) {
                return Some((at, first, last));
            }
            self.parts.remove(&at);
            self.forget_what_is_over();
        }
    }

    /// The first events that lie in a part, and maybe other rows between them.
    fn within(&self, part: &Part) -> Option<(Position, Position)> {
        let of_part = |(first, last): (Position, Position)| {
            let (first, last) = (first.max(part.first), last.min(part.last));
            (first <= last).then_some((first, last))
        };
        let after = self.stretches.range(part.first..).next();
        let after = after.map(|(first, last)| (*first, *last));
        let stretch = self.stretch_of(part.first).or(after).and_then(of_part);
        let mut singles = self.singles.range(part.first..=part.last).map(|(single, _)| *single);
        let single = singles.next().map(|first| {
            let mut last = first;
            for next in singles {
                if next.get() - last.get() > NEAR_ROWS {
                    break;
                }
                last = next;
            }
            (first, last)
        });
        stretch.into_iter().chain(single).min()
    }

    /// The rows up to `upto` of what is known under this time were looked at. The events `later`
    /// among them, which end then, are still known. One whose time is over is under way to a peer:
    /// it is looked at again soon, and its row stays until then.
    pub fn looked(
        &mut self,
        at: WallMs,
        upto: Position,
        later: &[(Position, WallMs)],
        now: WallMs,
    ) {
        let Some(part) = self.parts.get_mut(&at) else { return };
        self.is_dirty = true;
        part.first = part.first.max(upto.next());
        let is_over = part.first > part.last;
        if is_over {
            self.parts.remove(&at);
        }
        for (position, ends) in later {
            let again = if *ends > now { *ends } else { now.plus(UNDER_WAY) };
            self.expect_at(*position, *ends, again, now);
        }
        if is_over {
            self.forget_what_is_over();
        }
    }

    /// What no part speaks of any more holds no event whose time is not over.
    fn forget_what_is_over(&mut self) {
        self.is_dirty = true;
        let first = self.parts.values().map(|part| part.first).min();
        let first = first.unwrap_or(self.upto.next());
        self.singles = self.singles.split_off(&first);
        while let Some(stretch) = self.stretches.first_entry()
            && *stretch.get() < first
        {
            stretch.remove();
        }
    }

    /// The first row that may hold an event whose time is over, and that was not looked at.
    pub fn expired_from(&self, wall: WallMs) -> Option<Position> {
        let over = self.parts.values().filter(|part| part.earliest <= wall);
        over.map(|part| part.first).min()
    }

    /// Where events lie that end after `time`, delivered or not, as far as is known: the first of
    /// those that end at about the same time, and when the last of them does.
    pub fn ending_after(&self, time: WallMs) -> impl Iterator<Item = (Position, WallMs)> {
        self.parts.range(time..).map(|(ends, part)| (part.first, *ends))
    }

    /// Bytes of dead letters.
    pub fn dead_bytes(&self) -> u64 {
        self.dead.values().map(|(_, bytes)| bytes).sum()
    }

    /// Whether the node has as many dead letters as a session may: it takes no more until some are
    /// purged (P8).
    pub fn is_full(&self, max_bytes: u64) -> bool {
        self.dead_bytes() > max_bytes
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::types::rate::Random;

    const HOUR: u64 = 60 * 60 * 1000;

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    /// Looks at everything whose time is over, and answers which of `events` it was told of.
    fn look(unclaimed: &mut Unclaimed, events: &[(u64, u64)], now: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        while let Some((time, first, last)) = unclaimed.due(WallMs(now)) {
            let mut later = Vec::new();
            for (position, ends) in events {
                let is_there = (first..=last).contains(&at(*position));
                if is_there && unclaimed.contains(at(*position)) {
                    if *ends > now {
                        later.push((at(*position), WallMs(*ends)));
                        continue;
                    }
                    found.insert(*position);
                    unclaimed.delivered(at(*position));
                }
            }
            unclaimed.looked(time, last, &later, WallMs(now));
        }
        found
    }

    fn restart(unclaimed: &mut Unclaimed, head: u64) -> Unclaimed {
        unclaimed.touch();
        let record = unclaimed.take_record(Instant::default());
        Unclaimed::recover(record.as_ref(), at(head))
    }

    #[test]
    fn an_expired_event_under_way_stays_until_looked_at_again() {
        let mut unclaimed = Unclaimed::recover(None, at(0));
        unclaimed.note(at(3), WallMs(1000), WallMs(0));
        unclaimed.noted(at(9));
        let (time, _, last) = unclaimed.due(WallMs(2000)).expect("its time is over");
        unclaimed.looked(time, last, &[(at(3), WallMs(1000))], WallMs(2000));
        assert!(unclaimed.contains(at(3)));
        assert_eq!(unclaimed.expired_from(WallMs(2000)), Some(at(3)));
        assert_eq!(unclaimed.due(WallMs(2999)), None);
        assert!(unclaimed.due(WallMs(3500)).is_some());
    }

    #[test]
    fn what_nobody_is_handed_is_looked_at_soon_after_its_end() {
        let mut unclaimed = Unclaimed::recover(None, at(0));
        let events = [(3, 1000), (7, HOUR), (8, 1500), (2000, 24 * HOUR)];
        for (position, ends) in events {
            unclaimed.note(at(position), WallMs(ends), WallMs(0));
        }
        unclaimed.noted(at(2000));
        assert!(look(&mut unclaimed, &events, 999).is_empty());
        assert_eq!(unclaimed.expired_from(WallMs(999)), None);
        assert_eq!(unclaimed.expired_from(WallMs(1000)), Some(at(3)));
        assert_eq!(look(&mut unclaimed, &events, 1256), BTreeSet::from([3]));
        unclaimed.delivered(at(7));
        let mut unclaimed = restart(&mut unclaimed, 2000);
        assert_eq!(look(&mut unclaimed, &events, 2 * HOUR), BTreeSet::from([8]));
        assert_eq!(look(&mut unclaimed, &events, 25 * HOUR), BTreeSet::from([2000]));
        assert_eq!(unclaimed.due(WallMs(u64::MAX)), None);
        assert!(unclaimed.stretches.is_empty() && unclaimed.singles.is_empty());
    }

    #[test]
    fn what_was_looked_at_for_its_room_is_not_known_any_more() {
        let mut unclaimed = Unclaimed::recover(None, at(0));
        assert_eq!(unclaimed.first(), None);
        for position in [5, 6, 9, 2000] {
            unclaimed.note(at(position), WallMs(HOUR), WallMs(0));
        }
        unclaimed.noted(at(2000));
        let mut restarted = restart(&mut unclaimed, 2000);
        assert_eq!((unclaimed.first(), restarted.first()), (Some(at(5)), Some(at(5))));
        unclaimed.settle_upto(at(6));
        assert_eq!(unclaimed.first(), Some(at(9)));
        unclaimed.settle_upto(at(9));
        assert_eq!((unclaimed.first(), unclaimed.contains(at(9))), (Some(at(2000)), false));
        // As one stretch, of which a part goes.
        restarted.settle_upto(at(7));
        assert_eq!((restarted.first(), restarted.contains(at(9))), (Some(at(8)), true));
        restarted.settle_upto(at(2000));
        assert_eq!((restarted.first(), restarted.due(WallMs(2 * HOUR))), (None, None));
    }

    #[test]
    fn a_large_record_is_not_written_with_every_batch() {
        let mut unclaimed = Unclaimed::recover(None, at(0));
        let ms = |ms: u64| Instant::from_micros(ms * 1000);
        for position in 1..=SMALL as u64 {
            unclaimed.note(at(position), WallMs(HOUR), WallMs(0));
            assert!(unclaimed.take_record(ms(0)).is_some());
        }
        unclaimed.note(at(1000), WallMs(HOUR), WallMs(0));
        assert!(unclaimed.take_record(ms(249)).is_none());
        assert!(unclaimed.is_dirty(), "it is still to be written");
        assert!(unclaimed.take_record(ms(250)).is_some());
        unclaimed.touch();
        assert!(unclaimed.take_record(ms(251)).is_some(), "dead letters go with it");
    }

    #[test]
    fn what_came_after_the_record_is_looked_at_after_a_restart() {
        let mut unclaimed = Unclaimed::recover(None, at(0));
        let events = [(1, 9000), (5, 1000), (6, 2000)];
        unclaimed.note(at(1), WallMs(9000), WallMs(0));
        unclaimed.noted(at(1));
        let mut unclaimed = restart(&mut unclaimed, 6);
        assert_eq!(unclaimed.expired_from(WallMs(0)), Some(at(2)));
        assert_eq!(look(&mut unclaimed, &events, 1000), BTreeSet::from([5]));
        assert_eq!(unclaimed.expired_from(WallMs(1000)), None);
        assert_eq!(look(&mut unclaimed, &events, HOUR), BTreeSet::from([1, 6]));
    }

    // keeps: node-letters
    #[test]
    fn it_knows_what_a_plain_set_knows_and_above_its_bounds_more() {
        for (seed, events_of_ten, is_exact) in [(1, 9, true), (2, 5, true), (3, 1, false)] {
            let mut random = Random::new(seed);
            let mut unclaimed = Unclaimed::recover(None, at(0));
            let (mut events, mut left) = (Vec::new(), BTreeSet::new());
            for position in 1..=60_000u64 {
                let ends = position + 1000 + random.next() % HOUR;
                unclaimed.note(at(position), WallMs(ends), WallMs(position));
                unclaimed.noted(at(position));
                events.push((position, ends));
                left.insert(position);
                // Whoever is handed events is handed most of them soon.
                if random.next() % 10 < events_of_ten {
                    let behind = random.next() % 100;
                    let handed = position.saturating_sub(behind);
                    unclaimed.delivered(at(handed));
                    left.remove(&handed);
                }
                if position % 20_000 == 0 {
                    unclaimed = restart(&mut unclaimed, position);
                }
                assert!(unclaimed.singles.len() <= MAX_SINGLES);
                assert!(unclaimed.stretches.len() <= MAX_STRETCHES);
                assert!(unclaimed.parts.len() <= MAX_PARTS);
            }
            let known: BTreeSet<u64> = events
                .iter()
                .map(|(position, _)| *position)
                .filter(|position| unclaimed.contains(at(*position)))
                .collect();
            assert!(known.is_superset(&left), "seed {seed}: {} are missing", left.len());
            let extra = known.len() - left.len();
            assert!(!is_exact || extra < 20_000, "seed {seed}: {extra} too many");
            let found = look(&mut unclaimed, &events, 10 * HOUR);
            assert_eq!(found, known, "seed {seed}");
            assert_eq!(unclaimed.due(WallMs(u64::MAX)), None);
        }
    }
}
