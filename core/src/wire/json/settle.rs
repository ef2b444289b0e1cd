//! What an application says of deliveries, in either protocol.
//!
//! What stays true: a reason never costs a refusal its effect (P12). It is for people, so what is
//! too long is cut, and what is no text is kept as it was written.

use alloc::borrow::Cow;

use crate::types::ids::Position;
use crate::types::refusal::Refusal;
use crate::wire;
use crate::wire::draft::check_id;
use crate::wire::scan;

/// Longest reason in a NACK, in bytes: dead letters keep it.
pub const MAX_REASON_BYTES: usize = 4096;

/// What an application says of deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleRequest<'a> {
    /// Done with this one.
    Ack(Position),
    /// Done with this one and all before it.
    AckUpTo(Position),
    /// Done with the oldest outstanding one of this `messageId`.
    AckId(Cow<'a, str>),
    /// Hand it over again, later.
    Retry {
        /// Which.
        target: SettleTarget<'a>,
        /// Why; empty if it was not said.
        reason: Cow<'a, str>,
    },
    /// Make it a dead letter.
    Reject {
        /// Which.
        target: SettleTarget<'a>,
        /// Why; empty if it was not said.
        reason: Cow<'a, str>,
    },
}

impl<'a> SettleRequest<'a> {
    /// Takes what a binary client says of a delivery.
    ///
    /// # Errors
    /// A [`Refusal`] with the same codes and paths as for the JSON frame that says the same.
    pub fn from_wire(settle: &wire::Settle<'a>) -> Result<Self, Refusal> {
        let cut = |reason| cut(Cow::Borrowed(reason));
        Ok(match *settle {
            wire::Settle::Ack(delivery) => Self::Ack(delivery),
            wire::Settle::AckUpTo(delivery) => Self::AckUpTo(delivery),
            wire::Settle::AckId(id) => {
                check_id(id)?;
                Self::AckId(Cow::Borrowed(id))
            }
            wire::Settle::Retry { delivery, reason } => {
                Self::Retry { target: SettleTarget::Delivery(delivery), reason: cut(reason) }
            }
            wire::Settle::Reject { delivery, reason } => {
                Self::Reject { target: SettleTarget::Delivery(delivery), reason: cut(reason) }
            }
        })
    }
}

/// The delivery that a NACK names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleTarget<'a> {
    /// The one with this `deliveryId`.
    Delivery(Position),
    /// The oldest outstanding one of this `messageId`.
    Id(Cow<'a, str>),
}

/// The reason that the JSON value `raw` stands for: its text, or what is written there.
pub(super) fn reason_of(raw: &str) -> Cow<'_, str> {
    match scan::string(raw) {
        Ok(reason) => cut(reason),
        Err(_) if raw == "null" => Cow::Borrowed(""),
        Err(_) => cut(Cow::Borrowed(raw)),
    }
}

/// At most [`MAX_REASON_BYTES`] of it, up to the end of a character.
fn cut(reason: Cow<'_, str>) -> Cow<'_, str> {
    let end = reason.floor_char_boundary(MAX_REASON_BYTES);
    match reason {
        Cow::Borrowed(reason) => Cow::Borrowed(&reason[..end]),
        Cow::Owned(mut reason) => {
            reason.truncate(end);
            Cow::Owned(reason)
        }
    }
}
