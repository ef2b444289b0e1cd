//! Binary frames, between nodes and to applications that speak `slipstream.postcard.v1`.
//!
//! A frame is one byte that says what it is, the postcard encoding of one record or of several,
//! one behind the other up to the end: no count can lie; and the first [`CHECKSUM_BYTES`] bytes of
//! the BLAKE3 hash of all that. The checksum of TCP lets one damaged segment in 65,536 pass, and
//! an acknowledgement with a turned bit would lose messages (P2). Records hold integers and strings
//! only. Numbers of frames and enum variants are append-only.
//!
//! The side that dialled speaks first: a node with [`Wire::Hello`], answered by the same; an
//! application with [`Wire::Connect`], answered by [`Wire::Welcome`].

mod peer;
mod read;
mod welcome;

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use self::OutcomeRecord as Outcome;
use crate::config::Durability;
use crate::types::clock::Hlc;
use crate::types::ids::Position;
use crate::wire::message::{Appender, Kind, Message};
pub use peer::{
    Ack, DigestsHead, FEATURE_DIGESTS, FEATURE_ENDS, Hello, LINK_IS_SURPLUS, Left, NotNow,
    NotNowReason, TagSetDigest, TimedHead, digests, timed,
};
pub use read::{Read, ReadResult, ReadValue};
pub use welcome::Welcome;

/// Version of the binary protocol that this code speaks. Nodes agree on the lower of the two.
pub const PROTOCOL_VERSION: u16 = 1;

/// The same towards applications. Since version 2 their greeting says what is in force.
pub const APPLICATION_PROTOCOL_VERSION: u16 = 2;

/// Bytes of the checksum at the end of a frame.
pub const CHECKSUM_BYTES: usize = 4;
/// What a frame takes besides its records: the byte that says what it is, and the checksum.
pub const FRAME_OVERHEAD: usize = 1 + CHECKSUM_BYTES;

/// A binary frame, its batches still encoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Wire {
    /// First frame of a node, both ways.
    Hello(Hello),
    /// Node to node: messages, one [`Message`] behind the other. Each takes the next number of
    /// the link, from 1.
    Messages(Bytes),
    /// Node to node: what is durable here.
    Ack(Ack),
    /// Node to node: these are refused for now.
    NotNow(NotNow),
    /// First frame of an application.
    Connect(Connect),
    /// Answer to [`Wire::Connect`].
    Welcome(Welcome),
    /// Application to node: [`Publish`] records.
    Publish(Bytes),
    /// Node to application: [`OutcomeRecord`] records, in the order of the published messages.
    Outcomes(Bytes),
    /// Node to application: a [`DeliveryHead`] and a [`Message`], repeated.
    Deliveries(Bytes),
    /// Node to application: all that was in the log at the welcome has been handed over.
    Synced,
    /// Application to node: [`Settle`] records.
    Settle(Bytes),
    /// Node to application: before the next delivery so many values were left out, because newer
    /// ones of their keys have taken their place (P8).
    Conflated(u64),
    /// Node to node: [`NodeRecord`](crate::mesh::topology::NodeRecord)s, each of some node of the
    /// mesh.
    Topology(Bytes),
    /// Node to node: identities ([`crate::session::offer`]) of messages that are durable here.
    Have(Bytes),
    /// Node to node: these of the messages that were offered are asked for.
    Want(Bytes),
    /// Node to node: these of the messages that were offered are durable here, too.
    Seen(Bytes),
    /// Node to node: these of the messages that were asked for are no longer here, because
    /// something newer is.
    Gone(Bytes),
    /// Node to node: what its live state adds up to, a [`DigestsHead`] and [`TagSetDigest`]s; only
    /// to who has [`FEATURE_DIGESTS`].
    Digests(Bytes),
    /// Application to node: [`Read`] records.
    Reads(Bytes),
    /// Node to application: [`ReadResult`] records, in the order of the reads.
    Results(Bytes),
    /// Node to node: a [`TimedHead`], and a [`Left`] and a [`Message`], repeated; in place of
    /// [`Wire::Messages`] to who has [`FEATURE_ENDS`]. Without messages it tells the clock alone.
    Timed(Bytes),
}

/// First frame of an application. What it wants is in the query string of the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Highest protocol version that it speaks.
    pub protocol: u16,
}

/// A message to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish<'a> {
    /// What it does.
    pub kind: Kind,
    /// `messageId`; empty: the node gives one.
    pub id: &'a str,
    /// The key.
    pub key: &'a str,
    /// Target tags, comma-joined in any order.
    pub tags: &'a str,
    /// Time to live of an event in milliseconds; 0: the node's default.
    pub ttl_ms: u64,
    /// One JSON value.
    pub body: &'a str,
}

/// What became of a published message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutcomeRecord<'a> {
    /// It is in the node's store.
    Receipt {
        /// `messageId`.
        id: &'a str,
        /// Its version's clock part.
        version: Hlc,
        /// Whether this is the receipt of an earlier publish (P9).
        duplicate: bool,
        /// What the receipt stands for.
        level: Durability,
    },
    /// It was refused, or a frame was.
    Error {
        /// `messageId`, where one could be read.
        id: Option<&'a str>,
        /// Ordinal of the frame on this link, from 1.
        frame: u64,
        /// Stable code.
        code: &'a str,
        /// Whether trying again can help.
        retryable: bool,
        /// When, in milliseconds; 0: unknown.
        retry_after_ms: u64,
        /// For people.
        message: &'a str,
    },
}

/// What precedes each message in [`Wire::Deliveries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryHead {
    /// Grows within the session and may skip.
    pub delivery: Position,
    /// How often it was handed over before.
    pub redelivery: u32,
}

/// What an application says of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settle<'a> {
    /// Done with this one.
    Ack(Position),
    /// Done with this one and all before it.
    AckUpTo(Position),
    /// Done with the oldest outstanding one of this `messageId`.
    AckId(&'a str),
    /// Hand it over again, later.
    Retry {
        /// Which.
        delivery: Position,
        /// Why.
        reason: &'a str,
    },
    /// Make it a dead letter.
    Reject {
        /// Which.
        delivery: Position,
        /// Why.
        reason: &'a str,
    },
}

/// A binary frame that breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than any frame has.
    #[error("a frame of fewer than {FRAME_OVERHEAD} bytes")]
    Short,
    /// Its checksum is another one.
    #[error("a frame that was damaged on its way: its checksum does not fit")]
    Damaged,
    /// The first byte says nothing known.
    #[error("unknown frame {0}")]
    Unknown(u8),
    /// The rest is not what the first byte says.
    #[error("malformed frame {0}")]
    Malformed(u8),
}

const HELLO: u8 = 0;
const MESSAGES: u8 = 1;
const ACK: u8 = 2;
const NOT_NOW: u8 = 3;
const CONNECT: u8 = 4;
const WELCOME: u8 = 5;
const PUBLISH: u8 = 6;
const OUTCOMES: u8 = 7;
const DELIVERIES: u8 = 8;
const SYNCED: u8 = 9;
const SETTLE: u8 = 10;
const CONFLATED: u8 = 30;
const TOPOLOGY: u8 = 11;
const HAVE: u8 = 12;
const WANT: u8 = 13;
const SEEN: u8 = 14;
const GONE: u8 = 15;
const DIGESTS: u8 = 40;
const TIMED: u8 = 41;
const READS: u8 = 20;
const RESULTS: u8 = 21;

impl Wire {
    /// Takes a frame apart, without copying its batch.
    ///
    /// # Errors
    /// [`WireError`] if it is not one, was damaged, or bytes are left over.
    pub fn decode(frame: &Bytes) -> Result<Self, WireError> {
        let end = frame.len().checked_sub(CHECKSUM_BYTES).filter(|end| *end > 0);
        let end = end.ok_or(WireError::Short)?;
        if frame[end..] != checksum(&frame[..end]) {
            return Err(WireError::Damaged);
        }
        let tag = frame[0];
        let rest = frame.slice(1..end);
        Ok(match tag {
            HELLO => Self::Hello(whole(tag, &rest)?),
            MESSAGES => Self::Messages(rest),
            ACK => Self::Ack(whole(tag, &rest)?),
            NOT_NOW => Self::NotNow(whole(tag, &rest)?),
            CONNECT => Self::Connect(whole(tag, &rest)?),
            WELCOME => Self::Welcome(Welcome::read(&rest).ok_or(WireError::Malformed(tag))?),
            PUBLISH => Self::Publish(rest),
            OUTCOMES => Self::Outcomes(rest),
            DELIVERIES => Self::Deliveries(rest),
            SYNCED if rest.is_empty() => Self::Synced,
            SYNCED => return Err(WireError::Malformed(tag)),
            SETTLE => Self::Settle(rest),
            CONFLATED => Self::Conflated(whole(tag, &rest)?),
            TOPOLOGY => Self::Topology(rest),
            HAVE => Self::Have(rest),
            WANT => Self::Want(rest),
            SEEN => Self::Seen(rest),
            GONE => Self::Gone(rest),
            DIGESTS => Self::Digests(rest),
            READS => Self::Reads(rest),
            RESULTS => Self::Results(rest),
            TIMED => Self::Timed(rest),
            unknown => return Err(WireError::Unknown(unknown)),
        })
    }

    /// The frame in bytes.
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        match self {
            Self::Hello(hello) => begin(&mut buffer, HELLO, Some(hello)),
            Self::Ack(ack) => begin(&mut buffer, ACK, Some(ack)),
            Self::NotNow(not_now) => begin(&mut buffer, NOT_NOW, Some(not_now)),
            Self::Connect(connect) => begin(&mut buffer, CONNECT, Some(connect)),
            Self::Welcome(welcome) => {
                buffer.extend_from_slice(&[WELCOME]);
                welcome.append_to(&mut buffer);
            }
            Self::Synced => begin(&mut buffer, SYNCED, None::<&()>),
            Self::Messages(batch) => batched(&mut buffer, MESSAGES, batch),
            Self::Publish(batch) => batched(&mut buffer, PUBLISH, batch),
            Self::Outcomes(batch) => batched(&mut buffer, OUTCOMES, batch),
            Self::Deliveries(batch) => batched(&mut buffer, DELIVERIES, batch),
            Self::Settle(batch) => batched(&mut buffer, SETTLE, batch),
            Self::Conflated(values) => begin(&mut buffer, CONFLATED, Some(values)),
            Self::Topology(batch) => batched(&mut buffer, TOPOLOGY, batch),
            Self::Have(batch) => batched(&mut buffer, HAVE, batch),
            Self::Want(batch) => batched(&mut buffer, WANT, batch),
            Self::Seen(batch) => batched(&mut buffer, SEEN, batch),
            Self::Gone(batch) => batched(&mut buffer, GONE, batch),
            Self::Digests(batch) => batched(&mut buffer, DIGESTS, batch),
            Self::Reads(batch) => batched(&mut buffer, READS, batch),
            Self::Results(batch) => batched(&mut buffer, RESULTS, batch),
            Self::Timed(batch) => batched(&mut buffer, TIMED, batch),
        }
        seal(buffer)
    }
}

/// Ends a frame with its checksum.
pub fn seal(mut frame: BytesMut) -> Bytes {
    let checksum = checksum(&frame);
    frame.extend_from_slice(&checksum);
    frame.freeze()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    short
}

/// Which batch a [`FrameWriter`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// [`Wire::Messages`].
    Messages,
    /// [`Wire::Publish`].
    Publish,
    /// [`Wire::Outcomes`].
    Outcomes,
    /// [`Wire::Deliveries`].
    Deliveries,
    /// [`Wire::Settle`].
    Settle,
    /// [`Wire::Topology`].
    Topology,
    /// [`Wire::Have`].
    Have,
    /// [`Wire::Want`].
    Want,
    /// [`Wire::Seen`].
    Seen,
    /// [`Wire::Gone`].
    Gone,
    /// [`Wire::Digests`].
    Digests,
    /// [`Wire::Reads`].
    Reads,
    /// [`Wire::Results`].
    Results,
    /// [`Wire::Timed`].
    Timed,
}

/// Builds one batch frame record by record.
#[derive(Debug)]
pub struct FrameWriter {
    kind: BatchKind,
    buffer: BytesMut,
}

impl FrameWriter {
    /// Begins a frame.
    pub fn new(kind: BatchKind) -> Self {
        let tag = match kind {
            BatchKind::Messages => MESSAGES,
            BatchKind::Publish => PUBLISH,
            BatchKind::Outcomes => OUTCOMES,
            BatchKind::Deliveries => DELIVERIES,
            BatchKind::Settle => SETTLE,
            BatchKind::Topology => TOPOLOGY,
            BatchKind::Have => HAVE,
            BatchKind::Want => WANT,
            BatchKind::Seen => SEEN,
            BatchKind::Gone => GONE,
            BatchKind::Digests => DIGESTS,
            BatchKind::Reads => READS,
            BatchKind::Results => RESULTS,
            BatchKind::Timed => TIMED,
        };
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&[tag]);
        Self { kind, buffer }
    }

    /// Which batch it writes.
    pub fn kind(&self) -> BatchKind {
        self.kind
    }

    /// Adds a record.
    pub fn push<T: Serialize>(&mut self, record: &T) {
        append(&mut self.buffer, record);
    }

    /// Adds a message in its encoding.
    pub fn push_message(&mut self, message: &Message) {
        self.buffer.extend_from_slice(message.encoded());
    }

    /// Bytes so far, those of the checksum included.
    pub fn len(&self) -> usize {
        self.buffer.len() + CHECKSUM_BYTES
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() <= 1
    }

    /// The frame.
    pub fn finish(self) -> Bytes {
        seal(self.buffer)
    }
}

/// The records of a batch of [`Publish`], [`OutcomeRecord`], [`Settle`], [`Read`] or
/// [`ReadResult`].
///
/// # Errors
/// [`WireError::Malformed`] if the batch is not made of such records up to its end.
pub fn records<'a, T: Deserialize<'a>>(batch: &'a [u8]) -> Result<Vec<T>, WireError> {
    let mut records = Vec::new();
    let mut rest = batch;
    while !rest.is_empty() {
        let (record, after) =
            postcard::take_from_bytes(rest).map_err(|_| WireError::Malformed(batch[0]))?;
        // Every record takes at least a byte, so this ends and cannot be made to grow for nothing.
        if after.len() == rest.len() {
            return Err(WireError::Malformed(batch[0]));
        }
        records.push(record);
        rest = after;
    }
    Ok(records)
}

/// The messages of [`Wire::Messages`].
///
/// # Errors
/// [`WireError::Malformed`] if the batch is not made of messages up to its end.
pub fn messages(batch: &Bytes) -> Result<Vec<Message>, WireError> {
    let mut messages = Vec::new();
    let mut rest = batch.clone();
    while !rest.is_empty() {
        let (message, after) =
            Message::decode(&rest).map_err(|_| WireError::Malformed(MESSAGES))?;
        messages.push(message);
        rest = after;
    }
    Ok(messages)
}

/// The deliveries of [`Wire::Deliveries`].
///
/// # Errors
/// [`WireError::Malformed`] if the batch is not made of deliveries up to its end.
pub fn deliveries(batch: &Bytes) -> Result<Vec<(DeliveryHead, Message)>, WireError> {
    let mut deliveries = Vec::new();
    let mut rest = batch.clone();
    while !rest.is_empty() {
        let (head, after) = postcard::take_from_bytes::<DeliveryHead>(&rest)
            .map_err(|_| WireError::Malformed(DELIVERIES))?;
        let after = rest.slice(rest.len() - after.len()..);
        let (message, after) =
            Message::decode(&after).map_err(|_| WireError::Malformed(DELIVERIES))?;
        deliveries.push((head, message));
        rest = after;
    }
    Ok(deliveries)
}

fn whole<'a, T: Deserialize<'a>>(tag: u8, bytes: &'a [u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((record, [])) => Ok(record),
        Ok(_) | Err(_) => Err(WireError::Malformed(tag)),
    }
}

fn append<T: Serialize + ?Sized>(buffer: &mut BytesMut, record: &T) {
    postcard::serialize_with_flavor(record, Appender(buffer))
        .expect("appending to memory cannot fail");
}

fn begin<T: Serialize>(buffer: &mut BytesMut, tag: u8, record: Option<&T>) {
    buffer.extend_from_slice(&[tag]);
    if let Some(record) = record {
        append(buffer, record);
    }
}

fn batched(buffer: &mut BytesMut, tag: u8, batch: &[u8]) {
    buffer.reserve(1 + batch.len());
    buffer.extend_from_slice(&[tag]);
    buffer.extend_from_slice(batch);
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec;

    use super::*;
    use crate::types::ids::{Incarnation, StoreId};
    use crate::types::time::WallMs;

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            node: "aws-eu-1".into(),
            store: StoreId(5),
            incarnation: Incarnation::new(6),
            group: String::new(),
            tags: "aws,prod".into(),
            wall: WallMs(7),
            durability: Durability::Full,
            features: 0,
            max_message_bytes: 1 << 20,
            max_frame_bytes: 4 << 20,
            reported: Position::new(8),
            reported_incarnation: Incarnation::new(9),
        }
    }

    #[test]
    fn a_frame_survives_encoding() {
        let frames = [
            Wire::Hello(hello()),
            Wire::Ack(Ack { upto: 300, position: Position::new(1), wall: WallMs(2) }),
            Wire::NotNow(NotNow { first: 1, last: 2, reason: NotNowReason::Clock }),
            Wire::Connect(Connect { protocol: 1 }),
            Wire::Synced,
        ];
        for frame in frames {
            assert_eq!(Wire::decode(&frame.encode()), Ok(frame));
        }
    }

    // keeps: hostile-input
    #[test]
    fn what_is_left_over_or_cut_off_is_refused() {
        let encoded = Wire::Hello(hello()).encode();
        let record = &encoded[..encoded.len() - CHECKSUM_BYTES];
        for end in 1..record.len() {
            let shorter = seal(BytesMut::from(&record[..end]));
            assert_eq!(Wire::decode(&shorter), Err(WireError::Malformed(HELLO)));
        }
        let mut longer = BytesMut::from(record);
        longer.extend_from_slice(&[0]);
        assert_eq!(Wire::decode(&seal(longer)), Err(WireError::Malformed(HELLO)));
        assert_eq!(Wire::decode(&Bytes::new()), Err(WireError::Short));
        assert_eq!(Wire::decode(&seal(BytesMut::new())), Err(WireError::Short));
        let unknown = seal(BytesMut::from(&[77][..]));
        assert_eq!(Wire::decode(&unknown), Err(WireError::Unknown(77)));
    }

    // keeps: frame-checksum
    #[test]
    fn a_frame_that_was_damaged_on_its_way_is_refused() {
        let encoded = Wire::Hello(hello()).encode();
        for place in 0..encoded.len() {
            for bit in 0..8 {
                let mut damaged = BytesMut::from(&encoded[..]);
                damaged[place] ^= 1 << bit;
                assert_eq!(Wire::decode(&damaged.freeze()), Err(WireError::Damaged));
            }
        }
        for end in FRAME_OVERHEAD..encoded.len() {
            assert_eq!(Wire::decode(&encoded.slice(..end)), Err(WireError::Damaged));
        }
    }

    #[test]
    fn records_follow_each_other_to_the_end() {
        let settle = [
            Settle::Ack(Position::new(3)),
            Settle::Reject { delivery: Position::new(4), reason: "no" },
        ];
        let mut writer = FrameWriter::new(BatchKind::Settle);
        settle.iter().for_each(|record| writer.push(record));
        let Ok(Wire::Settle(batch)) = Wire::decode(&writer.finish()) else {
            panic!("a settle frame");
        };
        assert_eq!(records::<Settle<'_>>(&batch), Ok(settle.to_vec()));
        assert!(records::<Settle<'_>>(&batch[..batch.len() - 1]).is_err());
        assert_eq!(records::<Settle<'_>>(&[]), Ok(vec![]));
    }
}
