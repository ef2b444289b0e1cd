//! Frames of peers: their messages, acknowledgements and refusals.

use super::handlers::{Conflicts, Dialing, Ingest, LinkOut, PeerFrames, Records, lend};
use super::links::ActiveLink;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::admin::event::Event;
use crate::io::{Close, Frame};
use crate::log::group_copies;
use crate::log::lifetime::Ends;
use crate::log::newest::Comparison;
use crate::log::seen::SeenVerdict;
use crate::session::Dirty;
use crate::session::link::Link;
use crate::store::Row;
use crate::types::clock::Timely;
use crate::types::ids::Hash128;
use crate::types::rate::backoff;
use crate::types::time::WallMs;
use crate::wire::message::{MAX_WALL, Message};
use crate::wire::{
    Ack, BatchKind, FRAME_TARGET, FrameWriter, Left, NotNow, NotNowReason, TimedHead, Wire,
    messages, timed,
};

use super::accept::Accepted;
use super::connect::{NO_PLACE, protocol};
use super::handover::RowSender;

impl PeerFrames<'_> {
    /// Takes a frame of a peer. Its messages are parked, to be taken as far as the newest of their
    /// keys is known.
    pub(super) fn frame(&mut self, link: &mut ActiveLink<'_>, frame: Wire) -> Result<(), Close> {
        match frame {
            Wire::Messages(batch) => self.messages(link, &batch),
            Wire::Timed(batch) => self.timed(link, &batch),
            Wire::Ack(ack) => self.peer_acknowledged(link, ack),
            Wire::NotNow(not_now) => self.peer_refused(link, not_now),
            Wire::Topology(batch) => self.peer_topology(link, &batch),
            Wire::Have(batch) => self.peer_has(link, &batch),
            Wire::Want(batch) => self.peer_wants(link, &batch),
            Wire::Seen(batch) => self.peer_has_seen(link, &batch),
            Wire::Gone(batch) => self.peer_misses(link, &batch),
            Wire::Digests(batch) => self.peer_claims(link, &batch),
            _ => Err(protocol(NO_PLACE)),
        }
    }

    fn messages(&mut self, link: &mut ActiveLink<'_>, batch: &Bytes) -> Result<(), Close> {
        let messages = messages(batch).map_err(|error| protocol(&alloc::format!("{error}")))?;
        let by_wall = |message: Message| {
            let ends = Ends::ByWall(message.expires().unwrap_or_default());
            (message, ends)
        };
        self.park(link, messages.into_iter().map(by_wall).collect())
    }

    /// Messages, and how long each has left: in queues and sockets their time goes on.
    fn timed(&mut self, link: &mut ActiveLink<'_>, batch: &Bytes) -> Result<(), Close> {
        let (head, messages) =
            timed(batch).map_err(|error| protocol(&alloc::format!("{error}")))?;
        if head.sent_ms > MAX_WALL.0 {
            return Err(protocol("a batch with an impossible time"));
        }
        let transit = link.peer_mut().and_then(|peer| peer.transit.as_mut());
        let Some(transit) = transit else { return Err(protocol("it did not say that it would")) };
        let late = transit.came(head.sent_ms, self.time.now.instant);
        let time = self.time.lifetimes.time(self.time.now).minus(late);
        let here = |(left, message): (Left, Message)| {
            (message, Ends::Here(time.plus(Duration::from_millis(left.ms))))
        };
        self.park(link, messages.into_iter().map(here).collect())
    }

    fn park(
        &mut self,
        link: &mut ActiveLink<'_>,
        messages: Vec<(Message, Ends)>,
    ) -> Result<(), Close> {
        for (message, _) in &messages {
            self.check_message(link, message)?;
        }
        lend!(self, Dialing).dialer_succeeded(link);
        if let Some(peer) = link.peer_mut() {
            peer.rows_in.parked.extend(messages);
        }
        Ok(())
    }

    fn check_message(&self, link: &Link, message: &Message) -> Result<(), Close> {
        let limits = &self.config.limits;
        message
            .check()
            .map_err(|error| protocol(&alloc::format!("message {message:?}: {error}")))?;
        let peer = link.peer().map(|peer| peer.node.as_str());
        if message.path().rsplit(',').next() != peer {
            return Err(protocol("the path of a message does not end with its sender"));
        }
        if message.body_bytes() > limits.max_message_bytes {
            return Err(protocol("a value above the limit that this node told"));
        }
        Ok(())
    }

    /// How many parked messages can be taken in their order, and the keys to ask the store for
    /// before the others can; none while it is being asked.
    pub(super) fn judge_parked(
        &mut self,
        link: &mut ActiveLink<'_>,
    ) -> Option<(usize, Vec<Hash128>)> {
        let peer = link.peer_mut()?;
        if peer.rows_in.lookup.is_some() {
            return None;
        }
        let timely = self.time.clock.timely().also_for(peer.clock_offset_ms(self.time.now));
        let parked = peer.rows_in.parked.make_contiguous();
        Some(self.unknown_keys(parked, timely).unwrap_or((parked.len(), Vec::new())))
    }

    /// Takes so many parked messages.
    pub(super) fn take_parked(&mut self, link: &mut ActiveLink<'_>, count: usize) {
        let Some(peer) = link.peer_mut() else { return };
        let timely = self.time.clock.timely().also_for(peer.clock_offset_ms(self.time.now));
        let session = peer.session;
        let mut messages = core::mem::take(&mut peer.rows_in.parked);
        for (message, ends) in messages.drain(..count) {
            let accepted = lend!(self, Ingest).accept((&message, ends), session, (link.id, timely));
            let Some(peer) = link.peer_mut() else { return };
            peer.rows_in.received += 1;
            match accepted {
                Accepted::With(batch) => peer.received_with(batch),
                Accepted::NotNow(reason) => self.say_not_now(link, reason, &message),
            }
        }
        if let Some(peer) = link.peer_mut() {
            peer.rows_in.parked = messages;
            if !peer.rows_in.waiting.is_empty() {
                link.work.awaiting_commit.insert(link.id);
            }
        }
        link.work.unflushed.insert(link.id);
    }

    /// The first of these messages that cannot be judged without the store, and the keys to ask
    /// for from there on.
    fn unknown_keys(
        &mut self,
        messages: &[(Message, Ends)],
        timely: Timely,
    ) -> Option<(usize, Vec<Hash128>)> {
        let mut first = None;
        let mut keys = Vec::new();
        for (index, (message, _)) in messages.iter().enumerate() {
            // Nearly all are so.
            if message.group().is_none() && self.log.newest.knows_all_of(message.version()) {
                continue;
            }
            let Some(key) = message.key_hash() else { continue };
            let source = lend!(self, Ingest).source_of(message);
            // Whether a copy replaces the one before it, the newest of its key tells.
            let is_copy = || {
                let content = group_copies::content(message);
                content.is_some_and(|content| self.log.group_copies.find(&content).is_some())
            };
            if self.log.seen.check(source, message.sequence()) != SeenVerdict::Seen
                && (self.log.newest.compare(&key, message, &self.log.seen, timely)
                    == Comparison::Unknown
                    || (!self.log.newest.knows(&key) && is_copy()))
            {
                first.get_or_insert(index);
                keys.push(key);
            }
        }
        first.map(|first| (first, keys))
    }

    fn say_not_now(&mut self, link: &mut ActiveLink<'_>, reason: NotNowReason, message: &Message) {
        let wall = self.time.now.wall.0;
        let Some(peer) = link.peer_mut() else { return };
        let number = peer.rows_in.received;
        // Its obligation is the sender's; the number counts as answered.
        peer.received_with(None);
        if reason == NotNowReason::Clock {
            let ahead_ms = message.version().wall().0.saturating_sub(wall);
            // Else it is this node's clock that is in doubt.
            let is_ahead = u128::from(ahead_ms) > self.config.limits.max_clock_drift.as_millis();
            let first = is_ahead && !core::mem::replace(&mut peer.warned_of_clock, true);
            let peer = peer.node.clone();
            self.out.metrics.clock_refused(peer.as_str());
            if first {
                self.out.event(Event::VersionAhead { peer, ahead_ms });
            }
        }
        let not_now = Wire::NotNow(NotNow { first: number, last: number, reason });
        self.out.transmit(link, Frame::Binary(not_now.encode()));
    }

    pub(super) fn peer_acknowledged(
        &mut self,
        link: &mut ActiveLink<'_>,
        ack: Ack,
    ) -> Result<(), Close> {
        lend!(self, Dialing).dialer_succeeded(link);
        let Some(peer) = link.peer_mut() else { return Ok(()) };
        if !peer.may_acknowledge(ack.upto) || ack.wall > MAX_WALL {
            return Err(protocol("an acknowledgement of what was not sent"));
        }
        peer.hear_clock(ack.wall, self.time.now);
        let (id, incarnation) = (peer.session, peer.incarnation);
        let is_first = !core::mem::replace(&mut peer.has_reported, true);
        let Some(session) = self.sessions.table.get_mut(&id) else { return Ok(()) };
        let mut moved = false;
        for position in peer.acknowledge(ack.upto) {
            moved |= session.settle(position);
        }
        let head = self.log.tail.durable();
        let (position, by_another) = ack.log_end();
        let went_back = session.peer().is_some_and(|peer| position < peer.reported);
        // An older copy of its store: it may lack anything that it had (P2). It says so as the link
        // begins; a peer that says so again would have the log once more with each word.
        let rewound = went_back && is_first;
        if rewound {
            session.rewind_for_lost(head);
            self.out.metrics.rewound("store_went_back");
        }
        if let Some(peer) = session.peer_mut()
            && went_back == rewound
        {
            moved |= (peer.reported, peer.incarnation) != (position, incarnation);
            (peer.reported, peer.incarnation) = (position, incarnation);
        }
        if moved {
            session.peering.refusals = 0;
            lend!(self, Records).touch(id, Dirty::Soon);
        }
        self.sessions.ready.insert(id);
        if rewound {
            let peer = peer.node.clone();
            if by_another {
                let heard = "its database knows nothing of what it had told before";
                lend!(self, Conflicts).on_second_process(peer, heard);
            } else {
                self.out.event(Event::PeerStoreWentBack { peer });
            }
        }
        Ok(())
    }

    /// The peer cannot take these now: they stay owed, and are sent again after a wait that
    /// grows with every refusal. No attempt is counted (P13).
    pub(super) fn peer_refused(
        &mut self,
        link: &mut ActiveLink<'_>,
        not_now: NotNow,
    ) -> Result<(), Close> {
        let Some(peer) = link.peer_mut() else { return Ok(()) };
        if not_now.first == 0 || not_now.first > not_now.last || !peer.may_acknowledge(not_now.last)
        {
            return Err(protocol("a refusal of what was not sent"));
        }
        let id = peer.session;
        let Some(session) = self.sessions.table.get_mut(&id) else { return Ok(()) };
        let retry = &self.config.retry;
        let now = self.time.now.instant;
        if session.next_wake(now).is_none() {
            // The first refusal since the last wait was over.
            session.peering.refusals = session.peering.refusals.saturating_add(1);
        }
        let limit =
            backoff(retry.ack_timeout / 8, retry.max_backoff, session.peering.refusals.min(32));
        // All that is refused during one wait comes again when that is over, and so in the order of
        // the log: a peer with little room takes what the cursor waits for.
        let held = session.peering.hold_until.filter(|until| *until > now);
        let at = held.unwrap_or(now + self.time.random.upper_half(limit));
        for position in peer.refuse(not_now.first, not_now.last) {
            session.schedule_at(position, at);
        }
        if not_now.reason != NotNowReason::Clock {
            session.peering.hold_until = Some(at);
            session.wake_at(at);
        }
        self.sessions.ready.insert(id);
        Ok(())
    }
}

impl LinkOut<'_> {
    /// Tells a peer what the monotonic clock says, before anything waits on the way to it.
    pub(super) fn tell_clock(&mut self, link: &mut Link) {
        if link.peer().is_some_and(|peer| peer.transit.is_some()) {
            let mut frame = FrameWriter::new(BatchKind::Timed);
            frame.push(&TimedHead { sent_ms: self.time.now.instant.as_millis() });
            self.out.transmit(link, Frame::Binary(frame.finish()));
        }
    }
}

impl RowSender<'_> {
    pub(super) fn carry_to_peer(&mut self, link: &mut Link, row: &Row) {
        let Some(peer) = link.peer_mut() else { return };
        peer.rows_out.sent.push_back(Some(row.position));
        let limit = FRAME_TARGET.min(peer.terms.max_frame_bytes);
        let length = row.message.encoded().len() + Left::MAX_BYTES;
        if peer.transit.is_none() {
            self.make_room(link, BatchKind::Messages, length, limit).push_message(&row.message);
            return;
        }
        let wall = self.now.wall.0.saturating_add_signed(peer.clock_offset_ms(self.now));
        let left = self.clock.1.left_for(row, WallMs(wall)).unwrap_or_default();
        let sent_ms = self.now.instant.as_millis();
        let writer = self.make_room(link, BatchKind::Timed, length, limit);
        if writer.is_empty() {
            writer.push(&TimedHead { sent_ms });
        }
        writer.push(&Left { ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) });
        writer.push_message(&row.message);
    }
}
