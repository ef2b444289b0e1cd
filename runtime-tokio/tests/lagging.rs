//! Peers and applications that do not keep up.

use slipstream_tests::scenarios::lagging;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

#[test]
fn away_for_three_hundred_thousand_updates() {
    lagging::away_for_three_hundred_thousand_updates(SLIPSTREAM);
}

#[test]
fn conflated_on_request() {
    lagging::conflated_on_request(SLIPSTREAM);
}

#[test]
fn two_full_nodes_drain_each_other() {
    lagging::two_full_nodes_drain_each_other(SLIPSTREAM);
}
