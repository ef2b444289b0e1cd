//! The store is bounded, and what was acknowledged stays in it (P2, P8).

use std::thread;
use std::time::Duration;

use crate::harness::{
    App, Command, Daemon, LONG, Message, NodeConfig, PATIENCE, Publisher, Subscriber,
    each_exactly_once, until,
};

use super::filler;

const MIB: u64 = 1 << 20;

/// At `max_bytes` publishers are refused, nothing that was acknowledged is lost, and it goes on
/// without a restart when room is made: by the absent application's return, or by ending its
/// session.
pub fn a_full_store_refuses_and_recovers(binary: &str) {
    let config = NodeConfig::new("aws")
        .text("store.max_bytes", "16MiB")
        .text("store.history_max_bytes", "1MiB");
    let node = Daemon::start(binary, config);
    App::connect(&node, "client=sleeper").leave();
    node.await_away("sleeper");
    let mut till = App::connect(&node, "client=till&keys=");

    let receipts = fill(&node, &mut till, "first");
    let sleeper = Subscriber::start(&node, "client=sleeper");
    sleeper.wait_for("the sleeper", receipts.len(), LONG);
    each_exactly_once("the sleeper", &sleeper.stop(), receipts.iter().map(String::as_str));
    goes_on(&mut till, "after the return");

    node.await_away("sleeper");
    fill(&node, &mut till, "second");
    let ended = node.admin("DELETE", "/sessions/app:sleeper");
    assert!((200..300).contains(&ended.status), "{ended:?}");
    goes_on(&mut till, "after the end");
}

/// Publishes until the store is full; the ids of the receipts.
fn fill(node: &Daemon, till: &mut App, round: &str) -> Vec<String> {
    let value = filler(16 * 1024);
    let mut receipts = Vec::new();
    for number in 0..4_096 {
        let id = format!("{round}-{number}");
        till.send(Message::state(&id, format!("order:{}", number % 10), &value).json());
        let answer = till.answer();
        if answer.kind == "ACK" {
            receipts.push(id);
            continue;
        }
        assert_eq!(answer.code.as_deref(), Some("STORE_FULL"), "{answer:?}");
        assert_eq!((answer.retryable, answer.re), (Some(true), Some(id)));
        assert!(node.stored_bytes() < 48 * MIB, "{} bytes", node.stored_bytes());
        assert!(receipts.len() > 100, "full after {} messages", receipts.len());
        assert_eq!(node.get("/livez").status, 200);
        return receipts;
    }
    panic!("64 MiB fit into a store of 16 MiB");
}

fn goes_on(till: &mut App, id: &str) {
    until("the store to have room", PATIENCE, || {
        till.send(Message::state(id, "order:1", "1").json());
        till.answer().kind == "ACK"
    });
}

/// 200,000 messages over few keys: the files stay under 64 MiB all the time, although far more
/// than that was written.
pub fn history_is_bounded(binary: &str) {
    const MESSAGES: usize = 200_000;
    const KEYS: usize = 20;
    let node =
        Daemon::start(binary, NodeConfig::new("aws").text("store.history_max_bytes", "8MiB"));
    let value = filler(512);
    let messages = (0..MESSAGES).map(move |number| {
        Message::state(format!("m-{number}"), format!("order:{}", number % KEYS), &value)
    });
    let publisher = Publisher::start(&node, "till", messages);
    let mut peak = 0;
    until("200,000 receipts", LONG, || {
        peak = peak.max(node.stored_bytes());
        assert!(peak < 64 * MIB, "{peak} bytes after {} messages", publisher.receipts());
        thread::sleep(Duration::from_millis(10));
        publisher.receipts() == MESSAGES
    });
    assert!(publisher.finish().refused.is_empty());

    let mut late = App::connect(&node, "client=late");
    let handed = late.replay();
    assert_eq!(handed.len(), KEYS, "the newest of every key");
    let newest = handed.iter().map(|frame| frame.id()[2..].parse::<usize>());
    assert!(newest.flatten().all(|number| number >= MESSAGES - KEYS));
    assert!(node.stored_bytes() < 64 * MIB);
}

/// Events that were kept for a peer that never came are dead letters of the node once its entry is
/// taken out and history has no room for them. Replayed, they come to whoever is there.
pub fn what_no_peer_came_for_is_a_dead_letter(binary: &str) {
    const EVENTS: usize = 500;
    let alone = NodeConfig::new("aws").text("store.history_max_bytes", "64KiB");
    let nowhere = NodeConfig::new("azure").address;
    let mut node = Daemon::start(binary, alone.clone().peer(&nowhere));
    let events =
        (0..EVENTS).map(|number| Message::event(format!("m-{number}"), "terminal:9", filler(1024)));
    let published = Publisher::publish_all(&node, "till", events);
    let dead = |node: &Daemon| node.metric("slipstream_dead_letters", &["reason=\"forgotten\""]);
    assert_eq!(dead(&node), 0.0);

    node.config = alone;
    node.write_config();
    assert_eq!(node.admin("POST", "/reload").status, 200);
    until("dead letters", PATIENCE, || dead(&node) > EVENTS as f64 * 0.8);
    let forgotten = |node: &Daemon| node.metric("slipstream_forgotten_total", &[]);
    until("each is counted as forgotten", PATIENCE, || forgotten(&node) == dead(&node));
    node.kill();
    node.run();
    assert!(dead(&node) > EVENTS as f64 * 0.8);

    let late = Subscriber::start(&node, "client=late");
    node.await_client("late");
    let admin = node.admin_url();
    Command::new(binary, &["dead-letters", "replay", "--all", "--admin", &admin]).run().ok();
    late.wait_for("whoever comes late", EVENTS, LONG);
    each_exactly_once("whoever comes late", &late.stop(), published.ids());
    assert_eq!(dead(&node), 0.0);
}

/// A second daemon on the same data directory ends at once, names the directory, and does the
/// first no harm.
pub fn a_data_directory_has_one_daemon(binary: &str) {
    let first = Daemon::start(binary, NodeConfig::new("aws"));
    let folder = first.data_dir();
    let folder = folder.to_str().expect("temporary folders have plain names");
    let second = NodeConfig::new("azure").text("node.data_dir", folder);
    let mut second = Daemon::prepare(binary, second);
    second.spawn();
    assert_eq!(second.ended().code(), Some(2), "{}", second.log());
    assert!(second.log().contains(folder), "{}", second.log());
    App::connect(&first, "").publish(&Message::state("m-1", "order:1", "1"));
}
