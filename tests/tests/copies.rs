//! One key for several tag sets, and one message through several nodes, as applications see them
//! (P6, P10).

use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{DeadLetterId, Incarnation, LinkId, NodeId, Sequence, StoreId};
use slipstream_core::io::{Frame, Input};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::time::WallMs;
use slipstream_core::wire::{BatchKind, FrameWriter, Hello};
use slipstream_tests::world::World;

/// A node with the tags `aws` and `eu`.
fn node() -> World {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.tags = slipstream_core::tags::TagSet::new(["aws", "eu"]).expect("good tags");
    World::with(config)
}

/// A link from the node `name`, which exists only in these frames.
fn peer(world: &mut World, name: &str) -> LinkId {
    let store = StoreId(name.bytes().map(u128::from).sum());
    let hello = Hello { store, ..world.hello(name) };
    world.greet(hello)
}

/// A value of `order:1`, written so many milliseconds after the node has started.
fn value(
    after: u64,
    origin: &'static str,
    id: &'static str,
    body: &'static str,
) -> Fields<'static> {
    Fields {
        kind: Kind::Sk,
        incarnation: Incarnation::new(1),
        sequence: Sequence::new(after),
        version: Hlc::at(WallMs(1_790_000_000_000 + after)),
        expires: WallMs(0),
        group: "",
        tags: "",
        path: origin,
        id,
        key: "order:1",
        body,
    }
}

/// A copy of the message `id` that the group has accepted at `origin`.
fn copy(after: u64, origin: &'static str, id: &'static str, body: &'static str) -> Fields<'static> {
    Fields { group: "g", ..value(after, origin, id, body) }
}

/// An event of the group, likewise.
fn event(after: u64, origin: &'static str, id: &'static str) -> Fields<'static> {
    let expires = WallMs(1_790_000_060_000 + after);
    Fields { kind: Kind::Cmd, expires, ..copy(after, origin, id, "1") }
}

fn send(world: &mut World, link: LinkId, messages: &[Fields<'_>]) {
    let mut writer = FrameWriter::new(BatchKind::Messages);
    for fields in messages {
        writer.push_message(&Message::encode(fields, &mut BytesMut::new()));
    }
    world.give(Input::Received { link, frame: Frame::Binary(writer.finish()) });
    world.settle();
}

/// Ids and numbers of the deliveries so far.
fn handed(world: &mut World, app: LinkId) -> Vec<(String, u64)> {
    let deliveries = world.said(app).into_iter().filter(|frame| frame["deliveryId"].is_u64());
    deliveries
        .map(|frame| {
            let id = frame["messageId"].as_str().expect("an id").to_owned();
            (id, frame["deliveryId"].as_u64().expect("a number"))
        })
        .collect()
}

fn ids(handed: &[(String, u64)]) -> Vec<&str> {
    handed.iter().map(|(id, _)| id.as_str()).collect()
}

fn acknowledge(world: &mut World, app: LinkId, delivery: u64) {
    world.text(app, &format!(r#"{{"type":"ACK","deliveryId":{delivery}}}"#));
    world.settle();
}

fn read(world: &mut World, app: LinkId) -> Value {
    world.text(app, r#"{"type":"GK","messageId":"r","key":"order:1"}"#);
    world.settle();
    let said = world.said(app);
    said.into_iter().find(|frame| frame["type"] == "RESULT").expect("a result")
}

// keeps: several-tag-sets
#[test]
fn an_older_value_of_another_tag_set_is_not_handed_over() {
    let mut world = node();
    let apps = [world.connect("client=both"), world.connect("client=one&tags=aws")];
    world.settle();
    world.said(apps[0]);
    world.said(apps[1]);
    let link = peer(&mut world, "z");
    let of = |after, id, tags| Fields { tags, ..value(after, "z", id, "1") };
    send(&mut world, link, &[of(5, "newer", "eu"), of(3, "older", "aws")]);
    assert_eq!(ids(&handed(&mut world, apps[0])), ["newer"], "it matches both tag sets");
    assert_eq!(ids(&handed(&mut world, apps[1])), ["older"], "the newest of those for it");
    assert_eq!(read(&mut world, apps[0])["value"], 1);

    send(&mut world, link, &[of(9, "newest", "aws")]);
    assert_eq!(ids(&handed(&mut world, apps[0])), ["newest"]);
}

// keeps: several-tag-sets
#[test]
fn after_a_restart_only_the_newest_of_all_tag_sets_is_handed() {
    let mut world = node();
    let link = peer(&mut world, "z");
    let of = |after, id, tags| Fields { tags, ..value(after, "z", id, "1") };
    send(&mut world, link, &[of(3, "a", "aws"), of(5, "b", "eu"), of(4, "c", "")]);
    world.crash();
    let app = world.connect("client=late");
    world.settle();
    assert_eq!(ids(&handed(&mut world, app)), ["b"]);
}

// keeps: several-tag-sets
#[test]
fn a_repeat_gives_way_to_a_newer_value_of_another_tag_set() {
    let mut world = node();
    let app = world.connect("client=slow");
    world.settle();
    let link = peer(&mut world, "z");
    let of = |after, id, tags| Fields { tags, ..value(after, "z", id, "1") };
    send(&mut world, link, &[of(3, "a", "aws")]);
    send(&mut world, link, &[of(5, "b", "eu")]);
    assert_eq!(ids(&handed(&mut world, app)), ["a", "b"]);
    world.pass(Duration::from_secs(6));
    assert_eq!(ids(&handed(&mut world, app)), ["b"], "`a` is not the newest any more");
}

// keeps: group-once
#[test]
fn of_two_copies_an_application_is_handed_one() {
    let mut world = node();
    let app = world.connect("client=pi-1");
    world.settle();
    let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
    send(&mut world, x, &[copy(3, "x", "m-1", "1"), event(4, "x", "e-1")]);
    let first = handed(&mut world, app);
    assert_eq!(ids(&first), ["m-1", "e-1"]);
    first.iter().for_each(|(_, delivery)| acknowledge(&mut world, app, *delivery));
    send(&mut world, y, &[copy(5, "y", "m-1", "1"), event(6, "y", "e-1")]);
    assert!(handed(&mut world, app).is_empty());
    assert_eq!(world.status().counters.duplicates["group"], 2);
    assert_eq!(world.store.messages().count(), 4, "both are carried on");

    // Copies are remembered across a restart.
    world.crash();
    let app = world.connect("client=pi-1");
    world.settle();
    let z = peer(&mut world, "z");
    send(&mut world, z, &[copy(7, "z", "m-1", "1"), event(8, "z", "e-1")]);
    assert!(handed(&mut world, app).is_empty());
}

// keeps: group-once
#[test]
fn another_write_between_two_copies_makes_the_second_one_news() {
    let mut world = node();
    let app = world.connect("client=pi-1");
    world.settle();
    let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
    send(&mut world, x, &[copy(3, "x", "m-1", "1"), copy(4, "x", "m-2", "2")]);
    send(&mut world, y, &[copy(5, "y", "m-1", "1")]);
    assert_eq!(ids(&handed(&mut world, app)), ["m-1", "m-2", "m-1"]);
    assert_eq!(read(&mut world, app)["value"], 1);
}

// keeps: group-once
#[test]
fn a_write_for_other_tags_makes_the_second_copy_news_too() {
    // The second is stamped by another node in the same moment.
    for after in [4, 3] {
        let mut world = node();
        let app = world.connect("client=pi-1");
        world.settle();
        let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
        let between = Fields { tags: "aws", ..value(after, "z,x", "m-2", "2") };
        send(&mut world, x, &[copy(3, "x", "m-1", "1"), between]);
        send(&mut world, y, &[copy(5, "y", "m-1", "1")]);
        assert_eq!(ids(&handed(&mut world, app)), ["m-1", "m-2", "m-1"], "{after}");
    }
}

#[test]
fn what_is_no_copy_is_handed_on() {
    let mut world = node();
    let app = world.connect("client=pi-1");
    world.settle();
    let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
    let others = [
        event(5, "y", "e-2"),
        Fields { body: "2", ..event(6, "y", "e-1") },
        Fields { group: "other", ..event(7, "y", "e-1") },
        Fields { group: "", ..event(8, "y", "e-1") },
    ];
    send(&mut world, x, &[event(3, "x", "e-1")]);
    send(&mut world, y, &others);
    assert_eq!(ids(&handed(&mut world, app)), ["e-1", "e-2", "e-1", "e-1", "e-1"]);
}

// keeps: group-once
#[test]
fn a_copy_waits_for_the_one_in_flight_and_is_settled_with_it() {
    let mut world = node();
    let app = world.connect("client=pi-1");
    world.settle();
    let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
    send(&mut world, x, &[event(3, "x", "e-1")]);
    send(&mut world, y, &[event(5, "y", "e-1")]);
    let first = handed(&mut world, app);
    assert_eq!(ids(&first), ["e-1"]);
    acknowledge(&mut world, app, first[0].1);
    world.pass(Duration::from_secs(10));
    assert!(handed(&mut world, app).is_empty());
    let sessions = world.status().sessions;
    let session = sessions.iter().find(|session| session.name == "app:pi-1").expect("it is there");
    assert_eq!((session.in_flight, session.behind), (0, 0));
}

// keeps: group-once
#[test]
fn what_is_a_dead_letter_is_not_handed_over_as_a_copy() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.retry.max_attempts = 1;
    let mut world = World::with(config);
    let app = world.connect("client=pi-1");
    world.settle();
    let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
    send(&mut world, x, &[copy(3, "x", "m-1", "1")]);
    assert_eq!(ids(&handed(&mut world, app)), ["m-1"]);
    world.pass(Duration::from_secs(10));
    let died = |event: &Event| matches!(event, Event::DeadLetter { .. });
    let deaths = |world: &World| world.events.iter().filter(|event| died(event)).count();
    assert_eq!(deaths(&world), 1);
    send(&mut world, y, &[copy(5, "y", "m-1", "1")]);
    assert!(handed(&mut world, app).is_empty());
    assert_eq!(deaths(&world), 1);
    // Another write between them makes the copy news.
    send(&mut world, x, &[copy(6, "x", "m-2", "2")]);
    let newest = handed(&mut world, app);
    assert_eq!(ids(&newest), ["m-2"]);
    acknowledge(&mut world, app, newest[0].1);
    send(&mut world, y, &[copy(7, "y", "m-1", "1")]);
    assert_eq!(ids(&handed(&mut world, app)), ["m-1"]);
}

// keeps: group-once
#[test]
fn a_copy_replaces_the_one_in_flight() {
    let mut world = node();
    let app = world.connect("client=pi-1");
    world.settle();
    world.said(app);
    let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
    send(&mut world, x, &[copy(3, "x", "m-1", "1")]);
    // Its application has not got it: the connection is lost with it.
    world.lose(app);
    send(&mut world, y, &[copy(5, "y", "m-1", "1")]);
    let app = world.connect("client=pi-1");
    world.settle();
    world.pass(Duration::from_secs(1));
    let again = handed(&mut world, app);
    assert_eq!(ids(&again), ["m-1"]);
    acknowledge(&mut world, app, again[0].1);
    world.pass(Duration::from_secs(60));
    assert!(handed(&mut world, app).is_empty());
}

// keeps: group-once
#[test]
fn new_subscriber_between_group_copies_gets_the_second() {
    let mut world = node();
    let x = peer(&mut world, "x");
    send(&mut world, x, &[copy(3, "x", "m-1", "1"), event(4, "x", "e-1")]);
    let new = world.connect("client=new&replay=new");
    let all = world.connect("client=all&replay=all");
    world.settle();
    let y = peer(&mut world, "y");
    send(&mut world, y, &[copy(5, "y", "m-1", "1"), event(6, "y", "e-1")]);
    assert_eq!(ids(&handed(&mut world, new)), ["m-1", "e-1"]);
    assert_eq!(ids(&handed(&mut world, all)), ["m-1", "e-1"], "each once");
}

// keeps: group-once
#[test]
fn subscriber_after_a_forgotten_event_gets_the_later_copy() {
    for restarts in [false, true] {
        let mut world = node();
        world.config.store.history_max_bytes = 2_000;
        world.crash();
        let x = peer(&mut world, "x");
        send(&mut world, x, &[event(3, "x", "e-1")]);
        for n in 4..104 {
            send(&mut world, x, &[Fields { group: "", ..event(n, "x", "other") }]);
        }
        assert!(world.store.messages().all(|message| message.id() != "e-1"), "it is forgotten");
        let mut app = world.connect("client=pi-1");
        world.settle();
        let had = handed(&mut world, app);
        assert!(!had.is_empty() && !ids(&had).contains(&"e-1"), "what is still there");
        had.iter().for_each(|(_, delivery)| acknowledge(&mut world, app, *delivery));
        if restarts {
            world.pass(Duration::from_secs(1));
            world.crash();
            app = world.connect("client=pi-1");
            world.settle();
            assert!(handed(&mut world, app).is_empty(), "all is acknowledged");
        }
        let y = peer(&mut world, "y");
        send(&mut world, y, &[event(200, "y", "e-1")]);
        let copy = handed(&mut world, app);
        assert_eq!(ids(&copy), ["e-1"], "after a restart: {restarts}");
        acknowledge(&mut world, app, copy[0].1);
        let z = peer(&mut world, "z");
        send(&mut world, z, &[event(201, "z", "e-1")]);
        assert!(handed(&mut world, app).is_empty(), "once");
    }
}

#[test]
fn a_publisher_through_two_nodes_gets_no_own_message() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.cluster_group = Some("g".into());
    let mut world = World::with(config);
    let (till, other) = (world.connect("client=till"), world.connect("client=pi-1"));
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    let y = peer(&mut world, "y");
    send(&mut world, y, &[copy(5, "y", "m-1", "1")]);
    assert!(handed(&mut world, till).is_empty());
    assert_eq!(ids(&handed(&mut world, other)), ["m-1"]);
}

/// Has every dead letter of the node handed over again.
fn replay_letters(world: &mut World) -> usize {
    let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 99 };
    let AdminAnswer::DeadLetters(letters) = world.ask(all) else { panic!("a list") };
    for (name, letter) in &letters {
        assert_eq!(name, "node");
        let replay = AdminRequest::ReplayDeadLetter(letter.id);
        assert!(matches!(world.ask(replay), AdminAnswer::Done));
    }
    letters.len()
}

// keeps: node-letter-replay
#[test]
fn two_letters_of_one_event_are_handed_over_once() {
    let mut world = node();
    let links = [peer(&mut world, "y"), peer(&mut world, "z")];
    let of = |after, origin| Fields { tags: "gcp", ..event(after, origin, "c-1") };
    send(&mut world, links[0], &[of(1, "y")]);
    send(&mut world, links[1], &[of(2, "z")]);
    links.into_iter().for_each(|link| world.lose(link));
    world.pass(Duration::from_secs(70));
    let app = world.connect("client=pi-1&tags=gcp&replay=new");
    world.settle();
    assert_eq!(replay_letters(&mut world), 2);
    let first = handed(&mut world, app);
    assert_eq!(ids(&first), ["c-1"]);
    // Nor is a third copy, which comes later.
    let link = peer(&mut world, "x");
    send(&mut world, link, &[Fields { expires: WallMs(u64::MAX >> 1), ..of(3, "x") }]);
    acknowledge(&mut world, app, first[0].1);
    assert!(handed(&mut world, app).is_empty());
}

// keeps: node-letter-replay
#[test]
fn who_had_a_copy_is_not_handed_the_letter_of_another_one() {
    let mut world = node();
    let links = [peer(&mut world, "y"), peer(&mut world, "z")];
    let of = |after, origin| Fields { tags: "gcp", ..event(after, origin, "c-1") };
    send(&mut world, links[0], &[of(1, "y")]);
    let app = world.connect("client=pi-1&tags=gcp&replay=new");
    world.settle();
    send(&mut world, links[1], &[of(2, "z")]);
    let copy = handed(&mut world, app);
    assert_eq!(ids(&copy), ["c-1"]);
    acknowledge(&mut world, app, copy[0].1);
    links.into_iter().for_each(|link| world.lose(link));
    world.pass(Duration::from_secs(70));
    assert_eq!(replay_letters(&mut world), 1);
    assert!(handed(&mut world, app).is_empty());
}

// keeps: node-letter-replay
#[test]
fn a_letter_of_an_event_that_was_passed_over_is_handed_over() {
    let mut world = node();
    let link = peer(&mut world, "y");
    let app = world.connect("tags=gcp&ack=manual");
    world.settle();
    world.said(app);
    let first = Fields { tags: "gcp", ..event(1, "y", "c-1") };
    // Its time is over when it comes.
    world.lose(link);
    world.pass(Duration::from_secs(61));
    let link = peer(&mut world, "y");
    send(&mut world, link, &[first]);
    world.lose(link);
    world.pass(Duration::from_secs(5));
    assert_eq!(replay_letters(&mut world), 1);
    assert_eq!(ids(&handed(&mut world, app)), ["c-1"]);
}

// keeps: group-once
#[test]
fn subscriber_after_an_expired_event_gets_the_live_copy() {
    for (restarts, has_gone) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = node();
        world.config.store.history_max_bytes = if has_gone { 2_000 } else { 1 << 30 };
        world.crash();
        let first = world.connect("client=pi-1&keys=order:");
        world.settle();
        let x = peer(&mut world, "x");
        // One before it lives for longer, and one is over when the second application comes.
        let long =
            |after| Fields { expires: WallMs(1_790_009_000_000), ..event(after, "x", "long") };
        let short = |after, origin, lives: u64| {
            let expires = WallMs(1_790_000_000_000 + after + lives);
            Fields { expires, ..event(after, origin, "e-1") }
        };
        send(&mut world, x, &[long(3), short(4, "x", 1_000)]);
        let had = handed(&mut world, first);
        assert_eq!(ids(&had), ["long", "e-1"]);
        had.iter().for_each(|(_, delivery)| acknowledge(&mut world, first, *delivery));
        world.pass(Duration::from_secs(5));
        if has_gone {
            for n in 5..105 {
                let of_others = Fields { key: "other", body: "0", ..value(n, "x", "other", "0") };
                send(&mut world, x, &[of_others]);
            }
            assert!(world.store.messages().all(|message| message.id() != "e-1"), "it is dropped");
        }
        let query = "client=pi-2&keys=order:";
        let mut second = world.connect(query);
        world.settle();
        let had = handed(&mut world, second);
        assert_eq!(ids(&had), ["long"]);
        acknowledge(&mut world, second, had[0].1);
        let mut first = first;
        let mut y = world.hello("y");
        y.store = StoreId(121);
        if restarts {
            world.pass(Duration::from_secs(1));
            world.crash();
            first = world.connect("client=pi-1&keys=order:");
            second = world.connect(query);
            world.settle();
            assert!(handed(&mut world, second).is_empty());
        }
        let y = world.greet(y);
        send(&mut world, y, &[short(6_000, "y", 60_000)]);
        let copy = handed(&mut world, second);
        assert_eq!(ids(&copy), ["e-1"], "restarts: {restarts}, is gone: {has_gone}");
        assert!(handed(&mut world, first).is_empty(), "it has had one");
        acknowledge(&mut world, second, copy[0].1);
        let z = peer(&mut world, "z");
        send(&mut world, z, &[short(6_001, "z", 60_000)]);
        assert!(handed(&mut world, second).is_empty(), "once");
    }
}

// keeps: group-once
#[test]
fn who_was_away_until_an_event_was_over_is_handed_its_copy() {
    let mut world = node();
    let app = world.connect("client=pi-1");
    world.settle();
    world.lose(app);
    let (x, y) = (peer(&mut world, "x"), peer(&mut world, "y"));
    let expires = WallMs(1_790_000_001_003);
    send(&mut world, x, &[Fields { expires, ..event(3, "x", "e-1") }]);
    world.pass(Duration::from_secs(5));
    send(&mut world, y, &[event(4, "y", "e-1")]);
    let app = world.connect("client=pi-1");
    world.settle();
    let copy = handed(&mut world, app);
    assert_eq!(ids(&copy), ["e-1"]);
    acknowledge(&mut world, app, copy[0].1);
    let z = peer(&mut world, "z");
    send(&mut world, z, &[event(5, "z", "e-1")]);
    assert!(handed(&mut world, app).is_empty(), "once");
}
