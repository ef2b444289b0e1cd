//! How much a node looks at for a batch, counted.

use core::sync::atomic::Ordering;

use bytes::Bytes;

use super::*;
use crate::io::{Frame, LinkUp, Protocol};
use crate::store::{Committed, Usage};
use crate::types::ids::{LinkId, NodeId, Position};
use crate::types::time::WallMs;

/// A node with a store that works, and sockets that take everything.
struct Lab {
    node: Node,
    now: Now,
    links: u64,
    batches: usize,
}

impl Lab {
    fn new() -> Self {
        let now = Now { instant: Instant::from_micros(0), wall: WallMs(1_790_000_000_000) };
        let config = Config::new(NodeId::new("aws").expect("a name"));
        Self { node: Node::new(config, Recovered::empty(), 42, now), now, links: 0, batches: 0 }
    }

    fn give(&mut self, input: Input) {
        self.node.handle(input, self.now);
        while let Some(output) = self.node.poll_output() {
            let answer = match output {
                Output::Commit(batch) => {
                    self.batches += 1;
                    let usage = Usage::default();
                    Input::Committed(Committed { batch, usage, took: Duration::ZERO })
                }
                Output::Transmit { link, frame } if !frame.is_control() => {
                    Input::Sent { link, frames: 1, cost: frame.cost() }
                }
                _ => continue,
            };
            self.node.handle(answer, self.now);
        }
    }

    fn connect(&mut self, query: &str) -> LinkId {
        self.links += 1;
        let link = LinkId::new(self.links);
        let (remote, query) = ("r".into(), query.into());
        let protocol = Protocol::Json;
        self.give(Input::LinkUp(LinkUp { link, dial: None, protocol, remote, query }));
        link
    }

    fn publish(&mut self, till: LinkId, kind: &str, key: &str) {
        let ttl = if kind == "CMD" { r#","ttlMs":60000"# } else { "" };
        let tags = r#""targetedTags":["shop"]"#;
        let text = alloc::format!(r#"{{"type":"{kind}","key":"{key}","value":1,{tags}{ttl}}}"#);
        self.give(Input::Received { link: till, frame: Frame::Text(Bytes::from(text)) });
    }

    /// How often sessions are looked at for a hundred batches.
    fn looks(&mut self, till: LinkId) -> usize {
        (0..3).for_each(|_| self.publish(till, "SK", "order:1"));
        let before = (self.node.sessions.table.looks.load(Ordering::Relaxed), self.batches);
        (0..50).for_each(|_| self.publish(till, "SK", "order:1"));
        (0..50).for_each(|_| self.publish(till, "CMD", "order:1"));
        assert_eq!(self.batches - before.1, 100);
        self.node.sessions.table.looks.load(Ordering::Relaxed) - before.0
    }
}

// keeps: sessions-at-rest
#[test]
fn a_batch_costs_nothing_for_who_receives_none_of_it() {
    let mut lab = Lab::new();
    let till = lab.connect("keys=");
    lab.connect("keys=order:&tags=shop&replay=new&ack=auto");
    let alone = lab.looks(till);
    for number in 0..200 {
        lab.connect(&alloc::format!("client=here-{number}&keys=inv:&tags=shop&replay=new"));
        lab.connect("keys=inv:&tags=shop&replay=new");
        let away =
            lab.connect(&alloc::format!("client=away-{number}&keys=inv:&tags=shop&replay=new"));
        lab.give(Input::LinkDown { link: away, code: Some(1000), reason: "".into() });
        lab.connect("keys=order:&tags=bank&replay=new");
        lab.connect("tags=bank&replay=new");
        lab.connect(&alloc::format!("client=one-{number}&keys=one:&tags=shop&replay=new"));
    }
    // Each of the last has one in flight that it does not acknowledge.
    lab.publish(till, "SK", "one:1");
    let with_others = lab.looks(till);
    // An event is told once to each that had come to none.
    let once = 1000;
    assert!(with_others <= alone + once, "{with_others} looks, {alone} without the others");
}

// keeps: sessions-at-rest
#[test]
fn who_rests_is_handed_what_comes_for_it() {
    let mut lab = Lab::new();
    let till = lab.connect("keys=");
    let stock = lab.connect("client=stock&keys=inv:&tags=shop&replay=new");
    (0..5).for_each(|_| lab.publish(till, "SK", "order:1"));
    let id = lab.node.sessions.by_name["app:stock"];
    assert!(!lab.node.sessions.table.awake().any(|session| session.id == id), "it rests");
    lab.publish(till, "SK", "inv:1");
    let flights = |lab: &Lab| lab.node.sessions.table.get(&id).map(|session| session.flights.len());
    assert_eq!(flights(&lab), Some(1));
    (0..5).for_each(|_| lab.publish(till, "SK", "order:1"));
    assert!(!lab.node.sessions.table.awake().any(|session| session.id == id), "it rests again");
    // Its delivery was not acknowledged: it stays, and holds the log from there on.
    let node = &mut lab.node;
    assert_eq!(lend!(node, Retention).floors().0, Position::new(5));
    lab.give(Input::LinkDown { link: stock, code: None, reason: "".into() });
    let session = lab.node.sessions.table.get(&id);
    assert_eq!(
        session.map(|it| (it.cursor(), it.next)),
        Some((Position::new(5), Position::new(12)))
    );
}
