//! What an application wants to publish, checked and not yet accepted.
//!
//! Text and binary clients meet here, so that each check exists once. What stays true: a
//! [`Draft`] keeps to the limits of this node, its tags are canonical, and its body is exactly one
//! JSON value as it was written. Who may publish, and whether there is room, is decided elsewhere.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::config::Limits;
use crate::types::ids::{Hash128, is_name};
use crate::types::refusal::{Code, Refusal};
use crate::types::value::{self, NO_VALUE, check_value};
use crate::wire;
use crate::wire::message::{Kind, MAX_MESSAGE_ID_BYTES};
use crate::wire::scan;

/// Longest time to live of an event.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A message that an application wants to publish.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft<'a> {
    /// What it does.
    pub kind: Kind,
    /// `messageId`; `None`: the node gives one.
    pub id: Option<Cow<'a, str>>,
    /// The key.
    pub key: Cow<'a, str>,
    /// Target tags in canonical form.
    pub tags: String,
    /// Time to live of an event; `None`: the node's default.
    pub ttl: Option<Duration>,
    /// One JSON value, as it was written, without white space around it.
    pub body: &'a str,
}

impl<'a> Draft<'a> {
    /// Takes what a binary client publishes.
    ///
    /// # Errors
    /// A [`Refusal`] with the same codes and paths as for the JSON frame that says the same.
    pub fn from_wire(publish: &wire::Publish<'a>, limits: &Limits) -> Result<Self, Refusal> {
        let id = Some(publish.id).filter(|id| !id.is_empty());
        if let Some(id) = id {
            check_id(id)?;
        }
        Self::from_record(publish, id, limits)
            .map_err(|refusal| Refusal { re: id.map(String::from), ..refusal })
    }

    fn from_record(
        publish: &wire::Publish<'a>,
        id: Option<&'a str>,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let tags = match publish.tags {
            "" => String::new(),
            // One more than the limit is enough to see that there are too many.
            tags => {
                let tags = tags.split(',').take(limits.max_tags.saturating_add(1));
                canonical_tags(tags.map(Cow::Borrowed).collect(), limits)?
            }
        };
        let draft = Self {
            kind: publish.kind,
            id: id.map(Cow::Borrowed),
            key: Cow::Borrowed(publish.key),
            tags,
            ttl: Some(Duration::from_millis(publish.ttl_ms)).filter(|ttl| !ttl.is_zero()),
            body: match publish.kind {
                Kind::Dk => NO_VALUE,
                Kind::Sk | Kind::Sa | Kind::Sw | Kind::Cmd => {
                    publish.body.trim_matches(scan::WHITE_SPACE)
                }
            },
        };
        draft.check(limits)?;
        let deep = scan::deeper_than(draft.body, limits.max_json_depth).is_some();
        check_value(draft.body)
            .map_err(|bad| refusal(Code::InvalidJson, "$.value", format!("the value is {bad}")))?;
        if deep {
            return Err(too_deep("$.value", limits));
        }
        draft.check_shape()?;
        Ok(draft)
    }

    /// Checks all but what has been seen to already (the form of id and tags, the depth, that the
    /// body is one JSON value) and what only one JSON value has: [`Self::check_shape`].
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        check_key(&self.key, limits)?;
        match (self.kind, self.ttl) {
            (Kind::Sk | Kind::Sa | Kind::Sw | Kind::Dk | Kind::Cmd, None) => {}
            (Kind::Cmd, Some(ttl)) if !ttl.is_zero() && ttl <= MAX_TTL => {}
            (Kind::Cmd, Some(_)) => {
                let message = "ttlMs is not from 1 to 2592000000 (30 days)";
                return Err(refusal(Code::InvalidField, "$.ttlMs", message));
            }
            (Kind::Sk | Kind::Sa | Kind::Sw | Kind::Dk, Some(_)) => {
                let message = "only CMD has a ttlMs; state is valid until it is replaced";
                return Err(refusal(Code::InvalidField, "$.ttlMs", message));
            }
        }
        check_size("value", "$.value", self.body.len(), limits.max_message_bytes)
    }

    /// Checks that the body, one JSON value, has the shape that its kind promises.
    pub(crate) fn check_shape(&self) -> Result<(), Refusal> {
        value::check_shape(self.kind, self.body)
            .map_err(|bad| refusal(Code::InvalidField, "$.value", format!("{bad}")))
    }

    /// Hash of what makes two messages of one id the same to their publisher (P9): kind, key,
    /// value as written, tag set, time to live.
    pub fn content_hash(&self) -> Hash128 {
        let ttl_ms = self.ttl.map(|ttl| ttl.as_millis().to_le_bytes());
        Hash128::of(&[
            &[self.kind.number()],
            self.key.as_bytes(),
            self.body.as_bytes(),
            self.tags.as_bytes(),
            ttl_ms.as_ref().map_or(&[], |ttl_ms| &ttl_ms[..]),
        ])
    }
}

impl core::fmt::Debug for Draft<'_> {
    /// Never shows the body: values do not belong in logs (P11).
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Draft")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("key", &self.key)
            .field("tags", &self.tags)
            .field("ttl", &self.ttl)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Whether `id` may be a `messageId`.
pub(crate) fn check_id(id: &str) -> Result<(), Refusal> {
    if (1..=MAX_MESSAGE_ID_BYTES).contains(&id.len()) {
        return Ok(());
    }
    let message =
        format!("messageId is {} bytes, it may have 1 to {MAX_MESSAGE_ID_BYTES}", id.len());
    Err(refusal(Code::InvalidField, "$.messageId", message))
}

/// Whether `key` may be a key.
pub(crate) fn check_key(key: &str, limits: &Limits) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(refusal(Code::InvalidField, "$.key", "the key is empty"));
    }
    check_size("key", "$.key", key.len(), limits.max_key_bytes)
}

/// The canonical form of target tags in any order. A tag given twice counts as one in the set,
/// and as two against the limit.
pub(crate) fn canonical_tags(
    mut tags: Vec<Cow<'_, str>>,
    limits: &Limits,
) -> Result<String, Refusal> {
    if tags.len() > limits.max_tags {
        let message = format!("more than {} target tags", limits.max_tags);
        return Err(refusal(Code::InvalidField, "$.targetedTags", message));
    }
    if let Some(bad) = tags.iter().position(|tag| !is_name(tag)) {
        return Err(bad_tag(bad));
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.join(","))
}

/// The refusal of the target tag at this place of the list.
pub(crate) fn bad_tag(index: usize) -> Refusal {
    let message = "the tag is not a string of 1 to 64 of A-Za-z0-9._-";
    refusal(Code::InvalidField, &format!("$.targetedTags[{index}]"), message)
}

/// The refusal of what is nested too deeply.
pub(crate) fn too_deep(path: &str, limits: &Limits) -> Refusal {
    let message = format!("nested deeper than the limit of {}", limits.max_json_depth);
    refusal(Code::TooDeep, path, message)
}

/// Refuses what has more bytes than it may.
pub(crate) fn check_size(
    name: &str,
    path: &str,
    bytes: usize,
    limit: usize,
) -> Result<(), Refusal> {
    if bytes <= limit {
        return Ok(());
    }
    let message = format!("{name} is {bytes} bytes, the limit is {limit}");
    Err(refusal(Code::TooLarge, path, message))
}

/// A refusal that points at a part of the frame.
pub(crate) fn refusal(code: Code, path: &str, message: impl Into<String>) -> Refusal {
    Refusal { path: Some(path.into()), ..Refusal::new(code, message) }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    fn publish<'a>() -> wire::Publish<'a> {
        wire::Publish { kind: Kind::Sk, id: "m-1", key: "k", tags: "", ttl_ms: 0, body: "1" }
    }

    fn outcome(publish: &wire::Publish<'_>) -> Result<(), (Code, String)> {
        Draft::from_wire(publish, &Limits::default())
            .map(drop)
            .map_err(|refusal| (refusal.code, refusal.path.unwrap_or_default()))
    }

    fn refused(code: Code, path: &str) -> Result<(), (Code, String)> {
        Err((code, path.to_string()))
    }

    #[test]
    fn a_binary_publish_becomes_a_draft() {
        let record = wire::Publish {
            kind: Kind::Cmd,
            tags: "gcp,aws,gcp",
            ttl_ms: 60_000,
            body: " {\"a\": 1.10}\r\n",
            ..publish()
        };
        let draft = Draft::from_wire(&record, &Limits::default()).expect("a good message");
        assert_eq!(draft.id.as_deref(), Some("m-1"));
        assert_eq!(draft.tags, "aws,gcp");
        assert_eq!(draft.ttl, Some(Duration::from_secs(60)));
        assert_eq!(draft.body, "{\"a\": 1.10}");
        let unnamed = Draft::from_wire(&wire::Publish { id: "", ..publish() }, &Limits::default());
        assert_eq!(unnamed.map(|draft| draft.id), Ok(None));
    }

    #[test]
    fn a_body_is_exactly_one_json_value() {
        for body in ["", " ", "{", "1 2", "nope", "\u{feff}1", "\u{a0}1", "[1,]", "\"\u{1}\""] {
            let outcome = outcome(&wire::Publish { body, ..publish() });
            assert_eq!(outcome, refused(Code::InvalidJson, "$.value"), "{body}");
        }
        for body in ["null", "1e999", "\"\\ud800\"", "[]", "18446744073709551616.10"] {
            assert_eq!(outcome(&wire::Publish { body, ..publish() }), Ok(()), "{body}");
        }
    }

    #[test]
    fn a_set_array_holds_an_array() {
        let array = wire::Publish { kind: Kind::Sa, body: "[1]", ..publish() };
        assert_eq!(outcome(&array), Ok(()));
        let object = wire::Publish { body: "{}", ..array };
        assert_eq!(outcome(&object), refused(Code::InvalidField, "$.value"));
    }

    #[test]
    fn a_set_weighted_holds_members_and_weights() {
        let weighted = wire::Publish { kind: Kind::Sw, body: r#" {"a": 1.10} "#, ..publish() };
        let draft = Draft::from_wire(&weighted, &Limits::default()).expect("good");
        assert_eq!(draft.body, r#"{"a": 1.10}"#);
        for body in ["[]", r#"{"a":-1}"#, r#"{"a":1e999}"#, r#"{"a":"1"}"#, r#"{"a":1,"a":1}"#] {
            let outcome = outcome(&wire::Publish { body, ..weighted });
            assert_eq!(outcome, refused(Code::InvalidField, "$.value"), "{body}");
        }
        let broken = wire::Publish { body: r#"{"a":1"#, ..weighted };
        assert_eq!(outcome(&broken), refused(Code::InvalidJson, "$.value"));
    }

    #[test]
    fn a_delete_has_no_value_and_no_time_to_live() {
        for body in ["", "null", "17"] {
            let delete = wire::Publish { kind: Kind::Dk, body, ..publish() };
            let draft = Draft::from_wire(&delete, &Limits::default()).expect("good");
            assert_eq!(draft.body, "null");
        }
        let delete = wire::Publish { kind: Kind::Dk, ttl_ms: 1, ..publish() };
        assert_eq!(outcome(&delete), refused(Code::InvalidField, "$.ttlMs"));
    }

    #[test]
    fn an_id_has_one_to_128_bytes() {
        let id = "x".repeat(129);
        assert_eq!(outcome(&wire::Publish { id: &id[..128], ..publish() }), Ok(()));
        let beyond = wire::Publish { id: &id, ..publish() };
        assert_eq!(outcome(&beyond), refused(Code::InvalidField, "$.messageId"));
    }

    #[test]
    fn a_key_is_not_empty_and_within_its_limit() {
        let key = "k".repeat(1025);
        assert_eq!(outcome(&wire::Publish { key: &key[..1024], ..publish() }), Ok(()));
        let beyond = wire::Publish { key: &key, ..publish() };
        assert_eq!(outcome(&beyond), refused(Code::TooLarge, "$.key"));
        let empty = wire::Publish { key: "", ..publish() };
        assert_eq!(outcome(&empty), refused(Code::InvalidField, "$.key"));
    }

    #[test]
    fn a_value_above_its_limit_is_refused_with_the_excess() {
        let limits = Limits { max_message_bytes: 4, ..Limits::default() };
        let at_limit = wire::Publish { body: " 1234 ", ..publish() };
        assert!(Draft::from_wire(&at_limit, &limits).is_ok());
        let beyond = wire::Publish { body: "12345", ..publish() };
        let refused = Draft::from_wire(&beyond, &limits).expect_err("too large");
        assert_eq!(refused.code, Code::TooLarge);
        assert_eq!(refused.message, "value is 5 bytes, the limit is 4");
        assert_eq!(refused.path.as_deref(), Some("$.value"));
        assert_eq!(refused.re.as_deref(), Some("m-1"));
    }

    #[test]
    fn depth_is_within_its_limit() {
        let body = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(outcome(&wire::Publish { body: &body(64), ..publish() }), Ok(()));
        let beyond = body(65);
        let beyond = wire::Publish { body: &beyond, ..publish() };
        assert_eq!(outcome(&beyond), refused(Code::TooDeep, "$.value"));
        let bottomless = body(500_000);
        let bottomless = wire::Publish { body: &bottomless, ..publish() };
        assert_eq!(outcome(&bottomless), refused(Code::TooDeep, "$.value"));
    }

    #[test]
    fn tags_are_names_and_within_their_number() {
        let tags: Vec<String> = (0..33).map(|number| format!("t{number}")).collect();
        assert_eq!(outcome(&wire::Publish { tags: &tags[..32].join(","), ..publish() }), Ok(()));
        let beyond = tags.join(",");
        let beyond = wire::Publish { tags: &beyond, ..publish() };
        assert_eq!(outcome(&beyond), refused(Code::InvalidField, "$.targetedTags"));
        let bad = wire::Publish { tags: "a,,b", ..publish() };
        assert_eq!(outcome(&bad), refused(Code::InvalidField, "$.targetedTags[1]"));
    }

    #[test]
    fn only_a_command_has_a_time_to_live_of_at_most_thirty_days() {
        let command = wire::Publish { kind: Kind::Cmd, ..publish() };
        let refusal = refused(Code::InvalidField, "$.ttlMs");
        for (ttl_ms, expected) in
            [(1, Ok(())), (2_592_000_000, Ok(())), (2_592_000_001, refusal.clone())]
        {
            assert_eq!(outcome(&wire::Publish { ttl_ms, ..command }), expected, "{ttl_ms}");
        }
        assert_eq!(outcome(&wire::Publish { ttl_ms: 1, ..publish() }), refusal);
    }

    #[test]
    fn content_is_kind_key_value_tags_and_time_to_live() {
        let draft = |record: &wire::Publish<'_>| {
            Draft::from_wire(record, &Limits::default()).expect("good").content_hash()
        };
        let command = wire::Publish { kind: Kind::Cmd, tags: "a,b", ttl_ms: 1, ..publish() };
        let same = wire::Publish { id: "m-2", tags: "b,a,a", body: " 1 ", ..command };
        assert_eq!(draft(&command), draft(&same));
        let others = vec![
            wire::Publish { kind: Kind::Sk, ttl_ms: 0, ..command },
            wire::Publish { key: "K", ..command },
            wire::Publish { body: "1.0", ..command },
            wire::Publish { tags: "a", ..command },
            wire::Publish { ttl_ms: 2, ..command },
            wire::Publish { ttl_ms: 0, ..command },
        ];
        for other in others {
            assert_ne!(draft(&command), draft(&other), "{other:?}");
        }
    }

    #[test]
    fn a_draft_in_a_log_does_not_show_its_value() {
        let record = wire::Publish { body: "\"secret\"", ..publish() };
        let draft = Draft::from_wire(&record, &Limits::default()).expect("good");
        assert!(!format!("{draft:?}").contains("secret"));
    }
}
