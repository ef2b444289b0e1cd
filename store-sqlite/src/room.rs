//! Room on the disk that is taken before it is needed.
//!
//! SQLite writes a commit into its log and copies the log into the database later. Where the
//! database cannot grow by then, the log can never start over, no commit fits behind it, and what
//! would make room, deletes and history, is refused for ever. What stays true where the file
//! system can promise blocks (`fallocate`): what is committed fits into the database, and behind a
//! checkpoint the log has [`WAL_RESERVE`] bytes, so that deletes, acknowledgements and the trimming
//! of history always pass. Nothing of it shows in the sizes of the files.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::files::PAGE_BYTES;

/// Bytes of the log that are taken when the database is opened.
const WAL_RESERVE: u64 = 4 << 20;

/// Bytes of the disk that are left to deletes and acknowledgements when publishers are refused.
const RESERVE: u64 = 1 << 20;

/// Free bytes within the database that are left to them where the disk has not that much. What they
/// write into the log is taken already.
const PAGES_RESERVE: u64 = 256 << 10;

/// Pages by which the database's room grows, so that few commits ask for more.
const STEP_PAGES: u64 = 256;

/// The disk is asked again for what is left after this long, ...
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// ... and with each commit while less than this is left.
const TIGHT: u64 = 256 << 20;

/// The room of an open database.
#[derive(Debug)]
pub(crate) struct DatabaseRoom {
    /// Is not dropped before the database is closed: that releases SQLite's locks.
    database: Option<disk::DiskFile>,
    /// Whether the file system promises blocks.
    promises: bool,
    /// Pages of the database for which the disk has room.
    pages: u64,
    left: Option<u64>,
    asked_at: Option<Instant>,
}

impl DatabaseRoom {
    /// Of a database that this process has locked.
    pub(crate) fn new(database: &Path, wal: &Path) -> Self {
        let handle = disk::DiskFile::open(database);
        if let Some(mut wal) = disk::DiskFile::open(wal) {
            // Without it the log has less room when the disk is full, and no commit is wrong.
            let _full = wal.take(0, WAL_RESERVE);
        }
        let pages = std::fs::metadata(database).map_or(0, |file| file.len()) / PAGE_BYTES;
        let promises = handle.is_some();
        Self { database: handle, promises, pages, left: None, asked_at: None }
    }

    /// Takes room for a database of so many pages.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn take(&mut self, pages: u64) -> io::Result<()> {
        let Some(handle) = self.database.as_mut().filter(|_| self.promises && pages > self.pages)
        else {
            return Ok(());
        };
        let from = self.pages * PAGE_BYTES;
        for wanted in [pages.next_multiple_of(STEP_PAGES), pages] {
            match handle.take(from, wanted * PAGE_BYTES - from) {
                Ok(true) => {
                    self.pages = wanted;
                    return Ok(());
                }
                // It cannot promise anything; SQLite says when there is no room.
                Ok(false) => {
                    self.promises = false;
                    return Ok(());
                }
                Err(error) if wanted == pages => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// A checkpoint has cut what was taken and is not in use.
    pub(crate) fn note_checkpoint(&mut self, database_bytes: u64) {
        self.pages = database_bytes / PAGE_BYTES;
    }

    /// Bytes that may be added to the database of `path`, which has so many `free` ones, before its
    /// disk is full; `None` if the system does not tell.
    pub(crate) fn left(&mut self, path: &Path, free: u64) -> Option<u64> {
        let recent = |at: Instant| at.elapsed() < ASK_INTERVAL;
        if !self.asked_at.is_some_and(recent) || self.left.is_none_or(|left| left < TIGHT) {
            self.left = disk::left(path);
            self.asked_at = Some(Instant::now());
        }
        // Where somebody else took the last of the disk, deletes need pages of the database.
        let within = |left| if left < RESERVE { PAGES_RESERVE } else { 0 };
        let room = |left: u64| left.saturating_sub(RESERVE) + free.saturating_sub(within(left));
        self.left.map(room)
    }
}

#[cfg(target_os = "linux")]
mod disk {
    //! What Linux can say and promise.

    use std::fs::{File, OpenOptions};
    use std::io;
    use std::path::Path;

    use rustix::fs::{FallocateFlags, fallocate, statvfs};
    use rustix::io::Errno;

    #[derive(Debug)]
    pub(super) struct DiskFile(File);

    impl DiskFile {
        pub(super) fn open(path: &Path) -> Option<Self> {
            OpenOptions::new().write(true).open(path).ok().map(Self)
        }

        /// Takes blocks for bytes of the file, behind its end too. False if the file system cannot
        /// do that.
        pub(super) fn take(&mut self, from: u64, bytes: u64) -> io::Result<bool> {
            loop {
                match fallocate(&self.0, FallocateFlags::KEEP_SIZE, from, bytes) {
                    Ok(()) => return Ok(true),
                    Err(Errno::INTR) => {}
                    Err(error @ (Errno::NOSPC | Errno::DQUOT)) => return Err(error.into()),
                    Err(_) => return Ok(false),
                }
            }
        }
    }

    /// Bytes that are left on the disk of a file.
    pub(super) fn left(path: &Path) -> Option<u64> {
        let told = statvfs(path).ok()?;
        told.f_bavail.checked_mul(told.f_frsize)
    }
}

#[cfg(not(target_os = "linux"))]
mod disk {
    //! Where nothing can be promised, SQLite says when the disk is full.

    use std::io;
    use std::path::Path;

    #[derive(Debug)]
    pub(super) struct DiskFile;

    impl DiskFile {
        pub(super) fn open(_: &Path) -> Option<Self> {
            None
        }

        pub(super) fn take(&mut self, _: u64, _: u64) -> io::Result<bool> {
            Ok(false)
        }
    }

    pub(super) fn left(_: &Path) -> Option<u64> {
        None
    }
}
