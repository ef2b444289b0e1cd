//! The configuration as a value: one struct per section, and what the library makes of it.
//!
//! Defaults are not here but in `defaults.toml`. The field names are the keys; what a value means
//! and what changing it trades stands beside its default.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use slipstream_core::config::{
    Config, Durability, Heartbeat, Limits, Reconnect, Retry, Routing, StoreLimits,
};
use slipstream_core::ids::NodeId;
use slipstream_core::tags::TagSet;

use super::units::{self, PeerUrl, Size, SpanText};
use crate::Options;

/// A whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What the node is.
    pub node: NodeSettings,
    /// Where it listens.
    pub listen: ListenSettings,
    /// Whom it dials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerSettings>,
    /// Heartbeat of every link.
    pub heartbeat: HeartbeatSettings,
    /// How dialling is repeated.
    pub reconnect: ReconnectSettings,
    /// How deliveries are repeated.
    pub retry: RetrySettings,
    /// How messages find their way.
    pub routing: RoutingSettings,
    /// What the store may hold.
    pub store: StoreSettings,
    /// Every other bound.
    pub limits: LimitSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // each key is explained beside its default
pub struct NodeSettings {
    #[serde(deserialize_with = "units::node_id")]
    pub id: NodeId,
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_group: Option<String>,
    pub data_dir: PathBuf,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ListenSettings {
    #[serde(deserialize_with = "units::address")]
    pub address: SocketAddr,
    #[serde(deserialize_with = "units::address")]
    pub admin: SocketAddr,
    pub allowed_origins: Vec<String>,
    pub allowed_hosts: Vec<String>,
    pub allow_insecure: bool,
    pub admin_allow_insecure: bool,
}

/// `[[peers]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PeerSettings {
    pub url: PeerUrl,
}

/// `[heartbeat]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HeartbeatSettings {
    pub interval: SpanText,
    pub timeout: SpanText,
}

/// `[reconnect]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReconnectSettings {
    pub initial: SpanText,
    pub max: SpanText,
    #[serde(deserialize_with = "units::count")]
    pub max_attempts: u32,
}

/// `[retry]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RetrySettings {
    pub ack_timeout: SpanText,
    pub max_backoff: SpanText,
    #[serde(deserialize_with = "units::count")]
    pub max_attempts: u32,
    #[serde(deserialize_with = "units::count")]
    pub max_rate: u32,
}

/// `[routing]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RoutingSettings {
    pub offer_delay: SpanText,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StoreSettings {
    pub durability: Durability,
    pub max_bytes: Size,
    pub session_max_bytes: Size,
    pub history_max_bytes: Size,
    pub event_ttl: SpanText,
    pub tombstone_ttl: SpanText,
    pub session_ttl: SpanText,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LimitSettings {
    pub max_message_bytes: Size,
    #[serde(deserialize_with = "units::count")]
    pub max_key_bytes: u32,
    #[serde(deserialize_with = "units::count")]
    pub max_tags: u32,
    #[serde(deserialize_with = "units::count")]
    pub max_json_depth: u32,
    #[serde(deserialize_with = "units::count")]
    pub max_nodes: u32,
    #[serde(deserialize_with = "units::count")]
    pub max_connections: u32,
    pub connections_max_bytes: Size,
    #[serde(deserialize_with = "units::count")]
    pub max_sessions: u32,
    #[serde(deserialize_with = "units::count")]
    pub delivery_window: u32,
    #[serde(deserialize_with = "units::count")]
    pub publish_rate: u32,
    pub max_clock_drift: SpanText,
    pub handshake_timeout: SpanText,
    #[serde(deserialize_with = "units::count")]
    pub idempotency_ids: u32,
    pub idempotency_max_bytes: Size,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LogSettings {
    #[serde(deserialize_with = "units::log_filter")]
    pub level: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Settings {
    /// What the library starts a node from.
    pub fn options(&self) -> Options {
        Options {
            listen: self.listen.address,
            allowed_origins: self.listen.allowed_origins.clone(),
            ..Options::new(self.core_config(), &self.node.data_dir)
        }
    }

    /// The tags of the node.
    ///
    /// # Panics
    /// Never: tags are checked before there is a `Settings`.
    pub fn tags(&self) -> TagSet {
        let tags = self.node.tags.iter().map(String::as_str);
        TagSet::new(tags).expect("tags are checked when the configuration is loaded")
    }

    /// The URLs to dial, with all that they hold.
    pub fn peer_urls(&self) -> Vec<String> {
        self.peers.iter().map(|peer| peer.url.secret().to_owned()).collect()
    }

    /// The part that the core goes by.
    fn core_config(&self) -> Config {
        Config {
            id: self.node.id.clone(),
            tags: self.tags(),
            cluster_group: self.node.cluster_group.clone(),
            peers: self.peer_urls(),
            heartbeat: Heartbeat {
                interval: self.heartbeat.interval.time(),
                timeout: self.heartbeat.timeout.time(),
            },
            reconnect: Reconnect {
                initial: self.reconnect.initial.time(),
                max: self.reconnect.max.time(),
                max_attempts: self.reconnect.max_attempts,
            },
            retry: Retry {
                ack_timeout: self.retry.ack_timeout.time(),
                max_backoff: self.retry.max_backoff.time(),
                max_attempts: self.retry.max_attempts,
                max_rate: self.retry.max_rate,
            },
            routing: Routing { offer_delay: self.routing.offer_delay.time() },
            store: self.store_limits(),
            limits: self.core_limits(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn store_limits(&self) -> StoreLimits {
        StoreLimits {
            durability: self.store.durability,
            max_bytes: self.store.max_bytes.bytes(),
            session_max_bytes: self.store.session_max_bytes.bytes(),
            history_max_bytes: self.store.history_max_bytes.bytes(),
            event_ttl: self.store.event_ttl.time(),
            tombstone_ttl: self.store.tombstone_ttl.time(),
            session_ttl: self.store.session_ttl.time(),
        }
    }

    fn core_limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            max_message_bytes: in_memory(limits.max_message_bytes.bytes()),
            max_key_bytes: limits.max_key_bytes as usize,
            max_tags: limits.max_tags as usize,
            max_json_depth: limits.max_json_depth as usize,
            max_nodes: limits.max_nodes as usize,
            max_connections: limits.max_connections as usize,
            connections_max_bytes: in_memory(limits.connections_max_bytes.bytes()),
            max_sessions: limits.max_sessions as usize,
            delivery_window: limits.delivery_window as usize,
            publish_rate: limits.publish_rate,
            max_clock_drift: limits.max_clock_drift.time(),
            handshake_timeout: limits.handshake_timeout.time(),
            idempotency_ids: limits.idempotency_ids as usize,
            idempotency_max_bytes: in_memory(limits.idempotency_max_bytes.bytes()),
        }
    }
}

/// A size that bounds something in memory.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    // keeps: defaults-agree
    #[test]
    fn the_documented_defaults_are_those_of_the_core() {
        let settings = load("[node]\nid = \"a\"", &[]).expect("only the id is required");
        let ours = settings.core_config();
        let core = slipstream_core::config::Config::new(ours.id.clone());
        assert_eq!(ours.tags, core.tags);
        assert_eq!(ours.cluster_group, core.cluster_group);
        assert_eq!(ours.heartbeat, core.heartbeat);
        assert_eq!(ours.reconnect, core.reconnect);
        assert_eq!(ours.retry, core.retry);
        assert_eq!(ours.store, core.store);
        assert_eq!(ours.limits, core.limits);
    }
}
