//! Why a message became a dead letter.

use serde::Serialize;

/// Why a message became a dead letter. The names are stored and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// Handed over as often as configured, and never acknowledged (P13).
    Unacknowledged,
    /// The application said `reject`.
    Rejected,
    /// The event's time was over before the application acknowledged it, or before the node had
    /// handed it on to anybody.
    Expired,
    /// Larger than the receiver takes.
    TooLarge,
    /// History had no room for the event before the node had handed it on to anybody.
    Forgotten,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Unacknowledged, Self::Rejected, Self::Expired, Self::TooLarge, Self::Forgotten];

    /// The name in the store, in JSON and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unacknowledged => "unacknowledged",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::Forgotten => "forgotten",
        }
    }

    /// What is said of a failure where nobody else has said anything.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Unacknowledged => "no ACK in time",
            Self::Rejected => "rejected",
            Self::Expired => "its time to live was over",
            Self::TooLarge => "larger than the peer takes",
            Self::Forgotten => "history had no room for it",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}
