//! What one frame, or one peer that does not read, may cost a node (P8, P11).

use slipstream_core::event::Event;
use slipstream_core::ids::{LinkId, Position};
use slipstream_core::io::{CloseCode, Frame, Input, Protocol};
use slipstream_core::message::Kind;
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
