//! Where the log ended at each start of this node.
//!
//! While a store is what it was its log only grows. So a start that found less than an earlier one
//! had told a peer of found an older copy (P2), however much was written since. What stays true: of
//! starts that found the same the newest is known, and [`MAX_STARTS`] in all.

use alloc::vec::Vec;

use crate::ids::{Incarnation, Position};

/// Starts that are remembered.
const MAX_STARTS: usize = 64;

/// The starts of this node, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Starts(Vec<(Incarnation, Position)>);

impl Starts {
    /// What was stored.
    pub fn recover(record: &[u8]) -> Self {
        Self(postcard::from_bytes(record).unwrap_or_default())
    }

    /// Adds what is stored of them to `record`.
    pub fn append_to(&self, record: Vec<u8>) -> Vec<u8> {
        postcard::to_extend(&self.0, record).expect("a record can be encoded")
    }

    /// The node starts, on a log that ends at `head`.
    pub fn begin(&mut self, incarnation: Incarnation, head: Position) {
        if self.0.last().is_some_and(|(_, last)| *last == head) {
            self.0.pop();
        }
        self.0.push((incarnation, head));
        if self.0.len() > MAX_STARTS {
            self.0.remove(0);
        }
    }

    /// Somebody was told by the start `incarnation` of a log up to `told`: the least that was there
    /// at a later start, if it is less than that.
    pub fn found_less(&self, told: Position, incarnation: Incarnation) -> Option<Position> {
        let later = self.0.iter().filter(|(start, _)| *start > incarnation);
        later.map(|(_, head)| *head).min().filter(|head| *head < told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(known: &[(u64, u64)]) -> Starts {
        let mut starts = Starts::default();
        for (incarnation, head) in known {
            starts.begin(Incarnation::new(*incarnation), Position::new(*head));
        }
        starts
    }

    fn found_less(starts: &Starts, told: u64, incarnation: u64) -> Option<u64> {
        let less = starts.found_less(Position::new(told), Incarnation::new(incarnation));
        less.map(Position::get)
    }

    #[test]
    fn a_later_start_that_found_less_than_was_told_found_an_older_copy() {
        let sound = starts(&[(1, 0), (2, 100), (3, 500)]);
        assert_eq!(found_less(&sound, 100, 1), None);
        assert_eq!(found_less(&sound, 500, 2), None);
        assert_eq!(found_less(&sound, 900, 3), None, "by this start itself");
        // The copy was made when the log ended at 150, and grew to 900 before the start 5.
        let copy = starts(&[(1, 0), (2, 100), (4, 150), (5, 900)]);
        assert_eq!(found_less(&copy, 500, 2), Some(150));
        assert_eq!(
            found_less(&copy, 500, 3),
            Some(150),
            "also by a start that it knows nothing of"
        );
        assert_eq!(found_less(&copy, 150, 2), None);
        assert_eq!(found_less(&copy, 800, 4), None);
    }

    #[test]
    fn starts_are_bounded_and_those_that_find_the_same_are_one() {
        let loops: Vec<_> = (1..1000).map(|start| (start, 7)).collect();
        assert_eq!(starts(&loops), starts(&[(999, 7)]));
        let all: Vec<_> = (1..1000).map(|start| (start, start)).collect();
        let known = starts(&all);
        assert_eq!(known.0.len(), MAX_STARTS);
        assert_eq!(Starts::recover(&known.append_to(Vec::new())), known);
        assert_eq!(Starts::recover(&[]), Starts::default());
    }
}
