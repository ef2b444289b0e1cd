//! What the store forgets, and what it never forgets (P8).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use slipstream_core::clock::Timely;
use slipstream_core::copies;
use slipstream_core::ids::*;
use slipstream_core::message::Kind;
use slipstream_core::store::*;
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;

fn size(rows: &[Row]) -> u64 {
    rows.iter().map(|row| row.size() as u64).sum()
}

#[test]
fn the_files_stay_small_under_many_messages_of_few_keys() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let value = format!("\"{}\"", "v".repeat(1000));
    let mut most = 0;
    for number in 0..400 {
        let first = number * 500 + 1;
        let rows = (first..first + 500).map(|n| state(n, &format!("k{}", n % 20), &value));
        let usage = harness.commit(Batch {
            rows: rows.collect(),
            floor: Position::new(first.saturating_sub(1)),
            history_max_bytes: 8 << 20,
            ..Batch::default()
        });
        most = most.max(usage.database_bytes + usage.wal_bytes);
        assert!(usage.history_bytes < 10 << 20, "{usage:?}");
    }
    assert!(most < 64 << 20, "{most} bytes");
    let usage = harness.commit(Batch { history_max_bytes: 8 << 20, ..trim(200_000, 0) });
    assert!(usage.history_bytes > 7 << 20, "{usage:?}");
    assert_eq!(usage.dropped_total + usage.rows, 200_000);
    assert_eq!(usage.forgotten_total, 0);
}

#[test]
fn a_file_that_was_large_shrinks() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let value = format!("\"{}\"", "v".repeat(100_000));
    for n in 1..=400 {
        harness.commit(batch(vec![state(n, "k", &value)]));
    }
    harness.commit(trim(400, 0));
    let large = harness.commit(trim(400, 0));
    assert_eq!(large.rows, 1 + 400 - 1 - large.dropped_total);
    let mut usage = large;
    for _ in 0..300 {
        usage = harness.commit(trim(400, 0));
    }
    assert_eq!(usage.rows, 1);
    assert!(usage.used_bytes < 1 << 20, "{usage:?}");
    harness.store.close().unwrap();
    let file = std::fs::metadata(directory.path().join("slipstream.db")).unwrap();
    assert!(file.len() < 8 << 20, "{} of {}", file.len(), large.database_bytes);
}

// keeps: history-only
#[test]
fn nothing_above_the_floor_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let mut rows: Vec<Row> = (1..=20).map(|n| state(n, "k", "1")).collect();
    rows.extend((21..=30).map(|n| event(n, "e", "1", 5)));
    rows.push(state(31, "k", "2"));
    harness.commit(batch(rows));
    for floor in [0, 10, 10, 9] {
        harness.commit(trim(floor, 100));
        let first = if floor == 0 { 1 } else { 11 };
        assert_eq!(harness.positions(), (first..=31).collect::<Vec<_>>(), "floor {floor}");
    }
    harness.commit(trim(25, 100));
    assert_eq!(harness.positions(), (26..=31).collect::<Vec<_>>());
    let usage = harness.commit(trim(1000, 100));
    assert_eq!(harness.positions(), [31]);
    assert_eq!((usage.dropped_total, usage.forgotten_total), (30, 0));
    assert_eq!((usage.rows, usage.history_bytes), (1, 0));
}

// keeps: history-only
#[test]
fn superseded_and_expired_rows_go_before_unexpired_events() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let replay = Row { only: Some(SessionId::new(1)), key_hash: None, ..state(3, "a", "1") };
    let rows = vec![
        event(1, "e", "1", 1000),
        event(2, "e", "1", 50),
        replay,
        state(4, "a", "1"),
        event(5, "e", "1", 1000),
        state(6, "a", "2"),
        event(7, "e", "1", 40),
    ];
    let all = size(&rows);
    harness.commit(batch(rows.clone()));
    // One byte less than there is each time: one row goes.
    let mut kept = all - rows[5].size() as u64;
    let order = [(4, 1, 0), (2, 2, 0), (7, 3, 0), (1, 3, 1), (3, 3, 2), (5, 3, 3)];
    for (gone, dropped, forgotten) in order {
        let bound = Batch { history_max_bytes: kept, ..trim(7, 60) };
        let usage = harness.commit(bound);
        assert_eq!(usage.history_bytes, kept);
        let usage = harness.commit(Batch { history_max_bytes: kept - 1, ..trim(7, 60) });
        assert!(!harness.positions().contains(&gone), "{gone} of {:?}", harness.positions());
        assert_eq!((usage.dropped_total, usage.forgotten_total), (dropped, forgotten), "{gone}");
        kept -= rows[gone as usize - 1].size() as u64;
        assert_eq!(usage.history_bytes, kept);
    }
    assert_eq!(harness.positions(), [6]);
}

// keeps: forgotten-events
#[test]
fn held_events_stay_and_it_is_said_how_many_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let mut rows: Vec<Row> = (1..=600).map(|n| event(n, "e", "1", 1000)).collect();
    rows.extend((601..=610).map(|n| event(n, "e", "1", 50)));
    rows.extend((611..=620).map(|n| state(n, "k", "1")));
    let all = size(&rows) - rows[619].size() as u64;
    harness.commit(batch(rows.clone()));
    let held = |from: u64, max| Batch {
        held_from: Some(Position::new(from)),
        history_max_bytes: max,
        ..trim(620, 60)
    };
    let usage = harness.commit(held(1, all));
    assert_eq!((usage.rows, usage.held_bytes), (620, 0), "it has room for all");
    // What is superseded, or whose time is over, goes before they are said to be in the way.
    let bound = size(&rows[300..600]);
    let usage = harness.commit(held(1, bound));
    assert_eq!((usage.rows, usage.dropped_total), (601, 19));
    assert_eq!((usage.held_bytes, usage.forgotten_total), (size(&rows[..300]), 0));
    let usage = harness.commit(held(200, bound));
    assert_eq!(harness.positions()[..2], [200, 201]);
    assert_eq!((usage.held_bytes, usage.forgotten_total), (size(&rows[199..300]), 199));
    let usage = harness.commit(held(301, bound));
    assert_eq!((usage.held_bytes, usage.forgotten_total), (0, 300));
    assert_eq!(usage.history_bytes, bound);
    let usage = harness.commit(held(301, 0));
    assert_eq!((usage.held_bytes, usage.rows), (bound, 301));
    harness.commit(trim(620, 60));
    let usage = harness.commit(trim(620, 60));
    assert_eq!((usage.held_bytes, usage.rows), (0, 1), "nothing is held without a word");
}

#[test]
fn what_pending_deletes_replaced_goes_when_no_history_may_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let value = format!("\"{}\"", "v".repeat(200_000));
    harness.commit(batch((1..=8).map(|n| state(n, &format!("k{n}"), &value)).collect()));
    // So many bytes are not left pending.
    (0..3).for_each(|_| _ = harness.commit(batch(Vec::new())));
    let delete =
        |n| Row::new(Position::new(n), message(Kind::Dk, n, &format!("k{}", n - 8), "", 0));
    let deletes = (9..=16).map(delete).collect();
    let usage = harness.commit(Batch { floor: Position::new(8), ..batch(deletes) });
    assert_eq!((usage.rows, usage.tombstones), (16, 8), "{usage:?}");
    // They are few, and no row comes after them: only the want of room makes them count.
    let usage = harness.commit(Batch { history_max_bytes: 1, ..trim(16, 0) });
    assert_eq!(usage.rows, 16, "{usage:?}");
    for _ in 0..3 {
        harness.commit(trim(16, 0));
    }
    assert_eq!(harness.positions(), (9..=16).collect::<Vec<_>>(), "the values are gone");
}

#[test]
fn events_that_expire_at_different_times_go_when_they_have() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let rows: Vec<Row> = (1..=600).map(|n| event(n, "e", "1", n * 10_000)).collect();
    let bound = size(&rows[100..]);
    harness.commit(batch(rows));
    // What has expired goes first, also if it is a few at a time.
    let mut dropped = 0;
    for expired in (0..=100).step_by(10) {
        let wall = WallMs(expired * 10_000);
        let batch = Batch { wall, history_max_bytes: bound, ..trim(600, 0) };
        let usage = if expired == 0 { continue } else { harness.commit(batch) };
        dropped = usage.dropped_total;
        if expired == 100 {
            assert_eq!(usage.history_bytes, bound);
        }
    }
    assert!(dropped > 0);
    let usage = harness.commit(Batch { history_max_bytes: bound, ..trim(600, 0) });
    assert_eq!(usage.rows, 500);
    assert_eq!(harness.positions(), (101..=600).collect::<Vec<_>>());
}

#[test]
fn history_is_counted_the_same_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let mut rows: Vec<Row> = (1..=900).map(|n| state(n, &format!("k{}", n % 7), "1")).collect();
    rows.extend((901..=1000).map(|n| event(n, "e", "1", 5)));
    harness.commit(batch(rows.clone()));
    for floor in [300, 301, 555, 556, 950, 512, 511, 30] {
        let usage = harness.commit(Batch { history_max_bytes: u64::MAX, ..trim(floor, 0) });
        let below = rows.iter().filter(|row| {
            row.position.get() <= floor && !(894..=900).contains(&row.position.get())
        });
        let below: u64 = below.map(|row| row.size() as u64).sum();
        assert_eq!(usage.history_bytes, below, "{floor}");
        assert_eq!(usage.rows, 1000);
        let killed = Harness::open(image(directory.path()).path()).recovered.usage;
        assert_eq!((killed.history_bytes, killed.rows), (usage.history_bytes, 1000), "{floor}");
    }
}

#[test]
fn the_end_of_the_log_is_known_when_its_rows_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![event(10, "e", "1", 5), event(12, "e", "1", 5)]));
    assert_eq!(harness.commit(trim(12, 10)).rows, 0);
    drop(harness);
    assert_eq!(Harness::open(directory.path()).recovered.head, Position::new(12));
}

/// A session far behind, of which only the newest of each key is still handed over, and every
/// event.
// keeps: outbox-bound
#[test]
fn superseded_state_goes_before_the_floor_and_events_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let is_event = |n: u64| n.is_multiple_of(100);
    let (mut most, mut head) = (0, 0);
    for _ in 0..200 {
        let rows = (head + 1..=head + 1000).map(|n| match is_event(n) {
            true => event(n, "e", "1", 1 << 40),
            false => state(n, &format!("k{}", n % 50), "1"),
        });
        let state_floor = Position::new(head);
        let rows = rows.collect();
        let usage = harness.commit(Batch { rows, state_floor, ..Batch::default() });
        head += 1000;
        most = most.max(usage.rows - head / 100);
    }
    assert!(most < 12_000, "{most} rows besides the events");
    for _ in 0..100 {
        harness.commit(Batch { state_floor: Position::new(head), ..Batch::default() });
    }
    let left = harness.positions();
    let events = left.iter().filter(|n| is_event(**n)).count();
    assert_eq!(events, 2000);
    // Of the last ones it is known only behind the log that they are superseded.
    assert!(left.len() - events < 10_000, "{} rows", left.len());
    drop(harness);
    let mut harness = Harness::open(directory.path());
    assert_eq!(harness.positions(), left);
    let usage = harness.commit(Batch { state_floor: Position::new(head), ..Batch::default() });
    assert_eq!(usage.forgotten_total, 0);
}

/// Commits until the table of the newest rows knows everything up to here.
fn merge(harness: &mut Harness, first: u64) {
    for n in 0..3 {
        harness.commit(batch(vec![state(first + n * 40_000, "hot", "1")]));
    }
}

fn value(harness: &mut Harness, key: &str) -> Value {
    let query = Query::Values {
        keys: vec![key.into()],
        tags: TagSet::new(["a"]).unwrap(),
        timely: Timely::ALL,
    };
    let Answer::Values(mut values) = harness.fetch(query) else { panic!("another answer") };
    values.remove(0)
}

// keeps: tombstones
#[test]
fn a_delete_is_forgotten_when_it_is_old_and_hides_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![
        in_tags(1, "", "k", "1"),
        in_tags(2, "a", "k", "2"),
        in_tags(3, "", "k", "null"),
    ]));
    merge(&mut harness, 10_000);
    let forget = |before, floor| Batch {
        tombstones_before: WallMs(before),
        floor: Position::new(floor),
        ..batch(vec![])
    };
    assert_eq!(harness.commit(forget(100_000, 90_000)).tombstones, 1, "a value would come back");
    harness.commit(batch(vec![in_tags(100_000, "a", "k", "null")]));
    merge(&mut harness, 110_000);
    assert_eq!(harness.commit(forget(200_000, 99_999)).tombstones, 1, "one is above the floor");
    let Value::Newest(newest) = value(&mut harness, "k") else { panic!("it is there") };
    assert_eq!(newest.position.get(), 100_000);
    assert_eq!(harness.commit(forget(100_000, 100_000)).tombstones, 1, "one is not old enough");
    assert_eq!(harness.commit(forget(300_000, 100_000)).tombstones, 0);
    for _ in 0..2 {
        assert_eq!(value(&mut harness, "k"), Value::Absent);
        // What it had replaced stays superseded, also for who opens the store again.
        let rows = harness.rows();
        let old = rows.iter().filter(|row| row.row.message.key() == "k");
        assert_eq!(old.map(|row| row.superseded).collect::<Vec<_>>(), [true, true]);
        drop(harness);
        harness = Harness::open(directory.path());
        assert!(harness.damaged.is_empty());
    }
}

// keeps: group-once
#[test]
fn an_event_of_a_group_is_remembered_when_its_row_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    // What has a row still tells when it ends.
    let last = Row { ends: WallMs(70_000), ..of_group(4, "a") };
    let rows = vec![of_group(1, "a"), event(2, "e", "1", 9), of_group(3, "b"), last];
    harness.commit(batch(rows));
    harness.commit(trim(3, 0));
    assert_eq!(harness.positions(), [4]);
    let copies = [("a", 1), ("b", 3), ("a", 4)];
    let copy = |(id, at): (&str, u64), ends| {
        (Hash128::of(&[id.as_bytes()]), Position::new(at), WallMs(ends))
    };
    for left in [70_000, 0] {
        harness.store.close().unwrap();
        harness = Harness::open(directory.path());
        let ends = [0, 0, left];
        let expected: Vec<_> =
            copies.into_iter().zip(ends).map(|(it, ends)| copy(it, ends)).collect();
        assert_eq!(harness.recovered.copies, expected);
        harness.commit(trim(4, 0));
    }
    assert!(harness.positions().is_empty());
}

// keeps: group-once
#[test]
fn remembered_group_copies_are_bounded_and_the_last_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let (kept, all) = (copies::kept(0) as u64, 3000);
    harness.commit(batch((1..=all).map(|n| of_group(n, &format!("m-{n}"))).collect()));
    let mut rows = all;
    while rows > 0 {
        rows = harness.commit(trim(all, 0)).rows;
    }
    let remembered = |harness: &Harness| {
        let positions = harness.recovered.copies.iter().map(|(_, position, _)| position.get());
        positions.collect::<Vec<_>>()
    };
    harness.store.close().unwrap();
    let mut harness = Harness::open(directory.path());
    assert_eq!(remembered(&harness), (all - kept + 1..=all).collect::<Vec<_>>());
    harness.commit(batch(vec![of_group(all + 1, "last")]));
    harness.commit(trim(all + 1, 0));
    harness.store.close().unwrap();
    let harness = Harness::open(directory.path());
    assert_eq!(remembered(&harness), (all - kept + 2..=all + 1).collect::<Vec<_>>());
}
