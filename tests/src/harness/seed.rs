//! Chance that can be repeated: everything drawn follows from one number.

use std::env;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::announce;

/// A source of numbers (SplitMix64: Steele, Lea, Flood, 2014).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The number in `SLIPSTREAM_TESTS_SEED`, or a fresh one; it is printed, because that is how
    /// a failure is repeated.
    ///
    /// # Panics
    /// If the variable holds no number.
    pub fn of(story: &str) -> Self {
        let seed = env::var("SLIPSTREAM_TESTS_SEED").map_or_else(
            |_| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                now.as_nanos() as u64
            },
            |text| text.parse().expect("SLIPSTREAM_TESTS_SEED is a number"),
        );
        announce(&format!("{story}: SLIPSTREAM_TESTS_SEED={seed}"));
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end as u64) as usize
    }

    /// So many milliseconds, within the range.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.draw() % (range.end - range.start))
    }

    /// Puts things into another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (2..=things.len()).rev() {
            things.swap(end - 1, self.below(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_numbers() {
        let (mut one, mut other) = (Seed(7), Seed(7));
        let drawn: Vec<_> = (0..9).map(|_| one.below(100)).collect();
        assert_eq!(drawn, (0..9).map(|_| other.below(100)).collect::<Vec<_>>());
        assert!(drawn.iter().any(|number| *number != drawn[0]));
        let mut things: Vec<_> = (0..50).collect();
        one.shuffle(&mut things);
        assert_ne!(things, (0..50).collect::<Vec<_>>());
        things.sort_unstable();
        assert_eq!(things, (0..50).collect::<Vec<_>>());
    }
}
