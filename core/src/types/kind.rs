//! What a message does.

use serde::{Deserialize, Serialize};

/// What a message does. The numbers are fixed: they are on the wire and in stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Set key.
    Sk,
    /// Set array.
    Sa,
    /// A command: an event, never superseded.
    Cmd,
    /// Set weighted: a whole map of member to weight.
    Sw,
    /// Delete key. It has no value; its body is `null`.
    Dk,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Sk, Self::Sa, Self::Cmd, Self::Sw, Self::Dk];

    /// The name in JSON, metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sk => "SK",
            Self::Sa => "SA",
            Self::Cmd => "CMD",
            Self::Sw => "SW",
            Self::Dk => "DK",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The number in stores.
    pub const fn number(self) -> u8 {
        match self {
            Self::Sk => 0,
            Self::Sa => 1,
            Self::Cmd => 2,
            Self::Sw => 3,
            Self::Dk => 4,
        }
    }

    /// Whether a newer message of the same key and tag set takes its place.
    pub const fn is_state(self) -> bool {
        match self {
            Self::Sk | Self::Sa | Self::Sw | Self::Dk => true,
            Self::Cmd => false,
        }
    }
}
