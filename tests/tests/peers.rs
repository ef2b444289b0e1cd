//! Two nodes and the link between them, frame by frame.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRequest, COVERED, LinkStatus, SELF};
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::event::{Event, Level};
use slipstream_core::ids::{Incarnation, LinkId, NodeId, Position, Sequence, StoreId};
use slipstream_core::io::{CloseCode, Frame, Input, Protocol};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::offer;
use slipstream_core::store::StoreFailure;
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;
use slipstream_core::wire::{BatchKind, FrameWriter, Hello, NotNow, NotNowReason, Wire};
use slipstream_tests::world::{World, carry, join};

fn dialling(id: &str) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.peers = vec!["ws://peer:7400".into()];
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

fn ids(frames: &[Value]) -> Vec<&str> {
    let of_messages = frames.iter().filter(|frame| frame["deliveryId"].is_u64());
    of_messages.filter_map(|frame| frame["messageId"].as_str()).collect()
}

/// The Hello of a node that exists only in these frames.
fn hello(world: &World, node: &str, store: u128, incarnation: u64) -> Frame {
    let (store, incarnation) = (StoreId(store), Incarnation::new(incarnation));
    Frame::Binary(Wire::Hello(Hello { store, incarnation, ..world.hello(node) }).encode())
}

/// A link from that node.
fn peer(world: &mut World, node: &str) -> LinkId {
    let hello = world.hello(node);
    let link = world.greet(hello);
    world.frames(link);
    link
}

fn fields(world: &World, sequence: u64) -> Fields<'static> {
    Fields {
        kind: Kind::Sk,
        incarnation: Incarnation::new(1),
        sequence: Sequence::new(sequence),
        version: Hlc(Hlc::at(world.now.wall).0 + sequence),
        expires: WallMs(0),
        group: "",
        tags: "",
        path: "z",
        id: "m",
        key: "order:1",
        body: "1",
    }
}

fn send(world: &mut World, link: LinkId, messages: &[Fields<'_>]) {
    let mut writer = FrameWriter::new(BatchKind::Messages);
    for fields in messages {
        writer.push_message(&Message::encode(fields, &mut BytesMut::new()));
    }
    let frame = Frame::Binary(writer.finish());
    world.give(Input::Received { link, frame });
}

fn wires(world: &mut World, link: LinkId) -> Vec<Wire> {
    let frames = world.frames(link).into_iter();
    let binary = frames.filter_map(|frame| match frame {
        Frame::Binary(bytes) => Some(Wire::decode(&bytes).expect("the node sends frames")),
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => None,
    });
    binary.collect()
}

/// Answers the last ping on a link.
fn answer_ping(world: &mut World, link: LinkId) {
    let pings = world.frames(link).into_iter().rev().find_map(|frame| match frame {
        Frame::Ping(payload) => Some(payload),
        Frame::Text(_) | Frame::Binary(_) | Frame::Pong(_) => None,
    });
    let frame = Frame::Pong(pings.expect("it was pinged"));
    world.give(Input::Received { link, frame });
}

fn acknowledged(world: &mut World, link: LinkId) -> Option<u64> {
    let acks = wires(world, link).into_iter().filter_map(|wire| match wire {
        Wire::Ack(ack) => Some(ack.upto),
        _ => None,
    });
    acks.last()
}

#[test]
fn a_message_crosses_and_both_sides_are_quiet_again() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let (till, display) = (a.connect("keys="), b.connect(""));
    a.publish(till, "m-1", "order:1", "1");
    carry(&mut a, &mut b, wire);
    let said = b.said(display);
    assert_eq!(ids(&said), ["m-1"]);
    assert_eq!(said[2]["messagePath"], serde_json::json!(["a", "b"]));
    assert!(a.status().sessions.iter().all(|session| session.in_flight == 0));
    assert_eq!(b.status().counters.loops_prevented, 0, "it was never sent back");
}

// keeps: commit-first
#[test]
fn a_peer_is_told_that_a_message_is_durable_when_it_is() {
    let mut world = World::new("a");
    let link = peer(&mut world, "z");
    let message = fields(&world, 1);
    send(&mut world, link, &[message]);
    assert_eq!(acknowledged(&mut world, link), None);
    world.settle();
    assert_eq!(acknowledged(&mut world, link), Some(1));
    send(&mut world, link, &[message]);
    assert_eq!(acknowledged(&mut world, link), Some(2), "what is durable is said at once");
    assert_eq!(world.store.messages().count(), 1);
}

#[test]
fn a_message_that_comes_back_is_dropped() {
    let mut world = World::new("a");
    let link = peer(&mut world, "z");
    let looped = Fields { path: "y,a,z", ..fields(&world, 1) };
    send(&mut world, link, &[looped]);
    world.settle();
    assert_eq!(acknowledged(&mut world, link), Some(1));
    assert_eq!(world.status().counters.loops_prevented, 1);
    assert_eq!(world.store.messages().count(), 0);
}

// keeps: new-peer
#[test]
fn a_peer_that_is_new_here_is_offered_what_came_over_it_before() {
    let mut world = World::new("a");
    let (y, z) = (peer(&mut world, "y"), peer(&mut world, "z"));
    let (own, over_y) = (fields(&world, 1), Fields { path: "z,y", ..fields(&world, 2) });
    send(&mut world, z, &[Fields { key: "order:2", ..own }]);
    send(&mut world, y, &[over_y]);
    world.settle();
    world.lose(z);
    let forgotten = world.ask(AdminRequest::ForgetSession("peer:z".into()));
    assert!(matches!(forgotten, AdminAnswer::Done));

    let link = world.link(Protocol::Postcard, None, "");
    let frame = hello(&world, "z", 78, 2);
    world.give(Input::Received { link, frame });
    world.settle();
    assert_eq!(offered(&mut world, link), 2, "its store may be another one");
    let again = Fields { incarnation: Incarnation::new(2), ..fields(&world, 3) };
    send(&mut world, link, &[again]);
    world.settle();
    world.pass(Duration::from_millis(500));
    assert_eq!(offered(&mut world, link), 0, "it has what it sends");
}

/// How many messages were offered on a link since it was asked last.
fn offered(world: &mut World, link: LinkId) -> u64 {
    let wires = wires(world, link).into_iter();
    let spans = wires.filter_map(|wire| match wire {
        Wire::Have(batch) => Some(offer::read(&batch).expect("spans")),
        _ => None,
    });
    spans.flatten().map(|span| span.last.get() - span.first.get() + 1).sum()
}

#[test]
fn a_copy_by_another_route_spares_that_route_one() {
    let mut world = World::new("a");
    let (y, z) = (peer(&mut world, "y"), peer(&mut world, "z"));
    let from_z = Fields { path: "x,z", ..fields(&world, 1) };
    let from_y = Fields { path: "x,y", ..fields(&world, 1) };
    send(&mut world, z, &[from_z]);
    send(&mut world, y, &[from_y]);
    world.settle();
    let to_y = wires(&mut world, y);
    assert!(to_y.iter().all(|wire| !matches!(wire, Wire::Messages(_))), "{to_y:?}");
    assert_eq!(world.status().counters.duplicates["seen"], 1);
}

#[test]
fn a_late_older_value_is_neither_stored_nor_handed_over() {
    let mut world = World::new("a");
    let link = peer(&mut world, "z");
    let display = world.connect("");
    let (older, newer) = (fields(&world, 1), fields(&world, 2));
    send(&mut world, link, &[Fields { id: "newer", ..newer }]);
    world.settle();
    send(&mut world, link, &[Fields { id: "older", ..older }]);
    world.settle();
    assert_eq!(ids(&world.said(display)), ["newer"]);
    assert_eq!(acknowledged(&mut world, link), Some(2));
    assert_eq!(world.status().counters.superseded, 1);
}

#[test]
fn a_value_older_than_memory_is_judged_by_the_store() {
    let mut world = World::new("a");
    let link = peer(&mut world, "z");
    let begun = fields(&world, 0);
    let newer = Fields { id: "newer", ..fields(&world, 5) };
    send(&mut world, link, &[newer]);
    world.settle();
    // After a restart nothing of it is in memory.
    world.pass(Duration::from_secs(10));
    world.crash();
    let link = peer(&mut world, "z");
    let known = Fields { sequence: Sequence::new(3), id: "older", ..begun };
    let other = Fields { sequence: Sequence::new(4), id: "other", key: "order:2", ..begun };
    send(&mut world, link, &[known, other]);
    world.settle();
    let stored: Vec<_> = world.store.messages().map(|message| message.id().to_owned()).collect();
    assert_eq!(stored, ["newer", "other"]);
    assert_eq!(acknowledged(&mut world, link), Some(2));
}

#[test]
fn a_future_version_is_refused_for_now_and_taken_later() {
    let mut world = World::new("a");
    let link = peer(&mut world, "z");
    let ahead = Hlc::at(WallMs(world.now.wall.0 + 61_000));
    let future = Fields { version: ahead, ..fields(&world, 1) };
    send(&mut world, link, &[future]);
    let said = wires(&mut world, link);
    let refused = said
        .iter()
        .any(|wire| matches!(wire, Wire::NotNow(not_now) if not_now.reason == NotNowReason::Clock));
    assert!(refused, "{said:?}");
    assert_eq!(world.status().counters.clock_refused["z"], 1);
    world.pass(Duration::from_secs(2));
    send(&mut world, link, &[future]);
    world.settle();
    assert_eq!(world.store.messages().count(), 1);
}

#[test]
fn a_peer_without_room_is_sent_the_message_again_later() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "order:1", "1");
    a.settle();
    for frame in a.frames(wire.0) {
        b.give(Input::Received { link: wire.1, frame });
    }
    b.fail_commit(StoreFailure::Full("no room on the disk".into()));
    carry(&mut a, &mut b, wire);
    assert_eq!(b.store.messages().count(), 0);
    assert_eq!(a.status().sessions.iter().map(|session| session.in_flight).sum::<usize>(), 1);
    for _ in 0..10 {
        a.pass(Duration::from_secs(1));
        b.pass(Duration::from_secs(1));
        carry(&mut a, &mut b, wire);
    }
    assert_eq!(b.store.messages().count(), 1);
    let status = a.status();
    assert!(status.sessions.iter().all(|session| session.in_flight == 0));
    assert!(status.sessions.iter().all(|session| session.dead_letters.is_empty()));
}

#[test]
fn a_burst_of_refusals_is_one_refusal() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let till = a.connect("keys=");
    b.give(Input::ShutDown);
    for n in 0..200 {
        a.publish(till, &format!("m-{n}"), &format!("order:{n}"), "1");
    }
    a.settle();
    for number in 1..=200 {
        let reason = NotNowReason::StoreFull;
        let refusal = Wire::NotNow(NotNow { first: number, last: number, reason });
        let frame = Frame::Binary(refusal.encode());
        a.give(Input::Received { link: wire.0, frame });
    }
    a.frames(wire.0);
    a.pass(Duration::from_secs(2));
    let again = wires(&mut a, wire.0).iter().any(|wire| matches!(wire, Wire::Timed(_)));
    assert!(again, "the first wait is short");
}

// keeps: clock-doubt
#[test]
fn a_clock_jump_is_not_excused_by_earlier_peer_clocks() {
    let mut world = World::new("a");
    peer(&mut world, "z");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.now.wall = WallMs(world.now.wall.0 + 3_600_000);
    world.pass(Duration::from_secs(3));
    world.publish(till, "m-1", "order:1", "1");
    assert_eq!(world.said(till)[0]["code"], "CLOCK");
}

#[test]
fn a_returning_peer_gets_what_it_missed_and_nothing_twice() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let till = a.connect("keys=");
    for n in 0..50 {
        a.publish(till, &format!("before-{n}"), &format!("order:{n}"), "1");
    }
    carry(&mut a, &mut b, wire);
    a.lose(wire.0);
    b.lose(wire.1);
    for n in 0..5_000 {
        a.publish(till, &format!("away-{n}"), &format!("away:{n}"), "1");
    }
    a.pass(Duration::from_secs(31));
    b.pass(Duration::from_secs(31));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert_eq!(b.store.messages().count(), 5_050);
    assert_eq!(b.status().counters.duplicates["seen"], 0);
}

// keeps: one-link
#[test]
fn of_two_links_the_one_that_the_smaller_id_dialled_stays() {
    for order in [true, false] {
        let (mut a, mut b) = (dialling("a"), dialling("b"));
        let (first, second) = if order {
            (join(&mut a, &mut b), join(&mut b, &mut a))
        } else {
            let by_b = join(&mut b, &mut a);
            (join(&mut a, &mut b), by_b)
        };
        carry(&mut a, &mut b, first);
        for _ in 0..3 {
            carry(&mut b, &mut a, second);
            carry(&mut a, &mut b, first);
        }
        assert!(!a.closed.contains_key(&first.0) && !b.closed.contains_key(&first.1), "{order}");
        let closed = a.closed.get(&second.1).or(b.closed.get(&second.0));
        assert_eq!(closed.map(|close| close.code), Some(CloseCode::Duplicate), "{order}");
    }
}

// keeps: one-link
#[test]
fn a_second_node_of_an_id_is_refused_while_the_first_lives() {
    let mut world = World::new("a");
    let first = peer(&mut world, "z");
    world.answers_pings = false;
    let second = world.link(Protocol::Postcard, None, "");
    let frame = hello(&world, "z", 78, 1);
    world.give(Input::Received { link: second, frame });
    answer_ping(&mut world, first);
    assert_eq!(world.closed.get(&second).map(|close| close.code), Some(CloseCode::Duplicate));
    assert!(!world.closed.contains_key(&first));
}

// keeps: one-link
#[test]
fn a_link_that_is_dead_without_knowing_it_gives_way() {
    let mut world = World::new("a");
    let dead = peer(&mut world, "z");
    world.answers_pings = false;
    let fresh = world.link(Protocol::Postcard, None, "");
    let frame = hello(&world, "z", 77, 1);
    world.give(Input::Received { link: fresh, frame });
    world.pass(Duration::from_secs(2));
    assert_eq!(world.closed.get(&dead).map(|close| close.code), Some(CloseCode::Timeout));
    assert!(!world.closed.contains_key(&fresh));
    assert!(wires(&mut world, fresh).iter().any(|wire| matches!(wire, Wire::Hello(_))));
}

// keeps: signs-of-life
#[test]
fn a_link_whose_bytes_move_is_alive_and_a_silent_one_is_not() {
    let mut world = World::new("a");
    world.answers_pings = false;
    let (slow, silent) = (peer(&mut world, "y"), peer(&mut world, "z"));
    let app = world.connect("client=c");
    world.take_frames();
    for _ in 0..100 {
        world.pass(Duration::from_secs(10));
        for link in [slow, app] {
            world.give(Input::Moved { link });
        }
    }
    let closed: Vec<_> = world.closed.keys().collect();
    assert_eq!(closed, [&silent]);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.closed.len(), 3, "when nothing moves any more");
}

// keeps: signs-of-life
#[test]
fn a_link_that_carries_a_large_frame_does_not_give_way() {
    let mut world = World::new("a");
    let busy = peer(&mut world, "z");
    world.answers_pings = false;
    let fresh = world.link(Protocol::Postcard, None, "");
    let frame = hello(&world, "z", 77, 1);
    world.give(Input::Received { link: fresh, frame });
    for _ in 0..10 {
        world.pass(Duration::from_millis(600));
        world.give(Input::Moved { link: busy });
    }
    assert!(world.closed.is_empty(), "its answer is behind the frame");
    answer_ping(&mut world, busy);
    assert!(world.closed.contains_key(&fresh) && !world.closed.contains_key(&busy));
}

// keeps: one-link
#[test]
fn what_was_under_way_on_a_link_given_up_there_is_no_answer() {
    let mut world = World::new("a");
    let given_up = peer(&mut world, "z");
    world.answers_pings = false;
    world.pass(Duration::from_millis(5));
    let fresh = world.link(Protocol::Postcard, None, "");
    let frame = hello(&world, "z", 77, 1);
    world.give(Input::Received { link: fresh, frame });
    // A heartbeat, and the answer to an earlier one.
    let earlier = Bytes::copy_from_slice(&0u64.to_be_bytes());
    for frame in [Frame::Ping(Bytes::new()), Frame::Pong(earlier)] {
        world.give(Input::Received { link: given_up, frame });
    }
    world.give(Input::Moved { link: given_up });
    assert!(!world.closed.contains_key(&fresh));
    world.give(Input::LinkDown { link: given_up, code: None, reason: "gone".into() });
    assert!(wires(&mut world, fresh).iter().any(|wire| matches!(wire, Wire::Hello(_))));
}

// keeps: one-link
#[test]
fn of_two_links_that_wait_for_an_older_one_the_last_stays() {
    let mut world = World::new("a");
    let dead = peer(&mut world, "z");
    world.answers_pings = false;
    let [first, second] = [(); 2].map(|()| world.link(Protocol::Postcard, None, ""));
    for link in [first, second] {
        let frame = hello(&world, "z", 77, 1);
        world.give(Input::Received { link, frame });
    }
    assert_eq!(world.closed.get(&first).map(|close| close.code), Some(CloseCode::Duplicate));
    // A greeting would let the peer end the second one in favour of the first.
    assert!(wires(&mut world, first).is_empty());
    world.pass(Duration::from_secs(2));
    assert!(world.closed.contains_key(&dead) && !world.closed.contains_key(&second));
}

// keeps: rollback-noticed
#[test]
fn a_peer_hears_of_the_log_end_before_a_row() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "order:1", "1");
    a.settle();
    let sent = wires(&mut a, wire.0);
    let end = sent.iter().position(|it| matches!(it, Wire::Ack(ack) if ack.position.get() == 1));
    let row = sent.iter().position(|it| matches!(it, Wire::Messages(_) | Wire::Timed(_)));
    // A peer that is killed behind the row would else not notice that this store lost it (P2).
    assert!(end.is_some() && end < row, "{sent:?}");
}

// keeps: one-link
#[test]
fn a_link_about_to_close_does_not_replace_another() {
    let (mut a, mut z) = (dialling("a"), World::new("z"));
    let (dial, _) = a.dials.pop().expect("it dials its peer");
    let dialed = a.link(Protocol::Postcard, Some(dial), "");
    let [old, refused] = [(); 2].map(|()| z.link(Protocol::Postcard, None, ""));
    let give = |world: &mut World, link, frames: Vec<Frame>| {
        frames.into_iter().for_each(|frame| world.give(Input::Received { link, frame }));
    };
    // To the peer an older link is alive, which has ended here: it refuses the one we dialled.
    let greeting = a.frames(dialed);
    give(&mut z, old, greeting.clone());
    let greeted = z.frames(old);
    give(&mut z, refused, greeting);
    answer_ping(&mut z, old);
    assert!(z.closed.contains_key(&refused));
    // Meanwhile one that the peer dialled has come.
    let other = a.link(Protocol::Postcard, None, "");
    give(&mut a, other, greeted);
    give(&mut a, dialed, z.frames(refused));
    assert!(!a.closed.contains_key(&other));
}

#[test]
fn a_restarted_peer_replaces_its_old_link_at_once() {
    let mut world = World::new("a");
    let old = peer(&mut world, "z");
    let new = world.link(Protocol::Postcard, None, "");
    let frame = hello(&world, "z", 77, 2);
    world.give(Input::Received { link: new, frame });
    assert!(world.closed.contains_key(&old));
    assert!(!world.closed.contains_key(&new));
}

#[test]
fn a_node_that_dials_itself_stops_doing_so() {
    let mut world = dialling("a");
    let (dial, _) = world.dials.pop().unwrap();
    let here = world.link(Protocol::Postcard, Some(dial), "");
    let there = world.link(Protocol::Postcard, None, "");
    for frame in world.frames(here) {
        world.give(Input::Received { link: there, frame });
    }
    assert_eq!(world.closed.get(&there).map(|close| close.code), Some(CloseCode::Duplicate));
    for frame in world.frames(there) {
        world.give(Input::Received { link: here, frame });
    }
    assert!(world.events.iter().any(|event| matches!(event, Event::SelfDial { .. })));
    world.pass(Duration::from_secs(300));
    assert!(world.dials.is_empty());
}

/// Reloads the same peers and tags.
fn reload(world: &mut World) {
    let (peers, tags) = (world.config.peers.clone(), world.config.tags.clone());
    world.give(Input::Reconfigure { peers, tags });
    world.pass(Duration::from_millis(1));
}

/// The node dials itself, and both ends of that connection end.
fn dial_itself(world: &mut World) {
    let (dial, _) = world.dials.pop().expect("a dial");
    let there = world.link(Protocol::Postcard, None, "");
    let here = world.link(Protocol::Postcard, Some(dial), "");
    for _ in 0..2 {
        for (from, to) in [(here, there), (there, here)] {
            for frame in world.frames(from) {
                world.give(Input::Received { link: to, frame });
            }
        }
    }
    world.lose(here);
    world.lose(there);
}

/// What was said at INFO or above since the last call, but of the start.
fn said(world: &mut World) -> Vec<Event> {
    let mut events = core::mem::take(&mut world.events);
    events.retain(|event| event.level() >= Level::Info && !matches!(event, Event::Started { .. }));
    events
}

// keeps: own-address
#[test]
fn the_own_address_is_told_once_and_alarms_nobody() {
    let mut world = dialling("a");
    dial_itself(&mut world);
    let events = said(&mut world);
    assert!(
        matches!(&events[..], [event @ Event::SelfDial { .. }] if event.level() == Level::Info),
        "{events:?}"
    );
    for _ in 0..3 {
        reload(&mut world);
        for status in world.status().links {
            assert_eq!((status.state, status.is_of_peer()), (SELF, false), "also while it dials");
        }
        dial_itself(&mut world);
        world.pass(Duration::from_secs(300));
        assert!(world.dials.is_empty());
        assert_eq!(said(&mut world), []);
    }
    reload(&mut world);
    let (dial, _) = world.dials.pop().expect("a dial");
    world.give(Input::DialFailed { dial, reason: "refused".into() });
    let status = world.status().links.pop().expect("a wanted peer");
    assert_eq!((status.state, status.is_of_peer()), ("waiting", true), "it is somebody else now");
}

// keeps: own-address
#[test]
fn of_two_that_name_each_other_one_waits_quietly() {
    // Either of them may reach the other first; the link that the smaller id dialled stays.
    for a_is_first in [true, false] {
        let (mut a, mut b) = (dialling("a"), dialling("b"));
        let (by_a, by_b) = if a_is_first {
            let by_a = join(&mut a, &mut b);
            carry(&mut a, &mut b, by_a);
            (by_a, join(&mut b, &mut a))
        } else {
            let by_b = join(&mut b, &mut a);
            carry(&mut b, &mut a, by_b);
            (join(&mut a, &mut b), by_b)
        };
        for _ in 0..3 {
            carry(&mut b, &mut a, by_b);
            carry(&mut a, &mut b, by_a);
        }
        a.lose(by_b.1);
        b.lose(by_b.0);
        for _ in 0..30 {
            a.pass(Duration::from_secs(10));
            b.pass(Duration::from_secs(10));
            carry(&mut a, &mut b, by_a);
        }
        assert!(a.dials.is_empty() && b.dials.is_empty(), "nobody dials for ever");
        let events = said(&mut b);
        let covered = |event: &&Event| matches!(event, Event::DialCovered { .. });
        assert_eq!(events.iter().filter(covered).count(), 1, "{events:?}");
        assert!(!events.iter().any(|it| matches!(it, Event::DialFailed { .. })), "{events:?}");
        let links = b.status().links;
        let state = |link: &LinkStatus| (link.name.as_deref() == Some("a")).then_some(link.state);
        let states: Vec<_> = links.iter().filter_map(state).collect();
        assert_eq!(states, ["up", COVERED], "{links:?}");
        a.lose(by_a.0);
        b.lose(by_a.1);
        a.pass(Duration::from_secs(1));
        b.pass(Duration::from_secs(1));
        assert!(!a.dials.is_empty() && !b.dials.is_empty(), "both dial when the link is gone");
    }
}

// keeps: own-address
#[test]
fn a_second_address_of_a_linked_peer_is_covered() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.peers = vec!["ws://b.example:7400".into(), "ws://10.0.0.2:7400".into()];
    let (mut a, mut b) = (World::with(config), World::new("b"));
    a.pass(Duration::ZERO);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let late = join(&mut a, &mut b);
    carry(&mut a, &mut b, late);
    assert!(a.closed.contains_key(&late.0) && !a.closed.contains_key(&wire.0));
    a.pass(Duration::from_secs(300));
    assert!(a.dials.is_empty());
    assert!(a.status().links.iter().any(|link| link.state == COVERED));
}

/// Applications with 32 tags each, which nobody shares.
fn many_tags(world: &mut World) -> Vec<LinkId> {
    let tags = |app| (0..32).map(|tag| format!("t{app}x{tag}")).collect::<Vec<_>>().join(",");
    (0..40).map(|app| world.connect(&format!("client=c{app}&tags={}", tags(app)))).collect()
}

// keeps: many-tags
#[test]
fn a_node_with_too_many_tags_stays_in_the_mesh() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let apps = many_tags(&mut a);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let till = b.connect("keys=");
    b.text(
        till,
        r#"{"type":"SK","messageId":"m-1","key":"k","value":1,"targetedTags":["t39x31"]}"#,
    );
    pass_together(&mut a, &mut b, wire, 5);
    assert!(a.closed.is_empty() && b.closed.is_empty(), "{:?}", b.closed);
    assert_eq!(ids(&a.said(apps[39])), ["m-1"], "the tag that is not told");
    assert!(ids(&a.said(apps[0])).is_empty());
    let of_a = |world: &mut World| world.status().topology.swap_remove(0);
    assert_eq!((of_a(&mut b).tags.len(), of_a(&mut b).any_tag), (1024, true));
    for app in apps {
        a.lose(app);
    }
    for app in 0..40 {
        a.ask(AdminRequest::ForgetSession(format!("c{app}")));
    }
    pass_together(&mut a, &mut b, wire, 5);
    assert_eq!((of_a(&mut b).tags.len(), of_a(&mut b).any_tag), (0, false), "told by name again");
}

// keeps: many-tags
#[test]
fn no_peer_is_sent_a_record_that_it_refuses() {
    let mut world = World::new("a");
    many_tags(&mut world);
    for limit in [4096, 16 << 10] {
        let hello = Hello { max_frame_bytes: limit, ..world.hello("z") };
        let link = world.greet(hello);
        world.pass(Duration::from_secs(2));
        let frames = world.frames(link);
        assert!(frames.iter().all(|frame| frame.cost() as u64 <= limit + 64));
        let topology = |frame: &Frame| match frame {
            Frame::Binary(bytes) => matches!(Wire::decode(bytes), Ok(Wire::Topology(_))),
            Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => false,
        };
        assert!(frames.iter().any(topology));
        world.lose(link);
    }
    let tags = TagSet::new(
        (0..1024).map(|n| format!("{n:064}")).collect::<Vec<_>>().iter().map(String::as_str),
    );
    let told = Hello::told_tags(&tags.expect("good tags"));
    assert_eq!(told.split(',').count(), 31);
}

#[test]
fn what_breaks_the_protocol_closes_the_link_and_nothing_else() {
    let mut world = World::new("a");
    let sound = peer(&mut world, "y");
    let forged = Fields { path: "x,y", ..fields(&world, 1) };
    let bad_body = Fields { body: "1 2", ..fields(&world, 1) };
    let ack = Wire::Ack(slipstream_core::wire::Ack {
        upto: 9,
        position: Position::default(),
        wall: world.now.wall,
    });
    for n in 0..4 {
        let link = peer(&mut world, "z");
        match n {
            0 => send(&mut world, link, &[forged]),
            1 => send(&mut world, link, &[bad_body]),
            2 => world.give(Input::Received { link, frame: Frame::Binary(ack.encode()) }),
            _ => world.give(Input::Received { link, frame: Frame::Binary(Bytes::new()) }),
        }
        assert_eq!(world.closed.get(&link).map(|close| close.code), Some(CloseCode::Protocol));
    }
    assert!(!world.closed.contains_key(&sound));
    assert_eq!(world.store.messages().count(), 0);
}

// keeps: clock-moves
#[test]
fn a_corrected_peer_clock_is_believed_without_traffic() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let (till, right) = (a.connect("keys="), b.now.wall);
    // b greets while its clock is a year behind.
    b.now.wall = right.minus(Duration::from_secs(365 * 24 * 3600));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    b.now.wall = right;
    pass_together(&mut a, &mut b, wire, 2);
    a.said(till);
    a.publish(till, "m-1", "order:1", "1");
    assert_eq!(a.said(till)[0]["code"], "CLOCK", "a is ahead of its only peer");
    pass_together(&mut a, &mut b, wire, 30);
    a.publish(till, "m-1", "order:1", "1");
    a.settle();
    assert_eq!(a.said(till)[0]["type"], "ACK");
}

// keeps: clock-ages
#[test]
fn a_clock_that_peers_say_was_set_right_ends_no_session() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let right = b.now.wall;
    // b starts a year behind, and is set right while an application is away.
    b.now.wall = right.minus(Duration::from_secs(365 * 24 * 3600));
    b.crash();
    let app = b.connect("client=pi-1");
    b.settle();
    b.lose(app);
    b.pass(Duration::from_secs(1));
    b.now.wall = right;
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    pass_together(&mut a, &mut b, wire, 30);
    let till = b.connect("keys=");
    b.publish(till, "m-1", "order:1", "1");
    b.settle();
    assert_eq!(b.said(till).pop().expect("an answer")["type"], "ACK", "the clock is believed");
    b.crash();
    b.pass(Duration::from_secs(5));
    let sessions = b.status().sessions;
    assert!(sessions.iter().any(|session| session.name == "app:pi-1"), "{sessions:?}");
}

fn pass_together(a: &mut World, b: &mut World, wire: slipstream_tests::world::Wire, seconds: u64) {
    for _ in 0..seconds {
        a.pass(Duration::from_secs(1));
        b.pass(Duration::from_secs(1));
        carry(a, b, wire);
    }
}
