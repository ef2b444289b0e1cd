//! Frames of a node, as other serialisers than ours would write them, too.

use alloc::string::String;

use super::*;

fn heard(frame: &str) -> Option<Received> {
    received(&String::from(frame).into()).expect(frame)
}

fn delivery(frame: &str) -> DeliveredMessage {
    match heard(frame) {
        Some(Received::Deliveries(mut deliveries)) if deliveries.len() == 1 => deliveries.remove(0),
        other => panic!("{frame}: {other:?}"),
    }
}

#[test]
fn a_whole_number_is_one_however_a_node_writes_it() {
    let delivery = delivery(
        r#"{"type":"SK","key":"k","value":1.0,"deliveryId":17.0,"redelivery":2e0,
           "conflated":600e-2}"#,
    );
    assert_eq!(delivery.id, Position::new(17));
    assert_eq!((delivery.redelivery, delivery.conflated, delivery.value()), (2, 6, "1.0"));
    let greeting = r#"{"type":"WELCOME","window":2.56e2,"maxMessageBytes":1048576.0}"#;
    let welcome = welcome(&greeting.as_bytes().into()).expect("a greeting");
    assert_eq!((welcome.window, welcome.max_message_bytes), (256, 1 << 20));
    let error = r#"{"type":"ERR","frame":17e0,"code":"CLOCK","retryAfterMs":1500.0}"#;
    let Some(Received::Outcomes(outcomes)) = heard(error) else { panic!("no outcome") };
    let [Outcome::Refused(refused)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((refused.frame, refused.retry_after), (17, Some(Duration::from_millis(1500))));
}

#[test]
fn what_counts_nothing_is_no_number() {
    for number in ["1.5", "-1", "\"1\"", "true", "1e400", "9007199254740993.0", "[1]"] {
        for field in ["deliveryId", "redelivery", "conflated", "frame", "window"] {
            let frame = alloc::format!(r#"{{"type":"SK","key":"k","value":1,"{field}":{number}}}"#);
            assert!(received(&frame.into()).is_err(), "{field}: {number}");
        }
    }
    let beyond = r#"{"type":"SK","key":"k","value":1,"deliveryId":1,"redelivery":4294967296}"#;
    assert!(received(&beyond.as_bytes().into()).is_err());
}

#[test]
fn null_is_a_value_and_nothing_in_any_other_field() {
    let nulls = delivery(
        r#"{"type":"SK","messageId":null,"key":"k","value":null,"originInstanceId":null,
           "messagePath":null,"targetedTags":null,"clusterGroupId":null,"version":null,
           "deliveryId":1,"redelivery":null,"conflated":null,"duplicate":null,"level":null}"#,
    );
    assert_eq!((nulls.value(), nulls.message_id(), nulls.tags()), ("null", "", ""));
    let found = r#"{"type":"RESULT","messageId":"r-1","key":"k","found":true,"kind":"SK",
        "value":null,"version":"v"}"#;
    let Some(Received::Results(results)) = heard(found) else { panic!("no result") };
    assert_eq!(results[0].value.as_deref(), Some("null"));
    let deleted = r#"{"type":"RESULT","messageId":"r-1","key":"k","found":false,"kind":"DK"}"#;
    let Some(Received::Results(results)) = heard(deleted) else { panic!("no result") };
    assert_eq!(results[0].value, None);
}
