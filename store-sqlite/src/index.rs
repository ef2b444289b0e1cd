//! What is known in memory about the rows of the log: which are there, which are superseded, which
//! are events, and how much of it is history.
//!
//! It mirrors what is committed: it changes only after a commit, and is rebuilt from the log when
//! the store is opened. History are the superseded rows at or below the floor of state, and the
//! events at or below the floor. A row that was appended for one session competes with nothing and
//! counts as an event that never expires. Tombstones, the deletes that are
//! not superseded, are known too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::bits::{Bits, CHUNK};

/// An event that does not expire.
pub(crate) const NEVER: u64 = u64::MAX;

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chunks: BTreeMap<u64, Chunk>,
    superseded: Marked,
    events: Marked,
    /// Chunks with events, by the time at which the first may expire.
    expiring: BTreeSet<(u64, u64)>,
    /// Chunks with tombstones, by the age that the oldest has at most.
    aging: BTreeSet<(u64, u64)>,
    tombstones: u64,
    rows: u64,
    history_bytes: u64,
}

/// The rows of one class.
#[derive(Debug, Default)]
struct Marked {
    /// Chunks that hold any.
    chunks: BTreeSet<u64>,
    /// Up to here they are history.
    floor: u64,
}

/// The rows of one stretch of positions.
#[derive(Debug)]
struct Chunk {
    present: Bits,
    superseded: Share,
    events: Share,
    /// No event expires earlier.
    expires: u64,
    tombstones: Bits,
    /// No tombstone is worth a look unless what is older than this goes.
    aged: u64,
}

/// The rows of one class in a chunk.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    rows: Bits,
    bytes: u64,
    /// The part of it that is history.
    history_bytes: u64,
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
    /// Up to here rows of `class` are history.
    pub(crate) fn floor(&self, class: Class) -> u64 {
        self.marked(class).floor
    }

    fn marked(&self, class: Class) -> &Marked {
        match class {
            Class::Superseded => &self.superseded,
            Class::Events => &self.events,
        }
    }

    fn marked_mut(&mut self, class: Class) -> &mut Marked {
        match class {
            Class::Superseded => &mut self.superseded,
            Class::Events => &mut self.events,
        }
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
        chunk.is_some_and(|chunk| chunk.superseded.rows.contains(position % CHUNK))
    }

    /// Adds a row; `event` is the time at which it expires.
    pub(crate) fn append(&mut self, position: u64, size: u32, event: Option<u64>) {
        let id = position / CHUNK;
        let chunk = self.chunks.entry(id).or_default();
        chunk.present.insert(position % CHUNK);
        self.rows += 1;
        let Some(expires) = event else { return };
        if expires < chunk.expires {
            self.expiring.remove(&(chunk.expires, id));
            chunk.expires = expires;
            self.expiring.insert((expires, id));
        }
        self.mark(Class::Events, position, size);
    }

    /// Notes that the row has been replaced, if it is there.
    pub(crate) fn supersede(&mut self, position: u64, size: u32) {
        let (id, place) = (position / CHUNK, position % CHUNK);
        let Some(chunk) = self.chunks.get(&id) else { return };
        let is_marked = chunk.superseded.rows.contains(place) || chunk.events.rows.contains(place);
        if chunk.present.contains(place) && !is_marked {
            self.mark(Class::Superseded, position, size);
        }
        self.end_tombstone(position);
    }

    fn mark(&mut self, class: Class, position: u64, size: u32) {
        let id = position / CHUNK;
        let marked = self.marked_mut(class);
        marked.chunks.insert(id);
        let is_history = position <= marked.floor;
        let chunk = self.chunks.get_mut(&id).expect("the row is there");
        let share = chunk.share_mut(class);
        share.rows.insert(position % CHUNK);
        share.bytes += u64::from(size);
        if is_history {
            share.history_bytes += u64::from(size);
            self.history_bytes += u64::from(size);
        }
    }

    /// Takes away a row of the history.
    pub(crate) fn remove(&mut self, position: u64, size: u32) {
        let (id, place) = (position / CHUNK, position % CHUNK);
        let chunk = self.chunks.get_mut(&id).expect("only rows that are there are deleted");
        let is_event = chunk.events.rows.contains(place);
        let class = if is_event { Class::Events } else { Class::Superseded };
        chunk.present.remove(place);
        let is_empty = chunk.present.is_empty();
        let share = chunk.share_mut(class);
        share.rows.remove(place);
        // A damaged row may say another size now than when it was counted.
        share.bytes = share.bytes.saturating_sub(size.into());
        let history_bytes = share.history_bytes.saturating_sub(size.into());
        let gone = share.history_bytes - history_bytes;
        share.history_bytes = history_bytes;
        let is_last = share.rows.is_empty();
        if is_last && is_event {
            self.expiring.remove(&(chunk.expires, id));
            chunk.expires = NEVER;
        }
        if is_empty {
            self.chunks.remove(&id);
        }
        let marked = self.marked_mut(class);
        assert!(position <= marked.floor, "row {position} is not history");
        if is_last {
            marked.chunks.remove(&id);
        }
        self.history_bytes -= gone;
        self.rows -= 1;
    }

    /// Moves the floor of a class, up or down. `sizes` adds up the sizes of rows in a range of
    /// positions, of those for which the second argument holds.
    pub(crate) fn set_floor<E>(
        &mut self,
        class: Class,
        floor: u64,
        mut sizes: impl FnMut(RangeInclusive<u64>, &dyn Fn(u64) -> bool) -> Result<u64, E>,
    ) -> Result<(), E> {
        let old = self.floor(class);
        if floor == old {
            return Ok(());
        }
        let affected = old.min(floor) / CHUNK..=old.max(floor) / CHUNK;
        let mut counted = Vec::new();
        for &id in self.marked(class).chunks.range(affected) {
            let Some(share) = self.chunks.get(&id).map(|chunk| chunk.share(class)) else {
                continue;
            };
            let first = id * CHUNK;
            let history_bytes = if floor < first || share.bytes == 0 {
                0
            } else if floor >= first + (CHUNK - 1) {
                share.bytes
            } else {
                // Within one chunk that the floor climbs, only the step has to be looked at.
                let climbs = (first..floor).contains(&old);
                let from = if climbs { old + 1 } else { first };
                let below = if climbs { share.history_bytes } else { 0 };
                let marked = |position: u64| share.rows.contains(position % CHUNK);
                let any = (from..=floor).any(marked);
                below + if any { sizes(from..=floor, &marked)? } else { 0 }
            };
            counted.push((id, history_bytes));
        }
        for (id, history_bytes) in counted {
            let chunk = self.chunks.get_mut(&id).expect("it was just looked at");
            let share = chunk.share_mut(class);
            self.history_bytes = self.history_bytes - share.history_bytes + history_bytes;
            share.history_bytes = history_bytes;
        }
        self.marked_mut(class).floor = floor;
        Ok(())
    }

    /// Ranges of the log that hold nothing but rows of `class` at or below its floor, oldest
    /// first.
    pub(crate) fn history(&self, class: Class) -> impl Iterator<Item = (u64, u64)> + '_ {
        let Marked { chunks, floor } = self.marked(class);
        chunks.range(..=floor / CHUNK).flat_map(move |&id| self.runs(id, class))
    }

    /// Chunks in which events at or below the floor may have expired at `wall`, the earliest
    /// expiry first.
    pub(crate) fn expired(&self, wall: u64) -> impl Iterator<Item = u64> + '_ {
        let chunks = self.expiring.range(..(wall.saturating_add(1), 0)).map(|&(_, id)| id);
        chunks.filter(|id| id * CHUNK <= self.events.floor)
    }

    /// The ranges of one chunk that hold nothing but rows of `class` at or below its floor.
    pub(crate) fn runs(&self, id: u64, class: Class) -> Vec<(u64, u64)> {
        let Some(chunk) = self.chunks.get(&id) else { return Vec::new() };
        let first = id * CHUNK;
        let Some(last) = self.floor(class).checked_sub(first) else { return Vec::new() };
        let runs = chunk.share(class).rows.upto(last).runs(&chunk.present);
        runs.into_iter().map(|(from, to)| (first + from, first + to)).collect()
    }

    /// Notes that no event of the chunk expires before `expires`.
    pub(crate) fn set_expires(&mut self, id: u64, expires: u64) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        if chunk.events.rows.is_empty() {
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
    fn share(&self, class: Class) -> &Share {
        match class {
            Class::Superseded => &self.superseded,
            Class::Events => &self.events,
        }
    }

    fn share_mut(&mut self, class: Class) -> &mut Share {
        match class {
            Class::Superseded => &mut self.superseded,
            Class::Events => &mut self.events,
        }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            present: Bits::default(),
            superseded: Share::default(),
            events: Share::default(),
            expires: NEVER,
            tombstones: Bits::default(),
            aged: NEVER,
        }
    }
}
