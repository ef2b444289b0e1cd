//! What a node knows of messages: the log in memory, and what is remembered of its rows.
//!
//! Owns the batch that grows, the tail, and the knowledge that is written down with a batch: what
//! was seen, newest values, receipts, copies within groups, starts; and the room in the store.
//! Knows no session: who is handed a row, and when, is not decided here.

pub mod capacity;
pub mod dead_letter;
pub mod epochs;
pub mod group_copies;
pub mod lifetime;
pub mod newest;
pub mod receipts;
pub mod seen;
pub mod tail;
pub mod unclaimed;

use crate::config::Config;
use crate::store::backlog::Backlog;
use crate::store::{Latest, Recovered};
use crate::types::ids::{Hash128, Position};
use crate::types::time::{Instant, Now};

use self::capacity::{Capacity, Load};
use self::epochs::EpochHistory;
use self::group_copies::GroupCopies;
use self::newest::{NewestOfKey, NewestOfKeys};
use self::receipts::{Bounds, ReceiptLog};
use self::seen::{Seen, Source};
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
    pub receipts: ReceiptLog,
    /// Events that were handed on to nobody yet, and the node's own dead letters.
    pub unclaimed: Unclaimed,
    /// Where the log ended at earlier starts.
    pub epochs: EpochHistory,
    /// Bytes of the rows that are there, along the log.
    pub backlog: Backlog,
    /// Room in the store.
    pub capacity: Capacity,
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
    pub fn recover(recovered: &Recovered, config: &Config, now: Now) -> Self {
        let limits = &config.limits;
        let bounds = Bounds { ids: limits.idempotency_ids, bytes: limits.idempotency_max_bytes };
        let wall = recovered.clock.wall();
        Self {
            tail: Tail::new(recovered.head),
            seen: Seen::recover(&recovered.seen),
            newest: NewestOfKeys::new(recovered.clock),
            group_copies: GroupCopies::recover(&recovered.copies),
            receipts: ReceiptLog::recover(&recovered.receipts, bounds, wall, now),
            unclaimed: Unclaimed::default(),
            epochs: EpochHistory::default(),
            backlog: recovered.backlog.clone(),
            capacity: Capacity::new(recovered.usage, &config.store),
            began: recovered.head,
            floor: Position::default(),
            commit_wanted: true,
            trim_wanted: false,
        }
    }

    /// What is on its way to the store now.
    pub fn load(&self, now: Instant) -> Load {
        Load { undurable: self.tail.undurable_bytes() as u64, now }
    }

    /// Remembers the newest of keys that the store was asked for; `here` is this node as an origin.
    pub fn learn_newest(
        &mut self,
        found: impl Iterator<Item = (Hash128, Option<Latest>)>,
        here: Source,
    ) {
        for (key, latest) in found {
            let Some(Latest { position, message }) = latest else {
                self.newest.learn_absent(key, here);
                continue;
            };
            let source = self.seen.source_of(&message);
            let (version, sequence) = (message.version(), message.sequence());
            self.newest.learn(key, NewestOfKey { version, source, sequence, position });
        }
    }
}
