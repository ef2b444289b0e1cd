//! What a program writes: a message to publish, and what it wants to receive.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use percent_encoding::utf8_percent_encode;

use crate::types::tags;
use crate::types::value::NO_VALUE;
use crate::wire::Publish;
use crate::wire::application::{AckMode, RESERVED, Replay};
use crate::wire::message::Kind;

/// A message to publish.
///
/// ```
/// use slipstream_core::client::Publication;
///
/// let order = Publication::set("order:123", r#"{"amount": 1.10}"#)
///     .with_id("order-123-paid")
///     .to(["azure", "gcp"]);
/// assert_eq!(order.key(), "order:123");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Publication {
    kind: Kind,
    pub(super) id: String,
    key: String,
    tags: String,
    ttl: Duration,
    body: String,
}

/// Without the value: it may be secret, and has no place in a log (P11).
impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, id, key, tags, .. } = self;
        write!(f, "{} {key} id {id:?} to {tags:?}", kind.as_str())
    }
}

impl Publication {
    fn new(kind: Kind, key: impl Into<String>, body: impl Into<String>) -> Self {
        let (id, tags) = (String::new(), String::new());
        Self { kind, id, key: key.into(), tags, ttl: Duration::ZERO, body: body.into() }
    }

    /// SK: sets a key to one JSON value, which is passed on as it is written here.
    pub fn set(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(Kind::Sk, key, value)
    }

    /// SA: sets a key to a JSON array.
    pub fn set_array(key: impl Into<String>, array: impl Into<String>) -> Self {
        Self::new(Kind::Sa, key, array)
    }

    /// SW: sets a key to a JSON object of weights, each finite and at least 0.
    pub fn set_weights(key: impl Into<String>, weights: impl Into<String>) -> Self {
        Self::new(Kind::Sw, key, weights)
    }

    /// DK: deletes a key.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::new(Kind::Dk, key, NO_VALUE)
    }

    /// CMD: a command, which is an event: each is handed over, none replaces another.
    pub fn command(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(Kind::Cmd, key, value)
    }

    /// A message of this kind; a delete has no value.
    pub fn of_kind(kind: Kind, key: impl Into<String>, value: impl Into<String>) -> Self {
        match kind {
            Kind::Dk => Self::delete(key),
            Kind::Sk | Kind::Sa | Kind::Sw | Kind::Cmd => Self::new(kind, key, value),
        }
    }

    /// `messageId`, up to 128 bytes: what a publisher of one name publishes under one id within a
    /// day is one message (P9); without a name that holds for one connection. Unique within the
    /// cluster group, if the node has one. Empty, or without this, one is made up: enough for
    /// repeats within one [`ClientSession`](super::ClientSession), but not for a program that
    /// starts anew.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// For nodes and applications that have one of these tags; without any: for all.
    #[must_use]
    pub fn to<'a>(mut self, tags: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tags = tags.into_iter().peekable();
        let tagged = tags.peek().is_some();
        self.tags = tags::join(tags);
        if self.tags.is_empty() && tagged {
            // One empty tag would read as none, which is for all: this is refused instead.
            self.tags.push(',');
        }
        self
    }

    /// Time to live of a command, in whole milliseconds, at least one and at most 30 days. Without
    /// it, the node's `store.event_ttl`.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        // Zero means "none" on the wire.
        self.ttl = ttl.max(Duration::from_millis(1));
        self
    }

    /// `messageId`; empty before it was published, unless it was given.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value, as it was written.
    pub fn value(&self) -> &str {
        &self.body
    }

    /// About how much of a frame it takes.
    pub(super) fn bytes(&self) -> usize {
        64 + self.id.len() + self.key.len() + self.tags.len() + self.body.len()
    }

    /// What it is on the wire.
    pub(super) fn record(&self) -> Publish<'_> {
        Publish {
            kind: self.kind,
            id: &self.id,
            key: &self.key,
            tags: &self.tags,
            ttl_ms: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
            body: &self.body,
        }
    }
}

/// What an application wants to receive, and by which name it comes back.
///
/// ```
/// use slipstream_core::application::Replay;
/// use slipstream_core::client::Filter;
///
/// let filter = Filter::named("ledger").keys(["order:"]).replay(Replay::All);
/// assert_eq!(filter.query(), "client=ledger&keys=order%3A&replay=all&ack=manual");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    name: Option<String>,
    tags: Option<Vec<String>>,
    keys: Option<Vec<String>>,
    replay: Option<Replay>,
    ack: Option<AckMode>,
    conflate: bool,
}

impl Filter {
    /// Everything that targets the node's tags, from now on, until the connection ends.
    pub fn all() -> Self {
        Self::default()
    }

    /// A durable session, 1 to 64 of `A-Za-z0-9._-`: what it has not settled is kept for it while
    /// it is away, for `store.session_ttl`. One that is new begins with all that is there.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Nothing: for an application that only publishes.
    pub fn none() -> Self {
        Self { keys: Some(Vec::new()), ..Self::default() }
    }

    /// Tags of this application instead of the node's.
    #[must_use]
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = Some(tags.into_iter().map(Into::into).collect());
        self
    }

    /// Prefixes of the keys to receive; the empty one is that of all keys.
    #[must_use]
    pub fn keys<T: Into<String>>(mut self, prefixes: impl IntoIterator<Item = T>) -> Self {
        let keys: Vec<String> = prefixes.into_iter().map(Into::into).collect();
        self.keys = (!keys.iter().any(String::is_empty)).then_some(keys);
        self
    }

    /// Where the session begins if it is created now.
    #[must_use]
    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay = Some(replay);
        self
    }

    /// Whether taking a delivery settles it, or the application does. Unless said, a named
    /// session's deliveries wait for the application.
    #[must_use]
    pub fn ack(mut self, ack: AckMode) -> Self {
        self.ack = Some(ack);
        self
    }

    /// While it lags, only the newest value of a key.
    #[must_use]
    pub fn conflate(mut self) -> Self {
        self.conflate = true;
        self
    }

    /// Name of the durable session.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether taking a delivery settles it.
    pub fn settles_when_taken(&self) -> bool {
        self.ack.unwrap_or(AckMode::unless_said(self.name.is_some())) == AckMode::Auto
    }

    /// The query string that says it, without the question mark. On the connection everything is
    /// acknowledged, also what taking settles: so the node's window bounds what waits here.
    pub fn query(&self) -> String {
        let mut query = QueryString::default();
        self.add_to(&mut query);
        query.0
    }

    /// [`Filter::query`] behind what is there already. Whoever says there how deliveries are
    /// acknowledged is right.
    pub(super) fn add_to(&self, query: &mut QueryString) {
        if let Some(name) = &self.name {
            query.add("client", [name.as_str()]);
        }
        if let Some(tags) = &self.tags {
            // A comma would make two of one that is no tag: the node is to refuse it.
            let tags: Vec<String> = tags.iter().map(|tag| tag.replace(',', "%2C")).collect();
            query.add("tags", tags.iter().map(String::as_str));
        }
        if let Some(keys) = &self.keys {
            query.add_keys(keys.iter().map(String::as_str));
        }
        if let Some(replay) = self.replay {
            query.add("replay", [replay.as_str()]);
        }
        if !query.has("ack") {
            query.add("ack", [AckMode::Manual.as_str()]);
        }
        if self.conflate {
            query.add("conflate", ["true"]);
        }
    }
}

/// Query parameters, as [`ConnectParams`](crate::wire::application::ConnectParams) reads them.
#[derive(Debug, Default)]
pub struct QueryString(String);

impl QueryString {
    /// Adds to what stands in a query string already.
    pub fn behind(query: &str) -> Self {
        Self(query.into())
    }

    /// Whether a parameter of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.split('&').any(|part| part.split('=').next() == Some(name))
    }

    /// Adds a parameter, a list; without an item it is empty, and that says something, too.
    pub fn add<'a>(&mut self, name: &str, items: impl IntoIterator<Item = &'a str>) {
        let lead = if self.0.is_empty() || self.0.ends_with('&') { "" } else { "&" };
        self.0.extend([lead, name, "="]);
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.0.push(',');
            }
            self.0.extend(utf8_percent_encode(item, RESERVED));
        }
    }

    /// Adds key prefixes; none of them: no key at all. One that holds a comma stands alone.
    pub fn add_keys<'a>(&mut self, prefixes: impl IntoIterator<Item = &'a str>) {
        let (alone, list): (Vec<_>, Vec<_>) =
            prefixes.into_iter().partition(|prefix| prefix.contains(','));
        if alone.is_empty() || !list.is_empty() {
            self.add("keys", list);
        }
        for prefix in alone {
            self.add("key", [prefix]);
        }
    }

    /// The query string, without the question mark.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
