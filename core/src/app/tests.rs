//! Sessions against a node that remembers what a node would, with connections that are cut between
//! any two frames.

mod texts;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::config::{Durability, Heartbeat, Limits, Reconnect};
use crate::io::{End, Frame, Protocol};
use crate::types::clock::Hlc;
use crate::types::ids::{Incarnation, Position, Sequence};
use crate::types::refusal::{Code, Refusal};
use crate::types::time::{Instant, WallMs};
use crate::wire::application::{AckMode, ConnectParams, Replay};
use crate::wire::json::{JsonRequest, SettleTarget, parse, write};
use crate::wire::message::{Fields, Kind, Message};
use crate::wire::{self, BatchKind, DeliveryHead, FrameWriter, Publish, Settle, Welcome, Wire};

pub(crate) const NOW: Instant = Instant::from_micros(0);
pub(crate) const WINDOW: u32 = 8;

pub(crate) type App = ClientSession<usize, usize>;

pub(crate) fn settings(named: bool) -> ClientSettings {
    ClientSettings {
        protocol: Protocol::Postcard,
        named,
        reconnects: true,
        window: 64,
        heartbeat: Heartbeat::default(),
        reconnect: Reconnect::default(),
    }
}

pub(crate) fn session(named: bool) -> App {
    ClientSession::new(settings(named), 42, NOW)
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        protocol: 1,
        instance: "n".into(),
        client: "a".into(),
        resumed: true,
        tags: String::new(),
        window: WINDOW,
        max_message_bytes: 1024,
        version: "1".into(),
        in_force: None,
    }
}

pub(crate) fn message(number: u64) -> Message {
    let fields = Fields {
        kind: Kind::Sk,
        incarnation: Incarnation::new(7),
        sequence: Sequence::new(number),
        version: Hlc(number),
        expires: WallMs(0),
        group: "",
        tags: "",
        path: "n",
        id: "m",
        key: "k",
        body: "1",
    };
    Message::encode(&fields, &mut BytesMut::new())
}

pub(crate) fn lost() -> DisconnectReason {
    DisconnectReason::Lost("a cable was pulled".into())
}

/// A node with one application, and the frames under way.
#[derive(Default)]
pub(crate) struct Node {
    /// Whether it speaks JSON.
    pub(crate) json: bool,
    /// Ids of what it has accepted, in order.
    pub(crate) accepted: Vec<String>,
    /// Ids that it was sent more than once.
    pub(crate) repeated: BTreeSet<String>,
    /// Deliveries that are not settled, and how often each was sent.
    pub(crate) unsettled: BTreeMap<u64, u32>,
    pub(crate) rejected: BTreeSet<u64>,
    /// Whether it refuses because it is ending.
    pub(crate) ending: bool,
    /// Deliveries that were sent on this connection.
    pub(crate) told: BTreeSet<u64>,
    pub(crate) last: u64,
    pub(crate) to_app: VecDeque<Frame>,
    pub(crate) from_app: VecDeque<Frame>,
}

impl Node {
    pub(crate) fn connect(&mut self, app: &mut App) {
        app.connected(&welcome(), NOW, &mut Vec::new());
        self.told.clear();
        self.repeat();
    }

    pub(crate) fn cut(&mut self) {
        self.ending = false;
        self.to_app.clear();
        self.from_app.clear();
    }

    pub(crate) fn repeat(&mut self) {
        let unsettled: Vec<u64> = self.unsettled.keys().copied().collect();
        for number in unsettled {
            self.deliver(number);
        }
    }

    pub(crate) fn deliver(&mut self, number: u64) {
        let sent = self.unsettled.entry(number).or_default();
        let head = DeliveryHead { delivery: Position::new(number), redelivery: *sent };
        *sent += 1;
        if self.json {
            let mut out = BytesMut::new();
            write::delivery_prefix(&message(number), "n", &mut out);
            write::delivery_suffix(head.delivery, head.redelivery, 0, &mut out);
            self.told.insert(number);
            self.to_app.push_back(Frame::Text(out.freeze()));
            return;
        }
        let mut writer = FrameWriter::new(BatchKind::Deliveries);
        writer.push(&head);
        writer.push_message(&message(number));
        self.told.insert(number);
        self.to_app.push_back(Frame::Binary(writer.finish()));
    }

    pub(crate) fn publish(&mut self) {
        if self.unsettled.len() < WINDOW as usize {
            self.last += 1;
            self.deliver(self.last);
        }
    }

    pub(crate) fn read(&mut self) {
        let frame = match self.from_app.pop_front() {
            Some(Frame::Binary(frame)) => frame,
            Some(Frame::Text(text)) => return self.read_text(&text),
            Some(Frame::Ping(_) | Frame::Pong(_)) | None => return,
        };
        match Wire::decode(&frame).expect("the session speaks the protocol") {
            Wire::Publish(batch) => {
                let mut writer = FrameWriter::new(BatchKind::Outcomes);
                for Publish { id, .. } in wire::records(&batch).expect("records") {
                    if self.ending {
                        let (code, message) = ("SHUTTING_DOWN", "");
                        let (id, frame, retryable) = (Some(id), 1, true);
                        let refused = wire::OutcomeRecord::Error {
                            id,
                            frame,
                            code,
                            retryable,
                            retry_after_ms: 0,
                            message,
                        };
                        writer.push(&refused);
                        continue;
                    }
                    let duplicate = self.accept(id);
                    let (version, level) = (Hlc::default(), Durability::Full);
                    writer.push(&wire::OutcomeRecord::Receipt { id, version, duplicate, level });
                }
                self.to_app.push_back(Frame::Binary(writer.finish()));
            }
            Wire::Settle(batch) => {
                for settle in wire::records::<Settle<'_>>(&batch).expect("records") {
                    self.settle(settle);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn read_text(&mut self, text: &[u8]) {
        let text = core::str::from_utf8(text).expect("it is text");
        let mut out = BytesMut::new();
        match parse(text, &Limits::default()).expect("the session speaks the protocol") {
            JsonRequest::Publish(draft) => {
                let id = draft.id.expect("it has an id");
                if self.ending {
                    let re = Some(id.into());
                    let refusal = Refusal::new(Code::ShuttingDown, "");
                    write::error(&Refusal { re, ..refusal }, 1, &mut out);
                } else {
                    let duplicate = self.accept(&id);
                    write::receipt(&id, "n", Hlc(9), duplicate, Durability::Full, &mut out);
                }
                self.to_app.push_back(Frame::Text(out.freeze()));
            }
            JsonRequest::Settle(wire::json::SettleRequest::Ack(delivery)) => {
                self.settle(Settle::Ack(delivery))
            }
            JsonRequest::Settle(wire::json::SettleRequest::Retry {
                target: SettleTarget::Delivery(delivery),
                reason,
            }) => {
                self.settle(Settle::Retry { delivery, reason: &reason });
            }
            JsonRequest::Settle(wire::json::SettleRequest::Reject {
                target: SettleTarget::Delivery(delivery),
                reason,
            }) => {
                self.settle(Settle::Reject { delivery, reason: &reason });
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether it has accepted this before.
    fn accept(&mut self, id: &str) -> bool {
        let duplicate = self.accepted.iter().any(|known| known == id);
        if duplicate {
            self.repeated.insert(id.into());
        } else {
            self.accepted.push(id.into());
        }
        duplicate
    }

    pub(crate) fn settle(&mut self, settle: Settle<'_>) {
        let told = |delivery: Position| {
            assert!(self.told.contains(&delivery.get()), "it was not delivered on this connection");
            delivery.get()
        };
        match settle {
            Settle::Ack(delivery) => drop(self.unsettled.remove(&told(delivery))),
            Settle::Reject { delivery, .. } => {
                let number = told(delivery);
                if self.unsettled.remove(&number).is_some() {
                    assert!(self.rejected.insert(number));
                }
            }
            Settle::Retry { delivery, .. } => {
                let number = told(delivery);
                if self.unsettled.contains_key(&number) {
                    self.deliver(number);
                }
            }
            Settle::AckUpTo(_) | Settle::AckId(_) => panic!("sessions settle one by one"),
        }
    }
}

/// What can happen between an application and its node.
#[derive(Debug, Clone)]
enum Step {
    AppPublishes,
    AppSends,
    AppReads,
    AppSettles(usize, u8),
    NodeReads,
    NodeDelivers,
    NodeRepeats,
    NodeEnds,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::AppPublishes),
        6 => Just(Step::AppSends),
        8 => Just(Step::AppReads),
        4 => (any::<usize>(), any::<u8>()).prop_map(|(which, how)| Step::AppSettles(which, how)),
        8 => Just(Step::NodeReads),
        4 => Just(Step::NodeDelivers),
        1 => Just(Step::NodeRepeats),
        1 => Just(Step::NodeEnds),
        1 => Just(Step::Cut),
    ]
}

/// An application and its node, and what each of them has seen.
struct World {
    app: App,
    node: Node,
    heard: Vec<Heard<usize, usize>>,
    published: usize,
    answers: BTreeMap<usize, Result<Receipt, PublishError>>,
    hands: Vec<DeliveredMessage>,
    /// How often each message may be handed over: once, and again for each time that the
    /// application wants it again.
    allowed: BTreeMap<u64, u32>,
}

impl World {
    fn new(named: bool) -> Self {
        Self::speaking(named, false)
    }

    fn speaking(named: bool, json: bool) -> Self {
        let protocol = if json { Protocol::Json } else { Protocol::Postcard };
        let mut world = Self {
            app: ClientSession::new(ClientSettings { protocol, ..settings(named) }, 42, NOW),
            node: Node { json, ..Node::default() },
            heard: Vec::new(),
            published: 0,
            answers: BTreeMap::new(),
            hands: Vec::new(),
            allowed: BTreeMap::new(),
        };
        world.node.connect(&mut world.app);
        world
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::AppPublishes if self.app.room() > 0 => {
                let refused = self.app.publish(Publication::set("k", "1"), self.published);
                assert!(refused.is_none());
                self.published += 1;
            }
            Step::AppPublishes => {}
            Step::AppSends => self.node.from_app.extend(self.app.frames(NOW, &mut Vec::new())),
            Step::AppReads => {
                if let Some(frame) = self.node.to_app.pop_front() {
                    self.app.received(&frame, NOW, &mut self.heard).expect("it is understood");
                }
            }
            Step::AppSettles(which, how) if !self.hands.is_empty() => {
                let delivery = self.hands.swap_remove(which % self.hands.len());
                let number = delivery.id.get();
                let verdict = match how % 8 {
                    0 => Some(Verdict::Retry("later".into())),
                    1 => Some(Verdict::Reject("never".into())),
                    2 => None,
                    _ => Some(Verdict::Ack),
                };
                if matches!(verdict, None | Some(Verdict::Retry(_))) {
                    *self.allowed.entry(number).or_insert(1) += 1;
                }
                self.app.settle(Settlement::of(&delivery, verdict));
            }
            Step::AppSettles(..) => {}
            Step::NodeReads => self.node.read(),
            Step::NodeDelivers => self.node.publish(),
            Step::NodeRepeats => self.node.repeat(),
            Step::NodeEnds => self.node.ending = true,
            Step::Cut => {
                self.node.cut();
                assert!(self.app.lost(&lost(), &mut self.heard).is_some());
                self.node.connect(&mut self.app);
            }
        }
        self.listen();
    }

    fn listen(&mut self) {
        for heard in self.heard.drain(..) {
            match heard {
                Heard::Published(ticket, answer) => {
                    let first = self.answers.insert(ticket, answer).is_none();
                    assert!(first, "{ticket} is answered twice");
                }
                Heard::Delivered(delivery) => {
                    let allowed = self.allowed.entry(delivery.id.get()).or_insert(1);
                    assert!(*allowed > 0, "{} is handed over again", delivery.id);
                    *allowed -= 1;
                    self.hands.push(delivery);
                }
                Heard::Read(..) | Heard::Synced => panic!("nobody asked"),
            }
        }
    }

    /// Everything that is under way arrives, and all that is handed over is acknowledged.
    fn settle_down(&mut self) {
        if self.node.ending {
            self.step(&Step::Cut);
        }
        for _ in 0..1_000 {
            self.step(&Step::AppSends);
            self.step(&Step::NodeReads);
            self.step(&Step::AppReads);
            self.step(&Step::AppSettles(0, 7));
        }
        // What was let go of without a word comes again when its time is over.
        self.node.repeat();
        for _ in 0..100 {
            self.step(&Step::AppReads);
            self.step(&Step::AppSettles(0, 7));
            self.step(&Step::AppSends);
            self.step(&Step::NodeReads);
        }
    }
}

proptest! {
    // keeps: client-publish
    #[test]
    fn with_a_name_all_is_published_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..300),
        json: bool,
    ) {
        let mut world = World::speaking(true, json);
        steps.iter().for_each(|step| world.step(step));
        world.settle_down();
        prop_assert_eq!(world.answers.len(), world.published);
        let ids: Vec<_> = world
            .answers
            .values()
            .map(|answer| answer.as_ref().expect("a receipt").id.to_string())
            .collect();
        prop_assert_eq!(ids, world.node.accepted);
        prop_assert!(world.app.is_idle());
    }

    // keeps: client-publish
    #[test]
    fn without_a_name_nothing_is_sent_twice(
        steps in proptest::collection::vec(step(), 1..300),
        json: bool,
    ) {
        let mut world = World::speaking(false, json);
        steps.iter().for_each(|step| world.step(step));
        world.settle_down();
        prop_assert_eq!(world.answers.len(), world.published);
        prop_assert!(world.node.repeated.is_empty());
        for answer in world.answers.values() {
            match answer {
                Ok(receipt) => {
                    prop_assert!(world.node.accepted.iter().any(|id| *id == *receipt.id));
                }
                Err(error) => prop_assert!(matches!(error, PublishError::Unanswered(_))),
            }
        }
    }

    // keeps: client-deliver
    #[test]
    fn every_message_is_settled_and_handed_over_as_often_as_wanted(
        steps in proptest::collection::vec(step(), 1..300),
        json: bool,
    ) {
        let mut world = World::speaking(true, json);
        // The number of hand-overs is judged at each of them.
        steps.iter().for_each(|step| world.step(step));
        world.settle_down();
        prop_assert!(world.node.unsettled.is_empty(), "{:?}", world.node.unsettled);
        prop_assert_eq!(world.allowed.len() as u64, world.node.last);
        prop_assert!(world.hands.is_empty());
    }

    #[test]
    fn a_filter_says_what_the_node_reads(
        name in proptest::option::of("[A-Za-z0-9._-]{1,64}"),
        tags in proptest::option::of(proptest::collection::btree_set("[a-z]{1,8}", 1..4)),
        keys in proptest::option::of(proptest::collection::btree_set(".{1,20}", 0..4)),
        (replay, conflate) in (any::<bool>(), any::<bool>()),
    ) {
        let mut filter = name.as_ref().map_or_else(Filter::all, Filter::named);
        if let Some(tags) = &tags {
            filter = filter.tags(tags.iter().cloned());
        }
        if let Some(keys) = &keys {
            filter = filter.keys(keys.iter().cloned());
        }
        if replay {
            filter = filter.replay(Replay::New);
        }
        if conflate {
            filter = filter.conflate();
        }
        let wishes = ConnectParams::parse(&filter.query(), &Limits::default());
        let wishes = wishes.expect("it is understood");
        prop_assert_eq!(wishes.client, name);
        let read = wishes.tags.map(|tags| tags.iter().map(String::from).collect());
        prop_assert_eq!(read, tags);
        prop_assert_eq!(wishes.keys, keys.map(|keys| keys.into_iter().collect()));
        prop_assert_eq!(wishes.replay, replay.then_some(Replay::New));
        prop_assert_eq!((wishes.ack, wishes.conflate), (Some(AckMode::Manual), conflate));
    }
}

// keeps: client-deliver
#[test]
fn no_settlement_meets_the_wrong_message_after_a_rollback() {
    let mut world = World::new(true);
    world.step(&Step::NodeDelivers);
    world.step(&Step::AppReads);
    let held = world.hands.pop().expect("it was handed over");
    world.node.cut();
    assert!(world.app.lost(&lost(), &mut world.heard).is_some());
    world.node.unsettled.clear();
    world.node.connect(&mut world.app);
    // Number 1 is another message now.
    let mut writer = FrameWriter::new(BatchKind::Deliveries);
    writer.push(&DeliveryHead { delivery: Position::new(1), redelivery: 0 });
    writer.push_message(&message(99));
    world.node.to_app.push_back(Frame::Binary(writer.finish()));
    world.app.settle(Settlement::of(&held, Some(Verdict::Ack)));
    assert!(
        world.app.frames(NOW, &mut Vec::new()).is_empty(),
        "it is not said before the node repeats it"
    );
    world.allowed.insert(1, 1);
    world.step(&Step::AppReads);
    assert_eq!(world.hands.len(), 1, "the other message is handed over");
    world.app.settle(Settlement::of(&held, Some(Verdict::Ack)));
    assert!(
        world.app.frames(NOW, &mut Vec::new()).is_empty(),
        "and not settled by what was said of the first"
    );
}

#[test]
fn answers_to_nothing_and_frames_for_others_end_the_connection() {
    let receipt = |id| {
        let mut writer = FrameWriter::new(BatchKind::Outcomes);
        let (version, level) = (Hlc::default(), Durability::Full);
        writer.push(&wire::OutcomeRecord::Receipt { id, version, duplicate: false, level });
        Frame::Binary(writer.finish())
    };
    let frames =
        [receipt("nobody"), Frame::Binary(Bytes::from_static(&[1])), Frame::Text("[".into())];
    for frame in frames {
        let mut app = session(true);
        app.connected(&welcome(), NOW, &mut Vec::new());
        app.publish(Publication::set("k", "1"), 1);
        app.frames(NOW, &mut Vec::new());
        let error = app.received(&frame, NOW, &mut Vec::new()).expect_err("it is not understood");
        let mut heard = Vec::new();
        assert_eq!(app.lost(&error.into(), &mut heard), None, "it would happen again");
        let [Heard::Published(1, Err(PublishError::Unanswered(_)))] = &heard[..] else {
            panic!("{heard:?}");
        };
    }
}

#[test]
fn reads_and_publications_are_sent_in_their_order() {
    let mut app = session(false);
    app.connected(&welcome(), NOW, &mut Vec::new());
    app.publish(Publication::set("k", "1"), 1);
    app.read("k".into(), None, 2);
    app.publish(Publication::delete("k"), 3);
    let kinds = app.frames(NOW, &mut Vec::new()).into_iter().map(|frame| match frame {
        Frame::Binary(bytes) => match Wire::decode(&bytes).expect("a frame") {
            Wire::Publish(_) => "publish",
            Wire::Reads(_) => "read",
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["publish", "read", "publish"]);
    assert!(app.frames(NOW, &mut Vec::new()).is_empty());
    // A read changes nothing, and is asked again without a name too.
    let mut heard = Vec::new();
    app.lost(&lost(), &mut heard);
    assert_eq!(heard.len(), 2);
    app.connected(&welcome(), NOW, &mut Vec::new());
    assert_eq!(app.frames(NOW, &mut Vec::new()).len(), 1);
}

#[test]
fn a_message_that_would_end_the_connection_is_refused_here() {
    let mut app = session(true);
    app.connected(&welcome(), NOW, &mut Vec::new());
    let large = format!("\"{}\"", "x".repeat(4096));
    match app.publish(Publication::set("k", large), 1) {
        Some(Heard::Published(1, Err(PublishError::Refused(refused)))) => {
            assert_eq!(&*refused.code, "TOO_LARGE");
        }
        other => panic!("{other:?}"),
    }
    assert!(app.is_idle());
}

#[test]
fn a_silent_node_is_asked_and_then_given_up() {
    let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
    let mut app = session(true);
    app.connected(&welcome(), NOW, &mut Vec::new());
    assert_eq!(app.beat(NOW), Beat::Wait(at(10)));
    assert_eq!(app.beat(at(10)), Beat::Ping);
    assert_eq!(app.beat(at(11)), Beat::Wait(at(20)));
    assert_eq!(app.beat(at(20)), Beat::Ping);
    app.received(&Frame::Pong(Bytes::new()), at(21), &mut Vec::new()).expect("a pong");
    assert_eq!(app.beat(at(22)), Beat::Wait(at(31)));
    assert!(matches!(app.beat(at(51)), Beat::Dead(_)));
    app.received(&Frame::Ping("p".into()), at(52), &mut Vec::new()).expect("a ping");
    assert_eq!(app.beat(at(53)), Beat::Wait(at(62)));
}

// keeps: signs-of-life
#[test]
fn a_node_whose_bytes_move_is_not_given_up() {
    let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
    let mut app = session(true);
    app.connected(&welcome(), NOW, &mut Vec::new());
    for seconds in (20..300).step_by(20) {
        assert_eq!(app.beat(at(seconds)), Beat::Ping);
        app.moved(at(seconds));
    }
    assert!(matches!(app.beat(at(311)), Beat::Dead(_)), "and then they do not");
}

#[test]
fn do_not_come_again_is_obeyed_and_attempts_are_counted() {
    let closed = |code| DisconnectReason::from(End::here(code, String::new()));
    for (code, again) in [(1001, true), (4400, false), (4408, true), (4409, false), (4429, true)] {
        let waits = session(true).lost(&closed(code), &mut Vec::new()).is_some();
        assert_eq!(waits, again, "{code}");
    }
    let mut app = session(true);
    app.settings.reconnect.max_attempts = 3;
    let attempts = core::iter::repeat_with(|| app.lost(&lost(), &mut Vec::new()));
    assert_eq!(attempts.take_while(Option::is_some).count(), 3);
}

// keeps: client-publish
#[test]
fn what_was_ever_said_is_never_called_not_sent() {
    let mut app = session(true);
    app.connected(&welcome(), NOW, &mut Vec::new());
    app.publish(Publication::set("k", "1"), 1);
    assert_eq!(app.frames(NOW, &mut Vec::new()).len(), 1);
    let mut heard = Vec::new();
    assert!(app.lost(&lost(), &mut heard).is_some());
    app.publish(Publication::set("k", "2"), 2);
    assert!(app.lost(&DisconnectReason::Here, &mut heard).is_none());
    let [
        Heard::Published(1, Err(PublishError::Unanswered(_))),
        Heard::Published(2, Err(PublishError::NotSent(_))),
    ] = &heard[..]
    else {
        panic!("{heard:?}");
    };
}

// keeps: client-publish
#[test]
fn what_the_node_may_have_forgotten_is_not_said_again() {
    let mut app = session(true);
    app.connected(&welcome(), NOW, &mut Vec::new());
    app.publish(Publication::set("k", "1"), 1);
    app.frames(NOW, &mut Vec::new());
    app.lost(&lost(), &mut Vec::new());
    let next_day = Instant::from_micros(24 * 60 * 60 * 1_000_000);
    let mut heard = Vec::new();
    app.connected(&welcome(), next_day, &mut heard);
    assert!(app.frames(next_day, &mut Vec::new()).is_empty());
    let [Heard::Published(1, Err(PublishError::Unanswered(_)))] = &heard[..] else {
        panic!("{heard:?}");
    };
}

// keeps: client-deliver
#[test]
fn what_is_settled_while_there_is_no_connection_is_remembered() {
    let mut world = World::new(true);
    for _ in 0..WINDOW {
        world.step(&Step::NodeDelivers);
        world.step(&Step::AppReads);
    }
    world.node.cut();
    world.app.lost(&lost(), &mut world.heard);
    for held in core::mem::take(&mut world.hands) {
        world.app.settle(Settlement::of(&held, Some(Verdict::Ack)));
    }
    world.node.connect(&mut world.app);
    // How often each may be handed over is judged at each hand-over.
    world.settle_down();
    assert!(world.node.unsettled.is_empty());
}

// keeps: client-memory
#[test]
fn frames_are_no_larger_than_the_node_takes() {
    let mut app = session(true);
    app.connected(&welcome(), NOW, &mut Vec::new());
    for number in 0..60 {
        let body = format!("\"{}\"", "x".repeat(300));
        assert!(app.publish(Publication::set("k", body), number).is_none());
    }
    let lengths = app.frames(NOW, &mut Vec::new()).into_iter().map(|frame| frame.cost() - 64);
    assert!(lengths.max().is_some_and(|longest| longest <= 4 * 1024));
}

#[test]
fn a_refused_acknowledgement_is_no_answer_to_a_question() {
    let mut app = session(true);
    app.connected(&welcome(), NOW, &mut Vec::new());
    app.publish(Publication::set("k", "1"), 1);
    app.frames(NOW, &mut Vec::new());
    let mut writer = FrameWriter::new(BatchKind::Outcomes);
    let (code, message) = ("INVALID_FIELD", "the reason is too long");
    let (id, frame, retryable) = (None, 3, false);
    writer.push(&wire::OutcomeRecord::Error {
        id,
        frame,
        code,
        retryable,
        retry_after_ms: 0,
        message,
    });
    let mut heard = Vec::new();
    app.received(&Frame::Binary(writer.finish()), NOW, &mut heard).expect("it is understood");
    assert!(heard.is_empty(), "{heard:?}");
    // A long reason is cut to what the node takes, and an id that it could not name is refused.
    let mut world = World::new(true);
    world.step(&Step::NodeDelivers);
    world.step(&Step::AppReads);
    let held = world.hands.pop().expect("it was handed over");
    let reason = "\u{e9}".repeat(5_000);
    world.app.settle(Settlement::of(&held, Some(Verdict::Reject(reason))));
    let [frame] = &world.app.frames(NOW, &mut Vec::new())[..] else { panic!("one settlement") };
    assert!(frame.cost() < 64 + 4096 + 64);
    let long = Publication::set("k", "1").with_id("x".repeat(129));
    assert!(world.app.publish(long, 1).is_some());
}

#[test]
fn what_was_left_out_is_told_with_the_next_delivery() {
    let mut world = World::new(true);
    world.step(&Step::NodeDelivers);
    world.step(&Step::AppReads);
    world.node.to_app.push_back(Frame::Binary(Wire::Conflated(5).encode()));
    for step in [Step::NodeRepeats, Step::NodeDelivers, Step::AppReads, Step::AppReads] {
        world.step(&step);
    }
    world.step(&Step::AppReads);
    let last = world.hands.last().map(|delivery| (delivery.id.get(), delivery.conflated));
    assert_eq!(last, Some((2, 5)));
}

// keeps: client-memory
#[test]
fn a_full_application_does_not_give_up_its_silent_node() {
    let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
    let mut world = World::new(true);
    for _ in 0..=2 * WINDOW {
        assert!(!world.app.is_full());
        world.step(&Step::NodeDelivers);
        // As when newer values take the places of these.
        world.node.unsettled.clear();
        world.step(&Step::AppReads);
    }
    assert!(world.app.is_full());
    for seconds in (10..200).step_by(10) {
        assert_eq!(world.app.beat(at(seconds)), Beat::Ping);
    }
    world.step(&Step::AppSettles(0, 7));
    assert!(!world.app.is_full());
}

#[test]
fn an_empty_tag_is_nobody_and_an_empty_prefix_every_key() {
    assert_eq!(Publication::set("k", "1").to([""]).record().tags, ",");
    assert_eq!(Publication::set("k", "1").to([]).record().tags, "");
    assert_eq!(Filter::all().keys([""]).query(), "ack=manual");
    assert_eq!(Filter::none().query(), "keys=&ack=manual");
    let commas = Filter::all().keys(["a,b", "c", "d,"]).tags(["x,y"]);
    assert_eq!(commas.query(), "tags=x%252Cy&keys=c&key=a%2Cb&key=d%2C&ack=manual");
    assert!(ConnectParams::parse("tags=x%252Cy", &Limits::default()).is_err());
}
