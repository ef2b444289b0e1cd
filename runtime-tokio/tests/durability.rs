//! `kill -9`: receipts are honoured; and a store that is bounded.

use slipstream_tests::scenarios::{durability, storing};

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: commit-first
#[test]
fn nodes_killed_under_load() {
    durability::killed_under_load(SLIPSTREAM);
}

// keeps: commit-first
#[test]
fn a_node_killed_on_the_receipt() {
    durability::killed_on_the_receipt(SLIPSTREAM);
}

// keeps: commit-synced
#[test]
fn without_syncing_the_receipt_says_so() {
    durability::without_syncing_the_receipt_says_so(SLIPSTREAM);
}

// keeps: full-store
#[test]
fn a_full_store_refuses_and_recovers() {
    storing::a_full_store_refuses_and_recovers(SLIPSTREAM);
}

// keeps: history-only
#[test]
fn history_is_bounded() {
    storing::history_is_bounded(SLIPSTREAM);
}

// keeps: forgotten-events
#[test]
fn what_no_peer_came_for_is_a_dead_letter() {
    storing::what_no_peer_came_for_is_a_dead_letter(SLIPSTREAM);
}

// keeps: one-process
#[test]
fn a_data_directory_has_one_daemon() {
    storing::a_data_directory_has_one_daemon(SLIPSTREAM);
}
