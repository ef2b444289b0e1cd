//! What a peer's session went past because nobody whom it targets lay behind that peer.
//!
//! Whoever has joined or changed tags since may want it: then the session goes back to the first
//! of these rows (P5). What stays true: every targeted row that was passed over lies at or behind
//! `first`, and its tags are among `tags`.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;

use crate::ids::Position;
use crate::tags::{self, TagSet};

/// Tags that are remembered one by one; above it any tag may have been among them.
const MAX_TAGS: usize = 1024;

/// Targeted rows that were passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// The first of them; 0: none.
    first: Position,
    /// Their tags; `None`: any.
    tags: Option<BTreeSet<Box<str>>>,
}

impl Passed {
    /// A row for these targets was passed over.
    pub fn note(&mut self, position: Position, targets: &str) {
        if self.first == Position::default() {
            (self.first, self.tags) = (position, Some(BTreeSet::new()));
        }
        self.first = self.first.min(position);
        let Some(tags) = &mut self.tags else { return };
        for tag in tags::list(targets) {
            if !tags.contains(tag) {
                tags.insert(tag.into());
            }
        }
        if tags.len() > MAX_TAGS {
            self.tags = None;
        }
    }

    /// Whether some of it may be for whoever has these tags.
    pub fn concerns(&self, behind: &TagSet) -> bool {
        let among = |tag: &str| self.tags.as_ref().is_none_or(|tags| tags.contains(tag));
        self.first != Position::default() && behind.iter().any(among)
    }

    /// Goes back: answers the first of the rows, and forgets them.
    pub fn take(&mut self) -> Position {
        core::mem::take(self).first
    }

    /// How it is stored: the first row, and the tags as a list, `None` for any.
    pub fn record(&self) -> (Position, Option<String>) {
        let tags = self.tags.as_ref().map(|tags| tags::join(tags.iter().map(|tag| &**tag)));
        (self.first, tags)
    }

    /// What was stored.
    pub fn recover(first: Position, tags: Option<&str>) -> Self {
        Self { first, tags: tags.map(|tags| tags::list(tags).map(Into::into).collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(list: &[&str]) -> TagSet {
        TagSet::new(list.iter().copied()).expect("good tags")
    }

    #[test]
    fn what_was_passed_over_concerns_who_has_one_of_its_tags() {
        let mut passed = Passed::default();
        assert!(!passed.concerns(&tags(&["aws"])));
        passed.note(Position::new(7), "aws,eu");
        passed.note(Position::new(9), "gcp");
        assert!(passed.concerns(&tags(&["eu"])));
        assert!(passed.concerns(&tags(&["azure", "gcp"])));
        assert!(!passed.concerns(&tags(&["azure"])));
        let (first, list) = passed.record();
        assert_eq!(Passed::recover(first, list.as_deref()), passed);
        assert_eq!(passed.take(), Position::new(7));
        assert!(!passed.concerns(&tags(&["eu"])));
    }

    #[test]
    fn too_many_tags_are_any_tag() {
        let mut passed = Passed::default();
        for number in 0..=MAX_TAGS as u64 {
            passed.note(Position::new(1 + number), &std::format!("t{number}"));
        }
        assert!(passed.concerns(&tags(&["whatever"])));
        assert!(!passed.concerns(&tags(&[])), "who has no tag is targeted by none");
        let (first, list) = passed.record();
        assert_eq!(Passed::recover(first, list.as_deref()), passed);
    }
}
