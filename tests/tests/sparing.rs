//! A store that fills up with events for others, and what it can spare of them.

use std::time::Duration;

use slipstream_core::config::Config;
use slipstream_core::ids::{Incarnation, LinkId, NodeId, Position, StoreId};
use slipstream_core::io::Frame;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{Ack, BatchKind, FrameWriter, Wire, messages, timed};
use slipstream_tests::world::World;

/// So long after its start a node knows who is in the mesh.
const A_WHILE: Duration = Duration::from_secs(61);

/// A node `a` with room for a few dozen events, linked to `y` and `z`, which exist only in frames.
struct Small {
    a: World,
    y: LinkId,
    z: LinkId,
    till: LinkId,
    published: u64,
}

impl Small {
    /// Only `y` has the tag for which events are published.
    fn new() -> Self {
        let mut config = Config::new(NodeId::new("a").expect("a good name"));
        config.store.max_bytes = 64 << 10;
        let mut a = World::with(config);
        let y = link(&mut a, "y", &[record("y", 1, "aws", "a")]);
        let z = link(&mut a, "z", &[record("z", 1, "gcp", "a")]);
        let till = a.connect("keys=");
        // A record changes once a second at most.
        a.pass(Duration::from_secs(2));
        Self { a, y, z, till, published: 0 }
    }

    /// Publishes an event. Answers whether it was taken.
    fn publish(&mut self) -> bool {
        self.published += 1;
        let (number, value) = (self.published, "x".repeat(1000));
        let rest = format!(r#""key":"t","value":"{value}","targetedTags":["aws"]"#);
        let frame = format!(r#"{{"type":"CMD","messageId":"c-{number}",{rest}}}"#);
        self.a.text(self.till, &frame);
        self.a.settle();
        let said = self.a.said(self.till);
        said.iter().any(|frame| frame["type"] == "ACK")
    }

    /// Publishes until the store is full; `y` takes everything.
    fn fill(&mut self) {
        let mut sent = 0;
        while self.publish() {
            sent += carried(&mut self.a, self.y);
            acknowledge(&mut self.a, self.y, sent);
        }
        assert_eq!(carried(&mut self.a, self.z), 0, "nobody behind z wants them");
        assert!(sent > 20, "{sent} were taken");
    }

    fn is_full(&mut self) -> bool {
        self.a.status().refusing.is_some()
    }

    fn forgotten(&mut self) -> u64 {
        self.a.status().store.usage.forgotten_total
    }
}

fn record(node: &str, revision: u64, tags: &str, links: &str) -> NodeRecord {
    let (store, incarnation) = (StoreId(77), Incarnation::new(1));
    let (node, tags, links) = (node.into(), tags.into(), links.into());
    NodeRecord { node, store, incarnation, revision, tags, links }
}

/// A link from a node that tells this of the mesh.
fn link(world: &mut World, node: &str, records: &[NodeRecord]) -> LinkId {
    let hello = world.hello(node);
    let link = world.greet(hello);
    tell(world, link, records);
    acknowledge(world, link, 0);
    link
}

fn tell(world: &mut World, link: LinkId, records: &[NodeRecord]) {
    let mut writer = FrameWriter::new(BatchKind::Topology);
    records.iter().for_each(|record| writer.push(record));
    world.binary(link, writer.finish());
    world.settle();
}

/// The peer has so many messages of this link durable.
fn acknowledge(world: &mut World, link: LinkId, upto: u64) {
    let (position, wall) = (Position::default(), world.now.wall);
    world.binary(link, Wire::Ack(Ack { upto, position, wall }).encode());
    world.settle();
}

/// What a link has carried since this was asked last.
fn said(world: &mut World, link: LinkId) -> Vec<Wire> {
    let binary = world.frames(link).into_iter().filter_map(|frame| match frame {
        Frame::Binary(bytes) => Some(Wire::decode(&bytes).expect("the node sends frames")),
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => None,
    });
    binary.collect()
}

/// How many messages a link has carried since this was asked last.
fn carried(world: &mut World, link: LinkId) -> u64 {
    let batches = said(world, link).into_iter().filter_map(|wire| match wire {
        Wire::Messages(batch) => Some(messages(&batch).expect("messages").len() as u64),
        Wire::Timed(batch) => Some(timed(&batch).expect("messages").1.len() as u64),
        _ => None,
    });
    batches.sum()
}

// keeps: led-nowhere
#[test]
fn what_has_reached_everybody_gives_way_before_publishers_do() {
    let mut small = Small::new();
    small.fill();
    assert!(small.is_full());
    small.a.pass(A_WHILE);
    assert!(!small.is_full(), "history gives way, and what led nowhere behind z with it");
    assert!(small.forgotten() > 0, "it is counted");
    assert!(small.publish());
}

// keeps: led-nowhere
#[test]
fn what_somebody_out_of_reach_may_want_stays_until_he_has_it() {
    let mut small = Small::new();
    tell(&mut small.a, small.z, &[record("x", 1, "aws", "")]);
    small.fill();
    small.a.pass(A_WHILE);
    assert!(small.is_full());
    assert_eq!(small.forgotten(), 0);

    tell(&mut small.a, small.z, &[record("x", 2, "aws", "z"), record("z", 2, "gcp", "a,x")]);
    small.a.pass(Duration::from_secs(1));
    let offers = said(&mut small.a, small.z).into_iter().filter_map(|wire| match wire {
        Wire::Have(batch) => Some(batch),
        _ => None,
    });
    let offers: Vec<_> = offers.collect();
    assert!(!offers.is_empty(), "it is offered to whom it has waited for");
    assert_eq!(small.forgotten(), 0);
    for batch in offers {
        small.a.binary(small.z, Wire::Seen(batch).encode());
    }
    small.a.pass(Duration::from_secs(2));
    assert!(!small.is_full());
    assert!(small.publish());
}

// keeps: led-nowhere
#[test]
fn while_a_peer_is_away_nothing_that_led_nowhere_goes() {
    let mut small = Small::new();
    small.fill();
    small.a.lose(small.z);
    small.a.pass(A_WHILE);
    assert!(small.is_full(), "who lies behind z is not known");
    let hello = small.a.hello("z");
    small.z = small.a.greet(hello);
    small.a.pass(Duration::from_secs(2));
    assert!(small.is_full(), "z has not told of the mesh");
    tell(&mut small.a, small.z, &[record("z", 2, "gcp", "a")]);
    acknowledge(&mut small.a, small.z, 0);
    small.a.pass(Duration::from_secs(2));
    assert!(!small.is_full());
}
