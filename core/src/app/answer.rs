//! What comes of what an application does: receipts, refusals, values, verdicts.

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use super::DisconnectReason;
use super::delivery::{DeliveredMessage, Text, Version};
use crate::config::Durability;
use crate::types::clock::Hlc;

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

/// What an application says of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done with it.
    Ack,
    /// Hand it over again, later, for this reason.
    Retry(String),
    /// Make it a dead letter, for this reason.
    Reject(String),
}

/// A message is in the node's store (P1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// `messageId`.
    pub id: Text,
    /// Clock part of its version: its text begins the versions of deliveries and values.
    pub version: Hlc,
    /// Whether this is the receipt of an earlier publish (P9).
    pub duplicate: bool,
    /// What it stands for: synced to disk, or only written.
    pub level: Durability,
}

/// Why there is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The node refused it; it is not there.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The connection ended before the answer, and nobody will ask again: it may be there or not.
    /// It can be published again with the same id under the same name.
    #[error("no answer: {0}; the message may be there or not (a publisher with a name asks again)")]
    Unanswered(DisconnectReason),
    /// It was not sent, or refused by a node that was ending; it is not there.
    #[error("not sent: {0}")]
    NotSent(DisconnectReason),
}

/// Why there is no answer to a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The node refused it.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The session is over.
    #[error("no answer: {0}")]
    Ended(DisconnectReason),
}

/// What became known. `P` and `R` are the tickets of publications and reads.
#[derive(Debug)]
pub enum Heard<P, R> {
    /// What became of a publication.
    Published(P, Result<Receipt, PublishError>),
    /// What a key holds.
    Read(R, Result<Value, ReadError>),
    /// A message, to be settled by [`ClientSession::settle`](super::ClientSession::settle).
    Delivered(DeliveredMessage),
    /// All that was there at the greeting has been handed over.
    Synced,
}
