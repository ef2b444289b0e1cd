//! Dead letters as lists show them: without long values.

use super::DeadLetter;
#[cfg(doc)]
use super::Query;
#[cfg(doc)]
use crate::wire::message::Message;

/// Longest value that [`Query::DeadLetterList`] reads.
pub const LISTED_VALUE_BYTES: usize = 4096;

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLetter {
    /// The dead letter; with a value above [`LISTED_VALUE_BYTES`] its message has none
    /// ([`Message::without_value`]).
    pub letter: DeadLetter,
    /// Length of its value.
    pub value_bytes: usize,
}

impl ListedLetter {
    /// What a list says of this one.
    pub fn of(letter: &DeadLetter) -> Self {
        let value_bytes = letter.message.body().len();
        let mut letter = letter.clone();
        if value_bytes > LISTED_VALUE_BYTES {
            letter.message = letter.message.without_value();
        }
        Self { letter, value_bytes }
    }

    /// Whether its value is there.
    pub fn has_value(&self) -> bool {
        self.value_bytes <= LISTED_VALUE_BYTES
    }
}
