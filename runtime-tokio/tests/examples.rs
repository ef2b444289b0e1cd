//! The examples do what they say, against the daemon and real files.

use std::path::PathBuf;

use slipstream_tests::scenarios::examples;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

/// A program that Cargo built from `examples/`.
fn example(name: &str) -> String {
    let tests = std::env::current_exe().expect("this program has a path");
    let built = tests.ancestors().nth(2).map(|folder| folder.join("examples").join(name));
    let path = built.filter(|path| path.exists()).unwrap_or_else(|| {
        panic!("{name} is not built: cargo build --workspace --examples");
    });
    path.to_string_lossy().into_owned()
}

fn cents(ledger: &std::path::Path) -> i64 {
    let total = rusqlite::Connection::open(ledger).and_then(|ledger| {
        ledger.query_row("SELECT coalesce(sum(cents), 0) FROM balance", [], |row| row.get(0))
    });
    total.unwrap_or(0)
}

#[test]
fn embed_publishes_receives_and_ends() {
    examples::embed(&example("embed"));
}

#[test]
fn embed_smol_does_the_same() {
    examples::embed(&example("embed_smol"));
}

#[test]
fn client_does_the_same_with_a_node_elsewhere() {
    examples::client(SLIPSTREAM, &example("client"));
}

#[test]
fn a_killed_durable_consumer_applies_each_payment_once() {
    examples::durable_consumer(SLIPSTREAM, &example("durable_consumer"), cents);
}

#[test]
fn outbox_publishes_what_was_committed() {
    examples::outbox(SLIPSTREAM, &example("outbox"));
}

#[test]
fn scripts_publish_and_receive_json() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/web/orders.mjs");
    examples::script(SLIPSTREAM, &script);
}

#[test]
fn the_page_shows_what_it_is_sent() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/web/page.html");
    examples::page(SLIPSTREAM, &page);
}
