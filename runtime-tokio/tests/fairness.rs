//! Alone in its file, so that no other test runs beside the measurement.

use slipstream_tests::scenarios::fairness;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: slow-peers
#[test]
fn who_does_not_read_costs_the_others_nothing() {
    fairness::who_does_not_read_costs_the_others_nothing(SLIPSTREAM);
}
