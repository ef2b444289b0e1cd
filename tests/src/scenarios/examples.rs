//! Programs that people copy: each is run as its first lines say.

use std::path::Path;
use std::process;

use crate::harness::{App, Command, Daemon, LONG, Message, NodeConfig, announce, until};

/// The node within the service.
pub fn embed(example: &str) {
    let data = tempfile::tempdir().expect("a folder can be made");
    let said = Command::new(example, &[&data.path().to_string_lossy()]).run().ok();
    assert_eq!(said.matches("is durable").count(), 3, "{said}");
    for number in 1..=3 {
        assert!(said.contains(&format!(r#"order:{number} = {{"amount": 1.10}}"#)), "{said}");
    }
    assert!(said.ends_with("Stopped\n"), "{said}");
    // All of it was settled: a second start is handed what it publishes anew.
    let again = Command::new(example, &[&data.path().to_string_lossy()]).run().ok();
    assert_eq!(again.matches("order:").count(), 3, "{again}");
}

/// A node elsewhere.
pub fn client(binary: &str, example: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let run = || Command::new(example, &[&node.url("")]).run().ok();
    let first = run();
    assert!(first.contains("order-1-paid is durable"), "{first}");
    assert!(first.contains(r#"order:1 holds {"amount": 1.10}"#), "{first}");
    assert!(first.contains(r#"order:1 = {"amount": 1.10}"#), "{first}");
}

/// Payments that come while the consumer is killed again and again, each of them counted once.
/// `cents` reads the sum of what the consumer has applied.
pub fn durable_consumer(binary: &str, example: &str, cents: fn(&Path) -> i64) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let data = tempfile::tempdir().expect("a folder can be made");
    let ledger = data.path().join("ledger.db");
    let consume = || Command::new(example, &[&node.url(""), &ledger.to_string_lossy()]).spawn();
    let mut shop = App::connect(&node, "client=shop&keys=");
    let mut expected = 0;
    for round in 0..4 {
        let consumer = consume();
        node.await_client("ledger");
        for number in 0..50 {
            let id = format!("p-{round}-{number}");
            let value = format!(r#"{{"account":"a-{}","cents":{}}}"#, number % 7, number + 1);
            shop.publish(&Message::event(id, format!("payment:{round}-{number}"), value));
            expected += number + 1;
        }
        let some = expected - 200;
        until("some payments to be applied", LONG, || cents(&ledger) >= some);
        // Killed at any moment, perhaps between its commit and its acknowledgement.
        drop(consumer);
        node.await_away("ledger");
    }
    shop.publish(&Message::event("bad", "payment:bad", "{}"));
    let _consumer = consume();
    until("every payment to be applied", LONG, || cents(&ledger) == expected);
    until("the bad one to be a dead letter", LONG, || {
        node.get("/dead-letters").body.contains("an account and cents")
    });
    assert_eq!(cents(&ledger), expected);
}

/// What was committed is published, and leaves the table.
pub fn outbox(binary: &str, example: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let data = tempfile::tempdir().expect("a folder can be made");
    let shop = data.path().join("shop.db").to_string_lossy().into_owned();
    let url = node.url("");
    let said = Command::new(example, &[&url, &shop, "19.90", "5"]).run().ok();
    assert_eq!(said.matches(" is durable\n").count(), 2, "{said}");
    let said = Command::new(example, &[&url, &shop, "7"]).run().ok();
    assert_eq!(said.matches(" is durable\n").count(), 1, "what had left is not published again");
    let value = Command::new(binary, &["get", "order:1", "--url", &url]).run().ok();
    assert!(value.contains("19.90"), "{value}");
}

/// JSON from a script, where Node.js is there to run it.
pub fn script(binary: &str, script: &Path) {
    let Some(options) = node_js() else { return };
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut args = options;
    let (script, url) = (script.to_string_lossy().into_owned(), node.url(""));
    args.extend([script.as_str(), url.as_str()]);
    let said = Command::new("node", &args).run().ok();
    assert!(said.contains("is durable"), "{said}");
    assert!(said.contains(r#"= {"amount":1} from aws"#), "{said}");
}

/// The script of the page, with a document that keeps what it is told.
pub fn page(binary: &str, page: &Path) {
    let Some(mut args) = node_js() else { return };
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut app = App::connect(&node, "client=shop&keys=");
    app.publish(&Message::state("m-1", "order:1", r#"{"amount":1.10}"#));
    let text = std::fs::read_to_string(page).expect("the page is there");
    let script = text.split("<script>").nth(1).and_then(|rest| rest.split("</script>").next());
    let script = script.expect("the page has a script");
    let address = node.url("");
    let address = address.trim_end_matches(['/', '?']);
    assert!(script.contains("ws://127.0.0.1:7400"), "the page names the default address");
    let document = "
        const said = { '#state': { textContent: '' }, '#orders': { rows: [], appendChild(row) {
            this.rows.push(row); return row; } } };
        globalThis.document = { querySelector: (id) => said[id], createElement: () => ({}) };
        setInterval(() => {
            if (said['#state'].textContent.includes('in sync')) {
                console.log(said['#state'].textContent, said['#orders'].rows[0].textContent);
                process.exit(0);
            }
        }, 10);
    ";
    let program = format!("{document}{}", script.replace("ws://127.0.0.1:7400", address));
    args.extend(["-e", program.as_str()]);
    let said = Command::new("node", &args).run().ok();
    assert_eq!(said, "at aws, in sync order:1 {\"amount\":1.1}\n");
}

/// What Node.js has to be told to have a WebSocket; `None` if it has none, or is not there.
fn node_js() -> Option<Vec<&'static str>> {
    let has_socket = |args: &[&str]| {
        let mut probe = process::Command::new("node");
        let done = probe.args(args).args(["-e", "process.exit(globalThis.WebSocket ? 0 : 1)"]);
        done.output().is_ok_and(|done| done.status.success())
    };
    let choices = [vec![], vec!["--experimental-websocket"]];
    let found = choices.into_iter().find(|args| has_socket(args));
    if found.is_none() {
        announce("SKIPPED the scripts among the examples: there is no Node.js with WebSocket");
    }
    found
}
