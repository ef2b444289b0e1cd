//! What leaves a node: frames that can be read, and that say nothing before it is durable (P1).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::value::RawValue;
use slipstream_core::ids::Position;
use slipstream_core::io::Protocol;
use slipstream_core::message::Message;
use slipstream_core::offer;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{self, OutcomeRecord, ReadResult, Wire};

use super::Socket;

/// Whether a text frame carries data; what it says is held against what is durable.
pub(super) fn check_text(
    text: &Bytes,
    socket: &Socket,
    durable: &BTreeSet<String>,
    head: Position,
) -> bool {
    assert_eq!(socket.protocol, Protocol::Json);
    // Raw, because a value may hold what no string of ours can: half of a surrogate pair.
    let frame: BTreeMap<String, &RawValue> =
        serde_json::from_slice(text).expect("the node sends JSON");
    let field = |name: &str| frame.get(name).map_or("null", |value| value.get());
    let number = |name: &str| -> u64 { field(name).parse().expect("it is a number") };
    let id = || serde_json::from_str::<String>(field("messageId")).expect("it is a string");
    match field("type") {
        "\"WELCOME\"" | "\"SYNCED\"" | "\"RESULT\"" => {}
        "\"ERR\"" => assert!((1..=socket.frames_in).contains(&number("frame"))),
        "\"ACK\"" => assert_durable(&id(), durable),
        "\"SK\"" | "\"SA\"" | "\"SW\"" | "\"DK\"" | "\"CMD\"" => {
            assert_durable(&id(), durable);
            let delivery = number("deliveryId");
            assert!((1..=head.get()).contains(&delivery), "delivery {delivery} of {head}");
        }
        other => panic!("the node sends {other}"),
    }
    true
}

fn check_message(message: &Message, socket: &Socket, durable: &BTreeSet<String>) {
    let peer = socket.peer.as_ref().expect("messages go to who has said Hello");
    assert_eq!(message.check(), Ok(()));
    assert_durable(message.id(), durable);
    let back = message.visited(peer) && !socket.asked;
    assert!(!back, "{message:?} goes back to {peer}, unasked");
}

/// Whether a binary frame carries data; what it says is held against what is durable.
pub(super) fn check_binary(
    bytes: &Bytes,
    socket: &Socket,
    durable: &BTreeSet<String>,
    head: Position,
) -> bool {
    assert_eq!(socket.protocol, Protocol::Postcard);
    match Wire::decode(bytes).expect("the node sends frames") {
        Wire::Hello(_) | Wire::NotNow(_) => false,
        Wire::Topology(batch) => {
            let records = wire::records::<NodeRecord>(&batch).expect("the node sends records");
            assert!(records.iter().all(|record| record.id().is_some()));
            false
        }
        Wire::Have(batch) | Wire::Want(batch) | Wire::Seen(batch) | Wire::Gone(batch) => {
            offer::read(&batch).expect("the node sends spans");
            false
        }
        Wire::Digests(batch) => wire::digests(&batch).is_err(),
        Wire::Ack(ack) => {
            assert!(ack.position <= head, "the end of the log is durable");
            assert!(ack.upto <= socket.messages_in, "what is acknowledged was sent");
            false
        }
        // It may hold none: then it only tells the clock.
        Wire::Timed(batch) => {
            let (_, messages) = wire::timed(&batch).expect("the node sends messages");
            let has_some = !messages.is_empty();
            messages.iter().for_each(|(_, message)| check_message(message, socket, durable));
            has_some
        }
        Wire::Messages(batch) => {
            let messages = wire::messages(&batch).expect("the node sends messages");
            messages.iter().for_each(|message| check_message(message, socket, durable));
            true
        }
        Wire::Outcomes(batch) => {
            for outcome in
                wire::records::<OutcomeRecord<'_>>(&batch).expect("the node sends outcomes")
            {
                match outcome {
                    OutcomeRecord::Receipt { id, .. } => assert_durable(id, durable),
                    OutcomeRecord::Error { frame, .. } => {
                        assert!((1..=socket.frames_in).contains(&frame));
                    }
                }
            }
            true
        }
        Wire::Deliveries(batch) => {
            for (delivery, message) in wire::deliveries(&batch).expect("the node sends messages") {
                assert!(delivery.delivery <= head);
                assert_durable(message.id(), durable);
            }
            true
        }
        Wire::Results(batch) => wire::records::<ReadResult<'_>>(&batch).is_ok(),
        Wire::Welcome(_) | Wire::Synced | Wire::Conflated(_) => true,
        Wire::Connect(_) | Wire::Publish(_) | Wire::Settle(_) | Wire::Reads(_) => {
            panic!("a node is no application")
        }
    }
}

fn assert_durable(id: &str, durable: &BTreeSet<String>) {
    assert!(durable.contains(id), "{id} is spoken of before it is durable");
}
