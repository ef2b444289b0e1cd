//! The other end: an application of a node, as data.
//!
//! `frames` and `json` say and hear what stands on one connection, in both protocols; what comes of
//! it is told by `delivery` and `answer`. A [`Session`] is what an application keeps between two
//! connections: what is unanswered, what is in its hands, and what it has settled; it decides what
//! is said again and what is not handed over twice. An [`Application`] is a session and those who
//! wait for it, whom [`handles`] serve; a [`service`] gives it connections. [`Publication`] and
//! [`Filter`] are what programs write. No socket or clock is known here: shells supply them, and
//! the same session serves a node within the process and one that is reached through the network.

mod answer;
mod application;
mod beat;
mod delivery;
mod ended;
mod frames;
pub mod handles;
mod hands;
mod json;
mod opening;
mod options;
mod place;
mod publication;
mod questions;
pub mod service;
mod session;
mod waiting;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;

pub use answer::{Heard, Outcome, PublishError, ReadError, Receipt, Refused, Value, Verdict};
pub use application::{Application, Turn};
pub use beat::Beat;
pub use delivery::{Delivery, Text, Version};
pub use ended::{ConnectError, Ended};
pub use frames::{connect, publish, read, received, settle, welcome};
pub use opening::Client;
pub use options::ClientOptions;
pub use publication::{Filter, Publication, QueryString};
pub use session::{Session, Settings, Settlement};

/// What a node sends.
#[derive(Debug)]
pub enum Received {
    /// Answers, in the order of what was sent.
    Outcomes(Vec<Outcome>),
    /// Answers to reads, in the order of the reads.
    Results(Vec<Value>),
    /// Deliveries, in the order of the node's log.
    Deliveries(Vec<Delivery>),
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
