//! What an application says of deliveries, on one node: each word counts once, what is final stays
//! final, and nothing that was refused is lost (P2, P12, P13).

use std::time::Duration;

use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{DeadLetterId, LinkId, NodeId, Ticket};
use slipstream_core::io::{Frame, Input, Protocol};
use slipstream_core::store::{DeadLetter, StoreFailure};
use slipstream_core::wire::{Connect, Wire};
use slipstream_tests::world::World;

/// Longer than any wait of the first repeats.
const LATER: Duration = Duration::from_secs(15);

fn world(change: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    change(&mut config);
    World::with(config)
}

/// Connects an application, and forgets what it is greeted with.
fn connect(world: &mut World, query: &str) -> LinkId {
    let link = world.connect(query);
    world.settle();
    world.said(link);
    link
}

/// Publishes events, or values of a key each.
fn publish(world: &mut World, kind: &str, ids: &[&str]) {
    let till = connect(world, "keys=");
    for id in ids {
        let frame = format!(r#"{{"type":"{kind}","messageId":"{id}","key":"{id}","value":1}}"#);
        world.text(till, &frame);
    }
    world.settle();
    world.lose(till);
}

/// What was handed over since the last look.
fn handed(world: &mut World, app: LinkId) -> Vec<Value> {
    let said = world.said(app).into_iter();
    said.filter(|frame| frame["deliveryId"].is_u64()).collect()
}

fn ids(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["messageId"].as_str()).collect()
}

/// The errors since the last look.
fn errors(world: &mut World, app: LinkId) -> Vec<String> {
    world.settle();
    let said = world.said(app).into_iter().filter(|frame| frame["type"] == "ERR");
    said.map(|frame| format!("{} {}", frame["code"], frame["message"])).collect()
}

fn letters(world: &mut World) -> Vec<DeadLetter> {
    let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 999 };
    match world.ask(all) {
        AdminAnswer::DeadLetters(letters) => {
            letters.into_iter().map(|(_, letter)| letter).collect()
        }
        other => panic!("a list, not {other:?}"),
    }
}

fn in_flight(world: &mut World) -> usize {
    world.status().sessions.iter().map(|session| session.in_flight).sum()
}

fn ack(delivery: &Value) -> String {
    format!(r#"{{"type":"ACK","deliveryId":{}}}"#, delivery["deliveryId"])
}

fn ack_id(delivery: &Value) -> String {
    format!(r#"{{"type":"ACK","messageId":{}}}"#, delivery["messageId"])
}

fn ack_upto(delivery: &Value) -> String {
    format!(r#"{{"type":"ACK","deliveryId":{},"upTo":true}}"#, delivery["deliveryId"])
}

fn nack(delivery: &Value, action: &str) -> String {
    let id = &delivery["deliveryId"];
    format!(r#"{{"type":"NACK","deliveryId":{id},"action":"{action}","reason":"locked"}}"#)
}

fn nack_id(delivery: &Value, action: &str) -> String {
    let id = &delivery["messageId"];
    format!(r#"{{"type":"NACK","messageId":{id},"action":"{action}","reason":"locked"}}"#)
}

/// An application that refuses one of three deliveries and acknowledges the others.
#[derive(Debug, Clone, Copy)]
struct Case {
    kind: &'static str,
    named: bool,
    action: &'static str,
    by_id: bool,
    which: usize,
    gap: Duration,
    killed: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["CMD", "SK"] {
        for (named, killed) in [(true, false), (true, true), (false, false)] {
            for action in ["retry", "reject"] {
                for by_id in [false, true] {
                    for which in 0..3 {
                        for gap in [0, 300].map(Duration::from_millis) {
                            cases.push(Case { kind, named, action, by_id, which, gap, killed });
                        }
                    }
                }
            }
        }
    }
    cases
}

// keeps: refusals-kept
#[test]
fn a_nack_is_kept_when_a_later_ack_covers_it() {
    for case in cases() {
        let mut world = world(|_| ());
        let query = if case.named { "client=pi-1" } else { "ack=manual" };
        let app = connect(&mut world, query);
        publish(&mut world, case.kind, &["m-0", "m-1", "m-2"]);
        let got = handed(&mut world, app);
        assert_eq!(ids(&got), ["m-0", "m-1", "m-2"]);
        let refused = &got[case.which];
        let frame = if case.by_id { nack_id } else { nack };
        world.text(app, &frame(refused, case.action));
        world.pass(case.gap);
        world.text(app, &ack_upto(&got[2]));
        world.settle();
        let app = if case.killed {
            world.crash();
            connect(&mut world, query)
        } else {
            app
        };
        let letters = letters(&mut world);
        if case.action == "reject" {
            assert_eq!(letters.len(), usize::from(case.named), "{case:?}");
            assert!(letters.iter().all(|letter| letter.last_error == "locked"), "{case:?}");
            assert_eq!(in_flight(&mut world), 0, "{case:?}");
            continue;
        }
        assert!(letters.is_empty(), "{case:?}");
        assert_eq!(in_flight(&mut world), 1, "{case:?}");
        if !case.killed {
            world.pass(LATER);
            let again = handed(&mut world, app);
            assert_eq!(ids(&again[..1]), [refused["messageId"].as_str().unwrap()], "{case:?}");
            assert_eq!(again[0]["redelivery"], 1, "{case:?}");
        }
    }
}

// keeps: refusals-kept
#[test]
fn a_nack_that_comes_late_is_kept_too() {
    for action in ["retry", "reject"] {
        for is_letter in [true, false] {
            let case = format!("{action}, a letter already: {is_letter}");
            let mut world = world(|config| config.retry.max_attempts = 1);
            let app = connect(&mut world, "client=pi-1");
            publish(&mut world, "CMD", &["m-0"]);
            world.pass(Duration::from_secs(4));
            publish(&mut world, "CMD", &["m-1", "m-2"]);
            let got = handed(&mut world, app);
            // The time of the first is over; the store has not found it yet.
            world.now.instant = world.now.instant + Duration::from_secs(2);
            world.give(Input::Timer);
            if is_letter {
                world.settle();
            }
            assert!(world.is_busy() != is_letter, "{case}");
            world.text(app, &nack(&got[0], action));
            world.text(app, &ack_upto(&got[2]));
            world.settle();
            assert_eq!(ids_of_letters(&mut world), ["m-0"], "{case}");
            assert_eq!(in_flight(&mut world), 0, "{case}");
        }
    }
}

// keeps: refusals-kept
#[test]
fn a_rejection_without_a_name_is_final_too() {
    for (by_id, in_one_write) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = world(|_| ());
        let app = connect(&mut world, "ack=manual");
        publish(&mut world, "CMD", &["m-0", "m-1"]);
        let got = handed(&mut world, app);
        let (refused, reject) = (&got[0], if by_id { nack_id } else { nack });
        world.text(app, &reject(refused, "reject"));
        world.text(app, &ack_upto(&got[1]));
        if !in_one_write {
            world.pass(Duration::from_secs(1));
        }
        for frame in
            [ack(refused), ack_id(refused), nack(refused, "retry"), nack_id(refused, "retry")]
        {
            world.text(app, &frame);
        }
        let said = errors(&mut world, app);
        let is_told = |text: &String| {
            text.contains("UNKNOWN_DELIVERY") && text.contains("this delivery is settled")
        };
        assert!(said.len() == 4 && said.iter().all(is_told), "{by_id} {in_one_write}: {said:?}");
        assert_eq!(world.status().counters.rejected["UNKNOWN_DELIVERY"], 4);
        for frame in [nack(refused, "reject"), nack_id(refused, "reject"), ack_upto(refused)] {
            world.text(app, &frame);
        }
        assert!(errors(&mut world, app).is_empty(), "the same word again is no error");
        world.pass(LATER);
        assert!(handed(&mut world, app).is_empty() && letters(&mut world).is_empty());
    }
}

/// When a node is killed that has heard a NACK, and an ACK behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Killed {
    BeforeItsCommit,
    BetweenNackAndAck,
    Later,
}

// keeps: refusals-kept
#[test]
fn a_retry_comes_again_marked_after_a_kill() {
    for kind in ["CMD", "SK"] {
        for which in 0..3 {
            for killed in [Killed::BeforeItsCommit, Killed::BetweenNackAndAck, Killed::Later] {
                let mut world = world(|_| ());
                let app = connect(&mut world, "client=pi-1");
                publish(&mut world, kind, &["m-0", "m-1", "m-2"]);
                let got = handed(&mut world, app);
                world.text(app, &nack(&got[which], "retry"));
                if killed != Killed::BeforeItsCommit {
                    world.pass(Duration::from_secs(1));
                }
                if killed != Killed::BetweenNackAndAck {
                    world.text(app, &ack_upto(&got[2]));
                }
                if killed == Killed::Later {
                    world.settle();
                }
                world.crash();
                let app = world.connect("client=pi-1");
                world.pass(LATER);
                let again = handed(&mut world, app);
                let case = format!("{kind} {which} {killed:?}: {again:?}");
                let expected = match killed {
                    Killed::Later => &["m-0", "m-1", "m-2"][which..=which],
                    Killed::BeforeItsCommit | Killed::BetweenNackAndAck => &["m-0", "m-1", "m-2"],
                };
                let mut ids = ids(&again);
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids, expected, "{case}");
                let is_marked = |frame: &Value| frame["redelivery"].as_u64() >= Some(1);
                assert!(again.iter().all(is_marked), "{case}");
            }
        }
    }
}

// keeps: refusals-kept
#[test]
fn a_reason_of_any_size_or_type_is_in_the_letter() {
    let mut world = world(|_| ());
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["long", "number", "none"]);
    let got = handed(&mut world, app);
    let long = format!("\"a{}\"", "\u{e9}".repeat(50_000));
    for (delivery, reason) in got.iter().zip([&long[..], "7", "null"]) {
        let id = &delivery["deliveryId"];
        let rest = format!(r#""action":"reject","reason":{reason}"#);
        world.text(app, &format!(r#"{{"type":"NACK","deliveryId":{id},{rest}}}"#));
    }
    assert!(errors(&mut world, app).is_empty());
    let said: Vec<_> = letters(&mut world).into_iter().map(|letter| letter.last_error).collect();
    let cut = format!("a{}", "\u{e9}".repeat(2_047));
    assert_eq!(said, [&cut[..], "7", "NACK reject"]);
}

// keeps: refusals-kept
#[test]
fn an_ack_of_a_first_hand_over_leaves_the_second_one() {
    let mut world = world(|_| ());
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["m-0", "m-1"]);
    let got = handed(&mut world, app);
    world.text(app, &nack(&got[0], "retry"));
    world.pass(Duration::from_millis(5_001));
    // The second hand-over of the first is on its way; the application has not seen it.
    world.text(app, &ack_upto(&got[1]));
    world.settle();
    assert_eq!(in_flight(&mut world), 1);
    let again = handed(&mut world, app);
    world.text(app, &ack_upto(&again[0]));
    world.settle();
    assert_eq!(in_flight(&mut world), 0);
}

// keeps: refusals-kept
#[test]
fn a_refusal_that_is_repeated_is_one_attempt() {
    let mut world = world(|config| config.retry.max_attempts = 2);
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["m-0"]);
    let got = handed(&mut world, app);
    for _ in 0..5 {
        world.text(app, &nack(&got[0], "retry"));
    }
    world.pass(Duration::from_secs(6));
    assert_eq!(handed(&mut world, app).len(), 1, "the second of two");
    world.text(app, &nack(&got[0], "retry"));
    world.settle();
    assert_eq!(letters(&mut world)[0].last_error, "locked");
}

// keeps: refusals-kept
#[test]
fn what_is_final_stays_final() {
    let mut world = world(|_| ());
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["m-0", "m-1"]);
    let got = handed(&mut world, app);
    // In one write, before the node has found the message.
    let (first, second) = (&got[0], &got[1]);
    for frame in [nack(first, "reject"), nack(first, "reject"), nack_id(first, "reject")] {
        world.text(app, &frame);
    }
    for frame in [ack(first), ack_id(first), nack(first, "retry"), nack_id(first, "retry")] {
        world.text(app, &frame);
    }
    let said = errors(&mut world, app);
    assert_eq!(said.len(), 4, "{said:?}");
    let names = |text: &String| text.contains("UNKNOWN_DELIVERY") && text.contains("dead letter 1");
    assert!(said.iter().all(names), "{said:?}");
    assert_eq!(letters(&mut world).len(), 1);

    for frame in [ack(second), ack(second), ack_id(second), ack_upto(second)] {
        world.text(app, &frame);
    }
    assert!(errors(&mut world, app).is_empty(), "the same word again is no error");
    for action in ["retry", "reject"] {
        world.text(app, &nack(second, action));
        world.text(app, &nack_id(second, action));
    }
    let said = errors(&mut world, app);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said.iter().all(|text| text.contains("settled")), "{said:?}");
    assert_eq!(letters(&mut world).len(), 1);
}

// keeps: refusals-kept
#[test]
fn whatever_is_said_of_what_a_newer_value_replaced_is_no_error() {
    let mut world = world(|_| ());
    let app = connect(&mut world, "client=pi-1");
    let till = connect(&mut world, "keys=");
    world.publish(till, "m-0", "order:1", "1");
    world.publish(till, "m-1", "order:1", "2");
    world.settle();
    let got = handed(&mut world, app);
    world.pass(Duration::from_millis(5_001));
    assert_eq!(ids(&handed(&mut world, app)), ["m-1"], "the older value does not come again");
    for frame in [ack, ack_id] {
        world.text(app, &frame(&got[0]));
    }
    for action in ["retry", "reject"] {
        world.text(app, &nack(&got[0], action));
        world.text(app, &nack_id(&got[0], action));
    }
    assert!(errors(&mut world, app).is_empty());
    assert!(letters(&mut world).is_empty());
}

// keeps: refusals-kept
#[test]
fn a_rejection_is_final_whatever_becomes_of_the_connection() {
    let mut world = world(|_| ());
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["m-0", "m-1"]);
    let got = handed(&mut world, app);
    world.text(app, &nack(&got[0], "reject"));
    world.lose(app);
    assert!(world.is_busy());
    world.step();
    world.crash();
    assert_eq!(letters(&mut world).len(), 1, "the next commit has said so");
    let app = connect(&mut world, "client=pi-1");
    assert!(in_flight(&mut world) == 1 && letters(&mut world)[0].last_error == "locked");
    // Without a kill nobody has to come back for it.
    world.lose(app);
    let app = world.connect("client=pi-1");
    world.settle();
    let again = handed(&mut world, app);
    assert_eq!(ids(&again), ["m-1"]);
    world.text(app, &nack(&again[0], "reject"));
    world.lose(app);
    world.settle();
    assert_eq!(letters(&mut world).len(), 2);
}

// keeps: letters-at-once
#[test]
fn dead_letters_do_not_wait_for_the_rate_of_repeats() {
    let mut world = world(|config| {
        config.retry.max_rate = 1;
        config.retry.max_attempts = 1;
        config.limits.delivery_window = 4;
    });
    let app = connect(&mut world, "client=pi-1");
    let names: Vec<String> = (0..200).map(|number| format!("m-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    publish(&mut world, "CMD", &names);
    let begun = world.now.instant;
    let mut rejected = 0;
    while rejected < 100 {
        let got = handed(&mut world, app);
        assert!(!got.is_empty(), "the window is open again, after {rejected}");
        for delivery in got {
            world.text(app, &nack(&delivery, "reject"));
            rejected += 1;
        }
        world.settle();
    }
    assert_eq!(world.now.instant, begun, "no time has passed");
    assert_eq!(letters(&mut world).len(), rejected);
    for _ in 0..10 {
        world.pass(Duration::from_millis(5_001));
    }
    assert_eq!(letters(&mut world).len(), rejected + 40, "four at a time, whatever the rate");
}

#[test]
fn what_failed_too_often_waits_for_no_other_input() {
    let mut world = world(|config| {
        config.retry.max_attempts = 1;
        config.retry.ack_timeout = Duration::from_millis(1_300);
    });
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["m-1"]);
    let till = world.connect("keys=");
    world.frames(app);
    world.takes_frames = false;
    let value = "x".repeat(300 << 10);
    world.text(till, &format!(r#"{{"type":"CMD","messageId":"m-2","key":"k","value":"{value}"}}"#));
    world.settle();
    // The time of the first passes while the socket has not taken the second; then that happens,
    // and nothing else.
    world.pass(Duration::from_millis(2_500));
    let is_dead = |event: &Event| matches!(event, Event::DeadLetter { .. });
    assert!(!world.events.iter().any(is_dead));
    let frames = world.frames(app);
    let cost = frames.iter().filter(|frame| !frame.is_control()).map(Frame::cost).sum();
    let asked = |world: &World| world.trace.iter().filter(|line| line.contains("RowsAt")).count();
    let before = asked(&world);
    world.give(Input::Sent { link: app, frames: 1, cost });
    assert_eq!(asked(&world), before + 1, "it waits for something else to happen");
    world.settle();
    assert!(world.events.iter().any(is_dead));
}

/// Connects the application, and answers what it is handed now.
fn connect_and_take(world: &mut World) -> (LinkId, Vec<Value>) {
    let app = world.connect("client=pi-1");
    world.settle();
    let got = handed(world, app);
    (app, got)
}

// keeps: poison-message
#[test]
fn a_message_that_kills_its_consumer_becomes_a_dead_letter() {
    for window in [1, 2, 256] {
        for killed_at in [None, Some(2)] {
            let mut world = world(|config| {
                config.retry.max_attempts = 3;
                config.limits.delivery_window = window;
            });
            let app = connect(&mut world, "client=pi-1");
            world.lose(app);
            publish(&mut world, "CMD", &["good-0", "poison", "good-1", "good-2"]);
            let (mut times, mut done) = (0, Vec::new());
            for round in 0..20 {
                let (app, mut got) = connect_and_take(&mut world);
                while !got.is_empty() {
                    let delivery = got.remove(0);
                    if delivery["messageId"] == "poison" {
                        times += 1;
                        break;
                    }
                    done.push(delivery["messageId"].as_str().unwrap().to_owned());
                    world.text(app, &ack(&delivery));
                    world.settle();
                    got.extend(handed(&mut world, app));
                }
                world.lose(app);
                world.pass(Duration::from_secs(1));
                if Some(round) == killed_at {
                    // Attempts are written down as others are.
                    world.crash();
                }
            }
            assert_eq!(done, ["good-0", "good-1", "good-2"], "window {window}");
            assert!(times <= 4, "{times} times, and the first connection had settled something");
            let letters = letters(&mut world);
            assert_eq!((letters.len(), letters[0].message.id()), (1, "poison"));
            assert!(letters[0].last_error.contains("connection was lost"), "{:?}", letters[0]);
        }
    }
}

// keeps: poison-message
#[test]
fn a_message_that_kills_a_binary_consumer_is_a_dead_letter() {
    let mut world = world(|config| config.retry.max_attempts = 3);
    let app = connect(&mut world, "client=pi-1");
    world.lose(app);
    publish(&mut world, "SK", &["poison", "good"]);
    for _ in 0..3 {
        assert!(letters(&mut world).is_empty());
        let app = world.link(Protocol::Postcard, None, "client=pi-1");
        world.binary(app, Wire::Connect(Connect { protocol: 1 }).encode());
        world.settle();
        world.lose(app);
        world.settle();
    }
    assert_eq!(letters(&mut world)[0].message.id(), "poison");
    assert_eq!(in_flight(&mut world), 1, "nobody but the oldest has failed");
}

// keeps: poison-message
#[test]
fn a_flapping_link_costs_settling_consumers_no_attempt() {
    let mut world = world(|config| config.retry.max_attempts = 2);
    let app = connect(&mut world, "client=pi-1");
    world.lose(app);
    publish(&mut world, "CMD", &["open"]);
    for round in 0..10 {
        publish(&mut world, "CMD", &[&format!("m-{round}")]);
        let (app, got) = connect_and_take(&mut world);
        assert_eq!(got[0]["messageId"], "open");
        world.text(app, &ack(&got[1]));
        world.lose(app);
        world.pass(Duration::from_secs(1));
    }
    assert!(letters(&mut world).is_empty());
}

// keeps: poison-message
#[test]
fn a_connection_that_ends_in_order_costs_nobody_an_attempt() {
    let mut world = world(|config| config.retry.max_attempts = 2);
    let app = connect(&mut world, "client=pi-1");
    world.lose(app);
    publish(&mut world, "CMD", &["m-0", "m-1"]);
    for round in 0..10 {
        world.takes_frames = round % 3 != 2;
        let (app, got) = connect_and_take(&mut world);
        assert_eq!(ids(&got), ["m-0", "m-1"]);
        let code = [Some(1000), Some(1001), None][round % 3];
        world.give(Input::LinkDown { link: app, code, reason: "it ended".into() });
        world.take_frames();
    }
    world.settle();
    assert!(letters(&mut world).is_empty(), "or before its socket had taken anything");
    // A consumer whose connection is still open for its node comes back.
    for _ in 0..3 {
        connect(&mut world, "client=pi-1");
    }
    assert_eq!(letters(&mut world)[0].message.id(), "m-0");
}

/// A named application, and the two events that it was handed and that died of its silence.
fn two_letters(change: impl FnOnce(&mut Config)) -> (World, LinkId, Vec<Value>) {
    let mut world = world(|config| {
        config.retry.max_attempts = 1;
        change(config);
    });
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["m-0"]);
    publish(&mut world, "SK", &["m-1"]);
    let got = handed(&mut world, app);
    world.pass(Duration::from_secs(6));
    assert_eq!(letters(&mut world).len(), 2);
    (world, app, got)
}

fn ids_of_letters(world: &mut World) -> Vec<String> {
    let letters = letters(world);
    let sum: u64 = world.status().sessions[0].dead_letters.values().sum();
    assert_eq!(sum, letters.len() as u64);
    letters.iter().map(|letter| letter.message.id().to_owned()).collect()
}

// keeps: late-ack
#[test]
fn a_late_ack_takes_its_dead_letter_back() {
    for (name, frame) in
        [("delivery", ack as fn(&Value) -> String), ("id", ack_id), ("upTo", ack_upto)]
    {
        for ended in ["no", "link", "node"] {
            let (mut world, app, got) = two_letters(|_| ());
            let app = match ended {
                "no" => app,
                "link" => connect(&mut world, "client=pi-1"),
                _ => {
                    world.crash();
                    connect(&mut world, "client=pi-1")
                }
            };
            for _ in 0..2 {
                world.text(app, &frame(&got[1]));
                assert!(errors(&mut world, app).is_empty(), "{name} {ended}");
            }
            // A cumulative one speaks of what its own connection was handed.
            let is_all = name == "upTo" && ended == "no";
            let left: &[&str] = if is_all { &[] } else { &["m-0"] };
            assert_eq!(ids_of_letters(&mut world), left, "{name} {ended}");
            let counted = world.status().counters.taken_back["app:pi-1"];
            assert_eq!(counted, 2 - left.len() as u64);
            let said = |event: &&Event| matches!(event, Event::DeadLetterTakenBack { .. });
            assert_eq!(world.events.iter().filter(said).count(), 2 - left.len());
            world.crash();
            assert_eq!(ids_of_letters(&mut world), left, "{name} {ended}");
            connect(&mut world, "client=pi-1");
            assert_eq!(in_flight(&mut world), 0);
        }
    }
}

// keeps: late-ack
#[test]
fn an_event_that_expired_in_flight_is_taken_back_too() {
    let mut world = world(|_| ());
    let app = connect(&mut world, "client=pi-1");
    let till = connect(&mut world, "keys=");
    world.text(till, r#"{"type":"CMD","messageId":"m-0","key":"k","value":1,"ttlMs":1000}"#);
    world.settle();
    let got = handed(&mut world, app);
    world.pass(Duration::from_secs(6));
    assert_eq!(ids_of_letters(&mut world), ["m-0"]);
    world.text(app, &ack(&got[0]));
    assert!(errors(&mut world, app).is_empty() && ids_of_letters(&mut world).is_empty());
}

// keeps: late-ack
#[test]
fn a_late_word_about_what_was_refused_names_its_dead_letter() {
    let mut world = world(|config| config.retry.max_attempts = 1);
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["rejected", "retried", "silent"]);
    let got = handed(&mut world, app);
    world.text(app, &nack(&got[0], "reject"));
    world.text(app, &nack(&got[1], "retry"));
    world.pass(Duration::from_secs(6));
    assert_eq!(ids_of_letters(&mut world), ["rejected", "retried", "silent"]);
    world.text(app, &ack_upto(&got[2]));
    assert!(errors(&mut world, app).is_empty());
    assert_eq!(ids_of_letters(&mut world), ["rejected", "retried"], "they had words of their own");
    for killed in [false, true] {
        let app = if killed {
            world.crash();
            connect(&mut world, "client=pi-1")
        } else {
            app
        };
        for frame in [ack(&got[0]), ack_id(&got[0]), nack(&got[0], "retry"), nack(&got[1], "retry")]
        {
            world.text(app, &frame);
        }
        let said = errors(&mut world, app);
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[..3].iter().all(|text| text.contains("dead letter 1:")), "{said:?}");
        assert!(said[3].contains("dead letter 2:"), "{said:?}");
        world.text(app, &nack(&got[0], "reject"));
        world.text(app, &nack_id(&got[0], "reject"));
        for target in [&got[0], &got[1]] {
            world.text(app, &ack_upto(target));
        }
        assert!(errors(&mut world, app).is_empty(), "it is a dead letter, as was said");
        assert_eq!(ids_of_letters(&mut world), ["rejected", "retried"]);
    }
    let app = connect(&mut world, "client=pi-1");
    world.text(app, &ack(&got[1]));
    assert!(errors(&mut world, app).is_empty());
    assert_eq!(ids_of_letters(&mut world), ["rejected"], "a retry is no last word");
}

// keeps: late-ack, refusals-kept
#[test]
fn a_letter_that_is_rejected_afterwards_stays_one() {
    for (killed, by_id) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = world(|config| config.retry.max_attempts = 1);
        let app = connect(&mut world, "client=pi-1");
        publish(&mut world, "CMD", &["m-0", "m-1"]);
        let got = handed(&mut world, app);
        world.pass(Duration::from_secs(6));
        assert_eq!(ids_of_letters(&mut world), ["m-0", "m-1"], "of silence");
        let reject = if by_id { nack_id } else { nack };
        world.text(app, &nack(&got[0], "retry"));
        world.text(app, &reject(&got[0], "reject"));
        world.settle();
        errors(&mut world, app);
        let app = if killed {
            world.pass(Duration::from_secs(2));
            world.crash();
            connect(&mut world, "client=pi-1")
        } else {
            app
        };
        for frame in [ack(&got[0]), ack_id(&got[0])] {
            world.text(app, &frame);
        }
        let said = errors(&mut world, app);
        let names = |text: &String| text.contains("UNKNOWN_DELIVERY") && text.contains("letter 1:");
        assert!(said.len() == 2 && said.iter().all(names), "{killed} {by_id}: {said:?}");
        world.text(app, &ack_upto(&got[1]));
        world.settle();
        assert!(errors(&mut world, app).is_empty());
        assert_eq!(ids_of_letters(&mut world), ["m-0"], "{killed} {by_id}");
    }
}

// keeps: late-ack
#[test]
fn what_was_replayed_is_not_handed_over_after_its_late_ack() {
    for frame in [ack as fn(&Value) -> String, ack_id, ack_upto] {
        for (is_handed, killed) in [(true, false), (false, false), (false, true)] {
            let (mut world, app, got) = two_letters(|config| config.limits.delivery_window = 2);
            publish(&mut world, "CMD", &["m-2", "m-3"]);
            let others = handed(&mut world, app);
            assert_eq!(ids(&others), ["m-2", "m-3"], "the window is full");
            if is_handed {
                world.text(app, &ack(&others[1]));
            }
            let id = letters(&mut world)[0].id;
            assert!(matches!(world.ask(AdminRequest::ReplayDeadLetter(id)), AdminAnswer::Done));
            assert_eq!(handed(&mut world, app).len(), usize::from(is_handed));
            world.text(app, &frame(&got[0]));
            assert!(errors(&mut world, app).is_empty());
            assert_eq!(ids_of_letters(&mut world), ["m-1"]);
            let app = if killed {
                world.crash();
                let (app, got) = connect_and_take(&mut world);
                assert_eq!(ids(&got), ["m-2", "m-3"]);
                app
            } else {
                app
            };
            for other in &others {
                world.text(app, &ack(other));
            }
            world.settle();
            assert!(handed(&mut world, app).is_empty(), "{is_handed} {killed}");
            let session = &world.status().sessions[0];
            assert_eq!((session.in_flight, session.behind), (0, 0));
        }
    }
}

// keeps: late-ack
#[test]
fn a_replay_is_known_after_a_restart() {
    let (mut world, app, got) = two_letters(|_| ());
    world.lose(app);
    let id = letters(&mut world)[0].id;
    assert!(matches!(world.ask(AdminRequest::ReplayDeadLetter(id)), AdminAnswer::Done));
    world.crash();
    let (app, again) = connect_and_take(&mut world);
    assert_eq!(ids(&again), ["m-0"]);
    world.text(app, &ack(&got[0]));
    world.settle();
    assert_eq!(in_flight(&mut world), 0);
}

// keeps: late-ack
#[test]
fn a_late_ack_stands_though_its_batch_fails() {
    let (mut world, app, got) = two_letters(|_| ());
    world.text(app, &ack(&got[0]));
    world.fail_commit(StoreFailure::Full("no room on the disk".into()));
    world.pass(Duration::from_secs(2));
    assert_eq!(ids_of_letters(&mut world), ["m-1"]);
    // What the operator has ordered stays, and is known again.
    let id = letters(&mut world)[0].id;
    for request in [AdminRequest::PurgeDeadLetter(id), AdminRequest::ReplayDeadLetter(id)] {
        world.give(Input::Admin { ticket: Ticket::new(900), request });
        world.step();
        world.fail_commit(StoreFailure::Full("no room on the disk".into()));
        world.pass(Duration::from_secs(2));
    }
    assert_eq!(ids_of_letters(&mut world), ["m-1"]);
    world.text(app, &ack(&got[1]));
    assert!(errors(&mut world, app).is_empty() && ids_of_letters(&mut world).is_empty());
}

// keeps: late-ack
#[test]
fn of_more_letters_than_are_known_it_is_said_so() {
    let mut world = world(|config| config.limits.delivery_window = 2_000);
    let app = connect(&mut world, "client=pi-1");
    let names: Vec<String> = (0..1_030).map(|number| format!("m-{number}")).collect();
    publish(&mut world, "CMD", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let got = handed(&mut world, app);
    for delivery in &got {
        world.text(app, &nack(delivery, "reject"));
    }
    world.settle();
    for known in [false, true] {
        let delivery = &got[if known { 1_029 } else { 0 }];
        world.text(app, &ack(delivery));
        world.text(app, &ack_id(delivery));
        let said = errors(&mut world, app);
        let word = if known { "dead letter 1030" } else { "older dead letter" };
        assert!(said.len() == 2 && said.iter().all(|text| text.contains(word)), "{said:?}");
    }
    assert!(got.iter().all(|delivery| delivery["redelivery"].is_null()));
}

// keeps: ack-clock
#[test]
fn the_time_for_an_ack_begins_when_the_socket_has_it() {
    let mut world = world(|config| config.retry.max_attempts = 2);
    let app = connect(&mut world, "client=slow");
    world.takes_frames = false;
    publish(&mut world, "CMD", &["m-1"]);
    world.pass(Duration::from_secs(600));
    let session = world.status().sessions.swap_remove(0);
    assert_eq!((session.in_flight, session.retransmits_total), (1, 0), "{session:?}");
    assert_eq!(handed(&mut world, app).len(), 1);
    world.take_frames();
    world.pass(Duration::from_millis(4_900));
    assert!(handed(&mut world, app).is_empty());
    world.pass(Duration::from_millis(200));
    assert_eq!(handed(&mut world, app)[0]["redelivery"], 1);
}

// keeps: late-ack
#[test]
fn an_ack_by_id_right_after_a_restart_is_no_error() {
    let mut world = world(|_| ());
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", &["m-0"]);
    let got = handed(&mut world, app);
    world.pass(Duration::from_secs(1));
    world.crash();
    let app = world.connect("client=pi-1");
    world.text(app, &ack_id(&got[0]));
    let said = world.said(app);
    assert!(said.iter().all(|frame| frame["type"] != "ERR"), "{said:?}");
    world.settle();
    let again = handed(&mut world, app);
    assert_eq!(ids(&again), ["m-0"], "the node could not know which it was");
    world.text(app, &ack_id(&again[0]));
    world.text(app, r#"{"type":"ACK","messageId":"never"}"#);
    let said = errors(&mut world, app);
    assert!(said.len() == 1 && said[0].contains("UNKNOWN_DELIVERY"), "{said:?}");
    assert_eq!(in_flight(&mut world), 0);
}
