//! How many bytes of the log lie behind a position: what tells the size of an outbox without
//! looking at it, also while its session is away and after a restart.
//!
//! A bounded number of marks (a position and the bytes up to it) with a straight line between two
//! of them. What stays true: nothing lies behind the end of the log, and the error is less than
//! the bytes between two marks, which are a fixed step, doubled whenever there are too many.

use alloc::vec::Vec;

use crate::types::ids::Position;

/// Marks in memory.
const MAX_MARKS: usize = 1024;
/// Least bytes between two marks.
const STEP_BYTES: u64 = 64 << 10;

/// The bytes of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Ascending; the first one is the beginning.
    marks: Vec<(Position, u64)>,
    step: u64,
    end: (Position, u64),
}

impl Default for Backlog {
    fn default() -> Self {
        let begin = (Position::default(), 0);
        Self { marks: Vec::from([begin]), step: STEP_BYTES, end: begin }
    }
}

impl Backlog {
    /// The log goes on up to `end` with rows of so many bytes, by
    /// [`Row::size`](crate::store::Row::size).
    pub fn grow(&mut self, end: Position, bytes: u64) {
        let (_, marked) = self.marks.last().copied().unwrap_or_default();
        if self.end.1 - marked >= self.step {
            self.marks.push(self.end);
        }
        self.end = (end.max(self.end.0), self.end.1 + bytes);
        if self.marks.len() > MAX_MARKS {
            self.step *= 2;
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// Bytes of the rows from `next` on.
    pub fn from(&self, next: Position) -> u64 {
        let before = next.before();
        let after = self.marks.partition_point(|(position, _)| *position <= before);
        let low = self.marks[..after].last().copied().unwrap_or_default();
        let high = self.marks.get(after).copied().unwrap_or(self.end);
        let (rows, done) = (high.0.get() - low.0.get(), before.get() - low.0.get());
        if done >= rows {
            return self.end.1 - high.1;
        }
        let done = u128::from(high.1 - low.1) * u128::from(done) / u128::from(rows);
        self.end.1 - low.1 - done as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // keeps: outbox-size
    #[test]
    fn a_position_tells_the_bytes_from_there_on() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.from(Position::new(0)), 0);
        assert_eq!(backlog.from(Position::new(1)), 0);
        for row in 1..=1000 {
            backlog.grow(Position::new(row), 1 << 10);
        }
        assert_eq!(backlog.from(Position::new(1)), 1000 << 10);
        assert_eq!(backlog.from(Position::new(501)), 500 << 10);
        assert_eq!(backlog.from(Position::new(1000)), 1 << 10);
        assert_eq!(backlog.from(Position::new(1001)), 0);
        assert_eq!(backlog.from(Position::new(5000)), 0);
    }

    // keeps: outbox-size
    #[test]
    fn marks_are_bounded_and_so_is_their_error() {
        let mut backlog = Backlog::default();
        let size = |row: u64| 100 + row % 7 * 1000;
        let mut total = 0;
        for row in 1..=2_000_000 {
            total += size(row);
            backlog.grow(Position::new(row), size(row));
        }
        assert!(backlog.marks.len() <= MAX_MARKS && backlog.step <= 16 << 20);
        let mut sum = 0;
        for row in 1..=2_000_000 {
            if row % 9973 == 0 {
                let told = backlog.from(Position::new(row));
                assert!(told.abs_diff(total - sum) < backlog.step + 8000, "row {row}: {told}");
            }
            sum += size(row);
        }
    }
}
