//! Who may connect, and how connections end.

use slipstream_tests::scenarios::connecting;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: foreign-pages
#[test]
fn a_foreign_page_is_refused() {
    connecting::a_foreign_page_is_refused(SLIPSTREAM);
}

// keeps: foreign-pages
#[test]
fn the_admin_endpoint_knows_its_name() {
    connecting::the_admin_endpoint_knows_its_name(SLIPSTREAM);
}

#[test]
fn a_bad_query_is_closed_with_its_reason() {
    connecting::a_bad_query_is_closed_with_its_reason(SLIPSTREAM);
}

#[test]
fn subprotocols_are_confirmed_or_refused() {
    connecting::subprotocols_are_confirmed_or_refused(SLIPSTREAM);
}

#[test]
fn a_session_is_taken_over() {
    connecting::a_session_is_taken_over(SLIPSTREAM);
}

// keeps: memory-bounds
#[test]
fn connections_are_bounded() {
    connecting::connections_are_bounded(SLIPSTREAM);
}

#[test]
fn ending_is_announced() {
    connecting::ending_is_announced(SLIPSTREAM);
}

#[test]
fn a_burst_waits_in_the_listen_queue() {
    connecting::a_burst_waits_in_the_listen_queue(SLIPSTREAM);
}
