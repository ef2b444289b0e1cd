//! What a client says and hears, in both protocols, as data: no connection, no waiting.
//!
//! Binary frames are not copied: texts and messages are slices of the frame. JSON is read with
//! serde; a value stays as it was written, byte for byte.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use core::fmt;
use core::ops::Deref;
use core::time::Duration;

use crate::clock::Hlc;
use crate::config::Durability;
use crate::ids::Position;
use crate::io::{Frame, Protocol};
use crate::json::write;
use crate::message::Message;
use crate::wire::{
    self, BatchKind, Connect, FrameWriter, PROTOCOL_VERSION, Publish, Settle, Welcome, Wire,
    WireError,
};
use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::hands::Mark;
use super::json::{self, Json};
use super::{CodecError, Received, reading};

/// A binary frame is closed when it has this many bytes.
const FRAME_BYTES: usize = 64 * 1024;

/// Text within a received frame. Cloning does not copy it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(pub(super) Bytes);

impl Text {
    /// A part of `frame`.
    pub(super) fn within(frame: &Bytes, part: &str) -> Self {
        if part.is_empty() { Self::default() } else { Self(frame.slice_ref(part.as_bytes())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("it was made from text")
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<Cow<'_, str>> for Text {
    fn from(text: Cow<'_, str>) -> Self {
        Self(text.into_owned().into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The version that a node gave a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Its clock part, from a binary frame.
    Clock(Hlc),
    /// The whole, from JSON.
    Text(Text),
}

/// What became of something that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the node's store.
    Receipt {
        /// `messageId`.
        id: Text,
        /// Its version.
        version: Version,
        /// Whether this is the receipt of an earlier publish (P9).
        duplicate: bool,
        /// What the receipt stands for.
        level: Durability,
    },
    /// It was refused.
    Refused(Refused),
}

impl Outcome {
    /// Whether it answers a message; else it is about an acknowledgement.
    pub fn answers_publish(&self) -> bool {
        !matches!(self, Self::Refused(refused) if refused.code.as_str() == "UNKNOWN_DELIVERY")
    }
}

/// A refusal (P12).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    /// `messageId`, where one could be read.
    pub id: Option<Text>,
    /// Ordinal of the frame on this connection, from 1.
    pub frame: u64,
    /// Stable code.
    pub code: Text,
    /// Whether trying again can help.
    pub retryable: bool,
    /// When to try again, where known.
    pub retry_after: Option<Duration>,
    /// For people.
    pub message: Text,
    /// JSONPath of the offending part.
    pub path: Option<Text>,
}

/// A message that was handed over.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// To be named in the acknowledgement.
    pub id: Position,
    /// How often it was handed over before.
    pub redelivery: u32,
    /// Values that were left out before this one, because newer ones of their keys have taken
    /// their place.
    pub conflated: u64,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Binary(Message),
    Json(Box<Json>),
}

impl Delivery {
    /// Which message it is, whatever its number.
    pub(super) fn mark(&self) -> Mark {
        match &self.content {
            Content::Binary(message) => (message.incarnation(), message.sequence()),
            Content::Json(_) => Mark::default(),
        }
    }

    /// What the message does, as in JSON: `SK`, `CMD`.
    pub fn kind(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.kind().as_str(),
            Content::Json(json) => &json.kind,
        }
    }

    /// The publisher's name for the message.
    pub fn message_id(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.id(),
            Content::Json(json) => &json.message_id,
        }
    }

    /// The key.
    pub fn key(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.key(),
            Content::Json(json) => &json.key,
        }
    }

    /// One JSON value, as it was written; `null` of a delete.
    pub fn value(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.body(),
            Content::Json(json) => &json.value,
        }
    }

    /// The node that accepted it.
    pub fn origin(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.origin(),
            Content::Json(json) => &json.origin,
        }
    }

    /// The nodes that it visited, comma-joined.
    pub fn path(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.path(),
            Content::Json(json) => &json.path,
        }
    }

    /// Its target tags, comma-joined; empty without any.
    pub fn tags(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.tags(),
            Content::Json(json) => &json.tags,
        }
    }

    /// Its version. Sorts byte by byte as the clock does.
    pub fn version(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Binary(message) => {
                write::version_text(message.version(), message.origin()).into()
            }
            Content::Json(json) => json.version.as_str().into(),
        }
    }

    /// The delivery as the node `node` writes it in JSON.
    pub fn to_json(&self, node: &str) -> Text {
        match &self.content {
            Content::Binary(message) => {
                let mut out = BytesMut::new();
                write::delivery_prefix(message, node, &mut out);
                write::delivery_suffix(self.id, self.redelivery, self.conflated, &mut out);
                Text(out.freeze())
            }
            Content::Json(json) => json.frame.clone(),
        }
    }
}

/// The first binary frame of an application.
pub fn connect() -> Frame {
    Frame::Binary(Wire::Connect(Connect { protocol: PROTOCOL_VERSION }).encode())
}

/// The greeting of a node.
///
/// # Errors
/// [`CodecError::Protocol`] if it is none.
pub fn welcome(frame: &Frame) -> Result<Welcome, CodecError> {
    match frame {
        Frame::Binary(bytes) => match Wire::decode(bytes).map_err(malformed)? {
            Wire::Welcome(welcome) => Ok(welcome),
            other => Err(CodecError::Protocol(format!("instead of a welcome: {other:?}"))),
        },
        Frame::Text(text) => json::welcome(text),
        Frame::Ping(_) | Frame::Pong(_) => Err(CodecError::Protocol("no data".into())),
    }
}

/// Messages in frames.
///
/// # Errors
/// [`CodecError::BadValue`] with JSON.
pub fn publish(protocol: Protocol, messages: &[Publish<'_>]) -> Result<Vec<Frame>, CodecError> {
    match protocol {
        Protocol::Postcard => Ok(batches(BatchKind::Publish, messages)),
        Protocol::Json => messages.iter().map(json::publish).collect(),
    }
}

/// Settlements in frames.
pub fn settle(protocol: Protocol, settles: &[Settle<'_>]) -> Vec<Frame> {
    match protocol {
        Protocol::Postcard => batches(BatchKind::Settle, settles),
        Protocol::Json => settles.iter().map(json::settle).collect(),
    }
}

pub(super) fn batches<T: Serialize>(kind: BatchKind, records: &[T]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new(kind);
    for record in records {
        writer.push(record);
        if writer.len() >= FRAME_BYTES {
            let full = core::mem::replace(&mut writer, FrameWriter::new(kind));
            frames.push(Frame::Binary(full.finish()));
        }
    }
    if !writer.is_empty() {
        frames.push(Frame::Binary(writer.finish()));
    }
    frames
}

/// What a frame of the node says; `None` for what later versions may add. `conflated` counts the
/// values left out before the next delivery.
///
/// # Errors
/// [`CodecError::Protocol`] if it is not in the protocol.
pub fn received(frame: &Frame, conflated: &mut u64) -> Result<Option<Received>, CodecError> {
    match frame {
        Frame::Binary(bytes) => received_binary(bytes, conflated),
        Frame::Text(text) => json::received(text),
        Frame::Ping(_) | Frame::Pong(_) => Ok(None),
    }
}

fn received_binary(frame: &Bytes, conflated: &mut u64) -> Result<Option<Received>, CodecError> {
    Ok(match Wire::decode(frame) {
        Ok(Wire::Outcomes(batch)) => {
            let outcomes = wire::records::<wire::Outcome<'_>>(&batch).map_err(malformed)?;
            let outcomes = outcomes.into_iter().map(|outcome| of_wire(&batch, outcome)).collect();
            Some(Received::Outcomes(outcomes))
        }
        Ok(Wire::Results(batch)) => {
            let results = wire::records::<wire::ReadResult<'_>>(&batch).map_err(malformed)?;
            let results = results.iter().map(|result| reading::of_wire(&batch, result)).collect();
            Some(Received::Results(results))
        }
        Ok(Wire::Deliveries(batch)) => {
            let deliveries = wire::deliveries(&batch).map_err(malformed)?.into_iter();
            let deliveries = deliveries.map(|(head, message)| Delivery {
                id: head.delivery,
                redelivery: head.redelivery,
                conflated: core::mem::take(conflated),
                content: Content::Binary(message),
            });
            Some(Received::Deliveries(deliveries.collect()))
        }
        Ok(Wire::Conflated(values)) => {
            *conflated += values;
            None
        }
        Ok(Wire::Synced) => Some(Received::Synced),
        Ok(other) => return Err(CodecError::Protocol(format!("not for applications: {other:?}"))),
        Err(WireError::Unknown(_)) => None,
        Err(error) => return Err(malformed(error)),
    })
}

fn of_wire(batch: &Bytes, outcome: wire::Outcome<'_>) -> Outcome {
    match outcome {
        wire::Outcome::Receipt { id, version, duplicate, level } => Outcome::Receipt {
            id: Text::within(batch, id),
            version: Version::Clock(version),
            duplicate,
            level,
        },
        wire::Outcome::Error { id, frame, code, retryable, retry_after_ms, message } => {
            Outcome::Refused(Refused {
                id: id.map(|id| Text::within(batch, id)),
                frame,
                code: Text::within(batch, code),
                retryable,
                retry_after: (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms)),
                message: Text::within(batch, message),
                path: None,
            })
        }
    }
}

fn malformed(error: WireError) -> CodecError {
    CodecError::Protocol(error.to_string())
}
