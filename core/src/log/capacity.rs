//! Room in the store: who is refused for want of it, how far the history gives way, and what is
//! said about it.
//!
//! What stays true: a full disk is the same as `store.max_bytes`, at what fits on it. History
//! gives way before publishers are refused, publishers before peers, and deletes last, which make
//! room themselves. One error begins a time in which there is no room, and one word ends it, after
//! [`CALM`] without.

use core::time::Duration;

use alloc::format;
use alloc::string::String;

use crate::config::StoreLimits;
use crate::store::Usage;
use crate::types::refusal::{Code, Refusal};
use crate::types::time::Instant;
use crate::wire::message::Kind;

/// How long the store is left alone after it was full.
pub const REST_AFTER_FULL: Duration = Duration::from_secs(1);

/// How long history gives way after a commit found no room, and publishers wait for it. It is tried
/// again then, as not every system tells what is left.
const FULL_FOR: Duration = Duration::from_secs(5);

/// History gives way while the disk has less than this left, or than a quarter of what fits: as
/// much as may be on its way to it.
const DISK_SPARE: u64 = 8 << 20;

/// How long nothing may have been refused until it is said that there is room again.
pub const CALM: Duration = Duration::from_secs(10);

/// What is known of the room in the store.
#[derive(Debug)]
pub struct Capacity {
    /// What the store said with the last batch.
    pub usage: Usage,
    /// Nothing is committed before this time.
    pub rest_until: Option<Instant>,
    /// When a commit last found no room, with so many bytes in use.
    failed: Option<(Instant, u64)>,
    /// What the store said then.
    said: String,
    /// When there was last none, since that was said.
    pub none_at: Option<Instant>,
    /// The store was full for peers, and has not enough room again.
    peers_refused: bool,
    /// `store.max_bytes` and `store.history_max_bytes`.
    max_bytes: u64,
    history_max_bytes: u64,
}

/// What is on its way to the store, and the time at which room is judged.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Bytes of messages that are not durable yet.
    pub undurable: u64,
    /// The time.
    pub now: Instant,
}

impl Capacity {
    /// Room of a store that holds so much.
    pub fn new(usage: Usage, limits: &StoreLimits) -> Self {
        Self {
            usage,
            rest_until: None,
            failed: None,
            said: String::new(),
            none_at: None,
            peers_refused: false,
            max_bytes: limits.max_bytes,
            history_max_bytes: limits.history_max_bytes,
        }
    }

    /// A commit has found no room.
    pub fn note_failure(&mut self, now: Instant, said: String) {
        self.failed = Some((now, self.usage.used_bytes));
        self.said = said;
        self.rest_until = Some(now + REST_AFTER_FULL);
    }

    /// Whether a publisher's message of this kind is refused for want of room (P8). A delete makes
    /// room in the end, and may take some for that.
    pub fn check_publish(&self, kind: Kind, load: Load) -> Result<(), Refusal> {
        let max = self.max_bytes;
        let full = if kind == Kind::Dk {
            self.over(max.saturating_add(max / 4), load)
        } else {
            self.full(load)
        };
        let Some(full) = full else { return Ok(()) };
        let reason = match full {
            Full::Store(used, limit) => {
                format!("the node's store holds {used} bytes, the limit is {limit}")
            }
            Full::Disk => "the disk of the node is full".into(),
        };
        let mut refusal = Refusal::new(Code::StoreFull, reason);
        refusal.retry_after = Some(REST_AFTER_FULL);
        Err(refusal)
    }

    /// Why publishers are refused now, if they are.
    pub fn full_reason(&self, load: Load) -> Option<String> {
        Some(match self.full(load)? {
            Full::Store(used, limit) => {
                format!("{used} bytes are in use, store.max_bytes is {limit}")
            }
            Full::Disk => match (self.usage.room_bytes, self.failed_at(load)) {
                (_, Some(_)) => format!("the disk is full ({})", self.said),
                (Some(room), None) => format!("the disk is full ({room} bytes may be added)"),
                (None, None) => "the disk is full".into(),
            },
        })
    }

    fn full(&self, load: Load) -> Option<Full> {
        if self.is_disk_full(load) { Some(Full::Disk) } else { self.over(self.max_bytes, load) }
    }

    fn over(&self, limit: u64, load: Load) -> Option<Full> {
        let used = self.usage.used_bytes + load.undurable;
        (used > limit).then_some(Full::Store(used, limit))
    }

    /// Whether nothing may be added, whatever the limit says.
    pub fn is_disk_full(&self, load: Load) -> bool {
        self.rest_until.is_some()
            || self.usage.room_bytes.is_some_and(|room| load.undurable >= room)
            || (self.failed_at(load).is_some() && self.has_history_to_spare(load))
    }

    /// Whether history has still to give way.
    pub fn has_history_to_spare(&self, load: Load) -> bool {
        self.usage.history_bytes > self.history_bound(load)
    }

    /// The bytes in use when a commit found no room, not long ago.
    fn failed_at(&self, load: Load) -> Option<u64> {
        let recent = |at: Instant| load.now < at + FULL_FOR;
        self.failed.filter(|(at, _)| recent(*at)).map(|(_, used)| used)
    }

    /// Whether peers are refused, at 5/4 of what publishers may fill, or when the disk is full.
    /// Once begun, it goes on until a sixteenth is free: a peer that is refused one message and
    /// taken the next could never forget what it was acknowledged, and two full nodes would wait
    /// for each other (P8).
    pub fn refuses_peers(&mut self, load: Load) -> bool {
        let max = self.max_bytes;
        let limit = max.saturating_add(max / 4);
        let room = if self.peers_refused { max / 16 } else { 0 };
        self.peers_refused = self.is_disk_full(load) || self.over(limit - room, load).is_some();
        self.peers_refused
    }

    /// The bound of the history. It gives way to what is owed: it is at most half of the store, and
    /// goes before publishers are refused.
    pub fn history_bound(&self, load: Load) -> u64 {
        let most = self.history_max_bytes.min(self.max_bytes / 2);
        match self.usage.used_bytes.saturating_sub(self.spared_above(load)) {
            0 => most,
            excess => most.min(self.usage.history_bytes.saturating_sub(excess)),
        }
    }

    /// Whether history gives way to what is owed.
    pub fn gives_way(&self, load: Load) -> bool {
        self.usage.used_bytes > self.spared_above(load)
    }

    /// Whether events that led nowhere go, too. Not for a full disk, which may be over in a moment:
    /// whoever wants one of them may be out of reach, and known to nobody near.
    pub fn is_short_of_room(&self) -> bool {
        let max = self.max_bytes;
        self.usage.used_bytes > max - max / 16
    }

    /// Above so many bytes in use what can be spared goes, before publishers are refused.
    fn spared_above(&self, load: Load) -> u64 {
        let disk = self.usage.room_bytes.map_or(u64::MAX, |room| self.usage.used_bytes + room);
        let spared = (disk / 16).max(DISK_SPARE.min(disk / 4));
        let failed = self.failed_at(load).unwrap_or(u64::MAX);
        let fits = failed.min(self.max_bytes);
        (fits - fits / 16).min(disk - spared)
    }
}

/// What is in the way of a message.
enum Full {
    /// Bytes are in use, or are about to be; and so many may be.
    Store(u64, u64),
    Disk,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 64 << 20;
    const HISTORY: u64 = 16 << 20;
    const IDLE: Load = Load { undurable: 0, now: Instant::from_micros(1) };

    fn holding(usage: Usage) -> Capacity {
        let mut limits = StoreLimits::default();
        (limits.max_bytes, limits.history_max_bytes) = (MAX, HISTORY);
        Capacity::new(usage, &limits)
    }

    fn used(used_bytes: u64) -> Capacity {
        holding(Usage { used_bytes, ..Usage::default() })
    }

    #[test]
    fn publishers_are_refused_one_byte_above_the_limit() {
        assert_eq!(used(MAX).check_publish(Kind::Sk, IDLE), Ok(()));
        let refused = used(MAX + 1).check_publish(Kind::Sk, IDLE).expect_err("it is full");
        assert_eq!((refused.code, refused.retry_after), (Code::StoreFull, Some(REST_AFTER_FULL)));
    }

    #[test]
    fn what_is_on_its_way_counts_as_used() {
        let load = Load { undurable: 1, ..IDLE };
        assert!(used(MAX).check_publish(Kind::Sk, load).is_err());
    }

    #[test]
    fn a_delete_is_taken_until_a_quarter_above_the_limit() {
        assert_eq!(used(MAX + MAX / 4).check_publish(Kind::Dk, IDLE), Ok(()));
        assert!(used(MAX + MAX / 4 + 1).check_publish(Kind::Dk, IDLE).is_err());
    }

    #[test]
    fn peers_are_refused_until_a_sixteenth_is_free_again() {
        let mut capacity = used(MAX + MAX / 4);
        assert!(!capacity.refuses_peers(IDLE));
        capacity.usage.used_bytes += 1;
        assert!(capacity.refuses_peers(IDLE));
        capacity.usage.used_bytes = MAX + MAX / 4 - MAX / 16 + 1;
        assert!(capacity.refuses_peers(IDLE), "too little is free");
        capacity.usage.used_bytes -= 1;
        assert!(!capacity.refuses_peers(IDLE));
    }

    #[test]
    fn history_gives_way_before_publishers_are_refused() {
        let at = |used_bytes| {
            let usage = Usage { used_bytes, history_bytes: HISTORY, ..Usage::default() };
            holding(usage).history_bound(IDLE)
        };
        assert_eq!(at(MAX - MAX / 16), HISTORY);
        assert_eq!(at(MAX - MAX / 16 + 1), HISTORY - 1);
        assert_eq!(at(MAX), HISTORY - MAX / 16);
    }

    #[test]
    fn a_disk_with_no_room_is_full_below_the_limit() {
        let usage = Usage { used_bytes: 1 << 20, room_bytes: Some(0), ..Usage::default() };
        let reason = holding(usage).full_reason(IDLE).expect("it is full");
        assert_eq!(reason, "the disk is full (0 bytes may be added)");
    }

    #[test]
    fn after_a_failed_commit_the_disk_is_full_for_the_rest() {
        let mut capacity = used(1 << 20);
        capacity.note_failure(IDLE.now, "no space left".into());
        assert_eq!(capacity.full_reason(IDLE).as_deref(), Some("the disk is full (no space left)"));
        // The rest is over, and there is no history that could still give way.
        capacity.rest_until = None;
        assert_eq!(capacity.full_reason(IDLE), None);
        capacity.usage.history_bytes = 1 << 20;
        assert!(capacity.full_reason(IDLE).is_some(), "history gives way first");
        let later = Load { now: IDLE.now + FULL_FOR, ..IDLE };
        assert_eq!(capacity.full_reason(later), None);
    }
}
