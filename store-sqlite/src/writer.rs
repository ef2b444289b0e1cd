//! The connection at work: commits, checkpoints, and what their failures mean.
//!
//! What stays true: after a failure that leaves durability unknown (an I/O error of a commit or a
//! checkpoint, or anything else but a full disk) every further commit fails with
//! [`StoreFailure::Unknown`]: the kernel may have dropped what it could not write, and say nothing
//! the next time.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use slipstream_core::store::{
    Answer, Batch, CommitFailed, Committed, Query, Recovered, StoreFailure, Usage,
};

use crate::commit;
use crate::database::Database;
use crate::error::OpenError;
use crate::files::{INTERVAL, PAGE_BYTES};
use crate::index::Class;
use crate::log::Damaged;
use crate::options::StoreOptions;
use crate::state::StoreState;
use crate::{fetch, history, recover};

/// Pages in the WAL (16 MiB) above which it is copied into the database.
const CHECKPOINT_PAGES: u32 = 4096;

/// After a checkpoint found no room, it is tried again each time that the WAL has grown by so many
/// pages.
const RETRY_PAGES: u32 = 256;

/// Pages in the WAL (64 MiB) above which commits are refused until a checkpoint succeeds.
const MOST_WAL_PAGES: u32 = 16_384;

/// Owns the connection; lives on the store's thread.
#[derive(Debug)]
pub(crate) struct WriterThread {
    database: Database,
    state: StoreState,
    usage: Usage,
    /// A checkpoint is due when the WAL has more pages.
    checkpoint_above: u32,
    /// Why no commit can be trusted any more.
    broken: Option<String>,
    /// Damaged rows met and not reported yet.
    pub(crate) damaged: Vec<Damaged>,
}

impl WriterThread {
    pub(crate) fn open(options: &StoreOptions) -> Result<(Self, Recovered), OpenError> {
        let database = Database::open(options)?;
        let mut damaged: Vec<_> = database.wal_lost_from.map(Damaged::Wal).into_iter().collect();
        let (state, mut recovered) = recover::recover(&database.connection, &mut damaged)
            .map_err(|why| why.into_refusal(&database))?;
        let mut writer = Self {
            database,
            state,
            usage: Usage::default(),
            checkpoint_above: CHECKPOINT_PAGES,
            broken: None,
            damaged,
        };
        // Only now: of a file that is refused nothing is changed.
        let marked = writer.mark(true).and_then(|()| writer.checkpoint("PASSIVE"));
        if let Err(StoreFailure::Unknown(reason)) = marked {
            return Err(OpenError::Checkpoint { reason });
        }
        if writer.measure().is_err() {
            return Err(OpenError::Replaced { path: writer.database.path });
        }
        recovered.usage = writer.usage;
        Ok((writer, recovered))
    }

    /// Looks `query` up.
    pub(crate) fn fetch(&mut self, query: &Query) -> Result<Answer, StoreFailure> {
        let db = &self.database.connection;
        let answer = fetch::answer(db, &self.state, query, &mut self.damaged);
        answer.map_err(|error| StoreFailure::Unknown(format!("cannot read the store: {error}")))
    }

    /// Commits a batch: all of it is durable, or nothing of it is there.
    pub(crate) fn commit(&mut self, batch: Box<Batch>) -> Result<Committed, CommitFailed> {
        let begun = Instant::now();
        match self.try_commit(&batch).and_then(|()| self.check_files()) {
            Ok(()) => {
                let took = begun.elapsed();
                Ok(Committed { batch, usage: self.usage, took })
            }
            Err(failure) => Err(CommitFailed { batch, failure }),
        }
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<(), StoreFailure> {
        // Before it too: what is written behind the place where a file was cut hides the cut.
        self.check_files()?;
        if let Some(reason) = &self.broken {
            return Err(StoreFailure::Unknown(reason.clone()));
        }
        if self.wal_pages() >= MOST_WAL_PAGES {
            self.checkpoint("PASSIVE")?;
        }
        let effects = match self.transact(batch) {
            Ok(effects) => effects,
            Err(error) => match self.roll_back(&error) {
                // The log starts over behind a checkpoint, in the room that it has already.
                StoreFailure::Full(_) if self.wal_pages() > 0 => {
                    self.checkpoint("PASSIVE")?;
                    self.transact(batch).map_err(|error| self.roll_back(&error))?
                }
                failure => return Err(failure),
            },
        };
        self.state.apply(batch, &effects);
        Ok(())
    }

    fn transact(&mut self, batch: &Batch) -> rusqlite::Result<commit::Effects> {
        let db = &self.database.connection;
        let sizes = |range: RangeInclusive<u64>, counts: &dyn Fn(u64) -> bool| {
            history::sizes(db, *range.start(), *range.end(), counts)
        };
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let floor = batch.floor.get();
        self.state.index.set_floor(Class::Events, floor, sizes)?;
        let floor = batch.state_floor.get().max(floor);
        self.state.index.set_floor(Class::Superseded, floor, sizes)?;
        let effects = commit::write(db, &self.state, batch)?;
        self.database.room.take(effects.pages.all).map_err(no_room)?;
        db.prepare_cached("COMMIT")?.execute([])?;
        Ok(effects)
    }

    /// Leaves the transaction that failed. SQLite may have rolled it back already.
    fn roll_back(&mut self, error: &rusqlite::Error) -> StoreFailure {
        let db = &self.database.connection;
        let rolled_back = if db.is_autocommit() { Ok(()) } else { db.execute_batch("ROLLBACK") };
        let path = self.database.path.display();
        match rolled_back {
            Ok(()) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                StoreFailure::Full(format!("{path}: {error}"))
            }
            Ok(()) => self.breaks(format!("{path}: {error}")),
            Err(second) => self.breaks(format!("{path}: {error}, then {second}")),
        }
    }

    fn breaks(&mut self, reason: String) -> StoreFailure {
        self.broken = Some(reason.clone());
        StoreFailure::Unknown(reason)
    }

    /// Copies the WAL into the database if it has grown enough. Comes after the commit was
    /// reported, so that nobody waits for it.
    pub(crate) fn checkpoint_if_due(&mut self) {
        if self.broken.is_none() && self.wal_pages() > self.checkpoint_above {
            // No room is not fatal, and anything else is told with the next commit.
            drop(self.checkpoint("PASSIVE"));
        }
    }

    /// The last checkpoint, of all there is.
    pub(crate) fn finish(mut self) -> Result<(), StoreFailure> {
        self.check_files()?;
        if let Some(reason) = self.broken {
            return Err(StoreFailure::Unknown(reason));
        }
        // The mark must go before the log does, and finds room where the log can start over.
        self.checkpoint("PASSIVE")?;
        self.mark(false)?;
        self.checkpoint("TRUNCATE")
    }

    /// Says in the database whether it is open.
    fn mark(&mut self, is_open: bool) -> Result<(), StoreFailure> {
        let marked = self.database.owner.mark(&self.database.connection, is_open);
        marked.map_err(|error| self.roll_back(&error))
    }

    fn checkpoint(&mut self, mode: &str) -> Result<(), StoreFailure> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let result = self.database.connection.query_row(&sql, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let size = self.database.files.note_checkpoint(self.state.pages.all);
        self.database.room.note_checkpoint(size);
        let path = self.database.path.display();
        match result {
            Ok((0, log, copied)) if log == copied => {
                self.database.wal_pages.store(0, Ordering::Relaxed);
                self.checkpoint_above = CHECKPOINT_PAGES;
                Ok(())
            }
            Ok((busy, log, copied)) => {
                self.checkpoint_above = self.wal_pages().saturating_add(RETRY_PAGES);
                let what = format!("{path}: checkpoint did {copied} of {log} pages ({busy})");
                Err(StoreFailure::Full(what))
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                self.checkpoint_above = self.wal_pages().saturating_add(RETRY_PAGES);
                Err(StoreFailure::Full(format!("{path}: checkpoint: {error}")))
            }
            Err(error) => {
                let reason = format!("{path}: checkpoint: {error}");
                Err(self.breaks(reason))
            }
        }
    }

    /// Time until [`WriterThread::check_files`] is due.
    pub(crate) fn check_in(&self) -> Duration {
        match self.broken {
            Some(_) => INTERVAL,
            None => self.database.files.due_in(),
        }
    }

    /// Makes sure that the files are still those that were opened, and measures them. Says so
    /// once if they are not.
    pub(crate) fn check_files(&mut self) -> Result<(), StoreFailure> {
        match self.broken {
            Some(_) => Ok(()),
            None => self.measure().map_err(|reason| self.breaks(reason)),
        }
    }

    fn wal_pages(&self) -> u32 {
        self.database.wal_pages.load(Ordering::Relaxed)
    }

    fn measure(&mut self) -> Result<(), String> {
        let frames = self.wal_pages();
        let sizes = self.database.files.compare(frames)?;
        let StoreState { index, pages, dropped_total, forgotten_total, held_bytes, .. } =
            &self.state;
        self.usage = Usage {
            room_bytes: self.database.room.left(&self.database.path, pages.free * PAGE_BYTES),
            used_bytes: pages.all.saturating_sub(pages.free) * PAGE_BYTES,
            database_bytes: sizes.database,
            wal_bytes: sizes.wal,
            rows: index.rows(),
            history_bytes: index.history_bytes(),
            held_bytes: *held_bytes,
            tombstones: index.tombstones(),
            dropped_total: *dropped_total,
            forgotten_total: *forgotten_total,
        };
        Ok(())
    }
}

/// As SQLite would say it.
fn no_room(error: std::io::Error) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    rusqlite::Error::SqliteFailure(code, Some(format!("no room for the database: {error}")))
}
