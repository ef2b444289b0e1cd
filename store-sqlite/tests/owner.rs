//! Whose a database is, whether it was closed, and a log that is not its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;

use common::workload::*;
use common::*;
use rusqlite::Connection;
use slipstream_core::config::Durability;
use slipstream_core::ids::{NodeId, StoreId};
use slipstream_core::store::Store as _;
use slipstream_store_sqlite::{OpenError, Options};

const DATABASE: &str = "slipstream.db";
const WAL: &str = "slipstream.db-wal";

fn refused(directory: &Path) -> OpenError {
    Harness::with(options(directory)).err().unwrap()
}

/// A store that was closed behind so many batches.
fn closed(batches: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::with(options(directory.path())).unwrap();
    for n in 0..batches {
        harness.commit(nth(n));
    }
    harness.store.close().unwrap();
    directory
}

// keeps: wal-matches
#[test]
fn a_store_that_was_not_closed_needs_its_log() {
    let killed = killed(3);
    for is_empty in [false, true] {
        std::fs::remove_file(killed.path().join(WAL)).unwrap();
        if is_empty {
            std::fs::write(killed.path().join(WAL), "").unwrap();
        }
        let refused = refused(killed.path());
        assert!(matches!(refused, OpenError::MissingLog { .. }), "{refused:?}");
        let says = refused.to_string();
        let log = killed.path().join(WAL);
        for part in [log.to_str().unwrap(), "is missing", "--accept-missing-log"] {
            assert!(says.contains(part), "{says}");
        }
    }
    let accept = Options { accept_missing_log: true, ..options(killed.path()) };
    let mut harness = Harness::with(accept).unwrap();
    assert!(harness.positions().is_empty());
    harness.commit(nth(0));
    harness.store.close().unwrap();
    Harness::open(killed.path());
}

// keeps: wal-matches
#[test]
fn copies_of_a_stopped_store_and_snapshots_are_whole() {
    let backup = closed(3);
    std::fs::remove_file(backup.path().join(WAL)).unwrap();
    let mut harness = Harness::open(backup.path());
    let positions = harness.positions();
    let snapshot = image(backup.path());
    assert_eq!(Harness::open(snapshot.path()).positions(), positions);
    harness.commit(nth(3));
    let snapshot = image(backup.path());
    assert!(Harness::open(snapshot.path()).positions().len() > positions.len());
}

// keeps: old-stores-open
#[test]
fn a_database_that_was_made_before_there_were_marks_opens() {
    let directory = closed(3);
    let shell = Connection::open(directory.path().join(DATABASE)).unwrap();
    shell.execute_batch("DROP TABLE owner").unwrap();
    drop(shell);
    let mut harness = Harness::open(directory.path());
    harness.commit(nth(3));
    Harness::open(image(directory.path()).path());
    // It is marked from then on.
    let killed = image(directory.path());
    std::fs::remove_file(killed.path().join(WAL)).unwrap();
    assert!(matches!(refused(killed.path()), OpenError::MissingLog { .. }));
}

// keeps: store-owner
#[test]
fn a_database_of_another_node_is_refused_until_it_is_renamed() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str, rename_node| {
        let node = Some(NodeId::new(name).unwrap());
        Harness::with(Options { node, rename_node, ..options(directory.path()) })
    };
    // One that does not know yet takes the first name.
    Harness::open(directory.path()).store.close().unwrap();
    of("aws-1", false).unwrap().commit(nth(0));
    of("aws-1", false).unwrap().store.close().unwrap();
    let refused = of("gcp-1", false).err().unwrap();
    assert!(matches!(refused, OpenError::OtherNode { .. }), "{refused:?}");
    let says = refused.to_string();
    for part in ["slipstream.db", "aws-1", "gcp-1", "--rename-node"] {
        assert!(says.contains(part), "{says}");
    }
    let mut renamed = of("gcp-1", true).unwrap();
    assert!(!renamed.positions().is_empty());
    drop(renamed);
    of("gcp-1", false).unwrap();
    assert!(matches!(of("aws-1", false).err().unwrap(), OpenError::OtherNode { .. }));
}

// keeps: wal-matches
#[test]
fn a_log_of_another_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let another = Options::new(directory.path().into(), Durability::Full, StoreId(99));
    let mut harness = Harness::with(another).unwrap();
    harness.commit(batch(vec![state(1, "a", "1")]));
    let left = image(directory.path());
    drop(harness);
    takes_only_its_own_log(left.path());
}

// keeps: wal-matches
#[test]
fn a_log_of_an_earlier_time_is_refused() {
    takes_only_its_own_log(killed(2).path());
}

/// A backup is restored into a directory where this log was left.
fn takes_only_its_own_log(left: &Path) {
    let backup = closed(6);
    std::fs::copy(left.join(WAL), backup.path().join(WAL)).unwrap();
    let before = std::fs::read(backup.path().join(DATABASE)).unwrap();
    let refused = refused(backup.path());
    assert!(matches!(refused, OpenError::LeftOverLog { .. }), "{refused:?}");
    let says = refused.to_string();
    let log = backup.path().join(WAL);
    for part in [log.to_str().unwrap(), "left over", "empty data directory"] {
        assert!(says.contains(part), "{says}");
    }
    assert_eq!(std::fs::read(backup.path().join(DATABASE)).unwrap(), before);
    std::fs::remove_file(log).unwrap();
    let whole = Harness::open(closed(6).path()).recovered.head;
    assert_eq!(Harness::open(backup.path()).recovered.head, whole);
}
