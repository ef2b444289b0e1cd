//! Sequences of inputs to a node: applications, peers that lie, operators, a store that fails, and
//! time. What must hold is said in `world`; here is what may happen.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::{Bytes, BytesMut};
use slipstream_core::admin::AdminRequest;
use slipstream_core::clock::Hlc;
use slipstream_core::config::{Config, Durability};
use slipstream_core::digest::DigestQuery;
use slipstream_core::ids::{
    DeadLetterId, Incarnation, LinkId, NodeId, Position, Sequence, StoreId,
};
use slipstream_core::io::{Frame, Input, Protocol};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;
use slipstream_core::wire::{
    Ack, BatchKind, Connect, FrameWriter, Hello, NotNow, NotNowReason, Publish, Read, Settle, Wire,
};

use crate::wire::sealed;
use crate::world::{BEGINNING, World};

/// Steps of one run: what needs more can be said with fewer.
const MAX_STEPS: usize = 300;
/// Client errors in a row after which an application is closed, as the core documents it.
const ERROR_BUDGET: u8 = 100;

const QUERIES: [&str; 12] = [
    "",
    "client=a",
    "client=a&ack=auto",
    "client=b&tags=x&replay=all",
    "client=b&tags=x,y&conflate=true",
    "client=c&keys=k1,k2&replay=new",
    "client=c&keys=",
    "ack=manual&replay=all",
    "tags=y&replay=all",
    "keys=k",
    "client=d&token=t",
    "client=%ff",
];
const TAGS: [&str; 5] = ["", "x", "x,y", "z", "y,x"];
const NODES: [&str; 5] = ["b", "c", "d", "a", "no node"];
const PATHS: [&str; 7] = ["", "c,", "c,d,", "a,", "b,", "e,", ","];
const VALUES: [&str; 7] = ["1", "{\"a\":1.10}", "[]", "[[[[]]]]", "\"\\ud800\"", "nope", ""];

/// What a node is started with, and whether its sockets take frames at once.
#[derive(Debug, Arbitrary)]
struct Setup {
    window: u8,
    connections: u8,
    sessions: u8,
    attempts: u8,
    rate: u8,
    publish_rate: u8,
    small_store: bool,
    small_values: bool,
    unsynced: bool,
    peers: u8,
    takes_frames: bool,
    busy_store: bool,
}

/// One thing that happens.
#[derive(Debug, Arbitrary)]
enum Step {
    Connect { json: bool, query: u8 },
    ConnectWith { query: String },
    Greet { link: u8, protocol: u16 },
    Dialled,
    DialFails,
    Hello { link: u8, node: u8, store: u8, incarnation: u8, odd: u8 },
    Publish { link: u8, kind: u8, id: u8, key: u8, tags: u8, ttl: u16, value: u8 },
    Send { link: u8, messages: Vec<Foreign> },
    Acknowledge { link: u8, upto: u8, position: u8 },
    Refuse { link: u8, first: u8, count: u8, reason: u8 },
    Settle { link: u8, how: u8, delivery: u8 },
    Text { link: u8, text: String },
    Bytes { link: u8, bytes: Vec<u8> },
    Garbage { link: u8, count: u8 },
    Pong { link: u8, payload: [u8; 8] },
    TakeFrames,
    HoldFrames,
    Lose { link: u8, code: Option<u16> },
    Work { jobs: u8 },
    Rest,
    StoreIsFull { ballast: u16 },
    Fail { unknown: bool, happened: bool },
    Pass { ms: u16 },
    Sleep { minutes: u16 },
    Jump { minutes: i32 },
    Ask { what: u8, number: u8 },
    Reconfigure { peers: u8, tags: u8 },
    Crash,
    ShutDown,
}

/// A message from a peer.
#[derive(Debug, Arbitrary)]
struct Foreign {
    kind: u8,
    incarnation: u8,
    sequence: u64,
    /// Milliseconds after the beginning, or before.
    version: i32,
    path: u8,
    sender: u8,
    id: u8,
    key: u8,
    tags: u8,
    expires: u16,
    value: u8,
}

/// Takes `bytes` for a start and a sequence of steps.
pub fn inputs(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let Ok(setup) = Setup::arbitrary(&mut bytes) else { return };
    let mut world = World::new(setup.config());
    world.takes_frames = setup.takes_frames;
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut bytes) else { break };
        step.make(&mut world);
        if !setup.busy_store {
            world.settle();
        }
        if world.is_over() {
            world.crash();
        }
    }
    world.heal();
}

impl Setup {
    fn config(&self) -> Config {
        let mut config = Config::new(NodeId::new("a").expect("a name"));
        let small = |number: u8, most: usize| 1 + usize::from(number) % most;
        config.tags = TagSet::new(["x"]).expect("a tag");
        config.peers = peers(self.peers);
        config.limits.delivery_window = small(self.window, 8);
        config.limits.max_connections = small(self.connections, 12);
        config.limits.max_sessions = small(self.sessions, 6);
        config.limits.max_nodes = small(self.sessions, 4);
        config.limits.publish_rate = u32::from(self.publish_rate % 8);
        config.limits.idempotency_ids = small(self.window, 6);
        config.retry.max_attempts = u32::from(self.attempts % 4) + 1;
        config.retry.max_rate = u32::from(self.rate % 4);
        if self.small_store {
            config.store.max_bytes = 2_000;
            config.store.session_max_bytes = 400;
        }
        if self.small_values {
            config.limits.max_message_bytes = 8;
            config.limits.max_key_bytes = 8;
        }
        if self.unsynced {
            config.store.durability = Durability::Normal;
        }
        config
    }
}

fn peers(bits: u8) -> Vec<String> {
    let urls = ["ws://b:1/", "ws://c:1/", "ws://a:1/"];
    let wanted = urls.iter().enumerate().filter(|(index, _)| bits & (1 << index) != 0);
    wanted.map(|(_, url)| (*url).to_owned()).collect()
}

fn pick<'a>(from: &[&'a str], index: u8) -> &'a str {
    from[usize::from(index) % from.len()]
}

impl Step {
    fn make(self, world: &mut World) {
        match self {
            Self::Connect { json, query } => {
                let protocol = if json { Protocol::Json } else { Protocol::Postcard };
                world.accept(protocol, pick(&QUERIES, query));
            }
            Self::ConnectWith { query } => drop(world.accept(Protocol::Json, &query)),
            Self::Greet { link, protocol } => {
                send(world, link, Wire::Connect(Connect { protocol }).encode());
            }
            Self::Dialled => drop(world.dialled()),
            Self::DialFails => world.dial_fails(),
            Self::Hello { link, node, store, incarnation, odd } => {
                send(
                    world,
                    link,
                    Wire::Hello(hello(world, node, store, incarnation, odd)).encode(),
                );
            }
            Self::Send { link, messages } => send_messages(world, link, &messages),
            Self::Acknowledge { link, upto, position } => {
                let position = Position::new(position.into());
                let ack = Ack { upto: upto.into(), position, wall: world.now.wall };
                send(world, link, Wire::Ack(ack).encode());
            }
            Self::Refuse { link, first, count, reason } => {
                let reason = match reason % 3 {
                    0 => NotNowReason::StoreFull,
                    1 => NotNowReason::Clock,
                    _ => NotNowReason::ShuttingDown,
                };
                let (first, last) = (first.into(), u64::from(first) + u64::from(count));
                send(world, link, Wire::NotNow(NotNow { first, last, reason }).encode());
            }
            Self::Publish { link, kind, id, key, tags, ttl, value } => {
                publish(world, link, (kind, id, key), (tags, ttl, value));
            }
            Self::Settle { link, how, delivery } => settle(world, link, how, delivery),
            Self::Text { link, text } => world.text(world.nth_link(link), text),
            Self::Bytes { link, bytes } => send(world, link, sealed(&bytes)),
            Self::Garbage { link, count } => garbage(world, link, count),
            Self::Pong { link, payload } => {
                let frame = Frame::Pong(Bytes::copy_from_slice(&payload));
                world.receive(world.nth_link(link), frame);
            }
            other => other.surroundings(world),
        }
    }

    /// What happens around the node, not on its links.
    fn surroundings(self, world: &mut World) {
        match self {
            Self::TakeFrames => {
                world.takes_frames = true;
                world.take_frames();
            }
            Self::HoldFrames => world.takes_frames = false,
            Self::Lose { link, code } => world.lose(world.nth_link(link), code),
            Self::Work { jobs } => {
                let _left = (0..jobs % 4).all(|_| world.work());
            }
            Self::Rest => world.settle(),
            Self::StoreIsFull { ballast } => world.set_ballast(ballast.into()),
            Self::Fail { unknown, happened } => world.fail(unknown, happened),
            Self::Pass { ms } => world.pass(Duration::from_millis(ms.into())),
            Self::Sleep { minutes } => {
                world.sleep(Duration::from_secs(60 * u64::from(minutes)));
                world.pass(Duration::ZERO);
            }
            Self::Jump { minutes } => {
                let wall = world.now.wall.0.saturating_add_signed(i64::from(minutes) * 60_000);
                world.now.wall = WallMs(wall.min(slipstream_core::message::MAX_WALL.0));
                world.give(Input::Timer);
            }
            Self::Ask { what, number } => world.ask(request(what, number)),
            Self::Reconfigure { peers: bits, tags } => {
                let tags = TagSet::new(slipstream_core::tags::list(pick(&TAGS, tags)));
                let tags = tags.expect("good tags");
                world.give(Input::Reconfigure { peers: peers(bits), tags });
            }
            Self::Crash => world.crash(),
            Self::ShutDown => world.give(Input::ShutDown),
            Self::Connect { .. }
            | Self::ConnectWith { .. }
            | Self::Greet { .. }
            | Self::Dialled
            | Self::DialFails
            | Self::Hello { .. }
            | Self::Publish { .. }
            | Self::Send { .. }
            | Self::Acknowledge { .. }
            | Self::Refuse { .. }
            | Self::Settle { .. }
            | Self::Text { .. }
            | Self::Bytes { .. }
            | Self::Garbage { .. }
            | Self::Pong { .. } => unreachable!("it happens on a link"),
        }
    }
}

fn send(world: &mut World, link: u8, frame: Bytes) {
    world.receive(world.nth_link(link), Frame::Binary(frame));
}

fn hello(world: &World, node: u8, store: u8, incarnation: u8, odd: u8) -> Hello {
    Hello {
        protocol: u16::from(odd & 1 == 0),
        node: pick(&NODES, node).into(),
        store: StoreId((store % 4).into()),
        incarnation: Incarnation::new((incarnation % 4).into()),
        group: String::new(),
        tags: pick(&TAGS, odd >> 5).into(),
        wall: WallMs(world.now.wall.0 + if odd & 2 == 0 { 0 } else { 90_000 }),
        durability: if odd & 4 == 0 { Durability::Full } else { Durability::Normal },
        features: odd.into(),
        max_message_bytes: if odd & 8 == 0 { 1 << 20 } else { 2 },
        max_frame_bytes: if odd & 16 == 0 { 4 << 20 } else { 64 },
        reported: Position::new(incarnation.into()),
        reported_incarnation: Incarnation::new(store.into()),
    }
}

fn publish(world: &mut World, link: u8, what: (u8, u8, u8), how: (u8, u16, u8)) {
    let ((kind, id, key), (tags, ttl, value)) = (what, how);
    let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
    let id = if id % 8 == 0 { String::new() } else { format!("m{}", id % 32) };
    let (key, value) = (format!("k{}", key % 8), pick(&VALUES, value));
    let (tags, ttl_ms) = (pick(&TAGS, tags), u64::from(ttl));
    let link = world.nth_link(link);
    match world.protocol(link) {
        Some(Protocol::Postcard) => {
            let record = Publish { kind, id: &id, key: &key, tags, ttl_ms, body: value };
            let mut writer = FrameWriter::new(BatchKind::Publish);
            (0..1 + ttl % 2).for_each(|_| writer.push(&record));
            world.receive(link, Frame::Binary(writer.finish()));
        }
        Some(Protocol::Json) | None => {
            let (name, quoted) = (kind.as_str(), format!("\"messageId\":\"{id}\","));
            let id = if id.is_empty() { "" } else { &quoted };
            let tags: Vec<String> =
                slipstream_core::tags::list(tags).map(|tag| format!("\"{tag}\"")).collect();
            let ttl = if ttl == 0 { String::new() } else { format!(",\"ttlMs\":{ttl}") };
            let tags = tags.join(",");
            world.text(
                link,
                format!(
                    "{{\"type\":\"{name}\",{id}\"key\":\"{key}\",\"value\":{value},\
                     \"targetedTags\":[{tags}]{ttl}}}"
                ),
            );
        }
    }
}

fn send_messages(world: &mut World, link: u8, messages: &[Foreign]) {
    let mut writer = FrameWriter::new(BatchKind::Messages);
    let mut buffer = BytesMut::new();
    for message in messages {
        writer.push_message(&message.message(&mut buffer));
    }
    send(world, link, writer.finish());
}

impl Foreign {
    fn message(&self, buffer: &mut BytesMut) -> Message {
        let kind = Kind::ALL[usize::from(self.kind) % Kind::ALL.len()];
        let wall = BEGINNING.0.saturating_add_signed(self.version.into());
        let expires = if kind.is_state() { 0 } else { BEGINNING.0 + u64::from(self.expires) };
        let fields = Fields {
            kind,
            incarnation: Incarnation::new((self.incarnation % 4).into()),
            sequence: Sequence::new(self.sequence),
            version: Hlc::at(WallMs(wall)),
            expires: WallMs(expires),
            group: "",
            tags: pick(&TAGS, self.tags),
            path: &format!("{}{}", pick(&PATHS, self.path), pick(&NODES, self.sender)),
            id: &format!("f{}", self.id),
            key: &format!("k{}", self.key % 8),
            body: pick(&VALUES, self.value),
        };
        Message::encode(&fields, buffer)
    }
}

fn settle(world: &mut World, link: u8, how: u8, delivery: u8) {
    let link = world.nth_link(link);
    if how >= 224 {
        return read(world, link, how, delivery);
    }
    let (position, id) = (Position::new(delivery.into()), format!("m{}", delivery % 32));
    match world.protocol(link) {
        Some(Protocol::Postcard) => {
            let record = match how % 5 {
                0 => Settle::Ack(position),
                1 => Settle::AckUpTo(position),
                2 => Settle::AckId(&id),
                3 => Settle::Retry { delivery: position, reason: "" },
                _ => Settle::Reject { delivery: position, reason: "no" },
            };
            let mut writer = FrameWriter::new(BatchKind::Settle);
            writer.push(&record);
            world.receive(link, Frame::Binary(writer.finish()));
        }
        Some(Protocol::Json) | None => {
            let text = match how % 6 {
                0 => format!("{{\"type\":\"ACK\",\"deliveryId\":{delivery}}}"),
                1 => format!("{{\"type\":\"ACK\",\"deliveryId\":{delivery},\"upTo\":true}}"),
                2 => format!("{{\"type\":\"ACK\",\"messageId\":\"{id}\"}}"),
                3 => {
                    format!("{{\"type\":\"NACK\",\"deliveryId\":{delivery},\"action\":\"retry\"}}")
                }
                4 => {
                    format!("{{\"type\":\"NACK\",\"deliveryId\":{delivery},\"action\":\"reject\"}}")
                }
                _ => format!("{{\"type\":\"NACK\",\"messageId\":\"{id}\",\"action\":\"retry\"}}"),
            };
            world.text(link, text);
        }
    }
}

fn read(world: &mut World, link: LinkId, how: u8, key: u8) {
    let kind = Kind::ALL[usize::from(how) % Kind::ALL.len()];
    let key = format!("k{}", key % 8);
    match world.protocol(link) {
        Some(Protocol::Postcard) => {
            let mut writer = FrameWriter::new(BatchKind::Reads);
            let kind = Some(kind).filter(|_| !how.is_multiple_of(7));
            writer.push(&Read { kind, id: "r", key: &key });
            writer.push(&Read { kind: None, id: "", key: &key });
            world.receive(link, Frame::Binary(writer.finish()));
        }
        Some(Protocol::Json) | None => {
            let name = pick(&["GK", "GA", "GW"], how);
            world.text(link, format!("{{\"type\":\"{name}\",\"key\":\"{key}\"}}"));
        }
    }
}

/// Frames that say nothing, one after the other: whoever sends as many as the budget is closed.
fn garbage(world: &mut World, link: u8, count: u8) {
    let link: LinkId = world.nth_link(link);
    let count = count % (ERROR_BUDGET + 20);
    for _ in 0..count {
        world.text(link, "?".into());
    }
    if count >= ERROR_BUDGET {
        world.takes_frames = true;
        world.take_frames();
        world.settle();
        // A greeting waits for a store that was full to be asked again, and errors for a greeting.
        world.pass(Duration::from_millis(1100));
        world.settle();
        assert!(world.is_over() || !world.is_open(link), "{count} errors, and the link lives");
    }
}

fn digest_query(number: u8) -> DigestQuery {
    let tags = TagSet::empty();
    match number % 3 {
        0 => DigestQuery::TagSets { after: None },
        1 => DigestQuery::Buckets { tags },
        _ => DigestQuery::Entries { tags, bucket: 4 * u16::from(number), after: None },
    }
}

fn request(what: u8, number: u8) -> AdminRequest {
    let letter = DeadLetterId::new(number.into());
    match what % 8 {
        // The corpus keeps its meaning: only the highest numbers have another one.
        _ if what >= 240 => AdminRequest::ResetClock,
        0 => AdminRequest::Status,
        1 => AdminRequest::Where { id: format!("m{}", number % 32), after: Position::default() },
        2 => AdminRequest::DeadLetters { after: letter, limit: 1 + usize::from(number % 3) },
        3 => AdminRequest::ReplayDeadLetter(letter),
        4 => AdminRequest::PurgeDeadLetter(letter),
        5 => AdminRequest::ForgetSession(pick(&["a", "app:b", "peer:b", "c"], number).into()),
        7 => AdminRequest::Digests(digest_query(number)),
        _ => AdminRequest::DeadLetterList { after: letter, limit: 1 + usize::from(number % 3) },
    }
}
