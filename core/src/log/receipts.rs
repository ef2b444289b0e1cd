//! Receipts that were given, so that publishing again gives the same one (P9).
//!
//! A ring per session: the newest [`Bounds::ids`] ids of the last [`WINDOW`], and over all
//! sessions a bound in bytes, to which the largest session gives way first. The store holds the
//! same as append-only blocks, one per session and batch.
//!
//! What stays true: no clock that is corrected makes a receipt older. Ages are counted by a time of
//! their own, which goes on with the monotonic clock, and at a start from the last block.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::store::ReceiptBlock;
use crate::types::clock::Hlc;
use crate::types::ids::{BatchId, Hash128, SessionId};
use crate::types::time::{Instant, Now, WallMs};

/// How long an id is remembered.
pub const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// Memory that one receipt takes, about, in bytes.
pub const RECEIPT_BYTES: usize = 168;

/// Bounds of the memory.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Ids per session.
    pub ids: usize,
    /// Bytes over all sessions.
    pub bytes: usize,
}

/// A receipt that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenReceipt {
    /// What was published.
    pub content: Hash128,
    /// The version that it was given.
    pub version: Hlc,
    /// The batch that it waits for; one that is durable already, if it was recovered.
    pub batch: BatchId,
}

/// What is known of a `messageId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptCheck {
    /// Nothing.
    Fresh,
    /// The same content was published under it.
    Same(GivenReceipt),
    /// Other content was published under it.
    Other,
}

/// Receipts of all sessions.
#[derive(Debug)]
pub struct ReceiptLog {
    bounds: Bounds,
    sessions: BTreeMap<SessionId, Ring>,
    /// Sessions whose receipts are to be written down.
    pub touched: BTreeSet<SessionId>,
    total: usize,
    /// At this point on the monotonic clock ...
    counted_from: Instant,
    /// ... it was this time.
    time_then: WallMs,
}

#[derive(Debug, Default)]
struct Ring {
    by_id: HashMap<Hash128, (GivenReceipt, WallMs)>,
    /// By when they were given.
    order: VecDeque<(Hash128, WallMs)>,
    /// Receipts since the last batch.
    fresh: Vec<StoredReceipts>,
    /// Blocks in the store: number, how many receipts.
    blocks: VecDeque<(u64, usize)>,
    next_block: u64,
    durable: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct StoredReceipts {
    id: Hash128,
    content: Hash128,
    version: Hlc,
}

impl ReceiptLog {
    /// What the store remembers, at a start. A block that cannot be read is left out.
    ///
    /// `last` is what the wall clock had said before: the time since then counts, up to [`WINDOW`].
    /// What seems to be longer cannot be told from a clock that was set right.
    pub fn recover(blocks: &[ReceiptBlock], bounds: Bounds, last: WallMs, now: Now) -> Self {
        let newest = blocks.iter().map(|block| block.wall).max();
        let away = Some(Duration::from_millis(now.wall.0.saturating_sub(last.0)));
        let away = away.filter(|away| *away <= WINDOW);
        let time_then = newest.map_or(now.wall, |newest| newest.plus(away.unwrap_or_default()));
        let (sessions, counted_from) = (BTreeMap::new(), now.instant);
        let mut receipts =
            Self { bounds, sessions, touched: BTreeSet::new(), total: 0, counted_from, time_then };
        for block in blocks {
            let ring = receipts.sessions.entry(block.session).or_default();
            ring.durable = true;
            ring.next_block = ring.next_block.max(block.number + 1);
            let stored: Vec<StoredReceipts> =
                postcard::from_bytes(&block.receipts).unwrap_or_default();
            ring.blocks.push_back((block.number, stored.len()));
            for StoredReceipts { id, content, version } in stored {
                let receipt = GivenReceipt { content, version, batch: BatchId::new(0) };
                if ring.by_id.insert(id, (receipt, block.wall)).is_none() {
                    receipts.total += 1;
                }
                ring.order.push_back((id, block.wall));
            }
        }
        receipts
    }

    /// The time by which ages are counted.
    pub fn time(&self, now: Instant) -> WallMs {
        self.time_then.plus(now.since(self.counted_from))
    }

    /// What is known of the id in this session at this [`Self::time`].
    pub fn check(
        &self,
        session: SessionId,
        id: &Hash128,
        content: &Hash128,
        time: WallMs,
    ) -> ReceiptCheck {
        let Some(ring) = self.sessions.get(&session) else { return ReceiptCheck::Fresh };
        match ring.by_id.get(id) {
            Some((_, given)) if *given < time.minus(WINDOW) => ReceiptCheck::Fresh,
            Some((receipt, _)) if receipt.content == *content => ReceiptCheck::Same(*receipt),
            Some(_) => ReceiptCheck::Other,
            None => ReceiptCheck::Fresh,
        }
    }

    /// Remembers a receipt, given at this [`Self::time`]. `durable` sessions have theirs in the
    /// store too.
    pub fn insert(
        &mut self,
        session: SessionId,
        durable: bool,
        id: Hash128,
        receipt: GivenReceipt,
        time: WallMs,
    ) {
        let ring = self.sessions.entry(session).or_default();
        ring.durable = durable;
        if ring.by_id.insert(id, (receipt, time)).is_none() {
            self.total += 1;
        }
        ring.order.push_back((id, time));
        if durable {
            ring.fresh.push(StoredReceipts {
                id,
                content: receipt.content,
                version: receipt.version,
            });
        }
    }

    /// Forgets a receipt whose batch was rolled back. To be called for the newest first.
    pub fn undo(&mut self, session: SessionId, id: &Hash128) {
        let Some(ring) = self.sessions.get_mut(&session) else { return };
        if ring.by_id.remove(id).is_some() {
            self.total -= 1;
        }
        if ring.order.back().is_some_and(|(last, ..)| last == id) {
            ring.order.pop_back();
        }
        if ring.fresh.last().is_some_and(|last| last.id == *id) {
            ring.fresh.pop();
        }
    }

    /// Takes note that these blocks are not in the store, because their batch was rolled back.
    pub fn undo_blocks(&mut self, blocks: &[ReceiptBlock]) {
        for block in blocks {
            if let Some(ring) = self.sessions.get_mut(&block.session) {
                ring.blocks.retain(|(number, _)| *number != block.number);
            }
        }
    }

    /// Forgets a session.
    pub fn end(&mut self, session: SessionId) {
        if let Some(ring) = self.sessions.remove(&session) {
            self.total -= ring.by_id.len();
        }
    }

    /// The blocks for the next batch of these sessions, and the blocks to delete, after forgetting
    /// what is beyond the bounds at this [`Self::time`].
    pub fn take_blocks(
        &mut self,
        touched: impl Iterator<Item = SessionId>,
        time: WallMs,
    ) -> (Vec<ReceiptBlock>, Vec<(SessionId, u64)>) {
        let (mut blocks, mut dropped) = (Vec::new(), Vec::new());
        for session in touched {
            let Some(ring) = self.sessions.get_mut(&session) else { continue };
            blocks.extend(ring.take_block(session, time));
            self.total -= ring.forget(self.bounds.ids, time.minus(WINDOW));
            dropped.extend(ring.drop_blocks().map(|number| (session, number)));
        }
        while self.total * RECEIPT_BYTES > self.bounds.bytes {
            let largest = self.sessions.iter_mut().max_by_key(|(_, ring)| ring.by_id.len());
            let Some((session, ring)) = largest else { break };
            // An eighth at a time, so that finding the largest costs little per id.
            let keep = ring.by_id.len() - ring.by_id.len().div_ceil(8);
            self.total -= ring.forget(keep, WallMs(0));
            dropped.extend(ring.drop_blocks().map(|number| (*session, number)));
        }
        (blocks, dropped)
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.total
    }
}

impl Ring {
    fn take_block(&mut self, session: SessionId, wall: WallMs) -> Option<ReceiptBlock> {
        if self.fresh.is_empty() {
            return None;
        }
        let fresh = core::mem::take(&mut self.fresh);
        let number = self.next_block;
        self.next_block += 1;
        self.blocks.push_back((number, fresh.len()));
        let receipts = postcard::to_allocvec(&fresh).expect("hashes can be encoded").into();
        Some(ReceiptBlock { session, number, wall, receipts })
    }

    /// Forgets all but the newest `keep`, and what is older than `oldest`. Answers how many ids.
    fn forget(&mut self, keep: usize, oldest: WallMs) -> usize {
        let before = self.by_id.len();
        while let Some((id, given)) = self.order.front() {
            if self.order.len() <= keep && *given >= oldest {
                break;
            }
            // An id that was used again after its time is remembered by its later receipt.
            if self.by_id.get(id).is_some_and(|(_, last)| last == given) {
                self.by_id.remove(id);
            }
            self.order.pop_front();
        }
        before - self.by_id.len()
    }

    /// Numbers of the oldest blocks, all of whose receipts are forgotten: the last suffices.
    fn drop_blocks(&mut self) -> impl Iterator<Item = u64> {
        let mut stored: usize = self.blocks.iter().map(|(_, count)| count).sum();
        let remembered = self.order.len() - self.fresh.len().min(self.order.len());
        let mut last = None;
        while let Some((number, count)) = self.blocks.front() {
            if stored - count < remembered {
                break;
            }
            stored -= count;
            last = Some(*number);
            self.blocks.pop_front();
        }
        last.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SESSION: SessionId = SessionId::new(1);

    fn hash(n: u64) -> Hash128 {
        Hash128::of(&[&n.to_le_bytes()])
    }

    fn receipt(n: u64) -> GivenReceipt {
        GivenReceipt { content: hash(n), version: Hlc::at(WallMs(n)), batch: BatchId::new(0) }
    }

    /// What a start knows whose clocks stand still.
    fn recovered(blocks: &[ReceiptBlock], bounds: Bounds) -> ReceiptLog {
        ReceiptLog::recover(
            blocks,
            bounds,
            WallMs(0),
            Now { instant: Instant::default(), wall: WallMs(0) },
        )
    }

    fn receipts(ids: usize, bytes: usize) -> ReceiptLog {
        recovered(&[], Bounds { ids, bytes })
    }

    #[test]
    fn the_same_content_is_known_and_other_content_is_told_apart() {
        let mut receipts = receipts(10, 1 << 20);
        receipts.insert(SESSION, true, hash(1), receipt(5), WallMs(5));
        let known = |content| receipts.check(SESSION, &hash(1), &hash(content), WallMs(6));
        assert_eq!(known(5), ReceiptCheck::Same(receipt(5)));
        assert_eq!(known(6), ReceiptCheck::Other);
        let elsewhere = receipts.check(SessionId::new(2), &hash(1), &hash(5), WallMs(6));
        assert_eq!(elsewhere, ReceiptCheck::Fresh);
    }

    // keeps: idempotent
    #[test]
    fn the_ring_keeps_the_newest_ids_also_across_a_restart() {
        let mut before = receipts(3, 1 << 20);
        let mut stored = Vec::new();
        for n in 1..=5 {
            before.insert(SESSION, true, hash(n), receipt(n), WallMs(n));
            let (blocks, dropped) = before.take_blocks([SESSION].into_iter(), WallMs(n));
            stored.extend(blocks);
            stored.retain(|block| dropped.iter().all(|(_, upto)| block.number > *upto));
        }
        assert_eq!(stored.len(), 3);
        let after = recovered(&stored, Bounds { ids: 3, bytes: 1 << 20 });
        for n in 1..=5 {
            let expected =
                if n <= 2 { ReceiptCheck::Fresh } else { ReceiptCheck::Same(receipt(n)) };
            assert_eq!(before.check(SESSION, &hash(n), &hash(n), WallMs(9)), expected);
            assert_eq!(after.check(SESSION, &hash(n), &hash(n), WallMs(9)), expected);
        }
    }

    // keeps: idempotent
    #[test]
    fn an_id_is_forgotten_after_a_day() {
        let mut receipts = receipts(10, 1 << 20);
        let day = 24 * 60 * 60 * 1000;
        receipts.insert(SESSION, true, hash(1), receipt(5), WallMs(5));
        assert_ne!(
            receipts.check(SESSION, &hash(1), &hash(5), WallMs(5 + day)),
            ReceiptCheck::Fresh
        );
        assert_eq!(
            receipts.check(SESSION, &hash(1), &hash(5), WallMs(6 + day)),
            ReceiptCheck::Fresh
        );
    }

    #[test]
    fn an_id_that_is_used_again_after_a_day_is_remembered_again() {
        let mut receipts = receipts(10, 1 << 20);
        let later = 25 * 60 * 60 * 1000;
        receipts.insert(SESSION, true, hash(1), receipt(5), WallMs(5));
        receipts.take_blocks([SESSION].into_iter(), WallMs(5));
        receipts.insert(SESSION, true, hash(1), receipt(later), WallMs(later));
        receipts.take_blocks([SESSION].into_iter(), WallMs(later));
        let known = receipts.check(SESSION, &hash(1), &hash(later), WallMs(later + 1));
        assert_eq!(known, ReceiptCheck::Same(receipt(later)));
    }

    // keeps: memory-bounds
    #[test]
    fn the_largest_session_gives_way_first() {
        let mut receipts = receipts(1000, 100 * RECEIPT_BYTES);
        let quiet = SessionId::new(2);
        receipts.insert(quiet, true, hash(0), receipt(0), WallMs(1));
        for n in 1..=200 {
            receipts.insert(SESSION, true, hash(n), receipt(n), WallMs(1));
        }
        receipts.take_blocks([SESSION, quiet].into_iter(), WallMs(1));
        assert!(receipts.len() <= 100);
        assert_ne!(receipts.check(quiet, &hash(0), &hash(0), WallMs(1)), ReceiptCheck::Fresh);
        assert_ne!(receipts.check(SESSION, &hash(200), &hash(200), WallMs(1)), ReceiptCheck::Fresh);
    }

    // keeps: memory-bounds
    #[test]
    fn a_full_ring_costs_what_is_stated() {
        const IDS: u64 = 65_536;
        let mut receipts = receipts(IDS as usize, usize::MAX);
        let taken = allocation_counter::measure(|| {
            for n in 1..=2 * IDS {
                receipts.insert(SESSION, true, hash(n), receipt(n), WallMs(1));
                if n % 1000 == 0 {
                    receipts.take_blocks([SESSION].into_iter(), WallMs(1));
                }
            }
        });
        let each = taken.bytes_current as u64 / IDS;
        assert!(each <= RECEIPT_BYTES as u64, "{each} bytes a receipt");
    }

    // keeps: rollback-clean
    #[test]
    fn what_was_rolled_back_is_fresh_again() {
        let mut receipts = receipts(10, 1 << 20);
        receipts.insert(SESSION, true, hash(1), receipt(1), WallMs(1));
        receipts.undo(SESSION, &hash(1));
        assert_eq!(receipts.check(SESSION, &hash(1), &hash(1), WallMs(1)), ReceiptCheck::Fresh);
        assert!(receipts.take_blocks([SESSION].into_iter(), WallMs(1)).0.is_empty());
    }

    /// What may happen to the receipts of two sessions.
    #[derive(Debug, Clone)]
    enum Step {
        /// A session publishes an id with this content.
        Publish(u64, u64, u64),
        /// The batch that grows becomes durable.
        Commit,
        /// It is rolled back.
        RollBack,
        /// Time passes, in hours.
        Pass(u64),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..3_u64, 0..12_u64, 0..2_u64).prop_map(|(s, id, c)| Step::Publish(s, id, c)),
            3 => Just(Step::Commit),
            1 => Just(Step::RollBack),
            1 => (1..30_u64).prop_map(Step::Pass),
            1 => Just(Step::Restart),
        ]
    }

    const HOUR: u64 = 60 * 60 * 1000;
    const IDS: usize = 5;

    proptest! {
        #[test]
        fn a_publish_within_the_window_is_known_and_nothing_else_is(
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let bounds = Bounds { ids: IDS, bytes: 1 << 20 };
            let mut receipts = receipts(IDS, 1 << 20);
            // By session: id, content and time of every publish, oldest first.
            let mut model: BTreeMap<u64, Vec<(u64, u64, u64)>> = BTreeMap::new();
            let mut growing: Vec<(u64, u64)> = Vec::new();
            let mut stored: Vec<ReceiptBlock> = Vec::new();
            let mut now = 100 * HOUR;
            for step in steps {
                // Every stamp is another one.
                now += 1;
                match step {
                    Step::Publish(session, id, content) => {
                        let owner = SessionId::new(session);
                        let (id_hash, content_hash) = (hash(id), hash(content));
                        let now_ms = WallMs(now);
                        let said = receipts.check(owner, &id_hash, &content_hash, now_ms);
                        let published = model.entry(session).or_default();
                        // The newest of this id, if it is within the window in time.
                        let place = published.iter().rposition(|(known, _, at)| {
                            *known == id && WallMs(*at) >= WallMs(now).minus(WINDOW)
                        });
                        let recent = place.is_some_and(|at| published.len() - at <= IDS);
                        match said {
                            ReceiptCheck::Fresh => {
                                prop_assert!(!recent, "{} is forgotten too early", id);
                                let receipt = GivenReceipt {
                                    content: hash(content),
                                    version: Hlc::at(WallMs(now)),
                                    batch: BatchId::new(1),
                                };
                                receipts.insert(owner, true, hash(id), receipt, WallMs(now));
                                published.push((id, content, now));
                                growing.push((session, id));
                            }
                            ReceiptCheck::Same(receipt) => {
                                let (_, known, at) = published[place.expect("it was published")];
                                prop_assert_eq!(known, content);
                                prop_assert_eq!(Hlc::at(WallMs(at)), receipt.version);
                            }
                            ReceiptCheck::Other => {
                                let (_, known, _) = published[place.expect("it was published")];
                                prop_assert_ne!(known, content);
                            }
                        }
                    }
                    Step::Commit => {
                        let touched: BTreeSet<u64> = growing.drain(..).map(|(s, _)| s).collect();
                        let touched = touched.into_iter().map(SessionId::new);
                        let (blocks, dropped) = receipts.take_blocks(touched, WallMs(now));
                        stored.extend(blocks);
                        stored.retain(|block| {
                            let gone = |(session, upto): &(SessionId, u64)| {
                                *session == block.session && block.number <= *upto
                            };
                            !dropped.iter().any(gone)
                        });
                    }
                    Step::RollBack => {
                        while let Some((session, id)) = growing.pop() {
                            receipts.undo(SessionId::new(session), &hash(id));
                            model.entry(session).or_default().pop();
                        }
                    }
                    // No batch grows for so long.
                    Step::Pass(hours) if growing.is_empty() => now += hours * HOUR,
                    Step::Pass(_) => {}
                    Step::Restart => {
                        while let Some((session, _)) = growing.pop() {
                            model.entry(session).or_default().pop();
                        }
                        stored.sort_by_key(|block| (block.session, block.number));
                        receipts = recovered(&stored, bounds);
                    }
                }
            }
        }

        #[test]
        fn any_block_is_read_or_left_out(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let block = ReceiptBlock {
                session: SESSION,
                number: 1,
                wall: WallMs(1),
                receipts: block.into(),
            };
            let bounds = Bounds { ids: 10, bytes: 1 << 20 };
            // Serde reserves at most 1 MiB for a list on its word.
            let taken = allocation_counter::measure(|| {
                let mut receipts = recovered(core::slice::from_ref(&block), bounds);
                receipts.insert(SESSION, true, hash(1), receipt(1), WallMs(1));
                let _blocks = receipts.take_blocks([SESSION].into_iter(), WallMs(2));
            });
            prop_assert!(taken.bytes_max <= 2 << 20, "{} bytes", taken.bytes_max);
        }

        #[test]
        fn a_block_that_is_cut_short_is_left_out(count in 1..20_u64) {
            let mut receipts = receipts(100, 1 << 20);
            for n in 1..=count {
                receipts.insert(SESSION, true, hash(n), receipt(n), WallMs(n));
            }
            let (blocks, _) = receipts.take_blocks([SESSION].into_iter(), WallMs(count));
            let bounds = Bounds { ids: 100, bytes: 1 << 20 };
            prop_assert_eq!(recovered(&blocks, bounds).len() as u64, count);
            let whole = &blocks[0].receipts;
            for end in 0..whole.len() {
                let cut = ReceiptBlock { receipts: whole.slice(..end), ..blocks[0].clone() };
                prop_assert_eq!(recovered(&[cut], bounds).len(), 0, "cut at {}", end);
            }
        }
    }
}
