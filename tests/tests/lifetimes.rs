//! How long events live, whatever the clocks of the nodes on their way say.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::ids::{DeadLetterId, Incarnation, LinkId, NodeId, Sequence};
use slipstream_core::io::{Frame, Input, Protocol};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::time::WallMs;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{
    BatchKind, Connect, FEATURE_ENDS, FrameWriter, Left, TimedHead, Wire as PeerFrame, deliveries,
    timed,
};
use slipstream_tests::world::{Wire, World, carry, join};

const SECOND: Duration = Duration::from_secs(1);
const YEAR_MS: i64 = 366 * 24 * 60 * 60 * 1000;

/// A node that dials the next one, and whose clock is so far ahead.
fn node(id: &str, next: Option<&str>, ahead_ms: i64) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.peers = next.map(|next| format!("ws://{next}")).into_iter().collect();
    // Nobody is to wait for a pong of a world that stands still.
    config.heartbeat.timeout = Duration::from_secs(3600);
    let mut world = World::with(config);
    set_clock(&mut world, ahead_ms);
    world.crash();
    world.pass(Duration::ZERO);
    world
}

/// The wall clock moves, and nothing else.
fn set_clock(world: &mut World, by_ms: i64) {
    world.now.wall = WallMs(world.now.wall.0.saturating_add_signed(by_ms));
}

fn command(world: &mut World, id: &str, ttl_ms: u64) {
    let till = world.connect("keys=");
    world.settle();
    let rest = format!(r#""key":"t","value":1,"ttlMs":{ttl_ms}"#);
    world.text(till, &format!(r#"{{"type":"CMD","messageId":"{id}",{rest}}}"#));
    world.settle();
    assert_eq!(world.said(till).last().expect("an answer")["type"], "ACK");
    world.lose(till);
}

/// What an application is handed that comes now, in each protocol.
fn handed(world: &mut World) -> Vec<String> {
    let json = world.connect("replay=all");
    let binary = world.link(Protocol::Postcard, None, "replay=all");
    world.binary(binary, PeerFrame::Connect(Connect { protocol: 1 }).encode());
    world.settle();
    let said = world.said(json);
    let is_delivery = |frame: &&Value| !frame["deliveryId"].is_null();
    let in_json: Vec<String> = said
        .iter()
        .filter(is_delivery)
        .map(|frame| frame["messageId"].as_str().expect("it has one").into())
        .collect();
    let mut in_binary: Vec<String> = Vec::new();
    for frame in peer_frames(world, binary) {
        if let PeerFrame::Deliveries(batch) = frame {
            let found = deliveries(&batch).expect("the node sends deliveries");
            in_binary.extend(found.into_iter().map(|(_, message)| message.id().into()));
        }
    }
    assert_eq!(in_json, in_binary);
    world.lose(json);
    world.lose(binary);
    world.settle();
    in_json
}

fn peer_frames(world: &mut World, link: LinkId) -> Vec<PeerFrame> {
    let binary = world.frames(link).into_iter().filter_map(|frame| match frame {
        Frame::Binary(bytes) => Some(PeerFrame::decode(&bytes).expect("the node sends frames")),
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => None,
    });
    binary.collect()
}

/// Time passes at all of them, and what they send each other is carried.
fn pass(worlds: &mut [World], wires: &[(usize, usize, Wire)], time: Duration) {
    let steps = time.as_millis() / 500;
    for _ in 0..steps {
        worlds.iter_mut().for_each(|world| world.pass(SECOND / 2));
        exchange(worlds, wires);
    }
}

fn exchange(worlds: &mut [World], wires: &[(usize, usize, Wire)]) {
    for _ in 0..3 {
        for (a, b, wire) in wires {
            let (front, back) = worlds.split_at_mut(*b);
            carry(&mut front[*a], &mut back[0], *wire);
        }
    }
}

/// Nodes in a line with clocks so far ahead, each linked with the next one.
fn line(clocks: &[i64]) -> (Vec<World>, Vec<(usize, usize, Wire)>) {
    let names = ["a", "b", "c"];
    let mut worlds: Vec<World> = clocks
        .iter()
        .enumerate()
        .map(|(index, ahead)| {
            let next = (index + 1 < clocks.len()).then(|| names[index + 1]);
            node(names[index], next, *ahead)
        })
        .collect();
    let mut wires = Vec::new();
    for index in 1..worlds.len() {
        let (front, back) = worlds.split_at_mut(index);
        wires.push((index - 1, index, join(&mut front[index - 1], &mut back[0])));
    }
    pass(&mut worlds, &wires, 4 * SECOND);
    (worlds, wires)
}

// keeps: time-to-live
#[test]
fn half_a_minute_left_is_that_at_any_clock() {
    for clocks in [&[0, 40_000][..], &[0, -40_000], &[40_000, 0, -40_000], &[-40_000, 0, 40_000]] {
        let (mut worlds, wires) = line(clocks);
        command(&mut worlds[0], "c-1", 30_000);
        pass(&mut worlds, &wires, 29 * SECOND);
        for (index, world) in worlds.iter_mut().enumerate() {
            assert_eq!(handed(world), ["c-1"], "{clocks:?}, node {index}");
        }
        pass(&mut worlds, &wires, 2 * SECOND);
        for (index, world) in worlds.iter_mut().enumerate() {
            assert!(handed(world).is_empty(), "{clocks:?}, node {index}");
        }
    }
}

// keeps: time-to-live
#[test]
fn a_restart_makes_no_event_older_or_younger() {
    for ahead in [40_000, -40_000] {
        let (mut worlds, wires) = line(&[0, ahead]);
        command(&mut worlds[0], "c-1", 60_000);
        pass(&mut worlds, &wires, 20 * SECOND);
        worlds[1].crash();
        worlds[1].pass(39 * SECOND);
        assert_eq!(handed(&mut worlds[1]), ["c-1"], "{ahead}");
        worlds[1].crash();
        worlds[1].pass(2 * SECOND);
        assert!(handed(&mut worlds[1]).is_empty(), "{ahead}");
    }
}

// keeps: time-to-live
#[test]
fn what_waits_in_sockets_grows_no_younger() {
    let (mut worlds, wires) = line(&[0, -40_000]);
    command(&mut worlds[0], "c-1", 30_000);
    command(&mut worlds[0], "c-2", 10_000);
    // They leave their node, and are on their way for twenty seconds.
    worlds.iter_mut().for_each(|world| world.pass(20 * SECOND));
    exchange(&mut worlds, &wires);
    assert_eq!(handed(&mut worlds[1]), ["c-1"]);
    pass(&mut worlds, &wires, 9 * SECOND);
    assert_eq!(handed(&mut worlds[1]), ["c-1"]);
    pass(&mut worlds, &wires, 2 * SECOND);
    assert!(handed(&mut worlds[1]).is_empty());
}

// keeps: time-to-live
#[test]
fn a_clock_that_is_corrected_during_a_link_changes_no_end() {
    for by_ms in [50_000, -50_000] {
        let (mut worlds, wires) = line(&[0, 0]);
        command(&mut worlds[0], "c-1", 60_000);
        pass(&mut worlds, &wires, 5 * SECOND);
        set_clock(&mut worlds[1], by_ms);
        command(&mut worlds[0], "c-2", 54_000);
        pass(&mut worlds, &wires, 53 * SECOND);
        assert_eq!(handed(&mut worlds[1]), ["c-1", "c-2"], "{by_ms}");
        // As well after another start.
        command(&mut worlds[0], "c-3", 60_000);
        pass(&mut worlds, &wires, 2 * SECOND);
        set_clock(&mut worlds[1], -by_ms);
        pass(&mut worlds, &wires, 2 * SECOND);
        worlds[1].crash();
        worlds[1].pass(55 * SECOND);
        assert_eq!(handed(&mut worlds[1]), ["c-3"], "{by_ms}");
        worlds[1].pass(2 * SECOND);
        assert!(handed(&mut worlds[1]).is_empty(), "{by_ms}");
    }
}

// keeps: time-to-live
#[test]
fn a_clock_two_years_ahead_makes_no_event_live_so_long() {
    let mut world = node("a", None, 2 * YEAR_MS);
    command(&mut world, "c-1", 60_000);
    world.pass(SECOND);
    // Its clock is set right while the node is away.
    set_clock(&mut world, -2 * YEAR_MS);
    world.crash();
    world.pass(59 * SECOND);
    assert_eq!(handed(&mut world), ["c-1"]);
    world.pass(2 * SECOND);
    assert!(handed(&mut world).is_empty());
}

// keeps: time-to-live
#[test]
fn an_event_from_a_clock_behind_is_no_older_once_it_is_right() {
    let mut b = node("b", None, 0);
    // It knows what time it was.
    command(&mut b, "c-0", 1_000);
    set_clock(&mut b, -3 * YEAR_MS);
    b.crash();
    b.pass(Duration::ZERO);
    let mut a = node("a", Some("b"), 0);
    command(&mut a, "c-1", 60_000);
    let mut worlds = vec![a, b];
    let (front, back) = worlds.split_at_mut(1);
    let wires = [(0, 1, join(&mut front[0], &mut back[0]))];
    pass(&mut worlds, &wires, 4 * SECOND);
    let b = &mut worlds[1];
    set_clock(b, 3 * YEAR_MS);
    b.crash();
    b.pass(50 * SECOND);
    assert_eq!(handed(b), ["c-1"]);
    b.pass(12 * SECOND);
    assert!(handed(b).is_empty());
}

// keeps: time-to-live
#[test]
fn what_was_written_before_a_past_that_was_wrong_lives_on() {
    let mut world = node("a", None, 0);
    command(&mut world, "c-1", 60_000);
    // A start by a clock that is ahead, and one by the right one again.
    set_clock(&mut world, 90_000);
    world.crash();
    world.pass(Duration::ZERO);
    command(&mut world, "c-2", 60_000);
    set_clock(&mut world, -90_000);
    world.crash();
    world.pass(35 * SECOND);
    assert_eq!(world.status().refusing, None, "it has come up to its past");
    assert_eq!(handed(&mut world), ["c-1", "c-2"]);
    // Later starts know it, and begin no time anew.
    for _ in 0..2 {
        world.crash();
        world.pass(10 * SECOND);
        assert_eq!(world.status().refusing, None);
        assert_eq!(handed(&mut world), ["c-1", "c-2"]);
    }
    world.pass(6 * SECOND);
    assert!(handed(&mut world).is_empty());
}

// keeps: time-to-live
#[test]
fn an_event_from_far_ahead_keeps_its_time_to_live() {
    let mut a = node("a", Some("b"), 2 * YEAR_MS);
    command(&mut a, "c-1", 60_000);
    set_clock(&mut a, -2 * YEAR_MS);
    a.crash();
    a.pass(10 * SECOND);
    let b = node("b", None, 0);
    let mut worlds = vec![a, b];
    let (front, back) = worlds.split_at_mut(1);
    let wire = join(&mut front[0], &mut back[0]);
    let wires = [(0, 1, wire)];
    pass(&mut worlds, &wires, 48 * SECOND);
    assert_eq!(handed(&mut worlds[1]), ["c-1"]);
    pass(&mut worlds, &wires, 4 * SECOND);
    assert!(handed(&mut worlds[1]).is_empty());
}

// keeps: time-to-live
#[test]
fn a_clock_set_right_at_run_time_ends_nothing_early() {
    // Forward: what it wrote before is no older for that.
    let (mut worlds, wires) = line(&[-3_600_000, 0, 0]);
    command(&mut worlds[2], "c-1", 60_000);
    pass(&mut worlds, &wires, 10 * SECOND);
    set_clock(&mut worlds[0], 3_600_000);
    pass(&mut worlds, &wires, 10 * SECOND);
    assert_eq!(handed(&mut worlds[0]), ["c-1"]);
    worlds[0].crash();
    worlds[0].pass(38 * SECOND);
    assert_eq!(handed(&mut worlds[0]), ["c-1"]);
    worlds[0].pass(4 * SECOND);
    assert!(handed(&mut worlds[0]).is_empty());
    // Back: what it wrote before has at most its time to live from then on.
    let mut ahead = node("b", None, 3_600_000);
    command(&mut ahead, "c-1", 60_000);
    let mut worlds = vec![node("a", Some("b"), 0), ahead];
    let (front, back) = worlds.split_at_mut(1);
    let wires = [(0, 1, join(&mut front[0], &mut back[0]))];
    pass(&mut worlds, &wires, 10 * SECOND);
    set_clock(&mut worlds[1], -3_600_000);
    pass(&mut worlds, &wires, 49 * SECOND);
    assert_eq!(handed(&mut worlds[1]), ["c-1"]);
    pass(&mut worlds, &wires, 15 * SECOND);
    assert!(handed(&mut worlds[1]).is_empty());
}

/// A link from a node that exists only in frames, says how long events have left, and has links
/// to these.
fn linked(world: &mut World, node: &str, links: &str) -> LinkId {
    let mut hello = world.hello(node);
    hello.features = FEATURE_ENDS;
    let (store, incarnation) = (hello.store, hello.incarnation);
    let link = world.greet(hello);
    let (node, links, tags) = (node.into(), links.into(), String::new());
    let mut frame = FrameWriter::new(BatchKind::Topology);
    frame.push(&NodeRecord { node, store, incarnation, revision: 1, tags, links });
    world.binary(link, frame.finish());
    world.settle();
    link
}

/// A message of `y` that was stamped then, and lives a minute if it is an event.
fn message_of_y(kind: Kind, number: u64, at: WallMs) -> Message {
    let fields = Fields {
        kind,
        incarnation: Incarnation::new(1),
        sequence: Sequence::new(number),
        version: Hlc::at(at),
        expires: if kind.is_state() { WallMs(0) } else { at.plus(60 * SECOND) },
        group: "",
        tags: "",
        path: "y",
        id: &format!("y-{number}"),
        key: "t",
        body: "1",
    };
    Message::encode(&fields, &mut BytesMut::new())
}

fn batch(world: &World, message: &Message, left: Duration) -> Bytes {
    let mut frame = FrameWriter::new(BatchKind::Timed);
    frame.push(&TimedHead { sent_ms: world.now.instant.as_millis() });
    frame.push(&Left { ms: u64::try_from(left.as_millis()).expect("it is short") });
    frame.push_message(message);
    frame.finish()
}

// keeps: time-to-live
#[test]
fn what_is_asked_for_comes_with_what_it_has_left() {
    let mut a = node("a", None, -40_000);
    let y = linked(&mut a, "y", "a,z");
    // What y sends comes to z by itself, and is only offered to it.
    let z = linked(&mut a, "z", "a,y");
    a.pass(SECOND);
    let message = message_of_y(Kind::Cmd, 1, a.now.wall);
    let frame = batch(&a, &message, 20 * SECOND);
    a.binary(y, frame);
    a.settle();
    a.pass(4 * SECOND);
    let offers = peer_frames(&mut a, z).into_iter().filter_map(|frame| match frame {
        PeerFrame::Have(batch) => Some(batch),
        _ => None,
    });
    let offer = offers.last().expect("it is offered");
    a.binary(z, PeerFrame::Want(offer).encode());
    a.settle();
    let sent = peer_frames(&mut a, z).into_iter().find_map(|frame| match frame {
        PeerFrame::Timed(batch) => Some(timed(&batch).expect("the node sends messages").1),
        _ => None,
    });
    let (left, _) = sent.expect("it is sent").pop().expect("one message");
    assert_eq!(left.ms, 16_000);
}

// keeps: event-any-version
#[test]
fn an_event_is_taken_however_far_ahead_its_version_is() {
    for timed in [true, false] {
        let mut a = node("a", None, 0);
        let y = linked(&mut a, "y", "a");
        let ahead = a.now.wall.plus(Duration::from_millis(2 * YEAR_MS.unsigned_abs()));
        let messages = [Kind::Cmd, Kind::Sk].map(|kind| message_of_y(kind, kind as u64 + 1, ahead));
        for message in &messages {
            let frame = if timed {
                batch(&a, message, 60 * SECOND)
            } else {
                let mut frame = FrameWriter::new(BatchKind::Messages);
                frame.push_message(message);
                frame.finish()
            };
            a.binary(y, frame);
        }
        a.settle();
        let event = messages[0].id();
        assert_eq!(handed(&mut a), [event], "timed: {timed}");
        let refused = peer_frames(&mut a, y).into_iter().find_map(|frame| match frame {
            PeerFrame::NotNow(not_now) => Some(not_now.first),
            _ => None,
        });
        assert_eq!(refused, Some(2), "state with such a version is not taken");
        // The clock has not followed it: publishers are taken.
        command(&mut a, "c-1", 60_000);
        a.pass(62 * SECOND);
        assert!(handed(&mut a).is_empty(), "timed: {timed}");
    }
}

// keeps: time-to-live
#[test]
fn a_peer_that_says_more_than_the_time_to_live_is_not_believed() {
    let mut a = node("a", None, 0);
    let y = linked(&mut a, "y", "a");
    let message = message_of_y(Kind::Cmd, 1, a.now.wall);
    let frame = batch(&a, &message, 1000 * 3600 * SECOND);
    a.binary(y, frame);
    a.settle();
    a.pass(59 * SECOND);
    assert_eq!(handed(&mut a), ["y-1"]);
    a.pass(2 * SECOND);
    assert!(handed(&mut a).is_empty());
    // And its clock cannot say anything.
    let mut frame = FrameWriter::new(BatchKind::Timed);
    frame.push(&TimedHead { sent_ms: u64::MAX });
    a.binary(y, frame.finish());
    a.settle();
    assert_eq!(a.closed[&y].reason, "a batch with an impossible time");
}

// keeps: time-to-live
#[test]
fn a_late_event_is_handed_to_nobody_by_a_clock_behind() {
    let mut a = node("a", None, -40_000);
    let y = linked(&mut a, "y", "a");
    let message = message_of_y(Kind::Cmd, 1, a.now.wall.plus(40 * SECOND));
    let frame = batch(&a, &message, Duration::ZERO);
    a.give(Input::Received { link: y, frame: Frame::Binary(frame) });
    a.settle();
    assert!(handed(&mut a).is_empty());
    a.pass(2 * SECOND);
    let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 9 };
    let AdminAnswer::DeadLetters(letters) = a.ask(all) else { panic!("a list") };
    assert!(letters.is_empty(), "it has arrived where it is for");
}
