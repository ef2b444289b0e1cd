//! Opens the file: takes it for this process alone, sets how it is synced, and makes sure that it
//! is ours.
//!
//! What stays true afterwards: the settings were read back and are the ones asked for, no other
//! process can open the file, and the directory entry of a new file is on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use slipstream_core::config::Durability;
use slipstream_core::ids::StoreId;

use crate::access::{self, make_directory, refusal, sync_directory};
use crate::error::OpenError;
use crate::files::{self, FILE_NAME, Files, wal_path};
use crate::meta::Meta;
use crate::options::StoreOptions;
use crate::owner::{Alone, Owner};
use crate::room::DatabaseRoom;
use crate::{schema, wal};

/// The oldest SQLite without the bug that loses commits when the WAL is reset.
pub const MIN_SQLITE_VERSION: i32 = 3_051_003;

/// Page cache, in KiB.
const CACHE_KIB: i32 = 16 * 1024;

/// A WAL that one large batch made longer is cut back to this when it starts over.
const WAL_KEPT_BYTES: i64 = 32 << 20;

/// An open database that belongs to this process alone.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    /// Both files, as they were opened.
    pub(crate) files: Files,
    /// Comes after the connection, so that it is dropped behind it.
    pub(crate) room: DatabaseRoom,
    pub(crate) owner: Owner,
    /// What the database said without its log, if it had one.
    pub(crate) alone: Option<Alone>,
    /// Pages in the WAL since it last started over, as of the last commit.
    pub(crate) wal_pages: Arc<AtomicU32>,
    /// The frame of the WAL behind which committed transactions were lost before this start.
    pub(crate) wal_lost_from: Option<u32>,
}

impl Database {
    pub(crate) fn open(options: &StoreOptions) -> Result<Self, OpenError> {
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

    fn open_file(path: PathBuf, options: &StoreOptions) -> Result<Self, OpenError> {
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
        let room = DatabaseRoom::new(&path, &wal_path(&path));
        let owner = Owner::default();
        let (alone, wal_lost_from) = (None, None);
        Ok(Self { connection: db, path, files, room, owner, alone, wal_pages, wal_lost_from })
    }
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

fn configure(db: &Connection, path: &Path, options: &StoreOptions) -> Result<(), OpenError> {
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
