//! Keys that hold sets of weights, are deleted, and are read (P6, P12).

use crate::harness::{App, Command, Daemon, Frame, Mesh, Message, NodeConfig};

use super::nodes;

/// Asks for a key: `GK`, `GA` or `GW`.
fn read(app: &mut App, kind: &str, key: &str) -> Frame {
    app.send(format!(r#"{{"type":"{kind}","messageId":"r-1","key":"{key}"}}"#));
    let answer = app.answer();
    let named = if answer.kind == "ERR" { &answer.re } else { &answer.message_id };
    assert_eq!(named.as_deref(), Some("r-1"), "{answer:?}");
    answer
}

/// What is there: kind, value as it was written, version.
fn found(result: &Frame) -> (&str, &str, &str) {
    assert_eq!((result.kind.as_str(), result.found), ("RESULT", Some(true)), "{result:?}");
    (result.of_kind.as_deref().unwrap_or_default(), result.value_text(), result.version())
}

/// Whatever is set can be read, as it was written, by the frame for its kind and no other.
pub fn what_is_set_is_read_as_it_was_written(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut app = App::connect(&node, "keys=");
    let absent = read(&mut app, "GK", "order:1");
    assert_eq!((absent.found, absent.value_text(), &absent.version), (Some(false), "", &None));
    let values = [
        (Message::state("m-1", "order:1", r#"{"n": 1.10}"#), "GK", "SK"),
        (Message::array("m-2", "orders", r#"[1e400, "\u00e9"]"#), "GA", "SA"),
        (Message::weighted("m-3", "acquirers", r#"{"nets":0.70, "b":3e-1}"#), "GW", "SW"),
    ];
    for (message, frame, kind) in &values {
        let receipt = app.publish(message);
        let result = read(&mut app, frame, message.key());
        assert_eq!(found(&result), (*kind, message.value(), receipt.version()));
    }
    for (message, own, kind) in &values {
        for frame in ["GK", "GA", "GW"].iter().filter(|frame| *frame != own) {
            let refused = read(&mut app, frame, message.key());
            assert_eq!(refused.code.as_deref(), Some("WRONG_KIND"), "{refused:?}");
            let told = refused.message.unwrap_or_default();
            assert!(told.contains(kind), "names the kind there is: {told}");
        }
    }
    assert!(node.metric("slipstream_rejected_total", &[r#"code="WRONG_KIND""#]) >= 6.0);
}

/// A delete is handed over without a value, at any distance, and what is deleted is not found; a
/// newer value is.
pub fn a_deleted_key_is_not_found_anywhere(binary: &str) {
    let mesh = Mesh::line(binary, nodes(&["aws", "azure", "gcp"]));
    let mut till = App::connect(&mesh.nodes[0], "keys=");
    let mut watcher = App::connect(&mesh.nodes[2], "client=watch");
    till.publish(&Message::state("m-1", "order:1", "1"));
    assert_eq!(watcher.delivery().id(), "m-1");
    let receipt = till.publish(&Message::delete("m-2", "order:1"));
    let handed = watcher.delivery();
    assert_eq!((handed.kind.as_str(), handed.id(), handed.key()), ("DK", "m-2", "order:1"));
    assert!(handed.value.is_none(), "{handed:?}");
    assert_eq!(handed.version(), receipt.version());
    for app in [&mut till, &mut watcher] {
        for frame in ["GK", "GA", "GW"] {
            let gone = read(app, frame, "order:1");
            assert_eq!((gone.found, gone.value_text()), (Some(false), ""), "{gone:?}");
            assert_eq!(gone.of_kind.as_deref(), Some("DK"), "{gone:?}");
            assert_eq!(gone.version(), receipt.version(), "a delete has a version");
        }
    }
    assert!(mesh.nodes[2].metric("slipstream_tombstones", &[]) >= 1.0);
    till.publish(&Message::array("m-3", "order:1", "[3]"));
    assert_eq!(watcher.delivery().id(), "m-3");
    assert_eq!(found(&read(&mut watcher, "GA", "order:1")).1, "[3]");
}

/// Who joins after a delete is brought to know of it.
pub fn a_late_node_learns_of_a_delete(binary: &str) {
    let first = Daemon::start(binary, NodeConfig::new("aws"));
    let mut till = App::connect(&first, "keys=");
    till.publish(&Message::state("m-1", "order:1", "1"));
    till.publish(&Message::delete("m-2", "order:1"));
    till.publish(&Message::state("m-3", "order:2", "2"));
    let late = Daemon::start(binary, NodeConfig::new("gcp").peer(&first.config.address));
    let mut watcher = App::connect(&late, "client=watch");
    // The value that was deleted may come, but only before its delete.
    let mut handed = Vec::new();
    while handed.last().is_none_or(|last| last != "m-3") {
        handed.push(watcher.delivery().id().to_owned());
    }
    assert!(handed.ends_with(&["m-2".to_owned(), "m-3".to_owned()]), "{handed:?}");
    assert_eq!(read(&mut watcher, "GK", "order:1").found, Some(false));
}

/// Pipelined: each read sees what was published before it, whether or not it was acknowledged
/// when the read was sent; and each frame has its answer in its place.
pub fn a_read_sees_what_was_published_before_it(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut app = App::connect(&node, "keys=");
    let frames: Vec<String> = (0..200)
        .flat_map(|n| {
            let key = format!("k{}", n % 3);
            let message = Message::state(format!("m-{n}"), &key, n.to_string());
            let read = format!(r#"{{"type":"GK","messageId":"r-{n}","key":"{key}"}}"#);
            [message.json(), read]
        })
        .collect();
    app.send_together(frames.iter().map(String::as_str));
    for n in 0..200_u32 {
        let receipt = app.answer();
        assert_eq!((receipt.kind.as_str(), receipt.id()), ("ACK", &*format!("m-{n}")));
        let result = app.answer();
        assert_eq!(result.id(), format!("r-{n}"));
        // What was published behind the read may be there already.
        assert!(found(&result).2 >= receipt.version(), "{result:?} after {receipt:?}");
    }
}

/// Many reads together, of large values, are all answered, in order.
pub fn many_reads_of_large_values(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut app = App::connect(&node, "keys=");
    for n in 0..8 {
        let value = super::filler(100_000 + n);
        app.publish(&Message::state(format!("m-{n}"), format!("k{n}"), value));
    }
    let frames: Vec<String> = (0..400)
        .map(|n| format!(r#"{{"type":"GK","messageId":"r-{n}","key":"k{}"}}"#, n % 9))
        .collect();
    app.send_together(frames.iter().map(String::as_str));
    for n in 0..400 {
        let result = app.answer();
        assert_eq!(result.id(), format!("r-{n}"));
        let expected = if n % 9 == 8 { 0 } else { 100_000 + n % 9 };
        assert_eq!(result.value_text().len(), expected, "result {n}");
    }
}

/// An application reads the newest among the tag sets that match it.
pub fn a_read_is_of_what_matches(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").tags(&["aws"]));
    let mut till = App::connect(&node, "keys=");
    till.publish(&Message::state("m-1", "k", "1"));
    till.publish(&Message::state("m-2", "k", "2").tagged(&["azure"]));
    till.publish(&Message::state("m-3", "k", "3").tagged(&["azure", "gcp"]));
    till.publish(&Message::delete("m-4", "k").tagged(&["eu"]));
    for (query, expected) in [
        ("keys=", "1"),
        ("keys=&tags=azure", "3"),
        ("keys=&tags=gcp,us", "3"),
        ("keys=&tags=us", "1"),
        ("keys=&tags=eu,gcp", ""),
    ] {
        let result = read(&mut App::connect(&node, query), "GK", "k");
        assert_eq!(result.value_text(), expected, "{query}: {result:?}");
    }
}

/// What was read is there after a restart, deletes included.
pub fn a_restart_forgets_no_delete(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut app = App::connect(&node, "keys=");
    app.publish(&Message::weighted("m-1", "w", r#"{"a":1}"#));
    app.publish(&Message::state("m-2", "k", "1"));
    let receipt = app.publish(&Message::delete("m-3", "k"));
    node.kill();
    node.run();
    let mut app = App::connect(&node, "keys=");
    assert_eq!(found(&read(&mut app, "GW", "w")).1, r#"{"a":1}"#);
    let gone = read(&mut app, "GK", "k");
    assert_eq!((gone.found, gone.version()), (Some(false), receipt.version()));
}

/// `get` does for a person what the frames do for a program.
pub fn getting_by_hand(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").tags(&["aws"]));
    let url = format!("ws://{}", node.config.address);
    let run = |args: &[&str]| Command::new(binary, &[args, &["--url", &url]].concat()).run();
    run(&["pub", "SW", "acquirers", r#"{"nets": 0.70}"#]).ok();
    run(&["pub", "SK", "order:1", "1.10", "--tags", "azure"]).ok();
    for protocol in ["json", "postcard"] {
        let get = |args: &[&str]| run(&[&["get", "--protocol", protocol], args].concat());
        assert_eq!(get(&["acquirers"]).ok(), "{\"nets\": 0.70}\n");
        assert_eq!(get(&["acquirers", "--kind", "SW"]).ok(), "{\"nets\": 0.70}\n");
        let printed = get(&["order:1", "--tags", "azure", "--json"]).ok();
        let start = r#"{"key":"order:1","found":true,"kind":"SK","value":1.10,"version":""#;
        assert!(printed.starts_with(start), "{printed}");
        let refused = get(&["acquirers", "--kind", "SK"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("WRONG_KIND"), "{}", refused.stderr);
        let absent = get(&["order:1"]);
        assert_eq!((absent.code, absent.stdout.as_str()), (Some(1), ""), "{absent:?}");
        assert!(absent.stderr.contains("order:1"), "{}", absent.stderr);
    }
    run(&["pub", "DK", "acquirers"]).ok();
    for protocol in ["json", "postcard"] {
        let gone = run(&["get", "acquirers", "--json", "--protocol", protocol]);
        assert_eq!(gone.code, Some(1), "{gone:?}");
        assert!(gone.stdout.starts_with(r#"{"key":"acquirers","found":false,"kind":"DK""#));
        assert!(gone.stderr.contains("deleted"), "{}", gone.stderr);
    }
    for wrong in [&["get"][..], &["get", "k", "--kind", "CMD"], &["pub", "DK", "k", "1"]] {
        assert_eq!(run(wrong).code, Some(2), "{wrong:?}");
    }
    let bad = run(&["pub", "SW", "acquirers", r#"{"nets": -1}"#]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.stderr.contains("INVALID_FIELD"), "{}", bad.stderr);
}
