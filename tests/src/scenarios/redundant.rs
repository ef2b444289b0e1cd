//! Two nodes of a cluster group act as one for an application that publishes through both (P10).

use std::collections::HashMap;

use crate::harness::{Daemon, LONG, Message, NodeConfig, Publisher, Subscriber, until};

use super::filler;

/// Messages, each published through both nodes.
const EACH: usize = 4_000;

/// Values of keys of their own, and events in between.
fn messages() -> impl Iterator<Item = Message> + Send {
    (0..EACH).map(|number| match number % 2 {
        0 => Message::state(format!("m-{number}"), format!("order:{number}"), filler(64)),
        _ => Message::event(format!("m-{number}"), "terminal:1", "1"),
    })
}

/// Everything is published through both; each is killed once, and comes back. An application
/// elsewhere is handed each message once.
pub fn either_of_two_may_be_killed(binary: &str) {
    let azure = Daemon::start(binary, NodeConfig::new("azure"));
    let of_group = |id: &str| {
        NodeConfig::new(id).text("node.cluster_group", "aws").peer(&azure.config.address)
    };
    let mut first = Daemon::start(binary, of_group("aws-1"));
    let second = of_group("aws-2").peer(&first.config.address);
    let mut second = Daemon::start(binary, second);
    azure.await_mesh(3);
    let watchers = [&azure, &first].map(|node| Subscriber::start(node, "client=watch"));
    let publishers = [&first, &second].map(|node| Publisher::start(node, "till", messages()));

    publishers[0].wait_for(EACH / 8);
    first.kill();
    publishers[1].wait_for(EACH / 4);
    first.run();
    publishers[0].wait_for(EACH / 2);
    second.kill();
    publishers[0].wait_for(EACH * 3 / 4);
    second.run();
    for publisher in publishers {
        assert_eq!(publisher.finish().receipts.len(), EACH, "each node gives each receipt");
    }

    for node in [&first, &second, &azure] {
        until(&format!("{} to owe nothing", node.config.id), LONG, || {
            let sessions = node.sessions();
            let mut connected = sessions.iter().filter(|one| one["connected"] == true);
            connected.all(|one| one["behind"] == 0 && one["in_flight"] == 0)
        });
    }

    // Where a node has ended, what may have been handed over before is marked, and is not new.
    let places = [("elsewhere", EACH), ("at a node of the group", 1)];
    for (watcher, (place, least)) in watchers.into_iter().zip(places) {
        watcher.wait_for(place, EACH, LONG);
        let mut handed = HashMap::<String, usize>::new();
        for delivery in watcher.stop().into_iter().filter(|delivery| delivery.redelivery == 0) {
            *handed.entry(delivery.id).or_default() += 1;
        }
        let more = handed.iter().filter(|(_, times)| **times > 1).collect::<Vec<_>>();
        assert!(more.is_empty(), "{place}: handed more than once: {more:?}");
        assert!(handed.len() >= least, "{place}: {} as new", handed.len());
    }
    let copies = azure.metric("slipstream_duplicates_total", &["group"]) as usize;
    assert!(copies > EACH / 2, "{copies} copies were not handed on");
}
