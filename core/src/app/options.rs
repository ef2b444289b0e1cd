//! How a program connects to its node.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use super::{Filter, Settings};
use crate::config::{Config, Heartbeat, Limits, Reconnect};

/// How applications connect.
#[derive(Clone)]
pub struct ClientOptions {
    /// Bearer token.
    pub token: Option<String>,
    /// For connecting, up to and with the node's greeting. Default 5 s.
    pub timeout: Duration,
    /// Messages and reads of one application that may be unanswered, and so in memory. Default
    /// 8192; above that, publishing waits. No more than the node's `limits.idempotency_ids`, or
    /// what a publisher with a name says again after a loss may be taken for new (P9).
    pub window: usize,
    /// Largest frame that is taken. Default 64 MiB.
    pub max_frame_bytes: usize,
    /// When a silent node is given up.
    pub heartbeat: Heartbeat,
    /// When a lost connection is opened again.
    pub reconnect: Reconnect,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            token: None,
            timeout: Duration::from_secs(5),
            window: 8192,
            max_frame_bytes: 64 << 20,
            heartbeat: Heartbeat::default(),
            reconnect: Reconnect::default(),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("timeout", &self.timeout)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Of a client within the process of its node.
    pub fn within(node: &Config) -> Self {
        let (heartbeat, limits) = (node.heartbeat.clone(), &node.limits);
        Self { heartbeat, max_frame_bytes: limits.max_frame_bytes(), ..Self::default() }
    }

    /// What a connection keeps to.
    pub fn limits(&self) -> Limits {
        Limits {
            handshake_timeout: self.timeout,
            max_message_bytes: self.max_frame_bytes / 4,
            ..Limits::default()
        }
    }

    /// How the session of an application with this filter behaves.
    pub fn settings(&self, filter: &Filter, reconnects: bool) -> Settings {
        Settings {
            named: filter.name().is_some(),
            reconnects,
            window: self.window,
            heartbeat: self.heartbeat.clone(),
            reconnect: self.reconnect.clone(),
        }
    }
}
