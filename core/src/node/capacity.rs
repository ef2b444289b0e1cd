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

use crate::admin::event::Event;
use crate::store::Usage;
use crate::types::refusal::{Code, Refusal};
use crate::types::time::Instant;
use crate::types::timers::Timer;
use crate::wire::message::Kind;

use super::Node;

/// How long the store is left alone after it was full.
pub(super) const REST_AFTER_FULL: Duration = Duration::from_secs(1);

/// How long history gives way after a commit found no room, and publishers wait for it. It is tried
/// again then, as not every system tells what is left.
const FULL_FOR: Duration = Duration::from_secs(5);

/// History gives way while the disk has less than this left, or than a quarter of what fits: as
/// much as may be on its way to it.
const DISK_SPARE: u64 = 8 << 20;

/// How long nothing may have been refused until it is said that there is room again.
const CALM: Duration = Duration::from_secs(10);

/// What is known of the room in the store.
#[derive(Debug)]
pub(super) struct Capacity {
    /// What the store said with the last batch.
    pub(super) usage: Usage,
    /// Nothing is committed before this time.
    pub(super) rest_until: Option<Instant>,
    /// When a commit last found no room, with so many bytes in use.
    failed: Option<(Instant, u64)>,
    /// What the store said then.
    said: String,
    /// When there was last none, since that was said.
    none_at: Option<Instant>,
    /// The store was full for peers, and has not enough room again.
    peers_refused: bool,
}

impl Capacity {
    /// Room of a store that holds so much.
    pub(super) fn new(usage: Usage) -> Self {
        Self {
            usage,
            rest_until: None,
            failed: None,
            said: String::new(),
            none_at: None,
            peers_refused: false,
        }
    }

    /// A commit has found no room.
    pub(super) fn note_failure(&mut self, now: Instant, said: String) {
        self.failed = Some((now, self.usage.used_bytes));
        self.said = said;
        self.rest_until = Some(now + REST_AFTER_FULL);
    }
}

/// What is in the way of a message.
enum Full {
    /// Bytes are in use, or are about to be; and so many may be.
    Store(u64, u64),
    Disk,
}

impl Node {
    /// Whether a publisher's message of this kind is refused for want of room (P8). A delete makes
    /// room in the end, and may take some for that.
    pub(super) fn refuses_for_room(&self, kind: Kind) -> Result<(), Refusal> {
        let max = self.config.store.max_bytes;
        let full =
            if kind == Kind::Dk { self.over(max.saturating_add(max / 4)) } else { self.full() };
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
    pub(super) fn full_reason(&self) -> Option<String> {
        Some(match self.full()? {
            Full::Store(used, limit) => {
                format!("{used} bytes are in use, store.max_bytes is {limit}")
            }
            Full::Disk => match (self.capacity.usage.room_bytes, self.failed_at()) {
                (_, Some(_)) => format!("the disk is full ({})", self.capacity.said),
                (Some(room), None) => format!("the disk is full ({room} bytes may be added)"),
                (None, None) => "the disk is full".into(),
            },
        })
    }

    fn full(&self) -> Option<Full> {
        if self.is_disk_full() { Some(Full::Disk) } else { self.over(self.config.store.max_bytes) }
    }

    fn over(&self, limit: u64) -> Option<Full> {
        let used = self.used_bytes();
        (used > limit).then_some(Full::Store(used, limit))
    }

    fn used_bytes(&self) -> u64 {
        self.capacity.usage.used_bytes + self.log.undurable_bytes() as u64
    }

    fn is_disk_full(&self) -> bool {
        let undurable = self.log.undurable_bytes() as u64;
        self.capacity.rest_until.is_some()
            || self.capacity.usage.room_bytes.is_some_and(|room| undurable >= room)
            || (self.failed_at().is_some() && self.has_history_to_spare())
    }

    /// Whether history has still to give way.
    fn has_history_to_spare(&self) -> bool {
        self.capacity.usage.history_bytes > self.history_max_bytes()
    }

    /// The bytes in use when a commit found no room, not long ago.
    fn failed_at(&self) -> Option<u64> {
        let recent = |at: Instant| self.time.now.instant < at + FULL_FOR;
        self.capacity.failed.filter(|(at, _)| recent(*at)).map(|(_, used)| used)
    }

    /// Whether peers are refused, at 5/4 of what publishers may fill, or when the disk is full.
    /// Once begun, it goes on until a sixteenth is free: a peer that is refused one message and
    /// taken the next could never forget what it was acknowledged, and two full nodes would wait
    /// for each other (P8).
    pub(super) fn refuses_peers(&mut self) -> bool {
        let max = self.config.store.max_bytes;
        let limit = max.saturating_add(max / 4);
        let room = if self.capacity.peers_refused { max / 16 } else { 0 };
        self.capacity.peers_refused = self.is_disk_full() || self.over(limit - room).is_some();
        self.capacity.peers_refused
    }

    /// The bound of the history. It gives way to what is owed: it is at most half of the store, and
    /// goes before publishers are refused.
    pub(super) fn history_max_bytes(&self) -> u64 {
        let store = &self.config.store;
        let most = store.history_max_bytes.min(store.max_bytes / 2);
        match self.capacity.usage.used_bytes.saturating_sub(self.spared_above()) {
            0 => most,
            excess => most.min(self.capacity.usage.history_bytes.saturating_sub(excess)),
        }
    }

    /// Whether history gives way to what is owed.
    pub(super) fn gives_way(&self) -> bool {
        self.capacity.usage.used_bytes > self.spared_above()
    }

    /// Whether events that led nowhere go, too. Not for a full disk, which may be over in a moment:
    /// whoever wants one of them may be out of reach, and known to nobody near.
    pub(super) fn is_short_of_room(&self) -> bool {
        let max = self.config.store.max_bytes;
        self.capacity.usage.used_bytes > max - max / 16
    }

    /// Above so many bytes in use what can be spared goes, before publishers are refused.
    fn spared_above(&self) -> u64 {
        let disk = self
            .capacity
            .usage
            .room_bytes
            .map_or(u64::MAX, |room| self.capacity.usage.used_bytes + room);
        let spared = (disk / 16).max(DISK_SPARE.min(disk / 4));
        let failed = self.failed_at().unwrap_or(u64::MAX);
        let fits = failed.min(self.config.store.max_bytes);
        (fits - fits / 16).min(disk - spared)
    }

    /// Says once that publishers are refused, and once that they are not any more.
    pub(super) fn notice_room(&mut self) {
        let now = self.time.now.instant;
        if let Some(reason) = self.full_reason() {
            if self.capacity.none_at.replace(now).is_none() {
                self.out.event(Event::StoreFull { reason });
            }
            // What is in the way may go without a commit of anybody.
            self.time.timers.set_earlier(Timer::Upkeep, now + REST_AFTER_FULL);
        } else if self.capacity.none_at.is_some_and(|at| at + CALM <= now) {
            self.capacity.none_at = None;
            self.out.event(Event::StoreHasRoom);
        }
    }

    /// Ends the rest after a failure in time. While there is no room it is looked for it each
    /// second, with a commit.
    pub(super) fn look_for_room(&mut self) {
        let now = self.time.now.instant;
        match self.capacity.rest_until {
            // Upkeep came for another reason; the end of the rest is not to wait for the next.
            Some(until) if until > now => self.time.timers.set_earlier(Timer::Upkeep, until),
            Some(_) => {
                self.capacity.rest_until = None;
                self.commit_wanted = true;
            }
            None => self.commit_wanted |= self.is_disk_full(),
        }
        self.notice_room();
    }
}
