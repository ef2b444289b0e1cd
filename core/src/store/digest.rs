//! Digests of the live state: a few bytes that tell whether two nodes hold the same (P6).
//!
//! A [`Print`] stands for one message that is the newest of its key and tag set, or for many: it is
//! the sum of theirs, so that replacing a value takes one print away and adds another one. Each tag
//! set has its own sums, one for all of its keys and one for each of [`BUCKETS`] buckets, by the
//! hash of the key: the keys of a bucket lie side by side in that order. What stays true: equal
//! states have equal prints, whatever the order in which they came about. A delete has none, so
//! that who remembers it and who has forgotten it hold the same, and who never heard of it does
//! not. The value is not looked at: an identity names one value for ever.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::types::ids::{Hash128, MAX_NAME_BYTES};
pub use crate::types::print::Print;
use crate::types::tags::TagSet;
use crate::wire::message::{Kind, Message};

/// Buckets of a tag set.
pub const BUCKETS: u16 = 1 << BUCKET_BITS;

const BUCKET_BITS: u32 = 10;

/// Bytes of the hash of key and tag set, and of three numbers.
const NUMBERS: usize = 16 + 3 * 8;

/// The print of the newest message of a key and tag set, whose hash is `key`.
pub fn print_of(key: &Hash128, message: &Message) -> Print {
    if message.kind() == Kind::Dk {
        return Print::NOTHING;
    }
    // One piece of memory, which is one block of the hash function for a name of 24 bytes: a
    // store does this for every row. Only the name has no fixed length, and it comes last.
    let mut bytes = [0; NUMBERS + MAX_NAME_BYTES];
    let numbers = [message.incarnation().get(), message.sequence().get(), message.version().0];
    bytes[..16].copy_from_slice(&key.0);
    for (place, number) in bytes[16..NUMBERS].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let origin = message.origin().as_bytes();
    let length = origin.len().min(MAX_NAME_BYTES);
    bytes[NUMBERS..NUMBERS + length].copy_from_slice(&origin[..length]);
    Print::of_hash(blake3::hash(&bytes[..NUMBERS + length]).as_bytes())
}

/// The bucket of a key and tag set, by their hash: all tag sets of a key share one.
pub fn bucket_of(key: &Hash128) -> u16 {
    u16::from_be_bytes([key.0[0], key.0[1]]) >> (16 - BUCKET_BITS)
}

/// The first and the last hash of a bucket.
pub fn range_of(bucket: u16) -> RangeInclusive<Hash128> {
    let first = (bucket % BUCKETS) << (16 - BUCKET_BITS);
    let last = first | (u16::MAX >> BUCKET_BITS);
    let (mut low, mut high) = (Hash128([0; 16]), Hash128([0xff; 16]));
    low.0[..2].copy_from_slice(&first.to_be_bytes());
    high.0[..2].copy_from_slice(&last.to_be_bytes());
    low..=high
}

/// A question about digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DigestQuery {
    /// The digests of the tag sets behind this one, in the order of their canonical forms:
    /// at most [`MAX_TAG_SETS`] of them, and about [`MAX_NAMES_BYTES`] of their names.
    TagSets {
        /// Start behind this one.
        after: Option<TagSet>,
    },
    /// The digest of each bucket of a tag set.
    Buckets {
        /// The tag set.
        tags: TagSet,
    },
    /// The live messages of one bucket of a tag set, in the order of their hashes, of a stretch of
    /// at most [`MAX_ENTRIES`] keys and about [`MAX_ENTRY_BYTES`].
    Entries {
        /// The tag set.
        tags: TagSet,
        /// The bucket.
        bucket: u16,
        /// Start behind this hash.
        after: Option<Hash128>,
    },
}

/// Tag sets of one answer.
pub const MAX_TAG_SETS: usize = 1024;

/// Bytes of names of tag sets after which an answer ends.
pub const MAX_NAMES_BYTES: usize = 64 << 10;

/// Keys that one answer looks at, those of other tag sets included.
pub const MAX_ENTRIES: usize = 4096;

/// Bytes of rows after which an answer ends.
pub const MAX_ENTRY_BYTES: u64 = 4 << 20;

/// What a store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digests {
    /// What was written last is not all looked at: more of it with each question, unless even more
    /// was written meanwhile.
    Behind,
    /// To [`DigestQuery::TagSets`].
    TagSets(Roots),
    /// To [`DigestQuery::Buckets`]: [`BUCKETS`] of them.
    Buckets(Vec<Print>),
    /// To [`DigestQuery::Entries`].
    Entries {
        /// The live messages, each with its print.
        entries: Vec<(Print, Message)>,
        /// Where to go on; `None` at the end of the bucket.
        next: Option<Hash128>,
    },
}

/// Digests of tag sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    /// In the order of the tag sets; those that hold nothing are left out.
    pub digests: Vec<(TagSet, Print)>,
    /// Everything up to this tag set was looked at; `None`: everything.
    pub upto: Option<TagSet>,
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::types::clock::Hlc;
    use crate::types::ids::{Incarnation, Sequence};
    use crate::types::time::WallMs;
    use crate::wire::message::Fields;

    fn message(kind: Kind, key: &str, sequence: u64, path: &str) -> Message {
        let fields = Fields {
            kind,
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(sequence),
            version: Hlc(7),
            expires: WallMs(0),
            group: "",
            tags: "",
            path,
            id: "m",
            key,
            body: if kind == Kind::Dk { "null" } else { "1" },
        };
        Message::encode(&fields, &mut BytesMut::new())
    }

    fn print(message: &Message) -> Print {
        print_of(&message.key_hash().expect("state"), message)
    }

    // keeps: digests-exact
    #[test]
    fn the_same_message_has_one_print_over_any_route() {
        let near = print(&message(Kind::Sk, "k", 1, "a"));
        assert_eq!(near, print(&message(Kind::Sk, "k", 1, "a,b,c")));
        assert_ne!(near, print(&message(Kind::Sk, "k", 2, "a")));
        assert_ne!(near, print(&message(Kind::Sk, "other", 1, "a")));
        assert_ne!(near, print(&message(Kind::Sk, "k", 1, "b")));
    }

    #[test]
    fn a_delete_is_as_if_nothing_were_there() {
        assert_eq!(print(&message(Kind::Dk, "k", 1, "a")), Print::NOTHING);
    }

    #[test]
    fn what_is_taken_away_again_leaves_no_trace() {
        let (a, b) = (Print::new(u64::MAX), Print::new(7));
        assert_eq!(a.plus(b).minus(a), b);
        assert_eq!(a.plus(b), b.plus(a));
    }

    #[test]
    fn buckets_are_ranges_that_lie_side_by_side() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let range = range_of(bucket);
            for end in [range.start(), range.end()] {
                assert_eq!(bucket_of(end), bucket);
            }
            assert_eq!(u128::from_be_bytes(range.start().0), next);
            next = u128::from_be_bytes(range.end().0).wrapping_add(1);
        }
        assert_eq!(next, 0, "and together they are everything");
    }
}
