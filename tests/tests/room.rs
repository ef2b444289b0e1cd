//! Who may take up room at a node, and who gives way (P8).

use std::time::Duration;

use slipstream_core::config::Config;
use slipstream_core::ids::{LinkId, NodeId};
use slipstream_core::io::{CloseCode, Protocol};
use slipstream_core::wire::{Connect, Wire};
use slipstream_tests::world::World;

/// A node that dials a peer and takes so many applications.
fn node(applications: usize) -> World {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.limits.max_connections = applications;
    config.peers = vec!["ws://peer:7400".into()];
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

fn is_refused(world: &World, link: LinkId) -> bool {
    world.closed.get(&link).is_some_and(|close| close.code == CloseCode::Limit)
}

// keeps: peers-get-in
#[test]
fn applications_never_keep_peers_out() {
    let mut world = node(2);
    let crowd = ["client=one", "client=two", "", "client=three"].map(|query| world.connect(query));
    let refused = crowd.map(|link| is_refused(&world, link));
    assert_eq!(refused, [false, false, true, true]);
    assert!(world.closed[&crowd[3]].reason.contains("limits.max_connections"));

    let dialled_us = world.greet(world.hello("z"));
    assert!(world.admitted.contains(&dialled_us), "{:?}", world.closed);
    let (dial, _) = world.dials.pop().expect("the peer is dialled");
    let dialled_by_us = world.link(Protocol::Postcard, Some(dial), "");
    world.binary(dialled_by_us, Wire::Hello(world.hello("y")).encode());
    world.settle();
    assert!(world.admitted.contains(&dialled_by_us), "{:?}", world.closed);
    assert_eq!(world.status().links.iter().filter(|link| link.state == "up").count(), 4);
}

#[test]
fn place_of_an_application_that_left_is_free() {
    let mut world = node(1);
    let first = world.connect("");
    let second = world.connect("");
    assert!(is_refused(&world, second));
    world.lose(first);
    let third = world.connect("");
    assert!(world.admitted.contains(&third) && !is_refused(&world, third));
}

#[test]
fn taking_over_needs_no_free_place() {
    let mut world = node(1);
    let first = world.connect("client=pi-1");
    let second = world.connect("client=pi-1");
    assert_eq!(world.closed[&first].code, CloseCode::Duplicate);
    assert!(world.admitted.contains(&second) && !is_refused(&world, second));
    let other = world.connect("client=pi-2");
    assert!(is_refused(&world, other));
}

// keeps: peers-get-in
#[test]
fn link_is_admitted_once_it_says_who_it_is() {
    let mut world = node(9);
    let text = world.connect("");
    assert!(world.admitted.contains(&text), "text frames are of applications alone");
    let binary = world.link(Protocol::Postcard, None, "");
    let peer = world.link(Protocol::Postcard, None, "");
    world.settle();
    assert!(!world.admitted.contains(&binary) && !world.admitted.contains(&peer));
    world.binary(binary, Wire::Connect(Connect { protocol: 1 }).encode());
    world.binary(peer, Wire::Hello(world.hello("z")).encode());
    world.settle();
    assert!(world.admitted.contains(&binary) && world.admitted.contains(&peer));
}

// keeps: unread-bytes
#[test]
fn stalled_consumers_hold_a_bounded_number_of_bytes_together() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.limits.max_message_bytes = 64 << 10;
    config.limits.connections_max_bytes = 1 << 20;
    let mut world = World::with(config);
    let till = world.connect("keys=");
    let consumers: Vec<_> =
        (0..16).map(|number| world.connect(&format!("client=pi-{number}"))).collect();
    world.settle();
    consumers.iter().for_each(|link| drop(world.said(*link)));
    world.takes_frames = false;
    let value = format!("\"{}\"", "x".repeat(40 << 10));
    for number in 0..12 {
        world.publish(till, &format!("m-{number}"), &format!("order:{number}"), &value);
        world.settle();
        assert!(world.untaken_bytes() <= 1 << 20, "{} bytes", world.untaken_bytes());
        // What sockets take only to close is not held for long.
        world.pass(Duration::from_millis(100));
    }
    let closed: Vec<_> =
        consumers.iter().filter(|link| world.closed.contains_key(link)).copied().collect();
    assert!((8..16).contains(&closed.len()), "{} of 16 gave way", closed.len());
    assert!(world.closed[&closed[0]].reason.contains("connections_max_bytes"));
    assert_eq!(world.closed[&closed[0]].code, CloseCode::Limit);

    world.takes_frames = true;
    world.take_frames();
    let number = consumers.iter().position(|link| *link == closed[0]).expect("one of them");
    let again = world.connect(&format!("client=pi-{number}"));
    world.settle();
    let handed = world.said(again);
    let ids = handed.iter().filter_map(|frame| frame["messageId"].as_str());
    assert_eq!(ids.collect::<Vec<_>>().len(), 12, "what it was owed is read again");
}

// keeps: unread-bytes
#[test]
fn of_stalled_consumers_the_one_that_holds_most_is_closed() {
    for large_at in [0, 1, 4] {
        let mut config = Config::new(NodeId::new("a").expect("a good name"));
        config.limits.max_message_bytes = 64 << 10;
        config.limits.connections_max_bytes = 1 << 20;
        let mut world = World::with(config);
        let till = world.connect("keys=");
        // Together they may hold what the bound allows, and none has as much as the large one.
        let consumers: Vec<_> = (0..5)
            .map(|number| {
                let keys = if number == large_at { "large:" } else { "small:" };
                world.connect(&format!("client=pi-{number}&keys={keys}"))
            })
            .collect();
        world.settle();
        world.takes_frames = false;
        let value = format!("\"{}\"", "x".repeat(25 << 10));
        for number in 0..10 {
            world.publish(till, &format!("l-{number}"), &format!("large:{number}"), &value);
            world.settle();
        }
        for number in 0..9 {
            let is_closed = consumers.iter().any(|link| world.closed.contains_key(link));
            if is_closed {
                break;
            }
            world.publish(till, &format!("s-{number}"), &format!("small:{number}"), &value);
            world.settle();
            world.pass(Duration::from_millis(100));
        }
        let closed: Vec<_> =
            (0..5).filter(|it| world.closed.contains_key(&consumers[*it])).collect();
        assert_eq!(closed, [large_at]);
        assert_eq!(world.closed[&consumers[large_at]].code, CloseCode::Limit);
    }
}
