//! Reads rows for an answer; damaged ones are left out and reported.

use std::ops::ControlFlow;

use rusqlite::{Connection, Params, Result};
use slipstream_core::clock::Timely;
use slipstream_core::ids::Position;
use slipstream_core::store::Row;

use crate::log::{self, Damaged};
use crate::state::StoreState;

macro_rules! select_rows {
    ($rest:literal) => {
        concat!("SELECT ", $crate::log::row_columns!(), " FROM log ", $rest)
    };
}
pub(crate) use select_rows;

/// Answers one question: what is read, and what is to be reported of it.
pub(crate) struct ReaderThread<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) state: &'a StoreState,
    /// The end of what is committed.
    pub(crate) head: Position,
    /// Which versions are older than all others, by the word of the question.
    pub(crate) timely: Timely,
    pub(crate) damaged: &'a mut Vec<Damaged>,
}

impl<'a> ReaderThread<'a> {
    pub(crate) fn new(
        db: &'a Connection,
        state: &'a StoreState,
        damaged: &'a mut Vec<Damaged>,
    ) -> Self {
        let head = Position::new(state.meta.head);
        Self { db, state, head, timely: Timely::ALL, damaged }
    }

    /// A sound row, unless it is not there; that a row is missing is reported.
    pub(crate) fn row_at(&mut self, position: Position) -> Result<Option<Row>> {
        let mut found = None;
        let reported = self.damaged.len();
        let sql = select_rows!("WHERE position = ?1");
        self.each(sql, [stored_number(position.get())], |row| {
            found = Some(row);
            ControlFlow::Break(())
        })?;
        let is_missing = found.is_none() && self.damaged.len() == reported;
        if is_missing && self.state.index.contains(position.get()) {
            self.damaged.push(Damaged::Row(position));
        }
        Ok(found)
    }

    /// Hands each sound row that `sql` finds to `take`.
    pub(crate) fn each(
        &mut self,
        sql: &str,
        params: impl Params,
        mut take: impl FnMut(Row) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut statement = self.db.prepare_cached(sql)?;
        let mut found = statement.query(params)?;
        while let Some(columns) = found.next()? {
            match log::read(columns) {
                Ok(row) => {
                    if take(row).is_break() {
                        break;
                    }
                }
                Err(damage) => self.damaged.push(damage),
            }
        }
        Ok(())
    }
}

/// A number as the tables hold it; one that no row can have lies behind all of them.
pub(crate) fn stored_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
