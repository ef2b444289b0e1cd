//! Real faults: calls that fail, kills, links and disks that misbehave, clocks that move.
//!
//! What needs strace, libfaketime or root is skipped where it is missing, with a line on standard
//! error that begins with `SKIPPED`; with `SLIPSTREAM_TESTS_REQUIRE=all` that is a failure.
//! `SLIPSTREAM_TESTS_SEED` repeats what was drawn.

use slipstream_tests::scenarios::faults;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: kill-anywhere
#[test]
fn a_node_killed_at_every_step() {
    faults::crash::at_every_step_of_one_node(SLIPSTREAM);
}

// keeps: kill-anywhere
#[test]
fn a_node_killed_while_its_store_is_made() {
    faults::crash::while_the_store_is_made(SLIPSTREAM);
}

// keeps: kill-anywhere
#[test]
fn nodes_killed_at_every_step_of_forwarding() {
    faults::crash::at_every_step_of_forwarding(SLIPSTREAM);
}

// keeps: io-error-exit
#[test]
fn an_io_error_ends_the_node() {
    faults::sync::an_io_error_ends_the_node(SLIPSTREAM);
}

// keeps: io-error-exit
#[test]
fn writes_without_room_refuse_and_go_on() {
    faults::sync::without_room_it_refuses_and_goes_on(SLIPSTREAM);
}

// keeps: kill-anywhere
#[test]
fn a_storm_of_kills() {
    faults::storm::of_kills(SLIPSTREAM);
}

// keeps: kill-anywhere
#[test]
fn kills_during_recovery() {
    faults::storm::of_kills_during_recovery_alone(SLIPSTREAM);
}

// keeps: link-recovers
#[test]
fn a_link_that_fails_in_every_way() {
    faults::links::that_fail_in_every_way(SLIPSTREAM);
}

// keeps: link-recovers
#[test]
fn a_link_that_never_lives_long() {
    faults::links::that_never_live_long(SLIPSTREAM);
}

// keeps: link-recovers
#[test]
fn a_node_that_hangs_catches_up() {
    faults::hang::longer_than_the_heartbeat(SLIPSTREAM);
}

// keeps: time-to-live
#[test]
fn wall_clocks_that_are_apart() {
    faults::clock::that_are_apart(SLIPSTREAM);
}

// keeps: clock-moves
#[test]
fn a_wall_clock_that_moves() {
    faults::clock::that_moves(SLIPSTREAM);
}

// keeps: untimely-versions
#[test]
fn a_wall_clock_that_was_far_ahead_once() {
    faults::clock::that_was_far_ahead_once(SLIPSTREAM);
}

// keeps: descriptors
#[test]
fn descriptors_are_exhausted() {
    faults::descriptors::exhausted(SLIPSTREAM);
}

// keeps: descriptors
#[test]
fn descriptors_are_freed() {
    faults::descriptors::freed_by_others(SLIPSTREAM);
}

// keeps: peers-get-in
#[test]
fn applications_leave_descriptors_for_peers() {
    faults::descriptors::applications_leave_some(SLIPSTREAM);
}

// keeps: descriptors
#[test]
fn lack_of_descriptors_and_ports_is_named_at_start() {
    faults::descriptors::named_at_start(SLIPSTREAM);
}

// keeps: io-error-exit
#[test]
fn a_disk_that_is_full() {
    faults::disk::that_is_full(SLIPSTREAM);
}

// keeps: full-disk
#[test]
fn a_full_disk_gives_history_back() {
    faults::disk::gives_history_back(SLIPSTREAM);
}

#[test]
fn a_read_only_mount_is_named_with_its_owner() {
    faults::files::on_a_read_only_mount(SLIPSTREAM);
}

// keeps: files-in-place
#[test]
fn a_directory_made_anew_is_served_by_a_second_node_alone() {
    faults::files::made_anew_for_a_second_node(SLIPSTREAM);
}

// keeps: files-in-place
#[test]
fn files_that_are_taken_away_end_the_node() {
    faults::files::that_are_taken_away(SLIPSTREAM);
}

// keeps: foreign-file
#[test]
fn a_file_that_is_not_ours() {
    faults::damage::a_file_that_is_not_ours(SLIPSTREAM);
}

// keeps: store-owner
#[test]
fn a_database_that_needs_a_word() {
    faults::damage::a_database_that_needs_a_word(SLIPSTREAM);
}

// keeps: foreign-file
#[test]
fn a_wrong_byte_is_never_handed_over() {
    faults::damage::a_byte_that_is_wrong(SLIPSTREAM);
}

// keeps: foreign-file
#[test]
fn an_older_copy_comes_back() {
    faults::damage::an_older_copy_comes_back(SLIPSTREAM);
}

// keeps: twins
#[test]
fn two_nodes_on_copies_of_a_directory() {
    faults::twins::on_a_copied_directory(SLIPSTREAM);
}

// keeps: signs-of-life
#[test]
fn slow_links_that_carry_a_large_value() {
    faults::slow::that_carry_a_large_value(SLIPSTREAM);
}
