//! Tags and the names of nodes, as sorted lists in one string: on the wire, in memory and in the
//! store alike.
//!
//! A tag holds no comma, so `aws,azure` is the canonical form of a tag set: sorted, without
//! repetition, joined by commas; the empty string is the empty set. A path is the same form
//! without the sorting.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;

use crate::types::ids::{BadName, is_name};

/// A set of tags in canonical form. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagSet(Arc<str>);

impl TagSet {
    /// Sorts and joins `tags`.
    ///
    /// # Errors
    /// [`BadName`] for the first that is not 1 to 64 of `A-Za-z0-9._-`.
    pub fn new<'a>(tags: impl IntoIterator<Item = &'a str>) -> Result<Self, BadName> {
        let mut sorted: Vec<&str> = tags.into_iter().collect();
        if let Some(bad) = sorted.iter().find(|tag| !is_name(tag)) {
            return Err(BadName((*bad).into()));
        }
        sorted.sort_unstable();
        sorted.dedup();
        Ok(Self(sorted.join(",").into()))
    }

    /// The set without a tag.
    pub fn empty() -> Self {
        Self("".into())
    }

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tags in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        list(&self.0)
    }

    /// Whether a message with the target tags `targets` (canonical) is for whoever has these tags:
    /// no targets match all, else one tag in common suffices (P5).
    pub fn matches(&self, targets: &str) -> bool {
        targets.is_empty() || list(targets).any(|target| self.iter().any(|tag| tag == target))
    }
}

/// Tags of one node or of several, as far as they are told one by one.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Those that are told.
    pub tags: TagSet,
    /// Whether any tag may be among them.
    pub any: bool,
}

impl Reach {
    /// Of nobody.
    pub fn nobody() -> Self {
        Self { tags: TagSet::empty(), any: false }
    }

    /// Of several.
    pub fn union<'a>(several: impl Iterator<Item = &'a Self>) -> Self {
        let (mut tags, mut any) = (BTreeSet::new(), false);
        for reach in several {
            tags.extend(reach.tags.iter());
            any |= reach.any;
        }
        // They were good before.
        Self { tags: TagSet::new(tags).unwrap_or_else(|_| TagSet::empty()), any }
    }

    /// Whether a message with these target tags may be for one of them.
    pub fn matches(&self, targets: &str) -> bool {
        self.any || self.tags.matches(targets)
    }
}

impl fmt::Debug for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0)
    }
}

impl Serialize for TagSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// The items of a comma-joined list; none for the empty string.
pub fn list(joined: &str) -> impl Iterator<Item = &str> {
    joined.split(',').filter(|item| !item.is_empty())
}

/// Whether `joined` is a canonical tag set of at most `max` tags.
pub fn is_canonical(joined: &str, max: usize) -> bool {
    joined.is_empty()
        || (joined.split(',').all(is_name)
            && joined.split(',').count() <= max
            && joined.split(',').zip(joined.split(',').skip(1)).all(|(a, b)| a < b))
}

/// Whether `joined` is a path of 1 to `max` node ids, none twice.
pub fn is_path(joined: &str, max: usize) -> bool {
    let mut ids: Vec<&str> = joined.split(',').take(max + 1).collect();
    let well_formed = ids.len() <= max && ids.iter().all(|id| is_name(id));
    ids.sort_unstable();
    well_formed && ids.windows(2).all(|pair| pair[0] != pair[1])
}

/// Joins a list that holds no commas.
pub fn join<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut joined = String::new();
    for item in items {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(item);
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_is_sorted_and_without_repetition() {
        let set = TagSet::new(["gcp", "aws", "gcp"]).expect("good tags");
        assert_eq!(set.as_str(), "aws,gcp");
        assert!(is_canonical(set.as_str(), 2));
        assert!(!is_canonical(set.as_str(), 1));
        assert!(!is_canonical("gcp,aws", 2));
        assert!(!is_canonical("aws,aws", 2));
        assert!(!is_canonical(",", 2));
    }

    // keeps: tags-any-node
    #[test]
    fn one_common_tag_matches_and_no_target_matches_all() {
        let set = TagSet::new(["aws", "prod"]).expect("good tags");
        assert!(set.matches(""));
        assert!(set.matches("gcp,prod"));
        assert!(!set.matches("gcp,pro"));
        assert!(TagSet::empty().matches(""));
        assert!(!TagSet::empty().matches("aws"));
    }

    // keeps: once-no-loops
    #[test]
    fn a_path_names_each_node_once() {
        assert!(is_path("a", 1));
        assert!(is_path("b,a", 2));
        assert!(!is_path("b,a,c", 2));
        assert!(!is_path("a,b,a", 9));
        assert!(!is_path("", 9));
    }

    fn tag() -> impl Strategy<Value = String> {
        prop_oneof![8 => "[a-d]{1,2}", 1 => "[A-Za-z0-9._-]{1,64}"]
    }

    proptest! {
        #[test]
        fn a_tag_set_is_a_set(
            own in prop::collection::vec(tag(), 0..8),
            targets in prop::collection::vec(tag(), 0..8),
        ) {
            let set = |tags: &[String]| TagSet::new(tags.iter().map(String::as_str));
            let (own_set, target_set) = (set(&own).expect("good"), set(&targets).expect("good"));
            let (own, targets): (BTreeSet<_>, BTreeSet<_>) =
                (own.iter().collect(), targets.iter().collect());
            prop_assert!(own_set.iter().eq(own.iter().copied()), "sorted, without repetition");
            prop_assert!(is_canonical(own_set.as_str(), own.len().max(1)));
            prop_assert!(own.is_empty() || !is_canonical(own_set.as_str(), own.len() - 1));
            let expected = targets.is_empty() || !own.is_disjoint(&targets);
            prop_assert_eq!(own_set.matches(target_set.as_str()), expected);
        }

        #[test]
        fn canonical_is_what_a_set_is_written_as(text in "[a-c,é]{0,6}", max in 0..4_usize) {
            let tags: Vec<&str> = list(&text).collect();
            let count = tags.len();
            let canonical = TagSet::new(tags).is_ok_and(|set| set.as_str() == text);
            prop_assert_eq!(is_canonical(&text, max), canonical && count <= max);
        }

        #[test]
        fn a_path_is_a_list_without_repetition(text in "[a-c,é]{0,8}", max in 1..5_usize) {
            let ids: Vec<&str> = text.split(',').collect();
            let distinct: BTreeSet<&&str> = ids.iter().collect();
            let expected = ids.iter().all(|id| is_name(id))
                && distinct.len() == ids.len()
                && ids.len() <= max;
            prop_assert_eq!(is_path(&text, max), expected);
            if expected {
                prop_assert_eq!(join(list(&text)), text);
            }
        }
    }
}
