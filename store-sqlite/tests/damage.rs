//! Files that are damaged, gone, or not the ones that they should be.
//!
//! What must hold: opening is refused with the reason, or what is missing is reported, or the
//! store is as it was at some time before, which its peers notice. Whatever it answers is what was
//! committed, byte for byte.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use common::workload::*;
use common::{Harness, batch, key_hash, state, trim};
use rusqlite::Connection;
use slipstream_core::clock::Timely;
use slipstream_core::ids::{Hash128, Position};
use slipstream_core::store::{Answer, Query, Store as _, StoreFailure};
use slipstream_faulty_disk::Disk;
use slipstream_store_sqlite::{Damaged, OpenError, Options};

const DATABASE: &str = "slipstream.db";
const WAL: &str = "slipstream.db-wal";

static CLEAN: LazyLock<Vec<Known>> = LazyLock::new(clean);

/// A store that was killed: the batches since its last start are in the write-ahead log alone.
static KILLED: LazyLock<tempfile::TempDir> = LazyLock::new(|| killed(BATCHES));

/// The same, closed: everything is in the database.
static CLOSED: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let closed = copy(KILLED.path());
    Harness::open(closed.path()).store.close().unwrap();
    closed
});

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

/// What comes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Reported,
    /// Everything is there, and nothing was noticed.
    Untouched,
    /// So many of the last batches are gone, and nothing was noticed.
    Older(usize),
}

/// Opens the store and holds everything that it says against what was committed.
fn outcome(directory: &Path) -> Outcome {
    let _disk = Disk::under(directory);
    let mut harness = match Harness::with(durable(directory)) {
        Ok(harness) => harness,
        Err(refused) => {
            let says = refused.to_string();
            assert!(says.contains(directory.to_str().unwrap()), "{says}");
            assert!(!matches!(refused, OpenError::InUse { .. }), "{says}");
            return Outcome::Refused;
        }
    };
    let told = Told::by(&harness.recovered);
    // What cannot be read says so; it is not answered as nothing.
    let Ok(answers) = Answers::of(&mut harness) else { return Outcome::Reported };
    assert!(answers.rows.iter().all(Answered::is_of_a_batch), "{answers:?}");
    assert!(answers.rows_at.iter().all(Answered::is_of_a_batch), "{answers:?}");
    let found = &answers.found;
    assert!(found.iter().all(Answered::is_of_a_batch_without_value), "{answers:?}");
    // A damaged row is left out, with what it alone tells.
    let in_rows = |told: &Told| Told { dead_letters: vec![], copies: vec![], ..told.clone() };
    let at = (0..CLEAN.len()).rev().find(|n| in_rows(&told) == in_rows(&CLEAN[*n].told));
    let at = at.unwrap_or_else(|| panic!("it was never so: {told:?}"));
    let clean = &CLEAN[at];
    assert!(answers.letters.iter().all(|letter| clean.answers.letters.contains(letter)));
    assert!(told.copies.iter().all(|copy| clean.told.copies.contains(copy)), "{told:?}");
    if !harness.damaged.is_empty() {
        return Outcome::Reported;
    }
    let differ = clean.answers.difference(&answers);
    assert!(told == clean.told && answers == clean.answers, "not reported: {differ}");
    match BATCHES as usize - at {
        0 => Outcome::Untouched,
        gone => Outcome::Older(gone),
    }
}

/// Counts what comes of each of `cases`, by what `damage` does to a copy of `original`.
fn each<T: Copy + std::fmt::Debug>(
    what: &str,
    original: &Path,
    cases: impl Iterator<Item = T>,
    damage: impl Fn(&Path, T),
) -> BTreeMap<Outcome, u64> {
    let mut counts = BTreeMap::new();
    for case in cases {
        let damaged = copy(original);
        damage(damaged.path(), case);
        let run = std::panic::AssertUnwindSafe(|| outcome(damaged.path()));
        let outcome = std::panic::catch_unwind(run);
        let outcome = outcome.unwrap_or_else(|_| panic!("{what} at {case:?}"));
        *counts.entry(outcome).or_default() += 1;
    }
    println!("{what}: {counts:?}");
    counts
}

fn flip(file: &Path, (byte, bit): (u64, u64)) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[byte as usize] ^= 1 << bit;
    std::fs::write(file, bytes).unwrap();
}

/// Places in a file of `size` bytes, by a seed.
fn places(size: u64, count: usize) -> impl Iterator<Item = (u64, u64)> {
    let mut state = 0x5eed_u64;
    std::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 16) % size, state >> 61)
    })
    .take(count)
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

// keeps: damaged-row
#[test]
fn a_flipped_bit_in_the_database_is_noticed_or_changes_nothing() {
    let file = CLOSED.path().join(DATABASE);
    let counts =
        each("a bit in the database", CLOSED.path(), places(size(&file), 1200), |copy, at| {
            flip(&copy.join(DATABASE), at);
        });
    assert!(counts[&Outcome::Refused] > 50 && counts[&Outcome::Reported] > 50);
    assert!(counts.keys().all(|outcome| !matches!(outcome, Outcome::Older(_))), "{counts:?}");
}

// keeps: damaged-row
#[test]
fn a_flipped_bit_in_a_page_head_is_noticed_or_harmless() {
    let file = CLOSED.path().join(DATABASE);
    let heads = places(size(&file) / 4096 * 24, 800);
    let heads = heads.map(|(byte, bit)| (byte / 24 * 4096 + byte % 24, bit));
    let counts = each("a bit in the head of a page", CLOSED.path(), heads, |copy, at| {
        flip(&copy.join(DATABASE), at);
    });
    assert!(counts[&Outcome::Refused] > 100 && counts[&Outcome::Reported] > 100);
    assert!(counts.keys().all(|outcome| !matches!(outcome, Outcome::Older(_))), "{counts:?}");
}

/// Many rows, so that the tables are trees of several levels.
fn large() -> (tempfile::TempDir, Vec<(u64, Vec<u8>)>) {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let rows: Vec<_> = (1..=6000).map(|n| state(n, &format!("key-{n}"), "1")).collect();
    let all = rows.iter().map(|row| (row.position.get(), row.message.encoded().to_vec()));
    let all = all.collect();
    harness.commit(batch(rows));
    for _ in 0..80 {
        harness.commit(batch(vec![]));
    }
    harness.store.close().unwrap();
    (directory, all)
}

// keeps: damaged-row
#[test]
fn a_flipped_bit_within_a_tree_is_noticed_or_changes_nothing() {
    let (directory, rows) = large();
    let bytes = std::fs::read(directory.path().join(DATABASE)).unwrap();
    let pages = (1..bytes.len() / 4096).map(|page| page * 4096);
    let inner: Vec<_> = pages.filter(|page| [2, 5].contains(&bytes[*page])).collect();
    assert!(inner.len() >= 2, "{inner:?}");
    // The head, the places of the first cells, and the last cells.
    let parts = inner.iter().flat_map(|page| (*page..page + 60).chain(page + 4000..page + 4096));
    let keys: Vec<_> = rows.iter().map(|(n, _)| key_hash(&format!("key-{n}"))).collect();
    let mut counts = BTreeMap::<&str, u32>::new();
    for (n, byte) in parts.enumerate() {
        let damaged = copy(directory.path());
        flip(&damaged.path().join(DATABASE), (byte as u64, n as u64 % 8));
        let _disk = Disk::under(damaged.path());
        let opened = Harness::with(durable(damaged.path()));
        let Ok(mut harness) = opened else {
            *counts.entry("refused").or_default() += 1;
            continue;
        };
        let Ok((found, latest)) = everything(&mut harness, &keys) else {
            *counts.entry("failed").or_default() += 1;
            continue;
        };
        harness.commit_nothing();
        assert!(found.iter().all(|row| rows.binary_search(row).is_ok()));
        let is_whole = found == rows && latest == rows;
        assert!(is_whole || !harness.damaged.is_empty(), "byte {byte}");
        *counts.entry(if is_whole { "whole" } else { "reported" }).or_default() += 1;
    }
    println!("a bit within a tree: {counts:?}");
    assert!(counts["refused"] > 0 && counts["reported"] > 0, "{counts:?}");
}

type Found = Vec<(u64, Vec<u8>)>;

/// All rows, and the newest of each key.
fn everything(harness: &mut Harness, keys: &[Hash128]) -> Result<(Found, Found), StoreFailure> {
    let (mut rows, mut after) = (Vec::new(), Position::new(0));
    loop {
        let answer = harness.try_fetch(Query::Rows {
            after,
            upto: Position::new(1 << 40),
            newest_upto: Position::new(0),
            tags: None,
            timely: Timely::ALL,
            max_rows: 500,
            max_bytes: usize::MAX,
        })?;
        let Answer::Rows { rows: found, upto, .. } = answer else { panic!("another answer") };
        if upto == after {
            break;
        }
        after = upto;
        let found = found.iter().map(|found| &found.row);
        rows.extend(found.map(|row| (row.position.get(), row.message.encoded().to_vec())));
    }
    let Answer::Latest(latest) = harness.try_fetch(Query::Latest(keys.to_vec()))? else {
        panic!("another answer")
    };
    let latest = latest.into_iter().flatten();
    let latest = latest.map(|found| (found.position.get(), found.message.encoded().to_vec()));
    Ok((rows, latest.collect()))
}

// keeps: damaged-wal
#[test]
fn a_flipped_bit_in_the_log_is_noticed_but_at_its_end() {
    let file = KILLED.path().join(WAL);
    let size = size(&file);
    let header = (0..32).map(|byte| (byte, byte % 8));
    // The last two transactions, frame by frame: in its header, its checksum and its page.
    let last = (1..=20).flat_map(|frame| [6, 11, 17, 100].map(|at| (size - frame * 4120 + at, 3)));
    let log = places(size, 800).chain(header).chain(last);
    let counts = each("a bit in the log", KILLED.path(), log, |copy, at| {
        flip(&copy.join(WAL), at);
    });
    assert!(counts[&Outcome::Reported] > 600, "{counts:?}");
    // The last transaction: a power loss could have done that.
    for outcome in counts.keys() {
        assert!(!matches!(outcome, Outcome::Older(2..) | Outcome::Untouched), "{counts:?}");
    }
}

// keeps: damaged-wal
#[test]
fn what_is_left_of_a_damaged_log_is_kept() {
    let copy = copy(KILLED.path());
    flip(&copy.path().join(WAL), (5000, 3));
    let damaged = std::fs::read(copy.path().join(WAL)).unwrap();
    let mut harness = Harness::open(copy.path());
    harness.commit_nothing();
    assert_eq!(harness.damaged, [Damaged::Wal(2)]);
    let says = harness.damaged[0].to_string();
    assert!(says.contains("the write-ahead log is damaged at frame 2"), "{says}");
    let kept = std::fs::read(copy.path().join("slipstream.db-wal.damaged")).unwrap();
    assert!(kept == damaged);
    // It is told once: what goes on is sound.
    harness.commit(nth(BATCHES));
    drop(harness);
    assert_eq!(Harness::open(copy.path()).damaged, []);
}

#[test]
fn a_file_that_is_cut_off_is_noticed_or_older() {
    let log = size(&KILLED.path().join(WAL));
    let cut = |file: &'static str| {
        move |copy: &Path, length: u64| {
            let file = std::fs::File::options().write(true).open(copy.join(file)).unwrap();
            file.set_len(length).unwrap();
        }
    };
    // A log of an open database has a frame.
    let counts =
        each("nothing of the log left", KILLED.path(), [0, 1, 32, 4151].into_iter(), cut(WAL));
    assert!(counts.keys().all(|outcome| *outcome == Outcome::Refused), "{counts:?}");
    let counts = each("the log cut off", KILLED.path(), (4152..log).step_by(2003), cut(WAL));
    assert!(counts.keys().all(|outcome| matches!(outcome, Outcome::Older(_))), "{counts:?}");
    let database = size(&CLOSED.path().join(DATABASE));
    let lengths = (2..database).step_by(1021);
    let counts = each("the database cut off", CLOSED.path(), lengths, cut(DATABASE));
    let noticed = [Outcome::Refused, Outcome::Reported];
    assert!(counts.keys().all(|outcome| noticed.contains(outcome)), "{counts:?}");
}

#[test]
fn without_its_log_the_store_is_refused_or_older() {
    let copy = copy(KILLED.path());
    std::fs::remove_file(copy.path().join(WAL)).unwrap();
    assert_eq!(outcome(copy.path()), Outcome::Refused);
    let options = Options { accept_missing_log: true, ..durable(copy.path()) };
    Harness::with(options).unwrap().store.close().unwrap();
    let since = BATCHES - REOPENED_BEFORE[2];
    assert_eq!(outcome(copy.path()), Outcome::Older(since as usize));
}

// keeps: damaged-wal
#[test]
fn a_log_without_its_database_is_refused_and_kept() {
    for is_there in [false, true] {
        let copy = copy(KILLED.path());
        let log = std::fs::read(copy.path().join(WAL)).unwrap();
        std::fs::remove_file(copy.path().join(DATABASE)).unwrap();
        if is_there {
            std::fs::write(copy.path().join(DATABASE), "").unwrap();
        }
        assert_eq!(outcome(copy.path()), Outcome::Refused);
        assert_eq!(std::fs::read(copy.path().join(WAL)).unwrap(), log);
    }
}

#[test]
fn an_older_copy_is_older_and_a_mixture_is_noticed() {
    let older: Vec<_> = [12, 18, 24].map(killed).into();
    for (older, n) in older.iter().zip([12, 18, 24]) {
        assert_eq!(outcome(copy(older.path()).path()), Outcome::Older(BATCHES as usize - n));
        for file in [DATABASE, WAL] {
            let mixed = copy(KILLED.path());
            std::fs::copy(older.path().join(file), mixed.path().join(file)).unwrap();
            println!("{file} from batch {n}: {:?}", outcome(mixed.path()));
        }
    }
}

#[test]
fn another_file_in_its_place_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(DATABASE);
    let refused = || Harness::with(durable(directory.path())).err().unwrap();

    std::fs::create_dir(&file).unwrap();
    assert!(refused().to_string().contains("slipstream.db"), "{}", refused());
    std::fs::remove_dir(&file).unwrap();

    std::fs::write(&file, "short text").unwrap();
    assert!(matches!(refused(), OpenError::Foreign { .. }), "{:?}", refused());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "short text");

    std::fs::copy(CLOSED.path().join(DATABASE), &file).unwrap();
    Connection::open(&file).unwrap().pragma_update(None, "application_id", 7).unwrap();
    let before = std::fs::read(&file).unwrap();
    assert!(matches!(refused(), OpenError::Foreign { .. }), "{:?}", refused());
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let copy = copy(CLOSED.path());
    let file = copy.path().join(DATABASE);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(&file).is_ok() {
        println!("SKIPPED: this user may read everything");
        return;
    }
    assert_eq!(outcome(copy.path()), Outcome::Refused);
}

// keeps: damaged-row
#[test]
fn a_row_whose_size_is_damaged_is_deleted_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![state(1, "a", "1")]));
    harness.commit(batch(vec![state(40_001, "b", "1")]));
    harness.commit(batch(vec![]));
    harness.store.close().unwrap();
    let shell = Connection::open(directory.path().join(DATABASE)).unwrap();
    let known: i64 = shell.query_row("SELECT count(*) FROM latest", [], |row| row.get(0)).unwrap();
    assert_eq!(known, 2, "the table knows both");
    shell.execute("UPDATE log SET size = size + 1000000 WHERE position = 1", []).unwrap();
    drop(shell);

    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![state(40_002, "a", "2")]));
    harness.commit(batch(vec![state(80_001, "b", "2")]));
    harness.commit(batch(vec![]));
    // The first one takes the damaged size for true.
    harness.commit(trim(80_001, 0));
    harness.commit(trim(80_001, 0));
    assert_eq!(harness.positions(), [40_002, 80_001]);
    assert!(!harness.damaged.contains(&Damaged::Row(Position::new(40_002))));
}
