//! How far the peers hold what this node holds, by what they acknowledge and by digests (P6).
//!
//! A node claims its digests to each peer every few seconds: of the tag sets that are for both of
//! them, and only once everything that its log held at the claim before is settled with that peer.
//! A peer that finds others remembers them: only if they are the same again with the next claim, on
//! both sides, and it owes nothing of that time either, do the two differ, and not merely have
//! something under way. What stays true: a mesh at work compares what rests and never takes
//! traffic for a difference; a difference is found with the second claim, and what comes of it
//! comes less and less often while it does not help.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::store::digest::{Print, Roots};
use crate::types::ids::{LinkId, NodeId, Position};
use crate::types::tags::TagSet;
use crate::types::time::Instant;
use crate::wire::TagSetDigest;

/// Time between two claims to a peer.
const CLAIM_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two rewinds for the same difference; doubled each time, ...
const REWIND_INTERVAL: Duration = Duration::from_secs(30);
/// ... so many times: up to an hour.
const DOUBLINGS: u32 = 7;
/// Differences that are remembered until the next claim.
const MAX_DIFFERENCES: usize = 16;

/// The digests of this node, and those of its peers.
#[derive(Debug, Default)]
pub(crate) struct Comparing {
    /// Of this node, as of some position.
    pub own: Option<(Position, Roots)>,
    /// Whether the store is being asked for them.
    pub asked: bool,
    /// By peer.
    pub peers: BTreeMap<NodeId, Convergence>,
}

/// What a peer has claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Whether it named all its tag sets that are for both.
    pub whole: bool,
    /// By tag set.
    pub digests: BTreeMap<u64, Print>,
}

impl Claim {
    pub fn new(whole: bool, digests: Vec<TagSetDigest>) -> Self {
        Self { whole, digests: digests.into_iter().map(|one| (one.tags, one.print)).collect() }
    }
}

/// What came of comparing on this link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DigestVerdict {
    Unknown,
    /// As of this end of the log.
    Equal(Position),
    Differs,
}

/// A tag set with its digests there and here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DigestDifference {
    tags: u64,
    theirs: Print,
    ours: Print,
}

/// What is known of one peer.
#[derive(Debug)]
pub(crate) struct Convergence {
    link: Option<LinkId>,
    /// Then the peer held what this node held.
    held_at: Instant,
    /// At this time the log ended here: when that is settled, the peer held it then.
    mark: (Position, Instant),
    /// When the next claim is due, once everything up to the position is settled.
    claim: (Position, Instant),
    theirs: Option<Claim>,
    /// Found with the last claim, when the log ended there.
    found: (Position, Vec<DigestDifference>),
    verdict: DigestVerdict,
    rewinds: u32,
    rewind_at: Instant,
}

impl Convergence {
    pub fn new(head: Position, now: Instant) -> Self {
        Self {
            link: None,
            held_at: now,
            mark: (head, now),
            claim: (head, now),
            theirs: None,
            found: (head, Vec::new()),
            verdict: DigestVerdict::Unknown,
            rewinds: 0,
            rewind_at: now,
        }
    }

    /// The peer is served by this link, with everything up to `cursor` settled of a log up to
    /// `head`. What was said on another link counts no more.
    pub fn look(&mut self, link: LinkId, cursor: Position, head: Position, now: Instant) {
        if self.link.replace(link) != Some(link) {
            (self.claim, self.theirs, self.found) = ((head, now), None, (head, Vec::new()));
            if self.verdict != DigestVerdict::Differs {
                self.verdict = DigestVerdict::Unknown;
            }
        }
        if cursor >= self.mark.0 && self.verdict != DigestVerdict::Differs {
            self.held_at = self.mark.1;
            self.mark = (head, now);
        }
    }

    /// Takes a claim; it is compared before long.
    pub fn hear(&mut self, link: LinkId, claim: Claim) {
        if self.link == Some(link) {
            self.theirs = Some(claim);
        }
    }

    /// Whether there is something to compare.
    pub fn has_heard(&self) -> bool {
        self.theirs.is_some()
    }

    /// Whether this node is to claim its digests.
    pub fn may_claim(&self, cursor: Position, now: Instant) -> bool {
        let (head, at) = self.claim;
        at <= now && cursor >= head
    }

    /// This node has claimed its digests.
    pub fn claimed(&mut self, head: Position, now: Instant) {
        self.claim = (head, now + CLAIM_INTERVAL);
    }

    /// Compares what was claimed with the digests of this node, as of the end of its log. Answers
    /// the number of tag sets in which the two differ, if they are known to.
    pub fn compare(
        &mut self,
        own: &Roots,
        is_shared: impl Fn(&TagSet) -> bool,
        cursor: Position,
        head: Position,
        now: Instant,
    ) -> Option<usize> {
        let theirs = self.theirs.take()?;
        let found = differences(own, is_shared, &theirs);
        if found.is_empty() {
            self.verdict = DigestVerdict::Equal(head);
            (self.held_at, self.mark) = (now, (head, now));
            (self.rewinds, self.rewind_at) = (0, now);
        }
        let (before, known) = &self.found;
        let again = found.iter().filter(|one| known.contains(one)).count();
        let differs = again > 0 && cursor >= *before;
        self.found = (head, found);
        if differs {
            self.verdict = DigestVerdict::Differs;
        }
        differs.then_some(again)
    }

    /// Whether to do something about a difference now. If so, it is longer before the next time.
    pub fn may_rewind(&mut self, now: Instant) -> bool {
        if now < self.rewind_at {
            return false;
        }
        self.rewind_at = now + REWIND_INTERVAL * (1 << self.rewinds.min(DOUBLINGS));
        self.rewinds += 1;
        // What was found speaks of the time before.
        self.found.1.clear();
        true
    }

    /// How long it is since the peer held what this node holds: nothing, if the link is there,
    /// all is settled, and the two are not known to differ.
    pub fn lag(&self, settled: bool, now: Instant) -> Duration {
        if settled && self.verdict != DigestVerdict::Differs {
            return Duration::ZERO;
        }
        now.since(self.held_at)
    }

    /// What came of comparing, in a word, if the log ends at `head`.
    pub fn verdict(&self, head: Position) -> &'static str {
        match self.verdict {
            DigestVerdict::Equal(at) if at == head => "equal",
            DigestVerdict::Differs => "differ",
            DigestVerdict::Unknown | DigestVerdict::Equal(_) => "unknown",
        }
    }
}

/// The tag sets in which a claim differs from the digests of this node, as many as are remembered.
/// One that only one side names is looked at only if the other side has named all.
fn differences(
    own: &Roots,
    is_shared: impl Fn(&TagSet) -> bool,
    claim: &Claim,
) -> Vec<DigestDifference> {
    let mut left = claim.digests.clone();
    let mut found = Vec::new();
    for (set, ours) in &own.digests {
        let (tags, ours) = (Print::of_tags(set.as_str()), *ours);
        let theirs = match left.remove(&tags) {
            Some(theirs) => theirs,
            None if claim.whole => Print::NOTHING,
            None => continue,
        };
        if theirs != ours && is_shared(set) {
            found.push(DigestDifference { tags, theirs, ours });
        }
    }
    if own.upto.is_none() {
        let others = left.into_iter().filter(|(_, theirs)| *theirs != Print::NOTHING);
        let ours = Print::NOTHING;
        found.extend(others.map(|(tags, theirs)| DigestDifference { tags, theirs, ours }));
    }
    found.truncate(MAX_DIFFERENCES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId::new(1);

    fn set(tags: &str) -> TagSet {
        TagSet::new(crate::types::tags::list(tags)).expect("good tags")
    }

    fn own(digests: &[(&str, u64)]) -> Roots {
        let digests = digests.iter().map(|(tags, print)| (set(tags), Print::new(*print)));
        Roots { digests: digests.collect(), upto: None }
    }

    fn claim(digests: &[(&str, u64)]) -> Claim {
        let digest = |(tags, print): &(&str, u64)| TagSetDigest {
            tags: Print::of_tags(tags),
            print: Print::new(*print),
        };
        Claim::new(true, digests.iter().map(digest).collect())
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// A peer of a log up to 10, all of which is settled.
    fn peer() -> Convergence {
        let mut peer = Convergence::new(Position::new(10), at(0));
        peer.look(LINK, Position::new(10), Position::new(10), at(0));
        peer
    }

    /// Compares `theirs` with `ours` at a time, when the log ends at 10.
    fn compare(
        peer: &mut Convergence,
        ours: &[(&str, u64)],
        theirs: &[(&str, u64)],
        seconds: u64,
    ) -> Option<usize> {
        let head = Position::new(10);
        peer.hear(LINK, claim(theirs));
        peer.compare(&own(ours), |_| true, head, head, at(seconds))
    }

    // keeps: digests-heal
    #[test]
    fn only_what_differs_twice_and_stands_still_is_a_difference() {
        let mut peer = peer();
        assert_eq!(compare(&mut peer, &[("", 1)], &[("", 2)], 5), None);
        assert_eq!(compare(&mut peer, &[("", 1)], &[("", 3)], 10), None, "they have moved");
        assert_eq!(compare(&mut peer, &[("", 4)], &[("", 3)], 15), None, "this node has");
        assert_eq!(compare(&mut peer, &[("", 4)], &[("", 3)], 20), Some(1));
        assert_eq!(peer.verdict(Position::new(10)), "differ");
        assert_eq!(compare(&mut peer, &[("", 4)], &[("", 4)], 25), None);
        assert_eq!(peer.verdict(Position::new(10)), "equal");
        assert_eq!(peer.verdict(Position::new(11)), "unknown", "something was written since");
    }

    // keeps: digests-heal
    #[test]
    fn what_is_owed_is_no_difference() {
        let mut peer = peer();
        let (head, before) = (Position::new(10), Position::new(9));
        for seconds in [5, 10, 15] {
            peer.hear(LINK, claim(&[("", 2)]));
            assert_eq!(peer.compare(&own(&[("", 1)]), |_| true, before, head, at(seconds)), None);
        }
    }

    #[test]
    fn a_tag_set_that_one_side_lacks_differs() {
        let found = |ours: &[(&str, u64)], theirs: &Claim| {
            differences(&own(ours), |tags| tags.as_str() != "x", theirs).len()
        };
        assert_eq!(found(&[("", 1), ("a", 1)], &claim(&[("", 1)])), 1);
        assert_eq!(found(&[("", 1)], &claim(&[("", 1), ("a", 1)])), 1);
        assert_eq!(found(&[("", 1), ("x", 1)], &claim(&[("", 1)])), 0, "it is not for both");
        let part = Claim { whole: false, ..claim(&[("", 1)]) };
        assert_eq!(found(&[("", 1), ("a", 1)], &part), 0);
    }

    // keeps: digests-backoff
    #[test]
    fn what_does_not_help_is_tried_less_and_less_often() {
        let mut peer = peer();
        let tries = (0..10 * 3600).filter(|second| peer.may_rewind(at(*second)));
        let tries: Vec<u64> = tries.collect();
        assert_eq!(tries[..4], [0, 30, 90, 210]);
        assert_eq!(tries[9] - tries[8], 3840, "about an hour");
        assert_eq!(compare(&mut peer, &[("", 1)], &[("", 1)], 36_001), None);
        assert!(peer.may_rewind(at(36_001)) && !peer.may_rewind(at(36_002)));
    }

    #[test]
    fn the_lag_counts_from_when_the_peer_last_held_everything() {
        let mut peer = peer();
        let ms = |peer: &Convergence, settled, seconds| peer.lag(settled, at(seconds)).as_secs();
        let head = Position::new;
        peer.look(LINK, head(10), head(10), at(3));
        assert_eq!(ms(&peer, true, 4), 0);
        peer.look(LINK, head(10), head(12), at(4));
        peer.look(LINK, head(11), head(15), at(5));
        assert_eq!(ms(&peer, false, 9), 6, "since the log ended at 10");
        peer.look(LINK, head(12), head(15), at(9));
        assert_eq!(ms(&peer, false, 9), 5, "the peer has what was there then");
        for seconds in [14, 19] {
            compare(&mut peer, &[("", 1)], &[("", 2)], seconds);
        }
        peer.look(LINK, head(15), head(15), at(20));
        assert_eq!(ms(&peer, true, 24), 20, "a difference is no agreement");
        compare(&mut peer, &[("", 1)], &[("", 1)], 25);
        assert_eq!(ms(&peer, true, 30), 0);
    }
}
