//! Index of interests: which connected applications a message is for, by its key and its tags.
//!
//! Applications are found by their key prefixes and by their tags; of those that either way leads
//! to, the fewer are asked for the other. What stays true: whoever a row is owed to is found.
//! Whoever is found may still not be owed it, as its publisher; that is for the session to judge.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound::{Included, Unbounded};

use crate::store::Row;
use crate::types::ids::SessionId;
use crate::types::tags::{TagSet, list};

/// Index of the interests of connected applications.
#[derive(Debug, Default)]
pub struct Interests {
    /// Sessions by key prefix.
    prefixes: BTreeMap<Box<str>, BTreeSet<SessionId>>,
    /// Sessions that receive every key.
    every_key: BTreeSet<SessionId>,
    /// Sessions by each of their tags.
    tags: BTreeMap<Box<str>, BTreeSet<SessionId>>,
    /// What each session is entered under.
    entries: BTreeMap<SessionId, InterestEntry>,
}

/// What a session is entered under.
#[derive(Debug)]
struct InterestEntry {
    /// Sorted key prefixes; `None`: all keys.
    keys: Option<Vec<String>>,
    tags: TagSet,
}

impl Interests {
    /// Enters a session, in place of what it was entered under before. `keys` are its key
    /// prefixes, sorted, `None` all keys; `tags` are those that it receives by.
    pub fn enter(&mut self, session: SessionId, keys: Option<&[String]>, tags: &TagSet) {
        self.leave(session);
        match keys {
            Some(keys) => {
                for prefix in keys {
                    self.prefixes.entry(prefix.as_str().into()).or_default().insert(session);
                }
            }
            None => drop(self.every_key.insert(session)),
        }
        for tag in tags.iter() {
            self.tags.entry(tag.into()).or_default().insert(session);
        }
        let entry = InterestEntry { keys: keys.map(<[String]>::to_vec), tags: tags.clone() };
        self.entries.insert(session, entry);
    }

    /// Takes a session out, if it is entered.
    pub fn leave(&mut self, session: SessionId) {
        let Some(InterestEntry { keys, tags }) = self.entries.remove(&session) else { return };
        self.every_key.remove(&session);
        let keys = keys.unwrap_or_default();
        keys.iter().for_each(|prefix| take_out(&mut self.prefixes, prefix, session));
        tags.iter().for_each(|tag| take_out(&mut self.tags, tag, session));
    }

    /// Whether the session is entered.
    pub fn knows(&self, session: SessionId) -> bool {
        self.entries.contains_key(&session)
    }

    /// The entered sessions that one of these rows may be for.
    pub fn of(&self, rows: &[Row]) -> BTreeSet<SessionId> {
        let mut found = BTreeSet::new();
        for row in rows {
            match row.only {
                Some(only) => drop(found.insert(only)),
                None => self.find(row.message.key(), row.message.tags(), &mut found),
            }
        }
        found
    }

    fn find(&self, key: &str, tags: &str, found: &mut BTreeSet<SessionId>) {
        let greatest = |upto: &str| {
            let (prefix, _) =
                self.prefixes.range::<str, _>((Unbounded, Included(upto))).next_back()?;
            Some(&**prefix)
        };
        let by_key = || {
            let prefixes = prefixes_of(key, greatest).filter_map(|it| self.prefixes.get(it));
            prefixes.chain([&self.every_key])
        };
        if tags.is_empty() {
            return found.extend(by_key().flatten());
        }
        let by_tag = || list(tags).filter_map(|tag| self.tags.get(tag));
        let tagged: usize = by_tag().map(BTreeSet::len).sum();
        if tagged <= by_key().map(BTreeSet::len).sum() {
            let wants = |id: &&SessionId| self.entries.get(id).is_some_and(|it| it.wants(key));
            found.extend(by_tag().flatten().filter(wants));
        } else {
            let is_tagged = |id: &&SessionId| by_tag().any(|tagged| tagged.contains(id));
            found.extend(by_key().flatten().filter(is_tagged));
        }
    }
}

impl InterestEntry {
    fn wants(&self, key: &str) -> bool {
        self.keys.as_ref().is_none_or(|keys| begins_with_any(keys, key))
    }
}

fn take_out(of: &mut BTreeMap<Box<str>, BTreeSet<SessionId>>, name: &str, session: SessionId) {
    if let Some(sessions) = of.get_mut(name) {
        sessions.remove(&session);
        if sessions.is_empty() {
            of.remove(name);
        }
    }
}

/// Whether one of these sorted prefixes begins the key.
pub fn begins_with_any(sorted: &[String], key: &str) -> bool {
    let greatest = |upto: &str| {
        let after = sorted.partition_point(|prefix| prefix.as_str() <= upto);
        Some(sorted[..after].last()?.as_str())
    };
    prefixes_of(key, greatest).next().is_some()
}

/// Yields the members of a sorted set that begin the key, longest first. `greatest` answers the
/// greatest member at or below a string. Each step leaves out what the key and that member do not
/// share, so there are about as many as members that begin the key.
fn prefixes_of<'a>(
    key: &str,
    greatest: impl Fn(&str) -> Option<&'a str>,
) -> impl Iterator<Item = &'a str> {
    let mut upto = Some(key);
    core::iter::from_fn(move || {
        loop {
            let candidate = greatest(upto?)?;
            let shared = shared_prefix(key, candidate);
            if shared.len() == candidate.len() {
                // Those that begin it in turn are shorter.
                let shorter = shared.char_indices().next_back().map(|(at, _)| &shared[..at]);
                upto = shorter;
                return Some(candidate);
            }
            upto = Some(shared);
        }
    })
}

/// What both begin with, in whole characters.
fn shared_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    &a[..a.floor_char_boundary(same)]
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nested_prefixes_are_all_found() {
        const SORTED: [&str; 6] = ["a", "ab", "abcd", "abx", "b", "ä"];
        fn greatest(upto: &str) -> Option<&'static str> {
            SORTED[..SORTED.partition_point(|prefix| *prefix <= upto)].last().copied()
        }
        let found = |key| prefixes_of(key, greatest).collect::<Vec<_>>();
        assert_eq!(found("abcde"), ["abcd", "ab", "a"]);
        assert_eq!(found("abxz"), ["abx", "ab", "a"]);
        assert_eq!(found("ac"), ["a"]);
        assert_eq!(found("ärger"), ["ä"]);
        assert_eq!(found("ö"), Vec::<&str>::new());
        assert_eq!(found(""), Vec::<&str>::new());
    }

    #[test]
    fn a_session_that_left_is_not_known() {
        let (mut interests, session) = (Interests::default(), SessionId::new(7));
        let tags = TagSet::new(["aws"]).expect("tags");
        interests.enter(session, None, &tags);
        interests.enter(session, Some(&strings(&["order:"])), &tags);
        assert!(interests.knows(session) && interests.every_key.is_empty(), "its former entry");
        interests.leave(session);
        assert!(!interests.knows(session) && interests.prefixes.is_empty());
        assert!(interests.tags.is_empty());
    }

    proptest! {
        // keeps: interest-index
        #[test]
        fn a_prefix_is_found_as_by_looking_at_each(
            prefixes in prop::collection::btree_set("[abä]{1,4}", 0..12),
            key in "[abäz]{0,6}",
        ) {
            let sorted: Vec<String> = prefixes.into_iter().collect();
            let each = sorted.iter().any(|prefix| key.starts_with(prefix.as_str()));
            prop_assert_eq!(begins_with_any(&sorted, &key), each);
        }
    }

    prop_compose! {
        fn some(all: &'static [&'static str])(
            some in prop::sample::subsequence(all, 0..=all.len()),
        ) -> Vec<String> {
            strings(&some)
        }
    }

    proptest! {
        // keeps: interest-index
        #[test]
        fn who_is_found_is_who_a_message_is_for(
            who in prop::collection::vec(
                (prop::option::of(some(&["a", "ab", "b", "ba"])), some(&["eu", "gcp", "us"])),
                0..8,
            ),
            key in "[abc]{1,3}",
            targets in some(&["eu", "gcp", "us"]),
        ) {
            let (mut interests, mut expected) = (Interests::default(), BTreeSet::new());
            let targets = TagSet::new(targets.iter().map(String::as_str)).expect("tags");
            for (number, (keys, tags)) in (1..).zip(&who) {
                let tags = TagSet::new(tags.iter().map(String::as_str)).expect("tags");
                interests.enter(SessionId::new(number), keys.as_deref(), &tags);
                let wants = keys.as_ref().is_none_or(|keys| begins_with_any(keys, &key));
                if wants && tags.matches(targets.as_str()) {
                    expected.insert(SessionId::new(number));
                }
            }
            let mut found = BTreeSet::new();
            interests.find(&key, targets.as_str(), &mut found);
            prop_assert_eq!(found, expected);
            (1..=who.len() as u64).for_each(|number| interests.leave(SessionId::new(number)));
            prop_assert!(interests.prefixes.is_empty() && interests.every_key.is_empty());
            prop_assert!(interests.tags.is_empty() && interests.entries.is_empty());
        }
    }

    #[test]
    fn no_prefix_is_no_interest() {
        assert!(!begins_with_any(&[], "order:1"));
        assert!(begins_with_any(&["order:".to_string()], "order:1"));
    }
}
