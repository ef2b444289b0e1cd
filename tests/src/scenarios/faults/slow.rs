//! Links on which a large value takes many times as long as silence may last (P2, P3, P13).

use std::thread;

use crate::harness::{App, Daemon, LONG, Message, NodeConfig, Proxy, Said, until};

use super::super::filler;

/// Bytes a second, each way.
const RATE: u64 = 30 << 10;
/// Just below the largest value that a node takes by default.
const LARGE: usize = 1_000_000;

/// A large value crosses a slow link between nodes, one to an application, and one from an
/// application, while heartbeats are short: nobody gives the other up, and each comes once.
pub fn that_carry_a_large_value(binary: &str) {
    let config = |id: &str| {
        let quick = NodeConfig::new(id).text("heartbeat.interval", "1s");
        quick.text("heartbeat.timeout", "5s")
    };
    let azure = Daemon::start(binary, config("azure"));
    let link = Proxy::slow(&azure.config.address, RATE);
    let aws = Daemon::start(binary, config("aws").peer(&link.address));
    aws.await_peer("azure");
    let doors = [&aws, &azure].map(|node| Proxy::slow(&node.config.address, RATE));
    let [in_door, out_door] = &doors;

    thread::scope(|scope| {
        // From an application to aws.
        scope.spawn(|| {
            let mut app = open(&in_door.address, "client=slow-in&keys=");
            let large = Message::state("in", "in", filler(LARGE));
            app.send(large.json());
            let receipt = said(&mut app, "ACK");
            assert_eq!(receipt.as_deref(), Some("in"), "the receipt");
        });
        // From aws to azure, and from there to an application. Each of the two has what the other
        // one is sent.
        scope.spawn(|| {
            let mut slow = open(&out_door.address, "client=slow-out&keys=out");
            App::connect(&azure, "client=near&keys=").publish(&large("out"));
            assert_eq!(said(&mut slow, "SK").as_deref(), Some("out"), "the delivery");
        });
        scope.spawn(|| {
            let mut near = App::connect(&azure, "client=behind&keys=over");
            App::connect(&aws, "client=before&keys=").publish(&large("over"));
            assert_eq!(said(&mut near, "SK").as_deref(), Some("over"), "from node to node");
        });
    });
    until("both nodes to be at rest", LONG, || {
        aws.metric("slipstream_link_up", &["peer=\"azure\""]) == 1.0
    });
    for proxy in [&link, in_door, out_door] {
        assert_eq!(proxy.accepted(), 1, "one connection each");
    }
}

fn large(name: &str) -> Message {
    Message::state(name, name, filler(LARGE))
}

fn open(address: &str, query: &str) -> App {
    App::open(address, query, &[]).unwrap_or_else(|refused| panic!("{query}: {refused:?}"))
}

/// The id of the next frame of this kind; nobody else is given up meanwhile.
fn said(app: &mut App, kind: &str) -> Option<String> {
    loop {
        match app.next(LONG) {
            Said::Frame(frame) if frame.kind == kind => return frame.message_id,
            Said::Frame(_) => {}
            other => panic!("expected {kind}, not {other:?}"),
        }
    }
}
