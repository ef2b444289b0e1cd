//! One batch as one transaction.
//!
//! A transaction reads what is known in memory and changes nothing of it; what it did is handed
//! back as [`Effects`] and applied once it is committed. So a transaction that is rolled back
//! leaves memory as it was.

use rusqlite::{Connection, Result, params};
use slipstream_core::digest::print_of;
use slipstream_core::message::Kind;
use slipstream_core::store::{Batch, Row};

use crate::copies::{self, Remembered};
use crate::digest::{Digest, checksum_of};
use crate::history::{self, Trimmed};
use crate::index::Index;
use crate::latest::{Merged, Newest, Pending};
use crate::tombstones::{self, Forgotten};
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
    /// Rows of table `copies`.
    pub(crate) copies: u64,
    pub(crate) dropped_total: u64,
    pub(crate) forgotten_total: u64,
    /// Bytes of history above its bound that were held with the last batch.
    pub(crate) held_bytes: u64,
}

/// The row of table `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub(crate) store_id: u128,
    pub(crate) head: u64,
    pub(crate) clock: u64,
    pub(crate) incarnation: u64,
    pub(crate) last_session: u64,
    pub(crate) last_dead_letter: u64,
    pub(crate) floor: u64,
    pub(crate) merged: u64,
    /// Of table `log`.
    pub(crate) log_digest: Digest,
    /// Of all other tables but this one.
    pub(crate) records_digest: Digest,
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
    forgotten: Forgotten,
    remembered: Remembered,
    merged: Merged,
    meta: Meta,
    /// Of the database, with this transaction.
    pub(crate) pages: Pages,
}

/// Writes `batch` within the caller's transaction.
pub(crate) fn write(db: &Connection, state: &State, batch: &Batch) -> Result<Effects> {
    // Deletions first: what they free takes up what is new.
    let trimmed = history::trim(db, &state.index, batch)?;
    let forgotten = tombstones::forget(db, state, batch)?;
    let remembered = copies::remember(db, state.copies, &trimmed.copies, batch)?;
    let records = records::write(db, batch)?;
    let inserted = log::insert(db, &batch.rows)?;
    let merged = state.pending.merge(db, state.meta.head, batch)?;
    let mut meta = state.meta.after(batch, merged.upto);
    meta.log_digest.change(inserted);
    meta.log_digest.remove(trimmed.digest.0);
    meta.log_digest.remove(forgotten.log.0);
    meta.records_digest.remove(forgotten.latest.0);
    meta.records_digest.change(remembered.digest);
    meta.records_digest.change(records);
    meta.records_digest.change(merged.digest);
    meta.write(db)?;
    let mut pages = Pages::read(db)?;
    if pages.free > FREE_PAGES_KEPT.max(pages.all / 8) {
        vacuum(db)?;
        pages = Pages::read(db)?;
    }
    Ok(Effects { trimmed, forgotten, remembered, merged, meta, pages })
}

impl State {
    /// Takes over what a committed transaction did.
    pub(crate) fn apply(&mut self, batch: &Batch, effects: &Effects) {
        effects.trimmed.apply(&mut self.index);
        effects.forgotten.apply(&mut self.index);
        self.pending.apply(&effects.merged);
        for old in &effects.merged.superseded {
            self.index.supersede(old.position, old.size);
        }
        for row in &batch.rows {
            let message = &row.message;
            let size = log::row_size(row);
            let expires = row.ends.0;
            let is_state = message.kind().is_state();
            let event = history::event_expiry(is_state, expires, row.only.is_some());
            self.index.append(row.position.get(), size, event);
            if message.kind() == Kind::Dk && event.is_none() {
                self.index.note_tombstone(row.position.get(), message.version().wall().0);
            }
            if event.is_none() {
                self.note_newest(row, size);
            }
        }
        self.meta = effects.meta;
        self.pages = effects.pages;
        self.copies = effects.remembered.rows;
        self.dropped_total += effects.trimmed.dropped;
        self.forgotten_total += effects.trimmed.forgotten;
        self.held_bytes = effects.trimmed.held_bytes;
    }

    /// Notes a row, if it is the newest of its key, which the table `latest` does not know.
    pub(crate) fn note_newest(&mut self, row: &Row, size: u32) {
        let Some(key) = row.key_hash else { return };
        let print = print_of(&key, &row.message);
        let newest = Newest { position: row.position.get(), size, print };
        if let Some(old) = self.pending.insert(key, newest, row.message.tags()) {
            self.index.supersede(old.position, old.size);
        }
    }
}

impl Meta {
    fn after(self, batch: &Batch, merged: u64) -> Self {
        let rows = batch.rows.iter().map(|row| row.position.get());
        let sessions = batch.sessions.iter().map(|session| session.id.get());
        let letters = batch.dead_letters.iter().map(|letter| letter.id.get());
        Self {
            head: rows.fold(self.head, u64::max),
            clock: batch.clock.0,
            incarnation: self.incarnation.max(batch.incarnation.get()),
            last_session: sessions.fold(self.last_session, u64::max),
            last_dead_letter: letters.fold(self.last_dead_letter, u64::max),
            floor: batch.floor.get(),
            merged,
            ..self
        }
    }

    /// CRC-32 of the row.
    pub(crate) fn checksum(&self) -> u32 {
        let numbers = [
            self.head,
            self.clock,
            self.incarnation,
            self.last_session,
            self.last_dead_letter,
            self.floor,
            self.merged,
            self.log_digest.0.into(),
            self.records_digest.0.into(),
        ];
        checksum_of(numbers, &[&self.store_id.to_be_bytes()])
    }

    /// Puts the row into the table, in place of the one that is there.
    pub(crate) fn write(&self, db: &Connection) -> Result<()> {
        let mut statement = db.prepare_cached(
            "INSERT OR REPLACE INTO meta (id, store_id, head, clock, incarnation, last_session,
                 last_dead_letter, floor, merged, log_digest, records_digest, checksum)
             VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        statement.execute(params![
            self.store_id.to_be_bytes(),
            self.head.cast_signed(),
            self.clock.cast_signed(),
            self.incarnation.cast_signed(),
            self.last_session.cast_signed(),
            self.last_dead_letter.cast_signed(),
            self.floor.cast_signed(),
            self.merged.cast_signed(),
            self.log_digest,
            self.records_digest,
            self.checksum(),
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
