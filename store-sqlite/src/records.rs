//! Everything of a batch but its messages: sessions, seen-set, dead letters, receipts.
//!
//! What is put comes before what is deleted: a record that a batch both brings and ends is gone.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Result, params};
use slipstream_core::ids::{DeadLetterId, SessionId};
use slipstream_core::store::{
    Batch, DeadLetter, DeadReason, LISTED_VALUE_BYTES, ListedLetter, ReceiptBlock, SeenKey,
    SeenRecord, SessionRecord,
};
use slipstream_core::time::WallMs;

use crate::digest::{Digest, checksum_of};
use crate::log::{self, Damaged};

/// The columns that [`read_dead_letter`] takes, in its order.
macro_rules! dead_letter_columns {
    () => {
        "id, session, reason, attempts, first_error, last_error, first_at, died_at, checksum, \
         key, head, value, size, message_id"
    };
}
pub(crate) use dead_letter_columns;

/// The columns that [`read_listed_letter`] takes, in its order: of a long value only its length,
/// which SQLite knows without reading it.
macro_rules! listed_letter_columns {
    () => {
        "id, session, reason, attempts, first_error, last_error, first_at, died_at, checksum, \
         key, head, CASE WHEN octet_length(value) <= ?2 THEN value END, size, message_id, \
         octet_length(value)"
    };
}
pub(crate) use listed_letter_columns;

/// Place of the checksum among them.
pub(crate) const LETTER_CHECKSUM: usize = 8;

/// Writes the records of `batch`; answers how their digest has changed.
pub(crate) fn write(db: &Connection, batch: &Batch) -> Result<Digest> {
    let mut digest = Digest::default();
    put_seen(db, &batch.seen, &mut digest)?;
    put_sessions(db, &batch.sessions, &mut digest)?;
    put_dead_letters(db, &batch.dead_letters, &mut digest)?;
    put_receipts(db, &batch.receipts, &mut digest)?;
    for SeenKey { origin, incarnation, chunk } in &batch.seen_dropped {
        let key = params![origin.as_str(), incarnation.get().cast_signed(), chunk.cast_signed()];
        delete(db, &mut digest, "seen WHERE origin = ?1 AND incarnation = ?2 AND chunk = ?3", key)?;
    }
    for (session, number) in &batch.receipts_dropped {
        let upto = params![session.get().cast_signed(), number.cast_signed()];
        delete(db, &mut digest, "receipts WHERE session = ?1 AND number <= ?2", upto)?;
    }
    for id in &batch.dead_letters_gone {
        delete(db, &mut digest, "dead_letters WHERE id = ?1", [id.get().cast_signed()])?;
    }
    for session in &batch.sessions_ended {
        let session = [session.get().cast_signed()];
        delete(db, &mut digest, "dead_letters WHERE session = ?1", session)?;
        delete(db, &mut digest, "receipts WHERE session = ?1", session)?;
        delete(db, &mut digest, "sessions WHERE id = ?1", session)?;
    }
    Ok(digest)
}

/// Deletes rows, and takes them out of the digest.
fn delete(db: &Connection, digest: &mut Digest, rows: &str, params: impl Params) -> Result<()> {
    let mut statement = db.prepare_cached(&format!("DELETE FROM {rows} RETURNING checksum"))?;
    let mut gone = statement.query(params)?;
    while let Some(row) = gone.next()? {
        digest.remove(row.get(0)?);
    }
    Ok(())
}

/// The checksum of the row that is about to be replaced; 0 if there is none.
fn replaced(statement: &mut CachedStatement<'_>, params: impl Params) -> Result<u32> {
    Ok(statement.query_row(params, |row| row.get(0)).optional()?.unwrap_or(0))
}

fn put_seen(db: &Connection, records: &[SeenRecord], digest: &mut Digest) -> Result<()> {
    let mut lookup = db.prepare_cached(
        "SELECT checksum FROM seen WHERE origin = ?1 AND incarnation = ?2 AND chunk = ?3",
    )?;
    let mut statement = db.prepare_cached(
        "INSERT INTO seen (origin, incarnation, chunk, marks, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET marks = ?4, checksum = ?5",
    )?;
    for record in records {
        let SeenKey { origin, incarnation, chunk } = &record.key;
        let (incarnation, chunk) = (incarnation.get().cast_signed(), chunk.cast_signed());
        let new = seen_checksum(record);
        digest.add(new);
        digest.remove(replaced(&mut lookup, params![origin.as_str(), incarnation, chunk])?);
        statement.execute(params![origin.as_str(), incarnation, chunk, &record.marks[..], new])?;
    }
    Ok(())
}

fn put_sessions(db: &Connection, sessions: &[SessionRecord], digest: &mut Digest) -> Result<()> {
    let mut lookup = db.prepare_cached("SELECT checksum FROM sessions WHERE id = ?1")?;
    let mut statement = db.prepare_cached(
        "INSERT INTO sessions (id, name, cursor, state, checksum) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET name = ?2, cursor = ?3, state = ?4, checksum = ?5",
    )?;
    for session in sessions {
        let id = session.id.get().cast_signed();
        let new = session_checksum(session);
        digest.add(new);
        digest.remove(replaced(&mut lookup, [id])?);
        statement.execute(params![
            id,
            session.name,
            session.cursor.get().cast_signed(),
            &session.state[..],
            new,
        ])?;
    }
    Ok(())
}

fn put_dead_letters(db: &Connection, letters: &[DeadLetter], digest: &mut Digest) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO dead_letters (id, session, reason, attempts, first_error, last_error,
                                   first_at, died_at, size, message_id, key, head, checksum, value)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    for letter in letters {
        let message = &letter.message;
        let checksum = checksum(letter);
        digest.add(checksum);
        statement.execute(params![
            letter.id.get().cast_signed(),
            letter.session.get().cast_signed(),
            letter.reason.as_str(),
            letter.attempts,
            letter.first_error,
            letter.last_error,
            letter.first_at.0.cast_signed(),
            letter.died_at.0.cast_signed(),
            letter_size(letter),
            message.id(),
            message.key(),
            message.head(),
            checksum,
            message.body(),
        ])?;
    }
    Ok(())
}

fn put_receipts(db: &Connection, blocks: &[ReceiptBlock], digest: &mut Digest) -> Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO receipts (session, number, wall, receipts, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for block in blocks {
        let checksum = receipts_checksum(block);
        digest.add(checksum);
        statement.execute(params![
            block.session.get().cast_signed(),
            block.number.cast_signed(),
            block.wall.0.cast_signed(),
            &block.receipts[..],
            checksum,
        ])?;
    }
    Ok(())
}

/// CRC-32 of a row of table `seen`.
pub(crate) fn seen_checksum(SeenRecord { key, marks }: &SeenRecord) -> u32 {
    checksum_of([key.incarnation.get(), key.chunk], &[key.origin.as_str().as_bytes(), marks])
}

/// CRC-32 of a row of table `sessions`.
pub(crate) fn session_checksum(session: &SessionRecord) -> u32 {
    let numbers = [session.id.get(), session.cursor.get()];
    checksum_of(numbers, &[session.name.as_bytes(), &session.state])
}

/// CRC-32 of a row of table `receipts`.
pub(crate) fn receipts_checksum(block: &ReceiptBlock) -> u32 {
    checksum_of([block.session.get(), block.number, block.wall.0], &[&block.receipts])
}

/// Size of a dead letter as it is counted.
pub(crate) fn letter_size(letter: &DeadLetter) -> u32 {
    u32::try_from(letter.message.encoded().len() + 64).unwrap_or(u32::MAX)
}

/// Puts a dead letter together from [`dead_letter_columns`].
pub(crate) fn read_dead_letter(columns: &rusqlite::Row<'_>) -> Result<DeadLetter, Damaged> {
    read_letter(columns, None)
}

/// Puts a dead letter of a list together from [`listed_letter_columns`]. One without its value is
/// held against its size alone: the checksum is of the whole.
pub(crate) fn read_listed_letter(columns: &rusqlite::Row<'_>) -> Result<ListedLetter, Damaged> {
    let number = |column| columns.get_ref(column).ok()?.as_i64().ok();
    let value_bytes = number(14).and_then(|length| usize::try_from(length).ok());
    let is_left_out = value_bytes.is_some_and(|length| length > LISTED_VALUE_BYTES);
    let letter = read_letter(columns, value_bytes.filter(|_| is_left_out))?;
    Ok(ListedLetter { letter, value_bytes: value_bytes.unwrap_or_default() })
}

/// `left_out`: the length of a value that was not read.
fn read_letter(
    columns: &rusqlite::Row<'_>,
    left_out: Option<usize>,
) -> Result<DeadLetter, Damaged> {
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
            message: match left_out {
                None => log::message(columns, 9)?,
                Some(_) => log::message_without_value(columns, 9)?,
            },
        };
        let is_whole = match left_out {
            None => {
                integer(LETTER_CHECKSUM)? == u64::from(checksum(&letter))
                    && integer(12)? == u64::from(letter_size(&letter))
            }
            Some(length) => integer(12)? > length as u64,
        };
        (is_whole && text(13)? == letter.message.id()).then_some(letter)
    })();
    letter.ok_or(Damaged::DeadLetter(id))
}

pub(crate) fn checksum(letter: &DeadLetter) -> u32 {
    checksum_of(
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
