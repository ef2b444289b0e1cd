//! One node, step by step: what it says before and after each commit, and as time passes.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::application::{AckMode, InForce, Replay};
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{DeadLetterId, NodeId, Ticket};
use slipstream_core::io::{CloseCode, Frame, Input, Protocol};
use slipstream_core::store::StoreFailure;
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;
use slipstream_core::wire::{Connect, Wire};
use slipstream_tests::world::World;

fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["type"].as_str()).collect()
}

fn ids(frames: &[Value]) -> Vec<&str> {
    let of_messages = frames.iter().filter(|frame| frame["deliveryId"].is_u64());
    of_messages.filter_map(|frame| frame["messageId"].as_str()).collect()
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    change(&mut config);
    config
}

fn full() -> StoreFailure {
    StoreFailure::Full("no room on the disk".into())
}

// keeps: commit-first
#[test]
fn nothing_is_said_of_a_message_before_it_is_durable() {
    let mut world = World::new("a");
    let (till, display) = (world.connect("keys="), world.connect(""));
    world.settle();
    world.said(till);
    world.said(display);
    world.publish(till, "m-1", "order:1", "1.10");
    assert_eq!(world.said(till).len() + world.said(display).len(), 0);
    world.settle();
    let receipt = &world.said(till)[0];
    assert_eq!(
        (&receipt["type"], &receipt["messageId"], &receipt["level"]),
        (&"ACK".into(), &"m-1".into(), &"durable".into())
    );
    assert_eq!(ids(&world.said(display)), ["m-1"]);
}

#[test]
fn what_comes_during_a_commit_goes_with_the_next_one() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.publish(till, "m-1", "order:1", "1");
    world.publish(till, "m-2", "order:2", "2");
    world.publish(till, "m-3", "order:3", "3");
    world.step();
    assert_eq!(world.said(till).len(), 1, "only the first was in the first batch");
    world.step();
    assert_eq!(world.said(till).len(), 2);
    assert!(!world.is_busy());
}

// keeps: commit-first
#[test]
fn a_named_application_is_greeted_when_its_session_is_durable() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    assert!(world.said(app).is_empty());
    world.settle();
    assert_eq!(kinds(&world.said(app)), ["WELCOME", "SYNCED"]);
}

#[test]
fn an_error_waits_for_the_answers_before_it() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.publish(till, "m-1", "order:1", "1");
    world.text(till, "{");
    assert!(world.said(till).is_empty());
    world.settle();
    let said = world.said(till);
    assert_eq!(kinds(&said), ["ACK", "ERR"]);
    assert_eq!(said[1]["frame"], 2);
}

// keeps: rollback-clean
#[test]
fn a_commit_without_room_refuses_publishers_without_trace() {
    let mut world = World::new("a");
    let till = world.connect("client=till&keys=");
    world.settle();
    world.said(till);
    world.publish(till, "m-1", "order:1", "1");
    world.publish(till, "m-2", "order:2", "2");
    world.fail_commit(full());
    let said = world.said(till);
    assert_eq!(said.len(), 2, "the batch that grew meanwhile fails with it");
    assert!(said.iter().all(|answer| answer["code"] == "STORE_FULL"), "{said:?}");
    assert!(said.iter().all(|answer| answer["retryable"] == true), "{said:?}");

    world.pass(Duration::from_secs(2));
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    let receipt = &world.said(till)[0];
    assert_eq!(receipt["type"], "ACK");
    assert!(receipt["duplicate"].is_null(), "the failed one left no receipt behind");
    let stored: Vec<_> = world.store.messages().map(|message| message.id().to_owned()).collect();
    assert_eq!(stored, ["m-1"]);
}

// keeps: rollback-clean
#[test]
fn a_waiting_receipt_survives_a_later_failed_batch() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.takes_frames = false;
    // Far more receipts than the socket may have in flight.
    for n in 0..3_000 {
        world.publish(till, &format!("m-{n}"), &format!("order:{n}"), "1");
    }
    world.settle();
    world.publish(till, "last", "order:last", "1");
    world.fail_commit(full());
    world.take_frames();
    let said = world.said(till);
    assert_eq!(said.len(), 3_001);
    let refused: Vec<_> = said.iter().filter(|answer| answer["type"] == "ERR").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["re"], "last");
}

#[test]
fn a_full_store_is_tried_again_after_a_second() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    // Upkeep, which comes every second, is due before the rest is over.
    world.pass(Duration::from_millis(1_500));
    world.publish(till, "m-1", "order:1", "1");
    world.fail_commit(full());
    world.said(till);
    world.pass(Duration::from_millis(1_001));
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    assert_eq!(kinds(&world.said(till)), ["ACK"]);
}

#[test]
fn a_new_session_is_not_greeted_by_a_commit_that_failed() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    world.fail_commit(full());
    assert!(world.said(app).is_empty());
    world.pass(Duration::from_secs(2));
    assert_eq!(kinds(&world.said(app)), ["WELCOME", "SYNCED"]);
    world.crash();
    let app = world.connect("client=pi-1");
    world.settle();
    assert_eq!(world.said(app)[0]["resumed"], true);
}

#[test]
fn a_binary_greeting_says_what_is_in_force_to_who_can_read_it() {
    let mut world = World::new("aws-1");
    for version in [1, 2, 7] {
        let link = world.link(Protocol::Postcard, None, "client=pi&keys=b,a&ack=auto");
        world.binary(link, Wire::Connect(Connect { protocol: version }).encode());
        world.settle();
        let frames = world.frames(link);
        let Some(Frame::Binary(frame)) = frames.first() else { panic!("a greeting: {frames:?}") };
        let Ok(Wire::Welcome(welcome)) = Wire::decode(frame) else { panic!("no greeting") };
        assert_eq!(welcome.protocol, version.min(2));
        let in_force = (version > 1).then(|| InForce {
            keys: Some(vec!["a".into(), "b".into()]),
            replay: Replay::All,
            ack: AckMode::Auto,
            conflate: false,
        });
        assert_eq!(welcome.in_force, in_force);
    }
}

#[test]
fn a_greeting_does_not_wait_behind_an_error() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    let app = world.connect("client=pi-1");
    world.text(app, "{");
    world.settle();
    assert_eq!(kinds(&world.said(app))[..2], ["WELCOME", "ERR"]);
}

// keeps: rollback-clean
#[test]
fn a_failed_replay_leaves_the_dead_letter_in_place() {
    let mut world = World::with(config(|config| config.retry.max_attempts = 1));
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    world.pass(Duration::from_secs(6));
    let letters = |world: &mut World| {
        let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 9 };
        match world.ask(all) {
            AdminAnswer::DeadLetters(letters) => letters,
            other => panic!("a list, not {other:?}"),
        }
    };
    let id = letters(&mut world)[0].1.id;
    world.give(Input::Admin {
        ticket: Ticket::new(900),
        request: AdminRequest::ReplayDeadLetter(id),
    });
    world.step();
    world.fail_commit(full());
    world.pass(Duration::from_secs(2));
    assert_eq!(letters(&mut world).len(), 1);

    // Two orders for the same letter hand it over once.
    world.said(app);
    for ticket in [901, 902] {
        let request = AdminRequest::ReplayDeadLetter(id);
        world.give(Input::Admin { ticket: Ticket::new(ticket), request });
    }
    world.settle();
    assert_eq!(ids(&world.said(app)), ["m-1"]);
    assert!(letters(&mut world).is_empty());
}

#[test]
fn an_expired_dead_letter_is_handed_over_when_it_is_replayed() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    world.lose(app);
    world.text(till, r#"{"type":"CMD","messageId":"c-1","key":"t","value":1,"ttlMs":1000}"#);
    world.settle();
    world.pass(Duration::from_secs(2));
    let app = world.connect("client=pi-1");
    world.settle();
    assert!(ids(&world.said(app)).is_empty());
    let id = DeadLetterId::new(1);
    assert!(matches!(world.ask(AdminRequest::ReplayDeadLetter(id)), AdminAnswer::Done));
    assert_eq!(ids(&world.said(app)), ["c-1"]);
}

#[test]
fn a_start_with_other_tags_hands_over_what_these_bring() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    let frame = r#"{"type":"SK","messageId":"m-1","key":"k","value":1,"targetedTags":["gcp"]}"#;
    world.text(till, frame);
    world.settle();
    assert!(ids(&world.said(app)).is_empty());
    world.config.tags = TagSet::new(["gcp"]).unwrap();
    world.crash();
    let app = world.connect("client=pi-1");
    world.settle();
    assert_eq!(ids(&world.said(app)), ["m-1"]);
}

// keeps: halt-on-doubt
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.publish(till, "m-1", "order:1", "1");
    world.fail_commit(StoreFailure::Unknown("input/output error".into()));
    assert!(world.halted.is_some());
    world.publish(till, "m-2", "order:2", "2");
    assert!(world.said(till).is_empty());
}

#[test]
fn a_repeated_publish_counts_once_also_before_durability() {
    let mut world = World::new("a");
    let till = world.connect("client=till&keys=");
    world.settle();
    world.said(till);
    world.publish(till, "m-1", "order:1", "1");
    world.publish(till, "m-1", "order:1", "1");
    world.publish(till, "m-1", "order:1", "2");
    assert!(world.said(till).is_empty(), "the duplicate waits for the first");
    world.settle();
    let said = world.said(till);
    assert_eq!(kinds(&said), ["ACK", "ACK", "ERR"]);
    assert_eq!((&said[1]["duplicate"], &said[1]["version"]), (&true.into(), &said[0]["version"]));
    assert_eq!(said[2]["code"], "ID_REUSED");
    assert_eq!(world.store.messages().count(), 1);
}

// keeps: retry-then-dead
#[test]
fn the_unacknowledged_comes_ever_later_and_then_dies() {
    let mut world = World::with(config(|config| config.retry.max_attempts = 3));
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    let first = world.said(app).pop().unwrap();
    assert!(first["redelivery"].is_null());

    world.pass(Duration::from_millis(4_999));
    assert!(world.said(app).is_empty(), "not before retry.ack_timeout");
    world.pass(Duration::from_millis(2));
    let second = world.said(app).pop().unwrap();
    assert_eq!(second["redelivery"], 1);
    assert_eq!(second["deliveryId"], first["deliveryId"]);
    world.pass(Duration::from_millis(4_999));
    assert!(world.said(app).is_empty(), "the wait doubles, with jitter in its upper half");
    world.pass(Duration::from_millis(5_002));
    assert_eq!(world.said(app).pop().unwrap()["redelivery"], 2);
    world.pass(Duration::from_secs(21));
    assert!(world.said(app).is_empty());

    let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 9 };
    let AdminAnswer::DeadLetters(letters) = world.ask(all.clone()) else { panic!("a list") };
    let (session, letter) = &letters[0];
    assert_eq!((session.as_str(), letter.attempts, letter.message.body()), ("app:pi-1", 3, "1"));

    assert!(matches!(world.ask(AdminRequest::ReplayDeadLetter(letter.id)), AdminAnswer::Done));
    let replayed = world.said(app).pop().unwrap();
    assert_eq!((&replayed["messageId"], &replayed["redelivery"]), (&"m-1".into(), &1.into()));
    let AdminAnswer::DeadLetters(letters) = world.ask(all) else { panic!("a list") };
    assert!(letters.is_empty());
}

// keeps: retry-then-dead, poison-message
#[test]
fn being_away_is_no_failed_attempt() {
    let mut world = World::with(config(|config| config.retry.max_attempts = 2));
    let till = world.connect("keys=");
    for round in 0..10 {
        let app = world.connect("client=pi-1");
        world.settle();
        if round == 0 {
            world.publish(till, "m-1", "order:1", "1");
            world.settle();
        }
        assert_eq!(ids(&world.said(app)), ["m-1"], "round {round}");
        let reason = "good night".into();
        world.give(Input::LinkDown { link: app, code: Some(1001), reason });
        world.pass(Duration::from_secs(60));
    }
    assert!(world.status().sessions.iter().all(|session| session.dead_letters.is_empty()));
}

#[test]
fn an_older_value_is_not_handed_over_again() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    world.publish(till, "v1", "order:1", "1");
    world.publish(till, "v2", "order:1", "2");
    world.settle();
    let said = world.said(app);
    assert_eq!(ids(&said), ["v1", "v2"], "first hand-overs hold every value");
    world.text(app, &format!(r#"{{"type":"ACK","deliveryId":{}}}"#, said[3]["deliveryId"]));
    world.settle();
    world.pass(Duration::from_secs(100));
    assert!(ids(&world.said(app)).is_empty());
    world.lose(app);
    let app = world.connect("client=pi-1");
    world.settle();
    assert!(ids(&world.said(app)).is_empty());
}

// keeps: receipt-overtakes
#[test]
fn a_receipt_does_not_wait_for_acknowledgements() {
    let mut world = World::with(config(|config| config.limits.delivery_window = 1));
    let mute = world.connect("client=mute");
    let till = world.connect("keys=");
    world.settle();
    world.publish(till, "v1", "other:1", "1");
    world.publish(till, "v2", "order:1", "2");
    world.settle();
    let said = world.said(mute);
    assert_eq!(ids(&said), ["v1"], "the window is full");
    world.publish(mute, "mine", "order:1", "3");
    world.settle();
    assert_eq!(kinds(&world.said(mute)), ["ACK"]);
    world.text(mute, &format!(r#"{{"type":"ACK","deliveryId":{}}}"#, said[2]["deliveryId"]));
    world.settle();
    assert!(ids(&world.said(mute)).is_empty(), "v2 is older than what it has written itself");
}

#[test]
fn after_a_crash_only_the_unacknowledged_comes_marked() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    for id in ["m-1", "m-2", "m-3"] {
        world.publish(till, id, &format!("order:{id}"), "1");
    }
    world.settle();
    let said = world.said(app);
    world.text(app, &format!(r#"{{"type":"ACK","deliveryId":{}}}"#, said[3]["deliveryId"]));
    world.settle();
    world.crash();
    let app = world.connect("client=pi-1");
    world.settle();
    let said = world.said(app);
    assert_eq!(ids(&said), ["m-1", "m-3"]);
    let marked = said.iter().filter(|frame| frame["redelivery"].is_u64()).count();
    assert_eq!(marked, 2);
}

#[test]
fn a_crash_forgets_an_ack_that_was_not_durable() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    let till = world.connect("keys=");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    let delivery = world.said(app).pop().unwrap()["deliveryId"].clone();
    world.text(app, &format!(r#"{{"type":"ACK","deliveryId":{delivery}}}"#));
    world.crash();
    let app = world.connect("client=pi-1");
    world.settle();
    let again = world.said(app);
    assert_eq!(ids(&again), ["m-1"]);
    let again = again.iter().find(|frame| frame["deliveryId"].is_u64()).unwrap();
    assert_eq!(again["deliveryId"], delivery, "it keeps its number");
    assert_eq!(again["redelivery"], 1);
}

#[test]
fn a_replay_is_the_newest_of_each_key_then_synced_then_new() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    for round in 0..5 {
        for key in ["order:1", "order:2"] {
            world.publish(till, &format!("{key}-{round}"), key, &round.to_string());
        }
    }
    world.settle();
    let app = world.connect("client=late");
    world.settle();
    world.publish(till, "new", "order:3", "1");
    world.settle();
    let said = world.said(app);
    assert_eq!(ids(&said), ["order:1-4", "order:2-4", "new"]);
    assert_eq!(kinds(&said), ["WELCOME", "SK", "SK", "SYNCED", "SK"]);
}

#[test]
fn a_silent_link_is_closed_and_a_talking_one_is_not() {
    let mut world = World::new("a");
    world.answers_pings = false;
    let (mute, live) = (world.connect(""), world.connect(""));
    world.settle();
    for _ in 0..7 {
        world.pass(Duration::from_secs(5));
        world.give(Input::Received { link: live, frame: Frame::Pong(Bytes::new()) });
    }
    assert_eq!(world.closed.get(&mute).map(|close| close.code), Some(CloseCode::Timeout));
    assert!(!world.closed.contains_key(&live));
}

#[test]
fn who_does_not_say_who_it_is_is_closed() {
    let mut world = World::new("a");
    let link = world.link(Protocol::Postcard, None, "");
    world.pass(Duration::from_secs(6));
    assert_eq!(world.closed.get(&link).map(|close| close.code), Some(CloseCode::Timeout));
}

// keeps: clock-doubt
#[test]
fn a_clock_that_jumps_stops_publishers_until_it_is_back() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    let right = world.now.wall;
    world.now.wall = WallMs(right.0 + 3_600_000);
    world.publish(till, "m-1", "order:1", "1");
    assert_eq!(world.said(till)[0]["code"], "CLOCK");
    world.now.wall = right;
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    assert_eq!(kinds(&world.said(till)), ["ACK"]);
}

// keeps: clock-doubt
#[test]
fn a_clock_that_began_behind_is_believed_when_it_is_set_right() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.connect("client=pi-1");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    // A machine without a battery for its clock: it starts with an old time, and nobody else is
    // there who could tell.
    let hour = Duration::from_secs(3600);
    world.now.wall = world.now.wall.minus(hour);
    world.crash();
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.publish(till, "m-2", "order:1", "2");
    assert_eq!(world.said(till)[0]["code"], "CLOCK");
    // It is set right a month later.
    world.now.wall = world.now.wall.plus(hour).plus(31 * 24 * hour);
    world.pass(Duration::from_secs(2));
    world.publish(till, "m-2", "order:1", "2");
    world.settle();
    assert_eq!(kinds(&world.said(till)), ["ACK"]);
    let sessions = world.status().sessions;
    assert!(sessions.iter().any(|session| session.name == "app:pi-1"), "{sessions:?}");
    // From now on it is like any other clock.
    world.now.wall = world.now.wall.plus(hour);
    world.publish(till, "m-3", "order:1", "3");
    assert_eq!(world.said(till)[0]["code"], "CLOCK");
}

#[test]
fn no_event_ends_by_a_clock_that_jumped() {
    let mut world = World::new("a");
    let away = world.connect("client=away");
    let till = world.connect("keys=");
    world.settle();
    world.lose(away);
    world.text(till, r#"{"type":"CMD","messageId":"e-1","key":"k","value":1,"ttlMs":1000}"#);
    world.settle();
    let right = world.now.wall;
    world.now.wall = WallMs(right.0 + 3_600_000);
    let back = world.connect("client=away");
    world.settle();
    assert_eq!(kinds(&world.said(back)), ["WELCOME", "CMD", "SYNCED"]);
}

#[test]
fn a_full_store_refuses_publishers_until_there_is_room() {
    let mut world = World::with(config(|config| config.store.max_bytes = 10_000));
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.store.ballast = 20_000;
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    world.publish(till, "m-2", "order:2", "2");
    let said = world.said(till);
    assert_eq!(kinds(&said), ["ACK", "ERR"]);
    assert_eq!(said[1]["code"], "STORE_FULL");
    world.store.ballast = 0;
    world.connect("client=any-commit-tells-the-size");
    world.settle();
    world.publish(till, "m-2", "order:2", "2");
    world.settle();
    assert_eq!(kinds(&world.said(till)), ["ACK"]);
}

#[test]
fn shutting_down_commits_first_and_then_tells_everyone() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    world.said(till);
    world.publish(till, "m-1", "order:1", "1");
    world.give(Input::ShutDown);
    world.publish(till, "m-2", "order:2", "2");
    assert!(!world.stopped);
    world.settle();
    let said = world.said(till);
    assert_eq!(kinds(&said), ["ACK", "ERR"]);
    assert_eq!(said[1]["code"], "SHUTTING_DOWN");
    assert!(world.stopped);
    assert_eq!(world.closed.get(&till).map(|close| close.code), Some(CloseCode::GoingAway));
}

// keeps: determinism
#[test]
fn equal_inputs_give_equal_outputs() {
    let run = || {
        let mut world = World::new("a");
        let app = world.connect("client=pi-1");
        let till = world.connect("client=till");
        for n in 0..200 {
            world.publish(till, &format!("m-{n}"), &format!("order:{}", n % 7), "1");
            if n % 5 == 0 {
                world.settle();
            }
        }
        world.pass(Duration::from_secs(30));
        world.lose(app);
        world.connect("client=pi-1&tags=x");
        world.pass(Duration::from_secs(30));
        world.trace
    };
    assert_eq!(run(), run());
}

#[test]
fn a_waiting_query_skips_nothing_of_a_rewound_session() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    for n in 0..600 {
        world.publish(till, &format!("m-{n}"), &format!("order:{n}"), "1");
    }
    world.settle();
    // More sessions than may ask the store at once, each with a full window.
    let apps: Vec<_> = (0..40).map(|n| world.connect(&format!("client=pi-{n}"))).collect();
    world.settle();
    for app in &apps {
        let upto = world.said(*app).pop().unwrap()["deliveryId"].clone();
        world.text(*app, &format!(r#"{{"type":"ACK","deliveryId":{upto},"upTo":true}}"#));
    }
    let tags = TagSet::new(["gcp"]).unwrap();
    world.give(Input::Reconfigure { peers: Vec::new(), tags });
    world.settle();
    for app in &apps {
        let said = world.said(*app);
        assert_eq!(ids(&said).first(), Some(&"m-0"), "it begins again at the first row");
    }
}

// keeps: clock-ages
#[test]
fn a_clock_that_jumps_forgets_no_receipt() {
    let mut world = World::new("a");
    let till = world.connect("client=till&keys=");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    let right = world.now.wall;
    // Two days ahead: a batch that is written now must not take receipts for old ones.
    world.now.wall = right.plus(Duration::from_secs(48 * 3600));
    world.connect("client=another");
    world.publish(till, "m-2", "order:2", "2");
    world.settle();
    world.now.wall = right;
    world.said(till);
    world.publish(till, "m-1", "order:1", "1");
    world.publish(till, "m-1", "order:1", "2");
    world.settle();
    let said = world.said(till);
    assert_eq!(said[0]["duplicate"], true, "{said:?}");
    assert_eq!(said[1]["code"], "ID_REUSED", "{said:?}");
}

// keeps: clock-ages
#[test]
fn an_absence_begun_after_a_clock_jump_ends_no_session() {
    let mut world = World::new("a");
    let app = world.connect("client=pi-1");
    world.settle();
    let right = world.now.wall;
    world.now.wall = right.minus(Duration::from_secs(365 * 24 * 3600));
    world.lose(app);
    world.pass(Duration::from_secs(1));
    world.settle();
    world.now.wall = right.plus(Duration::from_secs(1));
    world.crash();
    world.pass(Duration::from_secs(5));
    let sessions = world.status().sessions;
    assert!(sessions.iter().any(|session| session.name == "app:pi-1"), "{sessions:?}");
}

// keeps: clock-ages
#[test]
fn a_clock_set_right_between_starts_ends_no_session() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let mut world = World::new("a");
    let right = world.now.wall;
    // It starts a year behind, and has no past by which it could know.
    world.now.wall = right.minus(YEAR);
    world.crash();
    let till = world.connect("keys=");
    let app = world.connect("client=pi-1");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    world.text(app, r#"{"type":"ACK","deliveryId":1}"#);
    world.pass(Duration::from_secs(1));
    world.now.wall = right;
    for message in ["m-2", "m-3"] {
        // The date is mended for the starts after this one as well.
        world.crash();
        let till = world.connect("keys=");
        world.settle();
        world.publish(till, message, "order:1", "1");
        world.settle();
    }
    let app = world.connect("client=pi-1");
    world.settle();
    assert_eq!(ids(&world.said(app)), ["m-3"], "it is the session that has acknowledged m-1");
    let ended = |event: &Event| matches!(event, Event::SessionEnded { .. });
    assert!(!world.events.iter().any(ended));
}

// keeps: cumulative-ack
#[test]
fn a_cumulative_ack_leaves_what_an_earlier_link_lost() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    let lost = world.connect("client=pi-1");
    world.settle();
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    world.lose(lost);
    // Until it has been handed m-1 again, an ACK of m-2 says nothing of it.
    let app = world.connect("client=pi-1");
    world.publish(till, "m-2", "order:2", "2");
    world.settle();
    let said = world.said(app);
    assert_eq!(ids(&said), ["m-1", "m-2"]);
    world.text(app, r#"{"type":"ACK","deliveryId":2,"upTo":true}"#);
    world.lose(app);
    let app = world.connect("client=pi-1");
    world.settle();
    assert!(ids(&world.said(app)).is_empty(), "the link had carried both, in order");
}

#[test]
fn receipts_before_a_repeated_one_leave_with_their_batch() {
    let mut world = World::new("aws");
    let till = world.connect("client=till&keys=");
    world.publish(till, "m-0", "k", "0");
    world.settle();
    world.said(till);
    world.publish(till, "m-1", "k", "1");
    world.publish(till, "m-2", "k", "2");
    // It waits for no batch itself.
    world.publish(till, "m-0", "k", "0");
    while world.is_busy() {
        world.step();
    }
    let said = world.said(till);
    let ids: Vec<_> = said.iter().map(|frame| frame["messageId"].as_str()).collect();
    assert_eq!(ids, [Some("m-1"), Some("m-2"), Some("m-0")], "{said:?}");
}
