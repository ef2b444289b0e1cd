//! Messages come in: published here, or sent by a peer. Each gets its place in the log, or the
//! reason why it gets none.

use crate::log::group_copies::{self, GroupCopy};
use crate::log::lifetime::{Ends, time_to_live};
use crate::log::newest::{Before, Comparison, NewestOfKey};
use crate::log::receipts::{GivenReceipt, ReceiptCheck};
use crate::log::seen::{SeenVerdict, Source};
use crate::session::link::AppAnswer;
use crate::store::Row;
use crate::types::clock::Timely;
use crate::types::ids::{BatchId, Hash128, LinkId, Position, SessionId};
use crate::types::refusal::{Code, Refusal};
use crate::types::time::WallMs;
use crate::types::timers::Timer;
use crate::wire::NotNowReason;
use crate::wire::draft::Draft;
use crate::wire::message::{Fields, Kind, Message};
use alloc::borrow::Cow;
use alloc::format;

use super::CURSOR_DELAY;
use super::handlers::Ingest;
use super::identity::Phase;

/// What became of a message from a peer.
pub(super) enum Accepted {
    /// It is taken care of once this batch is durable; `None`: it is already.
    With(Option<BatchId>),
    /// It is refused for now.
    NotNow(NotNowReason),
}

impl Ingest<'_> {
    /// Publishes a message of an application. Answers the receipt and the batch that it waits
    /// for.
    pub(super) fn publish(
        &mut self,
        session: SessionId,
        draft: &Draft<'_>,
        frame: u64,
    ) -> Result<(BatchId, AppAnswer), Refusal> {
        let known =
            draft.id.as_ref().map(|id| (Hash128::of(&[id.as_bytes()]), draft.content_hash()));
        if let Some((id, content)) = &known {
            let time = self.log.receipts.time(self.time.now.instant);
            match self.log.receipts.check(session, id, content, time) {
                ReceiptCheck::Fresh => {}
                ReceiptCheck::Same(receipt) => {
                    return Ok(self.published_before(draft, receipt, frame));
                }
                ReceiptCheck::Other => {
                    return Err(Refusal::new(
                        Code::IdReused,
                        "this messageId was used for other content; use a new one",
                    ));
                }
            }
        }
        self.may_publish(draft.kind)?;
        let version = self.time.clock.stamp().map_err(|fault| self.clock_refusal(fault))?;
        self.id.sequence = self.id.sequence.next();
        let given =
            format_args!("{}-{:x}-{}", self.config.id, self.id.incarnation.get(), self.id.sequence);
        let id = draft.id.clone().unwrap_or_else(|| Cow::Owned(format!("{given}")));
        let ttl = draft.ttl.unwrap_or(self.config.store.event_ttl);
        // Its version and its end tell every node what its time to live is.
        let (expires, ends) = if draft.kind.is_state() {
            (WallMs(0), WallMs(0))
        } else {
            (version.wall().plus(ttl), self.time.lifetimes.time(self.time.now).plus(ttl))
        };
        let fields = Fields {
            kind: draft.kind,
            incarnation: self.id.incarnation,
            sequence: self.id.sequence,
            version,
            expires,
            group: self.config.cluster_group.as_deref().unwrap_or(""),
            tags: &draft.tags,
            path: self.config.id.as_str(),
            id: &id,
            key: &draft.key,
            body: draft.body,
        };
        let message = Message::encode(&fields, &mut self.out.buffer);
        let id = message.id_bytes();
        let key_hash = message.key_hash();
        self.append((message, ends), key_hash, self.id.source, Some(session));
        let batch = self.log.tail.growing_id();
        if let Some((id, content)) = known {
            let durable =
                self.sessions.table.get(&session).is_some_and(|session| session.is_durable());
            let receipt = GivenReceipt { content, version, batch };
            let time = self.log.receipts.time(self.time.now.instant);
            self.log.receipts.insert(session, durable, id, receipt, time);
            self.log.tail.marks.receipts.push((session, id));
            self.log.receipts.touched.insert(session);
        }
        Ok((batch, AppAnswer::Receipt { id, version, duplicate: false, frame }))
    }

    fn published_before(
        &mut self,
        draft: &Draft<'_>,
        receipt: GivenReceipt,
        frame: u64,
    ) -> (BatchId, AppAnswer) {
        self.out.metrics.idempotent += 1;
        let id = draft.id.as_deref().unwrap_or_default();
        let id = bytes::Bytes::copy_from_slice(id.as_bytes());
        let answer = AppAnswer::Receipt { id, version: receipt.version, duplicate: true, frame };
        (receipt.batch, answer)
    }

    /// Whether publishers are taken now (P8).
    fn may_publish(&self, kind: Kind) -> Result<(), Refusal> {
        if self.id.phase != Phase::Running {
            return Err(Refusal::new(
                Code::ShuttingDown,
                "this node is shutting down; publish through another one, or when it is back",
            ));
        }
        self.log.capacity.check_publish(kind, self.log.load(self.time.now.instant))
    }

    fn clock_refusal(&mut self, fault: crate::types::clock::ClockFault) -> Refusal {
        self.time.notice_clock(self.out);
        Refusal::new(Code::Clock, format!("{fault}"))
    }

    /// Takes a message of a peer, which ends then. The newest of its key is known, or it was looked
    /// up before.
    pub(super) fn accept(
        &mut self,
        (message, ends): (&Message, Ends),
        from: SessionId,
        (link, timely): (LinkId, Timely),
    ) -> Accepted {
        let source = self.source_of(message);
        let id = (source, message.sequence());
        let asked = self.mesh.wants.is_asked(id, link);
        if !asked && message.visited(&self.config.id) {
            self.out.metrics.loops += 1;
            return Accepted::With(None);
        }
        let accepted = self.accept_new((message, ends), source, from, timely);
        if let Accepted::With(_) = accepted {
            if asked && message.visited(&self.config.id) {
                // If the batch fails it comes again, and is to be taken again.
                self.log.tail.marks.asked.push((id, link));
            }
            self.mesh.wants.got(id);
        }
        accepted
    }

    fn accept_new(
        &mut self,
        (message, ends): (&Message, Ends),
        source: Source,
        from: SessionId,
        timely: Timely,
    ) -> Accepted {
        let verdict = self.log.seen.check(source, message.sequence());
        match verdict {
            SeenVerdict::Seen => return self.seen_before(source, message, from),
            SeenVerdict::Below if !message.kind().is_state() => {
                self.out.metrics.expired += 1;
                return Accepted::With(None);
            }
            SeenVerdict::Below | SeenVerdict::New => {}
        }
        // An event whose time is over is handed on to nobody, but has its place in the log: it may
        // be a dead letter here.
        if let Ends::ByWall(at) = ends
            && at <= self.time.now.wall
            && self.time.clock.fault().is_some()
        {
            return Accepted::NotNow(NotNowReason::Clock);
        }
        if let Some(reason) = self.not_now(message) {
            return Accepted::NotNow(reason);
        }
        let key_hash = message.key_hash();
        let compare = |key| self.log.newest.compare(key, message, &self.log.seen, timely);
        match key_hash.as_ref().map(compare) {
            Some(Comparison::Superseded(by)) => {
                self.out.metrics.superseded += 1;
                self.mark(source, message);
                return Accepted::With(self.log.tail.batch_of(by));
            }
            Some(Comparison::Doubtful) => return Accepted::NotNow(NotNowReason::Clock),
            Some(Comparison::Newer | Comparison::Unknown) | None => {}
        }
        self.out.path.clear();
        let cut = message.visited(&self.config.id);
        let me = self.config.id.as_str();
        // What was asked for may have been here before: this node is on the path once, at its end.
        // Where it is the origin, it is the whole path.
        let others = message.path().split(',').filter(|node| *node != me);
        for node in others.take_while(|_| message.origin() != me) {
            self.out.path.push_str(node);
            self.out.path.push(',');
        }
        self.out.path.push_str(me);
        let fields = Fields { path: &self.out.path, ..message.fields() };
        let ours = Message::encode(&fields, &mut self.out.buffer);
        let ends = self.ends_here(message, ends);
        let position = self.append((ours, ends), key_hash, source, None);
        if cut && let Some(session) = self.sessions.table.get_mut(&from) {
            session.note_known(position);
        }
        Accepted::With(Some(self.log.tail.growing_id()))
    }

    /// Why this message cannot be taken now, though it may be later.
    fn not_now(&mut self, message: &Message) -> Option<NotNowReason> {
        if self.id.phase != Phase::Running {
            return Some(NotNowReason::ShuttingDown);
        }
        let load = self.log.load(self.time.now.instant);
        if self.log.capacity.refuses_peers(load) {
            return Some(NotNowReason::StoreFull);
        }
        let received = self.time.clock.receive(message.version());
        // That of an event only dates it: nothing is outdone by it.
        received.err().filter(|_| message.kind().is_state()).map(|_| NotNowReason::Clock)
    }

    /// When a message of a peer ends by the time of this node; 0 for state.
    fn ends_here(&self, message: &Message, ends: Ends) -> WallMs {
        let Some(ttl) = time_to_live(message) else { return WallMs(0) };
        let time = self.time.lifetimes.time(self.time.now);
        let ends = match ends {
            Ends::Here(ends) => ends,
            Ends::ByWall(at) => {
                let ahead = time.0.cast_signed().saturating_sub_unsigned(self.time.now.wall.0);
                WallMs(at.0.saturating_add_signed(ahead))
            }
        };
        // 0 would say that it has none.
        ends.min(time.plus(ttl)).max(WallMs(1))
    }

    fn seen_before(&mut self, source: Source, message: &Message, from: SessionId) -> Accepted {
        self.out.metrics.seen += 1;
        if let Some(position) = self.log.tail.locate(source, message.sequence())
            && let Some(session) = self.sessions.table.get_mut(&from)
        {
            // Who sends it has it: nothing leaves a node before it is durable there.
            session.note_known(position);
        }
        Accepted::With(self.batch_of((source, message.sequence())))
    }

    pub(super) fn source_of(&mut self, message: &Message) -> Source {
        self.log.seen.source_of(message)
    }

    fn mark(&mut self, source: Source, message: &Message) {
        if self.log.seen.mark(source, message.sequence()) {
            self.log.tail.marks.seen.push((source, message.sequence()));
            // A mark without a row is written before long, too.
            self.time.timers.set_earlier(Timer::Cursors, self.time.now.instant + CURSOR_DELAY);
        }
    }

    pub(super) fn append(
        &mut self,
        (message, ends): (Message, WallMs),
        key_hash: Option<Hash128>,
        source: Source,
        publisher: Option<SessionId>,
    ) -> Position {
        self.out.metrics.processed(message.origin(), message.kind());
        self.mark(source, &message);
        let position = self.log.tail.head().next();
        let mut copy = self.note_copy(&message, position, ends);
        let mut late = false;
        if let Some(key) = key_hash {
            let (version, sequence) = (message.version(), message.sequence());
            let newest = NewestOfKey { version, source, sequence, position };
            let (before, is_late) = self.log.newest.put(key, newest);
            late = is_late;
            let gave_way = before.newest.filter(|newest| newest.version > version);
            if let Some(copy) = &mut copy {
                // Whatever came for other tags since was newer than what gave way.
                copy.of = copy.of.filter(|of| gave_way.is_none() && self.is_repeated(*of, before));
            }
            self.let_return(gave_way);
            self.log.tail.marks.newest.push((key, before));
        }
        let row = Row { position, message, key_hash, ends, publisher, only: None, late, copy };
        self.log.tail.append(row, source)
    }

    /// An untimely value that gave way may come back: where it became timely before a node heard of
    /// what it gave way to here, it is the newest there, and so it must be here (P6).
    fn let_return(&mut self, gave_way: Option<NewestOfKey>) {
        let Some(NewestOfKey { source, sequence, .. }) = gave_way else { return };
        if self.log.seen.forget(source, sequence) {
            self.log.tail.marks.forgotten.push((source, sequence));
            self.time.timers.set_earlier(Timer::Cursors, self.time.now.instant + CURSOR_DELAY);
        }
    }

    /// Takes note of a message of a cluster group, which ends then if it is an event, and says of
    /// which row it is a copy.
    fn note_copy(
        &mut self,
        message: &Message,
        position: Position,
        ends: WallMs,
    ) -> Option<GroupCopy> {
        let content = group_copies::content(message)?;
        let of = self.log.group_copies.put(content, position, ends);
        self.log.tail.marks.copies.push((content, of));
        Some(GroupCopy { content, of })
    }

    /// Whether the copy in row `of` was the newest value of its key when another one came: a write
    /// in between, for whatever tag set, makes that one news.
    fn is_repeated(&self, of: Position, before: Before) -> bool {
        // What the store remembered at the start was the newest value of its key then.
        let since_start = of <= self.log.began && self.log.newest.knows_all_since_start();
        match (before.newest, before.of_all) {
            // Of equal clocks of two tag sets the origin decides: what came last may be newer.
            (Some(newest), Some((all, last))) => {
                newest.position == of && (all < newest.version || last == of)
            }
            (Some(newest), None) => newest.position == of && since_start,
            (None, None) => since_start,
            (None, Some(_)) => false,
        }
    }

    /// Appends a message for one session only: a dead letter that is replayed.
    pub(super) fn append_only_for(&mut self, session: SessionId, message: Message) -> Position {
        let source = self.source_of(&message);
        let row = Row::new(self.log.tail.head().next(), message);
        self.log.tail.append(Row { key_hash: None, only: Some(session), ..row }, source)
    }

    /// Appends an event once more, for everybody whom it targets, with a time to live from now on:
    /// a dead letter of the node that is replayed. It keeps its identity, so that whoever has it
    /// drops it, and is a copy like any other to whoever was handed one.
    pub(super) fn append_again(&mut self, message: &Message) -> Position {
        // A clock that has jumped would give it a time that is over everywhere else.
        let ttl = self.config.store.event_ttl;
        let expires = self.time.clock.estimate().plus(ttl).max(message.version().wall().plus(ttl));
        let ends = self.time.lifetimes.time(self.time.now).plus(ttl);
        let fields = Fields { expires, ..message.fields() };
        let message = Message::encode(&fields, &mut self.out.buffer);
        let source = self.source_of(&message);
        let position = self.log.tail.head().next();
        let copy = self.note_copy(&message, position, ends);
        self.log.tail.append(Row { copy, ..Row::new(position, message).ending(ends) }, source)
    }
}
