//! Two nodes compare what they hold, and mend what differs (P6, P7).

use std::time::Duration;

use slipstream_core::config::Config;
use slipstream_core::digest::Print;
use slipstream_core::event::Event;
use slipstream_core::ids::{Incarnation, LinkId, NodeId, StoreId};
use slipstream_core::io::{Frame, Input};
use slipstream_core::tags::TagSet;
use slipstream_core::wire::{
    Ack, BatchKind, DigestsHead, FEATURE_DIGESTS, FrameWriter, Hello, TagSetDigest, Wire, digests,
};
use slipstream_tests::world::{self, MemoryStore, World, carry, join};

fn dialling(id: &str) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.peers = vec!["ws://peer:7400".into()];
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

/// Lets seconds pass at both nodes, with frames carried between them.
fn pass(a: &mut World, b: &mut World, wire: world::Wire, seconds: u64) {
    for _ in 0..seconds {
        a.pass(Duration::from_secs(1));
        b.pass(Duration::from_secs(1));
        carry(a, b, wire);
    }
}

fn rewinds(world: &mut World) -> u64 {
    world.status().counters.rewinds.get("digests_differ").copied().unwrap_or(0)
}

/// Lag in seconds, and what came of comparing, of the only peer.
fn convergence(world: &mut World) -> (u64, &'static str) {
    let status = world.status();
    let peer = status.sessions.iter().find(|session| session.role == "peer").expect("a peer");
    (peer.lag_ms.expect("peers have one") / 1000, peer.digests.expect("peers have one"))
}

fn holds(world: &World, key: &str) -> bool {
    world.store.messages().any(|message| message.key() == key)
}

/// The store of `b` is an older copy, in which it then writes alone and starts again.
fn live_on_alone(b: &mut World, copy: MemoryStore) {
    b.store = copy;
    b.crash();
    let writer = b.connect("keys=");
    for number in 0..5 {
        b.publish(writer, &format!("b-{number}"), &format!("k{number}"), "1");
    }
    b.settle();
    b.crash();
}

// keeps: rollback-noticed
#[test]
fn an_older_copy_that_lived_on_alone_is_noticed() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "old", "1");
    carry(&mut a, &mut b, wire);
    let copy = b.store.clone();
    a.publish(till, "m-2", "lost", "1");
    carry(&mut a, &mut b, wire);
    a.lose(wire.0);
    live_on_alone(&mut b, copy);
    a.pass(Duration::from_secs(40));
    let mut wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert!(holds(&a, "k4") && holds(&b, "lost"));
    let went_back = |event: &Event| matches!(event, Event::StoreWentBack { .. });
    let noticed = |b: &World| b.events.iter().filter(|event| went_back(event)).count();
    assert_eq!(noticed(&b), 1);
    assert_eq!(a.status().counters.rewinds["store_went_back"], 1);

    // It is noticed once.
    for _ in 0..3 {
        a.lose(wire.0);
        b.crash();
        a.pass(Duration::from_secs(40));
        wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
    }
    assert_eq!(noticed(&b), 1);
    assert_eq!(a.status().counters.rewinds["store_went_back"], 1);
}

// keeps: rollback-noticed
#[test]
fn a_restarted_node_offers_all_to_an_older_copy() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "old", "1");
    carry(&mut a, &mut b, wire);
    let copy = b.store.clone();
    a.publish(till, "m-2", "lost", "1");
    carry(&mut a, &mut b, wire);
    a.pass(Duration::from_secs(1));
    // It does not know who answers there before it has said Hello, and can remind nobody.
    a.crash();
    a.pass(Duration::ZERO);
    live_on_alone(&mut b, copy);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert!(holds(&a, "k4") && holds(&b, "lost"));
    let in_doubt = |a: &mut World| a.status().counters.rewinds.get("store_in_doubt").copied();
    assert_eq!(in_doubt(&mut a), Some(1));

    // There is no doubt about who runs on, nor about whom it can remind.
    a.lose(wire.0);
    b.crash();
    a.pass(Duration::from_secs(40));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert_eq!(in_doubt(&mut a), Some(1));
    a.pass(Duration::from_secs(1));
    a.crash();
    a.pass(Duration::ZERO);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert_eq!(in_doubt(&mut a), None);
}

// keeps: rollback-noticed
#[test]
fn an_older_copy_says_so_until_its_peer_has_heard_it() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "old", "1");
    carry(&mut a, &mut b, wire);
    let copy = b.store.clone();
    a.publish(till, "m-2", "lost", "1");
    carry(&mut a, &mut b, wire);
    a.lose(wire.0);
    live_on_alone(&mut b, copy);
    a.pass(Duration::from_secs(40));
    // What it answers to the Hello is lost with the link.
    let wire = join(&mut a, &mut b);
    for frame in a.frames(wire.0) {
        b.give(Input::Received { link: wire.1, frame });
    }
    a.lose(wire.0);
    b.lose(wire.1);
    a.pass(Duration::from_secs(40));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert!(holds(&a, "k4") && holds(&b, "lost"));
}

// keeps: rollback-noticed
#[test]
fn an_older_copy_is_heard_as_often_as_there_is_one() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let mut wire = join(&mut a, &mut b);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "old", "1");
    carry(&mut a, &mut b, wire);
    let copy = b.store.clone();
    a.text(till, r#"{"type":"CMD","messageId":"m-2","key":"lost","value":1}"#);
    carry(&mut a, &mut b, wire);
    // The second time comes within a second.
    for _ in 0..2 {
        a.lose(wire.0);
        live_on_alone(&mut b, copy.clone());
        a.pass(Duration::from_millis(600));
        wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        assert!(holds(&b, "lost"), "an event: no digest would find that it is gone");
    }
}

// keeps: rollback-noticed
#[test]
fn an_older_copy_is_noticed_though_its_clock_is_behind() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "old", "1");
    carry(&mut a, &mut b, wire);
    let copy = b.store.clone();
    a.lose(wire.0);
    a.pass(Duration::from_secs(5));
    b.pass(Duration::from_secs(5));
    b.crash();
    let wire = join(&mut a, &mut b);
    a.publish(till, "m-2", "lost", "1");
    carry(&mut a, &mut b, wire);

    // The copy grows beyond what the other node was told before the two meet again, and by its
    // clock its starts lie before the one that told.
    a.lose(wire.0);
    b.now.wall = b.now.wall.minus(Duration::from_secs(12));
    live_on_alone(&mut b, copy);
    a.pass(Duration::from_secs(40));
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert!(holds(&a, "k4") && holds(&b, "lost"));
}

// keeps: digests-heal
#[test]
fn what_a_peer_lacks_unnoticed_is_found_and_offered_again() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    let till = a.connect("keys=");
    a.publish(till, "m-1", "old", "1");
    carry(&mut a, &mut b, wire);
    pass(&mut a, &mut b, wire, 10);
    assert_eq!(convergence(&mut a), (0, "equal"));

    // It is acknowledged, and has never come.
    a.publish(till, "m-2", "lost", "1");
    a.settle();
    a.frames(wire.0);
    let (position, wall) = (b.status().store.head, a.now.wall);
    let ack = Wire::Ack(Ack { upto: 2, position, wall });
    a.binary(wire.0, ack.encode());
    a.lose(wire.0);
    b.lose(wire.1);
    let copy = b.store.clone();
    live_on_alone(&mut b, copy);
    a.pass(Duration::from_secs(40));
    let (lag, verdict) = convergence(&mut a);
    assert!((40..=42).contains(&lag) && verdict == "unknown", "{lag} s, {verdict}");
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert!(holds(&a, "k4") && !holds(&b, "lost"), "nobody has noticed");
    pass(&mut a, &mut b, wire, 8);
    assert!(holds(&b, "lost"), "the second claim tells");
    assert_eq!(rewinds(&mut a), 1);
    pass(&mut a, &mut b, wire, 10);
    assert_eq!((convergence(&mut a), convergence(&mut b)), ((0, "equal"), (0, "equal")));
    assert_eq!(rewinds(&mut a), 1);
}

// keeps: digests-heal
#[test]
fn traffic_is_no_difference() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    let (here, there) = (a.connect("keys="), b.connect("keys="));
    for second in 0..60 {
        a.publish(here, &format!("a-{second}"), "order:1", "1");
        b.publish(there, &format!("b-{second}"), &format!("order:{second}"), "1");
        pass(&mut a, &mut b, wire, 1);
        a.publish(here, &format!("c-{second}"), "order:2", "1");
        assert_ne!(convergence(&mut a).1, "differ");
    }
    assert_eq!((rewinds(&mut a), rewinds(&mut b)), (0, 0));
    assert!(convergence(&mut a).0 <= 2, "{:?}", convergence(&mut a));
    pass(&mut a, &mut b, wire, 10);
    assert_eq!((convergence(&mut a), convergence(&mut b)), ((0, "equal"), (0, "equal")));
}

/// A link from a node that exists only in its frames.
fn peer(world: &mut World, features: u64) -> LinkId {
    let hello = Hello { tags: "gcp".into(), features, ..world.hello("z") };
    let link = world.greet(hello);
    let record = slipstream_core::topology::NodeRecord {
        node: "z".into(),
        store: StoreId(77),
        incarnation: Incarnation::new(1),
        revision: 1,
        tags: "gcp".into(),
        links: "a".into(),
    };
    let mut writer = FrameWriter::new(BatchKind::Topology);
    writer.push(&record);
    world.give(Input::Received { link, frame: Frame::Binary(writer.finish()) });
    world.settle();
    link
}

/// The claims that were sent on a link.
fn claims(world: &mut World, link: LinkId) -> Vec<Vec<TagSetDigest>> {
    let frames = world.frames(link).into_iter();
    let claims = frames.filter_map(|frame| match frame {
        Frame::Binary(bytes) => match Wire::decode(&bytes).expect("the node sends frames") {
            Wire::Digests(batch) => Some(digests(&batch).expect("and claims").1),
            _ => None,
        },
        Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => None,
    });
    claims.collect()
}

fn claim(world: &mut World, link: LinkId, claimed: &[TagSetDigest]) {
    let mut writer = FrameWriter::new(BatchKind::Digests);
    writer.push(&DigestsHead { whole: true });
    claimed.iter().for_each(|digest| writer.push(digest));
    world.give(Input::Received { link, frame: Frame::Binary(writer.finish()) });
}

#[test]
fn only_what_is_for_both_is_claimed_and_only_to_who_compares() {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.tags = TagSet::new(["aws", "gcp"]).expect("good tags");
    for features in [FEATURE_DIGESTS, 0] {
        let mut world = World::with(config.clone());
        let till = world.connect("keys=");
        for (id, tags) in [("none", ""), ("one", r#""aws""#), ("both", r#""aws","gcp""#)] {
            let frame = format!(
                r#"{{"type":"SK","messageId":"{id}","key":"k","value":1,"targetedTags":[{tags}]}}"#
            );
            world.text(till, &frame);
        }
        world.settle();
        let link = peer(&mut world, features);
        // It has what it was offered: only then is there something to compare.
        let offered: Vec<Frame> = world.frames(link);
        for frame in offered {
            if let Frame::Binary(bytes) = frame
                && let Ok(Wire::Have(batch)) = Wire::decode(&bytes)
            {
                let frame = Frame::Binary(Wire::Seen(batch).encode());
                world.give(Input::Received { link, frame });
            }
        }
        world.pass(Duration::from_secs(3));
        let claims = claims(&mut world, link);
        if features == 0 {
            assert_eq!(claims, Vec::<Vec<TagSetDigest>>::new());
            continue;
        }
        let tags: Vec<u64> = claims[0].iter().map(|digest| digest.tags).collect();
        assert_eq!(tags, [Print::of_tags(""), Print::of_tags("aws,gcp")]);
    }
}

// keeps: digests-backoff
#[test]
fn a_difference_that_stays_is_mended_less_and_less_often() {
    let mut world = World::new("a");
    let link = peer(&mut world, FEATURE_DIGESTS);
    let other = TagSetDigest { tags: Print::of_tags(""), print: Print::new(1) };
    for _ in 0..3600 / 5 {
        claim(&mut world, link, &[other]);
        world.pass(Duration::from_secs(5));
        // Somebody is there.
        let frame = Frame::Pong(Default::default());
        world.give(Input::Received { link, frame });
    }
    let (lag, verdict) = convergence(&mut world);
    assert!(verdict == "differ" && lag > 3500, "{lag} {verdict}");
    let rewinds = rewinds(&mut world);
    assert!((5..10).contains(&rewinds), "{rewinds} in an hour");
    claim(&mut world, link, &[]);
    world.pass(Duration::from_secs(2));
    assert_eq!(convergence(&mut world), (0, "equal"));
}
