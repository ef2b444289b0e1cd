//! What every test of the store needs: a store with what it reports, and messages.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

pub mod workload;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use bytes::BytesMut;
use slipstream_core::clock::{Hlc, Timely};
use slipstream_core::config::Durability;
use slipstream_core::copies::GroupCopy;
use slipstream_core::digest::{DigestQuery, Digests, Print, Roots};
use slipstream_core::ids::*;
use slipstream_core::io::Input;
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::store::{Store as _, *};
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;
use slipstream_store_sqlite::{Damaged, OpenError, Options, Store};

pub const STORE: StoreId = StoreId(0x0123_4567_89ab_cdef);

/// What the store's thread says, in its order.
#[derive(Debug)]
enum Report {
    Input(Input),
    Damaged(Damaged),
}

pub struct Harness {
    pub store: Store,
    pub recovered: Recovered,
    pub damaged: Vec<Damaged>,
    reports: Receiver<Report>,
    batches: u64,
    fetches: u64,
}

pub fn options(directory: &Path) -> Options {
    Options::new(directory.to_path_buf(), Durability::Normal, STORE)
}

impl Harness {
    pub fn open(directory: &Path) -> Self {
        Self::with(options(directory)).unwrap()
    }

    pub fn with(options: Options) -> Result<Self, OpenError> {
        let (done, reports) = channel();
        let found = done.clone();
        let notify = Box::new(move |input| drop(done.send(Report::Input(input))));
        let on_damage = Box::new(move |damaged| drop(found.send(Report::Damaged(damaged))));
        let (store, recovered) = Store::open(options, notify, on_damage)?;
        let damaged = Vec::new();
        Ok(Self { store, recovered, damaged, reports, batches: 0, fetches: 0 })
    }

    fn next(&mut self) -> Input {
        loop {
            match self.reports.recv().unwrap() {
                Report::Damaged(damaged) => self.damaged.push(damaged),
                Report::Input(input) => return input,
            }
        }
    }

    /// Waits until the store says by itself that it is broken.
    pub fn broken(&mut self) -> StoreFailure {
        match self.next() {
            Input::StoreFailed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    pub fn try_commit(&mut self, mut batch: Batch) -> Result<Usage, StoreFailure> {
        self.batches += 1;
        batch.id = BatchId::new(self.batches);
        self.store.commit(Box::new(batch)).unwrap();
        match self.next() {
            Input::Committed(committed) => {
                assert_eq!(committed.batch.id.get(), self.batches);
                Ok(committed.usage)
            }
            Input::CommitFailed(failed) => Err(failed.failure),
            other => panic!("{other:?}"),
        }
    }

    pub fn commit(&mut self, batch: Batch) -> Usage {
        self.try_commit(batch).unwrap()
    }

    pub fn fetch(&mut self, query: Query) -> Answer {
        self.try_fetch(query).unwrap()
    }

    pub fn try_fetch(&mut self, query: Query) -> Result<Answer, StoreFailure> {
        self.fetches += 1;
        self.store.fetch(FetchId::new(self.fetches), query).unwrap();
        match self.next() {
            Input::Fetched { fetch, answer } => {
                assert_eq!(fetch.get(), self.fetches);
                answer
            }
            other => panic!("{other:?}"),
        }
    }

    /// All rows of the log.
    pub fn rows(&mut self) -> Vec<StoredRow> {
        let (mut all, mut after) = (Vec::new(), Position::new(0));
        loop {
            let answer = self.fetch(Query::Rows {
                after,
                upto: Position::new(u64::MAX >> 1),
                newest_upto: Position::new(0),
                tags: None,
                timely: Timely::ALL,
                max_rows: usize::MAX,
                max_bytes: usize::MAX,
            });
            // Damage met on the way is reported behind the answer.
            self.commit_nothing();
            match answer {
                Answer::Rows { upto, .. } if upto == after => return all,
                Answer::Rows { rows, upto, .. } => {
                    all.extend(rows);
                    after = upto;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Takes in what was reported behind the last answer.
    pub fn commit_nothing(&mut self) {
        let (done, pong) = channel();
        self.store.ping(Box::new(move || done.send(()).unwrap())).unwrap();
        pong.recv().unwrap();
        while let Ok(report) = self.reports.try_recv() {
            match report {
                Report::Damaged(damaged) => self.damaged.push(damaged),
                Report::Input(other) => panic!("{other:?}"),
            }
        }
    }

    pub fn positions(&mut self) -> Vec<u64> {
        self.rows().iter().map(|row| row.row.position.get()).collect()
    }

    pub fn digests(&mut self, query: DigestQuery) -> Digests {
        loop {
            match self.fetch(Query::Digests(query.clone())) {
                Answer::Digests(Digests::Behind) => {}
                Answer::Digests(found) => return found,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The digests of all tag sets.
    pub fn roots(&mut self) -> Vec<(TagSet, Print)> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            match self.digests(DigestQuery::TagSets { after }) {
                Digests::TagSets(Roots { digests, upto }) => {
                    all.extend(digests);
                    after = upto;
                }
                other => panic!("{other:?}"),
            }
            if after.is_none() {
                return all;
            }
        }
    }

    pub fn buckets(&mut self, tags: &TagSet) -> Vec<Print> {
        match self.digests(DigestQuery::Buckets { tags: tags.clone() }) {
            Digests::Buckets(buckets) => buckets,
            other => panic!("{other:?}"),
        }
    }

    /// Prints and numbers of the live messages of a bucket.
    pub fn entries(&mut self, tags: &TagSet, bucket: u16) -> Vec<(Print, u64)> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            match self.digests(DigestQuery::Entries { tags: tags.clone(), bucket, after }) {
                Digests::Entries { entries, next } => {
                    let numbers = entries.iter().map(|(print, one)| (*print, one.sequence().get()));
                    all.extend(numbers);
                    after = next;
                }
                other => panic!("{other:?}"),
            }
            if after.is_none() {
                return all;
            }
        }
    }

    pub fn latest(&mut self, keys: &[&str]) -> Vec<Option<(u64, String)>> {
        let hashes = keys.iter().map(|key| key_hash(key)).collect();
        match self.fetch(Query::Latest(hashes)) {
            Answer::Latest(found) => found
                .into_iter()
                .map(|found| found.map(|l| (l.position.get(), l.message.body().to_owned())))
                .collect(),
            other => panic!("{other:?}"),
        }
    }
}

pub fn key_hash(key: &str) -> Hash128 {
    state(1, key, "0").key_hash.unwrap()
}

pub fn message(kind: Kind, number: u64, key: &str, value: &str, expires: u64) -> Message {
    tagged(kind, number, "", key, value, expires)
}

fn tagged(kind: Kind, number: u64, tags: &str, key: &str, value: &str, expires: u64) -> Message {
    let fields = Fields {
        kind,
        incarnation: Incarnation::new(7),
        sequence: Sequence::new(number),
        version: Hlc(number << 16),
        expires: WallMs(expires),
        group: "",
        tags,
        path: "a,b",
        id: &format!("m-{number}"),
        key,
        body: value,
    };
    Message::encode(&fields, &mut BytesMut::new())
}

pub fn state(position: u64, key: &str, value: &str) -> Row {
    let message = message(Kind::Sk, position, key, value, 0);
    Row::new(Position::new(position), message)
}

/// State of a key in one of its tag sets; `null` deletes it. Was made at the millisecond
/// `position`.
pub fn in_tags(position: u64, tags: &str, key: &str, value: &str) -> Row {
    let kind = if value == "null" { Kind::Dk } else { Kind::Sk };
    let message = tagged(kind, position, tags, key, value, 0);
    Row::new(Position::new(position), message)
}

pub fn event(position: u64, key: &str, value: &str, expires: u64) -> Row {
    let message = message(Kind::Cmd, position, key, value, expires);
    Row::new(Position::new(position), message)
}

/// An event that came through a cluster group.
pub fn of_group(position: u64, id: &str) -> Row {
    let copy = Some(GroupCopy { content: Hash128::of(&[id.as_bytes()]), of: None });
    Row { copy, ..event(position, "e", "1", 1 << 40) }
}

/// A batch that lets everything be kept.
pub fn batch(rows: Vec<Row>) -> Batch {
    Batch { rows, history_max_bytes: u64::MAX, ..Batch::default() }
}

/// A batch under which no history is kept up to `floor`.
pub fn trim(floor: u64, wall: u64) -> Batch {
    Batch { floor: Position::new(floor), wall: WallMs(wall), ..Batch::default() }
}

/// What a killed process would leave: the files as they are now.
pub fn image(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        // Read in another process: closing the file here would release the store's locks.
        let status = std::process::Command::new("cp")
            .arg(file.path())
            .arg(copy.path().join(file.file_name()))
            .status();
        assert!(status.unwrap().success());
    }
    copy
}
