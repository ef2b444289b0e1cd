//! Hybrid logical clock: stamps each accepted message once, and notices a wall clock that lies.
//!
//! A [`Hlc`] is 48 bits of wall-clock milliseconds and 16 bits of counter (Kulkarni et al.,
//! "Logical Physical Clocks", 2014). The clock only moves forward, also across restarts: its
//! high-water mark is stored with every batch. What stays true: no two stamps of one node are
//! equal, and a stamp is above every version the node had received when it was given (P6).

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::time::{Instant, Now, WallMs};

/// A reading of the hybrid clock. Orders first by time, then by counter.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first reading of millisecond `wall`.
    pub const fn at(wall: WallMs) -> Self {
        Self(wall.0 << 16)
    }

    /// The wall-clock part.
    pub const fn wall(self) -> WallMs {
        WallMs(self.0 >> 16)
    }
}

impl fmt::Display for Hlc {
    /// `019a0b1c2d3e-0003`: sorts byte by byte as the readings do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{:04x}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// Why a node does not stamp messages now, and how that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockFault {
    /// The wall clock moved against the monotonic clock by more than the limit.
    #[error(
        "the wall clock jumped by {by_ms} ms; set it right, or say `slipstream clock reset` if it \
         is right now"
    )]
    Jumped {
        /// How far, in milliseconds; negative is backwards.
        by_ms: i64,
    },
    /// The wall clock is behind what this node has stamped or received before.
    #[error(
        "the wall clock is {by_ms} ms behind what this node has seen before; set it right, or say \
         `slipstream clock reset` if it is right now"
    )]
    Behind {
        /// How far, in milliseconds.
        by_ms: u64,
    },
    /// The wall clock is ahead of most peers' by more than the limit.
    #[error("the wall clock is ahead of most peers' by more than the limit; set it right")]
    AheadOfPeers,
}

/// A version that is further ahead of this node's wall clock than the limit (P6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the version is {ahead_ms} ms ahead of this node's clock")]
pub struct TooFarAhead {
    /// How far, in milliseconds.
    pub ahead_ms: u64,
}

/// Most peers that are connected say that this node's wall clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wall clock is {side} most peers' by more than the limit; set it right first")]
pub struct OffFromPeers {
    side: &'static str,
}

/// Up to which version a node goes by the order of versions (P6). What is further ahead, no node
/// whose clock is within the limit can have taken, and it will not be taken for long: it was
/// stamped by a clock that was wrong. It is *untimely*, and older than all that is timely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timely {
    upto: Hlc,
    /// The same by the clock that says least of all that may be right, ...
    at_least: Hlc,
    /// ... and by the one that says most, but for one that is as far ahead as anything.
    at_most: Hlc,
    /// The same for whoever is heard, if its clock says less.
    for_peer: Hlc,
    /// Whether the wall clock that says so can be believed.
    is_certain: bool,
}

/// How a version that is there stands to one that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Their order tells.
    Ordered,
    /// It gives way.
    GivesWay,
    /// It gives way if one of the clocks is right, and nobody is certain which one.
    Doubtful,
}

impl Timely {
    /// Every version is.
    pub const ALL: Self = Self {
        upto: Hlc(u64::MAX),
        at_least: Hlc(u64::MAX),
        at_most: Hlc(u64::MAX),
        for_peer: Hlc(u64::MAX),
        is_certain: true,
    };

    /// What is so at this wall clock: up to twice the limit ahead of it, as one node may be ahead
    /// by the limit, and have taken what was ahead of it by the limit.
    const fn at(wall: WallMs, drift_ms: u64) -> Self {
        let last = wall.0.saturating_add(drift_ms.saturating_mul(2));
        let upto = Hlc((last << 16) | 0xffff);
        Self { upto, at_least: upto, at_most: upto, for_peer: upto, is_certain: true }
    }

    /// The same with regard to a peer, whose clock is so far ahead: what it refuses must not make
    /// it believe that something has come here which has not, and be it by the mistake of either.
    pub fn also_for(self, offset_ms: i64) -> Self {
        let wall = self.upto.wall().0.saturating_add_signed(offset_ms.min(0));
        Self { for_peer: Hlc((wall << 16) | 0xffff), ..self }
    }

    /// Whether a version is timely by the wall clock, whatever that is worth.
    pub fn holds(self, version: Hlc) -> bool {
        version <= self.upto
    }

    /// Whether something is so of this limit: while nothing is certain, only if it is whichever
    /// clock is right.
    pub(crate) fn agrees(self, is_so: impl Fn(Hlc) -> bool) -> bool {
        let others = [self.at_least, self.at_most, Hlc(u64::MAX)];
        is_so(self.upto) && (self.is_certain || others.into_iter().all(is_so))
    }

    /// Whether what is so of its limit is so for certain.
    pub(crate) fn is_certain(self) -> bool {
        self.is_certain
    }

    /// How a version that is `there` stands to one that has `come`.
    pub fn standing(self, there: Hlc, come: Hlc) -> Standing {
        let gives_way = |upto| there > upto && come <= upto;
        if self.is_certain && gives_way(self.upto) {
            Standing::GivesWay
        } else if [self.upto, self.at_least, self.at_most, self.for_peer].into_iter().any(gives_way)
        {
            Standing::Doubtful
        } else {
            Standing::Ordered
        }
    }
}

/// Between two times at which a clock is forgiven something.
const FORGIVING_INTERVAL_MS: i64 = 1_000;
/// One part in so many of the time that passed is forgiven: quartz and its corrections are off by
/// a ten-thousandth.
const FORGIVEN_PART: i64 = 100;

/// The clock of one node.
#[derive(Debug)]
pub struct Clock {
    last: Hlc,
    max_drift: Duration,
    seen: Now,
    /// How far the wall clock has moved against the monotonic one, less what is forgiven.
    strayed_ms: i64,
    /// Since when nothing was forgiven.
    forgiven_at: Instant,
    /// How far most peers were behind when they were asked last, by the one that was furthest;
    /// 0 if most were not, or within the limit.
    ahead_of_peers_ms: u64,
    /// It began further behind its own past than the limit, and has not come up to it yet.
    began_behind: bool,
    /// How far the wall clock was set forward since the start, and rightly so.
    set_forward_ms: u64,
    /// Most peers agreed with the wall clock when they were asked last, and it has not jumped.
    is_vouched_for: bool,
    /// The highest version taken from elsewhere since the start.
    received: Hlc,
    /// The high-water mark before it was lowered, until nothing in the store is above the new one.
    was_lowered_from: Option<Hlc>,
}

impl Clock {
    /// A clock that continues above `high_water`, the highest reading in the store.
    pub fn new(high_water: Hlc, max_drift: Duration, now: Now) -> Self {
        let forgiven_at = now.instant;
        let mut clock = Self {
            last: high_water,
            max_drift,
            seen: now,
            strayed_ms: 0,
            forgiven_at,
            ahead_of_peers_ms: 0,
            began_behind: false,
            set_forward_ms: 0,
            is_vouched_for: false,
            received: Hlc(0),
            was_lowered_from: None,
        };
        clock.began_behind = clock.is_behind();
        clock
    }

    /// Compares the two clocks with the last look at them. To be called with every input.
    ///
    /// Steps add up, so that a clock that stands still or runs at another speed is noticed too.
    /// What a sound clock is corrected by is forgiven: a hundredth of the time that passes.
    pub fn observe(&mut self, now: Now) {
        let wall_step = now.wall.0.cast_signed() - self.seen.wall.0.cast_signed();
        self.strayed_ms += wall_step - (millis(now.instant) - millis(self.seen.instant));
        let passed = millis(now.instant) - millis(self.forgiven_at);
        if passed >= FORGIVING_INTERVAL_MS {
            self.forgiven_at = now.instant;
            if self.jumped_by_ms() == 0 {
                let forgiven = passed / FORGIVEN_PART;
                self.strayed_ms -= self.strayed_ms.clamp(-forgiven, forgiven);
            }
        }
        self.is_vouched_for &= self.jumped_by_ms() == 0;
        self.seen = now;
    }

    /// How far the wall clock is from where the monotonic clock says it should be, if that is
    /// beyond the limit.
    fn jumped_by_ms(&self) -> i64 {
        if self.strayed_ms.unsigned_abs() > self.drift_ms() { self.strayed_ms } else { 0 }
    }

    /// How far the wall clock is behind what this node has seen.
    fn behind_ms(&self) -> u64 {
        self.last.wall().0.saturating_sub(self.seen.wall.0)
    }

    fn is_behind(&self) -> bool {
        self.behind_ms() > self.drift_ms()
    }

    /// Takes the readings of the peers that are connected, as milliseconds that each is ahead of
    /// this node. Most of them agreeing with this node ends doubt about a jump; most of them being
    /// behind by more than the limit begins doubt. A jump ends it as well if the clock was behind
    /// its own past ever since the start, and is so no longer: it is what a start would find now.
    /// But most of the peers must not say otherwise in that moment. Answers whether the jump turns
    /// out to have set the clock right: what was dated before it bears a wrong date.
    pub fn compare_with_peers(&mut self, offsets_ms: impl Iterator<Item = i64>) -> bool {
        let (mut peers, mut behind, mut agree, mut furthest) = (0_usize, 0_usize, 0_usize, 0);
        for offset in offsets_ms {
            peers += 1;
            furthest = offset.min(furthest);
            behind += usize::from(offset < -(self.drift_ms() as i64));
            agree += usize::from(offset.unsigned_abs() <= self.drift_ms());
        }
        let most_are_behind = behind * 2 > peers;
        self.ahead_of_peers_ms = if most_are_behind { furthest.unsigned_abs() } else { 0 };
        let has_caught_up = self.began_behind && !self.is_behind();
        self.began_behind &= !has_caught_up;
        let most_agree = agree * 2 > peers;
        let most_disagree = (peers - agree) * 2 > peers;
        let was_set_right = (most_agree || (has_caught_up && !most_disagree)) && self.believe();
        self.is_vouched_for = most_agree || (self.is_vouched_for && !most_disagree);
        was_set_right
    }

    /// Takes the wall clock for right, though it has jumped. Answers whether it had.
    fn believe(&mut self) -> bool {
        let has_jumped = self.jumped_by_ms() != 0;
        if has_jumped {
            self.set_forward_ms += self.strayed_ms.max(0).cast_unsigned();
            self.strayed_ms = 0;
        }
        has_jumped
    }

    /// Takes an operator's word that the wall clock is right: a jump is over. `offsets_ms`: as in
    /// [`Self::compare_with_peers`]. Answers whether it had jumped.
    ///
    /// # Errors
    /// [`OffFromPeers`] if most of the peers that are connected say otherwise.
    pub fn believe_operator(
        &mut self,
        offsets_ms: impl Iterator<Item = i64>,
    ) -> Result<bool, OffFromPeers> {
        let drift = self.drift_ms().cast_signed();
        let (mut ahead, mut behind, mut peers) = (0_usize, 0_usize, 0_usize);
        for offset in offsets_ms {
            peers += 1;
            ahead += usize::from(offset < -drift);
            behind += usize::from(offset > drift);
        }
        if ahead * 2 > peers {
            return Err(OffFromPeers { side: "ahead of" });
        }
        if behind * 2 > peers {
            return Err(OffFromPeers { side: "behind" });
        }
        let had_jumped = self.believe();
        self.began_behind = false;
        Ok(had_jumped)
    }

    /// Forgets what this node has seen that is further ahead of the wall clock than the limit, so
    /// that it stamps again; `highest` is the highest version in the store that is to stay. For the
    /// store the mark stays where it is until [`Self::forget_lowering`]. Answers by how many
    /// milliseconds the mark went down.
    pub fn lower(&mut self, highest: Hlc) -> u64 {
        // An untimely version was taken by a clock that was wrong, too.
        let received = Some(self.received).filter(|it| self.timely_by_wall().holds(*it));
        let lowered = self.last.min(highest.max(received.unwrap_or_default()));
        if !self.is_behind() || lowered == self.last {
            return 0;
        }
        let before = core::mem::replace(&mut self.last, lowered);
        self.was_lowered_from.get_or_insert(before);
        before.wall().0 - lowered.wall().0
    }

    /// Nothing above the mark is the newest of its key any more.
    pub fn forget_lowering(&mut self) {
        self.was_lowered_from = None;
    }

    /// Which versions are timely now. That is certain while the wall clock can be trusted; also
    /// where it is behind this node's past, if most peers agree with it: then it was the past that
    /// was wrong.
    pub fn timely(&self) -> Timely {
        let is_certain = self.fault().is_none() || self.is_vouched_for;
        let [at_least, at_most] = [self.least_wall(), self.most_wall()]
            .map(|wall| Timely::at(wall, self.drift_ms()).upto);
        Timely { is_certain, at_least, at_most, ..self.timely_by_wall() }
    }

    /// What the clock says that says least of all that may be right.
    fn least_wall(&self) -> WallMs {
        let ahead_ms = self.jumped_by_ms().max(0).cast_unsigned().max(self.ahead_of_peers_ms);
        WallMs(self.seen.wall.0.saturating_sub(ahead_ms))
    }

    /// What it says, or said before it was set back.
    fn most_wall(&self) -> WallMs {
        let back_ms = self.jumped_by_ms().min(0).unsigned_abs();
        WallMs(self.seen.wall.0.saturating_add(back_ms))
    }

    /// The same where the wall clock is known to be right.
    pub fn timely_by_wall(&self) -> Timely {
        Timely::at(self.seen.wall, self.drift_ms())
    }

    /// What is wrong with the clock now, if anything is.
    pub fn fault(&self) -> Option<ClockFault> {
        if self.jumped_by_ms() != 0 {
            Some(ClockFault::Jumped { by_ms: self.jumped_by_ms() })
        } else if self.is_behind() {
            Some(ClockFault::Behind { by_ms: self.behind_ms() })
        } else if self.ahead_of_peers_ms != 0 {
            Some(ClockFault::AheadOfPeers)
        } else {
            None
        }
    }

    /// The wall clock, if it can be trusted: nothing ends for its age by one that cannot.
    pub fn trusted(&self) -> Option<WallMs> {
        self.fault().is_none().then_some(self.seen.wall)
    }

    /// The wall clock for judging how old something is that was written down by it, if it can be
    /// trusted: what was written before the clock was set forward is not older for that.
    pub fn trusted_for_ages(&self) -> Option<WallMs> {
        self.trusted().map(|wall| wall.minus(Duration::from_millis(self.set_forward_ms)))
    }

    /// The best guess of what the time is, for what is written down now and read by a later start:
    /// without the jump, and not before what this node has seen.
    pub fn estimate(&self) -> WallMs {
        let wall = self.seen.wall.0.cast_signed().saturating_sub(self.jumped_by_ms());
        WallMs(wall.max(0).cast_unsigned()).max(self.last.wall())
    }

    /// Stamps a message accepted now.
    ///
    /// # Errors
    /// [`ClockFault`] while the clock cannot be trusted: publishers get `CLOCK`.
    pub fn stamp(&mut self) -> Result<Hlc, ClockFault> {
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        self.last = Hlc((self.last.0 + 1).max(Hlc::at(self.seen.wall).0));
        Ok(self.last)
    }

    /// Stamps a message that an operator has ordered to be stamped anew: whoever says that the wall
    /// clock is right has said that this node's past was wrong.
    ///
    /// # Errors
    /// [`ClockFault`] if the clock came into doubt since.
    pub fn stamp_by_order(&mut self) -> Result<Hlc, ClockFault> {
        match self.fault() {
            Some(fault @ (ClockFault::Jumped { .. } | ClockFault::AheadOfPeers)) => Err(fault),
            Some(ClockFault::Behind { .. }) | None => {
                self.last = Hlc((self.last.0 + 1).max(Hlc::at(self.seen.wall).0));
                Ok(self.last)
            }
        }
    }

    /// Takes note of a version from elsewhere.
    ///
    /// # Errors
    /// [`TooFarAhead`] if it is beyond the limit, by any clock that may be right: to be refused for
    /// now, never restamped.
    pub fn receive(&mut self, version: Hlc) -> Result<(), TooFarAhead> {
        let ahead_ms = version.wall().0.saturating_sub(self.least_wall().0);
        if ahead_ms > self.drift_ms() {
            return Err(TooFarAhead { ahead_ms });
        }
        self.last = self.last.max(version);
        self.received = self.received.max(version);
        Ok(())
    }

    /// The highest reading so far.
    pub fn high_water(&self) -> Hlc {
        self.last
    }

    /// The same for the store, in which there may be higher ones after [`Self::lower`].
    pub fn stored_high_water(&self) -> Hlc {
        self.was_lowered_from.unwrap_or_default().max(self.last)
    }

    fn drift_ms(&self) -> u64 {
        u64::try_from(self.max_drift.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Differences of these add up to the whole, which those of rounded durations do not.
fn millis(at: Instant) -> i64 {
    (at.as_micros() / 1000).cast_signed()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::store::Latest;
    use crate::types::ids::{Incarnation, Position, Sequence};
    use crate::wire::message::{Fields, Kind, Message};

    const DRIFT: Duration = Duration::from_secs(60);

    fn now(monotonic_ms: u64, wall_ms: u64) -> Now {
        Now { instant: Instant::from_micros(monotonic_ms * 1000), wall: WallMs(wall_ms) }
    }

    // keeps: versions-grow
    #[test]
    fn stamps_grow_while_the_wall_clock_stands_still() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000));
        let first = clock.stamp().expect("the clock is sound");
        let second = clock.stamp().expect("the clock is sound");
        assert!(second > first);
        assert_eq!(second.wall(), WallMs(1_000));
    }

    // keeps: versions-grow
    #[test]
    fn a_stamp_is_above_every_version_received_before_it() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000));
        let remote = Hlc::at(WallMs(31_000));
        clock.receive(remote).expect("within the limit");
        assert!(clock.stamp().expect("the clock is sound") > remote);
    }

    #[test]
    fn a_version_beyond_the_limit_is_refused_and_leaves_no_trace() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000));
        let at_limit = Hlc::at(WallMs(61_000));
        let beyond = Hlc::at(WallMs(61_001));
        assert_eq!(clock.receive(beyond), Err(TooFarAhead { ahead_ms: 60_001 }));
        assert_eq!(clock.high_water(), Hlc(0));
        assert_eq!(clock.receive(at_limit), Ok(()));
    }

    // keeps: clock-doubt
    #[test]
    fn a_jump_stops_stamping_until_the_clock_is_back() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        clock.observe(now(10, 5_000_000));
        assert!(matches!(clock.stamp(), Err(ClockFault::Jumped { .. })));
        clock.observe(now(20, 1_000_020));
        assert!(clock.stamp().is_ok());
    }

    // keeps: clock-ages
    #[test]
    fn what_was_written_before_a_forward_step_is_no_older() {
        const DAY: u64 = 86_400_000;
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        clock.observe(now(1_000, 1_001_000 + DAY));
        assert_eq!(clock.trusted_for_ages(), None);
        assert!(clock.compare_with_peers([5, -7].into_iter()), "it was set right");
        assert_eq!(clock.trusted(), Some(WallMs(1_001_000 + DAY)));
        assert_eq!(clock.trusted_for_ages(), Some(WallMs(1_001_000)));
    }

    #[test]
    fn a_clock_that_stands_still_is_noticed() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        let looks = (0..=60_000).step_by(10);
        looks.for_each(|ms| clock.observe(now(ms, 1_000_000)));
        assert!(clock.stamp().is_ok());
        let looks = (60_000..=62_000).step_by(10);
        looks.for_each(|ms| clock.observe(now(ms, 1_000_000)));
        assert!(matches!(clock.stamp(), Err(ClockFault::Jumped { .. })));
        clock.observe(now(62_010, 1_062_010));
        assert!(clock.stamp().is_ok());
    }

    #[test]
    fn a_clock_that_is_corrected_now_and_then_is_sound() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        for hour in 1..1_000 {
            // A second an hour is more than any quartz is off.
            clock.observe(now(hour * 3_600_000, 1_000_000 + hour * 3_601_000));
            assert!(clock.stamp().is_ok(), "after {hour} hours");
        }
    }

    #[test]
    fn looks_between_two_milliseconds_lose_nothing() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        for half in 0..400_000 {
            let instant = Instant::from_micros(half * 500);
            clock.observe(Now { instant, wall: WallMs(1_000_000 + half / 2) });
        }
        assert!(clock.stamp().is_ok());
    }

    #[test]
    fn peers_that_agree_end_the_doubt_about_a_jump() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        clock.observe(now(10, 5_000_000));
        clock.compare_with_peers([5, -3].into_iter());
        assert!(clock.stamp().is_ok());
    }

    #[test]
    fn a_clock_ahead_of_most_peers_does_not_stamp() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        clock.compare_with_peers([-70_000, -80_000, 0].into_iter());
        assert_eq!(clock.stamp(), Err(ClockFault::AheadOfPeers));
        clock.compare_with_peers([-70_000, 0].into_iter());
        assert!(clock.stamp().is_ok());
    }

    // keeps: clock-doubt
    #[test]
    fn a_clock_far_behind_its_own_past_does_not_stamp() {
        let clock = Clock::new(Hlc::at(WallMs(100_000)), DRIFT, now(0, 39_999));
        assert_eq!(clock.fault(), Some(ClockFault::Behind { by_ms: 60_001 }));
        let clock = Clock::new(Hlc::at(WallMs(100_000)), DRIFT, now(0, 40_000));
        assert_eq!(clock.fault(), None);
    }

    // keeps: clock-doubt
    #[test]
    fn a_clock_that_jumps_beyond_its_peers_is_not_believed() {
        let past = Hlc::at(WallMs(9_000_000));
        let set_to = |wall| {
            let mut clock = Clock::new(past, DRIFT, now(0, 1_000_000));
            clock.observe(now(1, wall));
            clock
        };
        // A peer knows better, and nobody believes that it is right when the peer is gone.
        let mut clock = set_to(900_000_000);
        assert!(!clock.compare_with_peers([-891_000_000].into_iter()));
        assert!(!clock.compare_with_peers([].into_iter()));
        assert!(matches!(clock.fault(), Some(ClockFault::Jumped { .. })));
        assert!(clock.compare_with_peers([5].into_iter()), "but peers that agree are believed");
        assert_eq!(clock.fault(), None);
        // Without peers, or with one that agrees, it is what a start would find.
        for peers in [&[] as &[i64], &[5], &[5, -891_000_000]] {
            assert!(set_to(9_000_000).compare_with_peers(peers.iter().copied()), "{peers:?}");
        }
    }

    #[test]
    fn what_is_untimely_is_beyond_what_any_sound_clock_takes() {
        let clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        let timely = clock.timely();
        let last = Hlc((1_120_000 << 16) | 0xffff);
        let first = Hlc(last.0 + 1);
        assert!(timely.holds(last) && !timely.holds(first));
        assert_eq!(timely.standing(last, Hlc(1)), Standing::Ordered);
        assert_eq!(timely.standing(first, Hlc(1)), Standing::GivesWay);
        assert_eq!(timely.standing(first, Hlc(first.0 + 1)), Standing::Ordered);
        assert!(message(last).has_outdone(&message(first), timely));
    }

    #[test]
    fn what_gives_way_is_certain_only_where_the_clock_is_believed() {
        let behind = Hlc::at(WallMs(9_000_000));
        let mut clock = Clock::new(behind, DRIFT, now(0, 1_000_000));
        assert_eq!(clock.timely().standing(behind, Hlc(1)), Standing::Doubtful);
        clock.compare_with_peers([-70_000, 5].into_iter());
        assert_eq!(clock.timely().standing(behind, Hlc(1)), Standing::Doubtful);
        clock.compare_with_peers([5, 7].into_iter());
        assert_eq!(clock.timely().standing(behind, Hlc(1)), Standing::GivesWay);
        clock.compare_with_peers([].into_iter());
        assert_eq!(clock.timely().standing(behind, Hlc(1)), Standing::GivesWay, "it went on");
        clock.observe(now(10, 3_000_000));
        assert_eq!(clock.timely().standing(behind, Hlc(1)), Standing::Doubtful, "it jumped");
    }

    #[test]
    fn one_peer_of_two_that_disagrees_leaves_the_clock_believed() {
        let behind = Hlc::at(WallMs(9_000_000));
        let mut clock = Clock::new(behind, DRIFT, now(0, 1_000_000));
        clock.compare_with_peers([5, 7].into_iter());
        clock.compare_with_peers([5, 70_000].into_iter());
        assert_eq!(clock.timely().standing(behind, Hlc(1)), Standing::GivesWay);
        clock.compare_with_peers([-70_000, 70_000].into_iter());
        assert_eq!(clock.timely().standing(behind, Hlc(1)), Standing::Doubtful);
    }

    #[test]
    fn in_doubt_only_what_is_newer_in_either_case_outdoes() {
        let at = |ms| message(Hlc::at(WallMs(ms)));
        let (old, newer, untimely) = (at(900_000), at(1_000_000), at(9_000_000));
        let mut clock = Clock::new(Hlc::at(WallMs(9_000_000)), DRIFT, now(0, 1_000_000));
        let doubtful = clock.timely();
        assert!(newer.has_outdone(&old, doubtful));
        assert!(!untimely.has_outdone(&newer, doubtful), "it may be from a time that never was");
        assert!(!newer.has_outdone(&untimely, doubtful), "or this clock may be behind");
        clock.compare_with_peers([5, 7].into_iter());
        assert!(newer.has_outdone(&untimely, clock.timely()));

        // Set back, both are from a time to come; it was right before.
        clock.observe(now(10, 500_000));
        assert!(!untimely.has_outdone(&newer, clock.timely()), "that gave way");
        assert!(!newer.has_outdone(&untimely, clock.timely()));

        let mut jumped = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        jumped.observe(now(10, 9_000_000));
        let mut ahead = Clock::new(Hlc(0), DRIFT, now(0, 9_000_000));
        ahead.compare_with_peers([-8_000_000, -7_000_000, 5].into_iter());
        for doubtful in [jumped.timely(), ahead.timely()] {
            assert!(newer.has_outdone(&old, doubtful));
            assert!(!untimely.has_outdone(&newer, doubtful), "it was right before");
            assert!(!newer.has_outdone(&untimely, doubtful), "or is right now");
        }
    }

    // keeps: untimely-versions
    #[test]
    fn in_doubt_the_value_that_came_last_is_the_newest() {
        let at = |position, ms| Latest {
            position: Position::new(position),
            message: message(Hlc::at(WallMs(ms))),
        };
        let (old, newer, untimely) = (at(3, 900_000), at(1, 1_000_000), at(2, 9_000_000));
        let mut clock = Clock::new(Hlc::at(WallMs(9_000_000)), DRIFT, now(0, 1_000_000));
        let newest = |clock: &Clock, values: &[&Latest]| {
            let values = values.iter().map(|value| (*value).clone()).collect();
            Latest::newest(values, clock.timely()).map(|newest| newest.position.get())
        };
        assert_eq!(newest(&clock, &[&old, &newer, &untimely]), Some(2), "the old one is outdone");
        assert_eq!(newest(&clock, &[&untimely, &old]), Some(3));
        assert_eq!(newest(&clock, &[]), None);
        clock.compare_with_peers([5, 7].into_iter());
        assert_eq!(newest(&clock, &[&old, &newer, &untimely]), Some(1));
    }

    fn message(version: Hlc) -> Message {
        let fields = Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(1),
            version,
            expires: WallMs(0),
            group: "",
            tags: "",
            path: "a",
            id: "m",
            key: "k",
            body: "1",
        };
        Message::encode(&fields, &mut bytes::BytesMut::new())
    }

    #[test]
    fn what_a_peer_refuses_does_not_outdo_what_it_sends() {
        let clock = Clock::new(Hlc(0), DRIFT, now(0, 9_000_000));
        let (here, there) = (Hlc::at(WallMs(9_000_000)), Hlc::at(WallMs(1_000_000)));
        assert_eq!(clock.timely().standing(here, there), Standing::Ordered);
        assert_eq!(clock.timely().also_for(5_000).standing(here, there), Standing::Ordered);
        let far_behind = clock.timely().also_for(-8_000_000);
        assert_eq!(far_behind.standing(here, there), Standing::Doubtful);
        // Where both are untimely for the peer, this clock tells.
        let clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        let far_behind = clock.timely().also_for(-8_000_000);
        assert_eq!(far_behind.standing(here, there), Standing::GivesWay);
    }

    // keeps: untimely-versions
    #[test]
    fn a_jump_makes_nothing_older_by_an_old_offset() {
        let mut clock = Clock::new(Hlc::at(WallMs(9_000_000)), DRIFT, now(0, 1_000_000));
        clock.compare_with_peers([5].into_iter());
        let (here, there) = (Hlc::at(WallMs(9_000_000)), Hlc::at(WallMs(1_000_000)));
        assert_eq!(clock.timely().also_for(5).standing(here, there), Standing::GivesWay);
        clock.observe(now(10, 9_000_010));
        assert_eq!(clock.timely().also_for(5).standing(here, there), Standing::Doubtful);
    }

    #[test]
    fn an_operator_is_believed_unless_most_peers_say_otherwise() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        clock.observe(now(10, 9_000_000));
        assert!(clock.believe_operator([-70_000, 70_000].into_iter()).is_ok_and(|had| had));
        assert_eq!(clock.fault(), None);
        let refused = clock.believe_operator([-60_001, -60_001, 0].into_iter());
        assert!(refused.is_err_and(|off| off.to_string().contains("ahead of most peers")));
        let refused = clock.believe_operator([60_001, 60_001, 0].into_iter());
        assert!(refused.is_err_and(|off| off.to_string().contains("behind most peers")));
        assert!(clock.believe_operator([60_000, -60_000].into_iter()).is_ok());
    }

    // keeps: clock-reset
    #[test]
    fn what_a_wrong_clock_took_does_not_hold_the_mark_up() {
        let mut clock = Clock::new(Hlc(0), DRIFT, now(0, 1_000_000));
        clock.receive(Hlc::at(WallMs(1_000_500))).expect("within the limit");
        clock.observe(now(10, 9_000_000));
        let ahead = Hlc::at(WallMs(9_000_000));
        assert!(clock.receive(ahead).is_err(), "it was right before");
        clock.compare_with_peers([5].into_iter());
        clock.receive(ahead).expect("within the limit of peers that are wrong, too");
        clock.observe(now(20, 1_000_020));
        clock.believe_operator([].into_iter()).expect("nobody says otherwise");
        assert!(clock.lower(Hlc::at(WallMs(1_000_700))) > 0);
        assert_eq!(clock.stamp().map(Hlc::wall), Ok(WallMs(1_000_700)));
    }

    #[test]
    fn a_lowered_mark_stays_where_it_was_for_the_store() {
        let future = Hlc::at(WallMs(9_000_000));
        let mut clock = Clock::new(future, DRIFT, now(0, 1_000_000));
        let received = Hlc::at(WallMs(1_030_000));
        clock.receive(received).expect("within the limit");
        assert_eq!(clock.lower(Hlc(77)), 9_000_000 - 1_030_000);
        assert!(clock.stamp().is_ok_and(|version| version > received && version < future));
        assert_eq!(clock.stored_high_water(), future);
        assert_eq!(clock.lower(Hlc(77)), 0, "there is nothing to lower any more");
        clock.forget_lowering();
        assert_eq!(clock.stored_high_water(), clock.high_water());
    }

    /// What may happen to a clock.
    #[derive(Debug, Clone)]
    enum Step {
        /// Both clocks go on by so many milliseconds.
        Pass(u64),
        /// The wall clock alone moves.
        Jump(i64),
        Stamp,
        /// A version arrives, so far ahead of the wall clock.
        Receive(i64),
        /// What the connected peers say.
        Peers(Vec<i64>),
        /// The node starts again on what its store knows.
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let year = 366 * 24 * 60 * 60 * 1000_i64;
        let jump = prop_oneof![-year..year, -70_000..70_000_i64];
        let offset = prop_oneof![-130_000..130_000_i64, -5..5_i64];
        prop_oneof![
            4 => (0..5_000_u64).prop_map(Step::Pass),
            1 => jump.prop_map(Step::Jump),
            6 => Just(Step::Stamp),
            3 => offset.clone().prop_map(Step::Receive),
            1 => prop::collection::vec(offset, 0..5).prop_map(Step::Peers),
            1 => Just(Step::Restart),
        ]
    }

    const YEAR_2026: u64 = 1_790_000_000_000;

    proptest! {
        #[test]
        fn stamps_only_grow_and_stay_near_the_wall_clock(
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let (mut monotonic_ms, mut wall_ms) = (0, YEAR_2026);
            let mut clock = Clock::new(Hlc(0), DRIFT, now(0, wall_ms));
            // The highest version that was given or received.
            let mut highest = Hlc(0);
            let drift = 60_000;
            for step in steps {
                match step {
                    Step::Pass(ms) => (monotonic_ms, wall_ms) = (monotonic_ms + ms, wall_ms + ms),
                    Step::Jump(ms) => wall_ms = wall_ms.saturating_add_signed(ms),
                    Step::Stamp => match clock.stamp() {
                        Ok(stamp) => {
                            prop_assert!(stamp > highest, "{} is not above {}", stamp, highest);
                            let ahead = stamp.wall().0.saturating_sub(wall_ms);
                            prop_assert!(ahead <= drift, "{} ms ahead", ahead);
                            prop_assert!(stamp.wall().0 >= wall_ms, "a stamp lies in the past");
                            highest = stamp;
                        }
                        Err(fault) => prop_assert_eq!(clock.fault(), Some(fault)),
                    },
                    Step::Receive(ahead) => {
                        let version = Hlc::at(WallMs(wall_ms.saturating_add_signed(ahead)));
                        let is_sound = clock.fault().is_none();
                        let received = clock.receive(version);
                        let is_within = ahead <= drift as i64;
                        // In doubt it must be within the limit of other clocks as well.
                        prop_assert!(received.is_err() || is_within);
                        prop_assert!(received.is_ok() == is_within || !is_sound);
                        if received.is_ok() {
                            highest = highest.max(version);
                        }
                    }
                    Step::Peers(offsets) => {
                        clock.compare_with_peers(offsets.into_iter());
                    }
                    Step::Restart => {
                        let at = now(monotonic_ms, wall_ms);
                        clock = Clock::new(clock.high_water(), DRIFT, at);
                    }
                }
                clock.observe(now(monotonic_ms, wall_ms));
                prop_assert_eq!(clock.high_water(), highest);
            }
        }

        #[test]
        fn a_steady_wall_clock_is_trusted_and_a_jump_is_not(
            pass in 0..100_000_000_u64,
            jump in -10_000_000_000..10_000_000_000_i64,
        ) {
            let mut clock = Clock::new(Hlc(0), DRIFT, now(0, YEAR_2026));
            clock.observe(now(pass, YEAR_2026 + pass));
            prop_assert_eq!(clock.fault(), None);
            clock.observe(now(pass, (YEAR_2026 + pass).saturating_add_signed(jump)));
            let expected = (jump.unsigned_abs() > 60_000)
                .then_some(ClockFault::Jumped { by_ms: jump });
            prop_assert_eq!(clock.fault(), expected);
            clock.observe(now(pass + 1, YEAR_2026 + pass + 1));
            prop_assert_eq!(clock.fault(), None, "it is set right");
        }
    }
}
