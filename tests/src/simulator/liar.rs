//! A peer that lies: it links to nodes as one of them, repeats what it heard with a path that is
//! not true, acknowledges and refuses at random, claims digests of what nobody holds, and says
//! things that have no place.
//!
//! What it cannot be held to is what no protocol without signatures can: it may not give a true
//! identity another content, nor put a node on a path that was never there.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use slipstream_core::clock::Hlc;
use slipstream_core::config::Durability;
use slipstream_core::digest::Print;
use slipstream_core::ids::{Incarnation, Position, Sequence, StoreId};
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::tags::TagSet;
use slipstream_core::time::WallMs;
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{
    Ack, BatchKind, DigestsHead, FrameWriter, Hello, NotNow, NotNowReason, TagSetDigest, Wire,
};

use super::counts::Fault;
use super::frames::Item;
use super::network::{Carried, ConnId, End};
use super::plan::SECOND;
use super::site::BEGINNING;
use super::world::{Event, World};

/// Its name.
pub const NAME: &str = "zz-liar";

/// Messages that it remembers.
const REMEMBERED: usize = 64;

/// What it knows.
#[derive(Debug, Default)]
pub struct Liar {
    links: Vec<(ConnId, usize)>,
    heard: Vec<Message>,
    received: u64,
    said: u64,
    wants: bool,
}

impl World {
    /// The liar will say something before long.
    pub fn arrange_lie(&mut self) -> bool {
        let liar = self.liar.get_or_insert_default();
        if !liar.wants {
            liar.wants = true;
            self.at(1, Event::Lie);
        }
        false
    }

    /// The liar is there no more.
    pub fn liar_leaves(&mut self) {
        if let Some(liar) = self.liar.take() {
            for (conn, _) in liar.links {
                self.cut(conn);
            }
        }
    }

    /// It links to a node, or says something on a link that it has.
    pub fn lie(&mut self) {
        if self.healed {
            return;
        }
        let wait = self.random.between(20_000, SECOND);
        self.at(wait, Event::Lie);
        let links = self.liar.as_ref().map_or(0, |liar| liar.links.len());
        if links < 2 && (links == 0 || self.random.chance(200)) {
            let site = self.random.index(self.sites.len());
            self.liar_dials(site);
            return;
        }
        let Some(liar) = &self.liar else { return };
        let choice = self.random.index(liar.links.len());
        let (conn, site) = liar.links[choice];
        self.counts.fault(Fault::Lie);
        let frame = match self.random.below(18) {
            0..=4 => self.repeated(site),
            5..=6 => self.own_message(),
            7 => Some(self.random_ack()),
            8 => Some(self.random_refusal()),
            9 => Some(self.hello_of_liar()),
            10 | 11 => self.random_naming(site),
            12 | 13 => Some(self.forged_record()),
            14 => {
                let length = self.random.below(60) as usize;
                Some(Frame::Binary((0..length).map(|_| self.random.next() as u8).collect()))
            }
            15 | 16 => Some(self.false_claim()),
            _ => self.far_ahead(),
        };
        if let Some(frame) = frame {
            self.liar_says(conn, frame);
        }
    }

    fn liar_dials(&mut self, site: usize) {
        let Some(end) = self.new_end(site) else { return };
        let conn = self.network.open(End::Liar, end);
        self.link_up(end, conn, None, Protocol::Postcard, String::new());
        if let Some(liar) = &mut self.liar {
            liar.links.push((conn, site));
            liar.received = 0;
        }
        let hello = self.hello_of_liar();
        self.liar_says(conn, hello);
    }

    fn liar_says(&mut self, conn: ConnId, frame: Frame) {
        let items = Rc::new(Vec::new());
        self.send(conn, 0, Carried { frame, items, said: None, counted: false });
    }

    fn hello_of_liar(&mut self) -> Frame {
        let hello = Hello {
            protocol: 1,
            node: NAME.into(),
            store: StoreId(u128::from(self.random.below(2))),
            incarnation: Incarnation::new(1 + self.random.below(2)),
            group: String::new(),
            tags: String::new(),
            wall: WallMs(BEGINNING + self.now / 1000),
            durability: Durability::Full,
            features: self.random.next(),
            max_message_bytes: 1 << 20,
            max_frame_bytes: 4 << 20,
            reported: Position::new(self.random.below(1000)),
            reported_incarnation: Incarnation::new(self.random.next()),
        };
        Frame::Binary(Wire::Hello(hello).encode())
    }

    /// A message that it heard, with a path that is not true.
    fn repeated(&mut self, site: usize) -> Option<Frame> {
        let heard = &self.liar.as_ref()?.heard;
        if heard.is_empty() {
            return None;
        }
        let message = heard[self.random.index(heard.len())].clone();
        let origin = message.origin().to_owned();
        let path = match self.random.below(4) {
            0 => format!("{origin},{NAME}"),
            1 => format!("{},{NAME}", message.path()),
            2 => format!("{origin},nobody-{},{NAME}", self.random.below(9)),
            // The receiver finds itself on it.
            _ if origin != self.names[site] => format!("{origin},{},{NAME}", self.names[site]),
            _ => format!("{origin},{NAME}"),
        };
        if path.matches(NAME).count() > 1 {
            return None;
        }
        let fields = Fields { path: &path, ..message.fields() };
        Some(one(&Message::encode(&fields, &mut BytesMut::new())))
    }

    fn own_message(&mut self) -> Option<Frame> {
        let wall = BEGINNING + self.now / 1000;
        let message = self.forged(wall)?;
        let taken = self.ledger.accept(&message, None, self.now);
        taken.ok().map(|_| one(&message))
    }

    /// A message from tomorrow: it must be refused, for now.
    fn far_ahead(&mut self) -> Option<Frame> {
        if self.plan.mean(Fault::Jump).is_some() {
            // A node whose own clock is there by mistake would take it.
            return None;
        }
        let message = self.forged(BEGINNING + self.now / 1000 + 86_400_000)?;
        Some(one(&message))
    }

    fn forged(&mut self, wall: u64) -> Option<Message> {
        let liar = self.liar.as_mut()?;
        liar.said += 1;
        let (id, key) = (format!("lie-{}", liar.said), format!("k{}", liar.said % 4));
        let fields = Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(7),
            sequence: Sequence::new(liar.said),
            version: Hlc((wall << 16) + liar.said),
            expires: WallMs(0),
            group: "",
            tags: "",
            path: NAME,
            id: &id,
            key: &key,
            body: "1",
        };
        Some(Message::encode(&fields, &mut BytesMut::new()))
    }

    fn random_ack(&mut self) -> Frame {
        let received = self.liar.as_ref().map_or(0, |liar| liar.received);
        let upto = self.random.below(received + 2);
        let position = Position::new(self.random.below(1000));
        let wall = WallMs(BEGINNING + self.now / 1000);
        Frame::Binary(Wire::Ack(Ack { upto, position, wall }).encode())
    }

    fn random_refusal(&mut self) -> Frame {
        let received = self.liar.as_ref().map_or(0, |liar| liar.received);
        let (first, last) = (self.random.below(received + 2), self.random.below(received + 2));
        let reason = self.random.pick(&[
            NotNowReason::StoreFull,
            NotNowReason::Clock,
            NotNowReason::ShuttingDown,
        ]);
        Frame::Binary(Wire::NotNow(NotNow { first, last, reason }).encode())
    }

    /// It says of messages that it heard, or of some that nobody has, whatever comes to its mind.
    fn random_naming(&mut self, site: usize) -> Option<Frame> {
        let heard = &self.liar.as_ref()?.heard;
        let mut span = SpanRecord {
            origin: self.names[site].clone(),
            incarnation: self.random.next(),
            skipped: self.random.below(40),
            more: self.random.below(30),
        };
        if !heard.is_empty() && self.random.chance(800) {
            let message = &heard[self.random.index(heard.len())];
            span.origin = message.origin().into();
            span.incarnation = message.incarnation().get();
            span.skipped = message.sequence().get() - 1;
        }
        let kinds = [BatchKind::Have, BatchKind::Want, BatchKind::Seen, BatchKind::Gone];
        let mut writer = FrameWriter::new(self.random.pick(&kinds));
        writer.push(&span);
        Some(Frame::Binary(writer.finish()))
    }

    /// A record of some node that it never made.
    fn forged_record(&mut self) -> Frame {
        let choice = self.random.index(self.names.len());
        let random = &mut self.random;
        let links = self.names.iter().filter(|_| random.chance(500)).map(String::as_str);
        let links = TagSet::new(links).expect("names of nodes have the form of tags");
        let record = NodeRecord {
            node: self.names[choice].clone(),
            store: StoreId(1),
            incarnation: Incarnation::new(1),
            revision: self.random.next() >> self.random.below(40),
            tags: String::new(),
            links: links.as_str().into(),
        };
        let mut writer = FrameWriter::new(BatchKind::Topology);
        writer.push(&record);
        Frame::Binary(writer.finish())
    }

    /// Digests of what nobody holds. They are the same each time: two claims in a row must agree
    /// before anything comes of them.
    fn false_claim(&mut self) -> Frame {
        let mut writer = FrameWriter::new(BatchKind::Digests);
        writer.push(&DigestsHead { whole: self.random.chance(500) });
        for tags in ["", "a", "b", "nobody"] {
            let tags = Print::of_tags(tags);
            writer.push(&TagSetDigest { tags, print: Print::new(tags | 1) });
        }
        Frame::Binary(writer.finish())
    }

    /// The liar is handed a frame: it listens, and now and then even tells the truth.
    pub fn liar_hears(&mut self, conn: ConnId, _side: usize, frame: &Frame, items: &[Item]) {
        if let Frame::Ping(payload) = frame {
            self.liar_says(conn, Frame::Pong(payload.clone()));
        }
        let Some(liar) = &mut self.liar else { return };
        for item in items {
            if let Item::Message(message) = item {
                liar.received += 1;
                if liar.heard.len() < REMEMBERED {
                    liar.heard.push(message.clone());
                } else {
                    let place = self.random.index(REMEMBERED);
                    liar.heard[place] = message.clone();
                }
            }
        }
    }

    /// A link of the liar is gone.
    pub fn liar_lost(&mut self, conn: ConnId) {
        if let Some(liar) = &mut self.liar {
            liar.links.retain(|(link, _)| *link != conn);
        }
    }
}

/// A span as it is written.
#[derive(Serialize)]
struct SpanRecord {
    origin: String,
    incarnation: u64,
    skipped: u64,
    more: u64,
}

fn one(message: &Message) -> Frame {
    let mut writer = FrameWriter::new(BatchKind::Messages);
    writer.push_message(message);
    let frame: Bytes = writer.finish();
    Frame::Binary(frame)
}
