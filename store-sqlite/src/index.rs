//! What is known in memory about the rows of the log: which are there, which are superseded, which
//! are events, and how much of it is history.
//!
//! It mirrors what is committed: it changes only after a commit, and is rebuilt from the log when
//! the store is opened. History are the superseded rows and events at or below the floor. A row
//! that was appended for one session competes with nothing and counts as an event that never
//! expires. Tombstones, the deletes that are not superseded, are known too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::bits::{Bits, CHUNK};

/// An event that does not expire.
pub(crate) const NEVER: u64 = u64::MAX;

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chunks: BTreeMap<u64, Chunk>,
    /// Chunks with superseded rows.
    superseded: BTreeSet<u64>,
    /// Chunks with events.
    events: BTreeSet<u64>,
    /// Chunks with events, by the time at which the first may expire.
    expiring: BTreeSet<(u64, u64)>,
    /// Chunks with tombstones, by the age that the oldest has at most.
    aging: BTreeSet<(u64, u64)>,
    tombstones: u64,
    floor: u64,
    rows: u64,
    history_bytes: u64,
}

/// The rows of one stretch of positions.
#[derive(Debug)]
struct Chunk {
    present: Bits,
    superseded: Bits,
    events: Bits,
    /// Of superseded rows and events.
    bytes: u64,
    /// The part of it that is history.
    history_bytes: u64,
    /// No event expires earlier.
    expires: u64,
    tombstones: Bits,
    /// No tombstone is worth a look unless what is older than this goes.
    aged: u64,
}

/// A class of rows that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// State that a newer value replaced.
    Superseded,
    /// Events.
    Events,
}

impl Index {
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    /// Deletes that are the newest of their key and tag set.
    pub(crate) fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// Whether the row is there.
    pub(crate) fn contains(&self, position: u64) -> bool {
        let chunk = self.chunks.get(&(position / CHUNK));
        chunk.is_some_and(|chunk| chunk.present.contains(position % CHUNK))
    }

    /// Number of the rows behind `after`, up to and with `upto`.
    pub(crate) fn rows_between(&self, after: u64, upto: u64) -> u64 {
        let upto_and_with = |last: u64, id: u64, chunk: &Chunk| {
            last.checked_sub(id * CHUNK).map_or(0, |last| chunk.present.upto(last).len())
        };
        let chunks = self.chunks.range(after / CHUNK..=upto.max(after) / CHUNK);
        chunks
            .map(|(&id, chunk)| upto_and_with(upto, id, chunk) - upto_and_with(after, id, chunk))
            .sum()
    }

    /// Whether the row is known to be superseded.
    pub(crate) fn is_superseded(&self, position: u64) -> bool {
        let chunk = self.chunks.get(&(position / CHUNK));
        chunk.is_some_and(|chunk| chunk.superseded.contains(position % CHUNK))
    }

    /// Adds a row; `event` is the time at which it expires.
    pub(crate) fn append(&mut self, position: u64, size: u32, event: Option<u64>) {
        let id = position / CHUNK;
        let chunk = self.chunks.entry(id).or_default();
        chunk.present.insert(position % CHUNK);
        self.rows += 1;
        let Some(expires) = event else { return };
        chunk.events.insert(position % CHUNK);
        self.events.insert(id);
        if expires < chunk.expires {
            self.expiring.remove(&(chunk.expires, id));
            chunk.expires = expires;
            self.expiring.insert((expires, id));
        }
        self.count(position, size);
    }

    /// Notes that the row has been replaced, if it is there.
    pub(crate) fn supersede(&mut self, position: u64, size: u32) {
        let (id, place) = (position / CHUNK, position % CHUNK);
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        if !chunk.present.contains(place)
            || chunk.superseded.contains(place)
            || chunk.events.contains(place)
        {
            return;
        }
        chunk.superseded.insert(place);
        self.superseded.insert(id);
        self.end_tombstone(position);
        self.count(position, size);
    }

    fn count(&mut self, position: u64, size: u32) {
        let history = position <= self.floor;
        let chunk = self.chunks.get_mut(&(position / CHUNK)).expect("it was just changed");
        chunk.bytes += u64::from(size);
        if history {
            chunk.history_bytes += u64::from(size);
            self.history_bytes += u64::from(size);
        }
    }

    /// Takes away a row of the history.
    pub(crate) fn remove(&mut self, position: u64, size: u32) {
        let (id, place) = (position / CHUNK, position % CHUNK);
        let chunk = self.chunks.get_mut(&id).expect("only rows that are there are deleted");
        assert!(position <= self.floor, "row {position} is not history");
        chunk.present.remove(place);
        chunk.superseded.remove(place);
        chunk.events.remove(place);
        // A damaged row may say another size now than when it was counted.
        chunk.bytes = chunk.bytes.saturating_sub(size.into());
        let history_bytes = chunk.history_bytes.saturating_sub(size.into());
        self.history_bytes -= chunk.history_bytes - history_bytes;
        chunk.history_bytes = history_bytes;
        self.rows -= 1;
        if chunk.superseded.is_empty() {
            self.superseded.remove(&id);
        }
        if chunk.events.is_empty() {
            self.events.remove(&id);
            self.expiring.remove(&(chunk.expires, id));
            chunk.expires = NEVER;
        }
        if chunk.present.is_empty() {
            self.chunks.remove(&id);
        }
    }

    /// Moves the floor, up or down. `sizes` adds up the sizes of rows in a range of positions, of
    /// those for which the second argument holds.
    pub(crate) fn set_floor<E>(
        &mut self,
        floor: u64,
        mut sizes: impl FnMut(RangeInclusive<u64>, &dyn Fn(u64) -> bool) -> Result<u64, E>,
    ) -> Result<(), E> {
        let old = self.floor;
        if floor == old {
            return Ok(());
        }
        let affected = old.min(floor) / CHUNK..=old.max(floor) / CHUNK;
        let mut counted = Vec::new();
        for (&id, chunk) in self.chunks.range(affected) {
            let first = id * CHUNK;
            let history_bytes = if floor < first || chunk.bytes == 0 {
                0
            } else if floor >= first + (CHUNK - 1) {
                chunk.bytes
            } else {
                // Within one chunk that the floor climbs, only the step has to be looked at.
                let climbs = (first..floor).contains(&old);
                let from = if climbs { old + 1 } else { first };
                let below = if climbs { chunk.history_bytes } else { 0 };
                let marked = |position: u64| chunk.marked().contains(position % CHUNK);
                let any = (from..=floor).any(marked);
                below + if any { sizes(from..=floor, &marked)? } else { 0 }
            };
            counted.push((id, history_bytes));
        }
        for (id, history_bytes) in counted {
            let chunk = self.chunks.get_mut(&id).expect("it was just looked at");
            self.history_bytes = self.history_bytes - chunk.history_bytes + history_bytes;
            chunk.history_bytes = history_bytes;
        }
        self.floor = floor;
        Ok(())
    }

    /// Ranges of the log that hold nothing but rows of `class` at or below the floor, oldest
    /// first.
    pub(crate) fn history(&self, class: Class) -> impl Iterator<Item = (u64, u64)> + '_ {
        let chunks = match class {
            Class::Superseded => &self.superseded,
            Class::Events => &self.events,
        };
        chunks.range(..=self.floor / CHUNK).flat_map(move |&id| self.runs(id, class))
    }

    /// Chunks in which events at or below the floor may have expired at `wall`, the earliest
    /// expiry first.
    pub(crate) fn expired(&self, wall: u64) -> impl Iterator<Item = u64> + '_ {
        let chunks = self.expiring.range(..(wall.saturating_add(1), 0)).map(|&(_, id)| id);
        chunks.filter(|id| id * CHUNK <= self.floor)
    }

    /// The ranges of one chunk that hold nothing but rows of `class` at or below the floor.
    pub(crate) fn runs(&self, id: u64, class: Class) -> Vec<(u64, u64)> {
        let Some(chunk) = self.chunks.get(&id) else { return Vec::new() };
        let first = id * CHUNK;
        let Some(last) = self.floor.checked_sub(first) else { return Vec::new() };
        let rows = match class {
            Class::Superseded => chunk.superseded,
            Class::Events => chunk.events,
        };
        let runs = rows.upto(last).runs(&chunk.present);
        runs.into_iter().map(|(from, to)| (first + from, first + to)).collect()
    }

    /// Notes that no event of the chunk expires before `expires`.
    pub(crate) fn set_expires(&mut self, id: u64, expires: u64) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        if chunk.events.is_empty() {
            return;
        }
        self.expiring.remove(&(chunk.expires, id));
        chunk.expires = expires;
        if expires != NEVER {
            self.expiring.insert((expires, id));
        }
    }
}

/// Tombstones.
impl Index {
    /// Notes that a row that is there is a delete, made at `made`.
    pub(crate) fn note_tombstone(&mut self, position: u64, made: u64) {
        let id = position / CHUNK;
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.tombstones.insert(position % CHUNK);
        self.tombstones += 1;
        let aged = made.saturating_add(1).min(chunk.aged);
        self.look_for_tombstones_at(id, aged);
    }

    /// Whether the row is a delete that is not known to be superseded.
    pub(crate) fn is_tombstone(&self, position: u64) -> bool {
        let chunk = self.chunks.get(&(position / CHUNK));
        chunk.is_some_and(|chunk| chunk.tombstones.contains(position % CHUNK))
    }

    /// Chunks that may hold tombstones older than `before`, the oldest first.
    pub(crate) fn chunks_of_tombstones(&self, before: u64) -> impl Iterator<Item = u64> + '_ {
        self.aging.range(..(before.saturating_add(1), 0)).map(|&(_, id)| id)
    }

    /// The tombstones of a chunk up to and with the position `upto`.
    pub(crate) fn tombstones_upto(&self, id: u64, upto: u64) -> Vec<u64> {
        let (Some(chunk), Some(last)) = (self.chunks.get(&id), upto.checked_sub(id * CHUNK)) else {
            return Vec::new();
        };
        chunk.tombstones.upto(last).iter().map(|place| id * CHUNK + place).collect()
    }

    /// Notes that a chunk is worth no look until what is older than `aged` goes.
    pub(crate) fn look_for_tombstones_at(&mut self, id: u64, aged: u64) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        self.aging.remove(&(chunk.aged, id));
        chunk.aged = if chunk.tombstones.is_empty() { NEVER } else { aged };
        if chunk.aged != NEVER {
            self.aging.insert((chunk.aged, id));
        }
    }

    /// Takes away a tombstone, which was deleted.
    pub(crate) fn forget_tombstone(&mut self, position: u64) {
        let (id, place) = (position / CHUNK, position % CHUNK);
        self.end_tombstone(position);
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.present.remove(place);
        self.rows -= 1;
        if chunk.present.is_empty() {
            self.chunks.remove(&id);
        }
    }

    fn end_tombstone(&mut self, position: u64) {
        let (id, place) = (position / CHUNK, position % CHUNK);
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        if chunk.tombstones.contains(place) {
            chunk.tombstones.remove(place);
            self.tombstones -= 1;
            let aged = chunk.aged;
            self.look_for_tombstones_at(id, aged);
        }
    }
}

impl Chunk {
    fn marked(&self) -> Bits {
        self.superseded.or(&self.events)
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            present: Bits::default(),
            superseded: Bits::default(),
            events: Bits::default(),
            bytes: 0,
            history_bytes: 0,
            expires: NEVER,
            tombstones: Bits::default(),
            aged: NEVER,
        }
    }
}
