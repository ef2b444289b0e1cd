//! `kill -9`: what was acknowledged is there afterwards, everywhere, once (P1, P2, P3, P9).

use std::collections::HashSet;

use crate::harness::{
    App, Daemon, LONG, Mesh, Message, NodeConfig, Publisher, Subscriber, each_exactly_once,
    never_twice_unmarked, paths_are_sound, until,
};

use super::{load, nodes};

/// Each node of a ring is killed twice while all of them are published to; every second time it
/// is killed again while it catches up.
pub fn killed_under_load(binary: &str) {
    const EACH: usize = 6_000;
    const KILLS: usize = 6;
    let mut mesh = Mesh::ring(binary, nodes(&["aws", "azure", "gcp"]));
    let watchers: Vec<_> =
        mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch")).collect();
    let publishers: Vec<_> = mesh
        .nodes
        .iter()
        .map(|node| Publisher::start(node, "till", load(&node.config.id, EACH)))
        .collect();

    for kill in 1..=KILLS {
        let moment = kill * 3 * EACH / (KILLS + 1);
        until(&format!("receipt {moment}"), LONG, || {
            publishers.iter().map(Publisher::receipts).sum::<usize>() >= moment
        });
        let victim = &mut mesh.nodes[kill % 3];
        victim.kill();
        victim.run();
        if kill % 2 == 0 {
            victim.kill();
            victim.run();
        }
    }

    let published: Vec<_> = publishers.into_iter().map(Publisher::finish).collect();
    assert!(published.iter().all(|one| one.refused.is_empty()), "nothing is refused for good");
    assert!(published.iter().any(|one| one.lost_connections > 0), "the kills were felt");
    let receipts: HashSet<_> = published.iter().flat_map(|one| one.ids()).collect();
    assert_eq!(receipts.len(), 3 * EACH);
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes) {
        let id = &node.config.id;
        watcher.wait_for(id, receipts.len(), LONG);
        let deliveries = watcher.stop();
        never_twice_unmarked(id, &deliveries, receipts.iter().copied());
        paths_are_sound(&deliveries, id);
    }
    for node in &mesh.nodes {
        every_receipt_is_honoured(node, &receipts);
    }
}

/// Somebody who was never there before is handed everything that has a receipt, once.
fn every_receipt_is_honoured(node: &Daemon, receipts: &HashSet<&str>) {
    let auditor = Subscriber::start(node, "client=auditor");
    auditor.wait_for(&node.config.id, receipts.len(), LONG);
    each_exactly_once(&node.config.id, &auditor.stop(), receipts.iter().copied());
}

/// A node is killed the moment it has given a receipt, again and again.
pub fn killed_on_the_receipt(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut receipts = Vec::new();
    for round in 0..8 {
        let mut till = App::connect(&node, "client=till&keys=");
        for number in 0..=round {
            let id = format!("r-{round}-{number}");
            let receipt = till.publish(&Message::state(&id, format!("order:{id}"), "1.10"));
            assert_eq!(receipt.level.as_deref(), Some("durable"));
            assert_eq!(receipt.duplicate, None);
            receipts.push(id);
        }
        node.kill();
        node.run();
    }
    let mut auditor = App::connect(&node, "client=auditor");
    let handed = auditor.replay();
    let ids: Vec<_> = handed.iter().map(|frame| frame.id().to_owned()).collect();
    assert_eq!(ids, receipts, "all of them, in the order of the log");
}

/// An operator may turn syncing off; the receipt then says what it is worth.
pub fn without_syncing_the_receipt_says_so(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").text("store.durability", "normal"));
    let receipt = App::connect(&node, "").publish(&Message::state("m-1", "order:1", "1"));
    assert_eq!(receipt.level.as_deref(), Some("written"));
}
