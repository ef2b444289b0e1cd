//! Which messages this node has processed, exactly, per origin and incarnation (P3).
//!
//! Sequences count from 1, and most arrive in order, so a track is a *prefix* (all up to here)
//! and bitmaps of 65,536 sequences for what came ahead of a gap. In steady state a track is one
//! number. What stays true: a mark is set once and stays, unless its batch is rolled back; changed
//! records go to the store with the batch that they speak of. Memory is bounded: beyond
//! [`MAX_CHUNKS`] the lowest bitmap of the oldest incarnation is given up, and what it does not
//! remember is [`Verdict::Below`]: to be judged by content.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, NodeId, Sequence};
use crate::store::{SeenKey, SeenRecord};

/// Bitmaps kept over all tracks: 64 MiB.
pub const MAX_CHUNKS: usize = 8192;
/// Tracks kept. The oldest incarnations are forgotten above it.
pub const MAX_SOURCES: usize = 65_536;

const CHUNK: u64 = 1 << 16;
const WORDS: usize = (CHUNK / 64) as usize;

/// Short name of an (origin, incarnation) within this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u32);

/// What the seen-set says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never processed.
    New,
    /// Processed.
    Seen,
    /// Its mark was given up: state is judged by its version, an event counts as expired.
    Below,
}

/// The seen-set of a node.
#[derive(Debug, Default)]
pub struct Seen {
    by_origin: BTreeMap<NodeId, BTreeMap<Incarnation, Source>>,
    tracks: BTreeMap<Source, Track>,
    next: u32,
    last: Option<Source>,
    dirty: BTreeSet<Source>,
    dropped: Vec<SeenKey>,
    chunks: usize,
}

#[derive(Debug)]
struct Track {
    origin: NodeId,
    incarnation: Incarnation,
    prefix: u64,
    /// Marks at or below this were given up, where the prefix does not cover them.
    floor: u64,
    chunks: BTreeMap<u64, Box<[u64; WORDS]>>,
    header_dirty: bool,
    dirty_chunks: BTreeSet<u64>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    prefix: u64,
    floor: u64,
}

impl Seen {
    /// The seen-set that the store holds. Records that cannot be read are left out: what they
    /// knew is judged anew.
    pub fn recover(records: &[SeenRecord]) -> Self {
        let mut seen = Self::default();
        for record in records {
            let source = seen.source(&record.key.origin, record.key.incarnation);
            let Some(track) = seen.tracks.get_mut(&source) else { continue };
            match record.key.chunk.checked_sub(1) {
                None => {
                    if let Ok(header) = postcard::from_bytes::<Header>(&record.marks) {
                        track.prefix = header.prefix;
                        track.floor = header.floor;
                    }
                }
                Some(chunk) => {
                    if let Some(bits) = decode_chunk(&record.marks) {
                        track.chunks.insert(chunk, bits);
                        seen.chunks += 1;
                    }
                }
            }
        }
        seen.dirty.clear();
        for track in seen.tracks.values_mut() {
            track.header_dirty = false;
        }
        seen
    }

    /// The short name of an origin and incarnation, made if it is new.
    pub fn source(&mut self, origin: &NodeId, incarnation: Incarnation) -> Source {
        if let Some(source) = self.find(origin.as_str(), incarnation) {
            return source;
        }
        if self.tracks.len() >= MAX_SOURCES {
            self.forget_oldest_incarnation();
        }
        let source = Source(self.next);
        self.next += 1;
        self.by_origin.entry(origin.clone()).or_default().insert(incarnation, source);
        self.tracks.insert(source, Track::new(origin.clone(), incarnation));
        self.last = Some(source);
        source
    }

    /// The short name, if the origin and incarnation are known.
    pub fn find(&mut self, origin: &str, incarnation: Incarnation) -> Option<Source> {
        if let Some(last) = self.last
            && let Some(track) = self.tracks.get(&last)
            && track.incarnation == incarnation
            && track.origin.as_str() == origin
        {
            return Some(last);
        }
        let source = *self.by_origin.get(origin)?.get(&incarnation)?;
        self.last = Some(source);
        Some(source)
    }

    /// The origin and incarnation behind a short name.
    pub fn names(&self, source: Source) -> Option<(&NodeId, Incarnation)> {
        self.tracks.get(&source).map(|track| (&track.origin, track.incarnation))
    }

    /// Whether the message was processed.
    pub fn check(&self, source: Source, sequence: Sequence) -> Verdict {
        self.tracks.get(&source).map_or(Verdict::New, |track| track.check(sequence.get()))
    }

    /// Marks the message as processed. Answers whether it was not before.
    pub fn mark(&mut self, source: Source, sequence: Sequence) -> bool {
        let Some(track) = self.tracks.get_mut(&source) else { return false };
        if track.check(sequence.get()) == Verdict::Seen {
            return false;
        }
        let before = track.chunks.len();
        track.mark(sequence.get(), &mut self.dropped);
        self.chunks = self.chunks + track.chunks.len() - before;
        self.dirty.insert(source);
        while self.chunks > MAX_CHUNKS && self.give_up_lowest_chunk() {}
        true
    }

    /// Takes a mark back, because its batch was rolled back.
    pub fn unmark(&mut self, source: Source, sequence: Sequence) {
        let Some(track) = self.tracks.get_mut(&source) else { return };
        let before = track.chunks.len();
        track.unmark(sequence.get());
        self.chunks = self.chunks + track.chunks.len() - before;
        self.dirty.insert(source);
    }

    /// Takes the records that changed since the last call, and the keys of those to delete.
    pub fn take_changes(&mut self) -> (Vec<SeenRecord>, Vec<SeenKey>) {
        let mut records = Vec::new();
        for source in core::mem::take(&mut self.dirty) {
            if let Some(track) = self.tracks.get_mut(&source) {
                track.take_changes(&mut records);
            }
        }
        let mut dropped = core::mem::take(&mut self.dropped);
        // What was given up and is there again, after a rollback, stays.
        dropped.retain(|key| !self.holds(key));
        (records, dropped)
    }

    /// Writes these records again: the batch that held them was rolled back.
    pub fn restore_changes(&mut self, records: &[SeenRecord], dropped: Vec<SeenKey>) {
        for record in records {
            let source = self.source(&record.key.origin, record.key.incarnation);
            if let Some(track) = self.tracks.get_mut(&source) {
                match record.key.chunk.checked_sub(1) {
                    None => track.header_dirty = true,
                    Some(chunk) => drop(track.dirty_chunks.insert(chunk)),
                }
            }
            self.dirty.insert(source);
        }
        self.dropped.extend(dropped);
    }

    /// Memory taken by marks, in bytes.
    pub fn bytes(&self) -> usize {
        self.chunks * (CHUNK as usize / 8) + self.tracks.len() * size_of::<Track>()
    }

    fn holds(&mut self, key: &SeenKey) -> bool {
        let source = self.find(key.origin.as_str(), key.incarnation);
        let track = source.and_then(|source| self.tracks.get(&source));
        track.is_some_and(|track| match key.chunk.checked_sub(1) {
            None => true,
            Some(chunk) => track.chunks.contains_key(&chunk),
        })
    }

    fn give_up_lowest_chunk(&mut self) -> bool {
        let oldest = self
            .tracks
            .iter_mut()
            .filter(|(_, track)| !track.chunks.is_empty())
            .min_by_key(|(_, track)| track.incarnation);
        let Some((source, track)) = oldest else { return false };
        let Some((chunk, _)) = track.chunks.pop_first() else { return false };
        track.floor = track.floor.max((chunk + 1).saturating_mul(CHUNK));
        track.header_dirty = true;
        track.dirty_chunks.remove(&chunk);
        self.dropped.push(track.key(chunk + 1));
        self.dirty.insert(*source);
        self.chunks -= 1;
        true
    }

    fn forget_oldest_incarnation(&mut self) {
        let oldest = self
            .by_origin
            .values()
            .filter_map(BTreeMap::first_key_value)
            .min()
            .map(|(_, source)| *source);
        let Some(track) = oldest.and_then(|source| self.tracks.remove(&source)) else { return };
        self.chunks -= track.chunks.len();
        self.dropped.push(track.key(0));
        self.dropped.extend(track.chunks.keys().map(|chunk| track.key(chunk + 1)));
        if let Some(starts) = self.by_origin.get_mut(track.origin.as_str()) {
            starts.remove(&track.incarnation);
            if starts.is_empty() {
                self.by_origin.remove(track.origin.as_str());
            }
        }
    }
}

impl Track {
    fn new(origin: NodeId, incarnation: Incarnation) -> Self {
        Self {
            origin,
            incarnation,
            prefix: 0,
            floor: 0,
            chunks: BTreeMap::new(),
            header_dirty: true,
            dirty_chunks: BTreeSet::new(),
        }
    }

    fn key(&self, chunk: u64) -> SeenKey {
        SeenKey { origin: self.origin.clone(), incarnation: self.incarnation, chunk }
    }

    fn check(&self, sequence: u64) -> Verdict {
        if sequence <= self.prefix || self.bit(sequence) {
            Verdict::Seen
        } else if sequence <= self.floor {
            Verdict::Below
        } else {
            Verdict::New
        }
    }

    fn bit(&self, sequence: u64) -> bool {
        let (chunk, word, bit) = place(sequence);
        self.chunks.get(&chunk).is_some_and(|bits| bits[word] & bit != 0)
    }

    fn set(&mut self, sequence: u64) {
        let (chunk, word, bit) = place(sequence);
        self.chunks.entry(chunk).or_insert_with(|| Box::new([0; WORDS]))[word] |= bit;
        self.dirty_chunks.insert(chunk);
    }

    fn mark(&mut self, sequence: u64, dropped: &mut Vec<SeenKey>) {
        if sequence != self.prefix + 1 {
            self.set(sequence);
            return;
        }
        self.prefix = sequence;
        self.header_dirty = true;
        if self.chunks.is_empty() {
            return;
        }
        while self.bit(self.prefix + 1) {
            self.prefix += 1;
        }
        // Bitmaps that lie wholly within the prefix say nothing more.
        while let Some(entry) = self.chunks.first_entry() {
            let chunk = *entry.key();
            if (chunk + 1).saturating_mul(CHUNK) > self.prefix {
                break;
            }
            entry.remove();
            self.dirty_chunks.remove(&chunk);
            dropped.push(self.key(chunk + 1));
        }
    }

    fn unmark(&mut self, sequence: u64) {
        if sequence <= self.prefix {
            for later in sequence + 1..=self.prefix {
                self.set(later);
            }
            self.prefix = sequence - 1;
            self.header_dirty = true;
        }
        let (chunk, word, bit) = place(sequence);
        if let Some(bits) = self.chunks.get_mut(&chunk) {
            bits[word] &= !bit;
            self.dirty_chunks.insert(chunk);
        }
    }

    fn take_changes(&mut self, records: &mut Vec<SeenRecord>) {
        if core::mem::take(&mut self.header_dirty) {
            let header = Header { prefix: self.prefix, floor: self.floor };
            let marks = postcard::to_allocvec(&header).expect("two numbers can be encoded");
            records.push(SeenRecord { key: self.key(0), marks: marks.into() });
        }
        for chunk in core::mem::take(&mut self.dirty_chunks) {
            if let Some(bits) = self.chunks.get(&chunk) {
                records.push(SeenRecord { key: self.key(chunk + 1), marks: encode_chunk(bits) });
            }
        }
    }
}

/// Chunk, word and bit of a sequence.
fn place(sequence: u64) -> (u64, usize, u64) {
    let index = sequence - 1;
    let within = index % CHUNK;
    (index / CHUNK, (within / 64) as usize, 1 << (within % 64))
}

/// A bitmap as the non-zero words with their places: short while it is sparse.
fn encode_chunk(bits: &[u64; WORDS]) -> Bytes {
    let words: Vec<(u16, u64)> = bits
        .iter()
        .enumerate()
        .filter(|(_, word)| **word != 0)
        .map(|(index, word)| (index as u16, *word))
        .collect();
    postcard::to_allocvec(&words).expect("numbers can be encoded").into()
}

fn decode_chunk(marks: &[u8]) -> Option<Box<[u64; WORDS]>> {
    let words: Vec<(u16, u64)> = postcard::from_bytes(marks).ok()?;
    let mut bits = Box::new([0; WORDS]);
    for (index, word) in words {
        *bits.get_mut(usize::from(index))? = word;
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn seen_of_one() -> (Seen, Source) {
        let mut seen = Seen::default();
        let source = seen.source(&NodeId::new("a").expect("a name"), Incarnation::new(1));
        (seen, source)
    }

    #[test]
    fn in_order_marks_are_one_number() {
        let (mut seen, source) = seen_of_one();
        for sequence in 1..=200_000 {
            assert!(seen.mark(source, Sequence::new(sequence)));
        }
        assert_eq!(seen.chunks, 0);
        assert!(!seen.mark(source, Sequence::new(77)));
        let (records, _) = seen.take_changes();
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn a_filled_gap_gives_its_bitmaps_back() {
        let (mut seen, source) = seen_of_one();
        for sequence in 2..=70_000 {
            seen.mark(source, Sequence::new(sequence));
        }
        assert_eq!(seen.chunks, 2);
        seen.mark(source, Sequence::new(1));
        assert_eq!(seen.chunks, 1, "the second bitmap is only partly covered");
        assert_eq!(seen.check(source, Sequence::new(70_000)), Verdict::Seen);
        assert_eq!(seen.check(source, Sequence::new(70_001)), Verdict::New);
    }

    #[test]
    fn memory_is_bounded_and_what_was_given_up_is_below() {
        let (mut seen, source) = seen_of_one();
        for chunk in 0..=MAX_CHUNKS as u64 {
            seen.mark(source, Sequence::new(chunk * CHUNK + 2));
        }
        assert_eq!(seen.chunks, MAX_CHUNKS);
        assert_eq!(seen.check(source, Sequence::new(2)), Verdict::Below);
        assert_eq!(seen.check(source, Sequence::new(CHUNK + 2)), Verdict::Seen);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Mark(u64),
        Unmark(u64),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let sequence = prop_oneof![1..40_u64, 65_500..65_600_u64, 131_000..131_100_u64];
        prop_oneof![
            6 => sequence.clone().prop_map(Step::Mark),
            2 => sequence.prop_map(Step::Unmark),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn it_says_the_same_as_a_plain_set(steps in proptest::collection::vec(step(), 1..200)) {
            let (mut seen, source) = seen_of_one();
            let mut model = BTreeSet::new();
            let mut stored = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Mark(n) => {
                        prop_assert_eq!(seen.mark(source, Sequence::new(n)), model.insert(n));
                    }
                    Step::Unmark(n) => {
                        seen.unmark(source, Sequence::new(n));
                        model.remove(&n);
                    }
                    Step::Restart => {
                        let (records, dropped) = seen.take_changes();
                        dropped.iter().for_each(|key| drop(stored.remove(key)));
                        stored.extend(records.into_iter().map(|r| (r.key, r.marks)));
                        let records: Vec<SeenRecord> = stored
                            .iter()
                            .map(|(key, marks)| (key.clone(), marks.clone()))
                            .map(|(key, marks)| SeenRecord { key, marks })
                            .collect();
                        seen = Seen::recover(&records);
                        seen.source(&NodeId::new("a").expect("a name"), Incarnation::new(1));
                    }
                }
            }
            for n in (1..40).chain(65_500..65_600).chain(131_000..131_100) {
                let expected = if model.contains(&n) { Verdict::Seen } else { Verdict::New };
                prop_assert_eq!(seen.check(source, Sequence::new(n)), expected, "{}", n);
            }
        }
    }
}
