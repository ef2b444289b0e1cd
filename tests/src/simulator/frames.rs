//! What a frame says, taken apart once when it is sent and carried along with it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use slipstream_core::ids::{Identity, Sequence};
use slipstream_core::io::Frame;
use slipstream_core::json::write::version_text;
use slipstream_core::message::{Kind, Message};
use slipstream_core::offer::{OfferSpan, describe, read};
use slipstream_core::topology::NodeRecord;
use slipstream_core::wire::{
    Ack, NotNow, OutcomeRecord, ReadResult, TagSetDigest, Wire, deliveries, digests, messages,
    records, timed,
};

/// One thing that a frame of a node says.
#[derive(Debug)]
pub enum Item {
    /// Greeting of an application.
    Welcome,
    /// End of the replay.
    Synced,
    /// Answer to a frame of an application.
    Answer(Answer),
    /// So many values were left out before the next delivery.
    Conflated(u64),
    /// A message handed to an application.
    Delivery(Delivery),
    /// A message sent to a peer.
    Message(Message),
    /// A peer's acknowledgement.
    Ack(Ack),
    /// A peer's refusal for now.
    NotNow(NotNow),
    /// A node's greeting.
    Hello,
    /// What a node knows of the mesh.
    Topology(Vec<NodeRecord>),
    /// What the tag sets that are for both add up to.
    Digests(Vec<TagSetDigest>),
    /// Messages by their identity.
    Named(Naming, Vec<OfferSpan>),
    /// Ping.
    Ping,
    /// Pong.
    Pong,
}

/// What a peer says of the messages that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the frames")]
pub enum Naming {
    Have,
    Want,
    Seen,
    Gone,
}

/// Answer to a frame of an application.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Receipt.
    Receipt {
        /// `messageId`.
        id: String,
        /// Version as text.
        version: String,
        /// P9 applied.
        duplicate: bool,
    },
    /// What a read found.
    Result {
        /// `messageId` of the read.
        id: String,
        /// The key.
        key: String,
        /// Whether there is a value.
        found: bool,
        /// Version as text of the newest write, if there is one.
        version: Option<String>,
        /// Kind of the newest write, and the value as it was written.
        value: Option<(String, String)>,
    },
    /// Refusal.
    Refusal {
        /// `messageId`, where one could be read.
        re: Option<String>,
        /// Number of the frame.
        frame: u64,
        /// Stable code.
        code: String,
        /// Whether trying again can help.
        retryable: bool,
    },
}

/// A message handed to an application.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `messageId`.
    pub id: String,
    /// Kind, key, and value as it was written.
    pub kind: String,
    /// The key.
    pub key: String,
    /// The value.
    pub body: String,
    /// Version as text: its order is the order of versions, and it identifies the message.
    pub version: String,
    /// Nodes visited, comma-joined.
    pub path: String,
    /// Target tags, comma-joined.
    pub tags: String,
    /// `deliveryId`.
    pub delivery: u64,
    /// `redelivery`; 0 without one.
    pub redelivery: u32,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Welcome => f.write_str("welcome"),
            Self::Synced => f.write_str("synced"),
            Self::Answer(Answer::Receipt { id, version, duplicate }) => {
                let again = if *duplicate { ", again" } else { "" };
                write!(f, "receipt for {id}@{version}{again}")
            }
            Self::Answer(Answer::Result { id, key, found, version, .. }) => {
                let version = version.as_deref().unwrap_or("nothing");
                write!(f, "result for {id}: {key} is {version}, found {found}")
            }
            Self::Answer(Answer::Refusal { re, frame, code, .. }) => {
                write!(f, "{code} to frame {frame}, {}", re.as_deref().unwrap_or("no id"))
            }
            Self::Conflated(values) => write!(f, "{values} values left out"),
            Self::Delivery(Delivery { id, version, kind, key, delivery, redelivery, .. }) => {
                write!(f, "delivery {delivery} x{redelivery} {kind} {key} {id}@{version}")
            }
            Self::Message(message) => {
                write!(f, "message {} path {}", super::ledger::name_of(message), message.path())
            }
            Self::Ack(ack) => write!(f, "ack up to {}, log up to {}", ack.upto, ack.position),
            Self::NotNow(not) => {
                write!(f, "not now {}..={}: {:?}", not.first, not.last, not.reason)
            }
            Self::Hello => f.write_str("hello"),
            Self::Topology(records) => {
                for NodeRecord { node, links, .. } in records {
                    write!(f, "{node} is linked to [{links}] ")?;
                }
                Ok(())
            }
            Self::Digests(digests) => {
                f.write_str("digests")?;
                digests.iter().try_for_each(|one| write!(f, " {:016x}={}", one.tags, one.print))
            }
            Self::Named(naming, spans) => write!(f, "{naming:?} {}", describe(spans)),
            Self::Ping => f.write_str("ping"),
            Self::Pong => f.write_str("pong"),
        }
    }
}

/// Takes a frame of a node apart. `node` is the sender.
///
/// # Errors
/// What is wrong with it: a node sends only frames that can be read.
pub fn parse(frame: &Frame, node: &str) -> Result<Vec<Item>, String> {
    match frame {
        Frame::Text(text) => parse_text(text),
        Frame::Binary(bytes) => parse_binary(bytes, node),
        Frame::Ping(_) => Ok(vec![Item::Ping]),
        Frame::Pong(_) => Ok(vec![Item::Pong]),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TextFrame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    message_path: Vec<&'a str>,
    #[serde(default)]
    targeted_tags: Vec<&'a str>,
    #[serde(default)]
    version: Option<&'a str>,
    #[serde(default)]
    delivery_id: Option<u64>,
    #[serde(default)]
    redelivery: u32,
    #[serde(default)]
    conflated: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(borrow, default)]
    re: Option<Cow<'a, str>>,
    #[serde(default)]
    frame: u64,
    #[serde(default)]
    code: &'a str,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    found: bool,
    #[serde(default, rename = "kind")]
    of_kind: Option<&'a str>,
}

fn parse_text(text: &[u8]) -> Result<Vec<Item>, String> {
    let frame: TextFrame<'_> = serde_json::from_slice(text)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(text)))?;
    let conflated = (frame.conflated > 0).then_some(Item::Conflated(frame.conflated));
    let item = match frame.kind {
        "WELCOME" => Item::Welcome,
        "SYNCED" => Item::Synced,
        "ACK" => Item::Answer(Answer::Receipt {
            id: frame.message_id.ok_or("a receipt without messageId")?.into_owned(),
            version: frame.version.ok_or("a receipt without version")?.into(),
            duplicate: frame.duplicate,
        }),
        "ERR" => Item::Answer(Answer::Refusal {
            re: frame.re.map(Cow::into_owned),
            frame: frame.frame,
            code: frame.code.into(),
            retryable: frame.retryable,
        }),
        "RESULT" => Item::Answer(Answer::Result {
            id: frame.message_id.unwrap_or_default().into_owned(),
            key: frame.key.ok_or("a result without key")?.into_owned(),
            found: frame.found,
            version: frame.version.map(String::from),
            value: frame
                .of_kind
                .map(|kind| (kind.into(), frame.value.map_or("null", RawValue::get).into())),
        }),
        kind => Item::Delivery(Delivery {
            id: frame.message_id.ok_or("a delivery without messageId")?.into_owned(),
            kind: kind.into(),
            key: frame.key.ok_or("a delivery without key")?.into_owned(),
            body: match frame.value {
                None if kind == "DK" => "null".into(),
                Some(_) if kind == "DK" => return Err("a delete with a value".into()),
                value => value.ok_or("a delivery without value")?.get().into(),
            },
            version: frame.version.ok_or("a delivery without version")?.into(),
            path: frame.message_path.join(","),
            tags: frame.targeted_tags.join(","),
            delivery: frame.delivery_id.ok_or("a delivery without deliveryId")?,
            redelivery: frame.redelivery,
        }),
    };
    Ok(conflated.into_iter().chain([item]).collect())
}

fn parse_binary(bytes: &Bytes, node: &str) -> Result<Vec<Item>, String> {
    let wire = Wire::decode(bytes).map_err(|error| error.to_string())?;
    Ok(match wire {
        Wire::Hello(_) => vec![Item::Hello],
        Wire::Topology(batch) => {
            vec![Item::Topology(records(&batch).map_err(|error| error.to_string())?)]
        }
        Wire::Have(batch) => vec![named(Naming::Have, &batch)?],
        Wire::Want(batch) => vec![named(Naming::Want, &batch)?],
        Wire::Seen(batch) => vec![named(Naming::Seen, &batch)?],
        Wire::Gone(batch) => vec![named(Naming::Gone, &batch)?],
        Wire::Digests(batch) => {
            let (_, digests) = digests(&batch).map_err(|error| error.to_string())?;
            vec![Item::Digests(digests)]
        }
        Wire::Messages(batch) => {
            let messages = messages(&batch).map_err(|error| error.to_string())?;
            messages.into_iter().map(Item::Message).collect()
        }
        Wire::Timed(batch) => {
            let (_, messages) = timed(&batch).map_err(|error| error.to_string())?;
            messages.into_iter().map(|(_, message)| Item::Message(message)).collect()
        }
        Wire::Ack(ack) => vec![Item::Ack(ack)],
        Wire::NotNow(not_now) => vec![Item::NotNow(not_now)],
        Wire::Welcome(_) => vec![Item::Welcome],
        Wire::Synced => vec![Item::Synced],
        Wire::Conflated(values) => vec![Item::Conflated(values)],
        Wire::Outcomes(batch) => {
            let outcomes =
                records::<OutcomeRecord<'_>>(&batch).map_err(|error| error.to_string())?;
            outcomes.into_iter().map(|outcome| Item::Answer(answer(&outcome, node))).collect()
        }
        Wire::Deliveries(batch) => {
            let found = deliveries(&batch).map_err(|error| error.to_string())?;
            let item = |(head, message): (slipstream_core::wire::DeliveryHead, Message)| {
                Item::Delivery(Delivery {
                    id: message.id().into(),
                    kind: message.kind().as_str().into(),
                    key: message.key().into(),
                    body: message.body().into(),
                    version: version_text(message.version(), message.origin()),
                    path: message.path().into(),
                    tags: message.tags().into(),
                    delivery: head.delivery.get(),
                    redelivery: head.redelivery,
                })
            };
            found.into_iter().map(item).collect()
        }
        Wire::Results(batch) => {
            let results = records::<ReadResult<'_>>(&batch).map_err(|error| error.to_string())?;
            results.iter().map(|result| Item::Answer(result_of(result))).collect()
        }
        Wire::Connect(_) | Wire::Publish(_) | Wire::Settle(_) | Wire::Reads(_) => {
            return Err("a frame that only applications send".into());
        }
    })
}

/// The identities of these spans.
pub fn identities(spans: &[OfferSpan]) -> impl Iterator<Item = Identity> + '_ {
    spans.iter().flat_map(|span| {
        (span.first.get()..=span.last.get()).map(|number| Identity {
            origin: span.origin.clone(),
            incarnation: span.incarnation,
            sequence: Sequence::new(number),
        })
    })
}

fn named(naming: Naming, batch: &[u8]) -> Result<Item, String> {
    let spans = read(batch).map_err(|error| error.to_string())?;
    Ok(Item::Named(naming, spans))
}

fn result_of(result: &ReadResult<'_>) -> Answer {
    let value = result.value.as_ref();
    Answer::Result {
        id: result.id.into(),
        key: result.key.into(),
        found: value.is_some_and(|value| value.kind != Kind::Dk),
        version: value.map(|value| version_text(value.version, value.origin)),
        value: value.map(|value| (value.kind.as_str().into(), value.body.into())),
    }
}

fn answer(outcome: &OutcomeRecord<'_>, node: &str) -> Answer {
    match outcome {
        OutcomeRecord::Receipt { id, version, duplicate, .. } => Answer::Receipt {
            id: (*id).into(),
            version: version_text(*version, node),
            duplicate: *duplicate,
        },
        OutcomeRecord::Error { id, frame, code, retryable, .. } => Answer::Refusal {
            re: id.map(String::from),
            frame: *frame,
            code: (*code).into(),
            retryable: *retryable,
        },
    }
}
