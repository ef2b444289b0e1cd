//! Bad frames, and bytes that no friend would send.

use slipstream_tests::scenarios::{frames, hostile};

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: bad-frames
#[test]
fn every_bad_frame_gets_one_error() {
    frames::every_bad_frame_gets_one_error(SLIPSTREAM);
}

#[test]
fn what_is_within_the_limits_is_accepted() {
    frames::what_is_within_the_limits_is_accepted(SLIPSTREAM);
}

#[test]
fn a_binary_frame_is_refused() {
    frames::a_binary_frame_is_refused(SLIPSTREAM);
}

// keeps: bad-frames
#[test]
fn a_hundred_errors_in_a_row_are_enough() {
    frames::a_hundred_errors_in_a_row_are_enough(SLIPSTREAM);
}

#[test]
fn a_frame_far_too_large_ends_the_connection() {
    frames::a_frame_far_too_large_ends_the_connection(SLIPSTREAM);
}

#[test]
fn garbage_instead_of_an_upgrade() {
    hostile::garbage_instead_of_an_upgrade(SLIPSTREAM);
}

// keeps: hostile-input
#[test]
fn half_open_handshakes() {
    hostile::half_open_handshakes(SLIPSTREAM);
}

#[test]
fn broken_framing() {
    hostile::broken_framing(SLIPSTREAM);
}

#[test]
fn text_that_is_not_utf8() {
    hostile::text_that_is_not_utf8(SLIPSTREAM);
}

// keeps: hostile-input
#[test]
fn lengths_that_no_memory_holds() {
    hostile::lengths_that_no_memory_holds(SLIPSTREAM);
}

#[test]
fn endless_fragments() {
    hostile::endless_fragments(SLIPSTREAM);
}

// keeps: hostile-input
#[test]
fn lies_in_binary_frames() {
    hostile::lies_in_binary_frames(SLIPSTREAM);
}

// keeps: hostile-input
#[test]
fn nesting_without_end() {
    hostile::nesting_without_end(SLIPSTREAM);
}

#[test]
fn no_heartbeat_no_connection() {
    hostile::no_heartbeat_no_connection(SLIPSTREAM);
}
