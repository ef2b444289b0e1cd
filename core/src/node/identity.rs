//! Who a node is: its database, this start of it, and what it knows of others of its id.

use alloc::collections::BTreeMap;

use crate::log::seen::Source;
use crate::types::ids::{BatchId, Incarnation, LinkId, NodeId, Position, Sequence, StoreId};
use crate::types::time::{Instant, WallMs};
use crate::wire::Hello;

/// Who a node is, and what it knows of others of its id.
#[derive(Debug)]
pub(super) struct NodeIdentity {
    /// The database.
    pub(super) store: StoreId,
    /// The start of this process.
    pub(super) incarnation: Incarnation,
    /// This node as an origin.
    pub(super) source: Source,
    /// Of the last message of this start.
    pub(super) sequence: Sequence,
    pub(super) began_at: WallMs,
    pub(super) phase: Phase,
    /// Whether this start is durable, or could not be made so: nobody is told anything before.
    pub(super) has_begun: bool,
    /// Peers that said Hello before that.
    pub(super) early: BTreeMap<LinkId, Hello>,
    /// With this batch, or one behind it, all is durable that is to be known of this start before a
    /// peer is told where the log ends.
    pub(super) durable_with: BatchId,
    /// Whether it is.
    pub(super) is_durable: bool,
    /// Links of which the peer is to be told that then, with what it had been told, and by which
    /// start.
    pub(super) unsaid: BTreeMap<LinkId, (Position, Incarnation)>,
    /// Nodes that are there twice, and when that was said last.
    pub(super) conflicts: BTreeMap<NodeId, Instant>,
}

/// Where the life of a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    ShuttingDown,
    Stopped,
    Halted,
}

impl NodeIdentity {
    /// A start of which nobody knows yet.
    pub(super) fn new(
        store: StoreId,
        incarnation: Incarnation,
        source: Source,
        began_at: WallMs,
    ) -> Self {
        Self {
            store,
            incarnation,
            source,
            sequence: Sequence::default(),
            began_at,
            phase: Phase::Running,
            has_begun: false,
            early: BTreeMap::new(),
            durable_with: BatchId::default(),
            is_durable: false,
            unsaid: BTreeMap::new(),
            conflicts: BTreeMap::new(),
        }
    }
}
