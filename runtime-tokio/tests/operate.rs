//! Configuration, command line, admin endpoint, metrics, logs and signals.

use slipstream_tests::scenarios::{addresses, configuring, differing, leaving, operating, probing};

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

#[test]
fn a_wrong_key_is_named() {
    configuring::a_wrong_key_is_named(SLIPSTREAM);
}

#[test]
fn a_wrong_value_is_named() {
    configuring::a_wrong_value_is_named(SLIPSTREAM);
}

#[test]
fn check_prints_what_counts() {
    configuring::check_prints_what_counts(SLIPSTREAM);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    configuring::exit_codes_tell_what_went_wrong(SLIPSTREAM);
}

#[test]
fn publishing_by_hand() {
    configuring::publishing_by_hand(SLIPSTREAM);
}

// keeps: metrics
#[test]
fn every_metric_is_there() {
    operating::every_metric_is_there(SLIPSTREAM);
}

#[test]
fn where_a_message_is() {
    operating::where_a_message_is(SLIPSTREAM);
}

// keeps: diff-command
#[test]
fn the_keys_on_which_two_nodes_differ() {
    differing::the_keys_on_which_two_nodes_differ(SLIPSTREAM);
}

// keeps: rollback-noticed
#[test]
fn an_older_copy_that_lived_on_alone() {
    differing::an_older_copy_that_lived_on_alone(SLIPSTREAM);
}

// keeps: diff-command
#[test]
fn one_key_among_many() {
    differing::one_key_among_many(SLIPSTREAM);
}

#[test]
fn probes_and_status() {
    operating::probes_and_status(SLIPSTREAM);
}

#[test]
fn dead_letters_by_hand() {
    operating::dead_letters_by_hand(SLIPSTREAM);
}

// keeps: reload
#[test]
fn a_reload_is_all_or_nothing() {
    operating::a_reload_is_all_or_nothing(SLIPSTREAM);
}

// keeps: peer-session-end
#[test]
fn a_peer_that_moves_while_it_is_away() {
    operating::a_peer_that_moves_while_it_is_away(SLIPSTREAM);
}

// keeps: no-secrets
#[test]
fn the_log_level_changes_and_values_stay_out() {
    operating::the_log_level_changes_and_values_stay_out(SLIPSTREAM);
}

// keeps: memory-bounds
#[test]
fn an_idle_node_is_small() {
    operating::an_idle_node_is_small(SLIPSTREAM);
}

// keeps: unread-log
#[test]
fn nobody_reads_standard_error() {
    operating::nobody_reads_standard_error(SLIPSTREAM);
}

// keeps: unread-log
#[test]
fn nobody_reads_why_it_does_not_start() {
    operating::nobody_reads_why_it_does_not_start(SLIPSTREAM);
}

// keeps: happy-eyeballs
#[test]
fn a_peer_whose_first_address_is_silent() {
    addresses::a_peer_whose_first_address_is_silent(SLIPSTREAM);
}

// keeps: happy-eyeballs
#[test]
fn commands_and_a_silent_first_address() {
    addresses::commands_and_a_silent_first_address(SLIPSTREAM);
}

// keeps: happy-eyeballs
#[test]
fn an_operator_is_told_each_address() {
    addresses::an_operator_is_told_each_address(SLIPSTREAM);
}

// keeps: own-address
#[test]
fn one_list_of_peers_for_three_nodes() {
    operating::one_list_of_peers_for_three_nodes(SLIPSTREAM);
}

// keeps: unread-log
#[test]
fn silent_admin_connections() {
    operating::silent_admin_connections(SLIPSTREAM);
}

// keeps: unread-log
#[test]
fn admin_readers_that_do_not_read() {
    operating::admin_readers_that_do_not_read(SLIPSTREAM);
}

// keeps: probes
#[test]
fn a_start_that_takes_long() {
    probing::a_start_that_takes_long(SLIPSTREAM);
}

// keeps: probes
#[test]
fn a_disk_that_hangs() {
    probing::a_disk_that_hangs(SLIPSTREAM);
}

// keeps: probes
#[test]
fn a_signal_during_a_long_start() {
    probing::a_signal_during_a_long_start(SLIPSTREAM);
}

// keeps: admin-memory
#[test]
fn dead_letters_page_by_page() {
    probing::dead_letters_page_by_page(SLIPSTREAM);
}

// keeps: admin-memory
#[test]
fn large_dead_letters() {
    probing::large_dead_letters(SLIPSTREAM);
}

#[test]
fn commands_end_with_close_code_1000() {
    leaving::commands_end_with_close_code_1000(SLIPSTREAM);
}

// keeps: client-publish
#[test]
fn a_pub_whose_node_is_killed_goes_on_or_tells() {
    leaving::a_pub_whose_node_is_killed_goes_on_or_tells(SLIPSTREAM);
}
