//! Holds the database and its log against what their paths lead to.
//!
//! A file that is removed, moved or replaced stays open, and every sync of it succeeds: what is
//! committed then is in no file that the next start finds. So device, inode and size are compared
//! with each commit, and once in [`INTERVAL`] while there is none. What stays true: a commit is
//! reported only after a comparison that held (P1). The files are never opened here, because
//! closing one releases SQLite's locks on it.

use std::fs::Metadata;
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the database within the data directory.
pub(crate) const FILE_NAME: &str = "slipstream.db";

/// The time between two comparisons while nothing is committed.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of the header of the log, and of each frame's, beside its page.
pub(crate) const WAL_HEADER: u64 = 32;
pub(crate) const FRAME_HEADER: u64 = 24;

/// SQLite's default, which the database does not change.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// What tells one file from another: device and inode.
pub(crate) type FileId = (u64, u64);

/// The two files of an open database.
#[derive(Debug)]
pub(crate) struct Files {
    database: File,
    wal: File,
    /// When the last comparison held.
    held_at: Instant,
}

/// Bytes of the two files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) database: u64,
    pub(crate) wal: u64,
}

impl Files {
    /// The files that these paths lead to now, which SQLite must have open.
    pub(crate) fn new(database: PathBuf, wal: PathBuf) -> Result<Self> {
        let (database, wal) = (File::new(database)?, File::new(wal)?);
        Ok(Self { database, wal, held_at: Instant::now() })
    }

    /// Compares both files with those that were opened. The log has so many frames that are not in
    /// the database.
    ///
    /// # Errors
    /// What happened to which file, and what to do.
    pub(crate) fn compare(&mut self, frames: u32) -> std::result::Result<Sizes, String> {
        let database = self.database.compare()?;
        self.wal.least = match u64::from(frames) {
            0 => 0,
            frames => WAL_HEADER + frames * (FRAME_HEADER + PAGE_BYTES),
        };
        let wal = self.wal.compare()?;
        self.held_at = Instant::now();
        Ok(Sizes { database, wal })
    }

    /// Time until the next comparison is due.
    pub(crate) fn due_in(&self) -> Duration {
        INTERVAL.saturating_sub(self.held_at.elapsed())
    }

    /// Notes that SQLite has changed the size of the database: it may have no less than `pages`.
    /// Answers how many bytes it has.
    pub(crate) fn note_checkpoint(&mut self, pages: u64) -> u64 {
        let size = std::fs::metadata(&self.database.path).map_or(0, |file| file.len());
        // What is smaller than it must be was not cut by SQLite, and is told.
        self.database.least = size.max(self.database.least.min(pages * PAGE_BYTES));
        size
    }
}

/// A file that is open.
#[derive(Debug)]
struct File {
    path: PathBuf,
    id: FileId,
    /// Bytes that it has at least.
    least: u64,
}

impl File {
    fn new(path: PathBuf) -> Result<Self> {
        let found = std::fs::metadata(&path)?;
        Ok(Self { path, id: id_of(&found), least: found.len() })
    }

    fn compare(&self) -> std::result::Result<u64, String> {
        let path = self.path.display();
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(format!(
                    "{path} was removed or moved away while the node was running: put it back, or \
                     restore a backup"
                ));
            }
            Err(error) => return Err(format!("{path} is out of reach: {error}")),
        };
        if id_of(&found) != self.id {
            return Err(format!(
                "{path} was replaced by another file while the node was running: put back the \
                 one that was there, or restore a backup"
            ));
        }
        if found.len() < self.least {
            return Err(format!(
                "{path} was cut to {} bytes while the node was running, it had {}: restore a \
                 backup",
                found.len(),
                self.least
            ));
        }
        Ok(found.len())
    }
}

/// The write-ahead log of a database.
pub(crate) fn wal_path(database: &Path) -> PathBuf {
    database.with_file_name(format!("{FILE_NAME}-wal"))
}

/// What the path leads to; `None` if there is nothing.
pub(crate) fn find(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|found| id_of(&found))
}

#[cfg(unix)]
fn id_of(found: &Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

#[cfg(not(unix))]
fn id_of(_: &Metadata) -> FileId {
    // Where open files cannot be removed or replaced, only their sizes count.
    (0, 0)
}
