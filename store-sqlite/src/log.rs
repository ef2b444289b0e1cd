//! Rows of messages as they rest in the file, and the checksum that each carries.
//!
//! What stays true: a row whose checksum does not fit its content is never answered.

use std::fmt;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Result};
use slipstream_core::copies::GroupCopy;
use slipstream_core::ids::{DeadLetterId, Hash128, Position, SessionId};
use slipstream_core::message::{Kind, Message};
use slipstream_core::store::Row;
use slipstream_core::time::WallMs;

use crate::digest::{Digest, checksum_of};

/// The columns that [`read`] takes, in its order.
macro_rules! row_columns {
    () => {
        "position, publisher, only_session, checksum, key, head, value, \
         kind, expires, size, message_id, late, content, copy_of"
    };
}
pub(crate) use row_columns;

/// Something in the file that is not what was written. It is left where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// A message in the log.
    Row(Position),
    /// A dead letter.
    DeadLetter(DeadLetterId),
    /// Some row of the log is missing, or is another one than was written.
    Log,
    /// The write-ahead log, at this frame (counted from 1; 0 is its header): what was committed
    /// behind it is lost. The file was copied to `slipstream.db-wal.damaged`.
    Wal(u32),
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(position) => {
                write!(f, "row {position} of table log is damaged: it is not used")?;
            }
            Self::DeadLetter(id) => {
                write!(f, "row {id} of table dead_letters is damaged: it is not used")?;
            }
            Self::Log => f.write_str("rows of table log are missing or damaged")?,
            Self::Wal(frame) => {
                write!(f, "the write-ahead log is damaged at frame {frame}: ")?;
                f.write_str("what was committed behind it is lost, and the log was copied")?;
            }
        }
        f.write_str("; check the disk and restore a backup")
    }
}

/// A row that is not late, and no copy of a cluster group: nearly all are so.
const INSERT: &str = "INSERT INTO log (position, kind, expires, size, publisher, only_session,
                          message_id, key, head, checksum, value, late)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0)";
/// Any other.
const INSERT_MARKED: &str =
    "INSERT INTO log (position, kind, expires, size, publisher, only_session,
                          message_id, key, head, checksum, value, late, content, copy_of)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// Appends the rows, in their order; answers what they add to the digest.
pub(crate) fn insert(db: &Connection, rows: &[Row]) -> Result<Digest> {
    let mut digest = Digest::default();
    let mut plain = db.prepare_cached(INSERT)?;
    let mut marked = db.prepare_cached(INSERT_MARKED)?;
    for row in rows {
        let message = &row.message;
        let session = |id: Option<SessionId>| id.map(|id| id.get().cast_signed());
        let (publisher, only) = (session(row.publisher), session(row.only));
        let text = |text| ToSqlOutput::Borrowed(ValueRef::Text(text));
        let [id, key, body] = message.id_key_body();
        let checksum = checksum(row);
        digest.add(checksum);
        let is_marked = row.late || row.copy.is_some();
        let statement = if is_marked { &mut marked } else { &mut plain };
        statement.raw_bind_parameter(1, row.position.get().cast_signed())?;
        statement.raw_bind_parameter(2, message.kind().number())?;
        statement.raw_bind_parameter(3, expires(row).cast_signed())?;
        statement.raw_bind_parameter(4, row_size(row))?;
        statement.raw_bind_parameter(5, publisher)?;
        statement.raw_bind_parameter(6, only)?;
        statement.raw_bind_parameter(7, text(id))?;
        statement.raw_bind_parameter(8, text(key))?;
        statement.raw_bind_parameter(9, message.head())?;
        statement.raw_bind_parameter(10, checksum)?;
        statement.raw_bind_parameter(11, text(body))?;
        if is_marked {
            let of = row.copy.and_then(|copy| copy.of).map(|of| of.get().cast_signed());
            statement.raw_bind_parameter(12, row.late)?;
            statement.raw_bind_parameter(13, row.copy.map(|copy| copy.content.0))?;
            statement.raw_bind_parameter(14, of)?;
        }
        statement.raw_execute()?;
    }
    Ok(digest)
}

/// Puts a row together from [`row_columns`].
pub(crate) fn read(columns: &rusqlite::Row<'_>) -> Result<Row, Damaged> {
    let position = columns.get_ref(0).ok().and_then(|value| value.as_i64().ok());
    let position = Position::new(position.unwrap_or_default().cast_unsigned());
    let row = (|| {
        let number = |column| -> Option<Option<u64>> {
            match columns.get_ref(column).ok()? {
                ValueRef::Null => Some(None),
                ValueRef::Integer(number) => Some(Some(number.cast_unsigned())),
                _ => None,
            }
        };
        let session = |column| Some(number(column)?.map(SessionId::new));
        let only = session(2)?;
        let content = match columns.get_ref(12).ok()? {
            ValueRef::Null => None,
            ValueRef::Blob(content) => Some(Hash128(content.try_into().ok()?)),
            _ => return None,
        };
        let of = number(13)?.map(Position::new);
        let copy = content.map(|content| GroupCopy { content, of });
        let message = message(columns, 4)?;
        let key_hash = if only.is_none() { message.key_hash() } else { None };
        let late = number(11)? == Some(1);
        // When a delete was made is no end.
        let ends = WallMs(if message.kind() == Kind::Cmd { number(8)?? } else { 0 });
        let publisher = session(1)?;
        let row = Row { position, message, key_hash, ends, publisher, only, late, copy };
        let is =
            |column, value: i64| columns.get_ref(column).ok()?.as_i64().ok().map(|v| v == value);
        let is_sound = is(3, checksum(&row).into())?
            && is(7, row.message.kind().number().into())?
            && is(8, expires(&row).cast_signed())?
            && is(9, row_size(&row).into())?
            && is(11, row.late.into())?
            && (copy.is_some() || of.is_none())
            && columns.get_ref(10).ok()?.as_str().ok()? == row.message.id();
        is_sound.then_some(row)
    })();
    row.ok_or(Damaged::Row(position))
}

/// Puts a message together from key, head and value, which begin at column `first`.
pub(crate) fn message(columns: &rusqlite::Row<'_>, first: usize) -> Option<Message> {
    let key = columns.get_ref(first).ok()?;
    let head = columns.get_ref(first + 1).ok()?;
    let value = columns.get_ref(first + 2).ok()?;
    Message::from_parts(head.as_blob().ok()?, key.as_str().ok()?, value.as_str().ok()?).ok()
}

/// The same where the value was not read.
pub(crate) fn message_without_value(columns: &rusqlite::Row<'_>, first: usize) -> Option<Message> {
    let (key, head) = (columns.get_ref(first).ok()?, columns.get_ref(first + 1).ok()?);
    Message::from_parts(head.as_blob().ok()?, key.as_str().ok()?, "null").ok()
}

/// Size of a row as it is counted. Messages are far smaller than 4 GiB.
pub(crate) fn row_size(row: &Row) -> u32 {
    u32::try_from(row.size()).unwrap_or(u32::MAX)
}

/// When an event ends by the time of this node, or when a delete was made.
pub(crate) fn expires(row: &Row) -> u64 {
    match row.message.kind() {
        Kind::Dk => row.message.version().wall().0,
        Kind::Sk | Kind::Sa | Kind::Sw | Kind::Cmd => row.ends.0,
    }
}

pub(crate) fn checksum(row: &Row) -> u32 {
    let session = |id: Option<SessionId>| id.map_or(u64::MAX, SessionId::get);
    let of = row.copy.and_then(|copy| copy.of).map_or(u64::MAX, Position::get);
    let content = row.copy.as_ref().map_or(&[][..], |copy| &copy.content.0);
    let numbers =
        [row.position.get(), session(row.publisher), session(row.only), row.late.into(), of];
    // The end that its origin has given it is part of the message.
    if row.ends == row.message.expires().unwrap_or_default() {
        checksum_of(numbers, &[row.message.encoded(), content])
    } else {
        checksum_of(numbers, &[row.message.encoded(), content, &row.ends.0.to_le_bytes()])
    }
}
