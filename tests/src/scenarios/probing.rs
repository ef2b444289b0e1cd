//! Probes and operators while the node is held up, and answers that would be large (P8, P14).

use std::time::{Duration, Instant};

use crate::harness::{App, Command, Daemon, Injection, Message, Need, NodeConfig, PATIENCE, until};

use super::dead_letters;

/// A store that takes long to open: the process lives and is not ready, and ends when it is told
/// to.
pub fn a_start_that_takes_long(binary: &str) {
    if !Need::Strace.is_met("a_start_that_takes_long") {
        return;
    }
    let mut node = Daemon::prepare(binary, NodeConfig::new("aws"));
    Injection::delay("fsync,fdatasync", "1+").in_data().start(&mut node);
    until("the process to live", PATIENCE, || {
        node.probe("/livez").is_some_and(|answer| answer.status == 200)
    });
    let ready = node.probe("/readyz").expect("an answer");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("starting"), "{}", ready.body);
    let health = node.probe("/healthz").expect("an answer");
    assert!(health.status == 503 && health.body.contains("starting"), "{}", health.body);
    assert_eq!(node.probe("/status").expect("an answer").status, 503);
    node.ask_to_end();
    assert_eq!(node.ended().code(), Some(0), "{}", node.log());
    assert!(!node.log().contains("\"ready\""), "{}", node.log());
}

/// A signal ends a node that starts: soon, however much of the start is left.
pub fn a_signal_during_a_long_start(binary: &str) {
    if !Need::Strace.is_met("a_signal_during_a_long_start") {
        return;
    }
    let mut node = Daemon::prepare(binary, NodeConfig::new("aws"));
    // The end waits for the one call that is under way.
    let more = Duration::from_millis(500);
    Injection::delay_by(more, "fsync,fdatasync,pwrite64", "1+").in_data().start(&mut node);
    until("the process to live", PATIENCE, || node.probe("/livez").is_some());
    node.ask_to_end();
    let asked = Instant::now();
    assert_eq!(node.ended().code(), Some(0), "{}", node.log());
    let taken = asked.elapsed();
    assert!(taken < Duration::from_secs(3), "it took {taken:?}");
    assert!(!node.log().contains("\"ready\""), "{}", node.log());
}

/// Dead letters that do not fit into one answer: each names where the next one begins.
pub fn dead_letters_page_by_page(binary: &str) {
    const COUNT: usize = 20;
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    for number in 0..COUNT {
        till.publish(&Message::event(format!("m-{number}"), "terminal:9", "1"));
        let handed = app.delivery();
        app.nack(&handed, "reject");
    }
    until("the dead letters", PATIENCE, || dead_letters(&node).len() == COUNT);

    let mut next = Some("/dead-letters?limit=7".to_owned());
    let mut pages = Vec::new();
    while let Some(path) = next {
        let page = node.get(&path);
        pages.push(page.json().as_array().cloned().unwrap_or_default());
        assert!(pages.len() <= COUNT, "{path} leads on for ever");
        next = page.next;
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 6]);
    let listed = pages.iter().flatten().map(|letter| letter["messageId"].as_str());
    let listed: Vec<_> = listed.flatten().map(str::to_owned).collect();
    let made: Vec<_> = (0..COUNT).map(|number| format!("m-{number}")).collect();
    assert_eq!(listed, made, "each once, in the order in which they came to be");
}

/// A disk that hangs: probes are answered, and say what is wrong.
pub fn a_disk_that_hangs(binary: &str) {
    if !Need::Strace.is_met("a_disk_that_hangs") {
        return;
    }
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    assert!(node.terminate().success());
    Injection::delay("fsync,fdatasync", "20+").in_data().start(&mut node);
    assert!(node.started().is_none(), "it runs");
    let mut app = App::connect(&node, "keys=");
    let mut number = 0;
    until("the node to say that it does not answer", PATIENCE, || {
        number += 1;
        app.send(format!(r#"{{"type":"SK","key":"order:{number}","value":1}}"#));
        let ready = node.probe("/readyz").expect("an answer in time");
        ready.status == 503 && ready.body.contains("has not answered")
    });
    // It may recover: that is better than to be ended, and started again on the same disk.
    let lives = node.probe("/livez").expect("an answer in time");
    assert_eq!(lives.status, 200, "{}", lives.body);
    until("an answer within a second", Duration::from_secs(10), || {
        let asked = Instant::now();
        node.probe("/livez").is_some() && asked.elapsed() < Duration::from_secs(1)
    });
    until("the node to have been silent for too long", PATIENCE, || {
        node.probe("/livez").expect("an answer in time").status == 503
    });
    node.kill();
}

/// Large dead letters: lists leave their values out, one is shown whole, and all are replayed and
/// purged without the node holding them all.
pub fn large_dead_letters(binary: &str) {
    const COUNT: usize = 24;
    let config = NodeConfig::new("aws").number("limits.delivery_window", 64);
    let node = Daemon::start(binary, config);
    let mut till = App::connect(&node, "client=till&keys=");
    let mut app = App::connect(&node, "client=pi-1");
    let value = format!("\"{}\"", "x".repeat(900 * 1024));
    for number in 0..COUNT {
        till.publish(&Message::event(format!("m-{number}"), "terminal:9", &value));
        let handed = app.delivery();
        app.nack(&handed, "reject");
    }
    until("the dead letters", PATIENCE, || dead_letters(&node).len() == COUNT);
    let before = node.resident_bytes();
    let listed = dead_letters(&node);
    assert!(listed.iter().all(|letter| letter["value"].is_null()), "{:?}", listed[0]);
    assert!(listed.iter().all(|letter| letter["valueBytes"] == value.len()), "{:?}", listed[0]);
    assert!(node.get("/where/m-1").body.len() < 4096);
    if let (Some(before), Some(after)) = (before, node.resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 8 << 20, "the node grew by {grown} bytes for a list");
    }
    let number = listed[0]["id"].to_string();
    let whole = node.get(&format!("/dead-letters/{number}")).json();
    assert_eq!(whole["value"].as_str().map(str::len), Some(value.len() - 2));
    assert_eq!(node.admin("GET", "/dead-letters/4711").status, 404);

    let admin = node.admin_url();
    let run = |args: &[&str]| {
        Command::new(binary, &[&["dead-letters"], args, &["--admin", &admin]].concat()).run().ok()
    };
    assert!(run(&["show", &number]).contains(&value));
    assert_eq!(run(&["list", "--limit", "2000"]).matches("terminal:9").count(), COUNT);
    assert_eq!(run(&["replay", "--all"]).lines().count(), COUNT);
    for _ in 0..COUNT {
        let handed = app.delivery();
        app.nack(&handed, "reject");
    }
    until("them again", PATIENCE, || dead_letters(&node).len() == COUNT);
    let before = node.watch_peak_bytes();
    assert_eq!(run(&["purge", "--all"]).lines().count(), COUNT);
    assert!(dead_letters(&node).is_empty());
    if let (Some(before), Some(peak)) = (before, node.peak_bytes()) {
        let grown = peak.saturating_sub(before);
        assert!(grown < 12 << 20, "the node grew by {grown} bytes for {COUNT} letters of 900 KiB");
    }
}
