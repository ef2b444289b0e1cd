//! One batch as one transaction.
//!
//! A transaction reads what is known in memory and changes nothing of it; what it did is handed
//! back as [`Effects`] and applied once it is committed. So a transaction that is rolled back
//! leaves memory as it was.

use rusqlite::{Connection, Result};
use slipstream_core::message::Kind;
use slipstream_core::store::Batch;

use crate::copies::{self, Remembered};
use crate::history::{self, Trimmed};
use crate::latest::Merged;
use crate::meta::Meta;
use crate::state::{Pages, StoreState};
use crate::tombstones::{self, Forgotten};
use crate::{log, records};

/// Free pages that are kept for what comes next.
const FREE_PAGES_KEPT: u64 = 1024;

/// Pages given back to the file system with a commit.
const VACUUM_PAGES: u32 = 64;

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
pub(crate) fn write(db: &Connection, state: &StoreState, batch: &Batch) -> Result<Effects> {
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

impl StoreState {
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
}

/// Gives a few free pages back to the file system.
fn vacuum(db: &Connection) -> Result<()> {
    let mut statement = db.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut steps = statement.raw_query();
    while steps.next()?.is_some() {}
    Ok(())
}
