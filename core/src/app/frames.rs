//! What a client says and hears, in both protocols, as data: no connection, no waiting.
//!
//! Binary frames are not copied: texts and messages are slices of the frame. JSON is read with
//! serde; a value stays as it was written, byte for byte.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::answer::{Outcome, Refused, Value};
use super::delivery::{Content, DeliveredMessage, Text, Version};
use super::{CodecError, Received, json};
use crate::io::{Frame, Protocol};
use crate::wire::json::write::version_text;
use crate::wire::message::Kind;
use crate::wire::{
    self, APPLICATION_PROTOCOL_VERSION, BatchKind, Connect, FrameWriter, Publish, Read, ReadResult,
    Settle, Welcome, Wire, WireError,
};

/// A binary frame is closed when it has this many bytes.
const FRAME_BYTES: usize = 64 * 1024;

/// The first binary frame of an application.
pub fn connect() -> Frame {
    Frame::Binary(Wire::Connect(Connect { protocol: APPLICATION_PROTOCOL_VERSION }).encode())
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
        Protocol::Json => {
            messages.iter().map(|message| json::publish(message).map(Frame::Text)).collect()
        }
    }
}

/// Settlements in frames.
pub fn settle(protocol: Protocol, settles: &[Settle<'_>]) -> Vec<Frame> {
    match protocol {
        Protocol::Postcard => batches(BatchKind::Settle, settles),
        Protocol::Json => settles.iter().map(json::settle).collect(),
    }
}

/// A read in its frame.
pub fn read(protocol: Protocol, read: &Read<'_>) -> Vec<Frame> {
    match protocol {
        Protocol::Postcard => batches(BatchKind::Reads, &[read]),
        Protocol::Json => vec![json::read(read)],
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
            let outcomes = wire::records::<wire::OutcomeRecord<'_>>(&batch).map_err(malformed)?;
            let outcomes =
                outcomes.into_iter().map(|outcome| outcome_of(&batch, outcome)).collect();
            Some(Received::Outcomes(outcomes))
        }
        Ok(Wire::Results(batch)) => {
            let results = wire::records::<wire::ReadResult<'_>>(&batch).map_err(malformed)?;
            let results = results.iter().map(|result| value_of(&batch, result)).collect();
            Some(Received::Results(results))
        }
        Ok(Wire::Deliveries(batch)) => {
            let deliveries = wire::deliveries(&batch).map_err(malformed)?.into_iter();
            let deliveries = deliveries.map(|(head, message)| DeliveredMessage {
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

fn outcome_of(batch: &Bytes, outcome: wire::OutcomeRecord<'_>) -> Outcome {
    match outcome {
        wire::OutcomeRecord::Receipt { id, version, duplicate, level } => Outcome::Receipt {
            id: Text::within(batch, id),
            version: Version::Clock(version),
            duplicate,
            level,
        },
        wire::OutcomeRecord::Error { id, frame, code, retryable, retry_after_ms, message } => {
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

/// A result out of its frame.
fn value_of(batch: &Bytes, result: &ReadResult<'_>) -> Value {
    let value = result.value.as_ref();
    let there = value.filter(|value| value.kind != Kind::Dk);
    Value {
        id: Text::within(batch, result.id),
        key: Text::within(batch, result.key),
        kind: value.map(|value| Text::from(value.kind.as_str().to_owned())),
        value: there.map(|value| Text::within(batch, value.body)),
        version: value.map(|value| version_text(value.version, value.origin).into()),
    }
}

fn malformed(error: WireError) -> CodecError {
    CodecError::Protocol(error.to_string())
}
