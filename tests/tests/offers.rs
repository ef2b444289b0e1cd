//! Two nodes that get the same messages from a third one, and what they say to each other of it.

use std::time::Duration;

use bytes::BytesMut;
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::ids::{Incarnation, LinkId, NodeId, Sequence, StoreId};
use slipstream_core::io::{Frame, Input};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::offer;
use slipstream_core::time::WallMs;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{BatchKind, FrameWriter, Hello, Wire};
use slipstream_tests::world::{self, World, carry, join};

/// `a` and `b` are linked to each other and to `z`, which exists only in these frames.
struct Triangle {
    a: World,
    b: World,
    wire: world::Wire,
    z: [LinkId; 2],
}

impl Triangle {
    fn new() -> Self {
        let mut config = Config::new(NodeId::new("a").expect("a good name"));
        config.peers = vec!["ws://peer:7400".into()];
        let (mut a, mut b) = (World::with(config), World::new("b"));
        a.pass(Duration::ZERO);
        let wire = join(&mut a, &mut b);
        let z = [link_of_z(&mut a, "a,b"), link_of_z(&mut b, "a,b")];
        let mut triangle = Self { a, b, wire, z };
        // Records change once a second at most.
        for _ in 0..3 {
            triangle.pass(Duration::from_secs(1));
        }
        triangle
    }

    /// Lets so much time pass at both, and carries what they say.
    fn pass(&mut self, time: Duration) {
        self.a.pass(time);
        self.b.pass(time);
        carry(&mut self.a, &mut self.b, self.wire);
    }

    /// `z` sends a message to one of them, or to both.
    fn send(&mut self, to: &[usize], sequence: u64) {
        for number in to {
            let world = if *number == 0 { &mut self.a } else { &mut self.b };
            let mut writer = FrameWriter::new(BatchKind::Messages);
            writer.push_message(&message(world, sequence));
            let frame = Frame::Binary(writer.finish());
            world.give(Input::Received { link: self.z[*number], frame });
            world.settle();
        }
    }
}

fn record(node: &str, revision: u64, tags: &str, links: &str) -> NodeRecord {
    let (store, incarnation) = (StoreId(77), Incarnation::new(1));
    let (node, tags, links) = (node.into(), tags.into(), links.into());
    NodeRecord { node, store, incarnation, revision, tags, links }
}

/// `z` tells what it knows of the mesh.
fn tell(world: &mut World, link: LinkId, records: &[NodeRecord]) {
    let mut writer = FrameWriter::new(BatchKind::Topology);
    records.iter().for_each(|record| writer.push(record));
    world.give(Input::Received { link, frame: Frame::Binary(writer.finish()) });
    world.settle();
}

/// A link from `z`, which has one to each of these nodes.
fn link_of_z(world: &mut World, links: &str) -> LinkId {
    let hello = world.hello("z");
    let link = world.greet(hello);
    tell(world, link, &[record("z", 1, "", links)]);
    link
}

fn message(world: &World, sequence: u64) -> Message {
    let (id, key) = (format!("m-{sequence}"), format!("order:{sequence}"));
    let fields = Fields {
        kind: Kind::Sk,
        incarnation: Incarnation::new(1),
        sequence: Sequence::new(sequence),
        version: Hlc(Hlc::at(world.now.wall).0 + sequence),
        expires: WallMs(0),
        group: "",
        tags: "",
        path: "z",
        id: &id,
        key: &key,
        body: "1",
    };
    Message::encode(&fields, &mut BytesMut::new())
}

/// A link from another node, which says nothing of the mesh.
fn link_of(world: &mut World, node: &str, store: u128) -> LinkId {
    let hello = Hello { store: StoreId(store), ..world.hello(node) };
    world.greet(hello)
}

/// What a node has said to the other one since it was asked last, and is not carried there.
fn said(world: &mut World, link: LinkId) -> Vec<Wire> {
    let binary = world.frames(link).into_iter().filter_map(|frame| match frame {
        Frame::Binary(bytes) => Some(Wire::decode(&bytes).expect("the node sends frames")),
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => None,
    });
    binary.collect()
}

fn named(wires: &[Wire]) -> Vec<u64> {
    let batches = wires.iter().filter_map(|wire| match wire {
        Wire::Have(batch) => Some(offer::read(batch).expect("spans").len() as u64),
        _ => None,
    });
    batches.collect()
}

// keeps: steady-state
#[test]
fn what_comes_evenly_is_offered_together() {
    let mut triangle = Triangle::new();
    let link = triangle.wire.0;
    for sequence in 1..=10 {
        triangle.send(&[0], sequence);
        triangle.a.pass(Duration::from_millis(10));
    }
    triangle.a.pass(Duration::from_millis(100));

    let wires = said(&mut triangle.a, link);
    assert!(!wires.iter().any(|wire| matches!(wire, Wire::Messages(_))), "z sends to both");
    let frames = named(&wires);
    assert_eq!(frames, [1, 1], "one span in each of two frames for ten messages in 100 ms");
}

// keeps: steady-state
#[test]
fn who_offers_each_other_the_same_needs_no_answer() {
    let mut triangle = Triangle::new();
    let wire = triangle.wire;
    triangle.send(&[0, 1], 1);
    triangle.a.pass(Duration::from_millis(100));
    triangle.b.pass(Duration::from_millis(100));
    let frames = [triangle.a.frames(wire.0), triangle.b.frames(wire.1)];
    let [from_a, from_b] = frames;
    for frame in from_a {
        triangle.b.give(Input::Received { link: wire.1, frame });
    }
    for frame in from_b {
        triangle.a.give(Input::Received { link: wire.0, frame });
    }

    let wires = [said(&mut triangle.a, wire.0), said(&mut triangle.b, wire.1)].concat();
    assert!(!wires.iter().any(|wire| matches!(wire, Wire::Seen(_))), "{wires:?}");
    for world in [&mut triangle.a, &mut triangle.b] {
        let sessions = world.status().sessions;
        let between = sessions.iter().filter(|one| one.name != "peer:z");
        assert!(between.into_iter().all(|one| one.in_flight == 0 && one.behind == 0));
    }
}

#[test]
fn a_node_answers_an_offer_instead_of_offering_too() {
    let mut triangle = Triangle::new();
    let wire = triangle.wire;
    triangle.send(&[0, 1], 1);
    triangle.a.pass(Duration::from_millis(100));
    for frame in triangle.a.frames(wire.0) {
        triangle.b.give(Input::Received { link: wire.1, frame });
    }
    triangle.b.pass(Duration::from_millis(100));

    let wires = said(&mut triangle.b, wire.1);
    assert!(wires.iter().any(|wire| matches!(wire, Wire::Seen(_))), "{wires:?}");
    assert!(named(&wires).is_empty());
}

/// A message of `z` with this path to whoever sends it.
fn with_path(world: &World, sequence: u64, path: &str) -> Message {
    let fields = message(world, sequence);
    Message::encode(&Fields { path, ..fields.fields() }, &mut BytesMut::new())
}

fn send(world: &mut World, link: LinkId, message: &Message) {
    let mut writer = FrameWriter::new(BatchKind::Messages);
    writer.push_message(message);
    world.give(Input::Received { link, frame: Frame::Binary(writer.finish()) });
    world.settle();
}

// keeps: peer-lost
#[test]
fn what_went_through_an_earlier_life_of_a_peer_is_named_to_it() {
    let mut a = World::new("a");
    let z = link_of_z(&mut a, "a");
    let y = link_of(&mut a, "y", 78);
    said(&mut a, z);

    // Whether the database of `z` is still the one that had them, no path tells.
    for (sequence, path) in [(1, "z,y"), (2, "x,z,y")] {
        let message = with_path(&a, sequence, path);
        send(&mut a, y, &message);
    }
    a.pass(Duration::from_millis(100));
    let wires = said(&mut a, z);
    assert!(!wires.iter().any(|wire| matches!(wire, Wire::Messages(_))), "unasked: {wires:?}");
    assert_eq!(named(&wires).iter().sum::<u64>(), 2, "both: {wires:?}");

    let direct = with_path(&a, 3, "x,z");
    send(&mut a, z, &direct);
    a.pass(Duration::from_millis(100));
    assert!(named(&said(&mut a, z)).is_empty(), "it is `z` that handed it over");
}

// keeps: peer-lost
#[test]
fn what_a_node_has_lost_goes_on_to_others_that_have_lost_it() {
    let mut a = World::new("a");
    let (x, z) = (link_of(&mut a, "x", 78), link_of_z(&mut a, "a"));
    said(&mut a, x);
    let mut offer = FrameWriter::new(BatchKind::Have);
    offer.push(&("x", Incarnation::new(1), 0_u64, 0_u64));
    a.give(Input::Received { link: z, frame: Frame::Binary(offer.finish()) });
    assert!(said(&mut a, z).iter().any(|wire| matches!(wire, Wire::Want(_))));
    let message = with_path(&a, 1, "x,a,z");
    send(&mut a, z, &message);
    a.pass(Duration::from_millis(100));
    let paths: Vec<_> = a.store.messages().map(|message| message.path().to_owned()).collect();
    assert_eq!(paths, ["x,z,a"]);
    assert_eq!(named(&said(&mut a, x)), [1], "it is not known to have it");
}

// keeps: shortest-paths
#[test]
fn what_was_to_be_offered_again_is_offered_over_the_next_link() {
    let mut a = World::new("a");
    let link = link_of_z(&mut a, "a,y");
    a.pass(Duration::ZERO);
    let till = a.connect("keys=");
    let publish = |a: &mut World, id: &str, tag: &str| {
        let head = format!(r#"{{"type":"SK","messageId":"{id}","key":"{id}","value":1"#);
        a.text(till, &format!(r#"{head},"targetedTags":["{tag}"]}}"#));
        a.settle();
    };
    tell(&mut a, link, &[record("y", 1, "", "z")]);
    publish(&mut a, "m-1", "gcp");
    publish(&mut a, "m-2", "eu");
    assert!(named(&said(&mut a, link)).is_empty(), "nobody behind z has these tags");
    tell(&mut a, link, &[record("y", 2, "gcp", "z")]);
    let wires = said(&mut a, link);
    assert_eq!(named(&wires), [1], "somebody has one of them");
    for wire in wires {
        if let Wire::Have(batch) = wire {
            let frame = Frame::Binary(Wire::Seen(batch).encode());
            a.give(Input::Received { link, frame });
        }
    }

    // A second return must wait, and its link is lost and comes back before any record says so.
    tell(&mut a, link, &[record("y", 3, "eu,gcp", "z")]);
    assert!(named(&said(&mut a, link)).is_empty());
    a.lose(link);
    let link = link_of_z(&mut a, "a,y");
    a.pass(Duration::from_secs(1));
    assert_eq!(named(&said(&mut a, link)), [1], "nor is it forgotten");
}

// keeps: hostile-input
#[test]
fn the_last_sequences_there_are_are_asked_for_like_others() {
    let mut world = World::new("a");
    let z = link_of_z(&mut world, "a");
    world.frames(z);
    // One span of `z`: all sequences but the last five are left out, and four follow the first.
    let mut have = FrameWriter::new(BatchKind::Have);
    have.push(&("z", Incarnation::new(1), u64::MAX - 5, 4_u64));
    world.binary(z, have.finish());
    world.settle();
    let frames = world.frames(z).into_iter().filter_map(|frame| match frame {
        Frame::Binary(bytes) => Some(Wire::decode(&bytes).expect("the node sends frames")),
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => None,
    });
    let wanted = frames.filter_map(|frame| match frame {
        Wire::Want(batch) => Some(offer::read(&batch).expect("spans")),
        _ => None,
    });
    let spans = wanted.flatten().collect::<Vec<_>>();
    let ends = spans.iter().map(|span| (span.first.get(), span.last.get()));
    assert_eq!(ends.collect::<Vec<_>>(), [(u64::MAX - 4, u64::MAX)]);
}
