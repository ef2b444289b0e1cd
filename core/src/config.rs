//! What a node is told about itself: every limit and time-out that the core goes by.
//!
//! Reading a file, units and validation of what people write belong to the daemon; the defaults
//! are here, because the embedding API shares them. Sizes are in bytes.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::types::ids::NodeId;
use crate::types::tags::TagSet;

/// Configuration of one node.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's id, unique in the mesh.
    pub id: NodeId,
    /// This node's tags; applications that declare none have these.
    pub tags: TagSet,
    /// Cluster group (P10).
    pub cluster_group: Option<String>,
    /// URLs of the nodes to dial.
    pub peers: Vec<String>,
    /// Heartbeat of every link.
    pub heartbeat: Heartbeat,
    /// How dialling is repeated.
    pub reconnect: Reconnect,
    /// How unacknowledged deliveries are repeated (P13).
    pub retry: Retry,
    /// Who is sent what at once, and who is offered it.
    pub routing: Routing,
    /// What the store may hold, and for how long (P8).
    pub store: StoreLimits,
    /// Everything else that is bounded (P8).
    pub limits: Limits,
    /// Version of the product, for greetings.
    pub version: &'static str,
}

impl Config {
    /// The defaults for a node with this id.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            tags: TagSet::empty(),
            cluster_group: None,
            peers: Vec::new(),
            heartbeat: Heartbeat::default(),
            reconnect: Reconnect::default(),
            retry: Retry::default(),
            routing: Routing::default(),
            store: StoreLimits::default(),
            limits: Limits::default(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Heartbeat of a link. A shorter interval notices failures sooner and costs more small frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Time between pings. Default 10 s.
    pub interval: Duration,
    /// A link on which no bytes moved for this long is closed with 4408. Default 30 s.
    pub timeout: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(30) }
    }
}

/// Routing in the mesh (P5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// How long a node that will probably get a message from somebody else is given before it is
    /// offered. What would be due within half of it is offered along. Default 100 ms.
    pub offer_delay: Duration,
}

impl Default for Routing {
    fn default() -> Self {
        Self { offer_delay: Duration::from_millis(100) }
    }
}

/// Back-off of dialling, exponential with full jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// Upper bound of the first wait. Default 500 ms.
    pub initial: Duration,
    /// Upper bound of every wait. Default 30 s.
    pub max: Duration,
    /// Failed attempts in a row after which the peer is given up; 0: never. Default 0.
    pub max_attempts: u32,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { initial: Duration::from_millis(500), max: Duration::from_secs(30), max_attempts: 0 }
    }
}

/// Repetition of what was handed over and not acknowledged (P13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How long the first hand-over may stay unacknowledged. Default 5 s.
    pub ack_timeout: Duration,
    /// Upper bound of the doubling waits. Default 60 s.
    pub max_backoff: Duration,
    /// Hand-overs, the first included, before a dead letter. Default 10.
    pub max_attempts: u32,
    /// Second and later hand-overs a second and session. Default 1000.
    pub max_rate: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(5),
            max_backoff: Duration::from_secs(60),
            max_attempts: 10,
            max_rate: 1000,
        }
    }
}

/// How far a receipt is to be trusted (P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Every receipt follows a sync to disk.
    Full,
    /// Receipts follow the write only: a power cut may take what was acknowledged.
    Normal,
}

/// Bounds of the store (P8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLimits {
    /// Whether receipts wait for the disk. Default full.
    pub durability: Durability,
    /// Publishers are refused here, peers and replays at 5/4 of it. Default 10 GiB.
    pub max_bytes: u64,
    /// Bound of one session's dead letters, and of an unnamed application's lag. Default 1 GiB.
    pub session_max_bytes: u64,
    /// Settled messages that are kept. Default 256 MiB.
    pub history_max_bytes: u64,
    /// Time to live of an event that names none. Default 24 h.
    pub event_ttl: Duration,
    /// How long a delete is remembered. Default 30 days.
    pub tombstone_ttl: Duration,
    /// How long an absent session is kept. Default 30 days.
    pub session_ttl: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIB: u64 = 1 << 20;

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            max_bytes: 10 << 30,
            session_max_bytes: 1 << 30,
            history_max_bytes: 256 * MIB,
            event_ttl: DAY,
            tombstone_ttl: 30 * DAY,
            session_ttl: 30 * DAY,
        }
    }
}

/// Bounds of everything else (P8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest value; a frame may be four times as large. Default 1 MiB.
    pub max_message_bytes: usize,
    /// Longest key. Default 1024.
    pub max_key_bytes: usize,
    /// Target tags of a message, and tags of a node or application. Default 32.
    pub max_tags: usize,
    /// Nesting of a JSON value. Default 64.
    pub max_json_depth: usize,
    /// Nodes of the mesh, and so of a path. Default 1024.
    pub max_nodes: usize,
    /// Applications at one time. Peers are not counted: `max_nodes` bounds those. Default 10,000.
    pub max_connections: usize,
    /// Bytes that applications have been sent and their sockets have not taken, all together; never
    /// below one frame of the largest size and 256 KiB. Peers are not counted: each has 2 MiB at
    /// most. Default 256 MiB: a thousand consumers that have stopped to read.
    pub connections_max_bytes: usize,
    /// Sessions of named applications. Default 10,000.
    pub max_sessions: usize,
    /// Deliveries that an application may leave unacknowledged. Default 256.
    pub delivery_window: usize,
    /// Messages a second and session that may be published; 0: no limit. Default 0.
    pub publish_rate: u32,
    /// How far a version may be ahead of this node's clock. Default 60 s.
    pub max_clock_drift: Duration,
    /// For TCP, upgrade and greeting together. Default 5 s.
    pub handshake_timeout: Duration,
    /// Message ids remembered per session (P9). Default 65,536.
    pub idempotency_ids: usize,
    /// Memory for all of them (P9). Default 64 MiB.
    pub idempotency_max_bytes: usize,
}

impl Limits {
    /// Largest frame that a link may carry: four times the largest value.
    pub fn max_frame_bytes(&self) -> usize {
        self.max_message_bytes.saturating_mul(4)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: MIB as usize,
            max_key_bytes: 1024,
            max_tags: 32,
            max_json_depth: 64,
            max_nodes: 1024,
            max_connections: 10_000,
            connections_max_bytes: 256 * MIB as usize,
            max_sessions: 10_000,
            delivery_window: 256,
            publish_rate: 0,
            max_clock_drift: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(5),
            idempotency_ids: 65_536,
            idempotency_max_bytes: 64 * MIB as usize,
        }
    }
}
