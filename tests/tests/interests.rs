//! Applications that receive nothing of what is published cost the others next to nothing (P5, P8).

use std::time::Duration;

use serde_json::Value;
use slipstream_core::config::Config;
use slipstream_core::ids::{LinkId, NodeId};
use slipstream_core::io::Input;
use slipstream_core::tags::TagSet;
use slipstream_tests::world::World;

fn handed(world: &mut World, link: LinkId) -> Vec<String> {
    world.settle();
    let frames = world.said(link);
    let deliveries = frames.iter().filter(|frame| frame["deliveryId"].is_u64());
    deliveries.map(|frame| frame["messageId"].as_str().expect("an id").to_owned()).collect()
}

fn ack(world: &mut World, link: LinkId, frames: &[Value]) {
    for frame in frames.iter().filter(|frame| frame["deliveryId"].is_u64()) {
        world.text(link, &format!(r#"{{"type":"ACK","deliveryId":{}}}"#, frame["deliveryId"]));
    }
    world.settle();
}

fn publish(world: &mut World, till: LinkId, prefix: &str, count: u64) {
    for number in 0..count {
        world.publish(till, &format!("{prefix}{number}"), &format!("{prefix}{number}"), "1");
        world.settle();
    }
}

/// How often the node has written the record of a session.
fn writes(world: &World, session: &str) -> usize {
    let name = format!("name: {session:?}");
    world.trace.iter().map(|line| line.matches(&name).count()).sum()
}

// keeps: interest-index
#[test]
fn sessions_without_interest_are_passed_over_unwritten() {
    let mut world = World::new("aws");
    let orders = world.connect("client=orders&keys=order:");
    let stock = world.connect("client=stock&keys=inv:,inv:a");
    let till = world.connect("client=till&keys=");
    world.pass(Duration::from_secs(1));
    let before = writes(&world, "app:stock");

    publish(&mut world, till, "order:", 50);
    world.pass(Duration::from_secs(1));
    let frames = world.said(orders);
    ack(&mut world, orders, &frames);
    world.pass(Duration::from_secs(1));
    assert_eq!(writes(&world, "app:stock"), before, "nothing of it has changed");
    assert!(writes(&world, "app:orders") > 0);
    let status = world.status();
    let of = |name: &str| status.sessions.iter().find(|session| session.name == name);
    assert_eq!(of("app:stock").map(|session| session.behind), Some(0));

    publish(&mut world, till, "inv:", 1);
    assert_eq!(handed(&mut world, stock), ["inv:0"]);
    assert_eq!(handed(&mut world, orders), Vec::<String>::new());

    // What it skipped is none of its business after a restart either.
    world.crash();
    let stock = world.connect("client=stock&keys=inv:,inv:a");
    assert_eq!(handed(&mut world, stock), ["inv:0"], "it was not acknowledged");
}

// keeps: interest-index
#[test]
fn nothing_is_skipped_where_tags_or_prefixes_fit() {
    let mut world = World::new("aws");
    let till = world.connect("client=till&keys=");
    let tagged = world.connect("client=tagged&tags=cards&replay=new");
    let nested = world.connect("client=nested&keys=o,order:,order:1&replay=new");
    let everything = world.connect("client=everything&replay=new");
    let follower = world.connect("replay=new");
    world.settle();
    let publish = |world: &mut World, id: &str, key: &str, tags: &str| {
        let frame = r#"{"type":"SK","messageId":"ID","key":"KEY","value":1,"targetedTags":[TAGS]}"#;
        let frame = frame.replace("ID", id).replace("KEY", key).replace("TAGS", tags);
        world.text(till, &frame);
        world.settle();
    };
    publish(&mut world, "m-1", "order:1", "");
    publish(&mut world, "m-2", "order:2", r#""cards""#);
    publish(&mut world, "m-3", "inv:1", r#""cards","loans""#);
    publish(&mut world, "m-4", "oak", "");
    assert_eq!(handed(&mut world, tagged), ["m-1", "m-2", "m-3", "m-4"]);
    assert_eq!(handed(&mut world, nested), ["m-1", "m-4"]);
    assert_eq!(handed(&mut world, everything), ["m-1", "m-4"]);
    assert_eq!(handed(&mut world, follower), ["m-1", "m-4"]);

    let tags = TagSet::new(["loans"]).expect("tags");
    world.give(Input::Reconfigure { peers: Vec::new(), tags });
    world.settle();
    world.said(follower);
    publish(&mut world, "m-5", "inv:2", r#""loans""#);
    assert_eq!(handed(&mut world, follower), ["m-5"], "it follows the tags of its node");
    assert_eq!(handed(&mut world, tagged), Vec::<String>::new());
}

// keeps: interest-index
#[test]
fn a_prefix_that_fits_is_no_interest_where_no_tag_does() {
    let mut world = World::new("aws");
    let till = world.connect("client=till&keys=");
    let bank = world.connect("client=bank&keys=order:&tags=bank&replay=new");
    world.pass(Duration::from_secs(1));
    let before = writes(&world, "app:bank");
    let frame =
        r#"{"type":"SK","messageId":"m-1","key":"order:1","value":1,"targetedTags":["TAG"]}"#;
    world.text(till, &frame.replace("TAG", "shop"));
    world.pass(Duration::from_secs(1));
    assert_eq!(writes(&world, "app:bank"), before, "it was passed over");
    assert_eq!(handed(&mut world, bank), Vec::<String>::new());
    world.text(till, &frame.replace("m-1", "m-2").replace("TAG", "bank"));
    assert_eq!(handed(&mut world, bank), ["m-2"]);
}

#[test]
fn a_long_skip_is_written_before_it_must_be_walked_again() {
    let mut world = World::new("aws");
    world.connect("client=stock&keys=inv:");
    let till = world.connect("client=till&keys=");
    world.pass(Duration::from_secs(1));
    let before = writes(&world, "app:stock");
    for number in 0..17_000 {
        world.publish(till, &format!("m-{number}"), &format!("order:{}", number % 10), "1");
        if number % 500 == 0 {
            world.settle();
        }
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(writes(&world, "app:stock"), before + 1);
}

#[test]
fn a_quiet_session_that_was_connected_outlives_a_crash() {
    let mut config = Config::new(NodeId::new("aws").expect("a good name"));
    config.store.session_ttl = Duration::from_secs(80);
    let mut world = World::with(config);
    let stock = world.connect("client=stock&keys=inv:");
    let till = world.connect("client=till&keys=");
    world.settle();
    for number in 0..200 {
        world.publish(till, &format!("m-{number}"), "order:1", "1");
        world.pass(Duration::from_secs(1));
    }
    world.said(stock);
    world.crash();
    world.pass(Duration::from_secs(1));
    let stock = world.connect("client=stock&keys=inv:");
    world.settle();
    assert_eq!(world.said(stock)[0]["resumed"], true, "it was there until a moment ago");
}
