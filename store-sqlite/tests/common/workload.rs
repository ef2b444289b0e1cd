//! The same few dozen batches each time, and everything that a store answers behind each of them.
//!
//! A run under faults is held against a run without: after any number of batches a store knows
//! exactly what the clean one knew after as many.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use slipstream_core::clock::{Hlc, Timely};
use slipstream_core::config::Durability;
use slipstream_core::ids::*;
use slipstream_core::message::Message;
use slipstream_core::store::*;
use slipstream_core::time::WallMs;
use slipstream_faulty_disk::{Disk, Survives};
use slipstream_store_sqlite::Options;

use super::{Harness, STORE, batch, event, image, key_hash, message, of_group, state};

/// Number of the batches.
pub const BATCHES: u64 = 26;

/// Before these the store is closed and opened again.
pub const REOPENED_BEFORE: [u64; 3] = [7, 14, 21];

/// Keys that the rows have.
const KEYS: u64 = 5;

pub fn durable(directory: &Path) -> Options {
    Options::new(directory.to_path_buf(), Durability::Full, STORE)
}

/// The `n`-th batch, counted from 0. Positions skip far once, so that table `latest` is brought
/// up to date.
pub fn nth(n: u64) -> Batch {
    let first = n * 10 + if n < 12 { 1 } else { 40_001 };
    let key = |n: u64| format!("k{}", n % KEYS);
    let value = format!("\"{}\"", "v".repeat(if n % 7 == 3 { 9000 } else { n as usize * 9 }));
    let mut rows = vec![
        state(first, &key(n), &value),
        event(first + 1, "e", &value, if n.is_multiple_of(2) { 5 } else { 1 << 40 }),
        Row { publisher: Some(SessionId::new(1)), ..state(first + 3, &key(n * 3), "1") },
    ];
    if n % 3 == 2 {
        rows.push(of_group(first + 2, &format!("m-{}", n / 6)));
        rows.swap(2, 3);
    }
    if n % 6 == 1 {
        let only = Some(SessionId::new(2));
        rows.push(Row { only, key_hash: None, ..state(first + 4, &key(n), "2") });
    }
    let of = |text: &str| Bytes::from(format!("{text} {n} {}", "s".repeat(n as usize % 50)));
    let mark = |n: u64| SeenKey {
        origin: NodeId::new(if n.is_multiple_of(2) { "a" } else { "b" }).unwrap(),
        incarnation: Incarnation::new(n / 8),
        chunk: n % 8,
    };
    let session = SessionRecord {
        id: SessionId::new(n / 9 + 1),
        name: format!("app:{}", n / 9),
        cursor: Position::new(first),
        state: of("state"),
    };
    let receipts = ReceiptBlock {
        session: SessionId::new(n / 9 + 1),
        number: n,
        wall: WallMs(n),
        receipts: of("receipts"),
    };
    Batch {
        seen: vec![SeenRecord { key: mark(n), marks: of("marks") }],
        seen_dropped: if n % 5 == 4 { vec![mark(n - 2)] } else { vec![] },
        sessions: vec![session],
        sessions_ended: if n == 22 { vec![SessionId::new(2)] } else { vec![] },
        dead_letters: if n % 4 == 2 { vec![letter(n)] } else { vec![] },
        dead_letters_gone: if n % 8 == 7 { vec![DeadLetterId::new(n - 1)] } else { vec![] },
        receipts: vec![receipts],
        receipts_dropped: vec![(SessionId::new(n / 9 + 1), n.saturating_sub(6))],
        clock: Hlc(n << 16),
        incarnation: Incarnation::new(1 + n / 9),
        floor: Position::new(first.saturating_sub(50)),
        history_max_bytes: 1000,
        wall: WallMs(n),
        ..batch(rows)
    }
}

fn letter(n: u64) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::new(n),
        session: SessionId::new(n / 9 + 1),
        reason: DeadReason::ALL[n as usize % 4],
        attempts: 3,
        first_error: format!("first {n}"),
        last_error: "last".into(),
        first_at: WallMs(n),
        died_at: WallMs(n + 1),
        message: message(slipstream_core::message::Kind::Sk, n, "letter", "\"dead\"", 0),
    }
}

/// What a store tells when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub head: Position,
    pub clock: u64,
    pub incarnation: Incarnation,
    pub last_session: SessionId,
    pub last_dead_letter: DeadLetterId,
    pub sessions: Vec<SessionRecord>,
    pub seen: Vec<SeenRecord>,
    pub receipts: Vec<ReceiptBlock>,
    pub copies: Vec<(Hash128, Position)>,
    pub dead_letters: Vec<(SessionId, DeadReason, u64, u64)>,
}

impl Told {
    pub fn by(recovered: &Recovered) -> Self {
        assert_eq!(recovered.store_id, STORE);
        Self {
            head: recovered.head,
            clock: recovered.clock.0,
            incarnation: recovered.incarnation,
            last_session: recovered.last_session,
            last_dead_letter: recovered.last_dead_letter,
            sessions: recovered.sessions.clone(),
            seen: recovered.seen.clone(),
            receipts: recovered.receipts.clone(),
            // When they end is told while their rows are there.
            copies: recovered.copies.iter().map(|(copy, at, _)| (*copy, *at)).collect(),
            dead_letters: recovered.dead_letters.clone(),
        }
    }
}

/// A row as it was answered, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub position: u64,
    pub publisher: Option<SessionId>,
    pub only: Option<SessionId>,
    pub superseded: bool,
    pub encoded: Vec<u8>,
}

impl Answered {
    fn of(stored: &StoredRow) -> Self {
        Self {
            position: stored.row.position.get(),
            publisher: stored.row.publisher,
            only: stored.row.only,
            superseded: stored.superseded,
            encoded: stored.row.message.encoded().to_vec(),
        }
    }

    /// Whether it is what one of the batches held.
    pub fn is_of_a_batch(&self) -> bool {
        self.is_row(Message::clone)
    }

    /// Whether it is what one of the batches held, without the value: so [`Query::Find`] answers.
    pub fn is_of_a_batch_without_value(&self) -> bool {
        self.is_row(Message::without_value)
    }

    /// Whether a batch held it, with the message that `answer` makes of the one in the batch.
    fn is_row(&self, answer: impl Fn(&Message) -> Message) -> bool {
        static ROWS: LazyLock<HashMap<u64, Row>> = LazyLock::new(|| {
            let rows = (0..BATCHES).flat_map(|n| nth(n).rows);
            rows.map(|row| (row.position.get(), row)).collect()
        });
        ROWS.get(&self.position).is_some_and(|row| {
            answer(&row.message).encoded()[..] == self.encoded
                && (row.publisher, row.only) == (self.publisher, self.only)
        })
    }
}

/// What a store answers to each of its questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    pub rows: Vec<Answered>,
    pub rows_at: Vec<Answered>,
    pub latest: Vec<Option<(u64, Vec<u8>)>>,
    pub found: Vec<Answered>,
    pub letters: Vec<DeadLetter>,
}

impl Answers {
    pub fn of(harness: &mut Harness) -> Result<Self, StoreFailure> {
        let rows = all_rows(harness)?;
        let positions = (0..BATCHES).map(|n| nth(n).rows[0].position).collect();
        let Answer::RowsAt(at) =
            harness.try_fetch(Query::RowsAt { positions, tags: None, timely: Timely::ALL })?
        else {
            panic!("another answer")
        };
        let keys = (0..KEYS).map(|n| key_hash(&format!("k{n}"))).collect();
        let Answer::Latest(latest) = harness.try_fetch(Query::Latest(keys))? else {
            panic!("another answer")
        };
        let latest = latest.into_iter().map(|found| {
            found.map(|latest| (latest.position.get(), latest.message.encoded().to_vec()))
        });
        let mut found = Vec::new();
        for n in [2, 14, 22] {
            let id = nth(n).rows[0].message.id().to_owned();
            let query = Query::Find { id, after: Position::new(0) };
            let Answer::Find { rows, next: None } = harness.try_fetch(query)? else {
                panic!("another answer")
            };
            found.extend(rows.iter().map(Answered::of));
        }
        let query = Query::DeadLetters { after: DeadLetterId::new(0), limit: 100 };
        let Answer::DeadLetters(letters) = harness.try_fetch(query)? else {
            panic!("another answer")
        };
        harness.commit_nothing();
        let rows_at = at.iter().map(Answered::of).collect();
        Ok(Self { rows, rows_at, latest: latest.collect(), found, letters })
    }
}

impl Answers {
    /// Where two answers differ, for a person to read.
    pub fn difference(&self, other: &Self) -> String {
        let only_in = |a: &[Answered], b: &[Answered]| -> Vec<(u64, bool)> {
            let lacks = |row: &&Answered| !b.contains(row);
            a.iter().filter(lacks).map(|row| (row.position, row.superseded)).collect()
        };
        let rows = |a: &[Answered], b: &[Answered]| (only_in(a, b), only_in(b, a));
        format!(
            "rows {:?}, rows at {:?}, found {:?}, latest {}, letters {}",
            rows(&self.rows, &other.rows),
            rows(&self.rows_at, &other.rows_at),
            rows(&self.found, &other.found),
            if self.latest == other.latest { "equal" } else { "differ" },
            if self.letters == other.letters { "equal" } else { "differ" },
        )
    }
}

fn all_rows(harness: &mut Harness) -> Result<Vec<Answered>, StoreFailure> {
    let (mut all, mut after) = (Vec::new(), Position::new(0));
    loop {
        let answer = harness.try_fetch(Query::Rows {
            after,
            upto: Position::new(u64::MAX >> 1),
            newest_upto: Position::new(0),
            tags: None,
            timely: Timely::ALL,
            max_rows: 7,
            max_bytes: 20_000,
        })?;
        let Answer::Rows { rows, upto, .. } = answer else { panic!("another answer") };
        if upto == after {
            return Ok(all);
        }
        all.extend(rows.iter().map(Answered::of));
        after = upto;
    }
}

/// Everything about a store that was just opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub told: Told,
    pub answers: Answers,
}

impl Known {
    pub fn of(harness: &mut Harness) -> Result<Self, StoreFailure> {
        Ok(Self { told: Told::by(&harness.recovered), answers: Answers::of(harness)? })
    }
}

/// What is known after each number of batches, from none to all of them, in a run without faults.
pub fn clean() -> Vec<Known> {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::under(directory.path());
    let mut harness = Harness::with(durable(directory.path())).unwrap();
    let mut known = vec![reopened(&disk)];
    for n in 0..BATCHES {
        if REOPENED_BEFORE.contains(&n) {
            harness.store.close().unwrap();
            harness = Harness::with(durable(directory.path())).unwrap();
        }
        harness.commit(nth(n));
        known.push(reopened(&disk));
    }
    assert!(known.windows(2).all(|pair| pair[0] != pair[1]));
    known
}

fn reopened(disk: &Disk) -> Known {
    let copy = tempfile::tempdir().unwrap();
    disk.image(Survives::All, copy.path());
    let _disk = Disk::under(copy.path());
    Known::of(&mut Harness::with(durable(copy.path())).unwrap()).unwrap()
}

/// What a process that was killed behind so many batches has left: a database of which the end is
/// in the write-ahead log.
pub fn killed(batches: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::with(durable(directory.path())).unwrap();
    for n in 0..batches {
        if REOPENED_BEFORE.contains(&n) {
            harness.store.close().unwrap();
            harness = Harness::with(durable(directory.path())).unwrap();
        }
        harness.commit(nth(n));
    }
    image(directory.path())
}
