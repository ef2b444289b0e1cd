//! What a node tells its operator: one variant per thing that can happen, with its level.
//!
//! Events hold names, numbers and reasons, never values or tokens (P11).

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::types::clock::ClockFault;
use crate::types::close::{Close, CloseCode};
use crate::types::ids::{DeadLetterId, Incarnation, LinkId, NodeId, Position, StoreId};

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A single message.
    Debug,
    /// A change of state.
    Info,
    /// Someone should look.
    Warn,
    /// Something is broken.
    Error,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node has begun.
    Started {
        /// Its id.
        node: NodeId,
        /// This start.
        incarnation: Incarnation,
        /// Its database.
        store: StoreId,
        /// The end of its log.
        head: Position,
    },
    /// Receipts do not stand for a sync to disk.
    NotSynced,
    /// A link to a peer is of use.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// The connection.
        link: LinkId,
        /// The other end.
        remote: String,
        /// Whether that node syncs before it acknowledges.
        synced: bool,
    },
    /// A link to a peer is gone.
    PeerDown {
        /// The peer.
        peer: NodeId,
        /// The connection.
        link: LinkId,
        /// Why.
        reason: String,
    },
    /// A node of the mesh can be reached, over however many links.
    NodeReached {
        /// The node.
        node: NodeId,
    },
    /// A node of the mesh cannot be reached any more.
    NodeLost {
        /// The node.
        node: NodeId,
    },
    /// A peer could not be reached.
    DialFailed {
        /// Where.
        url: String,
        /// Why.
        reason: String,
        /// When it is tried again; `None`: given up.
        retry_in: Option<Duration>,
    },
    /// A configured peer is this node itself; it is not dialled again until the next reload.
    SelfDial {
        /// Where.
        url: String,
    },
    /// A configured peer has another link already; it is not dialled while that lasts.
    DialCovered {
        /// Where.
        url: String,
        /// The node that is there.
        peer: NodeId,
    },
    /// Two processes run, or have run, under the id of one node: on copies of its database, or with
    /// databases of their own.
    IdentityConflict {
        /// The id.
        node: NodeId,
        /// What it was noticed by.
        heard: String,
    },
    /// A peer came back with another database: everything is offered to it again.
    PeerLostStore {
        /// The peer.
        peer: NodeId,
    },
    /// A peer came back with an older copy of its database: everything is offered to it again.
    PeerStoreWentBack {
        /// The peer.
        peer: NodeId,
    },
    /// A peer holds something else than this node, though nothing is on its way: everything is
    /// offered to it again.
    DigestsDiffer {
        /// The peer.
        peer: NodeId,
        /// In so many tag sets, at least.
        tag_sets: usize,
    },
    /// This node's database is older than what it had told a peer before.
    StoreWentBack {
        /// The peer that remembers.
        peer: NodeId,
        /// The end of the log that it was told.
        told: Position,
        /// The end of the log at the start.
        holds: Position,
    },
    /// An application is connected.
    ApplicationUp {
        /// The connection.
        link: LinkId,
        /// Its name, if it has one.
        client: Option<String>,
        /// The other end.
        remote: String,
    },
    /// An application is gone.
    ApplicationDown {
        /// The connection.
        link: LinkId,
        /// Its name, if it has one.
        client: Option<String>,
        /// Why.
        reason: String,
    },
    /// This node closes a link.
    Closing {
        /// The connection.
        link: LinkId,
        /// Why.
        close: Close,
    },
    /// A frame of an application was answered with an error.
    Rejected {
        /// The connection.
        link: LinkId,
        /// The stable code.
        code: &'static str,
    },
    /// A session has ended for good.
    SessionEnded {
        /// Its name.
        session: String,
        /// Why.
        reason: String,
        /// Rows of the log that it had not settled, at most, and its dead letters.
        owed: u64,
    },
    /// A message became a dead letter.
    DeadLetter {
        /// The session.
        session: String,
        /// The `messageId`.
        message: String,
        /// Why.
        reason: &'static str,
    },
    /// The ACK of a dead letter came late: it is settled.
    DeadLetterTakenBack {
        /// The session.
        session: String,
        /// The letter.
        letter: DeadLetterId,
    },
    /// An outbox is above its bound: of what waits in it only the newest value of each key, and
    /// every event, will be handed over.
    Conflating {
        /// The session.
        session: String,
        /// What waits, dead letters included, at most.
        bytes: u64,
    },
    /// The store has no room: publishers are refused.
    StoreFull {
        /// What the store said.
        reason: String,
    },
    /// The store has room again.
    StoreHasRoom,
    /// The clock cannot be trusted: publishers are refused.
    ClockFault(ClockFault),
    /// The clock is sound again.
    ClockSound,
    /// An operator has said that the clock is right.
    ClockReset {
        /// Values that were published again with a version of now.
        restamped: u64,
        /// How far the clock's high-water mark went down, in milliseconds.
        lowered_ms: u64,
    },
    /// A peer's messages are refused for now, because their versions are too far ahead.
    VersionAhead {
        /// The peer.
        peer: NodeId,
        /// How far, in milliseconds.
        ahead_ms: u64,
    },
    /// Shutting down began.
    ShuttingDown,
    /// Shutting down took its time, and not everyone could be told.
    NotAllTold,
}

impl Event {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Rejected { .. } => Level::Debug,
            // What it means is said by another event: of the session, the peer or the dialler.
            Self::Closing { close: Close { code: CloseCode::Duplicate, .. }, .. } => Level::Debug,
            Self::Started { .. }
            | Self::PeerUp { .. }
            | Self::PeerDown { .. }
            | Self::NodeReached { .. }
            | Self::NodeLost { .. }
            | Self::DialFailed { .. }
            | Self::SelfDial { .. }
            | Self::DialCovered { .. }
            | Self::ApplicationUp { .. }
            | Self::ApplicationDown { .. }
            | Self::Closing { .. }
            | Self::SessionEnded { .. }
            | Self::DeadLetterTakenBack { .. }
            | Self::Conflating { .. }
            | Self::StoreHasRoom
            | Self::ClockSound
            | Self::ShuttingDown => Level::Info,
            Self::NotSynced
            | Self::PeerLostStore { .. }
            | Self::PeerStoreWentBack { .. }
            | Self::DigestsDiffer { .. }
            | Self::DeadLetter { .. }
            | Self::ClockReset { .. }
            | Self::VersionAhead { .. }
            | Self::NotAllTold => Level::Warn,
            Self::IdentityConflict { .. }
            | Self::StoreFull { .. }
            | Self::StoreWentBack { .. }
            | Self::ClockFault(_) => Level::Error,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { node, incarnation, store, head } => {
                write!(f, "node {node} started: incarnation {incarnation}, store {store}, ")?;
                write!(f, "log up to {head}")
            }
            Self::NotSynced => f.write_str(
                "store.durability is \"normal\": a power cut may lose what was acknowledged",
            ),
            Self::PeerUp { peer, link, remote, synced } => {
                write!(f, "peer {peer} is up on link {link} ({remote})")?;
                if *synced { Ok(()) } else { f.write_str("; it does not sync its receipts") }
            }
            Self::PeerDown { peer, link, reason } => {
                write!(f, "peer {peer} is down, link {link}: {reason}")
            }
            Self::NodeReached { node } => write!(f, "node {node} is in reach"),
            Self::NodeLost { node } => write!(f, "node {node} is out of reach"),
            Self::DialFailed { url, reason, retry_in: Some(wait) } => {
                write!(f, "cannot reach {url}: {reason}; next try in {} ms", wait.as_millis())
            }
            Self::DialFailed { url, reason, retry_in: None } => {
                write!(f, "cannot reach {url}: {reason}; given up (reconnect.max_attempts)")
            }
            Self::SelfDial { url } => {
                write!(f, "peer {url} is this node itself: not dialled again until a reload")
            }
            Self::DialCovered { url, peer } => {
                write!(f, "peer {url} is {peer}, which is linked already: not dialled meanwhile")
            }
            Self::IdentityConflict { node, heard } => {
                write!(
                    f,
                    "node {node} is there twice, or was: {heard}. Stop one of the two, and "
                )?;
                f.write_str("give it another node.id and an empty data_dir if it is to run again")
            }
            Self::PeerLostStore { peer } => {
                write!(f, "peer {peer} has a new database: offering it everything again")
            }
            Self::PeerStoreWentBack { peer } => {
                write!(f, "peer {peer} has an older database: offering it everything again")
            }
            Self::DigestsDiffer { peer, tag_sets } => write!(
                f,
                "peer {peer} holds something else than this node in {tag_sets} tag sets: offering \
                 it everything again; `slipstream diff` names the keys"
            ),
            Self::StoreWentBack { peer, told, holds } => {
                write!(
                    f,
                    "this database is an older copy: {peer} was told of a log up to {told}, "
                )?;
                write!(
                    f,
                    "it began at {holds}. The peers offer everything again; what only this "
                )?;
                f.write_str("disk held is gone")
            }
            Self::ApplicationUp { link, client, remote } => {
                write!(f, "application {} connected, link {link} ({remote})", name(client))
            }
            Self::ApplicationDown { link, client, reason } => {
                write!(f, "application {} is gone, link {link}: {reason}", name(client))
            }
            Self::Closing { link, close } => {
                write!(f, "closing link {link}: {} {}", close.code.number(), close.reason)
            }
            Self::Rejected { link, code } => write!(f, "link {link}: answered with {code}"),
            Self::SessionEnded { session, reason, owed } => {
                write!(
                    f,
                    "session {session} has ended ({reason}); it was owed up to {owed} messages"
                )
            }
            Self::DeadLetter { session, message, reason } => {
                write!(f, "message {message} became a dead letter of {session}: {reason}")
            }
            Self::DeadLetterTakenBack { session, letter } => {
                write!(f, "dead letter {letter} of {session} was acknowledged late: it is settled")
            }
            Self::Conflating { session, bytes } => write!(
                f,
                "{session} lags {bytes} bytes behind, more than store.session_max_bytes: it will \
                 be handed every event, and only the newest value of each key"
            ),
            Self::StoreFull { reason } => {
                write!(f, "publishers are refused, there is no room: {reason}; make room on the ")?;
                f.write_str("disk, purge dead letters, forget sessions, or raise store.max_bytes")
            }
            Self::StoreHasRoom => f.write_str("the store has room again"),
            Self::ClockFault(fault) => write!(f, "publishers are refused: {fault}"),
            Self::ClockReset { restamped, lowered_ms } => write!(
                f,
                "the clock was reset by order: {lowered_ms} ms that lay ahead are forgotten, and \
                 {restamped} values from there are published again with a version of now"
            ),
            Self::ClockSound => f.write_str("the clock can be trusted again"),
            Self::VersionAhead { peer, ahead_ms } => {
                write!(f, "messages from {peer} are {ahead_ms} ms ahead of this clock: refused ")?;
                f.write_str("for now; compare the clocks of the two nodes")
            }
            Self::ShuttingDown => f.write_str("shutting down"),
            Self::NotAllTold => f.write_str("not everyone could be told of the end in time"),
        }
    }
}

fn name(client: &Option<String>) -> &str {
    client.as_deref().unwrap_or("without a name")
}
