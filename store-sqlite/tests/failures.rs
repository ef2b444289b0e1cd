//! No room, damage, and what cannot be trusted any more.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;
use std::sync::mpsc::channel;

use common::*;
use slipstream_core::clock::Timely;
use slipstream_core::ids::*;
use slipstream_core::store::*;
use slipstream_store_sqlite::{Damaged, Options};

// keeps: rollback-clean
#[test]
fn a_batch_without_room_leaves_nothing_and_the_store_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_pages: Some(300), ..options(directory.path()) };
    let mut harness = Harness::with(options).unwrap();
    let value = format!("\"{}\"", "v".repeat(3000));
    let mut head = 0;
    let failure = loop {
        let session = SessionRecord {
            id: SessionId::new(head + 1),
            name: format!("app:{head}"),
            cursor: Position::new(head),
            state: Default::default(),
        };
        let rows = (head + 1..=head + 20).map(|n| state(n, &format!("k{}", n % 3), &value));
        match harness.try_commit(Batch { sessions: vec![session], ..batch(rows.collect()) }) {
            Ok(_) => head += 20,
            Err(failure) => break failure,
        }
    };
    assert!(matches!(&failure, StoreFailure::Full(why) if why.contains("slipstream.db")));
    assert!(head > 100, "{head}");
    assert_eq!(harness.positions(), (1..=head).collect::<Vec<_>>());
    assert_eq!(harness.latest(&[&format!("k{}", head % 3)])[0].as_ref().unwrap().0, head);
    let killed = Harness::open(image(directory.path()).path()).recovered;
    assert_eq!(killed.head, Position::new(head));
    assert_eq!(killed.sessions.len() as u64, head / 20);

    // Room is made by what may be forgotten, in the very commit that needs it.
    let rows = (head + 1..=head + 20).map(|n| state(n, &format!("k{}", n % 3), &value));
    let usage = harness.commit(Batch { rows: rows.collect(), ..trim(head, 0) });
    assert!(usage.rows < 30, "{usage:?}");
}

// keeps: halt-on-doubt
#[test]
fn after_an_unknown_failure_nothing_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![state(1, "a", "1")]));
    let broken = harness.try_commit(batch(vec![state(2, "a", "2"), state(1, "a", "1")]));
    assert!(matches!(broken, Err(StoreFailure::Unknown(_))), "{broken:?}");
    let after = harness.try_commit(batch(vec![state(3, "a", "3")]));
    assert_eq!(after, broken);
    assert_eq!(harness.positions(), [1]);
    assert!(harness.store.close().is_err());
}

#[test]
fn a_ping_is_answered_behind_what_was_asked_before() {
    let directory = tempfile::tempdir().unwrap();
    let harness = Harness::open(directory.path());
    let (done, pong) = channel();
    harness.store.ping(Box::new(move || done.send(7).unwrap())).unwrap();
    assert_eq!(pong.recv(), Ok(7));
}

/// Flips one bit of the only place in the file that holds `text`.
fn flip(directory: &Path, text: &str) {
    let file = directory.join("slipstream.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let places: Vec<usize> = bytes
        .windows(text.len())
        .enumerate()
        .filter_map(|(at, window)| (window == text.as_bytes()).then_some(at))
        .collect();
    assert_eq!(places.len(), 1, "{text}");
    bytes[places[0] + text.len() / 2] ^= 1;
    std::fs::write(&file, bytes).unwrap();
}

// keeps: damaged-row
#[test]
fn a_flipped_bit_is_never_answered_as_good() {
    for (text, lost) in [("needle-in-value", 2), ("needle-in-key", 3)] {
        let directory = tempfile::tempdir().unwrap();
        let mut harness = Harness::open(directory.path());
        let rows = vec![
            state(1, "a", "1"),
            state(2, "b", "\"needle-in-value\""),
            state(3, "needle-in-key", "3"),
            state(4, "d", "4"),
        ];
        harness.commit(batch(rows));
        harness.store.close().unwrap();
        flip(directory.path(), text);

        let mut harness = Harness::open(directory.path());
        let wanted: Vec<u64> = (1..=4).filter(|&position| position != lost).collect();
        assert_eq!(harness.positions(), wanted, "{text}");
        let damaged = Damaged::Row(Position::new(lost));
        assert!(harness.damaged.contains(&damaged), "{:?}", harness.damaged);
        assert!(damaged.to_string().contains(&format!("row {lost} of table log")));
        let asked = vec![Position::new(lost), Position::new(4)];
        let Answer::RowsAt(rows) =
            harness.fetch(Query::RowsAt { positions: asked, tags: None, timely: Timely::ALL })
        else {
            panic!("other")
        };
        assert_eq!(rows.len(), 1);
        assert_eq!(harness.latest(&["b", "needle-in-key"])[lost as usize - 2], None);
    }
}

// keeps: damaged-row
#[test]
fn a_damaged_dead_letter_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let letter = |id: u64, error: &str| DeadLetter {
        id: DeadLetterId::new(id),
        session: SessionId::new(1),
        reason: DeadReason::TooLarge,
        attempts: 1,
        first_error: error.into(),
        last_error: String::new(),
        first_at: Default::default(),
        died_at: Default::default(),
        message: state(id, "k", "1").message,
    };
    let dead_letters = vec![letter(1, "needle"), letter(2, "fine")];
    harness.commit(Batch { dead_letters, ..batch(vec![]) });
    harness.store.close().unwrap();
    flip(directory.path(), "needle");

    let mut harness = Harness::open(directory.path());
    let query = Query::DeadLetters { after: DeadLetterId::new(0), limit: 1 };
    let Answer::DeadLetters(found) = harness.fetch(query) else { panic!("another answer") };
    assert_eq!(found, [letter(2, "fine")]);
    harness.rows();
    // At the start and when it was asked for.
    assert_eq!(harness.damaged, [Damaged::DeadLetter(DeadLetterId::new(1)); 2]);
    assert_eq!(harness.recovered.dead_letters.len(), 1);
    assert_eq!(harness.recovered.dead_letters[0].2, 1);
}

/// On a disk of 24 MiB that somebody else fills up: needs root.
// keeps: full-disk
#[cfg(target_os = "linux")]
#[test]
fn deletes_and_history_pass_on_a_full_disk() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let directory = disk.folder.path().join("mounted/data");
    let mut harness = Harness::open(&directory);
    let value = format!("\"{}\"", "v".repeat(4000));
    let rows = |from: u64| (from..from + 20).map(|n| state(n, &format!("k{}", n % 10), &value));
    let mut head = 0;
    let failure = loop {
        match harness.try_commit(batch(rows(head + 1).collect())) {
            Ok(usage) => {
                assert!(usage.room_bytes.is_some());
                head += 20;
            }
            Err(failure) => break failure,
        }
        assert!(head < 10_000, "40 MB fit on a disk of 24 MiB");
    };
    assert!(matches!(&failure, StoreFailure::Full(why) if why.contains("slipstream.db")));
    disk.fill();
    for reopened in [false, true] {
        if reopened {
            harness.store.close().unwrap();
            disk.fill();
            harness = Harness::open(&directory);
            disk.fill();
        }
        for _ in 0..20 {
            head += 1;
            harness.commit(Batch { rows: vec![state(head, "k1", "null")], ..trim(head, 0) });
        }
        let mut usage = harness.commit(trim(head, 0));
        for _ in 0..100 {
            usage = harness.commit(trim(head, 0));
        }
        assert_eq!(usage.history_bytes, 0, "{usage:?}");
        assert!(usage.room_bytes.unwrap() > 0, "{usage:?}");
    }
    harness.store.close().unwrap();
    assert_eq!(Harness::open(&directory).recovered.head, Position::new(head));
}

#[cfg(target_os = "linux")]
struct SmallDisk {
    folder: tempfile::TempDir,
}

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mounted() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let disk = Self { folder };
        let at = disk.folder.path();
        std::fs::File::create(at.join("image")).unwrap().set_len(24 << 20).unwrap();
        std::fs::create_dir(at.join("mounted")).unwrap();
        let script = "mkfs.ext4 -q -m 0 image && mount -o loop image mounted";
        let status = std::process::Command::new("sh").args(["-c", script]).current_dir(at).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(disk);
        }
        eprintln!("SKIPPED: a small disk needs root");
        assert!(std::env::var("SLIPSTREAM_TESTS_REQUIRE").is_err(), "it is required");
        None
    }

    /// Somebody else takes all that is left.
    fn fill(&self) {
        let script = "cat /dev/zero >> mounted/ballast 2>/dev/null; sync mounted/ballast";
        let at = self.folder.path();
        std::process::Command::new("sh").args(["-c", script]).current_dir(at).status().unwrap();
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at = self.folder.path().join("mounted");
        let _ = std::process::Command::new("umount").arg("-l").arg(at).status();
    }
}
