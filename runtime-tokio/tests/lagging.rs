//! Peers and applications that do not keep up.

use slipstream_tests::scenarios::lagging;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: outbox-bound
#[test]
fn away_for_three_hundred_thousand_updates() {
    lagging::away_for_three_hundred_thousand_updates(SLIPSTREAM);
}

// keeps: conflate-on-request
#[test]
fn conflated_on_request() {
    lagging::conflated_on_request(SLIPSTREAM);
}

// keeps: full-nodes-drain
#[test]
fn two_full_nodes_drain_each_other() {
    lagging::two_full_nodes_drain_each_other(SLIPSTREAM);
}
