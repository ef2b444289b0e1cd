//! Why a store could not be opened: each error names the file and the remedy.

use std::io;
use std::path::PathBuf;

use slipstream_core::ids::NodeId;

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

/// Why the store cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Sqlite(rusqlite::Error),
    /// This is not what was written, and nothing makes up for it.
    Damaged(&'static str),
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}
