//! Which row is the newest of its key: the table `latest` and, in memory, what it does not know
//! yet.
//!
//! Keys are random, and writing them to the table as they come would cost more than all the rest
//! of a commit. So the newest rows are *pending* in memory, and rounds over the pending keys, in
//! the order of the table, merge a slice with each commit. `merged` is the position up to which
//! the table knows every row; a store that is opened reads the log from there. What stays true:
//! the newest row of a key is the pending one if there is one, else the one in the table.

use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, RangeInclusive};

use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, params};
use slipstream_core::digest::Print;
use slipstream_core::ids::Hash128;
use slipstream_core::store::Batch;

use crate::digest::{Digest, checksum_of};
use crate::live::{Changes, TagSetNumber, TagSetNumbers};

/// Least number of keys merged with a commit, while a round goes on.
const SLICE: usize = 200;

/// A round takes about so many commits.
const ROUND: usize = 64;

/// A round begins when so many keys are pending, ...
const PENDING_KEYS: usize = 4096;

/// ... or keys whose rows have so many bytes: until then the rows that they replaced stay, ...
const PENDING_BYTES: u64 = 1 << 20;

/// ... or the log has grown by so many positions: all of them are read at the next start; or, with
/// a commit that appends nothing, when no history may stay, for want of room.
const TAIL: u64 = 32_768;

/// Above these bounds more is merged than comes in.
const MOST_PENDING_KEYS: usize = 262_144;
const MOST_PENDING_BYTES: u64 = 32 << 20;

/// The newest row of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NewestRow {
    pub(crate) position: u64,
    pub(crate) size: u32,
    /// What stands for it in the digests.
    pub(crate) print: Print,
}

/// A newest row that is not in the table yet. It is small, as there are many, in no order.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    position: u64,
    print: Print,
    size: u32,
    tags: TagSetNumber,
}

impl Waiting {
    fn newest(&self) -> NewestRow {
        let Self { position, print, size, .. } = *self;
        NewestRow { position, size, print }
    }
}

/// Keys whose newest row is not in the table yet.
#[derive(Debug, Default)]
pub(crate) struct PendingRows {
    newest: BTreeMap<Hash128, Waiting>,
    names: TagSetNumbers,
    /// The print that the table has for a pending key, once it was looked up: nothing changes it
    /// but merging the key.
    stored: RefCell<HashMap<Hash128, Print>>,
    /// Keys that have become pending since that was asked last.
    added: Cell<usize>,
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
    pub(crate) superseded: Vec<NewestRow>,
    round: Option<Round>,
    /// The table knows every row up to here.
    pub(crate) upto: u64,
    /// How the checksums of this table, and of that of the digests, have changed.
    pub(crate) digest: Digest,
}

impl PendingRows {
    pub(crate) fn new(merged: u64) -> Self {
        Self { merged, ..Self::default() }
    }

    pub(crate) fn newest(&self, key: &Hash128) -> Option<NewestRow> {
        self.newest.get(key).map(Waiting::newest)
    }

    /// Notes a newer row of a key in this tag set; answers the pending one that it replaces.
    pub(crate) fn insert(
        &mut self,
        key: Hash128,
        newest: NewestRow,
        tags: &str,
    ) -> Option<NewestRow> {
        let NewestRow { position, size, print } = newest;
        self.bytes += u64::from(size);
        match self.newest.entry(key) {
            Entry::Occupied(mut waiting) => {
                let waiting = waiting.get_mut();
                let old = waiting.newest();
                *waiting = Waiting { position, size, print, ..*waiting };
                self.bytes -= u64::from(old.size);
                Some(old)
            }
            Entry::Vacant(place) => {
                place.insert(Waiting { position, size, print, tags: self.names.take(tags) });
                *self.added.get_mut() += 1;
                None
            }
        }
    }

    /// Looks up what the table has for the keys that are pending, of at most so many that were not
    /// looked up before; of none, if that is in vain because even more have come since it was asked
    /// last. Answers whether that was all.
    pub(crate) fn look_up(&self, db: &Connection, most: usize) -> Result<bool> {
        let mut known = self.stored.borrow_mut();
        let left = self.newest.len() - known.len();
        if self.added.take() > most && left > most {
            return Ok(false);
        }
        let mut statement = db.prepare_cached(LOOKUP)?;
        let unknown = self.newest.keys().filter(|key| !known.contains_key(key));
        for key in unknown.take(most).copied().collect::<Vec<_>>() {
            let stored = lookup(&mut statement, &key)?;
            known.insert(key, stored.map_or(Print::NOTHING, |stored| stored.print));
        }
        Ok(left <= most)
    }

    /// How the digests will change when all is merged, by key and tag set. Everything was looked
    /// up.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&Hash128, &str, Print)> {
        let known = self.stored.borrow();
        self.newest.iter().map(move |(key, waiting)| {
            let stored = known.get(key).copied().unwrap_or_default();
            (key, self.names.name(waiting.tags), waiting.print.minus(stored))
        })
    }

    /// The newest rows of at most so many keys in a range of hashes, in order. If there may be more
    /// of them, the last one is the end of what was looked at.
    pub(crate) fn page(
        &self,
        db: &Connection,
        range: (Bound<Hash128>, Hash128),
        most: usize,
    ) -> Result<(BTreeMap<Hash128, NewestRow>, bool)> {
        let (first, end) = range;
        let (from, above) = match first {
            Bound::Included(first) => (first, false),
            Bound::Excluded(first) => (first, true),
            Bound::Unbounded => (Hash128([0; 16]), false),
        };
        if (above && from >= end) || from > end {
            return Ok((BTreeMap::new(), false));
        }
        let mut statement = db.prepare_cached(
            "SELECT position, size, print, key FROM latest
             WHERE key BETWEEN ?1 AND ?2 AND (?3 = 0 OR key > ?1) ORDER BY key LIMIT ?4",
        )?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let found = statement.query_map(params![from.0, end.0, above, limit], |row| {
            Ok((Hash128(row.get(3)?), newest(row)?))
        })?;
        let mut page = found.collect::<Result<BTreeMap<_, _>>>()?;
        // Behind the last row that came back the table was not looked at.
        let full = page.len() > most;
        let end = page.last_key_value().filter(|_| full).map_or(end, |(last, _)| *last);
        let pending = self.newest.range((first, Bound::Included(end)));
        page.extend(pending.map(|(key, waiting)| (*key, waiting.newest())));
        let mut more = false;
        while page.len() > most {
            page.pop_last();
            more = true;
        }
        Ok((page, more))
    }

    /// The newest rows of the tag sets of a key, whose hashes lie in `range`. If there are more
    /// than `most`, then more than that come back, and not all.
    pub(crate) fn of_key(
        &self,
        db: &Connection,
        range: RangeInclusive<Hash128>,
        most: usize,
    ) -> Result<BTreeMap<Hash128, NewestRow>> {
        let mut statement = db.prepare_cached(
            "SELECT position, size, print, key FROM latest WHERE key BETWEEN ?1 AND ?2 LIMIT ?3",
        )?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let stored = statement
            .query_map(params![range.start().0, range.end().0, limit], |row| {
                Ok((Hash128(row.get(3)?), newest(row)?))
            })?;
        let mut all = stored.collect::<Result<BTreeMap<_, _>>>()?;
        let pending = self.newest.range(range).take(most + 1);
        all.extend(pending.map(|(key, waiting)| (*key, waiting.newest())));
        Ok(all)
    }

    /// Merges the next slice into the table; `head` is the end of the log before the batch.
    pub(crate) fn merge(&self, db: &Connection, head: u64, batch: &Batch) -> Result<Merged> {
        let rows = batch.rows.len();
        // What the pending rows replaced counts as history, and can go, only behind a round.
        let is_short = batch.history_max_bytes == 0 && rows == 0 && !self.newest.is_empty();
        let due = self.newest.len() >= PENDING_KEYS
            || self.bytes >= PENDING_BYTES
            || head - self.merged >= TAIL
            || is_short;
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
        let mut live = Changes::default();
        for (key, waiting) in self.newest.range((from, Bound::Unbounded)).take(slice) {
            merged.keys.push(*key);
            merged.superseded.extend(table.put(key, waiting, &mut merged.digest, &mut live)?);
        }
        live.write(db, &self.names, &mut merged.digest)?;
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
            let waiting = self.newest.remove(key).expect("nothing changes between plan and commit");
            self.bytes -= u64::from(waiting.size);
            self.names.give_back(waiting.tags);
            self.stored.get_mut().remove(key);
        }
        self.merged = merged.upto;
        self.round = merged.round;
    }
}

/// The newest row of a key that the table knows.
pub(crate) fn stored(db: &Connection, key: &Hash128) -> Result<Option<NewestRow>> {
    lookup(&mut db.prepare_cached(LOOKUP)?, key)
}

const LOOKUP: &str = "SELECT position, size, print FROM latest WHERE key = ?1";

const PUT: &str = "INSERT INTO latest (key, position, size, print, checksum)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (key)
                   DO UPDATE SET position = ?2, size = ?3, print = ?4, checksum = ?5";

/// CRC-32 of a row of the table.
pub(crate) fn checksum(key: &[u8], newest: NewestRow) -> u32 {
    checksum_of([newest.position, newest.size.into(), newest.print.get()], &[key])
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
        waiting: &Waiting,
        digest: &mut Digest,
        live: &mut Changes,
    ) -> Result<Option<NewestRow>> {
        let newest = waiting.newest();
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
        live.replace(key, waiting.tags, old.unwrap_or_default().print, newest.print);
        let (position, print) = (newest.position.cast_signed(), newest.print.get().cast_signed());
        self.put.execute(params![key.0, position, newest.size, print, new])?;
        Ok(old)
    }
}

fn lookup(statement: &mut CachedStatement<'_>, key: &Hash128) -> Result<Option<NewestRow>> {
    statement.query_row([key.0], newest).optional()
}

/// Position, size and print from the first three columns.
fn newest(row: &rusqlite::Row<'_>) -> Result<NewestRow> {
    let print = Print::new(row.get::<_, i64>(2)?.cast_unsigned());
    Ok(NewestRow { position: row.get::<_, i64>(0)?.cast_unsigned(), size: row.get(1)?, print })
}
