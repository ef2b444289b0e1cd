//! Many nodes, many routes: every destination gets everything once (P2, P3, P4, P5).

use std::collections::HashSet;

use crate::harness::{
    App, Daemon, LONG, Mesh, Message, NodeConfig, PATIENCE, Publisher, Subscriber,
    each_exactly_once, paths_are_sound, until,
};

use super::{load, nodes};

/// Messages published at every node.
const EACH: usize = 10_000;

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
