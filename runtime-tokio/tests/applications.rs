//! What applications publish, are handed, acknowledge, and find when they come back.

use slipstream_tests::scenarios::{away, order, payments, publishing, receiving, retry};

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: nothing-lost
#[test]
fn away_for_a_hundred_thousand_messages() {
    away::a_hundred_thousand_messages(SLIPSTREAM);
}

#[test]
fn a_session_is_resumed() {
    away::a_session_is_resumed(SLIPSTREAM);
}

#[test]
fn a_forgotten_session_begins_anew() {
    away::a_forgotten_session_begins_anew(SLIPSTREAM);
}

// keeps: answer-order
#[test]
fn an_error_waits_for_the_receipts_before_it() {
    order::an_error_waits_for_the_receipts_before_it(SLIPSTREAM);
}

// keeps: answer-order
#[test]
fn receipts_and_deliveries_interleave_as_in_the_log() {
    order::receipts_and_deliveries_interleave_as_in_the_log(SLIPSTREAM);
}

// keeps: byte-for-byte
#[test]
fn payments_go_through_the_mesh_byte_for_byte() {
    payments::go_through_the_mesh_byte_for_byte(SLIPSTREAM);
}

// keeps: idempotent
#[test]
fn publishing_again_is_safe() {
    publishing::publishing_again_is_safe(SLIPSTREAM);
}

#[test]
fn ids_belong_to_their_session() {
    publishing::ids_belong_to_their_session(SLIPSTREAM);
}

#[test]
fn a_message_without_an_id_is_given_one() {
    publishing::a_message_without_an_id_is_given_one(SLIPSTREAM);
}

#[test]
fn a_client_cannot_forge_what_a_node_stamps() {
    publishing::a_client_cannot_forge_what_a_node_stamps(SLIPSTREAM);
}

#[test]
fn too_fast_is_refused_for_now() {
    publishing::too_fast_is_refused_for_now(SLIPSTREAM);
}

#[test]
fn keys_are_prefixes() {
    receiving::keys_are_prefixes(SLIPSTREAM);
}

#[test]
fn replay_is_current_state() {
    receiving::replay_is_current_state(SLIPSTREAM);
}

#[test]
fn nobody_hears_himself_but_in_a_replay() {
    receiving::nobody_hears_himself_but_in_a_replay(SLIPSTREAM);
}

#[test]
fn every_way_to_acknowledge() {
    receiving::every_way_to_acknowledge(SLIPSTREAM);
}

#[test]
fn an_auto_session_acknowledges_nothing() {
    receiving::an_auto_session_acknowledges_nothing(SLIPSTREAM);
}

// keeps: retry-then-dead
#[test]
fn never_acknowledged_becomes_a_dead_letter() {
    retry::never_acknowledged_becomes_a_dead_letter(SLIPSTREAM);
}

// keeps: node-letters
#[test]
fn an_event_for_nobody_is_a_dead_letter_of_the_node() {
    retry::an_event_for_nobody_is_a_dead_letter_of_the_node(SLIPSTREAM);
}

// keeps: retry-then-dead
#[test]
fn dead_letters_are_replayed_and_purged() {
    retry::dead_letters_are_replayed_and_purged(SLIPSTREAM);
}

#[test]
fn an_application_refuses() {
    retry::an_application_refuses(SLIPSTREAM);
}

// keeps: key-forward
#[test]
fn an_older_value_never_comes_again() {
    retry::an_older_value_never_comes_again(SLIPSTREAM);
}

#[test]
fn an_event_expires() {
    retry::an_event_expires(SLIPSTREAM);
}

// keeps: refusals-kept
#[test]
fn refused_then_all_acknowledged_then_killed() {
    retry::refused_then_all_acknowledged_then_killed(SLIPSTREAM);
}

// keeps: poison-message
#[test]
fn a_message_that_kills_its_consumer() {
    retry::a_message_that_kills_its_consumer(SLIPSTREAM);
}
