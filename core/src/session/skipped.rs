//! What a peer's session went past because nobody whom it targets lay behind that peer.
//!
//! Whoever has joined or changed tags since, or can be reached again, may want it: then the session
//! goes back to the first of these rows that has a tag of theirs (P5), so that who comes and goes
//! costs what was published meanwhile, and not the whole log each time. What stays true: every
//! targeted row that was passed over lies, for each of its tags, at or behind the first one of
//! that tag; every event that was passed over is kept in the log until its time is over, or until
//! its room is needed and nobody who is known waits for it (P2). State needs no keeping: the newest
//! of a key stays anyway.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::Row;
use crate::types::ids::Position;
use crate::types::tags::{self, Reach};
use crate::types::time::WallMs;

/// Tags that are remembered one by one; above it any tag may have been among them.
const MAX_TAGS: usize = 1024;

/// Stretches of events that are told apart.
const MAX_STRETCHES: usize = 64;
/// Events that end within this time of each other are one stretch.
const STRETCH: Duration = Duration::from_secs(30 * 60);

/// Targeted rows that were passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The first of them; 0: none.
    first: Position,
    /// Their tags, and the first row of each; `None`: any.
    tags: Option<BTreeMap<Box<str>, Position>>,
    /// Events among them, in stretches: the first of each, and when the last of them ends.
    events: VecDeque<Stretch>,
}

/// Events that were passed over, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first of them.
    pub first: Position,
    /// When the last of them ends.
    pub ends: WallMs,
}

impl Skipped {
    /// A row was passed over.
    pub fn note(&mut self, row: &Row) {
        let Row { position, message, .. } = row;
        let position = *position;
        if self.first == Position::default() {
            (self.first, self.tags) = (position, Some(BTreeMap::new()));
        }
        self.first = self.first.min(position);
        if !message.kind().is_state() {
            self.note_event(position, row.ends);
        }
        let Some(tags) = &mut self.tags else { return };
        for tag in tags::list(message.tags()) {
            match tags.get_mut(tag) {
                Some(first) => *first = position.min(*first),
                None => drop(tags.insert(tag.into(), position)),
            }
        }
        if tags.len() > MAX_TAGS {
            self.tags = None;
        }
    }

    /// An event that ends then was passed over.
    pub fn note_event(&mut self, first: Position, ends: WallMs) {
        let full = self.events.len() >= MAX_STRETCHES;
        match self.events.back_mut() {
            Some(last) if full || ends <= last.ends.plus(STRETCH) => {
                last.ends = last.ends.max(ends)
            }
            Some(_) | None => self.events.push_back(Stretch { first, ends }),
        }
    }

    /// Events lie ahead of what was noted so far, too: stretches of the first of them, and when the
    /// last one ends.
    pub fn note_earlier(&mut self, events: impl IntoIterator<Item = Stretch>) {
        let mut all: Vec<Stretch> = self.events.drain(..).chain(events).collect();
        all.sort_by_key(|stretch| stretch.ends);
        // What lies behind something that ends later stays with it.
        let mut first = Position::new(u64::MAX);
        for stretch in all.iter_mut().rev() {
            first = first.min(stretch.first);
            stretch.first = first;
        }
        all.into_iter().for_each(|Stretch { first, ends }| self.note_event(first, ends));
    }

    /// The first event that must be kept, by what the wall clock says if it can be trusted; where
    /// only those are kept that somebody may want who has one of the tags `of`, the first of these.
    pub fn kept(&mut self, wall: Option<WallMs>, of: Option<&Reach>) -> Option<Position> {
        while let Some(wall) = wall
            && self.events.front().is_some_and(|stretch| stretch.ends <= wall)
        {
            self.events.pop_front();
        }
        let first = self.events.front()?.first;
        match (of, &self.tags) {
            (None | Some(Reach { any: true, .. }), _) => Some(first),
            (Some(of), None) => (!of.tags.as_str().is_empty()).then_some(first),
            (Some(of), Some(tags)) => {
                let wanted = of.tags.iter().filter_map(|tag| tags.get(tag)).min();
                wanted.map(|wanted| first.max(*wanted))
            }
        }
    }

    /// Whether some of it may be for whoever has these tags.
    pub fn concerns(&self, behind: &Reach) -> bool {
        let among = |tag: &str| self.tags.as_ref().is_none_or(|tags| tags.contains_key(tag));
        self.first != Position::default() && (behind.any || behind.tags.iter().any(among))
    }

    /// Goes back for whoever has these tags: answers the first row that they may want, and forgets
    /// what it knew of their tags. Rows that still lead nowhere are noted again.
    pub fn take(&mut self, behind: &Reach) -> Option<Position> {
        let Some(tags) = self.tags.as_mut().filter(|_| !behind.any) else {
            let Self { first, .. } = core::mem::take(self);
            return (first != Position::default()).then_some(first);
        };
        let first = behind.tags.iter().filter_map(|tag| tags.remove(tag)).min();
        match tags.values().min() {
            Some(left) => self.first = *left,
            None => *self = Self::default(),
        }
        first
    }

    /// As it is stored.
    pub fn record(&self) -> SkippedRecord {
        let tags = self.tags.as_ref().map(|tags| tags::join(tags.keys().map(|tag| &**tag)));
        SkippedRecord { first: self.first, tags, events: self.events.iter().copied().collect() }
    }

    /// What was stored. Where each tag begins is not: at the first of all.
    pub fn recover(SkippedRecord { first, tags, events }: SkippedRecord) -> Self {
        let tags = tags.map(|tags| tags::list(&tags).map(|tag| (tag.into(), first)).collect());
        Self { first, tags, events: events.into() }
    }
}

/// What is stored of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedRecord {
    first: Position,
    /// As a list; `None`: any.
    tags: Option<String>,
    events: Vec<Stretch>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::Hlc;
    use crate::types::ids::{Incarnation, Sequence};
    use crate::types::tags::TagSet;
    use crate::wire::message::{Fields, Kind, Message};

    fn row(position: Position, tags: &str, expires: u64) -> Row {
        let fields = Fields {
            kind: if expires > 0 { Kind::Cmd } else { Kind::Sk },
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(1),
            version: Hlc(1),
            expires: WallMs(expires),
            group: "",
            tags,
            path: "a",
            id: "m",
            key: "k",
            body: "1",
        };
        Row::new(position, Message::encode(&fields, &mut bytes::BytesMut::new()))
    }

    fn tags(list: &[&str]) -> Reach {
        Reach { tags: TagSet::new(list.iter().copied()).expect("good tags"), any: false }
    }

    // keeps: many-tags
    #[test]
    fn any_tag_concerns_all_that_was_passed_over() {
        let any = Reach { any: true, ..Reach::nobody() };
        let mut passed = Skipped::default();
        assert!(!passed.concerns(&any), "nothing was passed over");
        assert_eq!(passed.take(&any), None);
        passed.note(&row(Position::new(7), "aws,eu", 0));
        passed.note(&row(Position::new(9), "gcp", 0));
        assert!(passed.concerns(&any));
        assert_eq!(passed.take(&any), Some(Position::new(7)));
        assert_eq!(passed, Skipped::default());
    }

    // keeps: shortest-paths
    #[test]
    fn what_was_passed_over_concerns_who_has_one_of_its_tags() {
        let mut passed = Skipped::default();
        assert!(!passed.concerns(&tags(&["aws"])));
        passed.note(&row(Position::new(7), "aws,eu", 0));
        passed.note(&row(Position::new(9), "gcp", 0));
        assert!(passed.concerns(&tags(&["eu"])));
        assert!(passed.concerns(&tags(&["azure", "gcp"])));
        assert!(!passed.concerns(&tags(&["azure"])));
        assert_eq!(passed.take(&tags(&["azure"])), None);
        let mut recovered = Skipped::recover(passed.record());
        assert_eq!(recovered.record(), passed.record());
        assert_eq!(recovered.take(&tags(&["gcp"])), Some(Position::new(7)), "or later");
        assert_eq!(passed.take(&tags(&["eu"])), Some(Position::new(7)));
        assert!(!passed.concerns(&tags(&["eu"])));
    }

    // keeps: flapping-link
    #[test]
    fn going_back_for_one_tag_begins_where_that_tag_does() {
        let mut passed = Skipped::default();
        passed.note(&row(Position::new(7), "aws,eu", 0));
        passed.note(&row(Position::new(900), "gcp", 0));
        passed.note(&row(Position::new(901), "gcp", 0));
        assert_eq!(passed.take(&tags(&["gcp"])), Some(Position::new(900)));
        assert_eq!(passed.take(&tags(&["gcp"])), None);
        passed.note(&row(Position::new(950), "eu,gcp", 0));
        assert_eq!(passed.take(&tags(&["gcp"])), Some(Position::new(950)));
        assert_eq!(passed.take(&tags(&["eu", "gcp"])), Some(Position::new(7)));
        assert_eq!(passed.take(&tags(&["aws"])), Some(Position::new(7)));
        assert_eq!(passed, Skipped::default(), "nothing is left of it");
    }

    #[test]
    fn too_many_tags_are_any_tag() {
        let mut passed = Skipped::default();
        for number in 0..=MAX_TAGS as u64 {
            passed.note(&row(Position::new(1 + number), &std::format!("t{number}"), 0));
        }
        assert!(passed.concerns(&tags(&["whatever"])));
        assert!(!passed.concerns(&tags(&[])), "who has no tag is targeted by none");
        assert_eq!(Skipped::recover(passed.record()), passed);
        assert_eq!(passed.take(&tags(&["whatever"])), Some(Position::new(1)));
        assert_eq!(passed, Skipped::default());
    }

    // keeps: led-nowhere
    #[test]
    fn events_that_nobody_waits_for_may_go() {
        let mut passed = Skipped::default();
        passed.note(&row(Position::new(3), "aws", 1000));
        passed.note(&row(Position::new(5), "eu", 0));
        passed.note(&row(Position::new(7), "eu,gcp", 1000));
        let kept = |passed: &mut Skipped, of: &[&str]| passed.kept(None, Some(&tags(of)));
        assert_eq!(kept(&mut passed, &[]), None);
        assert_eq!(kept(&mut passed, &["azure"]), None);
        assert_eq!(kept(&mut passed, &["aws", "gcp"]), Some(Position::new(3)));
        assert_eq!(kept(&mut passed, &["gcp"]), Some(Position::new(7)));
        assert_eq!(kept(&mut passed, &["eu"]), Some(Position::new(5)), "or later");
        for number in 0..=MAX_TAGS as u64 {
            passed.note(&row(Position::new(9 + number), &std::format!("t{number}"), 0));
        }
        assert_eq!(kept(&mut passed, &["azure"]), Some(Position::new(3)), "any tag");
        assert_eq!(kept(&mut passed, &[]), None);
        assert_eq!(passed.kept(Some(WallMs(1000)), Some(&tags(&["aws"]))), None, "it is over");
    }

    #[test]
    fn what_lies_ahead_is_kept_as_long_as_it_lives() {
        const HOUR: u64 = 3_600_000;
        let mut passed = Skipped::default();
        passed.note_event(Position::new(500), WallMs(10 * HOUR));
        let stretch =
            |first, hours| Stretch { first: Position::new(first), ends: WallMs(hours * HOUR) };
        passed.note_earlier([stretch(1, 2), stretch(40, 24), stretch(7, 5), stretch(9, 4)]);
        passed.note_event(Position::new(600), WallMs(48 * HOUR));
        let kept = [1, 2, 4, 5, 9, 10, 24, 48].map(|hours| {
            let kept = passed.kept(Some(WallMs(hours * HOUR)), None);
            kept.map(Position::get)
        });
        let expected = [1, 7, 7, 40, 40, 40, 600].map(Some);
        assert_eq!(kept[..7], expected);
        assert_eq!(kept[7], None);
    }

    #[test]
    fn events_that_led_nowhere_are_kept_until_their_time_is_over() {
        let mut passed = Skipped::default();
        passed.note(&row(Position::new(3), "aws", 0));
        assert_eq!(passed.kept(Some(WallMs(0)), None), None, "state stays anyway");
        let hour = 60 * 60 * 1000;
        for number in 1..=3 {
            passed.note(&row(Position::new(10 * number), "aws", number * hour));
        }
        assert_eq!(passed.kept(None, None), Some(Position::new(10)));
        assert_eq!(passed.kept(Some(WallMs(2 * hour - 1)), None), Some(Position::new(20)));
        assert_eq!(passed.kept(Some(WallMs(3 * hour)), None), None);
        for number in 0..1000 {
            passed.note(&row(Position::new(100 + number), "aws", (4 + number) * hour));
        }
        assert_eq!(passed.kept(Some(WallMs(4 * hour - 1)), None), Some(Position::new(100)));
        assert_eq!(Skipped::recover(passed.record()).record(), passed.record());
    }
}
