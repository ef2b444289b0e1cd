//! What was published when, and what came of it: the account that the three tasks of a
//! measurement share.
//!
//! Messages are numbered from 0. A lock is taken once per frame, not per message.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::daemon::failed::Failed;

/// Nothing came for so long: it will not come any more.
const STALL: Duration = Duration::from_secs(20);

/// Latencies are told apart up to this; longer ones count as this.
const LONGEST_NS: u64 = 600_000_000_000;

/// The account.
#[derive(Debug)]
pub(super) struct Board {
    since: Instant,
    /// When each message was published, or should have been, in nanoseconds.
    published: Mutex<Vec<u64>>,
    /// Receipts, in the eyes of the publisher.
    pub(super) receipts: BoardTrack,
    /// Deliveries, in the eyes of the subscriber.
    pub(super) deliveries: BoardTrack,
}

impl Board {
    pub(super) fn new() -> Result<Self, Failed> {
        Ok(Self {
            since: Instant::now(),
            published: Mutex::new(Vec::new()),
            receipts: BoardTrack::new("receipts")?,
            deliveries: BoardTrack::new("deliveries")?,
        })
    }

    /// Nanoseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// `instant` in nanoseconds since the beginning.
    pub(super) fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.since);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The next `count` messages go out, as of `at`.
    pub(super) fn publishing(&self, count: usize, at: u64) {
        let mut published = lock(&self.published);
        let length = published.len() + count;
        published.resize(length, at);
    }

    /// Takes note of what arrived together; each is a number, or what is wrong with it.
    pub(super) fn arrived(
        &self,
        track: &BoardTrack,
        numbers: impl IntoIterator<Item = Result<u64, String>>,
    ) {
        let now = self.now();
        let published = lock(&self.published);
        let mut tally = lock(&track.tally);
        for number in numbers {
            match number {
                Ok(number) => tally.note(number, now, &published),
                Err(wrong) => tally.fail(wrong),
            }
        }
        drop((published, tally));
        track.changed.notify_one();
    }
}

/// One of the two ends.
#[derive(Debug)]
pub(super) struct BoardTrack {
    what: &'static str,
    tally: Mutex<Tally>,
    // One task at a time waits for it.
    changed: Notify,
}

/// What has arrived.
#[derive(Debug)]
pub(super) struct Tally {
    /// Different messages.
    pub(super) count: u64,
    /// One more than the highest number.
    pub(super) upto: u64,
    /// When the last one came.
    pub(super) last: u64,
    seen: Vec<bool>,
    latencies: Histogram<u64>,
    wrong: Option<String>,
}

impl Tally {
    /// Whether this message has arrived.
    pub(super) fn has(&self, number: u64) -> bool {
        usize::try_from(number).ok().and_then(|at| self.seen.get(at)).is_some_and(|seen| *seen)
    }

    fn note(&mut self, number: u64, now: u64, published: &[u64]) {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(since) = published.get(at) else {
            return self.fail(format!("number {number} arrived and was never published"));
        };
        if self.seen.len() < published.len() {
            self.seen.resize(published.len(), false);
        }
        if std::mem::replace(&mut self.seen[at], true) {
            return self.fail(format!("number {number} arrived twice"));
        }
        self.count += 1;
        self.upto = self.upto.max(number + 1);
        self.last = now;
        self.latencies.saturating_record(now.saturating_sub(*since));
    }

    fn fail(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }
}

impl BoardTrack {
    fn new(what: &'static str) -> Result<Self, Failed> {
        let latencies = Histogram::new_with_max(LONGEST_NS, 3)
            .map_err(|error| Failed::general(error.to_string()))?;
        let tally = Tally { count: 0, upto: 0, last: 0, seen: Vec::new(), latencies, wrong: None };
        Ok(Self { what, tally: Mutex::new(tally), changed: Notify::new() })
    }

    /// The connection behind it has ended.
    pub(super) fn ended(&self, reason: String) {
        lock(&self.tally).fail(reason);
        self.changed.notify_one();
    }

    /// The latencies since the last call, and when the last message came.
    pub(super) fn take(&self) -> (Histogram<u64>, u64) {
        let mut tally = lock(&self.tally);
        let latencies = tally.latencies.clone();
        tally.latencies.reset();
        (latencies, tally.last)
    }

    /// Waits until `enough` has arrived.
    pub(super) async fn until(&self, enough: impl Fn(&Tally) -> bool) -> Result<(), Failed> {
        let what = self.what;
        let mut before = 0;
        loop {
            let (count, upto) = {
                let tally = lock(&self.tally);
                if let Some(wrong) = &tally.wrong {
                    return Err(Failed::general(format!("{what}: {wrong}")));
                }
                if enough(&tally) {
                    return Ok(());
                }
                (tally.count, tally.upto)
            };
            if timeout(STALL, self.changed.notified()).await.is_err() && count == before {
                return Err(Failed::general(format!(
                    "{what}: nothing came for {} s, {count} of {upto} or more so far; \
                     are the two nodes linked, and do their tags match?",
                    STALL.as_secs()
                )));
            }
            before = count;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done where it could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_arrives_once_is_counted() {
        let board = Board::new().unwrap();
        board.publishing(3, board.now());
        board.arrived(&board.receipts, [Ok(0), Ok(2)]);
        board.arrived(&board.receipts, [Ok(1)]);
        board.receipts.until(|tally| tally.count == 3 && tally.upto == 3).await.unwrap();
        assert_eq!(board.receipts.take().0.len(), 3);
        assert_eq!(board.receipts.take().0.len(), 0);
    }

    #[tokio::test]
    async fn what_arrives_twice_or_from_nowhere_is_an_error() {
        for (numbers, what) in [([Ok(0), Ok(0)], "twice"), ([Ok(0), Ok(9)], "never published")] {
            let board = Board::new().unwrap();
            board.publishing(1, 0);
            board.arrived(&board.deliveries, numbers);
            let failed = board.deliveries.until(|_| false).await.unwrap_err();
            assert!(failed.message.contains(what), "{failed}");
        }
    }
}
