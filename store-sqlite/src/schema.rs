//! The tables: what a person who opens the file with the `sqlite3` shell finds.
//!
//! The comments are part of the schema and shown by `.schema`. A change of it is a new number and
//! a step in [`MIGRATIONS`].

use rusqlite::{Connection, Result};

/// In the header of the file: `Slps`.
pub(crate) const APPLICATION_ID: i32 = 0x536c_7073;

/// The version that this code writes.
pub(crate) const VERSION: i32 = OLDEST - 1 + MIGRATIONS.len() as i32;

/// The oldest version that this code reads. Versions 1 and 2 were never released: the hashes of
/// keys and tag sets had nothing in common for one key; there were no digests, and rows did not say
/// of what they are copies.
pub(crate) const OLDEST: i32 = 3;

/// The first step makes [`OLDEST`], each further one the next version.
const MIGRATIONS: [&str; 3] = [FIRST, COPIES, ENDS];

const FIRST: &str = "
CREATE TABLE log (              -- messages, in the order in which this node accepted them
    position     INTEGER PRIMARY KEY,
    kind         INTEGER NOT NULL,  -- 0 SK, 1 SA, 2 CMD, 3 SW, 4 DK
    expires      INTEGER NOT NULL,  -- end of an event, time of a delete, ms since 1970; else 0
    size         INTEGER NOT NULL,  -- what it counts for against limits, bytes
    publisher    INTEGER,           -- session that published it here
    only_session INTEGER,           -- the one session it is for, if it is a replay
    late         INTEGER NOT NULL,  -- 1: another tag set of its key may have had a newer value
    content      BLOB,              -- of a cluster group: hash of what copies have in common, ...
    copy_of      INTEGER,           -- ... and the row of which this is one
    checksum     INTEGER NOT NULL,  -- CRC-32 of the whole row
    message_id   TEXT NOT NULL,
    key          TEXT NOT NULL,
    head         BLOB NOT NULL,     -- encoding of everything before key and value
    value        TEXT NOT NULL
) STRICT;
CREATE TABLE latest (           -- the newest row of each key and tag set, behind the log:
    key      BLOB PRIMARY KEY,  -- (their hash; it begins with 6 bytes of the key alone)
    position INTEGER NOT NULL,  -- rows behind meta.merged are newer than this table
    size     INTEGER NOT NULL,
    print    INTEGER NOT NULL,  -- what stands for it in the digests; 0: a delete
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE digests (          -- sums of latest.print, modulo 2^64; those of 0 are not there
    bucket   INTEGER NOT NULL,  -- first 10 bits of latest.key; -1: all buckets
    tags     TEXT NOT NULL,     -- tag set
    sum      INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (bucket, tags)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen (             -- which messages this node has processed
    origin      TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    chunk       INTEGER NOT NULL,
    marks       BLOB NOT NULL,
    checksum    INTEGER NOT NULL,
    PRIMARY KEY (origin, incarnation, chunk)
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (         -- peers and named applications
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL,
    cursor   INTEGER NOT NULL,  -- everything in the log up to here is settled
    state    BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE dead_letters (     -- messages that a session could not be brought to acknowledge
    id          INTEGER PRIMARY KEY,
    session     INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    attempts    INTEGER NOT NULL,
    first_error TEXT NOT NULL,
    last_error  TEXT NOT NULL,
    first_at    INTEGER NOT NULL,
    died_at     INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    message_id  TEXT NOT NULL,
    key         TEXT NOT NULL,
    head        BLOB NOT NULL,
    checksum    INTEGER NOT NULL,
    value       TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_session ON dead_letters (session);
CREATE TABLE receipts (         -- what each session was given for its messageIds
    session  INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    wall     INTEGER NOT NULL,
    receipts BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (session, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (             -- one row
    id               INTEGER PRIMARY KEY CHECK (id = 0),
    store_id         BLOB NOT NULL,
    head             INTEGER NOT NULL,  -- highest position ever given
    clock            INTEGER NOT NULL,
    incarnation      INTEGER NOT NULL,
    last_session     INTEGER NOT NULL,
    last_dead_letter INTEGER NOT NULL,
    floor            INTEGER NOT NULL,  -- no session needs a row up to here
    merged           INTEGER NOT NULL,  -- latest knows every row up to here
    log_digest       INTEGER NOT NULL,  -- sum of the checksums of all rows of log, ...
    records_digest   INTEGER NOT NULL,  -- ... and of all rows of the other tables
    checksum         INTEGER NOT NULL
) STRICT;
";

const COPIES: &str = "
CREATE TABLE copies (           -- events of cluster groups whose rows are gone from the log
    position INTEGER PRIMARY KEY,  -- where the row was
    content  BLOB NOT NULL,        -- log.content
    checksum INTEGER NOT NULL
) STRICT;
";

/// An event may end otherwise at this node than its origin has said: earlier programs would take
/// such a row for a damaged one, and must not open the file.
const ENDS: &str = "-- log.expires of an event is by the time of this node";

/// Brings the schema from `version` to [`VERSION`], within the caller's transaction.
pub(crate) fn migrate(db: &Connection, version: i32) -> Result<()> {
    let from = usize::try_from(version - (OLDEST - 1)).unwrap_or_default();
    for step in &MIGRATIONS[from..] {
        db.execute_batch(step)?;
    }
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    db.pragma_update(None, "user_version", VERSION)
}
