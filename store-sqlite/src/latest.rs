//! Which row is the newest of its key: the table `latest` and, in memory, what it does not know
//! yet.
//!
//! Keys are random, and writing them to the table as they come would cost more than all the rest
//! of a commit. So the newest rows are *pending* in memory, and rounds over the pending keys, in
//! the order of the table, merge a slice with each commit. `merged` is the position up to which
//! the table knows every row; a store that is opened reads the log from there. What stays true:
//! the newest row of a key is the pending one if there is one, else the one in the table.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, params};
use slipstream_core::ids::Hash128;

use crate::digest::{Digest, checksum_of};

/// Least number of keys merged with a commit, while a round goes on.
const SLICE: usize = 200;

/// A round takes about so many commits.
const ROUND: usize = 64;

/// A round begins when so many keys are pending, ...
const PENDING_KEYS: usize = 4096;

/// ... or keys whose rows have so many bytes: until then the rows that they replaced stay, ...
const PENDING_BYTES: u64 = 1 << 20;

/// ... or the log has grown by so many positions: all of them are read at the next start.
const TAIL: u64 = 32_768;

/// Above these bounds more is merged than comes in.
const MOST_PENDING_KEYS: usize = 262_144;
const MOST_PENDING_BYTES: u64 = 32 << 20;

/// The newest row of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) position: u64,
    pub(crate) size: u32,
}

/// Keys whose newest row is not in the table yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    newest: BTreeMap<Hash128, Newest>,
    bytes: u64,
    merged: u64,
    round: Option<Round>,
}

/// A round over the pending keys.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// The end of the log when the round began: at its end the table knows everything up to here.
    upto: u64,
    /// The last key merged.
    after: Option<Hash128>,
}

/// Keys merged by a transaction, to be applied once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    keys: Vec<Hash128>,
    /// Rows that were found to be superseded.
    pub(crate) superseded: Vec<Newest>,
    round: Option<Round>,
    /// The table knows every row up to here.
    pub(crate) upto: u64,
    /// How the digest of the table has changed.
    pub(crate) digest: Digest,
}

impl Pending {
    pub(crate) fn new(merged: u64) -> Self {
        Self { merged, ..Self::default() }
    }

    pub(crate) fn newest(&self, key: &Hash128) -> Option<Newest> {
        self.newest.get(key).copied()
    }

    /// Notes a newer row; answers the pending one that it replaces.
    pub(crate) fn insert(&mut self, key: Hash128, newest: Newest) -> Option<Newest> {
        self.bytes += u64::from(newest.size);
        let old = self.newest.insert(key, newest);
        self.bytes -= old.map_or(0, |old| u64::from(old.size));
        old
    }

    /// The newest rows of the tag sets of a key, whose hashes lie in `range`. If there are more
    /// than `most`, then more than that come back, and not all.
    pub(crate) fn of_key(
        &self,
        db: &Connection,
        range: RangeInclusive<Hash128>,
        most: usize,
    ) -> Result<BTreeMap<Hash128, Newest>> {
        let mut statement = db.prepare_cached(
            "SELECT position, size, key FROM latest WHERE key BETWEEN ?1 AND ?2 LIMIT ?3",
        )?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let stored = statement
            .query_map(params![range.start().0, range.end().0, limit], |row| {
                Ok((Hash128(row.get(2)?), newest(row)?))
            })?;
        let mut all = stored.collect::<Result<BTreeMap<_, _>>>()?;
        all.extend(self.newest.range(range).take(most + 1).map(|(key, newest)| (*key, *newest)));
        Ok(all)
    }

    /// Merges the next slice into the table; `head` is the end of the log, `rows` what the
    /// transaction appends to it.
    pub(crate) fn merge(&self, db: &Connection, head: u64, rows: usize) -> Result<Merged> {
        let due = self.newest.len() >= PENDING_KEYS
            || self.bytes >= PENDING_BYTES
            || head - self.merged >= TAIL;
        let begun = due.then_some(Round { upto: head, after: None });
        let Some(round) = self.round.or(begun) else {
            return Ok(Merged { upto: self.merged, ..Merged::default() });
        };
        let mut slice = SLICE.max(self.newest.len() / ROUND);
        if self.newest.len() > MOST_PENDING_KEYS || self.bytes > MOST_PENDING_BYTES {
            slice = slice.max(SLICE + 2 * rows);
        }
        let from = round.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut merged = Merged::default();
        let mut table = Table::new(db)?;
        for (key, newest) in self.newest.range((from, Bound::Unbounded)).take(slice) {
            merged.keys.push(*key);
            merged.superseded.extend(table.put(key, *newest, &mut merged.digest)?);
        }
        if merged.keys.len() < slice {
            merged.upto = round.upto;
        } else {
            merged.upto = self.merged;
            merged.round = Some(Round { after: merged.keys.last().copied(), ..round });
        }
        Ok(merged)
    }

    /// Forgets what the committed transaction has merged. Comes before its rows are inserted.
    pub(crate) fn apply(&mut self, merged: &Merged) {
        for key in &merged.keys {
            let newest = self.newest.remove(key).expect("nothing changes between plan and commit");
            self.bytes -= u64::from(newest.size);
        }
        self.merged = merged.upto;
        self.round = merged.round;
    }
}

/// The newest row of a key that the table knows.
pub(crate) fn stored(db: &Connection, key: &Hash128) -> Result<Option<Newest>> {
    lookup(&mut db.prepare_cached(LOOKUP)?, key)
}

const LOOKUP: &str = "SELECT position, size FROM latest WHERE key = ?1";

const PUT: &str = "INSERT INTO latest (key, position, size, checksum) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (key) DO UPDATE SET position = ?2, size = ?3, checksum = ?4";

/// CRC-32 of a row of the table.
pub(crate) fn checksum(key: &[u8], newest: Newest) -> u32 {
    checksum_of([newest.position, newest.size.into()], &[key])
}

/// The table, with its statements prepared for many keys.
struct Table<'a> {
    lookup: CachedStatement<'a>,
    put: CachedStatement<'a>,
}

impl<'a> Table<'a> {
    fn new(db: &'a Connection) -> Result<Self> {
        Ok(Self { lookup: db.prepare_cached(LOOKUP)?, put: db.prepare_cached(PUT)? })
    }

    /// Puts a row into the table unless it is there; answers the one that is older.
    fn put(
        &mut self,
        key: &Hash128,
        newest: Newest,
        digest: &mut Digest,
    ) -> Result<Option<Newest>> {
        let old = lookup(&mut self.lookup, key)?;
        match old {
            Some(old) if old.position == newest.position => return Ok(None),
            // Only if newer rows of the log could not be read when the store was opened.
            Some(old) if old.position > newest.position => return Ok(Some(newest)),
            Some(_) | None => {}
        }
        let new = checksum(&key.0, newest);
        digest.add(new);
        digest.remove(old.map_or(0, |old| checksum(&key.0, old)));
        self.put.execute(params![key.0, newest.position.cast_signed(), newest.size, new])?;
        Ok(old)
    }
}

fn lookup(statement: &mut CachedStatement<'_>, key: &Hash128) -> Result<Option<Newest>> {
    statement.query_row([key.0], newest).optional()
}

/// Position and size from the first two columns.
fn newest(row: &rusqlite::Row<'_>) -> Result<Newest> {
    Ok(Newest { position: row.get::<_, i64>(0)?.cast_unsigned(), size: row.get(1)? })
}
