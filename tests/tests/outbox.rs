//! Outboxes above their bound: conflated, never dropped (P8).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use slipstream_core::admin::{AdminRequest, SessionStatus};
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{DeadLetterId, LinkId, NodeId};
use slipstream_core::io::{CloseCode, Protocol};
use slipstream_core::wire::{Connect, Wire};
use slipstream_tests::world::{World, carry, join};

/// A node that keeps no history, and conflates what is above 10,000 bytes.
fn config(id: &str) -> Config {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.store.session_max_bytes = 10_000;
    config.store.history_max_bytes = 0;
    config
}

fn session(world: &mut World, name: &str) -> SessionStatus {
    let sessions = world.status().sessions;
    sessions.into_iter().find(|session| session.name == name).expect("the session is there")
}

fn deliveries(frames: &[Value]) -> Vec<&Value> {
    frames.iter().filter(|frame| frame["deliveryId"].is_u64()).collect()
}

fn conflated(frames: &[Value]) -> u64 {
    frames.iter().filter_map(|frame| frame["conflated"].as_u64()).sum()
}

fn event(world: &mut World, till: LinkId, id: &str) {
    let frame = format!(r#"{{"type":"CMD","messageId":"{id}","key":"terminal:1","value":1}}"#);
    world.text(till, &frame);
}

/// `updates` of `keys` in turn, an event behind each hundred.
fn publish(world: &mut World, till: LinkId, updates: u64, keys: u64) {
    for number in 0..updates {
        let key = format!("order:{}", number % keys);
        world.publish(till, &format!("m-{number}"), &key, &number.to_string());
        if number % 100 == 99 {
            event(world, till, &format!("e-{number}"));
        }
        world.settle();
    }
    world.said(till);
}

/// The last value of each key, and how many events there were. No key goes back.
fn applied(frames: &[Value]) -> (BTreeMap<String, u64>, usize) {
    let (mut values, mut events) = (BTreeMap::new(), 0);
    for delivery in deliveries(frames) {
        if delivery["type"] == "CMD" {
            events += 1;
            continue;
        }
        let key = delivery["key"].as_str().expect("a key").to_owned();
        let value = delivery["value"].as_u64().expect("a number");
        let before = values.insert(key.clone(), value);
        assert!(before.is_none_or(|before| before < value), "{key}: {value} after {before:?}");
    }
    (values, events)
}

// keeps: outbox-bound
#[test]
fn a_full_outbox_keeps_the_newest_values_and_all_events() {
    for crashes in [false, true] {
        let mut world = World::with(config("a"));
        let app = world.connect("client=pi-1");
        world.settle();
        world.lose(app);
        let till = world.connect("client=till&keys=");
        world.settle();
        publish(&mut world, till, 2000, 10);
        let rows = world.store.messages().count();
        assert!(rows < 10 + 20 + 15, "{rows} rows are left of 2020");
        let away = session(&mut world, "app:pi-1");
        assert!(away.conflating && away.behind <= rows as u64, "{away:?}");
        let conflates = |event: &&Event| matches!(event, Event::Conflating { .. });
        assert_eq!(world.events.iter().filter(conflates).count(), 1, "it is said once");
        if crashes {
            world.crash();
            assert!(session(&mut world, "app:pi-1").conflating);
        }

        let app = world.connect("client=pi-1");
        world.settle();
        let said = world.said(app);
        let (values, events) = applied(&said);
        let newest: Vec<u64> = values.into_values().collect();
        assert_eq!(newest, (1990..2000).collect::<Vec<_>>());
        assert_eq!(events, 20);
        let count = deliveries(&said).len() as u64;
        assert_eq!(conflated(&said) + count, 2020, "every value is accounted for");
        assert!(deliveries(&said)[0]["conflated"].is_u64(), "the first one tells");
        let back = session(&mut world, "app:pi-1");
        assert_eq!((back.conflating, back.conflated_total), (false, 2020 - count));
        let counters = world.status().counters;
        assert_eq!(counters.conflated["app:pi-1"], 2020 - count);
    }
}

#[test]
fn an_outbox_within_its_bound_holds_every_value() {
    let mut world = World::with(config("a"));
    let app = world.connect("client=pi-1");
    world.settle();
    world.lose(app);
    let till = world.connect("keys=");
    world.settle();
    publish(&mut world, till, 40, 1);
    assert!(!session(&mut world, "app:pi-1").conflating);
    let app = world.connect("client=pi-1");
    world.settle();
    let said = world.said(app);
    assert_eq!((deliveries(&said).len(), conflated(&said)), (40, 0));
}

// keeps: conflate-on-request
#[test]
fn a_conflating_application_gets_the_newest_while_it_lags() {
    let mut config = config("a");
    config.limits.delivery_window = 4;
    config.store.session_max_bytes = 1 << 20;
    let mut world = World::with(config);
    let app = world.connect("client=pi-1&conflate=true");
    let other = world.connect("client=pi-2");
    let till = world.connect("keys=");
    world.settle();
    publish(&mut world, till, 40, 2);
    let first = world.said(app);
    assert_eq!(deliveries(&first).len(), 4, "its window");
    // Those of the first forty are duplicates.
    publish(&mut world, till, 100, 2);
    let last = deliveries(&first)[3]["deliveryId"].clone();
    world.text(app, &format!(r#"{{"type":"ACK","deliveryId":{last},"upTo":true}}"#));
    world.settle();
    let second = world.said(app);
    let handed = deliveries(&second);
    let values: Vec<_> = handed.iter().map(|delivery| &delivery["value"]).collect();
    assert_eq!(values, [98, 99, 1], "the newest of both keys, and the event");
    assert_eq!(handed[0]["conflated"], 100 - 4 - 2);
    assert_eq!(conflated(&second[1..]), 0, "it is told once");

    world.text(other, r#"{"type":"ACK","deliveryId":4,"upTo":true}"#);
    world.settle();
    let said = world.said(other);
    assert_eq!((deliveries(&said).len(), conflated(&said)), (8, 0), "who did not ask");
}

// keeps: conflate-on-request
#[test]
fn an_application_that_keeps_up_is_handed_every_value() {
    let mut world = World::with(config("a"));
    let app = world.connect("conflate=true");
    let till = world.connect("keys=");
    world.settle();
    publish(&mut world, till, 1000, 2);
    let said = world.said(app);
    assert_eq!((deliveries(&said).len(), conflated(&said)), (1010, 0));
}

#[test]
fn a_lagging_unnamed_application_is_closed_or_conflates() {
    for conflates in [false, true] {
        let mut world = World::with(config("a"));
        world.takes_frames = false;
        let app = world.connect(if conflates { "conflate=true" } else { "" });
        world.settle();
        world.takes_frames = true;
        let till = world.connect("keys=");
        world.settle();
        world.takes_frames = false;
        publish(&mut world, till, 4000, 2);
        let code = world.closed.get(&app).map(|close| close.code);
        assert_eq!(code, (!conflates).then_some(CloseCode::Limit));
        world.take_frames();
        world.settle();
        let said = world.said(app);
        if conflates {
            assert_eq!(applied(&said).1, 40, "every event");
            assert_eq!(applied(&said).0.into_values().collect::<Vec<_>>(), [3998, 3999]);
            assert!(conflated(&said) > 1000, "{}", conflated(&said));
            assert_eq!(conflated(&said) + deliveries(&said).len() as u64, 4040);
        }
    }
}

#[test]
fn a_binary_client_is_told_before_the_delivery() {
    let mut world = World::with(config("a"));
    let app = world.connect("client=pi-1");
    world.settle();
    world.lose(app);
    let till = world.connect("keys=");
    world.settle();
    publish(&mut world, till, 1000, 1);
    let app = world.link(Protocol::Postcard, None, "client=pi-1");
    let connect =
        slipstream_core::io::Frame::Binary(Wire::Connect(Connect { protocol: 1 }).encode());
    world.give(slipstream_core::io::Input::Received { link: app, frame: connect });
    world.settle();
    let wires = world.frames(app).into_iter().filter_map(|frame| match frame {
        slipstream_core::io::Frame::Binary(bytes) => Wire::decode(&bytes).ok(),
        _ => None,
    });
    let wires: Vec<Wire> = wires.collect();
    let at = wires.iter().position(|wire| matches!(wire, Wire::Conflated(_)));
    let at = at.expect("values were left out");
    let Wire::Deliveries(batch) = &wires[at + 1] else { panic!("{:?}", wires[at + 1]) };
    let Wire::Conflated(values) = wires[at] else { panic!("it was one") };
    let first = slipstream_core::wire::deliveries(batch).expect("deliveries")[0].0.delivery.get();
    assert!(values > 0 && values < first, "{values} before {first}");
}

/// Above the bound by its dead letters alone a session is handed nothing; what it is owed is
/// conflated meanwhile, and comes when they are purged.
// keeps: dead-letter-bound
#[test]
fn dead_letters_above_the_bound_hold_a_conflated_session() {
    let mut world = World::with(config("a"));
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    let large = format!("\"{}\"", "x".repeat(11_000));
    world.publish(till, "large", "large", &large);
    world.settle();
    let said = world.said(app);
    let delivery = &deliveries(&said)[0]["deliveryId"];
    let reject = format!(r#"{{"type":"NACK","deliveryId":{delivery},"action":"reject"}}"#);
    world.text(app, &reject);
    world.settle();
    world.pass(Duration::from_secs(1));
    publish(&mut world, till, 1000, 2);
    assert!(deliveries(&world.said(app)).is_empty(), "it is held");
    let held = session(&mut world, "app:pi-1");
    assert!(held.conflating && held.dead_letters["rejected"] == 1, "{held:?}");
    let rows = world.store.messages().count();
    assert!(rows < 3 + 10 + 15, "{rows} rows");

    world.ask(AdminRequest::PurgeDeadLetter(DeadLetterId::new(1)));
    world.pass(Duration::from_secs(1));
    let said = world.said(app);
    assert_eq!(applied(&said).0.into_values().collect::<Vec<_>>(), [998, 999]);
    assert_eq!(applied(&said).1, 10, "every event");
    assert_eq!(conflated(&said) + deliveries(&said).len() as u64, 1010);
}

fn pair() -> (World, World) {
    let mut config_a = config("a");
    config_a.peers = vec!["ws://peer:7400".into()];
    let mut a = World::with(config_a);
    a.pass(Duration::ZERO);
    (a, World::with(config("b")))
}

// keeps: outbox-bound
#[test]
fn a_returning_peer_gets_the_newest_values_and_all_events() {
    let (mut a, mut b) = pair();
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    a.lose(wire.0);
    b.lose(wire.1);
    let till = a.connect("keys=");
    a.settle();
    publish(&mut a, till, 3000, 10);
    let rows = a.store.messages().count();
    assert!(rows < 10 + 30 + 15, "{rows} rows");

    a.pass(Duration::from_secs(60));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let pi = b.connect("");
    b.settle();
    b.said(pi);
    let there: Vec<_> = b.store.messages().map(|message| message.id().to_owned()).collect();
    let newest = (2990..3000).filter(|n| there.contains(&format!("m-{n}"))).count();
    let events = there.iter().filter(|id| id.starts_with("e-")).count();
    assert_eq!((newest, events), (10, 30), "{there:?}");
    assert!(there.len() < rows + 5, "no more than what was kept");
    assert!(a.status().counters.conflated["peer:b"] > 2900);
}

/// Two nodes filled to `max_bytes` while they were parted: each takes up to a quarter more from
/// the other, and what the other has got gives way.
// keeps: full-nodes-drain
#[test]
fn two_full_nodes_drain_each_other_when_they_meet() {
    let (mut a, mut b) = pair();
    let mut worlds = [&mut a, &mut b].map(|world| {
        world.config.store.max_bytes = 100_000;
        world.config.store.history_max_bytes = 25_000;
        world.config.store.session_max_bytes = 1 << 30;
        world.config.retry.max_backoff = Duration::from_secs(1);
        world.crash();
        world
    });
    worlds[0].pass(Duration::ZERO);
    let [a, b] = &mut worlds;
    let wire = join(a, b);
    carry(a, b, wire);
    a.lose(wire.0);
    b.lose(wire.1);
    let published = [fill(a, "a"), fill(b, "b")];
    assert!(published.iter().all(|count| *count > 300), "{published:?}");

    a.pass(Duration::from_secs(60));
    b.pass(Duration::from_secs(60));
    let wire = join(a, b);
    for _ in 0..200 {
        carry(a, b, wire);
        a.pass(Duration::from_millis(500));
        b.pass(Duration::from_millis(500));
    }
    for (world, peer) in [(&mut *a, "peer:b"), (&mut *b, "peer:a")] {
        let session = session(world, peer);
        assert_eq!((session.behind, session.in_flight), (0, 0), "{peer} is owed nothing");
        let used = world.store.usage().used_bytes;
        assert!(used <= 125_000, "{used} bytes");
    }
    let accepted = [published[1], published[0]];
    for (world, (count, origin)) in [a, b].into_iter().zip(accepted.into_iter().zip(["b", "a"])) {
        let counters = world.status().counters;
        assert_eq!(counters.processed["CMD"][origin], count, "all of {origin} came");
        let till = world.connect("keys=");
        world.settle();
        event(world, till, "room");
        world.settle();
        let answer = world.said(till).pop().expect("an answer");
        assert_eq!(answer["type"], "ACK", "there is room: {answer} {:?}", world.store.usage());
    }
}

/// Publishes events until the store is full. Answers how many were taken.
fn fill(world: &mut World, name: &str) -> u64 {
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    for number in 0..10_000 {
        event(world, till, &format!("{name}-{number}"));
        world.settle();
        if world.said(till)[0]["type"] == "ERR" {
            world.lose(till);
            return number;
        }
    }
    panic!("the store is never full");
}
