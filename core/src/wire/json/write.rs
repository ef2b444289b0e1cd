//! The frames of a node, appended to a buffer.
//!
//! What stays true: what is appended is JSON whatever the strings hold, values go out as they came
//! in, and fields keep the order in which `docs/src/protocol.md` shows them. A delivery has two
//! parts, because all of it but its number is the same for every application.

use alloc::string::String;
use core::fmt::Write;

use bytes::BytesMut;

use crate::config::Durability;
use crate::types::clock::Hlc;
use crate::types::ids::Position;
use crate::types::refusal::Refusal;
use crate::types::tags;
use crate::wire::Welcome;
use crate::wire::message::{Kind, Message};

/// Appends what a delivery of `message` by `node` holds before its `deliveryId`: an object that
/// [`delivery_suffix`] ends.
pub fn delivery_prefix(message: &Message, node: &str, out: &mut BytesMut) {
    let path = message.path();
    out.reserve(256 + message.key().len() + message.body().len() + path.len());
    out.extend_from_slice(b"{\"type\":");
    text(message.kind().as_str(), out);
    field("messageId", message.id(), out);
    field("key", message.key(), out);
    value(message, out);
    field("originInstanceId", message.origin(), out);
    field("sourceInstanceId", node, out);
    name("messagePath", out);
    // A stored path ends with this node already.
    let here = tags::list(path).last() != Some(node);
    list(tags::list(path).chain(here.then_some(node)), out);
    if !message.tags().is_empty() {
        name("targetedTags", out);
        list(tags::list(message.tags()), out);
    }
    if let Some(group) = message.group() {
        field("clusterGroupId", group, out);
    }
    version(message.version(), message.origin(), out);
}

/// Ends the delivery that [`delivery_prefix`] began. `redelivery` is how often it was handed over
/// before, `conflated` how many values were left out before this one; 0 is left out.
pub fn delivery_suffix(delivery: Position, redelivery: u32, conflated: u64, out: &mut BytesMut) {
    number("deliveryId", delivery.get(), out);
    if redelivery > 0 {
        number("redelivery", redelivery.into(), out);
    }
    if conflated > 0 {
        number("conflated", conflated, out);
    }
    out.extend_from_slice(b"}");
}

/// Appends the receipt of message `id`, accepted by `node` as `version` (P1, P9).
pub fn receipt(
    id: &str,
    node: &str,
    accepted_as: Hlc,
    duplicate: bool,
    level: Durability,
    out: &mut BytesMut,
) {
    out.reserve(256);
    out.extend_from_slice(b"{\"type\":\"ACK\"");
    field("messageId", id, out);
    field("originInstanceId", node, out);
    field("sourceInstanceId", node, out);
    name("messagePath", out);
    list([node].into_iter(), out);
    version(accepted_as, node, out);
    out.extend_from_slice(match level {
        Durability::Full => b",\"level\":\"durable\"",
        Durability::Normal => b",\"level\":\"written\"",
    });
    if duplicate {
        out.extend_from_slice(b",\"duplicate\":true");
    }
    out.extend_from_slice(b"}");
}

/// Appends the answer to the read `id` of `key`: the newest message of the key, if there is one
/// (P6). What was deleted is not found, and yet has a version.
pub fn result(id: Option<&str>, key: &str, newest: Option<&Message>, out: &mut BytesMut) {
    out.reserve(256 + key.len() + newest.map_or(0, |message| message.body().len()));
    out.extend_from_slice(b"{\"type\":\"RESULT\"");
    match id {
        Some(id) => field("messageId", id, out),
        None => {
            name("messageId", out);
            out.extend_from_slice(b"null");
        }
    }
    field("key", key, out);
    flag("found", newest.is_some_and(|message| message.kind() != Kind::Dk), out);
    if let Some(message) = newest {
        field("kind", message.kind().as_str(), out);
        value(message, out);
        version(message.version(), message.origin(), out);
    }
    out.extend_from_slice(b"}");
}

/// Appends the refusal of the frame with this ordinal (P12).
pub fn error(refusal: &Refusal, frame: u64, out: &mut BytesMut) {
    out.extend_from_slice(b"{\"type\":\"ERR\"");
    name("re", out);
    match &refusal.re {
        Some(id) => text(id, out),
        None => out.extend_from_slice(b"null"),
    }
    number("frame", frame, out);
    field("code", refusal.code.as_str(), out);
    flag("retryable", refusal.code.retryable(), out);
    field("message", &refusal.message, out);
    if let Some(path) = &refusal.path {
        field("path", path, out);
    }
    if let (true, Some(after)) = (refusal.code.retryable(), refusal.retry_after) {
        // Rounded up, so that whoever waits that long does not come too early.
        let after_ms = after.as_nanos().div_ceil(1_000_000);
        number("retryAfterMs", u64::try_from(after_ms).unwrap_or(u64::MAX), out);
    }
    out.extend_from_slice(b"}");
}

/// Appends the greeting. `client` is null without a name, `keys` where all keys are received.
pub fn welcome(welcome: &Welcome, out: &mut BytesMut) {
    out.extend_from_slice(b"{\"type\":\"WELCOME\"");
    field("instanceId", &welcome.instance, out);
    if welcome.client.is_empty() {
        name("client", out);
        out.extend_from_slice(b"null");
    } else {
        field("client", &welcome.client, out);
    }
    flag("resumed", welcome.resumed, out);
    name("tags", out);
    list(tags::list(&welcome.tags), out);
    if let Some(in_force) = &welcome.in_force {
        name("keys", out);
        match &in_force.keys {
            Some(keys) => list(keys.iter().map(String::as_str), out),
            None => out.extend_from_slice(b"null"),
        }
        field("replay", in_force.replay.as_str(), out);
        field("ack", in_force.ack.as_str(), out);
        flag("conflate", in_force.conflate, out);
    }
    number("window", welcome.window.into(), out);
    number("maxMessageBytes", welcome.max_message_bytes, out);
    field("version", &welcome.version, out);
    out.extend_from_slice(b"}");
}

/// Appends the end of the replay.
pub fn synced(out: &mut BytesMut) {
    out.extend_from_slice(b"{\"type\":\"SYNCED\"}");
}

/// What `version` is in JSON: sorts byte by byte as the clock does, then by origin.
pub fn version_text(version: Hlc, origin: &str) -> String {
    alloc::format!("{version}-{origin}")
}

/// The value of what has one: all but a delete.
fn value(message: &Message, out: &mut BytesMut) {
    if message.kind() != Kind::Dk {
        name("value", out);
        out.extend_from_slice(message.body().as_bytes());
    }
}

fn version(version: Hlc, origin: &str, out: &mut BytesMut) {
    name("version", out);
    write!(out, "\"{version}-").expect("appending to memory cannot fail");
    escaped(origin, out);
    out.extend_from_slice(b"\"");
}

/// Begins a field that is not the first. Names of fields hold nothing to escape.
fn name(name: &str, out: &mut BytesMut) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn field(field: &str, value: &str, out: &mut BytesMut) {
    name(field, out);
    text(value, out);
}

fn flag(field: &str, value: bool, out: &mut BytesMut) {
    name(field, out);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn number(field: &str, value: u64, out: &mut BytesMut) {
    name(field, out);
    write!(out, "{value}").expect("appending to memory cannot fail");
}

fn list<'a>(items: impl Iterator<Item = &'a str>, out: &mut BytesMut) {
    out.extend_from_slice(b"[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        text(item, out);
    }
    out.extend_from_slice(b"]");
}

fn text(text: &str, out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    escaped(text, out);
    out.extend_from_slice(b"\"");
}

/// Appends the inside of a string: quotes, backslashes and control characters escaped, all else
/// as it is, run by run (RFC 8259 section 7).
fn escaped(text: &str, out: &mut BytesMut) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => write!(out, "\\u{byte:04x}").expect("appending to memory cannot fail"),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
