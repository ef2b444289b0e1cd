//! Reads of one node, step by step: when they are asked, and what may not overtake them.

use std::time::Duration;

use serde_json::Value;
use slipstream_core::config::Config;
use slipstream_core::ids::{LinkId, NodeId};
use slipstream_tests::world::World;

fn read(world: &mut World, link: LinkId, id: &str, key: &str) {
    world.text(link, &format!(r#"{{"type":"GK","messageId":"{id}","key":"{key}"}}"#));
}

fn set(world: &mut World, link: LinkId, id: &str, key: &str, value: &str) {
    world.publish(link, id, key, value);
}

/// Type and id of each frame.
fn names(said: &[Value]) -> Vec<String> {
    let text = |frame: &Value, field: &str| frame[field].as_str().unwrap_or("-").to_owned();
    said.iter().map(|frame| text(frame, "type") + " " + &text(frame, "messageId")).collect()
}

// keeps: read-fresh
#[test]
fn a_read_waits_for_the_receipts_before_it() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    set(&mut world, till, "m-1", "k", "1");
    read(&mut world, till, "r-1", "k");
    read(&mut world, till, "r-2", "other");
    assert!(world.said(till).is_empty(), "nothing is durable yet");
    world.settle();
    let said = world.said(till);
    assert_eq!(names(&said), ["ACK m-1", "RESULT r-1", "RESULT r-2"]);
    assert_eq!((&said[1]["value"], &said[1]["version"]), (&1.into(), &said[0]["version"]));
    assert_eq!(said[2]["found"], false);
}

#[test]
fn a_delivery_waits_for_the_receipt_that_waits_for_a_read() {
    let mut world = World::new("a");
    let app = world.connect("");
    let till = world.connect("keys=");
    world.settle();
    world.said(app);
    set(&mut world, app, "m-0", "k", "0");
    read(&mut world, app, "r-1", "k");
    set(&mut world, app, "m-1", "k", "1");
    set(&mut world, till, "m-2", "k", "2");
    world.settle();
    // The newer value of another is handed over behind the own write that it replaced.
    assert_eq!(names(&world.said(app)), ["ACK m-0", "RESULT r-1", "ACK m-1", "SK m-2"]);
}

// keeps: many-reads
#[test]
fn reads_without_end_are_answered_as_the_socket_takes_them() {
    const READS: usize = 1000;
    let mut world = World::new("a");
    let app = world.connect("keys=");
    world.settle();
    set(&mut world, app, "m-1", "k", &format!("\"{}\"", "x".repeat(50_000)));
    world.settle();
    world.said(app);
    world.takes_frames = false;
    for number in 0..READS {
        read(&mut world, app, &format!("r-{number}"), "k");
    }
    world.settle();
    let mut answers = world.said(app);
    assert!((1..20).contains(&answers.len()), "{} leave at once", answers.len());
    for _ in 0..READS {
        world.take_frames();
        world.settle();
        answers.extend(world.said(app));
    }
    let expected: Vec<_> = (0..READS).map(|number| format!("RESULT r-{number}")).collect();
    assert_eq!(names(&answers), expected);
}

// keeps: tombstones
#[test]
fn a_clock_that_jumps_forgets_no_delete() {
    let mut config = Config::new(NodeId::new("a").expect("a name"));
    config.store.tombstone_ttl = Duration::from_secs(30);
    let mut world = World::with(config);
    let till = world.connect("keys=");
    world.settle();
    set(&mut world, till, "m-1", "k", "1");
    world.text(till, r#"{"type":"DK","messageId":"m-2","key":"k"}"#);
    world.settle();
    let right = world.now.wall;
    world.now.wall = right.plus(Duration::from_secs(3600));
    for number in 0..3 {
        world.connect(&format!("client=pi-{number}&keys="));
        world.settle();
    }
    assert_eq!(world.store.usage().tombstones, 1, "by this clock it would be an hour old");
    world.now.wall = right;
    world.pass(Duration::from_secs(60));
    for number in 0..3 {
        set(&mut world, till, &format!("n-{number}"), "other", "1");
        world.settle();
    }
    assert_eq!(world.store.usage().tombstones, 0);
    world.said(till);
    read(&mut world, till, "r-1", "k");
    world.settle();
    let said = world.said(till);
    assert_eq!((&said[0]["found"], &said[0]["version"]), (&false.into(), &Value::Null));
}
