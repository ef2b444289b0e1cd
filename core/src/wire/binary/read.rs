//! The records of reads, for applications that speak binary frames.

use serde::{Deserialize, Serialize};

use crate::types::clock::Hlc;
use crate::wire::message::Kind;

/// A question for the converged value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read<'a> {
    /// The kind that it is expected to have: SK, SA or SW; `None`: whichever it has.
    pub kind: Option<Kind>,
    /// `messageId`, for the answer; empty without one.
    pub id: &'a str,
    /// The key.
    pub key: &'a str,
}

/// The answer to a [`Read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadResult<'a> {
    /// `messageId` of the read.
    pub id: &'a str,
    /// The key.
    pub key: &'a str,
    /// What is there.
    pub value: Option<ReadValue<'a>>,
}

/// The newest of a key among the tag sets that match the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadValue<'a> {
    /// What wrote it; DK: it was deleted.
    pub kind: Kind,
    /// Its version's clock part.
    pub version: Hlc,
    /// The node that accepted it.
    pub origin: &'a str,
    /// One JSON value, as it was written; `null` if it was deleted.
    pub body: &'a str,
}
