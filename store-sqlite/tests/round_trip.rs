//! What goes in comes out, also after the store was closed, dropped or killed.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use slipstream_core::clock::{Clock, Hlc, Timely};
use slipstream_core::config::Durability;
use slipstream_core::copies::GroupCopy;
use slipstream_core::ids::*;
use slipstream_core::store::*;
use slipstream_core::tags::TagSet;
use slipstream_core::time::{Instant, Now, WallMs};
use slipstream_store_sqlite::Options;

fn session(id: u64, cursor: u64) -> SessionRecord {
    SessionRecord {
        id: SessionId::new(id),
        name: format!("app:s{id}"),
        cursor: Position::new(cursor),
        state: Bytes::from(vec![id as u8; 5]),
    }
}

fn seen(origin: &str, incarnation: u64, chunk: u64) -> SeenRecord {
    let origin = NodeId::new(origin).unwrap();
    let key = SeenKey { origin, incarnation: Incarnation::new(incarnation), chunk };
    SeenRecord { key, marks: Bytes::from(vec![chunk as u8, 1, 2]) }
}

fn dead_letter(id: u64, session: u64, reason: DeadReason) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::new(id),
        session: SessionId::new(session),
        reason,
        attempts: 3,
        first_error: "first".into(),
        last_error: "last".into(),
        first_at: WallMs(10),
        died_at: WallMs(20),
        message: state(id, "dead", "[1, 2]").message,
    }
}

fn receipts(session: u64, number: u64) -> ReceiptBlock {
    ReceiptBlock {
        session: SessionId::new(session),
        number,
        wall: WallMs(number * 10),
        receipts: Bytes::from(vec![number as u8; 3]),
    }
}

fn everything() -> Batch {
    Batch {
        rows: vec![
            Row { publisher: Some(SessionId::new(4)), ..state(3, "a", "1") },
            event(4, "c", "{\"do\":1}", 500).ending(WallMs(700)),
            Row { only: Some(SessionId::new(5)), key_hash: None, ..state(7, "a", "2") },
            state(9, "å \u{0}", "\"x\\u0000\""),
        ],
        seen: vec![seen("b", 1, 0), seen("a", u64::MAX, 0), seen("a", 2, 1), seen("a", 2, 0)],
        sessions: vec![session(5, 3), session(4, 9)],
        dead_letters: vec![
            dead_letter(1, 4, DeadReason::Rejected),
            dead_letter(2, 5, DeadReason::Expired),
            dead_letter(3, 4, DeadReason::Rejected),
        ],
        receipts: vec![receipts(5, 1), receipts(4, 2), receipts(4, 1)],
        clock: Hlc(u64::MAX),
        incarnation: Incarnation::new(77),
        ..batch(vec![])
    }
}

fn assert_everything(recovered: &Recovered) {
    assert_eq!(recovered.store_id, STORE);
    assert_eq!(recovered.head, Position::new(9));
    assert_eq!(recovered.clock, Hlc(u64::MAX));
    assert_eq!(recovered.incarnation, Incarnation::new(77));
    assert_eq!(recovered.last_session, SessionId::new(5));
    assert_eq!(recovered.last_dead_letter, DeadLetterId::new(3));
    assert_eq!(recovered.sessions, [session(4, 9), session(5, 3)]);
    let order = [seen("a", 2, 0), seen("a", 2, 1), seen("a", u64::MAX, 0), seen("b", 1, 0)];
    assert_eq!(recovered.seen, order);
    assert_eq!(recovered.receipts, [receipts(4, 1), receipts(4, 2), receipts(5, 1)]);
    let size = dead_letter(1, 4, DeadReason::Rejected).message.encoded().len() as u64 + 64;
    let rejected = (SessionId::new(4), DeadReason::Rejected, 2, 2 * size);
    let expired = (SessionId::new(5), DeadReason::Expired, 1, size);
    assert_eq!(recovered.dead_letters, [rejected, expired]);
    assert_eq!(recovered.usage.rows, 4);
}

fn assert_rows(harness: &mut Harness) {
    let rows = harness.rows();
    for (found, wanted) in rows.iter().zip(&everything().rows) {
        assert_eq!(found.row.position, wanted.position);
        assert_eq!(found.row.message, wanted.message);
        assert_eq!(found.row.key_hash, wanted.key_hash);
        assert_eq!(found.row.publisher, wanted.publisher);
        assert_eq!(found.row.only, wanted.only);
        assert_eq!(found.row.ends, wanted.ends);
        assert!(!found.superseded);
    }
    assert_eq!(rows.len(), 4);
}

#[test]
fn a_new_store_knows_nothing_and_keeps_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("made/on/the/way");
    let harness = Harness::open(&below);
    assert_eq!(harness.recovered.head, Position::new(0));
    assert_eq!(harness.recovered.incarnation, Incarnation::new(0));
    assert!(harness.recovered.sessions.is_empty());
    harness.store.close().unwrap();
    let other = Options::new(below, Durability::Full, StoreId(1));
    assert_eq!(Harness::with(other).unwrap().recovered.store_id, STORE);
}

// keeps: commit-synced
#[test]
fn everything_is_there_after_closing_dropping_and_killing() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(everything());
    assert_rows(&mut harness);

    let killed = image(directory.path());
    drop(harness);
    for directory in [killed.path(), directory.path()] {
        let mut harness = Harness::open(directory);
        assert_everything(&harness.recovered);
        assert_rows(&mut harness);
        harness.store.close().unwrap();
        assert_eq!(std::fs::metadata(directory.join("slipstream.db-wal")).unwrap().len(), 0);
        let mut harness = Harness::open(directory);
        assert_everything(&harness.recovered);
        assert_rows(&mut harness);
    }
}

#[test]
fn records_are_replaced_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(everything());
    harness.commit(Batch {
        seen: vec![SeenRecord { marks: Bytes::from_static(b"new"), ..seen("b", 1, 0) }],
        seen_dropped: vec![seen("a", 2, 0).key, seen("a", u64::MAX, 0).key],
        sessions: vec![session(4, 11)],
        sessions_ended: vec![SessionId::new(5)],
        dead_letters_gone: vec![DeadLetterId::new(1)],
        receipts: vec![receipts(4, 3)],
        receipts_dropped: vec![(SessionId::new(4), 2)],
        ..batch(vec![])
    });
    drop(harness);

    let mut harness = Harness::open(directory.path());
    let recovered = &harness.recovered;
    assert_eq!(recovered.sessions, [session(4, 11)]);
    assert_eq!(recovered.seen.len(), 2);
    assert_eq!(recovered.seen[0], seen("a", 2, 1));
    assert_eq!(recovered.seen[1].marks, "new");
    assert_eq!(recovered.receipts, [receipts(4, 3)]);
    assert_eq!(recovered.dead_letters.len(), 1);
    assert_eq!(recovered.last_session, SessionId::new(5));
    assert_eq!(recovered.last_dead_letter, DeadLetterId::new(3));
    let query = Query::DeadLetters { after: DeadLetterId::new(0), limit: 10 };
    let Answer::DeadLetters(left) = harness.fetch(query) else { panic!("another answer") };
    assert_eq!(left, [dead_letter(3, 4, DeadReason::Rejected)]);
}

#[test]
fn dead_letters_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(everything());
    let mut page = |after, limit| {
        let query = Query::DeadLetters { after: DeadLetterId::new(after), limit };
        let Answer::DeadLetters(found) = harness.fetch(query) else { panic!("another answer") };
        found.iter().map(|letter| letter.id.get()).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 2), [1, 2]);
    assert_eq!(page(2, 2), [3]);
    assert_eq!(page(0, 0), [0; 0]);
}

// keeps: admin-memory
#[test]
fn pages_of_dead_letters_end_when_they_are_large() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let long = format!("\"{}\"", "x".repeat(40_000));
    // What a list says of a letter is long here, too: its errors.
    let error = "e".repeat(4_000);
    let letters = (1..=700).map(|number| DeadLetter {
        first_error: error.clone(),
        last_error: error.clone(),
        message: state(number, "k", if number % 10 == 0 { &long } else { "1" }).message,
        ..dead_letter(number, 4, DeadReason::Rejected)
    });
    let letters: Vec<_> = letters.collect();
    harness.commit(Batch { dead_letters: letters.clone(), ..batch(Vec::new()) });
    let largest = DEAD_LETTERS_BYTES / 8_000;

    let (mut whole, mut pages) = (Vec::new(), 0);
    loop {
        let after = whole.last().map_or(DeadLetterId::default(), |it: &DeadLetter| it.id);
        let query = Query::DeadLetters { after, limit: 10_000 };
        let Answer::DeadLetters(page) = harness.fetch(query) else { panic!("another answer") };
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= largest, "{} letters", page.len());
        let all_but_last = &page[..page.len() - 1];
        let bytes: usize = all_but_last.iter().map(|it| it.message.encoded().len()).sum();
        assert!(bytes < DEAD_LETTERS_BYTES, "{bytes} bytes");
        whole.extend(page);
        pages += 1;
    }
    assert_eq!(whole, letters);
    assert!(pages > 5, "{pages} pages");

    let (mut listed, mut after) = (Vec::new(), Some(DeadLetterId::default()));
    while let Some(behind) = after {
        let query = Query::DeadLetterList { after: behind, limit: 10_000, id: None };
        let Answer::DeadLetterList { listed: page, next } = harness.fetch(query) else {
            panic!("another answer")
        };
        assert!(page.len() <= largest, "{} letters", page.len());
        assert!(next.is_none_or(|next| Some(next) == page.last().map(|it| it.letter.id)));
        listed.extend(page);
        after = next;
    }
    assert_eq!(listed, letters.iter().map(ListedLetter::of).collect::<Vec<_>>());
}

// keeps: admin-memory
#[test]
fn dead_letter_list_leaves_long_values_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let long = format!("\"{}\"", "x".repeat(100_000));
    let letters = (1..=20).map(|number| {
        let short = dead_letter(number, 4, DeadReason::Rejected);
        let message =
            if number % 2 == 0 { state(number, "k", &long).message } else { short.message };
        DeadLetter { message, ..short }
    });
    let letters: Vec<_> = letters.collect();
    harness.commit(Batch { dead_letters: letters.clone(), ..batch(Vec::new()) });
    let mut list = |after, limit, id: Option<&str>| {
        let (after, id) = (DeadLetterId::new(after), id.map(String::from));
        let query = Query::DeadLetterList { after, limit, id };
        let Answer::DeadLetterList { listed, next } = harness.fetch(query) else {
            panic!("another answer")
        };
        (listed, next.map(DeadLetterId::get))
    };
    let all: Vec<_> = letters.iter().map(ListedLetter::of).collect();
    assert_eq!(list(0, 100, None), (all.clone(), None));
    assert!(!all[1].has_value() && all[0].has_value());
    assert_eq!(list(4, 3, None), (all[4..7].to_vec(), Some(7)));
    let id = letters[6].message.id();
    let same: Vec<_> =
        all.iter().filter(|listed| listed.letter.message.id() == id).cloned().collect();
    assert_eq!(list(0, 100, Some(id)), (same, None));
    // Whole ones come until they are large together.
    let query = Query::DeadLetters { after: DeadLetterId::new(0), limit: 100 };
    let Answer::DeadLetters(whole) = harness.fetch(query) else { panic!("another answer") };
    assert_eq!(whole, letters, "they are small enough");
}

#[test]
fn rows_stop_at_each_bound_and_answer_one_at_least() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let rows: Vec<Row> = [2, 4, 6, 8].map(|n| state(n, &format!("k{n}"), "1")).into();
    let size = rows[0].size();
    harness.commit(batch(rows));
    let mut rows = |after, upto, max_rows, max_bytes| {
        let (after, upto) = (Position::new(after), Position::new(upto));
        let newest_upto = Position::new(0);
        let (tags, timely) = (None, Timely::ALL);
        match harness.fetch(Query::Rows {
            after,
            upto,
            newest_upto,
            tags,
            timely,
            max_rows,
            max_bytes,
        }) {
            Answer::Rows { rows, upto, .. } => {
                (rows.iter().map(|row| row.row.position.get()).collect::<Vec<_>>(), upto.get())
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(rows(0, 100, 10, 1 << 20), (vec![2, 4, 6, 8], 8));
    assert_eq!(rows(2, 7, 10, 1 << 20), (vec![4, 6], 7));
    assert_eq!(rows(0, 100, 2, 1 << 20), (vec![2, 4], 4));
    assert_eq!(rows(0, 100, 4, 1 << 20), (vec![2, 4, 6, 8], 8));
    assert_eq!(rows(0, 100, 10, 2 * size), (vec![2, 4], 4));
    assert_eq!(rows(0, 100, 10, 2 * size - 1), (vec![2], 2));
    assert_eq!(rows(0, 100, 0, 0), (vec![2], 2));
    assert_eq!(rows(8, 100, 10, 1 << 20), (vec![], 8));
    assert_eq!(rows(50, 100, 10, 1 << 20), (vec![], 50));
    assert_eq!(rows(0, u64::MAX, 10, 1 << 20), (vec![2, 4, 6, 8], 8));
    assert_eq!(rows(u64::MAX, u64::MAX, 10, 1 << 20), (vec![], u64::MAX));
}

#[test]
fn rows_at_come_in_the_order_asked_without_those_that_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![state(1, "a", "1"), state(2, "b", "1"), state(3, "a", "2")]));
    let asked = [3, 9, 1, 2].map(Position::new).to_vec();
    let Answer::RowsAt(rows) =
        harness.fetch(Query::RowsAt { positions: asked, tags: None, timely: Timely::ALL })
    else {
        panic!("another")
    };
    let found: Vec<_> = rows.iter().map(|row| (row.row.position.get(), row.superseded)).collect();
    assert_eq!(found, [(3, false), (1, true), (2, false)]);
}

#[test]
fn latest_answers_in_the_order_asked() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let replay = Row { only: Some(SessionId::new(1)), key_hash: None, ..state(4, "a", "9") };
    let rows = vec![state(1, "a", "1"), state(2, "b", "1"), state(3, "a", "2"), replay];
    harness.commit(batch(rows));
    let wanted = [Some((2, "1".into())), None, Some((3, "2".into()))];
    assert_eq!(harness.latest(&["b", "x", "a"]), wanted);
}

#[test]
fn find_looks_at_a_bounded_stretch() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let mut rows: Vec<Row> = (1..=20_001).map(|n| event(n, "k", "1", 9)).collect();
    rows.push(Row { position: Position::new(30_000), ..event(20_001, "k", "2", 9) });
    harness.commit(batch(rows));
    let mut find = |id: &str, after| {
        let query = Query::Find { id: id.into(), after: Position::new(after) };
        let Answer::Find { rows, next } = harness.fetch(query) else { panic!("another answer") };
        let rows: Vec<_> = rows.iter().map(|row| row.row.position.get()).collect();
        (rows, next.map(Position::get))
    };
    assert_eq!(find("m-5", 0), (vec![5], Some(20_000)));
    assert_eq!(find("m-20001", 0), (vec![], Some(20_000)));
    assert_eq!(find("m-20001", 20_000), (vec![20_001, 30_000], None));
    assert_eq!(find("m-20001", 1), (vec![20_001], Some(20_001)));
    assert_eq!(find("m-20001", 30_000), (vec![], None));
    assert_eq!(find("m-5", u64::MAX), (vec![], None));
}

// keeps: group-once
#[test]
fn the_start_tells_which_group_copies_are_newest() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let copy = |row: Row| {
        let content = Hash128::of(&[&row.position.get().to_le_bytes()]);
        Row { copy: Some(GroupCopy { content, of: None }), ..row }
    };
    let rows = vec![
        copy(in_tags(1, "a", "replaced", "1")),
        in_tags(2, "a", "replaced", "2"),
        copy(in_tags(3, "a", "outdone", "1")),
        in_tags(4, "b", "outdone", "2"),
        in_tags(5, "b", "newest", "1"),
        copy(in_tags(6, "a", "newest", "2")),
        copy(event(7, "e", "1", 9)),
    ];
    harness.commit(batch(rows));
    harness.store.close().unwrap();
    let told = Harness::open(directory.path()).recovered.copies;
    let positions: Vec<_> = told.iter().map(|(_, position, _)| position.get()).collect();
    assert_eq!(positions, [6, 7]);
}

// keeps: untimely-versions
#[test]
fn in_doubt_any_certainly_newer_value_outdoes_a_row() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    // Versions grow with positions: the first one is from far ahead, of now are those behind it.
    let hour = 3_600_000;
    let [first, second, third] =
        [in_tags(3 * hour, "", "k", "1"), in_tags(1, "a", "k", "2"), in_tags(2, "b", "k", "3")];
    let at = |row: Row, position| Row { position: Position::new(position), ..row };
    harness.commit(batch(vec![at(first, 1), at(second, 2), at(third, 3)]));
    let now = Now { instant: Instant::from_micros(0), wall: WallMs(1_000) };
    let doubtful = Clock::new(Hlc::at(WallMs(3 * hour)), Duration::from_secs(60), now).timely();
    let tags = TagSet::new(["a", "b"]).unwrap();
    let query = Query::Rows {
        after: Position::default(),
        upto: Position::new(3),
        newest_upto: Position::new(3),
        tags: Some(tags.clone()),
        timely: doubtful,
        max_rows: 10,
        max_bytes: 1 << 20,
    };
    let Answer::Rows { rows, superseded, .. } = harness.fetch(query) else { panic!("rows") };
    assert_eq!(rows.iter().map(|row| row.row.position.get()).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(superseded, 1);
    let query = Query::Values { keys: vec!["k".into()], tags, timely: doubtful };
    let Answer::Values(values) = harness.fetch(query) else { panic!("values") };
    assert!(matches!(&values[..], [Value::Newest(it)] if it.position.get() == 3), "{values:?}");
}
