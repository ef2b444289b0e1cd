//! What a node knows of messages: the log in memory, and what is remembered of its rows.
//!
//! Owns the batch that grows, the tail, and the knowledge that is written down with a batch: what
//! was seen, newest values, receipts, copies within groups, starts. Knows no session: who is handed
//! a row, and when, is not decided here.

pub mod dead_letter;
pub mod epochs;
pub mod group_copies;
pub mod lifetime;
pub mod newest;
pub mod receipts;
pub mod seen;
pub mod tail;
pub mod unclaimed;

use alloc::collections::BTreeSet;

use crate::config::Limits;
use crate::store::Recovered;
use crate::store::backlog::Backlog;
use crate::types::ids::{Position, SessionId};
use crate::types::time::Now;

use self::epochs::EpochHistory;
use self::group_copies::GroupCopies;
use self::newest::NewestOfKeys;
use self::receipts::{Bounds, Receipts};
use self::seen::Seen;
use self::tail::Tail;
use self::unclaimed::Unclaimed;

/// Everything that a node knows of its messages.
#[derive(Debug)]
pub struct Log {
    /// The growing batch, the one under way, and the last rows.
    pub tail: Tail,
    pub seen: Seen,
    pub newest: NewestOfKeys,
    pub group_copies: GroupCopies,
    pub receipts: Receipts,
    /// Sessions whose receipts are to be written down.
    pub receipts_touched: BTreeSet<SessionId>,
    /// Events that were handed on to nobody yet, and the node's own dead letters.
    pub unclaimed: Unclaimed,
    /// Where the log ended at earlier starts.
    pub epochs: EpochHistory,
    /// Bytes of the rows that are there, along the log.
    pub backlog: Backlog,
    /// Where the log ended at this start.
    pub began: Position,
    /// No session needed anything at or below this when the last batch was sealed.
    pub floor: Position,
    /// Something waits for a commit, though no row does.
    pub commit_wanted: bool,
    /// Rows have come to the tail, or a session has moved on in it.
    pub trim_wanted: bool,
}

impl Log {
    /// What the store has of it. A first commit is wanted: it tells of the start.
    pub fn recover(recovered: &Recovered, limits: &Limits, now: Now) -> Self {
        let bounds = Bounds { ids: limits.idempotency_ids, bytes: limits.idempotency_max_bytes };
        let wall = recovered.clock.wall();
        Self {
            tail: Tail::new(recovered.head),
            seen: Seen::recover(&recovered.seen),
            newest: NewestOfKeys::new(recovered.clock),
            group_copies: GroupCopies::recover(&recovered.copies),
            receipts: Receipts::recover(&recovered.receipts, bounds, wall, now),
            receipts_touched: BTreeSet::new(),
            unclaimed: Unclaimed::default(),
            epochs: EpochHistory::default(),
            backlog: recovered.backlog.clone(),
            began: recovered.head,
            floor: Position::default(),
            commit_wanted: true,
            trim_wanted: false,
        }
    }
}
