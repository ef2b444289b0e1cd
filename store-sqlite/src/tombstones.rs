//! Forgets deletes that are old enough, a bounded number with each commit.
//!
//! A tombstone is a delete that is the newest of its key and tag set. What stays true: one goes
//! only by the batch's word on the time, at or below the floor, when the table `latest` knows every
//! row up to it (what it replaced is superseded then, also for who opens the store again), and when
//! no other tag set of its key has a value, which would come to light. The deletions belong to the
//! caller's transaction; what they change in memory is handed back and applied once it is
//! committed.

use rusqlite::{Connection, OptionalExtension, Result};
use slipstream_core::digest::Print;
use slipstream_core::message::Kind;
use slipstream_core::store::{Batch, MAX_TAG_SETS, Row};

use crate::bits::CHUNK;
use crate::digest::Digest;
use crate::index::{Class, Index, NEVER};
use crate::latest::{self, NewestRow};
use crate::log::{self, row_columns};
use crate::state::StoreState;

/// Tombstones looked at with a commit.
const LOOKED_AT: usize = 64;

/// A chunk whose tombstones cannot go yet is not looked through again for this long.
const RESCAN_MS: u64 = 60_000;

/// Deletions that take effect with the transaction.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    rows: Vec<u64>,
    /// Chunks that were looked through, and when they are worth another look.
    looked_through: Vec<(u64, u64)>,
    /// What they had added to the digest of the log, ...
    pub(crate) log: Digest,
    /// ... and to that of the other tables.
    pub(crate) latest: Digest,
}

impl Forgotten {
    /// Brings the index up to date after the commit.
    pub(crate) fn apply(&self, index: &mut Index) {
        for &position in &self.rows {
            index.forget_tombstone(position);
        }
        for &(chunk, at) in &self.looked_through {
            index.look_for_tombstones_at(chunk, at);
        }
    }
}

/// Deletes tombstones that are older than the batch says.
pub(crate) fn forget(db: &Connection, state: &StoreState, batch: &Batch) -> Result<Forgotten> {
    let before = batch.tombstones_before.0;
    let mut forgotten = Forgotten::default();
    let mut left = LOOKED_AT;
    let upto = state.index.floor(Class::Events).min(state.meta.merged);
    for chunk in state.index.chunks_of_tombstones(before) {
        // Those behind `upto` are looked at later.
        let whole = upto >= chunk * CHUNK + (CHUNK - 1);
        let again = before.saturating_add(RESCAN_MS);
        let mut next = if whole { NEVER } else { again };
        for position in state.index.tombstones_upto(chunk, upto) {
            if left == 0 {
                return Ok(forgotten);
            }
            left -= 1;
            // A damaged row is left where it is.
            let Some(row) = row_at(db, position)? else { continue };
            let made = row.message.version().wall().0;
            if made >= before {
                next = next.min(made.saturating_add(1));
            } else if may_go(db, state, &row)? {
                forgotten.delete(db, &row)?;
            } else {
                next = next.min(again);
            }
        }
        forgotten.looked_through.push((chunk, next));
    }
    Ok(forgotten)
}

/// Whether the table knows this row as the newest of its key, and no other tag set has a value.
fn may_go(db: &Connection, state: &StoreState, row: &Row) -> Result<bool> {
    let Some(key) = row.key_hash.filter(|_| row.message.kind() == Kind::Dk) else {
        return Ok(false);
    };
    let known = latest::stored(db, &key)?;
    if known != Some(newest(row)) || state.pending.newest(&key).is_some() {
        return Ok(false);
    }
    let all = state.pending.of_key(db, key.same_key(), MAX_TAG_SETS)?;
    let deleted = |other: &NewestRow| state.index.is_tombstone(other.position);
    Ok(all.len() <= MAX_TAG_SETS && all.values().all(deleted))
}

fn newest(row: &Row) -> NewestRow {
    // A delete has no print, so the digests stay as they are when it goes.
    NewestRow { position: row.position.get(), size: log::row_size(row), print: Print::NOTHING }
}

fn row_at(db: &Connection, position: u64) -> Result<Option<Row>> {
    let sql = concat!("SELECT ", row_columns!(), " FROM log WHERE position = ?1");
    let mut statement = db.prepare_cached(sql)?;
    let row = statement.query_row([position.cast_signed()], |row| Ok(log::read(row).ok()));
    Ok(row.optional()?.flatten())
}

impl Forgotten {
    fn delete(&mut self, db: &Connection, row: &Row) -> Result<()> {
        let (Some(key), newest) = (row.key_hash, newest(row)) else { return Ok(()) };
        db.prepare_cached("DELETE FROM log WHERE position = ?1")?
            .execute([newest.position.cast_signed()])?;
        db.prepare_cached("DELETE FROM latest WHERE key = ?1")?.execute([key.0])?;
        self.rows.push(newest.position);
        self.log.add(log::checksum(row));
        self.latest.add(latest::checksum(&key.0, newest));
        Ok(())
    }
}
