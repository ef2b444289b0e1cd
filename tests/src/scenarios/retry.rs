//! Deliveries that nobody acknowledges (P6, P13).

use std::time::{Duration, Instant};

use crate::harness::{App, Command, Daemon, Message, NodeConfig, PATIENCE, Subscriber, until};

use super::dead_letters;

/// A node that repeats soon and gives up after three hand-overs.
fn impatient(id: &str) -> NodeConfig {
    NodeConfig::new(id)
        .text("retry.ack_timeout", "200ms")
        .text("retry.max_backoff", "1s")
        .number("retry.max_attempts", 3)
}

/// An application that never acknowledges is handed the message again with back-off, marked and
/// under the same number, as often as configured; then it is a dead letter that can be seen with
/// its payload and replayed. A peer that was offline all that time makes none.
pub fn never_acknowledged_becomes_a_dead_letter(binary: &str) {
    let absent = NodeConfig::new("azure");
    let node = Daemon::start(binary, impatient("aws").peer(&absent.address));
    let mut absent = Daemon::start(binary, absent);
    node.await_peer("azure");
    absent.kill();
    let mut stubborn = App::connect(&node, "client=stubborn");
    let mut till = App::connect(&node, "client=till&keys=");
    // Before the first hand-over, which may be read late.
    let start = Instant::now();
    till.publish(&Message::event("m-1", "terminal:9", r#"{"do":"reboot","amount":1.10}"#));
    let attempts = [stubborn.delivery(), stubborn.delivery(), stubborn.delivery()];
    let taken = start.elapsed();
    assert!(attempts.iter().all(|one| one.delivery() == attempts[0].delivery()), "{attempts:?}");
    assert_eq!(attempts[0].redelivery, None);
    assert_eq!(attempts[1].redelivery, Some(1));
    assert_eq!(attempts[2].redelivery, Some(2));
    assert!(taken >= Duration::from_millis(200), "three hand-overs within {taken:?}");

    until("the dead letter", PATIENCE, || dead_letters(&node).len() == 1);
    let letter = &dead_letters(&node)[0];
    assert!(letter.to_string().contains("app:stubborn"), "not of the peer: {letter}");
    let body = node.get("/dead-letters").body;
    assert!(body.contains(r#""do""#) && body.contains("1.10"), "its payload is shown: {body}");
    let of_it = node.metric("slipstream_dead_letters", &["app:stubborn"]);
    assert_eq!(of_it, 1.0);

    // Other messages go on meanwhile.
    let next = till.publish(&Message::event("m-2", "terminal:9", "2"));
    let handed = stubborn.delivery();
    assert_eq!((handed.id(), handed.version.as_ref()), ("m-2", next.version.as_ref()));
    stubborn.ack(&handed);

    // A late peer has both, and never was a dead letter.
    absent.run();
    let watcher = Subscriber::start(&absent, "client=watch");
    watcher.wait_for("azure", 2, PATIENCE);
    assert!(dead_letters(&node).iter().all(|one| !one.to_string().contains("peer:")));
}

/// A dead letter is replayed by number, and is gone when it is acknowledged; another is purged.
pub fn dead_letters_are_replayed_and_purged(binary: &str) {
    let mut node = Daemon::start(binary, impatient("aws"));
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    for id in ["m-1", "m-2"] {
        till.publish(&Message::event(id, "terminal:9", "1"));
        let handed = app.delivery();
        app.nack(&handed, "reject");
    }
    until("two dead letters", PATIENCE, || dead_letters(&node).len() == 2);
    drop((till, app));
    node.kill();
    node.run();
    let letters = dead_letters(&node);
    assert_eq!(letters.len(), 2, "dead letters survive a kill");
    let number = |at: usize| letters[at]["id"].to_string().trim_matches('"').to_owned();

    let purged = node.admin("DELETE", &format!("/dead-letters/{}", number(1)));
    assert!((200..300).contains(&purged.status), "{purged:?}");
    let mut app = App::connect(&node, "client=pi-1");
    assert!(app.replay().is_empty(), "a dead letter does not come by itself");
    let replayed = node.admin("POST", &format!("/dead-letters/{}/replay", number(0)));
    assert!((200..300).contains(&replayed.status), "{replayed:?}");
    let handed = app.delivery();
    assert_eq!(handed.id(), "m-1");
    app.ack(&handed);
    until("no dead letter", PATIENCE, || dead_letters(&node).is_empty());
    assert_eq!(node.admin("DELETE", "/dead-letters/999999").status, 404);
}

/// `NACK` with `retry` brings the message again, `reject` makes a dead letter at once.
pub fn an_application_refuses(binary: &str) {
    let node = Daemon::start(binary, impatient("aws"));
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    till.publish(&Message::event("m-1", "terminal:9", "1"));
    let first = app.delivery();
    app.nack(&first, "retry");
    let second = app.delivery();
    assert_eq!((second.id(), second.redelivery), ("m-1", Some(1)));
    assert_eq!(second.delivery(), first.delivery());
    app.nack(&second, "reject");
    until("the dead letter", PATIENCE, || dead_letters(&node).len() == 1);
    assert!(dead_letters(&node)[0].to_string().contains("as the test says"));
}

/// A refusal and an acknowledgement of all up to a later delivery come in one write, and the node
/// is killed, at once or when it has said what it made of them: what was refused is not settled.
pub fn refused_then_all_acknowledged_then_killed(binary: &str) {
    for waits in [false, true] {
        let mut node = Daemon::start(binary, NodeConfig::new("aws"));
        let mut till = App::connect(&node, "client=till&keys=");
        let mut app = App::connect(&node, "client=pi-1");
        app.replay();
        for id in ["m-1", "m-2", "m-3"] {
            till.publish(&Message::event(id, "terminal:9", "1"));
        }
        let handed = [app.delivery(), app.delivery(), app.delivery()];
        let (refused, last) = (handed[0].delivery(), handed[2].delivery());
        let reject = format!(
            r#"{{"type":"NACK","deliveryId":{refused},"action":"reject","reason":"locked"}}"#
        );
        let all = format!(r#"{{"type":"ACK","deliveryId":{last},"upTo":true}}"#);
        app.send_together([reject.as_str(), &all]);
        if waits {
            until("the dead letter", PATIENCE, || dead_letters(&node).len() == 1);
        }
        node.kill();
        node.run();

        let mut app = App::connect(&node, "client=pi-1");
        let again = app.replay();
        let comes_again = again.iter().any(|frame| frame.id() == "m-1");
        let letters = dead_letters(&node);
        let is_dead = letters.iter().any(|it| it["messageId"] == "m-1");
        assert_ne!(comes_again, is_dead, "m-1 is one of both: {again:?} {letters:?}");
        assert!(is_dead || !waits, "what was told is kept: {again:?}");
        assert!(letters.len() <= 1, "{letters:?}");
        let marked = again.iter().all(|frame| frame.redelivery == Some(1));
        assert!(marked, "{again:?}");
    }
}

/// A message whose consumer dies of it, with or without a reset, is a dead letter after as many
/// hand-overs as configured, and what waits behind it flows.
pub fn a_message_that_kills_its_consumer(binary: &str) {
    let config = NodeConfig::new("aws").number("retry.max_attempts", 3);
    let node = Daemon::start(binary, config.number("limits.delivery_window", 1));
    App::connect(&node, "client=worker").leave();
    let mut till = App::connect(&node, "client=till&keys=");
    for id in ["poison", "good"] {
        till.publish(&Message::event(id, "terminal:9", "1"));
    }
    let dead =
        || node.metric("slipstream_dead_letters", &["app:worker", "reason=\"unacknowledged\""]);
    for attempt in 0..3 {
        node.await_away("worker");
        assert_eq!(dead(), 0.0, "before hand-over {attempt}");
        let mut app = App::connect(&node, "client=worker");
        let handed = app.delivery();
        let expected = ("poison", (attempt > 0).then_some(attempt));
        assert_eq!((handed.id(), handed.redelivery), expected);
        match attempt {
            1 => drop(app),
            _ => app.reset(),
        }
    }
    until("the dead letter", PATIENCE, || dead() == 1.0);
    // A node that is embedded may show no letters.
    let listed = node.admin("GET", "/dead-letters");
    let says = "its connection was lost before anything was settled";
    assert!(listed.status == 404 || listed.body.contains(says), "{}", listed.body);
    let mut app = App::connect(&node, "client=worker");
    assert_eq!(app.delivery().id(), "good");
}

/// With v1 unacknowledged and v2 of the same key acknowledged, v1 is never handed over again: by
/// no retry, no reconnect and no restart.
pub fn an_older_value_never_comes_again(binary: &str) {
    let config = impatient("aws").number("retry.max_attempts", 1_000);
    let mut node = Daemon::start(binary, config);
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    app.replay();
    till.publish(&Message::state("v1", "order:1", "1"));
    assert_eq!(app.delivery().id(), "v1");
    till.publish(&Message::state("v2", "order:1", "2"));
    let newest = loop {
        // While v2 is on its way, v1 may still be repeated.
        let handed = app.delivery();
        if handed.id() == "v2" {
            break handed;
        }
    };
    app.ack(&newest);
    till.publish(&Message::state("other", "order:2", "1"));

    // The other message is repeated three times: v1 would have been, too.
    for _ in 0..4 {
        assert_eq!(app.delivery().id(), "other");
    }
    drop(app);
    let mut app = App::connect(&node, "client=pi-1");
    let resumed = app.replay();
    assert!(resumed.iter().all(|frame| frame.id() == "other"), "{resumed:?}");
    drop((app, till));
    node.kill();
    node.run();
    let mut app = App::connect(&node, "client=pi-1");
    let resumed = app.replay();
    assert!(resumed.iter().all(|frame| frame.id() == "other"), "{resumed:?}");
}

/// An event whose time is over while its application is away is not handed over: it is a dead
/// letter that says so.
pub fn an_event_expires(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    App::connect(&node, "client=pi-1").leave();
    let mut till = App::connect(&node, "client=till&keys=");
    till.publish(&Message::event("short", "terminal:1", "1").lasting_ms(300));
    till.publish(&Message::event("long", "terminal:1", "2").lasting_ms(600_000));
    std::thread::sleep(std::time::Duration::from_millis(400));
    let mut app = App::connect(&node, "client=pi-1");
    assert_eq!(app.delivery().id(), "long");
    until("the dead letter", PATIENCE, || {
        dead_letters(&node).iter().any(|one| one.to_string().contains("expired"))
    });
}

/// An event that nobody was handed before its time was over is a dead letter of the node: listed,
/// counted, purged, and offered to whom it targets by now when it is replayed.
pub fn an_event_for_nobody_is_a_dead_letter_of_the_node(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1&tags=there");
    let mut publish = |id: &str, tag: &str| {
        let event = Message::event(id, "terminal:9", r#"{"do":"reboot"}"#);
        till.publish(&event.lasting_ms(4_000).tagged(&[tag]));
    };
    publish("c-3", "there");
    let handed = app.delivery();
    app.ack(&handed);
    assert_eq!(handed.id(), "c-3");
    // Their time ends after that of the one that was handed over.
    publish("c-1", "nobody");
    publish("c-2", "nobody");
    until("two dead letters", PATIENCE, || dead_letters(&node).len() == 2);
    drop((till, app));
    node.kill();
    node.run();
    let of_it = node.metric("slipstream_dead_letters", &["session=\"node\"", "expired"]);
    assert_eq!(of_it, 2.0);

    let admin = node.admin_url();
    let run = |args: &[&str]| {
        Command::new(binary, &[&["dead-letters"], args, &["--admin", &admin]].concat()).run().ok()
    };
    let listed = run(&["list"]);
    let is_named = |id: &str| {
        let lines = listed.lines().filter(|line| line.contains(id));
        lines.filter(|line| line.contains("node") && line.contains("expired")).count() == 1
    };
    assert!(is_named("c-1") && is_named("c-2") && !listed.contains("c-3"), "{listed}");
    let number = |at: usize| dead_letters(&node)[at]["id"].to_string().trim_matches('"').to_owned();
    run(&["purge", &number(1)]);
    let mut app = App::connect(&node, "client=pi-2&tags=nobody&replay=new");
    app.replay();
    run(&["replay", &number(0)]);
    let handed = app.delivery();
    assert_eq!((handed.id(), handed.redelivery), ("c-1", None));
    app.ack(&handed);
    assert!(dead_letters(&node).is_empty());
}
