//! Links that are cut, reset, stalled, or lose one way: everything arrives once, and the link is
//! used again after each (P2, P3, P13).

use std::thread;
use std::time::Duration;

use crate::harness::{
    LONG, Mesh, PATIENCE, Proxy, Seed, Subscriber, Way, announce, each_exactly_once, until,
};

use super::super::nodes;
use super::{Tally, Traffic, probe, quick};

/// How often each fault strikes.
const ROUNDS: usize = 3;
const PACE: Duration = Duration::from_millis(3);

/// What happens to the bytes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Reset,
    Stall,
    LoseThere,
    LoseBack,
}

const FAULTS: [Fault; 5] =
    [Fault::Cut, Fault::Reset, Fault::Stall, Fault::LoseThere, Fault::LoseBack];

impl Fault {
    fn strike(self, proxy: &Proxy) {
        match self {
            Self::Cut => proxy.cut(),
            Self::Reset => proxy.reset(),
            Self::Stall => proxy.stall(),
            Self::LoseThere => proxy.lose(Way::There),
            Self::LoseBack => proxy.lose(Way::Back),
        }
    }
}

/// Two nodes whose link suffers all of this, in an order and for times that the seed draws, while
/// both are published to.
pub fn that_fail_in_every_way(binary: &str) {
    const STORY: &str = "faults of a link";
    let mut seed = Seed::of(STORY);
    let mut tally = Tally::default();
    let configs = nodes(&["aws", "azure"]).into_iter().map(quick).collect();
    let mesh = Mesh::line(binary, configs);
    let watchers = mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch"));
    let watchers: Vec<_> = watchers.collect();
    let traffic: Vec<_> =
        mesh.nodes.iter().map(|node| Traffic::start(node, &node.config.id, PACE)).collect();
    let mut plan = FAULTS.repeat(ROUNDS);
    seed.shuffle(&mut plan);
    let mut probes = Vec::new();

    for (round, fault) in plan.into_iter().enumerate() {
        let lost = mesh.link.lost();
        fault.strike(&mesh.link);
        // Some end before a heartbeat notices, some after.
        thread::sleep(seed.millis(50..2_000));
        if matches!(fault, Fault::LoseThere | Fault::LoseBack) {
            until("bytes to be lost", PATIENCE, || mesh.link.lost() > lost);
        }
        traffic.iter().for_each(|one| one.goes_on(1));
        mesh.link.heal();
        for (from, to) in [(0, 1), (1, 0)] {
            let id = format!("probe-{round}-{from}");
            probe(&mesh.nodes[from], &watchers[to], &id);
            probes.push(id);
        }
        tally.count(&format!("{fault:?}"));
    }

    let published: Vec<_> = traffic.into_iter().map(Traffic::stop).collect();
    let owed: Vec<_> = published
        .iter()
        .flat_map(|one| one.ids())
        .chain(probes.iter().map(String::as_str))
        .collect();
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes) {
        watcher.wait_for(&node.config.id, owed.len(), LONG);
        each_exactly_once(&node.config.id, &watcher.stop(), owed.iter().copied());
    }
    assert!(published.iter().all(|one| one.lost_connections == 0), "applications were left alone");
    tally.report(STORY, ROUNDS);
}

/// Proxies that cut every connection after 30 s are common. Here it is 1 s, so that there are
/// many of them.
pub fn that_never_live_long(binary: &str) {
    const LIFE: Duration = Duration::from_secs(1);
    const LIVES: u64 = 10;
    let configs =
        nodes(&["aws", "azure"]).into_iter().map(|one| one.text("reconnect.max", "200ms"));
    let mesh = Mesh::line(binary, configs.collect());
    let watchers = mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch"));
    let watchers: Vec<_> = watchers.collect();
    mesh.link.limit_life(Some(LIFE));
    let traffic: Vec<_> =
        mesh.nodes.iter().map(|node| Traffic::start(node, &node.config.id, PACE)).collect();

    for life in 0..LIVES {
        let before = mesh.link.accepted();
        until("the next connection", PATIENCE, || mesh.link.accepted() > before);
        for (from, to) in [(0, 1), (1, 0)] {
            probe(&mesh.nodes[from], &watchers[to], &format!("probe-{life}-{from}"));
        }
    }

    let published: Vec<_> = traffic.into_iter().map(Traffic::stop).collect();
    let probes: Vec<_> = (0..LIVES)
        .flat_map(|life| [format!("probe-{life}-0"), format!("probe-{life}-1")])
        .collect();
    let owed: Vec<_> = published
        .iter()
        .flat_map(|one| one.ids())
        .chain(probes.iter().map(String::as_str))
        .collect();
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes) {
        watcher.wait_for(&node.config.id, owed.len(), LONG);
        each_exactly_once(&node.config.id, &watcher.stop(), owed.iter().copied());
    }
    announce(&format!("lives of a link of {LIFE:?} each: {}", mesh.link.accepted()));
}
