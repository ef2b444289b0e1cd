//! Reads what a store must know before its first commit: what the core is told, and the state in
//! memory.
//!
//! One scan over the small columns of the log builds the index; only the tail that the table
//! `latest` does not know is read whole.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use rusqlite::Connection;
use slipstream_core::backlog::Backlog;
use slipstream_core::clock::Hlc;
use slipstream_core::copies::MAX_COPIES;
use slipstream_core::digest::Print;
use slipstream_core::ids::{
    DeadLetterId, Hash128, Incarnation, NodeId, Position, SessionId, StoreId,
};
use slipstream_core::message::Kind;
use slipstream_core::store::{
    DeadReason, MAX_TAG_SETS, ReceiptBlock, Recovered, Row, SeenKey, SeenRecord, SessionRecord,
    Usage,
};
use slipstream_core::time::WallMs;

use crate::access::refusal;
use crate::bits::{Bits, CHUNK};
use crate::copies;
use crate::database::Database;
use crate::digest::Digest;
use crate::error::{OpenError, Unreadable};
use crate::history;
use crate::index::Class;
use crate::latest::{self, PendingRows};
use crate::live;
use crate::log::{self, Damaged, row_columns};
use crate::meta::Meta;
use crate::records::{self, dead_letter_columns};
use crate::state::{Pages, StoreState};

/// Positions that the table `latest` holds, by chunk.
type NewestChunks = HashMap<u64, Bits>;

impl Unreadable {
    /// What is said of it at the start.
    pub(crate) fn into_refusal(self, database: &Database) -> OpenError {
        let path = database.path.clone();
        let refused = match self {
            Self::Sqlite(source) => refusal(&path, source),
            Self::Damaged(what) => OpenError::Damaged { path: path.clone(), what },
        };
        match &database.alone {
            Some(alone) if alone.explains(&refused) => OpenError::LeftOverLog { path },
            _ => refused,
        }
    }
}

/// Of all rows that were read.
#[derive(Debug, Default)]
struct DigestRows {
    log: Digest,
    records: Digest,
}

impl DigestRows {
    /// Takes in a row of a table but the log.
    fn record(&mut self, what: &'static str, stored: u32, sound: u32) -> Result<()> {
        if stored != sound {
            return Err(Unreadable::Damaged(what));
        }
        self.records.add(stored);
        Ok(())
    }
}

type Result<T, E = Unreadable> = std::result::Result<T, E>;

/// Reads the state of the store and what the core is told; [`Recovered::usage`] is left to the
/// caller. Damaged messages that it meets go into `damaged`.
pub(crate) fn recover(
    db: &Connection,
    damaged: &mut Vec<Damaged>,
) -> Result<(StoreState, Recovered)> {
    let mut meta = Meta::read(db)?;
    let (floor, merged) = (meta.floor, meta.merged);
    let mut digests = DigestRows::default();
    let mut state = StoreState { pending: PendingRows::new(merged), ..StoreState::default() };
    let newest = read_newest(db, &mut digests)?;
    check_live(db, &mut digests)?;
    let (backlog, in_log) = scan_log(db, &mut state, &newest, merged, &mut digests)?;
    let mut copies = read_copies(db, &mut digests)?;
    state.copies = copies.len() as u64;
    read_tail(db, &mut state, merged, damaged)?;
    let sizes = |range: std::ops::RangeInclusive<u64>, counts: &dyn Fn(u64) -> bool| {
        history::sizes(db, *range.start(), *range.end(), counts)
    };
    // The floor of state is higher, if anything: the first commit says so.
    state.index.set_floor(Class::Events, floor, sizes)?;
    state.index.set_floor(Class::Superseded, floor, sizes)?;
    let last: Option<i64> = db.query_row("SELECT max(position) FROM log", [], |row| row.get(0))?;
    meta.head = meta.head.max(last.unwrap_or_default().cast_unsigned());
    state.meta = meta;
    state.pages = Pages::read(db)?;
    if state.pages.free > state.pages.all {
        return Err(Unreadable::Damaged("the header"));
    }
    copies.append(&mut not_outdone(db, &state, in_log)?);
    copies.sort_unstable_by_key(|(_, position, _)| *position);
    copies.drain(..copies.len().saturating_sub(MAX_COPIES));
    let recovered = Recovered {
        store_id: StoreId(meta.store_id),
        head: Position::new(meta.head),
        clock: Hlc(meta.clock),
        incarnation: Incarnation::new(meta.incarnation),
        last_session: SessionId::new(meta.last_session),
        last_dead_letter: DeadLetterId::new(meta.last_dead_letter),
        sessions: read_sessions(db, &mut digests)?,
        seen: read_seen(db, &mut digests)?,
        receipts: read_receipts(db, &mut digests)?,
        backlog,
        copies,
        dead_letters: count_dead_letters(db, &mut digests, damaged)?,
        usage: Usage::default(),
    };
    if digests.records != meta.records_digest {
        let tables = "table sessions, seen, receipts, dead_letters, latest, digests or copies";
        return Err(Unreadable::Damaged(tables));
    }
    if digests.log != meta.log_digest {
        damaged.push(Damaged::Log);
    }
    Ok((state, recovered))
}

fn read_newest(db: &Connection, digests: &mut DigestRows) -> Result<NewestChunks> {
    let mut newest = NewestChunks::new();
    let mut statement = db.prepare("SELECT key, position, size, print, checksum FROM latest")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position = row.get::<_, i64>(1)?.cast_unsigned();
        let print = Print::new(row.get::<_, i64>(3)?.cast_unsigned());
        let found = latest::NewestRow { position, size: row.get(2)?, print };
        // The same bytes as text would lie elsewhere in the table's order.
        let key = row.get_ref(0)?.as_blob();
        let key = key.map_err(|_| Unreadable::Damaged("table latest"))?;
        digests.record("table latest", row.get(4)?, latest::checksum(key, found))?;
        newest.entry(position / CHUNK).or_default().insert(position % CHUNK);
    }
    Ok(newest)
}

/// Nothing of it is needed in memory.
fn check_live(db: &Connection, digests: &mut DigestRows) -> Result<()> {
    let mut statement = db.prepare("SELECT bucket, tags, sum, checksum FROM digests")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let tags = row.get_ref(1)?.as_str().map_err(|_| Unreadable::Damaged("table digests"))?;
        let sum = Print::new(row.get::<_, i64>(2)?.cast_unsigned());
        digests.record("table digests", row.get(3)?, live::checksum(row.get(0)?, tags, sum))?;
    }
    Ok(())
}

/// Adds every row to the index. Answers how many bytes they have, along the log, and which of the
/// last ones are of cluster groups.
fn scan_log(
    db: &Connection,
    state: &mut StoreState,
    newest: &NewestChunks,
    merged: u64,
    digests: &mut DigestRows,
) -> Result<(Backlog, VecDeque<(Hash128, Position)>)> {
    let (mut backlog, mut copies) = (Backlog::default(), VecDeque::new());
    let mut statement = db.prepare(
        "SELECT position, kind, expires, size, only_session IS NOT NULL, checksum, content
         FROM log ORDER BY position",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let position = row.get::<_, i64>(0)?.cast_unsigned();
        let kind: i64 = row.get(1)?;
        let size: u32 = row.get(3)?;
        digests.log.add(row.get(5)?);
        // A damaged one is none.
        if let Ok(Ok(content)) = row.get_ref(6)?.as_blob().map(<[u8; 16]>::try_from) {
            copies.push_back((Hash128(content), Position::new(position)));
            if copies.len() > MAX_COPIES {
                copies.pop_front();
            }
        }
        backlog.grow(Position::new(position), size.into());
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
        } else if kind == Some(Kind::Dk) && event.is_none() {
            state.index.note_tombstone(position, expires);
        }
    }
    Ok((backlog, copies))
}

/// Of these rows the events, and those that hold the newest value of their key, whatever the tag
/// set. A damaged one is left out.
fn not_outdone(
    db: &Connection,
    state: &StoreState,
    copies: VecDeque<(Hash128, Position)>,
) -> Result<Vec<(Hash128, Position, WallMs)>> {
    let mut statement =
        db.prepare(concat!("SELECT ", row_columns!(), " FROM log WHERE position = ?1"))?;
    let mut row_at = |position: u64| -> Result<Option<Row>> {
        let mut rows = statement.query([position.cast_signed()])?;
        Ok(rows.next()?.and_then(|row| log::read(row).ok()))
    };
    let mut found = Vec::with_capacity(copies.len());
    for (content, position) in copies {
        let Some(row) = row_at(position.get())? else { continue };
        let mut outdone = false;
        if let Some(key) = row.message.key_hash() {
            let mut all = state.pending.of_key(db, key.same_key(), MAX_TAG_SETS)?;
            let of_its_tags = all.remove(&key).map(|newest| newest.position);
            outdone = of_its_tags != Some(position.get()) || all.len() >= MAX_TAG_SETS;
            let mut others = all.values();
            while !outdone && let Some(other) = others.next() {
                let other = row_at(other.position)?;
                outdone = other.is_none_or(|other| other.message.is_newer_than(&row.message));
            }
        }
        if !outdone {
            found.push((content, position, row.ends));
        }
    }
    Ok(found)
}

/// Events whose rows are gone from the log.
fn read_copies(
    db: &Connection,
    digests: &mut DigestRows,
) -> Result<Vec<(Hash128, Position, WallMs)>> {
    let mut statement = db.prepare("SELECT position, content, checksum FROM copies")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let position = Position::new(row.get::<_, i64>(0)?.cast_unsigned());
        let content = row.get_ref(1)?.as_blob().ok().and_then(|content| content.try_into().ok());
        let content: [u8; 16] = content.ok_or(Unreadable::Damaged("table copies"))?;
        digests.record("table copies", row.get(2)?, copies::checksum(position, &content))?;
        found.push((Hash128(content), position, WallMs(0)));
    }
    Ok(found)
}

/// Reads the rows that the table `latest` does not know.
fn read_tail(
    db: &Connection,
    state: &mut StoreState,
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
                state.note_newest(&row, log::row_size(&row));
            }
            Err(found) => damaged.push(found),
        }
    }
    Ok(())
}

fn read_sessions(db: &Connection, digests: &mut DigestRows) -> Result<Vec<SessionRecord>> {
    let sql = "SELECT id, name, cursor, state, checksum FROM sessions ORDER BY id";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        let session = SessionRecord {
            id: SessionId::new(row.get::<_, i64>(0)?.cast_unsigned()),
            name: row.get(1)?,
            cursor: Position::new(row.get::<_, i64>(2)?.cast_unsigned()),
            state: Bytes::from(row.get::<_, Vec<u8>>(3)?),
        };
        digests.record("table sessions", row.get(4)?, records::session_checksum(&session))?;
        sessions.push(session);
    }
    Ok(sessions)
}

fn read_seen(db: &Connection, digests: &mut DigestRows) -> Result<Vec<SeenRecord>> {
    let mut statement =
        db.prepare("SELECT origin, incarnation, chunk, marks, checksum FROM seen")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let origin = row.get_ref(0)?.as_str().ok().and_then(|name| NodeId::new(name).ok());
        let origin = origin.ok_or(Unreadable::Damaged("table seen"))?;
        let incarnation = Incarnation::new(row.get::<_, i64>(1)?.cast_unsigned());
        let chunk = row.get::<_, i64>(2)?.cast_unsigned();
        let marks = Bytes::from(row.get::<_, Vec<u8>>(3)?);
        let record = SeenRecord { key: SeenKey { origin, incarnation, chunk }, marks };
        digests.record("table seen", row.get(4)?, records::seen_checksum(&record))?;
        found.push(record);
    }
    // The table sorts numbers above 2^63 first.
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn read_receipts(db: &Connection, digests: &mut DigestRows) -> Result<Vec<ReceiptBlock>> {
    let sql = "SELECT session, number, wall, receipts, checksum FROM receipts
               ORDER BY session, number";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut blocks = Vec::new();
    while let Some(row) = rows.next()? {
        let block = ReceiptBlock {
            session: SessionId::new(row.get::<_, i64>(0)?.cast_unsigned()),
            number: row.get::<_, i64>(1)?.cast_unsigned(),
            wall: WallMs(row.get::<_, i64>(2)?.cast_unsigned()),
            receipts: Bytes::from(row.get::<_, Vec<u8>>(3)?),
        };
        digests.record("table receipts", row.get(4)?, records::receipts_checksum(&block))?;
        blocks.push(block);
    }
    Ok(blocks)
}

/// Reads them whole: a damaged one is not answered, and so not counted.
fn count_dead_letters(
    db: &Connection,
    digests: &mut DigestRows,
    damaged: &mut Vec<Damaged>,
) -> Result<Vec<(SessionId, DeadReason, u64, u64)>> {
    let sql = concat!("SELECT ", dead_letter_columns!(), " FROM dead_letters");
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut counts = BTreeMap::<(SessionId, &str), (DeadReason, u64, u64)>::new();
    while let Some(row) = rows.next()? {
        digests.records.add(row.get(records::LETTER_CHECKSUM)?);
        match records::read_dead_letter(row) {
            Ok(letter) => {
                let key = (letter.session, letter.reason.as_str());
                let count = counts.entry(key).or_insert((letter.reason, 0, 0));
                count.1 += 1;
                count.2 += u64::from(records::letter_size(&letter));
            }
            Err(found) => damaged.push(found),
        }
    }
    let counts = counts.into_iter();
    Ok(counts.map(|((session, _), (reason, n, bytes))| (session, reason, n, bytes)).collect())
}
