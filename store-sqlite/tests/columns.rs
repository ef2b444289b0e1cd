//! Every single byte of what is read back, changed in the file: nothing of it is answered.
//!
//! The checksum of a row is taken over its numbers and its message as it was encoded, so it covers
//! every column that is read back. The other columns (kind, expiry, size, messageId) are copies by
//! which rows are found or counted: what they say is never answered.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;

use common::*;
use rusqlite::Connection;
use rusqlite::types::Value;
use slipstream_core::ids::*;
use slipstream_core::store::*;
use slipstream_core::time::WallMs;
use slipstream_store_sqlite::Damaged;

/// What a byte is changed by: its lowest bit, its highest, all of them.
const CHANGES: [u8; 3] = [1, 0x80, 0xff];

/// A change of one byte in one column.
#[derive(Debug, Clone)]
struct Change {
    column: &'static str,
    at: usize,
    by: u8,
}

/// Every change of one byte that the columns of this row allow.
fn changes(db: &Connection, table: &str, columns: &[&'static str]) -> Vec<Change> {
    let mut changes = Vec::new();
    for &column in columns {
        let bytes = match cell(db, table, column, 1) {
            Value::Integer(_) => 8,
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            other => panic!("{column} is {other:?}"),
        };
        assert!(bytes > 0, "{column} holds nothing that could be damaged");
        let places = (0..bytes).flat_map(|at| CHANGES.map(|by| Change { column, at, by }));
        changes.extend(places);
    }
    changes
}

fn cell(db: &Connection, table: &str, column: &str, id: u64) -> Value {
    let sql = format!("SELECT {column} FROM {table} WHERE rowid = ?1");
    db.query_row(&sql, [id.cast_signed()], |row| row.get(0)).unwrap()
}

/// Makes the change in the row with this number.
fn strike(db: &Connection, table: &str, id: u64, change: &Change) {
    let Change { column, at, by } = *change;
    let (value, kind) = match cell(db, table, column, id) {
        Value::Integer(number) => (Value::Integer(number ^ (i64::from(by) << (at * 8))), "INTEGER"),
        Value::Text(text) => (Value::Blob(struck(text.into_bytes(), at, by)), "TEXT"),
        Value::Blob(bytes) => (Value::Blob(struck(bytes, at, by)), "BLOB"),
        other => panic!("{column} is {other:?}"),
    };
    let sql = format!("UPDATE {table} SET {column} = CAST(?1 AS {kind}) WHERE rowid = ?2");
    assert_eq!(db.execute(&sql, (value, id.cast_signed())).unwrap(), 1);
}

fn struck(mut bytes: Vec<u8>, at: usize, by: u8) -> Vec<u8> {
    bytes[at] ^= by;
    bytes
}

fn database(directory: &Path) -> Connection {
    Connection::open(directory.join("slipstream.db")).unwrap()
}

fn row(position: u64) -> Row {
    let row = state(position, "order:123", "{\"amount\":1.10}");
    // As many bytes in each number as it may have.
    let (publisher, only) = (SessionId::new(0x0102_0304_0506), SessionId::new(0x0605_0403_0201));
    Row { publisher: Some(publisher), only: Some(only), key_hash: None, ..row }
}

fn letter(id: u64) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::new(id),
        session: SessionId::new(77),
        reason: DeadReason::TooLarge,
        attempts: 9,
        first_error: "first".into(),
        last_error: "last".into(),
        first_at: WallMs(1_790_000_000_000),
        died_at: WallMs(1_790_000_000_001),
        message: state(id, "k", "1").message,
    }
}

#[test]
fn every_changed_byte_of_a_row_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let columns = ["publisher", "only_session", "checksum", "key", "head", "value"];
    harness.commit(batch(vec![row(1)]));
    harness.store.close().unwrap();
    let changes = changes(&database(directory.path()), "log", &columns);
    assert!(changes.len() > 150, "{}", changes.len());

    let mut harness = Harness::open(directory.path());
    let last = changes.len() as u64 + 1;
    harness.commit(batch((2..=last + 1).map(row).collect()));
    harness.store.close().unwrap();
    let db = database(directory.path());
    for (position, change) in (2..).zip(&changes) {
        strike(&db, "log", position, change);
    }
    drop(db);

    let mut harness = Harness::open(directory.path());
    let answered = harness.positions();
    let passed: Vec<_> = answered.iter().filter(|at| (2..=last).contains(*at)).collect();
    let passed: Vec<_> = passed.iter().map(|at| &changes[**at as usize - 2]).collect();
    assert!(passed.is_empty(), "answered as good: {passed:?}");
    assert_eq!(answered, [1, last + 1], "what is sound is answered");
    for position in 2..=last {
        assert!(harness.damaged.contains(&Damaged::Row(Position::new(position))), "{position}");
    }
}

#[test]
fn a_row_in_another_place_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![row(1), row(2)]));
    harness.store.close().unwrap();
    let moved = "UPDATE log SET position = position + 256 WHERE position = 1";
    assert_eq!(database(directory.path()).execute(moved, []).unwrap(), 1);

    let mut harness = Harness::open(directory.path());
    assert_eq!(harness.positions(), [2]);
    assert!(harness.damaged.contains(&Damaged::Row(Position::new(257))));
}

#[test]
fn copies_by_which_rows_are_counted_change_nothing_that_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let rows: Vec<Row> = (1..=4).map(|n| state(n, &format!("k{n}"), "1")).collect();
    harness.commit(batch(rows.clone()));
    harness.store.close().unwrap();
    let db = database(directory.path());
    for (position, change) in
        [(1, "kind = 77"), (2, "expires = 7"), (3, "size = 1"), (4, "message_id = 'other'")]
    {
        let sql = format!("UPDATE log SET {change} WHERE position = {position}");
        assert_eq!(db.execute(&sql, []).unwrap(), 1);
    }
    drop(db);

    let mut harness = Harness::open(directory.path());
    let found: Vec<_> = harness.rows().into_iter().map(|stored| stored.row.message).collect();
    let expected: Vec<_> = rows.into_iter().map(|row| row.message).collect();
    assert_eq!(found, expected);
    assert!(harness.damaged.is_empty(), "{:?}", harness.damaged);
}

#[test]
fn every_changed_byte_of_a_dead_letter_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let columns = [
        "session",
        "reason",
        "attempts",
        "first_error",
        "last_error",
        "first_at",
        "died_at",
        "checksum",
        "key",
        "head",
        "value",
    ];
    harness.commit(Batch { dead_letters: vec![letter(1)], ..batch(vec![]) });
    harness.store.close().unwrap();
    let changes = changes(&database(directory.path()), "dead_letters", &columns);

    let mut harness = Harness::open(directory.path());
    let last = changes.len() as u64 + 1;
    let dead_letters = (2..=last + 1).map(letter).collect();
    harness.commit(Batch { dead_letters, ..batch(vec![]) });
    harness.store.close().unwrap();
    let db = database(directory.path());
    for (id, change) in (2..).zip(&changes) {
        strike(&db, "dead_letters", id, change);
    }
    drop(db);

    let mut harness = Harness::open(directory.path());
    let query = Query::DeadLetters { after: DeadLetterId::new(0), limit: usize::MAX };
    let Answer::DeadLetters(found) = harness.fetch(query) else { panic!("another answer") };
    let passed = found.iter().filter(|letter| (2..=last).contains(&letter.id.get()));
    let passed: Vec<_> = passed.map(|letter| &changes[letter.id.get() as usize - 2]).collect();
    assert!(passed.is_empty(), "answered as good: {passed:?}");
    assert_eq!(found, [letter(1), letter(last + 1)]);
}
