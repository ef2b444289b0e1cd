//! A dead letter as the node knows it, and one that leaves with a batch (P12).

use crate::store::DeadReason;
use crate::types::ids::{DeadLetterId, Hash128, Position, SessionId};
use crate::wire::message::Message;

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its number.
    pub id: DeadLetterId,
    /// Why it is one.
    pub reason: DeadReason,
    /// What it counts for against limits.
    pub bytes: u64,
    /// Of its `messageId`.
    pub name: u64,
    /// What the application has said of its last hand-over.
    pub said: Said,
    /// When the link that is up carried it first; 0: that link has not.
    pub carried: u64,
}

/// What an application has said of a delivery that is a dead letter, besides acknowledging it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Said {
    /// Nothing: a cumulative acknowledgement may speak of it.
    #[default]
    Nothing,
    /// That it wants it again.
    Retry,
    /// That it does not want it: this is its last word.
    Reject,
}

/// A dead letter that leaves with a batch.
#[derive(Debug)]
pub struct Leaving {
    /// Its number.
    pub id: DeadLetterId,
    /// Whose it is.
    pub session: SessionId,
    /// Why it was one.
    pub reason: DeadReason,
    /// What it counted for.
    pub bytes: u64,
    /// What its session knew of it.
    pub kept: Option<(Position, Letter)>,
    /// Where it comes again, if it is replayed for that session alone.
    pub replay: Option<Position>,
    /// Whether it leaves with a later batch if this one fails; else it stays.
    pub stands: bool,
}

impl Letter {
    /// The letter that a delivery of this message becomes.
    pub fn new(id: DeadLetterId, reason: DeadReason, message: &Message) -> Self {
        let bytes = (message.encoded().len() + 64) as u64;
        Self { id, reason, bytes, name: name(message.id()), said: Said::Nothing, carried: 0 }
    }

    /// Whether the application itself refused it: then no ACK takes it back.
    pub fn is_refused(&self) -> bool {
        self.reason == DeadReason::Rejected || self.said == Said::Reject
    }

    /// Whether a cumulative acknowledgement may speak of it.
    pub fn is_open(&self) -> bool {
        !self.is_refused() && self.said == Said::Nothing
    }

    /// When the link that is up carried it first.
    pub fn carried(&self) -> Option<u64> {
        (self.carried > 0).then_some(self.carried)
    }
}

/// Hash of a `messageId`, by which a letter is found.
pub fn name(id: &str) -> u64 {
    let Hash128(hash) = Hash128::of(&[id.as_bytes()]);
    hash.iter().take(8).fold(0, |name, byte| name << 8 | u64::from(*byte))
}
