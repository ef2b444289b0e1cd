//! A wall clock that moves while the node runs: publishers get `CLOCK`, and nothing else changes
//! (P3, P6, P13).

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    App, Command as Cli, Daemon, Frame, Message, Need, NodeConfig, PATIENCE, Proxy, Subscriber,
    faketime, until,
};

use super::{Tally, quick};

const STORY: &str = "wall clocks that move";
/// How long each fault lasts, at least: longer than heartbeats may be away.
const LASTS: Duration = Duration::from_millis(2_000);

/// What a clock does.
struct Move {
    name: &'static str,
    /// As libfaketime writes it.
    clock: String,
    /// Whether versions of sound peers are beyond the limit for it, and so refused for now.
    behind: bool,
}

/// One of two nodes has such a clock. Links, deliveries and repeats go on, events and sessions
/// live, and when the clock is right again publishers are taken.
pub fn that_moves(binary: &str) {
    if !Need::Faketime.is_met(STORY) {
        return;
    }
    let mut tally = Tally::default();
    // Of two clocks nobody can say which is right; gcp is there to agree with azure.
    let gcp = Daemon::start(binary, config("gcp"));
    let azure = Daemon::start(binary, config("azure").peer(&gcp.config.address));
    azure.await_peer("gcp");
    let link = Proxy::to(&azure.config.address);
    let mut aws = Daemon::prepare(binary, config("aws").peer(&link.address));
    fake(&mut aws);
    set(&aws, "+0");
    aws.run();
    aws.await_peer("azure");
    let watcher = Subscriber::start(&aws, "client=watch");
    // Applications that do one thing after the other come and go: while they do nothing they
    // answer no heartbeat.
    let till = || App::connect(&aws, "client=till&keys=");
    let mute = || App::connect(&aws, "client=mute&keys=mute");
    mute().leave();

    for (at, what) in moves().iter().enumerate() {
        let name = what.name;
        let id = |of: &str| format!("{of}-{at}");
        let away = format!("client=away-{at}&keys=kept/{at}");
        App::connect(&aws, &away).leave();
        aws.await_away(&format!("away-{at}"));
        let event = |of: &str, key: &str| Message::event(id(of), key, "1").lasting_ms(60_000);
        till().publish(&event("kept", &format!("kept/{at}")));
        till().publish(&event("mute", "mute"));
        let unanswered = repetition(&mut mute(), &id("mute"), 0);

        set(&aws, &what.clock);
        let refused = refusal(&mut till(), &id("early"));
        assert_eq!(refused.code.as_deref(), Some("CLOCK"), "{name}: {refused:?}");
        assert_eq!(refused.retryable, Some(true), "{name}: {refused:?}");
        tally.count(name);
        let mut elsewhere = App::connect(&azure, "client=elsewhere&keys=");
        elsewhere.publish(&Message::state(id("state"), id("state"), "1"));
        elsewhere.publish(&event("event", "event"));
        drop(elsewhere);
        if !what.behind {
            until("deliveries to go on", PATIENCE, || watcher.has(&id("state")));
        }
        let handed = App::connect(&aws, &away).replay();
        assert_eq!(handed.len(), 1, "{name}: no event ends by a clock in doubt: {handed:?}");
        repetition(&mut mute(), &id("mute"), unanswered + 2);
        thread::sleep(LASTS);
        let again = refusal(&mut till(), &id("late"));
        assert_eq!(again.code.as_deref(), Some("CLOCK"), "{name}: {again:?}");

        set(&aws, "+0");
        let mut till = till();
        until("publishers to be taken again", PATIENCE, || {
            till.send(Message::state(id("after"), "order:1", "1").json());
            till.answer().kind == "ACK"
        });
        until("what was refused for now", PATIENCE, || {
            watcher.has(&id("state")) && watcher.has(&id("event"))
        });
        assert_eq!(link.accepted(), 1, "{name}: the link lives on");
        assert_eq!(aws.metric("slipstream_expired_total", &[]), 0.0, "{name}");
        assert_eq!(aws.metric("slipstream_dead_letters", &[]), 0.0, "{name}");
        assert!(aws.sessions().len() > 4 + at, "{name}: {:?}", aws.sessions());
    }
    tally.report(STORY, 1);
}

/// A node whose clock was two years ahead once, and is right again: what others write to a key that
/// it stamped then reaches everybody, also behind it; and an operator's word makes it take
/// publishers, and brings what it had stamped to everybody.
pub fn that_was_far_ahead_once(binary: &str) {
    if !Need::Faketime.is_met("a clock that was far ahead once") {
        return;
    }
    let mut aws = Daemon::prepare(binary, config("aws"));
    fake(&mut aws);
    set(&aws, "+730d");
    aws.run();
    let mut till = App::connect(&aws, "client=till&keys=");
    till.publish(&Message::state("future", "replaced", "1"));
    till.publish(&Message::state("kept", "kept", "1"));
    drop(till);
    aws.terminate();
    set(&aws, "+0");
    aws.run();
    let azure = Daemon::start(binary, config("azure").peer(&aws.config.address));
    let gcp = Daemon::start(binary, config("gcp").peer(&aws.config.address));
    aws.await_peer("azure");
    aws.await_peer("gcp");
    App::connect(&gcp, "client=till&keys=").publish(&Message::state("new", "replaced", "2"));
    for node in [&aws, &azure, &gcp] {
        until("the newer value", PATIENCE, || value(node, "replaced") == "2");
    }
    let mut till = App::connect(&aws, "client=till&keys=");
    let refused = refusal(&mut till, "early");
    let said = refused.message.as_deref().unwrap_or_default();
    assert!(said.contains("slipstream clock reset"), "{refused:?}");

    let admin = aws.admin_url();
    let reset = |args: &[&str]| {
        let command = [&["clock", "reset", "--admin", &admin], args].concat();
        Cli::new(binary, &command).run().ok()
    };
    let said = reset(&[]);
    assert!(said.contains("values stamped anew: 1"), "{said}");
    till.publish(&Message::state("late", "order:1", "1"));
    for node in [&aws, &azure, &gcp] {
        until("what was stamped anew", PATIENCE, || value(node, "kept") == "1");
        until("what was published since", PATIENCE, || value(node, "order:1") == "1");
        assert_eq!(value(node, "replaced"), "2");
    }
    let again: Value = serde_json::from_str(&reset(&["--json"])).expect("it is JSON");
    assert_eq!((&again["restamped"], &again["refusing"]), (&0.into(), &Value::Null));
    assert!(aws.log().contains("the clock was reset by order"), "it is in the log");
}

/// The value that a node reads under a key.
fn value(node: &Daemon, key: &str) -> String {
    let mut app = App::connect(node, "keys=");
    app.send(format!(r#"{{"type":"GK","messageId":"r","key":"{key}"}}"#));
    app.answer().value_text().to_owned()
}

/// A command that lives twenty seconds reaches a node whose clock is forty seconds ahead, and one
/// behind that whose clock is right.
pub fn that_are_apart(binary: &str) {
    if !Need::Faketime.is_met("wall clocks that are apart") {
        return;
    }
    let gcp = Daemon::start(binary, quick(NodeConfig::new("gcp")));
    let mut azure =
        Daemon::prepare(binary, quick(NodeConfig::new("azure")).peer(&gcp.config.address));
    fake(&mut azure);
    set(&azure, "+40");
    azure.run();
    azure.await_peer("gcp");
    let aws = Daemon::start(binary, quick(NodeConfig::new("aws")).peer(&azure.config.address));
    aws.await_peer("azure");
    let watchers = [&azure, &gcp].map(|node| Subscriber::start(node, "client=watch"));
    let mut till = App::connect(&aws, "client=till&keys=");
    till.publish(&Message::event("c-1", "terminal:1", "1").lasting_ms(20_000));
    for watcher in &watchers {
        until("the command", PATIENCE, || watcher.has("c-1"));
    }
}

fn config(id: &str) -> NodeConfig {
    quick(NodeConfig::new(id))
        .text("limits.max_clock_drift", "2s")
        .text("retry.ack_timeout", "200ms")
        .text("retry.max_backoff", "400ms")
        .number("retry.max_attempts", 100_000)
}

fn moves() -> [Move; 5] {
    let now = Command::new("date").args(["-u", "+%F %T"]).output().expect("every system has date");
    let now = String::from_utf8_lossy(&now.stdout).trim().to_owned();
    [
        Move { name: "years ahead", clock: "+10y".to_owned(), behind: false },
        Move { name: "two minutes ahead", clock: "+120".to_owned(), behind: false },
        Move { name: "two minutes behind", clock: "-120".to_owned(), behind: true },
        Move { name: "years behind", clock: "-10y".to_owned(), behind: true },
        Move { name: "stopped", clock: now, behind: true },
    ]
}

/// The refusal of a publisher, once there is one; a slow fault takes its time to show.
fn refusal(till: &mut App, id: &str) -> Frame {
    let mut refused = None;
    until("a refusal", PATIENCE, || {
        till.send(Message::state(id, "order:1", "1").json());
        refused = Some(till.answer()).filter(|answer| answer.kind == "ERR");
        refused.is_some()
    });
    refused.expect("the wait ended with one")
}

/// Reads on until the message comes as at least its so-manieth repetition.
fn repetition(mute: &mut App, id: &str, least: u64) -> u64 {
    loop {
        let one = mute.delivery();
        let redelivery = one.redelivery.unwrap_or(0);
        if one.id() == id && redelivery >= least {
            return redelivery;
        }
    }
}

/// From its next start on the node has the clock that [`set`] says, and the monotonic clock of
/// the system.
fn fake(node: &mut Daemon) {
    let library = faketime().expect("it was looked for before");
    let file = node.config_file().with_file_name("clock");
    let variables = [
        ("LD_PRELOAD", library.to_string_lossy().into_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_string_lossy().into_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // The name was another one in older versions.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
        ("TZ", "UTC".to_owned()),
    ];
    node.env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
}

fn set(node: &Daemon, clock: &str) {
    let file = node.config_file().with_file_name("clock");
    // Moved into place, so that nobody reads half of it.
    let whole = file.with_extension("new");
    std::fs::write(&whole, format!("{clock}\n")).expect("the folder of a node can be written");
    std::fs::rename(&whole, &file).expect("a file can be renamed");
}
