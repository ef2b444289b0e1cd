//! Frames of applications, one rule of the protocol after the other.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Durability, Limits};
use crate::types::clock::Hlc;
use crate::types::ids::{Incarnation, Position, Sequence};
use crate::types::refusal::{Code, Refusal};
use crate::types::time::WallMs;
use crate::types::value::{BadValue, check_value};
use crate::wire::application::{AckMode, InForce, Replay};
use crate::wire::draft::Draft;
use crate::wire::message::{Fields, Kind, Message};
use crate::wire::read::ReadRequest;
use crate::wire::{self, Welcome};

fn draft(frame: &str) -> Draft<'_> {
    match parse(frame, &Limits::default()) {
        Ok(JsonRequest::Publish(draft)) => draft,
        other => panic!("{frame}: {other:?}"),
    }
}

fn settle(frame: &str) -> SettleRequest<'_> {
    match parse(frame, &Limits::default()) {
        Ok(JsonRequest::Settle(settle)) => settle,
        other => panic!("{frame}: {other:?}"),
    }
}

fn refused(frame: &str) -> Refusal {
    parse(frame, &Limits::default()).expect_err(frame)
}

/// What stands for a number and is none that counts something.
const NO_WHOLE_NUMBERS: [&str; 14] = [
    "1.5",
    "17e-1",
    "-1",
    "-0",
    "-1.0",
    "1e400",
    "1e-400",
    "1e99999999999999999999",
    "9007199254740993.0",
    "9007199254740993e0",
    "18446744073709551616",
    "\"17\"",
    "true",
    "[17]",
];

/// Asserts the code, the path and the `messageId` of a refusal.
#[track_caller]
fn assert_refused(frame: &str, code: Code, path: Option<&str>, re: Option<&str>) {
    let refusal = refused(frame);
    assert_eq!(refusal.code, code, "{frame}: {refusal}");
    assert_eq!(refusal.path.as_deref(), path, "{frame}: {refusal}");
    assert_eq!(refusal.re.as_deref(), re, "{frame}: {refusal}");
}

#[test]
fn each_kind_is_published_as_the_specification_shows() {
    let set = draft(
        r#"{"type":"SK","messageId":"m-1","key":"order:123","value":"any JSON value",
           "targetedTags":["azure","gcp"]}"#,
    );
    assert_eq!(set.kind, Kind::Sk);
    assert_eq!(set.id.as_deref(), Some("m-1"));
    assert_eq!(set.key, "order:123");
    assert_eq!(set.body, r#""any JSON value""#);
    assert_eq!(set.tags, "azure,gcp");
    assert_eq!(set.ttl, None);
    let array = draft(r#"{"type":"SA","key":"pending-orders","value":["order:123","order:456"]}"#);
    assert_eq!((array.kind, array.id), (Kind::Sa, None));
    let command = draft(
        r#"{"type":"CMD","key":"terminal:9","value":{"do":"reboot"},"ttlMs":60000,
           "targetedTags":["azure"]}"#,
    );
    assert_eq!((command.kind, command.ttl), (Kind::Cmd, Some(Duration::from_secs(60))));
}

#[test]
fn deliveries_are_settled_as_the_specification_shows() {
    let seventeen = Position::new(17);
    assert_eq!(settle(r#"{"type":"ACK","deliveryId":17}"#), SettleRequest::Ack(seventeen));
    let up_to = settle(r#"{"type":"ACK","deliveryId":17,"upTo":true}"#);
    assert_eq!(up_to, SettleRequest::AckUpTo(seventeen));
    let exact = settle(r#"{"type":"ACK","deliveryId":17,"upTo":false,"messageId":"m-1"}"#);
    assert_eq!(exact, SettleRequest::Ack(seventeen));
    let by_id = settle(r#"{"type":"ACK","messageId":"m-1"}"#);
    assert_eq!(by_id, SettleRequest::AckId(Cow::Borrowed("m-1")));
    let retry =
        settle(r#"{"type":"NACK","deliveryId":17,"action":"retry","reason":"database is locked"}"#);
    let reason = Cow::Borrowed("database is locked");
    assert_eq!(retry, SettleRequest::Retry { target: SettleTarget::Delivery(seventeen), reason });
    let reject = settle(r#"{"type":"NACK","messageId":"m-1","action":"reject"}"#);
    let target = SettleTarget::Id(Cow::Borrowed("m-1"));
    assert_eq!(reject, SettleRequest::Reject { target, reason: Cow::Borrowed("") });
}

#[test]
fn a_delivery_that_is_not_named_properly_is_refused() {
    let missing = |frame| assert_refused(frame, Code::MissingField, Some("$.deliveryId"), None);
    missing(r#"{"type":"ACK"}"#);
    missing(r#"{"type":"NACK","action":"retry"}"#);
    let by_id = r#"{"type":"ACK","messageId":"m-1","upTo":true}"#;
    assert_refused(by_id, Code::MissingField, Some("$.deliveryId"), Some("m-1"));
    for number in NO_WHOLE_NUMBERS {
        let frame = format!(r#"{{"type":"ACK","deliveryId":{number}}}"#);
        assert_refused(&frame, Code::InvalidField, Some("$.deliveryId"), None);
    }
    missing(r#"{"type":"ACK","deliveryId":null,"messageId":null}"#);
    missing(r#"{"type":"NACK","deliveryId":null,"action":"retry"}"#);
    let largest = settle(r#"{"type":"ACK","deliveryId":18446744073709551615}"#);
    assert_eq!(largest, SettleRequest::Ack(Position::new(u64::MAX)));
    let up_to = r#"{"type":"ACK","deliveryId":1,"upTo":1}"#;
    assert_refused(up_to, Code::InvalidField, Some("$.upTo"), None);
}

#[test]
fn a_nack_says_retry_or_reject_and_may_say_why() {
    let frame = |rest: &str| format!(r#"{{"type":"NACK","deliveryId":1{rest}}}"#);
    assert_refused(&frame(""), Code::MissingField, Some("$.action"), None);
    let unknown = frame(r#","action":"drop""#);
    assert_refused(&unknown, Code::InvalidField, Some("$.action"), None);
}

// keeps: refusals-kept
#[test]
fn a_reason_never_costs_a_refusal_its_effect() {
    let said = |reason: &str| {
        let rest = format!(r#""deliveryId":1,"action":"reject","reason":{reason}"#);
        match settle(&format!(r#"{{"type":"NACK",{rest}}}"#)) {
            SettleRequest::Reject { target: SettleTarget::Delivery(one), reason }
                if one.get() == 1 =>
            {
                reason.into_owned()
            }
            other => panic!("{other:?} instead of a rejection"),
        }
    };
    assert_eq!(said("null"), "");
    for raw in ["7", "true", r#"{"code":7,"at":[1,2]}"#, r#""half: \ud83d""#, r#""\udc00\ud83d""#] {
        assert_eq!(said(raw), raw, "it is kept as it was written");
    }
    let deep = format!("{}7{}", "[".repeat(1000), "]".repeat(1000));
    assert_eq!(said(&deep), deep);
    for (character, bytes) in
        [("x", 4096), ("\u{e9}", 4096), ("\u{20ac}", 4095), ("\u{1f600}", 4096)]
    {
        for count in [MAX_REASON_BYTES / character.len(), MAX_REASON_BYTES, 100_000] {
            let reason = character.repeat(count);
            let kept = &reason[..bytes.min(reason.len())];
            assert_eq!(said(&format!("\"{reason}\"")), kept);
            assert_eq!(
                said(&format!("\"{}\"", reason.replace(character, &escaped(character)))),
                kept
            );
        }
    }
    assert_eq!(said(&format!("[\"{}\"]", "\u{20ac}".repeat(9_000))).len(), 4094);
    // What is nested deeply is no reason elsewhere.
    let deep = format!(r#"{{"type":"SK","key":"k","value":1,"reason":{deep}}}"#);
    assert_refused(&deep, Code::TooDeep, Some("$.reason"), None);
}

fn escaped(character: &str) -> String {
    character.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

#[test]
fn a_binary_client_settles_under_the_same_rules() {
    let delivery = Position::new(17);
    let taken = |settle| SettleRequest::from_wire(&settle).map_err(|refusal| refusal.code);
    assert_eq!(taken(wire::Settle::Ack(delivery)), Ok(SettleRequest::Ack(delivery)));
    assert_eq!(taken(wire::Settle::AckUpTo(delivery)), Ok(SettleRequest::AckUpTo(delivery)));
    assert_eq!(taken(wire::Settle::AckId("m-1")), Ok(SettleRequest::AckId(Cow::Borrowed("m-1"))));
    assert_eq!(taken(wire::Settle::AckId("")), Err(Code::InvalidField));
    let reason = format!("{}\u{20ac}", "x".repeat(MAX_REASON_BYTES - 1));
    let (target, cut) = (SettleTarget::Delivery(delivery), Cow::Borrowed(&reason[..4095]));
    let retry = SettleRequest::Retry { target: target.clone(), reason: cut.clone() };
    assert_eq!(taken(wire::Settle::Retry { delivery, reason: &reason }), Ok(retry));
    let reject = SettleRequest::Reject { target, reason: cut };
    assert_eq!(taken(wire::Settle::Reject { delivery, reason: &reason }), Ok(reject));
}

#[test]
fn what_is_not_json_is_refused_with_its_id_if_readable() {
    for frame in [
        "",
        " ",
        "nope",
        "{",
        "[1,",
        "\u{feff}{}",
        r#"{"type":"SK","key":"k","value":}"#,
        r#"{"type":"SK","key":"k","value":1}{}"#,
        r#"{"type":"SK","key":"k","value":01}"#,
        r#"{type:"SK"}"#,
        "{\"type\":\"SK\",\"key\":\"a\nb\",\"value\":1}",
    ] {
        assert_refused(frame, Code::InvalidJson, None, None);
    }
    let broken = r#"{"type":"SK","value":nope,"messageId":"m-1"}"#;
    assert_refused(broken, Code::InvalidJson, None, Some("m-1"));
}

#[test]
fn json_that_is_no_object_is_refused() {
    for frame in ["[]", " 1 ", "null", r#""{}""#, r#"[{"type":"SK"}]"#] {
        assert_refused(frame, Code::NotAnObject, None, None);
    }
}

#[test]
fn a_field_twice_in_the_envelope_is_refused() {
    let twice = |rest: &str, path| {
        let frame = format!(r#"{{"messageId":"m-1","type":"SK","key":"k","value":1,{rest}}}"#);
        assert_refused(&frame, Code::InvalidJson, path, Some("m-1"));
    };
    twice(r#""key":"k""#, Some("$.key"));
    twice(r#""\u006bey":"k""#, Some("$.key"));
    twice(r#""messageId":"m-2""#, Some("$.messageId"));
    twice(r#""version":1,"version":2"#, Some("$.version"));
    twice(r#""unknown":1,"other":2,"unkn\u006fwn":3"#, None);
    twice(r#""x-a":1,"x-b":2,"x-\u0061":3"#, None);
}

#[test]
fn a_field_twice_inside_a_value_is_the_applications_affair() {
    let frame = r#"{"type":"SK","key":"k","value":{"a":1,"a":2}}"#;
    assert_eq!(draft(frame).body, r#"{"a":1,"a":2}"#);
}

#[test]
fn stamped_fields_and_those_of_other_types_are_ignored() {
    for value in ["1", "null", r#""x""#, "[[]]", r#"{"a":{}}"#] {
        let frame = format!(
            r#"{{"originInstanceId":{value},"sourceInstanceId":{value},"messagePath":{value},
               "clusterGroupId":{value},"version":{value},"redelivery":{value},"x-a":{value},
               "conflated":{value},"x-":{value},"deliveryId":{value},"reason":{value},
               "type":"SK","key":"k","value":1}}"#,
        );
        assert_eq!(draft(&frame), draft(r#"{"type":"SK","key":"k","value":1}"#));
        let frame = format!(
            r#"{{"type":"ACK","deliveryId":1,"key":{value},"value":{value},"ttlMs":{value},
               "targetedTags":{value},"x-trace":{value}}}"#,
        );
        assert_eq!(settle(&frame), SettleRequest::Ack(Position::new(1)));
    }
}

// keeps: lenient-forms
#[test]
fn a_delivery_can_be_published_as_it_came() {
    let message = message("aws-eu-1,gcp-1", "aws-eu", "azure");
    let came = written(|out| {
        write::delivery_prefix(&message, "gcp-1", out);
        write::delivery_suffix(Position::new(17), 2, 3, out);
    });
    assert_eq!(draft(&came).tags, "azure");
}

// keeps: lenient-forms
#[test]
fn an_unknown_field_is_refused_with_the_nearest_in_every_type() {
    let kinds = ["SK", "SA", "SW", "DK", "CMD", "GK", "GA", "GW", "ACK", "NACK"];
    let good = r#""key":"k","value":[],"deliveryId":1,"action":"retry""#;
    for kind in kinds {
        let frame = format!(r#"{{"type":"{kind}","messageId":"m-1",{good},"messageID":null}}"#);
        assert_refused(&frame, Code::InvalidField, Some("$.messageID"), Some("m-1"));
        assert!(refused(&frame).message.contains("the nearest is messageId"), "{kind}");
    }
    for (kind, name, near) in [
        ("SK", "targetTags", "targetedTags"),
        ("CMD", "ttl", "ttlMs"),
        ("ACK", "upto", "upTo"),
        ("ACK", "delivery", "deliveryId"),
        ("NACK", "reson", "reason"),
        ("GK", "keys", "key"),
        ("SK", "Values", "value"),
    ] {
        let frame = format!(r#"{{"{name}":["a"],"type":"{kind}",{good},"other":1}}"#);
        assert_refused(&frame, Code::InvalidField, Some(&format!("$.{name}")), None);
        let message = refused(&frame).message;
        let expected = format!("there is no field {name}; the nearest is {near},");
        assert!(message.starts_with(&expected), "{message}");
    }
    for name in ["x_trace", "X-trace", "trace-x-"] {
        let frame = format!(r#"{{"type":"SK",{good},"{name}":1}}"#);
        assert_refused(&frame, Code::InvalidField, Some(&format!("$.{name}")), None);
    }
    // It says more than that something is missing, and less than that the type is unknown.
    assert_refused(r#"{"typ":"SK"}"#, Code::InvalidField, Some("$.typ"), None);
    assert_refused(r#"{"type":"SK","kee":"k"}"#, Code::InvalidField, Some("$.kee"), None);
    assert_refused(r#"{"type":"FOO","kee":"k"}"#, Code::UnknownType, Some("$.type"), None);
    for odd in ["", "a b", "\\u00e9", "\\ud83d\\ude00", "\\n"] {
        let frame = format!(r#"{{"type":"SK","key":"k","value":1,"{odd}":1}}"#);
        assert_refused(&frame, Code::InvalidField, Some("$"), None);
    }
    let long = format!(r#"{{"type":"SK","key":"k","value":1,"{}":1}}"#, "a".repeat(65));
    assert_refused(&long, Code::InvalidField, Some("$"), None);
}

#[test]
fn many_unknown_fields_cost_no_more_than_reading_them() {
    let mut frame = String::from(r#"{"type":"ACK","deliveryId":1"#);
    for number in 0..100_000 {
        frame.push_str(&format!(r#","x-{number}":0"#));
    }
    frame.push('}');
    assert_eq!(settle(&frame), SettleRequest::Ack(Position::new(1)));
}

// keeps: lenient-forms
#[test]
fn a_whole_number_is_one_however_it_is_written() {
    let minute = Some(Duration::from_secs(60));
    for ttl in ["60000", "60000.0", "6e4", "6E+4", "600000e-1", "0.6e5", "60000.000e0"] {
        let frame = format!(r#"{{"type":"CMD","key":"k","value":1,"ttlMs": {ttl} }}"#);
        assert_eq!(draft(&frame).ttl, minute, "{ttl}");
    }
    for (number, delivery) in [
        ("17.0", 17),
        ("0.00017e5", 17),
        ("0e-99999999999999999999", 0),
        ("9007199254740992.0", 1 << 53),
        ("900719925474099200000e-5", 1 << 53),
        ("9007199254740993", (1 << 53) + 1),
    ] {
        let frame = format!(r#"{{"type":"ACK","deliveryId":{number}}}"#);
        assert_eq!(settle(&frame), SettleRequest::Ack(Position::new(delivery)), "{number}");
    }
}

// keeps: lenient-forms
#[test]
fn null_in_an_optional_field_is_its_absence() {
    let bare = r#"{"type":"CMD","key":"k","value":null}"#;
    let nulls = r#"{"type":"CMD","messageId":null,"key":"k","value":null,"targetedTags":null,
        "ttlMs":null,"deliveryId":null,"upTo":null,"action":null,"reason":null,"version":null}"#;
    assert_eq!(draft(nulls), draft(bare));
    let seventeen = Position::new(17);
    let exact = r#"{"type":"ACK","deliveryId":17,"messageId":null,"upTo":null}"#;
    assert_eq!(settle(exact), SettleRequest::Ack(seventeen));
    let named = r#"{"type":"ACK","deliveryId":null,"messageId":"m-1"}"#;
    assert_eq!(settle(named), SettleRequest::AckId(Cow::Borrowed("m-1")));
    let retry = r#"{"type":"NACK","deliveryId":17,"action":"retry","reason":null}"#;
    let reason = Cow::Borrowed("");
    assert_eq!(
        settle(retry),
        SettleRequest::Retry { target: SettleTarget::Delivery(seventeen), reason }
    );
    let read = parse(r#"{"type":"GK","messageId":null,"key":"k"}"#, &Limits::default());
    let read =
        read.map(|request| matches!(request, JsonRequest::Read(ReadRequest { id: None, .. })));
    assert_eq!(read, Ok(true));
}

#[test]
fn a_missing_field_is_named_and_so_is_the_message() {
    let missing = |frame, path| {
        assert_refused(frame, Code::MissingField, Some(path), Some("m-1"));
    };
    missing(r#"{"key":"k","value":1,"messageId":"m-1"}"#, "$.type");
    missing(r#"{"type":"SK","value":1,"messageId":"m-1"}"#, "$.key");
    missing(r#"{"type":"SK","key":"k","messageId":"m-1"}"#, "$.value");
    missing(r#"{"type":"CMD","key":"k","messageId":"m-1"}"#, "$.value");
}

#[test]
fn null_is_a_value_but_no_type_key_tag_or_action() {
    assert_eq!(draft(r#"{"type":"SK","key":"k","value":null}"#).body, "null");
    for field in ["type", "key"] {
        let mut frame = json!({"type":"CMD","messageId":"m-1","key":"k","value":1});
        frame[field] = Value::Null;
        let path = format!("$.{field}");
        assert_refused(&frame.to_string(), Code::InvalidField, Some(&path), Some("m-1"));
    }
    let tag = r#"{"type":"SK","key":"k","value":1,"targetedTags":["a",null]}"#;
    assert_refused(tag, Code::InvalidField, Some("$.targetedTags[1]"), None);
    let action = r#"{"type":"NACK","deliveryId":1,"action":null}"#;
    assert_refused(action, Code::InvalidField, Some("$.action"), None);
}

#[test]
fn fields_of_a_wrong_type_are_refused_by_path() {
    for (field, value, path) in [
        ("type", "7", "$.type"),
        ("key", "7", "$.key"),
        ("key", "[]", "$.key"),
        ("key", r#""""#, "$.key"),
        ("targetedTags", r#""azure""#, "$.targetedTags"),
        ("targetedTags", "{}", "$.targetedTags"),
        ("targetedTags", r#"["a",7]"#, "$.targetedTags[1]"),
        ("targetedTags", r#"["a",""]"#, "$.targetedTags[1]"),
        ("targetedTags", r#"["a,b"]"#, "$.targetedTags[0]"),
        ("targetedTags", r#"["\ud800"]"#, "$.targetedTags[0]"),
    ] {
        let fields = [("type", "\"SK\""), ("messageId", "\"m-1\""), ("key", "\"k\"")];
        let mut frame = format!(r#"{{"{field}":{value},"value":1"#);
        for (name, value) in fields.into_iter().filter(|(name, _)| *name != field) {
            frame.push_str(&format!(r#","{name}":{value}"#));
        }
        frame.push('}');
        assert_refused(&frame, Code::InvalidField, Some(path), Some("m-1"));
    }
    let object = r#"{"type":"SA","key":"k","value":{}}"#;
    assert_refused(object, Code::InvalidField, Some("$.value"), None);
}

#[test]
fn types_that_are_not_known_are_refused() {
    for name in ["GD", "G", "GC", "sk", "gk", "", "FOO", "WELCOME", "RESULT", "a\u{7}"] {
        let frame = json!({"type":name,"messageId":"m-1","key":7}).to_string();
        assert_refused(&frame, Code::UnknownType, Some("$.type"), Some("m-1"));
    }
    assert!(refused(r#"{"type":"FOO"}"#).message.contains("FOO"));
}

#[test]
fn a_weighted_set_passes_as_written_or_is_refused_by_path() {
    let frame =
        |value: &str| format!(r#"{{"type":"SW","messageId":"m-1","key":"k","value": {value} }}"#);
    let value = "{\"nets\" : 0.70,\"b\\u00e4\":3e-1}";
    assert_eq!(draft(&frame(value)).body, value);
    for bad in ["[]", "1", "null", r#"{"a":-1}"#, r#"{"a":1e400}"#, r#"{"a":1,"a":1}"#] {
        assert_refused(&frame(bad), Code::InvalidField, Some("$.value"), Some("m-1"));
    }
}

#[test]
fn a_delete_needs_no_value() {
    for frame in [r#"{"type":"DK","key":"k"}"#, r#"{"type":"DK","key":"k","value":[1]}"#] {
        let draft = draft(frame);
        assert_eq!((draft.kind, draft.body), (Kind::Dk, "null"));
    }
    let mortal = r#"{"type":"DK","messageId":"m-1","key":"k","ttlMs":1}"#;
    assert_refused(mortal, Code::InvalidField, Some("$.ttlMs"), Some("m-1"));
}

#[test]
fn a_read_names_a_key() {
    for (name, kind) in [("GK", Kind::Sk), ("GA", Kind::Sa), ("GW", Kind::Sw)] {
        let frame = json!({"type":name,"key":"k","value":7,"ttlMs":"x"}).to_string();
        let request = parse(&frame, &Limits::default());
        let read = ReadRequest { kind: Some(kind), id: None, key: "k".into() };
        assert_eq!(request, Ok(JsonRequest::Read(read)));
    }
    let read = |key: &str| format!(r#"{{"type":"GK","messageId":"m-1","key":{key}}}"#);
    assert_refused(&read("7"), Code::InvalidField, Some("$.key"), Some("m-1"));
    assert_refused(&read("\"\""), Code::InvalidField, Some("$.key"), Some("m-1"));
    let long = format!("\"{}\"", "k".repeat(1025));
    assert_refused(&read(&long), Code::TooLarge, Some("$.key"), Some("m-1"));
    let missing = r#"{"type":"GK","messageId":"m-1"}"#;
    assert_refused(missing, Code::MissingField, Some("$.key"), Some("m-1"));
}

#[test]
fn an_id_is_a_string_of_one_to_128_bytes() {
    let frame = |id: &str| format!(r#"{{"type":"SK","messageId":{id},"key":"k","value":1}}"#);
    let quoted = |bytes| format!("\"{}\"", "x".repeat(bytes));
    assert_eq!(draft(&frame(&quoted(128))).id.as_deref(), Some(&*"x".repeat(128)));
    for id in [&*quoted(129), "\"\"", "7", "{}", "true"] {
        assert_refused(&frame(id), Code::InvalidField, Some("$.messageId"), None);
    }
}

#[test]
fn a_lone_surrogate_passes_in_a_value_and_nowhere_else() {
    let value = draft(r#"{"type":"SK","key":"k","value":{"\udc00":"\ud800x"}}"#);
    assert_eq!(value.body, r#"{"\udc00":"\ud800x"}"#);
    let key = r#"{"type":"SK","key":"\ud800","value":1,"messageId":"m-1"}"#;
    assert_refused(key, Code::InvalidJson, Some("$.key"), Some("m-1"));
    let id = r#"{"type":"SK","key":"k","value":1,"messageId":"\ud800"}"#;
    assert_refused(id, Code::InvalidJson, Some("$.messageId"), None);
    let pair = draft(r#"{"type":"SK","key":"\ud83d\ude00","value":1}"#);
    assert_eq!(pair.key, "😀");
}

#[test]
fn a_time_to_live_is_an_integer_on_a_command_only() {
    let frame = |kind: &str, ttl: &str| {
        format!(r#"{{"type":"{kind}","messageId":"m-1","key":"k","value":[],"ttlMs":{ttl}}}"#)
    };
    assert_eq!(draft(&frame("CMD", "1")).ttl, Some(Duration::from_millis(1)));
    assert_eq!(draft(&frame("CMD", "2592000000")).ttl, Some(crate::wire::draft::MAX_TTL));
    for ttl in ["0", "0.0", "0e9", "2592000001", "2592000001.0"].into_iter().chain(NO_WHOLE_NUMBERS)
    {
        let frame = frame("CMD", ttl);
        assert_refused(&frame, Code::InvalidField, Some("$.ttlMs"), Some("m-1"));
    }
    for kind in ["SK", "SA"] {
        let frame = frame(kind, "60000");
        assert_refused(&frame, Code::InvalidField, Some("$.ttlMs"), Some("m-1"));
    }
}

#[test]
fn target_tags_are_a_set_of_limited_size() {
    let frame = |tags: &[String]| {
        json!({"type":"SK","messageId":"m-1","key":"k","value":1,"targetedTags":tags}).to_string()
    };
    let tags: Vec<String> = (0..33).map(|number| format!("t{number}")).collect();
    draft(&frame(&tags[..32]));
    assert_refused(&frame(&tags), Code::InvalidField, Some("$.targetedTags"), Some("m-1"));
    assert_eq!(draft(&frame(&[])).tags, "");
    let repeated = r#"{"type":"SK","key":"k","value":1,"targetedTags":["gcp","a\u0077s" , "gcp"]}"#;
    assert_eq!(draft(repeated).tags, "aws,gcp");
}

// keeps: byte-for-byte
#[test]
fn a_value_keeps_its_digits_and_its_spaces() {
    for value in ["1.10", "9223372036854775808", "-0.0", "1E+2", "{ \"a\" :\t1 }", "[1 ,2]"] {
        let frame = format!("{{\"type\" : \"SK\",\"key\":\"k\",\"value\" : \r\n{value}\t }}");
        assert_eq!(draft(&frame).body, value);
    }
}

#[test]
fn a_value_and_a_key_are_within_their_limits() {
    let limits = Limits { max_message_bytes: 6, max_key_bytes: 2, ..Limits::default() };
    let outcome = |key: &str, value: &str| {
        let frame = json!({"type":"SK","messageId":"m-1","key":key,"value":value}).to_string();
        parse(&frame, &limits).map(drop)
    };
    assert_eq!(outcome("kk", "1234"), Ok(()));
    let value = outcome("kk", "12345").expect_err("too large");
    assert_eq!((value.code, value.path.as_deref()), (Code::TooLarge, Some("$.value")));
    assert_eq!(value.message, "value is 7 bytes, the limit is 6");
    assert_eq!(value.re.as_deref(), Some("m-1"));
    let key = outcome("kkk", "1").expect_err("too large");
    assert_eq!((key.code, key.path.as_deref()), (Code::TooLarge, Some("$.key")));
    assert_eq!(outcome("\u{e9}", "1"), Ok(()), "bytes count, two of them here");
}

#[test]
fn depth_is_within_its_limit_wherever_it_is() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let frame = |field: &str, depth: usize| {
        let rest = if field == "value" { "" } else { r#","value":1"# };
        let nested = nested(depth);
        format!(r#"{{"type":"SK","key":"k","{field}":{nested}{rest},"messageId":"m-1"}}"#)
    };
    draft(&frame("value", 64));
    assert_refused(&frame("value", 65), Code::TooDeep, Some("$.value"), Some("m-1"));
    draft(&frame("x-later", 64));
    assert_refused(&frame("x-later", 500_000), Code::TooDeep, Some("$.x-later"), Some("m-1"));
    assert_refused(&nested(500_000), Code::NotAnObject, None, None);
    assert_refused(&"[".repeat(500_000), Code::InvalidJson, None, None);
    assert_refused(&"{\"a\":".repeat(500_000), Code::InvalidJson, None, None);
}

#[test]
fn one_value_of_any_depth_can_be_checked() {
    assert_eq!(check_value(&("[".repeat(500_000) + &"]".repeat(500_000))), Ok(()));
    assert_eq!(check_value(" 1 "), Ok(()));
    assert_eq!(check_value("1 2"), Err(BadValue));
    assert_eq!(check_value(""), Err(BadValue));
}

// keeps: no-secrets
#[test]
fn a_refusal_never_repeats_a_value() {
    for frame in [
        r#"{"type":"SK","key":"k","value":"hunter2","ttlMs":"hunter2"}"#,
        r#"{"type":"SK","key":"k","value":"hunter2" hunter2}"#,
        r#"{"type":"hunter 2","value":"hunter2"}"#,
        r#"{"type":"SA","key":"k","value":"hunter2"}"#,
        r#"["hunter2"]"#,
    ] {
        assert!(!format!("{:?}", refused(frame)).contains("hunter"), "{frame}");
    }
}

fn message(path: &str, group: &str, tags: &str) -> Message {
    let fields = Fields {
        kind: Kind::Sk,
        incarnation: Incarnation::new(7),
        sequence: Sequence::new(3),
        version: Hlc((0x019a_0b1c_2d3e << 16) | 3),
        expires: WallMs(0),
        group,
        tags,
        path,
        id: "m-1",
        key: "order:123",
        body: r#"{"any":"json", "amount":1.10}"#,
    };
    Message::encode(&fields, &mut BytesMut::new())
}

fn written(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    let text = String::from_utf8(out.to_vec()).expect("text");
    check_value(&text).expect("JSON");
    text
}

/// Joins the lines of an expected frame.
fn one_line(lines: &str) -> String {
    lines.lines().map(str::trim_start).collect()
}

fn delivery(message: &Message, node: &str, redelivery: u32) -> String {
    written(|out| {
        write::delivery_prefix(message, node, out);
        write::delivery_suffix(Position::new(17), redelivery, 0, out);
    })
}

#[test]
fn a_delivery_is_written_as_the_specification_shows() {
    let message = message("aws-eu-1,gcp-1,azure-1", "aws-eu", "azure");
    assert_eq!(
        delivery(&message, "azure-1", 0),
        one_line(
            r#"{"type":"SK","messageId":"m-1","key":"order:123",
           "value":{"any":"json", "amount":1.10},"originInstanceId":"aws-eu-1",
           "sourceInstanceId":"azure-1","messagePath":["aws-eu-1","gcp-1","azure-1"],
           "targetedTags":["azure"],"clusterGroupId":"aws-eu",
           "version":"019a0b1c2d3e-0003-aws-eu-1","deliveryId":17}"#
        )
    );
}

#[test]
fn a_delivery_omits_empty_fields_and_marks_repeats() {
    let text = delivery(&message("a", "", ""), "a", 2);
    assert!(!text.contains("targetedTags") && !text.contains("clusterGroupId"), "{text}");
    assert!(text.ends_with(r#","deliveryId":17,"redelivery":2}"#), "{text}");
    assert!(text.contains(r#""messagePath":["a"]"#), "{text}");
}

#[test]
fn a_delivery_path_ends_with_the_node_that_hands_it_over() {
    let text = delivery(&message("a,b", "", ""), "c", 0);
    assert!(text.contains(r#""messagePath":["a","b","c"]"#), "{text}");
}

#[test]
fn a_receipt_is_written_as_the_specification_shows() {
    let version = Hlc((0x019a_0b1c_2d3e << 16) | 3);
    let receipt = |duplicate, level| {
        written(|out| write::receipt("m-1", "aws-eu-1", version, duplicate, level, out))
    };
    assert_eq!(
        receipt(false, Durability::Full),
        one_line(
            r#"{"type":"ACK","messageId":"m-1","originInstanceId":"aws-eu-1",
           "sourceInstanceId":"aws-eu-1","messagePath":["aws-eu-1"],
           "version":"019a0b1c2d3e-0003-aws-eu-1","level":"durable"}"#
        )
    );
    let repeated = receipt(true, Durability::Normal);
    assert!(repeated.ends_with(r#","level":"written","duplicate":true}"#), "{repeated}");
    assert_eq!(write::version_text(version, "aws-eu-1"), "019a0b1c2d3e-0003-aws-eu-1");
}

#[test]
fn an_error_is_written_as_the_specification_shows() {
    let refusal = Refusal {
        re: Some("m-1".into()),
        path: Some("$.value".into()),
        ..Refusal::new(Code::TooLarge, "value is 1310720 bytes, the limit is 1048576")
    };
    assert_eq!(
        written(|out| write::error(&refusal, 17, out)),
        one_line(
            r#"{"type":"ERR","re":"m-1","frame":17,"code":"TOO_LARGE","retryable":false,
           "message":"value is 1310720 bytes, the limit is 1048576","path":"$.value"}"#
        )
    );
    let later = Refusal {
        retry_after: Some(Duration::from_micros(1_500)),
        ..Refusal::new(Code::StoreFull, "full")
    };
    assert_eq!(
        written(|out| write::error(&later, 1, out)),
        one_line(
            r#"{"type":"ERR","re":null,"frame":1,"code":"STORE_FULL","retryable":true,
           "message":"full","retryAfterMs":2}"#
        )
    );
}

#[test]
fn a_greeting_is_written_as_the_specification_shows() {
    let mut welcome = Welcome {
        protocol: 1,
        instance: "azure-1".into(),
        client: "pi-1".into(),
        resumed: true,
        tags: "azure".into(),
        window: 256,
        max_message_bytes: 1_048_576,
        version: "0.1.0".into(),
        in_force: None,
    };
    let keys = ["order:".to_string()];
    let (replay, ack) = (Replay::All, AckMode::Manual);
    let in_force = InForce { keys: Some(keys.to_vec()), replay, ack, conflate: false };
    welcome.in_force = Some(in_force);
    assert_eq!(
        written(|out| write::welcome(&welcome, out)),
        one_line(
            r#"{"type":"WELCOME","instanceId":"azure-1","client":"pi-1","resumed":true,
           "tags":["azure"],"keys":["order:"],"replay":"all","ack":"manual","conflate":false,
           "window":256,"maxMessageBytes":1048576,"version":"0.1.0"}"#
        )
    );
    welcome.client.clear();
    welcome.tags.clear();
    let (replay, ack) = (Replay::New, AckMode::Auto);
    let in_force = InForce { keys: None, replay, ack, conflate: true };
    welcome.in_force = Some(in_force);
    let unnamed = written(|out| write::welcome(&welcome, out));
    assert!(unnamed.contains(r#""client":null,"resumed":true,"tags":[],"keys":null,"#));
    assert!(unnamed.contains(r#""replay":"new","ack":"auto","conflate":true,"#), "{unnamed}");
    assert_eq!(written(write::synced), r#"{"type":"SYNCED"}"#);
}

#[test]
fn versions_sort_as_the_clock_does() {
    let versions = [Hlc(0), Hlc(1), Hlc(0xffff), Hlc(0x1_0000), Hlc(0xa << 40), Hlc(u64::MAX)];
    let texts = versions.map(|version| write::version_text(version, "a"));
    assert!(texts.is_sorted(), "{texts:?}");
}

/// Any JSON, with the numbers and spaces that parsers like to change.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("1.10".to_string()),
        Just("18446744073709551616".to_string()),
        Just(r#""\ud800\u0041""#.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| json!(text).to_string()),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let items = prop::collection::vec(inner, 0..5);
        let spaced = (items, prop::sample::select(&[",", " ,", ",\n\t"][..]));
        spaced.prop_flat_map(|(items, comma)| {
            let members: Vec<String> =
                items.iter().map(|item| format!(r#""k\n" :{item}"#)).collect();
            let (list, object) = (items.join(comma), members.join(comma));
            prop_oneof![Just(format!("[ {list}]")), Just(format!("{{{object} }}"))]
        })
    })
}

fn any_frame() -> impl Strategy<Value = String> {
    let publish = (any_json(), any::<String>(), any::<String>()).prop_map(|(value, key, id)| {
        let (key, id) = (json!(key), json!(id));
        format!(
            r#"{{"type":"CMD","messageId":{id},"key":{key},"ttlMs":5,"targetedTags":["a"],
               "value":{value}}}"#
        )
    });
    let nack = any::<String>().prop_map(|reason| {
        json!({"type":"NACK","deliveryId":5,"action":"retry","reason":reason}).to_string()
    });
    prop_oneof![publish, nack]
}

proptest! {
    // keeps: hostile-input
    #[test]
    fn parsing_takes_any_text(frame in any::<String>()) {
        let _ = parse(&frame, &Limits::default());
    }

    #[test]
    fn parsing_takes_any_mix_of_tokens(
        frame in r#"([{}\[\]:,\\ ]|"|"type"|"key"|"messageId"|"SK"|1|é){0,40}"#,
    ) {
        let _ = parse(&frame, &Limits { max_json_depth: 3, ..Limits::default() });
    }

    // keeps: hostile-input
    #[test]
    fn parsing_takes_damaged_frames(
        frame in any_frame(),
        cut in any::<prop::sample::Index>(),
        drop_chars in 0_usize..3,
        insert in prop::option::of(r#"[{}\[\]":,\\0-9a-zé]{1,3}"#),
    ) {
        let chars: Vec<char> = frame.chars().collect();
        let at = cut.index(chars.len());
        let mut damaged: String = chars[..at].iter().collect();
        damaged.push_str(&insert.unwrap_or_default());
        damaged.extend(chars.iter().skip(at + drop_chars));
        let _ = parse(&damaged, &Limits::default());
    }

    // keeps: byte-for-byte
    #[test]
    fn a_body_passes_through_byte_for_byte(value in any_json()) {
        let frame = format!(r#"{{"type":"SK","key":"k","value": {value} }}"#);
        prop_assert_eq!(draft(&frame).body, &value);
        let plain = message("a", "", "");
        let fields = Fields { body: &value, ..plain.fields() };
        let message = Message::encode(&fields, &mut BytesMut::new());
        let text = delivery(&message, "a", 0);
        let expected = format!("\"value\":{value},\"originInstanceId\"");
        prop_assert!(text.contains(&expected));
    }

    #[test]
    fn what_is_published_is_what_was_written(
        key in "\\PC{1,50}|[\\x00-\\x7f]{1,50}",
        id in "\\PC{1,20}|[\\x00-\\x7f]{1,20}",
    ) {
        let frame = json!({"type":"SK","messageId":id,"key":key,"value":1}).to_string();
        let draft = draft(&frame);
        prop_assert_eq!(draft.key, &*key);
        prop_assert_eq!(draft.id.as_deref(), Some(&*id));
    }

    #[test]
    fn strings_come_back_from_what_is_written(key in any::<String>(), id in ".{0,40}") {
        let plain = message("a,b", "", "x,y");
        let fields = Fields { key: &key, id: &id, ..plain.fields() };
        let message = Message::encode(&fields, &mut BytesMut::new());
        let text = delivery(&message, &id, 1);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(&value["key"], &key);
        prop_assert_eq!(&value["messageId"], &id);
        prop_assert_eq!(&value["sourceInstanceId"], &id);
        let refusal = Refusal { re: Some(id), ..Refusal::new(Code::Internal, &*key) };
        let text = written(|out| write::error(&refusal, 1, out));
        let value: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(&value["message"], &key);
        prop_assert_eq!(value["re"].as_str(), refusal.re.as_deref());
    }
}
