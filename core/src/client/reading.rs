//! Reads: the questions, and what a node answers.

use alloc::vec;
use alloc::vec::Vec;

use crate::io::{Frame, Protocol};
use crate::json::write::version_text;
use crate::message::Kind;
use crate::wire::{BatchKind, Read, ReadResult};
use alloc::borrow::ToOwned;
use bytes::Bytes;

use super::frames::{Text, batches};
use super::json;

/// What a key holds for this application (P6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// `messageId` of the read.
    pub id: Text,
    /// The key.
    pub key: Text,
    /// What wrote it last, as in JSON: `SK`, `SA` or `SW`, or `DK` if it was deleted; `None` if
    /// nobody has.
    pub kind: Option<Text>,
    /// One JSON value, as it was written; `None` if there is none.
    pub value: Option<Text>,
    /// Version of the last write, a delete too. Sorts byte by byte as the clock does.
    pub version: Option<Text>,
}

/// A read in its frame.
pub fn read(protocol: Protocol, read: &Read<'_>) -> Vec<Frame> {
    match protocol {
        Protocol::Postcard => batches(BatchKind::Reads, &[read]),
        Protocol::Json => vec![json::read(read)],
    }
}

/// A result out of its frame.
pub(super) fn of_wire(batch: &Bytes, result: &ReadResult<'_>) -> Value {
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
