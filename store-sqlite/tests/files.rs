//! Files that are removed, moved, replaced or cut while the store is at work (P1).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::path::Path;

use common::*;
use slipstream_core::store::{Batch, Store as _, StoreFailure};

const DATABASE: &str = "slipstream.db";
const WAL: &str = "slipstream.db-wal";

/// What may happen to the files in a directory, what does it, and which of them is named then.
type Happening = (&'static str, fn(&Path), &'static str);

const HAPPENINGS: [Happening; 9] = [
    ("the database is removed", |at| fs::remove_file(at.join(DATABASE)).unwrap(), DATABASE),
    ("the log is removed", |at| fs::remove_file(at.join(WAL)).unwrap(), WAL),
    ("the database is replaced", |at| replace(at, DATABASE), DATABASE),
    ("the log is replaced", |at| replace(at, WAL), WAL),
    ("the database is emptied", |at| cut(at, DATABASE, 0), DATABASE),
    ("the database is cut", |at| cut(at, DATABASE, 8192), DATABASE),
    ("the log is emptied", |at| cut(at, WAL, 0), WAL),
    ("the directory is moved", |at| fs::rename(at, at.with_extension("old")).unwrap(), DATABASE),
    ("the directory is made anew", make_anew, DATABASE),
];

fn replace(directory: &Path, name: &str) {
    // Copied in another process: closing the file here would release the store's locks.
    let copy = image(directory);
    fs::rename(copy.path().join(name), directory.join(name)).unwrap();
}

fn cut(directory: &Path, name: &str, bytes: u64) {
    let path = directory.join(name);
    let cut = std::process::Command::new("truncate").arg(format!("-s{bytes}")).arg(path).status();
    assert!(cut.unwrap().success());
}

fn make_anew(directory: &Path) {
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
    File::create(directory.join("another")).unwrap();
}

/// A store whose database and log both hold something.
fn at_work(directory: &Path) -> Harness {
    let mut harness = Harness::open(directory);
    harness.commit(batch(vec![state(1, "a", &format!("\"{}\"", "v".repeat(20_000)))]));
    harness.store.close().unwrap();
    let mut harness = Harness::open(directory);
    harness.commit(batch(vec![state(2, "b", "2")]));
    harness
}

fn is_broken(what: &str, failure: &StoreFailure, file: &Path) {
    let StoreFailure::Unknown(why) = failure else { panic!("{what}: {failure:?}") };
    assert!(why.contains(file.to_str().unwrap()) && why.contains("running"), "{what}: {why}");
}

// keeps: files-in-place
#[test]
fn nothing_is_committed_into_files_that_are_gone() {
    for (what, happen, names) in HAPPENINGS {
        let above = tempfile::tempdir_in("/tmp").unwrap();
        let directory = above.path().join("data");
        let mut harness = at_work(&directory);
        happen(&directory);
        let failure = harness.try_commit(batch(vec![state(3, "c", "3")])).unwrap_err();
        is_broken(what, &failure, &directory.join(names));
        let after = harness.try_commit(batch(vec![state(4, "d", "4")]));
        assert_eq!(after, Err(failure.clone()), "{what}");
        assert_eq!(harness.store.close(), Err(failure), "{what}");
    }
}

// keeps: files-in-place
#[test]
fn an_idle_store_says_that_its_files_are_gone() {
    for (what, happen, names) in HAPPENINGS {
        let above = tempfile::tempdir_in("/tmp").unwrap();
        let directory = above.path().join("data");
        let mut harness = at_work(&directory);
        happen(&directory);
        is_broken(what, &harness.broken(), &directory.join(names));
    }
}

// keeps: files-in-place
#[test]
fn closing_says_that_the_files_are_gone() {
    for (what, happen, names) in HAPPENINGS {
        let above = tempfile::tempdir_in("/tmp").unwrap();
        let directory = above.path().join("data");
        let harness = at_work(&directory);
        happen(&directory);
        is_broken(what, &harness.store.close().unwrap_err(), &directory.join(names));
    }
}

#[test]
fn checkpoints_that_grow_and_cut_the_files_are_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let value = format!("\"{}\"", "v".repeat(200_000));
    let mut position = 0;
    for round in 0..6 {
        for step in 0..100 {
            position += 1;
            // Every other round replaces what the one before has written by little.
            let value = if round % 2 == 0 { value.as_str() } else { "1" };
            let rows = vec![state(position, &format!("k{step}"), value)];
            harness.commit(Batch { rows, ..trim(position, 0) });
        }
        if round == 3 {
            harness.store.close().unwrap();
            harness = Harness::open(directory.path());
        }
    }
    harness.store.close().unwrap();
}
