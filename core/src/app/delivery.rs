//! What a node hands over, from either protocol. Cloning does not copy it.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::ops::Deref;

use bytes::{Bytes, BytesMut};

use crate::types::clock::Hlc;
use crate::types::ids::{Incarnation, Position, Sequence};
use crate::wire::json::write;
use crate::wire::message::Message;

/// A message that was handed over.
#[derive(Debug, Clone)]
pub struct DeliveredMessage {
    /// To be named in the acknowledgement.
    pub id: Position,
    /// How often it was handed over before.
    pub redelivery: u32,
    /// Values that were left out before this one, because newer ones of their keys have taken
    /// their place.
    pub conflated: u64,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Binary(Message),
    Json(Box<Json>),
}

impl DeliveredMessage {
    /// Which message it is, whatever its number.
    pub(super) fn mark(&self) -> Mark {
        match &self.content {
            Content::Binary(message) => Mark::Number(message.incarnation(), message.sequence()),
            // No two messages have one version.
            Content::Json(json) => Mark::Version(fingerprint(&json.version)),
        }
    }

    /// What the message does, as in JSON: `SK`, `CMD`.
    pub fn kind(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.kind().as_str(),
            Content::Json(json) => &json.kind,
        }
    }

    /// The publisher's name for the message.
    pub fn message_id(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.id(),
            Content::Json(json) => &json.message_id,
        }
    }

    /// The key.
    pub fn key(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.key(),
            Content::Json(json) => &json.key,
        }
    }

    /// One JSON value, as it was written; `null` of a delete.
    pub fn value(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.body(),
            Content::Json(json) => &json.value,
        }
    }

    /// The node that accepted it.
    pub fn origin(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.origin(),
            Content::Json(json) => &json.origin,
        }
    }

    /// The nodes that it visited, comma-joined.
    pub fn path(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.path(),
            Content::Json(json) => &json.path,
        }
    }

    /// Its target tags, comma-joined; empty without any.
    pub fn tags(&self) -> &str {
        match &self.content {
            Content::Binary(message) => message.tags(),
            Content::Json(json) => &json.tags,
        }
    }

    /// Its version. Sorts byte by byte as the clock does.
    pub fn version(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Binary(message) => {
                write::version_text(message.version(), message.origin()).into()
            }
            Content::Json(json) => json.version.as_str().into(),
        }
    }

    /// The delivery as the node `node` writes it in JSON.
    pub fn to_json(&self, node: &str) -> Text {
        match &self.content {
            Content::Binary(message) => {
                let mut out = BytesMut::new();
                write::delivery_prefix(message, node, &mut out);
                write::delivery_suffix(self.id, self.redelivery, self.conflated, &mut out);
                Text(out.freeze())
            }
            Content::Json(json) => json.frame.clone(),
        }
    }
}

/// Which message a delivery is, as its number may come again in another life of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Its number at its origin, from a binary frame.
    Number(Incarnation, Sequence),
    /// Fingerprint of its version, from JSON.
    Version(u64),
}

/// FNV-1a: short, and the same each time.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What is read out of a delivery. Lists are comma-joined, as in binary frames.
#[derive(Debug, Clone)]
pub(super) struct Json {
    pub(super) frame: Text,
    pub(super) kind: Text,
    pub(super) message_id: Text,
    pub(super) key: Text,
    pub(super) value: Text,
    pub(super) origin: Text,
    pub(super) path: String,
    pub(super) tags: String,
    pub(super) version: Text,
}

/// Text within a received frame. Cloning does not copy it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(pub(super) Bytes);

impl Text {
    /// A part of `frame`.
    pub(super) fn within(frame: &Bytes, part: &str) -> Self {
        if part.is_empty() { Self::default() } else { Self(frame.slice_ref(part.as_bytes())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("it was made from text")
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<Cow<'_, str>> for Text {
    fn from(text: Cow<'_, str>) -> Self {
        Self(text.into_owned().into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The version that a node gave a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Its clock part, from a binary frame.
    Clock(Hlc),
    /// The whole, from JSON.
    Text(Text),
}

impl Version {
    /// Its clock part; `None` of a text that is no version.
    pub fn clock(&self) -> Option<Hlc> {
        match self {
            Self::Clock(clock) => Some(*clock),
            Self::Text(text) => {
                let (wall, rest) = text.split_once('-')?;
                let (count, _) = rest.split_once('-')?;
                let wall = u64::from_str_radix(wall, 16).ok().filter(|wall| wall >> 48 == 0)?;
                let count = u16::from_str_radix(count, 16).ok()?;
                Some(Hlc(wall << 16 | u64::from(count)))
            }
        }
    }
}
