//! One batch as one transaction.
//!
//! A transaction reads what is known in memory and changes nothing of it; what it did is handed
//! back as [`Effects`] and applied once it is committed. So a transaction that is rolled back
//! leaves memory as it was.

use rusqlite::{Connection, Result, params};
use slipstream_core::ids::Hash128;
use slipstream_core::store::Batch;

use crate::history::{self, Trimmed};
use crate::index::Index;
use crate::latest::{Merged, Newest, Pending};
use crate::{log, records};

/// Free pages that are kept for what comes next.
const FREE_PAGES_KEPT: u64 = 1024;

/// Pages given back to the file system with a commit.
const VACUUM_PAGES: u32 = 64;

/// What is known in memory about what is committed.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) pending: Pending,
    pub(crate) meta: Meta,
    pub(crate) pages: Pages,
    pub(crate) dropped_total: u64,
    pub(crate) forgotten_total: u64,
}

/// The row of table `meta`, but for what [`Index`] and [`Pending`] hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub(crate) head: u64,
    pub(crate) clock: u64,
    pub(crate) incarnation: u64,
    pub(crate) last_session: u64,
    pub(crate) last_dead_letter: u64,
}

/// Pages of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pages {
    pub(crate) all: u64,
    pub(crate) free: u64,
}

/// What a transaction changes in memory once it is committed.
#[derive(Debug)]
pub(crate) struct Effects {
    trimmed: Trimmed,
    merged: Merged,
    meta: Meta,
    pages: Pages,
}

/// Writes `batch` within the caller's transaction.
pub(crate) fn write(db: &Connection, state: &State, batch: &Batch) -> Result<Effects> {
    // Deletions first: what they free takes up what is new.
    let trimmed = history::trim(db, &state.index, batch)?;
    records::write(db, batch)?;
    log::insert(db, &batch.rows)?;
    let merged = state.pending.merge(db, state.meta.head, batch.rows.len())?;
    let meta = state.meta.after(batch);
    meta.write(db, batch.floor.get(), merged.upto)?;
    let mut pages = Pages::read(db)?;
    if pages.free > FREE_PAGES_KEPT.max(pages.all / 8) {
        vacuum(db)?;
        pages = Pages::read(db)?;
    }
    Ok(Effects { trimmed, merged, meta, pages })
}

impl State {
    /// Takes over what a committed transaction did.
    pub(crate) fn apply(&mut self, batch: &Batch, effects: &Effects) {
        effects.trimmed.apply(&mut self.index);
        self.pending.apply(&effects.merged);
        for old in &effects.merged.superseded {
            self.index.supersede(old.position, old.size);
        }
        for row in &batch.rows {
            let message = &row.message;
            let size = log::row_size(row);
            let expires = message.expires().map_or(0, |at| at.0);
            let is_state = message.kind().is_state();
            let event = history::event_expiry(is_state, expires, row.only.is_some());
            self.index.append(row.position.get(), size, event);
            if let Some(key) = row.key_hash.filter(|_| event.is_none()) {
                self.note_newest(row.position.get(), size, key);
            }
        }
        self.meta = effects.meta;
        self.pages = effects.pages;
        self.dropped_total += effects.trimmed.dropped;
        self.forgotten_total += effects.trimmed.forgotten;
    }

    /// Notes the newest row of a key, which the table `latest` does not know.
    pub(crate) fn note_newest(&mut self, position: u64, size: u32, key: Hash128) {
        if let Some(old) = self.pending.insert(key, Newest { position, size }) {
            self.index.supersede(old.position, old.size);
        }
    }
}

impl Meta {
    fn after(self, batch: &Batch) -> Self {
        let rows = batch.rows.iter().map(|row| row.position.get());
        let sessions = batch.sessions.iter().map(|session| session.id.get());
        let letters = batch.dead_letters.iter().map(|letter| letter.id.get());
        Self {
            head: rows.fold(self.head, u64::max),
            clock: self.clock.max(batch.clock.0),
            incarnation: self.incarnation.max(batch.incarnation.get()),
            last_session: sessions.fold(self.last_session, u64::max),
            last_dead_letter: letters.fold(self.last_dead_letter, u64::max),
        }
    }

    fn write(self, db: &Connection, floor: u64, merged: u64) -> Result<()> {
        let mut statement = db.prepare_cached(
            "UPDATE meta SET head = ?1, clock = ?2, incarnation = ?3, last_session = ?4,
                             last_dead_letter = ?5, floor = ?6, merged = ?7",
        )?;
        statement.execute(params![
            self.head.cast_signed(),
            self.clock.cast_signed(),
            self.incarnation.cast_signed(),
            self.last_session.cast_signed(),
            self.last_dead_letter.cast_signed(),
            floor.cast_signed(),
            merged.cast_signed(),
        ])?;
        Ok(())
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

/// Gives a few free pages back to the file system.
fn vacuum(db: &Connection) -> Result<()> {
    let mut statement = db.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut steps = statement.raw_query();
    while steps.next()?.is_some() {}
    Ok(())
}
