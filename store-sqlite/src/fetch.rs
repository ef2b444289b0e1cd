//! Answers questions. Each is one short read; damaged rows are left out and reported.

mod digests;

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, Result, params};
use slipstream_core::digest::{DigestQuery, Digests};
use slipstream_core::ids::{DeadLetterId, Hash128, Position};
use slipstream_core::store::{
    Answer, DEAD_LETTERS_BYTES, DeadLetter, LISTED_VALUE_BYTES, Latest, ListedLetter, MAX_TAG_SETS,
    MAX_TAG_SETS_BYTES, Query, Row, StoredRow, StoredValue, VALUES_BYTES,
};
use slipstream_core::tags::TagSet;

use crate::latest;
use crate::log::{self, Damaged};
use crate::reader::{ReaderThread, select_rows, stored_number};
use crate::records::{self, dead_letter_columns, listed_letter_columns};
use crate::state::StoreState;

/// Rows that one [`Query::Find`] looks at.
const FIND_ROWS: u32 = 20_000;

/// Rows that one [`Query::Rows`] looks at, at most.
const ROWS_LOOKED_AT: usize = 8192;

/// Rows that one [`Query::Find`] answers, at most.
const FOUND_ROWS: usize = 64;

/// Looks `query` up; what is damaged goes into `damaged`.
pub(crate) fn answer(
    db: &Connection,
    state: &StoreState,
    query: &Query,
    damaged: &mut Vec<Damaged>,
) -> Result<Answer> {
    ReaderThread::new(db, state, damaged).answer(query)
}

impl ReaderThread<'_> {
    fn answer(mut self, query: &Query) -> Result<Answer> {
        match query {
            Query::Rows { after, upto, newest_upto, tags, timely, max_rows, max_bytes } => {
                self.timely = *timely;
                let range = (*after, *upto);
                self.rows(range, (*newest_upto, tags.as_ref()), *max_rows, *max_bytes)
            }
            Query::RowsAt { positions, tags, timely } => {
                self.timely = *timely;
                let mut rows = Vec::with_capacity(positions.len());
                for &position in positions {
                    if let Some(row) = self.row_at(position)? {
                        rows.push(self.judged(stored(self.state, row), tags.as_ref())?);
                    }
                }
                self.judge_replayed(&mut rows)?;
                Ok(Answer::RowsAt(rows))
            }
            Query::Latest(keys) => {
                let latest = keys.iter().map(|key| self.latest(key));
                Ok(Answer::Latest(latest.collect::<Result<_>>()?))
            }
            Query::Values { keys, tags, timely } => {
                self.timely = *timely;
                self.values(keys, tags)
            }
            Query::Find { id, after } => self.find(id, *after),
            Query::DeadLetters { after, limit } => {
                Ok(Answer::DeadLetters(self.dead_letters(*after, *limit)?))
            }
            Query::DeadLetterList { after, limit, id } => {
                self.dead_letter_list(*after, *limit, id.as_deref())
            }
            Query::Digests(query) => Ok(Answer::Digests(self.digests(query)?)),
        }
    }

    fn digests(&mut self, query: &DigestQuery) -> Result<Digests> {
        match query {
            DigestQuery::TagSets { after } => {
                digests::tag_sets(self.db, self.state, after.as_ref())
            }
            DigestQuery::Buckets { tags } => digests::buckets(self.db, self.state, tags),
            DigestQuery::Entries { tags, bucket, after } => {
                digests::entries(self, tags, *bucket, *after)
            }
        }
    }

    fn rows(
        &mut self,
        (after, upto): (Position, Position),
        (newest_upto, tags): (Position, Option<&TagSet>),
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Answer> {
        // What is not committed yet may still come below `upto`.
        let mut looked_at = upto.min(self.head).max(after);
        let (mut rows, mut bytes, mut superseded) = (Vec::<StoredRow>::new(), 0, 0);
        let sql = select_rows!("WHERE position > ?1 AND position <= ?2 ORDER BY position");
        let db = self.db;
        let mut statement = db.prepare_cached(sql)?;
        let mut found =
            statement.query(params![stored_number(after.get()), stored_number(looked_at.get())])?;
        let (mut last, mut steps, mut passed) = (after, 0, 0);
        while let Some(columns) = found.next()? {
            steps += 1;
            let position = Position::new(columns.get::<_, i64>(0)?.cast_unsigned());
            if steps > ROWS_LOOKED_AT {
                looked_at = last;
                break;
            }
            // Known without reading the row.
            let known = position <= newest_upto && self.state.index.is_superseded(position.get());
            match if known { None } else { Some(log::read(columns)) } {
                None => superseded += 1,
                Some(Err(damage)) => self.damaged.push(damage),
                Some(Ok(row)) => {
                    let checked = position <= newest_upto;
                    let judges = checked || row.late || row.only.is_some();
                    let stored = stored(self.state, row);
                    // That a copy was left out for another tag set is told: it may be repeated.
                    let leaves_out = checked && (stored.superseded || stored.row.copy.is_none());
                    let stored = self.judged(stored, tags.filter(|_| judges))?;
                    let size = stored.row.size();
                    let is_full = rows.len() >= max_rows || bytes + size > max_bytes;
                    if stored.superseded && leaves_out {
                        superseded += 1;
                    } else if is_full && !rows.is_empty() {
                        looked_at = last;
                        break;
                    } else {
                        bytes += size;
                        rows.push(stored);
                    }
                }
            }
            // A damaged page may lead back.
            last = last.max(position);
            passed += 1;
        }
        // A damaged page of the table's tree leads past rows that are there.
        if passed != self.state.index.rows_between(after.get(), looked_at.get()) {
            self.damaged.push(Damaged::Log);
        }
        drop(found);
        drop(statement);
        self.judge_replayed(&mut rows)?;
        Ok(Answer::Rows { rows, upto: looked_at, superseded })
    }

    /// A row, and whether a newer value is there: in its own tag set, or in any that matches.
    fn judged(&mut self, mut stored: StoredRow, tags: Option<&TagSet>) -> Result<StoredRow> {
        if let Some(tags) = tags
            && !stored.superseded
        {
            stored.superseded = self.is_outdone(&stored.row, tags)?;
        }
        Ok(stored)
    }

    /// Whether a tag set that matches `tags` has a newer value of the row's key. Most keys have one
    /// tag set only, and of that it is known.
    fn is_outdone(&mut self, Row { message, .. }: &Row, tags: &TagSet) -> Result<bool> {
        let Some(hash) = message.key_hash() else { return Ok(false) };
        if self.state.pending.of_key(self.db, hash.same_key(), 1)?.len() < 2 {
            return Ok(false);
        }
        // Any of them: in doubt, the newest may be one that has not outdone the row for certain.
        let timely = self.timely;
        let values = self.values_of(message.key(), tags, &mut 0)?.unwrap_or_default();
        Ok(values.iter().any(|value| value.message.has_outdone(message, timely)))
    }

    /// Rows for one session only compete with nobody: whether they are the newest of their key
    /// is looked up.
    fn judge_replayed(&mut self, rows: &mut [StoredRow]) -> Result<()> {
        for StoredRow { row, superseded } in rows.iter_mut().filter(|s| s.row.only.is_some()) {
            if let Some(key) = row.message.key_hash()
                && let Some(newest) = self.latest(&key)?
            {
                *superseded |= newest.message.has_outdone(&row.message, self.timely);
            }
        }
        Ok(())
    }

    fn find(&mut self, id: &str, after: Position) -> Result<Answer> {
        let last: Option<i64> = self
            .db
            .prepare_cached(
                "SELECT position FROM log WHERE position > ?1 ORDER BY position
                 LIMIT 1 OFFSET ?2",
            )?
            .query_row(params![stored_number(after.get()), FIND_ROWS - 1], |row| row.get(0))
            .optional()?;
        let mut next = last.map(|last| Position::new(last.cast_unsigned()));
        let upto = last.unwrap_or(i64::MAX);
        let sql = select_rows!(
            "WHERE position > ?1 AND position <= ?2 AND message_id = ?3 ORDER BY position"
        );
        let mut rows = Vec::new();
        let state = self.state;
        self.each(sql, params![stored_number(after.get()), upto, id], |row| {
            let position = row.position;
            let mut found = stored(state, row);
            found.row.message = found.row.message.without_value();
            rows.push(found);
            if rows.len() < FOUND_ROWS {
                return ControlFlow::Continue(());
            }
            next = Some(position);
            ControlFlow::Break(())
        })?;
        Ok(Answer::Find { rows, next })
    }

    fn latest(&mut self, key: &Hash128) -> Result<Option<Latest>> {
        let newest = match self.state.pending.newest(key) {
            Some(newest) => Some(newest),
            None => latest::stored(self.db, key)?,
        };
        let Some(newest) = newest else { return Ok(None) };
        let row = self.row_at(Position::new(newest.position))?;
        Ok(row.map(|row| Latest { position: row.position, message: row.message }))
    }

    fn values(&mut self, keys: &[String], tags: &TagSet) -> Result<Answer> {
        let (mut values, mut looked_at) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            values.push(self.value(key, tags, &mut looked_at)?);
            if looked_at > VALUES_BYTES {
                break;
            }
        }
        Ok(Answer::Values(values))
    }

    fn value(&mut self, key: &str, tags: &TagSet, looked_at: &mut u64) -> Result<StoredValue> {
        let Some(values) = self.values_of(key, tags, looked_at)? else {
            return Ok(StoredValue::TooMany);
        };
        Ok(Latest::newest(values, self.timely).map_or(StoredValue::Absent, StoredValue::Newest))
    }

    /// The newest value of a key in each tag set that matches; `None` if they are too many.
    fn values_of(
        &mut self,
        key: &str,
        tags: &TagSet,
        looked_at: &mut u64,
    ) -> Result<Option<Vec<Latest>>> {
        let all = self.state.pending.of_key(self.db, Hash128::range_of_key(key), MAX_TAG_SETS)?;
        let bytes: u64 = all.values().map(|newest| u64::from(newest.size)).sum();
        if all.len() > MAX_TAG_SETS || bytes > MAX_TAG_SETS_BYTES {
            return Ok(None);
        }
        *looked_at += bytes;
        let mut values = Vec::with_capacity(all.len());
        for place in all.values() {
            let Some(row) = self.row_at(Position::new(place.position))? else { continue };
            let (position, message) = (row.position, row.message);
            if message.key() == key && tags.matches(message.tags()) {
                values.push(Latest { position, message });
            }
        }
        Ok(Some(values))
    }

    fn dead_letters(&mut self, after: DeadLetterId, limit: usize) -> Result<Vec<DeadLetter>> {
        let sql = concat!(
            "SELECT ",
            dead_letter_columns!(),
            " FROM dead_letters WHERE id > ?1 ORDER BY id"
        );
        let mut statement = self.db.prepare_cached(sql)?;
        let mut found = statement.query([stored_number(after.get())])?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while letters.len() < limit && bytes < DEAD_LETTERS_BYTES {
            let Some(columns) = found.next()? else { break };
            match records::read_dead_letter(columns) {
                Ok(letter) => {
                    bytes += told_size(&letter);
                    letters.push(letter);
                }
                Err(damage) => self.damaged.push(damage),
            }
        }
        Ok(letters)
    }

    fn dead_letter_list(
        &mut self,
        after: DeadLetterId,
        limit: usize,
        id: Option<&str>,
    ) -> Result<Answer> {
        let sql = concat!(
            "SELECT ",
            listed_letter_columns!(),
            " FROM dead_letters WHERE id > ?1 ORDER BY id"
        );
        let mut statement = self.db.prepare_cached(sql)?;
        let longest = LISTED_VALUE_BYTES as i64;
        let mut found = statement.query(params![stored_number(after.get()), longest])?;
        let (mut listed, mut bytes) = (Vec::<ListedLetter>::new(), 0);
        let (mut last, mut steps) = (after, 0);
        loop {
            let is_full = listed.len() >= limit || bytes >= DEAD_LETTERS_BYTES;
            if is_full || steps >= FIND_ROWS {
                return Ok(Answer::DeadLetterList { listed, next: Some(last) });
            }
            let Some(columns) = found.next()? else { break };
            steps += 1;
            // A damaged page may lead back.
            last = last.max(DeadLetterId::new(columns.get::<_, i64>(0)?.cast_unsigned()));
            let is_wanted = id.is_none_or(|id| {
                columns.get_ref(13).ok().and_then(|had| had.as_str().ok()) == Some(id)
            });
            match if is_wanted { Some(records::read_listed_letter(columns)) } else { None } {
                Some(Ok(letter)) => {
                    bytes += told_size(&letter.letter);
                    listed.push(letter);
                }
                Some(Err(damage)) => self.damaged.push(damage),
                None => {}
            }
        }
        Ok(Answer::DeadLetterList { listed, next: None })
    }
}

/// What a dead letter takes in an answer: beyond its message, its errors are told.
fn told_size(letter: &DeadLetter) -> usize {
    records::letter_size(letter) as usize + letter.first_error.len() + letter.last_error.len()
}

fn stored(state: &StoreState, row: Row) -> StoredRow {
    let position = row.position.get();
    let superseded = row.key_hash.is_some_and(|key| {
        state.index.is_superseded(position)
            || state.pending.newest(&key).is_some_and(|newest| newest.position > position)
    });
    StoredRow { row, superseded }
}
