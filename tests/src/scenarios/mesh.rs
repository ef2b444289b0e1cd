//! Many nodes, many routes: every destination gets everything once (P2, P3, P4, P5).

use std::collections::HashSet;

use crate::harness::{
    App, Daemon, LONG, Mesh, Message, NodeConfig, PATIENCE, Publisher, Subscriber,
    each_exactly_once, paths_are_sound, until,
};

use super::{load, nodes};

/// Messages published at every node.
const EACH: usize = 10_000;

/// Messages published at every node where copies are counted.
const FEW: usize = 600;
/// Payload copies of a message over the least possible.
const MAX_COPIES: f64 = 1.02;

/// Three nodes in a ring, one link of which is cut and healed.
pub fn a_ring_of_three(binary: &str) {
    everyone_gets_everything_once(&Mesh::ring(binary, nodes(&["aws", "azure", "gcp"])));
}

/// Five nodes with every link there can be, one of which is cut and healed.
pub fn a_full_mesh_of_five(binary: &str) {
    everyone_gets_everything_once(&Mesh::full(binary, nodes(&["n1", "n2", "n3", "n4", "n5"])));
}

fn everyone_gets_everything_once(mesh: &Mesh) {
    let watchers: Vec<_> =
        mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch")).collect();
    let publishers: Vec<_> = mesh
        .nodes
        .iter()
        .map(|node| Publisher::start(node, "till", load(&node.config.id, EACH)))
        .collect();

    for (cut, heal) in [(EACH / 10, EACH * 3 / 10), (EACH * 5 / 10, EACH * 8 / 10)] {
        publishers[0].wait_for(cut);
        mesh.link.cut();
        publishers[0].wait_for(heal);
        mesh.link.heal();
    }

    let published: Vec<_> = publishers.into_iter().map(Publisher::finish).collect();
    let expected: HashSet<_> = published.iter().flat_map(|one| one.ids()).collect();
    assert_eq!(expected.len(), EACH * mesh.nodes.len(), "every message has its receipt");
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes) {
        let id = &node.config.id;
        watcher.wait_for(id, expected.len(), LONG);
        settled(node);
        let deliveries = watcher.stop();
        each_exactly_once(id, &deliveries, expected.iter().copied());
        paths_are_sound(&deliveries, id);
    }
    assert!(mesh.nodes[0].metric("slipstream_link_reconnects_total", &[]) >= 1.0);
}

/// Waits until a node owes nothing to anybody who is there: what could come twice has come.
fn settled(node: &Daemon) {
    until(&format!("{} to have settled everything", node.config.id), LONG, || {
        let sessions = node.sessions();
        let mut there = sessions.iter().filter(|one| one["connected"] == true);
        there.all(|one| one["behind"] == 0 && one["in_flight"] == 0)
    });
}

/// In a full mesh each payload crosses one link for each node but its origin, and the other links
/// carry its identity; with a node killed, what is published then still reaches everybody.
pub fn each_payload_reaches_each_node_once(binary: &str) {
    // A machine under load must not take longer than this to pass a message on.
    let patient = |config: NodeConfig| config.text("routing.offer_delay", "2s");
    let configs = nodes(&["n1", "n2", "n3", "n4", "n5"]).into_iter().map(patient).collect();
    let mut mesh = Mesh::full(binary, configs);
    mesh.nodes.iter().for_each(|node| await_links(node, mesh.nodes.len()));
    let watchers: Vec<_> =
        mesh.nodes.iter().map(|node| Subscriber::start(node, "client=watch")).collect();

    let publishers: Vec<_> = mesh
        .nodes
        .iter()
        .map(|node| Publisher::with_window(node, "till", 32, load(&node.config.id, FEW)))
        .collect();
    let published: Vec<_> = publishers.into_iter().map(Publisher::finish).collect();
    let (count, messages) = (mesh.nodes.len(), FEW * mesh.nodes.len());
    for (watcher, node) in watchers.iter().zip(&mesh.nodes) {
        watcher.wait_for(&node.config.id, messages, LONG);
        settled(node);
    }

    let sum = |name: &str| mesh.nodes.iter().map(|node| node.metric(name, &[])).sum::<f64>();
    let least = (messages * (count - 1)) as f64;
    let copies = sum("slipstream_messages_sent_total") / least;
    assert!((1.0..=MAX_COPIES).contains(&copies), "{copies} copies over the least possible");
    // Each link that is in no tree of an origin names a message at most once each way.
    let (redundant, offers) = (6 * messages, sum("slipstream_offers_total"));
    assert!(offers >= redundant as f64, "{offers} offers over {redundant} links and messages");
    assert!(offers <= 2.04 * redundant as f64, "{offers} offers over {redundant}");

    mesh.nodes[4].kill();
    let later = Publisher::publish_all(&mesh.nodes[0], "later", load("later", FEW));
    let expected: HashSet<_> = published.iter().chain([&later]).flat_map(|one| one.ids()).collect();
    for (watcher, node) in watchers.into_iter().zip(&mesh.nodes).take(4) {
        let id = &node.config.id;
        watcher.wait_for(id, messages + FEW, LONG);
        each_exactly_once(id, &watcher.stop(), expected.iter().copied());
    }
}

/// Waits until a node knows every link of a full mesh of so many nodes.
fn await_links(node: &Daemon, nodes: usize) {
    until(&format!("{} to know every link", node.config.id), PATIENCE, || {
        let status: serde_json::Value = node.get("/status").json();
        let known = status["topology"].as_array().into_iter().flatten();
        let links = known.filter_map(|one| Some(one["links"].as_array()?.len()));
        links.sum::<usize>() == nodes * (nodes - 1)
    });
}

/// A route that goes dead without closing is noticed by the heartbeat, and what was published
/// meanwhile comes when it lives again, without anything new being published.
pub fn a_dead_route_is_noticed_and_made_good(binary: &str) {
    let quick = |config: NodeConfig| {
        config.text("heartbeat.interval", "200ms").text("heartbeat.timeout", "1s")
    };
    let configs = nodes(&["aws", "azure"]).into_iter().map(quick).collect();
    let mesh = Mesh::line(binary, configs);
    let watcher = Subscriber::start(&mesh.nodes[1], "client=watch");

    mesh.link.stall();
    let published = Publisher::publish_all(&mesh.nodes[0], "till", load("aws", 500));
    until("the heartbeat to give the link up", PATIENCE, || {
        mesh.nodes[0].metric("slipstream_link_up", &["peer=\"azure\""]) == 0.0
    });
    mesh.link.heal();

    watcher.wait_for("azure", 500, PATIENCE);
    each_exactly_once("azure", &watcher.stop(), published.ids());
}

/// A node that hangs costs the others nothing, and has everything when it goes on.
pub fn a_hanging_node_costs_the_others_nothing(binary: &str) {
    let mesh = Mesh::ring(binary, nodes(&["aws", "azure", "gcp"]));
    let near = Subscriber::start(&mesh.nodes[1], "client=watch");
    let hanging = Subscriber::start(&mesh.nodes[2], "client=watch");

    mesh.nodes[2].pause();
    let published = Publisher::publish_all(&mesh.nodes[0], "till", load("aws", 2_000));
    near.wait_for("azure", 2_000, PATIENCE);
    mesh.nodes[2].resume();

    hanging.wait_for("gcp", 2_000, PATIENCE);
    each_exactly_once("azure", &near.stop(), published.ids());
    each_exactly_once("gcp", &hanging.stop(), published.ids());
}

/// Target tags are reached through a node that has none of them, and nobody else is handed the
/// message.
pub fn tags_are_reached_through_any_node(binary: &str) {
    let mesh = Mesh::line(binary, nodes(&["aws", "gcp", "azure"]));
    let [aws, gcp, azure] = &mesh.nodes[..] else { panic!("three nodes were asked for") };
    let mut far = App::connect(azure, "");
    let mut between = App::connect(gcp, "");
    let mut guest = App::connect(gcp, "tags=azure,guest");
    let mut till = App::connect(aws, "keys=");

    till.publish(&Message::state("t-1", "order:1", "1").tagged(&["azure", "nowhere", "azure"]));
    till.publish(&Message::event("t-2", "terminal:1", "2").tagged(&["azure"]));
    till.publish(&Message::state("t-3", "order:3", "3"));

    let handed = far.delivery();
    assert_eq!(handed.id(), "t-1");
    assert_eq!(handed.message_path, ["aws", "gcp", "azure"]);
    assert_eq!(handed.origin_instance_id.as_deref(), Some("aws"));
    assert_eq!(handed.source_instance_id.as_deref(), Some("azure"));
    let tags = handed.targeted_tags.expect("a targeted message shows its tags");
    assert_eq!(tags, ["azure", "nowhere"], "sorted, without repetition");
    assert_eq!(far.delivery().id(), "t-2");
    assert_eq!(far.delivery().id(), "t-3");
    for expected in ["t-1", "t-2", "t-3"] {
        assert_eq!(guest.delivery().id(), expected, "an application's own tags count");
    }
    let handed = between.delivery();
    assert_eq!(handed.id(), "t-3", "only what is for all");
    assert_eq!(handed.targeted_tags, None);
}

/// A node that joins with an empty database is brought to the newest value of every key by any
/// neighbour.
pub fn a_late_node_is_brought_up_to_date(binary: &str) {
    let mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let rounds = (0..10_000).map(|number: usize| {
        let (key, round) = (number % 1_000, number / 1_000);
        Message::state(format!("m-{number}"), format!("order:{key}"), round.to_string())
    });
    Publisher::publish_all(&mesh.nodes[0], "till", rounds);

    let late = NodeConfig::new("gcp").peer(&mesh.nodes[1].config.address);
    let late = Daemon::start(binary, late);
    let watcher = Subscriber::start(&late, "client=watch");
    watcher.wait_for("gcp", 1_000, PATIENCE);
    until("the newest value of every key", PATIENCE, || {
        (9_000..10_000).all(|number| watcher.has(&format!("m-{number}")))
    });
    paths_are_sound(&watcher.stop(), "gcp");
}
