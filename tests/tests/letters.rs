//! Dead letters of an application whose session has begun again, whose replays fail, or whose
//! deliveries are settled by its socket: one message is one letter, and whoever has it in the end
//! leaves none behind (P2, P3, P12).

use std::time::Duration;

use serde_json::Value;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{DeadLetterId, LinkId, NodeId, Ticket};
use slipstream_core::io::Input;
use slipstream_core::store::StoreFailure;
use slipstream_tests::world::World;

/// A node on which the first two messages, an event and a value, are dead letters of `pi-1`.
fn two_letters(attempts: u32) -> (World, LinkId) {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.retry.max_attempts = attempts;
    let mut world = World::with(config);
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", "m-1");
    publish(&mut world, "SK", "m-2");
    world.pass(Duration::from_secs(60));
    assert_eq!(letters(&mut world).len(), 2);
    (world, app)
}

fn connect(world: &mut World, query: &str) -> LinkId {
    let link = world.connect(query);
    world.settle();
    link
}

fn publish(world: &mut World, kind: &str, id: &str) {
    let till = connect(world, "keys=");
    let frame = format!(r#"{{"type":"{kind}","messageId":"{id}","key":"{id}","value":1}}"#);
    world.text(till, &frame);
    world.settle();
    world.lose(till);
}

fn handed(world: &mut World, app: LinkId) -> Vec<Value> {
    world.settle();
    let said = world.said(app).into_iter();
    said.filter(|frame| frame["deliveryId"].is_u64()).collect()
}

fn errors(world: &mut World, app: LinkId) -> Vec<String> {
    world.settle();
    let said = world.said(app).into_iter().filter(|frame| frame["type"] == "ERR");
    said.map(|frame| frame["message"].to_string()).collect()
}

/// The dead letters, which are counted as they are listed: number, `messageId`, and why.
fn letters(world: &mut World) -> Vec<(DeadLetterId, String, &'static str)> {
    world.settle();
    let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 999 };
    let AdminAnswer::DeadLetters(letters) = world.ask(all) else { panic!("a list") };
    let sessions = world.status().sessions;
    let counted: u64 = sessions.iter().flat_map(|session| session.dead_letters.values()).sum();
    assert_eq!(counted, letters.len() as u64);
    let named = letters.iter().map(|(_, it)| (it.id, it.message.id().into(), it.reason.as_str()));
    named.collect()
}

fn word(word: &str, delivery: &Value) -> String {
    let id = &delivery["deliveryId"];
    match word {
        "upTo" => format!(r#"{{"type":"ACK","deliveryId":{id},"upTo":true}}"#),
        "id" => format!(r#"{{"type":"ACK","messageId":{}}}"#, delivery["messageId"]),
        "reject" => format!(r#"{{"type":"NACK","deliveryId":{id},"action":"reject"}}"#),
        _ => format!(r#"{{"type":"ACK","deliveryId":{id}}}"#),
    }
}

// keeps: one-letter
#[test]
fn an_ack_after_a_new_beginning_takes_the_letter_back() {
    for form in ["ack", "id", "upTo"] {
        for killed in [false, true] {
            let (mut world, _) = two_letters(1);
            if killed {
                world.crash();
            }
            let app = connect(&mut world, "client=pi-1&keys=m");
            let again = handed(&mut world, app);
            assert!(again.len() == 2 && again.iter().all(|frame| frame["redelivery"] == 1));
            for delivery in &again {
                world.text(app, &word(form, delivery));
            }
            assert_eq!(errors(&mut world, app), Vec::<String>::new());
            assert_eq!(letters(&mut world), [], "{form} {killed}");
            assert_eq!(world.status().counters.taken_back["app:pi-1"], 2);
            world.crash();
            assert_eq!(letters(&mut world), [], "{form} {killed}");
        }
    }
}

// keeps: one-letter
#[test]
fn a_socket_that_takes_a_delivery_takes_its_letter_back() {
    let (mut world, _) = two_letters(1);
    let app = connect(&mut world, "client=pi-1&keys=m&ack=auto");
    assert_eq!(handed(&mut world, app).len(), 2);
    assert_eq!(letters(&mut world), []);
}

// keeps: one-letter
#[test]
fn what_dies_again_after_a_new_beginning_is_one_letter() {
    let (mut world, _) = two_letters(1);
    let before = letters(&mut world);
    let app = connect(&mut world, "client=pi-1&keys=m");
    let again = handed(&mut world, app);
    world.text(app, &word("reject", &again[0]));
    world.pass(Duration::from_secs(60));
    let after = letters(&mut world);
    let ids: Vec<&str> = after.iter().map(|(_, id, _)| &**id).collect();
    assert_eq!(ids, ["m-1", "m-2"], "{after:?}");
    assert_eq!((after[0].2, after[1].2), ("rejected", "unacknowledged"));
    assert!(after.iter().all(|(id, ..)| before.iter().all(|(old, ..)| id != old)));
}

// keeps: one-letter
#[test]
fn an_event_that_expires_keeps_the_letter_that_it_is() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.retry.max_attempts = 1;
    let mut world = World::with(config);
    let app = connect(&mut world, "client=pi-1");
    let till = connect(&mut world, "keys=");
    world.text(till, r#"{"type":"CMD","messageId":"m-1","key":"k","value":1,"ttlMs":10000}"#);
    world.pass(Duration::from_secs(6));
    let before = letters(&mut world);
    assert_eq!(before[0].2, "unacknowledged");
    world.lose(app);
    world.pass(Duration::from_secs(6));
    connect(&mut world, "client=pi-1&keys=k");
    assert_eq!(letters(&mut world), before, "its reason is not lost");
}

// keeps: one-letter
#[test]
fn a_replay_and_what_it_replays_are_settled_together() {
    for first in [0, 1] {
        let (mut world, _) = two_letters(2);
        let app = connect(&mut world, "client=pi-1");
        let event = letters(&mut world).into_iter().find(|(_, id, _)| id == "m-1");
        let request = AdminRequest::ReplayDeadLetter(event.expect("it is a letter").0);
        assert!(matches!(world.ask(request), AdminAnswer::Done));
        assert_eq!(handed(&mut world, app).len(), 1);
        let app = connect(&mut world, "client=pi-1&keys=m");
        let again = handed(&mut world, app);
        let both: Vec<&Value> = again.iter().filter(|frame| frame["messageId"] == "m-1").collect();
        assert_eq!(both.len(), 2, "its keys have changed");
        world.text(app, &word("ack", both[first]));
        world.settle();
        world.crash();
        let app = connect(&mut world, "client=pi-1&keys=m");
        let left = handed(&mut world, app);
        assert!(left.iter().all(|frame| frame["messageId"] == "m-2"), "{first} {left:?}");
        let left = letters(&mut world);
        assert!(left.iter().all(|(_, id, _)| id == "m-2"), "{first} {left:?}");
    }
}

// keeps: late-ack
#[test]
fn an_ack_of_a_replay_under_way_stands_though_its_batch_fails() {
    for form in ["ack", "id", "upTo"] {
        let mut config = Config::new(NodeId::new("a").expect("a good name"));
        config.retry.max_attempts = 1;
        let mut world = World::with(config);
        let app = connect(&mut world, "client=pi-1");
        publish(&mut world, "CMD", "m-1");
        let got = handed(&mut world, app);
        world.pass(Duration::from_secs(6));
        let id = letters(&mut world)[0].0;
        let request = AdminRequest::ReplayDeadLetter(id);
        world.give(Input::Admin { ticket: Ticket::new(900), request });
        world.step();
        world.text(app, &word(form, &got[0]));
        world.fail_commit(StoreFailure::Full("no room on the disk".into()));
        world.pass(Duration::from_secs(12));
        assert_eq!(letters(&mut world), [], "{form}");
        assert_eq!(world.status().counters.taken_back["app:pi-1"], 1);
        let said = |event: &&Event| matches!(event, Event::DeadLetterTakenBack { .. });
        assert_eq!(world.events.iter().filter(said).count(), 1);
        // The place of the replay that failed is that of another message now.
        publish(&mut world, "CMD", "m-2");
        world.text(app, &word(form, &got[0]));
        world.settle();
        let session = world.status().sessions.swap_remove(0);
        assert_eq!(session.in_flight, 1, "{form} {session:?}");
        assert_eq!(handed(&mut world, app)[0]["messageId"], "m-2");
        world.crash();
        assert_eq!(letters(&mut world), [], "{form}");
    }
}

// keeps: late-ack
#[test]
fn a_nack_by_id_right_after_a_restart_is_no_error() {
    let mut world = World::with(Config::new(NodeId::new("a").expect("a good name")));
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", "m-1");
    let got = handed(&mut world, app);
    world.pass(Duration::from_secs(1));
    for action in ["retry", "reject"] {
        world.crash();
        let app = world.connect("client=pi-1");
        let frame = format!(r#"{{"type":"NACK","messageId":"m-1","action":"{action}"}}"#);
        world.text(app, &frame);
        let said = world.said(app);
        assert!(said.iter().all(|frame| frame["type"] != "ERR"), "{said:?}");
        world.settle();
        assert_eq!(handed(&mut world, app)[0]["deliveryId"], got[0]["deliveryId"], "it comes");
    }
}

/// A letter, and the delivery that it was; the letter is about to be purged.
fn a_purge_under_way() -> (World, LinkId, Value) {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.retry.max_attempts = 1;
    let mut world = World::with(config);
    let app = connect(&mut world, "client=pi-1");
    publish(&mut world, "CMD", "m-1");
    let got = handed(&mut world, app).remove(0);
    world.pass(Duration::from_secs(6));
    let request = AdminRequest::PurgeDeadLetter(letters(&mut world)[0].0);
    world.give(Input::Admin { ticket: Ticket::new(900), request });
    world.step();
    (world, app, got)
}

// keeps: late-ack
#[test]
fn an_ack_of_a_purge_under_way_stands_though_its_batch_fails() {
    for form in ["ack", "id", "upTo"] {
        for fails in [false, true] {
            let (mut world, app, got) = a_purge_under_way();
            world.text(app, &word(form, &got));
            assert!(world.said(app).iter().all(|frame| frame["type"] != "ERR"), "{form}");
            if fails {
                world.fail_commit(StoreFailure::Full("no room on the disk".into()));
            }
            world.pass(Duration::from_secs(12));
            assert_eq!(letters(&mut world), [], "{form} {fails}");
            let taken = world.status().counters.taken_back.get("app:pi-1").copied();
            assert_eq!(taken.unwrap_or_default(), u64::from(fails), "{form}");
            world.crash();
            assert_eq!(letters(&mut world), [], "{form} {fails}");
        }
    }
}

// keeps: late-ack
#[test]
fn a_letter_whose_purge_failed_is_what_it_was() {
    for silent in [true, false] {
        let (mut world, app, got) = a_purge_under_way();
        if !silent {
            world.text(app, &word("reject", &got));
            world.settle();
            world.said(app);
        } else {
            world.fail_commit(StoreFailure::Full("no room on the disk".into()));
        }
        world.pass(Duration::from_secs(12));
        assert_eq!(letters(&mut world).len(), usize::from(silent));
        world.text(app, &word("ack", &got));
        assert_eq!(errors(&mut world, app), Vec::<String>::new());
        assert_eq!(letters(&mut world), []);
    }
}
