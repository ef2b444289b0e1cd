//! Nodes that hold other things than each other: named by `slipstream diff`, and mended (P6, P7).

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::{
    App, Command, Daemon, LONG, Mesh, Message, PATIENCE, Proxy, Publisher, until,
};

use super::{load, nodes};

/// What `slipstream diff --json` says of two nodes: whether they are equal, and the keys.
fn diff(binary: &str, here: &str, there: &str) -> (bool, Vec<String>) {
    let args = ["diff", "--admin", here, "--with", there, "--json"];
    let finished = Command::new(binary, &args).run();
    let report: serde_json::Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", finished.stdout, finished.stderr));
    let equal = report["equal"] == true;
    assert_eq!(finished.code, Some(i32::from(!equal)), "{report}");
    let keys = report["keys"].as_array().expect("a list").iter();
    (equal, keys.map(|one| one["key"].as_str().unwrap_or_default().to_owned()).collect())
}

fn until_equal(binary: &str, [one, other]: [&Daemon; 2], patience: Duration) {
    until("two nodes to hold the same", patience, || {
        diff(binary, &one.admin_url(), &other.admin_url()).0
    });
}

/// Cuts the link, and waits until the first node knows it.
fn part(mesh: &Mesh) {
    mesh.link.cut();
    until("the link to be gone", PATIENCE, || {
        mesh.nodes[0].metric("slipstream_link_up", &["peer=\"azure\""]) == 0.0
    });
}

/// The keys on which two parted nodes differ are named, a delete among them, and none that is for
/// one of them alone; when they have met they hold the same.
pub fn the_keys_on_which_two_nodes_differ(binary: &str) {
    let mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let [aws, azure] = &mesh.nodes[..] else { panic!("two nodes were asked for") };
    let mut till = App::connect(aws, "client=till&keys=");
    for key in ["same", "changed", "deleted"] {
        till.publish(&Message::state(key, key, "1"));
    }
    until_equal(binary, [aws, azure], PATIENCE);

    part(&mesh);
    till.publish(&Message::state("m-1", "changed", "2"));
    till.publish(&Message::delete("m-2", "deleted"));
    till.publish(&Message::state("m-3", "for-one", "1").tagged(&["aws"]));
    App::connect(azure, "keys=").publish(&Message::state("m-4", "only-there", "1"));
    let differing = ["changed", "deleted", "only-there"];
    assert_eq!(diff(binary, &aws.admin_url(), &azure.admin_url()).1, differing);
    let args = ["diff", "--admin", &aws.admin_url(), "--with", &azure.admin_url()];
    let printed = Command::new(binary, &args).run();
    assert_eq!(printed.code, Some(1));
    assert!(differing.iter().all(|key| printed.stdout.contains(key)), "{}", printed.stdout);
    assert!(!printed.stdout.contains("same"), "{}", printed.stdout);
    let all = Command::new(binary, &[&args[..], &["--all"]].concat()).run();
    assert!(all.stdout.contains("for-one"), "{}", all.stdout);
    until("the lag to grow", PATIENCE, || {
        aws.metric("slipstream_convergence_lag_seconds", &["peer=\"azure\""]) > 1.0
    });

    mesh.link.heal();
    until_equal(binary, [aws, azure], PATIENCE);
    until("the lag to end", PATIENCE, || {
        aws.metric("slipstream_convergence_lag_seconds", &["peer=\"azure\""]) == 0.0
    });
    let nowhere = ["diff", "--admin", &aws.admin_url(), "--with", "http://127.0.0.1:9"];
    let failed = Command::new(binary, &nowhere).run();
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("--with"), "{}", failed.stderr);
}

/// An older copy of a database, which has lived on alone until it had grown beyond what it had
/// told, is noticed as such when it meets a peer, and is offered what it lacks.
pub fn an_older_copy_that_lived_on_alone(binary: &str) {
    let mut mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let mut till = App::connect(&mesh.nodes[0], "client=till&keys=");
    till.publish(&Message::state("m-1", "old", "1"));
    until_equal(binary, [&mesh.nodes[0], &mesh.nodes[1]], PATIENCE);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let azure = &mut mesh.nodes[1];
    assert_eq!(azure.terminate().code(), Some(0));
    copy(&azure.data_dir(), folder.path());
    azure.run();
    azure.await_peer("aws");
    till.publish(&Message::state("m-2", "lost", "1"));
    until_equal(binary, [&mesh.nodes[0], &mesh.nodes[1]], PATIENCE);

    let azure = &mut mesh.nodes[1];
    assert_eq!(azure.terminate().code(), Some(0));
    copy(folder.path(), &azure.data_dir());
    mesh.link.cut();
    azure.run();
    Publisher::publish_all(azure, "till", load("azure", 20));
    assert_eq!(azure.terminate().code(), Some(0));
    azure.run();
    let [aws, azure] = &mesh.nodes[..] else { panic!("two nodes were asked for") };
    let (_, differing) = diff(binary, &aws.admin_url(), &azure.admin_url());
    assert!(differing.contains(&"lost".to_owned()), "{differing:?}");

    mesh.link.heal();
    until_equal(binary, [aws, azure], LONG);
    let rewinds = |reason: &str| aws.metric("slipstream_rewinds_total", &[reason]);
    assert_eq!(rewinds("reason=\"store_went_back\""), 1.0);
    assert_eq!(rewinds("reason=\"digests_differ\""), 0.0, "it was noticed before");
}

fn copy(from: &Path, to: &Path) {
    fs::remove_dir_all(to).expect("the old one can go");
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("it can be read") {
        let entry = entry.expect("an entry can be read");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}

/// One key among many is found by few bytes.
pub fn one_key_among_many(binary: &str) {
    let mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let [aws, azure] = &mesh.nodes[..] else { panic!("two nodes were asked for") };
    Publisher::publish_all(aws, "till", load("aws", 25_000));
    until_equal(binary, [aws, azure], LONG);
    part(&mesh);
    App::connect(aws, "keys=").publish(&Message::state("m-1", "one", "1"));

    let proxies = [aws, azure].map(|node| Proxy::to(&node.config.admin));
    let [here, there] = proxies.each_ref().map(|proxy| format!("http://{}", proxy.address));
    assert_eq!(diff(binary, &here, &there), (false, vec!["one".to_owned()]));
    let bytes: u64 = proxies.iter().map(Proxy::passed).sum();
    assert!(bytes < 32 << 10, "{bytes} bytes");
}
