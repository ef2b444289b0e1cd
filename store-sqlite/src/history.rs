//! Deletes history above its bound: first superseded state and expired events, then unexpired
//! events, oldest first, a bounded number with each commit.
//!
//! What stays true: the newest row of a key and a row above the floor of its class are never
//! deleted, nor an unexpired event that is held. The deletions belong to the caller's transaction;
//! what they change in memory is handed back and applied once it is committed.

use rusqlite::{Connection, Result, params};
use slipstream_core::ids::{Hash128, Position};
use slipstream_core::store::Batch;

use crate::bits::CHUNK;
use crate::digest::Digest;
use crate::index::{Class, Index, NEVER};

/// Deletions with a commit, besides four for each of its rows.
const DELETIONS_BASE: usize = 256;

/// Deletions for each row that is appended: more than one, so that a backlog shrinks.
const DELETIONS_PER_ROW: usize = 4;

/// Chunks looked through for expired events with a commit.
const EXPIRED_CHUNKS: usize = 64;

/// A chunk of which some events have expired is not looked through again for this long.
const RESCAN_MS: u64 = 1000;

/// Deletions that take effect with the transaction.
#[derive(Debug, Default)]
pub(crate) struct Trimmed {
    /// Position and size of each deleted row.
    rows: Vec<(u64, u32)>,
    /// Chunks that were looked through, and when their next event may expire.
    expires: Vec<(u64, u64)>,
    /// What they had added to the digest of the log.
    pub(crate) digest: Digest,
    /// Superseded rows and expired events among them.
    pub(crate) dropped: u64,
    /// Unexpired events among them.
    pub(crate) forgotten: u64,
    /// Bytes that would have gone, too, if they were not held.
    pub(crate) held_bytes: u64,
    /// Events of cluster groups among them.
    pub(crate) copies: Vec<(Position, Hash128)>,
}

impl Trimmed {
    /// Brings the index up to date after the commit.
    pub(crate) fn apply(&self, index: &mut Index) {
        for &(position, size) in &self.rows {
            index.remove(position, size);
        }
        for &(chunk, expires) in &self.expires {
            index.set_expires(chunk, expires);
        }
    }
}

/// Deletes what the history has above the bound of `batch`.
pub(crate) fn trim(db: &Connection, index: &Index, batch: &Batch) -> Result<Trimmed> {
    let budget = DELETIONS_BASE + DELETIONS_PER_ROW * batch.rows.len();
    let mut trim = Trim {
        db,
        wall: batch.wall.0,
        excess: index.history_bytes().saturating_sub(batch.history_max_bytes),
        budget,
        done: Trimmed::default(),
    };
    for run in index.history(Class::Superseded) {
        if trim.is_done() {
            return Ok(trim.done);
        }
        trim.delete(run, |_| true)?;
    }
    for chunk in index.expired(batch.wall.0).take(EXPIRED_CHUNKS) {
        if trim.is_done() {
            return Ok(trim.done);
        }
        trim.delete_expired(index, chunk)?;
    }
    let held_from = batch.held_from.map_or(u64::MAX, Position::get);
    for run in index.history(Class::Events).take_while(|(first, _)| *first < held_from) {
        if trim.is_done() {
            return Ok(trim.done);
        }
        trim.delete(run, |row| row.position < held_from)?;
    }
    trim.done.held_bytes = if trim.budget > 0 { trim.excess } else { 0 };
    Ok(trim.done)
}

/// Sum of the sizes of the rows in a range of positions, of those that `counts`.
pub(crate) fn sizes(
    db: &Connection,
    first: u64,
    last: u64,
    counts: &dyn Fn(u64) -> bool,
) -> Result<u64> {
    let mut statement =
        db.prepare_cached("SELECT position, size FROM log WHERE position BETWEEN ?1 AND ?2")?;
    let mut rows = statement.query(params![first.cast_signed(), last.cast_signed()])?;
    let mut sum = 0;
    while let Some(row) = rows.next()? {
        if counts(row.get::<_, i64>(0)?.cast_unsigned()) {
            sum += u64::from(row.get::<_, u32>(1)?);
        }
    }
    Ok(sum)
}

/// When a row expires that is an event for the index.
pub(crate) fn event_expiry(kind_is_state: bool, expires: u64, only: bool) -> Option<u64> {
    if only {
        Some(NEVER)
    } else if kind_is_state {
        None
    } else {
        Some(expires)
    }
}

struct Trim<'a> {
    db: &'a Connection,
    wall: u64,
    /// Bytes that the history has above its bound.
    excess: u64,
    budget: usize,
    done: Trimmed,
}

/// A row that may be deleted.
struct Candidate {
    position: u64,
    size: u32,
    /// [`NEVER`] if it is not an event that expires.
    expires: u64,
    is_state: bool,
    /// Of an event of a cluster group.
    content: Option<Hash128>,
    checksum: u32,
}

impl Trim<'_> {
    fn is_done(&self) -> bool {
        self.excess == 0 || self.budget == 0
    }

    /// Deletes the expired events of a chunk, and notes when it is worth another look.
    fn delete_expired(&mut self, index: &Index, chunk: u64) -> Result<()> {
        let wall = self.wall;
        let mut next = NEVER;
        for run in index.runs(chunk, Class::Events) {
            next = next.min(self.delete(run, |row| row.expires <= wall)?);
        }
        // Events of the chunk that lie above the floor were not looked at.
        let whole = index.floor(Class::Events) >= chunk * CHUNK + (CHUNK - 1);
        if !self.is_done() {
            let next = if whole { next } else { 0 };
            self.done.expires.push((chunk, next.max(wall.saturating_add(RESCAN_MS))));
        }
        Ok(())
    }

    /// Deletes the rows of a run that `goes`, until enough is deleted. Answers the earliest expiry
    /// among those that stay.
    fn delete(&mut self, run: (u64, u64), goes: impl Fn(&Candidate) -> bool) -> Result<u64> {
        let mut earliest = NEVER;
        let mut range: Option<(u64, u64)> = None;
        for row in self.candidates(run)? {
            if self.is_done() {
                break;
            }
            if goes(&row) {
                self.take(&row);
                range = Some((range.map_or(row.position, |range| range.0), row.position));
            } else {
                earliest = earliest.min(row.expires);
                self.delete_range(range.take())?;
            }
        }
        self.delete_range(range)?;
        Ok(earliest)
    }

    fn take(&mut self, row: &Candidate) {
        self.done.rows.push((row.position, row.size));
        self.done.digest.add(row.checksum);
        let copy = row.content.map(|content| (Position::new(row.position), content));
        self.done.copies.extend(copy);
        self.excess = self.excess.saturating_sub(u64::from(row.size));
        self.budget -= 1;
        if row.is_state || row.expires <= self.wall {
            self.done.dropped += 1;
        } else {
            self.done.forgotten += 1;
        }
    }

    fn candidates(&self, (first, last): (u64, u64)) -> Result<Vec<Candidate>> {
        let mut statement = self.db.prepare_cached(
            "SELECT position, size, CASE kind WHEN 2 THEN expires ELSE 0 END,
                    only_session IS NOT NULL, CASE kind WHEN 2 THEN content END, checksum
             FROM log WHERE position BETWEEN ?1 AND ?2",
        )?;
        let rows =
            statement.query_map(params![first.cast_signed(), last.cast_signed()], |row| {
                let expires = row.get::<_, i64>(2)?.cast_unsigned();
                let only: bool = row.get(3)?;
                // A damaged one is none.
                let content = row.get_ref(4)?.as_blob().ok();
                let content = content.and_then(|content| content.try_into().ok()).map(Hash128);
                Ok(Candidate {
                    position: row.get::<_, i64>(0)?.cast_unsigned(),
                    size: row.get(1)?,
                    expires: if only || expires == 0 { NEVER } else { expires },
                    is_state: !only && expires == 0,
                    content,
                    checksum: row.get(5)?,
                })
            })?;
        rows.collect()
    }

    fn delete_range(&self, range: Option<(u64, u64)>) -> Result<()> {
        let Some((first, last)) = range else { return Ok(()) };
        self.db
            .prepare_cached("DELETE FROM log WHERE position BETWEEN ?1 AND ?2")?
            .execute(params![first.cast_signed(), last.cast_signed()])?;
        Ok(())
    }
}
