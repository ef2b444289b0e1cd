//! Frames and messages: what is encoded is decoded as the same, and nothing that arrives instead
//! makes a node panic or allocate more than a small multiple of its bytes (P8, P11).
//!
//! Frames carry no checksum: TCP and TLS have theirs. So of a changed byte it is known that it is
//! refused or read as some other frame, which then is a well-formed one and no longer than what
//! came. A frame of one record is refused when its end is missing; a batch has no count that could
//! tell, so what is left of it are its first records.

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use slipstream_core::application::{AckMode, InForce, Replay};
use slipstream_core::clock::Hlc;
use slipstream_core::config::Durability;
use slipstream_core::digest::Print;
use slipstream_core::ids::{Incarnation, Position, Sequence, StoreId};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::offer;
use slipstream_core::time::WallMs;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{
    self, Ack, BatchKind, Connect, DeliveryHead, DigestsHead, FrameWriter, Hello, NotNow,
    NotNowReason, OutcomeRecord, Publish, Read, ReadResult, ReadValue, Settle, TagSetDigest,
    Welcome, Wire, WireError,
};

/// Most bytes allocated at a time for each byte that arrives: records in memory are larger than on
/// the wire, where the shortest has two bytes, and a list that grows is there twice for a moment.
const FACTOR: u64 = 64;
/// And for any frame at all.
const FIXED: u64 = 1024;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, 120..140_u64, any::<u64>(), Just(u64::MAX)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z,.é]{0,12}", 1 => "x{120,140}"]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(&Kind::ALL[..])
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Full), Just(Durability::Normal)]
}

fn hello() -> impl Strategy<Value = Wire> {
    let numbers = prop::array::uniform8(number());
    (any::<u16>(), any::<u128>(), numbers, [text(), text(), text()], durability()).prop_map(
        |(protocol, store, numbers, [node, group, tags], durability)| {
            let [incarnation, wall, features, max_message_bytes, max_frame_bytes, a, b, _] =
                numbers;
            Wire::Hello(Hello {
                protocol,
                node,
                store: StoreId(store),
                incarnation: Incarnation::new(incarnation),
                group,
                tags,
                wall: WallMs(wall),
                durability,
                features,
                max_message_bytes,
                max_frame_bytes,
                reported: Position::new(a),
                reported_incarnation: Incarnation::new(b),
            })
        },
    )
}

fn welcome() -> impl Strategy<Value = Wire> {
    let texts = [text(), text(), text(), text()];
    (any::<u16>(), texts, any::<bool>(), any::<u32>(), number(), in_force()).prop_map(
        |(protocol, texts, resumed, window, max_message_bytes, in_force)| {
            let [instance, client, tags, version] = texts;
            Wire::Welcome(Welcome {
                protocol,
                instance,
                client,
                resumed,
                tags,
                window,
                max_message_bytes,
                version,
                in_force,
            })
        },
    )
}

fn in_force() -> impl Strategy<Value = Option<InForce>> {
    let keys = prop::option::of(prop::collection::vec(text(), 0..4));
    let replay = prop_oneof![Just(Replay::All), Just(Replay::New)];
    let ack = prop_oneof![Just(AckMode::Manual), Just(AckMode::Auto)];
    let in_force = (keys, replay, ack, any::<bool>())
        .prop_map(|(keys, replay, ack, conflate)| InForce { keys, replay, ack, conflate });
    prop::option::of(in_force)
}

fn message() -> impl Strategy<Value = Message> {
    let numbers = prop::array::uniform4(number());
    let path = prop_oneof![Just("a".to_owned()), Just("b,c".to_owned()), "[a-z,]{1,200}"];
    (kind(), numbers, path, [text(), text(), text(), text(), text()]).prop_map(
        |(kind, [incarnation, sequence, version, expires], path, [group, tags, id, key, body])| {
            let fields = Fields {
                kind,
                incarnation: Incarnation::new(incarnation),
                sequence: Sequence::new(sequence),
                version: Hlc(version),
                expires: WallMs(expires),
                group: &group,
                tags: &tags,
                path: &path,
                id: &id,
                key: &key,
                body: &body,
            };
            let message = Message::encode(&fields, &mut BytesMut::new());
            assert_eq!(message.fields(), fields);
            message
        },
    )
}

/// The frames of one record.
fn single() -> impl Strategy<Value = Wire> {
    let ack = (number(), number(), number()).prop_map(|(upto, position, wall)| {
        Wire::Ack(Ack { upto, position: Position::new(position), wall: WallMs(wall) })
    });
    let reason = prop::sample::select(vec![
        NotNowReason::StoreFull,
        NotNowReason::Clock,
        NotNowReason::ShuttingDown,
    ]);
    let not_now = (number(), number(), reason)
        .prop_map(|(first, last, reason)| Wire::NotNow(NotNow { first, last, reason }));
    let connect = any::<u16>().prop_map(|protocol| Wire::Connect(Connect { protocol }));
    let conflated = number().prop_map(Wire::Conflated);
    prop_oneof![hello(), welcome(), ack, not_now, connect, conflated, Just(Wire::Synced)]
}

/// The frames of many records, with the place where each record ends.
fn batch() -> impl Strategy<Value = (Bytes, Vec<usize>)> {
    let writer = |kind, push: &dyn Fn(&mut FrameWriter, usize), count: usize| {
        let mut writer = FrameWriter::new(kind);
        let ends: Vec<usize> = (0..count)
            .map(|index| {
                push(&mut writer, index);
                writer.len() - wire::CHECKSUM_BYTES
            })
            .collect();
        (bare(&writer.finish()), ends)
    };
    let messages = prop::collection::vec(message(), 0..5).prop_map(move |all| {
        writer(BatchKind::Messages, &|to, index| to.push_message(&all[index]), all.len())
    });
    let deliveries = prop::collection::vec((number(), any::<u32>(), message()), 0..5);
    let deliveries = deliveries.prop_map(move |all| {
        let push = |to: &mut FrameWriter, index: usize| {
            let (delivery, redelivery, message) = &all[index];
            to.push(&DeliveryHead { delivery: Position::new(*delivery), redelivery: *redelivery });
            to.push_message(message);
        };
        writer(BatchKind::Deliveries, &push, all.len())
    });
    let publish = (kind(), number(), [text(), text(), text(), text()]);
    let publishes = prop::collection::vec(publish, 0..5).prop_map(move |all| {
        let push = |to: &mut FrameWriter, index: usize| {
            let (kind, ttl_ms, [id, key, tags, body]) = &all[index];
            to.push(&Publish { kind: *kind, id, key, tags, ttl_ms: *ttl_ms, body });
        };
        writer(BatchKind::Publish, &push, all.len())
    });
    let outcome = (any::<bool>(), number(), prop::option::of(text()), text(), durability());
    let outcomes = prop::collection::vec(outcome, 0..5).prop_map(move |all| {
        let push = |to: &mut FrameWriter, index: usize| to.push(&outcome_of(&all[index]));
        writer(BatchKind::Outcomes, &push, all.len())
    });
    let settles = prop::collection::vec((0..5_u8, number(), text()), 0..5).prop_map(move |all| {
        let push = |to: &mut FrameWriter, index: usize| to.push(&settle_of(&all[index]));
        writer(BatchKind::Settle, &push, all.len())
    });
    let read = (prop::option::of(kind()), text(), text());
    let reads = prop::collection::vec(read, 0..5).prop_map(move |all| {
        let push = |to: &mut FrameWriter, index: usize| {
            let (kind, id, key) = &all[index];
            to.push(&Read { kind: *kind, id, key });
        };
        writer(BatchKind::Reads, &push, all.len())
    });
    let value = prop::option::of((kind(), number(), text()));
    let results = prop::collection::vec((value, text(), text()), 0..5).prop_map(move |all| {
        let push = |to: &mut FrameWriter, index: usize| {
            let (value, id, key) = &all[index];
            let value = value.as_ref().map(|(kind, version, body)| ReadValue {
                kind: *kind,
                version: Hlc(*version),
                origin: key,
                body,
            });
            to.push(&ReadResult { id, key, value });
        };
        writer(BatchKind::Results, &push, all.len())
    });
    prop_oneof![messages, deliveries, publishes, outcomes, settles, reads, results]
}

fn outcome_of(
    (receipt, number, id, text, level): &(bool, u64, Option<String>, String, Durability),
) -> OutcomeRecord<'_> {
    if *receipt {
        OutcomeRecord::Receipt {
            id: text,
            version: Hlc(*number),
            duplicate: number % 2 == 0,
            level: *level,
        }
    } else {
        OutcomeRecord::Error {
            id: id.as_deref(),
            frame: *number,
            code: text,
            retryable: number % 2 == 0,
            retry_after_ms: *number,
            message: text,
        }
    }
}

fn settle_of((how, number, text): &(u8, u64, String)) -> Settle<'_> {
    let delivery = Position::new(*number);
    match how {
        0 => Settle::Ack(delivery),
        1 => Settle::AckUpTo(delivery),
        2 => Settle::AckId(text),
        3 => Settle::Retry { delivery, reason: text },
        _ => Settle::Reject { delivery, reason: text },
    }
}

/// What a receiver makes of a frame: how many records, and the frame that says the same.
fn read(frame: &Bytes) -> Option<(usize, Bytes)> {
    let decoded = Wire::decode(frame).ok()?;
    let whole = decoded.encode();
    let mut again = None;
    let count = match &decoded {
        Wire::Hello(_)
        | Wire::Ack(_)
        | Wire::NotNow(_)
        | Wire::Connect(_)
        | Wire::Welcome(_)
        | Wire::Synced
        | Wire::Conflated(_) => 1,
        Wire::Messages(batch) => wire::messages(batch).ok()?.len(),
        Wire::Timed(batch) => 1 + wire::timed(batch).ok()?.1.len(),
        Wire::Deliveries(batch) => wire::deliveries(batch).ok()?.len(),
        Wire::Publish(batch) => {
            rewritten(BatchKind::Publish, &wire::records::<Publish<'_>>(batch).ok()?, &mut again)
        }
        Wire::Outcomes(batch) => rewritten(
            BatchKind::Outcomes,
            &wire::records::<OutcomeRecord<'_>>(batch).ok()?,
            &mut again,
        ),
        Wire::Settle(batch) => {
            rewritten(BatchKind::Settle, &wire::records::<Settle<'_>>(batch).ok()?, &mut again)
        }
        Wire::Topology(batch) => {
            rewritten(BatchKind::Topology, &wire::records::<NodeRecord>(batch).ok()?, &mut again)
        }
        Wire::Have(batch) | Wire::Want(batch) | Wire::Seen(batch) | Wire::Gone(batch) => {
            offer::read(batch).ok()?.len()
        }
        Wire::Digests(batch) => {
            let (head, digests) = wire::digests(batch).ok()?;
            again = Some(claim(head, &digests));
            1 + digests.len()
        }
        Wire::Reads(batch) => {
            rewritten(BatchKind::Reads, &wire::records::<Read<'_>>(batch).ok()?, &mut again)
        }
        Wire::Results(batch) => {
            rewritten(BatchKind::Results, &wire::records::<ReadResult<'_>>(batch).ok()?, &mut again)
        }
    };
    Some((count, again.unwrap_or(whole)))
}

fn claim(head: DigestsHead, digests: &[TagSetDigest]) -> Bytes {
    let mut writer = FrameWriter::new(BatchKind::Digests);
    writer.push(&head);
    digests.iter().for_each(|digest| writer.push(digest));
    writer.finish()
}

/// A claim of digests.
fn claims() -> impl Strategy<Value = Bytes> {
    let digest = (number(), number());
    (any::<bool>(), prop::collection::vec(digest, 0..5)).prop_map(|(whole, digests)| {
        let digest = |(tags, print): (u64, u64)| TagSetDigest { tags, print: Print::new(print) };
        let digests: Vec<_> = digests.into_iter().map(digest).collect();
        claim(DigestsHead { whole }, &digests)
    })
}

fn rewritten<T: serde::Serialize>(kind: BatchKind, all: &[T], frame: &mut Option<Bytes>) -> usize {
    let mut writer = FrameWriter::new(kind);
    all.iter().for_each(|record| writer.push(record));
    *frame = Some(writer.finish());
    all.len()
}

/// The frame without its checksum: what a sender that lies would put one behind.
fn bare(frame: &Bytes) -> Bytes {
    frame.slice(..frame.len() - wire::CHECKSUM_BYTES)
}

/// Reads what arrived in place of a frame, behind it a checksum that fits, and holds it against
/// what is always true.
fn receive(arrived: Vec<u8>) -> Option<usize> {
    let frame = wire::seal(BytesMut::from(&arrived[..]));
    let bound = FACTOR * frame.len() as u64 + FIXED;
    let mut outcome = None;
    let taken = measure(|| outcome = read(&frame));
    assert!(taken.bytes_max <= bound, "{} bytes for {} that came", taken.bytes_max, frame.len());
    let (count, again) = outcome?;
    assert!(again.len() <= frame.len(), "the encoding has grown");
    assert_eq!(read(&again), Some((count, again)), "what is read is written in one way");
    Some(count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_of_one_record_is_read_as_it_was_written(frame in single()) {
        let encoded = bare(&frame.encode());
        // The greeting of version 1 is the beginning of that of version 2.
        let shorter = match &frame {
            Wire::Welcome(welcome) if welcome.in_force.is_some() => {
                let shorter = Welcome { in_force: None, ..welcome.clone() };
                Some(bare(&Wire::Welcome(shorter).encode()).len())
            }
            _ => None,
        };
        prop_assert_eq!(Wire::decode(&frame.encode()), Ok(frame));
        prop_assert_eq!(receive(encoded.to_vec()), Some(1));
        for end in 0..encoded.len() {
            let expected = (shorter == Some(end)).then_some(1);
            prop_assert_eq!(receive(encoded[..end].to_vec()), expected, "cut at {}", end);
        }
        prop_assert_eq!(receive([&encoded[..], &[0]].concat()), None, "something is left over");
    }

    #[test]
    fn a_batch_is_read_record_by_record((encoded, ends) in batch()) {
        prop_assert_eq!(receive(encoded.to_vec()), Some(ends.len()));
        let sealed = wire::seal(BytesMut::from(&encoded[..]));
        let (count, again) = read(&sealed).expect("it was read before");
        prop_assert_eq!((count, again), (ends.len(), sealed));
        for end in 1..encoded.len() {
            let whole = ends.iter().take_while(|at| **at <= end).count();
            let fits = end == 1 || ends.contains(&end);
            prop_assert_eq!(receive(encoded[..end].to_vec()), fits.then_some(whole));
        }
    }

    #[test]
    fn a_claim_of_digests_is_read_as_it_was_written(frame in claims()) {
        let (count, again) = read(&frame).expect("it can be read");
        prop_assert_eq!(&again, &frame);
        prop_assert_eq!(receive(bare(&frame).to_vec()), Some(count));
        prop_assert_eq!(receive(bare(&frame)[..1].to_vec()), None, "no head");
    }

    #[test]
    fn a_changed_byte_is_refused_or_makes_another_frame(
        encoded in prop_oneof![
            single().prop_map(|frame| bare(&frame.encode())),
            batch().prop_map(|(encoded, _)| encoded),
            claims().prop_map(|frame| bare(&frame)),
        ],
        change in 1..=255_u8,
    ) {
        for at in 0..encoded.len() {
            let mut changed = encoded.to_vec();
            changed[at] ^= change;
            receive(changed);
        }
        let sealed = wire::seal(BytesMut::from(&encoded[..]));
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= change;
            prop_assert_eq!(Wire::decode(&changed.into()), Err(WireError::Damaged), "byte {}", at);
        }
    }

    // keeps: bounded-answers
    #[test]
    fn a_length_that_lies_allocates_nothing(
        encoded in prop_oneof![
            single().prop_map(|frame| bare(&frame.encode())),
            batch().prop_map(|(encoded, _)| encoded),
            claims().prop_map(|frame| bare(&frame)),
        ],
        lie in prop::sample::select(vec![
            &[0x80_u8, 0x00][..],
            &[0xff, 0x7f],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0xff; 12],
        ]),
    ) {
        // Every byte may be a length: whichever it is, it says something else now.
        for at in 1..encoded.len() {
            receive([&encoded[..at], lie, &encoded[at + 1..]].concat());
        }
    }

    // keeps: bounded-answers
    #[test]
    fn any_bytes_are_refused_or_read(
        tag in prop_oneof![0..16_u8, Just(20), Just(21), Just(30), Just(40)],
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        receive([&[tag][..], &bytes].concat());
    }

    #[test]
    fn a_message_survives_the_store_in_three_parts(message in message()) {
        let stored = Message::from_parts(message.head(), message.key(), message.body());
        prop_assert_eq!(stored, Ok(message));
    }
}
