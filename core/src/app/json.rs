//! Text frames of a client. A value is never taken apart.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::config::Durability;
use crate::io::Frame;
use crate::types::ids::Position;
use crate::types::value::NO_VALUE;
use crate::wire::application::{AckMode, InForce, Replay};
use crate::wire::json::number::whole;
use crate::wire::message::Kind;
use crate::wire::read::ReadRequest as Asked;
use crate::wire::{APPLICATION_PROTOCOL_VERSION, Publish, Read, Settle, Welcome};
use bytes::Bytes;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::answer::{Outcome, Refused, Value};
use super::delivery::{Content, DeliveredMessage, Json, Text, Version};
use super::{CodecError, Received};

/// A message to publish.
pub(super) fn publish(message: &Publish<'_>) -> Result<Bytes, CodecError> {
    let value = match message.kind {
        Kind::Dk => None,
        Kind::Sk | Kind::Sa | Kind::Sw | Kind::Cmd => {
            Some(serde_json::from_str(message.body).map_err(|error| CodecError::BadValue {
                key: message.key.into(),
                reason: error.to_string(),
            })?)
        }
    };
    let frame = PublishJson {
        kind: message.kind.as_str(),
        message_id: message.id,
        key: message.key,
        value,
        // An empty one stays, for the node to refuse: without it the message would be for all.
        targeted_tags: match message.tags {
            "" => Vec::new(),
            tags => tags.split(',').collect(),
        },
        ttl_ms: message.ttl_ms.try_into().ok(),
    };
    Ok(encoded(&frame))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublishJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message_id: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targeted_tags: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<core::num::NonZeroU64>,
}

/// A read; of any kind, it is one of SK.
pub(super) fn read(read: &Read<'_>) -> Frame {
    let kind = read.kind.and_then(Asked::name_of).unwrap_or("GK");
    let fields = [("type", kind), ("messageId", read.id), ("key", read.key)];
    text_frame(&BTreeMap::from(fields))
}

/// What became of a delivery.
pub(super) fn settle(settle: &Settle<'_>) -> Frame {
    let empty = SettleJson::default();
    let nack = |delivery: Position, action, reason| SettleJson {
        kind: "NACK",
        delivery_id: Some(delivery),
        action: Some(action),
        reason: Some(reason),
        ..SettleJson::default()
    };
    text_frame(&match *settle {
        Settle::Ack(delivery) => SettleJson { delivery_id: Some(delivery), ..empty },
        Settle::AckUpTo(delivery) => {
            SettleJson { delivery_id: Some(delivery), up_to: Some(true), ..empty }
        }
        Settle::AckId(id) => SettleJson { message_id: Some(id), ..empty },
        Settle::Retry { delivery, reason } => nack(delivery, "retry", reason),
        Settle::Reject { delivery, reason } => nack(delivery, "reject", reason),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettleJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Default for SettleJson<'_> {
    fn default() -> Self {
        Self {
            kind: "ACK",
            delivery_id: None,
            up_to: None,
            message_id: None,
            action: None,
            reason: None,
        }
    }
}

fn text_frame(frame: &impl Serialize) -> Frame {
    Frame::Text(encoded(frame))
}

fn encoded(frame: &impl Serialize) -> Bytes {
    serde_json::to_vec(frame).expect("no map, and writing to memory").into()
}

/// Every field of every frame of a node: one pass over the text, whatever it is. What is `null` is
/// as good as left out, but the value; a whole number is one however it is written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Any<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    message_id: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    key: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "as_written")]
    value: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "text")]
    origin_instance_id: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "or_default")]
    message_path: Vec<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "or_default")]
    targeted_tags: Vec<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "text")]
    version: Cow<'a, str>,
    #[serde(deserialize_with = "number")]
    delivery_id: u64,
    #[serde(deserialize_with = "number")]
    redelivery: u32,
    #[serde(deserialize_with = "number")]
    conflated: u64,
    #[serde(deserialize_with = "or_default")]
    duplicate: bool,
    #[serde(borrow, deserialize_with = "text")]
    level: Cow<'a, str>,
    #[serde(borrow)]
    re: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "number")]
    frame: u64,
    #[serde(borrow, deserialize_with = "text")]
    code: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    retryable: bool,
    #[serde(deserialize_with = "number")]
    retry_after_ms: u64,
    #[serde(borrow, deserialize_with = "text")]
    message: Cow<'a, str>,
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "text")]
    instance_id: Cow<'a, str>,
    #[serde(borrow)]
    client: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "or_default")]
    resumed: bool,
    #[serde(borrow, deserialize_with = "or_default")]
    tags: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    keys: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, deserialize_with = "text")]
    replay: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    ack: Cow<'a, str>,
    #[serde(deserialize_with = "or_default")]
    conflate: bool,
    #[serde(deserialize_with = "number")]
    window: u32,
    #[serde(deserialize_with = "number")]
    max_message_bytes: u64,
    /// Of a result.
    #[serde(borrow, rename = "kind")]
    of_kind: Option<Cow<'a, str>>,
}

fn or_default<'de, D: Deserializer<'de>, T>(json: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
{
    Option::deserialize(json).map(Option::unwrap_or_default)
}

/// A value that is `null` is there.
fn as_written<'de, D: Deserializer<'de>>(json: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(json).map(Some)
}

fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(json: D) -> Result<T, D::Error> {
    let written = <&RawValue>::deserialize(json)?.get();
    let number = if written == "null" { Some(0) } else { whole(written) };
    let number = number.and_then(|number| number.try_into().ok());
    number.ok_or_else(|| D::Error::custom("a number is not a whole one in its range"))
}

fn text<'de, D: Deserializer<'de>>(json: D) -> Result<Cow<'de, str>, D::Error> {
    json.deserialize_option(TextVisitor)
}

/// Text that is borrowed where it holds nothing that is escaped.
struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or null")
    }

    fn visit_none<E>(self) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(""))
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

fn parse(text: &Bytes) -> Result<Any<'_>, CodecError> {
    serde_json::from_slice(text).map_err(|error| CodecError::Protocol(error.to_string()))
}

/// The greeting of a node.
pub(super) fn welcome(text: &Bytes) -> Result<Welcome, CodecError> {
    let any = parse(text)?;
    if any.kind != "WELCOME" {
        return Err(CodecError::Protocol(format!("{} instead of a WELCOME", any.kind)));
    }
    let in_force = match (Replay::from_name(&any.replay), AckMode::from_name(&any.ack)) {
        (Some(replay), Some(ack)) => {
            let keys = any.keys.map(|keys| keys.into_iter().map(Cow::into_owned).collect());
            Some(InForce { keys, replay, ack, conflate: any.conflate })
        }
        (Some(_) | None, _) => None,
    };
    Ok(Welcome {
        in_force,
        protocol: APPLICATION_PROTOCOL_VERSION,
        instance: any.instance_id.into(),
        client: any.client.unwrap_or_default().into(),
        resumed: any.resumed,
        tags: any.tags.join(","),
        window: any.window,
        max_message_bytes: any.max_message_bytes,
        version: any.version.into(),
    })
}

/// What a frame says; `None` for types that later versions may add.
pub(super) fn received(text: &Bytes) -> Result<Option<Received>, CodecError> {
    let any = parse(text)?;
    Ok(match &*any.kind {
        "SYNCED" => Some(Received::Synced),
        "ACK" => Some(Received::Outcomes(vec![Outcome::Receipt {
            id: any.message_id.into(),
            version: Version::Text(any.version.into()),
            duplicate: any.duplicate,
            level: if any.level == "durable" { Durability::Full } else { Durability::Normal },
        }])),
        "ERR" => Some(Received::Outcomes(vec![Outcome::Refused(Refused {
            id: any.re.map(Text::from),
            frame: any.frame,
            code: any.code.into(),
            retryable: any.retryable,
            retry_after: (any.retry_after_ms > 0)
                .then(|| Duration::from_millis(any.retry_after_ms)),
            message: any.message.into(),
            path: any.path.map(Text::from),
        })])),
        "RESULT" => Some(Received::Results(vec![Value {
            id: any.message_id.into(),
            key: any.key.into(),
            version: any.of_kind.is_some().then(|| any.version.into()),
            kind: any.of_kind.map(Text::from),
            value: any.value.map(|value| Text::within(text, value.get())),
        }])),
        kind => match any.value.map(RawValue::get).or((kind == "DK").then_some(NO_VALUE)) {
            Some(value) if any.delivery_id > 0 => {
                Some(Received::Deliveries(vec![DeliveredMessage {
                    id: Position::new(any.delivery_id),
                    redelivery: any.redelivery,
                    conflated: any.conflated,
                    content: Content::Json(Box::new(Json {
                        frame: Text(text.clone()),
                        value: match &*any.kind {
                            "DK" => Text::from(NO_VALUE.to_owned()),
                            _ => Text::within(text, value),
                        },
                        kind: any.kind.into(),
                        message_id: any.message_id.into(),
                        key: any.key.into(),
                        origin: any.origin_instance_id.into(),
                        path: any.message_path.join(","),
                        tags: any.targeted_tags.join(","),
                        version: any.version.into(),
                    })),
                }]))
            }
            Some(_) | None => None,
        },
    })
}

#[cfg(test)]
mod tests;
