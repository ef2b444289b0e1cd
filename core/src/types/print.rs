//! Sums that stand for what a node holds; how they are made is for [`crate::store::digest`].

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::types::ids::Hash128;

/// What stands for a live message, or the sum of what stands for several, modulo 2^64. Zero stands
/// for nothing: for no message, and for a delete.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Print(u64);

impl Print {
    /// What stands for nothing.
    pub const NOTHING: Self = Self(0);

    /// The print with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Names a tag set in eight bytes.
    pub fn of_tags(tags: &str) -> u64 {
        Self::short(&Hash128::of(&[tags.as_bytes()]).0).0
    }

    /// The print that begins a hash of what stands for something.
    pub(crate) fn of_hash(hash: &[u8]) -> Self {
        Self::short(hash).or_one()
    }

    fn short(hash: &[u8]) -> Self {
        let mut short = [0; 8];
        short.copy_from_slice(&hash[..8]);
        Self(u64::from_le_bytes(short))
    }

    /// Nothing but nothing is zero.
    fn or_one(self) -> Self {
        Self(self.0.max(1))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// This without the other one.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for Print {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
