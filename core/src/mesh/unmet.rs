//! Configured peers that were never reached: events are kept for them as for a session (P2).
//!
//! Nobody knows yet who such a peer is, so it has no session; but it is a destination that somebody
//! has asked for. What stays true: from the time an entry is first configured until it has led to a
//! node, is taken out, or has waited for the time to live of sessions, no event goes before its own
//! time is over. When the peer comes it begins at the first row, as any new one.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::session::{Skipped, Stretch};
use crate::types::ids::{Hash128, Position};
use crate::types::time::WallMs;

/// The entries of the configuration, and what is kept for those that have led nowhere.
#[derive(Debug, Default)]
pub struct Unmet {
    /// By a hash of its URL, which may hold a password: since when it is waited for; `None`: it has
    /// led to a node, or its time is over.
    entries: BTreeMap<Hash128, Option<WallMs>>,
    events: Skipped,
}

impl Unmet {
    /// What was stored, and what follows in the record.
    pub fn recover(record: &[u8]) -> (Self, &[u8]) {
        let Ok(((entries, events), rest)) = postcard::take_from_bytes(record) else {
            return (Self::default(), &[]);
        };
        (Self { entries, events: Skipped::recover(events) }, rest)
    }

    /// Adds what is stored of them to `record`.
    pub fn append_to(&self, record: Vec<u8>) -> Vec<u8> {
        let stored = (&self.entries, self.events.record());
        postcard::to_extend(&stored, record).expect("a record can be encoded")
    }

    /// These are the entries now. For a new one the events that are there are kept, all of them
    /// until `ends`, and those of `longer` as long as that says.
    pub fn configure(
        &mut self,
        urls: &[String],
        now: WallMs,
        (ends, longer): (WallMs, Vec<Stretch>),
    ) {
        let hashes: BTreeSet<Hash128> = urls.iter().map(|url| hash(url)).collect();
        self.entries.retain(|url, _| hashes.contains(url));
        let mut is_new = false;
        for url in hashes {
            if let Entry::Vacant(entry) = self.entries.entry(url) {
                entry.insert(Some(now));
                is_new = true;
            }
        }
        if is_new {
            let all = Stretch { first: Position::new(1), ends };
            self.events.note_earlier(longer.into_iter().chain([all]));
        }
    }

    /// Events were found of which it was not known when they end.
    pub fn found(&mut self, events: impl IntoIterator<Item = Stretch>) {
        if self.is_waiting() {
            self.events.note_earlier(events);
        }
    }

    /// An entry has led to a node. Answers whether it was waited for.
    pub fn met(&mut self, url: &str) -> bool {
        self.entries.get_mut(&hash(url)).is_some_and(|since| since.take().is_some())
    }

    /// Whether any is waited for.
    pub fn is_waiting(&self) -> bool {
        self.entries.values().any(Option::is_some)
    }

    /// Every wait counts from now on: the clock may have been wrong.
    pub fn begin_anew(&mut self, now: WallMs) {
        self.entries.values_mut().flatten().for_each(|since| *since = now);
    }

    /// Gives up those of `urls` that began to wait before `before`.
    pub fn give_up(&mut self, urls: &[String], before: WallMs) -> Vec<String> {
        let since = |url: &str| self.entries.get(&hash(url)).copied().flatten();
        let is_late = |url: &&String| since(url).is_some_and(|since| since <= before);
        let over: Vec<String> = urls.iter().filter(is_late).cloned().collect();
        over.iter().for_each(|url| _ = self.met(url));
        over
    }

    /// The log has an event more, which ends then.
    pub fn note(&mut self, position: Position, ends: WallMs) {
        if self.is_waiting() {
            self.events.note_event(position, ends);
        }
    }

    /// The first event that is kept, by what the wall clock says if it can be trusted.
    pub fn kept(&mut self, wall: Option<WallMs>) -> Option<Position> {
        if !self.is_waiting() {
            self.events = Skipped::default();
        }
        self.events.kept(wall, None)
    }
}

fn hash(url: &str) -> Hash128 {
    Hash128::of(&[url.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(list: &[&str]) -> Vec<String> {
        list.iter().map(|url| String::from(*url)).collect()
    }

    fn at(position: u64) -> Option<Position> {
        Some(Position::new(position))
    }

    #[test]
    fn events_are_kept_while_an_entry_has_led_nowhere() {
        let mut unmet = Unmet::default();
        unmet.note(Position::new(3), WallMs(9_000_000));
        assert_eq!(unmet.kept(Some(WallMs(0))), None, "nobody is waited for");
        unmet.configure(&urls(&["a", "b"]), WallMs(0), (WallMs(1000), Vec::new()));
        unmet.note(Position::new(7), WallMs(9_000_000));
        assert_eq!(unmet.kept(Some(WallMs(999))), at(1));
        assert_eq!(unmet.kept(Some(WallMs(1000))), at(7));
        assert!(unmet.met("a") && !unmet.met("a"));
        let record = unmet.append_to(Vec::new());
        let (mut unmet, _) = Unmet::recover(&record);
        assert_eq!(unmet.kept(Some(WallMs(1000))), at(7), "for the other one");
        unmet.configure(&urls(&["a"]), WallMs(1000), (WallMs(2000), Vec::new()));
        assert_eq!(unmet.kept(Some(WallMs(1000))), None);
    }

    // keeps: peer-never-reached
    #[test]
    fn an_entry_is_waited_for_as_long_as_a_session() {
        let mut unmet = Unmet::default();
        unmet.configure(&urls(&["a"]), WallMs(10), (WallMs(1000), Vec::new()));
        assert!(unmet.give_up(&urls(&["a"]), WallMs(9)).is_empty());
        unmet.begin_anew(WallMs(20));
        assert!(unmet.give_up(&urls(&["a"]), WallMs(19)).is_empty());
        assert_eq!(unmet.give_up(&urls(&["a"]), WallMs(20)), ["a"]);
        unmet.configure(&urls(&["a"]), WallMs(30), (WallMs(1000), Vec::new()));
        assert!(!unmet.is_waiting(), "it is given up until it is taken out");
    }
}
