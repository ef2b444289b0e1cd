//! How long events live at this node: by a time of its own, which only passes (P2).
//!
//! Each node writes down when an event ends by its own time: it counts the monotonic clock, from
//! what the wall clock said when the node started. Between nodes travels how long an event has
//! left, so that their clocks need not agree. What stays true: while a node runs, no correction of
//! its wall clock makes an event older or younger; a clock that was set forward for good, or by
//! little, does so at later starts neither; and what an earlier start has written lives no longer
//! than its time to live once more, whatever the clock said then.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::Row;
use crate::types::ids::Position;
use crate::types::time::{Instant, Now, WallMs};
use crate::wire::message::Message;

/// The time of a node, and what it was when the clock was found to be another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetimes {
    /// At this point on the monotonic clock ...
    counted_from: Instant,
    /// ... it was this time.
    time_then: WallMs,
    /// Rows up to here were written by a clock that may have been another one, ...
    upto: Position,
    /// ... and have at most their time to live from this time on.
    since: WallMs,
    anew: Anew,
    stored: StoredLifetimes,
}

/// Which rows have their time to live anew, as nothing is known of what had passed before. Later
/// starts know it, too: to the time that such a row was given it is long over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Anew {
    /// Up to this one; 0: none.
    upto: Position,
    /// From this time on.
    since: WallMs,
}

/// What a later start must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct StoredLifetimes {
    /// How far this time is ahead of the wall clock, milliseconds, as far as that can be trusted.
    ahead_ms: i64,
}

/// Lifetimes at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time of this node.
    pub time: WallMs,
    /// Whether the wall clock can be trusted.
    pub is_trusted: bool,
    upto: Position,
    since: WallMs,
    anew: Anew,
}

/// A clock that moves by less is not written down.
const CORRECTION_MS: u64 = 100;

impl Lifetimes {
    /// A start, on a log that ends at `head`; `record` is what an earlier one has stored.
    /// Answers what follows in the record, too.
    pub fn recover(record: &[u8], head: Position, now: Now) -> (Self, &[u8]) {
        let (stored, rest): (StoredLifetimes, _) =
            postcard::take_from_bytes(record).unwrap_or((StoredLifetimes::default(), &[]));
        let time_then = WallMs(now.wall.0.saturating_add_signed(stored.ahead_ms));
        let upto = head;
        let (counted_from, since, anew) = (now.instant, time_then, Anew::default());
        (Self { counted_from, time_then, upto, since, anew, stored }, rest)
    }

    /// The same start; `record` says what has its time to live anew. An older one says nothing.
    #[must_use]
    pub fn recover_anew(self, record: &[u8]) -> Self {
        Self { anew: postcard::from_bytes(record).unwrap_or_default(), ..self }
    }

    /// The same start, if it was this time already. Which of the clocks was wrong nobody knows, so
    /// what was written before has its time to live anew.
    #[must_use]
    pub fn not_before(self, past: WallMs) -> Self {
        if past <= self.time_then {
            return self;
        }
        let anew = Anew { upto: self.upto, since: past };
        Self { time_then: past, since: past, anew, ..self }
    }

    /// Adds what is stored of them to `record`.
    pub fn append_to(&self, record: Vec<u8>) -> Vec<u8> {
        postcard::to_extend(&self.stored, record).expect("a record can be encoded")
    }

    /// Whether anything has its time to live anew.
    pub fn has_anew(&self) -> bool {
        self.anew.upto > Position::default()
    }

    /// Adds that to `record`, behind all else.
    pub fn append_anew_to(&self, record: Vec<u8>) -> Vec<u8> {
        if !self.has_anew() {
            return record;
        }
        postcard::to_extend(&self.anew, record).expect("a record can be encoded")
    }

    /// The time of this node.
    pub fn time(&self, now: Now) -> WallMs {
        self.time_then.plus(now.instant.since(self.counted_from))
    }

    /// What holds now; `is_trusted` says whether the wall clock can be trusted.
    pub fn at(&self, now: Now, is_trusted: bool) -> Moment {
        let Self { upto, since, anew, .. } = *self;
        Moment { time: self.time(now), is_trusted, upto, since, anew }
    }

    /// The wall clock can be trusted, and says this: a later start goes on from there. Answers
    /// whether that must be stored.
    pub fn compare(&mut self, now: Now) -> bool {
        let (time, wall) = (self.time(now).0.cast_signed(), now.wall.0.cast_signed());
        let ahead_ms = time.saturating_sub(wall);
        let is_news = ahead_ms.abs_diff(self.stored.ahead_ms) >= CORRECTION_MS;
        if is_news {
            self.stored.ahead_ms = ahead_ms;
        }
        is_news
    }

    /// The wall clock was ahead by so much, and was set back rightly: what it has written down, in
    /// a log that ends at `head` now, may end too late.
    pub fn set_back(&mut self, by: Duration, head: Position, now: Now) {
        self.time_then = self.time(now).minus(by);
        (self.counted_from, self.since, self.upto) = (now.instant, self.time_then, head);
        self.anew.since = self.anew.since.minus(by);
    }
}

impl Moment {
    /// When an event ends by the time of this node; `None` for state.
    pub fn ends(&self, row: &Row) -> Option<WallMs> {
        let ttl = time_to_live(&row.message)?;
        if row.position > self.upto {
            return Some(row.ends);
        }
        let is_anew = row.position <= self.anew.upto;
        let ends = if is_anew { self.anew.since.plus(ttl) } else { row.ends };
        Some(ends.min(self.since.plus(ttl)))
    }

    /// Whether the row is an event whose time is over. What a clock in doubt has been judging since
    /// its start alone ends by that.
    pub fn is_over(&self, row: &Row) -> bool {
        let Some(ttl) = time_to_live(&row.message) else { return false };
        if row.position > self.upto || self.is_trusted {
            return self.ends(row).is_some_and(|ends| ends <= self.time);
        }
        self.since.plus(ttl) <= self.time
    }

    /// How long an event has left, never more than its time to live; `None` for state.
    pub fn left(&self, row: &Row) -> Option<Duration> {
        let ttl = time_to_live(&row.message)?;
        let left = self.ends(row)?.0.saturating_sub(self.time.0);
        Some(Duration::from_millis(left).min(ttl))
    }

    /// The same for a peer whose wall clock says `wall`: what seems to be over by a clock in doubt
    /// is left to that.
    pub fn left_for(&self, row: &Row, wall: WallMs) -> Option<Duration> {
        let is_known = |left: &Duration| !left.is_zero() || self.is_trusted;
        self.left(row).filter(is_known).or_else(|| Self { time: wall, ..*self }.left(row))
    }

    /// The time of this node, if the wall clock can be trusted.
    pub fn trusted(&self) -> Option<WallMs> {
        self.is_trusted.then_some(self.time)
    }
}

/// When an event of a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// By the time of this node. State never ends, whatever stands here.
    Here(WallMs),
    /// By the wall clock: its peer does not say how long it has left.
    ByWall(WallMs),
}

/// How long the way from a peer takes beyond its shortest: that is over when a message comes.
///
/// A peer says what its monotonic clock said when it wrote a batch. On the fastest way the
/// difference to ours is the greatest; what a batch is behind that it has waited in sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transit {
    /// Its clock less ours on the fastest way, microseconds, and when that was reckoned.
    fastest: Option<(i64, Instant)>,
}

/// One part in so many of the time that passes is forgiven: two clocks run apart by less.
const FORGIVEN_PART: i64 = 1000;

impl Transit {
    /// A batch that was written when the clock of the peer said this came now: answers for how
    /// long it was on its way beyond what the fastest one was.
    pub fn came(&mut self, sent_ms: u64, now: Instant) -> Duration {
        let micros = |at: Instant| at.as_micros().cast_signed();
        let ahead = sent_ms.cast_signed().saturating_mul(1000).saturating_sub(micros(now));
        let (fastest, at) = self.fastest.unwrap_or((ahead, now));
        let forgiven = micros(now).saturating_sub(micros(at)) / FORGIVEN_PART;
        // Parts of a microsecond add up.
        let at = if forgiven > 0 { now } else { at };
        let fastest = fastest.saturating_sub(forgiven).max(ahead);
        self.fastest = Some((fastest, at));
        Duration::from_micros(fastest.saturating_sub(ahead).unsigned_abs())
    }
}

impl Row {
    /// The same, of an event that ends then here.
    #[must_use]
    pub fn ending(self, ends: WallMs) -> Self {
        Self { ends, ..self }
    }
}

/// How long an event lives, as it was published; `None` for state.
pub fn time_to_live(message: &Message) -> Option<Duration> {
    let ttl = message.expires()?.0.saturating_sub(message.version().wall().0);
    Some(Duration::from_millis(ttl.max(1)))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::types::clock::Hlc;
    use crate::types::ids::{Incarnation, Sequence};
    use crate::wire::message::{Fields, Kind};

    const WALL: u64 = 1_790_000_000_000;
    const DAY: u64 = 86_400_000;

    fn now(monotonic_ms: u64, wall: u64) -> Now {
        Now { instant: Instant::from_micros(monotonic_ms * 1000), wall: WallMs(wall) }
    }

    /// An event that lives a minute, and ends then by this node's time.
    fn event(position: u64, ends: u64) -> Row {
        let fields = Fields {
            kind: Kind::Cmd,
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(1),
            version: Hlc::at(WallMs(WALL)),
            expires: WallMs(WALL + 60_000),
            group: "",
            tags: "",
            path: "a",
            id: "m",
            key: "k",
            body: "1",
        };
        let message = Message::encode(&fields, &mut BytesMut::new());
        Row::new(Position::new(position), message).ending(WallMs(ends))
    }

    #[test]
    fn no_correction_of_the_clock_makes_an_event_older() {
        let (lifetimes, _) = Lifetimes::recover(&[], Position::new(4), now(7, WALL));
        let row = event(5, WALL + 60_000);
        for wall in [WALL - 2 * DAY, WALL, WALL + 50_000, WALL + 700 * DAY] {
            assert!(!lifetimes.at(now(60_006, wall), true).is_over(&row), "{wall}");
            assert!(lifetimes.at(now(60_007, wall), true).is_over(&row), "{wall}");
            assert!(lifetimes.at(now(60_007, wall), false).is_over(&row), "{wall}");
        }
    }

    #[test]
    fn a_clock_set_forward_ages_nothing_at_a_later_start() {
        let (mut before, _) = Lifetimes::recover(&[], Position::new(0), now(0, WALL));
        let row = event(1, WALL + 60_000);
        // It was a day behind, and set right for good.
        assert!(!before.compare(now(10_000, WALL + 10_099)));
        assert!(before.compare(now(10_000, WALL + DAY + 10_000)));
        assert!(!before.compare(now(10_000, WALL + DAY + 10_000)), "it is known");
        let stored = before.append_to(Vec::new());
        let (after, _) = Lifetimes::recover(&stored, Position::new(1), now(0, WALL + DAY + 20_000));
        let left = after.at(now(0, 0), true).left(&row);
        assert_eq!(left, Some(Duration::from_secs(40)));
    }

    #[test]
    fn what_an_earlier_start_wrote_lives_no_longer_than_once_more() {
        let of_a_clock_ahead = event(4, WALL + 700 * DAY);
        let (lifetimes, _) = Lifetimes::recover(&[], Position::new(4), now(0, WALL));
        for is_trusted in [true, false] {
            let at = |ms: u64| lifetimes.at(now(ms, WALL), is_trusted);
            assert_eq!(at(0).left(&of_a_clock_ahead), Some(Duration::from_secs(60)));
            assert!(!at(59_999).is_over(&of_a_clock_ahead));
            assert!(at(60_000).is_over(&of_a_clock_ahead));
        }
        let of_a_clock_behind = event(4, WALL - DAY);
        assert!(lifetimes.at(now(0, WALL), true).is_over(&of_a_clock_behind));
        assert!(!lifetimes.at(now(0, WALL), false).is_over(&of_a_clock_behind), "in doubt");
    }

    #[test]
    fn a_clock_set_back_gives_events_one_more_time_to_live() {
        let (mut lifetimes, _) = Lifetimes::recover(&[], Position::new(4), now(0, WALL + DAY));
        let (earlier, own) = (event(4, WALL + 60_000), event(5, WALL + DAY + 60_000));
        lifetimes.set_back(Duration::from_millis(DAY), Position::new(5), now(10_000, 0));
        let at = |ms: u64| lifetimes.at(now(ms, 0), true);
        assert_eq!(at(10_000).time, WallMs(WALL + 10_000));
        assert_eq!(at(10_000).left(&earlier), Some(Duration::from_secs(50)));
        assert_eq!(at(10_000).left(&own), Some(Duration::from_secs(60)));
        assert!(at(70_000).is_over(&own));
        let later = event(6, WALL + 70_000);
        assert_eq!(at(10_000).left(&later), Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_a_batch_waits_on_its_way_counts() {
        let mut transit = Transit::default();
        let ms = |ms: u64| Instant::from_micros(ms * 1000);
        assert_eq!(transit.came(50_000, ms(1_020)), Duration::ZERO, "the first is the fastest");
        assert_eq!(transit.came(51_000, ms(9_020)), Duration::from_millis(6_992));
        assert_eq!(transit.came(60_000, ms(11_000)), Duration::ZERO, "a faster one");
        let slow = transit.came(61_000, ms(12_020));
        assert_eq!(slow, Duration::from_micros(18_980), "less what two clocks may run apart");
        // A clock that runs slower by a ten-thousandth is no delay.
        for second in 0..100_000 {
            let sent = 61_000 + second * 1_000 - second / 10;
            let late = transit.came(sent, ms(12_000 + second * 1_000));
            assert!(late <= Duration::from_millis(2), "{late:?} after {second} s");
        }
        assert!(transit.came(0, ms(200_000_000)) > Duration::from_secs(1));
        assert!(transit.came(u64::MAX >> 16, ms(200_000_001)).is_zero());
    }
}
