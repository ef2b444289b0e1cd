//! What operators ask a node, and what it answers: the data behind the admin endpoint.
//!
//! The types serialise to the JSON that the endpoint shows; field names are fixed once released.

pub mod event;
pub(crate) mod metrics;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use crate::store::digest::{DigestQuery, Digests};
use crate::store::{DeadLetter, ListedLetter, StoreFailure, Usage};
use crate::types::clock::{ClockFault, OffFromPeers};
use crate::types::ids::{DeadLetterId, NodeId, Position, SessionId, StoreId};
use crate::types::tags::TagSet;

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRequest {
    /// The whole state in figures.
    Status,
    /// Where messages with this `messageId` are.
    Where {
        /// The `messageId`.
        id: String,
        /// Start behind this position.
        after: Position,
    },
    /// Dead letters behind this number, at most so many; fewer where they are large.
    DeadLetters {
        /// Start behind this number.
        after: DeadLetterId,
        /// At most so many.
        limit: usize,
    },
    /// The same without long values.
    DeadLetterList {
        /// Start behind this number.
        after: DeadLetterId,
        /// At most so many.
        limit: usize,
    },
    /// Hand a dead letter to its session again. One of the node itself is offered to everybody whom
    /// it targets, with a new time to live.
    ReplayDeadLetter(DeadLetterId),
    /// Delete a dead letter.
    PurgeDeadLetter(DeadLetterId),
    /// End a session, named `peer:NAME` or `app:NAME`, or just `NAME`.
    ForgetSession(String),
    /// Digests of the live state.
    Digests(DigestQuery),
    /// The wall clock is right: doubt about it ends, and what is further ahead of it than any node
    /// takes is published again with a version of now.
    ResetClock,
}

/// What came of it. Orders are answered when they are durable.
#[derive(Debug, Clone)]
pub enum AdminAnswer {
    /// To [`AdminRequest::Status`].
    Status(Box<Status>),
    /// To [`AdminRequest::Where`].
    Where {
        /// In the order of the log, then those that are only dead letters any more.
        found: Vec<Whereabouts>,
        /// Where to go on; `None` at the end.
        next: Option<Position>,
    },
    /// To [`AdminRequest::DeadLetters`]: each with its session's name; `node`: the node's own.
    DeadLetters(Vec<(String, DeadLetter)>),
    /// To [`AdminRequest::DeadLetterList`]: likewise, and where to go on; `None` at the end.
    DeadLetterList(Vec<(String, ListedLetter)>, Option<DeadLetterId>),
    /// To [`AdminRequest::Digests`].
    Digests(Box<DigestsHere>),
    /// To [`AdminRequest::ResetClock`].
    ClockReset {
        /// So many values were published again.
        restamped: u64,
        /// By so much the clock's high-water mark went down, in milliseconds.
        lowered_ms: u64,
        /// What is wrong all the same: a little of what is ahead was within what nodes take.
        fault: Option<ClockFault>,
    },
    /// The order is carried out.
    Done,
    /// There is nothing of that name or number.
    NotFound,
    /// It cannot be done now.
    Refused(AdminRefusal),
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminRefusal {
    /// The session is in use.
    #[error("session {0} is connected; disconnect it first")]
    Connected(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// Most peers say that the wall clock is wrong.
    #[error(transparent)]
    OffFromPeers(#[from] OffFromPeers),
    /// The clock came into doubt while it was reset.
    #[error(transparent)]
    Clock(#[from] ClockFault),
    /// The node is ending.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Digests, and who holds what they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestsHere {
    /// Id of the node.
    pub node: NodeId,
    /// Tags of the node and of its applications: what targets one of them, or nobody, is for it.
    pub tags: TagSet,
    /// End of the log when they were told.
    pub head: Position,
    /// The digests; never [`Digests::Behind`].
    pub digests: Digests,
}

/// The state of a node.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Id of the node.
    pub node: NodeId,
    /// Version of the product.
    pub version: &'static str,
    /// Tags of the node.
    pub tags: TagSet,
    /// Cluster group.
    pub cluster_group: Option<String>,
    /// Number of this start.
    pub incarnation: u64,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Whether receipts stand for a sync to disk: `full` or `normal`.
    pub durability: crate::config::Durability,
    /// Why publishers are refused now, if they are.
    pub refusing: Option<String>,
    /// Set while shutting down.
    pub shutting_down: bool,
    /// Every link, and every peer that is wanted and not linked.
    pub links: Vec<LinkStatus>,
    /// Every session.
    pub sessions: Vec<SessionStatus>,
    /// Dead letters of the node itself, by reason: events that were handed on to nobody.
    pub dead_letters: BTreeMap<&'static str, u64>,
    /// Every node of the mesh that this one has heard of.
    pub topology: Vec<NodeStatus>,
    /// The store.
    pub store: StoreStatus,
    /// Counters since the start.
    pub counters: Counters,
}

/// A node of the mesh, by what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Its id.
    pub node: String,
    /// Tags of the node and of its applications.
    pub tags: Vec<String>,
    /// Whether it has more tags than it tells, and is sent what targets any.
    pub any_tag: bool,
    /// Peers to which it has a link.
    pub links: Vec<String>,
    /// Whether there is a way to it now, over links that both of their ends name.
    pub reachable: bool,
}

/// State of a configured peer that is this node itself.
pub const SELF: &str = "this node itself";
/// State of a configured peer that is not dialled, because the node there has another link.
pub const COVERED: &str = "covered by its own link";

impl LinkStatus {
    /// Whether a node is wanted here and may be missing: neither an application, nor this node
    /// itself, nor whoever has connected and not said who it is.
    pub fn is_of_peer(&self) -> bool {
        let is_nobody = self.state == SELF || (self.state == "handshake" && !self.dialed);
        self.role == "peer" && !is_nobody
    }
}

/// One link, or a peer without one.
#[derive(Debug, Clone, Serialize)]
pub struct LinkStatus {
    /// Number of the connection; `None` while there is none.
    pub link: Option<u64>,
    /// `peer` or `app`.
    pub role: &'static str,
    /// Node id of a peer (`host:port` or URL before its first Hello), or name of an application.
    pub name: Option<String>,
    /// The other end, or the URL to dial.
    pub remote: String,
    /// `up`, `handshake`, `dialing`, `waiting`, `stopped` (given up), [`SELF`] or [`COVERED`].
    pub state: &'static str,
    /// Whether this node dialled.
    pub dialed: bool,
    /// `json` or `postcard`.
    pub protocol: &'static str,
    /// Last round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// How far the peer's clock is ahead, milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Bytes received on this link.
    pub received_bytes: u64,
    /// Bytes sent on this link.
    pub sent_bytes: u64,
    /// Milliseconds since the link came up.
    pub up_ms: Option<u64>,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// Whether the peer syncs before it acknowledges.
    pub durability: Option<crate::config::Durability>,
}

/// One session.
#[derive(Debug, Clone, Serialize)]
pub struct SessionStatus {
    /// Number of the session; 0 for an unnamed application.
    pub id: u64,
    /// `peer:NAME`, `app:NAME`, or `link:N` for an unnamed application.
    pub name: String,
    /// `peer` or `app`.
    pub role: &'static str,
    /// Whether a link serves it.
    pub connected: bool,
    /// Of a peer to which an entry of the configuration leads, or has led: `configured`, or `no
    /// longer configured`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<&'static str>,
    /// Tags it receives by; `None`: those of the node.
    pub tags: Option<TagSet>,
    /// Everything at or below this position is settled.
    pub cursor: u64,
    /// Handed over and not acknowledged.
    pub in_flight: usize,
    /// Rows behind what was looked at for it, at most so many are owed; with `in_flight`: the
    /// outbox.
    pub behind: u64,
    /// Bytes of the log not looked at for it, at most.
    pub behind_bytes: u64,
    /// Age of the oldest unsettled message, milliseconds.
    pub oldest_ms: u64,
    /// Messages handed over since the start.
    pub delivered_total: u64,
    /// Second and later hand-overs since the start.
    pub retransmits_total: u64,
    /// Values left out since the start, because newer ones of their keys have taken their place.
    pub conflated_total: u64,
    /// Whether it is handed only the newest value of each key now: its outbox was above its bound,
    /// or its application asked for it and lagged.
    pub conflating: bool,
    /// Dead letters, by reason.
    pub dead_letters: BTreeMap<&'static str, u64>,
    /// Milliseconds since it was last connected; 0 while it is.
    pub away_ms: u64,
    /// Of a peer: milliseconds since it is last known to have held what this node holds, of what
    /// is for both (P6). 0 while there is a link, nothing is owed to it, and its digests, when they
    /// were compared last, did not differ for longer than it takes to send what is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// Of a peer: what came of comparing digests on this link: `equal` (and nothing was written
    /// here since), `differ`, or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digests: Option<&'static str>,
}

/// The store in figures.
#[derive(Debug, Clone, Serialize)]
pub struct StoreStatus {
    /// Id of the database.
    #[serde(serialize_with = "as_text")]
    pub store_id: StoreId,
    /// Last position given.
    pub head: Position,
    /// Room taken.
    #[serde(flatten)]
    pub usage: Usage,
    /// Where publishers are refused.
    pub max_bytes: u64,
    /// Memory of the seen-set, bytes.
    pub seen_bytes: usize,
    /// Message ids remembered (P9).
    pub idempotency_ids: usize,
    /// Memory for them, bytes.
    pub idempotency_bytes: usize,
}

fn as_text<S: serde::Serializer>(
    value: &impl core::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What a node has counted since its start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counters {
    /// Messages accepted into the log, by kind and origin node.
    pub processed: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Messages offered instead of being sent, by peer.
    pub offers: BTreeMap<String, u64>,
    /// Messages sent, by peer and mode (`eager`, `pulled`, `retry`).
    pub sent: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Deliveries, by session as metrics name it.
    pub delivered: BTreeMap<String, u64>,
    /// Second and later hand-overs, by session as metrics name it.
    pub retransmits: BTreeMap<String, u64>,
    /// Values left out for newer ones of their keys, by session as metrics name it.
    pub conflated: BTreeMap<String, u64>,
    /// Dead letters that were acknowledged after all, by session as metrics name it.
    pub taken_back: BTreeMap<String, u64>,
    /// Copies that were dropped, by stage: `seen` (another route), `idempotent` (published again).
    pub duplicates: BTreeMap<&'static str, u64>,
    /// Messages that came back to a node on their path.
    pub loops_prevented: u64,
    /// State messages that a newer one had overtaken.
    pub superseded: u64,
    /// Refusals, by code.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Events that ended by their time to live.
    pub expired: u64,
    /// Sessions set back, by reason.
    pub rewinds: BTreeMap<&'static str, u64>,
    /// Messages refused because of their version, by peer.
    pub clock_refused: BTreeMap<String, u64>,
    /// Links lost, by peer and reason.
    pub reconnects: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Bytes by peer, received and sent.
    pub peer_bytes: BTreeMap<String, (u64, u64)>,
    /// Inputs for links that were gone already.
    pub stale_inputs: u64,
    /// What unnamed applications missed because they lagged too far.
    pub missed: u64,
    /// Signs of a second process under the id of a node: on a copy of its database, or on another.
    pub identity_conflicts: u64,
}

/// The fate of one message at this node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Whereabouts {
    /// Its `messageId`.
    pub message_id: String,
    /// Kind.
    pub kind: &'static str,
    /// Key.
    pub key: String,
    /// The node that accepted it.
    pub origin_instance_id: String,
    /// The nodes it visited to get here.
    pub message_path: Vec<String>,
    /// Target tags.
    pub targeted_tags: Vec<String>,
    /// Its version, as applications see it.
    pub version: String,
    /// Place in this node's log.
    pub position: Position,
    /// Whether a newer value of its key has taken its place.
    pub superseded: bool,
    /// Whether its time to live is over.
    pub expired: bool,
    /// What became of it, per session.
    pub sessions: Vec<SessionFate>,
}

/// What became of a message for one session.
#[derive(Debug, Clone, Serialize)]
pub struct SessionFate {
    /// The session's name.
    pub session: String,
    /// Its number.
    #[serde(skip)]
    pub id: SessionId,
    /// `settled`, `in_flight`, `pending`, `not_for_it`, `on_its_path`, `own` or `dead_letter`.
    pub fate: &'static str,
    /// Hand-overs so far, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}
