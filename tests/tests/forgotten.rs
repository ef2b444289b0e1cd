//! Events that history has no room for before anybody was handed them: dead letters of the node.

use std::time::Duration;

use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{DeadLetterId, LinkId, NodeId};
use slipstream_core::io::Input;
use slipstream_core::message::Kind;
use slipstream_core::store::{DeadReason, StoreFailure};
use slipstream_tests::world::{World, carry, join};

const PEER: &str = "ws://peer:7400";
const SECOND: Duration = Duration::from_secs(1);

/// A node with little room for history.
fn config(peers: &[&str]) -> Config {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.peers = peers.iter().map(|url| (*url).to_owned()).collect();
    config.store.history_max_bytes = 2_000;
    config
}

fn node(config: Config) -> World {
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

fn reload(world: &mut World, peers: &[&str]) {
    let peers: Vec<String> = peers.iter().map(|url| (*url).to_owned()).collect();
    world.config.peers = peers.clone();
    world.give(Input::Reconfigure { peers, tags: world.config.tags.clone() });
    world.pass(SECOND);
}

/// Publishes the events with these numbers.
fn publish(world: &mut World, numbers: std::ops::Range<u32>) {
    let till = world.connect("keys=");
    for number in numbers {
        let frame = format!(r#"{{"type":"CMD","messageId":"c-{number}","key":"t","value":1}}"#);
        world.text(till, &frame);
        world.settle();
    }
    world.lose(till);
    world.pass(SECOND);
}

/// The ids of the dead letters of the node, and their reason.
fn letters(world: &mut World) -> Vec<String> {
    let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 999 };
    let AdminAnswer::DeadLetters(letters) = world.ask(all) else { panic!("a list") };
    let is_it = |reason| reason == DeadReason::Forgotten;
    assert!(letters.iter().all(|(name, letter)| name == "node" && is_it(letter.reason)));
    letters.into_iter().map(|(_, letter)| letter.message.id().into()).collect()
}

/// The ids of the events in the log, in order.
fn events(world: &World) -> Vec<String> {
    let events = world.store.messages().filter(|message| message.kind() == Kind::Cmd);
    events.map(|message| message.id().into()).collect()
}

fn forgotten(world: &mut World) -> u64 {
    world.status().store.usage.forgotten_total
}

fn ids(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("c-{number}")).collect()
}

/// Of so many events the oldest are dead letters, the others in the log, and none is both.
fn all_are_there(world: &mut World, numbers: std::ops::Range<u32>) {
    let (dead, left) = (letters(world), events(world));
    assert_eq!([&dead[..], &left[..]].concat(), ids(numbers));
    assert!((5..50).contains(&left.len()), "{} are left", left.len());
    assert_eq!(forgotten(world), dead.len() as u64);
    assert_eq!(world.status().dead_letters["forgotten"], dead.len() as u64);
}

fn handed(world: &mut World, link: LinkId) -> Vec<String> {
    let said = world.said(link);
    let deliveries = said.iter().filter(|frame| !frame["deliveryId"].is_null());
    deliveries.map(|frame| frame["messageId"].as_str().expect("an id").into()).collect()
}

// keeps: forgotten-events
#[test]
fn what_was_kept_for_a_peer_that_never_came_is_a_dead_letter() {
    let mut world = node(config(&[PEER]));
    publish(&mut world, 0..100);
    assert_eq!(events(&world), ids(0..100));
    assert!(letters(&mut world).is_empty(), "it is kept for");
    reload(&mut world, &[]);
    all_are_there(&mut world, 0..100);
    world.crash();
    world.pass(SECOND);
    assert_eq!([letters(&mut world), events(&world)].concat(), ids(0..100));
}

// keeps: forgotten-events
#[test]
fn what_nobody_is_known_to_want_is_a_dead_letter_too() {
    let mut world = node(config(&[]));
    publish(&mut world, 0..100);
    all_are_there(&mut world, 0..100);
}

/// A node whose peer got fifty events, and then went, and is owed a hundred.
fn left_by_its_peer(config: Config) -> World {
    let (mut a, mut b) = (node(config), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    publish(&mut a, 0..50);
    carry(&mut a, &mut b, wire);
    a.lose(wire.0);
    publish(&mut a, 50..150);
    a
}

// keeps: forgotten-events
#[test]
fn what_a_forgotten_session_was_owed_is_a_dead_letter() {
    let mut a = left_by_its_peer(config(&[PEER]));
    assert_eq!(events(&a)[events(&a).len() - 100..], ids(50..150));
    reload(&mut a, &[]);
    assert!(letters(&mut a).is_empty(), "its session keeps them");
    let forget = AdminRequest::ForgetSession("peer:b".into());
    assert!(matches!(a.ask(forget), AdminAnswer::Done));
    a.pass(5 * SECOND);
    assert_eq!([letters(&mut a), events(&a)].concat(), ids(50..150), "and nothing that `b` has");
}

// keeps: forgotten-events, peer-session-end
#[test]
fn what_a_peer_was_owed_when_its_time_ends_is_a_dead_letter() {
    for entry_goes in [true, false] {
        let mut config = config(&[PEER]);
        config.store.session_ttl = 60 * SECOND;
        let mut a = left_by_its_peer(config);
        if entry_goes {
            reload(&mut a, &[]);
        }
        a.pass(50 * SECOND);
        assert!(letters(&mut a).is_empty(), "its session keeps them");
        a.pass(20 * SECOND);
        let ended = a.events.iter().find_map(|event| match event {
            Event::SessionEnded { session, owed, .. } => Some((session.clone(), *owed)),
            _ => None,
        });
        let (session, owed) = ended.expect("it is told");
        assert!(session == "peer:b" && owed >= 100, "{session}: {owed}");
        assert!(a.status().sessions.is_empty());
        publish(&mut a, 150..151);
        assert_eq!([letters(&mut a), events(&a)].concat(), ids(50..151), "{entry_goes}");
        assert!(letters(&mut a).len() > 50);
    }
}

// keeps: peer-never-reached
#[test]
fn what_is_held_for_an_entry_stays_in_a_full_store() {
    let mut config = config(&[PEER]);
    config.store.max_bytes = 30_000;
    let mut world = node(config);
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    let mut taken = 0;
    let refused = loop {
        let rest = r#""key":"t","value":1"#;
        world.text(till, &format!(r#"{{"type":"CMD","messageId":"c-{taken}",{rest}}}"#));
        world.settle();
        let said = world.said(till).pop().expect("an answer");
        if said["type"] == "ERR" {
            break said;
        }
        taken += 1;
        assert!(taken < 1_000, "nobody is refused");
    };
    assert_eq!(refused["code"], "STORE_FULL");
    assert!(taken > 50, "{taken}");
    // Also when this node has been up for long, and knows whoever it could know.
    world.pass(600 * SECOND);
    publish(&mut world, taken..taken + 1);
    assert_eq!(events(&world), ids(0..taken), "nothing that is held has gone");
    assert!(letters(&mut world).is_empty());
    assert!(world.status().refusing.is_some());

    reload(&mut world, &[]);
    world.pass(5 * SECOND);
    assert_eq!(world.status().refusing, None, "taking the entry out makes room");
    publish(&mut world, taken..taken + 1);
    assert_eq!(events(&world).last(), ids(taken..taken + 1).last());
}

// keeps: forgotten-events
#[test]
fn a_forgotten_event_is_offered_again_when_it_is_replayed() {
    let mut a = node(config(&[PEER]));
    publish(&mut a, 0..100);
    reload(&mut a, &[]);
    let dead = letters(&mut a);
    reload(&mut a, &[PEER]);
    let mut b = World::new("b");
    let display = b.connect("");
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    for number in 1..=dead.len() as u64 {
        let replay = AdminRequest::ReplayDeadLetter(DeadLetterId::new(number));
        assert!(matches!(a.ask(replay), AdminAnswer::Done));
    }
    for _ in 0..10 {
        a.pass(SECOND);
        b.pass(SECOND);
        carry(&mut a, &mut b, wire);
    }
    let mut handed = handed(&mut b, display);
    handed.sort_by_key(|id| id[2..].parse::<u32>().expect("a number"));
    assert_eq!(handed, ids(0..100));
    assert!(letters(&mut a).is_empty());
}

// keeps: forgotten-events
#[test]
fn what_an_application_was_handed_is_no_dead_letter() {
    for query in ["", "client=pi&ack=auto", "ack=manual"] {
        let mut world = node(config(&[]));
        let app = world.connect(query);
        for number in 0..100 {
            publish(&mut world, number..number + 1);
            for delivery in world.said(app).iter().filter(|frame| frame["deliveryId"].is_u64()) {
                let ack = format!(r#"{{"type":"ACK","deliveryId":{}}}"#, delivery["deliveryId"]);
                world.text(app, &ack);
            }
            world.settle();
        }
        world.pass(5 * SECOND);
        assert!(letters(&mut world).is_empty(), "{query}");
        assert!(events(&world).len() < 50, "{query}: what was handed over is history");
    }
}

// keeps: forgotten-events
#[test]
fn above_the_bound_of_letters_events_are_only_counted() {
    let mut config = config(&[]);
    config.store.session_max_bytes = 1_000;
    let mut world = node(config);
    publish(&mut world, 0..100);
    let (dead, left) = (letters(&mut world), events(&world));
    assert!((2..30).contains(&dead.len()), "{dead:?}");
    assert!(left.len() < 50, "the history keeps its bound");
    assert_eq!(forgotten(&mut world), 100 - left.len() as u64);
    // With room for letters again there are letters again.
    for number in 1..=dead.len() as u64 {
        world.ask(AdminRequest::PurgeDeadLetter(DeadLetterId::new(number)));
    }
    publish(&mut world, 100..110);
    assert!(!letters(&mut world).is_empty());
}

// keeps: forgotten-events
#[test]
fn a_store_that_is_short_of_room_writes_no_letters() {
    let mut config = config(&[]);
    config.store.max_bytes = 100_000;
    let mut world = node(config);
    world.store.ballast = 93_700;
    publish(&mut world, 0..100);
    assert!(letters(&mut world).is_empty());
    assert_eq!(forgotten(&mut world) + events(&world).len() as u64, 100, "nobody is refused");
}

// keeps: forgotten-events
#[test]
fn a_batch_that_fails_costs_no_letter() {
    let mut world = node(config(&[PEER]));
    publish(&mut world, 0..100);
    world.give(Input::Reconfigure { peers: Vec::new(), tags: world.config.tags.clone() });
    world.config.peers.clear();
    let is_dead = |event: &Event| matches!(event, Event::DeadLetter { .. });
    while !world.events.iter().any(is_dead) {
        assert!(world.is_busy());
        world.step();
    }
    world.fail_commit(StoreFailure::Full("no room".into()));
    assert_eq!(events(&world), ids(0..100), "nothing has gone with it");
    world.pass(10 * SECOND);
    // All that was in it is written with the next one; for want of room nothing else is, until it
    // is tried again.
    let (dead, left) = (letters(&mut world), events(&world));
    assert_eq!(dead, ids(0..dead.len() as u32));
    assert!(dead.len() > 80 && left.len() < 20, "{dead:?} {left:?}");
}

// keeps: forgotten-events
#[test]
fn no_more_is_buried_than_history_has_no_room_for() {
    let mut world = node(config(&[PEER]));
    publish(&mut world, 0..100);
    let till = world.connect("keys=");
    world.settle();
    let is_dead = |event: &Event| matches!(event, Event::DeadLetter { .. });
    world.give(Input::Reconfigure { peers: Vec::new(), tags: world.config.tags.clone() });
    world.config.peers.clear();
    // A batch is always on its way, so that each burial waits for another one.
    for number in 100..160 {
        let frame = format!(r#"{{"type":"CMD","messageId":"c-{number}","key":"t","value":1}}"#);
        world.text(till, &frame);
        world.step();
    }
    assert!(world.events.iter().any(is_dead));
    world.settle();
    world.pass(10 * SECOND);
    all_are_there(&mut world, 0..160);
}

/// A node with room for a long history, on which events live a minute unless they say otherwise.
fn with_short_events(peers: &[&str]) -> World {
    let mut config = config(peers);
    config.store.history_max_bytes = 1 << 20;
    config.store.event_ttl = 60 * SECOND;
    node(config)
}

/// Publishes events with these numbers that live four hours.
fn publish_long(world: &mut World, numbers: std::ops::Range<u32>) {
    let till = world.connect("keys=");
    world.publish(till, "m", "k", "1");
    for number in numbers {
        let rest = r#""key":"t","value":1,"ttlMs":14400000"#;
        world.text(till, &format!(r#"{{"type":"CMD","messageId":"c-{number}",{rest}}}"#));
    }
    // They go with the second batch, and where they lie with the next one.
    (0..2).for_each(|_| world.step());
}

/// Events 0 to 29, which live longer than others do and which an application may have had, reach a
/// peer that comes when the others are over, though there is little room by then.
fn they_wait_for_the_peer(mut a: World) {
    a.pass(3600 * SECOND);
    a.config.store.history_max_bytes = 2_000;
    a.dials.clear();
    a.crash();
    publish(&mut a, 100..101);
    assert_eq!(events(&a)[..30], ids(0..30), "they are kept until their own time is over");
    let mut b = World::new("b");
    b.now.wall = a.now.wall;
    b.crash();
    a.dials.retain(|(_, url)| url == PEER);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert_eq!(events(&b)[..30], ids(0..30));
    a.lose(wire.0);
    a.pass(4 * 3600 * SECOND);
    publish(&mut a, 101..102);
    assert!(events(&a).len() < 30, "and no longer");
}

// keeps: peer-never-reached
#[test]
fn a_longer_life_is_kept_longer_for_later_peers() {
    for earlier in [&[][..], &["ws://another:7400"]] {
        let mut a = with_short_events(earlier);
        let app = a.connect("");
        publish_long(&mut a, 0..30);
        a.settle();
        assert_eq!(handed(&mut a, app)[1..], ids(0..30));
        a.lose(app);
        publish(&mut a, 30..31);
        reload(&mut a, &[earlier, &[PEER]].concat());
        they_wait_for_the_peer(a);
    }
}

// keeps: peer-never-reached
#[test]
fn what_lives_longer_is_kept_longer_after_a_crash_too() {
    let mut a = with_short_events(&[PEER]);
    publish_long(&mut a, 0..30);
    a.crash();
    let app = a.connect("replay=all");
    a.settle();
    assert_eq!(handed(&mut a, app)[1..], ids(0..30));
    a.lose(app);
    a.pass(SECOND);
    they_wait_for_the_peer(a);
}
