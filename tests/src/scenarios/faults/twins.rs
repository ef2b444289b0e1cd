//! Two processes on copies of one database, under one id: everybody says so, and nothing that one
//! of them acknowledged is lost (P2).

use std::collections::HashSet;
use std::fs;

use crate::harness::{App, Daemon, LONG, NodeConfig, PATIENCE, Publisher, Subscriber, until};

use super::super::load;

/// A machine is cloned with its node, and both run for a while, each linked to another peer, or
/// both to the same one; then the clone goes, and the original is started again.
pub fn on_a_copied_directory(binary: &str) {
    [false, true].into_iter().for_each(|on_one_peer| cloned(binary, on_one_peer));
}

fn cloned(binary: &str, on_one_peer: bool) {
    let azure = Daemon::start(binary, NodeConfig::new("azure"));
    let gcp = Daemon::start(binary, NodeConfig::new("gcp").peer(&azure.config.address));
    gcp.await_peer("azure");
    let config = |peer: &Daemon| NodeConfig::new("aws").peer(&peer.config.address);
    let mut aws = Daemon::start(binary, config(&azure));
    aws.await_peer("azure");
    App::connect(&aws, "client=watch").leave();
    assert_eq!(aws.terminate().code(), Some(0));
    let mut twin = Daemon::prepare(binary, config(if on_one_peer { &azure } else { &gcp }));
    copy(&aws, &twin);
    aws.run();
    aws.await_peer("azure");
    twin.run();

    for node in [&aws, &twin, &azure] {
        until("each of the three to say so", PATIENCE, || {
            let log = node.log();
            let mut loud = log.lines().filter(|line| line.contains(r#""level":"ERROR""#));
            loud.any(|line| line.contains("aws"))
        });
        assert!(node.metric("slipstream_identity_conflicts_total", &[]) > 0.0);
    }
    let at = |node: &Daemon, name: &str, count: usize| {
        Publisher::publish_all(node, &format!("till-{name}"), load(name, count))
    };
    let published = [at(&aws, "aws", 400), at(&azure, "azure", 200), at(&twin, "twin", 100)];
    let owed: HashSet<_> = published.iter().flat_map(|one| one.ids()).collect();
    // What the twin alone has would go with it.
    let witness = Subscriber::start(&azure, "client=witness");
    // One peer has a link to the later start alone: what the other one has comes afterwards.
    let reachable = if on_one_peer { owed.len() - 400 } else { owed.len() };
    witness.wait_for("azure", reachable, LONG);
    assert_eq!(aws.terminate().code(), Some(0));
    assert_eq!(twin.terminate().code(), Some(0));
    aws.run();

    witness.wait_for("azure", owed.len(), LONG);
    let watcher = Subscriber::start(&aws, "client=watch");
    watcher.wait_for("aws", owed.len(), LONG);
    let handed = watcher.stop();
    let handed: HashSet<_> = handed.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(handed, owed);
}

/// Copies the data directory of a node that does not run.
fn copy(from: &Daemon, to: &Daemon) {
    fs::create_dir_all(to.data_dir()).expect("a folder can be made");
    for file in fs::read_dir(from.data_dir()).expect("the folder is there").flatten() {
        let target = to.data_dir().join(file.file_name());
        fs::copy(file.path(), target).expect("a file can be copied");
    }
}
