//! Receipts that are given again, whatever the wall clock says (P9).

use std::time::Duration;

use serde_json::Value;
use slipstream_core::config::Config;
use slipstream_core::ids::NodeId;
use slipstream_core::time::WallMs;
use slipstream_tests::world::World;

const HOUR: Duration = Duration::from_secs(60 * 60);
const YEAR_MS: i64 = 366 * 24 * 60 * 60 * 1000;

fn world() -> World {
    World::with(Config::new(NodeId::new("a").expect("a good name")))
}

/// The node ends, and starts when its wall clock has moved by so much.
fn restart(world: &mut World, by_ms: i64) {
    world.now.wall = WallMs(world.now.wall.0.saturating_add_signed(by_ms));
    world.crash();
    world.pass(Duration::ZERO);
}

/// What the node answers to this command of the till.
fn publish(world: &mut World, id: &str) -> Value {
    let till = world.connect("client=till-1&keys=");
    world.settle();
    world.text(till, &format!(r#"{{"type":"CMD","messageId":"{id}","key":"k","value":1}}"#));
    world.settle();
    let answer = world.said(till).pop().expect("an answer");
    world.lose(till);
    answer
}

fn version(world: &mut World, id: &str) -> String {
    let answer = publish(world, id);
    assert_eq!(answer["type"], "ACK", "{answer}");
    answer["version"].to_string()
}

// keeps: idempotent
#[test]
fn a_clock_that_is_set_right_costs_no_receipt() {
    for off_ms in [-3 * YEAR_MS, 3 * YEAR_MS] {
        let mut world = world();
        let before = version(&mut world, "m-1");
        // A life by a wrong clock, and two by the right one again.
        restart(&mut world, off_ms);
        assert_eq!(version(&mut world, "m-1"), before, "{off_ms}");
        let by_wrong_clock = (off_ms > 0).then(|| version(&mut world, "m-2"));
        for by_ms in [-off_ms, 0] {
            restart(&mut world, by_ms);
            assert_eq!(version(&mut world, "m-1"), before, "{off_ms}");
            if let Some(given) = &by_wrong_clock {
                assert_eq!(&version(&mut world, "m-2"), given, "{off_ms}");
            }
        }
    }
}

// keeps: idempotent
#[test]
fn a_first_life_by_a_clock_that_is_behind_costs_no_receipt() {
    let mut world = world();
    restart(&mut world, -3 * YEAR_MS);
    let before = version(&mut world, "m-1");
    restart(&mut world, 3 * YEAR_MS);
    assert_eq!(version(&mut world, "m-1"), before);
}

// keeps: idempotent
#[test]
fn the_hours_of_a_node_that_is_down_count() {
    let mut world = world();
    let before = version(&mut world, "m-1");
    restart(&mut world, 8 * HOUR.as_millis() as i64);
    world.pass(15 * HOUR);
    assert_eq!(version(&mut world, "m-1"), before, "after 23 hours");
    world.pass(2 * HOUR);
    assert_ne!(version(&mut world, "m-1"), before, "after 25 hours");
}
