//! The application's side of a connection as a state machine: data in, data out.
//!
//! `frames` and `json` write and read what stands on one connection, in both protocols; what comes
//! of it is told by `delivery` and `answer`. A [`ClientSession`] is what an application keeps
//! between two connections: what is unanswered, what is in its hands, and what it has settled; it
//! decides what is said again and what is not handed over twice. [`Publication`] and [`Filter`] are
//! what programs write. Knows no task, socket or clock: those are in `host::client`, and the same
//! session serves a node within the process and one that is reached through the network. From
//! outside both are [`crate::client`].

mod answer;
mod deliveries;
mod delivery;
mod disconnect;
mod frames;
mod heartbeat;
mod json;
mod options;
mod publication;
mod requests;
mod session;

#[cfg(test)]
pub(crate) mod tests;

use alloc::string::String;
use alloc::vec::Vec;

pub use answer::{Heard, Outcome, PublishError, ReadError, Receipt, Refused, Value, Verdict};
pub use delivery::{DeliveredMessage, Text, Version};
pub use disconnect::{ConnectError, DisconnectReason};
pub use frames::{connect, publish, read, received, settle, welcome};
pub use heartbeat::Beat;
pub use options::{ClientOptions, OnLost};
pub use publication::{Filter, Publication, QueryString};
pub use session::{ClientSession, ClientSettings, Settlement};

pub use crate::wire::Welcome;

/// What a node sends.
#[derive(Debug)]
pub enum Received {
    /// Answers, in the order of what was sent.
    Outcomes(Vec<Outcome>),
    /// Answers to reads, in the order of the reads.
    Results(Vec<Value>),
    /// Deliveries, in the order of the node's log.
    Deliveries(Vec<DeliveredMessage>),
    /// All that was in the log at the greeting has been handed over.
    Synced,
}

/// What cannot be said, or not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The node sent what is not in the protocol.
    #[error("the node sent a frame that cannot be understood: {0}; are the versions compatible?")]
    Protocol(String),
    /// A value to publish is no JSON.
    #[error("the value of {key} is not one JSON value: {reason}")]
    BadValue {
        /// Key of the message.
        key: String,
        /// What is wrong.
        reason: String,
    },
}
