//! Bad frames: each gets one error with its code and number, and the connection lives on (P12).

use crate::harness::{App, Daemon, Message, NodeConfig, PATIENCE, Said, text};

/// A frame and the code that it is refused with.
type Bad = (String, &'static str);

const MAX_VALUE: usize = 4096;

fn node(binary: &str) -> Daemon {
    let config = NodeConfig::new("aws")
        .text("limits.max_message_bytes", "4KiB")
        .number("limits.max_key_bytes", 64);
    Daemon::start(binary, config)
}

/// Sends every bad frame, each followed by a good one.
pub fn every_bad_frame_gets_one_error(binary: &str) {
    let node = node(binary);
    let mut app = App::connect(&node, "client=pi-1&keys=none");
    let all = [broken(), envelopes(), fields(), kinds(), sizes(), acknowledgements()].concat();
    let mut sent = 0;
    for (at, (frame, code)) in all.iter().enumerate() {
        app.send(frame.clone());
        sent += 1;
        let answer = app.answer();
        let shown = &frame[..frame.len().min(200)];
        assert_eq!(answer.kind, "ERR", "{shown}: {answer:?}");
        assert_eq!(answer.code.as_deref(), Some(*code), "{shown}: {answer:?}");
        assert_eq!(answer.frame, Some(sent), "{shown}: {answer:?}");
        assert_eq!(answer.retryable, Some(false), "{shown}: {answer:?}");
        assert!(answer.message.is_some_and(|message| !message.is_empty()), "{shown}");
        if frame.contains(r#""messageId":"re-1""#) {
            assert_eq!(answer.re.as_deref(), Some("re-1"), "{shown}");
        }
        app.publish(&Message::state(format!("good-{at}"), "order:1", at.to_string()));
        sent += 1;
    }
    assert!(node.metric("slipstream_rejected_total", &[]) >= all.len() as f64);
}

/// Not JSON, or not an object.
fn broken() -> Vec<Bad> {
    let deep = "[".repeat(3_000);
    let invalid = [
        "",
        "{",
        "hello",
        r#"{"type":"SK","key":"k","value":1}x"#,
        r#"{"type":"SK","key":"k","value":1}{"type":"SK","key":"k","value":1}"#,
        r#"{"type":"SK","key":"k","value":01}"#,
        r#"{"type":"SK","key":"k","value":NaN}"#,
        r#"{"type":"SK","key":"k","value":}"#,
        r#"{"type":"SK","key":"k","value":1,}"#,
        r#"{"type":"SK","key":"k","value":{"a":1 "b":2}}"#,
        r#"{'type':'SK'}"#,
    ];
    let objects = ["[]", "17", "null", "true", r#""SK""#, r#"[{"type":"SK"}]"#];
    let invalid = invalid.map(|frame| (frame.to_owned(), "INVALID_JSON"));
    let objects = objects.map(|frame| (frame.to_owned(), "NOT_AN_OBJECT"));
    let unclosed = format!(r#"{{"type":"SK","key":"k","value":{deep}}}"#);
    [invalid.to_vec(), objects.to_vec(), vec![(unclosed, "INVALID_JSON")]].concat()
}

/// A field twice, or text that is none where ids are read.
fn envelopes() -> Vec<Bad> {
    [
        r#"{"type":"SK","key":"k","key":"k","value":1}"#,
        r#"{"type":"SK","type":"SK","key":"k","value":1}"#,
        r#"{"type":"SK","key":"k","value":1,"value":1}"#,
        r#"{"type":"SK","key":"\ud800","value":1}"#,
        r#"{"type":"SK","messageId":"\udc00","key":"k","value":1}"#,
    ]
    .map(|frame| (frame.to_owned(), "INVALID_JSON"))
    .to_vec()
}

/// Fields that are not there, or cannot be what they are.
fn fields() -> Vec<Bad> {
    let missing = [
        r#"{"messageId":"re-1","key":"k","value":1}"#,
        r#"{"type":"SK","messageId":"re-1","value":1}"#,
        r#"{"type":"SK","messageId":"re-1","key":"k"}"#,
        r#"{"type":"SA","messageId":"re-1","key":"k"}"#,
        r#"{"type":"CMD","messageId":"re-1","value":1}"#,
        r#"{"type":"SW","messageId":"re-1","key":"k"}"#,
        r#"{"type":"DK","messageId":"re-1"}"#,
        r#"{"type":"GK","messageId":"re-1"}"#,
    ];
    let long_id =
        format!(r#"{{"type":"SK","messageId":"{}","key":"k","value":1}}"#, "i".repeat(129));
    let tags: Vec<_> = (0..33).map(|tag| text(&format!("t{tag}"))).collect();
    let many_tags = format!(
        r#"{{"type":"SK","messageId":"re-1","key":"k","value":1,"targetedTags":[{}]}}"#,
        tags.join(",")
    );
    let month = 30_u64 * 24 * 60 * 60 * 1000 + 1;
    let long_life =
        format!(r#"{{"type":"CMD","messageId":"re-1","key":"k","value":1,"ttlMs":{month}}}"#);
    let invalid = [
        r#"{"type":"SK","messageId":"re-1","key":17,"value":1}"#,
        r#"{"type":"SK","messageId":"re-1","key":"","value":1}"#,
        r#"{"type":"SK","messageId":17,"key":"k","value":1}"#,
        r#"{"type":"SK","messageId":"","key":"k","value":1}"#,
        r#"{"type":"SA","messageId":"re-1","key":"k","value":{"a":1}}"#,
        r#"{"type":"SA","messageId":"re-1","key":"k","value":"[]"}"#,
        r#"{"type":"SW","messageId":"re-1","key":"k","value":["a"]}"#,
        r#"{"type":"SW","messageId":"re-1","key":"k","value":{"a":-0.1}}"#,
        r#"{"type":"SW","messageId":"re-1","key":"k","value":{"a":1e999}}"#,
        r#"{"type":"SW","messageId":"re-1","key":"k","value":{"a":"1"}}"#,
        r#"{"type":"SW","messageId":"re-1","key":"k","value":{"a":1,"b":2,"\u0061":1}}"#,
        r#"{"type":"DK","messageId":"re-1","key":"k","ttlMs":1000}"#,
        r#"{"type":"GK","messageId":"re-1","key":""}"#,
        r#"{"type":"GA","messageId":"re-1","key":["k"]}"#,
        r#"{"type":"SK","messageId":"re-1","key":"k","value":1,"targetedTags":"azure"}"#,
        r#"{"type":"SK","messageId":"re-1","key":"k","value":1,"targetedTags":[1]}"#,
        r#"{"type":"SK","messageId":"re-1","key":"k","value":1,"targetedTags":[""]}"#,
        r#"{"type":"SK","messageId":"re-1","key":"k","value":1,"targetedTags":["a b"]}"#,
        r#"{"type":"SK","messageId":"re-1","key":"k","value":1,"ttlMs":1000}"#,
        r#"{"type":"CMD","messageId":"re-1","key":"k","value":1,"ttlMs":0}"#,
        r#"{"type":"CMD","messageId":"re-1","key":"k","value":1,"ttlMs":-1}"#,
        r#"{"type":"CMD","messageId":"re-1","key":"k","value":1,"ttlMs":1.5}"#,
        r#"{"type":"CMD","messageId":"re-1","key":"k","value":1,"ttlMs":"1000"}"#,
        r#"{"type":"CMD","messageId":"re-1","key":"k","value":1,"ttlMs":1e400}"#,
        r#"{"type":"SK","messageId":"re-1","key":null,"value":1}"#,
        r#"{"type":"SK","messageId":"re-1","key":"k","value":1,"targetTags":["azure"]}"#,
        r#"{"type":"CMD","messageId":"re-1","key":"k","value":1,"ttl":1000}"#,
        r#"{"type":"GK","messageId":"re-1","key":"k","keys":"k"}"#,
        &long_id,
        &long_life,
        &many_tags,
    ];
    let missing = missing.map(|frame| (frame.to_owned(), "MISSING_FIELD"));
    [missing.to_vec(), invalid.map(|frame| (frame.to_owned(), "INVALID_FIELD")).to_vec()].concat()
}

/// Types that do not exist.
fn kinds() -> Vec<Bad> {
    [
        r#"{"type":"BANANA","messageId":"re-1","key":"k","value":1}"#,
        r#"{"type":"sk","messageId":"re-1","key":"k","value":1}"#,
        r#"{"type":"","messageId":"re-1","key":"k","value":1}"#,
        r#"{"type":"GD","messageId":"re-1","key":"k"}"#,
        r#"{"type":"RESULT","messageId":"re-1","key":"k"}"#,
    ]
    .map(|frame| (frame.to_owned(), "UNKNOWN_TYPE"))
    .to_vec()
}

/// Too large, too long, too deep.
fn sizes() -> Vec<Bad> {
    let frame = |key: &str, value: &str| {
        format!(r#"{{"type":"SK","messageId":"re-1","key":"{key}","value":{value}}}"#)
    };
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let long = format!("\"{}\"", "x".repeat(MAX_VALUE - 1));
    vec![
        (frame("k", &long), "TOO_LARGE"),
        (frame(&"k".repeat(65), "1"), "TOO_LARGE"),
        (frame("k", &nested(65)), "TOO_DEEP"),
        (frame("k", &nested(1_000)), "TOO_DEEP"),
    ]
}

/// Acknowledgements of nothing.
fn acknowledgements() -> Vec<Bad> {
    [
        (r#"{"type":"ACK"}"#, "MISSING_FIELD"),
        (r#"{"type":"ACK","deliveryId":"1"}"#, "INVALID_FIELD"),
        (r#"{"type":"ACK","deliveryId":-1}"#, "INVALID_FIELD"),
        (r#"{"type":"ACK","deliveryId":1.5}"#, "INVALID_FIELD"),
        (r#"{"type":"ACK","messageId":17}"#, "INVALID_FIELD"),
        (r#"{"type":"ACK","deliveryId":1,"upto":true}"#, "INVALID_FIELD"),
        (r#"{"type":"ACK","deliveryId":123456}"#, "UNKNOWN_DELIVERY"),
        (r#"{"type":"ACK","messageId":"re-1"}"#, "UNKNOWN_DELIVERY"),
        (r#"{"type":"NACK","action":"retry"}"#, "MISSING_FIELD"),
        (r#"{"type":"NACK","deliveryId":123456}"#, "MISSING_FIELD"),
        (r#"{"type":"NACK","deliveryId":123456,"action":"explode"}"#, "INVALID_FIELD"),
        (r#"{"type":"NACK","deliveryId":123456,"action":"retry"}"#, "UNKNOWN_DELIVERY"),
    ]
    .map(|(frame, code)| (frame.to_owned(), code))
    .to_vec()
}

/// What is just within the limits is accepted, and a value may hold what a key may not.
pub fn what_is_within_the_limits_is_accepted(binary: &str) {
    let node = node(binary);
    let mut app = App::connect(&node, "keys=");
    assert_eq!(app.welcome.max_message_bytes, Some(MAX_VALUE as u64));
    let longest = format!("\"{}\"", "x".repeat(MAX_VALUE - 2));
    let deepest = "[".repeat(64) + &"]".repeat(64);
    app.publish(&Message::state("long", "order:1", longest));
    app.publish(&Message::state("deep", "order:1", deepest));
    app.publish(&Message::state("surrogate", "order:1", r#""\ud800""#));
    app.publish(&Message::state("twice", "order:1", r#"{"a":1,"a":2}"#));
    app.publish(&Message::state("k", "k".repeat(64), "null"));
    app.publish(&Message::state("i".repeat(128), "é\u{1f980}\n\"\\", "false"));
    app.publish(&Message::event("ttl", "k", "1").lasting_ms(30 * 24 * 60 * 60 * 1000));
    app.send(
        r#"{"type":"CMD","messageId":"float","key":"k","value":null,"ttlMs":6e4,
           "targetedTags":null,"upTo":null,"x-trace":"a","originInstanceId":"b"}"#,
    );
    assert_eq!(app.answer().kind, "ACK");
}

/// A binary frame on a JSON connection is refused and counted like any other frame.
pub fn a_binary_frame_is_refused(binary: &str) {
    let node = node(binary);
    let mut app = App::connect(&node, "keys=");
    app.publish(&Message::state("m-1", "order:1", "1"));
    app.send_binary(b"{}");
    let error = app.answer();
    assert_eq!(error.code.as_deref(), Some("BINARY_FRAME"), "{error:?}");
    assert_eq!((error.frame, error.re), (Some(2), None));
    app.publish(&Message::state("m-2", "order:1", "1"));
}

/// A hundred client errors in a row spend the budget; anything good in between restores it.
pub fn a_hundred_errors_in_a_row_are_enough(binary: &str) {
    let node = node(binary);
    let mut app = App::connect(&node, "keys=");
    for round in 0..3 {
        (0..99).for_each(|_| drop(app.refused("{")));
        app.publish(&Message::state(format!("m-{round}"), "order:1", "1"));
    }
    (0..99).for_each(|_| drop(app.refused("{")));
    // Whether the hundredth still is an answer or already the end is left to the node.
    app.try_send("{");
    let mut said = app.next(PATIENCE);
    while matches!(said, Said::Frame(_)) {
        said = app.next(PATIENCE);
    }
    assert!(matches!(said, Said::Closed(4429, _)), "{said:?}");
}

/// A frame above four times the largest value ends the connection.
pub fn a_frame_far_too_large_ends_the_connection(binary: &str) {
    let node = node(binary);
    let mut app = App::connect(&node, "keys=");
    let value = "x".repeat(4 * MAX_VALUE);
    app.try_send(&format!(r#"{{"type":"SK","key":"k","value":"{value}"}}"#));
    assert_eq!(app.closed(PATIENCE).0, 4413);
}
