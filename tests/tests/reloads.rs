//! Entries of peers change by reload while the peer is away, or linked: its session goes on (P2).

use std::time::Duration;

use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{LinkId, NodeId};
use slipstream_core::io::{Input, Protocol};
use slipstream_core::message::Kind;
use slipstream_tests::world::{World, carry, join};

const OLD: &str = "ws://peer:7400";
const NEW: &str = "ws://peer-2:7400";
const SAME: &str = "ws://PEER:7400/";

/// A node with these peers and little room for history.
fn dialling(id: &str, peers: &[&str]) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.peers = peers.iter().map(|url| (*url).to_owned()).collect();
    config.store.history_max_bytes = 2_000;
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

fn reload(world: &mut World, peers: &[&str]) {
    let peers: Vec<String> = peers.iter().map(|url| (*url).to_owned()).collect();
    world.config.peers = peers.clone();
    world.give(Input::Reconfigure { peers, tags: world.config.tags.clone() });
    world.pass(Duration::from_secs(1));
}

/// Publishes so many events.
fn publish(world: &mut World, till: LinkId, count: usize) {
    for _ in 0..count {
        world.text(till, r#"{"type":"CMD","key":"terminal:9","value":1}"#);
        world.settle();
    }
}

fn events(world: &World) -> usize {
    world.store.messages().filter(|message| message.kind() == Kind::Cmd).count()
}

/// What the status says of the only peer's entry.
fn entry(world: &mut World) -> Option<&'static str> {
    let sessions = world.status().sessions;
    sessions.iter().find(|session| session.role == "peer").expect("a peer").configuration
}

// keeps: peer-session-end
#[test]
fn a_peer_whose_address_changes_while_it_is_away_gets_all() {
    let reloads: [&[&[&str]]; 4] = [&[&[NEW]], &[&[OLD, NEW], &[NEW]], &[&[], &[OLD]], &[&[SAME]]];
    for lists in reloads {
        let (mut a, mut b) = (dialling("a", &[OLD]), World::new("b"));
        let wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        let till = a.connect("keys=");
        a.lose(wire.0);
        b.lose(wire.1);
        publish(&mut a, till, 100);
        for peers in lists {
            reload(&mut a, peers);
            publish(&mut a, till, 1);
        }
        a.pass(Duration::from_secs(40));

        // Dials of entries that are gone come to nothing.
        a.dials.retain(|(_, url)| a.config.peers.contains(url));
        let wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        assert_eq!(events(&b), 100 + lists.len(), "{lists:?}");
        assert_eq!(entry(&mut a), Some("configured"));
    }
}

// keeps: peer-session-end
#[test]
fn a_peer_whose_entry_goes_while_it_is_linked_gets_all() {
    for (peers, dials_in) in [(&[SAME][..], false), (&[], true)] {
        let mut a = dialling("a", &[OLD]);
        let mut b = if dials_in { dialling("b", &[OLD]) } else { World::new("b") };
        let wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        let till = a.connect("keys=");
        reload(&mut a, peers);
        b.lose(wire.1);
        publish(&mut a, till, 100);
        a.pass(Duration::from_secs(40));
        b.pass(Duration::from_secs(40));

        if dials_in {
            assert_eq!(entry(&mut a), Some("no longer configured"));
            let wire = join(&mut b, &mut a);
            carry(&mut b, &mut a, wire);
        } else {
            let wire = join(&mut a, &mut b);
            carry(&mut a, &mut b, wire);
        }
        assert_eq!(events(&b), 100, "{peers:?}");
    }
}

// keeps: peer-session-end
#[test]
fn status_says_an_entry_is_gone_until_it_leads_there_again() {
    let (mut a, mut b) = (dialling("a", &[OLD]), World::new("b"));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert_eq!(entry(&mut a), Some("configured"));
    b.lose(wire.1);
    reload(&mut a, &[]);
    assert_eq!(entry(&mut a), Some("no longer configured"));
    a.pass(Duration::from_secs(1));
    a.crash();
    assert_eq!(entry(&mut a), Some("no longer configured"), "also after a restart");

    reload(&mut a, &[NEW]);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert_eq!(entry(&mut a), Some("configured"));

    // It is the operator, or the time to live, that ends it.
    b.lose(wire.1);
    reload(&mut a, &[]);
    let answer = a.ask(AdminRequest::ForgetSession("b".into()));
    assert!(matches!(answer, AdminAnswer::Done));
    assert!(a.status().sessions.is_empty());
}

/// How many of a hundred events are still there when a hundred more have come.
fn left_of_a_hundred(world: &mut World) -> usize {
    let till = world.connect("keys=");
    publish(world, till, 200);
    let first = world.store.messages().take_while(|message| message.sequence().get() <= 100);
    let count = first.count();
    world.lose(till);
    count
}

// keeps: peer-never-reached
#[test]
fn a_peer_never_reached_gets_all_when_it_comes() {
    let mut a = dialling("a", &[OLD]);
    let till = a.connect("keys=");
    publish(&mut a, till, 100);
    a.crash();
    let till = a.connect("keys=");
    publish(&mut a, till, 100);
    assert_eq!(events(&a), 200, "it is kept for, also by a later start");

    a.pass(Duration::from_secs(40));
    let mut b = World::new("b");
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert_eq!(events(&b), 200);
    publish(&mut a, till, 100);
    carry(&mut a, &mut b, wire);
    publish(&mut a, till, 1);
    assert!(events(&a) < 100, "what it has is history");
}

// keeps: peer-never-reached
#[test]
fn a_crash_keeps_the_last_rows_for_a_peer_never_reached() {
    let mut a = dialling("a", &[OLD]);
    a.config.store.event_ttl = Duration::from_secs(60);
    // Another entry, so that all that is there is kept for a minute from now on.
    a.config.peers = vec![NEW.to_owned()];
    a.crash();
    a.pass(Duration::from_secs(50));
    let till = a.connect("keys=");
    publish(&mut a, till, 5);
    a.crash();
    a.pass(Duration::from_secs(20));
    let till = a.connect("keys=");
    publish(&mut a, till, 100);
    assert_eq!(events(&a), 105, "their time is not over");
}

// keeps: peer-never-reached
#[test]
fn nothing_is_kept_for_an_entry_that_is_gone() {
    let mut taken_out = dialling("a", &[OLD]);
    reload(&mut taken_out, &[]);
    assert!(left_of_a_hundred(&mut taken_out) < 50);

    let mut itself = dialling("a", &[OLD]);
    let (dial, _) = itself.dials.pop().expect("it dials");
    let here = itself.link(Protocol::Postcard, Some(dial), "");
    let there = itself.link(Protocol::Postcard, None, "");
    for _ in 0..2 {
        for (from, to) in [(here, there), (there, here)] {
            for frame in itself.frames(from) {
                itself.give(Input::Received { link: to, frame });
            }
        }
    }
    itself.settle();
    assert!(left_of_a_hundred(&mut itself) < 50, "its own address");

    let mut waiting = dialling("a", &[OLD]);
    assert_eq!(left_of_a_hundred(&mut waiting), 100);
    waiting.config.store.session_ttl = Duration::from_secs(60);
    waiting.crash();
    waiting.pass(Duration::from_secs(70));
    let ended = |event: &Event| matches!(event, Event::SessionEnded { .. });
    assert!(waiting.events.iter().any(ended), "it is said");
    assert!(left_of_a_hundred(&mut waiting) < 50, "nor for longer than for a session");
}
