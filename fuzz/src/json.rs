//! Text frames of applications: what is accepted keeps to the limits and means the same in binary;
//! what is refused is answered with JSON that repeats no more than it must.

use bytes::BytesMut;
use slipstream_core::config::Limits;
use slipstream_core::draft::Draft;
use slipstream_core::json::{
    self, JsonRequest, MAX_REASON_BYTES, SettleRequest, SettleTarget, parse,
};
use slipstream_core::message::MAX_MESSAGE_ID_BYTES;
use slipstream_core::refusal::Refusal;
use slipstream_core::value::check_value;
use slipstream_core::{tags, wire};

/// Longest text of a refusal: it names things, and repeats nothing of any length.
const MAX_REFUSAL_BYTES: usize = 512;

/// Takes `bytes` for a text frame, under the default limits and under narrow ones.
pub fn json(bytes: &[u8]) {
    let Ok(frame) = std::str::from_utf8(bytes) else { return };
    let narrow = Limits {
        max_message_bytes: 16,
        max_key_bytes: 8,
        max_tags: 2,
        max_json_depth: 2,
        ..Limits::default()
    };
    for limits in [Limits::default(), narrow] {
        match parse(frame, &limits) {
            Ok(JsonRequest::Publish(draft)) => accepted(&draft, &limits),
            Ok(JsonRequest::Settle(settle)) => settled(&settle),
            Ok(JsonRequest::Read(read)) => {
                assert!((1..=limits.max_key_bytes).contains(&read.key.len()));
            }
            Err(refusal) => refused(&refusal),
        }
    }
}

fn accepted(draft: &Draft<'_>, limits: &Limits) {
    assert!((1..=limits.max_key_bytes).contains(&draft.key.len()));
    assert!(draft.body.len() <= limits.max_message_bytes);
    assert!(tags::is_canonical(&draft.tags, limits.max_tags));
    check_value(draft.body).expect("a draft holds one value");
    let record = wire::Publish {
        kind: draft.kind,
        id: draft.id.as_deref().unwrap_or_default(),
        key: &draft.key,
        tags: &draft.tags,
        ttl_ms: draft.ttl.map_or(0, |ttl| ttl.as_millis() as u64),
        body: draft.body,
    };
    let binary = Draft::from_wire(&record, limits).expect("what JSON may say, binary may say");
    assert_eq!(binary.content_hash(), draft.content_hash());
    assert_eq!(&binary, draft);
}

fn settled(settle: &SettleRequest<'_>) {
    let (target, reason) = match settle {
        SettleRequest::Ack(_) | SettleRequest::AckUpTo(_) => return,
        SettleRequest::AckId(id) => (SettleTarget::Id(id.clone()), ""),
        SettleRequest::Retry { target, reason } | SettleRequest::Reject { target, reason } => {
            (target.clone(), &**reason)
        }
    };
    assert!(reason.len() <= MAX_REASON_BYTES);
    match target {
        SettleTarget::Delivery(_) => {}
        SettleTarget::Id(id) => assert!((1..=MAX_MESSAGE_ID_BYTES).contains(&id.len())),
    }
}

fn refused(refusal: &Refusal) {
    assert!(refusal.message.len() <= MAX_REFUSAL_BYTES, "{refusal}");
    assert!(refusal.re.as_ref().is_none_or(|id| id.len() <= MAX_MESSAGE_ID_BYTES));
    let mut text = BytesMut::new();
    json::write::error(refusal, 1, &mut text);
    let text = std::str::from_utf8(&text).expect("an error is text");
    check_value(text).expect("an error is JSON");
}
