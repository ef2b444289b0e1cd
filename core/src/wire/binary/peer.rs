//! Records of the frames between nodes, besides messages and what names them.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::WireError;
use crate::config::Durability;
use crate::types::ids::{Incarnation, Position, StoreId};
use crate::types::print::Print;
use crate::types::tags::{self, TagSet};
use crate::types::time::WallMs;
use crate::wire::message::Message;

/// What a node says of itself when a link opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Highest protocol version that it speaks.
    pub protocol: u16,
    /// Node id.
    pub node: String,
    /// Its database.
    pub store: StoreId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Cluster group; empty without one.
    pub group: String,
    /// Its tags in canonical form, as many as fit ([`Hello::told_tags`]).
    pub tags: String,
    /// Its wall clock.
    pub wall: WallMs,
    /// Whether it syncs before it acknowledges.
    pub durability: Durability,
    /// Bits for what later versions add; unknown ones are ignored.
    pub features: u64,
    /// Largest value that it takes.
    pub max_message_bytes: u64,
    /// Largest frame that it takes.
    pub max_frame_bytes: u64,
    /// Highest log position of the *receiver's* store that the receiver has reported to it.
    pub reported: Position,
    /// The receiver's start at that report.
    pub reported_incarnation: Incarnation,
}

/// Most bytes of the tags in a Hello: half the smallest frame that a node takes.
const HELLO_TAGS_BYTES: usize = 2048;

impl Hello {
    /// As many of these tags as it takes: nobody relies on them, and no peer may refuse it.
    pub fn told_tags(tags: &TagSet) -> String {
        let mut bytes = 0;
        let fits = |tag: &&str| {
            bytes += tag.len() + 1;
            bytes <= HELLO_TAGS_BYTES
        };
        tags::join(tags.iter().take_while(fits))
    }
}

/// Cumulative acknowledgement between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Messages of this link up to and with this number are durable here, or were refused by a
    /// [`NotNow`] that came before.
    pub upto: u64,
    /// End of the durable log here, or [`Ack::OF_ANOTHER_COPY`].
    pub position: Position,
    /// Wall clock here.
    pub wall: WallMs,
}

impl Ack {
    /// What `position` says where another copy of the store has told the peer of its log: nothing
    /// of that is here.
    pub const OF_ANOTHER_COPY: Position = Position::new(u64::MAX);

    /// The end of the log, and whether another copy had told of it.
    pub fn log_end(&self) -> (Position, bool) {
        let of_another = self.position == Self::OF_ANOTHER_COPY;
        (if of_another { Position::default() } else { self.position }, of_another)
    }
}

/// Refusal for now, between nodes: the messages stay owed, and no attempt is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotNow {
    /// First number refused.
    pub first: u64,
    /// Last number refused.
    pub last: u64,
    /// Why.
    pub reason: NotNowReason,
}

/// Bit of [`Hello::features`]: it compares digests.
pub const FEATURE_DIGESTS: u64 = 1;

/// Bit of [`Hello::features`]: it says, and is told, how long events have left.
pub const FEATURE_ENDS: u64 = 2;

/// Bit of [`Hello::features`] that is about the link instead of the node: the sender has another
/// link to the peer and closes this one next. The peer learns who is here, and must not give up
/// another link for this one (P13).
pub const LINK_IS_SURPLUS: u64 = 4;

/// What begins [`Wire::Timed`](super::Wire::Timed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedHead {
    /// What the sender's monotonic clock said when it wrote this, milliseconds: by it the receiver
    /// knows how long a batch has waited on its way.
    pub sent_ms: u64,
}

/// What precedes each message in [`Wire::Timed`](super::Wire::Timed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// How long an event has left at the time of the head, milliseconds; 0 for state, and for what
    /// is over.
    pub ms: u64,
}

impl Left {
    /// Most bytes that it and the head add to a frame.
    pub const MAX_BYTES: usize = 20;
}

/// The head and the messages of [`Wire::Timed`](super::Wire::Timed).
///
/// # Errors
/// [`WireError::Malformed`] if the batch is not made of them up to its end.
pub fn timed(batch: &Bytes) -> Result<(TimedHead, Vec<(Left, Message)>), WireError> {
    let malformed = WireError::Malformed(super::TIMED);
    let after = |rest: &[u8]| batch.slice(batch.len() - rest.len()..);
    let (head, rest) = postcard::take_from_bytes(batch).map_err(|_| malformed)?;
    let (mut rest, mut messages) = (after(rest), Vec::new());
    while !rest.is_empty() {
        let (left, message) = postcard::take_from_bytes::<Left>(&rest).map_err(|_| malformed)?;
        let (message, left_over) = Message::decode(&after(message)).map_err(|_| malformed)?;
        messages.push((left, message));
        rest = left_over;
    }
    Ok((head, messages))
}

/// What begins a claim of digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestsHead {
    /// Whether all tag sets that are for both nodes, and hold anything, follow.
    pub whole: bool,
}

/// The digest of a tag set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagSetDigest {
    /// The tag set, by [`Print::of_tags`].
    pub tags: u64,
    /// What stands for its live state.
    pub print: Print,
}

impl TagSetDigest {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 20;
}

/// The records of [`Wire::Digests`](super::Wire::Digests).
///
/// # Errors
/// [`WireError::Malformed`] if the batch is not made of a head and digests up to its end.
pub fn digests(batch: &[u8]) -> Result<(DigestsHead, Vec<TagSetDigest>), WireError> {
    let malformed = WireError::Malformed(super::DIGESTS);
    let (head, rest) = postcard::take_from_bytes(batch).map_err(|_| malformed)?;
    Ok((head, super::records(rest).map_err(|_| malformed)?))
}

/// Why a node does not take messages now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotNowReason {
    /// Its store is full.
    StoreFull,
    /// Their versions are too far ahead of its clock.
    Clock,
    /// It is shutting down.
    ShuttingDown,
}
