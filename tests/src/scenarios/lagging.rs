//! Who lags gets the newest of every key and every event, and costs the others nothing (P8).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::harness::{
    App, Daemon, Frame, LONG, Message, NodeConfig, PATIENCE, Publisher, Subscriber, until,
};

use super::filler;

const EVENTS: usize = 100;

/// How much is missed by who is away.
#[derive(Debug, Clone, Copy)]
struct Missed {
    updates: usize,
    keys: usize,
}

impl Missed {
    /// 300,000 updates of 1,000 keys, or what `SLIPSTREAM_TESTS_MISSED` says: `UPDATES/KEYS`.
    fn wanted() -> Self {
        let wanted = std::env::var("SLIPSTREAM_TESTS_MISSED");
        let wanted = wanted.as_deref().unwrap_or("300000/1000");
        let (updates, keys) = wanted.split_once('/').expect("UPDATES/KEYS");
        let number = |text: &str| text.parse().expect("UPDATES/KEYS, two numbers");
        Self { updates: number(updates), keys: number(keys) }
    }
}

/// Updates of few keys, with an event now and then. The number is in the value and in the id.
fn updates(missed: Missed) -> impl Iterator<Item = Message> + Send {
    let Missed { updates, keys } = missed;
    (0..updates).flat_map(move |number| {
        let id = format!("m-{number}");
        let update = Message::state(id, format!("order:{}", number % keys), filler(100));
        let is_time = number % (updates / EVENTS) == 0;
        let event = || Message::event(format!("e-{number}"), "terminal:1", "1");
        [Some(update), is_time.then(event)].into_iter().flatten()
    })
}

fn number(id: &str) -> usize {
    id[2..].parse().expect("ids end with a number")
}

fn store(node: &Daemon, what: &str) -> u64 {
    node.get("/status").json()["store"][what].as_u64().expect("a number")
}

fn rows(node: &Daemon) -> u64 {
    store(node, "rows")
}

/// A peer and a named application are away for 300,000 updates of 1,000 keys and 100 events. They
/// cost little more than what they will be handed, and are brought up to date in seconds.
pub fn away_for_three_hundred_thousand_updates(binary: &str) {
    let missed = Missed::wanted();
    let Missed { updates: published, keys } = missed;
    let bounds = |id: &str| {
        let config = NodeConfig::new(id).text("store.session_max_bytes", "4MiB");
        config.text("store.history_max_bytes", "1MiB")
    };
    let mut azure = Daemon::start(binary, bounds("azure"));
    let aws = Daemon::start(binary, bounds("aws").peer(&azure.config.address));
    aws.await_peer("azure");
    App::connect(&aws, "client=pi-1").leave();
    aws.await_away("pi-1");
    azure.kill();

    let publisher = Publisher::start(&aws, "till", updates(missed));
    let mut most = 0;
    while !publisher.is_finished() {
        most = most.max(rows(&aws));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(publisher.finish().receipts.len(), published + EVENTS);
    // 4 MiB until the outboxes are above their bound, 1 MiB of history, and what is being deleted.
    assert!(most < 58_000 + 2 * keys as u64, "{most} rows at most");
    until("superseded rows to go", PATIENCE, || rows(&aws) < (keys + EVENTS + 9_000) as u64);

    let (kept, bytes) = (rows(&aws), store(&aws, "database_bytes"));
    let begun = Instant::now();
    azure.run();
    let pi = Subscriber::join(&aws, "client=pi-1");
    let all = keys + EVENTS;
    pi.wait_for("the application", all, LONG);
    let newest_of_azure = || {
        let mut late = App::connect(&azure, "replay=all");
        let handed: Vec<_> = late.replay().into_iter().map(|frame| frame.id().to_owned()).collect();
        let (events, states): (Vec<_>, Vec<_>) = handed.iter().partition(|id| id.starts_with("e-"));
        let newest = states.iter().filter(|id| number(id) >= published - keys).count();
        events.len() == EVENTS && newest == keys
    };
    until("the peer to have everything", LONG, newest_of_azure);
    let took = begun.elapsed();
    println!(
        "{missed:?}: {most} rows at most, {kept} at the end in {bytes} bytes, back in {took:?}"
    );

    let deliveries = pi.stop();
    let events = deliveries.iter().filter(|delivery| delivery.id.starts_with("e-")).count();
    let mut values = HashMap::new();
    for delivery in deliveries.iter().filter(|delivery| delivery.id.starts_with("m-")) {
        let (key, number) = (delivery.key.clone(), number(&delivery.id));
        let before = values.insert(key, number);
        assert!(before.is_none_or(|before| before < number), "{delivery:?} after {before:?}");
    }
    assert_eq!((values.len(), events), (keys, EVENTS));
    assert!(values.values().all(|number| *number >= published - keys), "the newest of every key");
    let left_out = aws.metric("slipstream_conflated_total", &["app:pi-1"]) as usize;
    assert_eq!(left_out + deliveries.len(), published + EVENTS);
    assert!(aws.metric("slipstream_conflated_total", &["peer:azure"]) > 0.9 * published as f64);
}

/// An application that asked for `conflate=true` and does not keep up is handed the newest values,
/// and told how many were left out; one beside it that did not ask is handed each.
pub fn conflated_on_request(binary: &str) {
    const UPDATES: usize = 20_000;
    const KEYS: usize = 50;
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut slow = App::connect(&node, "client=slow&conflate=true");
    let patient = Subscriber::start(&node, "client=patient");
    let messages = (0..UPDATES).map(|number| {
        Message::state(format!("m-{number}"), format!("order:{}", number % KEYS), filler(100))
    });
    Publisher::publish_all(&node, "till", messages);
    patient.wait_for("the other one", UPDATES, LONG);

    let mut handed: Vec<Frame> = Vec::new();
    let mut newest = 0;
    while newest < KEYS {
        let delivery = slow.delivery();
        newest += usize::from(number(delivery.id()) >= UPDATES - KEYS);
        slow.ack(&delivery);
        handed.push(delivery);
    }
    let left_out: u64 = handed.iter().filter_map(|delivery| delivery.conflated).sum();
    assert!(handed.len() < 1_000, "{} of {UPDATES} values", handed.len());
    assert_eq!(left_out as usize + handed.len(), UPDATES);
    let counted = node.metric("slipstream_conflated_total", &["app:slow"]);
    assert_eq!(counted as u64, left_out);
    assert_eq!(patient.stop().len(), UPDATES);
}
/// Two nodes are filled to `max_bytes` with events for each other while they are parted. When they
/// meet, both get everything, and have room again.
pub fn two_full_nodes_drain_each_other(binary: &str) {
    let full = |id: &str| {
        let config = NodeConfig::new(id).text("store.max_bytes", "8MiB");
        config.text("retry.ack_timeout", "1s").text("retry.max_backoff", "1s")
    };
    let mut azure = Daemon::start(binary, full("azure"));
    let mut aws = Daemon::start(binary, full("aws").peer(&azure.config.address));
    aws.await_peer("azure");
    azure.await_peer("aws");
    let mut published = HashMap::new();
    azure.kill();
    published.insert("aws", fill(&aws));
    aws.kill();
    azure.run();
    published.insert("azure", fill(&azure));

    aws.run();
    for (node, other) in [(&aws, "azure"), (&azure, "aws")] {
        until(&format!("{} to have everything", node.config.id), LONG, || {
            let labels = ["CMD", other];
            node.metric("slipstream_messages_processed_total", &labels) as u64 >= published[other]
        });
        let mut till = App::connect(node, "client=till&keys=");
        until("room", PATIENCE, || {
            till.send(Message::event("room", "terminal:1", "1").json());
            till.answer().kind == "ACK"
        });
    }
}

/// Publishes events until the store is full. Answers how many were taken.
fn fill(node: &Daemon) -> u64 {
    let mut till = App::connect(node, "keys=");
    let value = filler(4096);
    for number in 0..10_000 {
        till.send(Message::event(format!("m-{number}"), "terminal:1", &value).json());
        if till.answer().kind == "ERR" {
            assert!(number > 500, "full after {number}");
            return number;
        }
    }
    panic!("40 MiB fit into a store of 8 MiB");
}
