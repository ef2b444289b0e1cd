//! A link to a node: what was agreed on it, the messages under way on it in both directions, and
//! the clock of the other end.
//!
//! What stays true: acknowledgements are cumulative, so what is told to be settled is durable here
//! with everything before it (P1).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::config::Durability;
use crate::log::lifetime::{Ends, Transit};
use crate::log::seen::Id;
use crate::types::ids::{BatchId, FetchId, Incarnation, NodeId, Position, SessionId};
use crate::types::time::{Now, WallMs};
use crate::wire::message::Message;
use crate::wire::{FEATURE_DIGESTS, FEATURE_ENDS, Hello};

/// A link to a node.
#[derive(Debug)]
pub struct PeerLink {
    /// Its session.
    pub session: SessionId,
    /// Its id.
    pub node: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// What it said of itself.
    pub terms: PeerTerms,
    /// How long the way from it takes, if it says, and is told, how long events have left.
    pub transit: Option<Transit>,
    /// Messages to it.
    pub rows_out: RowsOut,
    /// Messages from it.
    pub rows_in: RowsIn,
    /// Whether it has told where its log ends.
    pub has_reported: bool,
    /// Its wall clock less this node's monotonic clock, milliseconds.
    clock_reference_ms: i64,
    /// Whether a version was refused on this link: said once.
    pub warned_of_clock: bool,
}

/// What a peer said of itself as its link began.
#[derive(Debug)]
pub struct PeerTerms {
    /// Whether it syncs before it acknowledges.
    pub durability: Durability,
    /// Whether it compares digests.
    pub compares: bool,
    /// Largest value that it takes.
    pub max_message_bytes: usize,
    /// Largest frame that it takes.
    pub max_frame_bytes: usize,
}

/// Messages to a peer.
#[derive(Debug, Default)]
pub struct RowsOut {
    /// Messages sent and not acknowledged, oldest first; `None`: refused for now.
    pub sent: VecDeque<Option<Position>>,
    /// Number of the message before the first in `sent`.
    pub acknowledged: u64,
    /// Rows behind this one came while the link was up: they are sent at once to children. What
    /// was there before is offered.
    pub began: Position,
}

/// Messages from a peer.
#[derive(Debug, Default)]
pub struct RowsIn {
    /// Messages received.
    pub received: u64,
    /// Received up to this number, durable with this batch; in order.
    pub waiting: VecDeque<(BatchId, u64)>,
    /// Received up to this number and durable.
    pub settled: u64,
    /// Told the peer so.
    pub told: u64,
    /// Told the peer that the log ends here.
    pub told_position: Position,
    /// What it has offered and is under way here: said to be seen with the batch.
    pub seen_later: VecDeque<(BatchId, Id)>,
    /// Messages that wait for the store to say what is the newest of their keys.
    pub parked: VecDeque<(Message, Ends)>,
    /// That question.
    pub lookup: Option<FetchId>,
}

impl PeerLink {
    /// A link to the node that said `hello`.
    pub fn new(session: SessionId, node: NodeId, hello: &Hello, now: Now) -> Self {
        Self {
            session,
            node,
            incarnation: hello.incarnation,
            terms: PeerTerms {
                durability: hello.durability,
                compares: hello.features & FEATURE_DIGESTS != 0,
                max_message_bytes: usize::try_from(hello.max_message_bytes).unwrap_or(usize::MAX),
                max_frame_bytes: usize::try_from(hello.max_frame_bytes).unwrap_or(usize::MAX),
            },
            transit: (hello.features & FEATURE_ENDS != 0).then(Transit::default),
            rows_out: RowsOut::default(),
            rows_in: RowsIn::default(),
            has_reported: false,
            clock_reference_ms: clock_reference(hello.wall, now),
            warned_of_clock: false,
        }
    }

    /// Takes note of what its wall clock says.
    pub fn hear_clock(&mut self, wall: WallMs, now: Now) {
        self.clock_reference_ms = clock_reference(wall, now);
    }

    /// How far its wall clock is ahead of this node's, milliseconds. Measured against the
    /// monotonic clock, so that a jump of this node's wall clock shows at once.
    pub fn clock_offset_ms(&self, now: Now) -> i64 {
        let monotonic = (now.instant.as_micros() / 1000).cast_signed();
        self.clock_reference_ms + monotonic - now.wall.0.cast_signed()
    }

    /// The message received last is durable with `batch`, or already (`None`). Acknowledgements
    /// are cumulative, so it waits for what came before it.
    pub fn received_with(&mut self, batch: Option<BatchId>) {
        let last = self.rows_in.waiting.back().map(|(batch, _)| *batch);
        match batch.max(last) {
            None => self.rows_in.settled = self.rows_in.received,
            Some(batch) => match self.rows_in.waiting.back_mut() {
                Some((last, upto)) if *last == batch => *upto = self.rows_in.received,
                Some(_) | None => self.rows_in.waiting.push_back((batch, self.rows_in.received)),
            },
        }
    }

    /// A batch is durable.
    pub fn committed(&mut self, batch: BatchId) {
        while let Some((waiting, upto)) = self.rows_in.waiting.front() {
            if *waiting > batch {
                break;
            }
            self.rows_in.settled = *upto;
            self.rows_in.waiting.pop_front();
        }
    }

    /// What was offered, and is durable with this batch.
    pub fn take_seen(&mut self, batch: BatchId) -> Vec<Id> {
        let count =
            self.rows_in.seen_later.iter().take_while(|(waiting, _)| *waiting <= batch).count();
        self.rows_in.seen_later.drain(..count).map(|(_, id)| id).collect()
    }

    /// Nothing that waits will become durable. Answers the numbers of what is to be sent again.
    pub fn failed(&mut self) -> Option<(u64, u64)> {
        // It is offered again.
        self.rows_in.seen_later.clear();
        let (_, last) = *self.rows_in.waiting.back()?;
        let first = self.rows_in.settled + 1;
        self.rows_in.waiting.clear();
        self.rows_in.settled = last;
        Some((first, last))
    }

    /// The positions that the peer acknowledges with the cumulative number `upto`.
    pub fn acknowledge(&mut self, upto: u64) -> impl Iterator<Item = Position> + '_ {
        let count =
            upto.saturating_sub(self.rows_out.acknowledged).min(self.rows_out.sent.len() as u64);
        self.rows_out.acknowledged += count;
        self.rows_out.sent.drain(..count as usize).flatten()
    }

    /// Whether an acknowledgement of this number makes sense.
    pub fn may_acknowledge(&self, upto: u64) -> bool {
        upto <= self.rows_out.acknowledged + self.rows_out.sent.len() as u64
    }

    /// The positions that the peer refuses for now.
    pub fn refuse(&mut self, first: u64, last: u64) -> impl Iterator<Item = Position> + '_ {
        let start = first.saturating_sub(self.rows_out.acknowledged + 1);
        let end = last.saturating_sub(self.rows_out.acknowledged);
        let (start, end) = (start as usize, (end as usize).min(self.rows_out.sent.len()));
        self.rows_out.sent.range_mut(start.min(end)..end).filter_map(Option::take)
    }
}

fn clock_reference(wall: WallMs, now: Now) -> i64 {
    wall.0.cast_signed() - (now.instant.as_micros() / 1000).cast_signed()
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use crate::types::ids::StoreId;
    use crate::types::time::Instant;

    fn peer_link() -> PeerLink {
        let now = Now { instant: Instant::from_micros(0), wall: WallMs(0) };
        let hello = Hello {
            protocol: 1,
            node: "b".into(),
            store: StoreId(1),
            incarnation: Incarnation::new(1),
            group: String::new(),
            tags: String::new(),
            wall: WallMs(0),
            durability: Durability::Full,
            features: 0,
            max_message_bytes: 1,
            max_frame_bytes: 4,
            reported: Position::new(0),
            reported_incarnation: Incarnation::new(0),
        };
        PeerLink::new(SessionId::new(1), NodeId::new("b").expect("a name"), &hello, now)
    }

    fn receive(link: &mut PeerLink, batch: Option<u64>) {
        link.rows_in.received += 1;
        link.received_with(batch.map(BatchId::new));
    }

    // keeps: commit-first
    #[test]
    fn an_acknowledgement_waits_for_everything_before_it() {
        let mut link = peer_link();
        receive(&mut link, None);
        assert_eq!(link.rows_in.settled, 1);
        receive(&mut link, Some(3));
        receive(&mut link, None);
        receive(&mut link, Some(2));
        assert_eq!(link.rows_in.settled, 1, "the duplicate waits behind the new message");
        link.committed(BatchId::new(2));
        assert_eq!(link.rows_in.settled, 1);
        link.committed(BatchId::new(3));
        assert_eq!(link.rows_in.settled, 4);
    }

    // keeps: rollback-clean
    #[test]
    fn what_a_failed_batch_held_is_named_once() {
        let mut link = peer_link();
        receive(&mut link, Some(1));
        link.committed(BatchId::new(1));
        receive(&mut link, Some(2));
        receive(&mut link, Some(3));
        assert_eq!(link.failed(), Some((2, 3)));
        assert_eq!(link.failed(), None);
        assert_eq!(link.rows_in.settled, 3);
    }

    #[test]
    fn refused_messages_are_not_acknowledged_by_a_later_number() {
        let mut link = peer_link();
        link.rows_out.sent.extend((1..=5).map(|n| Some(Position::new(n))));
        let refused: alloc::vec::Vec<_> = link.refuse(2, 3).collect();
        assert_eq!(refused, [Position::new(2), Position::new(3)]);
        let acknowledged: alloc::vec::Vec<_> = link.acknowledge(4).collect();
        assert_eq!(acknowledged, [Position::new(1), Position::new(4)]);
        assert!(link.may_acknowledge(5));
        assert!(!link.may_acknowledge(6));
        assert_eq!(link.refuse(1, 9).count(), 1);
    }
}
