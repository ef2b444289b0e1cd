//! The stories of the built daemon that need no more than its WebSocket, its probes, its status
//! and its metrics, told again of nodes on smol.

use slipstream_tests::scenarios::faults::{hang, links, slow};
use slipstream_tests::scenarios::{
    addresses, away, connecting, durability, frames, hostile, lagging, mesh, order, publishing,
    reading, receiving, redundant, retry, storing,
};

/// The example `daemon`, which Cargo built beside these tests.
fn daemon() -> String {
    let tests = std::env::current_exe().expect("this program has a path");
    let built = tests.ancestors().nth(2).map(|folder| folder.join("examples/daemon"));
    let path = built.filter(|path| path.exists()).unwrap_or_else(|| {
        panic!("the daemon is not built: cargo build -p slipstream-smol --examples");
    });
    path.to_string_lossy().into_owned()
}

/// One test for each story.
macro_rules! stories {
    ($($module:ident { $($story:ident)* })*) => {
        $($(
            #[test]
            fn $story() {
                $module::$story(&daemon());
            }
        )*)*
    };
}

stories! {
    addresses { a_peer_whose_first_address_is_silent }
    away { a_hundred_thousand_messages }
    connecting {
        a_foreign_page_is_refused a_bad_query_is_closed_with_its_reason
        subprotocols_are_confirmed_or_refused a_session_is_taken_over connections_are_bounded
        ending_is_announced a_burst_waits_in_the_listen_queue
    }
    durability { killed_under_load killed_on_the_receipt without_syncing_the_receipt_says_so }
    slow { that_carry_a_large_value }
    hang { longer_than_the_heartbeat }
    links { that_fail_in_every_way that_never_live_long }
    frames {
        every_bad_frame_gets_one_error what_is_within_the_limits_is_accepted
        a_binary_frame_is_refused a_hundred_errors_in_a_row_are_enough
        a_frame_far_too_large_ends_the_connection
    }
    hostile {
        garbage_instead_of_an_upgrade half_open_handshakes broken_framing text_that_is_not_utf8
        lengths_that_no_memory_holds endless_fragments lies_in_binary_frames nesting_without_end
        no_heartbeat_no_connection
    }
    lagging { conflated_on_request two_full_nodes_drain_each_other }
    mesh {
        a_ring_of_three a_full_mesh_of_five each_payload_reaches_each_node_once
        a_dead_route_is_noticed_and_made_good a_hanging_node_costs_the_others_nothing
        tags_are_reached_through_any_node a_late_node_is_brought_up_to_date
    }
    order {
        an_error_waits_for_the_receipts_before_it receipts_and_deliveries_interleave_as_in_the_log
    }
    publishing { publishing_again_is_safe too_fast_is_refused_for_now }
    reading { a_read_sees_what_was_published_before_it many_reads_of_large_values }
    receiving { replay_is_current_state every_way_to_acknowledge }
    redundant { either_of_two_may_be_killed }
    retry { an_older_value_never_comes_again a_message_that_kills_its_consumer }
    storing { history_is_bounded a_data_directory_has_one_daemon }
}
