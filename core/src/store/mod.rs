//! The contract between core and store: what is committed, what is asked, what comes back.
//!
//! The core never calls a store. It emits [`Batch`]es and [`Query`]s as outputs and is handed
//! their outcomes as inputs, in the order in which it asked. One batch is one transaction: all of
//! it is durable, or none of it is.
//!
//! **What a store may forget.** State at or below [`Batch::state_floor`] that is not the newest of
//! its (key, tag set), and any other row at or below [`Batch::floor`] (events, and what is for one
//! session only), is *history*. Up to [`Batch::history_max_bytes`] of history stay. Above that the
//! store deletes history, a bounded amount with each commit: first superseded state and expired
//! events, then unexpired events, oldest first, and counts them. A *tombstone* (DK) that is the
//! newest of its key and tag set is deleted too, whatever the history has room for, if it is older
//! than [`Batch::tombstones_before`], at or below the floor, and no other tag set of its key has a
//! value. What it had replaced stays superseded. It deletes nothing else on its own. Of a deleted
//! event of a cluster group it keeps what it is a copy of ([`Recovered::copies`]), for as many as
//! [`crate::log::group_copies::kept`] says, the ones with the highest positions. So a
//! session that is far behind, and of which only the newest of each key is still handed over, holds
//! events and nothing that was replaced.
//!
//! **Who is newest.** A state row in a batch is newer than every earlier row with the same
//! [`Row::key_hash`]: the core has made sure of it. A store keeps `latest` (key hash to position)
//! from that alone. From the same order it keeps the digests of what is live ([`digest`]).

pub mod backlog;
pub mod digest;
mod handle;
mod latest;
mod listed;
mod reason;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::store::backlog::Backlog;
use crate::store::digest::{DigestQuery, Digests};
use crate::types::clock::{Hlc, Timely};
use crate::types::ids::{
    BatchId, DeadLetterId, Hash128, Incarnation, NodeId, Position, SessionId, StoreId,
};
use crate::types::tags::TagSet;
use crate::types::time::WallMs;
use crate::wire::message::Message;

pub use self::StoredValue as Value;
pub use self::handle::{Stopped, Store};
pub use self::latest::Latest;
pub use self::listed::{LISTED_VALUE_BYTES, ListedLetter};
pub use self::reason::DeadReason;

/// One transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// Number of the batch; they come in order, without gaps.
    pub id: BatchId,
    /// Messages to append, in the order of their positions, which grow but may skip.
    pub rows: Vec<Row>,
    /// Seen-set records to put in place of those with the same [`SeenKey`].
    pub seen: Vec<SeenRecord>,
    /// Seen-set records to delete.
    pub seen_dropped: Vec<SeenKey>,
    /// Sessions to put in place of those with the same id.
    pub sessions: Vec<SessionRecord>,
    /// Sessions that end: their dead letters and receipts go with them.
    pub sessions_ended: Vec<SessionId>,
    /// Dead letters to add.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters to delete.
    pub dead_letters_gone: Vec<DeadLetterId>,
    /// Blocks of receipts to append to their session's ring (P9).
    pub receipts: Vec<ReceiptBlock>,
    /// Delete the blocks of this session up to and with this number.
    pub receipts_dropped: Vec<(SessionId, u64)>,
    /// High-water mark of the clock. It goes down where an operator has said so.
    pub clock: Hlc,
    /// The start of the node that this batch belongs to; the same in every batch of a run.
    pub incarnation: Incarnation,
    /// No session needs a row at or below this position.
    pub floor: Position,
    /// No session needs superseded state at or below this position. What is below `floor` says no
    /// more than `floor`.
    pub state_floor: Position,
    /// Events from here on are history, and stay: it is to be looked at first whether anybody was
    /// handed them. `None`: all may go.
    pub held_from: Option<Position>,
    /// Bound of the history, in bytes.
    pub history_max_bytes: u64,
    /// The time of this node, for the ends of events ([`Row::ends`]).
    pub wall: WallMs,
    /// Deletes with a version older than this may be forgotten; 0: none, because the clock cannot
    /// be trusted.
    pub tombstones_before: WallMs,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.seen.is_empty()
            && self.seen_dropped.is_empty()
            && self.sessions.is_empty()
            && self.sessions_ended.is_empty()
            && self.dead_letters.is_empty()
            && self.dead_letters_gone.is_empty()
            && self.receipts.is_empty()
            && self.receipts_dropped.is_empty()
    }
}

/// One message in the log.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its place.
    pub position: Position,
    /// The message, this node's id at the end of its path.
    pub message: Message,
    /// Hash of key and tag set, if the row competes for being the newest: `None` for events and
    /// for what was appended for one session only.
    pub key_hash: Option<Hash128>,
    /// When an event ends by the time of this node ([`crate::log::lifetime`]); 0 for state.
    pub ends: WallMs,
    /// The session at this node that published it.
    pub publisher: Option<SessionId>,
    /// The one session that it is for, if it is a replayed dead letter.
    pub only: Option<SessionId>,
    /// Whether another tag set of its key may have had a newer value when it came: then an
    /// application is handed it only while it is the newest of those that match it (P6).
    pub late: bool,
    /// Of a message of a cluster group: what it is a copy of (P10).
    pub copy: Option<GroupCopy>,
}

impl Row {
    /// A row that competes with those of its key, if it is state, and is for every session. An
    /// event ends when its origin said.
    pub fn new(position: Position, message: Message) -> Self {
        let (key_hash, ends) = (message.key_hash(), message.expires().unwrap_or_default());
        let (publisher, only, late, copy) = (None, None, false, None);
        Self { position, message, key_hash, ends, publisher, only, late, copy }
    }

    /// What the row counts for against limits in bytes: its encoding and 64 bytes of overhead.
    pub fn size(&self) -> usize {
        self.message.encoded().len() + 64
    }
}

/// Names one record of the seen-set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeenKey {
    /// Origin of the messages.
    pub origin: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Number of the record; 0 is the first.
    pub chunk: u64,
}

/// A part of the seen-set. The content is the core's affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRecord {
    /// Which part.
    pub key: SeenKey,
    /// Encoded by the core.
    pub marks: Bytes,
}

/// A session in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its number.
    pub id: SessionId,
    /// `peer:NAME` or `app:NAME`.
    pub name: String,
    /// Everything at or below it is settled.
    pub cursor: Position,
    /// Everything else, encoded by the core.
    pub state: Bytes,
}

/// A message that a session could not be brought to acknowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number.
    pub id: DeadLetterId,
    /// Whose it is; 0: the node's, which had handed the event on to nobody.
    pub session: SessionId,
    /// Why.
    pub reason: DeadReason,
    /// Hand-overs before.
    pub attempts: u32,
    /// What was said at the first failure.
    pub first_error: String,
    /// What was said at the last failure.
    pub last_error: String,
    /// When the session was first handed the message.
    pub first_at: WallMs,
    /// When it became a dead letter.
    pub died_at: WallMs,
    /// The message.
    pub message: Message,
}

/// Receipts that one session was given in one batch (P9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptBlock {
    /// Whose.
    pub session: SessionId,
    /// Number within the session, growing.
    pub number: u64,
    /// When, by the time of receipts.
    pub wall: WallMs,
    /// Encoded by the core.
    pub receipts: Bytes,
}

/// What a store knows when it is opened.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// Made once, with the database.
    pub store_id: StoreId,
    /// Highest position ever given in this log (0: none), also if its row is gone.
    pub head: Position,
    /// High-water mark of the clock.
    pub clock: Hlc,
    /// The highest start that it has seen; 0: none.
    pub incarnation: Incarnation,
    /// Highest session number ever given.
    pub last_session: SessionId,
    /// Highest dead-letter number ever given.
    pub last_dead_letter: DeadLetterId,
    /// All sessions, by id.
    pub sessions: Vec<SessionRecord>,
    /// The whole seen-set, in the order of its keys.
    pub seen: Vec<SeenRecord>,
    /// All receipts, oldest first within each session.
    pub receipts: Vec<ReceiptBlock>,
    /// The bytes of the rows that are there, along the log.
    pub backlog: Backlog,
    /// Of the last [`MAX_COPIES`](crate::group_copies::MAX_COPIES) rows of cluster groups, in
    /// order: events, also those that the store has deleted, and state that is the newest value of
    /// its key, whatever the tag set. And when each event ends by the time of this node; 0 for
    /// state, and for what has been deleted.
    pub copies: Vec<(Hash128, Position, WallMs)>,
    /// Number and bytes (as [`Row::size`]) of the dead letters, per session and reason.
    pub dead_letters: Vec<(SessionId, DeadReason, u64, u64)>,
    /// Size of the files.
    pub usage: Usage,
}

#[cfg(test)]
impl Recovered {
    /// What a store tells that was just made.
    pub fn empty() -> Self {
        Self {
            store_id: StoreId(1),
            head: Position::default(),
            clock: Hlc::default(),
            incarnation: Incarnation::default(),
            last_session: SessionId::default(),
            last_dead_letter: DeadLetterId::default(),
            sessions: Vec::new(),
            seen: Vec::new(),
            receipts: Vec::new(),
            copies: Vec::new(),
            dead_letters: Vec::new(),
            backlog: Backlog::default(),
            usage: Usage::default(),
        }
    }
}

/// How much room the store takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Pages of the database that are in use, in bytes: what `max_bytes` limits.
    pub used_bytes: u64,
    /// What may be added before the disk is full: free pages of the database, and bytes of its disk
    /// but for a reserve that deletes and acknowledgements need. `None` if nobody knows.
    pub room_bytes: Option<u64>,
    /// Size of the database file.
    pub database_bytes: u64,
    /// Size of the write-ahead log.
    pub wal_bytes: u64,
    /// Rows in the log.
    pub rows: u64,
    /// Bytes of settled rows that are kept without being the newest of their key.
    pub history_bytes: u64,
    /// Those of them above the bound that only [`Batch::held_from`] keeps.
    pub held_bytes: u64,
    /// Deletes that are remembered.
    pub tombstones: u64,
    /// Superseded rows and expired events deleted since the start.
    pub dropped_total: u64,
    /// Events deleted before they had expired since the start, all settled.
    pub forgotten_total: u64,
}

/// A batch that is durable.
#[derive(Debug)]
pub struct Committed {
    /// The batch, given back so that its rows need no copy.
    pub batch: Box<Batch>,
    /// Room taken now.
    pub usage: Usage,
    /// How long the transaction took.
    pub took: Duration,
}

/// A batch that is not in the store.
#[derive(Debug)]
pub struct CommitFailed {
    /// The batch.
    pub batch: Box<Batch>,
    /// Why.
    pub failure: StoreFailure,
}

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// No room; the transaction was rolled back, nothing of it is there.
    #[error("no room in the store: {0}")]
    Full(String),
    /// Whether it is durable is not known: nothing may be acknowledged any more.
    #[error("the store can no longer be trusted: {0}")]
    Unknown(String),
}

/// A question to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Rows behind `after` up to and with `upto`, in order, until a bound is reached: those below,
    /// or one of the store's own on how many rows it looks at. Either one row is answered, or the
    /// answer's `upto` has moved on.
    Rows {
        /// Start behind this position.
        after: Position,
        /// Last position of interest.
        upto: Position,
        /// Rows at or below this are left out where a newer one of their key is in the store.
        newest_upto: Position,
        /// An application's tags: of those rows, of late ones ([`Row::late`]) and of those for one
        /// session it is told whether any tag set that matches has a newer value. A copy
        /// ([`Row::copy`]) that another tag set has outdone is not left out, but told. `None`: only
        /// the row's own tag set counts.
        tags: Option<TagSet>,
        /// Which versions are older than all others, where versions are compared.
        timely: Timely,
        /// At most so many rows.
        max_rows: usize,
        /// At most so many bytes, by [`Row::size`].
        max_bytes: usize,
    },
    /// The rows at these positions, those that are still there.
    RowsAt {
        /// Where they lie.
        positions: Vec<Position>,
        /// As in [`Query::Rows`].
        tags: Option<TagSet>,
        /// As in [`Query::Rows`].
        timely: Timely,
    },
    /// The newest row of each of these keys.
    Latest(Vec<Hash128>),
    /// The newest value of each of these keys among the tag sets that match `tags`.
    Values {
        /// The keys.
        keys: Vec<String>,
        /// Who asks.
        tags: TagSet,
        /// As in [`Query::Rows`].
        timely: Timely,
    },
    /// Rows whose message has this id, without their values, in a bounded stretch of the log behind
    /// `after`.
    Find {
        /// The `messageId`.
        id: String,
        /// Start behind this position.
        after: Position,
    },
    /// Dead letters behind `after`, at most `limit`, in the order of their numbers, and no more
    /// behind [`DEAD_LETTERS_BYTES`].
    DeadLetters {
        /// Start behind this number.
        after: DeadLetterId,
        /// At most so many.
        limit: usize,
    },
    /// The same without long values: those are not even read, so that a damaged one is not noticed.
    DeadLetterList {
        /// Start behind this number.
        after: DeadLetterId,
        /// At most so many.
        limit: usize,
        /// Only those of this `messageId`.
        id: Option<String>,
    },
    /// Digests of the live state, as of the last commit.
    Digests(DigestQuery),
}

/// What the store found.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Query::Rows`]: the rows, and the position up to which nothing else is there.
    Rows {
        /// In order.
        rows: Vec<StoredRow>,
        /// Everything up to here was looked at.
        upto: Position,
        /// Rows left out because a newer one of their key is there.
        superseded: u64,
    },
    /// To [`Query::RowsAt`]: in the order asked, without those that are gone.
    RowsAt(Vec<StoredRow>),
    /// To [`Query::Latest`]: one entry per key asked, in the order asked.
    Latest(Vec<Option<Latest>>),
    /// To [`Query::Values`]: of the first keys that were asked, in their order; at least of one. Of
    /// the others nothing is said once [`VALUES_BYTES`] were looked at.
    Values(Vec<StoredValue>),
    /// To [`Query::Find`].
    Find {
        /// The rows found in this stretch.
        rows: Vec<StoredRow>,
        /// Where to go on; `None` at the end of the log.
        next: Option<Position>,
    },
    /// To [`Query::DeadLetters`].
    DeadLetters(Vec<DeadLetter>),
    /// To [`Query::DeadLetterList`].
    DeadLetterList {
        /// The dead letters of this stretch.
        listed: Vec<ListedLetter>,
        /// Where to go on; `None` at the end.
        next: Option<DeadLetterId>,
    },
    /// To [`Query::Digests`].
    Digests(Digests),
}

/// Bytes of dead letters, with their errors, after which [`Query::DeadLetters`] and
/// [`Query::DeadLetterList`] end.
pub const DEAD_LETTERS_BYTES: usize = 1 << 20;

/// Bytes of rows (as [`Row::size`]) after which [`Query::Values`] looks at no further key.
pub const VALUES_BYTES: u64 = 64 << 10;

/// Most tag sets of one key that [`Query::Values`] looks at, ...
pub const MAX_TAG_SETS: usize = 1024;

/// ... and most bytes of their rows.
pub const MAX_TAG_SETS_BYTES: u64 = 64 << 20;

/// What a key holds for whoever asked (P6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredValue {
    /// The newest message among the tag sets that match; a delete too.
    Newest(Latest),
    /// No tag set that matches has any.
    Absent,
    /// More than [`MAX_TAG_SETS`] or [`MAX_TAG_SETS_BYTES`].
    TooMany,
}

/// A row as it was read.
#[derive(Debug, Clone)]
pub struct StoredRow {
    /// The row.
    pub row: Row,
    /// Whether a newer message of its key and tag set is in the store, or, where the question
    /// says so, of its key and any tag set that matches; also told of a row that is for one
    /// session only. Where a key is [`StoredValue::TooMany`], its other tag sets are not looked at.
    pub superseded: bool,
}

/// What a row of a cluster group is a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCopy {
    /// Hash of group, id and content.
    pub content: Hash128,
    /// The row that it repeats: an event, or the value of its key that it replaced.
    pub of: Option<Position>,
}
