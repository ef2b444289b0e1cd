//! What publishers may rely on: receipts, idempotence, limits (P1, P8, P9, P12).

use crate::harness::{App, Daemon, Message, NodeConfig};

/// The same id with the same content is the same message, also after `kill -9`; with other
/// content it is refused.
pub fn publishing_again_is_safe(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut watcher = App::connect(&node, "client=watch");
    watcher.replay();
    let message = Message::state("m-1", "order:1", r#"{"total":1.10}"#).tagged(&["b", "a", "b"]);
    let as_a_set = Message::state("m-1", "order:1", r#"{"total":1.10}"#).tagged(&["a", "b"]);
    let mut till = App::connect(&node, "client=till&keys=");
    let receipt = till.publish(&message);
    assert_eq!(receipt.duplicate, None);
    assert_eq!(receipt.level.as_deref(), Some("durable"));
    assert_eq!(receipt.origin_instance_id.as_deref(), Some("aws"));
    assert_eq!(receipt.message_path, ["aws"]);
    let again = till.publish(&as_a_set);
    assert_eq!((again.duplicate, &again.version), (Some(true), &receipt.version));
    drop((till, watcher));
    node.kill();
    node.run();

    let mut till = App::connect(&node, "client=till&keys=");
    let again = till.publish(&message);
    assert_eq!((again.duplicate, &again.version), (Some(true), &receipt.version));
    for other in [
        Message::state("m-1", "order:1", r#"{"total":1.1}"#).tagged(&["a", "b"]),
        Message::state("m-1", "order:2", r#"{"total":1.10}"#).tagged(&["a", "b"]),
        Message::state("m-1", "order:1", r#"{"total":1.10}"#).tagged(&["a"]),
        Message::event("m-1", "order:1", r#"{"total":1.10}"#).tagged(&["a", "b"]),
        Message::event("m-1", "order:1", r#"{"total":1.10}"#).tagged(&["a", "b"]).lasting_ms(9),
    ] {
        let error = till.refused(&other.json());
        assert_eq!(error.code.as_deref(), Some("ID_REUSED"), "{error:?}");
        assert_eq!((error.re.as_deref(), error.retryable), (Some("m-1"), Some(false)));
    }
    // Nothing of all that was published.
    till.publish(&Message::state("m-2", "order:2", "2").tagged(&["a", "b"]));
    let mut auditor = App::connect(&node, "client=auditor&tags=a");
    let ids: Vec<_> = auditor.replay().iter().map(|frame| frame.id().to_owned()).collect();
    assert_eq!(ids, ["m-1", "m-2"]);
}

/// The ids of an unnamed application are its own, and end with its connection.
pub fn ids_belong_to_their_session(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut first = App::connect(&node, "");
    let mut second = App::connect(&node, "keys=");
    let receipt = first.publish(&Message::event("1", "terminal:1", "1"));
    let other = second.publish(&Message::event("1", "terminal:1", "2"));
    assert_eq!(other.duplicate, None, "another session counts for itself");
    assert!(receipt.version() < other.version());
    drop(second);
    let mut third = App::connect(&node, "keys=");
    assert_eq!(third.publish(&Message::event("1", "terminal:1", "2")).duplicate, None);
    let handed = [first.delivery(), first.delivery()];
    assert!(handed.iter().all(|frame| frame.id() == "1" && frame.value_text() == "2"));
}

/// A message without an id is given one, and the receipt names it.
pub fn a_message_without_an_id_is_given_one(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut watcher = App::connect(&node, "");
    let mut till = App::connect(&node, "keys=");
    till.send(r#"{"type":"SK","key":"order:1","value":1}"#);
    till.send(r#"{"type":"SK","key":"order:1","value":1}"#);
    let (first, second) = (till.answer(), till.answer());
    assert_ne!(first.id(), second.id());
    assert_eq!(watcher.delivery().id(), first.id());
    assert_eq!(watcher.delivery().id(), second.id());
}

/// What only a node may say is accepted and ignored; an application's own fields are, too.
pub fn a_client_cannot_forge_what_a_node_stamps(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").text("node.cluster_group", "here"));
    let mut watcher = App::connect(&node, "");
    let mut till = App::connect(&node, "keys=");
    till.send(
        r#"{"type":"SK","messageId":"m-1","key":"order:1","value":{"a":[]},"x-colour":"red",
            "originInstanceId":"elsewhere","sourceInstanceId":"elsewhere","version":"zzzz",
            "messagePath":["elsewhere","aws"],"clusterGroupId":"there"}"#,
    );
    assert_eq!(till.answer().kind, "ACK");
    let handed = watcher.delivery();
    assert_eq!(handed.origin_instance_id.as_deref(), Some("aws"));
    assert_eq!(handed.message_path, ["aws"]);
    assert_eq!(handed.cluster_group_id.as_deref(), Some("here"));
    assert_ne!(handed.version(), "zzzz");
}

/// Above the publish rate an application is refused for now, and told when to come again.
pub fn too_fast_is_refused_for_now(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").number("limits.publish_rate", 5));
    let mut till = App::connect(&node, "client=till&keys=");
    let frames: Vec<_> = (0..60)
        .map(|number| Message::event(format!("m-{number}"), "terminal:1", "1").json())
        .collect();
    till.send_together(frames.iter().map(String::as_str));
    let answers: Vec<_> = frames.iter().map(|_| till.answer()).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.kind == "ERR").collect();
    assert!(answers.len() > refused.len(), "some pass");
    assert!(!refused.is_empty(), "sixty at once are more than five a second");
    for error in refused {
        assert_eq!(error.code.as_deref(), Some("RATE_LIMITED"));
        assert_eq!(error.retryable, Some(true));
    }
}
