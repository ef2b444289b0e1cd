//! Meshes of real nodes: every destination gets everything once, over any route.

use slipstream_tests::scenarios::{mesh, redundant};

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

// keeps: once-no-loops
#[test]
fn a_ring_of_three() {
    mesh::a_ring_of_three(SLIPSTREAM);
}

// keeps: once-no-loops
#[test]
fn a_full_mesh_of_five() {
    mesh::a_full_mesh_of_five(SLIPSTREAM);
}

// keeps: steady-state
#[test]
fn each_payload_reaches_each_node_once() {
    mesh::each_payload_reaches_each_node_once(SLIPSTREAM);
}

// keeps: nothing-lost
#[test]
fn a_dead_route_is_noticed_and_made_good() {
    mesh::a_dead_route_is_noticed_and_made_good(SLIPSTREAM);
}

// keeps: slow-peers
#[test]
fn a_hanging_node_costs_the_others_nothing() {
    mesh::a_hanging_node_costs_the_others_nothing(SLIPSTREAM);
}

// keeps: tags-any-node
#[test]
fn tags_are_reached_through_any_node() {
    mesh::tags_are_reached_through_any_node(SLIPSTREAM);
}

// keeps: nothing-lost
#[test]
fn a_late_node_is_brought_up_to_date() {
    mesh::a_late_node_is_brought_up_to_date(SLIPSTREAM);
}

// keeps: group-once
#[test]
fn either_of_two_may_be_killed() {
    redundant::either_of_two_may_be_killed(SLIPSTREAM);
}
