//! The newest row of a key, and which of several is (P6).

use alloc::vec::Vec;

use crate::types::clock::Timely;
use crate::types::ids::Position;
use crate::wire::message::Message;

/// The newest row of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// Where it lies.
    pub position: Position,
    /// The message.
    pub message: Message,
}

impl Latest {
    /// The newest of the values that a key has for several tag sets (P6); while nothing is certain,
    /// of those that none has outdone the one that came last, as an application that is handed them
    /// in the order of the log sees it.
    pub fn newest(mut values: Vec<Self>, timely: Timely) -> Option<Self> {
        let has_outdone = |a: &Self, b: &Self| a.message.has_outdone(&b.message, timely);
        if timely.is_certain() {
            return values.into_iter().reduce(|a, b| if has_outdone(&b, &a) { b } else { a });
        }
        values.sort_unstable_by_key(|value| value.position);
        let is_outdone = |value| values.iter().any(|other| has_outdone(other, value));
        let newest = values.iter().rposition(|value| !is_outdone(value))?;
        Some(values.swap_remove(newest))
    }
}
