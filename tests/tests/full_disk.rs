//! No room on the disk: publishers wait, and what makes room passes (P8).

use std::time::Duration;

use serde_json::Value;
use slipstream_core::event::{Event, Level};
use slipstream_core::ids::LinkId;
use slipstream_core::store::StoreFailure;
use slipstream_tests::world::World;

fn no_room() -> StoreFailure {
    StoreFailure::Full("slipstream.db: database or disk is full".into())
}

/// How often it was said that there is no room, and that there is again.
fn said(world: &World) -> (usize, usize) {
    let count = |what: fn(&Event) -> bool| world.events.iter().filter(|event| what(event)).count();
    let full = count(|event| matches!(event, Event::StoreFull { .. }));
    (full, count(|event| matches!(event, Event::StoreHasRoom)))
}

fn publisher(world: &mut World) -> LinkId {
    let till = world.connect("client=till&keys=");
    world.settle();
    world.said(till);
    till
}

fn answer(world: &mut World, till: LinkId) -> Value {
    world.settle();
    world.said(till).pop().expect("an answer")
}

fn publish(world: &mut World, till: LinkId, id: &str) -> Value {
    world.publish(till, id, "order:1", "1");
    answer(world, till)
}

fn delete(world: &mut World, till: LinkId, id: &str) -> Value {
    world.text(till, &format!(r#"{{"type":"DK","messageId":"{id}","key":"order:1"}}"#));
    world.pass(Duration::from_secs(2));
    answer(world, till)
}

/// A node of which the next commits find no room.
fn fill(world: &mut World, till: LinkId, id: &str) -> Value {
    world.publish(till, id, "order:1", "1");
    world.fail_commit(no_room());
    answer(world, till)
}

// keeps: full-disk
#[test]
fn a_full_disk_is_called_full_and_takes_deletes() {
    let mut world = World::new("aws");
    let till = publisher(&mut world);
    assert_eq!(publish(&mut world, till, "m-1")["type"], "ACK");
    let refused = fill(&mut world, till, "m-2");
    assert_eq!(refused["code"], "STORE_FULL");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("disk is full")));
    // No limit is named that was never reached.
    let refused = publish(&mut world, till, "m-3");
    assert_eq!((&refused["code"], &refused["retryable"]), (&"STORE_FULL".into(), &true.into()));
    let text = refused["message"].as_str().expect("a text");
    assert!(text.contains("disk") && !text.contains("limit"), "{text}");
    assert!(world.status().refusing.is_some_and(|reason| reason.contains("disk is full")));
    assert_eq!(delete(&mut world, till, "d-1")["type"], "ACK");
}

// keeps: full-disk
#[test]
fn a_disk_that_stays_full_is_told_once() {
    let mut world = World::new("aws");
    let till = publisher(&mut world);
    for round in 0..20 {
        fill(&mut world, till, &format!("m-{round}"));
        // It is tried again after a while, as not every system tells what is left.
        world.pass(Duration::from_secs(6));
        assert_eq!(said(&world), (1, 0), "round {round}");
    }
    assert_eq!(publish(&mut world, till, "room")["type"], "ACK");
    assert_eq!(said(&world), (1, 0));
    world.pass(Duration::from_secs(10));
    assert_eq!(said(&world), (1, 1));
    assert_eq!(world.status().refusing, None);
    let is_of_room = |event: &&Event| {
        matches!(event, Event::StoreFull { .. } | Event::StoreHasRoom)
            || matches!(event.level(), Level::Error | Level::Warn)
    };
    let levels = world.events.iter().filter(is_of_room).map(Event::level);
    assert_eq!(levels.collect::<Vec<_>>(), [Level::Error, Level::Info], "and nothing else is loud");
}

// keeps: full-disk
#[test]
fn history_gives_way_to_a_full_disk() {
    let mut world = World::new("aws");
    world.store.disk_bytes = Some(200_000);
    let till = publisher(&mut world);
    for number in 0..2_000 {
        let value = format!("\"{}\"", "v".repeat(1_000));
        world.publish(till, &format!("m-{number}"), &format!("key:{}", number % 10), &value);
        assert_eq!(answer(&mut world, till)["type"], "ACK", "{number}: {:?}", world.store.usage());
    }
    assert!(world.store.usage().used_bytes < 200_000);
    assert_eq!(said(&world), (0, 0));
}

// keeps: full-disk
#[test]
fn without_history_a_full_disk_refuses_until_something_goes() {
    let mut world = World::new("aws");
    world.store.disk_bytes = Some(200_000);
    let till = publisher(&mut world);
    let value = format!("\"{}\"", "v".repeat(1_000));
    let mut taken = 0;
    let refused = loop {
        world.publish(till, &format!("m-{taken}"), &format!("key:{taken}"), &value);
        let said = answer(&mut world, till);
        if said["type"] == "ERR" {
            break said;
        }
        taken += 1;
    };
    assert!((100..200).contains(&taken), "{taken}");
    assert_eq!(refused["code"], "STORE_FULL");
    for key in 0..20 {
        world.text(till, &format!(r#"{{"type":"DK","messageId":"d-{key}","key":"key:{key}"}}"#));
        assert_eq!(answer(&mut world, till)["type"], "ACK");
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(publish(&mut world, till, "room")["type"], "ACK");
    assert_eq!(said(&world), (1, 0));
}
