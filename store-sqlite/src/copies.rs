//! Events of cluster groups that are remembered when their rows are gone (P10): whoever publishes
//! one of them once more publishes a copy.
//!
//! What stays true: the transaction that deletes such a row puts it here; at most as many stay as
//! [`copies::kept`] says, the ones with the highest positions.

use rusqlite::{Connection, Result, params};
use slipstream_core::copies;
use slipstream_core::ids::{Hash128, Position};
use slipstream_core::store::Batch;

use crate::digest::{Digest, checksum_of};

/// Deletions with a commit, besides one for each that is put.
const DELETIONS: u64 = 256;

/// What a transaction did to the table.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// Rows that it has now.
    pub(crate) rows: u64,
    /// How the digest of the records has changed.
    pub(crate) digest: Digest,
}

/// Puts `new` into the table, which has `rows` already, and keeps it within its bound.
pub(crate) fn remember(
    db: &Connection,
    rows: u64,
    new: &[(Position, Hash128)],
    batch: &Batch,
) -> Result<Remembered> {
    let mut done = Remembered { rows: rows + new.len() as u64, digest: Digest::default() };
    if !new.is_empty() {
        let sql = "INSERT INTO copies (position, content, checksum) VALUES (?1, ?2, ?3)";
        let mut statement = db.prepare_cached(sql)?;
        for (position, content) in new {
            let checksum = checksum(*position, &content.0);
            done.digest.add(checksum);
            statement.execute(params![position.get().cast_signed(), content.0, checksum])?;
        }
    }
    let surplus = done.rows.saturating_sub(copies::kept(batch.history_max_bytes) as u64);
    if surplus > 0 {
        let mut statement = db.prepare_cached(
            "DELETE FROM copies WHERE position IN
                 (SELECT position FROM copies ORDER BY position LIMIT ?1)
             RETURNING checksum",
        )?;
        let most = surplus.min(DELETIONS + new.len() as u64);
        let mut gone = statement.query([most.cast_signed()])?;
        while let Some(row) = gone.next()? {
            done.digest.remove(row.get(0)?);
            done.rows -= 1;
        }
    }
    Ok(done)
}

/// CRC-32 of a row.
pub(crate) fn checksum(position: Position, content: &[u8]) -> u32 {
    checksum_of([position.get()], &[content])
}
