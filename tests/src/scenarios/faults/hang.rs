//! A node that hangs, SIGSTOP to SIGCONT: the others go on, it catches up, nothing comes twice
//! (P2, P3, P8).

use std::time::Duration;

use crate::harness::{
    LONG, Mesh, PATIENCE, Subscriber, each_exactly_once, never_twice_unmarked, until,
};

use super::super::nodes;
use super::{Tally, Traffic, probe, quick};

/// One of three nodes hangs for longer than the heartbeat allows, three times.
pub fn longer_than_the_heartbeat(binary: &str) {
    const HANGS: usize = 3;
    let mut tally = Tally::default();
    let mesh = Mesh::full(binary, nodes(&["aws", "azure", "gcp"]).into_iter().map(quick).collect());
    let [aws, azure, gcp] = &mesh.nodes[..] else { panic!("three nodes were started") };
    let watchers = mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch"));
    let watchers: Vec<_> = watchers.collect();
    let traffic: Vec<_> = [aws, gcp]
        .map(|node| Traffic::start(node, &node.config.id, Duration::from_millis(3)))
        .into_iter()
        .collect();

    for hang in 0..HANGS {
        azure.pause();
        for node in [aws, gcp] {
            until(&format!("{} to notice", node.config.id), PATIENCE, || {
                node.metric("slipstream_link_up", &["peer=\"azure\""]) == 0.0
            });
        }
        probe(aws, &watchers[2], &format!("to-gcp-{hang}"));
        probe(gcp, &watchers[0], &format!("to-aws-{hang}"));
        traffic.iter().for_each(|one| one.goes_on(20));
        azure.resume();
        tally.count("hangs");
        for node in [aws, gcp] {
            node.await_peer("azure");
        }
        probe(aws, &watchers[1], &format!("to-azure-{hang}"));
    }

    let published: Vec<_> = traffic.into_iter().map(Traffic::stop).collect();
    assert!(published.iter().all(|one| one.lost_connections == 0), "the others were left alone");
    let probes: Vec<_> = (0..HANGS)
        .flat_map(|hang| ["gcp", "aws", "azure"].map(|to| format!("to-{to}-{hang}")))
        .collect();
    let owed: Vec<_> = published
        .iter()
        .flat_map(|one| one.ids())
        .chain(probes.iter().map(String::as_str))
        .collect();
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes) {
        let id = &node.config.id;
        watcher.wait_for(id, owed.len(), LONG);
        let deliveries = watcher.stop();
        // The connection of the application that was attached to it may have been given up, too,
        // and with it acknowledgements on their way.
        match id.as_str() {
            "azure" => never_twice_unmarked(id, &deliveries, owed.iter().copied()),
            _ => each_exactly_once(id, &deliveries, owed.iter().copied()),
        }
    }
    tally.report("a node that hangs", HANGS);
}
