//! Keys that hold sets of weights, are deleted, and are read.

use slipstream_tests::scenarios::reading;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

#[test]
fn what_is_set_is_read_as_it_was_written() {
    reading::what_is_set_is_read_as_it_was_written(SLIPSTREAM);
}

// keeps: tombstones
#[test]
fn a_deleted_key_is_not_found_anywhere() {
    reading::a_deleted_key_is_not_found_anywhere(SLIPSTREAM);
}

#[test]
fn a_late_node_learns_of_a_delete() {
    reading::a_late_node_learns_of_a_delete(SLIPSTREAM);
}

// keeps: read-fresh
#[test]
fn a_read_sees_what_was_published_before_it() {
    reading::a_read_sees_what_was_published_before_it(SLIPSTREAM);
}

// keeps: many-reads
#[test]
fn many_reads_of_large_values() {
    reading::many_reads_of_large_values(SLIPSTREAM);
}

// keeps: read-matches
#[test]
fn a_read_is_of_what_matches() {
    reading::a_read_is_of_what_matches(SLIPSTREAM);
}

// keeps: tombstones
#[test]
fn a_restart_forgets_no_delete() {
    reading::a_restart_forgets_no_delete(SLIPSTREAM);
}

#[test]
fn getting_by_hand() {
    reading::getting_by_hand(SLIPSTREAM);
}
