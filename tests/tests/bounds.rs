//! What one frame, or one peer that does not read, may cost a node (P8, P11).

use std::time::Duration;

use bytes::BytesMut;
use slipstream_core::admin::{AdminAnswer, AdminRequest};
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::event::Event;
use slipstream_core::ids::{Incarnation, LinkId, NodeId, Position, Sequence};
use slipstream_core::io::{CloseCode, Frame, Input, Protocol};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::time::WallMs;
use slipstream_core::wire::{BatchKind, Connect, FrameWriter, Publish, Settle, Wire};
use slipstream_tests::world::World;

/// An application that speaks binary frames, greeted.
fn application(world: &mut World) -> LinkId {
    let link = world.link(Protocol::Postcard, None, "");
    give(world, link, Wire::Connect(Connect { protocol: 1 }).encode());
    world.settle();
    world.frames(link);
    link
}

fn give(world: &mut World, link: LinkId, frame: bytes::Bytes) {
    world.give(Input::Received { link, frame: Frame::Binary(frame) });
}

fn rejected(world: &World) -> usize {
    world.events.iter().filter(|event| matches!(event, Event::Rejected { .. })).count()
}

// keeps: bounded-answers
#[test]
fn a_frame_full_of_errors_spends_the_budget_and_no_more() {
    let mut settles = FrameWriter::new(BatchKind::Settle);
    let mut publishes = FrameWriter::new(BatchKind::Publish);
    for _ in 0..10_000 {
        settles.push(&Settle::Ack(Position::new(9)));
        let nothing = Publish { kind: Kind::Sk, id: "", key: "", tags: "", ttl_ms: 0, body: "" };
        publishes.push(&nothing);
    }
    for frame in [settles.finish(), publishes.finish()] {
        let mut world = World::new("a");
        let link = application(&mut world);
        give(&mut world, link, frame);
        assert_eq!(rejected(&world), 100, "one answer for each error of the budget");
        assert_eq!(world.closed[&link].code, CloseCode::Limit);
    }
}

/// A node that sends, and never reads what it is sent.
fn deaf_peer(world: &mut World) -> LinkId {
    let hello = world.hello("z");
    let link = world.greet(hello);
    world.frames(link);
    world.takes_frames = false;
    link
}

/// A batch of messages from the future, each of which is refused for now.
fn from_the_future(world: &World, first: u64) -> bytes::Bytes {
    let (mut writer, mut buffer) = (FrameWriter::new(BatchKind::Messages), BytesMut::new());
    for sequence in first..first + 1000 {
        let fields = Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(sequence),
            version: Hlc::at(world.now.wall.plus(Duration::from_secs(3600))),
            expires: WallMs(0),
            group: "",
            tags: "",
            path: "z",
            id: "m",
            key: "k",
            body: "1",
        };
        writer.push_message(&Message::encode(&fields, &mut buffer));
    }
    writer.finish()
}

// keeps: bounded-answers
#[test]
fn a_peer_that_does_not_read_its_refusals_is_not_read_either() {
    let mut world = World::new("a");
    let link = deaf_peer(&mut world);
    let paused = format!("Pause({link:?})");
    let is_paused = |world: &World| world.trace.iter().any(|line| line.ends_with(&paused));
    let mut sent = 0;
    while !is_paused(&world) {
        assert!(sent < 200_000, "{sent} refusals wait for a peer that reads none of them");
        let frame = from_the_future(&world, sent + 1);
        give(&mut world, link, frame);
        sent += 1000;
    }
    assert!(sent > 20_000, "{sent}: a peer that is only slow is read on");
    world.trace.clear();
    world.take_frames();
    let resumed = format!("Resume({link:?})");
    assert!(world.trace.iter().any(|line| line.ends_with(&resumed)), "it reads, and is read");
}

/// Names of applications are taken up to `limits.max_sessions`. Who is refused learns why, the
/// others go on, and `store.session_ttl` ends those who never come back.
// keeps: invented-names, memory-bounds
#[test]
fn invented_names_meet_a_limit_and_go_in_time() {
    let mut world = few_sessions(20);
    let till = world.connect("client=till&keys=");
    world.settle();
    world.said(till);
    for number in 1..20 {
        use_and_leave(&mut world, &format!("pi-{number}"));
    }
    let refused = world.connect("client=one-more");
    world.settle();
    let close = &world.closed[&refused];
    assert_eq!(close.code, CloseCode::Limit, "{close:?}");
    assert!(close.reason.contains("sessions"), "{close:?}");
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    assert_eq!(world.said(till).pop().expect("an answer")["type"], "ACK", "the others go on");

    world.pass(Duration::from_secs(602));
    assert_eq!(ended(&world).len(), 19, "each is told");
    let welcome = world.connect("client=one-more");
    world.settle();
    assert!(!world.closed.contains_key(&welcome));
}

// keeps: invented-names
#[test]
fn invented_names_keep_out_neither_applications_nor_peers() {
    let mut world = few_sessions(8);
    use_and_leave(&mut world, "pi-1");
    for number in 0..50 {
        let link = world.connect(&format!("client=invented-{number}&replay=new"));
        world.settle();
        assert!(!world.closed.contains_key(&link));
        world.lose(link);
        world.pass(Duration::from_millis(1));
    }
    let gone: Vec<_> = (0..43).map(|number| format!("app:invented-{number}")).collect();
    assert_eq!(ended(&world), gone, "whoever is away for longest goes first");
    let real = world.connect("client=pi-1");
    world.settle();
    assert_eq!(world.said(real)[0]["resumed"], true, "what was used stays");
    let peer = world.greet(world.hello("z"));
    assert!(world.admitted.contains(&peer), "{:?}", world.closed);

    // Also across a restart.
    world.crash();
    let newcomer = world.connect("client=newcomer");
    world.settle();
    assert!(!world.closed.contains_key(&newcomer));
    let real = world.connect("client=pi-1");
    world.settle();
    assert_eq!(world.said(real)[0]["resumed"], true);
}

// keeps: invented-names
#[test]
fn silent_consumer_gives_its_session_up_after_an_hour() {
    let mut world = few_sessions(2);
    let till = world.connect("keys=");
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    use_and_leave(&mut world, "pi-1");
    let silent = world.connect("client=silent");
    world.settle();
    assert_eq!(world.said(silent)[1]["messageId"], "m-1");
    world.lose(silent);
    let refused = world.connect("client=pi-2");
    world.settle();
    assert_eq!(world.closed[&refused].code, CloseCode::Limit);
    world.pass(Duration::from_secs(3601));
    let taken = world.connect("client=pi-2");
    world.settle();
    assert!(!world.closed.contains_key(&taken));
    assert_eq!(ended(&world), ["app:silent"]);
}

// keeps: invented-names
#[test]
fn consumer_whose_socket_settles_keeps_its_session() {
    let mut world = few_sessions(2);
    let till = world.connect("keys=");
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    for client in ["auto-1", "auto-2"] {
        let auto = world.connect(&format!("client={client}&ack=auto"));
        world.settle();
        assert_eq!(world.said(auto)[1]["messageId"], "m-1");
        world.lose(auto);
    }
    world.pass(Duration::from_secs(3601));
    let refused = world.connect("client=pi-2");
    world.settle();
    let close = &world.closed[&refused];
    assert_eq!(close.code, CloseCode::Limit);
    assert!(close.reason.contains("limits.max_sessions"), "{}", close.reason);
    assert_eq!(ended(&world), Vec::<&str>::new());
}

// keeps: invented-names
#[test]
fn sessions_that_nothing_is_kept_for_make_room_first() {
    let mut world = few_sessions(2);
    for query in ["client=waits&keys=order:", "client=empty&keys="] {
        let link = world.connect(query);
        world.settle();
        world.lose(link);
        world.pass(Duration::from_secs(1));
    }
    let till = world.connect("keys=");
    world.publish(till, "m-1", "order:1", "1");
    world.settle();
    for gone in [["app:empty"].as_slice(), &["app:empty", "app:waits"]] {
        let taken = world.connect(&format!("client=new-{}", gone.len()));
        world.settle();
        assert!(!world.closed.contains_key(&taken), "it takes the place of one never used");
        assert_eq!(ended(&world), gone);
    }
}

// keeps: invented-names
#[test]
fn session_that_makes_room_counts_its_dead_letters() {
    let mut world = few_sessions(2);
    use_and_leave(&mut world, "pi-1");
    let silent = world.connect("client=silent&keys=order:");
    let till = world.connect("keys=");
    world.publish(till, "m-1", "order:1", "1");
    world.pass(Duration::from_secs(3600));
    world.lose(silent);
    world.pass(Duration::from_secs(3601));
    assert_eq!(
        world.status().sessions.iter().flat_map(|it| it.dead_letters.values()).sum::<u64>(),
        1
    );
    world.connect("client=pi-2");
    world.settle();
    let owed = world.events.iter().find_map(|event| match event {
        Event::SessionEnded { owed, .. } => Some(*owed),
        _ => None,
    });
    assert_eq!(owed, Some(1), "its letter goes with it");
}

fn few_sessions(max_sessions: usize) -> World {
    let mut config = Config::new(NodeId::new("a").expect("a good name"));
    config.store.session_ttl = Duration::from_secs(if max_sessions == 2 { 86_400 } else { 600 });
    config.limits.max_sessions = max_sessions;
    World::with(config)
}

/// An application that publishes something and is gone.
fn use_and_leave(world: &mut World, client: &str) {
    let link = world.connect(&format!("client={client}&keys="));
    world.publish(link, &format!("of-{client}"), &format!("used:{client}"), "1");
    world.settle();
    world.lose(link);
    world.frames(link);
    world.settle();
}

fn ended(world: &World) -> Vec<&str> {
    let sessions = world.events.iter().filter_map(|event| match event {
        Event::SessionEnded { session, .. } => Some(session.as_str()),
        _ => None,
    });
    sessions.collect()
}

// keeps: admin-memory
#[test]
fn where_a_message_is_goes_on_where_an_answer_ends() {
    const MESSAGES: usize = 60;
    let mut world = World::new("a");
    // An answer tells what became of each message in each session: with many it holds fewer.
    for number in 0..700 {
        let link = world.connect(&format!("client=pi-{number}&keys=none:"));
        world.settle();
        world.lose(link);
    }
    for number in 0..MESSAGES {
        let till = world.connect("keys=");
        world.publish(till, "again", &format!("order:{number}"), "1");
        world.settle();
        world.lose(till);
    }
    let (mut keys, mut pages, mut after) = (Vec::new(), 0, Position::default());
    loop {
        let AdminAnswer::Where { found, next } =
            world.ask(AdminRequest::Where { id: "again".into(), after })
        else {
            panic!("where it is")
        };
        let fates: usize = found.iter().map(|one| one.sessions.len()).sum();
        assert!(fates <= 16 * 1024, "{fates} in one answer");
        keys.extend(found.into_iter().map(|one| one.key));
        pages += 1;
        assert!(pages <= MESSAGES, "it leads on for ever");
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert!(pages > 1, "all of it in one answer");
    let published: Vec<_> = (0..MESSAGES).map(|number| format!("order:{number}")).collect();
    assert_eq!(keys, published, "each once, in the order of the log");
}
