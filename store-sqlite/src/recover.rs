//! Reads what a store must know before its first commit: what the core is told, and the state in
//! memory.
//!
//! One scan over the small columns of the log builds the index; only the tail that the table
//! `latest` does not know is read whole.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::{Connection, Result};
use slipstream_core::clock::Hlc;
use slipstream_core::ids::{DeadLetterId, Incarnation, NodeId, Position, SessionId, StoreId};
use slipstream_core::message::Kind;
use slipstream_core::store::{
    DeadReason, ReceiptBlock, Recovered, SeenKey, SeenRecord, SessionRecord, Usage,
};
use slipstream_core::time::WallMs;

use crate::bits::{Bits, CHUNK};
use crate::commit::{Meta, Pages, State};
use crate::history;
use crate::latest::Pending;
use crate::log::{self, Damaged, row_columns};

/// Positions that the table `latest` holds, by chunk.
type Newest = HashMap<u64, Bits>;

/// Reads the state of the store and what the core is told; [`Recovered::usage`] is left to the
/// caller. Damaged rows that it meets go into `damaged`.
pub(crate) fn recover(db: &Connection, damaged: &mut Vec<Damaged>) -> Result<(State, Recovered)> {
    let (store_id, mut meta, floor, merged) = read_meta(db)?;
    let mut state = State { pending: Pending::new(merged), ..State::default() };
    scan_log(db, &mut state, &read_newest(db)?, merged)?;
    read_tail(db, &mut state, merged, damaged)?;
    let sizes = |range: std::ops::RangeInclusive<u64>, counts: &dyn Fn(u64) -> bool| {
        history::sizes(db, *range.start(), *range.end(), counts)
    };
    state.index.set_floor(floor, sizes)?;
    let last: Option<i64> = db.query_row("SELECT max(position) FROM log", [], |row| row.get(0))?;
    meta.head = meta.head.max(last.unwrap_or_default().cast_unsigned());
    state.meta = meta;
    state.pages = Pages::read(db)?;
    let recovered = Recovered {
        store_id,
        head: Position::new(meta.head),
        clock: Hlc(meta.clock),
        incarnation: Incarnation::new(meta.incarnation),
        last_session: SessionId::new(meta.last_session),
        last_dead_letter: DeadLetterId::new(meta.last_dead_letter),
        sessions: read_sessions(db)?,
        seen: read_seen(db)?,
        receipts: read_receipts(db)?,
        dead_letters: count_dead_letters(db)?,
        usage: Usage::default(),
    };
    Ok((state, recovered))
}

fn read_meta(db: &Connection) -> Result<(StoreId, Meta, u64, u64)> {
    let sql = "SELECT store_id, head, clock, incarnation, last_session, last_dead_letter, floor,
                      merged FROM meta";
    db.query_row(sql, [], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let meta = Meta {
            head: number(1)?,
            clock: number(2)?,
            incarnation: number(3)?,
            last_session: number(4)?,
            last_dead_letter: number(5)?,
        };
        let id = StoreId(u128::from_be_bytes(row.get(0)?));
        Ok((id, meta, number(6)?, number(7)?))
    })
}

fn read_newest(db: &Connection) -> Result<Newest> {
    let mut newest = Newest::new();
    let mut statement = db.prepare("SELECT position FROM latest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position = row.get::<_, i64>(0)?.cast_unsigned();
        newest.entry(position / CHUNK).or_default().insert(position % CHUNK);
    }
    Ok(newest)
}

/// Adds every row to the index.
fn scan_log(db: &Connection, state: &mut State, newest: &Newest, merged: u64) -> Result<()> {
    let mut statement = db.prepare(
        "SELECT position, kind, expires, size, only_session IS NOT NULL FROM log
         ORDER BY position",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position = row.get::<_, i64>(0)?.cast_unsigned();
        let kind: i64 = row.get(1)?;
        let size: u32 = row.get(3)?;
        let known =
            newest.get(&(position / CHUNK)).is_some_and(|bits| bits.contains(position % CHUNK));
        // A number that is not known is kept, and so is what the table knows to be the newest,
        // whatever a damaged column says.
        let kind = Kind::ALL.into_iter().find(|known| i64::from(known.number()) == kind);
        let is_state = known || kind.is_none_or(Kind::is_state);
        let expires = row.get::<_, i64>(2)?.cast_unsigned();
        let only = row.get::<_, bool>(4)? && !known;
        let event = history::event_expiry(is_state, expires, only);
        state.index.append(position, size, event);
        if position <= merged && event.is_none() && !known && kind.is_some() {
            state.index.supersede(position, size);
        }
    }
    Ok(())
}

/// Reads the rows that the table `latest` does not know.
fn read_tail(
    db: &Connection,
    state: &mut State,
    merged: u64,
    damaged: &mut Vec<Damaged>,
) -> Result<()> {
    let mut statement = db.prepare(concat!(
        "SELECT ",
        row_columns!(),
        " FROM log WHERE position > ?1 ORDER BY position"
    ))?;
    let mut rows = statement.query([merged.cast_signed()])?;
    while let Some(columns) = rows.next()? {
        match log::read(columns) {
            Ok(row) => {
                if let Some(key) = row.key_hash {
                    state.note_newest(row.position.get(), log::row_size(&row), key);
                }
            }
            Err(found) => damaged.push(found),
        }
    }
    Ok(())
}

fn read_sessions(db: &Connection) -> Result<Vec<SessionRecord>> {
    let mut statement = db.prepare("SELECT id, name, cursor, state FROM sessions ORDER BY id")?;
    let rows = statement.query_map([], |row| {
        Ok(SessionRecord {
            id: SessionId::new(row.get::<_, i64>(0)?.cast_unsigned()),
            name: row.get(1)?,
            cursor: Position::new(row.get::<_, i64>(2)?.cast_unsigned()),
            state: Bytes::from(row.get::<_, Vec<u8>>(3)?),
        })
    })?;
    rows.collect()
}

fn read_seen(db: &Connection) -> Result<Vec<SeenRecord>> {
    let mut statement = db.prepare("SELECT origin, incarnation, chunk, marks FROM seen")?;
    let rows = statement.query_map([], |row| {
        let origin = NodeId::new(row.get_ref(0)?.as_str()?).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(
                0,
                rusqlite::types::Type::Text,
                Box::new(error),
            )
        })?;
        let incarnation = Incarnation::new(row.get::<_, i64>(1)?.cast_unsigned());
        let chunk = row.get::<_, i64>(2)?.cast_unsigned();
        let marks = Bytes::from(row.get::<_, Vec<u8>>(3)?);
        Ok(SeenRecord { key: SeenKey { origin, incarnation, chunk }, marks })
    })?;
    let mut records = rows.collect::<Result<Vec<_>>>()?;
    // The table sorts numbers above 2^63 first.
    records.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(records)
}

fn read_receipts(db: &Connection) -> Result<Vec<ReceiptBlock>> {
    let sql = "SELECT session, number, wall, receipts FROM receipts ORDER BY session, number";
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(ReceiptBlock {
            session: SessionId::new(row.get::<_, i64>(0)?.cast_unsigned()),
            number: row.get::<_, i64>(1)?.cast_unsigned(),
            wall: WallMs(row.get::<_, i64>(2)?.cast_unsigned()),
            receipts: Bytes::from(row.get::<_, Vec<u8>>(3)?),
        })
    })?;
    rows.collect()
}

fn count_dead_letters(db: &Connection) -> Result<Vec<(SessionId, DeadReason, u64, u64)>> {
    let mut statement = db.prepare(
        "SELECT session, reason, count(*), sum(size) FROM dead_letters
         GROUP BY session, reason ORDER BY session, reason",
    )?;
    let mut rows = statement.query([])?;
    let mut counts = Vec::new();
    while let Some(row) = rows.next()? {
        let session = SessionId::new(row.get::<_, i64>(0)?.cast_unsigned());
        // A reason that is not known is a damaged row: it is not answered, and so not counted.
        let reason = row.get_ref(1)?.as_str().ok().and_then(DeadReason::from_name);
        if let Some(reason) = reason {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            counts.push((session, reason, number(2)?, number(3)?));
        }
    }
    Ok(counts)
}
