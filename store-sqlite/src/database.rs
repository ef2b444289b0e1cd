//! Opens the file: takes it for this process alone, sets how it is synced, and makes sure that it
//! is ours.
//!
//! What stays true afterwards: the settings were read back and are the ones asked for, no other
//! process can open the file, and the directory entry of a new file is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use slipstream_core::config::Durability;
use slipstream_core::ids::{NodeId, StoreId};

use crate::access::{self, make_directory, sync_directory};
use crate::commit::Meta;
use crate::files::{self, Files};
use crate::owner::{Alone, Owner};
use crate::room::Room;
use crate::{schema, wal};

/// The oldest SQLite without the bug that loses commits when the WAL is reset.
pub const MIN_SQLITE_VERSION: i32 = 3_051_003;

/// Name of the database within the data directory.
pub(crate) const FILE_NAME: &str = "slipstream.db";

/// Page cache, in KiB.
const CACHE_KIB: i32 = 16 * 1024;

/// A WAL that one large batch made longer is cut back to this when it starts over.
const WAL_KEPT_BYTES: i64 = 32 << 20;

/// Where and how a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory that holds the database; made if it is not there.
    pub data_dir: PathBuf,
    /// Whether commits wait for the disk (P1).
    pub durability: Durability,
    /// Random; the identity of the database if it is made now.
    pub new_store_id: StoreId,
    /// Most pages (of 4 KiB) that the database may have; beyond it commits fail as on a full
    /// disk. `None`: no bound but the disk.
    pub max_pages: Option<u32>,
    /// The node that it is for, which the database remembers. `None`: whatever it remembers.
    pub node: Option<NodeId>,
    /// Whether a database of another node becomes this one's.
    pub rename_node: bool,
    /// Whether a database that has lost its write-ahead log is taken as it is.
    pub accept_missing_log: bool,
}

impl Options {
    /// A store in `data_dir` without a bound on its pages.
    pub fn new(data_dir: PathBuf, durability: Durability, new_store_id: StoreId) -> Self {
        Self {
            data_dir,
            durability,
            new_store_id,
            max_pages: None,
            node: None,
            rename_node: false,
            accept_missing_log: false,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another node, or a shell, has the file open.
    #[error("{path} is in use by another process: stop it, or use another data directory")]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The file is not a database of Slipstream.
    #[error("{path} is not a database of Slipstream: move it away, or use another data directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error(
        "{path} has schema version {found}, this program knows up to {known}: \
         start the newer program, or restore a backup from before the update"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Version of the file.
        found: i32,
        /// Highest version known here.
        known: i32,
    },
    /// The file was written before the first release, in a way that is no longer read.
    #[error(
        "{path} has schema version {found}, which was never released: use the program that wrote \
         it, or move the file away to begin with an empty store"
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Version of the file.
        found: i32,
    },
    /// The program was built with an SQLite that can lose commits.
    #[error("SQLite {found} can lose commits: build with 3.51.3 or later (feature `bundled`)")]
    OldSqlite {
        /// Version of the library.
        found: &'static str,
    },
    /// The directory cannot be synced.
    #[error("{path}: cannot sync the directory: {source}; nothing stored there would be durable")]
    Sync {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory cannot be made or used.
    #[error("{path}: cannot {action}: {source}; nothing stored there would be durable")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// This process may not use a file or directory.
    #[error(
        "{path} may not be read and written: it belongs to {owner}, mode {mode:04o}, and this \
         process runs as {user}: give it to that user, or run the process as its owner"
    )]
    Permission {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Its mode.
        mode: u32,
        /// Who this process runs as.
        user: String,
    },
    /// Nobody may write there.
    #[error(
        "{path} cannot be written, its file system is mounted read-only (it belongs to {owner}, \
         this process runs as {user}): mount it for writing, or use another data directory"
    )]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who this process runs as.
        user: String,
    },
    /// A symbolic link leads nowhere.
    #[error(
        "{path} is a link to {target}, and there is nothing: mount what it leads to, or remove it"
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What it leads to.
        target: PathBuf,
    },
    /// The database remembers another node.
    #[error(
        "{path} is the database of node {found}, and node.id is {wanted}: set node.id to {found}, \
         use another data directory, or start once with `slipstream run --rename-node` to make it \
         the database of {wanted}"
    )]
    OtherNode {
        /// The database.
        path: PathBuf,
        /// The node that it is of.
        found: String,
        /// The node that opens it.
        wanted: NodeId,
    },
    /// The node that had the database open did not close it, and its log is gone.
    #[error(
        "{path}-wal is missing: the node was not stopped, and the last messages that it \
         acknowledged are in that file. Put it back, restore a backup into an empty data \
         directory, or go on without them: `slipstream run --accept-missing-log`, once"
    )]
    MissingLog {
        /// The database.
        path: PathBuf,
    },
    /// The log is not that of the database.
    #[error(
        "{path}-wal is left over from another database, or from an earlier time of this one, and \
         would undo what is in {path}: stop, move {path}-wal away, and start the node again; \
         restore a backup only into an empty data directory"
    )]
    LeftOverLog {
        /// The database.
        path: PathBuf,
    },
    /// A setting was not accepted.
    #[error("{path}: {setting} is {found}, not {wanted}: the file system does not support it")]
    Setting {
        /// The database.
        path: PathBuf,
        /// The pragma.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// What this node must know for certain to keep its promises is not what was written.
    #[error(
        "{path}: {what} is damaged, and without it messages would be lost or handed over twice: \
         check the disk and restore a backup, or use an empty data directory"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What in it.
        what: &'static str,
    },
    /// The file is not the one that was locked.
    #[error("{path} was replaced while it was opened: start the node again")]
    Replaced {
        /// The database.
        path: PathBuf,
    },
    /// What was committed before could not be brought from the write-ahead log into the database.
    #[error("{reason}; check the disk: what is in the write-ahead log stays there")]
    Checkpoint {
        /// What SQLite said, with the path.
        reason: String,
    },
    /// SQLite failed.
    #[error("{path}: {source}; check the disk and the file's permissions, or restore a backup")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
}

/// An open database that belongs to this process alone.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    /// Both files, as they were opened.
    pub(crate) files: Files,
    /// Comes after the connection, so that it is dropped behind it.
    pub(crate) room: Room,
    pub(crate) owner: Owner,
    /// What the database said without its log, if it had one.
    pub(crate) alone: Option<Alone>,
    /// Pages in the WAL since it last started over, as of the last commit.
    pub(crate) wal_pages: Arc<AtomicU32>,
    /// The frame of the WAL behind which committed transactions were lost before this start.
    pub(crate) wal_lost_from: Option<u32>,
}

impl Database {
    pub(crate) fn open(options: &Options) -> Result<Self, OpenError> {
        if rusqlite::version_number() < MIN_SQLITE_VERSION {
            return Err(OpenError::OldSqlite { found: rusqlite::version() });
        }
        make_directory(&options.data_dir)?;
        let path = options.data_dir.join(FILE_NAME);
        let wal = wal_path(&path);
        access::check(&path, &wal)?;
        let directory = |action| {
            let path = options.data_dir.clone();
            move |source| OpenError::Directory { path, action, source }
        };
        // SQLite would make a new database, and delete the log for it.
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        if size(&path) == 0 && size(&wal) > 0 {
            let what = "the database (empty, while its write-ahead log is not)";
            return Err(OpenError::Damaged { path, what });
        }
        let lost = wal::lost_from(&wal).map_err(directory("read the write-ahead log"))?;
        access::keep_private(&path, &wal)?;
        let wal_bytes = size(&wal);
        let alone = Alone::read(&path, wal_bytes);
        let mut opened = Self::open_file(path, options).map_err(|error| match error {
            error if alone.as_ref().is_some_and(|alone| alone.explains(&error)) => {
                OpenError::LeftOverLog { path: options.data_dir.join(FILE_NAME) }
            }
            error => error,
        })?;
        if alone.as_ref().is_some_and(|alone| alone.is_contradicted_by(&opened.connection)) {
            return Err(OpenError::LeftOverLog { path: opened.path });
        }
        opened.alone = alone;
        opened.owner = Owner::check(&opened.connection, &opened.path, wal_bytes, options)?;
        if lost.is_some() {
            // Before it is written over, and only now: the log of another process may be half
            // written when it is read.
            std::fs::copy(&wal, wal.with_extension("db-wal.damaged"))
                .map_err(directory("copy the damaged write-ahead log"))?;
            opened.wal_lost_from = lost;
        }
        // SQLite does not look at the result of syncing the directory.
        sync_directory(&options.data_dir)?;
        Ok(opened)
    }

    fn open_file(path: PathBuf, options: &Options) -> Result<Self, OpenError> {
        let failed = |source| refusal(&path, source);
        let found = files::find(&path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&path, flags).map_err(failed)?;
        db.busy_timeout(std::time::Duration::ZERO).map_err(failed)?;
        db.set_prepared_statement_cache_capacity(64);
        // Closing would checkpoint once more and not say how it went.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        set(&db, &path, "locking_mode", "EXCLUSIVE", "exclusive")?;
        let version = inspect(&db, &path)?;
        if version == 0 {
            // Only before the first page is written.
            db.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
        }
        configure(&db, &path, options)?;
        let wal_pages = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&wal_pages);
        // After wal_autocheckpoint, which would put its own hook in place of this one.
        db.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            counter.store(u32::try_from(pages).unwrap_or(u32::MAX), Ordering::Relaxed);
            Ok(())
        }))
        .map_err(failed)?;
        take(&mut db, version, options.new_store_id).map_err(failed)?;
        check(&db, &path, "auto_vacuum", "2")?;
        // What is locked is the file that SQLite has opened, between these two looks at the path.
        if found.is_some() && found != files::find(&path) {
            return Err(OpenError::Replaced { path });
        }
        let files = Files::new(path.clone(), wal_path(&path)).map_err(|source| {
            OpenError::Directory { path: path.clone(), action: "look at the files", source }
        })?;
        let room = Room::new(&path, &wal_path(&path));
        let owner = Owner::default();
        let (alone, wal_lost_from) = (None, None);
        Ok(Self { connection: db, path, files, room, owner, alone, wal_pages, wal_lost_from })
    }
}

/// The write-ahead log of a database.
fn wal_path(database: &Path) -> PathBuf {
    database.with_file_name(format!("{FILE_NAME}-wal"))
}

/// Version of the schema, 0 in a new file.
fn inspect(db: &Connection, path: &Path) -> Result<i32, OpenError> {
    let failed = |source| refusal(path, source);
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let application = number("application_id").map_err(failed)?;
    let version = number("user_version").map_err(failed)?;
    let tables: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if (application, version, tables) == (0, 0, 0) {
        return Ok(0);
    }
    if application != schema::APPLICATION_ID || version < 1 {
        return Err(OpenError::Foreign { path: path.into() });
    }
    if version < schema::OLDEST {
        return Err(OpenError::Older { path: path.into(), found: version });
    }
    if version > schema::VERSION {
        let known = schema::VERSION;
        return Err(OpenError::Newer { path: path.into(), found: version, known });
    }
    Ok(version)
}

fn configure(db: &Connection, path: &Path, options: &Options) -> Result<(), OpenError> {
    set(db, path, "journal_mode", "WAL", "wal")?;
    match options.durability {
        Durability::Full => set(db, path, "synchronous", "EXTRA", "3")?,
        Durability::Normal => set(db, path, "synchronous", "NORMAL", "1")?,
    }
    set(db, path, "wal_autocheckpoint", "0", "0")?;
    let kept = WAL_KEPT_BYTES.to_string();
    set(db, path, "journal_size_limit", &kept, &kept)?;
    let cache = format!("-{CACHE_KIB}");
    set(db, path, "cache_size", &cache, &cache)?;
    set(db, path, "temp_store", "MEMORY", "2")?;
    if let Some(pages) = options.max_pages {
        let pages = pages.to_string();
        set(db, path, "max_page_count", &pages, &pages)?;
    }
    Ok(())
}

/// Makes or migrates the schema. The transaction also takes the lock that keeps others out.
fn take(db: &mut Connection, version: i32, new_store_id: StoreId) -> rusqlite::Result<()> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    if version < schema::VERSION {
        schema::migrate(&transaction, version)?;
    }
    if version == 0 {
        Meta { store_id: new_store_id.0, ..Meta::default() }.write(&transaction)?;
    }
    transaction.commit()
}

/// Sets a pragma and reads it back.
fn set(
    db: &Connection,
    path: &Path,
    pragma: &'static str,
    value: &str,
    wanted: &str,
) -> Result<(), OpenError> {
    let sql = format!("PRAGMA {pragma} = {value}");
    let mut statement = db.prepare(&sql).map_err(|source| refusal(path, source))?;
    let mut rows = statement.raw_query();
    while rows.next().map_err(|source| refusal(path, source))?.is_some() {}
    check(db, path, pragma, wanted)
}

fn check(
    db: &Connection,
    path: &Path,
    pragma: &'static str,
    wanted: &str,
) -> Result<(), OpenError> {
    let found = db
        .pragma_query_value(None, pragma, |row| {
            Ok(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                other => other.as_str().unwrap_or_default().to_owned(),
            })
        })
        .map_err(|source| refusal(path, source))?;
    if found == wanted {
        return Ok(());
    }
    Err(OpenError::Setting { path: path.into(), setting: pragma, found, wanted: wanted.into() })
}

/// What an error of SQLite means while opening.
pub(crate) fn refusal(path: &Path, source: rusqlite::Error) -> OpenError {
    let path: PathBuf = path.into();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            let denied = access::check(&path, &wal_path(&path)).err();
            denied.unwrap_or(OpenError::Sqlite { path, source })
        }
        _ => OpenError::Sqlite { path, source },
    }
}
