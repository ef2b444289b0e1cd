//! Applications: what they ask for when they connect, and what their errors lead to.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use slipstream_core::ids::LinkId;
use slipstream_core::io::{CloseCode, Frame, Input, Protocol};
use slipstream_core::message::Kind;
use slipstream_core::wire::{BatchKind, Connect, FrameWriter, Publish, Wire};
use slipstream_tests::world::World;

/// The greeting of an application that connects with this query string.
fn greeting(world: &mut World, query: &str) -> (LinkId, Value) {
    let link = world.connect(query);
    world.settle();
    let said = world.said(link);
    let greeting = said.into_iter().find(|frame| frame["type"] == "WELCOME");
    (link, greeting.unwrap_or_else(|| panic!("{query}: {:?}", world.closed.get(&link))))
}

fn in_force(greeting: &Value) -> [&Value; 5] {
    ["tags", "keys", "replay", "ack", "conflate"].map(|field| &greeting[field])
}

#[test]
fn a_greeting_says_what_is_in_force() {
    let mut world = World::new("a");
    let (_, bare) = greeting(&mut world, "");
    assert_eq!(
        in_force(&bare),
        [&json!([]), &json!(null), &"new".into(), &"auto".into(), &false.into()]
    );
    let (_, publisher) = greeting(&mut world, "keys=");
    assert_eq!(publisher["keys"], json!([]));
    let query = "client=pi-1&tags=b&tags=a&keys=order%3A%2Cinv%3A&key=x%2Cy&conflate=true";
    let (_, named) = greeting(&mut world, query);
    assert_eq!(named["tags"], json!(["a", "b"]));
    assert_eq!(named["keys"], json!(["inv:", "order:", "x,y"]));
    assert_eq!(named["replay"], "all");
    assert_eq!((&named["ack"], &named["conflate"]), (&"manual".into(), &true.into()));
}

#[test]
fn a_session_that_resumes_is_told_how_it_began() {
    let mut world = World::new("a");
    // Before there is anything, and when there is something.
    for round in ["first", "second"] {
        for (asked, other) in [("all", "new"), ("new", "all")] {
            let query = |replay| format!("client={round}-{asked}&replay={replay}");
            let (link, created) = greeting(&mut world, &query(asked));
            assert_eq!(created["replay"], asked, "{round}");
            world.lose(link);
            let (link, resumed) = greeting(&mut world, &query(other));
            assert_eq!((&resumed["resumed"], &resumed["replay"]), (&true.into(), &asked.into()));
            world.lose(link);
            world.settle();
            world.crash();
            let (link, restarted) = greeting(&mut world, &query(other));
            assert_eq!(restarted["replay"], asked, "{round}");
            world.lose(link);
        }
        let (till, _) = greeting(&mut world, "keys=");
        world.publish(till, round, "order:1", "1");
        world.settle();
    }
}

#[test]
fn a_prefix_that_was_given_in_any_way_receives_its_keys() {
    let mut world = World::new("a");
    let queries = ["keys=order%3A%2Cinv%3A", "keys=inv:&keys=order%3A", "key=order:"];
    let displays = queries.map(|query| greeting(&mut world, query).0);
    let (till, _) = greeting(&mut world, "keys=");
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    for display in displays {
        assert!(world.said(display).iter().any(|frame| frame["messageId"] == "m-1"));
    }
}
