//! The store against a naive model, killed at any point.
//!
//! The model keeps every row that was ever committed. What the store may have forgotten is
//! checked against the rule itself: rows that were history at some commit, and nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::*;
use proptest::prelude::*;
use slipstream_core::clock::Timely;
use slipstream_core::digest::{BUCKETS, Print, bucket_of, print_of};
use slipstream_core::ids::*;
use slipstream_core::message::Kind;
use slipstream_core::store::*;
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;

#[derive(Debug, Clone)]
enum Step {
    Commit {
        /// Key of a state row, an event, or a replay.
        rows: Vec<(u16, u8)>,
        /// Positions that are skipped; many let the table `latest` be brought up to date.
        skip: u64,
        /// In sixteenths of the log.
        floor: u64,
        /// So many sixteenths further no superseded state is needed.
        ahead: u64,
        history_max_bytes: u64,
        wall: u64,
        /// Deletes older than this part of the log may be forgotten, in sixteenths.
        tombstones: u64,
    },
    Kill,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let row = (0..400_u16, 0..14_u8);
    let rows = prop_oneof![
        3 => prop::collection::vec(row.clone(), 0..8),
        1 => prop::collection::vec(row, 150..400),
    ];
    let skip = prop_oneof![3 => Just(0_u64), 1 => 1..600_u64, 1 => Just(40_000_u64)];
    let history = prop_oneof![2 => Just(0_u64), 1 => 0..60_000_u64, 1 => Just(u64::MAX)];
    let ahead = prop_oneof![Just(0_u64), 0..=16_u64];
    let commit = (rows, skip, 0..=16_u64, ahead, history, 0..100_u64, 0..=16_u64).prop_map(
        |(rows, skip, floor, ahead, history_max_bytes, wall, tombstones)| Step::Commit {
            rows,
            skip,
            floor,
            ahead,
            history_max_bytes,
            wall,
            tombstones,
        },
    );
    prop_oneof![8 => commit, 1 => Just(Step::Kill), 1 => Just(Step::Reopen)]
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<u64, Row>,
    newest: HashMap<Hash128, u64>,
    head: u64,
    /// No session needed a row up to here, at some commit.
    highest_floor: u64,
    /// No session needed superseded state up to here, at some commit.
    highest_state_floor: u64,
    /// Deletes that the store has forgotten.
    forgotten: BTreeSet<u64>,
}

impl Model {
    fn batch(&self, step: &Step) -> Option<Batch> {
        let Step::Commit { rows, skip, floor, ahead, history_max_bytes, wall, tombstones } = step
        else {
            return None;
        };
        let first = self.head + skip + 1;
        let rows = rows.iter().zip(first..).map(|(&(key, kind), position)| match kind {
            0 => event(position, "e", "1", u64::from(key) % 100 + 1),
            1 => Row {
                only: Some(SessionId::new(1)),
                key_hash: None,
                ..state(position, &format!("k{key}"), "1")
            },
            2 => state(position, "hot", "1"),
            3..=5 => in_tags(position, "", &format!("k{}", key % 40), "null"),
            6 => in_tags(position, "a", &format!("k{}", key % 40), "1"),
            7 => in_tags(position, "a", &format!("k{}", key % 40), "null"),
            8 => in_tags(position, "a,b", &format!("k{}", key % 40), "1"),
            _ => state(position, &format!("k{key}"), "1"),
        });
        Some(Batch {
            rows: rows.collect(),
            floor: Position::new(self.head * floor / 16),
            state_floor: Position::new(self.head * (floor + ahead).min(16) / 16),
            history_max_bytes: *history_max_bytes,
            wall: WallMs(*wall),
            tombstones_before: WallMs(self.head * tombstones / 16),
            ..Batch::default()
        })
    }

    fn apply(&mut self, batch: &Batch) {
        for row in &batch.rows {
            self.head = row.position.get();
            self.rows.insert(self.head, row.clone());
            if let Some(key) = row.key_hash {
                self.newest.insert(key, self.head);
            }
        }
        self.highest_floor = self.highest_floor.max(batch.floor.get());
        let state_floor = batch.state_floor.max(batch.floor).get();
        self.highest_state_floor = self.highest_state_floor.max(state_floor);
    }

    /// Commits a batch, and looks at which deletes the store has forgotten with it.
    fn commit(&mut self, batch: Batch, harness: &mut Harness) -> Usage {
        let may_go: Vec<u64> = self
            .newest
            .values()
            .copied()
            .filter(|position| self.may_forget(*position, &batch))
            .collect();
        self.apply(&batch);
        let usage = harness.commit(batch);
        if may_go.is_empty() {
            return usage;
        }
        let there: BTreeSet<u64> = harness.positions().into_iter().collect();
        self.forgotten.extend(may_go.into_iter().filter(|position| !there.contains(position)));
        let deletes =
            there.iter().filter(|position| self.rows[position].message.kind() == Kind::Dk);
        assert!(usage.tombstones <= deletes.count() as u64);
        let known = there.iter().filter(|position| self.is_tombstone(&self.rows[position]));
        assert!(usage.tombstones >= known.count() as u64);
        usage
    }

    fn is_newest(&self, row: &Row) -> bool {
        row.key_hash.is_some_and(|key| self.newest[&key] == row.position.get())
    }

    /// A row for one session only competes by its version, any other by its place.
    fn is_superseded(&self, row: &Row) -> bool {
        let newest = row.message.key_hash().and_then(|key| self.newest.get(&key));
        newest.is_some_and(|newest| match row.only {
            Some(_) if self.forgotten.contains(newest) => false,
            Some(_) => self.rows[newest].message.is_newer_than(&row.message),
            None => *newest != row.position.get(),
        })
    }

    /// Whether the store may forget this delete with `batch`, as things stand before it.
    fn may_forget(&self, position: u64, batch: &Batch) -> bool {
        let row = &self.rows[&position];
        let (floor, before) = (batch.floor.get(), batch.tombstones_before.0);
        self.is_tombstone(row)
            && position <= floor
            && row.message.version().wall().0 < before
            && self.of_key(row.message.key()).all(|row| row.message.kind() == Kind::Dk)
    }

    fn is_tombstone(&self, row: &Row) -> bool {
        self.is_newest(row) && row.message.kind() == Kind::Dk
    }

    /// The newest row of each tag set of a key that the store must know.
    fn of_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Row> {
        let known = self.newest.values().filter(|position| !self.forgotten.contains(position));
        known.map(|position| &self.rows[position]).filter(move |row| row.message.key() == key)
    }

    fn check_values(&self, harness: &mut Harness) {
        let keys: Vec<String> = (0..60).map(|key| format!("k{key}")).collect();
        for tags in [&[][..], &["a"], &["b", "c"]] {
            let tags = TagSet::new(tags.iter().copied()).unwrap();
            let query =
                Query::Values { keys: keys.clone(), tags: tags.clone(), timely: Timely::ALL };
            let Answer::Values(found) = harness.fetch(query) else { panic!("another answer") };
            assert_eq!(found.len(), keys.len());
            for (key, found) in keys.iter().zip(found) {
                let matching = self.of_key(key).filter(|row| tags.matches(row.message.tags()));
                // Versions grow with positions here.
                let newest = matching.max_by_key(|row| row.position);
                let expected = newest.map_or(Value::Absent, |row| {
                    let (position, message) = (row.position, row.message.clone());
                    Value::Newest(Latest { position, message })
                });
                assert_eq!(found, expected, "{key} for {tags:?}");
            }
        }
    }

    fn check(&self, harness: &mut Harness) {
        let found = harness.rows();
        let mut there = BTreeSet::new();
        for StoredRow { row, superseded } in &found {
            let position = row.position.get();
            assert_eq!(row.message, self.rows[&position].message);
            assert_eq!(*superseded, self.is_superseded(row));
            there.insert(position);
        }
        for (position, row) in &self.rows {
            let is_state = row.key_hash.is_some();
            let floor = if is_state { self.highest_state_floor } else { self.highest_floor };
            let newest = self.is_newest(row) && !self.forgotten.contains(position);
            let kept = newest || *position > floor;
            assert!(there.contains(position) || !kept, "{position} is gone");
        }
        let keys: Vec<Hash128> = self.newest.keys().copied().collect();
        let Answer::Latest(latest) = harness.fetch(Query::Latest(keys.clone())) else {
            panic!("another answer")
        };
        for (key, found) in keys.iter().zip(latest) {
            let newest = self.newest.get(key).filter(|newest| !self.forgotten.contains(newest));
            assert_eq!(found.map(|found| found.position.get()), newest.copied());
        }
        self.check_values(harness);
        self.check_digests(harness);
    }

    /// The live rows of a tag set, each with its print, in the order of their hashes.
    fn live(&self, tags: &str) -> BTreeMap<Hash128, (Print, u64)> {
        let live = self.newest.iter().map(|(key, position)| (*key, &self.rows[position]));
        let live = live.filter(|(_, row)| row.message.tags() == tags);
        let live = live.map(|(key, row)| (key, (print_of(&key, &row.message), row)));
        live.filter(|(_, (print, _))| *print != Print::NOTHING)
            .map(|(key, (print, row))| (key, (print, row.position.get())))
            .collect()
    }

    /// The digests are what one gets who adds everything up.
    fn check_digests(&self, harness: &mut Harness) {
        let roots = harness.roots();
        let sum = |prints: &mut dyn Iterator<Item = Print>| {
            prints.fold(Print::NOTHING, |sum, print| sum.plus(print))
        };
        let mut expected = Vec::new();
        for (n, tags) in ["", "a", "a,b"].into_iter().enumerate() {
            let live = self.live(tags);
            let set = TagSet::new(slipstream_core::tags::list(tags)).unwrap();
            let all = sum(&mut live.values().map(|(print, _)| *print));
            let mut buckets = vec![Print::NOTHING; usize::from(BUCKETS)];
            for (key, (print, _)) in &live {
                let bucket = &mut buckets[usize::from(bucket_of(key))];
                *bucket = bucket.plus(*print);
            }
            // One of them each time: it is a thousand sums.
            if self.head % 3 == n as u64 {
                assert_eq!(harness.buckets(&set), buckets, "{tags}");
                let bucket = live.keys().next().map_or(0, bucket_of);
                let here = live.iter().filter(|(key, _)| bucket_of(key) == bucket);
                let here: Vec<_> = here.map(|(_, entry)| *entry).collect();
                assert_eq!(harness.entries(&set, bucket), here, "{tags} {bucket}");
            }
            if all != Print::NOTHING {
                expected.push((set, all));
            }
        }
        assert_eq!(roots, expected);
    }

    /// What of `rows` is history under the floor of all rows and that of state.
    fn history(&self, rows: &[StoredRow], (floor, state_floor): (u64, u64)) -> u64 {
        let floor = |row: &Row| if row.key_hash.is_some() { state_floor } else { floor };
        let history = rows
            .iter()
            .map(|row| &row.row)
            .filter(|row| row.position.get() <= floor(row) && !self.is_newest(row));
        history.map(|row| row.size() as u64).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    // keeps: history-only, read-matches, digests-exact
    #[test]
    fn the_store_does_what_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        let mut directory = tempfile::tempdir().unwrap();
        let mut harness = Harness::open(directory.path());
        let mut model = Model::default();
        for step in steps {
            match &step {
                Step::Kill => {
                    let killed = image(directory.path());
                    drop(harness);
                    directory = killed;
                    harness = Harness::open(directory.path());
                    assert_eq!(harness.recovered.head.get(), model.head);
                }
                Step::Reopen => {
                    drop(harness);
                    harness = Harness::open(directory.path());
                    let rows = harness.rows();
                    let there: u64 = rows.iter().map(|row| row.row.size() as u64).sum();
                    let told = harness.recovered.backlog.from(Position::new(1));
                    prop_assert_eq!(told, there);
                }
                Step::Commit { .. } => {
                    let batch = model.batch(&step).unwrap();
                    let before = harness.rows();
                    let floor = (batch.floor.get(), batch.state_floor.get());
                    let bound = batch.history_max_bytes;
                    let usage = model.commit(batch, &mut harness);
                    let after = harness.rows();
                    prop_assert_eq!(usage.rows, after.len() as u64);
                    prop_assert!(usage.history_bytes <= model.history(&after, floor));
                    // No more was deleted than the bound asked for.
                    let gone = before.iter().find(|row| {
                        let position = row.row.position;
                        let forgotten = model.forgotten.contains(&position.get());
                        !forgotten && !after.iter().any(|row| row.row.position == position)
                    });
                    if gone.is_some() {
                        let largest = before.iter().map(|row| row.row.size() as u64).max();
                        let kept = model.history(&after, floor) + largest.unwrap();
                        prop_assert!(kept > bound, "{} under {}", kept, bound);
                    }
                }
            }
            model.check(&mut harness);
        }
        // In the end only the newest row of each key is left, and no delete that may go.
        let mut head = model.head;
        for _ in 0..200 {
            head += 40_000;
            let rows = vec![state(head, "hot", "2")];
            let tombstones_before = WallMs(head - 1);
            model.commit(Batch { rows, tombstones_before, ..trim(head - 1, 1000) }, &mut harness);
        }
        model.check(&mut harness);
        let rows = harness.rows();
        // Of the last ones it is known only behind the log that they are superseded.
        prop_assert!(rows.len() <= model.newest.len() + 3, "{} rows", rows.len());
        let all = Batch { tombstones_before: WallMs(u64::MAX), ..trim(head, 1000) };
        for StoredRow { row, .. } in &rows {
            prop_assert!(!model.may_forget(row.position.get(), &all), "{:?}", row);
        }
    }
}
