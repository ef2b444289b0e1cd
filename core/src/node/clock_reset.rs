//! How far an operator's reset of the clock has come; `resetting` carries it out.

use alloc::vec::Vec;

use crate::types::clock::{Hlc, Timely};
use crate::types::ids::{BatchId, Position, Ticket};

/// A reset that is under way.
#[derive(Debug)]
pub(super) struct ClockReset {
    /// Who waits for its end.
    pub(super) tickets: Vec<Ticket>,
    pub(super) stage: Stage,
    /// It goes on when this batch is durable.
    pub(super) waits_for: Option<BatchId>,
    /// Versions that are timely, by the wall clock at the beginning.
    pub(super) timely: Timely,
    /// The end of the log then.
    pub(super) upto: Position,
    /// Everything up to here was looked at.
    pub(super) after: Position,
    /// The first untimely value.
    pub(super) first: Option<Position>,
    /// The highest version that stays.
    pub(super) highest: Hlc,
    pub(super) restamped: u64,
    pub(super) lowered_ms: u64,
}

/// What a reset does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Looks for what is untimely.
    Looking,
    /// Stamps it anew.
    Stamping,
    /// Says that it is over.
    Ending,
}
