//! Applications: what each does, and the frames that it writes. What it was handed is the
//! invariants' affair.

use std::collections::VecDeque;

use bytes::Bytes;
use slipstream_core::ids::Position;
use slipstream_core::io::{Frame, Protocol};
use slipstream_core::message::Kind;
use slipstream_core::read::ReadRequest;
use slipstream_core::wire::{
    BatchKind, Connect, FrameWriter, Publish as WirePublish, Read as WireRead, Settle, Wire,
};

use super::ledger::{Publish, PublishNo};
use super::network::ConnId;
use super::plan::Micros;
use super::random::Random;

/// How an application treats what it is handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumer {
    /// Acknowledges at once.
    Prompt,
    /// Acknowledges after a while.
    Slow(Micros),
    /// Never acknowledges.
    Mute,
    /// Acknowledges, asks again, rejects, as it comes.
    Fickle,
    /// Stops reading now and then.
    Lazy,
    /// Acknowledges many at once, and refuses some between them; or says nothing of them.
    Cumulative,
    /// Dies of some messages, each time that it is handed one.
    Mortal,
}

impl Consumer {
    /// What some applications of some seeds do instead of what was drawn for them. It is drawn
    /// apart, so that the other seeds stay what they were.
    pub fn habit(seed: u64, app: usize, is_named: bool) -> Option<Self> {
        let has_habits = Random::new(seed ^ HABITS).chance(400);
        let mut random = Random::new(seed ^ HABITS ^ ((app as u64 + 1) << 32));
        if !has_habits || !random.chance(500) {
            return None;
        }
        // Who has no name would be handed what it dies of for ever.
        let mortal = random.chance(400) && is_named;
        Some(if mortal { Self::Mortal } else { Self::Cumulative })
    }

    /// Whether it dies of the message with this id.
    pub fn dies_of(self, id: &str) -> bool {
        self == Self::Mortal && id.bytes().map(u64::from).sum::<u64>() % 23 == 0
    }
}

/// What applications do that settle many deliveries at once, or die of them, is drawn apart.
const HABITS: u64 = 0x5e77_1e5a_11d0_0dad;

/// An application.
#[derive(Debug)]
pub struct App {
    /// Its number.
    pub index: usize,
    /// The node that it connects to.
    pub site: usize,
    /// Name of its session.
    pub client: Option<String>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its tags; none: those of the node.
    pub tags: Option<Vec<&'static str>>,
    /// Key prefixes; none: all keys.
    pub keys: Option<Vec<&'static str>>,
    /// Whether it asked for `replay=new`.
    pub only_new: bool,
    /// Whether it asked for `conflate=true`.
    pub conflate: bool,
    /// Whether it acknowledges by hand.
    pub manual: bool,
    /// What it does with deliveries.
    pub consumer: Consumer,
    /// Whether it publishes.
    pub publishes: bool,
    /// Whether its node has no room for it beside the others.
    pub crowds: bool,
    /// The other connection of the same program, at another node of its cluster group.
    pub twin: Option<usize>,
    /// Its connection.
    pub link: Option<ConnId>,
    /// Whether it was greeted on it.
    pub greeted: bool,
    /// It will not come back.
    pub gone: bool,
    /// What it published and knows nothing of, oldest first.
    pub unanswered: VecDeque<PublishNo>,
    /// What it has a receipt for, and may publish again.
    pub answered: Vec<PublishNo>,
    /// Messages that it has given an id.
    pub numbered: u64,
}

/// What an application said in one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// First frame of a binary connection.
    Connect,
    /// A message.
    Publish(PublishNo),
    /// A question for the value of a key.
    Read {
        /// `messageId`.
        id: String,
        /// The key.
        key: String,
        /// The kind that it is expected to have.
        kind: Kind,
    },
    /// A frame that must be answered with this error.
    Odd(&'static str),
    /// Done with this delivery, or with all up to it.
    Ack {
        /// `deliveryId`.
        delivery: u64,
        /// Cumulative.
        upto: bool,
    },
    /// Again later, or never.
    Nack {
        /// `deliveryId`.
        delivery: u64,
        /// Again.
        retry: bool,
    },
}

impl Said {
    /// Whether it is answered.
    pub fn is_answered(&self) -> bool {
        match self {
            Self::Publish(_) | Self::Read { .. } | Self::Odd(_) => true,
            Self::Connect | Self::Ack { .. } | Self::Nack { .. } => false,
        }
    }
}

impl App {
    /// The query string that it connects with.
    pub fn query(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.client.as_ref().map(|client| format!("client={client}")));
        parts.extend(self.tags.as_ref().map(|tags| format!("tags={}", tags.join(","))));
        parts.extend(self.keys.as_ref().map(|keys| format!("keys={}", keys.join(","))));
        if self.client.is_some() && self.only_new {
            parts.push("replay=new".into());
        }
        if self.client.is_none() && !self.only_new {
            parts.push("replay=all".into());
        }
        if self.conflate {
            parts.push("conflate=true".into());
        }
        if self.manual != self.client.is_some() {
            parts.push(format!("ack={}", if self.manual { "manual" } else { "auto" }));
        }
        parts.join("&")
    }

    /// How traces and failures name it.
    pub fn name(&self) -> String {
        format!("app{}({})", self.index, self.client.as_deref().unwrap_or("unnamed"))
    }

    /// Whether it receives by these target tags and key.
    pub fn wants(&self, node_tags: &[&str], tags: &str, key: &str) -> bool {
        let own = self.tags.as_deref().unwrap_or(node_tags);
        let tagged = tags.is_empty() || tags.split(',').any(|tag| own.contains(&tag));
        let prefixed = |keys: &Vec<&str>| keys.iter().any(|prefix| key.starts_with(prefix));
        tagged && self.keys.as_ref().is_none_or(prefixed)
    }
}

/// The first frame of a binary connection.
pub fn connect_frame() -> Frame {
    Frame::Binary(Wire::Connect(Connect { protocol: 1 }).encode())
}

/// The frame that publishes.
pub fn publish_frame(protocol: Protocol, publish: &Publish) -> Frame {
    let Publish { id, kind, key, tags, body, ttl_ms, .. } = publish;
    match protocol {
        Protocol::Json => {
            let list: Vec<_> = tags.split(',').filter(|tag| !tag.is_empty()).collect();
            let mut text =
                format!(r#"{{"type":"{}","messageId":"{id}","key":"{key}""#, kind.as_str());
            if *kind != Kind::Dk {
                text += &format!(r#","value":{body}"#);
            }
            if !list.is_empty() {
                text += &format!(r#","targetedTags":["{}"]"#, list.join("\",\""));
            }
            if let Some(ttl) = ttl_ms {
                text += &format!(r#","ttlMs":{ttl}"#);
            }
            text.push('}');
            Frame::Text(text.into())
        }
        Protocol::Postcard => {
            let mut writer = FrameWriter::new(BatchKind::Publish);
            let ttl_ms = ttl_ms.unwrap_or(0);
            writer.push(&WirePublish { kind: *kind, id, key, tags, ttl_ms, body });
            Frame::Binary(writer.finish())
        }
    }
}

/// The frame that reads.
pub fn read_frame(protocol: Protocol, id: &str, key: &str, kind: Kind) -> Frame {
    match protocol {
        Protocol::Json => {
            let name = ReadRequest::name_of(kind).expect("only kinds that are read are drawn");
            let text = format!(r#"{{"type":"{name}","messageId":"{id}","key":"{key}"}}"#);
            Frame::Text(text.into())
        }
        Protocol::Postcard => {
            let mut writer = FrameWriter::new(BatchKind::Reads);
            writer.push(&WireRead { kind: Some(kind), id, key });
            Frame::Binary(writer.finish())
        }
    }
}

/// The frame that settles a delivery.
pub fn settle_frame(protocol: Protocol, said: &Said) -> Frame {
    match (protocol, said) {
        (Protocol::Json, Said::Ack { delivery, upto: false }) => {
            Frame::Text(format!(r#"{{"type":"ACK","deliveryId":{delivery}}}"#).into())
        }
        (Protocol::Json, Said::Ack { delivery, upto: true }) => {
            Frame::Text(format!(r#"{{"type":"ACK","deliveryId":{delivery},"upTo":true}}"#).into())
        }
        (Protocol::Json, Said::Nack { delivery, retry }) => {
            let action = if *retry { "retry" } else { "reject" };
            let text = format!(r#"{{"type":"NACK","deliveryId":{delivery},"action":"{action}"}}"#);
            Frame::Text(text.into())
        }
        (Protocol::Postcard, said) => {
            let mut writer = FrameWriter::new(BatchKind::Settle);
            match said {
                Said::Ack { delivery, upto: false } => {
                    writer.push(&Settle::Ack(Position::new(*delivery)));
                }
                Said::Ack { delivery, upto: true } => {
                    writer.push(&Settle::AckUpTo(Position::new(*delivery)));
                }
                Said::Nack { delivery, retry } => {
                    let (delivery, reason) = (Position::new(*delivery), "");
                    writer.push(&match retry {
                        true => Settle::Retry { delivery, reason },
                        false => Settle::Reject { delivery, reason },
                    });
                }
                Said::Connect | Said::Publish(_) | Said::Read { .. } | Said::Odd(_) => {}
            }
            Frame::Binary(writer.finish())
        }
        (Protocol::Json, Said::Connect | Said::Publish(_) | Said::Read { .. } | Said::Odd(_)) => {
            Frame::Text(Bytes::new())
        }
    }
}

/// A frame that must be answered with an error, and with which.
pub fn odd_frame(protocol: Protocol, choice: u64) -> (Frame, Said) {
    let text = |text: &'static str, code| (Frame::Text(text.into()), Said::Odd(code));
    match (protocol, choice % 5) {
        (Protocol::Json, 0) => text("{\"type\":", "INVALID_JSON"),
        (Protocol::Json, 1) => text("[1]", "NOT_AN_OBJECT"),
        (Protocol::Json, 2) => text(r#"{"type":"HELLO"}"#, "UNKNOWN_TYPE"),
        (Protocol::Json, 3) => text(r#"{"type":"SK","key":"k1"}"#, "MISSING_FIELD"),
        (Protocol::Json, _) => (Frame::Binary(vec![1, 2, 3].into()), Said::Odd("BINARY_FRAME")),
        (Protocol::Postcard, _) => {
            let mut writer = FrameWriter::new(BatchKind::Publish);
            let publish =
                WirePublish { kind: Kind::Sk, id: "", key: "", tags: "", ttl_ms: 0, body: "1" };
            writer.push(&publish);
            (Frame::Binary(writer.finish()), Said::Odd("INVALID_FIELD"))
        }
    }
}
