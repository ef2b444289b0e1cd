//! A message in the form in which it travels and rests: one encoding, and views into it.
//!
//! The encoding is postcard of a flat record of integers and strings (no sequences, no maps, so
//! that no length can lie about an allocation). A [`Message`] keeps it as it came and remembers
//! where each field lies; reading a field copies nothing. A node encodes a message once, when it
//! accepts it and puts its own id at the end of the path; the same bytes are stored and sent on.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::types::clock::{Hlc, Timely};
use crate::types::ids::{Hash128, Identity, Incarnation, NodeId, Sequence, is_name};
use crate::types::tags;
use crate::types::time::WallMs;
use crate::types::value;

pub use crate::types::kind::Kind;

/// Longest `messageId`, in bytes.
pub const MAX_MESSAGE_ID_BYTES: usize = 128;

/// Most tags that any node may allow: what is above is no message.
pub const MAX_TAGS: usize = 1024;
/// Longest key that any node may allow, in bytes.
pub const MAX_KEY_BYTES: usize = 64 << 10;
/// Longest path that any node may allow.
pub const MAX_PATH: usize = 4096;
/// The last millisecond that a version can hold.
pub const MAX_WALL: WallMs = WallMs((1 << 48) - 1);

/// The flat record that is encoded. Key and body come last, so that everything before them is one
/// run of bytes: the store keeps that run as a blob and key and body as readable columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fields<'a> {
    /// What the message does.
    pub kind: Kind,
    /// Number of the origin's start.
    pub incarnation: Incarnation,
    /// Number within that start.
    pub sequence: Sequence,
    /// When the origin accepted it.
    pub version: Hlc,
    /// When an event ends, wall-clock milliseconds; 0 for state.
    pub expires: WallMs,
    /// Cluster group of the origin; empty without one.
    pub group: &'a str,
    /// Target tags in canonical form.
    pub tags: &'a str,
    /// Ids of the nodes visited, comma-joined, origin first. Never empty.
    pub path: &'a str,
    /// The publisher's name for the message.
    pub id: &'a str,
    /// The key.
    pub key: &'a str,
    /// One JSON value, as it was written.
    pub body: &'a str,
}

/// What is wrong with a message that came from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// The bytes are not the encoding of a message.
    #[error("not a message")]
    Malformed,
    /// The path is empty, too long, names a node twice, or is no list of node ids.
    #[error("bad path")]
    Path,
    /// The tags are no canonical set, or too many.
    #[error("bad target tags")]
    Tags,
    /// The id is empty or too long.
    #[error("bad message id")]
    Id,
    /// The key is empty or too long.
    #[error("bad key")]
    Key,
    /// The cluster group has not the form of a name.
    #[error("bad cluster group")]
    Group,
    /// State with an expiry, an event without, or number 0.
    #[error("bad number or expiry")]
    Number,
    /// The body is not exactly one JSON value of the shape that the kind has.
    #[error("the body is not one JSON value of its kind")]
    Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// An empty one may lie anywhere, and lies at the front.
    fn new(start: u32, length: u32) -> Self {
        let start = if length == 0 { 0 } else { start };
        Self { start, end: start + length }
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// One message: its encoding and where its fields lie. Cloning shares the encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    encoded: Bytes,
    kind: Kind,
    incarnation: Incarnation,
    sequence: Sequence,
    version: Hlc,
    expires: WallMs,
    group: Span,
    tags: Span,
    path: Span,
    id: Span,
    key: Span,
    body: Span,
}

impl Message {
    /// Encodes `fields` into `buffer`, which is empty, and splits the message off: what room is
    /// left serves the next one, so that many messages share one allocation.
    pub fn encode(fields: &Fields<'_>, buffer: &mut BytesMut) -> Self {
        let room = fields.path.len() + fields.id.len() + fields.key.len() + fields.body.len();
        buffer.reserve(room + 256);
        debug_assert!(buffer.is_empty(), "what is there would become part of the message");
        postcard::serialize_with_flavor(fields, Appender(buffer))
            .expect("appending to memory cannot fail");
        let encoded = buffer.split().freeze();
        let mut end = u32::try_from(encoded.len()).expect("a message is smaller than 4 GiB");
        // From the end to the front: each text has its length before it.
        let texts = [fields.body, fields.key, fields.id, fields.path, fields.tags, fields.group];
        let [body, key, id, path, tags, group] = texts.map(|text| {
            let span = Span::new(end - text.len() as u32, text.len() as u32);
            end -= (varint_length(text.len()) + text.len()) as u32;
            span
        });
        let Fields { kind, incarnation, sequence, version, expires, .. } = *fields;
        Self {
            encoded,
            kind,
            incarnation,
            sequence,
            version,
            expires,
            group,
            tags,
            path,
            id,
            key,
            body,
        }
    }

    /// Takes the first message of `bytes` apart; answers the rest too. Shape only: whether the
    /// content is acceptable says [`Message::check`].
    ///
    /// # Errors
    /// [`BadMessage::Malformed`] if the bytes do not begin with a message.
    pub fn decode(bytes: &Bytes) -> Result<(Self, Bytes), BadMessage> {
        let (fields, rest) =
            postcard::take_from_bytes::<Fields<'_>>(bytes).map_err(|_| BadMessage::Malformed)?;
        let length = bytes.len() - rest.len();
        let base = bytes.as_ptr() as usize;
        let span = |part: &str| {
            let start = (part.as_ptr() as usize).wrapping_sub(base);
            Span::new(start as u32, part.len() as u32)
        };
        if u32::try_from(length).is_err() || fields.path.is_empty() {
            return Err(BadMessage::Malformed);
        }
        let message = Self {
            kind: fields.kind,
            incarnation: fields.incarnation,
            sequence: fields.sequence,
            version: fields.version,
            expires: fields.expires,
            group: span(fields.group),
            tags: span(fields.tags),
            path: span(fields.path),
            id: span(fields.id),
            key: span(fields.key),
            body: span(fields.body),
            encoded: bytes.slice(..length),
        };
        Ok((message, bytes.slice(length..)))
    }

    /// Puts a stored message together again from its blob, key and body.
    ///
    /// # Errors
    /// [`BadMessage::Malformed`] if they do not fit together.
    pub fn from_parts(head: &[u8], key: &str, body: &str) -> Result<Self, BadMessage> {
        let mut buffer = BytesMut::with_capacity(head.len() + key.len() + body.len() + 10);
        buffer.extend_from_slice(head);
        for part in [key, body] {
            postcard::serialize_with_flavor(part, Appender(&mut buffer))
                .map_err(|_| BadMessage::Malformed)?;
        }
        let (message, rest) = Self::decode(&buffer.freeze())?;
        if rest.is_empty() { Ok(message) } else { Err(BadMessage::Malformed) }
    }

    /// The same with `null` as its value, for lists that show none.
    #[must_use]
    pub fn without_value(&self) -> Self {
        Self::from_parts(self.head(), self.key(), "null").expect("its parts are those of a message")
    }

    /// Whether a message from another node is one: well-formed names and numbers, and a body that
    /// is exactly one JSON value of the shape that its kind has. Its lists are held against the
    /// bounds of the protocol, not of this node: what another node has accepted within its own
    /// limits must get through.
    ///
    /// # Errors
    /// [`BadMessage`] says what is not.
    pub fn check(&self) -> Result<(), BadMessage> {
        let fields = self.fields();
        if !tags::is_path(fields.path, MAX_PATH) {
            return Err(BadMessage::Path);
        }
        if !tags::is_canonical(fields.tags, MAX_TAGS) {
            return Err(BadMessage::Tags);
        }
        if !(1..=MAX_MESSAGE_ID_BYTES).contains(&fields.id.len()) {
            return Err(BadMessage::Id);
        }
        if !(1..=MAX_KEY_BYTES).contains(&fields.key.len()) {
            return Err(BadMessage::Key);
        }
        if !fields.group.is_empty() && !is_name(fields.group) {
            return Err(BadMessage::Group);
        }
        let expires = fields.expires != WallMs(0);
        if fields.sequence.get() == 0 || expires == fields.kind.is_state() {
            return Err(BadMessage::Number);
        }
        value::check_value(fields.body).map_err(|_| BadMessage::Body)?;
        value::check_shape(fields.kind, fields.body).map_err(|_| BadMessage::Body)
    }

    /// All fields.
    pub fn fields(&self) -> Fields<'_> {
        Fields {
            kind: self.kind,
            incarnation: self.incarnation,
            sequence: self.sequence,
            version: self.version,
            expires: self.expires,
            group: self.text(self.group),
            tags: self.tags(),
            path: self.path(),
            id: self.id(),
            key: self.key(),
            body: self.body(),
        }
    }

    /// The whole encoding.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The encoding up to where the key begins (with its length). Of a message that this code has
    /// encoded: another one might have written the lengths in more bytes than they need.
    pub fn head(&self) -> &[u8] {
        let [key, body] = [self.key, self.body].map(|part| varint_length(part.len()) + part.len());
        &self.encoded[..self.encoded.len() - body - key]
    }

    /// What the message does.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// When the origin accepted it.
    pub fn version(&self) -> Hlc {
        self.version
    }

    /// When an event ends; `None` for state.
    pub fn expires(&self) -> Option<WallMs> {
        (self.expires != WallMs(0)).then_some(self.expires)
    }

    /// Whether it is an event whose time is over.
    pub fn is_expired(&self, wall: WallMs) -> bool {
        self.expires().is_some_and(|at| at <= wall)
    }

    /// Number of the origin's start.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Number within the origin's start.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Id of the node that accepted it.
    pub fn origin(&self) -> &str {
        self.path().split(',').next().unwrap_or_default()
    }

    /// The identity as an owned value.
    ///
    /// # Panics
    /// If the path was never checked and does not begin with a node id.
    pub fn identity(&self) -> Identity {
        Identity {
            origin: NodeId::new(self.origin()).expect("a checked path begins with a node id"),
            incarnation: self.incarnation,
            sequence: self.sequence,
        }
    }

    /// Cluster group of the origin.
    pub fn group(&self) -> Option<&str> {
        Some(self.text(self.group)).filter(|group| !group.is_empty())
    }

    /// Target tags in canonical form.
    pub fn tags(&self) -> &str {
        self.text(self.tags)
    }

    /// Nodes visited, comma-joined.
    pub fn path(&self) -> &str {
        self.text(self.path)
    }

    /// Whether `node` is on the path.
    pub fn visited(&self, node: &NodeId) -> bool {
        let mut path = self.bytes(self.path).split(|byte| *byte == b',');
        path.any(|id| id == node.as_str().as_bytes())
    }

    /// The node before the last one on the path: of a row, who handed it to the node that holds it.
    pub fn sender(&self) -> Option<&str> {
        self.path().rsplit(',').nth(1)
    }

    /// The publisher's name for the message.
    pub fn id(&self) -> &str {
        self.text(self.id)
    }

    /// The publisher's name for the message, sharing the encoding.
    pub fn id_bytes(&self) -> Bytes {
        self.encoded.slice(self.id.start as usize..self.id.end as usize)
    }

    /// The key.
    pub fn key(&self) -> &str {
        self.text(self.key)
    }

    /// One JSON value, as it was written.
    pub fn body(&self) -> &str {
        self.text(self.body)
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Id, key and body as UTF-8, which is not looked at once more.
    pub fn id_key_body(&self) -> [&[u8]; 3] {
        [self.id, self.key, self.body].map(|text| self.bytes(text))
    }

    /// Hash of key and tag set: two state messages with the same one compete (P6). `None` for
    /// events. All tag sets of a key lie within its [`Hash128::range_of_key`].
    pub fn key_hash(&self) -> Option<Hash128> {
        self.kind.is_state().then(|| Hash128::of_key(self.key(), self.tags()))
    }

    /// The order of versions: by clock, then by identity. Greater is newer.
    pub fn order(&self) -> (Hlc, &str, Incarnation, Sequence) {
        (self.version, self.origin(), self.incarnation, self.sequence)
    }

    /// Whether this is newer than `other` (P6).
    pub fn is_newer_than(&self, other: &Self) -> bool {
        match self.version.cmp(&other.version) {
            core::cmp::Ordering::Equal => self.order() > other.order(),
            unequal => unequal.is_gt(),
        }
    }

    /// Whether this is newer than `other` where versions above `limit` are older than all others
    /// ([`Timely`]).
    pub fn is_newer_within(&self, other: &Self, limit: Hlc) -> bool {
        let is_timely = |message: &Self| message.version <= limit;
        (is_timely(self), self.order()) > (is_timely(other), other.order())
    }

    /// Whether this has outdone another one, of the same key or for other tags: while nothing is
    /// certain, only if it has whichever clock is right. What is passed over by mistake would be
    /// lost (P2).
    pub fn has_outdone(&self, older: &Self, timely: Timely) -> bool {
        timely.agrees(|upto| self.is_newer_within(older, upto))
    }

    fn text(&self, span: Span) -> &str {
        core::str::from_utf8(self.bytes(span)).expect("spans were made from strings")
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.encoded[span.start as usize..span.end as usize]
    }
}

impl core::fmt::Debug for Message {
    /// Never shows the body: values do not belong in logs (P11).
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} {} {}/{:x}/{} path {}",
            self.kind.as_str(),
            self.key(),
            self.origin(),
            self.incarnation.get(),
            self.sequence,
            self.path()
        )
    }
}

/// Bytes that postcard uses for the length `value`.
fn varint_length(value: usize) -> usize {
    let bits = usize::BITS - value.leading_zeros();
    (bits.max(1) as usize).div_ceil(7)
}

/// Lets postcard append to a buffer that is already in use.
pub(crate) struct Appender<'a>(pub(crate) &'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.extend_from_slice(&[byte]);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields<'static> {
        Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(7),
            sequence: Sequence::new(300),
            version: Hlc(1 << 20),
            expires: WallMs(0),
            group: "",
            tags: "aws,gcp",
            path: "a,b",
            id: "m-1",
            key: "order:1",
            body: "{\"amount\":1.10}",
        }
    }

    #[test]
    fn a_message_survives_encoding_and_the_store() {
        let message = Message::encode(&fields(), &mut BytesMut::new());
        assert_eq!(message.fields(), fields());
        assert_eq!(message.check(), Ok(()));
        let stored = Message::from_parts(message.head(), message.key(), message.body());
        assert_eq!(stored, Ok(message.clone()));
        let decoded = Message::decode(message.encoded());
        assert_eq!(decoded, Ok((message, Bytes::new())));
    }

    #[test]
    fn a_key_of_any_length_leaves_the_head_whole() {
        for length in [0, 1, 127, 128, 1024, 16_383, 16_384] {
            let key = "k".repeat(length);
            let message = Message::encode(&Fields { key: &key, ..fields() }, &mut BytesMut::new());
            let stored = Message::from_parts(message.head(), &key, message.body());
            assert_eq!(stored, Ok(message), "{length}");
        }
    }

    // keeps: hostile-input
    #[test]
    fn every_prefix_is_refused() {
        let encoded = Message::encode(&fields(), &mut BytesMut::new()).encoded().clone();
        for end in 0..encoded.len() {
            assert_eq!(Message::decode(&encoded.slice(..end)), Err(BadMessage::Malformed), "{end}");
        }
    }

    #[test]
    fn what_a_node_would_not_send_is_refused() {
        let cases = [
            (Fields { path: "a,a", ..fields() }, BadMessage::Path),
            (Fields { tags: "b,a", ..fields() }, BadMessage::Tags),
            (Fields { id: "", ..fields() }, BadMessage::Id),
            (Fields { key: "", ..fields() }, BadMessage::Key),
            (Fields { group: "å", ..fields() }, BadMessage::Group),
            (Fields { sequence: Sequence::new(0), ..fields() }, BadMessage::Number),
            (Fields { kind: Kind::Cmd, ..fields() }, BadMessage::Number),
            (Fields { body: "1 2", ..fields() }, BadMessage::Body),
            (Fields { kind: Kind::Sa, ..fields() }, BadMessage::Body),
            (Fields { kind: Kind::Dk, ..fields() }, BadMessage::Body),
            (Fields { kind: Kind::Sw, body: r#"{"a":-1}"#, ..fields() }, BadMessage::Body),
        ];
        for (fields, refusal) in cases {
            let message = Message::encode(&fields, &mut BytesMut::new());
            assert_eq!(message.check(), Err(refusal), "{fields:?}");
        }
    }
}
