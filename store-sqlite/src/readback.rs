//! Reading back one row at a time from cells that the caller has made, for those who look for what
//! a damaged file can do. Built with the feature `readback` only, and no part of the API.
//!
//! What a file holds reaches [`crate::log`] and [`crate::records`] as columns of a statement, and
//! so it does here; no table is needed for that.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use slipstream_core::store::{DeadLetter, Row};

use crate::log::{self, Damaged};
use crate::records;

/// A value as it lies in a row: a damaged file holds any kind in any column.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredCell {
    /// Nothing.
    Null,
    /// A number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// What should be UTF-8.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl ToSql for StoredCell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Reads rows back.
#[derive(Debug)]
pub struct Readback(Connection);

impl Readback {
    /// Ready to read.
    ///
    /// # Panics
    /// If SQLite cannot be started.
    #[expect(clippy::new_without_default, reason = "it starts SQLite")]
    pub fn new() -> Self {
        Self(Connection::open_in_memory().expect("a database in memory can be opened"))
    }

    /// The row of the log that these cells are.
    ///
    /// # Errors
    /// [`Damaged`] if they are none that was written.
    ///
    /// # Panics
    /// If SQLite fails.
    pub fn row(&self, cells: &[StoredCell; 14]) -> Result<Row, Damaged> {
        self.select(cells, log::read)
    }

    /// The dead letter that these cells are.
    ///
    /// # Errors
    /// [`Damaged`] if they are none that was written.
    ///
    /// # Panics
    /// If SQLite fails.
    pub fn dead_letter(&self, cells: &[StoredCell; 14]) -> Result<DeadLetter, Damaged> {
        self.select(cells, records::read_dead_letter)
    }

    fn select<T>(&self, cells: &[StoredCell], read: impl Fn(&rusqlite::Row<'_>) -> T) -> T {
        let sql = format!("SELECT ?1{}", ", ?".repeat(cells.len() - 1));
        let mut statement = self.0.prepare_cached(&sql).expect("the statement is well-formed");
        statement
            .query_row(params_from_iter(cells), |columns| Ok(read(columns)))
            .expect("what is selected is there")
    }
}

/// The cells that a row is written as, in the order in which they are read.
pub fn cells_of_row(row: &Row) -> [StoredCell; 14] {
    let session = |id: Option<slipstream_core::ids::SessionId>| {
        id.map_or(StoredCell::Null, |id| StoredCell::Integer(id.get().cast_signed()))
    };
    let message = &row.message;
    [
        StoredCell::Integer(row.position.get().cast_signed()),
        session(row.publisher),
        session(row.only),
        StoredCell::Integer(log::checksum(row).into()),
        StoredCell::Text(message.key().into()),
        StoredCell::Blob(message.head().into()),
        StoredCell::Text(message.body().into()),
        StoredCell::Integer(message.kind().number().into()),
        StoredCell::Integer(log::expires(row).cast_signed()),
        StoredCell::Integer(log::row_size(row).into()),
        StoredCell::Text(message.id().into()),
        StoredCell::Integer(row.late.into()),
        row.copy.map_or(StoredCell::Null, |copy| StoredCell::Blob(copy.content.0.into())),
        row.copy
            .and_then(|copy| copy.of)
            .map_or(StoredCell::Null, |of| StoredCell::Integer(of.get().cast_signed())),
    ]
}

/// The cells that a dead letter is written as, in the order in which they are read.
pub fn cells_of_dead_letter(letter: &DeadLetter) -> [StoredCell; 14] {
    let message = &letter.message;
    [
        StoredCell::Integer(letter.id.get().cast_signed()),
        StoredCell::Integer(letter.session.get().cast_signed()),
        StoredCell::Text(letter.reason.as_str().into()),
        StoredCell::Integer(letter.attempts.into()),
        StoredCell::Text(letter.first_error.clone().into()),
        StoredCell::Text(letter.last_error.clone().into()),
        StoredCell::Integer(letter.first_at.0.cast_signed()),
        StoredCell::Integer(letter.died_at.0.cast_signed()),
        StoredCell::Integer(records::checksum(letter).into()),
        StoredCell::Text(message.key().into()),
        StoredCell::Blob(message.head().into()),
        StoredCell::Text(message.body().into()),
        StoredCell::Integer(records::letter_size(letter).into()),
        StoredCell::Text(message.id().into()),
    ]
}
