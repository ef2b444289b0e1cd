//! Names and numbers: every identifier of the protocol as a type of its own.
//!
//! Nothing here knows what the identifiers are for; the types only keep them apart and in bounds.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Longest node id, client name and tag, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Whether `name` is 1 to 64 of `A-Za-z0-9._-`: the form of node ids, client names and tags.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A name that is not 1 to 64 of `A-Za-z0-9._-`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not 1 to 64 of A-Za-z0-9._-")]
pub struct BadName(pub String);

/// Id of a node, unique in the mesh: 1 to 64 of `A-Za-z0-9._-`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Takes a name that has the form of a node id.
    ///
    /// # Errors
    /// [`BadName`] if it is not 1 to 64 of `A-Za-z0-9._-`.
    pub fn new(name: &str) -> Result<Self, BadName> {
        if is_name(name) { Ok(Self(name.into())) } else { Err(BadName(name.into())) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
                 Serialize, Deserialize)]
        pub struct $name($inner);

        impl $name {
            /// The identifier with this number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number itself.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The identifier that follows this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The identifier before this one; 0 has none and stays.
            #[must_use]
            pub const fn before(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// One live connection. Chosen by the shell and never reused within a run.
    LinkId(u64)
}
number! {
    /// One attempt to dial a peer; the shell reports its outcome under this number.
    DialId(u64)
}
number! {
    /// A session in the store. Numbers are never reused.
    SessionId(u64)
}
number! {
    /// One start of a node, above every earlier start of the same database.
    Incarnation(u64)
}
number! {
    /// Number of a message within one incarnation of its origin, from 1.
    Sequence(u64)
}
number! {
    /// Place of a message in this node's log, from 1; 0 stands before the first.
    Position(u64)
}
number! {
    /// One batch on its way to the store, from 1 at each start.
    BatchId(u64)
}
number! {
    /// One question to the store, from 1 at each start.
    FetchId(u64)
}
number! {
    /// A dead letter, from 1; numbers are never reused.
    DeadLetterId(u64)
}
number! {
    /// A request from whoever operates or embeds the node; chosen by the shell.
    Ticket(u64)
}

/// Random number that a database was given when it was made. A node that comes back with another
/// one has lost its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(pub u128);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What identifies a message for ever: origin node, its incarnation, and the sequence in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The node that accepted the message.
    pub origin: NodeId,
    /// The start of that node.
    pub incarnation: Incarnation,
    /// The number within that start.
    pub sequence: Sequence,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}/{}", self.origin, self.incarnation.0, self.sequence)
    }
}

/// 128 bits of BLAKE3: enough that nobody meets a collision by accident or by trying.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash128(pub [u8; 16]);

/// Bytes of parts, with their lengths, that are put side by side and hashed as one.
const SHORT: usize = 512;

/// Bytes of [`Hash128::of_key`] that come from the key alone: enough that few keys share them, and
/// leaving enough that nobody finds two tag sets of a key with one hash.
const KEY_BYTES: usize = 6;

impl Hash128 {
    /// Hash of several parts. Each part's length is hashed too, so that parts cannot run together.
    pub fn of(parts: &[&[u8]]) -> Self {
        let lengths = parts.iter().map(|part| (part.len() as u64).to_le_bytes());
        let pieces = || lengths.clone().zip(parts);
        let hash = if parts.iter().map(|part| 8 + part.len()).sum::<usize>() <= SHORT {
            let (mut bytes, mut end) = ([0; SHORT], 0);
            for (length, part) in pieces() {
                bytes[end..end + 8].copy_from_slice(&length);
                bytes[end + 8..end + 8 + part.len()].copy_from_slice(part);
                end += 8 + part.len();
            }
            blake3::hash(&bytes[..end])
        } else {
            let mut hasher = blake3::Hasher::new();
            for (length, part) in pieces() {
                hasher.update(&length).update(part);
            }
            hasher.finalize()
        };
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Self(short)
    }

    /// Hash of a key and a tag set. It begins with `KEY_BYTES` that come from the key alone, so
    /// that what is ordered by these hashes has all tag sets of a key side by side.
    pub fn of_key(key: &str, tags: &str) -> Self {
        let mut both = Self::of(&[key.as_bytes(), tags.as_bytes()]);
        both.0[..KEY_BYTES].copy_from_slice(&Self::of(&[key.as_bytes()]).0[..KEY_BYTES]);
        both
    }

    /// What all tag sets of a key have in common.
    pub fn key_part(&self) -> u64 {
        let mut part = [0; 8];
        part[..KEY_BYTES].copy_from_slice(&self.0[..KEY_BYTES]);
        u64::from_le_bytes(part)
    }

    /// The first and the last hash that a tag set of `key` can have. Other keys may, rarely, have
    /// hashes in between: whoever looks there compares the key.
    pub fn range_of_key(key: &str) -> RangeInclusive<Self> {
        let (mut first, mut last) = (Self([0; 16]), Self([0xff; 16]));
        for end in [&mut first, &mut last] {
            end.0[..KEY_BYTES].copy_from_slice(&Self::of(&[key.as_bytes()]).0[..KEY_BYTES]);
        }
        first..=last
    }

    /// The range of the key that this hash of a key and a tag set belongs to.
    pub fn same_key(&self) -> RangeInclusive<Self> {
        let (mut first, mut last) = (*self, *self);
        first.0[KEY_BYTES..].fill(0);
        last.0[KEY_BYTES..].fill(0xff);
        first..=last
    }
}

impl fmt::Debug for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_sixty_four_plain_characters() {
        assert!(is_name("aws-eu_1.b"));
        assert!(is_name(&"x".repeat(64)));
        assert!(!is_name(&"x".repeat(65)));
        for bad in ["", "a,b", "a b", "å", "a/b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    // keeps: read-matches
    #[test]
    fn only_the_tag_sets_of_a_key_lie_in_its_range() {
        let range = Hash128::range_of_key("k");
        for tags in ["", "a", "a,b"] {
            let hash = Hash128::of_key("k", tags);
            assert!(range.contains(&hash));
            assert_eq!(hash.same_key(), range);
            assert!(!range.contains(&Hash128::of_key("other", tags)));
        }
        assert_ne!(Hash128::of_key("k", ""), Hash128::of_key("k", "a"));
    }

    #[test]
    fn parts_of_a_hash_do_not_run_together() {
        assert_ne!(Hash128::of(&[b"ab", b"c"]), Hash128::of(&[b"a", b"bc"]));
    }
}
