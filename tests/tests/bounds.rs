//! What one frame, or one peer that does not read, may cost a node (P8, P11).

use std::time::Duration;

use bytes::BytesMut;
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{Incarnation, LinkId, NodeId, Position, Sequence};
use slipstream_core::io::{CloseCode, Frame, Input, Protocol};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::time::WallMs;
use slipstream_core::wire::{BatchKind, Connect, FrameWriter, Publish, Settle, Wire};
use slipstream_tests::world::World;

/// An application that speaks binary frames, greeted.
fn application(world: &mut World) -> LinkId {
    let link = world.link(Protocol::Postcard, None, "");
    give(world, link, Wire::Connect(Connect { protocol: 1 }).encode());
    world.settle();
    world.frames(link);
    link
}

fn give(world: &mut World, link: LinkId, frame: bytes::Bytes) {
    world.give(Input::Received { link, frame: Frame::Binary(frame) });
}

fn rejected(world: &World) -> usize {
    world.events.iter().filter(|event| matches!(event, Event::Rejected { .. })).count()
}

#[test]
fn a_frame_full_of_errors_spends_the_budget_and_no_more() {
    let mut settles = FrameWriter::new(BatchKind::Settle);
    let mut publishes = FrameWriter::new(BatchKind::Publish);
    for _ in 0..10_000 {
        settles.push(&Settle::Ack(Position::new(9)));
        let nothing = Publish { kind: Kind::Sk, id: "", key: "", tags: "", ttl_ms: 0, body: "" };
        publishes.push(&nothing);
    }
    for frame in [settles.finish(), publishes.finish()] {
        let mut world = World::new("a");
        let link = application(&mut world);
        give(&mut world, link, frame);
        assert_eq!(rejected(&world), 100, "one answer for each error of the budget");
        assert_eq!(world.closed[&link].code, CloseCode::Limit);
    }
}

/// A node that sends, and never reads what it is sent.
fn deaf_peer(world: &mut World) -> LinkId {
    let hello = world.hello("z");
    let link = world.greet(hello);
    world.frames(link);
    world.takes_frames = false;
    link
}

/// A batch of messages from the future, each of which is refused for now.
fn from_the_future(world: &World, first: u64) -> bytes::Bytes {
    let (mut writer, mut buffer) = (FrameWriter::new(BatchKind::Messages), BytesMut::new());
    for sequence in first..first + 1000 {
        let fields = Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(sequence),
            version: Hlc::at(world.now.wall.plus(Duration::from_secs(3600))),
            expires: WallMs(0),
            group: "",
            tags: "",
            path: "z",
            id: "m",
            key: "k",
            body: "1",
        };
        writer.push_message(&Message::encode(&fields, &mut buffer));
    }
    writer.finish()
}

#[test]
fn a_peer_that_does_not_read_its_refusals_is_not_read_either() {
    let mut world = World::new("a");
    let link = deaf_peer(&mut world);
    let paused = format!("Pause({link:?})");
    let is_paused = |world: &World| world.trace.iter().any(|line| line.ends_with(&paused));
    let mut sent = 0;
    while !is_paused(&world) {
        assert!(sent < 200_000, "{sent} refusals wait for a peer that reads none of them");
        let frame = from_the_future(&world, sent + 1);
        give(&mut world, link, frame);
        sent += 1000;
    }
    assert!(sent > 20_000, "{sent}: a peer that is only slow is read on");
    world.trace.clear();
    world.take_frames();
    let resumed = format!("Resume({link:?})");
    assert!(world.trace.iter().any(|line| line.ends_with(&resumed)), "it reads, and is read");
}

/// Names of applications are taken up to `limits.max_sessions`. Who is refused learns why, the
/// others go on, and `store.session_ttl` ends those who never come back.
#[test]
fn names_without_end_meet_a_limit_and_go_when_their_time_is_over() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.store.session_ttl = Duration::from_secs(600);
    let most = config.limits.max_sessions;
    let mut world = World::with(config);
    let till = world.connect("client=till&keys=");
    world.settle();
    world.said(till);
    for number in 1..most {
        let link = world.connect(&format!("client=pi-{number}"));
        world.settle();
        world.lose(link);
        world.frames(link);
    }
    world.settle();
    let refused = world.connect("client=one-more");
    world.settle();
    let close = &world.closed[&refused];
    assert_eq!(close.code, CloseCode::Limit, "{close:?}");
    assert!(close.reason.contains("sessions"), "{close:?}");
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    assert_eq!(world.said(till).pop().expect("an answer")["type"], "ACK", "the others go on");

    world.pass(Duration::from_secs(602));
    let ended = |event: &&Event| matches!(event, Event::SessionEnded { owed, .. } if *owed <= 1);
    assert_eq!(world.events.iter().filter(ended).count(), most - 1, "each is told");
    let welcome = world.connect("client=one-more");
    world.settle();
    assert!(!world.closed.contains_key(&welcome));
}
