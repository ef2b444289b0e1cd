//! Which messages this node has processed, exactly, per origin and incarnation (P3).
//!
//! Sequences count from 1, and most arrive in order, so a track is a *prefix* (all up to here)
//! and bitmaps of 65,536 sequences for what came ahead of a gap. In steady state a track is one
//! number. What stays true: a mark is set once and stays, unless its batch is rolled back; changed
//! records go to the store with the batch that they speak of. Memory is bounded: beyond
//! [`MAX_CHUNKS`] the lowest bitmap of the oldest incarnation is given up, and what it does not
//! remember is [`SeenVerdict::Below`]: to be judged by content.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::{SeenKey, SeenRecord};
use crate::types::ids::{Incarnation, NodeId, Sequence};
use crate::wire::message::Message;

/// Bitmaps kept over all tracks: 64 MiB.
pub const MAX_CHUNKS: usize = 8192;
/// Marks that are written one by one when one before them is taken back, at most: 512 KiB.
const MAX_BEHIND: u64 = 64 * CHUNK;
/// Tracks kept. The oldest incarnations are forgotten above it.
pub const MAX_SOURCES: usize = 65_536;

const CHUNK: u64 = 1 << 16;
const WORDS: usize = (CHUNK / 64) as usize;

/// Short name of an (origin, incarnation) within this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u32);

/// A message by its identity, as this run of the node knows it.
pub(crate) type Id = (Source, Sequence);

/// What the seen-set says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenVerdict {
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

    /// The short name of a message's origin and incarnation, made if it is new.
    pub fn source_of(&mut self, message: &Message) -> Source {
        match self.find(message.origin(), message.incarnation()) {
            Some(source) => source,
            None => self.source(&message.identity().origin, message.incarnation()),
        }
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
    pub fn check(&self, source: Source, sequence: Sequence) -> SeenVerdict {
        self.tracks.get(&source).map_or(SeenVerdict::New, |track| track.check(sequence.get()))
    }

    /// Marks the message as processed. Answers whether it was not before.
    pub fn mark(&mut self, source: Source, sequence: Sequence) -> bool {
        let Some(track) = self.tracks.get_mut(&source) else { return false };
        if track.check(sequence.get()) == SeenVerdict::Seen {
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

    /// Takes a mark back, because the message may come again. Answers whether it is taken back: not
    /// if it was not there, nor if it would cost a bitmap for more than [`MAX_BEHIND`] others.
    pub fn forget(&mut self, source: Source, sequence: Sequence) -> bool {
        let Some(track) = self.tracks.get(&source) else { return false };
        let behind = track.prefix.saturating_sub(sequence.get());
        if track.check(sequence.get()) != SeenVerdict::Seen || behind > MAX_BEHIND {
            return false;
        }
        self.unmark(source, sequence);
        while self.chunks > MAX_CHUNKS && self.give_up_lowest_chunk() {}
        true
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

    fn check(&self, sequence: u64) -> SeenVerdict {
        if sequence <= self.prefix || self.bit(sequence) {
            SeenVerdict::Seen
        } else if sequence <= self.floor {
            SeenVerdict::Below
        } else {
            SeenVerdict::New
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
        assert_eq!(seen.check(source, Sequence::new(70_000)), SeenVerdict::Seen);
        assert_eq!(seen.check(source, Sequence::new(70_001)), SeenVerdict::New);
    }

    #[test]
    fn a_mark_far_behind_the_last_one_stays() {
        let (mut seen, source) = seen_of_one();
        for sequence in 1..=MAX_BEHIND + 2 {
            seen.mark(source, Sequence::new(sequence));
        }
        assert!(!seen.forget(source, Sequence::new(1)));
        assert!(seen.forget(source, Sequence::new(2)));
        assert_eq!(seen.check(source, Sequence::new(2)), SeenVerdict::New);
        assert_eq!(seen.check(source, Sequence::new(MAX_BEHIND + 2)), SeenVerdict::Seen);
    }

    // keeps: memory-bounds
    #[test]
    fn memory_is_bounded_and_what_was_given_up_is_below() {
        let (mut seen, source) = seen_of_one();
        for chunk in 0..=MAX_CHUNKS as u64 {
            seen.mark(source, Sequence::new(chunk * CHUNK + 2));
        }
        assert_eq!(seen.chunks, MAX_CHUNKS);
        assert_eq!(seen.check(source, Sequence::new(2)), SeenVerdict::Below);
        assert_eq!(seen.check(source, Sequence::new(CHUNK + 2)), SeenVerdict::Seen);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Mark(u64),
        Unmark(u64),
        Forget(u64),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let sequence = prop_oneof![1..40_u64, 65_500..65_600_u64, 131_000..131_100_u64];
        prop_oneof![
            6 => sequence.clone().prop_map(Step::Mark),
            2 => sequence.clone().prop_map(Step::Unmark),
            1 => sequence.prop_map(Step::Forget),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        // keeps: once-no-loops
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
                    Step::Forget(n) => {
                        prop_assert_eq!(seen.forget(source, Sequence::new(n)), model.remove(&n));
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
                let is_seen = model.contains(&n);
                let expected = if is_seen { SeenVerdict::Seen } else { SeenVerdict::New };
                prop_assert_eq!(seen.check(source, Sequence::new(n)), expected, "{}", n);
            }
        }
    }

    /// Several origins and starts, and a memory that is full: sequences far apart need a bitmap
    /// each.
    #[derive(Debug, Clone)]
    enum Crowded {
        Mark(usize, u64),
        Unmark,
        Restart,
    }

    /// Origin and incarnation of the sources; the first one is the oldest, and gives way first.
    const SOURCES: [(&str, u64); 4] = [("a", 1), ("a", 2), ("b", 2), ("c", 3)];

    fn crowded() -> impl Strategy<Value = Crowded> {
        let sequence = prop_oneof![
            3 => 1..5_u64,
            3 => (0..30_u64).prop_map(|chunk| chunk * CHUNK + 2),
            1 => (0..30_u64).prop_map(|chunk| u64::MAX - chunk * CHUNK),
        ];
        prop_oneof![
            8 => (0..SOURCES.len(), sequence).prop_map(|(s, n)| Crowded::Mark(s, n)),
            1 => Just(Crowded::Unmark),
            1 => Just(Crowded::Restart),
        ]
    }

    fn sources(seen: &mut Seen) -> Vec<Source> {
        let name = |origin| NodeId::new(origin).expect("a name");
        SOURCES.iter().map(|(o, n)| seen.source(&name(o), Incarnation::new(*n))).collect()
    }

    proptest! {
        // Each case fills the memory that is allowed, 64 MiB.
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn a_full_seen_set_never_takes_seen_for_new(
            steps in prop::collection::vec(crowded(), 1..80),
        ) {
            let mut seen = Seen::default();
            let mut short = sources(&mut seen);
            let mut model = alloc::vec![BTreeSet::<u64>::new(); SOURCES.len()];
            for chunk in 0..MAX_CHUNKS as u64 - 8 {
                let sequence = (1_000 + chunk) * CHUNK;
                seen.mark(short[0], Sequence::new(sequence));
                model[0].insert(sequence);
            }
            let mut stored: BTreeMap<SeenKey, Bytes> = BTreeMap::new();
            let mut last = None;
            for step in steps {
                match step {
                    Crowded::Mark(source, n) => {
                        let before = seen.check(short[source], Sequence::new(n));
                        let fresh = seen.mark(short[source], Sequence::new(n));
                        prop_assert_eq!(fresh, before != SeenVerdict::Seen);
                        let is_new = model[source].insert(n);
                        prop_assert!(is_new || !fresh || before == SeenVerdict::Below);
                        last = is_new.then_some((source, n));
                    }
                    // Only what the growing batch has marked is ever taken back.
                    Crowded::Unmark => {
                        if let Some((source, n)) = last.take() {
                            seen.unmark(short[source], Sequence::new(n));
                            model[source].remove(&n);
                        }
                    }
                    Crowded::Restart => {
                        let (records, dropped) = seen.take_changes();
                        dropped.iter().for_each(|key| drop(stored.remove(key)));
                        stored.extend(records.into_iter().map(|r| (r.key, r.marks)));
                        let stored = stored.clone().into_iter();
                        let records: Vec<SeenRecord> =
                            stored.map(|(key, marks)| SeenRecord { key, marks }).collect();
                        seen = Seen::recover(&records);
                        short = sources(&mut seen);
                        last = None;
                    }
                }
                prop_assert!(seen.chunks <= MAX_CHUNKS);
            }
            for (source, marked) in short.iter().zip(&model) {
                for n in marked {
                    let verdict = seen.check(*source, Sequence::new(*n));
                    prop_assert!(verdict != SeenVerdict::New, "{} would be processed again", n);
                }
                for n in (1..40).filter(|n| !marked.contains(n)) {
                    prop_assert!(seen.check(*source, Sequence::new(n)) != SeenVerdict::Seen);
                }
            }
        }
    }

    /// Most bytes allocated at a time for what a record says: serde reserves at most 1 MiB for a
    /// list on its word, and the bitmap has 8 KiB.
    const MOST_BYTES: u64 = 2 << 20;

    proptest! {
        #[test]
        fn any_record_is_read_or_left_out(
            chunk in prop_oneof![0..3_u64, Just(u64::MAX)],
            marks in prop::collection::vec(any::<u8>(), 0..64),
            n in prop_oneof![1..200_000_u64, Just(u64::MAX)],
        ) {
            let key = SeenKey {
                origin: NodeId::new("a").expect("a name"),
                incarnation: Incarnation::new(1),
                chunk,
            };
            let records = [SeenRecord { key, marks: marks.into() }];
            let taken = allocation_counter::measure(|| {
                let mut seen = Seen::recover(&records);
                let source =
                    seen.source(&NodeId::new("a").expect("a name"), Incarnation::new(1));
                for sequence in [1, n, n] {
                    seen.mark(source, Sequence::new(sequence));
                    assert_eq!(seen.check(source, Sequence::new(sequence)), SeenVerdict::Seen);
                }
                let _changes = seen.take_changes();
            });
            prop_assert!(taken.bytes_max <= MOST_BYTES, "{} bytes", taken.bytes_max);
        }

        #[test]
        fn a_bitmap_is_read_as_it_was_written(
            marked in prop::collection::btree_set(1..CHUNK, 0..200),
            change in 1..=255_u8,
        ) {
            let mut bits = Box::new([0; WORDS]);
            for sequence in &marked {
                let (_, word, bit) = place(*sequence);
                bits[word] |= bit;
            }
            let encoded = encode_chunk(&bits);
            prop_assert_eq!(decode_chunk(&encoded), Some(bits));
            for end in 0..encoded.len() {
                prop_assert!(decode_chunk(&encoded[..end]).is_none(), "cut at {}", end);
            }
            // There is no checksum: a changed byte is refused, or is another bitmap.
            for at in 0..encoded.len() {
                let mut changed = encoded.to_vec();
                changed[at] ^= change;
                let taken = allocation_counter::measure(|| drop(decode_chunk(&changed)));
                prop_assert!(taken.bytes_max <= MOST_BYTES, "{} bytes", taken.bytes_max);
            }
        }
    }
}
