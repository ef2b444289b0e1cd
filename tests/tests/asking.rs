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

// keeps: lenient-forms
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

/// An application that publishes nothing and is owed nothing.
fn silent(world: &mut World) -> LinkId {
    greeting(world, "keys=").0
}

fn err(world: &mut World, link: LinkId, times: u32) {
    (0..times).for_each(|_| world.text(link, "{"));
}

fn is_open(world: &World, link: LinkId) -> bool {
    !world.closed.contains_key(&link)
}

const READ: &str = r#"{"type":"GK","key":"k"}"#;

// keeps: error-budget
#[test]
fn a_read_that_is_answered_ends_a_row_of_errors() {
    let mut world = World::new("a");
    let link = silent(&mut world);
    // Also when what follows it has come before its answer.
    for _ in 0..3 {
        err(&mut world, link, 99);
        world.text(link, READ);
        err(&mut world, link, 1);
        world.settle();
        world.text(link, READ);
        world.settle();
    }
    assert!(is_open(&world, link));
    // But it ends no row that follows it.
    world.text(link, READ);
    err(&mut world, link, 100);
    world.settle();
    assert_eq!(world.closed[&link].code, CloseCode::Limit);
    let said = world.said(link);
    assert_eq!(said.last().map(|frame| &frame["type"]), Some(&"ERR".into()));
}

// keeps: error-budget
#[test]
fn a_read_that_is_refused_is_one_error_in_its_row() {
    let refused = r#"{"type":"GA","key":"k"}"#;
    for (before, after, is_over) in [(49, 50, true), (49, 49, false), (99, 0, true), (0, 99, true)]
    {
        let mut world = World::new("a");
        let link = silent(&mut world);
        world.publish(link, "m-1", "k", "1");
        world.settle();
        err(&mut world, link, before);
        world.text(link, refused);
        err(&mut world, link, after);
        world.settle();
        assert_eq!(is_open(&world, link), !is_over, "{before} and {after}");
    }
    // A row of refused reads, each known to be one after the next has come, is a row.
    let mut world = World::new("a");
    let link = silent(&mut world);
    world.publish(link, "m-1", "k", "1");
    world.settle();
    (0..100).for_each(|_| world.text(link, refused));
    world.settle();
    assert_eq!(world.closed[&link].code, CloseCode::Limit);
    // One that is interrupted is none.
    let link = silent(&mut world);
    err(&mut world, link, 98);
    world.text(link, refused);
    world.publish(link, "m-2", "k", "2");
    err(&mut world, link, 98);
    world.settle();
    assert!(is_open(&world, link));
}

// keeps: answers-before-close
#[test]
fn receipts_leave_before_the_close_for_a_broken_frame() {
    let mut world = World::new("a");
    let binary = world.link(Protocol::Postcard, None, "keys=");
    world.binary(binary, Wire::Connect(Connect { protocol: 1 }).encode());
    world.settle();
    world.frames(binary);
    let mut writer = FrameWriter::new(BatchKind::Publish);
    let (kind, id, key) = (Kind::Sk, "m-1", "k");
    writer.push(&Publish { kind, id, key, tags: "", ttl_ms: 0, body: "1" });
    world.binary(binary, writer.finish());
    world.binary(binary, Bytes::from_static(b"nonsense"));
    world.binary(binary, Bytes::from_static(b"more"));
    let text = silent(&mut world);
    world.publish(text, "m-2", "k", "2");
    let broken = Frame::Text(Bytes::from_static(b"\xff"));
    world.give(Input::Received { link: text, frame: broken });
    world.publish(text, "m-3", "k", "3");
    world.settle();
    assert_eq!(world.closed[&binary].code, CloseCode::Protocol);
    assert_eq!(world.frames(binary).len(), 1, "the receipt");
    assert_eq!(world.closed[&text].code, CloseCode::Protocol);
    let said = world.said(text);
    let ids: Vec<_> = said.iter().map(|frame| (&frame["type"], &frame["messageId"])).collect();
    assert_eq!(ids, [(&"ACK".into(), &"m-2".into())], "and nothing behind the broken frame");
}

// keeps: answers-before-close
#[test]
fn a_broken_connection_does_not_wait_for_ever() {
    let mut world = World::new("a");
    let link = silent(&mut world);
    world.publish(link, "m-1", "k", "1");
    let broken = Frame::Text(Bytes::from_static(b"\xff"));
    world.give(Input::Received { link, frame: broken });
    // The store does not answer.
    assert!(is_open(&world, link));
    world.now.instant = world.now.instant + Duration::from_secs(5);
    world.give(Input::Timer);
    assert_eq!(world.closed[&link].code, CloseCode::Protocol);
}
