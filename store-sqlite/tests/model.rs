//! The store against a naive model, killed at any point.
//!
//! The model keeps every row that was ever committed. What the store may have forgotten is
//! checked against the rule itself: rows that were history at some commit, and nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::*;
use proptest::prelude::*;
use slipstream_core::ids::*;
use slipstream_core::store::*;
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
    },
    Kill,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let row = (0..400_u16, 0..10_u8);
    let rows = prop_oneof![
        3 => prop::collection::vec(row.clone(), 0..8),
        1 => prop::collection::vec(row, 150..400),
    ];
    let skip = prop_oneof![3 => Just(0_u64), 1 => 1..600_u64, 1 => Just(40_000_u64)];
    let history = prop_oneof![2 => Just(0_u64), 1 => 0..60_000_u64, 1 => Just(u64::MAX)];
    let ahead = prop_oneof![Just(0_u64), 0..=16_u64];
    let commit = (rows, skip, 0..=16_u64, ahead, history, 0..100_u64).prop_map(
        |(rows, skip, floor, ahead, history_max_bytes, wall)| Step::Commit {
            rows,
            skip,
            floor,
            ahead,
            history_max_bytes,
            wall,
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
}

impl Model {
    fn batch(&self, step: &Step) -> Option<Batch> {
        let Step::Commit { rows, skip, floor, ahead, history_max_bytes, wall } = step else {
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
            _ => state(position, &format!("k{key}"), "1"),
        });
        Some(Batch {
            rows: rows.collect(),
            floor: Position::new(self.head * floor / 16),
            state_floor: Position::new(self.head * (floor + ahead).min(16) / 16),
            history_max_bytes: *history_max_bytes,
            wall: WallMs(*wall),
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

    fn is_newest(&self, row: &Row) -> bool {
        row.key_hash.is_some_and(|key| self.newest[&key] == row.position.get())
    }

    /// A row for one session only competes by its version, any other by its place.
    fn is_superseded(&self, row: &Row) -> bool {
        let newest = row.message.key_hash().and_then(|key| self.newest.get(&key));
        newest.is_some_and(|newest| match row.only {
            Some(_) => self.rows[newest].message.is_newer_than(&row.message),
            None => *newest != row.position.get(),
        })
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
            let kept = self.is_newest(row) || *position > floor;
            assert!(there.contains(position) || !kept, "{position} is gone");
        }
        let keys: Vec<Hash128> = self.newest.keys().copied().collect();
        let Answer::Latest(latest) = harness.fetch(Query::Latest(keys.clone())) else {
            panic!("another answer")
        };
        for (key, found) in keys.iter().zip(latest) {
            assert_eq!(found.map(|found| found.position.get()), self.newest.get(key).copied());
        }
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
                    let told = harness.recovered.extent.from(Position::new(1));
                    prop_assert_eq!(told, there);
                }
                Step::Commit { .. } => {
                    let batch = model.batch(&step).unwrap();
                    let before = harness.rows();
                    let floor = (batch.floor.get(), batch.state_floor.get());
                    let bound = batch.history_max_bytes;
                    model.apply(&batch);
                    let usage = harness.commit(batch);
                    let after = harness.rows();
                    prop_assert_eq!(usage.rows, after.len() as u64);
                    prop_assert!(usage.history_bytes <= model.history(&after, floor));
                    // No more was deleted than the bound asked for.
                    let gone = before.iter().find(|row| {
                        let position = row.row.position;
                        !after.iter().any(|row| row.row.position == position)
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
        // In the end only the newest row of each key is left.
        let mut head = model.head;
        for _ in 0..200 {
            head += 40_000;
            let batch = Batch { rows: vec![state(head, "hot", "2")], ..trim(head - 1, 1000) };
            model.apply(&batch);
            harness.commit(batch);
        }
        model.check(&mut harness);
        let rows = harness.rows();
        // Of the last ones it is known only behind the log that they are superseded.
        prop_assert!(rows.len() <= model.newest.len() + 3, "{} rows", rows.len());
    }
}
