//! Two processes under one id, on copies of one database: it is said, and nothing is lost (P2).

use std::time::Duration;

use bytes::Bytes;
use slipstream_core::config::Config;
use slipstream_core::event::{Event, Level};
use slipstream_core::ids::{LinkId, NodeId};
use slipstream_core::io::{Frame, Input};
use slipstream_core::store::StoreFailure;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{Hello, Wire, records};
use slipstream_tests::world::{self, MemoryStore, World, carry, join};

fn dialling(id: &str) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.peers = vec!["ws://peer:7400".into()];
    let mut world = World::with(config);
    world.pass(Duration::ZERO);
    world
}

/// The node `a` and another process on a copy of its database, each started once more, after `a`
/// has met `b`.
fn cloned(b: &mut World) -> (World, World) {
    let mut a = dialling("a");
    let wire = join(&mut a, b);
    publish(&mut a, "before");
    carry(&mut a, b, wire);
    a.lose(wire.0);
    b.lose(wire.1);
    a.pass(Duration::from_secs(1));
    let copy = a.store.clone();
    a.crash();
    a.pass(Duration::from_millis(1));
    let mut twin = dialling("a");
    twin.store = copy;
    twin.pass(Duration::from_secs(2));
    twin.crash();
    twin.pass(Duration::from_millis(1));
    (a, twin)
}

/// Publishes an event, which nobody would miss in a comparison of digests.
fn publish(world: &mut World, id: &str) {
    let till = world.connect("keys=");
    world.text(till, &format!(r#"{{"type":"CMD","messageId":"{id}","key":"k","value":1}}"#));
    world.settle();
    world.lose(till);
}

fn has(world: &World, id: &str) -> bool {
    world.store.messages().any(|message| message.id() == id)
}

/// How often a second process was noticed; the first time is said at ERROR.
fn conflicts(world: &mut World) -> u64 {
    let count = world.status().counters.identity_conflicts;
    let is_said = |event: &Event| {
        matches!(event, Event::IdentityConflict { node, .. } if node.as_str() == "a")
            && event.level() == Level::Error
    };
    assert!(count == 0 || world.events.iter().any(is_said));
    count
}

// keeps: twins
#[test]
fn what_a_twin_was_sent_is_offered_to_the_original() {
    for restarts in [true, false] {
        let mut b = World::new("b");
        let (mut a, mut twin) = cloned(&mut b);
        let first = join(&mut a, &mut b);
        carry(&mut a, &mut b, first);
        assert_eq!((conflicts(&mut a), conflicts(&mut b)), (0, 0));
        let wire = join(&mut twin, &mut b);
        carry(&mut twin, &mut b, wire);
        assert!(b.closed.contains_key(&first.1), "the later start takes its place");
        a.lose(first.0);
        assert!(conflicts(&mut twin) > 0 && conflicts(&mut b) > 0);
        publish(&mut a, "of-a");
        publish(&mut b, "of-b");
        publish(&mut twin, "of-twin");
        carry(&mut twin, &mut b, wire);
        assert!(has(&twin, "of-b") && has(&b, "of-twin"));

        // The original is refused, and learns why.
        a.pass(Duration::from_secs(40));
        let refused = join(&mut a, &mut b);
        carry(&mut a, &mut b, refused);
        assert!(b.closed.contains_key(&refused.1) && conflicts(&mut a) > 0);
        a.lose(refused.0);

        b.lose(wire.1);
        if restarts {
            a.crash();
        }
        a.pass(Duration::from_secs(40));
        let wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        assert!(has(&a, "of-b") && has(&a, "of-twin") && has(&b, "of-a"), "{restarts}");

        // It is over: later starts are known.
        let before = conflicts(&mut b);
        a.lose(wire.0);
        a.crash();
        a.pass(Duration::from_secs(40));
        let wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        assert_eq!((conflicts(&mut a), conflicts(&mut b)), (0, before));
    }
}

// keeps: twins
#[test]
fn a_twin_that_is_refused_dials_as_seldom_as_it_can() {
    let mut b = World::new("b");
    let (mut a, mut twin) = cloned(&mut b);
    let wire = join(&mut twin, &mut b);
    carry(&mut twin, &mut b, wire);
    let mut dials = 0;
    for tenth in 0..3000 {
        a.pass(Duration::from_millis(100));
        b.pass(Duration::from_millis(100));
        twin.pass(Duration::from_millis(100));
        carry(&mut twin, &mut b, wire);
        if a.dials.is_empty() {
            continue;
        }
        let refused = join(&mut a, &mut b);
        a.dials.clear();
        carry(&mut a, &mut b, refused);
        let close = b.closed.get(&refused.1).unwrap_or_else(|| panic!("after {tenth} tenths"));
        let (code, reason) = (Some(close.code.number()), close.reason.clone());
        assert_eq!(code, Some(4409), "{reason}");
        a.give(Input::LinkDown { link: refused.0, code, reason });
        dials += 1;
    }
    // Its waits are drawn below `reconnect.max`, half a minute.
    assert!((5..50).contains(&dials), "{dials} in five minutes");
    assert!(b.status().links.iter().any(|link| link.state == "up"), "the other one stays");
}

/// Lets seconds pass at four nodes, with frames carried between them.
fn pass(worlds: &mut [World; 4], wires: &[(usize, usize, world::Wire)], seconds: u64) {
    for _ in 0..seconds {
        worlds.iter_mut().for_each(|world| world.pass(Duration::from_secs(1)));
        for (from, to, wire) in wires {
            let [a, b] = worlds.get_disjoint_mut([*from, *to]).expect("two of them");
            carry(a, b, *wire);
        }
    }
}

// keeps: twins
#[test]
fn what_a_twin_has_elsewhere_comes_to_the_original() {
    let mut b = World::new("b");
    let (mut a, mut twin) = cloned(&mut b);
    let mut c = dialling("c");
    let first = join(&mut a, &mut b);
    let between = join(&mut c, &mut b);
    let other = join(&mut twin, &mut c);
    let mut worlds = [a, b, c, twin];
    let wires = [(0, 1, first), (2, 1, between), (3, 2, other)];
    pass(&mut worlds, &wires, 10);
    for (number, id) in [(0, "of-a"), (1, "of-b"), (2, "of-c"), (3, "of-twin")] {
        publish(&mut worlds[number], id);
    }
    pass(&mut worlds, &wires, 10);
    for id in ["of-a", "of-b", "of-c", "of-twin"] {
        assert!(has(&worlds[0], id), "{id}");
    }
    let counts = worlds.each_mut().map(conflicts);
    assert!(counts.iter().all(|count| *count > 0), "on every side: {counts:?}");
    assert!(counts.iter().all(|count| *count < 50), "told once a second at most: {counts:?}");
}

// keeps: twins
#[test]
fn starts_that_find_the_same_are_no_twins() {
    let (mut a, mut b) = (dialling("a"), dialling("b"));
    for round in 0..6 {
        let wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        assert_eq!((conflicts(&mut a), conflicts(&mut b)), (0, 0), "{round}");
        a.lose(wire.0);
        b.lose(wire.1);
        a.pass(Duration::from_secs(40));
        if round % 2 == 0 {
            a.crash();
            a.pass(Duration::ZERO);
        }
        if round == 3 {
            b.crash();
        }
    }
}

// keeps: false-twins
#[test]
fn a_store_that_is_empty_again_is_no_second_process() {
    for events_before in [0, 1, 2] {
        let (mut a, mut b) = (dialling("a"), World::new("b"));
        (0..events_before).for_each(|number| publish(&mut a, &format!("early-{number}")));
        // It has never told anybody where its log ends.
        let copy = a.store.clone();
        let wire = join(&mut a, &mut b);
        for number in 0..5 {
            publish(&mut a, &format!("of-a-{number}"));
            publish(&mut b, &format!("of-b-{number}"));
        }
        carry(&mut a, &mut b, wire);
        a.lose(wire.0);
        b.lose(wire.1);
        a.store = copy;
        a.pass(Duration::from_secs(40));
        a.crash();
        a.pass(Duration::from_secs(1));
        let wire = join(&mut a, &mut b);
        carry(&mut a, &mut b, wire);
        assert_eq!((conflicts(&mut a), conflicts(&mut b)), (0, 0), "{events_before} before");
        let went_back = |event: &Event| matches!(event, Event::PeerStoreWentBack { .. });
        assert!(b.events.iter().any(went_back), "{events_before} before");
        let ids = (0..5).flat_map(|number| [format!("of-a-{number}"), format!("of-b-{number}")]);
        ids.for_each(|id| assert!(has(&a, &id), "{id} with {events_before} before"));
    }
}

// keeps: false-twins
#[test]
fn a_start_on_a_full_disk_is_no_second_process() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let wire = join(&mut a, &mut b);
    publish(&mut a, "before");
    carry(&mut a, &mut b, wire);
    a.lose(wire.0);
    b.lose(wire.1);
    publish(&mut a, "alone");
    a.pass(Duration::from_secs(40));
    a.restart();
    a.fail_commit(StoreFailure::Full("no room".into()));
    a.pass(Duration::ZERO);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    assert!(has(&b, "alone"), "it hands over what it has");
    a.lose(wire.0);
    b.lose(wire.1);

    a.pass(Duration::from_millis(500));
    a.crash();
    a.pass(Duration::from_secs(40));
    let wire = join(&mut a, &mut b);
    publish(&mut b, "later");
    carry(&mut a, &mut b, wire);
    assert_eq!((conflicts(&mut a), conflicts(&mut b)), (0, 0));
    assert!(has(&a, "later"));
}

fn is_handed(world: &mut World, app: LinkId) -> bool {
    world.said(app).iter().any(|frame| frame["messageId"] == "of-b")
}

// keeps: false-twins
#[test]
fn a_start_that_finds_room_says_then_where_its_log_ends() {
    let (mut a, mut b) = (dialling("a"), World::new("b"));
    let copy = a.store.clone();
    let wire = join(&mut a, &mut b);
    publish(&mut b, "of-b");
    carry(&mut a, &mut b, wire);
    a.lose(wire.0);
    b.lose(wire.1);
    a.store = copy;
    a.pass(Duration::from_secs(40));
    a.restart();
    a.fail_commit(StoreFailure::Full("no room".into()));
    a.pass(Duration::ZERO);
    let wire = join(&mut a, &mut b);
    carry(&mut a, &mut b, wire);
    let display = a.connect("");
    assert!(!is_handed(&mut a, display), "it has no room");
    for _ in 0..20 {
        a.pass(Duration::from_secs(1));
        b.pass(Duration::from_secs(1));
        carry(&mut a, &mut b, wire);
    }
    assert!(is_handed(&mut a, display), "on the same link");
    assert_eq!((conflicts(&mut a), conflicts(&mut b)), (0, 0));
}

/// The revisions of the record of `a` that were told on a link since it was asked last.
fn revisions(world: &mut World, link: LinkId) -> (Vec<u64>, Vec<Bytes>) {
    let (mut revisions, mut batches) = (Vec::new(), Vec::new());
    for frame in world.frames(link) {
        let Frame::Binary(bytes) = frame else { continue };
        if let Wire::Topology(batch) = Wire::decode(&bytes).expect("the node sends frames") {
            let told = records::<NodeRecord>(&batch).expect("records");
            revisions.extend(told.iter().filter(|it| it.node == "a").map(|it| it.revision));
            batches.push(bytes);
        }
    }
    (revisions, batches)
}

// keeps: false-twins
#[test]
fn a_record_that_comes_back_cut_costs_no_revision() {
    let mut a = World::new("a");
    for number in 0..50 {
        let tags = (0..20).map(|tag| format!("tag-{number}-{tag}")).collect::<Vec<_>>().join(",");
        a.connect(&format!("tags={tags}"));
    }
    a.settle();
    a.pass(Duration::from_secs(5));
    let link = a.greet(Hello { max_frame_bytes: 8 << 10, ..a.hello("z") });
    a.pass(Duration::from_secs(5));
    let (first, mut told) = revisions(&mut a, link);
    assert!(first.len() < 5, "{first:?}");
    for round in 0..10 {
        told.iter().for_each(|batch| a.binary(link, batch.clone()));
        a.settle();
        let (again, batches) = revisions(&mut a, link);
        assert!(again.is_empty(), "{again:?} in round {round}");
        told.extend(batches);
    }
}

/// A start of a node with these peers, by name, on this store, so long after the others began.
fn start_of(id: &str, peers: &[&str], store: MemoryStore, after: u64) -> World {
    let mut config = Config::new(NodeId::new(id).expect("a good name"));
    config.peers = peers.iter().map(|peer| format!("ws://{peer}:7400")).collect();
    let mut world = World::with(config);
    world.store = store;
    world.pass(Duration::from_millis(after));
    world.dials.clear();
    world.crash();
    world
}

/// Three nodes that dial each other by address: the original, its twin, and their peer.
struct Trio {
    worlds: [World; 3],
    wires: Vec<(usize, usize, world::Wire)>,
    /// This one is not there yet.
    missing: Option<usize>,
}

impl Trio {
    const NAMES: [&str; 3] = ["original", "twin", "peer"];

    /// A tenth of a second: what is dialled is connected, what is sent is carried, and who closes
    /// is heard at the other end.
    fn pass(&mut self) {
        self.worlds.iter_mut().for_each(|world| world.pass(Duration::from_millis(100)));
        for from in 0..3 {
            for dial in std::mem::take(&mut self.worlds[from].dials) {
                let to = Self::NAMES.iter().position(|name| dial.1.contains(name));
                let to = to.expect("one of the three");
                self.worlds[from].dials.push(dial);
                if self.missing.is_some_and(|missing| [from, to].contains(&missing)) {
                    continue;
                }
                let [a, b] = self.worlds.get_disjoint_mut([from, to]).expect("two of them");
                let wire = join(a, b);
                self.wires.push((from, to, wire));
            }
        }
        let worlds = &mut self.worlds;
        self.wires.retain(|(from, to, wire)| {
            let [a, b] = worlds.get_disjoint_mut([*from, *to]).expect("two of them");
            carry(a, b, *wire);
            let closed = [a.closed.get(&wire.0).cloned(), b.closed.get(&wire.1).cloned()];
            let (other, link, close) = match closed {
                [Some(close), _] => (b, wire.1, close),
                [None, Some(close)] => (a, wire.0, close),
                [None, None] => return true,
            };
            let (code, reason) = (Some(close.code.number()), close.reason);
            other.give(Input::LinkDown { link, code, reason });
            false
        });
    }
}

// keeps: twins
#[test]
fn twins_at_one_peer_are_said_by_each_of_the_three() {
    // Who dials, what the log held when it was copied, and who is there first.
    for case in 0..16 {
        let is = |bit: usize| case >> bit & 1 == 1;
        let (original_dials, twin_dials) = (is(0), is(1));
        let mut b = World::new("b");
        let mut a = dialling("a");
        let wire = join(&mut a, &mut b);
        if is(2) {
            publish(&mut a, "before");
        }
        carry(&mut a, &mut b, wire);
        let (store, of_b) = (a.store, b.store);
        let dials = |does: bool| if does { &["peer"][..] } else { &[] };
        let dialled = [(original_dials, "original"), (twin_dials, "twin")];
        let dialled = dialled.into_iter().filter_map(|(dials, name)| (!dials).then_some(name));
        let dialled: Vec<_> = dialled.collect();
        let worlds = [
            start_of("a", dials(original_dials), store.clone(), 1000),
            start_of("a", dials(twin_dials), store, 2000),
            start_of("b", &dialled, of_b, 3000),
        ];
        let second = usize::from(is(3));
        let mut trio = Trio { worlds, wires: Vec::new(), missing: Some(second) };
        (0..100).for_each(|_| trio.pass());
        let counts = trio.worlds.each_mut().map(conflicts);
        assert_eq!(counts, [0, 0, 0], "nobody is there twice, {case:04b}");
        trio.missing = None;
        (0..600).for_each(|_| trio.pass());
        let counts = trio.worlds.each_mut().map(conflicts);
        assert!(counts.iter().all(|count| *count > 0), "each of the three: {counts:?}, {case:04b}");
        // Said to whoever is there as often as the refused one comes, and no dial for ever.
        assert!(counts.iter().all(|count| *count < 20), "{counts:?}, {case:04b}");
    }
}
