//! What is known in memory about what is committed.
//!
//! It is read when the store is opened, asked by answers and by transactions, and changed only
//! behind a commit.

use rusqlite::{Connection, Result};
use slipstream_core::digest::print_of;
use slipstream_core::store::Row;

use crate::index::Index;
use crate::latest::{NewestRow, PendingRows};
use crate::meta::Meta;

/// What is known in memory about what is committed.
#[derive(Debug, Default)]
pub(crate) struct StoreState {
    pub(crate) index: Index,
    pub(crate) pending: PendingRows,
    pub(crate) meta: Meta,
    pub(crate) pages: Pages,
    /// Rows of table `copies`.
    pub(crate) copies: u64,
    pub(crate) dropped_total: u64,
    pub(crate) forgotten_total: u64,
    /// Bytes of history above its bound that were held with the last batch.
    pub(crate) held_bytes: u64,
}

/// Pages of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pages {
    pub(crate) all: u64,
    pub(crate) free: u64,
}

impl StoreState {
    /// Notes a row, if it is the newest of its key, which the table `latest` does not know.
    pub(crate) fn note_newest(&mut self, row: &Row, size: u32) {
        let Some(key) = row.key_hash else { return };
        let print = print_of(&key, &row.message);
        let newest = NewestRow { position: row.position.get(), size, print };
        if let Some(old) = self.pending.insert(key, newest, row.message.tags()) {
            self.index.supersede(old.position, old.size);
        }
    }
}

impl Pages {
    pub(crate) fn read(db: &Connection) -> Result<Self> {
        let number = |sql| -> Result<u64> {
            let pages: i64 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            Ok(pages.cast_unsigned())
        };
        Ok(Self { all: number("PRAGMA page_count")?, free: number("PRAGMA freelist_count")? })
    }
}
