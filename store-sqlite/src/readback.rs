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
pub enum Cell {
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

impl ToSql for Cell {
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
    pub fn row(&self, cells: &[Cell; 14]) -> Result<Row, Damaged> {
        self.select(cells, log::read)
    }

    /// The dead letter that these cells are.
    ///
    /// # Errors
    /// [`Damaged`] if they are none that was written.
    ///
    /// # Panics
    /// If SQLite fails.
    pub fn dead_letter(&self, cells: &[Cell; 14]) -> Result<DeadLetter, Damaged> {
        self.select(cells, records::read_dead_letter)
    }

    fn select<T>(&self, cells: &[Cell], read: impl Fn(&rusqlite::Row<'_>) -> T) -> T {
        let sql = format!("SELECT ?1{}", ", ?".repeat(cells.len() - 1));
        let mut statement = self.0.prepare_cached(&sql).expect("the statement is well-formed");
        statement
            .query_row(params_from_iter(cells), |columns| Ok(read(columns)))
            .expect("what is selected is there")
    }
}

/// The cells that a row is written as, in the order in which they are read.
pub fn cells_of_row(row: &Row) -> [Cell; 14] {
    let session = |id: Option<slipstream_core::ids::SessionId>| {
        id.map_or(Cell::Null, |id| Cell::Integer(id.get().cast_signed()))
    };
    let message = &row.message;
    [
        Cell::Integer(row.position.get().cast_signed()),
        session(row.publisher),
        session(row.only),
        Cell::Integer(log::checksum(row).into()),
        Cell::Text(message.key().into()),
        Cell::Blob(message.head().into()),
        Cell::Text(message.body().into()),
        Cell::Integer(message.kind().number().into()),
        Cell::Integer(log::expires(row).cast_signed()),
        Cell::Integer(log::row_size(row).into()),
        Cell::Text(message.id().into()),
        Cell::Integer(row.late.into()),
        row.copy.map_or(Cell::Null, |copy| Cell::Blob(copy.content.0.into())),
        row.copy
            .and_then(|copy| copy.of)
            .map_or(Cell::Null, |of| Cell::Integer(of.get().cast_signed())),
    ]
}

/// The cells that a dead letter is written as, in the order in which they are read.
pub fn cells_of_dead_letter(letter: &DeadLetter) -> [Cell; 14] {
    let message = &letter.message;
    [
        Cell::Integer(letter.id.get().cast_signed()),
        Cell::Integer(letter.session.get().cast_signed()),
        Cell::Text(letter.reason.as_str().into()),
        Cell::Integer(letter.attempts.into()),
        Cell::Text(letter.first_error.clone().into()),
        Cell::Text(letter.last_error.clone().into()),
        Cell::Integer(letter.first_at.0.cast_signed()),
        Cell::Integer(letter.died_at.0.cast_signed()),
        Cell::Integer(records::checksum(letter).into()),
        Cell::Text(message.key().into()),
        Cell::Blob(message.head().into()),
        Cell::Text(message.body().into()),
        Cell::Integer(records::letter_size(letter).into()),
        Cell::Text(message.id().into()),
    ]
}
