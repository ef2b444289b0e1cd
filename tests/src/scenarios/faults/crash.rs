//! Crash points: a node dies instead of its n-th system call of a kind, for many kinds and n, and
//! what it had acknowledged is there afterwards, once (P1, P2, P3, P9).

use std::fs;
use std::os::unix::process::ExitStatusExt;

use crate::harness::{
    Daemon, Injection, LONG, Mesh, Need, NodeConfig, Publisher, Subscriber, each_exactly_once,
    never_twice_unmarked, until,
};

use super::super::{load, nodes};
use super::{Tally, holds_exactly};

/// System calls, and which of them are not made because the node dies there. The first ones fall
/// into the recovery, the later ones into publishing, the last into the end.
type Points = &'static [(&'static str, &'static [usize])];

const ONE_NODE: Points = &[
    ("fsync", &[1, 2, 3, 4, 5, 6, 8, 12, 20]),
    ("pwrite64", &[1, 2, 3, 4, 5, 6, 9, 14, 22, 35, 56]),
    ("ftruncate", &[1, 2]),
    ("openat", &[1, 2, 3, 4]),
    ("pread64", &[1, 4, 8, 12]),
    ("sendto", &[1, 2, 3, 5, 9, 15]),
    ("recvfrom", &[2, 4, 7, 12, 20]),
    ("epoll_wait", &[3, 10, 25, 50]),
    ("write", &[6, 11, 14, 20]),
];

const NEW_STORE: Points = &[
    ("mkdir", &[1]),
    ("openat", &[1, 2, 3, 4, 5]),
    ("pwrite64", &[1, 2, 3, 5, 8, 12, 18, 26, 40]),
    ("fsync", &[1, 2, 3, 4, 5, 7, 9, 12]),
    ("unlink", &[1]),
    ("ftruncate", &[1]),
];

const FORWARDING: Points = &[
    ("fsync", &[1, 3, 5, 6, 7, 9, 13]),
    ("pwrite64", &[1, 3, 5, 6, 8, 11, 16, 24]),
    ("pread64", &[3, 9]),
    ("sendto", &[1, 2, 3, 5, 8, 12]),
    ("recvfrom", &[2, 3, 5, 8, 12]),
    ("epoll_wait", &[5, 12, 20]),
];

/// A node recovers, publishes, delivers and ends, and dies on the way at each of these points.
pub fn at_every_step_of_one_node(binary: &str) {
    const STORY: &str = "crash points of one node";
    if !Need::Strace.is_met(STORY) {
        return;
    }
    let mut tally = Tally::default();
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let watcher = Subscriber::start(&node, "client=watch");
    let mut everything = Vec::new();
    for (calls, nth) in each(ONE_NODE) {
        tally.expect(calls);
        let name = format!("{calls}-{nth}");
        node.kill();
        let publisher = Publisher::with_window(&node, "till", 2, load(&name, 24));
        point(calls, nth).start(&mut node);
        if strikes(&mut node, || publisher.is_finished()) {
            tally.count(calls);
        }
        node.run();
        let published = publisher.finish();
        let made: Vec<_> = load(&name, 24).collect();
        holds_exactly(&node, &format!("{name}/"), published.ids(), &made);
        everything.extend(published.receipts);
    }
    watcher.wait_for("the watcher", everything.len(), LONG);
    let ids = || everything.iter().map(|(id, _)| id.as_str());
    never_twice_unmarked("the watcher", &watcher.stop(), ids());
    let auditor = Subscriber::start(&node, "client=auditor");
    each_exactly_once("the auditor", &auditor.stop(), ids());
    tally.report(STORY, 1);
}

/// A node dies while it makes its database. It starts all the same, and works.
pub fn while_the_store_is_made(binary: &str) {
    const STORY: &str = "crash points of a new store";
    if !Need::Strace.is_met(STORY) {
        return;
    }
    let mut tally = Tally::default();
    let mut node = Daemon::prepare(binary, NodeConfig::new("aws"));
    for (calls, nth) in each(NEW_STORE) {
        tally.expect(calls);
        let name = format!("{calls}-{nth}");
        let publisher = Publisher::with_window(&node, "till", 2, load(&name, 4));
        point(calls, nth).start(&mut node);
        if strikes(&mut node, || publisher.is_finished()) {
            tally.count(calls);
        }
        node.run();
        let made: Vec<_> = load(&name, 4).collect();
        holds_exactly(&node, &format!("{name}/"), publisher.finish().ids(), &made);
        node.kill();
        fs::remove_dir_all(node.data_dir()).expect("the folder of a node that ended can go");
    }
    tally.report(STORY, 1);
}

/// Two nodes forward to each other; one of them dies at each of these points. Everything that
/// was acknowledged is on both, once.
pub fn at_every_step_of_forwarding(binary: &str) {
    const STORY: &str = "crash points of forwarding";
    if !Need::Strace.is_met(STORY) {
        return;
    }
    let mut tally = Tally::default();
    let configs = nodes(&["aws", "azure"]).into_iter();
    let configs = configs.map(|one| one.text("reconnect.max", "100ms")).collect();
    let mut mesh = Mesh::line(binary, configs);
    let watchers: Vec<_> =
        mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch")).collect();
    let mut everything = Vec::new();
    for (victim, (calls, nth)) in
        (0..2).flat_map(|victim| each(FORWARDING).map(move |p| (victim, p)))
    {
        let kind = format!("{calls} of {}", mesh.nodes[victim].config.id);
        tally.expect(&kind);
        mesh.nodes[victim].kill();
        let publishers: Vec<_> = mesh
            .nodes
            .iter()
            .map(|node| {
                let name = format!("{}-{victim}-{calls}-{nth}", node.config.id);
                Publisher::with_window(node, "till", 2, load(&name, 10))
            })
            .collect();
        let node = &mut mesh.nodes[victim];
        point(calls, nth).start(node);
        if strikes(node, || publishers.iter().all(Publisher::is_finished)) {
            tally.count(&kind);
        }
        node.run();
        for published in publishers.into_iter().map(Publisher::finish) {
            assert!(published.refused.is_empty(), "{:?}", published.refused);
            everything.extend(published.receipts);
        }
        for (watcher, node) in watchers.iter().zip(&mesh.nodes) {
            let who = format!("{} after {kind} {nth}", node.config.id);
            watcher.wait_for(&who, everything.len(), LONG);
        }
    }
    let ids = || everything.iter().map(|(id, _)| id.as_str());
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes) {
        never_twice_unmarked(&node.config.id, &watcher.stop(), ids());
        let auditor = Subscriber::start(node, "client=auditor");
        each_exactly_once(&node.config.id, &auditor.stop(), ids());
    }
    tally.report(STORY, 1);
}

fn each(points: Points) -> impl Iterator<Item = (&'static str, usize)> {
    points.iter().flat_map(|(calls, nths)| nths.iter().map(|nth| (*calls, *nth)))
}

fn point(calls: &'static str, nth: usize) -> Injection {
    let injection = Injection::kill(calls, nth);
    // The program itself opens and reads files too, and before all else.
    match calls {
        "openat" | "pread64" | "mkdir" => injection.in_data(),
        _ => injection,
    }
}

/// Whether the node dies of the fault: at its start, before `done`, or at its end, which comes
/// when all else is done.
fn strikes(node: &mut Daemon, done: impl Fn() -> bool) -> bool {
    let status = node.started().unwrap_or_else(|| {
        let mut died = false;
        until("the fault, or the work to be done", LONG, || {
            died = node.exited().is_some();
            died || done()
        });
        if died { node.ended() } else { node.terminate() }
    });
    let struck = status.signal() == Some(9);
    assert!(struck || status.success(), "{status}:\n{}", node.log());
    struck
}
