//! The row of the table `meta`: what the database says of itself as a whole.

use rusqlite::{Connection, params};
use slipstream_core::store::Batch;

use crate::digest::{Digest, checksum_of};
use crate::error::Unreadable;

/// The row of table `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub(crate) store_id: u128,
    pub(crate) head: u64,
    pub(crate) clock: u64,
    pub(crate) incarnation: u64,
    pub(crate) last_session: u64,
    pub(crate) last_dead_letter: u64,
    pub(crate) floor: u64,
    pub(crate) merged: u64,
    /// Of table `log`.
    pub(crate) log_digest: Digest,
    /// Of all other tables but this one.
    pub(crate) records_digest: Digest,
}

impl Meta {
    /// Reads the row, which must be the one that was written.
    pub(crate) fn read(db: &Connection) -> Result<Self, Unreadable> {
        let sql = "SELECT store_id, head, clock, incarnation, last_session, last_dead_letter,
                          floor, merged, log_digest, records_digest, checksum FROM meta";
        let (meta, stored) = db.query_row(sql, [], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let meta = Self {
                store_id: u128::from_be_bytes(row.get(0)?),
                head: number(1)?,
                clock: number(2)?,
                incarnation: number(3)?,
                last_session: number(4)?,
                last_dead_letter: number(5)?,
                floor: number(6)?,
                merged: number(7)?,
                log_digest: Digest(row.get(8)?),
                records_digest: Digest(row.get(9)?),
            };
            Ok((meta, row.get::<_, u32>(10)?))
        })?;
        if stored == meta.checksum() { Ok(meta) } else { Err(Unreadable::Damaged("table meta")) }
    }

    /// What the row becomes with a batch; `merged`: the table `latest` knows every row up to there.
    pub(crate) fn after(self, batch: &Batch, merged: u64) -> Self {
        let rows = batch.rows.iter().map(|row| row.position.get());
        let sessions = batch.sessions.iter().map(|session| session.id.get());
        let letters = batch.dead_letters.iter().map(|letter| letter.id.get());
        Self {
            head: rows.fold(self.head, u64::max),
            clock: batch.clock.0,
            incarnation: self.incarnation.max(batch.incarnation.get()),
            last_session: sessions.fold(self.last_session, u64::max),
            last_dead_letter: letters.fold(self.last_dead_letter, u64::max),
            floor: batch.floor.get(),
            merged,
            ..self
        }
    }

    /// CRC-32 of the row.
    pub(crate) fn checksum(&self) -> u32 {
        let numbers = [
            self.head,
            self.clock,
            self.incarnation,
            self.last_session,
            self.last_dead_letter,
            self.floor,
            self.merged,
            self.log_digest.0.into(),
            self.records_digest.0.into(),
        ];
        checksum_of(numbers, &[&self.store_id.to_be_bytes()])
    }

    /// Puts the row into the table, in place of the one that is there.
    pub(crate) fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut statement = db.prepare_cached(
            "INSERT OR REPLACE INTO meta (id, store_id, head, clock, incarnation, last_session,
                 last_dead_letter, floor, merged, log_digest, records_digest, checksum)
             VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        statement.execute(params![
            self.store_id.to_be_bytes(),
            self.head.cast_signed(),
            self.clock.cast_signed(),
            self.incarnation.cast_signed(),
            self.last_session.cast_signed(),
            self.last_dead_letter.cast_signed(),
            self.floor.cast_signed(),
            self.merged.cast_signed(),
            self.log_digest,
            self.records_digest,
            self.checksum(),
        ])?;
        Ok(())
    }
}
