//! The parts of a session: how it takes the log, what concerns peers alone, what is known of its
//! flights, its dead letters, and how it is kept.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::log::group_copies::CompactedRanges;
use crate::session::offer::Offers;
use crate::store::DeadReason;
use crate::types::ids::Position;
use crate::types::rate::RateLimit;
use crate::types::time::{Instant, WallMs};

use super::Dirty;
use super::conflation::Conflation;
use super::group_copies::Beginning;
use super::letters::Letters;
use super::record::Used;
use super::settling::EndedDeliveries;
use super::skipped::Skipped;

/// Stretches of the log that a session takes in another way than the rest.
#[derive(Debug, Default)]
pub struct Walk {
    /// Rows up to here may have been handed over in an earlier life of the session: they are
    /// marked `redelivery`, and handed over only while they are the newest.
    pub redelivery_upto: Position,
    /// A receipt for a row up to here has overtaken deliveries: those are handed over only
    /// while they are the newest.
    pub receipt_overtook: Position,
    /// What of the log it is handed only the newest of.
    pub conflation: Conflation,
    /// Where values were left out because newer ones were there.
    pub checked: CompactedRanges,
    /// What an application came too late for.
    pub beginning: Beginning,
    /// Highest row ever handed over.
    pub handed_upto: Position,
}

/// What a session of a peer has besides. An application's leaves all of it as it is.
#[derive(Debug, Default)]
pub struct Peering {
    /// The peer's store has lost what it had: rows up to here are offered to it, also those that
    /// came over it.
    pub lost_upto: Position,
    /// Rows before this one were looked at before: only targeted ones are looked at again.
    pub rewalk_upto: Position,
    /// What the peer is offered instead of being sent it.
    pub offers: Offers,
    /// Targeted rows that led nowhere behind the peer.
    pub skipped: Skipped,
    /// When it may go back to what it skipped.
    pub back_at: Option<Instant>,
    /// When it did so last.
    pub(super) back_last: Option<Instant>,
    /// Refusals in a row by the peer, for the length of the hold.
    pub refusals: u32,
    /// Nothing is handed over before this time.
    pub hold_until: Option<Instant>,
    /// The entry of the configuration that led to the peer is gone.
    pub has_lost_entry: bool,
}

/// What is known of the flights of a session together.
#[derive(Debug)]
pub struct FlightNotes {
    /// Flights that wait for another one, of which they are copies.
    pub(super) copies: usize,
    /// Flights that links have begun to carry, so that each knows which came before it.
    pub send_seq: u64,
    /// Whether there may be flights that the link has not carried.
    pub has_unsent: bool,
    /// Whether there may be flights that are to become dead letters.
    pub has_dying: bool,
    /// Whether the store was asked for some of them.
    pub is_burying: bool,
    /// No flight is due before this time; `None`: none is due by time.
    pub wake: Option<Instant>,
    /// Limit of repeats.
    pub repeats: RateLimit,
    /// Deliveries that ended last.
    pub(super) ended: EndedDeliveries,
    /// Events that somebody has been handed here, or that are dead letters of this session: they
    /// are not the node's any more.
    pub answered: Vec<Position>,
}

/// Dead letters of a session.
#[derive(Debug, Default)]
pub struct Dead {
    /// By the deliveries that they were.
    pub letters: Letters,
    /// Number and bytes for each reason.
    pub counts: BTreeMap<DeadReason, (u64, u64)>,
}

/// How a session is kept in the store.
#[derive(Debug)]
pub struct Keeping {
    /// When it was last disconnected; `None` while connected.
    pub away_since: Option<WallMs>,
    /// What its application has done with it; of others than new named ones that does not count.
    pub used: Used,
    /// Whether its record must be written.
    pub dirty: Dirty,
}

/// What a session was handed since the start.
#[derive(Debug, Default)]
pub struct HandOvers {
    /// First hand-overs.
    pub delivered: u64,
    /// Later hand-overs.
    pub retransmits: u64,
}
