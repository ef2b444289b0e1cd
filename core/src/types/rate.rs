//! Rates and waits: a token bucket, exponential back-off with full jitter, and the seeded
//! generator that the jitter comes from.

use core::time::Duration;

use crate::types::time::Instant;

/// A token bucket: so many a second, and at most one second's worth at once.
#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: u32,
    /// Tokens in millionths.
    micro_tokens: u64,
    filled: Instant,
}

impl RateLimit {
    /// A full bucket; a rate of 0 does not limit.
    pub fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, micro_tokens: u64::from(per_second) * 1_000_000, filled: now }
    }

    /// Takes one token, if there is one.
    ///
    /// # Errors
    /// How long until the next one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let rate = u64::from(self.per_second);
        let elapsed = now.as_micros().saturating_sub(self.filled.as_micros());
        let full = rate * 1_000_000;
        self.micro_tokens =
            self.micro_tokens.saturating_add(elapsed.saturating_mul(rate)).min(full);
        self.filled = now;
        if self.micro_tokens >= 1_000_000 {
            self.micro_tokens -= 1_000_000;
            return Ok(());
        }
        Err(Duration::from_micros((1_000_000 - self.micro_tokens).div_ceil(rate)))
    }

    /// Takes a token back that was taken for nothing.
    pub fn give_back(&mut self) {
        let full = u64::from(self.per_second) * 1_000_000;
        self.micro_tokens = self.micro_tokens.saturating_add(1_000_000).min(full);
    }
}

/// SplitMix64: small, seeded, good enough for jitter and message ids.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration in the upper half of `limit`: jitter that keeps a wait a wait.
    pub fn upper_half(&mut self, limit: Duration) -> Duration {
        let half = limit / 2;
        half + self.below(half)
    }

    /// A duration from zero to `limit`: full jitter.
    pub fn below(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.next() % (micros + 1))
    }
}

/// Upper bound of the wait after `failures` failures: `initial`, doubled each time, at most `max`.
pub fn backoff(initial: Duration, max: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    initial.checked_mul(factor).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_says_how_long_to_wait() {
        let mut limit = RateLimit::new(10, Instant::from_micros(0));
        for _ in 0..10 {
            assert_eq!(limit.take(Instant::from_micros(0)), Ok(()));
        }
        assert_eq!(limit.take(Instant::from_micros(0)), Err(Duration::from_millis(100)));
        assert_eq!(limit.take(Instant::from_micros(100_000)), Ok(()));
        assert!(RateLimit::new(0, Instant::from_micros(0)).take(Instant::from_micros(0)).is_ok());
        limit.give_back();
        assert_eq!(limit.take(Instant::from_micros(100_000)), Ok(()));
        assert!(limit.take(Instant::from_micros(100_000)).is_err());
    }

    // keeps: retry-then-dead
    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let (initial, max) = (Duration::from_millis(500), Duration::from_secs(30));
        let waits = [1, 2, 3, 7, 8, 40, u32::MAX].map(|failures| backoff(initial, max, failures));
        let expected = [500, 1_000, 2_000, 30_000, 30_000, 30_000, 30_000];
        assert_eq!(waits, expected.map(Duration::from_millis));
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_rate(
            rate in 1..50_u32,
            waits in prop::collection::vec(0..400_000_u64, 1..200),
        ) {
            let mut limit = RateLimit::new(rate, Instant::from_micros(0));
            let (mut now, mut given) = (0_u64, Vec::new());
            for wait in waits {
                now += wait;
                match limit.take(Instant::from_micros(now)) {
                    Ok(()) => given.push(now),
                    Err(wait) => {
                        // What it says is enough, and less is not.
                        let micros = wait.as_micros() as u64;
                        prop_assert!(micros > 0);
                        let at = |micros| Instant::from_micros(now + micros);
                        prop_assert!(limit.clone().take(at(micros - 1)).is_err());
                        prop_assert_eq!(limit.clone().take(at(micros)), Ok(()));
                    }
                }
            }
            // Over any stretch of time: its rate, and one second's worth that was saved up.
            for (first, start) in given.iter().enumerate() {
                for (last, end) in given.iter().enumerate().skip(first) {
                    let allowed = u64::from(rate) + (end - start) * u64::from(rate) / 1_000_000;
                    prop_assert!((last - first + 1) as u64 <= allowed + 1);
                }
            }
        }

        #[test]
        fn back_off_is_what_it_says(
            initial in 1..100_000_u64,
            max in 1..1_000_000_u64,
            n in 0..99_u32,
        ) {
            let (first, bound) = (Duration::from_millis(initial), Duration::from_millis(max));
            let doubled = u128::from(initial) << n.saturating_sub(1);
            let expected = Duration::from_millis(doubled.min(u128::from(max)) as u64);
            prop_assert_eq!(backoff(first, bound, n), expected);
        }

        #[test]
        fn jitter_stays_within_its_limit(seed in any::<u64>(), limit in 0..10_000_000_u64) {
            let (mut random, limit) = (Random::new(seed), Duration::from_micros(limit));
            prop_assert!(random.below(limit) <= limit);
            let upper = random.upper_half(limit);
            prop_assert!(limit / 2 <= upper && upper <= limit);
        }
    }
}
