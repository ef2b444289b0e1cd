//! JSON frames, both ways, as the protocol fixes them. Values stay as they were written.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A frame from the node: every field that any type has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// `WELCOME`, `SK`, `ACK` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id that the publisher gave, or the node.
    pub message_id: Option<String>,
    /// Key of a delivery.
    pub key: Option<String>,
    /// Value of a delivery, byte for byte.
    pub value: Option<Box<RawValue>>,
    /// The node that accepted the message.
    pub origin_instance_id: Option<String>,
    /// The node that handed it over.
    pub source_instance_id: Option<String>,
    /// The nodes that it visited.
    #[serde(default)]
    pub message_path: Vec<String>,
    /// Target tags; none is absent.
    pub targeted_tags: Option<Vec<String>>,
    /// Cluster group of the origin.
    pub cluster_group_id: Option<String>,
    /// Version; sorts byte by byte.
    pub version: Option<String>,
    /// Number of a delivery.
    pub delivery_id: Option<u64>,
    /// Which repetition a delivery is.
    pub redelivery: Option<u64>,
    /// Values that were left out before a delivery.
    pub conflated: Option<u64>,
    /// `messageId` of the frame that an error answers.
    pub re: Option<String>,
    /// Number of the frame that an error answers.
    pub frame: Option<u64>,
    /// Stable code of an error.
    pub code: Option<String>,
    /// Whether the refused frame may be accepted later.
    pub retryable: Option<bool>,
    /// When it may be.
    pub retry_after_ms: Option<u64>,
    /// What is wrong, for people.
    pub message: Option<String>,
    /// Where in the frame it is wrong.
    pub path: Option<String>,
    /// Whether a receipt is for something that was published before.
    pub duplicate: Option<bool>,
    /// What a receipt stands for.
    pub level: Option<String>,
    /// Id of the node, in a greeting.
    pub instance_id: Option<String>,
    /// Name of the session, in a greeting.
    pub client: Option<String>,
    /// Whether the session was there before, in a greeting.
    pub resumed: Option<bool>,
    /// Tags of the application, in a greeting.
    pub tags: Option<Vec<String>>,
    /// How many deliveries may be unacknowledged, in a greeting.
    pub window: Option<u64>,
    /// Whether a read found a value.
    pub found: Option<bool>,
    /// Kind of what a read found.
    #[serde(rename = "kind")]
    pub of_kind: Option<String>,
    /// Largest value, in a greeting.
    pub max_message_bytes: Option<u64>,
}

impl Frame {
    /// Reads a frame.
    ///
    /// # Panics
    /// If it is not a JSON object with a type.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("bad frame, {error}: {text}"))
    }

    /// Whether it answers a frame of the application.
    pub fn is_answer(&self) -> bool {
        matches!(self.kind.as_str(), "ACK" | "ERR" | "RESULT")
    }

    /// Whether it hands over a message.
    pub fn is_delivery(&self) -> bool {
        matches!(self.kind.as_str(), "SK" | "SA" | "SW" | "DK" | "CMD")
    }

    /// The value as it was written; empty without one.
    pub fn value_text(&self) -> &str {
        self.value.as_deref().map_or("", RawValue::get)
    }

    /// The key.
    ///
    /// # Panics
    /// If there is none.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_else(|| panic!("no key in {self:?}"))
    }

    /// The `messageId`.
    ///
    /// # Panics
    /// If there is none.
    pub fn id(&self) -> &str {
        self.message_id.as_deref().unwrap_or_else(|| panic!("no messageId in {self:?}"))
    }

    /// The number of the delivery.
    ///
    /// # Panics
    /// If there is none.
    pub fn delivery(&self) -> u64 {
        self.delivery_id.unwrap_or_else(|| panic!("no deliveryId in {self:?}"))
    }

    /// The version.
    ///
    /// # Panics
    /// If there is none.
    pub fn version(&self) -> &str {
        self.version.as_deref().unwrap_or_else(|| panic!("no version in {self:?}"))
    }
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    kind: &'static str,
    id: String,
    key: String,
    value: String,
    tags: Vec<String>,
    ttl_ms: Option<u64>,
}

impl Message {
    /// Sets `key` to `value`, which is JSON as it shall be written.
    pub fn state(id: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of("SK", id.into(), key.into(), value.into())
    }

    /// Sets `key` to an array.
    pub fn array(id: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of("SA", id.into(), key.into(), value.into())
    }

    /// Sets `key` to a map of members and weights.
    pub fn weighted(
        id: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        Self::of("SW", id.into(), key.into(), value.into())
    }

    /// Deletes `key`.
    pub fn delete(id: impl Into<String>, key: impl Into<String>) -> Self {
        Self::of("DK", id.into(), key.into(), String::new())
    }

    /// A command.
    pub fn event(id: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of("CMD", id.into(), key.into(), value.into())
    }

    fn of(kind: &'static str, id: String, key: String, value: String) -> Self {
        Self { kind, id, key, value, tags: Vec::new(), ttl_ms: None }
    }

    /// For destinations with one of these tags only.
    #[must_use]
    pub fn tagged(mut self, tags: &[&str]) -> Self {
        self.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self
    }

    /// Ends so many milliseconds after it was accepted.
    #[must_use]
    pub fn lasting_ms(mut self, ttl_ms: u64) -> Self {
        self.ttl_ms = Some(ttl_ms);
        self
    }

    /// Its `messageId`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its value, as written; empty of a delete.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The frame that publishes it.
    pub fn json(&self) -> String {
        let (kind, id, key) = (self.kind, text(&self.id), text(&self.key));
        let mut json = format!(r#"{{"type":"{kind}","messageId":{id},"key":{key}"#);
        if !self.value.is_empty() {
            json.push_str(r#","value":"#);
            json.push_str(&self.value);
        }
        if !self.tags.is_empty() {
            let tags: Vec<_> = self.tags.iter().map(|tag| text(tag)).collect();
            json.push_str(&format!(r#","targetedTags":[{}]"#, tags.join(",")));
        }
        if let Some(ttl_ms) = self.ttl_ms {
            json.push_str(&format!(r#","ttlMs":{ttl_ms}"#));
        }
        json.push('}');
        json
    }
}

/// A string as JSON.
pub fn text(string: &str) -> String {
    serde_json::to_string(string).expect("a string is always JSON")
}
