//! What the database says of who had it open: which node, and whether it was closed since.
//!
//! The mark "open" is in the database itself, not only in its log, before the first commit; a clean
//! close takes it back with the checkpoint that empties the log. So a database that says that it
//! is open and has no log has lost commits. And a log that goes with another database, or with an
//! earlier life of this one, is told by what the database says without it: SQLite would take its
//! pages for newer ones.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use crate::access::refusal;
use crate::digest::checksum_of;
use crate::error::OpenError;
use crate::files::{FRAME_HEADER, PAGE_BYTES, WAL_HEADER};
use crate::meta::Meta;
use crate::options::StoreOptions;

/// Is not in every database of this version: the first ones were made without it.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS owner (  -- one row: who had this file open last
    id       INTEGER PRIMARY KEY CHECK (id = 0),
    node     TEXT NOT NULL,         -- node.id; empty: not known
    is_open  INTEGER NOT NULL,      -- 1: not closed since; what is missing here is in the log
    checksum INTEGER NOT NULL
) STRICT";

/// Bytes of a log with one frame. One that has less never was the log of an open database.
const LEAST_WAL: u64 = WAL_HEADER + FRAME_HEADER + PAGE_BYTES;

/// Who had a database open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    /// The node; empty if that is not known.
    node: String,
    is_open: bool,
}

/// What a database says without its log.
#[derive(Debug)]
pub(crate) struct Alone {
    life: Life,
    /// Whether it was closed, so that whatever is in a log is not its own.
    is_closed: bool,
}

/// What tells one life of a database from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    store: u128,
    head: u64,
}

impl Owner {
    /// Makes sure that a database, opened with a log of so many bytes, has what was committed, and
    /// is this node's.
    pub(crate) fn check(
        db: &Connection,
        path: &Path,
        wal_bytes: u64,
        options: &StoreOptions,
    ) -> Result<Self, OpenError> {
        let mut owner = Self::read(db, path)?.unwrap_or_default();
        if owner.is_open && wal_bytes < LEAST_WAL && !options.accept_missing_log {
            return Err(OpenError::MissingLog { path: path.into() });
        }
        if let Some(node) = &options.node {
            if !owner.node.is_empty() && owner.node != node.as_str() && !options.rename_node {
                let found = owner.node;
                return Err(OpenError::OtherNode {
                    path: path.into(),
                    found,
                    wanted: node.clone(),
                });
            }
            node.as_str().clone_into(&mut owner.node);
        }
        Ok(owner)
    }

    fn read(db: &Connection, path: &Path) -> Result<Option<Self>, OpenError> {
        let failed = |source| refusal(path, source);
        let known = "SELECT 1 FROM sqlite_schema WHERE name = 'owner'";
        if !db.prepare(known).and_then(|mut known| known.exists([])).map_err(failed)? {
            return Ok(None);
        }
        let sql = "SELECT node, is_open, checksum FROM owner";
        let read = |row: &rusqlite::Row<'_>| {
            Ok((Self { node: row.get(0)?, is_open: row.get(1)? }, row.get::<_, u32>(2)?))
        };
        match db.query_row(sql, [], read).optional().map_err(failed)? {
            None => Ok(None),
            Some((owner, checksum)) if owner.checksum() == checksum => Ok(Some(owner)),
            Some(_) => Err(OpenError::Damaged { path: path.into(), what: "table owner" }),
        }
    }

    /// Says in a transaction of its own that the database is open, or that it is closed.
    pub(crate) fn mark(&mut self, db: &Connection, is_open: bool) -> rusqlite::Result<()> {
        self.is_open = is_open;
        db.execute_batch("BEGIN IMMEDIATE")?;
        db.execute_batch(TABLE)?;
        db.execute(
            "INSERT OR REPLACE INTO owner (id, node, is_open, checksum) VALUES (0, ?1, ?2, ?3)",
            params![self.node, self.is_open, self.checksum()],
        )?;
        db.execute_batch("COMMIT")
    }

    fn checksum(&self) -> u32 {
        checksum_of([self.is_open.into()], &[self.node.as_bytes()])
    }
}

impl Alone {
    /// Reads a database that has a log of so many bytes; `None` if it does not say.
    pub(crate) fn read(path: &Path, wal_bytes: u64) -> Option<Self> {
        if wal_bytes < LEAST_WAL {
            return None;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(uri(path)?, flags).ok()?;
        let owner = Owner::read(&db, path).ok()?;
        Some(Self { life: Life::of(&db)?, is_closed: owner.is_some_and(|owner| !owner.is_open) })
    }

    /// Whether what the log makes of the database cannot be what became of it.
    pub(crate) fn is_contradicted_by(&self, with_log: &Connection) -> bool {
        let Some(with_log) = Life::of(with_log) else { return self.is_closed };
        self.life.store != with_log.store || with_log.head < self.life.head
    }

    /// Whether damage is that of a log which is not the database's own.
    pub(crate) fn explains(&self, damage: &OpenError) -> bool {
        let is_damage = match damage {
            OpenError::Damaged { .. } => true,
            OpenError::Sqlite { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
            }
            _ => false,
        };
        is_damage && self.is_closed
    }
}

impl Life {
    fn of(db: &Connection) -> Option<Self> {
        let meta = Meta::read(db).ok()?;
        Some(Self { store: meta.store_id, head: meta.head })
    }
}

/// A name by which SQLite reads a file and nothing beside it.
fn uri(path: &Path) -> Option<String> {
    let mut uri = String::from("file:");
    for byte in path.to_str()?.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(byte.into());
        } else {
            write!(uri, "%{byte:02X}").ok()?;
        }
    }
    uri.push_str("?immutable=1");
    Some(uri)
}
