//! What an operator sees and changes while nodes run (P14).

use std::io::{BufRead, BufReader};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::harness::{
    App, Command, Daemon, LONG, Mesh, Message, NodeConfig, PATIENCE, Publisher, RawSocket,
    Subscriber, each_exactly_once, until,
};

use super::{dead_letters, filler, nodes};

/// How soon a connection to the admin endpoint gives way: less than half the time that one may be
/// silent or unread where nobody needs its place.
const GIVES_WAY: Duration = Duration::from_secs(10);

/// The names that dashboards rely on; all of section 5 of the interfaces.
const METRICS: &[&str] = &[
    "slipstream_active_connections",
    "slipstream_messages_processed_total",
    "slipstream_link_up",
    "slipstream_link_rtt_seconds",
    "slipstream_link_reconnects_total",
    "slipstream_link_bytes_total",
    "slipstream_messages_sent_total",
    "slipstream_messages_delivered_total",
    "slipstream_duplicates_total",
    "slipstream_loops_prevented_total",
    "slipstream_superseded_total",
    "slipstream_conflated_total",
    "slipstream_retransmits_total",
    "slipstream_dead_letters",
    "slipstream_dead_letters_taken_back_total",
    "slipstream_rejected_total",
    "slipstream_outbox_messages",
    "slipstream_outbox_bytes",
    "slipstream_outbox_oldest_age_seconds",
    "slipstream_publish_ack_seconds_bucket",
    "slipstream_propagation_seconds_bucket",
    "slipstream_store_commit_seconds_bucket",
    "slipstream_store_batch_messages_bucket",
    "slipstream_store_bytes",
    "slipstream_clock_offset_seconds",
    "slipstream_clock_refused_total",
    "slipstream_expired_total",
    "slipstream_identity_conflicts_total",
    "slipstream_forgotten_total",
    "slipstream_rewinds_total",
    "slipstream_offers_total",
    "slipstream_seen_bytes",
    "slipstream_tombstones",
    "slipstream_convergence_lag_seconds",
    "slipstream_build_info",
    "slipstream_log_lines_dropped_total",
];

/// Every metric is there, with sound samples, once its labels are known.
pub fn every_metric_is_there(binary: &str) {
    let mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let [aws, azure] = &mesh.nodes[..] else { panic!("two nodes were asked for") };
    let watcher = Subscriber::start(azure, "client=watch");
    let mut app = App::connect(aws, "client=pi-1");
    let mut till = App::connect(aws, "client=till&keys=");
    till.publish(&Message::event("m-1", "terminal:1", "1"));
    let handed = app.delivery();
    app.nack(&handed, "reject");
    until("the dead letter", PATIENCE, || dead_letters(aws).len() == 1);
    watcher.wait_for("azure", 1, PATIENCE);

    let metrics = aws.get("/metrics").body;
    let missing: Vec<_> = METRICS
        .iter()
        .filter(|name| {
            let is_sample = |line: &str| {
                line.strip_prefix(**name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            !metrics.lines().any(is_sample)
        })
        .collect();
    assert!(missing.is_empty(), "not there: {missing:?}\n{metrics}");
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let is = |name: &str, labels: &[&str], value: f64| {
        assert_eq!(aws.metric(name, labels), value, "{name} {labels:?}\n{metrics}");
    };
    is("slipstream_link_up", &["peer=\"azure\""], 1.0);
    is("slipstream_messages_processed_total", &["type=\"CMD\"", "origin=\"aws\""], 1.0);
    is("slipstream_messages_delivered_total", &["session=\"app:pi-1\""], 1.0);
    is("slipstream_dead_letters", &["session=\"app:pi-1\""], 1.0);
    is("slipstream_messages_sent_total", &["peer=\"azure\"", "mode=\"eager\""], 1.0);
}

/// Where a message is, told by HTTP and by the command line, at every node that it reached.
pub fn where_a_message_is(binary: &str) {
    let mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let [aws, azure] = &mesh.nodes[..] else { panic!("two nodes were asked for") };
    App::connect(azure, "client=away").leave();
    let watcher = Subscriber::start(azure, "client=watch");
    App::connect(aws, "keys=").publish(&Message::event("a/b c", "terminal:1", "1"));
    watcher.wait_for("azure", 1, PATIENCE);

    let found = azure.get("/where/a%2Fb%20c").json();
    assert_eq!(found[0]["messageId"], "a/b c");
    assert_eq!(found[0]["originInstanceId"], "aws");
    assert_eq!(found[0]["messagePath"], serde_json::json!(["aws", "azure"]));
    let fate = |name: &str| {
        let found = azure.get("/where/a%2Fb%20c").json();
        let sessions = found[0]["sessions"].as_array().cloned().unwrap_or_default();
        let own = sessions.into_iter().find(|one| one["session"] == name);
        own.map(|own| own["fate"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(fate("app:away").as_deref(), Some("pending"));
    assert_eq!(fate("peer:aws").as_deref(), Some("on_its_path"));
    until("the watcher's acknowledgement", PATIENCE, || {
        fate("app:watch").as_deref() == Some("settled")
    });
    let args = ["where", "a/b c", "--admin", &azure.admin_url()];
    let printed = Command::new(binary, &args).run().ok();
    assert!(printed.contains("app:away"), "{printed}");
    assert_eq!(azure.get("/where/nobody").json(), serde_json::json!([]));
}

/// Probes, status and the commands that show them; a peer that is away never fails a probe.
pub fn probes_and_status(binary: &str) {
    let absent = NodeConfig::new("azure");
    let node = Daemon::start(binary, NodeConfig::new("aws").peer(&absent.address));
    App::connect(&node, "client=pi-1").leave();
    node.await_away("pi-1");
    for path in ["/livez", "/readyz"] {
        assert_eq!(node.get(path).status, 200);
    }
    let health = node.get("/healthz").json();
    assert!(health["status"].is_string() && health["version"].is_string(), "{health}");
    let status = node.get("/status").json();
    assert!(status.to_string().contains("app:pi-1"), "{status}");
    assert!(status.to_string().contains(&absent.address), "links that are wanted: {status}");
    assert_eq!(node.admin("GET", "/nowhere").status, 404);
    assert_eq!(node.admin("POST", "/status").status, 405);

    let admin = node.admin_url();
    let run =
        |args: &[&str]| Command::new(binary, &[args, &["--admin", &admin]].concat()).run().ok();
    assert!(run(&["status"]).contains("aws"));
    let json = run(&["status", "--json"]);
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
    assert!(run(&["sessions", "list"]).contains("pi-1"));
    run(&["sessions", "forget", "app:pi-1"]);
    assert!(!run(&["sessions", "list"]).contains("pi-1"));
}

/// Three nodes with one list of peers, in which each finds itself: all are healthy, and no link is
/// told to be down for being the other side's.
pub fn one_list_of_peers_for_three_nodes(binary: &str) {
    let configs = nodes(&["aws", "azure", "gcp"]);
    let addresses: Vec<_> = configs.iter().map(|config| config.address.clone()).collect();
    let with_all = |config| addresses.iter().fold(config, |config: NodeConfig, it| config.peer(it));
    let started: Vec<_> =
        configs.into_iter().map(|config| Daemon::start(binary, with_all(config))).collect();
    for node in &started {
        let id = &node.config.id;
        until(&format!("{id} to be healthy"), PATIENCE, || {
            let health = node.get("/healthz").json();
            health["status"] == "ok" && health["checks"]["peers"]["ok"] == true
        });
        until(&format!("{id} to have two links, and none at 0"), PATIENCE, || {
            let metrics = node.get("/metrics").body;
            let told = metrics.lines().filter(|line| line.starts_with("slipstream_link_up{"));
            let values: Vec<_> = told.filter_map(|line| line.rsplit(' ').next()).collect();
            values == ["1", "1"]
        });
        until(&format!("{id} to say what each entry leads to"), PATIENCE, || {
            let status = node.get("/status").json();
            let links = status["links"].as_array().cloned().unwrap_or_default();
            addresses.iter().all(|address| {
                let of_it = links.iter().find(|link| link.to_string().contains(address.as_str()));
                let state = of_it.and_then(|link| link["state"].as_str()).unwrap_or_default();
                match *address == node.config.address {
                    true => state == "this node itself",
                    false => matches!(state, "up" | "covered by its own link"),
                }
            })
        });
    }
}

/// Dead letters by the command line: listed, shown, replayed, purged.
pub fn dead_letters_by_hand(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    for id in ["m-1", "m-2"] {
        till.publish(&Message::event(id, "terminal:9", r#"{"do":"reboot"}"#));
        let handed = app.delivery();
        app.nack(&handed, "reject");
    }
    until("two dead letters", PATIENCE, || dead_letters(&node).len() == 2);
    let number = dead_letters(&node)[0]["id"].to_string().trim_matches('"').to_owned();
    let admin = node.admin_url();
    let run = |args: &[&str]| {
        Command::new(binary, &[&["dead-letters"], args, &["--admin", &admin]].concat()).run().ok()
    };
    let listed = run(&["list"]);
    assert!(listed.contains("m-1") && listed.contains("m-2"), "{listed}");
    assert!(run(&["show", &number]).contains("reboot"));
    run(&["replay", &number]);
    let handed = app.delivery();
    assert_eq!(handed.id(), "m-1");
    app.ack(&handed);
    run(&["purge", "--all"]);
    until("no dead letter", PATIENCE, || dead_letters(&node).is_empty());
}

/// SIGHUP takes over peers, tags and the log level; a file that is wrong changes nothing and is
/// named.
pub fn a_reload_is_all_or_nothing(binary: &str) {
    let azure = Daemon::start(binary, NodeConfig::new("azure"));
    let mut aws = Daemon::start(binary, NodeConfig::new("aws").tags(&["old"]));
    let tags = |node: &Daemon| App::connect(node, "keys=").welcome.tags.unwrap_or_default();
    assert_eq!(tags(&aws), ["old"]);

    let changed = aws.config.clone().tags(&["new"]).peer(&azure.config.address);
    aws.config = changed.text("log.level", "debug");
    aws.write_config();
    aws.hang_up();
    aws.await_peer("azure");
    until("the new tags", PATIENCE, || tags(&aws) == ["new"]);
    assert!(aws.get("/log").body.contains("debug"));
    let watcher = Subscriber::start(&azure, "client=watch");
    App::connect(&aws, "keys=").publish(&Message::state("m-1", "order:1", "1"));
    watcher.wait_for("azure", 1, PATIENCE);

    aws.overwrite_config(&aws.config.toml().replace("new", "newer").replace("level", "levle"));
    let answer = aws.admin("POST", "/reload");
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(answer.body.contains("levle"), "{answer:?}");
    aws.hang_up();
    until("the log to name the mistake", PATIENCE, || aws.log().contains("levle"));
    assert_eq!(tags(&aws), ["new"]);
    assert_eq!(aws.metric("slipstream_link_up", &["peer=\"azure\""]), 1.0);
}

/// The address of a peer changes by a reload while the peer is away, and history has room for
/// little: the peer is sent all that it missed.
pub fn a_peer_that_moves_while_it_is_away(binary: &str) {
    const EVENTS: usize = 300;
    let mut azure = Daemon::start(binary, NodeConfig::new("azure"));
    App::connect(&azure, "client=watch").leave();
    let alone = NodeConfig::new("aws").text("store.history_max_bytes", "64KiB");
    let mut aws = Daemon::start(binary, alone.clone().peer(&azure.config.address));
    aws.await_peer("azure");
    azure.kill();
    let events = |name: &'static str| {
        let id = move |number| format!("{name}-{number}");
        (0..EVENTS).map(move |number| Message::event(id(number), "terminal:9", filler(1024)))
    };
    let before = Publisher::publish_all(&aws, "till", events("before"));
    azure.config.address = NodeConfig::new("elsewhere").address;
    aws.config = alone.peer(&azure.config.address);
    aws.write_config();
    assert_eq!(aws.admin("POST", "/reload").status, 200);
    let after = Publisher::publish_all(&aws, "till", events("after"));

    azure.write_config();
    azure.run();
    let watcher = Subscriber::start(&azure, "client=watch");
    watcher.wait_for("azure", 2 * EVENTS, LONG);
    each_exactly_once("azure", &watcher.stop(), before.ids().chain(after.ids()));
    for metric in ["slipstream_dead_letters", "slipstream_forgotten_total"] {
        assert_eq!(aws.metric(metric, &[]), 0.0, "{metric}");
    }
}

/// The log level changes while the node runs; values are in no log, whatever the level.
pub fn the_log_level_changes_and_values_stay_out(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let set = node.admin_with("PUT", "/log", "trace");
    assert!((200..300).contains(&set.status), "{set:?}");
    assert!(node.get("/log").body.contains("trace"));
    let wrong = node.admin_with("PUT", "/log", "=/=");
    assert!((400..500).contains(&wrong.status), "{wrong:?}");
    let before = node.log().len();
    let mut watcher = App::connect(&node, "client=watch");
    let mut till = App::connect(&node, "keys=&token=token-in-the-query");
    till.publish(&Message::state("m-1", "order:1", r#""card-number-4242""#));
    till.refused(r#"{"type":"SK","key":"","value":"card-number-4242"}"#);
    let handed = watcher.delivery();
    watcher.nack(&handed, "reject");
    until("the dead letter", PATIENCE, || dead_letters(&node).len() == 1);
    let log = node.log();
    assert!(log.len() > before, "trace says something");
    assert!(!log.contains("4242"), "a value in the log");
    assert!(!log.contains("token-in-the-query"), "a token in the log");
    for line in log.lines() {
        let parsed = serde_json::from_str::<serde_json::Value>(line);
        assert!(parsed.is_ok_and(|line| line.is_object()), "{line}");
    }
}

/// A node that has nothing to do takes little memory.
pub fn an_idle_node_is_small(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    if let Some(bytes) = node.resident_bytes() {
        assert!(bytes < 16_000_000, "{bytes} bytes");
    }
}

/// Nobody reads what the node logs: it drops lines, counts them, goes on, says so to whoever reads
/// again, and ends when it is told to.
pub fn nobody_reads_standard_error(binary: &str) {
    let config = NodeConfig::new("aws").text("log.level", "debug");
    let mut node = Daemon::prepare(binary, config);
    let unread = node.spawn_unread();
    assert!(node.started().is_none(), "it runs");
    let mut app = App::connect(&node, "client=pi-1&keys=");
    log_until_lines_are_dropped(&node, &mut app);
    assert_eq!(node.get("/livez").status, 200);

    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut lines = BufReader::new(unread).lines().map_while(Result::ok);
        let says_so = lines.any(|line| line.contains("log lines were dropped"));
        // It is not read any more from here on, and not closed either.
        let _ = tell.send(says_so);
        lines
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true), "whoever reads again is told");
    let _unread = reader.join().expect("the reader did not fail");
    log_until_lines_are_dropped(&node, &mut app);
    assert!(node.terminate().success());
}

fn log_until_lines_are_dropped(node: &Daemon, app: &mut App) {
    let dropped = || node.metric("slipstream_log_lines_dropped_total", &[]);
    let before = dropped();
    until("log lines to be dropped", PATIENCE, || {
        // A refusal is a line; a row of a hundred would close the connection.
        (0..90).for_each(|_| drop(app.refused(r#"{"type":"SK","key":"","value":1}"#)));
        app.publish(&Message::state("m-1", "order:1", "1"));
        dropped() > before
    });
}

/// A node that cannot start ends, also if nobody reads why.
pub fn nobody_reads_why_it_does_not_start(binary: &str) {
    let mut node = Daemon::prepare(binary, NodeConfig::new("aws"));
    node.overwrite_config(&format!("{} = 1\n", "y".repeat(256 * 1024)));
    let _unread = node.spawn_unread();
    assert_eq!(node.ended().code(), Some(2));
}

/// Silent connections to the admin endpoint, more than it takes: the one that has been silent for
/// longest gives way to whoever asks.
pub fn silent_admin_connections(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut silent: Vec<_> = (0..300).map(|_| RawSocket::connect(&node.config.admin)).collect();
    for path in ["/livez", "/readyz", "/status"] {
        // As soon as probes want it: long before any silent one has had its time.
        assert_eq!(node.probe(path).expect("an answer in time").status, 200);
    }
    assert!(silent.last_mut().is_some_and(|last| !last.is_over()), "the last one may stay");
    until("the first one to give way", GIVES_WAY, || silent[0].is_over());
}

/// Readers that ask the admin endpoint for much and read nothing, more than it takes.
pub fn admin_readers_that_do_not_read(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let much = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", node.config.admin);
    let readers = (0..140).map(|_| {
        let mut reader = RawSocket::connect(&node.config.admin);
        reader.receive_little();
        reader.send(much.repeat(400).as_bytes());
        reader
    });
    let readers: Vec<_> = readers.collect();
    assert_eq!(node.probe("/livez").expect("an answer in time").status, 200);
    drop(readers);
}
