//! A disk that is full for real: publishers are refused, applications keep draining, and it goes
//! on without a restart when there is room (P2, P8).

use std::thread;

use crate::harness::{
    App, Daemon, LONG, Message, Need, NodeConfig, PATIENCE, Publisher, SmallDisk, Subscriber,
    announce, never_twice_unmarked, until,
};

use super::super::filler;

const STORY: &str = "a disk that is full";
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
/// Disks at one time: a full store is tried again after a second, and they wait together.
const DISKS: usize = 4;
/// Times that an application drains a disk, while it is full.
const CYCLES: usize = 5;
/// Times that it fills up and is given a little room, in each cycle.
const FILLED: usize = 5;
const VALUE: usize = 256 << 10;

/// Four disks of 64 MiB, most of each taken by somebody else, fill up 25 times in a row: a hundred
/// times in all.
pub fn that_is_full(binary: &str) {
    if !Need::SmallDisk.is_met(STORY) {
        return;
    }
    let receipts = thread::scope(|scope| {
        let disks: Vec<_> = (0..DISKS).map(|_| scope.spawn(|| one_disk(binary))).collect();
        let counts =
            disks.into_iter().map(|disk| disk.join().expect("a disk has said what is wrong"));
        counts.sum::<usize>()
    });
    announce(&format!("{STORY}: {} times, {receipts} receipts", DISKS * CYCLES * FILLED));
}

/// How many messages were acknowledged, all of which were handed over, once.
fn one_disk(binary: &str) -> usize {
    let disk = SmallDisk::of_mib(64).expect("it was possible a moment ago");
    let folder = disk.path().join("data").to_string_lossy().into_owned();
    let config = NodeConfig::new("aws")
        .text("node.data_dir", &folder)
        .text("store.history_max_bytes", "1MiB")
        .number("limits.delivery_window", 4);
    let mut node = Daemon::start(binary, config);
    App::connect(&node, "client=sleeper").leave();
    let mut till = App::connect(&node, "client=till&keys=");
    let (mut receipts, mut handed) = (Vec::new(), Vec::new());
    for cycle in 0..CYCLES {
        node.await_away("sleeper");
        for filled in 0..FILLED {
            disk.leave(2 * MIB);
            goes_on(&mut till, &format!("room-{cycle}-{filled}"), &mut receipts);
            disk.leave(256 * KIB);
            fill(&mut till, &format!("m-{cycle}-{filled}"), &mut receipts);
        }
        let sleeper = Subscriber::start(&node, "client=sleeper");
        sleeper.wait_for("the sleeper, on a full disk", receipts.len() - handed.len(), LONG);
        handed.extend(sleeper.stop());
        assert_eq!(node.get("/livez").status, 200);
        assert_eq!(node.exited(), None, "{}", node.log());
    }
    node.kill();
    node.run();
    disk.leave(40 * MIB);
    let mut till = App::connect(&node, "client=till&keys=");
    goes_on(&mut till, "at-last", &mut receipts);
    let sleeper = Subscriber::start(&node, "client=sleeper");
    until("the rest", PATIENCE, || sleeper.has("at-last"));
    handed.extend(sleeper.stop());
    never_twice_unmarked("the sleeper", &handed, receipts.iter().map(String::as_str));
    receipts.len()
}

/// Publishes until there is no room.
fn fill(till: &mut App, name: &str, receipts: &mut Vec<String>) {
    let value = filler(VALUE);
    for number in 0..400 {
        let id = format!("{name}-{number}");
        till.send(Message::event(&id, "order:1", &value).json());
        let answer = till.answer();
        if answer.kind == "ACK" {
            receipts.push(id);
            continue;
        }
        assert_eq!(answer.code.as_deref(), Some("STORE_FULL"), "{answer:?}");
        assert_eq!((answer.retryable, answer.re), (Some(true), Some(id)));
        return;
    }
    panic!("100 MiB fit on a disk of 64 MiB");
}

fn goes_on(till: &mut App, id: &str, receipts: &mut Vec<String>) {
    until("the disk to have room", PATIENCE, || {
        till.send(Message::event(id, "order:1", "1").json());
        till.answer().kind == "ACK"
    });
    receipts.push(id.to_owned());
}

/// Far more than fits is written over ten keys, and then somebody else takes what is left: history
/// gives way, so publishers go on, also after a restart. Where there is no history they are
/// refused, deletes pass, and make room. No probe fails meanwhile, and it is told once.
pub fn gives_history_back(binary: &str) {
    const STORY: &str = "a full disk and its history";
    const KEPT: usize = 4 << 10;
    if !Need::SmallDisk.is_met(STORY) {
        return;
    }
    let disk = SmallDisk::of_mib(64).expect("it was possible a moment ago");
    let folder = disk.path().join("data").to_string_lossy().into_owned();
    let mut node = Daemon::start(binary, NodeConfig::new("aws").text("node.data_dir", &folder));
    let over_ten_keys = |name: &'static str, count: usize| {
        let key = |number: usize| format!("order:{}", number % 10);
        let message =
            move |number| Message::state(format!("{name}-{number}"), key(number), filler(KEPT));
        (0..count).map(message)
    };
    let published = Publisher::publish_all(&node, "till", over_ten_keys("all", 20_000));
    // A few may meet a moment without room, before history has made some.
    assert!(published.refused.len() < 1_000, "{} refused", published.refused.len());

    for name in ["at-work", "restarted"] {
        disk.leave(0);
        let mut till = App::connect(&node, "client=pos&keys=");
        for message in over_ten_keys(name, 300) {
            goes_through(&mut till, &message);
        }
        goes_through(&mut till, &Message::delete(format!("{name}-delete"), "order:3"));
        assert_eq!(node.get("/readyz").status, 200);
        assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
        node.run();
    }

    disk.leave(0);
    let mut till = App::connect(&node, "client=stock&keys=");
    let taken = fill_with_keys(&mut till);
    assert_eq!(node.get("/readyz").status, 200);
    assert_eq!(node.metric("slipstream_refusing_publishers", &[]), 1.0);
    let health = node.get("/healthz").json();
    let publish = &health["checks"]["publish"];
    assert_eq!(
        (&health["status"], &publish["ok"]),
        (&"refusing".into(), &false.into()),
        "{health}"
    );
    assert!(publish["detail"].as_str().is_some_and(|why| why.contains("full")), "{health}");
    for key in 0..taken / 2 {
        let id = format!("delete-{key}");
        goes_through(&mut till, &Message::delete(id, format!("stock:{key}")));
    }
    goes_on(&mut till, "room", &mut Vec::new());
    // Told once, each time, by each of the three starts.
    let log = node.log();
    let said = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert!(said("there is no room") <= 3 + said("has room again"), "{log}");
    announce(&format!("{STORY}: {taken} more keys fit, then deletes made room"));
}

/// Publishes until there is a receipt, as history may have to give way first.
fn goes_through(till: &mut App, message: &Message) {
    until(&format!("a receipt of {}", message.id()), PATIENCE, || {
        till.send(message.json());
        till.answer().kind == "ACK"
    });
}

/// Publishes keys of their own until there is no room; how many were taken.
fn fill_with_keys(till: &mut App) -> usize {
    let value = filler(16 << 10);
    for number in 0..10_000 {
        let message = Message::state(format!("s-{number}"), format!("stock:{number}"), &value);
        till.send(message.json());
        let answer = till.answer();
        if answer.kind != "ACK" {
            assert_eq!(answer.code.as_deref(), Some("STORE_FULL"), "{answer:?}");
            return number;
        }
    }
    panic!("160 MiB fit on a disk of 64 MiB");
}
