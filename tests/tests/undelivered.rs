//! Events that a node has handed on to nobody when their time is over.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{DeadLetterId, Incarnation, LinkId, NodeId, Position, Sequence, Ticket};
use slipstream_core::io::{Frame, Input, Protocol};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::store::{DeadReason, StoreFailure};
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{Ack, BatchKind, Connect, FrameWriter, Wire as PeerFrame};
use slipstream_tests::world::{Wire, World, carry, join};

const SECONDS: Duration = Duration::from_secs(3);

fn command(world: &mut World, link: LinkId, id: &str, tags: &str) {
    let rest = format!(r#""key":"t","value":1,"ttlMs":1000,"targetedTags":[{tags}]"#);
    let frame = format!(r#"{{"type":"CMD","messageId":"{id}",{rest}}}"#);
    world.text(link, &frame);
    world.settle();
}

/// The dead letters: whose, and of which message.
fn letters(world: &mut World) -> Vec<(String, String)> {
    let all = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 99 };
    let AdminAnswer::DeadLetters(letters) = world.ask(all) else { panic!("a list") };
    assert!(letters.iter().all(|(_, letter)| letter.reason == DeadReason::Expired));
    letters.into_iter().map(|(name, letter)| (name, letter.message.id().into())).collect()
}

fn of_node(id: &str) -> (String, String) {
    ("node".into(), id.into())
}

fn handed(world: &mut World, link: LinkId) -> Vec<String> {
    let said = world.said(link);
    let is_delivery = |frame: &&serde_json::Value| !frame["deliveryId"].is_null();
    let ids = said.iter().filter(is_delivery).map(|frame| frame["messageId"].as_str());
    ids.map(|id| id.expect("a delivery has one").into()).collect()
}

/// A node with these tags that dials the next one.
fn node(id: &str, tags: &[&'static str], next: Option<&str>) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.tags = TagSet::new(tags.iter().copied()).expect("good tags");
    config.peers = next.map(|next| format!("ws://{next}")).into_iter().collect();
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

fn pass(a: &mut World, b: &mut World, wire: Wire, seconds: u64) {
    for _ in 0..seconds {
        a.pass(Duration::from_secs(1));
        b.pass(Duration::from_secs(1));
        carry(a, b, wire);
    }
}

// keeps: node-letters
#[test]
fn an_event_handed_to_nobody_is_a_dead_letter_of_the_node() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    command(&mut world, till, "c-1", r#""nobody""#);
    command(&mut world, till, "c-2", "");
    world.publish(till, "m-1", "k", "1");
    world.pass(Duration::from_millis(900));
    assert!(letters(&mut world).is_empty());
    world.pass(SECONDS);
    assert_eq!(letters(&mut world), [of_node("c-1"), of_node("c-2")]);
    assert_eq!(world.status().dead_letters["expired"], 2);
    let request = AdminRequest::Where { id: "c-1".into(), after: Position::default() };
    let AdminAnswer::Where { found, .. } = world.ask(request) else { panic!("where it is") };
    let fates = &found[0].sessions;
    assert!(fates.iter().any(|one| one.session == "node" && one.fate == "dead_letter"));

    world.crash();
    world.pass(SECONDS);
    assert_eq!(letters(&mut world), [of_node("c-1"), of_node("c-2")]);
    assert_eq!(world.status().dead_letters["expired"], 2);
    world.ask(AdminRequest::PurgeDeadLetter(DeadLetterId::new(1)));
    assert_eq!(letters(&mut world), [of_node("c-2")]);
    assert_eq!(world.status().dead_letters["expired"], 1);
}

// keeps: node-letters
#[test]
fn a_node_that_was_killed_before_the_end_finds_it_afterwards() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    for number in 0..3000 {
        let frame = format!(
            r#"{{"type":"CMD","messageId":"c-{number}","key":"t","value":1,"ttlMs":{}}}"#,
            1000 + number % 2 * 600_000
        );
        world.text(till, &frame);
    }
    world.settle();
    world.crash();
    world.pass(SECONDS);
    assert_eq!(world.status().dead_letters["expired"], 1500);
    world.crash();
    world.pass(SECONDS);
    assert_eq!(world.status().dead_letters["expired"], 1500);
    world.pass(Duration::from_secs(700));
    assert_eq!(world.status().dead_letters["expired"], 3000);
}

// keeps: node-letters
#[test]
fn what_was_handed_to_anybody_is_settled() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    let unnamed = world.connect("tags=x");
    let named = world.connect("client=pi-1&tags=y");
    let away = world.connect("client=pi-2&tags=z");
    world.settle();
    world.lose(away);
    world.said(named);
    for tag in ["x", "y", "z"] {
        command(&mut world, till, tag, &format!("\"{tag}\""));
    }
    let said = world.said(named);
    world.text(named, &format!(r#"{{"type":"ACK","deliveryId":{}}}"#, said[0]["deliveryId"]));
    world.settle();
    world.lose(unnamed);
    world.pass(SECONDS);
    world.crash();
    world.pass(SECONDS);
    assert!(letters(&mut world).is_empty());
    // What was owed to an application that is away is its dead letter when it returns.
    world.connect("client=pi-2&tags=z");
    world.settle();
    assert_eq!(letters(&mut world), [("app:pi-2".into(), "z".into())]);
}

/// An application without a name that speaks this protocol and acknowledges by hand.
fn by_hand(world: &mut World, protocol: Protocol) -> LinkId {
    let link = world.link(protocol, None, "ack=manual");
    if protocol == Protocol::Postcard {
        world.binary(link, PeerFrame::Connect(Connect { protocol: 1 }).encode());
    }
    world.settle();
    world.frames(link);
    link
}

/// How many frames were sent on a link, but pings.
fn frames(world: &mut World, link: LinkId) -> usize {
    let frames = world.frames(link);
    frames.iter().filter(|frame| !matches!(frame, Frame::Ping(_))).count()
}

// keeps: node-letters
#[test]
fn an_event_that_ends_while_it_is_held_is_handed_once() {
    for protocol in [Protocol::Json, Protocol::Postcard] {
        let mut config = Config::new(NodeId::new("a").expect("a good name"));
        // Its second repeat would come when its time is over, before the node looks for it.
        config.retry.ack_timeout = Duration::from_millis(500);
        let mut world = World::with(config);
        let till = world.connect("keys=");
        let app = by_hand(&mut world, protocol);
        command(&mut world, till, "c-1", "");
        assert_eq!(frames(&mut world, app), 1);
        world.pass(SECONDS);
        assert_eq!(frames(&mut world, app), 1, "a repeat while its time was not over");
        assert!(letters(&mut world).is_empty());
    }
}

// keeps: node-letters
#[test]
fn what_an_unnamed_application_acknowledged_is_settled() {
    for word in [r#""deliveryId":ID"#, r#""deliveryId":ID,"upTo":true"#, r#""messageId":"c-1""#] {
        for leaves in [false, true] {
            let mut world = World::new("a");
            let till = world.connect("keys=");
            let app = world.connect("ack=manual");
            world.settle();
            world.said(app);
            command(&mut world, till, "c-1", "");
            let got = world.said(app);
            let word = word.replace("ID", &got[0]["deliveryId"].to_string());
            world.text(app, &format!(r#"{{"type":"ACK",{word}}}"#));
            world.settle();
            if leaves {
                world.lose(app);
            }
            world.pass(SECONDS);
            assert!(letters(&mut world).is_empty(), "{word} {leaves}");
            assert_eq!(world.status().dead_letters.values().sum::<u64>(), 0);
            assert!(world.said(app).is_empty(), "{word}: nothing comes again, and no error");
        }
    }
}

// keeps: node-letters
#[test]
fn a_crash_makes_no_node_letter_of_what_a_session_settled() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    let named = world.connect("client=pi-1&tags=x");
    world.settle();
    // So many events for nobody that where they lie is not written with every batch.
    for number in 0..600 {
        let rest = r#""key":"t","value":1,"ttlMs":600000,"targetedTags":["nobody"]"#;
        world.text(till, &format!(r#"{{"type":"CMD","messageId":"n-{number}",{rest}}}"#));
    }
    world.settle();
    world.said(named);
    command(&mut world, till, "c-1", r#""x""#);
    let said = world.said(named);
    world.text(named, &format!(r#"{{"type":"ACK","deliveryId":{}}}"#, said[0]["deliveryId"]));
    world.settle();
    world.crash();
    world.pass(SECONDS);
    assert!(letters(&mut world).is_empty());
    let named = world.connect("client=pi-1&tags=x");
    world.settle();
    assert!(handed(&mut world, named).is_empty());
}

// keeps: node-letters
#[test]
fn a_peer_that_has_it_is_the_one_that_answers_for_it() {
    let (mut a, mut b) = (node("a", &["a"], Some("b")), node("b", &["b"], None));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let listener = b.connect("tags=c");
    b.settle();
    pass(&mut a, &mut b, wire, 2);
    let till = a.connect("keys=");
    a.settle();
    command(&mut a, till, "for-b", r#""b""#);
    command(&mut a, till, "for-c", r#""c""#);
    command(&mut a, till, "for-all", "");
    command(&mut a, till, "for-nobody", r#""d""#);
    carry(&mut a, &mut b, wire);
    b.lose(listener);
    pass(&mut a, &mut b, wire, 4);
    assert_eq!(letters(&mut a), [of_node("for-nobody")]);
    // It arrived at `b`, or was handed on there.
    assert!(letters(&mut b).is_empty());

    // What `b` takes on for somebody who is not there any more is a dead letter there.
    let listener = b.connect("tags=c");
    b.settle();
    pass(&mut a, &mut b, wire, 2);
    b.takes_frames = false;
    command(&mut a, till, "too-late", r#""c""#);
    carry(&mut a, &mut b, wire);
    b.lose(listener);
    b.take_frames();
    pass(&mut a, &mut b, wire, 4);
    assert_eq!(letters(&mut a), [of_node("for-nobody")]);
    assert_eq!(letters(&mut b), [of_node("too-late")]);
}

// keeps: node-letter-replay
#[test]
fn a_replayed_dead_letter_of_the_node_is_offered_again() {
    let (mut a, mut b) = (node("a", &["a"], Some("b")), node("b", &["b"], None));
    let till = a.connect("keys=");
    a.settle();
    command(&mut a, till, "c-1", r#""b""#);
    a.pass(SECONDS);
    assert_eq!(letters(&mut a), [of_node("c-1")]);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let app = b.connect("client=pi-1");
    b.settle();
    pass(&mut a, &mut b, wire, 2);
    assert!(handed(&mut b, app).is_empty());

    let replay = AdminRequest::ReplayDeadLetter(DeadLetterId::new(1));
    assert!(matches!(a.ask(replay.clone()), AdminAnswer::Done));
    assert!(matches!(a.ask(replay), AdminAnswer::NotFound));
    pass(&mut a, &mut b, wire, 5);
    assert_eq!(handed(&mut b, app), ["c-1"]);
    assert!(letters(&mut a).is_empty() && letters(&mut b).is_empty());
    assert!(a.status().dead_letters.values().all(|count| *count == 0));
}

// keeps: node-letter-replay
#[test]
fn a_replay_of_what_is_still_on_offer_ends_with_the_one_answer() {
    for wants in [false, true] {
        let mut a = World::new("a");
        let y = linked(&mut a, "y", "a,z");
        // What y sends comes to z by itself, and is only offered to it.
        let z = linked(&mut a, "z", "a,y");
        a.pass(SECONDS);
        let mut frame = FrameWriter::new(BatchKind::Messages);
        frame.push_message(&event_of_y(&a, "c-1"));
        a.binary(y, frame.finish());
        a.settle();
        a.pass(SECONDS);
        assert_eq!(letters(&mut a), [of_node("c-1")]);
        assert!(matches!(
            a.ask(AdminRequest::ReplayDeadLetter(DeadLetterId::new(1))),
            AdminAnswer::Done
        ));
        a.pass(SECONDS);
        let offer = offers(&mut a, z).pop().expect("it is offered until it is answered");
        if wants {
            a.binary(z, PeerFrame::Want(offer).encode());
            a.settle();
            let (upto, position, wall) = (1, Position::default(), a.now.wall);
            a.binary(z, PeerFrame::Ack(Ack { upto, position, wall }).encode());
        } else {
            a.binary(z, PeerFrame::Seen(offer).encode());
        }
        a.settle();
        a.pass(SECONDS);
        let sessions = a.status().sessions;
        let peer = sessions.iter().find(|session| session.name == "peer:z").expect("it has one");
        assert_eq!((peer.in_flight, peer.behind), (0, 0), "asked for: {wants}");
        assert!(offers(&mut a, z).is_empty());
        assert!(letters(&mut a).is_empty());
    }
}

/// A link from a node that exists only in frames, and has links to these.
fn linked(world: &mut World, node: &str, links: &str) -> LinkId {
    let hello = world.hello(node);
    let (store, incarnation) = (hello.store, hello.incarnation);
    let link = world.greet(hello);
    let (node, links, tags) = (node.into(), links.into(), String::new());
    let mut frame = FrameWriter::new(BatchKind::Topology);
    frame.push(&NodeRecord { node, store, incarnation, revision: 1, tags, links });
    world.binary(link, frame.finish());
    world.settle();
    link
}

/// An event that `y` has published, which ends in a second.
fn event_of_y(world: &World, id: &str) -> Message {
    let fields = Fields {
        kind: Kind::Cmd,
        incarnation: Incarnation::new(1),
        sequence: Sequence::new(1),
        version: Hlc::at(world.now.wall),
        expires: world.now.wall.plus(Duration::from_secs(1)),
        group: "",
        tags: "",
        path: "y",
        id,
        key: "t",
        body: "1",
    };
    Message::encode(&fields, &mut BytesMut::new())
}

/// What a node has offered on a link since it was asked last.
fn offers(world: &mut World, link: LinkId) -> Vec<Bytes> {
    let frames = world.frames(link).into_iter().filter_map(|frame| match frame {
        Frame::Binary(bytes) => Some(PeerFrame::decode(&bytes).expect("the node sends frames")),
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => None,
    });
    let offers = frames.filter_map(|frame| match frame {
        PeerFrame::Have(batch) => Some(batch),
        _ => None,
    });
    offers.collect()
}

// keeps: node-letters
#[test]
fn an_event_is_owed_to_a_peer_on_its_path_until_confirmed() {
    for says in [false, true] {
        let mut a = World::new("a");
        let y = linked(&mut a, "y", "a,z");
        let z = linked(&mut a, "z", "a,y");
        a.pass(SECONDS);
        // It was at z, whose database may be another one since.
        let event = event_of_y(&a, "c-1");
        let fields = Fields { path: "z,y", ..event.fields() };
        let mut frame = FrameWriter::new(BatchKind::Messages);
        frame.push_message(&Message::encode(&fields, &mut BytesMut::new()));
        a.binary(y, frame.finish());
        a.settle();
        a.pass(Duration::from_millis(600));
        if says {
            let offer = offers(&mut a, z).pop().expect("it is offered by name");
            a.binary(z, PeerFrame::Seen(offer).encode());
            a.settle();
        }
        a.pass(SECONDS);
        let expected = if says { Vec::new() } else { vec![of_node("c-1")] };
        assert_eq!(letters(&mut a), expected, "z says that it has it: {says}");
    }
}

// keeps: node-letters
#[test]
fn a_batch_without_room_makes_no_dead_letter_twice() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    command(&mut world, till, "c-1", r#""nobody""#);
    world.pass(Duration::from_millis(900));
    let is_dead = |event: &Event| matches!(event, Event::DeadLetter { .. });
    while !world.events.iter().any(is_dead) {
        if world.is_busy() {
            world.step();
            continue;
        }
        let next = world.node.poll_timeout().expect("it looks after itself");
        world.now.wall = world.now.wall.plus(next.since(world.now.instant));
        world.now.instant = next.max(world.now.instant);
        world.give(Input::Timer);
    }
    world.fail_commit(StoreFailure::Full("no room".into()));
    world.pass(SECONDS);
    assert_eq!(letters(&mut world), [of_node("c-1")]);

    let request = AdminRequest::ReplayDeadLetter(DeadLetterId::new(1));
    world.give(Input::Admin { ticket: Ticket::new(900), request });
    world.step();
    world.fail_commit(StoreFailure::Full("no room".into()));
    world.pass(SECONDS);
    assert_eq!(letters(&mut world), [of_node("c-1")]);
    assert_eq!(world.status().dead_letters["expired"], 1);
}

// keeps: node-letters
#[test]
fn a_node_full_of_dead_letters_takes_none_until_a_purge() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.store.session_max_bytes = 100;
    let mut world = World::with(config);
    let till = world.connect("keys=");
    world.settle();
    command(&mut world, till, "c-1", "");
    world.pass(SECONDS);
    command(&mut world, till, "c-2", "");
    world.pass(SECONDS);
    assert_eq!(letters(&mut world), [of_node("c-1")]);
    world.ask(AdminRequest::PurgeDeadLetter(DeadLetterId::new(1)));
    world.pass(SECONDS);
    assert_eq!(letters(&mut world), [of_node("c-2")]);
}

#[test]
fn a_replay_under_a_jumped_clock_lives_as_long_as_any() {
    let mut world = World::new("a");
    let till = world.connect("keys=");
    world.settle();
    command(&mut world, till, "c-1", r#""nobody""#);
    world.pass(SECONDS);
    let AdminAnswer::DeadLetters(letters) =
        world.ask(AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 9 })
    else {
        panic!("a list")
    };
    let right = world.now.wall;
    // Three years back, and nobody has noticed yet.
    world.now.wall = WallMs(right.0 - 94_608_000_000);
    let letter = letters[0].1.id;
    assert!(matches!(world.ask(AdminRequest::ReplayDeadLetter(letter)), AdminAnswer::Done));
    let replayed = world.store.messages().last().expect("it is in the log again");
    let expires = replayed.expires().expect("an event has an end");
    assert!(expires > right.plus(Duration::from_secs(86_000)), "{expires:?}, it is {right:?}");
}
