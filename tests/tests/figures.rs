//! Figures of the mesh that hold on every machine, because time in it is virtual. The command
//! `figures` measures more and larger meshes.

use slipstream_tests::figures::failures::{killed_links, killed_nodes, stalled_links};
use slipstream_tests::figures::flapping::flapping;
use slipstream_tests::figures::steady::Steady;
use slipstream_tests::figures::{Figure, Shape, Traffic};

fn kept(figures: impl IntoIterator<Item = Figure>) {
    for figure in figures {
        assert!(figure.is_kept(), "{figure}");
    }
}

// keeps: steady-state
#[test]
fn payloads_cross_one_link_a_node_and_offers_are_cheap() {
    for shape in [Shape::full(3), Shape::full(6), Shape::random(16, 3, 1), Shape::random(16, 4, 1)]
    {
        let traffic = Traffic::of(shape.nodes, 4, 1000);
        kept(Steady::measure(&shape, &traffic, 1).figures());
    }
}

// keeps: failover-delay
#[test]
fn with_any_link_killed_messages_arrive_in_time() {
    kept([Shape::full(4), Shape::random(8, 3, 1)].iter().map(killed_links));
}

// keeps: failover-delay
#[test]
fn with_any_node_killed_messages_arrive_in_time() {
    kept([Shape::full(4), Shape::random(8, 3, 1)].iter().map(killed_nodes));
}

// keeps: failover-delay
#[test]
fn a_link_that_stalls_costs_the_offer_delay() {
    kept([Shape::full(4), Shape::random(8, 3, 1)].iter().flat_map(stalled_links));
}

// keeps: flapping-link
#[test]
fn a_flapping_link_costs_bounded_rewinds_and_bytes() {
    kept(flapping(&Shape::random(8, 3, 1), 0, 6));
}
