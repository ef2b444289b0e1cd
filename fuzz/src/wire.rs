//! Binary frames: whatever is decoded says the same when it is encoded again, in no more bytes.

use bytes::{Bytes, BytesMut};
use slipstream_core::config::Limits;
use slipstream_core::draft::Draft;
use slipstream_core::json::{SettleRequest, write};
use slipstream_core::message::Message;
use slipstream_core::offer;
use slipstream_core::read::ReadRequest;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{
    self, BatchKind, DeliveryHead, FrameWriter, OutcomeRecord, Publish, ReadResult, Wire,
};

/// The frame that `bytes` would be with a checksum that fits: nothing that a fuzzer makes up would
/// get past it otherwise.
pub(crate) fn sealed(bytes: &[u8]) -> Bytes {
    wire::seal(BytesMut::from(bytes))
}

/// Takes `bytes` for a frame, as they are and with a checksum that fits.
pub fn wire(bytes: &[u8]) {
    let _damaged = Wire::decode(&Bytes::copy_from_slice(bytes));
    let frame = sealed(bytes);
    let Ok(decoded) = Wire::decode(&frame) else { return };
    let again = decoded.encode();
    // There are longer ways to write a number, and only one that we write.
    assert!(again.len() <= frame.len(), "the encoding has grown");
    assert_eq!(Wire::decode(&again).as_ref(), Ok(&decoded));
    match &decoded {
        Wire::Hello(_)
        | Wire::Ack(_)
        | Wire::NotNow(_)
        | Wire::Connect(_)
        | Wire::Welcome(_)
        | Wire::Synced
        | Wire::Conflated(_) => {}
        Wire::Messages(batch) => messages(batch),
        Wire::Timed(batch) => timed(batch),
        Wire::Publish(batch) => publishes(batch),
        Wire::Outcomes(batch) => outcomes(batch),
        Wire::Deliveries(batch) => deliveries(batch),
        Wire::Settle(batch) => settles(batch),
        Wire::Reads(batch) => reads(batch),
        Wire::Topology(batch) => topology(batch),
        Wire::Have(batch) | Wire::Want(batch) | Wire::Seen(batch) | Wire::Gone(batch) => {
            named(batch);
        }
        Wire::Digests(batch) => digests(batch),
        Wire::Results(batch) => results(batch),
    }
}

fn timed(batch: &Bytes) {
    let Ok((head, messages)) = wire::timed(batch) else { return };
    let mut writer = FrameWriter::new(BatchKind::Timed);
    writer.push(&head);
    for (left, message) in &messages {
        writer.push(left);
        writer.push_message(message);
    }
    let Ok(Wire::Timed(again)) = Wire::decode(&writer.finish()) else { panic!("not a batch") };
    assert_eq!(wire::timed(&again), Ok((head, messages)));
}

fn topology(batch: &Bytes) {
    for record in wire::records::<NodeRecord>(batch).unwrap_or_default() {
        if let Some(node) = record.id() {
            assert_eq!(node.as_str(), record.node);
        }
    }
}

fn named(batch: &Bytes) {
    let spans = offer::read(batch).unwrap_or_default();
    let named: u64 = spans.iter().map(|span| span.last.get() - span.first.get() + 1).sum();
    assert!(named <= offer::MAX_NAMED, "{}", offer::describe(&spans));
}

fn digests(batch: &Bytes) {
    let Ok((head, digests)) = wire::digests(batch) else { return };
    let mut writer = FrameWriter::new(BatchKind::Digests);
    writer.push(&head);
    digests.iter().for_each(|digest| writer.push(digest));
    let Ok(Wire::Digests(again)) = Wire::decode(&writer.finish()) else { panic!("not a batch") };
    assert_eq!(wire::digests(&again), Ok((head, digests)));
}

fn messages(batch: &Bytes) {
    let Ok(messages) = wire::messages(batch) else { return };
    let bytes: usize = messages.iter().map(|message| message.encoded().len()).sum();
    assert_eq!(bytes, batch.len(), "every byte belongs to one message");
    for one in &messages {
        message(one);
    }
}

/// Looks at a message from every side, as a node does before and after it accepts it.
pub(crate) fn message(message: &Message) {
    let fields = message.fields();
    let ours = Message::encode(&fields, &mut BytesMut::new());
    assert_eq!(ours.fields(), fields);
    assert!(ours.encoded().len() <= message.encoded().len(), "the encoding has grown");
    let stored = Message::from_parts(ours.head(), ours.key(), ours.body());
    assert_eq!(stored.as_ref(), Ok(&ours), "the store splits a message and joins it again");
    if message.check().is_ok() {
        assert_eq!(ours.check(), Ok(()));
        let origin = ours.identity().origin;
        assert!(ours.visited(&origin));
        assert_eq!(ours.key_hash().is_some(), ours.kind().is_state());
        let mut text = BytesMut::new();
        write::delivery_prefix(&ours, "here", &mut text);
        write::delivery_suffix(Default::default(), 1, 2, &mut text);
        let text = std::str::from_utf8(&text).expect("a delivery is text");
        slipstream_core::value::check_value(text).expect("a delivery is JSON");
    }
}

fn publishes(batch: &[u8]) {
    let Ok(records) = wire::records::<Publish<'_>>(batch) else { return };
    let mut writer = FrameWriter::new(BatchKind::Publish);
    for record in &records {
        writer.push(record);
        if let Ok(draft) = Draft::from_wire(record, &Limits::default()) {
            assert!(!draft.key.is_empty());
            assert!(slipstream_core::tags::is_canonical(&draft.tags, Limits::default().max_tags));
            slipstream_core::value::check_value(draft.body).expect("a draft holds one value");
        }
    }
    let Ok(Wire::Publish(again)) = Wire::decode(&writer.finish()) else { panic!("not a batch") };
    assert_eq!(wire::records::<Publish<'_>>(&again), Ok(records));
}

fn outcomes(batch: &[u8]) {
    let Ok(records) = wire::records::<OutcomeRecord<'_>>(batch) else { return };
    let mut writer = FrameWriter::new(BatchKind::Outcomes);
    records.iter().for_each(|record| writer.push(record));
    let Ok(Wire::Outcomes(again)) = Wire::decode(&writer.finish()) else { panic!("not a batch") };
    assert_eq!(wire::records::<OutcomeRecord<'_>>(&again), Ok(records));
}

fn deliveries(batch: &Bytes) {
    let Ok(deliveries) = wire::deliveries(batch) else { return };
    for (DeliveryHead { .. }, one) in &deliveries {
        message(one);
    }
}

fn reads(batch: &[u8]) {
    let Ok(records) = wire::records::<wire::Read<'_>>(batch) else { return };
    let mut writer = FrameWriter::new(BatchKind::Reads);
    for record in &records {
        writer.push(record);
        let _refused = ReadRequest::from_wire(record, &Limits::default());
    }
    let Ok(Wire::Reads(again)) = Wire::decode(&writer.finish()) else { panic!("not a batch") };
    assert_eq!(wire::records::<wire::Read<'_>>(&again), Ok(records));
}

fn results(batch: &[u8]) {
    let Ok(records) = wire::records::<ReadResult<'_>>(batch) else { return };
    let mut writer = FrameWriter::new(BatchKind::Results);
    records.iter().for_each(|record| writer.push(record));
    let Ok(Wire::Results(again)) = Wire::decode(&writer.finish()) else { panic!("not a batch") };
    assert_eq!(wire::records::<ReadResult<'_>>(&again), Ok(records));
}

fn settles(batch: &[u8]) {
    let Ok(records) = wire::records::<wire::Settle<'_>>(batch) else { return };
    let mut writer = FrameWriter::new(BatchKind::Settle);
    for record in &records {
        writer.push(record);
        let _refused = SettleRequest::from_wire(record);
    }
    let Ok(Wire::Settle(again)) = Wire::decode(&writer.finish()) else { panic!("not a batch") };
    assert_eq!(wire::records::<wire::Settle<'_>>(&again), Ok(records));
}
