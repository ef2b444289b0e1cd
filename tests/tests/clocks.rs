//! Three nodes and a clock that was wrong once: what is stamped in the wrong time gives way to
//! what the other nodes take, and an operator's word ends the doubt and loses nothing.

use std::time::Duration;

use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRefusal, AdminRequest};
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{LinkId, NodeId, Ticket};
use slipstream_core::io::Input;
use slipstream_core::store::StoreFailure;
use slipstream_core::time::Now;
use slipstream_tests::world::{self, Wire, World};

/// How far ahead the clock of the first node once was.
const AHEAD: Duration = Duration::from_secs(2 * 365 * 86_400);

/// A node that dials the first one.
fn behind_the_first(id: &str) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a name"));
    config.peers = vec!["ws://a".into()];
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

/// The node in the middle, and two that are linked through it.
struct Line {
    a: World,
    b: World,
    c: World,
    to_b: Option<Wire>,
    to_c: Option<Wire>,
}

impl Line {
    /// Nobody is linked yet, and the clock of the first node is ahead.
    fn new() -> Self {
        let mut a = World::new("a");
        a.now.wall = a.now.wall.plus(AHEAD);
        a.crash();
        let (b, c) = (behind_the_first("b"), behind_the_first("c"));
        Self { a, b, c, to_b: None, to_c: None }
    }

    /// The clock of the first node is set right, and the node starts again.
    fn set_right(&mut self) {
        self.a.now.wall = self.a.now.wall.minus(AHEAD);
        self.a.crash();
    }

    fn link_b(&mut self) {
        self.to_b = Some(world::join(&mut self.b, &mut self.a));
    }

    fn link_c(&mut self) {
        self.to_c = Some(world::join(&mut self.c, &mut self.a));
    }

    /// Frames are carried, and seconds pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            if let Some(wire) = self.to_b {
                world::carry(&mut self.b, &mut self.a, wire);
            }
            if let Some(wire) = self.to_c {
                world::carry(&mut self.c, &mut self.a, wire);
            }
            for node in [&mut self.a, &mut self.b, &mut self.c] {
                node.pass(Duration::from_millis(500));
            }
        }
    }

    fn reads(&mut self, key: &str) -> [Value; 3] {
        [&mut self.a, &mut self.b, &mut self.c].map(|node| read(node, key, ""))
    }
}

/// What an application with these tags reads under a key.
fn read(node: &mut World, key: &str, query: &str) -> Value {
    let app = node.connect(&format!("keys=&{query}"));
    node.settle();
    node.said(app);
    node.text(app, &format!(r#"{{"type":"GK","messageId":"r","key":"{key}"}}"#));
    node.settle();
    let said = node.said(app);
    node.lose(app);
    said[0]["value"].clone()
}

/// Publishes a frame through a node; answers what the node says.
fn publish(node: &mut World, frame: &str) -> Value {
    let app = publisher(node);
    node.text(app, frame);
    node.settle();
    let answer = node.said(app).remove(0);
    node.lose(app);
    answer
}

fn publisher(node: &mut World) -> LinkId {
    let app = node.connect("keys=");
    node.settle();
    node.said(app);
    app
}

fn set(node: &mut World, id: &str, key: &str, value: &str) {
    let frame = format!(r#"{{"type":"SK","messageId":"{id}","key":"{key}","value":"{value}"}}"#);
    let answer = publish(node, &frame);
    assert_eq!(answer["type"], "ACK", "{answer}");
}

/// What is stamped in the wrong time and in the right one, of each kind of state, and whether the
/// key has a value at the end.
const KINDS: [(&str, &str, Option<&str>); 4] = [
    (r#""type":"SK","value":"future""#, r#""type":"DK""#, None),
    (r#""type":"DK""#, r#""type":"SK","value":"new""#, Some(r#""new""#)),
    (r#""type":"SA","value":["future"]"#, r#""type":"SA","value":["new"]"#, Some(r#"["new"]"#)),
    (r#""type":"SW","value":{"a":1}"#, r#""type":"SW","value":{"b":2}"#, Some(r#"{"b":2}"#)),
];

fn send(node: &mut World, id: &str, rest: &str) {
    let answer = publish(node, &format!(r#"{{"messageId":"{id}","key":"k",{rest}}}"#));
    assert_eq!(answer["type"], "ACK", "{answer}");
}

/// The value that a node reads where this was written, if there is one.
fn newest(node: &mut World, kind: &str) -> Option<String> {
    let app = publisher(node);
    let read = match &kind[8..10] {
        "SA" => "GA",
        "SW" => "GW",
        _ => "GK",
    };
    node.text(app, &format!(r#"{{"type":"{read}","messageId":"r","key":"k"}}"#));
    node.settle();
    let said = node.said(app).remove(0);
    node.lose(app);
    said["found"].as_bool().expect("it is a result").then(|| said["value"].to_string())
}

// keeps: untimely-versions
#[test]
fn each_kind_of_state_gives_way() {
    for (wrong, right, expected) in KINDS {
        let mut line = Line::new();
        send(&mut line.a, "future", wrong);
        line.set_right();
        line.link_b();
        line.link_c();
        line.pass(3);
        send(&mut line.c, "new", right);
        line.pass(10);
        for node in [&mut line.a, &mut line.b, &mut line.c] {
            assert_eq!(newest(node, right).as_deref(), expected, "{wrong} and {right}");
        }
    }
}

// keeps: untimely-versions
#[test]
fn an_untimely_value_gives_way_after_a_restart_between() {
    let mut line = Line::new();
    set(&mut line.a, "future", "k", "future");
    line.set_right();
    line.link_c();
    line.pass(3);
    line.a.crash();
    set(&mut line.c, "new", "k", "new");
    line.c.crash();
    line.c.pass(Duration::ZERO);
    line.link_c();
    line.link_b();
    line.pass(10);
    assert_eq!(line.reads("k"), ["new"; 3].map(Value::from));
}

// keeps: untimely-versions
#[test]
fn an_untimely_value_for_other_tags_gives_way_in_reads_too() {
    let mut line = Line::new();
    set(&mut line.a, "future", "k", "future");
    line.set_right();
    line.a.connect("tags=eu");
    line.link_c();
    line.link_b();
    line.pass(3);
    let frame = r#"{"type":"SK","messageId":"new","key":"k","value":"new","targetedTags":["eu"]}"#;
    assert_eq!(publish(&mut line.c, frame)["type"], "ACK");
    line.pass(10);
    assert_eq!(read(&mut line.a, "k", "tags=eu"), "new");
    assert_eq!(read(&mut line.a, "k", "tags=us"), "future", "nothing else is for it");
    let app = line.a.connect("tags=eu&replay=all");
    line.a.settle();
    let said = line.a.said(app);
    let values: Vec<&Value> = said.iter().filter(|it| it["type"] == "SK").collect();
    assert_eq!(values.len(), 1, "{said:?}");
    assert_eq!(values[0]["value"], "new");
}

// keeps: untimely-versions
#[test]
fn what_gave_way_is_taken_where_it_became_timely() {
    // Both were five minutes ahead, and one hears of the newer value too late.
    let wrong = Duration::from_secs(300);
    let mut line = Line::new();
    line.a.now.wall = line.b.now.wall.plus(wrong);
    line.a.store = World::new("a").store;
    line.a.crash();
    line.b.now.wall = line.b.now.wall.plus(wrong);
    line.b.crash();
    line.b.pass(Duration::ZERO);
    line.link_b();
    set(&mut line.a, "future", "k", "future");
    line.pass(3);
    for node in [&mut line.a, &mut line.b] {
        node.now.wall = line.c.now.wall;
        node.crash();
        node.pass(Duration::ZERO);
    }
    line.to_b = None;
    line.link_c();
    line.pass(3);
    set(&mut line.c, "new", "k", "new");
    line.pass(3);
    assert_eq!(read(&mut line.a, "k", ""), "new");
    line.pass(301);
    line.link_b();
    line.pass(60);
    assert_eq!(line.reads("k"), ["future"; 3].map(Value::from));
}

// keeps: untimely-versions
#[test]
fn an_untimely_value_gives_way_to_what_others_take() {
    let mut line = Line::new();
    set(&mut line.a, "future", "k", "future");
    line.set_right();
    line.link_b();
    line.link_c();
    line.pass(3);
    set(&mut line.c, "new", "k", "new");
    line.pass(10);
    assert_eq!(line.reads("k"), ["new"; 3].map(Value::from));
    line.a.crash();
    assert_eq!(read(&mut line.a, "k", ""), "new", "also after a restart");
    for peer in line.a.status().sessions {
        assert_eq!((peer.in_flight, peer.behind), (0, 0), "{}", peer.name);
    }
}

// keeps: untimely-versions
#[test]
fn what_comes_before_any_peer_agrees_waits() {
    let mut line = Line::new();
    set(&mut line.a, "future", "k", "future");
    line.set_right();
    set(&mut line.c, "new", "k", "new");
    line.link_c();
    line.pass(10);
    line.link_b();
    line.pass(10);
    assert_eq!(line.reads("k"), ["new"; 3].map(Value::from));
}

/// Resets the clock of a node; answers how many values were stamped anew.
fn reset(node: &mut World) -> u64 {
    match node.ask(AdminRequest::ResetClock) {
        AdminAnswer::ClockReset { restamped, fault: None, .. } => restamped,
        other => panic!("{other:?}"),
    }
}

// keeps: clock-reset
#[test]
fn an_operator_ends_the_doubt_and_loses_nothing() {
    let mut line = Line::new();
    for (id, key) in [("f-1", "k1"), ("f-2", "k2"), ("f-3", "k3")] {
        set(&mut line.a, id, key, "future");
    }
    line.set_right();
    line.link_b();
    line.link_c();
    line.pass(3);
    set(&mut line.c, "new", "k1", "new");
    line.pass(3);
    let frame = r#"{"type":"SK","messageId":"m","key":"other","value":1}"#;
    let refused = publish(&mut line.a, frame);
    assert_eq!(refused["code"], "CLOCK", "{refused}");
    let said = refused["message"].as_str().unwrap_or_default();
    assert!(said.contains("slipstream clock reset"), "{said}");
    assert_eq!(reset(&mut line.a), 2);
    assert_eq!(publish(&mut line.a, frame)["type"], "ACK");
    line.pass(10);
    assert_eq!(line.reads("k1"), ["new"; 3].map(Value::from));
    assert_eq!(line.reads("k2"), ["future"; 3].map(Value::from));
    assert_eq!(line.reads("k3"), ["future"; 3].map(Value::from));
    assert_eq!(line.reads("other"), [1; 3].map(Value::from));
    for peer in line.a.status().sessions {
        assert_eq!((peer.in_flight, peer.behind), (0, 0), "{}", peer.name);
        assert_eq!(peer.digests, Some("equal"), "{}", peer.name);
    }
    assert_eq!(reset(&mut line.a), 0, "there is nothing left to do");
    line.a.crash();
    assert_eq!(line.a.status().refusing, None, "nor is there after a restart");
}

// keeps: clock-reset, group-once
#[test]
fn what_a_group_stamps_anew_is_news_to_who_has_had_another() {
    let mut line = Line::new();
    let mut config = Config::new(NodeId::new("a").expect("a name"));
    config.cluster_group = Some("g".into());
    line.a = World::with(config);
    line.a.now.wall = line.a.now.wall.plus(AHEAD);
    line.a.crash();
    let values = |node: &mut World| {
        let app = node.connect("client=till&tags=eu&ack=auto&replay=all");
        node.settle();
        let said = node.said(app);
        node.lose(app);
        let values = said.iter().filter(|it| it["type"] == "SK");
        values.map(|it| it["value"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    set(&mut line.a, "f", "k", "future");
    assert_eq!(values(&mut line.a), ["future"]);
    line.pass(10);
    line.set_right();
    line.link_b();
    line.link_c();
    line.pass(3);
    let frame = r#"{"type":"SK","messageId":"n","key":"k","value":"new","targetedTags":["eu"]}"#;
    assert_eq!(publish(&mut line.c, frame)["type"], "ACK");
    line.pass(10);
    assert_eq!(values(&mut line.a), ["new"]);
    assert_eq!(reset(&mut line.a), 1);
    assert_eq!(values(&mut line.a), ["future"], "it is the newest now");
    assert_eq!(read(&mut line.a, "k", "tags=eu"), "future");
}

// keeps: clock-reset
#[test]
fn a_reset_that_is_killed_between_is_given_again() {
    let mut line = Line::new();
    let till = publisher(&mut line.a);
    for number in 0..1_500 {
        line.a.publish(till, &format!("m-{number}"), &format!("k{number}"), "1");
    }
    line.a.settle();
    line.set_right();
    let ticket = Ticket::new(1_000);
    line.a.give(Input::Admin { ticket, request: AdminRequest::ResetClock });
    let mut done = 0;
    while done == 0 {
        line.a.step();
        let now = line.a.now.wall;
        done = line.a.store.messages().filter(|it| it.version().wall() <= now).count();
    }
    assert!(done < 1_500, "{done} are stamped anew at once");
    line.a.crash();
    assert!(line.a.status().refusing.is_some(), "it is what it was");
    assert_eq!(reset(&mut line.a), 1_500 - done as u64);
    line.a.crash();
    assert_eq!(line.a.status().refusing, None);
    line.link_c();
    line.pass(30);
    assert_eq!(read(&mut line.c, "k0", ""), 1);
    assert_eq!(read(&mut line.c, "k1499", ""), 1);
    let peer = line.a.status().sessions.into_iter().find(|it| it.name == "peer:c");
    assert_eq!(peer.and_then(|it| it.digests), Some("equal"));
}

// keeps: clock-reset
#[test]
fn a_reset_waits_for_what_is_written_and_is_joined() {
    let mut line = Line::new();
    let till = publisher(&mut line.a);
    line.a.publish(till, "m-1", "k", "1");
    line.a.now.wall = line.a.now.wall.minus(AHEAD);
    for number in 1_000..1_002 {
        let (ticket, request) = (Ticket::new(number), AdminRequest::ResetClock);
        line.a.give(Input::Admin { ticket, request });
    }
    assert_eq!(line.a.status().refusing, None, "the jump is over");
    line.link_c();
    line.pass(10);
    assert_eq!(read(&mut line.c, "k", ""), 1);
}

// keeps: clock-reset
#[test]
fn what_is_deleted_in_the_wrong_time_stays_deleted() {
    let mut line = Line::new();
    set(&mut line.c, "old", "k", "old");
    send(&mut line.a, "f-1", r#""type":"DK""#);
    send(&mut line.a, "f-2", r#""type":"SA","value":[1],"targetedTags":["eu"]"#);
    line.set_right();
    line.a.pass(Duration::from_secs(1));
    assert_eq!(reset(&mut line.a), 2);
    line.c.connect("tags=eu");
    line.link_c();
    line.link_b();
    line.pass(10);
    assert_eq!(line.reads("k"), [Value::Null, Value::Null, Value::Null]);
    assert_eq!(line.a.store.usage().tombstones, 1);
    assert_eq!(line.c.store.usage().tombstones, 1);
}

// keeps: clock-reset
#[test]
fn a_reset_is_refused_where_most_peers_say_otherwise() {
    let mut line = Line::new();
    line.link_b();
    line.link_c();
    line.pass(3);
    let refused = line.a.ask(AdminRequest::ResetClock);
    let AdminAnswer::Refused(AdminRefusal::OffFromPeers(off)) = refused else {
        panic!("{refused:?}")
    };
    assert!(off.to_string().contains("ahead of most peers"), "{off}");
    line.a.now.wall = line.b.now.wall.minus(Duration::from_secs(86_400));
    line.pass(3);
    let refused = line.a.ask(AdminRequest::ResetClock);
    let AdminAnswer::Refused(AdminRefusal::OffFromPeers(off)) = refused else {
        panic!("{refused:?}")
    };
    assert!(off.to_string().contains("behind most peers"), "{off}");
}

// keeps: clock-reset
#[test]
fn a_reset_without_room_says_so_and_is_given_again() {
    let mut line = Line::new();
    set(&mut line.a, "future", "k", "future");
    line.set_right();
    line.a.store.ballast = line.a.config.store.max_bytes * 2;
    line.a.crash();
    let refused = line.a.ask(AdminRequest::ResetClock);
    assert!(
        matches!(&refused, AdminAnswer::Refused(AdminRefusal::Store(StoreFailure::Full(_)))),
        "{refused:?}"
    );
    line.a.store.ballast = 0;
    line.a.crash();
    assert!(line.a.status().refusing.is_some());
    assert_eq!(reset(&mut line.a), 1);
}

// keeps: untimely-versions
#[test]
fn a_peer_far_ahead_acknowledges_nothing_it_would_outdo() {
    let mut line = Line::new();
    set(&mut line.a, "future", "k", "future");
    set(&mut line.c, "new", "k", "new");
    line.link_c();
    line.link_b();
    line.pass(10);
    assert_eq!(read(&mut line.b, "k", ""), Value::Null);
    for node in [&mut line.b, &mut line.c] {
        node.crash();
        node.pass(Duration::ZERO);
    }
    line.set_right();
    line.link_c();
    line.link_b();
    line.pass(10);
    assert_eq!(line.reads("k"), ["new"; 3].map(Value::from));
}

// keeps: suspend
#[test]
fn a_suspend_is_a_pause_and_no_jump() {
    let mut line = Line::new();
    line.set_right();
    let mut world = line.a;
    let app = world.connect("client=pi-1&replay=new");
    world.settle();
    world.said(app);
    let till = publisher(&mut world);
    let event = r#"{"type":"CMD","messageId":"short","key":"k","value":1,"ttlMs":60000}"#;
    world.text(till, event);
    world.publish(till, "m-1", "k", "1");
    world.settle();
    assert_eq!(world.said(app).len(), 2, "both are handed over, and neither is acknowledged");
    let events = world.events.len();
    let night = Duration::from_secs(8 * 3_600);
    world.now = Now { instant: world.now.instant + night, wall: world.now.wall.plus(night) };
    world.give(Input::Timer);
    world.settle();
    assert_eq!(world.status().refusing, None);
    let is_fault = |event: &&Event| matches!(event, Event::ClockFault(_));
    assert_eq!(world.events[events..].iter().find(is_fault), None);
    world.pass(Duration::from_secs(1));
    assert!(world.closed.is_empty(), "nobody could be heard meanwhile: {:?}", world.closed);
    world.publish(till, "m-2", "k2", "2");
    world.settle();
    let said = world.said(app);
    let handed = |id: &str| said.iter().filter(|it| it["messageId"] == id).count();
    assert_eq!((handed("m-1"), handed("m-2"), handed("short")), (1, 1, 0), "{said:?}");
    let session = world.status().sessions.into_iter().find(|it| it.name == "app:pi-1");
    let dead = session.expect("the session lives on").dead_letters;
    assert_eq!(dead.get("expired"), Some(&1), "its time was over, and no attempt was lost");
    assert_eq!(dead.get("unacknowledged"), None);
}

/// What an application is handed that comes now.
fn ids_at(node: &mut World) -> Vec<String> {
    let app = node.connect("replay=all");
    node.settle();
    let said = node.said(app).into_iter();
    let deliveries = said.filter(|frame| frame["deliveryId"].is_u64());
    let ids = deliveries.map(|frame| frame["messageId"].as_str().expect("an id").to_owned());
    let ids = ids.collect();
    node.lose(app);
    ids
}

const COMMAND: &str = r#"{"type":"CMD","messageId":"c-1","key":"k","value":1}"#;

// keeps: event-any-version
#[test]
fn a_command_in_the_wrong_time_reaches_everybody_at_once() {
    let mut line = Line::new();
    assert_eq!(publish(&mut line.a, COMMAND)["type"], "ACK");
    line.link_b();
    line.pass(3);
    assert_eq!(ids_at(&mut line.b), ["c-1"], "the clock is ahead still");
    line.set_right();
    line.to_b = None;
    line.link_c();
    line.pass(3);
    assert_eq!(ids_at(&mut line.c), ["c-1"]);
    // Who has it already says so, and nobody holds it back.
    line.b.crash();
    line.b.pass(Duration::ZERO);
    line.link_b();
    line.pass(3);
    for peer in line.a.status().sessions {
        assert_eq!((peer.in_flight, peer.behind), (0, 0), "{}", peer.name);
    }
}

// keeps: event-any-version
// keeps: clock-reset
#[test]
fn a_command_in_the_wrong_time_reaches_everybody_after_a_reset() {
    for is_linked in [false, true] {
        let mut line = Line::new();
        assert_eq!(publish(&mut line.a, COMMAND)["type"], "ACK");
        set(&mut line.a, "future", "k", "future");
        line.set_right();
        if is_linked {
            line.link_b();
            line.pass(3);
        }
        assert_eq!(reset(&mut line.a), 1, "a command is not stamped anew");
        line.a.pass(Duration::ZERO);
        if !is_linked {
            line.link_b();
        }
        line.link_c();
        line.pass(10);
        for node in [&mut line.a, &mut line.b, &mut line.c] {
            let ids = ids_at(node);
            assert_eq!(ids.iter().filter(|id| *id == "c-1").count(), 1, "{ids:?}");
        }
        assert_eq!(line.reads("k"), ["future"; 3].map(Value::from));
        for peer in line.a.status().sessions {
            assert_eq!((peer.in_flight, peer.behind), (0, 0), "{}", peer.name);
        }
    }
}
