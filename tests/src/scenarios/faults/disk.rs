//! A disk that is full for real: publishers are refused, applications keep draining, and it goes
//! on without a restart when there is room (P2, P8).

use crate::harness::{
    App, Daemon, LONG, Message, Need, NodeConfig, PATIENCE, SmallDisk, Subscriber, announce,
    each_exactly_once, until,
};

use super::super::filler;

const STORY: &str = "a disk that is full";
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
/// Times that the disk is emptied so far that everything is written down.
const CYCLES: usize = 10;
/// Times that it fills up and is given a little room, in each cycle.
const FILLED: usize = 10;
const VALUE: usize = 256 << 10;

/// A disk of 64 MiB, most of it taken by somebody else, fills up a hundred times in a row.
pub fn that_is_full(binary: &str) {
    if !Need::SmallDisk.is_met(STORY) {
        return;
    }
    let disk = SmallDisk::of_mib(64).expect("it was possible a moment ago");
    let folder = disk.path().join("data").to_string_lossy().into_owned();
    let config = NodeConfig::new("aws")
        .text("node.data_dir", &folder)
        .text("store.history_max_bytes", "1MiB")
        .number("limits.delivery_window", 4);
    let mut node = Daemon::start(binary, config);
    App::connect(&node, "client=sleeper").leave();
    let mut till = App::connect(&node, "client=till&keys=");
    let mut receipts = Vec::new();
    let (mut refusals, mut handed) = (0, Vec::new());

    for cycle in 0..CYCLES {
        node.await_away("sleeper");
        for filled in 0..FILLED {
            disk.leave(2 * MIB);
            if filled > 0 || cycle > 0 {
                goes_on(&mut till, &format!("room-{cycle}-{filled}"), &mut receipts);
            }
            disk.leave(256 * KIB);
            fill(&mut till, &format!("m-{cycle}-{filled}"), &mut receipts);
            refusals += 1;
        }
        let sleeper = Subscriber::start(&node, "client=sleeper");
        sleeper.wait_for("the sleeper, on a full disk", receipts.len() - handed.len(), LONG);
        handed.extend(sleeper.stop());
        assert_eq!(node.get("/livez").status, 200);
        assert_eq!(node.exited(), None, "{}", node.log());
    }
    disk.leave(40 * MIB);
    goes_on(&mut till, "at-last", &mut receipts);
    node.kill();
    node.run();
    let sleeper = Subscriber::start(&node, "client=sleeper");
    until("the rest", PATIENCE, || sleeper.has("at-last"));
    handed.extend(sleeper.stop());
    each_exactly_once("the sleeper", &handed, receipts.iter().map(String::as_str));
    announce(&format!("{STORY}: {refusals} times, {} receipts between", receipts.len()));
    assert_eq!(refusals, CYCLES * FILLED);
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
