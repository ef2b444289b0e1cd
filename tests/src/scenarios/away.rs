//! Applications that go away and come back (P7, P8).

use crate::harness::{
    App, Daemon, LONG, Message, NodeConfig, Publisher, Subscriber, each_exactly_once, until,
};

use super::filler;

const MIB: u64 = 1 << 20;

/// A named application is away for 100,000 messages of different keys. It gets each once when it
/// returns, without anything new being published, and the node reads them from its store as the
/// window allows: its memory stays where it was.
pub fn a_hundred_thousand_messages(binary: &str) {
    const MISSED: usize = 100_000;
    const VALUE: usize = 600;
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    App::connect(&node, "client=away").leave();
    let messages = (0..MISSED).map(|number| {
        Message::state(format!("m-{number}"), format!("order:{number}"), filler(VALUE))
    });
    let published = Publisher::publish_all(&node, "till", messages);
    assert_eq!(published.receipts.len(), MISSED);
    let before = node.resident_bytes();

    let returned = Subscriber::join(&node, "client=away");
    let mut peak = before;
    until("everything that was missed", LONG, || {
        peak = peak.max(node.resident_bytes());
        returned.distinct() >= MISSED
    });

    each_exactly_once("away", &returned.stop(), published.ids());
    if let (Some(before), Some(peak)) = (before, peak) {
        let backlog = (MISSED * VALUE) as u64;
        let grown = peak - before;
        assert!(grown < backlog / 3, "the node grew by {grown} bytes for {backlog}");
        assert!(peak < 160 * MIB, "the node takes {peak} bytes");
    }
}

/// The session is resumed where it was: what was acknowledged does not come again, what was not
/// comes marked, and what was published meanwhile comes in the order of the log.
pub fn a_session_is_resumed(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    assert_eq!(app.welcome.client.as_deref(), Some("pi-1"));
    assert_eq!(app.welcome.resumed, Some(false));
    assert_eq!(app.welcome.instance_id.as_deref(), Some("aws"));
    app.replay();
    for number in 1..=3 {
        till.publish(&Message::event(format!("m-{number}"), "terminal:1", number.to_string()));
    }
    let [first, second, third] = [app.delivery(), app.delivery(), app.delivery()];
    assert_eq!([first.id(), second.id(), third.id()], ["m-1", "m-2", "m-3"]);
    assert!(first.delivery() < second.delivery() && second.delivery() < third.delivery());
    app.ack(&second);
    settles(&node, "m-2");
    app.leave();
    till.publish(&Message::event("m-4", "terminal:1", "4"));
    drop(till);
    node.kill();
    node.run();

    let mut app = App::connect(&node, "client=pi-1");
    assert_eq!(app.welcome.resumed, Some(true));
    let handed = app.replay();
    let ids: Vec<_> = handed.iter().map(|frame| frame.id()).collect();
    assert_eq!(ids, ["m-1", "m-3", "m-4"]);
    assert!(handed[..2].iter().all(|frame| frame.redelivery > Some(0)), "{handed:?}");
    assert_eq!(handed[0].delivery(), first.delivery(), "a repetition keeps its number");
}

/// Waits until the node has settled a message for the application `pi-1`.
fn settles(node: &Daemon, id: &str) {
    until(&format!("{id} to be settled"), LONG, || {
        let found = node.get(&format!("/where/{id}")).json();
        let sessions = found[0]["sessions"].as_array().cloned().unwrap_or_default();
        sessions.iter().any(|one| one["session"] == "app:pi-1" && one["fate"] == "settled")
    });
}

/// A session that the operator ends begins anew.
pub fn a_forgotten_session_begins_anew(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    App::connect(&node, "client=pi-1").leave();
    node.await_away("pi-1");
    assert!(node.get("/sessions").body.contains("app:pi-1"));
    let ended = node.admin("DELETE", "/sessions/app:pi-1");
    assert!((200..300).contains(&ended.status), "{ended:?}");
    assert!(!node.get("/sessions").body.contains("app:pi-1"));
    assert_eq!(App::connect(&node, "client=pi-1").welcome.resumed, Some(false));
    assert_eq!(node.admin("DELETE", "/sessions/app:nobody").status, 404);
}
