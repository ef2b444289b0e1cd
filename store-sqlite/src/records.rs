//! Everything of a batch but its messages: sessions, seen-set, dead letters, receipts.
//!
//! What is put comes before what is deleted: a record that a batch both brings and ends is gone.

use rusqlite::{Connection, Result, params};
use slipstream_core::ids::{DeadLetterId, SessionId};
use slipstream_core::store::{
    Batch, DeadLetter, DeadReason, ReceiptBlock, SeenKey, SeenRecord, SessionRecord,
};
use slipstream_core::time::WallMs;

use crate::log::{self, Damaged};

/// The columns that [`read_dead_letter`] takes, in its order.
macro_rules! dead_letter_columns {
    () => {
        "id, session, reason, attempts, first_error, last_error, first_at, died_at, checksum, \
         key, head, value"
    };
}
pub(crate) use dead_letter_columns;

/// Writes the records of `batch`.
pub(crate) fn write(db: &Connection, batch: &Batch) -> Result<()> {
    put_seen(db, &batch.seen)?;
    put_sessions(db, &batch.sessions)?;
    put_dead_letters(db, &batch.dead_letters)?;
    put_receipts(db, &batch.receipts)?;
    drop_seen(db, &batch.seen_dropped)?;
    for (session, number) in &batch.receipts_dropped {
        db.prepare_cached("DELETE FROM receipts WHERE session = ?1 AND number <= ?2")?
            .execute(params![session.get().cast_signed(), number.cast_signed()])?;
    }
    for id in &batch.dead_letters_gone {
        db.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?
            .execute([id.get().cast_signed()])?;
    }
    end_sessions(db, &batch.sessions_ended)
}

fn put_seen(db: &Connection, records: &[SeenRecord]) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO seen (origin, incarnation, chunk, marks) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET marks = ?4",
    )?;
    for SeenRecord { key, marks } in records {
        statement.execute(params![
            key.origin.as_str(),
            key.incarnation.get().cast_signed(),
            key.chunk.cast_signed(),
            &marks[..],
        ])?;
    }
    Ok(())
}

fn drop_seen(db: &Connection, keys: &[SeenKey]) -> Result<()> {
    let mut statement = db
        .prepare_cached("DELETE FROM seen WHERE origin = ?1 AND incarnation = ?2 AND chunk = ?3")?;
    for key in keys {
        statement.execute(params![
            key.origin.as_str(),
            key.incarnation.get().cast_signed(),
            key.chunk.cast_signed(),
        ])?;
    }
    Ok(())
}

fn put_sessions(db: &Connection, sessions: &[SessionRecord]) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO sessions (id, name, cursor, state) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET name = ?2, cursor = ?3, state = ?4",
    )?;
    for session in sessions {
        statement.execute(params![
            session.id.get().cast_signed(),
            session.name,
            session.cursor.get().cast_signed(),
            &session.state[..],
        ])?;
    }
    Ok(())
}

fn end_sessions(db: &Connection, sessions: &[SessionId]) -> Result<()> {
    for session in sessions {
        for sql in [
            "DELETE FROM dead_letters WHERE session = ?1",
            "DELETE FROM receipts WHERE session = ?1",
            "DELETE FROM sessions WHERE id = ?1",
        ] {
            db.prepare_cached(sql)?.execute([session.get().cast_signed()])?;
        }
    }
    Ok(())
}

fn put_dead_letters(db: &Connection, letters: &[DeadLetter]) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO dead_letters (id, session, reason, attempts, first_error, last_error,
                                   first_at, died_at, size, message_id, key, head, checksum, value)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    for letter in letters {
        let message = &letter.message;
        statement.execute(params![
            letter.id.get().cast_signed(),
            letter.session.get().cast_signed(),
            letter.reason.as_str(),
            letter.attempts,
            letter.first_error,
            letter.last_error,
            letter.first_at.0.cast_signed(),
            letter.died_at.0.cast_signed(),
            message.encoded().len() as i64 + 64,
            message.id(),
            message.key(),
            message.head(),
            checksum(letter),
            message.body(),
        ])?;
    }
    Ok(())
}

fn put_receipts(db: &Connection, blocks: &[ReceiptBlock]) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO receipts (session, number, wall, receipts) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for block in blocks {
        statement.execute(params![
            block.session.get().cast_signed(),
            block.number.cast_signed(),
            block.wall.0.cast_signed(),
            &block.receipts[..],
        ])?;
    }
    Ok(())
}

/// Puts a dead letter together from [`dead_letter_columns`].
pub(crate) fn read_dead_letter(columns: &rusqlite::Row<'_>) -> Result<DeadLetter, Damaged> {
    let integer = |column| columns.get_ref(column).ok()?.as_i64().ok().map(i64::cast_unsigned);
    let text = |column| columns.get_ref(column).ok()?.as_str().ok();
    let id = DeadLetterId::new(integer(0).unwrap_or_default());
    let letter = (|| {
        let letter = DeadLetter {
            id,
            session: SessionId::new(integer(1)?),
            reason: DeadReason::from_name(text(2)?)?,
            attempts: u32::try_from(integer(3)?).ok()?,
            first_error: text(4)?.to_owned(),
            last_error: text(5)?.to_owned(),
            first_at: WallMs(integer(6)?),
            died_at: WallMs(integer(7)?),
            message: log::message(columns, 9)?,
        };
        (integer(8)? == u64::from(checksum(&letter))).then_some(letter)
    })();
    letter.ok_or(Damaged::DeadLetter(id))
}

pub(crate) fn checksum(letter: &DeadLetter) -> u32 {
    log::checksum_of(
        [
            letter.id.get(),
            letter.session.get(),
            letter.attempts.into(),
            letter.first_at.0,
            letter.died_at.0,
        ],
        &[
            letter.message.encoded(),
            letter.reason.as_str().as_bytes(),
            letter.first_error.as_bytes(),
            letter.last_error.as_bytes(),
        ],
    )
}
