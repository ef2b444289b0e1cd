//! Byte-exact vectors: what this version writes and reads, held against what was written down.
//!
//! Frames travel between versions, and records outlive them, so a line of `wire.txt`, `json.txt`
//! or `store.txt` never changes once it is released. What is new gets a line of its own; a test
//! says which one is missing. Hashes are there too, because stores keep them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::config::{Durability, Limits};
use crate::log::epochs::EpochHistory;
use crate::log::lifetime::Lifetimes;
use crate::log::receipts::{Bounds, GivenReceipt, ReceiptCheck, ReceiptLog};
use crate::log::seen::{Seen, SeenVerdict};
use crate::log::unclaimed::Unclaimed;
use crate::mesh::topology::NodeRecord;
use crate::mesh::unmet::Unmet;
use crate::session::offer;
use crate::session::{AppRole, Beginning, Flight, Peer, Role, Session};
use crate::store::DeadReason;
use crate::store::digest::{Print, print_of};
use crate::types::clock::Hlc;
use crate::types::ids::{
    BatchId, DeadLetterId, Hash128, Incarnation, NodeId, Position, Sequence, SessionId, StoreId,
};
use crate::types::rate::RateLimit;
use crate::types::refusal::{Code, Refusal};
use crate::types::tags::TagSet;
use crate::types::time::{Instant, Now, WallMs};
use crate::wire::application::{AckMode, InForce, Replay};
use crate::wire::draft::Draft;
use crate::wire::json::{self, JsonRequest, SettleRequest as Said, SettleTarget, write};
use crate::wire::message::{Fields, Kind, Message};
use crate::wire::read::ReadRequest as Asked;
use crate::wire::{
    self, Ack, BatchKind, Connect, DeliveryHead, DigestsHead, FrameWriter, Hello, Left, NotNow,
    NotNowReason, OutcomeRecord, Publish, Read, ReadResult, ReadValue, Settle, TagSetDigest,
    TimedHead, Welcome, Wire,
};

/// The lines of one file, and which of them were looked at.
struct Vectors {
    file: &'static str,
    lines: BTreeMap<&'static str, &'static str>,
    used: RefCell<Vec<String>>,
    missing: RefCell<Vec<String>>,
}

impl Vectors {
    fn new(file: &'static str, text: &'static str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let lines: Vec<_> =
            lines.map(|line| line.split_once(" = ").expect("NAME = VECTOR")).collect();
        let count = lines.len();
        let lines: BTreeMap<_, _> = lines.into_iter().collect();
        assert_eq!(lines.len(), count, "a name is there twice in {file}");
        Self { file, lines, used: RefCell::default(), missing: RefCell::default() }
    }

    /// Holds `now` against the line of this name.
    #[track_caller]
    fn hold(&self, name: &str, now: &str) {
        let file = self.file;
        self.used.borrow_mut().push(name.into());
        let Some(then) = self.lines.get(name) else {
            self.missing.borrow_mut().push(format!("{name} = {now}"));
            return;
        };
        assert_eq!(
            now, *then,
            "`{name}` is no longer what {file} says. The wire is append-only: nodes of other \
             versions and stores of earlier ones hold these bytes. Add a variant, a frame or a \
             record behind what is there, and a vector for it; never change one"
        );
    }

    /// Holds bytes against the line of this name, and answers them.
    #[track_caller]
    fn hold_bytes(&self, name: &str, now: &[u8]) -> Bytes {
        self.hold(name, &hex(now));
        Bytes::copy_from_slice(now)
    }

    /// Everything must be written down, and every line must have been looked at: what is written
    /// down stays readable.
    fn finish(&self) {
        let (file, missing) = (self.file, self.missing.borrow());
        assert!(missing.is_empty(), "{file} lacks lines; append:\n{}", missing.join("\n"));
        let used = self.used.borrow();
        for name in self.lines.keys() {
            let looked_at = used.iter().any(|used| used == name);
            assert!(looked_at, "nothing writes `{name}` of {file} any more");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record, as it stands in a frame and in a batch, without the frame's first byte.
fn record<T: serde::Serialize>(kind: BatchKind, record: &T) -> Vec<u8> {
    let mut writer = FrameWriter::new(kind);
    writer.push(record);
    inside(&writer.finish()).to_vec()
}

/// The records of a frame, without what says which frame it is, and without its checksum.
fn inside(frame: &Bytes) -> Bytes {
    frame.slice(1..frame.len() - wire::CHECKSUM_BYTES)
}

const VERSION: Hlc = Hlc((0x019a_0b1c_2d3e << 16) | 3);

fn message(kind: Kind) -> Message {
    let fields = Fields {
        kind,
        incarnation: Incarnation::new(0x019a_0b1c_0000_0001),
        sequence: Sequence::new(300),
        version: VERSION,
        expires: WallMs(if kind.is_state() { 0 } else { 1_800_000_000_000 }),
        group: "aws-eu",
        tags: "aws,gcp",
        path: "aws-eu-1,gcp-1",
        id: "m-1",
        key: "order:123",
        body: r#"{"amount":1.10}"#,
    };
    Message::encode(&fields, &mut BytesMut::new())
}

fn hello(durability: Durability) -> Hello {
    Hello {
        protocol: 1,
        node: "aws-eu-1".into(),
        store: StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        incarnation: Incarnation::new(0x019a_0b1c_0000_0001),
        group: "aws-eu".into(),
        tags: "aws,prod".into(),
        wall: WallMs(1_790_000_000_000),
        durability,
        features: 5,
        max_message_bytes: 1 << 20,
        max_frame_bytes: 4 << 20,
        reported: Position::new(8),
        reported_incarnation: Incarnation::new(9),
    }
}

fn welcome() -> Welcome {
    Welcome {
        protocol: 1,
        instance: "azure-1".into(),
        client: "pi-1".into(),
        resumed: true,
        tags: "azure,prod".into(),
        window: 256,
        max_message_bytes: 1 << 20,
        version: "0.1.0".into(),
        in_force: None,
    }
}

fn welcome_in_force() -> Welcome {
    let keys = Some(["inv:", "order:"].map(String::from).to_vec());
    let (replay, ack) = (Replay::All, AckMode::Manual);
    Welcome {
        protocol: 2,
        in_force: Some(InForce { keys, replay, ack, conflate: false }),
        ..welcome()
    }
}

/// One of each frame; the compiler says if one is missing.
fn frame_name(frame: &Wire) -> &'static str {
    match frame {
        Wire::Hello(_) => "hello",
        Wire::Messages(_) => "messages",
        Wire::Ack(_) => "ack",
        Wire::NotNow(_) => "not_now",
        Wire::Connect(_) => "connect",
        Wire::Welcome(_) => "welcome",
        Wire::Publish(_) => "publish",
        Wire::Outcomes(_) => "outcomes",
        Wire::Deliveries(_) => "deliveries",
        Wire::Synced => "synced",
        Wire::Settle(_) => "settle",
        Wire::Conflated(_) => "conflated",
        Wire::Topology(_) => "topology",
        Wire::Have(_) => "have",
        Wire::Want(_) => "want",
        Wire::Seen(_) => "seen",
        Wire::Gone(_) => "gone",
        Wire::Digests(_) => "digests",
        Wire::Reads(_) => "reads",
        Wire::Results(_) => "results",
        Wire::Timed(_) => "timed",
    }
}

fn frames() -> Vec<Wire> {
    let position = Position::new(300);
    let mut deliveries = FrameWriter::new(BatchKind::Deliveries);
    deliveries.push(&DeliveryHead { delivery: position, redelivery: 2 });
    deliveries.push_message(&message(Kind::Sk));
    vec![
        Wire::Hello(hello(Durability::Full)),
        Wire::Messages(message(Kind::Sk).encoded().clone()),
        Wire::Ack(Ack { upto: 300, position, wall: WallMs(1_790_000_000_000) }),
        Wire::NotNow(NotNow { first: 1, last: 300, reason: NotNowReason::StoreFull }),
        Wire::Connect(Connect { protocol: 1 }),
        Wire::Welcome(welcome()),
        Wire::Publish(record(BatchKind::Publish, &publish(Kind::Cmd)).into()),
        Wire::Outcomes(record(BatchKind::Outcomes, &outcomes()[0]).into()),
        Wire::Deliveries(inside(&deliveries.finish())),
        Wire::Synced,
        Wire::Settle(record(BatchKind::Settle, &Settle::Ack(position)).into()),
        Wire::Conflated(300),
        Wire::Topology(record(BatchKind::Topology, &topology_record()).into()),
        Wire::Have(named(BatchKind::Have)),
        Wire::Want(named(BatchKind::Want)),
        Wire::Seen(named(BatchKind::Seen)),
        Wire::Gone(named(BatchKind::Gone)),
        Wire::Digests(digests()),
        Wire::Reads(record(BatchKind::Reads, &reads()[0].1).into()),
        Wire::Results(record(BatchKind::Results, &results()[0].1).into()),
        Wire::Timed(timed_batch()),
    ]
}

/// An event with half a minute left, and a value.
fn timed_batch() -> Bytes {
    let mut writer = FrameWriter::new(BatchKind::Timed);
    writer.push(&TimedHead { sent_ms: 300_000 });
    for (ms, kind) in [(30_000, Kind::Cmd), (0, Kind::Sk)] {
        writer.push(&Left { ms });
        writer.push_message(&message(kind));
    }
    inside(&writer.finish())
}

fn digests() -> Bytes {
    let mut writer = FrameWriter::new(BatchKind::Digests);
    writer.push(&DigestsHead { whole: true });
    for (tags, print) in [("", 300), ("aws,gcp", u64::MAX)] {
        writer.push(&TagSetDigest { tags: Print::of_tags(tags), print: Print::new(print) });
    }
    inside(&writer.finish())
}

fn topology_record() -> NodeRecord {
    NodeRecord {
        node: "azure-1".into(),
        store: StoreId(7),
        incarnation: Incarnation::new(300),
        revision: 301,
        tags: "azure,prod".into(),
        links: "aws-1,gcp-1".into(),
    }
}

/// Three in a row, one after a gap, and one of another start.
fn named(kind: BatchKind) -> Bytes {
    let mut seen = Seen::default();
    let origin = NodeId::new("aws-1").expect("a name");
    let [first, second] = [3, 300].map(|start| seen.source(&origin, Incarnation::new(start)));
    let ids = [(first, 300), (first, 301), (first, 302), (first, 304), (second, 1)];
    let ids = ids.map(|(source, number)| (source, Sequence::new(number)));
    inside(&offer::write(kind, ids.to_vec(), &seen, 1 << 10)[0])
}

fn publish(kind: Kind) -> Publish<'static> {
    let ttl_ms = if kind.is_state() { 0 } else { 60_000 };
    Publish { kind, id: "m-1", key: "order:123", tags: "gcp,aws", ttl_ms, body: "1.10" }
}

fn outcome_name(outcome: &OutcomeRecord<'_>) -> &'static str {
    match outcome {
        OutcomeRecord::Receipt { level: Durability::Full, .. } => "outcome.receipt.full",
        OutcomeRecord::Receipt { level: Durability::Normal, .. } => "outcome.receipt.normal",
        OutcomeRecord::Error { id: None, .. } => "outcome.error",
        OutcomeRecord::Error { id: Some(_), .. } => "outcome.error.with_id",
    }
}

fn outcomes() -> [OutcomeRecord<'static>; 4] {
    let receipt =
        |duplicate, level| OutcomeRecord::Receipt { id: "m-1", version: VERSION, duplicate, level };
    let error = |id| OutcomeRecord::Error {
        id,
        frame: 300,
        code: "STORE_FULL",
        retryable: true,
        retry_after_ms: 1000,
        message: "no room",
    };
    [
        receipt(false, Durability::Full),
        receipt(true, Durability::Normal),
        error(None),
        error(Some("m-1")),
    ]
}

fn settle_name(settle: &Settle<'_>) -> &'static str {
    match settle {
        Settle::Ack(_) => "settle.ack",
        Settle::AckUpTo(_) => "settle.ack_up_to",
        Settle::AckId(_) => "settle.ack_id",
        Settle::Retry { .. } => "settle.retry",
        Settle::Reject { .. } => "settle.reject",
    }
}

fn settles() -> [Settle<'static>; 5] {
    let delivery = Position::new(300);
    [
        Settle::Ack(delivery),
        Settle::AckUpTo(delivery),
        Settle::AckId("m-1"),
        Settle::Retry { delivery, reason: "later" },
        Settle::Reject { delivery, reason: "no" },
    ]
}

fn reads() -> [(&'static str, Read<'static>); 4] {
    let read = |kind| Read { kind, id: "r-1", key: "order:123" };
    [
        ("read.GK", read(Some(Kind::Sk))),
        ("read.GA", read(Some(Kind::Sa))),
        ("read.GW", read(Some(Kind::Sw))),
        ("read.any", Read { id: "", ..read(None) }),
    ]
}

fn results() -> [(&'static str, ReadResult<'static>); 3] {
    let value = |kind, body| ReadValue { kind, version: VERSION, origin: "aws-eu-1", body };
    let result = |value| ReadResult { id: "r-1", key: "order:123", value };
    [
        ("result.found", result(Some(value(Kind::Sk, r#"{"amount":1.10}"#)))),
        ("result.deleted", result(Some(value(Kind::Dk, "null")))),
        ("result.absent", result(None)),
    ]
}

fn reason_name(reason: NotNowReason) -> &'static str {
    match reason {
        NotNowReason::StoreFull => "not_now.store_full",
        NotNowReason::Clock => "not_now.clock",
        NotNowReason::ShuttingDown => "not_now.shutting_down",
    }
}

// keeps: formats-fixed
#[test]
fn binary_frames_are_what_was_written_down() {
    let vectors = Vectors::new("vectors/wire.txt", include_str!("wire.txt"));
    for frame in frames() {
        let bytes = vectors.hold_bytes(&format!("frame.{}", frame_name(&frame)), &frame.encode());
        assert_eq!(Wire::decode(&bytes), Ok(frame));
    }
    for (name, frame) in [
        ("frame.connect.in_force", Wire::Connect(Connect { protocol: 2 })),
        ("frame.welcome.in_force", Wire::Welcome(welcome_in_force())),
    ] {
        let bytes = vectors.hold_bytes(name, &frame.encode());
        assert_eq!(Wire::decode(&bytes), Ok(frame));
    }
    let unsynced = Wire::Hello(hello(Durability::Normal));
    let bytes = vectors.hold_bytes("frame.hello.normal", &unsynced.encode());
    assert_eq!(Wire::decode(&bytes), Ok(unsynced));
    for reason in [NotNowReason::StoreFull, NotNowReason::Clock, NotNowReason::ShuttingDown] {
        let frame = Wire::NotNow(NotNow { first: 1, last: 2, reason });
        let bytes = vectors.hold_bytes(reason_name(reason), &frame.encode());
        assert_eq!(Wire::decode(&bytes), Ok(frame));
    }
    for kind in Kind::ALL {
        let message = message(kind);
        let bytes = vectors.hold_bytes(&format!("message.{}", kind.as_str()), message.encoded());
        assert_eq!(Message::decode(&bytes), Ok((message, Bytes::new())));
        let publish = publish(kind);
        let bytes = record(BatchKind::Publish, &publish);
        let bytes = vectors.hold_bytes(&format!("publish.{}", kind.as_str()), &bytes);
        assert_eq!(wire::records::<Publish<'_>>(&bytes), Ok(vec![publish]));
    }
    for outcome in outcomes() {
        let bytes = record(BatchKind::Outcomes, &outcome);
        let bytes = vectors.hold_bytes(outcome_name(&outcome), &bytes);
        assert_eq!(wire::records::<OutcomeRecord<'_>>(&bytes), Ok(vec![outcome]));
    }
    for settle in settles() {
        let bytes = record(BatchKind::Settle, &settle);
        let bytes = vectors.hold_bytes(settle_name(&settle), &bytes);
        assert_eq!(wire::records::<Settle<'_>>(&bytes), Ok(vec![settle]));
    }
    for (name, read) in reads() {
        let bytes = vectors.hold_bytes(name, &record(BatchKind::Reads, &read));
        assert_eq!(wire::records::<Read<'_>>(&bytes), Ok(vec![read]));
    }
    for (name, result) in results() {
        let bytes = vectors.hold_bytes(name, &record(BatchKind::Results, &result));
        assert_eq!(wire::records::<ReadResult<'_>>(&bytes), Ok(vec![result]));
    }
    vectors.finish();
}

fn written(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8(out.to_vec()).expect("text")
}

// keeps: formats-fixed
#[test]
fn text_frames_of_a_node_are_what_was_written_down() {
    let vectors = Vectors::new("vectors/json.txt", include_str!("json.txt"));
    vectors.hold("out.welcome", &written(|out| write::welcome(&welcome_in_force(), out)));
    let (client, tags) = (String::new(), String::new());
    let (keys, replay, ack, conflate) = (None, Replay::New, AckMode::Auto, true);
    let in_force = Some(InForce { keys, replay, ack, conflate });
    let unnamed = Welcome { client, tags, in_force, ..welcome() };
    vectors.hold("out.welcome.unnamed", &written(|out| write::welcome(&unnamed, out)));
    vectors.hold("out.synced", &written(write::synced));
    for kind in Kind::ALL {
        let delivery = written(|out| {
            write::delivery_prefix(&message(kind), "azure-1", out);
            write::delivery_suffix(Position::new(17), 0, 0, out);
        });
        vectors.hold(&format!("out.{}", kind.as_str()), &delivery);
    }
    let again = written(|out| write::delivery_suffix(Position::new(17), 2, 0, out));
    vectors.hold("out.redelivery", &again);
    let conflated = written(|out| write::delivery_suffix(Position::new(17), 0, 300, out));
    vectors.hold("out.conflated", &conflated);
    for (name, duplicate, level) in [
        ("out.ack.durable", false, Durability::Full),
        ("out.ack.written.duplicate", true, Durability::Normal),
    ] {
        let receipt = |out: &mut BytesMut| {
            write::receipt("m-1", "aws-eu-1", VERSION, duplicate, level, out);
        };
        vectors.hold(name, &written(receipt));
    }
    for (name, id, newest) in [
        ("out.result.found", Some("r-1"), Some(message(Kind::Sk))),
        ("out.result.deleted", Some("r-1"), Some(message(Kind::Dk))),
        ("out.result.absent", None, None),
    ] {
        let result = |out: &mut BytesMut| write::result(id, "order:123", newest.as_ref(), out);
        vectors.hold(name, &written(result));
    }
    for code in Code::ALL {
        let refusal = Refusal {
            re: Some("m-1".into()),
            path: Some("$.value".into()),
            retry_after: Some(Duration::from_millis(250)),
            ..Refusal::new(code, "why")
        };
        let name = format!("out.err.{}", code.as_str());
        vectors.hold(&name, &written(|out| write::error(&refusal, 17, out)));
    }
    for (name, request) in requests() {
        let then = *vectors.lines.get(name).unwrap_or(&"");
        vectors.hold(name, if then.is_empty() { "a frame that says this" } else { then });
        assert_eq!(json::parse(then, &Limits::default()), Ok(request), "{name} = {then}");
    }
    vectors.finish();
}

/// What the frames of applications that are written down must go on to mean.
fn requests() -> Vec<(&'static str, JsonRequest<'static>)> {
    let draft = |kind, body, ttl: u64| {
        JsonRequest::Publish(Draft {
            kind,
            id: Some("m-1".into()),
            key: "order:123".into(),
            tags: "azure,gcp".into(),
            ttl: Some(Duration::from_millis(ttl)).filter(|ttl| !ttl.is_zero()),
            body,
        })
    };
    let read = |kind| {
        JsonRequest::Read(Asked {
            kind: Some(kind),
            id: Some("r-1".into()),
            key: "order:123".into(),
        })
    };
    let delivery = Position::new(17);
    vec![
        ("in.SW", draft(Kind::Sw, r#"{"nets":0.70,"bambora":3e-1}"#, 0)),
        ("in.DK", draft(Kind::Dk, "null", 0)),
        ("in.GK", read(Kind::Sk)),
        ("in.GA", read(Kind::Sa)),
        ("in.GW", read(Kind::Sw)),
        ("in.SK", draft(Kind::Sk, r#"{"amount":1.10}"#, 0)),
        ("in.SA", draft(Kind::Sa, "[1,2]", 0)),
        ("in.CMD", draft(Kind::Cmd, "true", 60_000)),
        ("in.CMD.loose", draft(Kind::Cmd, "true", 60_000)),
        ("in.ack", JsonRequest::Settle(Said::Ack(delivery))),
        ("in.ack.float", JsonRequest::Settle(Said::Ack(delivery))),
        ("in.ack.up_to", JsonRequest::Settle(Said::AckUpTo(delivery))),
        ("in.ack.id", JsonRequest::Settle(Said::AckId("m-1".into()))),
        (
            "in.nack.retry",
            JsonRequest::Settle(Said::Retry {
                target: SettleTarget::Delivery(delivery),
                reason: "later".into(),
            }),
        ),
        (
            "in.nack.reject",
            JsonRequest::Settle(Said::Reject {
                target: SettleTarget::Id("m-1".into()),
                reason: "".into(),
            }),
        ),
    ]
}

fn repeats() -> RateLimit {
    RateLimit::new(1000, Instant::from_micros(0))
}

fn application(tags: Option<&str>, keys: Option<Vec<String>>, ack: AckMode) -> Role {
    Role::Application(AppRole {
        client: Some("pi-1".into()),
        tags: tags.map(|tags| TagSet::new(crate::types::tags::list(tags)).expect("good tags")),
        keys,
        ack,
        conflate: ack == AckMode::Auto,
        from: Position::new(1),
        replay: Position::new(200),
    })
}

fn sessions() -> Vec<(&'static str, Session)> {
    let (id, next) = (SessionId::new(5), Position::new(300));
    let peer = Role::Peer(Peer {
        node: NodeId::new("gcp-1").expect("a name"),
        store: StoreId(7),
        incarnation: Incarnation::new(9),
        reported: Position::new(1000),
    });
    let mut named = Session::new(id, application(None, None, AckMode::Manual), next, repeats());
    let flight = Flight { handed: 3, failed: 2, ..Flight::new(WallMs(1_790_000_000_000)) };
    named.flights.insert(Position::new(250), flight);
    let mut conflated = Session::new(id, peer.clone(), next, repeats());
    conflated.conflate(Position::new(400));
    let role = application(None, None, AckMode::Manual);
    let mut late = Session::new(id, role, next, repeats());
    late.walk.beginning.first_event = Position::new(200);
    let role = application(None, None, AckMode::Manual);
    let mut began = Session::new(id, role, next, repeats());
    began.walk.beginning = Beginning::at(Position::new(300), WallMs(1_790_000_000_000));
    let role = application(None, None, AckMode::Manual);
    let mut refusing = Session::new(id, role, next, repeats());
    let mut flight = Flight::new(WallMs(1_790_000_000_000));
    flight.reject("no such terminal", DeadLetterId::default());
    let silent = Flight::new(WallMs(1_790_000_000_000));
    let reason = DeadReason::Unacknowledged;
    let letter = silent.letter(DeadLetterId::new(7), reason, &message(Kind::Cmd));
    refusing.dead.letters.add(Position::new(240), letter.clone());
    refusing.dead.letters.replayed(Position::new(230), &letter, Position::new(310));
    refusing.flights.insert(Position::new(250), flight);
    refusing.known.insert(Position::new(310));
    let keys = Some(vec!["order:".into(), "é".into()]);
    let role = application(Some("aws,gcp"), keys, AckMode::Auto);
    vec![
        ("session.peer", Session::new(id, peer, next, repeats())),
        ("session.peer.conflated", conflated),
        ("session.application", named),
        ("session.application.late", late),
        ("session.application.began", began),
        ("session.application.refusing", refusing),
        ("session.application.filtered", Session::new(id, role, next, repeats())),
    ]
}

// keeps: formats-fixed
#[test]
fn what_rests_in_stores_is_what_was_written_down() {
    let vectors = Vectors::new("vectors/store.txt", include_str!("store.txt"));
    let (wall, head) = (WallMs(1_790_000_000_000), Position::new(400));
    let tags = TagSet::new(["aws", "prod"]).expect("good tags");
    for (name, session) in sessions() {
        let record = session.record(wall, &tags).expect("it is stored");
        vectors.hold_bytes(name, &record.state);
        let again = Session::recover(&record, head, &tags, repeats()).expect("it can be read");
        assert_eq!(again.record(wall, &tags), Some(record), "{name}");
    }
    undelivered(&vectors);
    starts(&vectors);
    seen(&vectors);
    receipts(&vectors);
    let message = message(Kind::Sk);
    vectors.hold_bytes("message.head", message.head());
    let (key, body) = (message.key(), message.body());
    assert_eq!(Message::from_parts(message.head(), key, body).as_ref(), Ok(&message));
    // Hashes are kept by stores: of keys in `latest`, of ids and contents in receipts.
    let Some(Hash128(hash)) = message.key_hash() else { panic!("state has one") };
    vectors.hold_bytes("hash.key", &hash);
    // Stores add prints up, and nodes compare them.
    vectors.hold("hash.print", &format!("{}", print_of(&Hash128(hash), &message)));
    vectors.hold("hash.tags", &format!("{:016x}", Print::of_tags("aws,gcp")));
    vectors.hold_bytes("hash.id", &Hash128::of(&[b"m-1"]).0);
    for kind in Kind::ALL {
        let body = if kind == Kind::Sw { r#"{"a":1.10}"# } else { "[1.10]" };
        let publish = Publish { body, ..publish(kind) };
        let draft = Draft::from_wire(&publish, &Limits::default()).expect("it is good");
        let name = format!("hash.content.{}", kind.as_str());
        vectors.hold_bytes(&name, &draft.content_hash().0);
    }
    vectors.finish();
}

fn starts(vectors: &Vectors) {
    let mut epochs = EpochHistory::default();
    for (incarnation, head) in [(9, 100), (12, 400)] {
        epochs.begin(Incarnation::new(incarnation), Position::new(head));
    }
    // Before it was written down from which one on all are known.
    let known = [(9, 100), (12, 400)].map(|(i, p)| (Incarnation::new(i), Position::new(p)));
    let before = postcard::to_allocvec(&known.to_vec()).expect("a record can be encoded");
    vectors.hold_bytes("session.node.starts", &before);
    assert!(EpochHistory::recover(&before).0.knows(Incarnation::new(10)));
    let record = epochs.append_to(Vec::new());
    vectors.hold_bytes("session.node.starts.since", &record);
    let mut unmet = Unmet::default();
    unmet.configure(&["ws://peer:7400".into()], WallMs(1000), (WallMs(2000), Vec::new()));
    vectors.hold_bytes("session.node.unmet", &unmet.append_to(Vec::new()));
    let at = |wall| Now { instant: Instant::default(), wall: WallMs(wall) };
    let (mut lifetimes, _) = Lifetimes::recover(&[], Position::new(400), at(1_790_000_000_000));
    assert!(lifetimes.compare(at(1_790_000_000_300)));
    let stored = lifetimes.append_to(Vec::new());
    vectors.hold_bytes("session.node.lifetimes", &stored);
    let (again, _) = Lifetimes::recover(&stored, Position::new(400), at(1_790_000_000_300));
    assert_eq!(again.time(at(1_790_000_000_300)), WallMs(1_790_000_000_000));
    assert_eq!(EpochHistory::recover(&record).0, epochs);
    epochs.note_loss(Incarnation::new(12), WallMs(7000));
    let loss = epochs.append_loss_to(Vec::new(), false);
    vectors.hold_bytes("session.node.loss", &loss);
    let (mut recovered, _) = EpochHistory::recover(&record);
    recovered.recover_loss(&loss);
    assert_eq!(recovered, epochs);
}

fn undelivered(vectors: &Vectors) {
    let (wall, head) = (WallMs(1_790_000_000_000), Position::new(400));
    let mut unclaimed = Unclaimed::recover(None, Position::new(0));
    for (position, ttl) in [(7, 1000), (9, 86_400_000), (300, 1000)] {
        unclaimed.note(Position::new(position), WallMs(wall.0 + ttl), wall);
    }
    unclaimed.noted(head);
    unclaimed.delivered(Position::new(7));
    let record = unclaimed.take_record(Instant::default()).expect("it has changed");
    vectors.hold_bytes("session.node", &record.state);
    let mut again = Unclaimed::recover(Some(&record), head);
    assert_eq!(again.take_record(Instant::default()), Some(record));
}

fn seen(vectors: &Vectors) {
    let mut seen = Seen::default();
    let origin = NodeId::new("gcp-1").expect("a name");
    let source = seen.source(&origin, Incarnation::new(9));
    let marked = [1, 2, 3, 70, 65_536, 65_537];
    for sequence in marked {
        seen.mark(source, Sequence::new(sequence));
    }
    let (records, _) = seen.take_changes();
    for record in &records {
        vectors.hold_bytes(&format!("seen.{}", record.key.chunk), &record.marks);
    }
    let mut again = Seen::recover(&records);
    let source = again.source(&origin, Incarnation::new(9));
    for sequence in 1..70_000 {
        let expected =
            if marked.contains(&sequence) { SeenVerdict::Seen } else { SeenVerdict::New };
        assert_eq!(again.check(source, Sequence::new(sequence)), expected, "{sequence}");
    }
}

fn receipts(vectors: &Vectors) {
    let (session, wall) = (SessionId::new(5), WallMs(1_790_000_000_000));
    let bounds = Bounds { ids: 10, bytes: 1 << 20 };
    let (id, content) = (Hash128::of(&[b"m-1"]), Hash128::of(&[b"content"]));
    let receipt = GivenReceipt { content, version: Hlc::at(wall), batch: BatchId::new(0) };
    let now = Now { instant: Instant::default(), wall };
    let mut receipts = ReceiptLog::recover(&[], bounds, wall, now);
    receipts.insert(session, true, id, receipt, wall);
    let (blocks, _) = receipts.take_blocks([session].into_iter(), wall);
    vectors.hold_bytes("receipts", &blocks[0].receipts);
    let again = ReceiptLog::recover(&blocks, bounds, wall, now);
    assert_eq!(again.check(session, &id, &content, wall), ReceiptCheck::Same(receipt));
}
