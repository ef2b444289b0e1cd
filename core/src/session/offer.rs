//! Offers: the identity of a message instead of its payload, for whoever will probably get it from
//! somebody else (P3, P5).
//!
//! The one that has a message says `Have`. The other one answers `Seen` when it has the message
//! durable itself, or asks with `Want`; `Gone` answers a `Want` for what a newer value has
//! replaced. A `Have` is an answer, too: nobody offers what is not durable there. What stays true:
//! an offer that is not answered is said again, so nothing depends on a node remembering who
//! offered what; one offerer is asked at a time; an obligation ends only when the other one has
//! said that the message is durable there (P2).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::seen::{Id, Seen};
use crate::types::ids::{Incarnation, LinkId, NodeId, Position, Sequence};
use crate::types::time::Instant;
use crate::wire::{BatchKind, FrameWriter, WireError, records};

/// When an offer that was not answered is said again.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// How long the one that was asked may take before another one is asked.
const PATIENCE: Duration = Duration::from_millis(500);
/// Identities that one frame may name.
pub const MAX_NAMED: u64 = 16_384;
/// Messages that may be asked of one link and have not come.
const MAX_ASKED: usize = 16_384;

/// Identities that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferSpan {
    /// Their origin.
    pub origin: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// The first of them.
    pub first: Sequence,
    /// The last of them.
    pub last: Sequence,
}

/// How a span is written: short behind another one of the same origin and start.
#[derive(Serialize, Deserialize)]
struct SpanRecord<'a> {
    /// Empty: as in the span before.
    origin: &'a str,
    incarnation: Incarnation,
    /// Sequences left out since the span before, or since 0.
    skipped: u64,
    /// Sequences that follow the first one.
    more: u64,
}

/// Writes identities into frames of this kind, each at most `limit` bytes.
pub(crate) fn write(kind: BatchKind, mut ids: Vec<Id>, seen: &Seen, limit: usize) -> Vec<Bytes> {
    ids.sort_unstable();
    ids.dedup();
    let mut frames = Vec::new();
    let mut writer = FrameWriter::new(kind);
    let mut named = 0;
    let mut before: Option<Id> = None;
    for run in ids.chunk_by(|(a, first), (b, second)| a == b && first.next() == *second) {
        let (Some((source, first)), Some((_, last))) = (run.first(), run.last()) else { continue };
        let Some((origin, incarnation)) = seen.names(*source) else { continue };
        // What a peer names may be the last sequence there is: there is none behind it.
        let (mut next, last) = (Some(first.get()), last.get());
        while let Some(first) = next.filter(|next| *next <= last) {
            let longest = origin.as_str().len() + 32;
            if named == MAX_NAMED || (!writer.is_empty() && writer.len() + longest > limit) {
                frames.push(core::mem::replace(&mut writer, FrameWriter::new(kind)).finish());
                (named, before) = (0, None);
            }
            let more = (last - first).min(MAX_NAMED - named - 1);
            let same = before.filter(|(last, _)| last == source);
            writer.push(&SpanRecord {
                origin: if same.is_some() { "" } else { origin.as_str() },
                incarnation: if same.is_some() { Incarnation::default() } else { incarnation },
                skipped: first - 1 - same.map_or(0, |(_, before)| before.get()),
                more,
            });
            named += more + 1;
            before = Some((*source, Sequence::new(first + more)));
            next = (first + more).checked_add(1);
        }
    }
    if !writer.is_empty() {
        frames.push(writer.finish());
    }
    frames
}

/// The spans of a frame: together at most [`MAX_NAMED`] identities.
///
/// # Errors
/// [`WireError::Malformed`] if the batch is not made of spans up to its end, or names too many.
pub fn read(batch: &[u8]) -> Result<Vec<OfferSpan>, WireError> {
    let bad = WireError::Malformed(batch.first().copied().unwrap_or_default());
    let mut spans: Vec<OfferSpan> = Vec::new();
    let mut named: u64 = 0;
    for record in records::<SpanRecord<'_>>(batch)? {
        let (origin, incarnation, before) = match spans.last() {
            Some(before) if record.origin.is_empty() => {
                (before.origin.clone(), before.incarnation, before.last.get())
            }
            Some(_) | None => (NodeId::new(record.origin).map_err(|_| bad)?, record.incarnation, 0),
        };
        named = named.checked_add(record.more).and_then(|named| named.checked_add(1)).ok_or(bad)?;
        let first = before.checked_add(record.skipped).and_then(|first| first.checked_add(1));
        let first = first.ok_or(bad)?;
        let last = first.checked_add(record.more).ok_or(bad)?;
        if named > MAX_NAMED {
            return Err(bad);
        }
        let (first, last) = (Sequence::new(first), Sequence::new(last));
        spans.push(OfferSpan { origin, incarnation, first, last });
    }
    Ok(spans)
}

/// The identities of a frame.
///
/// # Errors
/// As [`read`].
pub(crate) fn ids(batch: &[u8], seen: &mut Seen) -> Result<Vec<Id>, WireError> {
    let mut ids = Vec::new();
    for OfferSpan { origin, incarnation, first, last } in read(batch)? {
        let source = seen.source(&origin, incarnation);
        ids.extend((first.get()..=last.get()).map(|number| (source, Sequence::new(number))));
    }
    Ok(ids)
}

/// What one session has offered to its peer, or is about to offer, and has no answer to.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    due: BTreeSet<(Instant, Position)>,
    by_id: BTreeMap<Id, Offered>,
}

/// What is known of one offer.
#[derive(Debug)]
struct Offered {
    position: Position,
    /// Whether the peer was told of it.
    said: bool,
}

/// How an offer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClosedOffer {
    /// Its row.
    pub position: Position,
    /// Whether the peer was told of it: then it knows that the message is durable here.
    pub said: bool,
}

impl Offers {
    /// Offers this row at this time. Answers the row that was on offer by the same identity: it is
    /// no longer, and the answer to its offer is one to this.
    pub fn open(&mut self, id: Id, position: Position, at: Instant) -> Option<Position> {
        self.due.insert((at, position));
        let before = self.by_id.insert(id, Offered { position, said: false });
        before.map(|before| before.position).filter(|before| *before != position)
    }

    /// The row of this identity is no longer on offer.
    pub fn close(&mut self, id: Id) -> Option<ClosedOffer> {
        // Its time stays, and finds nothing.
        let Offered { position, said } = self.by_id.remove(&id)?;
        Some(ClosedOffer { position, said })
    }

    /// The rows to be offered now, with those that would be due until `upto`: what leaves together
    /// costs little more than one of it.
    pub fn take_due(&mut self, upto: Instant) -> Vec<Position> {
        let later = self.due.split_off(&(upto, Position::new(u64::MAX)));
        let due = core::mem::replace(&mut self.due, later);
        due.into_iter().map(|(_, position)| position).collect()
    }

    /// The peer is told of an offer, and again after a while.
    pub fn say(&mut self, id: Id, now: Instant) {
        if let Some(offered) = self.by_id.get_mut(&id) {
            offered.said = true;
            self.due.insert((now + REPEAT_AFTER, offered.position));
        }
    }

    /// When the next offer is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Nothing is on offer any more.
    pub fn clear(&mut self) {
        self.due.clear();
        self.by_id.clear();
    }
}

/// What this node has asked for and has not got.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    asked: BTreeMap<Id, Vec<(LinkId, Instant)>>,
    by_link: BTreeMap<LinkId, usize>,
}

impl Wants {
    /// Whether to ask this link, which offers the message, for it: nobody was asked for it, or they
    /// have had their time.
    pub fn ask(&mut self, id: Id, link: LinkId, now: Instant) -> bool {
        let asked = self.asked.get(&id);
        let asking =
            asked.is_some_and(|asked| asked.iter().any(|(_, at)| now.since(*at) < PATIENCE));
        if asking || self.by_link.get(&link).is_some_and(|count| *count >= MAX_ASKED) {
            return false;
        }
        self.note(id, link, now);
        true
    }

    /// This link was asked for the message.
    pub fn note(&mut self, id: Id, link: LinkId, now: Instant) {
        let asked = self.asked.entry(id).or_default();
        match asked.iter_mut().find(|(other, _)| *other == link) {
            Some((_, at)) => *at = now,
            None => {
                asked.push((link, now));
                *self.by_link.entry(link).or_default() += 1;
            }
        }
    }

    /// Whether this link was asked for the message.
    pub fn is_asked(&self, id: Id, link: LinkId) -> bool {
        self.asked.get(&id).is_some_and(|asked| asked.iter().any(|(other, _)| *other == link))
    }

    /// Nobody is asked for the message any more.
    pub fn got(&mut self, id: Id) {
        if self.asked.is_empty() {
            return;
        }
        for (link, _) in self.asked.remove(&id).into_iter().flatten() {
            self.forget_one(link);
        }
    }

    /// This link does not have the message any more.
    pub fn gone(&mut self, id: Id, link: LinkId) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let before = asked.len();
        asked.retain(|(other, _)| *other != link);
        let fewer = asked.len() < before;
        if asked.is_empty() {
            self.asked.remove(&id);
        }
        if fewer {
            self.forget_one(link);
        }
    }

    /// The link has ended.
    pub fn ended(&mut self, link: LinkId) {
        if self.by_link.remove(&link).is_some_and(|count| count > 0) {
            self.asked.retain(|_, asked| {
                asked.retain(|(other, _)| *other != link);
                !asked.is_empty()
            });
        }
    }

    fn forget_one(&mut self, link: LinkId) {
        if let Some(count) = self.by_link.get_mut(&link) {
            *count = count.saturating_sub(1);
        }
    }
}

/// For people: how a frame of identities reads.
pub fn describe(spans: &[OfferSpan]) -> String {
    let mut text = String::new();
    for OfferSpan { origin, incarnation, first, last } in spans {
        let comma = if text.is_empty() { "" } else { ", " };
        let number = incarnation.get();
        text.push_str(&alloc::format!("{comma}{origin}/{number:x}/{first}..={last}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::seen::Source;

    fn seen() -> (Seen, Vec<Source>) {
        let mut seen = Seen::default();
        let names = [("aws-1", 1), ("aws-1", u64::MAX / 2), ("b", 7)];
        let sources = names.map(|(name, incarnation)| {
            seen.source(&NodeId::new(name).expect("a name"), Incarnation::new(incarnation))
        });
        (seen, sources.to_vec())
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            ids in prop::collection::vec((0_usize..3, 1_u64..200), 0..300),
            limit in 60_usize..500,
        ) {
            let (mut seen, sources) = seen();
            let mut ids: Vec<Id> =
                ids.into_iter().map(|(source, n)| (sources[source], Sequence::new(n))).collect();
            let frames = write(BatchKind::Have, ids.clone(), &seen, limit);
            let mut found = Vec::new();
            for frame in &frames {
                prop_assert!(frame.len() <= limit);
                let decoded = crate::wire::Wire::decode(frame).expect("a whole frame");
                let crate::wire::Wire::Have(batch) = decoded
                else {
                    panic!("another frame");
                };
                found.extend(super::ids(&batch, &mut seen).expect("spans"));
            }
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(found, ids);
        }

        #[test]
        fn any_bytes_are_refused_or_name_a_bounded_number(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(spans) = read(&bytes) {
                let named: u64 =
                    spans.iter().map(|span| span.last.get() - span.first.get() + 1).sum();
                prop_assert!(named <= MAX_NAMED);
            }
        }
    }

    // keeps: hostile-input
    #[test]
    fn the_last_sequences_there_are_can_be_named() {
        let (mut seen, sources) = seen();
        for count in [1, 5, MAX_NAMED, MAX_NAMED + 1] {
            let ids: Vec<Id> = (0..count)
                .rev()
                .map(|before| (sources[0], Sequence::new(u64::MAX - before)))
                .collect();
            let frames = write(BatchKind::Want, ids.clone(), &seen, 64 << 10);
            let mut found = Vec::new();
            for frame in frames {
                match crate::wire::Wire::decode(&frame).expect("a whole frame") {
                    crate::wire::Wire::Want(batch) => {
                        found.extend(super::ids(&batch, &mut seen).expect("spans"));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(found, ids);
        }
    }

    #[test]
    fn ten_thousand_in_a_row_take_few_bytes() {
        let (seen, sources) = seen();
        let ids: Vec<Id> = (1..=10_000).map(|n| (sources[0], Sequence::new(n))).collect();
        let frames = write(BatchKind::Seen, ids, &seen, 64 << 10);
        assert_eq!(frames.len(), 1);
        assert!(frames[0].len() < 30, "{} bytes", frames[0].len());
    }

    // keeps: offers-repeat
    #[test]
    fn one_offerer_is_asked_at_a_time_then_the_next_one() {
        let (_, sources) = seen();
        let id = (sources[0], Sequence::new(1));
        let (first, second) = (LinkId::new(1), LinkId::new(2));
        let now = Instant::from_micros(0);
        let mut wants = Wants::default();
        assert!(wants.ask(id, first, now));
        assert!(!wants.ask(id, second, now));
        assert!(wants.ask(id, second, now + PATIENCE));
        assert!(wants.is_asked(id, first), "it may still come");
        wants.ended(second);
        assert!(!wants.is_asked(id, second));
        assert!(wants.ask(id, second, now + PATIENCE));
        wants.got(id);
        assert!(!wants.is_asked(id, first));
        assert!(wants.ask(id, first, now));
        wants.gone(id, first);
        assert!(wants.ask(id, second, now));
    }

    // keeps: offers-repeat
    #[test]
    fn an_offer_is_due_again_until_it_is_answered() {
        let (_, sources) = seen();
        let id = (sources[0], Sequence::new(1));
        let now = Instant::from_micros(0);
        let mut offers = Offers::default();
        let position = Position::new(5);
        offers.open(id, position, now);
        assert_eq!(offers.take_due(now), [position]);
        offers.say(id, now);
        assert_eq!(offers.take_due(now), []);
        assert_eq!(offers.next(), Some(now + REPEAT_AFTER));
        assert_eq!(offers.close(id), Some(ClosedOffer { position, said: true }));
        assert_eq!(offers.close(id), None);
        offers.open(id, position, now);
        assert_eq!(offers.close(id), Some(ClosedOffer { position, said: false }));
    }
}
