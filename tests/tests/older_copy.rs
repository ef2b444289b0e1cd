//! A node whose store went back to an older copy hands over again what it was handed, and says so
//! (P3).

use std::time::Duration;

use serde_json::Value;
use slipstream_core::config::Config;
use slipstream_core::ids::{LinkId, NodeId};
use slipstream_core::io::Input;
use slipstream_tests::world::{MemoryStore, Wire, World, carry, join};

fn dialling(id: &str) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.peers = vec!["ws://peer:7400".into()];
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

fn publish(world: &mut World, ids: std::ops::Range<u32>) {
    let till = world.connect("keys=");
    for number in ids {
        let id = format!("m-{number}");
        world.text(
            till,
            &format!(r#"{{"type":"CMD","messageId":"{id}","key":"k","value":{number}}}"#),
        );
    }
    world.settle();
    world.lose(till);
}

/// What the application is handed now, all of it acknowledged: ids, and whether they are marked.
fn handed(world: &mut World, app: LinkId) -> Vec<(String, bool)> {
    world.settle();
    let said = world.said(app);
    let deliveries = said.iter().filter(|frame| frame["deliveryId"].is_u64());
    let mut found = Vec::new();
    for delivery in deliveries {
        world.text(app, &format!(r#"{{"type":"ACK","deliveryId":{}}}"#, delivery["deliveryId"]));
        let id = delivery["messageId"].as_str().expect("an id").to_owned();
        found.push((id, delivery["redelivery"] != Value::Null));
    }
    world.pass(Duration::from_secs(1));
    found
}

/// `b` starts on `copy`, and meets `a` again.
fn restore(a: &mut World, b: &mut World, wire: Wire, copy: MemoryStore) -> (LinkId, Wire) {
    a.lose(wire.0);
    b.store = copy;
    b.crash();
    let app = b.connect("client=pi");
    b.settle();
    a.pass(Duration::from_secs(40));
    let wire = join(a, b);
    carry(a, b, wire);
    (app, wire)
}

fn all_marked(handed: &[(String, bool)], ids: std::ops::Range<u32>) {
    let marked: Vec<_> = ids.map(|number| (format!("m-{number}"), true)).collect();
    let mut handed = handed.to_vec();
    handed.sort_by_key(|(id, _)| id[2..].parse::<u32>().expect("a number"));
    assert_eq!(handed, marked);
}

// keeps: lost-life
#[test]
fn what_an_older_copy_hands_over_again_is_marked() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let app = b.connect("client=pi");
    publish(&mut a, 0..5);
    carry(&mut a, &mut b, wire);
    assert_eq!(handed(&mut b, app).len(), 5);
    let (copy, empty) = (b.store.clone(), MemoryStore::new(4711));
    publish(&mut a, 5..25);
    publish(&mut b, 25..30);
    carry(&mut a, &mut b, wire);
    let first = handed(&mut b, app);
    assert_eq!(first.len(), 25);
    assert!(first.iter().all(|(_, marked)| !marked), "{first:?}");

    let (app, wire) = restore(&mut a, &mut b, wire, copy);
    all_marked(&handed(&mut b, app), 5..30);
    // What is published there from then on is new.
    publish(&mut b, 30..31);
    assert_eq!(handed(&mut b, app), [("m-30".to_owned(), false)]);
    carry(&mut a, &mut b, wire);

    let (app, _) = restore(&mut a, &mut b, wire, empty);
    all_marked(&handed(&mut b, app), 0..31);
}

/// `a` hears that the store of `b` went back, and `b` starts again before it is sent anything; its
/// first batch may not be durable by then. What it is handed after that is marked.
fn is_marked_after_another_start(is_settled: bool) {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let app = b.connect("client=pi");
    let copy = b.store.clone();
    publish(&mut a, 0..20);
    carry(&mut a, &mut b, wire);
    assert_eq!(handed(&mut b, app).len(), 20);
    a.lose(wire.0);
    b.store = copy;
    b.crash();

    a.pass(Duration::from_secs(40));
    let wire = join(&mut a, &mut b);
    for frame in a.frames(wire.0) {
        b.give(Input::Received { link: wire.1, frame });
    }
    if is_settled {
        b.settle();
    }
    for frame in b.frames(wire.1) {
        a.give(Input::Received { link: wire.0, frame });
    }
    a.settle();
    a.lose(wire.0);
    b.crash();
    publish(&mut b, 20..21);
    let app = b.connect("client=pi");
    assert_eq!(handed(&mut b, app), [("m-20".to_owned(), false)], "this start has published it");
    a.pass(Duration::from_secs(40));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    all_marked(&handed(&mut b, app), 0..20);
}

// keeps: lost-life
#[test]
fn it_is_marked_after_another_start_too() {
    is_marked_after_another_start(true);
}

// keeps: lost-life
#[test]
fn the_loss_is_durable_before_the_peer_is_told_of_it() {
    is_marked_after_another_start(false);
}

// keeps: lost-life
#[test]
fn it_is_marked_where_the_clock_was_set_back_with_the_store() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let later = Duration::from_secs(3600);
    let copy = b.store.clone();
    b.pass(Duration::from_secs(1));
    b.crash();
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let app = b.connect("client=pi");
    publish(&mut a, 0..20);
    publish(&mut b, 20..25);
    carry(&mut a, &mut b, wire);
    assert_eq!(handed(&mut b, app).len(), 25);
    let lost = b.status().incarnation;
    b.now.wall = b.now.wall.minus(later);
    let (app, wire) = restore(&mut a, &mut b, wire, copy);
    assert!(b.status().incarnation < lost, "this start looks older than the one that was lost");
    all_marked(&handed(&mut b, app), 0..25);
    publish(&mut a, 25..30);
    carry(&mut a, &mut b, wire);
    let new = handed(&mut b, app);
    assert_eq!(new.len(), 5, "{new:?}");
    publish(&mut b, 30..31);
    carry(&mut a, &mut b, wire);
    let app = a.connect("client=pi");
    assert_eq!(handed(&mut a, app).len(), 31, "each once");
    // The mesh goes by what it says of itself now.
    b.config.tags = slipstream_core::tags::TagSet::new(["new"]).expect("good tags");
    b.give(Input::Reconfigure { peers: Vec::new(), tags: b.config.tags.clone() });
    b.pass(Duration::from_secs(2));
    carry(&mut a, &mut b, wire);
    let known = a.status().topology.into_iter().find(|node| node.node.as_str() == "b");
    assert!(known.is_some_and(|node| format!("{node:?}").contains("new")));
}
