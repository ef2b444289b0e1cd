//! What applications are handed: tags, keys, replay, and how they acknowledge (P3, P5, P12).

use crate::harness::{App, Daemon, Message, NodeConfig};

/// `keys` are prefixes, decoded as forms are before they are split; `key` is one, whatever it
/// holds, and `keys=` alone is none.
pub fn keys_are_prefixes(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut some = App::connect(&node, "keys=order:,x%2C%2B1,+2&key=a%2Cb");
    let mut none = App::connect(&node, "keys=");
    let keys = ["terminal:1", "order:1", "orde", "a,b", "a", "+1", "+2", " 2"];
    for (at, key) in keys.into_iter().enumerate() {
        none.publish(&Message::state(format!("m-{at}"), key, "1"));
    }
    let handed = [some.delivery(), some.delivery(), some.delivery(), some.delivery()];
    assert_eq!(handed.each_ref().map(|frame| frame.key()), ["order:1", "a,b", "+1", " 2"]);
    some.publish(&Message::state("last", "order:2", "1"));
    // Whoever wants nothing gets only answers.
    none.send("{");
    assert_eq!(none.frame().kind, "SYNCED");
    assert_eq!(none.frame().kind, "ERR");
}

/// A new named session starts with the current value of every key and every unexpired event; one
/// that asked for `new`, and an unnamed one, with what comes.
pub fn replay_is_current_state(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").tags(&["aws"]));
    let mut till = App::connect(&node, "client=till");
    till.publish(&Message::state("v1", "order:1", "1"));
    till.publish(&Message::state("v2", "order:1", "2"));
    till.publish(&Message::event("e1", "order:1", "3"));
    till.publish(&Message::state("elsewhere", "order:2", "4").tagged(&["gcp"]));
    till.publish(&Message::array("a1", "pending", "[1.10, 2]").tagged(&["aws"]));

    let ids = |app: &mut App| -> Vec<String> {
        app.replay().iter().map(|frame| frame.id().to_owned()).collect()
    };
    assert_eq!(ids(&mut App::connect(&node, "client=all")), ["v2", "e1", "a1"]);
    assert_eq!(ids(&mut App::connect(&node, "replay=all")), ["v2", "e1", "a1"]);
    assert_eq!(ids(&mut App::connect(&node, "client=both&tags=aws,gcp")).len(), 4);
    for query in ["client=fresh&replay=new", "", "ack=manual"] {
        let mut fresh = App::connect(&node, query);
        assert!(fresh.replay().is_empty(), "?{query} starts with what comes");
        let next = format!("next-{query}");
        till.publish(&Message::state(&next, "order:3", "5"));
        assert_eq!(fresh.delivery().id(), next);
    }
}

/// Applications on one node hear each other, nobody hears himself, and a replay contains one's own.
pub fn nobody_hears_himself_but_in_a_replay(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut left = App::connect(&node, "client=left");
    let mut right = App::connect(&node, "client=right");
    left.publish(&Message::state("l", "order:1", "1"));
    right.publish(&Message::state("r", "order:2", "2"));
    assert_eq!(left.delivery().id(), "r");
    assert_eq!(right.delivery().id(), "l");
    let mut late = App::connect(&node, "client=late");
    assert_eq!(late.replay().len(), 2);
}

/// Every way to acknowledge: by number, up to a number, by id; twice is no error; what was never
/// handed out is.
pub fn every_way_to_acknowledge(binary: &str) {
    let config = NodeConfig::new("aws").number("limits.delivery_window", 4);
    let node = Daemon::start(binary, config);
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    assert_eq!(app.welcome.window, Some(4));
    for number in 1..=12 {
        till.publish(&Message::event(format!("m-{number}"), "terminal:1", number.to_string()));
    }
    let first: Vec<_> = (0..4).map(|_| app.delivery()).collect();
    assert_eq!(first[3].id(), "m-4");
    app.ack(&first[0]);
    assert_eq!(app.delivery().id(), "m-5", "the window moves by what was acknowledged");
    let up_to = first[3].delivery();
    app.send(format!(r#"{{"type":"ACK","deliveryId":{up_to},"upTo":true}}"#));
    assert_eq!(
        [app.delivery(), app.delivery(), app.delivery()].map(|one| one.id().to_owned()),
        ["m-6", "m-7", "m-8"]
    );
    app.send(r#"{"type":"ACK","messageId":"m-6"}"#);
    assert_eq!(app.delivery().id(), "m-9");

    app.ack(&first[0]);
    app.send(r#"{"type":"ACK","messageId":"m-6"}"#);
    let error = app.refused(r#"{"type":"ACK","deliveryId":999999}"#);
    assert_eq!(error.code.as_deref(), Some("UNKNOWN_DELIVERY"));
    assert_eq!(error.frame, Some(6), "acknowledging twice was no error");
    let error = app.refused(r#"{"type":"ACK","messageId":"never-seen"}"#);
    assert_eq!(error.code.as_deref(), Some("UNKNOWN_DELIVERY"));
    let error = app.refused(r#"{"type":"NACK","deliveryId":999999,"action":"retry"}"#);
    assert_eq!(error.code.as_deref(), Some("UNKNOWN_DELIVERY"));
}

/// An `auto` session is never asked for acknowledgements, and does not mind getting them.
pub fn an_auto_session_acknowledges_nothing(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").number("limits.delivery_window", 2));
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1&ack=auto");
    for number in 1..=10 {
        till.publish(&Message::event(format!("m-{number}"), "terminal:1", number.to_string()));
    }
    let handed: Vec<_> = (0..10).map(|_| app.delivery()).collect();
    assert_eq!(handed[9].id(), "m-10");
    app.ack(&handed[0]);
    let error = app.refused("{");
    assert_eq!(error.frame, Some(2), "the ACK before it was no error");
}
