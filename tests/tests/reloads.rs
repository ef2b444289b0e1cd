//! Entries of peers change by reload while the peer is away, or linked: its session goes on (P2).

use std::time::Duration;

use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::config::Config;
use slipstream_core::ids::{LinkId, NodeId};
use slipstream_core::io::Input;
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

#[test]
fn the_status_says_that_an_entry_is_gone_until_one_leads_there_again() {
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
